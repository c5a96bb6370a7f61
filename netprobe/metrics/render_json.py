"""Windows as JSON documents (metrics spec 1, 2.3, 15; agent spec 3.4.3)."""

import json
from collections.abc import Sequence
from typing import Any

from netprobe.metrics.keys import GeoNames
from netprobe.metrics.window import RANK_KEYS, Cell, HandlerWindow, document_keys


def render(windows: Sequence[HandlerWindow], geo: GeoNames | None = None) -> dict[str, Any]:
    """One object per handler that writes anything, by :func:`~netprobe.metrics.window.document_keys`."""
    found = {}
    for key, window in zip(document_keys(windows), windows, strict=True):
        body = render_window(window, geo)
        if body is not None:
            found[key] = body
    return found


def render_window(window: HandlerWindow, geo: GeoNames | None = None) -> dict[str, Any] | None:
    """A handler's metrics and its ``period``; None when all its groups are off."""
    body: dict[str, Any] = {}
    wrote = False
    for direction, _, cells in window.sections():
        wrote = True
        for cell in cells:
            value = value_of(cell, geo)
            if value is not None:
                path = cell.metric.path.split(".")
                _put(body, [direction, *path] if direction else path, value)
    if not wrote:
        return None
    body["period"] = {"length": window.length, "start_ts": window.start_ts}
    return body


def dumps(document: Any) -> str:
    """Compact, keys in ascending order, one line with its end. Always valid UTF-8 and valid JSON."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text + "\n"


def _put(body: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        body = body.setdefault(part, {})
    body[path[-1]] = value


def value_of(cell: Cell, geo: GeoNames | None) -> Any:
    """The metric as JSON has it; None: the key is left out."""
    match cell.metric.kind:
        case "counter" | "cardinality":
            return cell.count()
        case "topn":
            return [_row(*row) for row in cell.rows(geo)]
        case "histogram":
            buckets = {text: float(count) for text, count in cell.buckets()}
            return {"buckets": buckets} if buckets else None
        case "quantile" | "rate":
            return _quantiles(cell)


def _row(label: Any, estimate: int) -> dict[str, Any]:
    row = {"name": label.name, "estimate": estimate}
    if label.lat is not None:
        row.update(lat=label.lat, lon=label.lon)
    return row


def _quantiles(cell: Cell) -> dict[str, Any] | None:
    body: dict[str, Any] = {}
    found = cell.quantiles()
    if found is not None:
        number = float if cell.metric.is_float else int
        body.update(zip(RANK_KEYS, map(number, found.values), strict=True))
    if cell.metric.kind == "rate" and (live := cell.live()) is not None:
        body["live"] = live
    return body or None

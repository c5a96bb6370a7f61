"""Windows and totals as Prometheus text the way Prometheus wants it: ``--prom-style modern``.

Counters are counters: they end in ``_total`` and only grow. Histograms have the same boundaries everywhere,
so that they add up over agents. Times are in seconds. What describes a period (distinct counts, most frequent
items, quantiles) is a gauge or a summary of the newest closed period, as in the classic style.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from netprobe._core.sketch.hist import boundaries
from netprobe.metrics.keys import GeoNames
from netprobe.metrics.render_prometheus import NO_LABELS, Family, Labels, LabelTexts, labelled
from netprobe.metrics.table import DIRECTIONS, Metric, is_on
from netprobe.metrics.totals import Totals
from netprobe.metrics.window import RANK_LABELS, Cell, HandlerWindow

__all__ = ["Counted", "Form", "families", "form_of"]

US = 1e-6
# of transaction times, in microseconds: boundaries of the metrics spec 1.6, three to a decade, 10 µs to 100 s
BOUNDS_US = tuple(
    min(boundaries(True), key=lambda bound, i=i: abs(bound - 10 ** (i / 3)))  # type: ignore[misc]
    for i in range(3, 25)
)
# counters that say how many there are, and not how many have come
NOW = {"resources_policy_count": "resources_policies", "resources_handler_count": "resources_handlers"}


class Form(NamedTuple):
    """What a metric is called here, its Prometheus type, and what its values are multiplied by."""

    name: str
    type: str
    scale: float = 1.0


class Counted(NamedTuple):
    """A handler's totals, under the labels of its windows."""

    window: HandlerWindow
    totals: Totals


def form_of(metric: Metric) -> Form:
    name = metric.prom
    if name in NOW:
        return Form(NOW[name], "gauge")
    # camel case, as in geoLoc, and capitals
    name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
    match metric.kind:
        case "counter":
            return Form(f"{name.removesuffix('_total')}_total", "counter")
        case "cardinality" | "topn":
            return Form(name, "gauge")
        case "rate":
            return Form(name.removesuffix("_total"), "summary")
        case "quantile" | "histogram":
            kind = "summary" if metric.kind == "quantile" else "histogram"
            if name.endswith("_us"):
                stem = name.removesuffix("_us").removesuffix("_quantiles")
                stem = re.sub("_histogram$", "_duration", stem)
                return Form(f"{stem}_seconds", kind, US)
            if name.endswith("payload_size"):
                name += "_bytes"
            return Form(name.removesuffix("_quantiles").removesuffix("_histogram"), kind)


def families(
    windows: Iterable[HandlerWindow],
    counted: Callable[[HandlerWindow], Totals],
    geo: GeoNames | None = None,
    static: Mapping[str, str] | None = None,
) -> dict[str, Family]:
    """Families by name. ``counted`` gives the totals that belong to a window's handler."""
    found: dict[str, Family] = {}

    def put(metric: Metric, text: LabelTexts, samples: Iterator[tuple[str, Labels, str]]) -> None:
        lines = [f"{name}{text.with_more(own)} {value}" for name, own, value in samples]
        if lines:
            form = form_of(metric)
            about = metric.help.replace("microseconds", "seconds")
            found.setdefault(form.name, Family(about, form.type)).lines += lines

    for labels, window in labelled(list(windows)):
        totals = counted(window)
        cells = {(d, cell.metric.path): cell for d, _, some in window.sections() for cell in some}
        texts = {
            direction: LabelTexts({**labels, "direction": direction} if direction else labels, static)
            for direction in ("", *DIRECTIONS)
        }
        for direction, metric in _rows(window, totals):
            at = direction, metric.path
            put(metric, texts[direction], _samples(metric, at, totals, cells.get(at), geo))
    return found


def _rows(window: HandlerWindow, totals: Totals) -> Iterator[tuple[str, Metric]]:
    """The handler's metrics that are on; of directions, those that have ever seen anything."""
    table, groups = window.table, window.config.groups
    if table.groups and not groups:
        return
    for metric in table.metrics:
        if is_on(metric, groups):
            yield "", metric
    used = {direction for direction, _, _ in window.sections()} | {
        direction for direction, _ in totals.counts
    }
    for direction in DIRECTIONS:
        if direction in used:
            for metric in table.block_metrics:
                if is_on(metric, groups):
                    yield direction, metric


def _samples(
    metric: Metric,
    at: tuple[str, str],
    totals: Totals,
    cell: Cell | None,
    geo: GeoNames | None,
) -> Iterator[tuple[str, Labels, str]]:
    name, kind, scale = form_of(metric)
    if kind == "counter":
        yield name, NO_LABELS, str(totals.counts[at])
    elif kind == "histogram":
        yield from _histogram(name, totals, at, scale)
    elif kind == "summary":
        values = cell.quantiles() if cell is not None else None
        if values is not None:
            for rank, value in zip(RANK_LABELS, values.values, strict=True):
                yield name, {"quantile": rank}, _number(value * scale)
        if at in totals.sums:
            count, total = totals.sums[at]
            yield f"{name}_sum", NO_LABELS, _number(total * scale)
            yield f"{name}_count", NO_LABELS, str(count)
    elif cell is not None and metric.kind == "topn":
        for row in cell.rows(geo):
            own = {metric.label: row.label.name}
            if row.label.lat is not None and row.label.lon is not None:
                own.update(lat=row.label.lat, lon=row.label.lon)
            yield name, own, str(row.estimate)
    elif cell is not None:
        yield name, NO_LABELS, str(cell.count())


def _histogram(
    name: str, totals: Totals, at: tuple[str, str], scale: float
) -> Iterator[tuple[str, Labels, str]]:
    spread = totals.spreads.get(at)
    if spread is None:
        return
    # each value lies in an interval that ends at one of the boundaries of the metrics spec, and so do ours
    for bound in BOUNDS_US:
        upto = sum(count for upper, count in spread.items() if upper <= bound)
        yield f"{name}_bucket", {"le": _number(bound * scale)}, str(upto)
    total = sum(spread.values())
    yield f"{name}_bucket", {"le": "+Inf"}, str(total)
    # the sum of the same values, where a quantile beside the histogram keeps it
    for path in (at[1].replace("histogram", "quantiles"), at[1].replace("histogram", "time")):
        count, values = totals.sums.get((at[0], path), (0, 0.0))
        if count == total:
            yield f"{name}_sum", NO_LABELS, _number(values * scale)
            break
    yield f"{name}_count", NO_LABELS, str(total)


def _number(value: float) -> str:
    """Short, and exact enough that a sum still moves."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return "+Inf" if math.isinf(value) else f"{value:.12g}"

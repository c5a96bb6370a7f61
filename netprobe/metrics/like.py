"""Like handlers added together: ``merge_like_handlers`` of a policy (agent spec 3.4.2, metrics spec 2.5).

Counters and sketches are merged. Quantiles and rates are added, percentile by percentile: what two taps see
of one service at the same time is more than either sees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from netprobe.metrics.table import DEFAULT_VERSION
from netprobe.metrics.window import Block, HandlerWindow

SUFFIX = "_merged"


class SummedBlock:
    """Several blocks of one handler as one, for renderers.

    The count of a quantile is that of all values, that of a rate the seconds of the part that has most: they
    passed at the same time.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        """The parts stay as they are."""
        self._parts = list(parts)
        self._whole: Any = _joined(parts)

    def clone(self) -> SummedBlock:
        return SummedBlock([part.clone() for part in self._parts])

    def merge(self, other: Any, same_span: bool) -> None:
        """Take in another time of the same handlers, part by part; ValueError for anything else."""
        theirs = other._parts if isinstance(other, SummedBlock) else []
        if len(theirs) != len(self._parts):
            raise ValueError("blocks of other handlers cannot be merged")
        for mine, part in zip(self._parts, theirs, strict=True):
            mine.merge(part, same_span=same_span)
        self._whole = _joined(self._parts)

    @property
    def used(self) -> bool:
        return any(part.used for part in self._parts)

    def counter(self, index: int, /) -> int:
        return int(self._whole.counter(index))

    def cardinality(self, index: int, /) -> int:
        return int(self._whole.cardinality(index))

    def topn(self, index: int, limit: int | None = None, /) -> Sequence[tuple[bytes, int]]:
        found: Sequence[tuple[bytes, int]] = self._whole.topn(index, limit)
        return found

    def histogram(self, index: int, /) -> tuple[Sequence[tuple[float, int]], int] | None:
        found: tuple[Sequence[tuple[float, int]], int] | None = self._whole.histogram(index)
        return found

    def quantiles(self, index: int, ranks: Sequence[float], /) -> Sequence[float] | None:
        return _added(part.quantiles(index, ranks) for part in self._parts)

    def quantile_count(self, index: int, /) -> int:
        return sum(part.quantile_count(index) for part in self._parts)

    def quantile_sum(self, index: int, /) -> float:
        return float(sum(part.quantile_sum(index) for part in self._parts))

    def rate(self, index: int, ranks: Sequence[float], /) -> tuple[Sequence[float], int, float] | None:
        found = [rate for part in self._parts if (rate := part.rate(index, ranks)) is not None]
        values = _added(rate[0] for rate in found)
        if values is None:
            return None
        return values, max(rate[1] for rate in found), float(sum(rate[2] for rate in found))

    def live(self, index: int, /) -> int:
        return sum(int(part.live(index)) for part in self._parts if hasattr(part, "live"))


def _joined(parts: Sequence[Any]) -> Any:
    whole = parts[0].clone()
    for part in parts[1:]:
        whole.merge(part, same_span=False)
    return whole


def _added(rows: Iterable[Sequence[float] | None]) -> Sequence[float] | None:
    found = [row for row in rows if row is not None]
    return [sum(column) for column in zip(*found, strict=True)] if found else None


def merge_like(windows: Sequence[HandlerWindow]) -> list[HandlerWindow]:
    """One window per handler type and version, in the order of their first members.

    Labels: ``handler`` is ``<schema key>_merged``, there is no ``tap``. Groups that any member has are shown;
    members without any group write nothing and are left out. Other settings are the first member's.
    """
    groups: dict[tuple[str, str], list[HandlerWindow]] = {}
    for window in windows:
        if window.config.groups or not window.table.groups:
            groups.setdefault((window.table.type, window.table.version), []).append(window)
    keys = [found[0].table.key for found in groups.values()]
    return [_summed(found, keys) for found in groups.values()]


def _summed(windows: Sequence[HandlerWindow], keys: Sequence[str]) -> HandlerWindow:
    first = windows[0]
    start = min(window.start_ts for window in windows)
    end = max(window.start_ts + window.length for window in windows)
    labels = {name: text for name, text in first.labels.items() if name != "tap"}
    config: Any = first.config
    union = frozenset[str]().union(*(window.config.groups for window in windows))
    if union != config.groups:
        config = replace(config, groups=union)
    return replace(
        first,
        config=config,
        # a set that no input has fed yet has no blocks at all
        blocks=[_block(column) for column in zip_longest(*(window.blocks for window in windows))],
        start_ts=start,
        length=end - start,
        read_only=all(window.read_only for window in windows),
        recorded=all(window.recorded for window in windows),
        live=any(window.live for window in windows),
        labels={**labels, "handler": _name(first, keys)},
    )


def _name(window: HandlerWindow, keys: Sequence[str]) -> str:
    """``dns_merged``; where two versions share a key, ``dns_v2_merged`` for the other than 1.0."""
    key, version = window.table.key, window.table.version
    if keys.count(key) > 1 and version != DEFAULT_VERSION:
        key = f"{key}_v{version.split('.')[0]}"
    return key + SUFFIX


def _block(parts: Sequence[Block | None]) -> Block | None:
    found = [part for part in parts if part is not None]
    return SummedBlock(found) if len(found) > 1 else found[0] if found else None

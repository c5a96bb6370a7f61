"""What handlers have counted since they began: closed buckets added up, the open one on top.

A window's numbers fall back when it rotates. Prometheus wants counters that only grow: these do, as long as
each closed bucket is taken in before it is dropped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from netprobe.metrics.window import HandlerWindow

__all__ = ["Buckets", "Lifetime", "Totals"]

# direction ("" at the top level) and path of a metric
Place = tuple[str, str]
# how often a look may be disturbed by a period that ends meanwhile
ATTEMPTS = 5


@dataclass(slots=True)
class Totals:
    """Sums over any number of windows of one handler.

    ``counts``: counters. ``sums``: of quantiles and rates, how many values and their sum. ``spreads``: of
    histograms, values by the upper boundary of their interval.
    """

    counts: Counter[Place] = field(default_factory=Counter)
    sums: dict[Place, tuple[int, float]] = field(default_factory=dict)
    spreads: dict[Place, Counter[float]] = field(default_factory=dict)

    def add(self, window: HandlerWindow) -> None:
        """Take in a window's counters, quantiles, rates and histograms, as far as its groups show them."""
        for direction, _, cells in window.sections():
            for cell in cells:
                at = direction, cell.metric.path
                match cell.metric.kind:
                    case "counter":
                        self.counts[at] += cell.count()
                    case "quantile" | "rate":
                        found = cell.quantiles()
                        if found is not None:
                            self._sum(at, found.count, float(found.sum))
                    case "histogram":
                        self._spread(at, cell.block.histogram(cell.index))

    def merge(self, other: Self) -> None:
        self.counts.update(other.counts)
        for at, (count, total) in other.sums.items():
            self._sum(at, count, total)
        for at, spread in other.spreads.items():
            self.spreads.setdefault(at, Counter()).update(spread)

    def copy(self) -> Totals:
        spreads = {at: Counter(spread) for at, spread in self.spreads.items()}
        return Totals(Counter(self.counts), dict(self.sums), spreads)

    def _sum(self, at: Place, count: int, total: float) -> None:
        before = self.sums.get(at, (0, 0.0))
        self.sums[at] = before[0] + count, before[1] + total

    def _spread(self, at: Place, found: tuple[Sequence[tuple[float, int]], int] | None) -> None:
        if found is None:
            return
        bounds, total = found
        spread = self.spreads.setdefault(at, Counter())
        before = 0
        for bound, cumulative in (*bounds, (math.inf, total)):
            spread[bound] += cumulative - before
            before = cumulative


class Buckets(Protocol):
    """The buckets of some handlers that turn over together (``netprobe.policy.running.HandlerSet``)."""

    @property
    def names(self) -> Sequence[str]: ...
    def accumulated(self) -> int: ...
    def bucket(self, n: int, /) -> list[HandlerWindow]: ...


class Lifetime:
    """The totals of one :class:`Buckets`. Not for two threads at once."""

    def __init__(self) -> None:
        self._closed: list[Totals] = []
        # start of the newest bucket that was taken in, seconds since 1970
        self._last: int | None = None

    def fold(self, buckets: Buckets) -> list[HandlerWindow]:
        """Take in what was closed since the last time; the windows of the open bucket."""
        for _ in range(ATTEMPTS):
            live = buckets.bucket(0)
            fresh = []
            for n in range(1, buckets.accumulated()):
                windows = buckets.bucket(n)
                if self._last is not None and windows[0].start_ts <= self._last:
                    break
                fresh.append(windows)
            # if a period ended just now, the open bucket is one of those that are closed
            if not fresh or fresh[0][0].start_ts < live[0].start_ts:
                after = buckets.bucket(0)
                if after[0].start_ts == live[0].start_ts:
                    self._take(fresh)
                    return live
        self._take(fresh)
        return live

    def _take(self, fresh: list[list[HandlerWindow]]) -> None:
        for windows in reversed(fresh):
            if not self._closed:
                self._closed = [Totals() for _ in windows]
            for totals, window in zip(self._closed, windows, strict=True):
                totals.add(window)
            self._last = windows[0].start_ts

    def read(self, buckets: Buckets) -> list[tuple[HandlerWindow, Totals]]:
        """The open window of each handler, and its totals including that."""
        live = self.fold(buckets)
        found = []
        for index, window in enumerate(live):
            totals = self._closed[index].copy() if self._closed else Totals()
            totals.add(window)
            found.append((window, totals))
        return found

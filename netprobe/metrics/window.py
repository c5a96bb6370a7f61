"""A handler's window: metric blocks, the time that they cover, and the settings that shape the output."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

from netprobe.errors import PeriodError
from netprobe.metrics.keys import JOINED, GeoNames, Label
from netprobe.metrics.table import (
    BLOCK_PREFIX,
    DEFAULT_VERSION,
    DIRECTIONS,
    HandlerTable,
    Metric,
    index_of,
    is_on,
)
from netprobe.metrics.topn import top_rows

# the quantiles that documents show, and their names in JSON and in Prometheus labels
RANKS = (0.5, 0.9, 0.95, 0.99)
RANK_KEYS = ("p50", "p90", "p95", "p99")
RANK_LABELS = ("0.5", "0.9", "0.95", "0.99")


class Block(Protocol):
    """What a window needs of a metric block (``netprobe._core.store.MetricBlock``)."""

    @property
    def used(self) -> bool:
        """Was anything recorded? Direction blocks appear only then."""

    def counter(self, index: int, /) -> int: ...
    def cardinality(self, index: int, /) -> int: ...
    def topn(self, index: int, limit: int | None = None, /) -> Sequence[tuple[bytes, int]]: ...
    def quantiles(self, index: int, ranks: Sequence[float], /) -> Sequence[float] | None: ...
    def quantile_count(self, index: int, /) -> int: ...
    def quantile_sum(self, index: int, /) -> float: ...
    def histogram(self, index: int, /) -> tuple[Sequence[tuple[float, int]], int] | None: ...
    def rate(self, index: int, ranks: Sequence[float], /) -> tuple[Sequence[float], int, float] | None: ...


class Settings(Protocol):
    """What a window needs of a handler's configuration (``netprobe.handlers.config.HandlerConfig``)."""

    @property
    def name(self) -> str: ...
    @property
    def groups(self) -> frozenset[str]: ...
    @property
    def topn_count(self) -> int: ...
    @property
    def topn_percentile_threshold(self) -> int: ...


class TopRow(NamedTuple):
    label: Label
    estimate: int


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Values at RANKS, how many values they stand for, and the sum of those."""

    values: Sequence[float]
    count: int
    sum: float


@dataclass(slots=True)
class HandlerWindow:
    """One handler's share of a document.

    ``blocks`` are the top level and, where the handler has them, the blocks in, out, unknown; None: absent.
    ``start_ts`` is in seconds since the epoch, ``length`` in seconds. ``read_only``: the bucket is closed.
    ``recorded``: timed by packets alone. ``live``: show the last second of rates, for callers that want it.
    ``labels`` go on every Prometheus sample. ``index`` is where the blocks hold what (by default as bound).
    """

    table: HandlerTable
    config: Settings
    blocks: Sequence[Block | None]
    start_ts: int
    length: int
    read_only: bool = False
    recorded: bool = False
    live: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    index: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.index:
            self.index = index_of(self.table)

    def sections(self) -> Iterator[tuple[str, Block, Iterator["Cell"]]]:
        """The blocks that exist, as (direction or "", block, the values that the groups let through)."""
        # all groups off: the handler writes nothing at all, not even its event counters
        if self.table.groups and not self.config.groups:
            return
        for direction, block in zip(("", *DIRECTIONS), self.blocks, strict=False):
            if block is None or (direction and not block.used):
                continue
            rows = self.table.block_metrics if direction else self.table.metrics
            yield direction, block, self._cells(rows, BLOCK_PREFIX if direction else "", block)

    def _cells(self, rows: Sequence[Metric], prefix: str, block: Block) -> Iterator["Cell"]:
        for metric in rows:
            if is_on(metric, self.config.groups):
                yield Cell(self, metric, block, self.index[prefix + metric.path])

    @property
    def shows_live(self) -> bool:
        return self.live and not self.read_only and not self.recorded

    def with_labels(self, **labels: str) -> Self:
        """The same window with more Prometheus labels."""
        return replace(self, labels={**self.labels, **labels})


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one block, read when a renderer asks."""

    window: HandlerWindow
    metric: Metric
    block: Block
    index: int

    def count(self) -> int:
        """A counter's value, or a cardinality's estimate."""
        if self.metric.kind == "counter":
            return self.block.counter(self.index)
        return self.block.cardinality(self.index)

    def quantiles(self) -> Quantiles | None:
        """Of a quantile or a rate; None when no value was seen."""
        if self.metric.kind == "rate":
            found = self.block.rate(self.index, RANKS)
            return None if found is None else Quantiles(*found)
        values = self.block.quantiles(self.index, RANKS)
        if values is None:
            return None
        return Quantiles(values, self.block.quantile_count(self.index), self.block.quantile_sum(self.index))

    def live(self) -> int | None:
        """A rate's last whole second, in windows that show it."""
        if not (self.window.shows_live and self.metric.live):
            return None
        # live buckets alone keep it
        read = getattr(self.block, "live", None)
        return 0 if read is None else int(read(self.index))

    def buckets(self) -> list[tuple[str, int]]:
        """A histogram's (boundary text, values up to it), the last ``+Inf``; empty when no value was seen."""
        found = self.block.histogram(self.index)
        if found is None:
            return []
        bounds, total = found
        form = "{:.6f}" if self.metric.is_float else "{:.0f}"
        return [*((form.format(bound), cumulative) for bound, cumulative in bounds), ("+Inf", total)]

    def rows(self, geo: GeoNames | None = None) -> list[TopRow]:
        """A TopN's rows as configured, best first; no two with the same name and place."""
        render = self.metric.render
        assert render is not None, self.metric.path
        settings = self.window.config
        limits = settings.topn_count, settings.topn_percentile_threshold
        if render in JOINED:
            items = self.block.topn(self.index)
            joined = _joined((render(key, geo), estimate) for key, estimate in items)
            return [TopRow(label, estimate) for label, estimate in top_rows(joined, *limits)]
        items = top_rows(self.block.topn(self.index, settings.topn_count), *limits)
        # hardly any share a text here, but two samples with the same labels would be no valid output
        best = _joined((render(key, geo), estimate) for key, estimate in items)
        return [TopRow(label, estimate) for label, estimate in best]


def _joined(rows: Iterator[tuple[Label, int]]) -> list[tuple[Label, int]]:
    """Rows of one name as one row, best first: estimates add up, the first row's coordinates stay."""
    found: dict[str, tuple[Label, int]] = {}
    for label, estimate in rows:
        label, before = found.get(label.name, (label, 0))
        found[label.name] = label, before + estimate
    return sorted(found.values(), key=lambda row: -row[1])


# --- several windows ---


def document_keys(windows: Sequence[HandlerWindow]) -> list[str]:
    """The JSON key of each window in one document.

    Where two versions of a handler share a key, the default version keeps it and the other is suffixed
    (``dns``, ``dns_v2``). Handlers of one type and version are numbered from the second on (``dns_2``), in
    the order in which they were asked for.
    """
    versions: dict[str, set[str]] = {}
    for window in windows:
        versions.setdefault(window.table.key, set()).add(window.table.version)
    found: list[str] = []
    taken: set[str] = set()
    numbers: dict[str, int] = {}
    for window in windows:
        key, version = window.table.key, window.table.version
        if len(versions[key]) > 1 and version != DEFAULT_VERSION:
            key = f"{key}_v{version.split('.')[0]}"
        base = key
        while key in taken:
            # where the last one of this name left off: an agent may have thousands
            numbers[base] = numbers.get(base, 1) + 1
            key = f"{base}_{numbers[base]}"
        taken.add(key)
        found.append(sys.intern(key))
    return found


def merged(windows: Sequence[HandlerWindow], blocks: Sequence[Block | None]) -> HandlerWindow:
    """One window over several of one handler, newest first, from their merged blocks (metrics spec 2.5).

    It starts with the earliest. Recorded lengths add up, so that gaps between captures do not count; else it
    reaches to the end of the newest. The handler's TopN settings hold as in a single window.
    """
    start = min(window.start_ts for window in windows)
    recorded = all(window.recorded for window in windows)
    if recorded:
        length = sum(window.length for window in windows)
    else:
        length = max(window.start_ts + window.length for window in windows) - start
    return replace(
        windows[0],
        blocks=blocks,
        start_ts=start,
        length=length,
        read_only=all(window.read_only for window in windows),
        recorded=recorded,
    )


def merge_blocks(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Blocks of different spans of time, newest first, as one; the originals stay as they are."""
    whole: list[Any] = []
    for blocks in zip(*parts, strict=True):
        into = None
        for block in blocks:
            if block is None:
                continue
            if into is None:
                into = block.clone()
            else:
                into.merge(block, same_span=False)
        whole.append(into)
    return whole


def check_bucket(period: int, periods: int, present: int) -> None:
    """PeriodError unless bucket ``period`` (0: the live one) is among the ``present`` of ``periods``."""
    if not 0 <= period < periods:
        raise PeriodError(f"invalid metrics period, specify [0, {periods - 1}]")
    if period >= present:
        raise PeriodError(
            f"requested metrics period has not yet accumulated, current range is [0, {present - 1}]"
        )


def check_window(count: int, periods: int) -> None:
    """PeriodError unless a window may be merged of ``count`` buckets where ``periods`` are kept."""
    if not 2 <= count <= periods:
        raise PeriodError(f"invalid metrics period, specify [2, {periods}]")


def window_key(periods: int) -> str:
    """The top key of a document over so many periods (metrics spec 2.5)."""
    return f"{periods}m"

"""One policy's handlers on one input: what they count, bucket by bucket (agent spec 3.4.1, appendix A)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from netprobe._core.engine import Engine
from netprobe.errors import ConfigError
from netprobe.handlers.build import MAX_HANDLERS, accumulators, chains, handler_losses
from netprobe.handlers.config import HandlerConfig, HandlerSpec
from netprobe.metrics.render_json import value_of
from netprobe.metrics.window import HandlerWindow, check_bucket, check_window, merge_blocks, merged

if TYPE_CHECKING:
    from netprobe._core.feed import Feed
    from netprobe.geo import GeoNames

__all__ = ["EVENT_COUNTERS", "HandlerSet"]

NS = 1_000_000_000
STREAM_LIMIT = 300_000
RESOURCES = "input_resources"
# a storm of readers copies an open bucket no more often than this, in seconds
FRESH = 0.1
# and keeps its copies no longer than this after the last look
KEEP = 5.0
# where a handler counts its events, the sampled ones, and their rate (metrics spec 2.7)
EVENT_COUNTERS = {
    ("net", "1.0"): ("events", "deep_samples", "rates.pps_events"),
    ("net", "2.0"): ("observed_packets", "deep_sampled_packets", "rates.observed_pps"),
    ("dns", "1.0"): ("wire_packets.events", "wire_packets.deep_samples", "rates.events"),
    ("dns", "2.0"): ("observed_packets", "deep_sampled_packets", "rates.observed_pps"),
    ("dhcp", "1.0"): ("wire_packets.events", "wire_packets.deep_samples", "rates.events"),
    ("bgp", "1.0"): ("wire_packets.events", "wire_packets.deep_samples", "rates.events"),
    (RESOURCES, "1.0"): ("total", "deep_samples", "event_rate"),
}

Blocks = Sequence[Any]


@dataclass(frozen=True, slots=True, eq=False)
class _Period:
    """A bucket: its number, its bounds in nanoseconds (``end`` None: it is open), blocks by handler."""

    number: int
    start: int
    end: int | None
    handlers: Sequence[Blocks]


class _View:
    """The buckets at one moment, newest first, and the windows that somebody asked for meanwhile."""

    def __init__(self, periods: Sequence[_Period], taken: float) -> None:
        self.periods = periods
        self.taken = taken
        self.merged: dict[int, list[list[Any]]] = {}


class HandlerSet:
    """Handlers that are built and count as soon as an input feeds them.

    specs, configs, names: of each handler. periods: how many buckets are kept (1 to 10).
    deep_sample_rate: percent of packets whose addresses and names are looked at.
    ConfigError for more handlers than one set can have.
    """

    def __init__(
        self,
        specs: Sequence[HandlerSpec],
        configs: Sequence[HandlerConfig],
        names: Sequence[str],
        *,
        geo: GeoNames | None = None,
        periods: int = 5,
        deep_sample_rate: int = 100,
        seed: int = 0,
    ) -> None:
        if not 1 <= len(specs) <= MAX_HANDLERS:
            raise ConfigError(f"handlers: {len(specs)} of them, expected 1 to {MAX_HANDLERS}")
        self.specs = list(specs)
        self.configs = list(configs)
        self.names = list(names)
        self.periods = min(max(periods, 1), 10)
        self.deep_sample_rate = min(max(deep_sample_rate, 1), 100)
        self._seed = seed
        self._accumulators = accumulators(self.specs, self.configs, geo)
        self._chains = chains(self.specs)
        #: handlers, a chain counting as one
        self.chain_count = len(self._chains)
        #: it reports what the input costs, and is no policy of somebody's
        self.is_resources = all(config.type == RESOURCES for config in self.configs)
        self.wants_drops = any(config.type == "pcap" for config in self.configs)
        self._engine: Engine | None = None
        self.attached = False
        # of the input that feeds it
        self._feed: Feed | None = None
        self._before_look: Callable[[], None] | None = None
        self._recorded = False
        self._now: Callable[[], int] = time.time_ns
        self._lock = threading.Lock()
        self._closed: list[_Period] = []
        self._view: _View | None = None
        self._past: dict[tuple[int, int], list[list[Any]]] = {}

    def __repr__(self) -> str:
        return f"<HandlerSet: {', '.join(self.names)}>"

    # --- between it and its input ---

    def engine(self, stream_limit: int = STREAM_LIMIT) -> Engine:
        """The native engine, made at first use. stream_limit: TCP connections tracked at once."""
        if self._engine is None:
            self._engine = Engine(
                [self._accumulators],
                self._chains,
                periods=self.periods,
                deep_rate=self.deep_sample_rate,
                stream_limit=stream_limit,
                seed=self._seed,
            )
        return self._engine

    def bind(
        self, feed: Feed, now: Callable[[], int], recorded: bool, before_look: Callable[[], None] | None
    ) -> None:
        """An input feeds it from now on; ``before_look`` is called before its open bucket is looked at."""
        with self._lock:
            self._feed, self._now, self._recorded, self._before_look = feed, now, recorded, before_look
            self._view = None
            self.attached = True

    def release(self) -> None:
        """The input feeds it no longer. What it counted can still be read."""
        with self._lock:
            self._view = None
            self._before_look = None
            self.attached = False

    def losses(self) -> dict[str, int]:
        """What was lost above L3, by stage: streams, messages, transactions."""
        engine = self._engine
        if engine is None:
            return {}
        return {**engine.stats()["losses"], **handler_losses([self._accumulators])}

    def refresh(self) -> None:
        """Look anew the next time, however soon that is."""
        with self._lock:
            self._view = None

    def forget(self) -> None:
        """Let go of copies that were made for readers and are out of date."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            if self._view is not None and now - self._view.taken > KEEP:
                self._view = None
                self._past.clear()
        finally:
            self._lock.release()

    def open_transactions(self, name: str) -> int | None:
        """Queries of a handler that wait for their response; None: it does not look at transactions."""
        one = self._accumulators[self.names.index(name)]
        return int(one.open_transactions()) if hasattr(one, "open_transactions") else None

    # --- reading ---

    def accumulated(self) -> int:
        """Buckets so far, the open one included."""
        return len(self._look().periods)

    def bucket(self, n: int) -> list[HandlerWindow]:
        """Bucket ``n``, 0 being the open one, in the order of the handlers. PeriodError."""
        check_bucket(n, self.periods, n + 1)
        periods = self._look().periods
        check_bucket(n, self.periods, len(periods))
        return [self._window(index, periods[n]) for index in range(len(self.configs))]

    def window(self, n: int) -> list[HandlerWindow]:
        """The newest ``n`` buckets merged, as many as there are. PeriodError."""
        check_window(n, self.periods)
        view = self._look()
        periods = view.periods[:n]
        found = []
        for index, blocks in enumerate(self._merge(view, len(periods))):
            windows = [self._window(index, period) for period in periods]
            whole = merged(windows, blocks)
            if not whole.recorded and periods[0].end is None:
                # a merged window reaches to now, and is never read-only (metrics spec 2.5)
                whole = _until(whole, self._now())
            found.append(whole)
        return found

    def period_info(self, name: str | None = None) -> list[dict[str, Any]]:
        """Each bucket, newest first: start_tstamp, end_tstamp if it is closed, read_only, length.

        With the name of a handler also ``events``: how many it saw, how many it sampled, at what rate.
        """
        index = None if name is None else self.names.index(name)
        found = []
        for period in self._look().periods:
            window = self._window(index or 0, period)
            shown: dict[str, Any] = {"start_tstamp": _stamp(window.start_ts)}
            if period.end is not None:
                shown["end_tstamp"] = _stamp(period.end // NS)
            shown |= {"read_only": window.read_only, "length": window.length}
            if index is not None:
                shown["events"] = _events(window)
            found.append(shown)
        return found

    # --- views ---

    def _look(self) -> _View:
        with self._lock:
            view = self._view
            if view is not None and time.monotonic() - view.taken < FRESH:
                return view
            if self._before_look is not None:
                self._before_look()
            engine = self.engine()
            known = self._closed[0].number + 1 if self._closed else 0
            if self._feed is not None:
                number, closed, present, opened = self._feed.look(engine, known)
            else:
                number, closed, present, opened = 0, [], 0, None
            fresh = [_Period(at, start, end, handlers) for at, start, end, handlers in closed]
            self._closed = (fresh + self._closed)[:present]
            periods = list(self._closed)
            if opened is not None:
                start, handlers = opened
                periods.insert(0, _Period(number, start, None, handlers))
            if not periods:
                # nothing has come, or will
                now = self._now()
                periods = [_Period(0, now, None, [[] for _ in self.configs])]
            self._past = {key: value for key, value in self._past.items() if key[0] >= number - self.periods}
            self._view = _View(periods, time.monotonic())
            return self._view

    def _window(self, index: int, period: _Period) -> HandlerWindow:
        config = self.configs[index]
        recorded = self._recorded or config.recorded
        start = period.start // NS
        if period.end is not None:
            length = period.end // NS - start
        else:
            length = 0 if recorded else max(self._now() // NS - start, 0)
        return HandlerWindow(
            table=config.table,
            config=config,
            blocks=period.handlers[index],
            start_ts=start,
            length=length,
            read_only=period.end is not None,
            recorded=recorded,
            live=True,
        )

    def _merge(self, view: _View, count: int) -> list[list[Any]]:
        """The merged blocks of the newest ``count`` buckets, by handler."""
        found = view.merged.get(count)
        if found is not None:
            return found
        periods = view.periods[:count]
        if periods[0].end is None and len(periods) > 2:
            # what is closed does not change: merge it once per period, not at every look
            past = self._merge_past(periods[1:])
            whole = [
                merge_blocks([blocks, before])
                for blocks, before in zip(periods[0].handlers, past, strict=True)
            ]
        else:
            whole = [merge_blocks(parts) for parts in zip(*(p.handlers for p in periods), strict=True)]
        view.merged[count] = whole
        return whole

    def _merge_past(self, periods: Sequence[_Period]) -> list[list[Any]]:
        key = periods[0].number, len(periods)
        found = self._past.get(key)
        if found is None:
            found = [merge_blocks(parts) for parts in zip(*(p.handlers for p in periods), strict=True)]
            self._past[key] = found
        return found


def _until(window: HandlerWindow, now: int) -> HandlerWindow:
    return replace(window, read_only=False, length=max(now // NS - window.start_ts, 0))


def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _events(window: HandlerWindow) -> dict[str, Any]:
    """The event counters of a bucket, at their own paths (metrics spec 2.8)."""
    paths = EVENT_COUNTERS.get((window.table.type, window.table.version), ())
    found: dict[str, Any] = {}
    for _, _, cells in list(window.sections())[:1]:
        for cell in cells:
            if cell.metric.path in paths:
                *parents, last = cell.metric.path.split(".")
                at = found
                for part in parents:
                    at = at.setdefault(part, {})
                at[last] = value_of(cell, None)
    return found

"""Captures in, one summary out: the face of ``pktvisor-pcap`` for notebooks and programs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from netprobe import arguments
from netprobe._core.engine import Engine
from netprobe.errors import ConfigError, InputError
from netprobe.handlers.build import MAX_HANDLERS, accumulators, chains, handler_losses
from netprobe.handlers.config import DEFAULT_HANDLERS, HandlerConfig, parse_handlers
from netprobe.hosts import Hosts, parse_hosts
from netprobe.inputs.captures import complaints, open_capture
from netprobe.inputs.sources import check_path
from netprobe.metrics import render_json, render_prometheus
from netprobe.metrics.window import HandlerWindow, merge_blocks, merged, window_key

if TYPE_CHECKING:
    from netprobe._core.capfile import CaptureReader
    from netprobe.geo import GeoNames
    from netprobe.inputs.sources import Source

NS = 1_000_000_000
MAX_WORKERS = 16
MAX_SEED = (1 << 64) - 1
MAX_STREAMS = (1 << 32) - 1
POLL_SECONDS = 0.05

PathLike = str | os.PathLike[str]
# DNS ports and BGP share the reassembler; the limit of the pcap input (metrics spec 4.4)
STREAM_LIMIT = 300_000


class Progress(NamedTuple):
    """How far a run is: packets that passed the filter, bytes framed, bytes in all (None: not known)."""

    packets: int
    bytes: int
    total_bytes: int | None


class Summary:
    """What some captures carried, by handler. Made by :func:`summarize`; mergeable and picklable.

    ``packets``: packets that passed the filter. ``warnings``: one line each, for example about a cut file.
    ``interrupted``: stopped before the end. ``stats``: packets read, malformed by cause, losses by stage.
    """

    def __init__(
        self,
        windows: Sequence[HandlerWindow],
        *,
        periods: int,
        geo: GeoNames | None = None,
        packets: int = 0,
        warnings: Iterable[str] = (),
        interrupted: bool = False,
        stats: dict[str, Any] | None = None,
    ) -> None:
        self.windows = list(windows)
        self.periods = periods
        self.packets = packets
        self.warnings = list(warnings)
        self.interrupted = interrupted
        self.stats: dict[str, Any] = stats or {}
        self._geo = geo

    def to_dict(self) -> dict[str, Any]:
        """The document of ``pktvisor-pcap``: ``{"5m": {"packets": …, "dns": …, "dhcp": …}}``."""
        return {window_key(self.periods): render_json.render(self.windows, self._geo)}

    def to_json(self) -> str:
        """The document as one line of JSON with sorted keys."""
        return render_json.dumps(self.to_dict())

    def to_prometheus(self, **labels: str) -> str:
        """The same numbers in Prometheus's text format; ``labels`` go on every sample.

        ConfigError for a label that Prometheus would not take.
        """
        for name in labels:
            if not (name.isascii() and name.isidentifier()):
                raise ConfigError(f"label {name!r}: expected letters, digits and _, no digit first")
            if not isinstance(labels[name], str):
                raise arguments.wrong(f"label {name}", labels[name], "text")
        return render_prometheus.render(
            [window.with_labels(**({"policy": "default"} | labels)) for window in self.windows], self._geo
        )

    def merge(self, other: Self) -> Summary:
        """A new summary of both: counters and cardinalities as if everything had been read together.

        Both must come from the same handlers with the same settings, ConfigError otherwise.
        """
        if not isinstance(other, Summary):
            raise arguments.wrong("merge", other, "a summary")
        mine = [(w.table.type, w.table.version, w.config) for w in self.windows]
        theirs = [(w.table.type, w.table.version, w.config) for w in other.windows]
        if mine != theirs:
            raise ConfigError("summaries of different handlers or settings cannot be merged")
        windows = [
            merged([a, b], merge_blocks([a.blocks, b.blocks]))
            for a, b in zip(self.windows, other.windows, strict=True)
        ]
        return Summary(
            windows,
            periods=self.periods,
            geo=self._geo or other._geo,
            packets=self.packets + other.packets,
            warnings=[*self.warnings, *other.warnings],
            interrupted=self.interrupted or other.interrupted,
            stats=_add_stats(self.stats, other.stats),
        )

    def __repr__(self) -> str:
        names = ", ".join(window.config.name for window in self.windows)
        return f"<Summary of {self.packets} packets: {names}>"

    def _repr_html_(self) -> str:
        from netprobe.metrics.render_html import render

        return render(self.to_dict(), self.packets)


def merge(summaries: Iterable[Summary]) -> Summary:
    """All summaries as one; ConfigError when there is none, or when their handlers differ."""
    if not isinstance(summaries, Iterable):
        raise arguments.wrong("merge", summaries, "summaries")
    whole: Summary | None = None
    for summary in summaries:
        if not isinstance(summary, Summary):
            raise arguments.wrong("merge", summary, "summaries")
        whole = summary if whole is None else whole.merge(summary)
    if whole is None:
        raise ConfigError("merge needs at least one summary")
    return whole


def summarize(
    path: PathLike | Iterable[PathLike],
    *,
    handlers: Any = None,
    hosts: Hosts = None,
    filter: str | None = None,
    geo: GeoNames | None = None,
    geo_city: PathLike | None = None,
    geo_asn: PathLike | None = None,
    workers: int = 1,
    periods: int = 5,
    deep_sample_rate: int = 100,
    inner: bool = False,
    seed: int = 0,
    stream_limit: int = STREAM_LIMIT,
    window_config: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
) -> Summary:
    """Summarise capture files (pcap, pcapng; also gzip, zstd, xz), in the order given.

    path: one or several; ``-`` is standard input.
    handlers: ``"net,dns:2.0"``, or a list of such names, of maps (type, version, config, filter,
        metric_groups) and of lists (chains); by default net, dns and dhcp, version 1.0.
    hosts: CIDRs, comma-separated or a list, networks of `ipaddress` too: what counts as inbound and outbound.
    filter: a tcpdump expression.
    geo, or geo_city and geo_asn: MaxMind databases for locations and AS.
    workers: threads that share the packets by address pair.
    periods: how many 60-second periods of packet time the summary covers, the newest ones; 1: everything.
    deep_sample_rate: percent of packets whose addresses and names are looked at.
    inner: count the innermost IP header of tunnels instead of the outermost.
    seed: of everything that is random.
    stream_limit: TCP connections tracked at once, per worker; 1,000,000 at most.
    window_config: settings for all handlers (num_periods, topn_count, …), as in a policy of the agent.
    progress: called a few times a second. stop: set it to end early, with what has been counted so far.

    InputError: a file cannot be read. ConfigError: a setting cannot be used.
    """
    paths = arguments.paths("path", path)
    if not paths:
        raise InputError("no capture given")
    workers = arguments.whole("workers", workers, 1, MAX_WORKERS)
    periods = arguments.whole("periods", periods, 1, 10)
    deep_sample_rate = arguments.whole("deep_sample_rate", deep_sample_rate, 1, 100)
    seed = arguments.whole("seed", seed, 0, MAX_SEED)
    stream_limit = arguments.whole("stream_limit", stream_limit, 1, MAX_STREAMS)
    inner = arguments.switch("inner", inner)
    subnets = parse_hosts(hosts)
    compile_filter = _compiler(arguments.expression("filter", filter))
    arguments.method("progress", progress, "__call__", "a function")
    arguments.method("stop", stop, "is_set", "a threading.Event")
    geo = open_geo(geo, geo_city, geo_asn)
    specs = parse_handlers(DEFAULT_HANDLERS if handlers is None else handlers)
    if len(specs) > MAX_HANDLERS:
        raise ConfigError(f"handlers: {len(specs)} of them, expected at most {MAX_HANDLERS}")
    defaults = {"num_periods": periods, "deep_sample_rate": deep_sample_rate}
    configs = [spec.resolve(window_config=window_config, defaults=defaults) for spec in specs]
    periods = shared_setting("num_periods", configs)
    deep_sample_rate = shared_setting("deep_sample_rate", configs)
    shards = [accumulators(specs, configs, geo) for _ in range(workers)]
    run = _Run(
        Engine(
            shards,
            chains(specs),
            hosts=subnets,
            inner=int(inner),
            periods=periods,
            deep_rate=deep_sample_rate,
            compile_filter=compile_filter,
            stream_limit=stream_limit,
            seed=seed,
        ),
        workers,
        progress,
        stop,
    )
    # not after hours with the files before it
    for one in paths[1:]:
        check_path(one)
    for one in paths:
        if not run.read(one):
            break
    run.engine.finish()
    windows = _windows(run.engine, configs)
    return Summary(
        windows,
        periods=periods,
        geo=geo,
        packets=run.engine.packets,
        warnings=run.warnings,
        interrupted=run.interrupted,
        stats=_stats(run.engine, shards, windows),
    )


class _Run:
    """One engine over several captures."""

    def __init__(
        self,
        engine: Engine,
        workers: int,
        progress: Callable[[Progress], None] | None,
        stop: threading.Event | None,
    ) -> None:
        self.engine = engine
        self.workers = workers
        self.progress = progress
        self.stop = stop
        self.warnings: list[str] = []
        self.interrupted = False

    def read(self, path: PathLike) -> bool:
        """Read one capture to its end. False: stopped."""
        try:
            with open_capture(path, self.stop) as (source, reader):
                self.engine.attach(reader)
                (self._alone if self.workers == 1 else self._together)(reader, source)
                if not self.interrupted:
                    self.warnings += complaints(source, reader)
        except InterruptedError:
            self.interrupted = True
        return not self.interrupted

    def _tick(self, reader: CaptureReader, source: Source) -> bool:
        """Report progress; True: somebody wants it to end."""
        if self.progress is not None:
            done = reader.bytes_read if source.size is None else source.position()
            self.progress(Progress(self.engine.packets, done, source.size))
        if self.stop is not None and self.stop.is_set():
            self.interrupted = True
        return self.interrupted

    def _alone(self, reader: CaptureReader, source: Source) -> None:
        while self.engine.step() or not reader.ended:
            if self._tick(reader, source):
                return

    def _together(self, reader: CaptureReader, source: Source) -> None:
        threads = [
            threading.Thread(target=self.engine.run_worker, args=(index,), name=f"netprobe-{index}")
            for index in range(self.workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(POLL_SECONDS)
                    if self._tick(reader, source):
                        self.engine.stop()
        finally:
            self.engine.stop()
            for thread in threads:
                thread.join()
        self.engine.check()


def open_geo(geo: GeoNames | None, city: PathLike | None, asn: PathLike | None) -> GeoNames | None:
    """Databases that are open already, or these; None without any. InputError, ConfigError."""
    city, asn = arguments.one_path("geo_city", city), arguments.one_path("geo_asn", asn)
    if geo is None and not city and not asn:
        return None
    from netprobe.geo import GeoAsn, GeoCity, GeoNames

    if geo is None:
        return GeoNames(GeoCity(city) if city else None, GeoAsn(asn) if asn else None)
    if not isinstance(geo, GeoNames):
        raise arguments.wrong("geo", geo, "a netprobe.geo.GeoNames")
    return geo


def shared_setting(key: str, configs: Sequence[HandlerConfig]) -> int:
    """A setting that is one for all handlers: one clock and one draw serve the whole input."""
    values: list[int] = sorted({getattr(config, key) for config in configs})
    if len(values) > 1:
        given = " and ".join(map(str, values))
        raise ConfigError(f"{key}: {given} are given, but the handlers of a summary share one")
    return values[0]


def _compiler(expression: str | None) -> Callable[[int], Any] | None:
    if not expression:
        return None
    from netprobe.filters import compiler  # lazily: it loads libpcap

    return compiler(expression)


def _stats(
    engine: Engine, shards: Sequence[Sequence[Any]], windows: Sequence[HandlerWindow]
) -> dict[str, Any]:
    """The engine's counts, and what handlers had to throw out."""
    stats = engine.stats()
    stats["losses"].update(handler_losses(shards), topn_evicted=topn_evicted(windows))
    return stats


def topn_evicted(windows: Sequence[HandlerWindow]) -> int:
    """Items that most-frequent tables have thrown out for room; what that costs is MetricBlock.topn_error."""
    count = 0
    for window in windows:
        for _, block, cells in window.sections():
            native: Any = block
            count += sum(native.topn_purged(cell.index) for cell in cells if cell.metric.kind == "topn")
    return count


def _windows(engine: Engine, configs: Sequence[HandlerConfig]) -> list[HandlerWindow]:
    """The newest periods of each handler as one window."""
    buckets = engine.buckets()
    found = []
    for index, config in enumerate(configs):
        windows = [
            HandlerWindow(
                table=config.table,
                config=config,
                blocks=handlers[index],
                start_ts=start // NS,
                length=end // NS - start // NS,
                read_only=True,
                recorded=True,
            )
            for start, end, handlers in buckets
        ]
        found.append(
            merged(windows, merge_blocks([w.blocks for w in windows])) if len(windows) > 1 else windows[0]
        )
    return found


def _add_stats(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for key in {**a, **b}:
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) or isinstance(y, dict):
            total[key] = _add_stats(x or {}, y or {})
        elif x is None or y is None:
            total[key] = y if x is None else x
        elif key == "first_ts":
            total[key] = min(x, y)
        elif key == "last_ts":
            total[key] = max(x, y)
        else:
            total[key] = x + y
    return total

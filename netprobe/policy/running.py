"""Running inputs: one thread that captures, and the handler sets that it feeds (agent spec 4.1)."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from netprobe._core.clock import Clock
from netprobe._core.feed import Feed
from netprobe._core.mock import Quiet
from netprobe.errors import ConfigError, InputError, NetprobeError
from netprobe.hosts import parse_hosts
from netprobe.policy.handler_set import STREAM_LIMIT, HandlerSet
from netprobe.policy.inputs import DEFAULT_SOURCE, check_input
from netprobe.policy.inputs import input_type as lookup_type
from netprobe.policy.openers import Opened, open_input

__all__ = ["Clock", "HandlerSet", "InputStream"]

LOG = logging.getLogger("netprobe.input")
TICK_SECONDS = 1.0
# what the core tracks when there is no limit
MAX_STREAMS = 1_000_000
#: a capture's running totals
READINGS = ("received", "os_drops", "if_drops")


class InputStream:
    """One input of a tap, and all handler sets on it.

    config, filter: as the agent's configuration has them (docs/configuration.md); ConfigError for an unknown
    key or a value that does not fit. clock: another one than the system's, for tests.
    """

    def __init__(
        self,
        name: str,
        input_type: str,
        config: Mapping[str, Any],
        filter: Mapping[str, Any],
        *,
        clock: Clock | None = None,
    ) -> None:
        kind = lookup_type(input_type)
        if not kind.built:
            raise ConfigError(f"input {name}: type {input_type!r} cannot be run yet, expected pcap")
        self.name = name
        self.input_type = kind.name
        self.config = check_input(kind, {**config, **filter}, lambda key: f"input {name}: {key}")
        self.clock = Clock() if clock is None else clock
        self.warnings: list[str] = []
        self.error: NetprobeError | None = None
        self._hosts: list[str] = []
        self._feed = Feed(recorded=self.recorded, clock=self.clock)
        self._sets: list[HandlerSet] = []
        # what handler sets that have gone had lost: a counter must not fall
        self._lost_before: Counter[str] = Counter()
        self._policies = 0
        self._handlers = 0
        # who changes the roster, starts and stops; never held by the capture thread
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._ticker: threading.Thread | None = None
        self._opened: Opened | None = None
        self._started = False
        self._cpu_seconds = 0.0
        # totals of captures that were closed, for a device that came back counts from zero
        self._drops_lock = threading.Lock()
        self._base = dict.fromkeys(READINGS, 0)
        self._latest = dict.fromkeys(READINGS, 0)

    def __repr__(self) -> str:
        return f"<InputStream {self.name}: {'running' if self.running else 'not running'}>"

    @property
    def recorded(self) -> bool:
        """It reads a file: time is what the packets say."""
        return self.input_type == "pcap" and bool(self.config.get("pcap_file"))

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stop.is_set()

    @property
    def ended(self) -> bool:
        """It was a file, and has been read to its end."""
        done = self._thread is not None and not self._thread.is_alive()
        return self.recorded and done and self.error is None

    @property
    def consumers(self) -> int:
        """Handler sets that are fed."""
        return len(self._sets)

    @property
    def iface(self) -> str:
        """Name of the interface, as it was resolved; empty for files and before the start."""
        return "" if self._opened is None else self._opened.iface

    # --- life ---

    def start(self) -> None:
        """Open the source and capture in a thread of its own. Once; InputError, ConfigError."""
        with self._lock:
            if self._started:
                return
            self._open()
            self._started = True
            self._thread = self._begin(self._run, f"input-{self.name}"[:15])
            if not self.recorded:
                self._ticker = self._begin(self._tick, "input-tick")

    def _begin(self, run: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=run, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as problem:
            raise InputError(
                f"input {self.name}: {problem}: raise the limit on threads (TasksMax of a unit, ulimit -u)"
            ) from None
        return thread

    def stop(self) -> None:
        """End the capture; handler sets that are still attached close their open buckets."""
        with self._lock:
            self._stop.set()
            self._feed.stop()
            for thread in (self._thread, self._ticker):
                if thread is not None:
                    thread.join()
            self._ask()
            self._read_drops()
            with self._drops_lock:
                opened, self._opened = self._opened, None
                if opened is not None:
                    opened.close()
                    if opened.drops is not None:
                        # what was in the ring and will not be read any more is known now
                        self._latest = self._totals(opened.drops())
            self._finish()

    def attach(self, handlers: HandlerSet) -> None:
        """Feed these handlers, too, from the next batch on; nobody else loses a packet."""
        with self._lock:
            if handlers.attached:
                raise ConfigError(f"input {self.name}: {handlers!r} is attached already")
            self._read_drops()
            limit = self.config.get("tcp_packet_reassembly_cache_limit", STREAM_LIMIT)
            self._feed.add(handlers.engine(min(limit, MAX_STREAMS)))
            self._sets.append(handlers)
            look = self._read_drops if handlers.wants_drops else None
            handlers.bind(self._feed, self.clock.time_ns, self.recorded, look)
            self._count_policies(handlers, 1)

    def detach(self, handlers: HandlerSet) -> None:
        """Feed them no longer; what they counted can still be read."""
        with self._lock:
            if handlers not in self._sets:
                return
            if handlers.wants_drops:
                self._read_drops()
            self._sets.remove(handlers)
            self._feed.remove(handlers.engine())
            self._lost_before.update(handlers.losses())
            handlers.release()
            self._count_policies(handlers, -1)

    def _count_policies(self, handlers: HandlerSet, by: int) -> None:
        if not handlers.is_resources:
            self._policies += by
            self._handlers += by * handlers.chain_count
        self._feed.policies(self._policies, self._handlers)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end of a file. True: it has been read to its end."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self._thread is not None and not self._thread.is_alive()

    # --- the capture thread ---

    def _open(self) -> Opened:
        """Open the source and read it from now on. InputError, ConfigError."""
        try:
            opened = open_input(self.input_type, self.config, self.clock, self._stop)
            try:
                self._use(opened)
            except BaseException:
                opened.close()
                raise
        except OSError as problem:
            # what nobody expects when something is opened: there are no descriptors left, for one
            reason = (problem.strerror or str(problem)).lower()
            if problem.errno in (errno.EMFILE, errno.ENFILE):
                reason += ": raise the limit on files (LimitNOFILE of a unit, ulimit -n)"
            raise InputError(f"input {self.name}: {reason}") from None
        return opened

    def _use(self, opened: Opened) -> None:
        """Read this from now on."""
        self._feed.filter_by(opened.compile_filter)
        self._feed.hosts(parse_hosts(self.config.get("host_spec")))
        self._hosts = []
        self._use_hosts(opened.hosts(), opened.iface)
        with self._drops_lock:
            self._opened = opened

    def _use_hosts(self, found: list[str], iface: str) -> None:
        """The networks of the interface are these."""
        if found == self._hosts:
            return
        self._hosts = found
        self._feed.hosts(parse_hosts(self.config.get("host_spec")) + parse_hosts(found))
        LOG.info("input %s: networks of %s: %s", self.name, iface, ", ".join(found) or "none")

    def _run(self) -> None:
        try:
            self._capture()
        except NetprobeError as error:
            self.error = error
            LOG.error("input %s: %s", self.name, error)
        finally:
            self._cpu_seconds = time.thread_time()

    def _capture(self) -> None:
        while not self._stop.is_set():
            opened = self._opened
            assert opened is not None
            try:
                self._feed.run(opened.source)
            except NetprobeError:
                # what came before counts
                self._finish()
                raise
            if self._stop.is_set():
                return
            if self.recorded:
                if opened.warnings is not None:
                    self.warnings = opened.warnings()
                    for line in self.warnings:
                        LOG.warning("input %s: %s", self.name, line)
                self._finish()
                return
            if not self._reopen(opened):
                return

    def _finish(self) -> None:
        self._feed.finish()
        for one in list(self._sets):
            one.refresh()

    def _reopen(self, gone: Opened) -> bool:
        """A device has vanished: policies go on by the clock until it is back. False: stopped meanwhile."""
        LOG.warning(
            "input %s: %s: %s; waiting for it",
            self.name,
            gone.iface,
            gone.source.error_text or "is gone",
        )
        self._read_drops()
        with self._drops_lock:
            self._opened = None
            self._base = dict(self._latest)
        gone.close()
        while not self._stop.is_set():
            self._feed.run(Quiet(TICK_SECONDS, clock=self.clock))
            if self._stop.is_set():
                return False
            try:
                opened = self._open()
            except NetprobeError:
                continue
            LOG.warning("input %s: interface %s is back", self.name, opened.iface)
            return True
        return False

    # --- drops ---

    def _tick(self) -> None:
        """Once a second: drops, the interface and its networks, copies that nobody needs any more."""
        state = "up"
        called = self.iface
        outages = 0
        while not self._stop.wait(TICK_SECONDS):
            self._ask()
            self._read_drops()
            for one in list(self._sets):
                one.forget()
            with self._drops_lock:
                opened = self._opened
                now = opened.state() if opened is not None and opened.state is not None else state
                name = opened.called() if opened is not None and opened.called is not None else called
                count = opened.outages() if opened is not None and opened.outages is not None else outages
            if now != state:
                LOG.warning("input %s: interface %s is %s", self.name, self.iface, now)
                state = now
            elif count != outages and now == "up":
                LOG.warning("input %s: interface %s was not up for a moment", self.name, self.iface)
            outages = count
            if name != called:
                LOG.warning("input %s: interface %s is called %s now", self.name, called, name)
                called = name
            # a machine may start to capture before it has its addresses
            if state == "up" and opened is not None:
                with contextlib.suppress(NetprobeError, OSError):
                    self._use_hosts(opened.hosts(), opened.iface)

    def _ask(self) -> None:
        """Have the capture ask the kernel, which takes its time: nobody else waits for that."""
        with self._drops_lock:
            opened = self._opened
        if opened is not None and opened.ask is not None:
            opened.ask()

    def _read_drops(self) -> None:
        """Tell the pcap handlers what the capture has lost so far."""
        with self._drops_lock:
            opened = self._opened
            if opened is None or opened.drops is None:
                return
            self._latest = self._totals(opened.drops())
            latest = [self._latest[key] for key in READINGS]
        self._feed.reading(*latest)

    def _totals(self, found: Mapping[str, int]) -> dict[str, int]:
        return {key: self._base.get(key, 0) + int(value) for key, value in found.items()}

    # --- what others want to know ---

    @property
    def interface_up(self) -> bool:
        """Can packets come? Not while the interface is down or has vanished."""
        with self._drops_lock:
            opened = self._opened
            return opened is not None and (opened.state is None or opened.state() == "up")

    def info(self) -> dict[str, Any]:
        """``input`` and ``pcap`` of an input object (agent spec 3.3)."""
        shown: dict[str, Any] = {"input": {"running": self.running, "consumers": self.consumers}}
        if self.input_type == "pcap":
            shown["pcap"] = {
                "available_iface": ",".join(_interfaces()),
                "host_ips": _by_family([self.config.get("host_spec") or "", *self._hosts]),
                "pcap_source": self._source_kind(),
            }
        return shown

    def _source_kind(self) -> str:
        if self.recorded:
            return "unknown"
        return str(self.config.get("pcap_source") or DEFAULT_SOURCE)

    def stats(self) -> dict[str, Any]:
        """Packets, losses by stage, and what the capture thread used.

        ``losses`` has the capture's own (``os_drops``, ``if_drops``, ``ring_losses``), what decoding lost,
        and what handler sets lost above L3, added up, those that have gone included.
        """
        found = self._feed.stats()
        losses: dict[str, int] = {"cut_by_snaplen": found.pop("cut_by_snaplen")}
        with self._lock:
            sets, gone = list(self._sets), dict(self._lost_before)
        for lost in (gone, *(one.losses() for one in sets)):
            for key, value in lost.items():
                losses[key] = losses.get(key, 0) + value
        with self._drops_lock:
            opened = self._opened
            if opened is not None and opened.drops is not None:
                self._latest = self._totals(opened.drops())
            latest = dict(self._latest)
        found["received"] = latest.pop("received")
        found["losses"] = {**latest, **losses}
        found["cpu_seconds"] = self._cpu()
        return found

    def _cpu(self) -> float:
        thread = self._thread
        if thread is None or thread.ident is None or not thread.is_alive():
            return self._cpu_seconds
        try:
            return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        except OSError:  # it has just ended
            return self._cpu_seconds


def _interfaces() -> list[str]:
    """Names of the interfaces, asked for once a second at most: a thousand policies may be listed at once."""
    try:
        network = os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116
    except OSError:
        network = 0
    return _interfaces_at(int(time.monotonic()), network)


@functools.lru_cache(maxsize=1)
def _interfaces_at(second: int, network: int) -> list[str]:
    try:
        from netprobe.inputs.live import list_interfaces

        return [str(getattr(one, "name", one)) for one in list_interfaces()]
    except (ImportError, InputError, OSError):
        return []


def _by_family(texts: list[str]) -> dict[str, list[str]]:
    """CIDR texts as the REST API lists them: under ``ipv4`` and ``ipv6``, as far as there are any."""
    found: dict[str, list[str]] = {}
    for text in texts:
        for one in filter(None, text.split(",")):
            found.setdefault("ipv6" if ":" in one else "ipv4", []).append(one)
    return found

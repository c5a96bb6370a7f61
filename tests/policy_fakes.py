"""Inputs and handlers that run nothing, with the faces of netprobe.policy.running, for tests of policies."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from netprobe._core.store import MetricBlock
from netprobe.errors import InputError
from netprobe.handlers.config import HandlerConfig, HandlerSpec
from netprobe.metrics.table import native_class
from netprobe.metrics.window import HandlerWindow, check_bucket, check_window

START = 1_600_000_000


def empty_block(config: HandlerConfig, start_ns: int = START * 1_000_000_000) -> MetricBlock:
    """A real block with the layout of a handler's top level; its TopN tables hold IPv4 addresses."""
    size = dict.fromkeys(("counter", "cardinality", "topn", "quantile", "histogram", "rate"), 0)
    for name, (kind, index) in native_class(config.table).fields().items():
        if not name.startswith("D."):
            size[kind] = max(size[kind], index + 1)
    return MetricBlock(
        counters=size["counter"],
        cards=size["cardinality"],
        topns=[0] * size["topn"],
        quants=[False] * size["quantile"],
        hists=[False] * size["histogram"],
        rates=size["rate"],
        start_ns=start_ns,
    )


class HandlerSet:
    """Keeps what it was made with. `buckets`: how many there are, the open one included."""

    def __init__(
        self,
        specs: Sequence[HandlerSpec],
        configs: Sequence[HandlerConfig],
        names: Sequence[str],
        *,
        geo: Any = None,
        periods: int = 5,
        deep_sample_rate: int = 100,
        seed: int = 0,
    ) -> None:
        self.specs, self.configs, self.names = list(specs), list(configs), list(names)
        self.periods, self.deep_sample_rate = periods, deep_sample_rate
        self.buckets = 1

    def accumulated(self) -> int:
        return self.buckets

    def _windows(self, first: int, last: int) -> list[HandlerWindow]:
        return [
            HandlerWindow(
                table=config.table,
                config=config,
                blocks=[empty_block(config)],
                start_ts=START - 60 * last,
                length=60 * (last - first + 1),
                read_only=first > 0,
                live=True,
            )
            for config in self.configs
        ]

    def bucket(self, n: int) -> list[HandlerWindow]:
        check_bucket(n, self.periods, self.buckets)
        return self._windows(n, n)

    def window(self, n: int) -> list[HandlerWindow]:
        check_window(n, self.periods)
        return self._windows(0, min(n, self.buckets) - 1)

    def open_transactions(self, name: str) -> int | None:
        return 0

    def period_info(self, name: str | None = None) -> list[dict[str, Any]]:
        return [{"start_tstamp": "2020-09-13 12:26:40", "read_only": False, "length": 0}]


class InputStream:
    """Counts what is done to it. An `iface` that begins with `bad` cannot be started."""

    alive: ClassVar[set[InputStream]] = set()
    lock = threading.Lock()

    def __init__(
        self,
        name: str,
        input_type: str,
        config: Mapping[str, Any],
        filter: Mapping[str, Any],
        *,
        clock: Any = None,
    ) -> None:
        self.name, self.input_type, self.config, self.filter = name, input_type, config, filter
        self.attached: list[HandlerSet] = []
        self.running = False
        self.starts = 0

    @property
    def consumers(self) -> int:
        return len(self.attached)

    def start(self) -> None:
        if "except_on_start" in self.config:
            raise InputError("mock error on start")
        if str(self.config.get("iface", "")).startswith("bad"):
            raise InputError(f"no interface {self.config['iface']}")
        self.starts += 1
        self.running = True
        with self.lock:
            self.alive.add(self)

    def stop(self) -> None:
        self.running = False
        with self.lock:
            self.alive.discard(self)

    def attach(self, handlers: HandlerSet) -> None:
        self.attached.append(handlers)

    def detach(self, handlers: HandlerSet) -> None:
        self.attached.remove(handlers)

    def info(self) -> dict[str, Any]:
        return {"input": {"running": self.running, "consumers": self.consumers}, "pcap": {}}

    def stats(self) -> dict[str, Any]:
        return {}

"""What an input reads: a device, a file, or packets that are made up (agent spec 4.1.1, 4.1.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netprobe.errors import InputError
from netprobe.policy.inputs import DEFAULT_SOURCE

if TYPE_CHECKING:
    from netprobe._core.bpf import BpfProgram
    from netprobe._core.clock import Clock
    from netprobe._core.source import PacketSource

__all__ = ["Opened", "open_input"]

AUTO = "auto"
STDIN = "-"


@dataclass(slots=True, eq=False)
class Opened:
    """A source that can be read.

    ``kind``: ``af_packet``, ``libpcap``, ``mock``, or ``unknown`` for a file. ``hosts``: the networks of the
    interface at present. ``drops``: the capture's running totals. ``ask`` brings what they hold of the
    interface itself up to date, and ``called``, its name; it may take seconds. ``outages``: how often it went
    down or away. ``warnings``: after the end, what was wrong with a file.
    """

    source: PacketSource
    kind: str
    iface: str = ""
    hosts: Callable[[], list[str]] = list
    compile_filter: Callable[[int], BpfProgram] | None = None
    drops: Callable[[], Mapping[str, int]] | None = None
    ask: Callable[[], None] | None = None
    state: Callable[[], str] | None = None
    called: Callable[[], str] | None = None
    outages: Callable[[], int] | None = None
    warnings: Callable[[], list[str]] | None = None
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def close(self) -> None:
        self.closing.close()


def open_input(input_type: str, config: Mapping[str, Any], clock: Clock, stop: Any) -> Opened:
    """Open what the settings of an input say. InputError, ConfigError."""
    if input_type == "mock":
        return _quiet(config, clock)
    if config.get("pcap_file"):
        return _file(str(config["pcap_file"]), str(config.get("bpf") or ""), stop)
    source = str(config.get("pcap_source") or DEFAULT_SOURCE)
    if source == "mock":
        return _mock(clock)
    iface = str(config.get("iface") or "")
    if not iface:
        raise InputError(f"no iface is given, expected the name of an interface, an address of it, or {AUTO}")
    return _live(iface, source, str(config.get("bpf") or ""), config.get("ring_mb"))


def _quiet(config: Mapping[str, Any], clock: Clock) -> Opened:
    from netprobe._core.mock import Quiet

    if "except_on_start" in config:
        raise InputError("mock error on start")
    return Opened(Quiet(clock=clock), "mock")


def _mock(clock: Clock) -> Opened:
    from netprobe._core.mock import MockDns

    return Opened(MockDns(clock=clock), "mock")


def _file(path: str, expression: str, stop: Any) -> Opened:
    from netprobe.inputs.captures import complaints, open_capture

    # whoever opens holds up all other changes: nothing that may make us wait, such as a FIFO
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(f"{path}: is no plain file, expected a pcap or pcapng capture")
    if path == STDIN:
        raise InputError(f"{path}: standard input, expected the path of a pcap or pcapng capture")
    compile_filter = None
    if expression:
        from netprobe.filters import compiler

        compile_filter = compiler(expression)
    closing = contextlib.ExitStack()
    source, reader = closing.enter_context(open_capture(path, stop))
    return Opened(
        reader,
        "unknown",
        compile_filter=compile_filter,
        warnings=lambda: complaints(source, reader),
        closing=closing,
    )


def _live(iface: str, source: str, expression: str, ring_mb: int | None) -> Opened:
    from netprobe.inputs.live import RING_MB, open_live, resolve_interface

    name = resolve_interface(iface)
    capture = open_live(
        name, source=source, filter=expression or None, ring_mb=ring_mb or RING_MB, headers=True
    )
    closing = contextlib.ExitStack()
    closing.callback(capture.close)
    return Opened(
        capture.source,
        source,
        iface=name,
        hosts=capture.hosts,
        drops=lambda: capture.drops(ask=False),
        ask=capture.ask,
        state=lambda: str(capture.state),
        called=lambda: capture.called,
        outages=lambda: capture.source.outages,
        closing=closing,
    )

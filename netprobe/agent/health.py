"""The agent's own health as Prometheus families under `netprobe_`: what it took in, lost, and used."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from netprobe.agent.faces import ManagerFace, PolicyFace, policies_of, taps_of
from netprobe.metrics.render_prometheus import Family, label_text

__all__ = ["Health"]

PAGE = os.sysconf("SC_PAGE_SIZE")
TICK = os.sysconf("SC_CLK_TCK")

Families = dict[str, Family]

NS = 1e-9

# what an input's stats() may hold -> name, type, factor, help
INPUT_NUMBERS: dict[str, tuple[str, str, float, str]] = {
    "received": (
        "netprobe_input_received_packets_total",
        "counter",
        1,
        "Packets that the capture has handed over, or is about to",
    ),
    "packets_read": ("netprobe_input_read_packets_total", "counter", 1, "Packets read from the capture"),
    "filtered_out": (
        "netprobe_input_filtered_packets_total",
        "counter",
        1,
        "Packets read that the capture filter did not want",
    ),
    "packets": ("netprobe_input_packets_total", "counter", 1, "Packets that the handlers were fed"),
    "bytes": ("netprobe_input_bytes_total", "counter", 1, "Bytes of these packets on the wire"),
    "batches": ("netprobe_input_batches_total", "counter", 1, "Batches of packets"),
    "commands": (
        "netprobe_input_commands_total",
        "counter",
        1,
        "Times that the capture thread answered a reader or let handlers come and go",
    ),
    "longest_batch_ns": (
        "netprobe_input_longest_batch_seconds",
        "gauge",
        NS,
        "The longest time that one batch has taken",
    ),
    "longest_command_ns": (
        "netprobe_input_longest_command_seconds",
        "gauge",
        NS,
        "The longest time that the capture thread spent on one answer",
    ),
    "last_ts": (
        "netprobe_input_last_packet_timestamp_seconds",
        "gauge",
        NS,
        "Stamp of the newest packet, seconds since 1970",
    ),
    "cpu_seconds": ("netprobe_input_cpu_seconds_total", "counter", 1, "Processor time of the capture thread"),
}
# the stage that all policies of an input share
OF_THE_INPUT = "cut_by_snaplen"
POLICY_LOSSES = "What a policy has lost while it put packets together and counted them, by stage"


class Health:
    """Gathers the families; counts requests, of which nobody else knows.

    ``extra`` are further sources, called at each scrape: the OTLP pusher, for example.
    """

    def __init__(self, manager: ManagerFace, version: str) -> None:
        self._manager = manager
        self._version = version
        self.started = time.time()
        # the clock may be set while the agent runs
        self.began = time.monotonic()
        self.requests: Counter[tuple[str, int]] = Counter()
        self.refused: Counter[str] = Counter()
        # whoever knows puts itself here
        self.connections: Callable[[], int] = int
        self.queued: Callable[[], int] = int
        self.extra: list[Any] = []

    @property
    def up_seconds(self) -> int:
        return int(time.monotonic() - self.began)

    def families(self, static: Mapping[str, str] | None = None) -> Families:
        """Everything, by name; ``static`` labels open every label set."""
        out = _Writer(static)
        out.add(
            "netprobe_build_info", "gauge", "Always 1; labelled with the version", 1, version=self._version
        )
        _process(out, self.started)
        self._assembly(out)
        for name, found in sorted(inputs_of(self._manager).items()):
            _input(out, name, found)
        self._web(out)
        for source in self.extra:
            for name, kind, text, value, labels in source.numbers():
                out.add(name, kind, text, value, **labels)
        return out.families

    def _assembly(self, out: _Writer) -> None:
        policies = policies_of(self._manager)
        out.add("netprobe_taps", "gauge", "Taps that exist", len(taps_of(self._manager)))
        out.add("netprobe_policies", "gauge", "Policies that exist", len(policies))
        for name, policy in sorted(policies.items()):
            text = "Handlers of a policy"
            out.add("netprobe_policy_handlers", "gauge", text, len(policy.module_names), policy=name)
            if getattr(policy, "is_resources", False):
                continue
            for stage, count in sorted(_losses(policy).items()):
                out.add(
                    "netprobe_policy_losses_total", "counter", POLICY_LOSSES, count, policy=name, stage=stage
                )

    def _web(self, out: _Writer) -> None:
        for (method, status), count in sorted(self.requests.items()):
            text = "HTTP requests answered"
            out.add("netprobe_http_requests_total", "counter", text, count, method=method, status=str(status))
        for reason in ("connections", "handshake", "header", "malformed", "slow"):
            text = "HTTP connections cut off: too many, no TLS, header too large, not HTTP, too slow"
            count = self.refused[reason]
            out.add("netprobe_http_refused_total", "counter", text, count, reason=reason)
        out.add("netprobe_http_connections", "gauge", "Open HTTP connections", self.connections())
        out.add("netprobe_http_queue_length", "gauge", "HTTP reads waiting for a thread", self.queued())


class _Writer:
    def __init__(self, static: Mapping[str, str] | None) -> None:
        self.families: Families = {}
        self._static = static

    def add(self, name: str, kind: str, text: str, value: float, **labels: str) -> None:
        family = self.families.setdefault(name, Family(text, kind))
        shown = repr(value) if isinstance(value, float) else str(value)
        family.lines.append(f"{name}{label_text(labels, self._static)} {shown}")


def _process(out: _Writer, started: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    out.add("netprobe_start_time_seconds", "gauge", "When the agent started, seconds since 1970", started)
    cpu = usage.ru_utime + usage.ru_stime
    out.add("netprobe_cpu_seconds_total", "counter", "Processor time of the whole process", round(cpu, 6))
    out.add(
        "netprobe_threads",
        "gauge",
        "Threads of Python",
        threading.active_count(),
    )
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        out.add("netprobe_resident_memory_bytes", "gauge", "Memory in use, resident", pages * PAGE)
    with contextlib.suppress(OSError):
        out.add("netprobe_open_fds", "gauge", "Open file descriptors", len(os.listdir("/proc/self/fd")))  # noqa: PTH208


def inputs_of(manager: ManagerFace) -> dict[str, Any]:
    """The running inputs by name, if the manager shows any."""
    found = getattr(manager, "inputs", None)
    while found is not None:
        try:
            return dict(found) if isinstance(found, Mapping) else {one.name: one for one in found}
        except (RuntimeError, KeyError):
            continue
    return {}


def _losses(policy: PolicyFace) -> Counter[str]:
    found: Counter[str] = Counter()
    for part in policy.parts:
        losses = getattr(part.handlers, "losses", None)
        if losses is not None:
            found.update(losses())
    del found[OF_THE_INPUT]
    return found


def _input(out: _Writer, name: str, source: Any) -> None:
    out.add("netprobe_input_running", "gauge", "1: the input runs", int(source.running), input=name)
    out.add("netprobe_input_up", "gauge", "1: its interface is up", int(source.interface_up), input=name)
    out.add("netprobe_input_consumers", "gauge", "Handler sets that it feeds", source.consumers, input=name)
    stats: Mapping[str, Any] = source.stats()
    for key, value in _flat(stats):
        if key[0] == "losses" or key[0] == "malformed":
            family = f"netprobe_input_{key[0]}_total"
            text = {
                "losses": "Packets and parts of them that were lost, by stage, of all policies together",
                "malformed": "Packets that could not be decoded, by cause",
            }[key[0]]
            label = "stage" if key[0] == "losses" else "cause"
            out.add(family, "counter", text, value, input=name, **{label: "_".join(key[1:])})
        elif len(key) == 1 and key[0] in INPUT_NUMBERS:
            family, kind, factor, text = INPUT_NUMBERS[key[0]]
            out.add(family, kind, text, round(value * factor, 9), input=name)


def _flat(stats: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], float]]:
    for key, value in stats.items():
        here = (*path, str(key))
        if isinstance(value, Mapping):
            yield from _flat(value, here)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield here, value

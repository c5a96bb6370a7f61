"""Live capture: an interface opened, what was lost on it, and what it says when that fails.

``af_packet`` reads a ring that the kernel fills (Linux); ``libpcap`` reads by way of pcapy-ng, slower and
wherever that works. Both deliver the same packets: loopback's once, VLAN tags in place, original lengths,
nothing before the filter is in force.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any, Literal, NamedTuple, Self

from netprobe._core.bpf import BpfProgram
from netprobe._core.live import LiveSource
from netprobe.errors import ConfigError, InputError
from netprobe.inputs.interfaces import (
    ANY,
    Interface,
    Netlink,
    interface_hosts,
    list_interfaces,
    resolve_interface,
)
from netprobe.inputs.live_filter import attach, live_filters, netmask_of, pcap_filters

__all__ = [
    "FANOUT_MODES",
    "SNAPLEN",
    "SOURCES",
    "Fanout",
    "Interface",
    "LiveCapture",
    "NoRing",
    "interface_hosts",
    "list_interfaces",
    "open_live",
    "resolve_interface",
]

SNAPLEN = 262144
SOURCES = ("af_packet", "libpcap")
RING_MB = 32
BLOCK_BYTES = 1 << 19  # a packet of 64 KiB fits eight times
RETIRE_MS = 20  # the kernel hands over a block that is not full
FANOUT_MODES = {"hash": 0, "lb": 1, "cpu": 2}
_ROLLOVER, _DEFRAG = 0x1000, 0x8000
_DENIED = (errno.EPERM, errno.EACCES)
# a kernel, or what plays one, that knows no such rings
_UNKNOWN = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOSYS)
# what pcap_activate returns
_PCAP_DENIED = (-8, -11)
_PCAP_DOWN = -9
_PCAP_ERRORS = {-5: "no such interface", -12: "the interface cannot be captured"}


class NoRing(InputError):
    """The kernel gives no ring of that size, or (`at_all`) none whatever its size: libpcap does with less."""

    def __init__(self, text: str, *, at_all: bool) -> None:
        super().__init__(text)
        self.at_all = at_all


class _Down(Exception):
    """libpcap does not capture an interface that is down."""


class Fanout(NamedTuple):
    """Sharing an interface's packets with other processes: all members of a group say the same.

    `mode`: hash (a flow stays with one member), lb (in turn), cpu (that received it). `rollover`: what finds
    its member's ring full goes to another one. `defrag`: the kernel puts IPv4 fragments together before it
    chooses.
    """

    group: int
    mode: str = "hash"
    rollover: bool = False
    defrag: bool = False

    @property
    def option(self) -> int:
        """What PACKET_FANOUT takes."""
        if self.mode not in FANOUT_MODES:
            raise ConfigError(f"fanout mode {self.mode!r}: expected {', '.join(FANOUT_MODES)}")
        if not 0 <= self.group <= 0xFFFF:
            raise ConfigError(f"fanout group {self.group}: expected 0 to 65535")
        flags = _ROLLOVER * self.rollover | _DEFRAG * self.defrag
        return self.group | (FANOUT_MODES[self.mode] | flags) << 16


class LiveCapture:
    """An interface being captured. `source` is for the core, and read by one thread; close it in the end."""

    def __init__(self, iface: str, source: LiveSource) -> None:
        self.iface = iface
        self.source = source
        # in the interface's network namespace, for as long as the capture lasts
        self._kernel = Netlink() if sys.platform == "linux" else None
        self._if_last = 0
        #: the interface's present name: it may be renamed
        self.called = iface
        self._if_last = self._if_now()
        self._if_drops = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def linktype(self) -> int:
        """LINKTYPE_ of its packets; -1 where each packet has its own (`any`)."""
        return self.source.linktype

    @property
    def state(self) -> Literal["up", "down", "gone"]:
        """down: switched off; gone: vanished. Capture goes on by itself when it is back."""
        return self.source.state

    def drops(self, *, ask: bool = True) -> dict[str, int]:
        """Packets since the start, by what became of them.

        received: handed to the reader, or about to be. os_drops: the kernel had no room. if_drops: the
        network card or its driver had none. ring_losses: handed over, but never read. received + os_drops
        passed the filter. ask: without it if_drops are those of the last time.
        """
        if ask:
            self.ask()
        counters = self.source.counters()
        return {
            "received": counters["received"],
            "os_drops": counters["dropped"],
            "if_drops": self._if_drops,
            "ring_losses": counters["lost"],
        }

    def ask(self) -> None:
        """Ask the kernel what the interface itself has lost, and for its name.

        That may take seconds, namely until whoever sets up or takes down interfaces somewhere else on the
        machine is done: not for somebody who is waited for.
        """
        now = self._if_now()
        # an interface that came back counts from zero
        self._if_drops += now - self._if_last if now >= self._if_last else now
        self._if_last = now

    def hosts(self) -> list[str]:
        """The networks of the interface, as :func:`interface_hosts` tells them, also under another name."""
        if self.iface == ANY:
            return interface_hosts(ANY)
        index = self.source.ifindex
        return [own for link in list_interfaces() if link.index == index for own in link.addresses]

    def wake(self) -> None:
        """Have the reading thread come back soon."""
        self.source.wake()

    def close(self) -> None:
        """End the capture, from any thread; its reader sees the end at once."""
        self.source.close()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    def _if_now(self) -> int:
        kernel, index = self._kernel, self.source.ifindex
        if kernel is not None and (index or self.iface == ANY):
            with contextlib.suppress(OSError):  # it is gone, or the capture has just been closed
                links = list(kernel.links(index))
                if index and links:
                    self.called = links[0].name
                return sum(link.dropped for link in links)
        return self._if_last


def open_live(
    iface: str,
    *,
    source: str = "af_packet",
    filter: str | None = None,
    snaplen: int = SNAPLEN,
    promisc: bool = True,
    ring_mb: int = RING_MB,
    fanout: Fanout | tuple[int, str] | None = None,
    timeout_ms: int = 100,
    headers: bool = False,
) -> LiveCapture:
    """Capture an interface: a name, an address that it has, ``auto``, or ``any`` for all at once.

    `filter`: a tcpdump expression. `snaplen`: bytes kept of each packet; lengths are the original ones all
    the same. `ring_mb`: the kernel's buffer in MiB. `timeout_ms`: the longest that a silent wire keeps the
    reading thread. `headers`: a ring gets no more than the headers of datagrams that no handler reads.
    InputError, in one line: no such interface (and which there are), no permission (and what
    is needed), or what else failed; NoRing where less memory, or libpcap, may help. ConfigError: a filter or
    a value that cannot be.
    """
    if source not in SOURCES:
        raise ConfigError(f"capture source {source!r}: expected {' or '.join(SOURCES)}")
    if not 1 <= snaplen <= SNAPLEN:
        raise ConfigError(f"snaplen {snaplen}: expected 1 to {SNAPLEN} bytes")
    if not 1 <= ring_mb <= 2048:
        raise ConfigError(f"ring of {ring_mb} MiB: expected 1 to 2048")
    if not 1 <= timeout_ms <= 60000:
        raise ConfigError(f"time-out of {timeout_ms} ms: expected 1 to 60000")
    sharing = Fanout(*fanout) if fanout is not None else None
    if sys.platform != "linux":
        raise InputError(f"{source}: live capture needs Linux")
    name = resolve_interface(iface)
    netmask = netmask_of(interface_hosts(name)) if filter else 0
    if source == "libpcap":
        return LiveCapture(
            name, _open_libpcap(name, filter, netmask, snaplen, promisc, ring_mb, sharing, timeout_ms)
        )
    from netprobe._core.ring import Ring

    ring = Ring(
        name,
        filters=live_filters(filter, snaplen, netmask, headers),
        snaplen=snaplen,
        promisc=promisc,
        n_blocks=max(2, (ring_mb << 20) // BLOCK_BYTES),
        block_bytes=BLOCK_BYTES,
        retire_ms=RETIRE_MS,
        timeout_ms=timeout_ms,
        fanout=sharing.option if sharing else -1,
    )
    try:
        ring.open()
    except OSError as problem:
        raise _explain(name, ring.where, problem, ring_mb, sharing) from None
    return LiveCapture(name, ring)


def _open_libpcap(
    name: str,
    expression: str | None,
    netmask: int,
    snaplen: int,
    promisc: bool,
    ring_mb: int,
    sharing: Fanout | None,
    timeout_ms: int,
) -> LiveSource:
    import pcapy  # lazily: it loads libpcap

    from netprobe._core.pcaplive import PcapSource

    if sharing is not None and (sharing.rollover or sharing.defrag):
        raise ConfigError("fanout by libpcap: neither rollover nor defrag; use the source af_packet")
    option = sharing.option if sharing is not None else 0

    def connect() -> tuple[Any, int, BpfProgram | None]:
        reader = pcapy.create(name)
        # its batches do not tell original lengths: whole packets, which the source cuts
        reader.set_snaplen(SNAPLEN)
        reader.set_promisc(promisc and name != ANY)
        reader.set_timeout(RETIRE_MS)
        reader.set_buffer_size(ring_mb << 20)
        code = reader.activate()
        if code in _PCAP_DENIED:
            raise _denied(name)
        if code == _PCAP_DOWN:
            raise _Down
        if code < 0:
            raise pcapy.PcapError(_PCAP_ERRORS.get(code, f"error {code}"))
        if sharing is not None:
            reader.set_fanout(sharing.group, option >> 16)
        linktype = reader.datalink()
        program = None
        if expression:
            inside, program = pcap_filters(expression, linktype, netmask)
            if inside:
                attach(reader.getfd(), inside)
        reader.setnonblock(1)
        return reader, linktype, program

    opened = PcapSource(name, connect=connect, snaplen=snaplen, timeout_ms=timeout_ms)
    try:
        opened.open()
    except _Down:
        opened.defer()
    except pcapy.PcapError as problem:
        raise InputError(
            f"{name}: cannot capture by libpcap: {str(problem).removeprefix(f'{name}: ')}"
        ) from None
    return opened


def _denied(name: str) -> InputError:
    return InputError(f"{name}: no permission to capture; it takes root, or CAP_NET_RAW and CAP_NET_ADMIN")


def _explain(name: str, step: str, problem: OSError, ring_mb: int, sharing: Fanout | None) -> InputError:
    code = problem.errno
    said = os.strerror(code) if code else str(problem)
    if code in _DENIED and step == "socket":
        return _denied(name)
    if step == "device":
        return InputError(f"no such interface: {name!r}")
    if step in ("ring", "map"):
        at_all = code in _UNKNOWN
        what = "ring buffer" if at_all else f"ring buffer of {ring_mb} MiB"
        hint = "the source libpcap does without" if at_all else "a smaller one may do"
        return NoRing(f"{name}: no {what}: {said}; {hint}", at_all=at_all)
    if step == "fanout" and sharing is not None:
        return InputError(
            f"{name}: cannot join fanout group {sharing.group} ({sharing.mode}): {said}; all members"
            " of a group capture the same interface in the same mode"
        )
    doing = {
        "filter": "set the filter",
        "promisc": "switch to promiscuous mode",
        "bind": "bind to the interface",
    }
    return InputError(f"{name}: cannot {doing.get(step, 'capture')}: {said}")

"""Where kprobe's packets come from: a capture file in packet time, or an interface."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable
from typing import Any, Protocol

from netprobe.errors import ConfigError, InputError
from netprobe.inputs.captures import complaints, open_capture

__all__ = ["FileInput", "Input", "LiveInput", "check_interface", "filter_compiler"]

#: upstream asks libpcap for 100,000,000 bytes
RING_MB = (96, 32, 8)
RING, LIBPCAP = "af_packet", "libpcap"
ARPHRD_ETHER = 1
#: how the line about a file that ends early ends
SO_FAR = "; what came before counts"

LOG = logging.getLogger("kprobe")

Compiler = Callable[[int], Any]


class Input(Protocol):
    """An opened source. `compile_filter`: what its reader has still to sift, None when nothing. `snaplen`: to
    how many bytes it has still to cut packets, 0: it has not.

    `mac`: what makes a packet's direction, None: nothing does. `state`: up, down or gone.
    """

    name: str
    live: bool
    source: Any
    compile_filter: Compiler | None
    snaplen: int
    mac: bytes | None

    @property
    def state(self) -> str: ...

    def cut_short(self) -> None:
        """From now on the input is at its end; called by the reading thread or a signal handler in it."""
        ...

    def problem(self) -> str | None:
        """What ended it, when that is not its natural end."""
        ...

    def drops(self) -> dict[str, int] | None:
        """Packets that were lost before they could be read, by cause; None for files, which lose nothing."""
        ...

    def close(self) -> None: ...


def filter_compiler(expression: str | None) -> Compiler | None:
    """ConfigError for an expression that is none."""
    if not expression:
        return None
    from netprobe.filters import compile_filter

    compile_filter(expression, 1)
    return lambda linktype: compile_filter(expression, linktype)


class FileInput:
    """A capture. `snaplen`: what passes the filter is cut to so many bytes, as an interface would do; 0: not.

    InputError: it cannot be read. ConfigError: the filter is wrong.
    """

    live = False
    state = "up"
    mac: bytes | None = None

    def __init__(self, path: str, filter: str | None = None, *, snaplen: int = 0) -> None:
        self.compile_filter = filter_compiler(filter)
        self.snaplen = snaplen
        self._open = contextlib.ExitStack()
        self._file, self.source = self._open.enter_context(open_capture(path))
        self.name = self._file.name

    def cut_short(self) -> None:
        """What was read goes through, nothing more is."""
        if self._file.fd >= 0:
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, self._file.fd)
            os.close(nothing)

    def problem(self) -> str | None:
        ended = None
        for line in complaints(self._file, self.source):
            if line.endswith(SO_FAR):
                ended = line.removesuffix(SO_FAR)
            else:
                LOG.warning("%s", line)
        return ended

    def drops(self) -> dict[str, int] | None:
        return None

    def close(self) -> None:
        self._open.close()


def check_interface(name: str, filter: str | None, *, source: str | None = None) -> None:
    """Could it be captured? To be asked before Kentik is told of it. `source`: see LiveInput.

    InputError for an interface that is not there, in kprobe's words (kprobe.md 1.4), or without the right to
    capture. ConfigError for a wrong filter.
    """
    from netprobe.inputs.live import NoRing, list_interfaces, open_live

    known = [interface.name for interface in list_interfaces()]
    if name not in known:
        # `any`, and devices that are no network interfaces
        what = "unknown" if name in _libpcap_devices() else "unsupported"
        raise InputError(f"{what} interface {name}, there are: {', '.join(known)}")
    try:
        open_live(name, source=source or RING, filter=filter or None, promisc=False, ring_mb=1).close()
    except NoRing:
        # no obstacle where libpcap may be tried
        if source is not None:
            raise


def _libpcap_devices() -> list[str]:
    import pcapy  # lazily: it loads libpcap

    try:
        return list(pcapy.findalldevs())
    except pcapy.PcapError:
        return []


def has_tags(interface: str) -> bool:
    """Can VLAN tags stand in its packets?"""
    from netprobe.inputs.live import list_interfaces

    return any(each.name == interface and each.kind == ARPHRD_ETHER for each in list_interfaces())


def _ring_or_less(open_it: Callable[..., Any], fanout: tuple[int, str] | None, *, or_libpcap: bool) -> Any:
    """The largest ring that the kernel gives; where it gives none, libpcap's capture, if that is wanted."""
    from netprobe.inputs.live import NoRing

    for ring_mb in RING_MB:
        try:
            return open_it(source=RING, ring_mb=ring_mb, fanout=fanout)
        except NoRing as error:
            last = error.at_all or ring_mb == RING_MB[-1]
            if last and fanout is not None:
                raise InputError(f"{error}, but not for a fanout group") from None
            if last and not or_libpcap:
                raise
            # little memory, as in some containers: less room is better than none
            LOG.warning("%s", error)
            if last:
                break
    LOG.warning("capturing by libpcap, which is slower")
    return open_it(source=LIBPCAP, ring_mb=RING_MB[-1])


class LiveInput:
    """An interface. fanout: group and mode (hash, lb, cpu), for the ring alone. pcap_source: af_packet, the
    kernel's ring, or libpcap; None: libpcap where there is no ring.

    InputError: it cannot be opened. ConfigError: the filter is wrong.
    """

    live = True
    compile_filter: Compiler | None = None
    # the kernel has filtered and cut
    snaplen = 0

    def __init__(
        self,
        interface: str,
        filter: str | None = None,
        *,
        promisc: bool = False,
        snaplen: int,
        fanout: tuple[int, str] | None = None,
        pcap_source: str | None = None,
    ) -> None:
        from netprobe.inputs.live import FANOUT_MODES, list_interfaces, open_live

        if fanout is not None and pcap_source == LIBPCAP:
            # a member would count what comes in before it has joined, once more
            raise ConfigError(f"fanout: not with {LIBPCAP}; it takes {RING}")
        self.name = interface
        known = {each.name: each for each in list_interfaces()}.get(interface)
        # 3.4: without a MAC there is no direction; loopback has one of zeros, and everything comes in
        has_mac = known is not None and len(known.mac) == 6 and (any(known.mac) or known.loopback)
        self.mac = known.mac if known is not None and has_mac else None
        opened = functools.partial(
            open_live, interface, filter=filter or None, snaplen=snaplen, promisc=promisc
        )
        if pcap_source == LIBPCAP:
            self._capture = opened(source=LIBPCAP, ring_mb=RING_MB[0])
        else:
            self._capture = _ring_or_less(opened, fanout, or_libpcap=pcap_source is None)
        self.source: Any = self._capture.source
        LOG.debug("interface: %s", known)
        if fanout is not None:
            LOG.info("%s: joined fanout group %d, mode %d", interface, fanout[0], FANOUT_MODES[fanout[1]])
        LOG.info("%s: capturing", interface)

    @property
    def state(self) -> str:
        return str(self._capture.state)

    def cut_short(self) -> None:
        """Nothing to do: its readers know when to stop."""

    def problem(self) -> str | None:
        if self._capture.state == "gone":
            return f"{self.name}: the interface has gone"
        if self.source.how_ended not in ("", "clean"):
            return f"{self.name}: {self.source.error_text or self.source.how_ended}"
        return None

    def drops(self) -> dict[str, int] | None:
        counts = self._capture.drops()
        return {name: counts[name] for name in ("os_drops", "if_drops", "ring_losses")}

    def close(self) -> None:
        self._capture.close()

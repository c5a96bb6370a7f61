"""Capture filters of live interfaces: what the kernel runs, what the core runs, and how the two agree.

A program in the kernel sees a frame whose outermost VLAN tag was taken out. Replayed from a file the same
frame has it, and live counters must equal those of the file. So a frame that had a tag is let through, gets
it back, and is judged by the core with the same program; all others are judged in the kernel.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Sequence

from netprobe._core.bpf import BpfProgram
from netprobe.errors import ConfigError
from netprobe.filters import UNKNOWN_NETMASK
from netprobe.linktypes import compiler_number, name_of

__all__ = ["CORE_ALL", "CORE_NONE", "CORE_TAGGED", "attach", "live_filters", "netmask_of", "pcap_filters"]

CORE_NONE, CORE_TAGGED, CORE_ALL = range(3)  # live.pxd

Rows = list[tuple[int, int, int, int]]
EVERYTHING = 0x40000
MAX_ROWS = 4096  # the kernel's limit
MARGIN = 64  # a tag or a cooked header more than what the kernel cuts; the core cuts to the byte

_ETHERNET, _COOKED = 1, 113
_LOAD, _EQUAL, _JUMP, _RETURN = 0x20, 0x15, 0x05, 0x06
_HALF, _BYTE, _LENGTH, _ABOVE, _ANY_BIT = 0x28, 0x30, 0x80, 0x25, 0x45
_LOADS = (0x20, 0x28, 0x30)
# what a program may ask of the kernel beside the packet (linux/filter.h, SKF_AD_*)
_ASIDE = 0xFFFFF000
_PACKET_TYPE, _HARDWARE, _TAG_PRESENT = _ASIDE + 4, _ASIDE + 28, _ASIDE + 48
_OUTGOING, _LOOPBACK = 4, 772
_ATTACH_FILTER = 26  # SO_ATTACH_FILTER, which the module socket does not have

_TAGGED_PASS: Rows = [(_LOAD, 0, 0, _TAG_PRESENT), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, EVERYTHING)]
_NO_COPIES: Rows = [
    (_LOAD, 0, 0, _PACKET_TYPE),
    (_EQUAL, 0, 3, _OUTGOING),
    (_LOAD, 0, 0, _HARDWARE),
    (_EQUAL, 0, 1, _LOOPBACK),
    (_RETURN, 0, 0, 0),
]


# whose payload handlers read (ports_app_udp, ports_app_tcp of decode.pyx): DNS, DHCP, BGP
READ_PORTS = (53, 5353, 5355, 53000, 67, 68, 546, 547, 179)
#: (IP version, protocol) -> kept of a datagram that no handler reads: its longest headers, in whole sixteens
HEADERS = {(4, 6): 96, (4, 17): 48, (6, 6): 128, (6, 17): 64}


def live_filters(
    expression: str | None,
    snaplen: int = EVERYTHING,
    netmask: int = UNKNOWN_NETMASK,
    headers: bool = False,
) -> Callable[[int], tuple[Rows, BpfProgram | None, int]]:
    """link type -> (rows for the kernel, program for the core, which packets the core judges), for a Ring.

    Link type -1 is what `any` has in the kernel: all kinds of frames, so that only the core can judge. The
    function raises ConfigError for an expression that is wrong or means nothing for the link type.
    ``headers``: of datagrams of ports that no handler reads, HEADERS are enough.
    """
    cut = min(snaplen + MARGIN, EVERYTHING)

    def filters(linktype: int) -> tuple[Rows, BpfProgram | None, int]:
        rows, program, mode = whole(linktype)
        if headers and linktype == _ETHERNET and cut > max(HEADERS.values()):
            # what the core has still to judge stays whole
            untouched = len(_TAGGED_PASS) if mode == CORE_TAGGED else 0
            cutting = rows[:untouched] + _headers_only(rows[untouched:], cut)
            if len(cutting) <= MAX_ROWS:
                rows = cutting
        return rows, program, mode

    def whole(linktype: int) -> tuple[Rows, BpfProgram | None, int]:
        if linktype == -1:
            return [*_NO_COPIES, (_RETURN, 0, 0, cut)], None, CORE_ALL if expression else CORE_NONE
        if not expression:
            return [(_RETURN, 0, 0, cut)], None, CORE_NONE
        rows = compile_rows(expression, linktype, cut, netmask)
        if _asks_aside(rows):
            if linktype == _COOKED:
                raise ConfigError(f"filter {expression!r}: direction cannot be told on {name_of(linktype)}")
            return rows, None, CORE_NONE  # direction: the kernel alone knows
        program = BpfProgram(rows, linktype)
        if linktype == _ETHERNET:
            return _TAGGED_PASS + rows, program, CORE_TAGGED
        if linktype == _COOKED:
            return (
                [(_RETURN, 0, 0, cut)],
                program,
                CORE_ALL,
            )  # the kernel does not see the header that we write
        return rows, program, CORE_NONE

    return filters


def _headers_only(rows: Rows, cut: int) -> Rows:
    """The program, but what it lets through is cut behind the headers of a TCP or UDP datagram, unless one of
    its ports is among READ_PORTS. Fragments, IPv4 options, IPv6 extension headers: whole, as all others are.
    """
    end = len(rows)
    found: Rows = [
        (_JUMP, 0, 0, end - at - 1) if code == _RETURN and k else (code, jt, jf, k)
        for at, (code, jt, jf, k) in enumerate(rows)
    ]

    def unread(name: str, version: int, protocol: int) -> list[tuple[str, int, int, str, str]]:
        """Both ports, then what is kept."""
        at = 34 if version == 4 else 54
        listed = [("", _EQUAL, port, "full", "") for port in READ_PORTS]
        return [
            (name, _HALF, at, "", ""),
            *listed,
            ("", _HALF, at + 2, "", ""),
            *listed,
            ("", _RETURN, HEADERS[version, protocol], "", ""),
        ]

    # its own name, code, argument, where to go if true and if false (else to the next)
    steps: list[tuple[str, int, int, str, str]] = [
        # a load past the end would drop the packet
        ("", _LENGTH, 0, "", ""),
        ("", _ABOVE, max(HEADERS.values()), "", "full"),
        ("", _HALF, 12, "", ""),
        ("", _EQUAL, 0x0800, "ipv4", ""),
        ("", _EQUAL, 0x86DD, "ipv6", "full"),
        ("ipv4", _BYTE, 14, "", ""),
        ("", _EQUAL, 0x45, "", "full"),
        ("", _HALF, 20, "", ""),
        ("", _ANY_BIT, 0x3FFF, "full", ""),
        ("", _BYTE, 23, "", ""),
        ("", _EQUAL, 6, "tcp4", ""),
        ("", _EQUAL, 17, "udp4", "full"),
        ("ipv6", _BYTE, 20, "", ""),
        ("", _EQUAL, 6, "tcp6", ""),
        ("", _EQUAL, 17, "udp6", "full"),
        *unread("tcp4", 4, 6),
        *unread("udp4", 4, 17),
        *unread("tcp6", 6, 6),
        *unread("udp6", 6, 17),
        ("full", _RETURN, cut, "", ""),
    ]
    places = {name: at for at, (name, *_) in enumerate(steps) if name}
    for at, (_, code, k, yes, no) in enumerate(steps):
        true, false = (places[to] - at - 1 if to else 0 for to in (yes, no))
        found.append((code, true, false, k))
    return found


def pcap_filters(expression: str, linktype: int, netmask: int) -> tuple[Rows, BpfProgram]:
    """(rows for the kernel, to be set behind libpcap's back, program for the core), where the first lets
    through what the second wants.

    libpcap puts tags back as we do, but in the kernel its own programs judge tagged frames without them.
    """
    rows = compile_rows(expression, linktype, EVERYTHING, netmask)
    if _asks_aside(rows):
        # libpcap judges the first packets itself, and does not know their direction: it loses them
        raise ConfigError(
            f"filter {expression!r}: direction can be told by the capture source af_packet only"
        )
    return (_TAGGED_PASS + rows if linktype == _ETHERNET else []), BpfProgram(rows, linktype)


def attach(fd: int, rows: Rows) -> None:
    """Have the kernel judge what a socket gets, unless the program is too long for it or jumps backwards."""
    import ctypes  # lazily: few capture by libpcap

    code = b"".join(struct.pack("=HBBI", *row[:3], row[3] & 0xFFFFFFFF) for row in rows)
    room = ctypes.create_string_buffer(code, len(code))
    with contextlib.suppress(OSError, struct.error), socket.socket(fileno=os.dup(fd)) as again:
        again.setsockopt(
            socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HL", len(rows), ctypes.addressof(room))
        )


def _asks_aside(rows: Rows) -> bool:
    """Does it ask the kernel for more than the packet, like its direction?"""
    return any(code in _LOADS and k & 0xFFFFFFFF >= _ASIDE for code, _, _, k in rows)


def compile_rows(expression: str, linktype: int, snaplen: int, netmask: int) -> Rows:
    """The instructions of a tcpdump expression; ConfigError says what is wrong with it."""
    import pcapy  # lazily: it loads libpcap

    try:
        return list(pcapy.compile(compiler_number(linktype), snaplen, expression, 1, netmask).get_bpf())
    except (
        pcapy.PcapError,
        ValueError,
    ) as error:  # pcapy reads the text after it was freed: it may be no text
        raise ConfigError(f"filter {expression!r} for {name_of(linktype)}: {error}") from None


def netmask_of(hosts: Sequence[str]) -> int:
    """The netmask of the first IPv4 address, for `ip broadcast`."""
    for host in hosts:
        if ":" not in host:
            packed = ipaddress.IPv4Interface(host).netmask.packed
            return int.from_bytes(packed, "big")
    return UNKNOWN_NETMASK

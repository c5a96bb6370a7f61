"""The machine's network interfaces as the kernel tells them over rtnetlink(7): names, addresses, counters."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from netprobe.errors import InputError

__all__ = ["ANY", "AUTO", "Interface", "Netlink", "interface_hosts", "list_interfaces", "resolve_interface"]

ANY = "any"  # all interfaces at once
AUTO = "auto"  # the busiest

IFF_UP = 1
IFF_LOOPBACK = 8

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_COUNTERS = struct.Struct("=16Q")  # rtnl_link_stats64, up to rx_missed_errors

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_GETLINK, _RTM_GETADDR = 18, 22
_REQUEST, _REQUEST_ALL = 0x001, 0x301
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_STATS64 = 1, 3, 4, 23
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


@dataclass
class Interface:
    """One network interface at the time of asking."""

    name: str
    index: int
    kind: int  # ARPHRD_*
    flags: int  # IFF_*
    mac: bytes = b""
    mtu: int = 0
    packets: int = 0  # received and sent since it exists
    dropped: int = 0  # received, but lost before anybody could see them
    addresses: list[str] = field(default_factory=list)  # with prefix length, IPv4 first

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def loopback(self) -> bool:
        return bool(self.flags & IFF_LOOPBACK)


class Netlink:
    """Questions about the interfaces of the network namespace in which it was made. OSError: refused."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(5)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def interfaces(self) -> list[Interface]:
        """All of them with their addresses, by index."""
        found = {link.index: link for link in self.links()}
        both: dict[int, tuple[list[str], list[str]]] = {index: ([], []) for index in found}
        for body in self._ask(_RTM_GETADDR, bytes(_ADDRESS.size), _REQUEST_ALL):
            family, prefix, _, _, index = _ADDRESS.unpack_from(body)
            attributes = dict(_attributes(body, _ADDRESS.size))
            # of a point-to-point link IFA_ADDRESS is the other end
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if packed and index in both and family in (socket.AF_INET, socket.AF_INET6):
                both[index][family == socket.AF_INET6].append(f"{ipaddress.ip_address(packed)}/{prefix}")
        for index, (four, six) in both.items():
            found[index].addresses = four + six
        return [found[index] for index in sorted(found)]

    def links(self, index: int = 0) -> Iterator[Interface]:
        """All of them, or the one with this index, without addresses. OSError: there is no such one."""
        question = _LINK.pack(0, 0, index, 0, 0)
        for body in self._ask(_RTM_GETLINK, question, _REQUEST if index else _REQUEST_ALL):
            _, kind, index, flags, _ = _LINK.unpack_from(body)
            attributes = dict(_attributes(body, _LINK.size))
            link = Interface(
                name=attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
                index=index,
                kind=kind,
                flags=flags,
                mac=attributes.get(_IFLA_ADDRESS, b""),
            )
            mtu = attributes.get(_IFLA_MTU, b"")
            if len(mtu) == 4:
                link.mtu = int.from_bytes(mtu, sys.byteorder)
            counters = attributes.get(_IFLA_STATS64, b"")
            if len(counters) >= _COUNTERS.size:
                values = _COUNTERS.unpack_from(counters)
                link.packets = values[0] + values[1]
                link.dropped = values[14] + values[15]  # the card's FIFO and its missed frames
            yield link

    def _ask(self, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
        self._sequence += 1
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, flags, self._sequence, 0) + body)
        while True:
            answer = self._socket.recv(1 << 18)
            at = 0
            while at + _HEADER.size <= len(answer):
                length, kind, _, sequence, _ = _HEADER.unpack_from(answer, at)
                if not _HEADER.size <= length <= len(answer) - at:
                    return
                message = answer[at + _HEADER.size : at + length]
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    code = -int.from_bytes(message[:4], sys.byteorder, signed=True)
                    raise OSError(code, os.strerror(code))
                yield message
                if flags == _REQUEST:
                    return


def _attributes(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def list_interfaces() -> list[Interface]:
    """All interfaces with their addresses, by index."""
    with contextlib.closing(Netlink()) as kernel:
        return kernel.interfaces()


def resolve_interface(text: str) -> str:
    """The interface meant: by name, by an address that one of them has, or ``auto``; ``any`` is itself.

    ``auto`` is the one with the most packets among those that are up and no loopback. InputError: there is
    none.
    """
    if text == ANY:
        return text
    present = list_interfaces()
    if any(link.name == text for link in present):
        return text
    names = ", ".join(link.name for link in present)
    if text == AUTO:
        busiest = max(
            (link for link in present if link.up and not link.loopback),
            key=lambda link: link.packets,
            default=None,
        )
        if busiest is None or busiest.packets == 0:
            raise InputError(
                f"interface auto: no interface is up, has seen packets and is no loopback; there are: {names}"
            )
        return busiest.name
    host, _, scope = text.partition("%")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise InputError(f"no such interface: {text!r}; there are: {names}") from None
    for link in present:
        # a link-local address may be on several: fe80::1%eth1
        if scope in ("", link.name, str(link.index)) and any(
            ipaddress.ip_interface(own).ip == address for own in link.addresses
        ):
            return link.name
    owned = ", ".join(own for link in present for own in link.addresses)
    raise InputError(f"no interface has the address {text}; there are: {owned or 'none'}")


def interface_hosts(name: str) -> list[str]:
    """Its addresses with their prefix length, like ``192.0.2.1/24``, IPv4 first; of ``any``, those of all.

    With its netmask each stands for the whole connected network (agent spec 4.1.3).
    """
    return [own for link in list_interfaces() if name in (link.name, ANY) for own in link.addresses]

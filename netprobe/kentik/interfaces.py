"""The capture interface as the system knows it, and its registration with the API (kflow-wire.md 1.7)."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from netprobe.errors import InputError
from netprobe.kentik.api import Device, DeviceApi
from netprobe.kentik.errors import RequestFailed

__all__ = ["Interface", "register", "wanted"]

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# rtnetlink
NLMSG_DONE = 3
NLMSG_ERROR = 2
RTM_NEWADDR = 20
RTM_GETADDR = 22
NLM_F_REQUEST_DUMP = 0x301
IFA_ADDRESS = 1
IFA_LOCAL = 2
NLMSG = struct.Struct("=IHHII")
IFADDRMSG = struct.Struct("=BBBBI")
ATTRIBUTE = struct.Struct("=HH")

SIOCGIFHWADDR = 0x8927
ARPHRD_ETHER = 1

KERNEL = "kernel"


@dataclass(frozen=True)
class Interface:
    """Name, MAC (None for none or zeros only), addresses with prefix lengths in the system's order."""

    name: str
    mac: bytes | None
    addresses: tuple[Address, ...]

    @classmethod
    def of_system(cls, name: str) -> Interface:
        """InputError `unknown interface NAME` when the system has no such interface."""
        try:
            index = socket.if_nametoindex(name)
            mac = _mac(name)
            addresses = tuple(_addresses(index))
        except (OSError, ValueError):
            raise InputError(f"unknown interface {name}") from None
        return cls(name, mac, addresses)

    @property
    def index(self) -> int | None:
        """The interface's number in flow records: its MAC's last two bytes."""
        return None if self.mac is None else int.from_bytes(self.mac[-2:], "big")

    def first_ipv4(self) -> str | None:
        """The address that a new device gets when none is given (kprobe.md 9.2)."""
        return next((str(entry.ip) for entry in self.addresses if entry.version == 4), None)

    def global_unicast(self) -> list[Address]:
        """Private ranges included; not loopback, link-local, multicast, unspecified, broadcast."""
        return [entry for entry in self.addresses if _is_global_unicast(entry.ip)]


def _is_global_unicast(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return False
    return str(ip) != "255.255.255.255"


def _mac(name: str) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16s24x", os.fsencode(name)[:15])
        answer = fcntl.ioctl(any_socket.fileno(), SIOCGIFHWADDR, request)
    kind, mac = struct.unpack_from("=H6s", answer, 16)
    return mac if kind == ARPHRD_ETHER and any(mac) else None


def _addresses(index: int) -> Iterator[Address]:
    """By rtnetlink, which sees the network namespace of this process, other than /sys."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(5)
        body = IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        netlink.send(NLMSG.pack(NLMSG.size + len(body), RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + body)
        while True:
            data = netlink.recv(1 << 18)
            at = 0
            while at + NLMSG.size <= len(data):
                length, kind, *_ = NLMSG.unpack_from(data, at)
                if kind in (NLMSG_DONE, NLMSG_ERROR) or length < NLMSG.size:
                    return
                if kind == RTM_NEWADDR:
                    yield from _one_address(data[at + NLMSG.size : at + length], index)
                at += (length + 3) & ~3


def _one_address(message: bytes, index: int) -> Iterator[Address]:
    _, prefix, _, _, at_index = IFADDRMSG.unpack_from(message)
    if at_index != index:
        return
    found: dict[int, bytes] = {}
    at = IFADDRMSG.size
    while at + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, at)
        if length < ATTRIBUTE.size:
            break
        found[kind] = message[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    # on a point-to-point link IFA_ADDRESS is the peer's
    raw = found.get(IFA_LOCAL, found.get(IFA_ADDRESS, b""))
    if len(raw) in (4, 16):
        yield ipaddress.ip_interface((raw, prefix))


def wanted(interface: Interface) -> dict[str, dict[str, Any]]:
    """What should be registered; empty without a MAC or without a global unicast address."""
    addresses = interface.global_unicast()
    if not addresses or interface.index is None:
        return {}
    first, *others = [{"address": str(entry.ip), "netmask": str(entry.netmask)} for entry in addresses]
    return {
        interface.name: _entry(interface.name, str(interface.index), first, others or None),
        KERNEL: _entry(KERNEL, "0", {"address": "", "netmask": ""}, None),
    }


def _entry(
    name: str, index: str, first: dict[str, str], others: list[dict[str, str]] | None
) -> dict[str, Any]:
    return {
        "index": index,
        "alias": "",
        "desc": name,
        "speed": 0,
        "type": 0,
        **first,
        "alias_address": others,
    }


def _same(entry: dict[str, Any], registered: dict[str, Any]) -> bool:
    # null and an empty list count as different
    return bool(
        entry["desc"] == registered.get("interface_description")
        and entry["index"] == str(registered.get("snmp_id"))
        and entry["address"] == registered.get("interface_ip", "")
        and entry["netmask"] == registered.get("interface_ip_netmask", "")
        and entry["alias_address"] == registered.get("secondary_ips")
    )


def register(api: DeviceApi, device: Device, interface: Interface) -> str | None:
    """Bring the registered interfaces up to date; the reason when that failed, which is for the log only."""
    try:
        registered = api.interfaces(device)
        missing = {
            name: entry
            for name, entry in wanted(interface).items()
            if not any(_same(entry, one) for one in registered)
        }
        if missing:
            api.update_interfaces(device, missing)
    except RequestFailed as error:
        return str(error)
    return None

"""Host specifications: the comma-separated CIDR list that decides what is inbound (agent spec 4.1.3)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import NamedTuple

from netprobe.errors import ConfigError

__all__ = ["Hosts", "Subnet", "host_spec", "parse_hosts"]

Network = IPv4Network | IPv6Network | IPv4Interface | IPv6Interface
#: what the public functions take as `hosts`
Hosts = str | Network | Iterable[str | Network] | None


class Subnet(NamedTuple):
    """One entry: family 4 or 6, the address as written (4 or 16 bytes, host bits kept), length in bits."""

    family: int
    address: bytes
    prefixlen: int


def host_spec(hosts: Hosts) -> str:
    """A host specification as text: members of a list, also networks of `ipaddress`, joined by commas."""
    if hosts is None or isinstance(hosts, str):
        return hosts or ""
    try:
        members = [hosts] if isinstance(hosts, Network) else hosts
        return ",".join(str(one) if isinstance(one, Network) else one for one in members)
    except TypeError:
        from netprobe.arguments import wrong

        raise wrong("hosts", hosts, "text such as 10.0.0.0/8, or a list of such") from None


def parse_hosts(hosts: Hosts) -> list[Subnet]:
    """Subnets of a host specification, in its order.

    The prefix length is mandatory, blanks are not allowed, and a length of 0 matches every address of its
    family. ConfigError texts are the ones that pktvisor's users know.
    """
    spec = host_spec(hosts)
    return [_subnet(entry) for entry in spec.split(",")] if spec else []


def _subnet(entry: str) -> Subnet:
    address, slash, length = entry.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or len(length) > 3:
        raise ConfigError(f"invalid CIDR: {entry}")
    family: int
    if ":" in address:
        family, bits = 6, 128
    else:
        family, bits = 4, 32
    packed = _packed(family, address)
    if int(length) > bits:
        raise ConfigError(f"invalid CIDR: {entry}")
    return Subnet(family, packed, int(length))


def _packed(family: int, address: str) -> bytes:
    try:
        if family == 4:
            return ipaddress.IPv4Address(address).packed
        if "%" not in address:  # a zone says nothing about packets
            return ipaddress.IPv6Address(address).packed
    except ValueError:
        pass
    raise ConfigError(f"invalid IPv{family} address: {address}")

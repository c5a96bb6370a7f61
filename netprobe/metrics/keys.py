"""TopN keys become text here, and only here: tables hold binary keys until somebody looks.

A renderer takes the key's bytes (form by kind: ``_core/sketch/freq.pxd``) and the geo databases, and gives
a :class:`Label`. The text need not be unique: two keys may render alike; rows are joined by text afterwards.
"""

import socket
import sys
from collections.abc import Callable
from typing import NamedTuple, Protocol

UNKNOWN = "Unknown"


class Label(NamedTuple):
    """What a TopN row is called; the coordinates, decimal text, come with locations only."""

    name: str
    lat: str | None = None
    lon: str | None = None


class GeoNames(Protocol):
    """Names of places and autonomous systems (:class:`netprobe.geo.GeoNames`), by the whole key."""

    def city(self, key: bytes, /) -> tuple[str, str | None, str | None]:
        """Location text, latitude and longitude as decimal text."""

    def asn(self, key: bytes, /) -> str:
        """``number/organisation``."""


Render = Callable[[bytes, GeoNames | None], Label]


def ipv4(key: bytes, geo: GeoNames | None = None) -> Label:
    return Label(socket.inet_ntop(socket.AF_INET, key[:4]))


def ipv6(key: bytes, geo: GeoNames | None = None) -> Label:
    return Label(socket.inet_ntop(socket.AF_INET6, key[:16]))


def number_of(key: bytes) -> int:
    """A port, type or code: the native 32-bit integer in the key."""
    return int.from_bytes(key[:4], sys.byteorder)


def number(key: bytes, geo: GeoNames | None = None) -> Label:
    return Label(str(number_of(key)))


def text(key: bytes, geo: GeoNames | None = None) -> Label:
    # names come from the wire: bytes that are no UTF-8 stay readable and make valid JSON
    return Label(key.decode("utf-8", "backslashreplace"))


def subnet(key: bytes, geo: GeoNames | None = None) -> Label:
    """A client subnet's address, without its prefix length (metrics spec 7.8)."""
    return ipv4(key[1:5]) if key[0] == 4 else ipv6(key[1:17])


def place(key: bytes, geo: GeoNames | None = None) -> Label:
    # record 0: the database does not know the address
    if geo is None or not number_of(key):
        return Label(UNKNOWN)
    name, lat, lon = geo.city(key)
    return Label(name) if lat is None or lon is None else Label(name, lat, lon)


def autonomous_system(key: bytes, geo: GeoNames | None = None) -> Label:
    return Label(UNKNOWN if geo is None or not number_of(key) else geo.asn(key))


# many records lead to one of these texts (a database splits one city or network into several records),
# so their rows are joined before the best are chosen
JOINED: frozenset[Render] = frozenset({place, autonomous_system})

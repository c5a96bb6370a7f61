"""City and network names of addresses, from MaxMind databases (metrics spec 5.1).

The native side finds where an address's record lies in the file; that offset is what the tables count. Text
comes into being here, once per distinct record, when somebody looks.
"""

from __future__ import annotations

import ipaddress
import mmap
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from netprobe.errors import InputError

if TYPE_CHECKING:
    from netprobe._core.mmdb import Mmdb

__all__ = ["UNKNOWN", "GeoAsn", "GeoCity", "GeoNames", "Location"]

#: the name of every address that a database does not know
UNKNOWN = "Unknown"

METADATA_MARKER = b"\xab\xcd\xefMaxMind.com"
METADATA_SPAN = 128 * 1024
#: rendered records kept per database; distinct ones are few, a bound costs nothing
CACHE_RECORDS = 65536

IPV4_MAPPED = bytes(10) + b"\xff\xff"


class Location(NamedTuple):
    """A city record: the path of names, and decimal degrees as text where the record has them."""

    text: str
    lat: str | None
    lon: str | None


_Rendered = TypeVar("_Rendered")


class _Database(Generic[_Rendered]):
    """An open database: `native` walks its tree, this class renders its records.

    InputError names the file and why it cannot be used.
    """

    #: what messages call it
    role: str
    #: database types that hold none of what is wanted
    foreign: tuple[str, ...]

    native: Mmdb

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._rendered: dict[int, _Rendered] = {}
        self.native, self._reader = self._load()

    def _load(self) -> tuple[Mmdb, Any]:
        # 40 ms, paid only by those who give a database
        import maxminddb

        from netprobe._core.mmdb import Mmdb

        try:
            with Path(self.path).open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            reader = maxminddb.open_database(self.path)
            about = reader.metadata()
            if any(word in about.database_type for word in self.foreign):
                raise ValueError(f"it is a {about.database_type} database")
            end = data.rfind(METADATA_MARKER, max(len(data) - METADATA_SPAN, 0))
            return Mmdb(data, about.node_count, about.record_size, about.ip_version, end), reader
        except OSError as problem:
            reason = os.strerror(problem.errno).lower() if problem.errno else str(problem)
        except maxminddb.InvalidDatabaseError:
            reason = "is not a MaxMind database, or is damaged"
        except ValueError as problem:
            reason = str(problem)
        raise InputError(
            f"{self.role} database {self.path}: {reason}; expected a MaxMind {self.role} database (.mmdb)"
        )

    def __reduce__(self) -> tuple[type, tuple[str]]:
        # a summary that is sent elsewhere opens the file there
        return type(self), (str(self.path),)

    def text(self, address: bytes, offset: int) -> _Rendered:
        """The record at `offset`, which `address` (16 bytes, IPv4 as ::ffff:a.b.c.d) leads to."""
        known = self._rendered.get(offset)
        if known is None:
            if len(self._rendered) >= CACHE_RECORDS:
                self._rendered.clear()
            known = self._rendered[offset] = self._render(self._record(address) if offset else None)
        return known

    def _record(self, address: bytes) -> dict[str, Any] | None:
        import maxminddb

        wanted: ipaddress.IPv4Address | ipaddress.IPv6Address
        if address.startswith(IPV4_MAPPED):
            wanted = ipaddress.IPv4Address(address[12:])
        else:
            wanted = ipaddress.IPv6Address(address)
        try:
            record = self._reader.get(wanted)
        except (maxminddb.InvalidDatabaseError, ValueError):
            return None  # a damaged record is one that says nothing
        return record if isinstance(record, dict) else None

    def _render(self, record: dict[str, Any] | None) -> _Rendered:
        raise NotImplementedError


class GeoCity(_Database[Location]):
    """A city database (City, Country or Enterprise)."""

    role = "city"
    foreign = ("ASN", "ISP", "Domain", "Connection-Type", "Anonymous")

    def _render(self, record: dict[str, Any] | None) -> Location:
        """Continent code, country, first subdivision's code and city, those that are known."""
        if record is None:
            return Location(UNKNOWN, None, None)
        country = _map(record, "country")
        divisions = record.get("subdivisions")
        division = divisions[0] if isinstance(divisions, list) and divisions else {}
        parts = (
            _map(record, "continent").get("code"),
            _english(country) or country.get("iso_code"),
            division.get("iso_code") if isinstance(division, dict) else None,
            _english(_map(record, "city")),
        )
        place = _map(record, "location")
        return Location(
            "/".join(str(part) for part in parts if part) or UNKNOWN,
            _degrees(place.get("latitude")),
            _degrees(place.get("longitude")),
        )


class GeoAsn(_Database[str]):
    """A database of autonomous systems (ASN or ISP)."""

    role = "ASN"
    foreign = ("City", "Country", "Domain", "Connection-Type", "Anonymous")

    def _render(self, record: dict[str, Any] | None) -> str:
        """Number and organisation, `1221/Telstra Pty Ltd`."""
        number = record.get("autonomous_system_number") if record else None
        if record is None or number is None:
            return UNKNOWN
        organisation = record.get("autonomous_system_organization")
        return f"{number}/{organisation}" if organisation else f"{number}"


class GeoNames:
    """Renders the geo keys of the tables: a record's offset (native uint32), an address leading to it."""

    def __init__(self, city: GeoCity | None = None, asn: GeoAsn | None = None) -> None:
        self.city_database = city
        self.asn_database = asn

    def city(self, key: bytes) -> Location:
        """Place of a key; empty without a city database."""
        if self.city_database is None:
            return Location("", None, None)
        return self.city_database.text(key[4:], _offset(key))

    def asn(self, key: bytes) -> str:
        """Network of a key; empty without an ASN database."""
        return "" if self.asn_database is None else self.asn_database.text(key[4:], _offset(key))


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:4], sys.byteorder)


def _map(record: dict[str, Any], name: str) -> dict[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _english(place: dict[str, Any]) -> Any:
    return _map(place, "names").get("en")


def _degrees(value: Any) -> str | None:
    return f"{value:.6f}" if isinstance(value, float | int) else None

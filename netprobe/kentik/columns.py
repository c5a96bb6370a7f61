"""Custom columns: which fields a device can take, under which numbers (kprobe.md 4.5, 4.7, 6.0)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from netprobe.kentik.records import Field, NativeField, as_text

__all__ = ["DECODERS", "FIELDS", "Column", "CustomColumns"]

#: field -> how its values are written, in the order of 4.5: the decoder's, FRAGMENTS, APP_PROTOCOL, the
#: tracker's. A record holds fields of one decoder, so that one order does for all, with APPL_LATENCY_MS
#: behind RADIUS_CODE.
FIELDS: dict[str, str] = {
    "KFLOW_DNS_QUERY": "text",
    "KFLOW_DNS_QUERY_TYPE": "u32",
    "KFLOW_DNS_RET_CODE": "u32",
    "KFLOW_DNS_RESPONSE": "text",
    "KFLOW_HTTP_URL": "text",
    "KFLOW_HTTP_HOST": "text",
    "KFLOW_HTTP_REFERER": "text",
    "KFLOW_HTTP_UA": "text",
    "KFLOW_HTTP_STATUS": "u32",
    "TLS_SERVER_NAME": "text",
    "TLS_SERVER_VERSION": "u32",
    "TLS_CIPHER_SUITE": "u32",
    "DHCP_OP": "u32",
    "DHCP_MSG_TYPE": "u32",
    "DHCP_CI_ADDR": "addr",
    "DHCP_YI_ADDR": "addr",
    "DHCP_SI_ADDR": "addr",
    "DHCP_CH_ADDR": "text",
    "DHCP_HOSTNAME": "text",
    "DHCP_DOMAIN": "text",
    "DHCP_LEASE": "u32",
    "RADIUS_CODE": "u32",
    "APPL_LATENCY_MS": "u32",
    "RADIUS_USER_NAME": "text",
    "RADIUS_ACCT_STATUS": "u32",
    "RADIUS_SERVICE_TYPE": "u32",
    "RADIUS_FRAMED_IP_ADDR": "addr",
    "RADIUS_FRAMED_IP_MASK": "addr",
    "RADIUS_FRAMED_PROTO": "u32",
    "RADIUS_ACCT_SESSION_ID": "text",
    "FRAGMENTS": "u32",
    "APP_PROTOCOL": "u32",
    "CONNECTION_ID": "u32",
    "CLIENT_NW_LATENCY_MS": "u32",
    "SERVER_NW_LATENCY_MS": "u32",
    "FPEX_LATENCY_MS": "u32",
    "RETRANSMITTED_OUT_PKTS": "u32",
    "REPEATED_RETRANSMITS": "u32",
    "OOORDER_IN_PKTS": "u32",
    "RECEIVE_WINDOW": "u32",
    "ZERO_WINDOWS": "u32",
}

#: decoder -> fields that the device must take for it to be active
DECODERS: dict[str, tuple[str, ...]] = {
    "dns": (
        "KFLOW_DNS_QUERY",
        "KFLOW_DNS_QUERY_TYPE",
        "KFLOW_DNS_RET_CODE",
        "KFLOW_DNS_RESPONSE",
        "APPL_LATENCY_MS",
    ),
    "http": (
        "KFLOW_HTTP_URL",
        "KFLOW_HTTP_HOST",
        "KFLOW_HTTP_REFERER",
        "KFLOW_HTTP_UA",
        "KFLOW_HTTP_STATUS",
        "APPL_LATENCY_MS",
    ),
    "tls": ("TLS_SERVER_NAME",),
    "dhcp": (
        "DHCP_OP",
        "DHCP_MSG_TYPE",
        "DHCP_CI_ADDR",
        "DHCP_YI_ADDR",
        "DHCP_SI_ADDR",
        "DHCP_LEASE",
        "DHCP_CH_ADDR",
        "DHCP_HOSTNAME",
        "DHCP_DOMAIN",
        "APPL_LATENCY_MS",
    ),
    "radius": (
        "RADIUS_CODE",
        "RADIUS_USER_NAME",
        "RADIUS_SERVICE_TYPE",
        "RADIUS_FRAMED_IP_ADDR",
        "RADIUS_FRAMED_IP_MASK",
        "RADIUS_FRAMED_PROTO",
        "RADIUS_ACCT_SESSION_ID",
        "RADIUS_ACCT_STATUS",
        "APPL_LATENCY_MS",
    ),
}

#: a device that has this column is of the generic generation
GENERIC_MARK = "APP_PROTOCOL"

#: field -> column that the generic generation has for it (fields not listed have a column of their own name)
GENERIC: dict[str, str] = {
    "KFLOW_DNS_QUERY": "STR00",
    "KFLOW_DNS_RESPONSE": "STR01",
    "KFLOW_DNS_QUERY_TYPE": "INT00",
    "KFLOW_DNS_RET_CODE": "INT01",
    "KFLOW_HTTP_URL": "STR00",
    "KFLOW_HTTP_HOST": "STR01",
    "KFLOW_HTTP_REFERER": "STR02",
    "KFLOW_HTTP_UA": "STR03",
    "KFLOW_HTTP_STATUS": "INT00",
    "TLS_SERVER_NAME": "STR00",
    "TLS_SERVER_VERSION": "INT00",
    "TLS_CIPHER_SUITE": "INT01",
    "DHCP_CH_ADDR": "STR00",
    "DHCP_HOSTNAME": "STR01",
    "DHCP_DOMAIN": "STR02",
    "DHCP_OP": "INT00",
    "DHCP_MSG_TYPE": "INT01",
    "DHCP_LEASE": "INT02",
    "DHCP_CI_ADDR": "INET_00",
    "DHCP_YI_ADDR": "INET_01",
    "DHCP_SI_ADDR": "INET_02",
    "RADIUS_USER_NAME": "STR00",
    "RADIUS_FRAMED_PROTO": "STR01",
    "RADIUS_ACCT_SESSION_ID": "STR02",
    "RADIUS_CODE": "INT00",
    "RADIUS_SERVICE_TYPE": "INT01",
    "RADIUS_ACCT_STATUS": "INT02",
    "RADIUS_FRAMED_IP_ADDR": "INET_00",
    "RADIUS_FRAMED_IP_MASK": "INET_01",
}

TEXT_TYPE = "string"
NUMERIC_TYPES = frozenset(
    ("byte", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float32", "float64")
)
#: the one number that shares a column with texts (D4), whose name says so if its type does not
SHARES_TEXT = "RADIUS_FRAMED_PROTO"
TEXT_NAME = "STR"


class Column(NamedTuple):
    """A custom column as the device API lists it."""

    id: int
    name: str
    type: str


class CustomColumns:
    """The columns of one device. Of several with one name the first counts."""

    def __init__(self, columns: Iterable[Column]) -> None:
        self.columns = tuple(columns)
        names: dict[str, Column] = {}
        for column in self.columns:
            names.setdefault(column.name, column)
        self.generic = GENERIC_MARK in names
        self._by_field: dict[str, Column] = {}
        for field in FIELDS:
            found = names.get(GENERIC.get(field, field) if self.generic else field)
            if not self.generic and field == "TLS_SERVER_NAME":
                found = names.get("KFLOW_HTTP_HOST", found)
            if found is not None:
                self._by_field[field] = found
        #: decoders of which every needed column exists
        self.decoders = frozenset(
            name for name, fields in DECODERS.items() if all(field in self._by_field for field in fields)
        )
        inactive = {
            field
            for name, fields in _decoder_fields().items()
            if name not in self.decoders
            for field in fields
        }
        self._usable = {name: column for name, column in self._by_field.items() if name not in inactive}
        if not self.decoders - {"tls"}:
            self._usable.pop("APPL_LATENCY_MS", None)

    def __contains__(self, field: str) -> bool:
        """Whether values of that field reach Kentik."""
        return field in self._usable

    def id_of(self, field: str) -> int | None:
        """The number of the column that takes a field, or None."""
        column = self._usable.get(field)
        return None if column is None else column.id

    def bind(self, fields: Mapping[str, Field]) -> Iterator[NativeField]:
        """The fields that the device takes, in the order in which they stand in a record."""
        for name, kind in FIELDS.items():
            column = self._usable.get(name)
            if column is None or name not in fields:
                continue
            field = fields[name]
            if name == SHARES_TEXT and _takes_text(column):
                yield NativeField(column.id, "text", as_text(field))
            else:
                yield NativeField(column.id, kind, field)


def _takes_text(column: Column) -> bool:
    """The type of a value is kprobe's to decide, and numbers are numbers; see SHARES_TEXT."""
    named = column.name.startswith(TEXT_NAME) and column.type not in NUMERIC_TYPES
    return column.type == TEXT_TYPE or named


def _decoder_fields() -> dict[str, list[str]]:
    """Every field of each decoder, needed or not; APPL_LATENCY_MS belongs to none."""
    prefixes = {
        "dns": "KFLOW_DNS_",
        "http": "KFLOW_HTTP_",
        "tls": "TLS_",
        "dhcp": "DHCP_",
        "radius": "RADIUS_",
    }
    return {
        name: [field for field in FIELDS if field.startswith(prefix)] for name, prefix in prefixes.items()
    }

"""What a Kentik client is given: flow records as named columns, whoever made them.

A batch is anything with the three members of `RecordBatch`. Columns are buffers (numpy arrays, array.array,
bytes, memoryview) or Python sequences; buffers are used where they lie and must not change afterwards.
"""

from __future__ import annotations

import ipaddress
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from netprobe._core.kflow import COLUMNS as NUMBERS
from netprobe._core.kflow import Batch

__all__ = ["COLUMNS", "Field", "NativeField", "RecordBatch", "Records", "native_batch"]

#: column -> meaning. Absent ones are 0, sample_rate 1, l3 by the addresses' lengths (4 for buffers).
COLUMNS: dict[str, str] = {
    "l3": "4 or 6",
    "proto": "IP protocol",
    "src": "source address: 16 bytes per record, IPv4 in the first four; or a sequence of addresses",
    "dst": "destination address, likewise",
    "sport": "source port",
    "dport": "destination port; ICMP: type x 256 + code",
    "src_mac": "source MAC as a number, first octet most significant",
    "dst_mac": "destination MAC, likewise",
    "tos": "OR of ToS or traffic class bytes",
    "tcp_flags": "OR of TCP flag bytes",
    "in_pkts": "packets, direction in; 0 for the others",
    "in_bytes": "L3 bytes, direction in",
    "out_pkts": "packets, direction out or unknown",
    "out_bytes": "L3 bytes, direction out or unknown",
    "input_port": "direction in: low 16 bits of the destination MAC",
    "output_port": "direction out or unknown: low 16 bits of the source MAC",
    "vlan_in": "VLAN id, direction in",
    "vlan_out": "VLAN id, direction out or unknown",
    "sample_rate": "1 of so many flows; 1 without sampling",
    "app_protocol": "application protocol number, 0 for none (kprobe.md 4.6)",
}

_ADDRESS_BYTES = 16
_U64 = (1 << 64) - 1


class RecordBatch(Protocol):
    """Flow records side by side."""

    @property
    def count(self) -> int:
        """Records, thus values in every column."""
        ...

    @property
    def columns(self) -> Mapping[str, Any]:
        """Names of COLUMNS -> values."""
        ...

    @property
    def fields(self) -> Mapping[str, Field]:
        """Names of custom columns in their named form (kprobe.md sections 5 and 6) -> values."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """Values of one tracker or decoder field, which not every record has.

    `values`: a sequence with None where there is nothing, or a buffer of integers, or (with `offsets`, one
    more than there are records, int32 or int64) the bytes of all texts or addresses one after another.
    `present`: a buffer with one byte per record, not 0 where there is a value. `skip_zero`: 0 is no value.
    """

    values: Any
    present: Any = None
    offsets: Any = None
    skip_zero: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """The plainest RecordBatch."""

    count: int
    columns: Mapping[str, Any]
    fields: Mapping[str, Field] = field(default_factory=dict)


class NativeField(NamedTuple):
    """A field bound to a column of the device: its number, and how it is written (u32, text, addr)."""

    id: int
    kind: str
    field: Field


def native_batch(batch: RecordBatch, fields: Iterable[NativeField] = ()) -> Batch:
    """Columns in the form that the packer reads. ValueError names the column that does not fit."""
    columns: dict[str, Any] = {}
    for name, values in batch.columns.items():
        if name not in COLUMNS:
            raise ValueError(f"unknown column: {name}")
        if name in ("src", "dst"):
            columns[name], lengths = _addresses(name, values)
            if lengths is not None and "l3" not in batch.columns:
                if "l3" in columns and bytes(columns["l3"]) != lengths:
                    raise ValueError("src and dst of one record are of different families")
                columns["l3"] = lengths
        elif name == "l3":
            columns[name] = bytes(values)
        else:
            columns[name] = _numbers(name, values)
    return Batch(batch.count, columns, [_custom(*entry) for entry in fields])


def _is_buffer(values: Any) -> bool:
    try:
        memoryview(values)
    except TypeError:
        return False
    return True


def _numbers(name: str, values: Any) -> Any:
    if _is_buffer(values):
        return values
    width = NUMBERS[name][1] if name in NUMBERS else 4
    try:
        return array("Q" if width == 8 else "I", values)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"column {name}: {error}") from None


def _address(value: Any) -> bytes:
    if isinstance(value, bytes):
        if len(value) not in (4, _ADDRESS_BYTES):
            raise ValueError(f"an address of {len(value)} bytes")
        return value
    return ipaddress.ip_address(value).packed


def _addresses(name: str, values: Any) -> tuple[Any, bytes | None]:
    """16 bytes per address, and the families where the values say them."""
    if _is_buffer(values):
        return values, None
    try:
        packed = [_address(value) for value in values]
    except ValueError as error:
        raise ValueError(f"column {name}: {error}") from None
    families = bytes(4 if len(address) == 4 else 6 for address in packed)
    return b"".join(address.ljust(_ADDRESS_BYTES, b"\0") for address in packed), families


def _custom(number: int, kind: str, field: Field) -> tuple[int, str, Any, Any, Any, bool]:
    values, present = field.values, field.present
    # text and bytes are buffers or sequences of single characters, never columns of texts
    if field.offsets is not None or (kind == "u32" and _is_buffer(values)):
        return number, kind, values, field.offsets, present, field.skip_zero
    if present is None:
        present = bytes(value is not None for value in values)
    if kind == "u32":
        numbers = array("Q", (0 if value is None else min(max(int(value), 0), _U64) for value in values))
        return number, kind, numbers, None, present, field.skip_zero
    pieces = [_bytes(value, kind) for value in values]
    return number, kind, b"".join(pieces), _offsets(pieces), present, False


def _bytes(value: Any, kind: str) -> bytes:
    if value is None:
        return b""
    if kind == "addr":
        return _address(value)
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


def _offsets(pieces: Sequence[bytes]) -> array[int]:
    at = 0
    offsets = array("q", (0,))
    for piece in pieces:
        at += len(piece)
        offsets.append(at)
    return offsets


def as_text(field: Field) -> Field:
    """A numeric field as decimal text, for a device whose column is a text one."""
    values: Iterable[Any] = memoryview(field.values) if _is_buffer(field.values) else field.values
    marks = None if field.present is None else memoryview(field.present)
    texts: list[str | None] = []
    for i, value in enumerate(values):
        absent = value is None or (marks is not None and not marks[i]) or (field.skip_zero and not value)
        texts.append(None if absent else str(int(value)))
    return Field(texts)

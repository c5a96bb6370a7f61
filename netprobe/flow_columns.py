"""Flow records as columns: what a capture carried, one row per conversation or per direction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from netprobe._core.capfile import CaptureReader
from netprobe._core.decode import known_link_type
from netprobe._core.flow_reader import COLUMNS, REASONS, FlowReader
from netprobe.errors import ConfigError, InputError
from netprobe.hosts import parse_hosts
from netprobe.inputs.sources import open_source
from netprobe.linktypes import name_of

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

CHUNK_ROWS = 65536
CAPACITY = 1_000_000
CAPACITY_MAX = 1 << 26
IDLE = 60.0
ACTIVE = 1800.0
# no time-out needs more, and a packet time plus this still fits 64 bits of ns
LONGEST = 10 * 365 * 86400.0


class Column(NamedTuple):
    """One column of the schema that chunks, Arrow, JSON lines and Parquet share."""

    name: str
    dtype: str  # numpy; "16u1" is 16 bytes a row
    arrow: str  # format of the Arrow C data interface
    absent: int | None  # the value that means "not known", null in Arrow
    unit: str
    doc: str


def _both(name: str, dtype: str, unit: str, doc: str, absent: int | None = None) -> list[Column]:
    arrow = {"u1": "C", "u4": "I", "u8": "L", "i8": "l"}[dtype]
    return [Column(f"{side}_{name}", dtype, arrow, absent, unit, doc) for side in ("out", "in")]


SCHEMA: tuple[Column, ...] = (
    Column("first", "i8", "tsn:UTC", None, "ns since 1970", "first packet of the record"),
    Column("last", "i8", "tsn:UTC", None, "ns since 1970", "latest packet of the record"),
    Column("src", "16u1", "w:16", None, "bytes", "sender of the first packet; IPv4 in the first four bytes"),
    Column("dst", "16u1", "w:16", None, "bytes", "the other end"),
    Column("sport", "u2", "S", None, "port", "0 for other than TCP, UDP"),
    Column("dport", "u2", "S", None, "port", "ICMP: type * 256 + code"),
    Column("proto", "u1", "C", None, "IP protocol", ""),
    Column("l3", "u1", "C", None, "IP version", "4 or 6"),
    Column("direction", "u1", "C", None, "", "of the first packet: 0 to the hosts, 1 from them, 2 neither"),
    Column("reason", "u1", "C", None, "", "why the record ends here: index into REASONS"),
    *_both("pkts", "u8", "packets", "out: src to dst, in: dst to src"),
    *_both("bytes", "u8", "bytes", "IP datagrams with their headers, by their length fields"),
    *_both("tcp_flags", "u1", "bits", "all flags seen: 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK, ..."),
    *_both("tos", "u1", "bits", "all TOS or traffic-class bytes seen, ORed"),
    *_both("retransmits", "u4", "packets", "TCP: sent again"),
    *_both("repeats", "u4", "times", "TCP: one sequence number sent again four times in a row"),
    *_both("reordered", "u4", "packets", "TCP: overtaken on the way"),
    *_both("window", "i8", "bytes", "TCP: latest receive window, scaled", -1),
    *_both("zero_windows", "u4", "packets", "TCP: closed windows"),
    Column("client_nw_latency_ms", "u4", "I", 0, "ms", "half the time from SYN+ACK to the client's ACK"),
    Column("server_nw_latency_ms", "u4", "I", 0, "ms", "half the time from SYN to SYN+ACK"),
    Column("fpex_latency_ms", "u4", "I", 0, "ms", "from one end's first payload to the other's first"),
    Column("appl_latency_ms", "u4", "I", 0, "ms", "from request to response, by a protocol decoder"),
    Column("connection_id", "u4", "I", 0, "", "equal in both directions; TCP and UDP only"),
    Column("fragments", "u4", "I", None, "packets", "IP fragments among the packets"),
    Column("sample_rate", "u4", "I", None, "", "the record stands for this many"),
    Column("vlan", "u2", "S", None, "", "innermost identifier, 0 without a tag"),
    Column("smac", "6u1", "w:6", None, "bytes", "source MAC of the first packet, zero without Ethernet"),
    Column("dmac", "6u1", "w:6", None, "bytes", "destination MAC of the first packet"),
    Column("app", "u1", "C", None, "", "application by port, 0: none"),
)

_BY_NAME = {column.name: column for column in SCHEMA}


class FlowChunk(Mapping[str, "Array"]):
    """Some flow records: column name -> numpy array, all of one length. SCHEMA tells what they are.

    Give it to anything that reads Arrow streams, like ``pyarrow.table(chunk)``: there, a value that is not
    known is null. For polars take ``to_polars()``: its constructor would see a mapping first.
    """

    def __init__(self, columns: dict[str, Array]) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> Array:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def rows(self) -> int:
        return len(next(iter(self._columns.values()))) if self._columns else 0

    def __repr__(self) -> str:
        return f"<FlowChunk: {self.rows} records, {', '.join(self._columns)}>"

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        """The records as one batch of an Arrow stream (PyCapsule interface); nothing but bitmaps is copied.

        requested_schema is not followed: the consumer casts.
        """
        import numpy

        from netprobe._core.arrow import stream_capsule

        keep: list[Array] = []
        columns: list[tuple[str, str, int, int, int]] = []
        for name, values in self._columns.items():
            column = _BY_NAME[name]
            values = numpy.ascontiguousarray(values)
            keep.append(values)
            bitmap, nulls = 0, 0
            if column.absent is not None:
                known = values != column.absent
                nulls = len(known) - int(numpy.count_nonzero(known))
                if nulls:
                    bits = numpy.packbits(known, bitorder="little")
                    keep.append(bits)
                    bitmap = bits.ctypes.data
            columns.append((name, column.arrow, values.ctypes.data, bitmap, nulls))
        return stream_capsule(columns, self.rows, keep)

    def to_pandas(self) -> Any:
        """A DataFrame; addresses become text, unknown values NA, times UTC. Needs pandas."""
        import pandas

        frame: dict[str, Any] = {}
        for name, values in self._columns.items():
            column = _BY_NAME[name]
            if name in ("src", "dst"):
                frame[name] = self.addresses(name)
            elif column.arrow == "w:6":
                frame[name] = [row.tobytes().hex(":") for row in values]
            elif column.arrow == "tsn:UTC":
                frame[name] = pandas.to_datetime(values, unit="ns", utc=True)
            elif column.absent is not None:
                series = pandas.Series(values).astype("Int64")
                frame[name] = series.mask(series == column.absent)
            else:
                frame[name] = values
        return pandas.DataFrame(frame)

    def to_polars(self) -> Any:
        """A DataFrame; addresses stay binary. Needs polars."""
        import polars  # type: ignore[import-not-found, unused-ignore]

        return polars.DataFrame(_Stream(self))

    def addresses(self, name: str) -> list[str]:
        """Column ``src`` or ``dst`` as text; each different address is rendered once."""
        from ipaddress import IPv4Address, IPv6Address

        values, versions = self._columns[name], self._columns.get("l3")
        known: dict[tuple[bytes, int], str] = {}
        out = []
        for i, row in enumerate(values):
            raw = row.tobytes()
            version = int(versions[i]) if versions is not None else (4 if not any(raw[4:]) else 6)
            text = known.get((raw, version))
            if text is None:
                text = str(IPv4Address(raw[:4]) if version == 4 else IPv6Address(raw))
                known[(raw, version)] = text
            out.append(text)
        return out


class _Stream:
    """A chunk that is nothing but an Arrow stream."""

    def __init__(self, chunk: FlowChunk) -> None:
        self.__arrow_c_stream__ = chunk.__arrow_c_stream__


class Flows(Iterator[FlowChunk]):
    """Chunks of a capture's flow records, made by :func:`flows`. At its end it closes the file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Sequence[str],
        chunk_rows: int,
        settings: dict[str, Any],
    ) -> None:
        self._wanted = columns
        self._rows = chunk_rows
        self._source = open_source(path)
        try:
            reader = CaptureReader(self._source)
            try:
                reader.open()
            except ValueError as problem:
                raise self._source.error() or InputError(
                    f"{self._source.name}: {problem}; expected a pcap or pcapng capture"
                ) from None
            if reader.format_name == "pcap" and not known_link_type(reader.interfaces()[0][0]):
                raise InputError(
                    f"{self._source.name}: link type {name_of(reader.interfaces()[0][0])} is not supported"
                )
            self._native = FlowReader(reader, **settings)
        except BaseException:
            self._source.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FlowChunk:
        import numpy

        native = self._native
        while not native.at_end:
            arrays = {name: numpy.empty(self._rows, dtype=COLUMNS[name][0]) for name in self._wanted}
            rows = native.fill(arrays, self._rows)
            if rows:
                if rows < self._rows // 2:
                    return FlowChunk({name: array[:rows].copy() for name, array in arrays.items()})
                return FlowChunk({name: array[:rows] for name, array in arrays.items()})
        self.close()
        raise StopIteration

    def stats(self) -> dict[str, Any]:
        """Where the packets went so far, and how many records left the table for which reason.

        ``framed`` packets of the file are ``filtered_out``, ``not_ip``, ``unreadable`` (an IP or transport
        header is cut off or contradicts itself), ``fragments_lost`` (datagrams that did not become whole) or
        ``packets`` of flows. ``packets`` and ``bytes`` = ``out_*`` (in records) + ``open_*``. ``evicted``:
        directions of flows thrown out for room; their records were exported.
        """
        return self._native.stats()

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def flows(
    path: str | os.PathLike[str],
    bidirectional: bool = True,
    *,
    idle: float = IDLE,
    active: float | None = ACTIVE,
    decode: bool = False,
    filter: str | None = None,
    hosts: str | Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    chunk_rows: int = CHUNK_ROWS,
    capacity: int = CAPACITY,
    seed: int | None = None,
) -> Flows:
    """Turn a capture into flow records, in chunks of at most ``chunk_rows``.

    bidirectional: one record for both directions; False: one for each. idle, active: seconds without a
    packet, and of life, after which a flow is reported (None: never); packet time counts. filter: a tcpdump
    expression. hosts: CIDRs that make `direction`. columns: names out of SCHEMA (default: all). capacity:
    directions open at once; above it the flow that was silent longest among a few is reported early. seed:
    makes hashes and connection ids repeatable.
    InputError: the file cannot be read. ConfigError: a setting cannot be used.
    """
    wanted = [column.name for column in SCHEMA] if columns is None else list(columns)
    if not wanted:
        raise ConfigError("columns: empty, expected names of columns")
    for name in wanted:
        if name not in _BY_NAME:
            raise ConfigError(f"columns: no column {name!r}, expected some of {', '.join(_BY_NAME)}")
    if chunk_rows < 1:
        raise ConfigError(f"chunk_rows: {chunk_rows}, expected at least 1")
    if not 1 <= capacity <= CAPACITY_MAX:
        raise ConfigError(f"capacity: {capacity}, expected 1 to {CAPACITY_MAX}")
    if decode:
        raise ConfigError("decode: protocol decoders are not part of this version, expected False")
    compiler = None
    if filter:
        from netprobe.filters import compile_filter

        compile_filter(filter, 1)

        def compiler(linktype: int, expression: str = filter) -> Any:
            return compile_filter(expression, linktype)

    settings = {
        "bidirectional": bidirectional,
        "idle_ns": _seconds("idle", idle),
        "active_ns": 0 if active is None else _seconds("active", active),
        "hosts": parse_hosts(hosts),
        "compile_filter": compiler,
        "capacity": capacity,
        "seed": int.from_bytes(os.urandom(8), "little") if seed is None else seed % (1 << 64),
    }
    return Flows(path, wanted, chunk_rows, settings)


def _seconds(key: str, value: float) -> int:
    if not 0 < value <= LONGEST:
        raise ConfigError(f"{key}: {value}, expected seconds, more than 0 and at most {LONGEST:.0f}")
    return max(1, round(value * 1e9))


__all__ = ["REASONS", "SCHEMA", "Column", "FlowChunk", "Flows", "flows"]

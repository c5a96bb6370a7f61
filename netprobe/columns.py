"""Packets as numpy columns, in chunks: for questions that no handler answers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netprobe import arguments
from netprobe._core.columns import CAUSES, COLUMNS, ColumnReader
from netprobe.errors import ConfigError
from netprobe.hosts import Hosts, parse_hosts
from netprobe.inputs.captures import complaints, open_capture

if TYPE_CHECKING:
    import numpy

CHUNK_ROWS = 65536
# 100 bytes a row with all columns; what is more is a slip
MAX_CHUNK_ROWS = 1 << 26

# what PacketChunk's `flags` column is made of
FLAGS = {
    "ethernet": 2,
    "fragment": 4,
    "later_fragment": 8,
    "cut": 16,
    "malformed": 32,
    "tunnel": 256,
}


class PacketChunk(Mapping[str, "numpy.ndarray[Any, Any]"]):
    """Some packets in a row: column name -> numpy array, all of one length.

    ts: ns since the epoch. caplen, wirelen: bytes captured, bytes on the wire. src, dst: 16 bytes a row, IPv4
    in the first four. l3: 4, 6 or 0. proto: protocol number of the outermost IP header, 255 without one.
    l4, sport, dport, payload_off, payload_len: the datagram that programs would see, inside IP-in-IP and GRE.
    direction: 0 to the hosts, 1 from them, 2 neither. cause: index into CAUSES, why a packet cannot be read.
    """

    def __init__(
        self, columns: dict[str, numpy.ndarray[Any, Any]], l3: numpy.ndarray[Any, Any] | None = None
    ) -> None:
        self._columns = columns
        # what kind of addresses there are, also when nobody asked for that column
        self._l3 = columns.get("l3") if l3 is None else l3

    def __getitem__(self, name: str) -> numpy.ndarray[Any, Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def rows(self) -> int:
        """Packets in this chunk, 0 without columns. Columns have the shape (rows,), src and dst (rows, 16).

        `len()` is the number of columns, as of any mapping.
        """
        return len(next(iter(self._columns.values()))) if self._columns else 0

    def __repr__(self) -> str:
        return f"<PacketChunk: {self.rows} packets, {', '.join(self._columns)}>"

    def to_pandas(self) -> Any:
        """A DataFrame; addresses become text. Needs pandas."""
        import pandas

        frame: dict[str, Any] = {}
        for name, column in self._columns.items():
            if name in ("src", "dst"):
                frame[name] = _addresses(column, self._l3)
            elif name == "ts":
                frame[name] = pandas.to_datetime(column, unit="ns", utc=True)
            else:
                frame[name] = column
        return pandas.DataFrame(frame)


def _addresses(column: numpy.ndarray[Any, Any], l3: numpy.ndarray[Any, Any] | None) -> list[str]:
    from ipaddress import IPv4Address, IPv6Address

    def text(row: bytes, version: int) -> str:
        if version == 4:
            return str(IPv4Address(row[:4]))
        return str(IPv6Address(row)) if version == 6 else ""

    versions = [4 if not any(row[4:]) else 6 for row in column] if l3 is None else list(l3)
    return [text(row.tobytes(), int(version)) for row, version in zip(column, versions, strict=True)]


def packets(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    filter: str | None = None,
    hosts: Hosts = None,
    inner: bool = False,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[PacketChunk]:
    """Decode a capture into chunks of at most ``chunk_rows`` packets.

    columns: which ones (default: all). filter: a tcpdump expression. hosts: CIDRs that make `direction`.
    inner: the innermost IP header of tunnels instead of the outermost.
    A file that is cut off or damaged is a RuntimeWarning after what could be read.
    InputError: the file cannot be read. ConfigError: no such column, bad filter or hosts.
    """
    wanted = list(COLUMNS) if columns is None else arguments.names("columns", columns)
    if not wanted:
        raise ConfigError("columns: empty, expected names of columns")
    for name in wanted:
        if name not in COLUMNS:
            raise ConfigError(f"columns: no column {name!r}, expected some of {', '.join(COLUMNS)}")
    path = arguments.one_capture("path", path)
    chunk_rows = arguments.whole("chunk_rows", chunk_rows, 1, MAX_CHUNK_ROWS)
    inner = arguments.switch("inner", inner)
    compile_filter = None
    if expression := arguments.expression("filter", filter):
        from netprobe.filters import compiler

        compile_filter = compiler(expression)
    return _chunks(path, wanted, compile_filter, parse_hosts(hosts), inner, chunk_rows)


def _chunks(
    path: str | os.PathLike[str],
    wanted: list[str],
    compile_filter: Any,
    hosts: Any,
    inner: bool,
    chunk_rows: int,
) -> Iterator[PacketChunk]:
    import numpy

    with open_capture(path) as (source, reader):
        native = ColumnReader(reader, hosts=hosts, compile_filter=compile_filter, inner=int(inner))
        filled = {*wanted, "l3"} if {"src", "dst"} & {*wanted} else wanted
        while not native.at_end:
            arrays = {name: numpy.empty(chunk_rows, dtype=COLUMNS[name][0]) for name in filled}
            rows = native.fill(arrays, chunk_rows)
            if rows:
                cut = {name: array[:rows] for name, array in arrays.items()}
                yield PacketChunk({name: cut[name] for name in wanted}, cut.get("l3"))
        for text in complaints(source, reader):
            warnings.warn(text, RuntimeWarning, stacklevel=2)


__all__ = ["CAUSES", "FLAGS", "PacketChunk", "packets"]

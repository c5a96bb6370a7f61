"""Flow records as columns: what a capture carried, one row per conversation or per direction."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from netprobe import arguments
from netprobe._core.app_flow import DECODERS, AppRows
from netprobe._core.flow_reader import COLUMNS, REASONS, FlowReader
from netprobe.errors import ConfigError
from netprobe.flow_schema import APP_SCHEMA, SCHEMA, Column
from netprobe.flow_sources import FileSource, LiveSource, open_flow_source
from netprobe.hosts import Hosts, parse_hosts

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


_BY_NAME = {column.name: column for column in (*SCHEMA, *APP_SCHEMA)}
_APP_NAMES = frozenset(column.name for column in APP_SCHEMA)


class FlowChunk(Mapping[str, "Array"]):
    """Some flow records: column name -> numpy array, all of one length. SCHEMA tells what they are.

    Texts are arrays of str and None. Give a chunk to anything that reads Arrow streams, like
    ``pyarrow.table(chunk)``: there, a value that is not known is null. For polars take ``to_polars()``: its
    constructor would see a mapping first.
    """

    def __init__(
        self,
        columns: dict[str, Array],
        rows: int,
        apps: AppRows | None = None,
        app_names: Iterable[str] = (),
        l3: Array | None = None,
    ) -> None:
        self._columns: dict[str, Array | None] = {**columns, **dict.fromkeys(app_names)}
        self._apps = AppRows() if apps is None else apps
        # what kind of addresses there are, also when nobody asked for that column
        self._l3 = columns.get("l3") if l3 is None else l3
        self.rows = rows

    def __getitem__(self, name: str) -> Array:
        values = self._columns[name]
        if values is None:
            values = self._columns[name] = self._app_values(name)
        return values

    def _app_values(self, name: str) -> Array:
        import numpy

        values, offsets, present = self._apps.column(name, self.rows)
        if offsets is None:
            return numpy.frombuffer(values, dtype=numpy.int64)
        texts = numpy.full(self.rows, None, dtype=object)
        raw = bytes(values)
        for i in numpy.flatnonzero(numpy.frombuffer(present, dtype=numpy.uint8)):
            texts[i] = raw[offsets[i] : offsets[i + 1]].decode()
        return texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<FlowChunk: {self.rows} records, {', '.join(self._columns)}>"

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any:
        """The records as one batch of an Arrow stream (PyCapsule interface).

        Nothing is copied but bitmaps and application fields. requested_schema is not followed: the consumer
        casts.
        """
        import numpy

        from netprobe._core.arrow import stream_capsule

        keep: list[Any] = []
        columns: list[tuple[str, str, int, int | None, int, int]] = []
        for name, values in self._columns.items():
            column = _BY_NAME[name]
            known: Array | None = None
            offsets: Array | None = None
            if column.arrow == "u":
                raw, places, present = self._apps.column(name, self.rows)
                data = numpy.frombuffer(raw, dtype=numpy.uint8)
                offsets = numpy.frombuffer(places or b"", dtype=numpy.int32)
                known = numpy.frombuffer(present, dtype=numpy.bool_)
            else:
                data = numpy.ascontiguousarray(self[name] if values is None else values)
                if column.absent is not None:
                    known = data != column.absent
            bitmap: int | None = None
            nulls = 0
            if known is not None:
                bitmap = 0
                nulls = len(known) - int(numpy.count_nonzero(known))
                if nulls:
                    bits = numpy.packbits(known, bitorder="little")
                    keep.append(bits)
                    bitmap = bits.ctypes.data
            keep += [data, offsets]
            places_at = 0 if offsets is None else offsets.ctypes.data
            columns.append((name, column.arrow, data.ctypes.data, bitmap, nulls, places_at))
        return stream_capsule(columns, self.rows, keep)

    def to_pandas(self) -> Any:
        """A DataFrame; addresses become text, unknown values NA, times UTC. Needs pandas."""
        import pandas

        frame: dict[str, Any] = {}
        for name, values in self.items():
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

        values, versions = self[name], self._l3
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
    """Chunks of flow records, made by :func:`flows`. At the end of its input it closes it."""

    def __init__(
        self,
        source: FileSource | LiveSource,
        columns: Sequence[str],
        chunk_rows: int,
        settings: dict[str, Any],
    ) -> None:
        self._source = source
        self._plain = [name for name in columns if name not in _APP_NAMES]
        self._app_names = [name for name in columns if name in _APP_NAMES]
        self._rows = chunk_rows
        self._closed = False
        # held while chunks are made: the table has no locks, and must not lose its input meanwhile
        self._busy = threading.Lock()
        try:
            self._native = FlowReader(source.packets, live=source.live, **settings)
        except BaseException:
            source.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FlowChunk:
        if not self._busy.acquire(blocking=False):
            raise ValueError("these flows are being read by another thread already")
        try:
            chunk = self._next()
        finally:
            self._busy.release()
            if self._closed:
                self.close()
        if chunk is None:
            raise StopIteration
        return chunk

    def _next(self) -> FlowChunk | None:
        """None at the end."""
        import numpy

        native, source = self._native, self._source
        filled = {*self._plain, "l3"} if {"src", "dst"} & {*self._plain} else self._plain
        while not native.at_end and not self._closed:
            arrays = {name: numpy.empty(self._rows, dtype=COLUMNS[name][0]) for name in filled}
            apps = AppRows()
            wait = source.wait()
            if wait is not None and wait <= 0:
                native.stop()
            rows = native.fill(arrays, self._rows, apps, seconds=wait)
            if rows and not self._closed:
                short = rows < self._rows // 2
                cut = {name: array[:rows].copy() if short else array[:rows] for name, array in arrays.items()}
                wanted = {name: cut[name] for name in self._plain}
                return FlowChunk(wanted, rows, apps, self._app_names, cut.get("l3"))
        ended, self._closed = not self._closed, True
        if ended:
            for text in source.complaints():
                warnings.warn(text, RuntimeWarning, stacklevel=3)
        return None

    def stop(self) -> None:
        """Read no more packets; the chunks that follow hold the flows that are open. From any thread."""
        if self._source.end():
            self._native.stop()

    def stats(self) -> dict[str, Any]:
        """Where the packets went so far, and how many records left the table for which reason.

        ``framed`` packets are ``filtered_out``, ``not_ip``, ``unreadable`` (an IP or transport header is cut
        off or contradicts itself), ``fragments_lost`` (datagrams that did not become whole) or ``packets`` of
        flows. ``packets`` and ``bytes`` = ``out_*`` (in records) + ``open_*``. ``evicted``: directions of
        flows thrown out for room; their records were exported. ``decoders``: what they read and could not
        read. ``drops``, of an interface: what was lost before it was framed.
        """
        return {**self._native.stats(), **self._source.losses()}

    def close(self) -> None:
        """Let go of the input and end the iteration; flows that are open are not reported (see `stop`).

        From any thread; the one that is reading lets go.
        """
        self._closed = True
        if not self._busy.acquire(blocking=False):
            self.stop()
            return
        try:
            self._source.close()
        finally:
            self._busy.release()

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
    decode: bool | Iterable[str] = False,
    http_ports: Iterable[int] = (),
    postgres_ports: Iterable[int] = (5432,),
    filter: str | None = None,
    hosts: Hosts = None,
    columns: Sequence[str] | None = None,
    chunk_rows: int = CHUNK_ROWS,
    capacity: int = CAPACITY,
    seed: int | None = None,
    seconds: float | None = None,
) -> Flows:
    """Turn a capture, or the packets of an interface, into flow records, in chunks of at most ``chunk_rows``.

    path: a capture file, or the name of an interface (a file of that name goes first). bidirectional: one
    record for both directions; False: one for each. idle, active: seconds without a packet, and of life,
    after which a flow is reported (None: never); packet time counts. decode: True, or names of protocols
    (dns, http, tls, dhcp, radius, postgres), adds the columns of APP_SCHEMA, and a record for each message.
    http_ports: beside 80. filter: a tcpdump expression. hosts: CIDRs that make `direction`. columns: names
    out of SCHEMA and APP_SCHEMA (default: all). capacity: directions open at once; above it the flow that was
    silent longest among a few is reported early. seed: makes hashes and connection ids repeatable. seconds:
    of an interface, how long to listen; None: until `stop`. An interface yields a chunk about every second,
    if there are records. A file that is cut off or damaged gives a RuntimeWarning at its end.
    InputError: the file cannot be read, no such interface. ConfigError: a setting cannot be used.
    """
    path = arguments.one_capture("path", path)
    filter = arguments.expression("filter", filter)
    decoders = _decoders(decode)
    usable = [*SCHEMA, *APP_SCHEMA] if decoders else SCHEMA
    names = [column.name for column in usable]
    wanted = names if columns is None else arguments.names("columns", columns)
    if not wanted:
        raise ConfigError("columns: empty, expected names of columns")
    for name in wanted:
        if name not in names:
            hint = " (with decode=True)" if name in _APP_NAMES else ""
            raise ConfigError(f"columns: no column {name!r}{hint}, expected some of {', '.join(names)}")
    chunk_rows = arguments.whole("chunk_rows", chunk_rows, 1, CAPACITY_MAX)
    settings = {
        "bidirectional": arguments.switch("bidirectional", bidirectional),
        "idle_ns": _seconds("idle", idle),
        "active_ns": 0 if active is None else _seconds("active", active),
        "hosts": parse_hosts(hosts),
        "capacity": arguments.whole("capacity", capacity, 1, CAPACITY_MAX),
        "seed": int.from_bytes(os.urandom(8), "little") if seed is None else _seed(seed),
        "decode": decoders,
        "http_ports": _ports("http_ports", http_ports),
        "postgres_ports": _ports("postgres_ports", postgres_ports),
    }
    if seconds is not None:
        _seconds("seconds", seconds)
    source = open_flow_source(path, filter, seconds)
    return Flows(source, wanted, chunk_rows, {**settings, "compile_filter": source.compile_filter})


def _decoders(decode: bool | Iterable[str]) -> tuple[str, ...]:
    if isinstance(decode, bool):
        return tuple(DECODERS) if decode else ()
    names = (decode,) if isinstance(decode, str) else tuple(arguments.names("decode", decode))
    for name in names:
        if name not in DECODERS:
            raise ConfigError(f"decode: {name!r}, expected True, False or some of {', '.join(DECODERS)}")
    return names


def _ports(key: str, ports: Iterable[int]) -> list[int]:
    if isinstance(ports, str | bytes) or not isinstance(ports, Iterable):
        raise arguments.wrong(key, ports, "a list of ports")
    return [arguments.whole(key, port, 0, 65535) for port in ports]


def _seed(value: int) -> int:
    return arguments.whole("seed", value) % (1 << 64)


def _seconds(key: str, value: float) -> int:
    if not 0 < arguments.number(key, value) <= LONGEST:
        raise ConfigError(f"{key}: {value}, expected seconds, more than 0 and at most {LONGEST:.0f}")
    return max(1, round(value * 1e9))


__all__ = ["APP_SCHEMA", "REASONS", "SCHEMA", "Column", "FlowChunk", "Flows", "flows"]

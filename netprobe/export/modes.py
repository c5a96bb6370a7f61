"""The dns and radius modes: what is read, and the sinks that take it (kprobe.md 2.2, 2.3, 7)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, Literal, NamedTuple

from netprobe._core.mode_reader import ModeReader, dns_rows, radius_rows
from netprobe.export.inputs import Input
from netprobe.export.runs import LIVE_S, Stopping, lost_text
from netprobe.export.sinks import LineFile, Sink

__all__ = ["DNS_PORTS", "JsonLines", "Mode", "ModeBatch", "ModeRun", "ParquetRows", "live_filter"]

Mode = Literal["dns", "radius"]

DNS_PORTS = (53,)

#: VLAN tags that are looked behind
TAGS = 2
#: later fragments have no ports: they pass any of our filters
FRAGMENTS = "ip[6:2] & 0x1fff != 0 or ip6[6] == 44"


def live_filter(mode: Mode, ports: Iterable[int], tags: int = TAGS) -> str:
    """What the kernel should let through (the reader looks again, behind reassembly).

    tags: how many VLAN tags may stand before it; 0 where the link has none.
    """
    side = "src" if mode == "dns" else "dst"
    wanted = " or ".join(f"udp {side} port {port}" for port in ports) + f" or {FRAGMENTS}"
    found = wanted
    for _ in range(tags):
        # the keyword moves what stands behind it
        found = f"{wanted} or (vlan and ({found}))"
    return found


class ModeBatch(NamedTuple):
    """Packed rows of the native reader; `objects` makes plain values of them, on the exporting thread."""

    mode: Mode
    packed: bytes
    rows: int

    def objects(self) -> list[Any]:
        return dns_rows(self.packed) if self.mode == "dns" else radius_rows(self.packed)


class ModeRun:
    """Batches of an input. ports: None for any; mirrored: a Juniper router's mirror (7.2)."""

    def __init__(
        self, input: Input, mode: Mode, *, ports: Iterable[int] | None, mirrored: bool = False
    ) -> None:
        self.input = input
        self.mode: Mode = mode
        self.flushing = False
        self._stopping = Stopping(input)
        self._lost_rows = 0
        self._native = ModeReader(
            input.source,
            mode,
            ports=ports,
            mirrored=mirrored,
            compile_filter=input.compile_filter,
            snaplen=input.snaplen,
        )

    def batches(self) -> Iterator[ModeBatch]:
        """Until the end; live, also an empty one now and then."""
        native, live = self._native, self.input.live
        while not native.at_end:
            packed = native.read(LIVE_S if live else None)
            if self._stopping.over():
                native.stop()
                self.flushing = True
            if packed or live:
                yield ModeBatch(self.mode, packed, native.rows_read)

    def lost(self, batch: ModeBatch) -> None:
        self._lost_rows += batch.rows

    def rows_of(self, packets: int) -> float | None:
        # nothing stands for the answers that were not seen
        return None

    def drain(self) -> None:
        for _ in self.batches():
            pass

    def stop(self) -> None:
        self._stopping.begin()

    def close(self) -> None:
        self.input.close()

    def stats(self) -> dict[str, int]:
        return self._native.stats()

    def summary(self) -> str:
        stats = self.stats()
        what = "DNS answers" if self.mode == "dns" else "RADIUS bindings"
        return (
            f"{stats['framed']} packets, {stats['found']} {what}; {stats['filtered_out']} filtered out, "
            f"{stats['other']} of other protocols or ports, {stats['useless']} with nothing to ship, "
            f"{stats['malformed']} malformed, {stats['cut']} cut off, "
            f"{stats['fragments_lost']} fragments incomplete"
            f"{lost_text(self.input, self._lost_rows, 'of them')}"
        )


def address_text(packed: bytes) -> str:
    return inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)


def documents(batch: ModeBatch) -> Iterator[dict[str, Any]]:
    """Rows as JSON knows them: `time` in ns, addresses as text, `ttl` in seconds."""
    if batch.mode == "dns":
        for time_ns, name, host, answers in batch.objects():
            yield {
                "time": time_ns,
                "client": address_text(host),
                "name": name,
                "answers": [{"addr": address_text(addr), "ttl": ttl} for addr, ttl in answers],
            }
        return
    for time_ns, user, address in batch.objects():
        yield {
            "time": time_ns,
            "event": "stop" if address is None else "start",
            "user": user,
            "addr": None if address is None else address_text(address),
        }


class JsonLines(Sink[ModeBatch]):
    """One object per answer or binding. ExportError: the file cannot be written."""

    def __init__(self, path: str = "-") -> None:
        self._file = LineFile(path)

    def write(self, batch: ModeBatch) -> None:
        lines = [json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in documents(batch)]
        if lines:
            self._file.put(("\n".join(lines) + "\n").encode(errors="replace"))

    def close(self, limit_s: float | None) -> None:
        self._file.close()


class ParquetRows(Sink[ModeBatch]):
    """Rows as a Parquet file, in the columns of JsonLines. ConfigError: no pyarrow."""

    def __init__(self, path: str, mode: Mode) -> None:
        from netprobe.export.parquet import ParquetFile, load_pyarrow

        pyarrow = self._arrow = load_pyarrow()
        time_type = pyarrow.timestamp("ns", tz="UTC")
        text = pyarrow.string()
        if mode == "dns":
            answers = pyarrow.list_(pyarrow.struct([("addr", text), ("ttl", pyarrow.uint32())]))
            fields = [("time", time_type), ("client", text), ("name", text), ("answers", answers)]
        else:
            fields = [("time", time_type), ("event", text), ("user", text), ("addr", text)]
        self._schema = pyarrow.schema(fields)
        self._file = ParquetFile(path, self._schema)

    def write(self, batch: ModeBatch) -> None:
        rows = list(documents(batch))
        if rows:
            self._file.add(self._arrow.RecordBatch.from_pylist(rows, schema=self._schema))

    def close(self, limit_s: float | None) -> None:
        self._file.close()

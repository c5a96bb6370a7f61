"""Flow records as JSON lines: one object per record, keys and units of netprobe.flow_schema.SCHEMA.

What a decoder found follows (APP_SCHEMA): those fields alone that the record has.
"""

from __future__ import annotations

from collections.abc import Iterable
from json.encoder import encode_basestring
from socket import AF_INET, AF_INET6, inet_ntop

from netprobe.export.batch import FlowBatch
from netprobe.export.sinks import LineFile, Sink
from netprobe.flow_schema import SCHEMA

__all__ = ["JsonlSink"]

ADDRESS_BYTES = 16
MAC_BYTES = 6
#: different addresses whose text is remembered
CACHE = 100_000

TEXTS = ("src", "dst", "smac", "dmac")
TEMPLATE = (
    "{" + ",".join(f'"{c.name}":"%s"' if c.name in TEXTS else f'"{c.name}":%s' for c in SCHEMA) + "%s}\n"
)


class JsonlSink(Sink[FlowBatch]):
    """Writes to a file, `-` for standard output. ExportError: it cannot be opened or written."""

    def __init__(self, path: str = "-") -> None:
        self._file = LineFile(path)
        self._addresses: dict[tuple[int, bytes], str] = {}

    def write(self, batch: FlowBatch) -> None:
        columns: list[Iterable[object]] = []
        for column in SCHEMA:
            if column.name in ("src", "dst"):
                columns.append(self._text(batch, column.name))
            elif column.name in ("smac", "dmac"):
                columns.append([mac.hex(":") for mac in batch.pieces(column.name, MAC_BYTES)])
            elif column.absent is not None:
                absent = column.absent
                columns.append(["null" if v == absent else v for v in batch.numbers(column.name)])
            else:
                columns.append(batch.numbers(column.name))
        columns.append(decoded(batch))
        text = "".join(map(TEMPLATE.__mod__, zip(*columns, strict=True)))
        self._file.put(text.encode())

    def close(self, limit_s: float | None) -> None:
        self._file.close()

    def abort(self) -> None:
        """A write to a pipe that nobody reads cannot be ended from here; the process ends instead."""

    def _text(self, batch: FlowBatch, name: str) -> list[str]:
        known = self._addresses
        out = []
        for key in zip(batch.numbers("l3"), batch.pieces(name, ADDRESS_BYTES), strict=True):
            text = known.get(key)
            if text is None:
                if len(known) >= CACHE:
                    known.clear()
                version, raw = key
                text = inet_ntop(AF_INET, raw[:4]) if version == 4 else inet_ntop(AF_INET6, raw)
                known[key] = text
            out.append(text)
        return out


def decoded(batch: FlowBatch) -> list[str]:
    """Per record: `,"name":value` of each application field that it has."""
    found = [""] * batch.rows
    apps = batch.apps
    if apps is None or not len(apps):
        return found
    for name in apps.names():
        values, offsets, present = apps.column(name, batch.rows)
        raw = bytes(values) if offsets is not None else b""
        for row, there in enumerate(present):
            if not there:
                continue
            if offsets is None:
                found[row] += f',"{name}":{values[row]}'
            else:
                found[row] += f',"{name}":{encode_basestring(raw[offsets[row] : offsets[row + 1]].decode())}'
    return found

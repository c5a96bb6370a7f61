"""Flow records as JSON lines: one object per record, keys and units of netprobe.flow_columns.SCHEMA."""

from __future__ import annotations

import os
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_ntop

from netprobe.export.batch import ExportError, FlowBatch
from netprobe.flow_columns import SCHEMA

__all__ = ["JsonlSink"]

ADDRESS_BYTES = 16
MAC_BYTES = 6
#: different addresses whose text is remembered
CACHE = 100_000

TEXTS = ("src", "dst", "smac", "dmac")
TEMPLATE = "{" + ",".join(f'"{c.name}":"%s"' if c.name in TEXTS else f'"{c.name}":%s' for c in SCHEMA) + "}\n"


class JsonlSink:
    """Writes to a file, `-` for standard output. ExportError: it cannot be opened or written."""

    def __init__(self, path: str = "-") -> None:
        self._name = "standard output" if path == "-" else path
        try:
            # unbuffered: a batch is written in one piece, and nothing is left for the exit to fail on
            fd = os.dup(1) if path == "-" else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self._file = os.fdopen(fd, "wb", buffering=0)
        except OSError as error:
            raise ExportError(f"{self._name}: {os.strerror(error.errno or 0)}") from None
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
        text = "".join(map(TEMPLATE.__mod__, zip(*columns, strict=True)))
        self._put(memoryview(text.encode("ascii")))

    def close(self, limit_s: float | None) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise ExportError(f"{self._name}: {os.strerror(error.errno or 0)}") from None

    def abort(self) -> None:
        """A write to a pipe that nobody reads cannot be ended from here; the process ends instead."""

    def _put(self, data: memoryview) -> None:
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise ExportError(f"{self._name}: {os.strerror(error.errno or 0)}") from None

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

"""Flow records as JSON lines: one object per record, keys and units of netprobe.flow_schema.SCHEMA.

What a decoder found follows (APP_SCHEMA): those fields alone that the record has.
"""

from __future__ import annotations

from netprobe._core.jsonl import JsonLines
from netprobe.export.batch import FlowBatch
from netprobe.export.sinks import LineFile, Sink
from netprobe.flow_schema import SCHEMA

__all__ = ["JsonlSink"]

KINDS = {"16u1": "addr", "6u1": "mac"}


class JsonlSink(Sink[FlowBatch]):
    """Writes to a file, `-` for standard output. ExportError: it cannot be opened or written."""

    def __init__(self, path: str = "-") -> None:
        self._file = LineFile(path)
        self._lines = JsonLines([(c.name, KINDS.get(c.dtype, c.dtype), c.absent) for c in SCHEMA])

    def write(self, batch: FlowBatch) -> None:
        self._file.put(self._lines.render(batch.rows, batch.columns, batch.apps))

    def close(self, limit_s: float | None) -> None:
        self._file.close()

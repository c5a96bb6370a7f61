"""Flow records as JSON lines: one object per record, keys and units of netprobe.flow_schema.SCHEMA.

What a decoder found follows (APP_SCHEMA): those fields alone that the record has.
"""

from __future__ import annotations

from netprobe._core.text_rows import TextRows
from netprobe.export.batch import FlowBatch
from netprobe.export.sinks import LineFile, Sink
from netprobe.flow_schema import APP_SCHEMA, SCHEMA

__all__ = ["JsonlSink", "json_rows"]

KINDS = {"16u1": "addr", "6u1": "mac"}
#: RFC 8259, section 7; the rest of UTF-8 stands as it is
ESCAPES = {byte: b"\\u%04x" % byte for byte in range(0x20)} | {0x22: b'\\"', 0x5C: b"\\\\"}


def json_rows() -> TextRows:
    """What renders batches of flow records as JSON lines."""
    return TextRows(
        [
            (
                c.name,
                b'%s"%s":' % (b"," if i else b"{", c.name.encode()),
                KINDS.get(c.dtype, c.dtype),
                c.absent,
            )
            for i, c in enumerate(SCHEMA)
        ],
        {c.name: b',"%s":' % c.name.encode() for c in APP_SCHEMA},
        absent=b"null",
        end=b"}\n",
        escapes=ESCAPES,
    )


class JsonlSink(Sink[FlowBatch]):
    """Writes to a file, `-` for standard output. ExportError: it cannot be opened or written."""

    def __init__(self, path: str = "-") -> None:
        self._file = LineFile(path)
        self._rows = json_rows()

    def write(self, batch: FlowBatch) -> None:
        self._file.put(self._rows.render(batch.rows, batch.columns, batch.apps))

    def close(self, limit_s: float | None) -> None:
        self._file.close()

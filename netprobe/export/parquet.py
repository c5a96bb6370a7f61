"""Flow records as a Parquet file: the schema of netprobe.flow_columns.SCHEMA, as its Arrow streams have it.

Needs pyarrow (the extra `parquet`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from netprobe.errors import ConfigError
from netprobe.export.batch import ExportError, FlowBatch
from netprobe.flow_columns import SCHEMA

__all__ = ["ParquetSink"]

#: records in a row group
GROUP_ROWS = 1 << 17


class ParquetSink:
    """Writes the file when it is closed complete: until then it lies beside its place, as NAME.part.

    ConfigError: no pyarrow. ExportError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        try:
            import pyarrow
            import pyarrow.compute
            import pyarrow.parquet
        except ImportError:
            raise ConfigError(
                "--export parquet needs pyarrow: pip install 'netprobe-suite[parquet]'"
            ) from None
        self._arrow: Any = pyarrow
        self._path = path
        self._part = path + ".part"
        types = {
            "tsn:UTC": pyarrow.timestamp("ns", tz="UTC"),
            "w:16": pyarrow.binary(16),
            "w:6": pyarrow.binary(6),
            "C": pyarrow.uint8(),
            "S": pyarrow.uint16(),
            "I": pyarrow.uint32(),
            "L": pyarrow.uint64(),
            "l": pyarrow.int64(),
        }
        self._schema = pyarrow.schema([(column.name, types[column.arrow]) for column in SCHEMA])
        self._waiting: list[Any] = []
        self._rows = 0
        try:
            self._writer: Any = pyarrow.parquet.ParquetWriter(self._part, self._schema, compression="zstd")
        except OSError as error:
            raise self._failed(error) from None

    def write(self, batch: FlowBatch) -> None:
        arrow = self._arrow
        arrays = []
        for column, kind in zip(SCHEMA, self._schema.types, strict=True):
            data = arrow.py_buffer(batch.columns[column.name])
            array = arrow.Array.from_buffers(kind, batch.rows, [None, data])
            if column.absent is not None:
                missing = arrow.compute.equal(array, arrow.scalar(column.absent, kind))
                array = arrow.compute.if_else(missing, arrow.scalar(None, kind), array)
            arrays.append(array)
        self._waiting.append(arrow.record_batch(arrays, schema=self._schema))
        self._rows += batch.rows
        if self._rows >= GROUP_ROWS:
            self._put()

    def close(self, limit_s: float | None) -> None:
        self._put()
        try:
            self._writer.close()
            Path(self._part).replace(self._path)
        except OSError as error:
            raise self._failed(error) from None

    def abort(self) -> None:
        """What is there stays as NAME.part, without the footer that would make it a Parquet file."""

    def _put(self) -> None:
        if not self._waiting:
            return
        table = self._arrow.Table.from_batches(self._waiting, self._schema)
        self._waiting, self._rows = [], 0
        try:
            self._writer.write_table(table, row_group_size=GROUP_ROWS * 2)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> ExportError:
        return ExportError(f"{self._part}: {os.strerror(error.errno) if error.errno else error}")

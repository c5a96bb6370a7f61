"""Flow records as a Parquet file: the columns of netprobe.flow_schema, as Arrow streams of flows have them.

Needs pyarrow (the extra `parquet`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from netprobe.errors import ConfigError
from netprobe.export.batch import ExportError, FlowBatch
from netprobe.export.sinks import Sink
from netprobe.flow_schema import APP_SCHEMA, SCHEMA

__all__ = ["ParquetSink"]

#: records in a row group
GROUP_ROWS = 1 << 17


class ParquetFile:
    """Row groups into a file that gets its name when it is closed complete: until then it is NAME.part.

    What is there and is no file, like /dev/null, is written to and stays what it is. ExportError: the file
    cannot be written.
    """

    def __init__(self, path: str, schema: Any) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow: Any = pyarrow
        # a link stays one
        place = Path(path).resolve()
        if place.is_dir():
            raise ExportError(f"{path}: is a directory, expected a file")
        self._path = str(place)
        special = place.exists() and not place.is_file()
        self._part = self._path if special else self._path + ".part"
        self._schema = schema
        self._waiting: list[Any] = []
        self._rows = 0
        try:
            self._writer: Any = pyarrow.parquet.ParquetWriter(self._part, schema, compression="zstd")
        except OSError as error:
            raise self._failed(error) from None

    def add(self, batch: Any) -> None:
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= GROUP_ROWS:
            self._put()

    def close(self) -> None:
        self._put()
        try:
            self._writer.close()
            if self._part != self._path:
                Path(self._part).replace(self._path)
        except OSError as error:
            raise self._failed(error) from None

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


def load_pyarrow() -> Any:
    """pyarrow, which few need. ConfigError: it is not there."""
    try:
        import pyarrow
        import pyarrow.compute
    except ImportError:
        raise ConfigError("--export parquet needs pyarrow: pip install 'netprobe-suite[parquet]'") from None
    return pyarrow


class ParquetSink(Sink[FlowBatch]):
    """Flow records. ConfigError: no pyarrow. ExportError: the file cannot be written."""

    def __init__(self, path: str, *, decoded: bool = True) -> None:
        pyarrow = self._arrow = load_pyarrow()
        types = {
            "tsn:UTC": pyarrow.timestamp("ns", tz="UTC"),
            "w:16": pyarrow.binary(16),
            "w:6": pyarrow.binary(6),
            "C": pyarrow.uint8(),
            "S": pyarrow.uint16(),
            "I": pyarrow.uint32(),
            "L": pyarrow.uint64(),
            "l": pyarrow.int64(),
            "u": pyarrow.string(),
        }
        #: kprobe has no decoder for PostgreSQL
        self._apps = [c for c in APP_SCHEMA if decoded and not c.name.startswith("pg_")]
        schema = [(column.name, types[column.arrow]) for column in (*SCHEMA, *self._apps)]
        self._schema = pyarrow.schema(schema)
        self._file = ParquetFile(path, self._schema)

    def write(self, batch: FlowBatch) -> None:
        arrow = self._arrow
        arrays = []
        for column, kind in zip(SCHEMA, self._schema.types, strict=False):
            data = arrow.py_buffer(batch.columns[column.name])
            array = arrow.Array.from_buffers(kind, batch.rows, [None, data])
            if column.absent is not None:
                missing = arrow.compute.equal(array, arrow.scalar(column.absent, kind))
                array = arrow.compute.if_else(missing, arrow.scalar(None, kind), array)
            arrays.append(array)
        arrays += [self._decoded(batch, column.name) for column in self._apps]
        self._file.add(arrow.record_batch(arrays, schema=self._schema))

    def close(self, limit_s: float | None) -> None:
        self._file.close()

    def abort(self) -> None:
        """What is there stays as NAME.part, without the footer that would make it a Parquet file."""

    def _decoded(self, batch: FlowBatch, name: str) -> Any:
        arrow, apps = self._arrow, batch.apps
        kind = self._schema.field(name).type
        if apps is None or name not in apps.names():
            return arrow.nulls(batch.rows, kind)
        values, offsets, present = apps.column(name, batch.rows)
        absent = arrow.array([not there for there in present], arrow.bool_())
        data = [None, arrow.py_buffer(values)]
        if offsets is not None:
            data.insert(1, arrow.py_buffer(offsets))
        array = arrow.Array.from_buffers(kind, batch.rows, data)
        return arrow.compute.if_else(absent, arrow.scalar(None, kind), array)

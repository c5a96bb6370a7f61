"""Flow records side by side without numpy: what sinks are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from netprobe._core.app_flow import AppRows
from netprobe._core.flow_reader import COLUMNS
from netprobe.errors import NetprobeError

__all__ = ["TO_HOSTS", "Buffers", "ExportError", "FlowBatch"]

#: the value of `direction` at which the columns of "in" are filled
TO_HOSTS = 0

CODES: dict[str, Literal["q", "Q", "I", "H", "B"]] = {"i8": "q", "u8": "Q", "u4": "I", "u2": "H", "u1": "B"}


class ExportError(NetprobeError):
    """Records cannot be delivered: no room on the disk, nobody reads standard output, Kentik refuses, ..."""


class FlowBatch(NamedTuple):
    """`rows` records; columns are those of netprobe.flow_columns.SCHEMA, `apps` what decoders found.

    Numbers: a memoryview of the column's type. Addresses and MACs: 16 or 6 bytes per record.
    """

    rows: int
    columns: dict[str, memoryview]
    apps: AppRows | None = None

    def numbers(self, name: str) -> list[int]:
        return self.columns[name].tolist()

    def pieces(self, name: str, size: int) -> list[bytes]:
        raw = bytes(self.columns[name])
        return [raw[at : at + size] for at in range(0, len(raw), size)]


class Buffers:
    """Room for one batch, to be filled by a FlowReader."""

    def __init__(self, rows: int) -> None:
        self.raw = {name: bytearray(rows * size) for name, (_, size, _) in COLUMNS.items()}

    def batch(self, rows: int, apps: AppRows | None = None) -> FlowBatch:
        """The first rows where they lie."""
        return _batch(rows, self.raw, apps)

    def copy(self, rows: int, apps: AppRows | None = None) -> FlowBatch:
        """The first rows, copied: the buffers are free again."""
        pieces = {name: bytes(self.raw[name][: rows * size]) for name, (_, size, _) in COLUMNS.items()}
        return _batch(rows, pieces, apps)


def _batch(rows: int, raw: Mapping[str, bytes | bytearray], apps: AppRows | None) -> FlowBatch:
    columns = {}
    for name, (dtype, size, _) in COLUMNS.items():
        view = memoryview(raw[name])[: rows * size]
        columns[name] = view.cast(CODES[dtype]) if dtype in CODES else view
    return FlowBatch(rows, columns, apps)

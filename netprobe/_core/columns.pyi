from collections.abc import Callable, Iterable
from typing import Any

from netprobe._core.bpf import BpfProgram
from netprobe._core.source import PacketSource

CAUSES: tuple[str, ...]
# column -> (numpy type, bytes per row, offset in the native struct)
COLUMNS: dict[str, tuple[str, int, int]]

class ColumnReader:
    """Fills writable buffers, one per column, from an opened capture."""

    rows: int
    def __init__(
        self,
        reader: PacketSource,
        hosts: Iterable[tuple[int, bytes, int]] = (),
        compile_filter: Callable[[int], BpfProgram] | None = None,
        inner: int = 0,
    ) -> None: ...
    def fill(self, buffers: dict[str, Any], limit: int) -> int:
        """Write up to ``limit`` rows; returns how many. 0: the end (``at_end``), or a silent pipe."""
    @property
    def at_end(self) -> bool: ...

from collections.abc import Callable, Iterable
from typing import Any

from netprobe._core.bpf import BpfProgram
from netprobe._core.source import PacketSource

# column -> (numpy type, bytes per row, offset in the native struct)
COLUMNS: dict[str, tuple[str, int, int]]
# by number in the column `reason`
REASONS: tuple[str, ...]

class FlowReader:
    """Fills writable buffers, one per column, with the flow records of an opened capture."""

    def __init__(
        self,
        reader: PacketSource,
        *,
        capacity: int = 1_000_000,
        bidirectional: bool = True,
        schedule: bool = False,
        raw_extensions: bool = False,
        track: bool = True,
        idle_ns: int = 60_000_000_000,
        active_ns: int = 0,
        seed: int = 1,
        sample: int = 1,
        hosts: Iterable[tuple[int, bytes, int]] = (),
        compile_filter: Callable[[int], BpfProgram] | None = None,
        mac: bytes | None = None,
    ) -> None: ...
    def fill(self, buffers: dict[str, Any], limit: int) -> int:
        """Write up to ``limit`` records; returns how many. 0: the end (``at_end``), or a silent pipe."""
    def drain(self) -> None:
        """Run to the end and give up all records."""
    @property
    def at_end(self) -> bool: ...
    def stats(self) -> dict[str, Any]:
        """Where every packet of the capture went, and what left the table why."""

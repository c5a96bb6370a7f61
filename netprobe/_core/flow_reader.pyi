from collections.abc import Callable, Iterable
from typing import Any

from netprobe._core.app_flow import AppRows
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
        decode: bool | Iterable[str] = (),
        dns_port: int = 53,
        http_ports: Iterable[int] = (),
        radius_ports: Iterable[int] = (1812, 1813),
        postgres_ports: Iterable[int] = (),
        translate: Iterable[tuple[bytes, int | None, bytes, int | None]] = (),
        live: bool = False,
        snaplen: int = 0,
    ) -> None:
        """decode: True or names of app_flow.DECODERS. The ports also give the column `app` without decoders.

        translate: (address, port or None, new address, new port or None). live: time goes on without packets,
        by the wall clock. snaplen: how much of a packet is looked at, once it has passed the filter; 0: all.
        """
    def fill(
        self,
        buffers: dict[str, Any],
        limit: int,
        apps: AppRows | None = None,
        *,
        seconds: float | None = None,
    ) -> int:
        """Write up to ``limit`` records, and their application fields into ``apps`` (a fresh one).

        Returns how many. 0: the end (``at_end``), a silence, or ``seconds`` are over.
        """
    def stop(self) -> None:
        """No more packets are read: what is there goes through and all flows come out. Any thread."""
    def drain(self) -> None:
        """Run to the end and give up all records."""
    @property
    def at_end(self) -> bool: ...
    def stats(self) -> dict[str, Any]:
        """Where every packet of the capture went, and what left the table why."""

from collections.abc import Callable, Iterable
from typing import Literal

from netprobe._core.bpf import BpfProgram
from netprobe._core.source import PacketSource

class ModeReader:
    """What kprobe's dns or radius mode takes from a source, as packed rows.

    ports: UDP source ports (dns) or destination ports (radius) to look at, None for all. mirrored: the
    packets of interest stand in UDP payloads behind eight bytes. ValueError for a port or mode that cannot
    be.
    """

    def __init__(
        self,
        reader: PacketSource,
        mode: Literal["dns", "radius"],
        *,
        ports: Iterable[int] | None = None,
        mirrored: bool = False,
        compile_filter: Callable[[int], BpfProgram] | None = None,
        snaplen: int = 0,
    ) -> None:
        """snaplen: how much of a packet is looked at, once it has passed the filter; 0: all."""
    def read(self, seconds: float | None = None) -> bytes:
        """Rows of about a second of packet time; empty at the end (``at_end``) or on a silent wire too.

        seconds: how long to go on at most, by the wall clock.
        """
    def stop(self) -> None:
        """No more packets are read. Any thread."""
    @property
    def rows_read(self) -> int:
        """In what ``read`` returned last."""
    @property
    def at_end(self) -> bool: ...
    @property
    def latest(self) -> int:
        """Time of the latest packet, ns since 1970; 0 before the first."""
    def stats(self) -> dict[str, int]: ...

def dns_rows(packed: bytes) -> list[tuple[int, str, bytes, tuple[tuple[bytes, int], ...]]]:
    """Time in ns, question's name, client's address, and address with TTL in seconds of each answer."""

def radius_rows(packed: bytes) -> list[tuple[int, str, bytes | None]]:
    """Time in ns, user, IPv4 address; None in its place where the binding ends."""

from collections.abc import Callable, Sequence

from netprobe._core.bpf import BpfProgram
from netprobe._core.live import LiveSource

Rows = Sequence[Sequence[int]]

class Ring(LiveSource):
    """An AF_PACKET socket with a TPACKET_V3 ring on one interface, or on all (`any`)."""

    reopened: int
    step: int
    def __init__(
        self,
        iface: str,
        *,
        filters: Callable[[int], tuple[Rows, BpfProgram | None, int]],
        snaplen: int = 262144,
        promisc: bool = True,
        n_blocks: int = 64,
        block_bytes: int = 524288,
        retire_ms: int = 20,
        timeout_ms: int = 100,
        fanout: int = -1,
    ) -> None: ...
    def open(self) -> None:
        """Start to capture. OSError: `where` says which step failed; and what `filters` raises."""
    def link_now(self) -> int:
        """LINKTYPE_ of the interface at present, -1 when there is none."""
    @property
    def where(self) -> str: ...
    @property
    def held(self) -> int:
        """Blocks that readers have, and have not given back to the kernel yet."""
    def counters(self) -> dict[str, int]:
        """received, dropped, freezes, delivered, filtered, outgoing, lost: packets, and times the ring
        was full.
        """

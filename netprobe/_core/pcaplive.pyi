from collections.abc import Callable
from typing import Any

from netprobe._core.bpf import BpfProgram
from netprobe._core.live import LiveSource

class PcapSource(LiveSource):
    """A capture by libpcap of one interface, or of all (`any`)."""

    reopened: int
    def __init__(
        self,
        iface: str,
        *,
        connect: Callable[[], tuple[Any, int, BpfProgram | None]],
        snaplen: int = 262144,
        timeout_ms: int = 100,
    ) -> None: ...
    def open(self) -> None:
        """Start to capture; raises what `connect` raises."""
    def defer(self) -> None:
        """Start to capture when the interface is up."""

from typing import Literal

from netprobe._core.source import PacketSource

class LiveSource(PacketSource):
    """A source of live packets: it ends when it is closed and not before."""

    timeout_ms: int
    snaplen: int
    linktype: int
    ifindex: int  # 0: all
    outages: int  # how often it went down or away, also for a moment
    @property
    def state(self) -> Literal["up", "down", "gone"]:
        """down: the interface is there; gone: it is not. Reading goes on by itself when it comes back."""
    def wake(self) -> None:
        """Have the reader come back soon, from any thread."""
    def close(self) -> None:
        """End the source, from any thread; its reader sees the end within moments."""
    def counters(self) -> dict[str, int]:
        """At least received, dropped and lost, in packets."""

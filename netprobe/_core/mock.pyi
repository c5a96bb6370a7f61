from netprobe._core.clock import Clock
from netprobe._core.source import PacketSource

class Quiet(PacketSource):
    """Never has a packet. With ``seconds`` it ends after so long."""

    def __init__(self, seconds: float | None = None, *, clock: Clock | None = None) -> None: ...
    def wake(self) -> None: ...

class MockDns(Quiet):
    """A DNS packet over UDP every ``interval`` seconds; a clock that is set by hand is moved on by them."""

    def __init__(
        self,
        interval: float = 0.1,
        *,
        packets: int | None = None,
        seed: int = 1,
        clock: Clock | None = None,
    ) -> None: ...
    def frames(self, n: int) -> list[bytes]:
        """The next n frames."""

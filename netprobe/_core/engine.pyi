from collections.abc import Callable, Iterable
from typing import Any

from netprobe._core.bpf import BpfProgram
from netprobe._core.source import PacketSource
from netprobe._core.store import MetricBlock

class Engine:
    """Feeds captures to handlers and keeps the closed periods."""

    def __init__(
        self,
        shards: list[list[Any]],
        chains: list[list[int]],
        hosts: Iterable[tuple[int, bytes, int]] = (),
        inner: int = 0,
        periods: int = 5,
        deep_rate: int = 100,
        compile_filter: Callable[[int], BpfProgram] | None = None,
        stream_limit: int = 300000,
        seed: int = 0,
    ) -> None: ...
    def attach(self, reader: PacketSource) -> None: ...
    def step(self) -> bool:
        """Work for a while in this thread. False: the input has ended, or is silent for now."""
    def run_worker(self, index: int) -> None:
        """Body of worker thread ``index``; returns at the end of the input, or after stop()."""
    def stop(self) -> None: ...
    def finish(self) -> None:
        """End of all input: close connections and the open bucket."""
    def check(self) -> None: ...
    def buckets(self) -> list[tuple[int, int, list[list[MetricBlock | None]]]]:
        """Newest first: (start ns, end ns, blocks per handler). They are given away."""
    @property
    def packets(self) -> int: ...
    def stats(self) -> dict[str, Any]:
        """What was read, malformed packets by cause, losses by stage."""

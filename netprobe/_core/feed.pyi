from collections.abc import Callable, Iterable
from typing import Any

from netprobe._core.bpf import BpfProgram
from netprobe._core.clock import Clock
from netprobe._core.engine import Engine
from netprobe._core.source import PacketSource
from netprobe._core.store import MetricBlock

Blocks = list[MetricBlock | None]

class Feed:
    """Reads a source and feeds engines, until the source ends or stop() is called."""

    clock: Clock
    recorded: bool
    def __init__(
        self,
        hosts: Iterable[tuple[int, bytes, int]] = (),
        inner: bool = False,
        recorded: bool = False,
        compile_filter: Callable[[int], BpfProgram] | None = None,
        clock: Clock | None = None,
    ) -> None: ...
    def run(self, source: PacketSource) -> None:
        """Feed from this source in the calling thread. Returns when it has ended, or after stop()."""
    def filter_by(self, compile_filter: Callable[[int], BpfProgram] | None) -> None:
        """Another filter, while it does not run; ValueError if it does."""
    def hosts(self, hosts: Iterable[tuple[int, bytes, int]]) -> None:
        """Other host networks from the next batch on."""
    def wake(self) -> None:
        """Let a source that waits for packets look at the mailbox."""
    def stop(self) -> None:
        """Let run() return after the batch at hand. It cannot be run again."""
    def add(self, engine: Engine) -> None:
        """Feed this engine, too, from the next batch on."""
    def remove(self, engine: Engine) -> None:
        """Feed it no longer. What it has counted stays as it is."""
    def reading(self, received: int, os_drops: int, if_drops: int) -> None:
        """Tell the pcap handlers the capture's running totals."""
    def policies(self, policies: int, handlers: int) -> None:
        """Tell the input_resources handlers how many there are now."""
    def finish(self) -> None:
        """Close every engine's connections and open period: the end of a capture."""
    def look(
        self, engine: Engine, known: int = 0, want_open: bool = True
    ) -> tuple[int, list[tuple[int, int, int, list[Blocks]]], int, tuple[int, list[Blocks]] | None]:
        """One engine's periods at this moment.

        Number of the open period; (number, start ns, end ns, blocks per handler) of the closed ones numbered
        ``known`` or higher, newest first; how many closed ones there are; (start ns, blocks per handler) of
        the open one, None if there is none or it is not wanted.
        """
    def stats(self) -> dict[str, Any]:
        """What was read, malformed packets by cause, and how long anybody had to wait."""
    def reset_longest(self) -> None: ...

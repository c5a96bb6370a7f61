"""A thread that reads a live source to its end and keeps what it got, for tests."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple, Self

import netns

from netprobe._core.source import PacketSource


class Got(NamedTuple):
    """One packet as a source delivered it."""

    ns: int
    data: bytes
    length: int
    linktype: int
    interface: int


class Reader:
    """``with Reader(capture.source) as reader: ... reader.wait(85)``; the source is closed by its owner."""

    def __init__(self, source: PacketSource) -> None:
        self.source = source
        self.got: list[Got] = []
        self.rounds = 0  # how often the source said that nothing came
        self.thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> Self:
        """Before the with block: the thread stays in the network namespace in which it begins."""
        self.thread.start()
        return self

    def __enter__(self) -> Self:
        return self if self.thread.ident else self.start()

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.thread.join(netns.DEADLINE)
        assert not self.thread.is_alive(), "the reader did not see the end"

    def _run(self) -> None:
        while not self.source.ended:
            packets = self.source.read()
            self.got.extend(Got(*packet) for packet in packets)
            self.rounds += not packets

    def wait(self, packets: int) -> list[Got]:
        """Until there are so many, and no more come for a while: exactly so many."""
        netns.until(lambda: len(self.got) >= packets, f"{packets} packets, {len(self.got)} so far")
        self.quiet()
        assert len(self.got) == packets
        return self.got

    def quiet(self) -> None:
        """Until two time-outs have passed since the last packet."""
        while True:
            before, rounds = len(self.got), self.rounds
            netns.until(lambda rounds=rounds: self.rounds >= rounds + 2 or self.source.ended, "silence")
            if len(self.got) == before:
                return


def now_ns() -> int:
    """The clock that stamps packets."""
    return time.time_ns()

from typing import Any

class FlowTester:
    """The table as a Python object, fed with packets that exist only as numbers."""

    trackers: int
    resting: int
    def __init__(
        self,
        *,
        capacity: int = 64,
        bidirectional: bool = False,
        schedule: bool = False,
        track: bool = True,
        idle: int = 60_000_000_000,
        active: int = 0,
        seed: int = 1,
        sample: int = 0,
    ) -> None: ...
    def add(
        self,
        src: bytes,
        dst: bytes,
        sport: int = 0,
        dport: int = 0,
        proto: int = 17,
        ts: int = 0,
        size: int = 100,
        *,
        flags: int = 0,
        tos: int = 0,
        seq: int = 0,
        payload: int = 0,
        window: int = 0,
        wscale: int = -1,
        direction: int = 2,
        vlan: int = 0,
        smac: bytes = ...,
        dmac: bytes = ...,
        packets: int = 1,
        fragments: int = 0,
    ) -> int: ...
    def go(self, room: int = ...) -> list[dict[str, Any]]: ...
    def tick(self, now: int) -> list[dict[str, Any]]: ...
    def finish(self, room: int = ...) -> list[dict[str, Any]]: ...
    def take(self) -> list[dict[str, Any]]: ...
    def state(self, cell: int) -> dict[str, Any] | None: ...
    def faults(self) -> list[str]: ...
    def stats(self) -> dict[str, Any]: ...

from collections.abc import Iterable
from typing import Any

class Streams:
    records: list[dict[str, Any]]
    def __init__(
        self, limit: int = 0, http: Iterable[int] = (), postgres: Iterable[int] = (), syn_only: bool = False
    ) -> None: ...
    def feed(
        self,
        src: bytes,
        sport: int,
        dst: bytes,
        dport: int,
        seq: int,
        flags: int,
        payload: bytes = b"",
        ts: int = 0,
        ack: int = 0,
        lost: int = 0,
    ) -> None: ...
    def finish(self, ts: int = 0) -> None: ...
    def counters(self) -> dict[str, Any]: ...

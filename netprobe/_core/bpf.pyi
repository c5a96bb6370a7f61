from collections.abc import Iterable, Sequence

from typing_extensions import Buffer

class BpfProgram:
    """A checked classic BPF program; ValueError says which instruction is wrong."""

    linktype: int
    def __init__(self, program: Iterable[Sequence[int]], linktype: int = -1) -> None: ...
    def matches(self, data: Buffer, wirelen: int | None = None) -> bool: ...

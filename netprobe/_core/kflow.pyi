from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# column -> (byte in the data section of CHF, bytes)
COLUMNS: dict[str, tuple[int, int]]
# the same for what is computed from a column
DERIVED: dict[str, tuple[int, int]]
# kind of a custom column -> its tag in the union
KINDS: dict[str, int]

class Batch:
    """Columns of ``count`` records, checked; nothing is copied, so the buffers must not change.

    ``columns``: the names of COLUMNS, DERIVED and ``l3``, each a contiguous buffer of integers (``src`` and
    ``dst``: 16 bytes per record, IPv4 in the first four). ``customs``: (column id, kind, values, offsets or
    None, marks or None, leave zeros out); values are integers, or the bytes that ``count + 1`` offsets cut
    up.
    ValueError when sizes or types do not fit.
    """

    count: int
    def __init__(
        self,
        count: int,
        columns: Mapping[str, Any],
        customs: Iterable[tuple[int, str, Any, Any, Any, bool]] = (),
    ) -> None: ...

def pack(parts: Sequence[tuple[Batch, int, int]], device_id: int, dropped: int = 0) -> bytes:
    """The packed message, segment table included, of (batch, first, behind the last) parts, in that order.

    ``dropped``: records lost since the last message, which raises every sampling rate. ValueError for no
    record at all and for more than one segment can hold (about 12 million).
    """

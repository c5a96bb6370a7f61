from collections.abc import Sequence
from typing import Any

def stream_capsule(columns: Sequence[tuple[str, str, int, int, int, int]], rows: int, keep: object) -> Any:
    """A capsule "arrow_array_stream".

    Columns: (name, format, address of values, of the bitmap or 0, nulls, address of a text's offsets or 0).
    """

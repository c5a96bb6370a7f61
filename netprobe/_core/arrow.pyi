from collections.abc import Sequence
from typing import Any

def stream_capsule(
    columns: Sequence[tuple[str, str, int, int | None, int, int]], rows: int, keep: object
) -> Any:
    """A capsule "arrow_array_stream".

    Columns: (name, format, address of values, of the bitmap, nulls, address of a text's offsets or 0). The
    bitmap is 0 where nothing is null, None in columns that never have nulls.
    """

from typing import Literal

# column -> (kind, application number, slot in the decoder's record)
APP_COLUMNS: dict[str, tuple[Literal["text", "number", "address"], int, int]]
# the decoders by name -> application number
DECODERS: dict[str, int]

class AppRows:
    """The application fields of a batch of flow records: only the rows that have any."""

    count: int
    def __len__(self) -> int:
        """Rows that have fields."""
    def names(self) -> list[str]:
        """The columns that have a value in any row, in the order of APP_COLUMNS."""
    def column(
        self, name: str, rows: int, binary: bool = False
    ) -> tuple[memoryview, memoryview | None, memoryview]:
        """One column over all rows: values, offsets, present (one byte a row, 0 or 1).

        number: int64, -1 where there is none, and no offsets. text: UTF-8, all texts one after another;
        offsets are int32, one more than there are rows. address: the same as text, or with `binary` the 4
        or 16 bytes of each.
        """

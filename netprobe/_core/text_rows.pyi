from collections.abc import Mapping, Sequence

from netprobe._core.app_flow import AppRows

class TextRows:
    """Renders columns of flow records as lines of text.

    columns: name, what stands before the value, its kind ("addr", "mac", or numpy's name of an integer type),
    and which value means that there is none (None: none does), in order. fields: application field -> what
    stands before its value; they follow where a record has them. absent: what stands for no value. end:
    behind each row. escapes: byte of a text -> what is written for it, at most 6 bytes. Texts and addresses
    stand in double quotes. ValueError for a kind that is not known, and for what is too long.
    """

    def __init__(
        self,
        columns: Sequence[tuple[str, bytes, str, int | None]],
        fields: Mapping[str, bytes],
        *,
        absent: bytes,
        end: bytes,
        escapes: Mapping[int, bytes],
    ) -> None: ...
    def render(self, rows: int, columns: Mapping[str, memoryview], apps: AppRows | None = None) -> bytes:
        """One line per row, with what ``apps`` has for it behind the columns.

        Addresses are rendered by the column ``l3``. ValueError for a column that is too short.
        """

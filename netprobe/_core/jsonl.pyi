from collections.abc import Mapping, Sequence

from netprobe._core.app_flow import AppRows

class JsonLines:
    """Renders columns of flow records as JSON lines.

    columns: name, kind ("addr", "mac", or numpy's name of an integer type) and the value that means null
    (None: there is none) of each member, in order. ValueError for a kind that is not known.
    """

    def __init__(self, columns: Sequence[tuple[str, str, int | None]]) -> None: ...
    def render(self, rows: int, columns: Mapping[str, memoryview], apps: AppRows | None = None) -> bytes:
        """One object per row, with what ``apps`` has for it behind the columns.

        Addresses are rendered by the column ``l3``. ValueError for a column that is too short.
        """

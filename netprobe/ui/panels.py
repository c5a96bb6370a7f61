"""The boxes on the screen: the header, a table, what is known of the agent, the line at the bottom."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from netprobe.ui.picture import TABLE_LINES, Row

__all__ = ["EMPTY", "AgentPanel", "HeaderPanel", "StatusLine", "TablePanel", "fold", "row_line"]

HEADER_LINES = 6
#: cells that a name gets at least before its share is left out
MIN_NAME = 10
EMPTY: tuple[tuple[str, ...], ...] = (("waiting for the agent",), *[()] * (HEADER_LINES - 1))
SEPARATORS = (" | ", "  ")


def fold(parts: Sequence[str], width: int) -> list[str]:
    """Parts of a header line in as few lines as they need; a part is only cut when it alone is too long."""
    for separator in SEPARATORS:
        line = separator.join(parts)
        if cell_len(line) <= width:
            return [line]
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}{SEPARATORS[0]}{part}" if lines[-1] else part
        if cell_len(longer) <= width:
            lines[-1] = longer
        elif lines[-1]:
            lines.append("  " + part)
        else:
            lines[-1] = part
    return [shorten(line, width) for line in lines]


def shorten(text: str, width: int) -> str:
    """At most so many cells, the last of them an ellipsis where something is missing."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def row_line(row: Row, width: int) -> tuple[str, str]:
    """Name and figures of a table's line, together exactly `width` cells wide."""
    figures = str(row.estimate)
    if row.share is not None:
        with_share = f"{figures} ({row.share:4.1f}%)"
        room = width - len(with_share) - 1
        if room >= min(MIN_NAME, cell_len(row.name)):
            figures = with_share
    name = shorten(row.name, width - len(figures) - 1)
    return name + " " * (width - len(figures) - cell_len(name)), figures


class HeaderPanel(Widget):
    """The six header lines; more where the terminal is too narrow for them."""

    def __init__(self) -> None:
        super().__init__(id="header")
        self._lines: Sequence[Sequence[str]] = EMPTY
        self._title = ""

    def name_it(self, title: str) -> None:
        """The title in the frame; setting that draws more than itself anew."""
        if title != self._title:
            self._title = title
            self.border_title = Content(title)

    def show(self, lines: Sequence[Sequence[str]]) -> None:
        if lines != self._lines:
            before = len(self._folded(self.content_size.width))
            self._lines = lines
            self.refresh(layout=before != len(self._folded(self.content_size.width)))

    def _folded(self, width: int) -> list[str]:
        return [line for parts in self._lines for line in fold(parts, max(width, 1))]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._folded(width))

    def render(self) -> Content:
        return Content("\n".join(self._folded(self.content_size.width)))


class TablePanel(Widget):
    """One of the tables: seven lines under a title."""

    def __init__(self, title: str) -> None:
        super().__init__(classes="table")
        self.border_title = Content(title)
        self._rows: tuple[Row, ...] = ()

    def show(self, rows: tuple[Row, ...]) -> None:
        if rows != self._rows:
            self._rows = rows
            self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        lines = [row_line(row, width) for row in self._rows[:TABLE_LINES]]
        return Content("\n").join(Content.assemble(name, (figures, "bold")) for name, figures in lines)


class AgentPanel(Widget):
    """Where the figures come from, in the corner that the tables leave free."""

    def __init__(self) -> None:
        super().__init__(id="agent")
        self.border_title = Content("Agent")
        self._lines: Sequence[tuple[str, str]] = ()

    def show(self, lines: Sequence[tuple[str, str]]) -> None:
        """Each line is a text and its style."""
        if lines != self._lines:
            self._lines = lines
            self.refresh()

    def render(self) -> Content:
        return Content("\n").join(Content.styled(text, style) for text, style in self._lines)


class StatusLine(Widget):
    """The last line: how it goes on the left, the keys on the right.

    Where both do not fit, the keys give way to a text with a style, and one without gives way to them.
    """

    def __init__(self, keys: str) -> None:
        super().__init__(id="status")
        self._keys = keys
        self._text, self._style = "", ""

    def show(self, text: str, style: str = "") -> None:
        if (text, style) != (self._text, self._style):
            self._text, self._style = text, style
            self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        room = width - cell_len(self._keys) - 2
        text = shorten(self._text, width if self._style or room < width // 4 else room)
        gap = width - cell_len(text) - cell_len(self._keys)
        keys = " " * gap + self._keys if gap >= 0 else ""
        return Content.assemble((text, self._style), keys)

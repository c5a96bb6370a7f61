"""The screen of pktvisor-cli (agent spec 5), on Textual."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, VerticalScroll
from textual.message import Message

from netprobe._version import __version__
from netprobe.ui.chooser import PolicyChooser
from netprobe.ui.client import Address, AgentClient, AgentError
from netprobe.ui.panels import EMPTY, AgentPanel, HeaderPanel, StatusLine, TablePanel
from netprobe.ui.picture import TITLES
from netprobe.ui.poller import Choice, Client, Poller, Update
from netprobe.ui.text import clean

__all__ = ["AgentApp"]

#: rows of the classic layout: four columns, whatever the width (5.2)
CLASSIC_ROWS = 44
CLASSIC_WIDTH = 80
#: cells that a table should have elsewhere
TABLE_WIDTH = 30
COLUMNS = 4
KEYS = "q quit  p policy  ↑↓ PgUp PgDn scroll  space pause"
ERROR_STYLE = "bold reverse"
WARNING_STYLE = "bold"


def table_columns(width: int, height: int) -> int:
    """How many tables stand side by side."""
    if height >= CLASSIC_ROWS and width >= CLASSIC_WIDTH:
        return COLUMNS
    return min(max(width // TABLE_WIDTH, 1), COLUMNS)


class Arrived(Message):
    """Something came from the poller's thread."""

    def __init__(self, what: Update | list[Choice] | AgentError) -> None:
        super().__init__()
        self.what = what


class AgentApp(App[int]):
    """Shows one policy of one agent until somebody presses q."""

    ENABLE_COMMAND_PALETTE = False
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "quit"),
        Binding("ctrl+c", "leave", "quit", priority=True),
        Binding("ctrl+z", "suspend_process", "suspend", priority=True),
        Binding("p", "choose", "policy"),
        Binding("space", "pause", "pause"),
    ]

    def __init__(
        self, address: Address, policy: str, *, client: Client | None = None, interval: float = 1.0
    ) -> None:
        """`client` and `interval` (s) are for tests."""
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self._address = address
        self._poller = Poller(client or AgentClient(address), policy, self._deliver, interval=interval)
        self._header, self._corner, self._status = HeaderPanel(), AgentPanel(), StatusLine(KEYS)
        self._panels = [TablePanel(title) for title in TITLES]
        self._last = Update(policy, "", "unknown")
        self._shown_at = 0.0
        self._paused = False
        self._logged: tuple[str, str] = ("", "")

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="page"):
            yield self._header
            with Grid(id="tables"):
                yield from self._panels
                yield self._corner
        yield self._status

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.action_leave)
        self.query_one("#page").focus()
        self._say()
        self._poller.start()

    def on_unmount(self) -> None:
        self._poller.stop()

    # --- layout ---

    def on_resize(self, event: events.Resize) -> None:
        self._arrange(event.size.width, event.size.height)

    def _arrange(self, width: int, height: int) -> None:
        columns = table_columns(width, height)
        self.query_one("#tables").styles.grid_size_columns = columns
        self._header.styles.width = width - 2 if columns == COLUMNS else "100%"
        # the layout of 5.2 takes all of 44 rows; what the last line says stands in the corner too
        self._status.display = not (columns == COLUMNS and height == CLASSIC_ROWS)
        self._corner.display = columns == COLUMNS

    # --- what comes from the agent ---

    def _deliver(self, what: Update | list[Choice] | AgentError) -> None:
        """On the poller's thread."""
        self.post_message(Arrived(what))

    def on_arrived(self, message: Arrived) -> None:
        what = message.what
        if isinstance(what, Update):
            self._update(what)
        elif isinstance(self.screen, PolicyChooser):
            self.screen.fill(what)

    def _update(self, update: Update) -> None:
        if update.policy != self._last.policy:
            return  # asked for before another one was chosen
        self._write_log(update)
        self._last = update
        if update.picture is not None and not self._paused:
            self._header.show(update.picture.header)
            for panel, table in zip(self._panels, update.picture.tables, strict=True):
                panel.show(table.rows)
            self._shown_at = time.time()
        self._say()

    def _say(self) -> None:
        """Title, status line and corner."""
        last = self._last
        policy = clean(last.policy, 60)
        self._header.name_it(f"pktvisor-cli (client: {__version__} | server: {last.server}) Policy: {policy}")
        error = (
            f"ERROR {last.error}{' (p lists those that do)' if last.missing else ''}" if last.error else ""
        )
        warning = f"WARNING {last.warning}" if last.warning else ""
        clock = time.strftime("%H:%M:%S", time.localtime(self._shown_at)) if self._shown_at else "never"
        state = "PAUSED" if self._paused else "live"
        status, style = f"{state} {last.period} {clock}", ""
        if not last.period:
            status = f"connecting to {self._address}"
        elif error:
            status, style = f"{error}, picture of {clock}" if self._shown_at else error, ERROR_STYLE
        elif warning:
            status, style = f"{state} {clock} {warning}", WARNING_STYLE
        self._status.show(status, style)
        lines = [
            (f"{self._address}, policy {policy}, {last.period or 'connecting'}", ""),
            (f"{state}, updated {clock}", ""),
            (error, ERROR_STYLE),
            (warning, WARNING_STYLE),
            (KEYS, ""),
        ]
        self._corner.show([line for line in lines if line[0]])

    def _write_log(self, update: Update) -> None:
        """On standard error, where that is not the screen (agent spec 1.5); nothing twice in a row."""
        news = (update.error, update.warning)
        if news == self._logged or sys.__stderr__ is None or sys.__stderr__.isatty():
            return
        now = time.time()
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03d}"
        for level, text, before in zip(("error", "warning"), news, self._logged, strict=True):
            if text and text != before:
                line = f"[{stamp}] [pktvisor-cli] [{level}] {self._address}: {text}"
                print(line, file=sys.__stderr__, flush=True)
        self._logged = news

    # --- keys ---

    def action_leave(self) -> None:
        self.exit(0)

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._say()

    def action_choose(self) -> None:
        if isinstance(self.screen, PolicyChooser):
            return
        self.push_screen(PolicyChooser(self._last.policy), self._chosen)
        self._poller.ask_policies()

    def _chosen(self, policy: str | None) -> None:
        if policy is None or policy == self._last.policy:
            return
        self._paused = False
        self._shown_at = 0.0
        self._last = Update(policy, "", self._last.server, warning=self._last.warning)
        self._header.show(EMPTY)
        for panel in self._panels:
            panel.show(())
        self._say()
        self._poller.show(policy)

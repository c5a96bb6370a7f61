"""The list of policies, over the screen."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from netprobe.ui.client import AgentError
from netprobe.ui.poller import Choice

__all__ = ["PolicyChooser"]


class PolicyChooser(ModalScreen[str | None]):
    """Its result is a policy's name, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,p,q", "dismiss(None)", "close"),
    ]

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current

    def compose(self) -> ComposeResult:
        with Vertical(id="chooser"):
            yield Static(Content("asking the agent"), id="note")
            yield OptionList(id="choices")

    def on_mount(self) -> None:
        self.query_one("#chooser").border_title = Content("Policies")
        self.query_one("#choices").display = False

    def on_resize(self, event: events.Resize) -> None:
        # the frame, the note, a row above and below: the end of a list that is cut off could not be reached
        self.query_one("#choices").styles.max_height = max(event.size.height - 5, 1)

    def fill(self, answer: list[Choice] | AgentError) -> None:
        """What the agent answered."""
        note, choices = self.query_one("#note", Static), self.query_one("#choices", OptionList)
        if isinstance(answer, AgentError) or not answer:
            problem = (
                answer.reason
                if isinstance(answer, AgentError)
                else "the agent has no policy that can be shown"
            )
            note.update(Content(f"{problem} (Esc closes)"))
            return
        note.update(Content("Enter shows, Esc closes"))
        choices.display = True
        choices.clear_options()
        choices.add_options(Option(Content(_line(choice)), id=choice.name) for choice in answer)
        names = [choice.name for choice in answer]
        choices.highlighted = names.index(self._current) if self._current in names else 0
        choices.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)


def _line(choice: Choice) -> str:
    periods = {0: "", 1: ", one period: no window"}.get(choice.periods, f", {choice.periods} periods")
    return f"{choice.name}  ({choice.kinds}{periods})"

"""The terminal: is there one, and how Textual writes to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from textual.drivers.linux_driver import LinuxDriver

__all__ = ["StdoutDriver", "terminal_problem"]


class StdoutDriver(LinuxDriver):
    """Draws on standard output (agent spec 1.5), where Textual would use standard error."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        stream = sys.__stdout__
        assert stream is not None  # terminal_problem has looked
        # one character that the terminal's encoding lacks would end the thread that writes
        stream.reconfigure(errors="replace")
        self._file = stream


def terminal_problem(environment: Mapping[str, str]) -> str:
    """Why no screen can be drawn here; empty when one can."""
    for name, stream in (("input", sys.__stdin__), ("output", sys.__stdout__)):
        if stream is None or not os.isatty(stream.fileno()):
            return f"standard {name} is not a terminal"
    kind = environment.get("TERM", "")
    if kind in ("", "dumb", "unknown"):
        return f"TERM={kind}: this terminal cannot draw a screen"
    return ""

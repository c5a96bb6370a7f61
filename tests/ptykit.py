"""pktvisor-cli on a pseudo-terminal: what it draws, what is typed, how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "netprobe.cli.pktvisor_cli"]
DEADLINE_S = 30


class Patience:
    """A deadline that a machine put to sleep does not use up: half a second at most passes per look."""

    def __init__(self, seconds: float = DEADLINE_S) -> None:
        self._left = seconds
        self._last = time.monotonic()

    @property
    def lasts(self) -> bool:
        now = time.monotonic()
        self._left -= min(now - self._last, 0.5)
        self._last = now
        return self._left > 0


class Terminal:
    """The program on a pseudo-terminal of its own.

    `errors`: a file for standard error. `prefix`: what starts the program, such as `ip netns exec NAME`.
    """

    def __init__(
        self,
        *arguments: str,
        size: tuple[int, int] = (80, 24),
        errors: Path | None = None,
        prefix: Sequence[str] = (),
        **env: str,
    ) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        with contextlib.ExitStack() as stack:
            stderr = slave if errors is None else stack.enter_context(errors.open("w"))
            self.process = subprocess.Popen(
                [*prefix, *PROGRAM, *arguments],
                stdin=slave,
                stdout=slave,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": "", **env},
            )
        self.output = b""

    def until(self, *texts: str) -> None:
        """Read until each text has been drawn."""
        patience = Patience()
        while missing := [text for text in texts if text.encode() not in self.output]:
            assert patience.lasts, f"{missing} not in {self.readable()}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += os.read(self.master, 65536)

    def readable(self) -> str:
        """The end of the output without what steers the terminal."""
        return re.sub(r"\x1b\[[0-9;?>]*[a-zA-Z]| {3,}", " ", self.output.decode(errors="replace"))[-6000:]

    def type(self, keys: bytes) -> None:
        """Type this, and forget what has been drawn so far."""
        self.output = b""
        os.write(self.master, keys)

    def ended(self) -> int:
        """The exit code, having read what else came."""
        patience = Patience()
        while self.process.poll() is None:
            assert patience.lasts, self.readable()
            if select.select([self.master], [], [], 0.05)[0]:
                self.output += os.read(self.master, 65536)
        while select.select([self.master], [], [], 0)[0]:
            self.output += os.read(self.master, 65536)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def terminal(*arguments: str, **options: Any) -> Iterator[Terminal]:
    made = Terminal(*arguments, **options)
    try:
        yield made
    finally:
        made.close()

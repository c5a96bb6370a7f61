"""How a program ends whose standard output nobody reads any more, as in `kprobe ... | head`."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

__all__ = ["drop_output", "end_by_sigpipe"]


def end_by_sigpipe() -> NoReturn:
    """Without a word, by the signal that Python ignores and turns into BrokenPipeError."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPIPE])
    signal.raise_signal(signal.SIGPIPE)
    # process 1 of a container is spared its signals' defaults: the code that a shell would show
    os._exit(128 + signal.SIGPIPE)


def drop_output() -> None:
    """What is left in the buffer of standard output would fail again, loudly, at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

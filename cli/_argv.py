"""Secrets of the command line, which every user of the machine can read in the list of processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["hide"]

#: in /proc/self/stat, behind the program's name: where the arguments begin and end
ARG_START, ARG_END = 45, 46


def hide(secrets: Iterable[str]) -> None:
    """Stars in their place. Linux only; where that cannot be, nothing happens.

    A secret is a whole argument, what stands behind the = of one, or before the @ of a URL in one.
    """
    wanted = [secret.encode(errors="surrogateescape") for secret in secrets if secret]
    if not wanted:
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        numbers = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, size = int(numbers[ARG_START]), int(numbers[ARG_END]) - int(numbers[ARG_START])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            line = memory.read(size)
            for secret in wanted:
                for at in _places(line, secret):
                    memory.seek(start + at)
                    memory.write(b"*" * len(secret))


def _places(line: bytes, secret: bytes) -> Iterable[int]:
    at = line.find(secret)
    while at >= 0:
        before, behind = line[max(at - 2, 0) : at], line[at + len(secret) : at + len(secret) + 1]
        if (before[-1:] in (b"\0", b"=") and behind == b"\0") or (before == b"//" and behind == b"@"):
            yield at
        at = line.find(secret, at + 1)

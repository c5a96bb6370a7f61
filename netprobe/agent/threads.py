"""Threads that cannot be had, in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from netprobe.errors import InputError

__all__ = ["beginning"]


@contextlib.contextmanager
def beginning(part: str) -> Iterator[None]:
    """Around what starts a thread. InputError: there is none left; which part wanted it, and what to do."""
    try:
        yield
    except RuntimeError as problem:
        raise InputError(
            f"{part}: {problem}: raise the limit on threads (TasksMax of a unit, ulimit -u)"
        ) from None

"""What callers of the public functions pass: checked at once, so that a slip is one line and no traceback."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Iterable
from typing import Any

from netprobe.errors import ConfigError

__all__ = [
    "expression",
    "method",
    "names",
    "number",
    "one_capture",
    "one_path",
    "paths",
    "seconds",
    "switch",
    "whole",
    "wrong",
]

PATH = (str, bytes, os.PathLike)


def wrong(name: str, value: object, wanted: str) -> ConfigError:
    """The error of a value that has the wrong type."""
    from netprobe.handlers.options import kind_of  # only what goes wrong pays for it

    return ConfigError(f"{name}: {kind_of(value)}, expected {wanted}")


def whole(name: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """A whole number (numpy's too, but no boolean) from low to high."""
    wanted = "" if low is None else f"{low} or more" if high is None else f"{low} to {high}"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise wrong(name, value, f"a whole number, {wanted}" if wanted else "a whole number") from None
    if (low is not None and number < low) or (high is not None and number > high):
        raise ConfigError(f"{name}: {number}, expected {wanted}")
    return number


def number(name: str, value: object) -> float:
    """Any number but a boolean."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong(name, value, "a number")
    return float(value)


def seconds(name: str, value: object) -> float:
    """A time, 0 or more."""
    time = number(name, value)
    if not 0 <= time < float("inf"):
        raise ConfigError(f"{name}: {value}, expected 0 or more")
    return time


def switch(name: str, value: object) -> bool:
    """True or False, also as 1 or 0."""
    try:
        if value in (0, 1):
            return bool(value)
    except (TypeError, ValueError):  # an array, say
        pass
    raise wrong(name, value, "True or False")


def expression(name: str, value: object) -> str | None:
    """A text, or None; an empty one is none."""
    if value is None or isinstance(value, str):
        return value or None
    raise wrong(name, value, "text")


def one_path(name: str, value: object) -> Any:
    """A path, or None."""
    if value is None or isinstance(value, PATH):
        return os.fsdecode(value) if isinstance(value, bytes) else value
    raise wrong(name, value, "a path")


def one_capture(name: str, value: object) -> Any:
    """The path of a capture."""
    if not isinstance(value, PATH):
        raise wrong(name, value, "the path of a capture")
    return value


def paths(name: str, value: object) -> list[Any]:
    """One path or several."""
    if isinstance(value, PATH):
        return [value]
    # an open file would give its lines
    several = isinstance(value, Iterable) and not hasattr(value, "read")
    found = list(value) if several else [value]  # type: ignore[call-overload]
    for one in found:
        if not isinstance(one, PATH):
            raise wrong(name, one, "the path of a capture, or a list of them")
    return found


def names(name: str, value: object) -> list[str]:
    """A list of texts."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise wrong(name, value, "a list of names")
    found = list(value)
    for one in found:
        if not isinstance(one, str):
            raise wrong(name, one, "a name")
    return found


def method(name: str, value: object, attribute: str, wanted: str) -> None:
    """Something with this method, or None."""
    if value is not None and not callable(getattr(value, attribute, None)):
        raise wrong(name, value, f"{wanted}")

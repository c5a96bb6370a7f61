"""docopt for all our programs: the argument list gets one plain form first, errors are one clear line.

docopt reads `-p=12` as the value `=12`, splits an unknown `-tls` into three flags, and describes what it
cannot match by showing its own objects. So each word of the command line is checked here against the options
that the usage text declares; docopt then only sees what it reads well, and decides which usage line is meant.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import PurePath
from typing import Any

import docopt

from ._pipe import drop_output, end_by_sigpipe

__all__ = ["UsageError", "called_name", "integer", "parse"]


#: these end the program, whatever else is given
PRINTING = ("-h", "--help", "-V", "--version")
#: of the largest number of 64 bits
DIGITS_MAX = 20


class UsageError(Exception):
    """The command line cannot be understood: one line that names the flag."""


def called_name(default: str) -> str:
    """The name that the program was called by; `default` when that says nothing (`python -m`, a test)."""
    name = PurePath(sys.argv[0]).name
    return default if name in ("", "-c", "pytest") or name.endswith(".py") else name


def parse(
    usage: str, argv: list[str], version: str, *, repeatable: Collection[str] = (), strict: bool = False
) -> dict[str, Any]:
    """Arguments by the names of the usage text, defaults filled in.

    `repeatable`: flags that may be given several times; the usage text must say so by `...`. `strict`: other
    flags without a value may not either, which otherwise say again what they said.

    --help and --version print to standard output and leave by SystemExit(0). The usage text must take its
    positional arguments after `[--]`.
    """
    options = docopt.parse_options(usage)
    names = {name: option for option in options for name in (option.short, option.longer) if name}
    words = _Words(argv, names, repeatable, strict=strict)
    try:
        return dict(_printed(lambda: docopt.docopt(usage, words.plain(), version=version)))
    except docopt.DocoptExit:
        pass
    if words.positional:
        raise UsageError(f"unexpected argument {words.positional[-1]!r}")
    raise UsageError("no FILE given")


def _printed(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What docopt prints, help or version, must be out when the program ends; or it says why it is not."""
    try:
        try:
            return read()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        end_by_sigpipe()
    except OSError as problem:
        drop_output()
        raise UsageError(f"standard output: {problem.strerror}") from None


class _Words:
    """One command line on its way into plain form: `--long=value`, `-s value`, then `--` and the rest."""

    def __init__(
        self, argv: list[str], options: dict[str, Any], repeatable: Collection[str], *, strict: bool
    ) -> None:
        self._rest = list(reversed(argv))
        self._options = options
        self._repeatable = repeatable
        self._strict = strict
        self._out: list[str] = []
        self._given: set[str] = set()
        self.positional: list[str] = []

    def plain(self) -> list[str]:
        while self._rest:
            word = self._rest.pop()
            if word == "--":
                self.positional += reversed(self._rest)
                break
            if word.startswith("--"):
                self._long(word)
            elif word.startswith("-") and word != "-":
                self._short(word)
            else:
                self.positional.append(word)
        return [*self._out, "--", *self.positional] if self.positional else self._out

    def _long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if name not in self._options:
            name = self._completed(name)
        if self._options[name].argcount:
            self._value(name, value if equals else self._next(name))
        elif equals:
            raise UsageError(f"{name} takes no value, got {value!r}")
        else:
            self._flag(name)

    def _short(self, word: str) -> None:
        """`-v`, `-vv`, `-b EXPR`, `-bEXPR`, `-b=EXPR`, `-vb EXPR`."""
        letters = word[1:]
        while letters:
            name, letters = "-" + letters[0], letters[1:]
            if name not in self._options:
                raise UsageError(f"unknown flag {word}" + _hint(word, list(self._options)))
            if self._options[name].argcount:
                self._value(name, letters.removeprefix("=") if letters else self._next(name))
                return
            if letters.startswith("="):
                raise UsageError(f"{name} takes no value, got {letters[1:]!r}")
            self._flag(name)

    def _completed(self, name: str) -> str:
        """The one long flag that `name` is a beginning of."""
        candidates = sorted(option for option in self._options if option.startswith(name))
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise UsageError(f"{name} could be {' or '.join(candidates)}")
        raise UsageError(f"unknown flag {name}" + _hint(name, list(self._options)))

    def _next(self, name: str) -> str:
        if not self._rest or self._rest[-1] == "--":
            raise UsageError(f"{name} needs a value")
        return self._rest.pop()

    def _value(self, name: str, value: str) -> None:
        if not self._note(name) and name not in self._repeatable:
            raise UsageError(f"{name} is given twice")
        # the joined form keeps values that look like flags or are empty from being read as something else
        self._out += [f"{name}={value}"] if name.startswith("--") else [name, value]

    def _flag(self, name: str) -> None:
        if self._note(name) or name in self._repeatable:
            self._out.append(name)
        elif self._strict and name not in PRINTING:
            raise UsageError(f"{name} is given twice")

    def _note(self, name: str) -> bool:
        """False when the flag was given before, by this name or its other one."""
        option = self._options[name]
        key = option.longer or option.short
        new = key not in self._given
        self._given.add(key)
        return new


def _hint(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, [option for option in known if len(option) > 2], 1)
    return f", did you mean {near[0]}?" if near else ""


def integer(flag: str, text: str, low: int, high: int | None = None, *, clamp: bool = False) -> int:
    """A whole number given for a flag; outside of low..high it is refused, or moved to the nearest end."""
    wanted = f"{low} to {high}" if high is not None else f"{low} or more"
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > DIGITS_MAX:
        raise UsageError(f"{flag} {text!r}: not a whole number, expected {wanted}")
    value = int(text)
    if low <= value and (high is None or value <= high):
        return value
    if not clamp:
        raise UsageError(f"{flag} {text}: out of range, expected {wanted}")
    return low if value < low else high if high is not None else value

"""Text fit for a terminal: names that somebody else chose, numbers, shares, clock times."""

from __future__ import annotations

import datetime
import unicodedata

__all__ = ["MAX_NAME", "clean", "clock", "ms", "percent", "quantiles"]

#: characters of a name that are ever shown; DNS names have 255 at most
MAX_NAME = 255

#: controls, invisible format characters (direction overrides among them), lone surrogates, odd line ends
UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: object, limit: int = MAX_NAME) -> str:
    """One line of printable text: what could steer the terminal is spelled out (`\\x1b`), long text cut."""
    name = text if isinstance(text, str) else str(text) if type(text) is int and abs(text) < 1 << 64 else "?"
    if name.isascii() and name.isprintable() and len(name) <= limit:
        return name
    cut = len(name) > limit
    shown = "".join(map(_visible, name[:limit]))
    return shown + "…" if cut else shown


def _visible(char: str) -> str:
    if unicodedata.category(char) not in UNSAFE:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def percent(part: float, base: float) -> str:
    """A share with one decimal, `0.0` of nothing (agent spec 5.1)."""
    return f"{100 * part / base:.1f}%" if base > 0 else "0.0%"


def quantiles(values: tuple[float, ...]) -> str:
    """p50/p90/p95/p99 as whole numbers."""
    return "/".join(f"{value:.0f}" for value in values)


def ms(values: tuple[float, ...]) -> str:
    """Microseconds as milliseconds with one decimal."""
    return "/".join(f"{value / 1000:.1f}" for value in values)


def clock(epoch: float) -> str:
    """Local 12-hour clock, such as 3:04PM; `?` for a time that no calendar has."""
    try:
        time = datetime.datetime.fromtimestamp(epoch)
    except (OverflowError, OSError, ValueError):
        return "?"
    return f"{(time.hour + 11) % 12 + 1}:{time.minute:02d}{'PM' if time.hour >= 12 else 'AM'}"

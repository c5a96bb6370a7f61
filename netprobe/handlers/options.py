"""What the configuration keys of handlers mean: one typed row per key, the same in every handler.

A reader turns a raw value into the value that accumulators use, or raises :class:`Bad` with what would be
right. Values are Python's; text from YAML has been typed before (:func:`netprobe.handlers.config.scalar`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netprobe.handlers.dns_names import qtype_name, qtype_number, rcode_name, rcode_number

DNSTAP_TYPES = ("auth", "client", "forwarder", "resolver", "stub", "tool", "update")
XACT_DIRECTIONS = ("in", "out", "unknown")
DEFAULT_XACT_TTL_MS = 5000
# the clock is 64 bits of nanoseconds
MAX_XACT_TTL_MS = 10**12


class Bad(Exception):
    """A value that does not fit; the text goes on after "key: "."""


def kind_of(value: object) -> str:
    """A value and its type in words, cut to a readable length."""
    if value is None:
        return "nothing is given"
    if isinstance(value, Mapping):
        return "a map is given"
    if isinstance(value, list | tuple):
        return "a list is given"
    words = {bool: "a boolean", int: "a number", float: "a number with a fraction", str: "a string"}
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{text} is {words.get(type(value), f'a {type(value).__name__}')}"


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise Bad(f"{kind_of(value)}, expected true or false")
    return value


def unsigned(value: object) -> int:
    # bool is an int to Python, not to a user
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise Bad(f"{kind_of(value)}, expected a whole number from 0 on")
    return value


def texts(value: object) -> tuple[str, ...]:
    """A list of scalars, as text: numbers are written out (metrics spec 3.1)."""
    if not isinstance(value, list | tuple | set | frozenset):
        raise Bad(f"{kind_of(value)}, expected a list")
    items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
    return tuple(_scalar_text(item) for item in items)


def _scalar_text(item: object) -> str:
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, str | int | float):
        return str(item)
    raise Bad(f"{kind_of(item)}, expected a list of plain values")


def lower_texts(value: object) -> tuple[str, ...]:
    return tuple(text.lower() for text in texts(value))


def as_numbers(value: object) -> tuple[str, ...]:
    found = []
    for text in texts(value):
        if not (text.isascii() and text.isdigit() and int(text) < 1 << 32):
            raise Bad(f"{text!r} is no AS number, expected digits only (0 to 4294967295)")
        found.append(str(int(text)))
    return tuple(found)


def _code(text: str, what: str, name_of: Callable[[int], str], number_of: Callable[[str], int | None]) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else number_of(text)
    # a number without a name is unknown, and renders as itself
    if number is None or name_of(number) == str(number):
        raise Bad(f"{text!r} is no known {what}")
    return number


def rcodes(value: object) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    elif not isinstance(value, list | tuple | set | frozenset):
        raise Bad(f"{kind_of(value)}, expected a number, or a list of numbers and names")
    what = "rcode; give numbers or names such as 3 or NXDOMAIN"
    return tuple(sorted({_code(text, what, rcode_name, rcode_number) for text in texts(value)}))


def qtypes(value: object) -> tuple[int, ...]:
    what = "qtype; give numbers or names such as 28 or AAAA"
    return tuple(sorted({_code(text, what, qtype_name, qtype_number) for text in texts(value)}))


def answers(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Bad(f"{kind_of(value)}, expected an integer from 0 on")
    return value


def dnstap_type(value: object) -> str:
    if not isinstance(value, str) or value not in DNSTAP_TYPES:
        raise Bad(f"{kind_of(value)}, expected one of {', '.join(DNSTAP_TYPES)}")
    return value


def directions(value: object) -> tuple[str, ...]:
    found = texts(value)
    for text in found:
        if text not in XACT_DIRECTIONS:
            raise Bad(f"{text!r} is no direction, expected {', '.join(XACT_DIRECTIONS)}")
    return found


def ttl_ms(value: object) -> int:
    milliseconds = unsigned(value)
    if milliseconds > MAX_XACT_TTL_MS:
        raise Bad(f"{milliseconds} is too long, expected at most {MAX_XACT_TTL_MS} milliseconds")
    return milliseconds


def ttl_secs(value: object) -> int:
    seconds = unsigned(value)
    if seconds * 1000 > MAX_XACT_TTL_MS:
        raise Bad(f"{seconds} is too long, expected at most {MAX_XACT_TTL_MS // 1000} seconds")
    return seconds


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """A key: how its value is read, what holds without it, what it does."""

    read: Callable[[object], Any]
    default: Any
    form: str
    help: str


OPTIONS: dict[str, Option] = {
    "geoloc_notfound": Option(boolean, False, "boolean", "keep what has the location `Unknown`"),
    "asn_notfound": Option(boolean, False, "boolean", "keep what has the autonomous system `Unknown`"),
    "only_geoloc_prefix": Option(
        texts, None, "list", "keep packets whose peer's location begins with one of these"
    ),
    "only_asn_number": Option(
        as_numbers, None, "list of AS numbers", "keep packets whose peer is in one of these"
    ),
    "recorded_stream": Option(
        boolean, False, "boolean", "windows are timed by the packets alone; rates show no `live`"
    ),
    "exclude_noerror": Option(
        boolean, False, "boolean", "reject messages with rcode NOERROR; `only_rcode` is ignored then"
    ),
    "only_rcode": Option(
        rcodes, None, "number, or list of numbers and names", "keep messages with one of these"
    ),
    "only_queries": Option(boolean, False, "boolean", "reject responses"),
    "only_responses": Option(boolean, False, "boolean", "reject queries"),
    "only_dnssec_response": Option(
        boolean, False, "boolean", "keep responses with an RRSIG among the answers"
    ),
    "answer_count": Option(answers, None, "number", "keep messages with exactly so many answer records"),
    "only_qtype": Option(
        qtypes, None, "list of numbers and names", "keep messages that ask for one of these"
    ),
    "only_qname": Option(lower_texts, None, "list", "keep messages that ask for exactly one of these names"),
    "only_qname_suffix": Option(
        lower_texts, None, "list", "keep messages whose name ends with one of these texts"
    ),
    "dnstap_msg_type": Option(
        dnstap_type, None, ", ".join(DNSTAP_TYPES), "keep dnstap messages of this type; others are untouched"
    ),
    "public_suffix_list": Option(
        boolean, False, "boolean", "leave public suffixes (`.co.uk`) out of name levels"
    ),
    "xact_ttl_secs": Option(ttl_secs, None, "number", "seconds that a transaction may take"),
    "xact_ttl_ms": Option(
        ttl_ms,
        DEFAULT_XACT_TTL_MS,
        "number",
        "milliseconds that a transaction may take; wins over `xact_ttl_secs`",
    ),
    "only_xact_directions": Option(
        directions, None, "list of in, out, unknown", "keep transactions of these directions"
    ),
}

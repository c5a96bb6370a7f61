"""Choosing taps by their tags (agent spec 2.4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from netprobe.handlers.options import kind_of
from netprobe.policy.nodes import Node, typed
from netprobe.policy.taps import Tap

MODES = ("any", "all")


@dataclass(frozen=True, slots=True)
class Entry:
    """One wanted tag; ``node`` is its place."""

    tag: str
    value: Any
    node: Node

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and (self.tag, self.value) == (other.tag, other.value)

    def __hash__(self) -> int:
        return hash((self.tag, str(self.value)))


@dataclass(frozen=True, slots=True)
class Selector:
    """``any``: one wanted tag is enough; ``all``: each must be there. Without entries, nothing matches."""

    mode: str
    entries: tuple[Entry, ...]

    def matches(self, tap: Tap) -> bool:
        """ConfigError when a tag and its wanted value are of different types."""
        if not self.entries:
            return False
        for entry in self.entries:
            same = _same(entry, tap)
            if same and self.mode == "any":
                return True
            if not same and self.mode == "all":
                return False
        return self.mode == "all"


def _same(entry: Entry, tap: Tap) -> bool:
    if entry.tag not in tap.tags:
        return False
    value = tap.tags[entry.tag]
    if type(value) is not type(entry.value):
        raise entry.node.error(
            f"tap {tap.name!r}: tag {entry.tag!r}: {kind_of(value)} there, "
            f"but {kind_of(entry.value)} in the selector, expected one type"
        )
    return bool(value == entry.value)


def read_selector(node: Node) -> Selector:
    """Check a ``tap_selector``."""
    if not node.is_map:
        raise node.error(f"{node.describe()}, expected a map with any or all")
    found = [mode for mode in MODES if mode in node.entries]
    if len(found) != 1:
        given = "both any and all are given" if found else "neither any nor all is given"
        raise node.error(f"{given}, expected one of them")
    if strange := [key for key in node.entries if key not in MODES]:
        raise node.error("unknown key, expected any or all", strange[0])
    wanted = node.entries[found[0]]
    if not wanted.is_list:
        raise wanted.error(f"{wanted.describe()}, expected a list such as [{{site: lab}}]")
    return Selector(found[0], tuple(_entry(item) for item in wanted.items))


def _entry(item: Node) -> Entry:
    if not item.is_map:
        raise item.error(f"{item.describe()}, expected a map with one entry, such as {{site: lab}}")
    if len(item.entries) != 1:
        raise item.error(f"{len(item.entries)} entries, expected one, such as {{site: lab}}")
    tag, value = next(iter(item.entries.items()))
    if not value.is_scalar:
        raise value.error(f"{value.describe()}, expected a plain value")
    return Entry(tag, typed(value), value)

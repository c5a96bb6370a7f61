"""Taps: named templates for inputs. They hold settings and run nothing (agent spec 2.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from netprobe.policy.config import check_name, maybe_map, unknown_keys, want_scalar
from netprobe.policy.inputs import INPUT_TYPES, STRING_KEYS
from netprobe.policy.nodes import Node, typed

Origin = Literal["cli", "file", "rest"]
INTERFACE = "visor.module.input/1.0"
TAP_KEYS = ("input_type", "config", "tags")


@dataclass(frozen=True, slots=True)
class Tap:
    """One tap. ``node`` is the place of its ``config``, for errors that show only when it is used."""

    name: str
    input_type: str
    config: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = field(default="rest", compare=False)
    node: Node | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As the REST API shows it (agent spec 3.3)."""
        return {
            "input_type": self.input_type,
            "interface": INTERFACE,
            "config": dict(self.config) or None,
            "tags": dict(self.tags) or None,
        }


def read_tap(name: str, node: Node, origin: Origin) -> Tap:
    """Check a tap's outline; its ``config`` is typed, but not judged before it is used."""
    check_name(name, "tap", node)
    if not node.is_map:
        raise node.error(f"{node.describe()}, expected a map with the key input_type")
    types = f"one of {', '.join(INPUT_TYPES)}"
    input_type = want_scalar(node, "input_type", types)
    if input_type not in INPUT_TYPES:
        raise node.error(f"tap {name!r}: {input_type!r} is no input type, expected {types}", "input_type")
    config, tags = maybe_map(node, "config"), maybe_map(node, "tags")
    return Tap(
        name,
        input_type,
        typed(config, STRING_KEYS) if config is not None else {},
        typed(tags) if tags is not None else {},
        origin,
        config,
    )


def tap_notes(node: Node) -> Iterator[str]:
    """A line for each key of a tap that nobody reads."""
    for line in unknown_keys(node, TAP_KEYS):
        hint = "; filters belong to input.filter of a policy" if "filter: unknown" in line else ""
        yield line + hint

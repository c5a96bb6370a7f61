"""A policy as its document says it, and the plan of what it runs: which handlers, on which inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from netprobe.errors import ConfigError, NoMatchError
from netprobe.handlers.options import kind_of
from netprobe.policy.config import (
    RESERVED_POLICIES,
    check_name,
    maybe_map,
    unknown_keys,
    want_map,
    want_scalar,
)
from netprobe.policy.inputs import (
    INPUT_TYPES,
    STRING_KEYS,
    InputType,
    check_input,
    input_name,
    input_type,
    same_type,
)
from netprobe.policy.modules import Globals, Handlers, Planned, handlers_notes, plan_handlers, read_handlers
from netprobe.policy.nodes import Node, typed
from netprobe.policy.selectors import Selector, read_selector
from netprobe.policy.taps import Origin, Tap

POLICY_KEYS = ("kind", "description", "config", "input", "handlers")
CONFIG_KEYS = ("merge_like_handlers",)
INPUT_KEYS = ("tap", "tap_selector", "input_type", "config", "filter")
KIND = "collection"
NO_MATCH = "no tap match found for specified 'input.tap_selector' tags"


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """One policy. ``tap`` or ``selector`` is set; ``node`` is its place."""

    name: str
    input_type: str
    handlers: Handlers
    tap: str | None = None
    selector: Selector | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    filter: Mapping[str, Any] = field(default_factory=dict)
    merge_like: bool = False
    origin: Origin = field(default="rest", compare=False)
    node: Node | None = field(default=None, compare=False, repr=False)

    def problem(self, text: str, *keys: str) -> ConfigError:
        """An error at the node under ``keys``, as far down as it exists."""
        node = self.node
        if node is None:
            return ConfigError(text)
        for key in keys[:-1]:
            node = node.get(key) or node
        return node.error(text, keys[-1] if keys else None)

    def choose(self, taps: Mapping[str, Tap]) -> list[Tap]:
        """The taps that this policy uses now."""
        if self.selector is None:
            assert self.tap is not None
            if self.tap not in taps:
                known = f"there is {', '.join(taps)}" if taps else "there is none"
                raise self.problem(f"there is no tap {self.tap!r}; {known}", "input", "tap")
            chosen = [taps[self.tap]]
        else:
            chosen = [tap for tap in taps.values() if self.selector.matches(tap)]
            if not chosen:
                # over REST the text is one that clients match on
                at = self.node.where() + ": " if self.node is not None and self.origin == "file" else ""
                raise NoMatchError(at + NO_MATCH)
        for tap in chosen:
            if same_type(tap.input_type) != same_type(self.input_type):
                raise self.problem(
                    f"tap {tap.name!r} has the input type {tap.input_type!r}, "
                    f"the policy {self.input_type!r}, expected the same",
                    "input",
                    "input_type",
                )
        return chosen


def read_policy(name: str, node: Node, origin: Origin) -> PolicySpec:
    """Check everything about a policy that can be known without taps."""
    check_name(name, "policy", node)
    if name in RESERVED_POLICIES:
        raise node.error(f"the name {name!r} is reserved, expected another")
    if not node.is_map:
        raise node.error(f"{node.describe()}, expected a map with the keys kind, input, handlers")
    kind = want_scalar(node, "kind", KIND)
    if kind != KIND:
        raise node.error(f"{kind!r} is no kind of policy, expected {KIND}", "kind")
    input_ = want_map(node, "input", "with tap or tap_selector, and input_type")
    handlers = want_map(node, "handlers", "with the key modules")
    input_type_ = want_scalar(input_, "input_type", f"one of {', '.join(INPUT_TYPES)}")
    if input_type_ not in INPUT_TYPES:
        types = f"expected one of {', '.join(INPUT_TYPES)}"
        raise input_.error(f"{input_type_!r} is no input type, {types}", "input_type")
    tap, selector = _choice(input_)
    config, filter_ = maybe_map(input_, "config"), maybe_map(input_, "filter")
    return PolicySpec(
        name,
        input_type_,
        read_handlers(name, handlers),
        tap,
        selector,
        typed(config, STRING_KEYS) if config is not None else {},
        typed(filter_, STRING_KEYS) if filter_ is not None else {},
        _merge_like(node),
        origin,
        node,
    )


def _choice(input_: Node) -> tuple[str | None, Selector | None]:
    both = "'tap' and 'tap_selector'"
    if "tap" in input_.entries and "tap_selector" in input_.entries:
        raise input_.error(f"both {both} are given, expected one of them")
    if "tap" in input_.entries:
        return want_scalar(input_, "tap", "the name of a tap"), None
    selector = input_.get("tap_selector")
    if selector is None:
        raise input_.error(f"one of {both} is missing, expected one of them")
    return None, read_selector(selector)


def _merge_like(node: Node) -> bool:
    config = maybe_map(node, "config")
    value = config.get("merge_like_handlers") if config is not None else None
    if value is None:
        return False
    found = typed(value)
    if not isinstance(found, bool):
        raise value.error(f"{kind_of(found)}, expected true or false")
    return found


def policy_notes(node: Node) -> Iterator[str]:
    """A line for each key of a policy that nobody reads."""
    yield from unknown_keys(node, POLICY_KEYS)
    for key, known in (("config", CONFIG_KEYS), ("input", INPUT_KEYS)):
        part = node.get(key)
        if part is not None:
            yield from unknown_keys(part, known)
    handlers = node.get("handlers")
    if handlers is not None:
        yield from handlers_notes(handlers)


# --- plans ---


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """One input of a policy: its identity and settings, and the names of the handlers on it."""

    tap: str
    name: str
    kind: InputType
    config: Mapping[str, Any]
    filter: Mapping[str, Any]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a policy is going to run."""

    name: str
    inputs: tuple[PlannedInput, ...]
    handlers: Planned
    merge_like: bool

    def same_as(self, other: Plan | None) -> bool:
        """Would both run the same? The order of taps, which gives that of inputs, means nothing."""
        return other is not None and self._sorted() == other._sorted()

    def _sorted(self) -> Plan:
        return replace(self, inputs=tuple(sorted(self.inputs, key=lambda one: one.name)))


def plan_policy(
    spec: PolicySpec, taps: Mapping[str, Tap], globals_: Globals, agent_window: Mapping[str, Any]
) -> Plan:
    """Choose taps, merge settings, check what can be checked before something runs.

    NoMatchError: the selector matches nothing. ConfigError: anything else; settings that handlers and inputs
    refuse are worded as a failure to start.
    """
    chosen = spec.choose(taps)
    try:
        kind = input_type(spec.input_type)
        if not kind.built:
            text = f"the input {spec.input_type!r} is not available in this version, expected pcap"
            raise spec.problem(f"tap {chosen[0].name!r}: {text}", "input", "input_type")
        planned = plan_handlers(spec.handlers, globals_, agent_window, kind.name, kind.handlers)
        inputs = tuple(_plan_input(spec, tap, kind) for tap in chosen)
    except ConfigError as error:
        raise ConfigError(f"policy [{spec.name}] failed to start: {error}") from None
    return Plan(spec.name, inputs, planned, spec.merge_like)


def _plan_input(spec: PolicySpec, tap: Tap, kind: InputType) -> PlannedInput:
    input_ = spec.node.get("input") if spec.node is not None else None

    def place(key: str) -> str:
        """Where the value that counts stands: filter before policy before tap."""
        for node in (input_ and input_.get("filter"), input_ and input_.get("config"), tap.node):
            if node is not None and key in node.entries:
                return f"{node.where(key)}: tap {tap.name!r}" if node is not tap.node else node.where(key)
        return f"tap {tap.name!r}: {key}"

    merged = check_input(kind, {**tap.config, **spec.config, **spec.filter}, place)
    name = input_name(tap.name, kind, {**tap.config, **spec.config}, spec.filter)
    names = tuple(f"{spec.name}-{tap.name}-{module.name}" for module in spec.handlers.modules)
    return PlannedInput(tap.name, name, kind, merged, dict(spec.filter), names)

"""The ``handlers`` of a policy: modules, their settings, chains (agent spec 2.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from netprobe.errors import ConfigError, ExistsError
from netprobe.handlers.config import GROUP_KEYS, INTERNAL_KEYS, WINDOW_KEYS, HandlerConfig, HandlerSpec
from netprobe.handlers.options import OPTIONS, Bad, texts, unsigned
from netprobe.handlers.registry import lookup
from netprobe.metrics.table import DEFAULT_VERSION, HandlerTable
from netprobe.policy.config import check_name, maybe_map, unknown_keys, want_scalar
from netprobe.policy.nodes import Node, typed

HANDLERS_KEYS = ("window_config", "modules")
MODULE_KEYS = ("type", "require_version", "config", "filter", "metric_groups")
# the handler that every input gets by itself
RESOURCES = "input_resources"
MAX_MODULES = 32


@dataclass(frozen=True, slots=True)
class Module:
    """One handler as a policy asks for it; settings are typed, and checked when it is planned.

    ``nodes`` are the places of ``config``, ``filter`` and ``metric_groups``.
    """

    name: str
    type: str
    version: str
    config: Mapping[str, Any] = field(default_factory=dict)
    filter: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Any] = field(default_factory=dict)
    node: Node | None = field(default=None, compare=False, repr=False)

    def source(self, key: str) -> Node | None:
        return self.node.get(key) if self.node is not None else None


@dataclass(frozen=True, slots=True)
class Handlers:
    """A policy's handlers in the order of the file. ``chain``: each sees what the one before accepted."""

    modules: tuple[Module, ...]
    chain: bool = False
    window: Mapping[str, Any] | None = None
    node: Node | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Globals:
    """``global_handler_config``: settings by handler type, with their places."""

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict, compare=False, repr=False)


# --- reading ---


def read_globals(nodes: Mapping[str, Node], notes: list[str]) -> Globals:
    """Check ``global_handler_config``; a type that does not exist is a note and is left out."""
    settings = {}
    for type_, node in nodes.items():
        if not node.is_map:
            raise node.error(f"{node.describe()}, expected a map of settings")
        if not _exists(type_):
            notes.append(f"{node.where()}: there is no handler {type_!r}, ignored")
            continue
        settings[type_] = typed(node)
    return Globals(settings, dict(nodes))


def _exists(type_: str) -> bool:
    from netprobe.handlers.registry import HANDLERS

    return any(table.type == type_ for table in HANDLERS)


def read_handlers(policy: str, node: Node) -> Handlers:
    """Check the outline of a policy's ``handlers``."""
    window = maybe_map(node, "window_config")
    modules = node.get("modules")
    if modules is None:
        raise node.error("missing, expected a map or a list of handlers", "modules")
    if modules.is_map:
        found = [_module(policy, name, body, body) for name, body in modules.entries.items()]
    elif modules.is_list:
        found = [_link(policy, item) for item in modules.items]
    else:
        raise modules.error(f"{modules.describe()}, expected a map or a list of handlers")
    if not found:
        raise modules.error("no handler in it, expected for example {traffic: {type: net}}")
    if len(found) > MAX_MODULES:
        raise modules.error(f"{len(found)} handlers, expected at most {MAX_MODULES}")
    taken: set[str] = set()
    for module in found:
        if module.name in taken:
            raise ExistsError(f"{modules.where()}: the name {module.name!r} is taken already")
        taken.add(module.name)
    return Handlers(tuple(found), modules.is_list, typed(window) if window is not None else None, node)


def _link(policy: str, item: Node) -> Module:
    """An element of a chain: ``name: {type: …}``, or ``name:`` with ``type`` and so on beside it."""
    if not item.is_map or not item.entries:
        raise item.error(f"{item.describe()}, expected a map with one handler")
    name, body = next(iter(item.entries.items()))
    if body.kind == "null":
        return _module(policy, name, item, body)
    if len(item.entries) > 1:
        raise item.error(f"{len(item.entries)} entries, expected one handler in each element of a chain")
    return _module(policy, name, body, body)


def _module(policy: str, name: str, body: Node, place: Node) -> Module:
    check_name(name, "handler", place)
    if not body.is_map:
        raise body.error(f"{body.describe()}, expected a map with the key type")
    type_ = want_scalar(body, "type", "a handler such as net or dns")
    version = DEFAULT_VERSION
    if "require_version" in body.entries:
        version = want_scalar(body, "require_version", "a version such as 1.0")
    config, filter_ = maybe_map(body, "config"), maybe_map(body, "filter")
    groups = maybe_map(body, "metric_groups")
    if groups is not None and not any(key in groups.entries for key in GROUP_KEYS):
        raise groups.error("has neither 'enable' nor 'disable', expected one or both")
    try:
        lookup(type_, version)
    except ConfigError as error:
        raise body.error(
            f"policy {policy!r}: handler {type_!r}, version {version!r}: {error}", "type"
        ) from None
    return Module(
        name,
        type_,
        version,
        typed(config) if config is not None else {},
        typed(filter_) if filter_ is not None else {},
        typed(groups) if groups is not None else {},
        body,
    )


def handlers_notes(node: Node) -> Iterator[str]:
    """A line for each key of ``handlers`` and its modules that nobody reads."""
    yield from unknown_keys(node, HANDLERS_KEYS)
    modules = node.get("modules")
    for body in modules.children() if modules is not None else ():
        if not (modules is not None and modules.is_list):
            yield from unknown_keys(body, MODULE_KEYS)
        elif body.entries:
            name, first = next(iter(body.entries.items()))
            yield from unknown_keys(
                *((body, (name, *MODULE_KEYS)) if first.kind == "null" else (first, MODULE_KEYS))
            )


# --- planning ---


@dataclass(frozen=True, slots=True)
class Planned:
    """Handlers ready to be built: specs with their configuration, and what each was configured with."""

    specs: tuple[HandlerSpec, ...]
    configs: tuple[HandlerConfig, ...]
    effective: tuple[Mapping[str, Any], ...]
    periods: int
    deep_sample_rate: int


def plan_handlers(
    handlers: Handlers,
    globals_: Globals,
    agent_window: Mapping[str, Any],
    taken_by: str,
    types: tuple[str, ...],
) -> Planned:
    """Merge (agent spec 2.5.1) and check all settings. ``taken_by`` is the input and ``types`` what it feeds.

    ConfigError names place, key, value and what would be right.
    """
    window = handlers.window if handlers.window is not None else agent_window
    window_node = handlers.node.get("window_config") if handlers.node is not None else None
    specs, configs, effective = [], [], []
    for index, module in enumerate(handlers.modules):
        table = lookup(module.type, module.version)
        if module.type not in types:
            feeds = f"which feeds {', '.join(one for one in types if _exists(one) and one != RESOURCES)}"
            text = f"handler {module.type!r} cannot consume the input {taken_by!r}, {feeds}"
            raise module.node.error(text) if module.node is not None else ConfigError(text)
        shared = globals_.settings.get(module.type, {})
        given: tuple[Mapping[str, Any], ...] = (shared, module.config, window, module.filter)
        if module.type == RESOURCES:
            # nobody checks its settings (agent spec, appendix B): what it does not know means nothing
            given = tuple({key: one[key] for key in one if key in WINDOW_KEYS} for one in given)
        else:
            _check(table, shared, globals_.nodes.get(module.type))
            _check(table, module.config, module.source("config"))
            _check(table, window, window_node)
            _check(table, module.filter, module.source("filter"))
            _check_groups(table, module.groups, module.source("metric_groups"))
        merged = {**shared, **module.config, **window, **module.filter, **module.groups}
        common, own, over, chosen = given
        spec = HandlerSpec(
            module.type,
            module.version,
            module.name,
            config={**common, **own},
            filter=chosen,
            metric_groups=module.groups,
            after=index - 1 if handlers.chain and index else None,
        )
        specs.append(spec)
        configs.append(spec.resolve(window_config=over))
        effective.append(merged)
    return Planned(
        tuple(specs),
        tuple(configs),
        tuple(effective),
        _one("num_periods", configs, handlers),
        _one("deep_sample_rate", configs, handlers),
    )


def _one(key: str, configs: list[HandlerConfig], handlers: Handlers) -> int:
    values: list[int] = sorted({getattr(config, key) for config in configs})
    if len(values) > 1:
        given = " and ".join(map(str, values))
        text = (
            f"{key}: {given} are given, but the handlers of a policy share one; expected it in window_config"
        )
        raise handlers.node.error(text) if handlers.node is not None else ConfigError(text)
    return values[0]


def _problem(node: Node | None, key: str, text: str) -> ConfigError:
    return node.error(text, key) if node is not None else ConfigError(f"{key}: {text}")


def _check(table: HandlerTable, settings: Mapping[str, Any], node: Node | None) -> None:
    known = (*table.options, *WINDOW_KEYS)
    # pktvisor takes the lists of groups here too
    _check_groups(table, {key: settings[key] for key in GROUP_KEYS if key in settings}, node)
    for key, value in settings.items():
        if key in GROUP_KEYS or key in INTERNAL_KEYS:
            continue
        if key not in known:
            expected = f"expected one of {', '.join(known)}"
            raise _problem(node, key, f"unknown key of the handler {table.title}, {expected}")
        read = OPTIONS[key].read if key in OPTIONS else _percent if key.endswith("threshold") else unsigned
        try:
            read(value)
        except Bad as error:
            raise _problem(node, key, str(error)) from None


def _percent(value: object) -> int:
    percent = unsigned(value)
    if percent > 100:
        raise Bad(f"{percent} is more than 100, expected a percentage from 0 to 100")
    return percent


def _check_groups(table: HandlerTable, groups: Mapping[str, Any], node: Node | None) -> None:
    for key, value in groups.items():
        if key not in GROUP_KEYS:
            raise _problem(node, key, "unknown key, expected enable or disable")
        if not table.groups:
            continue
        valid = ("all", *sorted(table.all_groups))
        try:
            names = texts(value)
        except Bad as error:
            raise _problem(node, key, f"{error} of metric groups: {', '.join(valid)}") from None
        for index, name in enumerate(names):
            if name == "all":
                break
            if name not in valid:
                place = node.get(key) if node is not None else None
                item = place.items[index] if place is not None and place.is_list else node
                text = f"unknown metric group {name!r}, expected one of {', '.join(valid)}"
                raise item.error(text) if item is not None else ConfigError(f"{key}: {text}")

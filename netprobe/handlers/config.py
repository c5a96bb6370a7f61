"""From raw settings to a :class:`HandlerConfig`: every key known, every value of its type, or a ConfigError.

Settings come from maps that share one namespace; later ones win (metrics spec 3.1): defaults of the handler's
type, the handler's ``config``, the ``window_config``, the handler's ``filter`` and ``metric_groups``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netprobe.errors import ConfigError
from netprobe.handlers.options import OPTIONS, Bad, kind_of, texts, unsigned
from netprobe.handlers.registry import lookup
from netprobe.metrics.table import DEFAULT_VERSION, HandlerTable

Settings = Mapping[str, Any]

# in the order in which messages list them
WINDOW_KEYS = ("deep_sample_rate", "num_periods", "topn_count", "topn_percentile_threshold")
GROUP_KEYS = ("enable", "disable")
# what the agent adds by itself
INTERNAL_KEYS = ("_internal_tap_name",)
ALL = "all"
DEFAULT_HANDLERS = "net,dns,dhcp"


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    """One handler, ready to be built.

    ``options`` has every key of the handler's table: those not given hold their default (false, or None for
    "not set"). What one key does to another is settled: ``xact_ttl_ms``, in milliseconds, stands for both
    spellings, and ``only_rcode`` is None beside ``exclude_noerror``.
    """

    type: str
    version: str = DEFAULT_VERSION
    name: str = ""
    groups: frozenset[str] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)
    num_periods: int = 5
    deep_sample_rate: int = 100
    topn_count: int = 10
    topn_percentile_threshold: int = 0

    @property
    def table(self) -> HandlerTable:
        return lookup(self.type, self.version)

    @property
    def recorded(self) -> bool:
        return bool(self.options.get("recorded_stream"))


@dataclass(frozen=True, slots=True)
class HandlerSpec:
    """A handler as asked for: which one, and its raw settings.

    ``after`` is the place, in the list of specs, of the handler whose accepted traffic this one sees
    (a chain); None: it sees everything.
    """

    type: str
    version: str = DEFAULT_VERSION
    name: str = ""
    config: Settings = field(default_factory=dict)
    filter: Settings = field(default_factory=dict)
    metric_groups: Settings = field(default_factory=dict)
    after: int | None = None

    def resolve(
        self, window_config: Settings | None = None, defaults: Settings | None = None, where: str = ""
    ) -> HandlerConfig:
        """Check everything; see :func:`handler_config`."""
        return handler_config(
            lookup(self.type, self.version),
            name=self.name,
            config=self.config,
            filter=self.filter,
            metric_groups=self.metric_groups,
            window_config=window_config,
            defaults=defaults,
            where=where,
        )


def scalar(text: str) -> int | bool | str:
    """A YAML scalar (metrics spec 3.1): digits are a number, true and false booleans, the rest is text."""
    if text.isascii() and text.isdigit():
        return int(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def handler_config(
    table: HandlerTable,
    *,
    name: str = "",
    config: Settings | None = None,
    filter: Settings | None = None,
    metric_groups: Settings | None = None,
    window_config: Settings | None = None,
    defaults: Settings | None = None,
    where: str = "",
) -> HandlerConfig:
    """Merge and check a handler's settings.

    ``where`` opens every message: a place in a file, or nothing.
    Raises ConfigError at the first thing that is wrong.
    """
    at = f"{where}: {table.title}" if where else table.title
    groups = _map(metric_groups, "metric_groups", at)
    if groups and not any(key in groups for key in GROUP_KEYS):
        raise ConfigError(f"{at}: metric_groups: has neither 'enable' nor 'disable'")
    if strange := [key for key in groups if key not in GROUP_KEYS]:
        raise ConfigError(f"{at}: metric_groups: unknown key {strange[0]!r}, expected enable, disable")
    merged: dict[str, Any] = {}
    merged.update(_map(defaults, "defaults", at))
    merged.update(_map(config, "config", at))
    merged.update(_map(window_config, "window_config", at))
    merged.update(_map(filter, "filter", at))
    merged.update(groups)
    _check_keys(table, merged, at)

    def read(key: str, reader: Any, default: Any) -> Any:
        if key not in merged:
            return default
        try:
            return reader(merged[key])
        except Bad as error:
            raise ConfigError(f"{at}: {key}: {error}") from None

    options = {key: read(key, OPTIONS[key].read, OPTIONS[key].default) for key in table.options}
    if "xact_ttl_ms" in options:
        seconds = options.pop("xact_ttl_secs", None)
        if seconds is not None and "xact_ttl_ms" not in merged:
            options["xact_ttl_ms"] = seconds * 1000
    if options.get("exclude_noerror"):
        options["only_rcode"] = None
    return HandlerConfig(
        type=table.type,
        version=table.version,
        name=name or table.type,
        groups=_groups(table, merged, at),
        options=options,
        num_periods=min(max(read("num_periods", unsigned, 5), 1), 10),
        deep_sample_rate=min(max(read("deep_sample_rate", unsigned, 100), 1), 100),
        topn_count=read("topn_count", unsigned, 10),
        topn_percentile_threshold=read("topn_percentile_threshold", _percent, 0),
    )


def _percent(value: object) -> int:
    percent = unsigned(value)
    if percent > 100:
        raise Bad(f"{percent} is more than 100, expected a percentage from 0 to 100")
    return percent


def _map(value: Settings | None, what: str, at: str) -> Settings:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{at}: {what}: {kind_of(value)}, expected a map")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{at}: {what}: the key {key!r} is not text")
    return value


def _check_keys(table: HandlerTable, merged: Settings, at: str) -> None:
    known = (*table.options, *WINDOW_KEYS)
    for key in merged:
        if key not in known and key not in GROUP_KEYS and key not in INTERNAL_KEYS:
            raise ConfigError(f"{at}: unknown key {key!r}, expected one of {', '.join(known)}")


def _groups(table: HandlerTable, merged: Settings, at: str) -> frozenset[str]:
    """Defaults, then every ``disable``, then every ``enable``; ``all`` ends its list (metrics spec 3.3)."""
    enabled = set(table.default_groups)
    # a handler without groups takes the two keys and ignores them, as upstream does
    if not table.groups:
        return frozenset()
    for key in ("disable", "enable"):
        try:
            names = texts(merged.get(key, ()))
        except Bad as error:
            raise ConfigError(f"{at}: {key}: {error} of metric groups") from None
        for name in names:
            if name == ALL:
                enabled = set(table.all_groups) if key == "enable" else set()
                break
            if name not in table.all_groups:
                valid = ", ".join((ALL, *sorted(table.all_groups)))
                raise ConfigError(f"{at}: {key}: unknown metric group {name!r}, expected one of {valid}")
            (enabled.add if key == "enable" else enabled.discard)(name)
    return frozenset(enabled)


# --- lists of handlers ---

SPEC_KEYS = ("type", "version", "name", "config", "filter", "metric_groups")
Wanted = str | Mapping[str, Any] | HandlerSpec


def parse_handlers(
    wanted: Wanted | Iterable[Wanted | Sequence[Wanted]] = DEFAULT_HANDLERS,
) -> list[HandlerSpec]:
    """The handlers that somebody asks for, in order, with distinct names.

    ``wanted`` is ``"net,dns:2.0+top_ecs"`` (type, or type:version; ``+group`` enables a metric group,
    ``+all`` all of them), or a list of such texts and of maps with the keys type, version, name, config,
    filter, metric_groups. A list within the list is a chain: each of its
    handlers sees what the one before accepted. A handler without a name is called by its type (``net``,
    ``dns_v2``), the second of a kind ``net_2``. ConfigError names what cannot be used.
    """
    chains: list[list[Wanted]] = []
    for item in _listed(wanted):
        if isinstance(item, str):
            chains.extend([part] for part in item.split(","))
        elif isinstance(item, Mapping | HandlerSpec):
            chains.append([item])
        elif isinstance(item, Sequence):
            chains.append([part for inner in item for part in _split(inner)])
        else:
            raise ConfigError(f"handlers: {kind_of(item)}, expected a name such as net or dns:2.0, or a map")
    specs: list[HandlerSpec] = []
    taken: set[str] = set()
    for chain in chains:
        after = None
        for part in chain:
            specs.append(_spec(part, after, taken))
            after = len(specs) - 1
    if not specs:
        raise ConfigError(f"handlers: none given, expected for example {DEFAULT_HANDLERS}")
    return specs


def _listed(wanted: Wanted | Iterable[Wanted | Sequence[Wanted]]) -> Iterable[Any]:
    if isinstance(wanted, str | Mapping | HandlerSpec):
        return [wanted]
    if not isinstance(wanted, Iterable):
        raise ConfigError(f"handlers: {kind_of(wanted)}, expected text or a list")
    return wanted


def _split(item: Wanted) -> list[Wanted]:
    return list(item.split(",")) if isinstance(item, str) else [item]


def _spec(item: object, after: int | None, taken: set[str]) -> HandlerSpec:
    if isinstance(item, HandlerSpec):
        raw: dict[str, Any] = {key: getattr(item, key) for key in SPEC_KEYS}
    elif isinstance(item, str):
        title, *enable = item.strip().split("+")
        type_, colon, version = title.partition(":")
        if not type_ or (colon and not version):
            raise ConfigError(f"handlers: {item!r} is no handler, expected for example net or dns:2.0")
        raw = {"type": type_.strip(), "version": version.strip() or DEFAULT_VERSION}
        if enable:
            raw["metric_groups"] = {"enable": [group.strip() for group in enable]}
    elif isinstance(item, Mapping):
        raw = dict(item)
    else:
        raise ConfigError(f"handlers: {kind_of(item)}, expected a name such as net or dns:2.0, or a map")
    if strange := [key for key in raw if key not in SPEC_KEYS]:
        raise ConfigError(f"handlers: unknown key {strange[0]!r}, expected one of {', '.join(SPEC_KEYS)}")
    if not isinstance(raw.get("type"), str):
        raise ConfigError("handlers: a map needs the key 'type', for example net")
    table = lookup(raw["type"], str(raw.get("version", DEFAULT_VERSION)))
    name = raw.get("name") or ""
    if not isinstance(name, str):
        raise ConfigError(f"handlers: name: {kind_of(name)}, expected text")
    if name in taken:
        raise ConfigError(f"handlers: the name {name!r} is taken already")
    name = name or _free(table, taken)
    taken.add(name)
    at = f"handlers: {name}"
    return HandlerSpec(
        type=table.type,
        version=table.version,
        name=name,
        config=_map(raw.get("config"), "config", at),
        filter=_map(raw.get("filter"), "filter", at),
        metric_groups=_map(raw.get("metric_groups"), "metric_groups", at),
        after=after,
    )


def _free(table: HandlerTable, taken: set[str]) -> str:
    base = table.type if table.version == DEFAULT_VERSION else f"{table.type}_v{table.version.split('.')[0]}"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


__all__ = [
    "DEFAULT_HANDLERS",
    "WINDOW_KEYS",
    "HandlerConfig",
    "HandlerSpec",
    "handler_config",
    "parse_handlers",
    "scalar",
]

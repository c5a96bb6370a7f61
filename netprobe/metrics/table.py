"""A handler's metrics as a table: one row per metric, walked by every renderer.

A row says where the value stands in JSON, what Prometheus calls it, which metric groups gate it and what
it means. The native accumulator says which values it keeps (``fields()``); :func:`bind` joins the two and
refuses to go on when either has something the other lacks.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeGuard, get_args

from netprobe.errors import TableError
from netprobe.metrics.keys import Render

Kind = Literal["counter", "cardinality", "topn", "quantile", "histogram", "rate"]
KINDS: tuple[str, ...] = get_args(Kind)
DEFAULT_VERSION = "1.0"
DIRECTIONS = ("in", "out", "unknown")
# how `fields()` marks a value of the direction blocks
BLOCK_PREFIX = "D."


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One row.

    ``path`` is the JSON path below the handler's key. All ``groups`` must be on for the metric to be written.
    ``label`` and ``render`` belong to TopN rows. ``prom`` is filled in by the table unless it is irregular.
    ``live``: a rate that shows its last second while its bucket is open.
    """

    path: str
    kind: Kind
    help: str
    groups: tuple[str, ...] = ()
    label: str = ""
    render: Render | None = None
    prom: str = ""
    is_float: bool = False
    live: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """A switch for some of a handler's metrics."""

    name: str
    default: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class HandlerTable:
    """What a handler of one version measures and which settings it takes.

    ``metrics`` stand at the top level, ``block_metrics`` once in each of the blocks in, out, unknown.
    ``options`` are the keys of its configuration, in the order in which messages list them.
    ``native`` is ``module:class`` of its accumulator, imported at first use.
    """

    type: str
    version: str
    key: str
    metrics: tuple[Metric, ...]
    native: str
    block_metrics: tuple[Metric, ...] = ()
    groups: tuple[Group, ...] = ()
    options: tuple[str, ...] = ()
    summary: str = ""

    def __post_init__(self) -> None:
        known = {group.name for group in self.groups}
        for rows in ("metrics", "block_metrics"):
            checked = tuple(self._checked(metric, known) for metric in getattr(self, rows))
            object.__setattr__(self, rows, checked)
            paths = [metric.path for metric in checked]
            if len(set(paths)) != len(paths):
                raise TableError(f"{self.title}: a path occurs twice in {rows}")

    def _checked(self, metric: Metric, groups: set[str]) -> Metric:
        name = f"{self.title}: {metric.path}"
        for part in (self.key, *metric.path.split(".")):
            check_name(part, name)
        if metric.kind not in KINDS:
            raise TableError(f"{name}: unknown kind {metric.kind!r}")
        if strange := set(metric.groups) - groups:
            raise TableError(f"{name}: unknown group {min(strange)!r}")
        if {bool(metric.label), metric.render is not None} != {metric.kind == "topn"}:
            raise TableError(f"{name}: a TopN, and nothing else, needs a label and a renderer")
        if metric.prom:
            check_name(metric.prom, name)
            return metric
        return replace(metric, prom="_".join((self.key, *metric.path.split("."))))

    @property
    def title(self) -> str:
        """How messages call this handler: type and version."""
        return f"{self.type} {self.version}"

    @property
    def default_groups(self) -> frozenset[str]:
        return frozenset(group.name for group in self.groups if group.default)

    @property
    def all_groups(self) -> frozenset[str]:
        return frozenset(group.name for group in self.groups)


def check_name(part: str, where: str) -> None:
    """A name part must be a plain identifier (metrics spec 1.1); TableError names the one that is not."""
    if not (part.isascii() and part.isidentifier()):
        raise TableError(f"{where}: {part!r} is no metric name (letters, digits, _; no digit first)")


class NativeClass(Protocol):
    """The class of a native accumulator, as far as tables care."""

    @property
    def __name__(self) -> str: ...

    def fields(self) -> Mapping[str, tuple[str, int]]:
        """Path (direction blocks: ``D.`` before it) -> kind and index in the metric block. Static."""


def is_on(metric: Metric, groups: frozenset[str]) -> bool:
    """Is this metric written when these groups are enabled?"""
    return all(group in groups for group in metric.groups)


def rows_of(table: HandlerTable) -> dict[str, Metric]:
    """All rows under the names that ``fields()`` uses."""
    rows = {metric.path: metric for metric in table.metrics}
    rows.update((BLOCK_PREFIX + metric.path, metric) for metric in table.block_metrics)
    return rows


def bind(table: HandlerTable, native: NativeClass) -> dict[str, int]:
    """Join a table with its accumulator: field name -> index in a metric block.

    TableError names every field without a row, row without a field, and difference in kind.
    """
    rows = rows_of(table)
    fields = native.fields()
    wrong = [f"field {name!r} has no row" for name in fields if name not in rows]
    wrong += [f"row {name!r} has no field" for name in rows if name not in fields]
    wrong += [
        f"{name!r} is a {rows[name].kind} in the table and a {kind} in the accumulator"
        for name, (kind, _) in fields.items()
        if name in rows and rows[name].kind != kind
    ]
    if wrong:
        raise TableError(f"{table.title} and {native.__name__} disagree: " + "; ".join(sorted(wrong)))
    return {name: index for name, (_, index) in fields.items()}


def native_class(table: HandlerTable) -> NativeClass:
    """Import the handler's accumulator."""
    module, _, name = table.native.partition(":")
    found = getattr(importlib.import_module(module), name)
    if not _is_native(found):
        raise TableError(f"{table.native} has no fields()")
    return found


def _is_native(found: object) -> TypeGuard[NativeClass]:
    return hasattr(found, "fields")


_bound: dict[tuple[str, str], dict[str, int]] = {}


def index_of(table: HandlerTable) -> Mapping[str, int]:
    """:func:`bind` with the table's own accumulator, once per process."""
    at = (table.type, table.version)
    if at not in _bound:
        _bound[at] = bind(table, native_class(table))
    return _bound[at]


# --- short forms for rows ---


def counter(path: str, text: str, *groups: str, prom: str = "") -> Metric:
    return Metric(path, "counter", text, groups, prom=prom)


def cardinality(path: str, text: str, *groups: str) -> Metric:
    return Metric(path, "cardinality", text, groups)


def topn(path: str, label: str, render: Render, text: str, *groups: str) -> Metric:
    return Metric(path, "topn", text, groups, label=label, render=render)


def quantile(path: str, text: str, *groups: str, prom: str = "", is_float: bool = False) -> Metric:
    return Metric(path, "quantile", text, groups, prom=prom, is_float=is_float)


def histogram(path: str, text: str, *groups: str, is_float: bool = False) -> Metric:
    return Metric(path, "histogram", text, groups, is_float=is_float)


def rate(path: str, text: str, *groups: str, prom: str = "", live: bool = True) -> Metric:
    return Metric(path, "rate", text, groups, prom=prom, live=live)

"""Windows as Prometheus text, format 0.0.4 (metrics spec 1; agent spec 3.4.4).

Names and types are upstream's: counters are gauges, because a window's numbers go down again when it rotates.
HELP and TYPE come once per name, labels are escaped, and ``_sum`` is the sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from netprobe.metrics.keys import GeoNames
from netprobe.metrics.window import RANK_LABELS, Cell, HandlerWindow, document_keys

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# what each kind is in Prometheus' terms
TYPES = {
    "counter": "gauge",
    "cardinality": "gauge",
    "topn": "gauge",
    "quantile": "summary",
    "rate": "summary",
    "histogram": "histogram",
}

Labels = dict[str, str]


@dataclass(slots=True)
class Family:
    """All samples of one name, together as the format demands."""

    help: str
    type: str
    lines: list[str] = field(default_factory=list)


def render(
    windows: Sequence[HandlerWindow], geo: GeoNames | None = None, static: Mapping[str, str] | None = None
) -> str:
    """The text of all windows; ``static`` labels (``instance``) open every label set.

    Handlers that share a key in the JSON document and all their labels get ``handler="<document key>"`` from
    the second on: no two samples may have the same name and labels.
    """
    return families_text(families(windows, geo, static))


def families(
    windows: Sequence[HandlerWindow],
    geo: GeoNames | None = None,
    static: Mapping[str, str] | None = None,
    *,
    old_label: bool = False,
) -> dict[str, Family]:
    """:func:`render` before it becomes text: families by name, in the order of their first sample.

    ``old_label``: a row of a top list has its item under ``name`` too. pktvisor up to 3.3 had that label in
    place of ``qname``, ``ipv4`` and so on, and its published dashboard groups by it.
    """
    found: dict[str, Family] = {}
    for labels, window in labelled(windows):
        for direction, _, cells in window.sections():
            text = LabelTexts({**labels, "direction": direction} if direction else labels, static)
            for cell in cells:
                samples = _samples(cell, geo, old_label)
                lines = [f"{name}{text.with_more(own)} {value}" for name, own, value in samples]
                if lines:
                    metric = cell.metric
                    family = found.setdefault(metric.prom, Family(metric.help, TYPES[metric.kind]))
                    family.lines += lines
    return found


def families_text(found: Mapping[str, Family]) -> str:
    """Families as text: HELP and TYPE once per name, then all its samples."""
    parts = []
    for name, family in found.items():
        parts.append(f"# HELP {name} {_help_text(family.help)}")
        parts.append(f"# TYPE {name} {family.type}")
        parts += family.lines
    return "".join(f"{part}\n" for part in parts)


def labelled(windows: Sequence[HandlerWindow]) -> Iterator[tuple[Labels, HandlerWindow]]:
    """Each window with its labels, made distinct where two of one key have the same ones."""
    taken: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for key, window in zip(document_keys(windows), windows, strict=True):
        labels = dict(window.labels)
        at = (window.table.key, frozenset(labels.items()))
        if at in taken or ("handler" not in labels and key.startswith(f"{window.table.key}_v")):
            labels.setdefault("handler", key)
        taken.add(at)
        yield labels, window


def label_text(labels: Mapping[str, str], static: Mapping[str, str] | None = None) -> str:
    """``{a="1",b="2"}``: static labels first, then the others, each in ascending order."""
    pairs = sorted((static or {}).items())
    pairs += sorted((name, value) for name, value in labels.items() if name not in (static or {}))
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


class LabelTexts:
    """:func:`label_text` of many samples that share most of their labels."""

    def __init__(self, labels: Mapping[str, str], static: Mapping[str, str] | None = None) -> None:
        static = static or {}
        self._static = [f'{name}="{_escaped(static[name])}"' for name in sorted(static)]
        self._hidden = frozenset(static)
        self._pairs = sorted(
            (name, f'{name}="{_escaped(value)}"') for name, value in labels.items() if name not in static
        )
        self._plain = self._text(self._pairs)

    def with_more(self, more: Mapping[str, str]) -> str:
        """The text with the sample's own labels, each in its place."""
        if not more:
            return self._plain
        own = [
            (name, f'{name}="{_escaped(value)}"') for name, value in more.items() if name not in self._hidden
        ]
        return self._text(sorted([*(pair for pair in self._pairs if pair[0] not in more), *own]))

    def _text(self, pairs: Sequence[tuple[str, str]]) -> str:
        return "{" + ",".join([*self._static, *(text for _, text in pairs)]) + "}"


NO_LABELS: Labels = {}


def number_text(value: float, is_float: bool) -> str:
    """Integers in decimal, others with six significant digits as upstream prints them."""
    return f"{value:.6g}" if is_float else str(int(value))


def _escaped(value: str) -> str:
    if value.isalnum():
        return value
    if not value.isascii():
        # what is no text, such as a byte of the command line, is spelled out before its backslash is escaped
        value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _samples(cell: Cell, geo: GeoNames | None, old_label: bool) -> Iterator[tuple[str, Labels, str]]:
    """(name, own labels, value as text) of one metric; nothing when it is empty."""
    name = cell.metric.prom
    match cell.metric.kind:
        case "counter" | "cardinality":
            yield name, NO_LABELS, str(cell.count())
        case "topn":
            for row in cell.rows(geo):
                own = {cell.metric.label: row.label.name}
                if old_label:
                    own["name"] = row.label.name
                if row.label.lat is not None and row.label.lon is not None:
                    own.update(lat=row.label.lat, lon=row.label.lon)
                yield name, own, str(row.estimate)
        case "histogram":
            buckets = cell.buckets()
            for bound, count in buckets:
                yield f"{name}_bucket", {"le": bound}, str(count)
            if buckets:
                yield f"{name}_count", NO_LABELS, str(buckets[-1][1])
        case "quantile" | "rate":
            found = cell.quantiles()
            if found is None:
                return
            is_float = cell.metric.is_float
            for rank, value in zip(RANK_LABELS, found.values, strict=True):
                yield name, {"quantile": rank}, number_text(value, is_float)
            # six digits would make the sum of a busy link stand still between two scrapes
            yield f"{name}_sum", NO_LABELS, repr(float(found.sum)) if is_float else str(int(found.sum))
            yield f"{name}_count", NO_LABELS, str(found.count)

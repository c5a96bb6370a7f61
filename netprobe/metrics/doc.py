"""The page docs/metrics.md, made from the handlers' tables.

``python -m netprobe.metrics.doc > docs/metrics.md`` brings the page up to date.
"""
# ruff: noqa: E501

import sys
from collections.abc import Iterator, Sequence

from netprobe.handlers.options import OPTIONS
from netprobe.handlers.registry import HANDLERS
from netprobe.metrics.table import HandlerTable, Metric

INTRODUCTION = """\
# Metrics

<!-- made by `python -m netprobe.metrics.doc`; change the tables in netprobe/handlers/, not this page -->

Every handler below writes one JSON object under its *key*. A window document (`5m`) holds one such object per
handler, each with its `period`: `start_ts` (seconds since 1970) and `length` (seconds). Prometheus text has the
same values under the names given here.

| kind | in JSON | in Prometheus text |
|---|---|---|
| counter | integer | gauge |
| cardinality | integer: how many distinct, estimated (exact while small) | gauge |
| topn | array of `{"name", "estimate"}`, best first; locations also have `lat` and `lon` as text | one gauge per row, the name in a label |
| quantile | `{"p50", "p90", "p95", "p99"}`; absent while nothing was seen | summary, with the sum and the count of all values |
| rate | as quantile, over the counts of whole seconds; `live` while a live bucket is open | summary |
| histogram | `{"buckets": {boundary: values up to it, ..., "+Inf": all}}`; absent while nothing was seen | histogram |

A metric is written when all of its *groups* are on; one without groups is written whenever its handler writes
anything. Groups are switched by `metric_groups`: every name in `disable` goes off, then every name in `enable` goes
on; `all` means every group. A handler with every group off writes nothing. *Deep samples* are the share of events
chosen by `deep_sample_rate`; whatever reads addresses, names or options is fed by those alone.

Direction: `in` is to the host networks (`-H`), `out` from them, `unknown` neither. In the tables below `D` stands for
each of the three; a block appears once it has seen something, and in Prometheus text it is the label `direction`.

## Names in a document

Where two versions of a handler run together and share a key, version 1.0 keeps it and the other is suffixed: `dns`
and `dns_v2`. A second handler of the same type and version is called `dns_2`, the next `dns_3`, in the order in which
they were asked for. In Prometheus text these later ones carry the label `handler` with that name.

## Settings of every handler

| key | value | what it does |
|---|---|---|
| `num_periods` | 1 to 10 (default 5) | how many buckets of a minute are kept |
| `deep_sample_rate` | 1 to 100 (default 100) | percentage of events that are looked at in depth |
| `topn_count` | number (default 10) | rows of a TopN |
| `topn_percentile_threshold` | 0 to 100 (default 0) | drops TopN rows below this percentile of the rows' estimates |
"""


def page() -> Iterator[str]:
    """The page's lines."""
    yield from INTRODUCTION.splitlines()
    for table in HANDLERS:
        yield ""
        yield from _handler(table)


def _handler(table: HandlerTable) -> Iterator[str]:
    yield f"## {table.title}: `{table.key}`"
    yield ""
    yield table.summary
    yield ""
    if table.groups:
        on = ", ".join(f"`{group.name}`" for group in table.groups if group.default)
        off = ", ".join(f"`{group.name}`" for group in table.groups if not group.default)
        yield f"Groups that are on: {on}." + (f" Off: {off}." if off else "")
    else:
        yield "No groups."
    yield ""
    yield "| JSON path | Prometheus name | kind | groups | meaning |"
    yield "|---|---|---|---|---|"
    yield from _rows(table.metrics, "")
    yield from _rows(table.block_metrics, "D.")
    yield ""
    yield "| setting | value | what it does |"
    yield "|---|---|---|"
    for key in table.options:
        option = OPTIONS[key]
        default = {None: "", False: " (default false)"}.get(option.default, f" (default {option.default})")
        yield f"| `{key}` | {option.form}{default} | {option.help} |"


def _rows(metrics: Sequence[Metric], prefix: str) -> Iterator[str]:
    for metric in metrics:
        label = f", label `{metric.label}`" if metric.label else ""
        groups = " and ".join(metric.groups) or "always"
        yield f"| `{prefix}{metric.path}` | `{metric.prom}`{label} | {metric.kind} | {groups} | {metric.help} |"


def main() -> None:
    sys.stdout.writelines(f"{line}\n" for line in page())


if __name__ == "__main__":
    main()

"""Tables of metrics: names, groups, binding to accumulators, documents, merged windows, the metrics page."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from render_fakes import FakeBlock, FakeNative, fake_fields, fake_window

from netprobe.errors import PeriodError, TableError
from netprobe.handlers.options import OPTIONS
from netprobe.handlers.registry import HANDLERS, lookup
from netprobe.metrics import doc
from netprobe.metrics.table import Group, HandlerTable, Metric, bind, counter, index_of, rows_of
from netprobe.metrics.window import check_bucket, check_window, document_keys, merged, window_key

NET1, NET2, DNS1, DNS2 = HANDLERS[:4]
SPEC = Path(__file__).resolve().parents[2] / "shared" / "spec" / "pktvisor-metrics.md"


def table(*metrics: Metric, **more: Any) -> HandlerTable:
    return HandlerTable(type="t", version="1.0", key="root", metrics=metrics, native="none:none", **more)


# --- what a table refuses ---


def test_bad_names() -> None:
    """Metrics spec 1.9, last row."""
    with pytest.raises(TableError, match=r"'test\*'"):
        table(counter("test*.metric", ""))
    with pytest.raises(TableError, match=r"'root\*'"):
        HandlerTable(type="t", version="1.0", key="root*", metrics=(counter("a", ""),), native="none:none")
    with pytest.raises(TableError, match="'1st'"):
        table(counter("1st", ""))
    with pytest.raises(TableError, match="'größe'"):
        table(counter("größe", ""))


def test_bad_rows() -> None:
    with pytest.raises(TableError, match="'nothing'"):
        table(counter("a", "", "nothing"), groups=(Group("counters"),))
    with pytest.raises(TableError, match="label"):
        table(Metric("a", "topn", ""))
    with pytest.raises(TableError, match="label"):
        table(Metric("a", "counter", "", label="x"))
    with pytest.raises(TableError, match="twice"):
        table(counter("a", ""), counter("a", ""))
    with pytest.raises(TableError, match="'guess'"):
        table(Metric("a", "guess", ""))  # type: ignore[arg-type]


def test_prometheus_names() -> None:
    assert table(counter("test.metric", "")).metrics[0].prom == "root_test_metric"
    assert table(counter("test.metric", "", prom="other")).metrics[0].prom == "other"


# --- binding ---


def test_bind() -> None:
    for known in HANDLERS:
        found = bind(known, FakeNative(fake_fields(known)))
        assert set(found) == set(rows_of(known))


def test_bind_names_what_differs() -> None:
    one = table(counter("a", ""), counter("b", ""))
    with pytest.raises(TableError, match="field 'c' has no row"):
        bind(one, FakeNative({"a": ("counter", 0), "b": ("counter", 1), "c": ("counter", 2)}))
    with pytest.raises(TableError, match="row 'b' has no field"):
        bind(one, FakeNative({"a": ("counter", 0)}))
    with pytest.raises(TableError, match="'b' is a counter in the table and a rate in the accumulator"):
        bind(one, FakeNative({"a": ("counter", 0), "b": ("rate", 0)}))
    with pytest.raises(TableError, match=r"field 'D\.a' has no row"):
        bind(one, FakeNative({"a": ("counter", 0), "b": ("counter", 1), "D.a": ("counter", 0)}))
    assert bind(one, FakeNative({"a": ("counter", 4), "b": ("counter", 1)})) == {"a": 4, "b": 1}


@pytest.mark.parametrize("known", HANDLERS, ids=lambda known: known.title)
def test_native_binding(known: HandlerTable) -> None:
    """Every table agrees with its accumulator."""
    index = index_of(known)
    at = [(name.startswith("D."), rows_of(known)[name].kind, number) for name, number in index.items()]
    assert len(set(at)) == len(at), "two metrics share a slot"


# --- the tables against the specification ---


def spec_rows(start: str, end: str) -> dict[str, tuple[str, str, str, str]]:
    """path -> (Prometheus name, label, type, groups), from the specification between two headings."""
    text = SPEC.read_text()
    part = text[text.index(start) : text.index(end)]
    found = {}
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 4 or not re.fullmatch(r"`[a-zA-Z0-9_.]+`", cells[0]):
            continue
        name = re.match(r"\**`([a-z0-9_A-Z]+)`\**(?:, label `([a-z_0-9]+)`)?$", cells[1])
        if name:
            if cells[3] == "same":
                cells[3] = list(found.values())[-1][3]
            found[cells[0].strip("`")] = (name[1], name[2] or "", cells[2], cells[3])
    return found


@pytest.mark.parametrize(
    ("known", "start", "end", "expected"),
    [
        (NET1, "## 6.3 ", "## 6.4 ", 27),
        (NET2, "## 6.4 ", "## 6.5 ", 19),
        (DNS1, "## 7.10 ", "## 7.11 ", 44),
        (DNS2, "## 7.11 ", "## 7.12 ", 45),
        (lookup("dhcp"), "# 8. ", "# 9. ", 16),
        (lookup("bgp"), "# 9. ", "# 10. ", 11),
        (lookup("pcap"), "# 10. ", "# 11. ", 3),
    ],
    ids=lambda value: getattr(value, "title", ""),
)
def test_tables_equal_the_specification(known: HandlerTable, start: str, end: str, expected: int) -> None:
    if not SPEC.is_file():
        pytest.skip("shared data absent: no ../shared/spec")
    kinds = {"Counter": "counter", "Cardinality": "cardinality", "TopN": "topn", "Quantile": "quantile"}
    kinds |= {"Histogram": "histogram", "Rate": "rate"}
    listed = spec_rows(start, end)
    ours = {metric.path: metric for metric in (*known.metrics, *known.block_metrics)}
    assert len(ours) == len(known.metrics) + len(known.block_metrics)
    assert set(ours) == set(listed)
    assert len(listed) == expected
    for path, (name, label, kind, groups) in listed.items():
        assert (ours[path].prom, ours[path].label, ours[path].kind) == (
            name,
            label,
            kinds[kind.split()[0]],
        ), path
        if ours[path].kind in ("quantile", "histogram"):
            assert ours[path].is_float == ("float" in kind), path
        assert ("(geo)" in kind) == (ours[path].label == "geo_loc"), path
        # ecs_xacts: the group top_ecs gates its updates only
        needed = set(re.findall(r"\w+", groups)) & known.all_groups if path != "ecs_xacts" else {"counters"}
        assert set(ours[path].groups) == needed, path


def test_every_row_is_explained() -> None:
    for known in HANDLERS:
        for metric in rows_of(known).values():
            assert len(metric.help) > 4, metric.path
            assert "|" not in metric.help
        assert set(known.options) <= set(OPTIONS)


def test_prometheus_names_mean_one_thing() -> None:
    """A family has one type, whatever handlers run together."""
    kinds: dict[str, str] = {}
    for known in HANDLERS:
        for metric in rows_of(known).values():
            assert kinds.setdefault(metric.prom, metric.kind) == metric.kind


# --- documents of several windows ---


@pytest.mark.parametrize(
    ("tables", "keys"),
    [
        ([NET1, NET2, DNS1], ["packets", "net", "dns"]),
        ([DNS2], ["dns"]),
        ([DNS1, DNS2], ["dns", "dns_v2"]),
        ([DNS2, DNS1], ["dns_v2", "dns"]),
        ([DNS2, DNS1, DNS2, DNS1, DNS1], ["dns_v2", "dns", "dns_v2_2", "dns_2", "dns_3"]),
        ([DNS2, DNS2], ["dns", "dns_2"]),
        ([], []),
    ],
)
def test_document_keys(tables: list[HandlerTable], keys: list[str]) -> None:
    assert document_keys([fake_window(one) for one in tables]) == keys


def test_merged_recorded() -> None:
    parts = [
        fake_window(NET1, start_ts=1100, length=30, recorded=True, read_only=True),
        fake_window(NET1, start_ts=1000, length=61, recorded=True, read_only=True),
    ]
    block = FakeBlock(NET1, {"udp": 5})
    whole = merged(parts, [block])
    assert (whole.start_ts, whole.length, whole.recorded, whole.read_only) == (1000, 91, True, True)
    assert whole.blocks == [block]
    assert whole.config is parts[0].config


def test_merged_live() -> None:
    parts = [
        fake_window(NET1, start_ts=1100, length=30, live=True),
        fake_window(NET1, start_ts=1000, length=61, live=True, read_only=True),
    ]
    whole = merged(parts, [None])
    assert (whole.start_ts, whole.length, whole.recorded, whole.read_only) == (1000, 130, False, False)
    assert whole.shows_live
    closed = merged(parts[1:], [None])
    assert not closed.shows_live


def test_period_errors() -> None:
    """The literals of the agent's specification 3.4.1, and its case U-18."""

    def said(check: Any, *args: int) -> str:
        with pytest.raises(PeriodError) as error:
            check(*args)
        return str(error.value)

    assert said(check_bucket, 2, 1, 1) == "invalid metrics period, specify [0, 0]"
    assert said(check_bucket, 5, 5, 1) == "invalid metrics period, specify [0, 4]"
    assert said(check_bucket, -1, 5, 1) == "invalid metrics period, specify [0, 4]"
    assert said(check_bucket, 1, 5, 1) == (
        "requested metrics period has not yet accumulated, current range is [0, 0]"
    )
    assert said(check_window, 0, 1) == "invalid metrics period, specify [2, 1]"
    assert said(check_window, 1, 5) == said(check_window, 6, 5) == "invalid metrics period, specify [2, 5]"
    check_bucket(4, 5, 5)
    check_window(2, 5)
    check_window(5, 5)


def test_window_key() -> None:
    assert [window_key(periods) for periods in (1, 5, 10)] == ["1m", "5m", "10m"]


# --- the page ---


def test_page_is_current() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
    assert page.read_text() == "".join(f"{line}\n" for line in doc.page()), (
        "run: python -m netprobe.metrics.doc > docs/metrics.md"
    )


def test_page_as_program() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "netprobe.metrics.doc"], capture_output=True, text=True, check=True
    )
    assert made.stderr == ""
    assert "| `D.tcp.syn_packets` | `net_tcp_syn_packets` | counter | counters |" in made.stdout
    assert "| `rates.bytes_in` | `payload_rates_bytes_in` | rate | always |" in made.stdout


def test_no_heavy_imports() -> None:
    code = (
        "import sys, netprobe.handlers.config, netprobe.metrics.render_json\n"
        "heavy = {'numpy', 'datasketches', 'geoip2', 'requests', 'starlette', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout == "[]\n"

"""Prometheus text: upstream's lines (metrics spec 1.9), and the format as prometheus_client reads it."""

import re
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from render_fakes import fake_window, geo_key, u16

from netprobe.handlers.config import handler_config
from netprobe.handlers.registry import HANDLERS
from netprobe.metrics import keys
from netprobe.metrics.keys import Label
from netprobe.metrics.render_prometheus import label_text, number_text, render
from netprobe.metrics.table import (
    HandlerTable,
    Metric,
    cardinality,
    counter,
    histogram,
    quantile,
    rate,
    topn,
)

NET1, NET2, DNS1, DNS2 = HANDLERS[:4]
STATIC = {"instance": "test instance"}


def root(row: Metric, value: Any = None, **more: Any) -> list[str]:
    """The lines of metrics spec 1.9's metric."""
    table = HandlerTable(type="root", version="1.0", key="root", metrics=(row,), native="none:none")
    values = {} if value is None else {"test.metric": value}
    config = handler_config(table, config=more.pop("config", None))
    window = fake_window(table, values, config=config, labels={"policy": "default"}, **more)
    return render([window], static=STATIC).splitlines()


def sample(name: str, value: str, **labels: str) -> str:
    inside = {**labels, "policy": "default"}
    pairs = ['instance="test instance"', *(f'{key}="{inside[key]}"' for key in sorted(inside))]
    return f"{name}{{{','.join(pairs)}}} {value}"


def test_counter() -> None:
    for value in (1, 5):
        assert root(counter("test.metric", "how many"), value) == [
            "# HELP root_test_metric how many",
            "# TYPE root_test_metric gauge",
            f'root_test_metric{{instance="test instance",policy="default"}} {value}',
        ]


def test_cardinality() -> None:
    lines = root(cardinality("test.metric", "x"), {b"metric", bytes(16)})
    assert lines[1:] == ["# TYPE root_test_metric gauge", sample("root_test_metric", "2")]


def test_quantile() -> None:
    row = quantile("test.metric", "x")
    assert root(row) == []
    assert root(row, [12]) == [
        "# HELP root_test_metric x",
        "# TYPE root_test_metric summary",
        *(sample("root_test_metric", "12", quantile=rank) for rank in ("0.5", "0.9", "0.95", "0.99")),
        sample("root_test_metric_sum", "12"),
        sample("root_test_metric_count", "1"),
    ]
    # the order of labels, literally
    assert root(row, [12])[2] == (
        'root_test_metric{instance="test instance",policy="default",quantile="0.5"} 12'
    )
    # the sum is the sum, not the greatest value
    assert root(row, [1, 2, 3])[-2:] == [
        sample("root_test_metric_sum", "6"),
        sample("root_test_metric_count", "3"),
    ]


def test_quantile_float() -> None:
    lines = root(quantile("test.metric", "x", is_float=True), [1234567.0, 1234567.25])
    assert lines[2] == sample("root_test_metric", "1.23457e+06", quantile="0.5")
    assert lines[-2] == sample("root_test_metric_sum", "2469134.25")


def test_rate() -> None:
    row = rate("test.metric", "x")
    assert root(row) == []
    # no live value in this format
    assert root(row, live=True) == []
    assert root(row, [0, 3])[-2:] == [
        sample("root_test_metric_sum", "3"),
        sample("root_test_metric_count", "2"),
    ]


def test_histogram() -> None:
    row = histogram("test.metric", "x")
    assert root(row) == []
    lines = root(row, ([(1, 1), (8, 2), (12, 5)], 5))
    assert lines == [
        "# HELP root_test_metric x",
        "# TYPE root_test_metric histogram",
        'root_test_metric_bucket{instance="test instance",le="1",policy="default"} 1',
        sample("root_test_metric_bucket", "2", le="8"),
        sample("root_test_metric_bucket", "5", le="12"),
        sample("root_test_metric_bucket", "5", le="+Inf"),
        sample("root_test_metric_count", "5"),
    ]
    lines = root(
        histogram("test.metric", "x", is_float=True),
        ([(1.0, 1), (8.799225435, 2), (12.915496650, 5)], 5),
    )
    assert [re.findall('le="([^"]+)"', line) for line in lines[2:6]] == [
        ["1.000000"],
        ["8.799225"],
        ["12.915497"],
        ["+Inf"],
    ]


def test_topn() -> None:
    row = topn("test.metric", "string", keys.text, "x")
    assert root(row) == []
    seen = Counter([b"top1", b"top2", b"top1"])
    assert root(row, seen)[2:] == [
        sample("root_test_metric", "2", string="top1"),
        sample("root_test_metric", "1", string="top2"),
    ]
    assert root(row, seen, config={"topn_count": 1})[2:] == [sample("root_test_metric", "2", string="top1")]
    row = topn("test.metric", "integer", keys.number, "x")
    assert root(row, {u16(123): 2, u16(10): 1})[2:] == [
        'root_test_metric{instance="test instance",integer="123",policy="default"} 2',
        'root_test_metric{instance="test instance",integer="10",policy="default"} 1',
    ]


class Places:
    def city(self, key: bytes) -> Label:
        number = keys.number_of(key)
        return Label("EU/Sweden", "60.000000", "15.000000") if number == 1 else Label(f"EU/{number}")

    def asn(self, key: bytes) -> str:
        return str(keys.number_of(key))


def test_coordinates_stay_in_their_row() -> None:
    seen = {geo_key(1, bytes(16)): 2, geo_key(2, bytes(16)): 1}
    lines = render([fake_window(NET1, {"top_geoLoc": seen})], Places()).splitlines()
    assert [line for line in lines if line.startswith("packets_top_geoLoc")] == [
        'packets_top_geoLoc{geo_loc="EU/Sweden",lat="60.000000",lon="15.000000"} 2',
        'packets_top_geoLoc{geo_loc="EU/2"} 1',
    ]


def test_braces_without_labels() -> None:
    assert "packets_udp{} 7" in render([fake_window(NET1, {"udp": 7})]).splitlines()


@pytest.mark.parametrize(
    ("value", "is_float", "text"),
    [
        (3, False, "3"),
        (1e15, False, "1000000000000000"),
        (0.5, True, "0.5"),
        (2.0, True, "2"),
        (6.760869565217392, True, "6.76087"),
        (1234567.0, True, "1.23457e+06"),
        (0.00001, True, "1e-05"),
    ],
)
def test_numbers(value: float, is_float: bool, text: str) -> None:
    assert number_text(value, is_float) == text


def test_labels_are_escaped() -> None:
    assert label_text({"a": 'x"y\\z\n'}) == '{a="x\\"y\\\\z\\n"}'
    # a byte of the command line that is no UTF-8
    assert label_text({"a": "é\udcff"}) == '{a="é\\\\udcff"}'
    assert label_text({"b": "1", "a": "2"}, {"instance": "i"}) == '{instance="i",a="2",b="1"}'


def families(text: str) -> dict[str, Any]:
    """The text as prometheus_client reads it, and what it does not check: one family per name, no doubles."""
    found = {}
    seen: set[Any] = set()
    for family in text_string_to_metric_families(text):
        assert family.name not in found, "a family is torn apart"
        found[family.name] = family
        for one in family.samples:
            at = (one.name, frozenset(one.labels.items()))
            assert at not in seen, f"twice: {at}"
            seen.add(at)
    for kind in ("HELP", "TYPE"):
        headers = re.findall(rf"^# {kind} (\S+)", text, re.MULTILINE)
        assert len(headers) == len(set(headers)) == len(found)
    assert text.endswith("\n")
    return found


NASTY = b'a"b\\c\nd\xff\r\t{}=, #.test'


def busy(table: HandlerTable, block: bool = False) -> dict[str, Any]:
    """Something in every metric, with names that need care."""
    values: dict[str, Any] = {}
    for metric in table.block_metrics if block else table.metrics:
        match metric.kind:
            case "counter":
                values[metric.path] = 3
            case "cardinality":
                values[metric.path] = {1, 2}
            case "quantile" | "rate":
                values[metric.path] = [1, 2]
            case "histogram":
                values[metric.path] = ([(1, 1)], 2)
            case "topn" if metric.render is keys.text:
                values[metric.path] = {NASTY: 2, b"": 1}
            case "topn" if metric.label in ("rcode", "qtype", "port"):
                values[metric.path] = {u16(1): 2, u16(54): 1}
            case "topn" if metric.label in ("geo_loc", "asn"):
                values[metric.path] = {geo_key(1, bytes(16)): 2, geo_key(0, bytes(16)): 1}
            case "topn":
                values[metric.path] = {b"\x04" + bytes(16): 2, b"\x04" + b"\1" * 16: 1}
    return values


def all_windows() -> list[Any]:
    windows = []
    for table in HANDLERS:
        config = handler_config(table, metric_groups={"enable": ["all"]})
        blocks = (
            {name: busy(table, True) for name in ("in", "out", "unknown")} if table.block_metrics else None
        )
        windows.append(fake_window(table, busy(table), blocks, config=config, labels={"policy": "default"}))
    return windows


def test_everything_is_valid() -> None:
    found = families(render(all_windows(), Places(), STATIC))
    for table in HANDLERS:
        for metric in (*table.metrics, *table.block_metrics):
            family = found[metric.prom]
            kind = {"quantile": "summary", "rate": "summary", "histogram": "histogram"}.get(
                metric.kind, "gauge"
            )
            assert family.type == kind
            for one in family.samples:
                assert one.labels["policy"] == "default"
                assert one.labels["instance"] == "test instance"
    values = {one.labels["qname"] for one in found["dns_top_qname2"].samples}
    assert values == {keys.text(NASTY).name, ""}
    directions = {one.labels["direction"] for one in found["net_udp_packets"].samples}
    assert directions == {"in", "out", "unknown"}
    assert {one.labels.get("handler") for one in found["dns_cardinality_qname"].samples} == {None, "dns_v2"}


def test_help_texts_of_the_tables_survive() -> None:
    found = families(render(all_windows(), Places()))
    assert found["net_rates_bps"].documentation == "Bytes (not bits, whatever the name says) per second"


def test_two_handlers_of_a_kind_stay_apart() -> None:
    windows = [fake_window(DNS1, {"wire_packets.udp": number}) for number in (1, 2)]
    found = families(render(windows))["dns_wire_packets_udp"]
    assert {one.labels.get("handler"): one.value for one in found.samples} == {None: 1.0, "dns_2": 2.0}
    # policies name their handlers themselves
    windows = [window.with_labels(handler=f"p-{number}") for number, window in enumerate(windows)]
    found = families(render(windows))["dns_wire_packets_udp"]
    assert {one.labels["handler"]: one.value for one in found.samples} == {"p-0": 1.0, "p-1": 2.0}


def test_keys_of_one_text_are_one_sample() -> None:
    seen = {b"\xff.test": 2, b"\\xff.test": 1}
    found = families(render([fake_window(DNS1, {"top_qname2": seen})]))["dns_top_qname2"]
    assert [one.value for one in found.samples] == [3.0]


def test_no_group_no_output() -> None:
    config = handler_config(NET1, metric_groups={"disable": ["all"]})
    assert render([fake_window(NET1, {"events": 1}, config=config)]) == ""

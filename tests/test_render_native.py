"""Native metric blocks through the renderers: the values of metrics spec 1.4 to 1.9."""

import pickle
import sys
from typing import Any

import pytest

from netprobe._core.store import MetricBlock
from netprobe.handlers.config import handler_config
from netprobe.handlers.registry import lookup
from netprobe.metrics import keys
from netprobe.metrics.render_json import render_window
from netprobe.metrics.render_prometheus import render as render_text
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
from netprobe.metrics.window import HandlerWindow

SECOND = 1_000_000_000
KEY_U16, KEY_NAME = 2, 3


def window(row: Metric, block: MetricBlock, **config: Any) -> HandlerWindow:
    table = HandlerTable(type="root", version="1.0", key="root", metrics=(row,), native="none:none")
    return HandlerWindow(
        table,
        handler_config(table, window_config=config),
        [block],
        start_ts=0,
        length=6,
        labels={"policy": "default"},
        index={"test.metric": 0},
    )


def value(row: Metric, block: MetricBlock, **config: Any) -> Any:
    body = render_window(window(row, block, **config))
    assert body is not None
    return body.get("test", {}).get("metric")


def lines(row: Metric, block: MetricBlock, **config: Any) -> list[str]:
    text = render_text([window(row, block, **config)], static={"instance": "test instance"})
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_counter() -> None:
    block = MetricBlock(counters=1)
    row = counter("test.metric", "")
    block.add_counter(0)
    assert value(row, block) == 1
    assert lines(row, block) == ['root_test_metric{instance="test instance",policy="default"} 1']
    block.add_counter(0, 4)
    assert value(row, block) == 5


def test_cardinality() -> None:
    block = MetricBlock(cards=1)
    row = cardinality("test.metric", "")
    assert value(row, block) == 0
    block.add_cardinality(0, b"metric")
    assert value(row, block) == 1
    block.add_cardinality(0, bytes(range(16)))
    assert value(row, block) == 2


@pytest.mark.parametrize("dense", [False, True])
def test_quantile(dense: bool) -> None:
    row = quantile("test.metric", "")
    block = MetricBlock(quants=(dense,))
    assert value(row, block) is None
    assert lines(row, block) == []
    block.add_quantile(0, 12)
    assert value(row, block) == {"p50": 12, "p90": 12, "p95": 12, "p99": 12}
    start = 'root_test_metric{instance="test instance",policy="default",quantile='
    tail = '{instance="test instance",policy="default"}'
    assert lines(row, block) == [
        *(f'{start}"{rank}"}} 12' for rank in ("0.5", "0.9", "0.95", "0.99")),
        f"root_test_metric_sum{tail} 12",
        f"root_test_metric_count{tail} 1",
    ]
    block = MetricBlock(quants=(dense,))
    for number in range(1, 11):
        block.add_quantile(0, number)
    assert value(row, block) == {"p50": 5, "p90": 9, "p95": 10, "p99": 10}
    assert lines(row, block)[-2].endswith(" 55")


def test_histogram() -> None:
    row = histogram("test.metric", "")
    block = MetricBlock(hists=(False,))
    assert value(row, block) is None
    for number in (12, 12, 12, 8):
        block.add_histogram(0, number)
    assert value(row, block) == {"buckets": {"8": 1.0, "12": 4.0, "+Inf": 4.0}}
    block = MetricBlock(hists=(False,))
    for number in (12, 12, 1, 8, 12):
        block.add_histogram(0, number)
    name = 'root_test_metric_bucket{instance="test instance",le='
    assert lines(row, block) == [
        f'{name}"1",policy="default"}} 1',
        f'{name}"8",policy="default"}} 2',
        f'{name}"12",policy="default"}} 5',
        f'{name}"+Inf",policy="default"}} 5',
        'root_test_metric_count{instance="test instance",policy="default"} 5',
    ]
    block = MetricBlock(hists=(False,))
    for number in (0, 1, 9, 13, 1000000, 1234567):
        block.add_histogram(0, number)
    assert value(row, block)["buckets"] == {
        "0": 1.0, "1": 2.0, "10": 3.0, "14": 4.0, "1000000": 5.0, "1291549": 6.0, "+Inf": 6.0
    }  # fmt: skip


def test_histogram_above_the_last_boundary() -> None:
    row = histogram("test.metric", "")
    block = MetricBlock(hists=(False,))
    block.add_histogram(0, 5)
    block.add_histogram(0, 9e18)
    assert value(row, block)["buckets"] == {"5": 1.0, "+Inf": 2.0}


def test_histogram_float() -> None:
    row = histogram("test.metric", "", is_float=True)
    block = MetricBlock(hists=(True,))
    for number in (12.0, 12.0, 12.0, 8.0):
        block.add_histogram(0, number)
    assert value(row, block)["buckets"] == {"8.799225": 1.0, "12.915497": 4.0, "+Inf": 4.0}
    block = MetricBlock(hists=(True,))
    for number in (12, 12.0001, 1, 8, 12):
        block.add_histogram(0, number)
    assert [line.split('le="')[1].split('"')[0] for line in lines(row, block)[:-1]] == [
        "1.000000", "8.799225", "12.915497", "+Inf"
    ]  # fmt: skip
    assert [line.rsplit(" ", 1)[1] for line in lines(row, block)] == ["1", "2", "5", "5", "5"]


def test_topn() -> None:
    row = topn("test.metric", "string", keys.text, "")
    block = MetricBlock(topns=(KEY_NAME,))
    assert value(row, block) == []
    for name in (b"top1", b"top2", b"top1"):
        block.add_topn(0, name)
    best, second = {"name": "top1", "estimate": 2}, {"name": "top2", "estimate": 1}
    assert value(row, block) == [best, second]
    assert value(row, block, topn_count=1) == [best]
    assert value(row, block, topn_count=0) == []
    row = topn("test.metric", "integer", keys.number, "")
    block = MetricBlock(topns=(KEY_U16,))
    for number in (123, 10, 123):
        block.add_topn(0, number.to_bytes(4, sys.byteorder))
    assert [(one["name"], one["estimate"]) for one in value(row, block)] == [("123", 2), ("10", 1)]
    assert lines(row, block)[0] == (
        'root_test_metric{instance="test instance",integer="123",policy="default"} 2'
    )


def test_topn_threshold() -> None:
    block = MetricBlock(topns=(KEY_NAME,))
    for name, weight in ((b"a", 8), (b"b", 6), (b"c", 4), (b"d", 4), (b"e", 2)):
        block.add_topn(0, name, weight)
    row = topn("test.metric", "string", keys.text, "")
    found = value(row, block, topn_percentile_threshold=80)
    assert [one["estimate"] for one in found] == [8, 6]


def test_rate() -> None:
    row = rate("test.metric", "")
    block = MetricBlock(rates=1)
    assert value(row, block) is None
    # packets at 0.1 s, 0.2 s and 2.5 s of a bucket of 4.9 s: the last, partial second is no sample
    for stamp in (0.1, 0.2, 2.5, 4.8):
        block.add_rate(0, int(stamp * SECOND))
    block.close(int(4.9 * SECOND))
    # 2, 0, 1, 0
    assert value(row, block) == {"p50": 0, "p90": 2, "p95": 2, "p99": 2}
    assert [line.rsplit(" ", 1)[1] for line in lines(row, block)[-2:]] == ["3", "4"]


def test_windows_travel() -> None:
    """A window survives pickling: workers on other machines send theirs."""
    table = lookup("dns")
    block = MetricBlock(
        counters=32, cards=2, topns=(KEY_NAME,) * 16, quants=(False,) * 4, hists=(False,) * 2, rates=8
    )
    block.add_counter(0, 7)
    sent = HandlerWindow(table, handler_config(table), [block], start_ts=5, length=6)
    came = pickle.loads(pickle.dumps(sent))
    assert came.config == sent.config
    assert render_window(came) == render_window(sent)
    assert render_window(came) != render_window(HandlerWindow(table, handler_config(table), [], 5, 6))

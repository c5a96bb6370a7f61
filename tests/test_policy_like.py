"""`merge_like_handlers`: counters and sketches merged, quantiles and rates added (agent spec 3.4.2)."""

from __future__ import annotations

from typing import Any

import policy_fakes
import pytest

from netprobe.handlers.config import HandlerConfig, handler_config
from netprobe.handlers.registry import lookup
from netprobe.metrics import render_json, render_prometheus
from netprobe.metrics.like import SummedBlock, merge_like
from netprobe.metrics.window import HandlerWindow, index_of

NS = 1_000_000_000
T0 = 1_600_000_000
NET = lookup("net")
DNS = lookup("dns")
# ranks 0.5, 0.9, 0.95, 0.99 of values that are all there (inclusive rule)
RANKS = (0.5, 0.9, 0.95, 0.99)


def block(config: HandlerConfig, start: int = T0) -> Any:
    found = policy_fakes.empty_block(config, start * NS)
    assert found is not None
    return found


def window(
    config: HandlerConfig, blocks: Any, start: int = T0, length: int = 60, **more: Any
) -> HandlerWindow:
    labels = {"handler": "p-t-m", "policy": "p", "tap": "t"}
    return HandlerWindow(config.table, config, blocks, start, length, labels=labels, **more)


def at(path: str, table: Any = NET) -> int:
    return index_of(table)[path]


@pytest.fixture
def pair() -> tuple[Any, Any]:
    """Two taps of one network, one minute."""
    config = handler_config(NET)
    one, two = block(config), block(config)
    for number, (part, count) in enumerate(((one, 5), (two, 7))):
        part.add_counter(at("events"), count)
        for item in range(4):
            # of four addresses each tap has seen, two are the same
            part.add_cardinality(at("cardinality.src_ips_in"), bytes([item + 2 * number]))
        part.add_topn(at("top_ipv4"), bytes([10, 0, 0, 1]), 3)
        part.add_topn(at("top_ipv4"), bytes([10, 0, 0, 2 + number]), 9)
        for value in range(1, 101):
            part.add_quantile(at("payload_size"), value * (10 if number else 1))
        for second in range(10):
            part.add_rate(at("rates.pps_total"), (T0 + second) * NS, 100 if number else 40)
        part.close((T0 + 10) * NS)
    return one, two


def test_blocks(pair: tuple[Any, Any]) -> None:
    whole = SummedBlock(pair)
    assert whole.counter(at("events")) == 12
    assert whole.cardinality(at("cardinality.src_ips_in")) == 6
    rows = {bytes(key)[-4:]: count for key, count in whole.topn(at("top_ipv4"))}
    assert rows == {b"\x0a\0\0\1": 6, b"\x0a\0\0\2": 9, b"\x0a\0\0\3": 9}
    assert list(whole.quantiles(at("payload_size"), RANKS) or ()) == [550, 990, 1045, 1089]
    assert whole.quantile_count(at("payload_size")) == 200
    assert whole.quantile_sum(at("payload_size")) == 5050 * 11
    # 140 packets each second, in ten seconds 1400
    assert whole.rate(at("rates.pps_total"), RANKS) == ([140, 140, 140, 140], 10, 1400)
    # nothing was seen
    assert whole.rate(at("rates.pps_in"), RANKS) in (None, ([0, 0, 0, 0], 10, 0))
    # the parts are as before
    assert pair[0].counter(at("events")) == 5
    assert pair[1].cardinality(at("cardinality.src_ips_in")) == 4


def test_one_side_without_values() -> None:
    config = handler_config(NET)
    one, two = block(config), block(config)
    one.add_quantile(at("payload_size"), 7)
    for whole in (SummedBlock([one, two]), SummedBlock([two, one])):
        assert list(whole.quantiles(at("payload_size"), RANKS) or ()) == [7, 7, 7, 7]
    assert SummedBlock([two, two]).quantiles(at("payload_size"), RANKS) is None


def test_two_times_of_the_same_handlers(pair: tuple[Any, Any]) -> None:
    """As `Summary.merge` does it: within a part time goes on, between parts it is the same."""
    first = SummedBlock(pair)
    both = first.clone()
    both.merge(first, same_span=False)
    assert both.counter(at("events")) == 24
    assert both.cardinality(at("cardinality.src_ips_in")) == 6
    assert list(both.quantiles(at("payload_size"), RANKS) or ()) == [550, 990, 1045, 1089]
    assert both.rate(at("rates.pps_total"), RANKS) == ([140, 140, 140, 140], 20, 2800)
    assert first.counter(at("events")) == 12
    for other in (SummedBlock(pair[:1]), pair[0]):
        with pytest.raises(ValueError, match="other handlers"):
            both.merge(other, same_span=False)


def test_windows(pair: tuple[Any, Any]) -> None:
    """One per type and version, in the order of their first members; the time that all of them cover."""
    net, dns = handler_config(NET), handler_config(DNS)
    dns2 = handler_config(lookup("dns", "2.0"))
    found = merge_like(
        [
            window(dns, [block(dns)], T0, 60),
            window(net, [pair[0]], T0 - 5, 30, read_only=True),
            window(net, [pair[1]], T0, 60, live=True),
            window(dns2, [block(dns2)]),
            window(dns, [block(dns)], T0 + 1, 70, read_only=True),
        ]
    )
    assert [one.labels for one in found] == [
        {"handler": name, "policy": "p"} for name in ("dns_merged", "packets_merged", "dns_v2_merged")
    ]
    assert [(one.start_ts, one.length, one.read_only) for one in found] == [
        (T0, 71, False),
        (T0 - 5, 65, False),
        (T0, 60, False),
    ]
    body = render_json.render_window(found[1])
    assert body is not None
    assert body["events"] == 12
    assert body["payload_size"] == {"p50": 550, "p90": 990, "p95": 1045, "p99": 1089}
    assert body["period"] == {"length": 65, "start_ts": T0 - 5}
    text = render_prometheus.render(found)
    assert 'packets_events{handler="packets_merged",policy="p"} 12' in text
    assert 'packets_payload_size{handler="packets_merged",policy="p",quantile="0.5"} 550' in text
    assert 'packets_payload_size_count{handler="packets_merged",policy="p"} 200' in text
    assert "tap=" not in text


def test_members_without_groups_are_left_out(pair: tuple[Any, Any]) -> None:
    """A gate of a chain writes nothing, and counts for nothing."""
    net = handler_config(NET)
    gate = handler_config(NET, metric_groups={"disable": ["all"]})
    (whole,) = merge_like([window(gate, [pair[0]]), window(net, [pair[1]])])
    assert whole.blocks[0] is not None
    assert whole.blocks[0].counter(at("events")) == 7
    assert merge_like([window(gate, [pair[0]])]) == []


def test_groups_of_any_member_are_shown(pair: tuple[Any, Any]) -> None:
    less = handler_config(NET, metric_groups={"disable": ["all"], "enable": ["counters"]})
    more = handler_config(NET, metric_groups={"disable": ["all"], "enable": ["top_ips"]})
    (whole,) = merge_like([window(less, [pair[0]]), window(more, [pair[1]])])
    assert whole.config.groups == {"counters", "top_ips"}


def test_handlers_without_groups() -> None:
    pcap = handler_config(lookup("pcap"))
    one, two = block(pcap), block(pcap)
    for part in (one, two):
        part.add_counter(at("os_drops", lookup("pcap")), 4)
    (whole,) = merge_like([window(pcap, [one]), window(pcap, [two])])
    assert render_json.render([whole])["pcap"]["os_drops"] == 8


def test_sets_that_nobody_has_fed_yet(pair: tuple[Any, Any]) -> None:
    net = handler_config(NET)
    (whole,) = merge_like([window(net, []), window(net, [pair[0]])])
    assert whole.blocks == [pair[0]]
    (empty,) = merge_like([window(net, []), window(net, [])])
    assert empty.blocks == []


def test_direction_blocks_that_are_absent(pair: tuple[Any, Any]) -> None:
    net = handler_config(NET)
    (whole,) = merge_like([window(net, [pair[0], None]), window(net, [pair[1], pair[1]])])
    assert whole.blocks[1] is pair[1]

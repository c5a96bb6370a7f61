"""JSON documents: the shapes of metrics spec 1, 2.3, 15.1 and agent spec 8.2."""

import json
from collections import Counter
from typing import Any

import pytest
from render_fakes import fake_window, geo_key, u16

from netprobe.handlers.config import handler_config
from netprobe.handlers.registry import HANDLERS
from netprobe.metrics import keys
from netprobe.metrics.keys import GeoNames, Label
from netprobe.metrics.render_json import dumps, render, render_window
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
DHCP, BGP, PCAP = HANDLERS[4:7]


def root(row: Metric) -> HandlerTable:
    """The table of metrics spec 1.9: one metric, test.metric under root."""
    return HandlerTable(type="root", version="1.0", key="root", metrics=(row,), native="none:none")


def one(row: Metric, value: Any = None, config: dict[str, Any] | None = None, **more: Any) -> Any:
    """What a single metric looks like; None: it is left out."""
    table = root(row)
    values = {} if value is None else {"test.metric": value}
    body = render_window(fake_window(table, values, config=handler_config(table, config=config), **more))
    assert body is not None
    assert body.pop("period") == {"start_ts": 1000, "length": 60}
    return body["test"]["metric"] if body else None


class Places:
    """A geo database whose records are their offsets."""

    def city(self, key: bytes) -> Label:
        number = keys.number_of(key)
        # records 1 and 2 are two records of one city, as real databases have them
        return Label("EU/Sweden", "60.000000", "15.000000") if number < 3 else Label(f"EU/{number}")

    def asn(self, key: bytes) -> str:
        return "1221/Telstra Pty Ltd" if keys.number_of(key) < 3 else str(keys.number_of(key))


# --- kinds (metrics spec 1.2 to 1.9) ---


def test_counter() -> None:
    assert one(counter("test.metric", "")) == 0
    assert one(counter("test.metric", ""), 1) == 1
    assert one(counter("test.metric", ""), (1 << 64) - 1) == 18446744073709551615


def test_cardinality() -> None:
    assert one(cardinality("test.metric", ""), {b"metric"}) == 1


def test_quantile() -> None:
    row = quantile("test.metric", "")
    assert one(row) is None
    found = one(row, [12])
    assert found == {"p50": 12, "p90": 12, "p95": 12, "p99": 12}
    assert all(type(value) is int for value in found.values())
    assert one(row, list(range(1, 11))) == {"p50": 5, "p90": 9, "p95": 10, "p99": 10}
    found = one(quantile("test.metric", "", is_float=True), [1.5, 2])
    assert dumps(found) == '{"p50":1.5,"p90":2.0,"p95":2.0,"p99":2.0}\n'


def test_histogram() -> None:
    row = histogram("test.metric", "")
    assert one(row) is None
    assert dumps(one(row, ([(8, 1), (12, 4)], 4))) == '{"buckets":{"+Inf":4.0,"12":4.0,"8":1.0}}\n'
    row = histogram("test.metric", "", is_float=True)
    found = one(row, ([(8.799225435, 1), (12.915496650, 4)], 4))
    assert found == {"buckets": {"8.799225": 1.0, "12.915497": 4.0, "+Inf": 4.0}}


def test_rate() -> None:
    row = rate("test.metric", "")
    assert one(row) is None
    assert one(row, [0, 3]) == {"p50": 0, "p90": 3, "p95": 3, "p99": 3}
    # nothing seen, live requested
    assert one(row, live=True) == {"live": 0}
    assert one(row, live=True, read_only=True) is None
    assert one(row, live=True, recorded=True) is None
    assert one(rate("test.metric", "", live=False), live=True) is None


def test_topn() -> None:
    row = topn("test.metric", "string", keys.text, "")
    assert one(row) == []
    seen = Counter({b"top1": 2, b"top2": 1})
    assert one(row, seen) == [{"name": "top1", "estimate": 2}, {"name": "top2", "estimate": 1}]
    assert one(row, seen, {"topn_count": 1}) == [{"name": "top1", "estimate": 2}]
    row = topn("test.metric", "integer", keys.number, "")
    assert one(row, {u16(123): 2, u16(10): 1}) == [
        {"name": "123", "estimate": 2},
        {"name": "10", "estimate": 1},
    ]


def test_topn_threshold() -> None:
    """Metrics spec 1.4: at 80 percent 8, 6, 4, 4, 2 leave 8 and 6."""
    row = topn("test.metric", "string", keys.text, "")
    seen = {b"a": 8, b"b": 6, b"c": 4, b"d": 4, b"e": 2}
    found = one(row, seen, {"topn_percentile_threshold": 80})
    assert [item["estimate"] for item in found] == [8, 6]


@pytest.mark.parametrize(
    ("render_key", "key", "text"),
    [
        (keys.ipv4, bytes([198, 51, 44, 1]), "198.51.44.1"),
        (keys.ipv6, bytes(15) + b"\1", "::1"),
        (keys.ipv6, bytes.fromhex("20010db800000000000000000000ABCD"), "2001:db8::abcd"),
        (keys.number, u16(53), "53"),
        (keys.text, b"example.com", "example.com"),
        (keys.text, b"", ""),
        (keys.text, "höhle.test".encode(), "höhle.test"),
        (keys.text, b"\xff\x00\xc3(.test", "\\xff\x00\\xc3(.test"),
        (keys.text, b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        (keys.subnet, bytes([4, 192, 0, 2, 0]) + bytes(12), "192.0.2.0"),
        (keys.subnet, b"\x06" + bytes.fromhex("20010db800123400") + bytes(8), "2001:db8:12:3400::"),
    ],
)
def test_key_text(render_key: Any, key: bytes, text: str) -> None:
    assert render_key(key, None) == Label(text, None, None)


def test_dns_codes() -> None:
    window = fake_window(
        DNS1,
        {"top_rcode": {u16(3): 2, u16(12): 1}, "top_qtype": {u16(28): 4, u16(65): 3, u16(54): 2}},
    )
    body = render_window(window)
    assert body is not None
    assert body["top_rcode"] == [{"name": "NXDOMAIN", "estimate": 2}, {"name": "12", "estimate": 1}]
    assert [row["name"] for row in body["top_qtype"]] == ["AAAA", "HTTPS", "54"]


def test_geo() -> None:
    places: GeoNames = Places()
    seen = {
        geo_key(0, bytes([10, 0, 0, 1])): 4,
        geo_key(1, bytes([89, 160, 20, 112])): 3,
        geo_key(2, bytes([89, 160, 20, 113])): 2,
        geo_key(7, bytes(16)): 1,
    }
    body = render_window(fake_window(NET1, {"top_geoLoc": seen, "top_ASN": seen}), places)
    assert body is not None
    # two records of one place are one row, and it is the best one
    assert body["top_geoLoc"] == [
        {"name": "EU/Sweden", "estimate": 5, "lat": "60.000000", "lon": "15.000000"},
        {"name": "Unknown", "estimate": 4},
        {"name": "EU/7", "estimate": 1},
    ]
    assert body["top_ASN"] == [
        {"name": "1221/Telstra Pty Ltd", "estimate": 5},
        {"name": "Unknown", "estimate": 4},
        {"name": "7", "estimate": 1},
    ]
    # joined rows come in order: the two smallest records make the greatest row
    late = {geo_key(7, bytes(16)): 5, geo_key(1, bytes(16)): 4, geo_key(2, bytes(16)): 3}
    body = render_window(fake_window(NET1, {"top_geoLoc": late}), places)
    assert body is not None
    assert [(row["name"], row["estimate"]) for row in body["top_geoLoc"]] == [("EU/Sweden", 7), ("EU/7", 5)]
    # and it is joined before the rows are cut
    config = handler_config(NET1, config={"topn_count": 1})
    body = render_window(fake_window(NET1, {"top_geoLoc": seen}, config=config), places)
    assert body is not None
    assert [row["name"] for row in body["top_geoLoc"]] == ["EU/Sweden"]


# --- groups, blocks, periods ---


def test_groups_gate() -> None:
    config = handler_config(DNS1, metric_groups={"disable": ["all"], "enable": ["histograms"]})
    values = {"xact.in.histogram_us": ([(8, 1)], 1), "xact.in.total": 3}
    body = render_window(fake_window(DNS1, values, config=config))
    assert body is not None
    # histograms need dns_transaction as well; these are written always
    assert set(body) == {"period", "wire_packets", "top_rcode", "top_qtype"}
    assert set(body["wire_packets"]) == {"events", "deep_samples"}
    config = handler_config(
        DNS1, metric_groups={"disable": ["all"], "enable": ["histograms", "dns_transaction"]}
    )
    body = render_window(fake_window(DNS1, values, config=config))
    assert body is not None
    assert body["xact"]["in"] == {
        "histogram_us": {"buckets": {"8": 1.0, "+Inf": 1.0}},
        "top_slow": [],
        "total": 3,
    }


def test_no_group_no_output() -> None:
    config = handler_config(NET1, metric_groups={"disable": ["all"]})
    window = fake_window(NET1, {"events": 5}, config=config)
    assert render_window(window) is None
    assert set(render([window, fake_window(DHCP)])) == {"dhcp"}


def test_blocks() -> None:
    body = render_window(fake_window(NET2, {"observed_packets": 3}, {"out": {"tcp.syn_packets": 2}}))
    assert body is not None
    assert set(body) == {"period", "observed_packets", "deep_sampled_packets", "filtered_packets", "out"}
    assert body["out"]["tcp"] == {"syn_packets": 2}
    window = fake_window(NET2, {}, {"in": {"udp_packets": 1}})
    window.blocks[1].used = False  # type: ignore[index, union-attr]
    body = render_window(window)
    assert body is not None
    assert "in" not in body


def test_dns2_rate_is_never_live() -> None:
    body = render_window(fake_window(DNS2, {}, {"in": {}}, live=True))
    assert body is not None
    assert body["rates"] == {"observed_pps": {"live": 0}}
    assert "xact_rates" not in body["in"]


def test_two_versions_in_one_document() -> None:
    document = render(
        [fake_window(DNS1, {"wire_packets.udp": 1}), fake_window(DNS2, {"observed_packets": 2})]
    )
    assert document["dns"]["wire_packets"]["udp"] == 1
    assert document["dns_v2"]["observed_packets"] == 2


def test_text() -> None:
    text = dumps({"b": 1, "a": {"ü": "\u2028", "Z": 1.5}})
    assert text == '{"a":{"Z":1.5,"ü":"\u2028"},"b":1}\n'
    text = dumps({"name": keys.text(b'\xed\xa0\x80\x00"\\\n').name})
    assert json.loads(text.encode("utf-8")) == {"name": '\\xed\\xa0\\x80\x00"\\\n'}
    assert text.count("\n") == 1


# --- whole documents against the published schemas ---


def filled(table: HandlerTable, rates: bool = True) -> dict[str, Any]:
    """Something in every metric of the top level."""
    values: dict[str, Any] = {}
    for metric in table.metrics:
        match metric.kind:
            case "counter":
                values[metric.path] = 1
            case "cardinality":
                values[metric.path] = {1, 2}
            case "quantile":
                values[metric.path] = [1, 2]
            case "histogram":
                values[metric.path] = ([(1, 1)], 1)
            case "rate" if rates:
                values[metric.path] = [1]
    return values


def leaves(body: dict[str, Any], stop: tuple[str, ...] = ("p50", "buckets")) -> set[str]:
    """Paths of all values; quantiles and histograms count as one."""
    found = set()
    for name, value in body.items():
        if isinstance(value, dict) and not any(key in value for key in stop):
            found |= {f"{name}.{rest}" for rest in leaves(value, stop)}
        else:
            found.add(name)
    return found


# metrics spec 15.1
NET_SCHEMA = (
    "cardinality.dst_ips_out cardinality.src_ips_in deep_samples events in ipv4 ipv6 other_l4 out filtered "
    "period.length period.start_ts payload_size tcp protocol.tcp.syn top_ASN top_geoLoc top_ipv4 top_ipv6 "
    "total udp unknown_dir"
)
DNS_SCHEMA = (
    "cardinality.qname period.length period.start_ts top_asn_ecs top_geoLoc_ecs top_query_ecs top_nodata "
    "top_noerror top_nxdomain top_qname2 top_qname3 top_qtype top_rcode top_refused "
    "top_qname_by_resp_bytes top_srvfail top_udp_ports wire_packets.deep_samples wire_packets.events "
    "wire_packets.ipv4 wire_packets.ipv6 wire_packets.nodata wire_packets.noerror wire_packets.nxdomain "
    "wire_packets.queries wire_packets.refused wire_packets.replies wire_packets.srvfail wire_packets.tcp "
    "wire_packets.total wire_packets.udp wire_packets.query_ecs wire_packets.filtered "
    "xact.counts.timed_out xact.counts.total xact.in.top_slow xact.in.total xact.out.quantiles_us "
    "xact.out.top_slow xact.out.total xact.ratio.quantiles"
)


def test_strict_net_schema() -> None:
    body = render_window(
        fake_window(NET1, filled(NET1, rates=False), recorded=True, read_only=True, live=True)
    )
    assert body is not None
    assert leaves(body) == set(NET_SCHEMA.split())


def test_strict_dns_schema() -> None:
    groups = {"enable": ["top_ecs", "top_ports", "top_qnames_details"]}
    values = filled(DNS1, rates=False)
    # the schema's capture has no transaction with the host as server
    del values["xact.in.quantiles_us"]
    body = render_window(fake_window(DNS1, values, config=handler_config(DNS1, metric_groups=groups)))
    assert body is not None
    assert leaves(body) == set(DNS_SCHEMA.split())
    assert set(body["xact"]["ratio"]["quantiles"]) == {"p50", "p90", "p95", "p99"}


@pytest.mark.parametrize(
    ("table", "required"),
    [
        (DHCP, "wire_packets.ack wire_packets.deep_samples wire_packets.discover wire_packets.offer "
               "wire_packets.request wire_packets.total wire_packets.filtered rates.total"),
        (BGP, "wire_packets.deep_samples wire_packets.events wire_packets.filtered wire_packets.keepalive "
              "wire_packets.notification wire_packets.update wire_packets.open wire_packets.routerefresh "
              "wire_packets.total"),
        (PCAP, "if_drops os_drops tcp_reassembly_errors"),
        # agent spec 8.2
        (NET1, "rates.bytes_in rates.bytes_out rates.pps_in rates.pps_out rates.pps_total payload_size"),
        (DNS1, "rates.total xact.in.quantiles_us xact.out.quantiles_us xact.counts.total"),
    ],
    ids=lambda value: getattr(value, "title", ""),
)  # fmt: skip
def test_required_keys(table: HandlerTable, required: str) -> None:
    body = render_window(fake_window(table, filled(table)))
    assert body is not None
    assert set(required.split()) | {"period.start_ts", "period.length"} <= leaves(body)


def test_types_of_the_behave_schema() -> None:
    """Agent spec 8.2: counters are integers, rates and sizes have integer percentiles, ratios have floats."""
    for table in (NET1, DNS1, DHCP, PCAP):
        body = render_window(fake_window(table, filled(table)))
        assert body is not None
        for metric in table.metrics:
            if not set(metric.groups) <= table.default_groups:
                continue
            value: Any = body
            for part in metric.path.split("."):
                value = value[part]
            if metric.kind in ("counter", "cardinality"):
                assert type(value) is int
            elif metric.kind in ("quantile", "rate"):
                number = float if metric.path == "xact.ratio.quantiles" else int
                assert {key: type(number_) for key, number_ in value.items()} == dict.fromkeys(
                    ("p50", "p90", "p95", "p99"), number
                )
            elif metric.kind == "topn":
                assert value == []

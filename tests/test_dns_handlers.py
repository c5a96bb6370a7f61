"""The dns accumulators, message by message: what each rule of metrics spec 7 counts."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rrset
import mmdb_writer
import pytest

from netprobe._core.acc_dns_v1 import DnsV1
from netprobe._core.acc_dns_v2 import DnsV2
from netprobe._core.dns_probe import Driver
from netprobe.geo import GeoCity
from netprobe.handlers.dns_names import qtype_name, qtype_number, rcode_name, rcode_number
from netprobe.handlers.dns_v1 import DNS_V1
from netprobe.handlers.dns_v2 import DNS_V2
from netprobe.metrics.table import bind

IN, OUT, UNKNOWN = 0, 1, 2
UDP, TCP, DOT, DOH, DNSCRYPT_UDP, DNSCRYPT_TCP, DOQ = range(7)
MS = 1_000_000
TABLES = {DnsV1: DNS_V1, DnsV2: DNS_V2}


def build(
    cls: Any, groups: Iterable[str] | None = None, geo: Any = None, chained: bool = False, **options: Any
) -> Any:
    config = SimpleNamespace(
        groups=frozenset(TABLES[cls].all_groups if groups is None else groups), options=options
    )
    return cls(config, geo, None, chained)


def run(cls: Any, messages: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    driver = Driver(build(cls, **settings))
    driver.feed(messages)
    return driver.values()


def query(
    name: str = "www.example.com", kind: str = "A", ecs: str = "", flags: int = 0, **fields: Any
) -> dict[str, Any]:
    message = dns.message.make_query(name, kind, id=fields.pop("id", 7))
    message.flags |= flags
    if ecs:
        address, bits = ecs.split("/")
        message.use_edns(0, options=[dns.edns.ECSOption(address, int(bits))])
    return {"data": message.to_wire(), "direction": UNKNOWN} | fields


def message_name(name: str) -> str:
    return name if name.endswith(".") else name + "."


def reply(
    name: str = "www.example.com",
    kind: str = "A",
    rcode: int = 0,
    answers: int = 1,
    flags: int = 0,
    **fields: Any,
) -> dict[str, Any]:
    rrsig = fields.pop("rrsig", False)
    owner = message_name(name)
    message = dns.message.make_response(dns.message.make_query(name, kind, id=fields.pop("id", 7)))
    message.set_rcode(rcode)
    message.flags |= flags
    if answers:
        message.answer.append(
            dns.rrset.from_text(owner, 60, "IN", "A", *(f"192.0.2.{i}" for i in range(answers)))
        )
    if rrsig:
        data = "A 8 3 60 20300101000000 20200101000000 1 example.com. AAAA"
        message.answer.append(dns.rrset.from_text(owner, 60, "IN", "RRSIG", data))
    return {"data": message.to_wire(), "direction": UNKNOWN} | fields


def number(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def shown(values: dict[str, Any], block: str = "") -> dict[str, Any]:
    """Counters other than zero, tables other than empty; of one block."""
    return {
        path.removeprefix(block): value
        for path, value in values.items()
        if path.startswith(block) and value and not isinstance(value, tuple)
    }


@pytest.mark.parametrize("cls", [DnsV1, DnsV2])
def test_fields_fit_the_tables(cls):
    bind(TABLES[cls], cls)


# --- 1.0 --------------------------------------------------------------------------------


def test_v1_counts_messages():
    messages = [
        query(),
        reply(rcode=0),
        reply(rcode=0, answers=0),
        reply(rcode=2, tcp=TCP),
        reply(rcode=3, l3=6),
        reply(rcode=5, deep=False),
        reply(rcode=4),
    ]
    values = run(DnsV1, messages)
    counted = {p.removeprefix("wire_packets."): v for p, v in values.items() if p.startswith("wire_packets.")}
    assert counted == {
        "events": 7,
        "deep_samples": 6,
        "total": 7,
        "filtered": 0,
        "queries": 1,
        "replies": 6,
        "udp": 6,
        "tcp": 1,
        "ipv4": 6,
        "ipv6": 1,
        "noerror": 2,
        "nodata": 1,
        "nxdomain": 1,
        "refused": 1,
        "srvfail": 1,
        "query_ecs": 0,
    }
    assert values["top_rcode"] == {number(0): 2, number(2): 1, number(3): 1, number(4): 1}
    assert values["top_qtype"] == {number(1): 6}
    name = b"www.example.com"
    for table in ("nxdomain", "srvfail", "nodata"):
        assert values[f"top_{table}"] == {name: 1}
    assert values["top_noerror"] == {name: 2}
    assert values["top_refused"] == {}  # not a deep sample
    assert values["top_qname_by_resp_bytes"] == {name: sum(len(messages[i]["data"]) for i in (1, 2, 3, 4, 6))}
    assert values["top_qname2"] == {b".example.com": 6}
    assert values["top_qname3"] == {name: 6}
    assert values["cardinality.qname"] == 1
    assert values["top_udp_ports"] == {number(40000): 6}
    assert (values["rates.events"], values["rates.total"]) == (7, 7)


def test_v1_groups():
    messages = [query(ecs="192.0.2.0/24"), reply(answers=0, ts=MS)]
    gated = {
        "counters": {
            "wire_packets.total",
            "wire_packets.queries",
            "wire_packets.replies",
            "wire_packets.udp",
            "wire_packets.ipv4",
            "wire_packets.noerror",
            "wire_packets.nodata",
        },
        "cardinality": {"cardinality.qname"},
        "top_ports": {"top_udp_ports"},
        "top_ecs": {"top_query_ecs"},
        "top_qnames": {"top_qname2", "top_qname3", "top_nodata"},
        "dns_transaction": {"xact.counts.total"},
        "quantiles": set(),
        "histograms": set(),
        "top_qnames_details": set(),
    }
    always = {
        "wire_packets.events",
        "wire_packets.deep_samples",
        "rates.events",
        "rates.total",
        "top_rcode",
        "top_qtype",
    }
    for group, paths in gated.items():
        assert set(shown(run(DnsV1, messages, groups=[group]))) == always | paths, group
    both = shown(run(DnsV1, messages, groups=["counters", "top_ecs"]))
    assert both["wire_packets.query_ecs"] == 1


def test_v1_transactions():
    times = {IN: 0, OUT: 1_500_999, UNKNOWN: 3 * MS}
    messages = []
    for direction, took in times.items():
        messages += [
            query(id=direction, ts=10 * MS),
            reply(id=direction, ts=10 * MS + took, direction=direction),
        ]
    values = run(DnsV1, messages)
    assert values["xact.counts.total"] == 3
    # a response to the host: the host is the client
    assert (values["xact.out.total"], values["xact.in.total"]) == (1, 1)
    assert values["xact.out.quantiles_us"] == (1, 0, 0, 0)
    assert values["xact.in.quantiles_us"] == (1, 1500, 1500, 1500)
    assert (values["xact.in.histogram_us"], values["xact.out.histogram_us"]) == (1, 1)
    ratio = len(messages[1]["data"]) / len(messages[0]["data"])
    assert values["xact.ratio.quantiles"] == (3, ratio, ratio, ratio)


def test_a_pair_needs_the_flow_and_the_id():
    driver = Driver(build(DnsV1))
    driver.feed(
        [
            query(id=1, flow=5),
            reply(id=2, flow=5),
            reply(id=1, flow=6),
            reply(id=1, flow=5),
            reply(id=1, flow=5),
        ]
    )
    assert driver.values()["xact.counts.total"] == 1
    acc = build(DnsV1)
    Driver(acc).feed([query(id=i) for i in range(5)] + [query(id=0)])
    assert acc.open_transactions() == 5


@pytest.mark.parametrize(("took", "valid"), [(1999 * MS + 999_999, 1), (2000 * MS, 0), (9000 * MS, 0)])
def test_late_responses(took, valid):
    messages = [query(direction=OUT), reply(ts=took, direction=IN)]
    values = run(DnsV1, messages, xact_ttl_ms=2000)
    assert (values["xact.counts.total"], values["xact.counts.timed_out"]) == (valid, 1 - valid)
    values = run(DnsV2, messages, xact_ttl_ms=2000)
    assert (values["out.xacts"], values["out.timeout_queries"]) == (valid, 1 - valid)
    assert values["out.orphan_responses"] == 0


def test_response_stamped_before_its_query():
    for cls, path in ((DnsV1, "xact.in.quantiles_us"), (DnsV2, "in.xact_time_us")):
        values = run(cls, [query(direction=IN, ts=10_000), reply(direction=OUT, ts=4_000)])
        assert values[path] == (1, 6, 6, 6)


@pytest.mark.parametrize(
    ("cls", "timed_out"), [(DnsV1, "xact.counts.timed_out"), (DnsV2, "out.timeout_queries")]
)
@pytest.mark.parametrize(
    ("ttl", "age", "gone"), [(5000, 5000, 1), (5000, 4999, 0), (700, 699, 0), (1500, 1400, 0)]
)
def test_purge_at_the_shift(cls, timed_out, ttl, age, gone):
    acc = build(cls, xact_ttl_ms=ttl)
    driver = Driver(acc)
    driver.feed([query(direction=OUT, ts=0)])
    closed = driver.shift(age * MS)
    assert not closed.get(timed_out)
    assert acc.open_transactions() == 1 - gone
    # counted in the new bucket; in 2.0 the block exists for it
    assert driver.values().get(timed_out, 0) == gone


def test_default_ttl():
    values = run(DnsV1, [query(), reply(ts=4999 * MS), query(id=8), reply(id=8, ts=5000 * MS)])
    assert (values["xact.counts.total"], values["xact.counts.timed_out"]) == (1, 1)


@pytest.mark.parametrize("cls", [DnsV1, DnsV2])
def test_slow_transactions(cls):
    total, table = (
        ("xact.out.quantiles_us", "xact.out.top_slow")
        if cls is DnsV1
        else ("out.xact_time_us", "out.top_slow_xacts")
    )
    driver = Driver(build(cls))

    def ask(id: int, took: int, name: str, at: int) -> None:
        driver.feed(
            [
                query(name, id=id, ts=at, direction=OUT),
                reply(name, id=id, ts=at + took * 1000, direction=IN),
            ]
        )

    for i in range(1, 11):
        ask(i, i * 100, f"first{i}.example.com", 0)
    closed = driver.shift(60_000 * MS)
    assert closed[total][2] == 900
    assert closed[table] == {}
    ask(1, 899, "quick.example.com", 61_000 * MS)
    ask(2, 900, "Slow.Example.com", 61_000 * MS)
    slow = b"Slow.Example.com" if cls is DnsV1 else b"slow.example.com"
    assert driver.values()[table] == {slow: 1}
    driver.shift(120_000 * MS)  # p90 of 899, 900 is 900
    driver.shift(180_000 * MS)  # nothing new: the threshold stays
    ask(3, 900, "again.example.com", 190_000 * MS)
    ask(4, 890, "never.example.com", 190_000 * MS)
    assert driver.values()[table] == {b"again.example.com": 1}


def test_no_slow_names_without_the_timing_group():
    driver = Driver(build(DnsV1, groups=["dns_transaction"]))
    for period in range(3):
        at = period * 60_000 * MS
        driver.feed([query(direction=OUT, ts=at), reply(direction=IN, ts=at + MS)])
        assert driver.shift(at + 60_000 * MS)["xact.out.top_slow"] == {}


def test_v1_unreadable_messages():
    good = query()["data"]
    short = {"data": good[:11]}
    no_name = {"data": good[:14]}
    crowded = bytearray(reply()["data"])
    crowded[10:12] = b"\x00\x63"  # 1 + 1 + 99 records announced
    nothing_asked = {"data": bytes([0, 7, 0x80, 3]) + bytes(8)}
    acc = build(DnsV1)
    driver = Driver(acc)
    assert driver.feed([short, no_name, {"data": bytes(crowded)}, nothing_asked]) == [1, 2, 3]
    values = driver.values()
    assert acc.health()["unreadable"] == 1
    assert (values["wire_packets.events"], values["wire_packets.total"], values["rates.total"]) == (4, 3, 3)
    assert (
        values["wire_packets.queries"],
        values["wire_packets.replies"],
        values["wire_packets.nxdomain"],
    ) == (1, 2, 1)
    assert values["top_udp_ports"] == {number(40000): 3}
    # only the message without a question could be decoded
    assert values["top_rcode"] == {number(3): 1}
    assert values["top_qname2"] == values["top_qtype"] == values["top_nxdomain"] == {}


def test_names_are_lower_case_and_the_root_is_empty():
    values = run(DnsV1, [query("WWW.ExAmPlE.com"), query("."), query("localhost"), query("example.com")])
    assert values["top_qname2"] == {b".example.com": 1, b"": 1, b"localhost": 1, b"example.com": 1}
    assert values["top_qname3"] == {b"www.example.com": 1, b"localhost": 1}


def test_public_suffixes():
    names = ["www.google.co.uk", "a.b.shop.co.uk", "x.y.www.ck", "www.example.com"]
    for cls, level2 in ((DnsV1, "top_qname2"), (DnsV2, "unknown.top_qname2_xacts")):
        messages = []
        for place, name in enumerate(names):
            messages += [query(name, id=place), reply(name, id=place)]
        got = run(cls, messages, public_suffix_list=True)[level2]
        assert set(got) == {b".google.co.uk", b".shop.co.uk", b".www.ck", b".example.com"}
        # the other key rules it out
        got = run(cls, messages, public_suffix_list=True, only_qname_suffix=["uk", "ck", "com"])[level2]
        assert b".shop.co.uk" not in got


def test_levels_are_not_taken_from_another_handler():
    messages = [query("www.google.co.uk")]
    plain, suffixed = build(DnsV1), build(DnsV1, only_qname_suffix=[".co.uk"])
    driver = Driver(plain, before=suffixed)
    driver.feed(messages)
    assert driver.values()["top_qname2"] == {b".co.uk": 1}
    driver = Driver(build(DnsV1, only_qname_suffix=[".co.uk"]), before=build(DnsV2))
    driver.feed(messages)
    assert driver.values()["top_qname2"] == {b".google.co.uk": 1}


# --- filters --------------------------------------------------------------------------------

FILTERS = [
    # options, message, passes
    ({"exclude_noerror": True}, reply(rcode=0), False),
    ({"exclude_noerror": True}, reply(rcode=3), True),
    ({"exclude_noerror": True}, query(), False),
    ({"exclude_noerror": True, "only_rcode": [5]}, reply(rcode=3), True),
    ({"only_rcode": [3, 5]}, reply(rcode=5, tcp=TCP), True),
    ({"only_rcode": [3, 5]}, reply(rcode=2, tcp=TCP), False),
    ({"only_rcode": [0]}, query(tcp=TCP), True),
    ({"only_rcode": [3]}, query(tcp=TCP), False),
    ({"only_rcode": [19]}, reply(rcode=3, tcp=TCP), False),
    ({"answer_count": 2}, reply(answers=2), True),
    ({"answer_count": 2}, reply(answers=1), False),
    ({"answer_count": 0}, query(), True),
    ({"answer_count": 65536}, reply(answers=0), False),
    ({"only_queries": True}, query(), True),
    ({"only_queries": True}, reply(), False),
    ({"only_responses": True}, query(), False),
    ({"only_responses": True}, reply(), True),
    ({"only_queries": False, "only_responses": False, "exclude_noerror": False}, query(), True),
    ({"only_dnssec_response": True}, reply(rrsig=True), True),
    ({"only_dnssec_response": True}, reply(), False),
    ({"only_dnssec_response": True}, query(), False),
    ({"only_qtype": [28, 65535]}, query(kind="AAAA"), True),
    ({"only_qtype": [28, 65535]}, query(kind="A"), False),
    ({"only_qtype": [28, 65535]}, query(kind="TYPE65535"), True),
    ({"only_qtype": [1]}, {"data": query()["data"][:15]}, False),
    ({"only_qname": ["www.example.com"]}, query("wWw.example.com", tcp=TCP), True),
    ({"only_qname": ["www.example.com"]}, query("example.com", tcp=TCP), False),
    ({"only_qname": ["www.example.com."]}, query("www.example.com", tcp=TCP), False),
    ({"only_qname": []}, query(tcp=TCP), False),
    ({"only_qname": [f"n{i}.example.com" for i in range(1000)]}, query("n999.example.com", tcp=TCP), True),
    ({"only_qname": [f"n{i}.example.com" for i in range(1000)]}, query("n1000.example.com", tcp=TCP), False),
    ({"only_qname_suffix": ["google.com"]}, query("notgoogle.com"), True),
    ({"only_qname_suffix": ["google.com"]}, query("Google.COM"), True),
    ({"only_qname_suffix": ["google.com"]}, query("google.com.example"), False),
    ({"only_qname_suffix": ["google.com", "org"]}, query("example.org"), True),
    ({"only_qname_suffix": ["google.com"]}, query("e.com"), False),
    ({"geoloc_notfound": True}, query(ecs="192.0.2.0/24"), False),
    ({"asn_notfound": True}, query(ecs="192.0.2.0/24"), False),
    ({"answer_count": 1, "only_qtype": [28]}, reply(answers=1), False),
]


@pytest.mark.parametrize(("options", "message", "passes"), FILTERS)
def test_v1_filters(options, message, passes):
    driver = Driver(build(DnsV1, **options))
    assert driver.feed([message]) == ([0] if passes else [])
    values = driver.values()
    assert values["wire_packets.events"] == 1
    assert values["wire_packets.total"] == passes
    assert values["wire_packets.filtered"] == (not passes)
    assert bool(values["top_qtype"]) == passes


@pytest.mark.parametrize(("options", "message", "passes"), FILTERS)
def test_v2_filters(options, message, passes):
    if "only_queries" in options or "only_responses" in options:
        return
    is_reply = bool(message["data"][2] & 0x80)
    on_queries = {"only_qname", "only_qname_suffix", "geoloc_notfound", "asn_notfound"}
    looked_at = {key: value for key, value in options.items() if (key in on_queries) != is_reply}
    if not looked_at:
        passes = True
    driver = Driver(build(DnsV2, **options))
    assert driver.feed([message]) == ([0] if passes else [])
    assert driver.values()["filtered_packets"] == (not passes)


def test_only_qname_suffix_sets_the_level_in_v1_only():
    messages = [query("play.google.com"), reply("play.google.com")]
    options = {"only_qname_suffix": ["com", "google.com"]}  # the first that matches
    assert run(DnsV1, messages, **options)["top_qname2"] == {b".google.com": 2}
    assert run(DnsV1, messages, only_qname_suffix=["google.com"])["top_qname2"] == {b"play.google.com": 2}
    assert run(DnsV2, messages, only_qname_suffix=["google.com"])["unknown.top_qname2_xacts"] == {
        b".google.com": 1
    }


DISPATCH = [query("a.example"), reply("a.example"), reply("a.example", rcode=3), reply("b.example", rcode=3)]


@pytest.mark.parametrize(
    ("options", "seen", "passed"),
    [
        ({"only_rcode": [3]}, 2, [2, 3]),
        ({"only_rcode": [0]}, 1, [1]),
        ({"only_qname": ["a.example"]}, 3, [0, 1, 2]),
        # handed over once by either, then tested by both
        ({"only_qname": ["a.example"], "only_rcode": [3]}, 4, [2]),
        ({"only_rcode": [3], "exclude_noerror": True}, 4, [2, 3]),
    ],
)
def test_predicates_hide_udp_messages(options, seen, passed):
    driver = Driver(build(DnsV1, **options))
    assert driver.feed(DISPATCH) == passed
    values = driver.values()
    assert (values["wire_packets.events"], values["rates.events"], values["wire_packets.deep_samples"]) == (
        seen,
    ) * 3
    assert values["wire_packets.filtered"] == seen - len(passed)


def test_predicates_are_plain_filters_elsewhere():
    for messages, chained in ((DISPATCH, True), ([m | {"tcp": TCP} for m in DISPATCH], False)):
        driver = Driver(build(DnsV1, chained=chained, only_rcode=[3]))
        assert driver.feed(messages) == [2, 3]
        values = driver.values()
        assert (values["wire_packets.events"], values["wire_packets.filtered"]) == (4, 2)


# --- 2.0 --------------------------------------------------------------------------------


def test_v2_counts_transactions():
    ad, aa, cd = dns.flags.AD, dns.flags.AA, dns.flags.CD
    messages = [
        query(id=1, direction=IN, flags=cd),
        reply(id=1, direction=OUT, ts=2 * MS, flags=ad),
        query(id=2, direction=IN, tcp=TCP, l3=6),
        reply(id=2, direction=OUT, rcode=3, flags=aa | cd, tcp=TCP, l3=6),
        query(id=3, direction=OUT),
        reply(id=3, direction=IN, answers=0),
        query(id=4),
        reply(id=4, rcode=2, deep=False),
        reply(id=5, rcode=5, direction=IN),
    ]
    driver = Driver(build(DnsV2))
    assert driver.feed(messages) == list(range(9))
    values = driver.values()
    assert (values["observed_packets"], values["deep_sampled_packets"], values["filtered_packets"]) == (
        9,
        8,
        0,
    )
    name = b"www.example.com"
    assert shown(values, "in.") == {
        "xacts": 2,
        "udp_xacts": 1,
        "tcp_xacts": 1,
        "ipv4_xacts": 1,
        "ipv6_xacts": 1,
        "noerror_xacts": 1,
        "nxdomain_xacts": 1,
        "authenticated_data_xacts": 1,
        "authoritative_answer_xacts": 1,
        "checking_disabled_xacts": 1,
        "xact_rates": 2,
        "cardinality.qname": 1,
        "top_udp_ports_xacts": {number(40000): 2},
        "xact_histogram_us": 2,
        "top_response_bytes": {name: len(messages[1]["data"]) + len(messages[3]["data"])},
        "top_qname2_xacts": {b".example.com": 2},
        "top_qname3_xacts": {name: 2},
        "top_noerror_xacts": {name: 1},
        "top_nxdomain_xacts": {name: 1},
        "top_rcode_xacts": {number(0): 1, number(3): 1},
        "top_qtype_xacts": {number(1): 2},
    }
    assert values["in.xact_time_us"] == (2, 0, 2000, 2000)
    assert values["in.response_query_size_ratio"][0] == 2
    out = shown(values, "out.")
    assert (out["xacts"], out["nodata_xacts"], out["noerror_xacts"], out["orphan_responses"]) == (1, 1, 1, 1)
    assert "refused_xacts" not in out
    assert out["top_nodata_xacts"] == out["top_noerror_xacts"] == {name: 1}
    assert shown(values, "unknown.") == {
        "xacts": 1,
        "udp_xacts": 1,
        "ipv4_xacts": 1,
        "srvfail_xacts": 1,
        "xact_rates": 1,
    }


def test_v2_groups():
    messages = [query(ecs="192.0.2.0/24"), reply(answers=0, ts=MS)]
    always = {"timeout_queries", "orphan_responses"}  # written under counters only
    gated = {
        "counters": {"xacts", "udp_xacts", "ipv4_xacts", "noerror_xacts", "nodata_xacts"},
        "quantiles": {"xact_rates"},
        "cardinality": {"cardinality.qname"},
        "top_ports": {"top_udp_ports_xacts"},
        "top_size": {"top_response_bytes", "response_query_size_ratio"},
        "xact_times": {"xact_time_us", "xact_histogram_us"},
        "top_qnames": {"top_qname2_xacts", "top_qname3_xacts"},
        "top_rcodes": {"top_noerror_xacts", "top_nodata_xacts", "top_rcode_xacts"},
        "top_qtypes": {"top_qtype_xacts"},
        "top_ecs": {"ecs_xacts", "top_ecs_xacts"},
    }
    for group, paths in gated.items():
        values = run(DnsV2, messages, groups=[group])
        assert {p[8:] for p, v in values.items() if p.startswith("unknown.") and v} - always == paths, group


@pytest.mark.parametrize("cls", [DnsV1, DnsV2])
def test_host_to_host(cls):
    values = run(cls, [query(direction=IN), reply(direction=IN)])
    if cls is DnsV1:
        assert values["xact.counts.total"] == 1
    else:
        assert (values["out.orphan_responses"], values["out.xacts"]) == (1, 0)


def test_a_query_alone_makes_no_block():
    values = run(DnsV2, [query(direction=IN)])
    assert set(values) == {
        "observed_packets",
        "deep_sampled_packets",
        "rates.observed_pps",
        "filtered_packets",
    }


@pytest.mark.parametrize(
    ("name", "transport"),
    [
        ("udp", UDP),
        ("tcp", TCP),
        ("dot", DOT),
        ("doh", DOH),
        ("dnscrypt_udp", DNSCRYPT_UDP),
        ("dnscrypt_tcp", DNSCRYPT_TCP),
        ("doq", DOQ),
    ],
)
def test_transports(name, transport):
    messages = [query(tcp=transport), reply(tcp=transport)]
    values = run(DnsV2, messages)
    assert [p for p, v in values.items() if v and p[8:] in TRANSPORTS] == [f"unknown.{name}_xacts"]
    wire = run(DnsV1, messages)
    assert (wire["wire_packets.udp"], wire["wire_packets.tcp"]) == (
        2 * (transport == UDP),
        2 * (transport == TCP),
    )


TRANSPORTS = {f"{t}_xacts" for t in ("udp", "tcp", "dot", "doh", "dnscrypt_udp", "dnscrypt_tcp", "doq")}


@pytest.mark.parametrize("transport", [UDP, TCP])
@pytest.mark.parametrize(
    ("messages", "filtered", "counters"),
    [
        # a filtered query, and its response that passes
        ([query("other.net", direction=OUT), reply("other.net", direction=IN, rcode=3)], 2, {}),
        # the same, too late
        ([query("other.net", direction=OUT), reply("other.net", direction=IN, rcode=3, ts=9000 * MS)], 2, {}),
        # a filtered response to an accepted query, in time
        ([query(direction=OUT), reply(direction=IN)], 2, {}),
        # and too late: no more than itself
        ([query(direction=OUT), reply(direction=IN, ts=9000 * MS)], 1, {}),
        ([reply(direction=IN)], 1, {}),
        ([query("other.net", direction=OUT), reply("other.net", direction=IN)], 2, {}),
        ([query(direction=OUT), reply(direction=IN, rcode=3)], 0, {"xacts": 1}),
        ([reply(direction=IN, rcode=3)], 0, {"orphan_responses": 1}),
    ],
)
def test_v2_filtered(messages, filtered, counters, transport):
    acc = build(DnsV2, groups=["counters"], only_qname_suffix=["example.com"], only_rcode=[3])
    driver = Driver(acc)
    driver.feed([m | {"tcp": transport} for m in messages])
    values = driver.values()
    assert values["filtered_packets"] == filtered
    assert values["observed_packets"] == len(messages)
    got = shown(values, "out.")
    assert {k: got[k] for k in got if k in ("xacts", "orphan_responses", "timeout_queries")} == counters
    assert "out.xacts" in values
    assert acc.open_transactions() == 0


def test_only_xact_directions():
    messages = []
    for id, (ask, answer) in enumerate([(IN, OUT), (OUT, IN), (UNKNOWN, UNKNOWN)]):
        messages += [query(id=id, direction=ask), reply(id=id, direction=answer)]
    acc = build(DnsV2, only_xact_directions=["in", "unknown"])
    driver = Driver(acc)
    assert driver.feed(messages) == [0, 1, 4, 5]
    values = driver.values()
    assert (values["in.xacts"], values["unknown.xacts"]) == (1, 1)
    assert (values["observed_packets"], values["filtered_packets"]) == (6, 2)
    driver.feed([query(id=9, direction=OUT)])
    assert acc.open_transactions() == 0
    assert not any(path.startswith("out.") for path in driver.shift(10**13) | driver.values())


def test_v2_response_that_cannot_be_decoded():
    damaged = reply(direction=IN, ts=MS)
    damaged["data"] = damaged["data"][:14]
    values = run(DnsV2, [query(direction=OUT, ecs="192.0.2.0/24"), damaged])
    assert set(shown(values, "out.")) == {
        "xacts",
        "udp_xacts",
        "ipv4_xacts",
        "noerror_xacts",
        "xact_rates",
        "top_udp_ports_xacts",
        "xact_histogram_us",
    }
    assert values["out.xact_time_us"][0] == values["out.response_query_size_ratio"][0] == 1


# --- client subnets -------------------------------------------------------------------------------


def subnet(address: str) -> bytes:
    packed = ipaddress.ip_address(address).packed
    return bytes([4 if len(packed) == 4 else 6]) + packed.ljust(16, b"\0")


def test_client_subnets():
    messages = [
        query(id=1, ecs="198.51.100.0/24"),
        reply(id=1),
        query(id=2, ecs="2001:db8:12:3456:789a::/80"),
        reply(id=2),
        query(id=3),
        reply(id=3),
    ]
    both = {subnet("198.51.100.0"): 1, subnet("2001:db8:12:3456:789a::"): 1}
    values = run(DnsV1, messages)
    assert values["top_query_ecs"] == both
    assert values["wire_packets.query_ecs"] == 2
    assert values["top_geoLoc_ecs"] == values["top_asn_ecs"] == {}
    values = run(DnsV2, messages)
    assert values["unknown.top_ecs_xacts"] == both
    assert values["unknown.ecs_xacts"] == 2


@pytest.fixture
def city(tmp_path: Path) -> GeoCity:
    path = tmp_path / "city.mmdb"
    path.write_bytes(mmdb_writer.build({"198.51.100.0/24": {"continent": {"code": "EU"}}}))
    return GeoCity(path)


def test_subnets_with_a_database(city):
    messages = [
        query(id=1, ecs="198.51.100.0/24"),
        reply(id=1),
        query(id=2, ecs="2001:db8::/32"),
        reply(id=2),
    ]
    found = (
        number(city.native.lookup_address("198.51.100.0"))
        + bytes(10)
        + b"\xff\xff"
        + bytes([198, 51, 100, 0])
    )
    missing = number(0) + ipaddress.ip_address("2001:db8::").packed
    for cls, path in ((DnsV1, "top_geoLoc_ecs"), (DnsV2, "unknown.top_geo_loc_ecs_xacts")):
        assert run(cls, messages, geo=city.native)[path] == {found: 1, missing: 1}
        got = run(cls, messages, geo=city.native, geoloc_notfound=True)
        assert got[path] == {missing: 1}
        if cls is DnsV1:
            assert (got["wire_packets.total"], got["wire_packets.filtered"]) == (1, 3)
        else:
            assert (got["filtered_packets"], got["unknown.xacts"]) == (2, 1)


# --- bounds --------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [DnsV1, DnsV2])
def test_open_transactions_are_bounded(cls):
    acc = build(cls, groups=["dns_transaction"] if cls is DnsV1 else ["counters"])
    driver = Driver(acc)
    data = query()["data"]
    for start in range(0, 400_000, 50_000):
        driver.feed(
            [{"data": data, "flow": i * 0x9E3779B97F4A7C15 % (1 << 64)} for i in range(start, start + 50_000)]
        )
    assert acc.open_transactions() <= 1 << 18
    assert acc.open_transactions() + acc.health()["xact_evicted"] == 400_000


# --- names of codes -------------------------------------------------------------------------------


def test_code_names():
    rcodes = " ".join(rcode_name(code) for code in (0, 2, 3, 11, 12, 15, 16, 23, 24))
    assert rcodes == "NOERROR SRVFAIL NXDOMAIN DSOTYPENI 12 15 BADVERS BADCOOKIE 24"
    assert (rcode_number("nxDomain"), rcode_number("badsig"), rcode_number("BADVERS")) == (3, 16, 16)
    assert rcode_number("SERVFAIL") is None
    known = (0, 1, 10, 28, 40, 54, 55, 65, 66, 99, 109, 249, 255, 260, 32768, 65535)
    names = "Reserved (0)|A|NULL|AAAA|SINK|54|HIP|HTTPS|66|SPF|EUI64|TKEY|*|AMTRELAY|TA|Reserved (65535)"
    assert "|".join(qtype_name(number) for number in known) == names
    assert (qtype_number("aaaa"), qtype_number("nsap-ptr"), qtype_number("TEXT")) == (28, 23, None)


def test_code_names_agree_with_dnspython():
    own = {"Reserved (0)", "*", "AVC", "DOA", "Reserved (65535)", "A6", "SINK"}
    for code in range(1, 65535):
        name = qtype_name(code)
        if name != str(code) and hasattr(dns.rdatatype.RdataType, name.replace("-", "_")):
            assert int(dns.rdatatype.RdataType[name.replace("-", "_")]) == code
            own.add(name)
    assert len(own) > 60
    assert qtype_name(99999) == "99999"

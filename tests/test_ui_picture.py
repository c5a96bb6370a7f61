"""pktvisor-cli's header lines and tables: figures worked out by hand from agent spec 5.3 and 5.4."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import agent_server
import pytest
from hypothesis import given
from hypothesis import strategies as st

import netprobe
from netprobe.ui import document, text
from netprobe.ui.panels import fold, row_line, shorten
from netprobe.ui.picture import TITLES, Picture, Row, draw


@pytest.fixture
def utc() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def rate(live: int, *percentiles: int) -> dict[str, int]:
    return {"live": live, **dict(zip(("p50", "p90", "p95", "p99"), percentiles, strict=True))}


def quantiles(*percentiles: float) -> dict[str, float]:
    return dict(zip(("p50", "p90", "p95", "p99"), percentiles, strict=True))


def numbers(**values: int) -> dict[str, int]:
    return values


def top(**estimates: int) -> list[dict[str, Any]]:
    return [{"name": name, "estimate": estimate} for name, estimate in estimates.items()]


PACKETS: dict[str, Any] = {
    "total": 1000,
    "udp": 600,
    "tcp": 350,
    "other_l4": 50,
    "ipv4": 900,
    "ipv6": 99,
    "in": 300,
    "out": 500,
    "deep_samples": 250,
    "rates": {
        "pps_total": rate(12, 10, 20, 30, 40),
        "pps_in": rate(5, 1, 2, 3, 4),
        "pps_out": rate(7, 9, 18, 27, 36),
    },
    "cardinality": {"src_ips_in": 17, "dst_ips_out": 4},
    "top_ipv4": top(**{"192.0.2.1": 100, "192.0.2.2": 50, "192.0.2.3": 1, "192.0.2.4": 1}),
    "top_ipv6": top(**{"2001:db8::1": 3}),
    "top_geoLoc": top(**{"EU/Sweden/Linköping": 125}),
    "top_ASN": top(**{"64500": 25}),
    "period": {"start_ts": 15 * 3600 + 4 * 60, "length": 270},
}
DNS: dict[str, Any] = {
    "wire_packets": {
        **numbers(total=400, events=480, udp=300, tcp=100, ipv4=350, ipv6=50, queries=210, replies=190),
        **numbers(noerror=100, srvfail=38, nxdomain=19, refused=0),
    },
    "rates": {"total": rate(3, 1, 2, 2, 5)},
    "xact": {
        "counts": {"total": 180, "timed_out": 6},
        "in": {
            "total": 60,
            "quantiles_us": quantiles(1500, 2000, 12340, 99999),
            "top_slow": top(**{"a.test": 9}),
        },
        "out": {"total": 120, "quantiles_us": quantiles(49, 51, 149, 151), "top_slow": top(**{"b.test": 45})},
    },
    "cardinality": {"qname": 77},
    "top_qname2": top(**{".example": 50, ".test": 25, ".org": 10, ".net": 5}),
    "top_qname3": top(**{"www.example": 40}),
    "top_qtype": top(A=80, AAAA=20),
    "top_rcode": top(NOERROR=38),
    "top_nxdomain": top(**{"no.example": 19}),
    "top_srvfail": top(**{"bad.example": 38}),
    "top_refused": [],
    "top_udp_ports": top(**{"53": 1}),
    "period": {"start_ts": 1, "length": 2},
}
DHCP: dict[str, Any] = {
    "wire_packets": {"total": 8, "filtered": 2, "discover": 4, "offer": 2, "request": 1, "ack": 1},
    "rates": {"total": rate(1, 0, 0, 1, 2)},
}
PCAP = {"tcp_reassembly_errors": 3, "os_drops": 2, "if_drops": 1}

DOCUMENT = {
    "default": {
        "default-dhcp": {"dhcp": DHCP},
        "default-dns": {"dns": DNS},
        "default-net": {"packets": PACKETS},
        "default-pcap_stats": {"pcap": PCAP},
    }
}


def drawn(document: object, policy: str = "default") -> Picture:
    picture = draw(document, policy)
    assert picture is not None
    return picture


def table(picture: Picture, title: str) -> tuple[Row, ...]:
    (found,) = [t.rows for t in picture.tables if t.title == title]
    return found


def test_header(utc: None) -> None:
    assert [" | ".join(parts) for parts in drawn(DOCUMENT).header] == [
        "Pkts 1000 | UDP 600 (60.0%) | TCP 350 (35.0%) | Other 50 (5.0%) | IPv4 900 (90.0%) | IPv6 99 (9.9%)"
        " | In 300 (37.5%) | Out 500 (62.5%) | Deep Samples 250 (25.0%)",
        "Pkt Rates Total 12/s 10/20/30/40 pps | In 5/s 1/2/3/4 pps | Out 7/s 9/18/27/36 pps"
        " | IP Card. In 17 Out 4 | TCP Errors 3 | OS Drops 2 | IF Drops 1",
        "DHCP Pkts 6/8 | Rate 1/s 0/0/1/2 pps"
        " | Discover 4 (50.0%) | Offer 2 (25.0%) | Request 1 (12.5%) | Ack 1 (12.5%)",
        "DNS Pkts 400/480 | Rate 3/s 1/2/2/5 pps | UDP 300 (75.0%) | TCP 100 (25.0%) | IPv4 350 (87.5%)"
        " | IPv6 50 (12.5%) | Query 210 (52.5%) | Resp 190 (47.5%)",
        "DNS Xacts 180 | Timed Out 6 | In 60 (33.3%) | Out 120 (66.7%) | In Times 1.5/2.0/12.3/100.0 ms"
        " | Out Times 0.0/0.1/0.1/0.2 ms | Qname Card. 77",
        "NOERROR 100 (52.6%) | SRVFAIL 38 (20.0%) | NXDOMAIN 19 (10.0%) | REFUSED 0 (0.0%)"
        " | Window 3:04PM to 3:08PM, 270 s",
    ]


def test_tables() -> None:
    """A quarter is sampled: the bases are 100 messages, 47.5 replies, 45 transactions, 250 packets."""
    picture = drawn(DOCUMENT)
    assert [t.title for t in picture.tables] == list(TITLES)
    assert table(picture, "Top QName 2") == (
        Row(".example", 50, 50.0),
        Row(".test", 25, 25.0),
        Row(".org", 10, 10.0),
        Row(".net", 5, None),  # the first three lines alone have a share
    )
    shares = {t.title: [row.share for row in t.rows] for t in picture.tables}
    assert shares == {
        "Top QName 2": [50, 25, 10, None],
        "Top QName 3": [40],
        "Top NX": [40],
        "Slow In": [20],
        "Top QTypes": [80, 20],
        "Top RCodes": [80],
        "Top SRVFAILS": [80],
        "Slow Out": [100],
        "Top REFUSED": [],
        "IPv4": [40, 20, 0.4, None],
        "IPv6": [1.2],
        "Top DNS UDP Ports": [1],
        "Top GeoLoc": [50],
        "Top ASN": [10],
    }


def test_the_layout_is_row_by_row() -> None:
    assert TITLES[:4] == ("Top QName 2", "Top QName 3", "Top NX", "Slow In")
    assert TITLES[4:8] == ("Top QTypes", "Top RCodes", "Top SRVFAILS", "Slow Out")
    assert TITLES[8:12] == ("Top REFUSED", "IPv4", "IPv6", "Top DNS UDP Ports")
    assert TITLES[12:] == ("Top GeoLoc", "Top ASN")


def test_zero_denominators() -> None:
    picture = drawn({"p": {"h": {"packets": {"total": 0}}}}, "p")
    for line in picture.header:
        assert "nan" not in " ".join(line).lower()
    assert picture.header[0][1] == "UDP 0 (0.0%)"
    assert picture.header[5][-1] == "Window unknown"


def test_no_share_without_a_base() -> None:
    packets = {"total": 100, "deep_samples": 0, "top_ipv4": top(**{"192.0.2.1": 3})}
    picture = drawn({"p": {"n": {"packets": packets}}}, "p")
    assert table(picture, "IPv4") == (Row("192.0.2.1", 3, None),)


def test_at_most_seven_lines() -> None:
    packets = {
        "total": 20,
        "deep_samples": 20,
        "top_ipv4": top(**{f"192.0.2.{i}": 20 - i for i in range(20)}),
    }
    rows = table(drawn({"p": {"n": {"packets": packets}}}, "p"), "IPv4")
    assert [row.estimate for row in rows] == [20, 19, 18, 17, 16, 15, 14]


def test_asn_key_in_any_case() -> None:
    packets = {"total": 4, "deep_samples": 4, "top_asn": top(**{"64500": 1})}
    assert table(drawn({"p": {"n": {"packets": packets}}}, "p"), "Top ASN") == (Row("64500", 1, 25.0),)


def test_dns_alone_takes_its_own_sampling() -> None:
    wire = {**DNS["wire_packets"], "events": 400, "deep_samples": 200}
    picture = drawn({"p": {"d": {"dns": {**DNS, "wire_packets": wire}}}}, "p")
    assert table(picture, "Top QName 2")[0] == Row(".example", 50, 25.0)
    assert "2 s" in picture.header[5][-1]


@pytest.mark.parametrize("name", ["dns_merged", "second-dns"])
def test_of_several_handlers_the_last_counts(name: str) -> None:
    other = {**DNS, "cardinality": {"qname": 5}}
    document = {"default": {"a": {"dns": other}, name: {"dns": DNS}}}
    assert drawn(document).header[4][-1] == "Qname Card. 77"


def test_nothing_to_show() -> None:
    for answer in (
        {},
        {"default": {}},
        {"other": DOCUMENT["default"]},
        {"default": {"r": {"input_resources": {}}}},
    ):
        assert draw(answer, "default") is None


# --- version 2.0 ---


NET_V2 = {
    "observed_packets": 110,
    "deep_sampled_packets": 50,
    "rates": {"observed_pps": rate(9, 1, 2, 3, 4)},
    "in": {
        **numbers(total_packets=60, udp_packets=40, tcp_packets=20, ipv4_packets=60),
        "rates": {"pps": rate(6, 1, 1, 1, 1)},
        "cardinality": {"ips": 7},
        "top_ipv4_packets": top(**{"192.0.2.1": 10, "192.0.2.2": 9}),
    },
    "out": {
        **numbers(total_packets=20, udp_packets=10, other_l4_packets=10, ipv6_packets=20),
        "rates": {"pps": rate(2, 0, 0, 0, 0)},
        "cardinality": {"ips": 3},
    },
    "unknown": {
        **numbers(total_packets=20, tcp_packets=20, ipv4_packets=20),
        "top_ipv4_packets": top(**{"192.0.2.2": 6}),
    },
    "period": {"start_ts": 60, "length": 120},
}
DNS_V2 = {
    "observed_packets": 50,
    "deep_sampled_packets": 50,
    "rates": {"observed_pps": rate(1, 1, 1, 1, 1)},
    "in": {
        **numbers(xacts=15, udp_xacts=15, ipv4_xacts=10, ipv6_xacts=5, noerror_xacts=15, timeout_queries=2),
        "cardinality": {"qname": 4},
        "xact_time_us": quantiles(1000, 2000, 3000, 4000),
        "top_slow_xacts": top(**{"slow.test": 5}),
        "top_qname2_xacts": top(**{".test": 15}),
    },
    "out": {
        **numbers(xacts=5, tcp_xacts=5, ipv4_xacts=5, nxdomain_xacts=5, timeout_queries=1),
        "top_qname2_xacts": top(**{".test": 1, ".example": 4}),
    },
}


def test_version_2_is_shown(utc: None) -> None:
    picture = drawn({"p": {"n": {"net": NET_V2}, "d": {"dns": DNS_V2}}}, "p")
    assert [" | ".join(parts) for parts in picture.header] == [
        "Pkts 100 | UDP 50 (50.0%) | TCP 40 (40.0%) | Other 10 (10.0%) | IPv4 80 (80.0%) | IPv6 20 (20.0%)"
        " | In 60 (75.0%) | Out 20 (25.0%) | Deep Samples 50 (50.0%)",
        "Pkt Rates Total 9/s 1/2/3/4 pps | In 6/s 1/1/1/1 pps | Out 2/s 0/0/0/0 pps"
        " | IP Card. In 7 Out 3 | TCP Errors 0 | OS Drops 0 | IF Drops 0",
        "DHCP Pkts 0/0 | Rate -/s 0/0/0/0 pps"
        " | Discover 0 (0.0%) | Offer 0 (0.0%) | Request 0 (0.0%) | Ack 0 (0.0%)",
        "DNS Xacts 20/50 | Rate 1/s 1/1/1/1 pps"
        " | UDP 15 (75.0%) | TCP 5 (25.0%) | IPv4 15 (75.0%) | IPv6 5 (25.0%)",
        "DNS Xacts 20 | Timed Out 3 | In 15 (75.0%) | Out 5 (25.0%) | In Times 1.0/2.0/3.0/4.0 ms"
        " | Out Times 0.0/0.0/0.0/0.0 ms | Qname Card. 4",
        "NOERROR 15 (75.0%) | SRVFAIL 0 (0.0%) | NXDOMAIN 5 (25.0%) | REFUSED 0 (0.0%)"
        " | Window 12:01AM to 12:03AM, 120 s",
    ]
    # directions are added up; half is sampled, so that 20 transactions are a base of 10
    assert table(picture, "IPv4") == (Row("192.0.2.2", 15, 30.0), Row("192.0.2.1", 10, 20.0))
    assert table(picture, "Top QName 2") == (Row(".test", 16, 160.0), Row(".example", 4, 40.0))
    assert table(picture, "Slow In") == (Row("slow.test", 5, 50.0),)


def test_version_1_goes_before_2() -> None:
    handlers = {"a": {"packets": PACKETS}, "b": {"net": NET_V2}, "c": {"dns": DNS}, "d": {"dns": DNS_V2}}
    assert drawn({"default": handlers}).header[0] == drawn(DOCUMENT).header[0]
    assert drawn({"default": handlers}).header[3] == drawn(DOCUMENT).header[3]


# --- what the library measures ---


@pytest.mark.parametrize(
    "handlers",
    ["net,dns,dhcp,pcap", "net:2.0,dns:2.0+all", "dns", "dhcp", "pcap", "net", "net:2.0", "dns:2.0"],
)
def test_documents_of_the_library(handlers: str) -> None:
    summary = netprobe.summarize(agent_server.CAPTURES / "demo.pcap", handlers=handlers, hosts="10.77.0.2/32")
    picture = drawn(agent_server.per_policy(summary))
    packets = int(picture.header[0][0].removeprefix("Pkts "))
    dns = picture.header[3][0].split()
    # figures of README's demo and of tshark: 408 frames, 100 DNS messages
    assert packets == (408 if "net" in handlers else 0)
    if "dns:2.0" in handlers:
        # those of the one host: the others have no transaction that is seen from both sides
        assert dns[:2] == ["DNS", "Xacts"]
        assert dns[2].endswith("/100")
    elif "dns" in handlers:
        assert dns == ["DNS", "Pkts", "100/100"]
        assert table(picture, "Top QName 2")[0] == Row(".example.test", 84, 84.0)


# --- documents that are not what they should be ---

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, -(10**400), float("nan"), float("inf")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_value_may_be_anything(data: st.DataObject) -> None:
    """One place of a good document is replaced; the picture still has its lines, and they are printable."""
    answer = json.loads(json.dumps({"default": {**DOCUMENT["default"], "n2": {"net": NET_V2}}}))
    place, key = answer, "default"
    for _ in range(data.draw(st.integers(0, 6))):
        inner = place[key]
        if isinstance(inner, dict) and inner:
            place, key = inner, data.draw(st.sampled_from(sorted(inner)))
        elif isinstance(inner, list) and inner:
            place, key = inner, data.draw(st.integers(0, len(inner) - 1))
    place[key] = data.draw(junk)
    picture = draw(answer, "default")
    if picture is not None:
        assert len(picture.header) == 6
        for line in picture.header:
            assert all(part.isprintable() and len(part) < 120 for part in line)
        for t in picture.tables:
            assert all(row.name.isprintable() for row in t.rows)


@given(junk)
def test_any_document_may_come(answer: object) -> None:
    draw(answer, "default")
    draw({"default": answer}, "default")
    draw({"default": {"h": {"packets": answer, "dns": answer}}}, "default")


@pytest.mark.parametrize(
    ("given_name", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\nb\r", "a\\x0ab\\x0d"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("Linköping 東京", "Linköping 東京"),
        ("[bold red]x[/]", "[bold red]x[/]"),
        (53, "53"),
        (None, "?"),
        ({"a": 1}, "?"),
        (10**100, "?"),
        ("x" * 300, "x" * 255 + "…"),
    ],
)
def test_names_cannot_steer_the_terminal(given_name: object, shown: str) -> None:
    assert text.clean(given_name) == shown


def test_clock() -> None:
    assert text.clock(1e18) == "?"


@pytest.mark.parametrize(
    ("hour", "shown"), [(0, "12:05AM"), (1, "1:05AM"), (11, "11:05AM"), (12, "12:05PM"), (13, "1:05PM")]
)
def test_twelve_hour_clock(utc: None, hour: int, shown: str) -> None:
    assert text.clock(hour * 3600 + 5 * 60) == shown


# --- lines of a given width ---


def test_row_line() -> None:
    assert "".join(row_line(Row("www.example.test", 48, 48.0), 30)) == "www.example.test    48 (48.0%)"
    assert "".join(row_line(Row("www.example.test", 48, 48.0), 22)) == "www.exampl… 48 (48.0%)"
    assert "".join(row_line(Row("www.example.test", 48, 48.0), 18)) == "www.example.te… 48"
    assert "".join(row_line(Row("a", 1, 5.0), 14)) == "a    1 ( 5.0%)"
    assert "".join(row_line(Row("東京.test", 7, None), 12)) == "東京.test  7"


@given(
    st.text(max_size=40).map(text.clean),
    st.integers(0, document.LARGEST),
    st.none() | st.floats(0, 1000),
    st.integers(22, 60),
)
def test_row_lines_fit(name: str, estimate: int, share: float | None, width: int) -> None:
    from rich.cells import cell_len

    left, figures = row_line(Row(name, estimate, share), width)
    assert cell_len(left) + len(figures) == width
    assert str(estimate) in figures


@given(st.lists(st.text("abc東", min_size=1, max_size=30), min_size=1, max_size=8), st.integers(4, 100))
def test_folded_lines_fit(parts: list[str], width: int) -> None:
    from rich.cells import cell_len

    lines = fold(parts, width)
    assert all(cell_len(line) <= width for line in lines)
    if all(cell_len(part) <= width - 2 for part in parts):
        # every part stands there whole
        assert all(any(part in line for line in lines) for part in parts)


def test_shorten() -> None:
    assert [shorten("example", n) for n in (7, 6, 1, 0)] == ["example", "examp…", "…", ""]

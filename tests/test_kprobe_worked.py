"""The worked values of kprobe.md 10.2 and 10.4, as records of kprobe on the captures they are about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from netprobe.export.jsonl import JsonlSink
from netprobe.export.runs import Replay

SCHEDULE = 2


@pytest.fixture
def folder(shared: Path) -> Path:
    return shared / "pcap" / "kprobe"


def records(path: Path, tmp_path: Path, timers: bool = False) -> list[dict[str, Any]]:
    """Of a run in which no timer fell into the file: one after 0 s reports the first packet alone."""
    for seed in range(100):
        target = tmp_path / "out"
        sink = JsonlSink(str(target))
        replay = Replay(str(path), seed=seed)
        for batch in replay.batches():
            sink.write(batch)
        replay.close()
        sink.close(None)
        found = [json.loads(line) for line in target.read_text().splitlines()]
        if timers or all(record["reason"] != SCHEDULE for record in found):
            return found
    raise AssertionError("a timer in every run")


def picked(record: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(record.get(name) for name in names)


COUNTS = ("out_pkts", "out_bytes")


def test_http(folder: Path, tmp_path: Path) -> None:
    request, response, *rest = records(folder / "google.com.pcap", tmp_path)
    assert picked(request, *COUNTS, "out_tcp_flags", "client_nw_latency_ms", "out_window") == (
        3,
        214,
        0x1A,
        1,
        29312,
    )
    assert picked(request, "http_url", "http_host", "http_ua") == ("/", "google.com", "curl/7.38.0")
    assert "http_status" not in request
    assert picked(response, *COUNTS, "out_tcp_flags", "server_nw_latency_ms", "out_window") == (
        3,
        635,
        0x1A,
        3,
        32768,
    )
    assert picked(response, "fpex_latency_ms", "appl_latency_ms", "http_status", "http_url") == (
        7,
        7,
        302,
        "/",
    )
    assert sorted(picked(r, "sport", *COUNTS) for r in rest) == [(80, 2, 80), (42370, 3, 120)]


def test_dns(folder: Path, tmp_path: Path) -> None:
    found = records(folder / "google.com-any.pcap", tmp_path)
    assert [picked(r, *COUNTS) for r in found] == [(1, n) for n in (56, 432, 64, 64, 80, 92)]
    replies = [r for r in found if r["sport"] == 53]
    assert [r["fpex_latency_ms"] for r in replies] == [44, 41, 42]
    assert picked(replies[0], "dns_query", "dns_query_type", "dns_ret_code", "appl_latency_ms") == (
        "google.com",
        255,
        0,
        44,
    )
    assert replies[0]["dns_response"] == (
        "172.217.26.14/A;2404:6800:4004:809::200e/AAAA;alt2.aspmx.l.google.com/MX;ns2.google.com/NS;;"
        "alt4.aspmx.l.google.com/MX;aspmx.l.google.com/MX;ns4.google.com/NS;alt3.aspmx.l.google.com/MX;"
        "alt1.aspmx.l.google.com/MX;v=spf1 include:_spf.google.com ~all/TXT;;"
        "ns1.google.com/NS;;ns3.google.com/NS"
    )
    found = records(folder / "sns-pb.isc.org.pcap", tmp_path)
    assert [r["out_bytes"] for r in found] == [60, 300]


def test_dhcp(folder: Path, tmp_path: Path) -> None:
    asked, given = records(folder / "dhcpv4.pcap", tmp_path)
    names = (
        "dhcp_op",
        "dhcp_msg_type",
        "dhcp_ci_addr",
        "dhcp_yi_addr",
        "dhcp_si_addr",
        "dhcp_ch_addr",
        "dhcp_hostname",
    )
    names += ("dhcp_domain", "dhcp_lease", "appl_latency_ms", "out_bytes")
    zero, client = "0.0.0.0", "00:1c:42:60:bb:37"
    assert picked(asked, *names) == (1, 3, zero, zero, zero, client, "chdev", None, None, None, 328)
    assert picked(given, *names) == (
        (2, 5, zero, "10.211.55.16", "10.211.55.1", client, "chdev", "localdomain", 1800, 1, 322)
    )


def test_radius(folder: Path, tmp_path: Path) -> None:
    def of(name: str) -> list[dict[str, Any]]:
        return records(folder / f"radius-{name}.pcap", tmp_path)

    names = (
        "radius_code",
        "radius_user_name",
        "radius_acct_status",
        "radius_framed_ip_addr",
        "appl_latency_ms",
    )
    assert [picked(r, *names) for r in of("acct-start")] == [
        (4, "bob", 1, "10.1.2.3", None),
        (5, None, None, None, 1),
    ]
    start, stop = of("acct-stop")
    assert picked(start, "radius_code", "radius_user_name", "radius_acct_status") == (4, "bob", 2)
    assert picked(stop, "radius_code", "appl_latency_ms") == (5, 1)
    names = (
        "radius_code",
        "radius_user_name",
        "radius_service_type",
        "radius_framed_ip_addr",
        "appl_latency_ms",
    )
    user, mask = "John.McGuirk", "255.255.255.254"
    assert [picked(r, *names) for r in of("auth-req")] == [
        (1, user, 2, None, None),
        (11, None, 2, mask, 2),
        (1, user, 2, None, None),
        (2, user, 2, mask, 1),
    ]


def test_retransmissions(folder: Path, tmp_path: Path) -> None:
    found = records(folder / "retransmits.pcap", tmp_path, timers=True)
    # longer than 15 s: several records per direction
    sums: dict[tuple[int, int], list[int]] = {}
    for record in found:
        count = sums.setdefault((record["sport"], record["dport"]), [0] * 5)
        for i, name in enumerate((*COUNTS, "out_retransmits", "out_repeats", "out_reordered")):
            count[i] += record[name]
    assert sums == {
        (52952, 2222): [12, 686, 8, 1, 0],
        (2222, 52952): [2, 112, 0, 0, 0],
        (52953, 2222): [10, 572, 6, 1, 0],
        (2222, 52953): [2, 112, 0, 0, 0],
    }


def test_padding_does_not_count(folder: Path, tmp_path: Path) -> None:
    (record,) = records(folder / "ipv4_eth_padding.pcap", tmp_path)
    assert record["out_bytes"] < 46

"""DHCP parsing and the dhcp handler, against scapy, tshark and the worked values of the metrics spec."""

import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP
from scapy.layers.dhcp import DHCP as DhcpOptions
from scapy.layers.dhcp6 import (
    DUID_LL,
    DHCP6_Advertise,
    DHCP6_RelayForward,
    DHCP6_Reply,
    DHCP6_Request,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptRelayMsg,
    DHCP6OptServerId,
)
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapReader, wrpcap

import netprobe
from netprobe._core.acc_dhcp import Dhcp
from netprobe._core.store import MetricBlock
from netprobe._core.wire.dhcp import parse_dhcp4, parse_dhcp6
from netprobe.handlers.dhcp import DHCP
from netprobe.metrics.table import bind

MS = 10**6
MAC = bytes.fromhex("784f437819bc")
SERVER_MAC = bytes.fromhex("b827eb0cb3e2")
INDEX = bind(DHCP, Dhcp)


def message(kind: str, xid: int = 1, **more: object) -> bytes:
    """A DHCPv4 message; `options` are scapy's."""
    options = more.pop("options", [])
    assert isinstance(options, list)
    head = BOOTP(op=1, xid=xid, chaddr=MAC + b"\0" * 10, **more)
    return bytes(head / DhcpOptions(options=[("message-type", kind), *options, "end"]))


def raw_message(options: bytes, sname: bytes = b"", file: bytes = b"") -> bytes:
    return bytes(BOOTP(chaddr=MAC, sname=sname, file=file, options=b"")) + b"\x63\x82\x53\x63" + options


def handler(ttl_ms: int = 5000) -> Dhcp:
    made = Dhcp(SimpleNamespace(groups=(), options={"xact_ttl_ms": ttl_ms}))
    made._open()  # type: ignore[attr-defined]
    return made


def count(block: MetricBlock, path: str) -> int:
    return block.counter(INDEX[path])


def rows(block: MetricBlock, path: str) -> list[tuple[bytes, int]]:
    return block.topn(INDEX[path])


# --- parsing --------------------------------------------------------------------------------------


def test_every_field() -> None:
    data = message(
        "request",
        0xDEADBEEF,
        yiaddr="192.168.2.205",
        options=[("server_id", "192.168.2.1"), ("hostname", b"Shannons-MBP"), ("requested_addr", "1.2.3.4")],
    )
    assert parse_dhcp4(data) == {
        "status": "ok",
        "op": 1,
        "htype": 1,
        "hlen": 6,
        "type": 3,
        "xid": bytes.fromhex("deadbeef"),
        "yiaddr": bytes([192, 168, 2, 205]),
        "chaddr": MAC + b"\0" * 10,
        "server_id": bytes([192, 168, 2, 1]),
        "hostname": b"Shannons-MBP",
    }


KINDS = ("discover", "offer", "request", "decline", "ack", "nak", "release", "inform")


@pytest.mark.parametrize("kind", KINDS)
def test_message_types(kind: str) -> None:
    assert parse_dhcp4(message(kind))["type"] == KINDS.index(kind) + 1


def test_overload_continues_in_file_then_sname() -> None:
    """RFC 2132 9.3 with RFC 3396: one hostname out of three fields, in the order options, file, sname."""
    data = raw_message(
        b"\x34\x01\x03\x35\x01\x03\x0c\x04aaaa\xff",
        sname=b"\0\0\x0c\x04cccc\xff",
        file=b"\x0c\x04bbbb\xff",
    )
    got = parse_dhcp4(data)
    assert got["status"] == "ok"
    assert got["hostname"] == b"aaaabbbbcccc"
    without = parse_dhcp4(data.replace(b"\x34\x01\x03", b"\x34\x01\x00"))
    assert without["hostname"] == b"aaaa"
    only_file = parse_dhcp4(data.replace(b"\x34\x01\x03", b"\x34\x01\x01"))
    assert only_file["hostname"] == b"aaaabbbb"


def test_overloaded_field_cannot_overload_again() -> None:
    data = raw_message(b"\x34\x01\x01\xff", sname=b"\x0c\x01c\xff", file=b"\x34\x01\x02\xff")
    assert parse_dhcp4(data)["hostname"] is None


def test_long_and_empty_hostnames() -> None:
    long = b"\x0c\xc8" + b"a" * 200
    assert parse_dhcp4(raw_message(long + long + b"\xff"))["hostname"] == b"a" * 255
    assert parse_dhcp4(raw_message(b"\x0c\x00\xff"))["hostname"] == b""
    assert parse_dhcp4(raw_message(b"\x0c\x03\xff\x00\xfe\xff"))["hostname"] == b"\xff\0\xfe"


def test_bootp_and_cut_messages() -> None:
    data = message("discover", options=[("hostname", b"abcdef")])
    assert parse_dhcp4(data[:235])["status"] == "short"
    assert parse_dhcp4(data[:236])["status"] == "bootp"
    assert parse_dhcp4(data[:236] + b"\0\0\0\0" + data[240:])["status"] == "bootp"
    assert parse_dhcp4(data[:236] + b"\0\0\0\0" + data[240:])["type"] == 0
    cut = parse_dhcp4(data[:-4])
    assert (cut["status"], cut["type"], cut["hostname"]) == ("bad options", 1, None)
    # no end option: tolerated, as everybody does
    assert parse_dhcp4(data[:-1])["status"] == "ok"


def test_v6_messages() -> None:
    identity = DHCP6OptClientId(duid=DUID_LL(lladdr="02:00:00:00:00:01"))
    server = DHCP6OptServerId(duid=DUID_LL(lladdr="02:00:00:00:00:02"))
    for made, kind, has_server in (
        (DHCP6_Solicit(trid=0x010203) / identity, 1, False),
        (DHCP6_Advertise(trid=0x010203) / identity / server, 2, True),
        (DHCP6_Request(trid=0x010203) / server / identity, 3, True),
        (DHCP6_Reply(trid=0x010203) / identity, 7, False),
    ):
        got = parse_dhcp6(bytes(made))
        assert got["status"] == "ok"
        assert (got["type"], got["has_server_id"], got["is_relay"]) == (kind, has_server, False)
        assert got["xid"] == b"\1\2\3"
    inner = bytes(DHCP6_Reply() / server)
    relay = parse_dhcp6(bytes(DHCP6_RelayForward(hopcount=4) / DHCP6OptRelayMsg(message=DHCP6_Reply(inner))))
    assert (relay["type"], relay["is_relay"], relay["hops"]) == (12, True, 4)
    # the inner message's server is not the relay message's
    assert relay["has_server_id"] is False
    assert parse_dhcp6(b"\1\2\3")["status"] == "short"
    assert parse_dhcp6(b"\x0c" + b"\0" * 30)["status"] == "short"
    assert parse_dhcp6(b"\7abc\0\2\0\4abc")["status"] == "bad options"
    assert parse_dhcp6(b"\7abc\0\2\0\4abc")["has_server_id"] is False


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_noise_is_read_safely(noise: bytes, plausible: bool) -> None:
    data = raw_message(noise) if plausible else noise
    assert parse_dhcp4(data)["status"] in ("ok", "short", "bootp", "bad options")
    assert parse_dhcp6(data)["status"] in ("ok", "short", "bad options")


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.one_of(st.none(), st.binary(min_size=1, max_size=60)),
    st.lists(st.tuples(st.integers(64, 200), st.binary(max_size=30)), max_size=5),
)
def test_options_among_others(kind: str, hostname: bytes | None, others: list[tuple[int, bytes]]) -> None:
    options: list[object] = [(number, value) for number, value in others]
    if hostname is not None:
        options.insert(len(options) // 2, ("hostname", hostname))
    got = parse_dhcp4(message(kind, options=options))
    assert got["status"] == "ok"
    assert got["hostname"] == hostname
    assert got["type"] == KINDS.index(kind) + 1


# --- handler --------------------------------------------------------------------------------------


def lease(acc: Dhcp, gap: int = 1, xid: int = 5, **request: object) -> None:
    """A REQUEST, and its ACK `gap` ns later."""
    acc._feed(message("request", xid, **request), 1000)  # type: ignore[attr-defined]
    acc._feed(message("ack", xid, yiaddr="10.0.0.9"), 1000 + gap)  # type: ignore[attr-defined]


def test_client_rows() -> None:
    acc = handler()
    lease(acc, options=[("hostname", b"box")])
    lease(acc)
    lease(acc, hlen=16)
    lease(acc, htype=32)
    lease(acc, options=[("hostname", b"caf\xe9/\xff")])
    block = acc._block()  # type: ignore[attr-defined]
    assert dict(rows(block, "top_clients")) == {
        b"78:4f:43:78:19:bc/box/10.0.0.9": 1,
        b"78:4f:43:78:19:bc/Unknown/10.0.0.9": 1,
        b"00:00:00:00:00:00/Unknown/10.0.0.9": 2,
        b"78:4f:43:78:19:bc/caf\xe9/\xff/10.0.0.9": 1,
    }
    assert count(block, "wire_packets.request") == count(block, "wire_packets.ack") == 5
    assert acc.open_transactions() == 0


@pytest.mark.parametrize(
    ("gap", "seen"), [(1500 * MS - 1, 1), (1500 * MS, 0), (-500 * MS, 1), (-1500 * MS, 0)]
)
def test_time_to_live_in_milliseconds(gap: int, seen: int) -> None:
    acc = handler(1500)
    lease(acc, gap)
    assert len(rows(acc._block(), "top_clients")) == seen  # type: ignore[attr-defined]
    assert acc.open_transactions() == 0


def test_acks_that_add_no_client() -> None:
    acc = handler()
    feed = acc._feed  # type: ignore[attr-defined]
    feed(message("ack", 1, yiaddr="10.0.0.9"), 5)
    feed(message("request", 2), 6)
    feed(message("ack", 3, yiaddr="10.0.0.9"), 7)
    feed(message("ack", 2, yiaddr="0.0.0.0"), 8)
    feed(message("ack", 2, yiaddr="10.0.0.9"), 9)
    feed(message("request", 4), 10)
    feed(message("ack", 4, yiaddr="10.0.0.9"), 11, deep=False)
    block = acc._block()  # type: ignore[attr-defined]
    assert rows(block, "top_clients") == []
    assert count(block, "wire_packets.ack") == 5
    assert count(block, "wire_packets.events") == 7
    assert count(block, "wire_packets.deep_samples") == 6
    # a REQUEST need not be deep, its ACK must
    feed(message("request", 6), 10, deep=False)
    feed(message("ack", 6, yiaddr="10.0.0.9"), 11)
    assert len(rows(acc._block(), "top_clients")) == 1  # type: ignore[attr-defined]


def test_rates(tmp_path: Path) -> None:
    """A message of either version in each of a hundred seconds; totals are DHCPv4's (metrics spec 8)."""
    ends = Ether() / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
    six = Ether() / IPv6(src="fe80::1", dst="ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit()
    frames = []
    for second in range(100):
        for frame in (ends / Raw(message("discover")), six):
            frames.append(frame.copy())
            frames[-1].time = 1_700_000_000 + second
    wrpcap(str(tmp_path / "x.pcap"), frames)
    shown = netprobe.summarize(tmp_path / "x.pcap", handlers="dhcp", periods=1).to_dict()["1m"]["dhcp"]
    for name, each in (("total", 1), ("events", 2)):
        assert shown["wire_packets"][name] == 100 * each
        assert shown["rates"][name] == dict.fromkeys(("p50", "p90", "p95", "p99"), each)


def test_period_shift_purges_by_milliseconds() -> None:
    acc = handler(1500)
    feed = acc._feed  # type: ignore[attr-defined]
    feed(message("request", 1), 0)
    feed(message("request", 2), 1000 * MS)
    closed = acc._shift(1500 * MS)  # type: ignore[attr-defined]
    assert count(closed, "wire_packets.request") == 2
    assert acc.open_transactions() == 1
    feed(message("ack", 2, yiaddr="10.0.0.9"), 1600 * MS)
    assert len(rows(acc._block(), "top_clients")) == 1  # type: ignore[attr-defined]


def test_server_rows() -> None:
    acc = handler()
    feed = acc._feed  # type: ignore[attr-defined]
    offer = message("offer", options=[("server_id", "192.168.2.1")])
    feed(offer, mac=SERVER_MAC)
    feed(offer, mac=SERVER_MAC, ether=False)
    feed(offer, mac=SERVER_MAC, deep=False)
    feed(message("offer"), mac=SERVER_MAC)
    feed(message("ack", options=[("server_id", "192.168.2.1")]), mac=SERVER_MAC)
    server = DHCP6OptServerId(duid=DUID_LL(lladdr="02:00:00:00:00:02"))
    source = bytes.fromhex("fe800000000000000000000000000001")
    feed(bytes(DHCP6_Advertise() / server), mac=SERVER_MAC, v6=True, src=source)
    feed(bytes(DHCP6_Reply() / server), mac=SERVER_MAC, v6=True, src=source)
    feed(bytes(DHCP6_Reply()), mac=SERVER_MAC, v6=True, src=source)
    feed(bytes(DHCP6_Request() / server), mac=SERVER_MAC, v6=True, src=source)
    feed(bytes(DHCP6_Solicit()), v6=True)
    block = acc._block()  # type: ignore[attr-defined]
    assert rows(block, "top_servers") == [
        (b"b8:27:eb:0c:b3:e2/fe80::1", 2),
        (b"b8:27:eb:0c:b3:e2/192.168.2.1", 1),
    ]
    # total is of DHCPv4 only
    names = ["total", "events", "offer", "ack", "solicit", "advertise", "request_v6", "reply", "filtered"]
    assert [count(block, f"wire_packets.{name}") for name in names] == [5, 10, 4, 1, 1, 1, 1, 2, 0]


def test_messages_that_count_only_in_total() -> None:
    acc = handler()
    feed = acc._feed  # type: ignore[attr-defined]
    for data in (message("nak"), message("inform"), b"", message("discover")[:236], raw_message(b"\x35\x09")):
        feed(data)
    feed(bytes(DHCP6_RelayForward()), v6=True)
    block = acc._block()  # type: ignore[attr-defined]
    assert count(block, "wire_packets.total") == 5
    assert count(block, "wire_packets.events") == 6
    kinds = ["discover", "offer", "request", "ack", "solicit", "advertise", "request_v6", "reply"]
    assert [count(block, f"wire_packets.{kind}") for kind in kinds] == [0] * 8


def test_chain_gets_what_was_accepted() -> None:
    acc = handler()
    assert acc._feed(message("discover")) is True  # type: ignore[attr-defined]


def test_flood_of_requests_stays_flat() -> None:
    acc = handler()
    feed = acc._feed  # type: ignore[attr-defined]
    plain = bytearray(message("request", options=[("hostname", b"h" * 60)]))
    for number in range(70_000):
        plain[4:8] = number.to_bytes(4, "big")
        feed(bytes(plain), number)
    assert acc.health() == {"open": 65536, "evicted": 70_000 - 65536, "unreadable": 0, "allocated": 65536}
    # the oldest went, the newest stayed
    feed(message("ack", 4463, yiaddr="10.0.0.9"), 70_000)
    assert rows(acc._block(), "top_clients") == []  # type: ignore[attr-defined]
    feed(message("ack", 4464, yiaddr="10.0.0.9"), 70_000)
    assert len(rows(acc._block(), "top_clients")) == 1  # type: ignore[attr-defined]


# --- captures -------------------------------------------------------------------------------------


def play(path: Path) -> Dhcp:
    """Feed a capture's DHCP messages, as the engine would."""
    acc = handler()
    for packet in PcapReader(str(path)):
        udp = packet.getlayer("UDP")
        if udp is None or not {udp.sport, udp.dport} & {67, 68, 546, 547}:
            continue
        v6 = not {udp.sport, udp.dport} & {67, 68}
        frame = bytes(packet.original)
        source = packet["IPv6" if v6 else "IP"].original[8:24]
        payload = bytes(udp.original)[8 : udp.len]
        acc._feed(payload, int(packet.time * 10**9), v6, frame[6:12], source)  # type: ignore[attr-defined]
    return acc


def test_worked_values(shared: Path) -> None:
    """Metrics spec 16.5 and 16.8."""
    block = play(shared / "pcap" / "pktvisor" / "dhcp-flow.pcap")._block()  # type: ignore[attr-defined]
    names = ["events", "total", "filtered", "discover", "offer", "request", "ack"]
    assert [count(block, f"wire_packets.{name}") for name in names] == [8, 8, 0, 1, 1, 3, 3]
    assert rows(block, "top_clients") == [
        (b"78:4f:43:78:19:bc/Shannons-MBP/192.168.2.205", 2),
        (b"32:47:73:53:0e:3d/Zenfone-8/192.168.2.248", 1),
    ]
    assert rows(block, "top_servers") == [(b"b8:27:eb:0c:b3:e2/192.168.2.1", 1)]


@pytest.mark.tool("tshark")
def test_recorded_against_tshark(captures: Path) -> None:
    path = captures / "dhcp.pcap"
    fields = ["dhcp.option.dhcp", "dhcpv6.msgtype"]
    command = ["tshark", "-r", str(path), "-Y", "dhcp || dhcpv6", "-T", "fields", "-E", "separator=,"]
    for field in fields:
        command += ["-e", field]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    four = Counter(line.split(",")[0] for line in shown)
    six = Counter(line.split(",")[1] for line in shown)
    assert sum(four.values()) > 4
    block = play(path)._block()  # type: ignore[attr-defined]
    expected = {
        "events": len(shown),
        "total": len(shown) - four[""],
        "discover": four["1"],
        "offer": four["2"],
        "request": four["3"],
        "ack": four["5"],
        "solicit": six["1"],
        "advertise": six["2"],
        "request_v6": six["3"],
        "reply": six["7"],
    }
    assert {name: count(block, f"wire_packets.{name}") for name in expected} == expected
    assert len(rows(block, "top_clients")) == 1
    assert len(rows(block, "top_servers")) == 2

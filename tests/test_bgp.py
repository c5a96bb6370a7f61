"""BGP framing and the bgp and pcap handlers, against hand-made messages, scapy and tshark."""

import random
import subprocess
from collections import Counter
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netprobe._core.bgp_stream import split
from netprobe._core.stream import StreamTester
from scapy.contrib.bgp import BGPHeader, BGPKeepAlive, BGPNotification, BGPOpen, BGPUpdate
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapReader, wrpcap

import netprobe
from netprobe._core.acc_bgp import Bgp
from netprobe._core.acc_pcap import Pcap
from netprobe._core.store import MetricBlock
from netprobe.handlers.bgp import BGP
from netprobe.handlers.pcap import PCAP
from netprobe.metrics.table import bind

MARKER = b"\xff" * 16
SHORTEST = {1: 29, 2: 23, 3: 21, 4: 19, 5: 23}


def made(kind: int, length: int = 0) -> bytes:
    length = max(length, SHORTEST.get(kind, 19))
    return MARKER + length.to_bytes(2, "big") + bytes([kind]) + b"\x01" * (length - 19)


def cut(data: bytes, points: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(edges)]


messages = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 2, 2, 3, 4, 4, 5]),
        st.one_of(st.just(0), st.integers(19, 200), st.integers(4000, 4096)),
    ),
    min_size=1,
    max_size=12,
)
points = st.lists(st.integers(0, 10**6), max_size=30)


@settings(max_examples=200, deadline=None)
@given(messages, points)
def test_any_segmentation(wanted: list[tuple[int, int]], at: list[int]) -> None:
    data = [made(kind, 19 if kind == 4 else length) for kind, length in wanted]
    told = split([(1, part) for part in cut(b"".join(data), at)])
    assert told == [(1, kind, len(one)) for (kind, _), one in zip(wanted, data, strict=True)]


def test_byte_by_byte_and_both_sides() -> None:
    one, two = made(1, 59) + made(4), made(2, 100)
    told = split(
        [part for a, b in zip(one, two, strict=False) for part in ((0, bytes([a])), (1, bytes([b])))]
    )
    assert told == [(0, 1, 59), (0, 4, 19)]
    told = split([(1, bytes([b])) for b in two])
    assert told == [(1, 2, 100)]


def test_scapy_messages() -> None:
    raw = b"".join(
        bytes(BGPHeader() / body)
        for body in (BGPOpen(my_as=64512, bgp_id="10.0.0.1"), BGPUpdate(), BGPNotification(error_code=6))
    ) + bytes(BGPKeepAlive())
    assert [kind for _, kind, _ in split([(0, raw)])] == [1, 2, 3, 4]


def test_extended_messages() -> None:
    """RFC 8654: everything but OPEN and KEEPALIVE may be longer than 4096."""
    for length in (4097, 65535):
        data = made(2, length) + made(4)
        assert split([(0, data)]) == [(0, 2, length), (0, 4, 19)]
        assert split([(0, part) for part in cut(data, list(range(0, 70_000, 1000)))]) == [
            (0, 2, length),
            (0, 4, 19),
        ]
    assert split([(0, made(1, 5000) + made(4))]) == [(0, 0, 0), (0, 4, 19)]
    assert split([(0, made(4, 4097) + made(4))]) == [(0, 0, 0), (0, 4, 19)]


def test_unknown_type_is_told_with_its_number() -> None:
    assert split([(0, made(77, 40) + made(4))]) == [(0, 77, 40), (0, 4, 19)]


@settings(max_examples=300, deadline=None)
@given(
    st.binary(min_size=1, max_size=60).filter(lambda noise: b"\xff" * 3 not in noise),
    st.integers(0, 3),
    points,
)
def test_damage_is_told_once_and_the_next_marker_found(noise: bytes, before: int, at: list[int]) -> None:
    """One event per unreadable place; the messages around it are all there, however the segments fall."""
    noise = noise.rstrip(b"\xff")
    if not noise:
        return
    if noise[0] == 0xFF:
        noise = b"\0" + noise
    data = made(4) * before + noise + made(2, 60) + made(4) + made(5)
    told = split([(0, part) for part in cut(data, at)])
    assert told == [(0, 4, 19)] * before + [(0, 0, 0), (0, 2, 60), (0, 4, 19), (0, 5, 23)]


@pytest.mark.parametrize("length", [0, 18])
def test_bad_length_is_told_once(length: int) -> None:
    bad = MARKER + length.to_bytes(2, "big") + b"\x02" + b"\0" * 40
    for size in (1000, 7, 1):
        data = bad + made(4)
        parts = [(0, data[i : i + size]) for i in range(0, len(data), size)]
        assert split(parts) == [(0, 0, 0), (0, 4, 19)]


def test_marker_hidden_in_what_looked_like_a_header() -> None:
    """The real header begins one to three bytes into the nineteen that were taken for one."""
    for shift in range(1, 19):
        data = b"\0" * shift + made(4) + made(2, 50)
        for at in range(len(data)):
            assert split([(0, data[:at]), (0, data[at:])]) == [(0, 0, 0), (0, 4, 19), (0, 2, 50)], (shift, at)


def test_marker_longer_than_sixteen() -> None:
    data = b"\0" + b"\xff" * 5 + made(4) + made(4)
    for at in range(len(data)):
        assert split([(0, data[:at]), (0, data[at:])]) == [(0, 0, 0), (0, 4, 19), (0, 4, 19)]


def test_search_is_not_fooled_by_ones_in_data() -> None:
    """While searching, a header that cannot be is passed over without being told."""
    garbage = b"x" + MARKER + b"\x00\x14\x04" + MARKER + b"\x00\x17\x09" + b"y" * 30
    assert split([(0, garbage + made(4))]) == [(0, 0, 0), (0, 4, 19)]


def test_not_bgp_at_all() -> None:
    noise = random.Random(5).randbytes(100_000)
    told = split([(0, noise[i : i + 1400]) for i in range(0, len(noise), 1400)])
    assert told == [(0, 0, 0)]


def test_gaps() -> None:
    update, keepalive = made(2, 100), made(4)
    # inside a body the framing is not lost
    assert split([(0, update[:50]), (0, 30), (0, update[80:] + keepalive)]) == [(0, 2, 100), (0, 4, 19)]
    # exactly the rest of a body
    assert split([(0, update[:50]), (0, 50), (0, keepalive)]) == [(0, 2, 100), (0, 4, 19)]
    # beyond it: that message is known, whole lost ones are not, the next is found
    assert split([(0, update[:50]), (0, 150), (0, update[:10]), (0, update[10:])]) == [
        (0, 2, 100),
        (0, 2, 100),
    ]
    assert split([(0, update[:50]), (0, 80), (0, update[30:] + keepalive)]) == [(0, 2, 100), (0, 4, 19)]
    # inside a header: nothing is known of it, and a gap is not an unreadable message
    assert split([(0, keepalive + update[:10]), (0, 20), (0, update[30:] + keepalive)]) == [(0, 4, 19)] * 2
    # between messages
    assert split([(0, keepalive), (0, 19), (0, keepalive)]) == [(0, 4, 19)] * 2
    # a gap while searching
    assert split([(0, b"zz" * 20), (0, 5), (0, keepalive)]) == [(0, 0, 0), (0, 4, 19)]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 10**6), st.just(made(2, 60)), st.just(MARKER)))
)
def test_noise_is_harmless(parts: list[bytes | int]) -> None:
    for _, kind, length in split([(0, part) for part in parts]):
        assert 0 <= kind <= 255
        assert length == 0 or 19 <= length <= 65535


@pytest.mark.tool("tshark")
def test_recorded_against_tshark(captures: Path) -> None:
    """Types of all messages of the recording, several in a segment included."""
    stream = StreamTester()
    for packet in PcapReader(str(captures / "bgp.pcap")):
        if TCP not in packet:
            continue
        tcp = packet[TCP]
        ip = packet[IP if IP in packet else IPv6]
        size = ip.len - ip.ihl * 4 if IP in packet else ip.plen
        payload = bytes(tcp.original)[tcp.dataofs * 4 : size]
        stream.feed(
            ip_address(ip.src).packed,
            tcp.sport,
            ip_address(ip.dst).packed,
            tcp.dport,
            tcp.seq,
            int(tcp.flags) & 0xFF,
            payload,
            int(packet.time * 10**9),
            tcp.ack,
        )
    sides: dict[tuple[int, int], list[tuple[int, bytes | int]]] = {}
    for event in stream.events:
        if event[1] != "closed":
            number, side, data, lost = event[:4]
            sides.setdefault((number, side), []).append((side, lost if data is None else data))
    got = Counter(kind for segments in sides.values() for _, kind, _ in split(segments))
    shown = subprocess.run(
        ["tshark", "-r", captures / "bgp.pcap", "-Y", "bgp", "-T", "fields", "-e", "bgp.type"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    expected = Counter(int(kind) for line in shown.splitlines() for kind in line.split(","))
    assert got == expected
    assert set(expected) == {1, 2, 3, 4, 5}


# --- handlers -------------------------------------------------------------------------------------


def test_tables_bind() -> None:
    assert len(bind(BGP, Bgp)) == 11
    assert len(bind(PCAP, Pcap)) == 3


def test_rates_and_deep_samples(tmp_path: Path) -> None:
    """Three messages in each of a hundred seconds; every other packet is looked into."""
    ends = Ether() / IP(src="10.0.0.1", dst="10.0.0.2")
    keepalive = MARKER + bytes([0, 19, 4])
    frames = [ends / TCP(sport=1000, dport=179, seq=99, flags="S")]
    for second in range(100):
        seq = 100 + second * 3 * len(keepalive)
        frames.append(ends / TCP(sport=1000, dport=179, seq=seq, flags="PA") / Raw(keepalive * 3))
    for second, frame in enumerate(frames):
        frame.time = 1_700_000_000 + second
    path = tmp_path / "x.pcap"
    wrpcap(str(path), frames)
    whole = netprobe.summarize(path, handlers="bgp", periods=1).to_dict()["1m"]["bgp"]
    assert whole["wire_packets"]["deep_samples"] == whole["wire_packets"]["total"] == 300
    for rate in ("total", "events"):
        assert whole["rates"][rate] == {"p50": 3, "p90": 3, "p95": 3, "p99": 3}
    half = netprobe.summarize(path, handlers="bgp", periods=1, deep_sample_rate=50).to_dict()["1m"]["bgp"]
    assert half["wire_packets"]["total"] == 300
    # messages of one packet share its fate; five standard deviations of a hundred draws
    assert half["wire_packets"]["deep_samples"] % 3 == 0
    assert 75 < half["wire_packets"]["deep_samples"] < 225


def test_pcap_drops_between_buckets_count() -> None:
    """Upstream starts over in each bucket; here no drop falls between two readings."""
    index = bind(PCAP, Pcap)
    acc = Pcap(SimpleNamespace(groups=(), options={}))
    feed, opened, block = acc._feed, acc._open, acc._block  # type: ignore[attr-defined]

    def values(of: MetricBlock) -> list[int]:
        return [of.counter(index[name]) for name in ("tcp_reassembly_errors", "os_drops", "if_drops")]

    assert opened(0) is None
    acc.on_stats(100, 5, 1)
    assert feed(3) == 3
    assert values(block()) == [3, 0, 0]
    acc.on_stats(200, 7, 1)
    assert values(opened(60)) == [3, 2, 0]
    acc.on_stats(300, 10, 4)
    assert values(block()) == [0, 3, 3]
    acc.on_stats(10, 0, 0)
    acc.on_stats(20, 2, 1)
    assert values(block()) == [0, 5, 4]

"""TCP stream reassembly against a model: what was sent is known, so what must come out is."""

import random
import subprocess
from collections import defaultdict
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netprobe._core.stream import StreamTester
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MS = 10**6
SECOND = 10**9
A, B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
WRAP = 2**32

Piece = bytes | int


class Connection:
    """Feeds one connection; sequence numbers are relative, 0 is the first byte of data."""

    def __init__(
        self, tester: StreamTester, isn: tuple[int, int] = (1000, 5000), ports: tuple[int, int] = (4000, 53)
    ) -> None:
        self.tester = tester
        self.isn = isn
        self.ports = ports
        self.ends = (A, B)

    def send(
        self,
        side: int,
        at: int = 0,
        data: bytes = b"",
        flags: int = ACK,
        ts: int = 0,
        ack: int = 0,
        **more: Any,
    ) -> None:
        self.tester.feed(
            self.ends[side],
            self.ports[side],
            self.ends[1 - side],
            self.ports[1 - side],
            (self.isn[side] + 1 + at) % WRAP,
            flags,
            data,
            ts,
            (self.isn[1 - side] + 1 + ack) % WRAP,
            **more,
        )

    def syn(self, side: int = 0, ts: int = 0, data: bytes = b"") -> None:
        self.send(side, -1, data, SYN | (ACK if side else 0), ts)

    def handshake(self, ts: int = 0) -> None:
        self.syn(0, ts)
        self.syn(1, ts)
        self.send(0, ts=ts)


def pieces(tester: StreamTester) -> dict[tuple[int, int], list[Piece]]:
    """(connection number, side) -> data and lengths of gaps, in order."""
    out: dict[tuple[int, int], list[Piece]] = defaultdict(list)
    for event in tester.events:
        if event[1] != "closed":
            number, side, data, length = event[:4]
            out[number, side].append(length if data is None else data)
    return dict(out)


def joined(tester: StreamTester, number: int = 1, side: int = 0) -> list[Piece]:
    """The same for one side, with neighbouring data joined."""
    out: list[Piece] = []
    for piece in pieces(tester).get((number, side), []):
        if isinstance(piece, bytes) and out and isinstance(out[-1], bytes):
            out[-1] += piece
        else:
            out.append(piece)
    return out


def closed(tester: StreamTester) -> list[int]:
    return [event[0] for event in tester.events if event[1] == "closed"]


# --- the model --------------------------------------------------------------------------------------


def content(n: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(n)


def segments_of(draw: Any, n: int) -> list[tuple[int, int]]:
    """(begin, end) of at most 40 segments that cover 0..n; some overlap, some come twice."""
    points = draw(st.lists(st.integers(0, n), max_size=20))
    edges = sorted({0, n, *points})
    spans = list(pairwise(edges))
    for begin, end in draw(st.lists(st.tuples(st.integers(0, n), st.integers(0, n)), max_size=10)):
        if begin != end:
            spans.append((min(begin, end), max(begin, end)))
    if spans:
        spans += draw(st.lists(st.sampled_from(spans), max_size=8))
    return spans


isns = st.one_of(st.integers(0, WRAP - 1), st.integers(WRAP - 3000, WRAP - 1))


@settings(max_examples=400, deadline=None)
@given(st.data(), st.tuples(isns, isns), st.booleans())
def test_nothing_lost(data: st.DataObject, isn: tuple[int, int], fins_first: bool) -> None:
    """Any segmentation, order, duplication, overlap; FINs and ACKs in any place; numbers that wrap."""
    tester = StreamTester()
    connection = Connection(tester, isn)
    sent = [content(data.draw(st.integers(0, 3000)), side) for side in (0, 1)]
    plan = [(side, *span) for side in (0, 1) for span in segments_of(data.draw, len(sent[side]))]
    plan += [(side, len(sent[side]), len(sent[side])) for side in (0, 1)]
    order = data.draw(st.permutations(plan))
    if fins_first:
        order = sorted(order, key=lambda item: item[1] != item[2])
    connection.handshake()
    for step, (side, begin, end) in enumerate(order):
        # in the capture an ACK may overtake the data that it confirms: for 20 ms nothing is given up
        ack = data.draw(st.integers(0, len(sent[1 - side]) + 1))
        flags = ACK | (FIN if begin == end else 0)
        connection.send(side, begin, sent[side][begin:end], flags, step * MS // 10, ack)
    for side in (0, 1):
        assert b"".join(pieces(tester).get((1, side), [])) == sent[side]  # type: ignore[arg-type]
    stats = tester.stats()
    assert stats["lost_segments"] == stats["lost_bytes"] == stats["held_bytes"] == 0
    assert (stats["opened"], stats["open"]) == (1, 0), "both FINs came"


@settings(max_examples=300, deadline=None)
@given(st.data(), isns, st.booleans())
def test_losses_are_told_exactly(data: st.DataObject, isn: int, with_fin: bool) -> None:
    """What no segment carried is told as a gap of that length in that place; the rest comes as sent."""
    tester = StreamTester()
    connection = Connection(tester, (isn, 0))
    sent = content(data.draw(st.integers(1, 3000)), 3)
    spans = segments_of(data.draw, len(sent))
    kept = [span for span in spans if data.draw(st.booleans())]
    connection.syn(0)
    for begin, end in data.draw(st.permutations(kept)):
        connection.send(0, begin, sent[begin:end], ts=5)
    if with_fin:
        connection.send(0, len(sent), flags=FIN | ACK, ts=6)
    tester.finish(7)

    have = {at for begin, end in kept for at in range(begin, end)}
    last = len(sent) if with_fin else max(have, default=-1) + 1
    expected: list[Piece] = []
    for at in range(last):
        if at in have:
            if expected and isinstance(expected[-1], bytes):
                expected[-1] += sent[at : at + 1]
            else:
                expected.append(sent[at : at + 1])
        elif expected and isinstance(expected[-1], int):
            expected[-1] += 1
        else:
            expected.append(1)
    assert joined(tester) == expected
    gaps = [piece for piece in expected if isinstance(piece, int)]
    assert tester.stats()["lost_segments"] == len(gaps)
    assert tester.stats()["lost_bytes"] == sum(gaps)
    assert tester.stats()["held_bytes"] == 0


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.booleans(),
            st.one_of(st.integers(0, 300), st.integers(0, WRAP - 1)),
            st.integers(0, 63),
            st.binary(max_size=20),
            st.one_of(st.integers(0, 3 * SECOND), st.integers(-(2**63), 2**63 - 1)),
            st.integers(0, WRAP - 1),
            st.one_of(st.none(), st.integers(0, 70000)),
        ),
        max_size=60,
    ),
    st.integers(0, 3),
)
def test_noise_is_harmless(packets: list[Any], limit: int) -> None:
    """No byte is told that was not offered, tables keep their limits, the end leaves nothing behind."""
    tester = StreamTester(limit=limit)
    for port, back, seq, flags, data, ts, ack, sent in packets:
        ends = [(A, 4000 + port), (B, 53)]
        (src, sport), (dst, dport) = reversed(ends) if back else ends
        wire = None if sent is None else max(sent, len(data))
        tester.feed(src, sport, dst, dport, seq, flags, data, ts, ack, sent=wire)
        assert tester.stats()["open"] <= (limit or 4)
    tester.finish(0)
    stats = tester.stats()
    assert (stats["open"], stats["used"], stats["held_bytes"], stats["app_bytes"]) == (0, 0, 0, 0)
    offered = sum(len(packet[4]) for packet in packets)
    told = sum(event[3] for event in tester.events if event[1] != "closed" and event[2] is not None)
    assert told <= offered
    for event in tester.events:
        if event[1] != "closed" and event[2] is not None:
            assert len(event[2]) == event[3] > 0


# --- connections ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "data", "opened"),
    [(ACK, b"", 0), (ACK | PSH, b"x", 1), (SYN, b"", 1), (FIN | ACK, b"", 1), (RST, b"", 1)],
)
def test_what_creates_a_connection(flags: int, data: bytes, opened: int) -> None:
    tester = StreamTester()
    Connection(tester).send(0, 0, data, flags)
    assert tester.stats()["opened"] == opened


def test_picked_up_in_the_middle() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.send(1, 700, b"world", ts=9)
    connection.send(0, 300, b"hello", ts=10)
    connection.send(1, 690, b"before it!", ts=11)
    connection.send(1, 705, b"!", ts=12)
    # side 0 is the sender of the first packet seen
    assert joined(tester, 1, 0) == [b"world!"]
    assert joined(tester, 1, 1) == [b"hello"]
    assert [event[4] for event in tester.events] == [9, 10, 12]
    assert [event[6] for event in tester.events] == [(B, 53), (A, 4000), (B, 53)]


def test_syn_with_data() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.syn(0, data=b"fast ")
    connection.syn(1)
    connection.send(0, 5, b"open")
    connection.syn(0, data=b"fast ")
    assert joined(tester) == [b"fast open"]


def test_keepalives() -> None:
    """Empty ones and those that repeat the last byte."""
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"abc")
    connection.send(0, 2)
    connection.send(0, 2, b"c")
    connection.send(0, 3, b"d")
    assert joined(tester) == [b"abcd"]


def test_ipv6_and_equal_ports() -> None:
    """Both directions are one connection even when the ports are the same."""
    tester = StreamTester()
    connection = Connection(tester, ports=(53, 53))
    connection.ends = (ip_address("2001:db8::1").packed, ip_address("2001:db8::2").packed)
    connection.send(0, 0, b"question")
    connection.send(1, 0, b"answer")
    assert pieces(tester) == {(1, 0): [b"question"], (1, 1): [b"answer"]}


def test_tunnelled_connections_are_told_apart() -> None:
    """Between two tunnel ends the outer addresses are all the same; the inner ones make the connection."""
    tester = StreamTester()
    connection = Connection(tester)
    hosts = [(b"\x0a\x01\0" + bytes([n]), b"\x0a\x02\0\1") for n in (1, 2)]
    hosts.append((bytes(15) + b"\1", bytes(15) + b"\2"))
    for data, back in ((b"question", False), (b" more", False), (b"answer", True)):
        for src, dst in hosts:
            at = 8 if data == b" more" else 0
            connection.send(back, at, data, inner=(dst, src) if back else (src, dst))
    assert pieces(tester) == {
        (number, side): [b"answer"] if side else [b"question", b" more"]
        for number in (1, 2, 3)
        for side in (0, 1)
    }
    # what does not look like an IP header is not taken for one
    connection.send(0, 0, b"x", inner=(b"\0" * 15, b""))
    assert tester.stats()["opened"] == 4


def test_flow_hash() -> None:
    tester = StreamTester()
    rng = random.Random(4)
    seen = set()
    for _ in range(2000):
        size = rng.choice([4, 16])
        one, two = rng.randbytes(size), rng.randbytes(size)
        ports = rng.randrange(65536), rng.randrange(65536)
        there = tester.flow_hash(one, ports[0], two, ports[1])
        assert there == tester.flow_hash(two, ports[1], one, ports[0])
        seen.add(there)
        # ports belong to their addresses, the protocol matters
        seen.add(tester.flow_hash(one, ports[1], two, ports[0]))
        seen.add(tester.flow_hash(one, ports[0], two, ports[1], 17))
    assert len(seen) == 6000


def test_reset_closes_and_its_text_is_no_data() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"abc")
    connection.send(0, 10, b"far")
    connection.send(1, 0, b"go away", RST)
    assert joined(tester) == [b"abc", 7, b"far"]
    assert joined(tester, 1, 1) == []
    assert closed(tester) == [1]


def test_one_fin_leaves_the_other_side_open() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"query", FIN | ACK)
    connection.send(1, 0, b"answer")
    connection.send(0, 6, b"not after a FIN")
    assert closed(tester) == []
    connection.send(1, 6, flags=FIN | ACK)
    assert closed(tester) == [1]
    assert pieces(tester) == {(1, 0): [b"query"], (1, 1): [b"answer"]}


def test_closed_connection_lingers_one_second_of_packet_time() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.send(0, 0, b"one", ts=0)
    connection.send(0, 3, flags=RST, ts=0)
    connection.send(0, 3, b"late", ts=SECOND - 1)
    assert tester.stats()["late"] == 1
    connection.send(0, 7, b"new", ts=SECOND)
    assert pieces(tester) == {(1, 0): [b"one"], (2, 0): [b"new"]}


def test_new_syn_opens_at_once_but_not_the_old_one_again() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"one")
    connection.send(1, 0, flags=RST)
    connection.syn(0, ts=5)
    connection.send(0, 0, b"late", ts=6)
    assert tester.stats()["opened"] == 1
    connection.isn = (70_000, 90_000)
    connection.handshake(ts=7)
    connection.send(0, 0, b"two", ts=8)
    assert pieces(tester) == {(1, 0): [b"one"], (2, 0): [b"two"]}


def test_tuple_used_again_without_an_end() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"one")
    connection.isn = (70_000, 90_000)
    connection.handshake(ts=5)
    connection.send(0, 0, b"two", ts=6)
    connection.send(1, 0, b"too", ts=7)
    assert pieces(tester) == {(1, 0): [b"one"], (2, 0): [b"two"], (2, 1): [b"too"]}
    assert closed(tester) == [1]


def test_syn_that_the_capture_delivers_late() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.send(0, 0, b"data ")
    connection.syn(0)
    connection.send(0, 5, b"first")
    assert pieces(tester) == {(1, 0): [b"data ", b"first"]}


# --- gaps -------------------------------------------------------------------------------------------


def test_gap_is_kept_until_the_receiver_had_it() -> None:
    """Upstream gives up as soon as the other side sends data; pipelined requests would be lost."""
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"aaa")
    connection.send(0, 6, b"ccc", ts=0)
    connection.send(1, 0, b"answer to a", ts=SECOND, ack=3)
    assert joined(tester) == [b"aaa"]
    connection.send(0, 3, b"bbb", ts=2 * SECOND)
    assert joined(tester) == [b"aaabbbccc"]
    assert tester.stats()["lost_segments"] == 0


def test_acknowledged_gap_is_given_up() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 3, b"bbb", ts=0, direction=0)
    connection.send(0, 9, b"ddd", ts=0, direction=0)
    connection.send(1, 0, ts=20 * MS - 1, ack=12, direction=1)
    assert joined(tester) == []
    connection.send(1, 0, ts=20 * MS, ack=3, direction=1)
    assert joined(tester) == [3, b"bbb"]
    connection.send(1, 0, ts=30 * MS, ack=12, direction=1)
    assert joined(tester) == [3, b"bbb", 3, b"ddd"]
    # what a packet of the other side lets go still bears its own sender and direction
    assert {event[5:] for event in tester.events} == {(0, (A, 4000))}


def test_acknowledged_fin_behind_a_gap() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 5, flags=FIN | ACK, ts=0)
    connection.send(1, 0, flags=FIN | ACK, ts=0)
    assert closed(tester) == []
    connection.send(1, 1, ts=25 * MS, ack=6)
    assert joined(tester) == [5]
    assert closed(tester) == [1]


def test_fifty_segments_wait() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    for number in range(1, 51):
        connection.send(0, 10 * number, b"%08d" % number)
    assert joined(tester) == []
    connection.send(0, 510, b"%08d" % 51)
    assert joined(tester) == [10, b"00000001"]
    connection.send(0, 520, b"%08d" % 52)
    assert joined(tester) == [10, b"00000001", 2, b"00000002"]
    # the one that fills nothing but lies before all that wait lets go as little
    connection.send(0, 28, b"34")
    assert joined(tester)[-1] == b"0000000234" + b"00000003"


def test_snap_length() -> None:
    """The part of a segment that the capture cut off is lost at once, in order or waiting."""
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"abc", sent=10)
    connection.send(0, 10, b"def", sent=10)
    connection.send(0, 30, b"xyz", sent=10)
    connection.send(0, 20, b"uvw", sent=10)
    assert joined(tester) == [b"abc", 7, b"def", 7, b"uvw", 7, b"xyz", 7]
    # a cut that spares the payload is none
    connection.send(0, 40, b"0123456789", sent=10)
    assert joined(tester)[-1] == b"0123456789"


def test_same_numbers_other_data() -> None:
    """Each byte once: the first copy that was delivered or waits counts."""
    tester = StreamTester()
    connection = Connection(tester)
    connection.handshake()
    connection.send(0, 0, b"GET /good")
    connection.send(0, 5, b"evil")
    connection.send(0, 12, b"yes")
    connection.send(0, 12, b"no!")
    connection.send(0, 9, b" - ")
    assert joined(tester) == [b"GET /good - yes"]


# --- time and limits --------------------------------------------------------------------------------


def test_idle_after_thirty_seconds() -> None:
    tester = StreamTester()
    quiet, busy = Connection(tester), Connection(tester, ports=(4001, 53))
    quiet.send(0, 0, b"a", ts=0)
    quiet.send(0, 5, b"waits", ts=0)
    busy.send(0, 0, b"b", ts=30 * SECOND - 1)
    assert closed(tester) == []
    busy.send(0, 1, b"b", ts=30 * SECOND)
    assert closed(tester) == [1]
    assert tester.stats()["idle_closed"] == 1
    assert joined(tester) == [b"a", 4, b"waits"]
    # it does not linger: a BGP session that speaks once a minute loses nothing
    quiet.send(0, 10, b"again", ts=31 * SECOND)
    assert joined(tester, 3) == [b"again"]


def test_own_packet_does_not_find_itself_idle() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    for minute in range(5):
        connection.send(0, minute, b"k", ts=minute * 60 * SECOND)
    assert pieces(tester) == {(1, 0): [b"k"] * 5}


def test_at_most_a_hundred_idle_closes_per_packet() -> None:
    tester = StreamTester()
    for port in range(250):
        Connection(tester, ports=(5000 + port, 53)).send(0, 0, b"x", ts=0)
    late = Connection(tester, ports=(4000, 53))
    counts = []
    for step in range(4):
        late.send(0, step, b"y", ts=60 * SECOND)
        counts.append(tester.stats()["idle_closed"])
    assert counts == [100, 200, 250, 250]


def test_clock_running_backwards() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    stamps = [10 * SECOND, 5 * SECOND, -(2**63), 2**63 - 1, 0]
    for number, ts in enumerate(stamps):
        connection.send(0, number, b"x", ts=ts)
    assert joined(tester) == [b"xxxxx"]
    # a lingering connection does not block its 5-tuple for ever when the clock was set back
    connection.send(0, 5, flags=RST, ts=100 * SECOND)
    connection.send(0, 6, b"new", ts=50 * SECOND)
    assert joined(tester, 2) == [b"new"]


def test_least_recently_used_is_evicted() -> None:
    tester = StreamTester(limit=2)
    one, two, three = (Connection(tester, ports=(4000 + n, 53)) for n in range(3))
    one.send(0, 0, b"1")
    two.send(0, 0, b"2")
    one.send(0, 1, b"1")
    three.send(0, 0, b"3")
    assert closed(tester) == [2]
    assert tester.stats()["evicted"] == 1
    one.send(0, 2, b"1")
    assert joined(tester) == [b"111"]


def test_flood_of_connections_stays_flat() -> None:
    tester = StreamTester(limit=1000, keep=100)
    for number in range(100_000):
        src = (0x0B000000 + number).to_bytes(4, "big")
        tester.feed(src, 4000, B, 53, 1, SYN, b"", number)
        if number % 2:
            tester.feed(src, 4000, B, 53, 1000, ACK, b"out of order", number)
    stats = tester.stats()
    assert stats["open"] == 1000
    assert stats["used"] <= stats["allocated"] <= 1000 + 65536
    assert stats["evicted"] == 99_000
    assert stats["held_bytes"] < 1000 * 100


def test_what_waits_already_takes_no_room() -> None:
    tester = StreamTester()
    connection = Connection(tester)
    connection.syn(0)
    connection.send(0, 10, b"x" * 100)
    held = tester.stats()["held_bytes"]
    assert held >= 100
    for _ in range(3):
        connection.send(0, 10, b"x" * 100)
        connection.send(0, 20, b"x" * 90)
    assert tester.stats()["held_bytes"] == held
    connection.send(0, 0, b"y" * 10)
    assert joined(tester) == [b"y" * 10 + b"x" * 100]


def test_flood_of_segments_stays_flat() -> None:
    """16 MiB of out-of-order data; beyond, gaps are given up at once, and the connection goes on."""
    tester = StreamTester(keep=1)
    body = b"x" * 1400
    peak = 0
    for number in range(600):
        connection = Connection(tester, ports=(4000 + number, 53))
        connection.syn(0)
        for step in range(1, 40):
            connection.send(0, 2000 * step, body)
        peak = max(peak, tester.stats()["held_bytes"])
    stats = tester.stats()
    assert 16_700_000 < peak <= 1 << 24
    assert stats["dropped_held"] > 0
    assert stats["lost_segments"] >= stats["dropped_held"] - 600
    tester.finish(0)
    assert tester.stats()["held_bytes"] == 0


def test_application_buffers_are_bounded() -> None:
    """Connections that make the application wait for 60 KB each: the oldest go."""
    tester = StreamTester(keep=65536)
    body = b"x" * 1000
    for number in range(700):
        connection = Connection(tester, ports=(4000 + number, 53))
        for step in range(60):
            connection.send(0, 1000 * step, body)
        assert tester.stats()["app_bytes"] <= (1 << 25) + 65536
    assert tester.stats()["evicted"] > 100
    tester.finish(0)
    assert tester.stats()["app_bytes"] == 0


# --- captures ---------------------------------------------------------------------------------------


def play(path: Path, tester: StreamTester) -> None:
    for packet in PcapReader(str(path)):
        if TCP not in packet:
            continue
        tcp = packet[TCP]
        ip = packet[IP] if IP in packet else packet[IPv6]
        size = ip.len - ip.ihl * 4 if IP in packet else ip.plen
        payload = bytes(tcp.original)[tcp.dataofs * 4 : size]
        cut = size - tcp.dataofs * 4
        tester.feed(
            ip_address(ip.src).packed,
            tcp.sport,
            ip_address(ip.dst).packed,
            tcp.dport,
            tcp.seq,
            int(tcp.flags) & 0xFF,
            payload,
            int(packet.time * 10**9),
            tcp.ack,
            sent=cut if cut != len(payload) else None,
        )
    tester.finish(0)


@pytest.mark.parametrize(("limit", "messages"), [(300_000, 420), (10, 140)])
def test_worked_value(shared: Path, limit: int, messages: int) -> None:
    """Metrics spec 16.4: one message per segment in this capture, and evicted connections linger."""
    tester = StreamTester(limit=limit)
    play(shared / "pcap" / "pktvisor" / "dns_ipv4_tcp.pcap", tester)
    data = [piece for side in pieces(tester).values() for piece in side]
    assert len(data) == messages
    assert all(
        isinstance(piece, bytes) and len(piece) == int.from_bytes(piece[:2], "big") + 2 for piece in data
    )


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", ["dns-tcp.pcap", "http.pcap", "bgp.pcap"])
def test_recorded_against_tshark(captures: Path, name: str) -> None:
    """The bytes of every connection and direction, as "follow stream" shows them."""
    tester = StreamTester()
    path = captures / name
    play(path, tester)
    got = pieces(tester)
    numbers = sorted({number for number, _ in got})
    assert numbers
    for number in numbers:
        shown = subprocess.run(
            ["tshark", "-r", path, "-q", "-z", f"follow,tcp,raw,{number - 1}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        start = next(i for i, line in enumerate(shown) if line.startswith("Node 1"))
        sides = [b"", b""]
        for line in shown[start + 1 :]:
            if line and not line.startswith("="):
                sides[line.startswith("\t")] += bytes.fromhex(line.strip())
        assert [b"".join(got.get((number, side), [])) for side in (0, 1)] == sides  # type: ignore[arg-type]


def test_snap_length_adds_up(captures: Path) -> None:
    """Data and gaps of the cut recording are as long as the data of the whole one."""
    lengths = []
    for name in ("http.pcap", "http-snap96.pcap"):
        tester = StreamTester()
        play(captures / name, tester)
        total: dict[tuple[int, int], int] = defaultdict(int)
        for key, side in pieces(tester).items():
            for piece in side:
                total[key] += piece if isinstance(piece, int) else len(piece)
        lengths.append(dict(total))
    assert lengths[0] == lengths[1]
    assert tester.stats()["lost_bytes"] > 0

"""Fragment reassembly, against scapy's fragment() and fragment6()."""

import random
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netprobe._core.fragment import FragTester
from scapy.layers.inet import IP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.packet import Raw
from scapy.utils import PcapReader

SECOND = 10**9
DEEP = 1
REASSEMBLED = 64


def payload(n: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(n)


def datagram4(n: int, ident: int = 7, **more: object) -> IP:
    head = IP(src="10.0.0.1", dst="10.0.0.2", id=ident, **more)
    return head / UDP(sport=53, dport=4000) / Raw(payload(n, ident))


def whole4(packet: IP) -> bytes:
    """The unfragmented bytes with checksum and flags zeroed, as netprobe builds them."""
    raw = bytearray(bytes(packet))
    raw[6:8] = raw[10:12] = b"\0\0"
    return bytes(raw)


def pieces4(packet: IP, size: int) -> list[bytes]:
    return [bytes(piece) for piece in fragment(packet, size)]


def raw4(off: int, data: bytes, more: bool, ident: int = 7, length: int | None = None) -> bytes:
    """By hand, so that it may contradict itself, and thousands take no time; without a checksum."""
    total = 20 + (len(data) if length is None else length)
    ends = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    return struct.pack(">BBHHHBBH", 0x45, 0, total, ident, off // 8 | more << 13, 64, 17, 0) + ends + data


def datagram6(n: int, ident: int, extensions: bool = False) -> IPv6:
    head = IPv6(src="2001:db8::1", dst="2001:db8::2")
    if extensions:
        head = head / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    return head / IPv6ExtHdrFragment(id=ident) / UDP(sport=53, dport=4000) / Raw(payload(n, ident))


def whole6(packet: IPv6) -> bytes:
    """The datagram without its fragment header, built by scapy from the same layers."""
    packet = packet.copy()
    before = packet
    while not isinstance(before.payload, IPv6ExtHdrFragment):
        before = before.payload
    inner = before.payload.payload.copy()
    before.remove_payload()
    packet = packet / inner
    return bytes(packet)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ipv4_any_order_with_copies(data: st.DataObject) -> None:
    packets = [
        datagram4(data.draw(st.integers(100, 4000)), ident, options=[IPOption_NOP()] * (ident % 3 * 4))
        for ident in range(3)
    ]
    cut = []
    for packet in packets:
        # fewer pieces than a datagram may have
        sizes = [size for size in (8, 64, 520, 1480) if len(packet) < 200 * size]
        cut.append(pieces4(packet, data.draw(st.sampled_from(sizes))))
    flat = [piece for pieces in cut for piece in pieces]
    # copies of pieces whose datagram is still open: before the last of its pieces
    order = data.draw(st.permutations(flat))
    left = {ident: len(pieces) for ident, pieces in enumerate(cut)}
    tester = FragTester()
    done = {}
    copies = 0
    for piece in order:
        ident = int.from_bytes(piece[4:6], "big")
        result = tester.feed(piece)
        left[ident] -= 1
        if left[ident] and data.draw(st.booleans()):
            assert tester.feed(piece) is None
            copies += 1
        if result:
            assert left[ident] == 0
            done[ident] = result
    for ident, packet in enumerate(packets):
        if len(cut[ident]) == 1:
            continue
        got, wirelen, proto, flags = done[ident]
        assert got == whole4(packet)
        assert wirelen == sum(map(len, cut[ident]))
        assert (proto, flags) == (17, DEEP | REASSEMBLED)
    stats = tester.stats()
    assert stats["duplicates"] == copies
    assert stats["held_bytes"] == stats["datagrams"] == 0
    assert stats["overlapped"] == stats["evicted"] == stats["expired"] == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_ipv6_any_order(data: st.DataObject) -> None:
    packet = datagram6(data.draw(st.integers(1500, 6000)), 99, data.draw(st.booleans()))
    pieces = [bytes(piece) for piece in fragment6(packet, 1280)]
    assert len(pieces) > 1
    tester = FragTester()
    results = [tester.feed(piece) for piece in data.draw(st.permutations(pieces))]
    assert results[:-1] == [None] * (len(pieces) - 1)
    assert results[-1] is not None
    got, wirelen, proto, _ = results[-1]
    assert got == whole6(packet)
    assert wirelen == sum(map(len, pieces))
    assert proto == 17


def test_ipv6_key_has_no_protocol() -> None:
    """RFC 8200: only the first fragment's next header counts."""
    pieces = [bytearray(bytes(piece)) for piece in fragment6(datagram6(3000, 5), 1280)]
    for piece in pieces[1:]:
        piece[40] = 6
    tester = FragTester()
    results = [tester.feed(bytes(piece)) for piece in reversed(pieces)]
    assert results[-1] is not None
    assert results[-1][2] == 17


def test_interleaved_with_same_id() -> None:
    """The same id between other addresses, or with another protocol, is another datagram."""
    packets = [
        IP(src=src, dst="10.0.0.2", id=7, proto=proto) / Raw(payload(3000, proto + len(src)))
        for src in ("10.0.0.1", "10.0.0.11")
        for proto in (17, 6)
    ]
    columns = zip(*(pieces4(packet, 1480) for packet in packets), strict=True)
    tester = FragTester()
    results = [tester.feed(piece) for column in columns for piece in column]
    assert [result[0] for result in results if result] == [whole4(packet) for packet in packets]


def test_atomic_fragment_stands_alone() -> None:
    """RFC 6946: an atomic fragment neither waits nor disturbs another datagram with its number."""
    packet = datagram6(3000, 77)
    pieces = [bytes(piece) for piece in fragment6(packet, 1280)]
    atom = datagram6(30, 77)
    tester = FragTester()
    assert tester.feed(pieces[0]) is None
    result = tester.feed(bytes(atom))
    assert result is not None
    assert result[0] == whole6(atom)
    results = [tester.feed(piece) for piece in pieces[1:]]
    assert results[-1] is not None
    assert results[-1][0] == whole6(packet)


def test_link_header_is_skipped() -> None:
    packet = datagram4(3000)
    tester = FragTester()
    results = [tester.feed(b"\x02" * 14 + piece, skip=14) for piece in pieces4(packet, 1480)]
    assert results[-1] is not None
    assert results[-1][0] == whole4(packet)


def test_padding_is_no_payload() -> None:
    """Ethernet pads short frames; what stands behind the IP length is not part of the fragment."""
    packet = datagram4(1482)
    pieces = pieces4(packet, 1480)
    tester = FragTester()
    results = [tester.feed(piece + b"\xaa" * 30) for piece in pieces]
    assert results[-1] is not None
    assert results[-1][0] == whole4(packet)


OVERLAPS = {
    "teardrop": [raw4(0, b"a" * 48, True), raw4(24, b"b" * 8, False)],
    "same place, other bytes": [raw4(0, b"a" * 48, True), raw4(0, b"b" * 48, True)],
    "longer": [raw4(0, b"a" * 48, True), raw4(0, b"a" * 56, True)],
    "into the next": [raw4(48, b"a" * 48, True), raw4(0, b"b" * 56, True)],
    "same place, now the last": [raw4(48, b"a" * 48, True), raw4(48, b"a" * 48, False)],
}


@pytest.mark.parametrize("pieces", OVERLAPS.values(), ids=OVERLAPS)
def test_overlap_throws_the_datagram_out(pieces: list[bytes]) -> None:
    tester = FragTester()
    for piece in pieces:
        assert tester.feed(piece) is None
    assert tester.stats()["overlapped"] == 1
    assert tester.stats()["held_bytes"] == 0
    # the rest of it does not start again: a clean set of the same id is not believed for 60 s
    clean = [raw4(0, b"x" * 48, True), raw4(48, b"y" * 8, False)]
    assert [tester.feed(piece, 59 * SECOND) for piece in clean] == [None, None]
    assert tester.stats()["late"] == 2
    assert tester.feed(clean[0], 60 * SECOND) is None
    assert tester.feed(clean[1], 60 * SECOND) is not None


CONTRADICTIONS = {
    "two ends": [raw4(48, b"a" * 8, False), raw4(80, b"a" * 8, False)],
    "end before data": [raw4(48, b"a" * 8, True), raw4(8, b"a" * 8, False)],
    "data behind the end": [raw4(48, b"a" * 8, False), raw4(80, b"a" * 8, True)],
    "ping of death": [raw4(65528, b"a" * 40, False)],
    "nothing in it": [raw4(48, b"", True)],
    "not a multiple of 8": [raw4(0, b"a" * 13, True)],
    "header over 65535 with it": [
        *(raw4(at, b"a" * 1024, True) for at in range(0, 64512, 1024)),
        raw4(64512, b"a" * 1016, False),
    ],
    "length under the header": [raw4(0, b"a" * 8, True, length=-1)],
}


@pytest.mark.parametrize("spare", [0, -1])
def test_the_longest_datagram(spare: int) -> None:
    """RFC 791: header and payload have at most 65535 bytes."""
    tester = FragTester()
    for at in range(0, 64512, 1024):
        assert tester.feed(raw4(at, b"a" * 1024, True)) is None
    got = tester.feed(raw4(64512, b"a" * (65535 - 20 - 64512 - spare), False))
    assert tester.stats()["malformed"] == (spare < 0)
    assert (got is None) == (spare < 0)
    if got is not None:
        assert len(got[0]) == 65535


@pytest.mark.parametrize("pieces", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradiction_is_counted(pieces: list[bytes]) -> None:
    tester = FragTester()
    for piece in pieces:
        assert tester.feed(piece) is None
    assert tester.stats()["malformed"] >= 1
    assert tester.stats()["held_bytes"] == 0


def test_too_many_pieces() -> None:
    tester = FragTester()
    for at in range(0, 257 * 8, 8):
        assert tester.feed(raw4(at, b"a" * 8, True)) is None
    assert tester.stats()["malformed"] == 1
    assert tester.stats()["held_bytes"] == 0


def test_snap_length_spoils_the_datagram() -> None:
    pieces = pieces4(datagram4(3000), 1480)
    tester = FragTester()
    assert tester.feed(pieces[0][:400], wirelen=1500) is None
    assert [tester.feed(piece) for piece in pieces[1:]] == [None] * (len(pieces) - 1)
    # nor does the whole piece, sent again, save it
    assert tester.feed(pieces[0]) is None
    assert tester.stats()["cut"] == 1
    assert tester.stats()["held_bytes"] == 0


def test_first_piece_that_was_cut_is_shown_if_that_is_wanted() -> None:
    pieces = pieces4(datagram4(3000), 1480)
    tester = FragTester(show_cut=True)
    got = tester.feed(pieces[0][:400], wirelen=1500)
    assert got is not None
    data, wirelen, proto, _ = got
    assert (len(data), wirelen, proto) == (400, 1500, 17)
    assert data[2:4] == (400).to_bytes(2, "big")
    assert data[6:8] == b"\0\0"
    assert data[20:] == pieces[0][20:400]
    assert [tester.feed(piece[:400], wirelen=1500) for piece in pieces] == [None] * len(pieces)
    assert tester.stats()["cut"] == 1


def test_sixty_seconds() -> None:
    """RFC 8200 4.5; kprobe.md 3.8 and 12."""
    first, last = pieces4(datagram4(2000), 1480)
    tester = FragTester()
    assert tester.feed(first, 0) is None
    assert tester.feed(last, 60 * SECOND) is None
    assert tester.stats()["expired"] == 1
    assert tester.feed(first, 119 * SECOND) is not None, "the late last piece began anew"
    assert tester.stats()["expired"] == 1


def test_clock_running_backwards() -> None:
    tester = FragTester()
    first, last = pieces4(datagram4(2000), 1480)
    assert tester.feed(first, 10 * SECOND) is None
    assert tester.feed(last, 9 * SECOND) is not None
    for stamp in (2**63 - 1, -(2**63), 0, 5):
        tester.feed(first, stamp)
    assert tester.stats()["datagrams"] == 1


def test_flood_stays_flat() -> None:
    tester = FragTester(limit=500, byte_limit=100_000)
    body = payload(1000)
    for ident in range(20_000):
        tester.feed(raw4(8, body, True, ident & 0xFFFF))
        assert tester.stats()["held_bytes"] <= 100_000
    stats = tester.stats()
    assert stats["datagrams"] <= 500
    assert stats["allocated"] <= 512
    assert stats["evicted"] + stats["datagrams"] == 20_000
    # small ones run into the other limit
    tester = FragTester(limit=500, byte_limit=100_000_000)
    for ident in range(20_000):
        tester.feed(raw4(8, b"12345678", True, ident & 0xFFFF))
    assert tester.stats()["datagrams"] == 500
    assert tester.stats()["evicted"] == 19_500


def test_what_was_given_up_already_is_not_evicted() -> None:
    tester = FragTester(limit=3)
    for piece in (raw4(0, b"a" * 48, True, 1), raw4(24, b"b" * 8, False, 1)):
        tester.feed(piece)
    for ident in (2, 3, 4):
        tester.feed(raw4(0, b"a" * 8, True, ident))
    assert (tester.stats()["overlapped"], tester.stats()["evicted"]) == (1, 0)
    tester.feed(raw4(0, b"a" * 8, True, 5))
    assert tester.stats()["evicted"] == 1


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=120), st.booleans(), st.integers(0, 3)), max_size=12))
def test_noise_is_harmless(parts: list[tuple[bytes, bool, int]]) -> None:
    tester = FragTester(limit=4, byte_limit=2000)
    for body, plausible, kind in parts:
        raw = bytearray(body)
        if plausible and len(raw) >= 48:
            raw[0] = 0x45 if kind < 2 else 0x60
            raw[6] = raw[6] & 0x3F if kind < 2 else (0, 44, 60, 43)[kind]
            raw[2:4] = (len(raw) - kind).to_bytes(2, "big") if kind < 2 else raw[2:4]
        tester.feed(bytes(raw), kind * SECOND)
        assert tester.stats()["held_bytes"] <= 2000


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", ["dns-fragments.pcap", "icmp.pcap"])
def test_recorded_against_tshark(captures: Path, name: str) -> None:
    """The same datagrams become complete in the same frames, with the same length."""
    wanted = "ip.reassembled.length || ipv6.reassembled.length"
    fields = ["frame.number", "ip.reassembled.length", "ipv6.reassembled.length"]
    options = [word for field in fields for word in ("-e", field)]
    shown = subprocess.run(
        ["tshark", "-r", captures / name, "-Y", wanted, "-T", "fields", "-E", "separator=,", *options],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split(",") for line in shown.splitlines()]
    expected = {int(number): int(v4 or v6) for number, v4, v6 in rows}
    assert expected
    tester = FragTester()
    got = {}
    for number, packet in enumerate(PcapReader(str(captures / name)), 1):
        if IP in packet and (packet[IP].flags.MF or packet[IP].frag):
            part = packet[IP]
        elif IPv6ExtHdrFragment in packet:
            part = packet[IPv6]
        else:
            continue
        result = tester.feed(part.original, int(part.time * SECOND))
        if result:
            got[number] = len(result[0]) - (20 if IP in packet else 40)
    assert got == expected

"""What the kernel keeps of packets that no handler reads, against scapy's view of the same packets."""

import contextlib
import ctypes
import random
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import netprobe
from netprobe.inputs.live_filter import CORE_TAGGED, EVERYTHING, HEADERS, READ_PORTS, live_filters

ETHERNET, RAW = 1, 101
SO_ATTACH_FILTER = 26
DECODE = Path(__file__).parents[1] / "netprobe" / "_core" / "decode.pyx"


class Kernel:
    """This kernel runs a program over bytes: a socket pair needs no rights and has the same filters."""

    def __init__(self, rows: Sequence[tuple[int, int, int, int]]) -> None:
        code = b"".join(struct.pack("=HBBI", *row) for row in rows)
        self._room = ctypes.create_string_buffer(code, len(code))
        self.ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        program = struct.pack("HL", len(rows), ctypes.addressof(self._room))
        self.ends[1].setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)

    def kept(self, frame: bytes) -> int | None:
        """How many bytes are left of it; None: it was dropped."""
        self.ends[0].send(frame)
        try:
            got = self.ends[1].recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        assert frame.startswith(got)
        return len(got)


@contextlib.contextmanager
def kernel(rows: Sequence[tuple[int, int, int, int]]) -> Iterator[Kernel]:
    made = Kernel(rows)
    try:
        yield made
    finally:
        for end in made.ends:
            end.close()


def rows_of(expression: str | None, *, headers: bool = True, tagged: bool = False) -> list[tuple[int, ...]]:
    """The kernel's program; whether a frame had a tag, which it asks aside, is answered here."""
    rows, _, mode = live_filters(expression, headers=headers)(ETHERNET)
    if mode == CORE_TAGGED:
        assert rows[1][0] == 0x15
        rows = [(0x00, 0, 0, 1 if tagged else 0), *rows[1:]]
    return rows


def frames() -> list[bytes]:
    from scapy.all import (
        ARP,
        GRE,
        IP,
        TCP,
        UDP,
        Dot1Q,
        Ether,
        IPv6,
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
        Raw,
        fragment,
    )  # fmt: skip

    def link() -> Ether:
        # both given, or scapy would ask the network
        return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")

    rng = random.Random(2)
    ports = [*READ_PORTS, 80, 443, 52, 54, 1024, 40000, 65535, 66, 69, 545, 548, 178, 180]
    found = []
    for _ in range(1000):
        upper = rng.choice([TCP, UDP])(sport=rng.choice(ports), dport=rng.choice(ports))
        body = Raw(rng.randbytes(rng.choice([0, 20, 100, 150, 151, 200, 1200])))
        lower = rng.choice(
            [
                IP(src="10.0.0.1", dst="10.0.0.2"),
                IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01\x01\x01\x00"),
                IP(src="10.0.0.1", dst="10.0.0.2", flags="MF"),
                IP(src="10.0.0.1", dst="10.0.0.2", frag=100),
                IPv6(src="fd00::1", dst="fd00::2"),
                IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrDestOpt(),
                IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment(m=1, id=5),
                IP(src="10.0.0.1", dst="10.0.0.2") / GRE() / IP(src="10.1.0.1", dst="10.1.0.2"),
            ]
        )
        below = rng.choice([link(), link(), link(), link() / Dot1Q(vlan=5)])
        found.append(bytes(below / lower / upper / body))
    found += [bytes(link() / ARP() / Raw(bytes(300))), bytes(300), b"", bytes(13)]
    found += [
        bytes(link() / one)
        for one in fragment(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=53) / Raw(bytes(4000)), 1000)
    ]
    # cut and damaged ones: none may be dropped
    return found + [frame[: rng.randrange(len(frame) + 1)] for frame in found]


def headers_of(frame: bytes) -> int | None:
    """What is kept if it is a datagram whose headers are enough, as scapy sees it."""
    from scapy.all import IP, TCP, UDP, Ether, IPv6

    seen = Ether(frame)
    below = seen.payload
    if isinstance(below, IP):
        if below.version != 4 or below.ihl != 5 or below.frag or below.flags.MF:
            return None
    elif not isinstance(below, IPv6):
        return None
    upper = below.payload
    if not isinstance(upper, TCP | UDP) or {upper.sport, upper.dport} & set(READ_PORTS):
        return None
    return HEADERS[below.version, 6 if isinstance(upper, TCP) else 17]


def wanted(frame: bytes) -> int:
    return (headers_of(frame) if len(frame) > max(HEADERS.values()) else None) or len(frame)


def test_no_header_is_longer_than_what_is_kept() -> None:
    ethernet, longest = 14, {4: 20, 6: 40}
    for (version, protocol), kept in HEADERS.items():
        assert ethernet + longest[version] + (60 if protocol == 6 else 8) <= kept


def test_headers_of_what_nobody_reads() -> None:
    cut = 0
    with kernel(rows_of(None)) as program:
        for frame in frames():
            assert program.kept(frame) == wanted(frame), frame.hex()
            cut += wanted(frame) < len(frame)
    assert cut > 30


def short_datagrams() -> list[bytes]:
    """IP headers that leave no room for the next one, in frames that have it."""
    from scapy.all import IP, TCP, UDP, Ether, IPv6, Raw

    link, body = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02"), Raw(bytes(200))
    found = []
    for upper in (TCP(sport=1, dport=2), TCP(sport=1, dport=2, dataofs=15), UDP(sport=1, dport=2)):
        for room in (0, 1, 4, 7, 8, 16, 19, 20, 59, 60):
            found.append(bytes(link / IP(src="10.0.0.1", dst="10.0.0.2", len=20 + room) / upper / body))
            # a length of 0 is a jumbogram's
            found.append(bytes(link / IPv6(src="fd00::1", dst="fd00::2", plen=room or 2) / upper / body))
    return found


def captured(path: Path, packets: Sequence[tuple[bytes, int]]) -> Path:
    """A capture of (bytes, length on the wire)."""
    records = [struct.pack("<IIII", at, 0, len(kept), wire) + kept for at, (kept, wire) in enumerate(packets)]
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1) + b"".join(records))
    return path


def test_what_is_cut_counts_as_if_it_were_whole(tmp_path: Path) -> None:
    """Also what is wrong with it: the snap length does not excuse what the datagram itself leaves out."""
    every = [frame for frame in (*frames(), *short_datagrams()) if frame]
    with kernel(rows_of(None)) as program:
        cut = [(frame[: program.kept(frame)], len(frame)) for frame in every]
    assert any(len(kept) < wire for kept, wire in cut[-len(short_datagrams()) :])
    handlers = ["net:1.0+all,net:2.0+all,dns,dhcp,bgp,pcap"]
    live, file = (
        netprobe.summarize(captured(tmp_path / name, packets), handlers=handlers, periods=1)
        for name, packets in (("cut", cut), ("whole", [(frame, len(frame)) for frame in every]))
    )
    assert live.to_dict() == file.to_dict()
    assert live.stats == file.stats
    assert file.stats["malformed"]["l4_short"] > 20


@pytest.mark.parametrize(
    "expression", ["udp", "tcp port 80 or udp port 53", "greater 300", "not ip6", "vlan"]
)
def test_a_filter_drops_what_it_dropped(expression: str) -> None:
    dropped = 0
    with kernel(rows_of(expression)) as short, kernel(rows_of(expression, headers=False)) as whole:
        for frame in frames():
            kept = whole.kept(frame)
            dropped += kept is None
            assert short.kept(frame) == (None if kept is None else wanted(frame)), frame.hex()
    assert dropped


def test_frames_with_a_tag_stay_whole_for_the_core() -> None:
    with kernel(rows_of("udp", tagged=True)) as program:
        for frame in frames():
            assert program.kept(frame) == len(frame)


def test_other_links_and_small_snap_lengths_are_left_alone() -> None:
    for linktype, snaplen in ((RAW, EVERYTHING), (-1, EVERYTHING), (ETHERNET, 64)):
        rows = live_filters(None, snaplen)(linktype)
        again = live_filters(None, snaplen, headers=True)(linktype)
        assert (rows[0], rows[2]) == (again[0], again[2])


def test_ports_are_those_of_the_decoder() -> None:
    text = DECODE.read_text()
    functions = re.findall(r"uint8_t ports_app_\w+\(.*?\n\n\n", text, re.DOTALL)
    assert len(functions) == 2
    assert {int(port) for one in functions for port in re.findall(r"[ab] == (\d+)", one)} == set(READ_PORTS)

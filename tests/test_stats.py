"""Summary.stats: what is counted beside the metrics, against tshark and by arithmetic."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

import netprobe

CAPTURES = Path(__file__).resolve().parent / "captures"
TOPN_CAPACITY = 6144  # docs/architecture.md


@pytest.mark.tool("tshark")
@pytest.mark.parametrize(
    ("name", "handlers", "port"), [("dns-tcp.pcap", "dns", 53), ("bgp.pcap", "bgp", 179)]
)
def test_streams_opened(name: str, handlers: str, port: int) -> None:
    """One per TCP connection on a port that the handlers read."""
    command = ["tshark", "-r", CAPTURES / name, "-Y", f"tcp.port=={port}", "-T", "fields", "-e", "tcp.stream"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    streams = netprobe.summarize(CAPTURES / name, handlers=handlers).stats["streams"]
    assert streams["opened"] == len(set(out.split())) > 0
    assert streams["idle_closed"] == 0


def tcp(number: int, at: int, sequence: int, flags: int) -> bytes:
    """A record with a segment to port 53 of 10.0.0.1, raw IPv4."""
    segment = struct.pack(">HHIIBBHHH", 1000 + number, 53, sequence, 1, 0x50, flags, 1000, 0, 0)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, 6, 0, b"\x0a\0\0\2", b"\x0a\0\0\1")
    return struct.pack("<IIII", at, 0, 40, 40) + ip + segment


RAW = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
SYN, RST, ACK = 2, 4, 16


def test_streams_closed_and_late(tmp_path: Path) -> None:
    """Three connections open; one falls silent for more than 30 s, one is reset and then goes on."""
    path = tmp_path / "streams.pcap"
    records = [
        tcp(1, 0, 0, SYN),
        tcp(2, 0, 0, SYN),
        tcp(3, 1, 0, SYN),
        tcp(2, 2, 1, RST),
        tcp(2, 2, 1, ACK),
        tcp(2, 2, 1, ACK),
        *[tcp(3, at, 1, ACK) for at in range(10, 100, 10)],
    ]
    path.write_bytes(RAW + b"".join(records))
    stats = netprobe.summarize(path, handlers="dns", periods=1).stats
    assert stats["streams"] == {"opened": 3, "idle_closed": 1, "late_packets": 2}


@pytest.mark.parametrize("distinct", [TOPN_CAPACITY - 1, 2 * TOPN_CAPACITY])
def test_items_thrown_out_of_top_lists(tmp_path: Path, distinct: int) -> None:
    """What the table has no room for was thrown out, and nothing is while there is room."""
    packets = []
    for i in range(distinct):
        ip = struct.pack(">BBHHHBBHI4s", 0x45, 0, 20, 0, 0, 64, 253, 0, 0xC0A80000 + i, b"\x0a\0\0\1")
        packets.append(struct.pack("<IIII", 0, 0, 20, 20) + ip)
    path = tmp_path / "many.pcap"
    path.write_bytes(RAW + b"".join(packets))
    evicted = netprobe.summarize(path, handlers="net", hosts="10.0.0.0/8").stats["losses"]["topn_evicted"]
    if distinct <= TOPN_CAPACITY:
        assert evicted == 0
    else:
        assert distinct - TOPN_CAPACITY <= evicted <= distinct

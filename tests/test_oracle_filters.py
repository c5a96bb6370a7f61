"""The filter selects the packets that `tcpdump -r FILE EXPR` does, whatever the link type."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import generate
import pytest

import netprobe

pytestmark = pytest.mark.tool("tcpdump")

EXPRESSIONS = [
    "tcp",
    "udp port 53",
    "ip6",
    "host 10.1.0.2 or host 2001:db8::2",
    "tcp[tcpflags] & tcp-syn != 0",
    "less 80",
    "not ip and not ip6",
    "ip proto 89 or sctp",
    "icmp or icmp6",
    "vlan 100",
    "vlan and udp",
    "ether host 02:00:00:00:00:0a",
    "net 198.51.100.0/24 and dst port 443",
    "ip[6:2] & 0x3fff != 0",
    "portrange 40000-40003",
    # what libpcap compiles for a few link types only
    "type data",
    "wlan type mgt subtype beacon",
    "mpls",
    "pppoes",
]
LINKS = ["ethernet", "raw-101", "null-le", "null-be", "loop", "sll", "sll2", "ppp", "ppp-hdlc", "c-hdlc",
         "wlan", "radiotap", "ipv4", "ipv6", "pppoe", "raw-12"]  # fmt: skip
FILES = [
    *(f"link-{n}" for n in LINKS),
    "frames-vlan",
    "frames-fragments",
    "frames-l4",
    "frames-tunnels",
    "frames-mpls",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filters")
    made = generate.everything()
    for name in FILES:
        (folder / f"{name}.pcap").write_bytes(made[name])
    return folder


def tcpdump(path: Path, expression: str) -> list[tuple[int, int]] | None:
    """(stamp in ns, length) of what tcpdump selects; None when libpcap cannot compile the expression."""
    done = subprocess.run(
        ["tcpdump", "-r", str(path), "-w", "-", "--nano", expression], capture_output=True, check=False
    )
    if done.returncode:
        return None
    out = []
    at = 24
    while at < len(done.stdout):
        sec, nsec, caplen, orig = struct.unpack_from("<4I", done.stdout, at)
        out.append((sec * 10**9 + nsec, orig))
        at += 16 + caplen
    return out


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("name", FILES)
def test_same_packets(folder: Path, name: str, expression: str) -> None:
    path = folder / f"{name}.pcap"
    want = tcpdump(path, expression)
    if want is None:
        with pytest.raises(netprobe.NetprobeError):
            list(netprobe.packets(path, filter=expression))
        return
    got: list[tuple[int, int]] = []
    for chunk in netprobe.packets(path, ["ts", "wirelen"], filter=expression):
        got += zip(chunk["ts"].tolist(), chunk["wirelen"].tolist(), strict=True)
    assert got == want


@pytest.mark.parametrize("name", ["link-ethernet", "frames-vlan", "link-wlan"])
@pytest.mark.parametrize("expression", ["udp", "tcp", "vlan"])
def test_summary_counts_the_selection(folder: Path, name: str, expression: str) -> None:
    path = folder / f"{name}.pcap"
    want = tcpdump(path, expression)
    if want is None:
        with pytest.raises(netprobe.NetprobeError):
            netprobe.summarize(path, filter=expression)
        return
    doc = netprobe.summarize(path, filter=expression, periods=1).to_dict()["1m"]
    assert doc["packets"]["total"] == len(want)


def test_filter_of_a_mixed_capture(tmp_path: Path) -> None:
    """A link type that cannot be decoded has nothing to select; it does not spoil the others."""
    path = tmp_path / "mixed.pcapng"
    path.write_bytes(generate.mixed_linktypes())
    frames = netprobe.summarize(path, periods=1).stats["packets_read"]
    summary = netprobe.summarize(path, filter="ip", periods=1)
    # 13 packets of either interface, eight of the Ethernet ones are IPv4
    assert (frames, summary.packets, summary.stats["filtered_out"]) == (26, 8, 18)
    assert any("USER0" in warning for warning in summary.warnings)


def test_a_slip_is_found_before_anything_is_read(tmp_path: Path) -> None:
    for read in (netprobe.summarize, lambda path, filter: next(netprobe.packets(path, filter=filter))):
        with pytest.raises(netprobe.ConfigError, match=r"filter 'udp port' for ETHERNET \(1\): "):
            read(tmp_path / "there is none", filter="udp port")

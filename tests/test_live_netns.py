"""The test kit for network namespaces does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import netns
import pytest

pytestmark = [pytest.mark.root, pytest.mark.tool("ethtool", "tcpdump")]


@pytest.mark.tool("tcpreplay")
def test_replay_over_a_silent_pair(captures: Path, tmp_path: Path) -> None:
    source = captures / "http.pcap"
    wanted = list(netns.frames(source))
    with netns.pair() as (sender, receiver):
        beside = receiver.capture(tmp_path / "beside.pcap")
        assert sender.replay(source) == len(wanted)
        assert beside.finish(len(wanted)) == len(wanted)
    assert list(netns.frames(tmp_path / "beside.pcap")) == wanted


def test_addresses_and_cleaning_up() -> None:
    with netns.pair(addresses=True) as (client, server):
        for address in (server.address, server.address6):
            client.run("ping", "-c", "1", "-W", "5", address)
        sleeper = server.popen("sh", "-c", "echo ready; sleep 1000")
        sleeper.wait_for("ready")
        name = server.name
    assert sleeper.process.returncode is not None
    assert not Path("/run/netns", name).exists()


def test_wire_delays_and_drops() -> None:
    # the third echo request of ten is lost; IPv6 off, ARP on: count pings only
    lost = []

    def drop(frame: bytes, direction: int, _: int) -> bool:
        if direction == 0 and frame[12:14] == b"\x08\x00" and frame[23] == 1:
            lost.append(frame)
            return len(lost) == 3
        return False

    wire = netns.Wire(delay_s=0.02, drop=drop)
    with netns.pair(addresses=True, ipv6=False, wire=wire) as (client, server):
        done = client.run("ping", "-c", "10", "-i", "0.1", "-W", "5", server.address, check=False)
    assert "10 packets transmitted, 9 received" in done.stdout
    assert wire.lost == [1, 0]
    fastest = re.search(r"min/avg/max/mdev = ([\d.]+)/", done.stdout)
    assert fastest and float(fastest[1]) >= 40

"""Live capture by either source: the same packets as in the file that was replayed, or as tcpdump saw it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import netns
import pytest
from live_reader import Reader, now_ns

from netprobe.errors import ConfigError, InputError
from netprobe.inputs.live import SOURCES, open_live

pytestmark = [pytest.mark.root, pytest.mark.tool("ethtool", "tcpdump")]

A, B = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"


def tagged_capture(path: Path, count: int = 60) -> list[bytes]:
    """TCP and UDP over IPv4 and IPv6, plain, in one VLAN, in another, in two at once (802.1ad outside)."""
    from scapy.all import IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw, wrpcap

    outer: list[tuple[int, list[int]]] = [(0x0800, []), (0x8100, [5]), (0x8100, [6]), (0x88A8, [7, 9])]
    packets = []
    for number in range(count):
        kind, tags = outer[number % 4]
        packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        if tags:
            packet.type = kind
        for tag in tags:
            packet /= Dot1Q(vlan=tag, prio=3)
        packet /= IP(src="10.0.0.1", dst="10.0.0.2") if number % 3 else IPv6(src="fd00::1", dst="fd00::2")
        packet /= UDP(sport=number, dport=53) if number % 2 else TCP(sport=number, dport=80)
        packets.append(packet / Raw(bytes(number * 20)))
    wrpcap(os.fspath(path), packets)
    frames = list(netns.frames(path))
    assert len(frames) == count
    return frames


def selected(path: Path, expression: str, tmp_path: Path) -> list[bytes]:
    """What tcpdump keeps of a file."""
    out = tmp_path / "selected.pcap"
    subprocess.run(["tcpdump", "-r", path, "-w", out, expression], check=True, capture_output=True)
    return list(netns.frames(out))


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("source", SOURCES)
def test_ring_equals_file(source: str, captures: Path, tmp_path: Path) -> None:
    tagged = tmp_path / "tagged.pcap"
    tagged_capture(tagged)
    files = [captures / "http.pcap", captures / "dns-udp.pcap", captures / "dhcp.pcap", tagged]
    wanted = [frame for file in files for frame in netns.frames(file)]
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, source=source)
        begun = now_ns()
        with Reader(capture.source) as reader:
            sent = sum(sender.replay(file) for file in files)
            got = list(reader.wait(sent))
            ended = now_ns()
            lost = capture.drops()
        capture.close()
    assert [packet.data for packet in got] == wanted
    assert [packet.length for packet in got] == [len(frame) for frame in wanted]
    assert {packet.linktype for packet in got} == {1}
    stamps = [packet.ns for packet in got]
    # libpcap's are cut to the microsecond
    assert begun - 1000 <= stamps[0] and stamps[-1] <= ended
    assert all(early <= late for early, late in itertools.pairwise(stamps))
    assert lost == {"received": sent, "os_drops": 0, "if_drops": 0, "ring_losses": 0}


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("snaplen", [1, 60, 1000])
def test_snaplen_keeps_original_lengths(source: str, snaplen: int, tmp_path: Path) -> None:
    path = tmp_path / "tagged.pcap"
    wanted = tagged_capture(path)
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, source=source, snaplen=snaplen)
        with Reader(capture.source) as reader:
            got = list(reader.wait(sender.replay(path)))
        capture.close()
    assert [packet.data for packet in got] == [frame[:snaplen] for frame in wanted]
    assert [packet.length for packet in got] == [len(frame) for frame in wanted]


# of the first kind tcpdump's answer for the file is expected although frames come up without their tag
TAG_BLIND = [
    "udp",
    "tcp port 80",
    "ip6",
    "not udp",
    "ether[12:2] = 0x8100",
    "len > 500",
    "greater 700 and ip",
    "ether[60:4] != 1",  # of the shortest that has them, the last is out of reach without the tag
    "udp or mpls",
]
TAG_AWARE = ["vlan", "vlan 5", "vlan 5 and udp", "udp or vlan 6", "not vlan 5", "vlan and vlan"]
TWISTED = ["ip6 protochain 17 or tcp", "len < 300 and not tcp"]


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("source", SOURCES)
def test_filters_equal_those_of_the_file(source: str, tmp_path: Path) -> None:
    path = tmp_path / "tagged.pcap"
    frames = tagged_capture(path)
    seen = set()
    with netns.pair() as (sender, receiver):
        for expression in (*TAG_BLIND, *TAG_AWARE, *TWISTED):
            with receiver.inside():
                capture = open_live(receiver.iface, source=source, filter=expression, timeout_ms=50)
            wanted = selected(path, expression, tmp_path)
            with Reader(capture.source) as reader:
                sender.replay(path)
                got = [packet.data for packet in reader.wait(len(wanted))]
            capture.close()
            assert got == wanted, expression
            seen.add(len(wanted))
    assert len(seen - {0, len(frames)}) > 5, "expressions that select all or nothing prove nothing"


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("expression", ["udp port 53", "tcp", "host 10.77.0.2 and not port 53", "ip[8] > 63"])
def test_filter_equals_tcpdump_beside(expression: str, captures: Path, tmp_path: Path) -> None:
    beside_path = tmp_path / "beside.pcap"
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, filter=expression)
        beside = receiver.capture(beside_path, expression)
        with Reader(capture.source) as reader:
            sent = sender.replay(captures / "demo.pcap")
            expected = len(selected(captures / "demo.pcap", expression, tmp_path))
            assert beside.finish(expected) == expected
            got = [packet.data for packet in reader.wait(expected)]
        assert capture.drops()["received"] == expected, "the kernel filters, not the core"
        capture.close()
    assert 0 < expected < sent
    assert got == list(netns.frames(beside_path))


@pytest.mark.parametrize("source", SOURCES)
def test_loopback_shows_each_packet_once(source: str, tmp_path: Path) -> None:
    with netns.Namespace("lo") as ns, ns.inside():
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind(("127.0.0.1", 0))
        out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        beside = ns.capture(tmp_path / "lo.pcap", "udp")
        with open_live("lo", source=source) as capture, Reader(capture.source) as reader:
            for number in range(200):
                out.sendto(number.to_bytes(2, "big"), sink.getsockname())
            got = list(reader.wait(200))
            assert capture.drops()["received"] == 200
        assert beside.finish(200) == 200
        sink.close()
        out.close()
    assert [packet.data for packet in got] == list(netns.frames(tmp_path / "lo.pcap"))
    assert [packet.data[-2:] for packet in got] == [number.to_bytes(2, "big") for number in range(200)]


@pytest.mark.parametrize("source", SOURCES)
def test_both_directions_of_an_ordinary_interface_once_each(source: str, tmp_path: Path) -> None:
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        beside = client.capture(tmp_path / "beside.pcap", "icmp")
        with client.inside():
            capture = open_live(client.iface, source=source, filter="icmp")
        with capture, Reader(capture.source) as reader:
            client.run("ping", "-c", "20", "-i", "0.01", server.address)
            got = [packet.data for packet in reader.wait(40)]
        assert beside.finish(40) == 40
    assert got == list(netns.frames(tmp_path / "beside.pcap"))


@pytest.mark.parametrize("source", SOURCES)
def test_large_segments_arrive_whole(source: str, tmp_path: Path) -> None:
    """With offloads on, what one side hands to the other are segments of up to 64 KiB."""
    with netns.pair(addresses=True, ipv6=False, mtu=1500, offloads=True) as (client, server):
        beside = server.capture(tmp_path / "beside.pcap", "tcp")
        with server.inside():
            capture = open_live(server.iface, source=source, filter="tcp")
            listener = socket.create_server((server.address, 0))
        with client.inside():
            sender = socket.create_connection((server.address, listener.getsockname()[1]))
        receiver, _ = listener.accept()
        with Reader(capture.source) as reader, sender, receiver, listener:
            sender.setblocking(False)
            left, unread = 8 << 20, 8 << 20
            while unread:
                if left:
                    with contextlib.suppress(BlockingIOError):
                        left -= sender.send(bytes(min(left, 1 << 20)))
                unread -= len(receiver.recv(1 << 20))
            sender.close()
            receiver.close()
            count = netns.settled(beside.count)
            beside.finish()
            got = list(reader.wait(count))
        capture.close()
    wanted = list(netns.frames(tmp_path / "beside.pcap"))
    assert [packet.data for packet in got] == wanted
    assert [packet.length for packet in got] == [len(frame) for frame in wanted]
    assert max(map(len, wanted)) > 20000


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("source", SOURCES)
def test_an_interface_goes_down_up_away_and_returns(source: str, captures: Path) -> None:
    path = captures / "icmp.pcap"
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, source=source, timeout_ms=20)
            reader = Reader(capture.source).start()
        with reader:
            total = sender.replay(path)
            reader.wait(total)
            assert capture.state == "up"
            receiver.ip("link", "set", receiver.iface, "down")
            netns.until(lambda: capture.state == "down", "down")
            receiver.ip("link", "set", receiver.iface, "up")
            netns.until(lambda: capture.state == "up", "up")
            netns.until(lambda: netns.carrier(sender, sender.iface), "carrier")
            total += sender.replay(path)
            reader.wait(total)
            # what was sent before it vanished still arrives
            total += sender.replay(path)
            receiver.ip("link", "del", receiver.iface)
            netns.until(lambda: capture.state == "gone", "gone")
            netns.until(lambda: len(reader.got) == total, f"{total} packets, {len(reader.got)} so far")
            netns.veth((sender, receiver))
            for end in (sender, receiver):
                end.set_up(netns.MTU, addresses=False, offloads=False)
            netns.until(lambda: netns.carrier(sender, sender.iface), "carrier")
            netns.until(lambda: capture.state == "up", "back")
            total += sender.replay(path)
            got = list(reader.wait(total))
            assert capture.drops()["received"] == total
            assert capture.drops()["os_drops"] == 0
            assert not capture.source.ended
        capture.close()
    assert [packet.data for packet in got] == list(netns.frames(path)) * 4


@pytest.mark.parametrize("source", SOURCES)
def test_who_is_woken_all_the_time_still_looks_at_the_interface(source: str) -> None:
    done = threading.Event()
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, source=source, timeout_ms=100)
            reader = Reader(capture.source).start()

        def wake() -> None:
            while not done.wait(0.0001):
                capture.wake()

        waker = threading.Thread(target=wake)
        waker.start()
        try:
            with reader:
                receiver.ip("link", "del", receiver.iface)
                netns.until(lambda: capture.state == "gone", "gone")
                netns.veth((sender, receiver))
                for end in (sender, receiver):
                    end.set_up(netns.MTU, addresses=False, offloads=False)
                netns.until(lambda: capture.state == "up", "back")
                rounds = reader.rounds
                netns.until(lambda: reader.rounds > rounds + 100, "woken")
        finally:
            done.set()
            waker.join()
        capture.close()


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("source", SOURCES)
def test_an_interface_may_be_down_at_first(source: str, captures: Path, tmp_path: Path) -> None:
    wanted = selected(captures / "demo.pcap", "udp", tmp_path)
    with netns.pair() as (sender, receiver):
        receiver.ip("link", "set", receiver.iface, "down")
        with receiver.inside():
            capture = open_live(receiver.iface, source=source, filter="udp", timeout_ms=20)
            reader = Reader(capture.source).start()
        assert capture.state == "down"
        with reader:
            receiver.ip("link", "set", receiver.iface, "up")
            netns.until(lambda: netns.carrier(sender, sender.iface), "carrier")
            netns.until(lambda: capture.state == "up", "up")
            sender.replay(captures / "demo.pcap")
            got = [packet.data for packet in reader.wait(len(wanted))]
        capture.close()
    assert got == wanted


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("promisc", [True, False])
def test_promiscuous_while_it_is_open(source: str, promisc: bool) -> None:
    with netns.pair() as (_, receiver), receiver.inside():

        def promiscuity() -> int:
            (link,) = json.loads(receiver.ip("-d", "-j", "link", "show", "dev", receiver.iface))
            return int(link["promiscuity"])

        assert promiscuity() == 0
        with open_live(receiver.iface, source=source, promisc=promisc):
            assert promiscuity() == promisc
        assert promiscuity() == 0


@pytest.mark.parametrize("source", SOURCES)
def test_wake_and_close_end_a_long_wait(source: str) -> None:
    with netns.Namespace("quiet", ipv6=False) as ns, ns.inside():
        capture = open_live("lo", source=source, timeout_ms=60000)
        with Reader(capture.source) as reader:
            for count in range(1, 4):
                capture.wake()
                netns.until(lambda count=count: reader.rounds >= count, "woken")
            capture.close()
            netns.until(lambda: not reader.thread.is_alive(), "closed")
        assert capture.source.ended and capture.source.how_ended == "clean"
        capture.close()


@pytest.mark.parametrize("source", SOURCES)
def test_what_cannot_be(source: str, tmp_path: Path) -> None:
    with netns.Namespace("errors") as ns, ns.inside():
        with pytest.raises(InputError, match=r"no such interface: 'eth7'; there are: .*lo"):
            open_live("eth7", source=source)
        with pytest.raises(
            InputError, match=r"no interface has the address 10\.9\.9\.9; there are: 127\.0\.0\.1/8"
        ):
            open_live("10.9.9.9", source=source)
        with pytest.raises(InputError, match="auto"):
            open_live("auto", source=source)
        with pytest.raises(ConfigError, match="filter 'udp port'"):
            open_live("lo", source=source, filter="udp port")
        for wrong in ({"snaplen": 0}, {"ring_mb": 0}, {"source": "dag"}, {"fanout": (1, "odd")}):
            with pytest.raises(ConfigError):
                open_live("lo", **{"source": source, **wrong})
        with open_live("127.0.0.1", source=source) as capture:
            assert capture.iface == "lo"


@pytest.mark.parametrize("source", SOURCES)
def test_without_permission(source: str) -> None:
    script = (
        "from netprobe.errors import InputError\n"
        "from netprobe.inputs.live import open_live\n"
        f"try: open_live('lo', source={source!r})\n"
        "except InputError as problem: print(problem)\n"
    )
    with netns.Namespace("denied") as ns:
        bounds = ["--bounding-set", "-net_raw,-net_admin", "--inh-caps", "-net_raw,-net_admin"]
        done = ns.run("setpriv", *bounds, sys.executable, "-c", script)
    assert done.stdout == "lo: no permission to capture; it takes root, or CAP_NET_RAW and CAP_NET_ADMIN\n"

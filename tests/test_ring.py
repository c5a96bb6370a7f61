"""What only the ring has: accounts of losses, other kinds of links, sharing, blocks that somebody holds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netns
import pytest
from live_reader import Got, Reader

import netprobe
import netprobe.summary
from netprobe._core.columns import ColumnReader
from netprobe._core.live import LiveSource
from netprobe.errors import InputError
from netprobe.inputs.interfaces import Netlink
from netprobe.inputs.live import (
    SOURCES,
    Fanout,
    LiveCapture,
    interface_hosts,
    list_interfaces,
    open_live,
    resolve_interface,
)

pytestmark = [pytest.mark.root, pytest.mark.tool("ethtool")]

RAW, COOKED, ETHERNET = 101, 113, 1
TUNSETIFF, TUNSETLINK = 0x400454CA, 0x400454CD
IFF_TUN_NO_PI, IFF_TAP_NO_PI = 0x1001, 0x1002


def datagram(number: int, family: int = 4) -> bytes:
    """An IP datagram with UDP inside, as scapy makes it."""
    from scapy.all import IP, UDP, IPv6, Raw

    head = IP(src="10.1.0.1", dst="10.1.0.2") if family == 4 else IPv6(src="fd01::1", dst="fd01::2")
    return bytes(head / UDP(sport=number, dport=9) / Raw(bytes(range(number % 200))))


class Tun:
    """A TUN or TAP device of some hardware type: packets written to it come in on its interface."""

    def __init__(
        self, namespace: netns.Namespace, name: str, hardware: int | None = None, mode: int = IFF_TUN_NO_PI
    ) -> None:
        with namespace.inside():
            self.fd = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), mode))
        if hardware is not None:
            fcntl.ioctl(self.fd, TUNSETLINK, hardware)
        namespace.ip("link", "set", name, "up")

    def put(self, packets: list[bytes]) -> None:
        for packet in packets:
            os.write(self.fd, packet)

    def close(self) -> None:
        os.close(self.fd)


@pytest.mark.tool("tcpreplay")
def test_drops_add_up_when_nobody_reads(captures: Path) -> None:
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, ring_mb=1, timeout_ms=20)
        sent = sender.replay(captures / "demo.pcap", "--loop=40")
        lost = netns.settled(capture.drops)
        assert lost["received"] + lost["os_drops"] == sent
        assert lost["os_drops"] > 0 and lost["received"] > 0
        with Reader(capture.source) as reader:
            reader.wait(lost["received"])
            # room again: nothing is lost from now on
            sent += sender.replay(captures / "demo.pcap")
            reader.wait(sent - lost["os_drops"])
        after = capture.drops()
        counters = capture.source.counters()
        capture.close()
    assert after["os_drops"] == lost["os_drops"]
    assert after["received"] + after["os_drops"] == sent
    assert counters["freezes"] >= 1
    assert counters["delivered"] == after["received"] and counters["lost"] == 0


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("source", SOURCES)
def test_what_is_left_in_the_ring_at_the_end_is_counted(source: str, captures: Path) -> None:
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, source=source, ring_mb=1, timeout_ms=20)
        sent = sender.replay(captures / "demo.pcap", "--loop=40")
        netns.settled(capture.drops)
        read = len(capture.source.read())
        capture.close()
        lost = capture.drops()
    assert read and lost["os_drops"] > 0
    assert read + lost["ring_losses"] == lost["received"]
    assert lost["received"] + lost["os_drops"] == sent


@pytest.mark.tool("tcpreplay")
def test_the_ring_comes_round_many_times(captures: Path) -> None:
    wanted = list(netns.frames(captures / "dns-tcp.pcap"))
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, ring_mb=1, timeout_ms=20)
        with Reader(capture.source) as reader:
            # each replay fits into the ring: what is tested is the order of blocks
            for number in range(1, 13):
                sender.replay(captures / "dns-tcp.pcap")
                reader.wait(len(wanted) * number)
        assert capture.drops()["os_drops"] == 0
        capture.close()
    assert [packet.data for packet in reader.got] == wanted * 12


@pytest.mark.tool("tcpreplay")
def test_batches_stay_as_they_are_while_they_are_held(captures: Path) -> None:
    """A reader that keeps a batch keeps its block, though the ring goes on, and even when it is closed."""
    np = pytest.importorskip("numpy")
    wanted = list(netns.frames(captures / "demo.pcap"))
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, ring_mb=1, timeout_ms=20)
        columns = ColumnReader(capture.source)
        lengths = np.zeros(len(wanted), "u4")
        ports = np.zeros(len(wanted), "u2")
        sender.replay(captures / "demo.pcap", "--limit=100")
        got = netns.until(lambda: columns.fill({"wirelen": lengths, "sport": ports}, 1), "a packet")
        # the block of those 100 is held now; the kernel fills and loses the rest
        sender.replay(captures / "demo.pcap", "--loop=40")
        lost = netns.settled(capture.drops)
        assert lost["os_drops"] > 0
        capture.close()
        while got < 100:
            more = columns.fill({"wirelen": lengths[got:], "sport": ports[got:]}, 100 - got)
            assert more
            got += more
    assert lengths[:100].tolist() == [len(frame) for frame in wanted[:100]]


@pytest.mark.parametrize(("hardware", "linktype"), [(None, RAW), (768, RAW), (776, RAW), (512, COOKED)])
def test_links_without_ethernet(hardware: int | None, linktype: int) -> None:
    packets = [datagram(number, 4 if number % 3 else 6) for number in range(1, 50)]
    with netns.Namespace("tun", ipv6=False) as ns, ns.inside():
        tun = Tun(ns, "tun7", hardware)
        with open_live("tun7") as capture, Reader(capture.source) as reader:
            tun.put(packets)
            everything = list(reader.wait(len(packets)))
        with (
            open_live("tun7", filter="udp and not port 20 and ip") as capture,
            Reader(capture.source) as reader,
        ):
            tun.put(packets)
            some = list(reader.wait(sum(packet[0] >> 4 == 4 for packet in packets) - 1))
        tun.close()
    for got, wanted in (
        (everything, packets),
        (some, [p for p in packets if p[0] >> 4 == 4 and p != packets[19]]),
    ):
        assert {packet.linktype for packet in got} == {linktype}
        if linktype == RAW:
            assert [packet.data for packet in got] == wanted
        else:
            # packet type 0 (to us), ARPHRD, no address, EtherType (https://www.tcpdump.org/linktypes.html)
            heads = [
                struct.pack(">HHH8sH", 0, hardware or 0, 0, b"", 0x0800 if p[0] >> 4 == 4 else 0x86DD)
                for p in wanted
            ]
            assert [packet.data for packet in got] == [
                head + p for head, p in zip(heads, wanted, strict=True)
            ]
        assert [packet.length for packet in got] == [len(packet.data) for packet in got]


@pytest.mark.tool("tcpdump")
def test_a_cooked_link_looks_as_tcpdump_shows_it(tmp_path: Path) -> None:
    packets = [datagram(number) for number in range(1, 30)]
    with netns.Namespace("ppp", ipv6=False) as ns, ns.inside():
        tun = Tun(ns, "ppp7", 512)
        beside = ns.capture(tmp_path / "ppp.pcap", "-y", "LINUX_SLL", iface="ppp7")
        with open_live("ppp7") as capture, Reader(capture.source) as reader:
            tun.put(packets)
            got = [packet.data for packet in reader.wait(len(packets))]
        beside.finish(len(packets))
        tun.close()
    assert got == list(netns.frames(tmp_path / "ppp.pcap"))


@pytest.mark.parametrize("expression", [None, "udp", "udp port 9 and host 10.1.0.2"])
def test_any_is_all_interfaces_at_once(expression: str | None) -> None:
    packets = [datagram(number) for number in range(1, 40)]
    with netns.pair(addresses=True, ipv6=False) as (one, other), one.inside():
        other.run("ping", "-c", "1", one.address)  # addresses are known: no ARP from now on
        tun = Tun(one, "tun7")
        loop = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        loop.bind(("127.0.0.1", 9))
        with open_live("any", filter=expression) as capture, Reader(capture.source) as reader:
            assert capture.linktype == -1
            tun.put(packets)
            for number in range(30):
                loop.sendto(bytes(number), ("127.0.0.1", 9))
            udp = [got for got in settled_packets(reader) if is_udp(got)]
            assert capture.state == "up"
            index = {link.index: link.name for link in list_interfaces()}
        loop.close()
        tun.close()
    by_name = {name: [got for got in udp if index[got.interface] == name] for name in index.values()}
    assert [got.data for got in by_name["tun7"]] == packets
    assert {got.linktype for got in by_name["tun7"]} == {RAW}
    if expression != "udp port 9 and host 10.1.0.2":
        assert [got.data[42:] for got in by_name["lo"]] == [bytes(number) for number in range(30)]
        assert {got.linktype for got in by_name["lo"]} == {ETHERNET}
    else:
        assert not by_name["lo"]


def settled_packets(reader: Reader) -> list[Got]:
    netns.until(lambda: reader.got, "packets")
    reader.quiet()
    return list(reader.got)


def is_udp(got: Got) -> bool:
    """UDP from a test: over Ethernet (loopback) or raw."""
    ip = got.data[14:] if got.linktype == ETHERNET else got.data
    return ip[9] == 17


@pytest.mark.tool("tcpreplay", "tcpdump")
@pytest.mark.parametrize("mode", ["hash", "lb"])
def test_fanout_shares_and_counts_nothing_twice(mode: str, captures: Path, tmp_path: Path) -> None:
    path = captures / "demo.pcap"
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            members = [open_live(receiver.iface, fanout=(7, mode)) for _ in range(2)]
            with pytest.raises(InputError, match="cannot join fanout group 7 \\(cpu\\): "):
                open_live(receiver.iface, fanout=Fanout(7, "cpu"))
            filtered = open_live(receiver.iface, fanout=(8, mode), filter="udp")
        with (
            Reader(members[0].source) as one,
            Reader(members[1].source) as two,
            Reader(filtered.source) as udp,
        ):
            sent = sender.replay(path)
            netns.until(lambda: len(one.got) + len(two.got) >= sent, "all packets")
            for reader in (one, two, udp):
                reader.quiet()
        shares = [[packet.data for packet in reader.got] for reader in (one, two)]
        assert sum(member.drops()["received"] for member in members) == sent
        for capture in (*members, filtered):
            capture.close()
    wanted = list(netns.frames(path))
    assert sorted(shares[0] + shares[1]) == sorted(wanted)
    assert all(shares)
    if mode == "hash":
        flows = [{flow_of(frame) for frame in share} for share in shares]
        assert not flows[0] & flows[1]
    subprocess.run(
        ["tcpdump", "-r", path, "-w", tmp_path / "udp.pcap", "udp"], check=True, capture_output=True
    )
    assert [packet.data for packet in udp.got] == list(netns.frames(tmp_path / "udp.pcap"))


def flow_of(frame: bytes) -> tuple[int, frozenset[bytes]]:
    """(protocol, both ends). Of anything but whole TCP and UDP datagrams, the addresses alone: the kernel
    does not hash the ports of fragments, the first included.
    """
    kind = frame[12:14]
    if kind == b"\x08\x00":
        ip = frame[14:]
        proto, ends, rest = ip[9], (ip[12:16], ip[16:20]), ip[(ip[0] & 15) * 4 :]
        if int.from_bytes(ip[6:8]) & 0x3FFF:
            return 256 + proto, frozenset(ends)
    elif kind == b"\x86\xdd":
        ip = frame[14:]
        proto, ends, rest = ip[6], (ip[8:24], ip[24:40]), ip[40:]
    else:
        return 0, frozenset((frame[0:6], frame[6:12]))
    if proto not in (6, 17):
        return proto, frozenset(ends)
    return proto, frozenset((ends[0] + rest[0:2], ends[1] + rest[2:4]))


def test_a_fanout_member_waits_for_an_interface_that_is_down() -> None:
    with netns.pair(addresses=True, ipv6=False) as (one, other):
        other.ip("link", "set", other.iface, "down")
        with other.inside():
            capture = open_live(other.iface, fanout=(9, "hash"), filter="icmp", timeout_ms=20)
        assert capture.state == "down"
        with Reader(capture.source) as reader:
            other.ip("link", "set", other.iface, "up")
            netns.until(lambda: capture.state == "up", "up")
            netns.until(lambda: netns.carrier(one, one.iface), "carrier")
            one.run("ping", "-c", "10", "-i", "0.01", "-w", "10", other.address)
            reader.wait(20)
        capture.close()


def test_a_fanout_member_whose_group_was_taken_waits_for_it() -> None:
    """The interface returns, but others share in another way: it goes on when they have gone."""
    with netns.Namespace("taken", ipv6=False) as ns, ns.inside():
        tun = Tun(ns, "tun7")
        with (
            open_live("tun7", fanout=Fanout(7, "hash"), timeout_ms=20) as capture,
            Reader(capture.source) as reader,
        ):
            tun.close()
            netns.until(lambda: capture.state == "gone", "gone")
            # the old member has left its group when the ring was let go
            others = netns.until(lambda: lenient("lo", Fanout(7, "lb")), "the group is free")
            tun = Tun(ns, "tun7")
            rounds = reader.rounds
            netns.until(lambda: reader.rounds > rounds + 30, "it has tried")
            assert capture.state == "gone"
            others.close()
            netns.until(lambda: capture.state == "up", "back")
            packets = [datagram(number) for number in range(1, 9)]
            tun.put(packets)
            assert [packet.data for packet in reader.wait(8)] == packets
        tun.close()


def lenient(iface: str, fanout: Fanout) -> LiveCapture | None:
    """A member of the group, as soon as that can be."""
    try:
        return open_live(iface, fanout=fanout, timeout_ms=20)
    except InputError:
        return None


def test_nothing_is_left_open() -> None:
    with netns.Namespace("leak", ipv6=False) as ns, ns.inside():

        def held() -> tuple[int, int]:
            maps = Path("/proc/self/maps").read_text()
            return len(os.listdir("/proc/self/fd")), maps.count("socket:")  # noqa: PTH208

        open_live("lo").close()
        before = held()
        for number in range(30):
            with open_live("lo", filter="udp" if number % 2 else None) as capture:
                assert held()[1] == before[1] + 1
                if number % 3 == 0:
                    capture.source.read()
        del capture
        with open_live("lo", fanout=(1, "lb")):
            for _ in range(5):
                with pytest.raises(InputError):
                    open_live("lo", fanout=(1, "hash"))
        assert held() == before


def test_interfaces_are_those_that_ip_shows() -> None:
    with netns.pair(addresses=True) as (one, _), one.inside():
        shown = json.loads(one.ip("-j", "-s", "address", "show"))
        found = list_interfaces()
        assert [link.name for link in found] == [entry["ifname"] for entry in shown]
        for link, entry in zip(found, shown, strict=True):
            own = [f"{address['local']}/{address['prefixlen']}" for address in entry["addr_info"]]
            assert sorted(link.addresses) == sorted(own)
            assert link.mac.hex(":") == entry["address"]
            assert (link.index, link.mtu) == (entry["ifindex"], entry["mtu"])
            assert link.up == ("UP" in entry["flags"])
            assert link.loopback == ("LOOPBACK" in entry["flags"])
        assert interface_hosts(one.iface)[0] == f"{one.address}/24"
        assert f"{one.address6}/64" in interface_hosts(one.iface)
        for text in (one.iface, one.address, one.address6):
            assert resolve_interface(text) == one.iface
        # the only one that is up, no loopback, and has seen packets
        one.run("ping", "-c", "1", "10.99.0.2")
        assert resolve_interface("auto") == one.iface


def test_an_address_that_several_interfaces_have() -> None:
    with netns.Namespace("scopes") as ns, ns.inside():
        ns.ip("link", "add", "one", "type", "veth", "peer", "name", "two")
        for name in ("one", "two"):
            ns.ip("link", "set", name, "up")
            ns.ip("address", "add", "fe80::1/64", "dev", name, "nodad")
            assert resolve_interface(f"fe80::1%{name}") == name
        assert resolve_interface(f"fe80::1%{socket.if_nametoindex('two')}") == "two"
        assert resolve_interface("fe80::1") in ("one", "two")
        with pytest.raises(InputError, match=r"no interface has the address fe80::1%lo; there are: "):
            resolve_interface("fe80::1%lo")


def test_interface_counters_are_those_that_ip_shows() -> None:
    with netns.Namespace("count", ipv6=False) as ns, ns.inside():
        ns.run("ping", "-c", "3", "-i", "0.01", "127.0.0.1")
        kernel = Netlink()
        (link,) = kernel.links()
        assert list(kernel.links(link.index)) == [link]
        with pytest.raises(OSError, match="No such device"):
            list(kernel.links(4711))
        assert list(kernel.links()) == [link]
        kernel.close()
        (entry,) = json.loads(ns.ip("-j", "-s", "link", "show", "lo"))
        counters = entry["stats64"]
        assert link.packets == counters["rx"]["packets"] + counters["tx"]["packets"] == 12


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize(("workers", "pace"), [(1, "--topspeed"), (3, "--topspeed"), (3, "--pps=1500")])
def test_workers_hold_batches_side_by_side(
    workers: int, pace: str, captures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several threads hold batches, at the slow pace a block each, and count what the file has."""
    path = captures / "demo.pcap"
    rounds = 8
    settings = {"handlers": "net", "hosts": "10.77.0.2/32,fd77::2/128", "periods": 1}
    wanted = netprobe.summarize([path] * rounds, **settings).to_dict()
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, ring_mb=8, timeout_ms=20)
        found: list[netprobe.Summary] = []
        worker = summarizing(capture, monkeypatch, found, workers=workers, **settings)
        sent = 0
        for _ in range(rounds):
            sent += sender.replay(path, pace)
            netns.until(lambda sent=sent: capture.source.counters()["delivered"] == sent, "all are read")
        capture.close()
        worker.join(netns.DEADLINE)
        assert capture.drops()["os_drops"] == 0
    assert found[0].packets == sent
    assert without_time(found[0].to_dict()) == without_time(wanted)


@pytest.mark.tool("tcpreplay")
def test_no_worker_waits_with_a_block_that_another_one_decodes(
    captures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the wire is silent the kernel has the whole ring, however long the reader would wait."""
    path = captures / "demo.pcap"
    with netns.pair() as (sender, receiver):
        with receiver.inside():
            capture = open_live(receiver.iface, ring_mb=8, timeout_ms=60000)
        found: list[netprobe.Summary] = []
        worker = summarizing(capture, monkeypatch, found, workers=8, handlers="net")
        sent = 0
        for _ in range(20):
            sent += sender.replay(path)
            netns.until(lambda sent=sent: capture.source.counters()["delivered"] == sent, "all are read")
            netns.until(lambda: capture.source.held == 0, "all is given back")
        capture.close()
        worker.join(netns.DEADLINE)
    assert found[0].packets == sent


def summarizing(
    capture: LiveCapture, monkeypatch: pytest.MonkeyPatch, found: list[netprobe.Summary], **settings: Any
) -> threading.Thread:
    """A thread that has netprobe.summarize read a capture instead of a file."""

    @contextlib.contextmanager
    def opened(*_: object) -> Iterator[tuple[object, LiveSource]]:
        yield None, capture.source

    monkeypatch.setattr(netprobe.summary, "open_capture", opened)
    monkeypatch.setattr(netprobe.summary, "complaints", lambda *_: [])
    monkeypatch.setattr(netprobe.summary, "check_path", lambda *_: None)
    worker = threading.Thread(target=lambda: found.append(netprobe.summarize("live", **settings)))
    worker.start()
    return worker


def without_time(value: object) -> object:
    """Without what the pace of a replay decides."""
    if isinstance(value, dict):
        return {key: without_time(one) for key, one in value.items() if key not in ("period", "rates")}
    return value


def test_an_interface_may_return_as_another_kind() -> None:
    """A filter is compiled anew for the new link type."""
    plain = [datagram(number) for number in range(1, 30)]
    frames = [b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\x00" + packet for packet in plain]
    with netns.Namespace("kinds", ipv6=False) as ns, ns.inside():
        tun = Tun(ns, "tun7")
        with (
            open_live("tun7", filter="udp and not port 5", timeout_ms=20) as capture,
            Reader(capture.source) as reader,
        ):
            tun.put(plain)
            reader.wait(28)
            tun.close()
            netns.until(lambda: capture.state == "gone", "gone")
            tap = Tun(ns, "tun7", mode=IFF_TAP_NO_PI)
            netns.until(lambda: capture.state == "up", "back")
            tap.put(frames)
            got = list(reader.wait(56))
        tap.close()
    assert [packet.linktype for packet in got] == [RAW] * 28 + [ETHERNET] * 28
    assert [packet.data for packet in got] == [p for p in plain if p != plain[4]] + [
        frame for frame in frames if frame != frames[4]
    ]


@pytest.mark.slow
@pytest.mark.tool("tcpreplay", "taskset", "curl")
def test_the_benchmark_runs(tmp_path: Path) -> None:
    program = Path(__file__).resolve().parents[1] / "benchmarks" / "live.py"
    done = subprocess.run(
        [sys.executable, program, "--smoke", "--dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| drops at 1,000 packets/s | 0 of 1,000 |" in done.stdout

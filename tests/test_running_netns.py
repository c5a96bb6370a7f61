"""Running inputs on a real interface: the numbers of the file that was replayed, whatever happens."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netns
import pytest

import netprobe
from netprobe.handlers.config import parse_handlers
from netprobe.inputs.live import LiveCapture
from netprobe.metrics import render_json
from netprobe.policy.running import HandlerSet, InputStream

pytestmark = [pytest.mark.root, pytest.mark.tool("tcpreplay", "ethtool", "ip")]

# a replay may be held up by whatever else the machine does: no transaction times out for that
PATIENT = {"xact_ttl_secs": 600}
GROUPS = {"enable": ["all"]}
DEFAULT = ["net", {"type": "dhcp", "config": PATIENT}, {"type": "dns", "config": PATIENT}, "pcap"]
ALL = [
    "net:1.0+all,net:2.0+all",
    {"type": "dns", "config": PATIENT, "metric_groups": GROUPS},
    {"type": "dns", "version": "2.0", "config": PATIENT, "metric_groups": GROUPS},
    {"type": "dhcp", "config": PATIENT},
    "bgp,pcap",
]
# what depends on when a packet comes
TIMED = {
    *("period", "rates", "xact_rates", "top_slow", "top_slow_xacts", "quantiles_us", "histogram_us"),
    *("xact_time_us", "xact_histogram_us"),
}
BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def handlers_of(wanted: Any = DEFAULT, periods: int = 1) -> HandlerSet:
    specs = parse_handlers(wanted)
    configs = [spec.resolve(defaults={"num_periods": periods}) for spec in specs]
    return HandlerSet(specs, configs, [spec.name for spec in specs], periods=periods)


@contextlib.contextmanager
def running(end: netns.End, *sets: HandlerSet, **config: Any) -> Iterator[InputStream]:
    """An input on an end of the wire, feeding these."""
    with end.inside():
        stream = InputStream("tap", "pcap", {"iface": end.iface, "pcap_source": "af_packet", **config}, {})
        for one in sets:
            stream.attach(one)
        stream.start()
    try:
        yield stream
    finally:
        stream.stop()


def settle(stream: InputStream) -> dict[str, Any]:
    """The input's numbers once they stand still."""
    netns.settled(lambda: (stream.stats()["packets"], stream.stats()["received"]))
    return stream.stats()


def untimed(document: Any) -> Any:
    """A document without what the replay's own pace decides."""
    if isinstance(document, dict):
        return {key: untimed(value) for key, value in document.items() if key not in TIMED}
    return document


def document(handlers: HandlerSet) -> dict[str, Any]:
    handlers._view = None
    found: dict[str, Any] = render_json.render(handlers.bucket(0))
    return found


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty thousand packets: flows, DNS, tags, ICMP."""
    folder = tmp_path_factory.mktemp("mix")
    argv = [
        sys.executable,
        str(BENCHMARKS / "generate.py"),
        "--dir",
        str(folder),
        "--packets",
        "60000",
        "mix",
    ]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "mix-60000.pcap"


@pytest.mark.parametrize("source", ["af_packet", "libpcap"])
@pytest.mark.parametrize(
    "name",
    ["demo.pcap", "dns-tcp.pcap", "dns-udp.pcap", "dns-fragments.pcap", "bgp.pcap", "dhcp.pcap", "icmp.pcap"],
)
def test_live_equals_file(captures: Path, name: str, source: str) -> None:
    """Every counter, cardinality, table and size of every handler, exactly."""
    path = captures / name
    hosts = "10.77.0.2/32,fd77::2/128"
    want = netprobe.summarize(path, handlers=ALL, hosts=hosts, periods=1)
    handlers = handlers_of(ALL)
    with netns.pair() as (sender, receiver):
        with running(receiver, handlers, host_spec=hosts, pcap_source=source) as stream:
            sent = sender.replay(path)
            netns.until(lambda: stream.stats()["packets"] >= sent, "all packets")
            stats = settle(stream)
        # the input has stopped: what was left in streams has been counted, too
        seen = document(handlers)
    assert sent == want.packets == stats["packets"] == stats["received"]
    assert untimed(seen) == untimed(want.to_dict()["1m"])
    assert stats["bytes"] == want.stats["wire_bytes"]
    assert sum(stats["losses"][key] for key in ("os_drops", "if_drops")) == 0


def test_nobody_waits_for_a_kernel_that_takes_its_time(
    captures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the interface itself has lost can only be known when nobody else changes interfaces."""
    asked, go_on = threading.Event(), threading.Event()

    def ask(_: LiveCapture) -> None:
        asked.set()
        assert go_on.wait(netns.DEADLINE)

    handlers, late = handlers_of("pcap"), handlers_of("net,pcap")
    monkeypatch.setattr(LiveCapture, "ask", ask)
    with netns.pair() as (sender, receiver), running(receiver, handlers) as stream:
        assert asked.wait(netns.DEADLINE)
        stream.attach(late)
        sent = sender.replay(captures / "demo.pcap")
        netns.until(lambda: stream.stats()["packets"] == sent, "all packets")
        assert document(handlers)["pcap"]["if_drops"] == 0
        stream.detach(late)
        assert not go_on.is_set()
        go_on.set()


def test_live_equals_file_at_full_speed(mix: Path) -> None:
    """While policies come and go and others read all the time, one that stays counts what the file has."""
    hosts = "192.168.0.0/16,2001:db8::/32"
    want = netprobe.summarize(mix, handlers=DEFAULT, hosts=hosts, periods=1)
    stays = handlers_of()
    done = threading.Event()
    reads = [0, 0]

    def read(which: int) -> None:
        while not done.is_set():
            document(stays)
            reads[which] += 1

    def come_and_go(stream: InputStream) -> None:
        while not done.is_set():
            guest = handlers_of("dns,net:2.0")
            stream.attach(guest)
            document(guest)
            stream.detach(guest)

    with netns.pair() as (sender, receiver), running(receiver, stays, host_spec=hosts) as stream:
        threads = [threading.Thread(target=read, args=(which,)) for which in range(2)]
        threads.append(threading.Thread(target=come_and_go, args=(stream,)))
        for thread in threads:
            thread.start()
        sent = sender.replay(mix, "--preload-pcap", "--pps=40000")
        netns.until(lambda: stream.stats()["received"] >= sent, "all packets")
        done.set()
        for thread in threads:
            thread.join()
        stats = settle(stream)
        stream.stop()
        seen = document(stays)
    assert min(reads) > 3
    # the longest that a question held up the capture, other programs apart: the ring holds seconds
    assert stats["commands"] > 20
    assert 0 < stats["longest_command_cpu_ns"] < 20_000_000
    assert stats["packets"] == sent == want.packets
    assert seen["pcap"]["os_drops"] == 0
    assert untimed(seen["packets"]) == untimed(want.to_dict()["1m"]["packets"])
    assert untimed(seen["dns"]) == untimed(want.to_dict()["1m"]["dns"])


def test_losses_add_up_when_the_ring_overflows(mix: Path) -> None:
    """Every frame that was sent is a packet that was counted, or a drop that was counted."""
    # so slow that it must overflow
    sets = [handlers_of(ALL) for _ in range(60)]
    with netns.pair() as (sender, receiver), running(receiver, *sets, ring_mb=1) as stream:
        sent = sum(sender.replay(mix, "--preload-pcap") for _ in range(2))
        netns.until(
            lambda: stream.stats()["received"] + stream.stats()["losses"]["os_drops"] >= sent,
            "all frames",
            60,
        )
        settle(stream)
        stream.stop()
        stats = stream.stats()
        documents = [document(one) for one in sets]
    assert stats["losses"]["os_drops"] > 0
    assert stats["packets"] + stats["losses"]["os_drops"] + stats["losses"]["ring_losses"] == sent
    for seen in documents:
        # each policy has the drops of the capture, and its packets
        assert seen["packets"]["total"] == stats["packets"]
        assert seen["pcap"]["os_drops"] == stats["losses"]["os_drops"]


def test_networks_of_the_interface_are_hosts() -> None:
    """What goes to its network is inbound, the rest is not; an address stands for its interface."""
    handlers = handlers_of("net")
    with (
        netns.pair(addresses=True) as (client, server),
        running(
            server, handlers, iface=server.address, bpf="udp port 7777", host_spec="192.0.2.0/24"
        ) as stream,
    ):
        assert stream.iface == server.iface
        with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for _ in range(5):
                out.sendto(b"x", (server.address, 7777))
        netns.until(lambda: document(handlers)["packets"]["total"] >= 5, "five datagrams")
        with server.inside():
            pcap = stream.info()["pcap"]
        assert pcap["pcap_source"] == "af_packet"
        assert server.iface in pcap["available_iface"].split(",")
        assert pcap["host_ips"]["ipv4"] == ["192.0.2.0/24", f"{server.address}/24"]
        assert f"{server.address6}/64" in pcap["host_ips"]["ipv6"]
        seen = document(handlers)["packets"]
    # both ends are in its network: inbound
    assert (seen["in"], seen["out"], seen["unknown_dir"]) == (5, 0, 0)


def test_networks_that_come_later(caplog: pytest.LogCaptureFixture) -> None:
    """A machine that gets its address after the capture began counts directions from then on."""
    caplog.set_level(logging.INFO, "netprobe.input")
    handlers = handlers_of("net")
    with netns.pair() as (sender, receiver), running(receiver, handlers, bpf="udp port 7777") as stream:
        for end in (sender, receiver):
            end.ip("link", "set", end.iface, "arp", "on")
        sender.ip("address", "add", "10.99.0.1/24", "dev", sender.iface)

        def send() -> None:
            with sender.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                out.sendto(b"x", ("10.99.0.255", 7777))

        send()
        netns.until(lambda: document(handlers)["packets"]["total"] == 1, "a datagram")
        assert document(handlers)["packets"]["unknown_dir"] == 1
        receiver.ip("address", "add", "10.99.0.2/24", "dev", receiver.iface)
        netns.until(lambda: "10.99.0.2/24" in caplog.text, "a line about the address")
        send()
        netns.until(lambda: document(handlers)["packets"]["total"] == 2, "another one")
        assert stream.info()["pcap"]["host_ips"] == {"ipv4": ["10.99.0.2/24"]}
    seen = document(handlers)["packets"]
    assert (seen["in"], seen["unknown_dir"]) == (1, 1)


def test_an_interface_that_vanishes_and_returns(captures: Path, caplog: pytest.LogCaptureFixture) -> None:
    handlers = handlers_of("net,pcap")
    caplog.set_level(logging.WARNING, "netprobe.input")
    path = captures / "dns-udp.pcap"
    with netns.pair() as (sender, receiver), running(receiver, handlers) as stream:
        sent = sender.replay(path)
        netns.until(lambda: document(handlers)["packets"]["total"] >= sent, "all packets")
        assert stream.interface_up
        receiver.ip("link", "del", receiver.iface)
        netns.until(lambda: "gone" in caplog.text, "a line about it")
        assert stream.running
        assert not stream.interface_up
        # nobody waits for it
        assert document(handlers)["packets"]["total"] == sent
        late = handlers_of("net")
        stream.attach(late)
        netns.veth((sender, receiver))
        for end in (sender, receiver):
            end.set_up(netns.MTU, False, False)
        netns.until(lambda: caplog.text.count("np2") >= 2, "a line about its return")
        netns.until(lambda: stream.interface_up, "up")

        def again() -> bool:
            before = document(late)["packets"]["total"]
            sender.replay(path)
            netns.settled(lambda: document(late)["packets"]["total"])
            return bool(document(late)["packets"]["total"] == before + sent)

        # the first ones may come before it is listened to again
        netns.until(again, "packets of the new interface")
        assert document(handlers)["packets"]["total"] == document(late)["packets"]["total"] + sent


def test_an_interface_that_is_switched_off_and_on(captures: Path, caplog: pytest.LogCaptureFixture) -> None:
    handlers = handlers_of("net")
    caplog.set_level(logging.WARNING, "netprobe.input")
    with netns.pair() as (sender, receiver), running(receiver, handlers) as stream:
        receiver.ip("link", "set", receiver.iface, "down")
        netns.until(lambda: f"{receiver.iface} is down" in caplog.text, "a line about it")
        assert stream.running
        assert not stream.interface_up
        receiver.ip("link", "set", receiver.iface, "up")
        netns.until(lambda: f"{receiver.iface} is up" in caplog.text, "a line about it")
        assert stream.interface_up
        netns.until(lambda: netns.carrier(sender, sender.iface), "the wire is up")
        sent = sender.replay(captures / "dns-udp.pcap")
        netns.until(lambda: document(handlers)["packets"]["total"] >= sent, "all packets")
        assert document(handlers)["packets"]["total"] == sent


@pytest.mark.parametrize("source", ["af_packet", "libpcap"])
def test_a_short_outage_is_logged(source: str, caplog: pytest.LogCaptureFixture) -> None:
    """One that is over before anybody looks again, which may be once a second."""
    caplog.set_level(logging.WARNING, "netprobe.input")
    with netns.pair() as (_, receiver), running(receiver, handlers_of("net"), pcap_source=source) as stream:

        def said(number: int) -> bool:
            return len(caplog.messages) >= number and stream.interface_up

        for number in range(1, 4):
            receiver.ip("link", "set", receiver.iface, "down")
            receiver.ip("link", "set", receiver.iface, "up")
            netns.until(lambda number=number: said(number), "a line about it")
            assert stream.running


@pytest.mark.parametrize("source", ["af_packet", "libpcap"])
def test_an_interface_on_a_busy_wire_is_up_again_or_renamed(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its packets leave no silence to look in; its networks stay its own."""
    handlers = handlers_of("net")
    caplog.set_level(logging.WARNING, "netprobe.input")
    done = threading.Event()

    def send() -> None:
        with sender.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            while not done.wait(0.005):
                with contextlib.suppress(OSError):
                    out.sendto(b"x", ("10.99.0.255", 7777))

    with (
        netns.pair(addresses=True) as (sender, receiver),
        running(receiver, handlers, pcap_source=source, bpf="udp port 7777") as stream,
    ):
        thread = threading.Thread(target=send)
        thread.start()
        try:
            netns.until(lambda: document(handlers)["packets"]["total"] > 0, "packets")
            receiver.ip("link", "set", receiver.iface, "down")
            netns.until(lambda: f"{receiver.iface} is down" in caplog.text, "a line about it")
            receiver.ip("link", "set", receiver.iface, "up")
            netns.until(lambda: f"{receiver.iface} is up" in caplog.text, "a line about it")
            assert stream.interface_up
            receiver.ip("link", "set", receiver.iface, "name", "other0")
            netns.until(lambda: f"{receiver.iface} is called other0 now" in caplog.text, "a line about it")
            before = document(handlers)["packets"]["total"]
            netns.until(lambda: document(handlers)["packets"]["total"] > before, "packets under its new name")
            receiver.ip("address", "add", "192.0.2.1/24", "dev", "other0")
            netns.until(
                lambda: "192.0.2.1/24" in stream.info()["pcap"]["host_ips"]["ipv4"], "its new network"
            )
        finally:
            done.set()
            thread.join()
        seen = document(handlers)["packets"]
    assert seen["in"] == seen["total"] > 0


def test_a_silent_wire_is_cheap_and_stops_at_once() -> None:
    with netns.pair() as (_, receiver), running(receiver, handlers_of()) as stream:
        netns.until(lambda: stream.stats()["cpu_seconds"] > 0, "the thread runs")
        before, began = stream.stats()["cpu_seconds"], time.monotonic()
        time.sleep(2)
        used = (stream.stats()["cpu_seconds"] - before) / (time.monotonic() - began)
        # of a processor, whatever else the machine does
        assert used < 0.01
        stream.stop()
        assert not stream.running


def test_netprobe_live(captures: Path) -> None:
    path = captures / "dns-udp.pcap"
    want = netprobe.summarize(path, filter="udp", periods=1).to_dict()["1m"]
    found: list[netprobe.Summary] = []
    with netns.pair() as (sender, receiver):
        stop = threading.Event()

        def capture() -> None:
            with receiver.inside():
                found.append(netprobe.live(receiver.iface, seconds=None, filter="udp", stop=stop, periods=1))

        thread = threading.Thread(target=capture)
        thread.start()
        netns.until(lambda: listening(receiver), "it listens")
        sender.replay(path)
        time.sleep(0.5)
        stop.set()
        thread.join()
    (summary,) = found
    assert untimed(summary.to_dict()["1m"]) == untimed(want)
    assert summary.warnings == []


def listening(end: netns.End) -> bool:
    """Does anybody capture in there?"""
    return len(end.run("cat", "/proc/net/packet").stdout.splitlines()) > 1

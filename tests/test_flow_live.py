"""netprobe.flows on interfaces, in network namespaces."""

import threading
import time
from pathlib import Path
from typing import Any

import netns
import pytest

import netprobe
from netprobe.flow_columns import REASONS, FlowChunk

CAPTURES = Path(__file__).parent / "captures"

pytestmark = [pytest.mark.root, pytest.mark.tool("tcpreplay", "ethtool", "tcpdump", "tshark")]


class Watch(threading.Thread):
    """Iterates over the flows of an interface in a namespace."""

    def __init__(self, host: Any, **settings: Any) -> None:
        super().__init__()
        with host.inside():
            self.flows = netprobe.flows(host.iface, **settings)
        self.chunks: list[FlowChunk] = []
        self.start()

    def run(self) -> None:
        self.chunks.extend(self.flows)

    def finish(self) -> dict[str, Any]:
        self.flows.stop()
        self.join(netns.DEADLINE)
        assert not self.is_alive()
        return self.flows.stats()

    def total(self, name: str) -> int:
        return sum(int(chunk[name].sum()) for chunk in self.chunks)


@pytest.mark.parametrize("name", ["app-http.pcap", "dns-udp.pcap", "app-tls.pcap"])
def test_replayed_capture_gives_the_records_of_the_file(name: str) -> None:
    """What stop() flushes is complete: every packet and every message that the file has."""
    offline = list(netprobe.flows(CAPTURES / name, decode=True))
    with netns.pair() as (sender, receiver):
        watch = Watch(receiver, decode=True)
        sent = sender.replay(CAPTURES / name)
        netns.until(lambda: watch.flows.stats()["framed"] >= sent)
        stats = watch.finish()
    assert stats["framed"] == sent
    assert (stats["open"], stats["open_packets"]) == (0, 0)
    assert stats["drops"]["os_drops"] == 0
    for column in ("out_pkts", "in_pkts", "out_bytes", "in_bytes"):
        assert watch.total(column) == sum(int(chunk[column].sum()) for chunk in offline)
    for column in ("http_url", "http_status", "dns_query", "dns_response", "tls_server_name"):
        seen = sorted(str(v) for chunk in watch.chunks for v in chunk[column] if v not in (None, -1))
        assert seen == sorted(str(v) for chunk in offline for v in chunk[column] if v not in (None, -1))


def test_silence_ends_flows_by_the_wall_clock() -> None:
    """Without a further packet the idle time-out passes, and its records come out."""
    with netns.pair() as (sender, receiver):
        watch = Watch(receiver, idle=0.5)
        sent = sender.replay(CAPTURES / "dns-udp.pcap")
        netns.until(lambda: watch.total("out_pkts") + watch.total("in_pkts") >= sent)
        assert watch.flows.stats()["open"] == 0
        assert {REASONS[r] for chunk in watch.chunks for r in chunk["reason"]} == {"idle"}
        assert watch.finish()["framed"] == sent


def test_waiting_costs_nothing() -> None:
    with netns.pair() as (_, receiver), receiver.inside():
        before, began = time.process_time(), time.monotonic()
        run = netprobe.flows(receiver.iface, seconds=1)
        assert list(run) == []
        spent, passed = time.process_time() - before, time.monotonic() - began
    # a loop that spins takes all of the time
    assert passed >= 1
    assert spent < passed / 3


def test_filter() -> None:
    with netns.pair() as (sender, receiver):
        watch = Watch(receiver, filter="udp src port 53")
        sent = sender.replay(CAPTURES / "dns-udp.pcap")
        netns.until(lambda: watch.flows.stats()["packets"] * 2 >= sent)
        stats = watch.finish()
        assert 0 < stats["framed"] < sent
        assert {int(p) for chunk in watch.chunks for p in chunk["sport"]} == {53}


def test_close_ends_at_once() -> None:
    with netns.pair() as (sender, receiver):
        watch = Watch(receiver)
        sent = sender.replay(CAPTURES / "dns-udp.pcap")
        netns.until(lambda: watch.flows.stats()["framed"] >= sent)
        watch.flows.close()
        watch.join(netns.DEADLINE)
        assert not watch.is_alive()
        assert watch.chunks == []


def test_neither_file_nor_interface() -> None:
    with pytest.raises(netprobe.InputError, match="nope0: no such file, and as an interface"):
        netprobe.flows("nope0")

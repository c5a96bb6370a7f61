"""The feed: one reader, many engines, periods by packets and by the clock, snapshots."""

from __future__ import annotations

import collections
import functools
import gc
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

import netprobe
from netprobe._core.clock import Clock
from netprobe._core.feed import Feed
from netprobe._core.mock import MockDns, Quiet
from netprobe.handlers.config import parse_handlers
from netprobe.hosts import parse_hosts
from netprobe.metrics import render_json
from netprobe.policy.running import HandlerSet

NS = 10**9
START = 1_700_000_000 * NS
HOST = "192.168.0.1/32"


def handler_set(
    wanted: str = "net,dhcp,dns,pcap", periods: int = 5, rate: int = 100, **more: Any
) -> HandlerSet:
    specs = parse_handlers(wanted)
    configs = [spec.resolve(**more) for spec in specs]
    return HandlerSet(specs, configs, [spec.name for spec in specs], periods=periods, deep_sample_rate=rate)


def fed(feed: Feed, handlers: HandlerSet) -> HandlerSet:
    """The set, attached to a bare feed."""
    feed.add(handlers.engine())
    handlers.bind(feed, feed.clock.time_ns, feed.recorded, None)
    return handlers


def look(handlers: HandlerSet, n: int = 0) -> dict[str, Any]:
    """Bucket n as a document, read anew."""
    handlers._view = None
    return render_json.render(handlers.bucket(n))


def total(handlers: HandlerSet, n: int = 0) -> int:
    found: int = look(handlers, n)["packets"]["events"]
    return found


def resident() -> int:
    """Bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# --- the mock source ---


def test_mock_frames_are_what_the_specification_says() -> None:
    queries = responses = 0
    names, types, codes, peers = set(), set(), set(), set()
    for data in MockDns(seed=5).frames(800):
        frame = Ether(data)
        ip, udp = frame[IP], frame[UDP]
        # by hand: scapy goes by ports, and a client's may mean anything
        dns = DNS(bytes(udp.payload))
        rebuilt = ip.copy()
        del rebuilt.chksum
        assert IP(bytes(rebuilt)).chksum == ip.chksum
        assert ip.len == len(data) - 14 and udp.len == ip.len - 20
        host, peer = (ip.src, ip.dst) if dns.qr else (ip.dst, ip.src)
        assert host == "192.168.0.1"
        assert (udp.sport if dns.qr else udp.dport) == 53
        assert peer.startswith("10.0.0.")
        peers.add(int(peer.split(".")[3]))
        assert dns.qdcount == 1
        names.add(dns.qd[0].qname.decode())
        types.add(dns.qd[0].qtype)
        if dns.qr:
            responses += 1
            codes.add(dns.rcode)
        else:
            queries += 1
    assert names == {f"{i}.pktvisor-mock.dev." for i in range(20)}
    assert types == {1, 28, 12, 15, 16}
    assert codes == set(range(6))
    assert max(peers) <= 254 and len(peers) > 200
    assert 0.4 < queries / (queries + responses) < 0.6


def test_mock_by_the_clock() -> None:
    """Ten packets a second, as the machine's clock goes."""
    feed = Feed()
    handlers = fed(feed, handler_set())
    began = time.time_ns()
    feed.run(MockDns(0.02, packets=10))
    took = time.time_ns() - began
    assert took >= 10 * 0.02 * NS
    assert total(handlers) == 10
    stats = feed.stats()
    assert began < stats["first_ts"] < stats["last_ts"] < began + took


# --- periods ---


def test_a_day_by_a_fake_clock() -> None:
    """86,400 seconds of ten packets: each bucket has its minute, and memory stays flat."""
    clock = Clock(START)
    feed = Feed(parse_hosts(HOST), clock=clock)
    handlers = fed(feed, handler_set())
    hours = []
    for hour in range(24):
        feed.run(MockDns(0.1, packets=36_000, seed=hour, clock=clock))
        if hour in (1, 23):
            look(handlers)
            hours.append(resident())
    assert clock.time_ns() == START + 86_400 * NS
    stamps = [START + i * NS // 10 for i in range(1, 864_001)]
    # the rule of the specification (appendix A): a packet at or past the edge, in whole seconds, shifts
    model: collections.deque[list[int]] = collections.deque([[START, 0]], maxlen=5)
    shifts = 0
    edge = START // NS + 60
    for stamp in stamps:
        if stamp // NS >= edge:
            model.append([stamp, 0])
            edge = stamp // NS + 60
            shifts += 1
        model[-1][1] += 1
    assert shifts == 1440
    assert handlers.accumulated() == 5
    for n, (start, count) in enumerate(reversed(model)):
        seen = look(handlers, n)
        assert seen["packets"]["period"]["start_ts"] == start // NS
        assert seen["packets"]["events"] == count, n
        assert seen["dns"]["wire_packets"]["total"] == count
        if n:
            assert seen["packets"]["period"]["length"] == 60
            assert seen["packets"]["rates"]["pps_total"] == dict.fromkeys(("p50", "p90", "p95", "p99"), 10)
    assert hours[1] - hours[0] < 2_000_000


def test_the_clock_ends_periods_of_a_silent_wire() -> None:
    clock = Clock(START)
    feed = Feed(clock=clock)
    handlers = fed(feed, handler_set(periods=3))
    feed.run(MockDns(1, packets=5, clock=clock))
    assert handlers.accumulated() == 1
    clock.set(START + 59 * NS)
    feed.run(Quiet(0.01))
    handlers._view = None
    assert handlers.accumulated() == 1
    clock.set(START + 61 * NS)
    feed.run(Quiet(0.01))
    handlers._view = None
    assert handlers.accumulated() == 2
    assert total(handlers, 1) == 5 and total(handlers, 0) == 0
    # a gap of ten minutes is one long bucket, and no empty ones
    clock.set(START + 661 * NS)
    feed.run(Quiet(0.01))
    closed = look(handlers, 1)["packets"]["period"]
    assert closed["length"] in (599, 600)
    assert handlers.accumulated() == 3
    assert total(handlers, 2) == 5


def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    """The open period ends with its newest packet, and not when the clock is there again."""
    from netprobe.inputs.captures import open_capture

    hour = 3600 * NS
    clock = Clock(START + hour)
    feed = Feed(clock=clock)
    handlers = fed(feed, handler_set())
    feed.run(MockDns(0.1, packets=200, clock=clock))
    clock.set(START)
    # what had been stamped before still comes
    (tmp_path / "late.pcap").write_bytes(pcap_of(MockDns().frames(50), iter([START + hour + 21 * NS] * 50)))
    with open_capture(tmp_path / "late.pcap") as (_, reader):
        feed.run(reader)
    feed.run(MockDns(0.1, packets=1000, clock=clock))
    second = START // NS
    assert [look(handlers, n)["packets"]["period"] for n in range(3)] == [
        {"start_ts": second + 60, "length": 40},
        {"start_ts": second, "length": 60},
        {"start_ts": second + 3600, "length": 20},
    ]
    assert [total(handlers, n) for n in range(3)] == [401, 50 + 599, 200]
    assert handlers.accumulated() == 3
    assert look(handlers)["packets"]["rates"]["pps_total"]["live"] == 10
    # a little is nothing
    clock.set(START + 70 * NS)
    feed.run(MockDns(0.1, packets=100, clock=clock))
    assert handlers.accumulated() == 3


def test_one_period_never_ends() -> None:
    clock = Clock(START)
    feed = Feed(clock=clock)
    handlers = fed(feed, handler_set(periods=1))
    feed.run(MockDns(10, packets=100, clock=clock))
    clock.set(START + 10_000 * NS)
    feed.run(Quiet(0.01))
    assert handlers.accumulated() == 1
    assert total(handlers) == 100
    assert look(handlers)["packets"]["period"] == {"start_ts": START // NS, "length": 10_000}


def test_a_policy_begins_when_it_is_made() -> None:
    clock = Clock(START)
    feed = Feed(clock=clock)
    first = fed(feed, handler_set())
    feed.run(MockDns(0.1, packets=300, clock=clock))
    second = fed(feed, handler_set())
    feed.run(MockDns(0.1, packets=400, clock=clock))
    # each has its own clock: the first shifts at 60 s, the second at 90 s
    assert [total(first, n) for n in range(first.accumulated())] == [101, 599]
    assert [total(second, n) for n in range(second.accumulated())] == [400]
    feed.run(MockDns(0.1, packets=300, clock=clock))
    assert look(second, 1)["packets"]["period"] == {"start_ts": START // NS + 30, "length": 60}
    assert total(second, 1) == 599


# --- rates ---


def test_live_rates() -> None:
    clock = Clock(START)
    feed = Feed(parse_hosts(HOST), clock=clock)
    handlers = fed(feed, handler_set())
    feed.run(MockDns(0.1, packets=55, clock=clock))
    rate = look(handlers)["packets"]["rates"]["pps_total"]
    # whole seconds so far: nine packets (0.1 to 0.9 s), then ten each
    assert rate == {"p50": 10, "p90": 10, "p95": 10, "p99": 10, "live": 10}
    clock.set(START + 8 * NS)
    rate = look(handlers)["packets"]["rates"]["pps_total"]
    assert rate["live"] == 0
    assert rate["p99"] == 10
    dns = look(handlers)["dns"]["rates"]["total"]
    assert dns["live"] == 0
    # the same in a merged window; nowhere in a closed bucket
    feed.run(MockDns(0.1, packets=600, clock=clock))
    handlers._view = None
    merged = render_json.render(handlers.window(2))
    assert merged["packets"]["rates"]["pps_total"]["live"] == 10
    assert "live" not in look(handlers, 1)["packets"]["rates"]["pps_total"]


def test_a_recorded_stream_shows_no_live_rate() -> None:
    clock = Clock(START)
    feed = Feed(clock=clock)
    handlers = fed(feed, handler_set("net", defaults={"recorded_stream": True}))
    feed.run(MockDns(0.1, packets=30, clock=clock))
    seen = look(handlers)["packets"]
    assert "live" not in seen["rates"]["pps_total"]
    assert seen["period"]["length"] == 0


# --- sampling ---


def test_each_policy_draws_for_itself(captures: Path) -> None:
    """A policy that samples a tenth sees what it would see alone, beside others."""
    from netprobe.inputs.captures import open_capture

    path = captures / "demo.pcap"
    rates = (10, 100, 37, 10)
    feed = Feed(recorded=True)
    sets = [fed(feed, handler_set("net,dns", rate=rate)) for rate in rates]
    with open_capture(path) as (_, reader):
        feed.run(reader)
    feed.finish()
    for rate, handlers in zip(rates, sets, strict=True):
        alone = netprobe.summarize(path, handlers="net,dns", deep_sample_rate=rate).to_dict()["5m"]
        assert look(handlers) == alone
    assert look(sets[0])["packets"]["deep_samples"] < look(sets[2])["packets"]["deep_samples"] < 408


# --- many at once ---


def pcap_of(frames: list[bytes], stamps: Iterator[int]) -> bytes:
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for frame, stamp in zip(frames, stamps, strict=False):
        out += [struct.pack("<IIII", stamp // NS, stamp % NS, len(frame), len(frame)), frame]
    return b"".join(out)


class Background:
    """A feed that runs in a thread, on a source that somebody else ends."""

    def __init__(self, feed: Feed, source: Any) -> None:
        self.feed = feed
        self.thread = threading.Thread(target=feed.run, args=(source,))

    def __enter__(self) -> Background:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.feed.stop()
        self.thread.join()


def until(ready: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.002)


def moved_on(feed: Feed, before: int, done: threading.Event) -> bool:
    return done.is_set() or feed.stats()["packets"] > before + 50


def test_come_and_go_without_loss() -> None:
    """While sets are added and removed all the time, one that stays misses nothing."""
    clock = Clock(START)
    feed = Feed(clock=clock)
    stays = fed(feed, handler_set())
    source = MockDns(0.001, packets=300_000, clock=clock)
    done = threading.Event()

    def run() -> None:
        feed.run(source)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    visits = 0
    while not done.is_set():
        guests = [fed(feed, handler_set("net")) for _ in range(3)]
        before = feed.stats()["packets"]
        until(functools.partial(moved_on, feed, before, done))
        for guest in guests:
            feed.remove(guest.engine())
            guest.release()
        # they were fed together, but for the packets between two commands
        counts = [guest.engine().packets for guest in guests]
        assert done.is_set() or min(counts) > 0
        after = [guest.engine().packets for guest in guests]
        assert after == counts
        visits += 1
    thread.join()
    assert visits > 3
    assert feed.stats()["packets"] == 300_000
    assert sum(total(stays, n) for n in range(stays.accumulated())) <= 300_000
    assert stays.engine().packets == 300_000


def test_guests_count_exactly_what_came_meanwhile(tmp_path: Path) -> None:
    """Packets come in through a FIFO, so that it is known who was there for which."""
    from netprobe.inputs.captures import open_capture

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    frames = MockDns().frames(600)
    data = pcap_of(frames, iter(range(START, START + 600 * 10**6, 10**6)))
    sizes = [24]
    for frame in frames:
        sizes.append(sizes[-1] + 16 + len(frame))
    opened = threading.Event()
    out: list[int] = []

    def write_head() -> None:
        out.append(os.open(fifo, os.O_WRONLY))
        os.write(out[0], data[: sizes[100]])
        opened.set()

    threading.Thread(target=write_head).start()
    feed = Feed(recorded=True)
    always = fed(feed, handler_set())
    with open_capture(fifo) as (_, reader), Background(feed, reader):
        opened.wait(20)
        until(lambda: always.engine().packets == 100)
        guest = fed(feed, handler_set())
        os.write(out[0], data[sizes[100] : sizes[350]])
        until(lambda: always.engine().packets == 350)
        late = fed(feed, handler_set())
        feed.remove(guest.engine())
        os.write(out[0], data[sizes[350] :])
        until(lambda: always.engine().packets == 600)
        feed.remove(late.engine())
        os.close(out[0])
    assert (total(guest), total(late), total(always)) == (250, 250, 600)


def events(handlers: list[Any], index: int = 0) -> int:
    """The first counter of a handler."""
    found: int = handlers[index][0].counter(0)
    return found


def test_a_storm_of_readers() -> None:
    """Readers see totals that only grow, and closed buckets that never change; no packet is lost for them."""
    clock = Clock(START)
    feed = Feed(parse_hosts(HOST), clock=clock)
    handlers = fed(feed, handler_set())
    wrong: list[str] = []
    done = threading.Event()
    reads = [0]

    def read() -> None:
        last = 0
        while not done.is_set():
            _, closed, present, opened = feed.look(handlers.engine(), 0)
            assert opened is not None and present == len(closed)
            counted = [events(blocks) for _, _, _, blocks in closed] + [events(opened[1])]
            if present < 4 and sum(counted) < last:
                wrong.append(f"{sum(counted)} after {last}")
            last = sum(counted) if present < 4 else last
            for at, start, end, blocks in closed:
                key = events(blocks), events(blocks, 2), start, end
                if seen.setdefault(at, key) != key:
                    wrong.append(f"bucket {at}: {key} after {seen[at]}")
            reads[0] += 1

    seen: dict[int, Any] = {}
    readers = [threading.Thread(target=read) for _ in range(6)]
    for reader in readers:
        reader.start()
    feed.run(MockDns(0.01, packets=60_000, clock=clock))
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong, wrong[:3]
    assert reads[0] > 20
    assert handlers.engine().packets == 60_000
    # six hundred seconds; the buckets that were seen add up with the others
    assert all(key[0] in (5999, 6000, 6001) for key in seen.values()), seen


def test_a_thousand_policies() -> None:
    """They all count everything, and what a policy takes stays small."""
    before = resident()
    clock = Clock(START)
    feed = Feed(parse_hosts(HOST), clock=clock)
    sets = [fed(feed, handler_set()) for _ in range(1000)]
    made = resident()
    assert made - before < 100_000_000
    feed.run(MockDns(1, packets=130, clock=clock))
    for handlers in sets:
        assert handlers.engine().packets == 130
    assert [total(sets[999], n) for n in range(3)] == [11, 60, 59]
    assert resident() - before < 400_000_000


def test_stop_does_not_wait_for_packets() -> None:
    feed = Feed()
    with Background(feed, Quiet()) as running:
        until(lambda: feed.look(handler_set("net").engine()) is not None)
        feed.stop()
        running.thread.join(10)
        assert not running.thread.is_alive()


def test_drops_are_counted_from_the_first_reading_on() -> None:
    clock = Clock(START)
    feed = Feed(clock=clock)
    first = fed(feed, handler_set("pcap"))
    feed.reading(100, 7, 1)
    assert look(first)["pcap"]["os_drops"] == 7
    late = fed(feed, handler_set("pcap"))
    feed.reading(200, 10, 1)
    assert look(first)["pcap"] | {"period": None} == {
        "os_drops": 10,
        "if_drops": 1,
        "tcp_reassembly_errors": 0,
        "period": None,
    }
    assert look(late)["pcap"]["os_drops"] == 3
    clock.set(START + 61 * NS)
    feed.run(Quiet(0.01))
    feed.reading(300, 14, 1)
    # no drop falls between two buckets
    assert [look(first, n)["pcap"]["os_drops"] for n in (0, 1)] == [4, 10]


def test_a_filter_and_the_clock() -> None:
    """Packets that the core's filter rejects count nowhere, and still end periods."""
    from netprobe.filters import compiler

    clock = Clock(START)
    feed = Feed(clock=clock, compile_filter=compiler("tcp"))
    handlers = fed(feed, handler_set())
    feed.run(MockDns(1, packets=200, clock=clock))
    stats = feed.stats()
    assert (stats["packets_read"], stats["packets"], stats["filtered_out"]) == (200, 0, 200)
    assert handlers.accumulated() == 4
    assert [total(handlers, n) for n in range(4)] == [0, 0, 0, 0]


def test_misuse() -> None:
    feed = Feed()
    handlers = fed(feed, handler_set())
    with pytest.raises(ValueError, match="fed already"):
        feed.add(handlers.engine())
    with pytest.raises(ValueError, match="cannot be moved"):
        Clock().set(1)
    with pytest.raises(ValueError, match="above zero"):
        MockDns(0)

"""Running inputs and their handler sets: settings, documents, errors (agent spec 3.3, 3.4, 4.1)."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import netprobe
from netprobe._core.clock import Clock
from netprobe.errors import ConfigError, InputError, PeriodError
from netprobe.handlers.config import parse_handlers
from netprobe.metrics import render_json, render_prometheus
from netprobe.policy import handler_set as module
from netprobe.policy.running import HandlerSet, InputStream

NS = 10**9
START = 1_700_000_000
HOST = "192.168.0.1/32"
DEFAULT = "net,dhcp,dns,pcap"


def handlers_of(wanted: Any = DEFAULT, periods: int = 5, rate: int = 100, geo: Any = None) -> HandlerSet:
    specs = parse_handlers(wanted)
    configs = [spec.resolve() for spec in specs]
    names = [f"default-{spec.name}" for spec in specs]
    return HandlerSet(specs, configs, names, periods=periods, deep_sample_rate=rate, geo=geo)


def stream_of(config: Mapping[str, Any], clock: Clock | None = None, kind: str = "pcap") -> InputStream:
    return InputStream("tap-0123", kind, config, {}, clock=clock)


def until(ready: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.005)


def read(path: Path, *sets: HandlerSet, **config: Any) -> InputStream:
    """A file through an input, to its end."""
    stream = stream_of({"pcap_file": str(path), **config})
    for one in sets:
        stream.attach(one)
    stream.start()
    assert stream.wait(30)
    return stream


@pytest.fixture
def mock(request: pytest.FixtureRequest) -> InputStream:
    stream = stream_of({"pcap_source": "mock", "host_spec": HOST})
    request.addfinalizer(stream.stop)
    return stream


def capture(path: Path, stamps: list[int], frame: bytes = bytes(12) + b"\x08\x00" + bytes(46)) -> Path:
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for stamp in stamps:
        out += [struct.pack("<IIII", stamp // NS, stamp % NS, len(frame), len(frame)), frame]
    path.write_bytes(b"".join(out))
    return path


# --- the same as from a file ---


@pytest.mark.parametrize("name", ["demo.pcap", "dns-fragments.pcap", "dns-tcp.pcap", "bgp.pcap"])
@pytest.mark.parametrize("wanted", [DEFAULT, "net:2.0+all,dns:2.0+all,dns+all,bgp", [["dns", "net"], "dhcp"]])
def test_an_input_counts_what_the_summariser_counts(captures: Path, name: str, wanted: Any) -> None:
    path = captures / name
    hosts = "10.77.0.2/32,fd77::2/128"
    handlers = handlers_of(wanted)
    stream = read(path, handlers, host_spec=hosts)
    want = netprobe.summarize(path, handlers=wanted, hosts=hosts, periods=5)
    assert render_json.render(handlers.window(5)) == want.to_dict()["5m"]
    stats = stream.stats()
    assert stats["packets"] == want.packets
    assert stats["bytes"] == want.stats["wire_bytes"]
    assert stats["malformed"] == want.stats["malformed"]
    lost = want.stats["losses"]
    both = stats["losses"].keys() & lost.keys()
    assert len(both) > 10
    assert {key: stats["losses"][key] for key in both} == {key: lost[key] for key in both}


def test_a_capture_filter(captures: Path) -> None:
    path = captures / "demo.pcap"
    handlers = handlers_of()
    stream = read(path, handlers, bpf="udp port 53")
    want = netprobe.summarize(path, handlers=DEFAULT, filter="udp port 53")
    assert 0 < want.packets < 408
    assert render_json.render(handlers.window(5)) == want.to_dict()["5m"]
    assert stream.stats()["filtered_out"] == 408 - want.packets


def test_a_damaged_file_counts_up_to_there(captures: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes((captures / "demo.pcap").read_bytes()[:-7])
    handlers = handlers_of()
    stream = read(path, handlers)
    assert render_json.render(handlers.bucket(0))["packets"]["events"] == 407
    assert stream.error is None
    assert len(stream.warnings) == 1 and "cut off" in stream.warnings[0]


# --- buckets and windows ---


def test_buckets_of_a_file(tmp_path: Path) -> None:
    """Two packets a minute; five minutes are kept, of eight."""
    stamps = [(START + 60 * i + j) * NS for i in range(8) for j in (0, 30)]
    handlers = handlers_of("net", periods=5)
    read(capture(tmp_path / "c.pcap", stamps), handlers)
    assert handlers.accumulated() == 5
    for n in range(5):
        (window,) = handlers.bucket(n)
        assert window.start_ts == START + 60 * (7 - n)
        assert window.length == (60 if n else 30)
        assert window.read_only and window.recorded
        assert render_json.render([window])["packets"]["total"] == 2
    (merged,) = handlers.window(4)
    assert (merged.start_ts, merged.length) == (START + 240, 210)
    assert render_json.render([merged])["packets"]["total"] == 8
    info = handlers.period_info("default-net")
    assert info[0]["start_tstamp"] == time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(START + 420))
    assert info[1]["end_tstamp"] == time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(START + 420))
    assert [one["length"] for one in info] == [30, 60, 60, 60, 60]
    assert all(one["read_only"] for one in info)
    assert info[0]["events"]["events"] == info[0]["events"]["deep_samples"] == 2
    assert "pps_events" in info[0]["events"]["rates"]
    assert "events" not in handlers.period_info()[0]


@pytest.mark.parametrize("periods", [1, 3])
def test_period_errors(mock: InputStream, periods: int) -> None:
    handlers = handlers_of(periods=periods)
    mock.attach(handlers)
    last = periods - 1
    with pytest.raises(PeriodError, match=rf"^invalid metrics period, specify \[0, {last}\]$"):
        handlers.bucket(periods)
    with pytest.raises(PeriodError, match=rf"^invalid metrics period, specify \[0, {last}\]$"):
        handlers.bucket(-1)
    for wrong in (0, 1, periods + 1):
        with pytest.raises(PeriodError, match=rf"^invalid metrics period, specify \[2, {periods}\]$"):
            handlers.window(wrong)
    if periods > 1:
        said = r"^requested metrics period has not yet accumulated, current range is \[0, 0\]$"
        with pytest.raises(PeriodError, match=said):
            handlers.bucket(1)
        # a window takes what there is
        assert handlers.window(periods)[0].start_ts == handlers.bucket(0)[0].start_ts


def test_a_live_window_reaches_to_now(mock: InputStream) -> None:
    clock = Clock(START * NS)
    stream = stream_of({"pcap_source": "mock"}, clock)
    handlers = handlers_of()
    stream.attach(handlers)
    clock.set((START + 42) * NS)
    (net, *_) = handlers.bucket(0)
    assert (net.start_ts, net.length, net.read_only) == (START, 42, False)
    (net, *_) = handlers.window(5)
    assert (net.start_ts, net.length, net.read_only) == (START, 42, False)
    assert handlers.period_info() == [
        {
            "start_tstamp": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(START)),
            "read_only": False,
            "length": 42,
        }
    ]


def test_closed_buckets_read_back_identically(tmp_path: Path) -> None:
    stamps = [(START + i) * NS for i in range(200)]
    handlers = handlers_of(DEFAULT, periods=5)
    read(capture(tmp_path / "c.pcap", stamps), handlers)
    first = [render_json.dumps(render_json.render(handlers.bucket(n))) for n in range(4)]
    handlers.window(5), handlers.window(2)
    handlers._view = None
    assert [render_json.dumps(render_json.render(handlers.bucket(n))) for n in range(4)] == first
    text = render_prometheus.render(handlers.bucket(1))
    assert "packets_events" in text


def test_the_end_is_seen_at_once(mock: InputStream, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy made for a reader just before does not hide what came last."""
    monkeypatch.setattr(module, "FRESH", 1e9)
    handlers = handlers_of()
    mock.attach(handlers)
    mock.start()
    until(lambda: handlers.engine().packets > 2)
    assert not handlers.bucket(0)[0].read_only
    until(lambda: handlers.engine().packets > 4)
    mock.stop()
    assert handlers.bucket(0)[0].read_only
    assert render_json.render(handlers.bucket(0))["packets"]["events"] == handlers.engine().packets


def test_copies_are_let_go(mock: InputStream, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = handlers_of()
    mock.attach(handlers)
    handlers.bucket(0)
    assert handlers._view is not None
    handlers.forget()
    assert handlers._view is not None
    monkeypatch.setattr(module, "KEEP", -1)
    handlers.forget()
    assert handlers._view is None


class Looks:
    """A feed that counts how often it is looked at."""

    def __init__(self, feed: Any) -> None:
        self.feed = feed
        self.count = 0

    def look(self, *what: Any) -> Any:
        self.count += 1
        return self.feed.look(*what)


def test_readers_share_a_copy(mock: InputStream, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = handlers_of()
    mock.attach(handlers)
    monkeypatch.setattr(module, "FRESH", 1e9)
    looks = Looks(handlers._feed)
    monkeypatch.setattr(handlers, "_feed", looks)
    handlers.refresh()
    readers = [threading.Thread(target=handlers.window, args=[n]) for n in (2, 3, 4, 5)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    handlers.bucket(0), handlers.period_info(), handlers.accumulated()
    assert looks.count == 1
    handlers.refresh()
    handlers.bucket(0)
    assert looks.count == 2
    # out of date at once
    monkeypatch.setattr(module, "FRESH", 0)
    handlers.bucket(0), handlers.bucket(0)
    assert looks.count == 4


def test_merged_past_is_kept_as_long_as_it_is_wanted() -> None:
    stream = stream_of({"pcap_source": "mock"}, Clock(START * NS))
    handlers = handlers_of("net", periods=3)
    stream.attach(handlers)
    stream.start()
    try:
        seen: set[tuple[int, int]] = set()
        end = time.monotonic() + 20
        while len(seen) < 8:
            assert time.monotonic() < end
            handlers.refresh()
            handlers.window(3)
            seen |= handlers._past.keys()
            newest = max((number for number, _ in handlers._past), default=0)
            assert all(newest - number < handlers.periods for number, _ in handlers._past)
    finally:
        stream.stop()


def test_merged_past_is_merged_once() -> None:
    clock = Clock(START * NS)
    stream = stream_of({"pcap_source": "mock"}, clock)
    handlers = handlers_of("net", periods=3)
    stream.attach(handlers)
    stream.start()
    until(lambda: handlers.accumulated() >= 3)
    view = handlers._view
    assert view is not None
    past = handlers._merge_past(view.periods[1:])
    assert handlers._merge_past(view.periods[1:]) is past
    stream.stop()


# --- attaching ---


def test_sets_come_and_go(mock: InputStream) -> None:
    first, second = handlers_of(), handlers_of("dns:2.0")
    mock.attach(first)
    mock.start()
    assert mock.running and mock.consumers == 1
    until(lambda: first.engine().packets > 2)
    mock.attach(second)
    assert mock.consumers == 2
    until(lambda: second.engine().packets > 2)
    mock.detach(first)
    seen = first.engine().packets
    until(lambda: second.engine().packets > 6)
    assert first.engine().packets == seen
    # and can still be read
    until(lambda: render_json.render(first.bucket(0))["packets"]["events"] == seen)
    with pytest.raises(ConfigError, match="attached already"):
        mock.attach(second)
    with pytest.raises(ConfigError, match="attached already"):
        stream_of({"pcap_source": "mock"}).attach(second)
    mock.detach(first)
    mock.stop()
    assert not mock.running
    assert second.bucket(0)[0].read_only


def test_start_and_stop_twice(mock: InputStream) -> None:
    mock.start()
    mock.start()
    mock.stop()
    mock.stop()
    assert not mock.running


def test_chains_see_what_the_first_accepted(mock: InputStream) -> None:
    chain = handlers_of([[{"type": "dns", "filter": {"only_qtype": ["AAAA"]}}, "net"]])
    plain = handlers_of("dns,net")
    mock.attach(chain)
    mock.attach(plain)
    mock.start()
    until(lambda: render_json.render(chain.bucket(0))["packets"]["events"] > 2)
    mock.stop()
    dns, net = (render_json.render(chain.bucket(0))[key] for key in ("dns", "packets"))
    assert dns["wire_packets"]["total"] == net["events"]
    types = {row["name"]: row["estimate"] for row in render_json.render(plain.bucket(0))["dns"]["top_qtype"]}
    assert net["events"] == types["AAAA"] < plain.engine().packets


# --- resources ---


def test_resources_without_policies(captures: Path) -> None:
    """U-38: no policy, no handler, and measurements."""
    watcher = handlers_of("input_resources")
    read(captures / "demo.pcap", watcher)
    seen = render_json.render(watcher.bucket(0))["input_resources"]
    assert (seen["policy_count"], seen["handler_count"]) == (0, 0)
    assert seen["total"] >= 1
    assert seen["cpu_usage"]["p50"] > 0
    status = Path("/proc/self/status").read_text()
    now = int(status.split("VmRSS:")[1].split()[0]) * 1024
    assert 0.5 * now < seen["memory_bytes"]["p50"] <= 1.5 * now
    text = render_prometheus.render(watcher.bucket(0))
    assert text.startswith("# HELP base_total ")
    assert text.splitlines()[1] == "# TYPE base_total gauge"
    for name in (
        "base_deep_samples",
        "resources_cpu_usage",
        "resources_memory_bytes",
        "resources_policy_count",
    ):
        assert name in text


def test_resources_are_measured_every_five_seconds(tmp_path: Path) -> None:
    stamps = [START * NS + i * NS // 10 for i in range(301)]
    watcher = handlers_of("input_resources")
    read(capture(tmp_path / "c.pcap", stamps), watcher)
    seen = render_json.render(watcher.bucket(0))["input_resources"]
    # a batch has 512 packets at most, and a measurement is made once per batch at the most
    assert seen["total"] == 1
    clock = Clock(START * NS)
    live = stream_of({"pcap_source": "mock"}, clock)
    watched = handlers_of("input_resources", periods=1)
    live.attach(watched)
    live.start()
    until(lambda: watched.engine().packets > 1000)
    live.stop()
    seconds = watched.engine().packets / 10
    total = render_json.render(watched.bucket(0))["input_resources"]["total"]
    assert abs(total - seconds / 5) <= 1


def test_resources_know_their_policies(mock: InputStream) -> None:
    watcher = handlers_of("input_resources")
    one, two = handlers_of(DEFAULT), handlers_of([["dns", "net"], "dhcp"])

    def levels() -> tuple[int, int, int]:
        watcher._view = None
        seen = render_json.render(watcher.bucket(0))["input_resources"]
        assert seen["deep_samples"] == seen["total"]
        return seen["policy_count"], seen["handler_count"], seen["total"]

    mock.attach(one)
    mock.attach(watcher)
    assert levels() == (1, 4, 1)
    mock.attach(two)
    # a chain counts as one handler; each change is an event
    assert levels() == (2, 6, 2)
    mock.detach(one)
    assert levels() == (1, 2, 3)
    mock.detach(two)
    assert levels() == (0, 0, 4)


def test_levels_of_a_window_are_those_of_now() -> None:
    clock = Clock(START * NS)
    stream = stream_of({"pcap_source": "mock"}, clock)
    watcher, policy = handlers_of("input_resources"), handlers_of(DEFAULT)
    stream.attach(watcher)
    stream.attach(policy)
    stream.start()
    until(lambda: watcher.accumulated() >= 3)
    stream.stop()
    window = render_json.render(watcher.window(5))["input_resources"]
    assert (window["policy_count"], window["handler_count"]) == (1, 4)
    assert window["total"] > 20
    # so is what hands the totals on from bucket to bucket
    assert window["deep_samples"] == window["total"]


def test_resources_are_sampled_as_packets_are() -> None:
    """One packet in a hundred is looked at deeply; a measurement is as deep as the packet that caused it."""
    stream = stream_of({"pcap_source": "mock"}, Clock(START * NS))
    rare, often = (handlers_of("input_resources", periods=1, rate=rate) for rate in (1, 100))
    stream.attach(rare)
    stream.attach(often)
    stream.start()
    until(lambda: render_json.render(often.bucket(0))["input_resources"]["total"] > 40)
    stream.stop()
    for watcher, least, most in ((rare, 0, 0.5), (often, 1, 1)):
        seen = render_json.render(watcher.bucket(0))["input_resources"]
        assert seen["total"] > 40
        assert least <= seen["deep_samples"] / seen["total"] <= most


# --- what an input says ---


def test_info(mock: InputStream) -> None:
    mock.attach(handlers_of())
    assert mock.info() == {
        "input": {"running": False, "consumers": 1},
        "pcap": {
            "available_iface": mock.info()["pcap"]["available_iface"],
            "host_ips": {"ipv4": [HOST]},
            "pcap_source": "mock",
        },
    }
    assert "lo" in mock.info()["pcap"]["available_iface"].split(",")
    mock.start()
    assert mock.info()["input"]["running"] is True


def test_info_of_a_file(captures: Path) -> None:
    stream = read(captures / "demo.pcap", handlers_of(), host_spec="fd77::2/128,10.77.0.2/32")
    info = stream.info()
    assert info["pcap"]["pcap_source"] == "unknown"
    assert info["pcap"]["host_ips"] == {"ipv4": ["10.77.0.2/32"], "ipv6": ["fd77::2/128"]}
    assert info["input"]["running"] is False


def test_stats_of_a_live_input(mock: InputStream) -> None:
    mock.attach(handlers_of())
    mock.start()
    until(lambda: mock.stats()["packets"] > 3)
    stats = mock.stats()
    assert stats["batches"] >= stats["packets"] > 3
    assert stats["cpu_seconds"] > 0
    assert set(stats["losses"]) > {"os_drops", "if_drops", "streams_evicted", "cut_by_snaplen"}
    assert sum(stats["losses"].values()) == 0


@pytest.mark.parametrize(("given", "size"), [({}, 32), ({"ring_mb": 8}, 8)])
def test_size_of_the_ring(given: dict[str, Any], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def open_live(*_: Any, ring_mb: int, **__: Any) -> Any:
        asked.append(ring_mb)
        raise InputError("enough")

    monkeypatch.setattr("netprobe.inputs.live.open_live", open_live)
    with pytest.raises(InputError, match="enough"):
        stream_of({"iface": "lo", **given}).start()
    assert asked == [size]


# --- errors ---


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"iface": "lo", "ifcae": "eth0"}, ["tap-0123", "ifcae", "iface", "host_spec"]),
        ({"iface": "lo", "pcap_source": "pfring"}, ["pcap_source", "pfring", "unknown", "af_packet", "mock"]),
        ({"iface": "lo", "host_spec": "10.0.0.1"}, ["invalid CIDR: 10.0.0.1"]),
        ({"iface": "lo", "host_spec": "10.0.0.x/8"}, ["invalid IPv4 address: 10.0.0.x"]),
        ({"iface": "lo", "host_spec": "fe8::0::/8"}, ["invalid IPv6 address: fe8::0::"]),
        ({"iface": 7}, ["iface", "7 is a number"]),
        ({"iface": "lo", "ring_mb": 0}, ["ring_mb", "0", "1 to 2048"]),
        ({"iface": "lo", "ring_mb": 4096}, ["ring_mb", "4096", "1 to 2048"]),
        ({}, ["iface", "auto"]),
        ({"iface": "lo", "tcp_packet_reassembly_cache_limit": "many"}, ["tcp_packet_reassembly_cache_limit"]),
    ],
)
def test_settings_that_cannot_be(config: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        stream_of(config)
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "kind", "said"),
    [
        ({"iface": "nope0"}, "pcap", "nope0"),
        ({"iface": "192.0.2.77"}, "pcap", "192.0.2.77"),
        ({"pcap_file": "/nowhere/at.all"}, "pcap", "/nowhere/at.all"),
        ({"except_on_start": 1}, "mock", "mock error on start"),
    ],
)
def test_inputs_that_cannot_start(config: dict[str, Any], kind: str, said: str) -> None:
    stream = stream_of(config, kind=kind)
    handlers = handlers_of()
    stream.attach(handlers)
    with pytest.raises(InputError, match=said):
        stream.start()
    assert not stream.running
    stream.detach(handlers)
    stream.stop()


def test_the_names_of_interfaces_are_listed() -> None:
    with pytest.raises(InputError, match=r"lo\b"):
        stream_of({"iface": "nope0"}).start()


def test_an_input_of_a_kind_that_is_not_built() -> None:
    with pytest.raises(ConfigError, match="dnstap"):
        stream_of({}, kind="dnstap")


@pytest.mark.parametrize("limit", [0, 1, 1 << 60])
def test_limits_of_connections(tmp_path: Path, limit: int) -> None:
    """0: as many as there is room for; a number that no table could have is as good as that."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import wrpcap

    path = tmp_path / "c.pcap"
    wrpcap(
        str(path),
        [Ether() / IP(src="10.0.0.1") / TCP(sport=port, dport=53) / Raw(b"\0") for port in range(2000, 2010)],
    )
    handlers = handlers_of("dns")
    stream = read(path, handlers, tcp_packet_reassembly_cache_limit=limit)
    assert stream.stats()["losses"]["streams_evicted"] == (9 if limit == 1 else 0)
    # who asks again wants a counter, whoever has gone meanwhile
    before = stream.stats()["losses"]
    stream.detach(handlers)
    assert stream.stats()["losses"] == before


def test_too_many_handlers() -> None:
    specs = parse_handlers([{"type": "bgp", "name": f"b{i}"} for i in range(33)])
    with pytest.raises(ConfigError, match="33"):
        HandlerSet(specs, [spec.resolve() for spec in specs], [spec.name for spec in specs])


def test_a_silent_input_of_type_mock() -> None:
    stream = stream_of({"anything": "goes"}, kind="mock")
    handlers = handlers_of("net")
    stream.attach(handlers)
    stream.start()
    try:
        assert stream.running
        assert "pcap" not in stream.info()
        assert render_json.render(handlers.bucket(0))["packets"]["events"] == 0
    finally:
        stream.stop()


# --- netprobe.live ---


def test_live_gives_a_summary() -> None:
    summary = netprobe.live("x", seconds=0.6, source="mock", handlers="net,dns", hosts=[HOST], periods=2)
    document = summary.to_dict()["2m"]
    assert summary.packets == document["packets"]["total"] >= 2
    assert document["packets"]["in"] + document["packets"]["out"] == summary.packets
    assert document["packets"]["udp"] == document["dns"]["wire_packets"]["total"] == summary.packets
    assert not summary.interrupted
    assert '"live"' not in summary.to_json()
    assert summary.merge(summary).packets == 2 * summary.packets


def test_live_until_told() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert not netprobe.live("x", seconds=None, source="mock", stop=stop, periods=1).interrupted
    stop.set()
    assert netprobe.live("x", seconds=60, source="mock", stop=stop).interrupted


def test_a_live_run_that_cannot_start_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "input-tick":
            raise RuntimeError("can't start new thread")
        begin(thread)

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(InputError, match="raise the limit on threads"):
        netprobe.live("x", seconds=60, source="mock")
    assert threading.active_count() == before


def test_live_says_what_is_wrong() -> None:
    with pytest.raises(InputError, match="nope0"):
        netprobe.live("nope0")
    with pytest.raises(ConfigError, match="periods"):
        netprobe.live("lo", periods=0)
    with pytest.raises(ConfigError, match="seconds"):
        netprobe.live("lo", seconds=-1)
    with pytest.raises(ConfigError, match="dsn"):
        netprobe.live("lo", handlers="dsn")

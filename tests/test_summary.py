"""Summaries travel and add up: pickles, processes, halves of a capture, workers (DESIGN, More cores)."""

from __future__ import annotations

import itertools
import json
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mmdb_writer
import numpy as np
import pytest

import netprobe
from netprobe.errors import ConfigError
from netprobe.geo import GeoAsn, GeoCity, GeoNames
from netprobe.summary import Progress, Summary

CAPTURES = Path(__file__).parent / "captures"
NAMES = sorted(path.name for path in CAPTURES.glob("*.pcap"))
HANDLERS = ["net+all", "net:2.0+all", "dns+all", "dns:2.0+all", "dhcp", "bgp", "pcap"]
NET = ["net+all", "net:2.0+all"]
# the server side of the recordings
HOSTS = "10.77.0.2/32,fd77::2/128"
DHCP_PORTS = (67, 68, 546, 547)

Exact = dict[str, int]


def exact(summary: Summary) -> Exact:
    """Every counter and cardinality, by handler, direction and path: what does not depend on who counted."""
    found: Exact = {}
    for window in summary.windows:
        for direction, _, cells in window.sections():
            for cell in cells:
                if cell.metric.kind in ("counter", "cardinality"):
                    name = f"{window.config.name} {direction} {cell.metric.path}"
                    assert name not in found
                    found[name] = cell.count()
    return found


def summed(path: Path, handlers: Any = None, **options: Any) -> Summary:
    return netprobe.summarize(path, handlers=handlers or HANDLERS, hosts=HOSTS, periods=1, **options)


# --- pickles ---

CHILD = """
import json, pickle, sys
from pathlib import Path
folder = Path(sys.argv[1])
parts = [pickle.loads((folder / f"{i}.pickle").read_bytes()) for i in range(int(sys.argv[2]))]
import netprobe
whole = netprobe.merge(parts)
(folder / "whole.pickle").write_bytes(pickle.dumps(whole))
json.dump([whole.to_dict(), whole.to_prometheus(), whole.packets], sys.stdout)
"""


def merge_elsewhere(parts: Sequence[Summary], folder: Path) -> tuple[list[Any], Summary]:
    """What another process shows of the merged parts, and the merged summary come back."""
    for i, part in enumerate(parts):
        (folder / f"{i}.pickle").write_bytes(pickle.dumps(part))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(len(parts))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), pickle.loads((folder / "whole.pickle").read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_pickle_keeps_everything(name: str) -> None:
    summary = summed(CAPTURES / name)
    again = pickle.loads(pickle.dumps(summary))
    assert again.to_json() == summary.to_json()
    assert again.to_prometheus() == summary.to_prometheus()
    assert (again.packets, again.stats, again.periods) == (summary.packets, summary.stats, summary.periods)
    assert again.warnings == summary.warnings
    assert not again.interrupted


def test_merged_in_another_process(tmp_path: Path) -> None:
    parts = [summed(CAPTURES / name) for name in NAMES if name != "demo.pcap"]
    shown, back = merge_elsewhere(parts, tmp_path)
    here = netprobe.merge(parts)
    assert shown == [here.to_dict(), here.to_prometheus(), sum(part.packets for part in parts)]
    assert back.to_json() == here.to_json()
    assert back.stats == here.stats


@pytest.mark.parametrize("given", ["both", "city", "none"])
def test_geo_travels(tmp_path: Path, given: str) -> None:
    """The databases are opened again where the summary arrives; without any it needs none."""
    city, asn = tmp_path / "city.mmdb", tmp_path / "asn.mmdb"
    city.write_bytes(
        mmdb_writer.build({"10.77.0.0/24": {"continent": {"code": "EU"}, "city": {"names": {"en": "Ort"}}}})
    )
    asn.write_bytes(mmdb_writer.build({"10.77.0.0/24": {"autonomous_system_number": 64500}}, kind="Test-ASN"))
    geo = {
        "both": GeoNames(GeoCity(city), GeoAsn(asn)),
        "city": GeoNames(GeoCity(city), None),
        "none": None,
    }[given]
    part = summed(CAPTURES / "dns-udp.pcap", "net", geo=geo)
    shown, back = merge_elsewhere([part, part], tmp_path)
    for document in (shown[0], back.to_dict()):
        net = document["1m"]["packets"]
        # the peers of the server side; IPv6 is not in the databases
        want = {"EU/Ort", "Unknown"} if given != "none" else set()
        assert {row["name"] for row in net["top_geoLoc"]} == want
        want = {"64500", "Unknown"} if given == "both" else set()
        assert {row["name"] for row in net["top_ASN"]} == want


# --- merging ---


def records(path: Path) -> tuple[bytes, list[tuple[int, bytes]]]:
    """A pcap file's header, and (nanoseconds, record) of each packet."""
    data = path.read_bytes()
    unit = {b"\xd4\xc3\xb2\xa1": 1000, b"\x4d\x3c\xb2\xa1": 1}[data[:4]]
    found, at = [], 24
    while at < len(data):
        seconds, fraction, caplen, _ = struct.unpack_from("<IIII", data, at)
        found.append((seconds * 10**9 + fraction * unit, data[at : at + 16 + caplen]))
        at += 16 + caplen
    return data[:24], found


def split(path: Path, folder: Path, first: Callable[[int], bool]) -> list[Path]:
    """Two files: the packets whose number `first` holds for, and the others."""
    header, found = records(path)
    halves = [folder / "first.pcap", folder / "second.pcap"]
    parts: list[list[bytes]] = [[], []]
    for i, (_, record) in enumerate(found):
        parts[0 if first(i) else 1].append(record)
    for half, part in zip(halves, parts, strict=True):
        assert part, "a half is empty: it would prove nothing"
        half.write_bytes(header + b"".join(part))
    return halves


def check_halves(path: Path, halves: Sequence[Path], handlers: Any, folder: Path) -> Exact:
    whole = summed(path, handlers)
    parts = [summed(half, handlers) for half in halves]
    assert 0 < parts[0].packets < whole.packets
    want = exact(whole)
    for merged in (
        parts[0].merge(parts[1]),
        netprobe.merge(reversed(parts)),
        merge_elsewhere(parts, folder)[1],
    ):
        assert exact(merged) == want
        assert merged.packets == whole.packets
        for key in ("packets_read", "wire_bytes", "first_ts", "last_ts", "malformed"):
            assert merged.stats[key] == whole.stats[key]
    # merging leaves the parts as they were
    assert exact(parts[0]) == exact(summed(halves[0], handlers))
    return want


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_halves_in_time(tmp_path: Path, name: str, share: float) -> None:
    """net counts frames one by one: it may be cut anywhere."""
    cut = int(len(records(CAPTURES / name)[1]) * share)
    halves = split(CAPTURES / name, tmp_path, lambda i: i < cut)
    want = check_halves(CAPTURES / name, halves, NET, tmp_path)
    assert want["net  total"] == len(records(CAPTURES / name)[1])


@pytest.mark.parametrize("name", NAMES)
def test_halves_at_a_quiet_moment(tmp_path: Path, name: str) -> None:
    """Handlers that follow conversations may be cut where nobody speaks: here at the longest silence."""
    stamps = [stamp for stamp, _ in records(CAPTURES / name)[1]]
    gaps = [(after - before, i) for i, (before, after) in enumerate(itertools.pairwise(stamps), 1)]
    _, cut = max(gaps)
    halves = split(CAPTURES / name, tmp_path, lambda i: i < cut)
    check_halves(CAPTURES / name, halves, HANDLERS, tmp_path)


@pytest.mark.parametrize("name", ["demo.pcap", "dns-udp.pcap", "dns-tcp.pcap", "dns-fragments.pcap"])
def test_halves_by_address_pair(tmp_path: Path, name: str) -> None:
    """As workers split: whatever two addresses say to each other stays together, wherever in time."""
    (chunk,) = netprobe.packets(CAPTURES / name)
    pairs = [
        b"".join(sorted((src.tobytes(), dst.tobytes())))
        for src, dst in zip(chunk["src"], chunk["dst"], strict=True)
    ]
    dhcp = np.isin(chunk["sport"], DHCP_PORTS) | np.isin(chunk["dport"], DHCP_PORTS)
    # the IPv4 pair of the two servers here, all else there
    here = {pair for pair in pairs if pair.startswith(bytes([10, 77, 0, 1]))}
    halves = split(CAPTURES / name, tmp_path, lambda i: bool(dhcp[i]) or pairs[i] in here)
    want = check_halves(CAPTURES / name, halves, HANDLERS, tmp_path)
    assert want["dns  wire_packets.total"] > 0
    assert want["dns  cardinality.qname"] > 0


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_workers_count_as_one(name: str, workers: int) -> None:
    one = summed(CAPTURES / name)
    many = summed(CAPTURES / name, workers=workers)
    assert exact(many) == exact(one)
    assert many.packets == one.packets
    assert many.stats == one.stats


def with_filters() -> list[Any]:
    """Filters of each handler, predicates, name levels, and chains both ways."""
    return [
        {"type": "dns", "filter": {"only_rcode": [0, 3], "only_qtype": ["A", "AAAA"]}},
        {"type": "dns", "filter": {"only_qname_suffix": ["test"], "xact_ttl_ms": 20}},
        {"type": "dns", "version": "2.0", "filter": {"exclude_noerror": True}},
        {"type": "dns", "version": "2.0", "filter": {"public_suffix_list": True}},
        [{"type": "net", "filter": {"geoloc_notfound": True}}, "dns+all", "net:2.0", "dns:2.0+all"],
        [{"type": "dns", "filter": {"only_responses": True}}, "net", "bgp", "dhcp"],
        [{"type": "dns", "version": "2.0", "filter": {"only_qtype": ["A"]}}, "net:2.0"],
    ]


@pytest.mark.parametrize("periods", [1, 2, 10])
@pytest.mark.parametrize("rate", [100, 37])
@pytest.mark.parametrize("handlers", [HANDLERS, with_filters()], ids=["all", "filters"])
def test_workers_write_the_same_document(
    tmp_path: Path, periods: int, rate: int, handlers: list[Any]
) -> None:
    """To the byte, rows in order: nothing here fills a sketch beyond where it is exact."""
    city = tmp_path / "city.mmdb"
    city.write_bytes(mmdb_writer.build({"10.77.0.2/32": {"continent": {"code": "EU"}}}))
    geo = GeoNames(GeoCity(city), None)
    header, found = records(CAPTURES / "demo.pcap")
    # minutes apart: several periods, some of them closed by a packet of another shard
    stretched = tmp_path / "stretched.pcap"
    stretched.write_bytes(
        header
        + b"".join(
            struct.pack("<I", struct.unpack_from("<I", record)[0] + i * 2) + record[4:]
            for i, (_, record) in enumerate(found)
        )
    )
    for path in (stretched, CAPTURES / "demo.pcap", CAPTURES / "dns-fragments.pcap"):
        options = {
            "handlers": handlers, "hosts": HOSTS, "geo": geo, "periods": periods, "deep_sample_rate": rate
        }  # fmt: skip
        one = netprobe.summarize(path, **options)
        for workers in (2, 3, 16):
            many = netprobe.summarize(path, workers=workers, **options)
            assert many.to_json() == one.to_json()
            assert many.stats == one.stats
        if path == stretched and periods > 1:
            assert one.stats["periods"] > 10


def test_the_exact_values_are_not_all_zero() -> None:
    """Otherwise the equations above would say little."""
    values = exact(summed(CAPTURES / "demo.pcap"))
    for path in (
        "net  total",
        "net  cardinality.src_ips_in",
        "net_v2 in cardinality.ips",
        "dns  wire_packets.tcp",
        "dns  cardinality.qname",
        "dns  xact.in.total",
        "dns_v2 in xacts",
        "dhcp  wire_packets.ack",
        "dhcp  wire_packets.reply",
        "bgp  wire_packets.update",
    ):
        assert values[path] > 0, path


def test_files_of_different_periods(tmp_path: Path) -> None:
    """Merged lengths add up, the window starts with the earliest."""
    parts = [summed(CAPTURES / name, "net") for name in ("http.pcap", "bgp.pcap")]
    periods = [part.to_dict()["1m"]["packets"]["period"] for part in parts]
    merged = parts[0].merge(parts[1]).to_dict()["1m"]["packets"]["period"]
    assert merged["start_ts"] == min(period["start_ts"] for period in periods)
    assert merged["length"] == sum(period["length"] for period in periods)


@pytest.mark.parametrize(
    "other", ["net:2.0", "net,dns", "net+all", {"type": "net", "filter": {"geoloc_notfound": True}}]
)
def test_what_cannot_be_merged(other: Any) -> None:
    config = {"type": "net", "metric_groups": {"disable": ["top_geo"]}}
    net, theirs = summed(CAPTURES / "http.pcap", config), summed(CAPTURES / "http.pcap", other)
    with pytest.raises(ConfigError, match="cannot be merged"):
        net.merge(theirs)


def test_merge_of_one_and_of_none() -> None:
    net = summed(CAPTURES / "http.pcap", "net")
    assert netprobe.merge([net]).to_dict() == net.to_dict()
    # a group that is on anyway makes no other settings
    assert net.merge(summed(CAPTURES / "http.pcap", "net+top_ips")).packets == 2 * net.packets
    with pytest.raises(ConfigError, match="at least one"):
        netprobe.merge([])


def test_number_of_handlers() -> None:
    assert len(summed(CAPTURES / "icmp.pcap", ["net"] * 32).to_dict()["1m"]) == 32
    with pytest.raises(ConfigError, match="33 of them, expected at most 32"):
        summed(CAPTURES / "icmp.pcap", ["net"] * 33)


SHARED = [
    ({"window_config": {"num_periods": 2, "deep_sample_rate": 3}}, 2, 3),
    ({"handlers": {"type": "net", "filter": {"num_periods": 7, "deep_sample_rate": 4}}}, 7, 4),
    ({"handlers": {"type": "net", "config": {"num_periods": 99}}, "periods": 3}, 10, 100),
    ({"handlers": "net", "periods": 3, "deep_sample_rate": 50}, 3, 50),
]


@pytest.mark.parametrize(("options", "periods", "rate"), SHARED)
def test_periods_and_sampling_are_taken_from_anywhere(
    options: dict[str, Any], periods: int, rate: int
) -> None:
    """From the call, the window settings or the handlers: no place for them is one that does nothing."""
    summary = netprobe.summarize(CAPTURES / "http.pcap", **options)
    (document,) = summary.to_dict().items()
    key, body = document
    assert key == f"{periods}m"
    same = netprobe.summarize(CAPTURES / "http.pcap", handlers="net", deep_sample_rate=rate)
    deep = same.to_dict()["5m"]["packets"]["deep_samples"]
    assert body["packets"]["deep_samples"] == deep
    assert (deep == same.packets) == (rate == 100)


@pytest.mark.parametrize("key", ["num_periods", "deep_sample_rate"])
def test_periods_and_sampling_are_one_for_all(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: 2 and (5|100) are given"):
        netprobe.summarize(CAPTURES / "http.pcap", handlers=["dns", {"type": "net", "config": {key: 2}}])


# --- losses ---


@pytest.mark.parametrize("workers", [1, 2])
def test_evicted_transactions_are_counted(tmp_path: Path, workers: int) -> None:
    """More open queries than the table of one pair of addresses has room for: 7/8 of 2^18."""
    header, found = records(CAPTURES / "dns-udp.pcap")
    (chunk,) = netprobe.packets(CAPTURES / "dns-udp.pcap", ["l3", "dport", "l4_off", "payload_off"])
    first = int(((chunk["l3"] == 4) & (chunk["dport"] == 53)).argmax())
    query = found[first][1]
    port, ident = (16 + int(chunk[name][first]) for name in ("l4_off", "payload_off"))
    queries = 240_000
    path = tmp_path / "flood.pcap"
    with path.open("wb") as file:
        file.write(header)
        for i in range(queries):
            mark = struct.pack(">HH", i >> 16, i & 0xFFFF)
            file.write(
                query[:port] + b"\x20" + mark[1:2] + query[port + 2 : ident] + mark[2:] + query[ident + 2 :]
            )
    summary = summed(path, "dns", workers=workers)
    assert exact(summary)["dns  wire_packets.queries"] == queries
    room = 7 * 2**18 // 8
    assert queries - room <= summary.stats["losses"]["transactions_evicted"] <= 1.1 * (queries - room)
    both = summary.merge(summed(CAPTURES / "dns-udp.pcap", "dns"))
    assert both.stats["losses"] == summary.stats["losses"]


# --- progress and stop ---


@pytest.fixture(scope="module")
def many_packets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than is read between two looks at the clock."""
    header, found = records(CAPTURES / "http-snap96.pcap")
    path = tmp_path_factory.mktemp("many") / "many.pcap"
    path.write_bytes(header + found[0][1] * 300_000)
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_progress(many_packets: Path, workers: int) -> None:
    seen: list[Progress] = []
    summary = summed(many_packets, "net", progress=seen.append, workers=workers)
    assert not summary.interrupted
    size = many_packets.stat().st_size
    assert seen
    for before, after in itertools.pairwise(seen):
        assert before.packets <= after.packets <= 300_000
        assert before.bytes <= after.bytes <= size == after.total_bytes


@pytest.mark.parametrize("workers", [1, 2])
def test_stop(many_packets: Path, workers: int) -> None:
    """What was counted before is a summary like any other."""
    stop = threading.Event()
    early = summed(
        many_packets, "net", workers=workers, stop=stop, progress=lambda state: state.packets and stop.set()
    )
    if workers == 1:  # with more, the rest may have been read before anybody looked
        assert early.interrupted
        assert 0 < early.packets < 300_000
    assert exact(early)["net  total"] == early.packets
    again = pickle.loads(pickle.dumps(early))
    assert again.interrupted == early.interrupted
    assert early.merge(summed(CAPTURES / "http.pcap", "net")).interrupted == early.interrupted


@pytest.mark.parametrize("name", ["bad-label", "", "1st", "straße"])
def test_labels_that_prometheus_refuses(name: str) -> None:
    summary = summed(CAPTURES / "icmp.pcap", "net")
    with pytest.raises(ConfigError, match="letters, digits"):
        summary.to_prometheus(**{name: "x"})


def test_html_is_escaped() -> None:
    summary = summed(CAPTURES / "demo.pcap")
    html = summary._repr_html_()
    assert f"{summary.packets:,} packets" in html
    assert ".example.test" in html
    assert "<script" not in html
    assert (
        repr(summary) == f"<Summary of {summary.packets} packets: net, net_v2, dns, dns_v2, dhcp, bgp, pcap>"
    )

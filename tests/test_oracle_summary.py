"""summarize against tshark: the counters of every handler, on every own capture and decode feature."""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import generate
import oracle
import pytest

import netprobe

pytestmark = pytest.mark.tool("tshark")

CAPTURES = Path(__file__).parent / "captures"
RECORDED = {p.name: p for p in sorted(CAPTURES.glob("*.pcap"))}
# every decode feature and link type; of the file formats one of each kind, the rest is in test_oracle_packets
NAMES = [
    *RECORDED,
    *(f"frames-{n}" for n in generate.FRAMES),
    *(f"link-{n}" for n in generate.link_files()),
    "format-us-be",
    "format-ns-le",
    "format-ng-sections",
    "format-ng-interfaces",
    "format-cut-by-snaplen",
    "format-gzip",
    "format-zstd",
    "format-empty",
]
HOSTS = ("10.0.0.0/8", "2001:db8::/32", "fd77::1/128")
ALL = {"enable": ["all"]}
HANDLERS = [
    "net:1.0",
    "net:2.0",
    {"type": "dns", "version": "1.0", "metric_groups": ALL},
    "dhcp",
    "bgp",
    "pcap",
]
QTYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    65: "HTTPS",
}
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SRVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


@pytest.fixture(scope="module")
def path_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("generated")
    made = generate.everything()

    @functools.cache
    def path(name: str) -> Path:
        if name in RECORDED:
            return RECORDED[name]
        file = folder / f"{name}.pcap"
        file.write_bytes(made[name])
        return file

    return path


@functools.cache
def summarized(path: Path, hosts: tuple[str, ...] = ()) -> dict[str, Any]:
    summary = netprobe.summarize(path, handlers=HANDLERS, hosts=list(hosts) or None, periods=1)
    assert summary.warnings == []
    doc: dict[str, Any] = summary.to_dict()["1m"]
    return doc


def rows(table: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    assert len({r["name"] for r in table}) == len(table), "a name twice"
    return {r["name"]: r["estimate"] for r in table}


def same_top(table: Sequence[Mapping[str, Any]], want: Mapping[str, int], limit: int = 10) -> None:
    """The table has the largest counts, each right; which of equal ones made it is open."""
    got = rows(table)
    assert sorted(got.values(), reverse=True) == sorted(want.values(), reverse=True)[:limit]
    assert got == {name: want.get(name) for name in got}


def in_hosts(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return any(address in ipaddress.ip_network(h) for h in HOSTS)


def direction(frame: oracle.Frame) -> int:
    """0 to the hosts, 1 from them, 2 neither (metrics spec 4.2)."""
    if not frame.src:
        return 2
    return 0 if in_hosts(frame.dst) else 1 if in_hosts(frame.src) else 2


@pytest.mark.parametrize("name", NAMES)
def test_net(path_of: Callable[[str], Path], name: str) -> None:
    path = path_of(name)
    truth = oracle.truth(path)
    doc = summarized(path)
    net = doc["packets"]
    got = {k: net[k] for k in ("events", "total", "unknown_dir", "ipv4", "ipv6", "tcp", "udp", "other_l4")}
    assert got == {
        "events": truth.packets,
        "total": truth.packets,
        "unknown_dir": truth.packets,
        "ipv4": truth.ipv4,
        "ipv6": truth.ipv6,
        "tcp": truth.tcp,
        "udp": truth.udp,
        "other_l4": truth.other_l4,
    }
    assert net["protocol"]["tcp"]["syn"] == truth.syn
    assert net["filtered"] == net["in"] == net["out"] == 0
    if not truth.packets:
        return
    sizes = [f.wirelen for f in truth.frames]
    for key, rank in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        value = net["payload_size"][key]
        if len(sizes) <= 200:
            assert value == oracle.quantile(sizes, rank)
        else:
            below = sum(s < value for s in sizes) / len(sizes)
            upto = sum(s <= value for s in sizes) / len(sizes)
            assert below - 0.015 <= rank <= upto + 0.015
    assert net["period"]["start_ts"] == truth.frames[0].ts // 10**9
    block = doc["net"]["unknown"]
    addresses = truth.addresses
    assert block["cardinality"]["ips"] == len(addresses)
    same_top(block["top_ipv4_packets"], {a: n for a, n in addresses.items() if ":" not in a})
    six = {str(ipaddress.ip_address(a)): n for a, n in addresses.items() if ":" in a}
    same_top(block["top_ipv6_packets"], six)
    assert block["total_packets"] == truth.packets


@pytest.mark.parametrize("name", NAMES)
def test_directions(path_of: Callable[[str], Path], name: str) -> None:
    path = path_of(name)
    frames = oracle.truth(path).frames
    doc = summarized(path, HOSTS)
    ways = Counter(direction(f) for f in frames)
    net = doc["packets"]
    assert (net["in"], net["out"], net["unknown_dir"]) == (ways[0], ways[1], ways[2])
    zero = ("0.0.0.0", "::", "")
    sources = {f.src for f in frames if direction(f) == 0} - set(zero)
    targets = {f.dst for f in frames if direction(f) == 1} - set(zero)
    assert net["cardinality"] == {"src_ips_in": len(sources), "dst_ips_out": len(targets)}
    peers = Counter(f.src if direction(f) == 0 else f.dst for f in frames if direction(f) < 2)
    for empty in zero:
        del peers[empty]
    same_top(net["top_ipv4"], {a: n for a, n in peers.items() if ":" not in a})
    same_top(net["top_ipv6"], {str(ipaddress.ip_address(a)): n for a, n in peers.items() if ":" in a})
    for way, key in enumerate(("in", "out", "unknown")):
        assert doc["net"].get(key, {}).get("total_packets", 0) == ways[way]


@pytest.mark.parametrize("name", NAMES)
def test_dns(path_of: Callable[[str], Path], name: str) -> None:
    path = path_of(name)
    truth = oracle.truth(path).dns
    dns = summarized(path)["dns"]
    wire = dns["wire_packets"]
    assert {k: wire[k] for k in ("events", "total", "queries", "replies", "udp", "tcp", "ipv4", "ipv6")} == {
        "events": truth.total,
        "total": truth.total,
        "queries": truth.queries,
        "replies": truth.replies,
        "udp": truth.udp,
        "tcp": truth.tcp,
        "ipv4": truth.ipv4,
        "ipv6": truth.ipv6,
    }
    assert {k: wire[k] for k in ("noerror", "nodata", "nxdomain", "refused", "srvfail")} == {
        "noerror": truth.rcodes[0],
        "nodata": truth.nodata,
        "nxdomain": truth.rcodes[3],
        "refused": truth.rcodes[5],
        "srvfail": truth.rcodes[2],
    }
    # the empty name of the root is no item of a set (metrics spec 1.3)
    assert dns["cardinality"]["qname"] == len([n for n in truth.names if n])
    same_top(dns["top_qtype"], {QTYPES[q]: n for q, n in truth.qtypes.items()})
    same_top(dns["top_rcode"], {RCODES[r]: n for r, n in (+truth.rcodes_named).items()})
    if "cut" not in name:  # tshark matches no message that the snap length cut
        assert dns["xact"]["counts"] == {"total": truth.matched, "timed_out": truth.late}


@pytest.mark.parametrize("name", NAMES)
def test_client_subnets(path_of: Callable[[str], Path], name: str) -> None:
    path = path_of(name)
    truth = oracle.truth(path).dns
    dns = summarized(path)["dns"]
    same_top(dns["top_query_ecs"], {str(ipaddress.ip_address(a)): n for a, n in truth.subnets.items()})
    assert dns["wire_packets"]["query_ecs"] == sum(truth.subnets.values())


@pytest.mark.parametrize("name", NAMES)
def test_dhcp(path_of: Callable[[str], Path], name: str) -> None:
    path = path_of(name)
    truth = oracle.truth(path)
    wire = summarized(path)["dhcp"]["wire_packets"]
    v4, v6 = truth.dhcp4, truth.dhcp6
    assert {k: wire[k] for k in ("discover", "offer", "request", "ack")} == {
        "discover": v4[1],
        "offer": v4[2],
        "request": v4[3],
        "ack": v4[5],
    }
    assert {k: wire[k] for k in ("solicit", "advertise", "request_v6", "reply")} == {
        "solicit": v6[1],
        "advertise": v6[2],
        "request_v6": v6[3],
        "reply": v6[7],
    }
    assert wire["total"] == sum(v4.values())
    assert wire["events"] == sum(v4.values()) + sum(v6.values())


@pytest.mark.parametrize("name", NAMES)
def test_bgp(path_of: Callable[[str], Path], name: str) -> None:
    path = path_of(name)
    truth = oracle.truth(path).bgp
    wire = summarized(path)["bgp"]["wire_packets"]
    kinds = ("open", "update", "notification", "keepalive", "routerefresh")
    assert {k: wire[k] for k in kinds} == {k: truth[i + 1] for i, k in enumerate(kinds)}
    assert wire["total"] == sum(truth.values())


@pytest.mark.parametrize(
    "name", ["demo.pcap", "frames-mix", "frames-dns-tcp", "frames-fragments", "bgp.pcap"]
)
@pytest.mark.parametrize("workers", [2, 3])
def test_workers_agree(path_of: Callable[[str], Path], name: str, workers: int) -> None:
    """The merge law: shards together are the whole."""
    path = path_of(name)
    one = summarized(path, HOSTS)
    many = netprobe.summarize(path, handlers=HANDLERS, hosts=list(HOSTS), periods=1, workers=workers)
    assert many.to_dict()["1m"] == one


def test_several_files_are_one_stream(path_of: Callable[[str], Path], captures: Path) -> None:
    """Counters of two files are those of both; nothing is lost where they meet."""
    names = ["dns-udp.pcap", "dns-tcp.pcap"]
    both = netprobe.summarize([captures / n for n in names], handlers=HANDLERS, periods=1).to_dict()["1m"]
    parts = [summarized(path_of(n)) for n in names]
    assert both["packets"]["total"] == sum(p["packets"]["total"] for p in parts)
    for key in ("queries", "replies", "udp", "tcp", "nxdomain"):
        assert both["dns"]["wire_packets"][key] == sum(p["dns"]["wire_packets"][key] for p in parts)

"""The acceptance cases B-01 to B-23 of pktvisor's behave features (agent spec 8.1), over HTTP.

A case's number stands in its test's name. B-02 and B-03 are in test_pktvisord.py too, with more detail.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netns
import pytest
from agentkit import CAPTURES, PKTVISORD, Agent

pytestmark = pytest.mark.root

LEAVES = ("net", "dhcp", "dns", "pcap")


@pytest.fixture
def alone() -> Iterator[netns.Namespace]:
    with netns.pair() as (_, receiver):
        yield receiver


@pytest.fixture
def user(alone: netns.End) -> Agent:
    return Agent(alone, alone.iface)


@pytest.fixture
def admin(alone: netns.End) -> Agent:
    return Agent(alone, "--admin-api", alone.iface)


def policy(name: str, *types: str, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "kind": "collection",
        "input": {"tap": "default", "input_type": "pcap"},
        "handlers": {"modules": {f"{kind}_1": {"type": kind} for kind in types or LEAVES}},
    }
    return {"version": "1.0", "visor": {"policies": {name: body | more}}}


def post(agent: Agent, path: str, document: Any) -> Any:
    """As the features do: YAML by its type, which JSON is too."""
    return agent.request(path, "POST", document, type="application/x-yaml")


def add(agent: Agent, name: str = "extra", *types: str, **more: Any) -> None:
    answer = post(agent, "policies", policy(name, *types, **more))
    assert answer.status == 201, answer
    assert list(answer.json) == [name]


def add_tap(agent: Agent, name: str, iface: str, tags: dict[str, Any] | None = None) -> dict[str, Any]:
    tap: dict[str, Any] = {"input_type": "pcap", "config": {"iface": iface}}
    if tags is not None:
        tap["tags"] = tags
    answer = post(agent, "taps", {"version": "1.0", "visor": {"taps": {name: tap}}})
    assert answer.status == 201, answer
    found: dict[str, Any] = answer.json[name]
    return found


def delete(agent: Agent, *names: str) -> None:
    for name in names:
        assert agent.request(f"policies/{name}", "DELETE").status == 200


def resources(agent: Agent) -> list[str]:
    return [name for name in agent.running() if name.endswith("-resources")]


def test_b01_everything_answers_at_once(user: Agent) -> None:
    paths = ["policies"]
    paths += [f"policies/__all/metrics/window/{n}" for n in range(2, 6)]
    paths += [f"policies/__all/metrics/bucket/{n}" for n in range(5)]
    for path in [*paths, "policies/__all/metrics/prometheus"]:
        assert user.request(path).status == 200, path
    assert re.search(r"web server listening on localhost:10853", user.program.stdout)
    assert len(user.running()) == 2
    assert re.fullmatch(r"default-[a-zA-Z0-9]+-resources", resources(user)[0])


def test_b02_three_agents(alone: netns.End) -> None:
    agents = [Agent(alone, "-p", str(port), alone.iface, port=port) for port in (10853, 10854, 10855)]
    for agent in agents:
        assert len(agent.running()) == 2


def test_b03_port_in_use(alone: netns.End, user: Agent) -> None:
    second = Agent(alone, alone.iface, start=False)
    second.wait_log("unable to bind to localhost:10853")
    assert second.program.wait() == 1
    assert len(user.running()) == 2


@pytest.mark.parametrize("types", [LEAVES, *((kind,) for kind in LEAVES)], ids="-".join)
def test_b04_b05_a_policy_more(types: tuple[str, ...], admin: Agent) -> None:
    add(admin, "extra", *types)
    assert len(admin.running()) == 4
    assert len(resources(admin)) == 2


def test_b07_default_deleted(admin: Agent) -> None:
    delete(admin, "default")
    answer = admin.request("policies/default")
    assert (answer.status, answer.json["error"]) == (404, "policy does not exists")
    assert admin.running() == []


def test_b08_both_deleted(admin: Agent) -> None:
    add(admin)
    delete(admin, "default", "extra")
    assert admin.running() == []


@pytest.mark.parametrize("name", ["default", "extra"])
def test_b09_one_deleted(name: str, admin: Agent) -> None:
    add(admin)
    delete(admin, name)
    assert len(admin.running()) == 2


def test_b10_resources_deleted(admin: Agent) -> None:
    (name,) = resources(admin)
    assert re.fullmatch(r"default-[a-zA-Z0-9]+-resources", name)
    delete(admin, name)
    assert admin.running() == ["default"]


@pytest.mark.parametrize("how_many", [1, 2])
def test_b11_resources_deleted_of_two(how_many: int, admin: Agent) -> None:
    add(admin)
    delete(admin, *resources(admin)[:how_many])
    assert len(admin.running()) == 4 - how_many


def test_b12_b13_read_only(user: Agent) -> None:
    answer = post(user, "policies", policy("extra"))
    assert (answer.status, answer.body) == (404, b"")
    answer = user.request("policies/default", "DELETE")
    assert (answer.status, answer.body) == (404, b"")
    assert len(user.running()) == 2


@pytest.mark.parametrize("mode", ["user", "admin"])
def test_b15_the_default_tap(mode: str, request: pytest.FixtureRequest) -> None:
    agent: Agent = request.getfixturevalue(mode)
    for path in ("taps", "taps/default"):
        tap = agent.json(path)["default"]
        assert tap["config"]["iface"] == "np2"
        assert tap["config"].get("host_spec") in (None, "")
        assert tap["input_type"] == "pcap"
        assert tap["interface"] == "visor.module.input/1.0"
        assert tap["tags"] is None


def test_b16_a_tap_without_tags(alone: netns.End, admin: Agent) -> None:
    made = add_tap(admin, "second", alone.iface)
    assert admin.json("taps/second") == {"second": made}
    assert admin.json("taps")["second"] == made
    assert sorted(admin.json("taps")) == ["default", "second"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_b17_a_tap_with_tags(count: int, alone: netns.End, admin: Agent) -> None:
    tags = {f"tag{n}": n for n in range(count)}
    assert add_tap(admin, "second", alone.iface, tags)["tags"] == tags


def test_b18_taps_deleted(alone: netns.End, admin: Agent) -> None:
    add_tap(admin, "second", alone.iface)
    assert admin.request("taps/second", "DELETE").status == 200
    assert list(admin.json("taps")) == ["default"]
    assert admin.request("taps/default", "DELETE").status == 200
    assert admin.json("taps") in ({}, None)
    assert len(admin.running()) == 2
    answer = admin.request("taps/default")
    assert (answer.status, answer.json["error"]) == (404, "tap does not exists")


SELECTORS: list[tuple[str, list[dict[str, Any]], list[str]]] = [
    ("any", [{"site": "lab"}, {"rack": 9}, {"unknown": "x"}], ["one", "two"]),  # B-19
    ("all", [{"rack": 4}], ["one"]),  # B-20
    ("any", [{"rack": 4}, {"unknown": "x"}], ["one"]),  # B-21
]


@pytest.mark.parametrize(("kind", "entries", "chosen"), SELECTORS, ids=["b19", "b20", "b21"])
def test_b19_b20_b21_selectors(
    kind: str, entries: list[dict[str, Any]], chosen: list[str], alone: netns.End, admin: Agent
) -> None:
    add_tap(admin, "one", alone.iface, {"site": "lab", "rack": 4})
    add_tap(admin, "two", alone.iface, {"site": "hall", "rack": 9})
    assert len(admin.json("taps")) == 3
    add(admin, "extra", input={"input_type": "pcap", "tap_selector": {kind: entries}})
    found = admin.json("policies/extra")["extra"]
    assert sorted(name.rpartition("-")[0] for name in found["input"]) == chosen
    assert all(name.rpartition("-")[2].isalnum() for name in found["input"])
    assert sorted(found["modules"]) == sorted(f"extra-{tap}-{kind}_1" for tap in chosen for kind in LEAVES)
    assert len(admin.running()) == 3 + len(chosen)


def test_b22_no_tap_matches(alone: netns.End, admin: Agent) -> None:
    add_tap(admin, "one", alone.iface, {"rack": 4})
    selector = {"all": [{"rack": 4}, {"unknown": "x"}]}
    answer = post(admin, "policies", policy("extra", input={"input_type": "pcap", "tap_selector": selector}))
    assert answer.status == 422
    assert answer.body == b'{"error":"no tap match found for specified \'input.tap_selector\' tags"}'
    assert admin.request("policies/extra").status == 404
    assert len(admin.running()) == 2


@pytest.mark.parametrize("kind", ["flow", "dnstap"])
def test_b23_taps_are_not_validated_until_used(kind: str, admin: Agent) -> None:
    document = {"version": "1.0", "visor": {"taps": {"later": {"input_type": kind}}}}
    assert post(admin, "taps", document).status == 201


# --- B-14: closed buckets never change ---------------------------------------------------------------------


@pytest.mark.tool("faketime", "tcpreplay", "ethtool")
def test_b14_buckets_move_on_unchanged() -> None:
    """Minutes pass in seconds: the agent's clock runs thirty times as fast."""
    with netns.pair() as (sender, receiver):
        agent = Agent(receiver, receiver.iface, program=["faketime", "-f", "+0 x30", *PKTVISORD])
        rounds: list[list[Any]] = []
        while len(rounds) < 6:
            sender.replay(CAPTURES / "demo.pcap")
            found = closed_buckets(agent)
            if found and (not rounds or start(found[0]) != start(rounds[-1][0])):
                rounds.append(found)
        for before, after in itertools.pairwise(rounds):
            assert after[1 : 1 + len(before)] == before[:3]
        assert len(rounds[-1]) == 4
        totals = [one["default"]["default-default-net"]["packets"]["total"] for one in rounds[-1]]
        assert min(totals) > 0


def closed_buckets(agent: Agent) -> list[Any]:
    """Buckets 1 to 4, those that there are, all of one moment."""
    while True:
        found = []
        for n in range(1, 5):
            answer = agent.request(f"policies/default/metrics/bucket/{n}")
            if answer.status == 425:
                break
            assert answer.status == 200, answer
            found.append(answer.json)
        again = agent.request("policies/default/metrics/bucket/1")
        if not found or again.json == found[0]:
            return found


def start(bucket: Any) -> int:
    return int(bucket["default"]["default-default-net"]["packets"]["period"]["start_ts"])


# --- B-06: the schema of what windows hold (agent spec 8.2) ------------------------------------------------

FILES = (
    "dhcp-flow.pcap",
    "dns_ipv6_udp.pcap",
    "dns_ipv6_tcp.pcap",
    "dns_ipv4_udp.pcap",
    "dns_ipv4_tcp.pcap",
    "dns_udp_mixed_rcode.pcap",
)
PERCENTILES = {"p50", "p90", "p95", "p99"}
PERIOD = ("period.start_ts", "period.length")
INTEGERS = {
    "packets": (
        *("total", "in", "out", "tcp", "udp", "other_l4", "ipv4", "ipv6", "filtered", "deep_samples"),
        *("protocol.tcp.syn", "cardinality.src_ips_in", "cardinality.dst_ips_out", *PERIOD),
    ),
    "dns": ("cardinality.qname", "xact.counts.total", "xact.counts.timed_out", *PERIOD),
    "dhcp": (
        *(f"wire_packets.{name}" for name in ("total", "filtered", "deep_samples")),
        *(f"wire_packets.{name}" for name in ("discover", "offer", "request", "ack")),
        *PERIOD,
    ),
    "pcap": ("tcp_reassembly_errors", "os_drops", "if_drops", *PERIOD),
    "input_resources": ("policy_count", "handler_count", "total", "deep_samples", *PERIOD),
}
QUANTILES = {
    "packets": (
        "payload_size",
        *(f"rates.{name}" for name in ("bytes_in", "bytes_out", "pps_in", "pps_out", "pps_total")),
    ),
    "dns": ("rates.total",),
    "dhcp": ("rates.total",),
    "pcap": (),
    "input_resources": ("memory_bytes", "event_rate"),
}
LISTS = {
    "packets": ("top_ipv4", "top_ipv6", "top_geoLoc", "top_ASN"),
    "dns": (
        *("top_nodata", "top_nxdomain", "top_qname2", "top_qname3", "top_qtype", "top_rcode", "top_refused"),
        *("top_srvfail", "top_udp_ports", "xact.in.top_slow", "xact.out.top_slow"),
    ),
}


def at(metrics: dict[str, Any], path: str) -> Any:
    found: Any = metrics
    for key in path.split("."):
        assert key in found, f"{path} is missing"
        found = found[key]
    return found


def is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def check_schema(key: str, metrics: dict[str, Any]) -> None:
    """What the behave steps require of one handler's metrics."""
    for path in INTEGERS[key]:
        assert is_number(at(metrics, path), int), path
    for path in QUANTILES[key]:
        found = at(metrics, path)
        assert set(found) in (PERCENTILES, PERCENTILES | {"live"}), (path, found)
        assert all(is_number(value, int) for value in found.values()), (path, found)
    for path in LISTS.get(key, ()):
        for entry in at(metrics, path):
            assert isinstance(entry["name"], str), path
            assert is_number(entry["estimate"], int), path
    if key == "dns":
        assert all(is_number(value, int) for value in metrics["wire_packets"].values())
        for side in ("in", "out"):
            found = metrics["xact"][side]
            assert is_number(found["total"], int)
            if found["total"]:
                assert set(found["quantiles_us"]) == PERCENTILES
        if metrics["xact"]["in"]["total"]:
            assert all(is_number(v, float) for v in metrics["xact"]["ratio"]["quantiles"].values())
    if key == "input_resources":
        assert set(metrics["cpu_usage"]) == PERCENTILES
        assert all(is_number(value, float) for value in metrics["cpu_usage"].values())


def captures_of(shared: Path) -> list[Path]:
    found = [path for name in FILES for path in sorted(shared.rglob(name))[:1]]
    if len(found) < 2:
        pytest.skip("shared data absent: pktvisor's captures")
    return found


@pytest.mark.tool("tcpreplay", "ethtool")
def test_b06_windows_hold_what_was_replayed(shared: Path) -> None:
    with netns.pair() as (sender, receiver):
        agent = Agent(receiver, "--admin-api", "-H", "192.168.0.0/24,127.0.0.1/32", receiver.iface)
        add(agent)
        sent = sum(sender.replay(path, "--pps=2000") for path in captures_of(shared))
        agent.wait_total(sent)
        # resources are sampled every few seconds, rates every second
        netns.until(lambda: sampled(agent), "each handler has its quantiles")
        for n in range(2, 6):
            document = agent.json(f"policies/__all/metrics/window/{n}")
            kinds = set()
            for handlers in document.values():
                for by_key in handlers.values():
                    for key, metrics in by_key.items():
                        kinds.add(key)
                        check_schema(key, metrics)
            assert kinds == set(INTEGERS)
            packets = document["default"]["default-default-net"]["packets"]
            assert packets["total"] == sent
        assert agent.texts("error") == []


def sampled(agent: Agent) -> bool:
    text = json.dumps(agent.json("policies/__all/metrics/window/2"))
    return text.count('"memory_bytes": {') == 2 and text.count('"cpu_usage": {') == 2

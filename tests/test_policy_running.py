"""Policies on real inputs: files, packets that are made up, and interfaces in network namespaces."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import netns
import pytest
from netns import until

import netprobe
from netprobe.errors import InputError
from netprobe.policy.manager import Manager

MOCK = {"pcap_source": "mock", "host_spec": "192.168.0.0/24"}


@contextlib.contextmanager
def running(**options: Any) -> Iterator[Manager]:
    manager = Manager(**options)
    try:
        yield manager
    finally:
        manager.close()


def tap(manager: Manager, name: str, config: Mapping[str, Any], **tags: Any) -> None:
    body = {"input_type": "pcap", "config": dict(config)}
    manager.add_tap({"visor": {"taps": {name: {**body, "tags": tags} if tags else body}}})


def policy(manager: Manager, name: str, modules: Any, merge: bool = False, **input_: Any) -> Any:
    body = {
        "kind": "collection",
        "config": {"merge_like_handlers": merge},
        "input": {"input_type": "pcap", **input_},
        "handlers": {"modules": modules},
    }
    manager.add_policy({"visor": {"policies": {name: body}}})
    return manager.policies[name]


def until_read(manager: Manager) -> None:
    """Until every file has been read to its end."""
    until(lambda: not any(one.running for one in manager.inputs.values()), "files are read", 60)


# --- files ---


def test_two_files_as_one(captures: Path) -> None:
    """Like handlers of two taps: what two summaries say, added."""
    files = {"web": captures / "http.pcap", "names": captures / "dns-udp.pcap"}
    singles = {name: netprobe.summarize(path, handlers="net", periods=10) for name, path in files.items()}
    with running(periods=10) as manager:
        body = {
            "kind": "collection",
            "input": {"input_type": "pcap", "tap_selector": {"any": [{"kind": "file"}]}},
            "handlers": {"modules": {"n": {"type": "net"}}},
        }
        merging = {**body, "config": {"merge_like_handlers": True}}
        taps = {
            name: {"input_type": "pcap", "config": {"pcap_file": str(path)}, "tags": {"kind": "file"}}
            for name, path in files.items()
        }
        manager.load_file({"visor": {"taps": taps, "policies": {"whole": merging, "apart": body}}})
        whole, apart = manager.policies["whole"], manager.policies["apart"]
        until_read(manager)
        single = apart.window_json(10)
        for name, summary in singles.items():
            expected = summary.to_dict()["10m"]["packets"]
            assert single[f"apart-{name}-n"]["packets"]["total"] == expected["total"] > 0
        found = whole.window_json(10)
        assert list(found) == ["packets_merged"]
        parts = [one.to_dict()["10m"]["packets"] for one in singles.values()]
        for key in ("total", "udp", "tcp", "ipv4", "ipv6", "events", "deep_samples"):
            assert found["packets_merged"]["packets"][key] == sum(part[key] for part in parts)
        # sketches of the same packets, merged by the library
        merged = netprobe.merge(singles.values()).to_dict()["10m"]["packets"]
        assert found["packets_merged"]["packets"]["top_ipv4"] == merged["top_ipv4"]
        # quantiles are added
        sizes = found["packets_merged"]["packets"]["payload_size"]
        for key in ("p50", "p90", "p95", "p99"):
            assert sizes[key] == sum(part["payload_size"][key] for part in parts)


def test_a_file_that_was_read(captures: Path) -> None:
    """Who comes too late is told so."""
    with running() as manager:
        tap(manager, "t", {"pcap_file": str(captures / "http.pcap")})
        policy(manager, "p", {"n": {"type": "net"}}, tap="t")
        until_read(manager)
        with pytest.raises(netprobe.InputError, match=r"^policy \[q\] failed to start: .*read to its end"):
            policy(manager, "q", {"n": {"type": "net"}}, tap="t")
        assert set(manager.policies) == {"p", *(name for name in manager.policies if name[:2] == "t-")}


def test_chain(shared: Path) -> None:
    """U-26: net sees what dns let through."""
    path = shared / "pcap" / "pktvisor" / "dns_udp_mixed_rcode.pcap"
    gate = {"type": "dns", "filter": {"only_qname_suffix": ["google.com"]}}
    with running(periods=1) as manager:
        tap(manager, "t", {"pcap_file": str(path), "host_spec": "192.168.0.0/24"})
        one = policy(manager, "p", [{"names": gate}, {"seen": {"type": "net"}}], tap="t")
        until_read(manager)
        found = one.bucket_json(0)
        assert found["p-t-names"]["dns"]["wire_packets"]["total"] == 10
        assert found["p-t-seen"]["packets"]["total"] == 10
        assert found["p-t-seen"]["packets"]["cardinality"]["dst_ips_out"] == 3


def test_chain_behind_a_geo_filter(shared: Path, geo_city: str, geo_asn: str) -> None:
    """U-26a."""
    from netprobe.geo import GeoAsn, GeoCity, GeoNames

    path = shared / "pcap" / "pktvisor" / "dns_udp_mixed_rcode.pcap"
    gate = {"type": "net", "filter": {"geoloc_notfound": True}}
    with running(periods=1, geo=GeoNames(GeoCity(geo_city), GeoAsn(geo_asn))) as manager:
        tap(manager, "t", {"pcap_file": str(path), "host_spec": "192.168.0.0/24"})
        one = policy(manager, "p", [{"gate": gate}, {"names": {"type": "dns"}}], tap="t")
        until_read(manager)
        found = one.bucket_json(0)
        assert found["p-t-gate"]["packets"]["total"] == 24
        assert found["p-t-names"]["dns"]["wire_packets"]["total"] == 24


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with running() as manager:
        tap(manager, "t", {"pcap_file": str(tmp_path / "none.pcap")})
        with pytest.raises(netprobe.NetprobeError, match=r"^policy \[p\] failed to start: .*none\.pcap"):
            policy(manager, "p", {"n": {"type": "net"}}, tap="t")
        assert not manager.policies
        assert not manager.inputs


def test_a_filter_that_is_wrong() -> None:
    with running() as manager:
        tap(manager, "t", MOCK)
        tap(manager, "lo", {"iface": "lo"})
        for words in ("port", "no such thing"):
            with pytest.raises(netprobe.NetprobeError, match=r"^policy \[p\] failed to start: "):
                policy(manager, "p", {"n": {"type": "net"}}, tap="lo", filter={"bpf": words})
        assert not manager.policies


# --- packets that are made up ---


def total(one: Any, handler: str = "n") -> int:
    """Packets that a policy's net handler counted in all."""
    (body,) = [body for name, body in one.window_json(5).items() if name.endswith(f"-{handler}")]
    return int(body["packets"]["total"])


def test_mock_source() -> None:
    """U-22: it starts, makes packets, and stops."""
    with running() as manager:
        tap(manager, "t", MOCK)
        one = policy(manager, "p", {"n": {"type": "net"}, "d": {"type": "dns"}}, tap="t")
        until(lambda: total(one) >= 5, "five packets")
        found = one.window_json(5)
        assert found["p-t-n"]["packets"]["in"] + found["p-t-n"]["packets"]["out"] >= 5
        assert found["p-t-d"]["dns"]["wire_packets"]["udp"] >= 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("input-")]


@pytest.mark.parametrize("which", ["input-", "input-tick"])
def test_no_thread_is_left(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of the system: said as what it is, the others go on, nothing is left of the policy."""
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith(which) and (which == "input-tick" or thread.name != "input-tick"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with running() as manager:
        tap(manager, "made", MOCK)
        policy(manager, "first", {"net": {"type": "net"}}, tap="made")
        before = threading.active_count()
        monkeypatch.setattr(threading.Thread, "start", limited)
        with pytest.raises(InputError, match=r"\[second\] failed to start: .*new thread.*TasksMax"):
            policy(manager, "second", {"net": {"type": "net"}}, tap="made", config={"bpf": ""})
        monkeypatch.undo()
        assert threading.active_count() == before
        assert len(manager.inputs) == 1
        assert "second" not in manager.policies
        policy(manager, "second", {"net": {"type": "net"}}, tap="made", config={"bpf": ""})


@pytest.mark.root
def test_no_descriptor_is_left() -> None:
    with netns.Namespace("few") as ns, ns.inside(), running() as manager:
        tap(manager, "lo", {"iface": "lo", "ring_mb": 1})
        # what is loaded for a filter is loaded
        policy(manager, "first", {"net": {"type": "net"}}, tap="lo", config={"bpf": "tcp"})
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(8):
            number = os.dup(0)
            os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (number + spare, limits[1]))
            try:
                policy(manager, "second", {"net": {"type": "net"}}, tap="lo", config={"bpf": "udp"})
            except InputError as problem:
                assert re.search(r"\[second\] failed to start: .*too many open files", str(problem).lower())
            else:
                manager.remove_policy("second")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert len(manager.inputs) == 1
        policy(manager, "second", {"net": {"type": "net"}}, tap="lo", config={"bpf": "udp"})
        assert all(one.running for one in manager.inputs.values())


def test_mock_input() -> None:
    """The input type for tests: it runs, and fails to start when asked to (U-12)."""
    with running() as manager:
        manager.add_tap({"visor": {"taps": {"m": {"input_type": "mock"}}}})
        one = policy(manager, "p", {"n": {"type": "net"}}, tap="m", input_type="mock")
        assert one.running
        assert total(one) == 0
        with pytest.raises(netprobe.InputError) as found:
            policy(
                manager,
                "default_view",
                {"n": {"type": "net"}},
                tap="m",
                input_type="mock",
                config={"except_on_start": True},
            )
        assert str(found.value) == "policy [default_view] failed to start: mock error on start"


def test_nobody_loses_a_packet() -> None:
    """Policies come and go on the input of another one, which counts on."""
    with running() as manager:
        tap(manager, "t", MOCK)
        first = policy(manager, "first", {"n": {"type": "net"}}, tap="t")
        second = policy(manager, "second", {"n": {"type": "net"}}, tap="t")
        handlers = first.parts[0].handlers
        for number in range(60):
            policy(manager, f"p{number}", {"n": {"type": "net"}, "d": {"type": "dns"}}, tap="t")
            if number >= 3:
                manager.remove_policy(f"p{number - 3}")
        until(lambda: total(first) >= 20, "twenty packets")
        manager.remove_policy("second")
        assert first.parts[0].handlers is handlers
        (stream,) = manager.inputs.values()
        stream.stop()
        sent = int(stream.stats()["packets"])
        assert total(first) == sent
        # who left has what came before, and no more
        assert 0 < total(second) <= sent


def test_reload_loses_nothing() -> None:
    document: Any = {
        "visor": {
            "taps": {"t": {"input_type": "pcap", "config": MOCK}},
            "policies": {
                name: {
                    "kind": "collection",
                    "input": {"tap": "t", "input_type": "pcap"},
                    "handlers": {"modules": {"n": {"type": "net"}}},
                }
                for name in ("kept", "changed")
            },
        }
    }
    with running() as manager:
        manager.load_file(document)
        for number in range(10):
            modules = document["visor"]["policies"]["changed"]["handlers"]["modules"]
            modules["n"]["config"] = {"topn_count": 5 + number}
            manager.reload(document)
        kept = manager.policies["kept"]
        until(lambda: total(kept) >= 10, "ten packets")
        (stream,) = manager.inputs.values()
        stream.stop()
        assert total(kept) == int(stream.stats()["packets"])
        assert manager.policies["changed"].parts[0].configs[0].topn_count == 14


def test_resources() -> None:
    """What an input costs: policies and handlers on it, its own report apart; a chain is one handler."""

    def counts() -> tuple[int, int]:
        (name,) = [name for name in manager.policies if name.endswith("-resources")]
        body = manager.policies[name].bucket_json(0)[name]["input_resources"]
        return body["policy_count"], body["handler_count"]

    with running() as manager:
        tap(manager, "t", MOCK)
        policy(manager, "p1", {"n": {"type": "net"}, "d": {"type": "dns"}}, tap="t")
        until(lambda: counts() == (1, 2), "one policy with two handlers")
        policy(manager, "p2", [{"d": {"type": "dns"}}, {"n": {"type": "net"}}], tap="t")
        until(lambda: counts() == (2, 3), "two policies, of which one is a chain")
        manager.remove_policy("p1")
        until(lambda: counts() == (1, 1), "the chain alone")


def test_many_policies_on_one_input() -> None:
    """Two hundred, with real handlers; then none is left."""
    with running(periods=2) as manager:
        tap(manager, "t", MOCK)
        for number in range(200):
            policy(manager, f"p{number}", {"n": {"type": "net"}}, tap="t")
        last = manager.policies["p199"]
        until(lambda: last.window_json(2)["p199-t-n"]["packets"]["total"] >= 5, "the last one counts")
        for number in range(200):
            manager.remove_policy(f"p{number}")
        assert not manager.policies
        assert not manager.inputs


# --- interfaces ---


def kinds(manager: Manager) -> Counter[str]:
    """How many policies run, by who made them: `resources`, or the name."""
    found: Counter[str] = Counter()
    for name, one in manager.policies.items():
        if one.running and all(part.input.stream.running for part in one.parts):
            found["resources" if one.is_resources else name] += 1
    return found


@pytest.mark.root
def test_on_an_interface(captures: Path) -> None:
    """B-01, B-04, B-07 to B-11 with a device, and B-06: all windows have what they must have."""
    with netns.pair() as (sender, receiver), receiver.inside(), running() as manager:
        manager.add_default(receiver.iface)
        assert kinds(manager) == {"default": 1, "resources": 1}
        modules = {name: {"type": name} for name in ("net", "dhcp", "dns", "pcap")}
        policy(manager, "p", modules, tap="default")
        assert kinds(manager) == {"default": 1, "p": 1, "resources": 2}
        default, other = manager.policies["default"], manager.policies["p"]
        for one in (default, other):
            (shown,) = one.to_dict()["input"].values()
            assert shown["input"]["running"] is True
            assert receiver.iface in shown["pcap"]["available_iface"].split(",")
            assert shown["module"]["config"]["iface"] == receiver.iface
        sent = send(sender, captures / "dns-udp.pcap")
        until(lambda: total(default, "net") == sent and total(other, "net") == sent, f"{sent} packets")
        body = other.window_json(5)
        assert set(body) == {f"p-default-{name}" for name in modules}
        assert body["p-default-dns"]["dns"]["wire_packets"]["udp"] > 0
        manager.remove_policy("default")
        assert kinds(manager) == {"p": 1, "resources": 1}
        (name,) = [name for name in manager.policies if name.endswith("-resources")]
        manager.remove_policy(name)
        assert kinds(manager) == {"p": 1}
        manager.remove_policy("p")
        assert not manager.inputs


@pytest.mark.root
def test_no_such_interface() -> None:
    with netns.pair() as (_, receiver), receiver.inside(), running() as manager:
        with pytest.raises(netprobe.NetprobeError) as found:
            manager.add_default("nowhere0")
        assert str(found.value).startswith("policy [default] failed to start: ")
        assert "nowhere0" in str(found.value)
        assert receiver.iface in str(found.value)
        assert not manager.taps
        assert not manager.policies


def send(sender: Any, path: Path) -> int:
    """Send a capture's frames through a raw socket; how many."""
    import socket

    frames = list(netns.frames(path))
    with sender.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((sender.iface, 0))
        for frame in frames:
            out.send(frame)
    return len(frames)

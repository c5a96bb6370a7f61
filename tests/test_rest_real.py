"""The web server over the real manager: packets that are made up, real policies, real errors."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import hypothesis
import jsonschema_rs
import pytest
import requests
import schemathesis
from agent_fakes import Running, running, until
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from netprobe.policy.manager import Manager

OURS = [response_schema_conformance, content_type_conformance, status_code_conformance]
TAP = {"input_type": "pcap", "config": {"pcap_source": "mock", "iface": "mock"}, "tags": {"site": "a"}}
MODULES = {
    "net": {"type": "net"},
    "dhcp": {"type": "dhcp"},
    "dns": {"type": "dns"},
    "dns2": {"type": "dns", "require_version": "2.0"},
    "pcap_stats": {"type": "pcap"},
}


def policy(**changes: Any) -> dict[str, Any]:
    made = {
        "kind": "collection",
        "input": {"tap": "default", "input_type": "pcap"},
        "handlers": {"modules": MODULES},
    }
    return {**made, **changes}


def document(kind: str, **items: Any) -> dict[str, Any]:
    return {"version": "1.0", "visor": {kind: items}}


@pytest.fixture(scope="module")
def manager() -> Iterator[Manager]:
    made = Manager(periods=5)
    made.add_tap(document("taps", default=TAP))
    made.add_policy(document("policies", default=policy()))
    merged = policy(
        config={"merge_like_handlers": True},
        handlers={"modules": {"one": {"type": "dns"}, "two": {"type": "dns"}, "three": {"type": "net"}}},
    )
    made.add_policy(document("policies", merged=merged))
    # the first whole second of rates
    assert until(lambda: "p50" in str(made.policies["default"].bucket_json(0)))
    yield made
    made.close()


@pytest.fixture
def server(manager: Manager) -> Iterator[Running]:
    with running(manager, admin=True) as made:
        yield made


class Log(logging.Handler):
    """What the agent logs, as far as somebody should look at it."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or "unexpected failure" in record.getMessage():
            self.bad.append(record.getMessage())


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    logging.getLogger("netprobe").addHandler(made)
    yield made
    logging.getLogger("netprobe").removeHandler(made)
    assert made.bad == []


def post(server: Running, path: str, body: Any, status: int) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body)
    answer = requests.post(
        f"{server.url}/api/v1/{path}", data=data, headers={"Content-Type": "application/json"}, timeout=20
    )
    assert answer.status_code == status, answer.text
    return answer.json()


def get(server: Running, path: str, status: int = 200) -> Any:
    answer = requests.get(f"{server.url}/api/v1/{path}", timeout=20)
    assert answer.status_code == status, answer.text
    return answer.json()


def delete(server: Running, path: str, status: int = 200) -> None:
    assert requests.delete(f"{server.url}/api/v1/{path}", timeout=20).status_code == status


def test_everything_fits_the_document(server: Running, manager: Manager, log: Log) -> None:
    whole = get(server, "openapi.json")
    seen = 0
    for path, methods in whole["paths"].items():
        content = (
            methods.get("get", {}).get("responses", {}).get("200", {}).get("content", {}).get("text/json")
        )
        if content is None:
            continue
        validator = jsonschema_rs.validator_for({**content["schema"], "components": whole["components"]})
        for name in (*manager.policies, "__all"):
            url = path.replace("{policy}", name).replace("{tap}", "default")
            url = url.replace("bucket/{n}", "bucket/0").replace("{n}", "5")
            answer = requests.get(server.url + url, timeout=20)
            if answer.status_code != 404:
                assert answer.status_code == 200, answer.text
                validator.validate(answer.json())
                seen += 1
    assert seen > 25


def test_nesting(server: Running, log: Log) -> None:
    found = get(server, "policies/__all/metrics/window/5")
    (resources,) = [name for name in found if name.endswith("-resources")]
    assert set(found) == {"default", "merged", resources}
    # two versions of a handler keep their own keys
    assert {name: list(each) for name, each in found["default"].items()} == {
        "default-default-net": ["packets"],
        "default-default-dhcp": ["dhcp"],
        "default-default-dns": ["dns"],
        "default-default-dns2": ["dns"],
        "default-default-pcap_stats": ["pcap"],
    }
    assert {name: list(each) for name, each in found["merged"].items()} == {
        "dns_merged": ["dns"],
        "packets_merged": ["packets"],
    }
    assert {name: list(each) for name, each in found[resources].items()} == {resources: ["input_resources"]}
    # both policies saw the same packets, the merged handlers twice
    later = get(server, "policies/__all/metrics/bucket/0")
    assert later["merged"]["packets_merged"]["packets"]["total"] > 0
    one = later["default"]["default-default-dns"]["dns"]["wire_packets"]["total"]
    two = later["merged"]["dns_merged"]["dns"]["wire_packets"]["total"]
    assert two == pytest.approx(2 * one, abs=20)


@pytest.mark.tool("promtool")
@pytest.mark.parametrize("style", ["classic", "modern"])
def test_prometheus_pages(manager: Manager, style: str, log: Log) -> None:
    with running(manager, prom_style=style) as made:
        for path in ("/metrics", "/metrics/agent", "/api/v1/policies/__all/metrics/prometheus"):
            text = requests.get(made.url + path, timeout=20).text
            seen = set()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    at = sample.name, frozenset(sample.labels.items())
                    assert at not in seen
                    seen.add(at)
            code = subprocess.run(
                ["promtool", "check", "metrics"], input=text.encode(), capture_output=True
            ).returncode
            # 3: complaints about names, which are upstream's
            assert code == (3 if style == "classic" and path != "/metrics/agent" else 0)
        names = {name for name, _ in seen}
        handlers = {dict(labels).get("handler", "") for _, labels in seen}
        assert {"dns_merged", "packets_merged", "default-default-net"} <= handlers
        assert not [
            labels for _, labels in seen if "dns_merged" in dict(labels).values() and "tap" in dict(labels)
        ]
        resources = "resources_policies" if style == "modern" else "resources_policy_count"
        assert {"resources_cpu_usage", "resources_memory_bytes", resources} <= names
        agent = requests.get(made.url + "/metrics/agent", timeout=20).text
        assert "netprobe_input_packets_total{" in agent
        for stage in ("transactions_evicted", "fragments_expired"):
            assert f'netprobe_policy_losses_total{{policy="default",stage="{stage}"}} 0' in agent
        assert 'stage="cut_by_snaplen"' not in "".join(re.findall("netprobe_policy_losses_total.*", agent))
        assert "-resources" not in "".join(line for line in agent.splitlines() if "losses" in line)


def test_modern_merged_handlers_count_both(manager: Manager, log: Log) -> None:
    with running(manager, prom_style="modern") as made:
        found = {
            (sample.labels["policy"], sample.labels["handler"]): sample.value
            for family in text_string_to_metric_families(requests.get(made.url + "/metrics", timeout=20).text)
            for sample in family.samples
            if sample.name == "dns_wire_packets_total"
        }
    assert found["merged", "dns_merged"] == pytest.approx(2 * found["default", "default-default-dns"], abs=20)


def test_create_and_delete(server: Running, log: Log) -> None:
    post(server, "taps", document("taps", extra=TAP), 201)
    assert "already" in post(server, "taps", document("taps", extra=TAP), 409)["error"]
    mine = policy(input={"tap": "extra", "input_type": "pcap"})
    found = post(server, "policies", document("policies", mine=mine), 201)
    assert set(found["mine"]) == {"taps", "input", "modules"}
    assert "already" in post(server, "policies", document("policies", mine=mine), 409)["error"]
    (name,) = found["mine"]["input"]
    assert found["mine"]["input"][name]["input"]["running"] is True
    assert set(get(server, "policies")) >= {"mine", f"{name}-resources"}
    assert requests.get(server.url + "/readyz", timeout=20).status_code == 200
    delete(server, "taps/extra")
    assert get(server, "policies/mine")["mine"]["taps"] == {}
    delete(server, "policies/mine")
    assert not set(get(server, "policies")) & {"mine", f"{name}-resources"}
    delete(server, "policies/mine", 404)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"", 500, "empty data"),
        (b"[]", 500, "invalid schema"),
        (b"visor: 1", 500, "invalid schema"),
        (b"version: 2.0\nvisor: {}", 500, "unsupported version"),
        (b"visor: {taps: {}}", 500, "no policies found in schema"),
        (b"visor: {policies: {a: {}, b: {}}}", 500, "2"),
        (document("policies", x=policy(kind="other")), 500, "other"),
        (document("policies", x=policy(input={"tap": "nowhere", "input_type": "pcap"})), 500, "nowhere"),
        (document("policies", x=policy(handlers={"modules": {"a": {"type": "nothing"}}})), 500, "nothing"),
        (
            document(
                "policies",
                x=policy(input={"tap_selector": {"all": [{"site": "b"}]}, "input_type": "pcap"}),
            ),
            422,
            "no tap match found for specified 'input.tap_selector' tags",
        ),
        (b"\xff\xfe", 500, "UTF-8"),
        (b"a: &a [*a]", 500, ""),
        (b"[" * 10_000, 500, ""),
        (b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 10)) for c in range(ord("b"), ord("k"))
        ), 500, "values"),
        (b"a: !!python/object/apply:os.system [x]", 500, "tag"),
        (b"? {a: b}\n: c", 500, ""),
    ],
)  # fmt: skip
def test_documents_that_cannot_be_used(server: Running, log: Log, body: Any, status: int, text: str) -> None:
    before = get(server, "policies")
    begin = time.monotonic()
    found = post(server, "policies", body, status)
    assert time.monotonic() - begin < 10
    assert set(found) == {"error"}
    assert text in found["error"]
    assert "\n" not in found["error"]
    assert set(get(server, "policies")) == set(before)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "empty data"),
        (b"x", "invalid schema"),
        (b"visor: []", "invalid schema"),
        (b"version: '1.1'\nvisor: {taps: {}}", "unsupported version"),
        (b"visor: {policies: {}}", "no taps found in schema"),
        (b"visor: {taps: []}", "no taps found in schema"),
        (b"visor: {taps: {a: {input_type: pcap}, b: {input_type: pcap}}}", "2"),
        (b"visor: {taps: {a: {input_type: nothing}}}", "nothing"),
        (b"visor: {taps: {a: {}}}", "input_type"),
        (b"visor: {taps: {a: {input_type: pcap, config: 1}}}", "config"),
        (b"visor: {taps: {a: {input_type: pcap, tags: 1}}}", "tags"),
        (b"visor: {taps: {0a: {input_type: pcap}}}", "0a"),
        (b"visor: {taps: {__all: {input_type: pcap}}}", None),
    ],
)
def test_taps_that_cannot_be_made(server: Running, log: Log, body: bytes, text: str | None) -> None:
    """Agent spec 2.3, word for word where it is so. `__all` is a tap's name like any other."""
    found = post(server, "taps", body, 500 if text else 201)
    if text is None:
        delete(server, "taps/__all")
        return
    assert set(found) == {"error"}
    assert text in found["error"]
    assert set(get(server, "taps")) == {"default"}


@pytest.mark.parametrize(
    ("path", "name"), [("/api/v1/taps", "create_tap"), ("/api/v1/policies", "create_policy")]
)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_schemathesis_creates(
    server: Running, log: Log, manager: Manager, path: str, name: str, mode: Any
) -> None:
    operation = schemathesis.openapi.from_url(server.url + "/api/v1/openapi.json")[path]["POST"]

    @hypothesis.settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        case.validate_response(case.call(timeout=20), checks=OURS)

    run()
    for tap in set(manager.taps) - {"default"}:
        delete(server, f"taps/{tap}")


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["all", "0", "-1"]),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


anything = st.recursive(scalars, containers, max_leaves=6)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from places(value, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    return {**tree, path[0]: changed(tree[path[0]], path[1:], value)}


RICH = document(
    "policies",
    fuzzed=policy(
        config={"merge_like_handlers": False},
        input={"tap": "default", "input_type": "pcap", "config": {"bpf": "udp"}, "filter": {"bpf": "ip"}},
        handlers={
            "window_config": {"num_periods": 2, "deep_sample_rate": 50, "topn_count": 5},
            "modules": {
                "a": {
                    "type": "dns",
                    "config": {"xact_ttl_ms": 100, "recorded_stream": False},
                    "filter": {"only_rcode": 2, "only_qname": ["a.b"], "geoloc_notfound": False},
                    "metric_groups": {"enable": ["all"], "disable": ["top_qnames"]},
                }
            },
        },
    ),
)


@hypothesis.settings(
    max_examples=150, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
@hypothesis.given(path=st.sampled_from(list(places(RICH))), value=anything)
def test_any_value_in_any_place(server: Running, manager: Manager, path: tuple[Any, ...], value: Any) -> None:
    """A policy with one value changed is taken or refused, and never an accident."""
    log = Log()
    logging.getLogger("netprobe").addHandler(log)
    before = set(manager.policies)
    try:
        data = json.dumps(changed(RICH, path, value))
        answer = requests.post(
            server.url + "/api/v1/policies",
            data=data,
            headers={"Content-Type": "application/json"},
            timeout=20,
        )
    finally:
        logging.getLogger("netprobe").removeHandler(log)
    assert log.bad == [], data
    assert answer.status_code in (201, 409, 422, 500)
    if answer.status_code == 201:
        (name,) = answer.json()
        assert requests.delete(f"{server.url}/api/v1/policies/{name}", timeout=20).status_code == 200
    else:
        assert set(answer.json()) == {"error"}
    assert set(manager.policies) == before


def test_coming_and_going_under_readers(server: Running, log: Log) -> None:
    """Policies that are made and removed while everything is being read: each answer is whole."""
    stop = threading.Event()
    wrong: list[str] = []

    def read(path: str) -> None:
        session = requests.Session()
        while not stop.is_set():
            answer = session.get(server.url + path, timeout=20)
            if answer.status_code not in (200, 404):
                wrong.append(f"{path}: {answer.status_code} {answer.text[:200]}")

    paths = ["/api/v1/policies", "/api/v1/policies/__all/metrics/window/2", "/metrics", "/metrics/agent"]
    paths += ["/api/v1/policies/p3/metrics/bucket/0", "/api/v1/policies/__all/metrics/prometheus"]
    readers = [threading.Thread(target=read, args=(path,)) for path in paths]
    for reader in readers:
        reader.start()
    try:
        for turn in range(6):
            for number in range(5):
                # each second one has an input of its own
                own = {"tap": "default", "input_type": "pcap", "config": {"bpf": f"port {number}"}}
                changes = {"input": own} if number % 2 else {}
                post(server, "policies", document("policies", **{f"p{number}": policy(**changes)}), 201)
            for number in range(5):
                delete(server, f"policies/p{number}")
            assert turn >= 0
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []

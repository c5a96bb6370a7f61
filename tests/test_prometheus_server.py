"""Prometheus pages: as promtool and prometheus_client read them, and as a real Prometheus stores them."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from agent_fakes import CAPTURES, DEMO, FakePolicy, demo_manager, running, until, windows_of
from prometheus_client.parser import text_string_to_metric_families

import netprobe
from netprobe._core.sketch.hist import boundaries
from netprobe.agent.prometheus import ModernPages
from netprobe.handlers.registry import HANDLERS
from netprobe.metrics.render_modern import BOUNDS_US, form_of

ALL_GROUPS = [
    {"type": kind, "version": version, "metric_groups": {"enable": ["all"]}}
    for kind, version in (("net", "1.0"), ("net", "2.0"), ("dns", "1.0"), ("dns", "2.0"))
] + ["dhcp", "bgp", "pcap"]


def page(server: Any, path: str = "/metrics") -> str:
    answer = requests.get(server.url + path, timeout=20)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain"
    return answer.text


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """By name and labels, with what prometheus_client does not check: families whole, no sample twice."""
    found = {}
    families = set()
    for family in text_string_to_metric_families(text):
        assert family.name not in families, f"{family.name} is torn apart"
        families.add(family.name)
        assert family.documentation
        for sample in family.samples:
            at = sample.name, frozenset(sample.labels.items())
            assert at not in found, at
            found[at] = sample.value
    for kind in ("HELP", "TYPE"):
        headers = re.findall(rf"^# {kind} (\S+)", text, re.MULTILINE)
        assert len(headers) == len(set(headers))
    return found


def value(text: str, name: str, **labels: str) -> float:
    """Of the one sample with at least these labels."""
    (found,) = [
        number
        for (own, pairs), number in samples(text).items()
        if own == name and labels.items() <= set(pairs)
    ]
    return found


def promtool(text: str) -> tuple[int, set[str]]:
    made = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    assert not made.stdout
    return made.returncode, {line for line in made.stderr.splitlines() if line}


def busy_manager() -> Any:
    """Two policies; the second has every handler with all its metrics, on two taps."""
    manager = demo_manager()
    traffic = netprobe.summarize(
        [DEMO, CAPTURES / "bgp.pcap", CAPTURES / "dhcp.pcap"],
        handlers=ALL_GROUPS,
        periods=1,
        hosts="10.77.0.2/32,fd77::2/128",
    )
    bucket = [replace(w, start_ts=1000, length=60, read_only=True, recorded=False) for w in traffic.windows]
    manager.policies["every"] = FakePolicy("every", [bucket])
    manager.policies["again"] = FakePolicy("again", [bucket], tap="other")
    return manager


# --- the classic style ---


def test_default_page() -> None:
    with running(demo_manager(), prom_instance='n"1') as server:
        text = page(server)
    found = samples(text)
    once = netprobe.summarize(DEMO, handlers="net", periods=1, hosts="10.77.0.2/32,fd77::2/128")
    total = once.to_dict()["1m"]["packets"]["total"]
    at = {"instance": 'n"1', "policy": "default", "tap": "default"}
    assert found["packets_total", frozenset(at.items())] == total
    # instance first, the rest in order; HELP and TYPE before
    line = f'packets_total{{instance="n\\"1",policy="default",tap="default"}} {total}'
    assert f"\n# TYPE packets_total gauge\n{line}\n" in text
    assert 'dns_rates_total{instance="n\\"1",policy="default",quantile="0.5",tap="default"}' in text
    assert "handler=" not in text
    assert 'netprobe_build_info{instance="n\\"1",version="' in text


def test_page_of_a_policy() -> None:
    with running(demo_manager()) as server:
        text = page(server, "/api/v1/policies/default/metrics/prometheus")
    assert 'packets_total{handler="default-default-net",policy="default",tap="default"} ' in text
    assert "netprobe_" not in text


def test_items_stand_under_the_old_label_too() -> None:
    """pktvisor's published dashboard groups by `name`; newer versions have a label for each kind of item."""
    with running(demo_manager()) as server:
        text = page(server)
    document = netprobe.summarize(DEMO, handlers="dns", periods=1, hosts="10.77.0.2/32,fd77::2/128").to_dict()
    found = samples(text)
    rows = document["1m"]["dns"]["top_qname2"]
    assert rows
    for row in rows:
        at = {"policy": "default", "tap": "default", "qname": row["name"], "name": row["name"]}
        assert found["dns_top_qname2", frozenset(at.items())] == row["estimate"]


def test_closed_bucket_is_shown() -> None:
    """Bucket 1 if there are two, else bucket 0 (agent spec 3.4.4)."""
    udp, tcp = windows_of(DEMO, 2000, "net", filter="udp"), windows_of(DEMO, 1000, "net", filter="tcp")
    manager = demo_manager()
    for buckets, shown in (([udp], udp), ([udp, tcp], tcp), ([udp, tcp, udp], tcp)):
        manager.policies["default"] = FakePolicy("default", buckets)
        with running(manager) as server:
            text = page(server)
        block = shown[0].blocks[0]
        assert block is not None
        assert value(text, "packets_total") == block.counter(shown[0].index["total"])


@pytest.mark.tool("promtool")
def test_promtool_classic() -> None:
    """promtool reads it, and complains of nothing but the names and types that are upstream's."""
    with running(busy_manager()) as server:
        for path in ("/metrics", "/api/v1/policies/__all/metrics/prometheus"):
            text = page(server, path)
            samples(text)
            code, complaints = promtool(text)
            assert code == 3
            for line in complaints:
                name, reason = line.split(" ", 1)
                allowed = {
                    'non-counter metrics should not have "_total" suffix': name.endswith("_total"),
                    "metric names should not contain abbreviated units": name.endswith("_us"),
                    "metric name should not include type 'histogram'": name.endswith("_histogram_us"),
                }
                assert allowed.get(reason), line
        # the agent's own numbers are flawless
        assert promtool(page(server, "/metrics/agent")) == (0, set())
    assert promtool("a b c\n")[0] == 1


def test_all_policies_share_families() -> None:
    with running(busy_manager()) as server:
        found = samples(page(server, "/api/v1/policies/__all/metrics/prometheus"))
    of = {dict(labels)["policy"] for name, labels in found if name == "packets_total"}
    assert of == {"default", "every", "again"}
    taps = {dict(labels)["tap"] for name, labels in found if name == "packets_total"}
    assert taps == {"default", "other"}


def test_a_failing_policy_does_not_hide_the_others() -> None:
    manager = demo_manager()
    manager.policies["bad"] = FakePolicy("bad", [windows_of(DEMO, 1000, "net")])
    manager.policies["bad"].broken = True
    with running(manager) as server:
        answer = requests.get(server.url + "/api/v1/policies/__all/metrics/prometheus", timeout=20)
        assert answer.status_code == 500
        assert {dict(labels).get("policy") for _, labels in samples(answer.text)} == {"default"}


def test_two_taps_differ_by_their_tap_alone() -> None:
    manager = demo_manager()
    one = FakePolicy("default", [windows_of(DEMO, 1000, "net")], tap="a")
    other = FakePolicy("default", [windows_of(DEMO, 1000, "net")], tap="b")
    one.buckets = [one.buckets[0] + other.buckets[0]]
    manager.policies["default"] = one
    with running(manager) as server:
        text = page(server)
        found = [dict(labels) for name, labels in samples(text) if name == "packets_total"]
    assert found == [{"policy": "default", "tap": "a"}, {"policy": "default", "tap": "b"}]


# --- the agent's own numbers ---


def test_own_numbers() -> None:
    with running(demo_manager(), version="1.2.3") as server:
        for _ in range(3):
            requests.get(server.url + "/api/v1/taps", timeout=20)
        requests.get(server.url + "/nothing", timeout=20)
        requests.request("BREW", server.url + "/", timeout=20)
        text = page(server, "/metrics/agent")
    assert value(text, "netprobe_build_info", version="1.2.3") == 1
    assert value(text, "netprobe_input_packets_total", input="default-0a") == 70
    assert value(text, "netprobe_input_losses_total", stage="os_drops") == 3
    assert value(text, "netprobe_input_losses_total", stage="ring_full") == 1
    assert value(text, "netprobe_input_malformed_total", cause="ipv4_header") == 2
    assert value(text, "netprobe_input_running", input="default-0a") == 1
    assert value(text, "netprobe_input_consumers", input="default-0a") == 2
    assert value(text, "netprobe_input_cpu_seconds_total", input="default-0a") == 0.25
    assert value(text, "netprobe_http_requests_total", method="GET", status="200") == 3
    assert value(text, "netprobe_http_requests_total", method="GET", status="404") == 1
    assert value(text, "netprobe_http_requests_total", method="other", status="404") == 1
    assert value(text, "netprobe_taps") == value(text, "netprobe_policies") == 1
    assert value(text, "netprobe_policy_handlers", policy="default") == 4
    # the one that asks
    assert value(text, "netprobe_http_connections") == 1
    # the operating system's own count
    status = Path("/proc/self/status").read_text()
    (rss,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    assert value(text, "netprobe_resident_memory_bytes") == pytest.approx(int(rss) * 1024, rel=0.2)
    # measured within this process, a moment ago
    assert 0 < value(text, "netprobe_cpu_seconds_total") <= sum(__import__("os").times()[:2]) + 0.1
    assert abs(value(text, "netprobe_start_time_seconds") - time.time()) < 60
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE))
    assert all((kind == "counter") is name.endswith("_total") for name, kind in types.items())


# --- the modern style ---


@pytest.mark.tool("promtool")
def test_promtool_modern() -> None:
    with running(busy_manager(), prom_style="modern") as server:
        for path in ("/metrics", "/api/v1/policies/__all/metrics/prometheus"):
            text = page(server, path)
            samples(text)
            assert promtool(text) == (0, set())


def test_modern_forms() -> None:
    """One type and one meaning per name, over all handlers."""
    seen: dict[str, Any] = {}
    for table in HANDLERS:
        for metric in (*table.metrics, *table.block_metrics):
            form = form_of(metric)
            assert seen.setdefault(form.name, form) == form, form.name
            assert form.name == form.name.lower()
            if metric.kind == "counter":
                assert (form.type == "counter") is form.name.endswith("_total")
            # no two metrics of one handler under one name
        for rows in (table.metrics, table.block_metrics):
            names = [form_of(metric).name for metric in rows]
            assert len(names) == len(set(names))
    assert seen["dns_xact_in_seconds"].type == "summary"
    assert seen["dns_xact_in_duration_seconds"].type == "histogram"
    assert seen["packets_top_geo_loc"].type == "gauge"
    assert seen["resources_policies"].type == "gauge"


def test_modern_boundaries_are_upstreams() -> None:
    # of the boundaries that values are counted by, those next to 10, 21.5, 46.4, 100, …
    assert set(BOUNDS_US) <= set(boundaries(True))
    assert len(BOUNDS_US) == 22


class Turning(FakePolicy):
    """A policy whose buckets turn over when the test says so."""

    def __init__(self, periods: int = 5) -> None:
        super().__init__("default", [self.fresh(0, "udp")], periods=periods)
        self.clock = 0

    @staticmethod
    def fresh(start: int, expression: str) -> list[Any]:
        made = windows_of(DEMO, start, [ALL_GROUPS[0], ALL_GROUPS[2]], filter=expression)
        return [replace(window, read_only=False) for window in made]

    def turn(self, expression: str = "udp") -> None:
        self.clock += 60
        closed = [replace(window, read_only=True) for window in self.buckets[0]]
        fresh = [
            window.with_labels(**old.labels)
            for window, old in zip(self.fresh(self.clock, expression), closed, strict=True)
        ]
        self.buckets = [fresh, closed, *self.buckets[1:]][: self.periods]


def test_modern_counters_only_grow() -> None:
    """Whatever turns over between scrapes, each packet counts once."""
    manager = demo_manager()
    policy = manager.policies["default"] = Turning()
    once = value_of_total(policy)
    with running(manager, prom_style="modern") as server:

        def total() -> float:
            return value(page(server), "packets_total", policy="default")

        assert total() == once
        for turns in (1, 0, 2, 3):
            before = total()
            for _ in range(turns):
                policy.turn()
            assert total() == before + turns * once
        text = page(server)
        # what describes a period does not add up
        assert value(text, "packets_cardinality_src_ips_in") < 100
        assert 'packets_total{handler="default-default-net",policy="default",tap="default"} ' in text
        # sums of summaries do
        seconds = value(text, "dns_rates_count")
        policy.turn()
        assert value(page(server), "dns_rates_count") > seconds


def value_of_total(policy: FakePolicy) -> int:
    block = policy.buckets[0][0].blocks[0]
    return int(block.counter(policy.buckets[0][0].index["total"]))  # type: ignore[union-attr]


def test_modern_counts_what_nobody_scraped(monkeypatch: Any) -> None:
    """From the first scrape on, buckets that are dropped between two scrapes are added up by then."""
    monkeypatch.setattr("netprobe.agent.prometheus.FOLD_SECONDS", 0.02)
    manager = demo_manager()
    policy = manager.policies["default"] = Turning(periods=2)
    once = value_of_total(policy)
    with running(manager, prom_style="modern") as server:
        assert value(page(server), "packets_total") == once
        pages = server.app.api._pages
        assert isinstance(pages, ModernPages)
        (lifetime,) = pages._lifetimes.values()
        for _ in range(5):
            policy.turn()
            # the closed one began a minute before the open one
            assert until(lambda: lifetime._last == policy.clock - 60)
        assert value(page(server), "packets_total") == 6 * once
    assert until(lambda: "totals" not in [thread.name for thread in threading.enumerate()])


def test_modern_look_disturbed_by_a_turn() -> None:
    """A period that ends between two readings of one scrape is neither lost nor counted twice."""
    manager = demo_manager()
    policy = manager.policies["default"] = Turning()
    once = value_of_total(policy)
    turns = iter([False, True, False, False, True] + [False] * 1000)
    accumulated = policy.accumulated

    def disturbed() -> int:
        if next(turns):
            policy.turn()
        return accumulated()

    policy.accumulated = disturbed  # type: ignore[method-assign]
    with running(manager, prom_style="modern") as server:
        for _ in range(6):
            text = page(server)
            closed = policy.clock // 60
            assert value(text, "packets_total") == (closed + 1) * once
        assert policy.clock == 120


def test_modern_histograms_add_up() -> None:
    """Same boundaries at every scrape and in every agent; counts as the raw intervals of the classic page."""
    with running(busy_manager(), prom_style="modern") as server:
        modern = page(server)
    with running(busy_manager()) as server:
        classic = samples(page(server, "/api/v1/policies/every/metrics/prometheus"))
    name = "dns_xact_in_duration_seconds"
    found = {
        dict(labels)["le"]: number
        for (own, labels), number in samples(modern).items()
        if own == f"{name}_bucket" and ("policy", "every") in labels
    }
    assert list(found)[-1] == "+Inf"
    assert [float(bound) for bound in found][:-1] == pytest.approx([one / 1e6 for one in BOUNDS_US])
    raw = {
        float(dict(labels)["le"]): number
        for (own, labels), number in classic.items()
        if own == "dns_xact_in_histogram_us_bucket"
    }
    for bound, count in found.items():
        upto = [number for edge, number in raw.items() if edge <= float(bound) * 1e6 * (1 + 1e-9)]
        assert count == max(upto, default=0)
    assert found["+Inf"] == value(modern, f"{name}_count", policy="every") > 0
    # the sum of the same transactions, in seconds
    total = sum(n for (own, _), n in classic.items() if own == "dns_xact_in_quantiles_us_sum")
    assert value(modern, f"{name}_sum", policy="every") == pytest.approx(total / 1e6)
    assert value(modern, "dns_xact_in_seconds", policy="every", quantile="0.99") == pytest.approx(
        value_at(classic, "dns_xact_in_quantiles_us", quantile="0.99") / 1e6
    )


def value_at(found: dict[Any, float], name: str, **labels: str) -> float:
    (one,) = [n for (own, pairs), n in found.items() if own == name and labels.items() <= set(pairs)]
    return one


def test_modern_page_without_default() -> None:
    """The agent's page is always there: it has all policies."""
    manager = busy_manager()
    del manager.policies["default"]
    with running(manager, prom_style="modern") as server:
        found = samples(page(server))
    assert {dict(labels).get("policy") for name, labels in found if name == "packets_total"} == {
        "every",
        "again",
    }


# --- a real Prometheus ---


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def prometheus(folder: Path, config: dict[str, Any], *flags: str, agent: bool = False) -> Iterator[str]:
    """Debian's Prometheus with a configuration; its URL."""
    folder.mkdir()
    # JSON is YAML
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    storage = "--storage.agent.path" if agent else "--storage.tsdb.path"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"{storage}={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", *flags]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        ready = until(lambda: process.poll() is not None or answers(f"{url}/-/ready"), 60)
        assert ready and process.poll() is None, (folder / "log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait(20)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def query(url: str, expression: str) -> list[dict[str, Any]]:
    answer = requests.get(f"{url}/api/v1/query", params={"query": expression}, timeout=20).json()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def scrape(server: Any, path: str = "/metrics") -> dict[str, Any]:
    """The job of the documentation, faster."""
    job = {
        "job_name": "pktvisor",
        "metrics_path": path,
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{server.server.port}"]}],
    }
    return {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}


def expected() -> int:
    once = netprobe.summarize(DEMO, handlers="net", periods=1, hosts="10.77.0.2/32,fd77::2/128")
    total: int = once.to_dict()["1m"]["packets"]["total"]
    return total


@pytest.mark.tool("prometheus")
def test_scraped_by_prometheus(tmp_path: Path) -> None:
    """Every sample of our text is a series with our value; types and helps arrive too."""
    with (
        running(demo_manager(), prom_instance="edge7") as server,
        prometheus(tmp_path / "p", scrape(server)) as url,
    ):
        assert until(lambda: query(url, "packets_total"), 60)
        (found,) = query(url, "packets_total")
        assert found["metric"] == {
            "__name__": "packets_total",
            "instance": "edge7",
            "job": "pktvisor",
            "policy": "default",
            "tap": "default",
        }
        assert float(found["value"][1]) == expected()
        assert query(url, "up")[0]["value"][1] == "1"
        ours = {at for at in samples(page(server)) if not at[0].startswith("netprobe_")}
        series = query(url, '{job="pktvisor",__name__!~"netprobe_.*|up|scrape_.*"}')
        theirs = {
            (one["metric"].pop("__name__"), frozenset(one["metric"].items() - {("job", "pktvisor")}))
            for one in series
        }
        assert theirs == ours
        # a query of upstream's dashboard
        (rate,) = query(url, 'packets_rates_pps_total{instance=~"edge7",quantile="0.95"}')
        assert float(rate["value"][1]) >= 0
        metadata = requests.get(f"{url}/api/v1/metadata?metric=packets_total", timeout=20).json()["data"]
        assert metadata["packets_total"][0]["type"] == "gauge"


@pytest.mark.tool("prometheus")
def test_modern_scraped_by_prometheus(tmp_path: Path) -> None:
    """rate() and histogram_quantile() over what we count."""
    manager = demo_manager()
    policy = manager.policies["default"] = Turning()
    once = value_of_total(policy)
    with (
        running(manager, prom_style="modern") as server,
        prometheus(tmp_path / "p", scrape(server)) as url,
    ):
        assert until(lambda: query(url, "packets_total"), 60)
        policy.turn()
        policy.turn()
        wanted = str(3 * once)
        assert until(lambda: query(url, "packets_total")[0]["value"][1] == wanted, 60)
        # no reset was seen, although two periods have ended
        assert query(url, "resets(packets_total[5m])")[0]["value"][1] == "0"
        expression = "histogram_quantile(0.5, sum by (le) (dns_xact_in_duration_seconds_bucket))"
        (median,) = query(url, expression)
        (shown,) = query(url, 'dns_xact_in_seconds{quantile="0.5"}')
        # within the interval of the boundaries, which are 2.2 apart
        assert 1 / 2.4 < float(median["value"][1]) / float(shown["value"][1]) < 2.4


@pytest.mark.tool("prometheus")
def test_pushed_by_prometheus_agent(tmp_path: Path) -> None:
    """Prometheus in agent mode scrapes us and pushes to a second one by remote write (agent spec 6.1)."""
    central = prometheus(tmp_path / "central", {"scrape_configs": []}, "--web.enable-remote-write-receiver")
    with running(demo_manager(), prom_instance="edge7") as server, central as url:
        config = scrape(server)
        config["remote_write"] = [
            {"url": f"{url}/api/v1/write", "queue_config": {"batch_send_deadline": "1s"}}
        ]
        with prometheus(tmp_path / "agent", config, "--enable-feature=agent", agent=True):
            assert until(lambda: query(url, 'packets_total{instance="edge7"}'), 90)
        (found,) = query(url, 'packets_total{instance="edge7"}')
        assert float(found["value"][1]) == expected()
        assert query(url, 'netprobe_build_info{instance="edge7"}')


def test_tools_are_debians() -> None:
    """A newer Prometheus changes how it reads text/plain: then this file deserves a look."""
    if shutil.which("prometheus") is None:
        pytest.skip("missing: the program prometheus")
    made = subprocess.run(["prometheus", "--version"], capture_output=True, text=True, check=True)
    assert re.search(r"version (2|3)\.", made.stdout + made.stderr)

"""docs/rest.md and docs/prometheus.md say what the code does: routes, statuses, limits, names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from agent_fakes import demo_manager

from netprobe.agent import web
from netprobe.agent.health import INPUT_NUMBERS, Health
from netprobe.agent.otlp import KEEP_BYTES, KEEP_REQUESTS, LAST_PAUSE, SAY_AGAIN, OtlpPusher
from netprobe.agent.prometheus import STYLES
from netprobe.agent.protocol import Limits
from netprobe.agent.routes import ROUTES
from netprobe.handlers.registry import HANDLERS
from netprobe.metrics.render_modern import form_of
from netprobe.policy.nodes import MAX_DEPTH, MAX_NODES

DOCS = Path(__file__).resolve().parents[1] / "docs"
REST = (DOCS / "rest.md").read_text()
PROMETHEUS = (DOCS / "prometheus.md").read_text()


def test_every_route_and_its_statuses() -> None:
    rows = re.findall(
        r"^\| `(GET|POST|DELETE) (\S+)` \| (admin)? ?\| [^|]+ \| ([\d, ]+) \|$", REST, re.MULTILINE
    )
    written = [(method, path, bool(admin), codes) for method, path, admin, codes in rows]
    assert written == [
        (row.method, row.path, row.admin, ", ".join(map(str, sorted(row.answers)))) for row in ROUTES
    ]


def test_every_status_is_explained() -> None:
    explained = {int(code) for code in re.findall(r"^\| (\d{3}) \|", REST, re.MULTILINE)}
    wanted = {code for row in ROUTES for code in row.answers if code >= 300}
    assert wanted | {401, 408, 431, 501, 505} == explained


def test_limits() -> None:
    limits = Limits()
    assert f"| connections | {limits.connections};" in REST
    assert (limits.header_bytes, web.BODY_LIMIT) == (16 << 10, 1 << 20)
    assert "| 16 KiB, 1 MiB |" in REST
    times = limits.header_seconds, web.BODY_SECONDS, limits.request_seconds
    assert "| " + ", ".join(f"{one:g} s" for one in times) + " |" in REST
    assert f"| time between two requests of a connection | {limits.idle_seconds:g} s |" in REST
    assert f"| values in a document, depth | {MAX_NODES:,}, {MAX_DEPTH} |" in REST


def test_telegraf_snippet_is_upstreams() -> None:
    """The settings of agent spec 6.3."""
    tomllib = pytest.importorskip("tomllib")
    (text,) = re.findall(r"^```toml\n(.*?)^```", REST, re.MULTILINE | re.DOTALL)
    (found,) = tomllib.loads(text)["inputs"]["http"]
    assert found == {
        "urls": ["http://127.0.0.1:10853/api/v1/metrics/bucket/1"],
        "interval": "60s",
        "data_format": "json",
        "json_query": "1m",
        "json_time_key": "period_start_ts",
        "json_time_format": "unix",
        "json_string_fields": ["dns_*", "packets_*", "dhcp_*", "pcap_*"],
        "tags": {"t": "pktvisor", "interval": "60"},
    }


def test_own_numbers_are_all_there() -> None:
    written = dict(re.findall(r"^\| `(netprobe_\w+)` \| (gauge|counter) \|", PROMETHEUS, re.MULTILINE))
    manager = demo_manager()
    health = Health(manager, "1")
    health.requests["GET", 200] = 1
    health.extra.append(OtlpPusher(manager))
    real = {name: family.type for name, family in health.families().items()}
    real |= {name: kind for name, kind, _, _ in INPUT_NUMBERS.values()}
    real["netprobe_policy_losses_total"] = "counter"
    assert written == real


def test_modern_names() -> None:
    forms = {
        metric.prom: form_of(metric).name
        for table in HANDLERS
        for metric in (*table.metrics, *table.block_metrics)
    }
    (table,) = re.findall(
        r"^\| classic \| modern \|\n\|---\|---\|\n(.*?)\n\n", PROMETHEUS, re.MULTILINE | re.DOTALL
    )
    rows = [
        [re.findall(r"`(\w+)`", cell) for cell in row.strip("|").split("|")] for row in table.splitlines()
    ]
    assert len(rows) > 5
    for classic, modern in rows:
        assert [forms[name] for name in classic] == modern
    assert forms["packets_top_geoLoc"] == "packets_top_geo_loc"
    # whatever else changes its name follows the two rules that the page states
    stated = {name for classic, _ in rows for name in classic}
    for name, new in forms.items():
        plain = {name.lower(), re.sub("(?<=[a-z])([A-Z])", r"_\1", name).lower()}
        by_rule = plain | {f"{one}_total" for one in plain} | {one.removesuffix("_total") for one in plain}
        if name not in stated and not re.search("quantiles|_us$", name):
            assert new in by_rule, name


def test_styles_and_otlp_figures() -> None:
    for style in STYLES:
        assert f"`--prom-style {style}`" in PROMETHEUS
    assert f"{KEEP_REQUESTS}\n  requests or {KEEP_BYTES >> 20} MiB wait" in PROMETHEUS
    assert f"… {LAST_PAUSE:g} s" in PROMETHEUS
    assert SAY_AGAIN == 300
    assert "every five minutes" in PROMETHEUS


def test_yaml_examples_are_yaml() -> None:
    found = re.findall(r"^```yaml\n(.*?)^```", PROMETHEUS, re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    for text in found:
        assert yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"] == [
            "localhost:10853"
        ]

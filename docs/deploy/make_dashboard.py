"""Writes grafana-dashboard.json, the panels of pktvisor's own dashboard (agent spec 6.2) over our labels.

    python docs/deploy/make_dashboard.py

One row per panel here; a test (tests/test_deploy.py) runs every expression against a real Prometheus that
scrapes a running agent, and compares the file with what this makes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

TARGET = Path(__file__).with_name("grafana-dashboard.json")
TITLE = "pktvisor - Prometheus"
COLUMNS = 24


class Query(NamedTuple):
    expression: str
    legend: str


class Panel(NamedTuple):
    title: str
    kind: str
    queries: list[Query]
    unit: str = "short"
    #: of 24
    width: int = 6
    height: int = 7


def select(metric: str, **labels: str) -> str:
    """The metric of the chosen agents."""
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f'{metric}{{instance=~"$instance"{more}}}'


def per_minute(prefix: str, *names: str) -> list[Query]:
    """Counters of a closed bucket are packets per minute."""
    return [Query(f"sum({select(f'{prefix}_{name}')}) / 60", name) for name in names]


def totals(prefix: str, *names: str) -> list[Query]:
    return [Query(f"sum({select(f'{prefix}_{name}')})", name) for name in names]


def quantiles(metric: str, *ranks: str, legend: str) -> list[Query]:
    return [
        Query(f"sum({select(metric, quantile=rank)})", f"{legend} p{float(rank) * 100:g}") for rank in ranks
    ]


def average(metric: str) -> list[Query]:
    return [Query(f"avg({select(metric, quantile='0.95')})", "p95")]


def most(metric: str, label: str, *, rate: bool = False) -> list[Query]:
    """The entries of a list of the most frequent, summed over agents by what they name."""
    expression = f"sum by ({label}) ({select(metric)})" + (" / 60" if rate else "")
    return [Query(f"topk(10, {expression})", f"{{{{{label}}}}}")]


def share(part: str, whole: str) -> list[Query]:
    return [Query(f"sum({select(part)}) / sum({select(whole)})", "inspected")]


PPS, RPS = "pps", "reqps"
NETWORK = [
    Panel("L3 Protocols", "piechart", totals("packets", "ipv4", "ipv6")),
    Panel("L4 Protocols", "piechart", totals("packets", "tcp", "udp", "other_l4")),
    Panel("Deep Inspection", "gauge", share("packets_deep_samples", "packets_total"), "percentunit"),
    Panel("Avg Rate p95", "gauge", average("packets_rates_pps_total"), PPS),
    Panel(
        "Packet In/Out",
        "timeseries",
        quantiles("packets_rates_pps_in", "0.9", "0.99", legend="in")
        + quantiles("packets_rates_pps_out", "0.9", "0.99", legend="out"),
        PPS,
        12,
    ),
    Panel(
        "L3/L4 Protocols",
        "timeseries",
        per_minute("packets", "ipv4", "ipv6", "tcp", "udp", "other_l4"),
        PPS,
        12,
    ),
    Panel(
        "Top Geo IP/ASN",
        "timeseries",
        most("packets_top_geoLoc", "geo_loc", rate=True) + most("packets_top_ASN", "asn", rate=True),
        PPS,
        12,
    ),
    Panel("Top IPv4", "table", most("packets_top_ipv4", "ipv4")),
    Panel("Top Geo", "table", most("packets_top_geoLoc", "geo_loc")),
    Panel(
        "Top IPs",
        "timeseries",
        most("packets_top_ipv4", "ipv4", rate=True) + most("packets_top_ipv6", "ipv6", rate=True),
        PPS,
        12,
    ),
    Panel("Top IPv6", "table", most("packets_top_ipv6", "ipv6")),
    Panel("Top ASN", "table", most("packets_top_ASN", "asn")),
]
DNS = [
    Panel(
        "Deep Inspection",
        "gauge",
        share("dns_wire_packets_deep_samples", "dns_wire_packets_total"),
        "percentunit",
    ),
    Panel("Avg Rate p95", "gauge", average("dns_rates_total"), PPS),
    Panel("QTypes", "piechart", most("dns_top_qtype", "qtype")),
    Panel("Result Codes", "piechart", most("dns_top_rcode", "rcode")),
    Panel(
        "DNS Packets (In+Out)",
        "timeseries",
        quantiles("dns_rates_total", "0.9", "0.99", legend="messages"),
        RPS,
        12,
    ),
    Panel(
        "DNS Protocols", "timeseries", per_minute("dns_wire_packets", "ipv4", "ipv6", "tcp", "udp"), RPS, 12
    ),
    Panel("DNS Transactions", "timeseries", per_minute("dns_xact", "in_total", "out_total"), RPS, 12),
    Panel(
        "DNS Errors", "timeseries", per_minute("dns_wire_packets", "nxdomain", "srvfail", "refused"), RPS, 12
    ),
    Panel(
        "Top DNS Names",
        "timeseries",
        most("dns_top_qname2", "qname", rate=True) + most("dns_top_qname3", "qname", rate=True),
        RPS,
        12,
    ),
    Panel("Top QName2", "table", most("dns_top_qname2", "qname")),
    # theirs shows qname2 twice, which was evidently meant for this
    Panel("Top QName3", "table", most("dns_top_qname3", "qname")),
    Panel("Top DNS RCodes", "timeseries", most("dns_top_rcode", "rcode", rate=True), RPS, 12),
    Panel("Top RCodes", "table", most("dns_top_rcode", "rcode")),
    Panel("Top QTypes", "table", most("dns_top_qtype", "qtype")),
    Panel(
        "DNS Transaction",
        "timeseries",
        quantiles("dns_xact_in_quantiles_us", "0.95", "0.99", legend="in")
        + quantiles("dns_xact_out_quantiles_us", "0.95", "0.99", legend="out"),
        "µs",
        12,
    ),
    Panel("Top DNS QTypes", "timeseries", most("dns_top_qtype", "qtype", rate=True), RPS, 12),
    Panel("Top DNS Ports", "timeseries", most("dns_top_udp_ports", "port", rate=True), RPS, 12),
]
ROWS = {"Network": NETWORK, "DNS": DNS}

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def target(query: Query, number: int, kind: str) -> dict[str, Any]:
    now = kind in ("piechart", "gauge", "table")
    return {
        "datasource": SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "refId": chr(ord("A") + number),
        "instant": now,
        "range": not now,
        "format": "table" if kind == "table" else "time_series",
    }


def options(kind: str) -> dict[str, Any]:
    if kind == "piechart":
        return {
            "legend": {"displayMode": "list", "placement": "right", "showLegend": True},
            "reduceOptions": {"calcs": ["lastNotNull"]},
        }
    if kind == "gauge":
        return {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}}
    return {"sortBy": [{"displayName": "Value", "desc": True}]}


def panel(one: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": number,
        "title": one.title,
        "type": one.kind,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": one.width, "h": one.height},
        "fieldConfig": {"defaults": {"unit": one.unit, "min": 0}, "overrides": []},
        "options": options(one.kind),
        "targets": [target(query, n, one.kind) for n, query in enumerate(one.queries)],
    }
    if one.kind == "gauge" and one.unit == "percentunit":
        found["fieldConfig"]["defaults"]["max"] = 1
    if one.kind == "table":
        found["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]
    return found


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, rows in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append(
            {
                "id": len(panels) + 1,
                "title": title,
                "type": "row",
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        y += 1
        x = 0
        for one in rows:
            if x + one.width > COLUMNS:
                x, y = 0, y + one.height
            panels.append(panel(one, len(panels) + 1, x, y))
            x += one.width
        y += rows[-1].height
    return {
        "title": TITLE,
        "uid": "netprobe-pktvisor",
        "tags": ["pktvisor", "netprobe"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                },
                {
                    "name": "instance",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": "label_values(packets_total, instance)",
                    "refresh": 2,
                    "includeAll": True,
                    "allValue": ".*",
                    "multi": True,
                    "current": {"text": "All", "value": "$__all"},
                },
                {"name": "filter", "type": "adhoc", "datasource": SOURCE},
            ]
        },
        "panels": panels,
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())

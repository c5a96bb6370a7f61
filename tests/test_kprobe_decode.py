"""What kprobe's decoders find, as it leaves: kflow's columns in both generations, JSON lines, tshark."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from export_batches import batch
from kentik_server import DeviceSpec, KentikServer, generic_columns, named_columns
from test_kprobe_cli import CAPTURES, CREDENTIALS, kprobe

from netprobe.export.kentik import spread_packets

pytestmark = pytest.mark.tool("tshark")

#: generic column of each application, as kprobe.md 4.7 has it
DNS = {"STR00": "dns_query", "STR01": "dns_response", "INT00": "dns_query_type", "INT01": "dns_ret_code"}
HTTP = {"STR00": "http_url", "STR01": "http_host", "STR02": "http_referer", "STR03": "http_ua"}
TLS = {"STR00": "tls_server_name", "INT00": "tls_server_version", "INT01": "tls_cipher_suite"}
DHCP = {
    "STR00": "dhcp_ch_addr",
    "STR01": "dhcp_hostname",
    "STR02": "dhcp_domain",
    "INT00": "dhcp_op",
    "INT01": "dhcp_msg_type",
    "INT02": "dhcp_lease",
    "INET_00": "dhcp_ci_addr",
    "INET_01": "dhcp_yi_addr",
    "INET_02": "dhcp_si_addr",
}
RADIUS = {
    "STR00": "radius_user_name",
    "STR01": "radius_framed_proto",
    "STR02": "radius_acct_session_id",
    "INT00": "radius_code",
    "INT01": "radius_service_type",
    "INT02": "radius_acct_status",
    "INET_00": "radius_framed_ip_addr",
    "INET_01": "radius_framed_ip_mask",
}
GENERIC = {1: DNS, 2: {**HTTP, "INT00": "http_status"}, 3: TLS, 4: DHCP, 9: RADIUS}

FILES = ["app-http.pcap", "app-tls.pcap", "app-radius.pcap", "dhcp.pcap", "dns-udp.pcap", "demo.pcap"]


def send(name: str, columns: list[tuple[int, str, str]], *flags: str) -> list[dict[str, Any]]:
    """Records as kflow carried them, columns by their names."""
    device = DeviceSpec(7, "probe-1", max_flow_rate=100_000, columns=columns)
    with KentikServer([device]) as server:
        urls = [
            f"--{kind}-url={getattr(server, kind + '_url')}" for kind in ("api", "flow", "metrics", "dns")
        ]
        flags = ("--device-id", "7", "--seed", "5", *flags)
        kprobe("--read", CAPTURES / name, *urls, *flags, env=CREDENTIALS)
        server.verify()
        records = server.records
    names = {number: column for number, column, _ in columns}
    for record in records:
        custom = [(names[c["id"]], next(iter(c["value"].values()))) for c in record.get("custom", [])]
        assert len(dict(custom)) == len(custom), "a column twice"
        record["columns"] = {column: shown(value) for column, value in custom}
    return records


def shown(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    return str(ipaddress.ip_address(value[1:5] if value[0] == 4 else value[1:17]))


def jsonl(name: str, *flags: str) -> list[dict[str, Any]]:
    done = kprobe("--read", CAPTURES / name, "--export", "jsonl", "--seed", "5", *flags)
    return [json.loads(line) for line in done.stdout.splitlines()]


def fields(path: Path, expression: str, *names: str) -> list[tuple[str, ...]]:
    args = [x for name in names for x in ("-e", name)]
    out = subprocess.run(
        ["tshark", "-r", path, "-Y", expression, "-T", "fields", "-E", "separator=|", *args],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [tuple(line.split("|")) for line in out.splitlines()]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("generation", [generic_columns, named_columns])
def test_kflow_carries_what_json_lines_show(name: str, generation: Any) -> None:
    known = jsonl(name)
    sent = send(name, generation())
    # a message without packets may be left out, or shares those of its flow
    assert len(sent) == len(known)
    for what in ("Pkts", "Bytes"):
        side = what.lower()
        wanted = sum(r[f"in_{side}"] + r[f"out_{side}"] for r in known)
        assert sum(r[f"in{what}"] + r[f"out{what}"] for r in sent) == wanted
    found = 0
    for record, plain in zip(sent, known, strict=True):
        columns = record["columns"]
        assert record["appProtocol"] == plain["app"]
        assert columns.get("APPL_LATENCY_MS") == plain["appl_latency_ms"]
        fields = {
            k: v for k, v in plain.items() if k.startswith(("dns_", "http_", "tls_", "dhcp_", "radius_"))
        }
        if generation is generic_columns:
            for column, field in GENERIC.get(plain["app"], {}).items():
                value = fields.pop(field, None)
                # a number in a text column is decimal text (D4)
                assert columns.get(column) == (
                    str(value) if field == "radius_framed_proto" and value else value
                )
        else:
            for field in list(fields):
                prefix = "KFLOW_" if field.startswith(("dns_", "http_")) else ""
                column = "KFLOW_HTTP_HOST" if field == "tls_server_name" else prefix + field.upper()
                assert columns.get(column) == fields.pop(field)
        assert fields == {}
        found += (
            columns.get("APPL_LATENCY_MS") is not None or "STR00" in columns or "KFLOW_HTTP_HOST" in columns
        )
    assert found


def test_http_equals_tshark() -> None:
    """Each request and each final response once, also of those that share a segment."""
    path = CAPTURES / "app-http.pcap"
    wanted: Counter[str] = Counter()
    several = set()
    for port, uris in fields(path, "http.request && tcp.port == 80", "tcp.srcport", "http.request.uri"):
        wanted.update(uris.split(","))
        if "," in uris:
            several.add(int(port))
    sent = send("app-http.pcap", named_columns())
    asked = [r["columns"] for r in sent if "KFLOW_HTTP_URL" in r["columns"]]
    asked = [columns for columns in asked if "KFLOW_HTTP_STATUS" not in columns]
    assert Counter(columns["KFLOW_HTTP_URL"] for columns in asked) == wanted
    # tshark does not see all of the responses that share a segment; 100 is not final, 400 answers no request
    assert len(several) == 1
    expected: Counter[tuple[int, int]] = Counter()
    for port, code in fields(path, "http.response && tcp.port == 80", "tcp.dstport", "http.response.code"):
        if int(port) not in several and code not in ("100", "400"):
            expected[int(port), int(code)] += 1
    got = Counter(
        (r["l4DstPort"], r["columns"]["KFLOW_HTTP_STATUS"])
        for r in sent
        if "KFLOW_HTTP_STATUS" in r["columns"] and r["l4DstPort"] not in several
    )
    assert got == expected
    assert sum(r["l4DstPort"] in several and "KFLOW_HTTP_STATUS" in r["columns"] for r in sent) == 5


def test_dns_equals_tshark() -> None:
    path = CAPTURES / "dns-udp.pcap"
    rows = fields(
        path, "dns && udp.port == 53", "dns.flags.response", "dns.qry.name", "dns.qry.type", "dns.flags.rcode"
    )
    wanted = Counter(
        (name, int(kind), int(code) if response in ("1", "True") else None)
        for response, name, kind, code in rows
    )
    sent = [record["columns"] for record in send("dns-udp.pcap", named_columns())]
    got = Counter(
        (c["KFLOW_DNS_QUERY"] or "<Root>", c["KFLOW_DNS_QUERY_TYPE"], c.get("KFLOW_DNS_RET_CODE"))
        for c in sent
    )
    assert got == wanted


def test_radius_and_dhcp_equal_tshark() -> None:
    rows = fields(
        CAPTURES / "app-radius.pcap", "radius", "radius.code", "radius.User_Name", "radius.Acct_Status_Type"
    )
    sent = [record["columns"] for record in send("app-radius.pcap", named_columns())]
    got = Counter(
        (str(c["RADIUS_CODE"]), c.get("RADIUS_USER_NAME", ""), str(c.get("RADIUS_ACCT_STATUS", "")))
        for c in sent
    )
    assert got == Counter(rows)
    rows = fields(
        CAPTURES / "dhcp.pcap", "dhcp", "dhcp.type", "dhcp.option.dhcp", "dhcp.hw.mac_addr", "dhcp.ip.your"
    )
    sent = [record["columns"] for record in send("dhcp.pcap", named_columns()) if record["appProtocol"] == 4]
    got = Counter(
        (str(c["DHCP_OP"]), str(c["DHCP_MSG_TYPE"]), c["DHCP_CH_ADDR"], c["DHCP_YI_ADDR"]) for c in sent
    )
    assert got == Counter(rows)


def test_tls_equals_tshark() -> None:
    path = CAPTURES / "app-tls.pcap"
    names = {
        n for (n,) in fields(path, "tls.handshake.type == 1", "tls.handshake.extensions_server_name") if n
    }
    suites = {int(s, 0) for (s,) in fields(path, "tls.handshake.type == 2", "tls.handshake.ciphersuite")}
    sent = [record["columns"] for record in send("app-tls.pcap", named_columns())]
    assert {c["KFLOW_HTTP_HOST"] for c in sent if c.get("KFLOW_HTTP_HOST")} == names
    assert {c["TLS_CIPHER_SUITE"] for c in sent if "TLS_CIPHER_SUITE" in c} == suites


@pytest.mark.parametrize("missing", ["STR03", "INET_01", "APPL_LATENCY_MS"])
def test_a_device_without_a_column(missing: str) -> None:
    """D36: the decoders that need it are off, the others work."""
    columns = [entry for entry in generic_columns() if entry[1] != missing]
    sent = send("demo.pcap", columns)
    apps = {record["appProtocol"] for record in sent if "STR00" in record["columns"]}
    assert apps == {"STR03": {1, 4}, "INET_01": {1, 2}, "APPL_LATENCY_MS": set()}[missing]


def test_without_decoding() -> None:
    """No application columns, no records at once; the numbers of some ports stay (D31)."""
    sent = send("demo.pcap", generic_columns(), "--no-decode")
    assert not [r for r in sent if {"STR00", "INT00", "APPL_LATENCY_MS"} & set(r["columns"])]
    assert {record["appProtocol"] for record in sent} == {0, 1}
    assert len(sent) < len(send("demo.pcap", generic_columns()))


def test_extra_ports_of_http() -> None:
    records = jsonl("app-http.pcap", "--http-port", "8080")
    apps = {min(r["sport"], r["dport"]): r["app"] for r in records}
    assert apps[8080] == apps[80] == 2
    assert any(r.get("http_url") and 8080 in (r["sport"], r["dport"]) for r in records)


def row(pkts: int, size: int, **more: Any) -> dict[str, Any]:
    return {"sport": 80, "dport": 4000, "out_pkts": pkts, "out_bytes": size, **more}


def test_messages_without_packets_get_some() -> None:
    other = row(9, 900, sport=81)
    one, ranges = spread_packets(batch(row(3, 301), row(0, 0), row(0, 0), row(0, 0), other, row(2, 100)))
    assert ranges is None
    assert all(one.numbers("out_pkts"))
    assert sum(one.numbers("out_pkts")) == 14
    assert sum(one.numbers("out_bytes")) == 1301
    assert all(
        size >= pkts for size, pkts in zip(one.numbers("out_bytes"), one.numbers("out_pkts"), strict=True)
    )
    # nothing to spare: left out
    one, ranges = spread_packets(batch(row(0, 0), row(1, 40), row(0, 0), other))
    assert ranges == [(1, 2), (3, 4)]
    assert one.numbers("out_pkts") == [0, 1, 0, 9]
    same = batch(row(1, 40), other)
    assert spread_packets(same) == (same, None)

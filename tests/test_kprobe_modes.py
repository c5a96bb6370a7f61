"""kprobe's dns and radius modes: what tshark and dnspython read, and nothing else, is shipped."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import pytest
from kentik_server import Fault, KentikServer
from scapy.all import DNS, DNSQR, DNSRR, IP, UDP, Dot1Q, Ether, Raw, wrpcap
from test_kprobe_cli import CAPTURES, CREDENTIALS, kprobe, serve

DNS_FILES = ["dns-udp.pcap", "dns-fragments.pcap", "demo.pcap", "dns-tcp.pcap"]


def fields(path: Path, expression: str, *names: str) -> list[list[str]]:
    args = [x for name in names for x in ("-e", name)]
    out = subprocess.run(
        ["tshark", "-r", path, "-Y", expression, "-T", "fields", "-E", "separator=|", *args],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line.split("|") for line in out.splitlines()]


def dns_wanted(path: Path, expression: str = "udp.srcport == 53") -> list[dict[str, Any]]:
    """By tshark's reassembly and dnspython's parser."""
    out = []
    for to4, to6, payload in fields(path, expression, "ip.dst", "ipv6.dst", "udp.payload"):
        message = dns.message.from_wire(bytes.fromhex(payload), ignore_trailing=True)
        if not message.flags & dns.flags.QR or message.opcode() or not message.question:
            continue
        answers = []
        # dnspython gathers records of one name and type, so the wire's order is told by a second look
        message = dns.message.from_wire(bytes.fromhex(payload), ignore_trailing=True, one_rr_per_rrset=True)
        for entry in message.answer:
            if entry.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                answers.append({"addr": str(ipaddress.ip_address(entry[0].address)), "ttl": entry.ttl})
        if answers:
            name = message.question[-1].name.to_text(omit_final_dot=True)
            out.append({"client": to4 or to6, "name": name, "answers": answers})
    return out


def jsonl(*flags: str | Path) -> list[dict[str, Any]]:
    done = kprobe("--export", "jsonl", *flags)
    return [json.loads(line) for line in done.stdout.splitlines()]


def without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", DNS_FILES)
@pytest.mark.parametrize("mode", ["--dns", "dns"])
def test_dns_answers_equal_dnspython(name: str, mode: str) -> None:
    wanted = dns_wanted(CAPTURES / name)
    assert without_time(jsonl("--read", CAPTURES / name, mode)) == wanted
    assert bool(wanted) == (name != "dns-tcp.pcap")


@pytest.mark.tool("tshark")
def test_dns_times_are_those_of_the_packets() -> None:
    rows = jsonl("--read", CAPTURES / "dns-udp.pcap", "--dns")
    stamps = fields(CAPTURES / "dns-udp.pcap", "udp.srcport == 53", "frame.time_epoch")
    known = {int(text.replace(".", "")) for (text,) in stamps}
    assert {row["time"] for row in rows} <= known


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", DNS_FILES)
def test_dns_to_kentik(name: str) -> None:
    with serve(mode="dns") as server:
        done = to_kentik(server, name, "--dns", "--device-name", "probe-1")
        server.verify()
        got = [
            {
                "client": str(ipaddress.ip_address(one["Question"]["Host"])),
                "name": one["Question"]["Name"],
                "answers": [
                    {"addr": str(ipaddress.ip_address(answer["IP"])), "ttl": answer["TTL"]}
                    for answer in one["Answers"]
                ],
            }
            for post in server.dns_posts
            for one in post
        ]
        assert got == dns_wanted(CAPTURES / name)
        assert not server.flow_posts
    assert "DNS answers" in done.stderr


def to_kentik(server: KentikServer, name: str | Path, *flags: str, code: int = 0) -> Any:
    urls = [f"--{kind}-url={getattr(server, kind + '_url')}" for kind in ("api", "flow", "metrics", "dns")]
    return kprobe("--read", CAPTURES / name, *urls, *flags, code=code, env=CREDENTIALS)


def response(name: str = "a.example", port: int = 53, **changes: Any) -> Any:
    values = {"id": 1, "qr": 1, "qd": DNSQR(qname=name), "an": DNSRR(rrname=name, rdata="192.0.2.1", ttl=9)}
    return (
        IP(src="192.0.2.53", dst="198.51.100.7") / UDP(sport=port, dport=4000) / DNS(**{**values, **changes})
    )


ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
ONE = {"client": "198.51.100.7", "name": "a.example", "answers": [{"addr": "192.0.2.1", "ttl": 9}]}


def test_dns_takes_responses_with_addresses_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    text = DNSRR(rrname="a.example", type="TXT", rdata="no address")
    packets = [
        response(),
        response(qr=0),
        response(opcode=5),
        response(an=[]),
        response(an=text),
        response(port=5353),
        response(rcode=3),
        IP(src="192.0.2.53", dst="198.51.100.7")
        / UDP(sport=53, dport=4000)
        / Raw(b"\x00\x01\x80\x00\x00\x00"),
        Dot1Q(vlan=7) / response(),
        Dot1Q(vlan=7, type=0x8100) / Dot1Q(vlan=8) / response(),
    ]
    wrpcap(str(path), [ETHER / packet for packet in packets])
    # an RCODE is not looked at; tags are passed over
    assert without_time(jsonl("--read", path, "--dns")) == [ONE] * 4
    done = kprobe("--read", path, "--dns", "--export", "null")
    assert "10 packets, 4 DNS answers" in done.stderr
    assert "1 of other protocols or ports, 4 with nothing to ship, 1 malformed" in done.stderr


def test_dns_filter_replaces_the_choice_by_port(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    wrpcap(str(path), [ETHER / response(port=port) for port in (53, 5353, 5354)])
    for flags in (["--dns", "--dns-filter", "udp src port 5353"], ["dns", "--filter", "udp src port 5353"]):
        assert without_time(jsonl("--read", path, *flags)) == [ONE]
    assert len(jsonl("--read", path, "--dns", "--dns-filter", "udp")) == 3
    # the flow mode's filter is no business of this mode
    done = kprobe("--read", path, "--filter", "udp src port 5353", "dns", "--export", "jsonl")
    assert len(done.stdout.splitlines()) == 1
    assert "--filter (in dns mode) has no effect" in done.stderr
    bad = kprobe("--read", path, "--dns", "--dns-filter", "no such word", "--export", "null", code=1)
    assert bad.stderr.startswith("Error: filter ")


def test_juniper_mirror(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"

    def mirrored(inner: bytes) -> Any:
        return ETHER / IP(src="203.0.113.1", dst="203.0.113.2") / UDP(sport=30030, dport=30030) / Raw(inner)

    head = b"\x01\x02\x03\x04\x05\x06\x07\x08"
    whole = bytes(response())
    packets = [
        mirrored(head + whole),
        mirrored(head),
        mirrored(head[:3]),
        mirrored(head + b"\x00" * 40),
        mirrored(head + whole[:30]),
        *(mirrored(head + bytes(piece)) for piece in response().fragment(24)),
        ETHER / response(),
    ]
    wrpcap(str(path), packets)
    rows = without_time(jsonl("--read", path, "--dns", "--juniper-mirror"))
    assert rows == [ONE, ONE]
    assert without_time(jsonl("--read", path, "dns", "--juniper-mirror", "--filter", "udp port 30030")) == [
        ONE,
        ONE,
    ]
    assert without_time(jsonl("--read", path, "--dns")) == [ONE]


def radius_wanted(path: Path) -> list[dict[str, Any]]:
    names = ("radius.Acct_Status_Type", "radius.User_Name", "radius.Framed-IP-Address")
    rows = fields(path, "radius.code == 4 && (udp.dstport == 1812 || udp.dstport == 1813)", *names)
    kinds = {"1": "start", "2": "stop"}
    return [
        {"event": kinds[status], "user": user, "addr": address if status == "1" else None}
        for status, user, address in rows
        if status in kinds and user and (status == "2" or address)
    ]


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("mode", ["--radius", "radius"])
def test_radius_bindings_equal_tshark(mode: str) -> None:
    wanted = radius_wanted(CAPTURES / "app-radius.pcap")
    assert [row["event"] for row in wanted] == ["start", "stop"]
    assert without_time(jsonl("--read", CAPTURES / "app-radius.pcap", mode)) == wanted


def test_radius_ports() -> None:
    path = CAPTURES / "app-radius.pcap"
    assert len(jsonl("--read", path, "radius", "--ports", "1813")) == 2
    assert len(jsonl("--read", path, "--radius", "--radius-port", "1813")) == 2
    assert jsonl("--read", path, "radius", "--ports", "1812", "--ports", "1645") == []


def test_radius_to_kentik() -> None:
    with serve(mode="radius") as server:
        to_kentik(server, "app-radius.pcap", "--radius", "--device-name", "probe-1")
        server.verify()
        # a start and a stop of one user in one second: two requests, for order counts
        assert [
            {k: v for k, v in post.items() if k in ("upserts", "deletes")} for post in server.tag_posts
        ] == [
            {"upserts": [{"value": "bob", "criteria": [{"addr": ["10.1.2.3"]}]}]},
            {"deletes": [{"value": "bob"}]},
        ]
        assert not server.flow_posts


def test_servers_that_fail() -> None:
    """5xx are repeated; what is refused is lost, said, and ends in exit code 1."""
    with serve(mode="dns") as server:
        server.faults["dns"].extend([Fault("status", 503), Fault("reset")])
        to_kentik(server, "dns-udp.pcap", "--dns", "--device-name", "probe-1")
        assert server.routes()["dns"] == 3
    with serve(mode="dns") as server:
        server.faults["dns"].append(Fault("status", 403))
        done = to_kentik(server, "dns-udp.pcap", "--dns", "--device-name", "probe-1", code=1)
        assert done.stdout == "libkflow error: dns: HTTP status code 403\n"
        assert done.stderr.splitlines()[-1].startswith("Error: of 16 DNS answers 0 were sent, 16 failed")
    with serve(mode="radius") as server:
        server.faults["tags"].append(Fault("garbage"))
        done = to_kentik(server, "app-radius.pcap", "--radius", "--device-name", "probe-1", code=1)
        assert done.stdout == "libkflow error: tags: api: no message and guid in the answer\n"
        assert done.stderr.splitlines()[-1].startswith("Error: of 2 requests with user names 1 were sent")


@pytest.mark.parametrize(
    ("name", "mode", "route"), [("dns-udp.pcap", "dns", "dns"), ("app-radius.pcap", "radius", "tags")]
)
def test_a_server_gets_time_to_recover(name: str, mode: str, route: str) -> None:
    """Repetitions wait (kflow-wire.md 4.1), also at the end of a replay, when what is left is sent."""
    with serve(mode=mode) as server:
        server.faults[route].extend([Fault("status", 503)] * 2)
        to_kentik(server, name, f"--{mode}", "--device-name", "probe-1")
        times = [seen.when for seen in server.requests if seen.route == route][:3]
    # 0.5 s and 0.75 s, each give or take a half
    assert 0.25 <= times[1] - times[0] < 1.5
    assert 0.375 <= times[2] - times[1] < 2


@pytest.mark.parametrize(("name", "mode"), [("dns-udp.pcap", "dns"), ("app-radius.pcap", "radius")])
def test_parquet_has_what_jsonl_has(tmp_path: Path, name: str, mode: str) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="missing: pyarrow")
    target = tmp_path / "x.parquet"
    kprobe("--read", CAPTURES / name, mode, "--export", "parquet", "--output", target)
    table = pq.read_table(target)
    times = table["time"].cast("int64").to_pylist()
    rows = [{**row, "time": when} for row, when in zip(table.to_pylist(), times, strict=True)]
    assert rows == jsonl("--read", CAPTURES / name, mode)


def test_worked_values(shared: Path) -> None:
    """kprobe.md 10.2: dns_mode_parse, radius_mode_parse."""
    folder = shared / "pcap" / "kprobe"
    first = jsonl("--read", folder / "google.com-any.pcap", "--dns")[0]
    assert (first["name"], first["client"]) == ("google.com", "10.0.0.52")
    assert first["answers"] == [
        {"addr": "172.217.26.14", "ttl": 299},
        {"addr": "2404:6800:4004:809::200e", "ttl": 299},
    ]
    (start,) = jsonl("--read", folder / "radius-acct-start.pcap", "--radius")
    (stop,) = jsonl("--read", folder / "radius-acct-stop.pcap", "--radius")
    assert (start["event"], start["user"], start["addr"]) == ("start", "bob", "10.1.2.3")
    assert (stop["event"], stop["user"], stop["addr"]) == ("stop", "bob", None)

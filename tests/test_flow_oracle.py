"""Records with application fields of whole captures, against tshark and the specification's worked values."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from app_feed import tshark
from conftest import shared_data
from flow_feed import kprobe_rows

from netprobe.flow_columns import APP_SCHEMA, REASONS, flows

CAPTURES = Path(__file__).parent / "captures"
DATA = shared_data()
KPROBE = (DATA or Path("absent")) / "pcap" / "kprobe"
HTTP = ("http_url", "http_host", "http_referer", "http_ua")

shared = pytest.mark.skipif(not KPROBE.is_dir(), reason="shared data absent: no kprobe captures")


def both(path: Path, **options: Any) -> list[list[dict[str, Any]]]:
    """The application fields of all records: as kprobe has them, and of a notebook's two-way flows."""
    records, _ = kprobe_rows(path, **options)
    two_way: list[dict[str, Any]] = []
    for chunk in flows(path, decode=True, **options):
        for i in range(chunk.rows):
            fields = {c.name: chunk[c.name][i] for c in APP_SCHEMA if chunk[c.name][i] not in (None, -1)}
            two_way.append({**fields, "ms": int(chunk["appl_latency_ms"][i])} if fields else fields)
    one_way = [{**r["app_fields"], "ms": r["appl_latency_ms"]} if r["app_fields"] else {} for r in records]
    return [[fields for fields in each if fields] for each in (one_way, two_way)]


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", ["app-http.pcap", "http.pcap"])
def test_http(name: str) -> None:
    """Requests and responses in order, several to a segment; a response carries what its request said."""
    rows = tshark(
        CAPTURES / name, "tcp.stream", "http.request.method", "http.request.uri", "http.host",
        "http.referer", "http.user_agent", "http.response.code",
        where="http.request or http.response", options=["-d", "tcp.port==8080,http"],
    )  # fmt: skip
    want: Counter[Any] = Counter()
    agents: set[str] = set()
    codes: Counter[str] = Counter()
    for _, method, uris, hosts, _, agent, code in rows:
        if method:
            want.update(zip(uris.split(","), hosts.split(","), strict=True))
        if agent and "," not in uris:
            agents.add(agent[:384])
        codes.update(c for c in code.split(",") if c and c != "100")
    assert sum(want.values()) >= 3
    for found in both(CAPTURES / name, http_ports=[8080]):
        asked = [r for r in found if "http_status" not in r]
        answered = [r for r in found if "http_status" in r]
        assert Counter((r["http_url"], r["http_host"]) for r in asked) == want
        assert agents <= {r["http_ua"] for r in asked}
        assert {tuple(r[f] for f in HTTP) for r in answered} <= {tuple(r[f] for f in HTTP) for r in asked}
        # tshark takes the answer to a HEAD for the beginning of another; the 400 answers what is no HTTP
        mine = Counter(str(r["http_status"]) for r in answered)
        assert set(codes - mine) <= {"400"}
        assert len(answered) == len(asked)
        assert all(r["ms"] >= 0 for r in answered)


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("bidirectional", [False, True])
def test_tls(bidirectional: bool) -> None:
    """Name, version and cipher of each connection, on the records of both directions."""
    path = CAPTURES / "app-tls.pcap"
    rows = tshark(
        path, "tcp.stream", "tls.handshake.type", "tls.handshake.extensions_server_name",
        "tls.handshake.version", "tls.handshake.ciphersuite", "tcp.srcport", "tcp.dstport",
        where="tls.handshake.type in {1, 2}",
    )  # fmt: skip
    want: dict[int, dict[str, Any]] = {}
    for _, kinds, name, version, cipher, sport, dport in rows:
        client = want.setdefault(int(dport) if sport == "443" else int(sport), {})
        if kinds.split(",")[0] == "1" and name:
            client.setdefault("tls_server_name", name)
        elif kinds.split(",")[0] == "2":
            client.setdefault("tls_server_version", int(version, 16))
            client.setdefault("tls_cipher_suite", int(cipher.split(",")[0], 16))
    assert len(want) > 7
    got: dict[int, list[dict[str, Any]]] = {}
    for chunk in flows(path, bidirectional, decode=True):
        for i in range(chunk.rows):
            fields = {c.name: chunk[c.name][i] for c in APP_SCHEMA if chunk[c.name][i] not in (None, -1)}
            client = int(max(chunk["sport"][i], chunk["dport"][i]))
            got.setdefault(client, []).append(fields)
    assert {client: records[0] for client, records in got.items() if records[0]} == want
    assert {len(records) for records in got.values()} == {1 if bidirectional else 2}
    assert all(a == b for records in got.values() for a, b in itertools.pairwise(records))


def without_syns(name: str, folder: Path) -> Path:
    """One of our captures as if it had begun after all its connections."""
    data, out = (CAPTURES / name).read_bytes(), folder / name
    kept, at = [data[:24]], 24
    while at < len(data):
        end = at + 16 + int.from_bytes(data[at + 8 : at + 12], "little")
        frame = data[at + 16 : end]
        ip = 34 if frame[12:14] == b"\x08\0" else 54
        if not frame[ip + 13] & 2:
            kept.append(data[at:end])
        at = end
    out.write_bytes(b"".join(kept))
    return out


@pytest.mark.tool("tshark")
def test_connections_without_their_beginning(tmp_path: Path) -> None:
    """What tshark reads of them; kprobe reads those that it saw begin."""
    path = without_syns("app-tls.pcap", tmp_path)
    rows = tshark(path, "tls.handshake.extensions_server_name", where="tls.handshake.type == 1")
    names = {row[0] for row in rows if row[0]}
    seen = {n for chunk in flows(path, decode=["tls"]) for n in chunk["tls_server_name"] if n}
    assert seen == names
    assert len(names) > 3
    assert not any(r["app_fields"] for r in kprobe_rows(path)[0])
    path = without_syns("http.pcap", tmp_path)
    rows = tshark(path, "http.request.uri", where="http.request", options=["-d", "tcp.port==8080,http"])
    urls = Counter(url for row in rows for url in row[0].split(","))
    (chunk,) = flows(path, decode=["http"], http_ports=[8080])
    asked = zip(chunk["http_url"], chunk["http_status"], strict=True)
    assert Counter(u for u, status in asked if u and status == -1) == urls
    assert urls
    assert not any(r["app_fields"] for r in kprobe_rows(path, http_ports=[8080])[0])


@pytest.mark.tool("tshark")
def test_dns() -> None:
    path = CAPTURES / "dns-udp.pcap"
    rows = tshark(
        path, "dns.flags.response", "dns.qry.name", "dns.qry.type", "dns.flags.rcode", "dns.time",
        where="udp.port == 53",
    )  # fmt: skip
    want = []
    for response, name, kind, rcode, took in rows:
        one = {"dns_query": name, "dns_query_type": int(kind), "ms": -1}
        if response in ("1", "True"):
            one |= {"dns_ret_code": int(rcode), "ms": int(float(took or 0) * 1000)}
        want.append(one)
    assert len(want) > 40
    for found in both(path):
        assert [{k: v for k, v in r.items() if k != "dns_response"} for r in found] == want


@pytest.mark.tool("tshark")
def test_dhcp() -> None:
    path = CAPTURES / "dhcp.pcap"
    rows = tshark(
        path, "dhcp.type", "dhcp.option.dhcp", "dhcp.ip.client", "dhcp.ip.your", "dhcp.ip.server",
        "dhcp.hw.mac_addr", "dhcp.option.hostname", "dhcp.option.ip_address_lease_time", where="dhcp",
    )  # fmt: skip
    for found in both(path):
        assert len(found) == len(rows) >= 4
        for row, r in zip(rows, found, strict=True):
            assert [str(r["dhcp_op"]), str(r["dhcp_msg_type"])] == row[:2]
            assert [r["dhcp_ci_addr"], r["dhcp_yi_addr"], r["dhcp_si_addr"]] == row[2:5]
            assert r["dhcp_ch_addr"] == row[5].split(",")[0]
            assert (r.get("dhcp_hostname", ""), str(r.get("dhcp_lease", ""))) == (row[6], row[7])
            assert (r["ms"] >= 1) == (r["dhcp_op"] == 2)


@pytest.mark.tool("tshark")
def test_radius() -> None:
    path = CAPTURES / "app-radius.pcap"
    names = ("code", "user_name", "service_type", "framed_ip_addr", "framed_ip_mask", "framed_proto")
    rows = tshark(
        path, "radius.code", "radius.User_Name", "radius.Service_Type", "radius.Framed-IP-Address",
        "radius.Framed_IP_Netmask", "radius.Framed_Protocol", "radius.Acct_Session_Id",
        "radius.Acct_Status_Type", "radius.time", where="radius",
    )  # fmt: skip
    for found in both(path):
        assert len(found) == len(rows) == 16
        for row, r in zip(rows, found, strict=True):
            mine = [str(r.get(f"radius_{n}", "")) for n in (*names, "acct_session_id", "acct_status")]
            assert mine == row[:8]
            assert r["ms"] == (max(int(float(row[8]) * 1000), 1) if row[8] else -1)


@pytest.mark.tool("tshark")
def test_postgres() -> None:
    path = CAPTURES / "app-postgres.pcap"
    asked = tshark(
        path, "pgsql.query", where="pgsql.type == \"Simple query\"", options=["-E", "aggregator=\x1f"]
    )  # fmt: skip
    want = Counter(row[0][:384] for row in asked)
    found = [r for chunk in flows(path, decode=["postgres"]) for r in chunk["pg_statement"] if r]
    assert want and not want - Counter(found)
    # kprobe has no such decoder unless it is given ports
    assert not any(r["app_fields"] for r in kprobe_rows(path)[0])


# --- worked values: sections 10.2 and 10.4 of the specification -----------------------------------


def quiet(name: str) -> list[dict[str, Any]]:
    """Records with a seed by which no timer reports anything before the end of the file."""
    for seed in range(64):
        found, _ = kprobe_rows(KPROBE / name, seed=seed)
        if not any(r["reason"] == "schedule" for r in found):
            return found
    raise AssertionError("no such seed")


@shared
def test_worked_http() -> None:
    request, response, client, server = quiet("google.com.pcap")
    asked = {"http_url": "/", "http_host": "google.com", "http_referer": "", "http_ua": "curl/7.38.0"}
    assert (request["out_pkts"], request["out_bytes"], request["out_tcp_flags"]) == (3, 214, 0x1A)
    assert (request["client_nw_latency_ms"], request["out_window"]) == (1, 29312)
    assert request["app_fields"] == asked
    assert (response["out_pkts"], response["out_bytes"], response["out_tcp_flags"]) == (3, 635, 0x1A)
    assert (response["server_nw_latency_ms"], response["fpex_latency_ms"]) == (3, 7)
    assert (response["out_window"], response["appl_latency_ms"]) == (32768, 7)
    assert response["app_fields"] == {**asked, "http_status": 302}
    assert (client["out_pkts"], client["out_bytes"], client["reason"]) == (3, 120, "end")
    assert (server["out_pkts"], server["out_bytes"], server["reason"]) == (2, 80, "end")
    assert {r["app"] for r in (request, response, client, server)} == {2}


@shared
def test_worked_http_without_the_first_packet(tmp_path: Path) -> None:
    """decode_http_dir_correct: the SYN+ACK tells which side is the server."""
    data = (KPROBE / "google.com.pcap").read_bytes()
    first = 24 + 16 + int.from_bytes(data[32:36], "little")
    (tmp_path / "t.pcap").write_bytes(data[:24] + data[first:])
    found, _ = kprobe_rows(tmp_path / "t.pcap")
    assert [r["app_fields"].get("http_host") for r in found[:2]] == ["google.com"] * 2
    # decode_http_reset_latency: the same connection once more, two seconds later
    later = bytearray(data[24:])
    at, last = 0, int.from_bytes(data[24:28], "little")
    while at < len(later):
        seconds = int.from_bytes(later[at : at + 4], "little") + 2
        later[at : at + 4] = seconds.to_bytes(4, "little")
        last = max(last, seconds)
        at += 16 + int.from_bytes(later[at + 8 : at + 12], "little")
    (tmp_path / "twice.pcap").write_bytes(data + bytes(later))
    found, _ = kprobe_rows(tmp_path / "twice.pcap")
    assert [r["appl_latency_ms"] for r in found if "http_status" in r["app_fields"]] == [7, 7]


@shared
def test_worked_dns() -> None:
    found = quiet("google.com-any.pcap")
    assert [r["out_bytes"] for r in found] == [56, 432, 64, 64, 80, 92]
    assert [r["fpex_latency_ms"] for r in found if r["fpex_latency_ms"]] == [44, 41, 42]
    text = (
        "172.217.26.14/A;2404:6800:4004:809::200e/AAAA;alt2.aspmx.l.google.com/MX;ns2.google.com/NS;;"
        "alt4.aspmx.l.google.com/MX;aspmx.l.google.com/MX;ns4.google.com/NS;alt3.aspmx.l.google.com/MX;"
        "alt1.aspmx.l.google.com/MX;v=spf1 include:_spf.google.com ~all/TXT;;ns1.google.com/NS;;"
        "ns3.google.com/NS"
    )
    assert found[1]["appl_latency_ms"] == 44
    assert found[1]["app_fields"] == {
        "dns_query": "google.com", "dns_query_type": 255, "dns_ret_code": 0, "dns_response": text,
    }  # fmt: skip
    assert [r["out_bytes"] for r in quiet("sns-pb.isc.org.pcap")] == [60, 300]


@shared
def test_worked_dhcp() -> None:
    request, reply = quiet("dhcpv4.pcap")
    assert (request["out_bytes"], reply["out_bytes"]) == (328, 322)
    ends = {"dhcp_ci_addr": "0.0.0.0", "dhcp_ch_addr": "00:1c:42:60:bb:37", "dhcp_hostname": "chdev"}
    assert request["app_fields"] == {
        "dhcp_op": 1, "dhcp_msg_type": 3, "dhcp_yi_addr": "0.0.0.0", "dhcp_si_addr": "0.0.0.0", **ends,
    }  # fmt: skip
    assert reply["app_fields"] == {
        "dhcp_op": 2, "dhcp_msg_type": 5, "dhcp_yi_addr": "10.211.55.16", "dhcp_si_addr": "10.211.55.1",
        "dhcp_domain": "localdomain", "dhcp_lease": 1800, **ends,
    }  # fmt: skip
    assert (request["appl_latency_ms"], reply["appl_latency_ms"]) == (-1, 1)


@shared
@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("radius-acct-start.pcap", [(-1, 4, "bob", 1, "10.1.2.3"), (1, 5, None, None, None)]),
        ("radius-acct-stop.pcap", [(-1, 4, "bob", 2, None), (1, 5, None, None, None)]),
    ],
)
def test_worked_radius_accounting(name: str, want: list[tuple[Any, ...]]) -> None:
    keys = ("code", "user_name", "acct_status", "framed_ip_addr")
    found = quiet(name)
    assert [
        (r["appl_latency_ms"], *(r["app_fields"].get(f"radius_{k}") for k in keys)) for r in found
    ] == want


@shared
def test_worked_radius_access() -> None:
    keys = ("code", "user_name", "service_type", "framed_ip_addr")
    found = quiet("radius-auth-req.pcap")
    got = [(r["appl_latency_ms"], *(r["app_fields"].get(f"radius_{k}") for k in keys)) for r in found]
    user, mask = "John.McGuirk", "255.255.255.254"
    assert got[0] == (-1, 1, user, 2, None)
    assert got[1] == (2, 11, None, 2, mask)
    assert got[2] == (-1, 1, user, 2, None)
    assert (got[3][0], got[3][1], got[3][3], got[3][4]) == (1, 2, 2, mask)


@shared
def test_worked_retransmits() -> None:
    """The capture lasts long enough for timers: sums."""
    sums: Counter[tuple[int, int, str]] = Counter()
    names = ("pkts", "bytes", "retransmits", "repeats", "reordered")
    for r in kprobe_rows(KPROBE / "retransmits.pcap")[0]:
        for name in names:
            sums[(r["sport"], r["dport"], name)] += r[f"out_{name}"]
    assert [sums[(52952, 2222, name)] for name in names] == [12, 686, 8, 1, 0]
    assert [sums[(52953, 2222, name)] for name in names] == [10, 572, 6, 1, 0]
    for port in (52952, 52953):
        assert [sums[(2222, port, name)] for name in ("pkts", "bytes")] == [2, 112]


def test_decoders_one_by_one() -> None:
    """Each decoder alone says what it says among the others; some numbers need no decoder (D31)."""
    for name, app in (("dns-udp.pcap", "dns"), ("dhcp.pcap", "dhcp"), ("app-http.pcap", "http")):
        everything, _ = kprobe_rows(CAPTURES / name, seed=5)
        alone, stats = kprobe_rows(CAPTURES / name, seed=5, decode=[app])
        strip = [{k: v for k, v in r.items() if k != "app"} for r in alone]
        assert strip == [{k: v for k, v in r.items() if k != "app"} for r in everything]
        assert stats["decoders"][app]["messages"] == sum(bool(r["app_fields"]) for r in alone) > 0
        none, stats = kprobe_rows(CAPTURES / name, seed=5, decode=False)
        assert not any(r["app_fields"] for r in none)
        assert {REASONS.index(r["reason"]) for r in none} <= {2, 5}
        assert {r["app"] for r in none} >= ({1} if app == "dns" else {0})
        assert stats["decoders"] == {}


def test_cut_packets_are_not_decoded_by_kprobe() -> None:
    """Section 3.9: the first bytes of a request would do, but the packet is longer than the limit."""
    path = CAPTURES / "http-snap96.pcap"
    found, stats = kprobe_rows(path)
    assert stats["decoders"]["cut"] > 0
    assert not any(r["app_fields"] for r in found)
    # a file shows what there is
    requests = [u for chunk in flows(path, decode=True) for u in chunk["http_url"] if u]
    assert not requests or requests[0] == "/page.html"

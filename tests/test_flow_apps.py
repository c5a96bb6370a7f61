"""Decoders on the flow table: fields as columns, which record carries them, and how Arrow shows them."""

import copy
import pickle
import socket
import struct
from pathlib import Path
from typing import Any

import generate
import pytest
from flow_feed import kprobe_rows
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from netprobe._core.app_flow import APP_COLUMNS, AppRows
from netprobe.flow_columns import APP_SCHEMA, REASONS, SCHEMA, flows

CAPTURES = Path(__file__).parent / "captures"
APP_NAMES = [column.name for column in APP_SCHEMA]


def rows(path: Path, bidirectional: bool = False, **options: Any) -> list[dict[str, Any]]:
    """Each record as a dict: text addresses, counters, and the application fields that it has."""
    out = []
    for chunk in flows(path, bidirectional, decode=True, **options):
        for i in range(chunk.rows):
            row = {
                name: chunk[name][i].item()
                for name in chunk
                if name not in APP_NAMES and chunk[name].ndim == 1
            }
            row["src"], row["dst"] = chunk.addresses("src")[i], chunk.addresses("dst")[i]
            row["reason"] = REASONS[row["reason"]]
            for name in APP_NAMES:
                value = chunk[name][i]
                if value is not None and value != -1:
                    row[name] = value
            out.append(row)
    return out


def fields(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in APP_NAMES if name in row}


class Talk:
    """A TCP connection, segment by segment."""

    def __init__(self, sport: int = 40000, dport: int = 80) -> None:
        self.packets: list[Packet] = []
        self.ends = {"c": ("10.0.0.1", sport), "s": ("10.0.0.2", dport)}
        self.seq = {"c": 1000, "s": 5000}
        self.add("c", flags="S")
        self.add("s", flags="SA")
        self.add("c", flags="A")

    def add(self, side: str, data: bytes = b"", flags: str = "PA") -> None:
        src, dst = self.ends[side], self.ends["s" if side == "c" else "c"]
        other = self.seq["s" if side == "c" else "c"]
        tcp = TCP(sport=src[1], dport=dst[1], seq=self.seq[side], ack=other, flags=flags)
        ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        self.packets.append(ether / IP(src=src[0], dst=dst[0]) / tcp / Raw(data))
        self.seq[side] += len(data) + (1 if "S" in flags or "F" in flags else 0)

    def write(self, path: Path, step: float = 0.01) -> Path:
        for i, p in enumerate(self.packets):
            p.time = 1_700_000_000 + i * step
        wrpcap(str(path), self.packets)
        return path


def test_schema_is_what_the_core_has() -> None:
    assert list(APP_COLUMNS) == APP_NAMES
    for column in APP_SCHEMA:
        kind = APP_COLUMNS[column.name][0]
        assert (column.dtype, column.arrow, column.absent) == (
            ("i8", "l", -1) if kind == "number" else ("text", "u", None)
        )


def test_page_lists_the_columns() -> None:
    """docs/flows.md: every column once, in order, with what it is; `out_` and `in_` in one line."""
    page = (Path(__file__).parents[1] / "docs" / "flows.md").read_text()
    found = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 5:
            for name in cells[0].replace("`", "").split(", "):
                found[name] = cells[1:]
    want = {}
    for c in (*SCHEMA, *APP_SCHEMA):
        unknown = "None" if c.dtype == "text" else "" if c.absent is None else str(c.absent)
        want[c.name] = [c.dtype, c.unit, c.doc, unknown]
    assert found == want
    assert list(found) == list(want)


def test_no_rows_no_names() -> None:
    apps = AppRows()
    assert (len(apps), apps.names()) == (0, [])
    values, offsets, present = apps.column("http_url", 3)
    assert offsets is not None
    assert (bytes(values), offsets.tolist(), present.tolist()) == (b"", [0, 0, 0, 0], [0, 0, 0])
    values, offsets, present = apps.column("http_status", 2)
    assert (values.tolist(), offsets, present.tolist()) == ([-1, -1], None, [0, 0])


def test_each_message_is_reported_with_its_packets(tmp_path: Path) -> None:
    """Two requests in one segment, answered in two: the packets since the last record go with the first."""
    talk = Talk()
    talk.add("c", b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: b\r\nUser-Agent: x\r\n\r\n")
    talk.add("s", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    talk.add("s", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    found = rows(talk.write(tmp_path / "t.pcap"))
    decoded = [r for r in found if r["reason"] == "decoded"]
    asked = [
        {"http_url": f"/{n}", "http_host": h, "http_referer": "", "http_ua": u}
        for n, h, u in ((1, "a", ""), (2, "b", "x"))
    ]
    assert [fields(r) for r in decoded] == [
        *asked,
        {**asked[0], "http_status": 200},
        {**asked[1], "http_status": 404},
    ]
    assert [(r["sport"], r["out_pkts"], r["appl_latency_ms"]) for r in decoded] == [
        (40000, 3, -1), (40000, 0, -1), (80, 2, 10), (80, 1, 20),
    ]  # fmt: skip
    assert sum(r["out_pkts"] for r in found) == len(talk.packets)
    assert sum(r["out_bytes"] for r in found) == sum(len(p[IP]) for p in talk.packets)


def test_bidirectional_flows_report_messages_too(tmp_path: Path) -> None:
    talk = Talk(dport=8080)
    talk.add("c", b"GET / HTTP/1.0\r\n\r\n")
    talk.add("s", b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    talk.add("s", flags="FA")
    path = talk.write(tmp_path / "t.pcap")
    found = rows(path, True, http_ports=[8080])
    assert [(r["sport"], r["out_pkts"], r["in_pkts"], r.get("http_status")) for r in found] == [
        (40000, 3, 1, None), (40000, 0, 2, 200),
    ]  # fmt: skip
    assert [(r["app"], r.get("http_url")) for r in rows(path, True)] == [(0, None)]


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    talk = Talk()
    talk.add("c", b"GET / HTTP/1.1\r\nUser-Agent: caf\xe9/\xc3\xa9\r\nHost: " + b"\xff" * 400 + b"\r\n\r\n")
    row = rows(talk.write(tmp_path / "t.pcap"))[0]
    assert row["http_ua"] == "caf\ufffd/é"
    assert row["http_host"] == "\ufffd" * 128


def test_cut_packets(tmp_path: Path) -> None:
    """Of a packet that the snap length cut, a file shows what there is."""
    query = (
        Ether()
        / IP(src="10.0.0.1", dst="10.0.0.2")
        / UDP(sport=999, dport=53)
        / DNS(qd=DNSQR(qname="x.example"))
    )
    whole = bytes(query)
    path = tmp_path / "t.pcap"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(head + struct.pack("<4I", 1, 0, len(whole) - 3, len(whole)) + whole[:-3])
    (row,) = rows(path)
    assert (row["app"], fields(row), row["out_bytes"]) == (1, {}, len(whole) - 14)


def test_arrow(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    for name in ("dhcp.pcap", "app-http.pcap", "app-tls.pcap", "app-radius.pcap"):
        chunks = list(flows(CAPTURES / name, decode=True, chunk_rows=7))
        table = pyarrow.concat_tables(pyarrow.table(chunk) for chunk in chunks)
        table.validate(full=True)
        for column in APP_NAMES:
            want = [v for chunk in chunks for v in chunk[column].tolist()]
            assert table[column].to_pylist() == [None if v == -1 else v for v in want], column


def test_kprobe_puts_fragments_together(tmp_path: Path) -> None:
    """IPv4 and IPv6 alike, with the ports of the datagram; other extension headers stay what they are."""
    reply = DNS(
        qr=1,
        qd=DNSQR(qname="big.example"),
        an=[DNSRR(rrname="big.example", rdata=f"10.0.{i}.1") for i in range(120)],
    )
    v4 = (IP(src="10.0.0.2", dst="10.0.0.1", id=7) / UDP(sport=53, dport=999) / reply).fragment(600)
    v6 = (
        IPv6(src="2001:db8::2", dst="2001:db8::1")
        / IPv6ExtHdrFragment(id=5)
        / UDP(sport=53, dport=998)
        / reply
    )
    options = (
        IPv6(src="2001:db8::2", dst="2001:db8::1") / IPv6ExtHdrDestOpt() / UDP(sport=53, dport=997) / reply
    )
    sent = {999: v4, 998: fragment6(v6, 1280)}
    path = tmp_path / "f.pcap"
    wrpcap(str(path), [Ether() / p for p in [*sent[999], *sent[998], options]])
    found, stats = kprobe_rows(path)
    assert [(r["proto"], r["dport"]) for r in found] == [(17, 999), (17, 998), (60, 0)]
    for row in found[:2]:
        pieces = sent[row["dport"]]
        assert row["out_pkts"] == row["fragments"] == len(pieces) > 1
        assert row["out_bytes"] == sum(len(p) for p in pieces)
        assert row["app_fields"]["dns_query"] == "big.example"
    assert stats["fragments_lost"] == 0


def test_more_messages_at_once_than_there_is_room_for(tmp_path: Path) -> None:
    """A packet closes the gap before thousands of answers: what is not reported is counted."""
    talk = Talk()
    for _ in range(3):
        talk.add("c", b"GET / HTTP/1.1\r\n\r\n" * 1000)
        talk.add("s", b"HTTP/1.1 204 No\r\n\r\n" * 1000)
    for _ in range(4):
        talk.add("c", b"GET / HTTP/1.1\r\n\r\n" * 2000)
    late = len(talk.packets)
    for _ in range(4):
        talk.add("s", b"HTTP/1.1 204 No\r\n\r\n" * 2000)
    # the first of these comes last
    talk.packets.append(talk.packets.pop(late))
    run = flows(talk.write(tmp_path / "t.pcap"), decode=True, chunk_rows=500)
    chunks = list(run)
    stats = run.stats()
    reported = sum(int((chunk["http_url"] == "/").sum()) for chunk in chunks)
    assert stats["decoders"]["unreported"] > 0
    assert reported + stats["decoders"]["unreported"] == stats["decoders"]["http"]["messages"] > 15000
    packets = sum(int(chunk["out_pkts"].sum() + chunk["in_pkts"].sum()) for chunk in chunks)
    assert packets == stats["packets"] == len(talk.packets)


def test_data_frames() -> None:
    (chunk,) = flows(CAPTURES / "dhcp.pcap", decode=["dhcp"])
    frame = chunk.to_pandas()
    assert list(frame.columns) == list(chunk)
    known = frame["dhcp_yi_addr"].notna().tolist()
    assert known == [v is not None for v in chunk["dhcp_yi_addr"]]
    assert frame["dhcp_yi_addr"].dropna().tolist() == [v for v in chunk["dhcp_yi_addr"] if v is not None]
    assert frame["http_status"].isna().all()
    assert frame["dhcp_op"].fillna(-1).tolist() == chunk["dhcp_op"].tolist()
    other = chunk.to_polars()
    assert other.columns == list(chunk)
    for name in ("dhcp_yi_addr", "dhcp_hostname"):
        assert other[name].to_list() == chunk[name].tolist()
    assert other["dhcp_op"].fill_null(-1).to_list() == chunk["dhcp_op"].tolist()
    assert other["http_status"].null_count() == chunk.rows


def test_translation_comes_before_everything_else(tmp_path: Path) -> None:
    """Key, classification and decoders see the new addresses and ports; each end is looked up once."""
    talk = Talk(dport=8080)
    talk.add("c", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    talk.add("s", b"HTTP/1.1 204 No\r\n\r\n")
    path = talk.write(tmp_path / "t.pcap")
    client, server, other = (socket.inet_aton(a) for a in ("10.0.0.1", "10.0.0.2", "192.0.2.9"))
    found, _ = kprobe_rows(path, translate=[(server, 8080, other, 80), (other, None, client, None)])
    assert {(r["src"], r["sport"]) for r in found} == {("10.0.0.1", 40000), ("192.0.2.9", 80)}
    assert [r["app_fields"].get("http_status") for r in found if r["app_fields"]] == [None, 204]
    found, _ = kprobe_rows(path, translate=[(server, 81, other, 80), (client, None, other, None)])
    assert {(r["src"], r["sport"]) for r in found} == {("192.0.2.9", 40000), ("10.0.0.2", 8080)}
    assert not any(r["app_fields"] for r in found)


def test_sampled_out_flows_are_decoded_for_their_reverse(tmp_path: Path) -> None:
    """Spec 3.10: what is not selected is in no record, but its answers know the question."""
    talk = Talk()
    talk.add("c", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    talk.add("s", b"HTTP/1.1 204 No\r\n\r\n")
    path = talk.write(tmp_path / "t.pcap")
    seen = set()
    for seed in range(40):
        found, stats = kprobe_rows(path, seed=seed, sample=2)
        ports = frozenset(r["sport"] for r in found)
        seen.add(ports)
        assert sum(r["out_pkts"] for r in found) + stats["ignored"] == len(talk.packets)
        messages = [r["app_fields"] for r in found if r["app_fields"]]
        assert len(messages) == len(ports)
        if ports == {80}:
            assert messages[0]["http_url"] == "/" and messages[0]["http_status"] == 204
    assert seen == {frozenset(), frozenset({80}), frozenset({40000}), frozenset({80, 40000})}


@pytest.mark.parametrize("kind", [*generate.FRAMES, *sorted(p.name for p in CAPTURES.glob("*.pcap"))])
def test_plain_packets_are_seen_as_decoded_ones(tmp_path: Path, kind: str) -> None:
    """With host networks every packet goes through the decoder; without, most do not. Both see the same."""
    path = CAPTURES / kind
    if kind in generate.FRAMES:
        path = tmp_path / "f.pcap"
        path.write_bytes(generate.frames_file(kind))
    for bidirectional in (False, True):
        decoded = rows(path, bidirectional, seed=1, hosts="203.0.113.0/24")
        assert rows(path, bidirectional, seed=1) == decoded


def test_chunks_survive_pickle_and_copies() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    (chunk,) = flows(CAPTURES / "demo.pcap", decode=True, seed=1)
    wanted = pyarrow.table(chunk)
    for again in (pickle.loads(pickle.dumps(chunk)), copy.deepcopy(chunk), copy.copy(chunk)):
        assert pyarrow.table(again).equals(wanted)
        assert again["http_url"].tolist() == chunk["http_url"].tolist()
    assert len(pickle.loads(pickle.dumps(AppRows()))) == 0


def test_a_pickle_that_lies_is_refused() -> None:
    (chunk,) = flows(CAPTURES / "demo.pcap", decode=True, seed=1)
    restore, (data,) = chunk._apps.__reduce__()
    assert restore(data).__reduce__() == (restore, (data,))
    long_text = data[:76] + b"\xff\xff" + data[78:]
    for bad in (data[:-8], data[:40], b"\0" * 16, data[:4] + bytes(4) + data[8:], long_text):
        with pytest.raises(ValueError, match="malformed"):
            restore(bad)

"""DNS, DHCP and RADIUS records against dnspython, scapy, tshark and the worked values."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from app_feed import CAPTURES, DHCP, DNS, MS, RADIUS, SHARED, address, feed_datagrams, packets, tshark
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP
from scapy.layers.dhcp import DHCP as DhcpOptions
from scapy.layers.radius import Radius, RadiusAttribute

from netprobe._core.app_datagram import Datagrams
from netprobe._core.wire import dhcp_kprobe, dns_kprobe, radius

SECOND = 10**9
CLIENT, SERVER = b"\x0a\0\0\1", b"\x0a\0\0\2"


class Talk:
    """One client port and one server port."""

    def __init__(self, app: int, port: int, **options: Any) -> None:
        self.app, self.port, self.d, self.now = app, port, Datagrams(**options), 10**18

    def ask(self, data: bytes, after: int = 0) -> Any:
        self.now += after
        return self.d.feed(self.app, CLIENT, 40000, SERVER, self.port, data, self.now)

    def answer(self, data: bytes, after: int = 0) -> Any:
        self.now += after
        return self.d.feed(self.app, SERVER, self.port, CLIENT, 40000, data, self.now)


# --- DNS ------------------------------------------------------------------------------------------

label = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=12)
name = st.lists(label, min_size=1, max_size=5).map(".".join)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
rdata = st.one_of(
    st.tuples(st.just("A"), ipv4),
    st.tuples(st.just("AAAA"), ipv6),
    st.tuples(st.sampled_from(["NS", "CNAME", "PTR"]), name.map(lambda n: n + ".")),
    st.tuples(st.just("MX"), name.map(lambda n: f"10 {n}.")),
    st.tuples(st.just("TXT"), st.lists(st.text("abc ;/xyz", max_size=20), min_size=1, max_size=3).map(
        lambda parts: " ".join(f'"{p}"' for p in parts))),
    st.tuples(st.just("SOA"), name.map(lambda n: f"{n}. admin.{n}. 1 2 3 4 5")),
    st.tuples(st.just("SRV"), name.map(lambda n: f"1 2 3 {n}.")),
    st.tuples(st.just("CAA"), st.just('0 issue "ca.example"')),
)  # fmt: skip


def item(kind: str, value: Any) -> str:
    """One answer as spec 6.2 shows it, from dnspython's record."""
    if kind == "A":
        return f"{value.address}/A"
    if kind == "AAAA":
        ip = ipaddress.IPv6Address(value.address)
        return f"::ffff:{ip.ipv4_mapped}/AAAA" if ip.ipv4_mapped else f"{ip}/AAAA"
    if kind in ("NS", "CNAME", "PTR"):
        return f"{value.target.to_text(omit_final_dot=True)}/{kind}"
    if kind == "MX":
        return f"{value.exchange.to_text(omit_final_dot=True)}/MX"
    if kind == "TXT":
        return b"".join(value.strings).decode() + "/TXT"
    return ""


@settings(max_examples=250, deadline=None)
@given(
    name,
    st.lists(st.tuples(name, rdata), max_size=8),
    st.integers(0, 15),
    st.booleans(),
    st.integers(0, 65535),
)
def test_any_reply(
    qname: str, records: list[tuple[str, tuple[str, str]]], rcode: int, edns: bool, ident: int
) -> None:
    query = dns.message.make_query(qname + ".", "ANY", use_edns=edns)
    query.id = ident
    reply = dns.message.make_response(query)
    reply.set_rcode(rcode)
    shown, addresses = [], []
    for owner, (kind, text) in records:
        rrset = dns.rrset.from_text(owner + ".", 300, "IN", kind, text)
        reply.answer.append(rrset)
        shown.append(item(kind, rrset[0]))
        if kind in ("A", "AAAA"):
            addresses.append((address(rrset[0].address), 300))
        reply.authority.append(dns.rrset.from_text(owner + ".", 60, "IN", kind, text))
    wire = reply.to_wire()
    got = dns_kprobe.parse(wire)
    assert (got["status"], got["name"].decode(), got["qtype"], got["rcode"]) == ("ok", qname, 255, rcode)
    assert got["text"].decode() == ";".join(shown)[:384]
    assert got["addresses"] == addresses
    assert got["answers"] == len(records)

    talk = Talk(DNS, 53)
    asked = talk.ask(query.to_wire())
    assert asked == {"app": "dns", "ts": talk.now, "name": qname.encode(), "type": 255}
    answered = talk.answer(wire, 12 * MS + 999_999)
    assert (answered["ms"], answered["ns"]) == (12, 12_999_999)
    assert (answered["rcode"], answered["answers"].decode()) == (rcode, ";".join(shown)[:384])
    # cut anywhere it is dropped whole
    for n in range(0, len(wire), 7):
        assert dns_kprobe.parse(wire[:n])["status"] != "ok"


def test_dns_latency() -> None:
    talk = Talk(DNS, 53)
    query = dns.message.make_query("a.example.", "A")
    reply = dns.message.make_response(query)
    # no query seen, then one at the same moment, then a slow one, then one too late
    assert talk.answer(reply.to_wire())["ms"] == 0
    talk.ask(query.to_wire())
    assert talk.answer(reply.to_wire())["ms"] == 0
    talk.ask(query.to_wire())
    assert talk.answer(reply.to_wire(), 45 * SECOND)["ms"] == 45_000
    assert talk.answer(reply.to_wire())["ms"] == 0
    talk.ask(query.to_wire())
    assert talk.answer(reply.to_wire(), 61 * SECOND)["ms"] == 0
    talk.ask(query.to_wire())
    assert talk.answer(reply.to_wire(), -MS)["ms"] == 0
    assert talk.d.counters()["unmatched"][DNS] == 3
    # a minute to the nanosecond is in time
    talk.ask(query.to_wire())
    assert talk.answer(reply.to_wire(), 60 * SECOND)["ms"] == 60_000
    talk.ask(query.to_wire())
    assert talk.answer(reply.to_wire(), 60 * SECOND + 1)["ms"] == 0
    assert talk.d.counters()["unmatched"][DNS] == 4
    # the same id of somebody else is another query
    talk.ask(query.to_wire())
    other = talk.d.feed(DNS, SERVER, 53, CLIENT, 40001, reply.to_wire(), talk.now + 5 * MS)
    assert other["ms"] == 0
    assert talk.answer(reply.to_wire(), 9 * MS)["ms"] == 9


def test_dns_special_cases() -> None:
    talk = Talk(DNS, 53)
    assert talk.ask(b"\0\1\1\0" + bytes(8)) is None
    assert talk.answer(b"\0\1\x80\0" + bytes(8)) is None
    assert talk.ask(b"\0\1\1\0") is False
    # of two questions the last one
    two = dns.message.make_query("one.example.", "A")
    two.question.append(dns.rrset.RRset(dns.name.from_text("Two.Other."), 1, dns.rdatatype.AAAA))
    assert (talk.ask(two.to_wire())["name"], talk.ask(two.to_wire())["type"]) == (b"Two.Other", 28)
    # the root, and a text with a NUL, are empty
    assert talk.ask(dns.message.make_query(".", "NS").to_wire())["name"] == b""
    nul = dns.message.make_query("a\\000b.example.", "A")
    assert talk.ask(nul.to_wire())["name"] == b""
    reply = dns.message.make_response(dns.message.make_query("a.example.", "TXT"))
    reply.answer.append(dns.rrset.from_text("a.example.", 1, "IN", "TXT", '"a\\000b"'))
    assert talk.answer(reply.to_wire())["answers"] == b""
    # bytes behind the message are nobody's
    assert talk.ask(dns.message.make_query("b.example.", "A").to_wire() + b"trailing")["name"] == b"b.example"
    assert talk.d.counters()["malformed"][DNS] == 1


def message(questions: bytes = b"", answers: bytes = b"", n_questions: int = 1, n_answers: int = 0) -> bytes:
    return b"\0\1\x81\x80" + bytes([0, n_questions, 0, n_answers, 0, 0, 0, 0]) + questions + answers


def record(kind: int, data: bytes, owner: bytes = b"\0") -> bytes:
    return owner + kind.to_bytes(2, "big") + b"\0\1" + bytes(4) + len(data).to_bytes(2, "big") + data


@pytest.mark.parametrize(
    ("wire", "status", "text"),
    [
        (message(b"\1a\0\0\1\0\1"), "ok", b""),
        (message(b"\1a\0\0\1\0"), "bad", b""),
        (message(b"\1\xff\0\0\1\0\1"), "bad", b""),  # not UTF-8
        (message(b"\x40\0\0\1\0\1"), "bad", b""),
        (message(b"\xc0\x0c\0\1\0\1"), "ok", b""),  # a pointer to itself: an empty name
        (message(b"\xc0\x40\0\1\0\1"), "bad", b""),  # a pointer past the end: incomplete
        (message(b"\1a\0\0\1\0\1", record(1, b"\1\2\3"), n_answers=1), "bad", b""),
        (message(b"\1a\0\0\1\0\1", record(28, bytes(4)), n_answers=1), "bad", b""),
        (message(b"\1a\0\0\1\0\1", record(1, b"\1\2\3\4"), n_answers=2), "bad", b""),
        (message(b"\1a\0\0\1\0\1", record(16, b""), n_answers=1), "bad", b""),
        (message(b"\1a\0\0\1\0\1", record(16, b"\5abc"), n_answers=1), "bad", b""),
        (message(b"\1a\0\0\1\0\1", record(16, b"\3abc\1\xff\3def"), n_answers=1), "ok", b"abc/TXT"),
        (message(b"\1a\0\0\1\0\1", record(16, b"\3abc\2d"), n_answers=1), "ok", b"abc/TXT"),
        (message(b"\1a\0\0\1\0\1", record(6, b"\0\0" + bytes(19)), n_answers=1), "bad", b""),
        (message(b"\1a\0\0\1\0\1", record(6, b"\0\0" + bytes(20)) + record(1, b"\1\2\3\4"), n_answers=2),
         "ok", b";1.2.3.4/A"),
        (message(b"\1a\0\0\1\0\1", record(2, b"\1b\xc0\x0c") + record(15, b"\0\1\xc0\x0c"), n_answers=2),
         "ok", b"b.a/NS;a/MX"),
        (message(b"\1a\0\0\1\0\1", record(2, b"\1b\xc0\x0d"), n_answers=1), "bad", b""),
    ],
)  # fmt: skip
def test_dns_rules(wire: bytes, status: str, text: bytes) -> None:
    got = dns_kprobe.parse(wire)
    if b"\xc0\x0d" in wire:
        # behind the pointer stands 'a' as a length: 0x61 is none, so the name is empty
        assert (got["status"], got["text"]) == ("ok", b"/NS")
        return
    assert got["status"] == status
    if status == "ok":
        assert got["text"] == text


def test_dns_pointer_depth() -> None:
    """32 pointers are followed, 33 are not (spec 6.2)."""
    for jumps, seen in ((32, b"a"), (33, b"")):
        chain = b"\1a\0\0\1\0\1"
        at = 12
        owners = b""
        for _ in range(jumps - 1):
            where = 12 + len(chain) + len(owners)
            owners += (0xC000 | at).to_bytes(2, "big") + b"\0\1\0\1"
            at = where
        last = (0xC000 | at).to_bytes(2, "big") + b"\0\1\0\1"
        got = dns_kprobe.parse(message(chain + owners + last, n_questions=1 + jumps))
        assert (got["status"], got["name"]) == ("ok", seen), jumps


@given(st.ip_addresses())
def test_address_text(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    expected = str(ip)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        expected = f"::ffff:{ip.ipv4_mapped}"
    assert dns_kprobe.address_text(ip.packed) == expected


@given(st.lists(st.sampled_from([0, 0, 0, 1, 0x10, 0x100, 0xFFFF, 0xABCD]), min_size=8, max_size=8))
def test_address_zeros(groups: list[int]) -> None:
    ip = ipaddress.IPv6Address(b"".join(g.to_bytes(2, "big") for g in groups))
    expected = f"::ffff:{ip.ipv4_mapped}" if ip.ipv4_mapped else str(ip)
    assert dns_kprobe.address_text(ip.packed) == expected


@settings(max_examples=500)
@given(
    st.one_of(st.binary(max_size=12), st.text(max_size=6).map(lambda t: t.encode("utf-8", "surrogatepass")))
)
def test_utf8_as_python_judges(data: bytes) -> None:
    try:
        data.decode()
        good = True
    except UnicodeDecodeError:
        good = False
    assert dns_kprobe.utf8(data)[0] == good


@given(st.text(min_size=100, max_size=400))
def test_cut_at_a_character(text: str) -> None:
    data = text.encode("utf-8", "ignore")
    expected = data[:384].decode("utf-8", "ignore").encode() if len(data) > 384 else data
    assert dns_kprobe.utf8(data)[1] == expected


def test_dns_capture_against_tshark() -> None:
    path = CAPTURES / "dns-udp.pcap"
    rows = tshark(
        path, "dns.flags.response", "dns.qry.name", "dns.qry.type", "dns.flags.rcode", "dns.time",
        "dns.a", "dns.aaaa", "dns.count.add_rr", where="udp.port == 53",
    )  # fmt: skip
    got = feed_datagrams(DNS, path, [53])
    assert len(rows) == len(got) > 40
    for row, mine in zip(rows, got, strict=True):
        assert (mine["name"].decode(), mine["type"]) == (row[1], int(row[2])), row
        if row[0] in ("1", "True"):
            assert mine["rcode"] == int(row[3])
            assert mine["ms"] == int(float(row[4] or 0) * 1000), row
            items = mine["answers"].decode().split(";")
            # tshark's lists go on with the additional records
            for kind, listed in (("/A", row[5]), ("/AAAA", row[6])):
                shown = [i.removesuffix(kind) for i in items if i.endswith(kind)]
                assert shown == [a for a in listed.split(",") if a][: len(shown)]
                if row[7] == "0":
                    assert len(shown) == len([a for a in listed.split(",") if a])
        else:
            assert "ms" not in mine


# --- DHCP -----------------------------------------------------------------------------------------


def boot(
    op: int, kind: str, *options: Any, xid: int = 7, mac: bytes = b"\0\x1c\x42\x60\xbb\x37", **header: Any
) -> bytes:
    head = BOOTP(op=op, xid=xid, chaddr=mac, **header)
    return bytes(head / DhcpOptions(options=[("message-type", kind), *options, "end"]))


def test_dhcp_fields() -> None:
    talk = Talk(DHCP, 67)
    asked = talk.ask(boot(1, "request", ("hostname", b"laptop")))
    zero = bytes(4)
    assert asked == {
        "app": "dhcp", "ts": talk.now, "op": 1, "type": 3, "client": zero, "your": zero, "server": zero,
        "hardware": b"00:1c:42:60:bb:37", "host": b"laptop",
    }  # fmt: skip
    answer = boot(
        2,
        "ack",
        ("lease_time", 1800),
        ("domain", b"example.org"),
        yiaddr="10.1.2.3",
        siaddr="10.1.2.1",
        ciaddr="1.2.3.4",
    )
    got = talk.answer(answer, 7 * MS)
    assert (got["op"], got["type"], got["lease"], got["domain"], got["ms"]) == (2, 5, 1800, b"example.org", 7)
    assert [got[k] for k in ("client", "your", "server")] == [
        address(a) for a in ("1.2.3.4", "10.1.2.3", "10.1.2.1")
    ]
    assert "host" not in got
    # answered once; and never by somebody else's
    assert "ms" not in talk.answer(answer)
    talk.ask(boot(1, "request"))
    assert "ms" not in talk.answer(boot(2, "ack", xid=8))
    assert "ms" not in talk.answer(boot(2, "ack", mac=b"\0\x1c\x42\x60\xbb\x38"))
    assert talk.answer(boot(2, "ack"), 30 * SECOND)["ms"] == 20_000
    talk.ask(boot(1, "request"))
    assert talk.answer(boot(2, "ack"), 100)["ms"] == 1
    talk.ask(boot(1, "request"))
    talk.now += 61 * SECOND
    talk.d.expire(talk.now)
    assert talk.d.counters()["expired"] == 1
    assert "ms" not in talk.answer(boot(2, "ack"))


def test_dhcp_rules() -> None:
    whole = boot(1, "discover", ("hostname", b"h"))
    assert dhcp_kprobe.parse(whole)["hostname"] == b"h"
    assert dhcp_kprobe.parse(whole[:239])["status"] == "short"
    assert dhcp_kprobe.parse(whole[:236] + b"\0\0\0\0" + whole[240:])["status"] == "no magic"
    for n in range(241, len(whole) - 1):
        assert (dhcp_kprobe.parse(whole[:n])["status"] == "ok") == (n in (243, 246)), n
    # the end option does not end, a later option counts, what is no UTF-8 or holds a NUL does not
    assert dhcp_kprobe.parse(whole + b"\0\0\x0c\2xy")["hostname"] == b"xy"
    assert dhcp_kprobe.parse(whole + b"\x0c\2\xff\xfe\x0c\2a\0")["hostname"] == b"h"
    assert dhcp_kprobe.parse(whole + b"\x0c\5x")["status"] == "bad option"
    # hardware addresses of any announced length; names in the fixed fields (upstream D19)
    for hlen in (0, 1, 16, 17, 255):
        odd = whole[:2] + bytes([hlen]) + whole[3:44] + b"full" * 48 + whole[236:]
        assert dhcp_kprobe.parse(odd)["status"] == "ok"
        assert Talk(DHCP, 67).ask(odd)["hardware"] == b""


def test_dhcp_capture_against_tshark() -> None:
    path = CAPTURES / "dhcp.pcap"
    rows = tshark(
        path, "dhcp.type", "dhcp.option.dhcp", "dhcp.ip.your", "dhcp.hw.mac_addr", "dhcp.option.hostname",
        "dhcp.option.ip_address_lease_time", "frame.time_epoch", where="dhcp",
    )  # fmt: skip
    got = feed_datagrams(DHCP, path, [67])
    assert len(rows) == len(got) >= 4
    for row, mine in zip(rows, got, strict=True):
        assert (mine["op"], mine["type"], mine["your"]) == (int(row[0]), int(row[1]), address(row[2]))
        assert mine["hardware"].decode() == row[3].split(",")[0]
        assert mine.get("host", b"").decode() == row[4]
        assert mine.get("lease", 0) == int(row[5] or 0)
        assert ("ms" in mine) == (mine["op"] == 2)


# --- RADIUS ---------------------------------------------------------------------------------------


def packet(code: int, ident: int, *attributes: tuple[int, bytes]) -> bytes:
    made = [bytes(RadiusAttribute(type=t, len=2 + len(v), value=v)) for t, v in attributes]
    body = b"".join(made)
    head = bytes(Radius(code=code, id=ident, len=20 + len(body), authenticator=b"a" * 16))
    return head[:20] + body


attribute = st.one_of(
    st.tuples(st.sampled_from([1, 44, 2, 4, 26, 80]), st.binary(max_size=30)),
    st.tuples(st.sampled_from([1, 44]), st.text(max_size=20).map(lambda t: t.encode("utf-8", "ignore"))),
    st.tuples(st.sampled_from([6, 7, 8, 9, 10, 40]), st.binary(min_size=4, max_size=4)),
    st.tuples(st.sampled_from([6, 7, 8, 9, 40]), st.binary(max_size=5)),
)


@settings(max_examples=300)
@given(st.integers(0, 255), st.integers(0, 255), st.lists(attribute, max_size=8))
def test_any_radius(code: int, ident: int, attributes: list[tuple[int, bytes]]) -> None:
    def text(kind: int) -> bytes | None:
        found = None
        for t, v in attributes:
            if t == kind and b"\0" not in v:
                try:
                    v.decode()
                except UnicodeDecodeError:
                    continue
                found = v
        return found

    def number(kind: int) -> int | None:
        found = [int.from_bytes(v, "big") for t, v in attributes if t == kind and len(v) == 4]
        return found[-1] if found else None

    def addr(kind: int) -> bytes | None:
        found = number(kind)
        return None if found is None else found.to_bytes(4, "big")

    wire = packet(code, ident, *attributes)
    assert radius.parse(wire) == {
        "status": "ok", "code": code, "id": ident, "user": text(1), "session": text(44), "service": number(6),
        "protocol": number(7), "address": addr(8), "mask": addr(9), "acct_status": number(40),
    }  # fmt: skip
    borders = {20}
    for _, v in attributes:
        borders.add(max(borders) + 2 + len(v))
    for n in range(len(wire)):
        assert radius.parse(wire[:n])["status"] == (
            "short" if n < 20 else "ok" if n in borders else "bad attribute"
        )


def test_radius_record() -> None:
    talk = Talk(RADIUS, 1813)
    four = (7).to_bytes(4, "big")
    asked = talk.ask(
        packet(4, 9, (1, b"bob"), (40, b"\0\0\0\1"), (44, b"S1"), (6, four), (7, four), (8, b"\x0a\1\2\3"))
    )
    assert asked == {
        "app": "radius", "ts": talk.now, "code": 4, "user": b"bob", "status": 1, "session": b"S1",
        "service": 7, "protocol": 7, "address": b"\x0a\1\2\3",
    }  # fmt: skip
    assert talk.answer(packet(5, 9), 3 * MS)["ms"] == 3
    # unknown codes and services become 0; a length of 0 or 1 drops the message
    assert talk.ask(packet(12, 1, (6, b"\0\0\0\x0c")))["code"] == 0
    assert talk.ask(packet(12, 1, (6, b"\0\0\0\x0c")))["service"] == 0
    for length in (0, 1):
        assert talk.ask(packet(1, 1) + bytes([1, length])) is False


def test_radius_latency() -> None:
    talk = Talk(RADIUS, 1812)
    talk.ask(packet(1, 5), 0)
    assert "ms" not in talk.answer(packet(2, 6))
    # an answer comes from the other end
    assert "ms" not in talk.ask(packet(2, 5))
    talk.ask(packet(1, 5), 10 * MS)
    assert talk.answer(packet(11, 5), 25 * SECOND)["ms"] == 20_000
    assert "ms" not in talk.answer(packet(2, 5))
    talk.ask(packet(1, 5), 10 * MS)
    talk.ask(packet(1, 5), 10 * MS)
    assert talk.answer(packet(3, 5), 4 * MS)["ms"] == 4
    talk.ask(packet(1, 5))
    assert "ms" not in talk.answer(packet(3, 5), 61 * SECOND)


def test_open_requests_are_bounded() -> None:
    talk = Talk(RADIUS, 1812, lg_open=8)
    for port in range(20_000):
        talk.d.feed(RADIUS, CLIENT, port, SERVER, 1812, packet(1, 1), talk.now)
    counted = talk.d.counters()
    assert counted["open"] <= 256
    assert counted["open"] + counted["evicted"] == 20_000


def test_radius_capture_against_tshark() -> None:
    path = CAPTURES / "app-radius.pcap"
    rows = tshark(
        path, "radius.code", "radius.User_Name", "radius.Service_Type", "radius.Framed-IP-Address",
        "radius.Framed_IP_Netmask", "radius.Framed_Protocol", "radius.Acct_Session_Id",
        "radius.Acct_Status_Type", "radius.time", where="radius",
    )  # fmt: skip
    got = feed_datagrams(RADIUS, path, [1812, 1813])
    assert len(rows) == len(got) == 16
    for row, mine in zip(rows, got, strict=True):
        assert mine["code"] == int(row[0])
        assert mine.get("user", b"").decode() == row[1]
        assert mine.get("service", "") == (int(row[2]) if row[2] else "")
        assert mine.get("address") == (address(row[3]) if row[3] else None)
        assert mine.get("mask") == (address(row[4]) if row[4] else None)
        assert mine.get("protocol", "") == (int(row[5]) if row[5] else "")
        assert mine.get("session", b"").decode() == row[6]
        assert mine.get("status", "") == (int(row[7]) if row[7] else "")
        assert mine.get("ns") == (round(float(row[8]) * 10**9) if row[8] else None)
    assert sum("ms" in r for r in got) == 8


# --- worked values --------------------------------------------------------------------------------

KPROBE = SHARED / "pcap" / "kprobe"
shared = pytest.mark.skipif(not KPROBE.is_dir(), reason="shared data absent: no kprobe captures")


def worked(app: int, file: str, ports: list[int]) -> list[Any]:
    path = KPROBE / file
    if not path.exists():
        pytest.skip(f"{file} absent")
    return feed_datagrams(app, path, ports)


@shared
def test_worked_dns() -> None:
    got = worked(DNS, "google.com-any.pcap", [53])
    assert (got[1]["name"], got[1]["type"], got[1]["rcode"], got[1]["ms"]) == (b"google.com", 255, 0, 44)
    assert got[1]["answers"] == (
        b"172.217.26.14/A;2404:6800:4004:809::200e/AAAA;alt2.aspmx.l.google.com/MX;ns2.google.com/NS;;"
        b"alt4.aspmx.l.google.com/MX;aspmx.l.google.com/MX;ns4.google.com/NS;alt3.aspmx.l.google.com/MX;"
        b"alt1.aspmx.l.google.com/MX;v=spf1 include:_spf.google.com ~all/TXT;;ns1.google.com/NS;;"
        b"ns3.google.com/NS"
    )
    second = next(p for p in packets(KPROBE / "google.com-any.pcap") if p.number == 2)
    mode = dns_kprobe.parse(second.payload)
    assert (mode["name"], mode["qr"], mode["opcode"], second.dst) == (b"google.com", True, 0, b"\x0a\0\0\x34")
    assert mode["addresses"] == [(address("172.217.26.14"), 299), (address("2404:6800:4004:809::200e"), 299)]


@shared
def test_worked_dhcp() -> None:
    one, two = worked(DHCP, "dhcpv4.pcap", [67])
    zero = bytes(4)
    assert [one[k] for k in ("op", "type", "client", "your", "server")] == [1, 3, zero, zero, zero]
    assert (one["hardware"], one["host"]) == (b"00:1c:42:60:bb:37", b"chdev")
    assert not {"domain", "lease", "ms"} & set(one)
    assert [two[k] for k in ("op", "type", "client", "your", "server")] == [
        2, 5, zero, address("10.211.55.16"), address("10.211.55.1"),
    ]  # fmt: skip
    assert (two["hardware"], two["host"], two["domain"]) == (b"00:1c:42:60:bb:37", b"chdev", b"localdomain")
    assert (two["lease"], two["ms"], two["ns"]) == (1800, 1, 1_634_000)


@shared
def test_worked_radius() -> None:
    start = worked(RADIUS, "radius-acct-start.pcap", [1812, 1813])
    assert [start[0][k] for k in ("code", "user", "status", "address")] == [4, b"bob", 1, address("10.1.2.3")]
    assert (start[1]["code"], start[1]["ms"], start[1]["ns"]) == (5, 1, 266_000)
    stop = worked(RADIUS, "radius-acct-stop.pcap", [1812, 1813])
    assert [stop[0][k] for k in ("code", "user", "status")] == [4, b"bob", 2]
    assert (stop[1]["code"], stop[1]["ms"]) == (5, 1)
    access = worked(RADIUS, "radius-auth-req.pcap", [1812, 1813])
    user, framed = b"John.McGuirk", address("255.255.255.254")
    assert [r["code"] for r in access] == [1, 11, 1, 2]
    assert [r.get("user") for r in access[:3]] == [user, None, user]
    assert [r["service"] for r in access] == [2, 2, 2, 2]
    assert [r.get("address") for r in access] == [None, framed, None, framed]
    assert [r.get("ms") for r in access] == [None, 2, None, 1]


@given(st.binary(max_size=300))
def test_parsers_take_anything(data: bytes) -> None:
    dns_kprobe.parse(data)
    dhcp_kprobe.parse(bytes(236) + b"\x63\x82\x53\x63" + data)
    radius.parse(data)


def test_captures_are_there() -> None:
    assert all(
        Path(CAPTURES / f"app-{n}.pcap").stat().st_size < 60_000
        for n in ("http", "tls", "radius", "postgres")
    )

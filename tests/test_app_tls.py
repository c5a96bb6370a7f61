"""TLS: names, versions and cipher suites of any pair of hellos, against OpenSSL's hellos and tshark."""

from __future__ import annotations

import contextlib
import itertools
import ssl
import struct
from typing import Any

import pytest
from app_feed import ACK, CAPTURES, FIN, MS, TLS, Connection, feed_capture, tshark
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe._core.app_stream import Streams
from netprobe._core.wire import tls

CIPHERS = [0x1301, 0x1302, 0xC02F, 0xC030, 0x002F]


def test_hello_without_the_handshake_of_tcp() -> None:
    """A hello is read where it is a side's first segment; kprobe wants the SYN."""
    hello = records(client_hello(b"example.org"), [])
    for syn_only in (False, True):
        streams = Streams(syn_only=syn_only)
        c = Connection(streams, server=443)
        c.send(0, hello[:9])
        c.send(0, hello[9:])
        c.send(1, records(server_hello(0x0303, 0x1301), []))
        assert [r.get("name") for r in streams.records] == ([] if syn_only else [b"example.org", None])
        assert [r.get("cipher") for r in streams.records] == ([] if syn_only else [None, 0x1301])
    streams = Streams()
    c = Connection(streams, server=443)
    c.send(0, b"\x17\3\3\0\x20" + bytes(32))
    c.send(0, hello)
    assert streams.records == []
    assert streams.counters()["no_syn"] == 1


def client_hello(name: bytes | None, more: int = 0) -> bytes:
    """OpenSSL's, for that server name; `more` bytes of protocol names make it longer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if more:
        context.set_alpn_protocols(["p" * 100] * (more // 101 + 1))
    sent = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name.decode() if name else None)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    data, message = sent.read(), b""
    while data:
        length = int.from_bytes(data[3:5], "big")
        message, data = message + data[5 : 5 + length], data[5 + length :]
    assert message[0] == 1
    return message


def server_hello(version: int, cipher: int, sid: bytes = b"") -> bytes:
    """RFC 5246 7.4.1.3."""
    body = struct.pack(">H32sB", version, b"r" * 32, len(sid)) + sid + struct.pack(">HB", cipher, 0)
    return b"\2" + len(body).to_bytes(3, "big") + body


def records(message: bytes, sizes: list[int], version: int = 0x0301, kind: int = 22) -> bytes:
    """Handshake bytes in records of these sizes, the rest in one more."""
    out = b""
    for size in [*sizes, 16000]:
        piece, message = message[:size], message[size:]
        if piece:
            out += struct.pack(">BHH", kind, version, len(piece)) + piece
    return out


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(borders)]


def talk(*turns: tuple[int, bytes]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    streams = Streams()
    c = Connection(streams, server=443).open()
    for side, data in turns:
        c.send(side, data, after=MS)
    return [
        {k: v for k, v in r.items() if k not in ("ts", "app")} for r in streams.records
    ], streams.counters()


names = st.from_regex(rb"[a-z]{1,20}(\.[a-z][a-z0-9]{1,20}){1,3}", fullmatch=True)
places = st.lists(st.integers(0, 9000), max_size=20)
sizes = st.lists(st.integers(1, 400), max_size=6)


@settings(max_examples=200, deadline=None)
@given(st.none() | names, st.integers(0, 5000), sizes, sizes, places, places, st.sampled_from(CIPHERS),
       st.sampled_from([0x0301, 0x0302, 0x0303]), st.binary(max_size=32))  # fmt: skip
def test_any_records_and_segments(
    name: bytes | None, more: int, client_sizes: list[int], server_sizes: list[int], client_cuts: list[int],
    server_cuts: list[int], cipher: int, version: int, sid: bytes,
) -> None:  # fmt: skip
    asks = records(client_hello(name, more), client_sizes)
    # a certificate longer than anything that is kept, in the same records
    certificate = b"\x0b" + (40_000).to_bytes(3, "big") + bytes(40_000)
    answers = records(server_hello(version, cipher, sid) + certificate, server_sizes, version)[:20_000]
    got, counted = talk(
        *[(0, p) for p in cut(asks, client_cuts)], *[(1, p) for p in cut(answers, server_cuts)]
    )
    expected: list[dict[str, Any]] = [] if name is None else [{"name": name, "port": 40000}]
    expected.append({"version": version, "cipher": cipher, "port": 443})
    assert got == expected
    assert counted["errors"][TLS] == counted["room"][TLS] == counted["lost"][TLS] == 0
    assert counted["buffered"] == 0


def test_hello_without_extensions() -> None:
    # RFC 5246 7.4.1.2: version, random, session, suites, compression, and the end
    body = struct.pack(">H32sB", 0x0301, b"r" * 32, 0) + struct.pack(">HHBB", 2, 0x2F, 1, 0)
    hello = b"\1" + len(body).to_bytes(3, "big") + body
    got, counted = talk((0, records(hello, [])), (1, records(server_hello(0x0301, 0x2F), [])))
    assert got == [{"version": 0x0301, "cipher": 0x2F, "port": 443}]
    assert counted["messages"][TLS] == 2


def test_first_host_name_counts() -> None:
    def extension(kind: int, data: bytes) -> bytes:
        return struct.pack(">HH", kind, len(data)) + data

    def sni(*entries: tuple[int, bytes]) -> bytes:
        listed = b"".join(struct.pack(">BH", t, len(n)) + n for t, n in entries)
        return extension(0, struct.pack(">H", len(listed)) + listed)

    def hello(*extensions: bytes) -> bytes:
        every = b"".join(extensions)
        return (
            b"\x03\x03"
            + bytes(32)
            + b"\0"
            + b"\0\x02\x13\x01"
            + b"\x01\0"
            + struct.pack(">H", len(every))
            + every
        )

    assert tls.client_hello(hello(sni((7, b"other"), (0, b"one"), (0, b"two")), sni((0, b"three")))) == (
        0x303,
        b"one",
    )
    assert tls.client_hello(hello(sni((7, b"other")))) == (0x303, None)
    assert tls.client_hello(hello(sni((7, b"x")), sni((0, b"late")))) == (0x303, None)
    assert tls.client_hello(hello(sni((0, b"a\0b")))) == (0x303, None)
    assert tls.client_hello(hello(sni((0, b"\xff")))) == (0x303, None)
    assert tls.client_hello(hello(sni((0, "ü.example".encode())))) == (0x303, "ü.example".encode())
    assert tls.client_hello(hello(extension(5, b"x"), sni((0, b"one")), extension(6, b""))) == (0x303, b"one")
    whole = hello(sni((0, b"one")))
    for n in range(len(whole)):
        # without the extension block's two bytes it is whole again
        assert (tls.client_hello(whole[:n]) is None) == (n != 2 + 32 + 1 + 4 + 2), n


@pytest.mark.parametrize("version", [0x0300, 0x0200, 0x0002])
def test_before_tls(version: int) -> None:
    """A record version below 3.1 is the server's version, and the end of the reading (spec 6.4)."""
    got, counted = talk(
        (0, records(client_hello(b"x"), [])), (1, records(server_hello(0x0300, 5), [], version))
    )
    assert got == [{"name": b"x", "port": 40000}, {"version": version, "port": 443}]
    assert counted["errors"][TLS] == 0


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x03\x01" + bytes(40),
        b"\x16\x04\0\0\1x",
        b"\x16\x03\x03\xff\xff",
        b"\x14\x03\x03\0\1\1",  # the change to encryption, and what comes behind it
        b"\x17\x03\x03\0\1x",
    ],
)
def test_something_else(data: bytes) -> None:
    got, counted = talk((0, data), (0, records(client_hello(b"x"), [])))
    assert got == []
    assert counted["errors"][TLS] == 1


def test_alerts_and_hello_requests_are_passed_over() -> None:
    alert = records(b"\1\x70", [], kind=21)
    got, _ = talk(
        (0, records(client_hello(b"x"), [])),
        (1, alert + records(b"\0\0\0\0" + server_hello(0x303, 47), [2, 3])),
    )
    assert got[1:] == [{"version": 0x303, "cipher": 47, "port": 443}]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 15_000), sizes, places)
def test_other_messages_before_the_hello(length: int, cuts: list[int], borders: list[int]) -> None:
    """Passed over without being kept, though their bytes look like hellos."""
    other = b"\x63" + length.to_bytes(3, "big") + b"\1\0\0\5" * (length // 4) + b"\1" * (length % 4)
    stream = records(other + client_hello(b"x.example"), [*cuts, 16000])
    got, counted = talk(*[(0, p) for p in cut(stream, borders)])
    assert [r["name"] for r in got] == [b"x.example"]
    assert counted["room"][TLS] == 0


def test_hello_is_bounded() -> None:
    assert talk((0, records(client_hello(b"x", 7500), [])))[1]["room"][TLS] == 0
    got, counted = talk(
        *[(0, p) for p in cut(records(client_hello(b"x", 9000), []), list(range(0, 9000, 500)))]
    )
    assert (got, counted["room"][TLS], counted["buffered"]) == ([], 1, 0)


def test_sides_are_apart() -> None:
    """Half a hello of one side is not disturbed by the other's records (upstream D9)."""
    ask, answer = records(client_hello(b"name.example"), []), records(server_hello(0x303, 47), [])
    got, _ = talk((0, ask[:50]), (1, answer[:20]), (0, ask[50:]), (1, answer[20:]))
    assert [r.get("name", r.get("cipher")) for r in got] == [b"name.example", 47]


def test_known_before_the_connection_ends() -> None:
    streams = Streams()
    c = Connection(streams, server=443).open()
    c.send(0, records(client_hello(b"x"), []), flags=FIN | ACK)
    assert [r["name"] for r in streams.records] == [b"x"]


def test_missing_bytes() -> None:
    streams = Streams()
    c = Connection(streams, server=443).open()
    hello = records(client_hello(b"x"), [])
    c.send(0, hello[:30])
    c.lose(0, 10)
    c.send(0, hello[40:], after=50 * MS)
    c.send(1, flags=ACK, after=50 * MS)
    assert streams.records == []
    assert streams.counters()["lost"][TLS] == 1


@given(st.binary(max_size=100))
def test_parsers_take_anything(data: bytes) -> None:
    tls.record(data)
    tls.client_hello(data)
    tls.server_hello(data)


def test_recorded_against_tshark() -> None:
    path = CAPTURES / "app-tls.pcap"
    streams = Streams()
    got = feed_capture(streams, path)
    rows = tshark(
        path, "frame.number", "tcp.stream", "tls.handshake.type", "tls.handshake.extensions_server_name",
        "tls.handshake.version", "tls.handshake.ciphersuite", where="tls.handshake.type in {1, 2}",
    )  # fmt: skip
    streams_seen: set[tuple[str, str]] = set()
    expected: list[tuple[Any, ...]] = []
    for number, stream, kinds, name, version, cipher in rows:
        kind = kinds.split(",")[0]
        if (stream, kind) in streams_seen:
            continue  # the second hello after a retry changes nothing
        streams_seen.add((stream, kind))
        if kind == "1":
            if name:
                expected.append((int(number), name.encode()))
        else:
            expected.append((int(number), int(version, 16), int(cipher.split(",")[0], 16)))
    assert len(expected) > 14
    mine = [(r["frame"], r["name"]) if "name" in r else (r["frame"], r["version"], r["cipher"]) for r in got]
    assert mine == expected
    counted = streams.counters()
    assert (counted["errors"][TLS], counted["lost"][TLS], counted["room"][TLS]) == (1, 0, 0)

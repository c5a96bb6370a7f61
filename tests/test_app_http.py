"""HTTP: requests and responses of any connection, however it was cut, against h11 and tshark."""

from __future__ import annotations

import itertools
from typing import Any

import h11
import pytest
from app_feed import ACK, CAPTURES, FIN, HTTP, MS, PSH, RST, SHARED, SYN, Connection, feed_capture, tshark
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe._core.app import classify
from netprobe._core.app_stream import Streams
from netprobe._core.wire import http

TEXTS = ("url", "host", "referer", "agent")


def plain(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """(server's?, status or None, the four texts) of each record."""
    return [(r["port"] != 40000, r.get("status"), *(r[t] for t in TEXTS)) for r in records]


def talk(*turns: tuple[int, bytes], close: bool = True) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """(side, bytes) turns on one connection, a segment each."""
    streams = Streams()
    c = Connection(streams).open()
    for side, data in turns:
        c.send(side, data)
    if close:
        c.close()
    streams.finish(c.now)
    return plain(streams.records), streams.counters()


# --- any conversation, against h11 ----------------------------------------------------------------

token = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_", min_size=1, max_size=12)
value = st.text("abc XYZ/;=.,()0123456789:", max_size=30).map(str.strip)
path = st.text("abcXYZ/?&=%.-_~0123456789", max_size=40).map(lambda t: "/" + t)
body = st.binary(max_size=200)


def chunked(data: bytes, sizes: list[int], trailer: bool) -> bytes:
    out, at = b"", 0
    for size in sizes:
        piece = data[at : at + size]
        if piece:
            out += b"%x;ext=1\r\n%s\r\n" % (len(piece), piece)
        at += len(piece)
    if data[at:]:
        out += b"%X\r\n%s\r\n" % (len(data) - at, data[at:])
    return out + b"0\r\n" + (b"Trailer-Field: yes\r\n" if trailer else b"") + b"\r\n"


@st.composite
def exchanges(draw: Any) -> list[tuple[bytes, bytes]]:
    """Requests and their responses as bytes; the last response may be one without a length."""
    out = []
    count = draw(st.integers(1, 6))
    for i in range(count):
        method = draw(st.sampled_from(["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "M-SEARCH"]))
        fields = [("Host", draw(value) or "h")]
        if draw(st.booleans()):
            fields.append(("Referer", draw(value)))
        if draw(st.booleans()):
            fields.append(("USER-AGENT", draw(value)))
        fields += draw(st.lists(st.tuples(token.map(lambda t: "X-" + t), value), max_size=3))
        data = draw(body) if method in ("POST", "PUT") else b""
        tail = data
        if data and draw(st.booleans()):
            fields.append(("Transfer-Encoding", draw(st.sampled_from(["chunked", "Chunked"]))))
            tail = chunked(data, draw(st.lists(st.integers(1, 50), max_size=4)), draw(st.booleans()))
        elif method in ("POST", "PUT"):
            fields.append(("content-length", str(len(data))))
        fields = draw(st.permutations(fields))
        head = f"{method} {draw(path)} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields) + "\r\n"
        request = head.encode() + tail

        status = draw(st.sampled_from([200, 200, 204, 304, 404, 500]))
        data = b"" if status in (204, 304) else draw(body)
        response = draw(
            st.sampled_from(
                [b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"]
            )
        )
        how = draw(st.sampled_from(["length", "chunked", "end" if i == count - 1 else "length"]))
        response += b"HTTP/1.1 %d Reason here\r\nServer: test\r\n" % status
        if status in (204, 304):
            response += b"\r\n"
        elif how == "length":
            response += b"Content-Length: %d\r\n\r\n" % len(data)
            response += b"" if method == "HEAD" else data
        elif how == "chunked":
            response += b"Transfer-Encoding: chunked\r\n\r\n"
            sizes = draw(st.lists(st.integers(1, 80), max_size=3))
            response += b"" if method == "HEAD" else chunked(data, sizes, draw(st.booleans()))
        else:
            response += b"\r\n" + (b"" if method == "HEAD" else data)
        out.append((request, response))
    return out


def by_h11(pairs: list[tuple[bytes, bytes]]) -> list[tuple[Any, ...]]:
    """What h11 says: (status, url, host, referer, agent) of each exchange."""
    out = []
    client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
    requests, responses = b"".join(q for q, _ in pairs), b"".join(r for _, r in pairs)
    server.receive_data(requests)
    client.receive_data(responses)
    client.receive_data(b"")
    for _ in pairs:
        request = server.next_event()
        assert isinstance(request, h11.Request)
        while not isinstance(event := server.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
        # the other direction needs to know the method
        fields = [(k, v) for k, v in request.headers if k not in (b"content-length", b"transfer-encoding")]
        client.send(h11.Request(method=request.method, target=request.target, headers=fields))
        client.send(h11.EndOfMessage())
        while isinstance(response := client.next_event(), h11.InformationalResponse):
            pass
        assert isinstance(response, h11.Response), response
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), event
        got = dict(request.headers)
        out.append(
            (
                response.status_code,
                request.target,
                *(got.get(k, b"") for k in (b"host", b"referer", b"user-agent")),
            )
        )
        server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
        server.send(h11.EndOfMessage())
        if server.our_state is h11.DONE and client.our_state is h11.DONE and client.their_state is h11.DONE:
            server.start_next_cycle()
            client.start_next_cycle()
    return out


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(borders)]


@settings(max_examples=150, deadline=None)
@given(exchanges(), st.lists(st.integers(0, 5000), max_size=25), st.booleans())
def test_any_conversation(pairs: list[tuple[bytes, bytes]], places: list[int], pipelined: bool) -> None:
    expected = by_h11(pairs)
    if pipelined:
        turns = [(0, p) for p in cut(b"".join(q for q, _ in pairs), places)]
        turns += [(1, p) for p in cut(b"".join(r for _, r in pairs), places)]
    else:
        turns = [(side, p) for pair in pairs for side in (0, 1) for p in cut(pair[side], places)]
    # the server closes first: that may end its last response
    streams = Streams()
    c = Connection(streams).open()
    for side, data in turns:
        c.send(side, data)
    c.send(1, flags=FIN | ACK)
    c.send(0, flags=FIN | ACK)
    c.send(1, flags=ACK)
    got = plain(streams.records)
    assert [r[2:] for r in got if not r[0]] == [e[1:] for e in expected]
    assert [r[1:] for r in got if r[0]] == expected
    counted = streams.counters()
    assert (counted["errors"][HTTP], counted["unpaired"][HTTP], counted["unanswered"][HTTP]) == (0, 0, 0)
    assert counted["buffered"] == 0


@settings(max_examples=60, deadline=None)
@given(exchanges(), st.lists(st.integers(0, 3000), max_size=12), st.randoms(use_true_random=False))
def test_order_of_segments(pairs: list[tuple[bytes, bytes]], places: list[int], rng: Any) -> None:
    """Segments swapped and sent twice give the same records: reassembly stands before the decoder."""
    requests = cut(b"".join(q for q, _ in pairs), places)
    straight, _ = talk(*[(0, p) for p in requests], close=False)
    streams = Streams()
    c = Connection(streams).open()
    at, script = c.seq[0], []
    for piece in requests:
        script += [(at, piece)] * rng.choice((1, 1, 2))
        at += len(piece)
    for i in range(len(script) - 1):
        if rng.random() < 0.4:
            script[i], script[i + 1] = script[i + 1], script[i]
    for seq, piece in script:
        c.seq[0] = seq
        c.send(0, piece)
    assert plain(streams.records) == straight


# --- single rules ---------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def test_simple_exchange() -> None:
    got, _ = talk((0, b"GET / HTTP/1.1\r\n\r\n"), (1, OK))
    assert got == [(False, None, b"/", b"", b"", b""), (True, 200, b"/", b"", b"", b"")]


@pytest.mark.parametrize("name", [b"User-Agent", b"USER-AGENT", b"user-agent"])
def test_field_names_in_any_case(name: bytes) -> None:
    got, _ = talk((0, b"GET / HTTP/1.1\r\n" + name + b": x y\r\n\r\n"))
    assert got == [(False, None, b"/", b"", b"", b"x y")]


@pytest.mark.parametrize(
    "bad",
    [
        b"FOO\r\n\r\n",
        b"FOO / HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"GET index.html HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTX/1.1\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
    ],
)
def test_invalid_request(bad: bytes) -> None:
    """Nothing of it, of what waits, and of what follows: the side stays dead (spec 6.1)."""
    got, counted = talk((0, GET), (0, bad + b"\r\n"), (0, GET), (1, OK))
    assert got == [(False, None, b"/", b"a", b"", b"")]
    assert (counted["errors"][HTTP], counted["unpaired"][HTTP]) == (1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        b"FOO\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx\r\n\r\n",
        b"HTTP 200\r\n",
    ],
)
def test_invalid_response(bad: bytes) -> None:
    got, counted = talk((0, GET), (1, bad), (1, OK), (0, GET), (1, OK))
    assert got == [(False, None, b"/", b"a", b"", b"")] * 2
    assert counted["errors"][HTTP] == 1


def test_new_connection_on_the_same_ports_is_read() -> None:
    streams = Streams()
    c = Connection(streams).open()
    c.send(0, b"FOO\r\n\r\n")
    c.seq = [77_000_000, 99_000_000]
    c.open()
    c.send(0, GET)
    assert plain(streams.records) == [(False, None, b"/", b"a", b"", b"")]


def test_interim_responses_take_no_request() -> None:
    got, _ = talk(
        (0, GET), (1, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    )
    assert [r[1] for r in got] == [None, 200]


def test_switching_protocols_ends_http() -> None:
    ask = b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
    got, counted = talk((0, ask), (1, switch + b"\x81\x05GET /"), (0, b"\x81\x85garbage"), (0, GET), (1, OK))
    assert [r[1] for r in got] == [None, 101]
    assert counted["errors"][HTTP] == 0


def test_declined_upgrade_goes_on() -> None:
    ask = b"GET /ws HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    got, _ = talk((0, ask), (1, OK), (0, GET), (1, OK))
    assert [r[1] for r in got] == [None, 200, None, 200]


@pytest.mark.parametrize(
    ("status", "seen"), [(b"200 Established", [None, 200]), (b"407 No", [None, 407, None, 200])]
)
def test_connect(status: bytes, seen: list[Any]) -> None:
    ask = b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n"
    answer = (
        b"HTTP/1.1 " + status + b"\r\n" + (b"" if status[:1] == b"2" else b"Content-Length: 0\r\n") + b"\r\n"
    )
    got, counted = talk((0, ask), (1, answer), (0, GET), (1, OK))
    assert [r[1] for r in got] == seen
    assert got[0][2] == b"example.org:443"
    assert counted["errors"][HTTP] == 0


def test_response_before_the_request_has_ended() -> None:
    """A server may refuse while the body is still being sent: the answer belongs to that request."""
    ask = b"POST /big HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345"
    refuse = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    got, counted = talk((0, ask), (1, refuse), (0, b"67890" + GET), (1, OK))
    assert [(r[1], r[2]) for r in got] == [(413, b"/big"), (None, b"/big"), (None, b"/"), (200, b"/")]
    assert counted["unpaired"][HTTP] == 0


def test_connection_cut_in_a_message_gives_nothing() -> None:
    streams = Streams()
    c = Connection(streams).open()
    c.send(0, GET)
    c.send(1, b"HTTP/1.1 200 OK\r\n\r\npart of a body")
    c.send(1, flags=RST)
    assert len(streams.records) == 1
    assert streams.counters()["unanswered"][HTTP] == 1
    got, _ = talk((0, GET), (1, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"))
    assert [r[1] for r in got] == [None]


def test_fin_ends_a_response_without_length() -> None:
    streams = Streams()
    c = Connection(streams).open()
    c.send(0, GET, after=5 * MS)
    c.send(1, b"HTTP/1.0 200 OK\r\n\r\nuntil", after=7 * MS)
    c.send(1, b" the end", flags=FIN | PSH | ACK, after=30 * MS)
    # at the server's FIN, not when the connection is over
    assert [r.get("ms") for r in streams.records] == [None, 37]


def test_latency_runs_from_the_first_byte_to_the_last() -> None:
    streams = Streams()
    c = Connection(streams).open()
    c.send(0, b"\r\n", after=3 * MS)
    c.send(0, GET[:5], after=10 * MS)
    first = c.now
    c.send(0, GET[5:] + GET, after=20 * MS)
    second = c.now
    c.send(1, OK[:10], after=MS)
    c.send(1, OK[10:] + OK, after=40 * MS + 999)
    assert [(r["ts"], r["ns"], r["ms"]) for r in streams.records if "status" in r] == [
        (c.now, c.now - first, 61),
        (c.now, c.now - second, 41),
    ]


def test_latency_is_not_clamped_and_never_negative() -> None:
    streams = Streams()
    c = Connection(streams).open()
    c.send(0, GET)
    c.send(1, OK, after=40_000 * MS)
    c.send(0, GET)
    c.send(1, OK, after=-5 * MS)
    assert [r["ms"] for r in streams.records if "status" in r] == [40_000, 0]


def test_several_messages_in_one_segment() -> None:
    urls = [b"/%d" % i for i in range(50)]
    got, _ = talk((0, b"".join(GET.replace(b"/ ", u + b" ") for u in urls)), (1, OK * 50))
    assert [r[2] for r in got] == urls + urls


def test_long_texts_are_cut_at_a_character() -> None:
    agent = "ä".encode() * 300
    got, _ = talk((0, b"GET /" + b"u" * 5000 + b" HTTP/1.1\r\nUser-Agent: x" + agent + b"\r\n\r\n"))
    assert got[0][2] == b"/" + b"u" * 383
    assert got[0][5] == b"x" + agent[:382]


def test_folded_and_repeated_fields() -> None:
    got, _ = talk(
        (0, b"GET / HTTP/1.1\r\nHost: one\r\nHost: two\r\nUser-Agent: a\r\n  b\r\n\tc\r\nX: y\r\n z\r\n\r\n")
    )
    assert got == [(False, None, b"/", b"two", b"", b"a b c")]
    # together they are cut like one
    got, _ = talk((0, b"GET / HTTP/1.1\r\nUser-Agent: " + b"a" * 300 + b"\r\n " + b"b" * 300 + b"\r\n\r\n"))
    assert got[0][5] == b"a" * 300 + b" " + b"b" * 83


def test_bare_newlines_and_versions() -> None:
    got, _ = talk((0, b"GET http://h/x HTTP/1.0\nHost: a\n\nGET /simple\r\n\r\n"))
    assert [r[2] for r in got] == [b"http://h/x", b"/simple"]


def test_header_limit() -> None:
    """80 KiB of header and no more (spec 6.1)."""
    head, field = b"GET / HTTP/1.1\r\n", b"X: " + b"y" * 95 + b"\r\n"
    fits = (81920 - len(head) - 2) // len(field)
    assert len(talk((0, head + field * fits + b"\r\n"))[0]) == 1
    got, counted = talk((0, head + field * (fits + 1) + b"\r\n"))
    assert (got, counted["errors"][HTTP]) == ([], 1)
    # one endless line, in pieces
    got, counted = talk((0, head + b"X: "), *[(0, b"y" * 1000)] * 100)
    assert (got, counted["errors"][HTTP], counted["buffered"]) == ([], 1, 0)


def test_endless_pipelining_is_bounded() -> None:
    streams = Streams()
    c = Connection(streams).open()
    for _ in range(400):
        c.send(0, GET * 30)
    counted = streams.counters()
    assert counted["room"][HTTP] == 1
    assert counted["buffered"] < 1 << 20


def test_missing_bytes_in_a_body_do_no_harm() -> None:
    streams = Streams()
    c = Connection(streams).open()
    c.send(0, GET)
    c.send(1, b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n" + b"x" * 1000)
    c.lose(1, 1000)
    c.send(0, flags=ACK, after=50 * MS)
    c.send(1, b"x" * 1000, after=50 * MS)
    c.send(0, flags=ACK, after=50 * MS)
    c.send(0, GET)
    c.send(1, OK)
    assert [r.get("status") for r in streams.records] == [None, 200, None, 200]
    assert streams.counters()["lost_bytes"] == 1000


def test_missing_bytes_in_a_header_end_the_reading() -> None:
    streams = Streams()
    c = Connection(streams).open()
    c.send(0, GET[:10])
    c.lose(0, 8)
    c.send(0, GET[18:], after=50 * MS)
    c.send(1, OK, after=50 * MS)
    c.send(1, OK, after=50 * MS)
    assert streams.records == []
    assert streams.counters()["lost"][HTTP] == 1


def test_connection_whose_beginning_was_not_seen() -> None:
    """kprobe's rule."""
    streams = Streams(syn_only=True)
    c = Connection(streams)
    c.send(0, GET)
    c.send(1, OK)
    assert streams.records == []
    assert streams.counters()["no_syn"] == 1


@pytest.mark.parametrize(
    "before", [(), ((1, b"end of a body"),), ((1, b"end"), (0, b"\0\1\2"), (1, b"of it"))]
)
@pytest.mark.parametrize("start", [7, 23])
def test_connection_that_is_read_from_the_middle(before: tuple[tuple[int, bytes], ...], start: int) -> None:
    """From the first segment of each side that begins a message, which also tells who is the server."""
    streams = Streams()
    c = Connection(streams)
    for side, data in before:
        c.send(side, data)
    for side, data in ((0, GET[:start]), (0, GET[start:]), (1, OK), (0, GET + GET), (1, OK + OK)):
        c.send(side, data)
    assert [r.get("status") for r in streams.records] == [None, 200, None, None, 200, 200]
    assert {r["port"] for r in streams.records if "status" in r} == {80}
    assert streams.counters()["no_syn"] == streams.counters()["errors"][HTTP] == 0


def test_response_first_in_the_middle_of_a_connection() -> None:
    """Without its request it is not reported, but the next pair is."""
    streams = Streams()
    c = Connection(streams)
    for side, data in ((1, OK), (0, GET), (1, OK)):
        c.send(side, data)
    assert [(r["port"], r.get("status")) for r in streams.records] == [(40000, None), (80, 200)]
    assert streams.counters()["unpaired"][HTTP] == 1


@pytest.mark.parametrize("segments", [22, 24])
def test_bulk_data_without_a_beginning_is_not_read_for_ever(segments: int) -> None:
    streams = Streams()
    c = Connection(streams)
    for _ in range(segments):
        c.send(1, b"x" * 1000)
    c.send(0, GET)
    assert len(streams.records) == streams.counters()["messages"][HTTP] == (segments < 24)
    assert streams.counters()["no_syn"] == (segments == 24)


@given(
    data=st.binary(max_size=16)
    | st.sampled_from([b"GET / HTTP/1.1", b"HTTP/1.1 200 OK"]).map(lambda t: t[:9])
)
def test_begins_agrees_with_the_parsers(data: bytes) -> None:
    """Whatever the parsers of first lines take is a beginning."""
    if http.status_line(data):
        assert http.begins(data) == 2
    elif http.request_line(data):
        assert http.begins(data) == 1


def test_idle_limit_is_a_minute() -> None:
    for seconds, count in ((59, 2), (61, 1)):
        streams = Streams()
        c = Connection(streams).open()
        c.send(0, GET)
        # somebody else's packet makes the table look
        other = Connection(streams, client=50000, start=c.now + seconds * 1000 * MS)
        other.open()
        c.now = other.now
        c.send(1, OK)
        assert len(streams.records) == count


def test_server_by_syn_not_by_port() -> None:
    """A client on port 80 of a server elsewhere: the SYN's destination is the server (spec 6.1)."""
    streams = Streams()
    c = Connection(streams, client=80, server=5000).open()
    c.send(0, GET)
    c.send(1, OK)
    assert [(r["port"], r.get("status")) for r in streams.records] == [(80, None), (5000, 200)]
    streams = Streams()
    c = Connection(streams, client=80, server=5000)
    c.seq[0] += 1
    c.send(1, flags=SYN | ACK)
    c.send(0, GET)
    assert [r["port"] for r in streams.records] == [80]


# --- lines ----------------------------------------------------------------------------------------


@given(st.binary(max_size=60))
def test_lines_take_anything(data: bytes) -> None:
    for parse in (
        http.request_line,
        http.status_line,
        http.field,
        http.chunk_size,
        http.content_length,
        http.is_chunked,
    ):
        parse(data)


@given(st.integers(0, 2**64 - 1), st.booleans())
def test_chunk_sizes(size: int, upper: bool) -> None:
    text = f"{size:X}" if upper else f"{size:x}"
    assert http.chunk_size(text.encode() + b" ;x=1") == size
    assert http.chunk_size(b"f" + b"0" * 16) is None


@given(st.integers(0, 2**64 - 20))
def test_content_length(size: int) -> None:
    assert http.content_length(b"%d" % size) == size


def test_codings() -> None:
    for yes in (b"chunked", b"CHUNKED", b"gzip, chunked", b"gzip,chunked"):
        assert http.is_chunked(yes)
    for no in (b"", b"gzip", b"chunked, gzip", b"xchunked"):
        assert not http.is_chunked(no)


def test_ports() -> None:
    on = ["http", "tls", "dhcp", "dns", "radius"]
    assert [classify(True, 40000, p, on) for p in (80, 443, 53, 8080)] == [2, 3, 0, 0]
    assert [classify(False, p, 40000, on) for p in (53, 67, 68, 1812, 1813, 80)] == [1, 4, 4, 9, 9, 0]
    # the lower port first, then the higher
    assert classify(True, 80, 443, on) == 2
    assert classify(True, 443, 22, on) == 3
    assert classify(False, 30, 53) == 1
    # without decoding these keep their number, and those do not (spec 6.0, 6.7)
    assert [classify(False, 1, p) for p in (53, 1812, 67)] == [1, 9, 0]
    assert [classify(True, 1, p, http=[8080]) for p in (80, 443, 8080)] == [0, 0, 2]
    assert classify(True, 1, 443, on, http=[443]) == 3
    assert classify(False, 9999, 5300, dns_port=5300) == 1
    assert classify(False, 9999, 53, dns_port=5300) == 0
    assert [classify(False, 1, p, radius=[1645]) for p in (1645, 1812)] == [9, 0]


# --- captures -------------------------------------------------------------------------------------


def test_recorded_against_tshark() -> None:
    path = CAPTURES / "app-http.pcap"
    streams = Streams(http=[8080])
    got = feed_capture(streams, path)
    rows = tshark(
        path, "frame.number", "tcp.stream", "http.request.method", "http.request.uri", "http.host",
        "http.referer", "http.user_agent", "http.response.code", "frame.time_epoch", "tcp.srcport",
        where="http.request or http.response", options=["-d", "tcp.port==8080,http"],
    )  # fmt: skip
    waiting: dict[str, list[tuple[str, ...]]] = {}
    requests, responses = [], []
    for number, stream, methods, uris, hosts, referers, agents, codes, *_ in rows:
        if methods:
            several = uris.split(",")
            for i, uri in enumerate(several):
                one = (uri, hosts.split(",")[i], referers, agents)
                requests.append((int(number), *one))
                waiting.setdefault(stream, []).append(one)
        else:
            for code in codes.split(","):
                if code != "100" and waiting.get(stream):
                    responses.append((int(number), int(code), *waiting[stream].pop(0)))
    # tshark loses count after the answer to HEAD in a pipeline; what it has is right
    assert len(requests) > 20
    mine = [(r["frame"], *(r[t].decode() for t in TEXTS)) for r in got if "status" not in r]
    assert [(*m[:4], m[4][:300]) for m in mine] == [(*q[:4], q[4][:300]) for q in requests]
    answers = [(r["frame"], r["status"], *(r[t].decode() for t in TEXTS)) for r in got if "status" in r]
    for frame, code, *texts in responses:
        assert any(m[:2] == (frame, code) and m[2:5] == tuple(texts[:3]) for m in answers), (
            frame,
            code,
            texts,
        )
    counted = streams.counters()
    # all were answered; the one that was no HTTP got a response that belongs to nothing
    assert len(answers) == len(mine)
    assert (counted["errors"][HTTP], counted["unpaired"][HTTP], counted["unanswered"][HTTP]) == (1, 1, 0)


def test_recorded_times_against_tshark() -> None:
    """http.time is the time between the packets that complete request and response."""
    path = CAPTURES / "app-http.pcap"
    got = feed_capture(Streams(http=[8080]), path)
    rows = tshark(
        path,
        "frame.number",
        "http.request_in",
        "http.time",
        where="http.request_in",
        options=["-d", "tcp.port==8080,http"],
    )
    completed = {r["frame"]: r["ts"] for r in got if "status" not in r}
    answered = {r["frame"]: r["ts"] for r in got if "status" in r}
    checked = 0
    for frame, request, seconds in rows:
        if int(frame) in answered:
            took = answered[int(frame)] - completed[int(request)]
            assert took == round(float(seconds) * 10**9), frame
            checked += 1
    assert checked > 20


shared = pytest.mark.skipif(
    not (SHARED / "pcap" / "kprobe" / "google.com.pcap").exists(),
    reason="shared data absent: no kprobe captures",
)


@shared
def test_worked_values() -> None:
    path = SHARED / "pcap" / "kprobe" / "google.com.pcap"
    got = feed_capture(Streams(), path)
    assert [r["frame"] for r in got] == [4, 6]
    last = got[-1]
    assert (last["url"], last["host"], last["agent"], last["status"], last["ms"]) == (
        b"/", b"google.com", b"curl/7.38.0", 302, 7,
    )  # fmt: skip
    # the server is known from its SYN+ACK as well
    assert feed_capture(Streams(), path, skip=[1])[-1]["host"] == b"google.com"
    # the same connection again: nothing of the first is left
    streams = Streams()
    assert feed_capture(streams, path)[-1]["ms"] == 7
    assert feed_capture(streams, path, later=2 * 10**9)[-1]["ms"] == 7

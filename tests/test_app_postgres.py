"""PostgreSQL: log-ins and queries of any connection, however it was cut, against a model and tshark."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest
from app_feed import ACK, CAPTURES, MS, POSTGRES, Connection, feed_capture, tshark
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe._core.app_stream import Streams
from netprobe._core.wire import postgres


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack(">I", 4 + len(body)) + body


def startup(code: int = 3 << 16, **parameters: str) -> bytes:
    body = struct.pack(">I", code)
    if parameters:
        body += b"".join(f"{k}\0{v}\0".encode() for k, v in parameters.items()) + b"\0"
    return struct.pack(">I", 4 + len(body)) + body


START = startup(user="np", application_name="x", database="db")
SSL, GSS, CANCEL = startup(80877103), startup(80877104), startup(80877102) + bytes(8)
CANCEL = struct.pack(">I", 16) + CANCEL[4:]
READY = message(b"Z", b"I")
WELCOME = message(b"R", bytes(4)) + message(b"S", b"a\0b\0") + message(b"K", bytes(8)) + READY


def error(state: bytes) -> bytes:
    return message(b"E", b"SERROR\0VERROR\0C" + state + b"\0Mtext\0\0")


def done(tag: bytes) -> bytes:
    return message(b"C", tag + b"\0")


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(borders)]


def talk(*turns: tuple[int, bytes]) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    streams = Streams(postgres=[5432])
    c = Connection(streams, server=5432).open()
    for side, data in turns:
        c.send(side, data)
    got = [(r.get("statement"), r.get("rows"), r.get("error")) for r in streams.records]
    assert all((r["user"], r["database"], r["port"]) == (b"np", b"db", 5432) for r in streams.records)
    return got, streams.counters()


statement = st.text("abc SELECT from*'", max_size=60).map(str.encode)
places = st.lists(st.integers(0, 5000), max_size=20)


@st.composite
def query(draw: Any) -> tuple[bytes, bytes, tuple[bytes, int, bytes | None]]:
    """What the client sends, what the server answers, and what the record should say."""
    text, rows, failed = draw(statement), draw(st.integers(0, 10**6)), draw(st.booleans())
    data = message(b"T", bytes(30)) + message(b"D", bytes(draw(st.integers(0, 3000)))) * draw(
        st.integers(0, 3)
    )
    answer = error(b"42P01") if failed else data + done(b"SELECT %d" % rows)
    if draw(st.booleans()):
        ask = message(b"Q", text + b"\0")
        answer += READY
    else:
        ask = (
            message(b"P", b"name\0" + text + b"\0" + bytes(2))
            + message(b"B", bytes(12))
            + message(b"E", bytes(5))
        )
        if draw(st.booleans()):
            ask += message(b"P", b"\0another\0\0\0")
        ask += message(b"S")
        answer = message(b"1") + message(b"2") + answer + READY
    return ask, answer, (text, 0 if failed else rows, b"42P01" if failed else None)


@settings(max_examples=200, deadline=None)
@given(st.lists(query(), max_size=5), places, places, st.sampled_from([b"", SSL, GSS, GSS + SSL]))
def test_any_conversation(
    queries: list[Any], client_cuts: list[int], server_cuts: list[int], asks: bytes
) -> None:
    turns = [(side, p) for at in range(0, len(asks), 8) for side, p in ((0, asks[at : at + 8]), (1, b"N"))]
    turns += [(0, START), (1, WELCOME)]
    # pipelined: all queries before the first answer
    turns += [(0, p) for p in cut(b"".join(q[0] for q in queries), client_cuts)]
    turns += [(1, p) for p in cut(b"".join(q[1] for q in queries), server_cuts)]
    got, counted = talk(*turns)
    assert got[0] == (None, None, None)
    # a Parse without a text leaves its place to the next one
    expected = [
        (b"another", *wanted[1:]) if not wanted[0] and b"another" in ask else wanted
        for ask, _, wanted in queries
    ]
    assert got[1:] == expected
    assert (counted["errors"][POSTGRES], counted["lost"][POSTGRES], counted["room"][POSTGRES]) == (0, 0, 0)


@given(places)
def test_login_in_pieces(cuts: list[int]) -> None:
    got, _ = talk(*[(0, p) for p in cut(START, cuts)], *[(1, p) for p in cut(WELCOME, cuts)])
    assert got == [(None, None, None)]


def test_refused_login() -> None:
    got, counted = talk((0, START), (1, message(b"R", bytes(8)) + error(b"28P01")))
    assert got == [(None, None, b"28P01")]
    assert counted["unanswered"][POSTGRES] == 0


def test_encryption_ends_the_reading() -> None:
    got, counted = talk((0, SSL), (1, b"S"), (0, b"\x16\3\1\0\5hello"), (1, b"\x16\3\1"))
    assert (got, counted["errors"][POSTGRES]) == ([], 0)


def test_cancel_request_has_no_result() -> None:
    got, counted = talk((0, CANCEL))
    assert (got, counted["errors"][POSTGRES]) == ([], 0)


def test_times() -> None:
    streams = Streams(postgres=[5432])
    c = Connection(streams, server=5432).open()
    c.send(0, START, after=MS)
    c.send(1, WELCOME, after=5 * MS)
    ask = message(b"Q", b"select 1\0")
    c.send(0, ask[:3], after=MS)
    c.send(0, ask[3:], after=20 * MS)
    c.send(1, done(b"SELECT 1"), after=MS)
    c.send(1, READY, after=30 * MS)
    assert [r["ms"] for r in streams.records] == [5, 51]


def test_rows() -> None:
    answer = done(b"SELECT 3") + done(b"INSERT 0 7") + done(b"CREATE TABLE") + READY
    got, _ = talk((0, START), (1, WELCOME), (0, message(b"Q", b"a;b;c\0")), (1, answer))
    assert got[1] == (b"a;b;c", 10, None)


def test_long_statement_is_cut() -> None:
    text = "ä".encode() * 1000
    got, _ = talk(
        (0, START), (1, WELCOME), (0, message(b"Q", b"x" + text + b"\0")), (1, done(b"SELECT 1") + READY)
    )
    assert got[1] == (b"x" + text[:382], 1, None)


def test_missing_bytes_in_a_long_row_do_no_harm() -> None:
    streams = Streams(postgres=[5432])
    c = Connection(streams, server=5432).open()
    c.send(0, START)
    c.send(1, WELCOME)
    c.send(0, message(b"Q", b"a\0"))
    row = message(b"D", bytes(9000))
    c.send(1, row[:3000])
    c.lose(1, 3000)
    c.send(0, flags=ACK, after=50 * MS)
    c.send(1, row[6000:] + done(b"SELECT 1") + READY, after=50 * MS)
    c.send(0, flags=ACK, after=50 * MS)
    assert [r.get("rows") for r in streams.records] == [None, 1]


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", bytes(20), b"\0\0\0\x09\0\3\0\0x", b"\xff" * 30])
def test_something_else(data: bytes) -> None:
    got, counted = talk((0, data))
    assert (got, counted["errors"][POSTGRES], counted["buffered"]) == ([], 1, 0)


def test_waiting_queries_are_bounded() -> None:
    streams = Streams(postgres=[5432])
    c = Connection(streams, server=5432).open()
    c.send(0, START)
    for _ in range(2000):
        c.send(0, message(b"Q", b"select 1\0") * 20)
    assert streams.counters()["room"][POSTGRES] == 1
    assert streams.counters()["buffered"] < 1 << 20


@given(st.binary(max_size=100))
def test_parsers_take_anything(data: bytes) -> None:
    postgres.startup(data)
    postgres.message(data)


def test_recorded_against_tshark() -> None:
    path = CAPTURES / "app-postgres.pcap"
    streams = Streams(postgres=[5432])
    got = feed_capture(streams, path)
    rows = tshark(
        path, "frame.number", "tcp.stream", "pgsql.type", "pgsql.query", "pgsql.tag", "pgsql.code",
        where="pgsql",
    )  # fmt: skip
    expected: list[tuple[Any, ...]] = []
    asked: dict[str, str | None] = {}
    state: dict[str, str] = {}
    counts: dict[str, int] = {}
    for number, stream, kinds, query_text, tags, code in rows:
        if query_text:
            asked[stream] = query_text
        state[stream] = code or state.get(stream, "")
        counts[stream] = counts.get(stream, 0) + sum(
            int(t.split()[-1]) for t in tags.split(",") if t[-1:].isdigit()
        )
        refused = "Error" in kinds and "Authentication" in kinds
        if "Ready for query" in kinds or refused:
            text = asked.get(stream)
            expected.append(
                (int(number), text, None if text is None else counts[stream], state[stream] or None)
            )
            state[stream], counts[stream] = "", 0
    mine = [
        (r["frame"], r["statement"].decode() if "statement" in r else None, r.get("rows"),
         r["error"].decode() if "error" in r else None)
        for r in got
    ]  # fmt: skip
    assert len(expected) == 14
    assert mine == expected
    assert {r["database"] for r in got} == {b"postgres", b"nowhere"}

"""Framing of DNS over TCP: any cutting of a stream gives the same messages."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from netprobe._core.dns_stream import _split

NOT_DNS, LOST = 1, 2

messages = st.lists(st.binary(min_size=17, max_size=300), min_size=1, max_size=8)


def framed(parts: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({place % (len(stream) + 1) for place in places} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(borders)]


@given(messages, st.lists(st.integers(0, 5000), max_size=30), st.integers(0, 1))
def test_any_cut(parts, places, side):
    got, given_up, waiting = _split([(side, piece) for piece in cut(framed(parts), places)])
    assert got == [(side, part) for part in parts]
    assert (given_up, waiting) == ([], (0, 0))


@given(
    messages, messages, st.lists(st.integers(0, 3000), max_size=9), st.lists(st.integers(0, 3000), max_size=9)
)
def test_sides_do_not_mix(one, two, cuts_one, cuts_two):
    left, right = cut(framed(one), cuts_one), cut(framed(two), cuts_two)
    mixed = []
    for i in range(max(len(left), len(right))):
        mixed += [(0, piece) for piece in left[i : i + 1]] + [(1, piece) for piece in right[i : i + 1]]
    got, _, _ = _split(mixed)
    assert [part for side, part in got if side == 0] == one
    assert [part for side, part in got if side == 1] == two


def test_byte_by_byte_and_empty_segments():
    parts = [bytes(range(17)), bytes(200)]
    pieces = [(0, bytes([byte])) for byte in framed(parts)]
    got, given_up, _ = _split([(0, b""), *pieces, (0, b"")])
    assert got == [(0, part) for part in parts]
    assert given_up == []


def test_longest_message():
    part = bytes(65535)
    pieces = cut(framed([part, b"x" * 17]), list(range(0, 65556, 1400)))
    got, _, waiting = _split([(0, piece) for piece in pieces])
    assert got == [(0, part), (0, b"x" * 17)]
    assert waiting == (0, 0)


def test_rest_waits():
    stream = framed([b"a" * 20, b"b" * 30])
    assert _split([(0, stream[:-1])]) == ([(0, b"a" * 20)], [], (31, 0))
    assert _split([(1, stream[:1])]) == ([], [], (0, 1))


@given(st.integers(0, 16), st.integers(0, 400))
def test_impossible_length_ends_a_side(length, place):
    good = framed([b"a" * 20])
    stream = good + length.to_bytes(2, "big") + bytes(30)
    pieces = [(0, piece) for piece in cut(stream, [place])]
    got, given_up, waiting = _split([*pieces, (0, good), (1, good)])
    assert got == [(0, b"a" * 20), (1, b"a" * 20)]
    assert [why for _, why in given_up] == [NOT_DNS]
    assert waiting == (0, 0)


def test_gap_ends_a_side():
    """Where the next message begins is not known: behind the end of one, or before its length was there."""
    good = framed([b"a" * 20])
    for before, gap, told in ((good[:1], 30, []), (b"", 22, []), (good[:16], 7, [(0, b"a" * 14)])):
        got, given_up, waiting = _split([(0, good + before), (0, gap), (0, good), (0, 3), (1, good)])
        assert got == [(0, b"a" * 20), *told, (1, b"a" * 20)]
        assert given_up == [(1, LOST)]
        assert waiting == (0, 0)
    # nothing is missing in a gap of no bytes
    assert _split([(0, 0), (0, good)])[0] == [(0, b"a" * 20)]


@given(messages, st.integers(0, 7), st.integers(2, 300), st.lists(st.integers(1, 300), max_size=3))
def test_gap_inside_a_message(parts, which, place, gaps):
    """It is told as far as it came, if that is a header; the others are whole. A gap may come in pieces."""
    which %= len(parts)
    place = 2 + place % (len(parts[which]) - 1)
    at = len(framed(parts[:which])) + place
    left = 2 + len(parts[which]) - place
    stream = framed(parts)
    feed, gone = [(0, stream[:at])], 0
    for gap in gaps or [left]:
        gap = min(gap, left - gone)
        feed += [(0, gap)] * (gap > 0)
        gone += gap
    # what is not missing of it is there
    got, given_up, _ = _split([*feed, (0, stream[at + gone :])])
    cut = [(0, parts[which][: place - 2])] if place >= 14 else []
    assert got == [(0, p) for p in parts[:which]] + cut + [(0, p) for p in parts[which + 1 :]]
    assert given_up == []

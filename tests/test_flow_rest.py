"""Entries that rest without their side (IPv4, not TCP) against the same ones over IPv6, which never do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe._core.flow_tester import FlowTester

SECOND = 10**9
FOUR = [bytes([10, 0, 0, i]) for i in range(3)]
SIX = [bytes([0x20, 1, 13, 184] + [0] * 11 + [i]) for i in range(3)]


@st.composite
def traffic(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Datagrams among few endpoints, with gaps around every time-out: 2, 15, 30, 60 s."""
    out = []
    now = 1_700_000_000 * SECOND + draw(st.integers(0, 999_999_999))
    for _ in range(draw(st.integers(1, 40))):
        ends = draw(st.permutations(range(3)))
        out.append(
            {
                "ends": ends[:2],
                "sport": draw(st.integers(1, 2)),
                "dport": draw(st.integers(1, 2)),
                "proto": draw(st.sampled_from([17, 47])),
                "ts": now,
                "payload": draw(st.sampled_from([0, 10])),
                "direction": draw(st.integers(0, 2)),
                "vlan": draw(st.integers(0, 2)),
                "smac": bytes([draw(st.integers(0, 255))] * 6),
                "dmac": bytes([draw(st.integers(0, 255))] * 6),
                "fragments": draw(st.sampled_from([0, 0, 2])),
            }
        )
        now += draw(st.sampled_from([0, 1, SECOND // 2, 3 * SECOND, 14 * SECOND, 29 * SECOND, 61 * SECOND]))
        now += draw(st.integers(0, SECOND))
    return out


def records(
    packets: list[dict[str, Any]], addresses: list[bytes], **options: Any
) -> tuple[list[Any], dict[str, Any], int]:
    table = FlowTester(schedule=True, **options)
    out, most = [], 0
    for number, packet in enumerate(packets):
        src, dst = (addresses[end] for end in packet["ends"])
        table.add(src, dst, **{name: value for name, value in packet.items() if name != "ends"})
        out += table.go(room=4 + number % 3)
        most = max(most, table.resting)
        out += table.tick(packet["ts"] + SECOND)
    stats = table.stats()
    out += table.finish()
    return out, stats, most


def without_family(found: list[dict[str, Any]], addresses: list[bytes]) -> list[dict[str, Any]]:
    of = {address.ljust(16, b"\0"): i for i, address in enumerate(addresses)}
    kept = ("src", "dst", "l3", "connection_id")
    return [
        {name: value for name, value in r.items() if name not in kept}
        | {"ends": (of[r["src"]], of[r["dst"]])}
        for r in found
    ]


@settings(max_examples=400, deadline=None)
@given(traffic(), st.sampled_from([64, 65]))
def test_resting_changes_nothing(packets: list[dict[str, Any]], capacity: int) -> None:
    four, stats4, _ = records(packets, FOUR, capacity=capacity)
    six, stats6, rested = records(packets, SIX, capacity=capacity)
    assert rested == 0
    assert without_family(four, FOUR) == without_family(six, SIX)
    assert {**stats4, "slots": 0} == {**stats6, "slots": 0}


@pytest.mark.parametrize(
    ("src", "dst", "proto", "rests"), [(*FOUR[:2], 17, 2), (*FOUR[:2], 6, 0), (*SIX[:2], 17, 0)]
)
def test_what_rests_and_for_how_long(src: bytes, dst: bytes, proto: int, rests: int) -> None:
    table = FlowTester(schedule=True)
    table.add(src, dst, 1000, 53, proto, ts=0, payload=30)
    table.add(dst, src, 53, 1000, proto, ts=7_000_000, payload=90)
    assert table.go() == []
    assert table.resting == 0
    assert len(table.tick(16 * SECOND)) == 2  # the longest that a first report takes is 15 s
    assert table.resting == rests
    # a packet rouses its own entry alone, and the latency of its first answer is still known
    table.add(dst, src, 53, 1000, proto, ts=20 * SECOND, payload=90)
    table.go()
    assert table.resting == rests // 2
    out = [r for r in table.tick(36 * SECOND) if r["sport"] == 53]
    assert [r["fpex_ms"] for r in out] == [7]
    for second in range(37, 200):
        table.tick(second * SECOND)
    assert table.stats()["active"] == 0


def test_a_full_table_throws_resting_entries_out_without_a_record() -> None:
    table = FlowTester(schedule=True, capacity=64)
    for port in range(64):
        table.add(FOUR[0], FOUR[1], port, 53, ts=0)
    table.go()
    assert len(table.tick(16 * SECOND)) == 64
    assert table.resting == 64
    for port in range(1000, 1100):
        table.add(FOUR[0], FOUR[1], port, 53, ts=17 * SECOND)
    out = table.go()
    stats = table.stats()
    assert stats["evicted"] == 100
    assert stats["active"] == 64
    assert len(out) == 100 - 64  # the resting ones had nothing to tell
    assert stats["out_packets"] + stats["open_packets"] == stats["packets"] == 164

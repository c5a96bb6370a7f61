"""The flow table's own order under hostile traffic: odd capacities, clocks that jump, passes cut short."""

from __future__ import annotations

import random
from typing import Any

import pytest

from netprobe._core.flow_tester import FlowTester

SECOND = 10**9
FOUR = [bytes([10, 0, 0, i]) for i in range(24)]
SIX = [bytes([0x20, 1, *[0] * 13, i]) for i in range(24)]
MODES: list[dict[str, Any]] = [
    {"schedule": True},
    {"schedule": True, "sample": 3},
    {"idle": 5 * SECOND, "active": 10 * SECOND},
    {"bidirectional": True, "idle": 5 * SECOND, "active": 10 * SECOND},
]


@pytest.mark.parametrize("capacity", [64, 65, 81, 200])
@pytest.mark.parametrize("mode", range(len(MODES)))
def test_links_sides_and_counts_hold_whatever_comes(capacity: int, mode: int) -> None:
    rng = random.Random(capacity * 10 + mode)
    table = FlowTester(capacity=capacity, seed=capacity, **MODES[mode])
    now = 1_700_000_000 * SECOND
    sent = octets = rested = 0
    records = []
    for _ in range(80):
        # few hosts let the table empty itself and entries rest, many throw flows out
        hosts = rng.choice([2, 24])
        for _ in range(rng.randrange(1, 256)):
            ends = rng.sample(range(hosts), 2) if rng.random() < 0.95 else [0, 0]
            addresses = SIX if rng.random() < 0.2 else FOUR
            proto = rng.choice([6, 17, 17, 17, 1])
            ports = (0, 0) if proto == 1 else (rng.randrange(2), rng.randrange(2))
            now += rng.choice([0, 10**6, 10**8, -SECOND])
            packets, size = rng.choice([1, 1, 3, 65000]), rng.randrange(20, 1500)
            table.add(
                addresses[ends[0]], addresses[ends[1]], *ports, proto, now, size,
                flags=rng.choice([1, 2, 4, 16, 17, 18, 24]) if proto == 6 else 0, seq=rng.randrange(1 << 32),
                payload=rng.choice([0, 10]), window=rng.randrange(1 << 16), packets=packets,
                fragments=packets if packets > 1 else 0, direction=rng.randrange(3),
            )  # fmt: skip
            sent += packets
            octets += size
        records += table.go(room=rng.choice([4, 5, 1 << 30]))
        now += rng.choice([0, 0, 0, 15, 31, 61, 90, 10**5, -100]) * SECOND
        if rng.random() < 0.3:
            records += table.tick(now)
        elif rng.random() < 0.03:
            records += table.finish(room=4)
        rested = max(rested, table.resting)
        stats = table.stats()
        assert table.faults() == []
        assert stats["top"] <= capacity
        assert stats["packets"] + stats["ignored"] == sent
        assert stats["bytes"] + stats["ignored_bytes"] == octets
        out = [sum(r[side][what] for r in records for side in ("out", "in")) for what in ("packets", "bytes")]
        assert out == [stats["packets"] - stats["open_packets"], stats["bytes"] - stats["open_bytes"]]
    assert stats["evicted"]
    assert bool(rested) == ("schedule" in MODES[mode])
    table.finish(room=4)
    stats = table.stats()
    assert (stats["active"], stats["open_packets"], stats["trackers"], table.faults()) == (0, 0, 0, [])

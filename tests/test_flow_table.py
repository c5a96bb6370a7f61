"""The flow table against a dict: what goes in comes out, however small the table and slow the reader."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe._core.flow_tester import FlowTester

SECOND = 10**9
IDLE, ACTIVE, SCHEDULE, DECODED, EVICTED, END = range(6)
IN, OUT, UNKNOWN = range(3)
ADDRESSES = [bytes([10, 0, 0, i]) for i in range(4)] + [
    bytes([10, 0, 0, 1] + [0] * 11 + [i]) for i in range(3)
]
Packet = dict[str, Any]


def key_of(p: Packet) -> tuple[Any, ...]:
    return (p["proto"], p["src"].ljust(16, b"\0"), p["sport"], p["dst"].ljust(16, b"\0"), p["dport"], p["l3"])


def back(key: tuple[Any, ...]) -> tuple[Any, ...]:
    proto, src, sport, dst, dport, l3 = key
    return (proto, dst, dport, src, sport, l3)


@st.composite
def traffic(draw: st.DrawFn, jumps: bool = True) -> list[Packet]:
    """Packets in order of time among few endpoints, so that flows meet again, with gaps of every size."""
    out = []
    now = draw(st.integers(0, 4)) * SECOND + draw(st.integers(0, 999_999_999))
    for _ in range(draw(st.integers(1, 60))):
        family = draw(st.sampled_from([ADDRESSES[:4], ADDRESSES[4:]]))
        src, dst = draw(st.sampled_from(family)), draw(st.sampled_from(family))
        proto = draw(st.sampled_from([1, 6, 17, 47]))
        ports = (draw(st.integers(1, 2)), draw(st.integers(1, 2))) if proto in (6, 17) else (0, 0)
        out.append(
            {
                "src": src,
                "dst": dst,
                "l3": 4 if len(src) == 4 else 6,
                "sport": ports[0],
                "dport": ports[1],
                "proto": proto,
                "ts": now,
                "size": draw(st.integers(20, 65535)),
                "flags": draw(st.integers(0, 255)) if proto == 6 else 0,
                "tos": draw(st.integers(0, 255)),
            }
        )
        gap = st.sampled_from([0, 1, SECOND // 2, 3 * SECOND, 11 * SECOND, 40 * SECOND])
        now += draw(gap) if jumps else draw(st.integers(0, SECOND))
    return out


def feed(table: FlowTester, packets: list[Packet], room: int = 1 << 30) -> list[dict[str, Any]]:
    got = []
    for start in range(0, len(packets), 7):
        for p in packets[start : start + 7]:
            table.add(
                p["src"],
                p["dst"],
                p["sport"],
                p["dport"],
                p["proto"],
                p["ts"],
                p["size"],
                flags=p["flags"],
                tos=p["tos"],
                direction=p.get("direction", UNKNOWN),
            )
        got += table.go(room)
    return got


def model(packets: list[Packet], bidirectional: bool, idle: int, active: int) -> Counter[tuple[Any, ...]]:
    """RFC-like flow records, kept in a dict and never looked at between packets."""
    open_: dict[Any, dict[str, Any]] = {}
    done: Counter[tuple[Any, ...]] = Counter()

    def close(flow: dict[str, Any]) -> None:
        if flow["n"]:
            done[
                (*flow["key"], flow["first"], flow["last"], *map(tuple, flow["out"]), *map(tuple, flow["in"]))
            ] += 1
        flow.update(n=0, out=[[0, 0], [0, 0]], **{"in": [[0, 0], [0, 0]]})

    for p in packets:
        key = key_of(p)
        at = key
        if bidirectional and key not in open_ and back(key) in open_:
            at = back(key)
        flow = open_.get(at)
        if flow and p["ts"] - flow["seen"] >= idle:
            close(open_.pop(at))
            flow, at = None, key
        if flow and active and flow["n"] and p["ts"] - flow["first"] >= active:
            close(flow)
        if flow is None:
            flow = open_[at] = {"key": at}
            flow.update(n=0, out=[[0, 0], [0, 0]], **{"in": [[0, 0], [0, 0]]})
        if not flow["n"]:
            flow["first"] = p["ts"]
        flow["last"] = flow["seen"] = p["ts"]
        flow["n"] += 1
        side = flow["out"] if at == key else flow["in"]
        side[0][0] += 1
        side[0][1] += p["size"]
        side[1][0] |= p["flags"]
        side[1][1] |= p["tos"]
    for flow in open_.values():
        close(flow)
    return done


def as_model(records: list[dict[str, Any]]) -> Counter[tuple[Any, ...]]:
    def side(s: dict[str, Any]) -> tuple[Any, ...]:
        return (s["packets"], s["bytes"]), (s["tcp_flags"], s["tos"])

    return Counter((*key_of(r), r["first"], r["last"], *side(r["out"]), *side(r["in"])) for r in records)


def law(table: FlowTester, packets: list[Packet], records: list[dict[str, Any]]) -> None:
    """Packets and bytes in = exported + still open, and the table's counters say so too."""
    s = table.stats()
    out = sum(r["out"]["packets"] + r["in"]["packets"] for r in records)
    size = sum(r["out"]["bytes"] + r["in"]["bytes"] for r in records)
    assert s["packets"] + s["ignored"] == len(packets)
    assert s["bytes"] + s["ignored_bytes"] == sum(p["size"] for p in packets)
    assert (s["out_packets"], s["out_bytes"]) == (out, size)
    assert (out + s["open_packets"], size + s["open_bytes"]) == (s["packets"], s["bytes"])
    assert s["records"] == len(records) == sum(s["by_reason"])
    assert s["by_reason"] == [Counter(r["reason"] for r in records)[i] for i in range(6)]


@given(traffic(), st.booleans(), st.sampled_from([0, 5, 30]), st.sampled_from([4, 1 << 30]))
@settings(max_examples=300, deadline=None)
def test_equals_dict_model(packets: list[Packet], bidirectional: bool, active: int, room: int) -> None:
    table = FlowTester(
        capacity=1000, bidirectional=bidirectional, idle=10 * SECOND, active=active * SECOND, seed=7
    )
    records = feed(table, packets, room) + table.finish(room)
    want = model(packets, bidirectional, 10 * SECOND, active * SECOND)
    assert as_model(records) == want
    law(table, packets, records)
    assert table.stats()["active"] == 0 and table.stats()["trackers"] == 0


@given(
    st.integers(0, 2**32),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 3]),
    st.sampled_from([4, 64, 1 << 30]),
)
@settings(max_examples=60, deadline=None)
def test_law_under_pressure(seed: int, bidirectional: bool, schedule: bool, sample: int, room: int) -> None:
    """A table of 64 cells under thousands of flows: nothing is lost, nothing is counted twice."""
    rng = random.Random(seed)
    packets = []
    now = 0
    for _ in range(3000):
        a, b = rng.randrange(300), rng.randrange(300)
        packets.append(
            {
                "src": a.to_bytes(4, "big"),
                "dst": b.to_bytes(4, "big"),
                "l3": 4,
                "sport": 1,
                "dport": 2,
                "proto": rng.choice([6, 17]),
                "ts": now,
                "size": rng.randrange(40, 1500),
                "flags": rng.choice([2, 16, 17]),
                "tos": 0,
                "direction": rng.randrange(3),
            }
        )
        now += rng.randrange(SECOND // 10)
    table = FlowTester(
        capacity=64,
        bidirectional=bidirectional,
        schedule=schedule,
        sample=sample,
        idle=20 * SECOND,
        seed=seed,
    )
    records = feed(table, packets, room)
    law(table, packets, records)
    assert table.stats()["active"] <= 64 and table.stats()["evicted"] > 500
    records += table.finish(room)
    law(table, packets, records)
    s = table.stats()
    assert s["open_packets"] == s["active"] == s["trackers"] == 0
    if not sample:
        per_key = Counter[Any]()
        for p in packets:
            per_key[key_of(p)] += 1
        got = Counter[Any]()
        for r in records:
            here = key_of(r)
            if bidirectional and not schedule:  # the schedule knows no pairs
                got[here] += r["out"]["packets"]
                got[back(here)] += r["in"]["packets"]
            else:
                got[here] += r["out"]["packets"] + r["in"]["packets"]
        assert +got == per_key


def test_flood_keeps_memory_flat() -> None:
    table = FlowTester(capacity=1000, idle=3600 * SECOND)
    total = 50_000
    for start in range(0, total, 250):
        for i in range(start, start + 250):
            table.add(i.to_bytes(4, "big"), b"\x0a\0\0\1", 1000, 53, 17, i, 100)
        table.go()
    s = table.stats()
    assert (s["active"], s["top"]) == (1000, 1000)
    assert s["slots"] <= 4096
    assert s["evicted"] == s["records"] == s["by_reason"][EVICTED] == total - 1000
    assert s["out_packets"] + s["open_packets"] == total


def test_eviction_spares_flows_that_live() -> None:
    """Ten flows with a packet in every hundred survive a flood through a table of a thousand cells."""
    table = FlowTester(capacity=1000, idle=3600 * SECOND)
    lost = []
    for i in range(20_000):
        table.add(i.to_bytes(4, "big"), b"\x0a\0\0\1", 1000, 53, 17, i * 1000, 100)
        if i % 100 == 0:
            for k in range(10):
                table.add(b"\xc0\0\0" + bytes([k]), b"\x0a\0\0\1", 1, 2, 17, i * 1000, 100)
            lost += table.go()
    assert len(lost) > 15_000
    assert not [r for r in lost if r["sport"] == 1]


def test_pairs_are_evicted_together() -> None:
    table = FlowTester(capacity=64, bidirectional=True, idle=3600 * SECOND)
    records = []
    for i in range(200):
        a = i.to_bytes(4, "big")
        table.add(a, b"\x0a\0\0\1", 7, 8, 17, 2 * i, 100)
        table.add(b"\x0a\0\0\1", a, 8, 7, 17, 2 * i + 1, 50)
        if i % 50 == 49:
            records += table.go()
    records += table.finish()
    evicted = [r for r in records if r["reason"] == EVICTED]
    assert len(records) == 200 and len(evicted) == 200 - 32
    assert all((r["out"]["bytes"], r["in"]["bytes"]) == (100, 50) for r in records)


def test_passes_report_without_packets() -> None:
    """A tick (wall clock, or any other flow's packet) expires what is silent and reports what is old."""
    table = FlowTester(idle=10 * SECOND, active=25 * SECOND, bidirectional=True)
    a, b = b"\x0a\0\0\1", b"\x0a\0\0\2"
    table.add(a, b, 1, 2, 17, 0)
    assert table.go() == []
    assert table.tick(9_900_000_000) == []
    (r,) = table.tick(11 * SECOND)
    assert (r["reason"], r["first"], r["last"]) == (IDLE, 0, 0)
    for i in range(13):
        table.add(a, b, 1, 2, 17, (20 + 2 * i) * SECOND)
    assert table.go() == []
    (r,) = table.tick(46 * SECOND)
    assert (r["reason"], r["first"], r["last"]) == (ACTIVE, 20 * SECOND, 44 * SECOND)
    assert table.tick(53 * SECOND) == [] and table.stats()["active"] == 1
    # nothing came since: the flow ends without another record
    assert table.tick(60 * SECOND) == [] and table.stats()["active"] == 0


def test_memory_of_a_burst_is_left_behind() -> None:
    table = FlowTester(capacity=5000, idle=SECOND)
    for start in range(0, 4000, 250):
        for i in range(start, start + 250):
            table.add(i.to_bytes(4, "big"), b"\x0a\0\0\1", 1, 2, 17, start)
        table.go()
    assert table.stats()["top"] == 4000
    table.add(b"\xff\0\0\1", b"\x0a\0\0\1", 1, 2, 17, 20 * SECOND)
    assert len(table.go()) == 4000
    table.add(b"\xff\0\0\1", b"\x0a\0\0\1", 1, 2, 17, 22 * SECOND)
    table.go()
    table.add(b"\xff\0\0\2", b"\x0a\0\0\1", 1, 2, 17, 30 * SECOND)
    table.go()
    assert table.tick(40 * SECOND) is not None
    assert table.stats()["top"] == 0
    # and the table works on
    packets = 300
    for start in range(0, packets, 100):
        for i in range(start, start + 100):
            table.add(i.to_bytes(4, "big"), b"\x0a\0\0\1", 1, 2, 17, 50 * SECOND)
        table.go()
    assert table.stats()["active"] == packets and len(table.finish()) == packets


def test_clock_set_back() -> None:
    """A stamp from the far future must not silence the timers after it."""
    table = FlowTester(idle=10 * SECOND)
    a, b = b"\x0a\0\0\1", b"\x0a\0\0\2"
    table.add(a, b, 1, 2, 17, 100 * SECOND)
    table.add(a, b, 3, 4, 17, 10_000 * SECOND)
    table.add(a, b, 1, 2, 17, 101 * SECOND)
    first = table.go()
    assert [r["sport"] for r in first] == [1]
    table.add(a, b, 5, 6, 17, 120 * SECOND)
    assert [(r["sport"], r["last"]) for r in table.go()] == [(1, 101 * SECOND)]


# --- kprobe's schedule (spec 4.4) ---------------------------------------------------------------------------


def deadlines(seed: int) -> tuple[int, list[dict[str, Any]]]:
    """When the first packet's record comes out, and all records of a flow with a packet per second."""
    table = FlowTester(schedule=True, seed=seed)
    got = []
    for t in range(80):
        table.add(b"\x0a\0\0\1", b"\x0a\0\0\2", 1, 2, 17, t * SECOND)
        for r in table.go():
            got.append({**r, "at": t})
    return got[0]["at"], got


def test_first_deadline_is_0_to_15_seconds() -> None:
    seen = Counter(deadlines(seed)[0] for seed in range(300))
    # passes run every 2 s from 0 on, so a deadline of 3 s shows at 4 s
    assert set(seen) == {0, 2, 4, 6, 8, 10, 12, 14, 16}
    assert seen[0] < 45 and seen[16] < 45 and min(seen[k] for k in range(2, 15, 2)) > 15


def test_active_flow_is_reported_every_15_seconds() -> None:
    for seed in range(20):
        _, got = deadlines(seed)
        ats = [r["at"] for r in got]
        assert all(14 <= b - a <= 16 for a, b in pairwise(ats))
        assert {r["reason"] for r in got} == {SCHEDULE}
        assert sum(r["out"]["packets"] for r in got) == got[-1]["at"] + 1


def test_deadline_after_a_gap_is_ahead() -> None:
    """D18: one record after the gap, then every 15 s again, in the rhythm of the first deadline."""
    for seed in range(20):
        table = FlowTester(schedule=True, seed=seed)
        ats = []
        for t in [*range(30), *range(50, 90)]:
            table.add(b"\x0a\0\0\1", b"\x0a\0\0\2", 1, 2, 17, t * SECOND)
            ats += [t for _ in table.go()]
        late = [t for t in ats if t >= 50]
        assert all(b - a >= 14 for a, b in pairwise(late[1:]))
        assert len(late) <= 4


def test_idle_entries_are_compacted() -> None:
    """Spec 10.3: entries with an old deadline and no packets are gone after the pass at 30 s, others stay."""
    table = FlowTester(schedule=True)
    for port in (1, 2):
        table.add(b"\x0a\0\0\1", b"\x0a\0\0\2", port, 9, 17, 0)
    table.go()
    for t in range(2, 121, 2):
        table.tick(t * SECOND)
    assert table.stats()["active"] == 0
    assert table.stats()["out_packets"] == 2
    for port in (1, 2):
        table.add(b"\x0a\0\0\1", b"\x0a\0\0\2", port, 9, 17, 151 * SECOND)
    table.go()
    table.tick(152 * SECOND)
    assert table.stats()["active"] == 2


def test_records_of_the_schedule_are_unidirectional_by_direction() -> None:
    table = FlowTester(schedule=True)
    a, b = b"\x0a\0\0\1", b"\x0a\0\0\2"
    table.add(a, b, 1, 2, 6, 0, 60, direction=IN, tos=1, flags=2)
    table.add(a, b, 1, 2, 6, 1, 70, direction=OUT, tos=2, flags=16)
    table.add(b, a, 2, 1, 6, 2, 80, direction=OUT)
    table.add(a, b, 0, 2048, 1, 3, 90, direction=UNKNOWN)
    records = {(r["proto"], r["sport"]): r for r in table.go() + table.finish()}
    r = records[6, 1]
    assert (r["in"]["packets"], r["in"]["bytes"], r["out"]["packets"]) == (2, 130, 0)
    assert (r["in"]["tos"], r["in"]["tcp_flags"]) == (3, 18)
    assert (records[6, 2]["out"]["bytes"], records[6, 2]["in"]["bytes"]) == (80, 0)
    assert (records[1, 0]["out"]["bytes"], records[1, 0]["dport"]) == (90, 2048)


def test_entry_keeps_what_its_first_packet_said() -> None:
    table = FlowTester(schedule=True)
    macs = bytes(range(6)), bytes(range(6, 12))
    args = (b"\x0a\0\0\1", b"\x0a\0\0\2", 1, 2, 17)
    table.add(*args, 0, smac=macs[0], dmac=macs[1], vlan=5)
    table.add(*args, 1, smac=macs[1], dmac=macs[0], vlan=6)
    (r,) = table.go() + table.finish()
    assert (r["smac"], r["dmac"], r["vlan"]) == (*macs, 5)


def test_fragments_add_up() -> None:
    table = FlowTester(schedule=True)
    args = (b"\x0a\0\0\1", b"\x0a\0\0\2", 1, 2, 17)
    table.add(*args, 0, 3060, packets=3, fragments=3)
    table.add(*args, 1, 1500, packets=2, fragments=2)
    table.add(*args, 2, 100)
    (r,) = table.go() + table.finish()
    assert (r["fragments"], r["out"]["packets"], r["out"]["bytes"]) == (5, 6, 4660)


# --- sampling (spec 3.10) -----------------------------------------------------------------------------------

EXPORT, DECODE, IGNORE = range(3)


@pytest.mark.parametrize(
    "proto, allowed",
    [
        (6, {(EXPORT, EXPORT), (EXPORT, DECODE), (DECODE, EXPORT), (IGNORE, IGNORE)}),
        (17, {(EXPORT, EXPORT), (EXPORT, DECODE), (DECODE, EXPORT), (IGNORE, IGNORE)}),
        (1, {(EXPORT, EXPORT), (EXPORT, IGNORE), (IGNORE, EXPORT), (IGNORE, IGNORE)}),
    ],
)
def test_sampling_verdicts(proto: int, allowed: set[tuple[int, int]]) -> None:
    table = FlowTester(capacity=1000, schedule=True, sample=2)
    seen = Counter()
    for i in range(99):
        a, b = i.to_bytes(4, "big"), b"\x0a\0\0\1"
        ports = (i + 1, 443) if proto != 1 else (0, 0)
        own = table.add(a, b, ports[0], ports[1], proto, i, 60)
        other = table.add(b, a, ports[1], ports[0], proto, i, 60)
        table.go()
        seen[own, other] += 1
    assert set(seen) == allowed
    s = table.stats()
    exported = sum(n * list(pair).count(EXPORT) for pair, n in seen.items())
    assert s["packets"] == exported and s["packets"] + s["ignored"] == 198


def test_one_flow_in_n_and_always_the_same() -> None:
    table = FlowTester(capacity=100_000, schedule=True, sample=10, seed=3)
    verdicts: dict[int, set[int]] = {}
    for repeat in range(2):
        for i in range(20_000):
            got = table.add(i.to_bytes(4, "big"), b"\x0a\0\0\1", 1, 2, 47, repeat, 60)
            verdicts.setdefault(i, set()).add(got)
            if i % 200 == 199:
                table.go()
    assert all(len(v) == 1 for v in verdicts.values())
    kept = sum(v == {EXPORT} for v in verdicts.values())
    assert 1800 < kept < 2200  # 2000 expected, 42 is one standard deviation
    assert {r["sample_rate"] for r in table.finish()} == {10}


# --- connection ids (spec 5.2) ------------------------------------------------------------------------------


def ids(**more: Any) -> list[int]:
    """Connection ids of both directions of one conversation."""
    table = FlowTester(schedule=True, seed=more.pop("seed", 1))
    macs = {"smac": b"\2\0\0\0\0\1", "dmac": b"\2\0\0\0\0\2"}
    swapped = {"smac": macs["dmac"], "dmac": macs["smac"]}
    proto = more.pop("proto", 6)
    a, b = b"\x0a\0\0\1", b"\x0a\0\0\2"
    directions = more.pop("directions", (OUT, IN))
    table.add(a, b, 1, 2, proto, 0, direction=directions[0], **macs, **more)
    table.add(b, a, 2, 1, proto, 0, direction=directions[1], **swapped, **more)
    return [r["connection_id"] for r in table.go() + table.finish()]


def test_connection_id() -> None:
    for proto in (6, 17):
        for directions in ((OUT, IN), (IN, OUT), (UNKNOWN, UNKNOWN)):
            one, two = ids(proto=proto, directions=directions, vlan=7)
            assert one == two != 0
    assert ids(proto=47) == [0, 0]
    assert len({ids(vlan=v, proto=p, seed=s)[0] for v in (0, 1) for p in (6, 17) for s in (1, 2)}) == 8


def test_connection_ids_differ() -> None:
    table = FlowTester(capacity=20_000)
    for i in range(10_000):
        table.add(i.to_bytes(4, "big"), b"\x0a\0\0\1", 1, 2, 17, 0)
        if i % 200 == 199:
            assert table.go() == []
    found = {r["connection_id"] for r in table.finish()}
    # 10,000 of 2**32: 0.01 collisions expected
    assert len(found) >= 9_998

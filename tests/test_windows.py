"""Periods, rates, sampling and the order of rows, against models in Python (metrics spec 1.4, 2)."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netprobe

NS = 10**9
START = 1_700_000_000 * NS
RANKS = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}


def frame(i: int) -> bytes:
    """UDP between two of a few addresses: several shards get something."""
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 28, 0, 0, 64, 17, 0)
    return (
        bytes(12)
        + b"\x08\x00"
        + ip
        + bytes([10, 0, 0, 1 + i * 7 % 13, 10, 0, 1, 1 + i * 3 % 5])
        + struct.pack(">HHHH", 1, 2, 8, 0)
    )


def capture(path: Path, stamps: Sequence[int], frame: Callable[[int], bytes] = frame) -> Path:
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)]
    for i, stamp in enumerate(stamps):
        data = frame(i)
        out += [struct.pack("<IIII", stamp // NS, stamp % NS, len(data), len(data)), data]
    path.write_bytes(b"".join(out))
    return path


class Bucket(NamedTuple):
    start: int
    end: int
    stamps: list[int]

    def seconds(self) -> list[int]:
        """Packets in each whole second of the bucket; older stamps count in the first."""
        counts = [0] * ((self.end - self.start) // NS)
        for stamp in self.stamps:
            second = max(stamp - self.start, 0) // NS
            if second < len(counts):
                counts[second] += 1
        return counts


def buckets(stamps: Sequence[int], periods: int) -> list[Bucket]:
    """The buckets that are kept, newest last."""
    found: list[Bucket] = []
    start, held = stamps[0], []
    for stamp in stamps:
        if periods > 1 and stamp // NS >= start // NS + 60:
            found.append(Bucket(start, stamp, held))
            start, held = stamp, []
        held.append(stamp)
    found.append(Bucket(start, max(max(held), start), held))
    return found[-periods:]


def jumps() -> st.SearchStrategy[int]:
    """Steps between packets: none, fractions, around the edges, silences, backwards, years both ways."""
    edge = st.sampled_from([-1, 0, 1]).map(lambda off: 60 * NS + off)
    return st.one_of(
        st.integers(0, 3 * NS),
        st.integers(0, 3 * NS),
        st.integers(-5 * NS, 0),
        st.integers(0, 100).map(lambda s: s * NS),
        edge,
        st.sampled_from([-400 * 86400 * NS, 3600 * NS, 10 * 365 * 86400 * NS, 59 * NS, NS]),
    )


def walk(steps: Sequence[int]) -> list[int]:
    stamps = [START]
    for step in steps:
        # a pcap file has 32 bits for the second
        stamps.append(min(max(stamps[-1] + step, 0), (2**32 - 1) * NS))
    return stamps


def rate_of(values: list[int]) -> dict[str, int] | None:
    values = sorted(values)
    if not values:
        return None
    return {key: values[max(math.ceil(rank * len(values) / 100), 1) - 1] for key, rank in RANKS.items()}


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(jumps(), max_size=60),
    periods=st.integers(1, 10),
    workers=st.sampled_from([1, 1, 2, 3]),
)
def test_windows(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], periods: int, workers: int
) -> None:
    stamps = walk(steps)
    path = capture(tmp_path_factory.mktemp("windows") / "f.pcap", stamps)
    summary = netprobe.summarize(path, handlers=["net", "dns"], periods=periods, workers=workers)
    want = buckets(stamps, periods)
    document = summary.to_dict()[f"{periods}m"]
    body = document["packets"]
    assert body["total"] == body["events"] == sum(len(bucket.stamps) for bucket in want)
    assert body["period"] == document["dns"]["period"]
    assert body["period"]["start_ts"] == min(bucket.start for bucket in want) // NS
    assert body["period"]["length"] == sum(bucket.end // NS - bucket.start // NS for bucket in want)
    # a sketch is exact up to some hundred values
    if sum((bucket.end - bucket.start) // NS for bucket in want) < 150:
        assert body.get("rates", {}).get("pps_total") == rate_of(
            [count for bucket in want for count in bucket.seconds()]
        )


def test_stamps_that_end_early(tmp_path: Path) -> None:
    """The newest stamp ends the window, also when older ones follow it."""
    path = capture(tmp_path / "f.pcap", [START, START + 40 * NS, START + 5 * NS])
    body = netprobe.summarize(path, handlers="net").to_dict()["5m"]["packets"]
    assert body["period"] == {"start_ts": START // NS, "length": 40}
    assert body["rates"]["pps_total"] == {"p50": 0, "p90": 0, "p95": 0, "p99": 1}


def test_ten_years_of_silence(tmp_path: Path) -> None:
    """One rotation, one weighted zero: no work for each second."""
    stamps = [START, START + NS, START + 10 * 365 * 86400 * NS, START + 10 * 365 * 86400 * NS + NS]
    path = capture(tmp_path / "f.pcap", stamps)
    for periods in (1, 2):
        summary = netprobe.summarize(path, handlers="net", periods=periods)
        body = summary.to_dict()[f"{periods}m"]["packets"]
        assert body["total"] == 4
        assert body["rates"]["pps_total"] == {"p50": 0, "p90": 0, "p95": 0, "p99": 0}
        assert body["period"]["length"] == 10 * 365 * 86400 + 1
        assert summary.stats["periods"] == periods


# --- deep sampling ---


def jsf32() -> Iterator[int]:
    """Jenkins's small fast generator, 32 bits, as published (2007), with the seed of upstream's default."""
    mask = 2**32 - 1

    def rot(x: int, k: int) -> int:
        return (x << k | x >> (32 - k)) & mask

    a, b, c, d = 0xF1EA5EED, 1, 1, 1
    for turn in range(2**32):
        e = (a - rot(b, 27)) & mask
        a = b ^ rot(c, 17)
        b = (c + d) & mask
        c = (d + e) & mask
        d = (e + a) & mask
        if turn >= 20:
            yield d


@pytest.mark.parametrize("rate", [1, 7, 50, 99, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_deep_sampling(tmp_path: Path, rate: int, workers: int) -> None:
    stamps = [START + i * NS // 10 for i in range(5000)]
    path = capture(tmp_path / "f.pcap", stamps)
    options: dict[str, Any] = {"handlers": "net", "hosts": "10.0.1.0/24", "periods": 1, "workers": workers}
    body = netprobe.summarize(path, deep_sample_rate=rate, **options).to_dict()["1m"]["packets"]
    numbers = jsf32()
    deep = [i for i in range(5000) if rate == 100 or next(numbers) % 100 < rate]
    assert body["deep_samples"] == len(deep)
    assert body["total"] == body["in"] == 5000
    sources: dict[str, int] = {}
    for i in deep:
        name = f"10.0.0.{1 + i * 7 % 13}"
        sources[name] = sources.get(name, 0) + 1
    assert body["cardinality"]["src_ips_in"] == len(sources)
    top = sorted(sources.values(), reverse=True)[:10]
    assert [row["estimate"] for row in body["top_ipv4"]] == top
    for row in body["top_ipv4"]:
        assert row["estimate"] == sources[row["name"]]


# --- rows of equal counts ---


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equal_rows_stand_in_the_order_of_their_keys(tmp_path: Path, workers: int, seed: int) -> None:
    """Not in that of their arrival: two runs over the same packets give the same document."""
    peers = [*range(1, 31)] * 2 + [7, 23]
    random.Random(seed).shuffle(peers)

    def from_peer(i: int) -> bytes:
        data = frame(i)
        return data[:26] + bytes([10, 0, 0, peers[i]]) + data[30:]

    path = capture(tmp_path / "f.pcap", [START + i for i in range(len(peers))], from_peer)
    document = netprobe.summarize(path, handlers="net", hosts="10.0.1.0/24", workers=workers).to_dict()
    rows = document["5m"]["packets"]["top_ipv4"]
    order = [7, 23, 1, 2, 3, 4, 5, 6, 8, 9]
    assert rows == [{"name": f"10.0.0.{peer}", "estimate": 3 if peer in (7, 23) else 2} for peer in order]

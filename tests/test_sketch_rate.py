"""Rate, Histogram and Counter against counting by hand."""

import math
import pickle
import random
import struct
import time
from collections import Counter as Tally

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe.sketches import Counter, Histogram, Rate, boundaries

SECOND = 10**9
START = 1_600_000_000 * SECOND
RANKS = (0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0)


def samples(stamps, start, end):
    """Events of every whole second of [start, end), and how many seconds that are; without the zeros."""
    whole = max(0, (end - start) // SECOND)
    tally = Tally(max(0, (ts - start) // SECOND) for ts in stamps)
    return [n for second, n in tally.items() if second < whole], whole


def exact(values, zeros, rank):
    """Inclusive quantile of the values and so many zeros."""
    position = max(1, math.ceil(rank * (len(values) + zeros)))
    return 0 if position <= zeros else sorted(values)[position - zeros - 1]


def check(rate, stamps, start, end):
    values, whole = samples(stamps, start, end)
    rate.close(end)
    assert rate.seconds == whole
    assert rate.sum == sum(values)
    if whole == 0:
        assert rate.quantiles() is None
    else:
        assert rate.quantiles(RANKS) == [exact(values, whole - len(values), rank) for rank in RANKS]


STEPS = st.tuples(st.sampled_from([0, 10**5, 10**8, 10**9, 3 * 10**9, 86400 * 10**9]), st.integers(0, 10**9))


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=120), st.integers(0, 5 * 10**9))
def test_samples_are_whole_seconds(steps, tail):
    ts, stamps = START, []
    for step, part in steps:
        ts += step + part
        stamps.append(ts)
    rate = Rate(START)
    for stamp in stamps:
        rate.update(stamp)
    check(rate, stamps, START, ts + tail)


def test_less_than_a_second_is_no_sample():
    rate = Rate(START)
    rate.update(START + 5)
    rate.update(START + SECOND - 1)
    check(rate, [START] * 2, START, START + SECOND - 1)
    rate = Rate(START)
    rate.update(START + 5)
    check(rate, [START], START, START + SECOND)
    assert rate.quantiles() == [1, 1, 1, 1]


def test_nothing_at_all():
    assert Rate().quantiles() is None
    assert (Rate().start, Rate().seconds, Rate().sum) == (None, 0, 0)
    rate = Rate(START)
    rate.close(START - 5 * SECOND)
    assert rate.seconds == 0
    rate = Rate(START)
    rate.close(START + 3 * SECOND)
    assert rate.quantiles() == [0, 0, 0, 0]


def test_ten_years_cost_nothing():
    rate = Rate(START)
    stamps = [START, START, START + SECOND, START + 315_360_000 * SECOND, START + 315_360_001 * SECOND]
    began = time.perf_counter()
    for stamp in stamps:
        rate.update(stamp)
    check(rate, stamps, START, stamps[-1] + SECOND)
    assert time.perf_counter() - began < 0.2
    assert len(rate.serialize()) < 2000


def test_the_whole_range_of_time():
    rate = Rate(-(2**63))
    for ts in (2**63 - 1, 0, -(2**63), -(2**63) + 1, 2**63 - 1):
        rate.update(ts)
    assert sum(n for _, n in rate.per_second()) == 5
    rate.close(2**63 - 1)
    assert rate.seconds == (2**64 - 1) // SECOND
    assert rate.sum == 3
    late = Rate()
    late.update(-(2**63))
    late.update(-(2**63) + 2 * SECOND)
    assert late.seconds == 2


def test_older_stamps():
    rate = Rate(START)
    stamps = [START + offset for offset in (5 * SECOND, 2 * SECOND, -7 * SECOND, 5 * SECOND + 1, SECOND)]
    for stamp in stamps:
        rate.update(stamp)
    assert rate.per_second() == [(START + s * SECOND, n) for s, n in ((0, 1), (1, 1), (2, 1), (5, 2))]
    check(rate, stamps, START, START + 9 * SECOND)


def test_live_reading_leaves_the_newest_second_out():
    rate = Rate()
    rate.update(np.array([START, START + 1, START + SECOND, START + 2 * SECOND]))
    assert (rate.seconds, rate.sum, rate.quantiles([0, 1])) == (2, 3, [1, 2])
    rate.update(START + 2 * SECOND)
    assert rate.per_second()[-1] == (START + 2 * SECOND, 2)
    assert not rate.is_closed


def test_closed_is_closed():
    rate = Rate(START)
    rate.update(START, 4)
    rate.close(START + SECOND)
    assert rate.is_closed
    with pytest.raises(ValueError, match="closed"):
        rate.update(START + 5)
    rate.close(START + 10 * SECOND)
    assert (rate.seconds, rate.sum) == (1, 4)


OFFSETS = st.lists(st.integers(-3 * 10**9, 150 * 10**9), min_size=1, max_size=300)


@settings(max_examples=60, deadline=None)
@given(OFFSETS, st.integers(1, 6), st.booleans())
def test_shards_add_up_to_the_whole(offsets, shards, own_starts):
    stamps = sorted(START + offset for offset in offsets)
    parts = [Rate(None if own_starts else START) for _ in range(shards)]
    whole = Rate(None if own_starts else START)
    for i, stamp in enumerate(stamps):
        parts[i * 7919 % shards].update(stamp)
        whole.update(stamp)
    for turn in range(shards):
        merged = Rate.deserialize(parts[turn].serialize())
        for i in range(1, shards):
            merged.merge(parts[(turn + i) % shards], same_span=True)
        assert merged.start == whole.start
        assert merged.per_second() == whole.per_second()
        begin = START if not own_starts else stamps[0] // SECOND * SECOND
        check(merged, stamps, begin, START + 160 * SECOND)


def test_other_spans_stand_side_by_side():
    first, second = Rate(START), Rate(START + 100 * SECOND)
    first.update(np.repeat(START + np.arange(10) * SECOND, 3))
    second.update(np.repeat(START + np.arange(100, 110) * SECOND, 5))
    first.close(START + 10 * SECOND)
    second.close(START + 110 * SECOND)
    for a, b in ((first, second), (second, first)):
        merged = Rate.deserialize(a.serialize())
        merged.merge(b)
        assert (merged.seconds, merged.sum, merged.start) == (20, 80, START)
        assert merged.quantiles([0.5, 0.51]) == [3, 5]
    empty = Rate()
    empty.merge(first)
    assert (empty.seconds, empty.sum) == (10, 30)


def test_rows_are_bounded():
    seconds = 50_000
    counts = np.random.default_rng(1).integers(1, 100, seconds)
    rate = Rate(START)
    for second, n in enumerate(counts.tolist()):
        rate.update(START + second * SECOND, n)
    kept = rate.per_second()
    assert len(kept) <= 16384
    # what is folded is not lost, and a stamp for it counts in the oldest second that is kept
    oldest, before = kept[0]
    rate.update(START + 5 * SECOND)
    assert rate.per_second()[0] == (oldest, before + 1)
    rate.close(START + seconds * SECOND)
    assert (rate.seconds, rate.sum) == (seconds, counts.sum() + 1)
    ordered = np.sort(counts)
    for rank in (0.1, 0.5, 0.9, 0.99):
        value = rate.quantiles([rank])[0]
        low, high = (np.searchsorted(ordered, value, side) / seconds for side in ("left", "right"))
        assert low - 0.0133 <= rank <= high + 0.0133


def test_shards_whose_rows_are_folded():
    seconds = 30_000
    load = 200 + 150 * np.sin(np.arange(seconds) / 3000)
    a, b = (load * 0.6).astype(int), (load * 0.4).astype(int)
    parts = [Rate(START), Rate(START)]
    for part, counts in zip(parts, (a, b), strict=True):
        for second, n in enumerate(counts.tolist()):
            part.update(START + second * SECOND, n)
    parts[0].merge(parts[1], same_span=True)
    parts[0].close(START + seconds * SECOND)
    assert (parts[0].seconds, parts[0].sum) == (seconds, a.sum() + b.sum())
    expected = np.quantile(a + b, (0.1, 0.5, 0.9))
    assert parts[0].quantiles((0.1, 0.5, 0.9)) == pytest.approx(expected, rel=0.05)
    # one shard saw only the beginning
    long, short = Rate(START), Rate(START)
    for second in range(seconds):
        long.update(START + second * SECOND, 10)
    short.update(START, 5)
    short.merge(long, same_span=True)
    short.close(START + seconds * SECOND)
    assert (short.seconds, short.sum) == (seconds, 10 * seconds + 5)
    assert short.quantiles() == pytest.approx([10] * 4, abs=5)


def test_times_in_other_forms():
    stamps = [START, START + SECOND // 2, START + 3 * SECOND]
    expected = [(START, 2), (START + 3 * SECOND, 1)]
    for values in (
        np.array(stamps),
        np.array(stamps, dtype=np.uint64),
        np.array(stamps) / 1e9,
        np.array(stamps, dtype="datetime64[ns]"),
        np.array(stamps, dtype="datetime64[ns]").astype("datetime64[ms]"),
    ):
        rate = Rate()
        rate.update(values)
        assert rate.per_second() == expected
    rate = Rate(START / 1e9)
    for stamp in stamps:
        rate.update(stamp / 1e9, 2)
    assert rate.per_second() == [(ts, 2 * n) for ts, n in expected]
    for bad in (math.nan, math.inf, 1e30, np.array([0.0, math.nan])):
        with pytest.raises(ValueError):
            Rate().update(bad)
    for bad in ("1", None, np.array(["1"]), np.array([1], dtype=np.uint8)):
        with pytest.raises(TypeError):
            Rate().update(bad)
    with pytest.raises(OverflowError):
        Rate().update(2**63)


def test_rate_round_trip_and_malformed_bytes():
    rng = random.Random(2)
    live, closed, folded = Rate(START), Rate(START), Rate(START)
    live.update(START + np.arange(0, 40 * SECOND, 10**8))
    closed.update(START + np.arange(0, 40 * SECOND, 10**8))
    closed.close(START + 40 * SECOND)
    folded.update(START + np.arange(17000) * SECOND)
    for rate in (Rate(), live, closed):
        for again in (Rate.deserialize(rate.serialize()), pickle.loads(pickle.dumps(rate))):
            assert again.serialize() == rate.serialize()
            assert (again.quantiles(), again.sum, again.start) == (rate.quantiles(), rate.sum, rate.start)
    assert Rate.deserialize(folded.serialize()).per_second() == folded.per_second()
    refused = 0
    seeds = [rate.serialize() for rate in (Rate(), live, closed)]
    for _ in range(4000):
        image = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 3))):
            image[rng.randrange(len(image))] = rng.choice((0, 1, 127, 255))
        if rng.random() < 0.2:
            image = image[: rng.randrange(len(image) + 1)]
        try:
            rate = Rate.deserialize(image)
        except ValueError:
            refused += 1
            continue
        rate.quantiles()
        rate.merge(live, same_span=rng.random() < 0.5)
        live_too = Rate.deserialize(live.serialize())
        live_too.merge(rate, same_span=rng.random() < 0.5)
        live_too.quantiles()
        Rate.deserialize(live_too.serialize())
    assert 500 < refused < 4000
    with pytest.raises(ValueError):
        Rate.deserialize(live.serialize() + b"\0")


# --- histogram ---


def reference_boundaries(convert):
    out = []
    for exponent in range(-9, 18):
        for i in range(18):
            value = convert(10.0 ** float(np.float32(i / 18)) * 10.0**exponent)
            if not out or out[-1] != value:
                out.append(value)
    return out


def test_boundaries():
    integers, floats = boundaries(True), boundaries(False)
    assert (len(integers), len(floats)) == (315, 486)
    assert integers == reference_boundaries(int)
    assert floats == pytest.approx(reference_boundaries(float), rel=1e-15)
    shown = (
        "0 1 2 3 4 5 6 7 8 10 11 12 14 16 18 21 24 27 31 35 40 46 52 59 68 77 87 100 113 129 146 166 189 215"
    )
    assert " ".join(f"{b:.0f}" for b in integers[:34]) == shown
    for value in (1136, 12915, 40842, 129154, 244843, 879922):
        assert value in integers
    ten = [f"{b:.6f}" for b in floats if 1 <= b <= 10]
    assert ten[:3] == ["1.000000", "1.136464", "1.291550"] and ten[-2:] == ["8.799225", "10.000000"]


@pytest.mark.parametrize(
    ("integer", "values", "buckets"),
    [
        (True, [12, 12, 12, 8], {"8": 1, "12": 4}),
        (
            True,
            [0, 1, 9, 13, 1000000, 1234567],
            {"0": 1, "1": 2, "10": 3, "14": 4, "1000000": 5, "1291549": 6},
        ),
        (True, [12, 12, 1, 8, 12], {"1": 1, "8": 2, "12": 5}),
        (False, [12, 12, 12, 8], {"8.799225": 1, "12.915497": 4}),
        (False, [12, 12.0001, 1, 8, 12], {"1.000000": 1, "8.799225": 2, "12.915497": 5}),
        (True, [], {}),
    ],
)
def test_histograms_of_the_specification(integer, values, buckets):
    histogram = Histogram(integer=integer)
    for value in values:
        histogram.update(value)
    form = "{:.0f}" if integer else "{:.6f}"
    assert {form.format(bound): count for bound, count in histogram.buckets()} == buckets
    assert histogram.count == len(values)


@pytest.mark.parametrize("integer", [True, False])
def test_histogram_counts_like_a_search(integer):
    bounds = np.array(boundaries(integer))
    rng = np.random.default_rng(1)
    values = np.concatenate(
        [
            10 ** rng.uniform(-12, 20, 20000),
            rng.integers(0, 3000, 5000),
            bounds,
            np.nextafter(bounds, np.inf),
            np.nextafter(bounds, -np.inf),
            [-5.0, 0.0, -0.0, np.inf, -np.inf, 5e-324],
        ]
    )
    expected = np.bincount(np.searchsorted(bounds, values, "left"), minlength=len(bounds) + 1)
    histogram = Histogram(integer=integer)
    histogram.update(values)
    histogram.update(math.nan)
    single = Histogram(integer=integer)
    for value in values[::10]:
        single.update(value, 3)
    assert histogram.count == len(values)
    assert single.count == 3 * len(values[::10])
    cumulative = np.cumsum(expected)
    assert histogram.buckets() == [(bound, cumulative[i]) for i, bound in enumerate(bounds) if expected[i]]


def test_histogram_merge_and_bytes():
    a, b = Histogram(), Histogram()
    a.update(np.array([1, 5, 900]))
    b.update(np.array([5, 10**18]))
    expected = Histogram()
    expected.update(np.array([1, 5, 900, 5, 10**18]))
    for first, second in ((a, b), (b, a)):
        merged = Histogram.deserialize(first.serialize())
        merged.merge(second)
        assert (merged.buckets(), merged.count) == (expected.buckets(), 5)
        assert pickle.loads(pickle.dumps(merged)).buckets() == merged.buckets()
    with pytest.raises(ValueError):
        a.merge(Histogram(integer=False))
    image = a.serialize()
    rng = random.Random(4)
    for bad in (b"", image[:-1], image + b"\0", image.replace(b"NPHI", b"NPXX"), image[:9] * 2):
        with pytest.raises(ValueError):
            Histogram.deserialize(bad)
    for _ in range(2000):
        changed = bytearray(image)
        changed[rng.randrange(len(image))] = rng.randrange(256)
        try:
            read = Histogram.deserialize(changed)
        except ValueError:
            continue
        read.update(3)
        read.buckets()


# --- counter ---


def test_counter():
    counter = Counter()
    counter.update()
    counter.update(4)
    assert counter.value == int(counter) == 5
    counter.update(np.array([1, 2, 3], dtype=np.uint8))
    other = Counter(10)
    other.merge(counter)
    assert other.value == 21
    for again in (Counter.deserialize(other.serialize()), pickle.loads(pickle.dumps(other))):
        assert again.value == 21
    for bad in (-1, 2**64, np.array([5, -1])):
        with pytest.raises(OverflowError):
            other.update(bad)
    for bad in ("1", np.array([1.5])):
        with pytest.raises(TypeError):
            other.update(bad)
    assert other.value == 21
    full = Counter(2**64 - 1)
    with pytest.raises(OverflowError):
        full.update()
    for image in (b"", other.serialize()[:-1], other.serialize() + b"\0", b"NPXX\x01" + struct.pack("<Q", 1)):
        with pytest.raises(ValueError):
            Counter.deserialize(image)

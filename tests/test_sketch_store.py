"""Metric blocks: what renderers read, what merges and bytes keep."""

import pickle
import random
import struct
from collections import Counter

import datasketches as ds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe._core.store import MetricBlock

SECOND = 10**9
START = 1_600_000_000 * SECOND
IPV4, IPV6, U16, NAME, GEO, ADDR, TEXT = range(7)


def block(**changes):
    shape = {
        "counters": 3,
        "cards": 1,
        "topns": (TEXT, IPV4),
        "quants": (1, 0),
        "hists": (0, 1),
        "rates": 2,
        "start_ns": START,
    }
    return MetricBlock(**(shape | changes))


EVENTS = st.lists(
    st.tuples(st.integers(0, 39 * SECOND), st.integers(0, 150), st.integers(0, 2047), st.integers(0, 3)),
    max_size=150,
)


def feed(target, events):
    for ts, item, size, shard in events:
        target.add_counter(0)
        target.add_counter(1, size)
        target.add_cardinality(0, b"item-%d" % item)
        target.add_topn(0, b"name-%d" % item, size)
        target.add_topn(1, struct.pack(">I", item))
        target.add_quantile(0, size)
        target.add_quantile(1, size + 0.5)
        target.add_histogram(0, size)
        target.add_histogram(1, size / 7)
        target.add_rate(0, START + ts)
        target.add_rate(1, START + ts, shard)


def picture(target):
    """Everything that can be read from a block."""
    return (
        target.used,
        target.start,
        [target.counter(i) for i in range(3)],
        target.cardinality(0),
        [(target.topn(i), target.topn_error(i), target.topn_total(i), target.topn_purged(i)) for i in (0, 1)],
        [(target.quantiles(i), target.quantile_count(i), target.quantile_range(i)) for i in (0, 1)],
        [pytest.approx(target.quantile_sum(i)) for i in (0, 1)],
        [target.histogram(i) for i in (0, 1)],
        [target.rate(i) for i in (0, 1)],
    )


def test_empty():
    target = block()
    target.close(START)
    assert picture(target) == (
        False,
        START,
        [0, 0, 0],
        0,
        [([], 0, 0, 0)] * 2,
        [(None, 0, None)] * 2,
        [0, 0],
        [None, None],
        [None, None],
    )


@settings(max_examples=60, deadline=None)
@given(EVENTS.filter(bool))
def test_values_are_those_that_were_put_in(events):
    target = block()
    feed(target, events)
    target.close(START + 40 * SECOND)
    sizes = sorted(size for _, _, size, _ in events)
    n = len(events)
    assert target.used
    assert (target.counter(0), target.counter(1), target.counter(2)) == (n, sum(sizes), 0)
    assert target.cardinality(0) == len({item for _, item, _, _ in events})
    names, addresses = Counter(), Counter()
    for _, item, size, _ in events:
        names[b"name-%d" % item] += size
        addresses[struct.pack(">I", item)] += 1
    expected = sorted(((name, w) for name, w in names.items() if w), key=lambda row: (-row[1], row[0]))
    assert target.topn(0) == expected
    assert target.topn(1) == sorted(addresses.items(), key=lambda row: (-row[1], row[0]))
    assert [target.topn(1, limit) for limit in (0, 2, 10**6)] == [[], target.topn(1)[:2], target.topn(1)]
    assert target.topn_total(0) == sum(sizes)
    ranks = (0.5, 0.9, 0.95, 0.99)
    theirs = ds.kll_doubles_sketch(200)
    theirs.update(np.array(sizes, dtype=float))
    assert target.quantiles(0) == [theirs.get_quantile(rank, True) for rank in ranks]
    assert target.quantiles(1, [0, 1]) == [sizes[0] + 0.5, sizes[-1] + 0.5]
    assert (target.quantile_count(0), target.quantile_sum(0)) == (n, sum(sizes))
    assert target.quantile_range(1) == (sizes[0] + 0.5, sizes[-1] + 0.5)
    buckets, total = target.histogram(0)
    assert total == n
    assert all(count == sum(size <= bound for size in sizes) for bound, count in buckets)
    values, seconds, events_seen = target.rate(0)
    per_second = Counter(ts // SECOND for ts, *_ in events)
    assert (seconds, events_seen) == (40, n)
    assert values == [
        sorted(per_second[s] for s in range(40))[max(0, -(-int(100 * r) * 40 // 100) - 1)] for r in ranks
    ]


@settings(max_examples=50, deadline=None)
@given(EVENTS, st.integers(2, 4))
def test_shards_add_up_to_the_whole(events, shards):
    whole, parts = block(), [block() for _ in range(shards)]
    feed(whole, events)
    for i, part in enumerate(parts):
        feed(part, events[i::shards])
    pictures = []
    for order in (range(shards), reversed(range(shards))):
        merged = block()
        for i in order:
            merged.merge(parts[i], same_span=True)
        merged.close(START + 41 * SECOND)
        pictures.append(picture(merged))
    whole.close(START + 41 * SECOND)
    assert pictures[0] == pictures[1] == picture(whole)


@settings(max_examples=50, deadline=None)
@given(EVENTS, EVENTS)
def test_periods_side_by_side(first, second):
    a, b = block(), block(start_ns=START + 60 * SECOND)
    feed(a, first)
    feed(b, [(ts + 60 * SECOND, *rest) for ts, *rest in second])
    a.close(START + 60 * SECOND)
    b.close(START + 120 * SECOND)
    together, reverse = a.clone(), b.clone()
    together.merge(b, same_span=False)
    reverse.merge(a, same_span=False)
    assert picture(together) == picture(reverse)
    assert together.counter(0) == len(first) + len(second)
    values, seconds, total = together.rate(0)
    rates = Counter(ts // SECOND for ts, *_ in first)
    more = Counter(ts // SECOND for ts, *_ in second)
    ordered = sorted([*(rates[s] for s in range(60)), *(more[s] for s in range(60))])
    assert (seconds, total) == (120, len(first) + len(second))
    assert values[0] == ordered[59] and values[3] == ordered[118]


@settings(max_examples=40, deadline=None)
@given(EVENTS, st.booleans())
def test_bytes_keep_everything(events, closed):
    target = block()
    feed(target, events)
    if closed:
        target.close(START + 20 * SECOND)
    for again in (
        MetricBlock.from_bytes(target.to_bytes()),
        pickle.loads(pickle.dumps(target)),
        target.clone(),
    ):
        assert picture(again) == picture(target)
        # what comes later counts the same
        more, same = again.clone(), target.clone()
        for one in (more, same):
            one.merge(target, same_span=True)
            one.close(START + 41 * SECOND)
        assert picture(more) == picture(same)
    assert picture(MetricBlock.from_bytes(bytearray(target.to_bytes()))) == picture(target)


def test_large_blocks():
    target, other = block(topns=(IPV4, IPV6, U16, NAME, GEO, ADDR, TEXT)), block(topns=range(7))
    rng = random.Random(1)
    for one in (target, other):
        for _ in range(20000):
            number = min(rng.randrange(40000), rng.randrange(40000))
            one.add_topn(IPV4, number.to_bytes(4, "big"))
            one.add_topn(IPV6, number.to_bytes(16, "big"))
            one.add_topn(U16, (number % 65536).to_bytes(4, "little"))
            one.add_topn(NAME, b"%d.example.com" % number)
            one.add_topn(GEO, (number % 1000).to_bytes(4, "little") + number.to_bytes(16, "big"))
            one.add_topn(ADDR, b"\x04" + number.to_bytes(4, "big") + bytes(12))
            one.add_topn(TEXT, b"x" * (number % 500))
            one.add_cardinality(0, b"%d" % number)
            one.add_quantile(0, number % 3000)
    # of a GEO key only the record number counts
    assert len(target.topn(GEO)) <= 1000
    assert sum(n for _, n in target.topn(GEO)) == 20000
    assert all(
        len(key) == size
        for kind, size in ((IPV4, 4), (IPV6, 16), (GEO, 20), (ADDR, 17))
        for key, _ in target.topn(kind)
    )
    assert target.topn_error(IPV4) > 0 and target.topn_purged(IPV4) > 0
    again = MetricBlock.from_bytes(target.to_bytes())
    for kind in range(7):
        assert again.topn(kind) == target.topn(kind)
        assert again.topn_kind(kind) == kind
        assert again.topn_total(kind) == 20000
    errors = [target.topn_error(kind) + other.topn_error(kind) for kind in range(7)]
    target.merge(other, same_span=True)
    target.close(START)
    for kind in range(7):
        assert target.topn_total(kind) == 40000
        assert target.topn_error(kind) >= errors[kind]
        assert 40000 - sum(n for _, n in target.topn(kind)) >= -len(target.topn(kind)) * target.topn_error(
            kind
        )


def test_arguments():
    target = block()
    for wrong in (
        lambda: target.counter(3),
        lambda: target.counter(-1),
        lambda: target.cardinality(1),
        lambda: target.topn(2),
        lambda: target.quantiles(2),
        lambda: target.histogram(2),
        lambda: target.rate(2),
        lambda: target.add_rate(2, START),
    ):
        with pytest.raises(IndexError):
            wrong()
    for wrong in (
        lambda: target.quantiles(0, [1.5]),
        lambda: target.add_topn(1, b"12345"),
        lambda: target.add_topn(0, b"x" * 512),
        lambda: block(topns=(7,)),
        lambda: block(topns=(0,) * 17),
        lambda: block(counters=33),
        lambda: target.merge(block(counters=2), same_span=True),
        lambda: target.merge(block(hists=(0, 0)), same_span=False),
        lambda: target.merge(block(topns=(TEXT, IPV6)), same_span=False),
    ):
        with pytest.raises(ValueError):
            wrong()
    with pytest.raises(TypeError):
        target.merge(None, same_span=True)


def test_live_rates_show_nothing_before_the_close():
    target = block()
    target.add_rate(0, START)
    target.add_rate(0, START + 5 * SECOND)
    assert target.rate(0) is None
    view = target.clone()
    view.close(START + 3 * SECOND)
    assert view.rate(0) == ([0, 1, 1, 1], 3, 1)
    assert target.rate(0) is None


def test_bytes_of_strangers():
    target = block()
    feed(target, [(i * SECOND // 3, i % 40, i * 37 % 2048, i % 3) for i in range(120)])
    live = target.to_bytes()
    for i in range(3000):
        target.add_cardinality(0, b"more-%d" % i)
        target.add_quantile(1, i)
    target.close(START + 30 * SECOND)
    rng = random.Random(9)
    seeds = [live, target.to_bytes(), block().to_bytes()]
    refused = accepted = 0
    for _ in range(5000):
        image = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(min(len(image), rng.choice((40, 2000, 1 << 30))))
            image[at] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            image = image[: rng.randrange(len(image) + 1)]
        try:
            read = MetricBlock.from_bytes(bytes(image))
        except ValueError:
            refused += 1
            continue
        accepted += 1
        read.clone().close(START + 50 * SECOND)
        for same_span in (True, False):
            try:
                into = read.clone()
                into.merge(target, same_span=same_span)
                into.close(START + 50 * SECOND)
            except ValueError:
                continue  # the changed byte was in the shape
            picture(into)
            assert picture(MetricBlock.from_bytes(read.to_bytes())) == picture(read)
    assert refused > 500 and accepted > 500
    for bad in (b"", b"NPMB\x02" + live[5:], live[:-1], live + b"\0"):
        with pytest.raises(ValueError):
            MetricBlock.from_bytes(bad)


def number(value):
    return struct.pack("=I", value)


def ports(weights):
    target = block(topns=(U16, TEXT))
    for value, weight in weights.items():
        target.add_topn(0, number(value), weight)
    return target


def test_numbers_are_exact_however_many():
    rng = random.Random(4)
    half = {value: rng.randint(1, 50) for value in rng.sample(range(65536), 40000)}
    rest = {value: rng.randint(1, 50) for value in rng.sample(range(65536), 9000)}
    few = dict.fromkeys(range(100, 200), 7)
    truth = Counter(half) + Counter(rest) + Counter(few)
    whole = ports(half)
    whole.merge(ports(rest), False)
    whole.merge(ports(few), False)
    other_way = ports(few)
    other_way.merge(ports(rest), False)
    other_way.merge(ports(half), False)
    for target in (whole, other_way, whole.clone(), MetricBlock.from_bytes(whole.to_bytes())):
        assert {struct.unpack("=I", key)[0]: count for key, count in target.topn(0)} == truth
        assert (target.topn_error(0), target.topn_purged(0)) == (0, 0)
        assert target.topn_total(0) == truth.total()
        target.close(START + SECOND)
        assert len(target.topn(0)) == len(truth)
        # the heaviest first, and no more than asked for
        assert [count for _, count in target.topn(0, 10)] == [count for _, count in truth.most_common(10)]


def test_a_count_of_numbers_too_large_for_its_cell():
    weights = dict.fromkeys(range(20000), 3) | {53: 2**40}
    for offered in (weights, dict(sorted(weights.items(), reverse=True))):
        target = ports(dict.fromkeys(range(20000), 1))
        for value, weight in offered.items():
            target.add_topn(0, number(value), weight)
        (key, count), *_ = target.topn(0)
        error = target.topn_error(0)
        assert key == number(53)
        assert 2**40 + 1 <= count <= 2**40 + 1 + error < 2**40 + 100
        assert target.topn_total(0) == sum(weights.values()) + 20000


@pytest.mark.parametrize("n", [70_000, 300_000, 1_300_003])
def test_quantiles_of_very_many_values(n):
    rng = np.random.default_rng(n)
    values = rng.lognormal(5, 2, n)
    whole, part = (block(quants=(0,), topns=(TEXT,), hists=()) for _ in range(2))
    for value in values.tolist():
        whole.add_quantile(0, value)
    for value in values[: n // 3].tolist():
        part.add_quantile(0, value)
    double = whole.clone()
    double.merge(part, False)
    ordered = np.sort(values)
    ranks = [0.01, 0.25, 0.5, 0.9, 0.95, 0.99]
    for target, count in ((whole, n), (MetricBlock.from_bytes(whole.to_bytes()), n), (double, n + n // 3)):
        assert target.quantile_count(0) == count
        assert target.quantile_range(0) == (ordered[0], ordered[-1])
        for rank, found in zip(ranks, target.quantiles(0, ranks), strict=True):
            assert abs(np.searchsorted(ordered, found, side="right") / n - rank) < 0.015


def test_a_closed_block_is_small_and_can_still_be_written() -> None:
    """Closing gives up spare room; what is added later counts as if it had not."""
    values = [random.Random(3).randrange(100_000) for _ in range(150)]
    late = [random.Random(4).randrange(100_000) for _ in range(5000)]
    block = MetricBlock(quants=[False], rates=1, start_ns=0)
    plain = MetricBlock(quants=[False], rates=1, start_ns=0)
    for value in values:
        block.add_quantile(0, value)
        plain.add_quantile(0, value)
    block.add_rate(0, 10**9, 7)
    block.close(60 * 10**9)
    # up to 200 values are exact
    assert block.quantiles(0) == plain.quantiles(0)
    assert block.rate(0)[1] == 60
    again = MetricBlock.from_bytes(block.to_bytes())
    assert again.quantiles(0) == block.quantiles(0)
    assert again.rate(0) == block.rate(0)
    for value in late:
        block.add_quantile(0, value)
    assert block.quantile_count(0) == 5150
    everything = sorted(values + late)
    for rank, value in zip((0.5, 0.9, 0.95, 0.99), block.quantiles(0), strict=True):
        low, high = (everything[max(0, min(5149, int((rank + by) * 5150)))] for by in (-0.03, 0.03))
        assert low <= value <= high
    twin = again.clone()
    twin.merge(again, same_span=False)
    assert twin.quantile_count(0) == 300
    assert again.quantile_count(0) == 150

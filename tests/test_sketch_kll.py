"""Quantiles against the datasketches package, exact order statistics and the format specification."""

import itertools
import math
import pickle
import random
import struct

import datasketches as ds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe.sketches import Quantiles, set_seed

RANKS = (0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
ERROR = 0.0133  # of a rank, 99 % confidence, k = 200


def of(values, k=200, dense=False):
    sketch = Quantiles(k, dense=dense)
    sketch.update(np.asarray(values, dtype=float))
    return sketch


def package(values, k=200):
    sketch = ds.kll_doubles_sketch(k)
    for value in values:
        sketch.update(float(value))
    return sketch


def exact(values, rank):
    ordered = sorted(values)
    return ordered[max(1, math.ceil(rank * len(ordered))) - 1]


def offsets(image):
    """(n, level offsets) of a full image."""
    (n,) = struct.unpack_from("<Q", image, 8)
    return n, struct.unpack_from(f"<{image[18]}I", image, 20)


def rank_range(values, value):
    """The ranks that a value has: share below it, share not above it."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, value, "left") / len(ordered)
    return low, np.searchsorted(ordered, value, "right") / len(ordered)


def assert_near(sketch, values, error=ERROR):
    for rank in RANKS:
        low, high = rank_range(values, sketch.quantile(rank))
        assert low - error <= rank <= high + error


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ([], "02010f01c8000800"),
        ([1], "02020f04c8000800000000000000f03f"),
        (
            [1, 2, 3],
            "05010f00c80008000300000000000000c8000100c5000000000000000000f03f0000000000000840"
            "00000000000008400000000000000040000000000000f03f",
        ),
    ],
)
def test_images_of_the_specification(values, image):
    assert of(values).serialize().hex() == image


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (200, (0,)),
        (201, (232, 233)),
        (1000, (98, 196, 197)),
        (100000, (3, 15, 15, 60, 60, 92, 173, 218, 219)),
    ],
)
def test_level_offsets_of_the_specification(n, expected):
    assert offsets(of(range(n)).serialize()) == (n, expected)


@pytest.mark.parametrize("k", [8, 20, 200, 1000])
def test_levels_equal_the_package_for_every_n(k):
    for n in (2, 8, 9, 100, 199, 200, 201, 300, 1000, 10000, 54321):
        assert offsets(of(range(n), k).serialize()) == offsets(package(range(n), k).serialize())


def test_equal_bytes_while_exact():
    values = np.random.default_rng(1).normal(size=200)
    for n in range(201):
        assert of(values[:n]).serialize() == package(values[:n]).serialize()


def test_both_coins():
    kept = set()
    for seed in range(20):
        set_seed(seed)
        image = of(range(1, 10), 8).serialize()
        kept.add(image[-32:])
    odd, even = (struct.pack("<4d", *values) for values in ((1, 3, 5, 7), (2, 4, 6, 8)))
    assert kept == {odd, even}


@pytest.mark.parametrize("n", [0, 1, 2, 8, 200, 201, 3000, 40000])
@pytest.mark.parametrize("k", [8, 200, 4096])
def test_both_directions(k, n):
    values = np.random.default_rng(n).normal(size=n)
    ours, theirs = of(values, k), package(values, k)
    read = ours.to_datasketches()
    back = Quantiles.from_datasketches(theirs)
    assert read.n == back.count == n
    if n == 0:
        assert back.quantile(0.5) is None and back.min is None and back.rank(1) is None
        return
    ends = (values.min(), values.max())
    assert (read.get_min_value(), read.get_max_value()) == (ours.min, ours.max) == ends
    assert (back.min, back.max) == ends
    for rank in RANKS:
        assert read.get_quantile(rank, True) == ours.quantile(rank)
        assert back.quantile(rank) == theirs.get_quantile(rank, True)
    for value in (-1.0, 0.0, 0.7, values[0], ours.quantile(0.3)):
        for inclusive in (True, False):
            assert ours.rank(value, inclusive=inclusive) == pytest.approx(read.get_rank(value, inclusive))
            assert back.rank(value, inclusive=inclusive) == pytest.approx(theirs.get_rank(value, inclusive))
    # what was read can be written again, and continued by the other side
    assert Quantiles.deserialize(ours.serialize()).serialize() == ours.serialize()
    read.merge(theirs)
    back.merge(ours)
    assert read.n == back.count == 2 * n


def test_sorted_level_zero_is_read():
    theirs = package([3, 1, 2])
    theirs.get_quantile(0.5)
    image = theirs.serialize()
    assert image[3] == 2
    assert Quantiles.deserialize(image).quantiles([0, 0.5, 1]) == [1, 2, 3]


@pytest.mark.parametrize(("a", "b"), list(itertools.product([0, 1, 50, 201, 5000, 30000], repeat=2)))
def test_merged_levels_equal_the_package(a, b):
    ours = of(range(a))
    ours.merge(of(range(b)))
    theirs = package(range(a))
    theirs.merge(package(range(b)))
    assert ours.count == theirs.n
    if a + b > 1:
        assert offsets(ours.serialize()) == offsets(theirs.serialize())
        assert ours.to_datasketches().n == a + b


def test_merge_of_different_k():
    ours = of(range(5000), 200)
    ours.merge(of(range(5000), 100))
    theirs = package(range(5000), 200)
    theirs.merge(package(range(5000), 100))
    assert offsets(ours.serialize()) == offsets(theirs.serialize())
    assert struct.unpack_from("<H", ours.serialize(), 16) == (100,)
    assert ours.rank_error() == pytest.approx(theirs.normalized_rank_error(False), rel=1e-3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", ["uniform", "skewed", "sorted", "reversed", "few", "zigzag"])
def test_rank_error(seed, shape):
    set_seed(seed)
    rng = np.random.default_rng(seed)
    n = 60000
    values = {
        "uniform": rng.random(n),
        "skewed": rng.lognormal(3, 2, n),
        "sorted": np.arange(n, dtype=float),
        "reversed": np.arange(n, 0, -1, dtype=float),
        "few": rng.integers(0, 7, n).astype(float),
        "zigzag": np.where(np.arange(n) % 2, np.arange(n), -np.arange(n)).astype(float),
    }[shape]
    sketch = of(values)
    assert_near(sketch, values)
    low, high = sketch.quantile_bounds(0.5)
    assert rank_range(values, low)[0] <= 0.5 <= rank_range(values, high)[1]
    assert sketch.sum == pytest.approx(values.sum())
    shards = [of(part) for part in np.array_split(values, 7)]
    merged = Quantiles()
    for shard in shards:
        merged.merge(shard)
    assert merged.count == n
    assert merged.sum == pytest.approx(values.sum())
    assert_near(merged, values)


def test_unbiased_over_seeds():
    values = np.random.default_rng(3).permutation(20000).astype(float)
    medians = []
    for seed in range(60):
        set_seed(seed)
        medians.append(of(values).quantile(0.5) / 20000)
    assert len(set(medians)) > 10
    assert abs(np.mean(medians) - 0.5) < 0.0025


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(allow_nan=False), max_size=200), st.integers(0, 200), st.floats(0, 1))
def test_exact_below_capacity(values, cut, rank):
    left, right = of(values[:cut]), of(values[cut:])
    left.merge(right)
    other = of(values[cut:])
    other.merge(of(values[:cut]))
    assert left.count == other.count == len(values)
    if values:
        assert left.quantile(rank) == other.quantile(rank) == exact(values, rank)
        assert (left.min, left.max) == (min(values), max(values))
        assert left.rank_error() == 0
        below = sum(value <= values[0] for value in values) / len(values)
        assert left.rank(values[0]) == pytest.approx(below)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4000), min_size=1, max_size=900),
    st.integers(0, 900),
    st.sampled_from(RANKS),
)
def test_dense_is_exact(values, cut, rank):
    # at most 200 values above the front: those are exact as well
    large = [value for value in values if value >= 2048][:200]
    values = [value for value in values if value < 2048] + large
    if not values:
        return
    sketch = of(values, dense=True)
    assert sketch.quantile(rank) == exact(values, rank)
    assert (sketch.min, sketch.max, sketch.sum) == (min(values), max(values), sum(values))
    assert sketch.rank(values[0]) == pytest.approx(sum(v <= values[0] for v in values) / len(values))
    merged = of(values[:cut], dense=True)
    merged.merge(of(values[cut:], dense=True))
    assert merged.quantile(rank) == exact(values, rank)
    assert merged.count == len(values)
    again = pickle.loads(pickle.dumps(merged))
    assert again.quantiles(RANKS) == merged.quantiles(RANKS)
    assert (again.count, again.sum) == (merged.count, merged.sum)


def test_dense_and_levels_together():
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.integers(40, 1515, 300000), rng.integers(2048, 65536, 100000)])
    rng.shuffle(values)
    sketch = of(values, dense=True)
    assert_near(sketch, values)
    # ranks in the dense part are not touched by the levels
    for rank in (0.1, 0.5, 0.7):
        assert sketch.quantile(rank) == exact(values.tolist(), rank)
    folded = Quantiles.deserialize(sketch.serialize())
    assert folded.count == len(values)
    assert_near(folded, values)
    theirs = sketch.to_datasketches()
    assert theirs.n == len(values)
    assert theirs.get_quantile(0.9, True) == folded.quantile(0.9)
    assert sketch.quantile(0.5) == exact(values.tolist(), 0.5), "serialising changes nothing"
    plain = Quantiles()
    plain.merge(sketch)
    assert plain.count == len(values)
    assert_near(plain, values)


def test_dense_front_takes_small_integers_only():
    sketch = Quantiles(dense=True)
    for value in (-1, -0.5, 0.5, 2047, 2047.5, 2048, 1e300, math.inf, math.nan):
        sketch.update(value)
    assert sketch.count == 8
    assert sketch.quantiles([0, 1]) == [-1, math.inf]
    assert sketch.quantile(0.5) == 2047


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 10**6)), min_size=1, max_size=12),
    st.sampled_from(RANKS),
)
def test_weights(pairs, rank):
    sketch = Quantiles()
    for value, weight in pairs:
        sketch.update(value, weight)
    total = sum(weight for _, weight in pairs)
    assert sketch.count == total
    assert sketch.sum == sum(value * weight for value, weight in pairs)
    position, seen, expected = max(1, math.ceil(rank * total)), 0, None
    for value, weight in sorted(pairs):
        seen += weight
        if expected is None and seen >= position:
            expected = value
    assert sketch.quantile(rank) == expected
    theirs = sketch.to_datasketches()
    assert theirs.n == total
    if total > 1:
        other = package(range(1000))
        other.merge(theirs)
        assert other.n == total + 1000


def test_weights_within_the_bound():
    rng = np.random.default_rng(11)
    values = rng.random(4000)
    weights = (rng.pareto(1.2, 4000) * 10 + 1).astype(int)
    sketch = Quantiles()
    for value, weight in zip(values, weights, strict=True):
        sketch.update(value, int(weight))
    assert_near(sketch, np.repeat(values, weights))


def test_ten_years_of_zeros():
    sketch = of([5.0, 7.0, 9.0])
    sketch.update(0, 315_360_000)
    sketch.update(11.0)
    assert sketch.count == 315_360_004
    assert sketch.quantiles([0.5, 0.99, 1]) == [0, 0, 11]
    assert sketch.max == 11
    assert len(sketch.serialize()) < 1000


def test_arguments():
    for k in (7, 65536):
        with pytest.raises(ValueError):
            Quantiles(k)
    for rank in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError):
            of([1]).quantile(rank)
    with pytest.raises(TypeError):
        Quantiles().update("1")
    with pytest.raises(TypeError):
        Quantiles().update(np.array(["1"]))
    sketch = Quantiles()
    sketch.update(np.array([1, 2, 3], dtype=np.uint64))
    sketch.update(np.array([4.5], dtype=np.float32))
    sketch.update(np.array([[7, 8], [9, 10]]))
    sketch.update(5)
    assert sketch.count == 9 and sketch.sum == 49.5
    sketch.merge(sketch)
    assert sketch.count == 18 and sketch.sum == 99


def test_malformed_images():
    good = of(range(1000)).serialize()
    levels_at = 20
    cases = {
        "floats": ds.kll_floats_sketch(200),
        "ints": ds.kll_ints_sketch(200),
    }
    for sketch in cases.values():
        for i in range(300):
            sketch.update(i)
        with pytest.raises(ValueError):
            Quantiles.deserialize(sketch.serialize())

    def patched(at, form, *values):
        image = bytearray(good)
        struct.pack_into(form, image, at, *values)
        return bytes(image)

    bad = [
        b"",
        good[:-1],
        good + b"\0",
        patched(0, "B", 2),
        patched(1, "B", 3),
        patched(2, "B", 7),
        patched(3, "B", 1),
        patched(3, "B", 2),  # level 0 is said to be sorted
        patched(4, "<H", 7),
        patched(4, "<H", 65535),
        patched(6, "B", 4),
        patched(8, "<Q", 999),
        patched(8, "<Q", 0),
        patched(16, "<H", 201),
        patched(16, "<H", 0),
        patched(18, "B", 0),
        patched(18, "B", 255),
        patched(levels_at, "<I", 0xFFFFFFFF),
        patched(levels_at, "<2I", 196, 98),
        patched(len(good) - 8, "<d", math.nan),
        patched(len(good) - 8, "<d", 1e9),  # above the maximum
        patched(len(good) - 8, "<d", 0.0),  # a level out of order
        bytes.fromhex("02010f0107000800"),
        bytes.fromhex("02020f04c8000800") + struct.pack("<d", math.nan),
    ]
    for image in bad:
        with pytest.raises(ValueError):
            Quantiles.deserialize(image)


def test_random_changes_never_crash():
    rng = random.Random(3)
    sizes = itertools.product((0, 1, 2, 50, 300, 5000), (8, 20, 200))
    seeds = [of(range(n), k).serialize() for n, k in sizes]
    refused = 0
    for _ in range(6000):
        image = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(min(len(image), rng.choice((8, 60, 1 << 20))))
            image[at] = rng.choice((0, 1, 255, rng.randrange(256)))
        if rng.random() < 0.2:
            image = image[: rng.randrange(len(image) + 1)]
        try:
            sketch = Quantiles.deserialize(image)
        except ValueError:
            refused += 1
            continue
        sketch.quantiles(RANKS)
        other = of(range(3000))
        other.merge(sketch)
        other.quantiles(RANKS)
        sketch.merge(other)
        for i in range(300):
            sketch.update(i)
        assert sketch.to_datasketches().n == sketch.count
    assert 1000 < refused < 6000

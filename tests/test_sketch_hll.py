"""Cardinality against the datasketches package and the worked values of the format specification."""

import hashlib
import ipaddress
import itertools
import math
import pickle
import random
import struct
import sys

import datasketches as ds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netprobe.sketches import Cardinality

TYPES = [ds.tgt_hll_type.HLL_4, ds.tgt_hll_type.HLL_6, ds.tgt_hll_type.HLL_8]
SIZES = [0, 1, 6, 7, 8, 9, 24, 25, 26, 48, 49, 97, 193, 384, 385, 1000, 1536, 1537, 3000, 40000]


def of(items, lg_k=12):
    sketch = Cardinality(lg_k)
    for item in items:
        sketch.update(item)
    return sketch


def package(items, lg_k=12, kind=ds.tgt_hll_type.HLL_8):
    sketch = ds.hll_sketch(lg_k, kind)
    for item in items:
        sketch.update(item)
    return sketch


def parse(image):
    """(lg_k, coupons as a set, or registers as bytes) of a compact HLL_8 image, by the specification."""
    mode = image[7] & 3
    if mode == 0:
        return image[3], set(struct.unpack(f"<{image[6]}I", image[8 : 8 + 4 * image[6]]))
    if mode == 1:
        (count,) = struct.unpack_from("<I", image, 8)
        return image[3], set(struct.unpack(f"<{count}I", image[12:]))
    assert len(image) == 40 + (1 << image[3])
    return image[3], image[40:]


@pytest.mark.parametrize(
    ("item", "coupon"),
    [
        (0, 0x04C2D7CB),
        (0.0, 0x04C2D7CB),
        (-0.0, 0x04C2D7CB),
        (1, 0x06FBF22B),
        (True, 0x06FBF22B),
        (-1, 0x0BE764D9),
        (2**64 - 1, 0x0BE764D9),
        (42, 0x05D0BC1A),
        (1.0, 0x0F9DA50B),
        (1.5, 0x142A8222),
        (math.nan, 0x18BD31EB),
        (-math.nan, 0x18BD31EB),
        ("a", 0x043B822F),
        (b"a", 0x043B822F),
        (bytearray(b"a"), 0x043B822F),
        ("é", 0x05E0FD8C),
        ("example.com", 0x0EA4CDA4),
        ("0123456789abcdefg", 0x07D473AB),
        (ipaddress.ip_address("10.0.0.1"), 0x0F53BB71),
        (bytes([10, 0, 0, 1]), 0x0F53BB71),
        (ipaddress.ip_address("2001:db8::1"), 0x096E2118),
        (np.int16(-1), 0x0BE764D9),
        (np.float32(1.5), 0x142A8222),
    ],
)
def test_coupons_of_the_specification(item, coupon):
    assert of([item]).serialize() == bytes.fromhex("0201070c03080108") + struct.pack("<I", coupon)


def test_items_without_a_canonical_form():
    sketch = Cardinality()
    for bad in (None, [1], object()):
        with pytest.raises(TypeError):
            sketch.update(bad)
    for bad in (2**64, -(2**63) - 1):
        with pytest.raises(OverflowError):
            sketch.update(bad)
    sketch.update("")
    sketch.update(b"")
    assert sketch.estimate() == 0


@pytest.mark.parametrize("length", range(1, 70))
def test_hash_of_every_length(length):
    text = "".join(chr(33 + (7 * i + length) % 90) for i in range(length))
    assert of([text]).serialize() == package([text]).serialize_compact()


@pytest.mark.parametrize(
    ("items", "lg_k", "image"),
    [
        ([], 12, "0201070c030c0008"),
        ([1, 42, -1], 12, "0201070c030803082bf2fb061abcd005d964e70b"),
        (["a", "b", "c"], 12, "0201070c030803082f823b040aff80046f19dc06"),
        (range(7), 12, "0201070c03080708cbd7c2042bf2fb06862ff90d7581660781bc5d067b65e608fc2d420a"),
        (
            range(8),
            12,
            "0301070c050800090800000081bc5d06862ff90dcbd7c204c1e9170575816607fc2d420a7b65e6082bf2fb06",
        ),
        # registers: out of order, no HIP; sums and registers as the specification has them
        (
            range(8),
            4,
            "0a0107040018000a000000000000000000000000004029400000000000000000"
            "0b0000000000000000010000000103000000000202000000",
        ),
    ],
)
def test_images_of_the_specification(items, lg_k, image):
    assert of(items, lg_k).serialize().hex() == image


@pytest.mark.parametrize(
    ("n", "digest"), [(100, "501b5b647d48d3e2dddd79052eae7f22"), (384, "fea4d5b4ae1a81488bc62b9ffaedd982")]
)
def test_digests_of_set_images(n, digest):
    assert hashlib.sha256(of(range(n)).serialize()).hexdigest()[:32] == digest


@pytest.mark.parametrize(
    ("n", "kxq0", "zeros", "digest", "estimate"),
    [
        (385, 3855.54296875, 3731, "2626563d6d21a7269944e9431c967fdd", 382.2495846438105),
        (1000, 3503.2939453125, 3218, "b0c4eb8217d77913dee1842c1a6c3aa4", 988.0270297077732),
        (100000, 117.60390090942383, 0, "3cd732b089fba84abf1927343e513de0", 102878.35592994507),
    ],
)
def test_register_images(n, kxq0, zeros, digest, estimate):
    sketch = of(range(n))
    image = sketch.serialize()
    assert struct.unpack_from("<d", image, 16)[0] == kxq0
    assert struct.unpack_from("<I", image, 32)[0] == zeros
    assert hashlib.sha256(image[40:]).hexdigest()[:32] == digest
    assert sketch.to_datasketches().get_estimate() == pytest.approx(estimate, rel=1e-9)


@pytest.mark.parametrize("lg_k", [4, 7, 8, 11, 12, 14, 16])
@pytest.mark.parametrize("kind", TYPES)
def test_reading_what_the_package_writes(lg_k, kind):
    for n in SIZES:
        ours = of(range(n), lg_k)
        theirs = package(range(n), lg_k, kind)
        for image in (theirs.serialize_compact(), theirs.serialize_updatable()):
            read = Cardinality.deserialize(image)
            assert parse(read.serialize()) == parse(ours.serialize())
            assert read.estimate() == ours.estimate()
        assert Cardinality.from_datasketches(theirs).estimate() == ours.estimate()


@pytest.mark.parametrize("lg_k", [4, 8, 12, 14])
def test_the_package_reads_what_we_write(lg_k):
    for n in SIZES:
        theirs = of(range(n), lg_k).to_datasketches()
        again = package(range(n), lg_k)
        assert parse(theirs.serialize_compact()) == parse(again.serialize_compact())
        # and continues to count
        for item in range(n, n + 500):
            theirs.update(item)
            again.update(item)
        assert parse(theirs.serialize_compact()) == parse(again.serialize_compact())


@pytest.mark.parametrize(("lg_k", "at"), [(4, 8), (7, 8), (8, 25), (9, 49), (12, 385), (14, 1537)])
def test_promotion(lg_k, at):
    sketch = of(range(at - 1), lg_k)
    assert sketch.is_exact
    assert round(sketch.estimate()) == at - 1
    sketch.update(at)
    assert not sketch.is_exact


def test_exact_while_small():
    sketch = Cardinality()
    for n in range(1, 1537):
        sketch.update(f"name-{n}.example")
        sketch.update(f"name-{n // 2 + 1}.example")
        assert math.floor(sketch.estimate() + 0.5) == n


@pytest.mark.parametrize("n", [2000, 5000, 12000, 20000, 41000, 80000, 300000, 1000000])
def test_estimate_within_the_error(n):
    errors = []
    for run in range(8):
        sketch = Cardinality()
        sketch.update(np.arange(n, dtype=np.int64) + (run << 40))
        errors.append(sketch.estimate() / n - 1)
        assert abs(errors[-1]) < 4 * 0.00812
        assert sketch.lower_bound(3) <= n * 1.005
        assert sketch.upper_bound(3) >= n * 0.995
        assert sketch.lower_bound(1) < sketch.estimate() < sketch.upper_bound(1)
    # no bias: the mean of 8 runs within three of its standard errors
    assert abs(np.mean(errors)) < 3 * 0.00812 / math.sqrt(8)


@pytest.mark.parametrize("lg_k", [4, 6, 10, 18, 21])
def test_other_sizes(lg_k):
    n = 3 << lg_k
    sketch = Cardinality(lg_k)
    sketch.update(np.arange(n))
    assert abs(sketch.estimate() / n - 1) < 4 * 1.04 / math.sqrt(1 << lg_k)


def test_bounds_cover_the_truth():
    for std, least in ((1, 0.6), (2, 0.9), (3, 0.97)):
        covered = 0
        for run in range(200):
            sketch = Cardinality(8)
            sketch.update(np.arange(3000) + (run << 32))
            covered += sketch.lower_bound(std) <= 3000 <= sketch.upper_bound(std)
        assert covered / 200 >= least
    with pytest.raises(ValueError):
        Cardinality().lower_bound(4)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6000), max_size=6),
    st.sampled_from([4, 8, 12]),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_merge_of_shards_is_the_whole(starts, lg_k, shards, rng):
    ranges = [np.arange(start, start + rng.randrange(1, 2500)) for start in starts]
    whole = Cardinality(lg_k)
    parts = [Cardinality(lg_k) for _ in range(shards)]
    for values in ranges:
        whole.update(values)
        for value in values.tolist():
            rng.choice(parts).update(value)
    for order in itertools.islice(itertools.permutations(range(shards)), 6):
        merged = Cardinality(lg_k)
        for i in order:
            merged.merge(parts[i])
        assert parse(merged.serialize()) == parse(whole.serialize())
        assert merged.estimate() == whole.estimate()


@pytest.mark.parametrize(("a", "b"), list(itertools.product([0, 3, 300, 5000], repeat=2)))
@pytest.mark.parametrize(("lg_a", "lg_b"), [(12, 12), (14, 12), (12, 14), (12, 7), (9, 8)])
def test_merge_agrees_with_the_package(a, b, lg_a, lg_b):
    ours = of(range(a), lg_a)
    ours.merge(of(range(2000, 2000 + b), lg_b))
    twin = of(range(2000, 2000 + b), lg_b)
    twin.merge(of(range(a), lg_a))
    lg_k = ours.lg_k
    assert lg_k == (min(lg_a, lg_b) if b else lg_a)
    expected = parse(package([*range(a), *range(2000, 2000 + b)], lg_k).serialize_compact())
    assert parse(ours.serialize()) == expected
    if lg_a <= lg_b:
        # the other way round a union of 5.2.0 forgets a folded HLL_8 sketch when coupons follow
        union = ds.hll_union(lg_k)
        union.update(package(range(a), lg_a))
        union.update(package(range(2000, 2000 + b), lg_b))
        assert parse(union.get_result(ds.tgt_hll_type.HLL_8).serialize_compact()) == expected
    if a and b:
        assert parse(twin.serialize()) == expected


def test_merge_with_itself():
    sketch = of(range(5000))
    before = sketch.serialize()
    sketch.merge(sketch)
    assert sketch.serialize() == before


@given(st.sets(st.integers(0, 10**9), max_size=3000))
@settings(max_examples=30, deadline=None)
def test_round_trip(items):
    sketch = of(items, 11)
    for again in (Cardinality.deserialize(sketch.serialize()), pickle.loads(pickle.dumps(sketch))):
        assert parse(again.serialize()) == parse(sketch.serialize())
        assert again.estimate() == sketch.estimate()


@pytest.mark.parametrize(
    ("values", "items"),
    [
        (np.arange(-5, 5, dtype=np.int8), range(-5, 5)),
        (np.arange(250, 256, dtype=np.uint8), range(250, 256)),
        (np.array([40000, 65535], dtype=np.uint16), [40000, 65535]),
        (np.array([2**32 - 1], dtype=np.uint32), [2**32 - 1]),
        (np.array([2**64 - 1, 7], dtype=np.uint64), [2**64 - 1, 7]),
        (np.array([True, False]), [1, 0]),
        (np.array([1.5, -0.0, math.nan]), [1.5, 0.0, math.nan]),
        (np.array([1.5, 2.25], dtype=np.float32), [1.5, 2.25]),
        (np.array(["a", "é", "", "a\U0001f40d", "日本"]), ["a", "é", "a\U0001f40d", "日本"]),
        (np.array([b"ab", b"\xff\x00\x01"]), [b"ab", b"\xff\x00\x01"]),
        (np.arange(20)[::-3], range(19, -1, -3)),
        (np.arange(6).reshape(2, 3), range(6)),
        (memoryview(b"\x01\x02"), [1, 2]),
        (np.array([], dtype=np.int64), []),
    ],
)
def test_arrays(values, items):
    sketch = Cardinality()
    sketch.update(values)
    assert parse(sketch.serialize()) == parse(of(items, 14).serialize())


def test_arrays_that_cannot_be_counted():
    sketch = Cardinality()
    gaps = np.arange(9).reshape(3, 3)[:, 1:]
    for bad in (np.array([1], dtype=">i8"), np.array([1j]), gaps, np.array([[None], object()], dtype=object)):
        with pytest.raises((TypeError, ValueError, BufferError)):
            sketch.update(bad)
    assert sketch.estimate() == 0


@pytest.mark.parametrize(
    "image",
    [
        "",
        "0201070c0308",
        "0201070c03080808" + "2bf2fb06" * 8,  # a list of 8
        "0201070c030c0108" + "2bf2fb06",  # empty, yet one coupon
        "0201070c03080208" + "2bf2fb06",  # a coupon missing
        "0201070c03080108" + "2bf2fb00",  # value 0
        "0201071603080108" + "2bf2fb06",  # lg_k 22
        "0201070303080108" + "2bf2fb06",  # lg_k 3
        "0201070c0308010c" + "2bf2fb06",  # target type 3
        "0202070c03080108" + "2bf2fb06",  # version
        "0201080c03080108" + "2bf2fb06",  # family
        "0301070705080009" + "01000000" + "2bf2fb06",  # a set below lg_k 8
        "0301070c05080009" + "ffffffff" + "2bf2fb06",  # four billion coupons
        "0301070c1e000009" + "01000000" + "2bf2fb06",  # a table of 2^30
        "0a0107040008000a" + "00" * 24 + "00000000" + "01000000" + "01" * 16,  # exceptions with HLL_8
        "0a0107040008000a" + "00" * 32 + "01" * 15,  # a register missing
        "0a0107040008000a" + "00" * 32 + "40" * 16,  # a register of 64
        "0a01070400080006" + "00" * 32 + "01" * 12,  # HLL_6 without its last byte
        "0a01070400080002" + "00" * 32 + "f0" + "00" * 7,  # HLL_4 exception without its pair
        "0a01070400083a02" + "00" * 32 + "66" * 8,  # HLL_4 above 63
        "0a01071500080002" + "00" * 32,  # two million registers promised
    ],
)
def test_malformed_images(image):
    with pytest.raises(ValueError):
        Cardinality.deserialize(bytes.fromhex(image))


def test_random_changes_never_crash():
    rng = random.Random(7)
    seeds = []
    for lg_k, n, kind in itertools.product((4, 8, 11), (0, 3, 20, 300, 5000), TYPES):
        sketch = package(range(n), lg_k, kind)
        seeds += [sketch.serialize_compact(), sketch.serialize_updatable()]
    refused = 0
    for _ in range(6000):
        image = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 5))):
            image[rng.randrange(min(len(image), rng.choice((8, 44, 1 << 20))))] = rng.randrange(256)
        image = image[: rng.randrange(len(image) + 1)] if rng.random() < 0.3 else image
        try:
            sketch = Cardinality.deserialize(image)
        except ValueError:
            refused += 1
            continue
        assert sketch.estimate() >= 0
        other = of(range(2000), 10)
        other.merge(sketch)
        sketch.merge(other)
        sketch.update(1)
        # what was accepted is written in a form that can be read
        assert Cardinality.deserialize(sketch.serialize()).estimate() == sketch.estimate()
    assert 1000 < refused < 6000


def test_largest_registers():
    # all registers at 63: as many items as can be told apart, and no infinity
    image = bytes.fromhex("0a0107040018000a") + bytes(32) + bytes([63]) * 16
    assert 1e18 < Cardinality.deserialize(image).estimate() < sys.float_info.max

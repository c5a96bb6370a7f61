"""Nanoseconds per update of each sketch: whole arrays, single values, and the datasketches package.

    python benchmarks/bench_sketches.py            about ten seconds
    python benchmarks/bench_sketches.py --smoke    a second, to see that it runs

"loop" is Counter.update, a native addition per item: what reading an array costs by itself. The best of three
runs counts. The package takes arrays for quantiles only; its other column is one call per item.
"""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import datasketches as ds
import numpy as np

from netprobe.sketches import Cardinality, Counter, Histogram, Quantiles, Rate, TopN

Update = Callable[[object], object]


def best(make: Callable[[], Update], feed: Callable[[Update], object], n: int) -> float:
    """Nanoseconds per item of the fastest of three runs, each with a new sketch."""
    times = []
    for _ in range(3):
        update = make()
        began = time.perf_counter()
        feed(update)
        times.append(time.perf_counter() - began)
    return min(times) / n * 1e9


def whole(values: np.ndarray) -> Callable[[Update], object]:
    return lambda update: update(values)


def single(values: list[object]) -> Callable[[Update], object]:
    def feed(update: Update) -> None:
        for value in values:
            update(value)

    return feed


class Row(NamedTuple):
    name: str
    make: Callable[[], Update]
    values: np.ndarray
    package: Callable[[], Update] | None = None
    package_values: np.ndarray | None = None
    package_takes_arrays: bool = False


def table(n: int) -> list[Row]:
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 2**62, n)
    floats = numbers.astype(float)
    skewed = np.minimum(rng.zipf(1.3, n), 5000).astype("U")
    names = np.char.add(np.char.add("host-", skewed), ".example.com")
    sizes = rng.integers(40, 1515, n)
    stamps = 1_600_000_000 * 10**9 + np.sort(rng.integers(0, 3600 * 10**9, n))

    def kll() -> Update:
        return ds.kll_doubles_sketch(200).update

    def frequent() -> Update:
        return ds.frequent_strings_sketch(13).update

    def hll() -> Update:
        return ds.hll_sketch(14, ds.tgt_hll_type.HLL_8).update

    def dense() -> Update:
        return Quantiles(dense=True).update

    return [
        Row("loop", lambda: Counter().update, sizes),
        Row("Cardinality", lambda: Cardinality().update, numbers, hll),
        Row("TopN, names", lambda: TopN().update, names, frequent),
        Row("TopN, all numbers new", lambda: TopN().update, numbers, frequent, numbers.astype("U")),
        Row("Quantiles", lambda: Quantiles().update, floats, kll, floats, True),
        Row("Quantiles, dense", dense, sizes, kll, sizes.astype(float), True),
        Row("Histogram", lambda: Histogram().update, sizes),
        Row("Rate", lambda: Rate().update, stamps),
    ]


def package_cost(row: Row, few: int) -> float | None:
    if row.package is None:
        return None
    values = row.values if row.package_values is None else row.package_values
    if row.package_takes_arrays:
        return best(row.package, whole(values), len(values))
    return best(row.package, single(values[:few].tolist()), few)


def main() -> None:
    smoke = "--smoke" in sys.argv[1:]
    n = 20_000 if smoke else 2_000_000
    few = n // 10
    rows = table(n)
    print(f"{'ns per update':28}{'array':>10}{'single':>10}{'package':>10}")
    for row in rows:
        values = row.values.astype("S") if row.values.dtype.kind == "U" else row.values
        array = best(row.make, whole(values), n)
        one = best(row.make, single(row.values[:few].tolist()), few)
        theirs = package_cost(row, few)
        last = "         -" if theirs is None else f"{theirs:10.1f}"
        print(f"{row.name:28}{array:10.1f}{one:10.1f}{last}")

    numbers, names = rows[1].values, rows[2].values
    print(f"\n{'µs per merge of full ones':28}{'ours':>10}{'package':>10}")
    for kind, values in ((Cardinality, numbers), (TopN, names), (Quantiles, numbers)):
        left, right = kind(), kind()
        left.update(values)
        right.update(values[::-1])
        package_left, package_right = left.to_datasketches(), right.to_datasketches()
        if kind is Cardinality:
            union = ds.hll_union(14)
            union.update(package_left)
            merge = union.update
        else:
            merge = package_left.merge
        ours = best(lambda merge=left.merge: merge, whole(right), 1)
        theirs = best(lambda merge=merge: merge, whole(package_right), 1)
        print(f"{kind.__name__:28}{ours / 1000:10.1f}{theirs / 1000:10.1f}")


if __name__ == "__main__":
    main()

"""The few heaviest rows of a top list are those that sorting all of them puts first."""

from __future__ import annotations

import random

import pytest

from netprobe._core.store import MetricBlock

KEY_NAME = 3


@pytest.mark.parametrize("spread", [1, 3, 1_000_000], ids=["all equal", "many ties", "hardly any ties"])
@pytest.mark.parametrize("count", [0, 1, 9, 500, 20_000])
def test_first_rows(count: int, spread: int) -> None:
    rng = random.Random(count + spread)
    block = MetricBlock(topns=[KEY_NAME])
    for number in range(count):
        # names that are beginnings of others, and an empty one
        block.add_topn(0, (b"a" * (number % 7) + b"%d" % number)[: rng.randrange(9)], rng.randint(1, spread))
    whole = block.topn(0)
    assert whole == sorted(whole, key=lambda row: (-row[1], row[0]))
    for limit in (0, 1, 2, 10, 63, 64, 65, 1000, 10_000):
        assert block.topn(0, limit) == whole[:limit]

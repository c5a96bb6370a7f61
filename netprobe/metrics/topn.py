"""Which rows of a top list are shown (metrics specification, 1.4)."""

from collections.abc import Iterable
from typing import TypeVar

Key = TypeVar("Key")


def top_rows(rows: Iterable[tuple[Key, int]], count: int, percentile: int = 0) -> list[tuple[Key, int]]:
    """At most `count` of `rows`, which are (key, estimate): the largest first, equals as given.

    Of these, rows below the percentile of their estimates are left out: 0 keeps all of them, 100 the
    largest only (and its equals). ValueError for a percentile outside 0..100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"a percentile threshold lies between 0 and 100, not at {percentile}")
    first = sorted(rows, key=lambda row: -row[1])[: max(0, count)]
    if not first:
        return []
    # inclusive rule: the value at position ceil(p * n), counted from 1, of the ascending estimates
    position = max(1, -(-percentile * len(first) // 100))
    threshold = first[len(first) - position][1]
    return [row for row in first if row[1] >= threshold]

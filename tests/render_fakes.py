"""Metric blocks out of plain Python values, for tests of tables and renderers."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from netprobe.handlers.config import HandlerConfig, handler_config
from netprobe.metrics.table import HandlerTable, rows_of
from netprobe.metrics.window import HandlerWindow

Values = dict[str, Any]


def fake_fields(table: HandlerTable) -> dict[str, tuple[str, int]]:
    """What a native class would publish that agrees with the table; indices count per kind and block."""
    found: dict[str, tuple[str, int]] = {}
    next_index: Counter[tuple[bool, str]] = Counter()
    for name, metric in rows_of(table).items():
        at = (name.startswith("D."), metric.kind)
        found[name] = (metric.kind, next_index[at])
        next_index[at] += 1
    return found


class FakeNative:
    """Stands for an accumulator class."""

    def __init__(self, fields: dict[str, tuple[str, int]]) -> None:
        self._fields = fields
        self.__name__ = "FakeNative"

    def fields(self) -> dict[str, tuple[str, int]]:
        return self._fields


class FakeBlock:
    """Holds raw values by path: an int, a set, a Counter of keys, numbers; a histogram as rendered."""

    def __init__(
        self, table: HandlerTable, values: Values | None = None, prefix: str = "", used: bool = True
    ):
        values = values or {}
        self.used = used
        self._at = {}
        known = fake_fields(table)
        assert {prefix + name for name in values} <= set(known), values
        for name, (kind, index) in known.items():
            if name.startswith("D.") == bool(prefix):
                self._at[kind, index] = values.get(name.removeprefix(prefix))

    def counter(self, index: int) -> int:
        return self._at["counter", index] or 0

    def cardinality(self, index: int) -> int:
        return len(self._at["cardinality", index] or ())

    def topn(self, index: int, limit: int | None = None) -> list[tuple[bytes, int]]:
        return sorted((self._at["topn", index] or {}).items(), key=lambda row: (-row[1], row[0]))[:limit]

    def _ranked(self, seen: list[float], ranks: Sequence[float]) -> list[float]:
        ordered = sorted(seen)
        return [float(ordered[max(math.ceil(rank * len(ordered)), 1) - 1]) for rank in ranks]

    def quantiles(self, index: int, ranks: Sequence[float]) -> list[float] | None:
        seen = self._at["quantile", index]
        return self._ranked(seen, ranks) if seen else None

    def quantile_count(self, index: int) -> int:
        return len(self._at["quantile", index] or ())

    def quantile_sum(self, index: int) -> float:
        return float(sum(self._at["quantile", index] or ()))

    def histogram(self, index: int) -> tuple[list[tuple[float, int]], int] | None:
        return self._at["histogram", index]

    def rate(self, index: int, ranks: Sequence[float]) -> tuple[list[float], int, float] | None:
        seen = self._at["rate", index]
        return (self._ranked(seen, ranks), len(seen), float(sum(seen))) if seen else None


def fake_window(
    table: HandlerTable,
    top: Values | None = None,
    blocks: dict[str, Values] | None = None,
    config: HandlerConfig | None = None,
    **more: Any,
) -> HandlerWindow:
    """A window of a minute; ``blocks`` by direction, missing ones absent."""
    made: list[FakeBlock | None] = [FakeBlock(table, top)]
    if table.block_metrics:
        made += [
            FakeBlock(table, blocks[name], "D.") if blocks and name in blocks else None
            for name in ("in", "out", "unknown")
        ]
    index = {name: at for name, (_, at) in fake_fields(table).items()}
    more.setdefault("start_ts", 1000)
    more.setdefault("length", 60)
    return HandlerWindow(table, config or handler_config(table), made, index=index, **more)


def u16(number: int) -> bytes:
    """A KEY_U16 key."""
    import sys

    return number.to_bytes(4, sys.byteorder)


def geo_key(offset: int, address: bytes) -> bytes:
    """A KEY_GEO key."""
    return u16(offset) + address.rjust(16, b"\0")

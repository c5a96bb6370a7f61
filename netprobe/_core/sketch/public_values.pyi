from collections.abc import Sequence
from typing import Any, Final, Self, SupportsFloat

from typing_extensions import Buffer

from netprobe._core.sketch.public_items import Array

RANKS: Final[tuple[float, float, float, float]]

class Quantiles:
    """Quantiles of numbers: KLL, exact for the first k values, then within `rank_error` of the rank."""

    def __init__(self, k: int = 200, *, dense: bool = False) -> None: ...
    @property
    def k(self) -> int:
        """Size and accuracy, 8 to 65535; 200 gives a rank error of 1.33 %."""

    @property
    def count(self) -> int:
        """Number of values."""

    @property
    def sum(self) -> float:
        """Sum of the values; of a deserialised sketch the estimate from its retained values."""

    @property
    def min(self) -> float | None:
        """Smallest value, None when empty."""

    @property
    def max(self) -> float | None:
        """Largest value, None when empty."""

    def update(self, value: SupportsFloat | Array, weight: int = 1) -> None:
        """Take in a number, or each number of an array, `weight` times. NaN is ignored."""

    def quantile(self, rank: float) -> float | None:
        """The smallest value with at least the share `rank` (0..1) of all values at or below it."""

    def quantiles(self, ranks: Sequence[float] = RANKS) -> list[float] | None:
        """`quantile` at several ranks; None when empty."""

    def rank(self, value: float, *, inclusive: bool = True) -> float | None:
        """Share of the values at or below value (inclusive=False: below it); None when empty."""

    def rank_error(self) -> float:
        """Largest error of a rank at 99 % confidence, a share of the count; 0 while the sketch is exact."""

    def quantile_bounds(self, rank: float) -> tuple[float, float] | None:
        """The values at rank - rank_error and rank + rank_error; None when empty."""

    def merge(self, other: Quantiles) -> None:
        """Take in the values of another sketch; its dense counts stay exact if this one is dense too."""

    def serialize(self) -> bytes:
        """The form of Apache DataSketches for doubles (`kll_doubles_sketch`); the sum is not part of it."""

    @classmethod
    def deserialize(cls, data: Buffer) -> Self:
        """Read a KLL image of doubles; ValueError if it is malformed."""

    @classmethod
    def from_datasketches(cls, sketch: Any) -> Self:
        """Take over a `kll_doubles_sketch` of the datasketches package."""

    def to_datasketches(self) -> Any:
        """The same as a `kll_doubles_sketch` of the datasketches package."""

class Histogram:
    """Counts over the boundaries 10^(i/18), exactly: 315 for integers, 486 for floating numbers."""

    def __init__(self, *, integer: bool = True) -> None: ...
    @property
    def integer(self) -> bool:
        """Which boundaries are used."""

    @property
    def count(self) -> int:
        """Number of values."""

    def update(self, value: SupportsFloat | Array, weight: int = 1) -> None:
        """Count a number, or each number of an array, `weight` times. NaN is ignored."""

    def buckets(self) -> list[tuple[float, int]]:
        """(boundary, number of values <= boundary), boundaries with an empty interval left out."""

    def merge(self, other: Histogram) -> None:
        """Add the counts of another histogram; ValueError if its boundaries differ."""

    def serialize(self) -> bytes: ...
    @classmethod
    def deserialize(cls, data: Buffer) -> Self:
        """Read bytes of `serialize`; ValueError if they are malformed."""

class Rate:
    """Events per second, by their own time stamps, and the quantiles over the seconds."""

    def __init__(self, start: float | None = None) -> None: ...
    @property
    def start(self) -> int | None:
        """Where second 0 begins, nanoseconds; without an argument the whole second of the first stamp."""

    @property
    def is_closed(self) -> bool:
        """Whether `close` or a merge of another span has ended it."""

    def update(self, timestamp: float | Array, count: int = 1) -> None:
        """Count `count` events at a time (int: nanoseconds, float: seconds), or at each time of an array."""

    def close(self, end: float) -> None:
        """End the measurement: whole seconds up to `end` are the samples, empty ones included."""

    def per_second(self) -> list[tuple[int, int]]:
        """(start of the second in nanoseconds, events) of the seconds with events, before `close`."""

    def quantiles(self, ranks: Sequence[float] = RANKS) -> list[float] | None:
        """Events per second at the ranks, inclusive rule; None before the first whole second."""

    @property
    def seconds(self) -> int:
        """Number of whole seconds measured."""

    @property
    def sum(self) -> int:
        """Events in these seconds."""

    def merge(self, other: Rate, *, same_span: bool = False) -> None:
        """Take in another rate: second by second (same_span=True), or its samples beside our own."""

    def serialize(self) -> bytes: ...
    @classmethod
    def deserialize(cls, data: Buffer) -> Self:
        """Read bytes of `serialize`; ValueError if they are malformed."""

class Counter:
    """A sum of 64 bits that only grows; OverflowError beyond."""

    def __init__(self, value: int = 0) -> None: ...
    @property
    def value(self) -> int:
        """The sum."""

    def __int__(self) -> int: ...
    def update(self, value: int | Array = 1) -> None:
        """Add a number, or all numbers of an integer array."""

    def merge(self, other: Counter) -> None: ...
    def serialize(self) -> bytes: ...
    @classmethod
    def deserialize(cls, data: Buffer) -> Self:
        """Read bytes of `serialize`; ValueError if they are malformed."""

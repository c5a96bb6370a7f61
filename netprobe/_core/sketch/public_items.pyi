from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

from typing_extensions import Buffer

class SupportsArray(Protocol):
    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...

Array: TypeAlias = Buffer | SupportsArray
"""numpy arrays, columns of pandas or polars, array.array, memoryview."""

class TopRow(NamedTuple):
    item: str
    estimate: int
    lower_bound: int
    upper_bound: int

def set_seed(seed: int) -> None:
    """Seed the coins and the table layout of all sketches made from now on."""

class Cardinality:
    """Count of distinct items: HyperLogLog, exact while few."""

    def __init__(self, lg_k: int = 14) -> None: ...
    @property
    def lg_k(self) -> int:
        """Binary logarithm of the number of registers, 4 to 21."""

    @property
    def is_exact(self) -> bool:
        """Whether the items are still counted one by one."""

    def update(self, value: float | str | bytes | bytearray | IPv4Address | IPv6Address | Array) -> None:
        """Count one item, or each item of an array (integers, floats, bytes or text of numpy)."""

    def estimate(self) -> float:
        """Number of distinct items."""

    def lower_bound(self, std: int = 2) -> float:
        """What the true number exceeds with the confidence of 1, 2 or 3 standard deviations."""

    def upper_bound(self, std: int = 2) -> float:
        """What the true number stays below with the confidence of 1, 2 or 3 standard deviations."""

    def merge(self, other: Cardinality) -> None:
        """Count the items of another sketch too. Of different lg_k the smaller one remains."""

    def serialize(self) -> bytes:
        """The compact HLL_8 form of Apache DataSketches."""

    @classmethod
    def deserialize(cls, data: Buffer) -> Self:
        """Read an HLL image of any DataSketches library; ValueError if it is malformed."""

    @classmethod
    def from_datasketches(cls, sketch: Any) -> Self:
        """Take over an `hll_sketch` of the datasketches package."""

    def to_datasketches(self) -> Any:
        """The same as an `hll_sketch` of the datasketches package."""

class TopN:
    """Most frequent items: exact while distinct items fit, with stated bounds after that."""

    def __init__(self, lg_max: int = 13) -> None: ...
    @property
    def lg_max(self) -> int:
        """Binary logarithm of the largest table size, 3 to 20."""

    @property
    def total(self) -> int:
        """Sum of all weights, of forgotten items too."""

    @property
    def max_error(self) -> int:
        """The most by which an estimate exceeds the truth, or an unlisted item may have counted."""

    def __len__(self) -> int:
        """Number of tracked items."""

    def update(
        self,
        item: str | bytes | bytearray | int | IPv4Address | IPv6Address | Array,
        weight: int | Array = 1,
    ) -> None:
        """Count one item, or each item of an array of integers or text; weight is a number or an array."""

    def estimate(self, item: str | bytes | int | IPv4Address | IPv6Address) -> int:
        """Upper bound of the weight of a tracked item; 0 if it is not tracked."""

    def lower_bound(self, item: str | bytes | int | IPv4Address | IPv6Address) -> int:
        """Weight that the item has for certain."""

    def upper_bound(self, item: str | bytes | int | IPv4Address | IPv6Address) -> int:
        """Weight that the item does not exceed, tracked or not."""

    def rows(self, limit: int | None = None) -> list[TopRow]:
        """Tracked items, largest first, then by the item's bytes; at most `limit`."""

    def merge(self, other: TopN) -> None:
        """Add the weights of another sketch."""

    def serialize(self) -> bytes:
        """The form of Apache DataSketches for string items (`frequent_strings_sketch`)."""

    @classmethod
    def deserialize(cls, data: Buffer) -> Self:
        """Read an image with string items; ValueError if it is malformed or holds other items."""

    @classmethod
    def from_datasketches(cls, sketch: Any) -> Self:
        """Take over a `frequent_strings_sketch` of the datasketches package."""

    def to_datasketches(self) -> Any:
        """The same as a `frequent_strings_sketch` of the datasketches package."""

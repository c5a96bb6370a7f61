from collections.abc import Sequence
from typing import Final

RANKS: Final[tuple[float, float, float, float]]
"""The ranks that every quantile is shown at: 0.5, 0.9, 0.95, 0.99."""

class MetricBlock:
    """One bucket's worth of metrics of one handler block; handlers make them natively."""

    def __init__(
        self,
        *,
        counters: int = 0,
        cards: int = 0,
        topns: Sequence[int] = (),
        quants: Sequence[bool | int] = (),
        hists: Sequence[bool | int] = (),
        rates: int = 0,
        start_ns: int = 0,
    ) -> None:
        """An empty block, for handlers written in Python and for tests.

        `topns` are KEY_* kinds of sketch.freq, `quants` says per metric whether small integers are counted
        by value, `hists` whether the boundaries are the floating ones.
        """

    @property
    def used(self) -> bool:
        """Whether anything was recorded; direction blocks appear only then."""

    @property
    def start(self) -> int:
        """Start of the bucket, nanoseconds since 1970."""

    def counter(self, i: int) -> int: ...
    def cardinality(self, i: int) -> int:
        """Distinct items, rounded half up."""

    def topn_kind(self, i: int) -> int:
        """KEY_* of sketch.freq: what the bytes of a key are."""

    def topn(self, i: int, limit: int | None = None) -> list[tuple[bytes, int]]:
        """Tracked items as (key bytes, estimate), largest estimate first, then by key; at most `limit`."""

    def topn_error(self, i: int) -> int:
        """The most by which an estimate may exceed the truth, or an unlisted item may have counted."""

    def topn_total(self, i: int) -> int:
        """Sum of all weights offered."""

    def topn_purged(self, i: int) -> int:
        """Items that were thrown out because the table was full."""

    def quantiles(self, i: int, ranks: Sequence[float] = RANKS) -> list[float] | None:
        """Values at the ranks (0..1), inclusive rule; None when there was no value."""

    def quantile_count(self, i: int) -> int: ...
    def quantile_sum(self, i: int) -> float: ...
    def quantile_range(self, i: int) -> tuple[float, float] | None:
        """Smallest and largest value, or None."""

    def histogram(self, i: int) -> tuple[list[tuple[float, int]], int] | None:
        """([(boundary, values <= boundary), …], total), empty intervals left out; None when empty."""

    def rate(self, i: int, ranks: Sequence[float] = RANKS) -> tuple[list[float], int, float] | None:
        """(quantiles, number of whole seconds, sum) of a closed bucket; None without a whole second."""

    def live(self, i: int) -> int:
        """A rate's last whole second, in a copy of an open bucket; 0 elsewhere."""

    def add_counter(self, i: int, n: int = 1) -> None: ...
    def add_cardinality(self, i: int, item: bytes) -> None: ...
    def add_topn(self, i: int, key: bytes, weight: int = 1) -> None: ...
    def add_quantile(self, i: int, value: float) -> None: ...
    def add_histogram(self, i: int, value: float) -> None: ...
    def add_rate(self, i: int, ts: int, n: int = 1) -> None:
        """Count n at the time ts, nanoseconds since 1970."""

    def close(self, end_ns: int) -> None:
        """End the bucket: the whole seconds up to end_ns become the samples of its rates."""

    def merge(self, other: MetricBlock, same_span: bool) -> None:
        """Take in another block of the same metrics (ValueError otherwise).

        same_span=True: another shard of the same bucket, rates are added second by second.
        same_span=False: another period or machine, rates keep their samples side by side.
        """

    def clone(self) -> MetricBlock: ...
    def to_bytes(self) -> bytes: ...
    @staticmethod
    def from_bytes(data: bytes) -> MetricBlock:
        """A block from `to_bytes`; ValueError for anything else."""

"""Sketches: small summaries of many values that can be updated, merged, stored and asked.

    >>> from netprobe import Cardinality, TopN
    >>> clients = Cardinality()
    >>> for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
    ...     clients.update(address)
    >>> round(clients.estimate())
    2
    >>> names = TopN()
    >>> names.update("example.com", 5)
    >>> names.update("example.org")
    >>> names.rows(1)
    [TopRow(item='example.com', estimate=5, lower_bound=5, upper_bound=5)]

All of them take one value or a whole array (numpy, pandas column, `array`, memoryview); an array is read
natively, without a Python object per item. `merge` adds another one, `serialize` and `deserialize` go through
bytes, which are those of Apache DataSketches for Cardinality, TopN and Quantiles. `pickle` works too.

None of them is safe against updates from several threads at a time: give each thread its own and merge.
"""

from netprobe._core.sketch.hist import boundaries
from netprobe._core.sketch.public_items import Cardinality, TopN, TopRow, set_seed
from netprobe._core.sketch.public_values import Counter, Histogram, Quantiles, Rate

__all__ = [
    "Cardinality",
    "Counter",
    "Histogram",
    "Quantiles",
    "Rate",
    "TopN",
    "TopRow",
    "boundaries",
    "set_seed",
]

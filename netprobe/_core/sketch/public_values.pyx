"""Sketches of numbers and times, as Python classes; netprobe.sketches is where users find them."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport isfinite
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT64_MAX, int64_t, uint8_t, uint32_t, uint64_t

from netprobe._core.sketch.hist cimport (
    Hist, hist_boundaries, hist_free, hist_init, hist_intervals, hist_merge, hist_update_weighted)
from netprobe._core.sketch.items cimport (
    Items, close_items, is_array, item_double, item_int, open_items, open_numbers, unwrap)
from netprobe._core.sketch.kll cimport (
    KLL_DENSE, KLL_K, Kll, kll_add_int, kll_count, kll_free, kll_init, kll_merge, kll_range, kll_rank,
    kll_update, kll_update_weighted)
from netprobe._core.sketch.kll_form cimport kll_read
from netprobe._core.sketch.pack cimport (
    Reader, check, finish, pack_full_kll, pack_hist, pack_kll, pack_rate, quantiles_of, reader_of, unpack_full_kll,
    unpack_hist, unpack_rate)
from netprobe._core.sketch.rate cimport (
    RateTable, rate_add, rate_close, rate_copy, rate_free, rate_init, rate_merge, rate_row)
from netprobe._core.sketch.stored cimport Exchanged, Stored

RANKS = (0.5, 0.9, 0.95, 0.99)
cdef int64_t SECOND = 1000000000


cdef class Quantiles(Exchanged):
    """Quantiles of numbers: KLL, exact for the first k values, then within `rank_error` of the rank.

    dense=True counts integers from 0 to 2047 (packet sizes) by value, exactly however many there are, until
    the sketch is serialised. NaN is ignored.
    """

    _foreign = "kll_doubles_sketch"
    cdef Kll sketch

    def __cinit__(self, int k=KLL_K, *, bint dense=False):
        if not 8 <= k <= 65535:
            raise ValueError(f"k lies between 8 and 65535, not at {k}")
        kll_init(&self.sketch, k, dense)

    def __dealloc__(self):
        kll_free(&self.sketch)

    @property
    def k(self):
        """Size and accuracy, 8 to 65535; 200 gives a rank error of 1.33 %."""
        return self.sketch.k

    @property
    def count(self):
        """Number of values."""
        return kll_count(&self.sketch)

    @property
    def sum(self):
        """Sum of the values; of a deserialised sketch the estimate from its retained values."""
        return self.sketch.sum

    @property
    def min(self):
        """Smallest value, None when empty."""
        cdef double low, high
        return None if kll_range(&self.sketch, &low, &high) != 0 else low

    @property
    def max(self):
        """Largest value, None when empty."""
        cdef double low, high
        return None if kll_range(&self.sketch, &low, &high) != 0 else high

    cdef inline void _add(self, double value) noexcept:
        if self.sketch.want_dense and 0 <= value < KLL_DENSE and value == <double><uint32_t>value:
            kll_add_int(&self.sketch, <uint64_t>value)
        else:
            kll_update(&self.sketch, value)

    def update(self, value, uint64_t weight=1):
        """Take in a number, or each number of an array, `weight` times."""
        cdef Items items
        cdef Py_ssize_t i
        value = unwrap(value)
        if not is_array(value):
            if weight == 1:
                self._add(value)
            else:
                kll_update_weighted(&self.sketch, value, weight)
            return
        open_numbers(&items, value)
        try:
            if weight != 1:
                for i in range(items.n):
                    kll_update_weighted(&self.sketch, item_double(&items, i), weight)
            else:
                for i in range(items.n):
                    self._add(item_double(&items, i))
        finally:
            close_items(&items)

    def quantile(self, double rank):
        """The smallest value with at least the share `rank` (0..1) of all values at or below it; None when empty."""
        values = quantiles_of(&self.sketch, (rank,))
        return None if values is None else values[0]

    def quantiles(self, ranks=RANKS):
        """`quantile` at several ranks."""
        return quantiles_of(&self.sketch, ranks)

    def rank(self, double value, *, bint inclusive=True):
        """Share of the values at or below value (inclusive=False: below it); None when empty."""
        if kll_count(&self.sketch) == 0:
            return None
        return kll_rank(&self.sketch, value, inclusive)

    def rank_error(self):
        """Largest error of a rank at 99 % confidence, as a share of the count; 0 while the sketch is exact."""
        # fitted by the DataSketches project to 99 % confidence
        return 2.296 / <double>self.sketch.min_k ** 0.9723 if self.sketch.num_levels > 1 else 0.0

    def quantile_bounds(self, double rank):
        """The values at rank - rank_error and rank + rank_error; None when empty."""
        error = self.rank_error()
        values = quantiles_of(&self.sketch, (max(0.0, rank - error), min(1.0, rank + error)))
        return None if values is None else tuple(values)

    def merge(self, Quantiles other not None):
        """Take in the values of another sketch; its dense counts stay exact if this one is dense too."""
        check(kll_merge(&self.sketch, &other.sketch), "quantiles")

    def serialize(self):
        """The form of Apache DataSketches for doubles (`kll_doubles_sketch`); the sum is not part of it."""
        return pack_kll(&self.sketch)

    @classmethod
    def deserialize(cls, data):
        """Read a KLL image of doubles; ValueError if it is malformed."""
        cdef bytes held = bytes(data)
        cdef Quantiles new = cls()
        cdef Kll sketch
        check(kll_read(&sketch, <const uint8_t *>PyBytes_AS_STRING(held), PyBytes_GET_SIZE(held)),
              "not a KLL image of DataSketches with doubles")
        kll_free(&new.sketch)
        new.sketch = sketch
        return new

    @classmethod
    def _unpickle(cls, bytes data):
        cdef Quantiles new = cls()
        cdef Reader r = reader_of(data, b"NPQU\x01")
        kll_free(&new.sketch)
        unpack_full_kll(&new.sketch, &r)
        finish(&r)
        return new

    def __reduce__(self):
        # with the dense front and the exact sum, which the image has no place for
        return type(self)._unpickle, (b"NPQU\x01" + pack_full_kll(&self.sketch),)

    def __repr__(self):
        values = self.quantiles()
        shown = "" if values is None else ": p50={:g} p90={:g} p95={:g} p99={:g}".format(*values)
        return f"<Quantiles of {self.count} values{shown}>"


cdef class Histogram(Stored):
    """Counts over the boundaries 10^(i/18), exactly: 315 for integers, 486 for floating numbers.

    A boundary b counts the values in (previous boundary, b], the first one everything up to it.
    """

    cdef Hist sketch

    def __cinit__(self, *, bint integer=True):
        hist_init(&self.sketch, integer)

    def __dealloc__(self):
        hist_free(&self.sketch)

    @property
    def integer(self):
        """Which boundaries are used."""
        return self.sketch.integer != 0

    @property
    def count(self):
        """Number of values."""
        return self.sketch.n

    def update(self, value, uint64_t weight=1):
        """Count a number, or each number of an array, `weight` times. NaN is ignored."""
        cdef Items items
        cdef Py_ssize_t i
        value = unwrap(value)
        if not is_array(value):
            hist_update_weighted(&self.sketch, value, weight)
            return
        open_numbers(&items, value)
        try:
            for i in range(items.n):
                hist_update_weighted(&self.sketch, item_double(&items, i), weight)
        finally:
            close_items(&items)

    def buckets(self):
        """(boundary, number of values <= boundary), boundaries with an empty interval left out."""
        cdef const double *bounds = hist_boundaries(self.sketch.integer)
        cdef uint64_t total = 0
        cdef uint32_t i
        cdef list out = []
        for i in range(hist_intervals(&self.sketch) - 1 if self.sketch.n else 0):
            total += self.sketch.counts[i]
            if self.sketch.counts[i]:
                out.append((bounds[i], total))
        return out

    def merge(self, Histogram other not None):
        """Add the counts of another histogram; ValueError if its boundaries differ."""
        check(hist_merge(&self.sketch, &other.sketch), "histograms with different boundaries")

    def serialize(self):
        """A form of our own."""
        return (b"NPHI\x01" if self.sketch.integer else b"NPHF\x01") + pack_hist(&self.sketch)

    @classmethod
    def deserialize(cls, data):
        """Read bytes of `serialize`; ValueError if they are malformed."""
        cdef bytes held = bytes(data)
        cdef bint integer = held[:5] == b"NPHI\x01"
        cdef Reader r = reader_of(held, b"NPHI\x01" if integer else b"NPHF\x01")
        cdef Histogram new = cls(integer=integer)
        unpack_hist(&new.sketch, integer, &r)
        finish(&r)
        return new

    def __repr__(self):
        return f"<Histogram of {self.count} values, {'integer' if self.integer else 'floating'} boundaries>"


cdef int64_t stamp_of(value) except? -1:
    cdef double seconds
    if isinstance(value, int):
        return value
    seconds = value * 1e9
    if not isfinite(seconds) or not -9.2e18 < seconds < 9.2e18:
        raise ValueError(f"not a time: {value!r}")
    return <int64_t>seconds


cdef class Rate(Stored):
    """Events per second, by their own time stamps, and the quantiles over the seconds.

    Seconds without an event count as zero and cost nothing. The last second, being cut short, is no sample.
    Times are integers in nanoseconds or floats in seconds since 1970 (or any common origin). 16384 seconds
    with events are kept apart; older ones are summed up in the sketch, and later stamps for them count in the
    oldest second kept.
    """

    cdef RateTable table
    cdef bint started

    def __cinit__(self, start=None):
        self.started = start is not None
        rate_init(&self.table, 1, 0)
        if self.started:
            self.table.start_ns = stamp_of(start)

    def __dealloc__(self):
        rate_free(&self.table)

    @property
    def start(self):
        """Where second 0 begins, nanoseconds; without an argument the whole second of the first stamp."""
        return self.table.start_ns if self.started else None

    @property
    def is_closed(self):
        """Whether `close` or a merge of another span has ended it."""
        return self.table.closed != 0

    cdef int _begin(self, int64_t ts) except -1:
        cdef int64_t second
        if self.table.closed:
            raise ValueError("the rate is closed")
        if not self.started:
            # on whole seconds, so that two that began by themselves can be added
            second = ts // SECOND
            if ts % SECOND < 0:
                second -= 1
            self.table.start_ns = second * SECOND if second >= INT64_MIN / SECOND else ts
            self.started = True
        return 0

    def update(self, timestamp, uint64_t count=1):
        """Count `count` events at a time, or at each time of an array (also datetime64)."""
        cdef Items items
        cdef Py_ssize_t i
        cdef int64_t ts
        cdef int64_t first = INT64_MAX
        cdef double seconds
        timestamp = unwrap(timestamp)
        if not is_array(timestamp):
            ts = stamp_of(timestamp)
            self._begin(ts)
            rate_row(&self.table, ts)[0] += count
            return
        if getattr(getattr(timestamp, "dtype", None), "kind", "") == "M":
            timestamp = timestamp.astype("datetime64[ns]").view("int64")
        open_items(&items, timestamp)
        try:
            if items.kind not in (c'i', c'f') and not (items.kind == c'u' and items.size == 8):
                raise TypeError("times are 64-bit nanoseconds or floating seconds")
            if items.n == 0:
                return
            for i in range(items.n):
                if items.kind == c'f':
                    seconds = item_double(&items, i) * 1e9
                    if not (-9.2e18 < seconds < 9.2e18):
                        raise ValueError(f"not a time: {item_double(&items, i)!r}")
                    ts = <int64_t>seconds
                else:
                    ts = item_int(&items, i)
                if ts < first:
                    first = ts
            self._begin(first)
            for i in range(items.n):
                ts = <int64_t>(item_double(&items, i) * 1e9) if items.kind == c'f' else item_int(&items, i)
                rate_row(&self.table, ts)[0] += count
        finally:
            close_items(&items)

    def close(self, end):
        """End the measurement: whole seconds up to `end` are the samples, empty ones included."""
        rate_close(&self.table, stamp_of(end))

    def per_second(self):
        """(start of the second in nanoseconds, events) of the seconds with events, before `close`."""
        cdef uint32_t i
        return [(self.table.start_ns + self.table.rows[i].second * SECOND, self.table.rows[i].count[0])
                for i in range(self.table.n_rows)]

    cdef Rate _settled(self):
        cdef Rate twin
        if self.table.closed:
            return self
        twin = Rate.__new__(Rate)
        rate_free(&twin.table)
        check(rate_copy(&twin.table, &self.table), "rate")
        twin.started = self.started
        if twin.table.n_rows:
            rate_close(&twin.table, twin.table.start_ns
                       + twin.table.rows[twin.table.n_rows - 1].second * SECOND)
        return twin

    def quantiles(self, ranks=RANKS):
        """Events per second at the ranks, inclusive rule; None before the first whole second."""
        return quantiles_of(&self._settled().table.sketch[0], ranks)

    @property
    def seconds(self):
        """Number of whole seconds measured."""
        return kll_count(&self._settled().table.sketch[0])

    @property
    def sum(self):
        """Events in these seconds."""
        return int(self._settled().table.sketch[0].sum)

    def merge(self, Rate other not None, *, bint same_span=False):
        """Take in another rate.

        same_span=True: the same time seen elsewhere (a shard): events are added second by second.
        same_span=False: another time or place: the samples stand side by side, and both are ended.
        """
        if not other.started:
            return
        if not self.started:
            self.table.start_ns = other.table.start_ns
            self.started = True
        check(rate_add(&self.table, &other.table) if same_span else rate_merge(&self.table, &other.table), "rate")

    def serialize(self):
        """A form of our own."""
        return b"NPRT\x01" + (b"\x01" if self.started else b"\x00") + pack_rate(&self.table)

    @classmethod
    def deserialize(cls, data):
        """Read bytes of `serialize`; ValueError if they are malformed."""
        cdef bytes held = bytes(data)
        cdef Reader r = reader_of(held, b"NPRT\x01" + (b"\x01" if held[5:6] == b"\x01" else b"\x00"))
        cdef Rate new = cls()
        rate_free(&new.table)
        unpack_rate(&new.table, 1, &r)
        finish(&r)
        new.started = held[5] == 1
        return new

    def __repr__(self):
        values = self.quantiles()
        shown = "" if values is None else ": p50={:g} p90={:g} p95={:g} p99={:g}".format(*values)
        return f"<Rate over {self.seconds} seconds{shown}>"


cdef class Counter(Stored):
    """A sum of 64 bits that only grows; OverflowError beyond."""

    cdef uint64_t n

    def __cinit__(self, uint64_t value=0):
        self.n = value

    @property
    def value(self):
        """The sum."""
        return self.n

    def __int__(self):
        return self.n

    cdef int _add(self, uint64_t n) except -1:
        if n > UINT64_MAX - self.n:
            raise OverflowError("a counter has 64 bits")
        self.n += n
        return 0

    def update(self, value=1):
        """Add a number, or all numbers of an integer array."""
        cdef Items items
        cdef Py_ssize_t i
        cdef uint64_t before = self.n
        value = unwrap(value)
        if not is_array(value):
            self._add(value)
            return
        open_items(&items, value)
        try:
            if items.kind not in (c'i', c'u'):
                raise TypeError("a counter adds integers")
            for i in range(items.n):
                if items.kind == c'i' and item_int(&items, i) < 0:
                    raise OverflowError("a counter only grows")
                self._add(<uint64_t>item_int(&items, i))
        except BaseException:
            self.n = before
            raise
        finally:
            close_items(&items)

    def merge(self, Counter other not None):
        """Add another counter."""
        self._add(other.n)

    def serialize(self):
        """A form of our own."""
        return b"NPCT\x01" + int(self.n).to_bytes(8, "little")

    @classmethod
    def deserialize(cls, data):
        """Read bytes of `serialize`; ValueError if they are malformed."""
        cdef bytes held = bytes(data)
        if len(held) != 13 or held[:5] != b"NPCT\x01":
            raise ValueError("not the bytes of a counter")
        return cls(int.from_bytes(held[5:], "little"))

    def __repr__(self):
        return f"<Counter {self.n}>"

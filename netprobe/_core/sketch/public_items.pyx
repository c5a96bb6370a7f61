"""Sketches that count items, as Python classes; netprobe.sketches is where users find them."""
from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport sqrt
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from netprobe._core.sketch.freq cimport (
    FREQ_LG_LIMIT, FREQ_LG_MAX, KEY_TEXT, Freq, FreqRow, freq_free, freq_hash, freq_init, freq_merge, freq_read,
    freq_rows, freq_set_seed, freq_update, freq_weight)
from netprobe._core.sketch.hll cimport (
    HLL_LG_K, Hll, hll_add, hll_coupon, hll_estimate, hll_free, hll_init, hll_merge, hll_nonzero, hll_read)
from netprobe._core.sketch.items cimport (
    Items, close_items, is_array, is_missing, item_at, item_double, item_int, item_text, objects_of, open_items,
    unwrap)
from netprobe._core.sketch.kll cimport kll_set_seed
from netprobe._core.sketch.pack cimport (
    Reader, check, finish, pack_freq, pack_full_freq, pack_hll, reader_of, unpack_full_freq)
from netprobe._core.sketch.stored cimport Exchanged

cdef enum:
    MAX_TEXT = 65535

TopRow = namedtuple("TopRow", "item estimate lower_bound upper_bound", module="netprobe.sketches")
cdef uint64_t NAN_BITS = 0x7ff8000000000000


def set_seed(uint64_t seed):
    """Seed the coins and the table layout of all sketches made from now on."""
    kll_set_seed(seed)
    freq_set_seed(seed)


cdef int check_std(int std) except -1:
    if not 1 <= std <= 3:
        raise ValueError(f"standard deviations are 1, 2 or 3, not {std}")
    return 0


cdef inline uint32_t coupon_int(int64_t value) noexcept nogil:
    return hll_coupon(<const uint8_t *>&value, 8)


cdef inline uint32_t coupon_double(double value) noexcept nogil:
    if value == 0:
        value = 0                        # -0.0 is the same item
    elif value != value:
        memcpy(&value, &NAN_BITS, 8)
    return hll_coupon(<const uint8_t *>&value, 8)


cdef class Cardinality(Exchanged):
    """Count of distinct items: HyperLogLog, exact while few.

    With the default lg_k = 14 the first 1536 distinct items are counted exactly (but for items that share 32
    bits of their hash, one pair in 2*10^8), beyond that with a standard error of 0.8 % in 16 KiB. The estimate
    depends on the set of items only, never on order or on how parts were merged.

    What is hashed, so that sketches of other DataSketches programs count together with ours: integers as 64-bit
    two's complement (unsigned ones keep their bits), floats as doubles with one zero and one NaN, str as UTF-8,
    bytes as they are, addresses of `ipaddress` as their 4 or 16 bytes in network order. Empty text is ignored.
    """

    _foreign = "hll_sketch"
    cdef Hll sketch

    def __cinit__(self, int lg_k=HLL_LG_K):
        if not 4 <= lg_k <= 21:
            raise ValueError(f"lg_k lies between 4 and 21, not at {lg_k}")
        hll_init(&self.sketch, lg_k)

    def __dealloc__(self):
        hll_free(&self.sketch)

    @property
    def lg_k(self):
        """Binary logarithm of the number of registers, 4 to 21."""
        return self.sketch.lg_k

    @property
    def is_exact(self):
        """Whether the items are still counted one by one."""
        return self.sketch.regs == NULL

    def update(self, value):
        """Count one item, or each item of an array (integers, floats, bytes or text of numpy).

        In an array of Python objects, such as text in pandas, None and NaN are passed over.
        OverflowError for integers beyond 64 bits, TypeError for what has no canonical form.
        """
        cdef bytes raw
        value = unwrap(value)
        if isinstance(value, int):
            if not -0x8000000000000000 <= value < 0x10000000000000000:
                raise OverflowError("an integer item has 64 bits at most; use its text or bytes")
            hll_add(&self.sketch, coupon_int(<int64_t><uint64_t>(value & 0xFFFFFFFFFFFFFFFF)))
            return
        if isinstance(value, float):
            hll_add(&self.sketch, coupon_double(value))
            return
        if isinstance(value, str):
            raw = (<str>value).encode()
        elif isinstance(value, (bytes, bytearray)):
            raw = bytes(value)
        elif is_array(value):
            several = objects_of(value)
            if several is None:
                self._update_array(value)
            else:
                for item in several:
                    if not is_missing(item):
                        self.update(item)
            return
        else:
            packed = getattr(value, "packed", None)          # ipaddress: 4 or 16 bytes in network order
            if not isinstance(packed, bytes):
                raise TypeError(f"cannot count a {type(value).__name__}")
            raw = packed
        hll_add(&self.sketch, hll_coupon(<const uint8_t *>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)))

    cdef _update_array(self, value):
        cdef Items items
        cdef Py_ssize_t i, n
        cdef uint8_t *room = NULL
        cdef const uint8_t *p
        open_items(&items, value)
        try:
            if items.kind == c'f':
                for i in range(items.n):
                    hll_add(&self.sketch, coupon_double(item_double(&items, i)))
            elif items.kind == c's':
                for i in range(items.n):
                    p = item_at(&items, i)
                    n = items.size
                    while n > 0 and p[n - 1] == 0:
                        n -= 1
                    hll_add(&self.sketch, hll_coupon(p, n))
            elif items.kind == c'w':
                room = <uint8_t *>malloc(2 * items.size + 24)
                if room == NULL:
                    raise MemoryError
                for i in range(items.n):
                    n = item_text(&items, i, room)
                    hll_add(&self.sketch, hll_coupon(room, n))
            else:
                for i in range(items.n):
                    hll_add(&self.sketch, coupon_int(item_int(&items, i)))
        finally:
            free(room)
            close_items(&items)

    def estimate(self):
        """Number of distinct items."""
        return hll_estimate(&self.sketch)

    cdef double _error(self, int std):
        # of one standard deviation; coupons: only collisions of 26 bits
        if self.sketch.regs == NULL:
            return std * 0.409 / 8192
        return std * 1.03896 / sqrt(<double>(<uint32_t>1 << self.sketch.lg_k))

    def lower_bound(self, int std=2):
        """What the true number exceeds with the confidence of 1, 2 or 3 standard deviations."""
        check_std(std)
        cdef double error = self._error(std)
        # the estimate's distribution leans upwards when there are few registers
        return max(<double>hll_nonzero(&self.sketch), hll_estimate(&self.sketch) / (1 + error + 0.55 * error * error))

    def upper_bound(self, int std=2):
        """What the true number stays below with the confidence of 1, 2 or 3 standard deviations."""
        check_std(std)
        return max(<double>hll_nonzero(&self.sketch), hll_estimate(&self.sketch) / (1 - self._error(std)))

    def merge(self, Cardinality other not None):
        """Count the items of another sketch too. Of different lg_k the smaller one remains."""
        check(hll_merge(&self.sketch, &other.sketch), "cardinality")

    def serialize(self):
        """The compact HLL_8 form of Apache DataSketches."""
        return pack_hll(&self.sketch)

    @classmethod
    def deserialize(cls, data):
        """Read an HLL image of any DataSketches library; ValueError if it is malformed."""
        cdef bytes held = bytes(data)
        cdef Cardinality new = cls()
        cdef Hll sketch
        check(hll_read(&sketch, <const uint8_t *>PyBytes_AS_STRING(held), PyBytes_GET_SIZE(held)),
              "not an HLL image of DataSketches")
        hll_free(&new.sketch)
        new.sketch = sketch
        return new

    def __repr__(self):
        return f"<Cardinality {self.estimate():.0f} lg_k={self.lg_k}{' exact' if self.is_exact else ''}>"


cdef bytes text_of(item):
    if isinstance(item, str):
        return (<str>item).encode()
    if isinstance(item, (bytes, bytearray)):
        # bytes that are no text get one, so that any DataSketches reader can show the item
        return bytes(item).decode("utf-8", "backslashreplace").encode()
    if isinstance(item, int) or isinstance(getattr(item, "packed", None), bytes):
        return str(item).encode()
    raise TypeError(f"cannot count a {type(item).__name__} by name")


cdef class TopN(Exchanged):
    """Most frequent items: exact while distinct items fit, with stated bounds after that.

    Up to 0.75 * 2^lg_max items are tracked (6144 by default). When more come, all counts are lowered by their
    median, and what is lost that way is `max_error`: no estimate is further above the truth.

    Items are names: str, bytes (text in UTF-8; other bytes are escaped), integers and addresses by their text.
    """

    _foreign = "frequent_strings_sketch"
    cdef Freq sketch

    def __cinit__(self, int lg_max=FREQ_LG_MAX):
        if not 3 <= lg_max <= FREQ_LG_LIMIT:
            raise ValueError(f"lg_max lies between 3 and {FREQ_LG_LIMIT}, not at {lg_max}")
        freq_init(&self.sketch, KEY_TEXT, lg_max)

    def __dealloc__(self):
        freq_free(&self.sketch)

    @property
    def lg_max(self):
        """Binary logarithm of the largest table size, 3 to 20."""
        return self.sketch.lg_max

    @property
    def total(self):
        """Sum of all weights, of forgotten items too."""
        return self.sketch.total

    @property
    def max_error(self):
        """The most by which an estimate exceeds the truth, or an unlisted item may have counted."""
        return self.sketch.offset

    def __len__(self):
        return self.sketch.active

    def update(self, item, weight=1):
        """Count one item, or each item of an array of integers or text; weight is a number or an array.

        In an array of Python objects, such as text in pandas, None and NaN are passed over.
        ValueError for items above 65535 bytes and for negative or too few weights.
        """
        item = unwrap(item)
        if not is_array(item):
            self._update_text(text_of(item), weight)
            return
        weight = unwrap(weight)
        if is_array(weight) and not memoryview(weight).ndim:
            weight = memoryview(weight)[()]      # a number of numpy
        several = objects_of(item)
        if several is None:
            self._update_array(item, weight)
        else:
            self._update_objects(several, weight)

    cdef _update_objects(self, list several, weight):
        weights = memoryview(weight).tolist() if is_array(weight) else [weight] * len(several)
        if len(weights) != len(several) or not all(isinstance(w, int) for w in weights):
            raise ValueError("weights are integers, one per item")
        if any(w < 0 for w in weights):
            raise ValueError("a weight is not negative")
        for item, w in zip(several, weights):
            if not is_missing(item):
                self._update_text(text_of(item), w)

    cdef _update_text(self, bytes text, uint64_t weight):
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(text)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
        if n > MAX_TEXT:
            raise ValueError(f"an item has {MAX_TEXT} bytes at most, not {n}")
        freq_update(&self.sketch, p, <uint32_t>n, freq_hash(p, n), weight)

    cdef _update_array(self, value, weight):
        cdef Items items
        cdef Items weights
        cdef bint weighted = is_array(weight)
        cdef uint64_t w = 1 if weighted else weight
        cdef uint8_t *room = NULL
        cdef Py_ssize_t i, n
        open_items(&items, value)
        try:
            if items.kind == c'f':
                raise TypeError("items are names: integers or text, not floating numbers")
            if items.size > MAX_TEXT:
                raise ValueError(f"an item has {MAX_TEXT} bytes at most")
            room = <uint8_t *>malloc(2 * items.size + 24)
            if room == NULL:
                raise MemoryError
            if weighted:
                open_items(&weights, weight)
            try:
                if weighted:
                    if weights.kind not in (c'i', c'u') or weights.n != items.n:
                        raise ValueError("weights are integers, one per item")
                    for i in range(weights.n if weights.kind == c'i' else 0):
                        if item_int(&weights, i) < 0:
                            raise ValueError("a weight is not negative")
                for i in range(items.n):
                    if weighted:
                        w = <uint64_t>item_int(&weights, i)
                    n = item_text(&items, i, room)
                    if n >= 0:
                        freq_update(&self.sketch, room, <uint32_t>n, freq_hash(room, n), w)
                    else:
                        self._update_text(text_of(
                            PyBytes_FromStringAndSize(<const char *>item_at(&items, i), items.size).rstrip(b"\0")), w)
            finally:
                if weighted:
                    close_items(&weights)
        finally:
            free(room)
            close_items(&items)

    cdef uint64_t _weight(self, item) except? 0:
        cdef bytes text = text_of(item)
        if PyBytes_GET_SIZE(text) > MAX_TEXT:
            return 0
        return freq_weight(&self.sketch, <const uint8_t *>PyBytes_AS_STRING(text), <uint32_t>PyBytes_GET_SIZE(text))

    def estimate(self, item):
        """Upper bound of the weight of a tracked item; 0 if it is not tracked."""
        cdef uint64_t weight = self._weight(item)
        return weight + self.sketch.offset if weight else 0

    def lower_bound(self, item):
        """Weight that the item has for certain."""
        return self._weight(item)

    def upper_bound(self, item):
        """Weight that the item does not exceed, tracked or not."""
        return self._weight(item) + self.sketch.offset

    def rows(self, limit=None):
        """Tracked items, largest first, then by the item's bytes; at most `limit`."""
        cdef uint32_t n, row
        cdef uint64_t offset = self.sketch.offset
        cdef FreqRow *rows
        cdef list out = []
        if self.sketch.active == 0:
            return out
        rows = <FreqRow *>malloc(self.sketch.active * sizeof(FreqRow))
        if rows == NULL:
            raise MemoryError
        try:
            n = freq_rows(&self.sketch, rows)
            if limit is not None and limit < n:
                n = max(0, limit)
            for row in range(n):
                item = PyBytes_FromStringAndSize(<const char *>rows[row].key, rows[row].n)
                out.append(TopRow(item.decode("utf-8", "backslashreplace"), rows[row].weight + offset,
                                  rows[row].weight, rows[row].weight + offset))
        finally:
            free(rows)
        return out

    def merge(self, TopN other not None):
        """Add the weights of another sketch."""
        check(freq_merge(&self.sketch, &other.sketch), "top items")

    def serialize(self):
        """The form of Apache DataSketches for string items (`frequent_strings_sketch`).

        It has no place for total and error of a sketch without any tracked item.
        """
        return pack_freq(&self.sketch)

    @classmethod
    def deserialize(cls, data):
        """Read an image with string items; ValueError if it is malformed or holds other items."""
        cdef bytes held = bytes(data)
        cdef TopN new = cls()
        cdef Freq sketch
        check(freq_read(&sketch, KEY_TEXT, <const uint8_t *>PyBytes_AS_STRING(held), PyBytes_GET_SIZE(held)),
              "not a frequent-items image of DataSketches with strings")
        freq_free(&new.sketch)
        new.sketch = sketch
        return new

    @classmethod
    def _unpickle(cls, bytes data):
        cdef TopN new = cls()
        cdef Reader r = reader_of(data, b"NPTN\x01")
        freq_free(&new.sketch)
        unpack_full_freq(&new.sketch, KEY_TEXT, &r)
        finish(&r)
        return new

    def __reduce__(self):
        # with total and error of a sketch that a purge emptied, for which the image has no place
        return type(self)._unpickle, (b"NPTN\x01" + pack_full_freq(&self.sketch),)

    def __repr__(self):
        best = "".join(f" {item!r}={estimate}" for item, estimate, _, _ in self.rows(3))
        return f"<TopN {len(self)} items, total {self.total}, error {self.max_error}:{best}>"

"""Sketches to bytes objects and back. Cold: plain Python bytes, little-endian as the machines we run on."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy

from netprobe._core.sketch.freq cimport freq_free, freq_init, freq_read, freq_size, freq_write
from netprobe._core.sketch.hist cimport hist_free, hist_init, hist_intervals
from netprobe._core.sketch.hll cimport hll_size, hll_write
from netprobe._core.sketch.kll cimport (
    KLL_DENSE, KLL_K, kll_count, kll_free, kll_init, kll_quantiles)
from netprobe._core.sketch.kll_form cimport kll_read, kll_size, kll_write
from netprobe._core.sketch.rate cimport RATE_COLUMNS, RATE_ROWS, RateRow, rate_free, rate_init

cdef enum:
    KLL_LEVELS_ONLY = 0
    KLL_WITH_DENSE = 1
    MAX_RANKS = 256

cdef int64_t MAX_SECOND = INT64_MAX // 1000000000 * 2 + 2      # between the two ends of 64-bit nanoseconds
cdef int64_t MAX_MERGED = <int64_t>1 << 61


cdef int check(int status, str what) except -1:
    if status == -1:
        raise MemoryError(what)
    if status != 0:
        raise ValueError(what)
    return 0


cdef int take(Reader *r, void *out, size_t n) except -1:
    if r.left < n:
        raise ValueError("bytes end early")
    memcpy(out, r.data, n)
    r.data += n
    r.left -= n
    return 0


cdef const uint8_t *take_view(Reader *r, size_t n) except NULL:
    cdef const uint8_t *at = r.data
    if r.left < n:
        raise ValueError("bytes end early")
    r.data += n
    r.left -= n
    return at


cdef const uint8_t *take_part(Reader *r, size_t *n) except? NULL:
    cdef uint32_t length
    take(r, &length, 4)
    n[0] = length
    return take_view(r, length)


cdef Reader reader_of(bytes data, bytes magic) except *:
    cdef Reader r
    cdef Py_ssize_t n = PyBytes_GET_SIZE(magic)
    if data[:n] != magic:
        raise ValueError("not the bytes of this kind of sketch, or of another version")
    r.data = <const uint8_t *>PyBytes_AS_STRING(data) + n
    r.left = PyBytes_GET_SIZE(data) - n
    return r


cdef int finish(Reader *r) except -1:
    if r.left:
        raise ValueError("bytes behind the end")
    return 0


cdef list quantiles_of(const Kll *sketch, ranks):
    cdef double rank[MAX_RANKS]
    cdef double value[MAX_RANKS]
    cdef int n = len(ranks)
    cdef int i
    if n > MAX_RANKS:
        raise ValueError(f"{MAX_RANKS} ranks at most")
    for i in range(n):
        rank[i] = ranks[i]
        if not 0 <= rank[i] <= 1:
            raise ValueError(f"a rank lies between 0 and 1, not at {ranks[i]}")
    if kll_count(sketch) == 0:
        return None
    if kll_quantiles(sketch, rank, n, value) != 0:
        raise MemoryError
    return [value[i] for i in range(n)]


cdef inline bytes raw(const void *data, size_t n):
    return PyBytes_FromStringAndSize(<const char *>data, n)


cdef bytes with_length(bytes part):
    cdef uint32_t n = <uint32_t>len(part)
    return raw(&n, 4) + part


cdef bytes pack_hll(const Hll *h):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, hll_size(h))
    hll_write(h, <uint8_t *>PyBytes_AS_STRING(out))
    return out


cdef bytes pack_kll(const Kll *s):
    cdef size_t size = kll_size(s)
    cdef bytes out
    if size == 0:
        raise MemoryError("quantiles")
    out = PyBytes_FromStringAndSize(NULL, size)
    if kll_write(s, <uint8_t *>PyBytes_AS_STRING(out)) != size:
        raise MemoryError("quantiles")
    return out


cdef bytes pack_freq(const Freq *f):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, freq_size(f))
    freq_write(f, <uint8_t *>PyBytes_AS_STRING(out))
    return out


cdef bytes pack_full_kll(const Kll *s):
    """sum, a mark, the dense counts as (value, count) pairs, the image of the levels."""
    cdef Kll levels = s[0]
    cdef uint8_t mark = KLL_WITH_DENSE if s.want_dense else KLL_LEVELS_ONLY
    cdef uint32_t pairs = 0
    cdef uint32_t i
    cdef list parts = []
    levels.dense = NULL                  # a view of the levels, never freed
    levels.n_dense = 0
    if s.n_dense:
        for i in range(<uint32_t>KLL_DENSE):
            if s.dense[i] != 0:
                parts.append(raw(&i, 4) + raw(&s.dense[i], 8))
                pairs += 1
    return (raw(&s.sum, 8) + raw(&mark, 1) + raw(&pairs, 4) + b"".join(parts)
            + with_length(pack_kll(&levels)))


cdef int fill_full_kll(Kll *s, double sum, uint8_t mark, const uint8_t *pairs, uint32_t n) except -1:
    cdef uint64_t count
    cdef uint32_t value, i
    cdef int64_t last = -1
    if mark > KLL_WITH_DENSE or (n and mark != KLL_WITH_DENSE) or sum != sum:
        raise ValueError("quantiles: malformed head")
    s.sum = sum
    s.want_dense = mark == KLL_WITH_DENSE
    if n == 0:
        return 0
    s.dense = <uint64_t *>calloc(KLL_DENSE, sizeof(uint64_t))
    if s.dense == NULL:
        raise MemoryError("quantiles")
    for i in range(n):
        memcpy(&value, pairs + 12 * <size_t>i, 4)
        memcpy(&count, pairs + 12 * <size_t>i + 4, 8)
        if value >= KLL_DENSE or <int64_t>value <= last or count == 0 or count >> 60 or (s.n_dense + count) >> 60:
            raise ValueError("quantiles: malformed counts")
        last = value
        s.dense[value] = count
        s.n_dense += count
    return 0


cdef int unpack_full_kll(Kll *s, Reader *r) except -1:
    cdef double sum
    cdef uint8_t mark
    cdef uint32_t n
    cdef size_t size
    cdef const uint8_t *pairs
    cdef const uint8_t *image
    kll_init(s, KLL_K, 0)
    take(r, &sum, 8)
    take(r, &mark, 1)
    take(r, &n, 4)
    if n > KLL_DENSE:
        raise ValueError("quantiles: too many counts")
    pairs = take_view(r, 12 * <size_t>n) if n else NULL
    image = take_part(r, &size)
    check(kll_read(s, image, size), "quantiles: not a KLL image of doubles")
    try:
        fill_full_kll(s, sum, mark, pairs, n)
    except BaseException:
        kll_free(s)
        raise
    return 0


cdef bytes pack_full_freq(const Freq *f):
    """total, offset, purged (an emptied sketch has no place for them in its image), then the image."""
    return raw(&f.total, 8) + raw(&f.offset, 8) + raw(&f.purged, 8) + with_length(pack_freq(f))


cdef int unpack_full_freq(Freq *f, int kind, Reader *r) except -1:
    cdef uint64_t total, offset, purged
    cdef size_t size
    cdef const uint8_t *image
    freq_init(f, kind, 0)
    take(r, &total, 8)
    take(r, &offset, 8)
    take(r, &purged, 8)
    image = take_part(r, &size)
    check(freq_read(f, kind, image, size), "top items: not a frequent-items image of these keys")
    if offset > total or (f.active and (f.total != total or f.offset != offset)):
        freq_free(f)
        raise ValueError("top items: totals disagree")
    f.total = total
    f.offset = offset
    f.purged = purged
    return 0


cdef bytes pack_hist(const Hist *h):
    """Number of non-empty intervals, then (interval, count) pairs."""
    cdef uint32_t n = 0
    cdef uint16_t i
    cdef list parts = []
    if h.counts != NULL:
        for i in range(<uint16_t>hist_intervals(h)):
            if h.counts[i] != 0:
                parts.append(raw(&i, 2) + raw(&h.counts[i], 8))
                n += 1
    return raw(&n, 4) + b"".join(parts)


cdef int unpack_hist(Hist *h, int integer, Reader *r) except -1:
    cdef uint32_t n, i
    cdef uint16_t interval
    cdef uint64_t count
    cdef int64_t last = -1
    cdef const uint8_t *pairs
    hist_init(h, integer)
    take(r, &n, 4)
    if n > hist_intervals(h):
        raise ValueError("histogram: too many intervals")
    if n == 0:
        return 0
    pairs = take_view(r, 10 * <size_t>n)
    h.counts = <uint64_t *>calloc(hist_intervals(h), sizeof(uint64_t))
    if h.counts == NULL:
        raise MemoryError("histogram")
    for i in range(n):
        memcpy(&interval, pairs + 10 * <size_t>i, 2)
        memcpy(&count, pairs + 10 * <size_t>i + 2, 8)
        if interval >= hist_intervals(h) or <int64_t>interval <= last or count == 0 or h.n + count < h.n:
            hist_free(h)
            raise ValueError("histogram: malformed counts")
        last = interval
        h.counts[interval] = count
        h.n += count
    return 0


cdef bytes pack_rate(const RateTable *t):
    """start, seconds folded, closed, rows of (second, counts), then a sketch per column."""
    cdef uint8_t closed = t.closed != 0
    cdef uint32_t i
    cdef int c
    cdef list parts = [raw(&t.start_ns, 8), raw(&t.folded_to, 8), raw(&closed, 1), raw(&t.n_rows, 4)]
    for i in range(t.n_rows):
        parts.append(raw(&t.rows[i].second, 8) + raw(&t.rows[i].count[0], 8 * <size_t>t.n))
    for c in range(t.n):
        parts.append(pack_full_kll(&t.sketch[c]))
    return b"".join(parts)


cdef int fill_rate(RateTable *t, Reader *r) except -1:
    cdef uint8_t closed
    cdef uint32_t n, i
    cdef int c
    cdef int64_t last
    take(r, &t.start_ns, 8)
    take(r, &t.folded_to, 8)
    take(r, &closed, 1)
    take(r, &n, 4)
    if (closed > 1 or n > RATE_ROWS or (closed and n)
            or not 0 <= t.folded_to <= (MAX_MERGED if closed else MAX_SECOND)):
        raise ValueError("rate: malformed head")
    t.closed = closed
    if n:
        if r.left // (8 + 8 * <size_t>t.n) < n:
            raise ValueError("bytes end early")
        t.rows = <RateRow *>calloc(n, sizeof(RateRow))
        if t.rows == NULL:
            raise MemoryError("rate")
        t.cap = n
        t.n_rows = n
        last = t.folded_to - 1
        for i in range(n):
            take(r, &t.rows[i].second, 8)
            take(r, &t.rows[i].count[0], 8 * <size_t>t.n)
            if t.rows[i].second <= last or t.rows[i].second > MAX_SECOND:
                raise ValueError("rate: seconds out of order")
            last = t.rows[i].second
    for c in range(t.n):
        unpack_full_kll(&t.sketch[c], r)
        if kll_count(&t.sketch[c]) != <uint64_t>t.folded_to:
            raise ValueError("rate: seconds and samples disagree")
    return 0


cdef int unpack_rate(RateTable *t, int columns, Reader *r) except -1:
    if not 0 <= columns <= RATE_COLUMNS:
        raise ValueError("rate: too many columns")
    rate_init(t, columns, 0)
    try:
        fill_rate(t, r)
    except BaseException:
        rate_free(t)
        raise
    return 0

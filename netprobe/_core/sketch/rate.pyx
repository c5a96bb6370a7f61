"""Rates: one row of counters per second with traffic, turned into quantiles when the bucket closes.

Shards of a bucket add their rows before any sketch sees them. Seconds without a row cost nothing: however
many there are, they enter a sketch as one zero with their number as its weight.
"""
from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free, realloc, malloc
from libc.string cimport memcpy, memmove, memset

from netprobe._core.sketch.kll cimport (
    KLL_K, kll_copy, kll_count, kll_free, kll_init, kll_merge, kll_quantiles, kll_update, kll_update_weighted)

cdef enum:
    SECOND = 1000000000
    POINTS = 256             # of a quantile function, when two are added

cdef RateRow scratch         # takes counts when there is no memory for a row; nobody reads it


cdef void rate_init(RateTable *r, int columns, int64_t start_ns) noexcept nogil:
    cdef int c
    memset(r, 0, sizeof(RateTable))
    r.n = columns if columns < RATE_COLUMNS else RATE_COLUMNS
    r.start_ns = start_ns
    for c in range(r.n):
        kll_init(&r.sketch[c], KLL_K, 0)


cdef inline void drop_rows(RateTable *r) noexcept nogil:
    free(r.rows)
    r.rows = NULL
    r.row = NULL
    r.n_rows = 0
    r.cap = 0
    r.cur_begin = 0
    r.cur_end = 0


cdef void rate_free(RateTable *r) noexcept nogil:
    cdef int c
    drop_rows(r)
    for c in range(r.n):
        kll_free(&r.sketch[c])


cdef inline int64_t second_of(const RateTable *r, int64_t ts) noexcept nogil:
    # unsigned: the difference of two stamps may not fit in a signed number
    return <int64_t>((<uint64_t>ts - <uint64_t>r.start_ns) / <uint64_t>SECOND) if ts > r.start_ns else 0


cdef void fold_to(RateTable *r, int64_t upto) noexcept nogil:
    """Move the seconds below upto from the rows into the sketches."""
    cdef uint64_t zeros[RATE_COLUMNS]
    cdef uint32_t i = 0
    cdef int c
    if upto <= r.folded_to:
        return
    for c in range(r.n):
        zeros[c] = <uint64_t>(upto - r.folded_to)
    while i < r.n_rows and r.rows[i].second < upto:
        for c in range(r.n):
            if r.rows[i].count[c] != 0:
                kll_update(&r.sketch[c], <double>r.rows[i].count[c])
                zeros[c] -= 1
        i += 1
    for c in range(r.n):
        kll_update_weighted(&r.sketch[c], 0, zeros[c])
    if i > 0:
        memmove(r.rows, r.rows + i, (r.n_rows - i) * sizeof(RateRow))
        r.n_rows -= i
    r.folded_to = upto
    r.row = NULL


cdef uint32_t find(const RateTable *r, int64_t second) noexcept nogil:
    """First row that is not before second."""
    cdef uint32_t low = 0
    cdef uint32_t high = r.n_rows
    cdef uint32_t mid
    if high > 0 and r.rows[high - 1].second < second:
        return high
    while low < high:
        mid = (low + high) >> 1
        if r.rows[mid].second < second:
            low = mid + 1
        else:
            high = mid
    return low


cdef RateRow *row_at(RateTable *r, int64_t second) noexcept nogil:
    """The row of a second, made if need be; of the first one kept if it is folded already. NULL: no memory."""
    cdef uint32_t at, cap
    cdef RateRow *rows
    if second < r.folded_to:
        second = r.folded_to
    at = find(r, second)
    if at < r.n_rows and r.rows[at].second == second:
        return r.rows + at
    if r.n_rows == r.cap:
        if r.cap >= RATE_ROWS:
            fold_to(r, r.rows[RATE_ROWS / 4].second)
            return row_at(r, second)
        cap = 2 * r.cap if r.cap else 8
        rows = <RateRow *>realloc(r.rows, cap * sizeof(RateRow))
        if rows == NULL:
            return NULL
        r.rows = rows
        r.cap = cap
    memmove(r.rows + at + 1, r.rows + at, (r.n_rows - at) * sizeof(RateRow))
    r.n_rows += 1
    memset(r.rows + at, 0, sizeof(RateRow))
    r.rows[at].second = second
    return r.rows + at


cdef void rate_seek(RateTable *r, int64_t ts) noexcept nogil:
    # stamps before the start count in the first second, whichever shard sees them
    cdef RateRow *row = row_at(r, second_of(r, ts))
    cdef uint64_t begin
    if row == NULL:
        r.row = &scratch
        r.cur_begin = 0
        r.cur_end = 0
        return
    r.row = row
    begin = <uint64_t>r.start_ns + <uint64_t>row.second * <uint64_t>SECOND
    r.cur_begin = <int64_t>begin
    r.cur_end = <int64_t>(begin + SECOND) if r.cur_begin <= INT64_MAX - SECOND else INT64_MAX


cdef int rate_copy(RateTable *into, const RateTable *other) noexcept nogil:
    cdef int c
    cdef int status = 0
    memcpy(into, other, sizeof(RateTable))
    into.rows = NULL
    into.row = NULL
    into.n_rows = 0
    into.cap = 0
    into.cur_begin = 0
    into.cur_end = 0
    for c in range(into.n):
        status |= kll_copy(&into.sketch[c], &other.sketch[c])
    if status == 0 and other.n_rows > 0:
        into.rows = <RateRow *>malloc(other.n_rows * sizeof(RateRow))
        if into.rows == NULL:
            status = -1
        else:
            memcpy(into.rows, other.rows, other.n_rows * sizeof(RateRow))
            into.n_rows = other.n_rows
            into.cap = other.n_rows
    if status != 0:
        rate_free(into)
    return status


cdef void add_quantiles(Kll *a, const Kll *b) noexcept nogil:
    """Two shards of the same seconds whose rows are gone: add their quantile functions.

    Exact if their loads rise and fall together, which is what a hash over addresses aims at; the mean is
    kept in any case. Merging the sketches instead would report the rate of one shard.
    """
    cdef double ranks[POINTS]
    cdef double va[POINTS]
    cdef double vb[POINTS]
    cdef uint64_t total = kll_count(a)
    cdef uint64_t before = 0
    cdef uint64_t upto
    cdef double sum = a.sum + b.sum
    cdef Kll both
    cdef int i
    if kll_count(b) == 0:
        return
    if total == 0:
        kll_merge(a, b)
        return
    for i in range(POINTS):
        ranks[i] = (i + 0.5) / POINTS
    if kll_quantiles(a, ranks, POINTS, va) != 0 or kll_quantiles(b, ranks, POINTS, vb) != 0:
        return
    kll_init(&both, a.k, 0)
    for i in range(POINTS):
        upto = <uint64_t>(<double>total * (i + 1) / POINTS) if i < POINTS - 1 else total
        kll_update_weighted(&both, va[i] + vb[i], upto - before)
        before = upto
    both.sum = sum
    kll_free(a)
    a[0] = both


cdef int add_shard(RateTable *into, const RateTable *other) noexcept nogil:
    cdef RateTable twin
    cdef int64_t shift = 0
    cdef RateRow *row
    cdef uint32_t i
    cdef int c
    cdef int status = 0
    if other.n_rows == 0 and other.folded_to == 0:
        return 0
    if into.n_rows == 0 and into.folded_to == 0:
        into.start_ns = other.start_ns
    # tables that began at their own first packet: count from the earlier start
    if other.start_ns > into.start_ns:
        shift = second_of(into, other.start_ns)
    elif other.start_ns < into.start_ns and into.folded_to == 0:
        shift = second_of(other, into.start_ns)
        for i in range(into.n_rows):
            into.rows[i].second += shift
        into.start_ns -= shift * SECOND
        into.row = NULL
        shift = 0
    if into.folded_to == 0 and other.folded_to == 0:
        for i in range(other.n_rows):
            row = row_at(into, other.rows[i].second + shift)
            if row == NULL:
                return -1
            for c in range(into.n):
                row.count[c] += other.rows[i].count[c]
        into.row = NULL
        return 0
    # seconds that left the rows of either side: bring both to the same second first
    if rate_copy(&twin, other) != 0:
        return -1
    if shift > 0:
        if twin.folded_to > 0:
            for c in range(twin.n):
                kll_update_weighted(&twin.sketch[c], 0, <uint64_t>shift)
            twin.folded_to += shift
        for i in range(twin.n_rows):
            twin.rows[i].second += shift
    fold_to(into, twin.folded_to)
    fold_to(&twin, into.folded_to)
    for c in range(into.n):
        add_quantiles(&into.sketch[c], &twin.sketch[c])
    for i in range(twin.n_rows):
        row = row_at(into, twin.rows[i].second)
        if row == NULL:
            status = -1
            break
        for c in range(into.n):
            row.count[c] += twin.rows[i].count[c]
    into.row = NULL
    rate_free(&twin)
    return status


cdef int rate_add(RateTable *into, const RateTable *other) noexcept nogil:
    cdef int status
    if into.n != other.n:
        return -2
    status = add_shard(into, other)
    into.closed |= other.closed
    if into.closed:
        drop_rows(into)                  # seconds that the one that was closed no longer has
    return status


cdef void finish(RateTable *r) noexcept nogil:
    # a table that nobody closed: its newest second is not known to be whole
    if r.n_rows > 0:
        fold_to(r, r.rows[r.n_rows - 1].second)
    drop_rows(r)
    r.closed = 1


cdef int rate_merge(RateTable *into, const RateTable *other) noexcept nogil:
    cdef RateTable twin
    cdef int c
    cdef int status = 0
    if into.n != other.n:
        return -2
    finish(into)
    if rate_copy(&twin, other) != 0:
        return -1
    finish(&twin)
    for c in range(into.n):
        status |= kll_merge(&into.sketch[c], &twin.sketch[c])
    if twin.start_ns < into.start_ns:
        into.start_ns = twin.start_ns
    into.folded_to += twin.folded_to
    rate_free(&twin)
    return -1 if status else 0


cdef void rate_close(RateTable *r, int64_t end_ns) noexcept nogil:
    if not r.closed:
        fold_to(r, second_of(r, end_ns))
        drop_rows(r)
        r.closed = 1


cdef void rate_glance(RateTable *r, int64_t now_ns, uint64_t *last) noexcept nogil:
    cdef int64_t second = second_of(r, now_ns) - 1
    cdef uint32_t at
    cdef int c
    for c in range(r.n):
        last[c] = 0
    if second >= r.folded_to and r.n_rows > 0:
        at = find(r, second)
        if at < r.n_rows and r.rows[at].second == second:
            for c in range(r.n):
                last[c] = r.rows[at].count[c]
    rate_close(r, now_ns)

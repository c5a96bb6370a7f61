"""Per-second counters of one bucket, several columns (rates) sharing one row per second."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from netprobe._core.sketch.kll cimport Kll

cdef enum:
    RATE_COLUMNS = 8
    RATE_ROWS = 16384        # rows kept; beyond, the oldest are folded into the sketches

cdef struct RateRow:
    int64_t second           # whole seconds since start_ns
    uint64_t count[RATE_COLUMNS]

cdef struct RateTable:
    int n                    # columns in use
    int64_t start_ns         # of the bucket; second s covers [start + s, start + s + 1) seconds
    int64_t cur_begin        # ns bounds of the row that `row` points to
    int64_t cur_end
    RateRow *row             # row of the newest packet, NULL before the first
    RateRow *rows            # ascending by second; seconds without a packet have no row
    uint32_t n_rows
    uint32_t cap
    int64_t folded_to        # seconds below this are in the sketches already
    Kll sketch[RATE_COLUMNS] # whole seconds, once folded
    int closed

cdef void rate_init(RateTable *r, int columns, int64_t start_ns) noexcept nogil
cdef void rate_free(RateTable *r) noexcept nogil
cdef void rate_seek(RateTable *r, int64_t ts) noexcept nogil   # slow path: make row fit ts (older stamps too)
cdef int rate_add(RateTable *into, const RateTable *other) noexcept nogil    # same bucket, other shard: exact
                                                                             # for seconds still in rows
cdef int rate_merge(RateTable *into, const RateTable *other) noexcept nogil  # other span: sketches merge
cdef int rate_copy(RateTable *into, const RateTable *other) noexcept nogil
# feed every whole second of [start, end) to the sketches, empty ones as one weighted zero;
# a last, partial second is not a sample
cdef void rate_close(RateTable *r, int64_t end_ns) noexcept nogil

# close at now_ns, and say what each column counted in its last whole second
cdef void rate_glance(RateTable *r, int64_t now_ns, uint64_t *last) noexcept nogil

cdef inline uint64_t *rate_row(RateTable *r, int64_t ts) noexcept nogil:
    # the counters of ts's second: rate_row(...)[column] += n
    if ts < r.cur_begin or ts >= r.cur_end or r.row == NULL:
        rate_seek(r, ts)
    return &r.row.count[0]

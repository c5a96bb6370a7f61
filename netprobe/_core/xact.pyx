"""Open transactions: linear probing within a bounded window, deletion by shifting back.

No entry lies further than WINDOW cells behind its home, and no cell between the two is empty, so a search
ends at the first empty cell. A full window first makes the table double; at its largest, once seven eighths
full, the oldest entry near gives way. Nothing depends on anything but the calls made: equal input, equal table.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef enum:
    LG_FIRST = 8
    LG_LIMIT = 24
    WINDOW = 32
    FULL_SHIFT = 3           # one cell in eight stays free (deletion needs a free cell to stop at)


cdef void xact_init(XactTable *t, int lg_max, int64_t ttl_ns) noexcept nogil:
    memset(t, 0, sizeof(XactTable))
    if lg_max < LG_FIRST:
        lg_max = LG_FIRST
    t.lg_max = lg_max if lg_max < LG_LIMIT else LG_LIMIT
    t.ttl_ns = ttl_ns


cdef void xact_free(XactTable *t) noexcept nogil:
    free(t.cells)
    t.cells = NULL
    t.lg_cur = 0
    t.active = 0


cdef void count_out(XactTable *t, const Xact *x, int64_t now) noexcept nogil:
    # an entry thrown out for room
    if now - x.start >= t.ttl_ns:
        t.expired[x.map if x.map < 3 else 0] += 1
    else:
        t.evicted += 1


cdef Xact *claim(XactTable *t, uint64_t key, int map, int64_t now, int may_fail) noexcept nogil:
    """A zeroed cell for a key that is not in the table; NULL when the window is full and may_fail is set."""
    cdef uint32_t size = <uint32_t>1 << t.lg_cur, mask = size - 1
    cdef uint32_t home = xact_home(key, map, mask), i
    cdef int full = t.active >= size - (size >> FULL_SHIFT)
    cdef Xact *x = NULL
    cdef Xact *oldest = NULL
    for i in range(WINDOW):
        x = &t.cells[(home + i) & mask]
        if x.key == 0:
            break
        if oldest == NULL or x.start < oldest.start:
            oldest = x
        x = NULL
    if x != NULL and full and oldest == NULL:
        # its own cell is free, but the table is not to fill up: somebody near goes
        for i in range(1, WINDOW):
            if t.cells[(home + i) & mask].key and (
                oldest == NULL or t.cells[(home + i) & mask].start < oldest.start
            ):
                oldest = &t.cells[(home + i) & mask]
        if oldest != NULL:
            count_out(t, oldest, now)
            xact_remove(t, oldest)
        full = 0
    if x != NULL and not full:
        t.active += 1
        memset(x, 0, sizeof(Xact))
        return x
    if may_fail:
        return NULL
    count_out(t, oldest, now)
    memset(oldest, 0, sizeof(Xact))
    return oldest


cdef int grow(XactTable *t, int64_t now) noexcept nogil:
    cdef Xact *old = t.cells
    cdef uint32_t n = (<uint32_t>1 << t.lg_cur) if old != NULL else 0, i
    cdef uint32_t lg = t.lg_cur + 1 if old != NULL else LG_FIRST
    cdef Xact *x
    cdef Xact *cells = <Xact *>calloc(<size_t>1 << lg, sizeof(Xact))
    if cells == NULL:
        return -1
    t.cells = cells
    t.lg_cur = lg
    t.active = 0
    for i in range(n):
        if old[i].key:
            x = claim(t, old[i].key, old[i].map, now, 0)
            x[0] = old[i]
    free(old)
    return 0


cdef Xact *xact_find(XactTable *t, uint64_t key, int map) noexcept nogil:
    cdef uint32_t mask, home, i
    cdef Xact *x
    if t.active == 0:
        return NULL
    if key == 0:
        key = 1
    mask = (<uint32_t>1 << t.lg_cur) - 1
    home = xact_home(key, map, mask)
    for i in range(WINDOW):
        x = &t.cells[(home + i) & mask]
        if x.key == key and x.map == map:
            return x
        if x.key == 0:
            return NULL
    return NULL


cdef Xact *xact_start(XactTable *t, uint64_t key, int map, int64_t now) noexcept nogil:
    cdef Xact *x
    if key == 0:
        key = 1
    if t.cells == NULL and grow(t, now) < 0:
        return NULL
    x = xact_find(t, key, map)
    if x != NULL:
        memset(x, 0, sizeof(Xact))
    else:
        if t.lg_cur < t.lg_max and t.active >= (<uint32_t>3 << t.lg_cur) >> 2:
            grow(t, now)
        x = claim(t, key, map, now, t.lg_cur < t.lg_max)
        if x == NULL:
            grow(t, now)     # without memory for it the window's oldest goes
            x = claim(t, key, map, now, 0)
    x.key = key
    x.map = <uint8_t>map
    x.start = now
    return x


cdef void xact_remove(XactTable *t, Xact *x) noexcept nogil:
    cdef uint32_t mask = (<uint32_t>1 << t.lg_cur) - 1
    cdef uint32_t hole = <uint32_t>(x - t.cells), i = hole, home
    t.active -= 1
    # each entry of the run behind the hole that may lie in it, moves into it
    while True:
        i = (i + 1) & mask
        if t.cells[i].key == 0:
            break
        home = xact_home(t.cells[i].key, t.cells[i].map, mask)
        if ((i - home) & mask) >= ((i - hole) & mask):
            t.cells[hole] = t.cells[i]
            hole = i
    t.cells[hole].key = 0


cdef void xact_purge(XactTable *t, int64_t now, uint64_t *purged) noexcept nogil:
    cdef uint32_t n, i, k
    cdef Xact *x
    for k in range(3):
        purged[k] += t.expired[k]
        t.expired[k] = 0
    if t.cells == NULL:
        return
    n = <uint32_t>1 << t.lg_cur
    i = 0
    while i < n:
        x = &t.cells[i]
        if x.key and now - x.start >= t.ttl_ns:
            purged[x.map if x.map < 3 else 0] += 1
            xact_remove(t, x)     # something else may have moved here: look again
        else:
            i += 1


cdef class _Table:
    """The table as a Python object, for tests."""
    cdef XactTable t

    def __cinit__(self, int lg_max=18, int64_t ttl_ns=5_000_000_000):
        xact_init(&self.t, lg_max, ttl_ns)

    def __dealloc__(self):
        xact_free(&self.t)

    def start(self, key, map_, now, size=0):
        cdef Xact *x = xact_start(&self.t, key, map_, now)
        if x == NULL:
            raise MemoryError
        x.size = size

    def find(self, key, map_):
        cdef Xact *x = xact_find(&self.t, key, map_)
        return None if x == NULL else (x.start, x.size)

    def remove(self, key, map_):
        cdef Xact *x = xact_find(&self.t, key, map_)
        if x != NULL:
            xact_remove(&self.t, x)
        return x != NULL

    def purge(self, now):
        cdef uint64_t out[3]
        memset(out, 0, sizeof(out))
        xact_purge(&self.t, now, out)
        return out[0], out[1], out[2]

    def check(self):
        """Number of entries that cannot be found where they lie (0 in a sound table)."""
        cdef uint32_t i, seen = 0
        cdef int bad = 0
        if self.t.cells == NULL:
            return 0
        for i in range(<uint32_t>1 << self.t.lg_cur):
            if self.t.cells[i].key:
                seen += 1
                if xact_find(&self.t, self.t.cells[i].key, self.t.cells[i].map) != &self.t.cells[i]:
                    bad += 1
        return bad + (seen != self.t.active)

    @property
    def active(self):
        return self.t.active

    @property
    def evicted(self):
        return self.t.evicted

    @property
    def expired(self):
        return self.t.expired[0], self.t.expired[1], self.t.expired[2]

    @property
    def capacity(self):
        return (1 << self.t.lg_cur) if self.t.cells != NULL else 0


def _time(n: int, open_: int) -> int:
    """n query/response pairs with open_ of them in flight (benchmarks)."""
    cdef XactTable t
    cdef uint64_t i, hits = 0, w = open_, m = n
    cdef Xact *x
    xact_init(&t, 18, 5000000000)
    with nogil:
        for i in range(m):
            xact_start(&t, mix64(i + 1), 0, i)
            if i >= w:
                x = xact_find(&t, mix64(i - w + 1), 0)
                if x != NULL:
                    hits += 1
                    xact_remove(&t, x)
    xact_free(&t)
    return hits

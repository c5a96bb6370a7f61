"""Open transactions: a bounded hash table from a 64-bit key to when and how a query was sent."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from netprobe._core.packet cimport mix64

cdef extern from *:
    void xact_ask "__builtin_prefetch"(const void *) noexcept nogil

cdef struct Xact:
    uint64_t key             # 0 = empty
    int64_t start            # ns
    uint32_t size            # query bytes
    uint8_t map              # caller's: which of its maps (dns 2.0: in, out, unknown)
    uint8_t filtered         # caller's: the query had been filtered
    uint8_t checking_disabled
    uint8_t has_ecs
    uint8_t ecs_family
    uint8_t ecs_addr[16]

cdef struct XactTable:
    Xact *cells
    uint32_t lg_cur
    uint32_t lg_max          # default 18
    uint32_t active
    uint64_t evicted         # thrown out for room before their time was up
    uint64_t expired[3]      # per map: thrown out for room after it; counted as timed out at the next purge
    int64_t ttl_ns

cdef void xact_init(XactTable *t, int lg_max, int64_t ttl_ns) noexcept nogil
cdef void xact_free(XactTable *t) noexcept nogil
cdef Xact *xact_start(XactTable *t, uint64_t key, int map, int64_t now) noexcept nogil   # inserts or overwrites, zeroed; NULL without memory
cdef Xact *xact_find(XactTable *t, uint64_t key, int map) noexcept nogil                 # NULL when absent
cdef void xact_remove(XactTable *t, Xact *x) noexcept nogil                              # invalidates pointers
# drop entries that are ttl old; adds how many to purged[map] (3 elements), plus and minus `expired`
cdef void xact_purge(XactTable *t, int64_t now, uint64_t *purged) noexcept nogil

cdef inline uint32_t xact_home(uint64_t key, int map, uint32_t mask) noexcept nogil:
    return <uint32_t>mix64(key + <uint64_t>map * <uint64_t>0x9e3779b97f4a7c15) & mask


cdef inline void xact_prefetch(const XactTable *t, uint64_t key, int map) noexcept nogil:
    """Ask for the cell that a search for this key begins with."""
    if t.cells != NULL:
        xact_ask(&t.cells[xact_home(key if key else 1, map, (<uint32_t>1 << t.lg_cur) - 1)])


cdef inline Xact *xact_begin(XactTable *t, uint64_t key, int map, int64_t now) noexcept nogil:
    """xact_start; nearly always the key is new and its own cell free."""
    cdef Xact *x
    if key == 0:
        key = 1
    if t.cells != NULL and t.active < (<uint32_t>3 << t.lg_cur) >> 2:
        x = &t.cells[xact_home(key, map, (<uint32_t>1 << t.lg_cur) - 1)]
        if x.key == 0:
            t.active += 1
            memset(x, 0, sizeof(Xact))
            x.key = key
            x.map = <uint8_t>map
            x.start = now
            return x
    return xact_start(t, key, map, now)


cdef inline bint xact_take(XactTable *t, uint64_t key, int map, Xact *out) noexcept nogil:
    """Copy an entry to `out` and remove it. False: there is none."""
    cdef uint32_t mask, home
    cdef Xact *x
    if t.active == 0:
        return False
    if key == 0:
        key = 1
    mask = (<uint32_t>1 << t.lg_cur) - 1
    home = xact_home(key, map, mask)
    x = &t.cells[home]
    if x.key == key and x.map == map and t.cells[(home + 1) & mask].key == 0:
        out[0] = x[0]
        x.key = 0
        t.active -= 1
        return True
    x = xact_find(t, key, map)
    if x == NULL:
        return False
    out[0] = x[0]
    xact_remove(t, x)
    return True

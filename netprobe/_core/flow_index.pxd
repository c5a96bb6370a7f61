"""The flow table's index, from a key to its cell.

Open addressing, linear probing over (tag, cell) pairs of 8 bytes, at most half full, so that a search ends in the cache
line where it began. The hash is equal for both directions and the tag's lowest bit tells them apart: a search for one
direction passes its reverse on the way.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from netprobe._core.flow cimport FC_LIVE, FC_V6, FLOW_NIL, FlowCell, FlowPacket, FlowSlot, FlowTable, resting
from netprobe._core.sketch.freq cimport np_fold_mul

cdef extern from *:
    """
    #include <stdlib.h>
    #if defined(__linux__)
    #include <sys/mman.h>
    #endif
    /* whole huge pages where the system has them: cells are read at random */
    static void *np_block(size_t n) {
        void *p = NULL;
        size_t page = n >= ((size_t)1 << 22) ? (size_t)1 << 21 : 64;
        if (posix_memalign(&p, page, n ? n : 64)) return NULL;
    #if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (page > 64) madvise(p, n & ~(page - 1), MADV_HUGEPAGE);
    #endif
        return p;
    }
    """
    void *np_block(size_t n) noexcept nogil
    void ask "__builtin_prefetch"(const void *) noexcept nogil


cdef inline uint64_t end_hash(const FlowTable *t, const uint64_t *addr, uint32_t port) noexcept nogil:
    # all of it secret, or somebody could choose addresses that fall together
    return np_fold_mul(addr[0] ^ t.secret[0], addr[1] ^ (port * t.secret[1]) ^ t.secret[2])


cdef inline uint32_t tag_for(const FlowTable *t, const uint64_t *src, const uint64_t *dst, uint32_t sport, uint32_t dport,
                             uint32_t proto, uint32_t l3) noexcept nogil:
    cdef uint64_t a = end_hash(t, src, sport), b = end_hash(t, dst, dport)
    cdef uint64_t h = np_fold_mul((a + b) ^ t.secret[2], t.secret[1] ^ (proto << 8 | l3))
    return (<uint32_t>(h >> 32) & ~<uint32_t>1) | (a > b)


cdef inline uint32_t tag_of(const FlowTable *t, const FlowPacket *v) noexcept nogil:
    return tag_for(t, v.src, v.dst, v.sport, v.dport, v.proto, v.l3)


cdef inline uint32_t cell_tag(const FlowTable *t, const FlowCell *c) noexcept nogil:
    cdef uint64_t src[2]
    cdef uint64_t dst[2]
    if c.flags & FC_V6:
        return tag_for(t, c.src, c.dst, c.sport, c.dport, c.proto, 6)
    # what rests has other things behind the four bytes
    src[0] = <uint32_t>c.src[0]
    dst[0] = <uint32_t>c.dst[0]
    src[1] = dst[1] = 0
    return tag_for(t, src, dst, c.sport, c.dport, c.proto, 4)


cdef inline uint32_t home_of(const FlowTable *t, uint32_t tag) noexcept nogil:
    return tag >> (32 - t.lg_slots)


cdef inline int between(const FlowCell *c, const uint64_t *src, const uint64_t *dst, uint16_t sport, uint16_t dport,
                        const FlowPacket *v) noexcept nogil:
    if c.sport != sport or c.dport != dport or c.proto != v.proto or (v.l3 == 6) != (c.flags & FC_V6 != 0):
        return 0
    if resting(c):
        return <uint32_t>c.src[0] == <uint32_t>src[0] and <uint32_t>c.dst[0] == <uint32_t>dst[0]
    return c.src[0] == src[0] and c.dst[0] == dst[0] and c.src[1] == src[1] and c.dst[1] == dst[1]


cdef inline int same(const FlowCell *c, const FlowPacket *v) noexcept nogil:
    return c.flags & FC_LIVE and between(c, v.src, v.dst, v.sport, v.dport, v)


cdef inline int reverse(const FlowCell *c, const FlowPacket *v) noexcept nogil:
    return between(c, v.dst, v.src, v.dport, v.sport, v)


cdef inline uint32_t guess(const FlowTable *t, uint32_t tag, uint32_t *peer) noexcept nogil:
    """The first cell with this tag: nearly always the right one. Without one, `peer` is its reverse, by tag."""
    cdef uint32_t mask = (<uint32_t>1 << t.lg_slots) - 1, i = home_of(t, tag)
    peer[0] = FLOW_NIL
    while t.slots[i].cell:
        if t.slots[i].tag == tag:
            return t.slots[i].cell - 1
        if t.slots[i].tag ^ tag == 1:
            peer[0] = t.slots[i].cell - 1
        i = (i + 1) & mask
    return FLOW_NIL


cdef inline uint32_t find(const FlowTable *t, const FlowPacket *v, uint32_t *peer) noexcept nogil:
    cdef uint32_t mask = (<uint32_t>1 << t.lg_slots) - 1, i = home_of(t, v.tag)
    cdef FlowSlot s
    peer[0] = FLOW_NIL
    while True:
        s = t.slots[i]
        if s.cell == 0:
            return FLOW_NIL
        if s.tag == v.tag:
            if same(&t.cells[s.cell - 1], v):
                return s.cell - 1
        elif s.tag ^ v.tag == 1 and reverse(&t.cells[s.cell - 1], v):
            peer[0] = s.cell - 1
        i = (i + 1) & mask


cdef inline void put(FlowSlot *slots, uint32_t lg, uint32_t tag, uint32_t cell) noexcept nogil:
    cdef uint32_t mask = (<uint32_t>1 << lg) - 1, i = tag >> (32 - lg)
    while slots[i].cell:
        i = (i + 1) & mask
    slots[i].tag = tag
    slots[i].cell = cell + 1


cdef inline int grow(FlowTable *t) noexcept nogil:
    cdef uint32_t lg = t.lg_slots + 1, i
    cdef size_t size = (<size_t>1 << lg) * sizeof(FlowSlot)
    cdef FlowSlot *bigger = <FlowSlot *>np_block(size)
    if bigger == NULL:
        return -1
    memset(bigger, 0, size)
    for i in range(<uint32_t>1 << t.lg_slots):
        if t.slots[i].cell:
            put(bigger, lg, t.slots[i].tag, t.slots[i].cell - 1)
    free(t.slots)
    t.slots = bigger
    t.lg_slots = lg
    return 0


cdef inline void take_out(FlowTable *t, uint32_t tag, uint32_t cell) noexcept nogil:
    cdef uint32_t mask = (<uint32_t>1 << t.lg_slots) - 1
    cdef uint32_t i = home_of(t, tag), hole, home
    while t.slots[i].cell != cell + 1:
        i = (i + 1) & mask
    hole = i
    # each entry of the run behind the hole that may lie in it, moves into it
    while True:
        i = (i + 1) & mask
        if t.slots[i].cell == 0:
            break
        home = home_of(t, t.slots[i].tag)
        if ((i - home) & mask) >= ((i - hole) & mask):
            t.slots[hole] = t.slots[i]
            hole = i
    t.slots[hole].cell = 0

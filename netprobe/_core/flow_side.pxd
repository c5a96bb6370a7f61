"""The sides of the flow table's cells: which are free, which entries rest without one (flow.pxd, FlowRest)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from netprobe._core.flow cimport (
    FC_RESTING, FC_TRACKED, FC_V6, FlowCell, FlowPool, FlowRest, FlowSide, FlowTable, resting,
)
from netprobe._core.flow_index cimport ask
from netprobe._core.packet cimport PROTO_TCP

cdef enum:
    FREE_AHEAD = 8               # sides by which memory is asked for ahead


cdef inline uint32_t side_new(FlowTable *t, int tcp) noexcept nogil:
    """There is one for each cell, of either kind."""
    cdef FlowPool *pool = &t.pools[tcp]
    cdef uint32_t n = pool.n_free
    cdef uint32_t i
    if n == 0:
        i = pool.top
        pool.top += 1 + tcp
        return i
    n -= 1
    pool.n_free = n
    if n >= FREE_AHEAD:
        i = pool.free[n - FREE_AHEAD]
        ask(&t.sides[i])
        if tcp:
            ask(&t.sides[i - 1])
    return pool.free[n]


cdef inline void side_drop(FlowTable *t, uint32_t i, int tcp) noexcept nogil:
    cdef FlowPool *pool = &t.pools[tcp]
    pool.free[pool.n_free] = i
    pool.n_free += 1


cdef inline void rest(FlowTable *t, FlowCell *c) noexcept nogil:
    """Give the side back, if what it has fits in the cell."""
    cdef FlowRest r
    cdef const FlowSide *s = &t.sides[c.side]
    if c.proto == PROTO_TCP or c.flags & (FC_V6 | FC_RESTING) or c.packets or s.app_state or s.fragments:
        return
    r.src = <uint32_t>c.src[0]
    r.dst = <uint32_t>c.dst[0]
    r.sport = c.sport
    r.dport = c.dport
    r.proto = c.proto
    r.flags = c.flags | FC_RESTING
    r.last = c.last
    memcpy(r.smac, s.smac, 6)
    memcpy(r.dmac, s.dmac, 6)
    r.vlan = s.vlan
    r.peer = s.peer
    r.fpex_ms = <uint16_t>s.fpex_ms
    r.deadline = s.deadline
    r.phase = s.phase
    r.direction = s.direction | s.has_mac << 7 | s.uncounted << 6
    r.app = s.app
    r.payload_ts = s.payload_ts
    r.room = 0
    side_drop(t, c.side, 0)
    memcpy(c, &r, sizeof(r))


cdef inline FlowRest rest_of(const FlowCell *c) noexcept nogil:
    cdef FlowRest r
    memcpy(&r, c, sizeof(r))
    return r


cdef inline void rouse(FlowTable *t, FlowCell *c) noexcept nogil:
    """Of a cell that rests: give it a side again."""
    cdef FlowRest r = rest_of(c)
    cdef FlowSide *s
    c.src[0] = r.src
    c.src[1] = 0
    c.dst[0] = r.dst
    c.dst[1] = 0
    c.flags = r.flags & ~<uint8_t>FC_RESTING
    c.tcp_flags = 0
    c.tos = 0
    c.packets = 0
    c.bytes = 0
    c.side = side_new(t, 0)
    s = &t.sides[c.side]
    s.first = r.last
    s.payload_ts = r.payload_ts
    s.fpex_ms = r.fpex_ms
    s.peer = r.peer
    s.fragments = 0
    s.app_state = 0
    memcpy(s.smac, r.smac, 6)
    memcpy(s.dmac, r.dmac, 6)
    s.vlan = r.vlan
    s.direction = r.direction & 0x3F
    s.has_mac = r.direction >> 7
    s.uncounted = r.direction >> 6 & 1
    s.deadline = r.deadline
    s.phase = r.phase
    s.app = r.app


cdef inline uint32_t peer_of(const FlowTable *t, const FlowCell *c) noexcept nogil:
    return rest_of(c).peer if resting(c) else t.sides[c.side].peer


cdef inline void link(FlowTable *t, uint32_t i, uint32_t peer) noexcept nogil:
    cdef FlowCell *c = &t.cells[i]
    cdef FlowRest r
    if resting(c):
        r = rest_of(c)
        r.peer = peer
        memcpy(c, &r, sizeof(r))
    else:
        t.sides[c.side].peer = peer


cdef inline void tracker_drop(FlowTable *t, FlowCell *c) noexcept nogil:
    if c.proto == PROTO_TCP and c.flags & FC_TRACKED:
        c.flags &= ~<uint8_t>FC_TRACKED
        t.n_trackers -= 1

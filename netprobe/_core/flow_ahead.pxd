"""Asking for the memory of packets that the flow table will count.

What a packet needs lies one step behind the other: slot, cell, tracker, and sometimes the side and the other direction's
cell and tracker. Each step asks for the next, a group of packets before that is read; meanwhile what it found may have
gone. (Every one of these functions writes something: one that did nothing but ask would have no effect, and gcc leaves
such calls out.)
"""
from libc.stdint cimport uint32_t

from netprobe._core.flow cimport (
    FC_APP, FC_DEAF, FC_LIVE, FLOW_NIL, FlowCell, FlowPacket, FlowTable, resting, side_of, tracker_of,
)
from netprobe._core.flow_index cimport ask, guess, home_of, tag_of
from netprobe._core.packet cimport PROTO_TCP
from netprobe._core.tracker cimport SCALING_ON, TCP_FIN, TCP_RST, TCP_SYN, TS_FIN, TS_SYN, TcpState


cdef inline int heard(const FlowCell *c, const FlowPacket *v) noexcept nogil:
    """Is it for the decoders?"""
    return (v.payload and not c.flags & FC_DEAF) or v.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)


cdef inline void ask_slots(const FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        v[i].tag = tag_of(t, &v[i])
        ask(&t.slots[home_of(t, v[i].tag)])


cdef inline void ask_cells(const FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil:
    cdef uint32_t i, k
    for i in range(n):
        k = guess(t, v[i].tag, &v[i].ahead)
        v[i].cell = k
        if k == FLOW_NIL:
            k = v[i].ahead           # a new flow's other direction
        if k != FLOW_NIL:
            ask(&t.cells[k])


cdef inline void ask_sides(const FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil:
    cdef uint32_t i, k
    cdef const FlowCell *c
    for i in range(n):
        k = v[i].cell
        v[i].app_ahead = 0
        c = &t.cells[k if k != FLOW_NIL else v[i].ahead]
        if (k == FLOW_NIL and v[i].ahead == FLOW_NIL) or not c.flags & FC_LIVE or resting(c):
            v[i].ahead = FLOW_NIL
            continue
        if k == FLOW_NIL or c.packets == 0 or not t.config.schedule:
            ask(&t.sides[c.side])
        v[i].ahead = FLOW_NIL
        if k == FLOW_NIL:
            continue
        if c.flags & FC_APP and t.on_ahead != NULL and heard(c, &v[i]):
            t.on_ahead(t.ctx, &v[i], 0)
        if c.proto == PROTO_TCP and t.config.track:
            ask(&t.sides[c.side - 1])
            v[i].ahead = k


cdef inline int is_tcp(const FlowTable *t, uint32_t k) noexcept nogil:
    """Is there still a TCP cell?"""
    return k != FLOW_NIL and t.cells[k].flags & FC_LIVE and t.cells[k].proto == PROTO_TCP


cdef inline void ask_links(const FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil:
    """Of the segments whose other direction matters (track_wants_peer): where it is."""
    cdef uint32_t i, k
    cdef const TcpState *s
    for i in range(n):
        k = v[i].ahead
        if v[i].app_ahead:
            t.on_ahead(t.ctx, &v[i], 1)
        if not is_tcp(t, k):
            v[i].ahead = FLOW_NIL
            continue
        s = tracker_of(t, &t.cells[k])
        if v[i].tcp_flags & TCP_SYN or s.flags & TS_FIN or (s.flags & TS_SYN and s.scaling < SCALING_ON):
            ask(&t.sides[t.cells[k].side])
        else:
            v[i].ahead = FLOW_NIL


cdef inline void ask_peers(const FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil:
    cdef uint32_t i, k
    for i in range(n):
        if v[i].app_ahead:
            t.on_ahead(t.ctx, &v[i], 2)
        k = v[i].ahead
        if k != FLOW_NIL:
            k = side_of(t, &t.cells[k]).peer if is_tcp(t, k) else <uint32_t>FLOW_NIL
            v[i].ahead = k
            if k != FLOW_NIL:
                ask(&t.cells[k])


cdef inline void ask_peer_trackers(const FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        if is_tcp(t, v[i].ahead):
            ask(&t.sides[t.cells[v[i].ahead].side - 1])
        v[i].ahead = FLOW_NIL

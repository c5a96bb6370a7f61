"""The flow table: one cell per direction, peers linked, fixed capacity.

Memory is what costs most: pages to walk to, and to be zeroed. So a cell is one cache line, and cells lie densely in a
block of their own; what a packet of a known flow does not need lies in another line (its side), with the tracker before it
if it is TCP. An entry that has been exported and is only kept for its state gives its side back where it can. Memory grows
with the flows that were open at once, up to the capacity, and never beyond.

Eviction, with every cell in use: of the next EVICT_LOOK cells under a hand that goes round, the flow that has been
without a packet for longest is exported and dropped.

Expiry does not depend on when somebody looks: a packet that comes after its flow's time first ends the flow.
Looking (a pass, once a second of packet time) reads 4 bytes per cell.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netprobe._core.flow_ahead cimport ask_cells, ask_links, ask_peer_trackers, ask_peers, ask_sides, ask_slots, heard
from netprobe._core.flow_index cimport ask, cell_tag, find, grow, home_of, np_block, put, same, tag_of, take_out
from netprobe._core.flow_side cimport link, peer_of, rest, rest_of, rouse, side_drop, side_new, tracker_drop
from netprobe._core.packet cimport DIR_IN, PROTO_TCP, PROTO_UDP, mix64
from netprobe._core.tracker cimport (
    TS_CLOSED, TS_OLD_FPEX, TS_SYN, Segment, latency_ms, track_exported, track_open, track_segment, track_wants_peer,
)
from netprobe._core.wire.be cimport likely

cdef extern from *:
    # ns; the export period and the others are the spec's (12)
    int64_t SECOND "1000000000LL"
    int64_t PERIOD "15000000000LL"
    int64_t PASS_SCHEDULE "2000000000LL"
    int64_t PASS_TIMEOUT "1000000000LL"
    int64_t COMPACTION "30000000000LL"
    int64_t STATE_IDLE "60000000000LL"
    int64_t NO_TIME "INT64_MAX"
    int64_t TS_LEAST "-1000000000000000000LL"    # as in flow_view

cdef enum:
    LG_FIRST = 12                # index slots at start
    CAPACITY_MIN = 64
    CAPACITY_MAX = 67108864
    EVICT_LOOK = 8
    GROUP = 8                    # packets whose memory is asked for together
    LOOK = 16                    # cells looked at together in a pass
    AHEAD = 4                    # groups of LOOK cells by which a pass asks for memory ahead
    DUE_FREE = 0x7FFFFFFF
    DUE_NEVER = 0x7FFFFFFE       # live, but its peer leads
    PACKETS_MAX = 0xFFFF0000     # in a cell: a record goes out before its counter is full
    PASS_TIMER = 0
    PASS_COMPACT = 1
    PASS_END = 2


# --- set-up ------------------------------------------------------------------------------------------------------

cdef int flow_init(FlowTable *t, const FlowConfig *c) noexcept nogil:
    cdef int i
    memset(t, 0, sizeof(FlowTable))
    t.config = c[0]
    if t.config.schedule:
        t.config.bidirectional = 0   # pairs do not rest
    if t.config.capacity < CAPACITY_MIN:
        t.config.capacity = CAPACITY_MIN
    if t.config.capacity > CAPACITY_MAX:
        t.config.capacity = CAPACITY_MAX
    t.limit = t.config.capacity
    t.lg_max = LG_FIRST
    while (<uint64_t>1 << t.lg_max) < <uint64_t>t.limit * 2:
        t.lg_max += 1
    t.lg_slots = LG_FIRST
    t.free_head = FLOW_NIL
    # an odd number, so that a pair, which is known by its second line, is not in two pages
    t.pools[1].top = (t.limit + 1) | 1
    t.pass_at = FLOW_NIL
    t.rng = mix64(c.seed + 1)
    for i in range(3):
        t.secret[i] = mix64(t.rng + <uint64_t>i + 1) | 1
    t.slots = <FlowSlot *>calloc(<size_t>1 << t.lg_slots, sizeof(FlowSlot))
    t.cells = <FlowCell *>np_block(<size_t>t.limit * sizeof(FlowCell))
    # address space for whatever may come; memory comes with use
    t.sides = <FlowSide *>np_block((<size_t>t.pools[1].top + 2 * <size_t>t.limit) * sizeof(FlowSide))
    for i in range(2):
        t.pools[i].free = <uint32_t *>np_block(<size_t>t.limit * sizeof(uint32_t))
    t.due = <int32_t *>np_block((<size_t>t.limit + LOOK) * sizeof(int32_t))
    if (t.slots == NULL or t.cells == NULL or t.sides == NULL or t.due == NULL or t.pools[0].free == NULL
            or t.pools[1].free == NULL):
        flow_free(t)
        return -1
    return 0


cdef void flow_free(FlowTable *t) noexcept nogil:
    free(t.slots)
    free(t.cells)
    free(t.sides)
    free(t.pools[0].free)
    free(t.pools[1].free)
    free(t.due)
    t.slots = NULL
    t.cells = NULL
    t.sides = NULL
    t.pools[0].free = NULL
    t.pools[1].free = NULL
    t.due = NULL


cdef inline uint64_t draw(FlowTable *t) noexcept nogil:
    # splitmix64
    t.rng += <uint64_t>0x9e3779b97f4a7c15ULL
    return mix64(t.rng)


# --- records -------------------------------------------------------------------------------------------------------

cdef inline uint64_t half_id(const uint64_t *addr, uint16_t port, const uint8_t *mac, uint64_t seed) noexcept nogil:
    cdef uint64_t m = 0
    memcpy(&m, mac, 6)
    m = (m | <uint64_t>port << 48) * <uint64_t>0x9e3779b97f4a7c15ULL
    return mix64((addr[0] ^ seed) + m + addr[1] * <uint64_t>0xd6e8feb86659fd93ULL)


cdef uint32_t connection_id(const FlowTable *t, const FlowCell *c, const FlowSide *s) noexcept nogil:
    """Keyed hash of both ends, MACs and VLAN; equal for both directions (spec 5.2)."""
    cdef uint64_t h
    if c.proto != PROTO_TCP and c.proto != PROTO_UDP:
        return 0
    h = half_id(c.src, c.sport, s.smac, t.config.seed) + half_id(c.dst, c.dport, s.dmac, t.config.seed)
    h = mix64(h + (<uint64_t>s.vlan << 8) + c.proto)
    return <uint32_t>(h >> 32) | (1 if h >> 32 == 0 else 0)


cdef void share_of(FlowTable *t, FlowCell *c, FlowSide *s, FlowHealth *h, FlowRecord *r) noexcept nogil:
    """One cell's share of a record; its counters start anew."""
    cdef TcpState *k
    h.packets = c.packets
    h.bytes = c.bytes
    h.tcp_flags = c.tcp_flags
    h.tos = c.tos
    h.window = -1
    h.retransmits = 0
    h.repeats = 0
    h.reordered = 0
    h.zero_windows = 0
    if s.fpex_ms:
        r.fpex_ms = s.fpex_ms
    if c.proto == PROTO_TCP and c.flags & FC_TRACKED:
        k = tracker_of(t, c)
        h.retransmits = k.retransmits
        h.repeats = k.repeats
        h.reordered = k.reordered
        h.zero_windows = k.zero_windows
        if k.flags & TS_SYN:
            h.window = k.window
        elif k.old_window:
            h.window = <int64_t>k.old_window - 1     # a late packet of a connection that is over
        if k.latency_ms:
            if k.server:
                r.server_ms = k.latency_ms
            else:
                r.client_ms = k.latency_ms
        if k.flags & (TS_CLOSED | TS_OLD_FPEX):
            s.fpex_ms = 0
            k.flags &= ~<uint8_t>TS_OLD_FPEX
        if track_exported(k):
            tracker_drop(t, c)
    t.out_packets += c.packets
    t.out_bytes += c.bytes
    r.fragments += s.fragments
    c.packets = 0
    c.bytes = 0
    s.fragments = 0
    c.tcp_flags = 0
    c.tos = 0


cdef void no_side(FlowHealth *h) noexcept nogil:
    memset(h, 0, sizeof(FlowHealth))
    h.window = -1


cdef void export(FlowTable *t, uint32_t i, int reason, const void *app_fields, int64_t appl_ms) noexcept nogil:
    """Send a flow's counters: of one cell, or of the pair that it leads."""
    cdef FlowCell *c = &t.cells[i]
    cdef FlowSide *s
    cdef FlowCell *p = NULL
    cdef FlowSide *ps = NULL
    cdef FlowRecord made
    cdef FlowRecord *r = t.place if t.place != NULL else &made
    cdef int at = 0
    if resting(c):
        return                       # it has nothing
    s = side_of(t, c)
    if t.config.bidirectional:
        if s.peer != FLOW_NIL:
            p = &t.cells[s.peer]
            if not c.flags & FC_FIRST:
                i = s.peer
                p = c
                c = &t.cells[i]
                s = side_of(t, c)
            ps = side_of(t, p)
    elif s.direction == DIR_IN:
        at = 1
    if c.packets == 0 and (p == NULL or p.packets == 0):
        # several messages in one packet: the later records carry none
        if app_fields == NULL or s.uncounted:
            return
        r.first = c.last
    else:
        r.first = s.first if c.packets else ps.first
    r.last = c.last
    memcpy(r.src, c.src, 16)
    memcpy(r.dst, c.dst, 16)
    r.sport = c.sport
    r.dport = c.dport
    r.proto = c.proto
    r.l3 = cell_l3(c)
    r.direction = s.direction
    r.reason = <uint8_t>reason
    r.fragments = 0
    r.connection_id = connection_id(t, c, s)
    r.client_ms = 0
    r.server_ms = 0
    r.fpex_ms = 0
    r.appl_ms = appl_ms
    r.sample_rate = t.config.sample if t.config.sample > 1 else 1
    r.cell = i
    r.peer_cell = FLOW_NIL
    r.vlan = s.vlan
    r.has_mac = s.has_mac
    r.app = s.app
    memcpy(r.smac, s.smac, 6)
    memcpy(r.dmac, s.dmac, 6)
    r.app_fields = app_fields
    if p != NULL:
        r.peer_cell = s.peer
        if p.packets and ps.first < r.first:
            r.first = ps.first
        if p.packets and (p.last > r.last or not c.packets):
            r.last = p.last
        share_of(t, c, s, &r.side[0], r)
        share_of(t, p, ps, &r.side[1], r)
    else:
        no_side(&r.side[1 - at])
        share_of(t, c, s, &r.side[at], r)
    t.records += 1
    t.by_reason[reason] += 1
    t.room -= 1 if t.room else 0
    if t.on_record != NULL:
        t.on_record(t.ctx, r)


cdef void flow_export_now(FlowTable *t, uint32_t cell, const void *app_fields, int64_t appl_ms) noexcept nogil:
    if resting(&t.cells[cell]):
        rouse(t, &t.cells[cell])
    export(t, cell, FLOW_DECODED, app_fields, appl_ms)
    if t.config.schedule:
        put_off(t, cell, t.cells[cell].last)


cdef uint32_t flow_find(const FlowTable *t, FlowPacket *key) noexcept nogil:
    cdef uint32_t peer
    key.tag = tag_of(t, key)
    return find(t, key, &peer)


# --- cells -------------------------------------------------------------------------------------------------------

cdef inline int32_t second_of(const FlowTable *t, int64_t ts) noexcept nogil:
    cdef int64_t s
    if ts <= t.epoch:
        return 0
    s = (ts - t.epoch) // SECOND
    return <int32_t>s if s < DUE_NEVER - 1 else DUE_NEVER - 1


cdef void drop_one(FlowTable *t, uint32_t i) noexcept nogil:
    cdef FlowCell *c = &t.cells[i]
    cdef uint32_t peer = peer_of(t, c)
    if t.pass_kind != PASS_END:
        take_out(t, cell_tag(t, c), i)       # at the end the whole index goes
    if not resting(c):
        if side_of(t, c).app_state and t.on_gone != NULL:
            t.on_gone(t.ctx, side_of(t, c).app_state)
        tracker_drop(t, c)
        side_drop(t, c.side, c.proto == PROTO_TCP)
    if peer != FLOW_NIL:
        link(t, peer, FLOW_NIL)
    c.flags = 0
    c.side = t.free_head
    t.free_head = i
    t.due[i] = DUE_FREE
    t.active -= 1


cdef void drop(FlowTable *t, uint32_t i) noexcept nogil:
    """Remove a cell without a record; in bidirectional mode both."""
    cdef uint32_t peer = peer_of(t, &t.cells[i])
    drop_one(t, i)
    if t.config.bidirectional and peer != FLOW_NIL:
        drop_one(t, peer)


cdef inline int64_t latest(const FlowTable *t, const FlowCell *c) noexcept nogil:
    cdef int64_t last = c.last
    cdef uint32_t peer
    if t.config.bidirectional:
        peer = side_of(t, c).peer
        if peer != FLOW_NIL and t.cells[peer].last > last:
            last = t.cells[peer].last
    return last


cdef inline int64_t earliest(const FlowTable *t, const FlowCell *c) noexcept nogil:
    """First packet since the latest export; the greatest number without one. Under time-outs: no cell rests."""
    cdef const FlowSide *s = side_of(t, c)
    cdef int64_t first = s.first if c.packets else NO_TIME
    cdef const FlowCell *p
    if t.config.bidirectional and s.peer != FLOW_NIL:
        p = &t.cells[s.peer]
        if p.packets and side_of(t, p).first < first:
            first = side_of(t, p).first
    return first


cdef inline void due_at(FlowTable *t, uint32_t i) noexcept nogil:
    """When a pass has to look at a flow under time-outs: never later than it expires."""
    cdef FlowCell *c = &t.cells[i]
    cdef int64_t first, at = latest(t, c) + t.config.idle_ns
    if t.config.active_ns:
        first = earliest(t, c)
        if first < NO_TIME - t.config.active_ns and first + t.config.active_ns < at:
            at = first + t.config.active_ns
    t.due[i] = second_of(t, at)


cdef void evict(FlowTable *t, uint32_t keep) noexcept nogil:
    """Make room: see the module's description. `keep`: a cell whose flow must stay."""
    cdef uint32_t i, looked = 0, best = FLOW_NIL, tries = 0
    cdef int64_t last, oldest = 0
    while looked < EVICT_LOOK and tries < t.top:
        i = t.hand
        t.hand = i + 1 if i + 1 < t.top else 0
        ask(&t.cells[t.hand + EVICT_LOOK if t.hand + EVICT_LOOK < t.top else 0])
        tries += 1
        if not t.cells[i].flags & FC_LIVE or i == keep or (keep != FLOW_NIL and peer_of(t, &t.cells[keep]) == i):
            continue
        looked += 1
        last = latest(t, &t.cells[i])
        if best == FLOW_NIL or last < oldest:
            best = i
            oldest = last
    if best == FLOW_NIL:
        return
    t.evicted += 1
    if t.config.bidirectional and peer_of(t, &t.cells[best]) != FLOW_NIL:
        t.evicted += 1
    export(t, best, FLOW_EVICTED, NULL, -1)
    drop(t, best)


cdef inline void deadline(FlowTable *t, uint32_t i, int64_t ts) noexcept nogil:
    """Spec 4.4: the first packet plus 0 to 15 whole seconds."""
    cdef uint64_t s
    cdef FlowSide *side = side_of(t, &t.cells[i])
    side.phase = <uint32_t>((ts - t.epoch) % SECOND) if ts > t.epoch else 0
    s = <uint64_t>second_of(t, ts) + draw(t) % 16
    t.due[i] = side.deadline = <int32_t>s if s < DUE_NEVER - 1 else DUE_NEVER - 1


cdef inline void stamp(FlowTable *t, FlowCell *c, const FlowPacket *v) noexcept nogil:
    """What an entry takes from its first packet alone."""
    cdef FlowSide *s = side_of(t, c)
    memcpy(s.smac, v.smac, 6)
    memcpy(s.dmac, v.dmac, 6)
    s.has_mac = v.has_mac
    s.vlan = v.vlan
    s.direction = v.direction
    s.app = 0
    c.flags &= ~<uint8_t>FC_APP
    if t.classify != NULL:
        s.app = t.classify(t.ctx, v)
        if s.app:
            c.flags |= FC_APP


cdef uint32_t create(FlowTable *t, const FlowPacket *v, uint32_t peer) noexcept nogil:
    cdef uint32_t i, k
    cdef FlowCell *c
    cdef FlowSide *s
    while t.active >= t.limit:
        evict(t, peer)
    if <uint64_t>(t.active + 1) * 2 > <uint64_t>1 << t.lg_slots and t.lg_slots < t.lg_max and grow(t) < 0:
        # as full as a table of this size may become; from here on flows are evicted
        if <uint64_t>(t.active + 1) * 8 > <uint64_t>7 << t.lg_slots:
            t.limit = t.active
            evict(t, peer)
    if t.free_head != FLOW_NIL:
        i = t.free_head
        t.free_head = t.cells[i].side
        if t.free_head != FLOW_NIL:
            ask(&t.cells[t.free_head])
    else:
        i = t.top
        if i % LOOK == 0:
            for k in range(<uint32_t>LOOK):
                t.due[i + k] = DUE_FREE
        t.top += 1
    c = &t.cells[i]
    c.src[0] = v.src[0]
    c.src[1] = v.src[1]
    c.dst[0] = v.dst[0]
    c.dst[1] = v.dst[1]
    c.sport = v.sport
    c.dport = v.dport
    c.proto = v.proto
    c.flags = FC_LIVE | (FC_V6 if v.l3 == 6 else 0)
    c.tcp_flags = 0
    c.tos = 0
    c.packets = 0
    c.bytes = 0
    c.last = v.ts
    c.side = side_new(t, v.proto == PROTO_TCP)
    s = side_of(t, c)
    s.first = v.ts
    s.payload_ts = 0
    s.fpex_ms = 0
    s.peer = peer
    s.fragments = 0
    s.app_state = 0
    s.uncounted = v.sampled == SAMPLE_DECODE
    s.deadline = 0
    s.phase = 0
    if peer == FLOW_NIL:
        if t.config.bidirectional:
            c.flags |= FC_FIRST
    else:
        link(t, peer, i)
    stamp(t, c, v)
    put(t.slots, t.lg_slots, v.tag, i)
    t.active += 1
    t.created += 1
    if t.config.schedule:
        deadline(t, i, v.ts)
    elif t.config.bidirectional and peer != FLOW_NIL:
        t.due[i] = DUE_NEVER
    else:
        due_at(t, i)
    return i


# --- counting ------------------------------------------------------------------------------------------------------

cdef inline int dropped(const FlowTable *t, int64_t active) noexcept nogil:
    """Was a state of that last activity dropped by the latest compaction? (spec 5.8)"""
    return t.config.schedule and t.compacted - active >= STATE_IDLE


cdef inline int64_t payload_before(const FlowTable *t, uint32_t i) noexcept nogil:
    """When the first payload of this direction came; NO_TIME if none, or if its state is over."""
    cdef const FlowCell *c = &t.cells[i]
    if not c.flags & FC_PAYLOAD:
        return NO_TIME
    if c.proto == PROTO_TCP and c.flags & FC_TRACKED:
        if tracker_of(t, c).flags & TS_CLOSED or dropped(t, tracker_of(t, c).active):
            return NO_TIME
    elif dropped(t, c.last):
        return NO_TIME
    return rest_of(c).payload_ts if resting(c) else side_of(t, c).payload_ts


cdef void track_payload(FlowTable *t, FlowCell *c, const FlowPacket *v) noexcept nogil:
    """First payload exchange (spec 5.3)."""
    cdef FlowSide *s = side_of(t, c)
    cdef int64_t before
    c.flags |= FC_PAYLOAD
    s.payload_ts = v.ts
    if s.peer != FLOW_NIL:
        before = payload_before(t, s.peer)
        if before != NO_TIME:
            s.fpex_ms = latency_ms(v.ts - before)
            if c.proto == PROTO_TCP and c.flags & FC_TRACKED:
                tracker_of(t, c).flags &= ~<uint8_t>TS_OLD_FPEX


cdef int track_tcp(FlowTable *t, FlowCell *c, const FlowPacket *v) noexcept nogil:
    """1: the packet ended the connection and is not examined further."""
    cdef TcpState *s = tracker_of(t, c)
    cdef TcpState *peer = NULL
    cdef FlowCell *p = NULL
    cdef Segment g
    cdef uint32_t other
    g.ts = v.ts
    g.seq = v.seq
    g.length = v.payload
    g.window = v.window
    g.flags = v.tcp_flags
    g.scale = v.wscale
    if not c.flags & FC_TRACKED:
        c.flags |= FC_TRACKED
        t.n_trackers += 1
        track_open(s, &g, 1)
    if s.flags & TS_CLOSED or dropped(t, s.active):
        track_open(s, &g, 0)
        c.flags &= ~<uint8_t>FC_PAYLOAD
        if side_of(t, c).fpex_ms:
            s.flags |= TS_OLD_FPEX
    if track_wants_peer(s, &g):
        other = side_of(t, c).peer
        if other != FLOW_NIL and t.cells[other].flags & FC_TRACKED:
            p = &t.cells[other]
            peer = tracker_of(t, p)
            if peer.flags & TS_CLOSED or dropped(t, peer.active):
                peer = NULL
    if not track_segment(s, peer, &g):
        return 0
    c.flags &= ~<uint8_t>FC_PAYLOAD
    p.flags &= ~<uint8_t>FC_PAYLOAD
    return 1


cdef inline int over(FlowTable *t, uint32_t i, int64_t ts) noexcept nogil:
    """End or report a flow whose time was up before this packet. 1: the cell is gone. Nearly always the cell and its side
    have the answer, without the peer."""
    cdef FlowCell *c = &t.cells[i]
    cdef int64_t first
    if ts - c.last >= t.config.idle_ns and ts - latest(t, c) >= t.config.idle_ns:
        export(t, i, FLOW_IDLE, NULL, -1)
        drop(t, i)
        return 1
    if t.config.active_ns:
        first = side_of(t, c).first if c.packets else earliest(t, c)
        if first < ts and ts - first >= t.config.active_ns:
            export(t, i, FLOW_ACTIVE, NULL, -1)
    return 0


cdef inline void put_off(FlowTable *t, uint32_t i, int64_t idle) noexcept nogil:
    """Nothing to send: no pass has to look before the state may go, unless a packet comes. idle: its last activity."""
    cdef int64_t at = idle + STATE_IDLE
    t.cells[i].flags |= FC_PUT_OFF
    t.due[i] = second_of(t, at if at > t.next_compaction else t.next_compaction)


cdef void wake(FlowTable *t, uint32_t i, const FlowPacket *v) noexcept nogil:
    """A packet of an entry that was put off. If a compaction has removed it since (spec 4.4), it is a new entry, of which
    the tracker and decoders know more."""
    cdef FlowCell *c = &t.cells[i]
    c.flags &= ~<uint8_t>FC_PUT_OFF
    if deadline_of(t, c) <= t.compacted and c.last < t.compacted:
        stamp(t, c, v)
        deadline(t, i, v.ts)
    else:
        t.due[i] = side_of(t, c).deadline


cdef inline void count(FlowTable *t, FlowPacket *v) noexcept nogil:
    cdef uint32_t i = v.cell, peer = FLOW_NIL
    cdef FlowCell *c
    cdef FlowSide *s
    cdef const FlowCell *p
    cdef int ended = 0
    if i == FLOW_NIL or not same(&t.cells[i], v):
        i = find(t, v, &peer)
    if not t.config.schedule:
        if i != FLOW_NIL:
            peer = side_of(t, &t.cells[i]).peer
            if over(t, i, v.ts):
                i = FLOW_NIL
                if t.config.bidirectional:
                    peer = FLOW_NIL
        elif peer != FLOW_NIL and t.config.bidirectional and over(t, peer, v.ts):
            peer = FLOW_NIL
    if i == FLOW_NIL:
        i = create(t, v, peer)
    c = &t.cells[i]
    v.cell = i
    if resting(c):
        rouse(t, c)
    if c.flags & FC_PUT_OFF and t.config.schedule:
        wake(t, i, v)
    if t.config.track:
        if c.proto == PROTO_TCP:
            ended = 0 if v.cut else track_tcp(t, c, v)
        elif dropped(t, c.last):
            c.flags &= ~<uint8_t>FC_PAYLOAD
            side_of(t, c).fpex_ms = 0
        if v.payload and not c.flags & FC_PAYLOAD and not ended:
            track_payload(t, c, v)
    if v.ts > c.last:
        c.last = v.ts
    if t.config.sample > 1 and side_of(t, c).uncounted:
        t.ignored += v.packets
        t.ignored_bytes += v.bytes
    else:
        if c.packets == 0:
            s = side_of(t, c)
            s.first = v.ts
            c.last = v.ts            # of what is counted now, though an older packet may have come later
            if t.config.bidirectional and s.peer != FLOW_NIL:
                p = &t.cells[s.peer]
                if p.packets and side_of(t, p).first < s.first:
                    s.first = side_of(t, p).first        # of the record, so that `over` need not look
        elif v.ts < c.last and v.ts < side_of(t, c).first:
            side_of(t, c).first = v.ts
        c.packets += v.packets
        c.bytes += v.bytes
        c.tcp_flags |= v.tcp_flags
        c.tos |= v.tos
        if v.fragments:
            side_of(t, c).fragments += v.fragments
        t.packets += v.packets
        t.bytes += v.bytes
        if not likely(c.packets < <uint32_t>PACKETS_MAX):
            export(t, i, FLOW_ACTIVE, NULL, -1)
    if c.flags & FC_APP and t.on_packet != NULL and heard(c, v):
        t.on_packet(t.ctx, t, v)
        if c.flags & FC_PUT_OFF and t.config.schedule:
            rest(t, c)               # its message is out


cdef inline void start(FlowTable *t, int64_t ts) noexcept nogil:
    t.started = 1
    t.epoch = ts - ((ts % SECOND) + SECOND) % SECOND
    t.next_pass = ts
    t.next_compaction = ts
    t.compacted = TS_LEAST - STATE_IDLE


cdef uint32_t flow_update(FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil:
    cdef uint32_t at = 0, i, end
    if n and not t.started:
        start(t, v[0].ts)
    if t.pass_at != FLOW_NIL and run_pass(t):
        return 0
    while True:
        if at < n:
            ask_slots(t, v + at, n - at if n - at < GROUP else GROUP)
        if at >= GROUP and at - GROUP < n:
            i = at - GROUP
            ask_cells(t, v + i, n - i if n - i < GROUP else GROUP)
        if at >= 2 * GROUP and at - 2 * GROUP < n:
            i = at - 2 * GROUP
            ask_sides(t, v + i, n - i if n - i < GROUP else GROUP)
        if t.config.track and at >= 3 * GROUP and at - 3 * GROUP < n:
            i = at - 3 * GROUP
            ask_links(t, v + i, n - i if n - i < GROUP else GROUP)
        if t.config.track and at >= 4 * GROUP and at - 4 * GROUP < n:
            i = at - 4 * GROUP
            ask_peers(t, v + i, n - i if n - i < GROUP else GROUP)
        if t.config.track and at >= 5 * GROUP and at - 5 * GROUP < n:
            i = at - 5 * GROUP
            ask_peer_trackers(t, v + i, n - i if n - i < GROUP else GROUP)
        if at >= 6 * GROUP:
            i = at - 6 * GROUP
            if i >= n:
                return n
            end = n if n - i < GROUP else i + GROUP
            for i in range(i, end):
                if v[i].sampled == SAMPLE_IGNORE:
                    t.ignored += v[i].packets
                    t.ignored_bytes += v[i].bytes
                    v[i].cell = FLOW_NIL
                    continue         # no tracking, no export tick (spec 3.10)
                if t.room < FLOW_ROOM:
                    return i
                count(t, &v[i])
                if (v[i].ts >= t.next_pass or t.next_pass - v[i].ts > STATE_IDLE) and flow_tick(t, v[i].ts):
                    return i + 1
        at += GROUP


# --- passes --------------------------------------------------------------------------------------------------------

cdef inline int look_timeouts(FlowTable *t, uint32_t i, int64_t now) noexcept nogil:
    cdef FlowCell *c = &t.cells[i]
    if now - latest(t, c) >= t.config.idle_ns:
        export(t, i, FLOW_IDLE, NULL, -1)
        drop(t, i)
        return 0
    if t.config.active_ns and earliest(t, c) < now and now - earliest(t, c) >= t.config.active_ns:
        export(t, i, FLOW_ACTIVE, NULL, -1)
    due_at(t, i)
    return 0


cdef inline int64_t deadline_of(const FlowTable *t, const FlowCell *c) noexcept nogil:
    cdef FlowRest r
    if resting(c):
        r = rest_of(c)
        return t.epoch + <int64_t>r.deadline * SECOND + r.phase
    return t.epoch + <int64_t>side_of(t, c).deadline * SECOND + side_of(t, c).phase


cdef inline void look_schedule(FlowTable *t, uint32_t i, int64_t now) noexcept nogil:
    cdef FlowCell *c = &t.cells[i]
    cdef int64_t at = deadline_of(t, c)
    cdef int64_t idle, steps
    if at > now:
        return
    if c.packets and not resting(c):
        export(t, i, FLOW_SCHEDULE, NULL, -1)
        # D18: the first of the flow's own multiples of 15 s that lies ahead
        steps = (now - at) // PERIOD + 1
        side_of(t, c).deadline = second_of(t, at + steps * PERIOD)
        put_off(t, i, c.last)
        rest(t, c)
        return
    idle = c.last
    if c.proto == PROTO_TCP and c.flags & FC_TRACKED and tracker_of(t, c).active < idle:
        idle = tracker_of(t, c).active
    if t.pass_kind == PASS_COMPACT and now - idle >= STATE_IDLE:
        drop(t, i)
    else:
        put_off(t, i, idle)
        rest(t, c)


cdef inline int any_due(const int32_t *due, int32_t now_s) noexcept nogil:
    cdef int k, found = 0
    for k in range(LOOK):
        found |= due[k] <= now_s
    return found


cdef int run_pass(FlowTable *t) noexcept nogil:
    """Look at what is due, from where the pass stood. 1: room ran out."""
    cdef uint32_t i = t.pass_at, k, at, peer
    cdef int32_t now_s
    cdef int64_t now = t.pass_now
    cdef const FlowCell *c
    now_s = second_of(t, now) if t.pass_kind != PASS_END else <int32_t>DUE_NEVER
    while i < t.top:
        if i % LOOK == 0:
            # the cells first, and what they lead to when they have come
            at = i + 3 * AHEAD * LOOK
            if at < t.top and any_due(t.due + at, now_s):
                for k in range(at, at + LOOK):
                    if t.due[k] <= now_s:
                        ask(&t.cells[k])
            at = i + 2 * AHEAD * LOOK
            if at < t.top and any_due(t.due + at, now_s):
                for k in range(at, at + LOOK):
                    c = &t.cells[k]
                    if t.due[k] <= now_s and not resting(c):
                        ask(&t.sides[c.side])
                        if c.proto == PROTO_TCP:
                            ask(&t.sides[c.side - 1])
            at = i + AHEAD * LOOK
            if at < t.top and (t.pass_kind == PASS_COMPACT or not t.config.schedule) and any_due(t.due + at, now_s):
                for k in range(at, at + LOOK):
                    if t.due[k] <= now_s:
                        c = &t.cells[k]
                        peer = peer_of(t, c)
                        if peer != FLOW_NIL:
                            ask(&t.cells[peer])
                        ask(&t.slots[home_of(t, cell_tag(t, c))])
            if not any_due(t.due + i, now_s):
                i += LOOK
                continue
        if t.due[i] <= now_s:
            if t.room < FLOW_ROOM:
                t.pass_at = i
                return 1
            if t.pass_kind == PASS_END:
                if t.due[i] != DUE_NEVER:
                    export(t, i, FLOW_END, NULL, -1)
                    drop(t, i)
            elif t.config.schedule:
                look_schedule(t, i, now)
            else:
                look_timeouts(t, i, now)
        i += 1
    t.pass_at = FLOW_NIL
    if t.pass_kind == PASS_COMPACT:
        t.compacted = now
    if t.pass_kind == PASS_END:
        memset(t.slots, 0, (<size_t>1 << t.lg_slots) * sizeof(FlowSlot))
        t.top = 0
        t.hand = 0
        t.free_head = FLOW_NIL
        t.pass_kind = PASS_TIMER
    else:
        shrink(t)
    return 0


cdef void shrink(FlowTable *t) noexcept nogil:
    """After a burst: leave the unused end of the block, so that passes and eviction do not walk over it."""
    cdef uint32_t i = t.top
    if t.active * 4 > t.top:
        return
    while i and t.due[i - 1] == DUE_FREE:
        i -= 1
    if i * 2 > t.top:
        return
    t.top = i
    t.hand = 0
    t.free_head = FLOW_NIL
    while i:
        i -= 1
        if t.due[i] == DUE_FREE:
            t.cells[i].side = t.free_head
            t.free_head = i
    # the last group of `due` keeps its marks: create() writes them only at multiples of LOOK


cdef int flow_tick(FlowTable *t, int64_t now) noexcept nogil:
    cdef int64_t period
    if t.pass_at != FLOW_NIL:
        return run_pass(t)
    if not t.started:
        return 0
    if now < t.next_pass and likely(t.next_pass - now <= STATE_IDLE):
        return 0
    period = PASS_SCHEDULE if t.config.schedule else PASS_TIMEOUT
    t.next_pass = now + period       # also when the clock was set back
    t.pass_now = now
    t.pass_kind = PASS_TIMER
    if t.config.schedule and (now >= t.next_compaction or t.next_compaction - now > STATE_IDLE):
        t.next_compaction = now + COMPACTION
        t.pass_kind = PASS_COMPACT
    t.pass_at = 0
    return run_pass(t)


cdef int flow_finish(FlowTable *t) noexcept nogil:
    if t.pass_at != FLOW_NIL:
        if t.pass_kind == PASS_END:
            return run_pass(t)
        if run_pass(t):
            return 1
    t.pass_kind = PASS_END
    t.pass_at = 0
    return run_pass(t)


cdef uint64_t flow_open_packets(const FlowTable *t, uint64_t *bytes) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t n = 0, b = 0
    for i in range(t.top):
        if t.cells[i].flags & FC_LIVE and not resting(&t.cells[i]):
            n += t.cells[i].packets
            b += t.cells[i].bytes
    bytes[0] = b
    return n


if sizeof(FlowCell) != 64 or sizeof(FlowSide) != 64 or sizeof(FlowRest) != 64 or sizeof(TcpState) != 64:
    raise ImportError("a cell, its side and its tracker are one cache line each")

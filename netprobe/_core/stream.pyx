"""TCP stream reassembly: each byte once, in order, whatever the network did; memory flat whatever the peer does.

A gap is given up (reported as lost) when the receiver has acknowledged bytes past it and nothing filled it for
REORDER_NS, when too much waits behind it, or when the connection ends. Data from the other side alone is no
reason: requests may be pipelined.
"""
import os

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from netprobe._core.packet cimport PF_CUT, PF_DEEP, PF_SYNTHETIC, PROTO_TCP
from netprobe._core.stamps cimport apart
from netprobe._core.wire.be cimport be32

cdef extern from *:
    void ask "__builtin_prefetch"(const void *) noexcept nogil

cdef enum:
    # TCP header
    OFF_SEQ = 4
    OFF_ACK = 8
    OFF_FLAGS = 13
    TCP_HEADER = 20
    FIN = 1
    SYN = 2
    RST = 4
    ACK = 16
    IDLE_PER_PACKET = 100    # most idle connections closed, and lingering ones forgotten, per packet
    BUF_FIRST = 64

cdef uint32_t NIL = <uint32_t>0xffffffff
cdef uint8_t[64] NOTHING         # what synthetic packets point to: readable, outlives every stream
cdef int64_t LINGER_NS = 1000000000
cdef int64_t IDLE_NS = 30000000000
# how long an acknowledged gap may still be filled by a packet that the capture delivers late
cdef int64_t REORDER_NS = 20000000
# a SYN this little before the data already seen is their own SYN, captured late
cdef int32_t LATE_SYN = 1048576

flow_seed = int.from_bytes(os.urandom(8), "little")

cdef struct Held:
    Held *next
    uint32_t seq
    uint32_t n               # as sent
    uint32_t captured        # as captured, <= n; these bytes follow the struct


cdef inline int32_t serial(uint32_t a, uint32_t b) noexcept nogil:
    # a - b on the circle of sequence numbers
    return <int32_t>(a - b)


# --- table ------------------------------------------------------------------------------------------------------

cdef int stream_init(StreamTable *t, uint32_t limit, segment_fn on_segment, close_fn on_close, void *ctx) noexcept nogil:
    memset(t, 0, sizeof(StreamTable))
    t.limit = limit if limit != 0 and limit < STREAM_MAX else STREAM_MAX
    t.linger_limit = t.limit if limit != 0 and t.limit > STREAM_LINGER_MAX else STREAM_LINGER_MAX
    t.on_segment = on_segment
    t.on_close = on_close
    t.ctx = ctx
    t.idle_ns = IDLE_NS
    t.free_head = NIL
    t.lru_head = t.lru_tail = NIL
    t.linger_head = t.linger_tail = NIL
    t.lg_buckets = 8
    t.buckets = <uint32_t *>malloc(sizeof(uint32_t) << t.lg_buckets)
    if t.buckets == NULL:
        return -1
    memset(t.buckets, 0xff, sizeof(uint32_t) << t.lg_buckets)
    return 0


cdef void drop_held(StreamTable *t, StreamSide *d) noexcept nogil:
    cdef Held *h = <Held *>d.held
    cdef Held *following
    while h != NULL:
        following = h.next
        t.held_bytes -= sizeof(Held) + h.captured
        free(h)
        h = following
    d.held = NULL
    d.n_held = 0


cdef void drop_buf(StreamTable *t, StreamSide *d) noexcept nogil:
    t.app_bytes -= d.cap
    free(d.buf)
    d.buf = NULL
    d.len = d.cap = 0


cdef void stream_free(StreamTable *t) noexcept nogil:
    cdef uint32_t i
    cdef int side
    i = t.lru_head
    while t.streams != NULL and i != NIL:
        for side in range(2):
            drop_held(t, &t.streams[i].side[side])
            drop_buf(t, &t.streams[i].side[side])
        i = t.streams[i].lru_next
    free(t.streams)
    free(t.buckets)
    memset(t, 0, sizeof(StreamTable))


cdef inline uint32_t bucket_of(const StreamTable *t, uint64_t hash) noexcept nogil:
    return <uint32_t>(hash >> (64 - t.lg_buckets))


cdef void grow_buckets(StreamTable *t) noexcept nogil:
    cdef uint32_t lg = t.lg_buckets + 1
    cdef uint32_t *buckets = <uint32_t *>malloc(sizeof(uint32_t) << lg)
    cdef uint32_t *old = t.buckets
    cdef uint32_t b, i, following, n = <uint32_t>1 << t.lg_buckets
    if buckets == NULL:
        return               # longer chains, nothing worse
    memset(buckets, 0xff, sizeof(uint32_t) << lg)
    t.buckets = buckets
    t.lg_buckets = lg
    for b in range(n):
        i = old[b]
        while i != NIL:
            following = t.streams[i].chain
            t.streams[i].chain = buckets[bucket_of(t, t.streams[i].hash)]
            buckets[bucket_of(t, t.streams[i].hash)] = i
            i = following
    free(old)


cdef uint32_t take_slot(StreamTable *t) noexcept nogil:
    """An unused Stream, uninitialised; NIL without memory."""
    cdef uint32_t i = t.free_head
    cdef uint32_t cap
    cdef Stream *grown
    if i != NIL:
        t.free_head = t.streams[i].chain
        return i
    if t.top == t.cap:
        cap = t.cap * 2 if t.cap else 64
        if cap > t.limit + t.linger_limit:
            cap = t.limit + t.linger_limit
        if cap <= t.cap:
            return NIL
        grown = <Stream *>realloc(t.streams, <size_t>cap * sizeof(Stream))
        if grown == NULL:
            return NIL
        t.streams = grown
        t.cap = cap
    t.top += 1
    return t.top - 1


cdef void push_front(StreamTable *t, uint32_t i, uint32_t *head, uint32_t *tail) noexcept nogil:
    t.streams[i].lru_prev = NIL
    t.streams[i].lru_next = head[0]
    if head[0] != NIL:
        t.streams[head[0]].lru_prev = i
    else:
        tail[0] = i
    head[0] = i


cdef void unlink_list(StreamTable *t, uint32_t i, uint32_t *head, uint32_t *tail) noexcept nogil:
    cdef Stream *s = &t.streams[i]
    if s.lru_prev != NIL:
        t.streams[s.lru_prev].lru_next = s.lru_next
    else:
        head[0] = s.lru_next
    if s.lru_next != NIL:
        t.streams[s.lru_next].lru_prev = s.lru_prev
    else:
        tail[0] = s.lru_prev


cdef void forget(StreamTable *t, uint32_t i) noexcept nogil:
    """Take a closed stream out of its list and the table."""
    cdef uint32_t *at = &t.buckets[bucket_of(t, t.streams[i].hash)]
    while at[0] != i:
        at = &t.streams[at[0]].chain
    at[0] = t.streams[i].chain
    unlink_list(t, i, &t.linger_head, &t.linger_tail)
    t.streams[i].chain = t.free_head
    t.free_head = i
    t.n_used -= 1


cdef inline uint32_t find(StreamTable *t, uint64_t hash, const FlowKey *k, const Packet *p, int *side) noexcept nogil:
    cdef uint32_t i = t.buckets[bucket_of(t, hash)]
    cdef Stream *s
    while i != NIL:
        s = &t.streams[i]
        if s.hash == hash and s.l3 == k.l3:
            if (s.port[0] == p.sport and s.port[1] == p.dport
                    and memcmp(&s.addr[0][0], &k.src[0], 16) == 0 and memcmp(&s.addr[1][0], &k.dst[0], 16) == 0):
                side[0] = 0
                return i
            if (s.port[1] == p.sport and s.port[0] == p.dport
                    and memcmp(&s.addr[1][0], &k.src[0], 16) == 0 and memcmp(&s.addr[0][0], &k.dst[0], 16) == 0):
                side[0] = 1
                return i
        i = s.chain
    return NIL


cdef uint32_t open_stream(StreamTable *t, uint64_t hash, const FlowKey *k, const Packet *p) noexcept nogil:
    cdef uint32_t i, b
    cdef Stream *s
    while t.n_open >= t.limit and t.lru_tail != NIL:
        t.evicted += 1
        close_stream(t, t.lru_tail, p.ts, 1)
    i = take_slot(t)
    if i == NIL and t.linger_tail != NIL:
        forget(t, t.linger_tail)
        i = take_slot(t)
    if i == NIL:
        return NIL
    s = &t.streams[i]
    memset(s, 0, sizeof(Stream))
    s.hash = hash
    memcpy(&s.addr[0][0], &k.src[0], 16)
    memcpy(&s.addr[1][0], &k.dst[0], 16)
    s.port[0] = p.sport
    s.port[1] = p.dport
    s.l3 = k.l3
    s.first = s.last = p.ts
    b = bucket_of(t, hash)
    s.chain = t.buckets[b]
    t.buckets[b] = i
    push_front(t, i, &t.lru_head, &t.lru_tail)
    t.n_open += 1
    t.n_used += 1
    t.opened += 1
    if t.n_used > (<uint32_t>1 << t.lg_buckets):
        grow_buckets(t)
    return i


# --- delivery ---------------------------------------------------------------------------------------------------

cdef void stream_packet(const Stream *s, int side, int64_t ts, Packet *out) noexcept nogil:
    cdef const StreamSide *d = &s.side[side]
    memset(out, 0, sizeof(Packet))
    out.data = NOTHING
    out.ts = ts
    memcpy(&out.src[0], &s.addr[side][0], 16)
    memcpy(&out.dst[0], &s.addr[1 - side][0], 16)
    out.sport = s.port[side]
    out.dport = s.port[1 - side]
    out.flags = PF_SYNTHETIC | (PF_DEEP if d.deep else 0)
    out.l3 = s.l3
    out.proto = out.l4 = PROTO_TCP
    out.direction = d.direction


cdef inline void deliver(StreamTable *t, Stream *s, int side, const uint8_t *data, uint32_t n,
                         const Packet *pkt) noexcept nogil:
    cdef uint32_t cap = s.side[side].cap
    s.side[side].next_seq += n
    t.on_segment(t.ctx, s, side, data, n, pkt)
    t.app_bytes += <uint64_t>s.side[side].cap - cap


cdef void lose(StreamTable *t, Stream *s, int side, uint32_t n, const Packet *pkt) noexcept nogil:
    t.lost_segments += 1
    t.lost_bytes += n
    deliver(t, s, side, NULL, n, pkt)


cdef inline void check_end(StreamTable *t, Stream *s, int side, int64_t ts) noexcept nogil:
    cdef StreamSide *d = &s.side[side]
    cdef uint32_t cap = d.cap
    if d.fin and not d.closed and serial(d.next_seq, d.fin_seq) >= 0:
        d.closed = 1
        if t.on_end != NULL:
            t.on_end(t.ctx, s, side, ts)
            t.app_bytes += <uint64_t>d.cap - cap


cdef void drain(StreamTable *t, Stream *s, int side, const Packet *pkt) noexcept nogil:
    """Deliver what waits and has become next."""
    cdef StreamSide *d = &s.side[side]
    cdef Held *h
    cdef uint32_t skip
    while d.held != NULL:
        h = <Held *>d.held
        if serial(h.seq, d.next_seq) > 0:
            break
        d.held = h.next
        d.n_held -= 1
        t.held_bytes -= sizeof(Held) + h.captured
        skip = d.next_seq - h.seq
        if skip < h.captured:
            deliver(t, s, side, <const uint8_t *>(h + 1) + skip, h.captured - skip, pkt)
            skip = h.captured
        if skip < h.n:
            lose(t, s, side, h.n - skip, pkt)
        free(h)
    check_end(t, s, side, pkt.ts)


cdef void give_up(StreamTable *t, Stream *s, int side, const Packet *pkt) noexcept nogil:
    """Declare the first gap lost and deliver what stands behind it."""
    cdef StreamSide *d = &s.side[side]
    if d.held != NULL:
        lose(t, s, side, (<Held *>d.held).seq - d.next_seq, pkt)
    elif d.fin and not d.closed:
        lose(t, s, side, d.fin_seq - d.next_seq, pkt)
    drain(t, s, side, pkt)


cdef void close_stream(StreamTable *t, uint32_t i, int64_t ts, int linger) noexcept nogil:
    cdef Stream *s = &t.streams[i]
    cdef Packet ghost
    cdef int side
    for side in range(2):
        if s.side[side].held != NULL or (s.side[side].fin and not s.side[side].closed):
            stream_packet(s, side, s.last, &ghost)
            while s.side[side].held != NULL or (s.side[side].fin and not s.side[side].closed):
                give_up(t, s, side, &ghost)
    if t.on_close != NULL:
        t.on_close(t.ctx, s, ts)
    for side in range(2):
        drop_buf(t, &s.side[side])
    s.state = STREAM_CLOSED
    s.closed_at = ts
    unlink_list(t, i, &t.lru_head, &t.lru_tail)
    t.n_open -= 1
    push_front(t, i, &t.linger_head, &t.linger_tail)
    if not linger:
        forget(t, i)
    elif t.n_used - t.n_open > t.linger_limit:
        forget(t, t.linger_tail)


cdef int hold(StreamTable *t, StreamSide *d, uint32_t seq, const uint8_t *data, uint32_t n, uint32_t captured,
              int64_t ts) noexcept nogil:
    """Copy an out-of-order segment. -1: no room, the gap must be given up."""
    cdef Held *before = NULL
    cdef Held *h = <Held *>d.held
    cdef Held *made
    while h != NULL and serial(h.seq, seq) <= 0:
        if serial(seq + captured, h.seq + h.captured) <= 0:
            return 0         # those bytes wait already
        before = h
        h = h.next
    if d.n_held >= STREAM_HELD_MAX:
        return -1
    if t.held_bytes + sizeof(Held) + captured > STREAM_HELD_LIMIT:
        t.dropped_held += 1
        return -1
    made = <Held *>malloc(sizeof(Held) + captured)
    if made == NULL:
        t.dropped_held += 1
        return -1
    made.seq = seq
    made.n = n
    made.captured = captured
    memcpy(made + 1, data, captured)
    made.next = h
    if before == NULL:
        d.held = made
    else:
        before.next = made
    if d.n_held == 0:
        d.hole_ts = ts
    d.n_held += 1
    t.held_bytes += sizeof(Held) + captured
    return 0


cdef void take_data(StreamTable *t, Stream *s, int side, uint32_t seq, const uint8_t *data, uint32_t n,
                    uint32_t captured, const Packet *p) noexcept nogil:
    """A segment of n bytes, of which the first `captured` were captured."""
    cdef StreamSide *d = &s.side[side]
    cdef uint32_t skip
    while serial(seq, d.next_seq) > 0:
        if hold(t, d, seq, data, n, captured, p.ts) == 0:
            return
        # no room to wait
        if d.held != NULL and serial((<Held *>d.held).seq, seq) <= 0:
            give_up(t, s, side, p)
        else:
            lose(t, s, side, seq - d.next_seq, p)
    skip = d.next_seq - seq
    if skip >= n:
        return               # a retransmission
    if skip < captured:
        deliver(t, s, side, data + skip, captured - skip, p)
        skip = captured
    if skip < n:
        lose(t, s, side, n - skip, p)
    if d.held != NULL:
        drain(t, s, side, p)


cdef void acknowledged(StreamTable *t, Stream *s, int side, uint32_t ack, int64_t ts) noexcept nogil:
    """The other side has acknowledged up to `ack`: gaps of `side` before it will never be filled."""
    cdef StreamSide *d = &s.side[side]
    cdef Packet ghost
    cdef uint32_t resume
    while True:
        if d.held != NULL:
            resume = (<Held *>d.held).seq
        elif d.fin and not d.closed:
            resume = d.fin_seq
        else:
            return
        if serial(ack, resume) < 0 or apart(ts, d.hole_ts) < <uint64_t>REORDER_NS:
            return
        stream_packet(s, side, ts, &ghost)
        give_up(t, s, side, &ghost)


cdef uint32_t promised_payload(const Packet *p) noexcept nogil:
    """TCP payload as sent, of a packet that the snap length cut."""
    cdef const uint8_t *ip = p.data + p.l3_off
    cdef uint64_t end = 0
    if p.l3 == L3_IPV4 and <uint64_t>p.l3_off + 20 <= p.caplen:
        end = (<uint32_t>ip[2] << 8) | ip[3]
    elif p.l3 == L3_IPV6 and <uint64_t>p.l3_off + 40 <= p.caplen:
        end = (<uint32_t>ip[4] << 8) | ip[5]
        if end:
            end += 40
    # length 0: segmentation was left to the network card
    end = end + p.l3_off if end else p.wirelen
    if end > <uint64_t>p.payload_off + p.payload_len and end - p.payload_off < 0x40000000:
        return <uint32_t>(end - p.payload_off)
    return p.payload_len


cdef inline bint restarts(const StreamSide *d, uint32_t seq) noexcept nogil:
    """Does this SYN begin another connection on the same 5-tuple, or is it this connection's own?"""
    cdef int32_t before
    if not d.seen:
        return False
    if d.syn:
        return seq != d.isn
    before = serial(d.next_seq, seq + 1)
    return before < 0 or before > LATE_SYN


cdef void clean(StreamTable *t, uint32_t current, int64_t now) noexcept nogil:
    cdef int budget = IDLE_PER_PACKET
    while (budget and t.lru_tail != NIL and t.lru_tail != current
           and apart(now, t.streams[t.lru_tail].last) >= <uint64_t>t.idle_ns):
        t.idle_closed += 1
        # no lingering: what comes later is new data, for instance of a BGP session between two keepalives
        close_stream(t, t.lru_tail, now, 0)
        budget -= 1
    budget = IDLE_PER_PACKET
    while budget and t.linger_tail != NIL and apart(now, t.streams[t.linger_tail].closed_at) >= <uint64_t>LINGER_NS:
        forget(t, t.linger_tail)
        budget -= 1
    while t.app_bytes > STREAM_APP_LIMIT and t.lru_tail != NIL and t.lru_tail != current:
        t.evicted += 1
        close_stream(t, t.lru_tail, now, 1)


cdef void stream_feed(StreamTable *t, const Packet *p) noexcept nogil:
    cdef FlowKey key
    cdef const uint8_t *tcp
    cdef uint64_t hash
    cdef uint32_t i, seq, n, captured
    cdef int flags, side = 0
    cdef Stream *s
    cdef StreamSide *d
    cdef StreamSide *peer
    if <uint64_t>p.l4_off + TCP_HEADER > p.caplen or <uint64_t>p.payload_off + p.payload_len > p.caplen:
        t.unreadable += 1
        return
    tcp = p.data + p.l4_off
    flags = tcp[OFF_FLAGS]
    seq = be32(tcp + OFF_SEQ)
    n = captured = p.payload_len
    if p.flags & PF_CUT:
        n = promised_payload(p)
    flow_key(p, &key)
    hash = flow_key_hash(&key, p)
    i = find(t, hash, &key, p, &side)

    if i != NIL:
        s = &t.streams[i]
        d = &s.side[side]
        if s.state == STREAM_CLOSED:
            if apart(p.ts, s.closed_at) < <uint64_t>LINGER_NS and (
                    (flags & (SYN | ACK | RST)) != SYN or (d.syn and seq == d.isn)):
                t.late += 1
                return
            forget(t, i)
            i = NIL
        elif flags & SYN and not flags & RST and restarts(d, seq):
            close_stream(t, i, p.ts, 0)
            i = NIL
    if i == NIL:
        if n == 0 and not flags & (SYN | FIN | RST):
            return
        i = open_stream(t, hash, &key, p)
        if i == NIL:
            t.no_memory += 1
            return
        side = 0
    elif t.lru_head != i:
        unlink_list(t, i, &t.lru_head, &t.lru_tail)
        push_front(t, i, &t.lru_head, &t.lru_tail)

    s = &t.streams[i]
    d = &s.side[side]
    s.last = p.ts
    d.direction = p.direction
    d.deep = p.flags & PF_DEEP
    if flags & RST:
        # what follows its header is no stream data
        close_stream(t, i, p.ts, 1)
        clean(t, NIL, p.ts)
        return
    if flags & SYN:
        if not d.syn:
            d.syn = 2 if flags & ACK else 1
            d.isn = seq
        seq += 1
    if not d.seen and (n or flags & (SYN | FIN)):
        d.seen = 1
        d.next_seq = seq
    if n and not d.closed:
        if seq == d.next_seq and d.held == NULL and n == captured:
            deliver(t, s, side, p.data + p.payload_off, n, p)
        else:
            take_data(t, s, side, seq, p.data + p.payload_off, n, captured, p)
    if flags & FIN and not d.fin:
        d.fin = 1
        d.fin_seq = seq + n
        if d.n_held == 0:
            d.hole_ts = p.ts
    check_end(t, s, side, p.ts)
    peer = &s.side[1 - side]
    if flags & ACK and (peer.held != NULL or (peer.fin and not peer.closed)):
        acknowledged(t, s, 1 - side, be32(tcp + OFF_ACK), p.ts)
    if d.closed and peer.closed:
        close_stream(t, i, p.ts, 1)
    clean(t, i, p.ts)


cdef void stream_finish(StreamTable *t, int64_t ts) noexcept nogil:
    while t.lru_tail != NIL:
        close_stream(t, t.lru_tail, ts, 0)
    while t.linger_tail != NIL:
        forget(t, t.linger_tail)


cdef void stream_ask(const StreamTable *t, uint64_t hash, int step) noexcept nogil:
    cdef uint32_t i
    cdef const Stream *s
    if step == 0:
        ask(&t.buckets[bucket_of(t, hash)])
        return
    i = t.buckets[bucket_of(t, hash)]
    if i == NIL:
        return
    s = &t.streams[i]
    if step == 1:
        ask(s)
        ask(<const uint8_t *>s + 64)
        ask(<const uint8_t *>s + 128)
        ask(<const uint8_t *>s + 192)
        return
    if s.chain != NIL:
        ask(&t.streams[s.chain])
    if s.lru_prev != NIL:
        ask(&t.streams[s.lru_prev].lru_prev)
    if s.lru_next != NIL:
        ask(&t.streams[s.lru_next].lru_prev)


cdef void stream_drop(StreamTable *t, Stream *s, int64_t ts) noexcept nogil:
    cdef int side
    for side in range(2):
        drop_held(t, &s.side[side])
        s.side[side].fin = 0         # nothing is owed
    close_stream(t, <uint32_t>(s - t.streams), ts, 0)


# --- the application's buffer -----------------------------------------------------------------------------------

cdef int side_append(StreamSide *s, const uint8_t *data, uint32_t n, uint32_t limit) noexcept nogil:
    cdef uint64_t need = <uint64_t>s.len + n
    cdef uint64_t cap = s.cap if s.cap else BUF_FIRST
    cdef uint8_t *grown
    if need > limit:
        return -1
    if need > s.cap:
        while cap < need:
            cap *= 2
        if cap > limit:
            cap = limit
        grown = <uint8_t *>realloc(s.buf, cap)
        if grown == NULL:
            return -1
        s.buf = grown
        s.cap = <uint32_t>cap
    if n:
        memcpy(s.buf + s.len, data, n)
        s.len = <uint32_t>need
    return 0


cdef void side_consume(StreamSide *s, uint32_t n) noexcept nogil:
    if n < s.len:
        memmove(s.buf, s.buf + n, s.len - n)
        s.len -= n
        return
    # an idle connection should cost its Stream only
    free(s.buf)
    s.buf = NULL
    s.len = s.cap = 0


# --- for tests --------------------------------------------------------------------------------------------------

def set_flow_seed(uint64_t seed):
    """Make flow hashes repeatable. Only before anything was hashed."""
    global flow_seed
    flow_seed = seed


cdef void nothing(void *ctx, Stream *s, int side, const uint8_t *data, uint32_t n, const Packet *pkt) noexcept nogil:
    pass


cdef void tester_segment(void *ctx, Stream *s, int side, const uint8_t *data, uint32_t n,
                         const Packet *pkt) noexcept with gil:
    cdef StreamTester self = <StreamTester>ctx
    if self.keep:
        if data != NULL:
            side_append(&s.side[side], data, n, self.keep)
        return
    if s.side[0].state == 0:
        self.numbered += 1
        s.side[0].state = self.numbered
    payload = None if data == NULL else (<const char *>data)[:n]
    # typed: inferring a tuple of members of a const struct never ends in Cython 3.3.1
    cdef object sender = ((<const char *>&pkt.src[0])[:4 if pkt.l3 == L3_IPV4 else 16], <object>pkt.sport)
    self.events.append((s.side[0].state, side, payload, n, pkt.ts, pkt.direction, sender))


cdef void tester_close(void *ctx, Stream *s, int64_t ts) noexcept with gil:
    cdef StreamTester self = <StreamTester>ctx
    if s.side[0].state:
        self.events.append((s.side[0].state, "closed", ts))


cdef class StreamTester:
    """Feeds segments to a StreamTable and records what comes out.

    ``events`` holds tuples: (stream number, side, bytes or None for a gap, length, stamp in ns, direction,
    (source, source port)), and (stream number, "closed", stamp in ns).
    """
    cdef StreamTable table
    cdef uint32_t numbered
    cdef readonly list events
    cdef public uint32_t keep    # > 0: collect data in StreamSide.buf up to so many bytes, record nothing

    def __cinit__(self, uint32_t limit=0, uint32_t keep=0):
        self.events = []
        self.keep = keep
        if stream_init(&self.table, limit, tester_segment, tester_close, <void *>self) < 0:
            raise MemoryError

    def __dealloc__(self):
        stream_free(&self.table)

    def feed(self, bytes src, int sport, bytes dst, int dport, uint32_t seq, int flags, bytes payload=b"",
             int64_t ts=0, uint32_t ack=0, sent=None, int direction=2, inner=None):
        """One segment. `sent`: payload length on the wire when the capture cut it. `inner`: addresses of an IP
        header between the outer one and TCP, as a tunnel has it."""
        cdef uint32_t wire = len(payload) if sent is None else sent
        cdef Packet p
        if len(src) not in (4, 16) or len(dst) != len(src):
            raise ValueError("addresses are 4 or 16 bytes")
        tunnel = b""
        if inner is not None and len(inner[0]) == 4:
            tunnel = b"\x45" + bytes(8) + b"\x06" + bytes(2) + inner[0] + inner[1]
        elif inner is not None:
            tunnel = b"\x60" + bytes(5) + b"\x06\0" + inner[0] + inner[1]
        header = bytearray(40)
        header[0] = 0x45
        header[2:4] = ((40 + wire) & 0xffff).to_bytes(2, "big")
        header[20:22] = sport.to_bytes(2, "big")
        header[22:24] = dport.to_bytes(2, "big")
        header[24:28] = (<object>seq).to_bytes(4, "big")
        header[28:32] = (<object>ack).to_bytes(4, "big")
        header[32] = 0x50
        header[33] = flags
        raw = bytes(header[:20]) + tunnel + bytes(header[20:]) + payload
        memset(&p, 0, sizeof(p))
        p.data = <const uint8_t *><const char *>raw
        p.caplen = len(raw)
        p.wirelen = 40 + len(tunnel) + wire
        p.ts = ts
        p.l3 = L3_IPV4 if len(src) == 4 else L3_IPV6
        memcpy(&p.src[0], <const char *>src, len(src))
        memcpy(&p.dst[0], <const char *>dst, len(dst))
        p.sport = sport
        p.dport = dport
        p.proto = p.l4 = PROTO_TCP
        p.tcp_flags = flags
        p.l4_off = 20 + len(tunnel)
        p.payload_off = 40 + len(tunnel)
        p.payload_len = len(payload)
        p.direction = direction
        p.flags = (PF_CUT if sent is not None else 0) | (PF_TUNNEL if inner is not None else 0)
        stream_feed(&self.table, &p)

    def flow_hash(self, bytes src, int sport, bytes dst, int dport, int proto=6):
        """Hash of a 5-tuple."""
        cdef Packet p
        memset(&p, 0, sizeof(p))
        memcpy(&p.src[0], <const char *>src, min(len(src), 16))
        memcpy(&p.dst[0], <const char *>dst, min(len(dst), 16))
        p.l3 = L3_IPV4 if len(src) == 4 else L3_IPV6
        p.sport = sport
        p.dport = dport
        p.l4 = proto
        return flow_hash(&p)

    def finish(self, int64_t ts=0):
        stream_finish(&self.table, ts)

    def stats(self):
        """Counters and sizes of the table."""
        cdef StreamTable *t = &self.table
        return {
            "open": t.n_open, "used": t.n_used, "allocated": t.cap, "held_bytes": t.held_bytes,
            "app_bytes": t.app_bytes, "opened": t.opened, "evicted": t.evicted, "idle_closed": t.idle_closed,
            "lost_segments": t.lost_segments, "lost_bytes": t.lost_bytes, "dropped_held": t.dropped_held,
            "late": t.late, "unreadable": t.unreadable, "no_memory": t.no_memory,
            "stream_size": sizeof(Stream),
        }

    def time_in_order(self, int n, int streams=1):
        """Seconds for n in-order segments of 100 bytes, turn by turn on so many connections."""
        import time
        cdef Packet p
        cdef uint8_t raw[140]
        cdef uint32_t seq = 1
        cdef int i, at = 0
        memset(&p, 0, sizeof(p))
        memset(raw, 0, sizeof(raw))
        p.data = raw
        p.caplen = p.wirelen = 140
        p.l3 = L3_IPV4
        p.src[0] = p.dst[0] = 10
        p.dst[3] = 1
        p.dport = 53
        p.proto = p.l4 = PROTO_TCP
        p.l4_off = 20
        p.payload_off = 40
        p.payload_len = 100
        raw[33] = ACK
        self.table.on_segment = nothing
        began = time.perf_counter()
        with nogil:
            for i in range(n):
                raw[24] = <uint8_t>(seq >> 24)
                raw[25] = <uint8_t>(seq >> 16)
                raw[26] = <uint8_t>(seq >> 8)
                raw[27] = <uint8_t>seq
                p.sport = <uint16_t>(1024 + at)
                stream_feed(&self.table, &p)
                at += 1
                if at == streams:
                    at = 0
                    seq += 100
        return time.perf_counter() - began

"""Connection tracking of TCP, one state per direction (kprobe spec 5; sequence numbers per RFC 1982)."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memset


cdef enum:
    SCALE_MAX = 14               # RFC 7323 2.3


cdef void track_open(TcpState *s, const Segment *g, int fresh) noexcept nogil:
    cdef TcpState old = s[0]
    memset(s, 0, sizeof(TcpState))
    if not fresh:
        # the values of the connection before stay until they have been exported
        s.retransmits = old.retransmits
        s.repeats = old.repeats
        s.reordered = old.reordered
        s.zero_windows = old.zero_windows
        if old.flags & TS_CLOSED:
            s.old_window = old.window + 1 if old.flags & TS_SYN else old.old_window
        if old.latency_ms:
            s.latency_ms = old.latency_ms
            s.server = old.server
            s.flags = TS_STALE
    s.active = g.ts
    s.expected = g.seq
    s.marker = g.seq
    s.window = g.window
    if g.flags & TCP_SYN and g.scale >= 0:
        s.scale = <uint8_t>g.scale if g.scale < SCALE_MAX else SCALE_MAX
        s.flags |= TS_SCALED


cdef inline void handshake(TcpState *s, const TcpState *peer, int64_t ts, int server) noexcept nogil:
    s.handshake = ts - peer.syn_ts
    s.latency_ms = <uint16_t>latency_ms(s.handshake // 2)
    s.server = <uint8_t>server
    s.flags = (s.flags | TS_SHAKEN) & ~<uint8_t>TS_STALE


cdef inline void order(TcpState *s, const Segment *g) noexcept nogil:
    """Is it what was expected? (spec 5.5)"""
    cdef uint32_t next
    cdef int64_t limit
    cdef int counts = g.length > 0 or g.flags & (TCP_SYN | TCP_FIN)
    if counts and g.seq != s.expected and not (
        g.length <= 1 and g.seq == s.expected - 1 and not g.flags & (TCP_SYN | TCP_FIN | TCP_RST)
    ):
        limit = s.handshake if s.flags & TS_SHAKEN else REORDER_LIMIT_NS
        if g.ts - s.active < limit:
            s.reordered += 1
        else:
            s.retransmits += 1
            if g.seq == s.marker:
                if s.run < REPEAT_LIMIT + 1:
                    s.run += 1
                    if s.run == REPEAT_LIMIT:
                        s.repeats += 1
            else:
                s.run = 0
                s.marker = g.seq
    next = g.seq + g.length
    if g.flags & (TCP_SYN | TCP_FIN):
        next += 1
    if <int32_t>(next - s.expected) > 0:
        s.expected = next
        s.active = g.ts


cdef int track_segment(TcpState *s, TcpState *peer, const Segment *g) noexcept nogil:
    cdef uint32_t window
    if s.flags & TS_FIN and peer != NULL and peer.flags & TS_FIN:
        s.flags |= TS_CLOSED
        peer.flags |= TS_CLOSED
        return 1
    if g.flags & TCP_FIN:
        s.flags |= TS_FIN
    if g.flags & TCP_SYN:
        if g.flags & TCP_ACK:
            if peer != NULL and (peer.flags & (TS_SYN | TS_SYN_ACK)) == TS_SYN and not s.flags & TS_SHAKEN:
                handshake(s, peer, g.ts, 1)
            s.flags |= TS_SYN_ACK
        s.flags |= TS_SYN
        s.syn_ts = g.ts
    elif (g.flags & TCP_ACK and (s.flags & (TS_SYN | TS_SYN_ACK | TS_SHAKEN)) == TS_SYN
            and peer != NULL and peer.flags & TS_SYN_ACK):
        handshake(s, peer, g.ts, 0)
    order(s, g)
    if g.flags & TCP_ACK and not g.flags & TCP_SYN:
        window = g.window
        if s.scaling < SCALING_ON and s.flags & TS_SYN:
            if peer != NULL and peer.flags & TS_SYN:
                s.scaling = SCALING_ON if s.flags & peer.flags & TS_SCALED else SCALING_OFF
            else:
                s.scaling += 1       # a capture may show the ACK before the SYN+ACK, but not for ever
                if s.scaling == SCALING_ON:
                    s.scaling = SCALING_OFF
        if s.scaling == SCALING_ON:
            window <<= s.scale
        s.window = window
        if window == 0:
            s.zero_windows += 1
    return 0


cdef int track_exported(TcpState *s) noexcept nogil:
    s.retransmits = 0
    s.repeats = 0
    s.reordered = 0
    s.zero_windows = 0
    s.old_window = 0
    if s.flags & TS_STALE:
        s.latency_ms = 0
        s.flags &= ~<uint8_t>TS_STALE
    return s.flags & TS_CLOSED

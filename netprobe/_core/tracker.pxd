"""TCP health of one direction: handshake times, retransmissions, reordering, windows (kprobe spec 5)."""
from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    TCP_FIN = 0x01
    TCP_SYN = 0x02
    TCP_RST = 0x04
    TCP_ACK = 0x10

cdef enum:
    LATENCY_MIN_MS = 1
    LATENCY_MAX_MS = 20000
    REPEAT_LIMIT = 3             # retransmissions of one number that make a repeat
    REORDER_LIMIT_NS = 3000000   # without a handshake time

cdef enum:
    # TcpState.flags
    TS_SYN = 1                   # this direction's SYN was seen
    TS_SYN_ACK = 2               # ... and it had ACK: a server's
    TS_FIN = 4
    TS_CLOSED = 8                # both FINs acknowledged, or idle: kept until the values have been exported
    TS_SHAKEN = 16               # `handshake` is known
    TS_SCALED = 32               # the SYN carried a window scale
    TS_STALE = 64                # the latency is of an earlier connection with the same key
    TS_OLD_FPEX = 128            # so is the cell's first payload exchange

cdef enum:
    # TcpState.scaling
    SCALING_OPEN = 0             # how many ACKs came while the peer's SYN had not been seen
    SCALING_ON = 3               # both SYNs carried a scale (RFC 7323 2.2)
    SCALING_OFF = 4              # not so, or nobody knows

cdef struct TcpState:
    int64_t active               # ns: creation, or the latest packet that advanced `expected`
    int64_t syn_ts               # ns: this direction's latest SYN or SYN+ACK
    int64_t handshake            # ns from the peer's SYN or SYN+ACK to our answer, undivided; valid with TS_SHAKEN
    uint32_t expected            # next sequence number
    uint32_t marker              # number of the latest retransmission
    uint32_t window              # bytes, scaled
    # since the latest export
    uint32_t retransmits
    uint32_t repeats
    uint32_t reordered
    uint32_t zero_windows
    uint16_t latency_ms          # half the handshake, clamped; 0 unknown
    uint16_t run                 # retransmissions of `marker` in a row
    uint8_t scale
    uint8_t flags
    uint8_t server               # the latency is a server's (SERVER_NW), else a client's
    uint8_t scaling              # SCALING_*
    uint32_t old_window          # plus 1: of a closed connection whose values have not been exported; 0 none

cdef struct Segment:
    # what the tracker reads of a packet
    int64_t ts
    uint32_t seq
    uint32_t length              # payload bytes by the headers, whatever was captured
    uint16_t window              # raw
    uint8_t flags
    int8_t scale                 # of the window-scale option; -1 without one


cdef inline uint32_t latency_ms(int64_t ns) noexcept nogil:
    """Whole milliseconds, cut off, within 1 to 20000."""
    if ns < 1000000:
        return LATENCY_MIN_MS
    if ns > <int64_t>LATENCY_MAX_MS * 1000000:
        return LATENCY_MAX_MS
    return <uint32_t>(ns // 1000000)


cdef inline int track_wants_peer(const TcpState *s, const Segment *g) noexcept nogil:
    """Does the other direction's state matter to this segment? It costs a trip to memory."""
    return g.flags & TCP_SYN or s.flags & TS_FIN or (s.flags & TS_SYN and s.scaling < SCALING_ON)


# first packet of a key; a closed state keeps what has not been exported
cdef void track_open(TcpState *s, const Segment *g, int fresh) noexcept nogil
# `peer` may be NULL: not there, or not wanted. 1: the connection is over, both states have been marked closed
cdef int track_segment(TcpState *s, TcpState *peer, const Segment *g) noexcept nogil
# the values went out: zero what counts since then. 1: the state was closed and may be freed
cdef int track_exported(TcpState *s) noexcept nogil

"""TCP stream reassembly, bounded (agent spec 4.1.5, metrics spec 4.4), and the key of a flow."""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from netprobe._core.packet cimport L3_IPV4, L3_IPV6, PF_TUNNEL, Packet, mix64

cdef enum:
    STREAM_MAX = 1000000             # connections tracked at once when the limit is 0
    STREAM_LINGER_MAX = 65536        # closed connections remembered, or as many as the limit if that is more
    STREAM_HELD_MAX = 50             # out-of-order segments per side
    STREAM_HELD_LIMIT = 16777216     # bytes of them, all streams (block headers included)
    STREAM_APP_LIMIT = 33554432      # bytes in StreamSide.buf, all streams
    STREAM_OPEN = 0
    STREAM_CLOSED = 1                # lingering

cdef struct StreamSide:
    # free for the application above: a growing buffer of its own and a state word
    uint8_t *buf
    uint32_t len
    uint32_t cap
    uint32_t state
    # the reassembler's
    uint32_t next_seq
    uint32_t isn             # valid with `syn`
    uint32_t fin_seq         # valid with `fin`: the number that the FIN itself takes
    uint8_t seen             # next_seq is valid
    uint8_t closed           # everything up to the FIN has been delivered
    uint8_t syn              # 1: sent a SYN, 2: sent a SYN+ACK
    uint8_t fin
    uint8_t direction        # of the latest packet that this side sent
    uint8_t deep             # its PF_DEEP
    uint16_t n_held
    void *held               # out-of-order segments, by sequence number
    int64_t hole_ts          # when the first of them came

cdef struct Stream:
    uint64_t hash            # canonical 5-tuple hash, equal both ways
    uint8_t addr[2][16]      # [side]: side 0 is the sender of the first packet seen
    uint16_t port[2]
    uint8_t l3
    uint8_t state            # STREAM_OPEN, STREAM_CLOSED
    uint8_t server           # free for the application above, like the next
    uint8_t begun
    int64_t first            # ns, stamps of the first and the latest packet
    int64_t last
    int64_t closed_at
    StreamSide side[2]
    uint32_t lru_prev
    uint32_t lru_next
    uint32_t chain           # hash chain

# `pkt` was always sent by `side`: the packet at hand, or a synthetic one (PF_SYNTHETIC, no data) when the
# bytes come out of a closing connection or are let go by the other side's packet.
# data == NULL: `n` bytes were lost before the next segment; the caller must resynchronise or give up
ctypedef void (*segment_fn)(void *ctx, Stream *s, int side, const uint8_t *data, uint32_t n,
                            const Packet *pkt) noexcept nogil
ctypedef void (*close_fn)(void *ctx, Stream *s, int64_t ts) noexcept nogil
# everything up to the FIN of `side` has been delivered; before on_close, and not for connections that end otherwise
ctypedef void (*end_fn)(void *ctx, Stream *s, int side, int64_t ts) noexcept nogil

cdef struct StreamTable:
    Stream *streams
    uint32_t *buckets
    uint32_t lg_buckets
    uint32_t limit           # most streams tracked at once, 0 = as many as STREAM_MAX
    uint32_t n_open
    uint32_t n_used          # open and lingering
    uint32_t cap
    uint32_t free_head
    uint32_t lru_head
    uint32_t lru_tail
    uint32_t linger_head     # closed connections, the latest first
    uint32_t linger_tail
    uint32_t linger_limit
    uint32_t top             # streams[top:] were never used
    uint64_t held_bytes      # out-of-order bytes in memory, all streams
    uint64_t app_bytes       # StreamSide.cap, all streams
    # counters
    uint64_t opened
    uint64_t evicted         # closed for room (least recently used)
    uint64_t idle_closed
    uint64_t lost_segments   # gaps given up
    uint64_t lost_bytes
    uint64_t dropped_held    # gaps given up early because STREAM_HELD_LIMIT was reached
    uint64_t late            # packets of a connection that was closed less than a second ago
    uint64_t unreadable      # TCP header past the captured bytes
    uint64_t no_memory       # packets dropped because a stream could not be allocated
    segment_fn on_segment
    close_fn on_close        # may be NULL
    void *ctx
    # stream_init leaves these at their defaults
    end_fn on_end            # NULL
    int64_t idle_ns          # 30 s: a connection without packets for so long is closed

cdef int stream_init(StreamTable *t, uint32_t limit, segment_fn on_segment, close_fn on_close, void *ctx) noexcept nogil
cdef void stream_free(StreamTable *t) noexcept nogil
cdef void stream_feed(StreamTable *t, const Packet *p) noexcept nogil      # p.l4 == TCP, not a later fragment
cdef void stream_finish(StreamTable *t, int64_t ts) noexcept nogil         # end of input: close everything
# Asks for the memory of a connection ahead of its packet; step 0, 1, 2, each when the one before has come.
cdef void stream_ask(const StreamTable *t, uint64_t hash, int step) noexcept nogil
# The application above reads neither side any more: as if it had never been. Not from a callback.
cdef void stream_drop(StreamTable *t, Stream *s, int64_t ts) noexcept nogil
cdef int side_append(StreamSide *s, const uint8_t *data, uint32_t n, uint32_t limit) noexcept nogil  # grow buf; -1 over limit or no memory
cdef void side_consume(StreamSide *s, uint32_t n) noexcept nogil           # drop the first n bytes of buf; empty: free it
# a packet as `side` would have sent it, without data: PF_SYNTHETIC
cdef void stream_packet(const Stream *s, int side, int64_t ts, Packet *out) noexcept nogil


# --- the key of a flow -----------------------------------------------------------------------------------------

cdef uint64_t flow_seed      # random per process, so that nobody can aim at one hash chain

cdef struct FlowKey:
    uint64_t src[2]          # 16 bytes as they stand in the packet
    uint64_t dst[2]
    uint8_t l3


cdef inline void flow_key(const Packet *p, FlowKey *k) noexcept nogil:
    """The addresses that belong to the packet's ports.

    Packet.src/dst are the outermost ones; ports found inside a tunnel belong to the header just before them.
    """
    cdef const uint8_t *ip
    if p.flags & PF_TUNNEL:
        if p.l4_off >= p.l3_off + 40 and p.l4_off <= p.caplen:
            ip = p.data + p.l4_off - 20
            if ip[0] == 0x45 and ip[9] == p.l4:
                k.l3 = L3_IPV4
                k.src[0] = k.src[1] = k.dst[0] = k.dst[1] = 0
                memcpy(&k.src[0], ip + 12, 4)
                memcpy(&k.dst[0], ip + 16, 4)
                return
            ip -= 20
            if ip[0] >> 4 == 6 and ip[6] == p.l4:
                k.l3 = L3_IPV6
                memcpy(&k.src[0], ip + 8, 16)
                memcpy(&k.dst[0], ip + 24, 16)
                return
    k.l3 = p.l3
    memcpy(&k.src[0], &p.src[0], 16)
    memcpy(&k.dst[0], &p.dst[0], 16)


cdef inline uint64_t flow_end(const uint64_t *addr, uint16_t port) noexcept nogil:
    cdef uint64_t x = addr[0] ^ (<uint64_t>port * <uint64_t>0x9e3779b97f4a7c15)
    if addr[1]:
        x ^= mix64(addr[1] + flow_seed)
    return mix64(x ^ flow_seed)


cdef inline uint64_t flow_key_hash(const FlowKey *k, const Packet *p) noexcept nogil:
    # addition keeps it equal both ways without a branch; an end never leaves its own port
    return mix64(flow_end(&k.src[0], p.sport) + flow_end(&k.dst[0], p.dport) + (<uint64_t>p.l4 << 8) + k.l3)


cdef inline uint64_t flow_hash(const Packet *p) noexcept nogil:
    """Hash of the 5-tuple, equal in both directions."""
    cdef FlowKey k
    flow_key(p, &k)
    return flow_key_hash(&k, p)


cdef inline bint tcp_unroutable(const Packet *p) noexcept nogil:
    """A TCP packet that counts as a reassembly error: an all-zero address (metrics spec 4.4)."""
    cdef FlowKey k
    flow_key(p, &k)
    return (k.src[0] | k.src[1]) == 0 or (k.dst[0] | k.dst[1]) == 0

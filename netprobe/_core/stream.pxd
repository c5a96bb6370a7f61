"""TCP stream reassembly, bounded (agent spec 4.1.5, metrics spec 4.4)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport Packet

cdef struct StreamSide:
    # free for the application above: a growing buffer of its own and a state word
    uint8_t *buf
    uint32_t len
    uint32_t cap
    uint32_t state
    # the reassembler's
    uint32_t next_seq
    uint8_t seen             # next_seq is valid
    uint8_t closed           # FIN
    uint16_t n_held
    void *held               # out-of-order segments, by sequence number

cdef struct Stream:
    uint64_t hash            # canonical 5-tuple hash, equal both ways
    uint8_t addr[2][16]      # [side]: side 0 is the sender of the first packet seen
    uint16_t port[2]
    uint8_t l3
    uint8_t state            # open, closed (lingering)
    int64_t first            # ns, stamps of the first and the latest packet
    int64_t last
    int64_t closed_at
    StreamSide side[2]
    uint32_t lru_prev
    uint32_t lru_next
    uint32_t chain           # hash chain

# data == NULL: `n` bytes were lost before the next segment; the caller must resynchronise or give up
ctypedef void (*segment_fn)(void *ctx, Stream *s, int side, const uint8_t *data, uint32_t n,
                            const Packet *pkt) noexcept nogil
ctypedef void (*close_fn)(void *ctx, Stream *s, int64_t ts) noexcept nogil

cdef struct StreamTable:
    Stream *streams
    uint32_t *buckets
    uint32_t lg_buckets
    uint32_t limit           # most streams tracked at once, 0 = as many as STREAM_MAX
    uint32_t n_open
    uint32_t n_used
    uint32_t cap
    uint32_t free_head
    uint32_t lru_head
    uint32_t lru_tail
    uint64_t held_bytes      # out-of-order bytes in memory, all streams
    # counters
    uint64_t opened
    uint64_t evicted         # closed for room (least recently used)
    uint64_t idle_closed
    uint64_t lost_segments   # gaps given up
    uint64_t lost_bytes
    uint64_t dropped_held    # out-of-order segments dropped for room
    segment_fn on_segment
    close_fn on_close
    void *ctx

cdef int stream_init(StreamTable *t, uint32_t limit, segment_fn on_segment, close_fn on_close, void *ctx) noexcept nogil
cdef void stream_free(StreamTable *t) noexcept nogil
cdef void stream_feed(StreamTable *t, const Packet *p) noexcept nogil      # p.l4 == TCP, not a later fragment
cdef void stream_finish(StreamTable *t, int64_t ts) noexcept nogil         # end of input: close everything
cdef int side_append(StreamSide *s, const uint8_t *data, uint32_t n, uint32_t limit) noexcept nogil  # grow buf; -1 over limit or no memory

"""From batches to buckets: filter, decode, hand to the accumulators, rotate periods, merge shards."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.bpf cimport BpfProgram
from netprobe._core.source cimport BATCH_PACKETS, Batch, PacketSource
from netprobe._core.decode cimport DecodeConfig, DecodeStats
from netprobe._core.fragment cimport FragTable
from netprobe._core.handler cimport BgpMsg, Work
from netprobe._core.packet cimport Packet
from netprobe._core.store cimport MetricSet
from netprobe._core.stream cimport StreamTable
from netprobe._core.wire.dns cimport DnsMsg

cdef enum:
    MAX_SHARDS = 16
    MAX_HANDLERS = 32
    MAX_PERIODS = 10
    MESSAGES = 64              # DNS or BGP messages per flush: few enough to stay in the nearest cache
    SLOTS = 8                  # batches in flight between workers
    PERIOD_SECONDS = 60
    NS = 1000000000
    LINK_TYPES = 64            # filters kept by link type

cdef struct Stage:
    # the arrays behind one Work
    Packet **pkts
    Packet **udp
    DnsMsg **dns
    BgpMsg **bgp

cdef struct Desk:
    # where one batch is worked on; a live input lends one to all its engines in turn
    Packet *decoded            # one worker only; several keep decoded packets in the slots
    Packet *whole              # datagrams put together from fragments, until the batch ends
    Packet *extra              # packets that stand for stream messages, until the next flush
    DnsMsg *msgs
    BgpMsg *bgps
    Stage stages[3]            # work's arrays, then two that chains swap between
    int borrowed               # somebody else frees it

cdef struct Shard:
    void *owner                # Engine
    uint32_t index
    Desk desk
    uint32_t n_whole
    uint32_t n_extra
    Work work                  # being gathered
    StreamTable streams
    FragTable frags
    DecodeStats stats
    void *handlers[MAX_HANDLERS]
    # counters
    uint64_t wire_bytes
    uint64_t dns_short         # datagrams on a DNS port too short for a header
    uint64_t dns_sides_lost    # directions of DNS connections given up
    uint64_t bgp_unreadable

cdef struct Slot:
    Batch batch
    Packet decoded[BATCH_PACKETS]
    uint16_t order[BATCH_PACKETS]        # packets by shard ...
    uint32_t first[MAX_SHARDS + 1]       # ... whose parts begin here
    uint64_t seq
    int state                  # SLOT_*
    uint32_t done              # shards that have consumed it
    int rotate                 # a period ends before this batch
    int64_t rotate_ts

cdef struct Closed:
    int64_t start
    int64_t end
    MetricSet *(*sets)[4]      # by handler; allocated with the engine

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_trylock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, void *)
    int pthread_cond_destroy(pthread_cond_t *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_broadcast(pthread_cond_t *)

cdef struct Jsf32:
    # Bob Jenkins's small fast generator (2007): the sequence decides which packets are deep
    uint32_t a
    uint32_t b
    uint32_t c
    uint32_t d

cdef inline uint32_t rotl(uint32_t x, int k) noexcept nogil:
    return (x << k) | (x >> (32 - k))


cdef inline uint32_t jsf_next(Jsf32 *r) noexcept nogil:
    cdef uint32_t e = r.a - rotl(r.b, 27)
    r.a = r.b ^ rotl(r.c, 17)
    r.b = r.c + r.d
    r.c = r.d + e
    r.d = e + r.a
    return r.d


cdef inline int64_t edge_after(int64_t ts) noexcept nogil:
    """Whole seconds, as upstream has it: the second of ts plus 60 (metrics spec 2.2)."""
    cdef int64_t second = ts // NS
    if ts % NS < 0:
        second -= 1
    return (second + PERIOD_SECONDS) * NS


cdef int desk_init(Desk *d, bint alone) noexcept nogil
cdef void desk_free(Desk *d) noexcept nogil
cdef void work_reset(Work *w, Stage *stage) noexcept nogil

cdef class Engine:
    cdef Shard *shards
    cdef int n_shards
    cdef int n_handlers
    cdef list keep                     # accumulators, by shard
    cdef int n_chains
    cdef int *chain_length
    cdef int *chain_items              # MAX_HANDLERS per chain
    cdef DecodeConfig decode
    cdef int periods
    cdef int deep_rate
    cdef Jsf32 deep_rng
    cdef int needs_dns, needs_udp, needs_bgp, needs_streams, dns_want
    cdef int sparse                    # no handler looks at more than a batch's last packet
    # input
    cdef PacketSource reader
    cdef object compile_filter
    cdef object filter_error
    cdef int has_filter
    cdef int n_programs
    cdef uint16_t program_type[LINK_TYPES]
    cdef void *program[LINK_TYPES]
    cdef list programs
    cdef Batch *pending                # the rest of a batch that a period's edge has cut
    cdef uint32_t pending_at
    cdef Batch *single                 # one worker's
    # time
    cdef int started
    cdef int64_t start_ts
    cdef int64_t edge                  # first stamp of the next period
    cdef int64_t first_ts              # of the first packet
    cdef int64_t last_ts               # the newest
    cdef int64_t bucket_start
    cdef Closed closed[MAX_PERIODS]    # newest last
    cdef int n_closed
    cdef int finished
    # counters
    cdef uint64_t framed, kept, rotations
    # workers
    cdef Slot *slots
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t cond
    cdef int locks
    cdef uint64_t next_frame
    cdef uint64_t start_frame          # where this capture's slots begin
    cdef uint32_t ahead                # batches framed before a worker consumes what is there for it
    cdef int framing, ended, stopping
    cdef int arrived
    cdef uint64_t rotated
    cdef uint64_t epoch                # counts what waiting workers look for
    cdef int sleepers
    cdef int frame(self, Batch *b, int *rotate, int64_t *rotate_ts) noexcept nogil
    cdef int filter_batch(self, Batch *b) noexcept nogil
    cdef int add_program(self, int linktype) noexcept with gil
    cdef void open(self, int64_t ts) noexcept nogil
    cdef Closed *take(self, int64_t ts) noexcept nogil
    cdef void rotate(self, int64_t ts) noexcept nogil
    cdef void close(self) noexcept nogil
    cdef void consume(self, Shard *s, Packet *pkts, const uint16_t *order, uint32_t n) noexcept nogil
    cdef void above(self, Shard *s, Packet *p) noexcept nogil
    cdef void dns_datagram(self, Shard *s, Packet *p) noexcept nogil
    cdef void flush(self, Shard *s) noexcept nogil
    cdef void work(self, Shard *s) noexcept nogil
    cdef int may_wait(self, uint64_t seq) noexcept nogil
    cdef void lock(self) noexcept nogil
    cdef void changed(self) noexcept nogil
    cdef void wait(self) noexcept nogil
    cdef void assign(self, Slot *slot) noexcept nogil
    cdef int meet(self, Slot *slot) noexcept nogil

"""The flow table: one cell per direction, peers linked, fixed capacity (kprobe spec 3.10, 4, 5).

A packet becomes a FlowPacket (flow_view.pxd), a caller may rewrite its addresses, flow_update counts it. Whatever
leaves the table goes through `on_record`, one FlowRecord at a time. Times are packet times in ns throughout.
"""
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport PROTO_TCP, Packet, RawPacket
from netprobe._core.tracker cimport TcpState

cdef enum:
    FLOW_NIL = 0xFFFFFFFF        # no cell
    FLOW_ROOM = 4                # records that one packet can cause, passes aside

cdef enum:
    # FlowRecord.reason: why it left the table
    FLOW_IDLE = 0                # no packet for the idle time-out
    FLOW_ACTIVE = 1              # older than the active time-out
    FLOW_SCHEDULE = 2            # kprobe's timer (spec 4.4); the flow stays
    FLOW_DECODED = 3             # a decoder had a complete message; the flow stays
    FLOW_EVICTED = 4             # thrown out for room
    FLOW_END = 5                 # end of input
    N_REASONS = 6

cdef enum:
    # FlowCell.flags
    FC_LIVE = 1
    FC_FIRST = 2                 # bidirectional: sent the flow's first packet, leads the pair
    FC_PUT_OFF = 2               # schedule: nothing to send, `due` is when the entry may go; until there is a packet
    FC_RESTING = 4               # the cell is a FlowRest, see there
    FC_PAYLOAD = 8               # `payload_ts` is valid
    FC_V6 = 16
    FC_APP = 32                  # `app` is not 0
    FC_DEAF = 64                 # set by a decoder: on_packet only for SYN, FIN and RST
    FC_TRACKED = 128             # TCP: its tracker is in use

cdef enum:
    # FlowPacket.sampled
    SAMPLE_EXPORT = 0
    SAMPLE_DECODE = 1
    SAMPLE_IGNORE = 2

cdef struct FlowPacket:
    # one packet as the table sees it
    uint64_t src[2]              # 16 bytes as they stand in the packet; IPv4: the first four
    uint64_t dst[2]
    uint16_t sport               # ICMP: 0
    uint16_t dport               # ICMP: type * 256 + code
    uint8_t proto
    uint8_t l3                   # 4 or 6
    uint8_t tcp_flags
    uint8_t tos                  # whole byte
    int64_t ts
    uint32_t packets             # 1, or the fragments of a datagram
    uint32_t fragments           # 0 for a datagram that came whole
    uint32_t bytes               # L3 bytes by the headers
    uint32_t payload             # L4 payload bytes by the headers
    uint32_t seq
    uint16_t window              # raw
    int8_t wscale                # window-scale option of a SYN, -1 without
    uint8_t direction            # DIR_*
    uint8_t sampled              # SAMPLE_*, decided before translation
    uint8_t has_mac
    uint8_t cut                  # TCP: of its header the ports alone are there, so it cannot be tracked
    uint16_t vlan                # innermost identifier, 0 without
    uint8_t smac[6]
    uint8_t dmac[6]
    const Packet *pkt            # where the payload is; NULL: plain_packet(flow_view.pxd) of `raw` has it
    const RawPacket *raw         # NULL in tests
    # the table's
    uint32_t tag
    uint32_t cell                # after flow_update: its cell, FLOW_NIL when not counted
    uint32_t ahead               # what to ask memory for next
    uint64_t app_ahead           # the same, for the caller's on_ahead; 0 nothing

cdef struct FlowCell:
    # a cache line: found and counted here
    uint64_t src[2]
    uint64_t dst[2]
    uint16_t sport
    uint16_t dport
    uint8_t proto
    uint8_t flags                # FC_*; 0: free
    uint8_t tcp_flags            # OR, since the latest export
    uint8_t tos                  # OR, since the latest export
    uint32_t packets             # since the latest export
    uint32_t side                # FlowTable.sides; free cells: the next free one
    uint64_t bytes               # since the latest export
    int64_t last                 # ns, latest packet

cdef struct FlowSide:
    # what the packets of a flow that goes on do not need; of TCP, the line before it is the tracker
    int64_t first                # ns, first packet since the latest export
    int64_t payload_ts           # ns, first packet with payload
    uint32_t fpex_ms             # first payload exchange, 0 unknown (spec 5.3)
    uint32_t peer                # cell of the reversed key, FLOW_NIL without
    uint32_t fragments           # since the latest export
    uint32_t app_state           # the decoder's; 0 at creation
    uint8_t smac[6]              # of the entry's first packet, like the four below
    uint8_t dmac[6]
    uint16_t vlan
    uint8_t direction
    uint8_t has_mac
    int32_t deadline             # of its export, seconds since `epoch` (spec 4.4), and the ns of that second
    uint32_t phase
    uint8_t uncounted            # sampled out, but its reverse is exported: decode and track only (spec 3.10)
    uint8_t app                  # application by port, from `classify` (spec 6.0)

cdef struct FlowRest:
    # An entry over IPv4 and not TCP that has nothing to send, but is kept for its state (spec 5.8): all of it in the cell,
    # around the key, which stays where it is. Most entries are such ones: DNS.
    uint32_t src
    uint8_t smac[6]
    uint16_t vlan
    uint32_t peer
    uint32_t dst
    uint8_t dmac[6]
    uint16_t fpex_ms
    int32_t deadline
    uint16_t sport
    uint16_t dport
    uint8_t proto
    uint8_t flags
    uint8_t direction            # with has_mac as its bit 7, uncounted as its bit 6
    uint8_t app
    uint32_t phase
    uint32_t room
    int64_t payload_ts
    int64_t last

cdef struct FlowHealth:
    # what one direction sent; counts are since the latest export
    uint64_t packets
    uint64_t bytes
    uint32_t retransmits         # packets
    uint32_t repeats             # runs of three retransmissions of one number
    uint32_t reordered           # packets out of order
    uint32_t zero_windows        # packets
    int64_t window               # bytes, latest, scaled; -1 when the SYN was not seen
    uint8_t tcp_flags
    uint8_t tos

cdef struct FlowRecord:
    # What leaves the table. side[0] is the "out" of the schema, side[1] the "in": bidirectional, src -> dst
    # and dst -> src; unidirectional, only side[1] for direction "in", only side[0] for out and unknown (4.3)
    int64_t first                # ns
    int64_t last
    uint8_t src[16]              # IPv4: first four, the rest zero
    uint8_t dst[16]
    uint16_t sport
    uint16_t dport
    uint8_t proto
    uint8_t l3
    uint8_t direction
    uint8_t reason               # FLOW_*
    FlowHealth side[2]
    uint32_t fragments
    uint32_t connection_id       # 0 for neither TCP nor UDP
    uint32_t client_ms           # network latencies and first payload exchange, 1 to 20000; 0 unknown
    uint32_t server_ms
    uint32_t fpex_ms
    int64_t appl_ms              # application latency, by decoders; -1 unknown
    uint32_t sample_rate         # 1 when all flows are kept
    uint32_t cell                # valid during on_record, like the next
    uint32_t peer_cell           # of side[1] of a bidirectional flow; FLOW_NIL without
    uint16_t vlan
    uint8_t has_mac
    uint8_t app                  # from `classify`
    uint8_t smac[6]
    uint8_t dmac[6]
    const void *app_fields       # what a decoder gave to flow_export_now; valid during on_record, else NULL

cdef struct FlowConfig:
    uint32_t capacity            # cells: a bidirectional flow takes up to two
    uint8_t bidirectional
    uint8_t schedule             # kprobe's export schedule (4.4) in place of the time-outs
    uint8_t raw_extensions       # IPv6: protocol as in the fixed header, extensions not followed (3.6); not of reassembled ones
    uint8_t track                # connection tracking (5)
    int64_t idle_ns
    int64_t active_ns            # 0: never
    uint64_t seed                # hashes, export phase, sampling, ids
    uint32_t sample              # 1 of N unidirectional flows; 0 and 1: all
    uint8_t use_mac              # direction by `mac` (3.4) instead of Packet.direction
    uint8_t mac[6]

ctypedef void (*record_fn)(void *ctx, const FlowRecord *r) noexcept nogil
# after counting, for packets with payload, SYN, FIN or RST of flows with an application number; may call flow_export_now
ctypedef void (*packet_fn)(void *ctx, FlowTable *t, const FlowPacket *v) noexcept nogil
# before that, for packets that it will be called for: ask for memory; step 0, 1, 2, each when the one before has come
ctypedef void (*ahead_fn)(void *ctx, FlowPacket *v, int step) noexcept nogil
# application number of a new cell; from spec 6.0's tables
ctypedef uint8_t (*classify_fn)(void *ctx, const FlowPacket *v) noexcept nogil
# a cell goes that had an app_state: free what that stands for
ctypedef void (*gone_fn)(void *ctx, uint32_t app_state) noexcept nogil

cdef struct FlowSlot:
    uint32_t tag                 # top bits: home; bit 0: which way round
    uint32_t cell                # number + 1; 0: empty

cdef struct FlowPool:
    # which sides are free
    uint32_t *free
    uint32_t n_free
    uint32_t top                 # the next one that was never used

cdef struct FlowTable:
    FlowConfig config
    FlowSlot *slots
    uint32_t lg_slots
    uint32_t lg_max
    FlowCell *cells
    FlowSide *sides              # those of TCP, each behind its tracker, behind all others
    FlowPool pools[2]            # [1]: of TCP
    int32_t *due                 # per cell, seconds since `epoch`: when a pass has to look at it
    uint32_t limit               # cells that may be live: the capacity, or less without memory for the index
    uint32_t top                 # cells[top:] were never used
    uint32_t active              # live cells
    uint32_t free_head
    uint32_t hand                # where eviction looks next
    uint32_t n_trackers          # in use
    # passes
    int64_t epoch                # ns, a whole second
    int64_t next_pass            # ns
    int64_t next_compaction
    int64_t compacted            # ns: the latest compaction
    int64_t pass_now
    uint32_t pass_at             # where the running pass is; FLOW_NIL: none runs
    uint8_t pass_kind
    uint8_t started
    uint64_t rng
    uint64_t secret[3]           # of the hash
    # the caller's
    uint64_t room                # records that may still go out; flow_update and passes stop short of it
    void *ctx
    FlowRecord *place            # where the next record is made; NULL: it lives only during on_record
    record_fn on_record
    packet_fn on_packet          # may be NULL, like the next three
    ahead_fn on_ahead
    classify_fn classify
    gone_fn on_gone
    # counters
    uint64_t packets             # counted: packets and L3 bytes
    uint64_t bytes
    uint64_t ignored             # packets sampled out, or of flows that are only decoded
    uint64_t ignored_bytes
    uint64_t created             # cells
    uint64_t records             # exported
    uint64_t by_reason[N_REASONS]
    uint64_t evicted             # cells thrown out for room
    uint64_t out_packets         # exported
    uint64_t out_bytes

cdef int flow_init(FlowTable *t, const FlowConfig *c) noexcept nogil       # -1: no memory
cdef void flow_free(FlowTable *t) noexcept nogil
# Counts packets in order, running export passes between them; returns how many. Fewer than n: room ran out.
cdef uint32_t flow_update(FlowTable *t, FlowPacket *v, uint32_t n) noexcept nogil
# Run a pass when one is due (a read time-out: the wall clock), or go on with one. 1: room ran out.
cdef int flow_tick(FlowTable *t, int64_t now) noexcept nogil
# End of input: export everything. 1: room ran out, call again.
cdef int flow_finish(FlowTable *t) noexcept nogil
# From on_packet or before flow_finish: send this cell's counters now with a decoder's fields, if need be with no packets.
# appl_ms: -1 unknown
cdef void flow_export_now(FlowTable *t, uint32_t cell, const void *app_fields, int64_t appl_ms) noexcept nogil
# the cell of a key (addresses, ports, proto, l3), FLOW_NIL without
cdef uint32_t flow_find(const FlowTable *t, FlowPacket *key) noexcept nogil
cdef uint64_t flow_open_packets(const FlowTable *t, uint64_t *bytes) noexcept nogil   # counted, not yet exported


cdef inline uint8_t cell_l3(const FlowCell *c) noexcept nogil:
    return 6 if c.flags & FC_V6 else 4


cdef inline int resting(const FlowCell *c) noexcept nogil:
    return c.flags & FC_RESTING


cdef inline FlowSide *side_of(const FlowTable *t, const FlowCell *c) noexcept nogil:
    """Of a live cell that does not rest: any whose packet is at hand, any of TCP."""
    return &t.sides[c.side]


cdef inline TcpState *tracker_of(const FlowTable *t, const FlowCell *c) noexcept nogil:
    """Of a TCP cell; in use if FC_TRACKED is set."""
    return <TcpState *>&t.sides[c.side - 1]

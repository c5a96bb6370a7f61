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
    SLOTS = 16                 # batches in flight between workers

cdef struct Stage:
    # the arrays behind one Work
    Packet **pkts
    Packet **udp
    DnsMsg **dns
    BgpMsg **bgp

cdef struct Shard:
    void *owner                # Engine
    uint32_t index
    Packet *decoded            # one worker only; several keep decoded packets in the slots
    Packet *whole              # datagrams put together from fragments, until the batch ends
    uint32_t n_whole
    Packet *extra              # packets that stand for stream messages, until the next flush
    uint32_t n_extra
    DnsMsg *msgs
    BgpMsg *bgps
    Work work                  # being gathered
    Stage stages[3]            # work's arrays, then two that chains swap between
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
    uint8_t shard[BATCH_PACKETS]
    uint64_t seq
    int state                  # SLOT_*
    uint32_t done              # shards that have consumed it
    int rotate                 # a period ends before this batch
    int64_t rotate_ts

cdef struct Closed:
    int64_t start
    int64_t end
    MetricSet *sets[MAX_HANDLERS][4]

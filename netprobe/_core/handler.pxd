"""What every native accumulator is: state per shard, fed with batches, rotated at period edges."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport Packet
from netprobe._core.store cimport Layout, MetricSet
from netprobe._core.wire.dns cimport DnsMsg

cdef enum:
    MAX_BLOCKS = 4           # top level, then direction blocks in, out, unknown

cdef struct BgpMsg:
    const Packet *pkt
    int64_t ts
    uint8_t type             # 0: unreadable
    uint16_t length

cdef struct Work:
    # one decoded batch of one shard, and what each kind of handler may look at;
    # the lists are also the currency of chains: a handler hands on what it accepted
    Packet **pkts            # frames, in order: net
    uint32_t n_pkts
    Packet **udp             # unfragmented or reassembled UDP datagrams with an app bit: dhcp
    uint32_t n_udp
    DnsMsg **dns             # DNS messages over UDP and TCP, in order: dns
    uint32_t n_dns
    BgpMsg **bgp             # BGP messages, in order
    uint32_t n_bgp
    uint32_t tcp_errors      # reassembly errors in this batch: pcap
    int64_t error_ts

cdef class Accumulator:
    """State of one handler in one shard. Subclasses set layouts in __cinit__ and the three functions."""
    cdef int n_blocks                       # 1, or 4 with direction blocks
    cdef Layout layout[2]                   # of block 0, of the direction blocks
    cdef MetricSet *sets[MAX_BLOCKS]        # the open bucket
    cdef int needs_dns, needs_udp, needs_bgp, needs_streams   # which lists it reads
    cdef int dns_want                       # DNS_WANT_* bits it needs
    # all nogil; `self` is the Accumulator. Chains: consume writes the lists for the next handler into
    # `out` when out != NULL (arrays have room for everything in `work`)
    cdef void (*consume)(void *self, const Work *work, Work *out) noexcept nogil
    # the bucket just closed (all shards merged) is given, sets[] already are the new ones
    cdef void (*shifted)(void *self, MetricSet **closed, int64_t now) noexcept nogil
    cdef void open_bucket(self, int64_t start_ns) noexcept nogil

"""IPv4 and IPv6 fragment reassembly, bounded (RFC 791, RFC 8200 4.5, overlaps per RFC 5722)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport Packet

cdef struct FragTable:
    void *impl
    uint32_t limit           # datagrams in progress at once
    uint64_t byte_limit      # payload bytes held at once
    uint64_t held_bytes
    # counters
    uint64_t fragments
    uint64_t completed
    uint64_t evicted         # incomplete datagrams thrown out for room
    uint64_t expired         # incomplete after 30 s
    uint64_t overlapped      # datagrams thrown out for overlapping fragments
    uint64_t malformed

cdef int frag_init(FragTable *t, uint32_t limit, uint64_t byte_limit) noexcept nogil
cdef void frag_free(FragTable *t) noexcept nogil
# Takes a packet with PF_FRAG. When it completes a datagram: writes a Packet into out (flags
# PF_REASSEMBLED, data = a buffer that starts at a synthetic unfragmented IP header, l3_off 0; ts, wirelen,
# addresses, direction, deep bit of the completing packet; l4 ports payload decoded; app set) and returns 1.
# The buffer stays valid until the next frag_release.
cdef int frag_feed(FragTable *t, const Packet *p, Packet *out) noexcept nogil
cdef void frag_release(FragTable *t) noexcept nogil    # after a batch: recycle completed buffers

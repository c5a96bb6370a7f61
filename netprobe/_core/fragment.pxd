"""IPv4 and IPv6 fragment reassembly, bounded (RFC 791, RFC 8200 4.5, overlaps per RFC 5722)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport Packet

cdef enum:
    FRAG_PIECES_MAX = 256    # fragments of one datagram
    FRAG_EXT_MAX = 512       # bytes of IPv6 header and extensions before the fragment header

cdef struct FragTable:
    void *impl
    uint32_t limit           # datagrams in progress at once
    uint64_t byte_limit      # payload bytes held at once (block headers included)
    uint64_t held_bytes
    # counters; the first is of packets, the others of datagrams unless they say otherwise
    uint64_t fragments
    uint64_t completed
    uint64_t evicted         # incomplete datagrams thrown out for room
    uint64_t expired         # incomplete after 60 s
    uint64_t overlapped      # datagrams thrown out for overlapping fragments
    uint64_t malformed       # fragments that cannot be, or contradict the ones before
    uint64_t cut             # thrown out because the capture cut a fragment
    uint64_t duplicates      # fragments seen before, byte by byte
    uint64_t late            # fragments of a datagram that had been thrown out
    # of the datagram that frag_feed completed last
    uint32_t done_fragments
    uint32_t done_bytes      # sum of the fragments' IP datagrams, headers included
    uint8_t show_cut         # after frag_init: a first fragment that the capture cut is a datagram that ends there

cdef int frag_init(FragTable *t, uint32_t limit, uint64_t byte_limit) noexcept nogil
cdef void frag_free(FragTable *t) noexcept nogil
# Takes a packet with PF_FRAG. When it completes a datagram: writes a Packet into out and returns 1. data is a
# buffer that starts at an unfragmented IP header (l3_off 0, linktype RAW), flags are PF_REASSEMBLED and the
# completing packet's PF_DEEP, wirelen the sum of the fragments' frames, ts and the rest the completing packet's.
# Nothing above IP is decoded: l4, ports, payload, app are 0.
# The buffer stays valid until the next frag_release.
cdef int frag_feed(FragTable *t, const Packet *p, Packet *out) noexcept nogil
cdef void frag_release(FragTable *t) noexcept nogil    # after a batch: recycle completed buffers

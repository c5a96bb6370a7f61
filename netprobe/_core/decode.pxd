"""Frames to Packet structs: link layer, outermost IP, transport, tunnels (DESIGN, What counts)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport Packet, RawPacket

cdef enum:
    # why a packet could not be read in full; index of DecodeStats.cause
    CAUSE_NONE = 0
    CAUSE_LINK_SHORT = 1       # ends inside its link-layer headers
    CAUSE_IP_SHORT = 2         # ends inside its IP header
    CAUSE_IP_VERSION = 3       # version nibble against the EtherType
    CAUSE_IP_HEADER = 4        # header length under 20, or over the total length
    CAUSE_IPV6_EXTENSION = 5   # ends inside an extension header, or too many
    CAUSE_L4_SHORT = 6         # ends inside the transport header
    CAUSE_UDP_LENGTH = 7       # UDP length under 8
    CAUSE_TCP_OFFSET = 8       # data offset under 20 bytes, or past the segment
    CAUSE_LINK_TYPE = 9        # link type not supported
    N_CAUSES = 10

cdef struct DecodeConfig:
    # host networks, bytes as on the wire
    int n_hosts4
    int n_hosts6
    uint32_t *net4
    uint32_t *mask4
    uint64_t (*net6)[2]
    uint64_t (*mask6)[2]
    int inner                  # count the innermost IP layer instead of the outermost

cdef struct DecodeStats:
    uint64_t cut               # packets whose capture ends inside a header (snap length)
    uint64_t cause[N_CAUSES]   # malformed, by cause

cdef void decode_batch(const DecodeConfig *c, const RawPacket *raw, uint32_t n, Packet *out,
                       DecodeStats *stats) noexcept nogil
# `p` has data, caplen, flags and l3_off set by reassembly: read the datagram's transport layer
cdef void decode_datagram(const DecodeConfig *c, Packet *p) noexcept nogil
cdef int set_hosts(DecodeConfig *c, list hosts) except -1
cdef void free_hosts(DecodeConfig *c) noexcept

"""BGP-4 message header (RFC 4271 4.1; lengths over 4096 per RFC 8654)."""
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    BGP_MARKER = 16
    BGP_HEADER = 19
    BGP_MAX = 4096           # longer ones: extended messages, never OPEN or KEEPALIVE
    BGP_OPEN = 1
    BGP_UPDATE = 2
    BGP_NOTIFICATION = 3
    BGP_KEEPALIVE = 4
    BGP_ROUTE_REFRESH = 5

cdef struct BgpHeader:
    uint32_t length          # of the whole message, header included
    uint8_t type

# 0, or -1 when marker or length cannot be; data has BGP_HEADER bytes
cdef int bgp_header(const uint8_t *data, BgpHeader *out) noexcept nogil
# could this header, found by searching, stand there by chance?
cdef bint bgp_plausible(const BgpHeader *h) noexcept nogil

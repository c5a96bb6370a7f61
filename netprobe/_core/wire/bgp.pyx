"""The header of a BGP message: all-ones marker, length, type."""
from libc.string cimport memcmp

cdef enum:
    LENGTH = 16
    TYPE = 18

cdef const uint8_t *MARKER = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

# shortest message of each type (RFC 4271 4, RFC 2918)
cdef uint8_t[6] SHORTEST = [19, 29, 23, 21, 19, 23]


cdef int bgp_header(const uint8_t *data, BgpHeader *out) noexcept nogil:
    out.length = (<uint32_t>data[LENGTH] << 8) | data[LENGTH + 1]
    out.type = data[TYPE]
    if memcmp(data, MARKER, BGP_MARKER) != 0 or out.length < BGP_HEADER:
        return -1
    if out.length > BGP_MAX and (out.type == BGP_OPEN or out.type == BGP_KEEPALIVE):
        return -1
    return 0


cdef bint bgp_plausible(const BgpHeader *h) noexcept nogil:
    if h.type < BGP_OPEN or h.type > BGP_ROUTE_REFRESH:
        return False
    return h.length >= SHORTEST[h.type] and (h.type != BGP_KEEPALIVE or h.length == BGP_HEADER)

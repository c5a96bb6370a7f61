"""DHCPv4 as kprobe reads it (spec 6.3): BOOTP header and four options, to the end of the datagram."""
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    DHCPK_OK = 0
    DHCPK_SHORT = 1          # ends inside the header or the magic number
    DHCPK_NO_MAGIC = 2
    DHCPK_BAD_OPTION = 3     # an option runs past the end: drop the message
    DHCPK_REQUEST = 1        # op

cdef enum:
    # DhcpFull.has
    DHCPK_HOSTNAME = 1
    DHCPK_DOMAIN = 2
    DHCPK_LEASE = 4

cdef struct DhcpFull:
    uint8_t op
    uint8_t type             # option 53, 0 without one
    uint8_t hlen             # as sent; the address itself is cut to 16 bytes
    uint8_t has              # DHCPK_*; of an option that comes twice the last one counts
    uint8_t hostname_len
    uint8_t domain_len
    uint32_t xid
    uint32_t lease           # seconds
    uint8_t client[4]
    uint8_t your[4]
    uint8_t server[4]
    uint8_t hardware[16]
    const uint8_t *hostname  # point into the message; UTF-8 without NUL
    const uint8_t *domain

cdef int dhcpk_parse(const uint8_t *data, uint32_t n, DhcpFull *out) noexcept nogil

"""DHCPv4 (RFC 2131, 2132, 3396) and DHCPv6 (RFC 8415), as far as the dhcp handler looks."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    DHCP_OK = 0
    DHCP_SHORT = 1           # ends inside the fixed header: nothing was read
    DHCP_BOOTP = 2           # no magic cookie: fixed header only
    DHCP_BAD_OPTIONS = 3     # an option runs past the end; what stood before it was read

cdef enum:
    # option 53
    DHCP4_DISCOVER = 1
    DHCP4_OFFER = 2
    DHCP4_REQUEST = 3
    DHCP4_ACK = 5
    # DHCPv6 message types
    DHCP6_SOLICIT = 1
    DHCP6_ADVERTISE = 2
    DHCP6_REQUEST = 3
    DHCP6_REPLY = 7
    DHCP6_RELAY_FORW = 12
    DHCP6_RELAY_REPL = 13

cdef struct Dhcp4:
    uint8_t op
    uint8_t htype            # 1: Ethernet
    uint8_t hlen
    uint8_t type             # option 53, 0 without one
    uint32_t xid             # as it stands in the packet
    uint8_t yiaddr[4]        # "your address"
    uint8_t chaddr[16]
    uint8_t has_server_id
    uint8_t server_id[4]     # option 54
    uint8_t has_hostname
    uint8_t hostname_len     # option 12, cut at 255 bytes
    uint8_t hostname[255]

cdef struct Dhcp6:
    uint8_t type
    uint8_t is_relay
    uint8_t hops             # relay messages only
    uint8_t has_server_id    # option 2
    uint8_t xid[3]

cdef int dhcp4_parse(const uint8_t *data, uint32_t n, Dhcp4 *out) noexcept nogil
cdef int dhcp6_parse(const uint8_t *data, uint32_t n, Dhcp6 *out) noexcept nogil

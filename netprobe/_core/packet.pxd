"""The two structs that everything passes on: a framed packet and a decoded one."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    L3_NONE = 0
    L3_IPV4 = 4
    L3_IPV6 = 6

cdef enum:
    PROTO_ICMP = 1
    PROTO_IPIP = 4
    PROTO_TCP = 6
    PROTO_UDP = 17
    PROTO_IPV6 = 41
    PROTO_GRE = 47
    PROTO_ICMPV6 = 58
    PROTO_SCTP = 132
    # `proto` of a packet without a (readable) IP header
    PROTO_NONE = 255

cdef enum:
    # to host, from host, neither (metrics spec 4.2); also the index of a direction block
    DIR_IN = 0
    DIR_OUT = 1
    DIR_UNKNOWN = 2

cdef enum:
    # Packet.app: who above L4 wants this packet, by port
    APP_DNS = 1
    APP_DHCP = 2
    APP_DHCP6 = 4
    APP_BGP = 8

cdef enum:
    # Packet.flags
    PF_DEEP = 1          # chosen for deep sampling
    PF_ETHER = 2         # data[0:14] is an Ethernet header
    PF_FRAG = 4          # any fragment of the outermost IP datagram, the first included
    PF_FRAG_LATER = 8    # not the first fragment: no L4 header
    PF_CUT = 16          # the capture (snap length) ends inside what a header promised
    PF_MALFORMED = 32    # a header contradicts itself; `cause` says which
    PF_REASSEMBLED = 64  # data is a datagram put together from fragments
    PF_SYNTHETIC = 128   # stands for one message out of a TCP stream
    PF_TUNNEL = 256      # l4/ports/payload come from an inner header (IP-in-IP, GRE)

cdef enum:
    # RawPacket.flags
    RF_DEEP = 1

cdef struct RawPacket:
    # one framed record; data points into a block that the batch keeps alive
    const uint8_t *data
    int64_t ts             # ns since the epoch
    uint32_t caplen        # readable bytes at data
    uint32_t wirelen       # original length
    uint16_t linktype
    uint16_t flags
    uint32_t interface

cdef struct Packet:
    # Addresses, l3, proto, tcp_flags, frag bits: the OUTERMOST IP header.
    # l4, sport, dport, l4_off, payload_*: what the handlers above L4 read. That is the outermost
    # datagram, or the one inside IP-in-IP/GRE; l4 == 0 for fragments, tunnels over UDP stop at UDP.
    const uint8_t *data
    int64_t ts             # ns
    uint32_t caplen
    uint32_t wirelen
    uint8_t src[16]        # IPv4: first 4 bytes, the rest zero
    uint8_t dst[16]
    uint64_t pair_hash     # symmetric in src/dst, no ports: the shard key
    uint32_t l3_off
    uint32_t l4_off
    uint32_t payload_off
    uint32_t payload_len   # captured L4 payload, never past the IP datagram
    uint16_t sport
    uint16_t dport
    uint16_t flags         # PF_*
    uint16_t linktype
    uint8_t l3             # 0, 4, 6
    uint8_t proto          # protocol number after IPv6 extension headers
    uint8_t l4             # PROTO_TCP, PROTO_UDP, PROTO_SCTP or 0
    uint8_t tcp_flags      # of the outermost TCP header, else 0
    uint8_t direction      # DIR_*
    uint8_t app            # APP_*
    uint8_t cause          # malformed cause (decode.pxd)
    uint8_t vlan_count
    uint16_t vlan_id       # outermost tag
    uint16_t ip_id
    uint32_t interface


cdef inline int addr_len(const Packet *p) noexcept nogil:
    return 4 if p.l3 == L3_IPV4 else 16


cdef inline uint64_t mix64(uint64_t x) noexcept nogil:
    # MurmurHash3's 64-bit finaliser: every input bit reaches every output bit
    x ^= x >> 33
    x *= <uint64_t>0xff51afd7ed558ccd
    x ^= x >> 33
    x *= <uint64_t>0xc4ceb9fe1a85ec53
    x ^= x >> 33
    return x

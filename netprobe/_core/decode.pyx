"""Frames to Packet structs."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netprobe._core.packet cimport (
    APP_BGP, APP_DHCP, APP_DHCP6, APP_DNS, DIR_IN, DIR_OUT, DIR_UNKNOWN, L3_IPV4, L3_IPV6, L3_NONE,
    PF_CUT, PF_DEEP, PF_ETHER, PF_FRAG, PF_FRAG_LATER, PF_MALFORMED, PF_TUNNEL, PROTO_GRE, PROTO_IPIP,
    PROTO_IPV6, PROTO_NONE, PROTO_SCTP, PROTO_TCP, PROTO_UDP, RF_DEEP, Packet, RawPacket, mix64,
)
from netprobe._core.wire.be cimport be16, be32, likely, load32, load64
from netprobe._core.wire.ethernet cimport ET_IPV4, ET_IPV6, ET_NONE, ET_TEB, Frame, tags
from netprobe._core.wire.link cimport LT_ETHERNET, link_known, link_start

cdef enum:
    IPV4_MIN = 20
    IPV6_HEADER = 40
    UDP_HEADER = 8
    TCP_MIN = 20
    SCTP_HEADER = 12
    GRE_MIN = 4
    MAX_EXTENSIONS = 64        # RFC 8200 sets no limit; nobody sends this many
    MAX_TUNNELS = 8

cdef enum:
    EXT_HOP_BY_HOP = 0
    EXT_ROUTING = 43
    EXT_FRAGMENT = 44
    EXT_AUTH = 51
    EXT_DESTINATION = 60
    EXT_SHIM6 = 140

cdef enum:
    PORT_VXLAN = 4789
    PORT_GENEVE = 6081
    PORT_GTPU = 2152

CAUSES = (
    "", "link_short", "ip_short", "ip_version", "ip_header", "ipv6_extension", "l4_short",
    "udp_length", "tcp_offset", "link_type",
)


cdef struct Span:
    # what an IP header yields: where its payload lies and what it is
    uint32_t off
    uint32_t end               # of the datagram, never past the capture
    uint8_t proto
    uint8_t ok                 # 0: nothing behind the header can be read
    uint8_t frag               # PF_FRAG bits
    uint8_t cause
    uint8_t addresses          # source and destination were readable
    uint16_t ip_id
    uint32_t src_at
    uint32_t dst_at


cdef inline void read_ipv4(const uint8_t *data, uint32_t n, uint32_t off, Span *s) noexcept nogil:
    """RFC 791 section 3.1."""
    cdef const uint8_t *p = data + off
    cdef uint32_t ihl, total
    cdef uint16_t frag
    s.ok = 0
    s.frag = 0
    s.addresses = 0
    s.proto = PROTO_NONE
    if off + IPV4_MIN > n:
        s.cause = CAUSE_IP_SHORT
        return
    if p[0] >> 4 != 4:
        s.cause = CAUSE_IP_VERSION
        return
    ihl = <uint32_t>(p[0] & 15) * 4
    total = be16(p + 2)
    if total == 0:
        total = 65535          # segmentation offload leaves it to the card: up to the end
    if ihl < IPV4_MIN or total < ihl:
        s.cause = CAUSE_IP_HEADER
        return
    s.cause = CAUSE_NONE
    s.addresses = 1
    s.src_at = off + 12
    s.dst_at = off + 16
    s.proto = p[9]
    s.ip_id = be16(p + 4)
    s.end = off + total if off + total < n else n
    s.off = off + ihl
    frag = be16(p + 6)
    if frag & 0x3FFF:
        s.frag = PF_FRAG
        if frag & 0x1FFF:
            s.frag = PF_FRAG | PF_FRAG_LATER
    if s.off > n:
        s.cause = CAUSE_IP_SHORT
        return
    s.ok = 1


cdef inline void read_ipv6(const uint8_t *data, uint32_t n, uint32_t off, Span *s) noexcept nogil:
    """RFC 8200 section 3 and 4: walks the extension headers to the transport."""
    cdef const uint8_t *p = data + off
    cdef uint32_t at, length
    cdef uint8_t proto
    cdef int i
    s.ok = 0
    s.frag = 0
    s.addresses = 0
    s.proto = PROTO_NONE
    if off + IPV6_HEADER > n:
        s.cause = CAUSE_IP_VERSION if off < n and p[0] >> 4 != 6 else CAUSE_IP_SHORT
        return
    if p[0] >> 4 != 6:
        s.cause = CAUSE_IP_VERSION
        return
    s.cause = CAUSE_NONE
    s.addresses = 1
    s.src_at = off + 8
    s.dst_at = off + 24
    length = be16(p + 4)
    s.end = n
    # 0: a jumbogram (RFC 2675) or segmentation offload, both reach to the end
    if length and off + IPV6_HEADER + length < n:
        s.end = off + IPV6_HEADER + length
    proto = p[6]
    at = off + IPV6_HEADER
    s.ip_id = 0
    for i in range(MAX_EXTENSIONS):
        if likely(proto == PROTO_TCP or proto == PROTO_UDP):
            break
        if proto == EXT_FRAGMENT:
            if at + 8 > s.end:
                s.proto = proto
                s.cause = CAUSE_IPV6_EXTENSION
                return
            proto = data[at]
            length = be16(data + at + 2)
            # offset 0 and no more to come is an atomic fragment (RFC 6946): whole, not a fragment
            if length & 0xFFF9:
                s.frag = PF_FRAG
                if length & 0xFFF8:
                    s.frag = PF_FRAG | PF_FRAG_LATER
            at += 8
            if s.frag & PF_FRAG_LATER:
                break          # what follows is not a header
        elif (proto == EXT_HOP_BY_HOP or proto == EXT_ROUTING or proto == EXT_DESTINATION
                or proto == EXT_AUTH or proto == EXT_SHIM6):
            if at + 8 > s.end:
                # what comes next stands in the first byte; with the second one it is a header at least
                s.proto = data[at] if at + 2 <= s.end else proto
                s.cause = CAUSE_IPV6_EXTENSION
                return
            if proto == EXT_AUTH:
                length = (<uint32_t>data[at + 1] + 2) * 4
            else:
                length = (<uint32_t>data[at + 1] + 1) * 8
            proto = data[at]
            at += length
            if at > s.end:
                s.proto = proto
                s.cause = CAUSE_IPV6_EXTENSION
                return
        else:
            break
    else:
        s.cause = CAUSE_IPV6_EXTENSION
        return
    s.proto = proto
    s.off = at
    s.ok = 1


cdef inline int gre(const uint8_t *data, uint32_t end, uint32_t *off, uint16_t *next) noexcept nogil:
    """RFC 2784, 2890 and version 1 (RFC 2637, PPP): moves off behind the header."""
    cdef uint32_t at = off[0]
    cdef uint16_t flags
    if at + GRE_MIN > end:
        return 0
    flags = be16(data + at)
    next[0] = be16(data + at + 2)
    if flags & 7 == 0:
        if flags & 0x4000:
            return 0           # source routing (RFC 1701): gone since 1994
        at += 4
        if flags & 0x8000:
            at += 4
        if flags & 0x2000:
            at += 4
        if flags & 0x1000:
            at += 4
    else:
        return 0
    if at > end:
        return 0
    off[0] = at
    return 1


cdef inline uint8_t ports_app_udp(uint16_t a, uint16_t b) noexcept nogil:
    if a == 53 or b == 53 or a == 5353 or b == 5353 or a == 5355 or b == 5355 or a == 53000 or b == 53000:
        return APP_DNS
    if a == 67 or a == 68 or b == 67 or b == 68:
        return APP_DHCP
    if a == 546 or a == 547 or b == 546 or b == 547:
        return APP_DHCP6
    return 0


cdef inline uint8_t ports_app_tcp(uint16_t a, uint16_t b) noexcept nogil:
    if a == 53 or b == 53 or a == 5353 or b == 5353 or a == 5355 or b == 5355 or a == 53000 or b == 53000:
        return APP_DNS
    if a == 179 or b == 179:
        return APP_BGP
    return 0


cdef inline uint8_t transport(Packet *p, const Span *s) noexcept nogil:
    """Ports and payload of the datagram in s; returns a CAUSE_."""
    cdef const uint8_t *d = p.data + s.off
    cdef uint32_t have = s.end - s.off if s.end > s.off else 0
    cdef uint32_t n
    if s.proto == PROTO_UDP:
        if have < UDP_HEADER:
            return CAUSE_L4_SHORT
        p.l4 = PROTO_UDP
        p.l4_off = s.off
        p.sport = be16(d)
        p.dport = be16(d + 2)
        p.payload_off = s.off + UDP_HEADER
        n = be16(d + 4)
        if n < UDP_HEADER:
            p.payload_len = have - UDP_HEADER
            if n:              # 0 is a jumbogram or offload
                p.payload_len = 0
                return CAUSE_UDP_LENGTH
        else:
            p.payload_len = (n if n < have else have) - UDP_HEADER
        p.app = ports_app_udp(p.sport, p.dport)
        return CAUSE_NONE
    if s.proto == PROTO_TCP:
        if have < TCP_MIN:
            if have >= 4:
                p.sport = be16(d)
                p.dport = be16(d + 2)
            if have >= 16 and d[12] >= 0x50 and not p.flags & PF_TUNNEL:
                p.tcp_flags = d[13]
            return CAUSE_L4_SHORT
        p.l4 = PROTO_TCP
        p.l4_off = s.off
        p.sport = be16(d)
        p.dport = be16(d + 2)
        n = <uint32_t>(d[12] >> 4) * 4
        if n >= TCP_MIN and not p.flags & PF_TUNNEL:
            p.tcp_flags = d[13]
        if n < TCP_MIN or n > have:
            p.payload_off = s.end
            p.payload_len = 0
            p.l4 = 0           # nothing above can use it
            return CAUSE_TCP_OFFSET if n < TCP_MIN or s.end < p.caplen else CAUSE_L4_SHORT
        p.payload_off = s.off + n
        p.payload_len = have - n
        p.app = ports_app_tcp(p.sport, p.dport)
        return CAUSE_NONE
    if s.proto == PROTO_SCTP:
        if have < SCTP_HEADER:
            return CAUSE_L4_SHORT
        p.l4 = PROTO_SCTP
        p.l4_off = s.off
        p.sport = be16(d)
        p.dport = be16(d + 2)
        p.payload_off = s.off + SCTP_HEADER
        p.payload_len = have - SCTP_HEADER
    return CAUSE_NONE


cdef inline bint hosted4(const DecodeConfig *c, uint32_t a) noexcept nogil:
    cdef int i
    cdef int found = 0
    # no early exit: lists are short, and where in them an address is found cannot be predicted
    for i in range(c.n_hosts4):
        found |= (a & c.mask4[i]) == c.net4[i]
    return found & (a != 0)    # 0.0.0.0 is nobody's


cdef inline bint hosted6(const DecodeConfig *c, const uint8_t *a) noexcept nogil:
    cdef int i
    cdef uint64_t high = load64(a)
    cdef uint64_t low = load64(a + 8)
    for i in range(c.n_hosts6):
        if (high & c.mask6[i][0]) == c.net6[i][0] and (low & c.mask6[i][1]) == c.net6[i][1]:
            return True
    return False


cdef inline uint8_t direction_of(const DecodeConfig *c, const Packet *p) noexcept nogil:
    """Metrics spec 4.2: destination first."""
    if p.l3 == L3_IPV4:
        if hosted4(c, load32(p.dst)):
            return DIR_IN
        return DIR_OUT if hosted4(c, load32(p.src)) else DIR_UNKNOWN
    if p.l3 == L3_IPV6:
        if hosted6(c, p.dst):
            return DIR_IN
        return DIR_OUT if hosted6(c, p.src) else DIR_UNKNOWN
    return DIR_UNKNOWN


cdef inline uint64_t pair_hash(const Packet *p) noexcept nogil:
    cdef uint64_t a, b
    if p.l3 == L3_IPV4:
        a = load32(p.src)
        b = load32(p.dst)
    else:
        a = load64(p.src) * <uint64_t>0x9E3779B97F4A7C15ULL + load64(p.src + 8)
        b = load64(p.dst) * <uint64_t>0x9E3779B97F4A7C15ULL + load64(p.dst + 8)
    # a + b and a ^ b together name the unordered pair
    return mix64((a + b) + (a ^ b) * <uint64_t>0xC2B2AE3D27D4EB4FULL)


cdef void set_addresses(Packet *p, const Span *s, int version) noexcept nogil:
    if version == 4:
        memcpy(p.src, p.data + s.src_at, 4)
        memset(p.src + 4, 0, 12)
        memcpy(p.dst, p.data + s.dst_at, 4)
        memset(p.dst + 4, 0, 12)
    else:
        memcpy(p.src, p.data + s.src_at, 16)
        memcpy(p.dst, p.data + s.dst_at, 16)


cdef int enter(const DecodeConfig *c, Packet *p, Span *s) noexcept nogil:
    """From the datagram in s into the one it carries. 0: it carries none that is to be read.

    IP-in-IP and GRE are always entered for the handlers above L4; tunnels over UDP only for `inner`.
    """
    cdef uint32_t off = s.off
    cdef uint16_t next = ET_NONE
    cdef const uint8_t *d = p.data
    cdef uint32_t n, at
    cdef Frame f
    if not s.ok or s.frag:
        return 0
    if s.proto == PROTO_IPIP:
        next = ET_IPV4
    elif s.proto == PROTO_IPV6:
        next = ET_IPV6
    elif s.proto == PROTO_GRE:
        if not gre(d, s.end, &off, &next):
            return 0
    elif c.inner and p.l4 == PROTO_UDP:
        off = p.payload_off
        n = p.payload_len
        if p.dport == PORT_VXLAN or p.dport == 8472:
            if n < 8:
                return 0
            off += 8           # RFC 7348
            next = ET_TEB
        elif p.dport == PORT_GENEVE:
            if n < 8:
                return 0
            next = be16(d + off + 2)
            off += 8 + <uint32_t>(d[off] & 0x3F) * 4   # RFC 8926
        elif p.dport == PORT_GTPU or p.sport == PORT_GTPU:
            # 3GPP TS 29.281 section 5: only G-PDU (255) carries a user's packet
            if n < 8 or d[off + 1] != 255:
                return 0
            at = off + 8
            if d[off] & 7:
                if n < 12:
                    return 0
                at = off + 12
                if d[off] & 4:
                    n = d[off + 11]
                    while n:   # extension headers: length in 4 bytes first, next type last
                        if at >= s.end or d[at] == 0 or at + <uint32_t>d[at] * 4 > s.end:
                            return 0
                        at += <uint32_t>d[at] * 4
                        n = d[at - 1]
            off = at
            if off >= s.end:
                return 0
            next = ET_IPV6 if d[off] >> 4 == 6 else ET_IPV4
        else:
            return 0
    else:
        return 0
    if off >= s.end:
        return 0
    f.data = d
    f.n = s.end
    f.off = off
    f.next = next
    f.short_ = 0
    f.vlan_count = 1           # inner tags are not the frame's
    tags(&f)
    if f.next == ET_IPV4:
        read_ipv4(d, f.n, f.off, s)
    elif f.next == ET_IPV6:
        read_ipv6(d, f.n, f.off, s)
    else:
        return 0
    if s.end > f.n:
        s.end = f.n
    p.l3_off = f.off if c.inner else p.l3_off
    return 4 if f.next == ET_IPV4 else 6


cdef uint8_t through_tunnels(const DecodeConfig *c, Packet *p, Span *s) noexcept nogil:
    """Follow tunnels from the outermost datagram; what is found inside replaces l4, ports, payload."""
    cdef int i, version
    cdef uint8_t cause = CAUSE_NONE
    for i in range(MAX_TUNNELS):
        version = enter(c, p, s)
        if version == 0:
            break
        p.l4 = 0
        p.app = 0
        p.sport = 0
        p.dport = 0
        p.payload_len = 0
        if c.inner:
            p.l3 = <uint8_t>version
            p.proto = s.proto
            p.tcp_flags = 0
            p.flags = (p.flags & ~(PF_FRAG | PF_FRAG_LATER)) | s.frag
            p.ip_id = s.ip_id
            if s.addresses:
                set_addresses(p, s, version)
            else:
                memset(p.src, 0, 32)
        else:
            p.flags |= PF_TUNNEL
        if not s.ok:
            cause = s.cause
            break
        if s.frag & PF_FRAG == 0:
            cause = transport(p, s)
    return cause


cdef inline void blame(Packet *p, uint8_t cause, uint32_t end, DecodeStats *stats) noexcept nogil:
    # the snap length explains a header that ends early where the capture does, otherwise the packet is wrong
    if p.caplen < p.wirelen and end >= p.caplen and (cause == CAUSE_LINK_SHORT or cause == CAUSE_IP_SHORT
                                                     or cause == CAUSE_IPV6_EXTENSION or cause == CAUSE_L4_SHORT):
        p.flags |= PF_CUT
        stats.cut += 1
    else:
        p.flags |= PF_MALFORMED
        stats.cause[cause] += 1
    p.cause = cause


cdef inline void decode_one(const DecodeConfig *c, const RawPacket *raw, Packet *p,
                            DecodeStats *stats) noexcept nogil:
    cdef Frame f
    cdef Span s
    cdef uint8_t cause
    p.data = raw.data
    p.ts = raw.ts
    p.caplen = raw.caplen
    p.wirelen = raw.wirelen
    p.linktype = raw.linktype
    p.interface = raw.interface
    p.flags = PF_DEEP if raw.flags & RF_DEEP else 0
    p.l3 = L3_NONE
    p.proto = PROTO_NONE
    p.l4 = 0
    p.tcp_flags = 0
    p.direction = DIR_UNKNOWN
    p.app = 0
    p.cause = CAUSE_NONE
    p.sport = 0
    p.dport = 0
    p.l3_off = 0
    p.l4_off = 0
    p.payload_off = 0
    p.payload_len = 0
    p.ip_id = 0
    f.data = raw.data
    f.n = raw.caplen
    f.off = 0
    if raw.linktype == LT_ETHERNET:
        p.flags |= PF_ETHER if raw.caplen >= 14 else 0
    if not link_start(raw.linktype, &f):
        p.vlan_count = 0
        p.vlan_id = 0
        p.pair_hash = 0
        blame(p, CAUSE_LINK_TYPE, p.caplen, stats)
        memset(p.src, 0, 32)
        return
    if f.next != ET_IPV4 and f.next != ET_IPV6:
        tags(&f)
    p.vlan_count = f.vlan_count
    p.vlan_id = f.vlan_id
    if f.next == ET_IPV4:
        p.l3 = L3_IPV4
        p.l3_off = f.off
        read_ipv4(f.data, f.n, f.off, &s)
    elif f.next == ET_IPV6:
        p.l3 = L3_IPV6
        p.l3_off = f.off
        read_ipv6(f.data, f.n, f.off, &s)
    else:
        memset(p.src, 0, 32)
        p.pair_hash = 0
        if f.short_:
            blame(p, CAUSE_LINK_SHORT, p.caplen, stats)
        return
    p.proto = s.proto
    if not likely(s.addresses):
        if s.cause == CAUSE_IP_VERSION and p.l3 == L3_IPV6:
            p.l3 = L3_NONE         # not IPv6 at all; a bogus version of IPv4 still counts as IPv4
        memset(p.src, 0, 32)
        p.pair_hash = 0
        blame(p, s.cause, p.caplen, stats)
        return
    set_addresses(p, &s, p.l3)
    p.ip_id = s.ip_id
    p.flags |= s.frag
    if not likely(s.ok):
        p.pair_hash = pair_hash(p)
        blame(p, s.cause, s.end, stats)
    else:
        if likely(s.frag == 0):
            cause = transport(p, &s)
            if cause == CAUSE_NONE and (s.proto == PROTO_IPIP or s.proto == PROTO_IPV6 or s.proto == PROTO_GRE
                                        or c.inner):
                cause = through_tunnels(c, p, &s)
            if not likely(cause == CAUSE_NONE):
                blame(p, cause, s.end, stats)
        elif s.frag & PF_FRAG_LATER == 0:
            # the first fragment shows ports and flags, but no handler above L4 gets half a datagram
            cause = transport(p, &s)
            p.l4 = 0
            p.app = 0
            if cause != CAUSE_NONE:
                blame(p, cause, s.end, stats)
        p.pair_hash = pair_hash(p)
    if c.n_hosts4 | c.n_hosts6:
        p.direction = direction_of(c, p)


cdef void decode_batch(const DecodeConfig *c, const RawPacket *raw, uint32_t n, Packet *out,
                       DecodeStats *stats) noexcept nogil:
    cdef uint32_t i
    for i in range(n):
        decode_one(c, &raw[i], &out[i], stats)


cdef void decode_datagram(const DecodeConfig *c, Packet *p) noexcept nogil:
    cdef Span s
    p.l4 = 0
    p.app = 0
    p.sport = 0
    p.dport = 0
    p.tcp_flags = 0
    p.payload_len = 0
    p.cause = CAUSE_NONE
    if p.l3 == L3_IPV4:
        read_ipv4(p.data, p.caplen, p.l3_off, &s)
    elif p.l3 == L3_IPV6:
        read_ipv6(p.data, p.caplen, p.l3_off, &s)
    else:
        return
    p.proto = s.proto
    if s.ok and s.frag == 0:
        if transport(p, &s) == CAUSE_NONE:
            through_tunnels(c, p, &s)


cdef int set_hosts(DecodeConfig *c, list hosts) except -1:
    """Fill in the host networks: [(family, address bytes, prefix length)]."""
    cdef uint8_t net[16]
    cdef uint8_t mask[16]
    cdef int i, bits
    free_hosts(c)
    c.net4 = <uint32_t *>calloc(len(hosts) + 1, 4)
    c.mask4 = <uint32_t *>calloc(len(hosts) + 1, 4)
    c.net6 = <uint64_t (*)[2]>calloc(len(hosts) + 1, 16)
    c.mask6 = <uint64_t (*)[2]>calloc(len(hosts) + 1, 16)
    if c.net4 == NULL or c.mask4 == NULL or c.net6 == NULL or c.mask6 == NULL:
        raise MemoryError
    for family, address, prefix in hosts:
        memset(net, 0, 16)
        memset(mask, 0, 16)
        for i in range(4 if family == 4 else 16):
            bits = min(8, max(0, prefix - 8 * i))
            mask[i] = <uint8_t>(0xFF00 >> bits)
            net[i] = (<uint8_t>address[i]) & mask[i]
        if family == 4:
            memcpy(&c.net4[c.n_hosts4], net, 4)
            memcpy(&c.mask4[c.n_hosts4], mask, 4)
            c.n_hosts4 += 1
        else:
            memcpy(c.net6[c.n_hosts6], net, 16)
            memcpy(c.mask6[c.n_hosts6], mask, 16)
            c.n_hosts6 += 1
    return 0


cdef void free_hosts(DecodeConfig *c) noexcept:
    free(c.net4)
    free(c.mask4)
    free(c.net6)
    free(c.mask6)
    c.net4 = c.mask4 = NULL
    c.net6 = c.mask6 = NULL
    c.n_hosts4 = c.n_hosts6 = 0


def known_link_type(int linktype):
    """Can the core read this LINKTYPE_ value?"""
    return 0 <= linktype <= 0xFFFF and link_known(<uint16_t>linktype) != 0

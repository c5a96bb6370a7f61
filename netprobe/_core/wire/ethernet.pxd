"""Ethernet II, 802.3/LLC/SNAP, VLAN tags (802.1Q, 802.1ad), MPLS (RFC 3032), PPPoE (RFC 2516), PPP (RFC 1661).

Each step takes a Frame whose `off` stands at its header and leaves it at the next one, with `next` naming
what follows as an EtherType. A header that does not fit sets `short_` and next = ET_NONE.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from netprobe._core.wire.be cimport be16, be32

cdef enum:
    ETHERNET_HEADER = 14
    VLAN_TAG = 4
    MPLS_LABEL = 4
    PPPOE_HEADER = 6
    MAX_TAGS = 32            # of all kinds, a bound against hostile stacks

cdef enum:
    ET_NONE = 0              # nothing that can be read on
    ET_IPV4 = 0x0800
    ET_ARP = 0x0806
    ET_CMD = 0x8909          # Cisco metadata
    ET_VLAN = 0x8100
    ET_IPV6 = 0x86DD
    ET_MPLS = 0x8847
    ET_MPLS_MCAST = 0x8848
    ET_PPPOE = 0x8864
    ET_QINQ = 0x88A8
    ET_PBB = 0x88E7          # 802.1ah I-tag
    ET_FABRICPATH = 0x8903
    ET_NSH = 0x894F          # RFC 8300
    ET_TRILL = 0x22F3        # RFC 6325
    ET_MACSEC = 0x88E5       # 802.1AE
    ET_VNTAG = 0x8926
    ET_HSR = 0x892F
    ET_ETAG = 0x893F         # 802.1BR
    ET_ARISTA = 0xD28B       # timestamps put in by a switch
    ET_QINQ_OLD1 = 0x9100
    ET_QINQ_OLD2 = 0x9200
    ET_QINQ_OLD3 = 0x9300
    ET_TEB = 0x6558          # Ethernet inside something (GRE, GENEVE)
    ET_LENGTH_MAX = 1500     # at or below: an 802.3 length

cdef enum:
    PPP_IPV4 = 0x0021
    PPP_IPV6 = 0x0057
    PPP_MPLS = 0x0281
    PPP_MPLS_MCAST = 0x0283
    PPP_MULTILINK = 0x003D   # RFC 1990

cdef struct Frame:
    const uint8_t *data
    uint32_t n               # readable bytes
    uint32_t off
    uint16_t next            # EtherType of what stands at off
    uint16_t vlan_id         # outermost
    uint8_t vlan_count
    uint8_t short_           # a header was cut


cdef inline void cut(Frame *f) noexcept nogil:
    f.short_ = 1
    f.next = ET_NONE


cdef inline void by_version(Frame *f) noexcept nogil:
    """Raw IP: the first nibble tells."""
    cdef uint8_t v
    f.next = ET_NONE
    if f.off >= f.n:
        cut(f)
        return
    v = f.data[f.off] >> 4
    if v == 4:
        f.next = ET_IPV4
    elif v == 6:
        f.next = ET_IPV6


cdef inline void ppp_protocol(Frame *f) noexcept nogil:
    """The PPP protocol field, one byte when compressed (RFC 1661 section 2)."""
    cdef uint16_t proto
    if f.off + 1 > f.n:
        cut(f)
        return
    if f.data[f.off] & 1:
        proto = f.data[f.off]
        f.off += 1
    else:
        if f.off + 2 > f.n:
            cut(f)
            return
        proto = be16(f.data + f.off)
        f.off += 2
    if proto == PPP_MULTILINK and f.off + 5 <= f.n and f.data[f.off] >> 6 == 3:
        # a packet that its first and last fragment are one of: 24 bits of sequence, and a protocol again
        f.off += 4
        proto = f.data[f.off]
        f.off += 1
        if not proto & 1:
            if f.off >= f.n:
                cut(f)
                return
            proto = <uint16_t>(proto << 8) | f.data[f.off]
            f.off += 1
    # some senders write EtherTypes
    if proto == PPP_IPV4 or proto == ET_IPV4:
        f.next = ET_IPV4
    elif proto == PPP_IPV6 or proto == ET_IPV6:
        f.next = ET_IPV6
    elif proto == PPP_MPLS or proto == PPP_MPLS_MCAST:
        f.next = ET_MPLS
    else:
        f.next = ET_NONE


cdef inline void llc(Frame *f) noexcept nogil:
    """802.2 LLC, with SNAP (RFC 1042) or IP's own SAP."""
    cdef const uint8_t *p
    cdef uint16_t pid
    if f.off + 3 > f.n:
        cut(f)
        return
    p = f.data + f.off
    f.next = ET_NONE
    if p[0] == 0xAA and p[1] == 0xAA and p[2] == 0x03:
        if f.off + 8 > f.n:
            cut(f)
            return
        # OUI 0 is RFC 1042, 00-00-f8 is 802.1H's bridge tunnel; both carry an EtherType
        if p[3] == 0 and p[4] == 0 and (p[5] == 0 or p[5] == 0xF8):
            f.next = be16(p + 6)
            f.off += 8
        elif p[3] == 0 and p[4] == 0x80 and p[5] == 0xC2:
            # bridged 802.3, with and without its FCS, behind two bytes of padding (RFC 2684 section 5.2)
            pid = be16(p + 6)
            if (pid == 1 or pid == 7) and f.off + 10 + ETHERNET_HEADER <= f.n:
                f.next = be16(p + 22)
                f.off += 10 + ETHERNET_HEADER
                if f.next <= ET_LENGTH_MAX:
                    f.next = ET_NONE
    elif p[0] == 0x06:
        if p[2] == 0x03:
            f.next = ET_IPV4
            f.off += 3
        elif p[2] & 1 == 0:        # numbered information: two bytes of control
            f.next = ET_IPV4
            f.off += 4
    elif p[0] == 0xFE and p[1] == 0xFE and p[2] == 0x03 and f.off + 4 <= f.n:
        # routed OSI: the protocol is an NLPID (RFC 2684 section 5.1)
        f.off += 4
        if p[3] == 0xCC:
            f.next = ET_IPV4
        elif p[3] == 0x8E:
            f.next = ET_IPV6
        elif p[3] == 0xCF:
            ppp_protocol(f)


cdef inline void pppoe(Frame *f) noexcept nogil:
    # discovery has an EtherType of its own, so the code may be anything
    cdef uint32_t n
    if f.off + PPPOE_HEADER > f.n:
        cut(f)
        return
    n = be16(f.data + f.off + 4)
    f.off += PPPOE_HEADER
    if f.off + n < f.n:
        f.n = f.off + n
    ppp_protocol(f)


cdef inline void ethernet(Frame *f) noexcept nogil:
    """From the destination MAC: sets next to the EtherType, or through LLC."""
    if f.off + ETHERNET_HEADER > f.n:
        cut(f)
        return
    f.next = be16(f.data + f.off + 12)
    f.off += ETHERNET_HEADER
    if f.next <= ET_LENGTH_MAX:
        # what is behind that length is padding
        if f.off + f.next < f.n:
            f.n = f.off + f.next
        llc(f)


cdef inline int familiar(uint16_t type) noexcept nogil:
    # EtherTypes that pseudowires usually carry
    return (type == ET_IPV4 or type == ET_ARP or type == ET_IPV6 or type == ET_VLAN or type == ET_QINQ
            or type == ET_MPLS or type == ET_PPPOE or type == 0x8863)


cdef inline void mpls(Frame *f) noexcept nogil:
    """Labels down to the bottom of the stack; what follows is guessed from its first nibble (RFC 4928)."""
    cdef uint32_t label = 0
    cdef int i
    cdef uint8_t nibble
    for i in range(MAX_TAGS):
        if f.off + MPLS_LABEL > f.n:
            cut(f)
            return
        label = be32(f.data + f.off)
        f.off += MPLS_LABEL
        if label & 0x100:
            break
    else:
        f.next = ET_NONE
        return
    if f.off >= f.n:
        cut(f)
        return
    nibble = f.data[f.off] >> 4
    f.next = ET_NONE
    if label >> 12 == 13 or label >> 12 == 14:
        return                     # associated channel and alert labels: for the routers themselves
    if nibble == 4:
        f.next = ET_IPV4
    elif nibble == 6:
        f.next = ET_IPV6
    elif nibble == 0 and f.off + 4 + ETHERNET_HEADER <= f.n:
        # a pseudowire's control word (RFC 4448), or a MAC address that begins with 0
        if not familiar(be16(f.data + f.off + 12)):
            f.off += 4
        ethernet(f)


cdef inline void nsh(Frame *f) noexcept nogil:
    """Service function chains (RFC 8300): length in words, then what follows."""
    cdef uint8_t carried
    if f.off + 8 > f.n:
        cut(f)
        return
    carried = f.data[f.off + 3]
    f.off += <uint32_t>(f.data[f.off + 1] & 0x3F) * 4
    f.next = ET_NONE
    if carried == 1:
        f.next = ET_IPV4
    elif carried == 2:
        f.next = ET_IPV6
    elif carried == 3:
        ethernet(f)
    elif carried == 5:
        f.next = ET_MPLS


cdef inline void tags(Frame *f) noexcept nogil:
    """Everything between the first EtherType and a network layer."""
    cdef int i
    for i in range(MAX_TAGS):
        if f.next == ET_IPV4 or f.next == ET_IPV6 or f.next == ET_NONE:
            return
        if (f.next == ET_VLAN or f.next == ET_QINQ or f.next == ET_QINQ_OLD1
                or f.next == ET_QINQ_OLD2 or f.next == ET_QINQ_OLD3):
            if f.off + VLAN_TAG > f.n:
                cut(f)
                return
            if f.vlan_count == 0:
                f.vlan_id = be16(f.data + f.off) & 0xFFF
            f.vlan_count += 1
            f.next = be16(f.data + f.off + 2)
            f.off += VLAN_TAG
            if f.next <= ET_LENGTH_MAX:
                llc(f)
        elif f.next == ET_MPLS or f.next == ET_MPLS_MCAST:
            mpls(f)
        elif f.next == ET_PPPOE:
            pppoe(f)
        elif f.next == ET_PBB:
            f.off += 4
            ethernet(f)
        elif f.next == ET_TEB:
            ethernet(f)
        elif f.next == ET_VNTAG or f.next == ET_HSR or f.next == ET_CMD or f.next == ET_ETAG:
            # 4 bytes (VN-tag, HSR's path and sequence; metadata and E-tag have 6), then an EtherType
            if f.off + 8 > f.n:
                cut(f)
                return
            f.off += 8 if f.next == ET_CMD or f.next == ET_ETAG else 6
            f.next = be16(f.data + f.off - 2)
            if f.next <= ET_LENGTH_MAX:
                llc(f)
        elif f.next == ET_ARISTA:
            # kind 1 is a stamp; the low byte of its format says 64 (10) or 48 bits (20). Then an EtherType
            if f.off + 14 > f.n:
                cut(f)
                return
            if be16(f.data + f.off) != 1:
                f.next = ET_NONE
                return
            f.off += 14 if f.data[f.off + 3] == 0x10 else 12
            f.next = be16(f.data + f.off - 2)
            if f.next <= ET_LENGTH_MAX:
                llc(f)
        elif f.next == ET_FABRICPATH:
            f.off += 2
            ethernet(f)
        elif f.next == ET_TRILL:
            if f.off + 6 > f.n:
                cut(f)
                return
            f.off += 6 + (be16(f.data + f.off) >> 6 & 0x1F) * 4
            ethernet(f)
        elif f.next == ET_NSH:
            nsh(f)
        elif f.next == ET_MACSEC:
            # integrity without encryption leaves an EtherType behind the tag, whose 8-byte SCI may be absent
            if f.off + 16 > f.n:
                cut(f)
                return
            if f.data[f.off] & 0x8C:
                f.next = ET_NONE
                return
            f.off += 16 if f.data[f.off] & 0x20 else 8
            f.next = be16(f.data + f.off - 2)
            if f.next <= ET_LENGTH_MAX:
                llc(f)
        else:
            return
    f.next = ET_NONE

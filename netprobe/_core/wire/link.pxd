"""Link types of capture files (LINKTYPE_ registry, https://www.tcpdump.org/linktypes.html)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from netprobe._core.wire.be cimport be16, be32, le16, le32
from netprobe._core.wire.ethernet cimport (
    ET_IPV4, ET_IPV6, ET_LENGTH_MAX, ET_MPLS, ET_NONE, ET_PPPOE,
    Frame, by_version, cut, ethernet, llc, ppp_protocol, pppoe,
)

cdef enum:
    LT_NULL = 0
    LT_ETHERNET = 1
    LT_TOKEN_RING = 6
    LT_ARCNET = 7
    LT_PPP = 9
    LT_FDDI = 10
    LT_ATM_RFC1483_DLT = 11  # compiler-side again
    LT_RAW_BSD = 12          # DLT_RAW as written by most systems
    LT_ENC_DLT = 13
    LT_RAW_OPENBSD = 14
    LT_ATM_CLIP_BSD = 16
    LT_ATM_CLIP_BSDOS = 18
    LT_ATM_CLIP_DLT = 19     # the compiler-side number, written by some systems
    LT_ATM_CLIP = 106
    LT_PPP_HDLC = 50
    LT_PPP_ETHER = 51
    LT_ATM_RFC1483 = 100
    LT_RAW = 101
    LT_C_HDLC = 104
    LT_WLAN = 105
    LT_FRELAY = 107
    LT_LOOP = 108
    LT_ENC = 109
    LT_LINUX_SLL = 113
    LT_PFLOG = 117
    LT_PRISM = 119
    LT_IP_OVER_FC = 122
    LT_SUNATM = 123
    LT_RADIOTAP = 127
    LT_ARCNET_LINUX = 129
    LT_JUNIPER_MLPPP = 130
    LT_JUNIPER_MLFR = 131
    LT_JUNIPER_GGSN = 133
    LT_JUNIPER_ATM2 = 135
    LT_JUNIPER_SERVICES = 136
    LT_JUNIPER_ATM1 = 137
    LT_APPLE_1394 = 138
    LT_AVS = 163
    LT_PPP_PPPD = 166
    LT_JUNIPER_PPPOE = 167
    LT_JUNIPER_ETHER = 178
    LT_JUNIPER_PPP = 179
    LT_JUNIPER_FRELAY = 180
    LT_JUNIPER_CHDLC = 181
    LT_JUNIPER_VP = 183
    LT_PPI = 192
    LT_ERF = 197
    LT_PPP_WITH_DIR = 204
    LT_C_HDLC_WITH_DIR = 205
    LT_FRELAY_WITH_DIR = 206
    LT_MPLS = 219
    LT_IPNET = 226
    LT_IPV4 = 228
    LT_IPV6 = 229
    LT_NFLOG = 239
    LT_NETANALYZER = 240
    LT_NETANALYZER_TRANSPARENT = 241
    LT_IPOIB = 242
    LT_PKTAP = 258
    LT_EPON = 259
    LT_MPACKET = 274
    LT_SLL2 = 276

cdef enum:
    # 802.11 frame control (first byte: version, type, subtype; second: flags)
    WLAN_TYPE_DATA = 2
    WLAN_TO_DS = 1
    WLAN_FROM_DS = 2
    WLAN_PROTECTED = 0x40
    WLAN_ORDER = 0x80
    RADIOTAP_TSFT = 1
    RADIOTAP_FLAGS = 2
    RADIOTAP_DATAPAD = 0x20


cdef inline void address_family(Frame *f, uint32_t af) noexcept nogil:
    # AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 and 30 on the BSDs and Darwin, 26 on Solaris
    if af == 2:
        f.next = ET_IPV4
    elif af == 10 or af == 23 or af == 24 or af == 26 or af == 28 or af == 30:
        f.next = ET_IPV6
    else:
        f.next = ET_NONE


cdef inline void null_loopback(Frame *f) noexcept nogil:
    """BSD loopback: an address family in the byte order of the machine that wrote it."""
    cdef uint32_t af
    if f.n < 4:
        cut(f)
        return
    if f.data[0] == 0xFF and f.data[1] == 0x03:
        f.off = 2
        ppp_protocol(f)
        return
    af = le32(f.data)
    if af > 0xFFFF:
        af = be32(f.data)
    f.off = 4
    address_family(f, af)
    if ET_LENGTH_MAX < af <= 0xFFFF:
        f.next = <uint16_t>af      # an EtherType, as some programs write


cdef inline void raw_ip(Frame *f) noexcept nogil:
    """Raw IP, or the PPP that old dial-up drivers hand over under the same number."""
    by_version(f)
    if f.next != ET_NONE or f.short_ or f.n < 10:
        return
    if f.data[0] == 0xFF and f.data[1] == 0x03:
        f.off = 2
    elif f.data[1] == 0xFF and f.data[2] == 0x03:
        f.off = 3
    elif f.data[6] == 0xFF and f.data[7] == 0x03:
        f.off = 8
    else:
        return
    ppp_protocol(f)


cdef inline void ppp(Frame *f) noexcept nogil:
    if f.off + 2 > f.n:
        cut(f)
        return
    # address and control may be compressed away (RFC 1661 section 6.6)
    if f.data[f.off] == 0xFF:
        f.off += 2
    ppp_protocol(f)


cdef inline void cisco_hdlc(Frame *f) noexcept nogil:
    if f.off + 4 > f.n:
        cut(f)
        return
    f.next = be16(f.data + f.off + 2)
    f.off += 4
    if f.next <= ET_LENGTH_MAX:
        f.next = ET_NONE


cdef inline void ppp_or_cisco(Frame *f) noexcept nogil:
    """Serial links: Cisco HDLC begins with 0x0f or 0x8f (RFC 1547 section 4.3.1)."""
    if f.off + 2 > f.n:
        cut(f)
        return
    if (f.data[f.off] == 0x0F or f.data[f.off] == 0x8F) and f.data[f.off + 1] == 0x00:
        cisco_hdlc(f)
    else:
        ppp(f)


cdef inline void frame_relay(Frame *f) noexcept nogil:
    """Q.922 address of two to four bytes, then NLPID (RFC 2427)."""
    cdef uint8_t nlpid
    cdef uint16_t kind
    if f.off + 4 > f.n:
        cut(f)
        return
    f.off += 2
    # the address goes on while the extension bit is clear
    if not f.data[f.off - 1] & 1:
        f.off += 1 if f.data[f.off] & 1 else 2
    if f.off + 4 > f.n:
        cut(f)
        return
    kind = be16(f.data + f.off)
    if kind == ET_IPV4 or kind == ET_IPV6 or kind == ET_MPLS:
        # Cisco's encapsulation: an EtherType
        f.next = kind
        f.off += 2
        return
    if f.data[f.off] == 0x03:
        f.off += 1
    nlpid = f.data[f.off]
    if nlpid == 0x00 and f.off + 1 < f.n:
        f.off += 1
        nlpid = f.data[f.off]
    f.off += 1
    f.next = ET_NONE
    if nlpid == 0xCC:
        f.next = ET_IPV4
    elif nlpid == 0x8E:
        f.next = ET_IPV6
    elif nlpid == 0x80 and f.off + 5 <= f.n:
        if f.data[f.off] == 0 and f.data[f.off + 1] == 0 and f.data[f.off + 2] == 0:
            f.next = be16(f.data + f.off + 3)
            f.off += 5
        elif (be32(f.data + f.off) == 0x0080C200 and (f.data[f.off + 4] == 1 or f.data[f.off + 4] == 7)):
            f.off += 5             # bridged
            ethernet(f)
    elif nlpid == 0xCF:
        ppp(f)


cdef inline void wlan(Frame *f, int pad4) noexcept nogil:
    """802.11 from the frame control field (IEEE 802.11-2020, 9.2.3); pad4: header padded to 4 bytes."""
    cdef const uint8_t *p
    cdef uint32_t start = f.off
    cdef uint32_t header = 24
    cdef uint8_t kind, subtype, flags
    cdef int amsdu = 0
    if f.off + 24 > f.n:
        cut(f)
        return
    p = f.data + f.off
    kind = (p[0] >> 2) & 3
    subtype = p[0] >> 4
    flags = p[1]
    f.next = ET_NONE
    if kind != WLAN_TYPE_DATA:
        return
    if flags & WLAN_TO_DS and flags & WLAN_FROM_DS:
        header += 6
    if subtype & 8:
        if f.off + header + 2 > f.n:
            cut(f)
            return
        amsdu = p[header] & 0x80
        header += 2
        if flags & WLAN_ORDER:
            header += 4
    if subtype & 4:
        return                     # null function: no data
    if flags & WLAN_PROTECTED:
        return                     # encrypted
    if pad4:
        header = (header + 3) & ~<uint32_t>3
    f.off = start + header
    if p[22] & 0x0F:
        return                     # not the first fragment
    if amsdu:
        f.off += 14                # first subframe: DA, SA, length
    elif (f.off + 4 <= f.n and f.data[f.off] == 0 and f.data[f.off + 1] == 0 and f.data[f.off + 2] == 0xAA
            and f.data[f.off + 3] == 0xAA):
        f.off += 2                 # padding that no header announces
    llc(f)


cdef inline void radiotap(Frame *f) noexcept nogil:
    cdef uint32_t length, present, at
    cdef int pad = 0
    if f.off + 8 > f.n:
        cut(f)
        return
    length = le16(f.data + f.off + 2)
    if length < 8 or f.off + length > f.n:
        cut(f)
        return
    present = le32(f.data + f.off + 4)
    at = 8
    # further presence words while bit 31 is set
    while le32(f.data + f.off + at - 4) & <uint32_t>0x80000000U:
        at += 4
        if at > length:
            cut(f)
            return
    if present & RADIOTAP_TSFT:
        at = ((at + 7) & ~<uint32_t>7) + 8
    if present & RADIOTAP_FLAGS and at < length:
        pad = f.data[f.off + at] & RADIOTAP_DATAPAD
    f.off += length
    wlan(f, pad)


cdef inline void sll(Frame *f, uint32_t proto_at, uint32_t header, uint16_t hatype) noexcept nogil:
    """Linux cooked capture, both versions."""
    cdef uint16_t proto
    proto = be16(f.data + f.off + proto_at)
    f.off += header
    f.next = ET_NONE
    if hatype == 824:              # netlink: the protocol field is a family
        return
    if proto == 0x0004:            # 802.2
        llc(f)
    elif proto == 0x0003:          # every protocol: Ethernet with its header
        ethernet(f)
    elif proto == 0x0007:
        ppp(f)
    elif proto == 0x0001:          # 802.3 without a length check
        return
    elif proto > ET_LENGTH_MAX:
        f.next = proto


cdef inline void nflog(Frame *f) noexcept nogil:
    """Netfilter log: type-length-values in the writer's byte order, type 9 is the packet."""
    cdef uint32_t at = 4
    cdef uint32_t length, kind
    cdef uint8_t family
    if f.n < 4:
        cut(f)
        return
    family = f.data[0]
    f.next = ET_NONE
    while at + 4 <= f.n:
        length = le16(f.data + at)
        kind = le16(f.data + at + 2)
        if length > f.n and be16(f.data + at) <= f.n:
            length = be16(f.data + at)
            kind = be16(f.data + at + 2)
        if length < 4:
            return
        if kind == 9:
            f.off = at + 4
            address_family(f, family)
            return
        at += (length + 3) & ~<uint32_t>3


cdef inline void arcnet(Frame *f, uint32_t at) noexcept nogil:
    """From the protocol byte: RFC 1201 has a split flag and a sequence behind it, RFC 1051 does not."""
    cdef uint8_t proto
    if at + 8 > f.n:
        cut(f)
        return
    proto = f.data[at]
    if proto == 0xF0:
        f.next = ET_IPV4
        f.off = at + 1
    elif proto == 0xD4 or proto == 0xC4:
        f.next = ET_IPV4 if proto == 0xD4 else ET_IPV6
        # ff announces that the real flag comes after a longer header
        f.off = at + (8 if f.data[at + 1] == 0xFF else 4)


cdef inline void sunatm(Frame *f) noexcept nogil:
    """SunATM: kind of traffic in the low bits of the first byte, VPI, VCI."""
    cdef uint8_t kind
    if f.n < 8:
        cut(f)
        return
    kind = f.data[0] & 0x0F
    f.off = 4
    if kind == 1:                  # LAN emulation, a two-byte client number first
        f.off = 6
        ethernet(f)
    elif kind == 2 or f.data[4] == 0xAA:
        llc(f)
    elif kind == 0:
        by_version(f)


cdef inline void juniper(Frame *f, uint16_t linktype) noexcept nogil:
    """Junos: "MGC", flags, extensions; then the frame as on the wire, or an address family and a datagram."""
    cdef uint8_t flags
    if f.n < 8:
        cut(f)
        return
    if f.data[0] != 0x4D or f.data[1] != 0x47 or f.data[2] != 0x43:
        return
    flags = f.data[3]
    f.off = 4
    if flags & 0x80:
        f.off = 6 + be16(f.data + 4)
    if flags & 2:
        # no link layer; families in Junos' own numbers
        if f.off + 4 > f.n:
            cut(f)
            return
        if f.data[f.off] == 2:
            f.next = ET_IPV4
        elif f.data[f.off] == 6:
            f.next = ET_IPV6
        f.off += 4
    elif linktype == LT_JUNIPER_ETHER or linktype == LT_JUNIPER_PPPOE:
        ethernet(f)
    elif linktype == LT_JUNIPER_PPP or linktype == LT_JUNIPER_MLPPP:
        ppp(f)
    elif linktype == LT_JUNIPER_CHDLC:
        cisco_hdlc(f)
    elif linktype == LT_JUNIPER_FRELAY or linktype == LT_JUNIPER_MLFR:
        frame_relay(f)
    elif linktype == LT_JUNIPER_VP:
        by_version(f)
    elif linktype == LT_JUNIPER_GGSN and f.off + 4 <= f.n:
        if f.data[f.off] == 2:
            f.next = ET_IPV4
        elif f.data[f.off] == 6:
            f.next = ET_IPV6
        f.off += 4
    elif (linktype == LT_JUNIPER_ATM1 or linktype == LT_JUNIPER_ATM2) and f.off < f.n:
        # a 4 or 8 byte cookie goes first, except in old files
        if f.data[f.off] != 0xAA:
            f.off += 4 if linktype == LT_JUNIPER_ATM1 else 8
        llc(f)


cdef inline void erf(Frame *f) noexcept nogil:
    """Endace: 16 bytes, extension headers of 8 while their top bit says so, then by type."""
    cdef uint8_t kind, more
    if f.n < 16:
        cut(f)
        return
    more = f.data[8]
    kind = more & 0x7F
    f.off = 16
    while more & 0x80:
        if f.off + 8 > f.n:
            cut(f)
            return
        more = f.data[f.off]
        f.off += 8
    if kind == 2 or kind == 11 or kind == 16 or kind == 20:
        f.off += 2                 # an offset and padding
        ethernet(f)
    elif kind == 1 or kind == 10 or kind == 15 or kind == 19:
        ppp_or_cisco(f)
    elif kind == 22:
        f.next = ET_IPV4
    elif kind == 23:
        f.next = ET_IPV6


cdef inline int link_plain(uint16_t linktype, Frame *f) noexcept nogil:
    cdef uint32_t n
    if linktype == LT_ETHERNET:
        ethernet(f)
    elif linktype == LT_RAW or linktype == LT_RAW_BSD or linktype == LT_RAW_OPENBSD:
        raw_ip(f)
    elif linktype == LT_IPV4:
        f.next = ET_IPV4
    elif linktype == LT_IPV6:
        f.next = ET_IPV6
    elif linktype == LT_NULL or linktype == LT_LOOP:
        null_loopback(f)
    elif linktype == LT_LINUX_SLL:
        if f.n < 16:
            cut(f)
        else:
            sll(f, 14, 16, be16(f.data + 2))
    elif linktype == LT_SLL2:
        if f.n < 20:
            cut(f)
        else:
            sll(f, 0, 20, be16(f.data + 8))
    elif linktype == LT_PPP or linktype == LT_PPP_HDLC:
        ppp_or_cisco(f)
    elif linktype == LT_PPP_PPPD or linktype == LT_PPP_WITH_DIR:
        # the first byte is a direction, 0 or 1; pppd writes it in place of 0xff
        if f.n >= 2 and f.data[1] == 0x03 and f.data[0] <= 1:
            f.off = 2
            ppp_protocol(f)
        else:
            f.off = 1
            ppp(f)
    elif linktype == LT_C_HDLC:
        ppp_or_cisco(f)
    elif linktype == LT_C_HDLC_WITH_DIR:
        f.off = 1
        ppp_or_cisco(f)
    elif linktype == LT_PPP_ETHER:
        pppoe(f)
    elif linktype == LT_FRELAY:
        frame_relay(f)
    elif linktype == LT_FRELAY_WITH_DIR:
        f.off = 1
        frame_relay(f)
    elif linktype == LT_WLAN:
        wlan(f, 0)
    elif linktype == LT_RADIOTAP:
        radiotap(f)
    elif linktype == LT_PRISM:
        # 144 bytes behind a message number, or an AVS header, or no header at all
        if f.n >= 8 and be32(f.data) & <uint32_t>0xFFFFF000U == 0x80211000U:
            f.off = be32(f.data + 4)
        elif f.n >= 4:
            n = le32(f.data)
            if n == 0x41 or n == 0x44 or n == <uint32_t>0x41000000U or n == <uint32_t>0x44000000U:
                f.off = 144
        if f.off > f.n:
            cut(f)
        else:
            wlan(f, 0)
    elif linktype == LT_AVS:
        if f.n < 8 or be32(f.data + 4) > f.n:
            cut(f)
        else:
            f.off = be32(f.data + 4)
            wlan(f, 0)
    elif linktype == LT_FDDI:
        f.off = 13
        if f.n and f.data[0] & 0xF8 == 0x50:
            llc(f)
    elif linktype == LT_TOKEN_RING:
        if f.n < 16:
            cut(f)
        else:
            f.off = 14
            if f.data[8] & 0x80:   # routing information present
                f.off += f.data[14] & 0x1F
            if f.data[1] >> 6 == 1:
                llc(f)
    elif linktype == LT_ATM_RFC1483 or linktype == LT_ATM_RFC1483_DLT:
        llc(f)
    elif (linktype == LT_ATM_CLIP or linktype == LT_ATM_CLIP_DLT or linktype == LT_ATM_CLIP_BSD
            or linktype == LT_ATM_CLIP_BSDOS):
        if f.n >= 3 and f.data[0] == 0xAA:
            llc(f)
        else:
            f.next = ET_IPV4
    elif linktype == LT_ENC or linktype == LT_ENC_DLT:
        if f.n < 12:
            cut(f)
        else:
            f.off = 12
            n = le32(f.data)
            address_family(f, n if n <= 0xFFFF else be32(f.data))
    elif linktype == LT_PFLOG:
        if f.n < 4 or f.data[0] < 4:
            cut(f)
        else:
            f.off = (<uint32_t>f.data[0] + 3) & ~<uint32_t>3
            address_family(f, f.data[1])
    elif linktype == LT_APPLE_1394:
        if f.n < 18:
            cut(f)
        else:
            f.next = be16(f.data + 16)
            f.off = 18
    elif linktype == LT_MPLS:
        f.next = ET_MPLS
    elif linktype == LT_ARCNET:
        arcnet(f, 2)
    elif linktype == LT_ARCNET_LINUX:
        arcnet(f, 4)
    elif linktype == LT_IP_OVER_FC:
        f.off = 16
        llc(f)
    elif linktype == LT_SUNATM:
        sunatm(f)
    elif linktype == LT_ERF:
        erf(f)
    elif linktype == LT_EPON:
        f.off = 8
        ethernet(f)
    elif (LT_JUNIPER_MLPPP <= linktype <= LT_JUNIPER_ATM1 or linktype == LT_JUNIPER_PPPOE
            or LT_JUNIPER_ETHER <= linktype <= LT_JUNIPER_CHDLC or linktype == LT_JUNIPER_VP):
        juniper(f, linktype)
    elif linktype == LT_IPNET:
        if f.n < 24:
            cut(f)
        else:
            f.off = 24
            address_family(f, f.data[1])
    elif linktype == LT_NFLOG:
        nflog(f)
    elif linktype == LT_NETANALYZER:
        f.off = 4
        ethernet(f)
    elif linktype == LT_NETANALYZER_TRANSPARENT:
        f.off = 12
        ethernet(f)
    elif linktype == LT_MPACKET:
        f.off = 8
        ethernet(f)
    elif linktype == LT_IPOIB:
        # a 40-byte pseudo-header, then EtherType and two reserved bytes (RFC 4391)
        if f.n < 44:
            cut(f)
        else:
            f.next = be16(f.data + 40)
            f.off = 44
    else:
        return 0
    return 1


cdef inline int link_start(uint16_t linktype, Frame *f) noexcept nogil:
    """From the first byte of a frame to its first EtherType. 0: this link type is not supported."""
    cdef uint32_t skip, kind
    cdef int known
    f.next = ET_NONE
    f.short_ = 0
    f.vlan_count = 0
    f.vlan_id = 0
    if linktype != LT_PPI and linktype != LT_PKTAP:
        return link_plain(linktype, f)
    # a header that names the link type of the frame behind it
    if f.n < 12:
        cut(f)
        return 1
    if linktype == LT_PPI:
        skip = le16(f.data + 2)
        kind = le32(f.data + 4)
        if skip < 8:
            skip = 8
    else:
        skip = le32(f.data)
        kind = le32(f.data + 8)
        if skip < 12:
            skip = 12
    if skip > f.n:
        cut(f)
        return 1
    f.data += skip
    f.n -= skip
    known = link_plain(<uint16_t>kind, f) if kind <= 0xFFFF else 0
    f.data -= skip
    f.n += skip
    f.off += skip
    if not known:
        f.next = ET_NONE
    return 1


cdef inline int link_known(uint16_t linktype) noexcept nogil:
    """Is this a link type that link_start reads?"""
    cdef Frame f
    f.data = NULL
    f.n = 0
    f.off = 0
    return link_start(linktype, &f)

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
    LT_PPP = 9
    LT_FDDI = 10
    LT_RAW_BSD = 12          # DLT_RAW as written by most systems
    LT_RAW_OPENBSD = 14
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
    LT_RADIOTAP = 127
    LT_APPLE_1394 = 138
    LT_AVS = 163
    LT_PPP_PPPD = 166
    LT_PPI = 192
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
    """Two-byte Q.922 address, then NLPID (RFC 2427)."""
    cdef uint8_t nlpid
    if f.off + 4 > f.n:
        cut(f)
        return
    f.off += 2
    # two more address bytes while the extension bit is clear
    if not f.data[f.off - 1] & 1:
        f.off += 2
    if f.off + 4 > f.n:
        cut(f)
        return
    if f.data[f.off] == 0x08 and f.data[f.off + 1] == 0x00:
        # Cisco's encapsulation: an EtherType
        f.next = ET_IPV4
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
    if amsdu:
        f.off += 14                # first subframe: DA, SA, length
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


cdef inline int link_known(uint16_t linktype) noexcept nogil:
    """Is this a link type that link_start reads?"""
    cdef Frame f
    f.data = NULL
    f.n = 0
    f.off = 0
    return link_start(linktype, &f)


cdef inline int link_start(uint16_t linktype, Frame *f) noexcept nogil:
    """From the first byte of a frame to its first EtherType. 0: this link type is not supported."""
    cdef uint32_t n
    f.next = ET_NONE
    f.short_ = 0
    f.vlan_count = 0
    f.vlan_id = 0
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
        # 144 bytes, or an AVS header under the same number
        if f.n >= 8 and be32(f.data) & <uint32_t>0xFFFFF000U == 0x80211000U:
            f.off = be32(f.data + 4)
        else:
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
    elif linktype == LT_PPI:
        if f.n < 8 or le16(f.data + 2) > f.n:
            cut(f)
        else:
            n = le32(f.data + 4)
            f.off = le16(f.data + 2)
            if n == LT_WLAN:
                wlan(f, 0)
            elif n == LT_ETHERNET:
                ethernet(f)
            elif n == LT_RAW or n == LT_RAW_BSD:
                by_version(f)
    elif linktype == LT_FDDI:
        f.off = 13
        llc(f)
    elif linktype == LT_TOKEN_RING:
        if f.n < 16:
            cut(f)
        else:
            f.off = 14
            if f.data[8] & 0x80:   # routing information present
                f.off += f.data[14] & 0x1F
            llc(f)
    elif linktype == LT_ATM_RFC1483:
        llc(f)
    elif linktype == LT_ATM_CLIP or linktype == LT_ATM_CLIP_DLT:
        if f.n >= 3 and f.data[0] == 0xAA:
            llc(f)
        else:
            f.next = ET_IPV4
    elif linktype == LT_ENC:
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
    elif linktype == LT_PKTAP:
        if f.n < 12 or le32(f.data) > f.n or le32(f.data) < 12:
            cut(f)
        else:
            f.off = le32(f.data)
            n = le32(f.data + 8)
            if n == LT_ETHERNET:
                ethernet(f)
            elif n == LT_RAW or n == LT_RAW_BSD:
                by_version(f)
            elif n == LT_NULL and f.off + 4 <= f.n:
                address_family(f, le32(f.data + f.off))
                f.off += 4
    else:
        return 0
    return 1

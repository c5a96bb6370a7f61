"""A decoded packet as the flow table sees it: lengths and ports by the headers alone (kprobe spec 3.3 to 3.10)."""
from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from netprobe._core.flow cimport (
    SAMPLE_DECODE, SAMPLE_EXPORT, SAMPLE_IGNORE, FlowConfig, FlowPacket, FlowTable,
)
from netprobe._core.packet cimport (
    DIR_IN, DIR_OUT, DIR_UNKNOWN, L3_IPV4, L3_IPV6, PF_ETHER, PF_FRAG, PF_REASSEMBLED, PROTO_ICMP, PROTO_ICMPV6,
    PROTO_NONE, PROTO_TCP, PROTO_UDP, Packet, RawPacket, mix64,
)
from netprobe._core.tracker cimport TCP_SYN
from netprobe._core.wire.be cimport be16, be32
from netprobe._core.wire.ethernet cimport (
    ET_IPV4, ET_IPV6, ET_QINQ, ET_QINQ_OLD1, ET_QINQ_OLD2, ET_QINQ_OLD3, ET_VLAN, MAX_TAGS,
)
from netprobe._core.wire.link cimport LT_ETHERNET

cdef enum:
    ETHER_HEADER = 14
    IPV4_HEADER = 20
    IPV6_HEADER = 40
    TCP_HEADER = 20
    UDP_HEADER = 8
    ICMP_HEADER = 4
    PORTS = 4                    # bytes of both, first in either header
    OPT_END = 0
    OPT_NOP = 1
    OPT_WSCALE = 3


cdef uint16_t inner_vlan(const Packet *p) noexcept nogil:
    """Identifier of the last of several tags, next to each other or not."""
    cdef uint32_t at = 12, end = p.l3_off
    cdef uint16_t kind, found = p.vlan_id
    cdef int i
    if not p.flags & PF_ETHER:
        return found
    for i in range(MAX_TAGS):
        if at + 4 > end or at + 4 > p.caplen:
            break
        kind = be16(p.data + at)
        if not (kind == ET_VLAN or kind == ET_QINQ or kind == ET_QINQ_OLD1 or kind == ET_QINQ_OLD2
                or kind == ET_QINQ_OLD3):
            break
        found = be16(p.data + at + 2) & 0xFFF
        at += 4
    return found


cdef inline int8_t window_scale(const uint8_t *tcp, uint32_t header) noexcept nogil:
    """The window-scale option (RFC 7323 2.2); -1 without."""
    cdef uint32_t at = TCP_HEADER
    while at < header:
        if tcp[at] == OPT_END:
            break
        if tcp[at] == OPT_NOP:
            at += 1
            continue
        if at + 2 > header or tcp[at + 1] < 2 or at + tcp[at + 1] > header:
            break
        if tcp[at] == OPT_WSCALE and tcp[at + 1] == 3:
            return <int8_t>(tcp[at + 2] if tcp[at + 2] < 127 else 127)
        at += tcp[at + 1]
    return -1


cdef inline int64_t icmp_reply(int l3, uint8_t kind) noexcept nogil:
    """The request type that a reply type answers, or -1."""
    if l3 == L3_IPV4:
        if kind == 0:
            return 8
        if kind == 14 or kind == 16 or kind == 18:
            return kind - 1
    elif kind == 129:
        return 128
    return -1


cdef inline uint64_t direct_hash(const FlowTable *t, const FlowPacket *v, int back) noexcept nogil:
    """Hash of a unidirectional key (sampling)."""
    cdef const uint64_t *a = <const uint64_t *>v.src
    cdef const uint64_t *b = <const uint64_t *>v.dst
    cdef uint64_t ports = (<uint64_t>v.dport << 16 | v.sport) if back else (<uint64_t>v.sport << 16 | v.dport)
    cdef uint64_t h
    if back:
        a = b
        b = <const uint64_t *>v.src
    h = mix64(t.config.seed ^ a[0])
    h = mix64(h ^ a[1])
    h = mix64(h + b[0])
    h = mix64(h ^ b[1])
    return mix64(h ^ (ports << 8) ^ v.proto)


cdef int flow_view(const FlowTable *t, const Packet *p, const Packet *frame, FlowPacket *v) noexcept nogil:
    cdef const uint8_t *ip = p.data + p.l3_off
    cdef const uint8_t *d
    cdef uint32_t captured, total, off, have, n
    cdef int64_t request
    if p.l3 == 0 or p.l3_off >= p.caplen:
        return 0
    captured = p.caplen - p.l3_off
    if p.l3 == L3_IPV4:
        if captured < IPV4_HEADER or ip[0] >> 4 != 4:
            return 0
        if p.flags & PF_FRAG:
            return 0
        total = be16(ip + 2)
        off = <uint32_t>(ip[0] & 15) * 4
        if total == 0:               # segmentation offload
            total = p.wirelen - p.l3_off if p.wirelen > p.l3_off else captured
        if off < IPV4_HEADER or total < off:
            return 0
        v.tos = ip[1]
        v.proto = ip[9]
        v.src[0] = v.src[1] = v.dst[0] = v.dst[1] = 0
        memcpy(&v.src[0], ip + 12, 4)
        memcpy(&v.dst[0], ip + 16, 4)
    else:
        if captured < IPV6_HEADER or ip[0] >> 4 != 6:
            return 0
        total = be16(ip + 4)
        if total:
            total += IPV6_HEADER
        else:
            total = p.wirelen - p.l3_off if p.wirelen > p.l3_off else captured
        if total < IPV6_HEADER:
            return 0
        v.tos = <uint8_t>(be16(ip) >> 4)
        off = IPV6_HEADER
        v.proto = ip[6]
        if not t.config.raw_extensions or p.flags & PF_REASSEMBLED:
            if p.flags & PF_FRAG:
                return 0
            if v.proto != p.proto and p.proto != PROTO_NONE:
                v.proto = p.proto
                off = extensions_end(ip, captured if captured < total else total, p.proto)
        memcpy(&v.src[0], ip + 8, 16)
        memcpy(&v.dst[0], ip + 24, 16)
    v.l3 = p.l3
    v.ts = flow_stamp(p.ts)
    v.pkt = p
    v.packets = 1
    v.fragments = 0
    v.cut = 0
    v.bytes = total
    v.sport = 0
    v.dport = 0
    v.tcp_flags = 0
    v.seq = 0
    v.window = 0
    v.wscale = -1
    have = captured if captured < total else total
    have = have - off if have > off else 0
    n = total - off if total > off else 0
    d = ip + off
    if (v.proto == PROTO_TCP and have < TCP_HEADER) or (v.proto == PROTO_UDP and have < UDP_HEADER):
        # kprobe drops it (3.7); elsewhere the capture's end in a header does not hide who talks to whom
        if t.config.schedule or have < PORTS or n == have:
            return 0
        v.sport = be16(d)
        v.dport = be16(d + 2)
        v.payload = 0
        v.cut = 1
    elif v.proto == PROTO_TCP:
        v.sport = be16(d)
        v.dport = be16(d + 2)
        v.seq = be32(d + 4)
        v.tcp_flags = d[13]
        v.window = be16(d + 14)
        off = <uint32_t>(d[12] >> 4) * 4
        if off < TCP_HEADER:
            off = TCP_HEADER
        v.payload = n - off if n > off else 0
        if v.tcp_flags & TCP_SYN and off > TCP_HEADER:
            v.wscale = window_scale(d, off if off < have else have)
    elif v.proto == PROTO_UDP:
        v.sport = be16(d)
        v.dport = be16(d + 2)
        v.payload = n - UDP_HEADER
    elif v.proto == PROTO_ICMP or (v.proto == PROTO_ICMPV6 and t.config.bidirectional and have >= ICMP_HEADER):
        if have < ICMP_HEADER:
            return 0
        v.payload = n - ICMP_HEADER
        request = icmp_reply(v.l3, d[0]) if t.config.bidirectional else -1
        if request >= 0:             # so that question and answer are one flow
            v.sport = <uint16_t>(request * 256 + d[1])
        else:
            v.dport = be16(d)
    else:
        v.payload = n
    # what the wire adds
    v.raw = NULL
    v.vlan = 0
    if frame.vlan_count:
        v.vlan = frame.vlan_id if frame.vlan_count == 1 else inner_vlan(frame)
    v.direction = p.direction
    if frame.flags & PF_ETHER:
        macs(t, frame.data, v)
    else:
        v.has_mac = 0
        memset(v.smac, 0, 6)
        memset(v.dmac, 0, 6)
    v.sampled = flow_verdict(t, v) if t.config.sample > 1 else SAMPLE_EXPORT
    return 1


cdef inline void macs(const FlowTable *t, const uint8_t *frame, FlowPacket *v) noexcept nogil:
    v.has_mac = 1
    memcpy(v.dmac, frame, 6)
    memcpy(v.smac, frame + 6, 6)
    if t.config.use_mac:
        if memcmp(v.dmac, t.config.mac, 6) == 0:
            v.direction = DIR_IN
        elif memcmp(v.smac, t.config.mac, 6) == 0:
            v.direction = DIR_OUT
        else:
            v.direction = DIR_UNKNOWN


cdef int flow_view_plain(const FlowTable *t, const RawPacket *r, FlowPacket *v) noexcept nogil:
    cdef const uint8_t *ip
    cdef const uint8_t *d
    cdef uint32_t off = ETHER_HEADER, n, header, total
    cdef uint16_t kind
    if r.linktype != LT_ETHERNET or r.caplen < ETHER_HEADER + IPV4_HEADER + UDP_HEADER:
        return 0
    kind = be16(r.data + 12)
    v.vlan = 0
    if kind == ET_VLAN:
        v.vlan = be16(r.data + 14) & 0xFFF
        kind = be16(r.data + 16)
        off += 4
    ip = r.data + off
    n = r.caplen - off
    if kind == ET_IPV4:
        total = be16(ip + 2)
        if ip[0] != 0x45 or be16(ip + 6) & 0x3FFF or total > n or total < IPV4_HEADER + UDP_HEADER:
            return 0
        v.l3 = L3_IPV4
        v.tos = ip[1]
        v.proto = ip[9]
        v.src[0] = as_it_is(ip + 12)
        v.dst[0] = as_it_is(ip + 16)
        v.src[1] = 0
        v.dst[1] = 0
        header = IPV4_HEADER
    elif kind == ET_IPV6:
        if n < IPV6_HEADER + UDP_HEADER or ip[0] >> 4 != 6:
            return 0
        total = be16(ip + 4) + IPV6_HEADER
        if total > n or total < IPV6_HEADER + UDP_HEADER:
            return 0
        v.l3 = L3_IPV6
        v.tos = <uint8_t>(be16(ip) >> 4)
        v.proto = ip[6]
        memcpy(&v.src[0], ip + 8, 16)
        memcpy(&v.dst[0], ip + 24, 16)
        header = IPV6_HEADER
    else:
        return 0
    d = ip + header
    n = total - header
    v.wscale = -1
    if v.proto == PROTO_TCP:
        if n < TCP_HEADER:
            return 0
        header = <uint32_t>(d[12] >> 4) * 4
        if header < TCP_HEADER or header > n:
            return 0
        v.tcp_flags = d[13]
        v.seq = be32(d + 4)
        v.window = be16(d + 14)
        v.payload = n - header
        if v.tcp_flags & TCP_SYN and header > TCP_HEADER:
            v.wscale = window_scale(d, header)
    elif v.proto == PROTO_UDP:
        v.tcp_flags = 0
        v.seq = 0
        v.window = 0
        v.payload = n - UDP_HEADER
    else:
        return 0
    v.sport = be16(d)
    v.dport = be16(d + 2)
    v.ts = flow_stamp(r.ts)
    v.pkt = NULL
    v.raw = r
    v.packets = 1
    v.fragments = 0
    v.cut = 0
    v.bytes = total
    v.direction = DIR_UNKNOWN
    macs(t, r.data, v)
    v.sampled = flow_verdict(t, v) if t.config.sample > 1 else SAMPLE_EXPORT
    return 1


cdef void plain_packet(const FlowPacket *v, Packet *out) noexcept nogil:
    cdef const uint8_t *d = v.raw.data
    cdef uint32_t off = ETHER_HEADER + (4 if be16(d + 12) == ET_VLAN else 0)
    out.data = d
    out.ts = v.ts
    out.caplen = v.raw.caplen
    out.wirelen = v.raw.wirelen
    memcpy(out.src, v.src, 16)
    memcpy(out.dst, v.dst, 16)
    out.pair_hash = 0
    out.l3_off = off
    out.l4_off = off + (IPV4_HEADER if v.l3 == L3_IPV4 else IPV6_HEADER)
    out.payload_off = out.l4_off + (<uint32_t>(d[out.l4_off + 12] >> 4) * 4 if v.proto == PROTO_TCP else UDP_HEADER)
    out.payload_len = v.payload
    out.sport = v.sport
    out.dport = v.dport
    out.flags = PF_ETHER
    out.linktype = LT_ETHERNET
    out.l3 = v.l3
    out.proto = v.proto
    out.l4 = v.proto
    out.tcp_flags = v.tcp_flags
    out.direction = v.direction
    out.app = 0
    out.cause = 0
    out.vlan_count = 1 if off > ETHER_HEADER else 0
    out.vlan_id = v.vlan
    out.ip_id = 0
    out.interface = v.raw.interface


cdef inline uint64_t as_it_is(const uint8_t *b) noexcept nogil:
    # as it stands in the packet
    cdef uint32_t x
    memcpy(&x, b, 4)
    return x


cdef uint8_t flow_verdict(const FlowTable *t, const FlowPacket *v) noexcept nogil:
    if direct_hash(t, v, 0) % t.config.sample == 0:
        return SAMPLE_EXPORT
    if (v.proto == PROTO_TCP or v.proto == PROTO_UDP) and direct_hash(t, v, 1) % t.config.sample == 0:
        return SAMPLE_DECODE
    return SAMPLE_IGNORE


cdef uint32_t extensions_end(const uint8_t *ip, uint32_t n, uint8_t proto) noexcept nogil:
    """Where the header `proto` begins behind IPv6 extensions; decode has walked them already."""
    cdef uint32_t at = IPV6_HEADER, step
    cdef uint8_t kind = ip[6]
    while kind != proto and at + 8 <= n:
        if kind == 44:
            step = 8
        elif kind == 51:
            step = (<uint32_t>ip[at + 1] + 2) * 4
        elif kind == 0 or kind == 43 or kind == 60 or kind == 139 or kind == 140:
            step = (<uint32_t>ip[at + 1] + 1) * 8
        else:
            break
        kind = ip[at]
        at += step
    return at

"""The net handler, 1.0 and 2.0: frames, peers and sizes (metrics spec 6).

Both count the outermost IP header and its protocol number; sizes are original lengths.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from netprobe._core.handler cimport Accumulator, Work
from netprobe._core.mmdb cimport Mmdb
from netprobe._core.packet cimport (
    DIR_IN, DIR_OUT, DIR_UNKNOWN, L3_IPV4, L3_IPV6, PF_DEEP, PROTO_TCP, PROTO_UDP, Packet,
)
from netprobe._core.peers cimport (
    COUNT_ASN, COUNT_CARDINALITY, COUNT_CITY, COUNT_IPS, PEERS, Addresses, Peers, add_peer, count_peers, geo_key,
)
from netprobe._core.sketch.freq cimport KEY_GEO, KEY_IPV4, KEY_IPV6
from netprobe._core.sketch.kll cimport kll_add_int
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.store cimport MetricSet

cdef enum:
    TCP_SYN = 0x02

cdef enum:
    # metric groups, as bits
    G_CARDINALITY = 1
    G_COUNTERS = 2
    G_TOP_GEO = 4
    G_TOP_IPS = 8
    G_QUANTILES = 16

GROUP_BITS = {
    "cardinality": G_CARDINALITY,
    "counters": G_COUNTERS,
    "top_geo": G_TOP_GEO,
    "top_ips": G_TOP_IPS,
    "quantiles": G_QUANTILES,
}

cdef enum:
    VERDICT_SLOTS = 16384      # power of two


cdef struct Verdicts:
    # record offset -> does its text pass? Filled on first sight; direct mapped, so it is bounded
    uint32_t offset[VERDICT_SLOTS]
    uint8_t known[VERDICT_SLOTS]
    uint8_t passes[VERDICT_SLOTS]


cdef class NetBase(Accumulator):
    """What both versions share: groups, geo databases, the filters of 6.5."""
    cdef uint32_t groups
    cdef Mmdb city
    cdef Mmdb asn
    cdef bint has_city, has_asn
    cdef bint filter_city, filter_asn
    cdef object city_passes    # text of a location -> bool, asked once per record
    cdef object asn_passes
    cdef Verdicts *verdicts    # [0] city, [1] AS
    cdef Addresses addresses
    cdef int user              # of them
    cdef int what              # COUNT_*

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False, geo_names=None, addresses=None):
        for name in config.groups:
            self.groups |= GROUP_BITS.get(name, 0)
        if geo_city is not None:
            self.city = geo_city
            self.has_city = True
        if geo_asn is not None:
            self.asn = geo_asn
            self.has_asn = True
        if self.groups & G_TOP_IPS:
            self.what |= COUNT_IPS
        if self.groups & G_CARDINALITY:
            self.what |= COUNT_CARDINALITY
        if self.groups & G_TOP_GEO and self.has_city:
            self.what |= COUNT_CITY
        if self.groups & G_TOP_GEO and self.has_asn:
            self.what |= COUNT_ASN
        self.addresses = Addresses(geo_city, geo_asn) if addresses is None else addresses
        self.user = self.addresses.join(self.what & COUNT_CITY, self.what & COUNT_ASN)
        options = config.options
        places = tuple(options.get("only_geoloc_prefix") or ())
        if options.get("geoloc_notfound"):
            places += ("Unknown",)
        systems = tuple(f"{number}/" for number in options.get("only_asn_number") or ())
        if options.get("asn_notfound"):
            systems += ("Unknown",)
        self.filter_city = bool(places)
        self.filter_asn = bool(systems)
        if places or systems:
            self.verdicts = <Verdicts *>calloc(2, sizeof(Verdicts))
            if self.verdicts == NULL:
                raise MemoryError
            self.city_passes = lambda key: geo_names.city(key)[0].startswith(places)
            self.asn_passes = lambda key: geo_names.asn(key).startswith(systems)

    def __dealloc__(self):
        free(self.verdicts)

    cdef void open_bucket(self, int64_t start_ns) noexcept nogil:
        Accumulator.open_bucket(self, start_ns)
        self.addresses.new_bucket()


cdef bint ask(NetBase self, int which, uint8_t *key) noexcept with gil:
    try:
        passes = self.city_passes if which == 0 else self.asn_passes
        return bool(passes(key[:20]))
    except Exception:
        return False           # a record that cannot be rendered matches nothing


cdef bint verdict(NetBase self, int which, Mmdb db, const uint8_t *addr, int family) noexcept nogil:
    cdef uint32_t offset = db.lookup(addr, family)
    cdef Verdicts *v = &self.verdicts[which]
    cdef uint32_t slot = (offset * <uint32_t>2654435761U) >> 18
    cdef uint8_t key[20]
    if not v.known[slot] or v.offset[slot] != offset:
        v.passes[slot] = ask(self, which, geo_key(key, offset, addr, family))
        v.offset[slot] = offset
        v.known[slot] = 1
    return v.passes[slot]


cdef bint accepts(NetBase self, const Packet *p) noexcept nogil:
    """Metrics spec 6.5: location first, then AS; the remote end decides, unknown direction fails."""
    cdef const uint8_t *remote
    if p.direction == DIR_UNKNOWN:
        return False
    if p.direction == DIR_IN:
        remote = p.src
    else:
        remote = p.dst
    if self.filter_city and not (self.has_city and verdict(self, 0, self.city, remote, p.l3)):
        return False
    if self.filter_asn and not (self.has_asn and verdict(self, 1, self.asn, remote, p.l3)):
        return False
    return True


cdef void pass_on(NetBase self, const Work *w, Work *out) noexcept nogil:
    """What the next handler of a chain sees."""
    cdef uint32_t i
    if not (self.filter_city or self.filter_asn):
        out[0] = w[0]
        return
    out.n_udp = 0
    for i in range(w.n_udp):
        if accepts(self, w.udp[i]):
            out.udp[out.n_udp] = w.udp[i]
            out.n_udp += 1
    out.n_dns = 0
    for i in range(w.n_dns):
        if accepts(self, w.dns[i].pkt):
            out.dns[out.n_dns] = w.dns[i]
            out.n_dns += 1
    out.n_bgp = 0
    for i in range(w.n_bgp):
        if accepts(self, w.bgp[i].pkt):
            out.bgp[out.n_bgp] = w.bgp[i]
            out.n_bgp += 1
    out.tcp_errors = 0


# ---------------------------------------------------------------------- 1.0

cdef enum:
    V1_EVENTS
    V1_DEEP
    V1_UDP
    V1_TCP
    V1_OTHER
    V1_IPV4
    V1_IPV6
    V1_SYN
    V1_IN
    V1_OUT
    V1_UNKNOWN
    V1_TOTAL
    V1_FILTERED
    V1_COUNTERS

cdef enum:
    V1_PPS_EVENTS
    V1_PPS_IN
    V1_PPS_OUT
    V1_PPS_TOTAL
    V1_BYTES_IN
    V1_BYTES_OUT
    V1_BYTES_TOTAL
    V1_RATES


cdef class NetV1(NetBase):
    """net 1.0, JSON key `packets` (metrics spec 6.3)."""

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False, geo_names=None, addresses=None):
        cdef int i
        self.n_blocks = 1
        self.layout[0].n_counter = V1_COUNTERS
        self.layout[0].n_card = 2
        self.layout[0].n_topn = 4
        self.layout[0].n_quant = 1
        self.layout[0].n_rate = V1_RATES
        self.layout[0].quant_dense[0] = 1
        for i, kind in enumerate((KEY_IPV4, KEY_IPV6, KEY_GEO, KEY_GEO)):
            self.layout[0].topn_kind[i] = kind
        self.consume = <void (*)(void *, const Work *, Work *) noexcept nogil>consume_v1

    @staticmethod
    def fields():
        return {
            "events": ("counter", V1_EVENTS),
            "deep_samples": ("counter", V1_DEEP),
            "udp": ("counter", V1_UDP),
            "tcp": ("counter", V1_TCP),
            "other_l4": ("counter", V1_OTHER),
            "ipv4": ("counter", V1_IPV4),
            "ipv6": ("counter", V1_IPV6),
            "protocol.tcp.syn": ("counter", V1_SYN),
            "in": ("counter", V1_IN),
            "out": ("counter", V1_OUT),
            "unknown_dir": ("counter", V1_UNKNOWN),
            "total": ("counter", V1_TOTAL),
            "filtered": ("counter", V1_FILTERED),
            "rates.pps_events": ("rate", V1_PPS_EVENTS),
            "rates.pps_in": ("rate", V1_PPS_IN),
            "rates.pps_out": ("rate", V1_PPS_OUT),
            "rates.pps_total": ("rate", V1_PPS_TOTAL),
            "rates.bytes_in": ("rate", V1_BYTES_IN),
            "rates.bytes_out": ("rate", V1_BYTES_OUT),
            "rates.bytes_total": ("rate", V1_BYTES_TOTAL),
            "cardinality.src_ips_in": ("cardinality", 0),
            "cardinality.dst_ips_out": ("cardinality", 1),
            "top_ipv4": ("topn", 0),
            "top_ipv6": ("topn", 1),
            "top_geoLoc": ("topn", 2),
            "top_ASN": ("topn", 3),
            "payload_size": ("quantile", 0),
        }


cdef void consume_v1(NetV1 self, const Work *w, Work *out) noexcept nogil:
    cdef MetricSet *m = self.sets[0]
    cdef uint64_t *rate
    cdef const Packet *p
    cdef uint32_t i, size, to, away
    cdef uint32_t deep
    cdef bint filters = self.filter_city or self.filter_asn
    cdef uint64_t n_deep = 0, n_udp = 0, n_tcp = 0, n_v4 = 0, n_v6 = 0, n_syn = 0
    cdef uint64_t n_in = 0, n_out = 0, n_filtered = 0
    cdef Peers peers
    peers.m = m
    peers.n = 0
    if w.n_pkts:
        m.used = 1
    if out != NULL:
        pass_on(self, w, out)
        if filters:
            out.n_pkts = 0
    for i in range(w.n_pkts):
        p = w.pkts[i]
        rate = rate_row(&m.rate, p.ts)
        rate[V1_PPS_EVENTS] += 1
        deep = (p.flags & PF_DEEP) != 0
        n_deep += deep
        if filters:
            if not accepts(self, p):
                n_filtered += 1
                continue
            if out != NULL:
                out.pkts[out.n_pkts] = w.pkts[i]
                out.n_pkts += 1
        size = p.wirelen
        rate[V1_PPS_TOTAL] += 1
        rate[V1_BYTES_TOTAL] += size
        kll_add_int(&m.quant[0], size)
        # without branches: nothing about the next packet can be predicted
        n_v4 += p.l3 == L3_IPV4
        n_v6 += p.l3 == L3_IPV6
        n_udp += p.proto == PROTO_UDP
        n_tcp += p.proto == PROTO_TCP
        n_syn += (p.proto == PROTO_TCP) & ((p.tcp_flags & TCP_SYN) != 0) & deep
        if p.direction == DIR_UNKNOWN:
            continue
        to = p.direction == DIR_IN
        away = 1 - to
        n_in += to
        rate[V1_PPS_IN] += to
        rate[V1_PPS_OUT] += away
        rate[V1_BYTES_IN] += size & (0 - to)
        rate[V1_BYTES_OUT] += size & (0 - away)
        n_out += away
        if deep:
            if peers.n == PEERS:
                count_peers(self.addresses, &peers, self.user, self.what)
            add_peer(self.addresses, &peers, &p.src[0] if to else &p.dst[0], p.l3, <int>away, 1 + away)
    count_peers(self.addresses, &peers, self.user, self.what)
    cdef uint64_t total = w.n_pkts - n_filtered
    m.counter[V1_EVENTS] += w.n_pkts
    m.counter[V1_DEEP] += n_deep
    m.counter[V1_UDP] += n_udp
    m.counter[V1_TCP] += n_tcp
    m.counter[V1_OTHER] += total - n_udp - n_tcp
    m.counter[V1_IPV4] += n_v4
    m.counter[V1_IPV6] += n_v6
    m.counter[V1_SYN] += n_syn
    m.counter[V1_IN] += n_in
    m.counter[V1_OUT] += n_out
    m.counter[V1_UNKNOWN] += total - n_in - n_out
    m.counter[V1_TOTAL] += total
    m.counter[V1_FILTERED] += n_filtered


# ---------------------------------------------------------------------- 2.0

cdef enum:
    V2_OBSERVED
    V2_DEEP
    V2_FILTERED
    V2_COUNTERS

cdef enum:
    V2D_UDP
    V2D_TCP
    V2D_OTHER
    V2D_IPV4
    V2D_IPV6
    V2D_SYN
    V2D_TOTAL
    V2D_COUNTERS

cdef enum:
    V2D_PPS
    V2D_BPS
    V2D_RATES


cdef class NetV2(NetBase):
    """net 2.0, JSON key `net`: per direction (metrics spec 6.4)."""

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False, geo_names=None, addresses=None):
        cdef int i
        self.n_blocks = 4
        self.layout[0].n_counter = V2_COUNTERS
        self.layout[0].n_rate = 1
        self.layout[1].n_counter = V2D_COUNTERS
        self.layout[1].n_card = 1
        self.layout[1].n_topn = 4
        self.layout[1].n_quant = 1
        self.layout[1].n_rate = V2D_RATES
        self.layout[1].quant_dense[0] = 1
        for i, kind in enumerate((KEY_IPV4, KEY_IPV6, KEY_GEO, KEY_GEO)):
            self.layout[1].topn_kind[i] = kind
        self.consume = <void (*)(void *, const Work *, Work *) noexcept nogil>consume_v2

    @staticmethod
    def fields():
        return {
            "observed_packets": ("counter", V2_OBSERVED),
            "deep_sampled_packets": ("counter", V2_DEEP),
            "filtered_packets": ("counter", V2_FILTERED),
            "rates.observed_pps": ("rate", 0),
            "D.udp_packets": ("counter", V2D_UDP),
            "D.tcp_packets": ("counter", V2D_TCP),
            "D.other_l4_packets": ("counter", V2D_OTHER),
            "D.ipv4_packets": ("counter", V2D_IPV4),
            "D.ipv6_packets": ("counter", V2D_IPV6),
            "D.tcp.syn_packets": ("counter", V2D_SYN),
            "D.total_packets": ("counter", V2D_TOTAL),
            "D.cardinality.ips": ("cardinality", 0),
            "D.top_ipv4_packets": ("topn", 0),
            "D.top_ipv6_packets": ("topn", 1),
            "D.top_geo_loc_packets": ("topn", 2),
            "D.top_asn_packets": ("topn", 3),
            "D.payload_size_bytes": ("quantile", 0),
            "D.rates.pps": ("rate", V2D_PPS),
            "D.rates.bps": ("rate", V2D_BPS),
        }


cdef void consume_v2(NetV2 self, const Work *w, Work *out) noexcept nogil:
    cdef MetricSet *top = self.sets[0]
    cdef MetricSet *m
    cdef uint64_t *rate
    cdef const Packet *p
    cdef uint32_t i, deep
    cdef bint filters = self.filter_city or self.filter_asn
    cdef uint64_t n_deep = 0, n_filtered = 0
    cdef Peers peers[3]        # by direction
    cdef Peers *mine
    for i in range(3):
        peers[i].m = self.sets[1 + i]
        peers[i].n = 0
    if w.n_pkts:
        top.used = 1
    if out != NULL:
        pass_on(self, w, out)
        if filters:
            out.n_pkts = 0
    for i in range(w.n_pkts):
        p = w.pkts[i]
        rate_row(&top.rate, p.ts)[0] += 1
        deep = (p.flags & PF_DEEP) != 0
        n_deep += deep
        if filters:
            if not accepts(self, p):
                n_filtered += 1
                continue
            if out != NULL:
                out.pkts[out.n_pkts] = w.pkts[i]
                out.n_pkts += 1
        m = self.sets[1 + p.direction]
        m.used = 1
        rate = rate_row(&m.rate, p.ts)
        rate[V2D_PPS] += 1
        rate[V2D_BPS] += p.wirelen
        kll_add_int(&m.quant[0], p.wirelen)
        m.counter[V2D_TOTAL] += 1
        m.counter[V2D_IPV4] += p.l3 == L3_IPV4
        m.counter[V2D_IPV6] += p.l3 == L3_IPV6
        m.counter[V2D_UDP] += p.proto == PROTO_UDP
        m.counter[V2D_TCP] += p.proto == PROTO_TCP
        m.counter[V2D_OTHER] += (p.proto != PROTO_UDP) & (p.proto != PROTO_TCP)
        m.counter[V2D_SYN] += (p.proto == PROTO_TCP) & ((p.tcp_flags & TCP_SYN) != 0) & deep
        if deep and p.l3:
            mine = &peers[p.direction]
            if mine.n >= PEERS - 1:
                count_peers(self.addresses, mine, self.user, self.what)
            add_peer(self.addresses, mine, &p.src[0] if p.direction != DIR_OUT else &p.dst[0], p.l3, 0,
                     <uint32_t>1 << p.direction)
            if p.direction == DIR_UNKNOWN:
                add_peer(self.addresses, mine, p.dst, p.l3, 0, <uint32_t>1 << p.direction)
    for i in range(3):
        count_peers(self.addresses, &peers[i], self.user, self.what)
    top.counter[V2_OBSERVED] += w.n_pkts
    top.counter[V2_DEEP] += n_deep
    top.counter[V2_FILTERED] += n_filtered

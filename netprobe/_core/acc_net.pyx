"""The net handler, 1.0 and 2.0: frames, peers and sizes (metrics spec 6).

Both count the outermost IP header and its protocol number; sizes are original lengths.
"""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netprobe._core.handler cimport Accumulator, Work
from netprobe._core.mmdb cimport Mmdb
from netprobe._core.packet cimport (
    DIR_IN, DIR_OUT, DIR_UNKNOWN, L3_IPV4, L3_IPV6, PF_DEEP, PROTO_TCP, PROTO_UDP, Packet,
)
from netprobe._core.sketch.freq cimport (
    KEY_GEO, KEY_IPV4, KEY_IPV6, Freq, freq_add_ipv6, freq_add_word, freq_hash, freq_prefetch, freq_update, np_prefetch,
)
from netprobe._core.sketch.hll cimport hll_add, hll_coupon
from netprobe._core.sketch.kll cimport kll_add_int
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.store cimport MetricSet
from netprobe._core.wire.be cimport load32, load64

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


cdef enum:
    KNOWN_FIRST = 256          # addresses that are remembered, powers of two: most policies never see many
    KNOWN_MOST = 16384
    FRONT_PLACES = 32          # records whose counts are added up before a table sees them, power of two


cdef struct Known:
    # what needs no second look: a query's client is met again with the response
    uint64_t hash              # of the address; 0: empty
    uint32_t city              # where it leads in the databases
    uint32_t asn
    uint32_t bucket            # `counted` is about this bucket
    uint32_t counted           # bit per block and cardinality that has seen the address


cdef struct PlaceCount:
    Freq *table
    const uint8_t *addr        # one that leads to the record
    uint32_t offset
    uint32_t count             # 0: empty
    int family


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
    cdef bint has_city_table, has_asn_table      # and its group is on
    cdef bint filter_city, filter_asn
    cdef object city_passes    # text of a location -> bool, asked once per record
    cdef object asn_passes
    cdef Verdicts *verdicts    # [0] city, [1] AS
    cdef Known *known          # direct mapped
    cdef uint64_t known_mask
    cdef uint32_t strangers    # met since `known` got its size
    cdef PlaceCount front[2][FRONT_PLACES]
    cdef uint32_t bucket
    cdef MetricSet *bucket_set # whose number `bucket` is

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False, geo_names=None):
        for name in config.groups:
            self.groups |= GROUP_BITS.get(name, 0)
        if geo_city is not None:
            self.city = geo_city
            self.has_city = True
        if geo_asn is not None:
            self.asn = geo_asn
            self.has_asn = True
        if not self.groups & G_TOP_GEO:
            self.has_city_table = self.has_asn_table = False
        else:
            self.has_city_table = self.has_city
            self.has_asn_table = self.has_asn
        self.known = <Known *>calloc(KNOWN_FIRST, sizeof(Known))
        if self.known == NULL:
            raise MemoryError
        self.known_mask = KNOWN_FIRST - 1
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
        free(self.known)


cdef inline uint8_t *geo_key(uint8_t *key, uint32_t offset, const uint8_t *addr, int family) noexcept nogil:
    """KEY_GEO: record offset, then an address that leads to it (IPv4 mapped)."""
    memcpy(key, &offset, 4)
    if family == L3_IPV4:
        memset(key + 4, 0, 10)
        key[14] = 0xFF
        key[15] = 0xFF
        memcpy(key + 16, addr, 4)
    else:
        memcpy(key + 4, addr, 16)
    return key


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


cdef inline bint all_zero(const uint8_t *a) noexcept nogil:
    return (load64(a) | load64(a + 8)) == 0


cdef enum:
    # tables of a peer, the same in both versions
    T_IPV4
    T_IPV6
    T_CITY
    T_ASN
    PEERS = 16                 # counted together: their cells are asked for first

cdef struct Peer:
    MetricSet *m
    const uint8_t *addr
    uint64_t hash
    int family
    int card
    uint32_t bit

cdef struct Peers:
    int n
    Peer peer[PEERS]


cdef inline void add_peer(NetBase self, Peers *peers, MetricSet *m, const uint8_t *addr, int family,
                          int card, uint32_t bit) noexcept nogil:
    """Note one remote address for count_peers: cardinality `card` and the tables of its block, `bit` names both."""
    cdef Peer *peer
    if all_zero(addr):
        return
    if peers.n == PEERS:
        count_peers(self, peers)
    peer = &peers.peer[peers.n]
    peers.n += 1
    peer.m = m
    peer.addr = addr
    peer.family = family
    peer.card = card
    peer.bit = bit
    peer.hash = freq_hash(addr, 4) if family == L3_IPV4 else freq_hash(addr, 16)
    np_prefetch(&self.known[peer.hash & self.known_mask])
    if self.groups & G_TOP_IPS:
        freq_prefetch(&m.topn[T_IPV4 if family == L3_IPV4 else T_IPV6], peer.hash)


cdef void count_peers(NetBase self, Peers *peers) noexcept nogil:
    cdef Known *known
    cdef Peer *peer
    cdef MetricSet *m
    cdef int i
    for i in range(peers.n):
        peer = &peers.peer[i]
        m = peer.m
        if self.groups & G_TOP_IPS:
            if peer.family == L3_IPV4:
                freq_add_word(&m.topn[T_IPV4], load32(peer.addr), peer.hash)
            else:
                freq_add_ipv6(&m.topn[T_IPV6], peer.addr, peer.hash)
        known = &self.known[peer.hash & self.known_mask]
        if known.hash != peer.hash:
            self.strangers += 1
            known.hash = peer.hash
            known.counted = 0
            if self.has_city_table:
                known.city = self.city.lookup(peer.addr, peer.family)
            if self.has_asn_table:
                known.asn = self.asn.lookup(peer.addr, peer.family)
        if known.bucket != self.bucket:
            known.bucket = self.bucket
            known.counted = 0
        if self.groups & G_CARDINALITY and not known.counted & peer.bit:
            known.counted |= peer.bit
            hll_add(&m.card[peer.card],
                    hll_coupon(peer.addr, 4) if peer.family == L3_IPV4 else hll_coupon(peer.addr, 16))
        if self.has_city_table:
            add_place(&self.front[0][0], &m.topn[T_CITY], known.city, peer)
        if self.has_asn_table:
            add_place(&self.front[1][0], &m.topn[T_ASN], known.asn, peer)
    peers.n = 0


cdef inline void add_place(PlaceCount *front, Freq *table, uint32_t offset, const Peer *peer) noexcept nogil:
    cdef PlaceCount *c = &front[(offset ^ (offset >> 8) ^ (peer.bit << 3)) & (FRONT_PLACES - 1)]
    if c.count and (c.offset != offset or c.table != table):
        count_place(c)
    c.table = table
    c.offset = offset
    c.addr = peer.addr
    c.family = peer.family
    c.count += 1


cdef void count_place(PlaceCount *c) noexcept nogil:
    cdef uint8_t key[20]
    geo_key(key, c.offset, c.addr, c.family)
    freq_update(c.table, key, 20, freq_hash(key, 4), c.count)
    c.count = 0


cdef void finish_peers(NetBase self, Peers *peers) noexcept nogil:
    """End of a batch: its addresses are not readable for longer."""
    cdef int which, i
    cdef Known *larger
    count_peers(self, peers)
    if self.strangers > 4 * self.known_mask and self.known_mask < KNOWN_MOST - 1:
        # what was known is met again soon enough
        larger = <Known *>calloc(4 * (self.known_mask + 1), sizeof(Known))
        if larger != NULL:
            free(self.known)
            self.known = larger
            self.known_mask = 4 * self.known_mask + 3
        self.strangers = 0
    for which in range(2):
        if self.has_city_table if which == 0 else self.has_asn_table:
            for i in range(FRONT_PLACES):
                if self.front[which][i].count:
                    count_place(&self.front[which][i])


cdef inline void look_at_bucket(NetBase self, MetricSet *m) noexcept nogil:
    """A new bucket has counted no address yet."""
    if m != self.bucket_set:
        self.bucket_set = m
        self.bucket += 1


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

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False, geo_names=None):
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
    cdef uint32_t i, size
    cdef bint deep
    cdef bint filters = self.filter_city or self.filter_asn
    cdef uint64_t n_deep = 0, n_udp = 0, n_tcp = 0, n_v4 = 0, n_v6 = 0, n_syn = 0
    cdef uint64_t n_in = 0, n_out = 0, n_filtered = 0
    cdef Peers peers
    peers.n = 0
    look_at_bucket(self, m)
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
        deep = p.flags & PF_DEEP
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
        if p.l3 == L3_IPV4:
            n_v4 += 1
        elif p.l3 == L3_IPV6:
            n_v6 += 1
        if p.proto == PROTO_UDP:
            n_udp += 1
        elif p.proto == PROTO_TCP:
            n_tcp += 1
            if p.tcp_flags & TCP_SYN:
                n_syn += deep
        if p.direction == DIR_IN:
            n_in += 1
            rate[V1_PPS_IN] += 1
            rate[V1_BYTES_IN] += size
            if deep:
                add_peer(self, &peers, m, p.src, p.l3, 0, 1)
        elif p.direction == DIR_OUT:
            n_out += 1
            rate[V1_PPS_OUT] += 1
            rate[V1_BYTES_OUT] += size
            if deep:
                add_peer(self, &peers, m, p.dst, p.l3, 1, 2)
    finish_peers(self, &peers)
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

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False, geo_names=None):
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
    cdef uint32_t i
    cdef bint deep
    cdef bint filters = self.filter_city or self.filter_asn
    cdef uint64_t n_deep = 0, n_filtered = 0
    cdef Peers peers
    peers.n = 0
    look_at_bucket(self, top)
    if w.n_pkts:
        top.used = 1
    if out != NULL:
        pass_on(self, w, out)
        if filters:
            out.n_pkts = 0
    for i in range(w.n_pkts):
        p = w.pkts[i]
        rate_row(&top.rate, p.ts)[0] += 1
        deep = p.flags & PF_DEEP
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
        if p.l3 == L3_IPV4:
            m.counter[V2D_IPV4] += 1
        elif p.l3 == L3_IPV6:
            m.counter[V2D_IPV6] += 1
        if p.proto == PROTO_UDP:
            m.counter[V2D_UDP] += 1
        elif p.proto == PROTO_TCP:
            m.counter[V2D_TCP] += 1
            if deep and p.tcp_flags & TCP_SYN:
                m.counter[V2D_SYN] += 1
        else:
            m.counter[V2D_OTHER] += 1
        if deep and p.l3:
            if p.direction != DIR_OUT:
                add_peer(self, &peers, m, p.src, p.l3, 0, <uint32_t>1 << p.direction)
            if p.direction != DIR_IN:
                add_peer(self, &peers, m, p.dst, p.l3, 0, <uint32_t>1 << p.direction)
    finish_peers(self, &peers)
    top.counter[V2_OBSERVED] += w.n_pkts
    top.counter[V2_DEEP] += n_deep
    top.counter[V2_FILTERED] += n_filtered

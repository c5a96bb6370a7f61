"""The dns handlers' inner loops (metrics spec 7). Groups are bit flags; a message's name is hashed once."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from netprobe._core.dns_filter cimport (
    DF_QNAME, DF_RCODE, DF_SUFFIX, DF_V2_QUERY, DF_V2_RESPONSE, DnsFilter, dns_name_hash,
)
from netprobe._core.handler cimport Accumulator, Work
from netprobe._core.packet cimport (
    DIR_IN, DIR_OUT, DIR_UNKNOWN, L3_IPV4, L3_IPV6, PF_DEEP, Packet,
)
from netprobe._core.sketch.freq cimport (
    KEY_ADDR, KEY_GEO, KEY_NAME, KEY_U16, Freq, freq_add_number, freq_hash, freq_hash_padded, freq_prefetch,
    freq_prefetch_name, freq_prefetch_word, freq_update, freq_update_name,
)
from netprobe._core.sketch.hist cimport hist_update
from netprobe._core.sketch.hll cimport hll_add, hll_coupon_padded, hll_prefetch
from netprobe._core.sketch.kll cimport Kll, kll_add_int, kll_count, kll_quantiles, kll_update
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.store cimport Layout, MetricSet
from netprobe._core.suffix import public_suffixes
from netprobe._core.wire.dns cimport (
    DNS_BAD_RECORDS, DNS_DOQ, DNS_OK, DNS_SHORT, DNS_TCP, DNS_UDP, DNS_WANT_ECS, DnsMsg, dns_aggregate,
)
from netprobe._core.xact cimport (
    Xact, xact_find, xact_free, xact_init, xact_prefetch, xact_purge, xact_remove, xact_start,
)

ctypedef void (*consume_fn)(void *self, const Work *work, Work *out) noexcept nogil
ctypedef void (*shifted_fn)(void *self, MetricSet **closed, int64_t now) noexcept nogil

cdef enum:
    # groups of both versions
    G_CARDINALITY = 1
    G_COUNTERS = 2
    G_QUANTILES = 4
    G_HISTOGRAMS = 8
    G_XACT = 16
    G_ECS = 32
    G_QNAMES = 64
    G_DETAILS = 128
    G_PORTS = 256
    G_QTYPES = 512
    G_RCODES = 1024
    G_SIZE = 2048
    G_TIMES = 4096
    XACT_LG_MAX = 18
    AGG_NONE = 255
    SUFFIX_MAX = 255
    # header codes that have counters and tables of their own
    RCODE_NOERROR = 0
    RCODE_SRVFAIL = 2
    RCODE_NXDOMAIN = 3
    RCODE_REFUSED = 5
    N_CODES = 512            # codes whose table hash is computed beforehand
    # messages between asking for a table's cell, then for the name it points to, and the update itself
    AHEAD = 8
    NEAR = 4

GROUPS = {
    "cardinality": G_CARDINALITY,
    "counters": G_COUNTERS,
    "quantiles": G_QUANTILES,
    "histograms": G_HISTOGRAMS,
    "dns_transaction": G_XACT,
    "top_ecs": G_ECS,
    "top_qnames": G_QNAMES,
    "top_qnames_details": G_DETAILS,
    "top_ports": G_PORTS,
    "top_qtypes": G_QTYPES,
    "top_rcodes": G_RCODES,
    "top_size": G_SIZE,
    "xact_times": G_TIMES,
}

cdef uint64_t code_hash[N_CODES]


cdef void init_codes() noexcept:
    cdef uint32_t i
    for i in range(N_CODES):
        code_hash[i] = freq_hash(<const uint8_t *>&i, 4)


init_codes()


# --- what a message adds to tables -----------------------------------------------------------------------------

cdef inline void add_code(CodeFront *front, Freq *f, uint32_t value) noexcept nogil:
    """As freq_add_number for codes and types: the few that occur are added up first."""
    if value >= FRONT_CODES:
        freq_add_number(f, value)
        return
    if front.count[value] == 0:
        front.seen[front.n] = <uint16_t>value
        front.n += 1
    front.count[value] += 1


cdef void flush_codes(CodeFront *front, Freq *f) noexcept nogil:
    cdef uint32_t i, value
    for i in range(front.n):
        value = front.seen[i]
        freq_update(f, <const uint8_t *>&value, 4, code_hash[value], front.count[value])
        front.count[value] = 0
    front.n = 0


cdef inline void add_name(Freq *f, DnsMsg *m, uint64_t weight) noexcept nogil:
    freq_update_name(f, m.name, m.name_len, dns_name_hash(m), weight)


cdef inline void find_levels(DnsMsg *m, uint32_t suffix_len) noexcept nogil:
    """Where the two levels of the name begin, and their hashes."""
    if suffix_len > SUFFIX_MAX:
        suffix_len = SUFFIX_MAX
    if not m.agg_done or m.suffix_len != suffix_len:
        dns_aggregate(m, suffix_len)
    if m.h_agg2 == 0:
        m.h_agg2 = freq_hash_padded(m.name + m.agg2, m.name_len - m.agg2)
    if m.h_agg3 == 0 and m.agg3 != AGG_NONE:
        m.h_agg3 = freq_hash_padded(m.name + m.agg3, m.name_len - m.agg3)


cdef inline void add_levels(Freq *level2, Freq *level3, DnsMsg *m, uint32_t suffix_len) noexcept nogil:
    find_levels(m, suffix_len)
    freq_update_name(level2, m.name + m.agg2, m.name_len - m.agg2, m.h_agg2, 1)
    if m.agg3 != AGG_NONE:
        freq_update_name(level3, m.name + m.agg3, m.name_len - m.agg3, m.h_agg3, 1)


cdef inline void add_slow_raw(Freq *f, DnsMsg *m) noexcept nogil:
    # dns 1.0 keeps the case here
    if m.is_mixed:
        freq_update(f, m.raw, m.name_len, freq_hash(m.raw, m.name_len), 1)
    else:
        add_name(f, m, 1)


cdef void add_subnet(DnsAccumulator me, MetricSet *s, int table, int geo, int asn, int ecs_family,
                     const uint8_t *addr) noexcept nogil:
    """A client subnet, its place and its network."""
    cdef uint8_t key[20]
    cdef uint32_t offset
    cdef int family = 4 if ecs_family == 1 else 6
    memset(key, 0, 20)
    key[0] = <uint8_t>family
    memcpy(key + 1, addr, 4 if family == 4 else 16)
    freq_update(&s.topn[table], key, 17, freq_hash(key, 17), 1)
    if me.city is None and me.asn is None:
        return
    if family == 4:
        # IPv4 within IPv6, which is how the renderer reads it
        memset(key + 4, 0, 16)
        key[14] = key[15] = 0xff
        memcpy(key + 16, addr, 4)
    else:
        memcpy(key + 4, addr, 16)
    if me.city is not None:
        offset = me.city.lookup(addr, family)
        memcpy(key, &offset, 4)
        freq_update(&s.topn[geo], key, 20, freq_hash(key, 4), 1)
    if me.asn is not None:
        offset = me.asn.lookup(addr, family)
        memcpy(key, &offset, 4)
        freq_update(&s.topn[asn], key, 20, freq_hash(key, 4), 1)


cdef inline bint decodable(const DnsMsg *m) noexcept nogil:
    # header and question could be read (there may be no question)
    return m.status == DNS_OK or m.status == DNS_BAD_RECORDS


cdef inline uint64_t xact_key(const DnsMsg *m) noexcept nogil:
    return m.flow_hash + (<uint64_t>m.id + 1) * <uint64_t>0x9e3779b97f4a7c15


cdef inline int64_t elapsed(int64_t start, int64_t end) noexcept nogil:
    # stamps of a capture may run backwards
    return end - start if end >= start else start - end


cdef inline void hand_on(Work *out, DnsMsg *m) noexcept nogil:
    if out == NULL:
        return
    out.dns[out.n_dns] = m
    out.n_dns += 1
    out.pkts[out.n_pkts] = <Packet *>m.pkt
    out.n_pkts += 1
    if m.tcp == DNS_UDP:
        out.udp[out.n_udp] = <Packet *>m.pkt
        out.n_udp += 1


cdef inline void empty(Work *out) noexcept nogil:
    if out != NULL:
        out.n_pkts = out.n_udp = out.n_dns = out.n_bgp = out.tcp_errors = 0
        out.error_ts = 0


cdef inline uint32_t public_suffix(DnsAccumulator me, const DnsMsg *m) noexcept nogil:
    return me.suffixes.length(m.name, m.name_len) if me.suffixes is not None else 0


cdef float threshold(const Kll *times, float old) noexcept nogil:
    # a period without transactions leaves the threshold as it was
    cdef double rank = 0.9, p90 = 0
    if kll_count(times) == 0 or kll_quantiles(times, &rank, 1, &p90) < 0:
        return old
    return <float>p90


cdef class DnsAccumulator(Accumulator):
    """Options, filters and open transactions of a dns handler.

    ``config`` has ``groups`` (names) and ``options`` (checked values by key). ``geo_city`` and ``geo_asn`` are
    databases or None. ``chained``: the handler stands behind another one.
    """

    def __cinit__(self, config, geo_city=None, geo_asn=None, chained=False):
        cdef int lg = XACT_LG_MAX
        options = config.options
        self.city = geo_city
        self.asn = geo_asn
        self.filter = DnsFilter(options, geo_city, geo_asn)
        for group in config.groups:
            self.groups |= <uint32_t>GROUPS[group]
        if options.get("public_suffix_list") and options.get("only_qname_suffix") is None:
            self.suffixes = public_suffixes()
        ttl = options.get("xact_ttl_ms")
        xact_init(&self.xacts, lg, <int64_t>(5000 if ttl is None else ttl) * 1_000_000)
        self.needs_dns = 1
        self.needs_streams = 1
        self.dns_want = self.filter.want
        if self.groups & G_ECS:
            self.dns_want |= DNS_WANT_ECS

    def __dealloc__(self):
        xact_free(&self.xacts)

    def open_transactions(self):
        """Queries that wait for their response."""
        return self.xacts.active

    def health(self):
        """What was lost: transactions evicted for room, datagrams too short to be DNS."""
        return {"xact_evicted": self.xacts.evicted, "unreadable": self.unreadable}


# --- 1.0: messages ---------------------------------------------------------------------------------------------

cdef enum:
    V1_EVENTS = 0
    V1_DEEP
    V1_TOTAL
    V1_FILTERED
    V1_QUERIES
    V1_REPLIES
    V1_UDP                   # + DnsMsg.tcp, for UDP and TCP
    V1_TCP
    V1_IPV4
    V1_IPV6
    V1_NOERROR
    V1_NODATA
    V1_NXDOMAIN
    V1_REFUSED
    V1_SRVFAIL
    V1_QUERY_ECS
    V1_XACTS
    V1_TIMED_OUT
    V1_XACTS_IN
    V1_XACTS_OUT
    V1_OTHER_CODE            # not shown
    V1_COUNTERS

cdef enum:
    V1_T_PORT = 0
    V1_T_QNAME2
    V1_T_QNAME3
    V1_T_NXDOMAIN
    V1_T_REFUSED
    V1_T_SRVFAIL
    V1_T_NODATA
    V1_T_NOERROR
    V1_T_BYTES
    V1_T_RCODE
    V1_T_QTYPE
    V1_T_ECS
    V1_T_GEO
    V1_T_ASN
    V1_T_SLOW_IN
    V1_T_SLOW_OUT
    V1_TOPN

cdef enum:
    V1_R_EVENTS = 0
    V1_R_TOTAL
    V1_RATES

cdef enum:
    V1_Q_IN = 0              # + 1 for out; histograms likewise
    V1_Q_OUT
    V1_Q_RATIO
    V1_QUANTS

cdef uint8_t v1_code_counter[16]


cdef void init_code_counters() noexcept:
    cdef int i
    for i in range(16):
        v1_code_counter[i] = V1_OTHER_CODE
    v1_code_counter[RCODE_NOERROR] = V1_NOERROR
    v1_code_counter[RCODE_NXDOMAIN] = V1_NXDOMAIN
    v1_code_counter[RCODE_REFUSED] = V1_REFUSED
    v1_code_counter[RCODE_SRVFAIL] = V1_SRVFAIL


init_code_counters()


cdef void v1_layout(Layout *l) noexcept:
    cdef int i
    l.n_counter = V1_COUNTERS
    l.n_card = 1
    l.n_topn = V1_TOPN
    l.n_quant = V1_QUANTS
    l.n_hist = 2
    l.n_rate = V1_RATES
    for i in range(V1_TOPN):
        l.topn_kind[i] = KEY_NAME
    l.topn_kind[V1_T_PORT] = l.topn_kind[V1_T_RCODE] = l.topn_kind[V1_T_QTYPE] = KEY_U16
    l.topn_kind[V1_T_ECS] = KEY_ADDR
    l.topn_kind[V1_T_GEO] = l.topn_kind[V1_T_ASN] = KEY_GEO


cdef void v1_deep(DnsV1 me, MetricSet *s, DnsMsg *m, uint32_t suffix_len) noexcept nogil:
    cdef uint32_t on = me.groups
    if on & G_PORTS and m.port:
        freq_add_number(&s.topn[V1_T_PORT], m.port)
    if not decodable(m):
        return
    if m.qr:
        add_code(&me.rcodes[0], &s.topn[V1_T_RCODE], m.rcode)
    elif on & G_ECS and m.ecs_family:
        if on & G_COUNTERS:
            s.counter[V1_QUERY_ECS] += 1
        add_subnet(me, s, V1_T_ECS, V1_T_GEO, V1_T_ASN, m.ecs_family, m.ecs_addr)
    if not m.has_question:
        return
    add_code(&me.types[0], &s.topn[V1_T_QTYPE], m.qtype)
    if on & G_CARDINALITY:
        if m.coupon == 0:
            m.coupon = hll_coupon_padded(m.name, m.name_len)
        hll_add(&s.card[0], m.coupon)
    if not on & G_QNAMES:
        return
    add_levels(&s.topn[V1_T_QNAME2], &s.topn[V1_T_QNAME3], m, suffix_len if suffix_len else public_suffix(me, m))
    if not m.qr:
        return
    if m.rcode == RCODE_NOERROR:
        if m.counts[1] == 0:
            add_name(&s.topn[V1_T_NODATA], m, 1)
        if on & G_DETAILS:
            add_name(&s.topn[V1_T_NOERROR], m, 1)
    elif m.rcode == RCODE_NXDOMAIN:
        add_name(&s.topn[V1_T_NXDOMAIN], m, 1)
    elif m.rcode == RCODE_REFUSED:
        add_name(&s.topn[V1_T_REFUSED], m, 1)
    elif m.rcode == RCODE_SRVFAIL:
        add_name(&s.topn[V1_T_SRVFAIL], m, 1)
    if on & G_DETAILS:
        add_name(&s.topn[V1_T_BYTES], m, m.size)


cdef void v1_transaction(DnsV1 me, MetricSet *s, DnsMsg *m, int deep) noexcept nogil:
    cdef Xact *x
    cdef int64_t took
    cdef uint64_t us
    cdef uint32_t query_size
    cdef int side
    if not m.qr:
        x = xact_start(&me.xacts, xact_key(m), 0, m.ts)
        if x != NULL:
            x.size = m.size
        return
    x = xact_find(&me.xacts, xact_key(m), 0)
    if x == NULL:
        return
    took = elapsed(x.start, m.ts)
    query_size = x.size
    xact_remove(&me.xacts, x)
    if took >= me.xacts.ttl_ns:
        s.counter[V1_TIMED_OUT] += 1
        return
    s.counter[V1_XACTS] += 1
    # a response to the host: the host is the client
    side = 1 if m.pkt.direction == DIR_IN else 0
    if m.pkt.direction != DIR_UNKNOWN:
        s.counter[V1_XACTS_IN + side] += 1
    if not deep:
        return
    if me.groups & G_QUANTILES and query_size:
        kll_update(&s.quant[V1_Q_RATIO], <double>m.size / <double>query_size)
    if m.pkt.direction == DIR_UNKNOWN:
        return
    us = <uint64_t>took / 1000
    if me.groups & G_QUANTILES:
        kll_add_int(&s.quant[V1_Q_IN + side], us)
    if me.groups & G_HISTOGRAMS:
        hist_update(&s.hist[side], <double>us)
    if me.slow[side] > 0 and <float>us >= me.slow[side] and m.has_question:
        add_slow_raw(&s.topn[V1_T_SLOW_IN + side], m)


cdef inline int v1_code_table(const DnsMsg *m) noexcept nogil:
    """The table of names that a response of this code goes to; -1: none by default."""
    if not m.qr:
        return -1
    if m.rcode == RCODE_NOERROR:
        return V1_T_NODATA if m.counts[1] == 0 else -1
    if m.rcode == RCODE_NXDOMAIN:
        return V1_T_NXDOMAIN
    if m.rcode == RCODE_REFUSED:
        return V1_T_REFUSED
    return V1_T_SRVFAIL if m.rcode == RCODE_SRVFAIL else -1


cdef void v1_ahead(DnsV1 me, MetricSet *s, DnsMsg *m) noexcept nogil:
    """Hash what this message will be counted by and ask for the cells; nothing is counted yet."""
    cdef uint32_t on = me.groups
    cdef int table
    if on & G_XACT:
        xact_prefetch(&me.xacts, xact_key(m), 0)
    if not m.pkt.flags & PF_DEEP or not decodable(m) or not m.has_question:
        return
    if on & G_PORTS:
        freq_prefetch_word(&s.topn[V1_T_PORT], m.port)
    if on & G_CARDINALITY:
        if m.coupon == 0:
            m.coupon = hll_coupon_padded(m.name, m.name_len)
        hll_prefetch(&s.card[0], m.coupon)
    # with a filter on suffixes the levels depend on which one matches
    if not on & G_QNAMES or me.filter.active & DF_SUFFIX:
        return
    find_levels(m, public_suffix(me, m))
    freq_prefetch(&s.topn[V1_T_QNAME2], m.h_agg2)
    if m.agg3 != AGG_NONE:
        freq_prefetch(&s.topn[V1_T_QNAME3], m.h_agg3)
    table = v1_code_table(m)
    if table >= 0:
        freq_prefetch(&s.topn[table], dns_name_hash(m))
    if on & G_DETAILS and m.qr:
        freq_prefetch(&s.topn[V1_T_BYTES], dns_name_hash(m))
        freq_prefetch(&s.topn[V1_T_NOERROR], m.h_name)


cdef void v1_near(DnsV1 me, MetricSet *s, const DnsMsg *m) noexcept nogil:
    if not m.agg_done or not me.groups & G_QNAMES:
        return
    freq_prefetch_name(&s.topn[V1_T_QNAME2], m.h_agg2)
    if m.agg3 != AGG_NONE:
        freq_prefetch_name(&s.topn[V1_T_QNAME3], m.h_agg3)
    if me.groups & G_DETAILS and m.qr and m.h_name:
        freq_prefetch_name(&s.topn[V1_T_BYTES], m.h_name)
        freq_prefetch_name(&s.topn[V1_T_NOERROR], m.h_name)


cdef void v1_consume(DnsV1 me, const Work *work, Work *out) noexcept nogil:
    cdef MetricSet *s = me.sets[0]
    cdef uint32_t i, suffix_len
    cdef uint64_t *row
    cdef DnsMsg *m
    cdef int deep
    empty(out)
    if s == NULL:
        return
    for i in range(AHEAD if AHEAD < work.n_dns else work.n_dns):
        v1_ahead(me, s, work.dns[i])
    for i in range(work.n_dns):
        m = work.dns[i]
        if i + AHEAD < work.n_dns:
            v1_ahead(me, s, work.dns[i + AHEAD])
        if i + NEAR < work.n_dns:
            v1_near(me, s, work.dns[i + NEAR])
        if me.dispatch and m.tcp == DNS_UDP and not me.filter.dispatched(m):
            continue
        row = rate_row(&s.rate, m.ts)
        row[V1_R_EVENTS] += 1
        s.counter[V1_EVENTS] += 1
        deep = m.pkt.flags & PF_DEEP
        if deep:
            s.counter[V1_DEEP] += 1
        if m.status == DNS_SHORT:
            me.unreadable += 1
            continue
        suffix_len = 0
        if me.filter.active and not me.filter.passes(m, <uint32_t>-1, &suffix_len):
            s.counter[V1_FILTERED] += 1
            continue
        hand_on(out, m)
        row[V1_R_TOTAL] += 1
        if me.groups & G_COUNTERS:
            s.counter[V1_TOTAL] += 1
            if m.tcp <= DNS_TCP:
                s.counter[V1_UDP + m.tcp] += 1
            # without branches: nothing about the next message can be predicted
            s.counter[V1_IPV4] += m.pkt.l3 == L3_IPV4
            s.counter[V1_IPV6] += m.pkt.l3 == L3_IPV6
            s.counter[V1_QUERIES] += not m.qr
            s.counter[V1_REPLIES] += m.qr
            s.counter[v1_code_counter[m.rcode & 15]] += m.qr
            s.counter[V1_NODATA] += m.qr & (m.rcode == RCODE_NOERROR) & (m.counts[1] == 0)
        if deep:
            v1_deep(me, s, m, suffix_len)
        if me.groups & G_XACT:
            v1_transaction(me, s, m, deep)
    flush_codes(&me.rcodes[0], &s.topn[V1_T_RCODE])
    flush_codes(&me.types[0], &s.topn[V1_T_QTYPE])


cdef void v1_shifted(DnsV1 me, MetricSet **closed, int64_t now) noexcept nogil:
    cdef uint64_t purged[3]
    cdef int i
    memset(purged, 0, sizeof(purged))
    xact_purge(&me.xacts, now, purged)
    if me.sets[0] != NULL:
        me.sets[0].counter[V1_TIMED_OUT] += purged[0]
    if closed != NULL and closed[0] != NULL:
        for i in range(2):
            me.slow[i] = threshold(&closed[0].quant[V1_Q_IN + i], me.slow[i])


V1_FIELDS = {
    "wire_packets.events": ("counter", V1_EVENTS),
    "wire_packets.deep_samples": ("counter", V1_DEEP),
    "rates.events": ("rate", V1_R_EVENTS),
    "rates.total": ("rate", V1_R_TOTAL),
    "wire_packets.total": ("counter", V1_TOTAL),
    "wire_packets.filtered": ("counter", V1_FILTERED),
    "wire_packets.queries": ("counter", V1_QUERIES),
    "wire_packets.replies": ("counter", V1_REPLIES),
    "wire_packets.udp": ("counter", V1_UDP),
    "wire_packets.tcp": ("counter", V1_TCP),
    "wire_packets.ipv4": ("counter", V1_IPV4),
    "wire_packets.ipv6": ("counter", V1_IPV6),
    "wire_packets.noerror": ("counter", V1_NOERROR),
    "wire_packets.nodata": ("counter", V1_NODATA),
    "wire_packets.nxdomain": ("counter", V1_NXDOMAIN),
    "wire_packets.refused": ("counter", V1_REFUSED),
    "wire_packets.srvfail": ("counter", V1_SRVFAIL),
    "wire_packets.query_ecs": ("counter", V1_QUERY_ECS),
    "cardinality.qname": ("cardinality", 0),
    "top_udp_ports": ("topn", V1_T_PORT),
    "top_qname2": ("topn", V1_T_QNAME2),
    "top_qname3": ("topn", V1_T_QNAME3),
    "top_nxdomain": ("topn", V1_T_NXDOMAIN),
    "top_refused": ("topn", V1_T_REFUSED),
    "top_srvfail": ("topn", V1_T_SRVFAIL),
    "top_nodata": ("topn", V1_T_NODATA),
    "top_noerror": ("topn", V1_T_NOERROR),
    "top_qname_by_resp_bytes": ("topn", V1_T_BYTES),
    "top_rcode": ("topn", V1_T_RCODE),
    "top_qtype": ("topn", V1_T_QTYPE),
    "top_query_ecs": ("topn", V1_T_ECS),
    "top_geoLoc_ecs": ("topn", V1_T_GEO),
    "top_asn_ecs": ("topn", V1_T_ASN),
    "xact.counts.total": ("counter", V1_XACTS),
    "xact.counts.timed_out": ("counter", V1_TIMED_OUT),
    "xact.in.total": ("counter", V1_XACTS_IN),
    "xact.out.total": ("counter", V1_XACTS_OUT),
    "xact.in.quantiles_us": ("quantile", V1_Q_IN),
    "xact.out.quantiles_us": ("quantile", V1_Q_OUT),
    "xact.in.histogram_us": ("histogram", 0),
    "xact.out.histogram_us": ("histogram", 1),
    "xact.ratio.quantiles": ("quantile", V1_Q_RATIO),
    "xact.in.top_slow": ("topn", V1_T_SLOW_IN),
    "xact.out.top_slow": ("topn", V1_T_SLOW_OUT),
}


cdef class DnsV1(DnsAccumulator):
    """dns 1.0: one block, every message counts."""

    def __cinit__(self, config, geo_city=None, geo_asn=None, chained=False):
        self.n_blocks = 1
        v1_layout(&self.layout[0])
        self.consume = <consume_fn>v1_consume
        self.shifted = <shifted_fn>v1_shifted
        self.dispatch = not chained and self.filter.active & (DF_RCODE | DF_QNAME) != 0

    @staticmethod
    def fields():
        """JSON path -> kind and index within the block."""
        return V1_FIELDS


# --- 2.0: transactions -----------------------------------------------------------------------------------------

cdef enum:
    V2_OBSERVED = 0
    V2_DEEP
    V2_FILTERED
    V2_TOP_COUNTERS

cdef enum:
    V2_XACTS = 0
    V2_TRANSPORT             # + DnsMsg.tcp
    V2_IPV4 = 8
    V2_IPV6
    V2_NOERROR
    V2_NODATA
    V2_NXDOMAIN
    V2_REFUSED
    V2_SRVFAIL
    V2_AD
    V2_AA
    V2_CD
    V2_ECS
    V2_TIMEOUT
    V2_ORPHAN
    V2_COUNTERS

cdef enum:
    V2_T_PORT = 0
    V2_T_BYTES
    V2_T_SLOW
    V2_T_QNAME2
    V2_T_QNAME3
    V2_T_NOERROR
    V2_T_NODATA
    V2_T_NXDOMAIN
    V2_T_REFUSED
    V2_T_SRVFAIL
    V2_T_RCODE
    V2_T_QTYPE
    V2_T_ECS
    V2_T_GEO
    V2_T_ASN
    V2_TOPN

cdef enum:
    V2_Q_RATIO = 0
    V2_Q_TIME
    V2_QUANTS

cdef void v2_layout(Layout *top, Layout *block) noexcept:
    cdef int i
    top.n_counter = V2_TOP_COUNTERS
    top.n_rate = 1
    block.n_counter = V2_COUNTERS
    block.n_card = 1
    block.n_topn = V2_TOPN
    block.n_quant = V2_QUANTS
    block.n_hist = 1
    block.n_rate = 1
    for i in range(V2_TOPN):
        block.topn_kind[i] = KEY_NAME
    block.topn_kind[V2_T_PORT] = block.topn_kind[V2_T_RCODE] = block.topn_kind[V2_T_QTYPE] = KEY_U16
    block.topn_kind[V2_T_ECS] = KEY_ADDR
    block.topn_kind[V2_T_GEO] = block.topn_kind[V2_T_ASN] = KEY_GEO


cdef void v2_names(DnsV2 me, MetricSet *b, DnsMsg *m, const Xact *x, int dir) noexcept nogil:
    """Codes, names and subnet of a deep transaction whose response could be decoded."""
    cdef uint32_t on = me.groups
    if on & G_ECS and x.has_ecs:
        b.counter[V2_ECS] += 1
        add_subnet(me, b, V2_T_ECS, V2_T_GEO, V2_T_ASN, x.ecs_family, x.ecs_addr)
    if on & G_RCODES:
        add_code(&me.rcodes[dir], &b.topn[V2_T_RCODE], m.rcode)
    if not m.has_question:
        return
    if on & G_CARDINALITY:
        if m.coupon == 0:
            m.coupon = hll_coupon_padded(m.name, m.name_len)
        hll_add(&b.card[0], m.coupon)
    if on & G_QTYPES:
        add_code(&me.types[dir], &b.topn[V2_T_QTYPE], m.qtype)
    if on & G_QNAMES:
        add_levels(&b.topn[V2_T_QNAME2], &b.topn[V2_T_QNAME3], m, public_suffix(me, m))
    if on & G_RCODES:
        if m.rcode == RCODE_NOERROR:
            if m.counts[1] == 0:
                add_name(&b.topn[V2_T_NODATA], m, 1)
            add_name(&b.topn[V2_T_NOERROR], m, 1)
        elif m.rcode == RCODE_NXDOMAIN:
            add_name(&b.topn[V2_T_NXDOMAIN], m, 1)
        elif m.rcode == RCODE_REFUSED:
            add_name(&b.topn[V2_T_REFUSED], m, 1)
        elif m.rcode == RCODE_SRVFAIL:
            add_name(&b.topn[V2_T_SRVFAIL], m, 1)
    if on & G_SIZE:
        add_name(&b.topn[V2_T_BYTES], m, m.size)


cdef void v2_transaction(DnsV2 me, MetricSet *b, DnsMsg *m, const Xact *x, int64_t took, int dir,
                         int deep) noexcept nogil:
    cdef uint32_t on = me.groups
    cdef uint64_t us
    if on & G_QUANTILES:
        rate_row(&b.rate, m.ts)[0] += 1
    if on & G_COUNTERS:
        b.counter[V2_XACTS] += 1
        if m.tcp <= DNS_DOQ:
            b.counter[V2_TRANSPORT + m.tcp] += 1
        if m.pkt.l3 == L3_IPV4:
            b.counter[V2_IPV4] += 1
        elif m.pkt.l3 == L3_IPV6:
            b.counter[V2_IPV6] += 1
        if m.rcode == RCODE_NOERROR:
            b.counter[V2_NOERROR] += 1
            if m.counts[1] == 0:
                b.counter[V2_NODATA] += 1
        elif m.rcode == RCODE_NXDOMAIN:
            b.counter[V2_NXDOMAIN] += 1
        elif m.rcode == RCODE_REFUSED:
            b.counter[V2_REFUSED] += 1
        elif m.rcode == RCODE_SRVFAIL:
            b.counter[V2_SRVFAIL] += 1
        b.counter[V2_AD] += m.ad
        b.counter[V2_AA] += m.aa
        b.counter[V2_CD] += x.checking_disabled
    if not deep:
        return
    if on & G_PORTS and m.port:
        freq_add_number(&b.topn[V2_T_PORT], m.port)
    if on & G_SIZE and x.size:
        kll_update(&b.quant[V2_Q_RATIO], <double>m.size / <double>x.size)
    if decodable(m):
        v2_names(me, b, m, x, dir)
    if on & G_TIMES:
        us = <uint64_t>took / 1000
        kll_add_int(&b.quant[V2_Q_TIME], us)
        hist_update(&b.hist[0], <double>us)
        if me.slow[dir] > 0 and <float>us >= me.slow[dir] and m.has_question:
            add_name(&b.topn[V2_T_SLOW], m, 1)


cdef inline int direction_of(const DnsMsg *m) noexcept nogil:
    """Of the transaction, seen from the query."""
    cdef int dir = m.pkt.direction
    if m.qr and dir != DIR_UNKNOWN:
        dir = DIR_OUT if dir == DIR_IN else DIR_IN
    return dir


cdef inline int v2_code_table(const DnsMsg *m) noexcept nogil:
    if m.rcode == RCODE_NOERROR:
        return V2_T_NOERROR
    if m.rcode == RCODE_NXDOMAIN:
        return V2_T_NXDOMAIN
    if m.rcode == RCODE_REFUSED:
        return V2_T_REFUSED
    return V2_T_SRVFAIL if m.rcode == RCODE_SRVFAIL else -1


cdef void v2_ahead(DnsV2 me, DnsMsg *m) noexcept nogil:
    """As v1_ahead; names count with the response."""
    cdef uint32_t on = me.groups
    cdef int dir = direction_of(m)
    cdef int table
    cdef MetricSet *b = me.sets[1 + dir]
    xact_prefetch(&me.xacts, xact_key(m), dir)
    if not m.qr or b == NULL or not m.pkt.flags & PF_DEEP or not decodable(m) or not m.has_question:
        return
    if on & G_PORTS:
        freq_prefetch_word(&b.topn[V2_T_PORT], m.port)
    if on & G_CARDINALITY:
        if m.coupon == 0:
            m.coupon = hll_coupon_padded(m.name, m.name_len)
        hll_prefetch(&b.card[0], m.coupon)
    if on & G_QNAMES:
        find_levels(m, public_suffix(me, m))
        freq_prefetch(&b.topn[V2_T_QNAME2], m.h_agg2)
        if m.agg3 != AGG_NONE:
            freq_prefetch(&b.topn[V2_T_QNAME3], m.h_agg3)
    if on & G_RCODES:
        table = v2_code_table(m)
        if table >= 0:
            freq_prefetch(&b.topn[table], dns_name_hash(m))
        if m.counts[1] == 0 and m.rcode == RCODE_NOERROR:
            freq_prefetch(&b.topn[V2_T_NODATA], m.h_name)
    if on & G_SIZE:
        freq_prefetch(&b.topn[V2_T_BYTES], dns_name_hash(m))


cdef void v2_near(DnsV2 me, const DnsMsg *m) noexcept nogil:
    cdef MetricSet *b = me.sets[1 + direction_of(m)]
    cdef int table
    if not m.qr or b == NULL or not m.agg_done:
        return
    freq_prefetch_name(&b.topn[V2_T_QNAME2], m.h_agg2)
    if m.agg3 != AGG_NONE:
        freq_prefetch_name(&b.topn[V2_T_QNAME3], m.h_agg3)
    if m.h_name:
        table = v2_code_table(m)
        if table >= 0:
            freq_prefetch_name(&b.topn[table], m.h_name)
        freq_prefetch_name(&b.topn[V2_T_BYTES], m.h_name)


cdef void v2_consume(DnsV2 me, const Work *work, Work *out) noexcept nogil:
    cdef MetricSet *s = me.sets[0]
    cdef MetricSet *b
    cdef Xact *x
    cdef Xact query
    cdef DnsMsg *m
    cdef uint32_t i, unused = 0
    cdef int64_t took
    cdef int deep, dir, passed
    empty(out)
    if s == NULL:
        return
    for i in range(AHEAD if AHEAD < work.n_dns else work.n_dns):
        v2_ahead(me, work.dns[i])
    for i in range(work.n_dns):
        m = work.dns[i]
        if i + AHEAD < work.n_dns:
            v2_ahead(me, work.dns[i + AHEAD])
        if i + NEAR < work.n_dns:
            v2_near(me, work.dns[i + NEAR])
        rate_row(&s.rate, m.ts)[0] += 1
        s.counter[V2_OBSERVED] += 1
        deep = m.pkt.flags & PF_DEEP
        if deep:
            s.counter[V2_DEEP] += 1
        if m.status == DNS_SHORT:
            me.unreadable += 1
            continue
        dir = direction_of(m)
        if not (me.filter.directions >> dir) & 1:
            # both of its messages are rejected here, so that nothing needs to be remembered
            s.counter[V2_FILTERED] += 1
            continue
        passed = me.filter.passes(m, DF_V2_RESPONSE if m.qr else DF_V2_QUERY, &unused)
        if passed:
            hand_on(out, m)
        else:
            s.counter[V2_FILTERED] += 1
        if not m.qr:
            x = xact_start(&me.xacts, xact_key(m), dir, m.ts)
            if x != NULL:
                x.size = m.size
                x.filtered = not passed
                x.checking_disabled = m.cd
                if me.groups & G_ECS and m.ecs_family:
                    x.has_ecs = 1
                    x.ecs_family = m.ecs_family
                    memcpy(x.ecs_addr, m.ecs_addr, 16)
            continue
        b = me.sets[1 + dir]
        if b == NULL:
            continue
        b.used = 1
        x = xact_find(&me.xacts, xact_key(m), dir)
        if x == NULL:
            if passed:
                b.counter[V2_ORPHAN] += 1
            continue
        query = x[0]
        xact_remove(&me.xacts, x)
        took = elapsed(query.start, m.ts)
        if not passed:
            # the transaction is rejected too, unless it was over already
            if not query.filtered and took < me.xacts.ttl_ns:
                s.counter[V2_FILTERED] += 1
        elif query.filtered:
            s.counter[V2_FILTERED] += 1
        elif took >= me.xacts.ttl_ns:
            b.counter[V2_TIMEOUT] += 1
        else:
            v2_transaction(me, b, m, &query, took, dir, deep)
    for dir in range(3):
        b = me.sets[1 + dir]
        if b != NULL:
            flush_codes(&me.rcodes[dir], &b.topn[V2_T_RCODE])
            flush_codes(&me.types[dir], &b.topn[V2_T_QTYPE])


cdef void v2_shifted(DnsV2 me, MetricSet **closed, int64_t now) noexcept nogil:
    cdef uint64_t purged[3]
    cdef int i
    memset(purged, 0, sizeof(purged))
    xact_purge(&me.xacts, now, purged)
    for i in range(3):
        if purged[i] and me.sets[1 + i] != NULL:
            me.sets[1 + i].used = 1
            me.sets[1 + i].counter[V2_TIMEOUT] += purged[i]
        if closed != NULL and closed[1 + i] != NULL:
            me.slow[i] = threshold(&closed[1 + i].quant[V2_Q_TIME], me.slow[i])


V2_FIELDS = {
    "observed_packets": ("counter", V2_OBSERVED),
    "deep_sampled_packets": ("counter", V2_DEEP),
    "rates.observed_pps": ("rate", 0),
    "filtered_packets": ("counter", V2_FILTERED),
    "D.xacts": ("counter", V2_XACTS),
    "D.udp_xacts": ("counter", V2_TRANSPORT + DNS_UDP),
    "D.tcp_xacts": ("counter", V2_TRANSPORT + DNS_TCP),
    "D.dot_xacts": ("counter", V2_TRANSPORT + 2),
    "D.doh_xacts": ("counter", V2_TRANSPORT + 3),
    "D.dnscrypt_udp_xacts": ("counter", V2_TRANSPORT + 4),
    "D.dnscrypt_tcp_xacts": ("counter", V2_TRANSPORT + 5),
    "D.doq_xacts": ("counter", V2_TRANSPORT + DNS_DOQ),
    "D.ipv4_xacts": ("counter", V2_IPV4),
    "D.ipv6_xacts": ("counter", V2_IPV6),
    "D.noerror_xacts": ("counter", V2_NOERROR),
    "D.nodata_xacts": ("counter", V2_NODATA),
    "D.nxdomain_xacts": ("counter", V2_NXDOMAIN),
    "D.refused_xacts": ("counter", V2_REFUSED),
    "D.srvfail_xacts": ("counter", V2_SRVFAIL),
    "D.authenticated_data_xacts": ("counter", V2_AD),
    "D.authoritative_answer_xacts": ("counter", V2_AA),
    "D.checking_disabled_xacts": ("counter", V2_CD),
    "D.ecs_xacts": ("counter", V2_ECS),
    "D.timeout_queries": ("counter", V2_TIMEOUT),
    "D.orphan_responses": ("counter", V2_ORPHAN),
    "D.xact_rates": ("rate", 0),
    "D.cardinality.qname": ("cardinality", 0),
    "D.top_udp_ports_xacts": ("topn", V2_T_PORT),
    "D.response_query_size_ratio": ("quantile", V2_Q_RATIO),
    "D.top_response_bytes": ("topn", V2_T_BYTES),
    "D.xact_time_us": ("quantile", V2_Q_TIME),
    "D.xact_histogram_us": ("histogram", 0),
    "D.top_slow_xacts": ("topn", V2_T_SLOW),
    "D.top_qname2_xacts": ("topn", V2_T_QNAME2),
    "D.top_qname3_xacts": ("topn", V2_T_QNAME3),
    "D.top_noerror_xacts": ("topn", V2_T_NOERROR),
    "D.top_nodata_xacts": ("topn", V2_T_NODATA),
    "D.top_nxdomain_xacts": ("topn", V2_T_NXDOMAIN),
    "D.top_refused_xacts": ("topn", V2_T_REFUSED),
    "D.top_srvfail_xacts": ("topn", V2_T_SRVFAIL),
    "D.top_rcode_xacts": ("topn", V2_T_RCODE),
    "D.top_qtype_xacts": ("topn", V2_T_QTYPE),
    "D.top_ecs_xacts": ("topn", V2_T_ECS),
    "D.top_geo_loc_ecs_xacts": ("topn", V2_T_GEO),
    "D.top_asn_ecs_xacts": ("topn", V2_T_ASN),
}


cdef class DnsV2(DnsAccumulator):
    """dns 2.0: a top block for messages, one block per direction for transactions."""

    def __cinit__(self, config, geo_city=None, geo_asn=None, chained=False):
        self.n_blocks = 4
        v2_layout(&self.layout[0], &self.layout[1])
        self.consume = <consume_fn>v2_consume
        self.shifted = <shifted_fn>v2_shifted

    @staticmethod
    def fields():
        """JSON path (`D.` stands for a direction block) -> kind and index within its block."""
        return V2_FIELDS

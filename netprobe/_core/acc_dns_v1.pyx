"""dns 1.0 (metrics spec 7): every message counts."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from netprobe._core.acc_dns cimport (
    G_CARDINALITY, G_COUNTERS, G_DETAILS, G_ECS, G_HISTOGRAMS, G_PORTS, G_QNAMES, G_QUANTILES, G_XACT, PASS,
    RCODE_NOERROR, RCODE_NXDOMAIN, RCODE_REFUSED, RCODE_SRVFAIL, RCODES, DnsAccumulator, Names, add_code, add_subnet,
    admit, consume_fn, count_names, coupon_of, decodable, elapsed, empty, flush_codes, hand_on, note, note_levels, public_suffix, shifted_fn,
    threshold, xact_key,
)
from netprobe._core.dns_filter cimport DF_QNAME, DF_RCODE, dns_name_hash
from netprobe._core.handler cimport Work
from netprobe._core.packet cimport DIR_IN, DIR_UNKNOWN, L3_IPV4, L3_IPV6, PF_DEEP
from netprobe._core.sketch.freq cimport (
    KEY_ADDR, KEY_GEO, KEY_NAME, KEY_U16, freq_add_number, freq_hash, freq_prefetch_word, freq_update,
)
from netprobe._core.sketch.hist cimport hist_update
from netprobe._core.sketch.hll cimport hll_add, hll_prefetch
from netprobe._core.sketch.kll cimport kll_add_int, kll_update
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.store cimport Layout, MetricSet
from netprobe._core.wire.dns cimport DNS_SHORT, DNS_TCP, DNS_UDP, DnsMsg
from netprobe._core.xact cimport Xact, xact_begin, xact_prefetch, xact_purge, xact_take

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

cdef enum:
    # lists of the names of responses, by code
    LIST_NONE = 0
    LIST_NOERROR
    LIST_NXDOMAIN
    LIST_REFUSED
    LIST_SRVFAIL
    LISTS

cdef uint8_t list_of[RCODES]
cdef uint8_t code_table[LISTS]           # the table of each list


cdef void init_lists() noexcept:
    list_of[RCODE_NOERROR] = LIST_NOERROR
    list_of[RCODE_NXDOMAIN] = LIST_NXDOMAIN
    list_of[RCODE_REFUSED] = LIST_REFUSED
    list_of[RCODE_SRVFAIL] = LIST_SRVFAIL
    code_table[LIST_NOERROR] = V1_T_NOERROR
    code_table[LIST_NXDOMAIN] = V1_T_NXDOMAIN
    code_table[LIST_REFUSED] = V1_T_REFUSED
    code_table[LIST_SRVFAIL] = V1_T_SRVFAIL


init_lists()


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


cdef void v1_count(MetricSet *s, DnsMsg **msgs, uint32_t n) noexcept nogil:
    cdef uint64_t queries = 0, tcp = 0, udp = 0, ipv4 = 0, ipv6 = 0, nodata = 0
    cdef uint32_t codes[RCODES]
    cdef const DnsMsg *m
    cdef uint32_t i
    memset(codes, 0, sizeof(codes))
    for i in range(n):
        m = msgs[i]
        udp += m.tcp == DNS_UDP
        tcp += m.tcp == DNS_TCP
        ipv4 += m.pkt.l3 == L3_IPV4
        ipv6 += m.pkt.l3 == L3_IPV6
        queries += not m.qr
        codes[m.rcode & (RCODES - 1)] += m.qr
        nodata += m.qr & (m.rcode == RCODE_NOERROR) & (m.counts[1] == 0)
    s.counter[V1_TOTAL] += n
    s.counter[V1_UDP] += udp
    s.counter[V1_TCP] += tcp
    s.counter[V1_IPV4] += ipv4
    s.counter[V1_IPV6] += ipv6
    s.counter[V1_QUERIES] += queries
    s.counter[V1_REPLIES] += n - queries
    s.counter[V1_NOERROR] += codes[RCODE_NOERROR]
    s.counter[V1_NXDOMAIN] += codes[RCODE_NXDOMAIN]
    s.counter[V1_REFUSED] += codes[RCODE_REFUSED]
    s.counter[V1_SRVFAIL] += codes[RCODE_SRVFAIL]
    s.counter[V1_NODATA] += nodata


cdef void v1_names(DnsV1 me, MetricSet *s, DnsMsg **named, const uint32_t *suffix, uint32_t n) noexcept nogil:
    """Names by level, those of responses also by code and by size."""
    cdef Names two, three, nodata, sizes
    cdef Names by_code[LISTS]
    cdef DnsMsg *m
    cdef uint64_t hash
    cdef uint32_t i
    cdef uint32_t details = me.groups & G_DETAILS
    two.n = three.n = nodata.n = sizes.n = 0
    for i in range(LISTS):
        by_code[i].n = 0
    for i in range(n):
        note_levels(&two, &three, named[i], suffix[i] if suffix[i] else public_suffix(me, named[i]))
    for i in range(n):
        m = named[i]
        # without the details few responses need a hash
        if not m.qr or (details == 0 and m.rcode == RCODE_NOERROR and m.counts[1]):
            continue
        hash = dns_name_hash(m)
        note(&by_code[list_of[m.rcode & (RCODES - 1)]], m, 0, hash, 1, 1)
        note(&nodata, m, 0, hash, 1, (m.rcode == RCODE_NOERROR) & (m.counts[1] == 0))
        note(&sizes, m, 0, hash, m.size, m.size != 0)
    if details == 0:
        sizes.n = by_code[LIST_NOERROR].n = 0
    admit(&s.topn[V1_T_QNAME2], &two)
    admit(&s.topn[V1_T_QNAME3], &three)
    admit(&s.topn[V1_T_NODATA], &nodata)
    admit(&s.topn[V1_T_BYTES], &sizes)
    for i in range(1, LISTS):
        admit(&s.topn[code_table[i]], &by_code[i])
    count_names(&s.topn[V1_T_QNAME2], &two)
    count_names(&s.topn[V1_T_QNAME3], &three)
    count_names(&s.topn[V1_T_NODATA], &nodata)
    count_names(&s.topn[V1_T_BYTES], &sizes)
    for i in range(1, LISTS):
        count_names(&s.topn[code_table[i]], &by_code[i])


cdef void v1_deep(DnsV1 me, MetricSet *s, DnsMsg **msgs, const uint32_t *suffix, uint32_t n) noexcept nogil:
    """Ports, codes, names and subnets of those messages that have been chosen for it."""
    cdef DnsMsg *named[PASS]
    cdef uint32_t its_suffix[PASS]
    cdef DnsMsg *m
    cdef uint32_t on = me.groups
    cdef uint32_t i, k = 0
    if on & G_PORTS:
        for i in range(n):
            freq_prefetch_word(&s.topn[V1_T_PORT], msgs[i].port)
    for i in range(n):
        m = msgs[i]
        if not m.pkt.flags & PF_DEEP or not decodable(m):
            continue
        if m.qr:
            add_code(&me.rcodes[0], &s.topn[V1_T_RCODE], m.rcode)
        elif on & G_ECS and m.ecs_family:
            if on & G_COUNTERS:
                s.counter[V1_QUERY_ECS] += 1
            add_subnet(me, s, V1_T_ECS, V1_T_GEO, V1_T_ASN, m.ecs_family, m.ecs_addr)
        if not m.has_question:
            continue
        add_code(&me.types[0], &s.topn[V1_T_QTYPE], m.qtype)
        named[k] = m
        its_suffix[k] = suffix[i]
        k += 1
    if on & G_PORTS:
        for i in range(n):
            if msgs[i].pkt.flags & PF_DEEP and msgs[i].port:
                freq_add_number(&s.topn[V1_T_PORT], msgs[i].port)
    if on & G_CARDINALITY:
        for i in range(k):
            hll_prefetch(&s.card[0], coupon_of(named[i]))
        for i in range(k):
            hll_add(&s.card[0], named[i].coupon)
    if on & G_QNAMES:
        v1_names(me, s, named, its_suffix, k)


cdef inline void v1_slow(MetricSet *s, int side, DnsMsg *m) noexcept nogil:
    # dns 1.0 keeps the case here
    cdef const uint8_t *name = &m.raw[0] if m.is_mixed else &m.name[0]
    freq_update(&s.topn[V1_T_SLOW_IN + side], name, m.name_len,
                freq_hash(name, m.name_len) if m.is_mixed else dns_name_hash(m), 1)


cdef inline void v1_transaction(DnsV1 me, MetricSet *s, DnsMsg *m) noexcept nogil:
    cdef Xact *x
    cdef Xact query
    cdef int64_t took
    cdef uint64_t us
    cdef int side
    if not m.qr:
        x = xact_begin(&me.xacts, xact_key(m), 0, m.ts)
        if x != NULL:
            x.size = m.size
        return
    if not xact_take(&me.xacts, xact_key(m), 0, &query):
        return
    took = elapsed(query.start, m.ts)
    if took >= me.xacts.ttl_ns:
        s.counter[V1_TIMED_OUT] += 1
        return
    s.counter[V1_XACTS] += 1
    # a response to the host: the host is the client
    side = 1 if m.pkt.direction == DIR_IN else 0
    if m.pkt.direction != DIR_UNKNOWN:
        s.counter[V1_XACTS_IN + side] += 1
    if not m.pkt.flags & PF_DEEP:
        return
    if me.groups & G_QUANTILES and query.size:
        kll_update(&s.quant[V1_Q_RATIO], <double>m.size / <double>query.size)
    if m.pkt.direction == DIR_UNKNOWN:
        return
    us = <uint64_t>took / 1000
    if me.groups & G_QUANTILES:
        kll_add_int(&s.quant[V1_Q_IN + side], us)
    if me.groups & G_HISTOGRAMS:
        hist_update(&s.hist[side], <double>us)
    if me.slow[side] > 0 and <float>us >= me.slow[side] and m.has_question:
        v1_slow(s, side, m)


cdef void v1_pass(DnsV1 me, MetricSet *s, DnsMsg **msgs, uint32_t n, Work *out) noexcept nogil:
    cdef DnsMsg *taken[PASS]
    cdef uint32_t suffix[PASS]
    cdef uint32_t i, k = 0
    cdef uint64_t *row
    cdef DnsMsg *m
    for i in range(n):
        m = msgs[i]
        if me.dispatch and m.tcp == DNS_UDP and not me.filter.dispatched(m):
            continue
        row = rate_row(&s.rate, m.ts)
        row[V1_R_EVENTS] += 1
        s.counter[V1_EVENTS] += 1
        s.counter[V1_DEEP] += (m.pkt.flags & PF_DEEP) != 0
        if m.status == DNS_SHORT:
            me.unreadable += 1
            continue
        suffix[k] = 0
        if me.filter.active and not me.filter.passes(m, <uint32_t>-1, &suffix[k]):
            s.counter[V1_FILTERED] += 1
            continue
        hand_on(out, m)
        row[V1_R_TOTAL] += 1
        if me.groups & G_XACT:
            xact_prefetch(&me.xacts, xact_key(m), 0)
        taken[k] = m
        k += 1
    if me.groups & G_COUNTERS:
        v1_count(s, taken, k)
    v1_deep(me, s, taken, suffix, k)
    if me.groups & G_XACT:
        for i in range(k):
            v1_transaction(me, s, taken[i])


cdef void v1_consume(DnsV1 me, const Work *work, Work *out) noexcept nogil:
    cdef MetricSet *s = me.sets[0]
    cdef uint32_t at = 0, n
    empty(out)
    if s == NULL:
        return
    while at < work.n_dns:
        n = work.n_dns - at if work.n_dns - at < PASS else PASS
        v1_pass(me, s, work.dns + at, n, out)
        at += n
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

"""dns 2.0 (metrics spec 7): transactions count, by direction."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from netprobe._core.acc_dns cimport (
    G_CARDINALITY, G_COUNTERS, G_ECS, G_PORTS, G_QNAMES, G_QTYPES, G_QUANTILES, G_RCODES, G_SIZE, G_TIMES, PASS,
    RCODE_NOERROR, RCODE_NXDOMAIN, RCODE_REFUSED, RCODE_SRVFAIL, RCODES, DnsAccumulator, Names, add_code, add_subnet,
    admit, consume_fn, count_names, coupon_of, decodable, elapsed, empty, flush_codes, hand_on, note, note_levels, public_suffix, shifted_fn,
    threshold, xact_key,
)
from netprobe._core.dns_filter cimport DF_V2_QUERY, DF_V2_RESPONSE, dns_name_hash
from netprobe._core.handler cimport Work
from netprobe._core.packet cimport DIR_IN, DIR_OUT, DIR_UNKNOWN, L3_IPV4, L3_IPV6, PF_DEEP
from netprobe._core.sketch.freq cimport (
    KEY_ADDR, KEY_GEO, KEY_NAME, KEY_U16, freq_add_number, freq_prefetch_word, freq_update,
)
from netprobe._core.sketch.hist cimport hist_update
from netprobe._core.sketch.hll cimport hll_add, hll_prefetch
from netprobe._core.sketch.kll cimport kll_add_int, kll_update
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.store cimport Layout, MetricSet
from netprobe._core.wire.dns cimport DNS_DOQ, DNS_SHORT, DNS_TCP, DNS_UDP, DnsMsg
from netprobe._core.xact cimport Xact, xact_begin, xact_prefetch, xact_purge, xact_take

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


cdef enum:
    # lists of names, by code of the response
    LIST_NONE = 0
    LIST_NOERROR
    LIST_NXDOMAIN
    LIST_REFUSED
    LIST_SRVFAIL
    LISTS

cdef uint8_t list_of[RCODES]
cdef uint8_t code_table[LISTS]           # the table of each list

cdef struct Done:
    # a transaction that counts
    DnsMsg *m                # its response
    int64_t took             # ns
    Xact query

cdef struct Dones:
    uint32_t n
    Done done[PASS]


cdef void init_lists() noexcept:
    list_of[RCODE_NOERROR] = LIST_NOERROR
    list_of[RCODE_NXDOMAIN] = LIST_NXDOMAIN
    list_of[RCODE_REFUSED] = LIST_REFUSED
    list_of[RCODE_SRVFAIL] = LIST_SRVFAIL
    code_table[LIST_NOERROR] = V2_T_NOERROR
    code_table[LIST_NXDOMAIN] = V2_T_NXDOMAIN
    code_table[LIST_REFUSED] = V2_T_REFUSED
    code_table[LIST_SRVFAIL] = V2_T_SRVFAIL


init_lists()


cdef void v2_count(MetricSet *b, const Dones *dones) noexcept nogil:
    cdef uint32_t codes[RCODES]
    cdef uint32_t transports[DNS_DOQ + 2]
    cdef uint64_t ipv4 = 0, ipv6 = 0, nodata = 0, ad = 0, aa = 0, cd = 0
    cdef const DnsMsg *m
    cdef uint32_t i
    memset(codes, 0, sizeof(codes))
    memset(transports, 0, sizeof(transports))
    for i in range(dones.n):
        m = dones.done[i].m
        transports[m.tcp if m.tcp <= DNS_DOQ else DNS_DOQ + 1] += 1
        ipv4 += m.pkt.l3 == L3_IPV4
        ipv6 += m.pkt.l3 == L3_IPV6
        codes[m.rcode & (RCODES - 1)] += 1
        nodata += (m.rcode == RCODE_NOERROR) & (m.counts[1] == 0)
        ad += m.ad
        aa += m.aa
        cd += dones.done[i].query.checking_disabled
    b.counter[V2_XACTS] += dones.n
    for i in range(DNS_DOQ + 1):
        b.counter[V2_TRANSPORT + i] += transports[i]
    b.counter[V2_IPV4] += ipv4
    b.counter[V2_IPV6] += ipv6
    b.counter[V2_NOERROR] += codes[RCODE_NOERROR]
    b.counter[V2_NXDOMAIN] += codes[RCODE_NXDOMAIN]
    b.counter[V2_REFUSED] += codes[RCODE_REFUSED]
    b.counter[V2_SRVFAIL] += codes[RCODE_SRVFAIL]
    b.counter[V2_NODATA] += nodata
    b.counter[V2_AD] += ad
    b.counter[V2_AA] += aa
    b.counter[V2_CD] += cd


cdef void v2_names(DnsV2 me, MetricSet *b, DnsMsg **named, uint32_t n) noexcept nogil:
    """Names by level, by code and by the size of the response."""
    cdef Names two, three, nodata, sizes
    cdef Names by_code[LISTS]
    cdef DnsMsg *m
    cdef uint64_t hash
    cdef uint32_t i
    two.n = three.n = nodata.n = sizes.n = 0
    for i in range(LISTS):
        by_code[i].n = 0
    if me.groups & G_QNAMES:
        for i in range(n):
            note_levels(&two, &three, named[i], public_suffix(me, named[i]))
    if me.groups & (G_RCODES | G_SIZE):
        for i in range(n):
            m = named[i]
            hash = dns_name_hash(m)
            note(&by_code[list_of[m.rcode & (RCODES - 1)]], m, 0, hash, 1, 1)
            note(&nodata, m, 0, hash, 1, (m.rcode == RCODE_NOERROR) & (m.counts[1] == 0))
            note(&sizes, m, 0, hash, m.size, m.size != 0)
    if not me.groups & G_SIZE:
        sizes.n = 0
    if not me.groups & G_RCODES:
        nodata.n = 0
        for i in range(LISTS):
            by_code[i].n = 0
    admit(&b.topn[V2_T_QNAME2], &two)
    admit(&b.topn[V2_T_QNAME3], &three)
    admit(&b.topn[V2_T_NODATA], &nodata)
    admit(&b.topn[V2_T_BYTES], &sizes)
    for i in range(1, LISTS):
        admit(&b.topn[code_table[i]], &by_code[i])
    count_names(&b.topn[V2_T_QNAME2], &two)
    count_names(&b.topn[V2_T_QNAME3], &three)
    count_names(&b.topn[V2_T_NODATA], &nodata)
    count_names(&b.topn[V2_T_BYTES], &sizes)
    for i in range(1, LISTS):
        count_names(&b.topn[code_table[i]], &by_code[i])


cdef void v2_deep(DnsV2 me, MetricSet *b, const Dones *dones, int dir) noexcept nogil:
    """Codes, names and subnets of those transactions whose response could be decoded."""
    cdef DnsMsg *named[PASS]
    cdef DnsMsg *m
    cdef const Xact *x
    cdef uint32_t on = me.groups
    cdef uint32_t i, k = 0
    for i in range(dones.n):
        m = dones.done[i].m
        x = &dones.done[i].query
        if not m.pkt.flags & PF_DEEP or not decodable(m):
            continue
        if on & G_ECS and x.has_ecs:
            b.counter[V2_ECS] += 1
            add_subnet(me, b, V2_T_ECS, V2_T_GEO, V2_T_ASN, x.ecs_family, x.ecs_addr)
        if on & G_RCODES:
            add_code(&me.rcodes[dir], &b.topn[V2_T_RCODE], m.rcode)
        if not m.has_question:
            continue
        if on & G_QTYPES:
            add_code(&me.types[dir], &b.topn[V2_T_QTYPE], m.qtype)
        named[k] = m
        k += 1
    if on & G_CARDINALITY:
        for i in range(k):
            hll_prefetch(&b.card[0], coupon_of(named[i]))
        for i in range(k):
            hll_add(&b.card[0], named[i].coupon)
    v2_names(me, b, named, k)


cdef void v2_block(DnsV2 me, MetricSet *b, const Dones *dones, int dir) noexcept nogil:
    """What transactions of one direction add."""
    cdef uint32_t on = me.groups
    cdef uint32_t i
    cdef uint64_t us
    cdef DnsMsg *m
    if on & G_QUANTILES:
        for i in range(dones.n):
            rate_row(&b.rate, dones.done[i].m.ts)[0] += 1
    if on & G_COUNTERS:
        v2_count(b, dones)
    if on & G_PORTS:
        for i in range(dones.n):
            freq_prefetch_word(&b.topn[V2_T_PORT], dones.done[i].m.port)
    v2_deep(me, b, dones, dir)
    for i in range(dones.n):
        m = dones.done[i].m
        if not m.pkt.flags & PF_DEEP:
            continue
        if on & G_PORTS and m.port:
            freq_add_number(&b.topn[V2_T_PORT], m.port)
        if on & G_SIZE and dones.done[i].query.size:
            kll_update(&b.quant[V2_Q_RATIO], <double>m.size / <double>dones.done[i].query.size)
        if on & G_TIMES:
            us = <uint64_t>dones.done[i].took / 1000
            kll_add_int(&b.quant[V2_Q_TIME], us)
            hist_update(&b.hist[0], <double>us)
            if me.slow[dir] > 0 and <float>us >= me.slow[dir] and m.has_question:
                freq_update(&b.topn[V2_T_SLOW], m.name, m.name_len, dns_name_hash(m), 1)


cdef inline int direction_of(const DnsMsg *m) noexcept nogil:
    """Of the transaction, seen from the query."""
    cdef int dir = m.pkt.direction
    if m.qr and dir != DIR_UNKNOWN:
        dir = DIR_OUT if dir == DIR_IN else DIR_IN
    return dir


cdef inline void v2_query(DnsV2 me, const DnsMsg *m, int dir, int passed) noexcept nogil:
    cdef Xact *x = xact_begin(&me.xacts, xact_key(m), dir, m.ts)
    if x == NULL:
        return
    x.size = m.size
    x.filtered = not passed
    x.checking_disabled = m.cd
    if me.groups & G_ECS and m.ecs_family:
        x.has_ecs = 1
        x.ecs_family = m.ecs_family
        memcpy(x.ecs_addr, m.ecs_addr, 16)


cdef inline void v2_response(DnsV2 me, MetricSet *s, MetricSet *b, DnsMsg *m, int dir, int passed,
                             Dones *dones) noexcept nogil:
    cdef Done *done = &dones.done[dones.n]
    b.used = 1
    if not xact_take(&me.xacts, xact_key(m), dir, &done.query):
        if passed:
            b.counter[V2_ORPHAN] += 1
        return
    done.took = elapsed(done.query.start, m.ts)
    if not passed:
        # the transaction is rejected too, unless it was over already
        if not done.query.filtered and done.took < me.xacts.ttl_ns:
            s.counter[V2_FILTERED] += 1
    elif done.query.filtered:
        s.counter[V2_FILTERED] += 1
    elif done.took >= me.xacts.ttl_ns:
        b.counter[V2_TIMEOUT] += 1
    else:
        done.m = m
        dones.n += 1


cdef void v2_pass(DnsV2 me, MetricSet *s, DnsMsg **msgs, uint32_t n, Work *out) noexcept nogil:
    cdef Dones dones[3]
    cdef DnsMsg *m
    cdef uint32_t i, unused = 0
    cdef int dir, passed
    for dir in range(3):
        dones[dir].n = 0
    for i in range(n):
        xact_prefetch(&me.xacts, xact_key(msgs[i]), direction_of(msgs[i]))
    for i in range(n):
        m = msgs[i]
        rate_row(&s.rate, m.ts)[0] += 1
        s.counter[V2_OBSERVED] += 1
        s.counter[V2_DEEP] += (m.pkt.flags & PF_DEEP) != 0
        if m.status == DNS_SHORT:
            me.unreadable += 1
            continue
        dir = direction_of(m)
        if not (me.filter.directions >> dir) & 1:
            # both of its messages are rejected here, so that nothing needs to be remembered
            s.counter[V2_FILTERED] += 1
            continue
        passed = not me.filter.active or me.filter.passes(m, DF_V2_RESPONSE if m.qr else DF_V2_QUERY, &unused)
        if passed:
            hand_on(out, m)
        else:
            s.counter[V2_FILTERED] += 1
        if not m.qr:
            v2_query(me, m, dir, passed)
        elif me.sets[1 + dir] != NULL:
            v2_response(me, s, me.sets[1 + dir], m, dir, passed, &dones[dir])
    for dir in range(3):
        if dones[dir].n:
            v2_block(me, me.sets[1 + dir], &dones[dir], dir)


cdef void v2_consume(DnsV2 me, const Work *work, Work *out) noexcept nogil:
    cdef MetricSet *s = me.sets[0]
    cdef MetricSet *b
    cdef uint32_t at = 0, n
    cdef int dir
    empty(out)
    if s == NULL:
        return
    while at < work.n_dns:
        n = work.n_dns - at if work.n_dns - at < PASS else PASS
        v2_pass(me, s, work.dns + at, n, out)
        at += n
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

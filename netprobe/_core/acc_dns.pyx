"""The dns handlers (metrics spec 7): what both versions share. acc_dns_v1 and acc_dns_v2 count."""
from libc.string cimport memcpy, memset

from netprobe._core.dns_filter cimport DnsFilter
from netprobe._core.sketch.freq cimport freq_hash, freq_update
from netprobe._core.sketch.kll cimport kll_count, kll_quantiles
from netprobe._core.suffix import public_suffixes
from netprobe._core.wire.dns cimport DNS_WANT_ECS
from netprobe._core.xact cimport xact_free, xact_init

cdef enum:
    XACT_LG_MAX = 18
    N_CODES = 512            # codes whose table hash is computed beforehand

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


cdef void flush_codes(CodeFront *front, Freq *f) noexcept nogil:
    cdef uint32_t i, value
    for i in range(front.n):
        value = front.seen[i]
        freq_update(f, <const uint8_t *>&value, 4, code_hash[value], front.count[value])
        front.count[value] = 0
    front.n = 0


cdef void add_subnet(DnsAccumulator me, MetricSet *s, int table, int geo, int asn, int ecs_family,
                     const uint8_t *addr) noexcept nogil:
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

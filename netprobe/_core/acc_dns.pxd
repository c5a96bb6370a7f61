"""What both versions of the dns handler share: options, filters, open transactions, names on their way to tables."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.dns_filter cimport DnsFilter
from netprobe._core.handler cimport Accumulator, Work
from netprobe._core.mmdb cimport Mmdb
from netprobe._core.packet cimport Packet
from netprobe._core.sketch.freq cimport (
    FREQ_BULK, Freq, FreqName, freq_add_number, freq_admit, freq_count_names, freq_hash_padded,
)
from netprobe._core.sketch.hll cimport hll_coupon_padded
from netprobe._core.sketch.kll cimport Kll
from netprobe._core.store cimport MetricSet
from netprobe._core.suffix cimport SuffixSet
from netprobe._core.wire.dns cimport DNS_BAD_RECORDS, DNS_NONE, DNS_OK, DNS_UDP, DnsMsg, dns_levels
from netprobe._core.xact cimport XactTable

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
    SUFFIX_MAX = 255
    # header codes that have counters and tables of their own
    RCODE_NOERROR = 0
    RCODE_SRVFAIL = 2
    RCODE_NXDOMAIN = 3
    RCODE_REFUSED = 5
    RCODES = 16
    # Messages are counted this many at a time, in several passes of few branches each: hardly anything about the next
    # message can be predicted, and the work on one does not have to wait for the one before
    PASS = FREQ_BULK
    FRONT_CODES = 256

cdef struct CodeFront:
    # codes counted since the last flush: the tables see each once per batch
    uint32_t n
    uint16_t seen[FRONT_CODES]
    uint32_t count[FRONT_CODES]

cdef struct Names:
    # of one pass, for one table
    uint32_t n
    uint32_t n_inside        # of those that the table lets in
    uint8_t inside[PASS]
    FreqName name[PASS]

cdef class DnsAccumulator(Accumulator):
    cdef DnsFilter filter
    cdef SuffixSet suffixes      # public suffixes, when asked for
    cdef Mmdb city
    cdef Mmdb asn
    cdef XactTable xacts
    cdef uint32_t groups         # G_*
    cdef CodeFront rcodes[3]     # per direction block (1.0: the first)
    cdef CodeFront types[3]
    cdef float slow[3]           # threshold in microseconds per direction, 0: none yet
    cdef uint64_t unreadable     # datagrams too short for a DNS header

cdef void flush_codes(CodeFront *front, Freq *f) noexcept nogil
# a client subnet, its place and its network
cdef void add_subnet(DnsAccumulator me, MetricSet *s, int table, int geo, int asn, int ecs_family,
                     const uint8_t *addr) noexcept nogil
# of slow transactions: the 90th percentile of a closed period, or the old one
cdef float threshold(const Kll *times, float old) noexcept nogil


cdef inline void add_code(CodeFront *front, Freq *f, uint32_t value) noexcept nogil:
    """As freq_add_number for codes and types: the few that occur are added up first."""
    if value >= FRONT_CODES:
        freq_add_number(f, value)
        return
    if front.count[value] == 0:
        front.seen[front.n] = <uint16_t>value
        front.n += 1
    front.count[value] += 1


cdef inline void note(Names *names, DnsMsg *m, uint32_t start, uint64_t hash, uint32_t weight,
                      uint32_t really) noexcept nogil:
    """The part of a name from `start` on, unless `really` is 0."""
    cdef FreqName *name = &names.name[names.n]
    name.name = m.name + start
    name.n = m.name_len - start
    name.hash = hash
    name.weight = weight
    names.n += really


cdef inline void admit(Freq *f, Names *names) noexcept nogil:
    names.n_inside = freq_admit(f, names.name, names.n, names.inside)


cdef inline void count_names(Freq *f, const Names *names) noexcept nogil:
    freq_count_names(f, names.name, names.inside, names.n_inside)


cdef inline uint32_t coupon_of(DnsMsg *m) noexcept nogil:
    if m.coupon == 0:
        m.coupon = hll_coupon_padded(m.name, m.name_len)
    return m.coupon


cdef inline uint32_t public_suffix(DnsAccumulator me, const DnsMsg *m) noexcept nogil:
    return me.suffixes.length(m.name, m.name_len) if me.suffixes is not None else 0


cdef inline void note_levels(Names *two, Names *three, DnsMsg *m, uint32_t suffix_len) noexcept nogil:
    """Both levels of a name."""
    cdef uint32_t exists, start
    dns_levels(m, suffix_len if suffix_len < SUFFIX_MAX else SUFFIX_MAX)
    exists = m.agg3 != DNS_NONE
    start = m.agg3 & (0 - exists)
    if m.h_agg2 == 0:
        m.h_agg2 = freq_hash_padded(m.name + m.agg2, m.name_len - m.agg2)
        m.h_agg3 = freq_hash_padded(m.name + start, m.name_len - start)
    note(two, m, m.agg2, m.h_agg2, 1, 1)
    note(three, m, start, m.h_agg3, 1, exists)


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

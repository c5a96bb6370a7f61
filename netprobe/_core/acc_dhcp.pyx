"""The dhcp handler: messages by type, clients with a lease, servers (metrics spec 8)."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from netprobe._core.handler cimport Accumulator, Work
from netprobe._core.packet cimport (
    APP_DHCP, APP_DHCP6, L3_IPV4, L3_IPV6, PF_DEEP, PF_ETHER, PROTO_UDP, Packet, mix64,
)
from netprobe._core.sketch.freq cimport KEY_TEXT, freq_hash, freq_update
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.stamps cimport apart
from netprobe._core.store cimport MetricBlock, MetricSet, mset_clone
from netprobe._core.stream cimport flow_seed
from netprobe._core.wire.dhcp cimport (
    DHCP4_ACK, DHCP4_DISCOVER, DHCP4_OFFER, DHCP4_REQUEST, DHCP6_ADVERTISE, DHCP6_REPLY, DHCP6_REQUEST, DHCP6_SOLICIT,
    DHCP_SHORT, Dhcp4, Dhcp6, dhcp4_parse, dhcp6_parse,
)

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *address, char *text, uint32_t size)
    int AF_INET
    int AF_INET6

cdef enum:
    C_EVENTS
    C_DEEP
    C_TOTAL
    C_FILTERED
    C_DISCOVER
    C_OFFER
    C_REQUEST
    C_ACK
    C_SOLICIT
    C_ADVERTISE
    C_REQUEST6
    C_REPLY
    COUNTERS

cdef enum:
    R_EVENTS
    R_TOTAL
    RATES

cdef enum:
    T_CLIENTS
    T_SERVERS
    TOPNS

cdef enum:
    LEASES_MAX = 65536       # requests that wait for their ACK
    MAC_TEXT = 17
    HOSTNAME_MAX = 255
    ADDRESS_TEXT = 46
    ROW_MAX = MAC_TEXT + 1 + HOSTNAME_MAX + 1 + ADDRESS_TEXT
    SOURCE_MAC = 6           # of an Ethernet header

TTL_MS_MAX = 9223372036854   # 63 bits of nanoseconds

cdef uint32_t NIL = <uint32_t>0xffffffff
cdef const char *DIGITS = "0123456789abcdef"


# --- requests without an answer yet -------------------------------------------------------------------------------

cdef struct Lease:
    int64_t start            # ns
    uint8_t *hostname        # NULL: none was sent
    uint32_t xid
    uint32_t chain
    uint32_t older
    uint32_t newer
    uint8_t hostname_len
    uint8_t mac[6]

cdef struct LeaseTable:
    Lease *cells
    uint32_t *buckets        # LEASES_MAX of them, made with the first request
    uint32_t cap
    uint32_t top
    uint32_t n
    uint32_t free_head
    uint32_t oldest
    uint32_t newest
    uint64_t evicted         # thrown out for room before their time was up


cdef inline uint32_t bucket_of(uint32_t xid) noexcept nogil:
    return <uint32_t>mix64(xid ^ flow_seed) & (LEASES_MAX - 1)


cdef void leases_free(LeaseTable *t) noexcept nogil:
    cdef uint32_t i
    if t.buckets == NULL:
        return
    i = t.oldest
    while i != NIL:
        free(t.cells[i].hostname)
        i = t.cells[i].newer
    free(t.cells)
    free(t.buckets)
    memset(t, 0, sizeof(LeaseTable))


cdef uint32_t lease_find(const LeaseTable *t, uint32_t xid) noexcept nogil:
    cdef uint32_t i
    if t.buckets == NULL:
        return NIL
    i = t.buckets[bucket_of(xid)]
    while i != NIL and t.cells[i].xid != xid:
        i = t.cells[i].chain
    return i


cdef void lease_remove(LeaseTable *t, uint32_t i) noexcept nogil:
    cdef Lease *x = &t.cells[i]
    cdef uint32_t *at = &t.buckets[bucket_of(x.xid)]
    while at[0] != i:
        at = &t.cells[at[0]].chain
    at[0] = x.chain
    if x.older != NIL:
        t.cells[x.older].newer = x.newer
    else:
        t.oldest = x.newer
    if x.newer != NIL:
        t.cells[x.newer].older = x.older
    else:
        t.newest = x.older
    free(x.hostname)
    x.chain = t.free_head
    t.free_head = i
    t.n -= 1


cdef void lease_start(LeaseTable *t, const Dhcp4 *m, int64_t now) noexcept nogil:
    cdef uint32_t i, b, cap
    cdef Lease *x
    cdef Lease *grown
    if t.buckets == NULL:
        t.buckets = <uint32_t *>malloc(LEASES_MAX * sizeof(uint32_t))
        if t.buckets == NULL:
            return
        memset(t.buckets, 0xff, LEASES_MAX * sizeof(uint32_t))
        t.free_head = t.oldest = t.newest = NIL
    i = lease_find(t, m.xid)
    if i != NIL:
        lease_remove(t, i)
    elif t.n == LEASES_MAX:
        t.evicted += 1
        lease_remove(t, t.oldest)
    i = t.free_head
    if i != NIL:
        t.free_head = t.cells[i].chain
    else:
        if t.top == t.cap:
            cap = t.cap * 2 if t.cap else 64
            grown = <Lease *>realloc(t.cells, cap * sizeof(Lease))
            if grown == NULL:
                return
            t.cells = grown
            t.cap = cap
        i = t.top
        t.top += 1
    x = &t.cells[i]
    memset(x, 0, sizeof(Lease))
    x.start = now
    x.xid = m.xid
    if m.htype == 1 and m.hlen == 6:
        memcpy(x.mac, m.chaddr, 6)
    if m.has_hostname:
        # one byte more, so that an empty name is a name
        x.hostname = <uint8_t *>malloc(<size_t>m.hostname_len + 1)
        if x.hostname != NULL:
            x.hostname_len = m.hostname_len
            memcpy(x.hostname, m.hostname, m.hostname_len)
    b = bucket_of(m.xid)
    x.chain = t.buckets[b]
    t.buckets[b] = i
    x.newer = NIL
    x.older = t.newest
    if t.newest != NIL:
        t.cells[t.newest].newer = i
    else:
        t.oldest = i
    t.newest = i
    t.n += 1


cdef void leases_purge(LeaseTable *t, int64_t now, int64_t ttl_ns) noexcept nogil:
    cdef uint32_t i, following
    if t.buckets == NULL:
        return
    i = t.oldest
    while i != NIL:
        following = t.cells[i].newer
        if apart(now, t.cells[i].start) >= <uint64_t>ttl_ns:
            lease_remove(t, i)
        i = following


# --- rows ---------------------------------------------------------------------------------------------------------

cdef uint32_t put_mac(uint8_t *row, const uint8_t *mac) noexcept nogil:
    cdef int i
    for i in range(6):
        row[3 * i] = DIGITS[mac[i] >> 4]
        row[3 * i + 1] = DIGITS[mac[i] & 15]
        row[3 * i + 2] = c':'
    return MAC_TEXT


cdef uint32_t put_address(uint8_t *row, int family, const uint8_t *address) noexcept nogil:
    cdef uint32_t n = 0
    if inet_ntop(AF_INET if family == L3_IPV4 else AF_INET6, address, <char *>row, ADDRESS_TEXT) != NULL:
        while row[n]:
            n += 1
    return n


cdef void client_row(MetricSet *m, const Lease *x, const uint8_t *yiaddr) noexcept nogil:
    """MAC/hostname/address."""
    cdef uint8_t row[ROW_MAX]
    cdef uint32_t n = put_mac(row, x.mac)
    row[n] = c'/'
    n += 1
    if x.hostname != NULL:
        memcpy(row + n, x.hostname, x.hostname_len)
        n += x.hostname_len
    else:
        memcpy(row + n, b"Unknown", 7)
        n += 7
    row[n] = c'/'
    n += 1
    n += put_address(row + n, L3_IPV4, yiaddr)
    freq_update(&m.topn[T_CLIENTS], row, n, freq_hash(row, n), 1)


cdef void server_row(MetricSet *m, const Packet *p, int family, const uint8_t *address) noexcept nogil:
    """MAC/address."""
    cdef uint8_t row[MAC_TEXT + 1 + ADDRESS_TEXT]
    cdef uint32_t n = put_mac(row, p.data + SOURCE_MAC)
    row[n] = c'/'
    n += 1
    n += put_address(row + n, family, address)
    freq_update(&m.topn[T_SERVERS], row, n, freq_hash(row, n), 1)


# --- handler ------------------------------------------------------------------------------------------------------

cdef class Dhcp(Accumulator):
    """dhcp, JSON key `dhcp`."""
    cdef LeaseTable leases
    cdef int64_t ttl_ns
    cdef uint64_t unreadable     # too short for the fixed header

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False):
        cdef int i
        self.n_blocks = 1
        self.layout[0].n_counter = COUNTERS
        self.layout[0].n_topn = TOPNS
        self.layout[0].n_rate = RATES
        for i in range(TOPNS):
            self.layout[0].topn_kind[i] = KEY_TEXT
        self.needs_udp = 1
        self.ttl_ns = min(max(0, int(config.options.get("xact_ttl_ms", 5000))), TTL_MS_MAX) * 1000000
        self.consume = <void (*)(void *, const Work *, Work *) noexcept nogil>consume
        self.shifted = <void (*)(void *, MetricSet **, int64_t) noexcept nogil>shifted

    def __dealloc__(self):
        leases_free(&self.leases)

    @staticmethod
    def fields():
        """Path -> (kind, index in the metric block)."""
        return {
            "wire_packets.events": ("counter", C_EVENTS),
            "wire_packets.deep_samples": ("counter", C_DEEP),
            "rates.events": ("rate", R_EVENTS),
            "rates.total": ("rate", R_TOTAL),
            "wire_packets.total": ("counter", C_TOTAL),
            "wire_packets.filtered": ("counter", C_FILTERED),
            "wire_packets.discover": ("counter", C_DISCOVER),
            "wire_packets.offer": ("counter", C_OFFER),
            "wire_packets.request": ("counter", C_REQUEST),
            "wire_packets.ack": ("counter", C_ACK),
            "wire_packets.solicit": ("counter", C_SOLICIT),
            "wire_packets.advertise": ("counter", C_ADVERTISE),
            "wire_packets.request_v6": ("counter", C_REQUEST6),
            "wire_packets.reply": ("counter", C_REPLY),
            "top_clients": ("topn", T_CLIENTS),
            "top_servers": ("topn", T_SERVERS),
        }

    def open_transactions(self):
        """Requests that wait for their ACK."""
        return self.leases.n

    def health(self):
        """What was thrown out or could not be read, and how many requests wait."""
        return {
            "open": self.leases.n,
            "evicted": self.leases.evicted,
            "unreadable": self.unreadable,
            "allocated": self.leases.cap,
        }

    # for tests: one packet without an engine around

    def _open(self, int64_t start=0):
        self.open_bucket(start)

    def _feed(self, bytes payload, int64_t ts=0, bint v6=False, bytes mac=b"\x02" * 6, bytes src=b"\0" * 16,
              bint deep=True, bint ether=True):
        """One message. False when a chained handler would not get it."""
        cdef Packet p
        cdef Packet *list_in = &p
        cdef Packet *list_udp = NULL
        cdef Packet *list_pkts = NULL
        cdef Work work, out
        raw = b"\x01" * 6 + mac + b"\0\0" + payload
        memset(&p, 0, sizeof(p))
        memset(&work, 0, sizeof(work))
        memset(&out, 0, sizeof(out))
        p.data = <const uint8_t *><const char *>raw
        p.caplen = p.wirelen = len(raw)
        p.ts = ts
        p.payload_off = 14
        p.payload_len = len(payload)
        p.flags = (PF_ETHER if ether else 0) | (PF_DEEP if deep else 0)
        p.app = APP_DHCP6 if v6 else APP_DHCP
        p.l3 = L3_IPV6 if v6 else L3_IPV4
        p.proto = p.l4 = PROTO_UDP
        memcpy(p.src, <const char *>src, min(len(src), 16))
        work.udp = &list_in
        work.n_udp = 1
        out.udp = &list_udp
        out.pkts = &list_pkts
        with nogil:
            self.consume(<void *>self, &work, &out)
        return out.n_udp == 1 and list_udp == &p and out.n_pkts == 1 and list_pkts == &p

    def _shift(self, int64_t now):
        """Rotate; the closed bucket as a MetricBlock."""
        cdef MetricSet *closed = self.sets[0]
        self.open_bucket(now)
        self.shifted(<void *>self, &closed, now)
        return MetricBlock.wrap(closed)

    def _block(self):
        """A copy of the open bucket."""
        return MetricBlock.wrap(mset_clone(self.sets[0]))


cdef void shifted(Dhcp self, MetricSet **closed, int64_t now) noexcept nogil:
    leases_purge(&self.leases, now, self.ttl_ns)


cdef void take4(Dhcp self, MetricSet *m, const Packet *p, bint deep) noexcept nogil:
    cdef Dhcp4 d
    cdef uint32_t i
    m.counter[C_TOTAL] += 1
    rate_row(&m.rate, p.ts)[R_TOTAL] += 1
    if dhcp4_parse(p.data + p.payload_off, p.payload_len, &d) == DHCP_SHORT:
        self.unreadable += 1
        return
    if d.type == DHCP4_DISCOVER:
        m.counter[C_DISCOVER] += 1
    elif d.type == DHCP4_OFFER:
        m.counter[C_OFFER] += 1
        if deep and d.has_server_id and p.flags & PF_ETHER:
            server_row(m, p, L3_IPV4, d.server_id)
    elif d.type == DHCP4_REQUEST:
        m.counter[C_REQUEST] += 1
        lease_start(&self.leases, &d, p.ts)
    elif d.type == DHCP4_ACK:
        m.counter[C_ACK] += 1
        i = lease_find(&self.leases, d.xid)
        if i == NIL:
            return
        if (deep and apart(p.ts, self.leases.cells[i].start) < <uint64_t>self.ttl_ns
                and d.yiaddr[0] | d.yiaddr[1] | d.yiaddr[2] | d.yiaddr[3]):
            client_row(m, &self.leases.cells[i], d.yiaddr)
        lease_remove(&self.leases, i)


cdef void take6(Dhcp self, MetricSet *m, const Packet *p, bint deep) noexcept nogil:
    cdef Dhcp6 d
    if dhcp6_parse(p.data + p.payload_off, p.payload_len, &d) == DHCP_SHORT:
        self.unreadable += 1
        return
    if d.type == DHCP6_SOLICIT:
        m.counter[C_SOLICIT] += 1
    elif d.type == DHCP6_REQUEST:
        m.counter[C_REQUEST6] += 1
    elif d.type == DHCP6_ADVERTISE or d.type == DHCP6_REPLY:
        m.counter[C_ADVERTISE if d.type == DHCP6_ADVERTISE else C_REPLY] += 1
        if deep and d.has_server_id and p.flags & PF_ETHER and p.l3 == L3_IPV6:
            server_row(m, p, L3_IPV6, p.src)


cdef void consume(Dhcp self, const Work *w, Work *out) noexcept nogil:
    cdef MetricSet *m = self.sets[0]
    cdef Packet *p
    cdef uint32_t i
    cdef bint deep
    if out != NULL:
        out.n_pkts = out.n_udp = out.n_dns = out.n_bgp = out.tcp_errors = 0
    for i in range(w.n_udp):
        p = w.udp[i]
        if not p.app & (APP_DHCP | APP_DHCP6):
            continue
        deep = (p.flags & PF_DEEP) != 0
        m.used = 1
        m.counter[C_EVENTS] += 1
        m.counter[C_DEEP] += deep
        rate_row(&m.rate, p.ts)[R_EVENTS] += 1
        if p.app & APP_DHCP:
            take4(self, m, p, deep)
        else:
            take6(self, m, p, deep)
        if out != NULL:
            out.udp[out.n_udp] = p
            out.n_udp += 1
            out.pkts[out.n_pkts] = p
            out.n_pkts += 1

"""Datagrams to records, with the time from a request to its reply (spec 6.2, 6.3, 6.5)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from netprobe._core.app cimport (
    APP_ID_DHCP, APP_ID_DNS, APP_ID_RADIUS, app_addr4, app_dict, app_latency, app_num, app_record, app_text,
)
from netprobe._core.packet cimport L3_IPV4, L3_IPV6, PROTO_UDP, mix64
from netprobe._core.stream cimport FlowKey, flow_key, flow_key_hash, flow_seed
from netprobe._core.wire.dhcp_kprobe cimport (
    DHCPK_DOMAIN, DHCPK_HOSTNAME, DHCPK_LEASE, DHCPK_OK, DHCPK_REQUEST, DhcpFull, dhcpk_parse,
)
from netprobe._core.wire.dns_kprobe cimport DNSK_OK, dnsk_parse
from netprobe._core.wire.radius cimport (
    RADIUS_ACCESS_ACCEPT, RADIUS_ACCESS_CHALLENGE, RADIUS_ACCESS_REJECT, RADIUS_ACCESS_REQUEST,
    RADIUS_ACCOUNTING_REQUEST, RADIUS_ACCOUNTING_RESPONSE, RADIUS_ADDRESS, RADIUS_MASK, RADIUS_OK, RADIUS_PROTOCOL,
    RADIUS_SERVICE, RADIUS_SESSION, RADIUS_STATUS, RADIUS_USER, Radius, radius_parse,
)
from netprobe._core.xact cimport Xact, xact_find, xact_free, xact_init, xact_purge, xact_remove, xact_start

cdef enum:
    # which part of the table of open requests
    OPEN_DNS = 0
    OPEN_DHCP = 1
    OPEN_RADIUS = 2
    # latency columns of DHCP and RADIUS (spec 5.9); DNS may be 0 and has no upper bound
    LEAST_MS = 1
    MOST_MS = 20000
    ETHERNET_ADDRESS = 6
    SERVICE_MAX = 11

cdef const char *HEX = b"0123456789abcdef"
cdef int64_t OPEN_NS = 60000000000
cdef uint32_t ANY_MS = <uint32_t>0xffffffff


cdef void app_datagrams_init(AppDatagrams *a, int lg_open, uint16_t dns_port) noexcept nogil:
    memset(a, 0, sizeof(AppDatagrams))
    a.dns_port = dns_port
    xact_init(&a.open, lg_open if lg_open else APP_OPEN_LG, OPEN_NS)


cdef void app_datagrams_free(AppDatagrams *a) noexcept nogil:
    xact_free(&a.open)


cdef void app_datagrams_expire(AppDatagrams *a, int64_t now) noexcept nogil:
    cdef uint64_t purged[3]
    memset(purged, 0, sizeof(purged))
    xact_purge(&a.open, now, purged)
    a.expired += purged[0] + purged[1] + purged[2]


cdef inline uint64_t conversation(const Packet *p, uint32_t id, bint reply) noexcept nogil:
    """Key of a request: its two ends, which of them asked, and an id; a reply's key is that of its request."""
    cdef FlowKey k
    cdef int order
    flow_key(p, &k)
    order = memcmp(&k.src[0], &k.dst[0], 16)
    if order == 0:
        order = <int>p.sport - <int>p.dport
    return mix64(flow_key_hash(&k, p) ^ mix64((<uint64_t>id << 1 | ((order < 0) != reply)) + flow_seed))


cdef void ask(AppDatagrams *a, int map, uint64_t key, int64_t now) noexcept nogil:
    cdef Xact *x = xact_start(&a.open, key, map, now)
    if x != NULL:
        x.start = now


cdef bint answered(AppDatagrams *a, int map, uint64_t key, int64_t now, int64_t *start) noexcept nogil:
    """Was that request open? Then it no longer is."""
    cdef Xact *x = xact_find(&a.open, key, map)
    if x == NULL:
        return False
    start[0] = x.start
    xact_remove(&a.open, x)
    return now < start[0] or <uint64_t>now - <uint64_t>start[0] <= <uint64_t>OPEN_NS


cdef int dns_datagram(AppDatagrams *a, const uint8_t *data, uint32_t n, const Packet *p, AppRecord *out) noexcept nogil:
    cdef DnsFull *m = &a.dns
    cdef int64_t start = p.ts
    if dnsk_parse(data, n, m) != DNSK_OK:
        return APP_MALFORMED
    app_record(out, APP_ID_DNS, p.ts)
    if not m.qr:
        ask(a, OPEN_DNS, conversation(p, m.id, False), p.ts)
    else:
        if not answered(a, OPEN_DNS, conversation(p, m.id, True), p.ts, &start):
            a.unmatched[APP_ID_DNS] += 1
            start = p.ts
        app_latency(out, start, p.ts, 0, ANY_MS)
    if m.n_questions == 0:
        return APP_NOTHING
    app_text(out, 0, m.name, m.name_len)
    app_num(out, 0, m.qtype)
    if m.qr:
        app_num(out, 1, m.rcode)
        app_text(out, 1, m.text, 0 if m.text_nul else m.text_len)
    return APP_RECORD


cdef int dhcp_datagram(AppDatagrams *a, const uint8_t *data, uint32_t n, const Packet *p, AppRecord *out) noexcept nogil:
    cdef DhcpFull m
    cdef uint64_t key, word
    cdef int64_t start
    cdef uint32_t i, length
    if dhcpk_parse(data, n, &m) != DHCPK_OK:
        return APP_MALFORMED
    app_record(out, APP_ID_DHCP, p.ts)
    app_num(out, 0, m.op)
    app_num(out, 1, m.type)
    app_addr4(out, 0, m.client)
    app_addr4(out, 1, m.your)
    app_addr4(out, 2, m.server)
    app_text(out, 0, NULL, 0)
    if m.hlen == ETHERNET_ADDRESS:
        length = 0
        for i in range(<uint32_t>ETHERNET_ADDRESS):
            if i:
                out.text[0][length] = c':'
                length += 1
            out.text[0][length] = HEX[m.hardware[i] >> 4]
            out.text[0][length + 1] = HEX[m.hardware[i] & 15]
            length += 2
        out.text_len[0] = <uint16_t>length
    if m.has & DHCPK_HOSTNAME:
        app_text(out, 1, m.hostname, m.hostname_len)
    if m.has & DHCPK_DOMAIN:
        app_text(out, 2, m.domain, m.domain_len)
    if m.has & DHCPK_LEASE:
        app_num(out, 2, m.lease)
    # not by address: a reply may go to everybody, or through a relay
    i = m.hlen if m.hlen < 16 else 16
    if i < 16:
        memset(m.hardware + i, 0, 16 - i)
    memcpy(&word, m.hardware, 8)
    key = mix64(word ^ flow_seed) + m.xid
    memcpy(&word, m.hardware + 8, 8)
    key = mix64(mix64(key) ^ word ^ i)
    if m.op == DHCPK_REQUEST:
        ask(a, OPEN_DHCP, key, p.ts)
    elif answered(a, OPEN_DHCP, key, p.ts, &start):
        app_latency(out, start, p.ts, LEAST_MS, MOST_MS)
    else:
        a.unmatched[APP_ID_DHCP] += 1
    return APP_RECORD


cdef int radius_datagram(AppDatagrams *a, const uint8_t *data, uint32_t n, const Packet *p, AppRecord *out) noexcept nogil:
    cdef Radius m
    cdef int64_t start
    cdef int code
    if radius_parse(data, n, &m) != RADIUS_OK:
        return APP_MALFORMED
    app_record(out, APP_ID_RADIUS, p.ts)
    code = m.code
    if not (code == RADIUS_ACCESS_REQUEST or code == RADIUS_ACCESS_ACCEPT or code == RADIUS_ACCESS_REJECT
            or code == RADIUS_ACCOUNTING_REQUEST or code == RADIUS_ACCOUNTING_RESPONSE
            or code == RADIUS_ACCESS_CHALLENGE):
        code = 0
    app_num(out, 0, code)
    if m.has & RADIUS_USER:
        app_text(out, 0, m.user, m.user_len)
    if m.has & RADIUS_SESSION:
        app_text(out, 2, m.session, m.session_len)
    if m.has & RADIUS_SERVICE:
        app_num(out, 1, m.service if m.service <= SERVICE_MAX else 0)
    if m.has & RADIUS_STATUS:
        app_num(out, 2, m.status)
    if m.has & RADIUS_PROTOCOL:
        app_num(out, 3, m.protocol)
    if m.has & RADIUS_ADDRESS:
        app_addr4(out, 0, m.address)
    if m.has & RADIUS_MASK:
        app_addr4(out, 1, m.mask)
    if m.code == RADIUS_ACCESS_REQUEST or m.code == RADIUS_ACCOUNTING_REQUEST:
        ask(a, OPEN_RADIUS, conversation(p, m.id, False), p.ts)
    elif answered(a, OPEN_RADIUS, conversation(p, m.id, True), p.ts, &start):
        app_latency(out, start, p.ts, LEAST_MS, MOST_MS)
    else:
        a.unmatched[APP_ID_RADIUS] += 1
    return APP_RECORD


cdef int app_datagram(AppDatagrams *a, int app, const uint8_t *data, uint32_t n, const Packet *p,
                      AppRecord *out) noexcept nogil:
    cdef int what
    if n == 0:
        return APP_NOTHING
    if app == APP_ID_DNS:
        what = dns_datagram(a, data, n, p, out)
    elif app == APP_ID_DHCP:
        what = dhcp_datagram(a, data, n, p, out)
    elif app == APP_ID_RADIUS:
        what = radius_datagram(a, data, n, p, out)
    else:
        return APP_NOTHING
    if what == APP_MALFORMED:
        a.malformed[app] += 1
    else:
        a.messages[app] += 1
    return what


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

cdef class Datagrams:
    """Feeds payloads to the decoders. ``feed`` gives a dict, None (no record) or False (malformed)."""
    cdef AppDatagrams all

    def __cinit__(self, int lg_open=10, int dns_port=53):
        app_datagrams_init(&self.all, lg_open, dns_port)

    def __dealloc__(self):
        app_datagrams_free(&self.all)

    def feed(self, int app, bytes src, int sport, bytes dst, int dport, bytes payload, int64_t ts=0):
        cdef Packet p
        cdef AppRecord r
        cdef int what
        if len(src) not in (4, 16) or len(dst) != len(src):
            raise ValueError("addresses are 4 or 16 bytes")
        memset(&p, 0, sizeof(p))
        p.ts = ts
        p.l3 = L3_IPV4 if len(src) == 4 else L3_IPV6
        memcpy(&p.src[0], <const char *>src, len(src))
        memcpy(&p.dst[0], <const char *>dst, len(dst))
        p.sport = sport
        p.dport = dport
        p.proto = p.l4 = PROTO_UDP
        what = app_datagram(&self.all, app, <const uint8_t *><const char *>payload, <uint32_t>len(payload), &p, &r)
        if what == APP_MALFORMED:
            return False
        return app_dict(&r) if what == APP_RECORD else None

    def expire(self, int64_t now):
        app_datagrams_expire(&self.all, now)

    def counters(self):
        """Open, evicted, expired; per protocol number messages, malformed, unmatched."""
        return {
            "open": self.all.open.active,
            "evicted": self.all.open.evicted,
            "expired": self.all.expired,
            "messages": [self.all.messages[i] for i in range(16)],
            "malformed": [self.all.malformed[i] for i in range(16)],
            "unmatched": [self.all.unmatched[i] for i in range(16)],
        }

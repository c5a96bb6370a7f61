"""IPv4 and IPv6 fragments put together again.

A datagram is thrown out whole when its fragments overlap (exact copies are tolerated), contradict each other or
were cut by the capture; its key is remembered until its 60 s are over, so that the rest of it does not start anew.
"""
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from netprobe._core.packet cimport L3_IPV4, L3_IPV6, PF_DEEP, PF_FRAG, PF_REASSEMBLED, mix64
from netprobe._core.stamps cimport apart
from netprobe._core.stream cimport flow_seed
from netprobe._core.wire.be cimport be16, be32

cdef enum:
    # IPv4 header
    IP4_LENGTH = 2
    IP4_ID = 4
    IP4_FRAGMENT = 6
    IP4_PROTO = 9
    IP4_CHECKSUM = 10
    IP4_HEADER = 20
    # IPv6 header, fragment header
    IP6_LENGTH = 4
    IP6_NEXT = 6
    IP6_HEADER = 40
    FH_OFFSET = 2
    FH_ID = 4
    FH_LENGTH = 8
    EXT_HOP = 0
    EXT_ROUTING = 43
    EXT_FRAGMENT = 44
    EXT_DESTINATION = 60
    DATAGRAM_MAX = 65535
    LINKTYPE_RAW = 101
    EXPIRE_PER_PACKET = 64

cdef uint32_t NIL = <uint32_t>0xffffffff
cdef int64_t TTL_NS = 60000000000     # RFC 8200 4.5; kprobe.md 3.8

cdef struct Piece:
    # then hdr_len bytes of header (first fragment only) and n bytes of payload
    Piece *next
    uint16_t off             # bytes
    uint16_t n
    uint16_t hdr_len
    uint16_t next_at         # IPv6: where in the header the number of the next one stands
    uint8_t proto            # what follows the IP header

cdef struct Key:
    uint8_t src[16]
    uint8_t dst[16]
    uint32_t id
    uint8_t proto            # IPv6: 0, there the sender may change it
    uint8_t l3
    uint16_t pad

cdef struct Datagram:
    Key key
    int64_t first            # ns
    uint64_t wirelen
    uint32_t l3_bytes
    Piece *pieces            # by offset
    Piece *last
    uint32_t have            # payload bytes
    uint32_t total           # payload bytes of the whole, valid with `ended`
    uint16_t n_pieces
    uint8_t ended
    uint8_t dead             # thrown out, remembered
    uint32_t chain
    uint32_t older           # creation order
    uint32_t newer

cdef struct Table:
    Datagram *cells
    uint32_t *buckets
    uint32_t mask
    uint32_t cap
    uint32_t top
    uint32_t n
    uint32_t free_head
    uint32_t oldest
    uint32_t newest
    uint8_t **done
    uint32_t n_done
    uint32_t done_cap

cdef struct Fragment:
    # what one packet says about itself
    const uint8_t *header
    const uint8_t *payload
    uint32_t hdr_len
    uint32_t off
    uint32_t n               # promised
    uint32_t captured
    uint32_t id
    uint16_t next_at
    uint8_t proto
    uint8_t more


cdef inline void put16(uint8_t *b, uint32_t v) noexcept nogil:
    b[0] = <uint8_t>(v >> 8)
    b[1] = <uint8_t>v


cdef inline uint32_t ip_bytes(const Packet *p) noexcept nogil:
    # the header has been read already
    cdef const uint8_t *ip = p.data + p.l3_off
    return be16(ip + IP4_LENGTH) if p.l3 == L3_IPV4 else IP6_HEADER + be16(ip + IP6_LENGTH)


# --- reading one fragment -----------------------------------------------------------------------------------------

cdef int read4(const Packet *p, Fragment *f) noexcept nogil:
    cdef const uint8_t *ip = p.data + p.l3_off
    cdef uint32_t room = p.caplen - p.l3_off
    cdef uint32_t length
    if room < IP4_HEADER or ip[0] >> 4 != 4:
        return -1
    f.hdr_len = (ip[0] & 15) * 4
    length = be16(ip + IP4_LENGTH)
    if f.hdr_len < IP4_HEADER or f.hdr_len > room or length < f.hdr_len:
        return -1
    f.header = ip
    f.payload = ip + f.hdr_len
    f.n = length - f.hdr_len
    f.captured = room - f.hdr_len if room - f.hdr_len < f.n else f.n
    f.off = (be16(ip + IP4_FRAGMENT) & 0x1fff) * 8
    f.more = (ip[IP4_FRAGMENT] >> 5) & 1
    f.id = be16(ip + IP4_ID)
    f.proto = ip[IP4_PROTO]
    f.next_at = 0
    return 0


cdef int read6(const Packet *p, Fragment *f) noexcept nogil:
    cdef const uint8_t *ip = p.data + p.l3_off
    cdef uint32_t room = p.caplen - p.l3_off
    cdef uint32_t length, at = IP6_HEADER, next_at = IP6_NEXT
    if room < IP6_HEADER or ip[0] >> 4 != 6:
        return -1
    length = IP6_HEADER + be16(ip + IP6_LENGTH)
    while ip[next_at] != EXT_FRAGMENT:
        if ip[next_at] != EXT_HOP and ip[next_at] != EXT_ROUTING and ip[next_at] != EXT_DESTINATION:
            return -1
        if at + 8 > room or at > FRAG_EXT_MAX:
            return -1
        next_at = at
        at += (<uint32_t>ip[at + 1] + 1) * 8
    if at + FH_LENGTH > room or at + FH_LENGTH > length or at > FRAG_EXT_MAX:
        return -1
    f.header = ip
    f.hdr_len = at
    f.next_at = <uint16_t>next_at
    ip += at
    f.proto = ip[0]
    f.off = be16(ip + FH_OFFSET) & 0xfff8
    f.more = ip[FH_OFFSET + 1] & 1
    f.id = be32(ip + FH_ID)
    at += FH_LENGTH
    f.payload = ip + FH_LENGTH
    f.n = length - at
    f.captured = room - at if room - at < f.n else f.n
    return 0


# --- table --------------------------------------------------------------------------------------------------------

cdef int frag_init(FragTable *t, uint32_t limit, uint64_t byte_limit) noexcept nogil:
    cdef Table *m
    cdef uint32_t size = 64
    memset(t, 0, sizeof(FragTable))
    t.limit = limit if limit else 1
    if t.limit > 1 << 20:
        t.limit = 1 << 20
    t.byte_limit = byte_limit
    m = <Table *>calloc(1, sizeof(Table))
    if m == NULL:
        return -1
    while size < t.limit:
        size *= 2
    m.buckets = <uint32_t *>malloc(size * sizeof(uint32_t))
    if m.buckets == NULL:
        free(m)
        return -1
    memset(m.buckets, 0xff, size * sizeof(uint32_t))
    m.mask = size - 1
    m.free_head = m.oldest = m.newest = NIL
    t.impl = m
    return 0


cdef void drop_pieces(FragTable *t, Datagram *d) noexcept nogil:
    cdef Piece *x = d.pieces
    cdef Piece *following
    while x != NULL:
        following = x.next
        t.held_bytes -= sizeof(Piece) + x.hdr_len + x.n
        free(x)
        x = following
    d.pieces = d.last = NULL
    d.n_pieces = 0


cdef void frag_free(FragTable *t) noexcept nogil:
    cdef Table *m = <Table *>t.impl
    cdef uint32_t i
    if m == NULL:
        return
    i = m.oldest
    while i != NIL:
        drop_pieces(t, &m.cells[i])
        i = m.cells[i].newer
    frag_release(t)
    free(m.done)
    free(m.cells)
    free(m.buckets)
    free(m)
    t.impl = NULL


cdef void frag_release(FragTable *t) noexcept nogil:
    cdef Table *m = <Table *>t.impl
    if m == NULL:
        return
    while m.n_done:
        m.n_done -= 1
        free(m.done[m.n_done])


cdef uint32_t bucket_of(const Table *m, const Key *k) noexcept nogil:
    cdef uint64_t w[5]
    memcpy(w, k, sizeof(Key))
    return <uint32_t>mix64(mix64(mix64(mix64(w[0] ^ flow_seed) ^ w[1]) ^ mix64(w[2] + flow_seed) ^ w[3] * 31) ^ w[4]) & m.mask


cdef uint32_t find(const Table *m, const Key *k) noexcept nogil:
    cdef uint32_t i = m.buckets[bucket_of(m, k)]
    while i != NIL and memcmp(&m.cells[i].key, k, sizeof(Key)) != 0:
        i = m.cells[i].chain
    return i


cdef void remove(FragTable *t, uint32_t i) noexcept nogil:
    cdef Table *m = <Table *>t.impl
    cdef Datagram *d = &m.cells[i]
    cdef uint32_t *at = &m.buckets[bucket_of(m, &d.key)]
    drop_pieces(t, d)
    while at[0] != i:
        at = &m.cells[at[0]].chain
    at[0] = d.chain
    if d.older != NIL:
        m.cells[d.older].newer = d.newer
    else:
        m.oldest = d.newer
    if d.newer != NIL:
        m.cells[d.newer].older = d.older
    else:
        m.newest = d.older
    d.chain = m.free_head
    m.free_head = i
    m.n -= 1


cdef uint32_t add(FragTable *t, const Key *k, int64_t now) noexcept nogil:
    cdef Table *m = <Table *>t.impl
    cdef Datagram *grown
    cdef Datagram *d
    cdef uint32_t i, cap, b
    while m.n >= t.limit:
        t.evicted += 0 if m.cells[m.oldest].dead else 1
        remove(t, m.oldest)
    i = m.free_head
    if i != NIL:
        m.free_head = m.cells[i].chain
    else:
        if m.top == m.cap:
            cap = m.cap * 2 if m.cap else 16
            grown = <Datagram *>realloc(m.cells, <size_t>cap * sizeof(Datagram))
            if grown == NULL:
                return NIL
            m.cells = grown
            m.cap = cap
        i = m.top
        m.top += 1
    d = &m.cells[i]
    memset(d, 0, sizeof(Datagram))
    d.key = k[0]
    d.first = now
    b = bucket_of(m, k)
    d.chain = m.buckets[b]
    m.buckets[b] = i
    d.newer = NIL
    d.older = m.newest
    if m.newest != NIL:
        m.cells[m.newest].newer = i
    else:
        m.oldest = i
    m.newest = i
    m.n += 1
    return i


cdef void kill(FragTable *t, Datagram *d) noexcept nogil:
    drop_pieces(t, d)
    d.dead = 1


# --- reassembly ---------------------------------------------------------------------------------------------------

cdef int place(FragTable *t, uint32_t at, const Fragment *f) noexcept nogil:
    """Store a fragment in datagram `at`. 1: stored, 0: not (counted)."""
    cdef Table *m = <Table *>t.impl
    cdef Datagram *d = &m.cells[at]
    cdef Piece *before = NULL
    cdef Piece *x = d.pieces
    cdef uint32_t end = f.off + f.n
    cdef bint was_last = d.ended and d.total == end
    cdef bint is_last = f.more == 0
    cdef uint32_t hdr_len = f.hdr_len if f.off == 0 else 0
    cdef uint64_t size = sizeof(Piece) + hdr_len + f.n
    if d.last != NULL and f.off >= d.last.off + d.last.n:
        before = d.last      # the usual order
        x = NULL
    while x != NULL and x.off < f.off:
        before = x
        x = x.next
    if (x != NULL and x.off == f.off and x.n == f.n and is_last == was_last
            and memcmp(<const uint8_t *>(x + 1) + x.hdr_len, f.payload, f.n) == 0):
        t.duplicates += 1
        return 0
    if (before != NULL and <uint32_t>before.off + before.n > f.off) or (x != NULL and end > x.off):
        t.overlapped += 1
        kill(t, d)
        return 0
    if (d.n_pieces >= FRAG_PIECES_MAX
            or (d.ended and (end > d.total or not f.more))
            or (not f.more and d.last != NULL and end < <uint32_t>d.last.off + d.last.n)):
        t.malformed += 1
        kill(t, d)
        return 0
    while t.held_bytes + size > t.byte_limit:
        # by age: the oldest is the least likely to be completed
        t.evicted += 0 if m.cells[m.oldest].dead else 1
        if m.oldest == at:
            kill(t, d)
            return 0
        remove(t, m.oldest)
    x = <Piece *>malloc(size)
    if x == NULL:
        t.evicted += 1
        kill(t, d)
        return 0
    x.off = <uint16_t>f.off
    x.n = <uint16_t>f.n
    x.hdr_len = <uint16_t>hdr_len
    x.next_at = f.next_at
    x.proto = f.proto
    memcpy(x + 1, f.header, hdr_len)
    memcpy(<uint8_t *>(x + 1) + hdr_len, f.payload, f.n)
    if before == NULL:
        x.next = d.pieces
        d.pieces = x
    else:
        x.next = before.next
        before.next = x
    if x.next == NULL:
        d.last = x
    d.n_pieces += 1
    d.have += f.n
    t.held_bytes += size
    if not f.more:
        d.ended = 1
        d.total = end
    return 1


cdef int build(FragTable *t, const Packet *p, const uint8_t *header, uint32_t hdr_len, uint32_t next_at,
               uint8_t proto, const Piece *pieces, const uint8_t *payload, uint32_t total, uint64_t wirelen,
               Packet *out) noexcept nogil:
    """The datagram as if it had never been cut; payload stands in pieces or, without any, in one place."""
    cdef Table *m = <Table *>t.impl
    cdef uint8_t **grown
    cdef uint8_t *buf
    cdef uint32_t cap
    if hdr_len + total - (IP6_HEADER if p.l3 == L3_IPV6 else 0) > DATAGRAM_MAX:
        t.malformed += 1
        return 0
    if m.n_done == m.done_cap:
        cap = m.done_cap * 2 if m.done_cap else 16
        grown = <uint8_t **>realloc(m.done, cap * sizeof(uint8_t *))
        if grown == NULL:
            t.evicted += 1
            return 0
        m.done = grown
        m.done_cap = cap
    buf = <uint8_t *>malloc(hdr_len + total)
    if buf == NULL:
        t.evicted += 1
        return 0
    m.done[m.n_done] = buf
    m.n_done += 1
    memcpy(buf, header, hdr_len)
    if p.l3 == L3_IPV4:
        put16(buf + IP4_LENGTH, hdr_len + total)
        put16(buf + IP4_FRAGMENT, 0)
        # nobody checks it here, and the old one is wrong
        put16(buf + IP4_CHECKSUM, 0)
    else:
        put16(buf + IP6_LENGTH, hdr_len - IP6_HEADER + total)
        buf[next_at] = proto
    if pieces == NULL:
        memcpy(buf + hdr_len, payload, total)
    while pieces != NULL:
        memcpy(buf + hdr_len + pieces.off, <const uint8_t *>(pieces + 1) + pieces.hdr_len, pieces.n)
        pieces = pieces.next
    out[0] = p[0]
    out.data = buf
    out.caplen = hdr_len + total
    out.wirelen = <uint32_t>wirelen
    out.flags = (p.flags & PF_DEEP) | PF_REASSEMBLED
    out.linktype = LINKTYPE_RAW
    out.l3_off = out.l4_off = out.payload_off = out.payload_len = 0
    out.l4 = 0
    out.sport = out.dport = 0
    out.tcp_flags = out.app = out.cause = 0
    out.proto = proto
    t.completed += 1
    return 1


cdef int frag_feed(FragTable *t, const Packet *p, Packet *out) noexcept nogil:
    cdef Table *m = <Table *>t.impl
    cdef Fragment f
    cdef Key key
    cdef Datagram *d
    cdef uint32_t i
    cdef int got, budget = EXPIRE_PER_PACKET
    t.fragments += 1
    while budget and m.oldest != NIL and apart(p.ts, m.cells[m.oldest].first) >= <uint64_t>TTL_NS:
        t.expired += 0 if m.cells[m.oldest].dead else 1
        remove(t, m.oldest)
        budget -= 1
    if p.l3_off > p.caplen or (p.l3 != L3_IPV4 and p.l3 != L3_IPV6):
        t.malformed += 1
        return 0
    if (read4(p, &f) if p.l3 == L3_IPV4 else read6(p, &f)) < 0:
        t.malformed += 1
        return 0
    if not f.more and f.off == 0:
        # an atomic fragment stands for itself, whatever else bears its number (RFC 6946)
        if f.captured < f.n:
            t.cut += 1
            return 0
        t.done_fragments = 1
        t.done_bytes = ip_bytes(p)
        return build(t, p, f.header, f.hdr_len, f.next_at, f.proto, NULL, f.payload, f.n, p.wirelen, out)
    if f.n == 0 or (f.more and f.n & 7):
        t.malformed += 1
        return 0
    memset(&key, 0, sizeof(Key))
    memcpy(key.src, &p.src[0], 16)
    memcpy(key.dst, &p.dst[0], 16)
    key.id = f.id
    key.l3 = p.l3
    if p.l3 == L3_IPV4:
        key.proto = f.proto
    i = find(m, &key)
    if i != NIL and apart(p.ts, m.cells[i].first) >= <uint64_t>TTL_NS:
        t.expired += 0 if m.cells[i].dead else 1
        remove(t, i)
        i = NIL
    if i == NIL:
        i = add(t, &key, p.ts)
        if i == NIL:
            t.evicted += 1
            return 0
    d = &m.cells[i]
    if d.dead:
        t.late += 1
        return 0
    if f.off + f.n > DATAGRAM_MAX:
        t.malformed += 1
        kill(t, d)
        return 0
    if f.captured < f.n:
        t.cut += 1
        kill(t, d)
        if not t.show_cut or f.off:
            return 0
        t.done_fragments = 1
        t.done_bytes = ip_bytes(p)
        return build(t, p, f.header, f.hdr_len, f.next_at, f.proto, NULL, f.payload, f.captured, p.wirelen, out)
    if not place(t, i, &f):
        return 0
    d.wirelen += p.wirelen
    d.l3_bytes += ip_bytes(p)
    if not d.ended or d.have != d.total:
        return 0
    t.done_fragments = d.n_pieces
    t.done_bytes = d.l3_bytes
    # no two pieces overlap and together they have every byte, so the first one starts at 0
    got = build(t, p, <const uint8_t *>(d.pieces + 1), d.pieces.hdr_len, d.pieces.next_at,
                d.pieces.proto, d.pieces, NULL, d.total, d.wirelen, out)
    remove(t, i)
    return got


# --- for tests --------------------------------------------------------------------------------------------------

cdef class FragTester:
    """Feeds IP packets (bytes from the IP header on) to a FragTable."""
    cdef FragTable table

    def __cinit__(self, uint32_t limit=4096, uint64_t byte_limit=1 << 22, bint show_cut=False):
        if frag_init(&self.table, limit, byte_limit) < 0:
            raise MemoryError
        self.table.show_cut = show_cut

    def __dealloc__(self):
        frag_free(&self.table)

    def feed(self, bytes packet, int64_t ts=0, wirelen=None, bint release=True, int skip=0):
        """The completed datagram as (bytes, wirelen, proto, flags), or None. `skip`: bytes before the IP header."""
        cdef Packet p
        cdef Packet out
        cdef const uint8_t *data = <const uint8_t *><const char *>packet
        memset(&p, 0, sizeof(p))
        p.data = data
        p.caplen = len(packet)
        p.wirelen = len(packet) if wirelen is None else wirelen
        p.l3_off = skip
        p.ts = ts
        p.flags = PF_FRAG | PF_DEEP
        p.l3 = data[skip] >> 4 if len(packet) > skip else 0
        if p.l3 == L3_IPV4 and len(packet) >= skip + 20:
            memcpy(&p.src[0], data + skip + 12, 4)
            memcpy(&p.dst[0], data + skip + 16, 4)
        elif p.l3 == L3_IPV6 and len(packet) >= skip + 40:
            memcpy(&p.src[0], data + skip + 8, 16)
            memcpy(&p.dst[0], data + skip + 24, 16)
        got = None
        if frag_feed(&self.table, &p, &out):
            got = ((<const char *>out.data)[:out.caplen], out.wirelen, out.proto, out.flags)
        if release:
            frag_release(&self.table)
        return got

    def stats(self):
        """Counters and sizes of the table."""
        cdef FragTable *t = &self.table
        cdef Table *m = <Table *>t.impl
        return {
            "fragments": t.fragments, "completed": t.completed, "evicted": t.evicted, "expired": t.expired,
            "overlapped": t.overlapped, "malformed": t.malformed, "cut": t.cut, "duplicates": t.duplicates,
            "late": t.late, "held_bytes": t.held_bytes, "datagrams": m.n, "allocated": m.cap,
        }

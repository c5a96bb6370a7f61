"""DNS message parser: one pass, no allocation, nothing read past the length given."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from netprobe._core.wire.be cimport be16

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    typedef uint8_t np_bytes16 __attribute__((vector_size(16)));
    static const uint8_t np_first[32] = {
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    /* dst = 16 bytes of src in lower case; adds to *upper and *dot where the first `keep` of them have a capital
       or a dot */
    static inline void np_lower16(const uint8_t *src, uint8_t *dst, uint32_t keep, uint64_t *upper, uint64_t *dot) {
        np_bytes16 x, up, stop, first;
        uint64_t half[2];
        memcpy(&x, src, 16);
        memcpy(&first, np_first + 16 - (keep < 16 ? keep : 16), 16);
        up = (np_bytes16)((x - (uint8_t)'A') < 26) & 0x20;
        stop = (np_bytes16)(x == (uint8_t)'.') & first;
        x |= up;
        up &= first;
        memcpy(dst, &x, 16);
        memcpy(half, &up, 16);
        *upper |= half[0] | half[1];
        memcpy(half, &stop, 16);
        *dot |= half[0] | half[1];
    }
    """
    void np_lower16(const uint8_t *src, uint8_t *dst, uint32_t keep, uint64_t *upper, uint64_t *dot) noexcept nogil

cdef enum:
    # header (RFC 1035 4.1.1)
    OFF_ID = 0
    OFF_FLAGS = 2
    OFF_COUNTS = 4
    # after a question's name: type, class
    QUESTION_TAIL = 4
    # after a record's name: type, class, ttl, rdlength
    RR_TYPE = 0
    RR_RDLENGTH = 8
    RR_TAIL = 10
    TYPE_OPT = 41
    TYPE_RRSIG = 46
    # OPT data (RFC 6891 6.1.2): code, length; client subnet (RFC 7871 6): family, source, scope, address
    OPTION_HEAD = 4
    OPTION_ECS = 8
    ECS_FAMILY = 0
    ECS_SOURCE = 2
    ECS_ADDRESS = 4
    LABEL_MAX = 63
    NAME_TEXT_MAX = 255
    FEW_LABELS = 5
    NO_DOT = 255
    AGG_NONE = 255


cdef uint32_t name_slow(const uint8_t *data, uint32_t n, uint32_t pos, DnsMsg *m) noexcept nogil:
    """A name with compression pointers. Returns the offset behind it, 0 when it cannot be read."""
    cdef uint32_t length = 0, after = 0, jumps = 0, i
    cdef uint8_t c, mixed = 0
    while True:
        if pos >= n:
            return 0
        c = data[pos]
        if c == 0:
            if after == 0:
                after = pos + 1
            break
        if c >= 0xc0:
            if pos + 2 > n:
                return 0
            jumps += 1
            if jumps > DNS_MAX_JUMPS:
                return 0
            if after == 0:
                after = pos + 2
            pos = ((c & 0x3f) << 8) | data[pos + 1]
            continue
        if c > LABEL_MAX or pos + 1 + c > n or length + c + (1 if length else 0) > NAME_TEXT_MAX:
            return 0
        if length:
            m.name[length] = c'.'
            m.raw[length] = c'.'
            length += 1
        for i in range(c):
            m.raw[length] = data[pos + 1 + i]
            m.name[length] = m.raw[length]
            if c'A' <= m.raw[length] <= c'Z':
                m.name[length] = m.raw[length] | 0x20
                mixed = 1
            length += 1
        pos += 1 + c
    m.name_len = <uint8_t>length
    m.is_mixed = mixed
    return after


cdef uint32_t name_plain(const uint8_t *data, uint32_t n, uint32_t pos, DnsMsg *m) noexcept nogil:
    """A name of plain labels of any length; falls back to name_slow."""
    cdef uint8_t dots[NAME_TEXT_MAX + 1]
    cdef uint8_t last[16]
    cdef uint32_t p = pos, text = pos + 1, n_dots = 0, length, i
    cdef uint64_t upper = 0, dot = 0
    cdef uint8_t c
    while True:
        if p >= n:
            return 0
        c = data[p]
        if c == 0:
            break
        if c > LABEL_MAX:
            return name_slow(data, n, pos, m)
        dots[n_dots] = <uint8_t>(p - text)      # of the dot before this label; the first is not used
        n_dots += 1
        p += 1 + c
        if p - text > NAME_TEXT_MAX:
            return 0
    if p == pos:
        m.name_len = 0
        return p + 1
    # the text is the wire form without its first byte, with the other length bytes made dots; none of
    # those is a letter, so the lower-casing may run over them
    length = p - text
    i = 0
    while i < length and text + i + 16 <= n:
        np_lower16(data + text + i, &m.name[i], length - i, &upper, &dot)
        i += 16
    if i < length:
        memset(last, 0, 16)
        memcpy(last, data + text + i, length - i)
        np_lower16(last, &m.name[i], length - i, &upper, &dot)
    for i in range(1, n_dots):
        m.name[dots[i]] = c'.'
    m.name_len = <uint8_t>length
    if dot == 0:
        m.has_dots = 1
        m.dots[0] = dots[n_dots - 1] if n_dots > 1 else AGG_NONE
        m.dots[1] = dots[n_dots - 2] if n_dots > 2 else AGG_NONE
        m.dots[2] = dots[n_dots - 3] if n_dots > 3 else AGG_NONE
    if upper:
        memcpy(m.raw, data + text, length)
        for i in range(1, n_dots):
            m.raw[dots[i]] = c'.'
        m.is_mixed = 1
    return p + 1


cdef inline uint32_t name_fast(const uint8_t *data, uint32_t n, uint32_t pos, DnsMsg *m) noexcept nogil:
    """name_plain for up to FEW_LABELS labels and 32 bytes, which is nearly every name, without a branch that depends
    on how long the labels are: nobody can predict those, and a wrong guess costs more than the work saved."""
    cdef uint8_t dots[3 + FEW_LABELS]           # where the dot before each label is; NONE where there is none
    cdef uint32_t text = pos + 1, p = pos, n_labels = 0, more, second, length, k
    cdef uint64_t upper = 0, dot = 0
    cdef uint8_t c
    if n < text + 16:
        return name_plain(data, n, pos, m)
    dots[0] = dots[1] = dots[2] = AGG_NONE
    for k in range(FEW_LABELS):
        c = data[p]
        if c > LABEL_MAX:
            return name_slow(data, n, pos, m)
        more = (<uint32_t>c + LABEL_MAX) >> 6   # 0 at the root, else 1
        dots[3 + k] = <uint8_t>((p - text) | (more - 1))
        n_labels += more
        p += c + more
        if p >= n:
            return 0
    length = p - text
    if data[p] or length > 32:                  # the root name has a length of -1
        return name_plain(data, n, pos, m)
    # text + 16 <= n: the second half may overlap the first
    second = n - text - 16 if n - text < 32 else 16
    np_lower16(data + text, &m.name[0], length, &upper, &dot)
    np_lower16(data + text + second, &m.name[second], length - second if length > second else 0, &upper, &dot)
    for k in range(1, FEW_LABELS):
        m.name[dots[3 + k]] = c'.'              # NO_DOT is behind every name
    m.name_len = <uint8_t>length
    if dot == 0:
        m.has_dots = 1
        dots[3] = AGG_NONE
        m.dots[0] = dots[2 + n_labels]
        m.dots[1] = dots[1 + n_labels]
        m.dots[2] = dots[n_labels]
    if upper:
        memcpy(m.raw, data + text, length)
        for k in range(1, n_labels):
            m.raw[dots[3 + k]] = c'.'
        m.is_mixed = 1
    return p + 1


cdef inline uint32_t skip_name(const uint8_t *data, uint32_t n, uint32_t pos) noexcept nogil:
    cdef uint8_t c
    while pos < n:
        c = data[pos]
        if c == 0:
            return pos + 1
        if c >= 0xc0:
            return pos + 2 if pos + 2 <= n else 0
        if c > LABEL_MAX:
            return 0
        pos += 1 + c
    return 0


cdef void read_ecs(const uint8_t *opt, uint32_t n, DnsMsg *m) noexcept nogil:
    """Client subnet among the options of one OPT record: what is present of it, cut to its prefix length."""
    cdef uint32_t pos = 0, length, family, width, bits, present
    cdef const uint8_t *ecs
    while pos + OPTION_HEAD <= n:
        length = be16(opt + pos + 2)
        if pos + OPTION_HEAD + length > n:
            return
        if be16(opt + pos) == OPTION_ECS and length > ECS_ADDRESS:
            ecs = opt + pos + OPTION_HEAD
            family = be16(ecs + ECS_FAMILY)
            width = 4 if family == 1 else (16 if family == 2 else 0)
            present = length - ECS_ADDRESS
            if present > width:
                present = width
            bits = ecs[ECS_SOURCE]
            if bits > 8 * present:
                bits = 8 * present
            if bits:
                present = (bits + 7) >> 3
                memset(m.ecs_addr, 0, 16)
                memcpy(m.ecs_addr, ecs + ECS_ADDRESS, present)
                if bits & 7:
                    m.ecs_addr[present - 1] &= <uint8_t>(0xff << (8 - (bits & 7)))
                m.ecs_family = <uint8_t>family
                return
        pos += OPTION_HEAD + length


cdef int walk_records(const uint8_t *data, uint32_t n, uint32_t pos, DnsMsg *m) noexcept nogil:
    """From behind the first question to what was wanted: RRSIG in a response, client subnet in a query."""
    cdef uint32_t section, left, length
    cdef uint16_t rtype
    for left in range(1, m.counts[0]):
        pos = skip_name(data, n, pos)
        if pos == 0 or pos + QUESTION_TAIL > n:
            return DNS_BAD_RECORDS
        pos += QUESTION_TAIL
    for section in range(1, 2 if m.qr else 4):
        for left in range(m.counts[section]):
            pos = skip_name(data, n, pos)
            if pos == 0 or pos + RR_TAIL > n:
                return DNS_BAD_RECORDS
            rtype = be16(data + pos + RR_TYPE)
            length = be16(data + pos + RR_RDLENGTH)
            pos += RR_TAIL
            if length > n - pos:
                return DNS_BAD_RECORDS
            if m.qr:
                if rtype == TYPE_RRSIG:
                    m.has_rrsig = 1
                    return DNS_OK
            elif section == 3 and rtype == TYPE_OPT:
                read_ecs(data + pos, length, m)
                if m.ecs_family:
                    return DNS_OK
            pos += length
    return DNS_OK


cdef int dns_parse(const uint8_t *data, uint32_t n, int want, DnsMsg *m) noexcept nogil:
    cdef uint8_t f2, f3
    cdef uint32_t i, total, pos
    m.size = n
    m.qtype = 0
    m.qclass = 0
    m.has_question = 0
    m.has_rrsig = 0
    m.ecs_family = 0
    m.is_mixed = 0
    m.name_len = 0
    m.agg2 = AGG_NONE
    m.agg3 = AGG_NONE
    m.suffix_len = 0
    m.agg_done = 0
    m.has_dots = 0
    m.h_name = 0
    m.h_agg2 = 0
    m.h_agg3 = 0
    m.coupon = 0
    if n < DNS_HEADER:
        m.id = 0
        for i in range(4):
            m.counts[i] = 0
        m.qr = m.opcode = m.rcode = m.aa = m.tc = m.ad = m.cd = 0
        m.status = DNS_SHORT
        return DNS_SHORT
    m.id = be16(data + OFF_ID)
    f2 = data[OFF_FLAGS]
    f3 = data[OFF_FLAGS + 1]
    m.qr = f2 >> 7
    m.opcode = (f2 >> 3) & 15
    m.aa = (f2 >> 2) & 1
    m.tc = (f2 >> 1) & 1
    m.ad = (f3 >> 5) & 1
    m.cd = (f3 >> 4) & 1
    m.rcode = f3 & 15
    total = 0
    for i in range(4):
        m.counts[i] = be16(data + OFF_COUNTS + 2 * i)
        total += m.counts[i]
    m.status = DNS_OK
    if total > DNS_MAX_RECORDS:
        m.status = DNS_TOO_MANY
        return DNS_TOO_MANY
    pos = DNS_HEADER
    if m.counts[0]:
        pos = name_fast(data, n, pos, m)
        if pos == 0 or pos + QUESTION_TAIL > n:
            m.name_len = 0
            m.is_mixed = 0
            m.status = DNS_BAD_QUESTION
            return DNS_BAD_QUESTION
        m.qtype = be16(data + pos)
        m.qclass = be16(data + pos + 2)
        m.has_question = 1
        pos += QUESTION_TAIL
    if (want & DNS_WANT_RRSIG and m.qr and m.counts[1]) or (want & DNS_WANT_ECS and not m.qr and m.counts[3]):
        m.status = <uint8_t>walk_records(data, n, pos, m)
    return m.status


cdef inline int dot_before(const uint8_t *name, int i) noexcept nogil:
    # rightmost dot left of i, or -1
    i -= 1
    while i >= 0 and name[i] != c'.':
        i -= 1
    return i


cdef void dns_aggregate(DnsMsg *m, uint32_t suffix_len) noexcept nogil:
    cdef const uint8_t *d = m.name
    cdef int n = m.name_len, limit, first, second
    m.suffix_len = <uint8_t>(suffix_len if suffix_len < 255 else 255)
    m.agg_done = 1
    m.h_agg2 = 0
    m.h_agg3 = 0
    m.agg2 = 0
    m.agg3 = AGG_NONE
    if n < 5:
        return
    limit = n - 1
    if suffix_len > 0 and <uint32_t>n > suffix_len:
        limit = n - <int>suffix_len
    elif d[n - 1] == c'.':
        limit = n - 2
    first = dot_before(d, limit + 1)
    if first <= 0:
        m.agg3 = 0
        return
    second = dot_before(d, first)
    if second < 0:
        return
    m.agg2 = <uint8_t>second
    first = dot_before(d, second)
    m.agg3 = <uint8_t>(first if first > 0 else 0)


def parse(data: bytes, want: int = DNS_WANT_ECS | DNS_WANT_RRSIG):
    """Decode one message; None when it is shorter than a header. For tests and for looking at a message."""
    cdef DnsMsg m
    cdef int status = dns_parse(data, <uint32_t>len(data), want, &m)
    if status == DNS_SHORT:
        return None
    name = m.name[:m.name_len] if m.has_question else None
    raw = name
    if m.has_question and m.is_mixed:
        raw = m.raw[:m.name_len]
    return {
        "status": status,
        "id": m.id,
        "qr": bool(m.qr),
        "opcode": m.opcode,
        "rcode": m.rcode,
        "aa": bool(m.aa),
        "tc": bool(m.tc),
        "ad": bool(m.ad),
        "cd": bool(m.cd),
        "counts": (m.counts[0], m.counts[1], m.counts[2], m.counts[3]),
        "size": m.size,
        "name": name,
        "raw": raw,
        "qtype": m.qtype if m.has_question else None,
        "qclass": m.qclass if m.has_question else None,
        "ecs": (m.ecs_family, m.ecs_addr[:16 if m.ecs_family == 2 else 4]) if m.ecs_family else None,
        "rrsig": bool(m.has_rrsig),
    }


def aggregate(name: bytes, suffix_len: int = 0):
    """Level 2 and level 3 (or None) of a lower-cased name, given the length of its public suffix."""
    cdef DnsMsg m
    cdef uint32_t n = <uint32_t>len(name)
    if n > NAME_TEXT_MAX:
        raise ValueError(f"name of {n} bytes, at most {NAME_TEXT_MAX}")
    memcpy(m.name, <const uint8_t *>name, n)
    m.name_len = <uint8_t>n
    dns_aggregate(&m, suffix_len)
    return name[m.agg2:], None if m.agg3 == AGG_NONE else name[m.agg3:]


def metric_port(sport: int, dport: int) -> int:
    """The port a message is counted under: the one that is not the DNS port; 0 when neither is one."""
    return dns_metric_port(sport, dport)


def _time_parse(data: bytes, rounds: int, want: int = 0) -> int:
    """Parse one message `rounds` times (benchmarks)."""
    cdef DnsMsg m
    cdef const uint8_t *p = data
    cdef uint32_t n = <uint32_t>len(data)
    cdef int i, r = rounds, w = want
    cdef uint64_t seen = 0
    with nogil:
        for i in range(r):
            seen += dns_parse(p, n, w, &m) + m.name_len
    return seen

"""One strict pass over a whole DNS message; no allocation, nothing read past the length given."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from netprobe._core.wire.be cimport be16, be32
from netprobe._core.wire.text cimport (
    IP_TEXT, TEXT_KEEP, TEXT_MAX, ipv4_text, ipv6_text, text_cut, text_has_nul, utf8_valid,
)

cdef enum:
    # header (RFC 1035 4.1.1)
    HEADER = 12
    OFF_ID = 0
    OFF_FLAGS = 2
    OFF_COUNTS = 4
    # after a question's name: type, class
    QUESTION_TAIL = 4
    # after a record's name: type, class, ttl, length
    RR_TTL = 4
    RR_LENGTH = 8
    RR_TAIL = 10
    TYPE_NS = 2
    TYPE_CNAME = 5
    TYPE_SOA = 6
    TYPE_PTR = 12
    TYPE_MX = 15
    TYPE_TXT = 16
    SOA_NUMBERS = 20
    LABEL_MAX = 63
    MAX_JUMPS = 32           # compression pointers followed in one name

cdef struct Name:
    uint32_t len
    uint8_t text[DNSK_NAME + 1]


cdef int add_labels(const uint8_t *data, uint32_t n, uint32_t *at, Name *out) noexcept nogil:
    """Labels from at[0] on. 0: ended by the root, at[0] behind it; 1: by a pointer, at[0] on it; -1: cannot be."""
    cdef uint32_t pos = at[0], length
    while True:
        if pos >= n:
            return -1
        length = data[pos]
        if length == 0:
            at[0] = pos + 1
            return 0
        if length >= 0xC0:
            at[0] = pos
            return 1
        if length > LABEL_MAX or length > n - pos - 1 or out.len + length + (out.len != 0) > DNSK_NAME:
            return -1
        if not utf8_valid(data + pos + 1, length):
            return -1
        if out.len:
            out.text[out.len] = c'.'
            out.len += 1
        memcpy(&out.text[out.len], data + pos + 1, length)
        out.len += length
        pos += 1 + length


cdef uint32_t read_name(const uint8_t *data, uint32_t n, uint32_t pos, Name *out) noexcept nogil:
    """A name at pos; the offset behind it, 0 when it is invalid.

    What is wrong behind a pointer makes the name empty; a pointer past the end makes the message incomplete.
    """
    cdef uint32_t at = pos, after, target, jumps = 0
    cdef int how
    out.len = 0
    how = add_labels(data, n, &at, out)
    if how < 0:
        return 0
    if how == 0:
        return at
    after = at + 2
    while how == 1:
        if n - at < 2:
            how = -1
        else:
            target = (<uint32_t>(data[at] & 0x3F) << 8) | data[at + 1]
            if target >= n:
                how = -1
        if how < 0:
            if jumps == 0:
                return 0
            break
        jumps += 1
        if jumps > MAX_JUMPS:
            how = -1
            break
        at = target
        how = add_labels(data, n, &at, out)
    if how < 0:
        out.len = 0
    return after


cdef uint32_t skip_name(const uint8_t *data, uint32_t n, uint32_t pos) noexcept nogil:
    """As read_name judges it, without the text: owners of records are not shown."""
    cdef uint32_t length, text = 0
    while True:
        if pos >= n:
            return 0
        length = data[pos]
        if length == 0:
            return pos + 1
        if length >= 0xC0:
            if n - pos < 2 or ((length & 0x3F) << 8 | data[pos + 1]) >= n:
                return 0
            return pos + 2
        text += length + (text != 0)
        if length > LABEL_MAX or length > n - pos - 1 or text > DNSK_NAME or not utf8_valid(data + pos + 1, length):
            return 0
        pos += 1 + length


cdef inline void add(DnsFull *m, const uint8_t *data, uint32_t n) noexcept nogil:
    if n and text_has_nul(data, n):
        m.text_nul = 1
    if n > TEXT_KEEP - m.text_len:
        n = TEXT_KEEP - m.text_len
    if n:
        memcpy(&m.text[m.text_len], data, n)
        m.text_len += n


cdef int read_txt(const uint8_t *data, uint32_t n, DnsFull *m, bint show) noexcept nogil:
    """Strings, joined; the first must be good, a later bad one ends them."""
    cdef uint32_t pos = 0, length
    cdef bint first = True
    while pos < n or first:
        if pos >= n or data[pos] > n - pos - 1 or not utf8_valid(data + pos + 1, data[pos]):
            if first:
                return -1
            break
        length = data[pos]
        if show:
            add(m, data + pos + 1, length)
        pos += 1 + length
        first = False
    if show:
        add(m, <const uint8_t *>b"/TXT", 4)
    return 0


cdef int read_data(const uint8_t *data, uint32_t end, uint32_t pos, uint32_t kind, DnsFull *m, bint show) noexcept nogil:
    """The data of one record, from pos to end, which ends what its names may cover themselves."""
    cdef Name name
    cdef uint8_t[IP_TEXT] text
    cdef uint32_t length = end - pos
    if kind == DNSK_TYPE_A:
        if length != 4:
            return -1
        if show:
            add(m, text, ipv4_text(data + pos, text))
            add(m, <const uint8_t *>b"/A", 2)
    elif kind == DNSK_TYPE_AAAA:
        if length != 16:
            return -1
        if show:
            add(m, text, ipv6_text(data + pos, text))
            add(m, <const uint8_t *>b"/AAAA", 5)
    elif kind == TYPE_NS or kind == TYPE_CNAME or kind == TYPE_PTR or kind == TYPE_MX:
        if kind == TYPE_MX:
            if length < 2:
                return -1
            pos += 2
        # a pointer only leads back, so the record's end serves as the message's
        if read_name(data, end, pos, &name) == 0:
            return -1
        if show:
            add(m, name.text, name.len)
            if kind == TYPE_NS:
                add(m, <const uint8_t *>b"/NS", 3)
            elif kind == TYPE_CNAME:
                add(m, <const uint8_t *>b"/CNAME", 6)
            elif kind == TYPE_PTR:
                add(m, <const uint8_t *>b"/PTR", 4)
            else:
                add(m, <const uint8_t *>b"/MX", 3)
    elif kind == TYPE_TXT:
        return read_txt(data + pos, length, m, show)
    elif kind == TYPE_SOA:
        pos = skip_name(data, end, pos)
        if pos == 0:
            return -1
        pos = skip_name(data, end, pos)
        if pos == 0 or end - pos < SOA_NUMBERS:
            return -1
    return 0


cdef int dnsk_parse(const uint8_t *data, uint32_t n, DnsFull *out) noexcept nogil:
    cdef Name name
    cdef uint32_t pos = HEADER, i, records, length, kind
    out.id = out.qtype = out.n_questions = out.n_answers = 0
    out.qr = out.opcode = out.rcode = out.text_nul = 0
    out.answers_at = out.name_len = out.text_len = 0
    if n < HEADER:
        return DNSK_SHORT
    out.id = be16(data + OFF_ID)
    out.qr = data[OFF_FLAGS] >> 7
    out.opcode = (data[OFF_FLAGS] >> 3) & 15
    out.rcode = data[OFF_FLAGS + 1] & 15
    out.n_questions = be16(data + OFF_COUNTS)
    out.n_answers = be16(data + OFF_COUNTS + 2)
    records = <uint32_t>out.n_answers + be16(data + OFF_COUNTS + 4) + be16(data + OFF_COUNTS + 6)
    for i in range(out.n_questions):
        pos = read_name(data, n, pos, &name)
        if pos == 0 or n - pos < QUESTION_TAIL:
            return DNSK_BAD
        out.qtype = be16(data + pos)
        out.name_len = name.len
        memcpy(out.name, name.text, name.len)
        pos += QUESTION_TAIL
    out.answers_at = pos
    for i in range(records):
        pos = skip_name(data, n, pos)
        if pos == 0 or n - pos < RR_TAIL:
            return DNSK_BAD
        kind = be16(data + pos)
        length = be16(data + pos + RR_LENGTH)
        pos += RR_TAIL
        if length > n - pos:
            return DNSK_BAD
        if i < out.n_answers and i:
            add(out, <const uint8_t *>b";", 1)
        if read_data(data, pos + length, pos, kind, out, out.qr and i < out.n_answers) < 0:
            return DNSK_BAD
        pos += length
    return DNSK_OK


cdef int dnsk_next_address(const uint8_t *data, uint32_t n, uint32_t *pos, uint32_t *left, DnsAddress *out) noexcept nogil:
    cdef uint32_t at, length, kind
    while left[0]:
        left[0] -= 1
        at = skip_name(data, n, pos[0])
        if at == 0 or n - at < RR_TAIL:
            return 0
        kind = be16(data + at)
        out.ttl = be32(data + at + RR_TTL)
        length = be16(data + at + RR_LENGTH)
        at += RR_TAIL
        if length > n - at:
            return 0
        pos[0] = at + length
        if (kind == DNSK_TYPE_A and length == 4) or (kind == DNSK_TYPE_AAAA and length == 16):
            out.len = <uint8_t>length
            memset(out.addr, 0, 16)
            memcpy(out.addr, data + at, length)
            return 1
    return 0


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

STATUS = ("ok", "short", "bad")


def parse(bytes data):
    """One message (UDP payload): its fields, the answers' text, and (address bytes, TTL) pairs."""
    cdef DnsFull m
    cdef DnsAddress a
    cdef const uint8_t *p = <const uint8_t *><const char *>data
    cdef uint32_t n = <uint32_t>len(data), pos, left
    cdef int status = dnsk_parse(p, n, &m)
    addresses = []
    if status == DNSK_OK:
        pos = m.answers_at
        left = m.n_answers
        while dnsk_next_address(p, n, &pos, &left, &a):
            addresses.append(((<const char *>&a.addr[0])[:a.len], <object>a.ttl))
    return {
        "status": STATUS[status],
        "id": m.id,
        "qr": bool(m.qr),
        "opcode": m.opcode,
        "rcode": m.rcode,
        "questions": m.n_questions,
        "answers": m.n_answers,
        "qtype": m.qtype,
        "name": (<const char *>&m.name[0])[:m.name_len],
        "text": (<const char *>&m.text[0])[:text_cut(m.text, m.text_len, TEXT_MAX)],
        "text_nul": bool(m.text_nul),
        "addresses": addresses,
    }


def address_text(bytes addr):
    """A 4 or 16 byte address as the answers show it."""
    cdef uint8_t[IP_TEXT] text
    cdef uint32_t n
    if len(addr) == 4:
        n = ipv4_text(<const uint8_t *><const char *>addr, text)
    elif len(addr) == 16:
        n = ipv6_text(<const uint8_t *><const char *>addr, text)
    else:
        raise ValueError("4 or 16 bytes")
    return (<const char *>&text[0])[:n].decode()


def utf8(bytes data):
    """(is it UTF-8, what is left of it after cutting it to 384 bytes)."""
    cdef const uint8_t *p = <const uint8_t *><const char *>data
    return bool(utf8_valid(p, <uint32_t>len(data))), data[:text_cut(p, <uint32_t>len(data), TEXT_MAX)]

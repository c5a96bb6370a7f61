"""PostgreSQL messages: headers, start-up parameters, error codes, row counts."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

from netprobe._core.wire.be cimport be32

cdef enum:
    OFF_CODE = 4
    PROTOCOL_3 = 3           # high half of a start-up message's code
    CODE_CANCEL = 80877102
    CODE_SSL = 80877103
    CODE_GSS = 80877104
    STATE = 5                # characters of an SQLSTATE


cdef int pg_start_head(const uint8_t *data, PgStart *out) noexcept nogil:
    cdef uint32_t code = be32(data + OFF_CODE)
    memset(out, 0, sizeof(PgStart))
    out.length = be32(data)
    if out.length < PG_START_HEAD or out.length > PG_START_MAX:
        return PG_BAD
    if code == CODE_SSL:
        out.kind = PG_SSL
    elif code == CODE_GSS:
        out.kind = PG_GSS
    elif code == CODE_CANCEL:
        out.kind = PG_CANCEL
    elif code >> 16 == PROTOCOL_3:
        out.kind = PG_STARTUP
    else:
        return PG_BAD
    return PG_OK


cdef uint32_t pg_text(const uint8_t *data, uint32_t n, uint32_t at) noexcept nogil:
    cdef const uint8_t *end = <const uint8_t *>memchr(data + at, 0, n - at) if at < n else NULL
    if end == NULL:
        return n - at if at < n else 0
    return <uint32_t>(end - data) - at


cdef int pg_start(const uint8_t *data, uint32_t n, PgStart *out) noexcept nogil:
    cdef uint32_t at = PG_START_HEAD, name, name_len, value_len
    if n < PG_START_HEAD or pg_start_head(data, out) != PG_OK or out.length != n:
        return PG_BAD
    if out.kind != PG_STARTUP:
        return PG_OK
    while at < n and data[at]:
        name = at
        name_len = pg_text(data, n, at)
        at += name_len + 1
        if at >= n:
            return PG_BAD
        value_len = pg_text(data, n, at)
        if name_len == 4 and memcmp(data + name, b"user", 4) == 0:
            out.user = at
            out.user_len = value_len
        elif name_len == 8 and memcmp(data + name, b"database", 8) == 0:
            out.database = at
            out.database_len = value_len
        at += value_len + 1
    # the list ends with an empty name
    return PG_OK if at == n - 1 else PG_BAD


cdef int pg_head(const uint8_t *data, uint32_t *length) noexcept nogil:
    length[0] = be32(data + 1)
    if not (c'a' <= (data[0] | 0x20) <= c'z' or c'1' <= data[0] <= c'3'):
        return PG_BAD
    return PG_OK if 4 <= length[0] <= PG_MESSAGE_MAX else PG_BAD


cdef uint32_t pg_sqlstate(const uint8_t *data, uint32_t n) noexcept nogil:
    cdef uint32_t at = 0, length
    # fields: a letter and a text each
    while at < n and data[at]:
        length = pg_text(data, n, at + 1)
        if data[at] == c'C' and length == STATE:
            return at + 1
        at += 1 + length + 1
    return 0


cdef uint64_t MOST_ROWS = <uint64_t>0xffffffff


cdef uint32_t pg_rows(const uint8_t *data, uint32_t n) noexcept nogil:
    cdef uint32_t end = pg_text(data, n, 0), at = end
    cdef uint64_t rows = 0
    while at and c'0' <= data[at - 1] <= c'9':
        at -= 1
    while at < end and rows <= MOST_ROWS:
        rows = rows * 10 + (data[at] - 48)
        at += 1
    return <uint32_t>(rows if rows <= MOST_ROWS else MOST_ROWS)


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

KINDS = ("startup", "ssl", "gss", "cancel")


def startup(bytes data):
    """(kind, user, database) of a message without a type, or None."""
    cdef PgStart s
    if pg_start(<const uint8_t *><const char *>data, <uint32_t>len(data), &s) != PG_OK:
        return None
    return KINDS[s.kind], data[s.user:s.user + s.user_len], data[s.database:s.database + s.database_len]


def message(bytes data):
    """(type, body's length, SQLSTATE of an error, rows of a finished command), or None."""
    cdef uint32_t length, at
    cdef const uint8_t *p = <const uint8_t *><const char *>data
    cdef uint32_t n = <uint32_t>len(data)
    if n < PG_HEAD or pg_head(p, &length) != PG_OK:
        return None
    at = pg_sqlstate(p + PG_HEAD, n - PG_HEAD)
    state = data[PG_HEAD + at:PG_HEAD + at + STATE] if at else b""
    return data[:1], <object>(length - 4), state, <object>pg_rows(p + PG_HEAD, n - PG_HEAD)

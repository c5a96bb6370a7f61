"""The state machine of a PostgreSQL connection.

Client's buffer:  Side | user, database | queries that wait for their result | the query at hand | part of a message
Server's buffer:  Side | part of a message

Only a side's own segments may change the size of its buffer: the stream table accounts for it around them.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memmove, memset

from netprobe._core.app cimport APP_ID_POSTGRES, app_latency, app_num, app_record, app_text
from netprobe._core.stream cimport StreamSide, side_append, side_consume
from netprobe._core.wire.postgres cimport (
    PG_CANCEL, PG_HEAD, PG_OK, PG_START_HEAD, PG_START_MAX, PG_STARTUP, PgStart, pg_head, pg_rows, pg_sqlstate,
    pg_start, pg_start_head, pg_text,
)
from netprobe._core.wire.text cimport TEXT_KEEP

cdef enum:
    # StreamSide.state
    RUNNING = 0
    DEAD = 1
    TUNNEL = 2                   # encrypted
    # Side.phase
    START = 0                    # client: messages without a type
    MESSAGES = 1
    STATE = 5                    # characters of an SQLSTATE
    TIDY = 4096

cdef uint32_t ANY_MS = <uint32_t>0xffffffff

cdef struct Side:
    uint8_t phase
    uint8_t asked                # client: wants encryption and waits for the answer
    uint8_t building             # client: a query at hand stands at `tail`
    uint8_t has_state            # server: an error came since the last result
    uint8_t state[STATE + 3]
    uint32_t part                # bytes of the message at hand at the end of the buffer
    uint32_t skip                # bytes of its body that are not kept, still to come
    int64_t clock                # ns, of the first byte of the message at hand
    uint32_t first               # client: offset behind user and database
    uint32_t head                # oldest waiting query
    uint32_t tail                # behind the last waiting one
    uint32_t waiting
    uint32_t rows                # server: told since the last result
    uint16_t user
    uint16_t database

cdef struct Query:
    int64_t clock
    uint32_t statement           # bytes that follow
    uint32_t login


cdef inline Side *side_of(StreamSide *d) noexcept nogil:
    return <Side *>d.buf if d.len >= sizeof(Side) else NULL


cdef int give_up(StreamSide *d, int why) noexcept nogil:
    side_consume(d, d.len)
    d.state = DEAD
    return why


cdef void encrypted(Stream *s) noexcept nogil:
    s.side[0].state = s.side[1].state = TUNNEL


cdef int add_query(StreamSide *c, int64_t clock, const uint8_t *statement, uint32_t n, bint login) noexcept nogil:
    """The query at hand; `statement` is not in the buffer."""
    cdef Query q
    memset(&q, 0, sizeof(q))
    if n > TEXT_KEEP:
        n = TEXT_KEEP
    q.clock = clock
    q.statement = n
    q.login = login
    if (side_append(c, <const uint8_t *>&q, <uint32_t>sizeof(q), PG_BUFFER) < 0
            or side_append(c, statement, n, PG_BUFFER) < 0):
        return PG_ROOM
    side_of(c).building = 1
    return 0


cdef void query_sent(StreamSide *c) noexcept nogil:
    cdef Side *h = side_of(c)
    h.building = 0
    h.tail = c.len
    h.waiting += 1


cdef int client_start(StreamSide *c, const uint8_t *body, uint32_t n, int64_t clock) noexcept nogil:
    """A whole message without a type, a copy."""
    cdef PgStart start
    cdef Side *h = side_of(c)
    if pg_start(body, n, &start) != PG_OK:
        return PG_ERROR
    if start.kind == PG_CANCEL:
        return PG_MORE
    if start.kind != PG_STARTUP:
        h.asked = 1
        return PG_MORE
    if start.user_len > TEXT_KEEP:
        start.user_len = TEXT_KEEP
    if start.database_len > TEXT_KEEP:
        start.database_len = TEXT_KEEP
    h.user = <uint16_t>start.user_len
    h.database = <uint16_t>start.database_len
    if (side_append(c, body + start.user, start.user_len, PG_BUFFER) < 0
            or side_append(c, body + start.database, start.database_len, PG_BUFFER) < 0):
        return PG_ROOM
    h = side_of(c)
    h.asked = 0
    h.phase = MESSAGES
    h.first = h.head = h.tail = c.len
    if add_query(c, clock, NULL, 0, True) < 0:
        return PG_ROOM
    query_sent(c)
    return PG_MORE


cdef int client_message(StreamSide *c, int kind, const uint8_t *body, uint32_t n, int64_t clock) noexcept nogil:
    """`body`: what was kept of it, a copy."""
    cdef Side *h = side_of(c)
    cdef uint32_t at = 0, length
    cdef Query q
    if kind == c'P' or kind == c'Q':
        # Parse names the statement first
        at = pg_text(body, n, 0) + 1 if kind == c'P' else 0
        length = pg_text(body, n, at) if at < n else 0
        if not h.building:
            if add_query(c, clock, body + at if length else body, length, False) < 0:
                return PG_ROOM
        else:
            memcpy(&q, c.buf + h.tail, sizeof(q))
            if q.statement == 0 and length:
                c.len = h.tail
                h.building = 0
                if add_query(c, q.clock, body + at, length, False) < 0:
                    return PG_ROOM
        if kind == c'Q':
            query_sent(c)
    elif kind == c'B' or kind == c'D' or kind == c'E' or kind == c'C' or kind == c'F' or kind == c'S':
        if not h.building and add_query(c, clock, body, 0, False) < 0:
            return PG_ROOM
        if kind == c'S' or kind == c'F':
            query_sent(c)
    return PG_MORE


cdef int result(Stream *s, int side, int64_t ts, AppRecord *out) noexcept nogil:
    """The oldest query has its result."""
    cdef StreamSide *c = &s.side[1 - side]
    cdef Side *asked = side_of(c)
    cdef Side *h = side_of(&s.side[side])
    cdef Query q
    if asked == NULL or asked.waiting == 0:
        h.has_state = 0
        h.rows = 0
        return PG_MORE
    memcpy(&q, c.buf + asked.head, sizeof(q))
    app_record(out, APP_ID_POSTGRES, ts)
    app_text(out, 0, c.buf + asked.first - asked.database - asked.user, asked.user)
    app_text(out, 1, c.buf + asked.first - asked.database, asked.database)
    if not q.login:
        app_text(out, 2, c.buf + asked.head + sizeof(q), q.statement)
        app_num(out, 0, h.rows)
    if h.has_state:
        app_text(out, 3, h.state, STATE)
    app_latency(out, q.clock, ts, 0, ANY_MS)
    asked.head += <uint32_t>sizeof(q) + q.statement
    asked.waiting -= 1
    h.has_state = 0
    h.rows = 0
    return PG_RECORD


cdef int server_message(Stream *s, int side, int kind, const uint8_t *body, uint32_t n, int64_t ts,
                        AppRecord *out) noexcept nogil:
    cdef StreamSide *c = &s.side[1 - side]
    cdef Side *asked = side_of(c)
    cdef Side *h = side_of(&s.side[side])
    cdef Query q
    cdef uint32_t at, rows
    if kind == c'Z':
        return result(s, side, ts, out)
    if kind == c'C':
        rows = pg_rows(body, n)
        h.rows = h.rows + rows if h.rows + rows >= rows else <uint32_t>0xffffffff
    elif kind == c'E':
        at = pg_sqlstate(body, n)
        if at and not h.has_state:
            h.has_state = 1
            memcpy(h.state, body + at, STATE)
        if asked != NULL and asked.waiting:
            memcpy(&q, c.buf + asked.head, sizeof(q))
            if q.login:
                # the connection ends here: there will be no other result
                return result(s, side, ts, out)
    return PG_MORE


cdef void tidy(StreamSide *c) noexcept nogil:
    cdef Side *h = side_of(c)
    cdef uint32_t gone = h.head - h.first
    if gone and (h.waiting == 0 or gone > TIDY):
        memmove(c.buf + h.first, c.buf + h.head, c.len - h.head)
        c.len -= gone
        h.head -= gone
        h.tail -= gone


cdef int pg_step(Stream *s, int side, int server, const uint8_t **data, uint32_t *n, int64_t ts,
                 AppRecord *out) noexcept nogil:
    cdef StreamSide *d = &s.side[side]
    cdef Side fresh
    cdef Side *h
    cdef Side *asked
    cdef PgStart start
    cdef uint8_t[PG_START_MAX] copy
    cdef uint32_t take, head, length, keep
    cdef int what
    cdef bint starting
    if d.state != RUNNING:
        return PG_GONE
    if data[0] == NULL:
        take = n[0]
        n[0] = 0
        h = side_of(d)
        if h != NULL and take < h.skip and h.part == PG_HEAD + PG_KEEP:
            # inside of what is not looked at
            h.skip -= take
            return PG_MORE
        return give_up(d, PG_LOST) if take else PG_MORE
    if d.len == 0:
        memset(&fresh, 0, sizeof(fresh))
        fresh.phase = MESSAGES if side == server else START
        fresh.first = fresh.head = fresh.tail = <uint32_t>sizeof(Side)
        if side_append(d, <const uint8_t *>&fresh, <uint32_t>sizeof(Side), PG_BUFFER) < 0:
            return give_up(d, PG_ROOM)
    while n[0]:
        h = side_of(d)
        asked = side_of(&s.side[1 - server])
        if side == server and h.part == 0 and asked != NULL and asked.asked:
            # one byte answers the wish for encryption; an old server complains by a message
            asked.asked = 0
            if data[0][0] == c'S' or data[0][0] == c'G':
                encrypted(s)
                return PG_GONE
            if data[0][0] == c'N':
                data[0] += 1
                n[0] -= 1
                continue
        starting = h.phase == START
        head = PG_START_HEAD if starting else PG_HEAD
        if h.part == 0:
            if side != server:
                tidy(d)
                h = side_of(d)
            h.clock = ts
        if h.part < head:
            take = head - h.part if head - h.part < n[0] else n[0]
            if side_append(d, data[0], take, PG_BUFFER) < 0:
                return give_up(d, PG_ROOM)
            h = side_of(d)
            h.part += take
            data[0] += take
            n[0] -= take
            if h.part < head:
                break
        # how long is it, and how much of that is kept
        if starting:
            if pg_start_head(d.buf + d.len - h.part, &start) != PG_OK:
                return give_up(d, PG_ERROR)
            length = keep = start.length
        else:
            # the part begins with type and length
            if pg_head(d.buf + d.len - h.part, &length) != PG_OK:
                return give_up(d, PG_ERROR)
            length += 1
            keep = length if length < PG_HEAD + PG_KEEP else PG_HEAD + PG_KEEP
        if h.part == head and h.skip == 0:
            h.skip = length - keep
        if h.part < keep:
            take = keep - h.part if keep - h.part < n[0] else n[0]
            if side_append(d, data[0], take, PG_BUFFER) < 0:
                return give_up(d, PG_ROOM)
            h = side_of(d)
            h.part += take
            data[0] += take
            n[0] -= take
            if h.part < keep:
                break
        if h.skip:
            take = h.skip if h.skip < n[0] else n[0]
            h.skip -= take
            data[0] += take
            n[0] -= take
            if h.skip:
                break
        # a whole message
        memcpy(copy, d.buf + d.len - h.part, keep)
        d.len -= h.part
        h.part = 0
        if starting:
            what = client_start(d, copy, keep, h.clock)
        elif side == server:
            what = server_message(s, side, copy[0], copy + PG_HEAD, keep - PG_HEAD, ts, out)
        else:
            what = client_message(d, copy[0], copy + PG_HEAD, keep - PG_HEAD, h.clock)
        if what < 0:
            return give_up(d, what)
        if what == PG_RECORD:
            return what
    return PG_MORE


cdef uint32_t pg_waiting(const Stream *s, int server) noexcept nogil:
    cdef const StreamSide *c = &s.side[1 - server]
    return (<const Side *>c.buf).waiting if c.len >= sizeof(Side) else 0

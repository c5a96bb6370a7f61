"""The state machine of an HTTP connection.

Client's buffer:  Side | complete requests that wait for their response | the request at hand | part of a line
Server's buffer:  Side | part of a line

A request is an Entry followed by texts, each a Text and its bytes. StreamSide.state holds the condition of a side.
Only a side's own segments may change the size of its buffer: the stream table accounts for it around them.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memchr, memcpy, memmove, memset

from netprobe._core.app cimport APP_ID_HTTP, app_latency, app_num, app_record, app_text
from netprobe._core.stream cimport StreamSide, side_append, side_consume
from netprobe._core.wire.http cimport (
    HTTP_FIELD_ENCODING, HTTP_FIELD_HOST, HTTP_FIELD_LENGTH, HTTP_FIELD_OTHER, HTTP_FIELD_REFERER,
    HTTP_FIELD_USER_AGENT, HTTP_METHOD_CONNECT, HTTP_METHOD_HEAD, HTTP_OK, HttpField, HttpStart, http_chunk,
    http_continuation, http_field, http_is_chunked, http_length, http_request_line, http_status_line,
)
from netprobe._core.wire.text cimport TEXT_KEEP

cdef enum:
    # StreamSide.state
    RUNNING = 0
    DEAD = 1                     # given up
    TUNNEL = 2                   # another protocol took over: upgrade, CONNECT
    ENDED = 3                    # the side's FIN has come

cdef enum:
    # Side.phase: what comes next
    START = 0
    FIELDS = 1
    BODY = 2                     # `left` bytes
    BODY_TO_END = 3
    CHUNK_LINE = 4
    CHUNK_DATA = 5               # `left` bytes
    CHUNK_END = 6                # the end of line behind them
    TRAILER = 7

cdef enum:
    # Side.flags
    CHUNKED = 1
    HAS_LENGTH = 2
    LINE_LENGTH_LAST = 4         # the line before was a Content-Length or Transfer-Encoding: it may not go on
    # Entry.flags
    ANSWERED = 1                 # its response came before its end
    # texts of a request, by AppRecord slot
    TEXT_URL = 0
    N_TEXTS = 4
    TIDY = 4096                  # a buffer that is nearly empty and larger than this shrinks
    CONTINUE = 100
    SWITCHING = 101
    NO_CONTENT = 204
    NOT_MODIFIED = 304

cdef uint32_t ANY_MS = <uint32_t>0xffffffff

cdef struct Side:
    uint8_t phase
    uint8_t flags
    uint16_t status
    uint32_t header              # bytes of the header so far, those of the line at hand not included
    uint64_t left
    uint32_t line                # bytes of the part of a line at the end of the buffer
    # the client's
    uint32_t head                # offset of the oldest waiting request
    uint32_t tail                # offset of the request at hand: behind the last waiting one
    uint32_t waiting             # how many wait
    uint32_t text                # offset of the latest text if the next line may go on with it, else 0
    uint32_t spare

cdef struct Entry:
    uint32_t size                # with its texts
    uint8_t method
    uint8_t flags
    uint16_t spare
    int64_t clock                # ns, stamp of the segment with its first byte

cdef struct Text:
    uint16_t slot
    uint16_t len


cdef inline Side *side_of(StreamSide *d) noexcept nogil:
    return <Side *>d.buf if d.len >= sizeof(Side) else NULL


cdef int begin(StreamSide *d) noexcept nogil:
    cdef Side fresh
    memset(&fresh, 0, sizeof(fresh))
    fresh.head = fresh.tail = <uint32_t>sizeof(Side)
    return side_append(d, <const uint8_t *>&fresh, <uint32_t>sizeof(Side), HTTP_BUFFER)


cdef void forget_requests(StreamSide *c) noexcept nogil:
    """No response can be paired any more. The request at hand stays."""
    cdef Side *h = side_of(c)
    cdef uint32_t gone
    if h == NULL:
        return
    gone = h.tail - <uint32_t>sizeof(Side)
    memmove(c.buf + sizeof(Side), c.buf + h.tail, c.len - h.tail)
    c.len -= gone
    if h.text:
        h.text -= gone
    h.head = h.tail = <uint32_t>sizeof(Side)
    h.waiting = 0


cdef int give_up(Stream *s, int side, int server, int why) noexcept nogil:
    """A client's error takes its own requests with it, a server's as well."""
    side_consume(&s.side[side], s.side[side].len)
    s.side[side].state = DEAD
    if side == server:
        forget_requests(&s.side[1 - server])
    return why


cdef void tidy(StreamSide *c) noexcept nogil:
    """Move what is left to the front, give memory back. Only from the side's own segments."""
    cdef Side *h = side_of(c)
    cdef uint32_t gone
    cdef uint8_t *smaller
    if h == NULL:
        return
    gone = h.head - <uint32_t>sizeof(Side)
    if gone and (h.waiting == 0 or gone > TIDY):
        memmove(c.buf + sizeof(Side), c.buf + h.head, c.len - h.head)
        c.len -= gone
        h.head -= gone
        h.tail -= gone
        if h.text:
            h.text -= gone
    if c.cap > TIDY and c.len <= TIDY // 4:
        smaller = <uint8_t *>realloc(c.buf, TIDY // 4)
        if smaller != NULL:
            c.buf = smaller
            c.cap = TIDY // 4


cdef int add_text(StreamSide *c, int slot, const uint8_t *data, uint32_t n) noexcept nogil:
    """A text of the request at hand. `data` is not in the buffer."""
    cdef Text t
    cdef uint32_t at = c.len
    if n > TEXT_KEEP:
        n = TEXT_KEEP
    t.slot = <uint16_t>slot
    t.len = <uint16_t>n
    if (side_append(c, <const uint8_t *>&t, <uint32_t>sizeof(Text), HTTP_BUFFER) < 0
            or side_append(c, data, n, HTTP_BUFFER) < 0):
        return HTTP_ROOM
    side_of(c).text = at
    return 0


cdef int extend_text(StreamSide *c, const uint8_t *data, uint32_t n) noexcept nogil:
    """The latest text goes on: joined by a blank (RFC 9112 5.2)."""
    cdef Text t
    cdef uint32_t at = side_of(c).text
    memcpy(&t, c.buf + at, sizeof(Text))
    if n == 0 or t.len >= TEXT_KEEP:
        return 0
    if t.len:
        if side_append(c, <const uint8_t *>b" ", 1, HTTP_BUFFER) < 0:
            return HTTP_ROOM
        t.len += 1
    if n > <uint32_t>TEXT_KEEP - t.len:
        n = <uint32_t>TEXT_KEEP - t.len
    if side_append(c, data, n, HTTP_BUFFER) < 0:
        return HTTP_ROOM
    t.len = <uint16_t>(t.len + n)
    memcpy(c.buf + at, &t, sizeof(Text))
    return 0


cdef void show(const StreamSide *c, uint32_t at, AppRecord *out) noexcept nogil:
    """The four texts of the request at offset `at`; of one that comes twice the last."""
    cdef Entry e
    cdef Text t
    cdef uint32_t end
    cdef int slot
    memcpy(&e, c.buf + at, sizeof(Entry))
    for slot in range(N_TEXTS):
        app_text(out, slot, NULL, 0)
    end = at + e.size
    at += <uint32_t>sizeof(Entry)
    while at + <uint32_t>sizeof(Text) <= end:
        memcpy(&t, c.buf + at, sizeof(Text))
        at += <uint32_t>sizeof(Text)
        app_text(out, t.slot, c.buf + at, t.len)
        at += t.len


cdef int take_line(StreamSide *d, const uint8_t **data, uint32_t *n, const uint8_t **line, uint32_t *length) noexcept nogil:
    """1: a whole line, without its end, in the segment or at the end of the buffer; 0: it goes on; < 0: given up."""
    cdef Side *h = side_of(d)
    cdef const uint8_t *end = <const uint8_t *>memchr(data[0], c'\n', n[0])
    cdef uint32_t take = <uint32_t>(end - data[0]) + 1 if end != NULL else n[0]
    if <uint64_t>h.header + h.line + take > HTTP_HEADER_MAX:
        return HTTP_ERROR
    if h.line == 0 and end != NULL:
        line[0] = data[0]
        length[0] = take
    else:
        if side_append(d, data[0], take, HTTP_BUFFER) < 0:
            return HTTP_ROOM
        h = side_of(d)
        h.line += take
        line[0] = d.buf + d.len - h.line
        length[0] = h.line
    data[0] += take
    n[0] -= take
    if end == NULL:
        return 0
    h.header += length[0]
    # the buffer keeps the bytes where they are until something is appended
    d.len -= h.line
    h.line = 0
    length[0] -= 1
    if length[0] and line[0][length[0] - 1] == c'\r':
        length[0] -= 1
    return 1


cdef int start_line(StreamSide *d, bint response, const uint8_t *line, uint32_t n, int64_t ts) noexcept nogil:
    cdef Side *h = side_of(d)
    cdef HttpStart start
    cdef Entry e
    cdef uint8_t[TEXT_KEEP] url
    h.flags = 0
    h.left = 0
    h.text = 0
    if response:
        if http_status_line(line, n, &start) != HTTP_OK:
            return HTTP_ERROR
        h.status = start.status
        h.phase = FIELDS
        return 0
    if http_request_line(line, n, &start) != HTTP_OK:
        return HTTP_ERROR
    # what follows may overwrite the line
    if start.url_len > TEXT_KEEP:
        start.url_len = TEXT_KEEP
    memcpy(url, line + start.url, start.url_len)
    memset(&e, 0, sizeof(e))
    e.method = start.method
    e.clock = ts
    if side_append(d, <const uint8_t *>&e, <uint32_t>sizeof(Entry), HTTP_BUFFER) < 0:
        return HTTP_ROOM
    if add_text(d, TEXT_URL, url, start.url_len) < 0:
        return HTTP_ROOM
    h = side_of(d)
    h.text = 0
    h.phase = FIELDS
    return 0


cdef int field_line(StreamSide *d, bint response, const uint8_t *line, uint32_t n) noexcept nogil:
    cdef Side *h = side_of(d)
    cdef HttpField f
    cdef uint8_t[TEXT_KEEP] value
    cdef uint32_t keep
    if line[0] == c' ' or line[0] == c'\t':
        if h.flags & LINE_LENGTH_LAST or http_continuation(line, n, &f) != HTTP_OK:
            return HTTP_ERROR
        if h.text == 0:
            return 0
        keep = f.value_len if f.value_len < TEXT_KEEP else TEXT_KEEP
        memcpy(value, line + f.value, keep)
        return extend_text(d, value, keep)
    h.text = 0
    h.flags &= ~LINE_LENGTH_LAST
    if http_field(line, n, &f) != HTTP_OK:
        return HTTP_ERROR
    if f.name == HTTP_FIELD_LENGTH:
        # twice, or with chunks: who says which of them the other end believes
        if h.flags & (HAS_LENGTH | CHUNKED) or http_length(line + f.value, f.value_len, &h.left) != HTTP_OK:
            return HTTP_ERROR
        h.flags |= HAS_LENGTH | LINE_LENGTH_LAST
    elif f.name == HTTP_FIELD_ENCODING:
        h.flags |= LINE_LENGTH_LAST
        if http_is_chunked(line + f.value, f.value_len):
            if h.flags & HAS_LENGTH:
                return HTTP_ERROR
            h.flags |= CHUNKED
    elif not response and (f.name == HTTP_FIELD_HOST or f.name == HTTP_FIELD_REFERER
                           or f.name == HTTP_FIELD_USER_AGENT):
        keep = f.value_len if f.value_len < TEXT_KEEP else TEXT_KEEP
        memcpy(value, line + f.value, keep)
        return add_text(d, f.name, value, keep)
    return 0


cdef bint request_for(StreamSide *c, uint32_t *at, Entry *e) noexcept nogil:
    """The request that the server answers now: the oldest that waits, or one that is still being sent."""
    cdef Side *h = side_of(c)
    if h == NULL:
        return False
    at[0] = h.head
    if h.waiting == 0:
        at[0] = h.tail
        if h.phase <= FIELDS:
            return False
    memcpy(e, c.buf + at[0], sizeof(Entry))
    return not e.flags & ANSWERED


cdef int request_done(Stream *s, int side, int64_t ts, AppRecord *out) noexcept nogil:
    cdef StreamSide *c = &s.side[side]
    cdef Side *h = side_of(c)
    cdef Entry e
    memcpy(&e, c.buf + h.tail, sizeof(Entry))
    e.size = c.len - h.tail
    memcpy(c.buf + h.tail, &e, sizeof(Entry))
    app_record(out, APP_ID_HTTP, ts)
    show(c, h.tail, out)
    if e.flags & ANSWERED or s.side[1 - side].state == DEAD or s.side[1 - side].state == ENDED:
        c.len = h.tail
    else:
        h.tail = c.len
        h.waiting += 1
    h.phase = START
    h.header = 0
    h.text = 0
    return HTTP_MESSAGE


cdef int response_done(Stream *s, int side, int64_t ts, AppRecord *out) noexcept nogil:
    cdef StreamSide *c = &s.side[1 - side]
    cdef Side *h = side_of(&s.side[side])
    cdef Side *asked
    cdef Entry e
    cdef uint32_t at
    cdef uint16_t status = h.status
    cdef bint paired = request_for(c, &at, &e)
    h.phase = START
    h.header = 0
    if status == SWITCHING or (paired and e.method == HTTP_METHOD_CONNECT and 200 <= status < 300):
        s.side[side].state = TUNNEL
        if c.state == RUNNING:
            c.state = TUNNEL
    if not paired:
        return HTTP_UNPAIRED
    asked = side_of(c)
    app_record(out, APP_ID_HTTP, ts)
    if asked.waiting:
        asked.head += e.size
        asked.waiting -= 1
    else:
        e.flags |= ANSWERED
        memcpy(c.buf + at, &e, sizeof(Entry))
        e.size = (c.len - asked.line) - at
        memcpy(c.buf + at, &e, sizeof(Entry))
    show(c, at, out)
    app_num(out, 0, status)
    app_latency(out, e.clock, ts, 0, ANY_MS)
    return HTTP_MESSAGE


cdef int header_done(Stream *s, int side, int server, int64_t ts, AppRecord *out) noexcept nogil:
    """The empty line behind the fields: how does the message end?"""
    cdef Side *h = side_of(&s.side[side])
    cdef Entry e
    cdef uint32_t at
    cdef bint response = side == server
    if response:
        if CONTINUE <= h.status < 200 and h.status != SWITCHING:
            # an interim response: the real one follows
            h.phase = START
            h.header = 0
            return HTTP_MORE
        if h.status == SWITCHING or h.status == NO_CONTENT or h.status == NOT_MODIFIED:
            return response_done(s, side, ts, out)
        if request_for(&s.side[1 - side], &at, &e) and (
                e.method == HTTP_METHOD_HEAD or (e.method == HTTP_METHOD_CONNECT and h.status < 300)):
            return response_done(s, side, ts, out)
    if h.flags & CHUNKED:
        h.phase = CHUNK_LINE
    elif h.left:
        h.phase = BODY
    elif h.flags & HAS_LENGTH or not response:
        return response_done(s, side, ts, out) if response else request_done(s, side, ts, out)
    else:
        h.phase = BODY_TO_END
    return HTTP_MORE


cdef int missing(Stream *s, int side, int server, uint32_t n, int64_t ts, AppRecord *out) noexcept nogil:
    """n bytes were lost: no harm inside of a body."""
    cdef Side *h = side_of(&s.side[side])
    if n == 0 or (h != NULL and h.phase == BODY_TO_END):
        return HTTP_MORE
    if h != NULL and h.phase == CHUNK_DATA and n < h.left:
        h.left -= n
        return HTTP_MORE
    if h != NULL and h.phase == BODY and n <= h.left:
        h.left -= n
        if h.left:
            return HTTP_MORE
        return response_done(s, side, ts, out) if side == server else request_done(s, side, ts, out)
    return give_up(s, side, server, HTTP_LOST)


cdef int http_step(Stream *s, int side, int server, const uint8_t **data, uint32_t *n, int64_t ts,
                   AppRecord *out) noexcept nogil:
    cdef StreamSide *d = &s.side[side]
    cdef Side *h
    cdef const uint8_t *line
    cdef uint32_t length, take
    cdef bint response = side == server
    cdef int what
    if d.state != RUNNING:
        return HTTP_GONE
    if data[0] == NULL:
        take = n[0]
        n[0] = 0
        return missing(s, side, server, take, ts, out)
    if d.len == 0 and begin(d) < 0:
        return give_up(s, side, server, HTTP_ROOM)
    while n[0]:
        h = side_of(d)
        if h.phase == BODY or h.phase == CHUNK_DATA:
            take = n[0] if n[0] < h.left else <uint32_t>h.left
            data[0] += take
            n[0] -= take
            h.left -= take
            if h.left == 0:
                if h.phase == BODY:
                    return response_done(s, side, ts, out) if response else request_done(s, side, ts, out)
                h.phase = CHUNK_END
            continue
        if h.phase == BODY_TO_END:
            n[0] = 0
            break
        if h.phase == START and h.line == 0:
            # empty lines between messages belong to nobody; a request's clock starts at its first byte
            while n[0] and (data[0][0] == c'\r' or data[0][0] == c'\n'):
                data[0] += 1
                n[0] -= 1
            if n[0] == 0:
                break
            tidy(d)
            h = side_of(d)
            # `left` has nothing to say before the header does
            h.left = <uint64_t>ts
        what = take_line(d, data, n, &line, &length)
        if what < 0:
            return give_up(s, side, server, what)
        if what == 0:
            break
        h = side_of(d)
        if h.phase == START:
            what = start_line(d, response, line, length, <int64_t>h.left)
        elif h.phase == FIELDS:
            if length == 0:
                what = header_done(s, side, server, ts, out)
                if what != HTTP_MORE:
                    return what
            else:
                what = field_line(d, response, line, length)
        elif h.phase == CHUNK_LINE:
            # a chunk's line is no header: it may come for ever
            h.header = 0
            what = HTTP_ERROR if http_chunk(line, length, &h.left) != HTTP_OK else 0
            h.phase = CHUNK_DATA if h.left else TRAILER
        elif h.phase == CHUNK_END:
            h.header = 0
            what = HTTP_ERROR if length else 0
            h.phase = CHUNK_LINE
        else:
            what = 0
            if length == 0:
                return response_done(s, side, ts, out) if response else request_done(s, side, ts, out)
        if what < 0:
            return give_up(s, side, server, what)
    tidy(d)
    return HTTP_MORE


cdef int http_end(Stream *s, int side, int server, int64_t ts, AppRecord *out) noexcept nogil:
    cdef StreamSide *d = &s.side[side]
    cdef Side *h = side_of(d)
    cdef int what = HTTP_MORE
    if d.state != RUNNING:
        return HTTP_GONE
    if side == server:
        if h != NULL and h.phase == BODY_TO_END:
            what = response_done(s, side, ts, out)
        side_consume(d, d.len)
    # a client that has closed its side still waits for responses: its requests stay
    d.state = ENDED
    return what


cdef uint32_t http_waiting(const Stream *s, int server) noexcept nogil:
    cdef const StreamSide *c = &s.side[1 - server]
    return (<const Side *>c.buf).waiting if c.len >= sizeof(Side) else 0

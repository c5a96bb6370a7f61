"""Which decoder reads a connection, who is its server, and what becomes of a decoder's results."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from netprobe._core.app cimport (
    APP_ID_HTTP, APP_ID_POSTGRES, APP_ID_TLS, app_classify, app_dict, app_ports_init,
)
from netprobe._core.app_http cimport (
    HTTP_ERROR, HTTP_LOST, HTTP_MESSAGE, HTTP_ROOM, HTTP_UNPAIRED, http_end, http_step, http_waiting,
)
from netprobe._core.app_postgres cimport pg_step, pg_waiting
from netprobe._core.app_tls cimport tls_step
from netprobe._core.wire.http cimport http_begins
from netprobe._core.wire.tls cimport tls_begins
from netprobe._core.packet cimport L3_IPV4, L3_IPV6, PF_CUT, PROTO_TCP
from netprobe._core.stream cimport (
    STREAM_OPEN, stream_drop, stream_feed, stream_finish, stream_free, stream_init, stream_packet,
)

cdef enum:
    # segments of a connection without its SYNs in which the beginning of a message is looked for
    LOOK_AT = 24
    # Stream.begun: bit of a side that was found to begin a message, and above both how many segments were looked at
    BEGUN = 1
    LOOKED = 4

cdef enum:
    # StreamSide.state belongs to the decoders; to all of them 0 is a side that is read, anything else one that is not
    READ = 0
    GIVEN_UP = 1


cdef int server_of(const Stream *s) noexcept nogil:
    """The side that did not ask for the connection, by the SYNs or by what it said; -1: not known."""
    if s.side[0].syn == 1 or s.side[1].syn == 2:
        return 1
    if s.side[1].syn == 1 or s.side[0].syn == 2:
        return 0
    return <int>s.server - 1


cdef bint begins(Stream *s, int side, int app, const uint8_t *data, uint32_t n) noexcept nogil:
    """Of a connection without SYNs: does a message of this side begin here? Then it tells who the server is."""
    cdef int kind = 0
    cdef int server
    if app == APP_ID_HTTP:
        kind = http_begins(data, n)
    elif app == APP_ID_TLS:
        kind = tls_begins(data, n)
    if kind == 0:
        return False
    server = side if kind == 2 else 1 - side
    if s.server and server != <int>s.server - 1:
        return False
    s.server = <uint8_t>(server + 1)
    s.begun |= <uint8_t>(BEGUN << side)
    return True


cdef bint midway(AppStreams *a, Stream *s, int side, int app, const uint8_t *data, uint32_t n) noexcept nogil:
    """A segment of a connection whose SYNs are not there: is it to be read?"""
    if s.begun >> side & BEGUN or (data != NULL and not a.syn_only and begins(s, side, app, data, n)):
        return True
    s.begun += LOOKED
    # TLS says hello once. HTTP may still begin a message, but a connection of bulk data must not be read for ever
    if a.syn_only or app != APP_ID_HTTP or s.begun >= LOOK_AT * LOOKED:
        if s.begun & (BEGUN | BEGUN << 1):
            s.side[side].state = GIVEN_UP
        else:
            a.no_syn += 1
            s.side[0].state = s.side[1].state = GIVEN_UP
    return False


cdef void count(AppStreams *a, int app, int what) noexcept nogil:
    """A decoder's result; HTTP_* stands for those of all decoders."""
    if what == HTTP_MESSAGE:
        a.messages[app] += 1
    elif what == HTTP_UNPAIRED:
        a.unpaired[app] += 1
    elif what == HTTP_ERROR:
        a.errors[app] += 1
    elif what == HTTP_LOST:
        a.lost[app] += 1
    elif what == HTTP_ROOM:
        a.room[app] += 1


cdef void on_segment(void *ctx, Stream *s, int side, const uint8_t *data, uint32_t n, const Packet *pkt) noexcept nogil:
    cdef AppStreams *a = <AppStreams *>ctx
    if s.side[side].state == READ:
        read_segment(a, s, side, data, n, pkt)
    if s.side[side].state != READ and a.on_deaf != NULL:
        a.on_deaf(a.ctx, s, side)
        if s.side[1 - side].state != READ:
            a.on_deaf(a.ctx, s, 1 - side)
            a.finished = <uint32_t>(s - a.table.streams) + 1


cdef void read_segment(AppStreams *a, Stream *s, int side, const uint8_t *data, uint32_t n,
                       const Packet *pkt) noexcept nogil:
    cdef int app, server, what
    app = app_classify(a.ports, PROTO_TCP, s.port[0], s.port[1])
    if not (s.side[0].syn | s.side[1].syn) and not midway(a, s, side, app, data, n):
        return
    server = server_of(s)
    if app == APP_ID_HTTP or app == APP_ID_POSTGRES:
        while True:
            if app == APP_ID_HTTP:
                what = http_step(s, side, server, &data, &n, pkt.ts, &a.record)
            else:
                what = pg_step(s, side, server, &data, &n, pkt.ts, &a.record)
            count(a, app, what)
            if what == HTTP_MESSAGE:
                a.on_record(a.ctx, s, side, &a.record, pkt)
            elif what != HTTP_UNPAIRED:
                break
            if data == NULL or n == 0:
                break
    elif app == APP_ID_TLS:
        what = tls_step(s, side, data, n, pkt.ts, &a.record)
        count(a, app, what)
        if what == HTTP_MESSAGE and a.record.has:
            a.on_record(a.ctx, s, side, &a.record, pkt)


cdef void on_end(void *ctx, Stream *s, int side, int64_t ts) noexcept nogil:
    cdef AppStreams *a = <AppStreams *>ctx
    cdef Packet ghost
    cdef int what, server = server_of(s)
    if server < 0 or app_classify(a.ports, PROTO_TCP, s.port[0], s.port[1]) != APP_ID_HTTP:
        return
    what = http_end(s, side, server, ts, &a.record)
    count(a, APP_ID_HTTP, what)
    if what == HTTP_MESSAGE:
        stream_packet(s, side, ts, &ghost)
        a.on_record(a.ctx, s, side, &a.record, &ghost)


cdef void on_close(void *ctx, Stream *s, int64_t ts) noexcept nogil:
    cdef AppStreams *a = <AppStreams *>ctx
    cdef int app = app_classify(a.ports, PROTO_TCP, s.port[0], s.port[1]), server = server_of(s)
    if server < 0:
        return
    if app == APP_ID_HTTP:
        a.unanswered[app] += http_waiting(s, server)
    elif app == APP_ID_POSTGRES:
        a.unanswered[app] += pg_waiting(s, server)


cdef int app_streams_init(AppStreams *a, const AppPorts *ports, uint32_t limit, app_fn fn, void *ctx) noexcept nogil:
    memset(a, 0, sizeof(AppStreams))
    if stream_init(&a.table, limit, on_segment, on_close, a) < 0:
        return -1
    a.table.on_end = on_end
    a.table.idle_ns = <int64_t>APP_STREAM_IDLE * 1000000000
    a.ports = ports
    a.on_record = fn
    a.ctx = ctx
    return 0


cdef void app_streams_free(AppStreams *a) noexcept nogil:
    stream_free(&a.table)


cdef void app_streams_feed(AppStreams *a, const Packet *p) noexcept nogil:
    cdef Stream *s
    a.finished = 0
    stream_feed(&a.table, p)
    if a.finished:
        # its place may have been taken by the next connection
        s = &a.table.streams[a.finished - 1]
        if s.state == STREAM_OPEN and s.side[0].state != READ and s.side[1].state != READ:
            stream_drop(&a.table, s, p.ts)


cdef void app_streams_finish(AppStreams *a, int64_t ts) noexcept nogil:
    stream_finish(&a.table, ts)


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

cdef void tester_record(void *ctx, Stream *s, int side, const AppRecord *r, const Packet *pkt) noexcept with gil:
    record = app_dict(r)
    record["port"] = pkt.sport
    (<list>ctx).append(record)


cdef class Streams:
    """Feeds segments to the decoders; ``records`` holds a dict per record, with the sender's port."""
    cdef AppStreams all
    cdef AppPorts ports
    cdef readonly list records

    def __cinit__(self, uint32_t limit=0, http=(), postgres=(), bint syn_only=False):
        cdef uint16_t none = 0
        self.records = []
        app_ports_init(&self.ports, 1 << APP_ID_HTTP | 1 << APP_ID_TLS, 53, &none, 0, &none, 0)
        for port in http:
            self.ports.tcp[<uint16_t>port] = APP_ID_HTTP
        for port in postgres:
            self.ports.tcp[<uint16_t>port] = APP_ID_POSTGRES
        if app_streams_init(&self.all, &self.ports, limit, tester_record, <void *>self.records) < 0:
            raise MemoryError
        self.all.syn_only = syn_only

    def __dealloc__(self):
        app_streams_free(&self.all)

    def feed(self, bytes src, int sport, bytes dst, int dport, uint32_t seq, int flags, bytes payload=b"",
             int64_t ts=0, uint32_t ack=0, int lost=0):
        """One segment; `lost`: how many more bytes it had on the wire, which the capture cut off."""
        cdef Packet p
        cdef uint32_t length = len(payload)
        if len(src) not in (4, 16) or len(dst) != len(src):
            raise ValueError("addresses are 4 or 16 bytes")
        header = bytearray(40)
        header[0] = 0x45
        header[2:4] = ((40 + length + lost) & 0xffff).to_bytes(2, "big")
        header[24:28] = (<object>seq).to_bytes(4, "big")
        header[28:32] = (<object>ack).to_bytes(4, "big")
        header[32] = 0x50
        header[33] = flags
        raw = bytes(header) + payload
        memset(&p, 0, sizeof(p))
        p.data = <const uint8_t *><const char *>raw
        p.caplen = len(raw)
        p.wirelen = p.caplen + lost
        p.ts = ts
        p.l3 = L3_IPV4 if len(src) == 4 else L3_IPV6
        memcpy(&p.src[0], <const char *>src, len(src))
        memcpy(&p.dst[0], <const char *>dst, len(dst))
        p.sport = sport
        p.dport = dport
        p.proto = p.l4 = PROTO_TCP
        p.tcp_flags = flags
        p.l4_off = 20
        p.payload_off = 40
        p.payload_len = length
        p.flags = PF_CUT if lost else 0
        app_streams_feed(&self.all, &p)

    def finish(self, int64_t ts=0):
        app_streams_finish(&self.all, ts)

    def counters(self):
        """Per protocol number where it is a list; `held` and `buffered` are bytes in memory now."""
        cdef AppStreams *a = &self.all
        return {
            "open": a.table.n_open,
            "evicted": a.table.evicted,
            "idle_closed": a.table.idle_closed,
            "lost_bytes": a.table.lost_bytes,
            "held": a.table.held_bytes,
            "buffered": a.table.app_bytes,
            "no_syn": a.no_syn,
            "messages": [a.messages[i] for i in range(16)],
            "unpaired": [a.unpaired[i] for i in range(16)],
            "errors": [a.errors[i] for i in range(16)],
            "lost": [a.lost[i] for i in range(16)],
            "room": [a.room[i] for i in range(16)],
            "unanswered": [a.unanswered[i] for i in range(16)],
        }

"""Decoders at work on a flow table (kprobe spec 4.4, 6): which cell a message belongs to, and its fields as columns.

A message of DNS, DHCP, RADIUS, HTTP or PostgreSQL sends its flow's counters at once, with its fields. Of several
messages in one packet, or when nothing was counted since the last, the later records carry no packets. What TLS
hellos tell is kept for both directions until their flow entries end, and goes with each of their records.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from netprobe._core.app cimport (
    APP_ADDR0, APP_ID_DHCP, APP_ID_DNS, APP_ID_HTTP, APP_ID_POSTGRES, APP_ID_RADIUS, APP_ID_TLS, APP_LATENCY, APP_NUM0,
    APP_TEXT0, app_classify,
)
from netprobe._core.app_datagram cimport (
    APP_RECORD, app_datagram, app_datagrams_expire, app_datagrams_free, app_datagrams_init,
)
from netprobe._core.app_stream cimport app_streams_feed, app_streams_finish, app_streams_free, app_streams_init
from netprobe._core.flow cimport FC_DEAF, FLOW_NIL, FlowCell, FlowSide, flow_export_now, flow_find, resting, side_of
from netprobe._core.flow_view cimport plain_packet
from netprobe._core.packet cimport PF_CUT, PF_TUNNEL, PROTO_TCP, PROTO_UDP, Packet, mix64
from netprobe._core.stream cimport Stream, flow_end, stream_ask
from netprobe._core.tracker cimport TCP_SYN
from netprobe._core.wire.text cimport IP_TEXT, TEXT_MAX, ipv4_text, ipv6_text, text_cut, utf8_valid

cdef enum:
    TEXTS = 4
    NUMS = 4
    ADDRS = 3
    NOTE_LIMIT = 33554432        # bytes of what TLS connections told, all flows
    STREAM_DECODERS = 1 << APP_ID_HTTP | 1 << APP_ID_TLS | 1 << APP_ID_POSTGRES

cdef int64_t SWEEP_NS = 1000000000


cdef int apps_init(FlowApps *a, FlowTable *t, uint32_t streams) noexcept nogil:
    a.table = t
    a.ready = 1
    app_datagrams_init(&a.datagrams, 0, 53)
    if app_streams_init(&a.streams, &a.ports, streams, on_stream_record, a) < 0:
        return -1
    a.streams.on_deaf = on_deaf
    # kprobe's rule (spec 6.1, 6.4)
    a.streams.syn_only = a.whole_only
    return 0


cdef void apps_free(FlowApps *a) noexcept nogil:
    cdef uint32_t i
    if a.ready:
        app_datagrams_free(&a.datagrams)
        app_streams_free(&a.streams)
    for i in range(1, a.n_notes):
        free(a.notes[i])
    free(a.notes)
    a.notes = NULL
    a.n_notes = 0
    a.ready = 0


cdef uint8_t apps_classify(FlowApps *a, const FlowPacket *v) noexcept nogil:
    return <uint8_t>app_classify(&a.ports, v.proto, v.sport, v.dport)


# --- messages --------------------------------------------------------------------------------------------------

cdef void report(FlowApps *a, uint32_t cell, const AppRecord *r) noexcept nogil:
    if cell == FLOW_NIL:
        a.homeless += 1
    elif not resting(&a.table.cells[cell]) and side_of(a.table, &a.table.cells[cell]).uncounted:
        pass                         # sampled out
    elif a.room == 0:
        a.unreported += 1
    else:
        a.room -= 1
        flow_export_now(a.table, cell, r, r.latency_ms if r.has & APP_LATENCY else -1)


cdef uint32_t cell_of(FlowApps *a, const Stream *s, int side) noexcept nogil:
    """The cell of what `side` sends: nearly always that of the packet at hand, or its peer."""
    cdef const FlowPacket *v = a.at_hand
    cdef FlowPacket key
    if v != NULL and v.cell != FLOW_NIL and v.l3 == s.l3:
        if (v.sport == s.port[side] and v.dport == s.port[1 - side] and memcmp(v.src, &s.addr[side][0], 16) == 0
                and memcmp(v.dst, &s.addr[1 - side][0], 16) == 0):
            return v.cell
        if (v.dport == s.port[side] and v.sport == s.port[1 - side] and memcmp(v.dst, &s.addr[side][0], 16) == 0
                and memcmp(v.src, &s.addr[1 - side][0], 16) == 0
                and side_of(a.table, &a.table.cells[v.cell]).peer != FLOW_NIL):
            return side_of(a.table, &a.table.cells[v.cell]).peer
    memset(&key, 0, sizeof(key))
    memcpy(key.src, &s.addr[side][0], 16)
    memcpy(key.dst, &s.addr[1 - side][0], 16)
    key.sport = s.port[side]
    key.dport = s.port[1 - side]
    key.proto = PROTO_TCP
    key.l3 = s.l3
    return flow_find(a.table, &key)


cdef void on_stream_record(void *ctx, Stream *s, int side, const AppRecord *r, const Packet *pkt) noexcept nogil:
    cdef FlowApps *a = <FlowApps *>ctx
    if r.app == APP_ID_TLS:
        note_hello(a, cell_of(a, s, side), cell_of(a, s, 1 - side), r)
    else:
        report(a, cell_of(a, s, side), r)


cdef void on_deaf(void *ctx, Stream *s, int side) noexcept nogil:
    cdef FlowApps *a = <FlowApps *>ctx
    cdef uint32_t cell = cell_of(a, s, side)
    if cell != FLOW_NIL:
        a.table.cells[cell].flags |= FC_DEAF


cdef void apps_packet(FlowApps *a, FlowTable *t, const FlowPacket *v) noexcept nogil:
    cdef const Packet *p = v.pkt
    cdef FlowCell *c = &t.cells[v.cell]
    cdef FlowSide *s = side_of(t, c)
    if not a.decoders >> s.app & 1:
        return
    if v.tcp_flags & TCP_SYN:
        c.flags &= ~<uint8_t>FC_DEAF
        if s.peer != FLOW_NIL:
            t.cells[s.peer].flags &= ~<uint8_t>FC_DEAF
    elif c.flags & FC_DEAF and (s.peer == FLOW_NIL or t.cells[s.peer].flags & FC_DEAF):
        return                       # the end of a connection that is not read
    if p == NULL and v.raw != NULL:
        plain_packet(v, &a.packet)
        p = &a.packet
    elif p != NULL and p.ts != v.ts:
        a.packet = p[0]              # its stamp was out of bounds
        a.packet.ts = v.ts
        p = &a.packet
    if p == NULL or p.l4 != v.proto or p.flags & PF_TUNNEL:
        return
    if v.proto == PROTO_UDP:
        if v.payload == 0 or p.payload_len == 0:
            return
        if v.payload > p.payload_len:
            a.cut += 1
            if a.whole_only:
                return
        if app_datagram(&a.datagrams, s.app, p.data + p.payload_off, p.payload_len, p, &a.record) == APP_RECORD:
            report(a, v.cell, &a.record)
        return
    if s.app == APP_ID_TLS and s.app_state == 0 and s.peer != FLOW_NIL and side_of(t, &t.cells[s.peer]).app_state:
        s.app_state = side_of(t, &t.cells[s.peer]).app_state
        a.notes[s.app_state].refs += 1
    a.at_hand = v
    if v.payload > p.payload_len:
        feed_cut(a, p)
    else:
        app_streams_feed(&a.streams, p)
    a.at_hand = NULL


cdef void apps_ahead(FlowApps *a, FlowPacket *v, int step) noexcept nogil:
    """Of a segment that will be fed to its stream: where that is."""
    if step == 0:
        if v.proto != PROTO_TCP or not a.decoders & STREAM_DECODERS:
            return
        # as stream.pxd has it for the packet
        v.app_ahead = mix64(flow_end(v.src, v.sport) + flow_end(v.dst, v.dport) + (<uint64_t>PROTO_TCP << 8) + v.l3)
    stream_ask(&a.streams.table, v.app_ahead, step)


cdef void feed_cut(FlowApps *a, const Packet *p) noexcept nogil:
    """A segment of which the end is missing, or nothing is to be read."""
    cdef Packet cut = p[0]
    a.cut += 1
    cut.flags |= PF_CUT
    if a.whole_only:
        cut.payload_len = 0
    app_streams_feed(&a.streams, &cut)


cdef void apps_tick(FlowApps *a, int64_t now) noexcept nogil:
    if a.ready and (now - a.swept >= SWEEP_NS or now < a.swept):
        a.swept = now
        app_datagrams_expire(&a.datagrams, now)


cdef void apps_finish(FlowApps *a, int64_t now) noexcept nogil:
    if a.ready:
        a.at_hand = NULL
        app_streams_finish(&a.streams, now)


# --- what TLS connections told ------------------------------------------------------------------------------------

cdef uint32_t note_new(FlowApps *a) noexcept nogil:
    cdef uint32_t i = a.free_note, cap
    cdef Note **grown
    if i:
        a.free_note = a.notes[i].next
        return i
    if a.n_notes >= a.cap_notes:
        cap = a.cap_notes * 2 if a.cap_notes else 64
        grown = <Note **>realloc(a.notes, <size_t>cap * sizeof(Note *))
        if grown == NULL:
            return 0
        a.notes = grown
        a.cap_notes = cap
    i = a.n_notes if a.n_notes else 1
    a.notes[i] = <Note *>calloc(1, sizeof(Note))
    if a.notes[i] == NULL:
        return 0
    a.notes[0] = NULL
    a.note_bytes += sizeof(Note)
    a.n_notes = i + 1
    return i


cdef void note_hello(FlowApps *a, uint32_t cell, uint32_t peer, const AppRecord *r) noexcept nogil:
    """One side's hello: to the note of both cells, which comes into being with it."""
    cdef uint32_t i = 0, n = r.text_len[0]
    cdef Note *note
    cdef FlowSide *ours = NULL
    cdef FlowSide *theirs = NULL
    if cell == FLOW_NIL and peer == FLOW_NIL:
        a.homeless += 1
        return
    if cell != FLOW_NIL:
        ours = side_of(a.table, &a.table.cells[cell])
        i = ours.app_state
    if peer != FLOW_NIL:
        theirs = side_of(a.table, &a.table.cells[peer])
        if i == 0:
            i = theirs.app_state
    if i == 0:
        if a.note_bytes + sizeof(Note) + n <= NOTE_LIMIT:
            i = note_new(a)
        if i == 0:
            a.notes_dropped += 1
            return
        memset(&a.notes[i].entry, 0, sizeof(AppEntry))
        a.notes[i].entry.app = APP_ID_TLS
        a.notes[i].entry.addr_len = 4
        a.notes[i].entry.size = <uint32_t>sizeof(AppEntry)
        a.notes[i].refs = 0
    if ours != NULL and ours.app_state == 0:
        ours.app_state = i
        a.notes[i].refs += 1
    if theirs != NULL and theirs.app_state == 0:
        theirs.app_state = i
        a.notes[i].refs += 1
    note = a.notes[i]
    if r.has & APP_TEXT0 or not r.has & APP_NUM0:
        # a client's hello: another connection, maybe, on the same ports
        n = (n + 7) & ~<uint32_t>7
        note = <Note *>realloc(note, sizeof(Note) + n)
        if note == NULL:
            a.notes_dropped += 1
            return
        a.notes[i] = note
        a.note_bytes += <uint64_t>n - (note.entry.size - sizeof(AppEntry))
        note.entry.size = <uint32_t>sizeof(AppEntry) + n
        note.entry.has = r.has & APP_TEXT0
        note.entry.text_len[0] = r.text_len[0]
        memcpy(<uint8_t *>&note.entry + sizeof(AppEntry), &r.text[0][0], r.text_len[0])
    else:
        note.entry.has |= r.has & (APP_NUM0 | APP_NUM0 << 1)
        note.entry.num[0] = r.num[0]
        note.entry.num[1] = r.num[1]


cdef void apps_gone(FlowApps *a, uint32_t i) noexcept nogil:
    cdef Note *note = a.notes[i]
    note.refs -= 1
    if note.refs == 0:
        a.note_bytes -= note.entry.size - sizeof(AppEntry)
        note.entry.size = <uint32_t>sizeof(AppEntry)
        note = <Note *>realloc(note, sizeof(Note))
        if note != NULL:
            a.notes[i] = note
        a.notes[i].next = a.free_note
        a.free_note = i


cdef const AppEntry *apps_note(FlowApps *a, uint32_t cell) noexcept nogil:
    cdef uint32_t i = side_of(a.table, &a.table.cells[cell]).app_state
    return &a.notes[i].entry if i and a.notes[i].entry.has else NULL


# --- entries ------------------------------------------------------------------------------------------------------

cdef uint32_t put_text(uint8_t *out, const uint8_t *data, uint32_t n) noexcept nogil:
    """Bytes as UTF-8, at most TEXT_MAX: what is none becomes U+FFFD."""
    cdef uint32_t at = 0, made = 0, k
    if utf8_valid(data, n):
        memcpy(out, data, n)
        return n
    while at < n:
        k = 1
        while k <= 4 and at + k <= n and not utf8_valid(data + at, k):
            k += 1
        if k <= 4 and at + k <= n:
            if made + k > TEXT_MAX:
                break
            memcpy(out + made, data + at, k)
            made += k
            at += k
        else:
            if made + 3 > TEXT_MAX:
                break
            out[made] = 0xEF
            out[made + 1] = 0xBF
            out[made + 2] = 0xBD
            made += 3
            at += 1
    return made


cdef uint32_t entry_pack(AppEntry *out, const AppRecord *r) noexcept nogil:
    cdef uint8_t *text = <uint8_t *>out + sizeof(AppEntry)
    cdef uint32_t i
    out.row = 0
    out.has = r.has
    out.app = r.app
    out.addr_len = r.addr_len
    memcpy(out.num, r.num, sizeof(out.num))
    if r.has & (APP_ADDR0 | APP_ADDR0 << 1 | APP_ADDR0 << 2):
        memcpy(out.addr, r.addr, sizeof(out.addr))
    for i in range(<uint32_t>TEXTS):
        out.text_len[i] = 0
        if r.has & (APP_TEXT0 << i):
            out.text_len[i] = <uint16_t>put_text(text, &r.text[i][0], r.text_len[i])
            text += out.text_len[i]
    while <size_t>text & 7:
        text[0] = 0
        text += 1
    out.size = <uint32_t>(text - <uint8_t *>out)
    return out.size


# --- columns ------------------------------------------------------------------------------------------------------

# column -> (kind, application, slot of AppRecord)
APP_COLUMNS = {
    "dns_query": ("text", APP_ID_DNS, 0),
    "dns_query_type": ("number", APP_ID_DNS, 0),
    "dns_ret_code": ("number", APP_ID_DNS, 1),
    "dns_response": ("text", APP_ID_DNS, 1),
    "http_url": ("text", APP_ID_HTTP, 0),
    "http_host": ("text", APP_ID_HTTP, 1),
    "http_referer": ("text", APP_ID_HTTP, 2),
    "http_ua": ("text", APP_ID_HTTP, 3),
    "http_status": ("number", APP_ID_HTTP, 0),
    "tls_server_name": ("text", APP_ID_TLS, 0),
    "tls_server_version": ("number", APP_ID_TLS, 0),
    "tls_cipher_suite": ("number", APP_ID_TLS, 1),
    "dhcp_op": ("number", APP_ID_DHCP, 0),
    "dhcp_msg_type": ("number", APP_ID_DHCP, 1),
    "dhcp_ci_addr": ("address", APP_ID_DHCP, 0),
    "dhcp_yi_addr": ("address", APP_ID_DHCP, 1),
    "dhcp_si_addr": ("address", APP_ID_DHCP, 2),
    "dhcp_ch_addr": ("text", APP_ID_DHCP, 0),
    "dhcp_hostname": ("text", APP_ID_DHCP, 1),
    "dhcp_domain": ("text", APP_ID_DHCP, 2),
    "dhcp_lease": ("number", APP_ID_DHCP, 2),
    "radius_code": ("number", APP_ID_RADIUS, 0),
    "radius_user_name": ("text", APP_ID_RADIUS, 0),
    "radius_acct_status": ("number", APP_ID_RADIUS, 2),
    "radius_service_type": ("number", APP_ID_RADIUS, 1),
    "radius_framed_ip_addr": ("address", APP_ID_RADIUS, 0),
    "radius_framed_ip_mask": ("address", APP_ID_RADIUS, 1),
    "radius_framed_proto": ("number", APP_ID_RADIUS, 3),
    "radius_acct_session_id": ("text", APP_ID_RADIUS, 2),
    "pg_user": ("text", APP_ID_POSTGRES, 0),
    "pg_database": ("text", APP_ID_POSTGRES, 1),
    "pg_statement": ("text", APP_ID_POSTGRES, 2),
    "pg_error": ("text", APP_ID_POSTGRES, 3),
    "pg_rows": ("number", APP_ID_POSTGRES, 0),
}
DECODERS = {"dns": APP_ID_DNS, "http": APP_ID_HTTP, "tls": APP_ID_TLS, "dhcp": APP_ID_DHCP, "radius": APP_ID_RADIUS,
            "postgres": APP_ID_POSTGRES}
# the lowest bit of each kind in AppRecord.has
_BITS = {"text": APP_TEXT0, "number": APP_NUM0, "address": APP_ADDR0}


cdef class AppRows:
    """The application fields of a batch of flow records: only the rows that have any."""

    def __dealloc__(self):
        free(self.data)

    cdef int add(self, const AppEntry *e, uint32_t row) noexcept nogil:
        """-1: no memory."""
        cdef size_t cap
        cdef uint8_t *grown
        if self.used + e.size > self.cap:
            cap = self.cap * 2 if self.cap else 16384
            while cap < self.used + e.size:
                cap *= 2
            grown = <uint8_t *>realloc(self.data, cap)
            if grown == NULL:
                return -1
            self.data = grown
            self.cap = cap
        memcpy(self.data + self.used, e, e.size)
        (<AppEntry *>(self.data + self.used)).row = row
        self.used += e.size
        self.count += 1
        self.seen[e.app & 15] |= e.has
        return 0

    def __len__(self):
        return self.count

    def __reduce__(self):
        return _app_rows, (PyBytes_FromStringAndSize(<const char *>self.data, self.used),)

    def names(self):
        """The columns that have a value in any row, in the order of APP_COLUMNS."""
        return [name for name, (kind, app, slot) in APP_COLUMNS.items()
                if self.seen[<int>app] & (<int>_BITS[kind] << <int>slot)]

    def column(self, str name, uint32_t rows, bint binary=False):
        """One column over all rows, see the stub."""
        kind, app, slot = APP_COLUMNS[name]
        present = bytearray(rows)
        if kind == "number":
            values = bytearray(8 * <Py_ssize_t>rows)
            self.numbers(app, slot, rows, <int64_t *><char *>values, <uint8_t *><char *>present)
            return memoryview(values).cast("q"), None, memoryview(present)
        offsets = bytearray(4 * (<Py_ssize_t>rows + 1))
        values = bytearray(self.texts(app, slot, rows, kind == "address", binary, NULL, NULL, NULL))
        self.texts(app, slot, rows, kind == "address", binary, <uint8_t *><char *>values,
                   <int32_t *><char *>offsets, <uint8_t *><char *>present)
        return memoryview(values), memoryview(offsets).cast("i"), memoryview(present)

    cdef void numbers(self, int app, int slot, uint32_t rows, int64_t *out, uint8_t *present) noexcept:
        cdef size_t at = 0
        cdef AppEntry *e
        memset(out, 0xff, <size_t>rows * 8)
        while at < self.used:
            e = <AppEntry *>(self.data + at)
            at += e.size
            if e.app == app and e.has & (APP_NUM0 << slot) and e.row < rows:
                out[e.row] = e.num[slot]
                present[e.row] = 1

    cdef size_t texts(self, int app, int slot, uint32_t rows, bint address, bint binary, uint8_t *out,
                      int32_t *offsets, uint8_t *present) noexcept:
        """Bytes of all texts; out NULL: only how many."""
        cdef size_t at = 0
        cdef uint32_t row = 0, n, i
        cdef int32_t used = 0
        cdef uint8_t[IP_TEXT] text
        cdef const uint8_t *piece
        cdef AppEntry *e
        while at < self.used:
            e = <AppEntry *>(self.data + at)
            at += e.size
            if e.app != app or not e.has & ((APP_ADDR0 if address else APP_TEXT0) << slot) or e.row >= rows:
                continue
            if not address:
                piece = <const uint8_t *>e + sizeof(AppEntry)
                for i in range(<uint32_t>slot):
                    piece += e.text_len[i]
                n = e.text_len[slot]
            elif binary:
                piece = &e.addr[slot][0]
                n = e.addr_len
            else:
                piece = &text[0]
                n = ipv4_text(&e.addr[slot][0], text) if e.addr_len == 4 else ipv6_text(&e.addr[slot][0], text)
            if out != NULL:
                while row <= e.row:
                    offsets[row] = used
                    row += 1
                memcpy(out + used, piece, n)
                present[e.row] = 1
            used += n
        if out != NULL:
            while row <= rows:
                offsets[row] = used
                row += 1
        return used


def _app_rows(bytes data):
    """The fields that a pickle holds; ValueError if they contradict themselves."""
    cdef AppRows rows = AppRows()
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef size_t left = len(data), need
    cdef const AppEntry *e
    cdef int i
    while left:
        e = <const AppEntry *>p
        need = sizeof(AppEntry)
        if left >= need:
            for i in range(TEXTS):
                need += e.text_len[i]
        if left < need or not need <= e.size <= left or e.size & 7 or e.addr_len > sizeof(e.addr[0]):
            raise ValueError("malformed application fields")
        if rows.add(e, e.row):
            raise MemoryError
        p += e.size
        left -= e.size
    return rows

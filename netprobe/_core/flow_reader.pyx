"""A capture through the flow table into columns of records."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

from netprobe._core.app cimport APP_ID_POSTGRES, AppRecord, app_number, app_ports_init
from netprobe._core.app_flow cimport (
    ENTRY_MAX, AppEntry, AppRows, FlowApps, apps_ahead, apps_classify, apps_finish, apps_free, apps_gone, apps_init,
    apps_note, apps_packet, apps_tick, entry_pack,
)
from netprobe._core.app_flow import DECODERS
from netprobe._core.decode cimport decode_batch, decode_datagram, free_hosts, set_hosts
from netprobe._core.flow cimport (
    FLOW_NIL, N_REASONS, FlowConfig, FlowPacket, FlowRecord, FlowTable, flow_finish, flow_free, flow_init,
    flow_open_packets, flow_tick, flow_update,
)
from netprobe._core.flow_view cimport flow_stamp, flow_view, flow_view_plain
from netprobe._core.fragment cimport frag_feed, frag_free, frag_init, frag_release
from netprobe._core.packet cimport PF_FRAG, PROTO_TCP, PROTO_UDP, Packet
from netprobe._core.source cimport BATCH_PACKETS, PacketSource
from netprobe._core.spread cimport Column, bare_ip, cut, sift, spread

cdef enum:
    FRAG_DATAGRAMS = 4096
    FRAG_BYTES = 16777216
    STREAMS_MAX = 200000         # connections that decoders read at once; those of TLS are done after the hellos
    FIELDS_LIMIT = 1073741824    # bytes of application fields in one batch of records

cdef FlowRecord _r
cdef size_t _base = <size_t>&_r


def _offsets():
    """Column -> (numpy type, bytes per row, offset in the record)."""
    table = {
        "first": ("i8", 8, <size_t>&_r.first - _base),
        "last": ("i8", 8, <size_t>&_r.last - _base),
        "src": ("16u1", 16, <size_t>&_r.src - _base),
        "dst": ("16u1", 16, <size_t>&_r.dst - _base),
        "sport": ("u2", 2, <size_t>&_r.sport - _base),
        "dport": ("u2", 2, <size_t>&_r.dport - _base),
        "proto": ("u1", 1, <size_t>&_r.proto - _base),
        "l3": ("u1", 1, <size_t>&_r.l3 - _base),
        "direction": ("u1", 1, <size_t>&_r.direction - _base),
        "reason": ("u1", 1, <size_t>&_r.reason - _base),
    }
    for name, member in (
        ("pkts", ("u8", 8, <size_t>&_r.side[0].packets - _base)),
        ("bytes", ("u8", 8, <size_t>&_r.side[0].bytes - _base)),
        ("tcp_flags", ("u1", 1, <size_t>&_r.side[0].tcp_flags - _base)),
        ("tos", ("u1", 1, <size_t>&_r.side[0].tos - _base)),
        ("retransmits", ("u4", 4, <size_t>&_r.side[0].retransmits - _base)),
        ("repeats", ("u4", 4, <size_t>&_r.side[0].repeats - _base)),
        ("reordered", ("u4", 4, <size_t>&_r.side[0].reordered - _base)),
        ("window", ("i8", 8, <size_t>&_r.side[0].window - _base)),
        ("zero_windows", ("u4", 4, <size_t>&_r.side[0].zero_windows - _base)),
    ):
        dtype, size, offset = member
        table["out_" + name] = (dtype, size, offset)
        table["in_" + name] = (dtype, size, offset + (<size_t>&_r.side[1] - <size_t>&_r.side[0]))
    table["client_nw_latency_ms"] = ("u4", 4, <size_t>&_r.client_ms - _base)
    table["server_nw_latency_ms"] = ("u4", 4, <size_t>&_r.server_ms - _base)
    table["fpex_latency_ms"] = ("u4", 4, <size_t>&_r.fpex_ms - _base)
    table["appl_latency_ms"] = ("i8", 8, <size_t>&_r.appl_ms - _base)
    table["connection_id"] = ("u4", 4, <size_t>&_r.connection_id - _base)
    table["fragments"] = ("u4", 4, <size_t>&_r.fragments - _base)
    table["sample_rate"] = ("u4", 4, <size_t>&_r.sample_rate - _base)
    table["vlan"] = ("u2", 2, <size_t>&_r.vlan - _base)
    table["smac"] = ("6u1", 6, <size_t>&_r.smac - _base)
    table["dmac"] = ("6u1", 6, <size_t>&_r.dmac - _base)
    table["app"] = ("u1", 1, <size_t>&_r.app - _base)
    return table


COLUMNS = _offsets()
REASONS = ("idle", "active", "schedule", "decoded", "evicted", "end")

cdef void keep_record(void *ctx, const FlowRecord *r) noexcept nogil:
    # the table stops short of a full stage (room)
    cdef FlowStage *s = <FlowStage *>ctx
    cdef FlowRecord *kept = &s.records[s.n]       # made there
    cdef AppEntry *place = <AppEntry *>(s.fields + s.fields_used)
    cdef const AppEntry *note = NULL
    kept.app = <uint8_t>app_number(r.app)
    s.n += 1
    s.apps.table.place = &s.records[s.n]
    if r.app_fields != NULL:
        s.fields_used += entry_pack(place, <const AppRecord *>r.app_fields)
        kept.app_fields = place
    elif s.apps.n_notes:
        note = apps_note(s.apps, r.cell)
        if note == NULL and r.peer_cell != FLOW_NIL:
            note = apps_note(s.apps, r.peer_cell)
        if note != NULL:
            memcpy(place, note, note.size)
            s.fields_used += note.size
            kept.app_fields = place


cdef uint8_t on_classify(void *ctx, const FlowPacket *v) noexcept nogil:
    return apps_classify((<FlowStage *>ctx).apps, v)


cdef void on_packet(void *ctx, FlowTable *t, const FlowPacket *v) noexcept nogil:
    apps_packet((<FlowStage *>ctx).apps, t, v)


cdef void on_ahead(void *ctx, FlowPacket *v, int step) noexcept nogil:
    apps_ahead((<FlowStage *>ctx).apps, v, step)


cdef void on_gone(void *ctx, uint32_t app_state) noexcept nogil:
    apps_gone((<FlowStage *>ctx).apps, app_state)


cdef inline int64_t clock_ns(int which) noexcept nogil:
    cdef timespec now
    clock_gettime(which, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef int ports_of(what, list ports, uint16_t *out) except -1:
    for i, port in enumerate(ports):
        if not 0 <= port <= 65535:
            raise ValueError(f"{what}: {port}, expected a port from 0 to 65535")
        out[i] = port
    return 0


cdef class FlowReader:
    """Fills writable buffers, one per column, with the flow records of a capture."""

    def __cinit__(self, PacketSource reader not None, *, uint32_t capacity=1_000_000, bint bidirectional=True,
                  bint schedule=False, bint raw_extensions=False, bint track=True, int64_t idle_ns=60_000_000_000,
                  int64_t active_ns=0, uint64_t seed=1, uint32_t sample=1, hosts=(), compile_filter=None, mac=None,
                  decode=(), int dns_port=53, http_ports=(), radius_ports=(1812, 1813), postgres_ports=(),
                  translate=(), bint live=False, uint32_t snaplen=0):
        cdef FlowConfig c
        cdef int i, j, bits
        memset(&c, 0, sizeof(FlowConfig))
        c.capacity = capacity
        c.bidirectional = bidirectional and not schedule
        c.schedule = schedule
        c.raw_extensions = raw_extensions
        c.track = track
        c.idle_ns = idle_ns
        c.active_ns = active_ns
        c.seed = seed
        c.sample = sample
        if mac is not None:
            c.use_mac = 1
            for i in range(6):
                c.mac[i] = mac[i]
        self.reader = reader
        self.compile_filter = compile_filter
        self.snaplen = snaplen
        self.programs = {}
        self.packets = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
        self.whole = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
        self.views = <FlowPacket *>malloc(BATCH_PACKETS * sizeof(FlowPacket))
        # memory comes with use: nearly always the first STAGE_RECORDS, without fields
        self.stage.records = <FlowRecord *>malloc(STAGE_ROOM * sizeof(FlowRecord))
        self.stage.fields = <uint8_t *>malloc(<size_t>STAGE_ROOM * ENTRY_MAX)
        self.stage.apps = <FlowApps *>calloc(1, sizeof(FlowApps))
        if (self.packets == NULL or self.whole == NULL or self.views == NULL or self.stage.records == NULL
                or self.stage.fields == NULL or self.stage.apps == NULL or flow_init(&self.table, &c) < 0):
            raise MemoryError
        if frag_init(&self.frags, FRAG_DATAGRAMS, FRAG_BYTES) < 0:
            raise MemoryError
        self.frags.show_cut = 1      # of a datagram that a snap length spoilt, the first piece counts
        self.ready = 1
        self.live = live
        self.table.ctx = &self.stage
        self.table.on_record = keep_record
        set_hosts(&self.config, list(hosts))
        self.set_apps(DECODERS if decode is True else decode or (), dns_port, list(http_ports), list(radius_ports),
                      list(postgres_ports))
        self.set_rewrites(list(translate))

    def __dealloc__(self):
        if self.reader is not None:
            self.reader.release(&self.batch)
        if self.ready:
            frag_free(&self.frags)
        flow_free(&self.table)
        if self.stage.apps != NULL:
            apps_free(self.stage.apps)
        free(self.stage.apps)
        free(self.stage.fields)
        free(self.rewrites)
        free(self.packets)
        free(self.whole)
        free(self.views)
        free(self.stage.records)
        free_hosts(&self.config)

    cdef int set_apps(self, decoders, int dns_port, list http, list radius, list postgres) except -1:
        cdef FlowApps *a = self.stage.apps
        cdef uint16_t *ports = <uint16_t *>calloc(len(http) + len(radius) + len(postgres) + 1, sizeof(uint16_t))
        cdef uint32_t i, capacity = self.table.config.capacity
        if ports == NULL:
            raise MemoryError
        try:
            ports_of("dns_port", [dns_port], ports)
            ports_of("http_ports", http, ports)
            ports_of("radius_ports", radius, ports + len(http))
            ports_of("postgres_ports", postgres, ports + len(http) + len(radius))
            for name in decoders:
                if name not in DECODERS:
                    raise ValueError(f"decode: {name!r}, expected some of {', '.join(DECODERS)}")
                a.decoders |= <uint32_t>1 << <int>DECODERS[name]
            app_ports_init(&a.ports, a.decoders, dns_port, ports, <uint32_t>len(http), ports + len(http),
                           <uint32_t>len(radius))
            if a.decoders >> APP_ID_POSTGRES & 1:
                for i in range(len(postgres)):
                    a.ports.tcp[ports[len(http) + len(radius) + i]] = APP_ID_POSTGRES
        finally:
            free(ports)
        self.table.classify = on_classify
        a.table = &self.table
        if a.decoders:
            a.whole_only = self.table.config.schedule
            if apps_init(a, &self.table, capacity if capacity < STREAMS_MAX else STREAMS_MAX) < 0:
                raise MemoryError
            a.datagrams.dns_port = dns_port
            self.table.on_packet = on_packet
            self.table.on_ahead = on_ahead
            self.table.on_gone = on_gone
        return 0

    cdef int set_rewrites(self, list rules) except -1:
        cdef Rewrite *w
        self.rewrites = <Rewrite *>calloc(len(rules) + 1, sizeof(Rewrite))
        if self.rewrites == NULL:
            raise MemoryError
        for old, old_port, new, new_port in rules:
            if len(old) not in (4, 16) or len(old) != len(new) or (old_port is None) != (new_port is None):
                raise ValueError("translate: expected two addresses of one family, with two ports or none")
            w = &self.rewrites[self.n_rewrites]
            w.l3 = 4 if len(old) == 4 else 6
            memcpy(w.old, <const char *><bytes>old, len(old))
            memcpy(w.new, <const char *><bytes>new, len(new))
            w.old_port = -1 if old_port is None else old_port
            w.new_port = -1 if new_port is None else new_port
            self.n_rewrites += 1
        return 0

    def fill(self, dict buffers, Py_ssize_t limit, AppRows apps=None, *, seconds=None):
        """Write up to `limit` records into {column: writable buffer}, their application fields into `apps`.

        Returns how many: 0 at the end (`at_end`), when nothing comes, or when `seconds` are over.
        """
        cdef Py_ssize_t done = 0
        cdef int n = <int>len(buffers)
        cdef Column *columns = <Column *>calloc(n + 1, sizeof(Column))
        cdef Py_buffer *views = <Py_buffer *>calloc(n + 1, sizeof(Py_buffer))
        cdef int held = 0
        cdef uint32_t take
        cdef uint32_t k
        cdef int i
        cdef const AppEntry *entry
        cdef int64_t until = 0
        if seconds is not None:
            until = clock_ns(CLOCK_MONOTONIC) + <int64_t>(seconds * 1e9)
        if columns == NULL or views == NULL:
            free(columns)
            free(views)
            raise MemoryError
        try:
            for name, buffer in buffers.items():
                _, size, offset = COLUMNS[name]
                PyObject_GetBuffer(buffer, &views[held], PyBUF_SIMPLE | PyBUF_WRITABLE)
                held += 1
                if views[held - 1].len < limit * <Py_ssize_t>size:
                    raise ValueError(f"the buffer of column {name} is too small for {limit} rows")
                columns[held - 1].data = <uint8_t *>views[held - 1].buf
                columns[held - 1].size = size
                columns[held - 1].offset = offset
            while done < limit:
                if self.stage.used == self.stage.n:
                    if self.finished:
                        break
                    if not self.pump() and not until:
                        break        # a silent pipe: let the caller look around
                    # a long capture of few flows: Ctrl-C must not wait for the next record
                    PyErr_CheckSignals()
                    if until and clock_ns(CLOCK_MONOTONIC) >= until:
                        break
                    continue
                if apps is not None and apps.used > FIELDS_LIMIT:
                    break            # offsets have 32 bits
                take = self.stage.n - self.stage.used
                if take > limit - done:
                    take = <uint32_t>(limit - done)
                with nogil:
                    for i in range(held):
                        spread(&columns[i], self.stage.records + self.stage.used, sizeof(FlowRecord), take, done)
                    if apps is not None and self.stage.fields_used:
                        for k in range(take):
                            entry = <const AppEntry *>self.stage.records[self.stage.used + k].app_fields
                            if entry != NULL:
                                apps.add(entry, <uint32_t>(done + k))
                self.stage.used += take
                done += take
            return done
        finally:
            for i in range(held):
                PyBuffer_Release(&views[i])
            free(columns)
            free(views)

    def drain(self):
        """Run to the end and give up all records (benchmarks, `--export null`)."""
        while not self.finished:
            self.stage.n = self.stage.used = 0
            self.pump()
            PyErr_CheckSignals()
        self.stage.n = self.stage.used = 0

    def stop(self):
        """No more packets are read: what is there goes through and all flows come out. Any thread."""
        self.stopping = 1

    @property
    def at_end(self):
        return self.finished != 0 and self.stage.used == self.stage.n

    def stats(self):
        """Where every packet of the capture went, and what left the table why.

        framed = filtered_out + not_ip + unreadable + fragments_lost + packets + ignored, and packets and bytes equal
        what the records carry plus open_*.
        """
        cdef uint64_t open_bytes = 0
        cdef uint64_t open_packets
        with nogil:                  # a million cells take a while
            open_packets = flow_open_packets(&self.table, &open_bytes)
        return {
            "framed": self.framed,
            "filtered_out": self.framed - self.kept,
            "not_ip": self.not_ip,
            "unreadable": self.unreadable,
            "fragments_lost": self.fragments - self.joined,
            "ignored": self.table.ignored,
            "ignored_bytes": self.table.ignored_bytes,
            "packets": self.table.packets,
            "bytes": self.table.bytes,
            "out_packets": self.table.out_packets,
            "out_bytes": self.table.out_bytes,
            "open_packets": open_packets,
            "open_bytes": open_bytes,
            "open": self.table.active,
            "created": self.table.created,
            "evicted": self.table.evicted,
            "records": self.table.records,
            "trackers": self.table.n_trackers,
            "by_reason": {REASONS[i]: self.table.by_reason[i] for i in range(N_REASONS)},
            "decoders": self.decoder_stats(),
        }

    cdef dict decoder_stats(self):
        cdef FlowApps *a = self.stage.apps
        out = {}
        for name, number in DECODERS.items():
            k = <int>number
            if a.decoders >> <int>k & 1:
                out[name] = {
                    "messages": a.datagrams.messages[<int>k] + a.streams.messages[<int>k],
                    "malformed": a.datagrams.malformed[<int>k] + a.streams.errors[<int>k],
                    "unmatched": a.datagrams.unmatched[<int>k] + a.streams.unpaired[<int>k],
                    "lost": a.streams.lost[<int>k] + a.streams.room[<int>k],
                }
        if out:
            out["cut"] = a.cut
            out["unreported"] = a.unreported + a.homeless + a.notes_dropped
            out["streams_evicted"] = a.streams.table.evicted
            out["requests_evicted"] = a.datagrams.open.evicted
        return out

    cdef void empty_stage(self) noexcept nogil:
        self.stage.n = self.stage.used = 0
        self.stage.fields_used = 0
        self.table.room = STAGE_RECORDS
        self.table.place = self.stage.records
        self.stage.apps.room = STAGE_ROOM - 2 * STAGE_RECORDS

    cdef int pump(self) except -1:
        """Move on until records are there, the batch is through, or nothing comes. 0: a silence."""
        cdef uint32_t n
        self.empty_stage()
        if self.done_views == self.n_views and (self.stopping or not self.next_views()):
            if self.stopping or self.reader.ended:
                with nogil:
                    if not self.closing:
                        self.closing = 1
                        apps_finish(self.stage.apps, self.newest)
                    self.finished = flow_finish(&self.table) == 0
                return 1
            if self.live:
                with nogil:
                    self.newest = clock_ns(CLOCK_REALTIME)
                    apps_tick(self.stage.apps, self.newest)
                    flow_tick(&self.table, self.newest)
                return self.stage.n != 0
            return 0
        with nogil:
            n = flow_update(&self.table, self.views + self.done_views, self.n_views - self.done_views)
        self.done_views += n
        return 1

    cdef int next_views(self) except -1:
        """The next batch, filtered, decoded and seen as flow packets."""
        cdef int got
        with nogil:
            frag_release(&self.frags)
            self.reader.release(&self.batch)
            self.n_views = self.done_views = 0
            got = self.reader.next_batch(&self.batch)
        if got == 0:
            self.batch.n = 0
            return 0
        self.framed += self.batch.n
        if self.compile_filter is not None:
            sift(&self.batch, self.programs, self.compile_filter)
        if self.snaplen:
            cut(&self.batch, self.snaplen)
        self.kept += self.batch.n
        with nogil:
            self.view_batch()
            if self.batch.n:
                self.newest = flow_stamp(self.batch.raw[self.batch.n - 1].ts)
                apps_tick(self.stage.apps, self.newest)
        return 1

    cdef void view_batch(self) noexcept nogil:
        cdef uint32_t i, n = 0, n_whole = 0
        cdef Packet *p
        cdef Packet *w
        cdef FlowPacket *v
        cdef bint plain = not (self.config.n_hosts4 | self.config.n_hosts6 or self.n_rewrites)
        for i in range(self.batch.n):
            p = &self.packets[i]
            v = &self.views[n]
            if plain and flow_view_plain(&self.table, &self.batch.raw[i], v):
                n += 1
                continue
            decode_batch(&self.config, &self.batch.raw[i], 1, p, &self.stats_)
            if p.l3 and self.table.config.raw_extensions and not bare_ip(p):
                self.not_ip += 1
                continue
            if p.flags & PF_FRAG:
                self.fragments += 1
                w = &self.whole[n_whole]
                if not frag_feed(&self.frags, p, w):
                    continue
                n_whole += 1
                self.joined += self.frags.done_fragments
                decode_datagram(&self.config, w)
                if not flow_view(&self.table, w, p, v):
                    self.unreadable += self.frags.done_fragments
                    continue
                v.packets = self.frags.done_fragments
                v.fragments = self.frags.done_fragments
                v.bytes = self.frags.done_bytes
                if self.n_rewrites:
                    self.rewrite(v, w)
            elif p.l3 == 0:
                self.not_ip += 1
                continue
            elif not flow_view(&self.table, p, p, v):
                self.unreadable += 1
                continue
            elif self.n_rewrites:
                self.rewrite(v, p)
            n += 1
        self.n_views = n

    cdef void rewrite(self, FlowPacket *v, Packet *p) noexcept nogil:
        """Each end once; what decoders read of the packet as well (spec 3.11)."""
        cdef uint32_t i
        cdef Rewrite *w
        cdef bint ports = v.proto == PROTO_TCP or v.proto == PROTO_UDP
        for i in range(self.n_rewrites):
            w = &self.rewrites[i]
            if w.l3 == v.l3 and memcmp(w.old, v.src, 16) == 0 and (w.old_port < 0 or (ports and w.old_port == v.sport)):
                memcpy(v.src, w.new, 16)
                memcpy(p.src, w.new, 16)
                if w.old_port >= 0:
                    v.sport = p.sport = <uint16_t>w.new_port
                break
        for i in range(self.n_rewrites):
            w = &self.rewrites[i]
            if w.l3 == v.l3 and memcmp(w.old, v.dst, 16) == 0 and (w.old_port < 0 or (ports and w.old_port == v.dport)):
                memcpy(v.dst, w.new, 16)
                memcpy(p.dst, w.new, 16)
                if w.old_port >= 0:
                    v.dport = p.dport = <uint16_t>w.new_port
                break

"""The flow table as a Python object, for tests: fed with packets that exist only as numbers."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netprobe._core.flow cimport (
    FC_LIVE, FC_TRACKED, N_REASONS, FlowCell, FlowConfig, FlowPacket, FlowRecord, FlowTable, flow_finish, flow_free,
    flow_init, flow_open_packets, flow_tick, flow_update, resting, tracker_of,
)
from netprobe._core.flow_view cimport flow_verdict
from netprobe._core.packet cimport PROTO_TCP
from netprobe._core.tracker cimport TS_CLOSED, TcpState


cdef void test_record(void *ctx, const FlowRecord *r) noexcept with gil:
    (<object>ctx).append(record_dict(r))


cdef dict record_dict(const FlowRecord *r):
    sides = []
    for i in range(2):
        sides.append({
            "packets": r.side[i].packets, "bytes": r.side[i].bytes, "retransmits": r.side[i].retransmits,
            "repeats": r.side[i].repeats, "reordered": r.side[i].reordered,
            "zero_windows": r.side[i].zero_windows, "window": r.side[i].window,
            "tcp_flags": r.side[i].tcp_flags, "tos": r.side[i].tos,
        })
    return {
        "first": r.first, "last": r.last, "src": r.src[:16], "dst": r.dst[:16], "sport": r.sport, "dport": r.dport,
        "proto": r.proto, "l3": r.l3, "direction": r.direction, "reason": r.reason, "out": sides[0], "in": sides[1],
        "fragments": r.fragments, "connection_id": r.connection_id, "client_ms": r.client_ms,
        "server_ms": r.server_ms, "fpex_ms": r.fpex_ms, "appl_ms": r.appl_ms, "sample_rate": r.sample_rate,
        "vlan": r.vlan, "smac": r.smac[:6], "dmac": r.dmac[:6], "app": r.app,
    }


cdef class FlowTester:
    """The table as a Python object, fed with packets that exist only as numbers."""
    cdef FlowTable t
    cdef list got
    cdef FlowPacket *pending
    cdef uint32_t n

    def __cinit__(self, *, capacity=64, bidirectional=False, schedule=False, track=True, idle=60_000_000_000,
                  active=0, seed=1, sample=0):
        cdef FlowConfig c
        memset(&c, 0, sizeof(c))
        c.capacity = capacity
        c.bidirectional = bidirectional
        c.schedule = schedule
        c.track = track
        c.idle_ns = idle
        c.active_ns = active
        c.seed = seed
        c.sample = sample
        self.pending = <FlowPacket *>calloc(256, sizeof(FlowPacket))
        if self.pending == NULL or flow_init(&self.t, &c) < 0:
            raise MemoryError
        self.got = []
        self.t.ctx = <void *>self.got
        self.t.on_record = test_record

    def __dealloc__(self):
        flow_free(&self.t)
        free(self.pending)

    def add(self, bytes src, bytes dst, int sport=0, int dport=0, int proto=17, int64_t ts=0, int size=100, *,
            int flags=0, int tos=0, uint32_t seq=0, int payload=0, int window=0, int wscale=-1, int direction=2,
            int vlan=0, bytes smac=bytes(6), bytes dmac=bytes(6), int packets=1, int fragments=0):
        """Queue a packet; `go` counts what is queued."""
        cdef FlowPacket *v = &self.pending[self.n]
        if self.n == 256:
            raise ValueError("256 packets at once")
        memset(v, 0, sizeof(FlowPacket))
        memcpy(v.src, <const char *>src, len(src))
        memcpy(v.dst, <const char *>dst, len(dst))
        v.l3 = 4 if len(src) == 4 else 6
        v.sport = sport
        v.dport = dport
        v.proto = proto
        v.ts = ts
        v.bytes = size
        v.tcp_flags = flags
        v.tos = tos
        v.seq = seq
        v.payload = payload
        v.window = window
        v.wscale = wscale
        v.direction = direction
        v.vlan = vlan
        memcpy(v.smac, <const char *>smac, 6)
        memcpy(v.dmac, <const char *>dmac, 6)
        v.packets = packets
        v.fragments = fragments
        if self.t.config.sample > 1:
            v.sampled = flow_verdict(&self.t, v)
        self.n += 1
        return v.sampled

    def go(self, int room=1 << 30):
        """Count what is queued, a few records at a time; the records that came out."""
        cdef uint32_t done = 0
        while done < self.n:
            self.t.room = room
            done += flow_update(&self.t, self.pending + done, self.n - done)
        self.n = 0
        return self.take()

    def tick(self, int64_t now):
        self.t.room = 1 << 30
        flow_tick(&self.t, now)
        return self.take()

    def finish(self, int room=1 << 30):
        while True:
            self.t.room = room
            if flow_finish(&self.t) == 0:
                return self.take()

    def take(self):
        out = list(self.got)
        self.got.clear()
        return out

    def state(self, int cell):
        """A cell's tracker: None without a state, else a dict."""
        cdef TcpState *s
        if not self.tracked(cell):
            return None
        s = tracker_of(&self.t, &self.t.cells[cell])
        return {"flags": s.flags, "expected": s.expected, "handshake": s.handshake}

    @property
    def trackers(self):
        """States in use that have not been closed."""
        cdef uint32_t i, n = 0
        for i in range(self.t.top):
            if self.tracked(i) and not tracker_of(&self.t, &self.t.cells[i]).flags & TS_CLOSED:
                n += 1
        return n

    cdef bint tracked(self, uint32_t cell):
        cdef const FlowCell *c = &self.t.cells[cell]
        return c.flags & FC_LIVE and c.proto == PROTO_TCP and c.flags & FC_TRACKED

    @property
    def resting(self):
        """Entries without a side."""
        cdef uint32_t i, n = 0
        for i in range(self.t.top):
            if self.t.cells[i].flags & FC_LIVE and resting(&self.t.cells[i]):
                n += 1
        return n

    def stats(self):
        cdef uint64_t b = 0
        cdef uint64_t n = flow_open_packets(&self.t, &b)
        return {
            "packets": self.t.packets, "bytes": self.t.bytes, "ignored": self.t.ignored,
            "ignored_bytes": self.t.ignored_bytes, "out_packets": self.t.out_packets,
            "out_bytes": self.t.out_bytes, "open_packets": n, "open_bytes": b, "active": self.t.active,
            "created": self.t.created, "evicted": self.t.evicted, "records": self.t.records,
            "top": self.t.top, "slots": 1 << self.t.lg_slots, "trackers": self.t.n_trackers,
            "by_reason": [self.t.by_reason[i] for i in range(N_REASONS)],
        }

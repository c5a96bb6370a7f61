"""The flow table as a Python object, for tests: fed with packets that exist only as numbers."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from netprobe._core.flow cimport (
    FC_LIVE, FC_TRACKED, FLOW_NIL, N_REASONS, FlowCell, FlowConfig, FlowPacket, FlowRecord, FlowTable, cell_l3, flow_find,
    flow_finish, flow_free, flow_init, flow_open_packets, flow_tick, flow_update, resting, tracker_of,
)
from netprobe._core.flow_index cimport reverse
from netprobe._core.flow_side cimport peer_of
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

    def faults(self):
        """What is wrong with the table's own order: cells that nobody finds, links of one way, sides that two have."""
        cdef FlowTable *t = &self.t
        cdef FlowPacket key
        cdef const FlowCell *c
        cdef uint32_t i, k, peer, live = 0, other
        cdef uint32_t held[2]
        cdef int tcp
        found = []
        sides = set()
        held[0] = held[1] = 0
        for i in range(t.top):
            c = &t.cells[i]
            if not c.flags & FC_LIVE:
                continue
            live += 1
            memset(&key, 0, sizeof(key))
            key.l3 = cell_l3(c)
            memcpy(key.src, c.src, 16 if key.l3 == 6 else 4)
            memcpy(key.dst, c.dst, 16 if key.l3 == 6 else 4)
            key.sport = c.sport
            key.dport = c.dport
            key.proto = c.proto
            if flow_find(t, &key) != i:
                found.append(f"cell {i} is not found by its key")
            peer = peer_of(t, c)
            if peer != FLOW_NIL and not (peer < t.top and t.cells[peer].flags & FC_LIVE
                                         and peer_of(t, &t.cells[peer]) == i and reverse(&t.cells[peer], &key)):
                found.append(f"cell {i} and its peer {peer}")
            if not resting(c):
                held[c.proto == PROTO_TCP] += 1
                if c.side in sides:
                    found.append(f"side {c.side} is held twice")
                sides.add(c.side)
        for tcp in range(2):
            for k in range(t.pools[tcp].n_free):
                if t.pools[tcp].free[k] in sides:
                    found.append(f"side {t.pools[tcp].free[k]} is free and in use")
                sides.add(t.pools[tcp].free[k])
            k = t.pools[tcp].top - ((t.config.capacity + 1) | 1 if tcp else 0)
            if held[tcp] + t.pools[tcp].n_free != k // (1 + tcp):
                found.append(f"sides of pool {tcp}: {held[tcp]} held, {t.pools[tcp].n_free} free, {k} given out")
        other = 0
        i = t.free_head
        while i != FLOW_NIL and other <= t.top:
            other += 1
            i = t.cells[i].side
        if live != t.active or live + other != t.top:
            found.append(f"{live} cells live, {t.active} counted, {other} free, of {t.top}")
        return found

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

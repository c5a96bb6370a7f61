"""A capture through the flow table into columns of records."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from netprobe._core.source cimport BATCH_PACKETS, PacketSource
from netprobe._core.decode cimport decode_batch, decode_datagram, free_hosts, set_hosts
from netprobe._core.flow cimport (
    N_REASONS, FlowConfig, FlowPacket, FlowRecord, flow_finish, flow_free, flow_init, flow_open_packets,
    flow_update,
)
from netprobe._core.flow_view cimport flow_view
from netprobe._core.fragment cimport frag_feed, frag_free, frag_init, frag_release
from netprobe._core.packet cimport L3_IPV6, PF_FRAG, Packet
from netprobe._core.spread cimport Column, sift, spread

cdef enum:
    FRAG_DATAGRAMS = 4096
    FRAG_BYTES = 16777216

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
    table["appl_latency_ms"] = ("u4", 4, <size_t>&_r.appl_ms - _base)
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
    s.records[s.n] = r[0]
    s.n += 1


cdef class FlowReader:
    """Fills writable buffers, one per column, with the flow records of a capture."""

    def __cinit__(self, PacketSource reader not None, *, uint32_t capacity=1_000_000, bint bidirectional=True,
                  bint schedule=False, bint raw_extensions=False, bint track=True, int64_t idle_ns=60_000_000_000,
                  int64_t active_ns=0, uint64_t seed=1, uint32_t sample=1, hosts=(), compile_filter=None, mac=None):
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
        self.programs = {}
        self.packets = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
        self.whole = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
        self.views = <FlowPacket *>malloc(BATCH_PACKETS * sizeof(FlowPacket))
        self.stage.records = <FlowRecord *>malloc(STAGE_RECORDS * sizeof(FlowRecord))
        if (self.packets == NULL or self.whole == NULL or self.views == NULL or self.stage.records == NULL
                or flow_init(&self.table, &c) < 0):
            raise MemoryError
        if frag_init(&self.frags, FRAG_DATAGRAMS, FRAG_BYTES) < 0:
            raise MemoryError
        self.ready = 1
        self.table.ctx = &self.stage
        self.table.on_record = keep_record
        set_hosts(&self.config, list(hosts))

    def __dealloc__(self):
        if self.reader is not None:
            self.reader.release(&self.batch)
        if self.ready:
            frag_free(&self.frags)
        flow_free(&self.table)
        free(self.packets)
        free(self.whole)
        free(self.views)
        free(self.stage.records)
        free_hosts(&self.config)

    def fill(self, dict buffers, Py_ssize_t limit):
        """Write up to `limit` records into {column: writable buffer}. Returns how many; 0 at the end."""
        cdef Py_ssize_t done = 0
        cdef int n = <int>len(buffers)
        cdef Column *columns = <Column *>calloc(n + 1, sizeof(Column))
        cdef Py_buffer *views = <Py_buffer *>calloc(n + 1, sizeof(Py_buffer))
        cdef int held = 0
        cdef uint32_t take
        cdef int i
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
                    if not self.pump():
                        break        # a silent pipe: let the caller look around
                    # a long capture of few flows: Ctrl-C must not wait for the next record
                    PyErr_CheckSignals()
                    continue
                take = self.stage.n - self.stage.used
                if take > limit - done:
                    take = <uint32_t>(limit - done)
                with nogil:
                    for i in range(held):
                        spread(&columns[i], self.stage.records + self.stage.used, sizeof(FlowRecord), take, done)
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
        self.stage.n = self.stage.used = 0

    @property
    def at_end(self):
        return self.finished != 0 and self.stage.used == self.stage.n

    def stats(self):
        """Where every packet of the capture went, and what left the table why.

        framed = filtered_out + not_ip + unreadable + fragments_lost + packets + ignored, and packets and bytes equal
        what the records carry plus open_*.
        """
        cdef uint64_t open_bytes = 0
        cdef uint64_t open_packets = flow_open_packets(&self.table, &open_bytes)
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
            "no_tracker": self.table.no_tracker,
            "trackers": self.table.n_trackers,
            "by_reason": {REASONS[i]: self.table.by_reason[i] for i in range(N_REASONS)},
        }

    cdef int pump(self) except -1:
        """Move on until records are there, the batch is through, or nothing comes. 0: a silent pipe."""
        cdef uint32_t n
        self.stage.n = self.stage.used = 0
        if self.done_views == self.n_views and not self.next_views():
            if not self.reader.ended:
                return 0
            with nogil:
                self.table.room = STAGE_RECORDS
                self.finished = flow_finish(&self.table) == 0
            return 1
        with nogil:
            self.table.room = STAGE_RECORDS
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
        self.kept += self.batch.n
        with nogil:
            decode_batch(&self.config, self.batch.raw, self.batch.n, self.packets, &self.stats_)
            self.view_batch()
        return 1

    cdef void view_batch(self) noexcept nogil:
        cdef uint32_t i, n = 0, n_whole = 0
        cdef Packet *p
        cdef Packet *w
        cdef FlowPacket *v
        for i in range(self.batch.n):
            p = &self.packets[i]
            v = &self.views[n]
            if p.flags & PF_FRAG and not (self.table.config.raw_extensions and p.l3 == L3_IPV6):
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
            elif p.l3 == 0:
                self.not_ip += 1
                continue
            elif not flow_view(&self.table, p, p, v):
                self.unreadable += 1
                continue
            n += 1
        self.n_views = n

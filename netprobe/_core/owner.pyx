"""Feeding an engine: batches cut where its periods end, its own deep samples, views of its periods."""
from libc.stdint cimport int64_t, uint16_t, uint32_t
from libc.string cimport memset

from netprobe._core.engine cimport Desk, Engine, edge_after, jsf_next, work_reset
from netprobe._core.handler cimport MAX_BLOCKS, Accumulator
from netprobe._core.packet cimport PF_DEEP, Packet
from netprobe._core.store cimport MetricSet, mset_clone, mset_hold


cdef void lend(Engine e, Desk *desk) noexcept nogil:
    e.shards[0].desk = desk[0]
    e.shards[0].desk.borrowed = 1
    work_reset(&e.shards[0].work, &desk.stages[0])


cdef void take_back(Engine e) noexcept nogil:
    memset(&e.shards[0].desk, 0, sizeof(Desk))
    memset(&e.shards[0].work, 0, sizeof(e.shards[0].work))


cdef int draw(Engine e, Packet *pkts, uint32_t n, int deep) noexcept nogil:
    """Mark the packets that this engine samples; returns how they are marked now."""
    cdef uint32_t i
    if e.deep_rate >= 100:
        if deep != DEEP_ALL:
            for i in range(n):
                pkts[i].flags |= PF_DEEP
        return DEEP_ALL
    for i in range(n):
        if jsf_next(&e.deep_rng) % 100 < <uint32_t>e.deep_rate:
            pkts[i].flags |= PF_DEEP
        else:
            pkts[i].flags &= ~<uint16_t>PF_DEEP
    return DEEP_SOME


cdef void feed_engine(Engine e, Packet *pkts, uint32_t n, int64_t newest) noexcept nogil:
    """A decoded batch, cut where this engine's periods end; `newest`: its latest stamp."""
    cdef uint32_t i
    cdef uint32_t at = 0
    cdef int64_t ts
    if not e.started:
        start_engine(e, pkts[0].ts)
    if e.kept == 0:
        e.first_ts = pkts[0].ts
        e.last_ts = pkts[0].ts
    if newest > e.last_ts:
        e.last_ts = newest
    if newest >= e.edge and e.periods > 1:
        for i in range(n):
            ts = pkts[i].ts
            if ts >= e.edge:
                if i > at:
                    e.consume(&e.shards[0], pkts + at, NULL, i - at)
                    at = i
                e.rotate(ts)
                e.edge = edge_after(ts)
    if e.sparse:
        at = n - 1
    e.consume(&e.shards[0], pkts + at, NULL, n - at)
    e.framed += n
    e.kept += n


cdef void start_engine(Engine e, int64_t ts) noexcept nogil:
    e.started = 1
    e.first_ts = ts
    e.last_ts = ts
    e.open(ts)


cdef void turn_over(Engine e, int64_t now) noexcept nogil:
    """End the open period by the clock, if it is time."""
    if e.started and not e.finished and e.periods > 1 and now >= e.edge:
        e.rotate(now)
        e.edge = edge_after(now)


cdef void turn_back(Engine e, int64_t now) noexcept nogil:
    """The clock was set back: end the open period, or it would last until the clock is there again."""
    if e.started and not e.finished and e.periods > 1 and now < e.bucket_start:
        e.rotate(now)
        e.edge = edge_after(now)
        e.last_ts = now


cdef void finish_engine(Engine e, int64_t now) noexcept nogil:
    if now > e.last_ts:
        e.last_ts = now
    e.close()


cdef void look(Engine e, View *v) noexcept nogil:
    """Fill a view: closed periods are shared, the open one is copied."""
    cdef int i, h, b
    cdef MetricSet *m
    v.n_closed = e.n_closed
    v.rotations = e.rotations
    v.finished = e.finished
    v.start = e.bucket_start
    for i in range(e.n_closed):
        v.closed[i].start = e.closed[i].start
        v.closed[i].end = e.closed[i].end
        for h in range(e.n_handlers):
            for b in range(MAX_BLOCKS):
                m = e.closed[i].sets[h][b]
                mset_hold(m)
                v.closed[i].sets[h][b] = m
    if v.want_open and not e.finished:
        for h in range(e.n_handlers):
            for b in range(MAX_BLOCKS):
                m = (<Accumulator>e.shards[0].handlers[h]).sets[b]
                if m != NULL:
                    v.sets[h][b] = mset_clone(m)

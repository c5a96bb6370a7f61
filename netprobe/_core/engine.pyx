"""One input's engine (DESIGN: The hot path, More cores, Time).

Framing is serial and cuts batches that never span a period; any worker decodes a whole batch; the owner of a
shard consumes its packets in batch order. With one worker all of it happens in the calling thread.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from netprobe._core.bgp_stream cimport bgp_stream_segment
from netprobe._core.bpf cimport BpfProgram
from netprobe._core.source cimport BATCH_PACKETS, Batch, PacketSource
from netprobe._core.decode cimport (
    N_CAUSES, DecodeConfig, decode_batch, decode_datagram, free_hosts,
    set_hosts,
)
from netprobe._core.dns_stream cimport dns_stream_segment
from netprobe._core.fragment cimport frag_feed, frag_free, frag_init, frag_release
from netprobe._core.handler cimport MAX_BLOCKS, Accumulator, BgpMsg, Work
from netprobe._core.live cimport LiveSource
from netprobe._core.packet cimport (
    APP_BGP, APP_DHCP, APP_DHCP6, APP_DNS, L3_IPV4, PF_CUT, PF_FRAG, PF_SYNTHETIC, PF_TUNNEL, PROTO_TCP, PROTO_UDP,
    RF_DEEP, Packet, RawPacket, mix64,
)
from netprobe._core.sketch.kll cimport kll_set_seed
from netprobe._core.store cimport MetricBlock, MetricSet, mset_close, mset_free, mset_merge
from netprobe._core.stream cimport Stream, flow_hash, stream_feed, stream_finish, stream_free, stream_init
from netprobe._core.wire.be cimport be16, load64
from netprobe._core.wire.dns cimport DNS_SHORT, DnsMsg, dns_metric_port, dns_parse

from netprobe._core.decode import CAUSES

cdef enum:
    FRAGMENT_DATAGRAMS = 4096          # in progress at once, per shard
    FRAGMENT_BYTES = 8388608           # held at once, per shard
    STEP_BATCHES = 256                 # between looks at Python's signals
    LOCK_SPINS = 1000
    WAIT_SPINS = 4000                  # about 100 us
    AHEAD_SLOTS = 4                    # of a file: framed before what is there is consumed
    PREFETCH = 4

cdef enum:
    SLOT_FREE = 0
    SLOT_DECODING = 1
    SLOT_DECODED = 2

cdef extern from "sched.h" nogil:
    int sched_yield()

cdef extern from *:
    """
    #if defined(__x86_64__) || defined(__i386__)
    #define np_relax() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define np_relax() __asm__ __volatile__("isb")
    #else
    #define np_relax() ((void)0)
    #endif
    """
    void np_relax() noexcept nogil
    void __builtin_prefetch(const void *) noexcept nogil
    uint64_t __atomic_load_n(uint64_t *, int) noexcept nogil
    uint64_t __atomic_add_fetch(uint64_t *, uint64_t, int) noexcept nogil
    int __ATOMIC_ACQUIRE, __ATOMIC_RELEASE


cdef inline void prefetch(const Packet *p) noexcept nogil:
    # a Packet is two cache lines
    __builtin_prefetch(p)
    __builtin_prefetch(<const char *>p + 64)



cdef void jsf_seed(Jsf32 *r, uint32_t seed) noexcept nogil:
    cdef int i
    r.a = 0xF1EA5EEDU
    r.b = seed
    r.c = seed
    r.d = seed
    for i in range(20):
        jsf_next(r)


cdef class Engine:
    """Feeds captures to handlers and keeps the closed periods.

    shards: one list of Accumulators per worker, all made alike; chains: lists of indices into such a list;
    hosts: [(family, address bytes, prefix length)]; compile_filter(link type) -> BpfProgram | None.
    """
    def __cinit__(self, list shards, list chains, hosts=(), int inner=0, int periods=5, int deep_rate=100,
                  compile_filter=None, uint32_t stream_limit=300000, uint64_t seed=0):
        cdef int i, j
        cdef Accumulator acc
        cdef Shard *s
        if not 1 <= len(shards) <= MAX_SHARDS:
            raise ValueError(f"1 to {MAX_SHARDS} workers")
        if not 0 < len(shards[0]) <= MAX_HANDLERS:
            raise ValueError(f"1 to {MAX_HANDLERS} handlers")
        self.keep = shards
        self.n_handlers = len(shards[0])
        self.periods = periods
        self.deep_rate = deep_rate
        jsf_seed(&self.deep_rng, 1 if seed == 0 else <uint32_t>seed)
        kll_set_seed(seed)
        self.compile_filter = compile_filter
        self.has_filter = compile_filter is not None
        self.programs = []
        self.decode.inner = inner
        set_hosts(&self.decode, list(hosts))
        self.n_chains = len(chains)
        self.chain_length = <int *>calloc(self.n_chains, sizeof(int))
        self.chain_items = <int *>calloc(self.n_chains * MAX_HANDLERS, sizeof(int))
        if self.chain_length == NULL or self.chain_items == NULL:
            raise MemoryError
        for i, chain in enumerate(chains):
            self.chain_length[i] = len(chain)
            for j, index in enumerate(chain):
                if not 0 <= index < self.n_handlers:
                    raise IndexError(index)
                self.chain_items[i * MAX_HANDLERS + j] = index
        for acc in shards[0]:
            self.needs_dns |= acc.needs_dns
            self.needs_udp |= acc.needs_udp
            self.needs_bgp |= acc.needs_bgp
            self.needs_streams |= acc.needs_streams
            self.dns_want |= acc.dns_want
        self.needs_streams |= self.needs_dns | self.needs_bgp
        for i in range(MAX_PERIODS):
            # one array for all blocks of a period: there may be a thousand engines
            self.closed[i].sets = <MetricSet *(*)[4]>calloc(self.n_handlers, sizeof(MetricSet *) * MAX_BLOCKS)
            if self.closed[i].sets == NULL:
                raise MemoryError
        self.shards = <Shard *>calloc(len(shards), sizeof(Shard))
        if self.shards == NULL:
            raise MemoryError
        for i in range(len(shards)):
            s = &self.shards[i]
            self.n_shards = i + 1
            s.owner = <void *>self
            s.index = i
            for j, acc in enumerate(shards[i]):
                s.handlers[j] = <void *>acc
            if shard_init(s, stream_limit) < 0:
                raise MemoryError
        if self.n_shards > 1:
            self.slots = <Slot *>calloc(SLOTS, sizeof(Slot))
            if self.slots == NULL:
                raise MemoryError
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.cond, NULL)
        self.locks = 1

    def __dealloc__(self):
        cdef int i, h, b
        if self.reader is not None and self.single != NULL and self.pending != NULL:
            self.reader.release(self.single)
            self.reader.release(self.pending)
            if self.slots != NULL:
                for i in range(SLOTS):
                    self.reader.release(&self.slots[i].batch)
        if self.shards != NULL:
            for i in range(self.n_shards):
                shard_free(&self.shards[i])
            free(self.shards)
        for i in range(MAX_PERIODS):
            if i < self.n_closed:
                for h in range(self.n_handlers):
                    for b in range(MAX_BLOCKS):
                        mset_free(self.closed[i].sets[h][b])
            free(self.closed[i].sets)
        free(self.single)
        free(self.pending)
        free(self.slots)
        free(self.chain_length)
        free(self.chain_items)
        free_hosts(&self.decode)
        if self.locks:
            pthread_mutex_destroy(&self.mutex)
            pthread_cond_destroy(&self.cond)

    # ------------------------------------------------------------------ input

    def attach(self, PacketSource reader not None):
        """Read this (opened) capture from now on. The one before must have ended."""
        cdef int i
        if self.single == NULL:
            self.single = <Batch *>calloc(1, sizeof(Batch))
            self.pending = <Batch *>calloc(1, sizeof(Batch))
            if self.single == NULL or self.pending == NULL:
                raise MemoryError
        for i in range(self.n_shards):
            if self.shards[i].desk.extra == NULL:
                if desk_init(&self.shards[i].desk, self.n_shards == 1) < 0:
                    raise MemoryError
                work_reset(&self.shards[i].work, &self.shards[i].desk.stages[0])
        self.reader = reader
        self.pending.n = 0
        self.pending_at = 0
        self.ended = 0
        self.stopping = 0
        self.start_frame = self.next_frame
        # who waits for live packets must not sit on blocks that the kernel wants back meanwhile
        self.ahead = 0 if isinstance(reader, LiveSource) else AHEAD_SLOTS

    def step(self):
        """Work through up to STEP_BATCHES batches in this thread. False: the input has ended or is silent."""
        cdef int i
        cdef int more = 1
        cdef int rotate
        cdef int64_t ts
        cdef Shard *s = &self.shards[0]
        with nogil:
            for i in range(STEP_BATCHES):
                rotate = 0
                if self.frame(self.single, &rotate, &ts) == 0:
                    more = 0
                    break
                if rotate:
                    self.rotate(ts)
                decode_batch(&self.decode, self.single.raw, self.single.n, s.desk.decoded, &s.stats)
                self.consume(s, s.desk.decoded, NULL, self.single.n)
                self.reader.release(self.single)
        if self.filter_error is not None:
            raise self.filter_error
        return more != 0

    cdef int frame(self, Batch *b, int *rotate, int64_t *rotate_ts) noexcept nogil:
        """The next batch with packets that pass the filter, none across a period's edge. 0: none now."""
        cdef uint32_t i
        cdef uint32_t n
        while True:
            if self.pending.n:
                n = self.pending.n
                memcpy(b.raw, self.pending.raw, n * sizeof(RawPacket))
                b.n = n
                b.block = self.pending.block
                b.number = self.pending.number
                self.pending.n = 0
                self.pending.block = NULL
            else:
                if self.reader.next_batch(b) == 0:
                    return 0
                self.framed += b.n
                if self.has_filter:
                    if not self.filter_batch(b):
                        return 0
                    if b.n == 0:
                        self.reader.release(b)
                        continue
                if self.deep_rate < 100:
                    for i in range(b.n):
                        if jsf_next(&self.deep_rng) % 100 < <uint32_t>self.deep_rate:
                            b.raw[i].flags |= RF_DEEP
                else:
                    for i in range(b.n):
                        b.raw[i].flags |= RF_DEEP
            break
        n = b.n
        if not self.started:
            self.started = 1
            self.first_ts = b.raw[0].ts
            self.last_ts = b.raw[0].ts
            self.open(b.raw[0].ts)
        if self.periods > 1:
            for i in range(n):
                if b.raw[i].ts >= self.edge:
                    break
            else:
                i = n
            if i == 0:
                rotate[0] = 1
                rotate_ts[0] = b.raw[0].ts
                self.edge = edge_after(b.raw[0].ts)
                # the rest may cross the next edge as well
                for i in range(1, n):
                    if b.raw[i].ts >= self.edge:
                        break
                else:
                    i = n
            if i < n:
                self.pending.n = n - i
                memcpy(self.pending.raw, &b.raw[i], (n - i) * sizeof(RawPacket))
                self.pending.number = b.number
                self.pending.block = b.block
                self.reader.hold(b)
                b.n = i
        # a capture's last packet need not be its newest
        for i in range(b.n):
            if b.raw[i].ts > self.last_ts:
                self.last_ts = b.raw[i].ts
        self.kept += b.n
        return 1

    cdef int filter_batch(self, Batch *b) noexcept nogil:
        cdef uint32_t i
        cdef uint32_t n = 0
        cdef int at
        cdef int found = -1
        cdef int linktype = -1
        for i in range(b.n):
            if b.raw[i].linktype != linktype:
                linktype = b.raw[i].linktype
                found = -1
                for at in range(self.n_programs):
                    if self.program_type[at] == linktype:
                        found = at
                        break
                if found < 0:
                    found = self.add_program(linktype)
                    if found < 0:
                        self.reader.release(b)
                        return 0
            if run_program(self.program[found], b.raw[i].data, b.raw[i].wirelen, b.raw[i].caplen):
                b.raw[n] = b.raw[i]
                n += 1
        b.n = n
        return 1

    cdef int add_program(self, int linktype) noexcept with gil:
        """Compile for a link type that shows up. A pcapng may bring a new one at any time."""
        cdef BpfProgram program
        try:
            # the compiler says in words that there are too many
            program = self.compile_filter(linktype)
            if self.n_programs == LINK_TYPES:
                raise ValueError(f"more than {LINK_TYPES} link types in one capture")
            self.programs.append(program)
            self.program[self.n_programs] = <void *>program
            self.program_type[self.n_programs] = <uint16_t>linktype
            self.n_programs += 1
            return self.n_programs - 1
        except Exception as e:
            self.filter_error = e
            return -1

    # ------------------------------------------------------------------ time

    cdef void open(self, int64_t ts) noexcept nogil:
        cdef int i, h
        self.bucket_start = ts
        self.edge = edge_after(ts)
        for i in range(self.n_shards):
            for h in range(self.n_handlers):
                (<Accumulator>self.shards[i].handlers[h]).open_bucket(ts)

    cdef Closed *take(self, int64_t ts) noexcept nogil:
        """Close the open bucket: all shards' sets merged, moved to the end of `closed`."""
        cdef int h, b, i
        cdef Closed *c
        cdef Closed oldest
        cdef MetricSet *whole
        # the open bucket counts as one of the periods, so periods - 1 closed ones stay beside it
        if self.n_closed and self.n_closed >= (self.periods if self.finished else self.periods - 1):
            for h in range(self.n_handlers):
                for b in range(MAX_BLOCKS):
                    mset_free(self.closed[0].sets[h][b])
            oldest = self.closed[0]
            for i in range(1, self.n_closed):
                self.closed[i - 1] = self.closed[i]
            self.n_closed -= 1
            self.closed[self.n_closed] = oldest
        c = &self.closed[self.n_closed]
        self.n_closed += 1
        c.start = self.bucket_start
        c.end = ts if ts > self.bucket_start else self.bucket_start
        for h in range(self.n_handlers):
            for b in range(MAX_BLOCKS):
                whole = take_set(self.shards[0].handlers[h], b)
                for i in range(1, self.n_shards):
                    merge_set(whole, take_set(self.shards[i].handlers[h], b))
                if whole != NULL:
                    mset_close(whole, c.end)
                c.sets[h][b] = whole
        return c

    cdef void rotate(self, int64_t ts) noexcept nogil:
        """A packet has reached the period's edge; everything before it has been consumed."""
        cdef Closed *c
        cdef int i, h
        # a live one begins before the last when the clock was set back
        c = self.take(ts if ts >= self.bucket_start else self.last_ts)
        self.bucket_start = ts
        self.rotations += 1
        for i in range(self.n_shards):
            for h in range(self.n_handlers):
                (<Accumulator>self.shards[i].handlers[h]).open_bucket(ts)
                shift(self.shards[i].handlers[h], c.sets[h], ts)

    def finish(self):
        """End of all input: close connections and the open bucket with the newest stamp. Once."""
        with nogil:
            self.close()

    cdef void close(self) noexcept nogil:
        cdef int i
        if self.finished:
            return
        if not self.started:
            # no packet at all is a summary too, of nothing
            self.open(0)
        for i in range(self.n_shards):
            if self.needs_streams:
                stream_finish(&self.shards[i].streams, self.last_ts)
            self.flush(&self.shards[i])
        self.finished = 1
        self.take(self.last_ts)

    # ------------------------------------------------------------------ consuming

    cdef void consume(self, Shard *s, Packet *pkts, const uint16_t *order, uint32_t n) noexcept nogil:
        """Gather the work of one decoded batch, or of the packets `order` names, and hand it to the handlers."""
        cdef uint32_t i
        cdef Packet *p
        cdef Work *w = &s.work
        cdef int apps = self.needs_dns or self.needs_udp or self.needs_streams
        cdef uint64_t bytes_ = 0
        for i in range(n):
            if order != NULL:
                # another core may have decoded it
                if i + PREFETCH < n:
                    prefetch(&pkts[order[i + PREFETCH]])
                p = &pkts[order[i]]
            else:
                p = &pkts[i]
            bytes_ += p.wirelen
            w.pkts[w.n_pkts] = p
            w.n_pkts += 1
            if apps and (p.app or p.flags & PF_FRAG or p.proto == PROTO_TCP):
                self.above(s, p)
        self.flush(s)
        if s.n_whole:
            frag_release(&s.frags)
            s.n_whole = 0
        s.wire_bytes += bytes_

    cdef void above(self, Shard *s, Packet *p) noexcept nogil:
        """What the handlers above L4 get of a packet."""
        cdef Packet *whole
        if p.flags & PF_FRAG:
            if p.proto != PROTO_UDP and p.proto != PROTO_TCP:
                return
            # most engines never meet a fragment, and there may be a thousand of them
            if s.frags.impl == NULL and frag_init(&s.frags, FRAGMENT_DATAGRAMS, FRAGMENT_BYTES) < 0:
                return
            s.frags.show_cut = 1
            whole = &s.desk.whole[s.n_whole]
            if not frag_feed(&s.frags, p, whole):
                return
            s.n_whole += 1     # a packet completes one datagram at most
            decode_datagram(&self.decode, whole)
            p = whole
        if p.proto == PROTO_TCP and ((load64(p.src) | load64(p.src + 8)) == 0
                                     or (load64(p.dst) | load64(p.dst + 8)) == 0):
            s.work.tcp_errors += 1
            s.work.error_ts = p.ts
            return
        if p.app == 0:
            return
        if p.l4 == PROTO_UDP:
            if p.app & APP_DNS:
                if self.needs_dns:
                    self.dns_datagram(s, p)
            s.work.udp[s.work.n_udp] = p
            s.work.n_udp += 1
        elif p.l4 == PROTO_TCP:
            if (p.app & APP_DNS and self.needs_dns) or (p.app & APP_BGP and self.needs_bgp):
                if p.caplen < p.wirelen:
                    p.flags |= PF_CUT        # then the reassembler asks the IP header for the length
                stream_feed(&s.streams, p)

    cdef void dns_datagram(self, Shard *s, Packet *p) noexcept nogil:
        cdef DnsMsg *m
        cdef uint16_t port = dns_metric_port(p.sport, p.dport)
        cdef uint32_t length
        if port == 0:
            return
        if s.work.n_dns == MESSAGES:
            self.flush(s)
        m = &s.desk.msgs[s.work.n_dns]
        if dns_parse(p.data + p.payload_off, p.payload_len, self.dns_want, m) == DNS_SHORT:
            s.dns_short += 1
            return
        m.pkt = p
        m.ts = p.ts
        # the address pair has been hashed already; in a tunnel it is not the datagram's own
        m.flow_hash = flow_hash(p) if p.flags & PF_TUNNEL else mix64(
            p.pair_hash ^ (<uint64_t>(p.sport ^ p.dport) << 32) ^ (<uint32_t>p.sport + p.dport))
        # the size as sent, not as captured
        length = be16(p.data + p.payload_off - 4)
        m.size = length - 8 if length >= 8 else p.payload_len
        m.port = port
        m.tcp = 0
        s.work.dns[s.work.n_dns] = m
        s.work.n_dns += 1

    cdef void flush(self, Shard *s) noexcept nogil:
        """Run every chain over what has been gathered, then forget it."""
        cdef int i, j, turn
        cdef const Work *feed
        cdef Work outs[2]
        cdef Work *out
        cdef void *handler
        if s.work.n_pkts or s.work.n_dns or s.work.n_udp or s.work.n_bgp or s.work.tcp_errors:
            for i in range(self.n_chains):
                feed = &s.work
                for j in range(self.chain_length[i]):
                    out = NULL
                    if j + 1 < self.chain_length[i]:
                        turn = j & 1
                        out = &outs[turn]
                        work_reset(out, &s.desk.stages[1 + turn])
                    handler = s.handlers[self.chain_items[i * MAX_HANDLERS + j]]
                    (<Accumulator>handler).consume(handler, feed, out)
                    feed = out
        work_reset(&s.work, &s.desk.stages[0])
        s.n_extra = 0

    # ------------------------------------------------------------------ workers

    def run_worker(self, int index):
        """Body of worker thread `index`: returns at the end of the input, or after stop()."""
        with nogil:
            self.work(&self.shards[index])

    def stop(self):
        """Let the workers return after the batches that are framed already."""
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.stopping = 1
            self.changed()
            pthread_mutex_unlock(&self.mutex)

    cdef void lock(self) noexcept nogil:
        # held for a few instructions at a time: sleeping would cost more than the batch that waits
        cdef int i
        for i in range(LOCK_SPINS):
            if pthread_mutex_trylock(&self.mutex) == 0:
                return
            np_relax()
        pthread_mutex_lock(&self.mutex)

    cdef void changed(self) noexcept nogil:
        """Something that a waiting worker may be waiting for. Lock is held."""
        __atomic_add_fetch(&self.epoch, 1, __ATOMIC_RELEASE)
        if self.sleepers:
            pthread_cond_broadcast(&self.cond)

    cdef void wait(self) noexcept nogil:
        """Until something has changed. Lock is held before and after.

        A batch is some 50 us of work, about what a sleep and a wake-up cost: look for a while before sleeping.
        """
        cdef uint64_t seen = self.epoch
        cdef int i
        pthread_mutex_unlock(&self.mutex)
        for i in range(WAIT_SPINS):
            if __atomic_load_n(&self.epoch, __ATOMIC_ACQUIRE) != seen:
                break
            if i & 15 == 15:
                sched_yield()
            else:
                np_relax()
        self.lock()
        while self.epoch == seen:
            self.sleepers += 1
            pthread_cond_wait(&self.cond, &self.mutex)
            self.sleepers -= 1

    cdef void work(self, Shard *s) noexcept nogil:
        cdef uint64_t seq = self.start_frame
        cdef Slot *slot
        cdef Slot *ahead
        cdef int found
        cdef uint32_t first
        self.lock()
        while True:
            slot = &self.slots[seq % SLOTS]
            ahead = &self.slots[self.next_frame % SLOTS]
            # Framing is the one serial part: keep it going. Who frames a batch decodes it too, while it is in its cache.
            if (not self.framing and not self.ended and not self.stopping and ahead.state == SLOT_FREE
                    and (self.next_frame < seq + self.ahead or slot.state != SLOT_DECODED) and self.may_wait(seq)):
                self.framing = 1
                pthread_mutex_unlock(&self.mutex)
                ahead.rotate = 0
                found = self.frame(&ahead.batch, &ahead.rotate, &ahead.rotate_ts)
                self.lock()
                self.framing = 0
                if found:
                    ahead.state = SLOT_DECODING
                    ahead.done = 0
                    self.next_frame += 1
                elif self.reader.ended or self.filter_error is not None:
                    self.ended = 1
                self.changed()
                if not found:
                    continue
                pthread_mutex_unlock(&self.mutex)
                decode_batch(&self.decode, ahead.batch.raw, ahead.batch.n, ahead.decoded, &s.stats)
                self.assign(ahead)
                self.lock()
                ahead.state = SLOT_DECODED
                self.changed()
            elif seq < self.next_frame and slot.state == SLOT_DECODED:
                if slot.rotate and not self.meet(slot):
                    break
                pthread_mutex_unlock(&self.mutex)
                first = slot.first[s.index]
                self.consume(s, slot.decoded, slot.order + first, slot.first[s.index + 1] - first)
                self.lock()
                slot.done += 1
                if slot.done == <uint32_t>self.n_shards:
                    self.reader.release(&slot.batch)
                    slot.state = SLOT_FREE
                    self.changed()
                seq += 1
            elif seq >= self.next_frame and (self.ended or self.stopping) and not self.framing:
                break
            else:
                self.wait()
        pthread_mutex_unlock(&self.mutex)

    cdef int may_wait(self, uint64_t seq) noexcept nogil:
        """May a worker that is at this batch wait for packets? Not while another one decodes it, and so holds its block."""
        return self.ahead or seq >= self.next_frame or (<LiveSource>self.reader).prompt()

    cdef void assign(self, Slot *slot) noexcept nogil:
        """Sort the packets of a batch by shard, their order kept."""
        cdef uint32_t i
        cdef uint8_t to[BATCH_PACKETS]
        cdef uint32_t at[MAX_SHARDS + 1]
        cdef const Packet *p
        memset(at, 0, sizeof(at))
        for i in range(slot.batch.n):
            p = &slot.decoded[i]
            # The high bits choose the shard, tables inside a shard use the low ones. A DHCP conversation is known by
            # its transaction id, its addresses change from message to message.
            to[i] = 0 if p.app & (APP_DHCP | APP_DHCP6) else <uint8_t>(
                ((p.pair_hash >> 32) * <uint64_t>self.n_shards) >> 32)
            at[to[i] + 1] += 1
        for i in range(<uint32_t>self.n_shards):
            at[i + 1] += at[i]
        memcpy(slot.first, at, sizeof(at))
        for i in range(slot.batch.n):
            slot.order[at[to[i]]] = <uint16_t>i
            at[to[i]] += 1

    cdef int meet(self, Slot *slot) noexcept nogil:
        """All shards have consumed what came before this slot; the last to arrive rotates. Lock is held."""
        cdef uint64_t mine = self.rotated
        self.arrived += 1
        if self.arrived == self.n_shards:
            self.arrived = 0
            self.rotate(slot.rotate_ts)
            slot.rotate = 0
            self.rotated += 1
            self.changed()
            return 1
        while self.rotated == mine:
            self.wait()
        return 1

    # ------------------------------------------------------------------ results

    def check(self):
        """Raise what went wrong while the filter was compiled in mid-capture."""
        if self.filter_error is not None:
            raise self.filter_error

    def buckets(self):
        """Newest first: [(start ns, end ns, [blocks of handler 0, ...])]; blocks: MetricBlock or None.

        The engine gives them away: a second call returns nothing.
        """
        cdef int i, h, b
        result = []
        for i in range(self.n_closed - 1, -1, -1):
            handlers = []
            for h in range(self.n_handlers):
                blocks = []
                for b in range(MAX_BLOCKS):
                    if self.closed[i].sets[h][b] == NULL:
                        blocks.append(None)
                    else:
                        blocks.append(MetricBlock.wrap(self.closed[i].sets[h][b]))
                        self.closed[i].sets[h][b] = NULL
                handlers.append(blocks)
            result.append((self.closed[i].start, self.closed[i].end, handlers))
        self.n_closed = 0
        return result

    @property
    def packets(self):
        """Packets that passed the filter."""
        return self.kept

    def stats(self):
        """What was read, and each loss by stage."""
        cdef int i, c
        cdef Shard *s
        cdef uint64_t wire_bytes = 0
        malformed = {}
        losses = dict.fromkeys((
            "cut_by_snaplen", "fragments_evicted", "fragments_expired", "fragments_overlapped",
            "fragments_malformed", "streams_evicted", "stream_gaps", "stream_bytes_lost",
            "stream_segments_dropped", "streams_unreadable", "streams_no_memory",
            "dns_short", "dns_sides_lost", "bgp_unreadable"), 0)
        streams = {"opened": 0, "idle_closed": 0, "late_packets": 0}
        for c in range(1, N_CAUSES):
            malformed[CAUSES[c]] = 0
        for i in range(self.n_shards):
            s = &self.shards[i]
            for c in range(1, N_CAUSES):
                malformed[CAUSES[c]] += s.stats.cause[c]
            wire_bytes += s.wire_bytes
            losses["cut_by_snaplen"] += s.stats.cut
            losses["fragments_evicted"] += s.frags.evicted
            losses["fragments_expired"] += s.frags.expired
            losses["fragments_overlapped"] += s.frags.overlapped
            losses["fragments_malformed"] += s.frags.malformed
            losses["streams_evicted"] += s.streams.evicted
            losses["stream_gaps"] += s.streams.lost_segments
            losses["stream_bytes_lost"] += s.streams.lost_bytes
            losses["stream_segments_dropped"] += s.streams.dropped_held
            losses["streams_unreadable"] += s.streams.unreadable
            losses["streams_no_memory"] += s.streams.no_memory
            streams["opened"] += s.streams.opened
            streams["idle_closed"] += s.streams.idle_closed
            streams["late_packets"] += s.streams.late
            losses["dns_short"] += s.dns_short
            losses["dns_sides_lost"] += s.dns_sides_lost
            losses["bgp_unreadable"] += s.bgp_unreadable
        return {
            "packets_read": self.framed,
            "packets": self.kept,
            "filtered_out": self.framed - self.kept - (self.pending.n if self.pending != NULL else 0),
            "wire_bytes": wire_bytes,
            "malformed": malformed,
            "losses": losses,
            "streams": streams,
            "periods": self.rotations + (1 if self.started else 0),
            "first_ts": self.first_ts if self.started else None,
            "last_ts": self.last_ts if self.started else None,
        }


cdef inline bint run_program(void *program, const uint8_t *data, uint32_t wirelen, uint32_t caplen) noexcept nogil:
    return (<BpfProgram>program).run(data, wirelen, caplen) != 0


cdef void shift(void *handler, MetricSet **closed, int64_t ts) noexcept nogil:
    if (<Accumulator>handler).shifted != NULL:
        (<Accumulator>handler).shifted(handler, closed, ts)


cdef MetricSet *take_set(void *handler, int block) noexcept nogil:
    cdef MetricSet *m = (<Accumulator>handler).sets[block]
    (<Accumulator>handler).sets[block] = NULL
    return m


cdef void merge_set(MetricSet *whole, MetricSet *part) noexcept nogil:
    if part != NULL:
        if whole != NULL:
            mset_merge(whole, part, 1)
        mset_free(part)


cdef void work_reset(Work *w, Stage *stage) noexcept nogil:
    memset(w, 0, sizeof(Work))
    w.pkts = stage.pkts
    w.udp = stage.udp
    w.dns = stage.dns
    w.bgp = stage.bgp


cdef int shard_init(Shard *s, uint32_t stream_limit) noexcept nogil:
    return stream_init(&s.streams, stream_limit, on_segment, NULL, s)


cdef void shard_free(Shard *s) noexcept nogil:
    desk_free(&s.desk)
    stream_free(&s.streams)
    frag_free(&s.frags)


cdef int desk_init(Desk *d, bint alone) noexcept nogil:
    """Room for the work of one batch; `alone`: for the decoded packets too. -1: no memory."""
    cdef int i
    cdef size_t packets = BATCH_PACKETS + 2 * MESSAGES
    if alone:
        d.decoded = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
        if d.decoded == NULL:
            return -1
    d.extra = <Packet *>malloc(packets * sizeof(Packet))
    d.whole = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
    d.msgs = <DnsMsg *>malloc(MESSAGES * sizeof(DnsMsg))
    d.bgps = <BgpMsg *>malloc(MESSAGES * sizeof(BgpMsg))
    if d.extra == NULL or d.whole == NULL or d.msgs == NULL or d.bgps == NULL:
        return -1
    for i in range(3):
        # a stage can hold every frame and one packet per message
        d.stages[i].pkts = <Packet **>malloc(packets * sizeof(Packet *))
        d.stages[i].udp = <Packet **>malloc(packets * sizeof(Packet *))
        d.stages[i].dns = <DnsMsg **>malloc(MESSAGES * sizeof(DnsMsg *))
        d.stages[i].bgp = <BgpMsg **>malloc(MESSAGES * sizeof(BgpMsg *))
        if d.stages[i].pkts == NULL or d.stages[i].udp == NULL or d.stages[i].dns == NULL or d.stages[i].bgp == NULL:
            return -1
    return 0


cdef void desk_free(Desk *d) noexcept nogil:
    cdef int i
    if d.borrowed:
        return
    free(d.decoded)
    free(d.extra)
    free(d.whole)
    free(d.msgs)
    free(d.bgps)
    for i in range(3):
        free(d.stages[i].pkts)
        free(d.stages[i].udp)
        free(d.stages[i].dns)
        free(d.stages[i].bgp)
    memset(d, 0, sizeof(Desk))


cdef void on_segment(void *ctx, Stream *stream, int side, const uint8_t *data, uint32_t n,
                     const Packet *pkt) noexcept nogil:
    cdef Shard *s = <Shard *>ctx
    cdef Segment seg
    seg.shard = s
    seg.pkt = pkt
    seg.stand_in = NULL
    if dns_metric_port(stream.port[0], stream.port[1]):
        if dns_stream_segment(stream, side, data, n, on_dns, &seg):
            s.dns_sides_lost += 1
    else:
        bgp_stream_segment(stream, side, data, n, on_bgp, &seg)


cdef struct Segment:
    Shard *shard
    const Packet *pkt          # sent by the side that the message belongs to
    Packet *stand_in           # a copy of it that outlives the call


cdef Packet *stand_in(Segment *seg) noexcept nogil:
    """A packet that stands for a message out of a stream; room for it has been made."""
    cdef Shard *s = seg.shard
    if seg.stand_in == NULL:
        seg.stand_in = &s.desk.extra[s.n_extra]
        s.n_extra += 1
        seg.stand_in[0] = seg.pkt[0]
        seg.stand_in.flags |= PF_SYNTHETIC
    return seg.stand_in


cdef void on_dns(void *ctx, Stream *stream, int side, const uint8_t *data, uint32_t n) noexcept nogil:
    cdef Segment *seg = <Segment *>ctx
    cdef Shard *s = seg.shard
    cdef DnsMsg *m
    cdef Packet *p
    if s.work.n_dns == MESSAGES or s.n_extra + 1 >= BATCH_PACKETS + MESSAGES:
        flush_shard(s)
    m = &s.desk.msgs[s.work.n_dns]
    if dns_parse(data, n, want_of(s), m) == DNS_SHORT:
        s.dns_short += 1
        return
    # one synthetic packet per message: IP, TCP and the message (metrics spec 3.5)
    seg.stand_in = NULL
    p = stand_in(seg)
    # of a message that is not all there: its length on the wire
    n = be16(data - 2)
    p.wirelen = (20 if p.l3 == L3_IPV4 else 40) + 20 + 2 + n
    p.proto = PROTO_TCP
    p.tcp_flags = 0
    m.pkt = p
    m.ts = p.ts
    m.flow_hash = stream.hash
    m.size = n
    m.port = dns_metric_port(stream.port[side], stream.port[1 - side])
    m.tcp = 1
    s.work.dns[s.work.n_dns] = m
    s.work.n_dns += 1


cdef void on_bgp(void *ctx, Stream *stream, int side, int kind, uint32_t length) noexcept nogil:
    cdef Segment *seg = <Segment *>ctx
    cdef Shard *s = seg.shard
    cdef BgpMsg *m
    if s.work.n_bgp == MESSAGES or s.n_extra + 1 >= BATCH_PACKETS + MESSAGES:
        flush_shard(s)
        seg.stand_in = NULL
    m = &s.desk.bgps[s.work.n_bgp]
    m.pkt = stand_in(seg)
    m.ts = m.pkt.ts
    m.type = <uint8_t>kind
    m.length = <uint16_t>length
    if kind == 0:
        s.bgp_unreadable += 1
    s.work.bgp[s.work.n_bgp] = m
    s.work.n_bgp += 1


cdef void flush_shard(Shard *s) noexcept nogil:
    (<Engine>s.owner).flush(s)


cdef int want_of(Shard *s) noexcept nogil:
    return (<Engine>s.owner).dns_want


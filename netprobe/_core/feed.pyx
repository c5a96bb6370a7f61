"""One running input: packets are read and decoded once, then fed to any number of engines (DESIGN, The hot path).

The thread inside run() owns every engine on the roster. Others ask it through a mailbox, which it empties between two
batches: to add or remove an engine, to copy an open bucket for a reader, to note drops. It never takes the GIL, apart
from compiling a filter for a link type that shows up.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID

from netprobe._core.acc_pcap cimport Pcap
from netprobe._core.acc_resources cimport Resources
from netprobe._core.bpf cimport BpfProgram
from netprobe._core.clock cimport Clock, read_clock
from netprobe._core.decode cimport N_CAUSES, DecodeConfig, decode_batch, free_hosts, set_hosts
from netprobe._core.engine cimport (
    MAX_PERIODS, Engine, desk_free, desk_init, pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init,
    pthread_cond_wait, pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock)
from netprobe._core.owner cimport (
    DEEP_ALL, View, draw, feed_engine, finish_engine, lend, look, start_engine, take_back, turn_back, turn_over)
from netprobe._core.handler cimport MAX_BLOCKS
from netprobe._core.packet cimport RF_DEEP
from netprobe._core.source cimport Batch, PacketSource
from netprobe._core.store cimport MetricBlock, MetricSet, mset_free, mset_glance

from netprobe._core.decode import CAUSES

cdef extern from *:
    """
    static inline int np_flag_get(int *flag) { return __atomic_load_n(flag, __ATOMIC_ACQUIRE); }
    static inline void np_flag_set(int *flag, int value) { __atomic_store_n(flag, value, __ATOMIC_RELEASE); }
    """
    int np_flag_get(int *flag) noexcept nogil
    void np_flag_set(int *flag, int value) noexcept nogil

cdef enum:
    # a ring hands its packets on late; the clock alone ends a period when nothing of it can be on the way any more
    GRACE = 250000000
    # how long commands may keep packets waiting that have come
    BUDGET = 4000000
    # so that the latest second of a rate has all its packets, too
    RATE_GRACE = 150000000
    # the clock may be set back by so much without consequence
    SLACK = 60000000000

cdef enum:
    DO_ADD
    DO_REMOVE
    DO_LOOK
    DO_READING
    DO_POLICIES
    DO_HOSTS
    DO_FINISH


# --- rosters --------------------------------------------------------------------------------------------------------


cdef void free_roster(Roster *r) noexcept nogil:
    if r != NULL:
        free(r.engines)
        free(r.meters)
        free(r.gauges)
        free(r)


cdef void **changed(void **old, uint32_t *n, list added, set removed) except NULL:
    """A copy of a list of pointers with some objects more, or fewer; n: its length before and after."""
    cdef void **fresh = <void **>malloc((n[0] + len(added) + 1) * sizeof(void *))
    cdef uint32_t i
    cdef uint32_t at = 0
    if fresh == NULL:
        raise MemoryError
    for i in range(n[0]):
        if not removed or <size_t>old[i] not in removed:
            fresh[at] = old[i]
            at += 1
    for one in added:
        fresh[at] = <void *>one
        at += 1
    n[0] = at
    return fresh


cdef Roster *make_roster(Roster *old, Engine added, Engine removed) except NULL:
    """The roster with one engine more or fewer. The old one stays as it is."""
    cdef Roster *r = <Roster *>calloc(1, sizeof(Roster))
    cdef list come = [] if added is None else list(added.keep[0])
    cdef list gone = [] if removed is None else list(removed.keep[0])
    cdef set addresses = {<size_t><void *>one for one in gone}
    if r == NULL:
        raise MemoryError
    if old != NULL:
        r.n_engines = old.n_engines
        r.n_meters = old.n_meters
        r.n_gauges = old.n_gauges
    try:
        r.engines = changed(
            NULL if old == NULL else old.engines, &r.n_engines, [] if added is None else [added],
            set() if removed is None else {<size_t><void *>removed})
        r.meters = changed(
            NULL if old == NULL else old.meters, &r.n_meters, [one for one in come if isinstance(one, Pcap)],
            addresses)
        r.gauges = changed(
            NULL if old == NULL else old.gauges, &r.n_gauges, [one for one in come if isinstance(one, Resources)],
            addresses)
    except BaseException:
        free_roster(r)
        raise
    return r


cdef class Feed:
    """Reads a source and feeds engines, until the source ends or stop() is called.

    hosts: [(family, address bytes, prefix length)]. recorded: time is what the packets say, periods begin with the
    first one. compile_filter(link type) -> BpfProgram: for sources that do not filter by themselves.
    """

    def __cinit__(self, hosts=(), bint inner=False, bint recorded=False, compile_filter=None, Clock clock=None):
        self.clock = Clock() if clock is None else clock
        self.recorded = recorded
        self.compile_filter = compile_filter
        self.has_filter = compile_filter is not None
        self.programs = {}
        self.program_type = -1
        self.decode.inner = inner
        set_hosts(&self.decode, list(hosts))
        self.members = set()
        self.roster = make_roster(NULL, None, None)
        self.batch = <Batch *>calloc(1, sizeof(Batch))
        if self.batch == NULL or desk_init(&self.desk, True) < 0:
            raise MemoryError
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.cond, NULL)
        self.locks = 1

    def __dealloc__(self):
        free_roster(self.roster)
        desk_free(&self.desk)
        free(self.batch)
        free_hosts(&self.decode)
        if self.locks:
            pthread_mutex_destroy(&self.mutex)
            pthread_cond_destroy(&self.cond)

    # ------------------------------------------------------------------ the owner's thread

    def run(self, PacketSource source not None):
        """Feed from this source in the calling thread. Returns when it has ended, or after stop()."""
        self.source = source
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.running = 1
            pthread_mutex_unlock(&self.mutex)
            self.loop()
            # what came in meanwhile; from here on whoever asks serves himself
            pthread_mutex_lock(&self.mutex)
            while self.first != NULL:
                self.obey(self.first)
                self.first.done = 1
                self.first = self.first.next
            self.last = NULL
            self.waiting = 0
            self.running = 0
            pthread_cond_broadcast(&self.cond)
            pthread_mutex_unlock(&self.mutex)
        self.source = None
        if self.filter_error is not None:
            raise self.filter_error

    cdef void loop(self) noexcept nogil:
        cdef Batch *b = self.batch
        cdef uint32_t i, n
        cdef int64_t arrived, spent, newest
        cdef int64_t now = 0
        cdef int deep
        cdef uint64_t bytes_
        while not np_flag_get(&self.stopping):
            if np_flag_get(&self.waiting):
                self.serve()
            n = self.source.next_batch(b)
            self.pressed = n != 0
            if not self.recorded:
                now = self.clock.now()
                self.watch(now)
            if n == 0:
                if not self.recorded:
                    self.beat(now - GRACE)
                if self.source.ended:
                    break
                continue
            arrived = read_clock(CLOCK_MONOTONIC)
            n = b.n
            if self.late:
                self.restamp(now)
            self.framed += n
            self.batches += 1
            newest = b.raw[n - 1].ts
            if self.has_filter:
                if not self.sift():
                    self.source.release(b)
                    break
                n = b.n
            if n == 0:
                # nothing for the engines, and yet time passes
                if not self.recorded:
                    self.beat(newest)
                self.source.release(b)
                continue
            bytes_ = 0
            newest = b.raw[0].ts
            for i in range(n):
                # most policies look at every packet
                b.raw[i].flags |= RF_DEEP
                bytes_ += b.raw[i].wirelen
                if b.raw[i].ts > newest:
                    newest = b.raw[i].ts
            decode_batch(&self.decode, b.raw, n, self.desk.decoded, &self.decoded)
            if self.kept == 0:
                self.first_ts = b.raw[0].ts
            if newest > self.last_ts:
                self.last_ts = newest
            self.wire_bytes += bytes_
            self.kept += n
            deep = DEEP_ALL
            for i in range(self.roster.n_engines):
                deep = draw(<Engine>self.roster.engines[i], self.desk.decoded, n, deep)
                feed_engine(<Engine>self.roster.engines[i], self.desk.decoded, n, newest)
            self.source.release(b)
            spent = read_clock(CLOCK_MONOTONIC) - arrived
            if spent > self.longest_batch:
                self.longest_batch = spent

    cdef void beat(self, int64_t now) noexcept nogil:
        """The wire is silent: the clock may end periods."""
        cdef uint32_t i
        for i in range(self.roster.n_engines):
            turn_over(<Engine>self.roster.engines[i], now)

    cdef void watch(self, int64_t now) noexcept nogil:
        """Was the clock set back?"""
        cdef uint32_t i
        if now < self.latest - <int64_t>SLACK:
            for i in range(self.roster.n_engines):
                turn_back(<Engine>self.roster.engines[i], now)
            self.late = 1
        self.latest = now

    cdef void restamp(self, int64_t now) noexcept nogil:
        """What the clock stamped before it was set back has come now."""
        cdef uint32_t i
        self.late = 0
        for i in range(self.batch.n):
            if self.batch.raw[i].ts > now + <int64_t>SLACK:
                self.batch.raw[i].ts = now
                self.late = 1

    cdef int sift(self) noexcept nogil:
        """Keep what passes the filter. 0: it cannot be compiled for a link type, filter_error says why."""
        cdef Batch *b = self.batch
        cdef uint32_t i
        cdef uint32_t n = 0
        for i in range(b.n):
            if b.raw[i].linktype != self.program_type:
                if not self.choose_program(b.raw[i].linktype):
                    return 0
            if (<BpfProgram>self.program).run(b.raw[i].data, b.raw[i].wirelen, b.raw[i].caplen):
                b.raw[n] = b.raw[i]
                n += 1
        b.n = n
        return 1

    cdef int choose_program(self, int linktype) noexcept with gil:
        try:
            program = self.programs.get(linktype)
            if program is None:
                program = self.programs[linktype] = self.compile_filter(linktype)
            self.program = <void *>program
            self.program_type = linktype
            return 1
        except Exception as e:
            self.filter_error = e
            return 0

    # ------------------------------------------------------------------ the mailbox

    cdef void serve(self) noexcept nogil:
        """Obey what is in the mailbox; when packets wait, no longer than that the ring does not notice."""
        cdef Command *c
        cdef int64_t began, now, spent, worked
        cdef int64_t start = read_clock(CLOCK_MONOTONIC)
        began = start
        pthread_mutex_lock(&self.mutex)
        while self.first != NULL:
            c = self.first
            self.first = c.next
            if self.first == NULL:
                self.last = NULL
            np_flag_set(&self.waiting, self.waiting - 1)
            pthread_mutex_unlock(&self.mutex)
            worked = read_clock(CLOCK_THREAD_CPUTIME_ID)
            self.obey(c)
            worked = read_clock(CLOCK_THREAD_CPUTIME_ID) - worked
            if worked > self.longest_work:
                self.longest_work = worked
            now = read_clock(CLOCK_MONOTONIC)
            spent = now - began
            began = now
            if spent > self.longest_command:
                self.longest_command = spent
            self.commands += 1
            pthread_mutex_lock(&self.mutex)
            # from here on the command is no longer ours
            c.done = 1
            pthread_cond_broadcast(&self.cond)
            if self.pressed and now - start > BUDGET:
                break
        pthread_mutex_unlock(&self.mutex)

    cdef void obey(self, Command *c) noexcept nogil:
        cdef uint32_t i
        cdef DecodeConfig before
        if c.kind == DO_ADD:
            lend(<Engine>c.engine, &self.desk)
            # live, a period begins when somebody begins to watch
            if not self.recorded and not (<Engine>c.engine).started:
                start_engine(<Engine>c.engine, self.clock.now())
            self.roster = <Roster *>c.data
            for i in range(self.roster.n_meters):
                # the first reading is what later ones are compared with
                (<Pcap>self.roster.meters[i]).reading(self.readings[1], self.readings[2])
        elif c.kind == DO_REMOVE:
            take_back(<Engine>c.engine)
            self.roster = <Roster *>c.data
        elif c.kind == DO_LOOK:
            look(<Engine>c.engine, <View *>c.data)
        elif c.kind == DO_READING:
            for i in range(3):
                self.readings[i] = <uint64_t>c.args[i]
            for i in range(self.roster.n_meters):
                (<Pcap>self.roster.meters[i]).reading(self.readings[1], self.readings[2])
        elif c.kind == DO_POLICIES:
            for i in range(self.roster.n_gauges):
                (<Resources>self.roster.gauges[i]).change(
                    c.args[0], c.args[1], self.last_ts if self.recorded else self.clock.now())
        elif c.kind == DO_HOSTS:
            before = self.decode
            self.decode = (<DecodeConfig *>c.data)[0]
            (<DecodeConfig *>c.data)[0] = before
        elif c.kind == DO_FINISH:
            for i in range(self.roster.n_engines):
                finish_engine(<Engine>self.roster.engines[i], 0 if self.recorded else self.clock.now())

    cdef int post(self, Command *c) noexcept nogil:
        """Hand a command to the owner, or obey it here when there is none. 1: the owner has it."""
        pthread_mutex_lock(&self.mutex)
        if not self.running:
            self.obey(c)
            c.done = 1
            pthread_mutex_unlock(&self.mutex)
            return 0
        if self.last == NULL:
            self.first = c
        else:
            self.last.next = c
        self.last = c
        np_flag_set(&self.waiting, self.waiting + 1)
        pthread_mutex_unlock(&self.mutex)
        return 1

    def _do(self, int kind, Engine engine, int64_t a=0, int64_t b=0, int64_t c=0, size_t data=0):
        """Have a command obeyed; returns afterwards."""
        cdef Command command
        memset(&command, 0, sizeof(Command))
        command.kind = kind
        command.engine = <void *>engine
        command.data = <void *>data
        command.args[0] = a
        command.args[1] = b
        command.args[2] = c
        cdef int queued
        with nogil:
            queued = self.post(&command)
        if queued:
            self.wake()
            with nogil:
                pthread_mutex_lock(&self.mutex)
                while not command.done:
                    pthread_cond_wait(&self.cond, &self.mutex)
                pthread_mutex_unlock(&self.mutex)

    def wake(self):
        """Let a source that waits for packets look at the mailbox."""
        wake = getattr(self.source, "wake", None)
        if wake is not None:
            wake()

    def stop(self):
        """Let run() return after the batch at hand. It cannot be run again."""
        np_flag_set(&self.stopping, 1)
        self.wake()

    def filter_by(self, compile_filter):
        """Another filter, while it does not run."""
        if self.running:
            raise ValueError("runs")
        self.compile_filter = compile_filter
        self.has_filter = compile_filter is not None
        self.programs = {}
        self.program_type = -1

    # ------------------------------------------------------------------ for other threads

    def add(self, Engine engine not None):
        """Feed this engine, too, from the next batch on."""
        if engine in self.members:
            raise ValueError("is fed already")
        if engine.n_shards != 1:
            raise ValueError("one shard is fed, not several")
        engine.sparse = all([isinstance(one, Resources) for one in engine.keep[0]])
        self._change(DO_ADD, make_roster(self.roster, engine, None), engine)
        self.members.add(engine)

    def remove(self, Engine engine not None):
        """Feed it no longer. What it has counted stays as it is."""
        if engine in self.members:
            self._change(DO_REMOVE, make_roster(self.roster, None, engine), engine)
            self.members.discard(engine)

    cdef _change(self, int kind, Roster *fresh, Engine engine):
        cdef Roster *old = self.roster
        self._do(kind, engine, data=<size_t>fresh)
        # only now nobody looks at the old one any more
        free_roster(old)

    def hosts(self, hosts):
        """Other host networks from the next batch on."""
        cdef DecodeConfig config
        memset(&config, 0, sizeof(config))
        config.inner = self.decode.inner
        set_hosts(&config, list(hosts))
        # the command leaves the ones before in its place
        self._do(DO_HOSTS, None, data=<size_t>&config)
        free_hosts(&config)

    def reading(self, received, os_drops, if_drops):
        """Tell the pcap handlers the capture's running totals."""
        self._do(DO_READING, None, received, os_drops, if_drops)

    def policies(self, policies, handlers):
        """Tell the input_resources handlers how many there are now."""
        self._do(DO_POLICIES, None, policies, handlers)

    def finish(self):
        """Close every engine's connections and open period: the end of a capture."""
        self._do(DO_FINISH, None)

    def look(self, Engine engine not None, int64_t known=0, bint want_open=True):
        """One engine's periods at this moment.

        (number of the open period, [(number, start ns, end ns, blocks per handler)] of the closed ones numbered
        `known` or higher, newest first; how many closed ones there are; (start ns, blocks per handler) of the open
        one, None if there is none or it is not wanted). Closed blocks are shared and must not be changed.
        """
        cdef View v
        cdef int i, h
        cdef int64_t number
        cdef int n = engine.n_handlers
        cdef size_t sets = <size_t>n * MAX_BLOCKS
        cdef MetricSet **room = <MetricSet **>calloc((MAX_PERIODS + 1) * sets, sizeof(MetricSet *))
        if room == NULL:
            raise MemoryError
        memset(&v, 0, sizeof(View))
        v.want_open = want_open
        for i in range(MAX_PERIODS):
            v.closed[i].sets = <MetricSet *(*)[4]>(room + i * sets)
        v.sets = <MetricSet *(*)[4]>(room + MAX_PERIODS * sets)
        try:
            self._do(DO_LOOK, engine, data=<size_t>&v)
            closed = []
            for i in range(v.n_closed - 1, -1, -1):
                number = <int64_t>v.rotations - v.n_closed + i + (1 if v.finished else 0)
                if number < known:
                    break
                blocks = [wrap_sets(v.closed[i].sets[h]) for h in range(n)]
                closed.append((number, v.closed[i].start, v.closed[i].end, blocks))
            opened = None
            if want_open and not v.finished and engine.started:
                with nogil:
                    self._glance(&v, n)
                opened = v.start, [wrap_sets(v.sets[h]) for h in range(n)]
            return v.rotations + (1 if v.finished else 0), closed, v.n_closed, opened
        finally:
            for i in range((MAX_PERIODS + 1) * sets):
                mset_free(room[i])
            free(room)

    cdef void _glance(self, View *v, int n) noexcept nogil:
        """Finish the rates of the copies."""
        cdef int h, b
        cdef int64_t now = self.last_ts if self.recorded else self.clock.now() - RATE_GRACE
        for h in range(n):
            for b in range(MAX_BLOCKS):
                if v.sets[h][b] != NULL:
                    mset_glance(v.sets[h][b], now)

    def stats(self):
        """What was read, malformed packets by cause, and how long anybody had to wait."""
        cdef int c
        return {
            "packets_read": self.framed,
            "packets": self.kept,
            "filtered_out": self.framed - self.kept,
            "bytes": self.wire_bytes,
            "batches": self.batches,
            "malformed": {CAUSES[c]: self.decoded.cause[c] for c in range(1, N_CAUSES)},
            "cut_by_snaplen": self.decoded.cut,
            "first_ts": self.first_ts if self.kept else None,
            "last_ts": self.last_ts if self.kept else None,
            "longest_batch_ns": self.longest_batch,
            "longest_command_ns": self.longest_command,
            "longest_command_cpu_ns": self.longest_work,
            "commands": self.commands,
            "queue": self.waiting,
        }

    def reset_longest(self):
        """Begin to look for the longest waits anew."""
        self.longest_batch = 0
        self.longest_command = 0
        self.longest_work = 0


cdef list wrap_sets(MetricSet **sets):
    """Blocks of one handler; takes over the references."""
    cdef int b
    cdef list blocks = []
    for b in range(MAX_BLOCKS):
        if sets[b] == NULL:
            blocks.append(None)
        else:
            blocks.append(MetricBlock.wrap(sets[b]))
            sets[b] = NULL
    return blocks

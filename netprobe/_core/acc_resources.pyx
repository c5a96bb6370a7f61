"""The input_resources handler: what an input's thread and the process use (metrics spec 13)."""
from libc.stdint cimport int64_t, uint64_t
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.time cimport CLOCK_THREAD_CPUTIME_ID
from posix.unistd cimport _SC_PAGESIZE, close, pread, sysconf

from netprobe._core.clock cimport NS, read_clock
from netprobe._core.handler cimport Accumulator, Work
from netprobe._core.packet cimport PF_DEEP
from netprobe._core.sketch.kll cimport kll_add_int, kll_update
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.store cimport MetricSet

cdef extern from "time.h" nogil:
    enum: CLOCK_BOOTTIME

cdef enum:
    C_TOTAL
    C_DEEP
    C_POLICIES
    C_HANDLERS
    COUNTERS

cdef enum:
    Q_CPU
    Q_MEMORY
    QUANTILES

cdef enum:
    INTERVAL_SECONDS = 5
    SPACE = 0x20
    ZERO = 0x30
    NINE = 0x39


cdef class Resources(Accumulator):
    """input_resources, JSON key `input_resources`. Its packets only tell when to measure."""

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False):
        self.n_blocks = 1
        self.layout[0].n_counter = COUNTERS
        self.layout[0].n_quant = QUANTILES
        self.layout[0].n_rate = 1
        self.consume = <void (*)(void *, const Work *, Work *) noexcept nogil>consume
        self.shifted = <void (*)(void *, MetricSet **, int64_t) noexcept nogil>shifted
        self.interval = <int64_t>INTERVAL_SECONDS * NS
        self.page = sysconf(_SC_PAGESIZE)
        # elsewhere than on Linux there is no such file, and memory is 0
        self.statm = open(b"/proc/self/statm", O_RDONLY | O_CLOEXEC)

    def __dealloc__(self):
        if self.statm >= 0:
            close(self.statm)

    @staticmethod
    def fields():
        """Path -> (kind, index in the metric block)."""
        return {
            "total": ("counter", C_TOTAL),
            "deep_samples": ("counter", C_DEEP),
            "event_rate": ("rate", 0),
            "cpu_usage": ("quantile", Q_CPU),
            "memory_bytes": ("quantile", Q_MEMORY),
            "policy_count": ("counter", C_POLICIES),
            "handler_count": ("counter", C_HANDLERS),
        }

    cdef void open_bucket(self, int64_t start_ns) noexcept nogil:
        Accumulator.open_bucket(self, start_ns)
        if self.sets[0] != NULL:
            self.sets[0].levels = 1 << C_POLICIES | 1 << C_HANDLERS
            self.levels()

    cdef void levels(self) noexcept nogil:
        self.sets[0].counter[C_POLICIES] = <uint64_t>self.policies
        self.sets[0].counter[C_HANDLERS] = <uint64_t>self.handlers

    cdef void event(self, int64_t ts, bint deep) noexcept nogil:
        cdef MetricSet *m = self.sets[0]
        m.used = 1
        m.counter[C_TOTAL] += 1
        m.counter[C_DEEP] += deep
        rate_row(&m.rate, ts)[0] += 1

    cdef void change(self, int64_t policies, int64_t handlers, int64_t now) noexcept nogil:
        """So many policies and handlers there are now."""
        if policies == self.policies and handlers == self.handlers:
            return
        self.policies = policies
        self.handlers = handlers
        if self.sets[0] != NULL:
            self.levels()
            self.event(now, True)

    cdef void measure(self, int64_t ts, bint deep) noexcept nogil:
        cdef MetricSet *m = self.sets[0]
        # the thread that calls this is the one that captures; the first value is relative to boot
        cdef int64_t cpu = read_clock(CLOCK_THREAD_CPUTIME_ID)
        cdef int64_t wall = read_clock(CLOCK_BOOTTIME)
        self.event(ts, deep)
        if wall > self.wall_then:
            kll_update(&m.quant[Q_CPU], 100.0 * <double>(cpu - self.cpu_then) / <double>(wall - self.wall_then))
        kll_add_int(&m.quant[Q_MEMORY], resident(self.statm) * <uint64_t>self.page)
        self.cpu_then = cpu
        self.wall_then = wall
        self.measured = ts
        self.ever = True


cdef uint64_t resident(int fd) noexcept nogil:
    """Resident pages: the second number of statm."""
    cdef char text[128]
    cdef Py_ssize_t n = pread(fd, text, sizeof(text), 0) if fd >= 0 else 0
    cdef Py_ssize_t i = 0
    cdef uint64_t pages = 0
    while i < n and text[i] != SPACE:
        i += 1
    i += 1
    while i < n and ZERO <= text[i] <= NINE:
        pages = pages * 10 + <uint64_t>(text[i] - ZERO)
        i += 1
    return pages


cdef void consume(Resources self, const Work *w, Work *out) noexcept nogil:
    cdef int64_t ts
    if out != NULL:
        out[0] = w[0]
    if w.n_pkts == 0:
        return
    ts = w.pkts[w.n_pkts - 1].ts
    if not self.ever or ts - self.measured >= self.interval:
        self.measure(ts, w.pkts[w.n_pkts - 1].flags & PF_DEEP != 0)


cdef void shifted(Resources self, MetricSet **closed, int64_t now) noexcept nogil:
    # handing the totals on to the new bucket is an event too
    if self.sets[0] != NULL:
        self.event(now, True)

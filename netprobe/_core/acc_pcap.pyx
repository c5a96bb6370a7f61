"""The pcap handler: what the capture itself lost (metrics spec 10)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from netprobe._core.handler cimport Accumulator, Work
from netprobe._core.store cimport MetricBlock, MetricSet, mset_clone

cdef enum:
    C_ERRORS
    C_OS_DROPS
    C_IF_DROPS
    COUNTERS


cdef class Pcap(Accumulator):
    """pcap, JSON key `pcap`."""

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False):
        self.n_blocks = 1
        self.layout[0].n_counter = COUNTERS
        self.consume = <void (*)(void *, const Work *, Work *) noexcept nogil>consume

    @staticmethod
    def fields():
        """Path -> (kind, index in the metric block)."""
        return {
            "tcp_reassembly_errors": ("counter", C_ERRORS),
            "os_drops": ("counter", C_OS_DROPS),
            "if_drops": ("counter", C_IF_DROPS),
        }

    cdef void reading(self, uint64_t os_drops, uint64_t if_drops) noexcept nogil:
        """Take a reading of the capture's running totals. The first one is what later ones are compared with; a
        total that went down (the device was opened again) counts nothing."""
        cdef MetricSet *m = self.sets[0]
        if m != NULL:
            m.used = 1
            if self.read and os_drops > self.os_drops:
                m.counter[C_OS_DROPS] += os_drops - self.os_drops
            if self.read and if_drops > self.if_drops:
                m.counter[C_IF_DROPS] += if_drops - self.if_drops
        self.os_drops = os_drops
        self.if_drops = if_drops
        self.read = True

    def on_stats(self, uint64_t received, uint64_t os_drops, uint64_t if_drops):
        """Take a reading, from outside an input."""
        self.reading(os_drops, if_drops)

    # for tests: without an engine around

    def _open(self, int64_t start=0):
        """Open a bucket; the one before as a MetricBlock, or None."""
        cdef MetricSet *closed = self.sets[0]
        self.open_bucket(start)
        return None if closed == NULL else MetricBlock.wrap(closed)

    def _feed(self, uint32_t tcp_errors):
        cdef Work work, out
        memset(&work, 0, sizeof(work))
        work.tcp_errors = tcp_errors
        with nogil:
            self.consume(<void *>self, &work, &out)
        return out.tcp_errors

    def _block(self):
        """A copy of the open bucket."""
        return MetricBlock.wrap(mset_clone(self.sets[0]))


cdef void consume(Pcap self, const Work *w, Work *out) noexcept nogil:
    cdef MetricSet *m = self.sets[0]
    if out != NULL:
        out[0] = w[0]
    if w.tcp_errors:
        m.used = 1
        m.counter[C_ERRORS] += w.tcp_errors

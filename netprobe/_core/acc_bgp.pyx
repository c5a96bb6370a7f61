"""The bgp handler: messages by type (metrics spec 9)."""
from libc.stdint cimport uint32_t, uint64_t

from netprobe._core.handler cimport Accumulator, BgpMsg, Work
from netprobe._core.packet cimport PF_DEEP
from netprobe._core.sketch.rate cimport rate_row
from netprobe._core.store cimport MetricSet
from netprobe._core.wire.bgp cimport BGP_OPEN, BGP_ROUTE_REFRESH

cdef enum:
    C_EVENTS
    C_DEEP
    C_TOTAL
    C_FILTERED
    C_OPEN                   # then in the order of the type numbers
    C_UPDATE
    C_NOTIFICATION
    C_KEEPALIVE
    C_ROUTE_REFRESH
    COUNTERS

cdef enum:
    R_EVENTS
    R_TOTAL
    RATES


cdef class Bgp(Accumulator):
    """bgp, JSON key `bgp`."""

    def __cinit__(self, config, geo_city=None, geo_asn=None, bint chained=False):
        self.n_blocks = 1
        self.layout[0].n_counter = COUNTERS
        self.layout[0].n_rate = RATES
        self.needs_bgp = 1
        self.needs_streams = 1
        self.consume = <void (*)(void *, const Work *, Work *) noexcept nogil>consume

    @staticmethod
    def fields():
        """Path -> (kind, index in the metric block)."""
        return {
            "wire_packets.events": ("counter", C_EVENTS),
            "wire_packets.deep_samples": ("counter", C_DEEP),
            "rates.events": ("rate", R_EVENTS),
            "rates.total": ("rate", R_TOTAL),
            "wire_packets.total": ("counter", C_TOTAL),
            "wire_packets.filtered": ("counter", C_FILTERED),
            "wire_packets.open": ("counter", C_OPEN),
            "wire_packets.update": ("counter", C_UPDATE),
            "wire_packets.notification": ("counter", C_NOTIFICATION),
            "wire_packets.keepalive": ("counter", C_KEEPALIVE),
            "wire_packets.routerefresh": ("counter", C_ROUTE_REFRESH),
        }


cdef void consume(Bgp self, const Work *w, Work *out) noexcept nogil:
    cdef MetricSet *m = self.sets[0]
    cdef uint64_t *rate
    cdef const BgpMsg *b
    cdef uint32_t i
    if out != NULL:
        out[0] = w[0]
    for i in range(w.n_bgp):
        b = w.bgp[i]
        m.used = 1
        m.counter[C_EVENTS] += 1
        m.counter[C_DEEP] += (b.pkt.flags & PF_DEEP) != 0
        m.counter[C_TOTAL] += 1
        rate = rate_row(&m.rate, b.ts)
        rate[R_EVENTS] += 1
        rate[R_TOTAL] += 1
        if BGP_OPEN <= b.type <= BGP_ROUTE_REFRESH:
            m.counter[C_OPEN + b.type - BGP_OPEN] += 1

"""An engine that is fed by somebody else: what its owner, one thread at a time, does with it."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from netprobe._core.engine cimport MAX_PERIODS, Closed, Desk, Engine
from netprobe._core.packet cimport Packet
from netprobe._core.store cimport MetricSet

cdef enum:
    # who of a batch is marked for deep sampling
    DEEP_ALL
    DEEP_SOME

cdef struct View:
    # one engine's periods as they were at one moment
    int want_open
    int n_closed
    int finished
    uint64_t rotations                 # periods that have ended
    Closed closed[MAX_PERIODS]         # oldest first; their sets are held
    int64_t start                      # of the open period
    MetricSet *(*sets)[4]              # copies of the open sets

cdef void lend(Engine e, Desk *desk) noexcept nogil          # room to work, until take_back
cdef void take_back(Engine e) noexcept nogil
cdef void start_engine(Engine e, int64_t ts) noexcept nogil  # open its first period
cdef int draw(Engine e, Packet *pkts, uint32_t n, int deep) noexcept nogil
cdef void feed_engine(Engine e, Packet *pkts, uint32_t n, int64_t newest) noexcept nogil
cdef void turn_over(Engine e, int64_t now) noexcept nogil
cdef void turn_back(Engine e, int64_t now) noexcept nogil
cdef void finish_engine(Engine e, int64_t now) noexcept nogil
cdef void look(Engine e, View *v) noexcept nogil

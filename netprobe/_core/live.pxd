"""What the sources of live packets share: waiting, waking, closing, the state of the interface, filters."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netprobe._core.source cimport Batch, PacketSource

cdef extern from "poll.h":
    cdef struct pollfd:
        int fd
        short events
        short revents

cdef enum:
    STATE_UP = 0
    STATE_DOWN = 1
    STATE_GONE = 2

cdef enum:
    # which packets the core filters itself
    CORE_NONE = 0
    CORE_TAGGED = 1              # those whose VLAN tag the kernel had taken out before its filter
    CORE_ALL = 2

cdef int64_t clock_ms() noexcept nogil

cdef class LiveSource(PacketSource):
    cdef readonly int timeout_ms
    cdef readonly uint32_t snaplen
    cdef readonly int linktype   # LINKTYPE_*; -1: not known (gone, or `any`)
    cdef uint32_t state_         # STATE_*, atomic
    cdef readonly uint32_t outages     # how often it was up no longer, also for a moment
    cdef uint32_t inside         # atomic: somebody is in next_batch or tears down
    cdef uint32_t closing        # atomic
    cdef int event               # eventfd
    cdef char device[16]
    cdef int everything          # `any`: all interfaces at once
    cdef readonly int ifindex
    cdef int control             # a socket for questions, of the network namespace in which the source was made
    cdef uint64_t batches
    cdef int64_t looked          # ms: when look was called last
    cdef int wait(self, int fd, int ms) noexcept nogil
    cdef int present(self) noexcept nogil
    cdef int link_state(self) noexcept nogil
    cdef void heard(self) noexcept nogil
    cdef void look(self) noexcept nogil
    cdef int prompt(self) noexcept nogil
    cdef int at_hand(self) noexcept nogil
    cdef int next_inside(self, Batch *b) noexcept nogil
    cdef void shut(self) noexcept nogil

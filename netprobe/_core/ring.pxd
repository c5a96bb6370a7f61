"""AF_PACKET sockets with a TPACKET_V3 ring (packet(7); Documentation/networking/packet_mmap.rst of Linux)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.bpf cimport Insn
from netprobe._core.live cimport LiveSource
from netprobe._core.source cimport Batch, Block

cdef enum:
    MAX_FILTERS = 32             # link types that one capture meets

cdef struct RingMap:
    # one socket's ring; it goes when the reader has left it and the last block came back
    uint8_t *base
    size_t size
    int fd
    uint32_t refs                # atomic: the reader, and each block that is out
    uint32_t n_blocks
    Block *blocks

cdef struct LinkFilter:
    int linktype
    int mode                     # CORE_*
    uint16_t n
    Insn *rows                   # for the kernel
    void *core                   # BpfProgram, or NULL: nothing passes where the core has to filter

cdef class Ring(LiveSource):
    # settings
    cdef int promisc
    cdef uint32_t block_bytes
    cdef uint32_t n_blocks
    cdef int retire_ms
    cdef int fanout              # what PACKET_FANOUT takes; -1: none
    cdef object filters
    cdef list keep
    cdef LinkFilter programs[MAX_FILTERS]
    cdef int n_programs
    # the interface
    cdef int hatype              # ARPHRD_*
    cdef int loopback
    cdef int joined              # filter and fanout are in force
    cdef int64_t next_try        # ms: when to look again after an interface that vanished
    cdef readonly int step       # where opening failed, see STEPS
    cdef readonly uint32_t reopened
    # the ring
    cdef RingMap *map            # set and cleared by the reader, under the guard
    cdef uint32_t guard
    cdef int nap                 # the last block was full: more are on the way
    cdef int nap_ms              # how long to sleep then; 0: the ring is too small for it
    cdef uint32_t at             # the block that comes next
    cdef Block *block            # being walked
    cdef uint8_t *packet
    cdef uint8_t *block_end
    cdef uint8_t *block_used     # what the kernel has written ends here
    cdef uint8_t *fetched        # asked for up to here
    cdef uint32_t left           # packets of the block still to come
    cdef LinkFilter *filter      # of the last packet's link type
    cdef int filter_mode         # CORE_*
    # counters, atomic
    cdef uint64_t stat_packets, stat_drops, stat_freezes
    cdef uint64_t delivered, filtered, outgoing, lost
    cdef int start(self) noexcept nogil
    cdef int bound(self, int fd) noexcept nogil
    cdef int settle(self) noexcept nogil
    cdef int attach(self, int fd, int linktype) noexcept nogil
    cdef LinkFilter *program(self, int linktype) noexcept nogil
    cdef int fail(self, int step) noexcept nogil
    cdef void count(self) noexcept nogil
    cdef void leave(self) noexcept nogil
    cdef int at_hand(self) noexcept nogil
    cdef int ready(self) noexcept nogil
    cdef int filled(self) noexcept nogil
    cdef int take(self) noexcept nogil
    cdef int walk(self, Batch *b) noexcept nogil

"""One running input and the engines that it feeds."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.clock cimport Clock
from netprobe._core.decode cimport DecodeConfig, DecodeStats
from netprobe._core.engine cimport Desk, Engine, pthread_cond_t, pthread_mutex_t
from netprobe._core.owner cimport View
from netprobe._core.source cimport Batch, PacketSource

cdef struct Roster:
    # who is fed; a change of it is a new one
    uint32_t n_engines
    uint32_t n_meters                  # pcap handlers: told of drops
    uint32_t n_gauges                  # input_resources handlers: told of policies
    void **engines                     # Engine
    void **meters                      # Pcap
    void **gauges                      # Resources

cdef struct Command:
    int kind                           # DO_*
    int done
    void *engine                       # Engine that is added, removed, looked at
    void *data                         # Roster to be used from now on, View to be filled
    int64_t args[3]
    Command *next

cdef class Feed:
    cdef readonly Clock clock
    cdef readonly bint recorded        # time is what the packets say
    cdef PacketSource source
    cdef DecodeConfig decode
    cdef DecodeStats decoded
    cdef Desk desk
    cdef Batch *batch
    cdef Roster *roster
    cdef set members                   # the roster's engines, as Python holds them
    # filter
    cdef object compile_filter
    cdef object filter_error
    cdef int has_filter
    cdef dict programs
    cdef int program_type              # the one used last
    cdef void *program
    # mailbox
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t cond
    cdef int locks
    cdef Command *first                # oldest
    cdef Command *last
    cdef int waiting                   # atomic: commands in the mailbox
    cdef int pressed                   # the source had packets when it was last asked
    cdef int running
    cdef int stopping
    # what came by
    cdef uint64_t framed
    cdef uint64_t batches
    cdef uint64_t kept
    cdef uint64_t wire_bytes
    cdef uint64_t readings[3]          # received, os drops, interface drops: the latest
    cdef int64_t latest                # the clock, when it was looked at last
    cdef int late                      # it was set back: packets stamped before that may still come
    cdef int64_t first_ts
    cdef int64_t last_ts
    cdef int64_t longest_batch         # ns from a batch's arrival to the next look at the source
    cdef int64_t longest_command       # ns spent on one command, by the wall
    cdef int64_t longest_work          # and by the processor, other programs apart
    cdef uint64_t commands
    cdef void loop(self) noexcept nogil
    cdef void serve(self) noexcept nogil
    cdef void obey(self, Command *c) noexcept nogil
    cdef void beat(self, int64_t now) noexcept nogil
    cdef void watch(self, int64_t now) noexcept nogil
    cdef void restamp(self, int64_t now) noexcept nogil
    cdef int sift(self) noexcept nogil
    cdef int choose_program(self, int linktype) noexcept with gil
    cdef int post(self, Command *c) noexcept nogil
    cdef _change(self, int kind, Roster *fresh, Engine engine)
    cdef void _glance(self, View *v, int n) noexcept nogil

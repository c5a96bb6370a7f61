"""Sources without a wire."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.clock cimport Clock
from netprobe._core.source cimport PacketSource

cdef enum:
    MOCK_FRAME = 128
    MOCK_PEERS = 255

cdef class Quiet(PacketSource):
    cdef Clock clock
    cdef int wakeup                    # eventfd
    cdef int64_t until                 # monotonic ns; 0: for ever
    cdef int rest(self, int64_t ns) noexcept nogil

cdef class MockDns(Quiet):
    cdef int64_t interval
    cdef int64_t due                   # stamp of the next packet
    cdef uint64_t state                # of the generator
    cdef uint64_t left                 # packets still to come
    cdef uint64_t sent
    cdef uint16_t asked_id[MOCK_PEERS] # each peer's latest query; port 0: none is open
    cdef uint16_t asked_port[MOCK_PEERS]
    cdef uint8_t asked_name[MOCK_PEERS]
    cdef uint8_t asked_type[MOCK_PEERS]
    cdef uint8_t frame[MOCK_FRAME]
    cdef uint32_t build(self) noexcept nogil

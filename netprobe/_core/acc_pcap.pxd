"""The pcap handler's accumulator, as far as the running input tells it about drops."""
from libc.stdint cimport uint64_t

from netprobe._core.handler cimport Accumulator

cdef class Pcap(Accumulator):
    # the latest reading; readings outlive buckets, so that no drop falls between two of them
    cdef uint64_t os_drops
    cdef uint64_t if_drops
    cdef bint read
    cdef void reading(self, uint64_t os_drops, uint64_t if_drops) noexcept nogil

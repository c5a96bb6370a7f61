"""The input_resources handler's accumulator, as far as the running input tells it about policies."""
from libc.stdint cimport int64_t, uint64_t

from netprobe._core.handler cimport Accumulator

cdef class Resources(Accumulator):
    # totals outlive buckets: each new one begins with them
    cdef int64_t policies
    cdef int64_t handlers
    cdef int64_t interval              # ns between measurements
    cdef int64_t measured              # packet time of the latest, and the clocks then
    cdef int64_t cpu_then
    cdef int64_t wall_then
    cdef bint ever
    cdef int statm                     # descriptor of /proc/self/statm
    cdef int64_t page
    cdef void change(self, int64_t policies, int64_t handlers, int64_t now) noexcept nogil
    cdef void measure(self, int64_t ts, bint deep) noexcept nogil
    cdef void event(self, int64_t ts, bint deep) noexcept nogil
    cdef void levels(self) noexcept nogil

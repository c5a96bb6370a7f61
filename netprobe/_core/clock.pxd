"""The time, from the machine or by hand."""
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

cdef enum:
    NS = 1000000000

cdef inline int64_t read_clock(int which) noexcept nogil:
    """One of the machine's clocks (clock_gettime(2)), in nanoseconds."""
    cdef timespec t
    if clock_gettime(which, &t) != 0:
        return 0
    return <int64_t>t.tv_sec * NS + t.tv_nsec

cdef class Clock:
    cdef int64_t held                  # nanoseconds since 1970, of a clock that is set by hand
    cdef readonly bint manual
    cdef int64_t now(self) noexcept nogil

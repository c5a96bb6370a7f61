"""The time of day for live inputs; tests set it by hand."""
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_REALTIME


cdef class Clock:
    """The time of day. Given a start, in nanoseconds since 1970, it stands still until somebody moves it."""

    def __cinit__(self, start=None):
        self.manual = start is not None
        if self.manual:
            self.held = start

    cdef int64_t now(self) noexcept nogil:
        return self.held if self.manual else read_clock(CLOCK_REALTIME)

    def time_ns(self):
        return self.now()

    def set(self, int64_t now):
        """Move a clock that was given a start."""
        if not self.manual:
            raise ValueError("the system's clock cannot be moved")
        self.held = now

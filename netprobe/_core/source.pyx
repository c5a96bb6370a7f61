"""The base of every source, itself one that is at its end."""
from libc.string cimport strerror

ENDINGS = {
    END_CLEAN: "clean",
    END_CUT: "cut",
    END_DAMAGED: "damaged",
    END_IO: "io",
}


cdef class PacketSource:
    """A source of packet batches for the core; see the subclasses."""

    cdef int next_batch(self, Batch *b) noexcept nogil:
        b.n = 0
        b.block = NULL
        if not self.ended:
            self.ended = END_CLEAN
        return 0

    cdef void release(self, Batch *b) noexcept nogil:
        b.block = NULL

    cdef void hold(self, Batch *b) noexcept nogil:
        pass

    @property
    def how_ended(self):
        """'' while reading, else clean, cut, damaged or io."""
        return ENDINGS.get(self.ended, "")

    @property
    def error_text(self):
        return strerror(self.error).decode() if self.error else ""

"""The base of every source, itself one that is at its end."""
from cpython.exc cimport PyErr_CheckSignals
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

    def read(self):
        """The next batch as [(ns, bytes, original length, link type, interface)]; [] when there is none now.

        For looking and for tests: an object for each packet, and a copy of it.
        """
        cdef Batch b
        cdef uint32_t i
        b.block = NULL
        with nogil:
            self.next_batch(&b)
        try:
            PyErr_CheckSignals()
            return [
                (b.raw[i].ts, bytes(b.raw[i].data[:b.raw[i].caplen]), b.raw[i].wirelen, b.raw[i].linktype,
                 b.raw[i].interface)
                for i in range(b.n)
            ]
        finally:
            self.release(&b)

"""Base class of the native accumulators (see handler.pxd)."""
from netprobe._core.store cimport mset_free, mset_new


cdef class Accumulator:
    def __dealloc__(self):
        cdef int i
        for i in range(MAX_BLOCKS):
            if self.sets[i] != NULL:
                mset_free(self.sets[i])
                self.sets[i] = NULL

    cdef void open_bucket(self, int64_t start_ns) noexcept nogil:
        """Fresh sets; the owner has taken the old ones (or there were none)."""
        cdef int i
        for i in range(self.n_blocks):
            self.sets[i] = mset_new(&self.layout[0 if i == 0 else 1], start_ns)

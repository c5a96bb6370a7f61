"""The binary form of a KLL sketch of doubles (datasketches-format.md, 3)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from netprobe._core.sketch.kll cimport Kll

cdef size_t kll_size(const Kll *s) noexcept nogil                        # bytes kll_write will write; 0: no memory
cdef size_t kll_write(const Kll *s, uint8_t *out) noexcept nogil
cdef int kll_read(Kll *s, const uint8_t *data, size_t n) noexcept nogil  # 0, or a negative error; never trusts

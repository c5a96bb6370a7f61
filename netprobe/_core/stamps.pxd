"""Arithmetic on time stamps in ns, which in a hostile file may be anywhere in 64 bits."""
from libc.stdint cimport int64_t, uint64_t


cdef inline uint64_t apart(int64_t a, int64_t b) noexcept nogil:
    # unsigned, as the difference of two signed ones may not fit
    return <uint64_t>a - <uint64_t>b if a > b else <uint64_t>b - <uint64_t>a

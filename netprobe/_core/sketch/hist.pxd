"""Histogram over the fixed boundary list of the metrics spec 1.6, counted exactly."""
from libc.stdint cimport uint32_t, uint64_t

cdef struct Hist:
    int integer              # 1: the 315 integer boundaries, 0: the 486 floating ones
    uint64_t *counts         # one per boundary interval (previous, b], plus one above the last; NULL while empty
    uint64_t n

cdef void hist_init(Hist *h, int integer) noexcept nogil
cdef void hist_free(Hist *h) noexcept nogil
cdef void hist_update(Hist *h, double value) noexcept nogil
cdef int hist_merge(Hist *into, const Hist *other) noexcept nogil
cdef int hist_copy(Hist *into, const Hist *other) noexcept nogil

"""Histogram over the fixed boundary list of the metrics spec 1.6, counted exactly."""
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    HIST_INTEGER = 315       # boundaries
    HIST_FLOAT = 486

cdef struct Hist:
    int integer              # 1: the 315 integer boundaries, 0: the 486 floating ones
    uint64_t *counts         # one per boundary interval (previous, b], plus one above the last; NULL while empty
    uint64_t n

cdef void hist_init(Hist *h, int integer) noexcept nogil
cdef void hist_free(Hist *h) noexcept nogil
cdef void hist_update(Hist *h, double value) noexcept nogil
cdef void hist_update_weighted(Hist *h, double value, uint64_t weight) noexcept nogil
cdef int hist_merge(Hist *into, const Hist *other) noexcept nogil        # -2: the other kind of boundaries
cdef int hist_copy(Hist *into, const Hist *other) noexcept nogil
cdef const double *hist_boundaries(int integer) noexcept nogil
cdef uint32_t hist_intervals(const Hist *h) noexcept nogil               # counts in use: boundaries + 1

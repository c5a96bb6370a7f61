"""Sorting for quantiles."""
from libc.stdint cimport uint32_t, uint64_t

cdef struct Entry:
    double value
    uint64_t weight          # later: running sum

cdef void sort_doubles(double *a, uint32_t n) noexcept nogil
cdef void sort_entries(Entry *a, uint32_t n) noexcept nogil
# no NaN; out may end where b ends, since b stays ahead of it
cdef void merge_sorted(const double *a, uint32_t na, const double *b, uint32_t nb, double *out) noexcept nogil

"""Histogram: exact counts over the boundaries 10^(i/18) of the metrics spec 1.6."""
from libc.math cimport pow
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cdef double int_bounds[HIST_INTEGER]
cdef double float_bounds[HIST_FLOAT]


cdef int fill_bounds() except -1:
    cdef int n_int = 0
    cdef int n_float = 0
    cdef int e, i
    cdef double value, whole
    for e in range(-9, 18):
        for i in range(18):
            # the exponent goes through single precision, as it does upstream: it decides the last digits
            value = pow(10.0, <float>(i / 18.0)) * pow(10.0, e)
            whole = <double><long long>value
            if n_float == 0 or float_bounds[n_float - 1] != value:
                if n_float == HIST_FLOAT:
                    raise ImportError("unexpected histogram boundaries")
                float_bounds[n_float] = value
                n_float += 1
            if n_int == 0 or int_bounds[n_int - 1] != whole:
                if n_int == HIST_INTEGER:
                    raise ImportError("unexpected histogram boundaries")
                int_bounds[n_int] = whole
                n_int += 1
    if n_int != HIST_INTEGER or n_float != HIST_FLOAT:
        raise ImportError("unexpected histogram boundaries")
    return 0


fill_bounds()


def boundaries(bint integer):
    """The 315 integer or 486 floating boundaries, ascending."""
    cdef const double *bounds = hist_boundaries(integer)
    return [bounds[i] for i in range(HIST_INTEGER if integer else HIST_FLOAT)]


cdef const double *hist_boundaries(int integer) noexcept nogil:
    return &int_bounds[0] if integer else &float_bounds[0]


cdef uint32_t hist_intervals(const Hist *h) noexcept nogil:
    return (HIST_INTEGER if h.integer else HIST_FLOAT) + 1


cdef void hist_init(Hist *h, int integer) noexcept nogil:
    memset(h, 0, sizeof(Hist))
    h.integer = integer


cdef void hist_free(Hist *h) noexcept nogil:
    free(h.counts)
    hist_init(h, h.integer)


cdef void hist_update(Hist *h, double value) noexcept nogil:
    hist_update_weighted(h, value, 1)


cdef int start_counts(Hist *h) noexcept nogil:
    h.counts = <uint64_t *>calloc(hist_intervals(h), sizeof(uint64_t))
    return 0 if h.counts != NULL else -1


cdef void hist_update_weighted(Hist *h, double value, uint64_t weight) noexcept nogil:
    cdef const double *base = hist_boundaries(h.integer)
    cdef const double *first = base
    cdef uint32_t n = hist_intervals(h) - 1
    cdef uint32_t half
    if value != value or weight == 0 or (h.counts == NULL and start_counts(h) != 0):
        return
    # first boundary not below value; a step is an addition, not a branch
    while n > 1:
        half = n >> 1
        first += half if first[half - 1] < value else 0
        n -= half
    first += first[0] < value
    h.counts[first - base] += weight
    h.n += weight


cdef int hist_merge(Hist *into, const Hist *other) noexcept nogil:
    cdef uint32_t i
    if into.integer != other.integer:
        return -2
    if other.counts == NULL:
        return 0
    if into.counts == NULL and start_counts(into) != 0:
        return -1
    for i in range(hist_intervals(other)):
        into.counts[i] += other.counts[i]
    into.n += other.n
    return 0


cdef int hist_copy(Hist *into, const Hist *other) noexcept nogil:
    hist_init(into, other.integer)
    return hist_merge(into, other)

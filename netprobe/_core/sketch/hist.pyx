"""Histogram: exact counts over the boundaries 10^(i/18) of the metrics spec 1.6."""
from libc.math cimport pow
from libc.stdint cimport uint16_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cdef enum:
    # upper 16 bits of a double, exponent and 4 bits of the fraction, of 2^-30 (below the first floating
    # boundary above 0) to 2^60 (above the last): at most two boundaries share such a cell
    FIRST_CELL = (1023 - 30) << 4
    CELLS = 91 << 4

cdef double int_bounds[HIST_INTEGER]
cdef double float_bounds[HIST_FLOAT]
cdef uint16_t int_first[CELLS]           # the first boundary that is not below a cell
cdef uint16_t float_first[CELLS]


cdef void fill_first(const double *bounds, int n, uint16_t *first) noexcept nogil:
    cdef uint64_t bits
    cdef double low
    cdef int at = 0
    cdef int cell
    for cell in range(CELLS):
        bits = <uint64_t>(FIRST_CELL + cell) << 48
        memcpy(&low, &bits, 8)
        # values below the first cell are looked up there too
        while at < n - 1 and bounds[at] < low and cell > 0:
            at += 1
        first[cell] = <uint16_t>at


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
    fill_first(int_bounds, HIST_INTEGER, int_first)
    fill_first(float_bounds, HIST_FLOAT, float_first)
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
    cdef const double *bounds = hist_boundaries(h.integer)
    cdef uint32_t last = hist_intervals(h) - 2
    cdef uint32_t i
    cdef uint64_t bits
    if value != value or weight == 0 or (h.counts == NULL and start_counts(h) != 0):
        return
    if value <= bounds[0]:
        i = 0
    elif value > bounds[last]:
        i = last + 1
    else:
        memcpy(&bits, &value, 8)
        bits >>= 48
        bits = bits - FIRST_CELL if bits > FIRST_CELL else 0
        i = int_first[bits] if h.integer else float_first[bits]
        while bounds[i] < value:
            i += 1
    h.counts[i] += weight
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

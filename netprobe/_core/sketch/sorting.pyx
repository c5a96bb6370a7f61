"""Sorting for quantiles: short runs of doubles, fast because nothing in them can be predicted."""
from libc.math cimport INFINITY
from libc.string cimport memcpy, memmove

cdef enum:
    SMALL = 1024             # items sorted by merging on the stack


cdef inline void order(double *a, double *b) noexcept nogil:
    cdef double x = a[0]
    cdef double y = b[0]
    a[0] = x if x < y else y
    b[0] = x if x > y else y             # written so that both become one instruction, not a branch


cdef inline void sort8(double *a) noexcept nogil:
    # a network of 19 exchanges: the usual size of level 0, and nothing to mispredict
    order(a, a + 2); order(a + 1, a + 3); order(a + 4, a + 6); order(a + 5, a + 7)
    order(a, a + 4); order(a + 1, a + 5); order(a + 2, a + 6); order(a + 3, a + 7)
    order(a, a + 1); order(a + 2, a + 3); order(a + 4, a + 5); order(a + 6, a + 7)
    order(a + 2, a + 4); order(a + 3, a + 5)
    order(a + 1, a + 4); order(a + 3, a + 6)
    order(a + 1, a + 2); order(a + 3, a + 4); order(a + 5, a + 6)


cdef void merge_sorted(const double *a, uint32_t na, const double *b, uint32_t nb, double *out) noexcept nogil:
    # no branch on the comparison, which nothing can predict; out may end where b ends (b stays ahead of out)
    cdef uint32_t i = 0
    cdef uint32_t j = 0
    cdef uint32_t w = 0
    cdef uint32_t from_b
    cdef double x, y
    while i < na and j < nb:
        x = a[i]
        y = b[j]
        from_b = y < x
        out[w] = y if from_b else x
        w += 1
        j += from_b
        i += 1 - from_b
    while i < na:
        out[w] = a[i]
        w += 1
        i += 1
    if j < nb and out + w != b + j:
        memmove(out + w, b + j, (nb - j) * sizeof(double))


cdef void merge_even(const double *a, uint32_t n, double *out) noexcept nogil:
    """a[0:n] and a[n:2n] into out, from both ends at once: two chains of comparisons that do not wait for
    each other, and no end to look out for."""
    cdef const double *x = a
    cdef const double *y = a + n
    cdef const double *p = a + n - 1
    cdef const double *q = a + 2 * n - 1
    cdef double *back = out + 2 * n - 1
    cdef uint32_t i
    cdef uint32_t from_y, from_p
    for i in range(n):
        from_y = y[0] < x[0]
        out[i] = y[0] if from_y else x[0]
        y += from_y
        x += 1 - from_y
        from_p = p[0] > q[0]
        back[0] = p[0] if from_p else q[0]
        back -= 1
        p -= from_p
        q -= 1 - from_p


cdef void sort_shell(double *a, uint32_t n) noexcept nogil:
    # for a level 0 of an unusual k: no memory, and no order of arrival makes it slow
    cdef uint32_t gap = 1
    cdef uint32_t i, j
    cdef double v
    while gap < n / 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            v = a[i]
            j = i
            while j >= gap and a[j - gap] > v:
                a[j] = a[j - gap]
                j -= gap
            a[j] = v
        gap /= 3


cdef void sort_doubles(double *a, uint32_t n) noexcept nogil:
    """Blocks of 8 by the network, then merged by pairs."""
    cdef double other[SMALL]
    cdef double block[8]
    cdef double *src = a
    cdef double *dst = other
    cdef double *swap
    cdef uint32_t i = 0
    cdef uint32_t width = 8
    cdef uint32_t rest
    if n > SMALL:
        sort_shell(a, n)
        return
    while n - i >= 8:
        sort8(a + i)
        i += 8
    if n - i > 1:
        for rest in range(8):
            block[rest] = a[i + rest] if i + rest < n else INFINITY
        sort8(block)
        memcpy(a + i, block, (n - i) * sizeof(double))
    while width < n:
        i = 0
        while i < n:
            rest = n - i
            if rest >= 2 * width:
                merge_even(src + i, width, dst + i)
            elif rest <= width:
                memcpy(dst + i, src + i, rest * sizeof(double))
            else:
                merge_sorted(src + i, width, src + i + width, rest - width, dst + i)
            i += 2 * width
        width *= 2
        swap = src
        src = dst
        dst = swap
    if src != a:
        memcpy(a, src, n * sizeof(double))


cdef void sort_entries(Entry *a, uint32_t n) noexcept nogil:
    cdef uint32_t gap = 1
    cdef uint32_t i, j
    cdef Entry v
    while gap < n / 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            v = a[i]
            j = i
            while j >= gap and a[j - gap].value > v.value:
                a[j] = a[j - gap]
                j -= gap
            a[j] = v
        gap /= 3

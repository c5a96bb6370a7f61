"""The binary form of a KLL sketch of doubles."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from netprobe._core.sketch.kll cimport (
    KLL_ERR_FORMAT, KLL_ERR_MEMORY, KLL_K, KLL_M, KLL_MAX_LEVELS, Kll, kll_add_level, kll_capacity, kll_copy, kll_fold,
    kll_free, kll_init, kll_packed, kll_start_levels, kll_update)

cdef enum:
    OFF_PREAMBLE = 0
    OFF_VERSION = 1
    OFF_FAMILY = 2
    OFF_FLAGS = 3
    OFF_K = 4
    OFF_M = 6
    OFF_N = 8
    OFF_MIN_K = 16
    OFF_LEVELS = 18
    OFF_OFFSETS = 20
    FAMILY = 15
    FLAG_EMPTY = 1
    FLAG_SORTED = 2
    FLAG_SINGLE = 4


cdef size_t kll_size(const Kll *s) noexcept nogil:
    cdef Kll flat
    cdef size_t size
    if s.n_dense or s.extra or kll_packed(s):
        if kll_copy(&flat, s) != 0:
            return 0
        kll_fold(&flat)
        size = kll_size(&flat)
        kll_free(&flat)
        return size
    if s.n == 0:
        return 8
    if s.n == 1:
        return 16
    return OFF_OFFSETS + 4 * <size_t>s.num_levels + 16 + 8 * <size_t>(s.cap - s.offsets[0])


cdef size_t kll_write(const Kll *s, uint8_t *out) noexcept nogil:
    """A dense front is folded in a copy, with the same coins each time: kll_size and kll_write agree."""
    cdef Kll flat
    cdef size_t at
    if s.n_dense or s.extra or kll_packed(s):
        if kll_copy(&flat, s) != 0:
            return 0
        kll_fold(&flat)
        at = kll_write(&flat, out)
        kll_free(&flat)
        return at
    memset(out, 0, 8)
    out[OFF_PREAMBLE] = 2
    out[OFF_VERSION] = 1
    out[OFF_FAMILY] = FAMILY
    memcpy(out + OFF_K, &s.k, 2)
    out[OFF_M] = KLL_M
    if s.n == 0:
        out[OFF_FLAGS] = FLAG_EMPTY
        return 8
    if s.n == 1:
        out[OFF_VERSION] = 2
        out[OFF_FLAGS] = FLAG_SINGLE
        memcpy(out + 8, s.items + s.offsets[0], 8)
        return 16
    out[OFF_PREAMBLE] = 5
    memcpy(out + OFF_N, &s.n, 8)
    memcpy(out + OFF_MIN_K, &s.min_k, 2)
    out[OFF_LEVELS] = s.num_levels
    out[OFF_LEVELS + 1] = 0
    memcpy(out + OFF_OFFSETS, s.offsets, 4 * <size_t>s.num_levels)
    at = OFF_OFFSETS + 4 * <size_t>s.num_levels
    memcpy(out + at, &s.minv, 8)
    memcpy(out + at + 8, &s.maxv, 8)
    memcpy(out + at + 16, s.items + s.offsets[0], 8 * <size_t>(s.cap - s.offsets[0]))
    return at + 16 + 8 * <size_t>(s.cap - s.offsets[0])


cdef int check_items(Kll *s, int sorted0) noexcept nogil:
    cdef uint64_t weight = 0
    cdef uint64_t size
    cdef uint32_t i
    cdef int h
    for h in range(s.num_levels):
        size = s.offsets[h + 1] - s.offsets[h]
        if size and (size << h) >> h != size or weight + (size << h) < weight:
            return KLL_ERR_FORMAT
        weight += size << h
        for i in range(s.offsets[h], s.offsets[h + 1]):
            # written so that a NaN fails
            if not (s.minv <= s.items[i] <= s.maxv):
                return KLL_ERR_FORMAT
            if (h or sorted0) and i > s.offsets[h] and s.items[i] < s.items[i - 1]:
                return KLL_ERR_FORMAT
            s.sum += s.items[i] * <double>(<uint64_t>1 << h)
    return 0 if weight == s.n and weight < <uint64_t>1 << 62 else KLL_ERR_FORMAT


cdef int read_full(Kll *s, const uint8_t *data, size_t n) noexcept nogil:
    cdef uint32_t offsets[KLL_MAX_LEVELS + 1]
    cdef uint32_t c
    cdef size_t at
    cdef int i
    cdef int levels = data[OFF_LEVELS]
    if n < OFF_OFFSETS or levels < 1 or levels > KLL_MAX_LEVELS:
        return KLL_ERR_FORMAT
    at = OFF_OFFSETS + 4 * <size_t>levels
    c = kll_capacity(s.k, levels)
    if n < at + 16:
        return KLL_ERR_FORMAT
    memcpy(offsets, data + OFF_OFFSETS, 4 * <size_t>levels)
    offsets[levels] = c
    for i in range(levels):
        if offsets[i] > offsets[i + 1]:
            return KLL_ERR_FORMAT
    if n - at - 16 != 8 * <size_t>(c - offsets[0]) or c == offsets[0]:
        return KLL_ERR_FORMAT
    if kll_start_levels(s) != 0:
        return KLL_ERR_MEMORY
    while s.num_levels < levels:
        if kll_add_level(s) != 0:
            return KLL_ERR_MEMORY
    memcpy(s.offsets, offsets, 4 * <size_t>(levels + 1))
    memcpy(&s.n, data + OFF_N, 8)
    memcpy(&s.min_k, data + OFF_MIN_K, 2)
    memcpy(&s.minv, data + at, 8)
    memcpy(&s.maxv, data + at + 8, 8)
    memcpy(s.items + offsets[0], data + at + 16, 8 * <size_t>(c - offsets[0]))
    if s.min_k < KLL_M or s.min_k > s.k:
        return KLL_ERR_FORMAT
    return check_items(s, data[OFF_FLAGS] & FLAG_SORTED)


cdef int kll_read(Kll *s, const uint8_t *data, size_t n) noexcept nogil:
    """s is uninitialised; empty after an error. The sum is that of the retained items, by weight."""
    cdef uint16_t k
    cdef double value
    cdef int status
    kll_init(s, KLL_K, 0)
    if n < 8 or data[OFF_FAMILY] != FAMILY or data[OFF_M] != KLL_M or data[OFF_VERSION] < 1 or data[OFF_VERSION] > 2:
        return KLL_ERR_FORMAT
    memcpy(&k, data + OFF_K, 2)
    if k < KLL_M or data[OFF_PREAMBLE] != (2 if data[OFF_FLAGS] & (FLAG_EMPTY | FLAG_SINGLE) else 5):
        return KLL_ERR_FORMAT
    s.k = k
    s.min_k = k
    if data[OFF_FLAGS] & FLAG_EMPTY:
        return 0 if n == 8 else KLL_ERR_FORMAT
    if data[OFF_FLAGS] & FLAG_SINGLE:
        if n != 16:
            return KLL_ERR_FORMAT
        memcpy(&value, data + 8, 8)
        if value != value:
            return KLL_ERR_FORMAT
        kll_update(s, value)
        return 0 if s.n == 1 else KLL_ERR_MEMORY
    status = read_full(s, data, n)
    if status != 0:
        kll_free(s)
    return status

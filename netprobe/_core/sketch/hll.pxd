"""HyperLogLog, Apache DataSketches compatible (shared/spec/datasketches-format.md, 1 and 2)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef struct Hll:
    uint8_t lg_k
    uint32_t n_coupons       # distinct coupons while regs == NULL
    uint32_t lg_table        # lg of the size of coupons[]
    uint32_t *coupons        # open addressing, 0 = empty; NULL while empty
    uint8_t *regs            # 2^lg_k registers once promoted

cdef uint32_t hll_coupon(const uint8_t *data, size_t n) noexcept nogil   # murmur3 x64 128, seed 9001
cdef void hll_init(Hll *h, int lg_k) noexcept nogil                      # allocates nothing
cdef void hll_free(Hll *h) noexcept nogil
cdef int hll_insert(Hll *h, uint32_t coupon) noexcept nogil              # slow path; -1: no memory
cdef int hll_merge(Hll *into, const Hll *other) noexcept nogil
cdef int hll_copy(Hll *into, const Hll *other) noexcept nogil            # into is uninitialised
cdef double hll_estimate(const Hll *h) noexcept nogil
cdef size_t hll_size(const Hll *h) noexcept nogil                        # bytes hll_write will write
cdef size_t hll_write(const Hll *h, uint8_t *out) noexcept nogil         # compact, HLL_8
cdef int hll_read(Hll *h, const uint8_t *data, size_t n) noexcept nogil  # 0, or a negative error; never trusts

cdef inline void hll_add(Hll *h, uint32_t coupon) noexcept nogil:
    cdef uint32_t slot
    cdef uint8_t value
    if h.regs != NULL:
        slot = coupon & ((<uint32_t>1 << h.lg_k) - 1)
        value = <uint8_t>(coupon >> 26)
        if value > h.regs[slot]:
            h.regs[slot] = value
    else:
        hll_insert(h, coupon)

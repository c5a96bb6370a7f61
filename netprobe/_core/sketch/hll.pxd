"""HyperLogLog, Apache DataSketches compatible (shared/spec/datasketches-format.md, 1 and 2)."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from netprobe._core.sketch.padded cimport PAD, load_padded

cdef extern from *:
    """
    #define np_clz64(x) ((uint32_t)__builtin_clzll(x))
    """
    uint32_t np_clz64(uint64_t x) noexcept nogil

cdef struct Hll:
    uint8_t lg_k
    uint32_t n_coupons       # distinct coupons while regs == NULL
    uint32_t lg_table        # lg of the size of coupons[]: 3 is a plain list, 5 and more open addressing
    uint32_t *coupons        # 0 = empty cell; NULL while empty
    uint8_t *regs            # 2^lg_k registers once promoted

cdef enum:
    HLL_LG_K = 14            # what netprobe counts with
    HLL_ERR_MEMORY = -1
    HLL_ERR_FORMAT = -2

cdef void hll_init(Hll *h, int lg_k) noexcept nogil                      # allocates nothing
cdef void hll_free(Hll *h) noexcept nogil
cdef int hll_insert(Hll *h, uint32_t coupon) noexcept nogil              # slow path; -1: no memory
cdef int hll_merge(Hll *into, const Hll *other) noexcept nogil
cdef int hll_fold(Hll *h, int lg_k) noexcept nogil                       # down to a smaller lg_k
cdef int hll_copy(Hll *into, const Hll *other) noexcept nogil            # into is uninitialised
cdef double hll_estimate(const Hll *h) noexcept nogil
cdef uint32_t hll_nonzero(const Hll *h) noexcept nogil                   # coupons, or registers above 0
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

# --- MurmurHash3 x64 128, seed 9001 in both halves; inline, since a key is hashed per packet ---

cdef inline uint64_t murmur_rotl(uint64_t x, int r) noexcept nogil:
    return (x << r) | (x >> (64 - r))

cdef inline uint64_t murmur_mix(uint64_t h) noexcept nogil:
    h ^= h >> 33
    h *= <uint64_t>0xff51afd7ed558ccdULL
    h ^= h >> 33
    h *= <uint64_t>0xc4ceb9fe1a85ec53ULL
    return h ^ (h >> 33)

cdef inline uint64_t murmur_k1(uint64_t k) noexcept nogil:
    return murmur_rotl(k * <uint64_t>0x87c37b91114253d5ULL, 31) * <uint64_t>0x4cf5ad432745937fULL

cdef inline uint64_t murmur_k2(uint64_t k) noexcept nogil:
    return murmur_rotl(k * <uint64_t>0x4cf5ad432745937fULL, 33) * <uint64_t>0x87c37b91114253d5ULL

cdef inline uint32_t murmur_coupon(uint64_t h1, uint64_t h2, size_t n) noexcept nogil:
    cdef uint32_t left
    h1 ^= n
    h2 ^= n
    h1 += h2
    h2 += h1
    h1 = murmur_mix(h1)
    h2 = murmur_mix(h2)
    h1 += h2
    h2 += h1
    # at most 62 leading zeros are counted
    left = np_clz64(h2 | 2)
    return <uint32_t>(h1 & 0x3FFFFFF) | (<uint32_t>(left + 1) << 26)


cdef inline uint32_t hll_coupon(const uint8_t *data, size_t n) noexcept nogil:
    """Coupon of an item of n bytes; 0 (which hll_add ignores) for n = 0."""
    cdef uint64_t h1 = 9001
    cdef uint64_t h2 = 9001
    cdef uint64_t k[2]
    cdef uint32_t word
    cdef size_t left = n
    if n == 0:
        return 0
    while left >= 16:
        memcpy(k, data, 16)
        h1 = (murmur_rotl(h1 ^ murmur_k1(k[0]), 27) + h2) * 5 + <uint64_t>0x52dce729
        h2 = (murmur_rotl(h2 ^ murmur_k2(k[1]), 31) + h1) * 5 + <uint64_t>0x38495ab5
        data += 16
        left -= 16
    if left != 0:
        # a tail shorter than 16 is two words padded with zeros; a zero word mixes to zero
        if n >= 16:
            # the last 16 bytes, moved down until only the tail is left
            memcpy(k, data + left - 16, 16)
            if left > 8:
                k[0] = (k[0] >> (8 * (16 - left))) | (k[1] << (8 * (left - 8)))
                k[1] >>= 8 * (16 - left)
            else:
                k[0] = k[1] >> (8 * (8 - left))
                k[1] = 0
        elif left > 8:
            memcpy(k, data, 8)
            memcpy(&k[1], data + left - 8, 8)
            k[1] >>= 8 * (16 - left)
        elif left == 8:
            memcpy(k, data, 8)
            k[1] = 0
        elif left == 4:
            memcpy(&word, data, 4)
            k[0] = word
            k[1] = 0
        else:
            k[0] = 0
            k[1] = 0
            memcpy(k, data, left)
        h1 ^= murmur_k1(k[0])
        h2 ^= murmur_k2(k[1])
    return murmur_coupon(h1, h2, n)


cdef inline uint32_t hll_coupon_padded(const uint8_t *data, size_t n) noexcept nogil:
    """The same for items with PAD readable bytes; without branches below 32, since lengths cannot be predicted."""
    cdef uint64_t w[4]
    cdef uint64_t h1, h2, long_
    if n == 0 or n >= PAD:
        return hll_coupon(data, n)
    load_padded(data, n, w)
    # as if there was a whole first block, and then taken only if there is
    h1 = (murmur_rotl(<uint64_t>9001 ^ murmur_k1(w[0]), 27) + 9001) * 5 + <uint64_t>0x52dce729
    h2 = (murmur_rotl(<uint64_t>9001 ^ murmur_k2(w[1]), 31) + h1) * 5 + <uint64_t>0x38495ab5
    long_ = 0 - <uint64_t>(n >> 4)
    h1 = (h1 & long_) | (<uint64_t>9001 & ~long_)
    h2 = (h2 & long_) | (<uint64_t>9001 & ~long_)
    h1 ^= murmur_k1((w[2] & long_) | (w[0] & ~long_))
    h2 ^= murmur_k2((w[3] & long_) | (w[1] & ~long_))
    return murmur_coupon(h1, h2, n)


cdef extern from *:
    void hll_ask "__builtin_prefetch"(const void *) noexcept nogil

cdef inline void hll_prefetch(const Hll *h, uint32_t coupon) noexcept nogil:
    """Ask for the register that this coupon will look at."""
    if h.regs != NULL:
        hll_ask(&h.regs[coupon & ((<uint32_t>1 << h.lg_k) - 1)])

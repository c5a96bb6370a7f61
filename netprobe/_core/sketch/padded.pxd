"""Short keys of unpredictable length, worked on at full width: no branch depends on where they end.

A caller promises PAD readable bytes from the start of the key, whatever they hold.
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #define NP_PAD 32
    static const uint8_t np_keep[2 * NP_PAD] = {
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    /* w = the first PAD bytes at p, zeros in place of those from n on */
    static inline void np_load_padded(const uint8_t *p, size_t n, uint64_t *w) {
        uint64_t keep[4];
        const uint8_t *from = np_keep + NP_PAD - (n < NP_PAD ? n : NP_PAD);
        memcpy(w, p, NP_PAD);
        memcpy(keep, from, NP_PAD);
        w[0] &= keep[0];
        w[1] &= keep[1];
        w[2] &= keep[2];
        w[3] &= keep[3];
    }
    /* 0: the first min(n, PAD) bytes are the same */
    static inline uint64_t np_differ_padded(const uint8_t *a, const uint8_t *b, size_t n) {
        uint64_t x[4], y[4], keep[4];
        const uint8_t *from = np_keep + NP_PAD - (n < NP_PAD ? n : NP_PAD);
        memcpy(x, a, NP_PAD);
        memcpy(y, b, NP_PAD);
        memcpy(keep, from, NP_PAD);
        return ((x[0] ^ y[0]) & keep[0]) | ((x[1] ^ y[1]) & keep[1])
             | ((x[2] ^ y[2]) & keep[2]) | ((x[3] ^ y[3]) & keep[3]);
    }
    """
    void load_padded "np_load_padded"(const uint8_t *p, size_t n, uint64_t *w) noexcept nogil
    uint64_t differ_padded "np_differ_padded"(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil

cdef enum:
    PAD = 32


cdef inline void copy_padded(uint8_t *to, const uint8_t *key, size_t n) noexcept nogil:
    """PAD bytes are written even if n is less."""
    memcpy(to, key, PAD)
    if n > PAD:
        memcpy(to + PAD, key + PAD, n - PAD)


cdef inline bint same_padded(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil:
    return differ_padded(a, b, n) == 0 and (n <= PAD or memcmp(a + PAD, b + PAD, n - PAD) == 0)

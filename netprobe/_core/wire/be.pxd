"""Big-endian and little-endian loads from unaligned packet bytes; the caller has checked the length."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    #define np_be16(x) __builtin_bswap16(x)
    #define np_be32(x) __builtin_bswap32(x)
    #define np_le16(x) (x)
    #define np_le32(x) (x)
    #else
    #define np_be16(x) (x)
    #define np_be32(x) (x)
    #define np_le16(x) __builtin_bswap16(x)
    #define np_le32(x) __builtin_bswap32(x)
    #endif
    #define np_expect(x) __builtin_expect(!!(x), 1)
    """
    uint16_t np_be16(uint16_t) noexcept nogil
    uint32_t np_be32(uint32_t) noexcept nogil
    uint16_t np_le16(uint16_t) noexcept nogil
    uint32_t np_le32(uint32_t) noexcept nogil
    bint likely "np_expect"(bint) noexcept nogil


cdef inline uint16_t be16(const uint8_t *p) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return np_be16(v)


cdef inline uint32_t be32(const uint8_t *p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return np_be32(v)


cdef inline uint16_t le16(const uint8_t *p) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return np_le16(v)


cdef inline uint32_t le32(const uint8_t *p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return np_le32(v)


cdef inline uint32_t load32(const uint8_t *p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return v


cdef inline uint64_t load64(const uint8_t *p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return v

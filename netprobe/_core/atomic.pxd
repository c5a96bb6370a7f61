"""Atomic operations on plain integers, by the compiler's builtins."""
from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #define np_inc(p) __atomic_fetch_add((p), 1, __ATOMIC_RELAXED)
    #define np_dec(p) __atomic_sub_fetch((p), 1, __ATOMIC_ACQ_REL)
    #define np_add64(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    #define np_get64(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define np_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define np_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define np_fetch(p) __builtin_prefetch((p), 0, 2)
    #define np_swap(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
    """
    void np_inc(uint32_t *) noexcept nogil
    uint32_t np_dec(uint32_t *) noexcept nogil            # the new value
    void np_add64(uint64_t *, uint64_t) noexcept nogil
    uint64_t np_get64(uint64_t *) noexcept nogil
    uint32_t np_load(uint32_t *) noexcept nogil           # nothing after it is read before it
    void np_store(uint32_t *, uint32_t) noexcept nogil    # nothing before it is written after it
    void np_fetch(const void *) noexcept nogil            # have this line in the second-level cache soon
    uint32_t np_swap(uint32_t *, uint32_t) noexcept nogil # the old value

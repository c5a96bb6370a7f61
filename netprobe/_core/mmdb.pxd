"""The search tree of a MaxMind database, walked without Python."""
from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MMDB_PREFIX_BITS = 16    # of an address, looked up in one step

cdef class Mmdb:
    cdef Py_buffer buffer
    cdef const uint8_t *tree
    cdef uint32_t nodes
    cdef uint32_t node_size          # bytes: two records
    cdef uint32_t ip_family          # 4 or 6: which addresses the tree is made for
    cdef uint64_t tree_size
    cdef uint64_t data_end           # file offset where records must have begun
    cdef uint32_t *prefix4           # node or leaf after the first 16 bits of an IPv4 address
    cdef uint32_t *prefix6           # the same for IPv6, NULL in an IPv4 tree

    # address: 4 bytes (family 4) or 16 (family 6). The record's offset from the start of the file; 0: not found
    cdef uint32_t lookup(self, const uint8_t *address, int family) noexcept nogil
    cdef uint32_t step(self, uint32_t node, uint32_t bit) noexcept nogil
    cdef void fill(self, uint32_t *table, uint32_t node, int depth, uint32_t prefix) noexcept nogil

"""Classic BPF over captured packets (McCanne and Jacobson 1993; bpf(4))."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef struct Insn:
    uint16_t code
    uint8_t jt
    uint8_t jf
    uint32_t k

cdef class BpfProgram:
    cdef Insn *insns
    cdef uint32_t n
    cdef readonly int linktype
    cdef uint32_t run(self, const uint8_t *data, uint32_t wirelen, uint32_t caplen) noexcept nogil

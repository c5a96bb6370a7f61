"""Rows of structs into columns, and what is sifted out before that: what the readers of packets and flows share."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from netprobe._core.bpf cimport BpfProgram
from netprobe._core.packet cimport PF_ETHER, Packet
from netprobe._core.source cimport Batch
from netprobe._core.wire.be cimport be16
from netprobe._core.wire.ethernet cimport ET_IPV4, ET_IPV6, ET_QINQ, ET_VLAN

cdef struct Column:
    uint8_t *data
    size_t size                # bytes per row
    size_t offset              # of the field in its struct


cdef inline void spread(Column *c, const void *rows, size_t stride, uint32_t n, Py_ssize_t at) noexcept nogil:
    """Copy one field of n structs, `stride` bytes apart, to rows at .. at + n of a column."""
    cdef uint32_t i
    cdef const uint8_t *src = <const uint8_t *>rows + c.offset
    cdef uint8_t *dst = c.data + at * c.size
    # constant sizes let the compiler turn memcpy into a move
    if c.size == 8:
        for i in range(n):
            memcpy(dst + i * 8, src + i * stride, 8)
    elif c.size == 4:
        for i in range(n):
            memcpy(dst + i * 4, src + i * stride, 4)
    elif c.size == 2:
        for i in range(n):
            memcpy(dst + i * 2, src + i * stride, 2)
    elif c.size == 1:
        for i in range(n):
            dst[i] = src[i * stride]
    else:
        for i in range(n):
            memcpy(dst + i * c.size, src + i * stride, c.size)


cdef inline int sift(Batch *b, dict programs, compile_filter) except -1:
    """Keep what passes the filter; programs: link type -> BpfProgram, made when one shows up."""
    cdef uint32_t i
    cdef uint32_t n = 0
    cdef BpfProgram program
    for i in range(b.n):
        kind = b.raw[i].linktype
        program = programs.get(kind)
        if program is None:
            program = programs[kind] = compile_filter(kind)
        if program.run(b.raw[i].data, b.raw[i].wirelen, b.raw[i].caplen):
            b.raw[n] = b.raw[i]
            n += 1
    b.n = n
    return 0


cdef inline void cut(Batch *b, uint32_t snaplen) noexcept nogil:
    """As if the capture had kept so many bytes of each packet."""
    cdef uint32_t i
    for i in range(b.n):
        if b.raw[i].caplen > snaplen:
            b.raw[i].caplen = snaplen


cdef inline bint bare_ip(const Packet *p) noexcept nogil:
    """Of a packet with an IP header: does kprobe see it? In Ethernet only behind VLAN tags (kprobe spec 3.3, D34)."""
    cdef uint32_t at = 12
    cdef uint16_t kind
    if not p.flags & PF_ETHER:
        return True
    while at + 2 <= p.l3_off and at + 2 <= p.caplen:
        kind = be16(p.data + at)
        at += 2
        if at == p.l3_off:
            return kind == ET_IPV4 or kind == ET_IPV6
        if kind != ET_VLAN and kind != ET_QINQ:
            break
        at += 2
    return False

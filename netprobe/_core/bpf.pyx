"""Runs programs that libpcap compiled over file packets, without the GIL.

A program is checked once when it is loaded: every jump stays inside, every scratch cell exists, it ends in
a return. Then only packet loads need a bound, which is the capture length; a load past it rejects, as in
libpcap's own interpreter.
"""
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free

from netprobe._core.wire.be cimport be16, be32

cdef extern from *:
    uint32_t bswap32 "__builtin_bswap32"(uint32_t) noexcept nogil

cdef enum:
    MAX_INSNS = 65536
    MEM_CELLS = 16
    # backward jumps exist (ip6 protochain); a packet cannot need more steps than this
    MAX_STEPS = 1000000
    ANCILLARY = 0xFFFFF000U      # SKF_AD_OFF and below: only a live socket knows these

cdef enum:
    # opcodes: class | size or operation | mode or source
    LD_W_ABS = 0x20
    LD_H_ABS = 0x28
    LD_B_ABS = 0x30
    LD_W_IND = 0x40
    LD_H_IND = 0x48
    LD_B_IND = 0x50
    LD_LEN = 0x80
    LD_IMM = 0x00
    LD_MEM = 0x60
    LDX_IMM = 0x01
    LDX_MEM = 0x61
    LDX_LEN = 0x81
    LDX_MSH = 0xB1
    ST = 0x02
    STX = 0x03
    ADD_K = 0x04
    SUB_K = 0x14
    MUL_K = 0x24
    DIV_K = 0x34
    OR_K = 0x44
    AND_K = 0x54
    LSH_K = 0x64
    RSH_K = 0x74
    NEG = 0x84
    MOD_K = 0x94
    XOR_K = 0xA4
    ADD_X = 0x0C
    SUB_X = 0x1C
    MUL_X = 0x2C
    DIV_X = 0x3C
    OR_X = 0x4C
    AND_X = 0x5C
    LSH_X = 0x6C
    RSH_X = 0x7C
    MOD_X = 0x9C
    XOR_X = 0xAC
    JA = 0x05
    JEQ_K = 0x15
    JGT_K = 0x25
    JGE_K = 0x35
    JSET_K = 0x45
    JEQ_X = 0x1D
    JGT_X = 0x2D
    JGE_X = 0x3D
    JSET_X = 0x4D
    RET_K = 0x06
    RET_X = 0x0E
    RET_A = 0x16
    TAX = 0x07
    TXA = 0x87
    # our own: the address family in front of a packet of link type NULL or LOOP, as the compiler expects it
    LD_FAMILY = 0x120
    LD_FAMILY_SWAPPED = 0x220

_KNOWN = frozenset((
    LD_W_ABS, LD_H_ABS, LD_B_ABS, LD_W_IND, LD_H_IND, LD_B_IND, LD_LEN, LD_IMM, LD_MEM, LDX_IMM, LDX_MEM,
    LDX_LEN, LDX_MSH, ST, STX, ADD_K, SUB_K, MUL_K, DIV_K, OR_K, AND_K, LSH_K, RSH_K, NEG, MOD_K, XOR_K,
    ADD_X, SUB_X, MUL_X, DIV_X, OR_X, AND_X, LSH_X, RSH_X, MOD_X, XOR_X, JA, JEQ_K, JGT_K, JGE_K, JSET_K,
    JEQ_X, JGT_X, JGE_X, JSET_X, RET_K, RET_X, RET_A, TAX, TXA,
))
_MEMORY = frozenset((LD_MEM, LDX_MEM, ST, STX))
_ABSOLUTE = frozenset((LD_W_ABS, LD_H_ABS, LD_B_ABS))
_RETURNS = frozenset((RET_K, RET_X, RET_A))
# AF_INET, and AF_INET6 of Linux, the BSDs and macOS
_FAMILIES = frozenset((2, 10, 24, 28, 30))
LT_NULL = 0
LT_LOOP = 108


def _for_families(rows, linktype):
    """The same program, with loads of the address family replaced.

    The compiler writes the family numbers of the machine it runs on, in its byte order; a capture has those
    of the machine that it comes from.
    """
    out = list(rows)
    for at in range(len(rows) - 1):
        code, _, _, k = rows[at]
        after, _, _, constant = rows[at + 1]
        constant &= 0xFFFFFFFF
        swapped = int.from_bytes(constant.to_bytes(4, "big"), "little")
        if code == LD_W_ABS and k == 0 and after == JEQ_K:
            if constant in _FAMILIES:
                out[at] = (LD_FAMILY, 0, 0, 0)
            elif swapped in _FAMILIES and linktype == LT_NULL:
                out[at] = (LD_FAMILY_SWAPPED, 0, 0, 0)
    return out


cdef inline uint32_t family_of(const uint8_t *d) noexcept nogil:
    """The family in either byte order, IPv6 as Linux numbers it."""
    cdef uint32_t f = be32(d)
    if f > 0xFFFF:
        f = bswap32(f)
    return 10 if f == 24 or f == 28 or f == 30 else f


cdef class BpfProgram:
    """A checked program. `program`: [(code, jt, jf, k)] as pcapy's get_bpf() gives it."""

    def __cinit__(self, program, int linktype=-1):
        cdef uint32_t i
        rows = [tuple(int(v) for v in row) for row in program]
        if not 0 < len(rows) <= MAX_INSNS:
            raise ValueError(f"a filter has 1 to {MAX_INSNS} instructions, not {len(rows)}")
        self.linktype = linktype
        for at, (code, jt, jf, k) in enumerate(rows):
            k &= 0xFFFFFFFF
            after = len(rows) - at - 1
            if code not in _KNOWN:
                raise ValueError(f"instruction {at}: unknown opcode {code:#x}")
            if code in _MEMORY and k >= MEM_CELLS:
                raise ValueError(f"instruction {at}: scratch cell {k} does not exist")
            if code in _ABSOLUTE and k >= <uint32_t>ANCILLARY:
                raise ValueError("it asks for what only a live capture knows (direction, interface)")
            if code == JA:
                target = at + 1 + (k if k < 0x80000000 else k - 0x100000000)
                if not 0 <= target < len(rows):
                    raise ValueError(f"instruction {at}: jumps outside")
            elif code & 7 == 5 and max(jt, jf) >= after:
                raise ValueError(f"instruction {at}: jumps outside")
            if code in (DIV_K, MOD_K) and k == 0:
                raise ValueError(f"instruction {at}: divides by zero")
        if rows[len(rows) - 1][0] not in _RETURNS and rows[len(rows) - 1][0] != JA:
            raise ValueError("the last instruction is no return")
        if linktype == LT_NULL or linktype == LT_LOOP:
            rows = _for_families(rows, linktype)
        self.insns = <Insn *>calloc(len(rows), sizeof(Insn))
        if self.insns == NULL:
            raise MemoryError
        self.n = len(rows)
        for i in range(self.n):
            code, jt, jf, k = rows[i]
            self.insns[i].code = code
            self.insns[i].jt = jt
            self.insns[i].jf = jf
            self.insns[i].k = k & 0xFFFFFFFF

    def __dealloc__(self):
        free(self.insns)

    def matches(self, const uint8_t[::1] data, wirelen=None):
        """Would this packet be kept?"""
        cdef uint32_t n = <uint32_t>data.shape[0]
        cdef uint32_t wire = n if wirelen is None else wirelen
        cdef uint8_t nothing = 0
        return self.run(&data[0] if n else &nothing, wire, n) != 0

    cdef uint32_t run(self, const uint8_t *d, uint32_t wirelen, uint32_t n) noexcept nogil:
        cdef uint32_t a = 0, x = 0, k, at
        cdef uint32_t mem[MEM_CELLS]
        cdef const Insn *i = self.insns
        cdef const Insn *last = self.insns + self.n
        cdef uint16_t code
        cdef int steps
        cdef int cell
        for cell in range(MEM_CELLS):
            mem[cell] = 0
        for steps in range(MAX_STEPS):
            if i >= last:
                return 0
            code = i.code
            k = i.k
            if code == LD_H_ABS:
                if k > n or n - k < 2:
                    return 0
                a = be16(d + k)
            elif code == JEQ_K:
                i += i.jt if a == k else i.jf
            elif code == LD_W_ABS:
                if k > n or n - k < 4:
                    return 0
                a = be32(d + k)
            elif code == LD_B_ABS:
                if k >= n:
                    return 0
                a = d[k]
            elif code == RET_K:
                return k
            elif code == JSET_K:
                i += i.jt if a & k else i.jf
            elif code == LDX_MSH:
                if k >= n:
                    return 0
                x = <uint32_t>(d[k] & 15) << 2
            elif code == LD_H_IND:
                at = x + k
                if at < x or at > n or n - at < 2:
                    return 0
                a = be16(d + at)
            elif code == LD_W_IND:
                at = x + k
                if at < x or at > n or n - at < 4:
                    return 0
                a = be32(d + at)
            elif code == LD_B_IND:
                at = x + k
                if at < x or at >= n:
                    return 0
                a = d[at]
            elif code == JGE_K:
                i += i.jt if a >= k else i.jf
            elif code == JGT_K:
                i += i.jt if a > k else i.jf
            elif code == JEQ_X:
                i += i.jt if a == x else i.jf
            elif code == JGE_X:
                i += i.jt if a >= x else i.jf
            elif code == JGT_X:
                i += i.jt if a > x else i.jf
            elif code == JSET_X:
                i += i.jt if a & x else i.jf
            elif code == JA:
                i += <int32_t>k
            elif code == LD_LEN:
                a = wirelen
            elif code == LDX_LEN:
                x = wirelen
            elif code == LD_IMM:
                a = k
            elif code == LDX_IMM:
                x = k
            elif code == LD_MEM:
                a = mem[k]
            elif code == LDX_MEM:
                x = mem[k]
            elif code == ST:
                mem[k] = a
            elif code == STX:
                mem[k] = x
            elif code == LD_FAMILY or code == LD_FAMILY_SWAPPED:
                if n < 4:
                    return 0
                a = family_of(d)
                if code == LD_FAMILY_SWAPPED:
                    a = bswap32(a)
            elif code == TAX:
                x = a
            elif code == TXA:
                a = x
            elif code == ADD_K:
                a += k
            elif code == SUB_K:
                a -= k
            elif code == MUL_K:
                a *= k
            elif code == DIV_K:
                a //= k
            elif code == MOD_K:
                a %= k
            elif code == AND_K:
                a &= k
            elif code == OR_K:
                a |= k
            elif code == XOR_K:
                a ^= k
            elif code == LSH_K:
                a = a << k if k < 32 else 0
            elif code == RSH_K:
                a = a >> k if k < 32 else 0
            elif code == ADD_X:
                a += x
            elif code == SUB_X:
                a -= x
            elif code == MUL_X:
                a *= x
            elif code == DIV_X:
                if x == 0:
                    return 0
                a //= x
            elif code == MOD_X:
                if x == 0:
                    return 0
                a %= x
            elif code == AND_X:
                a &= x
            elif code == OR_X:
                a |= x
            elif code == XOR_X:
                a ^= x
            elif code == LSH_X:
                a = a << x if x < 32 else 0
            elif code == RSH_X:
                a = a >> x if x < 32 else 0
            elif code == NEG:
                a = 0 - a
            elif code == RET_A:
                return a
            else:
                return x         # RET_X, the only one left
            i += 1
        return 0

"""The search tree of a MaxMind database (MaxMind DB file format 2.0), walked without Python.

The tree is a binary trie over address bits, `nodes` nodes of two records each. A record below `nodes` is the next
node, `nodes` itself means "nothing known", anything above leads to a data record. What a data record says is none
of this module's business: it hands out the record's place in the file, which identifies it.

A hostile file cannot make this read outside its buffer: the tree's size is checked once, a step is only taken to a
node below `nodes`, and a walk has as many steps as the address has bits.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

cdef enum:
    SEPARATOR = 16           # zero bytes between tree and data
    TABLE = 1 << MMDB_PREFIX_BITS


cdef inline uint32_t read_record(const uint8_t *p, uint32_t size, uint32_t bit) noexcept nogil:
    # p: a node; size: 6, 7 or 8 bytes; bit: left or right record
    if size == 6:
        p += 3 * bit
        return (<uint32_t>p[0] << 16) | (<uint32_t>p[1] << 8) | p[2]
    if size == 7:
        if bit:
            return (<uint32_t>(p[3] & 0x0F) << 24) | (<uint32_t>p[4] << 16) | (<uint32_t>p[5] << 8) | p[6]
        return (<uint32_t>(p[3] >> 4) << 24) | (<uint32_t>p[0] << 16) | (<uint32_t>p[1] << 8) | p[2]
    p += 4 * bit
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef class Mmdb:
    """A database's tree over the bytes of its file (any buffer, which is kept).

    The three numbers are the metadata entries of the same names; `data_end` is where the metadata begins, by default
    the end of the buffer. ValueError says what does not fit.
    """

    def __cinit__(self, data, uint32_t node_count, uint32_t record_size, uint32_t ip_version, data_end=None):
        if record_size not in (24, 28, 32):
            raise ValueError(f"its record size is {record_size} bits, only 24, 28 and 32 exist")
        if ip_version not in (4, 6):
            raise ValueError(f"its IP version is {ip_version}, only 4 and 6 exist")
        if node_count == 0:
            raise ValueError("its search tree is empty")
        PyObject_GetBuffer(data, &self.buffer, PyBUF_SIMPLE)
        cdef uint64_t length = <uint64_t>self.buffer.len
        if length > <uint64_t>0xFFFFFFFF:
            raise ValueError("it is larger than 4 GiB")
        self.tree = <const uint8_t *>self.buffer.buf
        self.nodes = node_count
        self.node_size = record_size // 4
        self.ip_family = ip_version
        self.tree_size = <uint64_t>node_count * self.node_size
        self.data_end = length if data_end is None else min(<uint64_t>data_end, length)
        if self.tree_size + SEPARATOR > self.data_end:
            raise ValueError(f"its search tree of {self.tree_size} bytes does not fit into the file")

        self.prefix4 = <uint32_t *>malloc(TABLE * sizeof(uint32_t))
        if self.prefix4 == NULL:
            raise MemoryError
        cdef uint32_t node = 0
        cdef int depth
        if ip_version == 6:
            self.prefix6 = <uint32_t *>malloc(TABLE * sizeof(uint32_t))
            if self.prefix6 == NULL:
                raise MemoryError
            self.fill(self.prefix6, 0, 0, 0)
            # IPv4 lives at ::/96
            for depth in range(96):
                if node >= self.nodes:
                    break
                node = self.step(node, 0)
        self.fill(self.prefix4, node, 0, 0)

    def __dealloc__(self):
        free(self.prefix4)
        free(self.prefix6)
        PyBuffer_Release(&self.buffer)

    cdef uint32_t step(self, uint32_t node, uint32_t bit) noexcept nogil:
        return read_record(self.tree + <uint64_t>node * self.node_size, self.node_size, bit)

    cdef void fill(self, uint32_t *table, uint32_t node, int depth, uint32_t prefix) noexcept nogil:
        cdef uint32_t i
        if depth == MMDB_PREFIX_BITS:
            table[prefix] = node
        elif node >= self.nodes:
            for i in range(prefix << (MMDB_PREFIX_BITS - depth), (prefix + 1) << (MMDB_PREFIX_BITS - depth)):
                table[i] = node
        else:
            self.fill(table, self.step(node, 0), depth + 1, prefix << 1)
            self.fill(table, self.step(node, 1), depth + 1, (prefix << 1) | 1)

    cdef uint32_t lookup(self, const uint8_t *address, int family) noexcept nogil:
        cdef uint32_t prefix = (<uint32_t>address[0] << 8) | address[1]
        cdef uint32_t node, nodes = self.nodes, size = self.node_size
        cdef const uint8_t *tree = self.tree
        cdef uint64_t at
        cdef int bit, bits
        if family == 4:
            node = self.prefix4[prefix]
            bits = 32
        elif self.prefix6 != NULL:
            node = self.prefix6[prefix]
            bits = 128
        else:
            return 0
        bit = MMDB_PREFIX_BITS
        while node < nodes and bit < bits:
            node = read_record(tree + <uint64_t>node * size, size, (address[bit >> 3] >> (7 - (bit & 7))) & 1)
            bit += 1
        if node < nodes + <uint64_t>SEPARATOR:
            return 0
        at = <uint64_t>node - nodes + self.tree_size
        return <uint32_t>at if at < self.data_end else 0

    def lookup_address(self, str address not None):
        """Offset of the record of an address in text form, 0 when there is none."""
        import ipaddress

        parsed = ipaddress.ip_address(address)
        cdef bytes packed = parsed.packed
        return self.lookup(<const uint8_t *><const char *>packed, parsed.version)

    def time_lookups(self, bytes addresses not None, int family, int rounds=1):
        """Nanoseconds per look-up over packed addresses, for the benchmark."""
        import time

        cdef uint32_t width = 4 if family == 4 else 16
        cdef uint32_t n = <uint32_t>len(addresses) // width
        cdef const uint8_t *p = <const uint8_t *><const char *>addresses
        cdef uint32_t i
        cdef uint64_t total = 0
        cdef int r
        if n == 0 or rounds < 1:
            raise ValueError("nothing to look up")
        start = time.perf_counter_ns()
        with nogil:
            for r in range(rounds):
                for i in range(n):
                    total += self.lookup(p + <uint64_t>i * width, family)
        return (time.perf_counter_ns() - start) / (<double>n * rounds), total

    @property
    def node_count(self):
        return self.nodes

"""Decoded packets as columns: fields of the Packet struct copied side by side, no object per packet."""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from netprobe._core.source cimport BATCH_PACKETS, Batch, PacketSource
from netprobe._core.decode cimport DecodeConfig, DecodeStats, decode_batch, free_hosts, set_hosts
from netprobe._core.packet cimport Packet
from netprobe._core.spread cimport Column, sift, spread

from netprobe._core.decode import CAUSES

cdef Packet _p
cdef size_t _base = <size_t>&_p


def _offsets():
    """Column -> (numpy type, bytes per row, offset in the struct)."""
    return {
        "ts": ("i8", 8, <size_t>&_p.ts - _base),
        "caplen": ("u4", 4, <size_t>&_p.caplen - _base),
        "wirelen": ("u4", 4, <size_t>&_p.wirelen - _base),
        "linktype": ("u2", 2, <size_t>&_p.linktype - _base),
        "interface": ("u4", 4, <size_t>&_p.interface - _base),
        "l3": ("u1", 1, <size_t>&_p.l3 - _base),
        "proto": ("u1", 1, <size_t>&_p.proto - _base),
        "l4": ("u1", 1, <size_t>&_p.l4 - _base),
        "src": ("16u1", 16, <size_t>&_p.src - _base),
        "dst": ("16u1", 16, <size_t>&_p.dst - _base),
        "sport": ("u2", 2, <size_t>&_p.sport - _base),
        "dport": ("u2", 2, <size_t>&_p.dport - _base),
        "tcp_flags": ("u1", 1, <size_t>&_p.tcp_flags - _base),
        "direction": ("u1", 1, <size_t>&_p.direction - _base),
        "flags": ("u2", 2, <size_t>&_p.flags - _base),
        "cause": ("u1", 1, <size_t>&_p.cause - _base),
        "vlan_count": ("u1", 1, <size_t>&_p.vlan_count - _base),
        "vlan_id": ("u2", 2, <size_t>&_p.vlan_id - _base),
        "ip_id": ("u2", 2, <size_t>&_p.ip_id - _base),
        "l3_off": ("u4", 4, <size_t>&_p.l3_off - _base),
        "l4_off": ("u4", 4, <size_t>&_p.l4_off - _base),
        "payload_off": ("u4", 4, <size_t>&_p.payload_off - _base),
        "payload_len": ("u4", 4, <size_t>&_p.payload_len - _base),
    }


COLUMNS = _offsets()

cdef class ColumnReader:
    """Fills writable buffers, one per column, from a capture."""
    cdef PacketSource reader
    cdef DecodeConfig config
    cdef Packet *packets
    cdef Batch batch
    cdef uint32_t used             # of the batch, handed out already
    cdef object compile_filter
    cdef dict programs
    cdef readonly unsigned long long rows

    def __cinit__(self, PacketSource reader not None, hosts=(), compile_filter=None, int inner=0):
        self.reader = reader
        self.compile_filter = compile_filter
        self.programs = {}
        self.packets = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
        self.config.inner = inner
        if self.packets == NULL:
            raise MemoryError
        set_hosts(&self.config, list(hosts))

    def __dealloc__(self):
        if self.reader is not None:
            self.reader.release(&self.batch)
        free(self.packets)
        free_hosts(&self.config)

    def fill(self, dict buffers, Py_ssize_t limit):
        """Write up to `limit` rows into {column: writable buffer}. Returns the rows; 0 at the end."""
        cdef Py_ssize_t done = 0
        cdef int n = <int>len(buffers)
        cdef Column *columns = <Column *>calloc(n + 1, sizeof(Column))
        cdef Py_buffer *views = <Py_buffer *>calloc(n + 1, sizeof(Py_buffer))
        cdef int held = 0
        cdef DecodeStats stats
        cdef uint32_t take
        cdef int i
        if columns == NULL or views == NULL:
            free(columns)
            free(views)
            raise MemoryError
        memset(&stats, 0, sizeof(stats))
        try:
            for name, buffer in buffers.items():
                _, size, offset = COLUMNS[name]
                PyObject_GetBuffer(buffer, &views[held], PyBUF_SIMPLE | PyBUF_WRITABLE)
                held += 1
                if views[held - 1].len < limit * <Py_ssize_t>size:
                    raise ValueError(f"the buffer of column {name} is too small for {limit} rows")
                columns[held - 1].data = <uint8_t *>views[held - 1].buf
                columns[held - 1].size = size
                columns[held - 1].offset = offset
            while done < limit:
                if self.used == self.batch.n:
                    self.reader.release(&self.batch)
                    self.used = 0
                    if self.reader.next_batch(&self.batch) == 0:
                        if self.reader.ended:
                            break
                        return done  # a silent pipe: let the caller look around
                    if self.compile_filter is not None:
                        sift(&self.batch, self.programs, self.compile_filter)
                    with nogil:
                        decode_batch(&self.config, self.batch.raw, self.batch.n, self.packets, &stats)
                take = self.batch.n - self.used
                if take > limit - done:
                    take = <uint32_t>(limit - done)
                with nogil:
                    for i in range(held):
                        spread(&columns[i], self.packets + self.used, sizeof(Packet), take, done)
                self.used += take
                done += take
            self.rows += done
            return done
        finally:
            for i in range(held):
                PyBuffer_Release(&views[i])
            free(columns)
            free(views)

    @property
    def at_end(self):
        return self.reader.ended != 0 and self.used == self.batch.n

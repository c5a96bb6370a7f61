"""Capture file framing: bytes from a descriptor in, batches of RawPacket out."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport RawPacket
# those who read files need no second import for these
from netprobe._core.source cimport (
    BATCH_PACKETS, END_CLEAN, END_CUT, END_DAMAGED, END_IO, END_NOT_YET, Batch, Block, PacketSource,
)

cdef extern from "poll.h":
    cdef struct pollfd:
        int fd
        short events
        short revents

cdef enum:
    BLOCK_BYTES = 393216         # recycled buffer; holds the longest record and stays in the L2 cache
    READ_BYTES = 131072          # asked of read(2) at once
    MAX_CAPLEN = 262144          # libpcap's MAXIMUM_SNAPLEN: a longer record is damage

cdef struct Interface:
    uint16_t linktype
    uint32_t snaplen
    uint64_t packets
    int64_t offset               # seconds added to each stamp
    uint64_t units               # stamp units per second; 0: a power of two, in `shift`
    uint8_t shift

cdef class CaptureReader(PacketSource):
    cdef int fd
    cdef object keep             # the source, so that its descriptor stays open
    cdef bytes prefix
    cdef const char *prefix_data
    cdef uint32_t prefix_len
    cdef uint32_t prefix_used
    cdef uint64_t skip_first     # bytes to pass over before the next record
    cdef int regular             # a plain file: read(2) never waits
    cdef pollfd waiting
    cdef Block *free_blocks
    cdef int lock
    cdef Block *block
    cdef uint32_t pos
    cdef uint32_t end
    cdef uint64_t consumed       # bytes framed so far
    cdef int eof
    cdef int format              # 0 unknown, 1 pcap, 2 pcapng
    cdef int swapped
    cdef int modified            # Kuznetzov record headers
    cdef int length_order        # version < 2.3: caplen and len swapped
    cdef uint64_t frac           # ns per sub-second unit of pcap
    cdef uint32_t frac_max       # the largest such part of a second
    cdef int major, minor        # version that nobody reads, where the file is refused for it, else -1
    cdef Interface *ifaces
    cdef uint32_t n_ifaces
    cdef uint32_t cap_ifaces
    cdef uint32_t section_base   # first interface of the present section
    cdef int64_t last_ts
    cdef uint64_t batches
    cdef uint64_t packets
    cdef uint64_t orphans        # packets of interfaces that were never described
    cdef int _need(self, uint32_t n) noexcept nogil
    cdef int _skip(self, uint64_t n) noexcept nogil
    cdef void _stop(self, int how) noexcept nogil
    cdef int _new_block(self) noexcept nogil
    cdef void _drop(self, Block *b) noexcept nogil
    cdef int _fill(self) noexcept nogil
    cdef int _start(self) noexcept nogil
    cdef int _pcap(self, Batch *b) noexcept nogil
    cdef int _pcapng(self, Batch *b) noexcept nogil
    cdef int _section(self) noexcept nogil
    cdef int _describe(self, uint32_t total) noexcept nogil
    cdef int _add_iface(self, uint16_t linktype, uint32_t snaplen) noexcept nogil

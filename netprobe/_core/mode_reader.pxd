"""What kprobe's dns and radius modes read: datagrams in, the few facts that are shipped out."""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netprobe._core.source cimport Batch, PacketSource
from netprobe._core.decode cimport DecodeConfig, DecodeStats
from netprobe._core.fragment cimport FragTable
from netprobe._core.packet cimport Packet, RawPacket
from netprobe._core.wire.dns_kprobe cimport DnsFull

cdef class ModeReader:
    cdef PacketSource reader
    cdef FragTable frags
    cdef DecodeConfig config
    cdef DecodeStats stats_
    cdef Batch batch
    cdef Packet *packets
    cdef uint32_t at             # packets[at:] of the batch are still to be read
    cdef uint8_t *rows           # what `read` returns
    cdef uint32_t used
    cdef uint32_t n_rows
    cdef DnsFull dns
    cdef uint8_t ports[8192]     # bit map of UDP ports: source ports of dns mode, destination ports of radius mode
    cdef int any_port
    cdef int radius
    cdef int mirrored
    cdef int ready
    cdef volatile int stopping
    cdef object compile_filter
    cdef uint32_t snaplen        # bytes of a packet that are looked at, once it has passed the filter; 0: all
    cdef dict programs
    cdef int64_t now             # ns, of the latest packet
    cdef uint64_t framed         # packets read
    cdef uint64_t kept           # ... that passed the filter
    cdef uint64_t other          # neither UDP nor of these ports
    cdef uint64_t cut            # the capture ends inside the message
    cdef uint64_t malformed
    cdef uint64_t useless        # queries, other codes, answers without an address, ...
    cdef uint64_t found
    cdef uint64_t fragments
    cdef uint64_t joined
    cdef int next_batch(self) except -1
    cdef void take(self, Packet *p) noexcept nogil
    cdef void take_mirrored(self, Packet *outer) noexcept nogil
    cdef void take_datagram(self, Packet *p) noexcept nogil
    cdef void put_dns(self, const Packet *p, const uint8_t *data, uint32_t n) noexcept nogil
    cdef void put_radius(self, const Packet *p, const uint8_t *data, uint32_t n) noexcept nogil

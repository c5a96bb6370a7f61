"""A capture through the flow table into columns of records."""
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from netprobe._core.app_flow cimport FlowApps
from netprobe._core.source cimport Batch, PacketSource
from netprobe._core.decode cimport DecodeConfig, DecodeStats
from netprobe._core.flow cimport FlowPacket, FlowRecord, FlowTable
from netprobe._core.fragment cimport FragTable
from netprobe._core.packet cimport Packet

cdef enum:
    STAGE_RECORDS = 128          # records between the table and the columns
    STAGE_ROOM = 8192            # ... when one packet completes many messages

cdef struct FlowStage:
    # FlowTable.ctx
    FlowRecord *records
    uint32_t n
    uint32_t used                # spread to columns already
    FlowApps *apps
    uint8_t *fields              # entries of the records that have application fields
    size_t fields_used

cdef struct Rewrite:
    # --translate: an address, and with a port only that one, becomes another
    uint8_t l3
    uint8_t old[16]
    uint8_t new[16]
    int32_t old_port             # -1: any, and ports stay
    int32_t new_port

cdef class FlowReader:
    cdef FlowTable table
    cdef FragTable frags
    cdef PacketSource reader
    cdef DecodeConfig config
    cdef DecodeStats stats_
    cdef Batch batch
    cdef Packet *packets
    cdef Packet *whole           # datagrams put together from this batch
    cdef FlowPacket *views
    cdef uint32_t n_views
    cdef uint32_t done_views
    cdef FlowStage stage
    cdef Rewrite *rewrites
    cdef uint32_t n_rewrites
    cdef int live                # time goes on without packets, by the wall clock
    cdef int stopping            # no more packets: flush
    cdef int closing             # the end was seen: connections are closed, then flows
    cdef int finished
    cdef int64_t newest          # ns: stamp of the latest packet
    cdef int ready               # tables were set up
    cdef object compile_filter
    cdef uint32_t snaplen        # bytes of a packet that are looked at, once it has passed the filter; 0: all
    cdef dict programs
    cdef uint64_t framed         # packets read from the file
    cdef uint64_t kept           # ... that passed the filter
    cdef uint64_t not_ip
    cdef uint64_t unreadable     # IP, but a header is cut off or contradicts itself
    cdef uint64_t fragments      # fed to reassembly
    cdef uint64_t joined         # of those, in datagrams that became whole
    cdef int next_views(self) except -1
    cdef void view_batch(self) noexcept nogil
    cdef void rewrite(self, FlowPacket *v, Packet *p) noexcept nogil
    cdef int pump(self) except -1
    cdef void empty_stage(self) noexcept nogil
    cdef int set_apps(self, decoders, int dns_port, list http, list radius, list postgres) except -1
    cdef int set_rewrites(self, list rules) except -1
    cdef dict decoder_stats(self)

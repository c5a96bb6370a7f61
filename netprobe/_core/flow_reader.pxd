"""A capture through the flow table into columns of records."""
from libc.stdint cimport uint32_t, uint64_t

from netprobe._core.source cimport Batch, PacketSource
from netprobe._core.decode cimport DecodeConfig, DecodeStats
from netprobe._core.flow cimport FlowPacket, FlowRecord, FlowTable
from netprobe._core.fragment cimport FragTable
from netprobe._core.packet cimport Packet

cdef enum:
    STAGE_RECORDS = 1024         # records between the table and the columns

cdef struct FlowStage:
    # FlowTable.ctx
    FlowRecord *records
    uint32_t n
    uint32_t used                # spread to columns already
    void *app                    # the decoders'

cdef class FlowReader:
    cdef FlowTable table         # set on_packet, classify, on_gone (and stage.app) before the first fill
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
    cdef int finished
    cdef int ready               # tables were set up
    cdef object compile_filter
    cdef dict programs
    cdef uint64_t framed         # packets read from the file
    cdef uint64_t kept           # ... that passed the filter
    cdef uint64_t not_ip
    cdef uint64_t unreadable     # IP, but a header is cut off or contradicts itself
    cdef uint64_t fragments      # fed to reassembly
    cdef uint64_t joined         # of those, in datagrams that became whole
    cdef int next_views(self) except -1
    cdef void view_batch(self) noexcept nogil
    cdef int pump(self) except -1

"""Decoders at work on a flow table: packets of classified flows in, records with application fields out."""
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.app cimport AppPorts, AppRecord
from netprobe._core.app_datagram cimport AppDatagrams
from netprobe._core.app_stream cimport AppStreams
from netprobe._core.flow cimport FlowPacket, FlowTable
from netprobe._core.packet cimport Packet

cdef struct AppEntry:
    # an AppRecord without its empty room; the texts follow, one after another
    uint32_t row                 # of the columns that it belongs to
    uint32_t size                # with texts, a multiple of 8
    uint16_t has                 # APP_*
    uint8_t app                  # APP_ID_*
    uint8_t addr_len
    uint32_t num[4]
    uint8_t addr[3][16]
    uint16_t text_len[4]

cdef enum:
    ENTRY_MAX = 4 * 384 + 128    # most bytes of an entry

cdef struct Note:
    # what a TLS connection told; the cells of both directions point to it by number
    uint32_t refs                # 0: free, and `next` is the next free one
    uint32_t next
    AppEntry entry               # its text behind it in the same block

cdef struct FlowApps:
    # FlowStage.app
    AppPorts ports
    uint32_t decoders            # 1 << APP_ID_* of those that run
    uint8_t whole_only           # packets cut by the snap length are not decoded (spec 3.9)
    uint8_t ready                # what the decoders need is there
    AppDatagrams datagrams
    AppStreams streams
    AppRecord record             # of a datagram
    FlowTable *table
    Packet packet                # of one that was seen without being decoded
    const FlowPacket *at_hand    # the packet that is being decoded
    Note **notes                 # [0] is not used: FlowCell.app_state 0 is "none"
    uint32_t n_notes
    uint32_t cap_notes
    uint32_t free_note
    uint64_t note_bytes
    uint32_t room                # messages that may still be reported before the caller empties its stage
    int64_t swept                # ns: when expired requests were last looked for
    # counters
    uint64_t cut                 # packets not decoded: the capture does not hold all of them
    uint64_t unreported          # messages for which there was no room
    uint64_t homeless            # messages whose flow was gone
    uint64_t notes_dropped       # TLS connections whose names found no memory

cdef int apps_init(FlowApps *a, FlowTable *t, uint32_t streams) noexcept nogil       # -1: no memory
cdef void apps_free(FlowApps *a) noexcept nogil
# FlowTable's callbacks; `a` is the FlowApps
cdef uint8_t apps_classify(FlowApps *a, const FlowPacket *v) noexcept nogil
cdef void apps_packet(FlowApps *a, FlowTable *t, const FlowPacket *v) noexcept nogil
cdef void apps_ahead(FlowApps *a, FlowPacket *v, int step) noexcept nogil
cdef void apps_gone(FlowApps *a, uint32_t app_state) noexcept nogil
# forget what has waited too long; cheap, once a batch
cdef void apps_tick(FlowApps *a, int64_t now) noexcept nogil
# the end of the capture: what connections still hold
cdef void apps_finish(FlowApps *a, int64_t now) noexcept nogil
# what is known of a cell without a message; NULL: nothing
cdef const AppEntry *apps_note(FlowApps *a, uint32_t cell) noexcept nogil
# bytes written, at most ENTRY_MAX
cdef uint32_t entry_pack(AppEntry *out, const AppRecord *r) noexcept nogil

cdef class AppRows:
    """The application fields of a batch of flow records: only the rows that have any."""
    cdef uint8_t *data
    cdef size_t used
    cdef size_t cap
    cdef readonly uint32_t count     # rows with fields
    cdef uint32_t seen[16]           # by APP_ID_*: AppEntry.has of all of them
    cdef int add(self, const AppEntry *e, uint32_t row) noexcept nogil
    cdef void numbers(self, int app, int slot, uint32_t rows, int64_t *out, uint8_t *present) noexcept
    cdef size_t texts(self, int app, int slot, uint32_t rows, bint address, bint binary, uint8_t *out,
                      int32_t *offsets, uint8_t *present) noexcept

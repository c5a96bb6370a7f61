"""Decoders of TCP connections: a stream table whose connections are read by port as HTTP, TLS or PostgreSQL."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.app cimport AppPorts, AppRecord
from netprobe._core.packet cimport Packet
from netprobe._core.stream cimport Stream, StreamTable

# `side` sent the message that the record is about; `pkt` is the packet that completed it, always of that side, and
# synthetic (PF_SYNTHETIC, without data) when the other side's packet or the end of the connection let it go.
ctypedef void (*app_fn)(void *ctx, Stream *s, int side, const AppRecord *r, const Packet *pkt) noexcept nogil

# what `side` sends is of no interest until it sends a SYN: whoever feeds may leave it out
ctypedef void (*deaf_fn)(void *ctx, Stream *s, int side) noexcept nogil

cdef enum:
    APP_STREAM_IDLE = 60     # s: a connection without packets for so long is closed

cdef struct AppStreams:
    StreamTable table        # with its counters: opened, evicted, idle_closed, lost_bytes ...
    const AppPorts *ports    # the caller's, must outlive this
    app_fn on_record
    deaf_fn on_deaf          # NULL, or set after app_streams_init
    void *ctx
    uint8_t syn_only         # after app_streams_init: connections whose beginning was not seen are not read
    uint32_t finished        # number + 1 of a stream of which neither side is read
    AppRecord record         # the one at hand
    # counters, by APP_ID_*
    uint64_t messages[16]    # records given
    uint64_t unpaired[16]    # responses whose request was not seen
    uint64_t errors[16]      # sides given up: another protocol or malformed
    uint64_t lost[16]        # sides given up because bytes are missing
    uint64_t room[16]        # sides given up because their buffer was full
    uint64_t unanswered[16]  # requests without a response when their connection ended
    uint64_t no_syn          # connections ignored because their beginning was not seen

# limit: most connections at once, 0 = as many as the stream table allows; -1 without memory
cdef int app_streams_init(AppStreams *a, const AppPorts *ports, uint32_t limit, app_fn fn, void *ctx) noexcept nogil
cdef void app_streams_free(AppStreams *a) noexcept nogil
# a TCP packet of a connection that app_classify gives to one of these decoders; all its packets, in order of capture
cdef void app_streams_feed(AppStreams *a, const Packet *p) noexcept nogil
cdef void app_streams_finish(AppStreams *a, int64_t ts) noexcept nogil     # end of input

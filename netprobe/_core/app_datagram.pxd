"""Decoders of datagrams: DNS, DHCP, RADIUS. One datagram, at most one record."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.app cimport AppRecord
from netprobe._core.packet cimport Packet
from netprobe._core.wire.dns_kprobe cimport DnsFull
from netprobe._core.xact cimport XactTable

cdef enum:
    APP_OPEN_LG = 18         # default: 262144 open requests, all protocols
    APP_RECORD = 1
    APP_NOTHING = 0
    APP_MALFORMED = -1

cdef struct AppDatagrams:
    XactTable open           # requests that wait for their reply, 60 s
    uint16_t dns_port
    DnsFull dns              # of the last DNS datagram
    # counters
    uint64_t messages[16]    # by APP_ID_*: parsed
    uint64_t malformed[16]   # dropped: cut off or invalid
    uint64_t unmatched[16]   # replies whose request was not seen (or expired)
    uint64_t expired         # requests without a reply, forgotten after their time

# lg_open: log2 of the most open requests, 0 = APP_OPEN_LG; `open.evicted` counts those thrown out for room
cdef void app_datagrams_init(AppDatagrams *a, int lg_open, uint16_t dns_port) noexcept nogil
cdef void app_datagrams_free(AppDatagrams *a) noexcept nogil
# app: APP_ID_DNS, APP_ID_DHCP or APP_ID_RADIUS; `p` gives time, addresses and ports. APP_RECORD fills `out`, which
# belongs to the packet's own direction.
cdef int app_datagram(AppDatagrams *a, int app, const uint8_t *data, uint32_t n, const Packet *p,
                      AppRecord *out) noexcept nogil
# forget requests of a minute ago; call it now and then (at compaction)
cdef void app_datagrams_expire(AppDatagrams *a, int64_t now) noexcept nogil

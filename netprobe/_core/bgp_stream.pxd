"""BGP messages out of a TCP stream of port 179."""
from libc.stdint cimport uint8_t, uint32_t

from netprobe._core.stream cimport Stream

# kind: the message's type, 0 for a place where no message could be read; length: header included, 0 then
ctypedef void (*bgp_message_fn)(void *ctx, Stream *s, int side, int kind, uint32_t length) noexcept nogil

# For a table's on_segment: data == NULL stands for n lost bytes. Calls fn once per complete message, on the segment
# that completes it. Returns how many messages it told.
cdef int bgp_stream_segment(Stream *s, int side, const uint8_t *data, uint32_t n, bgp_message_fn fn,
                            void *ctx) noexcept nogil

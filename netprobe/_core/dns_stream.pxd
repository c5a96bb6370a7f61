"""DNS messages out of TCP streams: two bytes of length before each (RFC 1035 4.2.2, RFC 7766)."""
from libc.stdint cimport uint8_t, uint32_t

from netprobe._core.stream cimport Stream

cdef enum:
    DNS_STREAM_SMALLEST = 17       # a message announced shorter than this is no DNS
    DNS_STREAM_BUFFER = 65537      # length and the longest message
    # StreamSide.state
    DNS_SIDE_OPEN = 0
    DNS_SIDE_NOT_DNS = 1           # gave an impossible length: ignored from then on
    DNS_SIDE_LOST = 2              # bytes are missing, message borders unknown: ignored from then on
    DNS_SIDE_NO_MEMORY = 3
    DNS_SIDE_SKIP = 0x10000        # and how many bytes of a message are passed over, whose middle was missing

# msg is valid during the call only, its length stands in the two bytes before it; n is less where the rest is missing
ctypedef void (*dns_message_fn)(void *ctx, Stream *s, int side, const uint8_t *msg, uint32_t n) noexcept nogil

# Takes one in-order segment (data NULL: n bytes are missing). Calls fn for each message it completes.
# Returns 0, or the DNS_SIDE_* for which this very call gave the side up (once per side: count it).
cdef int dns_stream_segment(Stream *s, int side, const uint8_t *data, uint32_t n, dns_message_fn fn,
                            void *ctx) noexcept nogil
# bytes that wait for the rest of their message (at the end of a stream: a cut message)
cdef inline uint32_t dns_stream_pending(const Stream *s, int side) noexcept nogil:
    return s.side[side].len

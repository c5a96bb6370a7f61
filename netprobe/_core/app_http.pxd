"""HTTP/1.x on one connection: requests, responses and which belong together (kprobe spec 6.1).

What is kept lives in the two sides' StreamSide.buf, so it is bounded, counted and freed by the stream table.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from netprobe._core.app cimport AppRecord
from netprobe._core.stream cimport Stream

cdef enum:
    HTTP_HEADER_MAX = 81920      # bytes of start line and header fields of one message
    HTTP_BUFFER = 262144         # a side's buffer: requests without an answer, the header line at hand

cdef enum:
    # results of http_step and http_end
    HTTP_MORE = 0                # all was taken
    HTTP_MESSAGE = 1             # a message is complete and `out` holds it: call again with the rest
    HTTP_UNPAIRED = 2            # a response is complete whose request was not seen: call again with the rest
    HTTP_GONE = 3                # this side is not read (any more)
    # this side was given up by this very call: count it
    HTTP_ERROR = -1              # it is no HTTP
    HTTP_LOST = -2               # bytes are missing, message borders unknown
    HTTP_ROOM = -3               # no room in its buffer

# One in-order segment from `side` (data[0] NULL: n[0] bytes are missing), as far as the first message that it
# completes; data and n move on. `server`: the side that answers. The record belongs to `side`.
cdef int http_step(Stream *s, int side, int server, const uint8_t **data, uint32_t *n, int64_t ts,
                   AppRecord *out) noexcept nogil
# the side's FIN, which ends a response without a length
cdef int http_end(Stream *s, int side, int server, int64_t ts, AppRecord *out) noexcept nogil
# requests complete and not answered yet
cdef uint32_t http_waiting(const Stream *s, int server) noexcept nogil

"""TLS on one connection: the two hellos, wherever records and segments cut them (kprobe spec 6.4)."""
from libc.stdint cimport int64_t, uint8_t, uint32_t

from netprobe._core.app cimport AppRecord
from netprobe._core.stream cimport Stream

cdef enum:
    TLS_PENDING_MAX = 8192   # bytes of an unfinished hello

cdef enum:
    # results of tls_step
    TLS_MORE = 0
    TLS_KNOWN = 1            # `out` holds what this side's hello told; the side is not read any more
    TLS_GONE = 3             # not read (any more)
    # this side was given up by this very call: count it
    TLS_ERROR = -1           # it is no TLS
    TLS_LOST = -2            # bytes are missing
    TLS_ROOM = -3            # the hello is longer than TLS_PENDING_MAX, or no memory

# One in-order segment from `side` (data NULL: n bytes are missing). Which side is the client is told by the hellos.
cdef int tls_step(Stream *s, int side, const uint8_t *data, uint32_t n, int64_t ts, AppRecord *out) noexcept nogil

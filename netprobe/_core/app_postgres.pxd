"""PostgreSQL on one connection: log-in and queries, each with its statement, result and time. Beyond the kprobe spec.

One record of the server for the log-in (no statement), and one for each ReadyForQuery after a query or a Sync.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t

from netprobe._core.app cimport AppRecord
from netprobe._core.stream cimport Stream

cdef enum:
    PG_BUFFER = 262144       # a side's buffer: statements without a result, the message at hand
    PG_KEEP = 1024           # bytes of a message's body that are looked at

cdef enum:
    # results of pg_step
    PG_MORE = 0              # all was taken
    PG_RECORD = 1            # `out` holds a record of `side`: call again with the rest
    PG_GONE = 3              # not read (any more): encrypted, or given up
    # this side was given up by this very call: count it
    PG_ERROR = -1            # it is no PostgreSQL
    PG_LOST = -2             # bytes are missing
    PG_ROOM = -3             # no room in its buffer

# as http_step
cdef int pg_step(Stream *s, int side, int server, const uint8_t **data, uint32_t *n, int64_t ts,
                 AppRecord *out) noexcept nogil
# queries without a result
cdef uint32_t pg_waiting(const Stream *s, int server) noexcept nogil

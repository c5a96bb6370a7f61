"""PostgreSQL's frontend/backend protocol 3 (https://www.postgresql.org/docs/current/protocol-message-formats.html).

Beyond the kprobe spec, which has no PostgreSQL columns (6.6): for flows in a notebook.
"""
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    PG_OK = 0
    PG_BAD = -1

cdef enum:
    PG_START_HEAD = 8        # of a message without a type: length, code
    PG_HEAD = 5              # of any other: type, length
    PG_START_MAX = 10000     # as the server itself limits it
    PG_MESSAGE_MAX = 0x40000000
    # PgStart.kind
    PG_STARTUP = 0
    PG_SSL = 1               # wants encryption: answered with one byte
    PG_GSS = 2
    PG_CANCEL = 3            # not answered

cdef struct PgStart:
    uint8_t kind
    uint32_t length          # whole message
    uint32_t user            # offset and length in the whole message; length 0: none
    uint32_t user_len
    uint32_t database
    uint32_t database_len

# the first PG_START_HEAD bytes: kind and length
cdef int pg_start_head(const uint8_t *data, PgStart *out) noexcept nogil
# a whole message: its parameters as well
cdef int pg_start(const uint8_t *data, uint32_t n, PgStart *out) noexcept nogil
# the first PG_HEAD bytes of another message: length behind the type (itself included)
cdef int pg_head(const uint8_t *data, uint32_t *length) noexcept nogil
# the SQLSTATE of an ErrorResponse's body: offset of its five characters, 0 without
cdef uint32_t pg_sqlstate(const uint8_t *data, uint32_t n) noexcept nogil
# the rows that a CommandComplete's body tells: the last number of its tag, 0 without
cdef uint32_t pg_rows(const uint8_t *data, uint32_t n) noexcept nogil
# length of the text that begins at `at` and ends with a NUL; n - at when it does not
cdef uint32_t pg_text(const uint8_t *data, uint32_t n, uint32_t at) noexcept nogil

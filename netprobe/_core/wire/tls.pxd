"""TLS records and the two hello messages (RFC 8446 4.1, 5.1; RFC 6066 3), as far as kprobe looks (spec 6.4)."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    TLS_OK = 0
    TLS_BAD = -1

cdef enum:
    TLS_RECORD_HEAD = 5
    TLS_RECORD_MAX = 18432   # bytes of a record's body: 2^14 and 2048 for ciphers
    TLS_HANDSHAKE_HEAD = 4
    TLS_CHANGE_CIPHER = 20   # record types
    TLS_ALERT = 21
    TLS_HANDSHAKE = 22
    TLS_DATA = 23
    TLS_HEARTBEAT = 24
    TLS_CLIENT_HELLO = 1     # handshake messages
    TLS_SERVER_HELLO = 2
    TLS_VERSION_1_0 = 0x0301

cdef struct TlsRecord:
    uint8_t type
    uint16_t version
    uint32_t length          # of the body

cdef struct TlsHello:
    uint16_t version         # legacy_version: 0x0303 for TLS 1.3 as well
    uint16_t cipher          # server hello
    uint32_t name            # client hello: offset and length of the host name; length 0: none
    uint32_t name_len

# does a hello begin here? 1: the client's, 2: the server's, 0: neither, as far as n bytes tell
cdef int tls_begins(const uint8_t *data, uint32_t n) noexcept nogil
# data has TLS_RECORD_HEAD bytes
cdef int tls_record(const uint8_t *data, TlsRecord *out) noexcept nogil
# the body of a handshake message, exactly n bytes; extensions may be absent
cdef int tls_client_hello(const uint8_t *data, uint32_t n, TlsHello *out) noexcept nogil
cdef int tls_server_hello(const uint8_t *data, uint32_t n, TlsHello *out) noexcept nogil

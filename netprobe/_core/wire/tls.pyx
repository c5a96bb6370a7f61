"""TLS: record headers, client hello (server name), server hello (version, cipher suite)."""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from netprobe._core.wire.be cimport be16
from netprobe._core.wire.text cimport text_has_nul, utf8_valid

cdef enum:
    # record
    OFF_TYPE = 0
    OFF_VERSION = 1
    OFF_LENGTH = 3
    # hello: version, random, session id
    HELLO_VERSION = 0
    HELLO_SESSION = 34
    SESSION_MAX = 32
    # extension: type, length
    EXTENSION_HEAD = 4
    SERVER_NAME = 0
    # server name list: length; then entries of type, length, name
    NAME_HEAD = 3
    HOST_NAME = 0


cdef int tls_record(const uint8_t *data, TlsRecord *out) noexcept nogil:
    out.type = data[OFF_TYPE]
    out.version = be16(data + OFF_VERSION)
    out.length = be16(data + OFF_LENGTH)
    if out.type < TLS_CHANGE_CIPHER or out.type > TLS_HEARTBEAT or out.length > TLS_RECORD_MAX:
        return TLS_BAD
    # above SSL 3.0 all versions so far begin with 3
    return TLS_OK if out.version < TLS_VERSION_1_0 or out.version >> 8 == 3 else TLS_BAD


cdef int tls_begins(const uint8_t *data, uint32_t n) noexcept nogil:
    cdef TlsRecord r
    if n <= TLS_RECORD_HEAD or tls_record(data, &r) != TLS_OK or r.type != TLS_HANDSHAKE or r.version >> 8 != 3:
        return 0
    if data[TLS_RECORD_HEAD] == TLS_CLIENT_HELLO:
        return 1
    return 2 if data[TLS_RECORD_HEAD] == TLS_SERVER_HELLO else 0


cdef uint32_t opening(const uint8_t *data, uint32_t n, TlsHello *out) noexcept nogil:
    """Version, random and session id; the offset behind them, 0 when they do not fit."""
    memset(out, 0, sizeof(TlsHello))
    if n <= HELLO_SESSION:
        return 0
    out.version = be16(data + HELLO_VERSION)
    if data[HELLO_SESSION] > SESSION_MAX or data[HELLO_SESSION] > n - HELLO_SESSION - 1:
        return 0
    return HELLO_SESSION + 1 + data[HELLO_SESSION]


cdef int host_name(const uint8_t *data, uint32_t n, uint32_t at, uint32_t end, TlsHello *out) noexcept nogil:
    """The first host name of a server-name extension that stands from at to end."""
    cdef uint32_t length
    if end - at < 2 or be16(data + at) > end - at - 2:
        return TLS_BAD
    end = at + 2 + be16(data + at)
    at += 2
    while at < end:
        if end - at < NAME_HEAD:
            return TLS_BAD
        length = be16(data + at + 1)
        if length > end - at - NAME_HEAD:
            return TLS_BAD
        if data[at] == HOST_NAME:
            at += NAME_HEAD
            if not text_has_nul(data + at, length) and utf8_valid(data + at, length):
                out.name = at
                out.name_len = length
            return TLS_OK
        at += NAME_HEAD + length
    return TLS_OK


cdef int tls_client_hello(const uint8_t *data, uint32_t n, TlsHello *out) noexcept nogil:
    cdef uint32_t at = opening(data, n, out), length, end
    cdef bint seen = False
    # cipher suites, compression methods
    if at == 0 or n - at < 2 or be16(data + at) > n - at - 2:
        return TLS_BAD
    at += 2 + be16(data + at)
    if n == at or data[at] > n - at - 1:
        return TLS_BAD
    at += 1 + data[at]
    if at == n:
        return TLS_OK
    if n - at < 2 or be16(data + at) > n - at - 2:
        return TLS_BAD
    end = at + 2 + be16(data + at)
    at += 2
    while at < end:
        if end - at < EXTENSION_HEAD:
            return TLS_BAD
        length = be16(data + at + 2)
        if length > end - at - EXTENSION_HEAD:
            return TLS_BAD
        if be16(data + at) == SERVER_NAME and not seen:
            seen = True
            if host_name(data, n, at + EXTENSION_HEAD, at + EXTENSION_HEAD + length, out) != TLS_OK:
                return TLS_BAD
        at += EXTENSION_HEAD + length
    return TLS_OK


cdef int tls_server_hello(const uint8_t *data, uint32_t n, TlsHello *out) noexcept nogil:
    cdef uint32_t at = opening(data, n, out)
    # cipher suite, compression method; extensions say nothing that is shown
    if at == 0 or n - at < 3:
        return TLS_BAD
    out.cipher = be16(data + at)
    return TLS_OK


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

def record(bytes data):
    """(type, version, length), or None."""
    cdef TlsRecord r
    if len(data) < TLS_RECORD_HEAD or tls_record(<const uint8_t *><const char *>data, &r) != TLS_OK:
        return None
    return r.type, r.version, r.length


def client_hello(bytes body):
    """(legacy version, server name or None), or None when malformed. `body`: without the handshake header."""
    cdef TlsHello h
    if tls_client_hello(<const uint8_t *><const char *>body, <uint32_t>len(body), &h) != TLS_OK:
        return None
    return h.version, body[h.name:h.name + h.name_len] if h.name_len else None


def server_hello(bytes body):
    """(legacy version, cipher suite), or None when malformed."""
    cdef TlsHello h
    if tls_server_hello(<const uint8_t *><const char *>body, <uint32_t>len(body), &h) != TLS_OK:
        return None
    return h.version, h.cipher

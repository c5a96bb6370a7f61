"""Handshake bytes of a side are taken out of its records until its hello is whole; then it is done.

A side's buffer holds a Side, and behind it the handshake message at hand, as far as it came.
"""
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memset

from netprobe._core.app cimport APP_ID_TLS, app_num, app_record, app_text
from netprobe._core.stream cimport StreamSide, side_append, side_consume
from netprobe._core.wire.tls cimport (
    TLS_BAD, TLS_CHANGE_CIPHER, TLS_CLIENT_HELLO, TLS_DATA, TLS_HANDSHAKE, TLS_HANDSHAKE_HEAD, TLS_OK,
    TLS_RECORD_HEAD, TLS_SERVER_HELLO, TLS_VERSION_1_0, TlsHello, TlsRecord, tls_client_hello, tls_record,
    tls_server_hello,
)

cdef enum:
    # StreamSide.state
    RUNNING = 0
    DONE = 1

cdef struct Side:
    uint32_t left            # bytes of the record's body still to come
    uint32_t skip            # bytes of a handshake message that is of no interest, still to come
    uint8_t type             # of the record
    uint8_t n_head           # bytes of `head` filled
    uint8_t head[6]          # a record's header that was cut


cdef inline Side *side_of(StreamSide *d) noexcept nogil:
    return <Side *>d.buf


cdef int done(StreamSide *d, int why) noexcept nogil:
    side_consume(d, d.len)
    d.state = DONE
    return why


cdef int hello(StreamSide *d, int kind, const uint8_t *body, uint32_t n, int64_t ts, AppRecord *out) noexcept nogil:
    cdef TlsHello h
    app_record(out, APP_ID_TLS, ts)
    if kind == TLS_CLIENT_HELLO:
        if tls_client_hello(body, n, &h) != TLS_OK:
            return TLS_ERROR
        if h.name_len:
            app_text(out, 0, body + h.name, h.name_len)
    else:
        if tls_server_hello(body, n, &h) != TLS_OK:
            return TLS_ERROR
        app_num(out, 0, h.version)
        app_num(out, 1, h.cipher)
    return TLS_KNOWN


cdef int handshake(StreamSide *d, const uint8_t *data, uint32_t n, int64_t ts, AppRecord *out) noexcept nogil:
    """Bytes of handshake messages, in order."""
    cdef Side *h
    cdef uint32_t take, kept, length
    cdef const uint8_t *message
    while n:
        h = side_of(d)
        if h.skip:
            take = n if n < h.skip else h.skip
            h.skip -= take
            data += take
            n -= take
            continue
        kept = d.len - <uint32_t>sizeof(Side)
        # the header of the message first, then what it promises
        take = TLS_HANDSHAKE_HEAD
        if kept >= TLS_HANDSHAKE_HEAD:
            message = d.buf + sizeof(Side)
            take += (<uint32_t>message[1] << 16) | (<uint32_t>message[2] << 8) | message[3]
        take -= kept
        if take > n:
            take = n
        if side_append(d, data, take, TLS_PENDING_MAX + <uint32_t>sizeof(Side)) < 0:
            return TLS_ROOM
        data += take
        n -= take
        kept += take
        if kept < TLS_HANDSHAKE_HEAD:
            break
        message = d.buf + sizeof(Side)
        length = (<uint32_t>message[1] << 16) | (<uint32_t>message[2] << 8) | message[3]
        if message[0] != TLS_CLIENT_HELLO and message[0] != TLS_SERVER_HELLO:
            # something else before the hello (a hello request): not kept
            side_of(d).skip = length
            d.len = <uint32_t>sizeof(Side)
        elif kept == TLS_HANDSHAKE_HEAD + length:
            return hello(d, message[0], message + TLS_HANDSHAKE_HEAD, length, ts, out)
        elif length > TLS_PENDING_MAX - TLS_HANDSHAKE_HEAD:
            return TLS_ROOM
    return TLS_MORE


cdef int tls_step(Stream *s, int side, const uint8_t *data, uint32_t n, int64_t ts, AppRecord *out) noexcept nogil:
    cdef StreamSide *d = &s.side[side]
    cdef Side fresh
    cdef Side *h
    cdef TlsRecord r
    cdef uint32_t take
    cdef int what
    if d.state != RUNNING:
        return TLS_GONE
    if data == NULL:
        return done(d, TLS_LOST) if n else TLS_MORE
    if d.len == 0:
        memset(&fresh, 0, sizeof(fresh))
        if side_append(d, <const uint8_t *>&fresh, <uint32_t>sizeof(Side), TLS_PENDING_MAX) < 0:
            return done(d, TLS_ROOM)
    while n:
        h = side_of(d)
        if h.left == 0:
            while n and h.n_head < TLS_RECORD_HEAD:
                h.head[h.n_head] = data[0]
                h.n_head += 1
                data += 1
                n -= 1
            if h.n_head < TLS_RECORD_HEAD:
                break
            h.n_head = 0
            if tls_record(h.head, &r) == TLS_BAD:
                return done(d, TLS_ERROR)
            if r.version < TLS_VERSION_1_0:
                # SSL 3.0 or older: that is all there is to say
                app_record(out, APP_ID_TLS, ts)
                app_num(out, 0, r.version)
                return done(d, TLS_KNOWN)
            if r.type == TLS_CHANGE_CIPHER or r.type == TLS_DATA:
                # what follows is encrypted, and the hello has not been there
                return done(d, TLS_ERROR)
            h.type = r.type
            h.left = r.length
            continue
        take = n if n < h.left else h.left
        h.left -= take
        if h.type == TLS_HANDSHAKE:
            what = handshake(d, data, take, ts, out)
            if what != TLS_MORE:
                return done(d, what)
        data += take
        n -= take
    return TLS_MORE

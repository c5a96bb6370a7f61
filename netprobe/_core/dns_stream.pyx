"""Framing of DNS over TCP. Whole messages are handed on where they lie; only broken ones are copied."""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from netprobe._core.stream cimport Stream, StreamSide, side_append, side_consume

cdef enum:
    LENGTH_BYTES = 2
    DNS_HEADER = 12


cdef int give_up(StreamSide *st, int why) noexcept nogil:
    # the buffer goes at once: the connection may live on for long
    side_consume(st, st.len)
    st.state = why
    return why


cdef int missing(Stream *s, int side, uint32_t n, dns_message_fn fn, void *ctx) noexcept nogil:
    """A gap. Inside of a message whose length and header came before, that one is told as far as it came."""
    cdef StreamSide *st = &s.side[side]
    cdef uint32_t left
    if st.len < LENGTH_BYTES:
        return give_up(st, DNS_SIDE_LOST)
    left = LENGTH_BYTES + ((<uint32_t>st.buf[0] << 8) | st.buf[1]) - st.len
    if st.len >= LENGTH_BYTES + DNS_HEADER:
        fn(ctx, s, side, st.buf + LENGTH_BYTES, st.len - LENGTH_BYTES)
    if n > left:
        return give_up(st, DNS_SIDE_LOST)
    side_consume(st, st.len)
    if n < left:
        st.state = DNS_SIDE_SKIP + left - n
    return 0


cdef int dns_stream_segment(Stream *s, int side, const uint8_t *data, uint32_t n, dns_message_fn fn,
                            void *ctx) noexcept nogil:
    cdef StreamSide *st = &s.side[side]
    cdef uint32_t length, take
    if st.state & DNS_SIDE_SKIP:
        take = st.state - DNS_SIDE_SKIP
        if n < take:
            st.state -= n
            return 0
        st.state = DNS_SIDE_OPEN
        n -= take
        if data != NULL:
            data += take
    if st.state != DNS_SIDE_OPEN:
        return 0
    if data == NULL:
        return missing(s, side, n, fn, ctx) if n else 0
    while st.len and n:
        # first the length, then as much of the message as is missing
        if st.len < LENGTH_BYTES:
            take = LENGTH_BYTES - st.len
        else:
            take = LENGTH_BYTES + ((<uint32_t>st.buf[0] << 8) | st.buf[1]) - st.len
        if take > n:
            take = n
        if side_append(st, data, take, DNS_STREAM_BUFFER) < 0:
            return give_up(st, DNS_SIDE_NO_MEMORY)
        data += take
        n -= take
        if st.len < LENGTH_BYTES:
            return 0
        length = (<uint32_t>st.buf[0] << 8) | st.buf[1]
        if length < DNS_STREAM_SMALLEST:
            return give_up(st, DNS_SIDE_NOT_DNS)
        if st.len == LENGTH_BYTES + length:
            fn(ctx, s, side, st.buf + LENGTH_BYTES, length)
            side_consume(st, st.len)
    while n >= LENGTH_BYTES:
        length = (<uint32_t>data[0] << 8) | data[1]
        if length < DNS_STREAM_SMALLEST:
            return give_up(st, DNS_SIDE_NOT_DNS)
        if n < LENGTH_BYTES + length:
            break
        fn(ctx, s, side, data + LENGTH_BYTES, length)
        data += LENGTH_BYTES + length
        n -= LENGTH_BYTES + length
    if n and side_append(st, data, n, DNS_STREAM_BUFFER) < 0:
        return give_up(st, DNS_SIDE_NO_MEMORY)
    return 0


cdef void collect(void *ctx, Stream *s, int side, const uint8_t *msg, uint32_t n) noexcept nogil:
    with gil:
        (<list>ctx).append((side, msg[:n]))


def _split(segments):
    """Feed (side, bytes or missing count) segments; messages as (side, bytes), given up as (index, why),
    waiting bytes per side. For tests."""
    cdef Stream s
    cdef int why
    cdef bytes data
    messages = []
    given_up = []
    memset(&s, 0, sizeof(s))
    for index, (side, part) in enumerate(segments):
        if isinstance(part, int):
            why = dns_stream_segment(&s, side, NULL, part, collect, <void *>messages)
        else:
            data = part
            why = dns_stream_segment(&s, side, <const uint8_t *>data, <uint32_t>len(data), collect, <void *>messages)
        if why:
            given_up.append((index, why))
    waiting = (dns_stream_pending(&s, 0), dns_stream_pending(&s, 1))
    side_consume(&s.side[0], s.side[0].len)
    side_consume(&s.side[1], s.side[1].len)
    return messages, given_up, waiting

"""Framing of BGP: one event per message, wherever TCP cut it; bodies are skipped, never kept.

What a side keeps between segments is at most one header in StreamSide.buf, and in StreamSide.state how many bytes
of the message are still to come, or, while searching, how many 0xff bytes have just been seen.
"""
from libc.string cimport memcpy, memset

from netprobe._core.stream cimport StreamSide, side_append, side_consume
from netprobe._core.wire.bgp cimport BGP_HEADER, BGP_MARKER, BgpHeader, bgp_header, bgp_plausible

cdef enum:
    LOST = 0x40000000        # searching for a marker; no more is told until it is found
    FOUND = 0x20000000       # a marker was found by searching: its header must be plausible
    COUNT = 0x000fffff

cdef const uint8_t *ONES = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"


cdef inline void search(StreamSide *d) noexcept nogil:
    side_consume(d, d.len)
    d.state = LOST


cdef int lost_bytes(Stream *s, int side, uint32_t n, bgp_message_fn fn, void *ctx) noexcept nogil:
    """A gap. Inside the body of a known message it does no harm; otherwise the next marker must be found."""
    cdef StreamSide *d = &s.side[side]
    cdef uint32_t missing = d.state & COUNT
    cdef BgpHeader h
    if n == 0:
        return 0
    if not d.state & LOST and d.len == BGP_HEADER:
        if n < missing:
            d.state -= n
            return 0
        # its header was there, so the message is known though its end is not
        bgp_header(d.buf, &h)
        side_consume(d, d.len)
        if n == missing:
            d.state = 0
        else:
            search(d)
        fn(ctx, s, side, h.type, h.length)
        return 1
    search(d)
    return 0


cdef int bgp_stream_segment(Stream *s, int side, const uint8_t *data, uint32_t n, bgp_message_fn fn,
                            void *ctx) noexcept nogil:
    cdef StreamSide *d = &s.side[side]
    cdef const uint8_t *at
    cdef BgpHeader h
    cdef uint8_t[BGP_HEADER] again
    cdef uint32_t take, run
    cdef int told = 0
    if data == NULL:
        return lost_bytes(s, side, n, fn, ctx)
    while n:
        if d.state & LOST:
            run = d.state & COUNT
            while n and data[0] == 0xff:
                data += 1
                n -= 1
                if run < BGP_MARKER:
                    run += 1
            if n == 0:
                d.state = LOST | run
                return told
            if run < BGP_MARKER:
                run = 0
                while n and data[0] != 0xff:
                    data += 1
                    n -= 1
                d.state = LOST
                continue
            # the last 16 of the ones are a marker
            if side_append(d, ONES, BGP_MARKER, BGP_HEADER) < 0:
                d.state = LOST
                data += 1
                n -= 1
                continue
            d.state = FOUND
        if d.len == BGP_HEADER:
            # inside a message whose header came before
            take = d.state & COUNT
            if take > n:
                d.state -= n
                return told
            data += take
            n -= take
            bgp_header(d.buf, &h)
            side_consume(d, d.len)
            d.state = 0
            fn(ctx, s, side, h.type, h.length)
            told += 1
            continue
        at = data
        if d.len or n < BGP_HEADER:
            take = BGP_HEADER - d.len
            if take > n:
                take = n
            if side_append(d, data, take, BGP_HEADER) < 0:
                search(d)
                return told
            data += take
            n -= take
            if d.len < BGP_HEADER:
                return told
            at = d.buf
        if bgp_header(at, &h) < 0 or (d.state & FOUND and not bgp_plausible(&h)):
            if not d.state & FOUND:
                # one place, one event; while searching nothing is told again
                fn(ctx, s, side, 0, 0)
                told += 1
            if at == d.buf:
                # a marker may begin inside what was taken for a header: read it again, one byte on
                memcpy(again, d.buf, BGP_HEADER)
                search(d)
                told += bgp_stream_segment(s, side, again + 1, BGP_HEADER - 1, fn, ctx)
            else:
                d.state = LOST
            continue
        if at == d.buf:
            if h.length == BGP_HEADER:
                side_consume(d, d.len)
                d.state = 0
                fn(ctx, s, side, h.type, h.length)
                told += 1
            else:
                d.state = h.length - BGP_HEADER
        elif h.length <= n:
            data += h.length
            n -= h.length
            fn(ctx, s, side, h.type, h.length)
            told += 1
        else:
            if side_append(d, data, BGP_HEADER, BGP_HEADER) < 0:
                search(d)
                return told
            d.state = h.length - n
            return told
    return told


cdef void collect(void *ctx, Stream *s, int side, int kind, uint32_t length) noexcept with gil:
    (<list>ctx).append((side, kind, length))


def split(segments):
    """Feed (side, bytes, or how many were lost) segments; messages as (side, type, length). For tests."""
    cdef Stream s
    cdef bytes data
    messages = []
    memset(&s, 0, sizeof(s))
    for side, part in segments:
        if isinstance(part, int):
            bgp_stream_segment(&s, side, NULL, part, collect, <void *>messages)
        else:
            data = part
            bgp_stream_segment(&s, side, <const uint8_t *><const char *>data, <uint32_t>len(data), collect,
                               <void *>messages)
    side_consume(&s.side[0], s.side[0].len)
    side_consume(&s.side[1], s.side[1].len)
    return messages

"""Text out of packets: is it UTF-8, where to cut it, and addresses in words."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr

cdef enum:
    TEXT_MAX = 384           # bytes of a text column (kprobe spec 6.0)
    TEXT_KEEP = 388          # enough of a longer one to see where its last character ends
    IP_TEXT = 46             # room for the longest address


cdef inline bint text_has_nul(const uint8_t *data, uint32_t n) noexcept nogil:
    return n != 0 and memchr(data, 0, n) != NULL


cdef inline uint32_t text_cut(const uint8_t *data, uint32_t n, uint32_t limit) noexcept nogil:
    """Length of the longest prefix of at most `limit` bytes that does not end inside a character."""
    cdef uint32_t at = limit
    if n <= limit:
        return n
    # at most three bytes back; what has more continuation bytes in a row is no UTF-8 and may be cut anywhere
    while at and limit - at < 4 and data[at] & 0xC0 == 0x80:
        at -= 1
    return at if limit - at < 4 else limit


cdef inline bint utf8_valid(const uint8_t *data, uint32_t n) noexcept nogil:
    """RFC 3629: shortest forms only, no surrogates, nothing above U+10FFFF."""
    cdef uint32_t at = 0, more, low, high
    cdef uint8_t c
    while at < n:
        c = data[at]
        at += 1
        if c < 0x80:
            continue
        low = 0x80
        high = 0xBF
        if 0xC2 <= c <= 0xDF:
            more = 1
        elif 0xE0 <= c <= 0xEF:
            more = 2
            if c == 0xE0:
                low = 0xA0
            elif c == 0xED:
                high = 0x9F
        elif 0xF0 <= c <= 0xF4:
            more = 3
            if c == 0xF0:
                low = 0x90
            elif c == 0xF4:
                high = 0x8F
        else:
            return False
        if n - at < more or data[at] < low or data[at] > high:
            return False
        at += 1
        more -= 1
        while more:
            if data[at] & 0xC0 != 0x80:
                return False
            at += 1
            more -= 1
    return True


cdef inline uint32_t put_decimal(uint8_t *out, uint32_t value) noexcept nogil:
    cdef uint8_t digits[10]
    cdef uint32_t n = 0, i
    while True:
        digits[n] = <uint8_t>(48 + value % 10)
        n += 1
        value //= 10
        if value == 0:
            break
    for i in range(n):
        out[i] = digits[n - 1 - i]
    return n


cdef inline uint32_t ipv4_text(const uint8_t *addr, uint8_t *out) noexcept nogil:
    """Dotted quad; the length. `out` has IP_TEXT bytes."""
    cdef uint32_t n = 0, i
    for i in range(4):
        if i:
            out[n] = 46
            n += 1
        n += put_decimal(out + n, addr[i])
    return n


cdef inline uint32_t ipv6_text(const uint8_t *addr, uint8_t *out) noexcept nogil:
    """RFC 5952, IPv4-mapped addresses with a dotted quad; the length. `out` has IP_TEXT bytes."""
    cdef uint16_t group[8]
    cdef uint32_t i, at, length, best = 8, best_length = 1, n = 0, shift
    cdef uint8_t digit
    for i in range(8):
        group[i] = <uint16_t>((<uint32_t>addr[2 * i] << 8) | addr[2 * i + 1])
    if (group[0] | group[1] | group[2] | group[3] | group[4]) == 0 and group[5] == 0xFFFF:
        out[0] = out[1] = 58
        out[2] = out[3] = out[4] = out[5] = 102
        out[6] = 58
        return 7 + ipv4_text(addr + 12, out + 7)
    at = 0
    while at < 8:
        length = 0
        while at + length < 8 and group[at + length] == 0:
            length += 1
        if length > best_length:
            best = at
            best_length = length
        at += length if length else 1
    i = 0
    while i < 8:
        if i == best:
            out[n] = out[n + 1] = 58
            n += 2
            i += best_length
            continue
        if i and i != best + best_length:
            out[n] = 58
            n += 1
        shift = 12
        while shift and group[i] >> shift == 0:
            shift -= 4
        while True:
            digit = <uint8_t>((group[i] >> shift) & 15)
            out[n] = digit + (48 if digit < 10 else 87)
            n += 1
            if shift == 0:
                break
            shift -= 4
        i += 1
    return n

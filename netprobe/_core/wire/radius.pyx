"""RADIUS messages: header, then one walk over the attributes."""
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from netprobe._core.wire.be cimport be32
from netprobe._core.wire.text cimport text_has_nul, utf8_valid

cdef enum:
    OFF_CODE = 0
    OFF_ID = 1
    OFF_ATTRIBUTES = 20
    ATTRIBUTE_HEAD = 2
    # attribute types
    USER_NAME = 1
    SERVICE_TYPE = 6
    FRAMED_PROTOCOL = 7
    FRAMED_ADDRESS = 8
    FRAMED_MASK = 9
    ACCT_STATUS = 40
    ACCT_SESSION = 44
    NUMBER = 4               # bytes of a number or an address


cdef int radius_parse(const uint8_t *data, uint32_t n, Radius *out) noexcept nogil:
    cdef uint32_t at = OFF_ATTRIBUTES, length
    cdef const uint8_t *value
    cdef uint8_t kind
    memset(out, 0, sizeof(Radius))
    if n < OFF_ATTRIBUTES:
        return RADIUS_SHORT
    out.code = data[OFF_CODE]
    out.id = data[OFF_ID]
    while at < n:
        if n - at < ATTRIBUTE_HEAD:
            return RADIUS_BAD_ATTRIBUTE
        kind = data[at]
        length = data[at + 1]
        if length < ATTRIBUTE_HEAD or length > n - at:
            return RADIUS_BAD_ATTRIBUTE
        value = data + at + ATTRIBUTE_HEAD
        at += length
        length -= ATTRIBUTE_HEAD
        if kind == USER_NAME or kind == ACCT_SESSION:
            if not utf8_valid(value, length) or text_has_nul(value, length):
                continue
            if kind == USER_NAME:
                out.has |= RADIUS_USER
                out.user = value
                out.user_len = <uint8_t>length
            else:
                out.has |= RADIUS_SESSION
                out.session = value
                out.session_len = <uint8_t>length
        elif length != NUMBER:
            continue
        elif kind == SERVICE_TYPE:
            out.has |= RADIUS_SERVICE
            out.service = be32(value)
        elif kind == FRAMED_PROTOCOL:
            out.has |= RADIUS_PROTOCOL
            out.protocol = be32(value)
        elif kind == FRAMED_ADDRESS:
            out.has |= RADIUS_ADDRESS
            memcpy(out.address, value, NUMBER)
        elif kind == FRAMED_MASK:
            out.has |= RADIUS_MASK
            memcpy(out.mask, value, NUMBER)
        elif kind == ACCT_STATUS:
            out.has |= RADIUS_STATUS
            out.status = be32(value)
    return RADIUS_OK


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

STATUS = ("ok", "short", "bad attribute")


def parse(bytes data):
    """The fields of one message (UDP payload); absent attributes are None."""
    cdef Radius m
    cdef int status = radius_parse(<const uint8_t *><const char *>data, <uint32_t>len(data), &m)
    return {
        "status": STATUS[status],
        "code": m.code,
        "id": m.id,
        "user": (<const char *>m.user)[:m.user_len] if m.has & RADIUS_USER else None,
        "session": (<const char *>m.session)[:m.session_len] if m.has & RADIUS_SESSION else None,
        "service": m.service if m.has & RADIUS_SERVICE else None,
        "protocol": m.protocol if m.has & RADIUS_PROTOCOL else None,
        "address": bytes(m.address[:4]) if m.has & RADIUS_ADDRESS else None,
        "mask": bytes(m.mask[:4]) if m.has & RADIUS_MASK else None,
        "acct_status": m.status if m.has & RADIUS_STATUS else None,
    }

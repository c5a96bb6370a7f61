"""RADIUS (RFC 2865, 2866): the attributes that kprobe shows (spec 6.5)."""
from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    RADIUS_OK = 0
    RADIUS_SHORT = 1         # ends inside the 20 bytes of header
    RADIUS_BAD_ATTRIBUTE = 2 # an attribute's length is under 2 or runs past the end

cdef enum:
    RADIUS_ACCESS_REQUEST = 1
    RADIUS_ACCESS_ACCEPT = 2
    RADIUS_ACCESS_REJECT = 3
    RADIUS_ACCOUNTING_REQUEST = 4
    RADIUS_ACCOUNTING_RESPONSE = 5
    RADIUS_ACCESS_CHALLENGE = 11
    RADIUS_START = 1         # Acct-Status-Type
    RADIUS_STOP = 2

cdef enum:
    # Radius.has
    RADIUS_USER = 1
    RADIUS_SESSION = 2
    RADIUS_SERVICE = 4
    RADIUS_PROTOCOL = 8
    RADIUS_ADDRESS = 16
    RADIUS_MASK = 32
    RADIUS_STATUS = 64

cdef struct Radius:
    uint8_t code             # as sent
    uint8_t id
    uint8_t has              # RADIUS_*; of an attribute that comes twice the last one counts
    uint8_t user_len
    uint8_t session_len
    uint32_t service         # as sent
    uint32_t protocol
    uint32_t status
    uint8_t address[4]
    uint8_t mask[4]
    const uint8_t *user      # point into the message; UTF-8 without NUL
    const uint8_t *session

# attributes are read to the end of the datagram: the length field is not looked at (spec 6.5)
cdef int radius_parse(const uint8_t *data, uint32_t n, Radius *out) noexcept nogil

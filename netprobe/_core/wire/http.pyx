"""Request lines, status lines, header fields, chunk sizes: what is no HTTP is refused."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memset

cdef enum:
    VERSION = 8              # "HTTP/1.1"
    STATUS_LINE = 12         # "HTTP/1.1 200"
    LONGEST_METHOD = 11
    # classes of bytes
    TOKEN = 1                # of field names
    URL = 2                  # of a request target
    AUTHORITY = 4            # of CONNECT's target
    ALPHA = 8
    DIGIT = 16
    VALUE = 32               # of field values

# http-parser 2.7.1 knows these and no others; a line that begins otherwise is no request
METHODS = (
    "DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND "
    "UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK "
    "UNLINK"
)
cdef bytes METHOD_LIST = b" " + METHODS.encode() + b" "
cdef const uint8_t *KNOWN = METHOD_LIST
cdef uint32_t KNOWN_LEN = <uint32_t>len(METHOD_LIST)

cdef uint8_t[256] CLASS
cdef int byte
for byte in range(256):
    CLASS[byte] = 0
    if byte < 128 and (chr(byte).isalnum() or chr(byte) in "!#$%&'*+-.^_`|~"):
        CLASS[byte] |= TOKEN
    if 0x21 <= byte <= 0x7E:
        CLASS[byte] |= URL
    if byte < 128 and (chr(byte).isalnum() or chr(byte) in "-._:[]@!$&'()*+,;=%"):
        CLASS[byte] |= AUTHORITY
    if byte < 128 and chr(byte).isalpha():
        CLASS[byte] |= ALPHA
    if 48 <= byte <= 57:
        CLASS[byte] |= DIGIT
    if byte == 9 or (byte >= 32 and byte != 127):
        CLASS[byte] |= VALUE


cdef inline uint32_t run(const uint8_t *data, uint32_t n, uint32_t at, int kind) noexcept nogil:
    """Where the bytes of a class that begin at `at` end."""
    while at < n and CLASS[data[at]] & kind:
        at += 1
    return at


cdef inline bint same(const uint8_t *data, uint32_t n, const char *name, uint32_t length) noexcept nogil:
    """Equal to a lower-case name, in any case."""
    cdef uint32_t i
    if n != length:
        return False
    for i in range(n):
        if (data[i] | 0x20 if CLASS[data[i]] & ALPHA else data[i]) != <uint8_t>name[i]:
            return False
    return True


cdef bint known_method(const uint8_t *data, uint32_t n) noexcept nogil:
    """`data` has one more byte than n: the blank behind the method."""
    cdef uint32_t at = 0
    cdef const uint8_t *found
    while at + n + 2 <= KNOWN_LEN:
        if memcmp(KNOWN + at + 1, data, n + 1) == 0:
            return True
        found = <const uint8_t *>memchr(KNOWN + at + 1, c' ', KNOWN_LEN - at - 1)
        if found == NULL:
            return False
        at = <uint32_t>(found - KNOWN)
    return False


cdef int version(const uint8_t *data, uint32_t n, HttpStart *out) noexcept nogil:
    if n < VERSION or memcmp(data, b"HTTP/", 5) != 0:
        return HTTP_BAD
    if not CLASS[data[5]] & DIGIT or data[6] != c'.' or not CLASS[data[7]] & DIGIT:
        return HTTP_BAD
    out.major = <uint8_t>(data[5] - 48)
    out.minor = <uint8_t>(data[7] - 48)
    return HTTP_OK


cdef int http_request_line(const uint8_t *data, uint32_t n, HttpStart *out) noexcept nogil:
    cdef uint32_t at = 0, scheme
    memset(out, 0, sizeof(HttpStart))
    while at < n and at <= LONGEST_METHOD and data[at] != c' ':
        at += 1
    if at == 0 or at >= n or at > LONGEST_METHOD or not known_method(data, at):
        return HTTP_BAD
    if at == 4 and memcmp(data, b"HEAD", 4) == 0:
        out.method = HTTP_METHOD_HEAD
    elif at == 7 and memcmp(data, b"CONNECT", 7) == 0:
        out.method = HTTP_METHOD_CONNECT
    while at < n and data[at] == c' ':
        at += 1
    out.url = at
    at = run(data, n, at, AUTHORITY if out.method == HTTP_METHOD_CONNECT else URL)
    out.url_len = at - out.url
    if out.url_len == 0:
        return HTTP_BAD
    if out.method != HTTP_METHOD_CONNECT and data[out.url] != c'/' and data[out.url] != c'*':
        # otherwise it must be a whole URL
        scheme = run(data, at, out.url, ALPHA)
        if scheme == out.url or at - scheme < 4 or memcmp(data + scheme, b"://", 3) != 0:
            return HTTP_BAD
    if at == n:
        out.minor = 9
        return HTTP_OK
    if data[at] != c' ':
        return HTTP_BAD
    while at < n and data[at] == c' ':
        at += 1
    if at == n:
        out.minor = 9
        return HTTP_OK
    if n - at != VERSION:
        return HTTP_BAD
    return version(data + at, VERSION, out)


cdef int http_status_line(const uint8_t *data, uint32_t n, HttpStart *out) noexcept nogil:
    memset(out, 0, sizeof(HttpStart))
    if n < STATUS_LINE or version(data, n, out) != HTTP_OK or data[VERSION] != c' ':
        return HTTP_BAD
    if run(data, STATUS_LINE, VERSION + 1, DIGIT) != STATUS_LINE:
        return HTTP_BAD
    out.status = <uint16_t>((data[9] - 48) * 100 + (data[10] - 48) * 10 + data[11] - 48)
    if n > STATUS_LINE and (data[STATUS_LINE] != c' ' or memchr(data + STATUS_LINE, c'\r', n - STATUS_LINE) != NULL):
        return HTTP_BAD
    return HTTP_OK


cdef int http_begins(const uint8_t *data, uint32_t n) noexcept nogil:
    cdef HttpStart start
    cdef uint32_t at = 0
    if n > VERSION and version(data, n, &start) == HTTP_OK and data[VERSION] == c' ':
        return 2
    while at < n and at <= LONGEST_METHOD and data[at] != c' ':
        at += 1
    return 1 if at and at < n and at <= LONGEST_METHOD and known_method(data, at) else 0


cdef int http_continuation(const uint8_t *data, uint32_t n, HttpField *out) noexcept nogil:
    """The value in `data`, blanks around it taken off."""
    cdef uint32_t at = 0
    out.name = HTTP_FIELD_OTHER
    if run(data, n, 0, VALUE) != n:
        return HTTP_BAD
    while at < n and (data[at] == c' ' or data[at] == c'\t'):
        at += 1
    while n > at and (data[n - 1] == c' ' or data[n - 1] == c'\t'):
        n -= 1
    out.value = at
    out.value_len = n - at
    return HTTP_OK


cdef int http_field(const uint8_t *data, uint32_t n, HttpField *out) noexcept nogil:
    cdef uint32_t name = run(data, n, 0, TOKEN)
    if name == 0 or name == n or data[name] != c':':
        return HTTP_BAD
    if http_continuation(data + name + 1, n - name - 1, out) != HTTP_OK:
        return HTTP_BAD
    out.value += name + 1
    if name == 4:
        if same(data, name, b"host", 4):
            out.name = HTTP_FIELD_HOST
    elif name == 7:
        if same(data, name, b"referer", 7):
            out.name = HTTP_FIELD_REFERER
        elif same(data, name, b"upgrade", 7):
            out.name = HTTP_FIELD_UPGRADE
    elif name == 10:
        if same(data, name, b"user-agent", 10):
            out.name = HTTP_FIELD_USER_AGENT
    elif name == 14:
        if same(data, name, b"content-length", 14):
            out.name = HTTP_FIELD_LENGTH
    elif name == 17:
        if same(data, name, b"transfer-encoding", 17):
            out.name = HTTP_FIELD_ENCODING
    return HTTP_OK


cdef int http_length(const uint8_t *data, uint32_t n, uint64_t *out) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t value = 0
    if n == 0 or run(data, n, 0, DIGIT) != n:
        return HTTP_BAD
    for i in range(n):
        if value > (<uint64_t>0xffffffffffffffff - 9) // 10:
            return HTTP_BAD
        value = value * 10 + (data[i] - 48)
    out[0] = value
    return HTTP_OK


cdef int http_chunk(const uint8_t *data, uint32_t n, uint64_t *out) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint64_t value = 0
    cdef uint8_t c
    while at < n:
        c = data[at]
        if CLASS[c] & DIGIT:
            c = <uint8_t>(c - 48)
        elif c'a' <= (c | 0x20) <= c'f':
            c = <uint8_t>((c | 0x20) - 87)
        else:
            break
        if value >> 60:
            return HTTP_BAD
        value = value << 4 | c
        at += 1
    # extensions are not looked at
    if at == 0 or (at < n and data[at] != c';' and data[at] != c' ' and data[at] != c'\t'):
        return HTTP_BAD
    out[0] = value
    return HTTP_OK


cdef bint http_is_chunked(const uint8_t *data, uint32_t n) noexcept nogil:
    cdef uint32_t at = n
    while at and data[at - 1] != c',' and data[at - 1] != c' ' and data[at - 1] != c'\t':
        at -= 1
    return same(data + at, n - at, b"chunked", 7)


# --- for tests and fuzzing ----------------------------------------------------------------------------------------

FIELDS = ("other", "host", "referer", "user-agent", "content-length", "transfer-encoding", "upgrade")


def request_line(bytes line):
    """(method matters: 0 no, 1 HEAD, 2 CONNECT; target; (major, minor)), or None."""
    cdef HttpStart s
    if http_request_line(<const uint8_t *><const char *>line, <uint32_t>len(line), &s) != HTTP_OK:
        return None
    return s.method, line[s.url:s.url + s.url_len], (s.major, s.minor)


def status_line(bytes line):
    """(status, (major, minor)), or None."""
    cdef HttpStart s
    if http_status_line(<const uint8_t *><const char *>line, <uint32_t>len(line), &s) != HTTP_OK:
        return None
    return s.status, (s.major, s.minor)


def begins(bytes data):
    """1: a request, 2: a response, 0: neither."""
    return http_begins(<const uint8_t *><const char *>data, <uint32_t>len(data))


def field(bytes line):
    """(name, value), or None; names that do not matter are "other"."""
    cdef HttpField f
    if http_field(<const uint8_t *><const char *>line, <uint32_t>len(line), &f) != HTTP_OK:
        return None
    return FIELDS[f.name], line[f.value:f.value + f.value_len]


def chunk_size(bytes line):
    cdef uint64_t size
    if http_chunk(<const uint8_t *><const char *>line, <uint32_t>len(line), &size) != HTTP_OK:
        return None
    return size


def content_length(bytes value):
    cdef uint64_t size
    if http_length(<const uint8_t *><const char *>value, <uint32_t>len(value), &size) != HTTP_OK:
        return None
    return size


def is_chunked(bytes value):
    return bool(http_is_chunked(<const uint8_t *><const char *>value, <uint32_t>len(value)))

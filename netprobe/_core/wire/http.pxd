"""Lines of HTTP/1.x messages (RFC 9112), as strict as kprobe's parser (spec 6.1). No state is kept here."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    HTTP_OK = 0
    HTTP_BAD = -1

cdef enum:
    # HttpStart.method: those that matter here
    HTTP_METHOD_OTHER = 0
    HTTP_METHOD_HEAD = 1
    HTTP_METHOD_CONNECT = 2

cdef enum:
    # HttpField.name: the header fields that matter here
    HTTP_FIELD_OTHER = 0
    HTTP_FIELD_HOST = 1
    HTTP_FIELD_REFERER = 2
    HTTP_FIELD_USER_AGENT = 3
    HTTP_FIELD_LENGTH = 4
    HTTP_FIELD_ENCODING = 5
    HTTP_FIELD_UPGRADE = 6

cdef struct HttpStart:
    uint32_t url             # request: offset and length of the target
    uint32_t url_len
    uint16_t status          # response
    uint8_t method
    uint8_t major
    uint8_t minor            # HTTP/0.9: a request line without a version

cdef struct HttpField:
    uint32_t value           # offset and length, without the blanks around it
    uint32_t value_len
    uint8_t name

# does a message begin here? 1: a request, 2: a response, 0: neither, as far as n bytes tell
cdef int http_begins(const uint8_t *data, uint32_t n) noexcept nogil
# each takes one line without its end (LF, or CR LF); HTTP_OK or HTTP_BAD
cdef int http_request_line(const uint8_t *data, uint32_t n, HttpStart *out) noexcept nogil
cdef int http_status_line(const uint8_t *data, uint32_t n, HttpStart *out) noexcept nogil
cdef int http_field(const uint8_t *data, uint32_t n, HttpField *out) noexcept nogil
# the rest of a field's value on a line that begins with a blank: where it is
cdef int http_continuation(const uint8_t *data, uint32_t n, HttpField *out) noexcept nogil
# a Content-Length, the size on a chunk's line
cdef int http_length(const uint8_t *data, uint32_t n, uint64_t *out) noexcept nogil
cdef int http_chunk(const uint8_t *data, uint32_t n, uint64_t *out) noexcept nogil
# is "chunked" the last coding of a Transfer-Encoding?
cdef bint http_is_chunked(const uint8_t *data, uint32_t n) noexcept nogil

"""DNS messages as kprobe reads them (spec 6.2): whole or not at all, names with their case, answers as text."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from netprobe._core.wire.text cimport TEXT_KEEP

cdef enum:
    DNSK_OK = 0
    DNSK_SHORT = 1           # under 12 bytes
    DNSK_BAD = 2             # some question or record is cut off or invalid: drop the message
    DNSK_NAME = 255          # bytes of the longest name, as text
    DNSK_TYPE_A = 1
    DNSK_TYPE_AAAA = 28

cdef struct DnsFull:
    uint16_t id
    uint16_t qtype           # of the last question, as is name
    uint16_t n_questions
    uint16_t n_answers
    uint8_t qr
    uint8_t opcode
    uint8_t rcode
    uint8_t text_nul         # some answer's text holds a NUL
    uint32_t answers_at      # offset of the answer section
    uint32_t name_len
    uint32_t text_len        # "addr/A;name/MX;;text/TXT": cut after TEXT_KEEP bytes
    uint8_t name[DNSK_NAME + 1]
    uint8_t text[TEXT_KEEP]

cdef struct DnsAddress:
    uint8_t len              # 4 or 16
    uint8_t addr[16]
    uint32_t ttl

cdef int dnsk_parse(const uint8_t *data, uint32_t n, DnsFull *out) noexcept nogil
# The A and AAAA answers of a message that dnsk_parse took, one by one: begin with pos = answers_at and
# left = n_answers; 1 with an address in `out`, 0 when there are no more.
cdef int dnsk_next_address(const uint8_t *data, uint32_t n, uint32_t *pos, uint32_t *left, DnsAddress *out) noexcept nogil

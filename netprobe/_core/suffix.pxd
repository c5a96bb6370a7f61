"""Public suffixes (publicsuffix.org, ICANN section) of names, for the aggregation of metrics spec 7.6/7.7."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    RULE_PLAIN = 1
    RULE_WILDCARD = 2        # kept under the rule without its "*."
    RULE_EXCEPTION = 4

cdef struct SuffixRule:
    uint64_t hash            # of the text, read backwards; 0: empty cell
    uint32_t text            # offset into texts
    uint8_t length
    uint8_t flags            # RULE_*

cdef class SuffixSet:
    cdef SuffixRule *rules
    cdef uint32_t mask
    cdef uint8_t *texts
    cdef uint32_t n_texts
    cdef int depth           # labels of the longest rule
    # bytes of the public suffix with the dot before it (s of 7.6); 0: the name has no dot, or ends with one
    cdef uint32_t length(self, const uint8_t *name, uint32_t n) noexcept nogil

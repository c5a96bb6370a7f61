"""Filters of the dns handlers (metrics spec 7.12), compiled once into flat memory."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from netprobe._core.mmdb cimport Mmdb
from netprobe._core.sketch.freq cimport freq_hash_padded
from netprobe._core.wire.dns cimport DnsMsg

cdef enum:
    # DnsFilter.active
    DF_EXCLUDE_NOERROR = 1
    DF_RCODE = 2
    DF_ANSWER_COUNT = 4
    DF_ONLY_QUERIES = 8
    DF_ONLY_RESPONSES = 16
    DF_DNSSEC = 32
    DF_QTYPE = 64
    DF_QNAME = 128
    DF_SUFFIX = 256
    DF_GEO = 512
    DF_ASN = 1024
    DF_DIRECTIONS = 2048
    # what looks at responses, and at queries, in 2.0
    DF_V2_RESPONSE = 1 + 2 + 4 + 32 + 64
    DF_V2_QUERY = 128 + 256 + 512 + 1024

cdef struct NameCell:
    uint64_t hash            # 0: empty
    uint32_t offset
    uint32_t length

cdef class DnsFilter:
    cdef readonly uint32_t active
    cdef readonly int want              # DNS_WANT_* that the filters need
    cdef uint32_t directions            # bit per transaction direction that is wanted
    cdef uint32_t rcodes                # bit per rcode
    cdef uint32_t answers
    cdef uint64_t qtypes[1024]          # bit per type
    cdef NameCell *names
    cdef uint32_t names_mask
    cdef uint8_t *suffixes              # length byte and text, one after the other
    cdef uint32_t n_suffixes
    cdef bytes texts                    # keeps the names' bytes
    cdef const uint8_t *text
    cdef Mmdb city
    cdef Mmdb asn
    # 1: passes. `which` limits the filters (DF_*); suffix_len receives the length of the matching suffix
    cdef int passes(self, DnsMsg *m, uint32_t which, uint32_t *suffix_len) noexcept nogil
    # would upstream's predicate dispatch hand this UDP message over (7.13)?
    cdef int dispatched(self, DnsMsg *m) noexcept nogil
    cdef int name_listed(self, DnsMsg *m) noexcept nogil


cdef inline uint64_t dns_name_hash(DnsMsg *m) noexcept nogil:
    """freq_hash of the name, computed once."""
    if m.h_name == 0:
        m.h_name = freq_hash_padded(m.name, m.name_len)
    return m.h_name

"""Filters of the dns handlers: bit sets for codes and types, a hash set for names."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from netprobe._core.mmdb cimport Mmdb
from netprobe._core.sketch.freq cimport freq_hash, freq_hash_padded
from netprobe._core.wire.dns cimport DNS_WANT_ECS, DNS_WANT_RRSIG, DnsMsg

cdef enum:
    NAME_MAX = 255
    NO_SUCH_COUNT = 0x10000


def _name_bytes(names):
    # longer ones can never match
    encoded = (str(name).encode("utf-8", "surrogateescape").lower() for name in names)
    return [name for name in encoded if len(name) <= NAME_MAX]


cdef class DnsFilter:
    """Built from the checked options of a handler: absent keys, None and False switch a filter off."""

    def __cinit__(self, options, Mmdb city=None, Mmdb asn=None):
        cdef uint64_t h
        cdef uint32_t cell, size = 8
        cdef int kind

        def given(key):
            value = options.get(key)
            return None if value is False else value

        self.city = city
        self.asn = asn
        self.directions = 7
        if given("exclude_noerror"):
            self.active |= DF_EXCLUDE_NOERROR
        elif given("only_rcode") is not None:
            self.active |= DF_RCODE
            for kind in options["only_rcode"]:
                # the header has four bits: larger codes never match
                if 0 <= kind < 16:
                    self.rcodes |= <uint32_t>1 << kind
        if given("answer_count") is not None:
            self.active |= DF_ANSWER_COUNT
            self.answers = <uint32_t>min(options["answer_count"], <int>NO_SUCH_COUNT)
        if given("only_queries"):
            self.active |= DF_ONLY_QUERIES
        if given("only_responses"):
            self.active |= DF_ONLY_RESPONSES
        if given("only_dnssec_response"):
            self.active |= DF_DNSSEC
            self.want |= DNS_WANT_RRSIG
        if given("only_qtype") is not None:
            self.active |= DF_QTYPE
            for kind in options["only_qtype"]:
                if 0 <= kind < 0x10000:
                    self.qtypes[kind >> 6] |= <uint64_t>1 << (kind & 63)
        if given("only_qname") is not None:
            self.active |= DF_QNAME
            names = sorted(set(_name_bytes(options["only_qname"])))
            while size < 2 * len(names):
                size *= 2
            self.names = <NameCell *>calloc(size, sizeof(NameCell))
            if self.names == NULL:
                raise MemoryError
            self.names_mask = size - 1
            self.texts = b"".join(names)
            self.text = self.texts
            offset = 0
            for name in names:
                h = freq_hash(<const uint8_t *>self.text + <uint32_t>offset, len(name))
                cell = <uint32_t>h & self.names_mask
                while self.names[cell].hash:
                    cell = (cell + 1) & self.names_mask
                self.names[cell].hash = h
                self.names[cell].offset = offset
                self.names[cell].length = len(name)
                offset += len(name)
        if given("only_qname_suffix") is not None:
            self.active |= DF_SUFFIX
            packed = b"".join(bytes([len(name)]) + name for name in _name_bytes(options["only_qname_suffix"]))
            self.n_suffixes = len(_name_bytes(options["only_qname_suffix"]))
            self.suffixes = <uint8_t *>malloc(len(packed) + 1)
            if self.suffixes == NULL:
                raise MemoryError
            memcpy(self.suffixes, <const uint8_t *>packed, len(packed))
        if given("geoloc_notfound"):
            self.active |= DF_GEO
            self.want |= DNS_WANT_ECS
        if given("asn_notfound"):
            self.active |= DF_ASN
            self.want |= DNS_WANT_ECS
        if given("only_xact_directions") is not None:
            self.active |= DF_DIRECTIONS
            self.directions = 0
            for name in options["only_xact_directions"]:
                self.directions |= <uint32_t>1 << <int>("in", "out", "unknown").index(name)

    def __dealloc__(self):
        free(self.names)
        free(self.suffixes)

    cdef int name_listed(self, DnsMsg *m) noexcept nogil:
        cdef uint64_t h
        cdef uint32_t cell
        if not m.has_question:
            return 0
        h = dns_name_hash(m)
        cell = <uint32_t>h & self.names_mask
        while self.names[cell].hash:
            if self.names[cell].hash == h and self.names[cell].length == m.name_len \
                    and memcmp(self.text + self.names[cell].offset, m.name, m.name_len) == 0:
                return 1
            cell = (cell + 1) & self.names_mask
        return 0

    cdef int dispatched(self, DnsMsg *m) noexcept nogil:
        if self.active & DF_RCODE and m.qr and (self.rcodes >> m.rcode) & 1:
            return 1
        if self.active & DF_QNAME and self.name_listed(m):
            return 1
        return not self.active & (DF_RCODE | DF_QNAME)

    cdef int passes(self, DnsMsg *m, uint32_t which, uint32_t *suffix_len) noexcept nogil:
        cdef uint32_t on = self.active & which, i, n
        cdef const uint8_t *s
        cdef int family
        if on == 0:
            return 1
        if on & DF_EXCLUDE_NOERROR and m.rcode == 0:
            return 0
        if on & DF_RCODE and not (self.rcodes >> m.rcode) & 1:
            return 0
        if on & DF_ANSWER_COUNT and m.counts[1] != self.answers:
            return 0
        if on & DF_ONLY_QUERIES and m.qr:
            return 0
        if on & DF_ONLY_RESPONSES and not m.qr:
            return 0
        if on & DF_DNSSEC and not (m.qr and m.has_rrsig):
            return 0
        if on & DF_QTYPE and not (m.has_question and (self.qtypes[m.qtype >> 6] >> (m.qtype & 63)) & 1):
            return 0
        if on & DF_QNAME and not self.name_listed(m):
            return 0
        if on & DF_SUFFIX:
            if not m.has_question:
                return 0
            s = self.suffixes
            for i in range(self.n_suffixes):
                n = s[0]
                if n <= m.name_len and memcmp(s + 1, m.name + m.name_len - n, n) == 0:
                    suffix_len[0] = n
                    break
                s += 1 + n
            else:
                return 0
        if on & (DF_GEO | DF_ASN):
            if m.qr or m.ecs_family == 0:
                return 0
            family = 4 if m.ecs_family == 1 else 6
            # without the database nothing is known to be unknown
            if on & DF_GEO and (self.city is None or self.city.lookup(m.ecs_addr, family) != 0):
                return 0
            if on & DF_ASN and (self.asn is None or self.asn.lookup(m.ecs_addr, family) != 0):
                return 0
        return 1

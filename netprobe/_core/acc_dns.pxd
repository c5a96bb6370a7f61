"""Accumulators of the dns handlers: DnsV1 counts messages, DnsV2 counts transactions per direction."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from netprobe._core.dns_filter cimport DnsFilter
from netprobe._core.handler cimport Accumulator
from netprobe._core.mmdb cimport Mmdb
from netprobe._core.suffix cimport SuffixSet
from netprobe._core.xact cimport XactTable

cdef enum:
    FRONT_CODES = 256

cdef struct CodeFront:
    # codes counted since the last flush: the tables see each once per batch
    uint32_t n
    uint16_t seen[FRONT_CODES]
    uint32_t count[FRONT_CODES]

cdef class DnsAccumulator(Accumulator):
    """What both versions share."""
    cdef DnsFilter filter
    cdef SuffixSet suffixes      # public suffixes, when asked for
    cdef Mmdb city
    cdef Mmdb asn
    cdef XactTable xacts
    cdef uint32_t groups         # G_*
    cdef CodeFront rcodes[3]     # per direction block (1.0: the first)
    cdef CodeFront types[3]
    cdef float slow[3]           # threshold in microseconds per direction, 0: none yet
    cdef uint64_t unreadable     # datagrams too short for a DNS header

cdef class DnsV1(DnsAccumulator):
    cdef int dispatch            # hides UDP messages instead of filtering them (7.13)

cdef class DnsV2(DnsAccumulator):
    pass

"""dns 1.0: one block, every message counts."""
from netprobe._core.acc_dns cimport DnsAccumulator

cdef class DnsV1(DnsAccumulator):
    cdef int dispatch            # hides UDP messages instead of filtering them (7.13)

"""dns 2.0: a top block for messages, one block per direction for transactions."""
from netprobe._core.acc_dns cimport DnsAccumulator

cdef class DnsV2(DnsAccumulator):
    pass

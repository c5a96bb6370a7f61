"""What the core reads packets from: a capture file, a ring of the kernel, a library.

A source hands out batches. Their packets point into blocks that the source owns and that stay as they are until the
last holder of a batch has released it; a holder may be another thread than the reader.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.packet cimport RawPacket

cdef enum:
    BATCH_PACKETS = 512          # at most, per batch

cdef enum:
    # why reading ended
    END_NOT_YET = 0
    END_CLEAN = 1
    END_CUT = 2                  # in the middle of a record
    END_DAMAGED = 3              # a length or block that cannot be
    END_IO = 4                   # reading failed, errno in `error`

cdef struct Block:
    uint8_t *buf
    uint32_t refs                # atomic
    Block *next
    void *owner                  # whatever the source must know to take it back

cdef struct Batch:
    Block *block                 # referenced until released
    uint64_t number
    uint32_t n
    RawPacket raw[BATCH_PACKETS]

cdef class PacketSource:
    cdef readonly str name
    cdef readonly int ended      # END_*
    cdef readonly int error      # errno
    cdef readonly int silent     # nothing to read just now; not the end
    # Fills b with packets of one block, in the order in which they came. 0: none now (silent) or no more (ended).
    cdef int next_batch(self, Batch *b) noexcept nogil
    # The batch's packets are no longer needed. Any thread; a batch that holds nothing may be released again.
    cdef void release(self, Batch *b) noexcept nogil
    # One more user of the batch's block: it must be released once more.
    cdef void hold(self, Batch *b) noexcept nogil

"""Sketches to bytes objects and back, for whatever Python may store; every reader validates."""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from netprobe._core.sketch.freq cimport Freq
from netprobe._core.sketch.hist cimport Hist
from netprobe._core.sketch.hll cimport Hll
from netprobe._core.sketch.kll cimport Kll
from netprobe._core.sketch.rate cimport RateTable

cdef struct Reader:
    const uint8_t *data
    size_t left

cdef int take(Reader *r, void *out, size_t n) except -1        # ValueError when the bytes end
cdef const uint8_t *take_view(Reader *r, size_t n) except NULL
cdef const uint8_t *take_part(Reader *r, size_t *n) except? NULL  # uint32 length, then that many bytes
cdef Reader reader_of(bytes data, bytes magic) except *        # behind the magic bytes
cdef int finish(Reader *r) except -1                           # ValueError if anything is left
cdef list quantiles_of(const Kll *sketch, ranks)               # inclusive rule; None when empty
cdef int check(int status, str what) except -1                 # MemoryError for -1, ValueError for others

# DataSketches images
cdef bytes pack_hll(const Hll *h)
cdef bytes pack_kll(const Kll *s)
cdef bytes pack_freq(const Freq *f)

# our own forms, with what an image leaves out; the unpacked struct is uninitialised before, empty after an error
cdef bytes pack_full_kll(const Kll *s)
cdef int unpack_full_kll(Kll *s, Reader *r) except -1
cdef bytes pack_full_freq(const Freq *f)
cdef int unpack_full_freq(Freq *f, int kind, Reader *r) except -1
cdef bytes pack_hist(const Hist *h)
cdef int unpack_hist(Hist *h, int integer, Reader *r) except -1
cdef bytes pack_rate(const RateTable *t)
cdef int unpack_rate(RateTable *t, int columns, Reader *r) except -1

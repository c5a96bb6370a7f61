"""One bucket's worth of metrics of one handler block, as plain memory."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from netprobe._core.sketch.freq cimport Freq
from netprobe._core.sketch.hist cimport Hist
from netprobe._core.sketch.hll cimport Hll
from netprobe._core.sketch.kll cimport Kll
from netprobe._core.sketch.rate cimport RateTable

cdef enum:
    MAX_COUNTER = 32
    MAX_CARD = 2
    MAX_TOPN = 16
    MAX_QUANT = 4
    MAX_HIST = 2
    MAX_RATE = 8

cdef struct Layout:
    # what a block of a handler holds; indices are the handler's own enums
    int n_counter
    int n_card
    int n_topn
    int n_quant
    int n_hist
    int n_rate
    uint8_t topn_kind[MAX_TOPN]      # KEY_* of sketch.freq
    uint8_t quant_dense[MAX_QUANT]   # 1: small integers (sizes), counted by value below 2048
    uint8_t hist_float[MAX_HIST]     # 1: the floating boundaries; 0, the usual: integers

cdef struct MetricSet:
    Layout layout
    int used                         # something was recorded (direction blocks appear only then)
    uint64_t counter[MAX_COUNTER]
    Hll card[MAX_CARD]
    Freq topn[MAX_TOPN]
    Kll quant[MAX_QUANT]
    Hist hist[MAX_HIST]
    RateTable rate                   # n_rate columns
    # of a copy of an open bucket: each rate's last whole second
    uint64_t live[MAX_RATE]
    uint32_t levels                  # bit i: counter i is a level, the newest span of time has the say
    uint32_t refs                    # holders, atomic; more than one: nobody may write
    int packed                       # closed and without spare room: to be read, or copied

cdef MetricSet *mset_new(const Layout *layout, int64_t start_ns) noexcept nogil
cdef void mset_free(MetricSet *m) noexcept nogil     # one holder fewer; the last one frees
cdef void mset_hold(MetricSet *m) noexcept nogil     # one holder more
cdef MetricSet *mset_clone(const MetricSet *m) noexcept nogil
# rates=1: per-second counters are added second by second (shards of one bucket);
# rates=0: the two are different spans of time, their rate sketches are merged
cdef int mset_merge(MetricSet *into, const MetricSet *other, int rates) noexcept nogil
cdef void mset_close(MetricSet *m, int64_t end_ns) noexcept nogil  # finish rates, shrink tables
cdef void mset_glance(MetricSet *m, int64_t now_ns) noexcept nogil  # rates of an open bucket's copy: fill `live`, finish

cdef class MetricBlock:
    """Owns a MetricSet; what renderers, pickles and merges in Python hold."""
    cdef MetricSet *mset

    @staticmethod
    cdef MetricBlock wrap(MetricSet *owned)      # takes ownership; MemoryError for NULL

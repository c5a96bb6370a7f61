"""KLL quantiles of doubles, Apache DataSketches compatible (datasketches-format.md, 3). Bytes: kll_form."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    KLL_K = 200        # what netprobe measures with
    KLL_DENSE = 2048   # integers below this are counted by value when the sketch is dense
    KLL_EXTRA = 248    # a good `extra` where values come by the million
    KLL_M = 8          # smallest capacity of a level, and smallest k
    KLL_MAX_LEVELS = 60
    KLL_ERR_MEMORY = -1
    KLL_ERR_FORMAT = -2

cdef struct Kll:
    uint16_t k
    uint16_t min_k
    uint8_t num_levels
    uint8_t want_dense       # the dense front is allocated at the first value
    uint64_t n               # values in the levels (the dense front apart)
    double minv              # of the levels
    double maxv
    double sum               # exact running sum, for Prometheus _sum; not serialised
    uint32_t *offsets        # num_levels + 1 in use; NULL while the levels are empty
    double *items            # packed against the end
    uint32_t cap             # items allocated: the total capacity for k and num_levels, and `extra`
    uint32_t extra           # more room for level 0: longer runs are cheaper to compact. Bytes have none of it
    uint64_t rng             # coin; seeded from one injectable seed
    # A sketch with `extra` that has seen very many values takes one of 2^base (Karnin, Lang, Liberty 2016, 4): its
    # level h then is level h + base of the binary form
    uint8_t base
    uint32_t seen            # values of the group of 2^base that is being passed
    uint32_t target          # the one that will stand for it
    double pick
    uint64_t *dense          # KLL_DENSE counts, or NULL
    uint64_t n_dense

cdef uint32_t kll_capacity(uint32_t k, int levels) noexcept nogil        # of all levels together
cdef void kll_init(Kll *s, int k, int dense) noexcept nogil      # allocates nothing
cdef void kll_free(Kll *s) noexcept nogil
cdef void kll_update(Kll *s, double value) noexcept nogil
cdef void kll_update_weighted(Kll *s, double value, uint64_t weight) noexcept nogil
cdef void kll_fold(Kll *s) noexcept nogil                 # move the dense front into the levels, free it
cdef void kll_pack(Kll *s) noexcept nogil                 # give up all spare room: from now on only read, or copied
cdef inline bint kll_packed(const Kll *s) noexcept nogil:
    return s.offsets != NULL and s.cap < kll_capacity(s.k, s.num_levels) + s.extra
cdef int kll_merge(Kll *into, const Kll *other) noexcept nogil
cdef int kll_copy(Kll *into, const Kll *other) noexcept nogil
cdef uint64_t kll_count(const Kll *s) noexcept nogil      # dense front included
cdef int kll_quantiles(const Kll *s, const double *ranks, int n, double *out) noexcept nogil  # inclusive rule; -1 when empty
cdef double kll_rank(const Kll *s, double value, int inclusive) noexcept nogil
cdef int kll_range(const Kll *s, double *lowest, double *highest) noexcept nogil              # -1 when empty
cdef void kll_set_seed(uint64_t seed) noexcept nogil      # seeds sketches made from now on

# for kll_form, which fills a sketch from bytes
cdef int kll_start_levels(Kll *s) noexcept nogil
cdef int kll_add_level(Kll *s) noexcept nogil

cdef inline void kll_add_int(Kll *s, uint64_t value) noexcept nogil:
    if s.dense != NULL and value < KLL_DENSE:
        s.dense[value] += 1
        s.n_dense += 1
        s.sum += <double>value
    else:
        kll_update(s, <double>value)

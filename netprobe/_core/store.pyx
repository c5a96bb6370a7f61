"""Sets of metrics as plain memory, and the Python object that renderers and merges hold."""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport floor
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from netprobe._core.sketch.freq cimport (
    FREQ_LG_MAX, KEY_ADDR, KEY_GEO, KEY_IPV6, KEY_KINDS, KEY_NAME, KEY_TEXT, FreqRow, freq_copy, freq_free,
    freq_hash, freq_init, freq_merge, freq_rows, freq_shrink, freq_top, freq_update)
from netprobe._core.sketch.hist cimport (
    hist_boundaries, hist_copy, hist_free, hist_init, hist_intervals, hist_merge, hist_update)
from netprobe._core.sketch.hll cimport (
    HLL_LG_K, hll_add, hll_copy, hll_coupon, hll_estimate, hll_free, hll_init, hll_merge, hll_read)
from netprobe._core.sketch.kll cimport (
    KLL_EXTRA, KLL_K, kll_add_int, kll_copy, kll_count, kll_free, kll_init, kll_merge, kll_pack, kll_range,
    kll_update)
from netprobe._core.sketch.pack cimport (
    Reader, check, pack_full_freq, pack_full_kll, pack_hist, pack_hll, pack_rate, quantiles_of, take, take_part,
    take_view, unpack_full_freq, unpack_full_kll, unpack_hist, unpack_rate)
from netprobe._core.sketch.rate cimport (
    rate_add, rate_close, rate_copy, rate_free, rate_glance, rate_init, rate_merge, rate_row)

cdef extern from *:
    """
    static inline void np_refs_up(uint32_t *refs) { __atomic_fetch_add(refs, 1, __ATOMIC_RELAXED); }
    static inline uint32_t np_refs_down(uint32_t *refs) { return __atomic_sub_fetch(refs, 1, __ATOMIC_ACQ_REL); }
    """
    void np_refs_up(uint32_t *refs) noexcept nogil
    uint32_t np_refs_down(uint32_t *refs) noexcept nogil

cdef bytes MAGIC = b"NPMB\x01"           # the last byte is the version of the form
RANKS = (0.5, 0.9, 0.95, 0.99)

cdef enum:
    FEW = 64             # rows that are picked out one by one rather than by sorting all


# --- plain memory ---

cdef MetricSet *mset_new(const Layout *layout, int64_t start_ns) noexcept nogil:
    cdef MetricSet *m = <MetricSet *>calloc(1, sizeof(MetricSet))
    cdef int i
    if m == NULL:
        return NULL
    m.layout = layout[0]
    m.refs = 1
    for i in range(layout.n_card):
        hll_init(&m.card[i], HLL_LG_K)
    for i in range(layout.n_topn):
        freq_init(&m.topn[i], layout.topn_kind[i], FREQ_LG_MAX)
    for i in range(layout.n_quant):
        kll_init(&m.quant[i], KLL_K, layout.quant_dense[i])
        m.quant[i].extra = KLL_EXTRA
    for i in range(layout.n_hist):
        hist_init(&m.hist[i], not layout.hist_float[i])
    rate_init(&m.rate, layout.n_rate, start_ns)
    return m


cdef void mset_free(MetricSet *m) noexcept nogil:
    cdef int i
    if m == NULL or np_refs_down(&m.refs) != 0:
        return
    for i in range(m.layout.n_card):
        hll_free(&m.card[i])
    for i in range(m.layout.n_topn):
        freq_free(&m.topn[i])
    for i in range(m.layout.n_quant):
        kll_free(&m.quant[i])
    for i in range(m.layout.n_hist):
        hist_free(&m.hist[i])
    rate_free(&m.rate)
    free(m)


cdef void mset_hold(MetricSet *m) noexcept nogil:
    if m != NULL:
        np_refs_up(&m.refs)


cdef MetricSet *mset_clone(const MetricSet *m) noexcept nogil:
    cdef MetricSet *twin = <MetricSet *>calloc(1, sizeof(MetricSet))
    cdef int status = 0
    cdef int i
    if twin == NULL:
        return NULL
    twin.layout = m.layout
    twin.used = m.used
    twin.refs = 1
    twin.levels = m.levels
    memcpy(twin.live, m.live, sizeof(m.live))
    memcpy(twin.counter, m.counter, sizeof(m.counter))
    # a copy that fails leaves its target empty, so all of them may be tried and freed
    for i in range(m.layout.n_card):
        status |= hll_copy(&twin.card[i], &m.card[i])
    for i in range(m.layout.n_topn):
        status |= freq_copy(&twin.topn[i], &m.topn[i])
    for i in range(m.layout.n_quant):
        status |= kll_copy(&twin.quant[i], &m.quant[i])
    for i in range(m.layout.n_hist):
        status |= hist_copy(&twin.hist[i], &m.hist[i])
    status |= rate_copy(&twin.rate, &m.rate)
    if status != 0:
        mset_free(twin)
        return NULL
    return twin


cdef int mset_merge(MetricSet *into, const MetricSet *other, int rates) noexcept nogil:
    cdef int status = 0
    cdef int i
    if memcmp(&into.layout, &other.layout, sizeof(Layout)) != 0:
        return -2
    into.used |= other.used
    for i in range(into.layout.n_counter):
        if rates or not (into.levels >> i) & 1:
            into.counter[i] += other.counter[i]
    for i in range(into.layout.n_rate):
        if into.live[i] == 0:
            into.live[i] = other.live[i]
    for i in range(into.layout.n_card):
        status |= hll_merge(&into.card[i], &other.card[i])
    for i in range(into.layout.n_topn):
        status |= freq_merge(&into.topn[i], &other.topn[i])
    for i in range(into.layout.n_quant):
        status |= kll_merge(&into.quant[i], &other.quant[i])
    for i in range(into.layout.n_hist):
        status |= hist_merge(&into.hist[i], &other.hist[i])
    if into.layout.n_rate > 0:
        status |= rate_add(&into.rate, &other.rate) if rates else rate_merge(&into.rate, &other.rate)
    return -1 if status else 0


cdef void mset_close(MetricSet *m, int64_t end_ns) noexcept nogil:
    cdef int i
    rate_close(&m.rate, end_ns)
    for i in range(m.layout.n_topn):
        freq_shrink(&m.topn[i])
    for i in range(m.layout.n_quant):
        kll_pack(&m.quant[i])
    for i in range(m.layout.n_rate):
        kll_pack(&m.rate.sketch[i])
    m.packed = 1


cdef void mset_glance(MetricSet *m, int64_t now_ns) noexcept nogil:
    rate_glance(&m.rate, now_ns, m.live)


# --- Python ---

cdef int fill_layout(Layout *layout, counters, cards, topns, quants, hists, rates) except -1:
    cdef int i
    memset(layout, 0, sizeof(Layout))
    if not (0 <= counters <= MAX_COUNTER and 0 <= cards <= MAX_CARD and len(topns) <= MAX_TOPN
            and len(quants) <= MAX_QUANT and len(hists) <= MAX_HIST and 0 <= rates <= MAX_RATE):
        raise ValueError("more metrics than a block holds")
    layout.n_counter = counters
    layout.n_card = cards
    layout.n_topn = len(topns)
    layout.n_quant = len(quants)
    layout.n_hist = len(hists)
    layout.n_rate = rates
    for i in range(layout.n_topn):
        if not 0 <= topns[i] < KEY_KINDS:
            raise ValueError(f"unknown kind of key {topns[i]}")
        layout.topn_kind[i] = topns[i]
    for i in range(layout.n_quant):
        layout.quant_dense[i] = bool(quants[i])
    for i in range(layout.n_hist):
        layout.hist_float[i] = bool(hists[i])
    return 0


cdef int at(i, int n, str what) except -1:
    if not 0 <= i < n:
        raise IndexError(f"{what} {i} of {n}")
    return i


cdef int read_block(MetricSet *m, Reader *r) except -1:
    cdef size_t size
    cdef const uint8_t *image
    cdef int i
    if m.layout.n_counter:
        take(r, m.counter, 8 * <size_t>m.layout.n_counter)
    for i in range(m.layout.n_card):
        image = take_part(r, &size)
        hll_free(&m.card[i])
        check(hll_read(&m.card[i], image, size), "cardinality: not an HLL image")
    for i in range(m.layout.n_topn):
        freq_free(&m.topn[i])
        unpack_full_freq(&m.topn[i], m.layout.topn_kind[i], r)
    for i in range(m.layout.n_quant):
        kll_free(&m.quant[i])
        unpack_full_kll(&m.quant[i], r)
    for i in range(m.layout.n_hist):
        hist_free(&m.hist[i])
        unpack_hist(&m.hist[i], not m.layout.hist_float[i], r)
    rate_free(&m.rate)
    unpack_rate(&m.rate, m.layout.n_rate, r)
    if r.left:
        raise ValueError("bytes behind the end")
    return 0


cdef MetricSet *own(MetricBlock block) except NULL:
    """The set, for writing: a copy of it if others look at it too, or if it has no room for more."""
    cdef MetricSet *copy
    if block.mset.refs > 1 or block.mset.packed:
        copy = mset_clone(block.mset)
        if copy == NULL:
            raise MemoryError("metrics")
        mset_free(block.mset)
        block.mset = copy
    return block.mset


cdef class MetricBlock:
    """One bucket's worth of metrics of one handler block.

    Handlers make them natively; the constructor and the `add_*` methods are for handlers written in Python
    and for tests. `topns` are KEY_* kinds, `quants` and `hists` say per metric whether it counts small
    integers by value, and whether its boundaries are floating.
    """

    def __cinit__(self, *, int counters=0, int cards=0, topns=(), quants=(), hists=(), int rates=0,
                  int64_t start_ns=0):
        cdef Layout layout
        fill_layout(&layout, counters, cards, topns, quants, hists, rates)
        self.mset = mset_new(&layout, start_ns)
        if self.mset == NULL:
            raise MemoryError("metrics")

    def __dealloc__(self):
        mset_free(self.mset)

    @staticmethod
    cdef MetricBlock wrap(MetricSet *owned):
        cdef MetricBlock block
        if owned == NULL:
            raise MemoryError("metrics")
        block = MetricBlock.__new__(MetricBlock)
        mset_free(block.mset)
        block.mset = owned
        return block

    @property
    def used(self):
        """Whether anything was recorded; direction blocks appear only then."""
        return self.mset.used != 0

    @property
    def start(self):
        """Start of the bucket, nanoseconds since 1970."""
        return self.mset.rate.start_ns

    def counter(self, i):
        return self.mset.counter[at(i, self.mset.layout.n_counter, "counter")]

    def cardinality(self, i):
        """Distinct items, rounded half up."""
        return int(floor(hll_estimate(&self.mset.card[at(i, self.mset.layout.n_card, "cardinality")]) + 0.5))

    def topn_kind(self, i):
        """KEY_* of sketch.freq: what the bytes of a key are."""
        return self.mset.layout.topn_kind[at(i, self.mset.layout.n_topn, "top list")]

    def topn(self, i, limit=None):
        """Tracked items as (key bytes, estimate), largest estimate first, then by key; at most `limit`.

        An estimate is an upper bound, at most `topn_error` above the truth.
        """
        cdef const MetricSet *m = self.mset
        cdef int index = at(i, m.layout.n_topn, "top list")
        cdef uint32_t n, row
        cdef uint32_t most = m.topn[index].active
        cdef FreqRow *rows
        cdef list out = []
        if limit is not None and limit < most:
            most = max(0, limit)
        if most == 0:
            return out
        rows = <FreqRow *>malloc(m.topn[index].active * sizeof(FreqRow))
        if rows == NULL:
            raise MemoryError("top list")
        try:
            if most <= FEW:
                n = freq_top(&m.topn[index], rows, most)
            else:
                n = min(freq_rows(&m.topn[index], rows), most)
            for row in range(n):
                out.append((PyBytes_FromStringAndSize(<const char *>rows[row].key, rows[row].n),
                            rows[row].weight + m.topn[index].offset))
        finally:
            free(rows)
        return out

    def topn_error(self, i):
        """The most by which an estimate may exceed the truth, or an item that is not listed may have counted."""
        return self.mset.topn[at(i, self.mset.layout.n_topn, "top list")].offset

    def topn_total(self, i):
        """Sum of all weights offered."""
        return self.mset.topn[at(i, self.mset.layout.n_topn, "top list")].total

    def topn_purged(self, i):
        """Items that were thrown out because the table was full."""
        return self.mset.topn[at(i, self.mset.layout.n_topn, "top list")].purged

    def quantiles(self, i, ranks=RANKS):
        """Values at the ranks (0..1), inclusive rule; None when there was no value."""
        return quantiles_of(&self.mset.quant[at(i, self.mset.layout.n_quant, "quantile")], ranks)

    def quantile_count(self, i):
        return kll_count(&self.mset.quant[at(i, self.mset.layout.n_quant, "quantile")])

    def quantile_sum(self, i):
        return self.mset.quant[at(i, self.mset.layout.n_quant, "quantile")].sum

    def quantile_range(self, i):
        """Smallest and largest value, or None."""
        cdef double low = 0
        cdef double high = 0
        if kll_range(&self.mset.quant[at(i, self.mset.layout.n_quant, "quantile")], &low, &high) != 0:
            return None
        return low, high

    def histogram(self, i):
        """([(boundary, count of values <= boundary), …], total), empty intervals left out; None when empty."""
        return read_histogram(&self.mset.hist[at(i, self.mset.layout.n_hist, "histogram")])

    def rate(self, i, ranks=RANKS):
        """(quantiles, number of whole seconds, sum) of a closed bucket; None without a whole second."""
        cdef int index = at(i, self.mset.layout.n_rate, "rate")
        cdef const Kll *sketch = &self.mset.rate.sketch[index]
        values = quantiles_of(sketch, ranks)
        return None if values is None else (values, kll_count(sketch), sketch.sum)

    def live(self, i):
        """A rate's last whole second, in a copy of an open bucket; 0 elsewhere."""
        return self.mset.live[at(i, self.mset.layout.n_rate, "rate")]

    def add_counter(self, i, uint64_t n=1):
        own(self).counter[at(i, self.mset.layout.n_counter, "counter")] += n
        self.mset.used = 1

    def add_cardinality(self, i, bytes item):
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(item)
        hll_add(&own(self).card[at(i, self.mset.layout.n_card, "cardinality")],
                hll_coupon(data, PyBytes_GET_SIZE(item)))
        self.mset.used = 1

    def add_topn(self, i, bytes key, uint64_t weight=1):
        cdef int index = at(i, own(self).layout.n_topn, "top list")
        cdef const uint8_t *data = <const uint8_t *>PyBytes_AS_STRING(key)
        cdef uint32_t n = <uint32_t>PyBytes_GET_SIZE(key)
        cdef int kind = self.mset.layout.topn_kind[index]
        if kind == KEY_NAME or kind == KEY_TEXT:
            if n > 511:
                raise ValueError("a text key has 511 bytes at most")
        elif n != (16 if kind == KEY_IPV6 else 20 if kind == KEY_GEO else 17 if kind == KEY_ADDR else 4):
            raise ValueError(f"a key of kind {kind} does not have {n} bytes")
        freq_update(&self.mset.topn[index], data, n, freq_hash(data, 4 if kind == KEY_GEO else n), weight)
        self.mset.used = 1

    def add_quantile(self, i, double value):
        cdef Kll *sketch = &own(self).quant[at(i, self.mset.layout.n_quant, "quantile")]
        if 0 <= value < 1e15 and value == floor(value):
            kll_add_int(sketch, <uint64_t>value)
        else:
            kll_update(sketch, value)
        self.mset.used = 1

    def add_histogram(self, i, double value):
        hist_update(&own(self).hist[at(i, self.mset.layout.n_hist, "histogram")], value)
        self.mset.used = 1

    def add_rate(self, i, int64_t ts, uint64_t n=1):
        """Count n at the time ts, nanoseconds since 1970."""
        rate_row(&own(self).rate, ts)[at(i, self.mset.layout.n_rate, "rate")] += n
        self.mset.used = 1

    def close(self, int64_t end_ns):
        """End the bucket: the whole seconds up to end_ns become the samples of its rates."""
        mset_close(own(self), end_ns)

    def merge(self, MetricBlock other not None, bint same_span):
        """Take in another block of the same handler.

        same_span=True: another shard of the same bucket, rates are added second by second.
        same_span=False: another period or machine, rates keep their samples side by side.
        ValueError if the two do not hold the same metrics.
        """
        check(mset_merge(own(self), other.mset, same_span), "blocks of different metrics")

    def clone(self):
        return MetricBlock.wrap(mset_clone(self.mset))

    def to_bytes(self):
        """A form of our own around DataSketches images; `from_bytes` of the same or a later release reads it."""
        cdef const MetricSet *m = self.mset
        cdef int i
        cdef list parts = [MAGIC, bytes((
            m.used != 0, m.layout.n_counter, m.layout.n_card, m.layout.n_topn, m.layout.n_quant,
            m.layout.n_hist, m.layout.n_rate))]
        parts.append(bytes([m.layout.topn_kind[i] for i in range(m.layout.n_topn)]))
        parts.append(bytes([m.layout.quant_dense[i] for i in range(m.layout.n_quant)]))
        parts.append(bytes([m.layout.hist_float[i] for i in range(m.layout.n_hist)]))
        parts.append(PyBytes_FromStringAndSize(<const char *>m.counter, 8 * m.layout.n_counter))
        for i in range(m.layout.n_card):
            image = pack_hll(&m.card[i])
            parts.append(len(image).to_bytes(4, "little") + image)
        for i in range(m.layout.n_topn):
            parts.append(pack_full_freq(&m.topn[i]))
        for i in range(m.layout.n_quant):
            parts.append(pack_full_kll(&m.quant[i]))
        for i in range(m.layout.n_hist):
            parts.append(pack_hist(&m.hist[i]))
        parts.append(pack_rate(&m.rate))
        return b"".join(parts)

    @staticmethod
    def from_bytes(data):
        """A block from `to_bytes`. ValueError for anything else; bytes from strangers do no harm."""
        cdef bytes held = bytes(data)
        cdef Reader r
        cdef const uint8_t *head
        cdef MetricBlock block
        r.data = <const uint8_t *>PyBytes_AS_STRING(held)
        r.left = PyBytes_GET_SIZE(held)
        if held[:5] != MAGIC:
            raise ValueError("not a block of metrics, or one of another version")
        take_view(&r, 5)
        head = take_view(&r, 7)
        used, counters, cards, topns, quants, hists, rates = [head[i] for i in range(7)]
        if used > 1 or topns > MAX_TOPN or quants > MAX_QUANT or hists > MAX_HIST:
            raise ValueError("malformed head")
        head = take_view(&r, topns + quants + hists)
        kinds = [head[i] for i in range(topns + quants + hists)]
        if any(flag > 1 for flag in kinds[topns:]):
            raise ValueError("malformed head")
        block = MetricBlock(counters=counters, cards=cards, topns=kinds[:topns],
                            quants=kinds[topns:topns + quants], hists=kinds[topns + quants:], rates=rates)
        block.mset.used = used
        read_block(block.mset, &r)
        return block

    def __reduce__(self):
        return MetricBlock.from_bytes, (self.to_bytes(),)


cdef tuple read_histogram(const Hist *h):
    cdef const double *bounds = hist_boundaries(h.integer)
    cdef uint32_t n = hist_intervals(h) - 1
    cdef uint32_t i
    cdef uint64_t total = 0
    cdef list out = []
    if h.n == 0:
        return None
    for i in range(n):
        total += h.counts[i]
        if h.counts[i]:
            out.append((bounds[i], total))
    return out, h.n

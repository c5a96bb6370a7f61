"""KLL quantiles of doubles: levels of items, an item of level h standing for 2^h values.

Level sizes, compaction and the binary form follow Apache DataSketches. In front of the levels there may
be a dense array that counts small integers by value: exact, and one addition per packet.
"""
from libc.math cimport ceil
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from netprobe._core.sketch.sorting cimport Entry, merge_sorted, sort_doubles, sort_entries

cdef extern from *:
    """
    static uint64_t np_next_seed(uint64_t *counter) {
        return __atomic_fetch_add(counter, UINT64_C(0x9E3779B97F4A7C15), __ATOMIC_RELAXED);
    }
    """
    uint64_t np_next_seed(uint64_t *counter) noexcept nogil

cdef enum:
    SAMPLE_FROM = 65536      # values
    MAX_BASE = 10

cdef uint64_t seed_counter = 0


cdef void kll_set_seed(uint64_t seed) noexcept nogil:
    global seed_counter
    seed_counter = seed


cdef uint32_t usual[KLL_MAX_LEVELS]      # capacities for KLL_K: compaction asks for several each time


cdef void fill_usual() noexcept nogil:
    cdef int depth
    for depth in range(KLL_MAX_LEVELS):
        usual[depth] = compute_capacity(KLL_K, depth)


cdef inline uint32_t capacity(uint32_t k, int depth) noexcept nogil:
    return usual[depth] if k == KLL_K else compute_capacity(k, depth)


cdef uint32_t compute_capacity(uint32_t k, int depth) noexcept nogil:
    cdef uint64_t power = 1
    cdef uint64_t c
    cdef int i
    if depth > 30:
        return KLL_M
    for i in range(depth):
        power *= 3
    c = ((((<uint64_t>2 * k) << depth) / power) + 1) / 2
    return <uint32_t>c if c > KLL_M else KLL_M


fill_usual()


cdef uint32_t kll_capacity(uint32_t k, int levels) noexcept nogil:
    cdef uint32_t c = 0
    cdef int depth
    for depth in range(levels):
        c += capacity(k, depth)
    return c


cdef void kll_init(Kll *s, int k, int dense) noexcept nogil:
    cdef uint64_t z = np_next_seed(&seed_counter)
    memset(s, 0, sizeof(Kll))
    s.k = <uint16_t>k
    s.min_k = <uint16_t>k
    s.want_dense = dense != 0
    # neighbouring counters must not give related coins
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EBULL
    s.rng = z ^ (z >> 31)


cdef void kll_free(Kll *s) noexcept nogil:
    cdef int k = s.k
    cdef int dense = s.want_dense
    cdef uint32_t extra = s.extra
    free(s.offsets)
    free(s.items)
    free(s.dense)
    kll_init(s, k, dense)
    s.extra = extra


cdef int kll_start_levels(Kll *s) noexcept nogil:
    cdef uint32_t c = kll_capacity(s.k, 1) + s.extra
    s.offsets = <uint32_t *>malloc((KLL_MAX_LEVELS + 2) * sizeof(uint32_t))
    s.items = <double *>malloc(c * sizeof(double))
    if s.offsets == NULL or s.items == NULL:
        free(s.offsets)
        free(s.items)
        s.offsets = NULL
        s.items = NULL
        return KLL_ERR_MEMORY
    s.cap = c
    s.num_levels = 1
    s.offsets[0] = c
    s.offsets[1] = c
    return 0


cdef int kll_add_level(Kll *s) noexcept nogil:
    cdef uint32_t extra = capacity(s.k, s.num_levels)
    cdef double *items
    cdef int i
    if s.num_levels >= KLL_MAX_LEVELS:
        return KLL_ERR_MEMORY
    items = <double *>realloc(s.items, (s.cap + extra) * sizeof(double))
    if items == NULL:
        return KLL_ERR_MEMORY
    s.items = items
    memmove(items + s.offsets[0] + extra, items + s.offsets[0], (s.cap - s.offsets[0]) * sizeof(double))
    s.cap += extra
    for i in range(<int>s.num_levels + 1):
        s.offsets[i] += extra
    s.num_levels += 1
    s.offsets[s.num_levels] = s.cap
    return 0


cdef inline uint32_t coin(Kll *s) noexcept nogil:
    s.rng = s.rng * <uint64_t>6364136223846793005ULL + <uint64_t>1442695040888963407ULL
    return <uint32_t>(s.rng >> 63)


cdef int compact_once(Kll *s) noexcept nogil:
    """Free room by compacting the lowest level that is full."""
    cdef int h = 0
    while h < s.num_levels - 1 and s.offsets[h + 1] - s.offsets[h] < capacity(s.k, s.num_levels - h - 1):
        h += 1
    return compact_level(s, h)


cdef int compact_all(Kll *s) noexcept nogil:
    """Compact every full level from below: what is left fits the capacity without `extra`."""
    cdef int h = 0
    while h < s.num_levels:
        if s.offsets[h + 1] - s.offsets[h] >= capacity(s.k, s.num_levels - h - 1):
            if compact_level(s, h) != 0:
                return KLL_ERR_MEMORY
        h += 1
    return 0


cdef int compact_level(Kll *s, int h) noexcept nogil:
    cdef uint32_t *off
    cdef double *items
    cdef uint32_t begin, end, odd, half, i, flip
    cdef int level
    if h == s.num_levels - 1 and kll_add_level(s) != 0:
        return KLL_ERR_MEMORY
    off = s.offsets
    items = s.items
    begin = off[h]
    end = off[h + 1]
    odd = (end - begin) & 1
    half = (end - begin) >> 1
    begin += odd
    if h == 0:
        sort_doubles(items + begin, end - begin)
    flip = coin(s)
    for i in range(half):
        items[begin + i] = items[begin + 2 * i + flip]
    merge_sorted(items + begin, half, items + end, off[h + 2] - end, items + begin + half)
    off[h + 1] = end - half
    if odd:
        items[off[h + 1] - 1] = items[begin - 1]
    off[h] = off[h + 1] - odd
    if h > 0:
        memmove(items + off[0] + half, items + off[0], (begin - odd - off[0]) * sizeof(double))
        for level in range(h):
            off[level] += half
    return 0


cdef inline void note(Kll *s, double value, uint64_t weight) noexcept nogil:
    if s.n == 0:
        s.minv = value
        s.maxv = value
    else:
        if value < s.minv:
            s.minv = value
        if value > s.maxv:
            s.maxv = value
    s.n += weight


cdef inline void start_group(Kll *s) noexcept nogil:
    s.rng = s.rng * <uint64_t>6364136223846793005ULL + <uint64_t>1442695040888963407ULL
    s.target = <uint32_t>(s.rng >> (64 - s.base))
    s.seen = 0


cdef int sample_more(Kll *s, double value) noexcept nogil:
    """With `value` at hand, which stands for 2^base: halve the sample from now on. 0: not yet, the value still counts.

    At n >= SAMPLE_FROM * 2^base groups of twice the size add less than 0.2 % to the error of a rank.
    """
    cdef uint32_t left
    cdef int h
    if s.base >= MAX_BASE or s.n < <uint64_t>SAMPLE_FROM << s.base or s.num_levels < 3:
        return 0
    left = s.offsets[1] - s.offsets[0]
    if left > 1:
        return 0
    s.offsets[0] = s.offsets[1]
    s.extra += capacity(s.k, s.num_levels - 1)
    s.num_levels -= 1
    for h in range(s.num_levels + 1):
        s.offsets[h] = s.offsets[h + 1]
    s.base += 1
    start_group(s)
    if left:
        # what compaction left over and this value are a whole group
        if s.target >> (s.base - 1):
            value = s.items[s.offsets[0] - 1]
        s.offsets[0] -= 1
        s.items[s.offsets[0]] = value
        start_group(s)
    else:
        s.pick = value
        s.seen = <uint32_t>1 << (s.base - 1)
    return 1


cdef int unsample(Kll *s) noexcept nogil:
    """Levels as in the binary form, `extra` apart."""
    cdef uint32_t more
    cdef uint64_t pending = s.seen
    cdef double *items
    cdef int h
    if s.base == 0:
        return 0
    sort_doubles(s.items + s.offsets[0], s.offsets[1] - s.offsets[0])
    while s.base:
        more = capacity(s.k, s.num_levels)
        items = <double *>realloc(s.items, (s.cap + more) * sizeof(double))
        if items == NULL:
            return KLL_ERR_MEMORY
        s.items = items
        memmove(items + s.offsets[0] + more, items + s.offsets[0], (s.cap - s.offsets[0]) * sizeof(double))
        s.cap += more
        for h in range(s.num_levels, -1, -1):
            s.offsets[h + 1] = s.offsets[h] + more
        s.offsets[0] = s.offsets[1]
        s.num_levels += 1
        s.base -= 1
    s.seen = 0
    h = 0
    while pending:
        if pending & 1 and insert_at(s, s.pick, h) != 0:
            return KLL_ERR_MEMORY
        pending >>= 1
        h += 1
    return 0


cdef inline int room(Kll *s) noexcept nogil:
    if s.offsets == NULL and kll_start_levels(s) != 0:
        return KLL_ERR_MEMORY
    if s.offsets[0] == 0 and (compact_all(s) if s.extra else compact_once(s)) != 0:
        return KLL_ERR_MEMORY
    return 0


cdef int start_dense(Kll *s) noexcept nogil:
    s.dense = <uint64_t *>calloc(KLL_DENSE, sizeof(uint64_t))
    if s.dense == NULL:
        s.want_dense = 0                 # the levels take everything
        return KLL_ERR_MEMORY
    return 0


cdef void kll_update(Kll *s, double value) noexcept nogil:
    cdef uint32_t at
    if value != value:
        return
    if s.want_dense and s.dense == NULL and start_dense(s) == 0:
        if value >= 0 and value < KLL_DENSE and value == <double><uint32_t>value:
            s.dense[<uint32_t>value] += 1
            s.n_dense += 1
            s.sum += value
            return
    if s.base:
        note(s, value, 1)
        s.sum += value
        if s.seen == 0 or s.seen == s.target:
            s.pick = value               # the first until the chosen one comes
        s.seen += 1
        if s.seen >> s.base == 0:
            return
        value = s.pick
        start_group(s)
        if s.offsets[0] == 0 and (compact_all(s) != 0 or sample_more(s, value)):
            return
    else:
        if room(s) != 0:
            return
        note(s, value, 1)
        s.sum += value
        if s.n >= SAMPLE_FROM and s.extra and sample_more(s, value):
            return
    at = s.offsets[0] - 1
    s.offsets[0] = at
    s.items[at] = value


cdef int insert_at(Kll *s, double value, int level) noexcept nogil:
    """Put one item straight into a level, in order."""
    cdef uint32_t low, high, mid
    cdef int i
    if room(s) != 0:
        return KLL_ERR_MEMORY
    while s.num_levels <= level:
        if kll_add_level(s) != 0:
            return KLL_ERR_MEMORY
    low = s.offsets[level]
    high = s.offsets[level + 1] if level > 0 else low
    while low < high:
        mid = (low + high) >> 1
        if s.items[mid] <= value:
            low = mid + 1
        else:
            high = mid
    memmove(s.items + s.offsets[0] - 1, s.items + s.offsets[0], (low - s.offsets[0]) * sizeof(double))
    s.items[low - 1] = value
    for i in range(level + 1):
        s.offsets[i] -= 1
    return 0


cdef int insert_weighted(Kll *s, double value, uint64_t weight) noexcept nogil:
    cdef int level = 0
    if unsample(s) != 0:
        return KLL_ERR_MEMORY
    while weight != 0 and level < KLL_MAX_LEVELS - 1:
        if weight & 1:
            if insert_at(s, value, level) != 0:
                return KLL_ERR_MEMORY
            note(s, value, <uint64_t>1 << level)
        weight >>= 1
        level += 1
    return 0


cdef void kll_update_weighted(Kll *s, double value, uint64_t weight) noexcept nogil:
    """Count value `weight` times, at a cost that grows with the bits of weight only."""
    if value != value or weight == 0:
        return
    if weight >= <uint64_t>1 << (KLL_MAX_LEVELS - 8):
        weight = (<uint64_t>1 << (KLL_MAX_LEVELS - 8)) - 1
    if insert_weighted(s, value, weight) == 0:
        s.sum += value * <double>weight


cdef void kll_fold(Kll *s) noexcept nogil:
    cdef uint64_t *dense = s.dense
    cdef int i
    s.want_dense = 0
    s.dense = NULL
    s.n_dense = 0
    if dense != NULL:
        for i in range(<uint32_t>KLL_DENSE):
            if dense[i] != 0:
                insert_weighted(s, i, dense[i])
        free(dense)
    if s.extra:
        settle(s)


cdef void settle(Kll *s) noexcept nogil:
    """Give the extra room back: sizes and offsets are then those of the binary form."""
    cdef uint32_t extra
    cdef int i
    if unsample(s) != 0:
        return
    extra = s.extra
    if s.offsets != NULL:
        while s.offsets[0] < extra:
            if compact_all(s) != 0:
                return
        memmove(s.items, s.items + extra, (s.cap - extra) * sizeof(double))
        s.cap -= extra
        for i in range(<int>s.num_levels + 1):
            s.offsets[i] -= extra
    s.extra = 0


cdef void kll_pack(Kll *s) noexcept nogil:
    cdef uint32_t spare, i
    cdef void *fit
    if s.offsets == NULL or s.offsets[0] == 0:
        return
    spare = s.offsets[0]
    memmove(s.items, s.items + spare, (s.cap - spare) * sizeof(double))
    s.cap -= spare
    for i in range(<uint32_t>s.num_levels + 1):
        s.offsets[i] -= spare
    fit = realloc(s.items, (s.cap if s.cap else 1) * sizeof(double))
    if fit != NULL:
        s.items = <double *>fit
    fit = realloc(s.offsets, (<size_t>s.num_levels + 1) * sizeof(uint32_t))
    if fit != NULL:
        s.offsets = <uint32_t *>fit


cdef int kll_copy(Kll *into, const Kll *other) noexcept nogil:
    # one that is packed gets its room back
    cdef uint32_t room_ = kll_capacity(other.k, other.num_levels) + other.extra
    cdef uint32_t spare = room_ - other.cap if other.offsets != NULL and room_ > other.cap else 0
    cdef uint32_t i
    memcpy(into, other, sizeof(Kll))
    into.offsets = NULL
    into.items = NULL
    into.dense = NULL
    if other.offsets != NULL:
        into.offsets = <uint32_t *>malloc((KLL_MAX_LEVELS + 2) * sizeof(uint32_t))
        into.items = <double *>malloc((other.cap + spare) * sizeof(double))
    if other.dense != NULL:
        into.dense = <uint64_t *>malloc(KLL_DENSE * sizeof(uint64_t))
    if (other.offsets != NULL and (into.offsets == NULL or into.items == NULL)) or (
            other.dense != NULL and into.dense == NULL):
        kll_free(into)
        return KLL_ERR_MEMORY
    if other.offsets != NULL:
        into.cap = other.cap + spare
        for i in range(<uint32_t>other.num_levels + 1):
            into.offsets[i] = other.offsets[i] + spare
        memcpy(into.items + into.offsets[0], other.items + other.offsets[0],
               (other.cap - other.offsets[0]) * sizeof(double))
    if other.dense != NULL:
        memcpy(into.dense, other.dense, KLL_DENSE * sizeof(uint64_t))
    return 0


cdef int merge_levels(Kll *into, const Kll *other) noexcept nogil:
    """Levels 1 and up of other into those of `into`, then compact from below until everything fits."""
    cdef int levels = into.num_levels if into.num_levels > other.num_levels else other.num_levels
    cdef uint32_t here = into.cap - into.offsets[0]
    cdef uint32_t count = here + (other.cap - other.offsets[1])
    cdef uint32_t *start = <uint32_t *>malloc((KLL_MAX_LEVELS + 2) * sizeof(uint32_t))
    cdef uint32_t *off = <uint32_t *>malloc((KLL_MAX_LEVELS + 2) * sizeof(uint32_t))
    # four parts of `count`: both sides' levels merged, two buffers for what moves up, the result
    cdef double *work = <double *>malloc(<size_t>4 * count * sizeof(double))
    cdef double *buf[2]
    cdef double *out
    cdef double *items = NULL
    cdef double *cur
    cdef uint32_t n_cur, n_next, target, na, nb, odd, half, i, flip
    cdef uint32_t at = 0
    cdef int which = 0
    cdef int h
    if start == NULL or off == NULL or work == NULL:
        free(start)
        free(off)
        free(work)
        return KLL_ERR_MEMORY
    buf[0] = work + count
    buf[1] = buf[0] + count
    out = buf[1] + count
    for h in range(levels):
        start[h] = at
        na = into.offsets[h + 1] - into.offsets[h] if h < into.num_levels else 0
        nb = other.offsets[h + 1] - other.offsets[h] if 0 < h < other.num_levels else 0
        merge_sorted(into.items + into.offsets[h] if na else NULL, na,
                     other.items + other.offsets[h] if nb else NULL, nb, work + at)
        at += na + nb
    start[levels] = at
    target = kll_capacity(into.k, levels)
    cur = work
    n_cur = start[1]
    at = 0
    h = 0
    while h < levels:
        off[h] = at
        n_next = start[h + 2] - start[h + 1] if h + 1 < levels else 0
        if count < target or n_cur < capacity(into.k, levels - h - 1):
            memcpy(out + at, cur, n_cur * sizeof(double))
            at += n_cur
            cur = work + start[h + 1]
            n_cur = n_next
        else:
            if h == levels - 1:
                if levels == KLL_MAX_LEVELS:
                    at = 0
                    break
                start[levels + 1] = start[levels]
                levels += 1
                target += capacity(into.k, levels - 1)
            odd = n_cur & 1
            half = n_cur >> 1
            if odd:
                out[at] = cur[0]
                at += 1
                cur += 1
            if h == 0:
                sort_doubles(cur, 2 * half)
            flip = coin(into)
            for i in range(half):
                cur[i] = cur[2 * i + flip]
            merge_sorted(cur, half, work + start[h + 1], n_next, buf[which])
            cur = buf[which]
            which ^= 1
            n_cur = half + n_next
            count -= half
        h += 1
    off[levels] = at
    target = kll_capacity(into.k, levels)
    if at > 0:
        target += into.extra
        items = <double *>malloc(target * sizeof(double))
    if items != NULL:
        memcpy(items + target - at, out, at * sizeof(double))
        for h in range(levels + 1):
            into.offsets[h] = off[h] + target - at
        free(into.items)
        into.items = items
        into.cap = target
        into.num_levels = <uint8_t>levels
    free(start)
    free(off)
    free(work)
    return 0 if items != NULL else KLL_ERR_MEMORY


cdef int kll_merge(Kll *into, const Kll *other) noexcept nogil:
    cdef Kll twin
    cdef uint64_t n
    cdef uint32_t i
    cdef int status
    if into == other:
        if kll_copy(&twin, other) != 0:
            return KLL_ERR_MEMORY
        status = kll_merge(into, &twin)
        kll_free(&twin)
        return status
    if other.base:
        if kll_copy(&twin, other) != 0:
            return KLL_ERR_MEMORY
        status = unsample(&twin)
        if status == 0:
            status = kll_merge(into, &twin)
        kll_free(&twin)
        return status
    if unsample(into) != 0:
        return KLL_ERR_MEMORY
    if other.n_dense != 0:
        if into.want_dense and into.dense == NULL:
            start_dense(into)
        for i in range(<uint32_t>KLL_DENSE):
            if other.dense[i] == 0:
                continue
            if into.dense != NULL:
                into.dense[i] += other.dense[i]
                into.n_dense += other.dense[i]
            elif insert_weighted(into, i, other.dense[i]) != 0:
                return KLL_ERR_MEMORY
    into.sum += other.sum
    if other.n == 0:
        return 0
    if into.offsets == NULL and kll_start_levels(into) != 0:
        return KLL_ERR_MEMORY
    n = into.n + other.n
    note(into, other.minv, 0)
    if into.n == 0:
        into.maxv = other.maxv
    elif other.maxv > into.maxv:
        into.maxv = other.maxv
    for i in range(other.offsets[0], other.offsets[1]):
        if room(into) != 0:
            return KLL_ERR_MEMORY
        into.offsets[0] -= 1
        into.items[into.offsets[0]] = other.items[i]
        into.n += 1
    if other.num_levels > 1:
        if merge_levels(into, other) != 0:
            return KLL_ERR_MEMORY
        if other.min_k < into.min_k:
            into.min_k = other.min_k
    into.n = n
    return 0


cdef uint64_t kll_count(const Kll *s) noexcept nogil:
    return s.n + s.n_dense


cdef int kll_quantiles(const Kll *s, const double *ranks, int n, double *out) noexcept nogil:
    """out[i]: the smallest value such that at least ranks[i] of all values are not above it."""
    cdef uint64_t total = kll_count(s)
    cdef uint64_t target, weight
    cdef uint32_t n_items = s.cap - s.offsets[0] if s.n else 0
    cdef uint32_t n_dense = 0
    cdef uint32_t i, w, size, low, high, mid
    cdef Entry *view
    cdef Entry *tail
    cdef Kll twin
    cdef int h
    if total == 0:
        return -1
    if s.base:
        if kll_copy(&twin, s) != 0:
            return -1
        h = unsample(&twin)
        if h == 0:
            h = kll_quantiles(&twin, ranks, n, out)
        kll_free(&twin)
        return h
    if s.n_dense:
        for i in range(<uint32_t>KLL_DENSE):
            n_dense += s.dense[i] != 0
    size = n_items + n_dense
    view = <Entry *>malloc(size * sizeof(Entry))
    if view == NULL:
        return -1
    # the items stand sorted in the tail, the dense counts are merged in front of them
    tail = view + n_dense
    if n_items:
        w = 0
        for h in range(s.num_levels):
            for i in range(s.offsets[h], s.offsets[h + 1]):
                tail[w].value = s.items[i]
                tail[w].weight = <uint64_t>1 << h
                w += 1
        sort_entries(tail, n_items)
    w = 0
    low = 0
    if n_dense:
        for i in range(<uint32_t>KLL_DENSE):
            if s.dense[i] == 0:
                continue
            while low < n_items and tail[low].value < i:
                view[w] = tail[low]
                w += 1
                low += 1
            view[w].value = i
            view[w].weight = s.dense[i]
            w += 1
    weight = 0
    for i in range(size):
        weight += view[i].weight
        view[i].weight = weight
    for h in range(n):
        target = <uint64_t>ceil(ranks[h] * <double>total) if ranks[h] > 0 else 0
        low = 0
        high = size - 1
        while low < high:
            mid = (low + high) >> 1
            if view[mid].weight >= target:
                high = mid
            else:
                low = mid + 1
        out[h] = view[low].value
    free(view)
    return 0


cdef double kll_rank(const Kll *s, double value, int inclusive) noexcept nogil:
    """Share of the values below (inclusive: not above) value; 0 when empty."""
    cdef uint64_t total = kll_count(s)
    cdef uint64_t below = 0
    cdef uint32_t i
    cdef int h
    if total == 0:
        return 0
    if s.n_dense:
        for i in range(<uint32_t>KLL_DENSE):
            if i < value or (inclusive and i == value):
                below += s.dense[i]
    if s.n:
        for h in range(s.num_levels):
            for i in range(s.offsets[h], s.offsets[h + 1]):
                if s.items[i] < value or (inclusive and s.items[i] == value):
                    below += <uint64_t>1 << (h + s.base)
        if s.seen and (s.pick < value or (inclusive and s.pick == value)):
            below += s.seen
    return <double>below / <double>total


cdef int kll_range(const Kll *s, double *lowest, double *highest) noexcept nogil:
    cdef uint32_t i
    cdef int found = s.n != 0
    if found:
        lowest[0] = s.minv
        highest[0] = s.maxv
    if s.n_dense:
        for i in range(<uint32_t>KLL_DENSE):
            if s.dense[i] != 0:
                if not found or i < lowest[0]:
                    lowest[0] = i
                if not found or i > highest[0]:
                    highest[0] = i
                found = 1
    return 0 if found else -1

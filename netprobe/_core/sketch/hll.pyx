"""HyperLogLog: distinct coupons kept exactly while few, then one byte per register.

The binary form is the one of Apache DataSketches. The estimate comes from the register histogram alone
(O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017, improved raw estimator),
so that it depends on what was counted and not on the order or on how shards were merged.
"""
from libc.math cimport sqrt
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    OFF_PREAMBLE = 0
    OFF_VERSION = 1
    OFF_FAMILY = 2
    OFF_LG_K = 3
    OFF_LG_ARR = 4
    OFF_FLAGS = 5
    OFF_COUNT = 6            # LIST: coupons; HLL: curMin
    OFF_MODE = 7
    OFF_LIST = 8             # coupons of a LIST
    OFF_SET_COUNT = 8
    OFF_SET = 12             # coupons of a SET
    OFF_KXQ0 = 16
    OFF_KXQ1 = 24
    OFF_ZEROS = 32
    OFF_AUX_COUNT = 36
    OFF_REGS = 40
    FAMILY = 7
    FLAG_EMPTY = 4
    FLAG_COMPACT = 8
    FLAG_OUT_OF_ORDER = 16
    MODE_LIST = 0
    MODE_SET = 1
    MODE_HLL = 2
    TYPE_HLL4 = 0
    TYPE_HLL6 = 1
    TYPE_HLL8 = 2
    LG_LIST = 3
    LG_SET = 5               # first size of a SET
    MIN_LG_K = 4
    MAX_LG_K = 21
    MIN_SET_LG_K = 8         # below, the 8th coupon makes registers
    MAX_VALUE = 63


cdef void hll_init(Hll *h, int lg_k) noexcept nogil:
    memset(h, 0, sizeof(Hll))
    h.lg_k = <uint8_t>lg_k


cdef void hll_free(Hll *h) noexcept nogil:
    free(h.coupons)
    free(h.regs)
    hll_init(h, h.lg_k)


cdef inline int table_put(uint32_t *table, uint32_t lg, uint32_t coupon) noexcept nogil:
    """1: added, 0: was there. The table must have an empty cell."""
    cdef uint32_t mask = (<uint32_t>1 << lg) - 1
    cdef uint32_t step = ((coupon & 0x3FFFFFF) >> lg) | 1
    cdef uint32_t i = coupon & mask
    while table[i] != 0:
        if table[i] == coupon:
            return 0
        i = (i + step) & mask
    table[i] = coupon
    return 1


cdef inline void reg_max(uint8_t *regs, int lg_k, uint32_t coupon) noexcept nogil:
    cdef uint32_t slot = coupon & ((<uint32_t>1 << lg_k) - 1)
    cdef uint8_t value = <uint8_t>(coupon >> 26)
    if value > regs[slot]:
        regs[slot] = value


cdef int promote(Hll *h) noexcept nogil:
    cdef uint8_t *regs = <uint8_t *>calloc(<size_t>1 << h.lg_k, 1)
    cdef uint32_t i
    if regs == NULL:
        return HLL_ERR_MEMORY
    if h.coupons != NULL:
        for i in range(<uint32_t>1 << h.lg_table):
            if h.coupons[i] != 0:
                reg_max(regs, h.lg_k, h.coupons[i])
        free(h.coupons)
    h.coupons = NULL
    h.n_coupons = 0
    h.lg_table = 0
    h.regs = regs
    return 0


cdef int grow_table(Hll *h, uint32_t lg) noexcept nogil:
    cdef uint32_t *table = <uint32_t *>calloc(<size_t>1 << lg, sizeof(uint32_t))
    cdef uint32_t i
    if table == NULL:
        return HLL_ERR_MEMORY
    for i in range(<uint32_t>1 << h.lg_table):
        if h.coupons[i] != 0:
            table_put(table, lg, h.coupons[i])
    free(h.coupons)
    h.coupons = table
    h.lg_table = lg
    return 0


cdef int hll_insert(Hll *h, uint32_t coupon) noexcept nogil:
    cdef uint32_t i
    if h.regs != NULL:
        reg_max(h.regs, h.lg_k, coupon)
        return 0
    if coupon == 0:
        return 0
    if h.coupons == NULL:
        h.coupons = <uint32_t *>calloc(<size_t>1 << LG_LIST, sizeof(uint32_t))
        if h.coupons == NULL:
            return HLL_ERR_MEMORY
        h.lg_table = LG_LIST
    if h.lg_table == LG_LIST:
        for i in range(h.n_coupons):
            if h.coupons[i] == coupon:
                return 0
        h.coupons[h.n_coupons] = coupon
        h.n_coupons += 1
        if h.n_coupons < <uint32_t>1 << LG_LIST:
            return 0
        if h.lg_k < MIN_SET_LG_K:
            i = promote(h) != 0
        else:
            i = grow_table(h, LG_SET) != 0
        if i:
            h.n_coupons -= 1             # keep the list within its array
            h.coupons[h.n_coupons] = 0
            return HLL_ERR_MEMORY
        return 0
    if h.n_coupons + 1 >= <uint32_t>1 << h.lg_table:
        return HLL_ERR_MEMORY            # an earlier growth failed: a probe must always meet an empty cell
    h.n_coupons += table_put(h.coupons, h.lg_table, coupon)
    if 4 * h.n_coupons > 3 * (<uint32_t>1 << h.lg_table):
        if h.lg_table + 3 >= h.lg_k:
            return promote(h)
        return grow_table(h, h.lg_table + 1)
    return 0


cdef int hll_fold(Hll *h, int lg_k) noexcept nogil:
    cdef uint8_t *regs
    cdef uint32_t i
    cdef uint32_t mask
    if lg_k >= h.lg_k:
        return 0
    if h.regs == NULL:
        # coupons carry 26 address bits: only the promotion limit changes
        i = h.n_coupons
        if i > 7 and (lg_k < MIN_SET_LG_K or 4 * i > 3 * (<uint32_t>1 << (lg_k - 3))):
            mask = h.lg_k
            h.lg_k = <uint8_t>lg_k
            if promote(h) != 0:
                h.lg_k = <uint8_t>mask
                return HLL_ERR_MEMORY
        h.lg_k = <uint8_t>lg_k
        return 0
    regs = <uint8_t *>calloc(<size_t>1 << lg_k, 1)
    if regs == NULL:
        return HLL_ERR_MEMORY
    mask = (<uint32_t>1 << lg_k) - 1
    for i in range(<uint32_t>1 << h.lg_k):
        if h.regs[i] > regs[i & mask]:
            regs[i & mask] = h.regs[i]
    free(h.regs)
    h.regs = regs
    h.lg_k = <uint8_t>lg_k
    return 0


cdef int hll_merge(Hll *into, const Hll *other) noexcept nogil:
    """Union; the result has the smaller lg_k of the two, whatever their state, so that order is irrelevant."""
    cdef uint32_t i, n, mask
    cdef uint8_t *a
    cdef const uint8_t *b
    if into == other or (other.regs == NULL and other.n_coupons == 0):
        return 0
    if hll_fold(into, other.lg_k) != 0:
        return HLL_ERR_MEMORY
    if other.regs == NULL:
        for i in range(<uint32_t>1 << other.lg_table):
            if other.coupons[i] != 0 and hll_insert(into, other.coupons[i]) != 0:
                return HLL_ERR_MEMORY
        return 0
    if into.regs == NULL and promote(into) != 0:
        return HLL_ERR_MEMORY
    a = into.regs
    b = other.regs
    if into.lg_k == other.lg_k:
        n = <uint32_t>1 << into.lg_k
        for i in range(n):
            a[i] = b[i] if b[i] > a[i] else a[i]
        return 0
    mask = (<uint32_t>1 << into.lg_k) - 1
    for i in range(<uint32_t>1 << other.lg_k):
        if b[i] > a[i & mask]:
            a[i & mask] = b[i]
    return 0


cdef int hll_copy(Hll *into, const Hll *other) noexcept nogil:
    hll_init(into, other.lg_k)
    if other.regs != NULL:
        into.regs = <uint8_t *>malloc(<size_t>1 << other.lg_k)
        if into.regs == NULL:
            return HLL_ERR_MEMORY
        memcpy(into.regs, other.regs, <size_t>1 << other.lg_k)
    elif other.coupons != NULL:
        into.coupons = <uint32_t *>malloc((<size_t>1 << other.lg_table) * sizeof(uint32_t))
        if into.coupons == NULL:
            return HLL_ERR_MEMORY
        memcpy(into.coupons, other.coupons, (<size_t>1 << other.lg_table) * sizeof(uint32_t))
        into.lg_table = other.lg_table
        into.n_coupons = other.n_coupons
    return 0


cdef void histogram(const Hll *h, uint32_t *count) noexcept nogil:
    # four tables: neighbouring registers are often equal, and one counter would wait for its own store
    cdef uint32_t part[4][MAX_VALUE + 1]
    cdef uint32_t i
    memset(part, 0, sizeof(part))
    i = 0
    while i < <uint32_t>1 << h.lg_k:
        part[0][h.regs[i]] += 1
        part[1][h.regs[i + 1]] += 1
        part[2][h.regs[i + 2]] += 1
        part[3][h.regs[i + 3]] += 1
        i += 4
    for i in range(MAX_VALUE + 1):
        count[i] = part[0][i] + part[1][i] + part[2][i] + part[3][i]


cdef double sigma(double x) noexcept nogil:
    # x + sum of 2^(i-1) * x^(2^i): the weight of the zero registers; diverges at 1
    cdef double y = 1
    cdef double z = x
    cdef double before
    while True:
        x *= x
        before = z
        z += x * y
        y += y
        if z == before:
            return z


cdef double tau(double x) noexcept nogil:
    # the counterpart for registers at the largest value
    cdef double y = 1
    cdef double z = 1 - x
    cdef double before
    if x == 0 or x == 1:
        return 0
    while True:
        x = sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) * (1 - x) * y
        if z == before:
            return z / 3


cdef double hll_estimate(const Hll *h) noexcept nogil:
    cdef uint32_t count[MAX_VALUE + 1]
    cdef double n, m, z
    cdef int i
    if h.regs == NULL:
        # two items share a coupon with probability 1 / (3 * 2^26)
        n = h.n_coupons
        return n + n * n / (3.0 * 134217728.0)
    histogram(h, count)
    m = <double>(<uint32_t>1 << h.lg_k)
    if count[0] == <uint32_t>1 << h.lg_k:
        return 0
    z = m * tau(1 - count[MAX_VALUE] / m)
    for i in range(MAX_VALUE - 1, 0, -1):
        z = 0.5 * (z + count[i])
    z += m * sigma(count[0] / m)
    if z < m * 1.0842021724855044e-19:               # 2^-63: every register at its end, only in made-up images
        z = m * 1.0842021724855044e-19
    return 0.7213475204444817 * m * m / z            # 1 / (2 ln 2)


cdef uint32_t hll_nonzero(const Hll *h) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t n = 0
    if h.regs == NULL:
        return h.n_coupons
    for i in range(<uint32_t>1 << h.lg_k):
        n += h.regs[i] != 0
    return n


cdef size_t hll_size(const Hll *h) noexcept nogil:
    if h.regs != NULL:
        return OFF_REGS + (<size_t>1 << h.lg_k)
    if h.n_coupons < <uint32_t>1 << LG_LIST:
        return OFF_LIST + 4 * <size_t>h.n_coupons
    return OFF_SET + 4 * <size_t>h.n_coupons


cdef size_t hll_write(const Hll *h, uint8_t *out) noexcept nogil:
    cdef uint32_t count[MAX_VALUE + 1]
    cdef double kxq[2]
    cdef double weight = 1
    cdef uint32_t i
    cdef size_t at
    memset(out, 0, 8)
    out[OFF_VERSION] = 1
    out[OFF_FAMILY] = FAMILY
    out[OFF_LG_K] = h.lg_k
    out[OFF_FLAGS] = FLAG_COMPACT
    if h.regs != NULL:
        out[OFF_PREAMBLE] = 10
        out[OFF_FLAGS] = FLAG_COMPACT | FLAG_OUT_OF_ORDER
        out[OFF_MODE] = MODE_HLL | (TYPE_HLL8 << 2)
        memset(out + 8, 0, OFF_REGS - 8)
        histogram(h, count)
        kxq[0] = 0
        kxq[1] = 0
        for i in range(MAX_VALUE + 1):
            kxq[i >> 5] += weight * count[i]
            weight *= 0.5
        memcpy(out + OFF_KXQ0, &kxq[0], 8)
        memcpy(out + OFF_KXQ1, &kxq[1], 8)
        memcpy(out + OFF_ZEROS, &count[0], 4)
        memcpy(out + OFF_REGS, h.regs, <size_t>1 << h.lg_k)
        return OFF_REGS + (<size_t>1 << h.lg_k)
    if h.n_coupons < <uint32_t>1 << LG_LIST:
        out[OFF_PREAMBLE] = 2
        out[OFF_LG_ARR] = LG_LIST
        out[OFF_COUNT] = <uint8_t>h.n_coupons
        out[OFF_MODE] = MODE_LIST | (TYPE_HLL8 << 2)
        if h.n_coupons == 0:
            out[OFF_FLAGS] = FLAG_COMPACT | FLAG_EMPTY
            return OFF_LIST
        at = OFF_LIST
    else:
        out[OFF_PREAMBLE] = 3
        out[OFF_LG_ARR] = <uint8_t>h.lg_table
        out[OFF_MODE] = MODE_SET | (TYPE_HLL8 << 2)
        memcpy(out + OFF_SET_COUNT, &h.n_coupons, 4)
        at = OFF_SET
    for i in range(<uint32_t>1 << h.lg_table):
        if h.coupons[i] != 0:
            memcpy(out + at, &h.coupons[i], 4)
            at += 4
    return at


cdef inline uint32_t load32(const uint8_t *p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return v


cdef int read_coupons(Hll *h, const uint8_t *data, uint32_t cells, int sparse) noexcept nogil:
    cdef uint32_t i, coupon
    for i in range(cells):
        coupon = load32(data + 4 * <size_t>i)
        if coupon == 0 and sparse:
            continue
        if coupon >> 26 == 0:
            return HLL_ERR_FORMAT
        if hll_insert(h, coupon) != 0:
            return HLL_ERR_MEMORY
    return 0


cdef int read_hll4(Hll *h, const uint8_t *data, size_t n) noexcept nogil:
    cdef uint32_t k = <uint32_t>1 << h.lg_k
    cdef uint32_t aux = load32(data + OFF_AUX_COUNT)
    cdef uint32_t base = data[OFF_COUNT]
    cdef uint32_t cells = aux
    cdef uint32_t exceptions = 0
    cdef uint32_t i, v, slot
    cdef int sparse = not data[OFF_FLAGS] & FLAG_COMPACT
    cdef const uint8_t *pairs = data + OFF_REGS + (k >> 1)
    if n < OFF_REGS + <size_t>(k >> 1) or aux > k:
        return HLL_ERR_FORMAT
    for i in range(k):
        v = (data[OFF_REGS + (i >> 1)] >> (4 * (i & 1))) & 15
        if v == 15:
            exceptions += 1
            continue
        v += base
        if v > MAX_VALUE:
            return HLL_ERR_FORMAT
        h.regs[i] = <uint8_t>v
    if exceptions != aux:
        return HLL_ERR_FORMAT
    if aux == 0:
        return 0
    if sparse:
        if data[OFF_LG_ARR] > MAX_LG_K:
            return HLL_ERR_FORMAT
        cells = <uint32_t>1 << data[OFF_LG_ARR]
    if (n - OFF_REGS - (k >> 1)) / 4 < cells:
        return HLL_ERR_FORMAT
    for i in range(cells):
        v = load32(pairs + 4 * <size_t>i)
        if v == 0 and sparse:
            continue
        slot = v & (k - 1)
        # each exception once, and only where the nibble says so
        if v >> 26 < base + 15 or (data[OFF_REGS + (slot >> 1)] >> (4 * (slot & 1))) & 15 != 15 or h.regs[slot] != 0:
            return HLL_ERR_FORMAT
        h.regs[slot] = <uint8_t>(v >> 26)
        exceptions -= 1
    return 0 if exceptions == 0 else HLL_ERR_FORMAT


cdef int read_regs(Hll *h, const uint8_t *data, size_t n) noexcept nogil:
    cdef int kind = data[OFF_MODE] >> 2 & 3
    cdef size_t k = <size_t>1 << h.lg_k
    cdef size_t i, bit
    cdef uint32_t v
    if n < OFF_REGS or data[OFF_COUNT] > MAX_VALUE:
        return HLL_ERR_FORMAT
    if kind != TYPE_HLL4 and load32(data + OFF_AUX_COUNT) != 0:
        return HLL_ERR_FORMAT
    # the length first: an allocation must not come from a promise
    if n - OFF_REGS < (k >> 1 if kind == TYPE_HLL4 else (k if kind == TYPE_HLL8 else 3 * (k >> 2) + 1)):
        return HLL_ERR_FORMAT
    if promote(h) != 0:
        return HLL_ERR_MEMORY
    if kind == TYPE_HLL4:
        return read_hll4(h, data, n)
    for i in range(k):
        if kind == TYPE_HLL8:
            v = data[OFF_REGS + i]
        else:
            bit = 6 * i
            v = data[OFF_REGS + (bit >> 3)] | (<uint32_t>data[OFF_REGS + (bit >> 3) + 1] << 8)
            v = (v >> (bit & 7)) & 63
        if v > MAX_VALUE:
            return HLL_ERR_FORMAT
        h.regs[i] = <uint8_t>v
    return 0


cdef int read_any(Hll *h, const uint8_t *data, size_t n) noexcept nogil:
    cdef int mode = data[OFF_MODE] & 3
    cdef int compact = data[OFF_FLAGS] & FLAG_COMPACT
    cdef uint32_t count, cells
    if mode == MODE_LIST:
        count = data[OFF_COUNT]
        cells = count if compact else <uint32_t>1 << LG_LIST
        if data[OFF_PREAMBLE] != 2 or count > 7:
            return HLL_ERR_FORMAT
        if data[OFF_FLAGS] & FLAG_EMPTY:
            return 0 if count == 0 else HLL_ERR_FORMAT
        if (n - OFF_LIST) / 4 < cells:
            return HLL_ERR_FORMAT
        return read_coupons(h, data + OFF_LIST, cells, not compact)
    if mode == MODE_SET:
        if data[OFF_PREAMBLE] != 3 or h.lg_k < MIN_SET_LG_K or n < OFF_SET:
            return HLL_ERR_FORMAT
        count = load32(data + OFF_SET_COUNT)
        cells = count
        if not compact:
            cells = data[OFF_LG_ARR]
            if cells < LG_SET:
                cells = LG_SET
                while cells <= MAX_LG_K and 4 * <uint64_t>count > 3 * (<uint64_t>1 << cells):
                    cells += 1
            if cells > MAX_LG_K:
                return HLL_ERR_FORMAT
            cells = <uint32_t>1 << cells
        if (n - OFF_SET) / 4 < cells:
            return HLL_ERR_FORMAT
        return read_coupons(h, data + OFF_SET, cells, not compact)
    if mode == MODE_HLL and data[OFF_PREAMBLE] == 10:
        return read_regs(h, data, n)
    return HLL_ERR_FORMAT


cdef int hll_read(Hll *h, const uint8_t *data, size_t n) noexcept nogil:
    """LIST, SET, HLL_4, HLL_6, HLL_8, compact or updatable. h is uninitialised; empty after an error."""
    cdef int status
    hll_init(h, HLL_LG_K)
    if n < 8 or data[OFF_VERSION] != 1 or data[OFF_FAMILY] != FAMILY or data[OFF_MODE] >> 2 & 3 == 3:
        return HLL_ERR_FORMAT
    if data[OFF_LG_K] < MIN_LG_K or data[OFF_LG_K] > MAX_LG_K:
        return HLL_ERR_FORMAT
    h.lg_k = data[OFF_LG_K]
    status = read_any(h, data, n)
    if status != 0 or (h.regs != NULL and hll_nonzero(h) == 0):
        hll_free(h)                      # registers that are all zero: an empty sketch
    return status

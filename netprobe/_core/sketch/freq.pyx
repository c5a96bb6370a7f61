"""Frequent items: one open-addressing table whose weights are purged by their median when it is full.

A table of numbers below 65536 that is full becomes an array of counts by number instead, exact from then on.
Growth, purge and merge follow Apache DataSketches, as does the binary form (of its string items). Cells
hold weight, half of the hash and the key side by side, so that counting a key again costs one cache line.
"""
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcmp, memcpy, memset

from netprobe._core.sketch.padded cimport PAD, copy_padded, same_padded

cdef enum:
    OFF_PREAMBLE = 0
    OFF_VERSION = 1
    OFF_FAMILY = 2
    OFF_LG_MAX = 3
    OFF_LG_CUR = 4
    OFF_FLAGS = 5
    OFF_ACTIVE = 8
    OFF_TOTAL = 16
    OFF_OFFSET = 24
    OFF_WEIGHTS = 32
    FAMILY = 10
    FLAGS_EMPTY = 5          # either bit counts, both are written
    LG_MIN = 3
    CELL_TAG = 8             # offsets in a cell
    CELL_KEY = 12
    NEAR = 4                 # names between asking for the one in a cell and comparing with it
    SAMPLE = 1024            # weights that a purge looks at
    NUMBERS = 65536          # cells of a dense table
    MOST = 4294967295        # what one of them holds
    MAX_NAME = 65535
    DOOR = 1 << 14           # bytes of it, four counters each
    ROUND = 32768            # keys of weight door_lost that are turned away before the counters begin anew
    RARE = 10000             # ... each at most one part in so many of everything offered
    ROOM = 2 + PAD           # behind every arena, so that names can be read and written at full width

cdef uint64_t salt_seed = 0


cdef void freq_set_seed(uint64_t seed) noexcept nogil:
    global salt_seed
    salt_seed = seed


cdef inline int variable(int kind) noexcept nogil:
    return kind == KEY_NAME or kind == KEY_TEXT


cdef inline uint32_t key_size(int kind) noexcept nogil:
    if kind == KEY_IPV6:
        return 16
    if kind == KEY_GEO:
        return 20
    if kind == KEY_ADDR:
        return 17
    return 4


cdef inline uint64_t weight_of(const uint8_t *cell) noexcept nogil:
    cdef uint64_t weight
    memcpy(&weight, cell, 8)
    return weight


cdef inline void set_weight(uint8_t *cell, uint64_t weight) noexcept nogil:
    memcpy(cell, &weight, 8)


cdef inline uint32_t tag_of(const uint8_t *cell) noexcept nogil:
    cdef uint32_t tag
    memcpy(&tag, cell + CELL_TAG, 4)
    return tag


cdef inline uint32_t place_of(const uint8_t *cell) noexcept nogil:
    cdef uint32_t place
    memcpy(&place, cell + CELL_KEY, 4)
    return place


cdef uint32_t numbers[NUMBERS]      # the keys of dense tables


cdef void fill_numbers() noexcept nogil:
    cdef uint32_t i
    for i in range(<uint32_t>NUMBERS):
        numbers[i] = i


cdef inline uint32_t cells_of(const Freq *f) noexcept nogil:
    if f.dense:
        return NUMBERS
    # twice the nominal size: at under three eighths full, nearly every search ends in its first cell
    return <uint32_t>2 << f.lg_cur


cdef inline void copy_cell(const Freq *f, uint8_t *to, const uint8_t *cell) noexcept nogil:
    # constant sizes: a variable one would become a slow string instruction
    if f.stride == 16:
        memcpy(to, cell, 16)
    else:
        memcpy(to, cell, 32)


cdef void freq_init(Freq *f, int kind, int lg_max) noexcept nogil:
    memset(f, 0, sizeof(Freq))
    f.kind = <uint8_t>kind
    f.lg_max = <uint8_t>(lg_max if lg_max > LG_MIN else LG_MIN)
    f.lg_cur = LG_MIN
    f.stride = 16 if variable(kind) or key_size(kind) == 4 else 32
    f.salt = <uint32_t>np_fold_mul(salt_seed ^ <uint64_t>0xC0AC29B7C97C50DDULL, <uint64_t>0x3F84D5B5B5470917ULL) | 1


cdef void freq_free(Freq *f) noexcept nogil:
    free(f.cells)
    free(f.arena)
    free(f.door)
    freq_init(f, f.kind, f.lg_max)


cdef inline int same_key(const Freq *f, const uint8_t *cell, const uint8_t *key, uint32_t n) noexcept nogil:
    cdef const uint8_t *name
    cdef uint16_t length
    if f.stride == 16:
        if variable(f.kind):
            name = f.arena + place_of(cell)
            memcpy(&length, name, 2)
            return length == n and memcmp(name + 2, key, n) == 0
        return memcmp(cell + CELL_KEY, key, 4) == 0
    if f.kind == KEY_GEO:
        return memcmp(cell + CELL_KEY, key, 4) == 0
    if f.kind == KEY_IPV6:
        return memcmp(cell + CELL_KEY, key, 16) == 0
    return memcmp(cell + CELL_KEY, key, 17) == 0


cdef uint8_t *free_cell(Freq *f, uint32_t tag) noexcept nogil:
    cdef uint32_t mask = cells_of(f) - 1
    cdef uint32_t i = home(f, tag)
    while weight_of(f.cells + i * f.stride) != 0:
        i = (i + 1) & mask
    return f.cells + i * f.stride


cdef int resize(Freq *f, int lg) noexcept nogil:
    cdef uint8_t *old = f.cells
    cdef uint32_t cells = cells_of(f)
    cdef uint32_t i
    cdef uint8_t *table = <uint8_t *>calloc(<size_t>2 << lg, f.stride)
    if table == NULL:
        return FREQ_ERR_MEMORY
    f.cells = table
    f.lg_cur = <uint8_t>lg
    if old != NULL:
        for i in range(cells):
            if weight_of(old + i * f.stride) != 0:
                copy_cell(f, free_cell(f, tag_of(old + i * f.stride)), old + i * f.stride)
        free(old)
    return 0


cdef int make_dense(Freq *f) noexcept nogil:
    """Count by number from now on. -1: not possible for these keys, or no memory."""
    cdef uint32_t *counts
    cdef uint32_t i
    cdef const uint8_t *cell
    if f.kind != KEY_U16 or f.lg_max < FREQ_LG_MAX or f.thin:
        return -1
    for i in range(cells_of(f)):
        cell = f.cells + i * 16
        if weight_of(cell) > MOST or (weight_of(cell) and place_of(cell) >= NUMBERS):
            return -1
    counts = <uint32_t *>calloc(NUMBERS, sizeof(uint32_t))
    if counts == NULL:
        return -1
    for i in range(cells_of(f)):
        cell = f.cells + i * 16
        if weight_of(cell):
            counts[place_of(cell)] = <uint32_t>weight_of(cell)
    if numbers[1] == 0:
        fill_numbers()                   # twice at once does no harm
    free(f.cells)
    close_door(f)
    f.cells = <uint8_t *>counts
    f.dense = 1
    return 0


cdef int make_thin(Freq *f) noexcept nogil:
    """Back from dense to cells, purged to its size, for good: a count does not fit."""
    cdef const uint32_t *counts = <const uint32_t *>f.cells
    cdef Freq thin
    cdef uint32_t i
    freq_init(&thin, f.kind, f.lg_max)
    thin.thin = 1
    # in strides: keys in order would pile up
    for i in range(<uint32_t>NUMBERS):
        if counts[(i * 40503) & (NUMBERS - 1)]:
            if put(&thin, <const uint8_t *>&numbers[(i * 40503) & (NUMBERS - 1)], 4,
                   <uint32_t>(freq_hash(<const uint8_t *>&numbers[(i * 40503) & (NUMBERS - 1)], 4) >> 32),
                   counts[(i * 40503) & (NUMBERS - 1)]) < 0:
                freq_free(&thin)
                return FREQ_ERR_MEMORY
    thin.total = f.total
    thin.offset += f.offset
    thin.purged += f.purged
    free(f.cells)
    f[0] = thin
    return 0


cdef int put_number(Freq *f, uint32_t number, uint64_t weight) noexcept nogil:
    """put() of a dense table."""
    cdef uint32_t *counts = <uint32_t *>f.cells
    cdef int known
    if number >= NUMBERS or counts[number] + weight > MOST:
        if make_thin(f) != 0:
            return FREQ_ERR_MEMORY
        return put(f, <const uint8_t *>&number, 4, <uint32_t>(freq_hash(<const uint8_t *>&number, 4) >> 32), weight)
    known = counts[number] != 0
    f.active += not known
    counts[number] += <uint32_t>weight
    return known


cdef int pack_arena(Freq *f) noexcept nogil:
    """Copy the names in use into an arena of just their size (and some room to grow while in use)."""
    cdef uint64_t need = 0
    cdef uint32_t i, at
    cdef uint16_t length
    cdef uint8_t *arena
    cdef const uint8_t *name
    for i in range(cells_of(f)):
        if weight_of(f.cells + i * f.stride) != 0:
            memcpy(&length, f.arena + place_of(f.cells + i * f.stride), 2)
            need += 2 + length
    arena = <uint8_t *>malloc(need + ROOM)
    if arena == NULL:
        return FREQ_ERR_MEMORY
    at = 0
    for i in range(cells_of(f)):
        if weight_of(f.cells + i * f.stride) != 0:
            name = f.arena + place_of(f.cells + i * f.stride)
            memcpy(&length, name, 2)
            memcpy(arena + at, &length, 2)
            copy_padded(arena + at + 2, name + 2, length)
            memcpy(f.cells + i * f.stride + CELL_KEY, &at, 4)
            at += 2 + length
    free(f.arena)
    f.arena = arena
    f.arena_len = at
    f.arena_cap = at
    return 0


cdef uint64_t select(uint64_t *a, uint32_t n, uint32_t rank) noexcept nogil:
    """The element that sorting would put at index rank (Hoare's selection)."""
    cdef uint32_t low = 0
    cdef uint32_t high = n - 1
    cdef uint32_t i, j
    cdef uint64_t pivot, x
    while low < high:
        pivot = a[(low + high) >> 1]
        i = low - 1
        j = high + 1
        while True:
            i += 1
            while a[i] < pivot:
                i += 1
            j -= 1
            while a[j] > pivot:
                j -= 1
            if i >= j:
                break
            x = a[i]
            a[i] = a[j]
            a[j] = x
        # a[low..j] <= pivot <= a[j+1..high], and both parts have elements
        if rank <= j:
            high = j
        else:
            low = j + 1
    return a[rank]


cdef uint64_t sampled_median(const Freq *f) noexcept nogil:
    """The upper median of the first SAMPLE weights in table order."""
    cdef uint64_t sample[SAMPLE]
    cdef uint32_t n = 0
    cdef uint32_t i = 0
    cdef uint32_t most = f.active if f.active < SAMPLE else SAMPLE
    cdef uint32_t ones = 0
    cdef uint64_t w
    cdef int flat = 1
    # a flood of new keys has equal weights throughout, or more than half of them 1
    while n < most:
        w = weight_of(f.cells + i * f.stride)
        if w != 0:
            sample[n] = w
            flat &= w == sample[0]
            ones += w == 1
            if ones > most // 2:
                return 1
            n += 1
        i += 1
    if flat:
        return sample[0]
    return select(sample, n, n // 2)


cdef bint lower(Freq *f, uint64_t by) noexcept nogil:
    """Lower all weights and drop what reaches zero. False: no memory, nothing has changed."""
    cdef uint32_t before = f.active
    cdef uint32_t stride = f.stride
    cdef uint32_t n = 0
    cdef uint32_t i, place
    cdef uint32_t at = 0
    cdef uint16_t length
    cdef uint8_t *cell
    cdef uint8_t *arena = NULL
    cdef const uint8_t *name
    # one more than there are: every cell is copied, and only then counted if it stays, because nobody can
    # predict which ones do
    cdef uint8_t *stay = <uint8_t *>malloc((<size_t>f.active + 1) * stride)
    if variable(f.kind):
        arena = <uint8_t *>malloc(<size_t>f.arena_cap + ROOM)
    if stay == NULL or (variable(f.kind) and arena == NULL):
        free(stay)
        free(arena)
        return False
    if stride == 16:
        for i in range(cells_of(f)):
            memcpy(stay + n * 16, f.cells + i * 16, 16)
            n += weight_of(f.cells + i * 16) > by
    else:
        for i in range(cells_of(f)):
            memcpy(stay + n * 32, f.cells + i * 32, 32)
            n += weight_of(f.cells + i * 32) > by
    memset(f.cells, 0, <size_t>cells_of(f) * stride)
    for i in range(n):
        cell = stay + i * stride
        set_weight(cell, weight_of(cell) - by)
        if arena != NULL:
            name = f.arena + place_of(cell)
            memcpy(&length, name, 2)
            memcpy(arena + at, &length, 2)
            copy_padded(arena + at + 2, name + 2, length)
            place = at
            memcpy(cell + CELL_KEY, &place, 4)
            at += 2 + length
        copy_cell(f, free_cell(f, tag_of(cell)), cell)
    free(stay)
    if arena != NULL:
        free(f.arena)
        f.arena = arena
        f.arena_len = at
    f.active = n
    f.offset += by
    f.purged += before - n
    return True


cdef void purge(Freq *f) noexcept nogil:
    cdef uint64_t median = sampled_median(f)
    if lower(f, median):
        f.door_limit = 2 * median


# --- the door -------------------------------------------------------------------------------------------------------
#
# In a stream of far more keys than there is room for, nearly every key is thrown out before it comes again, having cost
# a cell, a copy of its name and its part of a purge. So a key has to be seen a few times first. Between two beginnings
# of the counters it loses at most SIGHTS * door_lost at the door. Before the first one is turned away all weights inside
# are lowered by that, as by a purge: `offset` covers it, and the estimates of those who stay inside remain exact.
# Bounds stay as tight: a purge adds its median for at least 3072 times that weight; here SIGHTS * door_lost is added
# for ROUND * door_lost, and for the part that has not come yet nothing is turned away that weighs more than one RARE
# part of everything. (Einziger, Friedman and Manes 2017, TinyLFU, have a similar door.)

cdef inline void mark_inside(Freq *f, uint32_t tag) noexcept nogil:
    cdef uint32_t at = (tag * f.salt) >> DOOR_SHIFT
    f.door[at >> 2] |= SIGHTS << (2 * (at & 3))


cdef void freq_renew_door(Freq *f) noexcept nogil:
    cdef uint32_t i
    memset(f.door, 0, DOOR)
    for i in range(cells_of(f)):
        if weight_of(f.cells + i * f.stride) != 0:
            mark_inside(f, tag_of(f.cells + i * f.stride))
    f.door_lost = 0
    f.door_sum = 0
    f.door_end = ROUND


cdef void open_door(Freq *f) noexcept nogil:
    """After a purge of a table of the usual size. Without memory there is none."""
    if f.door == NULL and f.lg_cur == FREQ_LG_MAX and f.lg_max == FREQ_LG_MAX and not f.dense:
        f.door = <uint8_t *>malloc(DOOR)
        if f.door != NULL:
            freq_renew_door(f)


cdef void close_door(Freq *f) noexcept nogil:
    free(f.door)
    f.door = NULL
    f.door_limit = 0


cdef bint freq_begin_turning(Freq *f, uint64_t weight) noexcept nogil:
    """A key is heavier than what may be turned away, which is nothing at the beginning. False: it enters."""
    cdef uint64_t most = weight if weight > f.door_want else f.door_want
    if most > f.door_limit:
        most = f.door_limit
    if f.door_lost == 0 and weight <= most and most < <uint64_t>1 << 40 and SIGHTS * RARE * most <= f.total \
            and lower(f, SIGHTS * most):
        f.door_lost = most
        f.door_want = 0
        f.door_end = ROUND * most
        return True
    if most > f.door_want:
        f.door_want = most
    # its counter has to be forgotten some time too
    f.door_sum += f.door_lost if f.door_lost else 1
    if f.door_sum >= f.door_end:
        freq_renew_door(f)
    return False


cdef int arena_room(Freq *f, uint32_t n) noexcept nogil:
    """Make room for a name of n bytes."""
    cdef uint64_t need = <uint64_t>f.arena_len + 2 + n
    cdef uint64_t room = f.arena_cap
    cdef uint8_t *arena
    if need <= room:
        return 0
    room = 2 * room if room else 128
    if room < need:
        room = need
    if room > <uint32_t>0xFFFFFFFF - ROOM:
        return FREQ_ERR_MEMORY
    arena = <uint8_t *>realloc(f.arena, room + ROOM)
    if arena == NULL:
        return FREQ_ERR_MEMORY
    f.arena = arena
    f.arena_cap = <uint32_t>room
    return 0


cdef int add_name(Freq *f, const uint8_t *key, uint32_t n) noexcept nogil:
    cdef uint16_t length = <uint16_t>n
    if arena_room(f, n) != 0:
        return FREQ_ERR_MEMORY
    memcpy(f.arena + f.arena_len, &length, 2)
    memcpy(f.arena + f.arena_len + 2, key, n)
    f.arena_len += 2 + n
    return 0


cdef int insert(Freq *f, uint8_t *cell, const uint8_t *key, uint32_t n, uint32_t tag,
                uint64_t weight) noexcept nogil:
    """Fill an empty cell; the table may grow or be purged afterwards. Without memory the item is lost."""
    if f.active + 1 >= cells_of(f):
        return FREQ_ERR_MEMORY           # purges have failed for long: the last free cell ends every search
    if variable(f.kind):
        memcpy(cell + CELL_KEY, &f.arena_len, 4)
        if add_name(f, key, n) != 0:
            return FREQ_ERR_MEMORY
    else:
        memcpy(cell + CELL_KEY, key, key_size(f.kind))
    set_weight(cell, weight)
    memcpy(cell + CELL_TAG, &tag, 4)
    f.active += 1
    if f.door != NULL:
        mark_inside(f, tag)
    if f.active > limit(f.lg_cur):
        if f.lg_cur < f.lg_max:
            if resize(f, f.lg_cur + 1) != 0:
                purge(f)
        elif make_dense(f) != 0:
            purge(f)
    return 0


cdef inline int same_text(const uint8_t *a, const uint8_t *b, uint32_t n) noexcept nogil:
    """memcmp for short names, without the call."""
    cdef uint64_t x, y
    cdef uint32_t u, v
    cdef uint32_t i = 0
    if n >= 8:
        while i + 8 < n:
            memcpy(&x, a + i, 8)
            memcpy(&y, b + i, 8)
            if x != y:
                return 0
            i += 8
        memcpy(&x, a + n - 8, 8)         # the last 8, some of them twice
        memcpy(&y, b + n - 8, 8)
        return x == y
    if n >= 4:
        memcpy(&u, a, 4)
        memcpy(&v, b, 4)
        if u != v:
            return 0
        memcpy(&u, a + n - 4, 4)
        memcpy(&v, b + n - 4, 4)
        return u == v
    while i < n:
        if a[i] != b[i]:
            return 0
        i += 1
    return 1


cdef uint8_t *seek_name(const Freq *f, uint32_t tag, const uint8_t *key, uint32_t n) noexcept nogil:
    """The cell of a name, or the empty one where it belongs."""
    cdef uint32_t mask = cells_of(f) - 1
    cdef uint32_t i = home(f, tag)
    cdef uint8_t *cell
    cdef const uint8_t *name
    cdef uint16_t length
    while True:
        cell = f.cells + <size_t>i * 16
        if weight_of(cell) == 0:
            return cell
        if tag_of(cell) == tag:
            name = f.arena + place_of(cell)
            memcpy(&length, name, 2)
            if length == n and same_text(name + 2, key, n):
                return cell
        i = (i + 1) & mask


cdef uint8_t *seek_word(const Freq *f, uint32_t tag, uint32_t word) noexcept nogil:
    """The same for keys of four bytes."""
    cdef uint32_t mask = cells_of(f) - 1
    cdef uint32_t i = home(f, tag)
    cdef uint8_t *cell
    while True:
        cell = f.cells + <size_t>i * 16
        if weight_of(cell) == 0 or (tag_of(cell) == tag and place_of(cell) == word):
            return cell
        i = (i + 1) & mask


cdef uint8_t *seek_long(const Freq *f, uint32_t tag, const uint8_t *key, uint32_t n) noexcept nogil:
    cdef uint32_t mask = cells_of(f) - 1
    cdef uint32_t i = home(f, tag)
    cdef uint8_t *cell
    while True:
        cell = f.cells + <size_t>i * f.stride
        if weight_of(cell) == 0 or (tag_of(cell) == tag and same_key(f, cell, key, n)):
            return cell
        i = (i + 1) & mask


cdef inline uint8_t *seek(const Freq *f, uint32_t tag, const uint8_t *key, uint32_t n) noexcept nogil:
    cdef uint32_t word
    if f.stride != 16:
        return seek_long(f, tag, key, n)
    if variable(f.kind):
        return seek_name(f, tag, key, n)
    memcpy(&word, key, 4)
    return seek_word(f, tag, word)


cdef int put(Freq *f, const uint8_t *key, uint32_t n, uint32_t tag, uint64_t weight) noexcept nogil:
    """1: it was there already, 0: it is new."""
    cdef uint8_t *cell
    cdef uint32_t number
    if f.dense:
        memcpy(&number, key, 4)
        return put_number(f, number, weight)
    if f.cells == NULL and resize(f, f.lg_cur) != 0:
        return FREQ_ERR_MEMORY
    cell = seek(f, tag, key, n)
    if weight_of(cell) == 0:
        return insert(f, cell, key, n, tag, weight)
    set_weight(cell, weight_of(cell) + weight)
    return 1


cdef void freq_update(Freq *f, const uint8_t *key, uint32_t n, uint64_t hash, uint64_t weight) noexcept nogil:
    if weight == 0 or freq_turned_away(f, hash, weight):
        return
    f.total += weight
    if put(f, key, n if n < MAX_NAME else MAX_NAME, <uint32_t>(hash >> 32), weight) == 0 and f.door_limit:
        open_door(f)


cdef int insert_name(Freq *f, uint8_t *cell, const uint8_t *name, uint32_t n, uint32_t tag,
                     uint64_t weight) noexcept nogil:
    """insert() for names at full width."""
    cdef uint16_t length = <uint16_t>n
    if f.active + 1 >= cells_of(f) or arena_room(f, n) != 0:
        return FREQ_ERR_MEMORY
    set_weight(cell, weight)
    memcpy(cell + CELL_TAG, &tag, 4)
    memcpy(cell + CELL_KEY, &f.arena_len, 4)
    memcpy(f.arena + f.arena_len, &length, 2)
    copy_padded(f.arena + f.arena_len + 2, name, n)
    f.arena_len += 2 + n
    f.active += 1
    if f.door != NULL:
        mark_inside(f, tag)
    if f.active > limit(f.lg_cur):
        if f.lg_cur >= f.lg_max or resize(f, f.lg_cur + 1) != 0:
            purge(f)
    return 0


cdef inline void count_name(Freq *f, const uint8_t *name, uint32_t n, uint64_t hash, uint64_t weight) noexcept nogil:
    cdef uint32_t tag = <uint32_t>(hash >> 32)
    cdef uint32_t mask, i
    cdef uint8_t *cell
    cdef const uint8_t *known
    cdef uint16_t length
    f.total += weight
    if f.cells == NULL and resize(f, f.lg_cur) != 0:
        return
    mask = cells_of(f) - 1
    i = home(f, tag)
    while True:
        cell = f.cells + <size_t>i * 16
        if tag_of(cell) == tag and weight_of(cell) != 0:
            known = f.arena + place_of(cell)
            memcpy(&length, known, 2)
            if length == n and same_padded(known + 2, name, n):
                set_weight(cell, weight_of(cell) + weight)
                return
        if weight_of(cell) == 0:
            insert_name(f, cell, name, n, tag, weight)
            return
        i = (i + 1) & mask


cdef uint32_t freq_admit(Freq *f, const FreqName *names, uint32_t n, uint8_t *inside) noexcept nogil:
    cdef uint64_t sum = 0
    cdef uint32_t turned = 0, k = 0, i, at, shift, out
    if n == 0:
        return 0
    if f.door == NULL:
        for i in range(n):
            inside[i] = <uint8_t>i
        k = n
    else:
        # few branches: nobody can predict who is known
        for i in range(n):
            at = door_counter(f, names[i].hash)
            shift = 2 * (at & 3)
            out = (f.door[at >> 2] >> shift) & SIGHTS != SIGHTS
            if (names[i].weight > f.door_lost) & out and not freq_begin_turning(f, names[i].weight):
                f.door[at >> 2] |= SIGHTS << shift
                out = 0
            f.door[at >> 2] += out << shift
            sum += names[i].weight & (0 - <uint64_t>out)
            turned += out
            inside[k] = <uint8_t>i
            k += 1 - out
        f.total += sum
        f.purged += turned
        f.door_sum += sum
        if f.door_sum >= f.door_end:
            freq_renew_door(f)
    if f.cells != NULL:
        for i in range(k):
            np_prefetch(f.cells + <size_t>home(f, <uint32_t>(names[inside[i]].hash >> 32)) * 16)
    return k


cdef void freq_count_names(Freq *f, const FreqName *names, const uint8_t *inside, uint32_t k) noexcept nogil:
    cdef const FreqName *one
    cdef uint32_t i
    for i in range(k):
        if i + NEAR < k and f.cells != NULL:
            # the name in its cell, whether or not it is the same
            np_prefetch(f.arena + place_of(
                f.cells + <size_t>home(f, <uint32_t>(names[inside[i + NEAR]].hash >> 32)) * 16))
        one = &names[inside[i]]
        count_name(f, one.name, one.n, one.hash, one.weight)
    if f.door_limit and f.door == NULL:
        open_door(f)


cdef inline uint64_t hash_key(int kind, const uint8_t *key, uint32_t n) noexcept nogil:
    return freq_hash(key, 4 if kind == KEY_GEO else n)


cdef int freq_get(const Freq *f, uint32_t cell, const uint8_t **key, uint32_t *n, uint64_t *weight) noexcept nogil:
    cdef const uint8_t *at
    cdef uint16_t length
    if f.cells == NULL or cell >= cells_of(f):
        return 0
    if f.dense:
        weight[0] = (<const uint32_t *>f.cells)[cell]
        key[0] = <const uint8_t *>&numbers[cell]
        n[0] = 4
        return weight[0] != 0
    at = f.cells + cell * f.stride
    if weight_of(at) == 0:
        return 0
    weight[0] = weight_of(at)
    if variable(f.kind):
        at = f.arena + place_of(at)
        memcpy(&length, at, 2)
        key[0] = at + 2
        n[0] = length
    else:
        key[0] = at + CELL_KEY
        n[0] = key_size(f.kind)
    return 1


cdef uint64_t freq_weight(const Freq *f, const uint8_t *key, uint32_t n) noexcept nogil:
    cdef uint32_t number
    if f.cells == NULL:
        return 0
    if f.dense:
        memcpy(&number, key, 4)
        return (<const uint32_t *>f.cells)[number] if number < NUMBERS else 0
    return weight_of(seek(f, <uint32_t>(hash_key(f.kind, key, n) >> 32), key, n))


cdef int compare_rows(const void *a, const void *b) noexcept nogil:
    cdef const FreqRow *x = <const FreqRow *>a
    cdef const FreqRow *y = <const FreqRow *>b
    cdef int order
    if x.weight != y.weight:
        return -1 if x.weight > y.weight else 1
    order = memcmp(x.key, y.key, x.n if x.n < y.n else y.n)
    if order != 0:
        return order
    return (x.n > y.n) - (x.n < y.n)


cdef uint32_t freq_rows(const Freq *f, FreqRow *out) noexcept nogil:
    cdef uint32_t w = 0
    cdef uint32_t i
    if f.cells == NULL:
        return 0
    for i in range(cells_of(f)):
        w += freq_get(f, i, &out[w].key, &out[w].n, &out[w].weight)
        if w == f.active:
            break
    qsort(out, w, sizeof(FreqRow), compare_rows)
    return w


cdef uint32_t freq_top(const Freq *f, FreqRow *out, uint32_t most) noexcept nogil:
    cdef FreqRow row
    cdef uint32_t have = 0
    cdef uint32_t seen = 0
    cdef uint32_t i, place
    if f.cells == NULL or most == 0:
        return 0
    for i in range(cells_of(f)):
        if freq_get(f, i, &row.key, &row.n, &row.weight) == 0:
            continue
        seen += 1
        if have < most:
            have += 1
        elif compare_rows(&row, &out[most - 1]) > 0:
            continue
        # into its place among the few that are kept
        place = have - 1
        while place > 0 and compare_rows(&row, &out[place - 1]) < 0:
            out[place] = out[place - 1]
            place -= 1
        out[place] = row
        if seen == f.active:
            break
    return have


cdef int freq_merge(Freq *into, const Freq *other) noexcept nogil:
    cdef Freq twin
    cdef uint32_t cells, stride, i, step, n, tag
    cdef uint64_t weight
    cdef const uint8_t *key
    cdef int status
    if into.kind != other.kind:
        return FREQ_ERR_FORMAT
    if into == other:
        if freq_copy(&twin, other) != 0:
            return FREQ_ERR_MEMORY
        status = freq_merge(into, &twin)
        freq_free(&twin)
        return status
    if other.active != 0:
        # room first, and other's cells in strides: keys that come in table order pile up in one corner
        i = other.lg_cur if other.lg_cur < into.lg_max else into.lg_max
        if not into.dense and (into.cells == NULL or i > into.lg_cur) and resize(into, i) != 0:
            return FREQ_ERR_MEMORY
        cells = cells_of(other)
        stride = (<uint32_t>(0.6180339887498949 * cells)) | 1
        i = 0
        for step in range(cells):
            if freq_get(other, i, &key, &n, &weight):
                tag = <uint32_t>(freq_hash(key, 4) >> 32) if other.dense else tag_of(other.cells + i * other.stride)
                if put(into, key, n, tag, weight) < 0:
                    return FREQ_ERR_MEMORY
            i = (i + stride) & (cells - 1)
    # beyond upstream: also of a sketch that a purge emptied, or its upper bounds would be wrong
    into.offset += other.offset
    into.total += other.total
    into.purged += other.purged
    return 0


cdef int freq_copy(Freq *into, const Freq *other) noexcept nogil:
    cdef size_t size = <size_t>cells_of(other) * (sizeof(uint32_t) if other.dense else other.stride)
    memcpy(into, other, sizeof(Freq))
    into.cells = NULL
    into.arena = NULL
    into.door = NULL
    if other.cells != NULL:
        into.cells = <uint8_t *>malloc(size)
        if into.cells != NULL:
            memcpy(into.cells, other.cells, size)
    if other.arena != NULL:
        into.arena_cap = other.arena_len
        into.arena = <uint8_t *>malloc(<size_t>other.arena_len + ROOM)
        if into.arena != NULL:
            memcpy(into.arena, other.arena, other.arena_len)
    if (other.cells != NULL and into.cells == NULL) or (other.arena != NULL and into.arena == NULL):
        freq_free(into)
        return FREQ_ERR_MEMORY
    return 0


cdef void freq_shrink(Freq *f) noexcept nogil:
    cdef int lg = LG_MIN
    close_door(f)
    if f.active == 0:
        free(f.cells)
        free(f.arena)
        f.cells = NULL
        f.arena = NULL
        f.lg_cur = LG_MIN
        f.arena_len = 0
        f.arena_cap = 0
        return
    if f.dense:
        return
    while f.active > limit(lg):
        lg += 1
    if lg < f.lg_cur:
        resize(f, lg)
    if variable(f.kind) and f.arena_cap != f.arena_len:
        pack_arena(f)


cdef size_t freq_size(const Freq *f) noexcept nogil:
    cdef size_t size = OFF_WEIGHTS + 12 * <size_t>f.active
    cdef uint32_t i, n
    cdef uint64_t weight
    cdef const uint8_t *key
    if f.active == 0:
        return 8
    for i in range(cells_of(f)):
        if freq_get(f, i, &key, &n, &weight):
            size += n
    return size


cdef size_t freq_write(const Freq *f, uint8_t *out) noexcept nogil:
    cdef uint32_t i, n
    cdef uint64_t weight
    cdef const uint8_t *key
    cdef size_t at = OFF_WEIGHTS
    cdef size_t item = OFF_WEIGHTS + 8 * <size_t>f.active
    cdef int lg = f.lg_max
    memset(out, 0, 8 if f.active == 0 else OFF_WEIGHTS)
    out[OFF_PREAMBLE] = 1 if f.active == 0 else 4
    out[OFF_VERSION] = 1
    out[OFF_FAMILY] = FAMILY
    # a dense table is written as a table that would be large enough
    while f.dense and f.active > limit(lg):
        lg += 1
    out[OFF_LG_MAX] = <uint8_t>lg
    out[OFF_LG_CUR] = <uint8_t>lg if f.dense else f.lg_cur
    if f.active == 0:
        out[OFF_FLAGS] = FLAGS_EMPTY
        return 8
    memcpy(out + OFF_ACTIVE, &f.active, 4)
    memcpy(out + OFF_TOTAL, &f.total, 8)
    memcpy(out + OFF_OFFSET, &f.offset, 8)
    for i in range(cells_of(f)):
        if freq_get(f, i, &key, &n, &weight):
            memcpy(out + at, &weight, 8)
            at += 8
            memcpy(out + item, &n, 4)
            memcpy(out + item + 4, key, n)
            item += 4 + n
    return item


cdef int read_items(Freq *f, const uint8_t *data, size_t n) noexcept nogil:
    cdef uint32_t active, length, i
    cdef uint64_t weight
    cdef uint64_t sum = 0
    cdef size_t item
    cdef int lg = LG_MIN
    cdef int status
    if n < OFF_WEIGHTS:
        return FREQ_ERR_FORMAT
    memcpy(&active, data + OFF_ACTIVE, 4)
    memcpy(&f.total, data + OFF_TOTAL, 8)
    memcpy(&f.offset, data + OFF_OFFSET, 8)
    # each item takes 12 bytes at least: an allocation must not come from a promise
    if active == 0 or active > limit(f.lg_max) or (n - OFF_WEIGHTS) / 12 < active or f.offset > f.total:
        return FREQ_ERR_FORMAT
    if f.kind == KEY_U16 and f.lg_max > FREQ_LG_MAX:
        f.lg_max = FREQ_LG_MAX           # written by a dense table: it becomes one again
    while active > limit(lg) and lg < f.lg_max:
        lg += 1
    if resize(f, lg) != 0:
        return FREQ_ERR_MEMORY
    item = OFF_WEIGHTS + 8 * <size_t>active
    for i in range(active):
        memcpy(&weight, data + OFF_WEIGHTS + 8 * <size_t>i, 8)
        if n - item < 4:
            return FREQ_ERR_FORMAT
        memcpy(&length, data + item, 4)
        item += 4
        if n - item < length or weight == 0 or sum + weight < sum:
            return FREQ_ERR_FORMAT
        sum += weight
        if length > MAX_NAME or (not variable(f.kind) and length != key_size(f.kind)):
            return FREQ_ERR_FORMAT
        if f.kind == KEY_ADDR and data[item] != 4 and data[item] != 6:
            return FREQ_ERR_FORMAT
        status = put(f, data + item, length, <uint32_t>(hash_key(f.kind, data + item, length) >> 32), weight)
        if status != 0:                  # 1: the same item twice
            return FREQ_ERR_FORMAT if status > 0 else FREQ_ERR_MEMORY
        item += length
    return 0 if sum <= f.total else FREQ_ERR_FORMAT


cdef int freq_read(Freq *f, int kind, const uint8_t *data, size_t n) noexcept nogil:
    """f is uninitialised; empty after an error."""
    cdef int status
    freq_init(f, kind, FREQ_LG_MAX)
    if n < 8 or data[OFF_VERSION] != 1 or data[OFF_FAMILY] != FAMILY:
        return FREQ_ERR_FORMAT
    if data[OFF_LG_MAX] > FREQ_LG_LIMIT or data[OFF_LG_CUR] < LG_MIN or data[OFF_LG_CUR] > data[OFF_LG_MAX]:
        return FREQ_ERR_FORMAT
    f.lg_max = data[OFF_LG_MAX]
    if data[OFF_FLAGS] & FLAGS_EMPTY:
        return 0 if data[OFF_PREAMBLE] == 1 else FREQ_ERR_FORMAT
    if data[OFF_PREAMBLE] != 4:
        return FREQ_ERR_FORMAT
    status = read_items(f, data, n)
    if status != 0:
        freq_free(f)
    return status

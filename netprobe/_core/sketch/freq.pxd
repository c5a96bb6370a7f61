"""Frequent items (TopN), Apache DataSketches semantics (datasketches-format.md, 4)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from netprobe._core.sketch.padded cimport PAD, load_padded

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t np_fold_mul(uint64_t a, uint64_t b) {
        unsigned __int128 p = (unsigned __int128)a * b;
        return (uint64_t)p ^ (uint64_t)(p >> 64);
    }
    """
    uint64_t np_fold_mul(uint64_t a, uint64_t b) noexcept nogil
    void np_prefetch "__builtin_prefetch"(const void *) noexcept nogil

cdef enum:
    # key kinds: what the bytes of a key are, hence how Python renders them
    KEY_IPV4 = 0     # 4 bytes, network order
    KEY_IPV6 = 1     # 16 bytes
    KEY_U16 = 2      # 4 bytes: a port, type or code as native uint32
    KEY_NAME = 3     # 0..255 bytes of text
    KEY_GEO = 4      # 20 bytes: native uint32 mmdb record offset, then an address (16 bytes) that leads there;
                     # only the offset identifies
    KEY_ADDR = 5     # 17 bytes: 4 or 6, then the address (zero padded): subnets
    KEY_TEXT = 6     # variable text up to 511 bytes (dhcp clients, servers)
    KEY_KINDS = 7

cdef enum:
    FREQ_LG_MAX = 13         # what netprobe counts with
    FREQ_LG_LIMIT = 20       # the largest that is read from bytes
    DOOR_SHIFT = 16          # as many bits of a hash choose a counter of the door
    FREQ_BULK = 64           # names that are counted at once
    SIGHTS = 3               # how often a key is turned away before it gets a cell
    FREQ_ERR_MEMORY = -1
    FREQ_ERR_FORMAT = -2

cdef struct Freq:
    uint8_t kind
    uint8_t lg_max           # default 13
    uint8_t lg_cur           # grows by doubling from 3 to lg_max
    uint8_t stride           # bytes per cell, 16 or 32
    uint32_t active
    uint64_t total           # weight offered, purges do not lower it
    uint64_t offset          # maximum error: added to every estimate
    # a cell: uint64 weight (lower bound, 0 = empty), uint32 upper half of the hash, then the key;
    # of NAME and TEXT a uint32 position in the arena. One cache line per look-up
    uint8_t *cells
    uint8_t *arena           # uint16 length + bytes, per name; PAD more bytes than arena_cap can be read
    uint32_t arena_len
    uint32_t arena_cap
    uint32_t salt            # odd; hides the cell of a key from whoever chooses keys
    uint64_t purged          # items thrown out by purges
    uint8_t dense            # KEY_U16: cells are 65536 counts of 32 bits, by number
    uint8_t thin             # never dense (again)
    # Of a table that has been full: the door, where a key has to show up SIGHTS times before it gets a cell. Counters
    # of two bits by hash; those of the keys inside stand at SIGHTS, so whatever stands below is not inside.
    # `offset` covers what a key loses here, as it covers purges
    uint8_t *door
    uint64_t door_limit      # heavier than this always enters; 0: never been full
    uint64_t door_lost       # as heavy as this may be turned away until the counters begin anew
    uint64_t door_want       # as heavy as this would have been worth it
    uint64_t door_sum        # the weight of all that have been turned away
    uint64_t door_end        # ... at which they begin anew

cdef struct FreqName:
    const uint8_t *name      # PAD readable bytes
    uint64_t hash
    uint32_t n
    uint32_t weight          # not 0

cdef struct FreqRow:
    uint64_t weight
    const uint8_t *key
    uint32_t n

cdef void freq_init(Freq *f, int kind, int lg_max) noexcept nogil        # allocates nothing until used
cdef void freq_free(Freq *f) noexcept nogil
# hash must come from freq_hash over the identifying bytes (KEY_GEO: the first 4)
cdef void freq_update(Freq *f, const uint8_t *key, uint32_t n, uint64_t hash, uint64_t weight) noexcept nogil
# The same for up to FREQ_BULK names in two steps, so that the cells of several tables come near meanwhile: who is not
# turned away (places in `names`, and how many), and counting these
cdef uint32_t freq_admit(Freq *f, const FreqName *names, uint32_t n, uint8_t *inside) noexcept nogil
cdef void freq_count_names(Freq *f, const FreqName *names, const uint8_t *inside, uint32_t k) noexcept nogil
# for freq_turned_away
cdef bint freq_begin_turning(Freq *f, uint64_t weight) noexcept nogil
cdef void freq_renew_door(Freq *f) noexcept nogil
cdef int freq_merge(Freq *into, const Freq *other) noexcept nogil
cdef int freq_copy(Freq *into, const Freq *other) noexcept nogil
cdef int freq_get(const Freq *f, uint32_t cell, const uint8_t **key, uint32_t *n, uint64_t *weight) noexcept nogil  # 0 if the cell is empty
cdef uint64_t freq_weight(const Freq *f, const uint8_t *key, uint32_t n) noexcept nogil  # lower bound; 0: not tracked
cdef uint32_t freq_rows(const Freq *f, FreqRow *out) noexcept nogil      # all `active` rows, heaviest first, then by key
cdef uint32_t freq_top(const Freq *f, FreqRow *out, uint32_t most) noexcept nogil  # the first `most` of these; for a few
cdef void freq_shrink(Freq *f) noexcept nogil                            # smallest table that fits, exact arena
cdef size_t freq_size(const Freq *f) noexcept nogil
cdef size_t freq_write(const Freq *f, uint8_t *out) noexcept nogil       # items: uint32 length and the key's bytes
cdef int freq_read(Freq *f, int kind, const uint8_t *data, size_t n) noexcept nogil
cdef void freq_set_seed(uint64_t seed) noexcept nogil                    # sketches made from now on

cdef inline uint32_t home(const Freq *f, uint32_t tag) noexcept nogil:
    """The cell that a key with this upper half of a hash is looked for in first; not of a dense table."""
    return (tag * f.salt) >> (31 - f.lg_cur)


cdef inline uint32_t limit(int lg) noexcept nogil:
    """Keys that a table of this size holds."""
    return 3 * (<uint32_t>1 << lg) // 4


cdef inline uint64_t hash_words(const uint64_t *w, size_t n) noexcept nogil:
    """Of the first 32 bytes of a key of n, zeros behind them; the constants are fractional digits of pi."""
    cdef uint64_t h = np_fold_mul(w[0] ^ <uint64_t>0x13198A2E03707344ULL, w[1] ^ <uint64_t>0x243F6A8885A308D3ULL ^ n)
    return h + np_fold_mul(w[2] ^ <uint64_t>0xA4093822299F31D1ULL, w[3] ^ <uint64_t>0x082EFA98EC4E6C89ULL)


cdef inline uint64_t hash_end(uint64_t h) noexcept nogil:
    h = np_fold_mul(h ^ <uint64_t>0x452821E638D01377ULL, h ^ <uint64_t>0xBE5466CF34E90C6DULL)
    return h if h != 0 else 1


cdef inline uint64_t hash_rest(uint64_t h, const uint8_t *key, size_t n) noexcept nogil:
    """What lies behind the first 32 bytes."""
    cdef uint64_t w[2]
    cdef size_t at = 32
    while at < n:
        w[0] = w[1] = 0
        memcpy(w, key + at, n - at if n - at < 16 else 16)
        h = np_fold_mul(w[0] ^ h, w[1] ^ <uint64_t>0xC0AC29B7C97C50DDULL)
        at += 16
    return h


cdef inline uint64_t freq_hash(const uint8_t *key, size_t n) noexcept nogil:
    """64 bits of any bytes; never 0. Not stable between releases: never stored."""
    cdef uint64_t w[4]
    cdef uint64_t h
    if n >= 32:
        memcpy(w, key, 32)
    else:
        w[0] = w[1] = w[2] = w[3] = 0
        if n == 4:
            memcpy(w, key, 4)
        else:
            memcpy(w, key, n)
    h = hash_words(w, n)
    return hash_end(hash_rest(h, key, n) if n > 32 else h)


cdef inline uint64_t freq_hash_padded(const uint8_t *key, size_t n) noexcept nogil:
    """The same of a key with PAD readable bytes; without branches up to 32, since lengths cannot be predicted."""
    cdef uint64_t w[4]
    cdef uint64_t h
    load_padded(key, n, w)
    h = hash_words(w, n)
    if n > 32:
        h = hash_rest(h, key, n)
    return hash_end(h)


cdef inline uint32_t door_counter(const Freq *f, uint64_t hash) noexcept nogil:
    return (<uint32_t>(hash >> 32) * f.salt) >> DOOR_SHIFT


cdef inline bint freq_turned_away(Freq *f, uint64_t hash, uint64_t weight) noexcept nogil:
    """Count at the door. False: go on to the table."""
    cdef uint32_t at, shift
    cdef uint8_t *four
    if f.door == NULL:
        return False
    at = door_counter(f, hash)
    four = f.door + (at >> 2)
    shift = 2 * (at & 3)
    if (four[0] >> shift) & SIGHTS == SIGHTS:
        return False
    if weight > f.door_lost and not freq_begin_turning(f, weight):
        four[0] |= SIGHTS << shift
        return False
    four[0] += 1 << shift
    f.total += weight
    f.purged += 1
    f.door_sum += weight
    if f.door_sum >= f.door_end:
        freq_renew_door(f)
    return True


cdef inline bint freq_settled(const Freq *f, uint32_t n) noexcept nogil:
    """Can n keys of weight 1 come one after another without the door being opened, moved or renewed? Then it does not
    matter whether they are counted at the door first and then inside."""
    if f.door == NULL:
        return f.active + n <= limit(f.lg_max)
    return f.door_lost != 0 and f.door_sum + n < f.door_end


cdef inline uint32_t freq_pass(Freq *f, uint64_t hash) noexcept nogil:
    """freq_turned_away of a settled table that has a door, without a branch: nobody can predict who is known. 0: turned
    away, which is to be added up for freq_turned."""
    cdef uint32_t at = door_counter(f, hash)
    cdef uint32_t shift = 2 * (at & 3)
    cdef uint32_t out = (f.door[at >> 2] >> shift) & SIGHTS != SIGHTS
    f.door[at >> 2] += <uint8_t>(out << shift)
    return 1 - out


cdef inline void freq_turned(Freq *f, uint32_t n) noexcept nogil:
    """So many were turned away by freq_pass."""
    f.total += n
    f.purged += n
    f.door_sum += n


cdef inline void freq_ask(const Freq *f, uint64_t hash) noexcept nogil:
    """Ask for the cell that a key with this hash is likely to be in; there are cells."""
    np_prefetch(f.cells + <size_t>home(f, <uint32_t>(hash >> 32)) * f.stride)


cdef inline void freq_prefetch(const Freq *f, uint64_t hash) noexcept nogil:
    """Ask for the cell that an update with this hash will look at first, if it will."""
    cdef uint32_t at
    cdef size_t cell
    if f.cells == NULL:
        return
    cell = <size_t>home(f, <uint32_t>(hash >> 32)) * f.stride
    if f.door != NULL:
        # who is outside gets a cell that has been asked for before: cheaper than a branch
        at = door_counter(f, hash)
        cell &= 0 - <size_t>((f.door[at >> 2] >> (2 * (at & 3))) & SIGHTS == SIGHTS)
    np_prefetch(f.cells + cell)


cdef inline uint64_t freq_hash_word(uint32_t word) noexcept nogil:
    return freq_hash(<const uint8_t *>&word, 4)


cdef inline void freq_prefetch_word(const Freq *f, uint32_t word) noexcept nogil:
    """freq_prefetch for keys of four bytes."""
    if f.dense:
        np_prefetch(f.cells + <size_t>(word & 65535) * 4)
    else:
        freq_prefetch(f, freq_hash_word(word))


cdef inline void freq_add_word(Freq *f, uint32_t word, uint64_t hash) noexcept nogil:
    """freq_update for keys of four bytes and weight 1."""
    if not freq_turned_away(f, hash, 1):
        freq_count_word(f, word, hash)


cdef inline void freq_count_word(Freq *f, uint32_t word, uint64_t hash) noexcept nogil:
    """The same of one that the door lets in; most are in the first cell already."""
    cdef uint8_t *cell
    cdef uint64_t weight
    cdef uint32_t tag, key
    if f.cells != NULL:
        cell = f.cells + <size_t>home(f, <uint32_t>(hash >> 32)) * 16
        memcpy(&weight, cell, 8)
        memcpy(&tag, cell + 8, 4)
        memcpy(&key, cell + 12, 4)
        if weight != 0 and tag == <uint32_t>(hash >> 32) and key == word:
            weight += 1
            memcpy(cell, &weight, 8)
            f.total += 1
            return
    freq_update(f, <const uint8_t *>&word, 4, hash, 1)


cdef inline void freq_add_ipv6(Freq *f, const uint8_t *addr, uint64_t hash) noexcept nogil:
    """freq_update of a KEY_IPV6 table with weight 1."""
    if not freq_turned_away(f, hash, 1):
        freq_count_ipv6(f, addr, hash)


cdef inline void freq_count_ipv6(Freq *f, const uint8_t *addr, uint64_t hash) noexcept nogil:
    """The same of one that the door lets in; most are in the first cell already."""
    cdef uint8_t *cell
    cdef uint64_t weight
    cdef uint64_t key[2]
    cdef uint64_t known[2]
    if f.cells != NULL:
        cell = f.cells + <size_t>home(f, <uint32_t>(hash >> 32)) * 32
        memcpy(&weight, cell, 8)
        memcpy(known, cell + 12, 16)
        memcpy(key, addr, 16)
        if weight != 0 and ((known[0] ^ key[0]) | (known[1] ^ key[1])) == 0:
            weight += 1
            memcpy(cell, &weight, 8)
            f.total += 1
            return
    freq_update(f, addr, 16, hash, 1)


cdef inline bint freq_hit_geo(Freq *f, uint32_t offset, uint64_t hash) noexcept nogil:
    """freq_update of a KEY_GEO table with weight 1, if the key is in the first cell. False: nothing has been counted."""
    cdef uint8_t *cell
    cdef uint64_t weight
    cdef uint32_t known
    if f.cells == NULL:
        return False
    cell = f.cells + <size_t>home(f, <uint32_t>(hash >> 32)) * 32
    memcpy(&weight, cell, 8)
    memcpy(&known, cell + 12, 4)
    if weight == 0 or known != offset:
        return False
    weight += 1
    memcpy(cell, &weight, 8)
    f.total += 1
    return True


cdef inline void freq_add_number(Freq *f, uint32_t number) noexcept nogil:
    """The same of a KEY_U16 table, which may be dense."""
    cdef uint32_t *count
    if f.dense and number < 65536:
        count = <uint32_t *>f.cells + number
        if count[0] != 0 and count[0] != <uint32_t>0xFFFFFFFF:
            count[0] += 1
            f.total += 1
            return
    if f.dense:
        freq_update(f, <const uint8_t *>&number, 4, 1, 1)
    else:
        freq_add_word(f, number, freq_hash_word(number))

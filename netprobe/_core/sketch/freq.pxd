"""Frequent items (TopN), Apache DataSketches semantics (datasketches-format.md, 4)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
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
    uint8_t *arena           # uint16 length + bytes, per name
    uint32_t arena_len
    uint32_t arena_cap
    uint32_t salt            # odd; hides the cell of a key from whoever chooses keys
    uint64_t purged          # items thrown out by purges

cdef struct FreqRow:
    uint64_t weight
    const uint8_t *key
    uint32_t n

cdef void freq_init(Freq *f, int kind, int lg_max) noexcept nogil        # allocates nothing until used
cdef void freq_free(Freq *f) noexcept nogil
# hash must come from freq_hash over the identifying bytes (KEY_GEO: the first 4)
cdef void freq_update(Freq *f, const uint8_t *key, uint32_t n, uint64_t hash, uint64_t weight) noexcept nogil
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

cdef inline uint64_t freq_hash(const uint8_t *key, size_t n) noexcept nogil:
    """64 bits of any bytes; never 0. Not stable between releases: never stored."""
    cdef uint64_t a = 0
    cdef uint64_t b = 0
    cdef uint64_t h = <uint64_t>0x243F6A8885A308D3ULL ^ n        # fractional digits of pi, as below
    cdef uint32_t low, high
    if n > 16:
        while n > 16:
            memcpy(&a, key, 8)
            memcpy(&b, key + 8, 8)
            h = np_fold_mul(a ^ <uint64_t>0x13198A2E03707344ULL, b ^ h)
            key += 16
            n -= 16
        memcpy(&a, key + n - 16, 8)                              # the last 16 bytes, some of them twice
        memcpy(&b, key + n - 8, 8)
    elif n >= 8:
        memcpy(&a, key, 8)
        memcpy(&b, key + n - 8, 8)
    elif n >= 4:
        memcpy(&low, key, 4)
        memcpy(&high, key + n - 4, 4)
        a = low
        b = high
    elif n > 0:
        a = (<uint64_t>key[0] << 16) | (<uint64_t>key[n >> 1] << 8) | key[n - 1]
    h = np_fold_mul(a ^ <uint64_t>0xA4093822299F31D1ULL ^ h, b ^ <uint64_t>0x082EFA98EC4E6C89ULL)
    h = np_fold_mul(h ^ <uint64_t>0x452821E638D01377ULL, h ^ <uint64_t>0xBE5466CF34E90C6DULL)
    return h if h != 0 else 1


cdef inline void freq_prefetch(const Freq *f, uint64_t hash) noexcept nogil:
    """Ask for the cell that an update with this hash will look at first."""
    if f.cells != NULL:
        np_prefetch(f.cells + <size_t>((<uint32_t>(hash >> 32) * f.salt) >> (31 - f.lg_cur)) * f.stride)


cdef inline void freq_add_word(Freq *f, uint32_t word, uint64_t hash) noexcept nogil:
    """freq_update for keys of four bytes and weight 1; most are in the first cell already."""
    cdef uint8_t *cell
    cdef uint64_t weight
    cdef uint32_t tag, key
    if f.cells != NULL:
        cell = f.cells + <size_t>((<uint32_t>(hash >> 32) * f.salt) >> (31 - f.lg_cur)) * 16
        memcpy(&weight, cell, 8)
        memcpy(&tag, cell + 8, 4)
        memcpy(&key, cell + 12, 4)
        if weight != 0 and tag == <uint32_t>(hash >> 32) and key == word:
            weight += 1
            memcpy(cell, &weight, 8)
            f.total += 1
            return
    freq_update(f, <const uint8_t *>&word, 4, hash, 1)


cdef inline void freq_prefetch_name(const Freq *f, uint64_t hash) noexcept nogil:
    """The same one step further, when that cell is near: the name to compare with."""
    cdef const uint8_t *cell
    cdef uint32_t tag, place
    if f.cells != NULL:
        cell = f.cells + <size_t>((<uint32_t>(hash >> 32) * f.salt) >> (31 - f.lg_cur)) * f.stride
        memcpy(&tag, cell + 8, 4)
        if tag == <uint32_t>(hash >> 32):
            memcpy(&place, cell + 12, 4)
            np_prefetch(f.arena + place)

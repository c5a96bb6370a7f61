"""Frequent items (TopN), Apache DataSketches semantics (datasketches-format.md, 4)."""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

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

cdef struct Freq:
    uint8_t kind
    uint8_t lg_max           # default 13
    uint8_t lg_cur           # grows by doubling from 3 (or larger) to lg_max
    uint32_t active
    uint64_t total           # weight offered, purges do not lower it
    uint64_t offset          # maximum error: added to every estimate
    uint64_t *hashes         # 2^lg_cur, 0 = empty cell
    uint64_t *weights        # lower bounds
    uint8_t *keys            # fixed-size keys, or uint32 (offset) into arena for NAME and TEXT
    uint8_t *arena           # uint16 length + bytes, per name
    uint32_t arena_len
    uint32_t arena_cap
    uint64_t purged          # items thrown out by purges

cdef uint64_t freq_hash(const uint8_t *key, size_t n) noexcept nogil     # never 0
cdef void freq_init(Freq *f, int kind, int lg_max) noexcept nogil        # allocates nothing until used
cdef void freq_free(Freq *f) noexcept nogil
# hash must come from freq_hash over the identifying bytes (KEY_GEO: the first 4)
cdef void freq_update(Freq *f, const uint8_t *key, uint32_t n, uint64_t hash, uint64_t weight) noexcept nogil
cdef int freq_merge(Freq *into, const Freq *other) noexcept nogil
cdef int freq_copy(Freq *into, const Freq *other) noexcept nogil
cdef int freq_get(const Freq *f, uint32_t cell, const uint8_t **key, uint32_t *n, uint64_t *weight) noexcept nogil  # 0 if the cell is empty
cdef void freq_shrink(Freq *f) noexcept nogil                            # smallest table that fits, exact arena

"""Remote addresses on their way from packets to the tables of net handlers, both versions."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from netprobe._core.mmdb cimport Mmdb
from netprobe._core.packet cimport L3_IPV4
from netprobe._core.sketch.freq cimport hash_end, hash_words, np_prefetch
from netprobe._core.store cimport MetricSet
from netprobe._core.wire.be cimport load64

cdef enum:
    # tables of a peer, the same in both versions
    T_IPV4
    T_IPV6
    T_CITY
    T_ASN

cdef enum:
    PEERS = 64                 # counted together, in passes: what one waits for, the others need not
    # bits of count_peers
    COUNT_IPS = 1
    COUNT_CARDINALITY = 2
    COUNT_CITY = 4
    COUNT_ASN = 8
    USERS = 4                  # handlers that share an Addresses
    USER_BITS = 3              # what each may name by `bit`
    MARKS = (1 << (USERS * USER_BITS)) - 1

cdef struct Peer:
    const uint8_t *addr        # 16 bytes, zeros behind the four of IPv4
    uint64_t hash
    uint32_t bit               # of the user: names block and cardinality
    uint8_t family
    uint8_t card

cdef struct Peers:
    MetricSet *m               # where they count
    uint32_t n
    Peer peer[PEERS]

cdef struct Place:
    # where an address leads in the databases
    uint32_t city
    uint32_t asn

cdef class Addresses:
    """What net handlers of one shard remember about remote addresses: a query's client is met again with the response, and
    by the next handler."""
    cdef Mmdb city
    cdef Mmdb asn
    cdef bint wants_city, wants_asn
    # Direct mapped; 0: empty. Hash of the address; its lowest bits, which are mostly those of the slot's number, are marks
    # of the users who have counted it in this bucket.
    cdef uint64_t *known
    cdef Place *places         # of the same slots; NULL: nobody asks for any
    cdef uint64_t mask
    cdef uint32_t strangers    # met since `known` got its size
    cdef int users
    cdef int join(self, bint wants_city, bint wants_asn) except -1
    cdef void new_bucket(self) noexcept nogil

# `what`: COUNT_*; afterwards there are none
cdef void count_peers(Addresses a, Peers *peers, int user, int what) noexcept nogil


cdef inline void add_peer(Addresses a, Peers *peers, const uint8_t *addr, int family, int card, uint32_t bit) noexcept nogil:
    """Note one for count_peers, if it is an address at all, and ask for what that will look at. There is room for it."""
    cdef Peer *peer = &peers.peer[peers.n]
    cdef uint64_t w[4]
    w[0] = load64(addr)
    w[1] = load64(addr + 8)
    w[2] = w[3] = 0
    peer.addr = addr
    peer.family = <uint8_t>family
    peer.card = <uint8_t>card
    peer.bit = bit
    # freq_hash of the address
    peer.hash = hash_end(hash_words(w, 4 if family == L3_IPV4 else 16))
    peers.n += (w[0] | w[1]) != 0
    np_prefetch(&a.known[peer.hash & a.mask])
    if a.places != NULL:
        np_prefetch(&a.places[peer.hash & a.mask])


cdef inline uint8_t *geo_key(uint8_t *key, uint32_t offset, const uint8_t *addr, int family) noexcept nogil:
    """KEY_GEO: record offset, then an address that leads to it (IPv4 mapped)."""
    memcpy(key, &offset, 4)
    if family == L3_IPV4:
        memset(key + 4, 0, 10)
        key[14] = 0xFF
        key[15] = 0xFF
        memcpy(key + 16, addr, 4)
    else:
        memcpy(key + 4, addr, 16)
    return key

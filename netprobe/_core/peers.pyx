"""Remote addresses: where they lead in the geo databases is looked up once, by whichever handler meets one first."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from netprobe._core.sketch.freq cimport (
    Freq, freq_add_ipv6, freq_add_word, freq_ask, freq_count_ipv6, freq_count_word, freq_hash_word, freq_hit_geo, freq_pass,
    freq_settled, freq_turned, freq_update,
)
from netprobe._core.sketch.hll cimport hll_add, hll_coupon
from netprobe._core.wire.be cimport load32

cdef enum:
    KNOWN_FIRST = 256          # addresses that are remembered, powers of two: most policies never see many
    KNOWN_MOST = 32768


cdef class Addresses:
    """``city`` and ``asn`` are databases or None."""

    def __cinit__(self, city=None, asn=None):
        self.city = city
        self.asn = asn
        self.known = <uint64_t *>calloc(KNOWN_FIRST, sizeof(uint64_t))
        if self.known == NULL:
            raise MemoryError
        self.mask = KNOWN_FIRST - 1

    def __dealloc__(self):
        free(self.known)
        free(self.places)

    @property
    def full(self):
        """Can no more handlers share it?"""
        return self.users == USERS

    cdef int join(self, bint wants_city, bint wants_asn) except -1:
        """The number of a new user. All of them come before the first packet."""
        self.wants_city |= wants_city
        self.wants_asn |= wants_asn
        if self.places == NULL and (wants_city or wants_asn):
            self.places = <Place *>calloc(self.mask + 1, sizeof(Place))
            if self.places == NULL:
                raise MemoryError
        self.users += 1
        return self.users - 1

    cdef void new_bucket(self) noexcept nogil:
        """Nobody has been counted yet. All users of one shard change buckets together."""
        cdef uint64_t i
        for i in range(self.mask + 1):
            self.known[i] &= ~<uint64_t>MARKS


cdef void meet(Addresses a, uint64_t slot, const Peer *peer) noexcept nogil:
    a.strangers += 1
    a.known[slot] = peer.hash & ~<uint64_t>MARKS
    if a.wants_city:
        a.places[slot].city = a.city.lookup(peer.addr, peer.family)
    if a.wants_asn:
        a.places[slot].asn = a.asn.lookup(peer.addr, peer.family)


cdef void add_place(Freq *f, uint32_t offset, uint64_t hash, const Peer *peer, uint64_t weight) noexcept nogil:
    cdef uint8_t key[20]
    freq_update(f, geo_key(key, offset, peer.addr, peer.family), 20, hash, weight)


cdef void count_places(const Peers *peers, const uint32_t *offsets, int table) noexcept nogil:
    """Their records; of most addresses nothing is known, and they are added up first."""
    cdef Freq *f = &peers.m.topn[table]
    cdef uint64_t nowhere = 0
    cdef const Peer *who = NULL
    cdef uint64_t hash
    cdef uint32_t i
    for i in range(peers.n):
        if offsets[i] == 0:
            nowhere += 1
            who = &peers.peer[i]
            continue
        hash = freq_hash_word(offsets[i])
        if not freq_hit_geo(f, offsets[i], hash):
            add_place(f, offsets[i], hash, &peers.peer[i], 1)
    if nowhere:
        add_place(f, 0, freq_hash_word(0), who, nowhere)


cdef void grow(Addresses a) noexcept nogil:
    """More room for strangers; what was known is met again soon enough."""
    cdef uint64_t *larger
    cdef Place *places = NULL
    cdef uint64_t n = 4 * (a.mask + 1)
    if a.strangers > 4 * a.mask and a.mask < KNOWN_MOST - 1:
        larger = <uint64_t *>calloc(n, sizeof(uint64_t))
        if a.places != NULL:
            places = <Place *>calloc(n, sizeof(Place))
        if larger != NULL and (places != NULL or a.places == NULL):
            free(a.known)
            free(a.places)
            a.known = larger
            a.places = places
            a.mask = n - 1
        else:
            free(larger)
            free(places)
        a.strangers = 0


cdef uint32_t through_door(Freq *f, const Peers *peers, uint8_t *who, uint32_t n) noexcept nogil:
    """Of those named by `who`, the ones that the door lets in are left, in their order, and their cells asked for."""
    cdef uint32_t k = 0, i
    cdef uint8_t one
    if f.door == NULL:
        k = n
    else:
        for i in range(n):
            one = who[i]
            who[k] = one
            k += freq_pass(f, peers.peer[one].hash)
        freq_turned(f, n - k)
    if f.cells != NULL:
        for i in range(k):
            freq_ask(f, peers.peer[who[i]].hash)
    return k


cdef void count_ips(const Peers *peers, uint8_t *four, uint32_t n4, uint8_t *six, uint32_t n6) noexcept nogil:
    cdef Freq *f = &peers.m.topn[T_IPV4]
    cdef const Peer *peer
    cdef uint32_t i
    if freq_settled(f, n4):
        for i in range(through_door(f, peers, four, n4)):
            peer = &peers.peer[four[i]]
            freq_count_word(f, load32(peer.addr), peer.hash)
    else:
        for i in range(n4):
            peer = &peers.peer[four[i]]
            freq_add_word(f, load32(peer.addr), peer.hash)
    f = &peers.m.topn[T_IPV6]
    if freq_settled(f, n6):
        for i in range(through_door(f, peers, six, n6)):
            peer = &peers.peer[six[i]]
            freq_count_ipv6(f, peer.addr, peer.hash)
    else:
        for i in range(n6):
            peer = &peers.peer[six[i]]
            freq_add_ipv6(f, peer.addr, peer.hash)


cdef void count_peers(Addresses a, Peers *peers, int user, int what) noexcept nogil:
    cdef uint8_t four[PEERS]
    cdef uint8_t six[PEERS]
    cdef uint8_t fresh[PEERS]
    cdef uint32_t city[PEERS]
    cdef uint32_t asn[PEERS]
    cdef uint32_t n4 = 0, n6 = 0, n_fresh = 0, i
    cdef uint64_t bit, slot, known
    cdef Peer *peer
    # who is new to the bucket is found without branches, as nobody can predict it
    for i in range(peers.n):
        peer = &peers.peer[i]
        four[n4] = six[n6] = fresh[n_fresh] = <uint8_t>i
        n4 += peer.family == L3_IPV4
        n6 += peer.family != L3_IPV4
        known = a.known[peer.hash & a.mask]
        n_fresh += ((known ^ peer.hash) > MARKS) | ((known >> (user * USER_BITS)) & peer.bit == 0)
    for i in range(n_fresh):
        peer = &peers.peer[fresh[i]]
        slot = peer.hash & a.mask
        if (a.known[slot] ^ peer.hash) > MARKS:
            meet(a, slot, peer)
        bit = <uint64_t>peer.bit << (user * USER_BITS)
        if not a.known[slot] & bit:
            a.known[slot] |= bit
            if what & COUNT_CARDINALITY:
                hll_add(&peers.m.card[peer.card],
                        hll_coupon(peer.addr, 4) if peer.family == L3_IPV4 else hll_coupon(peer.addr, 16))
    if what & COUNT_IPS:
        count_ips(peers, four, n4, six, n6)
    if what & (COUNT_CITY | COUNT_ASN):
        for i in range(peers.n):
            peer = &peers.peer[i]
            slot = peer.hash & a.mask
            # another one of these may have taken its place
            if (a.known[slot] ^ peer.hash) > MARKS:
                meet(a, slot, peer)
            city[i] = a.places[slot].city
            asn[i] = a.places[slot].asn
        if what & COUNT_CITY:
            count_places(peers, city, T_CITY)
        if what & COUNT_ASN:
            count_places(peers, asn, T_ASN)
    peers.n = 0
    grow(a)

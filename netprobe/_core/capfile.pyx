"""pcap and pcapng framing (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng; libpcap's limits).

Bytes come from a file descriptor by read(2) into recycled blocks: a file that is truncated or grows
meanwhile can do no harm, and memory does not depend on its size. Packets point into the block.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from cpython.exc cimport PyErr_CheckSignals
from libc.string cimport memcpy, strerror
from posix.stat cimport S_ISREG, fstat, struct_stat
from posix.unistd cimport read

cdef extern from *:
    """
    #include <poll.h>
    #define np_inc(p) __atomic_fetch_add((p), 1, __ATOMIC_RELAXED)
    #define np_dec(p) __atomic_sub_fetch((p), 1, __ATOMIC_ACQ_REL)
    #define np_lock(p) while (__atomic_exchange_n((p), 1, __ATOMIC_ACQUIRE)) { __builtin_ia32_pause_or_nop(); }
    #define np_unlock(p) __atomic_store_n((p), 0, __ATOMIC_RELEASE)
    #define np_likely(x) __builtin_expect(!!(x), 1)
    #if defined(__x86_64__) || defined(__i386__)
    #define __builtin_ia32_pause_or_nop() __builtin_ia32_pause()
    #else
    #define __builtin_ia32_pause_or_nop() ((void)0)
    #endif
    """
    void np_inc(uint32_t *) noexcept nogil
    uint32_t np_dec(uint32_t *) noexcept nogil
    void np_lock(int *) noexcept nogil
    void np_unlock(int *) noexcept nogil
    bint np_likely(bint) noexcept nogil
    int poll(pollfd *, unsigned long, int) noexcept nogil
    enum:
        POLLIN
    uint32_t bswap32 "__builtin_bswap32"(uint32_t) noexcept nogil
    uint16_t bswap16 "__builtin_bswap16"(uint16_t) noexcept nogil

cdef enum:
    POLL_MS = 100
    PCAP_HEADER = 24
    PCAP_RECORD = 16
    MODIFIED_RECORD = 24
    BLOCK_HEAD = 8               # pcapng: type, total length
    BLOCK_MIN = 12
    MAX_INTERFACES = 65536
    DESCRIPTION_BYTES = 65536    # of an interface block: options beyond are ignored
    MAX_BLOCK = 16777216         # libpcap's limit for a block with a packet
    WHOLE_BLOCK = 327680         # a packet's block up to this size must be there to its last byte

# the last second that a stamp may have
cdef uint64_t MAX_SECOND = 9000000000ULL

cdef enum:
    BT_SECTION = 0x0A0D0D0A
    BT_INTERFACE = 1
    BT_PACKET = 2
    BT_SIMPLE = 3
    BT_ENHANCED = 6

cdef inline uint32_t get32(const uint8_t *p, int swapped) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return bswap32(v) if swapped else v


cdef inline uint16_t get16(const uint8_t *p, int swapped) noexcept nogil:
    cdef uint16_t v
    memcpy(&v, p, 2)
    return bswap16(v) if swapped else v


cdef int64_t to_ns(const Interface *f, uint64_t t) noexcept nogil:
    """A pcapng stamp in units of its interface as ns since the epoch."""
    cdef uint64_t sec
    cdef uint64_t part
    cdef int64_t ns
    if f.units:
        sec = t // f.units
        part = t % f.units
        if f.units <= 1000000000:
            ns = <int64_t>(part * (1000000000 // f.units))
        else:
            ns = <int64_t>(part // (f.units // 1000000000))
    elif f.shift < 64:
        sec = t >> f.shift if f.shift else t
        part = t & (((<uint64_t>1) << f.shift) - 1)
        # keep 32 bits of the fraction: under a quarter of a ns is lost
        if f.shift > 32:
            part >>= f.shift - 32
            ns = <int64_t>((part * 1000000000) >> 32)
        else:
            ns = <int64_t>((part * 1000000000) >> f.shift)
    else:
        sec = 0
        ns = 0
    # 64 bits of ns end in 2262: hold stamps inside of 1970 to 2255, so that a difference of two of them, or one
    # and a period more, is a number too
    if sec > MAX_SECOND:
        sec = MAX_SECOND
    cdef int64_t off = f.offset
    if off > 4611686018LL or off < -4611686018LL:
        off = 0
    cdef int64_t whole = <int64_t>sec + off
    if whole < 0:
        return 0
    return whole * 1000000000 + ns if whole < <int64_t>MAX_SECOND else <int64_t>MAX_SECOND * 1000000000


cdef class CaptureReader(PacketSource):
    """Frames one capture. `source` has fileno-like `fd`, `prefix` (bytes already read) and `name`."""

    def __cinit__(self, source):
        self.name = source.name
        self.fd = source.fd
        self.keep = source
        self.prefix = bytes(source.prefix)
        self.prefix_data = self.prefix
        self.prefix_len = <uint32_t>len(self.prefix)
        self.frac = 1000
        self.major = self.minor = -1
        cdef struct_stat st
        self.regular = fstat(self.fd, &st) == 0 and S_ISREG(st.st_mode)

    def __dealloc__(self):
        cdef Block *b
        if self.block != NULL:
            free(self.block.buf)
            free(self.block)
        while self.free_blocks != NULL:
            b = self.free_blocks
            self.free_blocks = b.next
            free(b.buf)
            free(b)
        free(self.ifaces)

    @property
    def bytes_read(self):
        return self.consumed

    @property
    def orphan_packets(self):
        return self.orphans

    @property
    def format_name(self):
        return ("unknown", "pcap", "pcapng")[self.format]

    def open(self):
        """Read the file header. Raises ValueError when this is no capture."""
        cdef int r
        while True:
            with nogil:
                r = self._start()
            if r == 0 or not self.silent:
                break
            PyErr_CheckSignals()
        if r == -2:
            raise MemoryError
        if self.ended == END_IO:
            raise OSError(self.error, strerror(self.error).decode())
        if r < 0:
            raise ValueError(self.bad_start())

    def bad_start(self):
        cdef uint32_t have = self.end - self.pos
        if have == 0 and self.block != NULL:
            return "is empty"
        head = bytes(self.block.buf[self.pos:self.pos + min(have, 4)]).hex(" ")
        if self.major >= 0:
            return f"has {self.format_name} version {self.major}.{self.minor}, which is not known"
        if self.format:
            return "ends inside its header"
        return f"is not a capture: it begins with {head}"

    def interfaces(self):
        """[(link type, packets)] for each interface seen so far."""
        return [(self.ifaces[i].linktype, self.ifaces[i].packets) for i in range(self.n_ifaces)]

    # ------------------------------------------------------------------ blocks

    cdef int _new_block(self) noexcept nogil:
        """Start a block with what is left of the present one."""
        cdef Block *b
        cdef uint32_t left = self.end - self.pos
        np_lock(&self.lock)
        b = self.free_blocks
        if b != NULL:
            self.free_blocks = b.next
        np_unlock(&self.lock)
        if b == NULL:
            b = <Block *>calloc(1, sizeof(Block))
            if b == NULL:
                return -1
            b.buf = <uint8_t *>malloc(BLOCK_BYTES)
            if b.buf == NULL:
                free(b)
                return -1
        b.refs = 1
        b.next = NULL
        if left:
            memcpy(b.buf, self.block.buf + self.pos, left)
        if self.block != NULL:
            self._drop(self.block)
        self.block = b
        self.pos = 0
        self.end = left
        return 0

    cdef void _drop(self, Block *b) noexcept nogil:
        if np_dec(&b.refs) == 0:
            np_lock(&self.lock)
            b.next = self.free_blocks
            self.free_blocks = b
            np_unlock(&self.lock)

    cdef void release(self, Batch *b) noexcept nogil:
        """The batch's packets are no longer needed (any thread)."""
        if b.block != NULL:
            self._drop(b.block)
            b.block = NULL

    cdef void hold(self, Batch *b) noexcept nogil:
        """One more user of the batch's block."""
        if b.block != NULL:
            np_inc(&b.block.refs)

    cdef int _fill(self) noexcept nogil:
        """Read more behind `end`. Returns bytes, 0 at the end, -1 on an error."""
        cdef ssize_t got
        cdef uint32_t room = BLOCK_BYTES - self.end
        cdef uint32_t n
        if room > READ_BYTES:
            room = READ_BYTES
        if self.prefix_used < self.prefix_len:
            n = self.prefix_len - self.prefix_used
            if n > room:
                n = room
            memcpy(self.block.buf + self.end, self.prefix_data + self.prefix_used, n)
            self.prefix_used += n
            self.end += n
            return <int>n
        if self.eof:
            return 0
        self.silent = 0
        if not self.regular:
            # a pipe may stay silent for ever: come back now and then, so that Python can handle signals
            self.waiting.fd = self.fd
            self.waiting.events = POLLIN
            if poll(&self.waiting, 1, POLL_MS) <= 0:
                self.silent = 1
                return -1
        got = read(self.fd, self.block.buf + self.end, room)
        if got < 0 and (errno == EINTR or errno == EAGAIN):
            self.silent = 1
            return -1
        if got < 0:
            self.error = errno
            self.ended = END_IO
            self.eof = 1
            return -1
        if got == 0:
            self.eof = 1
            return 0
        self.end += <uint32_t>got
        return <int>got

    cdef int _need(self, uint32_t n) noexcept nogil:
        """Have n contiguous bytes at pos: 1, or 0 when the input ends before that. n <= BLOCK_BYTES."""
        while self.end - self.pos < n:
            if self.block == NULL or self.pos + n > BLOCK_BYTES or self.end == BLOCK_BYTES:
                if self._new_block() < 0:
                    self.ended = END_IO
                    self.error = 12
                    return 0
            if self._fill() <= 0:
                return 0
        return 1

    cdef int _skip(self, uint64_t n) noexcept nogil:
        """Pass over n bytes that nobody wants, however many. 0: not now (see `ended`); it goes on later."""
        cdef uint32_t have
        self.skip_first += n
        while self.skip_first > 0:
            have = self.end - self.pos
            if have == 0:
                if self._need(1) == 0:
                    self._stop(END_CUT)
                    return 0
                continue
            if self.skip_first < have:
                have = <uint32_t>self.skip_first
            self.pos += have
            self.consumed += have
            self.skip_first -= have
        return 1

    cdef void _stop(self, int how) noexcept nogil:
        """The input gave less than was asked for: the end, unless it is merely silent for now."""
        if not self.ended and not self.silent:
            self.ended = how

    # ------------------------------------------------------------------ headers

    cdef int _add_iface(self, uint16_t linktype, uint32_t snaplen) noexcept nogil:
        cdef Interface *grown
        cdef uint32_t cap
        if self.n_ifaces >= MAX_INTERFACES:
            return -1
        if self.n_ifaces == self.cap_ifaces:
            cap = 8 if self.cap_ifaces == 0 else self.cap_ifaces * 2
            grown = <Interface *>realloc(self.ifaces, cap * sizeof(Interface))
            if grown == NULL:
                return -1
            self.ifaces = grown
            self.cap_ifaces = cap
        self.ifaces[self.n_ifaces].linktype = linktype
        self.ifaces[self.n_ifaces].snaplen = snaplen
        self.ifaces[self.n_ifaces].packets = 0
        self.ifaces[self.n_ifaces].offset = 0
        self.ifaces[self.n_ifaces].units = 1000000
        self.ifaces[self.n_ifaces].shift = 0
        self.n_ifaces += 1
        return 0

    cdef int _start(self) noexcept nogil:
        cdef uint32_t magic
        cdef uint8_t *p
        cdef int minor, major
        cdef uint32_t header = PCAP_HEADER
        if self._need(4) == 0:
            return -1
        p = self.block.buf + self.pos
        memcpy(&magic, p, 4)
        if magic == BT_SECTION:
            self.format = 2
            if self._need(BLOCK_HEAD + 4) == 0:
                return -1
            return self._section()
        if magic == 0xA1B2C3D4U or magic == 0xA1B2CD34U or magic == 0xA1B23C4DU:
            self.swapped = 0
        elif magic == 0xD4C3B2A1U or magic == 0x34CDB2A1 or magic == 0x4D3CB2A1:
            self.swapped = 1
            magic = bswap32(magic)
        elif magic == 0x1C0001ACU or magic == 0x1C0001ABU:
            self.swapped = 0       # IXIA, by hardware and by software: one word more in the header
            header += 4
        elif magic == 0xAC01001CU or magic == 0xAB01001CU:
            self.swapped = 1
            header += 4
        else:
            return -1
        self.format = 1
        self.modified = magic == 0xA1B2CD34U
        self.frac = 1 if magic == 0xA1B23C4DU else 1000
        self.frac_max = 999999999 if self.frac == 1 else 999999
        if self._need(header) == 0:
            return -1
        p = self.block.buf + self.pos
        major = get16(p + 4, self.swapped)
        minor = get16(p + 6, self.swapped)
        if major < 2:
            self.major = major
            self.minor = minor
            return -1
        # before 2.3 the two lengths stood in the other order, 2.3 was written both ways (libpcap)
        if (major == 2 and minor < 3) or major == 543:
            self.length_order = 1
        elif major == 2 and minor == 3:
            self.length_order = 2
        # the upper bits of the word hold the FCS length, not the link type
        if self._add_iface(<uint16_t>(get32(p + 20, self.swapped) & 0xFFFF), get32(p + 16, self.swapped)) < 0:
            return -2
        self.pos += header
        self.consumed += header
        return 0

    cdef int _section(self) noexcept nogil:
        """A section header block at pos (12 bytes are there): byte order, a new interface list."""
        cdef uint8_t *p = self.block.buf + self.pos
        cdef uint32_t bom
        cdef uint32_t total
        cdef int major, minor
        memcpy(&bom, p + 8, 4)
        if bom == 0x1A2B3C4D:
            self.swapped = 0
        elif bom == 0x4D3C2B1A:
            self.swapped = 1
        else:
            self.ended = END_DAMAGED
            return -1
        total = get32(p + 4, self.swapped)
        if total < 28:
            self.ended = END_DAMAGED
            return -1
        if self._need(16) == 0:
            self._stop(END_CUT)
            return -1
        p = self.block.buf + self.pos
        major = get16(p + 12, self.swapped)
        minor = get16(p + 14, self.swapped)
        # 1.2 is read like 1.0; what others would mean is not written down anywhere
        if major != 1 or (minor != 0 and minor != 2):
            self.major = major
            self.minor = minor
            self.ended = END_DAMAGED
            return -1
        self.section_base = self.n_ifaces
        self._skip((<uint64_t>total + 3) & ~<uint64_t>3)
        return 0

    cdef int _describe(self, uint32_t total) noexcept nogil:
        """An interface description block at pos, its first min(total, DESCRIPTION_BYTES) bytes are there."""
        cdef uint8_t *p = self.block.buf + self.pos
        cdef uint32_t n = total - 4 if total <= DESCRIPTION_BYTES else DESCRIPTION_BYTES
        cdef uint32_t at = 16
        cdef uint32_t i
        cdef uint16_t code, length
        cdef uint8_t v
        cdef uint64_t units = 1
        cdef uint64_t offset
        cdef Interface *f
        if total < 20:
            self.ended = END_DAMAGED
            return -1
        if self._add_iface(get16(p + 8, self.swapped), get32(p + 12, self.swapped)) < 0:
            self.ended = END_DAMAGED
            return -1
        f = &self.ifaces[self.n_ifaces - 1]
        while at + 4 <= n:
            code = get16(p + at, self.swapped)
            length = get16(p + at + 2, self.swapped)
            at += 4
            if code == 0 or at + length > n:
                break
            if code == 9 and length >= 1:
                v = p[at]
                if v & 0x80:
                    f.units = 0
                    f.shift = v & 0x7F
                elif v <= 18:
                    units = 1
                    for i in range(v):
                        units *= 10
                    f.units = units
                else:
                    # finer than 10^-18: a 64-bit count of that covers seconds only; no sense in it
                    f.units = 0
                    f.shift = 127
            elif code == 14 and length >= 8:
                if self.swapped:
                    offset = (<uint64_t>get32(p + at, 1) << 32) | get32(p + at + 4, 1)
                else:
                    offset = (<uint64_t>get32(p + at + 4, 0) << 32) | get32(p + at, 0)
                f.offset = <int64_t>offset
            at += (<uint32_t>length + 3) & ~<uint32_t>3
        return 0

    # ------------------------------------------------------------------ records

    cdef int next_batch(self, Batch *b) noexcept nogil:
        """Fill b with up to BATCH_PACKETS packets of one block; 0: the input has ended (see `ended`)."""
        cdef int n
        b.n = 0
        b.block = NULL
        if self.ended:
            return 0
        if self.skip_first and self._skip(0) == 0:
            return 0
        if self.format == 1:
            n = self._pcap(b)
        else:
            n = self._pcapng(b)
        if n:
            b.n = <uint32_t>n
            self.batches += 1
            b.number = self.batches
            self.packets += <uint64_t>n
            b.block = self.block
            np_inc(&self.block.refs)
        return n

    cdef int _pcap(self, Batch *b) noexcept nogil:
        cdef uint32_t head = MODIFIED_RECORD if self.modified else PCAP_RECORD
        cdef uint32_t caplen, length, t, have, part
        cdef int swapped = self.swapped
        cdef int n = 0
        cdef uint8_t *p
        cdef RawPacket *raw
        cdef uint16_t linktype = self.ifaces[0].linktype
        while n < BATCH_PACKETS:
            have = self.end - self.pos
            if not np_likely(have >= head):
                if n:
                    break
                if self._need(head) == 0:
                    self._stop(END_CLEAN if self.end == self.pos else END_CUT)
                    break
            p = self.block.buf + self.pos
            caplen = get32(p + 8, swapped)
            length = get32(p + 12, swapped)
            if self.length_order and (self.length_order == 1 or caplen > length):
                t = caplen
                caplen = length
                length = t
            if not np_likely(caplen <= MAX_CAPLEN):
                if n:
                    break
                self.ended = END_DAMAGED
                break
            if not np_likely(self.end - self.pos >= head + caplen):
                if n:
                    break
                if self._need(head + caplen) == 0:
                    self._stop(END_CUT)
                    break
                p = self.block.buf + self.pos
            raw = &b.raw[n]
            raw.data = p + head
            # a part of a second of a second and more is wrong; the second itself need not be
            part = get32(p + 4, swapped)
            if not np_likely(part <= self.frac_max):
                part = self.frac_max
            raw.ts = <int64_t>get32(p, swapped) * 1000000000 + <int64_t>part * <int64_t>self.frac
            raw.caplen = caplen
            raw.wirelen = length
            raw.linktype = linktype
            raw.flags = 0
            raw.interface = 0
            self.pos += head + caplen
            self.consumed += head + caplen
            n += 1
        self.ifaces[0].packets += <uint64_t>n
        return n

    cdef int _pcapng(self, Batch *b) noexcept nogil:
        cdef int n = 0
        cdef uint32_t kind, total, whole, iface, caplen, length, fixed, reach
        cdef uint8_t *p
        cdef RawPacket *raw
        cdef Interface *f
        cdef uint64_t stamp
        cdef int swapped
        cdef int timed
        while n < BATCH_PACKETS:
            if self.end - self.pos < BLOCK_MIN:
                if n:
                    break
                if self._need(BLOCK_MIN) == 0:
                    self._stop(END_CLEAN if self.end == self.pos else END_CUT)
                    break
            p = self.block.buf + self.pos
            memcpy(&kind, p, 4)
            if kind == BT_SECTION:  # a palindrome: the same in both byte orders
                if n:
                    break
                if self._need(BLOCK_HEAD + 4) == 0:
                    self._stop(END_CUT)
                    break
                if self._section() < 0 or self.skip_first:
                    break
                continue
            swapped = self.swapped
            kind = get32(p, swapped)
            total = get32(p + 4, swapped)
            # with its padding a length must still fit in 32 bits, or the next block would be this one again
            if total < BLOCK_MIN or total > 0xFFFFFFFCU:
                if n == 0:
                    self.ended = END_DAMAGED
                break
            if kind == BT_ENHANCED:
                fixed = 28
            elif kind == BT_PACKET:
                fixed = 28
            elif kind == BT_SIMPLE:
                fixed = 12
            elif kind == BT_INTERFACE:
                if n:
                    break
                if self._need(total if total < DESCRIPTION_BYTES else DESCRIPTION_BYTES) == 0:
                    self._stop(END_CUT)
                    break
                if self._describe(total) < 0:
                    break
                if self._skip((<uint64_t>total + 3) & ~<uint64_t>3) == 0:
                    break
                continue
            else:
                if n:
                    break
                if self._skip((<uint64_t>total + 3) & ~<uint64_t>3) == 0:
                    break
                continue
            if total < fixed + 4:
                if n == 0:
                    self.ended = END_DAMAGED
                break
            if self.end - self.pos < fixed:
                if n:
                    break
                if self._need(fixed) == 0:
                    self._stop(END_CUT)
                    break
                p = self.block.buf + self.pos
            iface = 0
            timed = 1
            if kind == BT_SIMPLE:
                length = get32(p + 8, swapped)
                caplen = length
                timed = 0
                if self.n_ifaces > self.section_base:
                    f = &self.ifaces[self.section_base]
                    if f.snaplen and caplen > f.snaplen:
                        caplen = f.snaplen
                if caplen > total - fixed - 4:
                    caplen = total - fixed - 4
            else:
                if kind == BT_ENHANCED:
                    iface = get32(p + 8, swapped)
                else:
                    iface = get16(p + 8, swapped)
                caplen = get32(p + 20, swapped)
                length = get32(p + 24, swapped)
            if caplen > MAX_CAPLEN or caplen > total - fixed - 4 or total > MAX_BLOCK:
                if n == 0:
                    self.ended = END_DAMAGED
                break
            reach = total if total <= WHOLE_BLOCK else fixed + caplen
            if self.end - self.pos < reach:
                if n:
                    break
                if self._need(reach) == 0:
                    self._stop(END_CUT)
                    break
                p = self.block.buf + self.pos
            if not np_likely(reach != total or total & 3 or get32(p + total - 4, swapped) == total):
                # the length stands at the end once more, and there it is another
                if n == 0:
                    self.ended = END_DAMAGED
                break
            whole = (total + 3) & ~<uint32_t>3
            if iface >= self.n_ifaces - self.section_base:
                # a packet of an interface that nobody described has no link type
                if n:
                    break
                self.orphans += 1
                if self._skip(whole) == 0:
                    break
                continue
            f = &self.ifaces[self.section_base + iface]
            raw = &b.raw[n]
            if timed:
                stamp = (<uint64_t>get32(p + 12, swapped) << 32) | get32(p + 16, swapped)
                self.last_ts = to_ns(f, stamp)
            # a simple packet block has no stamp: the previous packet's is the best there is
            raw.ts = self.last_ts
            raw.data = p + fixed
            raw.caplen = caplen
            raw.wirelen = length
            raw.linktype = f.linktype
            raw.flags = 0
            raw.interface = self.section_base + iface
            f.packets += 1
            n += 1
            if self.end - self.pos >= whole:
                self.pos += whole
                self.consumed += whole
            else:
                # options run past what is buffered: they are skipped before the next batch, because
                # reading on might move the block from under this packet
                self.skip_first = whole - (self.end - self.pos)
                self.consumed += self.end - self.pos
                self.pos = self.end
                break
        return n

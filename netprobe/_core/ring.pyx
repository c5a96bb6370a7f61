"""Packets where the kernel puts them: a ring of blocks that both see.

Nothing is copied. A batch points into one block, and the block goes back to the kernel when its last holder lets go.
A socket starts without a protocol, so that nothing comes in before its filter is in force; only a member of a fanout
group must be bound before it may join, and lets nothing in until then.

The kernel takes the outermost VLAN tag out of a frame before anybody sees it and keeps it beside. It is put back here:
lengths are those on the wire. A filter in the kernel cannot see the tag where its program looks for it, so tagged
frames all come up and are filtered here. For the tag, or a cooked header, there is room before a frame: a network
header stands at a multiple of 16 and at least 16 behind the address, the address ends at 68, so that 12 bytes and more
are free before a link header of up to 16, and 28 before a packet that has none.
"""
from libc.errno cimport E2BIG, EINVAL, ENETDOWN, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strerror
from posix.ioctl cimport ioctl
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

from netprobe._core.atomic cimport np_add64, np_dec, np_fetch, np_get64, np_inc, np_load, np_store, np_swap
from netprobe._core.bpf cimport BpfProgram, Insn
from netprobe._core.linux cimport (
    AF_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_FANOUT, PACKET_IGNORE_OUTGOING, PACKET_MR_PROMISC,
    PACKET_OUTGOING, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, SIOCGIFHWADDR,
    SIOCGIFINDEX, SO_ATTACH_FILTER, SO_ERROR, SOCK_CLOEXEC, SOCK_RAW, SOL_PACKET, SOL_SOCKET,
    TP_STATUS_BLK_TMO, TP_STATUS_KERNEL, TP_STATUS_USER, TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID, TPACKET_V3,
    bind, getsockopt, htons, ifreq, packet_mreq, setsockopt, sock_filter, sock_fprog, sockaddr, sockaddr_ll, socket, socklen_t,
    tpacket3_hdr, tpacket_block_desc, tpacket_req3, tpacket_stats_v3,
)
from netprobe._core.live cimport (
    CORE_ALL, CORE_NONE, CORE_TAGGED, STATE_DOWN, STATE_GONE, STATE_UP, LiveSource, clock_ms,
)
from netprobe._core.packet cimport RawPacket
from netprobe._core.source cimport BATCH_PACKETS, Batch, Block

cdef enum:
    ETH_P_8021Q = 0x8100
    ETH_P_ALL = 3
    HEADER = 48                  # sizeof(tpacket3_hdr), aligned; the address follows
    FETCH = 8192                 # bytes asked for ahead
    LINE = 64
    TAG = 4
    MACS = 12                    # two addresses; the tag stands behind them
    SLL = 16
    FRAME_BYTES = 2048           # only the kernel's arithmetic wants it
    # rather many blocks at a time than to be woken for each: what counts a packet leaves the caches in every sleep
    NAP_MS = 10                  # between two looks at how full the ring is, at most
    NAP_BYTES = 3355443          # of the ring, for each ms: what a line of 27 Gbit/s can fill
    NAPS_MS = 75                 # all of them; what waits for packets of a second that is over knows this (feed, RATE_GRACE)
    NAP_SHARE = 4                # no nap with this part of the ring full
    HOLD_MS = 1                  # pause while workers hold every block that came
    OUT = 0x80000000U            # in a block's refs, from the moment it is taken until it is the kernel's again
    RETRY_MS = 250

cdef enum:
    ARPHRD_LOOPBACK = 772
    LT_ETHERNET = 1
    LT_RAW = 101
    LT_SLL = 113

cdef enum:
    STEP_SOCKET = 1
    STEP_DEVICE = 2
    STEP_RING = 3
    STEP_MAP = 4
    STEP_FILTER = 5
    STEP_PROMISC = 6
    STEP_BIND = 7
    STEP_FANOUT = 8

STEPS = ("", "socket", "device", "ring", "map", "filter", "promisc", "bind", "fanout")


cdef int link_type(int hatype) noexcept nogil:
    """LINKTYPE_ of an ARPHRD_. What has no usable header of its own gets a cooked one."""
    if hatype == 1 or hatype == ARPHRD_LOOPBACK:
        return LT_ETHERNET
    # none, raw IP, IP in IP (4 and 6), SIT, SLIP's family: a packet is an IP datagram
    if hatype == 0xFFFE or hatype == 519 or hatype == 768 or hatype == 769 or hatype == 776 or 256 <= hatype <= 260:
        return LT_RAW
    if hatype == 801:
        return 105               # 802.11
    if hatype == 802:
        return 119               # with a Prism header
    if hatype == 803:
        return 127               # with radiotap
    if hatype == 513:
        return 104               # Cisco HDLC
    if hatype == 774:
        return 10                # FDDI
    if hatype == 800 or hatype == 6:
        return 6                 # token ring
    return LT_SLL


cdef inline void put16(uint8_t *d, uint16_t v) noexcept nogil:
    d[0] = <uint8_t>(v >> 8)
    d[1] = <uint8_t>v


cdef void give_back(Block *block) noexcept nogil:
    cdef RingMap *m
    if np_dec(&block.refs) == OUT:
        m = <RingMap *>block.owner
        np_store(&(<tpacket_block_desc *>block.buf).hdr.bh1.block_status, TP_STATUS_KERNEL)
        # only now may the reader look at the status again
        np_store(&block.refs, 0)
        leave_map(m)


cdef void leave_map(RingMap *m) noexcept nogil:
    if np_dec(&m.refs) == 0:
        munmap(m.base, m.size)
        close(m.fd)
        free(m.blocks)
        free(m)


cdef class Ring(LiveSource):
    """Captures one interface, or all (`any`).

    filters: link type -> (rows for the kernel, BpfProgram or None, which packets the core filters), link type -1 for
    what `any` has in the kernel. fanout: the value of PACKET_FANOUT, or -1.
    """

    def __cinit__(self, str iface not None, *, filters, uint32_t snaplen=262144, bint promisc=True,
                  uint32_t n_blocks=64, uint32_t block_bytes=524288, int retire_ms=20, int timeout_ms=100,
                  int64_t fanout=-1):
        self.filters = filters
        self.keep = []
        self.snaplen = snaplen
        self.promisc = promisc
        self.n_blocks = n_blocks
        self.block_bytes = block_bytes
        self.retire_ms = retire_ms
        self.timeout_ms = timeout_ms
        self.fanout = <int><uint32_t>fanout if fanout >= 0 else -1
        if n_blocks < 2 or block_bytes < 262144 or block_bytes % 65536:
            raise ValueError("a ring has at least two blocks of a multiple of 64 KiB, 256 KiB or more")
        self.nap_ms = <int>min(<uint64_t>NAP_MS, <uint64_t>n_blocks * block_bytes // NAP_BYTES)

    def __dealloc__(self):
        cdef int i
        self.shut()
        for i in range(self.n_programs):
            free(self.programs[i].rows)

    def open(self):
        """Start to capture. OSError (`step` says where); what the filters raise."""
        cdef int failed
        if self.map != NULL:
            return
        if self.everything:
            self.prepare(-1)
        else:
            kind = self.link_now()
            if kind >= 0:
                self.prepare(kind)
        with nogil:
            failed = self.start()
        if failed:
            raise OSError(self.error, strerror(self.error).decode())

    def link_now(self):
        """The interface's present link type, -1 when it is not there."""
        cdef ifreq r
        memset(&r, 0, sizeof(r))
        memcpy(r.ifr_name, self.device, 16)
        if ioctl(self.control, SIOCGIFHWADDR, &r) < 0:
            return -1
        return link_type(r.ifr_hwaddr.sa_family)

    def prepare(self, int linktype):
        """Have the filter for a link type ready."""
        cdef LinkFilter *f
        cdef int i
        for i in range(self.n_programs):
            if self.programs[i].linktype == linktype:
                return
        if self.n_programs == MAX_FILTERS:
            raise ValueError("too many link types")
        rows, core, mode = self.filters(linktype)
        f = &self.programs[self.n_programs]
        f.rows = <Insn *>calloc(len(rows), sizeof(Insn))
        if f.rows == NULL:
            raise MemoryError
        for i, (code, jt, jf, k) in enumerate(rows):
            f.rows[i].code = code
            f.rows[i].jt = jt
            f.rows[i].jf = jf
            f.rows[i].k = <uint32_t>(k & 0xFFFFFFFF)
        f.n = <uint16_t>len(rows) if len(rows) <= 0xFFFF else 0   # 0: not for the kernel
        f.linktype = linktype
        f.mode = mode
        f.core = NULL
        if core is not None:
            self.keep.append(core)
            f.core = <void *><BpfProgram?>core
        self.n_programs += 1

    @property
    def where(self):
        """The step at which opening failed."""
        return STEPS[self.step]

    def counters(self):
        """Packets so far: the kernel's account and the reader's.

        received + dropped is what passed the kernel's filter; received is delivered + filtered (by the core) +
        outgoing (loopback's copies) + lost (unreadable in the ring, or left in it at the end), and what waits in the ring.
        """
        with nogil:
            self.count()
        return {
            "received": np_get64(&self.stat_packets) - np_get64(&self.stat_drops),
            "dropped": np_get64(&self.stat_drops),
            "freezes": np_get64(&self.stat_freezes),
            "delivered": np_get64(&self.delivered),
            "filtered": np_get64(&self.filtered),
            "outgoing": np_get64(&self.outgoing),
            "lost": np_get64(&self.lost),
        }

    @property
    def held(self):
        """Blocks that readers have, and have not given back to the kernel yet."""
        cdef uint32_t refs = 1
        with nogil:
            while np_swap(&self.guard, 1):
                pass
            if self.map != NULL:
                refs = np_load(&self.map.refs)
            np_store(&self.guard, 0)
        return refs - 1

    # ------------------------------------------------------------------ opening

    cdef int fail(self, int step) noexcept nogil:
        self.error = errno
        self.step = step
        return -1

    cdef int start(self) noexcept nogil:
        """Open socket and ring: 0, or -1 with `error` and `step` set."""
        cdef ifreq r
        cdef RingMap *m
        cdef uint32_t i
        cdef int fd
        self.ifindex = 0
        self.hatype = 0
        self.loopback = 0
        fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)
        if fd < 0:
            return self.fail(STEP_SOCKET)
        if not self.everything:
            memset(&r, 0, sizeof(r))
            memcpy(r.ifr_name, self.device, 16)
            if ioctl(fd, SIOCGIFINDEX, &r) < 0:
                self.fail(STEP_DEVICE)
                close(fd)
                return -1
            self.ifindex = r.ifr_ifindex
            if ioctl(fd, SIOCGIFHWADDR, &r) < 0:
                self.fail(STEP_DEVICE)
                close(fd)
                return -1
            self.hatype = r.ifr_hwaddr.sa_family
            self.linktype = link_type(self.hatype)
            self.loopback = self.hatype == ARPHRD_LOOPBACK
        if self.bound(fd) < 0:
            close(fd)
            return -1
        m = <RingMap *>calloc(1, sizeof(RingMap))
        if m == NULL:
            self.fail(STEP_MAP)
            close(fd)
            return -1
        m.size = <size_t>self.block_bytes * self.n_blocks
        m.blocks = <Block *>calloc(self.n_blocks, sizeof(Block))
        m.base = <uint8_t *>mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if m.blocks == NULL or <void *>m.base == <void *>MAP_FAILED:
            self.fail(STEP_MAP)
            if <void *>m.base != <void *>MAP_FAILED:
                munmap(m.base, m.size)
            free(m.blocks)
            free(m)
            close(fd)
            return -1
        m.fd = fd
        m.refs = 1
        m.n_blocks = self.n_blocks
        for i in range(self.n_blocks):
            m.blocks[i].buf = m.base + <size_t>i * self.block_bytes
            m.blocks[i].owner = m
        self.map = m
        self.at = 0
        self.left = 0
        self.filter = NULL
        self.joined = 0
        self.error = 0
        self.step = 0
        np_store(&self.state_, STATE_UP)
        if self.settle() < 0:
            self.leave()
            np_store(&self.state_, STATE_GONE)
            return -1
        return 0

    cdef int bound(self, int fd) noexcept nogil:
        """All that comes before packets may."""
        cdef int value
        cdef tpacket_req3 q
        cdef sockaddr_ll a
        cdef packet_mreq mr
        value = TPACKET_V3
        if setsockopt(fd, SOL_PACKET, PACKET_VERSION, &value, sizeof(value)) < 0:
            return self.fail(STEP_RING)
        if self.loopback:
            # each packet shows twice there; walk() looks too, where the kernel (before 4.20) does not know this
            value = 1
            setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &value, sizeof(value))
        memset(&q, 0, sizeof(q))
        q.tp_block_size = self.block_bytes
        q.tp_block_nr = self.n_blocks
        q.tp_frame_size = FRAME_BYTES
        q.tp_frame_nr = self.block_bytes // FRAME_BYTES * self.n_blocks
        q.tp_retire_blk_tov = self.retire_ms
        if setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, sizeof(q)) < 0:
            return self.fail(STEP_RING)
        if self.fanout != -1:
            if drop_all(fd) < 0:
                return self.fail(STEP_FILTER)
        elif self.attach(fd, -1 if self.everything else self.linktype) < 0:
            return -1
        if self.promisc and not self.everything:
            memset(&mr, 0, sizeof(mr))
            mr.mr_ifindex = self.ifindex
            mr.mr_type = PACKET_MR_PROMISC
            if setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &mr, sizeof(mr)) < 0:
                return self.fail(STEP_PROMISC)
        memset(&a, 0, sizeof(a))
        a.sll_family = AF_PACKET
        a.sll_protocol = htons(ETH_P_ALL)
        a.sll_ifindex = self.ifindex
        if bind(fd, <sockaddr *>&a, sizeof(a)) < 0:
            return self.fail(STEP_BIND)
        return 0

    cdef int attach(self, int fd, int linktype) noexcept nogil:
        cdef LinkFilter *f = self.program(linktype)
        cdef sock_fprog p
        cdef Insn accept[1]
        if f == NULL:
            self.error = EINVAL
            self.step = STEP_FILTER
            return -1
        self.filter_mode = f.mode
        p.len = f.n
        p.filter = <sock_filter *>f.rows
        if f.n and setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p)) == 0:
            return 0
        # too long for the kernel, or it jumps backwards: all packets come up, and the core does it
        if f.n and (f.core == NULL or (errno != EINVAL and errno != ENOMEM and errno != E2BIG)):
            return self.fail(STEP_FILTER)
        memset(accept, 0, sizeof(accept))
        accept[0].code = 6
        accept[0].k = 0x40000
        p.len = 1
        p.filter = <sock_filter *>accept
        if setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p)) < 0:
            return self.fail(STEP_FILTER)
        self.filter_mode = CORE_ALL
        return 0

    cdef int settle(self) noexcept nogil:
        """Join the fanout group, let packets in. 0 also when that must wait until the interface is up."""
        cdef int value = 0
        cdef socklen_t size = sizeof(value)
        getsockopt(self.map.fd, SOL_SOCKET, SO_ERROR, &value, &size)
        if value == ENETDOWN:
            np_store(&self.state_, STATE_DOWN)
        if self.fanout == -1:
            self.joined = 1
            return 0
        if np_load(&self.state_) != STATE_UP:
            return 0
        if setsockopt(self.map.fd, SOL_PACKET, PACKET_FANOUT, &self.fanout, sizeof(self.fanout)) < 0:
            return self.fail(STEP_FANOUT)
        if self.attach(self.map.fd, -1 if self.everything else self.linktype) < 0:
            return -1
        self.joined = 1
        return 0

    cdef LinkFilter *program(self, int linktype) noexcept nogil:
        """The filter for a link type, made on the spot when the type is new. NULL: there can be none."""
        cdef int i
        for i in range(self.n_programs):
            if self.programs[i].linktype == linktype:
                return &self.programs[i]
        with gil:
            try:
                self.prepare(linktype)
            except Exception:
                pass
        if self.n_programs == MAX_FILTERS:
            return NULL
        if self.programs[self.n_programs - 1].linktype != linktype:
            # cannot be compiled for this type: nothing of it passes, and nobody tries again
            memset(&self.programs[self.n_programs], 0, sizeof(LinkFilter))
            self.programs[self.n_programs].linktype = linktype
            self.programs[self.n_programs].mode = CORE_ALL
            self.n_programs += 1
        return &self.programs[self.n_programs - 1]

    # ------------------------------------------------------------------ the interface's ups and downs

    cdef void look(self) noexcept nogil:
        cdef int state
        cdef int value = 0
        cdef socklen_t size = sizeof(value)
        if self.everything:
            return
        if np_load(&self.state_) == STATE_GONE or self.map == NULL:
            if self.map != NULL:
                getsockopt(self.map.fd, SOL_SOCKET, SO_ERROR, &value, &size)
                # the last packets are still to come, when the kernel hands over the block that it has begun
                if clock_ms() >= self.next_try and self.left == 0 and not self.ready():
                    self.leave()
                return
            if clock_ms() < self.next_try:
                return
            self.next_try = clock_ms() + RETRY_MS
            if self.present() and self.start() == 0:
                self.reopened += 1
            return
        getsockopt(self.map.fd, SOL_SOCKET, SO_ERROR, &value, &size)
        state = self.link_state()
        if np_load(&self.state_) == STATE_UP and (state != STATE_UP or value == ENETDOWN):
            self.outages += 1
        np_store(&self.state_, <uint32_t>state)
        if state == STATE_GONE:
            self.next_try = clock_ms() + 3 * self.retire_ms
        elif state == STATE_UP and not self.joined:
            self.settle()

    cdef void count(self) noexcept nogil:
        """Add up what the kernel has counted since it was asked last (any thread)."""
        cdef tpacket_stats_v3 s
        cdef socklen_t size = sizeof(s)
        while np_swap(&self.guard, 1):
            pass
        if self.map != NULL and getsockopt(self.map.fd, SOL_PACKET, PACKET_STATISTICS, &s, &size) == 0:
            np_add64(&self.stat_packets, s.tp_packets)
            np_add64(&self.stat_drops, s.tp_drops)
            np_add64(&self.stat_freezes, s.tp_freeze_q_cnt)
        np_store(&self.guard, 0)

    cdef void leave(self) noexcept nogil:
        """Let go of the ring, after its statistics."""
        cdef uint64_t received, read
        cdef RingMap *m = self.map
        if self.block != NULL:
            give_back(self.block)
            self.block = NULL
            self.left = 0
        if m == NULL:
            return
        # somebody may hold blocks, and with them the socket: nothing more comes in
        drop_all(m.fd)
        self.count()
        while np_swap(&self.guard, 1):
            pass
        self.map = NULL
        # what nobody will read any more
        received = np_get64(&self.stat_packets) - np_get64(&self.stat_drops)
        read = np_get64(&self.delivered) + np_get64(&self.filtered) + np_get64(&self.outgoing) + np_get64(&self.lost)
        if received > read:
            np_add64(&self.lost, received - read)
        np_store(&self.guard, 0)
        leave_map(m)

    cdef void shut(self) noexcept nogil:
        self.leave()

    # ------------------------------------------------------------------ packets

    cdef void release(self, Batch *b) noexcept nogil:
        if b.block != NULL:
            give_back(b.block)
            b.block = NULL

    cdef void hold(self, Batch *b) noexcept nogil:
        if b.block != NULL:
            np_inc(&b.block.refs)

    cdef int next_inside(self, Batch *b) noexcept nogil:
        cdef int n, woken
        cdef int64_t now, until
        cdef int64_t end = 0
        while True:
            while self.left or self.take():
                n = self.walk(b)
                if n:
                    b.block = self.block
                    np_inc(&self.block.refs)
                if self.left == 0:
                    give_back(self.block)
                    self.block = NULL
                if n:
                    np_add64(&self.delivered, n)
                    return n
                # nothing of it passed the filter: come back in time all the same
                if end and clock_ms() >= end:
                    return 0
                if end == 0:
                    end = clock_ms() + self.timeout_ms
            now = clock_ms()
            if end == 0:
                end = now + self.timeout_ms
            elif now >= end:
                return 0
            if self.nap:
                self.nap = 0
                until = now + NAPS_MS if now + NAPS_MS < end else end
                while self.nap_ms and now + self.nap_ms <= until and not self.filled():
                    if self.wait(-1, self.nap_ms) == 2:
                        return 0
                    now = clock_ms()
                continue
            woken = self.wait(self.map.fd if self.map != NULL else -1, <int>(end - now))
            if woken == 2:
                return 0
            if woken == 0 and clock_ms() < end:
                return 0             # a signal
            if woken < 0:
                self.look()
            elif woken == 1 and not self.ready():
                # poll(2) also tells of blocks that came before and that somebody holds: the next one is not there
                if self.wait(-1, HOLD_MS) == 2:
                    return 0

    cdef int at_hand(self) noexcept nogil:
        return self.left or (self.map != NULL and self.ready())

    cdef int ready(self) noexcept nogil:
        """Is the next block there? Not if it came round and is still held."""
        cdef Block *block = &self.map.blocks[self.at]
        if np_load(&block.refs):
            return 0
        return np_load(&(<tpacket_block_desc *>block.buf).hdr.bh1.block_status) & TP_STATUS_USER

    cdef int filled(self) noexcept nogil:
        """Has the kernel filled so much of the ring that it is time to read?"""
        cdef uint32_t i = (self.at + self.n_blocks // NAP_SHARE) % self.n_blocks
        if self.map == NULL:
            return 1
        return np_load(&(<tpacket_block_desc *>self.map.blocks[i].buf).hdr.bh1.block_status) & TP_STATUS_USER

    cdef int take(self) noexcept nogil:
        """Begin with the next block, if the kernel has handed it over."""
        cdef Block *block
        cdef tpacket_block_desc *d
        cdef uint32_t first
        if self.map == NULL or not self.ready():
            return 0
        block = &self.map.blocks[self.at]
        d = <tpacket_block_desc *>block.buf
        block.refs = OUT + 1
        np_inc(&self.map.refs)
        self.nap = not np_load(&d.hdr.bh1.block_status) & TP_STATUS_BLK_TMO
        self.at = self.at + 1 if self.at + 1 < self.map.n_blocks else 0
        self.block = block
        self.left = d.hdr.bh1.num_pkts
        first = d.hdr.bh1.offset_to_first_pkt
        self.packet = block.buf + first
        self.block_end = block.buf + self.block_bytes
        self.block_used = block.buf + d.hdr.bh1.blk_len
        self.fetched = self.packet
        if self.left and (first >= self.block_bytes or d.hdr.bh1.blk_len > self.block_bytes):
            np_add64(&self.lost, self.left)
            self.left = 0
        if self.left == 0:
            # a time-out without a packet
            give_back(block)
            self.block = NULL
            return self.take()
        return 1

    cdef int walk(self, Batch *b) noexcept nogil:
        """Fill the batch from the present block."""
        cdef tpacket3_hdr *h
        cdef sockaddr_ll *a
        cdef uint8_t *data
        cdef uint8_t *far
        cdef RawPacket *raw
        cdef uint64_t first
        cdef uint32_t second
        cdef uint32_t caplen, wirelen, mac, room, link_bytes, step
        cdef int tagged
        cdef int n = 0
        # what a packet's bytes could overlap, as far as the compiler knows, would be loaded anew for each
        cdef uint8_t *p = self.packet
        cdef uint8_t *fetched = self.fetched
        cdef uint8_t *used = self.block_used
        cdef uint32_t left = self.left
        cdef uint32_t snaplen = self.snaplen
        cdef int kind = self.linktype
        cdef int filter_mode = self.filter_mode
        cdef int mixed = self.everything
        cdef int copies = self.everything or self.loopback
        while left and n < BATCH_PACKETS:
            h = <tpacket3_hdr *>p
            if self.block_end - p < HEADER + <ssize_t>sizeof(sockaddr_ll):
                np_add64(&self.lost, left)
                left = 0
                break
            room = <uint32_t>(self.block_end - p)
            caplen = h.tp_snaplen
            wirelen = h.tp_len
            mac = h.tp_mac
            if mac > room or caplen > room - mac or h.tp_net > room or mac < HEADER + sizeof(sockaddr_ll):
                np_add64(&self.lost, left)
                left = 0
                break
            data = p + mac
            a = <sockaddr_ll *>(p + HEADER)
            left -= 1
            if left:
                step = h.tp_next_offset
                if step == 0 or step >= room:
                    np_add64(&self.lost, left)
                    left = 0
                else:
                    p += step
                    # another CPU wrote all this: each line takes long to come, and where a header is stands in the
                    # one before, so that they would come one by one
                    if fetched < p:
                        fetched = p
                    far = p + FETCH if p + FETCH < used else used
                    while fetched < far:
                        np_fetch(fetched)
                        fetched += LINE
            if copies and a.sll_pkttype == PACKET_OUTGOING and a.sll_hatype == ARPHRD_LOOPBACK:
                np_add64(&self.outgoing, 1)
                continue
            if mixed:
                kind = link_type(a.sll_hatype)
            tagged = 0
            if kind == LT_ETHERNET:
                if h.tp_status & TP_STATUS_VLAN_VALID and caplen >= MACS:
                    tagged = 1
                    data -= TAG
                    memcpy(&first, data + TAG, 8)
                    memcpy(&second, data + TAG + 8, 4)
                    memcpy(data, &first, 8)
                    memcpy(data + 8, &second, 4)
                    put16(data + MACS,
                          h.hv1.tp_vlan_tpid if h.tp_status & TP_STATUS_VLAN_TPID_VALID else <uint16_t>ETH_P_8021Q)
                    put16(data + MACS + 2, <uint16_t>h.hv1.tp_vlan_tci)
                    caplen += TAG
                    wirelen += TAG
            elif kind == LT_RAW or kind == LT_SLL:
                # behind whatever header the device has, if any
                link_bytes = h.tp_net - mac if h.tp_net > mac else 0
                if link_bytes > caplen:
                    link_bytes = caplen
                data += link_bytes
                caplen -= link_bytes
                wirelen -= link_bytes
                if kind == LT_SLL:
                    data -= SLL
                    cook(data, a)
                    caplen += SLL
                    wirelen += SLL
            if filter_mode and (tagged or filter_mode == CORE_ALL):
                if self.filter == NULL or self.filter.linktype != kind:
                    self.filter = self.program(kind)
                if (self.filter == NULL or self.filter.core == NULL
                        or not (<BpfProgram>self.filter.core).run(data, wirelen, caplen)):
                    np_add64(&self.filtered, 1)
                    continue
            raw = &b.raw[n]
            raw.data = data
            raw.ts = <int64_t>h.tp_sec * 1000000000 + h.tp_nsec
            raw.caplen = caplen if caplen <= snaplen else snaplen
            raw.wirelen = wirelen
            raw.linktype = <uint16_t>kind
            raw.flags = 0
            raw.interface = <uint32_t>a.sll_ifindex if mixed else 0
            n += 1
        self.packet = p
        self.fetched = fetched
        self.left = left
        return n


cdef void cook(uint8_t *d, const sockaddr_ll *a) noexcept nogil:
    """A LINUX_SLL header from what the kernel says of the packet."""
    put16(d, a.sll_pkttype)
    put16(d + 2, a.sll_hatype)
    put16(d + 4, a.sll_halen)
    memcpy(d + 6, a.sll_addr, 8)
    memcpy(d + 14, &a.sll_protocol, 2)     # in network order already


cdef int drop_all(int fd) noexcept nogil:
    cdef Insn none[1]
    cdef sock_fprog p
    memset(none, 0, sizeof(none))
    none[0].code = 6
    p.len = 1
    p.filter = <sock_filter *>none
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p))

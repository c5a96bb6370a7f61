"""Sources without a wire: silence, and DNS packets out of thin air (agent spec 4.1.2, `mock`)."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC
from posix.unistd cimport close, read, write

from netprobe._core.clock cimport NS, Clock, read_clock
from netprobe._core.packet cimport mix64
from netprobe._core.source cimport END_CLEAN, END_NOT_YET, Batch, PacketSource

cdef extern from "poll.h" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    enum: POLLIN
    int poll(pollfd *fds, unsigned long n, int timeout)

cdef extern from "sys/eventfd.h" nogil:
    enum: EFD_CLOEXEC
    enum: EFD_NONBLOCK
    int eventfd(unsigned int value, int flags)

cdef enum:
    MS = 1000000
    TICK = 100000000           # ns: the longest rest before the caller gets to look around
    NAMES = 20
    RCODES = 6                 # 0 to 5
    ETHERNET = 14
    IPV4 = 20
    UDP = 8
    DNS = 12
    PORT = 53
    LINK_ETHERNET = 1

cdef uint16_t[5] TYPES = [1, 28, 12, 15, 16]        # A, AAAA, PTR, MX, TXT


cdef inline int64_t monotonic() noexcept nogil:
    return read_clock(CLOCK_MONOTONIC)


cdef inline void put16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 8)
    at[1] = <uint8_t>value


cdef class Quiet(PacketSource):
    """Never has a packet. With `seconds` it ends after so long."""

    def __cinit__(self, *args, Clock clock=None, **kwargs):
        self.clock = Clock() if clock is None else clock
        self.name = "quiet"
        self.wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.wakeup < 0:
            raise OSError("eventfd")

    def __init__(self, seconds=None, *, Clock clock=None):
        self.until = 0 if seconds is None else monotonic() + <int64_t>(seconds * NS)

    def __dealloc__(self):
        if self.wakeup >= 0:
            close(self.wakeup)

    def wake(self):
        """Let the thread that rests in next_batch look around."""
        cdef uint64_t one = 1
        if write(self.wakeup, &one, sizeof(one)) < 0:
            pass

    cdef int rest(self, int64_t ns) noexcept nogil:
        """Wait so long, but no longer than a tick, and not when woken. 1: the time is over."""
        cdef pollfd waiting
        cdef uint64_t count
        cdef int64_t end = monotonic() + ns
        if ns <= 0:
            return 1
        waiting.fd = self.wakeup
        waiting.events = POLLIN
        waiting.revents = 0
        if poll(&waiting, 1, <int>((ns if ns < TICK else TICK) // MS) + 1) > 0:
            if read(self.wakeup, &count, sizeof(count)) < 0:
                pass
        return monotonic() >= end

    cdef int next_batch(self, Batch *b) noexcept nogil:
        b.n = 0
        b.block = NULL
        self.silent = 1
        if not self.until:
            self.rest(TICK)
        elif self.rest(self.until - monotonic()):
            self.ended = END_CLEAN
        return 0


cdef class MockDns(Quiet):
    """A DNS packet over UDP every `interval` seconds, between 192.168.0.1 and one of 10.0.0.0 to 10.0.0.254.

    A clock that is set by hand is moved on by the packets: then a day takes seconds. `packets`: end after so many.
    """

    def __init__(self, double interval=0.1, *, packets=None, uint64_t seed=1, Clock clock=None):
        self.name = "mock"
        self.interval = <int64_t>(interval * NS)
        if self.interval < 1:
            raise ValueError("the interval must be above zero")
        self.left = 0xFFFFFFFFFFFFFFFF if packets is None else packets
        self.state = mix64(seed + 1)
        self.due = self.clock.now() + self.interval

    cdef int next_batch(self, Batch *b) noexcept nogil:
        cdef int64_t now = self.clock.now()
        b.n = 0
        b.block = NULL
        self.silent = 0
        if self.left == 0:
            self.ended = END_CLEAN
            return 0
        if now < self.due:
            if self.clock.manual:
                self.clock.held = self.due
            elif not self.rest(self.due - now):
                self.silent = 1
                return 0
        memset(&b.raw[0], 0, sizeof(b.raw[0]))
        b.raw[0].caplen = b.raw[0].wirelen = self.build()
        b.raw[0].data = self.frame
        b.raw[0].ts = self.due
        b.raw[0].linktype = LINK_ETHERNET
        b.n = 1
        b.number = self.sent
        self.due += self.interval
        # after a pause of the machine there is no burst to make up for it
        if self.due + NS < now:
            self.due = now
        self.sent += 1
        self.left -= 1
        return 1

    def frames(self, int n):
        """The next n frames, as bytes."""
        return [self.frame[:self.build()] for _ in range(n)]

    cdef uint32_t build(self) noexcept nogil:
        """The next frame; its length."""
        cdef uint8_t *ip = self.frame + ETHERNET
        cdef uint8_t *udp = ip + IPV4
        cdef uint8_t *dns = udp + UDP
        cdef uint8_t *at = dns + DNS
        cdef uint64_t x
        cdef uint32_t total, sum_
        cdef uint32_t peer, i, n
        cdef int response
        self.state += <uint64_t>0x9E3779B97F4A7C15
        x = mix64(self.state)
        peer = <uint32_t>(x & 0xFFFF) % MOCK_PEERS
        response = (x >> 16) & 1
        if not response or self.asked_port[peer] == 0:
            self.asked_id[peer] = <uint16_t>(x >> 48)
            self.asked_port[peer] = <uint16_t>(0x8000 | (x >> 32) & 0x7FFF)      # an ephemeral one
            self.asked_name[peer] = <uint8_t>((x >> 17 & 0xFF) % NAMES)
            self.asked_type[peer] = <uint8_t>((x >> 25 & 0x7F) % 5)
        memset(self.frame, 0, MOCK_FRAME)
        self.frame[0] = self.frame[6] = 2                    # locally administered
        self.frame[5 if response else 11] = <uint8_t>peer
        self.frame[12] = 8                                   # IPv4
        put16(dns, self.asked_id[peer])
        dns[2] = 0x81 if response else 0x01                  # QR, RD
        dns[3] = 0x80 | <uint8_t>((x >> 40 & 0xFF) % RCODES) if response else 0
        dns[5] = 1                                           # one question
        n = self.asked_name[peer]
        at[0] = 2 if n >= 10 else 1
        at += 1
        if n >= 10:
            at[0] = <uint8_t>(0x30 + n // 10)
            at += 1
        at[0] = <uint8_t>(0x30 + n % 10)
        at += 1
        memcpy(at, <const char *>b"\x0dpktvisor-mock\x03dev\x00", 19)
        at += 19
        put16(at, TYPES[self.asked_type[peer]])
        put16(at + 2, 1)                                     # IN
        at += 4
        total = <uint32_t>(at - ip)
        put16(udp, PORT if response else self.asked_port[peer])
        put16(udp + 2, self.asked_port[peer] if response else PORT)
        put16(udp + 4, total - IPV4)
        ip[0] = 0x45
        put16(ip + 2, total)
        ip[8] = 64
        ip[9] = 17                                           # UDP
        memcpy(ip + (12 if response else 16), <const char *>b"\xc0\xa8\x00\x01", 4)
        ip[16 if response else 12] = 10
        ip[19 if response else 15] = <uint8_t>peer
        sum_ = 0
        for i in range(0, IPV4, 2):
            sum_ += (<uint32_t>ip[i] << 8) + ip[i + 1]
        sum_ = (sum_ & 0xFFFF) + (sum_ >> 16)
        put16(ip + 10, ~(sum_ + (sum_ >> 16)) & 0xFFFF)
        if response:
            self.asked_port[peer] = 0
        return total + ETHERNET

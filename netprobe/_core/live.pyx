"""Waiting with a time limit, being woken, and being closed by another thread."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.errno cimport errno
from libc.string cimport memcpy, memset, strerror
from posix.ioctl cimport ioctl
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close, read, usleep, write

from netprobe._core.atomic cimport np_load, np_store, np_swap
from netprobe._core.linux cimport (
    AF_UNIX, IFF_UP, SIOCGIFFLAGS, SIOCGIFINDEX, SIOCGIFNAME, SOCK_CLOEXEC, SOCK_DGRAM, ifreq, socket,
)
from netprobe._core.source cimport END_CLEAN, Batch

cdef extern from "poll.h" nogil:
    int poll(pollfd *, unsigned long, int)
    enum:
        POLLIN
        POLLERR
        POLLHUP
        POLLNVAL

cdef extern from "sys/eventfd.h" nogil:
    int eventfd(unsigned int, int)
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK

STATES = ("up", "down", "gone")


cdef int64_t clock_ms() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000 + t.tv_nsec // 1000000


cdef class LiveSource(PacketSource):
    """A source that never ends by itself: next_batch waits up to `timeout_ms`, then says `silent`."""

    def __cinit__(self, str iface not None, *args, **more):
        self.linktype = -1
        self.event = self.control = -1
        name = iface.encode()
        if not 0 < len(name) < 16:
            raise ValueError(f"{iface!r} is no name of an interface")
        memset(self.device, 0, 16)
        memcpy(self.device, <const char *>name, len(name))
        self.name = iface
        self.everything = iface == "any"
        self.control = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)
        self.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.event < 0 or self.control < 0:
            raise OSError(errno, strerror(errno).decode())

    def __dealloc__(self):
        if self.event >= 0:
            close(self.event)
        if self.control >= 0:
            close(self.control)

    @property
    def state(self):
        """up, down (the interface is there) or gone (it is not; reading goes on when it comes back)."""
        return STATES[np_load(&self.state_)]

    def wake(self):
        """Have next_batch return soon, from any thread."""
        cdef uint64_t one = 1
        write(self.event, &one, sizeof(one))

    def close(self):
        """End the source, from any thread. Batches that somebody holds stay readable until they are released."""
        if np_swap(&self.closing, 1):
            return
        self.wake()
        with nogil:
            while np_swap(&self.inside, 1):
                usleep(100)
            self.shut()
            self.ended = END_CLEAN
            np_store(&self.inside, 0)

    cdef int next_batch(self, Batch *b) noexcept nogil:
        cdef int n = 0
        cdef int64_t now
        b.n = 0
        b.block = NULL
        if np_swap(&self.inside, 1):
            self.silent = 1          # being closed, or two readers at once, which there must not be
            return 0
        if not self.ended and not np_load(&self.closing):
            self.silent = 0
            n = self.next_inside(b)
            if n:
                self.heard()
                b.n = <uint32_t>n
                self.batches += 1
                b.number = self.batches
            else:
                self.silent = 1
                # also when somebody wakes us all the time
                now = clock_ms()
                if now - self.looked >= self.timeout_ms:
                    self.looked = now
                    self.look()
        np_store(&self.inside, 0)
        return n

    cdef int wait(self, int fd, int ms) noexcept nogil:
        """Until fd (none: -1) is readable (1), has an error (-1), somebody calls wake (2), or time is up (0)."""
        cdef pollfd fds[2]
        cdef uint64_t count
        fds[0].fd = self.event
        fds[0].events = POLLIN
        fds[1].fd = fd
        fds[1].events = POLLIN
        fds[1].revents = 0
        if poll(fds, 2, ms) <= 0:
            return 0
        if fds[0].revents:
            read(self.event, &count, sizeof(count))
            return 2
        if fds[1].revents & (POLLERR | POLLHUP | POLLNVAL):
            return -1
        return 1

    cdef int present(self) noexcept nogil:
        """The index of the interface that has the name now; 0: none has."""
        cdef ifreq r
        memset(&r, 0, sizeof(r))
        memcpy(r.ifr_name, self.device, 16)
        return r.ifr_ifindex if ioctl(self.control, SIOCGIFINDEX, &r) == 0 else 0

    cdef int link_state(self) noexcept nogil:
        """STATE_* of the interface that is being read: by number, for it may have got another name."""
        cdef ifreq r
        memset(&r, 0, sizeof(r))
        r.ifr_ifindex = self.ifindex
        if ioctl(self.control, SIOCGIFNAME, &r) < 0 or ioctl(self.control, SIOCGIFFLAGS, &r) < 0:
            return STATE_GONE
        return STATE_UP if r.ifr_flags & IFF_UP else STATE_DOWN

    cdef void heard(self) noexcept nogil:
        """Packets came: an interface that was down may be up, and on a busy wire nobody would look."""
        if np_load(&self.state_) == STATE_DOWN and not self.everything and self.link_state() == STATE_UP:
            np_store(&self.state_, STATE_UP)

    cdef void look(self) noexcept nogil:
        """Nothing came for a while, or nothing that passed: is the interface still what it was?"""

    cdef int prompt(self) noexcept nogil:
        """Would next_batch, which nobody is in, find packets without a wait?"""
        cdef int found = 0
        if not np_swap(&self.inside, 1):
            found = self.at_hand()
            np_store(&self.inside, 0)
        return found

    cdef int at_hand(self) noexcept nogil:
        return 1

    cdef int next_inside(self, Batch *b) noexcept nogil:
        return 0

    cdef void shut(self) noexcept nogil:
        pass

"""Packets by way of libpcap (pcapy-ng), for where there is no ring of our own.

pcapy-ng's calls on a live capture wait for ever on a silent wire, so that the wait is a poll(2) of ours and the calls
do not block. Its batches are one bytes object each, to which ours point; they have no original lengths, so that whole
packets are captured and cut here. Time stamps are cut to microseconds by it.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netprobe._core.atomic cimport np_add64, np_dec, np_get64, np_inc, np_load, np_store, np_swap
from netprobe._core.bpf cimport BpfProgram
from netprobe._core.live cimport STATE_DOWN, STATE_GONE, STATE_UP, LiveSource, clock_ms
from netprobe._core.packet cimport RawPacket
from netprobe._core.source cimport BATCH_PACKETS, Batch, Block

import threading

cdef enum:
    RECORD = 16                  # seconds, microseconds, offset, captured length: 32 bits each
    RETRY_MS = 250
    LAST_MS = 100
    LOOPBACK = 1                 # its interface index, in every network namespace


cdef class PcapSource(LiveSource):
    """Captures one interface, or all (`any`).

    connect: () -> (pcapy reader, link type, BpfProgram or None), called anew after the interface was gone.
    """
    cdef object connect
    cdef object reader
    cdef object using            # a lock: statistics are asked for by other threads
    cdef BpfProgram program
    cdef int fd
    cdef int64_t next_try
    cdef readonly uint32_t reopened
    cdef Block *free_blocks      # under the guard, like `returned`
    cdef Block *returned         # their bytes are still to be released, which takes the GIL
    cdef uint32_t guard
    cdef uint32_t last[2]        # passed by the kernel's filter, dropped: when asked last
    cdef uint64_t passed, dropped, delivered, filtered, lost

    def __cinit__(self, str iface not None, *, connect, uint32_t snaplen=262144, int timeout_ms=100):
        self.fd = -1
        self.connect = connect
        self.snaplen = snaplen
        self.timeout_ms = timeout_ms
        self.using = threading.Lock()

    def __dealloc__(self):
        cdef Block *b
        self.collect()
        while self.free_blocks != NULL:
            b = self.free_blocks
            self.free_blocks = b.next
            free(b)

    def open(self):
        """Start to capture; raises what `connect` raises."""
        self.reader, self.linktype, self.program = self.connect()
        self.fd = self.reader.getfd()
        self.last[0] = self.last[1] = 0
        self.ifindex = self.present()
        np_store(&self.state_, STATE_UP if self.everything else <uint32_t>self.link_state())

    def defer(self):
        """The interface is down, which libpcap does not capture: open it when it is up."""
        self.ifindex = self.present()
        np_store(&self.state_, STATE_DOWN)

    def counters(self):
        """received, dropped, filtered (by the core), delivered and lost (left unread at the end), in packets."""
        with self.using:
            self.count()
        return {
            # libpcap's own number counts the copies that it leaves out on loopback
            "received": np_get64(&self.delivered) + np_get64(&self.filtered) + np_get64(&self.lost),
            "dropped": np_get64(&self.dropped),
            "freezes": 0,
            "delivered": np_get64(&self.delivered),
            "filtered": np_get64(&self.filtered),
            "outgoing": 0,
            "lost": np_get64(&self.lost),
        }

    cdef void count(self):
        """Add what libpcap has counted since the last time, in 32 bits."""
        cdef uint32_t passed, dropped
        try:
            passed, dropped, _ = self.reader.stats()
        except Exception:
            return               # closed, or the interface is gone
        self.passed += <uint32_t>(passed - self.last[0])
        self.dropped += <uint32_t>(dropped - self.last[1])
        self.last[0] = passed
        self.last[1] = dropped

    cdef void release(self, Batch *b) noexcept nogil:
        cdef Block *block = b.block
        b.block = NULL
        if block != NULL and np_dec(&block.refs) == 0:
            while np_swap(&self.guard, 1):
                pass
            block.next = self.returned
            self.returned = block
            np_store(&self.guard, 0)

    cdef void hold(self, Batch *b) noexcept nogil:
        if b.block != NULL:
            np_inc(&b.block.refs)

    cdef void collect(self):
        """Release the bytes of blocks that came back."""
        cdef Block *b
        while True:
            while np_swap(&self.guard, 1):
                pass
            b = self.returned
            if b != NULL:
                self.returned = b.next
            np_store(&self.guard, 0)
            if b == NULL:
                return
            Py_DECREF(<object>b.owner)
            b.owner = NULL
            b.next = self.free_blocks
            self.free_blocks = b

    cdef int next_inside(self, Batch *b) noexcept nogil:
        cdef int n, woken
        cdef int64_t now
        cdef int64_t end = clock_ms() + self.timeout_ms
        while True:
            n = self.fetch(b)
            if n > 0:
                np_add64(&self.delivered, n)
                return n
            now = clock_ms()
            if now >= end:
                return 0
            if n < 0:
                continue         # all of a batch was filtered out: more may be there
            woken = self.wait(self.fd, <int>(end - now))
            if woken == 2 or (woken == 0 and clock_ms() < end):
                return 0
            if woken < 0:
                # the error is told by the next call; it must not be asked for over and over
                if self.fetch(b) > 0:
                    np_add64(&self.delivered, b.n)
                    return <int>b.n
                self.look()
                if self.wait(-1, <int>(end - now)) == 2:
                    return 0

    cdef int fetch(self, Batch *b) noexcept with gil:
        """Fill the batch: packets, 0 when there are none, -1 when none passed the filter."""
        cdef bytes data, meta
        cdef const uint8_t *base
        cdef uint32_t words[4]
        cdef uint32_t i, records
        cdef uint32_t n = 0
        cdef Block *block
        cdef RawPacket *raw
        cdef int up
        self.collect()
        if self.reader is None:
            return 0
        try:
            with self.using:
                data, meta = self.reader.next_batch(BATCH_PACKETS)
        except Exception:
            # it went down, or away; the reader goes on when it is only down
            up = np_load(&self.state_) == STATE_UP
            self.look()
            if up and np_load(&self.state_) == STATE_UP:
                self.outages += 1    # for a moment
            return 0
        records = <uint32_t>(PyBytes_GET_SIZE(meta) // RECORD)
        if records == 0:
            return 0
        if records > BATCH_PACKETS:
            records = BATCH_PACKETS
        base = <const uint8_t *>PyBytes_AS_STRING(data)
        for i in range(records):
            memcpy(words, PyBytes_AS_STRING(meta) + <Py_ssize_t>i * RECORD, RECORD)
            if <uint64_t>words[2] + words[3] > <uint64_t>PyBytes_GET_SIZE(data):
                continue
            if self.program is not None and not self.program.run(base + words[2], words[3], words[3]):
                self.filtered += 1
                continue
            raw = &b.raw[n]
            raw.data = base + words[2]
            raw.ts = <int64_t>words[0] * 1000000000 + <int64_t>words[1] * 1000
            raw.caplen = words[3] if words[3] <= self.snaplen else self.snaplen
            raw.wirelen = words[3]
            raw.linktype = <uint16_t>self.linktype
            raw.flags = 0
            raw.interface = 0
            n += 1
        if n == 0:
            return -1
        block = self.free_blocks
        if block != NULL:
            self.free_blocks = block.next
        else:
            block = <Block *>calloc(1, sizeof(Block))
            if block == NULL:
                return 0
        Py_INCREF(data)
        block.owner = <void *>data
        block.refs = 1
        b.block = block
        b.n = n
        return <int>n

    cdef void look(self) noexcept with gil:
        """Is the interface still there? Open it anew when it is back."""
        cdef int state
        if self.everything:
            return
        if self.reader is not None:
            state = self.link_state()
            if state == STATE_GONE and np_load(&self.state_) != STATE_GONE:
                self.next_try = clock_ms() + LAST_MS
            if state != STATE_UP and np_load(&self.state_) == STATE_UP:
                self.outages += 1
            np_store(&self.state_, <uint32_t>state)
            # the last packets are still to come, when the kernel hands over the block that it has begun
            if state == STATE_GONE and clock_ms() >= self.next_try:
                self.drop_reader()
            return
        if clock_ms() < self.next_try:
            return
        self.next_try = clock_ms() + RETRY_MS
        if not self.present():
            np_store(&self.state_, STATE_GONE)
            return
        try:
            self.open()
            self.reopened += 1
        except Exception:
            np_store(&self.state_, STATE_DOWN)     # most likely

    cdef void drop_reader(self):
        with self.using:
            self.count()
            self.note_unread()
            self.fd = -1
            if self.reader is not None:
                self.reader.close()
            self.reader = None

    cdef void note_unread(self):
        """What libpcap has in its buffer is lost. Where packets show twice it counts both, and this is not known."""
        cdef uint64_t read = self.dropped + self.delivered + self.filtered + self.lost
        if self.reader is not None and not self.everything and self.ifindex != LOOPBACK and self.passed > read:
            np_add64(&self.lost, self.passed - read)

    cdef void shut(self) noexcept nogil:
        with gil:
            self.drop_reader()

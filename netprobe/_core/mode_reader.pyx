"""Packets to DNS answers or RADIUS bindings (kprobe spec 2.2, 2.3, 7).

Rows leave as packed bytes, for the thread that ships them: `dns_rows` and `radius_rows` make objects of them there.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from netprobe._core.decode cimport decode_batch, decode_datagram
from netprobe._core.fragment cimport frag_feed, frag_free, frag_init, frag_release
from netprobe._core.packet cimport (
    L3_IPV4, PF_FRAG, PF_TUNNEL, PROTO_UDP, Packet, RawPacket, addr_len,
)
from netprobe._core.source cimport BATCH_PACKETS, PacketSource
from netprobe._core.spread cimport bare_ip, cut, sift
from netprobe._core.wire.be cimport be16
from netprobe._core.wire.dns_kprobe cimport DNSK_OK, DnsAddress, dnsk_next_address, dnsk_parse
from netprobe._core.wire.link cimport LT_RAW
from netprobe._core.wire.radius cimport (
    RADIUS_ACCOUNTING_REQUEST, RADIUS_ADDRESS, RADIUS_OK, RADIUS_START, RADIUS_STATUS, RADIUS_STOP, RADIUS_USER,
    Radius, radius_parse,
)

cdef enum:
    FRAG_DATAGRAMS = 4096
    FRAG_BYTES = 16777216
    # the longest message: answers of at least 16 bytes each (compressed name, A) become 21
    ROW_MAX = 131072
    ROOM = 524288
    UDP_HEADER = 8
    MIRROR_HEADER = 8            # what a Juniper router puts before the packet (spec 7.2)

cdef enum:
    # RADIUS rows
    BIND = 1
    UNBIND = 2

cdef int64_t SECOND = 1000000000

# one row of dns: this head, host, name, then `answers` times {uint8_t len; uint32_t ttl; address}
cdef packed struct DnsRow:
    int64_t ts
    uint16_t answers
    uint8_t host_len
    uint8_t name_len

# one row of radius: this head, then the user's name
cdef packed struct RadiusRow:
    int64_t ts
    uint8_t what                 # BIND, UNBIND
    uint8_t user_len
    uint8_t address[4]


cdef inline int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * SECOND + now.tv_nsec


cdef class ModeReader:
    """Reads an opened source. `mode`: "dns" or "radius"; `ports`: None for any; `mirrored`: see spec 7.2."""

    def __cinit__(self, PacketSource reader not None, str mode not None, *, ports=None, bint mirrored=False,
                  compile_filter=None, uint32_t snaplen=0):
        self.reader = reader
        self.compile_filter = compile_filter
        self.snaplen = snaplen
        self.programs = {}
        if mode not in ("dns", "radius"):
            raise ValueError(mode)
        self.radius = mode == "radius"
        self.mirrored = mirrored
        self.any_port = ports is None
        cdef uint32_t port
        for port in ports or ():
            if port > 65535:
                raise ValueError(port)
            self.ports[port >> 3] |= <uint8_t>(1 << (port & 7))
        self.packets = <Packet *>malloc(BATCH_PACKETS * sizeof(Packet))
        self.rows = <uint8_t *>malloc(ROOM)
        if self.packets == NULL or self.rows == NULL:
            raise MemoryError
        if frag_init(&self.frags, FRAG_DATAGRAMS, FRAG_BYTES) < 0:
            raise MemoryError
        self.ready = 1

    def __dealloc__(self):
        if self.reader is not None:
            self.reader.release(&self.batch)
        if self.ready:
            frag_free(&self.frags)
        free(self.packets)
        free(self.rows)

    def read(self, seconds=None):
        """Rows of a second of packet time at most, as packed bytes; b"" at the end (`at_end`) or on a silent wire too.

        seconds: how long to go on at most, by the wall clock.
        """
        cdef int64_t start = 0, until = 0
        cdef int started = 0
        if seconds is not None:
            until = monotonic_ns() + <int64_t>(seconds * 1e9)
        self.used = self.n_rows = 0
        while True:
            if self.at == self.batch.n:
                if started and (self.now - start >= SECOND or (until and monotonic_ns() >= until)):
                    break
                if self.stopping or not self.next_batch():
                    break
                if not started:
                    started = 1
                    start = self.now
                PyErr_CheckSignals()
            with nogil:
                while self.at < self.batch.n and ROOM - self.used >= ROW_MAX:
                    self.take(&self.packets[self.at])
                    self.at += 1
            if self.at < self.batch.n:
                break
        return PyBytes_FromStringAndSize(<char *>self.rows, self.used)

    def stop(self):
        """No more packets are read. Any thread."""
        self.stopping = 1

    @property
    def at_end(self):
        return (self.stopping or self.reader.ended != 0) and self.at == self.batch.n

    @property
    def rows_read(self):
        """In what `read` returned last."""
        return self.n_rows

    @property
    def latest(self):
        """Time of the latest packet, ns."""
        return self.now

    def stats(self):
        """framed = filtered_out + fragments not yet or never joined + other + cut + malformed + useless + found, where
        the fragments of a datagram that became whole count as one."""
        return {
            "framed": self.framed,
            "filtered_out": self.framed - self.kept,
            "fragments": self.fragments,
            "fragments_lost": self.fragments - self.joined,
            "other": self.other,
            "cut": self.cut,
            "malformed": self.malformed,
            "useless": self.useless,
            "found": self.found,
        }

    cdef int next_batch(self) except -1:
        cdef int got
        with nogil:
            frag_release(&self.frags)
            self.reader.release(&self.batch)
            self.at = 0
            got = self.reader.next_batch(&self.batch)
        if got == 0:
            self.batch.n = 0
            return 0
        self.framed += self.batch.n
        if self.batch.n:
            self.now = self.batch.raw[self.batch.n - 1].ts
        if self.compile_filter is not None:
            sift(&self.batch, self.programs, self.compile_filter)
        if self.snaplen:
            cut(&self.batch, self.snaplen)
        self.kept += self.batch.n
        with nogil:
            decode_batch(&self.config, self.batch.raw, self.batch.n, self.packets, &self.stats_)
        return 1

    cdef void take(self, Packet *p) noexcept nogil:
        cdef Packet whole
        if p.l3 and not bare_ip(p):
            self.other += 1
            return
        if p.flags & PF_FRAG:
            self.fragments += 1
            if not frag_feed(&self.frags, p, &whole):
                return
            self.joined += self.frags.done_fragments
            decode_datagram(&self.config, &whole)
            p = &whole
        if self.mirrored:
            self.take_mirrored(p)
        else:
            self.take_datagram(p)

    cdef void take_mirrored(self, Packet *outer) noexcept nogil:
        """The packet inside of an UDP payload, behind eight bytes."""
        cdef RawPacket raw
        cdef Packet inner, whole
        cdef uint8_t version
        if outer.l4 != PROTO_UDP or outer.flags & PF_TUNNEL or outer.payload_len <= MIRROR_HEADER:
            self.other += 1
            return
        raw.data = outer.data + outer.payload_off + MIRROR_HEADER
        raw.caplen = outer.payload_len - MIRROR_HEADER
        version = raw.data[0] >> 4
        if version != 4 and version != 6:
            self.other += 1
            return
        raw.wirelen = raw.caplen + (outer.wirelen - outer.caplen if outer.wirelen > outer.caplen else 0)
        raw.ts = outer.ts
        raw.linktype = LT_RAW
        raw.flags = 0
        raw.interface = 0
        decode_batch(&self.config, &raw, 1, &inner, &self.stats_)
        if inner.flags & PF_FRAG:
            self.fragments += 1
            if not frag_feed(&self.frags, &inner, &whole):
                return
            self.joined += self.frags.done_fragments
            decode_datagram(&self.config, &whole)
            self.take_datagram(&whole)
        else:
            self.take_datagram(&inner)

    cdef void take_datagram(self, Packet *p) noexcept nogil:
        cdef uint16_t port = p.dport if self.radius else p.sport
        cdef const uint8_t *data = p.data + p.payload_off
        cdef uint32_t length
        if p.l4 != PROTO_UDP or p.flags & PF_TUNNEL or not (self.any_port or self.ports[port >> 3] >> (port & 7) & 1):
            self.other += 1
            return
        if p.l4_off + UDP_HEADER <= p.caplen:
            length = be16(p.data + p.l4_off + 4)
            # a wrong length alone is no reason: kprobe does not look at it
            if p.wirelen > p.caplen and length > UDP_HEADER and p.payload_len < length - UDP_HEADER:
                self.cut += 1
                return
        if self.radius:
            self.put_radius(p, data, p.payload_len)
        else:
            self.put_dns(p, data, p.payload_len)

    cdef void put_dns(self, const Packet *p, const uint8_t *data, uint32_t n) noexcept nogil:
        cdef DnsRow row
        cdef DnsAddress a
        cdef uint32_t pos, left, size = <uint32_t>addr_len(p)
        cdef uint8_t *out
        if n >= 3 and (not data[2] & 0x80 or data[2] >> 3 & 15):
            self.useless += 1        # a query, or no lookup: cheaper than to read it first
            return
        if dnsk_parse(data, n, &self.dns) != DNSK_OK:
            self.malformed += 1
            return
        if self.dns.n_questions == 0 or self.dns.n_answers == 0:
            self.useless += 1
            return
        row.ts = p.ts
        row.answers = 0
        row.host_len = <uint8_t>size
        row.name_len = <uint8_t>self.dns.name_len
        out = self.rows + self.used + sizeof(DnsRow)
        memcpy(out, &p.dst[0], size)
        out += size
        memcpy(out, self.dns.name, self.dns.name_len)
        out += self.dns.name_len
        pos = self.dns.answers_at
        left = self.dns.n_answers
        while dnsk_next_address(data, n, &pos, &left, &a):
            out[0] = a.len
            memcpy(out + 1, &a.ttl, 4)
            memcpy(out + 5, a.addr, a.len)
            out += 5 + a.len
            row.answers += 1
        if row.answers == 0:
            self.useless += 1
            return
        memcpy(self.rows + self.used, &row, sizeof(DnsRow))
        self.used = <uint32_t>(out - self.rows)
        self.n_rows += 1
        self.found += 1

    cdef void put_radius(self, const Packet *p, const uint8_t *data, uint32_t n) noexcept nogil:
        cdef RadiusRow row
        cdef Radius m
        cdef uint8_t *out = self.rows + self.used
        if n and data[0] != RADIUS_ACCOUNTING_REQUEST:
            self.useless += 1
            return
        if radius_parse(data, n, &m) != RADIUS_OK:
            self.malformed += 1
            return
        memset(&row, 0, sizeof(row))
        row.ts = p.ts
        if m.has & RADIUS_STATUS and m.has & RADIUS_USER and m.user_len:
            if m.status == RADIUS_START and m.has & RADIUS_ADDRESS:
                row.what = BIND
                memcpy(row.address, m.address, 4)
            elif m.status == RADIUS_STOP:
                row.what = UNBIND
        if row.what == 0:
            self.useless += 1
            return
        row.user_len = m.user_len
        memcpy(out, &row, sizeof(RadiusRow))
        memcpy(out + sizeof(RadiusRow), m.user, m.user_len)
        self.used += <uint32_t>sizeof(RadiusRow) + m.user_len
        self.n_rows += 1
        self.found += 1


def dns_rows(bytes packed not None):
    """(time in ns, name, client's address packed, ((address packed, ttl in seconds), ...)) of each answer."""
    cdef const uint8_t *data = <const uint8_t *><const char *>packed
    cdef Py_ssize_t at = 0, size = len(packed)
    cdef DnsRow row
    cdef uint32_t i, ttl
    cdef const uint8_t *host
    rows = []
    while at < size:
        memcpy(&row, data + at, sizeof(DnsRow))
        host = data + at + sizeof(DnsRow)
        at += <Py_ssize_t>sizeof(DnsRow) + row.host_len + row.name_len
        answers = []
        for i in range(row.answers):
            memcpy(&ttl, data + at + 1, 4)
            answers.append(((<const char *>(data + at + 5))[:data[at]], <object>ttl))
            at += 5 + data[at]
        # the parser took UTF-8 only
        name = (<const char *>(host + row.host_len))[:row.name_len].decode("utf-8", "replace")
        rows.append((<object>row.ts, name, (<const char *>host)[:row.host_len], tuple(answers)))
    return rows


def radius_rows(bytes packed not None):
    """(time in ns, user, address packed or None when the binding ends)."""
    cdef const uint8_t *data = <const uint8_t *><const char *>packed
    cdef Py_ssize_t at = 0, size = len(packed)
    cdef RadiusRow row
    rows = []
    while at < size:
        memcpy(&row, data + at, sizeof(RadiusRow))
        at += sizeof(RadiusRow)
        user = (<const char *>(data + at))[:row.user_len].decode("utf-8", "replace")
        at += row.user_len
        address = (<const char *>&row.address[0])[:4] if row.what == BIND else None
        rows.append((<object>row.ts, user, address))
    return rows

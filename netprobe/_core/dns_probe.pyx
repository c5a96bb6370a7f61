"""Drive one dns accumulator by hand, message by message: for tests and benchmarks."""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from netprobe._core.handler cimport MAX_BLOCKS, Accumulator, Work
from netprobe._core.packet cimport DIR_UNKNOWN, L3_IPV4, PF_DEEP, PROTO_TCP, PROTO_UDP, Packet, mix64
from netprobe._core.sketch.freq cimport freq_get
from netprobe._core.sketch.hll cimport hll_estimate
from netprobe._core.sketch.kll cimport kll_count, kll_quantiles
from netprobe._core.store cimport MetricSet, mset_close, mset_free
from netprobe._core.wire.dns cimport DNS_TCP, DnsMsg, dns_parse

BLOCKS = ("in", "out", "unknown")


cdef class Driver:
    """Owns what the engine owns for an accumulator: messages of a batch, and bucket rotation.

    ``before`` is another accumulator that sees the same messages first.
    """
    cdef Accumulator acc
    cdef Accumulator before

    def __init__(self, Accumulator acc, int64_t start=0, Accumulator before=None):
        self.acc = acc
        self.before = before
        acc.open_bucket(start)
        if before is not None:
            before.open_bucket(start)

    def feed(self, messages):
        """Consume dicts (data; ts in ns; flow, port, tcp, l3, direction, deep); the places of those handed on."""
        cdef uint32_t n = <uint32_t>len(messages), i
        cdef DnsMsg *msgs = <DnsMsg *>calloc(n + 1, sizeof(DnsMsg))
        cdef Packet *packets = <Packet *>calloc(n + 1, sizeof(Packet))
        cdef DnsMsg **lists = <DnsMsg **>calloc(2 * (n + 1), sizeof(void *))
        cdef Packet **pkts = <Packet **>calloc(2 * (n + 1), sizeof(void *))
        cdef Work work, out
        cdef bytes data
        cdef Accumulator acc = self.acc
        cdef Accumulator before = self.before
        memset(&work, 0, sizeof(work))
        memset(&out, 0xff, sizeof(out))
        try:
            for i in range(n):
                one = messages[i]
                data = one["data"]
                dns_parse(<const uint8_t *>data, <uint32_t>len(data), acc.dns_want, &msgs[i])
                msgs[i].pkt = &packets[i]
                msgs[i].ts = packets[i].ts = one.get("ts", 0)
                msgs[i].flow_hash = one.get("flow", 1)
                msgs[i].port = one.get("port", 40000)
                msgs[i].tcp = one.get("tcp", 0)
                packets[i].l3 = one.get("l3", <int>L3_IPV4)
                packets[i].l4 = PROTO_TCP if msgs[i].tcp == DNS_TCP else PROTO_UDP
                packets[i].direction = one.get("direction", <int>DIR_UNKNOWN)
                packets[i].flags = PF_DEEP if one.get("deep", True) else 0
                lists[i] = &msgs[i]
            work.dns = lists
            work.n_dns = n
            out.dns = lists + n + 1
            out.pkts = pkts
            out.udp = pkts + n + 1
            with nogil:
                if before is not None:
                    before.consume(<void *>before, &work, NULL)
                acc.consume(<void *>acc, &work, &out)
            assert out.n_pkts == out.n_dns and out.n_bgp == 0 and out.tcp_errors == 0
            places = [out.dns[i] - msgs for i in range(out.n_dns)]
            assert [out.pkts[i] - packets for i in range(out.n_pkts)] == places
            assert [out.udp[i] - packets for i in range(out.n_udp)] == [p for p in places if not msgs[p].tcp]
            return places
        finally:
            free(msgs)
            free(packets)
            free(lists)
            free(pkts)

    def shift(self, int64_t now):
        """Close the bucket, open the next, tell the accumulator; values of the closed one."""
        cdef MetricSet *closed[MAX_BLOCKS]
        cdef int i
        memset(closed, 0, sizeof(closed))
        for i in range(self.acc.n_blocks):
            closed[i] = self.acc.sets[i]
            mset_close(closed[i], now)
        self.acc.open_bucket(now)
        with nogil:
            self.acc.shifted(<void *>self.acc, closed, now)
        values = self._values(closed)
        for i in range(self.acc.n_blocks):
            mset_free(closed[i])
        return values

    def values(self):
        """Values of the open bucket: path -> number, or dict of a table; block paths as `in.xacts`."""
        return self._values(self.acc.sets)

    cdef _values(self, MetricSet **sets):
        found = {}
        for path, (kind, index) in self.acc.fields().items():
            if not path.startswith("D."):
                found[path] = self._value(sets[0], kind, index)
                continue
            for block in range(3):
                if sets[1 + <int>block].used:
                    found[f"{BLOCKS[block]}.{path[2:]}"] = self._value(sets[1 + <int>block], kind, index)
        return found

    cdef _value(self, MetricSet *s, kind, int index):
        cdef const uint8_t *key
        cdef uint32_t n, cell
        cdef uint64_t weight
        cdef double ranks[3]
        cdef double quantiles[3]
        if kind == "counter":
            return s.counter[index]
        if kind == "cardinality":
            return round(hll_estimate(&s.card[index]))
        if kind == "topn":
            rows = {}
            if s.topn[index].cells != NULL:
                for cell in range(<uint32_t>2 << s.topn[index].lg_cur):
                    if freq_get(&s.topn[index], cell, &key, &n, &weight):
                        rows[key[:n]] = weight
            return rows
        if kind == "quantile":
            if kll_count(&s.quant[index]) == 0:
                return None
            ranks[0], ranks[1], ranks[2] = 0.5, 0.9, 1.0
            kll_quantiles(&s.quant[index], ranks, 3, quantiles)
            return kll_count(&s.quant[index]), quantiles[0], quantiles[1], quantiles[2]
        if kind == "histogram":
            return s.hist[index].n
        return sum(s.rate.rows[i].count[index] for i in range(s.rate.n_rows))


cdef enum:
    BATCH = 512


def time_consume(Accumulator acc, messages, int rounds):
    """For a benchmark: parse and consume the messages `rounds` times in batches, as the engine does."""
    cdef uint32_t n = <uint32_t>len(messages), i, k, m
    cdef int r
    cdef int64_t now = 0
    cdef const uint8_t **data = <const uint8_t **>calloc(n + 1, sizeof(void *))
    cdef uint32_t *size = <uint32_t *>calloc(n + 1, sizeof(uint32_t))
    cdef uint64_t *flow = <uint64_t *>calloc(n + 1, sizeof(uint64_t))
    cdef uint16_t *port = <uint16_t *>calloc(n + 1, sizeof(uint16_t))
    cdef DnsMsg *msgs = <DnsMsg *>calloc(BATCH, sizeof(DnsMsg))
    cdef Packet *packets = <Packet *>calloc(BATCH, sizeof(Packet))
    cdef DnsMsg *lists[BATCH]
    cdef Work work
    memset(&work, 0, sizeof(work))
    if acc.sets[0] == NULL:
        acc.open_bucket(0)
    for i in range(n):
        data[i] = <const uint8_t *><bytes>messages[i]["data"]
        size[i] = <uint32_t>len(messages[i]["data"])
        flow[i] = mix64(messages[i].get("flow", 1))
        port[i] = messages[i].get("port", 40000)
    for i in range(BATCH):
        packets[i].l3 = L3_IPV4
        packets[i].flags = PF_DEEP
        msgs[i].pkt = &packets[i]
        lists[i] = &msgs[i]
    work.dns = lists
    with nogil:
        for r in range(rounds):
            i = 0
            while i < n:
                k = n - i if n - i < BATCH else <uint32_t>BATCH
                for m in range(k):
                    dns_parse(data[i + m], size[i + m], acc.dns_want, &msgs[m])
                    msgs[m].flow_hash = flow[i + m]
                    msgs[m].port = port[i + m]
                    packets[m].direction = msgs[m].qr
                    now += 2000
                    msgs[m].ts = now
                work.n_dns = k
                acc.consume(<void *>acc, &work, NULL)
                i += k
    free(data)
    free(size)
    free(flow)
    free(port)
    free(msgs)
    free(packets)

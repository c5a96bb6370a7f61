"""The captures that the benchmark runs on: the same bytes for the same arguments on any machine.

    python benchmarks/generate.py [--dir DIR] [--packets N[,N]] [mix|dns|small|flood ...]

Each is a pcap file (microseconds, little-endian, Ethernet) at 100 000 packets per second of capture time. A
file of fewer packets is a prefix of the one with more, so that the difference of two runs is the cost of
packets alone.

mix    100k flows, 70 % IPv4, frames of 64/594/1518 bytes as 7:4:1, 10 % tagged, 3 % ICMP, 15 % DNS over UDP
dns    UDP queries and responses only, 200k names, 20k clients
small  64-byte UDP frames of a million flows
flood  every packet has a new address; 5 of 6 are DNS messages with a new name, the rest are SYNs to port 53
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

DEFAULT_DIR = Path("/tmp/netprobe-bench")
CHUNK = 1 << 16
START = 1_700_000_000
RECORD = 16
LAG = 64  # DNS slots between a query and its response: about 4 ms in mix, 1.3 ms in dns
NAME_MAX = 64

# -H for each capture: the monitored side
HOSTS = {
    "mix": "192.168.0.0/16,2001:db8::/32",
    "dns": "192.0.2.0/24,2001:db8:53::/48",
    "small": "10.0.0.0/8",
    "flood": "192.0.2.0/24,2001:db8:53::/48",
}

# networks that MaxMind's public test databases know, so that look-ups find something
GEO4 = [
    0x5102_45A0,
    0x59A0_1470,
    0xD8A0_5338,
    0x027D_A0D8,
    0x432B_9C00,
    0xAF10_C700,
    0xCAC4_E000,
    0x0180_0000,
]
GEO6 = ["2001:0218", "2a02:d280", "2a02:dac0", "2001:0230", "2001:0480", "2a02:ff80"]


def mix64(x: I64 | U64, salt: int) -> U64:
    """A bijective scramble of 64-bit numbers (splitmix64's finaliser): attributes of the n-th thing."""
    with np.errstate(over="ignore"):
        z = x.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def unit(h: U64) -> NDArray[np.float64]:
    return (h >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def below(h: U64, n: int) -> I64:
    return (h % np.uint64(n)).astype(np.int64)


def put(flat: U8, at: I64, rows: U8) -> None:
    """Writes row i of `rows` at flat[at[i]]."""
    if len(at):
        flat[at[:, None] + np.arange(rows.shape[1])] = rows


def put_some(flat: U8, at: I64, rows: U8, lens: I64) -> None:
    """The same, of row i only the first lens[i] bytes."""
    if len(at):
        keep = np.arange(rows.shape[1]) < lens[:, None]
        flat[(at[:, None] + np.arange(rows.shape[1]))[keep]] = rows[keep]


def be(values: I64 | U64, width: int) -> U8:
    """Big-endian bytes, one row per value."""
    wide = np.ascontiguousarray(values.astype(">u8")).view(np.uint8).reshape(-1, 8)
    return wide[:, 8 - width :]


def addresses(n: int, host: bool, salt: int, is6: NDArray[np.bool_], host4: int, host6: bytes) -> U8:
    """n addresses of 16 bytes (IPv4 in the first four): of the monitored networks, or of the outside."""
    i = np.arange(n, dtype=np.int64)
    h = mix64(i, salt)
    out = np.zeros((n, 16), np.uint8)
    if host:
        four = np.uint64(host4) + h % np.uint64(1 << 16)
        out[:, :4] = be(four, 4)
        six = np.frombuffer(host6, np.uint8)
        out[is6, :8] = six[:8]
        out[is6, 8:] = be(h, 8)[is6]
        return out
    known = unit(mix64(i, salt + 1)) < 0.3
    base = np.array(GEO4, np.uint64)[below(mix64(i, salt + 2), len(GEO4))]
    # 1.0.0.0 to 223.255.255.255, 10/8 and 127/8 left out by pushing them up a block
    free = np.uint64(1 << 24) + h % np.uint64(222 << 24)
    top = free >> np.uint64(24)
    free = np.where((top == 10) | (top == 127), free + np.uint64(1 << 24), free)
    out[:, :4] = be(np.where(known, base + h % np.uint64(8), free), 4)
    prefix = np.array([list(bytes.fromhex(p.replace(":", ""))) for p in GEO6], np.uint8)
    six_rows = np.zeros((n, 16), np.uint8)
    six_rows[:, 0] = 0x2A
    six_rows[:, 1:8] = be(mix64(i, salt + 3), 7)
    six_rows[known, :4] = prefix[below(mix64(i, salt + 2), len(GEO6))][known]
    six_rows[:, 8:] = be(h, 8)
    out[is6] = six_rows[is6]
    return out


class Names:
    """Names in wire form: a matrix of bytes and their lengths."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        hosts = ["www", "api", "cdn", "mail", "img", "static", "edge", "ns1", "login", "m", "assets", "video"]
        tlds = ["com", "com", "com", "net", "org", "io", "de", "co.uk", "com.br", "info"]
        letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
        seen: set[bytes] = set()
        self.rows = np.zeros((count, NAME_MAX), np.uint8)
        self.lens = np.zeros(count, np.int64)
        while len(seen) < count:
            depth = int(rng.integers(0, 10))
            labels = [letters[rng.integers(0, 26, int(rng.integers(4, 15)))].tobytes()]
            if depth > 0:
                labels.insert(0, hosts[int(rng.integers(len(hosts)))].encode())
            if depth > 6:
                labels.insert(0, b"%s-%d" % (labels[0][:4], int(rng.integers(1000))))
            labels += tlds[int(rng.integers(len(tlds)))].encode().split(b".")
            wire = b"".join(bytes([len(x)]) + x for x in labels) + b"\0"
            if wire in seen:
                continue
            self.rows[len(seen), : len(wire)] = np.frombuffer(wire, np.uint8)
            self.lens[len(seen)] = len(wire)
            seen.add(wire)

    def get(self, index: I64) -> tuple[U8, I64]:
        return self.rows[index], self.lens[index]


class FloodNames:
    """As many distinct names as there are numbers: <16 hex digits>.<6 hex digits>.com."""

    HEX = np.frombuffer(b"0123456789abcdef", np.uint8)

    def get(self, index: I64) -> tuple[U8, I64]:
        rows = np.zeros((len(index), 29), np.uint8)
        h = mix64(index, 77)
        rows[:, 0] = 16
        for k in range(16):
            rows[:, 1 + k] = self.HEX[((h >> np.uint64(4 * k)) & np.uint64(15)).astype(np.int64)]
        rows[:, 17] = 6
        g = mix64(index, 78)
        for k in range(6):
            rows[:, 18 + k] = self.HEX[((g >> np.uint64(4 * k)) & np.uint64(15)).astype(np.int64)]
        rows[:, 24:29] = np.frombuffer(b"\x03com\0", np.uint8)
        return rows, np.full(len(index), 29, np.int64)


def answer(rtype: int, rdata: bytes) -> bytes:
    return struct.pack(">HHHIH", 0xC00C, rtype, 1, 300, len(rdata)) + rdata


A = answer(1, bytes([93, 184, 216, 34]))
AAAA = answer(28, bytes.fromhex("260628000220000102481893 25c81946".replace(" ", "")))
SOA = answer(6, b"\xc0\x0c\xc0\x0c" + struct.pack(">5I", 2024010101, 7200, 3600, 1209600, 300))
# records of a response, how many are answers, how many authority
VARIANTS: list[tuple[bytes, int, int]] = [
    (b"", 0, 0),
    (A, 1, 0),
    (A * 2, 2, 0),
    (A * 3, 3, 0),
    (AAAA, 1, 0),
    (AAAA * 2, 2, 0),
    (answer(15, b"\x00\x0a\xc0\x0c"), 1, 0),
    (answer(16, b"\x20v=spf1 include:_spf.example -all"), 1, 0),
    (SOA, 0, 1),
]
V_ROWS = np.zeros((len(VARIANTS), max(len(v[0]) for v in VARIANTS)), np.uint8)
for _k, _v in enumerate(VARIANTS):
    V_ROWS[_k, : len(_v[0])] = np.frombuffer(_v[0], np.uint8)
V_LENS = np.array([len(v[0]) for v in VARIANTS], np.int64)
V_AN = np.array([v[1] for v in VARIANTS], np.int64)
V_NS = np.array([v[2] for v in VARIANTS], np.int64)
OPT = np.frombuffer(b"\0" + struct.pack(">HHIH", 41, 1232, 0, 0), np.uint8)


class DnsMessages:
    """Messages of transactions by number: lengths first, bytes when the place is known."""

    def __init__(self, t: I64, resp: NDArray[np.bool_], names: Names | FloodNames, index: I64) -> None:
        n = len(t)
        self.resp = resp
        self.name, self.name_len = names.get(index)
        h = mix64(t, 11)
        self.ids = below(h, 65536)
        q = unit(mix64(t, 12))
        self.qtype = np.select([q < 0.62, q < 0.90, q < 0.96, q < 0.98], [1, 28, 65, 15], 16).astype(np.int64)
        r = unit(mix64(t, 13))
        self.rcode = np.select([r < 0.88, r < 0.97, r < 0.99], [0, 3, 2], 5).astype(np.int64)
        few = below(mix64(t, 14), 6)
        answers = np.select(
            [self.qtype == 1, self.qtype == 28, self.qtype == 65, self.qtype == 15],
            [np.array([1, 1, 1, 2, 2, 3])[few], np.array([4, 4, 4, 5, 5, 8])[few], 8, 6],
            7,
        )
        self.variant = np.select([self.rcode == 0, self.rcode == 3], [answers, 8], 0).astype(np.int64)
        self.variant[~resp] = 0
        self.opt = unit(mix64(t, 15)) < 0.6
        self.size = 12 + self.name_len + 4 + V_LENS[self.variant] + np.where(self.opt, len(OPT), 0)
        self.n = n

    def write(self, flat: U8, at: I64) -> None:
        head = np.zeros((self.n, 12), np.uint8)
        head[:, 0:2] = be(self.ids, 2)
        head[:, 2] = np.where(self.resp, 0x81, 0x01)
        head[:, 3] = np.where(self.resp, 0x80 | self.rcode, 0x20)
        head[:, 5] = 1
        head[:, 7] = V_AN[self.variant]
        head[:, 9] = V_NS[self.variant]
        head[:, 11] = self.opt
        put(flat, at, head)
        put_some(flat, at + 12, self.name, self.name_len)
        at = at + 12 + self.name_len
        tail = np.zeros((self.n, 4), np.uint8)
        tail[:, 0:2] = be(self.qtype, 2)
        tail[:, 3] = 1
        put(flat, at, tail)
        at = at + 4
        put_some(flat, at, V_ROWS[self.variant], V_LENS[self.variant])
        at = (at + V_LENS[self.variant])[self.opt]
        put(flat, at, np.broadcast_to(OPT, (len(at), len(OPT))))


def headers(
    flat: U8,
    at: I64,
    stamp_us: I64,
    frame: I64,
    is6: bool,
    vlan: bool,
    proto: int,
    src: U8,
    dst: U8,
    sport: I64,
    dport: I64,
    tcp_flags: I64 | None,
    ident: I64,
    end: I64,
) -> None:
    """Record header, Ethernet, VLAN, IP and L4 header of packets of one shape; the datagram ends at `end`."""
    n = len(at)
    l2 = 18 if vlan else 14
    l3 = l2 + (40 if is6 else 20)
    l4 = {6: 20, 17: 8}.get(proto, 8)
    rows = np.zeros((n, RECORD + l3 + l4), np.uint8)
    record = np.zeros((n, 4), "<u4")
    record[:, 0] = START + stamp_us // 1_000_000
    record[:, 1] = stamp_us % 1_000_000
    record[:, 2] = record[:, 3] = frame
    rows[:, :RECORD] = record.view(np.uint8)
    f = rows[:, RECORD:]
    f[:, 0:12] = np.frombuffer(bytes.fromhex("020000000001020000000002"), np.uint8)
    kind = b"\x86\xdd" if is6 else b"\x08\x00"
    f[:, 12:l2] = np.frombuffer(b"\x81\x00\x00\x64" + kind if vlan else kind, np.uint8)
    if is6:
        f[:, l2] = 0x60
        f[:, l2 + 4 : l2 + 6] = be(end - l3, 2)
        f[:, l2 + 6] = 58 if proto == 1 else proto
        f[:, l2 + 7] = 60
        f[:, l2 + 8 : l2 + 24] = src
        f[:, l2 + 24 : l2 + 40] = dst
    else:
        f[:, l2] = 0x45
        f[:, l2 + 2 : l2 + 4] = be(end - l2, 2)
        f[:, l2 + 4 : l2 + 6] = be(ident, 2)
        f[:, l2 + 6] = 0x40
        f[:, l2 + 8] = 60
        f[:, l2 + 9] = proto
        f[:, l2 + 12 : l2 + 16] = src[:, :4]
        f[:, l2 + 16 : l2 + 20] = dst[:, :4]
        words = np.ascontiguousarray(f[:, l2 : l2 + 20]).view(">u2").astype(np.int64).sum(axis=1)
        words = (words & 0xFFFF) + (words >> 16)
        words = (words & 0xFFFF) + (words >> 16)
        f[:, l2 + 10 : l2 + 12] = be(0xFFFF - words, 2)
    if proto == 1:
        f[:, l3] = 128 if is6 else 8
        f[:, l3 + 4 : l3 + 6] = be(sport, 2)
    else:
        f[:, l3 : l3 + 2] = be(sport, 2)
        f[:, l3 + 2 : l3 + 4] = be(dport, 2)
        if proto == 17:
            f[:, l3 + 4 : l3 + 6] = be(end - l3, 2)
        else:
            f[:, l3 + 4 : l3 + 12] = be(mix64(stamp_us, 41), 8)
            f[:, l3 + 12] = 0x50
            assert tcp_flags is not None
            f[:, l3 + 13] = tcp_flags
            f[:, l3 + 14 : l3 + 16] = 0xFF
    put(flat, at, rows)


def by_shape(keys: list[I64]) -> list[I64]:
    """Indices of packets with equal keys, one array per combination."""
    code = keys[0]
    for key in keys[1:]:
        code = code * 256 + key
    return [np.flatnonzero(code == c) for c in np.unique(code)]


def write_headers(
    flat: U8,
    at: I64,
    us: I64,
    frame: I64,
    is6: I64,
    vlan: I64,
    proto: I64,
    src: U8,
    dst: U8,
    sport: I64,
    dport: I64,
    flags: I64,
) -> None:
    # a bare TCP segment is shorter than the smallest frame: the rest of that is padding
    end = np.where((proto == 6) & (frame <= 68), header_len(is6, vlan, proto), frame)
    for k in by_shape([is6, vlan, proto]):
        p = int(proto[k[0]])
        headers(
            flat,
            at[k],
            us[k],
            frame[k],
            bool(is6[k[0]]),
            bool(vlan[k[0]]),
            p,
            src[k],
            dst[k],
            sport[k],
            dport[k],
            flags[k] if p == 6 else None,
            us[k] & 0xFFFF,
            end[k],
        )


def header_len(is6: I64, vlan: I64, proto: I64) -> I64:
    return 14 + 4 * vlan + np.where(is6 == 1, 40, 20) + np.where(proto == 6, 20, 8)


class Talk:
    """Clients, servers and names of DNS traffic; who asks what in transaction t."""

    def __init__(self, names: Names, clients: int, servers: int, client_hosts: bool, seed: int) -> None:
        self.names = names
        self.is6 = unit(mix64(np.arange(clients, dtype=np.int64), seed)) < 0.3
        self.server4 = np.arange(servers) % 2 == 0
        self.client = addresses(
            clients, client_hosts, seed + 1, self.is6, 0xC0A8_0000, bytes.fromhex("20010db800010000")
        )
        self.servers = servers
        all4 = np.zeros(servers, bool)
        four = addresses(servers, not client_hosts, seed + 5, all4, 0xC000_0200, b"\0" * 8)
        if not client_hosts:
            four[:, :4] = be(0xC000_0201 + np.arange(servers, dtype=np.int64), 4)
        six = addresses(servers, not client_hosts, seed + 6, ~all4, 0, bytes.fromhex("20010db800530000"))
        self.server = np.stack([four, six])

    def names_of(self, t: I64) -> I64:
        count = len(self.names.lens)
        # every other transaction walks through all names, the rest prefers few of them
        walk = (t // 2 * 7919) % count
        skewed = (count * unit(mix64(t, 31)) ** 4).astype(np.int64)
        return np.where(t % 2 == 0, walk, skewed)

    def of(self, t: I64) -> tuple[U8, U8, I64, I64]:
        c = below(mix64(t, 32), len(self.is6))
        s = below(mix64(t, 33), self.servers)
        is6 = self.is6[c].astype(np.int64)
        sport = 1024 + below(mix64(t, 34), 48000)
        sport = np.where((sport == 5353) | (sport == 5355), sport + 1, sport)
        return self.client[c], self.server[is6, s], sport, is6


def dns_slots(slot: I64) -> tuple[I64, NDArray[np.bool_]]:
    """Slots to (transaction, is response): even ones ask, odd ones answer what was asked LAG slots ago."""
    resp = slot % 2 == 1
    t = slot // 2
    return np.where(resp, np.maximum(t - LAG // 2, 0), t), resp


def dns_part(talk: Talk, slot: I64) -> tuple[DnsMessages, U8, U8, I64, I64, I64]:
    t, resp = dns_slots(slot)
    messages = DnsMessages(t, resp, talk.names, talk.names_of(t))
    client, server, port, is6 = talk.of(t)
    src = np.where(resp[:, None], server, client)
    dst = np.where(resp[:, None], client, server)
    sport = np.where(resp, 53, port)
    dport = np.where(resp, port, 53)
    return messages, src, dst, sport, dport, is6


Chunk = Callable[[int, I64, I64], U8]


def make_mix() -> Chunk:
    flows = 100_000
    i = np.arange(flows, dtype=np.int64)
    is6 = unit(mix64(i, 101)) < 0.3
    vlan = (unit(mix64(i, 102)) < 0.1).astype(np.int64)
    kind = unit(mix64(i, 103))
    proto = np.select([kind < 0.035, kind < 0.2], [1, 17], 6).astype(np.int64)
    host = addresses(flows, True, 104, is6, 0xC0A8_0000, bytes.fromhex("20010db800020000"))
    peer = addresses(flows, False, 108, is6, 0, b"\0" * 8)
    cport = 10_000 + below(mix64(i, 112), 40_000)
    service = np.array([443, 443, 443, 443, 443, 80, 80, 22, 25, 993, 8080, 3306, 5060, 123])
    sport = service[below(mix64(i, 113), len(service))]
    talk = Talk(Names(20_000, 7), 10_000, 40, True, 120)
    is6n = is6.astype(np.int64)
    slots_before = 0

    def chunk(number: int, index: I64, us: I64) -> U8:
        nonlocal slots_before
        n = len(index)
        # exactly 15 %: which of every 20 packets, so that a prefix stays a prefix
        is_dns = (index * 7 + index // 20 * 3) % 20 < 3
        slot = slots_before + np.arange(int(is_dns.sum()), dtype=np.int64)
        slots_before += len(slot)
        messages, d_src, d_dst, d_sport, d_dport, d_is6 = dns_part(talk, slot)
        d = np.flatnonzero(is_dns)
        o = np.flatnonzero(~is_dns)
        flow = (flows * unit(mix64(index[o], 131)) ** 2).astype(np.int64)
        imix = np.array([64] * 7 + [594] * 4 + [1518])[below(mix64(index[o], 132), 12)]
        frame = np.zeros(n, np.int64)
        o_head = header_len(is6n[flow], vlan[flow], proto[flow])
        frame[o] = np.maximum(imix + 4 * vlan[flow], o_head)
        d_vlan = below(mix64(slot // 2, 133), 10) // 9
        frame[d] = header_len(d_is6, d_vlan, np.full(len(d), 17)) + messages.size
        at = np.concatenate(([0], np.cumsum(frame + RECORD)))
        flat = payload(int(at[-1]))
        small = imix == 64
        f = unit(mix64(index[o], 134))
        flags = np.select(
            [small & (f < 0.08), small & (f < 0.12), small & (f < 0.16), small & (f < 0.17)],
            [0x02, 0x12, 0x11, 0x04],
            np.where(small, 0x10, 0x18),
        ).astype(np.int64)
        back = below(mix64(index[o], 135), 2).astype(bool)
        write_headers(
            flat,
            at[:-1][o],
            us[o],
            frame[o],
            is6n[flow],
            vlan[flow],
            proto[flow],
            np.where(back[:, None], peer[flow], host[flow]),
            np.where(back[:, None], host[flow], peer[flow]),
            np.where(back, sport[flow], cport[flow]),
            np.where(back, cport[flow], sport[flow]),
            flags,
        )
        udp = np.full(len(d), 17)
        write_headers(
            flat, at[:-1][d], us[d], frame[d], d_is6, d_vlan, udp, d_src, d_dst, d_sport, d_dport, udp
        )
        messages.write(flat, at[:-1][d] + RECORD + header_len(d_is6, d_vlan, udp))
        return flat

    return chunk


def make_dns() -> Chunk:
    talk = Talk(Names(200_000, 8), 20_000, 8, False, 220)

    def chunk(number: int, index: I64, us: I64) -> U8:
        messages, src, dst, sport, dport, is6 = dns_part(talk, index)
        udp = np.full(len(index), 17)
        none = np.zeros(len(index), np.int64)
        head = header_len(is6, none, udp)
        frame = head + messages.size
        at = np.concatenate(([0], np.cumsum(frame + RECORD)))
        flat = payload(int(at[-1]))
        write_headers(flat, at[:-1], us, frame, is6, none, udp, src, dst, sport, dport, udp)
        messages.write(flat, at[:-1] + RECORD + head)
        return flat

    return chunk


def make_small() -> Chunk:
    flows = 1_000_000

    def chunk(number: int, index: I64, us: I64) -> U8:
        n = len(index)
        # the first million packets open every flow once, the later ones pick at random
        flow = np.where(index < flows, (index * 611_953) % flows, below(mix64(index, 301), flows))
        h = mix64(flow, 302)
        src = np.zeros((n, 16), np.uint8)
        dst = np.zeros((n, 16), np.uint8)
        src[:, :4] = be(np.uint64(0x0A00_0000) + (h & np.uint64(0xFFFF)), 4)
        dst[:, :4] = be(np.uint64(0x5000_0000) + ((h >> np.uint64(16)) & np.uint64(0xFFFFFF)), 4)
        g = mix64(flow, 303)
        sport = 10_000 + below(g, 40_000)
        dport = 10_000 + below(g >> np.uint64(20), 40_000)
        udp = np.full(n, 17)
        none = np.zeros(n, np.int64)
        at = np.arange(n, dtype=np.int64) * (64 + RECORD)
        flat = payload(n * (64 + RECORD))
        write_headers(flat, at, us, np.full(n, 64), none, none, udp, src, dst, sport, dport, udp)
        return flat

    return chunk


def make_flood() -> Chunk:
    names = FloodNames()

    def chunk(number: int, index: I64, us: I64) -> U8:
        n = len(index)
        syn = index % 6 == 5
        h = mix64(index, 401)
        is6 = (index % 2).astype(np.int64)
        # numbers in order are distinct addresses: 20.0.0.0 upwards, 2a00::/16 with the scrambled number below
        client = np.zeros((n, 16), np.uint8)
        client[:, :4] = be(0x1400_0000 + index, 4)
        six = np.zeros((n, 16), np.uint8)
        six[:, 0] = 0x2A
        six[:, 8:] = be(h, 8)
        client = np.where(is6[:, None] == 1, six, client)
        server = np.zeros((n, 16), np.uint8)
        server[:, :4] = np.frombuffer(bytes([192, 0, 2, 1]), np.uint8)
        server[is6 == 1] = np.frombuffer(bytes.fromhex("20010db8005300000000000000000001"), np.uint8)
        resp = (index % 4 == 3) & ~syn
        port = 1024 + below(mix64(index, 402), 4000)
        proto = np.where(syn, 6, 17).astype(np.int64)
        none = np.zeros(n, np.int64)
        d = np.flatnonzero(~syn)
        messages = DnsMessages(index[d], resp[d], names, index[d])
        head = header_len(is6, none, proto)
        frame = head.copy()
        frame[d] += messages.size
        at = np.concatenate(([0], np.cumsum(frame + RECORD)))
        flat = payload(int(at[-1]))
        write_headers(
            flat,
            at[:-1],
            us,
            frame,
            is6,
            none,
            proto,
            np.where(resp[:, None], server, client),
            np.where(resp[:, None], client, server),
            np.where(resp, 53, port),
            np.where(resp, port, 53),
            np.full(n, 2),
        )
        messages.write(flat, at[:-1][d] + RECORD + head[d])
        return flat

    return chunk


PATTERN = np.random.default_rng(5).integers(0, 256, 1 << 20, dtype=np.uint8)


def payload(n: int) -> U8:
    """n bytes that look like traffic; headers are written over them."""
    return np.resize(PATTERN, n)


MAKERS: dict[str, Callable[[], Chunk]] = {
    "mix": make_mix,
    "dns": make_dns,
    "small": make_small,
    "flood": make_flood,
}


def capture(kind: str, packets: int, folder: Path = DEFAULT_DIR) -> Path:
    """The path of the capture `kind` with that many packets; written when it is not there yet."""
    path = folder / f"{kind}-{packets}.pcap"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    make = MAKERS[kind]()
    with part.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for number, first in enumerate(range(0, packets, CHUNK)):
            index = np.arange(first, min(first + CHUNK, packets), dtype=np.int64)
            us = index * 10 + below(mix64(index, 1), 10)
            out.write(memoryview(make(number, index, us)))
    part.rename(path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", default=None, help="which captures (default: mix dns small)")
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR)
    parser.add_argument("--packets", default="1000000,5000000", help="how many packets, comma-separated")
    args = parser.parse_args()
    for kind in args.kinds or ["mix", "dns", "small"]:
        if kind not in MAKERS:
            parser.error(f"no capture called {kind}; there are {', '.join(MAKERS)}")
        for packets in args.packets.split(","):
            began = time.monotonic()
            path = capture(kind, int(packets), args.dir)
            print(f"{path}  {path.stat().st_size / 1e6:.0f} MB  {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

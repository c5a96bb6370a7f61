"""Captures for every framing and decode feature, built from bytes; none of them is stored.

    python tests/generate.py OUTDIR

``everything()`` gives the captures that netprobe and tshark should agree about, ``damaged()`` and ``odd()``
those where only netprobe's own promise counts. Tests write them to a temporary folder and ask tshark what is
in them. scapy builds the packets; the containers are written by hand so that odd ones are possible.
"""

from __future__ import annotations

import gzip
import ipaddress
import lzma
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header
from scapy.contrib.mpls import MPLS
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import (
    DUID_LL,
    DHCP6_Advertise,
    DHCP6_RelayForward,
    DHCP6_Reply,
    DHCP6_Request,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptRelayMsg,
    DHCP6OptServerId,
)
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT, EDNS0ClientSubnet
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert, IPOption_RR, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPPoE
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

START_NS = 1_700_000_000_123_456_789
STEP_NS = 137_000_321
MAC_A = "02:00:00:00:00:0a"
MAC_B = "02:00:00:00:00:0b"

# LINKTYPE_ values
ETHERNET, NULL, PPP, RAW_12, RAW_14, PPP_HDLC, PPPOE = 1, 0, 9, 12, 14, 50, 51
RAW, C_HDLC, IEEE802_11, LOOP, SLL, RADIOTAP = 101, 104, 105, 108, 113, 127
IPV4, IPV6, PKTAP, SLL2 = 228, 229, 258, 276
USER0 = 147


class Rec(NamedTuple):
    """One record; `orig` is its original length, by default that of the data."""

    data: bytes
    ts: int = -1
    orig: int = -1
    iface: int = 0


def stamped(frames: Iterable[bytes | Rec], start: int = START_NS, step: int = STEP_NS) -> list[Rec]:
    """Records of frames, stamped one step apart where they have no time of their own."""
    out = []
    for i, frame in enumerate(frames):
        rec = frame if isinstance(frame, Rec) else Rec(bytes(frame))
        ts = rec.ts if rec.ts >= 0 else start + i * step
        out.append(rec._replace(ts=ts, orig=rec.orig if rec.orig >= 0 else len(rec.data)))
    return out


# ---- containers --------------------------------------------------------------------------------------------


def pcap(
    frames: Iterable[bytes | Rec],
    linktype: int = ETHERNET,
    *,
    order: str = "<",
    nano: bool = False,
    modified: bool = False,
    snaplen: int = 262144,
    linktype_high: int = 0,
) -> bytes:
    """A pcap file. `modified` writes the record headers of Kuznetzov's patched libpcap."""
    magic = 0xA1B23C4D if nano else 0xA1B2CD34 if modified else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, linktype | linktype_high)]
    for rec in stamped(frames):
        sec, frac = divmod(rec.ts, 1_000_000_000)
        out.append(struct.pack(order + "4I", sec, frac if nano else frac // 1000, len(rec.data), rec.orig))
        if modified:
            # interface index, protocol, packet type, padding
            out.append(struct.pack(order + "IHBB", 2, 0x0800, 0, 0))
        out.append(rec.data)
    return b"".join(out)


def ixia(frames: Iterable[bytes], magic: int, order: str = "<") -> bytes:
    """The variant that IXIA's testers write: the length of all records stands behind the header."""
    usual = pcap(frames, order=order)
    length = struct.pack(order + "I", len(usual) - 24)
    return struct.pack(order + "I", magic) + usual[4:24] + length + usual[24:]


def old_version(frames: Iterable[bytes], major: int, minor: int) -> bytes:
    """Versions whose records give the original length first."""
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, major, minor, 0, 0, 262144, ETHERNET)]
    for rec in stamped(frames):
        sec, frac = divmod(rec.ts, 1_000_000_000)
        out.append(struct.pack("<4I", sec, frac // 1000, len(rec.data) + 4, len(rec.data)) + rec.data)
    return b"".join(out)


def pad4(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    total = 12 + len(pad4(body))
    return struct.pack(order + "2I", kind, total) + pad4(body) + struct.pack(order + "I", total)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "2H", code, len(value)) + pad4(value)


def shb(order: str = "<", length: int = -1, options: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, length) + options, order)


def idb(
    linktype: int = ETHERNET,
    order: str = "<",
    *,
    tsresol: int | None = None,
    tsoffset: int | None = None,
    snaplen: int = 0,
    name: str = "",
) -> bytes:
    options = b""
    if name:
        options += option(2, name.encode(), order)
    if tsresol is not None:
        options += option(9, bytes([tsresol]), order)
    if tsoffset is not None:
        options += option(14, struct.pack(order + "q", tsoffset), order)
    if options:
        options += option(0, b"", order)
    return block(1, struct.pack(order + "HHI", linktype, 0, snaplen) + options, order)


def units(ts: int, tsresol: int | None, tsoffset: int = 0) -> int:
    ts -= tsoffset * 1_000_000_000
    if tsresol is None:
        tsresol = 6
    per_second = 1 << (tsresol & 0x7F) if tsresol & 0x80 else 10**tsresol
    return ts * per_second // 1_000_000_000


def epb(
    rec: Rec, order: str = "<", tsresol: int | None = None, tsoffset: int = 0, options: bytes = b""
) -> bytes:
    t = units(rec.ts, tsresol, tsoffset)
    head = struct.pack(order + "5I", rec.iface, t >> 32, t & 0xFFFFFFFF, len(rec.data), rec.orig)
    return block(6, head + pad4(rec.data) + options, order)


def spb(rec: Rec, order: str = "<") -> bytes:
    return block(3, struct.pack(order + "I", rec.orig) + rec.data, order)


def old_pb(rec: Rec, order: str = "<") -> bytes:
    t = units(rec.ts, None)
    head = struct.pack(order + "HHIIII", rec.iface, 0xFFFF, t >> 32, t & 0xFFFFFFFF, len(rec.data), rec.orig)
    return block(2, head + rec.data, order)


def pcapng(frames: Iterable[bytes | Rec], linktype: int = ETHERNET, order: str = "<") -> bytes:
    return shb(order) + idb(linktype, order) + b"".join(epb(r, order) for r in stamped(frames))


# ---- packets -----------------------------------------------------------------------------------------------


def raw(packet: Packet) -> bytes:
    return bytes(packet)


def ip4(src: str = "10.1.0.1", dst: str = "198.51.100.7", **kw: Any) -> IP:
    return IP(src=src, dst=dst, **kw)


def ip6(src: str = "2001:db8::1", dst: str = "2001:db8:f::7", **kw: Any) -> IPv6:
    return IPv6(src=src, dst=dst, **kw)


def query(name: str = "www.example.com", ident: int = 7, qtype: str | int = "A", **kw: Any) -> DNS:
    return DNS(id=ident, rd=1, qd=DNSQR(qname=name, qtype=qtype), **kw)


def reply(name: str = "www.example.com", ident: int = 7, answers: int = 1, rcode: int = 0, **kw: Any) -> DNS:
    records = [DNSRR(rrname=name, rdata=f"192.0.2.{i + 1}", ttl=60) for i in range(answers)]
    return DNS(id=ident, qr=1, rd=1, ra=1, rcode=rcode, qd=DNSQR(qname=name), an=records, **kw)


def datagrams() -> list[bytes]:
    """IP packets of every common kind: what each link type is asked to carry."""
    return [
        raw(ip4() / UDP(sport=40000, dport=53) / query()),
        raw(ip4("198.51.100.7", "10.1.0.1") / UDP(sport=53, dport=40000) / reply()),
        raw(ip4("10.1.0.2") / TCP(sport=40001, dport=443, flags="S", seq=100)),
        raw(ip4("198.51.100.7", "10.1.0.2") / TCP(sport=443, dport=40001, flags="SA", seq=900, ack=101)),
        raw(ip4("10.1.0.2") / TCP(sport=40001, dport=443, flags="PA", seq=101, ack=901) / Raw(b"hello" * 20)),
        raw(ip4("10.1.0.3") / ICMP(id=1, seq=2) / Raw(b"ping")),
        raw(ip4("10.1.0.4") / SCTP(sport=1000, dport=2000) / SCTPChunkInit()),
        raw(ip4("10.1.0.5", proto=89) / Raw(b"\x02\x01" + bytes(42))),
        raw(ip6() / UDP(sport=40002, dport=53) / query("v6.example.com", 9, "AAAA")),
        raw(ip6("2001:db8::2") / TCP(sport=40003, dport=80, flags="S")),
        raw(ip6("2001:db8::3") / ICMPv6EchoRequest(id=1, seq=1, data=b"ping6")),
        raw(ip6("2001:db8::4") / SCTP(sport=1, dport=2) / SCTPChunkInit()),
    ]


def is6(datagram: bytes) -> bool:
    return datagram[0] >> 4 == 6


def ether(payload: bytes | Packet, kind: int | None = None) -> bytes:
    data = bytes(payload)
    if kind is None:
        kind = 0x86DD if is6(data) else 0x0800
    return bytes(Ether(src=MAC_A, dst=MAC_B, type=kind)) + data


def ethernet_frames() -> list[bytes]:
    return [ether(d) for d in datagrams()] + [
        raw(Ether(src=MAC_A, dst=MAC_B) / ARP(psrc="10.1.0.1", pdst="10.1.0.9"))
    ]


# ---- link types --------------------------------------------------------------------------------------------


def family(datagram: bytes, v6: int = 10) -> int:
    return v6 if is6(datagram) else 2


def kind_of(datagram: bytes) -> int:
    return 0x86DD if is6(datagram) else 0x0800


def ppp_kind(datagram: bytes) -> int:
    return 0x0057 if is6(datagram) else 0x0021


def sll(d: bytes) -> bytes:
    return struct.pack(">HHH8sH", 0, 1, 6, bytes.fromhex("02000000000a0000"), kind_of(d)) + d


def sll2(d: bytes) -> bytes:
    return struct.pack(">HHIHBB8s", kind_of(d), 0, 3, 1, 0, 6, bytes.fromhex("02000000000a0000")) + d


def pppoe(d: bytes) -> bytes:
    return struct.pack(">BBHH", 0x11, 0, 0x55, len(d) + 2) + struct.pack(">H", ppp_kind(d)) + d


def dot11(d: bytes, *, qos: bool = False, to_ds: int = 1, pad: bool = False) -> bytes:
    """A data frame (to the access point, or WDS with four addresses) with LLC/SNAP."""
    control = 0x88 if qos else 0x08
    head = bytes([control, to_ds, 0, 0]) + bytes(6) + b"\x02" * 6 + b"\x04" * 6 + b"\0\0"
    if to_ds == 3:
        head += b"\x06" * 6
    if qos:
        head += b"\0\0"
    return head + b"\xaa\xaa\x03\0\0\0" + struct.pack(">H", kind_of(d)) + d


def beacon() -> bytes:
    return bytes([0x80, 0, 0, 0]) + b"\xff" * 6 + b"\x02" * 12 + b"\0\0" + bytes(12)


def radiotap(frame: bytes, *, flags: int | None = None, extended: bool = False) -> bytes:
    """A radiotap header: with the flags field (0x10: FCS at the end) or a chain of present words."""
    if flags is not None:
        return struct.pack("<BBHIB", 0, 0, 9, 0x02, flags) + frame
    if extended:
        return struct.pack("<BBHIIB", 0, 0, 13, 0x80000002, 0x00000000, 0) + frame
    return struct.pack("<BBHI", 0, 0, 8, 0) + frame


def pktap(frame: bytes, dlt: int) -> bytes:
    head = struct.pack("<III24sIIIII20s", 108, 1, dlt, b"en0", 1, 2, 0, 0, 77, b"program")
    return head + bytes(108 - len(head)) + frame


def link_files() -> dict[str, bytes]:
    """One capture per link type, with the same datagrams."""
    ds = datagrams()
    v4 = [d for d in ds if not is6(d)]
    v6 = [d for d in ds if is6(d)]
    order6 = (24, 28, 30, 24)
    return {
        "ethernet": pcap(ethernet_frames()),
        "raw-12": pcap(ds, RAW_12),
        "raw-14": pcap(ds, RAW_14),
        "raw-101": pcap(ds, RAW),
        "ipv4": pcap(v4, IPV4),
        "ipv6": pcap(v6, IPV6),
        "null-le": pcap([struct.pack("<I", family(d, order6[i % 4])) + d for i, d in enumerate(ds)], NULL),
        "null-be": pcap([struct.pack(">I", family(d, 30)) + d for d in ds], NULL, order=">"),
        # written on a big-endian machine, its header converted: the family's order is that of the
        # capturing host
        "null-be-in-le": pcap([struct.pack(">I", family(d, 30)) + d for d in ds], NULL),
        "loop": pcap([struct.pack(">I", family(d, 24)) + d for d in ds], LOOP),
        "sll": pcap([sll(d) for d in ds], SLL),
        "sll2": pcap([sll2(d) for d in ds], SLL2),
        "ppp": pcap(
            [(b"\xff\x03" if i % 2 else b"") + struct.pack(">H", ppp_kind(d)) + d for i, d in enumerate(ds)],
            PPP,
        ),
        "ppp-hdlc": pcap([b"\xff\x03" + struct.pack(">H", ppp_kind(d)) + d for d in ds], PPP_HDLC),
        "c-hdlc": pcap([b"\x0f\x00" + struct.pack(">H", kind_of(d)) + d for d in ds], C_HDLC),
        "pppoe": pcap([pppoe(d) for d in ds], PPPOE),
        "wlan": pcap(
            [dot11(d, qos=i % 2 == 1, to_ds=3 if i % 3 == 2 else 1) for i, d in enumerate(ds)] + [beacon()],
            IEEE802_11,
        ),
        "radiotap": pcap(
            [radiotap(dot11(d, qos=i % 2 == 1), extended=i % 3 == 1) for i, d in enumerate(ds)]
            + [radiotap(dot11(ds[0]) + b"\1\2\3\4", flags=0x10), radiotap(beacon())],
            RADIOTAP,
        ),
        "pktap": pcap([pktap(ether(d), 1) if i % 2 else pktap(d, 12) for i, d in enumerate(ds)], PKTAP),
    }


def snap(d: bytes) -> bytes:
    return b"\xaa\xaa\x03\0\0\0" + struct.pack(">H", kind_of(d)) + d


def nflog(d: bytes) -> bytes:
    """Family and version, then attributes: hook, mark, payload (9)."""
    out = struct.pack("<BBH", family(d), 0, 0)
    for kind, value in ((1, struct.pack(">HBB", kind_of(d), 1, 0)), (10, b"prefix\0"), (9, d)):
        out += pad4(struct.pack("<HH", 4 + len(value), kind) + value)
    return out


def rarer_link_files() -> dict[str, bytes]:
    """Link types beyond those that were asked for."""
    ds = datagrams()
    pflog = struct.pack(">BBBB16s16sIIIIIIB3s", 61, 2, 0, 0, b"em0", b"", 0, 0, 0, 0, 0, 0, 1, b"\0\0\0")
    avs = struct.pack(">IIQQIIIIIIIIII", 0x80211001, 64, 0, 0, 6, 1, 2, 0, 0, 1, 0, 0, 0, 0)
    stations = b"\x02" * 6 + b"\x04" * 6
    return {
        "mpls": pcap([struct.pack(">I", 100 << 12 | 0x140) + d for d in ds], 219),
        "enc": pcap([struct.pack("<III", family(d, 24), 1, 0) + d for d in ds], 109),
        "pflog": pcap([pflog[:1] + bytes([family(d, 24)]) + pflog[2:] + d for d in ds], 117),
        "ppp-dir": pcap([b"\0\xff\x03" + struct.pack(">H", ppp_kind(d)) + d for d in ds], 204),
        "c-hdlc-dir": pcap([b"\1\x0f\0" + struct.pack(">H", kind_of(d)) + d for d in ds], 205),
        "frelay": pcap([b"\x18\x41\x03" + (b"\x8e" if is6(d) else b"\xcc") + d for d in ds], 107),
        "ppi": pcap([struct.pack("<BBHI", 0, 0, 8, IEEE802_11) + dot11(d) for d in ds], 192),
        "prism": pcap([struct.pack("<II16s", 0x44, 144, b"wlan0") + bytes(120) + dot11(d) for d in ds], 119),
        "avs": pcap([avs + dot11(d) for d in ds], 163),
        "rfc1483": pcap([snap(d) for d in ds], 100),
        "token-ring": pcap([b"\x10\x40" + stations + snap(d) for d in ds], 6),
        "fddi": pcap([b"\x50" + stations + snap(d) for d in ds], 10),
        "apple-1394": pcap([b"\x02" * 16 + struct.pack(">H", kind_of(d)) + d for d in ds], 138),
        "nflog": pcap([nflog(d) for d in ds], 239),
        "arcnet": pcap([b"\1\2" + (b"\xc4" if is6(d) else b"\xd4") + b"\0\0\1" + d for d in ds], 7),
        "arcnet-linux": pcap([b"\1\2\0\0\xf0" + d for d in ds if not is6(d)], 129),
        "ip-over-fc": pcap([bytes(16) + snap(d) for d in ds], 122),
        "sunatm": pcap([b"\0\1\1\0" + snap(d) for d in ds] + [b"\1\0\0\5\0\1" + ether(d) for d in ds], 123),
        "epon": pcap([b"\x55\x55\xd5\x55\0\0\xff\xff" + ether(d) for d in ds], 259),
        "juniper-ether": pcap([b"MGC\1" + ether(d) for d in ds], 178),
        "juniper-extended": pcap([b"MGC\x81\0\6\1\1\2\2\1\1" + ether(d) for d in ds], 178),
        "juniper-no-l2": pcap([b"MGC\2" + (b"\6" if is6(d) else b"\2") + bytes(3) + d for d in ds], 178),
        "juniper-ppp": pcap([b"MGC\0\xff\3" + struct.pack(">H", ppp_kind(d)) + d for d in ds], 179),
        "juniper-chdlc": pcap([b"MGC\0\x0f\0" + struct.pack(">H", kind_of(d)) + d for d in ds], 181),
        "ppi-nested": pcap(
            [struct.pack("<BBHI", 0, 0, 8, 9) + b"\xff\3" + struct.pack(">H", ppp_kind(d)) + d for d in ds]
            + [struct.pack("<BBHI", 0, 0, 8, SLL) + sll(d) for d in ds],
            192,
        ),
        "pktap-nested": pcap(
            [pktap(struct.pack("<I", family(d, 30)) + d, NULL) for d in ds]
            + [pktap(radiotap(dot11(d)), RADIOTAP) for d in ds],
            PKTAP,
        ),
        "sll-kinds": pcap(
            [sll(d)[:14] + b"\0\3" + ether(d) for d in ds]
            + [sll(d)[:14] + b"\0\7\xff\3" + struct.pack(">H", ppp_kind(d)) + d for d in ds],
            SLL,
        ),
        "frelay-kinds": pcap(
            [b"\x18\x41\3\0\x80\0\x80\xc2\0\7" + ether(d) for d in ds]
            + [b"\x18\x41\3\xcf" + struct.pack(">H", ppp_kind(d)) + d for d in ds],
            107,
        ),
        "frelay-addresses": pcap(
            [b"\x18\x40\x21\3" + (b"\x8e" if is6(d) else b"\xcc") + d for d in ds]
            + [b"\x18\x40\x40\x21\3" + (b"\x8e" if is6(d) else b"\xcc") + d for d in ds],
            107,
        ),
        "frelay-cisco": pcap([b"\x18\x41" + struct.pack(">H", kind_of(d)) + d for d in ds], 107),
        "rfc1483-kinds": pcap(
            [b"\xfe\xfe\3" + (b"\x8e" if is6(d) else b"\xcc") + d for d in ds]
            + [b"\xaa\xaa\3\0\x80\xc2\0\7\0\0" + ether(d) for d in ds],
            100,
        ),
        "prism-bare": pcap([dot11(d) for d in ds], 119),
        "wlan-padded": pcap([dot11(d).replace(b"\xaa\xaa\3", b"\0\0\xaa\xaa\3", 1) for d in ds], IEEE802_11),
        "ppp-kinds": pcap(
            [b"\xff\3\0\x3d\xc0\0\0\1" + struct.pack(">H", ppp_kind(d)) + d for d in ds]
            + [b"\xff\3" + struct.pack(">H", kind_of(d)) + d for d in ds],
            PPP,
        ),
        "raw-ppp": pcap([b"\xff\3" + struct.pack(">H", ppp_kind(d)) + d for d in ds], RAW),
        "null-ethertype": pcap([struct.pack("<I", kind_of(d)) + d for d in ds], NULL),
    }


# ---- what is inside Ethernet -------------------------------------------------------------------------------


def rarer_tags() -> list[bytes]:
    """What providers and data centres put between two Ethernet headers."""
    out = []
    for d in datagrams():
        kind, inner = struct.pack(">H", kind_of(d)), ether(d)
        number = b"\2" if is6(d) else b"\1"
        for tag, rest in (
            (0x893F, bytes(6) + kind + d),  # 802.1BR
            (0x22F3, struct.pack(">HHH", 6, 1, 2) + inner),  # TRILL
            (0x22F3, struct.pack(">HHH", 0x46, 1, 2) + bytes(4) + inner),  # with an option word
            (0x8903, b"\4\1" + inner + bytes(4)),  # FabricPath, with its FCS
            (0x894F, struct.pack(">HB", 63 << 6 | 6, 1) + number + bytes(20) + d),  # NSH
            (0x894F, struct.pack(">HBB", 63 << 6 | 2, 2, 3) + bytes(4) + inner),
            (0x88E5, b"\0\0" + struct.pack(">I", 1) + kind + d + bytes(16)),  # MACsec in clear
            (0x88E5, b"\x20\0" + struct.pack(">I", 1) + bytes(8) + kind + d + bytes(16)),
            (0x88E5, b"\x2c\0" + struct.pack(">I", 1) + bytes(8) + bytes(60)),  # encrypted
            (0xD28B, struct.pack(">HHQ", 1, 0x0010, 5 << 32) + kind + d),  # Arista's stamps
            (0xD28B, struct.pack(">HHHI", 1, 0x0120, 5, 6) + kind + d),
            # a pseudowire's control word
            (0x8847, struct.pack(">I", 16 << 12 | 0x140) + b"\0\0\0\0\0\0\x0c\x0a\x0b\x0c" + inner[6:]),
            (0x8847, struct.pack(">I", 13 << 12 | 0x140) + d),  # associated channel
        ):
            out.append(ether(rest, tag))
    # a version that the EtherType does not announce
    syn = TCP(sport=1024, dport=80, flags="S")
    return [*out, ether(raw(ip6() / syn), 0x0800), ether(raw(ip4() / syn), 0x86DD)]


def llc_kinds() -> list[bytes]:
    """802.2 headers in use for IP, and lengths that end before the frame does."""
    out = []
    for d in (x for x in datagrams() if not is6(x)):
        for head in (
            b"\6\6\3", b"\6\7\3", b"\6\xaa\3", b"\6\6\0\0", b"\6\6\x13", b"\xfe\xfe\3\xcc",
            b"\xaa\xaa\3\0\x80\xc2\0\7\0\0" + ether(d)[:14], b"\xaa\xaa\3\0\0\x0c\x08\0",
        ):  # fmt: skip
            out.append(ether(head + d, len(head) + len(d)))
        for short in (0, 1, 5):
            out.append(ether(snap(d), short))
    return out


def l4_edges() -> list[bytes]:
    """Headers that end early or contradict themselves, which tshark counts one way or the other."""
    tcp = raw(ip4() / TCP(sport=1024, dport=80, flags="S"))
    out = []
    for offset in range(16):
        out.append(ether(tcp[:32] + bytes([offset << 4]) + tcp[33:]))
    for n in range(20, len(tcp)):
        out.append(ether(tcp[:n]))
    for ihl in range(5, 16):
        for length in (0, 4, 19, 20, 24, 40, 60, 65535):
            out.append(ether(bytes([0x40 | ihl]) + tcp[1:2] + struct.pack(">H", length) + tcp[4:]))
    head = raw(ip6() / TCP(sport=1024, dport=80, flags="S"))
    for proto in range(256):
        if proto not in (0, 43, 44, 51, 60, 140):
            out.append(ether(tcp[:9] + bytes([proto]) + tcp[10:]))
            out.append(ether(head[:6] + bytes([proto]) + head[7:]))
    return out


def eth() -> Ether:
    return Ether(src=MAC_A, dst=MAC_B)


def vlan() -> list[bytes]:
    d = ip4() / UDP(sport=1, dport=2) / Raw(b"x" * 20)
    d6 = ip6() / TCP(sport=3, dport=4, flags="S")
    return [
        raw(eth() / Dot1Q(vlan=5) / d),
        raw(eth() / Dot1Q(vlan=0, prio=5) / d6),
        raw(eth() / Dot1AD(vlan=100) / Dot1Q(vlan=200) / d),
        raw(eth() / Dot1Q(vlan=100) / Dot1Q(vlan=200) / d6),
        raw(eth() / Dot1AD(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / d),
        raw(eth() / Dot1Q(vlan=7) / ARP()),
        raw(Dot3(src=MAC_A, dst=MAC_B) / LLC() / STP()),
        # a tag before an 802.3 length
        bytes(Ether(src=MAC_A, dst=MAC_B, type=0x8100)) + b"\0\7" + b"\0\x26" + b"\x42\x42\x03" + bytes(35),
    ]


def mpls() -> list[bytes]:
    d = ip4() / TCP(sport=1, dport=2, flags="SA")
    d6 = ip6() / UDP(sport=3, dport=4)
    return [
        raw(eth() / MPLS(label=100, s=1) / d),
        raw(eth() / MPLS(label=100, s=0) / MPLS(label=200, s=1) / d6),
        raw(eth() / MPLS(label=1, s=0) / MPLS(label=2, s=0) / MPLS(label=3, s=1) / d),
        raw(eth() / Dot1Q(vlan=9) / MPLS(label=100, s=1) / d6),
    ]


def pppoe_frames() -> list[bytes]:
    out = [ether(pppoe(d), 0x8864) for d in datagrams()]
    # LCP echo, IPCP; discovery
    out.append(ether(struct.pack(">BBHHH", 0x11, 0, 0x55, 10, 0xC021) + b"\x09\1\0\x08\0\0\0\0", 0x8864))
    out.append(
        raw(eth() / PPPoE(version=1, type=1, code=9, sessionid=0) / Raw(b"\1\1\0\0")).replace(
            b"\x88\x64", b"\x88\x63", 1
        )
    )
    out.append(raw(eth() / Dot1Q(vlan=3, type=0x8864)) + pppoe(datagrams()[2]))
    return out


def llc() -> list[bytes]:
    d = raw(ip4() / UDP(sport=1, dport=2) / Raw(b"x" * 10))
    d6 = raw(ip6() / UDP(sport=1, dport=2) / Raw(b"x" * 10))
    snap = Dot3(src=MAC_A, dst=MAC_B) / LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
    return [
        raw(Dot3(src=MAC_A, dst=MAC_B) / LLC() / STP()),
        raw(snap / SNAP(OUI=0, code=0x0800) / Raw(d)),
        raw(snap / SNAP(OUI=0, code=0x86DD) / Raw(d6)),
        raw(snap / SNAP(OUI=0, code=0x0806) / ARP()),
        raw(snap / SNAP(OUI=0x00000C, code=0x2000) / Raw(bytes(30))),
        raw(Dot3(src=MAC_A, dst=MAC_B) / LLC(dsap=6, ssap=6, ctrl=3) / Raw(d)),
        # IS-IS over plain LLC
        raw(Dot3(src=MAC_A, dst=MAC_B) / LLC(dsap=0xFE, ssap=0xFE, ctrl=3) / Raw(b"\x83" + bytes(30))),
    ]


def l4() -> list[bytes]:
    out = [ether(d) for d in datagrams()]
    for flags in ("S", "SA", "A", "F", "FA", "R", "RA", "PA", "SE", "SEC", "U", ""):
        out.append(raw(eth() / ip4() / TCP(sport=5000, dport=80, flags=flags)))
        out.append(raw(eth() / ip6() / TCP(sport=5000, dport=80, flags=flags)))
    out.append(
        raw(eth() / ip4() / TCP(sport=5000, dport=80, flags="S", options=[("MSS", 1460), ("NOP", None)]))
    )
    for proto in (0, 2, 46, 50, 51, 88, 103, 112, 115, 136, 253, 255):
        out.append(raw(eth() / ip4(proto=proto) / Raw(bytes(24))))
    for proto in (89, 103, 136, 253):
        out.append(raw(eth() / ip6(nh=proto) / Raw(bytes(24))))
    out.append(raw(eth() / ip6() / ICMPv6ND_NS(tgt="2001:db8::9")))
    return out


def ip_options() -> list[bytes]:
    return [
        raw(eth() / ip4(options=[IPOption_Router_Alert()]) / UDP(sport=1, dport=2) / Raw(b"x")),
        raw(eth() / ip4(options=[IPOption_RR(length=39, routers=["0.0.0.0"] * 9)]) / TCP(dport=2, flags="S")),
        raw(eth() / ip4(options=[IPOption_Router_Alert()], proto=2) / Raw(b"\x16\0\x09\x04\xe0\0\0\xfb")),
        # Ethernet padding behind a short datagram
        raw(eth() / ip4() / UDP(sport=1, dport=53) / query("a.de")) + bytes(12),
        # total length 0, as segmentation offload leaves it
        ether(raw(ip4() / TCP(sport=9, dport=10, flags="PA") / Raw(b"y" * 50))[:2] + b"\0\0"
              + raw(ip4() / TCP(sport=9, dport=10, flags="PA") / Raw(b"y" * 50))[4:]),
    ]  # fmt: skip


def ipv6_extensions() -> list[bytes]:
    udp = UDP(sport=40000, dport=53) / query("ext.example.com", 3)
    tcp = TCP(sport=40000, dport=80, flags="S")
    return [
        raw(eth() / ip6() / IPv6ExtHdrHopByHop() / udp),
        raw(eth() / ip6() / IPv6ExtHdrDestOpt() / tcp),
        raw(
            eth()
            / ip6()
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrRouting(addresses=["2001:db8::9"])
            / tcp
        ),
        raw(eth() / ip6() / IPv6ExtHdrFragment(offset=0, m=0, id=5) / udp),  # atomic fragment
        # authentication header, 12 + 12 bytes
        raw(eth() / ip6(nh=51) / Raw(bytes([6, 4]) + bytes(22)) / tcp),
        raw(eth() / ip6(nh=59)),
        raw(eth() / ip6() / IPv6ExtHdrHopByHop(nh=59)),
        raw(eth() / ip6() / IPv6ExtHdrHopByHop() / ICMPv6EchoRequest(data=b"z")),
        raw(eth() / ip6(nh=50) / Raw(bytes(40))),
    ]


def fragments() -> list[bytes]:
    """Datagrams in pieces: in order, backwards, one never completed, one TCP; both families."""
    big = reply("fragmented.example.com", 77, 60)
    four = [raw(f) for f in fragment(ip4("10.9.0.1", id=1) / UDP(sport=53, dport=40000) / big, 400)]
    back = [raw(f) for f in fragment(ip4("10.9.0.2", id=2) / UDP(sport=53, dport=40000) / big, 400)][::-1]
    lost = [raw(f) for f in fragment(ip4("10.9.0.3", id=3) / UDP(sport=53, dport=40000) / big, 400)][:-1]
    tcp = [
        raw(f)
        for f in fragment(ip4("10.9.0.4", id=4) / TCP(sport=1, dport=2, flags="S") / Raw(b"x" * 600), 256)
    ]
    six = [
        raw(f) for f in fragment6(ip6() / IPv6ExtHdrFragment(id=9) / UDP(sport=53, dport=40000) / big, 500)
    ]
    plain = [raw(ip4("10.9.0.5") / UDP(sport=40000, dport=53) / query("plain.example.com", 8))]
    return [ether(d) for d in [*four, *back, *lost, *tcp, *six, *plain]]


def tunnels() -> list[bytes]:
    inner4 = ip4("172.16.0.1", "172.16.0.2") / UDP(sport=40000, dport=53) / query("tunnelled.example.com", 21)
    inner6 = ip6("fd00::1", "fd00::2") / TCP(sport=1, dport=2, flags="S")
    frame = eth() / inner4
    return [
        raw(eth() / ip4() / inner4),
        raw(eth() / ip4() / inner6),
        raw(eth() / ip6() / inner4),
        raw(eth() / ip6() / inner6),
        raw(eth() / ip4() / GRE() / inner4),
        raw(eth() / ip6() / GRE(proto=0x86DD) / inner6),
        raw(
            eth()
            / ip4()
            / GRE(key_present=1, key=7, seqnum_present=1, sequence_number=1, chksum_present=1)
            / inner4
        ),
        raw(eth() / ip4() / GRE(proto=0x6558) / frame),
        raw(eth() / ip4() / UDP(sport=50000, dport=4789, chksum=0) / VXLAN(vni=5) / frame),
        raw(eth() / ip6() / UDP(sport=50000, dport=4789) / VXLAN(vni=5) / eth() / inner6),
        raw(eth() / ip4() / UDP(sport=50000, dport=6081) / GENEVE(proto=0x6558, vni=1) / frame),
        raw(eth() / ip4() / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=1) / inner4),
        raw(eth() / ip4() / UDP(sport=2152, dport=2152) / GTP_U_Header(teid=1) / inner6),
        raw(eth() / ip4() / ip4("172.20.0.1", "172.20.0.2") / GRE() / inner4),
    ]


def icmp_errors() -> list[bytes]:
    quoted = ip4() / UDP(sport=40000, dport=53) / query("quoted.example.com", 31)
    quoted6 = ip6() / UDP(sport=40000, dport=53) / query("quoted6.example.com", 32)
    return [
        raw(eth() / ip4("198.51.100.7", "10.1.0.1") / ICMP(type=3, code=3) / quoted),
        raw(eth() / ip4("198.51.100.7", "10.1.0.1") / ICMP(type=11, code=0) / (ip4() / TCP(flags="S"))),
        raw(eth() / ip6("2001:db8:f::7", "2001:db8::1") / ICMPv6DestUnreach(code=4) / quoted6),
    ]


def dns_udp() -> list[bytes]:
    """Questions and answers with every rcode and type that the counters tell apart."""
    out = []
    peers = [("10.2.0.1", "10.2.0.53", ip4), ("2001:db8::21", "2001:db8::53", ip6)]
    ident = 100
    for n, (client, server, ip) in enumerate(peers):
        for rcode, answers in ((0, 1), (0, 3), (0, 0), (3, 0), (5, 0), (2, 0), (4, 0)):
            for qtype in ("A", "AAAA", "MX", "TXT", "SOA", "NS", 65):
                ident += 1
                name = f"h{ident % 9}.Zone{rcode}.example.org"
                port = 20000 + ident
                out.append(
                    raw(eth() / ip(client, server) / UDP(sport=port, dport=53) / query(name, ident, qtype))
                )
                answer = reply(name, ident, answers, rcode)
                answer.qd = DNSQR(qname=name, qtype=qtype)
                if ident % 5:  # the others are never answered
                    out.append(raw(eth() / ip(server, client) / UDP(sport=53, dport=port) / answer))
        # responses to nothing, on another of the ports
        out.append(
            raw(eth() / ip(server, client) / UDP(sport=53, dport=999) / reply("orphan.example.org", 9999 + n))
        )
        out.append(
            raw(eth() / ip(client, server) / UDP(sport=5353, dport=5353) / query("printer.local", 0, "PTR"))
        )
        out.append(raw(eth() / ip(client, server) / UDP(sport=6000, dport=5355) / query("laptop", 5, "A")))
        # the root, a deep name, escapes
        out.append(raw(eth() / ip(client, server) / UDP(sport=7000, dport=53) / query(".", 6, "NS")))
        out.append(
            raw(
                eth() / ip(client, server) / UDP(sport=7001, dport=53) / query("a.b.c.d.e.f.g.example.org", 7)
            )
        )
    return out


def dns_edns() -> list[bytes]:
    def ecs(address: str, plen: int) -> DNSRROPT:
        fam = 1 if "." in address else 2
        return DNSRROPT(rdata=[EDNS0ClientSubnet(family=fam, source_plen=plen, address=address)])

    out = []
    for i, (address, plen) in enumerate([("192.0.2.0", 24), ("198.51.100.128", 25), ("2001:db8:1234::", 48)]):
        q = query(f"ecs{i}.example.org", i, ar=ecs(address, plen))
        out.append(raw(eth() / ip4() / UDP(sport=30000 + i, dport=53) / q))
        out.append(
            raw(
                eth()
                / ip4("198.51.100.7", "10.1.0.1")
                / UDP(sport=53, dport=30000 + i)
                / reply(f"ecs{i}.example.org", i)
            )
        )
    out.append(
        raw(eth() / ip4() / UDP(sport=30009, dport=53) / query("plain-opt.example.org", 9, ar=DNSRROPT()))
    )
    return out


class Tcp:
    """One connection, segment by segment; knows its sequence numbers."""

    def __init__(self, client: str, server: str, sport: int, dport: int) -> None:
        self.ip = ip6 if ":" in client else ip4
        self.addr = (client, server)
        self.port = (sport, dport)
        self.seq = [1000, 5000]
        self.out: list[bytes] = []

    def segment(self, side: int, data: bytes = b"", flags: str = "A", at: int | None = None) -> bytes:
        seq = self.seq[side] if at is None else at
        frame = raw(
            eth()
            / self.ip(self.addr[side], self.addr[1 - side])
            / TCP(
                sport=self.port[side], dport=self.port[1 - side], flags=flags,
                seq=seq & 0xFFFFFFFF, ack=self.seq[1 - side] & 0xFFFFFFFF,
            )
            / Raw(data)
        )  # fmt: skip
        if at is None:
            self.seq[side] += len(data) + ("S" in flags) + ("F" in flags)
        return frame

    def send(self, side: int, data: bytes = b"", flags: str = "A") -> None:
        self.out.append(self.segment(side, data, "PA" if data and flags == "A" else flags))

    def open(self) -> Tcp:
        self.send(0, flags="S")
        self.send(1, flags="SA")
        self.send(0)
        return self

    def close(self) -> Tcp:
        self.send(0, flags="FA")
        self.send(1, flags="FA")
        self.send(0)
        return self


def framed(message: Packet) -> bytes:
    data = bytes(message)
    return struct.pack(">H", len(data)) + data


def dns_tcp() -> list[bytes]:
    """DNS over TCP: one message per segment, several per segment, split ones, out of order and sent twice."""
    one = Tcp("10.3.0.1", "10.3.0.53", 41000, 53).open()
    one.send(0, framed(query("one.example.net", 1)))
    one.send(1, framed(reply("one.example.net", 1, 2)))
    one.close()

    pipe = Tcp("10.3.0.2", "10.3.0.53", 41001, 53).open()
    pipe.send(0, b"".join(framed(query(f"p{i}.example.net", 10 + i)) for i in range(5)))
    pipe.send(1, b"".join(framed(reply(f"p{i}.example.net", 10 + i)) for i in (2, 0, 1, 4, 3)))
    pipe.close()

    split = Tcp("2001:db8::31", "2001:db8::53", 41002, 53).open()
    data = framed(query("split.example.net", 20)) + framed(query("split2.example.net", 21))
    for cut in (data[:1], data[1:2], data[2:20], data[20:50], data[50:]):
        split.send(0, cut)
    answer = framed(reply("split.example.net", 20, 40)) + framed(reply("split2.example.net", 21, 40))
    for i in range(0, len(answer), 300):
        split.send(1, answer[i : i + 300])
    split.close()

    mixed = Tcp("10.3.0.4", "10.3.0.53", 41003, 53).open()
    data = framed(query("order.example.net", 30)) + framed(query("order2.example.net", 31))
    base = mixed.seq[0]
    pieces = [(base + i, data[i : i + 15]) for i in range(0, len(data), 15)]
    for seq, piece in [pieces[0], pieces[2], pieces[1], pieces[1], *pieces[3:]]:
        mixed.out.append(mixed.segment(0, piece, "PA", at=seq))
    mixed.seq[0] += len(data)
    mixed.send(1, framed(reply("order.example.net", 30)))
    mixed.close()

    # sequence numbers that wrap
    wrap = Tcp("10.3.0.5", "10.3.0.53", 41004, 53)
    wrap.seq = [0xFFFFFFF0, 0xFFFFFFFE]
    wrap.open()
    wrap.send(0, framed(query("wrap.example.net", 40)))
    wrap.send(1, framed(reply("wrap.example.net", 40)))
    wrap.close()
    return [*one.out, *pipe.out, *split.out, *mixed.out, *wrap.out]


def dhcp() -> list[bytes]:
    out = []
    mac = bytes.fromhex("02000000aa01")

    def v4(kind: str, to_server: bool, **fields: Any) -> bytes:
        options: list[Any] = [("message-type", kind)]
        if kind in ("offer", "ack", "nak"):
            options.append(("server_id", "10.4.0.1"))
        if kind in ("discover", "request"):
            options.append(("hostname", b"client-one"))
        options.append("end")
        src, dst = ("0.0.0.0", "255.255.255.255") if to_server else ("10.4.0.1", "255.255.255.255")
        ports = UDP(sport=68, dport=67) if to_server else UDP(sport=67, dport=68)
        boot = BOOTP(op=1 if to_server else 2, xid=0x1234, chaddr=mac, **fields)
        return raw(eth() / ip4(src, dst) / ports / boot / DHCP(options=options))

    out.append(v4("discover", True))
    out.append(v4("offer", False, yiaddr="10.4.0.99"))
    out.append(v4("request", True))
    out.append(v4("ack", False, yiaddr="10.4.0.99"))
    out += [v4(kind, True) for kind in ("decline", "release", "inform")]
    out.append(v4("nak", False))
    client = DHCP6OptClientId(duid=DUID_LL(lladdr=MAC_A))
    server = DHCP6OptServerId(duid=DUID_LL(lladdr=MAC_B))
    up, down = ("fe80::1", "ff02::1:2"), ("fe80::2", "fe80::1")
    for message, way in (
        (DHCP6_Solicit(trid=1) / client, up),
        (DHCP6_Advertise(trid=1) / client / server, down),
        (DHCP6_Request(trid=2) / client / server, up),
        (DHCP6_Reply(trid=2) / client / server, down),
    ):
        ports = UDP(sport=546, dport=547) if way is up else UDP(sport=547, dport=546)
        out.append(raw(eth() / ip6(*way) / ports / message))
    relay = DHCP6_RelayForward(linkaddr="2001:db8::1", peeraddr="fe80::1") / DHCP6OptRelayMsg(
        message=DHCP6_Solicit(trid=3) / client
    )
    out.append(raw(eth() / ip6("2001:db8::5", "2001:db8::6") / UDP(sport=547, dport=547) / relay))
    return out


def bgp() -> list[bytes]:
    def message(kind: int, body: Packet | bytes = b"") -> bytes:
        data = bytes(body)
        return b"\xff" * 16 + struct.pack(">HB", 19 + len(data), kind) + data

    update = message(2, struct.pack(">HH", 0, 0) + b"\x18\xc6\x33\x64")
    session = Tcp("10.5.0.1", "10.5.0.2", 42000, 179).open()
    opening = message(1, struct.pack(">BHH4sB", 4, 65001, 90, bytes([10, 5, 0, 1]), 0))
    session.send(0, opening)
    session.send(1, opening)
    session.send(0, message(4))
    session.send(1, message(4))
    session.send(0, update)
    session.send(1, update)
    session.send(0, message(5, b"\0\1\0\1"))
    session.send(1, message(3, b"\6\2"))
    session.close()
    return session.out


def bgp_framing() -> list[bytes]:
    """Several messages per segment, and one across segments."""

    def message(kind: int, body: bytes = b"") -> bytes:
        return b"\xff" * 16 + struct.pack(">HB", 19 + len(body), kind) + body

    update = message(2, struct.pack(">HH", 0, 0) + b"\x18\xc6\x33\x64" * 30)
    session = Tcp("10.5.0.1", "10.5.0.2", 42001, 179).open()
    session.send(0, message(1, struct.pack(">BHH4sB", 4, 65001, 90, bytes([10, 5, 0, 1]), 0)) + message(4))
    data = update * 3 + message(4)
    for i in range(0, len(data), 100):
        session.send(0, data[i : i + 100])
    session.close()
    return session.out


def tagged_mix() -> list[bytes]:
    return [*ethernet_frames(), *vlan(), *tunnels(), *dns_udp()[:20], *dhcp()]


def bad_ip() -> list[bytes]:
    """Headers that contradict themselves or the frame. tshark has its own view of each; nothing may break."""
    good4 = raw(ip4() / UDP(sport=1, dport=53) / query())
    good6 = raw(ip6() / UDP(sport=1, dport=53) / query())
    tcp = raw(ip4() / TCP(sport=1, dport=53, flags="PA") / Raw(b"x" * 30))
    out = [ether(good4[:n], 0x0800) for n in range(0, len(good4), 3)]
    out += [ether(good6[:n], 0x86DD) for n in range(0, len(good6), 3)]
    out += [ether(bytes([v]) + good4[1:], 0x0800) for v in (0x40, 0x44, 0x4F, 0x05, 0x65, 0xF5)]
    out += [ether(bytes([v]) + good6[1:], 0x86DD) for v in (0x00, 0x40, 0x70)]
    for total in (1, 19, 20, 27, 28, 60, 65535):
        out.append(ether(good4[:2] + struct.pack(">H", total) + good4[4:], 0x0800))
        out.append(ether(good6[:4] + struct.pack(">H", total) + good6[6:], 0x86DD))
    for length in (0, 1, 7, 8, 9, 65535):
        out.append(ether(good4[:24] + struct.pack(">H", length) + good4[26:], 0x0800))
    for offset in range(16):
        out.append(ether(tcp[:32] + bytes([offset << 4]) + tcp[33:], 0x0800))
    # extension headers that never end
    out.append(ether(raw(ip6(nh=0)) + bytes([0, 0, 1, 4, 0, 0, 0, 0]) * 100, 0x86DD))
    out.append(ether(raw(ip6(nh=0)) + bytes([0, 255]) + bytes(6), 0x86DD))
    # the last fragment beyond 64 KiB
    out.append(raw(eth() / ip4(flags=0, frag=8190, id=5) / Raw(b"x" * 400)))
    out += [frame[:n] for frame in (ether(good4),) for n in range(14)]
    return out


FRAMES: dict[str, Callable[[], list[bytes]]] = {
    "vlan": vlan,
    "mpls": mpls,
    "pppoe-ethernet": pppoe_frames,
    "llc": llc,
    "l4": l4,
    "ip-options": ip_options,
    "rarer-tags": rarer_tags,
    "llc-kinds": llc_kinds,
    "l4-edges": l4_edges,
    "ipv6-extensions": ipv6_extensions,
    "fragments": fragments,
    "tunnels": tunnels,
    "icmp-errors": icmp_errors,
    "dns-udp": dns_udp,
    "dns-edns": dns_edns,
    "dns-tcp": dns_tcp,
    "dhcp": dhcp,
    "bgp": bgp,
    "bgp-framing": bgp_framing,
    "mix": tagged_mix,
}


# ---- file formats ------------------------------------------------------------------------------------------


def formats() -> dict[str, bytes]:
    """The same frames in every container that is not damaged."""
    frames = ethernet_frames()
    recs = stamped(frames)
    usec = [r._replace(ts=r.ts // 1000 * 1000) for r in recs]
    out = {
        "us-le": pcap(frames),
        "us-be": pcap(frames, order=">"),
        "ns-le": pcap(frames, nano=True),
        "ns-be": pcap(frames, nano=True, order=">"),
        "modified-le": pcap(frames, modified=True),
        "modified-be": pcap(frames, modified=True, order=">"),
        # 4 bytes of FCS announced in the upper bits
        "linktype-high-bits": pcap([f + b"\1\2\3\4" for f in frames], linktype_high=0x2400_0000),
        "snaplen-0": pcap(frames, snaplen=0),
        "ixia-le": ixia(frames, 0x1C0001AC),
        "ixia-be": ixia(frames, 0x1C0001AB, ">"),
        "lengths-swapped-2.2": old_version(frames, 2, 2),
        "lengths-swapped-543": old_version(frames, 543, 0),
        "caplen-over-snaplen": pcap(frames, snaplen=40),
        "cut-by-snaplen": pcap([Rec(f[:60], orig=len(f)) for f in frames], snaplen=60),
        "empty": pcap([]),
        "ng-le": pcapng(frames),
        "ng-be": pcapng(frames, order=">"),
        "ng-empty": shb() + idb(),
        "ng-only-section": shb(),
        "ng-version-1.2": shb(version=(1, 2)) + idb() + b"".join(epb(r) for r in usec),
    }
    for resol in (0, 3, 6, 9, 10, 0x80, 0x8A, 0x94, 0xA0):
        out[f"ng-tsresol-{resol:02x}"] = (
            shb() + idb(tsresol=resol) + b"".join(epb(r, tsresol=resol) for r in recs)
        )
    out["ng-tsoffset"] = (
        shb()
        + idb(tsresol=9, tsoffset=1_600_000_000)
        + b"".join(epb(r, tsresol=9, tsoffset=1_600_000_000) for r in recs)
    )
    out["ng-tsoffset-negative"] = (
        shb() + idb(tsresol=9, tsoffset=-1000) + b"".join(epb(r, tsresol=9, tsoffset=-1000) for r in recs)
    )
    # interfaces of different resolution and link type in one section
    other = [Rec(d, r.ts, len(d), 1) for d, r in zip(datagrams(), recs, strict=False)]
    out["ng-interfaces"] = (
        shb()
        + idb(ETHERNET, tsresol=9, name="eth0")
        + idb(RAW, tsresol=3, name="tun0")
        + b"".join(epb(a, tsresol=9) + epb(b, tsresol=3) for a, b in zip(recs, other, strict=False))
    )
    # a second section of the other byte order; its interface 0 is another one
    out["ng-sections"] = (
        shb()
        + idb(ETHERNET)
        + b"".join(epb(r) for r in usec[:5])
        + shb(">")
        + idb(RAW, ">", tsresol=9)
        + b"".join(epb(Rec(d, r.ts, len(d)), ">", 9) for d, r in zip(datagrams(), recs, strict=False))
        + shb("<", options=option(4, b"third") + option(0, b""))
        + idb(ETHERNET)
        + b"".join(epb(r) for r in usec[5:])
    )
    out["ng-spb"] = shb() + idb(snaplen=60) + b"".join(spb(r._replace(data=r.data[:60])) for r in recs)
    out["ng-old-pb"] = shb() + idb() + b"".join(old_pb(r) for r in usec)
    unknown = (
        block(4, struct.pack("<2H", 0, 0))  # names
        + block(5, struct.pack("<3I", 0, 0, 0) + option(0, b""))  # statistics
        + block(0x7FFF_FFF1, b"z" * 33)
        + block(0x0000_000A, b"secr" + struct.pack("<I", 4) + b"keys")
    )
    comment = option(1, b"a comment") + option(0, b"")
    out["ng-unknown-blocks"] = (
        shb() + unknown + idb() + b"".join(unknown + epb(r, options=comment) for r in usec) + unknown
    )
    base = out["us-le"]
    out["gzip"] = gzip.compress(base, mtime=0)
    out["gzip-members"] = gzip.compress(base[:200], mtime=0) + gzip.compress(base[200:], mtime=0)
    out["xz"] = lzma.compress(base)
    out["zstd"] = zstandard.ZstdCompressor().compress(base)
    out["gzip-ng"] = gzip.compress(out["ng-le"], mtime=0)
    return out


class Damaged(NamedTuple):
    """A damaged file and how many packets come before the damage."""

    data: bytes
    packets: int


def damaged() -> dict[str, Damaged]:
    """Cut files, lengths that cannot be, stamps that jump. All begin as a proper capture."""
    frames = ethernet_frames()[:5]
    good = pcap(frames)
    ng = pcapng(frames)
    record = len(good) - 16 - len(frames[-1])
    last = len(frames) - 1
    four_gb = struct.pack("<4I", 1_700_000_000, 0, 0xFFFFFFF0, 0xFFFFFFF0)
    return {
        "cut-record-header": Damaged(good[: record + 7], last),
        "cut-record-data": Damaged(good[: record + 16 + 9], last),
        "cut-before-data": Damaged(good[: record + 16], last),
        "ng-cut-block": Damaged(ng[:-20], last),
        "ng-cut-trailer": Damaged(ng[:-2], last),
        "ng-cut-head": Damaged(ng + b"\6\0\0", len(frames)),
        "length-4gb": Damaged(good + four_gb + b"x" * 100, len(frames)),
        "length-2gb": Damaged(good + struct.pack("<4I", 1, 0, 0x80000000, 64) + b"x" * 100, len(frames)),
        "ng-length-0": Damaged(ng + struct.pack("<3I", 6, 0, 0) + bytes(64), len(frames)),
        "ng-length-11": Damaged(ng + struct.pack("<3I", 6, 11, 0) + bytes(64), len(frames)),
        "ng-length-4gb": Damaged(ng + struct.pack("<2I", 6, 0xFFFFFFFC) + bytes(64), len(frames)),
        "ng-caplen-over-block": Damaged(
            ng + block(6, struct.pack("<5I", 0, 0, 0, 5000, 5000) + bytes(20)), len(frames)
        ),
        "ng-other-length-behind": Damaged(ng[:-4] + b"\0\0\0\0", last),
        "ng-version": Damaged(ng + shb(version=(1, 1)) + idb(), len(frames)),
        "ng-no-such-interface": Damaged(ng + epb(Rec(frames[0], START_NS, 60, 7)), len(frames)),
    }


def odd() -> dict[str, bytes]:
    """Stamps out of range or order: every packet counts, nothing may stall."""
    frames = ethernet_frames()[:6]
    t = START_NS
    year = 365 * 86_400 * 1_000_000_000

    def at(*stamps: int) -> bytes:
        return pcap([Rec(f, s) for f, s in zip(frames, stamps, strict=False)])

    base = bytearray(pcap(frames))
    for i, pos in enumerate(positions(bytes(base))):
        base[pos + 4 : pos + 8] = struct.pack("<I", 1_000_000 + i * 1_500_000)
    return {
        "backwards": at(t, t - 5_000_000_000, t + 1, t - 120_000_000_000, t + 61_000_000_000, t),
        "jump-10-years": at(
            t, t + 1, t + 10 * year, t + 10 * year + 5, t + 10 * year + 9, t + 10 * year + 10
        ),
        "zero-then-now": at(0, t, t + 1, t + 2, t + 3, t + 4),
        "sub-second-over": bytes(base),
        "caplen-over-orig": pcap([Rec(f, orig=max(1, len(f) - 10)) for f in frames]),
        "orig-huge": pcap([Rec(f, orig=0x7FFFFFFF) for f in frames]),
        "caplen-0": pcap([Rec(b"", orig=60), *frames]),
        # not in formats(): tshark shows custom blocks as frames
        "ng-custom-block": pcapng(frames)
        + block(0x0000_0BAD, struct.pack("<I", 32473) + b"custom data")
        + block(0x4000_0BAD, struct.pack("<I", 32473) + b"more of it"),
    }


def positions(data: bytes) -> list[int]:
    """Where each record header of a little-endian pcap file is."""
    out = []
    pos = 24
    while pos + 16 <= len(data):
        out.append(pos)
        pos += 16 + struct.unpack_from("<I", data, pos + 8)[0]
    return out


def mixed_linktypes() -> bytes:
    """pcapng: Ethernet and a link type that nobody can decode."""
    recs = stamped(ethernet_frames())
    return (
        shb() + idb(ETHERNET) + idb(USER0)
        + b"".join(epb(r) + epb(Rec(b"?" * 30, r.ts, 30, 1)) for r in recs)
    )  # fmt: skip


def frames_file(name: str) -> bytes:
    return pcap(FRAMES[name]())


def in_hosts(address: str, hosts: Sequence[str]) -> bool:
    ip = ipaddress.ip_address(address)
    return any(ip in ipaddress.ip_network(h, strict=False) for h in hosts)


def everything() -> dict[str, bytes]:
    """Name to bytes of all captures that tshark and netprobe should agree about."""
    out = {f"frames-{name}": frames_file(name) for name in FRAMES}
    out |= {f"link-{name}": data for name, data in (link_files() | rarer_link_files()).items()}
    out |= {f"format-{name}": data for name, data in formats().items()}
    return out


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    files = everything()
    files |= {f"damaged-{name}": d.data for name, d in damaged().items()}
    files |= {f"odd-{name}": data for name, data in odd().items()}
    files["bad-ip"] = pcap(bad_ip())
    files["mixed-linktypes"] = mixed_linktypes()
    for name, data in files.items():
        (folder / f"{name}.pcap").write_bytes(data)
    print(f"{len(files)} captures in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

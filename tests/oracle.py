"""What tshark says about a capture: the figures that netprobe is compared with.

Two runs of tshark per file. One without any reassembly gives the frames: times, lengths and the outermost IP
header, whatever carries it. The other, with fragments and streams put together, gives the DNS, DHCP and BGP
messages.
"""

from __future__ import annotations

import functools
import math
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# IPv6 extension headers by their name in frame.protocols, and the field with the next header's number
EXTENSIONS = {
    "ipv6.hopopts": "ipv6.hopopts.nxt",
    "ipv6.routing": "ipv6.routing.nxt",
    "ipv6.dstopts": "ipv6.dstopts.nxt",
    "ipv6.fraghdr": "ipv6.fraghdr.nxt",
    "ah": "ah.next_header",
}
# layers whose contents netprobe does not look into: whatever they carry, DNS there is not counted
OPAQUE = {"gtp", "vxlan", "geneve", "teredo", "icmp", "icmpv6", "esp", "l2tp"}

# netprobe takes these for DNS on either side (metrics spec 7.1); tshark would not know the last one
DNS_PORTS = (53, 5353, 5355, 53000)

FRAME_FIELDS = [
    "frame.number", "frame.time_epoch", "frame.len", "frame.cap_len", "frame.protocols",
    "ip.src", "ip.dst", "ip.proto", "ip.flags.mf", "ip.frag_offset",
    "ipv6.src", "ipv6.dst", "ipv6.nxt", *EXTENSIONS.values(), "ipv6.fraghdr.more", "ipv6.fraghdr.offset",
    "tcp.srcport", "tcp.dstport", "tcp.flags", "udp.srcport", "udp.dstport", "vlan.id", "ieee8021ad.id",
]  # fmt: skip
MESSAGE_FIELDS = [
    "frame.number", "frame.protocols", "udp.srcport", "udp.dstport", "tcp.srcport", "tcp.dstport",
    "dns.id", "dns.flags.response", "dns.flags.rcode", "dns.count.queries", "dns.count.answers",
    "dns.qry.name", "dns.qry.type",
    "dns.time",
    "dns.opt.client.netmask",
    "dns.opt.client.addr4", "dns.opt.client.addr6",
    "dhcp.option.dhcp", "dhcp.ip.your", "dhcpv6.msgtype", "bgp.type",
]  # fmt: skip


@dataclass
class Frame:
    """One frame as tshark decodes it; the outermost IP header only."""

    ts: int
    wirelen: int
    caplen: int
    protocols: list[str]
    l3: int = 0
    proto: int = 255
    src: str = ""
    dst: str = ""
    fragment: bool = False
    later: bool = False
    sport: int | None = None
    dport: int | None = None
    tcp_flags: int | None = None
    vlan: int | None = None


@dataclass
class Dns:
    """Counts of DNS messages, one per message over UDP or TCP."""

    total: int = 0
    queries: int = 0
    replies: int = 0
    udp: int = 0
    tcp: int = 0
    ipv4: int = 0
    ipv6: int = 0
    rcodes: Counter[int] = field(default_factory=Counter)
    # of responses whose question is there: a capture may cut it off
    rcodes_named: Counter[int] = field(default_factory=Counter)
    nodata: int = 0
    names: Counter[str] = field(default_factory=Counter)
    qtypes: Counter[int] = field(default_factory=Counter)
    ids: Counter[tuple[int, bool]] = field(default_factory=Counter)
    subnets: Counter[str] = field(default_factory=Counter)
    matched: int = 0  # responses within the five seconds that a transaction lasts
    late: int = 0


@dataclass
class Truth:
    frames: list[Frame]
    dns: Dns
    dhcp4: Counter[int]
    dhcp6: Counter[int]
    bgp: Counter[int]

    def count(self, want: Callable[[Frame], bool]) -> int:
        return sum(1 for f in self.frames if want(f))

    @property
    def packets(self) -> int:
        return len(self.frames)

    @property
    def ipv4(self) -> int:
        return self.count(lambda f: f.l3 == 4)

    @property
    def ipv6(self) -> int:
        return self.count(lambda f: f.l3 == 6)

    @property
    def tcp(self) -> int:
        return self.count(lambda f: f.proto == 6)

    @property
    def udp(self) -> int:
        return self.count(lambda f: f.proto == 17)

    @property
    def other_l4(self) -> int:
        return self.packets - self.tcp - self.udp

    @property
    def syn(self) -> int:
        return self.count(lambda f: bool((f.tcp_flags or 0) & 2))

    @property
    def addresses(self) -> Counter[str]:
        """How often each address occurs, source and destination alike; all-zero ones are left out."""
        out: Counter[str] = Counter()
        for f in self.frames:
            out.update(a for a in (f.src, f.dst) if a and a not in ("0.0.0.0", "::"))
        return out


def tshark(path: Path, fields: Sequence[str], reassemble: bool) -> list[dict[str, list[str]]]:
    """One dict of field to values per frame. Reports of a cut file go to stderr and are not an error here."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=/t", "-E", "occurrence=a",
               "-E", "aggregator=|"]  # fmt: skip
    switch = "TRUE" if reassemble else "FALSE"
    for preference in (
        "ip.defragment",
        "ipv6.defragment",
        "tcp.desegment_tcp_streams",
        "tcp.reassemble_out_of_order",
    ):
        command += ["-o", f"{preference}:{switch}"]
    # a header is what it is: no verdicts by checksum
    command += [
        "-o",
        "tcp.check_checksum:FALSE",
        "-o",
        "udp.check_checksum:FALSE",
        "-o",
        "ip.check_checksum:FALSE",
    ]
    if reassemble:
        command += ["-d", "udp.port==53000,dns", "-d", "tcp.port==53000,dns", "-d", "tcp.port==5353,dns"]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = []
    for line in done.stdout.splitlines():
        values = line.split("\t")
        rows.append({name: v.split("|") if v else [] for name, v in zip(fields, values, strict=True)})
    if not rows and done.returncode and "cut short" not in done.stderr:
        raise RuntimeError(f"tshark cannot read {path}: {done.stderr.strip()}")
    return rows


def first(row: dict[str, list[str]], name: str) -> str:
    return row[name][0] if row[name] else ""


def number(text: str) -> int:
    if text in ("True", "False"):
        return int(text == "True")
    return int(text, 0) if text else 0


def stamp(text: str) -> int:
    """Decimal seconds as nanoseconds."""
    if not text:
        return -1  # simple packet blocks have no time
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000_000 + int((fraction + "000000000")[:9])


def frame_of(row: dict[str, list[str]]) -> Frame:
    layers = first(row, "frame.protocols").split(":")
    frame = Frame(
        ts=stamp(first(row, "frame.time_epoch")),
        wirelen=int(first(row, "frame.len")),
        caplen=int(first(row, "frame.cap_len")),
        protocols=layers,
    )
    tag = next((f"{layer}.id" for layer in layers if layer in ("vlan", "ieee8021ad")), "")
    if tag and row[tag]:
        frame.vlan = int(first(row, tag))
    at = next((i for i, layer in enumerate(layers) if layer in ("ip", "ipv6")), -1)
    # cut inside the header or unreadable: tshark names the layer but has no addresses
    if at < 0:
        return frame
    if layers[at] == "ip":
        frame.l3 = 4
        if not row["ip.proto"]:
            return frame  # a bogus header is IPv4 still
        frame.proto = number(first(row, "ip.proto"))
        frame.src, frame.dst = first(row, "ip.src"), first(row, "ip.dst")
        more = bool(number(first(row, "ip.flags.mf")))
        offset = number(first(row, "ip.frag_offset"))
    else:
        if not row["ipv6.nxt"]:
            return frame
        frame.l3 = 6
        frame.proto = number(first(row, "ipv6.nxt"))
        frame.src, frame.dst = first(row, "ipv6.src"), first(row, "ipv6.dst")
        more, offset = False, 0
        used: Counter[str] = Counter()
        for layer in layers[at + 1 :]:
            if layer not in EXTENSIONS:
                break
            values = row[EXTENSIONS[layer]]
            if used[layer] >= len(values):
                break
            frame.proto = number(values[used[layer]])
            used[layer] += 1
            if layer == "ipv6.fraghdr":
                more = bool(number(first(row, "ipv6.fraghdr.more")))
                offset = number(first(row, "ipv6.fraghdr.offset"))
    frame.fragment = more or offset > 0
    frame.later = offset > 0
    if not frame.later and frame.proto in (6, 17):
        kind = "tcp" if frame.proto == 6 else "udp"
        if row[f"{kind}.srcport"]:
            frame.sport = int(row[f"{kind}.srcport"][0])
            frame.dport = int(row[f"{kind}.dstport"][0])
        if kind == "tcp" and row["tcp.flags"]:
            frame.tcp_flags = number(row["tcp.flags"][0]) & 0xFF
    return frame


def reachable(layers: list[str], name: str) -> bool:
    """Is this layer one that netprobe would look at: not inside a tunnel over UDP, nor quoted by ICMP?"""
    if name not in layers:
        return False
    return not OPAQUE.intersection(layers[: layers.index(name)])


def count_dns(dns: Dns, row: dict[str, list[str]], frame: Frame) -> None:
    layers = first(row, "frame.protocols").split(":")
    name = next((n for n in ("dns", "mdns", "llmnr") if n in layers), "")
    if not name or not reachable(layers, name):
        return
    over_tcp = "tcp" in layers[: layers.index(name)]
    transport = "tcp" if over_tcp else "udp"
    ports = {int(p) for p in (*row[f"{transport}.srcport"], *row[f"{transport}.dstport"])}
    if not ports.intersection(DNS_PORTS):
        return
    rcodes = iter(row["dns.flags.rcode"])
    names, types = iter(row["dns.qry.name"]), iter(row["dns.qry.type"])
    for i, flag in enumerate(row["dns.flags.response"]):
        response = bool(number(flag))
        dns.total += 1
        dns.queries += not response
        dns.replies += response
        dns.tcp += over_tcp
        dns.udp += not over_tcp
        dns.ipv4 += frame.l3 == 4
        dns.ipv6 += frame.l3 == 6
        dns.ids[number(row["dns.id"][i]), response] += 1
        if response:
            rcode = number(next(rcodes))
            dns.rcodes[rcode] += 1
            dns.nodata += rcode == 0 and number(row["dns.count.answers"][i]) == 0
            dns.rcodes_named[rcode] += bool(row["dns.qry.type"])
        for question in range(number(row["dns.count.queries"][i])):
            asked, qtype = next(names, None), next(types, None)
            if question == 0 and asked is not None and qtype is not None:
                dns.names["" if asked == "<Root>" else asked.lower()] += 1
                dns.qtypes[number(qtype)] += 1
    for elapsed in row["dns.time"]:
        dns.matched += float(elapsed) < 5
        dns.late += float(elapsed) >= 5
    # a subnet of length 0 says nothing about the client
    if row["dns.flags.response"] == ["0"] and row["dns.opt.client.netmask"] not in ([], ["0"]):
        dns.subnets.update(row["dns.opt.client.addr4"] + row["dns.opt.client.addr6"])


@functools.cache
def truth(path: Path) -> Truth:
    """Everything tshark can tell about the capture at `path`."""
    frames = [frame_of(row) for row in tshark(path, FRAME_FIELDS, False)]
    out = Truth(frames, Dns(), Counter(), Counter(), Counter())
    for row, frame in zip(tshark(path, MESSAGE_FIELDS, True), frames, strict=True):
        layers = first(row, "frame.protocols").split(":")
        count_dns(out.dns, row, frame)
        if reachable(layers, "dhcp"):
            out.dhcp4.update(number(v) for v in row["dhcp.option.dhcp"][:1])
        if reachable(layers, "dhcpv6"):
            # a relayed message is inside the first one
            out.dhcp6.update(number(v) for v in row["dhcpv6.msgtype"][:1])
        if reachable(layers, "bgp"):
            out.bgp.update(number(v) for v in row["bgp.type"])
    return out


def quantile(values: Sequence[float], rank: float) -> float:
    """The inclusive rule of the metrics spec, 1.5."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(rank * len(ordered))) - 1]

"""What the screen says: six header lines and fourteen tables (agent spec 5.2 to 5.4), without a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from netprobe.ui import text
from netprobe.ui.document import Figures, Handler, find

__all__ = ["TABLE_LINES", "TITLES", "Picture", "Row", "Table", "draw"]

TABLE_LINES = 7
#: lines of a table that say their share
SHARED_LINES = 3


class Row(NamedTuple):
    """One line of a table; `share` in per cent, or None."""

    name: str
    estimate: int
    share: float | None


class Table(NamedTuple):
    title: str
    rows: tuple[Row, ...]


class Picture(NamedTuple):
    """`header`: six lines, each in the parts between which it may be broken."""

    header: tuple[tuple[str, ...], ...]
    tables: tuple[Table, ...]


#: title, where it comes from, what its shares are of; in the order of the layout, row by row
TABLES = (
    ("Top QName 2", "dns", "top_qname2", "dns"),
    ("Top QName 3", "dns", "top_qname3", "dns"),
    ("Top NX", "dns", "top_nxdomain", "replies"),
    ("Slow In", "dns", "xact.in.top_slow", "xacts"),
    ("Top QTypes", "dns", "top_qtype", "dns"),
    ("Top RCodes", "dns", "top_rcode", "replies"),
    ("Top SRVFAILS", "dns", "top_srvfail", "replies"),
    ("Slow Out", "dns", "xact.out.top_slow", "xacts"),
    ("Top REFUSED", "dns", "top_refused", "replies"),
    ("IPv4", "packets", "top_ipv4", "deep"),
    ("IPv6", "packets", "top_ipv6", "deep"),
    ("Top DNS UDP Ports", "dns", "top_udp_ports", "dns"),
    ("Top GeoLoc", "packets", "top_geoLoc", "deep"),
    ("Top ASN", "packets", "top_ASN", "deep"),
)
TITLES = tuple(title for title, *_ in TABLES)


def draw(document: object, policy: str) -> Picture | None:
    """The picture of a policy's answer; None when none of its handlers can be shown."""
    figures = find(document, policy)
    if figures is None:
        return None
    header = (
        _packets(figures.packets),
        _rates(figures.packets, figures.pcap),
        _dhcp(figures.dhcp),
        _dns(figures.dns, figures.dns_unit),
        _transactions(figures.dns),
        (*_rcodes(figures.dns), _window(*figures.period())),
    )
    return Picture(header, tuple(_tables(figures)))


# --- header ---


def _shares(handler: Handler, base: float, parts: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(
        f"{label} {handler.count(path)} ({text.percent(handler.number(path), base)})" for label, path in parts
    )


def _rate(label: str, handler: Handler, path: str) -> str:
    """Closed buckets have no `live`."""
    live = f"{handler.number(f'{path}.live'):.0f}" if handler.has(f"{path}.live") else "-"
    return f"{label} {live}/s {text.quantiles(handler.quantiles(path))} pps"


def _packets(net: Handler) -> tuple[str, ...]:
    total = net.number("total")
    protocols = (("UDP", "udp"), ("TCP", "tcp"), ("Other", "other_l4"), ("IPv4", "ipv4"), ("IPv6", "ipv6"))
    return (
        f"Pkts {net.count('total')}",
        *_shares(net, total, protocols),
        *_shares(net, net.number("in") + net.number("out"), (("In", "in"), ("Out", "out"))),
        *_shares(net, total, (("Deep Samples", "deep_samples"),)),
    )


def _rates(net: Handler, pcap: Handler) -> tuple[str, ...]:
    return (
        _rate("Pkt Rates Total", net, "rates.pps_total"),
        _rate("In", net, "rates.pps_in"),
        _rate("Out", net, "rates.pps_out"),
        f"IP Card. In {net.count('cardinality.src_ips_in')} Out {net.count('cardinality.dst_ips_out')}",
        f"TCP Errors {pcap.count('tcp_reassembly_errors')}",
        f"OS Drops {pcap.count('os_drops')}",
        f"IF Drops {pcap.count('if_drops')}",
    )


def _dhcp(dhcp: Handler) -> tuple[str, ...]:
    total = dhcp.count("wire_packets.total")
    kinds = ("Discover", "Offer", "Request", "Ack")
    return (
        f"DHCP Pkts {max(total - dhcp.count('wire_packets.filtered'), 0)}/{total}",
        _rate("Rate", dhcp, "rates.total"),
        *_shares(dhcp, total, [(kind, f"wire_packets.{kind.lower()}") for kind in kinds]),
    )


def _dns(dns: Handler, unit: str) -> tuple[str, ...]:
    total = dns.count("wire_packets.total")
    parts = [("UDP", "udp"), ("TCP", "tcp"), ("IPv4", "ipv4"), ("IPv6", "ipv6")]
    if unit == "Pkts":
        parts += [("Query", "queries"), ("Resp", "replies")]
    return (
        f"DNS {unit} {total}/{dns.count('wire_packets.events')}",
        _rate("Rate", dns, "rates.total"),
        *_shares(dns, total, [(label, f"wire_packets.{key}") for label, key in parts]),
    )


def _transactions(dns: Handler) -> tuple[str, ...]:
    total = dns.count("xact.counts.total")
    return (
        f"DNS Xacts {total}",
        f"Timed Out {dns.count('xact.counts.timed_out')}",
        *_shares(dns, total, (("In", "xact.in.total"), ("Out", "xact.out.total"))),
        f"In Times {text.ms(dns.quantiles('xact.in.quantiles_us'))} ms",
        f"Out Times {text.ms(dns.quantiles('xact.out.quantiles_us'))} ms",
        f"Qname Card. {dns.count('cardinality.qname')}",
    )


def _rcodes(dns: Handler) -> tuple[str, ...]:
    codes = ("NOERROR", "SRVFAIL", "NXDOMAIN", "REFUSED")
    replies = dns.number("wire_packets.replies")
    return _shares(dns, replies, [(code, f"wire_packets.{code.lower()}") for code in codes])


def _window(start: int, length: int) -> str:
    if not start:
        return "Window unknown"
    return f"Window {text.clock(start)} to {text.clock(start + length)}, {length} s"


# --- tables ---


def _tables(figures: Figures) -> Iterable[Table]:
    sampled = figures.sampled()
    bases = {
        "dns": figures.dns.number("wire_packets.total") * sampled,
        "replies": figures.dns.number("wire_packets.replies") * sampled,
        "xacts": figures.dns.number("xact.counts.total") * sampled,
        "deep": figures.packets.number("deep_samples"),
    }
    for title, kind, path, base in TABLES:
        handler = figures.dns if kind == "dns" else figures.packets
        rows = handler.top(path)
        if not rows and path == "top_ASN":
            rows = handler.top("top_asn")
        yield Table(title, tuple(_rows(rows, bases[base])))


def _rows(rows: list[tuple[object, int]], base: float) -> Iterable[Row]:
    for place, (name, estimate) in enumerate(rows[:TABLE_LINES]):
        share = 100 * estimate / base if base > 0 and place < SHARED_LINES else None
        yield Row(text.clean(name), estimate, share)

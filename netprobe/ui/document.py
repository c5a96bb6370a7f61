"""The figures of one policy, out of an agent's answer that may be anything.

Whatever has another type than it should is read as absent: a picture with zeros is better than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["Figures", "Handler", "find"]

#: no agent counts further; bounds how wide a number gets on the screen, and what arithmetic meets
LARGEST = (1 << 64) - 1
PERCENTILES = ("p50", "p90", "p95", "p99")
#: the blocks of a handler of version 2.0
DIRECTIONS = ("in", "out", "unknown")


class Handler:
    """One handler's object; a path is its keys joined by dots."""

    def __init__(self, values: object = None) -> None:
        self._values: Mapping[str, Any] = values if isinstance(values, Mapping) else {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def at(self, path: str) -> object:
        """The value there, or None."""
        value: object = self._values
        for key in path.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return value

    def has(self, path: str) -> bool:
        return self.at(path) is not None

    def number(self, path: str) -> float:
        """0 … 2**64 - 1; 0 where there is none."""
        return _number(self.at(path))

    def count(self, path: str) -> int:
        return int(self.number(path))

    def quantiles(self, path: str) -> tuple[float, ...]:
        """p50, p90, p95, p99."""
        return tuple(self.number(f"{path}.{name}") for name in PERCENTILES)

    def top(self, path: str) -> list[tuple[object, int]]:
        """(name, estimate) in the order given; the name may be anything."""
        rows = self.at(path)
        if not isinstance(rows, list):
            return []
        return [
            (row.get("name"), int(_number(row.get("estimate")))) for row in rows if isinstance(row, Mapping)
        ]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or (value != value):
        return 0
    return min(max(value, 0), LARGEST)


class Figures(NamedTuple):
    """One handler of each kind. Those of version 2.0 have been put into the form of version 1.0."""

    packets: Handler
    dns: Handler
    dhcp: Handler
    pcap: Handler
    dns_unit: str = "Pkts"

    def sampled(self) -> float:
        """Share of the packets that were looked into deeply; without net handler, dns's own share."""
        for handler, deep, total in (
            (self.packets, "deep_samples", "total"),
            (self.dns, "wire_packets.deep_samples", "wire_packets.events"),
        ):
            if handler.number(total) > 0:
                return handler.number(deep) / handler.number(total)
        return 0.0

    def period(self) -> tuple[int, int]:
        """Start (seconds since 1970) and length (s) of the window; (0, 0) when nobody says."""
        for handler in (self.packets, self.dns, self.dhcp, self.pcap):
            if handler.has("period.start_ts"):
                return handler.count("period.start_ts"), handler.count("period.length")
        return 0, 0


def find(document: object, policy: str) -> Figures | None:
    """The figures of a policy's answer (agent spec 3.4.2); None when nothing of it can be shown.

    Of several handlers of a kind the last one counts (5.1), and version 2.0 only where there is no 1.0.
    """
    handlers = document.get(policy) if isinstance(document, Mapping) else None
    found: dict[str, Any] = {}
    for handler in handlers.values() if isinstance(handlers, Mapping) else ():
        if not isinstance(handler, Mapping):
            continue
        for key in ("pcap", "dns", "dhcp", "packets", "net"):
            values = handler.get(key)
            if isinstance(values, Mapping):
                found[
                    "dns_v2"
                    if key == "dns" and "wire_packets" not in values and "observed_packets" in values
                    else key
                ] = values
                break
    if not found:
        return None
    packets, dns, unit = found.get("packets"), found.get("dns"), "Pkts"
    if packets is None and "net" in found:
        packets = _net_v2(found["net"])
    if dns is None and "dns_v2" in found:
        dns, unit = _dns_v2(found["dns_v2"]), "Xacts"
    return Figures(
        Handler(packets), Handler(dns), Handler(found.get("dhcp")), Handler(found.get("pcap")), unit
    )


# --- version 2.0 in the form of 1.0 (handlers/net_v2.py and dns_v2.py have the tables) ---


def _blocks(values: Mapping[str, Any]) -> list[Handler]:
    return [Handler(values.get(direction)) for direction in DIRECTIONS]


def _sum(blocks: Iterable[Handler], path: str) -> int:
    return sum(block.count(path) for block in blocks)


def _merged(blocks: Iterable[Handler], path: str) -> list[dict[str, Any]]:
    """Directions added up, name by name."""
    estimates: dict[str, int] = {}
    for block in blocks:
        for name, estimate in block.top(path):
            if isinstance(name, str):
                estimates[name] = estimates.get(name, 0) + estimate
    order = sorted(estimates, key=lambda name: (-estimates[name], name))
    return [{"name": name, "estimate": estimates[name]} for name in order]


def _net_v2(values: Mapping[str, Any]) -> dict[str, Any]:
    whole, blocks = Handler(values), _blocks(values)
    inbound, outbound, _ = blocks
    return {
        "total": _sum(blocks, "total_packets"),
        "deep_samples": whole.count("deep_sampled_packets"),
        "in": inbound.count("total_packets"),
        "out": outbound.count("total_packets"),
        **{key: _sum(blocks, f"{key}_packets") for key in ("udp", "tcp", "other_l4", "ipv4", "ipv6")},
        "rates": {
            "pps_total": whole.at("rates.observed_pps"),
            "pps_in": inbound.at("rates.pps"),
            "pps_out": outbound.at("rates.pps"),
        },
        "cardinality": {
            "src_ips_in": inbound.count("cardinality.ips"),
            "dst_ips_out": outbound.count("cardinality.ips"),
        },
        "top_ipv4": _merged(blocks, "top_ipv4_packets"),
        "top_ipv6": _merged(blocks, "top_ipv6_packets"),
        "top_geoLoc": _merged(blocks, "top_geo_loc_packets"),
        "top_ASN": _merged(blocks, "top_asn_packets"),
        "period": whole.at("period"),
    }


def _dns_v2(values: Mapping[str, Any]) -> dict[str, Any]:
    """Its unit is the transaction: that is what `wire_packets.total` and `.replies` count here."""
    whole, blocks = Handler(values), _blocks(values)
    inbound, outbound, _ = blocks
    total = _sum(blocks, "xacts")
    codes = ("noerror", "srvfail", "nxdomain", "refused")
    return {
        "wire_packets": {
            "events": whole.count("observed_packets"),
            "deep_samples": whole.count("deep_sampled_packets"),
            "total": total,
            "replies": total,
            **{key: _sum(blocks, f"{key}_xacts") for key in ("udp", "tcp", "ipv4", "ipv6", *codes)},
        },
        "rates": {"total": whole.at("rates.observed_pps")},
        # a name may be in several directions
        "cardinality": {"qname": max(block.count("cardinality.qname") for block in blocks)},
        "xact": {
            "counts": {"total": total, "timed_out": _sum(blocks, "timeout_queries")},
            **{
                name: {
                    "total": block.count("xacts"),
                    "quantiles_us": block.at("xact_time_us"),
                    "top_slow": block.at("top_slow_xacts"),
                }
                for name, block in (("in", inbound), ("out", outbound))
            },
        },
        "top_udp_ports": _merged(blocks, "top_udp_ports_xacts"),
        **{
            f"top_{name}": _merged(blocks, f"top_{name}_xacts")
            for name in ("qname2", "qname3", "nxdomain", "refused", "srvfail", "rcode", "qtype")
        },
        "period": whole.at("period"),
    }

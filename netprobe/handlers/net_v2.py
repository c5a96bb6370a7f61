"""net 2.0: as net 1.0, every metric once per direction (metrics spec 6.4)."""

from netprobe.handlers.net_v1 import NET_OPTIONS
from netprobe.metrics import keys
from netprobe.metrics.table import Group, HandlerTable, cardinality, counter, quantile, rate, topn

NET_V2 = HandlerTable(
    type="net",
    version="2.0",
    key="net",
    native="netprobe._core.acc_net:NetV2",
    summary="Packets by protocol and their remote ends, once per direction.",
    groups=(
        Group("cardinality"),
        Group("counters"),
        Group("quantiles"),
        Group("top_geo"),
        Group("top_ips"),
    ),
    options=NET_OPTIONS,
    metrics=(
        counter("observed_packets", "Packets seen, filtered ones included"),
        counter("deep_sampled_packets", "Packets chosen for deep sampling"),
        rate("rates.observed_pps", "Packets seen per second, filtered ones included"),
        counter("filtered_packets", "Packets that the filters rejected", "counters"),
    ),
    block_metrics=(
        counter("udp_packets", "UDP packets", "counters"),
        counter("tcp_packets", "TCP packets", "counters"),
        counter("other_l4_packets", "Packets that are neither UDP nor TCP", "counters"),
        counter("ipv4_packets", "IPv4 packets", "counters"),
        counter("ipv6_packets", "IPv6 packets", "counters"),
        counter("tcp.syn_packets", "TCP packets with SYN, SYN-ACK included (deep samples)", "counters"),
        counter("total_packets", "Packets that passed the filters", "counters"),
        cardinality("cardinality.ips", "Distinct peer addresses", "cardinality"),
        topn("top_ipv4_packets", "ipv4", keys.ipv4, "IPv4 peers by packets", "top_ips"),
        topn("top_ipv6_packets", "ipv6", keys.ipv6, "IPv6 peers by packets", "top_ips"),
        topn("top_geo_loc_packets", "geo_loc", keys.place, "Locations of peers by packets", "top_geo"),
        topn(
            "top_asn_packets",
            "asn",
            keys.autonomous_system,
            "Autonomous systems of peers by packets",
            "top_geo",
        ),
        quantile("payload_size_bytes", "Frame size in bytes, link header included", "quantiles"),
        rate("rates.pps", "Packets per second", "quantiles"),
        rate("rates.bps", "Bytes (not bits, whatever the name says) per second", "quantiles"),
    ),
)

"""net 1.0: packets by protocol and direction, peers of the host networks (metrics spec 6.3)."""

from netprobe.metrics import keys
from netprobe.metrics.table import Group, HandlerTable, cardinality, counter, quantile, rate, topn

NET_OPTIONS = (
    "geoloc_notfound",
    "asn_notfound",
    "only_geoloc_prefix",
    "only_asn_number",
    "recorded_stream",
)

NET_V1 = HandlerTable(
    type="net",
    version="1.0",
    key="packets",
    native="netprobe._core.acc_net:NetV1",
    summary="Packets by protocol and direction, and the remote ends of the host networks.",
    groups=(Group("cardinality"), Group("counters"), Group("top_geo"), Group("top_ips")),
    options=NET_OPTIONS,
    metrics=(
        counter("events", "Packets seen, filtered ones included"),
        counter("deep_samples", "Packets chosen for deep sampling"),
        rate("rates.pps_events", "Packets seen per second, filtered ones included"),
        rate("rates.pps_in", "Packets per second to the host networks"),
        rate("rates.pps_out", "Packets per second from the host networks"),
        rate("rates.pps_total", "Packets per second"),
        # upstream's names for these three; dashboards know them
        rate("rates.bytes_in", "Bytes per second to the host networks", prom="payload_rates_bytes_in"),
        rate("rates.bytes_out", "Bytes per second from the host networks", prom="payload_rates_bytes_out"),
        rate("rates.bytes_total", "Bytes per second", prom="payload_rates_bytes_total"),
        counter("udp", "UDP packets", "counters"),
        counter("tcp", "TCP packets", "counters"),
        counter("other_l4", "Packets that are neither UDP nor TCP", "counters"),
        counter("ipv4", "IPv4 packets", "counters"),
        counter("ipv6", "IPv6 packets", "counters"),
        counter("protocol.tcp.syn", "TCP packets with SYN, SYN-ACK included (deep samples)", "counters"),
        counter("in", "Packets to the host networks", "counters"),
        counter("out", "Packets from the host networks", "counters"),
        counter("unknown_dir", "Packets neither to nor from the host networks", "counters"),
        counter("total", "Packets that passed the filters", "counters"),
        counter("filtered", "Packets that the filters rejected", "counters"),
        cardinality(
            "cardinality.src_ips_in", "Distinct sources of packets to the host networks", "cardinality"
        ),
        cardinality(
            "cardinality.dst_ips_out",
            "Distinct destinations of packets from the host networks",
            "cardinality",
        ),
        topn("top_ipv4", "ipv4", keys.ipv4, "IPv4 peers by packets", "top_ips"),
        topn("top_ipv6", "ipv6", keys.ipv6, "IPv6 peers by packets", "top_ips"),
        topn("top_geoLoc", "geo_loc", keys.place, "Locations of peers by packets", "top_geo"),
        topn("top_ASN", "asn", keys.autonomous_system, "Autonomous systems of peers by packets", "top_geo"),
        quantile("payload_size", "Frame size in bytes, link header included"),
    ),
)

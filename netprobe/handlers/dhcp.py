"""dhcp: DHCPv4 and DHCPv6 messages, clients and servers (metrics spec 8)."""

from netprobe.metrics import keys
from netprobe.metrics.table import HandlerTable, counter, rate, topn

DHCP = HandlerTable(
    type="dhcp",
    version="1.0",
    key="dhcp",
    native="netprobe._core.acc_dhcp:Dhcp",
    summary="DHCPv4 and DHCPv6 messages, clients and servers.",
    options=("recorded_stream", "xact_ttl_secs", "xact_ttl_ms"),
    metrics=(
        counter("wire_packets.events", "Messages seen, DHCPv4 and DHCPv6"),
        counter("wire_packets.deep_samples", "Messages chosen for deep sampling"),
        rate("rates.events", "Messages seen per second, DHCPv4 and DHCPv6"),
        rate("rates.total", "DHCPv4 messages per second"),
        counter("wire_packets.total", "DHCPv4 messages"),
        counter("wire_packets.filtered", "Always 0: this handler has no filters"),
        counter("wire_packets.discover", "DHCPv4 DISCOVER messages"),
        counter("wire_packets.offer", "DHCPv4 OFFER messages"),
        counter("wire_packets.request", "DHCPv4 REQUEST messages"),
        counter("wire_packets.ack", "DHCPv4 ACK messages"),
        counter("wire_packets.solicit", "DHCPv6 SOLICIT messages"),
        counter("wire_packets.advertise", "DHCPv6 ADVERTISE messages"),
        counter("wire_packets.request_v6", "DHCPv6 REQUEST messages"),
        counter("wire_packets.reply", "DHCPv6 REPLY messages"),
        topn("top_clients", "client", keys.text, "Clients, as MAC/hostname/address, by leases acknowledged"),
        topn("top_servers", "server", keys.text, "Servers, as MAC/address, by offers and replies"),
    ),
)

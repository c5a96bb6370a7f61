"""bgp: BGP messages by type (metrics spec 9)."""

from netprobe.metrics.table import HandlerTable, counter, rate

BGP = HandlerTable(
    type="bgp",
    version="1.0",
    key="bgp",
    native="netprobe._core.acc_bgp:Bgp",
    summary="BGP messages by type.",
    options=("recorded_stream",),
    metrics=(
        counter("wire_packets.events", "Messages seen"),
        counter("wire_packets.deep_samples", "Messages chosen for deep sampling"),
        rate("rates.events", "Messages seen per second"),
        rate("rates.total", "Messages per second"),
        counter("wire_packets.total", "Messages, unreadable ones included"),
        counter("wire_packets.filtered", "Always 0: this handler has no filters"),
        counter("wire_packets.open", "OPEN messages"),
        counter("wire_packets.update", "UPDATE messages"),
        counter("wire_packets.notification", "NOTIFICATION messages"),
        counter("wire_packets.keepalive", "KEEPALIVE messages"),
        counter("wire_packets.routerefresh", "ROUTE-REFRESH messages"),
    ),
)

"""pcap: what the capture itself lost (metrics spec 10)."""

from netprobe.metrics.table import HandlerTable, counter

PCAP = HandlerTable(
    type="pcap",
    version="1.0",
    key="pcap",
    native="netprobe._core.acc_pcap:Pcap",
    summary="What the capture itself lost. Drops are known in live capture only.",
    options=("recorded_stream",),
    metrics=(
        counter("tcp_reassembly_errors", "Packets that TCP reassembly could not use"),
        counter("os_drops", "Packets that the kernel dropped for want of room"),
        counter("if_drops", "Packets that the interface or its driver dropped"),
    ),
)

"""dns 1.0: every DNS message counts by itself, transactions beside (metrics spec 7.10)."""

from netprobe.handlers.dns_names import qtype_name, rcode_name
from netprobe.metrics import keys
from netprobe.metrics.keys import GeoNames, Label
from netprobe.metrics.table import (
    Group,
    HandlerTable,
    cardinality,
    counter,
    histogram,
    quantile,
    rate,
    topn,
)


def rcode(key: bytes, geo: GeoNames | None = None) -> Label:
    return Label(rcode_name(keys.number_of(key)))


def qtype(key: bytes, geo: GeoNames | None = None) -> Label:
    return Label(qtype_name(keys.number_of(key)))


# the two kinds that need more than one group
XACT_TIMES = ("dns_transaction", "quantiles")
XACT_HISTOGRAMS = ("dns_transaction", "histograms")
DETAILS = ("top_qnames", "top_qnames_details")

DNS_V1 = HandlerTable(
    type="dns",
    version="1.0",
    key="dns",
    native="netprobe._core.acc_dns_v1:DnsV1",
    summary="DNS messages over UDP and TCP, and the transactions that they make up.",
    groups=(
        Group("cardinality"),
        Group("counters"),
        Group("quantiles"),
        Group("histograms", False),
        Group("dns_transaction"),
        Group("top_ecs", False),
        Group("top_qnames"),
        Group("top_qnames_details", False),
        Group("top_ports"),
    ),
    options=(
        "exclude_noerror",
        "only_rcode",
        "only_queries",
        "only_responses",
        "only_dnssec_response",
        "answer_count",
        "only_qtype",
        "only_qname",
        "only_qname_suffix",
        "geoloc_notfound",
        "asn_notfound",
        "dnstap_msg_type",
        "public_suffix_list",
        "recorded_stream",
        "xact_ttl_secs",
        "xact_ttl_ms",
    ),
    metrics=(
        counter("wire_packets.events", "Messages seen, filtered ones included"),
        counter("wire_packets.deep_samples", "Messages chosen for deep sampling"),
        rate("rates.events", "Messages seen per second, filtered ones included"),
        rate("rates.total", "Messages per second that passed the filters"),
        counter("wire_packets.total", "Messages that passed the filters", "counters"),
        counter("wire_packets.filtered", "Messages that the filters rejected", "counters"),
        counter("wire_packets.queries", "Queries", "counters"),
        counter("wire_packets.replies", "Responses", "counters"),
        counter("wire_packets.udp", "Messages over UDP", "counters"),
        counter("wire_packets.tcp", "Messages over TCP", "counters"),
        counter("wire_packets.ipv4", "Messages over IPv4", "counters"),
        counter("wire_packets.ipv6", "Messages over IPv6", "counters"),
        counter("wire_packets.noerror", "Responses with rcode NOERROR", "counters"),
        counter("wire_packets.nodata", "Responses with rcode NOERROR and no answer record", "counters"),
        counter("wire_packets.nxdomain", "Responses with rcode NXDOMAIN", "counters"),
        counter("wire_packets.refused", "Responses with rcode REFUSED", "counters"),
        counter("wire_packets.srvfail", "Responses with rcode SRVFAIL", "counters"),
        counter(
            "wire_packets.query_ecs",
            "Queries with an EDNS client subnet (deep samples)",
            "counters",
            "top_ecs",
        ),
        cardinality("cardinality.qname", "Distinct names asked for", "cardinality"),
        topn("top_udp_ports", "port", keys.number, "Client ports, UDP and TCP, by messages", "top_ports"),
        topn("top_qname2", "qname", keys.text, "Names, last two labels, by messages", "top_qnames"),
        topn("top_qname3", "qname", keys.text, "Names, last three labels, by messages", "top_qnames"),
        topn("top_nxdomain", "qname", keys.text, "Names by responses NXDOMAIN", "top_qnames"),
        topn("top_refused", "qname", keys.text, "Names by responses REFUSED", "top_qnames"),
        topn("top_srvfail", "qname", keys.text, "Names by responses SRVFAIL", "top_qnames"),
        topn("top_nodata", "qname", keys.text, "Names by responses NOERROR without answer", "top_qnames"),
        topn("top_noerror", "qname", keys.text, "Names by responses NOERROR", *DETAILS),
        topn("top_qname_by_resp_bytes", "qname", keys.text, "Names by bytes of their responses", *DETAILS),
        topn("top_rcode", "rcode", rcode, "Response codes by responses"),
        topn("top_qtype", "qtype", qtype, "Query types by messages"),
        topn("top_query_ecs", "ecs", keys.subnet, "EDNS client subnets by queries", "top_ecs"),
        topn("top_geoLoc_ecs", "geo_loc", keys.place, "Locations of client subnets by queries", "top_ecs"),
        topn(
            "top_asn_ecs",
            "asn",
            keys.autonomous_system,
            "Autonomous systems of client subnets by queries",
            "top_ecs",
        ),
        counter("xact.counts.total", "Transactions: responses matched to a query in time", "dns_transaction"),
        counter("xact.counts.timed_out", "Queries without a response in time", "dns_transaction"),
        counter("xact.in.total", "Transactions with the host as server", "dns_transaction"),
        counter("xact.out.total", "Transactions with the host as client", "dns_transaction"),
        quantile(
            "xact.in.quantiles_us", "Transaction time with the host as server, microseconds", *XACT_TIMES
        ),
        quantile(
            "xact.out.quantiles_us", "Transaction time with the host as client, microseconds", *XACT_TIMES
        ),
        histogram(
            "xact.in.histogram_us", "Transaction time with the host as server, microseconds", *XACT_HISTOGRAMS
        ),
        histogram(
            "xact.out.histogram_us",
            "Transaction time with the host as client, microseconds",
            *XACT_HISTOGRAMS,
        ),
        quantile(
            "xact.ratio.quantiles",
            "Response bytes per query byte of a transaction",
            *XACT_TIMES,
            is_float=True,
        ),
        topn(
            "xact.in.top_slow",
            "qname",
            keys.text,
            "Names by slow transactions (slowest tenth of the last period), host as server",
            "dns_transaction",
        ),
        topn(
            "xact.out.top_slow",
            "qname",
            keys.text,
            "Names by slow transactions (slowest tenth of the last period), host as client",
            "dns_transaction",
        ),
    ),
)

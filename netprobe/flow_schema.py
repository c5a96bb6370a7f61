"""The columns of flow records: one schema for chunks, Arrow, JSON lines and Parquet."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["APP_SCHEMA", "SCHEMA", "Column"]


class Column(NamedTuple):
    """One column of the schema that chunks, Arrow, JSON lines and Parquet share."""

    name: str
    dtype: str  # numpy; "16u1" is 16 bytes a row, "text" a str or None
    arrow: str  # format of the Arrow C data interface
    absent: int | None  # the value that means "not known", null in Arrow; a text is None
    unit: str
    doc: str


def _both(name: str, dtype: str, unit: str, doc: str, absent: int | None = None) -> list[Column]:
    arrow = {"u1": "C", "u4": "I", "u8": "L", "i8": "l"}[dtype]
    return [Column(f"{side}_{name}", dtype, arrow, absent, unit, doc) for side in ("out", "in")]


SCHEMA: tuple[Column, ...] = (
    Column("first", "i8", "tsn:UTC", None, "ns since 1970", "first packet of the record"),
    Column("last", "i8", "tsn:UTC", None, "ns since 1970", "latest packet of the record"),
    Column("src", "16u1", "w:16", None, "bytes", "sender of the first packet; IPv4 in the first four bytes"),
    Column("dst", "16u1", "w:16", None, "bytes", "the other end"),
    Column("sport", "u2", "S", None, "port", "0 for other than TCP, UDP"),
    Column("dport", "u2", "S", None, "port", "ICMP: type * 256 + code"),
    Column("proto", "u1", "C", None, "IP protocol", ""),
    Column("l3", "u1", "C", None, "IP version", "4 or 6"),
    Column("direction", "u1", "C", None, "", "of the first packet: 0 to the hosts, 1 from them, 2 neither"),
    Column("reason", "u1", "C", None, "", "why the record ends here: index into REASONS"),
    *_both("pkts", "u8", "packets", "out: src to dst, in: dst to src"),
    *_both("bytes", "u8", "bytes", "IP datagrams with their headers, by their length fields"),
    *_both("tcp_flags", "u1", "bits", "all flags seen: 1 FIN, 2 SYN, 4 RST, 8 PSH, 16 ACK, ..."),
    *_both("tos", "u1", "bits", "all TOS or traffic-class bytes seen, ORed"),
    *_both("retransmits", "u4", "packets", "TCP: sent again"),
    *_both("repeats", "u4", "times", "TCP: one sequence number sent again four times in a row"),
    *_both("reordered", "u4", "packets", "TCP: overtaken on the way"),
    *_both("window", "i8", "bytes", "TCP: latest receive window, scaled", -1),
    *_both("zero_windows", "u4", "packets", "TCP: closed windows"),
    Column("client_nw_latency_ms", "u4", "I", 0, "ms", "half the time from SYN+ACK to the client's ACK"),
    Column("server_nw_latency_ms", "u4", "I", 0, "ms", "half the time from SYN to SYN+ACK"),
    Column("fpex_latency_ms", "u4", "I", 0, "ms", "from one end's first payload to the other's first"),
    Column("appl_latency_ms", "i8", "l", -1, "ms", "from request to response, by a protocol decoder"),
    Column("connection_id", "u4", "I", 0, "", "equal in both directions; TCP and UDP only"),
    Column("fragments", "u4", "I", None, "packets", "IP fragments among the packets"),
    Column("sample_rate", "u4", "I", None, "", "the record stands for this many"),
    Column("vlan", "u2", "S", None, "", "innermost identifier, 0 without a tag"),
    Column("smac", "6u1", "w:6", None, "bytes", "source MAC of the first packet, zero without Ethernet"),
    Column("dmac", "6u1", "w:6", None, "bytes", "destination MAC of the first packet"),
    Column("app", "u1", "C", None, "", "application by port: 1 DNS, 2 HTTP, 3 TLS, 4 DHCP, 9 RADIUS, 0 none"),
)


def _text(name: str, doc: str) -> Column:
    return Column(name, "text", "u", None, "", doc)


def _number(name: str, doc: str, unit: str = "") -> Column:
    return Column(name, "i8", "l", -1, unit, doc)


#: What decoders read, in records that end with a message; of TLS, in every record of the connection.
APP_SCHEMA: tuple[Column, ...] = (
    _text("dns_query", "name asked for, without the last dot"),
    _number("dns_query_type", "its type: 1 A, 28 AAAA, ..."),
    _number("dns_ret_code", "reply: RCODE"),
    _text("dns_response", "reply: value/type of each answer, joined by semicolons"),
    _text("http_url", "request target as sent; of a response that of its request, like the next three"),
    _text("http_host", "field Host, empty without one"),
    _text("http_referer", "field Referer"),
    _text("http_ua", "field User-Agent"),
    _number("http_status", "response: its status"),
    _text("tls_server_name", "name in the client's hello"),
    _number("tls_server_version", "legacy version of the server's hello: 771 is TLS 1.2 and 1.3"),
    _number("tls_cipher_suite", "the server's choice"),
    _number("dhcp_op", "1 request, 2 reply"),
    _number("dhcp_msg_type", "option 53: 1 discover, 2 offer, 3 request, 5 ack, ..."),
    _text("dhcp_ci_addr", "the client's address"),
    _text("dhcp_yi_addr", "address for the client"),
    _text("dhcp_si_addr", "next server"),
    _text("dhcp_ch_addr", "hardware address"),
    _text("dhcp_hostname", "option 12"),
    _text("dhcp_domain", "option 15"),
    _number("dhcp_lease", "option 51", "s"),
    _number("radius_code", "1 request, 2 accept, 3 reject, 4 and 5 accounting, 11 challenge, 0 others"),
    _text("radius_user_name", "attribute 1"),
    _number("radius_acct_status", "attribute 40: 1 start, 2 stop, ..."),
    _number("radius_service_type", "attribute 6, 0 for unknown ones"),
    _text("radius_framed_ip_addr", "attribute 8"),
    _text("radius_framed_ip_mask", "attribute 9"),
    _number("radius_framed_proto", "attribute 7"),
    _text("radius_acct_session_id", "attribute 44"),
    _text("pg_user", "PostgreSQL: who logged in"),
    _text("pg_database", "PostgreSQL: where"),
    _text("pg_statement", "PostgreSQL: the statement; none for the log-in"),
    _text("pg_error", "PostgreSQL: SQLSTATE of an error"),
    _number("pg_rows", "PostgreSQL: rows by the command's tag", "rows"),
)

"""Flow records as IPFIX (RFC 7011) over UDP, to any collector.

Information elements are IANA's, and ntop's (enterprise 35632) for latencies and what decoders found: kprobe's
columns are called as theirs are, and collectors know them. Each set of such fields has a template of its own.
UDP has no acknowledgements: what a collector misses is gone, it sees that by the sequence numbers. Templates
are sent first and again and again. Times are rounded down to milliseconds.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from netprobe.export.batch import TO_HOSTS, ExportError, FlowBatch
from netprobe.export.sinks import Sink
from netprobe.flow_columns import REASONS

__all__ = ["IpfixSink"]

VERSION = 10
DOMAIN = 1
TEMPLATE_SET = 2
HEADER = struct.Struct("!HHIII")
SET = struct.Struct("!HH")
#: a message fits one Ethernet frame also over IPv6
MESSAGE_MAX = 1400
TEMPLATES_EVERY_MESSAGES = 200
TEMPLATES_EVERY_S = 60.0
ADDRESS_BYTES = 16
MAC_BYTES = 6

#: information element, bytes; in the order in which records are packed
_COMMON = (
    (7, 2),  # sourceTransportPort
    (11, 2),  # destinationTransportPort: ICMP type * 256 + code for ICMP, as NetFlow has it
    (4, 1),  # protocolIdentifier
    (5, 1),  # ipClassOfService
    (6, 2),  # tcpControlBits
    (2, 8),  # packetDeltaCount
    (1, 8),  # octetDeltaCount
    (152, 8),  # flowStartMilliseconds
    (153, 8),  # flowEndMilliseconds
    (56, 6),  # sourceMacAddress
    (80, 6),  # destinationMacAddress
    (58, 2),  # vlanId
    (136, 1),  # flowEndReason
    (34, 4),  # samplingInterval: one of so many flows
)
_COMMON_FORMAT = "HHBBHQQQQ6s6sHBI"


NTOP = 35632
ENTERPRISE = 0x8000
VARIABLE = 0xFFFF
#: a text has fewer bytes: one is enough to say how many, and a record with four of them fits into a message
TEXT_MAX = 255
#: column -> element of ntop, bytes. All of them, or none
HEALTH = {
    "client_nw_latency_ms": (123, 4),
    "server_nw_latency_ms": (124, 4),
    "appl_latency_ms": (125, 4),
    "retransmits": (110, 4),  # RETRANSMITTED_OUT_PKTS, like the column of that name
    "reordered": (111, 4),  # OOORDER_IN_PKTS
}
#: application field -> element of ntop, bytes. The others have none
APPS = {
    "dns_query": (205, VARIABLE),
    "dns_query_type": (207, 2),
    "dns_ret_code": (208, 1),
    "dns_response": (398, VARIABLE),
    "http_url": (180, VARIABLE),
    "http_host": (187, VARIABLE),
    "http_referer": (182, VARIABLE),
    "http_ua": (183, VARIABLE),
    "http_status": (181, 2),
    "tls_server_name": (188, VARIABLE),
    "dhcp_msg_type": (429, 1),
    "dhcp_yi_addr": (354, 4),
    "dhcp_hostname": (355, VARIABLE),
    "radius_user_name": (242, VARIABLE),
    "radius_framed_ip_addr": (249, 4),
    "radius_acct_session_id": (250, VARIABLE),
}
HEALTH_RECORD = struct.Struct("!5I")
#: more sets of fields than that are not told apart: what exceeds it goes without them
TEMPLATES_MOST = 500


class _Template(NamedTuple):
    number: int
    elements: tuple[tuple[int, int], ...]
    record: struct.Struct
    address_bytes: int
    #: of ntop
    more: tuple[tuple[int, int], ...] = ()


TEMPLATES = {
    4: _Template(256, ((8, 4), (12, 4), *_COMMON), struct.Struct("!4s4s" + _COMMON_FORMAT), 4),
    6: _Template(257, ((27, 16), (28, 16), *_COMMON), struct.Struct("!16s16s" + _COMMON_FORMAT), 16),
}
#: flowEndReason (RFC 5102): 1 idle, 2 active, 4 forced end, 5 lack of resources. What kprobe's schedule
#: reports goes on, like at an active time-out
END_REASONS = {"idle": 1, "active": 2, "schedule": 2, "decoded": 2, "evicted": 5, "end": 4}


class IpfixSink(Sink[FlowBatch]):
    """Sends to `host`, `port`. ExportError: no such host, or the system refuses to send."""

    def __init__(self, host: str, port: int) -> None:
        self._where = f"{host}:{port}"
        try:
            family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            self._address: tuple[Any, ...] = address
            # not connected: a collector that is down for a while is no reason to stop
            self._socket = socket.socket(family, kind, number)
        except OSError as error:
            raise ExportError(f"{self._where}: {error.strerror or error}") from None
        self._sequence = 0
        self._messages = 0
        self._told = -TEMPLATES_EVERY_S
        #: (IP version, names of ntop's fields) -> template
        self._templates: dict[tuple[int, tuple[str, ...]], _Template] = {
            (version, ()): template for version, template in TEMPLATES.items()
        }
        self._new = True

    def write(self, batch: FlowBatch) -> None:
        packed: dict[tuple[int, tuple[str, ...]], list[bytes]] = {}
        for row, version, health, fields in zip(
            _rows(batch), batch.numbers("l3"), _health(batch), _decoded(batch), strict=True
        ):
            names = (*(HEALTH if health else ()), *(name for name, _ in fields))
            if (version, names) not in self._templates and not self._make(version, names):
                names, health, fields = (), b"", []
            template = self._templates[version, names]
            size = template.address_bytes
            record = template.record.pack(row[0][:size], row[1][:size], *row[2:])
            if names:
                record += health + b"".join(value for _, value in fields)
            packed.setdefault((version, names), []).append(record)
        for key, records in sorted(packed.items()):
            for some in _messages(records):
                self._data(self._templates[key], some)

    def _make(self, version: int, names: tuple[str, ...]) -> bool:
        """A template for these fields, unless there are too many."""
        if len(self._templates) >= TEMPLATES_MOST:
            return False
        base = TEMPLATES[version]
        more = tuple(HEALTH[name] if name in HEALTH else APPS[name] for name in names)
        self._templates[version, names] = base._replace(number=256 + len(self._templates), more=more)
        self._new = True
        return True

    def close(self, limit_s: float | None) -> None:
        self._socket.close()

    def _data(self, template: _Template, records: list[bytes]) -> None:
        now = time.monotonic()
        again = self._messages % TEMPLATES_EVERY_MESSAGES == 0 or now - self._told >= TEMPLATES_EVERY_S
        if self._new or again:
            self._new = False
            self._told = now
            for some in _messages([_described(one) for one in self._templates.values()]):
                self._send(TEMPLATE_SET, b"".join(some))
        self._messages += 1
        self._send(template.number, b"".join(records))
        # counts data records, and wraps (RFC 7011, 3.1)
        self._sequence = (self._sequence + len(records)) & 0xFFFFFFFF

    def _send(self, number: int, content: bytes) -> None:
        length = HEADER.size + SET.size + len(content)
        head = HEADER.pack(VERSION, length, int(time.time()) & 0xFFFFFFFF, self._sequence, DOMAIN)
        try:
            self._socket.sendto(head + SET.pack(number, SET.size + len(content)) + content, self._address)
        except OSError as error:
            raise ExportError(f"{self._where}: {os.strerror(error.errno or 0)}") from None


def _described(template: _Template) -> bytes:
    pairs = b"".join(struct.pack("!HH", *element) for element in template.elements)
    pairs += b"".join(struct.pack("!HHI", ENTERPRISE | number, size, NTOP) for number, size in template.more)
    return struct.pack("!HH", template.number, len(template.elements) + len(template.more)) + pairs


def _messages(pieces: list[bytes]) -> Iterator[list[bytes]]:
    """As many as fit into one message each."""
    some: list[bytes] = []
    room = most = MESSAGE_MAX - HEADER.size - SET.size
    for piece in pieces:
        if len(piece) > room and some:
            yield some
            some, room = [], most
        some.append(piece)
        room -= len(piece)
    if some:
        yield some


def _health(batch: FlowBatch) -> list[bytes]:
    """Latencies and TCP's troubles of each record; nothing where nothing is known."""
    sides = [
        zip(batch.numbers(f"in_{n}"), batch.numbers(f"out_{n}"), strict=True)
        for n in ("retransmits", "reordered")
    ]
    latencies = [batch.numbers(f"{name}_latency_ms") for name in ("client_nw", "server_nw", "appl")]
    found = []
    for client, server, appl, retransmits, reordered in zip(*latencies, *sides, strict=True):
        values = (client, server, max(appl, 0), sum(retransmits), sum(reordered))
        found.append(HEALTH_RECORD.pack(*values) if any(values) or appl >= 0 else b"")
    return found


def _decoded(batch: FlowBatch) -> list[list[tuple[str, bytes]]]:
    """Application fields of each record: name, value as it is sent."""
    found: list[list[tuple[str, bytes]]] = [[] for _ in range(batch.rows)]
    apps = batch.apps
    if apps is None or not len(apps):
        return found
    for name in apps.names():
        if name not in APPS:
            continue
        size = APPS[name][1]
        values, offsets, present = apps.column(name, batch.rows, binary=True)
        raw = bytes(values) if offsets is not None else b""
        for row, there in enumerate(present):
            if not there:
                continue
            if offsets is None:
                value = min(values[row], (1 << 8 * size) - 1).to_bytes(size)
            else:
                value = raw[offsets[row] : offsets[row + 1]]
                if size == VARIABLE:
                    value = cut(value)
                    value = bytes([len(value)]) + value
            found[row].append((name, value))
    return found


def cut(text: bytes) -> bytes:
    """Whole characters of it."""
    return text if len(text) < TEXT_MAX else text[: TEXT_MAX - 1].decode(errors="ignore").encode()


def _rows(batch: FlowBatch) -> Iterator[tuple[Any, ...]]:
    """Values in the order of the templates, addresses as 16 bytes."""
    towards = [direction == TO_HOSTS for direction in batch.numbers("direction")]

    def side(name: str) -> Iterable[int]:
        pairs = zip(towards, batch.numbers(f"in_{name}"), batch.numbers(f"out_{name}"), strict=True)
        return [a if inwards else b for inwards, a, b in pairs]

    ends = [END_REASONS[name] for name in REASONS]
    return zip(
        batch.pieces("src", ADDRESS_BYTES),
        batch.pieces("dst", ADDRESS_BYTES),
        batch.numbers("sport"),
        batch.numbers("dport"),
        batch.numbers("proto"),
        side("tos"),
        side("tcp_flags"),
        side("pkts"),
        side("bytes"),
        [time_ns // 1_000_000 for time_ns in batch.numbers("first")],
        [time_ns // 1_000_000 for time_ns in batch.numbers("last")],
        batch.pieces("smac", MAC_BYTES),
        batch.pieces("dmac", MAC_BYTES),
        batch.numbers("vlan"),
        [ends[reason] for reason in batch.numbers("reason")],
        batch.numbers("sample_rate"),
        strict=True,
    )

"""Flow records as IPFIX (RFC 7011) over UDP, to any collector. Information elements: IANA's registry.

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


class _Template(NamedTuple):
    number: int
    elements: tuple[tuple[int, int], ...]
    record: struct.Struct
    address_bytes: int


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

    def write(self, batch: FlowBatch) -> None:
        versions = batch.numbers("l3")
        rows = list(_rows(batch))
        for version, template in TEMPLATES.items():
            size = template.address_bytes
            packed = [
                template.record.pack(row[0][:size], row[1][:size], *row[2:])
                for row, found in zip(rows, versions, strict=True)
                if found == version
            ]
            per_message = (MESSAGE_MAX - HEADER.size - SET.size) // template.record.size
            for at in range(0, len(packed), per_message):
                self._data(template, packed[at : at + per_message])

    def close(self, limit_s: float | None) -> None:
        self._socket.close()

    def _data(self, template: _Template, records: list[bytes]) -> None:
        now = time.monotonic()
        if self._messages % TEMPLATES_EVERY_MESSAGES == 0 or now - self._told >= TEMPLATES_EVERY_S:
            self._told = now
            self._send(TEMPLATE_SET, b"".join(map(_described, TEMPLATES.values())))
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
    return struct.pack("!HH", template.number, len(template.elements)) + pairs


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

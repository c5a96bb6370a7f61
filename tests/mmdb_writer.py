"""A small writer of MaxMind databases (file format 2.0), so that the tests need no foreign data."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

MARKER = b"\xab\xcd\xefMaxMind.com"


class Uint16(int):
    """An integer to be written with the 16-bit type."""


class Uint64(int):
    """An integer to be written with the 64-bit type."""


def encode(value: Any) -> bytes:
    """One data field: control byte(s), then the value."""
    if isinstance(value, bool):
        return _control(14, int(value))
    if isinstance(value, str):
        raw = value.encode()
        return _control(2, len(raw)) + raw
    if isinstance(value, float):
        return _control(3, 8) + struct.pack(">d", value)
    if isinstance(value, int):
        raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
        kind = 5 if isinstance(value, Uint16) else 9 if isinstance(value, Uint64) else 6
        return _control(kind, len(raw)) + raw
    if isinstance(value, dict):
        return _control(7, len(value)) + b"".join(encode(k) + encode(v) for k, v in value.items())
    if isinstance(value, list):
        return _control(11, len(value)) + b"".join(map(encode, value))
    raise TypeError(type(value))


def _control(kind: int, size: int) -> bytes:
    extra = b""
    if size >= 285:
        size, extra = 30, (size - 285).to_bytes(2, "big")
    elif size >= 29:
        size, extra = 29, bytes([size - 29])
    if kind > 7:
        return bytes([size, kind - 7]) + extra
    return bytes([kind << 5 | size]) + extra


def build(
    networks: dict[str, Any], *, record_size: int = 24, ip_version: int = 6, kind: str = "Test-City"
) -> bytes:
    """Bytes of a database that knows `networks`; in an IPv6 tree ::ffff:0:0/96 leads to the IPv4 part too."""
    root: list[Any] = [None, None]
    data = b""
    offsets: dict[bytes, int] = {}
    for text, record in sorted(networks.items(), key=lambda item: ipaddress.ip_network(item[0]).prefixlen):
        network = ipaddress.ip_network(text)
        bits = format(int(network.network_address), f"0{network.max_prefixlen}b")[: network.prefixlen]
        if ip_version == 6 and network.version == 4:
            bits = "0" * 96 + bits
        raw = encode(record)
        if raw not in offsets:
            offsets[raw] = len(data)
            data += raw
        _insert(root, bits, offsets[raw])
    if ip_version == 6:
        mapped = root
        for bit in "0" * 80 + "1" * 15:
            if not isinstance(mapped[int(bit)], list):
                mapped[int(bit)] = [mapped[int(bit)]] * 2
            mapped = mapped[int(bit)]
        v4: Any = root
        for _ in range(96):
            v4 = v4[0] if isinstance(v4, list) else v4
        mapped[1] = v4

    nodes: list[list[Any]] = []
    number: dict[int, int] = {}
    queue = [root]
    while queue:
        node = queue.pop(0)
        if id(node) not in number:
            number[id(node)] = len(nodes)
            nodes.append(node)
            queue += [child for child in node if isinstance(child, list)]

    def value(child: Any) -> int:
        if child is None:
            return len(nodes)
        return number[id(child)] if isinstance(child, list) else len(nodes) + 16 + child

    tree = b"".join(_node(value(left), value(right), record_size) for left, right in nodes)
    about = {
        "binary_format_major_version": Uint16(2),
        "binary_format_minor_version": Uint16(0),
        "build_epoch": Uint64(1700000000),
        "database_type": kind,
        "description": {"en": "netprobe test"},
        "ip_version": Uint16(ip_version),
        "languages": ["en"],
        "node_count": len(nodes),
        "record_size": Uint16(record_size),
    }
    return tree + bytes(16) + data + MARKER + encode(about)


def _insert(node: list[Any], bits: str, leaf: int) -> None:
    for bit in bits[:-1]:
        if not isinstance(node[int(bit)], list):
            node[int(bit)] = [node[int(bit)]] * 2  # a shorter prefix's record is inherited
        node = node[int(bit)]
    node[int(bits[-1])] = leaf


def _node(left: int, right: int, size: int) -> bytes:
    if size == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3, "big") + bytes([middle]) + (right & 0xFFFFFF).to_bytes(3, "big")
    return left.to_bytes(size // 8, "big") + right.to_bytes(size // 8, "big")

"""Inputs to begin with: real messages and captures, per target."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import generate
import targets

CAPTURES = Path(__file__).resolve().parents[1] / "captures"


def payloads(frames: list[bytes]) -> list[bytes]:
    """What UDP carries in Ethernet frames without options or extension headers."""
    out = []
    for frame in frames:
        l3 = 14
        if frame[12:14] == b"\x08\0" and frame[l3 + 9] == 17:
            out.append(frame[l3 + 28 :])
        elif frame[12:14] == b"\x86\xdd" and frame[l3 + 6] == 17:
            out.append(frame[l3 + 48 :])
    return out


def file_seeds() -> list[bytes]:
    files = [*generate.formats().values(), *generate.link_files().values(), *generate.odd().values()]
    files += [d.data for d in generate.damaged().values()] + [generate.mixed_linktypes()]
    return [f for f in files if len(f) < 20_000]


def decode_seeds() -> list[bytes]:
    frames = [f for make in generate.FRAMES.values() for f in make()] + generate.bad_ip()
    out = [b"\0" + f for f in frames if len(f) < 700]
    for name, data in generate.link_files().items():
        at = generate.positions(data) if not name.startswith("null-be") else []
        linktype = struct.unpack_from("<I", data, 20)[0]
        if linktype in targets.LINKTYPES:
            number = targets.LINKTYPES.index(linktype)
            out += [
                bytes([number]) + data[p + 16 : p + 16 + struct.unpack_from("<I", data, p + 8)[0]] for p in at
            ]
    # many frames differ only in numbers that nothing looks at
    return sorted(set(out), key=lambda d: (len(d), d))[::3]


def traffic_seeds() -> list[bytes]:
    rng = random.Random(1)
    udp = payloads([*generate.dns_udp(), *generate.dns_edns()])
    boot = payloads(generate.dhcp())
    out = []

    def op(kind: int, body: bytes, back: int = 0, flags: int = 0x18, step: int = 1) -> bytes:
        code = next(c for c in range(16) if c % 6 == kind) | back << 4
        # the choice of kind is op % 6: find a code with the wanted bits
        for c in range(256):
            if c % 6 == kind and c >> 4 & 1 == back and c >> 5 == 0:
                code = c
                break
        return bytes([code, min(len(body), 255), step, flags]) + body[:255]

    for _ in range(20):
        out.append(b"".join(op(2, rng.choice(udp), rng.randrange(2)) for _ in range(6)))
    out.append(b"".join(op(3, b, i % 2) for i, b in enumerate(boot)))
    out.append(b"".join(op(4, b, i % 2) for i, b in enumerate(boot)))
    framed = [struct.pack(">H", len(u)) + u for u in udp[:12]]
    out.append(
        op(0, b"", flags=2) + b"".join(op(0, f, i % 2) for i, f in enumerate(framed)) + op(0, b"", flags=1)
    )
    out.append(
        op(0, b"", flags=2) + b"".join(op(0, b"".join(framed[:3])[i : i + 20]) for i in range(0, 100, 20))
    )
    bgp = [
        b"\xff" * 16 + struct.pack(">HB", 19 + n, kind) + bytes(n)
        for kind, n in ((1, 10), (4, 0), (2, 30), (3, 2), (5, 4))
    ]
    out.append(op(1, b"", flags=2) + b"".join(op(1, m, i % 2) for i, m in enumerate(bgp)))
    return out


def fragment_seeds() -> list[bytes]:
    message = (
        struct.pack(">HHHH", 4000, 53, 8 + 200, 0) + (payloads(generate.dns_udp())[1] + bytes(200))[:200]
    )
    whole = b""
    for i in range(0, len(message), 64):
        piece = message[i : i + 64]
        whole += bytes([1, i // 8, len(piece), 1, i + 64 < len(message), 1]) + piece
    back = b""
    for i in reversed(range(0, len(message), 64)):
        piece = message[i : i + 64]
        back += bytes([3, i // 8, len(piece), 2, i + 64 < len(message), 1]) + piece
    return [whole, back, whole + back, whole[:70] + whole]


def stream_seeds() -> list[bytes]:
    rng = random.Random(2)
    out = []
    for _ in range(20):
        at = 0
        script = bytes([rng.randrange(16)]) + bytes([0, 2, 0, 0, 0, 0, 9])
        for _ in range(rng.randrange(3, 30)):
            size = rng.randrange(64)
            where = at + rng.choice((0, 0, 0, 0, 5, 64, -10))
            flags = rng.choice((0x18, 0x10, 0x10, 0x11, 4))
            script += bytes([rng.choice((0, 0, 1, 4, 2)), flags, 0, where >> 8 & 255, where & 255, size, 9])
            script += rng.randbytes(size)
            at += size
        out.append(script)
    return out


def all_seeds() -> dict[str, list[bytes]]:
    files = file_seeds()
    recorded = [p.read_bytes() for p in sorted(CAPTURES.glob("*.pcap")) if p.stat().st_size < 20_000]
    frames = [generate.frames_file(n) for n in generate.FRAMES]
    dns = payloads([*generate.dns_udp(), *generate.dns_edns()])
    return {
        "capture": files,
        "decode": decode_seeds(),
        "dns": dns[::4] + payloads(generate.dns_edns()),
        "dhcp": payloads(generate.dhcp()),
        "stream": stream_seeds(),
        "fragment": fragment_seeds(),
        "traffic": traffic_seeds(),
        "whole": [b"\x08" + d for d in [*recorded, *(f for f in frames if len(f) < 20_000), *files[::4]]],
    }

"""Inputs to begin with: real messages and captures, per target."""

from __future__ import annotations

import functools
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


HELLO = bytes.fromhex(
    "160301004b010000470303" + "72" * 32 + "00" + "00021301" + "0100"
    "001c00000012001000000d6e616d652e6578616d706c65000a000400020017"
)
SERVER_HELLO = bytes.fromhex("160303002a020000260303" + "72" * 32 + "00" + "c02f00")
RADIUS = bytes.fromhex(
    "0109003a" + "61" * 16 + "0105626f6206060000000208060a010203090600000000" + "2806000000012c045331"
)


def app_stream_seeds() -> list[bytes]:
    def turn(op: int, payload: bytes, extra: int = 0) -> bytes:
        return bytes([op, len(payload), extra]) + payload

    get = b"GET /x?y HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\n c\r\nReferer: d\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nabcde\r\n0\r\nT: y\r\n\r\n"
    head = b"HEAD / HTTP/1.0\nContent-Length: 3\n\nabc"
    full = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
    ends = b"HTTP/1.1 200 OK\r\n\r\nto the end"
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"
    switch = b"HTTP/1.1 101 Switching\r\n\r\nbytes"
    pg_start = b"\0\0\0\x15\0\3\0\0user\0np\0database\0db\0\0"
    pg_start = (4 + len(pg_start[4:])).to_bytes(4, "big") + pg_start[4:]
    pg_query = b"Q\0\0\0\rselect 1\0"
    pg_done = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\5I"
    pg_rows = b"C\0\0\0\rSELECT 1\0Z\0\0\0\5I"
    # op % 3 chooses the port, op & 8 the side
    http = [turn(6, b"", 0), turn(15, b"", 0)]
    out = []
    for requests, responses in (
        ([get], [full]), ([get + post, head], [full + full[:-4], full]), ([get, get], [interim + full]),
        ([get], [ends]), ([get], [switch]), ([post[:30], post[30:]], [full[:20], full[20:]]),
        ([b"CONNECT a:1 HTTP/1.1\r\n\r\n"], [b"HTTP/1.1 200 OK\r\n\r\nx"]),
    ):  # fmt: skip
        out.append(
            b"".join(
                [
                    *http,
                    *(turn(6, r) for r in requests),
                    *(turn(15, r) for r in responses),
                    turn(15, b"", 0xF1),
                ]
            )
        )
    tls = [turn(1, b""), turn(10, b"")]
    out.append(b"".join([*tls, turn(1, HELLO), turn(10, SERVER_HELLO)]))
    out.append(
        b"".join(
            [*tls, turn(1, HELLO[:40]), turn(1, HELLO[40:]), turn(10, SERVER_HELLO[:9] + SERVER_HELLO[9:])]
        )
    )
    pg = [turn(2, b""), turn(8, b"")]
    out.append(b"".join([*pg, turn(2, pg_start), turn(8, pg_done), turn(2, pg_query), turn(8, pg_rows)]))
    return out


def app_datagram_seeds() -> list[bytes]:
    def datagram(op: int, payload: bytes) -> bytes:
        return bytes([op, len(payload) & 255, len(payload) >> 8 & 3, 9]) + payload[:1023]

    dns = payloads([*generate.dns_udp(), *generate.dns_edns()])[::6]
    boot = [p for p in payloads(generate.dhcp()) if len(p) > 240][:4]
    out = [
        b"".join(datagram(0 if i % 2 else 9, p) for i, p in enumerate(dns[at : at + 4]))
        for at in range(0, 40, 4)
    ]
    out.append(b"".join(datagram(1 if i % 2 else 10, p) for i, p in enumerate(boot)))
    out.append(datagram(2, RADIUS) + datagram(11, b"\2" + RADIUS[1:]))
    return [o for o in out if o]


def flow_seeds() -> list[bytes]:
    """Instructions of targets.flows: options, then op, size, more, step, flags and a payload each."""

    def op(
        port: int, body: bytes = b"", *, back: int = 0, more: int = 0, step: int = 1, flags: int = 0x18
    ) -> bytes:
        number = (80, 443, 5432, 53, 67, 1812, 22, 9).index(port)
        size, high = len(body) & 255, min(len(body) >> 8, 3)
        return bytes([number | back << 3, size, more | high, step, flags]) + body[: size + 256 * high]

    dns = payloads([*generate.dns_udp(), *generate.dns_edns()])
    boot = payloads(generate.dhcp())
    request = b"GET /a HTTP/1.1\r\nHost: h\r\nUser-Agent: u\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    out = []
    for options in (0, 1, 16, 33, 64, 129):
        for more in (0, 32, 8):
            talk = [bytes([options])]
            for port, asked, told in ((80, request, response), (443, HELLO[9:], SERVER_HELLO[9:])):
                talk += [op(port, flags=2, more=more), op(port, flags=0x12, back=1, more=more)]
                talk += [op(port, asked * 2, more=more), op(port, told, back=1, more=more)]
                talk += [op(port, told, back=1, more=more, step=100), op(port, flags=0x11, more=more)]
                talk += [op(port, flags=0x11, back=1, more=more), op(port, flags=4, more=more)]
            out.append(b"".join(talk))
        many = [op(53, body, back=i % 2, more=(0, 16, 32, 48)[i % 4]) for i, body in enumerate(dns[:12])]
        many += [op(67, body, back=i % 2) for i, body in enumerate(boot[:4])]
        many += [op(1812, RADIUS, back=i, step=200) for i in range(2)] + [op(9, b"\x08\0ping", flags=1)]
        out.append(bytes([options]) + b"".join(many))
    return out


@functools.cache
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
        "app_wire": [
            HELLO[9:], SERVER_HELLO[9:], HELLO, RADIUS, b"GET / HTTP/1.1", b"HTTP/1.1 200 OK", b"Host: x",
            b"1f;a=b", b"gzip, chunked", *dns[::8], *payloads(generate.dhcp())[:4],
        ],
        "app_datagram": app_datagram_seeds(),
        "app_stream": app_stream_seeds(),
        "flows": flow_seeds(),
        "modes": [bytes([n & 7]) + d for n, d in enumerate([*recorded, *frames, *files[::8]])],
        "flow_file": [bytes([n & 255]) + d for n, d in enumerate([*recorded, *frames, *files[::8]])],
    }  # fmt: skip

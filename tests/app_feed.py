"""Captures and hand-made conversations, fed to the application decoders, for the tests of those."""

from __future__ import annotations

import ipaddress
import os
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netprobe._core.app_datagram import Datagrams
from netprobe._core.app_stream import Streams

CAPTURES = Path(__file__).resolve().parent / "captures"
SHARED = Path(os.environ.get("NETPROBE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DNS, HTTP, TLS, DHCP, RADIUS, POSTGRES = 1, 2, 3, 4, 9, 15
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MS = 1_000_000


@dataclass
class Datum:
    """A TCP segment or a UDP datagram out of a capture of Ethernet frames."""

    number: int
    ts: int
    proto: int
    src: bytes
    sport: int
    dst: bytes
    dport: int
    payload: bytes
    seq: int = 0
    ack: int = 0
    flags: int = 0


def frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """(stamp in ns, frame) of a classic little-endian capture file."""
    data = path.read_bytes()
    magic, linktype = struct.unpack_from("<I", data)[0], struct.unpack_from("<I", data, 20)[0]
    assert magic in (0xA1B2C3D4, 0xA1B23C4D), f"{path}: {magic:#x}"
    assert linktype == 1
    at, unit = 24, 1000 if magic == 0xA1B2C3D4 else 1
    while at < len(data):
        sec, frac, caplen, _ = struct.unpack_from("<4I", data, at)
        yield sec * 10**9 + frac * unit, data[at + 16 : at + 16 + caplen]
        at += 16 + caplen


def packets(path: Path) -> Iterator[Datum]:
    for number, (ts, frame) in enumerate(frames(path), 1):
        if frame[12:14] == b"\x08\0":
            ip = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
            proto, src, dst, l4 = ip[9], ip[12:16], ip[16:20], ip[(ip[0] & 15) * 4 :]
        elif frame[12:14] == b"\x86\xdd":
            ip = frame[14 : 54 + int.from_bytes(frame[18:20], "big")]
            proto, src, dst, l4 = ip[6], ip[8:24], ip[24:40], ip[40:]
        else:
            continue
        if proto == 17:
            sport, dport = struct.unpack_from(">2H", l4)
            yield Datum(number, ts, proto, src, sport, dst, dport, l4[8:])
        elif proto == 6:
            sport, dport, seq, ack, offset, flags = struct.unpack_from(">2H2I2B", l4)
            yield Datum(number, ts, proto, src, sport, dst, dport, l4[(offset >> 4) * 4 :], seq, ack, flags)


def feed_capture(
    streams: Streams, path: Path, skip: Iterable[int] = (), later: int = 0
) -> list[dict[str, Any]]:
    """The TCP segments of a capture, but for some; the records they cause, with the frame's number."""
    out = []
    for p in packets(path):
        if p.proto != 6 or p.number in skip:
            continue
        before = len(streams.records)
        streams.feed(p.src, p.sport, p.dst, p.dport, p.seq, p.flags, p.payload, p.ts + later, p.ack)
        out += [{**r, "frame": p.number} for r in streams.records[before:]]
    return out


def feed_datagrams(app: int, path: Path, ports: Iterable[int]) -> list[Any]:
    """What the decoder says to each datagram from or to these ports."""
    d, wanted = Datagrams(), set(ports)
    return [
        d.feed(app, p.src, p.sport, p.dst, p.dport, p.payload, p.ts)
        for p in packets(path)
        if p.proto == 17 and wanted & {p.sport, p.dport}
    ]


class Connection:
    """A TCP connection made by hand: what each side sends, cut anywhere."""

    def __init__(self, streams: Streams, client: int = 40000, server: int = 80, start: int = 10**18) -> None:
        self.streams = streams
        self.ports = (client, server)
        self.now = start
        self.seq = [1000, 5_000_000]

    def send(self, side: int, payload: bytes = b"", flags: int = PSH | ACK, after: int = 0) -> None:
        """A segment from the client (0) or the server (1), `after` ns later than the last one."""
        self.now += after
        ends = (b"\x0a\0\0\1", b"\x0a\0\0\2")
        self.streams.feed(
            ends[side], self.ports[side], ends[1 - side], self.ports[1 - side], self.seq[side] & 0xFFFFFFFF,
            flags, payload, self.now, self.seq[1 - side] & 0xFFFFFFFF if flags & ACK else 0,
        )  # fmt: skip
        self.seq[side] += len(payload) + bool(flags & (SYN | FIN))

    def open(self) -> Connection:
        self.send(0, flags=SYN)
        self.send(1, flags=SYN | ACK)
        self.send(0, flags=ACK)
        return self

    def lose(self, side: int, n: int) -> None:
        """n bytes that the capture missed and the other side acknowledges."""
        self.seq[side] += n

    def close(self) -> None:
        self.send(0, flags=FIN | ACK)
        self.send(1, flags=FIN | ACK)
        self.send(0, flags=ACK)


def tshark(path: Path, *fields: str, where: str = "", options: Iterable[str] = ()) -> list[list[str]]:
    """Rows of fields, as tshark prints them; several values of one field are separated by commas."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=a", *options]
    if where:
        command += ["-Y", where]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed

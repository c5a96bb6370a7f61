"""What is fuzzed: each target takes bytes and feeds one part of the core with them.

A target may raise what its part promises to raise (InputError for a file that cannot be read); anything else
is a finding, as is a report of the sanitizers. Targets are imported in the sanitized build by worker.py, and
in the ordinary one by test_regressions.py.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Target = Callable[[bytes], object]

LINKTYPES = [
    1, 0, 9, 12, 14, 50, 51, 101, 104, 105, 108, 113, 127, 228, 229, 258, 276,
    6, 7, 10, 100, 106, 107, 109, 117, 119, 122, 123, 129, 131, 133, 135, 163, 178, 179, 180, 181, 192, 197,
    204, 206, 219, 226, 239, 240, 242, 259, 274,
]  # fmt: skip
SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path("/tmp")
ALL_HANDLERS = [
    {"type": kind, "version": version, "metric_groups": {"enable": ["all"]} if kind in ("net", "dns") else {}}
    for kind, version in (
        ("net", "1.0"), ("net", "2.0"), ("dns", "1.0"), ("dns", "2.0"), ("dhcp", "1.0"), ("bgp", "1.0"),
        ("pcap", "1.0"),
    )
]  # fmt: skip
APP_PARSERS = {
    "http": ("begins", "request_line", "status_line", "field", "chunk_size", "content_length", "is_chunked"),
    "tls": ("record", "client_hello", "server_hello"),
    "postgres": ("startup", "message"),
    "radius": ("parse",),
    "dns_kprobe": ("parse", "utf8"),
    "dhcp_kprobe": ("parse",),
}
HOSTS = "10.0.0.0/8,2001:db8::/32,192.168.0.0/16"


def pcap(records: list[tuple[int, bytes]], linktype: int = 1, snaplen: int = 262144) -> bytes:
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, snaplen, linktype)]
    for ns, data in records:
        out.append(struct.pack("<4I", ns // 10**9 & 0xFFFFFFFF, ns % 10**9 // 1000, len(data), len(data)))
        out.append(data)
    return b"".join(out)


def stored(data: bytes) -> Path:
    """A file in memory with these bytes; one per process, overwritten each time."""
    path = SCRATCH / f"netprobe-fuzz-{os.getpid()}.pcap"
    path.write_bytes(data)
    return path


def columns(data: bytes, **options: Any) -> list[dict[str, Any]]:
    import netprobe

    try:
        return [dict(chunk) for chunk in netprobe.packets(stored(data), chunk_rows=256, **options)]
    except netprobe.InputError:
        return []


def summary(data: bytes, handlers: Any = None, **options: Any) -> None:
    import netprobe

    try:
        result = netprobe.summarize(stored(data), handlers=handlers or ALL_HANDLERS, hosts=HOSTS, **options)
    except netprobe.InputError:
        return
    result.to_json()
    result.to_prometheus()


def capture(data: bytes) -> None:
    """The file readers: the input is the file."""
    columns(data)


def whole(data: bytes) -> None:
    """A capture file through every handler; the first byte chooses settings."""
    if data:
        summary(
            data[1:],
            inner=bool(data[0] & 1),
            periods=1 + (data[0] >> 1) % 10,
            deep_sample_rate=50 + data[0] // 6,
        )


def decode(data: bytes) -> None:
    """One frame of the link type that the first byte chooses.

    It is read twice, with different bytes behind it: if anything about it differs, something read past its
    end, which a sanitizer cannot see inside a block of packets.
    """
    if not data:
        return
    linktype = LINKTYPES[data[0] % len(LINKTYPES)]
    frame = data[1:]
    seen = []
    for filler in (b"\0" * 512, b"\xff" * 512):
        # the record header behind the frame differs as well: its stamp and lengths
        records = [(10**9, frame), (10**9 + filler[0] * 10**12, filler[: 128 + filler[0]])]
        chunks = columns(pcap(records, linktype), inner=bool(data[0] & 0x80))
        seen.append({name: column[0].tolist() for name, column in chunks[0].items()} if chunks else {})
    assert seen[0] == seen[1], f"depends on what follows: {seen}"


def dns(data: bytes) -> None:
    parse = importlib.import_module("netprobe._core.wire.dns").parse
    parse(data, data[0] % 4 if data else 0)
    parse(data)


def dhcp(data: bytes) -> None:
    module = importlib.import_module("netprobe._core.wire.dhcp")
    module.parse_dhcp4(data)
    module.parse_dhcp6(data)


def stream(data: bytes) -> None:
    """TCP segments into the reassembler: seven bytes of instructions each, then what they carry."""
    module = importlib.import_module("netprobe._core.stream")
    tester = module.StreamTester(limit=1 + data[0] % 16 if data else 4)
    fed = 0
    at, now = 1, 10**18
    while at + 7 <= len(data):
        op, flags, ports, high, low, size, step = data[at : at + 7]
        at += 7
        payload = data[at : at + size % 64]
        at += len(payload)
        side = op & 1
        width = 16 if op & 2 else 4
        ends = [bytes([10] * width), bytes([20 + (ports & 7)] * width)]
        port = [1000 + (ports >> 3), 53 if op & 4 else 179]
        now += (step - 8) * 10 ** (op >> 5)
        fed += len(payload)
        tester.feed(
            ends[side], port[side], ends[1 - side], port[1 - side],
            (0xFFFFFF00 + high * 256 + low - (op & 8) * 1000) & 0xFFFFFFFF, flags, payload, now,
            sent=len(payload) + 10 if op & 16 and size & 1 else None,
        )  # fmt: skip
    tester.finish(now)
    delivered = sum(len(e[2]) for e in tester.events if len(e) == 7 and e[2] is not None)
    assert delivered <= fed, f"{delivered} bytes out of {fed}"


def ip4(proto: int, src: int, dst: int, body: bytes, *, ident: int = 0, frag: int = 0) -> bytes:
    head = struct.pack(
        ">BBHHHBBHII", 0x45, 0, 20 + len(body), ident, frag, 64, proto, 0, 0x0A000000 + src, 0x14000000 + dst
    )
    return head + body


def ip6(proto: int, src: int, dst: int, body: bytes) -> bytes:
    pair = (
        bytes.fromhex("20010db8")
        + bytes(11)
        + bytes([src])
        + bytes.fromhex("20010db9")
        + bytes(11)
        + bytes([dst])
    )
    return struct.pack(">IHBB", 0x60000000, len(body), proto, 64) + pair + body


def fragments(data: bytes) -> list[tuple[int, bytes]]:
    """Instructions to IP fragments of few datagrams, in any order, overlapping, of both families."""
    out = []
    at, now = 0, 10**18
    while at + 6 <= len(data):
        op, offset, size, ident, more, step = data[at : at + 6]
        at += 6
        body = data[at : at + size % 80]
        at += len(body)
        now += step * 10 ** (op >> 5)
        units = offset % 32 if offset < 250 else 8191 - (255 - offset)
        proto = 17 if op & 1 else 6
        if op & 2:
            extension = struct.pack(">BBHI", proto, 0, units << 3 | more & 1, ident % 4)
            out.append((now, ip6(44, ident % 3, 9, extension + body)))
        else:
            out.append((now, ip4(proto, ident % 3, 9, body, ident=ident % 4, frag=units | (more & 1) << 13)))
    return out


def fragment(data: bytes) -> None:
    """Fragments through decode, reassembly and the handlers that get the datagram."""
    summary(pcap(fragments(data), 101), ["net", "dns", "dhcp"], periods=1)


def traffic(data: bytes) -> None:
    """Datagrams and segments for every application: DNS over UDP and TCP, DHCP, BGP, in few conversations."""
    records = []
    at, now = 0, 10**18
    seq = [0] * 16
    while at + 4 <= len(data):
        op, size, step, flags = data[at : at + 4]
        at += 4
        body = data[at : at + size]
        at += len(body)
        now += step * 10 ** (3 + (op >> 5))
        kind, back = op % 6, op >> 4 & 1
        client = op >> 3 & 1
        if kind < 2:
            conversation = (kind << 2 | client << 1 | back) & 15
            ports = (53, 179)[kind]
            sport, dport = (ports, 4000 + client) if back else (4000 + client, ports)
            if flags & 0xC0 == 0xC0:
                seq[conversation] += size
            # sequence numbers go on unless told otherwise
            segment = struct.pack(
                ">HHIIBBHHH", sport, dport, seq[conversation] & 0xFFFFFFFF, 0, 0x50, flags & 0x3F, 9, 0, 0
            )
            seq[conversation] += len(body) + bool(flags & 3)
            packet = segment + body
            proto = 6
        else:
            sport, dport = [(40000, 53), (68, 67), (546, 547), (5353, 5353)][kind - 2]
            if back:
                sport, dport = dport, sport
            packet = struct.pack(">HHHH", sport, dport, 8 + len(body), 0) + body
            proto = 17
        ends = (9, client) if back else (client, 9)
        if kind == 4 or client:
            records.append((now, b"\2" * 12 + b"\x86\xdd" + ip6(proto, *ends, packet)))
        else:
            records.append((now, b"\2" * 12 + b"\x08\0" + ip4(proto, *ends, packet)))
    summary(pcap(records), periods=2)


def app_wire(data: bytes) -> None:
    """The parsers of kprobe's decoders, each on all of the input."""
    for name, parsers in APP_PARSERS.items():
        module = importlib.import_module(f"netprobe._core.wire.{name}")
        for parse in parsers:
            getattr(module, parse)(data)


def app_datagram(data: bytes) -> None:
    """Datagrams of few conversations for the DNS, DHCP and RADIUS decoders."""
    decoders = importlib.import_module("netprobe._core.app_datagram").Datagrams(lg_open=6)
    at, now = 0, 10**18
    while at + 4 <= len(data):
        op, size, more, step = data[at : at + 4]
        at += 4
        payload = data[at : at + size + 256 * (more & 3)]
        at += len(payload)
        now += (step - 8) * 10 ** (op >> 5)
        app, port = ((1, 53), (4, 67), (9, 1812))[op % 3]
        ends = [
            (bytes([10] * (16 if op & 4 else 4)), 4000 + (more >> 6)),
            (bytes([20] * (16 if op & 4 else 4)), port),
        ]
        if op & 8:
            ends.reverse()
        got = decoders.feed(app, *ends[0], *ends[1], payload, now)
        if got:
            texts = [v for k, v in got.items() if isinstance(v, bytes)]
            assert all(len(t) <= 384 and b"\0" not in t for t in texts if len(t) not in (4, 16)), got
        decoders.expire(now)


def app_stream(data: bytes) -> None:
    """Conversations for the decoders of streams, as they came and in single bytes: the same records."""
    Streams = importlib.import_module("netprobe._core.app_stream").Streams
    ports = (80, 443, 5432)
    seen = []
    for single in (False, True):
        streams = Streams(limit=4, postgres=[5432])
        at, now = 0, 10**18
        seq: dict[tuple[int, int, int], int] = {}
        gaps = False
        while at + 3 <= len(data):
            op, size, extra = data[at : at + 3]
            at += 3
            payload = data[at : at + size]
            at += len(payload)
            which, side, client = ports[op % 3], op >> 3 & 1, 4000 + (op >> 4 & 1)
            ends = [(b"\x0a\0\0\1", client), (b"\x0a\0\0\2", which)]
            if side:
                ends.reverse()
            flags = 0x10 | (extra & 7 if extra > 0xF0 else 0)
            key = (which, client, side)
            if key not in seq:
                flags = 0x12 if side else 2
                seq[key] = 1000
            if extra & 0x88 == 0x88:
                gaps = True
                seq[key] += extra >> 4 & 7
            pieces = (
                [payload[i : i + 1] for i in range(len(payload))] if single and not flags & 7 else [payload]
            )
            for piece in pieces or [b""]:
                now += 1
                streams.feed(*ends[0], *ends[1], seq[key] & 0xFFFFFFFF, flags, piece, now)
                seq[key] += len(piece)
            seq[key] += bool(flags & 2) + bool(flags & 1)
        streams.finish(now)
        assert streams.counters()["buffered"] == 0
        keep = ("ts", "ms", "ns")
        seen.append([{k: v for k, v in r.items() if k not in keep} for r in streams.records])
    # behind a gap only so many segments wait, and single bytes are more of them
    assert gaps or seen[0] == seen[1], f"depends on the cutting: {seen}"


def lines(got: int, raw: dict[str, bytearray], rows: Any) -> None:
    """The records as JSON lines: whatever the texts hold, somebody else's parser must read them."""
    text = importlib.import_module("netprobe.export.jsonl").json_rows().render(got, raw, rows)
    found = [json.loads(line) for line in text.split(b"\n")[:-1]]
    assert len(found) == got
    for name in rows.names():
        _, _, present = rows.column(name, got)
        assert [name in one for one in found] == [bool(there) for there in present], name


def modes(data: bytes) -> None:
    """Any capture through kprobe's dns and radius modes, also as if a Juniper router had mirrored it."""
    core = importlib.import_module("netprobe._core.mode_reader")
    capfile = importlib.import_module("netprobe._core.capfile")
    sources = importlib.import_module("netprobe.inputs.sources")
    errors = importlib.import_module("netprobe.errors")
    options = data[0] if data else 0
    mode = "radius" if options & 1 else "dns"
    ports = {0: None, 1: [53, 1812, 1813]}[options >> 1 & 1]
    try:
        source = sources.open_source(stored(data[1:]))
    except errors.InputError:
        return
    with source:
        packets = capfile.CaptureReader(source)
        try:
            packets.open()
        except ValueError:
            return
        reader = core.ModeReader(packets, mode, ports=ports, mirrored=bool(options & 4))
        found = 0
        while not reader.at_end:
            packed = reader.read()
            rows = (core.radius_rows if mode == "radius" else core.dns_rows)(packed)
            assert len(rows) == reader.rows_read
            found += len(rows)
            for row in rows:
                if mode == "dns":
                    assert row[3] and len(row[2]) in (4, 16) and all(len(a) in (4, 16) for a, _ in row[3]), (
                        row
                    )
                else:
                    assert row[1] and (row[2] is None or len(row[2]) == 4), row
        assert reader.stats()["found"] == found


def flow_records(path: Path, options: int) -> None:
    """A capture through the flow table with all decoders; nothing may get lost without being counted."""
    capfile = importlib.import_module("netprobe._core.capfile")
    apps = importlib.import_module("netprobe._core.app_flow")
    core = importlib.import_module("netprobe._core.flow_reader")
    sources = importlib.import_module("netprobe.inputs.sources")
    errors = importlib.import_module("netprobe.errors")
    try:
        source = sources.open_source(path)
    except errors.InputError:
        return
    with source:
        reader = capfile.CaptureReader(source)
        try:
            reader.open()
        except ValueError:
            return
        schedule = bool(options & 1)
        native = core.FlowReader(
            reader, capacity=64 << (options >> 1 & 7), bidirectional=not schedule, schedule=schedule,
            raw_extensions=schedule, decode=True, postgres_ports=[5432], seed=1,
            sample=2 if options & 64 else 1, idle_ns=10**9, active_ns=3 * 10**9 if options & 16 else 0,
            translate=[(b"\x0a\0\0\1", None, b"\x0b\0\0\1", None)] if options & 32 else (),
            mac=b"\2" * 6 if options & 128 else None,
        )  # fmt: skip
        packets = records = 0
        while not native.at_end:
            raw = {name: bytearray(64 * size) for name, (_, size, _) in core.COLUMNS.items()}
            rows = apps.AppRows()
            got = native.fill(raw, 64, rows)
            records += got
            for side in ("in_pkts", "out_pkts"):
                packets += sum(memoryview(raw[side]).cast("Q")[:got])
            for name in rows.names():
                values, offsets, present = rows.column(name, got)
                assert any(present), name
                if offsets is not None:
                    ends = offsets.tolist()
                    assert ends == sorted(ends) and ends[0] == 0 and ends[-1] == len(values), name
                    for a, b in itertools.pairwise(ends):
                        assert b - a <= 384, name
                        bytes(values[a:b]).decode()
                rows.column(name, got, True)
            lines(got, raw, rows)
        stats = native.stats()
    kept = ("filtered_out", "not_ip", "unreadable", "fragments_lost", "packets", "ignored")
    assert stats["framed"] == sum(stats[name] for name in kept), stats
    assert (stats["packets"], stats["records"]) == (packets, records), stats
    assert (stats["open"], stats["open_packets"], stats["trackers"]) == (0, 0, 0), stats


def flows(data: bytes) -> None:
    """Conversations of every protocol that has a decoder, tagged and in fragments, through the flow table."""
    records = []
    seq: dict[int, int] = {}
    now = 10**18
    options, data = (data[0], data[1:]) if data else (0, b"")
    at = 0
    while at + 5 <= len(data):
        op, size, more, step, flags = data[at : at + 5]
        at += 5
        body = data[at : at + size + 256 * (more & 3)]
        at += len(body)
        now += (step & 127) * 10 ** (3 + (op >> 5)) * (-1 if step > 250 else 1)
        port = (80, 443, 5432, 53, 67, 1812, 22, 9)[op & 7]
        back, client, six = op >> 3 & 1, 4000 + (more >> 6), more >> 5 & 1
        sport, dport = (port, client) if back else (client, port)
        ends = (9, client & 3) if back else (client & 3, 9)
        if port in (80, 443, 5432, 22):
            key = port << 8 | (client & 3) << 2 | six << 1 | back
            number = seq.setdefault(key, 1000) + (flags >> 6 == 3) * 7
            other = seq.get(key ^ 1, 1000)
            window = 0 if flags == 0x7F else 512
            offset = 0x50 if flags != 0x55 else 0xF0
            packet = struct.pack(
                ">HHIIBBHHH", sport, dport, number & 0xFFFFFFFF, other & 0xFFFFFFFF, offset, flags & 0x3F,
                window, 0, 0,
            )  # fmt: skip
            seq[key] = number + len(body) + bool(flags & 3)
            packet, proto = packet + body, 6
        elif port == 9:
            packet, proto = body, 1 if flags & 1 else 58
        else:
            packet, proto = struct.pack(">HHHH", sport, dport, 8 + len(body), 0) + body, 17
        pieces = [packet]
        if more & 16 and len(packet) > 16:
            pieces = [packet[:16], packet[16:]]
        for i, piece in enumerate(pieces):
            more_follow = i + 1 < len(pieces)
            if six:
                head = struct.pack(">BBHI", proto, 0, (16 * i) | more_follow, 7) if len(pieces) > 1 else b""
                ip = ip6(44 if head else proto, *ends, head + piece)
            else:
                ip = ip4(proto, *ends, piece, ident=7, frag=(2 * i) | more_follow << 13)
            tag = b"\x81\0\0\x07" if more & 8 else b""
            kind = b"\x86\xdd" if six else b"\x08\0"
            records.append((now, b"\2" * 12 + tag + kind + ip))
    flow_records(stored(pcap(records)), options)


def flow_file(data: bytes) -> None:
    """Any capture through the flow table."""
    flow_records(stored(data[1:]), data[0] if data else 0)


TARGETS: dict[str, Target] = {
    "capture": capture,
    "decode": decode,
    "dns": dns,
    "dhcp": dhcp,
    "stream": stream,
    "fragment": fragment,
    "traffic": traffic,
    "whole": whole,
    "app_wire": app_wire,
    "app_datagram": app_datagram,
    "app_stream": app_stream,
    "flows": flows,
    "flow_file": flow_file,
    "modes": modes,
}


def usable(name: str) -> bool:
    """Is the part that this target drives built?"""
    needs = {
        "capture": "netprobe._core.columns",
        "decode": "netprobe._core.columns",
        "dns": "netprobe._core.wire.dns",
        "dhcp": "netprobe._core.wire.dhcp",
        "stream": "netprobe._core.stream",
        "app_wire": "netprobe._core.wire.http",
        "app_datagram": "netprobe._core.app_datagram",
        "app_stream": "netprobe._core.app_stream",
        "flows": "netprobe._core.flow_reader",
        "flow_file": "netprobe._core.flow_reader",
        "modes": "netprobe._core.mode_reader",
    }
    try:
        importlib.import_module(needs.get(name, "netprobe._core.engine"))
    except ImportError:
        return False
    return True

"""netprobe.flows: records of whole captures against tshark, chunks, Arrow, settings, accounting."""

import ctypes
import importlib.util
import os
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest
from netns import until
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

import netprobe
from netprobe._core.flow_reader import COLUMNS
from netprobe.flow_columns import REASONS, SCHEMA, FlowChunk, flows

CAPTURES = Path(__file__).parent / "captures"


def rows(path: Path, **options: Any) -> list[dict[str, Any]]:
    """All records, each as a dict of plain numbers and text addresses."""
    out = []
    for chunk in flows(path, **options):
        text = {name: chunk.addresses(name) for name in ("src", "dst")}
        for i in range(chunk.rows):
            row = {name: column[i].item() for name, column in chunk.items() if column.ndim == 1}
            out.append({**row, "src": text["src"][i], "dst": text["dst"][i]})
    return out


def write(path: Path, packets: list[Packet], step: float = 0.001) -> Path:
    for i, p in enumerate(packets):
        p.time = 1_700_000_000 + i * step
    wrpcap(str(path), packets)
    return path


def test_schema_is_what_the_core_fills() -> None:
    assert [column.name for column in SCHEMA] == sorted(COLUMNS, key=[c.name for c in SCHEMA].index)
    assert {column.name: column.dtype for column in SCHEMA} == {n: c[0] for n, c in COLUMNS.items()}
    width = {"C": 1, "S": 2, "I": 4, "L": 8, "l": 8, "tsn:UTC": 8, "w:16": 16, "w:6": 6}
    assert {column.name: width[column.arrow] for column in SCHEMA} == {n: c[1] for n, c in COLUMNS.items()}


# fragments have a test of their own: tshark has no ports for the later ones
WHOLE = "(ip[6:2] & 0x3fff = 0 or ip6[6] != 44)"
SHARK_WHOLE = "!(ip.flags.mf == 1) && !(ip.frag_offset > 0) && !ipv6.fraghdr"


def tshark_flows(path: Path) -> dict[tuple[Any, ...], list[int]]:
    """Packets and IP bytes by direction, out of what tshark says about each packet."""
    fields = "ip.src ip.dst ip.proto ip.len ipv6.src ipv6.dst ipv6.nxt ipv6.plen tcp.srcport tcp.dstport"
    fields += " udp.srcport udp.dstport"
    args = [x for f in fields.split() for x in ("-e", f)]
    command = ["tshark", "-r", path, "-o", "ip.defragment:FALSE", "-T", "fields", "-E", "separator=|"]
    command += ["-E", "occurrence=f", "-Y", f"(tcp or udp) && !icmp && !icmpv6 && {SHARK_WHOLE}", *args]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[tuple[Any, ...], list[int]] = {}
    for line in out.splitlines():
        src4, dst4, proto4, size4, src6, dst6, proto6, size6, *ports = line.split("|")
        src, dst, proto = (src4, dst4, proto4) if src4 else (src6, dst6, proto6)
        sport, dport = (int(p) for p in ports if p)
        count = found.setdefault((src, sport, dst, dport, int(proto)), [0, 0])
        count[0] += 1
        count[1] += int(size4) if src4 else 40 + int(size6)
    return found


@pytest.mark.tool("tshark")
@pytest.mark.parametrize(
    "name", ["http.pcap", "dns-udp.pcap", "dns-tcp.pcap", "bgp.pcap", "dhcp.pcap", "demo.pcap"]
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_counts_equal_tshark(name: str, bidirectional: bool) -> None:
    equal_tshark(CAPTURES / name, bidirectional)


@pytest.mark.tool("tshark", "editcap")
@pytest.mark.parametrize("name", ["http.pcap", "dns-udp.pcap"])
@pytest.mark.parametrize("snaplen", [38, 44, 60])
def test_cut_in_the_middle_of_headers(name: str, snaplen: int, tmp_path: Path) -> None:
    """38 bytes have the ports over IPv4, 44 no whole TCP header, 60 the ports over IPv6."""
    path = tmp_path / name
    subprocess.run(["editcap", "-s", str(snaplen), CAPTURES / name, path], check=True)
    equal_tshark(path, True)


def equal_tshark(path: Path, bidirectional: bool) -> None:
    want = tshark_flows(path)
    got: dict[tuple[Any, ...], list[int]] = {}

    def add(key: tuple[Any, ...], pkts: int, size: int) -> None:
        if pkts:
            count = got.setdefault(key, [0, 0])
            count[0] += pkts
            count[1] += size

    for r in rows(path, bidirectional=bidirectional, filter=f"(tcp or udp) and {WHOLE}"):
        add((r["src"], r["sport"], r["dst"], r["dport"], r["proto"]), r["out_pkts"], r["out_bytes"])
        add((r["dst"], r["dport"], r["src"], r["sport"], r["proto"]), r["in_pkts"], r["in_bytes"])
        if not bidirectional:
            assert r["in_pkts"] == 0
    assert want
    assert got == want


@pytest.mark.parametrize("name", sorted(p.name for p in CAPTURES.glob("*.pcap")))
@pytest.mark.parametrize("bidirectional", [False, True])
def test_every_packet_is_accounted_for(name: str, bidirectional: bool) -> None:
    run = flows(CAPTURES / name, bidirectional, chunk_rows=7, filter="not ether multicast")
    pkts = size = records = 0
    reasons: Counter[str] = Counter()
    for chunk in run:
        assert chunk.rows <= 7
        records += chunk.rows
        pkts += int(chunk["out_pkts"].sum() + chunk["in_pkts"].sum())
        size += int(chunk["out_bytes"].sum() + chunk["in_bytes"].sum())
        reasons.update(REASONS[r] for r in chunk["reason"])
    s = run.stats()
    assert s["framed"] == sum(
        s[k] for k in ("filtered_out", "not_ip", "unreadable", "fragments_lost", "packets", "ignored")
    )
    assert (s["packets"], s["bytes"], s["records"]) == (pkts, size, records)
    assert s["open"] == s["open_packets"] == 0
    assert {k: v for k, v in s["by_reason"].items() if v} == reasons


def test_chunk_size_changes_nothing() -> None:
    whole = rows(CAPTURES / "dns-udp.pcap", seed=1)
    assert len(whole) > 20
    assert rows(CAPTURES / "dns-udp.pcap", seed=1, chunk_rows=3) == whole


@pytest.mark.tool("tshark")
def test_icmp_echo_is_one_flow() -> None:
    """The recorded pings: each request has its reply in the same record."""
    command = ["tshark", "-r", CAPTURES / "icmp.pcap", "-Y", SHARK_WHOLE, "-T", "fields"]
    command += ["-e", "icmp.type", "-e", "icmpv6.type"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    kinds = Counter(line.strip() for line in out.splitlines())
    assert kinds["8"] and kinds["8"] == kinds["0"]
    found = rows(CAPTURES / "icmp.pcap", filter=WHOLE)
    pings = [r for r in found if r["dport"] == 8 * 256 and r["proto"] == 1]
    assert sum(r["out_pkts"] for r in pings) == kinds["8"]
    assert sum(r["in_pkts"] for r in pings) == kinds["0"]
    pings = [r for r in found if r["dport"] == 128 * 256 and r["proto"] == 58]
    assert sum(r["out_pkts"] for r in pings) == kinds["128"]
    assert sum(r["in_pkts"] for r in pings) == kinds["129"]


def test_fragments(tmp_path: Path) -> None:
    """A datagram in pieces is one flow packet per piece, with the ports of the first."""
    v4 = IP(src="10.0.0.1", dst="10.0.0.2", id=77) / UDP(sport=1000, dport=2000) / Raw(b"x" * 4000)
    pieces = v4.fragment(1480)
    v6 = fragment6(
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / IPv6ExtHdrFragment(id=5)
        / UDP(sport=3000, dport=4000)
        / Raw(b"y" * 3000),
        1280,
    )
    lost = (IP(src="10.0.0.9", dst="10.0.0.2", id=78) / UDP() / Raw(b"z" * 3000)).fragment(1480)[:2]
    packets = [Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / p for p in [*pieces, *v6, *lost]]
    path = write(tmp_path / "f.pcap", packets)
    run = flows(path)
    (chunk,) = run
    by_port = {int(p): i for i, p in enumerate(chunk["sport"])}
    assert set(by_port) == {1000, 3000}
    for port, sent in ((1000, pieces), (3000, v6)):
        i = by_port[port]
        assert chunk["out_pkts"][i] == chunk["fragments"][i] == len(sent)
        assert chunk["out_bytes"][i] == sum(len(bytes(p)) for p in sent)
        assert chunk["smac"][i].tobytes().hex(":") == "02:00:00:00:00:01"
    assert run.stats()["fragments_lost"] == 2


@pytest.mark.tool("editcap")
def test_first_pieces_that_are_cut_count(tmp_path: Path) -> None:
    whole = IP(src="10.0.0.1", dst="10.0.0.2", id=77) / UDP(sport=1000, dport=2000) / Raw(b"x" * 4000)
    pieces = [Ether() / p for p in whole.fragment(1480)]
    path = write(tmp_path / "f.pcap", pieces)
    cut = tmp_path / "cut.pcap"
    subprocess.run(["editcap", "-s", "200", path, cut], check=True)
    run = flows(cut)
    (chunk,) = run
    assert [(int(chunk[name][0])) for name in ("sport", "dport", "out_pkts", "fragments")] == [
        1000,
        2000,
        1,
        1,
    ]
    assert chunk["out_bytes"][0] == len(bytes(pieces[0])) - 14
    assert run.stats()["fragments_lost"] == len(pieces) - 1


def test_vlan_is_the_innermost(tmp_path: Path) -> None:
    ip = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=9)
    ip2 = IP(src="10.0.0.3", dst="10.0.0.2") / UDP(dport=9)
    ip3 = IP(src="10.0.0.4", dst="10.0.0.2") / UDP(dport=9)
    packets = [Ether() / Dot1AD(vlan=5) / Dot1Q(vlan=6) / Dot1Q(vlan=7) / ip, Ether() / Dot1Q(vlan=3) / ip2]
    found = rows(write(tmp_path / "v.pcap", [*packets, Ether() / ip3]))
    assert {r["src"]: r["vlan"] for r in found} == {"10.0.0.1": 7, "10.0.0.3": 3, "10.0.0.4": 0}


def test_what_is_no_flow_is_counted(tmp_path: Path) -> None:
    short = IP(src="10.0.0.1", dst="10.0.0.2", proto=6) / Raw(b"1234567")
    packets = [Ether() / ARP(), Ether() / short, Ether() / IP(src="1.2.3.4", dst="1.2.3.5") / UDP()]
    run = flows(write(tmp_path / "n.pcap", packets))
    assert sum(c.rows for c in run) == 1
    s = run.stats()
    assert (s["not_ip"], s["unreadable"], s["packets"], s["framed"]) == (1, 1, 1, 3)


def test_direction_follows_the_hosts(tmp_path: Path) -> None:
    macs = "02:00:00:00:00:01", "02:00:00:00:00:02"
    out = Ether(src=macs[0], dst=macs[1]) / IP(src="10.0.0.1", dst="192.0.2.1") / UDP(sport=1, dport=2)
    back = Ether(src=macs[1], dst=macs[0]) / IP(src="192.0.2.1", dst="10.0.0.1") / UDP(sport=2, dport=1)
    path = write(tmp_path / "d.pcap", [out, back, back])
    (r,) = rows(path, hosts="10.0.0.0/8")
    assert (r["direction"], r["out_pkts"], r["in_pkts"]) == (1, 1, 2)
    one, two = rows(path, bidirectional=False, hosts="10.0.0.0/8")
    assert (one["direction"], one["out_pkts"], one["in_pkts"]) == (1, 1, 0)
    assert (two["direction"], two["out_pkts"], two["in_pkts"]) == (0, 0, 2)
    assert one["connection_id"] == two["connection_id"] != 0


def test_times_and_timeouts(tmp_path: Path) -> None:
    p = Ether() / IP(src="10.0.0.1", dst="192.0.2.1") / UDP(sport=1, dport=2)
    path = write(tmp_path / "t.pcap", [p.copy() for _ in range(10)], step=10.0)
    start = 1_700_000_000 * 10**9
    (r,) = rows(path)
    assert (r["first"], r["last"], REASONS[r["reason"]]) == (start, start + 90 * 10**9, "end")
    found = rows(path, active=35)
    assert [(r["out_pkts"], REASONS[r["reason"]]) for r in found] == [
        (4, "active"),
        (4, "active"),
        (2, "end"),
    ]
    found = rows(path, idle=9.5, active=None)
    assert [REASONS[r["reason"]] for r in found] == ["idle"] * 9 + ["end"]


def test_a_small_table_loses_nothing(tmp_path: Path) -> None:
    packets = [
        Ether() / IP(src=f"10.0.{i // 250}.{i % 250}", dst="192.0.2.1") / ICMP() / Raw(b"x" * (i % 50))
        for i in range(500)
    ]
    run = flows(write(tmp_path / "e.pcap", packets), capacity=64, columns=["out_pkts", "out_bytes", "reason"])
    pkts, size = 0, 0
    for chunk in run:
        assert list(chunk) == ["out_pkts", "out_bytes", "reason"]
        pkts += int(chunk["out_pkts"].sum())
        size += int(chunk["out_bytes"].sum())
    assert pkts == 500 and size == sum(len(bytes(p)) - 14 for p in packets)
    assert run.stats()["evicted"] == 500 - 64


@pytest.mark.parametrize(
    "options, message",
    [
        ({"idle": 0}, "idle: 0, expected seconds"),
        ({"active": -1}, "active: -1"),
        ({"idle": float("nan")}, "idle: nan"),
        ({"chunk_rows": 0}, "chunk_rows: 0"),
        ({"capacity": 0}, "capacity: 0"),
        ({"columns": ["nope"]}, "no column 'nope'"),
        ({"columns": []}, "columns: empty"),
        ({"hosts": "10.0.0.1"}, "invalid CIDR"),
        ({"filter": "port banana"}, "port banana"),
        ({"decode": "smtp"}, "decode: 'smtp'"),
        ({"http_ports": [65536]}, "http_ports: 65536"),
        ({"seconds": 5}, "seconds: .* is a capture"),
        ({"seconds": -1}, "seconds: -1"),
        ({"columns": ["http_url"]}, "with decode=True"),
    ],
)
def test_bad_settings_name_themselves(options: dict[str, Any], message: str) -> None:
    with pytest.raises(netprobe.ConfigError, match=message):
        flows(CAPTURES / "http.pcap", **options)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(netprobe.InputError):
        flows(tmp_path / "absent.pcap")
    bad = tmp_path / "bad.pcap"
    bad.write_bytes(b"not a capture at all, but long enough to look at")
    with pytest.raises(netprobe.InputError, match=r"bad\.pcap"):
        flows(bad)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_file_is_closed_at_the_end_and_by_close() -> None:
    before = open_files()
    run = flows(CAPTURES / "http.pcap")
    assert open_files() > before
    list(run)
    assert open_files() == before
    with flows(CAPTURES / "http.pcap"):
        pass
    assert open_files() == before


# --- Arrow --------------------------------------------------------------------------------------------------


class Schema(ctypes.Structure):
    pass


class Array(ctypes.Structure):
    pass


class Stream(ctypes.Structure):
    pass


# https://arrow.apache.org/docs/format/CDataInterface.html, CStreamInterface.html
Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Schema))),
    ("private_data", ctypes.c_void_p),
]
Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Array))),
    ("private_data", ctypes.c_void_p),
]
Stream._fields_ = [
    ("get_schema", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Schema))),
    ("get_next", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Array))),
    ("get_last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.POINTER(Stream))),
    ("release", ctypes.CFUNCTYPE(None, ctypes.POINTER(Stream))),
    ("private_data", ctypes.c_void_p),
]


def stream_of(capsule: object) -> Any:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype = ctypes.c_void_p
    get.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return ctypes.cast(get(capsule, b"arrow_array_stream"), ctypes.POINTER(Stream))


def read_stream(capsule: object) -> dict[str, tuple[str, int, list[bytes | None]]]:
    """name -> (format, null count, values as bytes), by the C structs alone."""
    width = {"C": 1, "S": 2, "I": 4, "L": 8, "l": 8, "tsn:UTC": 8, "w:16": 16, "w:6": 6}
    stream = stream_of(capsule)
    schema, array, last = Schema(), Array(), Array()
    assert stream.contents.get_schema(stream, ctypes.byref(schema)) == 0
    assert stream.contents.get_next(stream, ctypes.byref(array)) == 0
    assert stream.contents.get_next(stream, ctypes.byref(last)) == 0 and not last.release
    assert schema.format == b"+s" and schema.n_children == array.n_children and array.n_buffers == 1
    out = {}
    for i in range(schema.n_children):
        kind, data = schema.children[i].contents, array.children[i].contents
        assert (data.length, data.offset, data.n_buffers) == (array.length, 0, 2)
        n = width[kind.format.decode()]
        raw = ctypes.string_at(data.buffers[1], n * data.length)
        values: list[bytes | None] = [raw[k * n : k * n + n] for k in range(data.length)]
        if data.buffers[0]:
            assert kind.flags & 2
            bits = ctypes.string_at(data.buffers[0], (data.length + 7) // 8)
            values = [v if bits[k // 8] >> k % 8 & 1 else None for k, v in enumerate(values)]
        out[kind.name.decode()] = (kind.format.decode(), data.null_count, values)
    schema.release(ctypes.byref(schema))
    array.release(ctypes.byref(array))
    assert not schema.release and not array.release
    stream.contents.release(stream)
    return out


def test_arrow_stream() -> None:
    (chunk,) = flows(CAPTURES / "http.pcap")
    got = read_stream(chunk.__arrow_c_stream__())
    assert list(got) == list(chunk) == [column.name for column in SCHEMA]
    known_nulls = 0
    for column in SCHEMA:
        fmt, nulls, values = got[column.name]
        assert fmt == column.arrow
        array = chunk[column.name]
        want = [row.tobytes() for row in array]
        if column.absent is not None:
            want = [None if v == column.absent else w for v, w in zip(array, want, strict=True)]
        assert values == want
        assert nulls == want.count(None)
        known_nulls += nulls
    assert known_nulls


def test_arrow_array_outlives_its_chunk() -> None:
    (chunk,) = flows(CAPTURES / "http.pcap")
    want = chunk["out_bytes"].tolist()
    stream = stream_of(capsule := chunk.__arrow_c_stream__())
    array = Array()
    assert stream.contents.get_next(stream, ctypes.byref(array)) == 0
    at = list(chunk).index("out_bytes")
    del chunk, stream, capsule
    junk = [numpy.full(4096, 0xAA, dtype="u1") for _ in range(200)]
    child = array.children[at].contents
    assert numpy.frombuffer(ctypes.string_at(child.buffers[1], 8 * child.length), "u8").tolist() == want
    array.release(ctypes.byref(array))
    del junk


def test_arrow_child_may_be_moved_out() -> None:
    """A consumer may take a child and release the parent; the child stays good."""
    (chunk,) = flows(CAPTURES / "http.pcap", columns=["out_bytes", "sport"])
    want = chunk["sport"].tolist()
    stream = stream_of(capsule := chunk.__arrow_c_stream__())
    array = Array()
    assert stream.contents.get_next(stream, ctypes.byref(array)) == 0
    moved = Array()
    ctypes.memmove(ctypes.byref(moved), array.children[1], ctypes.sizeof(Array))
    ctypes.memset(ctypes.addressof(array.children[1].contents) + Array.release.offset, 0, 8)
    array.release(ctypes.byref(array))
    del chunk, capsule
    assert numpy.frombuffer(ctypes.string_at(moved.buffers[1], 2 * moved.length), "u2").tolist() == want
    moved.release(ctypes.byref(moved))


def test_unused_arrow_capsules_are_freed() -> None:
    import gc
    import weakref

    (chunk,) = flows(CAPTURES / "http.pcap", columns=["out_bytes"])
    owner = chunk["out_bytes"]
    while owner.base is not None:
        owner = owner.base
    alive = weakref.ref(owner)
    capsule = chunk.__arrow_c_stream__()
    del chunk, owner
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None


def test_no_columns_of_an_empty_capture(tmp_path: Path) -> None:
    path = tmp_path / "empty.pcap"
    path.write_bytes((CAPTURES / "http.pcap").read_bytes()[:24])
    assert list(flows(path)) == []


def test_frames_of_libraries() -> None:
    """What is installed of the optional extras reads the chunk as the arrays say."""
    (chunk,) = flows(CAPTURES / "http.pcap")
    assert isinstance(chunk, FlowChunk) and "FlowChunk: " in repr(chunk)
    first = chunk["first"].tolist()
    if importlib.util.find_spec("pyarrow"):
        import pyarrow

        table = pyarrow.table(chunk)
        assert table.column("first").cast("int64").to_pylist() == first
        assert table.column("src").to_pylist() == [row.tobytes() for row in chunk["src"]]
        table.validate(full=True)
    if importlib.util.find_spec("polars"):
        frame = chunk.to_polars()
        assert frame["out_bytes"].to_list() == chunk["out_bytes"].tolist()
        assert frame["fpex_latency_ms"].null_count() == int((chunk["fpex_latency_ms"] == 0).sum())
    if importlib.util.find_spec("pandas"):
        frame = chunk.to_pandas()
        assert frame["src"].tolist() == chunk.addresses("src")
        assert frame["first"].astype("int64").tolist() == first


def test_one_thread_reads_at_a_time(tmp_path: Path) -> None:
    """Others are refused; close() from another thread leaves the input to the one that reads."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pipe.open("r+b", buffering=0) as writer:
        writer.write((CAPTURES / "demo.pcap").read_bytes()[:2000])
        reading = flows(pipe)
        seen: list[FlowChunk] = []
        thread = threading.Thread(target=lambda: seen.extend(reading), daemon=True)
        thread.start()
        until(lambda: reading.stats()["framed"], "the first packets")
        with pytest.raises(ValueError, match="another thread"):
            next(reading)
        assert reading.stats()["framed"]
        reading.close()
        thread.join(10)
        assert not thread.is_alive()
    assert (seen, list(reading)) == ([], [])


def test_addresses_without_the_column_of_their_kind(tmp_path: Path) -> None:
    """No IP, IPv4 and IPv6 are told apart, also ``::`` and others that end in zeros."""
    pytest.importorskip("pandas")
    sent: list[Packet] = [
        Ether() / IPv6(src="::", dst="2001:db8::") / UDP(sport=1, dport=2),
        Ether() / IP(src="0.0.0.0", dst="32.1.13.184") / UDP(sport=1, dport=2),
        Ether() / ARP(),
    ]
    path = write(tmp_path / "t.pcap", sent)
    frame = next(netprobe.packets(path, ["dst", "src"])).to_pandas()
    assert list(frame.columns) == ["dst", "src"]
    assert frame["src"].tolist() == ["::", "0.0.0.0", ""]
    assert frame["dst"].tolist() == ["2001:db8::", "32.1.13.184", ""]
    (chunk,) = flows(path, columns=["src", "dst"])
    assert list(chunk) == ["src", "dst"]
    assert sorted(chunk.addresses("src")) == ["0.0.0.0", "::"]
    assert sorted(chunk.to_pandas()["dst"]) == ["2001:db8::", "32.1.13.184"]

"""Bad input through the Python face: what came before damage counts, everything else is one clear error."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import generate
import oracle
import pytest

import netprobe
from netprobe.errors import ConfigError, InputError

FACES: dict[str, Callable[[Path], Any]] = {
    "summarize": lambda path: netprobe.summarize(path),
    "packets": lambda path: list(netprobe.packets(path)),
    "flows": lambda path: list(netprobe.flows(path)),
}
DAMAGED = generate.damaged()
ODD = generate.odd()


def write(folder: Path, data: bytes) -> Path:
    path = folder / "capture.pcap"
    path.write_bytes(data)
    return path


def total(path: Path, **options: Any) -> int:
    doc = netprobe.summarize(path, periods=1, **options).to_dict()["1m"]
    assert isinstance(doc["packets"]["total"], int)
    return int(doc["packets"]["total"])


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_came_before_counts(tmp_path: Path, name: str, workers: int) -> None:
    case = DAMAGED[name]
    path = write(tmp_path, case.data)
    summary = netprobe.summarize(path, periods=1, workers=workers)
    assert summary.to_dict()["1m"]["packets"]["total"] == case.packets
    assert len(summary.warnings) == 1
    assert str(path) in summary.warnings[0]
    with pytest.warns(RuntimeWarning) as told:
        assert sum(chunk.rows for chunk in netprobe.packets(path)) == case.packets
    assert [str(warning.message) for warning in told] == summary.warnings
    with netprobe.flows(path) as records, pytest.warns(RuntimeWarning) as told:
        assert sum(int(chunk["out_pkts"].sum() + chunk["in_pkts"].sum()) for chunk in records) <= case.packets
    assert records.stats()["framed"] == case.packets
    assert [str(warning.message) for warning in told] == summary.warnings


@pytest.mark.parametrize("cut", [10, 18, 30, 1000])
def test_cut_gzip(tmp_path: Path, cut: int) -> None:
    data = gzip.compress(generate.pcap(generate.ethernet_frames() * 50), mtime=0)
    path = write(tmp_path, data[: min(cut, len(data) - 9)])
    try:
        summary = netprobe.summarize(path, periods=1)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert len(summary.warnings) == 1
        assert summary.packets < 13 * 50


@pytest.mark.parametrize("name", ODD)
def test_odd_files_count_every_packet(tmp_path: Path, name: str) -> None:
    data = ODD[name]
    path = write(tmp_path, data)
    want = 6 + (name == "caplen-0")
    began = time.monotonic()
    for workers in (1, 2):
        for periods in (1, 5):
            summary = netprobe.summarize(path, periods=periods, workers=workers)
            assert summary.packets == want
            assert summary.warnings == []
            (doc,) = summary.to_dict().values()
            assert doc["packets"]["period"]["length"] >= 0
            if periods == 1:
                assert doc["packets"]["total"] == want
    assert sum(chunk.rows for chunk in netprobe.packets(path)) == want
    # a jump of ten years is no reason to count three hundred million seconds
    assert time.monotonic() - began < 5


def snapped(path: Path, length: int, folder: Path) -> Path:
    """A capture (pcap, little-endian) as a snap length would have made it."""
    data, at = path.read_bytes(), 24
    out = [data[:24]]
    while at < len(data):
        caplen = struct.unpack_from("<I", data, at + 8)[0]
        keep = min(caplen, length)
        out += [data[at : at + 8], struct.pack("<I", keep), data[at + 12 : at + 16 + keep]]
        at += 16 + caplen
    return write(folder, b"".join(out))


@pytest.mark.tool("tshark")
@pytest.mark.parametrize(
    ("name", "length", "hidden"),
    [
        ("dns-tcp", 200, 0),
        ("dns-udp", 80, 0),
        ("dns-fragments", 96, 0),
        ("bgp", 128, 1),
        ("bgp", 96, 2),
        ("dhcp", 300, 0),
    ],
)
def test_snap_length_loses_no_message(
    captures: Path, tmp_path: Path, name: str, length: int, hidden: int
) -> None:
    """What tshark counts in the whole capture, though the ends of messages are missing.

    `hidden`: updates that begin behind the end of what there is of a segment.
    """
    want = oracle.truth(captures / f"{name}.pcap")
    path = snapped(captures / f"{name}.pcap", length, tmp_path)
    doc = netprobe.summarize(path, handlers=["dns", "bgp", "dhcp"], periods=1).to_dict()["1m"]
    dns, bgp, dhcp = (doc[h]["wire_packets"] for h in ("dns", "bgp", "dhcp"))
    assert (dns["queries"], dns["replies"], dns["tcp"]) == (want.dns.queries, want.dns.replies, want.dns.tcp)
    assert bgp["open"] == want.bgp[1]
    assert bgp["update"] == want.bgp[2] - hidden
    assert (bgp["notification"], bgp["keepalive"]) == (want.bgp[3], want.bgp[4])
    assert dhcp["discover"] + dhcp["request"] == want.dhcp4[1] + want.dhcp4[3]


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("length", range(54, 64))
def test_snap_length_inside_an_extension_header(tmp_path: Path, length: int) -> None:
    """The first byte of an IPv6 extension header says what follows it."""
    frames = [f for f in generate.FRAMES["ipv6-extensions"]() if f[12:14] == b"\x86\xdd"]
    assert {f[20] for f in frames} >= {0, 44, 51, 60}
    path = write(tmp_path, generate.pcap([generate.Rec(f[:length], orig=len(f)) for f in frames]))
    want = oracle.truth(path)
    got = [(int(a), int(b)) for c in netprobe.packets(path) for a, b in zip(c["l3"], c["proto"], strict=True)]
    assert got == [(f.l3, f.proto) for f in want.frames]


def test_backwards_never_rotates(tmp_path: Path) -> None:
    """Five periods: only the stamp more than a minute ahead opens a second one."""
    summary = netprobe.summarize(write(tmp_path, ODD["backwards"]), periods=5)
    packets = summary.to_dict()["5m"]["packets"]
    assert packets["total"] == 6
    assert packets["period"]["start_ts"] == generate.START_NS // 10**9


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("nano", [False, True])
def test_sub_second_overflow_keeps_the_second(tmp_path: Path, nano: bool) -> None:
    """Whatever stands for a part of a second: the second of the record is that of the stamp, as in tshark."""
    frames = generate.ethernet_frames()[:6]
    data = bytearray(generate.pcap(frames, nano=nano))
    second = 10**9 if nano else 10**6
    # tshark's nanoseconds have 32 bits with a sign
    parts = [0, second - 1, second, second + 5, 2 * second, 2 * second + second // 10]
    for part, pos in zip(parts, generate.positions(bytes(data)), strict=True):
        data[pos + 4 : pos + 8] = struct.pack("<I", part)
    path = write(tmp_path, bytes(data))
    stamps = [int(t) for chunk in netprobe.packets(path) for t in chunk["ts"]]
    told = [row["frame.time_epoch"][0] for row in oracle.tshark(path, ["frame.time_epoch"], False)]
    assert [t // 10**9 for t in stamps] == [int(t.partition(".")[0]) for t in told]
    assert [t % 10**9 for t in stamps] == [min(p, second - 1) * 10**9 // second for p in parts]


def test_bad_ip_headers(tmp_path: Path) -> None:
    """Every frame counts once, and what cannot be read is counted by cause."""
    frames = generate.bad_ip()
    path = write(tmp_path, generate.pcap(frames))
    for inner in (False, True):
        net = netprobe.summarize(path, handlers=["net"], periods=1, inner=inner).to_dict()["1m"]["packets"]
        assert net["total"] == len(frames)
        assert net["udp"] + net["tcp"] + net["other_l4"] == len(frames)
        assert net["ipv4"] + net["ipv6"] <= len(frames)
    malformed = 0
    for chunk in netprobe.packets(path, ["flags", "cause"]):
        assert ((chunk["flags"] & 32 != 0) == (chunk["cause"] != 0)).all()
        malformed += int((chunk["cause"] != 0).sum())
    assert malformed > len(frames) // 3


# ---- errors


def not_a_capture(folder: Path) -> Path:
    return write(folder, b"#!/bin/sh\necho this is a script\n" * 10)


def missing(folder: Path) -> Path:
    return folder / "there-is-no-such.pcap"


def directory(folder: Path) -> Path:
    return folder


def empty(folder: Path) -> Path:
    return write(folder, b"")


def half_header(folder: Path) -> Path:
    return write(folder, generate.pcap([])[:13])


def archaic(folder: Path) -> Path:
    return write(folder, generate.old_version([b"x" * 40], 1, 4))


def later_ng(folder: Path) -> Path:
    return write(folder, generate.shb(version=(2, 0)) + generate.idb())


def unknown_link_type(folder: Path) -> Path:
    return write(folder, generate.pcap([b"x" * 40], generate.USER0))


def unknown_link_type_ng(folder: Path) -> Path:
    return write(folder, generate.pcapng([b"x" * 40], generate.USER0))


ERRORS: dict[Callable[[Path], Path], str] = {
    not_a_capture: "not a capture",
    missing: "(?i)no such file",
    directory: "(?i)directory",
    empty: "(?i)empty",
    half_header: "ends inside its header",
    archaic: "has pcap version 1.4",
    later_ng: "has pcapng version 2.0",
    unknown_link_type: "USER0",
    unknown_link_type_ng: "USER0",
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("make", ERRORS, ids=lambda m: m.__name__)
def test_errors_name_the_file(tmp_path: Path, make: Callable[[Path], Path], face: str) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError, match=ERRORS[make]) as caught:
        FACES[face](path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text


@pytest.mark.parametrize("make", [missing, directory], ids=lambda m: m.__name__)
def test_a_bad_path_is_found_before_anything_is_read(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write(tmp_path, generate.pcap([]))
    monkeypatch.setattr("netprobe.summary.open_capture", lambda *_: pytest.fail("the first file was opened"))
    with pytest.raises(InputError, match=ERRORS[make]):
        netprobe.summarize([good, make(tmp_path)])


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="root reads everything")
def test_unreadable(tmp_path: Path) -> None:
    """Root may read any file: there it is a directory entry that cannot be opened at all."""
    path = write(tmp_path, generate.pcap([]))
    if os.geteuid() == 0:
        loop = tmp_path / "loop.pcap"
        loop.symlink_to(loop)
        path = loop
    else:
        path.chmod(0)
    for face in FACES.values():
        with pytest.raises(InputError) as caught:
            face(path)
        assert str(path) in str(caught.value)


def test_header_only_is_no_error(tmp_path: Path) -> None:
    for data in (generate.pcap([]), generate.shb() + generate.idb(), generate.shb()):
        assert total(write(tmp_path, data)) == 0


def test_mixed_link_types_are_counted(tmp_path: Path) -> None:
    """One interface that cannot be decoded does not spoil the other, and is named."""
    path = write(tmp_path, generate.mixed_linktypes())
    summary = netprobe.summarize(path, periods=1)
    assert summary.to_dict()["1m"]["packets"]["ipv4"] == 8
    assert any("USER0" in w and "13" in w for w in summary.warnings)


def test_settings(tmp_path: Path) -> None:
    path = write(tmp_path, generate.pcap(generate.ethernet_frames()))
    bad: list[dict[str, Any]] = [
        {"filter": "tcp port banana"},
        {"hosts": "10.0.0.0/33"},
        {"hosts": "10.0.0.0"},
        {"hosts": "nonsense/8"},
        {"workers": 0},
        {"periods": 0},
        {"periods": 11},
        {"deep_sample_rate": 0},
        {"handlers": ["nosuch"]},
        {"handlers": ["net:9.9"]},
        {"geo_city": str(tmp_path / "missing.mmdb")},
        {"geo_asn": str(path)},
    ]
    for options in bad:
        with pytest.raises((ConfigError, InputError)) as caught:
            netprobe.summarize(path, **options)
        ((_, value),) = options.items()
        text = value[0] if isinstance(value, list) else str(value)
        # the wording for a bad address is pktvisor's and leaves out the prefix
        assert text.split(":")[0].removesuffix("/8") in str(caught.value), f"{options}: {caught.value}"


# ---- files that change, streams


def test_fifo(tmp_path: Path) -> None:
    """A named pipe, written slowly, in pieces that respect no record."""
    data = generate.pcap(generate.ethernet_frames() * 20)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def feed() -> None:
        with fifo.open("wb", buffering=0) as out:
            for i in range(0, len(data), 700):
                out.write(data[i : i + 700])
                time.sleep(0.001)

    writer = threading.Thread(target=feed)
    writer.start()
    try:
        assert total(fifo) == 13 * 20
    finally:
        writer.join()


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    """Cut while it is read: no crash, and never more packets than there were."""
    frames = generate.ethernet_frames() * 2000
    path = write(tmp_path, generate.pcap(frames))
    size = path.stat().st_size
    stop = threading.Event()

    def shake() -> None:
        while not stop.is_set():
            os.truncate(path, size // 3)
            os.truncate(path, size)

    shaker = threading.Thread(target=shake)
    shaker.start()
    try:
        for _ in range(10):
            try:
                assert netprobe.summarize(path, periods=1).packets <= len(frames) + size // 16
            except InputError as error:
                assert str(path) in str(error)
    finally:
        stop.set()
        shaker.join()


def test_concatenated_headers_are_damage(tmp_path: Path) -> None:
    """Two pcap files after each other: the second header is no record."""
    one = generate.pcap(generate.ethernet_frames())
    summary = netprobe.summarize(write(tmp_path, one + one), periods=1)
    assert summary.packets >= 13
    assert len(summary.warnings) == 1


def test_length_field_does_not_allocate(tmp_path: Path) -> None:
    """A block that claims nearly 4 GB takes no memory for it."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    block = struct.pack("<2I", 6, 0xFFFFFFF0)
    path = write(tmp_path, generate.pcapng(generate.ethernet_frames()) + block + bytes(1 << 16))
    assert netprobe.summarize(path, periods=1).packets == 13
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000

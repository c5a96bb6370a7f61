"""Byte sources: what is read equals what was written, by other programs too; nothing hangs or leaks."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from netprobe.errors import ConfigError, InputError
from netprobe.hosts import parse_hosts
from netprobe.inputs.sources import Source, open_source

RNG = random.Random(5)
# bigger than every buffer on the way, half of it compressible
CONTENT = b"\xd4\xc3\xb2\xa1" + b"".join(RNG.randbytes(700) + bytes(700) for _ in range(3000))


def zstd_stream(data: bytes) -> bytes:
    """A frame that does not announce its size."""
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zstd-no-size": zstd_stream,
}
COMPRESSED = [name for name in PACK if name != "plain"]


def drain(source: Source) -> bytes:
    parts = [source.prefix]
    while chunk := os.read(source.fd, 1 << 20):
        parts.append(chunk)
    return b"".join(parts)


def feeders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("netprobe-")]


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert not feeders()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def write(tmp_path: Path, data: bytes, name: str = "f") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", PACK)
def test_file(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, PACK[kind](CONTENT))
    with open_source(path) as source:
        assert source.name == str(path)
        assert source.size == path.stat().st_size
        assert source.position() <= source.size
        assert drain(source) == CONTENT
        assert source.position() == source.size
        assert source.error() is None
    source.close()


@pytest.mark.parametrize("kind", COMPRESSED)
def test_several_members(tmp_path: Path, kind: str) -> None:
    parts = [CONTENT[:100], b"", CONTENT[100:5000], CONTENT[5000:]]
    with open_source(write(tmp_path, b"".join(map(PACK[kind], parts)))) as source:
        assert drain(source) == CONTENT
        assert source.error() is None


@pytest.mark.parametrize(
    ("kind", "program"),
    [("gzip", "gzip -9"), ("xz", "xz -9e"), ("xz", "xz -T2 --block-size=65536"), ("zstd", "zstd -19 -T2")],
)
def test_files_of_other_programs(tmp_path: Path, kind: str, program: str) -> None:
    if shutil.which(program.split()[0]) is None:
        pytest.skip(f"missing: the program {program.split()[0]}")
    packed = subprocess.run([*program.split(), "-c"], input=CONTENT, capture_output=True, check=True).stdout
    with open_source(write(tmp_path, packed)) as source:
        assert drain(source) == CONTENT
        assert source.error() is None


def test_padding_and_skippable_frames(tmp_path: Path) -> None:
    skippable = b"\x53\x2a\x4d\x18" + (70000).to_bytes(4, "little") + bytes(70000)
    files = {
        "xz": lzma.compress(CONTENT[:999]) + bytes(8) + lzma.compress(CONTENT[999:]) + bytes(1024),
        "gz": gzip.compress(CONTENT) + bytes(512),
        "zst": skippable + PACK["zstd"](CONTENT[:50]) + skippable + PACK["zstd-no-size"](CONTENT[50:]),
    }
    for name, data in files.items():
        with open_source(write(tmp_path, data, name)) as source:
            assert drain(source) == CONTENT, name
            assert source.error() is None, name


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.999, 1.0])
def test_cut(tmp_path: Path, kind: str, share: float) -> None:
    packed = PACK[kind](CONTENT)
    cut = min(int(len(packed) * share), len(packed) - 1)
    with open_source(write(tmp_path, packed[:cut])) as source:
        got = drain(source)
        problem = source.error()
    assert CONTENT.startswith(got)
    assert len(got) > len(CONTENT) * share - 400_000
    assert problem is not None
    assert str(tmp_path / "f") in str(problem)
    assert "cut" in str(problem)


def test_every_cut_of_a_small_zstd_file(tmp_path: Path) -> None:
    """Follows the framing through every kind of header, at every byte."""
    packed = (
        PACK["zstd"](b"abc" * 50)
        + b"\x50\x2a\x4d\x18\x05\0\0\0hello"
        + PACK["zstd-no-size"](bytes(500_000) + RNG.randbytes(200))
    )
    whole = {len(PACK["zstd"](b"abc" * 50)), len(PACK["zstd"](b"abc" * 50)) + 13, len(packed)}
    for cut in range(8, len(packed) + 1):
        with open_source(write(tmp_path, packed[:cut])) as source:
            drain(source)
            assert (source.error() is None) == (cut in whole), cut


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd"])
def test_corrupt(tmp_path: Path, kind: str) -> None:
    packed = bytearray(PACK[kind](CONTENT))
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(64)
    with open_source(write(tmp_path, bytes(packed))) as source:
        got = drain(source)
        problem = source.error()
    assert problem is not None
    assert kind in str(problem)
    if kind == "gzip":
        # damaged deflate data may still decode to something: the checksum tells
        assert got[: len(CONTENT) // 3] == CONTENT[: len(CONTENT) // 3]
    else:
        assert CONTENT.startswith(got[: len(CONTENT) // 3])


def test_wrong_gzip_checksum_keeps_the_data(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(CONTENT[:5000]))
    packed[-6] ^= 1
    with open_source(write(tmp_path, bytes(packed))) as source:
        assert drain(source) == CONTENT[:5000]
        assert "incorrect data check" in str(source.error())


def test_gzip_trailing_garbage(tmp_path: Path) -> None:
    with open_source(write(tmp_path, gzip.compress(CONTENT) + b"garbage")) as source:
        assert drain(source) == CONTENT
        assert "followed by bytes that are not gzip" in str(source.error())


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("piece", [1, 3, 100_000])
def test_fifo(tmp_path: Path, kind: str, piece: int) -> None:
    content = CONTENT[: 3000 if piece < 100 else None]
    packed = PACK[kind](content)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def feed() -> None:
        with fifo.open("wb", buffering=0) as file:
            for at in range(0, len(packed), piece):
                file.write(packed[at : at + piece])

    writer = threading.Thread(target=feed)
    writer.start()
    with open_source(fifo) as source:
        assert source.size is None
        assert source.position() == 0
        assert drain(source) == content
        assert source.error() is None
    writer.join()


@pytest.mark.parametrize("kind", ["plain", "gzip"])
@pytest.mark.parametrize("through", ["file", "pipe"])
def test_standard_input(tmp_path: Path, kind: str, through: str) -> None:
    path = write(tmp_path, b"skipped" + PACK[kind](CONTENT))
    program = (
        "import os, sys; from netprobe.inputs.sources import open_source\n"
        "with open_source('-') as s:\n"
        "    sys.stdout.buffer.write(s.prefix)\n"
        "    while chunk := os.read(s.fd, 65536): sys.stdout.buffer.write(chunk)\n"
        "    assert s.error() is None and s.name == '(standard input)'\n"
        "    print(s.size, file=sys.stderr)\n"
        "os.fstat(0)"
    )
    with path.open("rb", buffering=0) as file:
        file.seek(7)  # where the shell's previous command left it
        if through == "pipe":
            done = subprocess.run([sys.executable, "-c", program], input=file.read(), capture_output=True)
        else:
            done = subprocess.run([sys.executable, "-c", program], stdin=file, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == CONTENT
    size = str(path.stat().st_size - 7) if through == "file" else "None"
    assert done.stderr.decode().strip() == size


@pytest.mark.parametrize("kind", PACK)
def test_early_close_ends_the_feeder(tmp_path: Path, kind: str) -> None:
    with open_source(write(tmp_path, PACK[kind](CONTENT))) as source:
        os.read(source.fd, 10)
    assert not feeders()


def test_early_close_with_a_silent_writer(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    hold = os.open(fifo, os.O_RDWR)
    os.write(hold, gzip.compress(CONTENT)[:5000])
    started = time.monotonic()
    with open_source(fifo) as source:
        assert source.fd >= 0
    os.close(hold)
    assert time.monotonic() - started < 5
    assert not feeders()


@pytest.mark.parametrize("before", [b"", b"\xd4\xc3"])
def test_stop_while_waiting(tmp_path: Path, before: bytes) -> None:
    """Neither an absent writer nor one that says nothing keeps the caller."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    hold = os.open(fifo, os.O_RDWR) if before else -1
    if before:
        os.write(hold, before)
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(InterruptedError):
        open_source(fifo, stop)
    timer.join()
    if before:
        os.close(hold)


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd"])
def test_bomb_is_harmless(tmp_path: Path, kind: str) -> None:
    """Hundreds of megabytes out of a small file: memory does not follow."""
    path = tmp_path / "bomb"
    opener: dict[str, Callable[[], Any]] = {
        "gzip": lambda: gzip.open(path, "wb", compresslevel=1),  # noqa: SIM115
        "xz": lambda: lzma.open(path, "wb", preset=0),  # noqa: SIM115
        "zstd": lambda: zstandard.open(path, "wb"),
    }
    megabytes = 1024 if kind == "zstd" else 200
    with opener[kind]() as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    program = (
        "import os; from netprobe.inputs.sources import open_source\n"
        "total = 0\n"
        f"with open_source({str(path)!r}) as s:\n"
        "    while chunk := os.read(s.fd, 1 << 20): total += len(chunk)\n"
        "    assert s.error() is None\n"
        # not ru_maxrss: that one is inherited from the parent across exec
        "status = open('/proc/self/status').read()\n"
        "print(total, status.split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    total, peak = map(int, done.stdout.split())
    assert total == megabytes << 20
    assert peak < 60_000  # kB


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        open_source(path)
    message = str(caught.value)
    assert str(path) in message
    assert "expected a pcap or pcapng capture" in message
    assert "\n" not in message
    return message


def test_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "nothing")
    assert "no such file" in refused(tmp_path / "no" / "thing")
    assert "not a directory" in refused(write(tmp_path, b"x") / "below")
    assert "is a directory" in refused(tmp_path)
    assert "is empty" in refused(write(tmp_path, b""))
    assert "is empty" in refused("/dev/null")
    assert "bzip2" in refused(write(tmp_path, bz2.compress(CONTENT)))
    with pytest.raises(InputError, match="zero byte"):
        open_source("a\0b")


def test_unreadable_content() -> None:
    """A file that opens but does not read: the process's own memory has nothing at address 0."""
    with pytest.raises(InputError, match="/proc/self/mem: cannot be read: input/output error"):
        open_source("/proc/self/mem")


def test_no_permission(tmp_path: Path) -> None:
    path = write(tmp_path, CONTENT)
    path.chmod(0)
    if os.geteuid() != 0:
        assert "permission denied" in refused(path)
        return
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.seteuid(65534)
            open_source(path)
        except InputError as problem:
            code = 0 if "permission denied" in str(problem) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, []),
        ("", []),
        ("10.0.0.0/8", [(4, b"\x0a\0\0\0", 8)]),
        ("192.168.1.77/24,0.0.0.0/0", [(4, b"\xc0\xa8\x01\x4d", 24), (4, bytes(4), 0)]),
        ("::/0,2001:db8::1/128", [(6, bytes(16), 0), (6, bytes.fromhex("20010db8" + "0" * 23 + "1"), 128)]),
        (["10.0.0.0/8", "::1/64"], [(4, b"\x0a\0\0\0", 8), (6, bytes(15) + b"\1", 64)]),
    ],
)
def test_hosts(spec: str | list[str] | None, expected: list[tuple[int, bytes, int]]) -> None:
    assert parse_hosts(spec) == expected


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("10.0.0.1", "invalid CIDR: 10.0.0.1"),
        ("10.0.0.0/8,", "invalid CIDR: "),
        ("10.0.0.0/", "invalid CIDR: 10.0.0.0/"),
        ("10.0.0.0/33", "invalid CIDR: 10.0.0.0/33"),
        ("10.0.0.0/-1", "invalid CIDR: 10.0.0.0/-1"),
        ("10.0.0.0/+8", "invalid CIDR: 10.0.0.0/+8"),
        ("10.0.0.0/٨", "invalid CIDR: 10.0.0.0/٨"),
        ("10.0.0.0/8 ", "invalid CIDR: 10.0.0.0/8 "),
        ("10.0.0.0/" + "9" * 5000, "invalid CIDR: 10.0.0.0/" + "9" * 5000),
        ("::/129", "invalid CIDR: ::/129"),
        ("10.0.0/8", "invalid IPv4 address: 10.0.0"),
        ("10.0.0.0/8, 10.0.0.1/8", "invalid IPv4 address:  10.0.0.1"),
        ("host/8", "invalid IPv4 address: host"),
        ("2001:zz::/32", "invalid IPv6 address: 2001:zz::"),
        ("fe80::1%eth0/64", "invalid IPv6 address: fe80::1%eth0"),
    ],
)
def test_wrong_hosts(spec: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_hosts(spec)
    assert str(caught.value) == text

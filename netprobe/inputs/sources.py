"""Byte sources: a file, FIFO or standard input as a file descriptor that native code can read(2).

Compressed captures are recognised by their first bytes, never by name, and are decompressed by a thread into
a pipe. So the reader sees one kind of thing, memory stays flat whatever the file expands to, and
decompression (which runs without the GIL) overlaps with parsing.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, cast

from netprobe.errors import InputError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Source", "check_path", "open_source"]

STDIN_NAME = "(standard input)"
SNIFF_BYTES = 8
READ_BYTES = 128 * 1024
WRITE_BYTES = 128 * 1024
PIPE_BYTES = 1 << 20
# what a compressed file may make us keep as its dictionary: zstd's own default limit, and enough for xz -9
ZSTD_WINDOW = 1 << 27
XZ_MEMORY = 160 << 20
STOP_CHECK_MS = 200
# of a path, in messages
NAME_CHARACTERS = 1000

CAPTURE_HINT = "expected a pcap or pcapng capture, plain or compressed with gzip, zstd or xz"

# formats that are only recognised to say what to do about them
UNSUPPORTED = {
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
}


class Stop(Protocol):
    """The part of threading.Event that is needed to give up waiting."""

    def is_set(self) -> bool: ...


class Source:
    """Bytes of one capture, ready for read(2).

    `prefix` has been read already and comes before whatever `fd` yields. Closing twice is harmless.
    """

    def __init__(self, name: str, fd: int, prefix: bytes = b"", size: int | None = None) -> None:
        self.name = name
        self.fd = fd
        self.prefix = prefix
        #: bytes on disk (compressed ones for a compressed file), None where nobody can know
        self.size = size
        self._base = 0 if size is None else os.lseek(fd, 0, os.SEEK_CUR)

    def position(self) -> int:
        """Bytes of `size` that have been read so far; 0 when the size is not known."""
        if self.size is None or self.fd < 0:
            return 0
        return os.lseek(self.fd, 0, os.SEEK_CUR) - self._base

    def error(self) -> InputError | None:
        """Why the bytes ended early; to be asked after the end of file. None when they did not."""
        return None

    def close(self) -> None:
        """Close the descriptor and end whatever feeds it."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Compressed(Source):
    """The read end of a pipe that a thread fills with decompressed bytes."""

    def __init__(
        self, name: str, raw: int, prefix: bytes, size: int | None, kind: str, decoder: Decoder
    ) -> None:
        import threading

        read_end, write_end = os.pipe()
        super().__init__(name, read_end)
        self.size = size
        self._raw = raw
        self._write_end = write_end
        self._kind = kind
        self._decoder = decoder
        self._head = prefix
        self._consumed = 0
        self._failure: InputError | None = None
        _enlarge(write_end)
        self._thread = threading.Thread(target=self._feed, name=f"netprobe-{kind}", daemon=True)
        self._thread.start()

    def position(self) -> int:
        return min(self._consumed, self.size) if self.size is not None else 0

    def error(self) -> InputError | None:
        # set before the pipe ends
        return self._failure

    def close(self) -> None:
        super().close()
        # without a reader the thread's next write or poll fails, so this is no wait for the whole file
        self._thread.join()

    def _chunks(self) -> Iterator[bytes]:
        """Compressed bytes, until the end or until nobody reads the pipe any more."""
        waiter = select.poll()
        waiter.register(self._raw, select.POLLIN)
        waiter.register(self._write_end, 0)
        chunk = self._head
        self._head = b""
        while chunk:
            self._consumed += len(chunk)
            yield chunk
            if self.size is None and any(fd == self._write_end for fd, _ in waiter.poll()):
                raise BrokenPipeError
            chunk = os.read(self._raw, READ_BYTES)

    def _feed(self) -> None:
        import signal

        # a signal that interrupts somebody should interrupt the reader, who can act on it
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        pending = bytearray()
        try:
            try:
                for piece in self._decoder(self._chunks()):
                    pending += piece
                    if len(pending) >= WRITE_BYTES:
                        _write_all(self._write_end, pending)
                        pending.clear()
            finally:
                _write_all(self._write_end, pending)
        except BrokenPipeError:
            pass
        except _Broken as problem:
            self._failure = InputError(f"{self.name}: the {self._kind} stream {problem}")
        except OSError as problem:
            self._failure = InputError(f"{self.name}: cannot be read: {_reason(problem)}")
        finally:
            os.close(self._raw)
            os.close(self._write_end)


Decoder = Callable[[Iterator[bytes]], Iterator[bytes]]


class _Broken(Exception):
    """What is wrong with a compressed stream, as the end of a sentence about it."""


CUT = "is cut short"


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Members of a gzip file, one after the other."""
    import zlib

    member = zlib.decompressobj(wbits=31)
    fresh = True  # nothing of the current member has been seen
    first = True
    for chunk in chunks:
        data = chunk
        while data:
            if fresh and not first:
                data = data.lstrip(b"\0")  # tapes and block devices pad
                if not data:
                    break
            before = member.copy()
            try:
                piece = member.decompress(data, WRITE_BYTES)
            except zlib.error as problem:
                # the failed call also dropped what came before the bad byte
                yield from _salvage(before, data)
                if fresh and not first:
                    raise _Broken("is followed by bytes that are not gzip") from None
                raise _Broken(f"is corrupt ({problem})") from None
            fresh = first = False
            yield piece
            data = member.unconsumed_tail
            if member.eof:
                data = member.unused_data
                member = zlib.decompressobj(wbits=31)
                fresh = True
    if not fresh:
        yield member.flush()
        raise _Broken(CUT)


def _salvage(member: _ZlibObject, data: bytes) -> Iterator[bytes]:
    import zlib

    for at in range(len(data)):
        try:
            yield member.decompress(data[at : at + 1])
        except zlib.error:
            return


class _ZlibObject(Protocol):
    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...


def _unxz(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Streams of an xz file, with their padding."""
    import lzma

    def fresh() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    step = 512  # a failing call loses its output, and this decoder cannot be copied to try again
    stream = fresh()
    started = False
    for chunk in chunks:
        for at in range(0, len(chunk), step):
            data = chunk[at : at + step]
            while data or not stream.needs_input:
                if not started:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                try:
                    piece = stream.decompress(data, WRITE_BYTES)
                except lzma.LZMAError as problem:
                    raise _Broken(f"cannot be decoded ({problem})") from None
                started = True
                yield piece
                data = b""
                if stream.eof:
                    data = stream.unused_data
                    stream = fresh()
                    started = False
    if started:
        raise _Broken(CUT)


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Frames of a zstd file, skippable ones left out."""
    import zstandard

    watched = _ZstdChunks(chunks)
    reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(
        cast("IO[bytes]", watched), read_size=_ZstdChunks.STEP, read_across_frames=True
    )
    try:
        while piece := reader.read1(WRITE_BYTES):
            yield piece
    except zstandard.ZstdError as problem:
        text = str(problem).removeprefix("zstd decompress error: ")
        raise _Broken(f"cannot be decoded ({text})") from None
    if not watched.complete():
        raise _Broken(CUT)


class _ZstdChunks:
    """A file object over chunks that follows zstd's framing (RFC 8878, 3.1) as they pass.

    The library's reader takes an end of input inside a frame for an ordinary end; only the framing tells.
    """

    STEP = 16 * 1024

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0
        self._skip = 0  # content bytes that need no look
        self._head = bytearray()  # of a header that is split between chunks
        self._next: Callable[[bytes], None] = self._magic
        self._need = 4
        self._checksum = 0
        self._lost = False

    def read(self, size: int = -1) -> bytes:
        if self._at >= len(self._chunk):
            self._chunk = next(self._chunks, b"")
            self._at = 0
            self._follow(self._chunk)
        piece = self._chunk[self._at : self._at + max(size, 1)]
        self._at += len(piece)
        return piece

    def complete(self) -> bool:
        """Whether everything so far is whole frames."""
        return self._lost or (self._next == self._magic and not self._head and not self._skip)

    def _follow(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._lost:
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            step = min(self._need - len(self._head), len(data) - at)
            self._head += data[at : at + step]
            at += step
            if len(self._head) == self._need:
                head = bytes(self._head)
                self._head.clear()
                self._next(head)

    def _expect(self, need: int, then: Callable[[bytes], None]) -> None:
        self._need, self._next = need, then

    def _magic(self, head: bytes) -> None:
        if head == ZSTD_MAGIC:
            self._expect(1, self._descriptor)
        elif _is_skippable(head):
            self._expect(4, self._skippable)
        else:
            self._lost = True  # the decoder will say so

    def _skippable(self, head: bytes) -> None:
        self._skip = int.from_bytes(head, "little")
        self._expect(4, self._magic)

    def _descriptor(self, head: bytes) -> None:
        flags = head[0]
        single = flags >> 5 & 1
        self._checksum = 4 * (flags >> 2 & 1)
        self._skip = (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        self._expect(3, self._block)

    def _block(self, head: bytes) -> None:
        word = int.from_bytes(head, "little")
        rle = (word >> 1 & 3) == 1
        self._skip = 1 if rle else word >> 3
        if word & 1:
            self._skip += self._checksum
            self._expect(4, self._magic)


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def _is_skippable(head: bytes) -> bool:
    return head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50


def _decoder_of(head: bytes) -> tuple[str, Decoder] | None:
    if head.startswith(b"\x1f\x8b"):
        return "gzip", _gunzip
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz", _unxz
    if head.startswith(ZSTD_MAGIC) or _is_skippable(head):
        return "zstd", _unzstd
    return None


def open_source(path: str | bytes | os.PathLike[str], stop: Stop | None = None) -> Source:
    """Open a capture for reading; `-` is standard input.

    InputError names the path and what is wrong with it: missing, unreadable, a directory, empty. `stop` ends
    the wait for a FIFO's writer or first bytes with InterruptedError.
    """
    name = _shown(path)
    if name == "-":
        name = STDIN_NAME
        raw = _open(name, lambda: os.dup(0))
    else:
        # O_NONBLOCK: the open of a FIFO would otherwise hang, deaf to everything, until somebody writes
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        raw = _open(name, lambda: os.open(path, flags))
    try:
        return _source_of(name, raw, stop)
    except OSError as problem:
        os.close(raw)
        if isinstance(problem, InterruptedError):
            raise
        raise InputError(f"{name}: cannot be read: {_reason(problem)}") from None
    except BaseException:
        os.close(raw)
        raise


def check_path(path: str | bytes | os.PathLike[str]) -> None:
    """InputError for a path that open_source cannot open, without opening it: it might be a FIFO."""
    name = _shown(path)
    if name == "-":
        return
    mode = _open(name, lambda: Path(os.fsdecode(path)).stat().st_mode)
    if stat.S_ISDIR(mode):
        raise InputError(f"{name}: is a directory; {CAPTURE_HINT}")
    if not os.access(path, os.R_OK):
        raise InputError(f"{name}: {_reason(PermissionError(errno.EACCES, ''))}; {CAPTURE_HINT}")


def _shown(path: str | bytes | os.PathLike[str]) -> str:
    """A path for one line of a message, whatever is in it."""
    name = os.fsdecode(path)
    if len(name) > NAME_CHARACTERS:
        name = name[:NAME_CHARACTERS] + "..."
    return name if name.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def _source_of(name: str, raw: int, stop: Stop | None) -> Source:
    status = os.fstat(raw)
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name}: is a directory; {CAPTURE_HINT}")
    if os.isatty(raw):
        raise InputError(f"{name}: is a terminal; {CAPTURE_HINT}")
    if stat.S_ISREG(status.st_mode):
        base = os.lseek(raw, 0, os.SEEK_CUR)
        size = max(status.st_size - base, 0)
        head = os.pread(raw, SNIFF_BYTES, base)
        os.posix_fadvise(raw, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    else:
        size = None
        if name != STDIN_NAME:  # there the flag would be everybody's who shares the open file
            os.set_blocking(raw, True)
        head = _first_bytes(raw, stop)
    if not head:
        raise InputError(f"{name}: is empty; {CAPTURE_HINT}")
    for magic, kind in UNSUPPORTED.items():
        if head.startswith(magic):
            raise InputError(f"{name}: is a {kind} file, which is not supported; {CAPTURE_HINT}")
    compressed = _decoder_of(head)
    if compressed is None:
        return Source(name, raw, b"" if size is not None else head, size)
    if size is not None:
        os.lseek(raw, len(head), os.SEEK_CUR)
    return _Compressed(name, raw, head, size, *compressed)


def _first_bytes(raw: int, stop: Stop | None) -> bytes:
    """Enough bytes to recognise a format, fewer only at the end of the stream."""
    waiter = select.poll()
    waiter.register(raw, select.POLLIN)
    head = b""
    while len(head) < SNIFF_BYTES:
        while not waiter.poll(STOP_CHECK_MS):
            if stop is not None and stop.is_set():
                raise InterruptedError
        chunk = os.read(raw, SNIFF_BYTES - len(head))
        if not chunk:
            break
        head += chunk
    return head


def _open(name: str, opener: Callable[[], int]) -> int:
    try:
        return opener()
    except OSError as problem:
        reason = _reason(problem)
    except ValueError:
        reason = "a path cannot contain a zero byte"
    raise InputError(f"{name}: {reason}; {CAPTURE_HINT}")


def _reason(problem: OSError) -> str:
    text = os.strerror(problem.errno) if problem.errno else str(problem)
    return text[:1].lower() + text[1:]


def _enlarge(fd: int) -> None:
    import contextlib
    import fcntl

    # the system may forbid it; then the pipe is merely smaller
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _write_all(fd: int, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

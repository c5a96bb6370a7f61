"""Becoming a daemon whose parent tells the truth, and the pid file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from netprobe.errors import ConfigError

__all__ = ["Launch", "PidFile", "daemonize", "keep_standard_streams"]

#: what the child creates is for itself and its group
UMASK = 0o027
MAX_REPORT = 1 << 16
#: to get hold of a pid file that others remove
TRIES = 5


class Launch:
    """The child's line to the process that a user or a script waits for."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd

    def ready(self) -> bool:
        """The parent may go: it returns 0. False: it has been ended, so nobody wants us any more."""
        return self._report(0, "")

    def failed(self, code: int, text: str) -> None:
        """The parent shows `text` and returns `code`."""
        self._report(code, text)

    def _report(self, code: int, text: str) -> bool:
        if self._fd < 0:
            return True
        fd, self._fd = self._fd, -1
        try:
            os.write(fd, json.dumps([code, text[: MAX_REPORT // 8]]).encode())
        except BrokenPipeError:
            return False
        finally:
            os.close(fd)
        return True


def keep_standard_streams() -> None:
    """Give closed standard streams to the null device, before a socket or a file gets their numbers.

    Otherwise what is printed or logged would go into that file or to that peer.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            # the lowest free number is the one that is missing
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def daemonize() -> Launch:
    """Go on in a child in the background; the parent waits for its report and leaves.

    No thread may run and no file be open yet. The child leads a session of its own, its standard streams are
    the null device, its directory is /.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(writer)
        _wait(child, reader)
    os.close(reader)
    os.setsid()
    os.umask(UMASK)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    _close_all_but(writer)
    return Launch(writer)


def _close_all_but(kept: int) -> None:
    """Whatever else the starting process had open, a pipe or a lock, would stay open as long as we run."""
    for link in list(Path("/proc/self/fd").iterdir()):
        fd = int(link.name)
        if fd > 2 and fd != kept:
            # the folder that is being read is gone already
            with contextlib.suppress(OSError):
                os.close(fd)


def _wait(child: int, reader: int) -> NoReturn:
    """In the parent: until the child has reported or is gone, then leave with its code."""
    # without a traceback; the child finds nobody to report to, and ends
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    data = b""
    while len(data) < MAX_REPORT and (piece := os.read(reader, MAX_REPORT)):
        data += piece
    try:
        code, text = json.loads(data)
    except ValueError:
        code, text = _gone(child)
    with contextlib.suppress(OSError):
        if code:
            sys.stderr.write(f"pktvisord: {text}\n")
        else:
            sys.stderr.write(f"pktvisord runs in the background, process {child}\n")
        sys.stderr.flush()
    # no atexit handlers, no flushing of what the child has inherited
    os._exit(code)


def _gone(child: int) -> tuple[int, str]:
    """The child ended without a word."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return 1, f"ended by {signal.Signals(-code).name} before it was ready"
    return code or 1, f"ended with exit code {code} before it was ready"


class PidFile:
    """A file with the process id, locked while the process lives: one agent per file."""

    def __init__(self, path: str) -> None:
        """Take the file. ConfigError when it cannot be written or another agent holds it."""
        self.path = path
        self._take()
        # an agent that ends may have removed it meanwhile: what is locked then is a file that nobody sees
        for _ in range(TRIES):
            if self._is_there():
                break
            os.close(self._fd)
            self._take()
        try:
            os.fchmod(self._fd, 0o644)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)
        except OSError as problem:
            os.close(self._fd)
            raise ConfigError(f"pid file {path}: {(problem.strerror or str(problem)).lower()}") from None

    def _take(self) -> None:
        import fcntl

        path = self.path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as problem:
            raise ConfigError(f"pid file {path}: {(problem.strerror or str(problem)).lower()}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._fd, 32).decode(errors="replace").strip()
            os.close(self._fd)
            raise ConfigError(
                f"pid file {path}: process {holder or '?'} holds it, is an agent running?"
            ) from None

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))  # noqa: PTH116
        except OSError:
            return False

    def remove(self) -> None:
        """Take the file away; one that may not be removed is emptied."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
        with contextlib.suppress(OSError):
            Path(self.path).unlink()
        with contextlib.suppress(OSError):
            os.close(self._fd)

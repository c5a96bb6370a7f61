"""Where log lines go: standard output, a file, or syslog, in pktvisor's form (agent spec 1.5).

Everything in netprobe logs through the standard `logging`; this module decides form and place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time

from netprobe.errors import ConfigError

__all__ = ["FileLog", "clean_line", "open_log"]

#: libraries that would drown our own lines at debug level
CHATTERS = ("asyncio", "urllib3", "uvicorn", "h11", "httptools")
FILE_MODE = 0o640


def clean_line(text: str) -> str:
    """One event, one line: what breaks lines or commands a terminal is shown as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


class LineFormatter(logging.Formatter):
    """`[YYYY-MM-DD HH:MM:SS.mmm] [visor] [level] text`, local time."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        text = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            text = f"{text} | " + " | ".join(line.strip() for line in record.exc_text.splitlines())
        return f"[{stamp}.{int(record.created * 1000) % 1000:03d}] [visor] [{level}] {clean_line(text)}"


class FileLog(logging.Handler):
    """Lines to a file descriptor, each written at once.

    A full disk loses lines, not the agent: standard error says so once, and when there is room again the log
    says how many are missing.
    """

    def __init__(self, fd: int, name: str, path: str | None = None) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        self._fd = fd
        self._name = name
        self._path = path
        self._torn = False
        #: lines lost since the last one that was written
        self.lost = 0

    @classmethod
    def open(cls, path: str) -> FileLog:
        """Append to `path`. ConfigError names it and why it cannot be opened."""
        return cls(_open_file(path), path, path)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self.lost:
            found = logging.makeLogRecord(
                {
                    "levelno": logging.WARNING,
                    "levelname": "WARNING",
                    "msg": f"{self.lost} log lines were lost",
                }
            )
            if self._write(self.format(found)) is None:
                self.lost = 0
        reason = self._write(line)
        if reason is not None:
            if not self.lost and self._path is not None:
                _complain(f"{self._name}: {reason}, log lines are lost until this is better")
            self.lost += 1

    def _write(self, line: str) -> str | None:
        """None, or why the line is not in the file."""
        data = (("\n" if self._torn else "") + line + "\n").encode("utf-8", "backslashreplace")
        try:
            written = os.write(self._fd, data)
        except OSError as problem:
            return (problem.strerror or str(problem)).lower()
        # the next line must not continue half of this one
        self._torn = written < len(data)
        return "no room for a whole line" if self._torn else None

    def reopen(self) -> None:
        """Open the path anew, after it was moved away. ConfigError: the old file stays."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._fd)):  # noqa: PTH116
                # nobody has moved it, and a user that has become another one might not be let in again
                return
        fd = _open_file(self._path)
        with self.lock or contextlib.nullcontext():
            old, self._fd = self._fd, fd
        os.close(old)

    def close(self) -> None:
        if self._path is not None and self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        super().close()


class SystemLog(logging.Handler):
    """Lines to syslog: ident `pktvisord`, facility DAEMON, with the process id."""

    def __init__(self) -> None:
        super().__init__()
        import syslog

        syslog.openlog("pktvisord", syslog.LOG_PID, syslog.LOG_DAEMON)
        self._send = syslog.syslog
        self._levels = [
            (logging.ERROR, syslog.LOG_ERR),
            (logging.WARNING, syslog.LOG_WARNING),
            (logging.INFO, syslog.LOG_INFO),
        ]
        self._debug = syslog.LOG_DEBUG
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            priority = next((p for level, p in self._levels if record.levelno >= level), self._debug)
            self._send(priority, clean_line(self.format(record)).replace("\0", ""))


def open_log(path: str | None, *, syslog: bool = False, debug: bool = False) -> logging.Handler:
    """The handler that from now on gets every line: file before syslog before standard output.

    ConfigError when the file cannot be opened.
    """
    handler: logging.Handler
    if path is not None:
        handler = FileLog.open(path)
    elif syslog:
        handler = SystemLog()
    else:
        handler = FileLog(1, "standard output")
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    set_level(debug)
    # a failing log call must not print tracebacks of its own
    logging.raiseExceptions = False
    return handler


def set_level(debug: bool) -> None:
    """Debug lines on or off; libraries keep to warnings."""
    logging.getLogger().setLevel(logging.DEBUG if debug else logging.INFO)
    for name in CHATTERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def _open_file(path: str) -> int:
    try:
        # not blocking, for a FIFO that nobody reads
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
    except OSError as problem:
        raise ConfigError(f"log file {path}: {(problem.strerror or str(problem)).lower()}") from None
    return fd


def _complain(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"pktvisord: log file {text}\n")
            sys.stderr.flush()

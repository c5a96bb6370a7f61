"""What every sink can do, and the thread that encodes: capturing and encoding never share one."""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from netprobe.export.batch import ExportError

__all__ = ["STOP_S", "Exporter", "LineFile", "NullSink", "Sink"]

QUEUE_BATCHES = 8
#: live: batches are as small as what a tenth of a second brings, so more of them; bounded by their rows too
LIVE_BATCHES = 1024
LIVE_ROWS = 1 << 18
LOOK_S = 0.2
#: how often `Sink.idle` is called while nothing comes
IDLE_S = 0.5
#: after SIGINT or SIGTERM: seconds for what is still to be delivered
STOP_S = 10.0

B = TypeVar("B")


class Sink(ABC, Generic[B]):
    """Where records go. One thread calls all methods but `abort` and `lost`; ExportError ends the export."""

    @abstractmethod
    def write(self, batch: B) -> None: ...

    def idle(self) -> None:
        """Called now and then while there is nothing to write."""

    @abstractmethod
    def close(self, limit_s: float | None) -> None:
        """Deliver what is buffered, within `limit_s` seconds when that is given."""

    def abort(self) -> None:
        """Called by another thread: nothing must wait any more."""

    def lost(self, rows: int) -> None:
        """Called by another thread: so many records did not find their way here."""


class NullSink(Sink[Any]):
    """Forgets everything."""

    def write(self, batch: Any) -> None:
        pass

    def close(self, limit_s: float | None) -> None:
        pass


class LineFile:
    """A file, `-` for standard output, unbuffered.

    ExportError: it cannot be opened or written. BrokenPipeError: nobody reads standard output any more, which
    is no failure of the export.
    """

    def __init__(self, path: str = "-") -> None:
        self._standard = path == "-"
        self._name = "standard output" if self._standard else path
        try:
            # a batch is written in one piece, and nothing is left for the exit to fail on
            fd = os.dup(1) if self._standard else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            self._file = os.fdopen(fd, "wb", buffering=0)
        except OSError as error:
            raise ExportError(f"{self._name}: {os.strerror(error.errno or 0)}") from None

    def put(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if self._standard and error.errno == errno.EPIPE:
                raise
            raise ExportError(f"{self._name}: {os.strerror(error.errno or 0)}") from None

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise ExportError(f"{self._name}: {os.strerror(error.errno or 0)}") from None


class Exporter(Generic[B]):
    """A sink on a thread of its own, behind a bounded queue.

    A replay waits for room (`put`), so nothing is lost between the two; a live capture cannot (`offer`). From
    the moment that `stopping` is true, `stop_s` seconds are left for everything. Whatever the sink raises,
    the next `put`, `offer` or `finish` raises.
    """

    def __init__(
        self,
        sink: Sink[B],
        *,
        prepare: Callable[[B], None] = lambda batch: None,
        stopping: Callable[[], bool] = lambda: False,
        stop_s: float = STOP_S,
        live: bool = False,
    ) -> None:
        self._sink = sink
        self._prepare = prepare
        self._stopping = stopping
        self._stop_s = stop_s
        self._end: float | None = None
        self._queue: queue.Queue[tuple[B, int] | None] = queue.Queue(LIVE_BATCHES if live else QUEUE_BATCHES)
        self._rows = 0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="export", daemon=True)
        self._thread.start()

    def put(self, batch: B | None) -> None:
        """Wait for room. ExportError: there was none in time, or the sink failed."""
        entry = None if batch is None else (batch, 0)
        while True:
            self._look()
            try:
                self._queue.put(entry, timeout=LOOK_S)
                return
            except queue.Full:
                pass

    def offer(self, batch: B, rows: int) -> bool:
        """Hand over without waiting; False when there is no room. ExportError: the sink failed."""
        self._look()
        with self._lock:
            if self._rows + rows > LIVE_ROWS and self._rows:
                return False
            self._rows += rows
        try:
            self._queue.put_nowait((batch, rows))
            return True
        except queue.Full:
            self._done(rows)
            return False

    def check(self) -> None:
        """ExportError: the sink failed."""
        self._look()

    def finish(self) -> None:
        """Deliver everything. ExportError: that failed, or took too long after a signal."""
        self.put(None)
        while self._thread.is_alive():
            self._look()
            self._thread.join(LOOK_S)
        self._look()

    def abort(self) -> None:
        """Give up what is waiting."""
        self._sink.abort()

    def _done(self, rows: int) -> None:
        with self._lock:
            self._rows -= rows

    def _look(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._end is None and self._stopping():
            self._end = time.monotonic() + self._stop_s
        if self._end is not None and time.monotonic() >= self._end and self._thread.is_alive():
            self._sink.abort()
            raise ExportError(f"not everything could be delivered within {self._stop_s:g} s")

    def _work(self) -> None:
        try:
            while True:
                try:
                    entry = self._queue.get(timeout=IDLE_S)
                except queue.Empty:
                    self._sink.idle()
                    continue
                if entry is None:
                    break
                batch, rows = entry
                self._prepare(batch)
                self._sink.write(batch)
                self._done(rows)
            end = self._end
            self._sink.close(None if end is None else max(end - time.monotonic(), 0.0))
        except BaseException as failure:
            self._failure = failure

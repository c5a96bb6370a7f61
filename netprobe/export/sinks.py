"""What every sink can do, and the thread that encodes: capturing and encoding never share one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Protocol

from netprobe.export.batch import ExportError, FlowBatch

__all__ = ["STOP_S", "Exporter", "NullSink", "Sink"]

QUEUE_BATCHES = 8
LOOK_S = 0.2
#: after SIGINT or SIGTERM: seconds for what is still to be delivered
STOP_S = 10.0


class Sink(Protocol):
    """Where records go. All methods but `abort` are called by one thread; ExportError ends the export."""

    def write(self, batch: FlowBatch) -> None: ...

    def close(self, limit_s: float | None) -> None:
        """Deliver what is buffered, within `limit_s` seconds when that is given."""
        ...

    def abort(self) -> None:
        """Called by another thread: nothing must wait any more."""
        ...


class NullSink:
    """Forgets everything."""

    def write(self, batch: FlowBatch) -> None:
        pass

    def close(self, limit_s: float | None) -> None:
        pass

    def abort(self) -> None:
        pass


class Exporter:
    """A sink on a thread of its own, behind a queue of a few batches.

    A replay can wait for room, so nothing is lost between the two. From the moment that `stopping` is true,
    `stop_s` seconds are left for everything. Whatever the sink raises, the next `put` or `finish` raises.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        prepare: Callable[[FlowBatch], None] = lambda batch: None,
        stopping: Callable[[], bool] = lambda: False,
        stop_s: float = STOP_S,
    ) -> None:
        self._sink = sink
        self._prepare = prepare
        self._stopping = stopping
        self._stop_s = stop_s
        self._end: float | None = None
        self._queue: queue.Queue[FlowBatch | None] = queue.Queue(QUEUE_BATCHES)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="export", daemon=True)
        self._thread.start()

    def put(self, batch: FlowBatch | None) -> None:
        """Wait for room. ExportError: there was none in time, or the sink failed."""
        while True:
            self._look()
            try:
                self._queue.put(batch, timeout=LOOK_S)
                return
            except queue.Full:
                pass

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
            while (batch := self._queue.get()) is not None:
                self._prepare(batch)
                self._sink.write(batch)
            end = self._end
            self._sink.close(None if end is None else max(end - time.monotonic(), 0.0))
        except BaseException as failure:
            self._failure = failure

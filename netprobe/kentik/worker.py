"""What the senders share: a list of errors, and a thread behind a bounded queue."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from netprobe.kentik.errors import RequestFailed
from netprobe.kentik.http import Answer, Backoff, Session, is_transport_status

__all__ = ["Errors", "QueueWorker", "send_patiently"]

LOG = logging.getLogger("netprobe.kentik")

ERRORS_MAX = 100
HAND_OVER_S = 0.01
LOOK_S = 0.1

T = TypeVar("T")


class Errors:
    """The latest failures that nobody has read yet: at most 100, further ones are counted only."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque()
        self._lock = threading.Lock()
        self.total = 0

    def add(self, text: str) -> None:
        LOG.error("%s", text)
        with self._lock:
            self.total += 1
            if len(self._texts) < ERRORS_MAX:
                self._texts.append(text)

    def take(self) -> list[str]:
        """Those waiting, oldest first; they are gone then."""
        with self._lock:
            texts = list(self._texts)
            self._texts.clear()
        return texts


def send_patiently(
    session: Session,
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    attempts: int,
    backoff: Backoff,
    deadline: Callable[[], float | None],
) -> Answer:
    """POST, repeated after a broken connection or a server's failure. RequestFailed when that did not help.

    `deadline()`: the point on the monotonic clock behind which nothing is begun, or None; it may come up, or
    come nearer, at any time.
    """
    failures = 0
    while True:
        limit = deadline()
        left = session.total_s if limit is None else min(limit - time.monotonic(), session.total_s)
        try:
            answer = session.send("POST", url, body, headers, total_s=left)
            if not is_transport_status(answer.status) and answer.status != 501:
                return answer
            raise RequestFailed(f"HTTP status code {answer.status}", answer.status)
        except RequestFailed:
            failures += 1
            if failures >= attempts:
                raise
            if not _waited(backoff.seconds(failures), deadline):
                raise


def _waited(seconds: float, deadline: Callable[[], float | None]) -> bool:
    """False as soon as the deadline is nearer than the end of the wait."""
    end = time.monotonic() + seconds
    while True:
        limit = deadline()
        if limit is not None and end >= limit:
            return False
        left = end - time.monotonic()
        if left <= 0:
            return True
        time.sleep(min(left, LOOK_S))


class QueueWorker(Generic[T]):
    """One thread that works off a bounded queue; what does not fit is refused, and counted by the caller."""

    def __init__(self, name: str, size: int, *, tick_s: float | None = None) -> None:
        self._queue: queue.Queue[T] = queue.Queue(size)
        self._tick_s = tick_s
        self._stop = threading.Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, item: T) -> bool:
        """Hand over; waits 10 ms for room at most. False: the queue is full, or the worker was stopped."""
        if self._stop.is_set():
            return False
        try:
            self._queue.put(item, timeout=HAND_OVER_S)
        except queue.Full:
            return False
        return True

    def has_room(self) -> bool:
        """Whether the queue would take something now."""
        return not self._queue.full()

    def stop(self, timeout: float) -> bool:
        """Work off what is waiting, within `timeout` seconds. False when the time was too short."""
        self._deadline = time.monotonic() + timeout
        self._stop.set()
        self._thread.join(max(timeout, 0.0))
        return not self._thread.is_alive() and self._queue.empty()

    def _expired(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _run(self) -> None:
        tick = None if self._tick_s is None else time.monotonic() + self._tick_s
        while not self._expired():
            try:
                if self._stop.is_set():
                    item = self._queue.get_nowait()
                else:
                    wait = 0.1 if tick is None else min(max(tick - time.monotonic(), 0.0), 0.1)
                    item = self._queue.get(timeout=wait)
            except queue.Empty:
                if self._stop.is_set():
                    break
            else:
                self._guarded(self.work, item)
            if tick is not None and self._tick_s is not None and time.monotonic() >= tick:
                self._guarded(self.tick)
                # ticks that a slow request swallowed are not made up for
                tick = max(tick + self._tick_s, time.monotonic())
        self._guarded(self.finish)

    def _guarded(self, step: Any, *arguments: Any) -> None:
        """No single item may end the thread."""
        try:
            step(*arguments)
        except Exception as error:
            self.broken(error)

    def work(self, item: T) -> None:
        """One item from the queue."""
        raise NotImplementedError

    def tick(self) -> None:
        """Once per tick."""

    def finish(self) -> None:
        """Before the thread ends."""

    def broken(self, error: Exception) -> None:
        """Something raised that should not have."""
        LOG.error("%s: %s", self._thread.name, type(error).__name__)

"""Sending flow records: queue, batches, rate limit, drop correction (kflow-wire.md, section 2)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from netprobe._core.kflow import Batch
from netprobe.kentik.api import Device, gave_up
from netprobe.kentik.errors import RequestFailed
from netprobe.kentik.http import Session, is_transport_status
from netprobe.kentik.kflow import GZIP_LEVEL, encode
from netprobe.kentik.meters import Meter
from netprobe.kentik.worker import LOG, Errors

__all__ = ["FlowSender", "FlowStats", "flow_url"]

TICK_S = 1.0
WORKERS = 2
QUEUE_BATCHES = 8
#: bounds of our own, for rates that no plan has: records per message, and waiting ones
BATCH_MAX = 500_000
QUEUE_MAX = 4_000_000

HEADERS = {"Content-Type": "application/binary", "Content-Encoding": "gzip"}
#: a batch is repeated once at most, and only when the server cannot have seen any of it
ATTEMPTS = 2


class FlowStats(NamedTuple):
    """Records: handed over = posted + failed + dropped + waiting. Bytes: of successful posts, compressed."""

    handed_over: int
    posted: int
    failed: int
    dropped: int
    waiting: int
    bytes_sent: int


class _Job(NamedTuple):
    parts: list[tuple[Batch, int, int]]
    records: int
    dropped: int


def flow_url(base: str, device: Device) -> str:
    """The flow URL with its query; parameters that it has already are kept, keys are sorted."""
    parts = urlsplit(base)
    ours = {"sender_id": f"{device.company_id}:{device.name}:{device.id}", "sid": "0"}
    query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in ours]
    query += ours.items()
    query.sort(key=lambda pair: pair[0])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))


class FlowSender:
    """Batches once per tick, two posts at a time at most. `session` makes one session per worker."""

    def __init__(
        self,
        session: Callable[[], Session],
        base: str,
        device: Device,
        errors: Errors,
        *,
        tick_s: float = TICK_S,
        level: int = GZIP_LEVEL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = flow_url(base, device)
        self._device_id = device.id & 0xFFFFFFFF
        self._errors = errors
        self._tick_s = tick_s
        self._level = level
        #: records handed over, dropped ones included; records in batches that a worker took
        self.taken_in, self.taken_out = Meter(clock), Meter(clock)
        self.drops, self.bytes = Meter(clock), Meter(clock)
        self._posted = self._failed = 0

        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._waiting: deque[tuple[Batch, int, int]] = deque()
        self._queued = 0
        self._dropped = 0  # since the last batch
        self._in_flight = 0
        self._batch = self._capacity = 0
        self.resize(device.max_flow_rate)

        self._stopping = threading.Event()
        self._deadline: float | None = None
        self._idle = threading.Semaphore(WORKERS)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._ticks, name="kflow ticks", daemon=True)]
        for i in range(WORKERS):
            worker = threading.Thread(
                target=self._work, args=(session(),), name=f"kflow post {i}", daemon=True
            )
            self._threads.append(worker)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def resize(self, rate: int) -> None:
        """A new limit in records per second. Waiting records stay as far as they fit; the rest is dropped."""
        with self._lock:
            self._batch = min(int(rate * self._tick_s), BATCH_MAX)
            self._capacity = min(QUEUE_BATCHES * self._batch, QUEUE_MAX)
            excess = self._queued - self._capacity
            while excess > 0:
                batch, start, stop = self._waiting.pop()
                cut = min(excess, stop - start)
                if stop - start > cut:
                    self._waiting.append((batch, start, stop - cut))
                self._queued -= cut
                excess -= cut
                self._drop(cut)
            self._room.notify_all()

    def send(self, batch: Batch, wait_s: float = 0.0, start: int = 0, stop: int | None = None) -> int:
        """Queue records from `start` up to `stop`; returns how many found room. The others are dropped, and
        counted.

        `wait_s`: how long to wait for room: for replays, which are faster than the limit. With a limit of 0
        nothing is ever sent, and nothing is waited for.
        """
        end = time.monotonic() + wait_s
        done, last = start, batch.count if stop is None else stop
        with self._room:
            self.taken_in.add(last - start)
            while done < last:
                take = min(last - done, self._capacity - self._queued)
                if take > 0 and not self._stopping.is_set():
                    self._waiting.append((batch, done, done + take))
                    self._queued += take
                    done += take
                    continue
                left = end - time.monotonic()
                if left <= 0 or self._capacity == 0 or self._stopping.is_set():
                    break
                self._room.wait(left)
            if done < last:
                self._drop(last - done)
        return done - start

    def lost(self, records: int) -> None:
        """Records that were lost on their way here: they count as dropped, and are corrected for (2.6)."""
        with self._lock:
            self.taken_in.add(records)
            self._drop(records)

    def stats(self) -> FlowStats:
        with self._lock:
            return FlowStats(
                self.taken_in.count,
                self._posted,
                self._failed,
                self.drops.count,
                self._queued + self._in_flight,
                self.bytes.count,
            )

    def stop(self, timeout: float) -> bool:
        """Send what is waiting, at the usual pace, within `timeout` seconds. False when records were left."""
        self._deadline = end = time.monotonic() + timeout
        self._stopping.set()
        with self._room:
            self._room.notify_all()
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))
        with self._lock:
            return self._queued == 0 and self._in_flight == 0

    def _drop(self, records: int) -> None:
        self.drops.add(records)
        self._dropped += records

    def _take(self) -> _Job | None:
        with self._room:
            room = self._batch
            parts = []
            while room > 0 and self._waiting:
                batch, start, stop = self._waiting.popleft()
                take = min(room, stop - start)
                parts.append((batch, start, start + take))
                if start + take < stop:
                    self._waiting.appendleft((batch, start + take, stop))
                room -= take
            records = self._batch - room
            if not records:
                return None
            job = _Job(parts, records, self._dropped)
            self._dropped = 0
            self._queued -= records
            self._in_flight += records
            self._room.notify_all()
            return job

    def _ticks(self) -> None:
        next_tick = time.monotonic() + self._tick_s
        while True:
            stopping = self._stopping.wait(max(next_tick - time.monotonic(), 0.0))
            if stopping:
                break
            self._tick()
            # while both workers are busy ticks are lost
            next_tick += self._tick_s
            now = time.monotonic()
            if next_tick <= now:
                next_tick = now + self._tick_s - (now - next_tick) % self._tick_s
        # the last batches: the first at once, more at the usual pace
        while not self._late() and self._tick():
            if self._queued:
                time.sleep(max(min(self._tick_s, (self._deadline or 0.0) - time.monotonic()), 0.0))
        for _ in range(WORKERS):
            self._jobs.put(None)

    def _late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _tick(self) -> bool:
        """One batch to a worker, as soon as one is idle. False when there was nothing, or no time."""
        while not self._idle.acquire(timeout=0.1):
            if self._late():
                return False
        job = self._take()
        if job is None:
            self._idle.release()
            return False
        self.taken_out.add(job.records)
        self._jobs.put(job)
        return True

    def _work(self, session: Session) -> None:
        while (job := self._jobs.get()) is not None:
            sent = 0
            try:
                sent = self._post(session, job)
            except RequestFailed as error:
                self._errors.add(str(error))
            except Exception as error:  # a defect in one batch must not end the worker
                self._errors.add(f"batch lost: {type(error).__name__}: {error}")
            self.bytes.add(sent)
            with self._lock:
                self._in_flight -= job.records
                if sent:
                    self._posted += job.records
                else:
                    self._failed += job.records
            self._idle.release()
        session.close()

    def _post(self, session: Session, job: _Job) -> int:
        """Bytes sent. RequestFailed: the batch is lost."""
        body = encode(job.parts, self._device_id, job.dropped, self._level)
        for attempt in range(1, ATTEMPTS + 1):
            left = session.total_s
            if self._deadline is not None:
                left = min(left, self._deadline - time.monotonic())
            try:
                answer = session.send("POST", self._url, body, HEADERS, total_s=left)
                break
            except RequestFailed as error:
                if error.sent or attempt == ATTEMPTS or left <= 0:
                    cause = str(error).rpartition(": ")[2]
                    raise RequestFailed(f"{gave_up('POST', self._url, attempt)}: {cause}") from None
        if is_transport_status(answer.status):
            raise RequestFailed(gave_up("POST", self._url, 1), answer.status)
        if answer.status != 200:
            raise RequestFailed(f"api: HTTP status code {answer.status}", answer.status)
        LOG.debug("posted %d records in %d bytes, %d dropped before", job.records, len(body), job.dropped)
        return len(body)

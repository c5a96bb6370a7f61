"""DNS answers for dns mode, as MessagePack (kflow-wire.md 4.1)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from netprobe.errors import ConfigError
from netprobe.kentik.endpoints import origin
from netprobe.kentik.errors import RequestFailed
from netprobe.kentik.http import Answer, Backoff, Session
from netprobe.kentik.worker import Errors, QueueWorker, send_patiently

__all__ = ["DnsResponse", "DnsSender", "encode"]

TICK_S = 1.0
QUEUE_BATCHES = 100_000
#: a bound of our own: responses waiting, whatever the number of hand-overs
QUEUE_RESPONSES = 1_000_000
CHUNK = 10_000
POST_BYTES = 10_000_000
ATTEMPTS = 4


class DnsResponse(NamedTuple):
    """`name`: the question's, without final dot. `host`: the client's address. Both packed, 4 or 16 bytes.

    `answers`: address and time to live in seconds of each A and AAAA record, in order.
    """

    name: str
    host: bytes
    answers: Sequence[tuple[bytes, int]]


def encode(responses: Sequence[DnsResponse]) -> bytes:
    """MessagePack maps one after another; responses without an address are left out."""
    packer = _packer()
    return b"".join(
        packer.pack(
            {
                "Question": {"Name": response.name, "Host": response.host},
                "Answers": [
                    {"Name": "", "CNAME": "", "IP": address, "TTL": ttl} for address, ttl in response.answers
                ],
            }
        )
        for response in responses
        if response.answers
    )


def _packer() -> Any:
    try:
        import msgpack
    except ImportError:
        raise ConfigError("dns mode needs msgpack: pip install 'netprobe-suite[kentik]'") from None
    # names come from packets: what is no UTF-8 must not stop the others
    return msgpack.Packer(use_bin_type=True, unicode_errors="replace")


class DnsSender(QueueWorker[Sequence[DnsResponse]]):
    """Posts once per second when there is something, or at 10 MB."""

    def __init__(
        self,
        session: Session,
        base: str,
        errors: Errors,
        *,
        tick_s: float = TICK_S,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__("kentik dns", QUEUE_BATCHES, tick_s=tick_s)
        _packer()
        self._session = session
        self._url = origin(base) + "/dns"
        self._errors = errors
        self._backoff = backoff or Backoff()
        self._buffer: list[bytes] = []
        self._bytes = self._buffered = 0
        self._lock = threading.Lock()
        self._waiting = 0
        #: responses: queued, refused by a full queue, posted, lost with a failed post
        self.accepted = self.dropped = self.posted = self.failed = 0

    def send(self, responses: Sequence[DnsResponse]) -> bool:
        """Hand over; those without an address are left out. False: dropped, because the queue is full."""
        wanted = [response for response in responses if response.answers]
        if not wanted:
            return True
        with self._lock:
            fits = self._waiting + len(wanted) <= QUEUE_RESPONSES
            if fits:
                self._waiting += len(wanted)
        if fits and self.offer(wanted):
            self.accepted += len(wanted)
            return True
        self.dropped += len(wanted)
        if fits:
            self._done(len(wanted))
        return False

    def has_room(self, responses: int = 1) -> bool:
        """Whether `send` would take so many now: for replays, which are faster than any network."""
        with self._lock:
            return super().has_room() and (not self._waiting or self._waiting + responses <= QUEUE_RESPONSES)

    def _done(self, responses: int) -> None:
        with self._lock:
            self._waiting -= responses

    def work(self, item: Sequence[DnsResponse]) -> None:
        for at in range(0, len(item), CHUNK):
            chunk = item[at : at + CHUNK]
            data = encode(chunk)
            self._buffer.append(data)
            self._bytes += len(data)
            self._buffered += len(chunk)
            if self._bytes >= POST_BYTES:
                self.tick()

    def tick(self) -> None:
        if not self._buffered:
            return
        body, responses = b"".join(self._buffer), self._buffered
        self._buffer, self._bytes, self._buffered = [], 0, 0
        try:
            answer = send_patiently(
                self._session,
                self._url,
                body,
                {},
                attempts=ATTEMPTS,
                backoff=self._backoff,
                stop=self._stop,
                deadline=lambda: self._deadline,
            )
            if not _accepted(answer):
                raise RequestFailed(f"HTTP status code {answer.status}", answer.status)
            self.posted += responses
        except RequestFailed as error:
            self.failed += responses
            self._errors.add(f"dns: {error}")
        finally:
            self._done(responses)

    def finish(self) -> None:
        self.tick()
        self._session.close()


def _accepted(answer: Answer) -> bool:
    if not 200 <= answer.status < 300:
        return False
    if answer.content_type == "application/json":
        return answer.body.strip() == b"null"
    return bool(answer.content_type) or answer.status == 200

"""DNS answers for dns mode, as MessagePack (kflow-wire.md 4.1)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from netprobe.kentik.endpoints import origin
from netprobe.kentik.errors import RequestFailed
from netprobe.kentik.http import Answer, Backoff, Session
from netprobe.kentik.worker import LOG, Errors, QueueWorker, send_patiently

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
    return b"".join(_packed(response) for response in responses if response.answers)


# The few forms of MessagePack that these maps need (github.com/msgpack/msgpack/blob/master/spec.md)
_MAP2, _MAP4 = b"\x82", b"\x84"


def _text(data: bytes) -> bytes:
    n = len(data)
    if n < 32:
        return bytes([0xA0 | n]) + data
    head = b"\xd9" + n.to_bytes(1) if n < 1 << 8 else b"\xda" + n.to_bytes(2) if n < 1 << 16 else b""
    return (head or b"\xdb" + n.to_bytes(4)) + data


def _binary(data: bytes) -> bytes:
    """Of fewer than 256 bytes."""
    return b"\xc4" + len(data).to_bytes(1) + data


def _number(value: int) -> bytes:
    """The shortest form, as it is asked for."""
    if value < 128:
        return value.to_bytes(1)
    for code, size in ((b"\xcc", 1), (b"\xcd", 2), (b"\xce", 4)):
        if value < 1 << 8 * size:
            return code + value.to_bytes(size)
    return b"\xcf" + value.to_bytes(8)


def _array(n: int) -> bytes:
    return (
        bytes([0x90 | n]) if n < 16 else b"\xdc" + n.to_bytes(2) if n < 1 << 16 else b"\xdd" + n.to_bytes(4)
    )


_QUESTION = _MAP2 + _text(b"Question") + _MAP2 + _text(b"Name")
_HOST = _text(b"Host")
_ANSWERS = _text(b"Answers")
_ANSWER = _MAP4 + _text(b"Name") + _text(b"") + _text(b"CNAME") + _text(b"") + _text(b"IP")
_TTL = _text(b"TTL")


def _packed(response: DnsResponse) -> bytes:
    # names come from packets: what is no UTF-8 must not stop the others
    name = response.name.encode(errors="replace")
    parts = [_QUESTION, _text(name), _HOST, _binary(response.host), _ANSWERS, _array(len(response.answers))]
    for address, ttl in response.answers:
        parts += [_ANSWER, _binary(address), _TTL, _number(ttl)]
    return b"".join(parts)


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
                deadline=lambda: self._deadline,
            )
            if not _accepted(answer):
                raise RequestFailed(f"HTTP status code {answer.status}", answer.status)
            self.posted += responses
            LOG.debug("posted %d DNS answers in %d bytes", responses, len(body))
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

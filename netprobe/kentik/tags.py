"""User names for addresses in radius mode: the custom dimension kt_user (kflow-wire.md 4.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from netprobe.kentik.api import error_text
from netprobe.kentik.endpoints import origin
from netprobe.kentik.errors import RequestFailed
from netprobe.kentik.http import Backoff, Session
from netprobe.kentik.worker import LOG, Errors, QueueWorker, send_patiently

__all__ = ["TagRequest", "TagSender", "encode"]

PATH = "/api/internal/batch/customdimensions/kt_user/populators"
QUEUE = 1024
ATTEMPTS = 3


class TagRequest(NamedTuple):
    """`upserts`: (user, address as text); `deletes`: users."""

    upserts: Sequence[tuple[str, str]]
    deletes: Sequence[str]


def encode(request: TagRequest) -> bytes:
    document: dict[str, Any] = {"replace_all": False, "complete": True, "ttl_minutes": 0}
    if request.upserts:
        document["upserts"] = [
            {"value": user, "criteria": [{"addr": [address]}]} for user, address in request.upserts
        ]
    if request.deletes:
        document["deletes"] = [{"value": user} for user in request.deletes]
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


class TagSender(QueueWorker[TagRequest]):
    """One request after the other, in the order of hand-over."""

    def __init__(self, session: Session, api: str, errors: Errors, *, backoff: Backoff | None = None) -> None:
        super().__init__("kentik tags", QUEUE)
        self._session = session
        self._url = origin(api) + PATH
        self._errors = errors
        self._backoff = backoff or Backoff()
        #: requests: queued, refused by a full queue, answered well, given up
        self.accepted = self.dropped = self.posted = self.failed = 0

    def send(self, upserts: Sequence[tuple[str, str]], deletes: Sequence[str]) -> bool:
        """Hand over, if there is anything. False: dropped, because the queue is full."""
        if not upserts and not deletes:
            return True
        if self.offer(TagRequest(upserts, deletes)):
            self.accepted += 1
            return True
        self.dropped += 1
        return False

    def work(self, item: TagRequest) -> None:
        try:
            answer = send_patiently(
                self._session,
                self._url,
                encode(item),
                {"Content-Type": "application/json"},
                attempts=ATTEMPTS,
                backoff=self._backoff,
                deadline=lambda: self._deadline,
            )
            if not 200 <= answer.status < 300:
                raise RequestFailed(error_text(answer), answer.status)
            if not _complete(answer.body):
                raise RequestFailed("api: no message and guid in the answer", answer.status)
            self.posted += 1
            LOG.debug("posted %d users with addresses, %d without", len(item.upserts), len(item.deletes))
        except RequestFailed as error:
            self.failed += 1
            self._errors.add(f"tags: {error}")

    def finish(self) -> None:
        self._session.close()


def _complete(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and all(
        isinstance(document.get(key), str) for key in ("message", "guid")
    )

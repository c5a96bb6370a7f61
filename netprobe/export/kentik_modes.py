"""DNS answers and RADIUS bindings to Kentik (kprobe.md 7.1, 7.3)."""

from __future__ import annotations

import logging
import threading
import time

from netprobe.export.batch import ExportError
from netprobe.export.kentik import CLOSE_S, Errors
from netprobe.export.modes import ModeBatch, address_text
from netprobe.export.sinks import Sink
from netprobe.kentik import Client
from netprobe.kentik.dns import DnsResponse

__all__ = ["DnsSink", "TagSink"]

LOG = logging.getLogger("kprobe")

#: packet time between two hand-overs of bindings
FLUSH_NS = 1_000_000_000
#: users in one request
REQUEST_MOST = 10_000
WAIT_S = 30.0
LOOK_S = 0.02


class _Sink(Sink[ModeBatch]):
    """What both do: wait for room in a replay, drop live; say at the end what did not arrive."""

    what = ""

    def __init__(self, client: Client, *, live: bool = False) -> None:
        self._client = client
        self._live = live
        self._stopping = threading.Event()
        self._errors = Errors(client)

    def idle(self) -> None:
        self._errors.show()

    def abort(self) -> None:
        self._stopping.set()
        self._client.stop(0.0)

    def _finish(self, limit_s: float | None) -> bool:
        complete = self._client.stop(CLOSE_S if limit_s is None else limit_s)
        self._errors.show()
        return complete

    def _failed(self, complete: bool, accepted: int, posted: int, failed: int, dropped: int) -> None:
        if not complete or failed or dropped:
            raise ExportError(
                f"of {accepted + dropped} {self.what} {posted} were sent, {failed} failed, "
                f"{dropped} were dropped"
            )


class DnsSink(_Sink):
    """Answers to the DNS endpoint, posted once a second. ExportError: some did not arrive."""

    what = "DNS answers"

    def __init__(self, client: Client, *, live: bool = False) -> None:
        super().__init__(client, live=live)
        self._sender = client.dns()

    def write(self, batch: ModeBatch) -> None:
        responses = [DnsResponse(name, host, answers) for _, name, host, answers in batch.objects()]
        if responses:
            end = time.monotonic() + (0.0 if self._live else WAIT_S)
            while not self._sender.has_room(len(responses)) and time.monotonic() < end:
                if self._stopping.wait(LOOK_S):
                    break
            if self._sender.send(responses):
                LOG.debug("%d DNS answers handed over", len(responses))
            else:
                LOG.warning("the DNS queue is full, %d answers are dropped", len(responses))
        self._errors.show()

    def close(self, limit_s: float | None) -> None:
        complete = self._finish(limit_s)
        sender = self._sender
        self._failed(complete, sender.accepted, sender.posted, sender.failed, sender.dropped)


class TagSink(_Sink):
    """Bindings as the custom dimension kt_user, a request per second of packet time while there are any.

    A request has no order within itself: a user whose binding turns round begins a new one.
    """

    what = "requests with user names"

    def __init__(self, client: Client, *, live: bool = False) -> None:
        super().__init__(client, live=live)
        self._sender = client.tags()
        self._upserts: list[tuple[str, str]] = []
        self._deletes: list[str] = []
        self._users: dict[str, bool] = {}
        self._since: int | None = None
        self._since_s = 0.0

    def write(self, batch: ModeBatch) -> None:
        for time_ns, user, address in batch.objects():
            starts = address is not None
            late = self._since is not None and not 0 <= time_ns - self._since < FLUSH_NS
            if late or self._users.get(user, starts) != starts:
                self._flush()
            if self._since is None:
                self._since, self._since_s = time_ns, time.monotonic()
            if len(self._upserts) + len(self._deletes) >= REQUEST_MOST:
                self._flush()
                self._since, self._since_s = time_ns, time.monotonic()
            self._users[user] = starts
            if address is not None:
                self._upserts.append((user, address_text(address)))
            else:
                self._deletes.append(user)
        self.idle()

    def idle(self) -> None:
        super().idle()
        if self._since is not None and time.monotonic() - self._since_s >= FLUSH_NS / 1e9:
            self._flush()

    def close(self, limit_s: float | None) -> None:
        self._flush()
        complete = self._finish(limit_s)
        sender = self._sender
        self._failed(complete, sender.accepted, sender.posted, sender.failed, sender.dropped)

    def _flush(self) -> None:
        if self._upserts or self._deletes:
            end = time.monotonic() + (0.0 if self._live else WAIT_S)
            while not self._sender.has_room() and time.monotonic() < end:
                if self._stopping.wait(LOOK_S):
                    break
            if not self._sender.send(tuple(self._upserts), tuple(self._deletes)):
                LOG.warning("the tag queue is full, a request is dropped")
        self._upserts, self._deletes, self._users, self._since = [], [], {}, None

"""HTTP/1.1 for clients that mean no good: deadlines and limits around uvicorn's protocol.

A connection has so long for a request's head, so long for everything up to the answer's last byte, and so
long between requests. When all places are taken, whoever has not sent a request yet gives way, the oldest
first.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from netprobe.agent.heads import Connection
from netprobe.agent.health import Health

__all__ = ["Limits", "Places", "protocol_class"]

log = logging.getLogger(__name__)

# bytes that are read at once where a head may be among them
SLICE = 8192
_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    505: b"HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and numbers that a client cannot go beyond."""

    connections: int = 256
    header_bytes: int = 16 * 1024
    # from the first byte of a request (or the connection's start) to the end of its head
    header_seconds: float = 10.0
    # from there to the last byte of the answer; the body has its own, shorter one
    request_seconds: float = 60.0
    idle_seconds: float = 30.0
    # how long the rest of a body is read and thrown away after the answer
    linger_seconds: float = 2.0
    linger_bytes: int = 4 << 20


class Places:
    """The open connections, and which of them wait for a request, oldest first."""

    def __init__(self, limits: Limits, health: Health) -> None:
        self.limits = limits
        self.health = health
        self.open = 0
        self.waiting: dict[GuardedProtocol, None] = {}

    def make_room(self) -> bool:
        """Is there a place for one more? Sends away who has asked for nothing yet."""
        if self.open < self.limits.connections:
            return True
        for other in self.waiting:
            del self.waiting[other]
            self.health.refused["connections"] += 1
            # its place is free from now on; connection_lost comes later
            other.leave()
            return True
        return False


class Phase(enum.Enum):
    """Where a connection stands."""

    HEAD = "head"  # a request's head is on its way, or the connection is new
    REQUEST = "request"  # from the end of the head to the last byte of the answer
    IDLE = "idle"  # between two requests
    LINGER = "linger"  # answered, but the rest of the body still comes
    CLOSING = "closing"


class GuardedProtocol(H11Protocol):
    """One connection. Each phase has one deadline, which bytes that trickle in do not put off."""

    places: Places

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.conn: Connection = Connection(self.places.limits.header_bytes)
        # the app has its own line for each request
        self.access_log = False
        self._timer: asyncio.TimerHandle | None = None
        self._phase = Phase.HEAD
        self._placed = False
        self._lingered = 0
        # the client sends no more
        self._ended = False

    # --- coming and going ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self.places.make_room():
            self.places.health.refused["connections"] += 1
            self._say(503, "too many connections")
            return
        self._placed = True
        self.places.open += 1
        self.places.waiting[self] = None
        self._enter(Phase.HEAD, self.places.limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self._give_up_place()
        super().connection_lost(exc)

    def leave(self) -> None:
        """End at once, whatever is under way."""
        self._give_up_place()
        self._cancel()
        self._phase = Phase.CLOSING
        self.transport.abort()

    def _give_up_place(self) -> None:
        self.places.waiting.pop(self, None)
        if self._placed:
            self._placed = False
            self.places.open -= 1

    # --- a request's course ---

    def data_received(self, data: bytes) -> None:
        limits = self.places.limits
        if self._phase is Phase.IDLE:
            if not data.strip(b"\r\n"):
                # the end of the last request, as some clients see it
                return
            self._enter(Phase.HEAD, limits.header_seconds)
        elif self._phase is Phase.LINGER:
            self._lingered += len(data)
            if self._lingered > limits.linger_bytes:
                self.leave()
        # h11 looks at the size of what is not complete: in one piece, a head of any size would be
        for start in range(0, len(data), SLICE):
            if self._phase is Phase.CLOSING or self.transport.is_closing():
                return
            super().data_received(data[start : start + SLICE])
        if self._phase is Phase.LINGER and self.conn.their_state is h11.IDLE:
            self._rest()

    def eof_received(self) -> bool:  # type: ignore[override]
        """True keeps the way back open: what was asked for completely is still answered, as to `nc -N`."""
        self._ended = True
        # TLS has no end of one direction here
        answering = self._phase is Phase.REQUEST and self.conn.their_state is not h11.SEND_BODY
        return answering and self.scheme == "http"

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete and self._phase is not Phase.CLOSING:
            self.places.waiting.pop(self, None)
            self._enter(Phase.REQUEST, self.places.limits.request_seconds)

    def on_response_complete(self) -> None:
        if not self.transport.is_closing() and self._phase is not Phase.CLOSING:
            if self.conn.their_state is h11.SEND_BODY:
                # the answer came before the end of the body: some of the rest is read, so that the client
                # sees the answer and not a reset
                self._lingered = 0
                self._enter(Phase.LINGER, self.places.limits.linger_seconds)
            else:
                self._rest()
        super().on_response_complete()
        # uvicorn's own timer would close the connection earlier
        self._unset_keepalive_if_required()
        if self._ended and self._phase is Phase.IDLE:
            self.transport.close()

    def _rest(self) -> None:
        self.places.waiting[self] = None
        self._enter(Phase.IDLE, self.places.limits.idle_seconds)

    # --- what goes wrong ---

    def send_400_response(self, msg: str) -> None:
        status, reason = self.conn.refusal
        rest = self.conn.after_empty_line
        if rest is not None:
            self.conn = Connection(self.places.limits.header_bytes)
            self.conn.receive_data(rest)
            self.handle_events()
            return
        self.places.health.refused["header" if status == 431 else "malformed"] += 1
        log.debug("a connection that is no HTTP, or whose head is too large")
        self._cancel()
        if status == 431:
            self._say(431, "the head of the request is too large")
        else:
            self._say(status if status in _REASONS else 400, f"not HTTP/1.1: {reason}")

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade that is not offered is no news: the request is answered as it is."""

    def _say(self, status: int, text: str) -> None:
        """A last answer, then the end; no answer if the client has one already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = text.encode()
            headers = [
                (b"content-type", b"text/plain"),
                (b"content-length", b"%d" % len(body)),
                (b"date", formatdate(usegmt=True).encode()),
                (b"connection", b"close"),
            ]
            try:
                response = h11.Response(status_code=status, headers=headers, reason=_REASONS[status])
                for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event))
            except h11.LocalProtocolError:
                pass
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._give_up_place()
        self.transport.close()
        # who does not read the last words does not keep the socket either
        self._enter(Phase.CLOSING, self.places.limits.linger_seconds)

    def _enter(self, phase: Phase, seconds: float) -> None:
        self._cancel()
        self._phase = phase
        self._timer = self.loop.call_later(seconds, self._too_slow)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._phase in (Phase.HEAD, Phase.REQUEST):
            self.places.health.refused["slow"] += 1
        if self._phase is Phase.HEAD:
            self._say(408, "too slow")
        else:
            self.leave()


def protocol_class(places: Places) -> type[GuardedProtocol]:
    """The protocol for one server, which shares its places."""
    return type("Protocol", (GuardedProtocol,), {"places": places})

"""Pushes the policies' metrics as OTLP/HTTP protobuf, once per interval (agent spec 6.5).

What cannot be delivered waits, within bounds, and is tried again with growing pauses; what finds no room any
more is lost, counted and said. A receiver that is away costs a line now and then, never the agent.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import random
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from netprobe.agent.faces import ManagerFace, geo_of, policies_of
from netprobe.agent.threads import beginning
from netprobe.errors import ConfigError, PeriodError

__all__ = ["OtlpPusher"]

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-protobuf"
# per attempt: connecting, and each wait for bytes
TIMEOUT = 10.0
# and the whole of it, however an answer drips in, in such times
WHOLE = 3
# how long stop() waits for an attempt under way
STOP_SECONDS = 2.0
# pauses after failures, in seconds: doubled from the first to the last
FIRST_PAUSE = 1.0
LAST_PAUSE = 60.0
# what may wait for the receiver
KEEP_REQUESTS = 60
KEEP_BYTES = 32 << 20
# a trouble that goes on is said once in so many seconds
SAY_AGAIN = 300.0
# answers after which the same request may be sent again (OTLP/HTTP, failures)
RETRYABLE = frozenset({408, 429, 502, 503, 504})
ANSWER_BYTES = 64 << 10


@dataclass(slots=True)
class _Waiting:
    body: bytes
    points: int


class _Failed(Exception):
    """One attempt: why, whether it may be repeated, and after how many seconds at the earliest."""

    def __init__(self, reason: str, again: bool, after: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.after = after


class OtlpPusher:
    """A thread that renders and sends.

    host, port, path: the receiver. interval: seconds between pushes, the first one after as many.
    tls: (certificate, key) of this client as PEM files; the connection is TLS then. ca: certificates that the
    receiver's is checked against, by default the system's. ConfigError: a file or a setting cannot be used.
    """

    def __init__(
        self,
        manager: ManagerFace,
        host: str = "localhost",
        port: int = 4318,
        path: str = "/v1/metrics",
        interval: float = 60.0,
        *,
        tls: tuple[str, str] | None = None,
        ca: str | None = None,
        timeout: float = TIMEOUT,
        first_pause: float = FIRST_PAUSE,
        keep_requests: int = KEEP_REQUESTS,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        if interval <= 0:
            raise ConfigError(f"OTLP interval: {interval}, expected more than 0 seconds")
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise ConfigError(f"OTLP path {path!r}: expected for example /v1/metrics")
        if not _is_host(host):
            raise ConfigError(f"OTLP host {host!r}: expected a name or an address")
        self._manager = manager
        self._host, self._port, self._path = host, port, path
        self._interval = float(interval)
        self._context = _client_context(tls, ca) if tls or ca else None
        self._timeout = timeout
        self._first_pause = first_pause
        self._keep_requests, self._keep_bytes = keep_requests, keep_bytes
        self._queue: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._pause = first_pause
        self._complaints = _Complaints(self.url)
        self.delivered = 0
        self.failed_attempts = 0
        # points that never arrived, by why
        self.lost = {"full": 0, "refused": 0, "rejected": 0, "stopped": 0}

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._context else 'http'}://{host}:{self._port}{self._path}"

    def start(self) -> None:
        log.info("pushing OTLP metrics to %s every %g s", self.url, self._interval)
        thread = threading.Thread(target=self._run, name="otlp", daemon=True)
        with beginning("OTLP"):
            thread.start()
        self._thread = thread

    def stop(self) -> None:
        """End soon; what still waits is lost, and counted."""
        self._end.set()
        if self._thread is not None:
            # a receiver that says nothing does not hold up the end: the thread ends with the process
            self._thread.join(STOP_SECONDS)
            self._thread = None

    def numbers(self) -> Iterator[tuple[str, str, str, float, dict[str, str]]]:
        """For the agent's own page: (name, type, help, value, labels)."""
        yield "netprobe_otlp_pushes_total", "counter", "OTLP requests delivered", self.delivered, {}
        text = "Attempts to deliver an OTLP request that failed"
        yield "netprobe_otlp_failed_attempts_total", "counter", text, self.failed_attempts, {}
        for reason, points in self.lost.items():
            text = "OTLP data points that never arrived, by why"
            yield "netprobe_otlp_lost_points_total", "counter", text, points, {"reason": reason}
        yield "netprobe_otlp_queue_length", "gauge", "OTLP requests that wait", len(self._queue), {}
        yield "netprobe_otlp_queue_bytes", "gauge", "Bytes of these", self._queued_bytes, {}

    # --- the thread ---

    def _run(self) -> None:
        next_push = time.monotonic() + self._interval
        next_try = 0.0
        while True:
            now = time.monotonic()
            wake = min(next_push, next_try) if self._queue else next_push
            if self._end.wait(max(wake - now, 0.0)):
                break
            now = time.monotonic()
            if now >= next_push:
                next_push += self._interval
                if next_push <= now:
                    # missed pushes are not made up for
                    next_push = now + self._interval
                try:
                    self._render()
                except Exception:
                    log.exception("OTLP: a push could not be made")
            if self._queue and now >= next_try:
                pause = self._deliver()
                # from the end of the attempt, which may have taken its time
                next_try = time.monotonic() + pause
        for left in self._queue:
            self.lost["stopped"] += left.points
        self._queue.clear()

    def _render(self) -> None:
        """One more request into the queue; a policy that fails is left out."""
        from netprobe.metrics.render_otlp import points_in, render

        windows = []
        for name, policy in policies_of(self._manager).items():
            try:
                windows.append((name, policy.prometheus_windows()))
            except PeriodError:
                continue
            except Exception as error:
                self._complaints.say(f"policy [{name}] left out: {error}", key=name)
        request = render(windows, geo_of(self._manager))
        points = points_in(request)
        if not points:
            return
        body = request.SerializeToString()
        while self._queue and (
            len(self._queue) >= self._keep_requests or self._queued_bytes + len(body) > self._keep_bytes
        ):
            self._lose("full")
        if len(body) > self._keep_bytes:
            self.lost["full"] += points
            return
        self._queue.append(_Waiting(body, points))
        self._queued_bytes += len(body)

    def _take(self) -> _Waiting:
        found = self._queue.popleft()
        self._queued_bytes -= len(found.body)
        return found

    def _lose(self, reason: str) -> None:
        self.lost[reason] += self._take().points

    def _deliver(self) -> float:
        """Send what waits, oldest first, until it is gone or one fails; seconds until the next attempt."""
        while self._queue and not self._end.is_set():
            try:
                rejected = self._send(self._queue[0].body)
            except _Failed as failure:
                if self._end.is_set():
                    # nobody waits for this any more
                    break
                self.failed_attempts += 1
                if not failure.again:
                    # the next one is another request: it may do
                    self._lose("refused")
                    self._complaints.say(f"{failure}; what it refuses is lost")
                    continue
                self._complaints.say(f"{failure}; will try again")
                # not all agents of a fleet at the same moment
                pause = self._pause * random.uniform(0.75, 1.25)
                self._pause = min(self._pause * 2, LAST_PAUSE)
                return max(pause, min(failure.after, LAST_PAUSE * 5))
            self._take()
            self.delivered += 1
            self._pause = self._first_pause
            if rejected:
                self.lost["rejected"] += rejected
                self._complaints.say(f"the receiver rejected {rejected} data points", key="rejected")
            else:
                self._complaints.over(sum(self.lost.values()))
        return 0.0

    def _send(self, body: bytes) -> int:
        """One POST; how many points the receiver rejected. _Failed."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        timer: threading.Timer | None = None
        late = threading.Event()
        try:
            connection.connect()
            if self._context is not None:
                connection.sock = self._context.wrap_socket(
                    connection.sock, server_hostname=self._host, do_handshake_on_connect=False
                )
            timer = threading.Timer(self._timeout * WHOLE, _break, (connection.sock, late))
            timer.daemon = True
            # without a thread for it an attempt has no such bound; the pushing must not end
            with contextlib.suppress(RuntimeError):
                timer.start()
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            headers = {"Content-Type": CONTENT_TYPE, "User-Agent": "netprobe"}
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            data = answer.read(ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            # certificate errors end here too: a new certificate may be on its way
            raise _Failed("no answer in time" if late.is_set() else _words(error), again=True) from None
        finally:
            if timer is not None:
                timer.cancel()
            connection.close()
        if 200 <= answer.status < 300:
            return _rejected(data)
        reason = f"answered {answer.status} {answer.reason}".rstrip()
        raise _Failed(reason, answer.status in RETRYABLE, _seconds(answer.getheader("Retry-After")))


class _Complaints:
    """Says a trouble when it begins, again when it changes or has lasted, and when it is over."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._said: dict[str, tuple[str, float]] = {}
        self._lost_before = 0

    def say(self, text: str, key: str = "") -> None:
        before, when = self._said.get(key, ("", 0.0))
        if text != before or time.monotonic() - when >= SAY_AGAIN:
            if len(self._said) > 100:
                self._said.clear()
            self._said[key] = text, time.monotonic()
            log.warning("OTLP push to %s: %s", self._url, text)

    def over(self, lost: int) -> None:
        """A request has been delivered; ``lost``: points lost so far."""
        if self._said.pop("", None) is not None:
            more = lost - self._lost_before
            log.info(
                "OTLP push to %s works again%s", self._url, f", {more} data points were lost" if more else ""
            )
        self._lost_before = lost


def _client_context(tls: tuple[str, str] | None, ca: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"OTLP CA certificates {ca}: {_words(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls is not None:
        cert, key = tls

        def no_password() -> str:
            raise ConfigError(f"OTLP TLS key {key}: encrypted, expected a key without a password")

        try:
            context.load_cert_chain(cert, key, no_password)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"OTLP TLS certificate {cert} with key {key}: {_words(error)}") from None
    return context


def _break(connection: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        # not SSLSocket.shutdown, which forgets the TLS state under the reader's feet
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _is_host(name: str) -> bool:
    """Could a name server know this?"""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return bool(name) and name.isprintable() and not set(name) & set(" /?#@[]")


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the receiver's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(f"{type(error).__name__}: {error}".split())


def _seconds(header: str | None) -> float:
    """From now, of a Retry-After header, which is a number or a date; anything else counts as not given."""
    with contextlib.suppress(ValueError, OverflowError):
        if header and header.strip().isdecimal():
            return float(header)
        return max(parsedate_to_datetime(header or "").timestamp() - time.time(), 0.0)
    return 0.0


def _rejected(data: bytes) -> int:
    """Points that an ExportMetricsServiceResponse says were rejected; answers of another kind say nothing."""
    if not data:
        return 0
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    try:
        return max(ExportMetricsServiceResponse.FromString(data).partial_success.rejected_data_points, 0)
    except DecodeError:
        return 0

"""One agent's REST interface, as far as a screen needs it: GET, JSON, and nothing that it could do to us.

The standard library's client instead of requests: one deadline for the whole exchange (requests has one per
read, so that a server that drips keeps it for ever), no proxies, redirects, .netrc or decompression.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from netprobe._version import __version__
from netprobe.errors import NetprobeError
from netprobe.ui.text import clean

__all__ = ["Address", "AgentClient", "AgentError"]

TIMEOUT_S = 5.0
#: a window of one policy has some 30 kB; the list of a thousand policies a few MB
MAX_ANSWER = 8 << 20


class Address(NamedTuple):
    """Where the agent is. `verify`: check its certificate."""

    host: str = "localhost"
    port: int = 10853
    tls: bool = False
    verify: bool = True

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


class AgentError(NetprobeError):
    """The agent gave no usable answer: one line, `reason` without the address.

    `status` is its HTTP status, 0 without one.
    """

    def __init__(self, address: Address, reason: str, status: int = 0) -> None:
        super().__init__(f"{address}: {reason}")
        self.reason = reason
        self.status = status


class AgentClient:
    """Not thread-safe, except for close(), which also ends a request under way."""

    def __init__(self, address: Address, *, timeout: float = TIMEOUT_S, limit: int = MAX_ANSWER) -> None:
        self.address = address
        self._timeout = timeout
        self._limit = limit
        self._tls = _tls_context(address.verify) if address.tls else None
        self._connection: http.client.HTTPConnection | None = None
        # a connection forgets its own before the answer is read, if the answer is the last one
        self._socket: socket.socket | None = None
        self._expired = False
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._break()

    # --- routes (agent spec 3.2) ---

    def version(self) -> str:
        """The server's, `unknown` if it does not say. AgentError."""
        answer = self._json("/api/v1/metrics/app")
        app = answer.get("app") if isinstance(answer, dict) else None
        version = app.get("version") if isinstance(app, dict) else None
        return clean(version, 32) if isinstance(version, str) and version else "unknown"

    def metrics(self, policy: str, period: str) -> object:
        """A policy's figures; `period` is `window/5`, `bucket/0`, … AgentError."""
        return self._json(f"/api/v1/policies/{quote(policy, safe='')}/metrics/{period}")

    def policies(self) -> object:
        """All policies, by name. AgentError."""
        return self._json("/api/v1/policies")

    # --- the exchange ---

    def _json(self, path: str) -> Any:
        status, body = self._get(path)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
            if status == 200:
                raise AgentError(self.address, "the answer is not JSON") from None
        if status == 200:
            return answer
        error = answer.get("error") if isinstance(answer, dict) else None
        detail = f": {clean(error)}" if isinstance(error, str) else ""
        reason = http.client.responses.get(status, "")
        raise AgentError(self.address, f"{status} {reason}".strip() + detail, status)

    def _get(self, path: str) -> tuple[int, bytes]:
        """Status and body. A connection that the server closed meanwhile is opened once more."""
        if self._closed:
            raise AgentError(self.address, "closed")
        kept = self._connection is not None
        try:
            with self._deadline():
                try:
                    return self._exchange(path)
                except (http.client.RemoteDisconnected, ConnectionError):
                    if not kept or self._expired or self._closed:
                        raise
                    self._shut()
                    return self._exchange(path)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            self._shut()
            raise AgentError(self.address, self._reason(problem)) from None
        except BaseException:
            self._shut()
            raise

    def _exchange(self, path: str) -> tuple[int, bytes]:
        connection = self._connection
        if connection is None:
            connection = self._connect()
        connection.request(
            "GET", path, headers={"Accept": "application/json", "User-Agent": f"pktvisor-cli/{__version__}"}
        )
        response = connection.getresponse()
        body = response.read(self._limit + 1)
        if self._expired or self._closed:
            raise TimeoutError  # to the reader the broken connection may look like the end of the answer
        if len(body) > self._limit:
            self._shut()
            raise AgentError(self.address, f"the answer is longer than {self._limit >> 20} MiB")
        if response.will_close:
            self._shut()
        return response.status, body

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self.address.host, self.address.port
        connection = self._connection = http.client.HTTPConnection(host, port, timeout=self._timeout)
        connection.connect()
        self._socket = connection.sock
        if self._tls is not None:
            # HTTPSConnection shakes hands on a socket that nobody can reach, and so no deadline could break
            wrapped = self._tls.wrap_socket(
                connection.sock, server_hostname=host, do_handshake_on_connect=False
            )
            self._socket = connection.sock = wrapped
            wrapped.do_handshake()
        return connection

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        """Break the connection when the time is up, whatever it is doing then."""
        self._expired = False

        def expire() -> None:
            self._expired = True
            self._break()

        timer = threading.Timer(self._timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _break(self) -> None:
        sock = self._socket
        if sock is not None:
            # not SSLSocket.shutdown, which forgets the TLS state under the reader's feet
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _shut(self) -> None:
        self._break()
        connection, self._connection, self._socket = self._connection, None, None
        if connection is not None:
            connection.close()

    def _reason(self, problem: Exception) -> str:
        if self._closed:
            return "closed"
        if self._expired or isinstance(problem, TimeoutError):
            return f"no answer within {self._timeout:g} s"
        if isinstance(problem, ssl.SSLCertVerificationError):
            return f"certificate: {problem.verify_message} (--tls-noverify skips this check)"
        if isinstance(problem, ssl.SSLError):
            return f"no TLS there: {clean(problem.reason or str(problem))}"
        if isinstance(problem, socket.gaierror):
            return f"host name: {(problem.strerror or '').lower()}"
        if isinstance(problem, http.client.HTTPException):
            hint = "" if self._tls else " (does it want --tls?)"
            return f"no HTTP there{hint}: {clean(str(problem), 60) or type(problem).__name__}"
        if isinstance(problem, OSError) and problem.strerror:
            return problem.strerror.lower()
        return clean(str(problem)) or type(problem).__name__


def _tls_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

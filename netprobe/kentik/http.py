"""HTTP sessions with credentials, a proxy and a time limit that holds for the whole request.

`requests` bounds each wait of a socket, not their sum: a server that sends a byte every ten seconds keeps it
for ever. Here a timer shuts the request's connection down when its time is over, whatever it was waiting for.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ProxyError

from netprobe.errors import ConfigError
from netprobe.kentik.endpoints import masked_url
from netprobe.kentik.errors import RequestFailed

__all__ = ["Answer", "Backoff", "Credentials", "Session", "is_transport_status"]

CONNECT_S = 30.0
REQUEST_S = 30.0
ANSWER_BYTES = 32 << 20
CHUNK_BYTES = 1 << 16

EMAIL_HEADER = "X-CH-Auth-Email"
TOKEN_HEADER = "X-CH-Auth-API-Token"

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


class Credentials:
    """Who asks. Never shown: neither `repr` nor any message holds the token."""

    __slots__ = ("email", "token")

    def __init__(self, email: str, token: str) -> None:
        for flag, value in (("--email", email), ("--token", token)):
            if not value:
                raise ConfigError(f"{flag}: is empty")
            # such characters would end up in the HTTP library's error text, with what stands around them
            if not value.isascii() or not value.isprintable() or value != value.strip():
                raise ConfigError(f"{flag}: holds characters that cannot stand in an HTTP header")
        self.email = email
        self.token = token

    @classmethod
    def choose(cls, email: str | None, token: str | None, environment: Mapping[str, str]) -> Credentials:
        """Flags win over KENTIK_EMAIL and KENTIK_TOKEN; ConfigError names what is missing."""
        email = email if email is not None else environment.get("KENTIK_EMAIL")
        token = token if token is not None else environment.get("KENTIK_TOKEN")
        if email is None:
            raise ConfigError("--email (or KENTIK_EMAIL) is required; --export jsonl needs no account")
        if token is None:
            raise ConfigError("--token (or KENTIK_TOKEN) is required")
        return cls(email, token)

    def __repr__(self) -> str:
        return f"Credentials(email={self.email!r}, token='***')"

    def headers(self) -> dict[str, str]:
        return {EMAIL_HEADER: self.email, TOKEN_HEADER: self.token}


class Answer(NamedTuple):
    """What came back: status, content type ("" for none), body."""

    status: int
    content_type: str
    body: bytes


def is_transport_status(status: int) -> bool:
    """Statuses that the library treats like a broken connection (kflow-wire.md 1.4)."""
    return status >= 500 and status != 501


class _TooLong(ValueError):
    """More than ANSWER_BYTES."""


class _Watch(threading.local):
    """The running request of this thread: its sockets can be shut down from outside."""

    current: _Limit | None = None


_watch = _Watch()


class _Limit:
    """A deadline, enforced by a timer that shuts down the socket in use."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> _Limit:
        _watch.current = self
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        _watch.current = None
        self._timer.cancel()
        self._replace(None)

    def use(self, used: socket.socket) -> None:
        """From now on the request waits for this socket.

        A duplicate is kept: TLS takes the number away from the plain socket, and after a close it could be
        somebody else's.
        """
        self._replace(socket.socket(fileno=os.dup(used.fileno())))

    def _replace(self, by: socket.socket | None) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = by
            if self.expired:
                self._shut()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Watched(HTTPConnection):
    """Tells the running request's limit about the socket, before anything waits for it."""

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        if _watch.current is not None:
            _watch.current.use(made)
        return made

    def request(self, *arguments: Any, **keywords: Any) -> None:
        # None: it will be connected by and by
        if _watch.current is not None and self.sock is not None:
            _watch.current.use(self.sock)
        super().request(*arguments, **keywords)


class _WatchedTLS(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLS


_POOLS = {"http": _Pool, "https": _TLSPool}


class _Adapter(HTTPAdapter):
    """requests' adapter over watched connections, direct or through a proxy."""

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        super().init_poolmanager(*arguments, **keywords)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *arguments: Any, **keywords: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **keywords)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class Backoff:
    """Waits of exponential length: 0.5 s, x 1.5, +- 50 %, at most 60 s each (kflow-wire.md 4.1)."""

    FIRST_S = 0.5
    FACTOR = 1.5
    SPREAD = 0.5
    MOST_S = 60.0

    def __init__(self, seed: int | None = None, scale: float = 1.0) -> None:
        self._random = random.Random(seed)
        self._scale = scale

    def seconds(self, failures: int) -> float:
        """How long to wait after so many failures (1 and more)."""
        plain = min(self.FIRST_S * self.FACTOR ** (failures - 1), self.MOST_S)
        return self._scale * plain * self._random.uniform(1 - self.SPREAD, 1 + self.SPREAD)


class Session:
    """Requests with the credentials' headers. One thread at a time may use it.

    `environment`: without a proxy, the variables HTTP_PROXY and so on decide (the DNS and tag endpoints'
    rule, kprobe.md 9.5). Redirects are not followed: the credentials are for this host alone.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        proxy: str | None = None,
        environment: bool = False,
        connect_s: float = CONNECT_S,
        total_s: float = REQUEST_S,
    ) -> None:
        self.total_s = total_s
        self._connect_s = connect_s
        self._proxy = proxy
        self._environment = environment
        self._session = requests.Session()
        # neither proxies nor .netrc of whoever started this
        self._session.trust_env = False
        # but his certificate authorities: a company's own stands between here and Kentik often enough
        self._session.verify = next((os.environ[name] for name in CA_VARIABLES if os.environ.get(name)), True)
        self._session.headers.clear()
        self._session.headers.update({**credentials.headers(), "Accept-Encoding": "gzip"})
        adapter = _Adapter(pool_connections=4, pool_maxsize=4, max_retries=urllib3.Retry(0, read=False))
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        self._session.close()

    def rest(self) -> None:
        """Nothing will be sent for long: connections are not kept, the next request makes a new one."""
        self._session.close()

    def send(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        total_s: float | None = None,
    ) -> Answer:
        """One attempt. RequestFailed without an answer, in words that hold no secret."""
        limit_s = self.total_s if total_s is None else total_s
        if limit_s <= 0:
            raise RequestFailed(f"{method} {masked_url(url)}: no time left", sent=False)
        with _Limit(limit_s) as limit:
            try:
                answer = self._attempt(method, url, body, headers, limit_s)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                # the socket may be the first to notice
                if limit.expired or isinstance(error, requests.ReadTimeout):
                    raise self._late(method, url, limit_s) from None
                raise self._failure(method, url, error) from None
        # an answer whose end is the end of the connection looks complete when it was cut
        if limit.expired:
            raise self._late(method, url, limit_s)
        return answer

    def _attempt(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None, limit_s: float
    ) -> Answer:
        with self._session.request(
            method,
            url,
            data=body,
            headers=dict(headers or {}),
            proxies=self._proxies(url),
            timeout=(min(self._connect_s, limit_s), limit_s),
            allow_redirects=False,
            stream=True,
        ) as response:
            pieces: list[bytes] = []
            size = 0
            for piece in response.iter_content(CHUNK_BYTES):
                size += len(piece)
                if size > ANSWER_BYTES:
                    raise _TooLong
                pieces.append(piece)
            content_type = response.headers.get("Content-Type", "")
            return Answer(response.status_code, content_type, b"".join(pieces))

    def _proxies(self, url: str) -> dict[str, str]:
        if self._proxy:
            return {"http": self._proxy, "https": self._proxy}
        if self._environment:
            return dict(requests.utils.get_environ_proxies(url))
        return {}

    @staticmethod
    def _late(method: str, url: str, limit_s: float) -> RequestFailed:
        return RequestFailed(f"{method} {masked_url(url)}: no answer within {limit_s:g} s")

    @staticmethod
    def _failure(method: str, url: str, error: Exception) -> RequestFailed:
        cause = _cause(error)
        unsent = isinstance(cause, (NewConnectionError, ConnectTimeoutError, NameResolutionError, ProxyError))
        # a refused connection is a kind of ConnectTimeoutError to urllib3, too
        if isinstance(cause, NameResolutionError):
            text = "host name not known"
        elif isinstance(cause, ConnectTimeoutError) and not isinstance(cause, NewConnectionError):
            text = "connection timed out"
        elif isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
            text, unsent = "not a usable URL", True
        else:
            text = _last_words(cause)
        return RequestFailed(f"{method} {masked_url(url)}: {text}", sent=not unsent)


def _cause(error: BaseException) -> BaseException:
    """The exception that a chain of wrappers is about."""
    for _ in range(8):
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException) and error.args:
            inner = error.args[0]
        if isinstance(error, (NewConnectionError, ConnectTimeoutError, ProxyError)) or not isinstance(
            inner, BaseException
        ):
            break
        error = inner
    return error


def _last_words(error: BaseException) -> str:
    """Short, of one line, without addresses of objects or URLs of a proxy."""
    chain: list[Any] = []
    inner: BaseException | None = error
    while inner is not None and len(chain) < 8:
        chain += [inner, *inner.args]
        inner = inner.__cause__ or inner.__context__
    for candidate in chain:
        if isinstance(candidate, OSError) and candidate.strerror:
            return candidate.strerror.lower()
    if isinstance(error, _TooLong):
        return "the answer is too long"
    if isinstance(error, urllib3.exceptions.DecodeError):
        return "the answer's compression is damaged"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "connection ended before the answer"
    return type(error).__name__

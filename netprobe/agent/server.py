"""The socket, TLS, and the thread's loop of the agent's web server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from netprobe.agent.health import Health
from netprobe.agent.protocol import Limits, Places, protocol_class
from netprobe.errors import ConfigError, InputError

__all__ = ["Limits", "Server", "tls_context"]

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
# how long requests under way may take when the server stops
GRACE_SECONDS = 3
BACKLOG = 1024
# of an address that this machine does not have, such as ::1 where IPv6 is off
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Server:
    """Serves an ASGI app until :meth:`stop`.

    host: a name or an address; all its addresses are listened on. port: 0 takes a free one, see ``port``
    after :meth:`start`. tls: (certificate, key) as PEM files. ConfigError: certificate or key cannot be used.
    """

    def __init__(
        self,
        app: Any,
        host: str = "localhost",
        port: int = 10853,
        tls: tuple[str, str] | None = None,
        *,
        limits: Limits | None = None,
    ) -> None:
        self.app = app
        self.host = host
        self.port = port
        self.limits = limits or Limits()
        self._context = tls_context(*tls) if tls else None
        self._sockets: list[socket.socket] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uvicorn: _Uvicorn | None = None
        self._stopped = False

    @property
    def address(self) -> str:
        """HOST:PORT as log lines have it, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://{self.address}"

    def start(self) -> None:
        """Bind and listen, in the calling thread. InputError: `unable to bind to HOST:PORT: why`."""
        if not 0 <= self.port <= 65535:
            raise InputError(f"unable to bind to {self.address}: a port lies between 0 and 65535")
        try:
            self._sockets, self.port = _listen(self.host, self.port)
        except OSError as error:
            # getaddrinfo's errors have a text of their own
            reason = error.strerror or str(error)
            raise InputError(f"unable to bind to {self.address}: {reason[:1].lower()}{reason[1:]}") from None

    def run(self) -> None:
        """Serve in this thread until :meth:`stop`; returns when all is closed."""
        if not self._sockets:
            self.start()
        health = getattr(self.app, "health", None)
        places = Places(self.limits, health if health is not None else _NoHealth())
        places.health.connections = lambda: places.open
        config = uvicorn.Config(
            self.app,
            loop="asyncio",
            http=protocol_class(places),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=self.limits.header_bytes,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._uvicorn = _Uvicorn(config, self, places)
        chatter = logging.getLogger("uvicorn.error")
        if chatter.level < logging.ERROR:
            # what a stranger can repeat without end is counted, not logged
            chatter.setLevel(logging.ERROR)
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        finally:
            self._loop = None
            for one in self._sockets:
                one.close()
            self._sockets = []
            close = getattr(self.app, "close", None)
            if close is not None:
                close()

    async def _serve(self) -> None:
        assert self._uvicorn is not None
        self._loop = asyncio.get_running_loop()
        if self._stopped:
            return
        log.info("web server listening on %s", self.address)
        await self._uvicorn.serve(sockets=self._sockets)

    def stop(self) -> None:
        """End :meth:`run`; from any thread, and from signal handlers."""
        self._stopped = True
        loop, server = self._loop, self._uvicorn
        if loop is not None and server is not None:
            # the loop may just have ended
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(server.ask_to_stop)

    @property
    def context(self) -> ssl.SSLContext | None:
        return self._context


class _NoHealth(Health):
    """For apps that are not ours, in tests."""

    def __init__(self) -> None:
        from collections import Counter

        self.refused = Counter()


class _Uvicorn(uvicorn.Server):
    """uvicorn without signals of its own, without a tick, with TLS that has its own deadline."""

    def __init__(self, config: uvicorn.Config, owner: Server, places: Places) -> None:
        super().__init__(config)
        self._owner = owner
        self._places = places
        self._end = asyncio.Event()

    def ask_to_stop(self) -> None:
        self.should_exit = True
        self._end.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # signals belong to the program
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        config, loop = self.config, asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        context = self._owner.context
        more = {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": 1.0} if context else {}
        self.servers = [
            await loop.create_server(protocol, sock=one, ssl=context, backlog=BACKLOG, **more)  # type: ignore[call-overload]
            for one in sockets or []
        ]
        self.started = True

    async def main_loop(self) -> None:
        await self._end.wait()


def _listen(host: str, port: int) -> tuple[list[socket.socket], int]:
    """Sockets that listen on every address of a host; one port for all. OSError."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    # IPv4 first: a free port is chosen there, and has to be free for the others
    addresses.sort(key=lambda one: one[0] != socket.AF_INET)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in addresses:
            try:
                # asyncio turns Nagle off only where it reads the protocol
                one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            except OSError as error:
                absent = error
                continue
            sockets.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and len(addresses) > 1:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                one.bind((address[0], port, *address[2:]))
                # two sockets may bind one port as long as neither listens: so the loser learns it only here
                one.listen(BACKLOG)
            except OSError as error:
                if error.errno not in NOT_HERE:
                    raise
                absent = error
                sockets.pop().close()
                continue
            port = port or one.getsockname()[1]
    except OSError:
        for one in sockets:
            one.close()
        raise
    if not sockets:
        raise absent or OSError(errno.EADDRNOTAVAIL, "no address of this machine")
    return sockets, port


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 and newer with this certificate (chain) and key; ConfigError says which file is wrong."""
    for what, path in (("certificate", cert), ("key", key)):
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"TLS {what} {path}: {(error.strerror or str(error)).lower()}") from None
        wanted = b"CERTIFICATE-----" if what == "certificate" else b"PRIVATE KEY-----"
        if wanted not in data:
            raise ConfigError(f"TLS {what} {path}: no PEM {what} in it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_password() -> str:
        # the default would ask on the terminal
        raise ConfigError(f"TLS key {key}: encrypted, expected a key without a password")

    try:
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if "MISMATCH" in (error.reason or ""):
            raise ConfigError(f"TLS key {key}: does not belong to the certificate {cert}") from None
        reason = (error.reason or str(error)).lower().replace("_", " ")
        raise ConfigError(f"TLS certificate {cert} with key {key}: {reason}") from None
    return context

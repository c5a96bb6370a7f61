"""The socket, TLS, and the thread's loop of the agent's web server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn

from netprobe.agent.acceptor import Acceptor
from netprobe.agent.health import Health
from netprobe.agent.listening import Listener, tls_context
from netprobe.agent.protocol import Limits, Places, protocol_class

__all__ = ["Limits", "Server", "tls_context"]

log = logging.getLogger(__name__)

# how long requests under way may take when the server stops
GRACE_SECONDS = 3


class Server:
    """Serves an ASGI app until :meth:`stop`.

    listener: one that is open already, in place of host, port and tls.

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
        listener: Listener | None = None,
    ) -> None:
        self.app = app
        self.limits = limits or Limits()
        self._listener = listener or Listener(host, port, tls)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uvicorn: _Uvicorn | None = None
        self._stopped = False

    @property
    def host(self) -> str:
        return self._listener.host

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def address(self) -> str:
        """HOST:PORT as log lines have it, an IPv6 address in brackets."""
        return self._listener.address

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://{self.address}"

    def start(self) -> None:
        """Bind and listen, in the calling thread. InputError: `unable to bind to HOST:PORT: why`."""
        self._listener.open()

    def run(self) -> None:
        """Serve in this thread until :meth:`stop`; returns when all is closed."""
        if not self._listener.sockets:
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
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._uvicorn = _Uvicorn(config, self, places)
        chatter = logging.getLogger("uvicorn.error")
        if chatter.level < logging.ERROR:
            # what a stranger can repeat without end is counted, not logged
            chatter.setLevel(logging.ERROR)
        try:
            start = getattr(self.app, "start", None)
            if start is not None:
                start()
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        finally:
            self._loop = None
            self._listener.close()
            close = getattr(self.app, "close", None)
            if close is not None:
                close()

    async def _serve(self) -> None:
        assert self._uvicorn is not None
        self._loop = asyncio.get_running_loop()
        if self._stopped:
            return
        log.info("web server listening on %s", self.address)
        await self._uvicorn.serve(sockets=self._listener.sockets)

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
        return self._listener.context


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
        config = self.config

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        context = self._owner.context
        # they have of an asyncio server what uvicorn asks of one
        self.servers = [Acceptor(one, protocol, context, self._places) for one in sockets or []]  # type: ignore[misc]
        self.started = True

    async def main_loop(self) -> None:
        await self._end.wait()

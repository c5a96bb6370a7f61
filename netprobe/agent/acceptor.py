"""Takes connections in: how many may be in the TLS handshake at once, and what if file descriptors run out.

The event loop's own server would keep any number of clients that never finish their handshake, and write a
traceback for each connection that it has no file descriptor for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable

from netprobe.agent.alerts import CONNECTION
from netprobe.agent.protocol import Places

__all__ = ["Acceptor"]

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 1.0
# when nothing can be accepted: try again, and say so again
PAUSE = 0.2
SAY_AGAIN = 60.0
NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """One listening socket. With the face of an asyncio server, as far as uvicorn needs it."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        places: Places,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._context = context
        self._places = places
        self._loop = asyncio.get_running_loop()
        # connections that are no HTTP yet, oldest first
        self._early: dict[asyncio.Task[None], None] = {}
        self._said = float("-inf")
        self._task = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Take no more; what is no HTTP yet ends."""
        self._task.cancel()
        for task in list(self._early):
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._task, *self._early, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:
                # one that went away before it was taken in is no trouble
                if error.errno in NO_ROOM:
                    self._complain(error)
                    await asyncio.sleep(PAUSE)
                continue
            if len(self._early) >= self._places.limits.connections:
                next(iter(self._early)).cancel()
                self._places.health.refused["connections"] += 1
                # let it go before the next one comes
                await asyncio.sleep(0)
            task = self._loop.create_task(self._welcome(connection))
            self._early[task] = None
            task.add_done_callback(lambda done: self._early.pop(done, None))

    async def _welcome(self, connection: socket.socket) -> None:
        """From an accepted socket to a protocol that serves it."""
        more = {}
        CONNECTION.set(connection)
        if self._context is not None:
            more = {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": SHUTDOWN_SECONDS}
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._context, **more)
        except asyncio.CancelledError:
            connection.close()
            raise
        except (OSError, ValueError):
            # no TLS, or none that we speak; ValueError: gone already
            if self._context is not None:
                self._places.health.refused["handshake"] += 1
            connection.close()

    def _complain(self, error: OSError) -> None:
        if time.monotonic() - self._said >= SAY_AGAIN:
            self._said = time.monotonic()
            log.error("web server: no connection can be accepted: %s", (error.strerror or str(error)).lower())

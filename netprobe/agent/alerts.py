"""TLS that tells the client why a handshake fails, as RFC 8446, 6.2 asks for.

OpenSSL leaves the alert in memory, and asyncio closes the connection without sending what is there. Plain
HTTP gets none: OpenSSL makes none for who could not read it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from contextvars import ContextVar
from typing import Any

__all__ = ["CONNECTION", "AlertContext"]

#: the socket that the current task does a handshake on
CONNECTION: ContextVar[socket.socket] = ContextVar("CONNECTION")

ONGOING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class AlertObject(ssl.SSLObject):
    """One side of a connection."""

    outgoing: ssl.MemoryBIO
    connection: socket.socket | None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ONGOING:
            raise
        except ssl.SSLError:
            if self.connection is not None:
                # a few bytes; who does not take them at once goes without
                with contextlib.suppress(OSError):
                    self.connection.send(self.outgoing.read())
            raise


class AlertContext(ssl.SSLContext):
    sslobject_class = AlertObject

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *rest: Any, **more: Any
    ) -> AlertObject:
        made = super().wrap_bio(incoming, outgoing, *rest, **more)
        assert isinstance(made, AlertObject)
        made.outgoing = outgoing
        made.connection = CONNECTION.get(None)
        return made

"""Tells the service manager how we are: the protocol of sd_notify(3), which needs no library."""

from __future__ import annotations

import contextlib
import os
import socket
import time

__all__ = ["Notifier"]


class Notifier:
    """Datagrams to the socket in `NOTIFY_SOCKET`; without one, all of this does nothing.

    A manager that does not listen is no reason to fail.
    """

    def __init__(self, address: str | None = None) -> None:
        if address is None:
            # not for children: the notifications are ours alone
            address = os.environ.pop("NOTIFY_SOCKET", "")
        self._stream: socket.socket | None = None
        if not address.startswith(("/", "@")):
            return
        # an abstract name begins with a zero byte, written as @
        path = "\0" + address[1:] if address.startswith("@") else address
        with contextlib.suppress(OSError):
            # now, because after the privileges are dropped the path may be out of reach
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            stream.setblocking(False)
            stream.connect(path)
            self._stream = stream

    def ready(self, status: str = "") -> None:
        """Started, or done with reloading. The process id is sent because a daemon is not who was started."""
        self._send("READY=1", f"MAINPID={os.getpid()}", status and f"STATUS={status}")

    def reloading(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def failed(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def _send(self, *lines: str) -> None:
        if self._stream is None:
            return
        data = "\n".join(line.replace("\n", " ") for line in lines if line).encode("utf-8", "replace")
        with contextlib.suppress(OSError):
            self._stream.send(data)

"""What RFC 9112 asks of a server and h11 leaves to its user: which requests are taken, and as what."""

from __future__ import annotations

import re
from typing import Any

import h11

__all__ = ["Connection"]

# h11's words for an empty line where a request should begin; it is consumed then
EMPTY_LINE = "no request line received"

# an authority without user information, which would be a trick (RFC 9110 4.2.4)
ABSOLUTE = re.compile(rb"https?://[^/?@]+((?:[/?].*)?)", re.IGNORECASE)
# uri-host [":" port], RFC 3986; nothing is a host too
HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.~!$&'()*+,;=%:-]+\])(?::\d*)?", re.ASCII)


class Connection(h11.Connection):
    """A server's side. ``refusal``: the status for the request that raised RemoteProtocolError, and why."""

    def __init__(self, header_bytes: int) -> None:
        super().__init__(h11.SERVER, header_bytes)
        self.refusal = (400, "")
        self._header_bytes = header_bytes

    def receive_data(self, data: bytes) -> None:
        if self.their_state is h11.IDLE and not self.trailing_data[0]:
            # some clients end a body with a line end that nobody counts (RFC 9112 2.2)
            data = data.lstrip(b"\r\n")
        # to h11 nothing means the end
        if data:
            super().receive_data(data)

    @property
    def after_empty_line(self) -> bytes | None:
        """If nothing but an empty line was refused: what came after it, for another connection's start."""
        return self.trailing_data[0] if self.refusal[1] == EMPTY_LINE else None

    def next_event(self) -> Any:
        try:
            event = super().next_event()
            return self._checked(event) if isinstance(event, h11.Request) else event
        except h11.RemoteProtocolError as problem:
            # without the line itself, which h11 quotes in Python's words
            self.refusal = (problem.error_status_hint, str(problem).partition(": bytearray(")[0])
            raise

    def _checked(self, request: h11.Request) -> h11.Request:
        # h11 measures only what is not complete yet
        lines = sum(len(name) + len(value) + 4 for name, value in request.headers)
        size = len(request.method) + len(request.target) + lines
        if size > self._header_bytes:
            raise h11.RemoteProtocolError("head too large", error_status_hint=431)
        if not request.http_version.startswith(b"1."):
            raise h11.RemoteProtocolError("only HTTP/1.1 and HTTP/1.0 are spoken", error_status_hint=505)
        headers = dict(request.headers)
        if not HOST.fullmatch(headers.get(b"host", b"")):
            raise h11.RemoteProtocolError("bad Host: header")
        if b"transfer-encoding" in headers and b"content-length" in headers:
            # two ends of one body: whoever is in between may believe the other one (RFC 9112 6.1)
            raise h11.RemoteProtocolError("both Transfer-Encoding: and Content-Length: headers")
        absolute = ABSOLUTE.fullmatch(request.target)
        if absolute is None:
            return request
        # as a client writes it to a proxy, and every server must take it (RFC 9112 3.2.2)
        rest = absolute[1]
        return h11.Request(
            method=request.method,
            target=rest if rest.startswith(b"/") else b"/" + rest,
            headers=request.headers,
            http_version=request.http_version,
        )

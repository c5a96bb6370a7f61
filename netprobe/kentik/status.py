"""The status server: GET /v1/status on the local machine (kprobe.md, section 8)."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from netprobe.kentik.meters import Meter
from netprobe.kentik.worker import LOG

__all__ = ["StatusServer"]

ROUTE = "/v1/status"
TIMEOUT_S = 5
CONNECTIONS = 64


def document(flows_in: Meter, flows_out: Meter) -> bytes:
    """The body: indented by two blanks, with a final newline; a rate of 0 prints as `0`."""

    def one(meter: Meter) -> dict[str, Any]:
        count, fast, slow = meter.read()
        return {"count": count, "1m.rate": fast or 0, "5m.rate": slow or 0}

    return (json.dumps({"flows-in": one(flows_in), "flows-out": one(flows_out)}, indent=2) + "\n").encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: Any, family: socket.AddressFamily) -> None:
        self.address_family = family
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        # a thread each, thus not any number of them
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.debug("status server: a connection failed")


class StatusServer:
    """Listens from construction on; `port` is the real one. OSError when it cannot."""

    def __init__(self, host: str, port: int, flows_in: Meter, flows_out: Meter) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT_S
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                # what a request brings along is not read, so that its connection cannot be used again
                self.close_connection = self.close_connection or "Content-Length" in self.headers
                if self.path.partition("?")[0] == ROUTE:
                    status, kind, body = 200, "application/json", document(flows_in, flows_out)
                else:
                    status, kind, body = 404, "text/plain; charset=utf-8", b"404 page not found\n"
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def __getattr__(self, name: str) -> Any:
                # any method is as good as GET
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def log_message(self, *_: object) -> None:
                pass

        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._server = _Server((str(address[0]), port), Handler, family)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.2},
            name="status server",
            daemon=True,
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

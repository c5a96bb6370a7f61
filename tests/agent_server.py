"""A small HTTP server in the place of pktvisord: answers what a test tells it to, over real sockets."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import netprobe

CAPTURES = Path(__file__).resolve().parent / "captures"

#: status and body; bytes go out as they are, anything else as JSON
Answer = tuple[int, Any]


def per_policy(
    summary: netprobe.Summary, policy: str = "default", *, live: int | None = None
) -> dict[str, Any]:
    """A summary as the agent's answer for a policy (agent spec 3.4.2); `live` puts that into every rate."""
    (window,) = summary.to_dict().values()
    if live is not None:
        for handler in window.values():
            for block in (handler, *(handler.get(name, {}) for name in ("in", "out", "unknown"))):
                if isinstance(block, dict):
                    for rate in block.get("rates", {}).values():
                        rate["live"] = live
    return {policy: {f"default-{key}": {key: metrics} for key, metrics in window.items()}}


def policy_object(*kinds: str, periods: int = 5) -> dict[str, Any]:
    """As GET /api/v1/policies describes one (agent spec 3.3)."""
    return {
        "input": {},
        "modules": {
            f"handler-{kind}": {
                "module": {"name": f"handler-{kind}", "type": kind, "running": True, "config": {}},
                "metrics": {"deep_sample_rate": 100, "periods_configured": periods, "periods": []},
            }
            for kind in kinds
        },
    }


class AgentServer:
    """`routes`: path -> answer, or a function that makes one; "*" is for all others (404 without it)."""

    def __init__(
        self, routes: Mapping[str, Answer | Callable[[], Answer]], tls: ssl.SSLContext | None = None
    ) -> None:
        self.routes = dict(routes)
        self.requests: list[str] = []
        agent = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                agent.requests.append(self.path)
                answer = agent.routes.get(self.path, agent.routes.get("*", (404, b"")))
                status, body = answer() if callable(answer) else answer
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients that hang up are part of the tests

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            # the handshake is the connection's thread's business, which a silent client may hold up
            self.server.socket = tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def asked(self, path: str) -> int:
        return self.requests.count(path)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@contextmanager
def serve(
    routes: Mapping[str, Answer | Callable[[], Answer]], tls: ssl.SSLContext | None = None
) -> Iterator[AgentServer]:
    server = AgentServer(routes, tls)
    server.thread.start()
    try:
        yield server
    finally:
        server.stop()


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, ssl.SSLContext]:
    """A certificate that nobody has signed but itself, and a server's context with it."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", key, "-out", cert, "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context

"""Sockets and TLS of the agent's web server: open before privileges go and heavy libraries load."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from netprobe.errors import ConfigError, InputError

if TYPE_CHECKING:
    import ssl

__all__ = ["Listener", "tls_context"]

BACKLOG = 1024
# of an address that this machine does not have, such as ::1 where IPv6 is off
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Listener:
    """Where clients may connect to, from :meth:`open` on; they are answered once a server serves it.

    host: a name or an address; all its addresses are listened on. port: 0 takes a free one. tls:
    (certificate, key) as PEM files. ConfigError: certificate or key cannot be used.
    """

    def __init__(self, host: str, port: int, tls: tuple[str, str] | None = None) -> None:
        self.host = host
        self.port = port
        self.context = tls_context(*tls) if tls else None
        self.sockets: list[socket.socket] = []

    @property
    def address(self) -> str:
        """HOST:PORT as log lines have it, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def open(self) -> None:
        """Bind and listen. InputError: `unable to bind to HOST:PORT: why`."""
        if not 0 <= self.port <= 65535:
            raise InputError(f"unable to bind to {self.address}: a port lies between 0 and 65535")
        try:
            self.sockets, self.port = _listen(self.host, self.port)
        except OSError as error:
            # getaddrinfo's errors have a text of their own
            reason = error.strerror or str(error)
            raise InputError(f"unable to bind to {self.address}: {reason[:1].lower()}{reason[1:]}") from None
        except ValueError:
            # empty labels, labels of more than 63 characters, zero bytes
            raise InputError(f"unable to bind to {self.address}: no host can have this name") from None

    def close(self) -> None:
        for one in self.sockets:
            one.close()
        self.sockets = []


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
    import ssl

    from netprobe.agent.alerts import AlertContext

    for what, path in (("certificate", cert), ("key", key)):
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"TLS {what} {path}: {(error.strerror or str(error)).lower()}") from None
        wanted = b"CERTIFICATE-----" if what == "certificate" else b"PRIVATE KEY-----"
        if wanted not in data:
            raise ConfigError(f"TLS {what} {path}: no PEM {what} in it")
    context = AlertContext(ssl.PROTOCOL_TLS_SERVER)
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

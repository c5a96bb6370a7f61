"""Files that hold secrets: the admin token, certificates and their keys, tried out before anything starts."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from netprobe.errors import ConfigError

__all__ = ["checked_pair", "read_token"]

LOG = logging.getLogger("netprobe.agent")

MAX_TOKEN_BYTES = 4096


def read_token(path: str) -> str:
    """The first line of the token file. ConfigError when there is none, or others can read it."""
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_TOKEN_BYTES + 1)
    except OSError as problem:
        raise ConfigError(
            f"--admin-token-file {path}: {(problem.strerror or str(problem)).lower()}"
        ) from None
    token = data.split(b"\n")[0].strip()
    if not token or len(data) > MAX_TOKEN_BYTES or not token.isascii() or not token.decode().isprintable():
        raise ConfigError(
            f"--admin-token-file {path}: expected one line of printable ASCII, at most 4096 bytes"
        )
    if mode & 0o007:
        LOG.warning("%s: the token can be read by every user of this machine", path)
    return token.decode()


def checked_pair(flag: str, cert: str, key: str) -> tuple[str, str]:
    """A certificate and its key, tried out. ConfigError names the file that does not do."""
    import ssl

    for path in (cert, key):
        try:
            with Path(path).open("rb"):
                pass
        except OSError as problem:
            reason = (problem.strerror or str(problem)).lower()
            raise ConfigError(f"{flag}-{'cert' if path == cert else 'key'} {path}: {reason}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def no_password() -> bytes:
        raise ConfigError(f"{flag}-key {key}: it has a password, expected a key without one")

    try:
        context.load_cert_chain(cert, key, password=no_password)
    except ssl.SSLError as problem:
        reason = "it does not belong to the certificate" if problem.reason == "KEY_VALUES_MISMATCH" else ""
        if reason:
            raise ConfigError(f"{flag}-key {key}: {reason} {cert}") from None
        raise ConfigError(
            f"{flag}-cert {cert}, {flag}-key {key}: not a PEM certificate and its key"
        ) from None
    return cert, key

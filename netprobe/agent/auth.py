"""The bearer token of the admin routes: optional, from a file, beyond upstream."""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path

from netprobe.errors import ConfigError

__all__ = ["allows", "read_token"]

SHORTEST = 16
LONGEST = 4096
SCHEME = b"bearer"


def read_token(path: str) -> str:
    """The token in a file: its only line, printable ASCII without blanks.

    ConfigError if the file cannot be read, if others may read it, or if what it holds is no token.
    """
    try:
        with Path(path).open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(LONGEST + 2)
    except OSError as error:
        raise ConfigError(f"admin token file {path}: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        raise ConfigError(f"admin token file {path}: everybody can read it, expected mode 600 or 640")
    token = data.strip()
    if not SHORTEST <= len(token) <= LONGEST:
        raise ConfigError(
            f"admin token file {path}: {len(token)} characters, expected one line of {SHORTEST} to {LONGEST}"
        )
    if any(not 0x21 <= byte <= 0x7E for byte in token):
        raise ConfigError(f"admin token file {path}: expected one line of printable ASCII without blanks")
    return token.decode("ascii")


def allows(token: str, header: bytes | None) -> bool:
    """Does this Authorization header carry the token? Takes as long for a wrong one as for the right one."""
    scheme, _, given = (header or b"").strip().partition(b" ")
    right = hmac.compare_digest(given.strip(), token.encode("ascii"))
    return right and scheme.lower() == SCHEME

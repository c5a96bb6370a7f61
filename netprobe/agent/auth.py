"""The bearer token of the admin routes: optional, beyond upstream."""

from __future__ import annotations

import hmac

__all__ = ["allows"]

SCHEME = b"bearer"


def allows(token: str, header: bytes | None) -> bool:
    """Does this Authorization header carry the token? Takes as long for a wrong one as for the right one."""
    scheme, _, given = (header or b"").strip().partition(b" ")
    right = hmac.compare_digest(given.strip(), token.encode("ascii"))
    return right and scheme.lower() == SCHEME

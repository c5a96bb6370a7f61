"""Message bodies for the flow endpoint, and a reader of them (kflow-wire.md, sections 2.2 and 3).

Encoding is native (netprobe._core.kflow): one record through pycapnp costs about 18 us, through this about
half of one, of which the schema's fixed layout is the whole secret. pycapnp reads messages here, and tests
compare what it reads with what was written.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netprobe._core.kflow import Batch, pack
from netprobe.errors import ConfigError

__all__ = ["GZIP_LEVEL", "HEADER_BYTES", "SCHEMA", "encode", "load_schema", "read"]

#: our own schema file
SCHEMA = Path(__file__).with_name("kflow.capnp")
#: zeros before the message: an obsolete client id, of which only the length counts
HEADER_BYTES = 80
GZIP_LEVEL = 1
GZIP_WINDOW = 31  # zlib's number for the gzip form

#: what a reader of untrusted messages accepts, in words of 8 bytes
READ_LIMIT_WORDS = 1 << 29


def encode(
    parts: Sequence[tuple[Batch, int, int]], device_id: int, dropped: int = 0, level: int = GZIP_LEVEL
) -> bytes:
    """The body of one request: gzip of 80 zero bytes and one packed message.

    `parts`: (batch, first, behind the last); `dropped`: records lost since the last message (2.6).
    """
    message = pack(parts, device_id, dropped)
    squeeze = zlib.compressobj(level, zlib.DEFLATED, GZIP_WINDOW)
    return b"".join((squeeze.compress(bytes(HEADER_BYTES)), squeeze.compress(message), squeeze.flush()))


def load_schema() -> Any:
    """The schema as a pycapnp module; ConfigError without pycapnp."""
    try:
        import capnp
    except ImportError:
        raise ConfigError(
            "reading kflow messages needs pycapnp: pip install 'netprobe-suite[kentik]'"
        ) from None
    return capnp.load(str(SCHEMA))


def read(body: bytes) -> list[dict[str, Any]]:
    """The records of a request body, as dictionaries by the schema's names. ValueError if it is not one."""
    try:
        plain = zlib.decompress(body, GZIP_WINDOW)
        if any(plain[:HEADER_BYTES]) or len(plain) <= HEADER_BYTES:
            raise ValueError("no message behind 80 zero bytes")
        root = load_schema().PackedCHF.from_bytes_packed(
            plain[HEADER_BYTES:], traversal_limit_in_words=READ_LIMIT_WORDS
        )
        return [record.to_dict() for record in root.msgs]
    except (zlib.error, RuntimeError) as error:
        raise ValueError(f"not a kflow message: {error}") from None

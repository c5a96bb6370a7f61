"""A capture from first byte to last: opened, its format known, and in the end what was wrong with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from netprobe._core.capfile import CaptureReader
from netprobe._core.decode import known_link_type
from netprobe.errors import InputError
from netprobe.inputs.sources import Source, Stop, open_source
from netprobe.linktypes import name_of

__all__ = ["complaints", "open_capture"]


@contextlib.contextmanager
def open_capture(
    path: str | os.PathLike[str], stop: Stop | None = None
) -> Iterator[tuple[Source, CaptureReader]]:
    """A capture ready to be read; InputError names the file and what is wrong. `stop`: as for open_source."""
    with open_source(path, stop) as source:
        reader = CaptureReader(source)
        try:
            reader.open()
        except ValueError as problem:
            raise source.error() or InputError(
                f"{source.name}: {problem}; expected a pcap or pcapng capture"
            ) from None
        except OSError as problem:
            raise InputError(f"{source.name}: cannot be read: {problem.strerror}") from None
        # a pcapng file tells its link types as it goes on
        if reader.format_name == "pcap" and not known_link_type(reader.interfaces()[0][0]):
            raise _unsupported(source, name_of(reader.interfaces()[0][0]))
        yield source, reader


def complaints(source: Source, reader: CaptureReader) -> list[str]:
    """After the end: one line for each thing that was wrong with the file; what came before counts.

    InputError if no packet had a link type that can be decoded.
    """
    name = source.name
    found = []
    problem = source.error()
    if problem is not None:
        found.append(f"{problem}; what came before counts")
    elif reader.how_ended == "cut":
        found.append(f"{name}: is cut off in the middle of a record; what came before counts")
    elif reader.how_ended == "damaged":
        found.append(
            f"{name}: has an impossible record after {reader.bytes_read} bytes; what came before counts"
        )
    elif reader.how_ended == "io":
        found.append(f"{name}: {reader.error_text}; what came before counts")
    if reader.orphan_packets:
        found.append(f"{name}: {reader.orphan_packets} packets of interfaces that the file does not describe")
    seen = [(kind, n) for kind, n in reader.interfaces() if n]
    strange = [(kind, n) for kind, n in seen if not known_link_type(kind)]
    if strange and len(strange) == len(seen):
        raise _unsupported(source, ", ".join(sorted({name_of(kind) for kind, _ in strange})))
    found += [
        f"{name}: {n} packets of link type {name_of(kind)}, which is not supported" for kind, n in strange
    ]
    return found


def _unsupported(source: Source, names: str) -> InputError:
    return InputError(f"{source.name}: link type {names} is not supported")

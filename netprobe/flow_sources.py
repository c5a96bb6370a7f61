"""Where the packets of `netprobe.flows` come from: a capture, or an interface."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netprobe._core.capfile import CaptureReader
from netprobe._core.decode import known_link_type
from netprobe.errors import ConfigError, InputError
from netprobe.inputs.captures import complaints
from netprobe.inputs.sources import open_source
from netprobe.linktypes import name_of

__all__ = ["FileSource", "LiveSource", "open_flow_source"]

#: seconds between two chunks of an interface
EVERY_S = 1.0
#: seconds to go on reading at the end: at least, and while packets come
LINGER_S = 0.1
LINGER_MOST_S = 2.0


class FileSource:
    """A capture file, in packet time. InputError: it cannot be read. ConfigError: the filter is wrong."""

    live = False

    def __init__(self, path: str | os.PathLike[str], filter: str | None) -> None:
        self.compile_filter: Callable[[int], Any] | None = None
        if filter:
            from netprobe.filters import compiler

            self.compile_filter = compiler(filter)
        self._file = open_source(path)
        try:
            self.packets = CaptureReader(self._file)
            try:
                self.packets.open()
            except ValueError as problem:
                raise self._file.error() or InputError(
                    f"{self._file.name}: {problem}; expected a pcap or pcapng capture"
                ) from None
            if self.packets.format_name == "pcap":
                link_type = self.packets.interfaces()[0][0]
                if not known_link_type(link_type):
                    raise InputError(f"{self._file.name}: link type {name_of(link_type)} is not supported")
        except BaseException:
            self._file.close()
            raise

    def wait(self) -> float | None:
        """How long to gather records for a chunk, in seconds; 0: it is time to end."""
        return None

    def end(self) -> bool:
        """Stop soon. True: at once, the rest of the file is not wanted."""
        return True

    def losses(self) -> dict[str, Any]:
        return {}

    def complaints(self) -> list[str]:
        """At the end: what was wrong with the file. InputError: no packet had a link type that is known."""
        return complaints(self._file, self.packets)

    def close(self) -> None:
        self._file.close()


class LiveSource:
    """An interface, by the wall clock. InputError: none such, no permission. ConfigError: a wrong filter."""

    live = True
    compile_filter: Callable[[int], Any] | None = None

    def __init__(self, name: str, filter: str | None, seconds: float | None) -> None:
        from netprobe.inputs.live import open_live

        self._capture = open_live(name, filter=filter)
        self.packets = self._capture.source
        self._until = math.inf if seconds is None else time.monotonic() + seconds

    def wait(self) -> float:
        """How long to gather records for a chunk, in seconds; 0: it is time to end."""
        left = self._until - time.monotonic()
        if left > 0:
            return min(EVERY_S, left)
        # what came in time may still lie in the kernel's ring
        over = -left >= LINGER_MOST_S or (-left >= LINGER_S and bool(self.packets.silent))
        return 0.0 if over else LINGER_S

    def end(self) -> bool:
        """Stop soon. True: at once."""
        self._until = min(self._until, time.monotonic())
        self._capture.wake()
        return False

    def losses(self) -> dict[str, Any]:
        return {"drops": self._capture.drops()}

    def complaints(self) -> list[str]:
        return []

    def close(self) -> None:
        self._capture.close()


def open_flow_source(
    path: str | os.PathLike[str], filter: str | None, seconds: float | None
) -> FileSource | LiveSource:
    """A file that exists, else an interface: by name, by an address that it has, `any` or `auto`."""
    name = os.fspath(path)
    if not isinstance(name, str) or name == "-" or "/" in name or Path(name).exists():
        if seconds is not None:
            raise ConfigError(
                f"seconds: {name!r} is a capture, which runs on packet time; expected an interface"
            )
        return FileSource(path, filter)
    from netprobe.inputs.interfaces import resolve_interface

    try:
        resolve_interface(name)
    except InputError as problem:
        raise InputError(f"{name}: no such file, and as an interface: {problem}") from None
    return LiveSource(name, filter, seconds)

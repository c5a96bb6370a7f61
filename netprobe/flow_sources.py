"""Where the packets of `netprobe.flows` come from: a capture, or an interface."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netprobe._core.capfile import CaptureReader
from netprobe._core.decode import known_link_type
from netprobe.errors import InputError
from netprobe.inputs.sources import open_source
from netprobe.linktypes import name_of

__all__ = ["FileSource", "LiveSource", "open_flow_source"]

#: seconds between two chunks of an interface
EVERY_S = 1.0


class FileSource:
    """A capture file, in packet time. InputError: it cannot be read. ConfigError: the filter is wrong."""

    live = False

    def __init__(self, path: str | os.PathLike[str], filter: str | None) -> None:
        self.compile_filter: Callable[[int], Any] | None = None
        if filter:
            from netprobe.filters import compile_filter

            compile_filter(filter, 1)
            self.compile_filter = lambda linktype: compile_filter(filter, linktype)
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

    def losses(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self._file.close()


class LiveSource:
    """An interface, by the wall clock. InputError: no such interface, no permission, a wrong filter."""

    live = True
    compile_filter: Callable[[int], Any] | None = None

    def __init__(self, name: str, filter: str | None, seconds: float | None) -> None:
        from netprobe.inputs.live import open_live

        self._capture = open_live(name, filter=filter)
        self.packets = self._capture.source
        self._until = None if seconds is None else time.monotonic() + seconds

    def wait(self) -> float | None:
        """How long to gather records for a chunk, in seconds; 0: it is time to end."""
        if self._until is None:
            return EVERY_S
        return min(EVERY_S, max(self._until - time.monotonic(), 0.0))

    def losses(self) -> dict[str, Any]:
        return {"drops": self._capture.drops()}

    def close(self) -> None:
        self._capture.close()


def open_flow_source(
    path: str | os.PathLike[str], filter: str | None, seconds: float | None
) -> FileSource | LiveSource:
    """A file that exists, else an interface of that name, else whatever the file has to say."""
    name = os.fspath(path)
    if isinstance(name, str) and "/" not in name and not Path(name).exists() and _is_interface(name):
        return LiveSource(name, filter, seconds)
    return FileSource(path, filter)


def _is_interface(name: str) -> bool:
    import socket

    return name in (each for _, each in socket.if_nameindex())

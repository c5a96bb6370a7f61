"""A capture file through kprobe's flow table: packet time, kprobe's schedule, everything out at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from netprobe._core.capfile import CaptureReader
from netprobe._core.decode import known_link_type
from netprobe._core.flow_reader import FlowReader
from netprobe.errors import InputError
from netprobe.export.batch import Buffers, FlowBatch
from netprobe.inputs.sources import open_source
from netprobe.linktypes import name_of

__all__ = ["BATCH_ROWS", "Applications", "Replay"]

BATCH_ROWS = 8192
DRAIN_ROWS = 1 << 20
CAPACITY = 1_000_000
TCP, UDP = 6, 17
DNS, HTTP, RADIUS = 1, 2, 9
#: values kept by Applications
MEMORY = 1 << 16


class Applications:
    """Application numbers by port (kprobe.md 4.6, 6.0), of what carries one without decoding: the entries of
    ports 80, 443, 67 and 68 come with their decoders."""

    def __init__(self, dns: int, radius: list[int], http: list[int]) -> None:
        self._ports = {(UDP, dns): DNS, **{(TCP, port): HTTP for port in http}}
        self._ports.update({(UDP, port): RADIUS for port in radius})
        self._known: dict[tuple[int, int, int], int] = {}

    def of(self, proto: int, sport: int, dport: int) -> int:
        """The lower of the two ports is asked first."""
        low, high = sorted((sport, dport))
        return self._ports.get((proto, low)) or self._ports.get((proto, high), 0)

    def fill(self, batch: FlowBatch) -> None:
        known, app = self._known, batch.columns["app"]
        keys = zip(batch.numbers("proto"), batch.numbers("sport"), batch.numbers("dport"), strict=True)
        for i, key in enumerate(keys):
            number = known.get(key)
            if number is None:
                if len(known) >= MEMORY:
                    known.clear()
                number = known[key] = self.of(*key)
            if number:
                app[i] = number


class Replay:
    """Unidirectional records of a capture, as kprobe makes them.

    filter: a tcpdump expression. sample: one of so many flows, 0 and 1 for all. InputError: the file cannot
    be read. ConfigError: the filter is wrong.
    """

    def __init__(
        self, path: str, *, filter: str | None = None, sample: int = 1, seed: int | None = None
    ) -> None:
        compiler: Callable[[int], Any] | None = None
        if filter:
            from netprobe.filters import compile_filter

            expression = filter
            compile_filter(expression, 1)

            def compiler(linktype: int) -> Any:
                return compile_filter(expression, linktype)

        self._source = open_source(path)
        try:
            self._reader = CaptureReader(self._source)
            try:
                self._reader.open()
            except ValueError as problem:
                raise self._source.error() or InputError(
                    f"{self._source.name}: {problem}; expected a pcap or pcapng capture"
                ) from None
            link_type = self._reader.interfaces()[0][0] if self._reader.format_name == "pcap" else None
            if link_type is not None and not known_link_type(link_type):
                raise InputError(f"{self._source.name}: link type {name_of(link_type)} is not supported")
            self._native = FlowReader(
                self._reader,
                capacity=CAPACITY,
                bidirectional=False,
                schedule=True,
                raw_extensions=True,
                seed=int.from_bytes(os.urandom(8)) if seed is None else seed % (1 << 64),
                sample=max(sample, 1),
                compile_filter=compiler,
            )
        except BaseException:
            self._source.close()
            raise

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[FlowBatch]:
        """Until the end. A batch is its receiver's to keep."""
        while not self._native.at_end:
            buffers = Buffers(rows)
            got = self._native.fill(buffers.raw, rows)
            if got:
                yield buffers.batch(got)

    def drain(self) -> None:
        """Everything through the table, records thrown away."""
        while not self._native.at_end:
            # not the reader's own drain: that one does not look for signals
            self._native.fill({}, DRAIN_ROWS)

    def cut_short(self) -> None:
        """From now on the input is at its end: what was read goes through, and all flows come out.

        To be called by the thread that reads, or by a signal handler in it.
        """
        if self._source.fd >= 0:
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, self._source.fd)
            os.close(nothing)

    def stats(self) -> dict[str, Any]:
        """See netprobe.flow_columns.Flows.stats."""
        return self._native.stats()

    def problem(self) -> str | None:
        """What was wrong with the file, after its end."""
        error = self._source.error()
        if error is not None:
            return str(error)
        how = self._reader.how_ended
        if how == "cut":
            return f"{self._source.name}: is cut off in the middle of a record"
        if how == "damaged":
            return f"{self._source.name}: has an impossible record after {self._reader.bytes_read} bytes"
        if how == "io":
            return f"{self._source.name}: {self._reader.error_text}"
        return None

    def close(self) -> None:
        self._source.close()

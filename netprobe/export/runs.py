"""kprobe's flow table at work on an input, and what carries its records to a sink."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

from netprobe._core.app_flow import AppRows
from netprobe._core.flow_reader import FlowReader
from netprobe.export.batch import Buffers, FlowBatch
from netprobe.export.inputs import FileInput, Input
from netprobe.export.sinks import Exporter, Sink

__all__ = ["BATCH_ROWS", "DECODERS", "FlowRun", "Replay", "Run", "Stopping", "carry", "lost_text"]

LOG = logging.getLogger("kprobe")

BATCH_ROWS = 8192
DRAIN_ROWS = 1 << 20
CAPACITY = 1_000_000
#: of kprobe; the notebook has one more
DECODERS = ("dns", "http", "tls", "dhcp", "radius")
#: live: how long records may wait for others
LIVE_S = 0.25
#: live, after a stop: what the kernel still holds is read for at least and at most so many seconds
LINGER_S = 0.3
LINGER_MOST_S = 2.0
#: live: between two warnings about lost packets, and two corrections for them
WATCH_S = 10.0
CORRECT_S = 0.2

Rewrite = tuple[bytes, int | None, bytes, int | None]


class Run(Protocol):
    """An input and what reads it. `flushing`: no more packets are read, the rest may wait for room."""

    input: Input
    flushing: bool

    def batches(self) -> Iterator[Any]:
        """Until the end. Live also batches of 0 rows, several times a second."""
        ...

    def lost(self, batch: Any) -> None:
        """There was no room for a batch."""
        ...

    def rows_of(self, packets: int) -> float | None:
        """How many rows so many packets would have made, by those so far; None while there were none."""
        ...

    def drain(self) -> None:
        """Everything through, what comes out is thrown away."""
        ...

    def stop(self) -> None:
        """The input is at its end now; called by the thread that reads, or a signal handler in it."""
        ...

    def summary(self) -> str:
        """One line for the log."""
        ...

    def close(self) -> None: ...


class Stopping:
    """When a live input has given everything that it had at the time of the stop."""

    def __init__(self, input: Input) -> None:
        self._input = input
        self._since: float | None = None

    def begin(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self._input.cut_short()

    def over(self) -> bool:
        if self._since is None or not self._input.live:
            return False
        # the kernel hands over a block after a while, and a signal ends a wait early
        waited = time.monotonic() - self._since
        return waited >= LINGER_MOST_S or (waited >= LINGER_S and bool(self._input.source.silent))


class FlowRun:
    """Unidirectional records of an input, as kprobe makes them.

    sample: one of so many flows, 0 and 1 all. decoders: names, None for all. translations: address and port
    to look for (packed, None for any), what to write in their place. InputError, ConfigError.
    """

    def __init__(
        self,
        input: Input,
        *,
        sample: int = 1,
        seed: int | None = None,
        decoders: Collection[str] | None = None,
        dns_port: int = 53,
        http_ports: Sequence[int] = (),
        radius_ports: Sequence[int] = (1812, 1813),
        translations: Sequence[Rewrite] = (),
    ) -> None:
        self.input = input
        self.flushing = False
        self._stopping = Stopping(input)
        self._rows = self._packets = self._lost_records = self._lost_packets = 0
        self._native = FlowReader(
            input.source,
            capacity=CAPACITY,
            bidirectional=False,
            schedule=True,
            raw_extensions=True,
            seed=int.from_bytes(os.urandom(8)) if seed is None else seed % (1 << 64),
            sample=min(max(sample, 1), (1 << 32) - 1),
            compile_filter=input.compile_filter,
            mac=input.mac,
            decode=DECODERS if decoders is None else tuple(decoders),
            dns_port=dns_port,
            http_ports=http_ports,
            radius_ports=radius_ports,
            translate=translations,
            live=input.live,
            snaplen=input.snaplen,
        )

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[FlowBatch]:
        """A batch is its receiver's to keep."""
        native, live = self._native, self.input.live
        buffers = Buffers(rows)
        while not native.at_end:
            apps = AppRows()
            got = native.fill(buffers.raw, rows, apps, seconds=LIVE_S if live else None)
            if self._stopping.over():
                native.stop()
                self.flushing = True
            if got * 2 > rows:
                batch = buffers.batch(got, apps)
                buffers = Buffers(rows)
            elif got or live:
                batch = buffers.copy(got, apps)
            else:
                continue
            if live:
                self._rows += got
                self._packets += _packets(batch)
            yield batch

    def lost(self, batch: FlowBatch) -> None:
        self._lost_records += batch.rows
        self._lost_packets += _packets(batch)

    def rows_of(self, packets: int) -> float | None:
        return packets * self._rows / self._packets if self._packets else None

    def drain(self) -> None:
        native = self._native
        while not native.at_end:
            # not the reader's own drain: that one does not look for the end of a stop
            native.fill({}, DRAIN_ROWS, seconds=LIVE_S)
            if self._stopping.over():
                native.stop()

    def stop(self) -> None:
        self._stopping.begin()

    def stats(self) -> dict[str, Any]:
        """See netprobe.flow_columns.Flows.stats."""
        return self._native.stats()

    def summary(self) -> str:
        stats = self.stats()
        return (
            f"{stats['out_packets']} packets, {stats['out_bytes']} bytes in {stats['records']} records; "
            f"{stats['not_ip']} packets were not IP, {stats['unreadable']} unreadable, "
            f"{stats['filtered_out']} filtered out, {stats['fragments_lost']} fragments incomplete, "
            f"{stats['ignored']} sampled out{lost_text(self.input, self._lost_records, 'records')}"
            + (f" ({self._lost_packets} packets)" if self._lost_records else "")
        )

    def close(self) -> None:
        self.input.close()


class Replay(FlowRun):
    """A FlowRun over a capture file.

    filter: a tcpdump expression. InputError: the file cannot be read. ConfigError: the filter is wrong.
    """

    def __init__(self, path: str, *, filter: str | None = None, **settings: Any) -> None:
        super().__init__(FileInput(path, filter), **settings)


def _packets(batch: FlowBatch) -> int:
    return sum(batch.numbers("in_pkts")) + sum(batch.numbers("out_pkts"))


def lost_text(input: Input, rows: int, what: str) -> str:
    drops = input.drops()
    if drops is None:
        return ""
    return f"; {sum(drops.values())} packets dropped by the kernel, {rows} {what} for want of room to export"


def carry(run: Run, sink: Sink[Any] | None, stopping: Callable[[], bool]) -> None:
    """Everything that the run gives, to the sink, on a thread of its own (None: to nobody). ExportError."""
    if sink is None:
        run.drain()
        return
    live = run.input.live
    exporter: Exporter[Any] = Exporter(sink, stopping=stopping, live=live)
    watch = Watch(run, sink)
    try:
        for batch in run.batches():
            # before the batch: a correction is for what is sent next
            watch.look()
            if not batch.rows:
                exporter.check()
            elif not live or run.flushing:
                exporter.put(batch)
            elif not exporter.offer(batch, batch.rows):
                run.lost(batch)
                sink.lost(batch.rows)
            if live and run.input.state == "gone":
                run.stop()
        watch.correct()
        exporter.finish()
    except BaseException:
        exporter.abort()
        raise


class Watch:
    """Says when a live input loses packets or its interface goes down; tells the sink what they stand for."""

    def __init__(self, run: Run, sink: Sink[Any]) -> None:
        self._run = run
        self._input = run.input
        self._sink = sink
        self._next_word = time.monotonic() + WATCH_S
        self._next_look = time.monotonic() + CORRECT_S
        self._said = self._corrected = 0
        self._rest = 0.0
        self._state = "up"

    def look(self) -> None:
        now = time.monotonic()
        if not self._input.live or now < self._next_look:
            return
        self._next_look = now + CORRECT_S
        total = self.correct()
        if now < self._next_word:
            return
        self._next_word = now + WATCH_S
        if total > self._said:
            LOG.warning("%s: %d packets dropped by the kernel", self._input.name, total - self._said)
            self._said = total
        if self._input.state != self._state:
            self._state = self._input.state
            LOG.warning("%s: the interface is %s", self._input.name, self._state)

    def correct(self) -> int:
        """Packets that were dropped would have made records: as many of them are lost. The drops in all."""
        drops = self._input.drops()
        total = 0 if drops is None else sum(drops.values())
        rows = self._run.rows_of(total - self._corrected)
        if total > self._corrected and rows is not None:
            self._corrected = total
            self._rest += rows
            whole = int(self._rest)
            self._rest -= whole
            if whole:
                self._sink.lost(whole)
        return total

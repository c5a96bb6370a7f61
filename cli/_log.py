"""What the programs say on standard error: log lines in pktvisor's form, and a progress bar for people."""

from __future__ import annotations

import contextlib
import sys
import time

__all__ = ["Log", "ProgressReport"]

BAR_CELLS = 30
BAR_AFTER_S = 1.0
BAR_EVERY_S = 0.1
LINE_EVERY_S = 1.0


class Log:
    """Lines of the form `[YYYY-MM-DD HH:MM:SS.mmm] [pktvisor] [level] text`, local time."""

    def __init__(self, *, debug: bool = False) -> None:
        self.verbose = debug

    def debug(self, text: str) -> None:
        """For -v only."""
        if self.verbose:
            self._line("debug", text)

    def info(self, text: str) -> None:
        self._line("info", text)

    def warning(self, text: str) -> None:
        self._line("warning", text)

    def error(self, text: str) -> None:
        self._line("error", text)

    def _line(self, level: str, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        text = " ".join(text.splitlines())  # one event, one line, whatever a file is called
        self.raw(f"[{stamp}.{int(now * 1000) % 1000:03d}] [pktvisor] [{level}] {text}\n")

    @staticmethod
    def raw(text: str) -> None:
        """Write to standard error; nobody listening there is no reason to fail."""
        if sys.stderr is not None:
            with contextlib.suppress(OSError):
                sys.stderr.write(text)
                sys.stderr.flush()


class ProgressReport:
    """`processed N packets (M/s)` once per second, or a bar when standard error is a terminal."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._bar = sys.stderr is not None and sys.stderr.isatty()
        self._drawn = False
        self._start = self._last = time.monotonic()
        self._last_packets = 0

    def update(self, packets: int, done: int, total: int | None) -> None:
        """`done` and `total` are bytes of input; cheap enough to be called for every batch."""
        now = time.monotonic()
        if self._bar:
            if now - self._start >= BAR_AFTER_S and now - self._last >= BAR_EVERY_S:
                self._last = now
                self._draw(packets, done, total, now - self._start)
        elif now - self._last >= LINE_EVERY_S:
            rate = round((packets - self._last_packets) / (now - self._last))
            self._last, self._last_packets = now, packets
            self._log.info(f"processed {packets} packets ({rate}/s)")

    def clear(self) -> None:
        """Take the bar away, before any other line."""
        if self._drawn:
            self._log.raw("\r\x1b[K")
            self._drawn = False

    def _draw(self, packets: int, done: int, total: int | None, seconds: float) -> None:
        text = f"{packets / 1e6:.1f} M packets, {packets / seconds / 1e6:.2f} M/s"
        if total:
            share = min(done / total, 1.0)
            cells = round(share * BAR_CELLS)
            text = f"[{'#' * cells}{'.' * (BAR_CELLS - cells)}] {share:4.0%}  {text}"
        else:
            text = f"{done / 1e6:.0f} MB  {text}"
        self._log.raw(f"\r\x1b[K{text}")
        self._drawn = True

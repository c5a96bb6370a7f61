"""Counters with rates: what the status server and the metrics report (kprobe.md 8)."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

__all__ = ["Meter"]

TICK_S = 5.0
ALPHA_1M = 1 - math.exp(-TICK_S / 60)
ALPHA_5M = 1 - math.exp(-TICK_S / 300)
#: after so many empty ticks (1 h) a rate has no meaning left
TICKS_MAX = 720


class Meter:
    """Events since the start, and exponentially weighted rates per second over 1 and 5 minutes.

    Ticks are made up for when somebody looks or counts, so that no thread is needed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, start: float | None = None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._pending = 0
        self._ticked = clock() if start is None else start
        self._first = True
        self._rates = (0.0, 0.0)

    def add(self, events: int) -> None:
        """`events` happened now."""
        with self._lock:
            self._catch_up()
            self._count += events
            self._pending += events

    def read(self) -> tuple[int, float, float]:
        """Count since the start, events per second over 1 and over 5 minutes."""
        with self._lock:
            self._catch_up()
            return self._count, *self._rates

    @property
    def count(self) -> int:
        return self._count

    def _catch_up(self) -> None:
        due = int((self._clock() - self._ticked) // TICK_S)
        if due <= 0:
            return
        self._ticked += due * TICK_S
        for _ in range(min(due, TICKS_MAX)):
            instant = self._pending / TICK_S
            self._pending = 0
            if self._first:
                self._rates = (instant, instant)
                self._first = False
            else:
                fast, slow = self._rates
                self._rates = (fast + ALPHA_1M * (instant - fast), slow + ALPHA_5M * (instant - slow))

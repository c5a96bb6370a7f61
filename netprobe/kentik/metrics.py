"""Health metrics about the sender itself, once per minute (kflow-wire.md 4.3)."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from netprobe.kentik.api import Device
from netprobe.kentik.errors import RequestFailed
from netprobe.kentik.http import Session
from netprobe.kentik.meters import Meter
from netprobe.kentik.worker import LOG

__all__ = ["LIMIT_S", "MetricsReporter", "encode"]

EVERY_S = 60.0
LIMIT_S = 5.0
ATTEMPTS = 2


def encode(meters: Mapping[str, Meter], tags: Mapping[str, str], now: float) -> list[dict[str, Any]]:
    """The array's entries: count since the start, and rate per second cut to an integer. No zeros."""
    entries = []
    for name, meter in meters.items():
        count, rate, _ = meter.read()
        for kind, value in (("count", count), ("one-minute", int(rate))):
            if value:
                entries.append(
                    {
                        "metric": f"chf.{name}",
                        "timestamp": int(now),
                        "value": value,
                        "tags": {**tags, "type": kind},
                    }
                )
    return entries


class MetricsReporter:
    """A thread that posts meters. Failures are only logged (debug)."""

    def __init__(
        self,
        session: Session,
        url: str,
        device: Device,
        meters: Mapping[str, Meter],
        *,
        program: str,
        version: str,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._url = url
        self._meters = meters
        self._tags = {
            "host": socket.gethostname(),
            "ver": f"{program}-{version}",
            "ft": program,
            "dt": "libkflow",
            "level": "primary",
            "cid": str(device.company_id),
            "did": str(device.id),
        }
        self._every_s = every_s
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kentik metrics", daemon=True)
        self.posted = self.failed = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        self._stop.set()
        self._thread.join(max(timeout, 0.0))
        return not self._thread.is_alive()

    def report(self) -> None:
        """Post now, if there is anything to say."""
        entries = encode(self._meters, self._tags, self._clock())
        if not entries:
            return
        body = json.dumps(entries, separators=(",", ":")).encode()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._session.send("POST", self._url, body, {"Content-Type": "application/json"})
                self.posted += 1
                return
            except RequestFailed as error:
                LOG.debug("metrics: %s", error)
                if attempt == ATTEMPTS or self._stop.is_set():
                    self.failed += 1
                    return

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.report()
        self._session.close()

"""Which windows stand on which Prometheus page, with which labels (agent spec 3.4.4)."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace

from netprobe.agent.faces import ManagerFace, PolicyFace, buckets_of, geo_of, policies_of
from netprobe.agent.health import Health
from netprobe.errors import ConfigError, PeriodError
from netprobe.metrics import render_modern
from netprobe.metrics.render_prometheus import Family, families, families_text
from netprobe.metrics.table import HandlerTable
from netprobe.metrics.totals import Buckets, Lifetime, Totals
from netprobe.metrics.window import HandlerWindow

__all__ = ["STYLES", "ModernPages", "Pages", "pages_of"]

log = logging.getLogger(__name__)

STYLES = ("classic", "modern")
# closed buckets are added up well before the shortest-lived of them, after a minute, is dropped
FOLD_SECONDS = 20.0


class Pages:
    """Prometheus text of one policy, of all, and of the agent. ``instance``: a label on every sample."""

    def __init__(self, manager: ManagerFace, health: Health, instance: str | None = None) -> None:
        self._manager = manager
        self._health = health
        self._static: Mapping[str, str] = {"instance": instance} if instance else {}

    def close(self) -> None:
        """No more pages are asked for."""

    def default(self) -> str | None:
        """The policy `default`, without the label ``handler``, and the agent; None: no such policy."""
        policy = policies_of(self._manager).get("default")
        if policy is None:
            return None
        found = self._families([_without_handler(window) for window in policy.prometheus_windows()])
        return families_text(found | self._health.families(self._static))

    def policy(self, policy: PolicyFace) -> str:
        return families_text(self._families(policy.prometheus_windows()))

    def all(self) -> tuple[str, bool]:
        """All policies' text, and whether it is complete: a policy that fails is left out, and logged."""
        found, complete = self._all()
        return families_text(found), complete

    def agent(self) -> str:
        return families_text(self._health.families(self._static))

    def _all(self) -> tuple[dict[str, Family], bool]:
        windows: list[HandlerWindow] = []
        complete = True
        for name, policy in policies_of(self._manager).items():
            try:
                windows += policy.prometheus_windows()
            except PeriodError:
                continue
            except Exception as error:
                log.error("policy [%s]: no Prometheus text: %s", name, error)
                complete = False
        return self._families(windows), complete

    def _families(self, windows: Sequence[HandlerWindow]) -> dict[str, Family]:
        return families(windows, geo_of(self._manager), self._static, old_label=True)


class ModernPages(Pages):
    """The modern style: `/metrics` has all policies and the agent, and is always there.

    A thread adds up closed buckets, from the first scrape on: without scrapes there is nothing to add up for.
    """

    def __init__(self, manager: ManagerFace, health: Health, instance: str | None = None) -> None:
        super().__init__(manager, health, instance)
        self._lock = threading.Lock()
        self._lifetimes: weakref.WeakKeyDictionary[Buckets, Lifetime] = weakref.WeakKeyDictionary()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        self._end.set()

    def default(self) -> str | None:
        found, _ = self._all()
        return families_text(found | self._health.families(self._static))

    def _families(self, windows: Sequence[HandlerWindow]) -> dict[str, Family]:
        counted = self._counted({window.labels.get("policy", "") for window in windows})

        def totals_of(window: HandlerWindow) -> Totals:
            own = counted.get(window.labels.get("policy", ""), {})
            name = window.labels.get("handler", "")
            if name in own:
                return own[name][1]
            # like handlers, merged: together they counted what each of them did
            whole = Totals()
            for table, totals in own.values():
                if table is window.table:
                    whole.merge(totals)
            return whole

        return render_modern.families(windows, totals_of, geo_of(self._manager), self._static)

    def _counted(self, names: set[str]) -> dict[str, dict[str, tuple[HandlerTable, Totals]]]:
        """Policy -> handler instance -> its table and totals."""
        found: dict[str, dict[str, tuple[HandlerTable, Totals]]] = {}
        policies = policies_of(self._manager)
        with self._lock:
            if self._thread is None and not self._end.is_set():
                self._thread = threading.Thread(target=self._fold_for_ever, name="totals", daemon=True)
                self._thread.start()
            for name in names & policies.keys():
                own = found.setdefault(name, {})
                for buckets in buckets_of(policies[name]):
                    read = self._lifetime(buckets).read(buckets)
                    for handler, (window, totals) in zip(buckets.names, read, strict=True):
                        own[handler] = window.table, totals
        return found

    def _lifetime(self, buckets: Buckets) -> Lifetime:
        found = self._lifetimes.get(buckets)
        if found is None:
            found = self._lifetimes[buckets] = Lifetime()
        return found

    def _fold_for_ever(self) -> None:
        while not self._end.wait(FOLD_SECONDS):
            for name, policy in policies_of(self._manager).items():
                try:
                    with self._lock:
                        for buckets in buckets_of(policy):
                            self._lifetime(buckets).fold(buckets)
                except Exception as error:
                    log.error("policy [%s]: totals: %s", name, error)


def pages_of(style: str, manager: ManagerFace, health: Health, instance: str | None) -> Pages:
    """The pages of a style; ConfigError for one that does not exist."""
    if style not in STYLES:
        raise ConfigError(f"prom_style: {style!r}, expected {' or '.join(STYLES)}")
    return (ModernPages if style == "modern" else Pages)(manager, health, instance)


def _without_handler(window: HandlerWindow) -> HandlerWindow:
    labels = {name: value for name, value in window.labels.items() if name != "handler"}
    return replace(window, labels=labels | {"policy": "default"})

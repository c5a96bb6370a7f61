"""Which windows stand on which Prometheus page, with which labels (agent spec 3.4.4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from netprobe.agent.faces import ManagerFace, PolicyFace, geo_of, policies_of
from netprobe.agent.health import Health
from netprobe.errors import PeriodError
from netprobe.metrics.render_prometheus import families, families_text
from netprobe.metrics.window import HandlerWindow

__all__ = ["Pages"]

log = logging.getLogger(__name__)


class Pages:
    """Prometheus text of one policy, of all, and of the agent. ``instance``: a label on every sample."""

    def __init__(self, manager: ManagerFace, health: Health, instance: str | None = None) -> None:
        self._manager = manager
        self._health = health
        self._static: Mapping[str, str] = {"instance": instance} if instance else {}

    def default(self) -> str | None:
        """The policy `default`, without the label ``handler``, and the agent; None: no such policy."""
        policy = policies_of(self._manager).get("default")
        if policy is None:
            return None
        windows = [_without_handler(window) for window in policy.prometheus_windows()]
        found = families(windows, geo_of(self._manager), self._static)
        return families_text(found | self._health.families(self._static))

    def policy(self, policy: PolicyFace) -> str:
        return self._text(policy.prometheus_windows())

    def all(self) -> tuple[str, bool]:
        """All policies' text, and whether it is complete: a policy that fails is left out, and logged."""
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
        return self._text(windows), complete

    def agent(self) -> str:
        return families_text(self._health.families(self._static))

    def _text(self, windows: Sequence[HandlerWindow]) -> str:
        return families_text(families(windows, geo_of(self._manager), self._static))


def _without_handler(window: HandlerWindow) -> HandlerWindow:
    labels = {name: value for name, value in window.labels.items() if name != "handler"}
    return replace(window, labels=labels | {"policy": "default"})

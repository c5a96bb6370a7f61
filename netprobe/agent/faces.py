"""What the web server and the OTLP pusher need of the manager of taps and policies, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from netprobe.metrics.keys import GeoNames
from netprobe.metrics.totals import Buckets
from netprobe.metrics.window import HandlerWindow

__all__ = ["ManagerFace", "PolicyFace", "TapFace", "buckets_of", "geo_of", "policies_of", "taps_of"]


Item = TypeVar("Item")


class TapFace(Protocol):
    def to_dict(self) -> dict[str, Any]:
        """The tap object of agent spec 3.3."""


class PartFace(Protocol):
    @property
    def handlers(self) -> Buckets:
        """The handlers on one input."""


class PolicyFace(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def parts(self) -> Sequence[PartFace]: ...

    @property
    def periods(self) -> int:
        """How many it keeps."""

    @property
    def module_names(self) -> list[str]:
        """Instance names of its handlers."""

    def to_dict(self) -> dict[str, Any]:
        """The policy object of agent spec 3.3."""

    def bucket(self, n: int, /) -> list[HandlerWindow]: ...
    def bucket_json(self, n: int, /) -> dict[str, Any]:
        """Handler instance -> schema key -> metrics, in the order of the handlers; PeriodError."""

    def window_json(self, n: int, /) -> dict[str, Any]: ...
    def prometheus_windows(self) -> Sequence[HandlerWindow]:
        """The newest closed period, or the open one while there is no other."""


class ManagerFace(Protocol):
    @property
    def taps(self) -> Mapping[str, TapFace]: ...
    @property
    def policies(self) -> Mapping[str, PolicyFace]: ...

    def add_tap(self, document: Any, /) -> str: ...
    def remove_tap(self, name: str, /) -> object: ...
    def add_policy(self, document: Any, /) -> str: ...
    def remove_policy(self, name: str, /) -> object: ...


def policies_of(manager: ManagerFace) -> dict[str, PolicyFace]:
    """The policies of this moment; others may come and go while somebody walks through these."""
    return _snapshot(manager.policies)


def taps_of(manager: ManagerFace) -> dict[str, TapFace]:
    """The taps of this moment."""
    return _snapshot(manager.taps)


def buckets_of(policy: PolicyFace) -> list[Buckets]:
    """The buckets of a policy's handlers, by input: each input has a clock of its own."""
    return [part.handlers for part in policy.parts]


def geo_of(manager: ManagerFace) -> GeoNames | None:
    found: GeoNames | None = getattr(manager, "geo", None)
    return found


def _snapshot(items: Mapping[str, Item]) -> dict[str, Item]:
    # a plain dict is copied in one step; a view of one is not, and may change under the copying
    while True:
        try:
            return dict(items)
        except (RuntimeError, KeyError):
            continue

"""A policy at work: its handlers, what they counted, and how it is shown (agent spec 3.3, 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from netprobe.handlers.config import HandlerConfig, HandlerSpec
from netprobe.metrics import render_json
from netprobe.metrics.like import merge_like
from netprobe.metrics.table import DEFAULT_VERSION
from netprobe.metrics.window import HandlerWindow
from netprobe.policy.specs import Plan, PolicySpec
from netprobe.policy.taps import Origin, Tap

if TYPE_CHECKING:
    from netprobe.geo import GeoNames


# stands for the busiest interface, until one is open
AUTO = "auto"


class RunningHandlers(Protocol):
    """What a policy needs of ``netprobe.policy.running.HandlerSet``."""

    names: list[str]
    periods: int

    def accumulated(self) -> int: ...
    def bucket(self, n: int) -> list[HandlerWindow]: ...
    def window(self, n: int) -> list[HandlerWindow]: ...
    def open_transactions(self, name: str) -> int | None: ...
    def period_info(self, name: str | None = None) -> list[dict[str, Any]]: ...


class RunningInput(Protocol):
    """What the manager needs of ``netprobe.policy.running.InputStream``."""

    @property
    def consumers(self) -> int: ...
    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def attach(self, handlers: Any) -> None: ...
    def detach(self, handlers: Any) -> None: ...
    def info(self) -> dict[str, Any]: ...
    def stats(self) -> dict[str, Any]: ...


@dataclass(slots=True, eq=False)
class Input:
    """A running input and the policies on it, the resources policy apart."""

    name: str
    tap: str
    stream: RunningInput
    config: Mapping[str, Any]
    users: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As the REST API shows it."""
        config = dict(self.config)
        if config.get("iface") == AUTO:
            config["iface"] = getattr(self.stream, "iface", "") or AUTO
        return {"module": {"name": self.name, "config": config}, **self.stream.info()}


@dataclass(slots=True, eq=False)
class Part:
    """A policy's handlers on one of its inputs."""

    input: Input
    handlers: RunningHandlers
    specs: Sequence[HandlerSpec]
    configs: Sequence[HandlerConfig]
    effective: Sequence[Mapping[str, Any]]
    running: bool = False


class Policy:
    """One policy. Reading is safe from any thread, also while the policy is being removed.

    ``plan`` and ``spec`` are None for resources policies.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        taps: Mapping[str, Tap],
        *,
        origin: Origin,
        merge_like_handlers: bool = False,
        spec: PolicySpec | None = None,
        plan: Plan | None = None,
        geo: GeoNames | None = None,
    ) -> None:
        self.name = name
        self.merge_like_handlers = merge_like_handlers
        self.origin: Origin = origin
        self.spec = spec
        self.plan = plan
        self.parts = tuple(parts)
        self.tap_names = tuple(taps)
        self._taps = taps
        self._geo = geo
        self._known: Mapping[str, Tap] = taps

    @property
    def periods(self) -> int:
        """How many buckets are kept."""
        return self.parts[0].handlers.periods

    @property
    def is_resources(self) -> bool:
        """Made by itself for an input, and gone with it."""
        return self.spec is None

    @property
    def inputs(self) -> dict[str, Input]:
        return {part.input.name: part.input for part in self.parts}

    @property
    def running(self) -> bool:
        return all(part.running for part in self.parts)

    @property
    def module_names(self) -> list[str]:
        """Instance names of all handlers."""
        return [name for part in self.parts for name in part.handlers.names]

    def accumulated(self) -> int:
        """Buckets so far, the open one included; of the input that has fewest."""
        return min(part.handlers.accumulated() for part in self.parts)

    # --- metrics ---

    def bucket(self, n: int) -> list[HandlerWindow]:
        """Bucket ``n`` of every handler, 0 the open one. PeriodError when there is none."""
        return self._shown([part.handlers.bucket(n) for part in self.parts])

    def window(self, n: int) -> list[HandlerWindow]:
        """The newest ``n`` buckets of every handler as one. PeriodError unless 2 ≤ n ≤ ``periods``."""
        return self._shown([part.handlers.window(n) for part in self.parts])

    def prometheus_windows(self) -> list[HandlerWindow]:
        """What a scrape gets: the newest closed bucket, or the open one while there is no other."""
        found = []
        for part in self.parts:
            found.append(part.handlers.bucket(1 if part.handlers.accumulated() > 1 else 0))
        return self._shown(found)

    def bucket_json(self, n: int) -> dict[str, Any]:
        """Handler name -> schema key -> metrics. Handlers that write nothing are left out."""
        return self._rendered(self.bucket(n))

    def window_json(self, n: int) -> dict[str, Any]:
        """As :meth:`bucket_json`, of a merged window."""
        return self._rendered(self.window(n))

    def _shown(self, found: Sequence[Sequence[HandlerWindow]]) -> list[HandlerWindow]:
        windows = [
            window.with_labels(**self._labels(part, name))
            for part, own in zip(self.parts, found, strict=True)
            for name, window in zip(part.handlers.names, own, strict=True)
        ]
        return merge_like(windows) if self.merge_like_handlers else windows

    def _labels(self, part: Part, name: str) -> dict[str, str]:
        labels = {"handler": name, "policy": self.name}
        return labels if self.is_resources else {**labels, "tap": part.input.tap}

    def _rendered(self, windows: Sequence[HandlerWindow]) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for window in windows:
            body = render_json.render_window(window, self._geo)
            if body is not None:
                document.setdefault(window.labels["handler"], {})[window.table.key] = body
        return document

    # --- what it is ---

    def to_dict(self) -> dict[str, Any]:
        """As the REST API shows it (agent spec 3.3)."""
        shown: dict[str, Any] = {}
        if not self.is_resources:
            # a tap that was deleted, or replaced by another of its name, vanishes from here
            known = self._known
            shown["taps"] = {
                name: tap.to_dict() for name, tap in self._taps.items() if known.get(name) is tap
            }
        shown["input"] = {name: one.to_dict() for name, one in self.inputs.items()}
        shown["modules"] = dict(self._modules())
        return shown

    def see_taps(self, taps: Mapping[str, Tap]) -> None:
        """Be told which taps there are now."""
        self._known = taps

    def use_taps(self, taps: Mapping[str, Tap]) -> None:
        """Taps of the same names took the place of those that this policy was made from."""
        self._taps = {name: taps[name] for name in self._taps if name in taps}

    def _modules(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for part in self.parts:
            for name, config, effective in zip(
                part.handlers.names, part.configs, part.effective, strict=True
            ):
                shown: dict[str, Any] = {
                    "module": {
                        "name": name,
                        "type": config.table.key,
                        "running": part.running and part.input.stream.running,
                        "config": dict(effective),
                    },
                    "metrics": {
                        "deep_sample_rate": config.deep_sample_rate,
                        "periods_configured": config.num_periods,
                        "periods": part.handlers.period_info(name),
                    },
                }
                if config.type == "dns":
                    shown["dns"] = self._dns(part, name, config)
                yield name, shown

    def _dns(self, part: Part, name: str, config: HandlerConfig) -> dict[str, Any]:
        """Transactions that are open; in 1.0 also whether messages are chosen by rcode or name alone."""
        shown: dict[str, Any] = {"xact": {"open": part.handlers.open_transactions(name) or 0}}
        if config.version == DEFAULT_VERSION:
            chosen = config.options.get("only_rcode") or config.options.get("only_qname")
            shown["predicate"] = {"enabled": bool(chosen)}
        return shown

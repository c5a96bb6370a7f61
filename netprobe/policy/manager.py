"""All taps, policies and inputs of an agent, and every change of them (agent spec 2, 3.3).

Changes are serialised and transactional: when something fails, what was made for it is taken down again.
Reading needs no lock: ``taps``, ``policies`` and ``inputs`` are replaced as a whole, never edited.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from netprobe.errors import ConfigError, ExistsError, InputError, NetprobeError, NotFoundError
from netprobe.handlers.config import HandlerSpec
from netprobe.hosts import parse_hosts
from netprobe.policy.config import Document, Outline, Source, document_of, outline_of_file, outline_of_request
from netprobe.policy.modules import RESOURCES, Globals, read_globals
from netprobe.policy.policies import Input, Part, Policy, RunningInput
from netprobe.policy.specs import Plan, PlannedInput, PolicySpec, plan_policy, policy_notes, read_policy
from netprobe.policy.taps import Origin, Tap, read_tap, tap_notes

if TYPE_CHECKING:
    from netprobe.geo import GeoNames

LOG = logging.getLogger("netprobe.policy")
RESOURCES_SUFFIX = "-resources"
NO_TAP = "tap does not exists"
NO_POLICY = "policy does not exists"


class Manager:
    """The engine room of an agent.

    geo: names of places and autonomous systems. periods, max_deep_sample: for policies without a
    ``window_config``. services: names of ports. clock: seconds since 1970, for tests.
    """

    def __init__(
        self,
        *,
        geo: GeoNames | None = None,
        periods: int = 5,
        max_deep_sample: int = 100,
        services: Any = None,
        clock: Callable[[], float] | None = None,
        runtime: Any = None,
    ) -> None:
        """``runtime`` has the classes HandlerSet and InputStream; by default netprobe.policy.running."""
        if runtime is None:
            runtime = importlib.import_module("netprobe.policy.running")
        self._runtime = runtime
        self._geo = geo
        self._services = services
        self._clock = clock
        self._window = {
            "num_periods": min(max(periods, 1), 10),
            "deep_sample_rate": min(max(max_deep_sample, 1), 100),
        }
        self._globals = Globals()
        self._lock = threading.RLock()
        self._taps: Mapping[str, Tap] = MappingProxyType({})
        self._policies: Mapping[str, Policy] = MappingProxyType({})
        self._inputs: Mapping[str, Input] = MappingProxyType({})
        self._closed = False

    @property
    def taps(self) -> Mapping[str, Tap]:
        """Taps by name; a snapshot."""
        return self._taps

    @property
    def policies(self) -> Mapping[str, Policy]:
        """Policies by name, those that report the resources of an input included; a snapshot."""
        return self._policies

    @property
    def inputs(self) -> Mapping[str, RunningInput]:
        """Inputs by name; a snapshot."""
        return {name: one.stream for name, one in self._inputs.items()}

    @property
    def geo(self) -> GeoNames | None:
        return self._geo

    # --- files ---

    def load_file(self, document: Source, path: str = "") -> None:
        """Take in a whole configuration; all of it runs, or nothing of it.

        ExistsError: a name is taken. NoMatchError, ConfigError, InputError: see the message.
        """
        self.reload(document, path)

    def reload(self, document: Source, path: str = "") -> None:
        """Make what came from files equal to this configuration.

        What did not change keeps running and loses nothing; what was made over REST or by the command line
        is left alone. On an error everything stays as it was.
        """
        outline = outline_of_file(document_of(document, path))
        with self._lock:
            self._check_open()
            for line in outline.infos:
                LOG.info("%s", line)
            for line in outline.notes:
                LOG.warning("%s", line)
            self._apply(outline)

    def _apply(self, outline: Outline) -> None:
        notes: list[str] = []
        globals_ = read_globals(outline.globals, notes)
        taps = {name: tap for name, tap in self._taps.items() if tap.origin != "file"}
        for name, node in outline.taps.items():
            notes.extend(tap_notes(node))
            tap = read_tap(name, node, "file")
            if name in taps:
                raise ExistsError(f"{node.where()}: the name exists already ({_by(taps[name].origin)})")
            before = self._taps.get(name)
            taps[name] = before if before == tap and before is not None else tap
        policies = {name: one for name, one in self._policies.items() if one.origin != "file"}
        plans: dict[str, tuple[PolicySpec, Plan]] = {}
        for name, node in outline.policies.items():
            notes.extend(policy_notes(node))
            if name in policies:
                origin = _by(policies[name].origin)
                raise ExistsError(f"{node.where()}: the name exists already ({origin})")
            spec = read_policy(name, node, "file")
            plans[name] = spec, plan_policy(spec, taps, globals_, self._window)
        for line in notes:
            LOG.warning("%s", line)
        old = {
            name: one for name, one in self._policies.items() if one.origin == "file" and not one.is_resources
        }
        kept = {name for name, (_, plan) in plans.items() if name in old and plan.same_as(old[name].plan)}
        dropped = [one for name, one in old.items() if name not in kept]
        change = _Change(self)
        try:
            change.drop_later(dropped)
            for name, (spec, plan) in plans.items():
                if name not in kept:
                    change.add(spec, plan, taps)
            change.start()
        except BaseException:
            change.undo()
            raise
        self._globals = globals_
        change.commit()
        for name in kept:
            old[name].use_taps(taps)
        self._publish_taps(taps)

    # --- taps ---

    def add_tap(self, document: Source, origin: Origin = "rest") -> str:
        """Create the one tap of a document; its name. ExistsError, ConfigError."""
        outline = outline_of_request(document_of(document), "taps")
        name, node = next(iter(outline.taps.items()))
        with self._lock:
            self._check_open()
            if name in self._taps:
                raise ExistsError(f"tap {name!r} exists already ({_by(self._taps[name].origin)})")
            tap = read_tap(name, node, origin)
            for line in (*outline.notes, *tap_notes(node)):
                LOG.warning("%s", line)
            self._publish_taps({**self._taps, name: tap})
        return name

    def remove_tap(self, name: str) -> None:
        """Forget a tap; what was made from it runs on. NotFoundError."""
        with self._lock:
            if name not in self._taps:
                raise NotFoundError(NO_TAP)
            self._publish_taps({key: tap for key, tap in self._taps.items() if key != name})

    def _publish_taps(self, taps: Mapping[str, Tap]) -> None:
        self._taps = MappingProxyType(dict(taps))
        for policy in self._policies.values():
            policy.see_taps(self._taps)

    # --- policies ---

    def add_policy(self, document: Source, origin: Origin = "rest") -> str:
        """Create and start the one policy of a document; its name.

        ExistsError, NoMatchError, ConfigError, InputError. When it cannot start, nothing of it is left.
        """
        outline = outline_of_request(document_of(document), "policies")
        name, node = next(iter(outline.policies.items()))
        with self._lock:
            self._check_open()
            if name in self._policies:
                raise ExistsError(f"policy {name!r} exists already ({_by(self._policies[name].origin)})")
            spec = read_policy(name, node, origin)
            for line in (*outline.notes, *policy_notes(node)):
                LOG.warning("%s", line)
            self._start(spec)
        return name

    def add_default(self, iface: str, bpf: str = "", host_spec: str = "", ring_mb: int | None = None) -> str:
        """Tap and policy ``default``, as ``pktvisord IFACE`` makes them (agent spec 1.1.1)."""
        config: dict[str, object] = {"iface": iface, "host_spec": host_spec}
        if ring_mb is not None:
            config["ring_mb"] = ring_mb
        tap = {"input_type": "pcap", "config": config}
        modules = {"net": "net", "dhcp": "dhcp", "dns": "dns", "pcap_stats": "pcap"}
        policy = {
            "kind": "collection",
            "input": {"tap": "default", "input_type": "pcap", "config": {"bpf": bpf}},
            "handlers": {
                "window_config": dict(self._window),
                "modules": {name: {"type": type_} for name, type_ in modules.items()},
            },
        }
        parse_hosts(host_spec)
        with self._lock:
            self.add_tap({"visor": {"taps": {"default": tap}}}, "cli")
            try:
                return self.add_policy({"visor": {"policies": {"default": policy}}}, "cli")
            except BaseException:
                self.remove_tap("default")
                raise

    def _start(self, spec: PolicySpec) -> None:
        plan = plan_policy(spec, self._taps, self._globals, self._window)
        change = _Change(self)
        try:
            change.add(spec, plan, self._taps)
            change.start()
        except BaseException:
            change.undo()
            raise
        change.commit()

    def remove_policy(self, name: str) -> None:
        """Stop a policy; inputs that nobody else uses end with it. NotFoundError."""
        with self._lock:
            policy = self._policies.get(name)
            if policy is None:
                raise NotFoundError(NO_POLICY)
            change = _Change(self)
            change.drop_later([policy])
            change.commit()

    def close(self) -> None:
        """Stop all policies and inputs. What they have counted can still be read from them."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            change = _Change(self)
            change.drop_later(list(self._policies.values()))
            change.commit()

    def _check_open(self) -> None:
        if self._closed:
            raise ConfigError("the agent is stopping")

    # --- making things ---

    def _new_input(self, planned: PlannedInput) -> Input:
        more = {} if self._clock is None else {"clock": self._clock}
        stream = self._runtime.InputStream(
            planned.name, planned.kind.name, dict(planned.config), dict(planned.filter), **more
        )
        return Input(planned.name, planned.tap, stream, planned.config)

    def _new_handlers(
        self,
        specs: Sequence[HandlerSpec],
        configs: Sequence[Any],
        names: Sequence[str],
        periods: int,
        rate: int,
    ) -> Any:
        return self._runtime.HandlerSet(
            list(specs), list(configs), list(names), geo=self._geo, periods=periods, deep_sample_rate=rate
        )


def _by(origin: Origin) -> str:
    return {
        "cli": "made by the command line",
        "file": "from the configuration file",
        "rest": "made over REST",
    }[origin]


class _Change:
    """One transaction on a manager: additions happen at once and can be undone, removals at the end."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.policies = dict(manager._policies)
        self.inputs = dict(manager._inputs)
        # instance names of handlers, and whose they are
        self.names = {name: one for one in self.policies.values() for name in one.module_names}
        self.added: list[Policy] = []
        self.dropped: list[Policy] = []
        # new inputs, and the policy that each was made for
        self.opened: dict[Input, PolicySpec] = {}
        # inputs that new ones of the same name replace
        self.ended: list[Input] = []

    def drop_later(self, policies: Sequence[Policy]) -> None:
        """Take policies away when all else has gone well; their names are free from now on."""
        for policy in policies:
            if self.policies.pop(policy.name, None) is not None:
                self.dropped.append(policy)
                for name in policy.module_names:
                    self.names.pop(name, None)

    def add(self, spec: PolicySpec, plan: Plan, taps: Mapping[str, Tap]) -> None:
        """Build a policy and attach it; policies that are there see nothing of it."""
        self._check_names(plan)
        planned = plan.handlers
        parts = []
        resources = []
        try:
            for one in plan.inputs:
                input_, watcher = self._input(one, spec)
                if watcher is not None:
                    resources.append(watcher)
                specs = [replace(s, name=name) for s, name in zip(planned.specs, one.names, strict=True)]
                handlers = self.manager._new_handlers(
                    specs, planned.configs, one.names, planned.periods, planned.deep_sample_rate
                )
                parts.append(Part(input_, handlers, specs, planned.configs, planned.effective))
            policy = Policy(
                spec.name,
                parts,
                {one.tap: taps[one.tap] for one in plan.inputs},
                origin=spec.origin,
                merge_like_handlers=plan.merge_like,
                spec=spec,
                plan=plan,
                geo=self.manager._geo,
            )
            policy.see_taps(taps)
            for added in (policy, *resources):
                self._attach(added)
        except NetprobeError as error:
            raise _not_started(spec, error) from error

    def start(self) -> None:
        """Start the new inputs: all policies of a file hear them from their first packet on."""
        for input_, spec in self.opened.items():
            try:
                input_.stream.start()
            except NetprobeError as error:
                raise _not_started(spec, error) from error

    def _attach(self, policy: Policy) -> None:
        if policy.name in self.policies:
            by = _by(self.policies[policy.name].origin)
            raise ExistsError(f"policy {policy.name!r} exists already ({by})")
        self.policies[policy.name] = policy
        self.names.update((name, policy) for name in policy.module_names)
        self.added.append(policy)
        for part in policy.parts:
            part.input.stream.attach(part.handlers)
            part.running = True
            part.input.users += not policy.is_resources

    def _check_names(self, plan: Plan) -> None:
        for one in plan.inputs:
            for name in one.names:
                if name in self.names:
                    other = self.names[name].name
                    raise ExistsError(
                        f"policy {plan.name!r}: the handler name {name!r} is taken already (policy {other!r})"
                    )

    def _input(self, planned: PlannedInput, policy: PolicySpec) -> tuple[Input, Policy | None]:
        """The input that runs under this name, or a new one and the policy that reports its resources."""
        found = self.inputs.get(planned.name)
        if found is not None and (found in self.opened or found.stream.running):
            return found, None
        if found is not None:
            self._give_up(found)
        input_ = self.manager._new_input(planned)
        self.inputs[planned.name] = input_
        self.opened[input_] = policy
        name = planned.name + RESOURCES_SUFFIX
        spec = HandlerSpec(RESOURCES, name=name)
        window = self.manager._window
        config = spec.resolve(window_config=window)
        handlers = self.manager._new_handlers(
            [spec], [config], [name], config.num_periods, config.deep_sample_rate
        )
        part = Part(input_, handlers, [spec], [config], [window])
        return input_, Policy(name, [part], {}, origin="rest", geo=self.manager._geo)

    def _give_up(self, ended: Input) -> None:
        """Take an input out that has ended, for one that begins anew; InputError if somebody still has it."""
        mine = [one for one in self.policies.values() if any(part.input is ended for part in one.parts)]
        if any(not one.is_resources for one in mine):
            reason = getattr(ended.stream, "error", None) or "it was read to its end"
            raise InputError(f"input {ended.name} has stopped: {reason}")
        self.drop_later(mine)
        self.ended.append(ended)

    def undo(self) -> None:
        """Take down what was added."""
        for policy in reversed(self.added):
            for part in policy.parts:
                part.input.users -= part.running and not policy.is_resources
            _detach(policy)
        for input_ in self.opened:
            _stop(input_)

    def commit(self) -> None:
        """Publish what is new, then take down what is old."""
        manager = self.manager
        for policy in self.dropped:
            if not policy.is_resources:
                for part in policy.parts:
                    part.input.users -= 1
        unused = [one for one in self.inputs.values() if one.users <= 0]
        gone = list(self.dropped)
        for input_ in unused:
            del self.inputs[input_.name]
            resources = self.policies.get(input_.name + RESOURCES_SUFFIX)
            # it may have been deleted, and its name be somebody's
            if resources is not None and resources.is_resources:
                del self.policies[resources.name]
                gone.append(resources)
        manager._policies = MappingProxyType(self.policies)
        manager._inputs = MappingProxyType(self.inputs)
        for policy in gone:
            _detach(policy)
        for input_ in (*unused, *self.ended):
            _stop(input_)
        for policy in gone:
            LOG.info("policy %s: removed", policy.name)
        for policy in self.added:
            LOG.info("policy %s: started on %s", policy.name, ", ".join(policy.inputs))


def _not_started(spec: PolicySpec, error: NetprobeError) -> NetprobeError:
    """The error as the start of a policy words it; a name that is taken stays as it is."""
    if isinstance(error, ExistsError):
        return error
    place = f"{spec.node.where()}: " if spec.node is not None and spec.origin == "file" else ""
    return type(error)(f"policy [{spec.name}] failed to start: {place}{error}")


def _detach(policy: Policy) -> None:
    for part in policy.parts:
        if part.running:
            part.running = False
            # whatever a stream says now, the rest must be taken down too
            with contextlib.suppress(NetprobeError):
                part.input.stream.detach(part.handlers)


def _stop(input_: Input) -> None:
    try:
        input_.stream.stop()
    except NetprobeError as error:
        LOG.warning("input %s: %s", input_.name, error)


__all__ = ["Document", "Manager"]

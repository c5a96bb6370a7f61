"""The agent inside a program: policies that run, and their windows, without a process of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from netprobe import arguments
from netprobe.errors import ConfigError, NotFoundError, PeriodError
from netprobe.hosts import Hosts, host_spec
from netprobe.metrics import render_prometheus
from netprobe.metrics.window import HandlerWindow
from netprobe.policy.config import Document, Source, document_of, load
from netprobe.policy.manager import Manager
from netprobe.summary import Summary

if TYPE_CHECKING:
    from netprobe.agent.web import Server
    from netprobe.geo import GeoNames
    from netprobe.policy.policies import Policy
    from netprobe.policy.taps import Tap

__all__ = ["Agent"]

Config = str | os.PathLike[str] | Mapping[str, Any]
STOP_SECONDS = 5.0


class Agent:
    """Runs policies while a ``with`` block lasts.

    config: path of a configuration file, its text (YAML, of more than one line), or maps that say the same.
    iface: make tap and policy ``default`` for this interface (a name, an address that it owns, or ``auto``),
        with ``filter`` (a tcpdump expression) and ``hosts`` (CIDRs, comma-separated or a list).
    periods, max_deep_sample: for policies without ``window_config``; by default what ``visor.config`` says.
    geo, or geo_city and geo_asn: MaxMind databases. runtime: other inputs and handlers, for tests.

    ConfigError: a setting cannot be used. InputError: an interface cannot be opened. Nothing runs then.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        iface: str | None = None,
        filter: str | None = None,
        hosts: Hosts = None,
        periods: int | None = None,
        max_deep_sample: int | None = None,
        geo: GeoNames | None = None,
        geo_city: str | os.PathLike[str] | None = None,
        geo_asn: str | os.PathLike[str] | None = None,
        runtime: Any = None,
    ) -> None:
        if config is None and iface is None:
            raise ConfigError("Agent: neither config nor iface is given")
        document = None if config is None else _document(config)
        options = _options(document)
        if geo is None:
            geo = _open_geo(geo_city or options.city_database, geo_asn or options.asn_database)
        self.options = options
        self.manager = Manager(
            geo=geo,
            periods=options.periods if periods is None else periods,
            max_deep_sample=options.max_deep_sample if max_deep_sample is None else max_deep_sample,
            runtime=runtime,
        )
        self._server: Server | None = None
        self._thread: threading.Thread | None = None
        try:
            if document is not None:
                self.manager.load_file(document, document.source)
            if iface is not None:
                self.manager.add_default(
                    iface, arguments.expression("filter", filter) or "", host_spec(hosts)
                )
        except BaseException:
            self.manager.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything. Windows taken before stay as they are."""
        if self._server is not None:
            self._server.stop()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self.manager.close()

    # --- what was counted ---

    def window(self, period: str | int = 0, policy: str | None = None) -> Summary:
        """The newest periods of a policy as one summary.

        period: so many of 60 seconds, the open one included, as ``"5m"`` or 5; 0: all that are kept.
        policy: by default ``default``, or the only one.
        PeriodError when so many are not kept; NotFoundError without such a policy.
        """
        found = self.policy(policy)
        count = _number(period) or found.periods
        # one period is no window to the REST API, but a fair question
        windows = found.bucket(0) if count == 1 else found.window(count)
        return self._summary(windows, count)

    def bucket(self, number: int = 0, policy: str | None = None) -> Summary:
        """One period of a policy: 0 is the open one, 1 the newest that is complete.

        PeriodError when it is not there (yet); NotFoundError without such a policy.
        """
        number = arguments.whole("number", number)
        return self._summary(self.policy(policy).bucket(number), 1)

    def prometheus(self) -> str:
        """All policies in Prometheus's text format."""
        windows = [window for one in self.policies.values() for window in one.prometheus_windows()]
        return render_prometheus.render(windows, self.manager.geo)

    def policy(self, name: str | None = None) -> Policy:
        """A policy by name; by default ``default``, or the only one. NotFoundError lists what there is."""
        policies = self.policies
        if name is None:
            mine = [one for one, policy in policies.items() if not policy.is_resources]
            name = "default" if "default" in mine or len(mine) != 1 else mine[0]
        if name not in policies:
            there = f"there is {', '.join(policies)}" if policies else "there is none"
            raise NotFoundError(f"no policy {name!r}; {there}")
        return policies[name]

    def _summary(self, windows: list[HandlerWindow], periods: int) -> Summary:
        return Summary(windows, periods=periods, geo=self.manager.geo, packets=_packets(windows))

    # --- what runs ---

    @property
    def policies(self) -> Mapping[str, Policy]:
        """All policies by name, those that report what inputs cost included."""
        return self.manager.policies

    @property
    def taps(self) -> Mapping[str, Tap]:
        """All taps by name, as they are now: a read-only mapping that later changes do not reach."""
        return self.manager.taps

    def add_tap(self, document: Source) -> str:
        """Create the tap of a document, as POST does; its name."""
        return self.manager.add_tap(document)

    def add_policy(self, document: Source) -> str:
        """Create and start the policy of a document, as POST does; its name."""
        return self.manager.add_policy(document)

    def remove_tap(self, name: str) -> None:
        """Forget a tap. Policies that were made from it run on. NotFoundError without such a tap."""
        self.manager.remove_tap(name)

    def remove_policy(self, name: str) -> None:
        """Stop and forget a policy, and inputs that nobody else uses. NotFoundError without such a policy."""
        self.manager.remove_policy(name)

    def reload(self, config: Config) -> None:
        """Put another configuration in place of the one from before; what did not change runs on."""
        document = _document(config)
        self.manager.reload(document, document.source)

    def serve(self, host: str = "localhost", port: int = 0, *, admin: bool = False) -> str:
        """Answer the REST API from a thread of its own; its address. Port 0: any free one."""
        if self._server is not None:
            return self._server.url
        from netprobe.agent.preload import check_installed

        check_installed()
        from netprobe.agent.web import Server, create_app

        self._server = Server(create_app(self.manager, admin=admin), host, port)
        try:
            self._server.start()
        except BaseException:
            self._server = None
            raise
        self._thread = threading.Thread(target=self._server.run, name="netprobe-web", daemon=True)
        self._thread.start()
        return self._server.url

    def __repr__(self) -> str:
        return f"<Agent: {', '.join(self.policies) or 'no policy'}>"

    def _repr_html_(self) -> str:
        from html import escape

        try:
            return self.window()._repr_html_()
        except NotFoundError:
            return escape(repr(self))


def _document(config: Config) -> Document:
    if isinstance(config, str):
        # one line is a path, unless it can only be a document
        if "\n" in config or config.lstrip().startswith("{"):
            return document_of(config)
        return load(config)
    if isinstance(config, os.PathLike):
        return load(Path(config))
    return document_of(config)


def _options(document: Document | None) -> Any:
    from netprobe.agent.options import Options, section

    found = section(document)[0] if document is not None else {}
    return Options.merge({}, found, Path.cwd())


def _open_geo(city: Any, asn: Any) -> GeoNames | None:
    if not (city or asn):
        return None
    from netprobe.geo import GeoAsn, GeoCity, GeoNames

    return GeoNames(GeoCity(city) if city else None, GeoAsn(asn) if asn else None)


def _number(period: str | int) -> int:
    digits = period.removesuffix("m") if isinstance(period, str) else str(period)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise PeriodError(f"{period!r} is no period, expected for example '5m', or 5")
    return int(digits)


def _packets(windows: list[HandlerWindow]) -> int:
    """Packets that the first handler saw which sees all of them."""
    for window in windows:
        # none: nothing has come yet
        block = window.blocks[0] if window.blocks else None
        for name in ("events", "observed_packets") if window.table.type == "net" else ():
            if block is not None and name in window.index:
                return block.counter(window.index[name])
    return 0

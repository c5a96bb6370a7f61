"""All of it put together: find or create the device, then send what comes (kprobe.md 1.6, section 9)."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from netprobe._version import __version__
from netprobe.errors import ConfigError, InputError
from netprobe.kentik.api import Device, DeviceApi, NewDevice, api_name
from netprobe.kentik.columns import CustomColumns
from netprobe.kentik.dns import DnsSender
from netprobe.kentik.endpoints import Endpoints, check_url, masked_url
from netprobe.kentik.errors import (
    AuthenticationFailed,
    DeviceNotFound,
    KentikError,
    RequestFailed,
    SetupFailed,
)
from netprobe.kentik.flows import FlowSender, FlowStats
from netprobe.kentik.http import Credentials, Session
from netprobe.kentik.interfaces import Interface, register
from netprobe.kentik.meters import Meter
from netprobe.kentik.metrics import LIMIT_S as METRICS_LIMIT_S
from netprobe.kentik.metrics import MetricsReporter
from netprobe.kentik.records import Field, RecordBatch, native_batch
from netprobe.kentik.status import StatusServer
from netprobe.kentik.tags import TagSender
from netprobe.kentik.worker import Errors

__all__ = ["Client", "Pace", "Settings", "connect", "find_device"]

LOG = logging.getLogger("netprobe.kentik")

DEFAULT_STATUS_HOST = "127.0.0.1"


class Pace(NamedTuple):
    """Times in seconds, for tests to shorten: flow and DNS ticks, metrics, device refresh, one request."""

    tick_s: float = 1.0
    metrics_s: float = 60.0
    refresh_s: float = 1200.0
    request_s: float = 30.0


@dataclass(frozen=True)
class Settings:
    """kprobe's flags as far as Kentik is concerned; see its table for meaning and defaults.

    `interface`: the capture interface (None for replays: nothing is registered then). `sample`: None for the
    device's own rate. `plan`, `site`, `device_id`: 0 for unset. ConfigError for values that cannot be used.
    """

    credentials: Credentials
    endpoints: Endpoints = field(default_factory=Endpoints.of)
    proxy: str | None = None
    interface: str | None = None
    device_id: int = 0
    device_if: str | None = None
    device_ip: str | None = None
    device_name: str | None = None
    plan: int = 0
    site: int = 0
    sample: int | None = None
    status_host: str = DEFAULT_STATUS_HOST
    status_port: int = 0
    program: str = "kprobe"
    version: str = __version__
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        if self.proxy is not None:
            check_url("--proxy-url", self.proxy)
        if self.device_ip is not None:
            try:
                ipaddress.ip_address(self.device_ip)
            except ValueError:
                raise ConfigError(f"--device-ip {self.device_ip}: not an IP address") from None

    def __repr__(self) -> str:
        return f"Settings({self.describe()})"

    def describe(self) -> dict[str, Any]:
        """Everything as plain values for a `-v` dump: the token and passwords in URLs are masked."""
        shown = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("pace", "endpoints")
        }
        shown.pop("credentials")
        urls = {f"{name}_url": masked_url(url) for name, url in self.endpoints._asdict().items()}
        shown["proxy"] = None if self.proxy is None else masked_url(self.proxy)
        shown["timeout_s"], shown["metrics_interval_s"] = self.pace.request_s, self.pace.metrics_s
        return {"email": self.credentials.email, "token": "***", **urls, **shown}

    def name(self) -> str:
        """The device's name: the given one, or that of this machine."""
        return self.device_name or socket.gethostname()

    def session(self, *, total_s: float | None = None, environment: bool = False) -> Session:
        limit = self.pace.request_s if total_s is None else total_s
        return Session(
            self.credentials, proxy=self.proxy, environment=environment, connect_s=limit, total_s=limit
        )


def find_device(api: DeviceApi, settings: Settings, interface: Interface | None) -> Device:
    """The first way of the table in kprobe.md 9.1 that applies.

    AuthenticationFailed, DeviceNotFound, SetupFailed.
    """
    if settings.device_id > 0:
        return api.device(settings.device_id)
    if settings.device_if is not None:
        return _by_interface(api, settings.device_if)
    try:
        # a name never goes for an address, even if it looks like one
        return api.device(settings.device_ip or api_name(settings.name()))
    except DeviceNotFound:
        address = settings.device_ip or (interface.first_ipv4() if interface is not None else None)
        if not settings.plan or not address:
            raise
        return api.create(NewDevice(settings.name(), address, settings.plan, settings.site))


def _by_interface(api: DeviceApi, name: str) -> Device:
    try:
        addresses = Interface.of_system(name).addresses
    except InputError as error:
        raise SetupFailed(f"library setup error: device lookup error: {error}") from None
    for entry in addresses:
        try:
            return api.device(str(entry.ip))
        except AuthenticationFailed:
            raise
        except KentikError as error:
            LOG.debug("no device with address %s: %s", entry.ip, error)
    raise DeviceNotFound


class Client:
    """A device and its senders. Made by `connect`; a context manager that stops within 10 s at its end."""

    STOP_S = 10.0

    def __init__(self, settings: Settings, api: DeviceApi, device: Device) -> None:
        self.settings = settings
        self.device = device
        self.errors = Errors()
        #: set when the program must end: the device's sample rate changed while it decides (1.9)
        self.fatal: str | None = None
        pace = settings.pace
        self._api = api
        self.flows = FlowSender(
            settings.session, settings.endpoints.flow, device, self.errors, tick_s=pace.tick_s
        )
        self._dns: DnsSender | None = None
        self._tags: TagSender | None = None
        self._metrics = MetricsReporter(
            settings.session(total_s=min(METRICS_LIMIT_S, pace.request_s)),
            settings.endpoints.metrics,
            device,
            self.meters(),
            program=settings.program,
            version=settings.version,
            every_s=pace.metrics_s,
        )
        self._status: StatusServer | None = None
        self._ending = threading.Event()
        self._refresher = threading.Thread(target=self._refresh_often, name="kentik refresh", daemon=True)
        self._stopped: bool | None = None

    @property
    def columns(self) -> CustomColumns:
        """The device's custom columns, and thereby the decoders that are worth running."""
        return self.device.columns

    @property
    def sample_rate(self) -> int:
        """1 of so many flows: by the settings, else the device's; 0 and 1 are no sampling."""
        rate = self.device.sample_rate if self.settings.sample is None else self.settings.sample
        return max(rate, 1)

    @property
    def status_port(self) -> int:
        """The port that the status server listens on, 0 without one."""
        return 0 if self._status is None else self._status.port

    def meters(self) -> dict[str, Meter]:
        """By their names in the metrics."""
        return {
            "client_Total": self.flows.taken_in,
            "client_DownsampleFPS": self.flows.taken_out,
            "client_RateLimitDrops": self.flows.drops,
            "client_BytesSent": self.flows.bytes,
        }

    def start(self) -> None:
        self.flows.start()
        self._metrics.start()
        self._refresher.start()
        if self.settings.status_port:
            try:
                self._status = StatusServer(
                    self.settings.status_host,
                    self.settings.status_port,
                    self.flows.taken_in,
                    self.flows.taken_out,
                )
                self._status.start()
            except (OSError, OverflowError) as error:
                LOG.debug("status server: %s", error)

    def send(
        self,
        records: RecordBatch,
        wait_s: float = 0.0,
        ranges: Sequence[tuple[int, int]] | None = None,
    ) -> int:
        """Queue flow records; returns how many found room (see FlowSender.send). ValueError for bad columns.

        `ranges`: from and up to which records, for a batch of which some are not to be sent.

        Numbers, addresses and texts must stay as they are until they are sent. The column APP_PROTOCOL is
        filled by itself.
        """
        fields = dict(records.fields)
        if (
            "APP_PROTOCOL" in self.columns
            and "APP_PROTOCOL" not in fields
            and "app_protocol" in records.columns
        ):
            fields["APP_PROTOCOL"] = Field(_as_buffer(records.columns["app_protocol"]), skip_zero=True)
        batch = native_batch(records, self.columns.bind(fields))
        if ranges is None:
            return self.flows.send(batch, wait_s)
        return sum(self.flows.send(batch, wait_s, start, stop) for start, stop in ranges)

    def stats(self) -> FlowStats:
        return self.flows.stats()

    def dns(self) -> DnsSender:
        """The sender of dns mode, running from the first call on."""
        if self._dns is None:
            session = self.settings.session(environment=True)
            self._dns = DnsSender(
                session, self.settings.endpoints.dns, self.errors, tick_s=self.settings.pace.tick_s
            )
            self._dns.start()
        return self._dns

    def tags(self) -> TagSender:
        """The sender of radius mode, running from the first call on."""
        if self._tags is None:
            self._tags = TagSender(
                self.settings.session(environment=True), self.settings.endpoints.api, self.errors
            )
            self._tags.start()
        return self._tags

    def stop(self, timeout: float = STOP_S) -> bool:
        """Flush everything within `timeout` seconds, then end. False when something was left. Only once."""
        if self._stopped is not None:
            return self._stopped
        end = time.monotonic() + timeout
        self._ending.set()
        stoppers: list[Callable[[float], bool]] = [self.flows.stop]
        stoppers += [sender.stop for sender in (self._dns, self._tags) if sender is not None]
        done = [stop(max(end - time.monotonic(), 0.0)) for stop in stoppers]
        self._metrics.stop(max(end - time.monotonic(), 0.0))
        if self._status is not None:
            self._status.stop()
        self._api.close()
        self._stopped = all(done)
        return self._stopped

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _refresh_often(self) -> None:
        while not self._ending.wait(self.settings.pace.refresh_s):
            self.refresh()

    def refresh(self) -> None:
        """Fetch the device again; its rates may have changed (kflow-wire.md 1.9)."""
        old = self.device
        try:
            new = self._api.lookup(old.id)
            rates = new.max_flow_rate, new.sample_rate
        except DeviceNotFound:
            rates = 0, 0
        except (AuthenticationFailed, RequestFailed) as error:
            LOG.error("device refresh: %s", error)
            return
        flow_rate, sample_rate = rates
        if sample_rate != old.sample_rate and self.settings.sample is None:
            self.fatal = f"the device's sample rate changed from {old.sample_rate} to {sample_rate}"
        # name, company and columns are not refreshed
        self.device = replace(old, max_flow_rate=flow_rate, sample_rate=sample_rate)
        if flow_rate != old.max_flow_rate:
            self.flows.resize(flow_rate)


def _as_buffer(values: Any) -> Any:
    try:
        memoryview(values)
    except TypeError:
        return array("I", values)
    return values


def connect(settings: Settings) -> Client:
    """Look the device up or create it, register the interface, start sending.

    AuthenticationFailed, DeviceNotFound, SetupFailed (their `lines()` are for the user); InputError for an
    interface that the system does not know; ConfigError for settings that cannot be used.
    """
    for name, limit in (
        ("device_id", 1 << 32),
        ("plan", 1 << 32),
        ("site", 1 << 32),
        ("status_port", 1 << 16),
    ):
        if not 0 <= getattr(settings, name) < limit:
            raise ConfigError(f"{name}: {getattr(settings, name)} is not within 0 and {limit - 1}")
    interface = None if settings.interface is None else Interface.of_system(settings.interface)
    session = settings.session()
    try:
        api = DeviceApi(session, settings.endpoints.api)
        device = find_device(api, settings, interface)
        if interface is not None:
            failure = register(api, device, interface)
            if failure is not None:
                LOG.debug("interfaces not updated: %s", failure)
        # the next look-up is 20 minutes away
        session.rest()
    except BaseException:
        session.close()
        raise
    client = Client(settings, api, device)
    client.start()
    return client

"""Options of the agent: one table of flags and `visor.config` keys, and who wins (agent spec 1.1, 1.6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from netprobe.errors import ConfigError

if TYPE_CHECKING:
    from netprobe.policy.config import Document
    from netprobe.policy.nodes import Node

__all__ = [
    "PROM_STYLES",
    "Options",
    "Setting",
    "absolute_paths",
    "changed",
    "read_config",
    "section",
    "settings",
]

PROM_STYLES = ("classic", "modern")
#: in seconds; beyond some centuries a thread cannot wait
YEAR = 365 * 86400
#: keys of inputs that name files or sockets
INPUT_PATHS = ("pcap_file", "dnstap_file", "socket")
#: YAML 1.1, in any of its three cases
TRUE_WORDS = frozenset({"true", "yes", "on", "y"})
FALSE_WORDS = frozenset({"false", "no", "off", "n"})


class Setting(NamedTuple):
    """One option: its flag, its key under `visor.config` (None: command line only), and how text is read."""

    flag: str
    key: str | None
    read: Callable[[str], Any]
    #: true if the flag is given or the key is true
    switch: bool = False


class BadValue(ValueError):
    """What is wrong with a value and what would be right; the caller knows where it stands."""


# --- readers -----------------------------------------------------------------------------------------------


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise BadValue("not a boolean, expected true or false")


def _path(text: str) -> str | None:
    return text or None


def _text(text: str) -> str | None:
    return text or None


def _host(text: str) -> str:
    # an IPv6 address as it stands in URLs
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def _hosts(text: str) -> str:
    from netprobe.hosts import parse_hosts

    try:
        parse_hosts(text)
    except ConfigError as problem:
        raise BadValue(str(problem)) from None
    return text


def _style(text: str) -> str:
    if text in PROM_STYLES:
        return text
    raise BadValue(f"expected {' or '.join(PROM_STYLES)}")


def _count(
    low: int, high: int | None = None, *, clamp: bool = False, wanted: str = ""
) -> Callable[[str], int]:
    wanted = wanted or (f"{low} to {high}" if high is not None else f"{low} or more")

    def read(text: str) -> int:
        digits = text[1:] if text[:1] in ("-", "+") else text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            raise BadValue(f"not a whole number, expected {wanted}")
        value = int(text)
        if low <= value and (high is None or value <= high):
            return value
        if not clamp:
            raise BadValue(f"out of range, expected {wanted}")
        return low if value < low else high if high is not None else value

    return read


# --- the table ---------------------------------------------------------------------------------------------


def _switch(flag: str, key: str | None = None) -> bool:
    setting = Setting(flag, key or _key(flag), _boolean, switch=True)
    return dataclasses.field(default=False, metadata={"setting": setting})


def _value(flag: str, read: Callable[[str], Any], default: Any = None, *, key: str | None = "") -> Any:
    setting = Setting(flag, _key(flag) if key == "" else key, read)
    return dataclasses.field(default=default, metadata={"setting": setting})


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent was told to do. Paths are absolute, numbers are in range."""

    iface: str | None = _value("IFACE", _text, key=None)
    bpf: str = _value("-b", str, "", key=None)
    host_spec: str = _value("-H", _hosts, "", key=None)
    ring_mb: int | None = _value("--ring-mb", _count(1, 2048), None, key=None)
    config: str | None = _value("--config", _path, key=None)

    verbose: bool = _switch("-v", "verbose")
    daemon: bool = _switch("-d", "daemon")
    syslog: bool = _switch("--syslog")
    log_file: str | None = _value("--log-file", _path)
    pid_file: str | None = _value("--pid-file", _path)
    user: str | None = _value("--user", _text)

    host: str = _value("-l", _host, "localhost", key="host")
    #: the range is judged when binding, whose message is a wire literal
    port: int = _value("-p", _count(-(10**18), wanted="0 to 65535"), 10853, key="port")
    tls: bool = _switch("--tls")
    tls_cert: str | None = _value("--tls-cert", _path)
    tls_key: str | None = _value("--tls-key", _path)
    admin_api: bool = _switch("--admin-api")
    admin_token_file: str | None = _value("--admin-token-file", _path)

    prometheus: bool = _switch("--prometheus")
    prom_instance: str | None = _value("--prom-instance", _text)
    prom_style: str = _value("--prom-style", _style, "classic")

    max_deep_sample: int = _value("--max-deep-sample", _count(1, 100, clamp=True), 100)
    periods: int = _value("--periods", _count(1, 10, clamp=True), 5)
    geo_city: str | None = _value("--geo-city", _path)
    geo_asn: str | None = _value("--geo-asn", _path)
    default_geo_city: str | None = _value("--default-geo-city", _path)
    default_geo_asn: str | None = _value("--default-geo-asn", _path)
    geo_cache_size: int = _value("--geo-cache-size", _count(0), 10000)
    iana_service_port_registry: str | None = _value("--iana-service-port-registry", _path)
    default_service_registry: str | None = _value("--default-service-registry", _path)

    otel: bool = _switch("--otel")
    otel_host: str = _value("--otel-host", _host, "localhost")
    otel_port: int = _value("--otel-port", _count(1, 65535), 4318)
    otel_path: str = _value("--otel-path", str, "/v1/metrics")
    otel_interval: int = _value("--otel-interval", _count(1, YEAR), 60)
    otel_tls: bool = _switch("--otel-tls")
    otel_tls_cert: str | None = _value("--otel-tls-cert", _path)
    otel_tls_key: str | None = _value("--otel-tls-key", _path)

    module_list: bool = _switch("--module-list")
    module_dir: str | None = _value("--module-dir", _path)
    no_track: bool = _switch("--no-track")
    cp_disable: bool = _switch("--cp-disable")
    cp_token: str | None = _value("--cp-token", _text)
    cp_url: str | None = _value("--cp-url", _text)
    cp_custom: str | None = _value("--cp-custom", _text)
    cp_path: str | None = _value("--cp-path", _text)

    @property
    def city_database(self) -> str | None:
        return self.geo_city or self.default_geo_city

    @property
    def asn_database(self) -> str | None:
        return self.geo_asn or self.default_geo_asn

    @property
    def service_registry(self) -> str | None:
        return self.iana_service_port_registry or self.default_service_registry

    def warnings(self) -> Iterator[str]:
        """What was probably not meant."""
        if not self.tls and (self.tls_cert or self.tls_key):
            yield "--tls-cert and --tls-key have no effect without --tls: this is plain HTTP"
        if not self.otel_tls and (self.otel_tls_cert or self.otel_tls_key):
            yield "--otel-tls-cert and --otel-tls-key have no effect without --otel-tls: this is plain HTTP"
        if self.admin_token_file and not self.admin_api:
            yield "--admin-token-file has no effect without --admin-api"
        if self.iface is None and (self.bpf or self.host_spec):
            yield "-b and -H are for the default policy: without IFACE they have no effect"
        if self.admin_api and not self.admin_token_file and not _is_loopback(self.host):
            yield f"whoever reaches {self.host} may change taps and policies: see --admin-token-file"

    @classmethod
    def merge(cls, arguments: Mapping[str, Any], config: Mapping[str, Node], base: Path) -> Options:
        """Command line over `visor.config` over defaults; an empty value counts as not given.

        `arguments`: as docopt gives them; `config`: as `section` gives it; `base`: where relative paths
        start, which a daemon leaves. ConfigError names the flag or the place in the file, the value, and what
        would be right.
        """
        given: dict[str, Any] = {}
        for name, setting in settings():
            flag = arguments.get(setting.flag)
            # the file is read even if the flag decides, because a bad value is worth a word
            found = _configured(setting, config.get(setting.key or ""))
            if setting.switch:
                given[name] = bool(flag or found)
            elif flag:
                given[name] = _from_flag(setting, flag)
            elif found is not None:
                given[name] = found
            if setting.read is _path and given.get(name):
                given[name] = str(base / given[name])
        options = cls(**given)
        options._check_pairs()
        return options

    def _check_pairs(self) -> None:
        for switch, on, pair in (
            ("--tls", self.tls, (("--tls-cert", self.tls_cert), ("--tls-key", self.tls_key))),
            (
                "--otel-tls",
                self.otel_tls,
                (("--otel-tls-cert", self.otel_tls_cert), ("--otel-tls-key", self.otel_tls_key)),
            ),
        ):
            missing = [flag for flag, value in pair if value is None]
            if on and missing:
                raise ConfigError(f"{switch}: needs {' and '.join(missing)}")


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _from_flag(setting: Setting, text: str) -> Any:
    try:
        return setting.read(text)
    except BadValue as problem:
        raise ConfigError(f"{setting.flag} {text!r}: {problem}") from None


def _configured(setting: Setting, node: Node | None) -> Any:
    if node is None or node.kind == "null" or (node.is_scalar and not node.text):
        return None
    if not node.is_scalar:
        raise node.error(f"{node.describe()}, expected one value")
    if "\0" in node.text:
        # nothing that the system is asked for may hold one
        raise node.error(f"{node.text!r}: a zero byte, expected text without")
    try:
        return setting.read(node.text)
    except BadValue as problem:
        raise node.error(f"{node.text!r}: {problem}") from None


def settings() -> Iterator[tuple[str, Setting]]:
    """Name of the attribute and where its value comes from, in the order of the documentation."""
    for field in dataclasses.fields(Options):
        yield field.name, field.metadata["setting"]


def changed(old: Options, new: Options) -> list[str]:
    """Names of the options whose values differ: what a reload cannot apply."""
    return [name for name, _ in settings() if getattr(old, name) != getattr(new, name)]


# --- the configuration file --------------------------------------------------------------------------------


def read_config(path: str) -> Document:
    """The configuration file, of version 1.0. ConfigError names it and what is wrong."""
    from netprobe.policy.config import load, outline_of_file

    document = load(path)
    # taps and policies are judged by who makes them
    outline_of_file(document)
    return document


def section(document: Document) -> tuple[dict[str, Node], list[str]]:
    """What `visor.config` sets, and what in it is worth a warning."""
    visor = document.root.get("visor") if document.root is not None else None
    node = visor.get("config") if visor is not None else None
    if node is None or not node.is_map:
        return {}, []
    known = [setting.key for _, setting in settings() if setting.key]
    notes = [node.where(key) + ": unknown" + _near(key, known) for key in node.entries if key not in known]
    return {key: value for key, value in node.entries.items() if key in known}, notes


def absolute_paths(document: Document, base: Path) -> None:
    """Make the paths in taps and policies absolute, for a process that changes its directory."""
    visor = document.root.get("visor") if document.root is not None else None
    for kind, way in (
        ("taps", ("config",)),
        ("policies", ("input", "config")),
        ("policies", ("input", "filter")),
    ):
        part = visor.get(kind) if visor is not None else None
        for node in part.entries.values() if part is not None else ():
            inner: Node | None = node
            for key in way:
                inner = inner.get(key) if inner is not None else None
            for key in INPUT_PATHS:
                path = inner.get(key) if inner is not None else None
                if path is not None and path.is_scalar and path.text:
                    path.text = str(base / path.text)


def _near(key: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, 1)
    return f", did you mean {near[0]}?" if near else ""

"""A manager of taps and policies out of capture files, with the interface that the web server is built on."""

from __future__ import annotations

import contextlib
import faulthandler
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

import netprobe
from netprobe.agent.web import App, Server, create_app
from netprobe.errors import ConfigError, ExistsError, NoMatchError, NotFoundError
from netprobe.metrics import render_json
from netprobe.metrics.window import HandlerWindow, check_bucket, check_window, merged

CAPTURES = Path(__file__).parent / "captures"
DEMO = CAPTURES / "demo.pcap"
HANDLERS = "net,dhcp,dns,pcap"


def windows_of(path: Path, start: int, handlers: Any = HANDLERS, **more: Any) -> list[HandlerWindow]:
    """A closed bucket out of a capture, as if it had begun at ``start``."""
    found = netprobe.summarize(path, handlers=handlers, periods=1, hosts="10.77.0.2/32,fd77::2/128", **more)
    return [replace(w, start_ts=start, length=60, read_only=True, recorded=False) for w in found.windows]


class FakeTap:
    def __init__(self, config: Any = None, tags: Any = None) -> None:
        self.config, self.tags = config, tags

    def to_dict(self) -> dict[str, Any]:
        return {
            "input_type": "pcap",
            "interface": "visor.module.input/1.0",
            "config": self.config,
            "tags": self.tags,
        }


class FakePolicy:
    """Buckets, newest first, each a list of handler windows; ``broken``: reading them fails."""

    def __init__(
        self, name: str, buckets: Sequence[list[HandlerWindow]], periods: int = 5, tap: str = "default"
    ) -> None:
        self.name, self.periods, self.broken = name, periods, False
        self.names = [f"{name}-{tap}-{window.config.name}" for window in buckets[0]]
        self.module_names = self.names
        self.parts = [SimpleNamespace(handlers=self)]
        self.buckets = [
            [
                window.with_labels(handler=handler, policy=name, tap=tap)
                for handler, window in zip(self.names, bucket, strict=True)
            ]
            for bucket in buckets
        ]

    def to_dict(self) -> dict[str, Any]:
        modules = {
            name: {
                "module": {
                    "name": name,
                    "type": window.table.key,
                    "running": True,
                    "config": {"num_periods": self.periods},
                },
                "metrics": {
                    "deep_sample_rate": 100,
                    "periods_configured": self.periods,
                    "periods": [
                        {
                            "start_tstamp": "2023-11-14 22:13:20",
                            "read_only": False,
                            "length": 60,
                            "events": 1,
                        }
                    ],
                },
            }
            for name, window in zip(self.names, self.buckets[0], strict=True)
        }
        return {
            "taps": {"default": FakeTap().to_dict()},
            "input": {
                "default-0a": {
                    "input": {"running": True, "consumers": 1},
                    "module": {"name": "default-0a", "config": {"iface": "eth0"}},
                    "pcap": {"available_iface": "eth0,lo", "host_ips": {}, "pcap_source": "af_packet"},
                }
            },
            "modules": modules,
        }

    def accumulated(self) -> int:
        return len(self.buckets)

    def bucket(self, n: int) -> list[HandlerWindow]:
        if self.broken:
            raise ZeroDivisionError("broken on purpose")
        check_bucket(n, self.periods, len(self.buckets))
        return self.buckets[n]

    def window(self, n: int) -> list[HandlerWindow]:
        check_window(n, self.periods)
        rows = zip(*self.buckets[:n], strict=True)
        return [merged(row, merge_blocks([window.blocks for window in row])) for row in rows]

    def _json(self, windows: Sequence[HandlerWindow]) -> dict[str, Any]:
        bodies = [render_json.render([window]) for window in windows]
        return {name: body for name, body in zip(self.names, bodies, strict=True) if body}

    def bucket_json(self, n: int) -> dict[str, Any]:
        return self._json(self.bucket(n))

    def window_json(self, n: int) -> dict[str, Any]:
        return self._json(self.window(n))

    def prometheus_windows(self) -> list[HandlerWindow]:
        return self.bucket(min(1, len(self.buckets) - 1))


def merge_blocks(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The blocks of several buckets of one handler, as one."""
    found = []
    for column in zip(*parts, strict=True):
        whole = None
        for block in column:
            if block is not None:
                if whole is None:
                    whole = block.clone()
                else:
                    whole.merge(block, False)
        found.append(whole)
    return found


class FakeInput:
    def __init__(self) -> None:
        self.running, self.interface_up, self.consumers = True, True, 2

    def stats(self) -> dict[str, Any]:
        return {
            "packets": 70,
            "cpu_seconds": 0.25,
            "losses": {"os_drops": 3, "ring": {"full": 1}},
            "malformed": {"ipv4_header": 2},
        }


class FakeManager:
    """Takes documents of one tap or one policy; a policy's numbers are those of the demo capture."""

    geo = None

    def __init__(self) -> None:
        self.taps: dict[str, FakeTap] = {}
        self.policies: dict[str, FakePolicy] = {}
        self.inputs = {"default-0a": FakeInput()}
        self.lock = threading.Lock()

    def _one(self, body: bytes, kind: str) -> tuple[str, Any]:
        if not body.strip():
            raise ConfigError("empty data")
        try:
            document = yaml.safe_load(body)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"no YAML: {error}") from None
        if not isinstance(document, dict) or not isinstance(document.get("visor"), dict):
            raise ConfigError("invalid schema")
        found = document["visor"].get(kind)
        if not isinstance(found, dict) or not found:
            raise ConfigError(f"no {kind} found in schema")
        if len(found) != 1:
            raise ConfigError(f"only a single one expected, got {len(found)}")
        name, body = next(iter(found.items()))
        if not isinstance(name, str) or not name.replace("-", "_").isidentifier() or not name.isascii():
            raise ConfigError(f"{kind}: {name!r} is no name")
        if not isinstance(body, dict):
            raise ConfigError(f"{name}: expected a map")
        return name, body

    def add_tap(self, body: bytes) -> str:
        name, document = self._one(body, "taps")
        with self.lock:
            if name in self.taps:
                raise ExistsError(f"tap {name!r} exists already")
            config, tags = document.get("config"), document.get("tags")
            for what in (config, tags):
                if what is not None and not isinstance(what, dict):
                    raise ConfigError("expected a map")
            self.taps[name] = FakeTap(config, tags)
        return name

    def remove_tap(self, name: str) -> None:
        if self.taps.pop(name, None) is None:
            raise NotFoundError(name)

    def add_policy(self, body: bytes) -> str:
        name, document = self._one(body, "policies")
        if "tap_selector" in str(document):
            raise NoMatchError("some text of the manager")
        with self.lock:
            if name in self.policies:
                raise ExistsError(f"policy {name!r} exists already")
            self.policies[name] = FakePolicy(name, [windows_of(DEMO, 1_700_000_000)])
        return name

    def remove_policy(self, name: str) -> None:
        if self.policies.pop(name, None) is None:
            raise NotFoundError(name)


def demo_manager(buckets: int = 3) -> FakeManager:
    """Tap and policy `default` with the demo capture in each bucket, the newest of them open."""
    manager = FakeManager()
    manager.taps["default"] = FakeTap({"iface": "eth0", "host_spec": ""})
    made = [windows_of(DEMO, 1_700_000_000 - 60 * n) for n in range(buckets)]
    made[0] = [replace(window, read_only=False, length=7, live=True) for window in made[0]]
    manager.policies["default"] = FakePolicy("default", made)
    return manager


class Running:
    """A server in a thread, and a plain socket to it for what no client library would send."""

    def __init__(self, app: Any, **more: Any) -> None:
        self.app = app
        host = more.pop("host", "127.0.0.1")
        self.server = Server(app, host, 0, **more)
        self.server.start()
        self.thread = threading.Thread(target=self.server.run, name="test-web")
        self.thread.start()

    @property
    def url(self) -> str:
        return self.server.url

    def connect(self, timeout: float = 20.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout)

    def send(self, data: bytes) -> bytes:
        """Everything that comes back for some bytes until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)

    def close(self) -> None:
        self.server.stop()
        self.thread.join(20)
        if self.thread.is_alive():
            faulthandler.dump_traceback()
            raise AssertionError("the server does not stop")


def read_all(connection: socket.socket | ssl.SSLSocket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            found += piece
    return found


@contextlib.contextmanager
def running(
    manager: Any, *, limits: Any = None, tls: Any = None, host: str = "127.0.0.1", **more: Any
) -> Iterator[Running]:
    """create_app with these settings, served."""
    app: App = create_app(manager, **more)
    server = Running(app, limits=limits, tls=tls, host=host)
    try:
        yield server
    finally:
        server.close()


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true value of what(), or its last one when the time is over."""
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.02)
    return found

"""Kentik: the device API, kflow encoding, and what sends flows, DNS answers, tags and metrics.

    >>> from netprobe.kentik import Credentials, Settings, connect
    >>> client = connect(Settings(Credentials("me@example.com", token), device_name="probe-1"))
    >>> client.send(records)
    >>> client.stop(timeout=10)

Wire formats and rules: kflow-wire.md. Modules, from the wire upwards: `http` (sessions with real time
limits), `api` (devices), `columns` (custom columns), `records` (what a client is given), `kflow` (message
bodies), `flows`, `dns`, `tags`, `metrics` (senders), `status` (the local server), `client`
(all of it together).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netprobe.kentik.client import Client, Settings, connect
    from netprobe.kentik.columns import CustomColumns
    from netprobe.kentik.endpoints import Endpoints
    from netprobe.kentik.errors import AuthenticationFailed, DeviceNotFound, KentikError, SetupFailed
    from netprobe.kentik.http import Credentials
    from netprobe.kentik.records import Field, Records

__all__ = [
    "AuthenticationFailed",
    "Client",
    "Credentials",
    "CustomColumns",
    "DeviceNotFound",
    "Endpoints",
    "Field",
    "KentikError",
    "Records",
    "Settings",
    "SetupFailed",
    "connect",
]

_HOMES = {
    "client": ("Client", "Settings", "connect"),
    "columns": ("CustomColumns",),
    "endpoints": ("Endpoints",),
    "errors": ("AuthenticationFailed", "DeviceNotFound", "KentikError", "SetupFailed"),
    "http": ("Credentials",),
    "records": ("Field", "Records"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # loaded when asked for: who writes JSON lines needs no web client
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)

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

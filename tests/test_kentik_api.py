"""Device look-up, creation, interfaces, errors, credentials, time limits, against the stand-in server."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kentik_server import EMAIL, TOKEN, DeviceSpec, Fault, KentikServer, generic_columns, named_columns

from netprobe.errors import ConfigError, InputError
from netprobe.kentik import (
    AuthenticationFailed,
    Client,
    Credentials,
    DeviceNotFound,
    Endpoints,
    KentikError,
    Settings,
    SetupFailed,
    connect,
)
from netprobe.kentik.api import Device, DeviceApi
from netprobe.kentik.client import Pace, find_device
from netprobe.kentik.columns import DECODERS, FIELDS, Column, CustomColumns
from netprobe.kentik.errors import RequestFailed
from netprobe.kentik.http import Backoff, Session
from netprobe.kentik.interfaces import Interface, register, wanted
from netprobe.kentik.records import Field

CREDENTIALS = Credentials(EMAIL, TOKEN)
SECRET = "s3cr3t-t0ken-" + "f" * 19
FAST = Pace(tick_s=0.05, metrics_s=60, refresh_s=1200, request_s=5)


def endpoints(server: KentikServer) -> Endpoints:
    return Endpoints(server.api_url, server.flow_url, server.metrics_url, server.dns_url)


def settings(server: KentikServer, **changes: Any) -> Settings:
    base: dict[str, Any] = {"device_name": "probe-1", "pace": FAST, "endpoints": endpoints(server)}
    return Settings(**{"credentials": CREDENTIALS, **base, **changes})


@pytest.fixture
def server() -> Iterator[KentikServer]:
    with KentikServer([DeviceSpec(7, "probe-1", ips=("192.0.2.7", "2001:db8::7"))]) as running:
        yield running


def attach(server: KentikServer, **changes: Any) -> Client:
    return connect(settings(server, **changes))


def api_of(server: KentikServer, limit_s: float = 5, attempts: int = 3) -> DeviceApi:
    session = Session(CREDENTIALS, connect_s=limit_s, total_s=limit_s)
    return DeviceApi(session, server.api_url, attempts=attempts, backoff=Backoff(seed=1, scale=0.02))


# endpoints and credentials


@pytest.mark.parametrize(
    ("region", "api", "flow"),
    [
        (None, "https://api.kentik.com/api/internal", "https://flow.kentik.com/"),
        ("US", "https://api.kentik.com/api/internal", "https://flow.kentik.com/"),
        ("us", "https://api.kentik.com/api/internal", "https://flow.kentik.com/"),
        ("uS", "https://api.kentik.com/api/internal", "https://flow.kentik.com/"),
        ("Eu", "https://api.kentik.eu/api/internal", "https://flow.kentik.eu/"),
        ("JP1", "https://api.jp1.kentik.com/api/internal", "https://flow.jp1.kentik.com/"),
    ],
)
def test_regions(region: str | None, api: str, flow: str) -> None:
    assert Endpoints.of(region) == (api, flow + "chf", flow + "tsdb", flow + "dns")


def test_explicit_urls_replace_whole() -> None:
    found = Endpoints.of("EU", api="http://a.test/x/", flow="http://f.test/y?z=1", dns="http://d.test")
    assert found == ("http://a.test/x", "http://f.test/y?z=1", "https://flow.kentik.eu/tsdb", "http://d.test")


@pytest.mark.parametrize(
    "url", ["", "flow", "ftp://h/x", "http://", "http://h:99999/", "http://h:x/", "http://a b/"]
)
def test_unusable_urls(url: str) -> None:
    with pytest.raises(ConfigError, match="--flow-url"):
        Endpoints.of(flow=url)
    with pytest.raises(ConfigError, match="--proxy-url"):
        Settings(CREDENTIALS, proxy=url)


def test_unusable_region() -> None:
    with pytest.raises(ConfigError, match="--region"):
        Endpoints.of("x.test/")


def test_credentials_from_flags_and_environment() -> None:
    environment = {"KENTIK_EMAIL": "env@example.test", "KENTIK_TOKEN": SECRET}
    found = Credentials.choose(None, None, environment)
    assert (found.email, found.token) == ("env@example.test", SECRET)
    found = Credentials.choose("flag@example.test", "abc", environment)
    assert (found.email, found.token) == ("flag@example.test", "abc")
    with pytest.raises(ConfigError, match="--email"):
        Credentials.choose(None, "x", {})
    with pytest.raises(ConfigError, match="--token"):
        Credentials.choose("x", None, {"KENTIK_EMAIL": "y"})


@pytest.mark.parametrize(
    "token", [SECRET + "\n", SECRET + "\r\nX: y", " " + SECRET, SECRET + "\x00", SECRET + "é"]
)
def test_tokens_that_cannot_be_sent(token: str) -> None:
    with pytest.raises(ConfigError, match="--token") as caught:
        Credentials("a@example.test", token)
    assert SECRET not in str(caught.value)


def test_nothing_shows_a_secret(server: KentikServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither representations, nor errors, nor the log at its most talkative, the HTTP stack's included."""
    caplog.set_level(logging.DEBUG)
    mine = Settings(
        Credentials(EMAIL, SECRET),
        endpoints=endpoints(server),
        proxy="http://user:pass-w0rd@127.0.0.1:9",
        device_name="probe-1",
        pace=FAST,
    )
    shown = [
        repr(mine),
        str(mine.describe()),
        repr(mine.credentials),
        str(mine.credentials),
        f"{mine.session()}",
    ]
    with pytest.raises(SetupFailed) as refused:
        connect(mine)
    server.allow_unauthorized = True
    with pytest.raises(AuthenticationFailed) as denied:
        connect(settings(server, credentials=mine.credentials))
    server.faults["device"].extend([Fault("reset"), Fault("garbage"), Fault("hang")])
    for _ in range(2):
        with pytest.raises(KentikError) as broken:
            find_device(api_of(server, 0.3, attempts=1), settings(server), None)
        shown += broken.value.lines()
    shown += refused.value.lines() + denied.value.lines() + [record.getMessage() for record in caplog.records]
    for text in shown:
        assert SECRET not in text
        assert TOKEN not in text
        assert "pass-w0rd" not in text
    assert EMAIL in shown[0]


# look-up


@pytest.mark.parametrize(
    ("how", "path"),
    [
        ({"device_id": 7}, "/device/7"),
        ({"device_name": "probe-1"}, "/device/probe-1"),
        ({"device_ip": "192.0.2.7"}, "/device/192.0.2.7"),
        ({"device_ip": "2001:db8::7"}, "/device/2001:db8::7"),
        ({"device_id": 7, "device_if": "lo", "device_ip": "192.0.2.9", "device_name": "other"}, "/device/7"),
        ({"device_ip": "192.0.2.7", "device_name": "other"}, "/device/192.0.2.7"),
    ],
)
@pytest.mark.parametrize("numbers", [False, True])
def test_lookup(server: KentikServer, how: dict[str, Any], path: str, numbers: bool) -> None:
    server.devices[0].numbers = numbers
    with attach(server, **how) as client:
        device = client.device
        assert (device.id, device.name, device.company_id) == (7, "probe-1", 1001)
        assert (device.sample_rate, device.max_flow_rate, client.sample_rate) == (1, 4000, 1)
        assert client.columns.id_of("CONNECTION_ID") == 11
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("GET", "/api/internal" + path)
    assert seen.headers["accept-encoding"] == "gzip"
    server.verify()


def test_name_with_dots_and_the_host_s_name(server: KentikServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.devices.append(DeviceSpec(8, "a_b_example"))
    with attach(server, device_name="a.b.example") as client:
        assert client.device.id == 8
    monkeypatch.setattr(socket, "gethostname", lambda: "probe-1")
    with attach(server, device_name=None) as client:
        assert client.device.id == 7
    assert [seen.path.rpartition("/")[2] for seen in server.requests] == ["a_b_example", "probe-1"]
    server.verify()


@pytest.fixture
def namespace() -> Iterator[str]:
    """With one interface np0: MAC ending in 12:34, addresses of several kinds."""
    name = f"np-kentik-{time.monotonic_ns() % 10**9}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        ip(
            "-n",
            name,
            "link",
            "add",
            "np0",
            "address",
            "02:00:00:00:12:34",
            "type",
            "veth",
            "peer",
            "name",
            "np1",
        )
        for address in ("169.254.3.4/16", "10.5.0.1/20", "198.51.100.9/32"):
            ip("-n", name, "addr", "add", address, "dev", "np0")
        ip("-n", name, "addr", "add", "2001:db8:5::1/64", "dev", "np0", "nodad")
        ip("-n", name, "addr", "add", "fe80::5/64", "dev", "np0", "nodad")
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.root
@pytest.mark.tool("ip")
def test_interface_of_the_system(namespace: str) -> None:
    """As iproute2 lists it, from inside the namespace (where /sys would tell of another one)."""
    code = (
        "from netprobe.kentik.interfaces import Interface, wanted; import json;"
        "i = Interface.of_system('np0'); lo = Interface.of_system('lo');"
        "print(json.dumps([i.mac.hex(), i.index, i.first_ipv4(), [str(a) for a in i.addresses], wanted(i),"
        "lo.mac, wanted(lo), [str(a) for a in lo.addresses]]))"
    )
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    mac, index, first, addresses, entries, lo_mac, lo_entries, lo_addresses = json.loads(done.stdout)
    listed = subprocess.run(
        ["ip", "-n", namespace, "-j", "addr", "show", "np0"], check=True, capture_output=True, text=True
    )
    (link,) = json.loads(listed.stdout)
    assert mac == link["address"].replace(":", "")
    assert addresses == [f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"]]
    assert (index, first) == (0x1234, "169.254.3.4")
    assert entries == {
        "np0": {
            "index": "4660",
            "alias": "",
            "desc": "np0",
            "speed": 0,
            "type": 0,
            "address": "10.5.0.1",
            "netmask": "255.255.240.0",
            "alias_address": [
                {"address": "198.51.100.9", "netmask": "255.255.255.255"},
                {"address": "2001:db8:5::1", "netmask": "ffff:ffff:ffff:ffff::"},
            ],
        },
        "kernel": {
            "index": "0",
            "alias": "",
            "desc": "kernel",
            "speed": 0,
            "type": 0,
            "address": "",
            "netmask": "",
            "alias_address": None,
        },
    }
    assert (lo_mac, lo_entries) == (None, {})
    assert "127.0.0.1/8" in lo_addresses


def test_unknown_interface(server: KentikServer) -> None:
    with pytest.raises(InputError, match="unknown interface np-none"):
        attach(server, interface="np-none")
    with pytest.raises(SetupFailed) as caught:
        attach(server, device_if="np-none")
    assert caught.value.lines() == [
        "error: failed to configure libkflow: InvalidConfig",
        "  library setup error: device lookup error: unknown interface np-none",
    ]
    assert not server.requests


def test_lookup_by_interface(server: KentikServer) -> None:
    """Each address in turn; 401 is told, everything else is no device."""
    server.devices.append(DeviceSpec(9, "local", ips=("127.0.0.1",)))
    with attach(server, device_if="lo", device_ip="192.0.2.7") as client:
        assert client.device.id == 9
    server.devices.pop()
    with pytest.raises(DeviceNotFound):
        attach(server, device_if="lo", plan=5)
    server.faults["device"].extend([Fault("status", 403), Fault("status", 403)])
    with pytest.raises(DeviceNotFound):
        attach(server, device_if="lo")
    server.faults["device"].clear()
    server.allow_unauthorized = True
    with pytest.raises(AuthenticationFailed):
        attach(server, device_if="lo", credentials=Credentials(EMAIL, "wrong"))
    assert "create" not in server.routes()
    server.verify()


# failures


def test_no_device(server: KentikServer) -> None:
    for how in (
        {"device_name": "nobody"},
        {"device_id": 99},
        {"device_id": 99, "plan": 5, "device_ip": "192.0.2.9"},
    ):
        with pytest.raises(DeviceNotFound) as caught:
            attach(server, **how)
        assert (caught.value.lines(), caught.value.code) == (["error: device not found"], 8)
    assert server.routes() == {"device": 3}
    server.verify()


def test_wrong_credentials(server: KentikServer) -> None:
    server.allow_unauthorized = True
    for credentials in (Credentials(EMAIL, "wrong"), Credentials("wrong@example.test", TOKEN)):
        with pytest.raises(AuthenticationFailed) as caught:
            attach(server, credentials=credentials)
        assert (caught.value.lines(), caught.value.code) == (["error: authentication failed"], 7)
    assert server.unauthorized == 2
    server.verify()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("status", 403), "api: unauthorized (403)"),
        (Fault("status", 403, body=b'{"error": "other words"}'), "api: unauthorized (403)"),
        (Fault("status", 400, body=b'{"error": "a bad request"}'), "api: a bad request (400)"),
        (Fault("status", 400, body=b'{"error": 5}'), "api: HTTP status code 400"),
        (Fault("status", 418, body=b"<html>"), "api: HTTP status code 418"),
        (Fault("status", 501), "api: HTTP status code 501"),
        (Fault("status", 204), "api: HTTP status code 204"),
        (Fault("status", 302), "api: HTTP status code 302"),
        (Fault("garbage"), "api: the answer is not JSON"),
        (Fault("status", 200, body=b"[]"), "api: no device in the answer"),
        (Fault("status", 200, body=b'{"device": null}'), "api: no device in the answer"),
        (
            Fault("status", 200, body=b'{"device": {"device_name": "x", "id": "y"}}'),
            "api: id is not a number",
        ),
        (Fault("status", 200, body=b"[" * 100_000), "api: the answer is not JSON"),
    ],
)
def test_answers_that_are_none(server: KentikServer, fault: Fault, reason: str) -> None:
    server.faults["device"].append(fault)
    with pytest.raises(SetupFailed) as caught:
        attach(server)
    assert caught.value.reasons == (f"library setup error: device lookup error: {reason}",)
    assert caught.value.code == 1
    assert server.routes() == {"device": 1}


def test_server_failures_are_tried_again_and_told(server: KentikServer) -> None:
    api = api_of(server)
    server.faults["device"].extend([Fault("status", 500), Fault("reset")])
    assert api.device(7).name == "probe-1"
    assert server.routes() == {"device": 3}
    url = f"{server.api_url}/device/7"
    server.faults["device"].extend([Fault("status", 503)] * 3)
    with pytest.raises(SetupFailed) as caught:
        api.device(7)
    (reason,) = caught.value.reasons
    wanted_text = f'Get "{url}": GET {url} giving up after 3 attempts'
    assert reason == f"library setup error: device lookup error: {wanted_text}"
    server.verify()


@pytest.mark.parametrize("kind", ["reset", "close", "cut", "hang", "drip"])
def test_broken_connections_end_in_time(server: KentikServer, kind: str) -> None:
    server.faults["device"].extend([Fault(kind)] * 10)
    began = time.monotonic()
    with pytest.raises(SetupFailed) as caught:
        api_of(server, 0.4).device(7)
    assert time.monotonic() - began < 3
    (reason,) = caught.value.reasons
    assert f"GET {server.api_url}/device/7: " in reason
    if kind in ("hang", "drip"):
        assert "no answer within" in reason


def test_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    mine = Settings(
        CREDENTIALS, endpoints=Endpoints.of(api=f"http://127.0.0.1:{port}/api"), device_id=1, pace=FAST
    )
    with pytest.raises(SetupFailed) as caught:
        connect(mine)
    assert caught.value.reasons == (
        "library setup error: device lookup error: "
        f"GET http://127.0.0.1:{port}/api/device/1: connection refused",
    )


def test_host_that_has_no_address() -> None:
    mine = Settings(
        CREDENTIALS, endpoints=Endpoints.of(api="http://nobody.invalid/api"), device_id=1, pace=FAST
    )
    with pytest.raises(SetupFailed, match="InvalidConfig") as caught:
        connect(mine)
    assert caught.value.reasons[0].endswith("/device/1: host name not known")


def test_endless_answer(server: KentikServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netprobe.kentik.http.ANSWER_BYTES", 1000)
    server.faults["device"].append(Fault("status", 200, body=b" " * 1001))
    with pytest.raises(SetupFailed) as caught:
        find_device(api_of(server, attempts=1), settings(server), None)
    assert caught.value.reasons[0].endswith("the answer is too long")


def test_redirects_do_not_take_credentials_elsewhere(server: KentikServer) -> None:
    with KentikServer([DeviceSpec(7, "probe-1")]) as other:
        server.faults["device"].append(Fault("status", 307, location=f"{other.api_url}/device/7"))
        with pytest.raises(SetupFailed) as caught:
            attach(server)
        assert caught.value.reasons[0].endswith("api: HTTP status code 307")
        assert not other.requests


# creation


@pytest.mark.parametrize("site", [0, 12])
def test_creation(server: KentikServer, site: int) -> None:
    with attach(server, device_name="new.example", device_ip="192.0.2.33", plan=5, site=site) as client:
        assert (client.device.name, client.device.max_flow_rate) == ("new_example", 4000)
        assert client.columns.decoders == frozenset(DECODERS)
    calls = [
        (seen.method, seen.path.removeprefix("/api/internal"), json.loads(seen.body or b"0"))
        for seen in server.requests
    ]
    body = {
        "device_name": "new_example",
        "device_type": "host-nprobe-dns-www",
        "device_subtype": "kprobe",
        "device_description": "new.example",
        "device_sample_rate": "1",
        "device_bgp_type": "none",
        "plan_id": 5,
        **({"site_id": site} if site else {}),
        "cdn_attr": "N",
        "sending_ips": ["192.0.2.33"],
    }
    assert calls == [
        ("GET", "/device/192.0.2.33", 0),
        ("POST", "/device/", {"device": body}),
        ("GET", "/device/8", 0),
    ]
    server.verify()


def test_creation_needs_plan_and_address(server: KentikServer) -> None:
    for how in ({"plan": 5}, {"device_ip": "192.0.2.33"}):
        with pytest.raises(DeviceNotFound):
            attach(server, device_name="new", **how)
    # the capture interface's first address does, too
    api = api_of(server)
    interface = Interface("np0", b"\0\0\0\0\0\1", (ipaddress.ip_interface("198.51.100.4/24"),))
    made = find_device(api, settings(server, device_name="new", plan=5), interface)
    assert server.lookup("198.51.100.4") is server.lookup(str(made.id))
    server.verify()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (None, "api: invalid plan (400)"),
        (Fault("status", 401), "api: HTTP status code 401"),
        (Fault("status", 200, body=b'{"device": {}}'), "api: HTTP status code 200"),
        (Fault("status", 403), "api: unauthorized (403)"),
    ],
)
def test_failed_creation(server: KentikServer, fault: Fault | None, reason: str) -> None:
    server.faults["create"].append(fault)
    with pytest.raises(SetupFailed) as caught:
        attach(server, device_name="new", device_ip="192.0.2.33", plan=99)
    assert caught.value.reasons == (f"library setup error: {reason}",)


@pytest.mark.parametrize("kind", ["reset", "status"])
def test_creation_is_not_repeated(server: KentikServer, kind: str) -> None:
    server.faults["create"].extend([Fault(kind, 500)] * 3)
    with pytest.raises(SetupFailed):
        attach(server, device_name="new", device_ip="192.0.2.33", plan=5)
    assert server.routes()["create"] == 1


# interfaces


def interface(*addresses: str, mac: bytes | None = b"\x02\0\0\0\xab\xcd") -> Interface:
    return Interface("np0", mac, tuple(ipaddress.ip_interface(address) for address in addresses))


def device_of(server: KentikServer) -> tuple[DeviceApi, Device]:
    api = api_of(server)
    return api, api.device(7)


def test_interfaces_are_registered_once(server: KentikServer) -> None:
    api, device = device_of(server)
    here = interface("127.0.0.1/8", "10.0.0.1/24")
    assert register(api, device, here) is None
    assert register(api, device, here) is None
    assert [seen.route for seen in server.requests] == ["device", "interfaces", "update", "interfaces"]
    (put,) = server.interface_puts
    assert put == wanted(here)
    assert put["np0"]["index"] == str(0xABCD)
    # only what changed
    assert register(api, device, interface("10.0.0.2/24")) is None
    assert list(server.interface_puts[-1]) == ["np0"]
    # an empty list is not the same as none
    server.devices[0].interfaces[-1]["secondary_ips"] = []
    assert register(api, device, interface("10.0.0.2/24")) is None
    assert len(server.interface_puts) == 3
    server.verify()


@pytest.mark.parametrize(
    "here",
    [
        interface(),
        interface("127.0.0.1/8", "169.254.0.1/16", "fe80::1/64", "::1/128"),
        interface("10.0.0.1/8", mac=None),
    ],
)
def test_nothing_to_register(server: KentikServer, here: Interface) -> None:
    api, device = device_of(server)
    assert register(api, device, here) is None
    assert [seen.route for seen in server.requests] == ["device", "interfaces"]


def test_private_and_odd_addresses() -> None:
    entries = ["10.0.0.1/8", "0.0.0.0/0", "224.0.0.5/32", "255.255.255.255/32", "fd00::1/64", "ff02::1/128"]
    assert [str(entry) for entry in interface(*entries).global_unicast()] == ["10.0.0.1/8", "fd00::1/64"]


def test_null_is_an_empty_list_of_interfaces(server: KentikServer) -> None:
    """As servers in Go put it."""
    api, device = device_of(server)
    server.faults["interfaces"].append(Fault("status", 200, body=b"null"))
    here = interface("10.0.0.1/24")
    assert register(api, device, here) is None
    assert server.interface_puts == [wanted(here)]


@pytest.mark.parametrize("route", ["interfaces", "update"])
@pytest.mark.parametrize(
    "fault", [Fault("status", 500), Fault("status", 404), Fault("garbage"), Fault("reset")]
)
def test_failing_registration_is_told_only(server: KentikServer, route: str, fault: Fault) -> None:
    api, device = device_of(server)
    server.faults[route].extend([fault] * 3)
    reason = register(api, device, interface("10.0.0.1/24"))
    # what an update is answered does not matter
    assert (reason is None) == (route == "update" and fault.kind == "garbage")


def test_start_goes_on_without_registration(server: KentikServer) -> None:
    server.faults["interfaces"].extend([Fault("status", 403)] * 3)
    with attach(server, interface="lo") as client:
        assert client.device.id == 7
    assert server.routes()["interfaces"] == 1
    server.verify()


# custom columns


def test_generic_columns() -> None:
    ids = {name: number for number, name, _ in generic_columns()}
    columns = CustomColumns(Column(*entry) for entry in generic_columns())
    assert columns.generic
    assert columns.decoders == {"dns", "http", "tls", "dhcp", "radius"}
    for field, name in {
        "KFLOW_DNS_QUERY": "STR00",
        "KFLOW_HTTP_UA": "STR03",
        "TLS_CIPHER_SUITE": "INT01",
        "DHCP_SI_ADDR": "INET_02",
        "RADIUS_ACCT_STATUS": "INT02",
        "APPL_LATENCY_MS": "APPL_LATENCY_MS",
        "OOORDER_IN_PKTS": "OOORDER_IN_PKTS",
    }.items():
        assert columns.id_of(field) == ids[name], field
    # order of 4.5, whatever the order in which they are given
    fields = {
        name: Field([1]) for name in reversed(FIELDS) if name.startswith(("RADIUS", "APP", "FRAG", "CONN"))
    }
    fields["RADIUS_FRAMED_PROTO"] = Field([7])
    bound = list(columns.bind(fields))
    names = ["INT00", "APPL_LATENCY_MS", "STR00", "INT02", "INT01", "INET_00", "INET_01", "STR01", "STR02"]
    names += ["FRAGMENTS", "APP_PROTOCOL", "CONNECTION_ID"]
    assert [entry.id for entry in bound] == [ids[name] for name in names]
    # a number for a column of texts is written in decimal (D4)
    (framed,) = [entry for entry in bound if entry.id == ids["STR01"]]
    assert (framed.kind, framed.field.values) == ("text", ["7"])
    numeric = [(n, name, "uint32" if name == "STR01" else kind) for n, name, kind in generic_columns()]
    (framed,) = CustomColumns(Column(*entry) for entry in numeric).bind({"RADIUS_FRAMED_PROTO": Field([7])})
    assert framed.kind == "u32"


def test_named_columns() -> None:
    ids = {name: number for number, name, _ in named_columns()}
    columns = CustomColumns(Column(*entry) for entry in named_columns())
    assert not columns.generic
    assert columns.decoders == set(DECODERS)
    assert columns.id_of("KFLOW_HTTP_URL") == ids["KFLOW_HTTP_URL"]
    assert columns.id_of("TLS_SERVER_NAME") == ids["KFLOW_HTTP_HOST"]
    assert "APP_PROTOCOL" not in columns


@pytest.mark.parametrize(
    ("missing", "decoders"),
    [
        ("KFLOW_DNS_QUERY", {"http", "tls", "dhcp", "radius"}),
        ("APPL_LATENCY_MS", {"tls"}),
        ("DHCP_LEASE", {"dns", "http", "tls", "radius"}),
        ("RADIUS_CODE", {"dns", "http", "tls", "dhcp"}),
        ("KFLOW_HTTP_HOST", {"dns", "dhcp", "radius"}),
        ("TLS_SERVER_VERSION", {"dns", "http", "tls", "dhcp", "radius"}),
    ],
)
def test_decoders_need_all_their_columns(missing: str, decoders: set[str]) -> None:
    columns = CustomColumns(Column(*entry) for entry in named_columns() if entry[1] != missing)
    assert columns.decoders == decoders
    assert ("KFLOW_HTTP_URL" in columns) == ("http" in decoders)
    # the tracker's are independent of each other
    assert "CONNECTION_ID" in columns


def test_generic_columns_that_are_incomplete() -> None:
    """Upstream panics; here what needs the column is off (D36)."""
    columns = CustomColumns(Column(*entry) for entry in generic_columns() if entry[1] != "STR02")
    assert columns.decoders == {"dns", "tls"}


def test_first_column_of_a_name_counts() -> None:
    columns = CustomColumns([Column(1, "CONNECTION_ID", "uint32"), Column(2, "CONNECTION_ID", "uint32")])
    assert columns.id_of("CONNECTION_ID") == 1
    assert not CustomColumns([]).decoders


# proxy


def test_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes through the one that is given, nothing through the environment's."""
    with KentikServer([DeviceSpec(7, "probe-1")], proxied=True) as server:
        names = Endpoints(*(url.replace(server.url, "http://kentik.test") for url in endpoints(server)))
        with attach(server, endpoints=names, proxy=server.url) as client:
            assert client.device.id == 7
        assert server.requests[0].headers["host"] == "kentik.test"
        server.verify()
    with KentikServer([DeviceSpec(7, "probe-1")]) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with attach(server) as client:
            assert client.device.id == 7


def test_unreachable_proxy(server: KentikServer) -> None:
    with pytest.raises(SetupFailed) as caught:
        attach(server, proxy="http://127.0.0.1:9")
    assert caught.value.reasons[0].endswith("connection refused")
    assert not server.requests


# running


def test_refresh(server: KentikServer) -> None:
    spec = server.devices[0]
    with attach(server) as client:
        spec.max_flow_rate = 10
        client.refresh()
        assert (client.device.max_flow_rate, client.fatal) == (10, None)
        server.faults["device"].extend([Fault("status", 403)])
        client.refresh()
        assert (client.device.max_flow_rate, client.fatal) == (10, None)
        spec.sample_rate = 5
        client.refresh()
        assert client.fatal == "the device's sample rate changed from 1 to 5"
        assert client.sample_rate == 5
    with attach(server, sample=3) as client:
        server.devices.clear()
        client.refresh()
        # nothing is sent for a device that is gone
        assert (client.device.max_flow_rate, client.fatal, client.sample_rate) == (0, None, 3)


def test_refresh_by_itself(server: KentikServer) -> None:
    with attach(server, pace=FAST._replace(refresh_s=0.02)) as client:
        server.devices[0].max_flow_rate = 77
        deadline = time.monotonic() + 10
        while client.device.max_flow_rate != 77:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("text", ["", "10.0.0", "probe-1", "10.0.0.256", "::g"])
def test_address_that_is_none(server: KentikServer, text: str) -> None:
    with pytest.raises(ConfigError, match=r"--device-ip .*not an IP address"):
        attach(server, device_ip=text)


@pytest.mark.parametrize(
    "bad", [{"device_id": -1}, {"device_id": 1 << 32}, {"plan": -1}, {"status_port": 65536}]
)
def test_settings_out_of_range(server: KentikServer, bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        attach(server, **bad)
    assert not server.requests


def test_slow_answer_within_the_limit(server: KentikServer) -> None:
    server.faults["device"].append(Fault("slow", seconds=0.2))
    assert api_of(server).device(7).id == 7


def test_session_survives_an_expired_request(server: KentikServer) -> None:
    """What a time-out shut down is not used again."""
    session = Session(CREDENTIALS, total_s=5)
    server.faults["device"].extend([None, Fault("hang")])
    url = f"{server.api_url}/device/7"
    assert session.send("GET", url, headers={"Content-Type": "application/json"}).status == 200
    with pytest.raises(RequestFailed, match="no answer within"):
        session.send("GET", url, headers={"Content-Type": "application/json"}, total_s=0.2)
    assert session.send("GET", url, headers={"Content-Type": "application/json"}).status == 200
    session.close()


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Self-signed, for 127.0.0.1."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.mark.tool("openssl")
def test_tls(server: KentikServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown authorities are refused before anything secret is sent; named ones are trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server.use_tls(context)
    assert server.url.startswith("https://")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SetupFailed) as caught:
        find_device(api_of(server, attempts=1), settings(server), None)
    assert "certificate verify failed" in caught.value.reasons[0]
    assert not server.requests
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with attach(server) as client:
        assert client.device.id == 7
    server.faults["device"].extend([Fault("drip")] * 3)
    with pytest.raises(SetupFailed) as caught:
        find_device(api_of(server, 0.4, attempts=1), settings(server), None)
    assert "no answer within" in caught.value.reasons[0]


@pytest.mark.parametrize("drip", [b"", b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb"])
def test_handshake_that_never_ends(drip: bytes) -> None:
    """Silent, or a byte now and then, so that no single wait is too long."""
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        accepted, _ = listening.accept()
        with accepted, contextlib.suppress(OSError):
            accepted.sendall(drip)
            while not ended.wait(0.02):
                if drip:
                    accepted.sendall(b"\0")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(RequestFailed, match=r"no answer within 0\.5 s|connection timed out"):
            Session(CREDENTIALS, total_s=0.5).send("GET", f"https://127.0.0.1:{listening.getsockname()[1]}/x")
        assert time.monotonic() - began < 3
        ended.set()
        thread.join(5)

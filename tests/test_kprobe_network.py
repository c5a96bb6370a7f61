"""kprobe's way to Kentik: TLS, proxies, and what a server can do wrong at the start or in the middle."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kentik_server import TOKEN, DeviceSpec, Fault, KentikServer
from netns import until
from test_kprobe_cli import CAPTURES, CREDENTIALS, KPROBE, kprobe, serve

FILE = CAPTURES / "http.pcap"
PACKETS = 85


def urls_of(base: str) -> list[str]:
    paths = {"api": "/api/internal", "flow": "/chf", "metrics": "/tsdb", "dns": "/dns"}
    return [f"--{name}-url={base}{path}" for name, path in paths.items()]


def run(base: str, *flags: str, code: int = 0, **environment: str) -> Any:
    done = kprobe(
        "--read",
        FILE,
        *urls_of(base),
        "--device-id",
        "7",
        *flags,
        code=code,
        env={**CREDENTIALS, **environment},
    )
    assert TOKEN not in done.stdout + done.stderr
    return done


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Self-signed, for 127.0.0.1 and kentik.test; the key is beside it."""
    cert = tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:kentik.test", "-days", "2"]
    subprocess.run([*command, "-keyout", tmp_path / "key.pem", "-out", cert], check=True, capture_output=True)
    return cert


def secure(server: KentikServer, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.use_tls(context)


@pytest.mark.tool("openssl")
def test_https(certificate: Path) -> None:
    with serve() as server:
        secure(server, certificate)
        refused = run(server.url, code=1)
        assert "certificate verify failed" in refused.stdout
        assert not server.requests
        run(server.url, REQUESTS_CA_BUNDLE=str(certificate))
        server.verify()
        assert server.totals()[0] == PACKETS


def test_proxy() -> None:
    """Point 24; the name that everything goes to is known to the proxy alone."""
    with serve(proxied=True) as server:
        run("http://kentik.test", "--proxy-url", server.url)
        server.verify()
        assert server.totals()[0] == PACKETS
        assert {seen.headers["host"] for seen in server.requests} == {"kentik.test"}


class Tunnel:
    """A proxy that does CONNECT and nothing else, always to one port; asks for user and password."""

    def __init__(self, to: int) -> None:
        self.asked: list[bytes] = []
        self._to = to
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            if not piece:
                return
            head += piece
        self.asked.append(head)
        if b"Proxy-Authorization: Basic dXNlcjpwYXNz" not in head or not head.startswith(b"CONNECT "):
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self._to))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
        self._copy(client, server)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def tunnelled(certificate: Path) -> Iterator[tuple[KentikServer, Tunnel, Path]]:
    with serve() as server:
        secure(server, certificate)
        tunnel = Tunnel(server.port)
        yield server, tunnel, certificate
        tunnel.close()


@pytest.mark.tool("openssl")
def test_https_through_a_proxy(tunnelled: tuple[KentikServer, Tunnel, Path]) -> None:
    server, tunnel, certificate = tunnelled
    trusted = {"REQUESTS_CA_BUNDLE": str(certificate)}
    run("https://kentik.test", "--proxy-url", f"http://user:pass@127.0.0.1:{tunnel.port}", **trusted)
    server.verify()
    assert server.totals()[0] == PACKETS
    assert all(head.startswith(b"CONNECT kentik.test:443") for head in tunnel.asked)
    # the token is for the far end alone
    assert not any(TOKEN.encode() in head for head in tunnel.asked)
    done = run(
        "https://kentik.test",
        "-v",
        "--proxy-url",
        f"http://user:secret@127.0.0.1:{tunnel.port}",
        code=1,
        **trusted,
    )
    assert done.stdout.startswith(
        "error: failed to configure libkflow: InvalidConfig\n  library setup error: "
    )
    assert "secret" not in done.stdout + done.stderr


def test_unreachable_and_unknown() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        done = run(f"http://127.0.0.1:{port}", code=1)
    assert done.stdout.splitlines()[0] == "error: failed to configure libkflow: InvalidConfig"
    assert "connection refused" in done.stdout
    assert done.stderr == ""
    done = run("http://no-such-host.invalid", code=1)
    assert "host name not known" in done.stdout


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("status", 500), "giving up after"),
        (Fault("status", 403), "api: unauthorized (403)"),
        (Fault("status", 400, body=b'{"error": "bad\\u001b[31m\\nthing"}'), "api: bad [31m thing (400)"),
        (Fault("garbage"), "library setup error: device lookup error: "),
        (Fault("cut"), "library setup error: device lookup error: "),
        (Fault("reset"), "library setup error: device lookup error: "),
        (Fault("status", 302, location="http://127.0.0.1:9/"), "api: HTTP status code 302"),
        (Fault("status", 200, body=b"[" * 100_000), "library setup error: device lookup error: "),
        (Fault("status", 200, body=b'{"device": {"id": "7", "company_id": 1e999}}'), "library setup error"),
        (Fault("status", 200, body=b'{"device": {"id": "' + b"9" * 5000 + b'"}}'), "library setup error"),
        (Fault("status", 200, body=b"null"), "library setup error: device lookup error: "),
        (Fault("status", 200, body=b'{"device": []}'), "library setup error: device lookup error: "),
    ],
)
def test_faults_at_the_start(fault: Fault, text: str) -> None:
    with serve() as server:
        server.faults["device"].extend([fault] * 5)
        done = run(server.url, code=1)
    lines = done.stdout.splitlines()
    assert lines[0] == "error: failed to configure libkflow: InvalidConfig"
    assert len(lines) == 2
    assert text in lines[1]
    assert done.stderr == ""


def test_wrong_credentials_and_no_device() -> None:
    with serve(allow_unauthorized=True) as server:
        done = run(server.url, "--email", "somebody@else.test", code=1)
        assert (done.stdout, done.stderr) == ("error: authentication failed\n", "")
    with serve() as server:
        flags = ["--read", FILE, *urls_of(server.url), "--device-name", "nobody"]
        done = kprobe(*flags, code=1, env=CREDENTIALS)
        assert (done.stdout, done.stderr) == ("error: device not found\n", "")
        # point 6: a plan alone makes no device without an address
        done = kprobe(*flags, "--device-plan", "5", code=1, env=CREDENTIALS)
        assert done.stdout == "error: device not found\n"
        assert server.routes()["create"] == 0
        kprobe(*flags, "--device-plan", "5", "--device-ip", "192.0.2.99", env=CREDENTIALS)
        server.verify()
        assert server.routes()["create"] == 1
        assert server.totals()[0] == PACKETS


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", 500),
        Fault("status", 301, location="/"),
        Fault("status", 204),
        Fault("reset"),
        Fault("close"),
    ],
)
def test_faults_in_the_middle(fault: Fault) -> None:
    """A batch that is lost: one line, and exit code 1; nothing is sent twice (point 18)."""
    with KentikServer([DeviceSpec(7, "probe-1", max_flow_rate=4)]) as server:
        server.faults["flow"].append(fault)
        done = run(server.url, "--no-decode", "--seed", "7", code=1)
        assert done.stdout.count("\n") == 1
        assert done.stdout.startswith("libkflow error: ")
        last = done.stderr.splitlines()[-1]
        told = re.fullmatch(
            r"Error: of (\d+) records (\d+) were sent, 4 failed, 0 were dropped, 0 were left", last
        )
        assert told, last
        assert int(told[1]) - 4 == int(told[2]) == len(server.records) > 0
        server.verify()


def test_interrupt_while_connecting() -> None:
    with serve() as server:
        server.faults["device"].append(Fault("hang"))
        with subprocess.Popen(
            [*KPROBE, "--read", FILE, *urls_of(server.url), "--device-id", "7"],
            env={**os.environ, **CREDENTIALS},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            until(lambda: server.requests, "a look-up")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=10) == 1
            assert process.stderr is not None
            assert process.stderr.read() == "Error: interrupted, not everything was delivered\n"


def test_verbosity() -> None:
    """-v: versions and configuration; -vv: Kentik's side; -vvv: its HTTP. Never the token, as run asserts."""
    shown = []
    for flags in ([], ["-v"], ["-vv"], ["-v", "-v", "-v"], ["-vvvv"]):
        with serve() as server:
            shown.append(run(server.url, *flags).stderr)
    quiet, one, two, three, four = shown
    assert "DEBUG" not in quiet
    assert "DEBUG kprobe configuration: " in one
    assert "DEBUG kprobe kprobe " in one
    # S7, and the list in kprobe.md 1.3
    assert ", libkflow " in one
    names = (
        "api_url flow_url metrics_url dns_url email token interface snaplen promisc ip metrics_interval_s "
    )
    names += "proxy status_host status_port dns_enable dns_interval_s device_id device_if device_ip "
    names += "device_name plan site sample timeout_s verbose program version"
    assert [name for name in names.split() if f"'{name}': " not in one] == []
    assert "DEBUG netprobe.kentik posted " not in one
    assert "DEBUG netprobe.kentik posted " in two
    assert "'token': '***'" in one
    assert "'flow_url': 'http://127.0.0.1:" in one
    assert "urllib3" not in one + two
    assert "DEBUG urllib3.connectionpool" in three
    # D24: more of them show no less
    assert "DEBUG urllib3.connectionpool" in four


@pytest.mark.parametrize(
    ("wanted", "flags", "least"),
    [
        ("", [], "INFO"),
        ("off", [], ""),
        ("error", [], "ERROR"),
        ("WARN", [], "ERROR"),
        ("info", [], "INFO"),
        ("debug", [], "DEBUG"),
        ("trace", [], "urllib3"),
        ("off,kprobe=debug", [], "DEBUG"),
        ("kprobe=error,trace", [], "ERROR"),
        ("kprobe", [], "urllib3"),
        ("hyper=trace,reqwest=off", [], "INFO"),
        (" warn , x=y, ,=trace/text", [], "ERROR"),
        ("loud", [], "INFO"),
        ("off", ["-v"], "DEBUG"),
    ],
)
def test_rust_log(wanted: str, flags: list[str], least: str) -> None:
    """The variable that upstream's logger reads: its plain forms, where -v does not say otherwise."""
    with serve() as server:
        server.faults["flow"].append(Fault("status", 400))
        done = run(server.url, "--no-decode", "--seed", "7", *flags, code=1, RUST_LOG=wanted)
    seen = [word for word in ("ERROR", "INFO", "DEBUG", "urllib3") if f" {word}" in done.stderr]
    assert (seen[-1] if seen else "") == least
    # what is no log stays
    assert done.stdout.startswith("libkflow error: ")
    assert done.stderr.splitlines()[-1].startswith("Error: of ")


@pytest.mark.parametrize("form", ["--token TOKEN", "--token=TOKEN", "--tok TOKEN"])
def test_the_list_of_processes_shows_no_secret(form: str) -> None:
    with serve() as server:
        server.faults["device"].append(Fault("hang"))
        secret = [f"--proxy-url=http://user:pass/word@127.0.0.1:{server.port}", "--device-name", TOKEN + "x"]
        command = [*KPROBE, "--read", FILE, *form.replace("TOKEN", TOKEN).split(), *secret]
        with subprocess.Popen(
            [*command, "--email", CREDENTIALS["KENTIK_EMAIL"], f"--api-url={server.api_url}"],
            stdout=subprocess.DEVNULL,
        ) as process:
            words = Path(f"/proc/{process.pid}/cmdline")
            until(lambda: b"***" in words.read_bytes(), "stars")
            shown = words.read_bytes().split(b"\0")
            process.kill()
    assert form.replace("TOKEN", "*" * len(TOKEN)).split()[-1].encode() in shown
    assert f"--proxy-url=http://**************@127.0.0.1:{server.port}".encode() in shown
    # only in its own places, which leaves all else readable
    assert f"{TOKEN}x".encode() in shown
    assert f"--api-url={server.api_url}".encode() in shown


@pytest.mark.parametrize(
    ("region", "api", "flow"),
    [
        ("us", "https://api.kentik.com/api/internal", "https://flow.kentik.com/chf"),
        ("Eu", "https://api.kentik.eu/api/internal", "https://flow.kentik.eu/chf"),
        ("JP1", "https://api.jp1.kentik.com/api/internal", "https://flow.jp1.kentik.com/chf"),
    ],
)
def test_region(region: str, api: str, flow: str) -> None:
    """Nothing leaves this machine: the proxy does not exist."""
    flags = [
        "--read",
        FILE,
        "--region",
        region,
        "-v",
        "--proxy-url",
        "http://127.0.0.1:1",
        "--device-id",
        "7",
    ]
    done = kprobe(*flags, "--metrics-url", "http://other.test/x", code=1, env=CREDENTIALS)
    for key, url in (("api", api), ("flow", flow), ("metrics", "http://other.test/x")):
        assert f"'{key}_url': '{url}'" in done.stderr
    assert done.stdout.startswith("error: failed to configure libkflow")

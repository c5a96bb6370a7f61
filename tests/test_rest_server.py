"""The server around the routes: binding, TLS, and clients that mean no good."""

from __future__ import annotations

import contextlib
import logging
import re
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
import requests
from agent_fakes import Running, demo_manager, read_all, running, until

from netprobe.agent.protocol import Limits
from netprobe.agent.server import Server, tls_context
from netprobe.agent.web import BODY_LIMIT, create_app
from netprobe.errors import ConfigError, InputError

GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST /api/v1/taps HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-yaml\r\n"
# everything short enough to wait for
QUICK = Limits(connections=8, header_seconds=0.5, request_seconds=1.5, idle_seconds=0.5, linger_seconds=0.3)


@pytest.fixture(scope="module")
def manager() -> Any:
    return demo_manager()


@pytest.fixture
def server(manager: Any) -> Iterator[Running]:
    with running(manager, admin=True) as made:
        yield made


@pytest.fixture
def quick(manager: Any) -> Iterator[Running]:
    with running(manager, admin=True, limits=QUICK) as made:
        yield made


def statuses(data: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+) [A-Z]", data)]


def still_serves(server: Running) -> None:
    assert requests.get(server.url + "/healthz", timeout=20).text == "ok\n"


def refused(server: Running) -> dict[str, int]:
    return {name: count for name, count in server.app.health.refused.items() if count}


def seconds_until_closed(connection: socket.socket) -> tuple[float, bytes]:
    begin = time.monotonic()
    data = read_all(connection)
    return time.monotonic() - begin, data


# --- binding ---


def test_port_in_use(manager: Any) -> None:
    app = create_app(manager)
    first = Server(app, "127.0.0.1", 0)
    first.start()
    try:
        # in spite of SO_REUSEADDR, and also before the first one serves
        with pytest.raises(InputError) as error:
            Server(app, "127.0.0.1", first.port).start()
        assert str(error.value) == f"unable to bind to 127.0.0.1:{first.port}: address already in use"
        with pytest.raises(InputError, match="unable to bind to localhost:"):
            Server(app, "localhost", first.port).start()
        with pytest.raises(InputError, match="address already in use"):
            Server(app, "0.0.0.0", first.port).start()
    finally:
        first.stop()
        first.run()
    # a port is free again at once
    again = Server(app, "127.0.0.1", first.port)
    again.start()
    again.stop()
    again.run()


def test_port_is_free_at_once_after_use(manager: Any) -> None:
    """What SO_REUSEADDR is for: connections of the server before us still linger."""
    with running(manager) as server:
        port = server.server.port
        server.send(LAST)
    again = Server(create_app(manager), "127.0.0.1", port)
    again.start()
    again.stop()
    again.run()


@pytest.mark.parametrize(
    ("host", "port", "error"),
    [
        ("192.0.2.1", 10853, "unable to bind to 192.0.2.1:10853: cannot assign requested address"),
        ("no.such.host.invalid", 1, "unable to bind to no.such.host.invalid:1: "),
        ("a..b", 10853, "unable to bind to a..b:10853: no host can have this name"),
        ("a" * 64, 10853, "unable to bind to " + "a" * 64 + ":10853: no host can have this name"),
        ("127.0.0.1", 65536, "unable to bind to 127.0.0.1:65536: a port lies between 0 and 65535"),
        ("127.0.0.1", -1, "unable to bind to 127.0.0.1:-1: "),
        ("2001:db8::1", 10853, "unable to bind to [2001:db8::1]:10853: "),
    ],
)
def test_addresses_that_are_none(manager: Any, host: str, port: int, error: str) -> None:
    with pytest.raises(InputError) as raised:
        Server(create_app(manager), host, port).start()
    assert str(raised.value).startswith(error)
    assert "\n" not in str(raised.value)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_ipv6(manager: Any) -> None:
    if not has_ipv6():
        pytest.skip("missing: IPv6 on the loopback interface")
    with running(manager, host="::1") as server:
        assert server.url == f"http://[::1]:{server.server.port}"
        assert requests.get(server.url + "/healthz", timeout=20).text == "ok\n"


def test_localhost_is_all_its_addresses(manager: Any) -> None:
    wanted = {info[4][0] for info in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    if not has_ipv6():
        wanted.discard("::1")
    with running(manager, host="localhost") as server:
        for address in wanted:
            with socket.create_connection((address, server.server.port), 20) as connection:
                connection.sendall(LAST)
                assert statuses(read_all(connection)) == [200]


def test_listening_line(manager: Any, caplog: Any) -> None:
    with caplog.at_level(logging.INFO), running(manager) as server:
        line = f"web server listening on 127.0.0.1:{server.server.port}"
        assert until(lambda: line in [record.message for record in caplog.records])


def test_stop_with_open_connections(manager: Any) -> None:
    """Idle and half-sent requests do not hold up the end."""
    with running(manager) as server:
        kept = [server.connect() for _ in range(3)]
        kept[0].sendall(GET)
        kept[1].sendall(GET[:20])
        kept[0].recv(1000)
        begin = time.monotonic()
        server.close()
        assert time.monotonic() - begin < 8
        for one in kept:
            read_all(one)
            one.close()


def test_stop_while_something_is_rendered(manager: Any, monkeypatch: Any, caplog: Any) -> None:
    """A rendering that takes longer than the server's grace does not hold up the end, and leaves no trace."""
    monkeypatch.setattr("netprobe.agent.server.GRACE_SECONDS", 1)
    gate = threading.Event()
    policy = manager.policies["default"]
    render = policy.bucket_json

    def slow(n: int) -> Any:
        gate.wait(60)
        return render(n)

    policy.bucket_json = slow
    try:
        with running(manager) as server, server.connect() as connection:
            connection.sendall(b"GET /api/v1/metrics/bucket/0 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert until(lambda: server.server._uvicorn.server_state.tasks)  # type: ignore[union-attr]
            server.close()
            assert statuses(read_all(connection)) == [503]
            gate.set()
            assert until(lambda: "web-read_0" not in [thread.name for thread in threading.enumerate()])
        texts = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        # uvicorn's own line
        assert texts == ["Cancel 1 running task(s), timeout graceful shutdown exceeded"]
        assert [record for record in caplog.records if record.exc_info] == []
    finally:
        gate.set()
        policy.bucket_json = render


def test_stop_before_run(manager: Any) -> None:
    server = Server(create_app(manager), "127.0.0.1", 0)
    server.start()
    server.stop()
    server.run()


# --- TLS ---


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for name, more in (("a", []), ("b", []), ("locked", ["-passout", "pass:secret"])):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        subprocess.run(command + (more or ["-nodes"]), check=True, capture_output=True)
    return folder


@pytest.mark.tool("openssl")
def test_tls(manager: Any, pairs: Path) -> None:
    pair = f"{pairs}/a.pem", f"{pairs}/a.key"
    with running(manager, tls=pair) as server:
        assert server.url.startswith("https://")
        answer = requests.get(server.url + "/api/v1/taps", verify=f"{pairs}/a.pem", timeout=20)
        assert answer.json()["default"]
        # versions, as openssl's own client sees them
        for version, works in (("tls1_1", False), ("tls1_2", True), ("tls1_3", True)):
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.server.port}", f"-{version}"]
            command += ["-cipher", "ALL:@SECLEVEL=0"]
            found = subprocess.run(command, input=b"", capture_output=True, timeout=60)
            assert (b"Verification" in found.stdout and b"Cipher is (NONE)" not in found.stdout) is works, (
                version
            )
        # plain HTTP and rubbish on the TLS port end, and only they
        for data in (GET, b"\x16\x03\x01\x02\x00" + b"x" * 600, b"\0" * 5000):
            assert b"HTTP/1.1 200" not in server.send(data)
        assert requests.get(server.url + "/healthz", verify=f"{pairs}/a.pem", timeout=20).ok


@pytest.mark.tool("openssl")
def test_bad_certificates(pairs: Path, tmp_path: Path) -> None:
    good = str(pairs / "a.pem"), str(pairs / "a.key")
    assert tls_context(*good).minimum_version == ssl.TLSVersion.TLSv1_2
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n")
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(bytes(range(256)))
    cases = [
        (
            (str(tmp_path / "no.pem"), good[1]),
            f"TLS certificate {tmp_path}/no.pem: no such file or directory",
        ),
        ((good[0], str(tmp_path)), f"TLS key {tmp_path}: is a directory"),
        (
            (good[0], str(pairs / "b.key")),
            f"TLS key {pairs}/b.key: does not belong to the certificate {good[0]}",
        ),
        ((good[1], good[1]), f"TLS certificate {good[1]}: no PEM certificate in it"),
        ((good[0], good[0]), f"TLS key {good[0]}: no PEM key in it"),
        ((str(rubbish), good[1]), f"TLS certificate {rubbish}: no PEM certificate in it"),
        ((str(broken), good[1]), f"TLS certificate {broken} with key {good[1]}: "),
        (
            (str(pairs / "locked.pem"), str(pairs / "locked.key")),
            f"TLS key {pairs}/locked.key: encrypted, expected a key without a password",
        ),
    ]
    for pair, text in cases:
        with pytest.raises(ConfigError) as error:
            Server(None, "127.0.0.1", 0, pair)
        assert str(error.value).startswith(text)
        assert "\n" not in str(error.value)


# --- no HTTP, or not quite ---


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n\r\nrubbish\r\n\r\n", 400),
        (b"\x00\xff\xfe" * 100 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/x\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nBad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        # two answers to where the body ends (RFC 9112 6.1)
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET " + b"/x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 16_384 + b"\r\n\r\n", 431),
    ],
    ids=lambda value: None if isinstance(value, int) else repr(value[:24]),
)
def test_no_http(server: Running, caplog: Any, data: bytes, status: int) -> None:
    with caplog.at_level(logging.INFO):
        assert statuses(server.send(data)) == [status]
        still_serves(server)
    assert refused(server) == {"header" if status == 431 else "malformed": 1}
    # no line that a stranger can repeat without end
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("authority", ["http://a", "HTTP://other:1", "https://[::1]:10853"])
def test_absolute_form(server: Running, caplog: Any, authority: str) -> None:
    """As a client speaks to a proxy; every server must take it (RFC 9112 3.2.2)."""
    with caplog.at_level(logging.INFO):
        for path, status in (("/api/v1/metrics/app", 200), ("/metrics?x=http://a", 200), ("/nothing", 404)):
            head = f"GET {authority}{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            assert statuses(server.send(head.encode())) == [status], path
        body = b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
        answer = server.send(POST.replace(b" /", f" {authority}/".encode()) + body)
        assert answer.endswith(b'{"error":"invalid schema"}')
    texts = [record.getMessage() for record in caplog.records if record.getMessage().startswith("REQUEST")]
    assert texts == [
        "REQUEST: GET /api/v1/metrics/app 200",
        "REQUEST: GET /metrics 200",
        "REQUEST: GET /nothing 404",
        "REQUEST: POST /api/v1/taps 500",
    ]


@pytest.mark.parametrize("target", ["http://a", "http://a?x"])
def test_absolute_form_without_a_path(server: Running, target: str) -> None:
    answer = server.send(f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert statuses(answer) == [200] and b"<html" in answer


def test_odd_targets(server: Running) -> None:
    absolute = (b"ftp://a/healthz", b"http:///", b"http://u@a/")
    for target in (*absolute, b"*", b"a:1", b"?x", b"//", b"/%", b"/%zz", b"/\x7e"):
        answer = server.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert statuses(answer) == [404], target
    still_serves(server)


def test_odd_hosts(server: Running) -> None:
    for host in (b"", b"a:", b"[fe80::1]:80", b"a_b.c-d"):
        assert statuses(server.send(LAST.replace(b"Host: a", b"Host: " + host))) == [200], host


def test_line_ends_before_a_request(server: Running) -> None:
    """Left over from a body whose client has added one (RFC 9112 2.2)."""
    assert statuses(server.send(b"\r\n" + LAST)) == [200]
    post = POST + b"Content-Length: 2\r\n\r\n{}"
    assert statuses(server.send(post + b"\r\n" + LAST)) == [500, 200]
    assert statuses(server.send((GET + b"\r\n\r\n") * 3 + LAST)) == [200] * 4
    assert statuses(server.send(GET + b"\r\n" * 50_000 + LAST)) == [200] * 2
    assert statuses(server.send(GET + b"\r\nrubbish\r\n\r\n")) == [200, 400]
    assert refused(server) == {"malformed": 1}


def test_line_ends_between_requests(quick: Running) -> None:
    """They begin nothing: no answer says that the rest was slow, and they do not keep the connection."""
    with quick.connect() as connection:
        connection.sendall(GET)
        answer = b""
        while not answer.endswith(b"\r\n\r\nok\n"):
            answer += connection.recv(4096)
        assert statuses(answer) == [200]
        for _ in range(4):
            connection.sendall(b"\r\n")
            time.sleep(0.05)
        seconds, data = seconds_until_closed(connection)
    assert data == b"" and seconds < 2 * QUICK.idle_seconds
    assert refused(quick) == {}


def test_largest_head(server: Running) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: "
    assert statuses(server.send(head + b"y" * (16_384 - len(head) - 4) + b"\r\n\r\n")) == [200]


def test_why_it_is_no_http(server: Running) -> None:
    answer = server.send(b"GET / HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"not HTTP/1.1: Missing mandatory Host: header")
    assert re.search(rb"\r\n[Dd]ate: \w{3}, \d", answer)
    assert server.send(b"GET /metrics\r\n\r\n").endswith(b"not HTTP/1.1: illegal request line")


def test_http_1_0(server: Running) -> None:
    assert statuses(server.send(b"GET /healthz HTTP/1.0\r\n\r\n")) == [200]


def test_upgrades_are_not_offered(server: Running) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    head += b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert statuses(server.send(head)) == [200]


# --- bodies ---


def test_huge_body(server: Running) -> None:
    answer = requests.post(
        server.url + "/api/v1/taps",
        data=b"#" * (BODY_LIMIT + 1),
        headers={"Content-Type": "application/x-yaml"},
        timeout=20,
    )
    assert answer.status_code == 413
    assert str(BODY_LIMIT) in answer.json()["error"]
    # a client that asks first need not send it
    head = POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (BODY_LIMIT + 1)
    with server.connect() as connection:
        connection.sendall(head)
        assert statuses(connection.recv(4096)) == [413]
    # the largest that is taken
    answer = requests.post(
        server.url + "/api/v1/taps",
        data=b"#" * BODY_LIMIT,
        headers={"Content-Type": "application/x-yaml"},
        timeout=60,
    )
    assert answer.status_code == 500


def test_endless_body(quick: Running) -> None:
    """Bytes without end: the answer comes early, then the connection ends; nothing is kept."""
    sent = 0
    with quick.connect() as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 28:
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
                sent += 0x10000
    assert sent < 1 << 28
    still_serves(quick)


def test_body_that_nobody_wants(quick: Running) -> None:
    """A route without a body, and a client that goes on sending one, drop by drop."""
    with quick.connect() as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nx")
        assert statuses(connection.recv(4096)) == [404]
        end = time.monotonic() + 20
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < end:
                connection.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() < end, "the connection stays open"


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\nxx\r\n0\r\n\r\n",
        b"-1\r\nx\r\n",
        b"ffffffffffffffffffffffff\r\nx",
        b"1" * 20_000,
        b"1;" + b"x" * 20_000 + b"\r\n",
        b"2\r\nabXX\r\n0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
    ids=lambda value: repr(value[:16]),
)
def test_bad_chunking(quick: Running, chunks: bytes) -> None:
    answer = quick.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert statuses(answer)[:1] in ([400], [431], [408], [])
    assert until(lambda: quick.app.work.queued == 0)
    still_serves(quick)


def test_client_that_leaves_in_the_middle(quick: Running, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        for data in (
            GET[:10],
            POST,
            POST + b"Content-Length: 100\r\n\r\nvisor",
            POST + b"Content-Length: 5\r\n\r\nvisor",
        ):
            with quick.connect() as connection:
                connection.sendall(data)
                # a reset, not an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        still_serves(quick)
        assert until(lambda: not quick.server._uvicorn.server_state.tasks)  # type: ignore[union-attr]
    assert not [record for record in caplog.records if record.exc_info]


# --- slow ones ---


def test_slow_head(quick: Running) -> None:
    """A head that comes byte by byte does not put off its deadline."""
    with quick.connect() as connection:
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in GET * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
                if time.monotonic() - begin > 15:
                    break
        assert time.monotonic() - begin < 15
    assert refused(quick)["slow"] == 1


def test_silence(quick: Running) -> None:
    with quick.connect() as connection:
        seconds, data = seconds_until_closed(connection)
        assert 0.3 < seconds < 15
        assert statuses(data) == [408]
    assert refused(quick)["slow"] == 1


def test_slow_body(quick: Running) -> None:
    with quick.connect() as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nvisor")
        seconds, _ = seconds_until_closed(connection)
        assert 1 < seconds < 15


def test_idle_connections_end_without_a_word(quick: Running) -> None:
    with quick.connect() as connection:
        connection.sendall(GET)
        seconds, data = seconds_until_closed(connection)
        assert 0.3 < seconds < 15
        assert statuses(data) == [200]
    assert refused(quick) == {}


def test_second_head_is_timed_too(quick: Running) -> None:
    with quick.connect() as connection:
        connection.sendall(GET)
        connection.recv(4096)
        begin = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /" + b"x" * 2000:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
                if time.monotonic() - begin > 15:
                    break
        assert time.monotonic() - begin < 15
    assert refused(quick)["slow"] == 1


def test_client_that_does_not_read(manager: Any) -> None:
    """Answers that nobody takes end the connection and do not pile up."""
    with running(manager, limits=QUICK) as server, server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
        connection.setblocking(False)
        sent = 0
        for _ in range(2000):
            try:
                sent += connection.send(request)
            except BlockingIOError:
                break
            except ConnectionError:
                break
        assert until(lambda: not server.server._uvicorn.server_state.connections)  # type: ignore[union-attr]
        still_serves(server)


def test_pipelining(server: Running) -> None:
    """Many requests at once are answered one by one and in order; a bad one ends it."""
    paths = [b"/healthz", b"/nothing", b"/api/v1/metrics/bucket/9", b"/api/v1/taps"] * 50
    data = b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths)
    assert statuses(server.send(data + LAST)) == [200, 404, 500, 200] * 50 + [200]
    assert statuses(server.send(GET * 3 + b"rubbish\r\n\r\n" + GET)) == [200, 200, 200, 400]
    still_serves(server)


@pytest.mark.parametrize("more", [b"", GET[:-2], POST + b"Content-Length: 9\r\n\r\nvisor"])
def test_clients_that_send_no_more(server: Running, caplog: Any, more: bytes) -> None:
    """`printf ... | nc -N localhost 10853`: who has asked completely is answered."""
    ask = b"GET /api/v1/taps HTTP/1.1\r\nHost: a\r\n\r\n"
    for times in (1, 3):
        with server.connect() as connection:
            connection.sendall(ask * times + more)
            connection.shutdown(socket.SHUT_WR)
            assert statuses(read_all(connection)) == [200] * times
    assert not [record for record in caplog.records if record.exc_info]
    assert until(lambda: server.app.health.connections() == 0)


@pytest.mark.tool("openssl")
def test_tls_clients_that_send_no_more(manager: Any, pairs: Path, caplog: Any) -> None:
    with running(manager, tls=(str(pairs / "a.pem"), str(pairs / "a.key"))) as server:
        context = ssl._create_unverified_context()
        with context.wrap_socket(server.connect()) as connection:
            connection.sendall(GET)
            connection.shutdown(socket.SHUT_WR)
            read_all(connection)
        assert until(lambda: server.app.health.connections() == 0)
    assert not caplog.records


def test_pipelining_of_small_bodies(server: Running) -> None:
    one = POST + b"Content-Length: 1\r\n\r\n-"
    assert statuses(server.send(one * 20 + LAST)) == [500] * 20 + [200]


# --- many ---


def test_too_many_connections(quick: Running) -> None:
    """Those that have asked for nothing give way, so a crowd of silent ones shuts nobody out."""
    silent = [quick.connect() for _ in range(40)]
    try:
        still_serves(quick)
        assert refused(quick)["connections"] >= 32
        # the oldest were sent away
        assert read_all(silent[0]) == b""
    finally:
        for one in silent:
            one.close()
    still_serves(quick)


def test_busy_connections_keep_their_places(manager: Any) -> None:
    """With every place taken by requests under way a newcomer is told so."""
    gate = threading.Event()
    policy = manager.policies["default"]
    render = policy.bucket_json

    def slow(n: int) -> Any:
        gate.wait(20)
        return render(n)

    policy.bucket_json = slow
    limits = Limits(connections=4)
    try:
        with running(manager, limits=limits) as server:
            busy = [server.connect() for _ in range(4)]
            for one in busy:
                one.sendall(b"GET /api/v1/metrics/bucket/0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            places = server.server._uvicorn._places  # type: ignore[union-attr]
            assert until(lambda: places.open == 4 and not places.waiting)
            assert statuses(server.send(GET)) == [503]
            gate.set()
            assert [statuses(read_all(one)) for one in busy] == [[200]] * 4
            for one in busy:
                one.close()
            assert until(lambda: places.open == 0)
            still_serves(server)
    finally:
        policy.bucket_json = render


def test_a_failed_handshake_says_why(manager: Any, pairs: Path) -> None:
    """An alert, where OpenSSL has one; plain HTTP just ends."""
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
    # nothing that the server speaks
    other.maximum_version = ssl.TLSVersion.TLSv1_2
    other.set_ciphers("aNULL:@SECLEVEL=0")
    with running(manager, tls=(f"{pairs}/a.pem", f"{pairs}/a.key")) as server:
        with server.connect() as connection, pytest.raises(ssl.SSLError, match="ALERT_HANDSHAKE_FAILURE"):
            other.wrap_socket(connection)
        # a hello of TLS 1.1: fatal, protocol_version
        hello = b"\x03\x02" + bytes(32) + b"\0\0\2\0\x2f\1\0"
        record = b"\x16\3\1\0" + bytes([len(hello) + 4]) + b"\1\0\0" + bytes([len(hello)]) + hello
        assert server.send(record) == b"\x15\3\2\0\2\2\x46"
        assert server.send(GET) == b""
        assert until(lambda: refused(server).get("handshake") == 3)


def test_places_add_up(quick: Running) -> None:
    """Whatever clients do, every place is free again in the end."""
    for _ in range(5):
        for data in (b"", GET, GET[:9], LAST, b"rubbish\r\n\r\n", POST + b"Content-Length: 9\r\n\r\nx"):
            with quick.connect() as connection:
                connection.sendall(data)
    places = quick.server._uvicorn._places  # type: ignore[union-attr]
    assert until(lambda: places.open == 0 and not places.waiting)


@pytest.mark.tool("openssl")
def test_handshakes_that_never_end(manager: Any, pairs: Path) -> None:
    """Clients that connect and do not speak TLS shut nobody out, and do not pile up."""
    pair = f"{pairs}/a.pem", f"{pairs}/a.key"
    with running(manager, tls=pair, limits=QUICK) as server:
        silent = [server.connect() for _ in range(60)]
        try:
            answer = requests.get(server.url + "/healthz", verify=pair[0], timeout=20)
            assert answer.text == "ok\n"
            (acceptor,) = server.server._uvicorn.servers  # type: ignore[union-attr]
            assert until(lambda: len(acceptor._early) <= QUICK.connections)  # type: ignore[attr-defined]
            assert refused(server)["connections"] >= 40
            assert read_all(silent[0]) == b""
        finally:
            for one in silent:
                one.close()
        # rubbish is counted
        server.send(b"rubbish\r\n\r\n")
        assert until(lambda: refused(server).get("handshake"))


SMALL = """
import logging, resource, sys, threading
sys.path.insert(0, sys.argv[1])
logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s", level=logging.INFO)
from agent_fakes import Running, demo_manager
from netprobe.agent.web import create_app
server = Running(create_app(demo_manager()))
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
logging.info("port %d", server.server.port)  # print() would write it in parts, with others' lines between
sys.stdin.read()
server.close()
"""


def test_no_file_descriptors_left() -> None:
    """More connections than the system allows: one line, and all is well when they are gone."""
    command = [sys.executable, "-c", SMALL, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        for line in process.stdout:
            if line.startswith("INFO port "):
                break
        address = "127.0.0.1", int(line.split()[2])
        kept = [socket.create_connection(address, 20) for _ in range(80)]
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "no connection can be accepted" in line:
                break
        assert "too many open files" in line
        time.sleep(1)
        for one in kept:
            one.close()
        answer = requests.get(f"http://127.0.0.1:{address[1]}/healthz", timeout=20)
        assert answer.text == "ok\n"
        rest, _ = process.communicate("", timeout=20)
        assert process.returncode == 0
        lines = [one for one in [*seen, *rest.splitlines()] if one.startswith("ERROR")]
        assert len(lines) == 1
        assert "Traceback" not in rest

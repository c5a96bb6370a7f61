"""What pktvisor-cli asks an agent, over real sockets: periods, errors, and servers that mean ill."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import agent_server
import pytest
from agent_server import AgentServer, policy_object, serve

import netprobe
from netprobe.errors import NetprobeError
from netprobe.ui import client as client_module
from netprobe.ui.client import Address, AgentClient, AgentError
from netprobe.ui.poller import Choice, Poller, check_policy, choices

APP = "/api/v1/metrics/app"
WINDOW = "/api/v1/policies/default/metrics/window/5"
VERSION: dict[str, Any] = {APP: (200, {"app": {"version": netprobe.__version__}})}
DOCUMENT = {"default": {"n": {"packets": {"total": 4, "udp": 1}}}}


def client_of(server: AgentServer, **options: Any) -> AgentClient:
    # a machine put to sleep for a minute is no defect of ours
    return AgentClient(Address("127.0.0.1", server.port), **{"timeout": 600, **options})


def poller_of(server: AgentServer, policy: str = "default") -> Poller:
    return Poller(client_of(server), policy, lambda what: None)


# --- one round ---


def test_a_round() -> None:
    with serve({**VERSION, WINDOW: (200, DOCUMENT)}) as server:
        poller = poller_of(server)
        update = poller.round()
        poller.round()
    assert update.picture is not None
    assert update.picture.header[0][1] == "UDP 1 (25.0%)"
    assert (update.period, update.server, update.error, update.warning) == (
        *("window/5", netprobe.__version__),
        *("", ""),
    )
    assert server.requests == [WINDOW, APP, WINDOW]


@pytest.mark.parametrize(
    ("kept", "period"), [(3, "window/3"), (2, "window/2"), (10, "window/10"), (1, "bucket/0")]
)
def test_periods_adapt(kept: int, period: str) -> None:
    """The texts are those of agent spec 3.4.1."""
    refused = (425, {"error": f"invalid metrics period, specify [2, {kept}]"})
    base = "/api/v1/policies/default/metrics/"
    with serve({**VERSION, base + "window/5": refused, base + period: (200, DOCUMENT)}) as server:
        poller = poller_of(server)
        updates = [poller.round() for _ in range(3)]
    assert all(
        update.picture is not None and update.period == period and not update.error for update in updates
    )
    assert [path for path in server.requests if path != APP] == [base + "window/5", *[base + period] * 3]


@pytest.mark.parametrize("text", ["invalid metrics period, specify [2, 5]", "not yet", 7])
def test_a_period_error_that_says_nothing_new(text: object) -> None:
    with serve({**VERSION, WINDOW: (425, {"error": text})}) as server:
        update = poller_of(server).round()
    assert update.picture is None
    assert "425" in update.error
    assert server.asked(WINDOW) == 1


def test_a_policy_made_anew_with_more_periods() -> None:
    base = "/api/v1/policies/default/metrics/"
    answers: dict[str, Any] = {
        **VERSION,
        base + "window/5": (425, {"error": "invalid metrics period, specify [2, 2]"}),
        base + "window/2": (200, DOCUMENT),
    }
    with serve(answers) as server:
        poller = poller_of(server)
        assert poller.round().period == "window/2"
        server.routes[base + "window/2"] = (404, {"error": "policy does not exist"})
        assert "404 Not Found: policy does not exist" in poller.round().error
        server.routes[base + "window/5"] = (200, DOCUMENT)
        assert poller.round().period == "window/5"


def test_another_policy() -> None:
    other = "/api/v1/policies/other/metrics/window/5"
    with serve({**VERSION, WINDOW: (200, DOCUMENT), other: (200, {"other": DOCUMENT["default"]})}) as server:
        poller = poller_of(server)
        poller.round()
        poller.show("other")
        update = poller.round()
    assert update.policy == "other"
    assert update.picture is not None
    assert server.requests[-1] == other


def test_the_version_is_asked_until_it_is_said() -> None:
    with serve({WINDOW: (200, DOCUMENT)}) as server:
        poller = poller_of(server)
        first = poller.round()
        server.routes[APP] = (200, {"app": {"version": "99.1.2"}})
        second, third = poller.round(), poller.round()
    assert (first.server, first.picture is not None) == ("unknown", True)
    assert (second.server, third.server) == ("99.1.2", "99.1.2")
    assert first.warning == ""
    assert second.warning == f"version mismatch: client {netprobe.__version__}, server 99.1.2"
    assert server.asked(APP) == 2


@pytest.mark.parametrize(
    "answer", [{}, [], None, {"app": 1}, {"app": {"version": 4}}, {"app": {"version": ""}}, "x", 3]
)
def test_no_version(answer: object) -> None:
    with serve({APP: (200, answer), WINDOW: (200, DOCUMENT)}) as server:
        update = poller_of(server).round()
    assert (update.server, update.picture is not None) == ("unknown", True)


def test_same_major_version_is_no_mismatch() -> None:
    major = netprobe.__version__.partition(".")[0]
    with serve({APP: (200, {"app": {"version": f"{major}.99.9"}}), WINDOW: (200, DOCUMENT)}) as server:
        assert poller_of(server).round().warning == ""


def test_the_version_is_known_without_figures_too() -> None:
    with serve(VERSION) as server:
        update = poller_of(server).round()
    assert (update.server, update.missing, update.picture) == (netprobe.__version__, True, None)


def test_nothing_to_show() -> None:
    with serve({**VERSION, WINDOW: (200, {"default": {"r": {"input_resources": {}}}})}) as server:
        assert poller_of(server).round().error == "policy default has no handler that can be shown here"


# --- errors ---


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((404, {"error": "policy does not exist"}), "404 Not Found: policy does not exist"),
        ((500, b"\x1b[2Jboom"), "500 Internal Server Error"),
        ((500, {"error": "\x1b[2Jboom"}), "500 Internal Server Error: \\x1b[2Jboom"),
        ((200, b"<html>"), "the answer is not JSON"),
        ((200, b""), "the answer is not JSON"),
        ((200, b"\xff\xfe"), "the answer is not JSON"),
        ((200, b"[" * 100_000), "the answer is not JSON"),
        ((200, b"9" * 10_000), "the answer is not JSON"),
        ((302, b""), "302 Found"),
        ((599, b""), "599"),
    ],
)
def test_bad_answers(answer: tuple[int, Any], expected: str) -> None:
    with serve({"*": answer}) as server:
        client = client_of(server)
        with pytest.raises(AgentError) as caught:
            client.metrics("default", "window/5")
        assert str(caught.value) == f"http://127.0.0.1:{server.port}: {expected}"
        # and the next one is asked as if nothing had been
        server.routes["*"] = (200, {"fine": 1})
        assert client.metrics("default", "window/5") == {"fine": 1}


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(AgentError, match=f"^http://127.0.0.1:{port}: connection refused$"):
        AgentClient(Address("127.0.0.1", port)).version()


def test_no_such_host() -> None:
    with pytest.raises(AgentError, match=r"^http://nowhere\.invalid:1: host name: "):
        AgentClient(Address("nowhere.invalid", 1)).version()


def test_addresses() -> None:
    assert str(Address("::1", 99, tls=True)) == "https://[::1]:99"
    assert str(Address()) == "http://localhost:10853"


def test_an_agent_that_went_away_and_came_back() -> None:
    """The kept connection is dead by then; that is not an error."""
    with serve({"*": (200, 1)}) as server:
        client = client_of(server)
        assert client.metrics("default", "bucket/0") == 1
        connection = client._connection
        assert connection is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        assert client.metrics("default", "bucket/0") == 1


def test_connections_are_kept() -> None:
    with serve({"*": (200, 1)}) as server:
        client = client_of(server)
        client.version()
        before = client._connection
        client.policies()
        assert before is not None
        assert client._connection is before


# --- servers that mean ill ---


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """Does to each connection what `talk` says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer, contextlib.suppress(OSError):
                    talk(peer)

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def dripping(first: bytes) -> Callable[[socket.socket], None]:
    """A byte now and then: no single read ever times out."""

    def talk(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(first)
        while True:
            peer.sendall(b"1")
            time.sleep(0.05)

    return talk


def silent(peer: socket.socket) -> None:
    while peer.recv(4096):
        pass


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "talk",
    [
        silent,
        dripping(b"HTTP/1.1 "),
        dripping(HEAD + b"X-A: "),
        dripping(HEAD + b"Content-Length: 1000000\r\n\r\n"),
        dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n100000\r\n"),
        dripping(HEAD + b"\r\n"),
    ],
    ids=["silent", "status", "header", "body", "chunk", "until-close"],
)
@pytest.mark.parametrize("tls", [False, True])
def test_one_deadline_for_the_whole_exchange(talk: Callable[[socket.socket], None], tls: bool) -> None:
    with raw_server(talk) as port:
        client = AgentClient(Address("127.0.0.1", port, tls), timeout=0.3)
        with pytest.raises(AgentError) as caught:
            client.version()
    if not tls:
        assert str(caught.value).endswith("no answer within 0.3 s")


@pytest.mark.parametrize(
    "sent",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 abc\r\n\r\n", HEAD + b"X" * 70_000 + b"\r\n\r\n"],
    ids=["ssh", "nothing", "status", "header"],
)
def test_no_http(sent: bytes) -> None:
    def talk(peer: socket.socket) -> None:
        peer.recv(4096)
        peer.sendall(sent)

    with raw_server(talk) as port, pytest.raises(AgentError) as caught:
        AgentClient(Address("127.0.0.1", port)).version()
    assert "no HTTP there (does it want --tls?)" in str(caught.value) or "connection" in str(caught.value)
    assert str(caught.value).isprintable()


def test_huge_answers_are_cut_off() -> None:
    sent = 0

    def talk(peer: socket.socket) -> None:
        nonlocal sent
        peer.recv(4096)
        peer.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
        while True:
            sent += peer.send(b" " * 65536)

    with raw_server(talk) as port, pytest.raises(AgentError, match="longer than 1 MiB"):
        AgentClient(Address("127.0.0.1", port), limit=1 << 20).version()
    assert sent < 16 << 20


def test_close_ends_a_request_under_way() -> None:
    waiting = threading.Event()

    def talk(peer: socket.socket) -> None:
        peer.recv(4096)
        waiting.set()
        silent(peer)

    problems: list[AgentError] = []

    def ask(client: AgentClient) -> None:
        try:
            client.version()
        except AgentError as problem:
            problems.append(problem)

    with raw_server(talk) as port:
        client = AgentClient(Address("127.0.0.1", port), timeout=60)
        thread = threading.Thread(target=ask, args=(client,))
        thread.start()
        assert waiting.wait(10)
        client.close()
        thread.join(10)
        assert not thread.is_alive()
    assert [str(problem).endswith(": closed") for problem in problems] == [True]


# --- TLS ---


@pytest.mark.tool("openssl")
def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, context = agent_server.certificate(tmp_path)
    with serve(VERSION, context) as server:
        with pytest.raises(AgentError, match=r"certificate: self-signed certificate.*--tls-noverify"):
            AgentClient(Address("localhost", server.port, tls=True)).version()
        assert (
            AgentClient(Address("localhost", server.port, True, verify=False)).version()
            == netprobe.__version__
        )
        with pytest.raises(AgentError, match=r"no HTTP there|connection|no answer"):
            AgentClient(Address("localhost", server.port), timeout=2).version()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert AgentClient(Address("localhost", server.port, tls=True)).version() == netprobe.__version__
    with serve(VERSION) as server, pytest.raises(AgentError, match="no TLS there"):
        AgentClient(Address("localhost", server.port, tls=True)).version()


@pytest.mark.tool("openssl")
def test_the_name_in_the_certificate_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, context = agent_server.certificate(tmp_path, "elsewhere.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with serve(VERSION, context) as server, pytest.raises(AgentError, match=r"certificate: .*mismatch"):
        AgentClient(Address("localhost", server.port, tls=True)).version()


def test_old_tls_is_not_spoken() -> None:
    assert client_module._tls_context(False).minimum_version.name == "TLSv1_2"


# --- policies ---


def test_choices() -> None:
    answer = {
        "two": policy_object("dns", "net", periods=3),
        "default": policy_object("packets", "dns", "dhcp", "pcap", "bgp"),
        "single": policy_object("dns", periods=1),
        "eth0-resources": policy_object("input_resources"),
        "flows": policy_object("flow"),
        "odd": {"modules": {"a": None, "b": {"module": {"type": ["dns"]}}}},
        "bare": {"modules": {"d": {"module": {"type": "dns"}}}},
        "none": {},
        "\x1b[2J": policy_object("dns"),
    }
    assert choices(answer) == [
        Choice("bare", "dns", 0),
        Choice("default", "dhcp dns packets pcap", 5),
        Choice("single", "dns", 1),
        Choice("two", "dns net", 3),
    ]
    for junk in (None, [], 3, "x", {"a": 1}, {"a": {"modules": []}}):
        assert choices(junk) == []


def test_a_thousand_policies_fit() -> None:
    objects = {f"policy-{i}": policy_object("packets", "dns", "dhcp", "pcap") for i in range(1000)}
    for policy in objects.values():
        # as large as pktvisord's: input, taps and periods of each handler
        policy["input"] = {"x": "y" * 500}
        for handler in policy["modules"].values():
            handler["metrics"]["periods"] = [
                {"start_tstamp": "2026-01-01 00:00:00", "length": 60, "read_only": True, "events": {"a": 1}}
            ] * 5
    with serve({"/api/v1/policies": (200, objects)}) as server:
        assert len(choices(client_of(server).policies())) == 1000


@pytest.mark.parametrize("name", ["", "a b", "9x", "ü", "a/b", "../x", "a\n", "-x"])
def test_names_that_no_policy_has(name: str) -> None:
    with pytest.raises(NetprobeError, match="not a policy's name"):
        check_policy(name)

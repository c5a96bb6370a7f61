"""The agent's routes: statuses, content types, bodies (agent spec 3), over a manager with known numbers."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from agent_fakes import DEMO, FakePolicy, Running, demo_manager, running, until, windows_of

import netprobe
from netprobe._version import __version__
from netprobe.agent.routes import ROUTES
from netprobe.agent.web import create_app
from netprobe.errors import ConfigError, InputError

YAML = {"Content-Type": "application/x-yaml"}
JSON = {"Content-Type": "application/json"}
TAP = "version: '1.0'\nvisor:\n  taps:\n    extra:\n      input_type: pcap\n      config: {iface: eth1}\n"
POLICY = "visor: {policies: {mine: {kind: collection, input: {tap: default}, handlers: {}}}}"


@pytest.fixture
def manager() -> Any:
    return demo_manager()


@pytest.fixture
def user(manager: Any) -> Iterator[Running]:
    with running(manager, version="9.8.7") as server:
        yield server


@pytest.fixture
def admin(manager: Any) -> Iterator[Running]:
    with running(manager, admin=True) as server:
        yield server


def get(server: Running, path: str, method: str = "GET", **more: Any) -> requests.Response:
    return requests.request(method, server.url + path, timeout=20, **more)


def body(answer: requests.Response, status: int = 200) -> Any:
    """A JSON answer's body, which is compact, sorted, and of upstream's type."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "text/json"
    found = json.loads(answer.content)
    compact = json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # numbers such as 1.0 and 1e-7 are spelled alike by the same library
    assert answer.content.decode() == compact
    return found


def assert_empty(answer: requests.Response, status: int = 404) -> None:
    assert (answer.status_code, answer.content) == (status, b"")
    assert answer.headers["Content-Length"] == "0"


# --- the program ---


def test_app(user: Running) -> None:
    found = body(get(user, "/api/v1/metrics/app"))
    assert set(found) == {"app"}
    assert found["app"]["version"] == "9.8.7"
    assert isinstance(found["app"]["up_time_min"], float)
    user.app.health.began -= 90.7
    # somebody sets the clock
    user.app.health.started += 10_000
    assert body(get(user, "/api/v1/metrics/app"))["app"]["up_time_min"] == 1.5


def test_rates(user: Running) -> None:
    found = body(get(user, "/api/v1/metrics/rates"))
    assert found["packets"] == {"in": 0, "out": 0}
    assert "bucket/0" in found["warning"]


def test_default_version_is_the_packages(manager: Any) -> None:
    with running(manager) as server:
        assert body(get(server, "/api/v1/metrics/app"))["app"]["version"] == __version__


# --- taps ---


def test_taps(user: Running) -> None:
    tap = {
        "config": {"host_spec": "", "iface": "eth0"},
        "input_type": "pcap",
        "interface": "visor.module.input/1.0",
        "tags": None,
    }
    assert body(get(user, "/api/v1/taps")) == {"default": tap}
    assert body(get(user, "/api/v1/taps/default")) == {"default": tap}
    assert body(get(user, "/api/v1/taps/other"), 404) == {"error": "tap does not exists"}


def test_create_and_delete_taps(admin: Running) -> None:
    found = body(get(admin, "/api/v1/taps", "POST", data=TAP, headers=YAML), 201)
    assert set(found) == {"extra"}
    assert set(body(get(admin, "/api/v1/taps"))) == {"default", "extra"}
    twice = body(get(admin, "/api/v1/taps", "POST", data=TAP, headers=YAML), 409)
    assert "already" in twice["error"]
    assert body(get(admin, "/api/v1/taps/extra", "DELETE")) == {}
    assert body(get(admin, "/api/v1/taps/extra", "DELETE"), 404) == {"error": "tap does not exists"}
    assert body(get(admin, "/api/v1/taps/default", "DELETE")) == {}
    assert body(get(admin, "/api/v1/taps")) == {}


def test_json_bodies(admin: Running) -> None:
    document = {"visor": {"taps": {"one": {"input_type": "dnstap", "tags": {"a": 1, "b": True}}}}}
    found = body(get(admin, "/api/v1/taps", "POST", data=json.dumps(document), headers=JSON), 201)
    assert found["one"]["tags"] == {"a": 1, "b": True}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Content-Type": "application/JSON"},
        {"Content-Type": "text/yaml"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/taps", "/api/v1/policies"])
def test_content_type_is_exact(admin: Running, path: str, headers: dict[str, str]) -> None:
    # bytes, so that requests adds no type of its own
    assert "error" in body(get(admin, path, "POST", data=TAP.encode(), headers=headers), 400)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "empty data"),
        (b" \n", "empty data"),
        (b"a: [", "YAML"),
        (b"- 1", "invalid schema"),
        (b"visor: 1", "invalid schema"),
        (b"visor: {policies: {}}", "no taps found in schema"),
        (b"visor: {taps: {a: {}, b: {}}}", "2"),
    ],
)
def test_documents_that_cannot_be_used(admin: Running, data: bytes, error: str) -> None:
    found = body(get(admin, "/api/v1/taps", "POST", data=data, headers=YAML), 500)
    assert error in found["error"]
    assert set(found) == {"error"}


# --- policies ---


def test_policies(user: Running) -> None:
    found = body(get(user, "/api/v1/policies"))
    assert set(found) == {"default"}
    assert set(found["default"]) == {"taps", "input", "modules"}
    assert body(get(user, "/api/v1/policies/default")) == found
    for path in ("/api/v1/policies/other", "/api/v1/policies/__all"):
        assert body(get(user, path), 404) == {"error": "policy does not exists"}


def test_create_and_delete_policies(admin: Running) -> None:
    found = body(get(admin, "/api/v1/policies", "POST", data=POLICY, headers=YAML), 201)
    assert set(found) == {"mine"}
    assert "already" in body(get(admin, "/api/v1/policies", "POST", data=POLICY, headers=YAML), 409)["error"]
    assert body(get(admin, "/api/v1/policies/mine/metrics/bucket/0"))["mine"]
    assert body(get(admin, "/api/v1/policies/mine", "DELETE")) == {}
    answer = body(get(admin, "/api/v1/policies/mine", "DELETE"), 404)
    assert answer == {"error": "policy does not exists"}
    assert body(get(admin, "/api/v1/policies/default", "DELETE")) == {}
    assert body(get(admin, "/api/v1/policies")) == {}


def test_selector_without_match(admin: Running) -> None:
    data = POLICY.replace("{tap: default}", "{tap_selector: {all: [{a: b}]}}")
    answer = get(admin, "/api/v1/policies", "POST", data=data, headers=YAML)
    assert answer.status_code == 422
    # case B-22: the body, exactly
    assert answer.text == """{"error":"no tap match found for specified 'input.tap_selector' tags"}"""


# --- metrics ---


def demo_numbers() -> dict[str, Any]:
    """The demo capture as pktvisor-pcap's face shows it."""
    found = netprobe.summarize(
        DEMO, handlers="net,dhcp,dns,pcap", periods=1, hosts="10.77.0.2/32,fd77::2/128"
    )
    return dict(found.to_dict()["1m"])


def without(tree: Any, *keys: str) -> Any:
    if isinstance(tree, dict):
        return {key: without(value, *keys) for key, value in tree.items() if key not in keys}
    return tree


def test_bucket_of_a_policy(user: Running) -> None:
    found = body(get(user, "/api/v1/policies/default/metrics/bucket/1"))
    handlers = found["default"]
    assert list(found) == ["default"]
    assert {name: list(each) for name, each in handlers.items()} == {
        "default-default-net": ["packets"],
        "default-default-dhcp": ["dhcp"],
        "default-default-dns": ["dns"],
        "default-default-pcap": ["pcap"],
    }
    flat = {key: value for each in handlers.values() for key, value in each.items()}
    assert without(flat, "period") == without(demo_numbers(), "period")
    assert flat["dns"]["period"] == {"start_ts": 1_699_999_940, "length": 60}


def test_window_of_a_policy(user: Running) -> None:
    handlers = body(get(user, "/api/v1/policies/default/metrics/window/2"))["default"]
    packets = handlers["default-default-net"]["packets"]
    once = demo_numbers()["packets"]
    assert packets["total"] == 2 * once["total"]
    assert packets["cardinality"] == once["cardinality"]
    assert packets["period"]["start_ts"] == 1_699_999_940
    # three buckets exist: window 5 has all of them
    handlers = body(get(user, "/api/v1/policies/default/metrics/window/5"))["default"]
    assert handlers["default-default-net"]["packets"]["total"] == 3 * once["total"]


def test_compat_bucket(user: Running) -> None:
    found = body(get(user, "/api/v1/metrics/bucket/1"))
    assert list(found) == ["1m"]
    assert set(found["1m"]) == {"packets", "dhcp", "dns", "pcap", "period"}
    assert (
        found["1m"]["period"] == found["1m"]["packets"]["period"] == {"start_ts": 1_699_999_940, "length": 60}
    )
    assert without(found["1m"], "period") == without(demo_numbers(), "period")


def test_compat_window(user: Running) -> None:
    for n in (2, 5):
        found = body(get(user, f"/api/v1/metrics/window/{n}"))
        assert list(found) == [f"{n}m"]
        assert set(found[f"{n}m"]) == {"packets", "dhcp", "dns", "pcap"}


def test_telegraf(user: Running) -> None:
    """What the snippet of agent spec 6.3 asks for: json_query 1m, time from period_start_ts, text fields."""
    found = body(get(user, "/api/v1/metrics/bucket/1"))["1m"]
    fields: dict[str, Any] = {}

    def flatten(value: Any, name: str) -> None:
        """Telegraf's JSON parser: path joined by _, list elements by index."""
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in pairs:
                flatten(inner, f"{name}_{key}" if name else str(key))
        else:
            fields[name] = value

    flatten(found, "")
    assert fields["period_start_ts"] == 1_699_999_940
    assert fields["packets_total"] == demo_numbers()["packets"]["total"]
    assert fields["dns_top_qname2_0_name"]
    assert isinstance(fields["dns_top_qname2_0_estimate"], int)


def test_later_handler_of_a_key_wins(manager: Any, user: Running) -> None:
    pair = [*windows_of(DEMO, 1000, "net"), *windows_of(DEMO, 2000, "net", filter="udp")]
    manager.policies["default"] = FakePolicy("default", [pair])
    manager.policies["default"].names = ["first", "second"]
    found = body(get(user, "/api/v1/metrics/bucket/0"))["1m"]
    assert found["packets"]["tcp"] == 0
    assert found["packets"]["period"]["start_ts"] == 2000
    # the first one's
    assert found["period"]["start_ts"] == 1000


def test_without_default(manager: Any, user: Running) -> None:
    manager.policies = {"other": manager.policies["default"]}
    for kind in ("bucket/0", "window/5", "bucket/99"):
        assert body(get(user, f"/api/v1/metrics/{kind}"), 404) == {"error": 'no "default" policy exists'}
    assert_empty(get(user, "/metrics"))
    assert get(user, "/metrics/agent").status_code == 200


def test_unknown_policy(user: Running) -> None:
    for kind in ("bucket/0", "window/5"):
        answer = body(get(user, f"/api/v1/policies/other/metrics/{kind}"), 404)
        assert answer == {"error": "policy does not exist"}
    answer = get(user, "/api/v1/policies/other/metrics/prometheus")
    assert (answer.status_code, answer.text) == (404, "policy does not exists")
    assert answer.headers["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("bucket/5", "invalid metrics period, specify [0, 4]"),
        ("bucket/9223372036854775807", "invalid metrics period, specify [0, 4]"),
        ("bucket/3", "requested metrics period has not yet accumulated, current range is [0, 2]"),
        ("window/0", "invalid metrics period, specify [2, 5]"),
        ("window/1", "invalid metrics period, specify [2, 5]"),
        ("window/6", "invalid metrics period, specify [2, 5]"),
    ],
)
def test_period_errors(user: Running, path: str, error: str) -> None:
    assert body(get(user, f"/api/v1/policies/default/metrics/{path}"), 425) == {"error": error}
    assert body(get(user, f"/api/v1/metrics/{path}"), 500) == {"error": error}
    assert body(get(user, f"/api/v1/policies/__all/metrics/{path}")) == {}


@pytest.mark.parametrize("digits", ["9223372036854775808", "9" * 5000])
def test_numbers_too_big(user: Running, digits: str) -> None:
    for base in ("/api/v1/metrics", "/api/v1/policies/default/metrics", "/api/v1/policies/__all/metrics"):
        assert "error" in body(get(user, f"{base}/bucket/{digits}"), 500)


def test_leading_zeros(user: Running) -> None:
    assert body(get(user, "/api/v1/metrics/window/" + "0" * 100 + "5"))["5m"]


def test_all(manager: Any, user: Running) -> None:
    other = windows_of(DEMO, 1_700_000_000, "net")
    manager.policies["other"] = FakePolicy("other", [other, other], periods=2)
    found = body(get(user, "/api/v1/policies/__all/metrics/bucket/1"))
    assert {name: len(each) for name, each in found.items()} == {"default": 4, "other": 1}
    # who has no such period is left out
    assert set(body(get(user, "/api/v1/policies/__all/metrics/window/5"))) == {"default"}
    assert set(body(get(user, "/api/v1/policies/__all/metrics/bucket/2"))) == {"default"}


# --- unknown paths, methods, names ---


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api/v1/metrics",
        "/api/v1/metrics/",
        "/api/v1/metrics/prometheus",
        "/api/v1/metrics/bucket/",
        "/api/v1/metrics/bucket/x",
        "/api/v1/metrics/bucket/-1",
        "/api/v1/metrics/bucket/1.0",
        "/api/v1/metrics/bucket/1/",
        "/api/v1/metrics/bucket/%D9%A1",
        "/api/v1/metrics/bucket/1%0A",
        "/api/v1/taps/",
        "/api/v1/taps/0a",
        "/api/v1/taps/-a",
        "/api/v1/taps/a.b",
        "/api/v1/taps/a%2Fb",
        "/api/v1/taps/default%0A",
        "/api/v1/taps/default/",
        "/api/v1/taps/d%C3%A9faut",
        "/api/v1/taps/%FF%FE",
        "/api/v1/taps/a%00",
        "//api/v1/taps",
        "/api/v1/policies/0/metrics/bucket/0",
        "/api/v1/inputs",
        "/api/v1/handlers",
        "/openapi.json",
        "/favicon.ico",
    ],
)
def test_unknown_paths(user: Running, path: str) -> None:
    assert_empty(get(user, path))


def test_names_and_escapes(user: Running) -> None:
    assert body(get(user, "/api/v1/taps/%64efault?x=1"))["default"]
    assert body(get(user, "/api/v1/taps/_-9Z"), 404) == {"error": "tap does not exists"}


def example(path: str) -> str:
    return path.replace("{tap}", "default").replace("{policy}", "default").replace("{n}", "2")


@pytest.mark.parametrize("is_admin", [False, True])
def test_wrong_methods(manager: Any, is_admin: bool) -> None:
    with running(manager, admin=is_admin) as server:
        there = {(row.method, row.path) for row in ROUTES if is_admin or not row.admin}
        for path in {row.path for row in ROUTES}:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"):
                if (method, path) not in there:
                    assert_empty(get(server, example(path), method, data=b"x", headers=YAML))


def test_read_only_mode_changes_nothing(manager: Any, user: Running) -> None:
    assert_empty(get(user, "/api/v1/taps", "POST", data=TAP, headers=YAML))
    assert_empty(get(user, "/api/v1/policies", "POST", data=POLICY, headers=YAML))
    assert_empty(get(user, "/api/v1/taps/default", "DELETE"))
    assert_empty(get(user, "/api/v1/policies/default", "DELETE"))
    assert_empty(get(user, "/api/v1/server", "DELETE"))
    assert set(manager.taps) == set(manager.policies) == {"default"}


def test_head_is_like_get(user: Running) -> None:
    for row in ROUTES:
        if row.method == "GET" and "agent" not in row.path and row.path != "/metrics":
            whole, head = get(user, example(row.path)), get(user, example(row.path), "HEAD")
            assert head.status_code == whole.status_code
            assert head.content == b""
            for name in ("Content-Type", "Content-Length"):
                assert head.headers[name] == whole.headers[name]


# --- failures, the log ---


def test_unexpected_failures_are_said(manager: Any, user: Running, caplog: Any) -> None:
    manager.policies["default"].broken = True
    with caplog.at_level(logging.INFO):
        found = body(get(user, "/api/v1/metrics/bucket/0"), 500)
        assert "broken on purpose" in found["error"]
        answer = get(user, "/api/v1/policies/default/metrics/prometheus")
        assert (answer.status_code, answer.headers["Content-Type"]) == (500, "text/plain")
        assert "broken on purpose" in answer.text
        assert until(lambda: sum("REQUEST" in record.message for record in caplog.records) == 2)
    # the body of a 500 is an error line, and what nobody expected comes with its place
    assert any(r.levelname == "ERROR" and "broken on purpose" in r.message for r in caplog.records)
    assert any(record.exc_info for record in caplog.records)


def _requests(caplog: Any) -> list[str]:
    return [record.message for record in caplog.records if "listening" not in record.message]


def test_request_lines(user: Running, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        get(user, "/api/v1/taps?with=query")
        get(user, "/no%0Awhere%1B[31m", "PUT")
        get(user, "/x" * 500)
        assert until(lambda: len(_requests(caplog)) >= 3)
    lines = _requests(caplog)
    assert lines[0] == "REQUEST: GET /api/v1/taps 200"
    assert lines[1] == r"REQUEST: PUT /no\nwhere\x1b[31m 404"
    assert len(lines[2]) < 400
    assert lines[2].endswith("... 404")


def test_strings_that_json_cannot_have(manager: Any, user: Running) -> None:
    manager.taps["default"].config = {"a": "\ud800", "b": "\xff\u2028"}
    answer = get(user, "/api/v1/taps")
    assert json.loads(answer.content)["default"]["config"] == {"a": "\ud800", "b": "\xff\u2028"}


# --- health, the page, the end ---


def test_health(manager: Any, user: Running) -> None:
    assert get(user, "/healthz").text == "ok\n"
    assert (get(user, "/readyz").status_code, get(user, "/readyz").text) == (200, "ready\n")
    manager.inputs["default-0a"].interface_up = False
    answer = get(user, "/readyz")
    assert (answer.status_code, answer.text) == (200, "ready\ninterface down or gone: default-0a\n")
    manager.inputs["default-0a"].running = False
    assert (get(user, "/readyz").status_code, get(user, "/readyz").text) == (503, "not running: default-0a\n")


@pytest.mark.parametrize("is_admin", [False, True])
def test_landing_page(manager: Any, is_admin: bool) -> None:
    for periods in (1, 3):
        name = f"of_{periods}"
        manager.policies[name] = FakePolicy(name, manager.policies["default"].buckets[:periods])
        manager.policies[name].periods = periods
    with running(manager, admin=is_admin) as server:
        answer = get(server, "/")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert ("admin API is on" in answer.text) is is_admin
        links = re.findall(r'href="([^"]+)"', answer.text)
        assert len(links) == len(set(links)) > 10
        # every link leads somewhere here, nothing is loaded from elsewhere
        for link in links:
            assert link.startswith("/")
            assert get(server, link).status_code == 200, link
        assert not re.search(r"\b(src|@import|url)\b", answer.text.replace("default-src", ""))


def test_stop(manager: Any) -> None:
    asked = threading.Event()
    with running(manager, admin=True, stop=asked.set) as server:
        assert_empty(get(server, "/api/v1/server", "DELETE"), 200)
        assert asked.wait(20)


def test_token(manager: Any) -> None:
    token = "a-token-of-some-length"
    with running(manager, admin=True, admin_token=token) as server:
        wrong = [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer " + token[:-1]},
            {"Authorization": "Bearer " + token + "x"},
            {"Authorization": "Basic " + token},
            {"Authorization": token},
        ]
        for headers in wrong:
            answer = get(server, "/api/v1/taps", "POST", data=TAP, headers={**YAML, **headers})
            assert "error" in body(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert get(server, "/api/v1/server", "DELETE", headers=headers).status_code == 401
        assert set(manager.taps) == {"default"}
        right = {**YAML, "Authorization": f"bearer {token}"}
        assert get(server, "/api/v1/taps", "POST", data=TAP, headers=right).status_code == 201
        # reading needs none
        assert get(server, "/api/v1/taps").status_code == 200


def test_bad_style(manager: Any) -> None:
    with pytest.raises(ConfigError, match="expected classic or modern"):
        create_app(manager, prom_style="old")


# --- many readers ---


def test_a_storm_is_answered_by_few_renderings(manager: Any) -> None:
    """Equal requests share one rendering while it has not begun; each sees what was there when it asked."""
    policy = manager.policies["default"]
    calls = []
    gate = threading.Event()
    render = policy.window_json

    def slow(n: int) -> Any:
        calls.append(n)
        gate.wait(20)
        return render(n)

    policy.window_json = slow
    with running(manager) as server:
        answers: list[int] = []

        def ask() -> None:
            answers.append(get(server, "/api/v1/metrics/window/5").status_code)

        threads = [threading.Thread(target=ask) for _ in range(60)]
        for thread in threads:
            thread.start()
        assert until(lambda: len(calls) == 2 and server.server._uvicorn and len(_connections(server)) == 60)
        # what needs no rendering thread is not held up by the storm
        for path in ("/healthz", "/api/v1/metrics/app", "/api/v1/metrics/rates"):
            assert get(server, path).status_code == 200
        assert server.app.work.queued == 1
        gate.set()
        for thread in threads:
            thread.join()
        assert answers == [200] * 60
        assert len(calls) <= 10


def _connections(server: Running) -> Any:
    return server.server._uvicorn.server_state.connections  # type: ignore[union-attr]


def test_slow_changes_do_not_hold_up_reads(manager: Any) -> None:
    gate = threading.Event()
    add = manager.add_policy

    def slow(document: bytes) -> str:
        gate.wait(20)
        return str(add(document))

    manager.add_policy = slow
    with running(manager, admin=True) as server:
        statuses: list[int] = []
        thread = threading.Thread(
            target=lambda: statuses.append(
                get(server, "/api/v1/policies", "POST", data=POLICY, headers=YAML).status_code
            )
        )
        thread.start()
        for _ in range(20):
            assert get(server, "/api/v1/metrics/window/5").status_code == 200
        assert statuses == []
        gate.set()
        thread.join()
        assert statuses == [201]


def test_no_threads_left(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who serves one request after the other still serves; nobody waits for a thread that never began."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("web-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    gate = threading.Event()
    render = manager.policies["default"].window_json
    manager.policies["default"].window_json = lambda n: gate.wait(20) and render(n)
    with running(manager, admin=True) as server:
        assert get(server, "/healthz").status_code == 200
        monkeypatch.setattr(threading.Thread, "start", refuse)
        answers: list[int] = []
        paths = ("metrics/window/5", "taps", "taps", "policies")
        threads = [
            threading.Thread(
                target=lambda path=path: answers.append(get(server, f"/api/v1/{path}").status_code)
            )
            for path in paths
        ]
        for thread in threads:
            thread.start()
        assert until(lambda: server.app.work.queued)
        gate.set()
        for thread in threads:
            thread.join()
        assert answers == [200] * 4
        assert get(server, "/api/v1/taps", "POST", data=TAP, headers=YAML).status_code == 201
    with pytest.raises(InputError, match="web server: can't start new thread: raise the limit on threads"):
        create_app(manager).start()


def test_threads_end(manager: Any) -> None:
    before = threading.active_count()
    with running(manager, admin=True) as server:
        get(server, "/api/v1/taps")
        get(server, "/api/v1/taps/no", "DELETE")
    assert until(lambda: threading.active_count() <= before)

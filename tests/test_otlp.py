"""OTLP push: what a receiver reads with opentelemetry-proto, and what happens when it is away or says no."""

from __future__ import annotations

import contextlib
import http.server
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from agent_fakes import DEMO, FakePolicy, demo_manager, read_all, running, until, windows_of
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from prometheus_client.parser import text_string_to_metric_families

from netprobe.agent.otlp import OtlpPusher
from netprobe.errors import ConfigError
from netprobe.metrics import render_otlp, render_prometheus

SECOND = 1_000_000_000


class Receiver:
    """An OTLP/HTTP receiver that keeps what it understands. ``plan``: statuses to answer first."""

    def __init__(self, context: ssl.SSLContext | None = None, plan: tuple[int, ...] = ()) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.plan = list(plan)
        self.answer = ExportMetricsServiceResponse()
        self.more_headers: dict[str, str] = {}
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.times.append(time.monotonic())
                owner.bodies.append(body)
                status = owner.plan.pop(0) if owner.plan else 200
                if status == 200:
                    owner.headers.append(dict(self.headers))
                    owner.paths.append(self.path)
                    owner.requests.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(status)
                for name, value in owner.more_headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(owner.answer.SerializeToString() if status == 200 else b"no")

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def push() -> Iterator[Callable[..., OtlpPusher]]:
    started: list[OtlpPusher] = []

    def start(manager: Any, port: int, **more: Any) -> OtlpPusher:
        pusher = OtlpPusher(manager, "127.0.0.1", port, **{"interval": 0.1, "first_pause": 0.02, **more})
        pusher.start()
        started.append(pusher)
        return pusher

    yield start
    for pusher in started:
        pusher.stop()


def attributes(values: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in values}


def flat(request: ExportMetricsServiceRequest) -> dict[tuple[Any, ...], Any]:
    """(name, labels with the quantile) -> value, for gauges and summaries."""
    found: dict[tuple[Any, ...], Any] = {}
    for scope in request.resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            assert metric.description
            for point in metric.gauge.data_points:
                at = metric.name, frozenset(attributes(point.attributes).items())
                assert at not in found
                found[at] = point.as_int
            for point in metric.summary.data_points:
                labels = attributes(point.attributes)
                for value in point.quantile_values:
                    own = labels | {"quantile": f"{value.quantile:g}"}
                    found[metric.name, frozenset(own.items())] = value.value
                found[metric.name + "_count", frozenset(labels.items())] = point.count
                found[metric.name + "_sum", frozenset(labels.items())] = point.sum
    return found


def test_same_numbers_as_prometheus() -> None:
    """Point by point what prometheus_client reads in our text, whose values other tests check."""
    windows = windows_of(DEMO, 1000)
    windows = [w.with_labels(policy="p", handler=f"p-t-{w.config.name}", tap="t") for w in windows]
    request = ExportMetricsServiceRequest.FromString(render_otlp.render([("p", windows)]).SerializeToString())
    found = flat(request)
    wanted = {}
    for family in text_string_to_metric_families(render_prometheus.render(windows)):
        for sample in family.samples:
            if not family.name.startswith("dns_top") or "" not in sample.labels.values():
                wanted[sample.name, frozenset(sample.labels.items())] = sample.value
    # the text has six digits of what is no integer
    assert found == pytest.approx(wanted, rel=1e-5)
    assert len(found) > 100
    points = [at for at in found if "quantile" not in dict(at[1]) and not at[0].endswith("_sum")]
    assert render_otlp.points_in(request) == len(points)


def test_envelope() -> None:
    closed = windows_of(DEMO, 1_700_000_000, "net")
    opened = [replace(closed[0], read_only=False, length=7)]
    now = 1_700_000_042 * SECOND + 5
    request = render_otlp.render([("a", closed), ("b", opened)], now=lambda: now)
    (resource,) = request.resource_metrics
    assert not resource.resource.attributes
    assert [one.scope.name for one in resource.scope_metrics] == ["pktvisor/a", "pktvisor/b"]
    assert [attributes(one.scope.attributes) for one in resource.scope_metrics] == [
        {"policy_name": "a"},
        {"policy_name": "b"},
    ]
    spans = [
        {
            (point.start_time_unix_nano, point.time_unix_nano)
            for metric in scope.metrics
            for point in (*metric.gauge.data_points, *metric.summary.data_points)
        }
        for scope in resource.scope_metrics
    ]
    assert spans == [
        {(1_700_000_000 * SECOND, 1_700_000_060 * SECOND)},
        {(1_700_000_000 * SECOND, now)},
    ]
    assert render_otlp.points_in(render_otlp.render([("a", [])])) == 0


def test_histogram() -> None:
    """Worked values of the metrics spec 1.6: integer {12, 12, 12, 8}."""
    from render_fakes import fake_window

    from netprobe.metrics.table import HandlerTable, histogram

    table = HandlerTable(
        type="root", version="1.0", key="root", metrics=(histogram("a", "text"),), native="none:none"
    )
    window = fake_window(table, {"a": ([(8, 1), (12, 4)], 4)})
    request = render_otlp.render([("p", [window])])
    metric = request.resource_metrics[0].scope_metrics[0].metrics[0]
    assert metric.name == "root_a"
    assert metric.histogram.aggregation_temporality == 2
    (point,) = metric.histogram.data_points
    assert list(point.explicit_bounds) == [8, 12]
    # one more than bounds, each with what lies between two
    assert list(point.bucket_counts) == [1, 3, 0]
    assert point.count == 4


def test_pushes(receiver: Receiver, push: Any) -> None:
    manager = demo_manager()
    manager.policies["second"] = FakePolicy("second", [windows_of(DEMO, 1_700_000_000, "net")])
    begin = time.monotonic()
    pusher = push(manager, receiver.port, path="/some/where", interval=0.3)
    assert until(lambda: len(receiver.requests) >= 3)
    # the first one comes an interval after the start
    assert receiver.times[0] - begin >= 0.3
    assert set(receiver.paths) == {"/some/where"}
    assert receiver.headers[0]["Content-Type"] == "application/x-protobuf"
    scopes = receiver.requests[0].resource_metrics[0].scope_metrics
    assert [one.scope.name for one in scopes] == ["pktvisor/default", "pktvisor/second"]
    names = {metric.name for metric in scopes[0].metrics}
    assert {"packets_total", "dns_wire_packets_total", "pcap_os_drops"} <= names
    point = next(m for m in scopes[0].metrics if m.name == "packets_total").gauge.data_points[0]
    assert attributes(point.attributes) == {
        "policy": "default",
        "handler": "default-default-net",
        "tap": "default",
    }
    # the closed bucket, not the open one
    assert point.start_time_unix_nano == 1_699_999_940 * SECOND
    # what has come is counted when the receiver has answered
    assert until(lambda: pusher.delivered >= 3)
    assert pusher.lost == {"full": 0, "refused": 0, "rejected": 0, "stopped": 0}


def test_a_policy_that_fails_is_left_out(receiver: Receiver, push: Any, caplog: Any) -> None:
    manager = demo_manager()
    manager.policies["bad"] = FakePolicy("bad", [windows_of(DEMO, 1_700_000_000, "net")])
    manager.policies["bad"].broken = True
    with caplog.at_level(logging.WARNING):
        push(manager, receiver.port)
        assert until(lambda: len(receiver.requests) >= 3)
    scopes = receiver.requests[2].resource_metrics[0].scope_metrics
    assert [one.scope.name for one in scopes] == ["pktvisor/default"]
    assert [record.message for record in caplog.records if "bad" in record.message] == [
        f"OTLP push to http://127.0.0.1:{receiver.port}/v1/metrics: policy [bad] left out: broken on purpose"
    ]


def test_nothing_to_say_is_not_sent(receiver: Receiver, push: Any) -> None:
    manager = demo_manager()
    manager.policies.clear()
    push(manager, receiver.port, interval=0.02)
    time.sleep(0.3)
    assert receiver.bodies == []


def test_retries_the_same_request(receiver: Receiver, push: Any, caplog: Any) -> None:
    receiver.plan = [503, 429, 502]
    with caplog.at_level(logging.INFO):
        pusher = push(demo_manager(), receiver.port, interval=0.4)
        assert until(lambda: receiver.requests and pusher.delivered)
    assert len(set(receiver.bodies[:4])) == 1
    assert pusher.failed_attempts == 3
    assert sum(pusher.lost.values()) == 0
    pauses = [after - before for before, after in zip(receiver.times, receiver.times[1:4], strict=False)]
    # 0.02 s doubled each time, ± a quarter
    assert pauses[0] >= 0.015
    assert pauses[2] >= 0.06
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text.rsplit(": ", 1)[1] for text in said] == [
        "answered 503 Service Unavailable; will try again",
        "answered 429 Too Many Requests; will try again",
        "answered 502 Bad Gateway; will try again",
    ]
    assert any("works again" in record.message for record in caplog.records)


def test_retry_after(receiver: Receiver, push: Any) -> None:
    receiver.plan, receiver.more_headers = [503], {"Retry-After": "1"}
    push(demo_manager(), receiver.port)
    assert until(lambda: len(receiver.times) >= 2)
    assert receiver.times[1] - receiver.times[0] >= 1


def test_retry_after_a_date(receiver: Receiver, push: Any) -> None:
    asked = time.time() + 2
    receiver.plan, receiver.more_headers = [503], {"Retry-After": formatdate(asked, usegmt=True)}
    push(demo_manager(), receiver.port)
    assert until(lambda: receiver.requests)
    assert time.time() >= int(asked)


@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, "soon", "-1", "Wed, 31 Feb 2026 07:28:00 GMT"])
def test_no_retry_after_ends_the_pushing(receiver: Receiver, push: Any, value: str) -> None:
    receiver.plan, receiver.more_headers = [503], {"Retry-After": value}
    pusher = push(demo_manager(), receiver.port)
    assert until(lambda: pusher.failed_attempts)
    # whether it waits for very long or not, it renders on
    assert until(lambda: len(pusher._queue) > 1 or len(receiver.requests) > 1)


def test_pause_begins_when_an_attempt_ends(push: Any) -> None:
    """A receiver that takes connections and says nothing is not asked again at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pusher = push(demo_manager(), listener.getsockname()[1], timeout=0.5, first_pause=1.0)
        assert until(lambda: pusher.failed_attempts == 1)
        begin = time.monotonic()
        listener.settimeout(20)
        listener.accept()[0].close()
        # the second attempt; the first pause is 1 s, or a quarter less
        listener.accept()[0].close()
        assert time.monotonic() - begin >= 0.7


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 503 Service Unavailable\r\nX: "])
def test_an_answer_that_drips_has_an_end(push: Any, caplog: Any, start: bytes) -> None:
    """A byte now and then keeps no attempt alive, and the others go on."""

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(start)
            while True:
                connection.sendall(b"H")
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        pusher = push(demo_manager(), listener.getsockname()[1], timeout=0.2)
        threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()
        assert until(lambda: pusher.failed_attempts)


def test_pushing_goes_on_without_a_second_thread(
    receiver: Receiver, push: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", none_left)
    pusher = push(demo_manager(), receiver.port, interval=0.05)
    assert until(lambda: pusher.delivered >= 2)


@pytest.mark.parametrize("status", [400, 302])
def test_refused_requests_are_lost_and_counted(
    receiver: Receiver, push: Any, caplog: Any, status: int
) -> None:
    receiver.plan = [status] * 4
    with caplog.at_level(logging.WARNING):
        pusher = push(demo_manager(), receiver.port, interval=0.05)
        assert until(lambda: len(receiver.requests) >= 1)
    assert len(set(receiver.bodies)) >= 1
    assert pusher.lost["refused"] == 4 * render_otlp.points_in(receiver.requests[0])
    # four refusals, one line
    assert sum(f"answered {status}" in record.message for record in caplog.records) == 1


def test_partial_success_is_counted(receiver: Receiver, push: Any, caplog: Any) -> None:
    receiver.answer.partial_success.rejected_data_points = 7
    with caplog.at_level(logging.WARNING):
        pusher = push(demo_manager(), receiver.port)
        assert until(lambda: pusher.delivered >= 2)
        pusher.stop()  # both numbers stand still
    assert pusher.lost["rejected"] == 7 * pusher.delivered
    assert sum("rejected 7 data points" in record.message for record in caplog.records) == 1


def test_unreachable(push: Any, caplog: Any) -> None:
    """The agent goes on, the queue stays within its bounds, the log is not flooded; later all is well."""
    spare = Receiver()
    port = spare.port
    spare.close()
    with caplog.at_level(logging.INFO):
        pusher = push(demo_manager(), port, interval=0.02, keep_requests=5)
        assert until(lambda: pusher.lost["full"] > 0 and pusher.failed_attempts >= 3)
        with running(demo_manager()) as server:
            server.app.health.extra.append(pusher)
            import requests

            page = requests.get(server.url + "/metrics/agent", timeout=20).text
        numbers = {
            (sample.name, sample.labels.get("reason")): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }
        assert numbers["netprobe_otlp_queue_length", None] <= 5
        assert numbers["netprobe_otlp_lost_points_total", "full"] > 0
        assert numbers["netprobe_otlp_failed_attempts_total", None] >= 3
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == [f"OTLP push to http://127.0.0.1:{port}/v1/metrics: connection refused; will try again"]


def test_what_waits_is_bounded_in_bytes(push: Any) -> None:
    spare = Receiver()
    spare.close()
    pusher = push(demo_manager(), spare.port, interval=0.02, keep_bytes=30_000)
    assert until(lambda: pusher.lost["full"] > 0)
    queue = {name: value for name, _, _, value, _ in pusher.numbers()}
    assert 0 < queue["netprobe_otlp_queue_bytes"] <= 30_000


def test_a_request_above_the_bound_is_lost_alone(receiver: Receiver, push: Any) -> None:
    pusher = push(demo_manager(), receiver.port, interval=0.02, keep_bytes=100)
    assert until(lambda: pusher.lost["full"] > 0)
    assert (receiver.bodies, pusher.failed_attempts, pusher.delivered) == ([], 0, 0)


def test_stop_is_quick_and_counts_what_waited(push: Any) -> None:
    spare = Receiver()
    spare.close()
    pusher = push(demo_manager(), spare.port, interval=0.05, first_pause=30)
    assert until(lambda: pusher.failed_attempts)
    begin = time.monotonic()
    pusher.stop()
    assert time.monotonic() - begin < 5
    assert pusher.lost["stopped"] > 0


def test_stop_does_not_wait_for_a_silent_receiver(push: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pusher = push(demo_manager(), listener.getsockname()[1], timeout=30)
        listener.settimeout(20)
        connection, _ = listener.accept()
        with connection:
            begin = time.monotonic()
            pusher.stop()
            assert time.monotonic() - begin < 10


def test_no_http_at_all(push: Any, caplog: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, caplog.at_level(logging.WARNING):
        push(demo_manager(), listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"SSH-2.0-nothing\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            # all of it: closing with something unread would be a reset
            read_all(connection)
        assert until(lambda: caplog.records)
    assert "BadStatusLine: SSH-2.0-nothing" in caplog.records[0].message


# --- TLS ---


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA, a server for 127.0.0.1 and a client, by openssl."""
    folder = tmp_path_factory.mktemp("tls")
    ca = str(folder / "ca.pem"), str(folder / "ca.key")
    common = ["-newkey", "rsa:2048", "-nodes", "-days", "2"]
    openssl("req", "-x509", *common, "-keyout", ca[1], "-out", ca[0], "-subj", "/CN=test CA")
    for name, extension in (("server", "IP:127.0.0.1"), ("client", "DNS:client")):
        key, request, cert = (str(folder / f"{name}.{end}") for end in ("key", "csr", "pem"))
        openssl("req", *common[:3], "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        (folder / "ext").write_text(f"subjectAltName={extension}\n")
        openssl(
            *("x509", "-req", "-in", request, "-CA", ca[0], "-CAkey", ca[1], "-CAcreateserial"),
            *("-days", "2", "-out", cert, "-extfile", str(folder / "ext")),
        )
    return folder


@pytest.mark.tool("openssl")
def test_tls_with_client_certificate(certificates: Path, push: Any, caplog: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    receiver = Receiver(context)
    try:
        pair = str(certificates / "client.pem"), str(certificates / "client.key")
        push(demo_manager(), receiver.port, tls=pair, ca=str(certificates / "ca.pem"))
        assert until(lambda: receiver.requests)
        assert render_otlp.points_in(receiver.requests[0]) > 100
        # a receiver that nobody vouches for gets nothing
        known = len(receiver.requests)
        with caplog.at_level(logging.WARNING):
            other = push(demo_manager(), receiver.port, tls=pair)
            assert until(lambda: other.failed_attempts)
        assert other.delivered == 0
        assert "certificate is not trusted" in caplog.text
        assert len(receiver.requests) >= known
    finally:
        receiver.close()


@pytest.mark.tool("openssl")
def test_bad_settings(certificates: Path, tmp_path: Path) -> None:
    pair = str(certificates / "client.pem"), str(certificates / "server.key")
    with pytest.raises(
        ConfigError, match=r"OTLP TLS certificate .*client.pem with key .*server.key: key values mismatch"
    ):
        OtlpPusher(demo_manager(), tls=pair)
    with pytest.raises(ConfigError, match="no such file"):
        OtlpPusher(demo_manager(), tls=(str(tmp_path / "no"), str(tmp_path / "no")))
    with pytest.raises(ConfigError, match="interval"):
        OtlpPusher(demo_manager(), interval=0)
    with pytest.raises(ConfigError, match="path"):
        OtlpPusher(demo_manager(), path="v1/metrics")
    for host in ("", "a..b", "x" * 64, "a b", "a\nb", "\udcff", "http://collector"):
        with pytest.raises(ConfigError, match=r"host .*: expected a name or an address"):
            OtlpPusher(demo_manager(), host)
    assert OtlpPusher(demo_manager(), "::1", 1).url == "http://[::1]:1/v1/metrics"

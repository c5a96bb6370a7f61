"""Sending flows, DNS answers, tags and metrics; the status server. Each against the stand-in server."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgpack
import numpy as np
import pytest
from kentik_server import EMAIL, TOKEN, DeviceSpec, Fault, FlowPost, KentikServer, named_columns

from netprobe.kentik import Client, Credentials, Endpoints, Field, Records, Settings, connect
from netprobe.kentik.api import Device
from netprobe.kentik.client import Pace
from netprobe.kentik.columns import CustomColumns
from netprobe.kentik.dns import DnsResponse, DnsSender
from netprobe.kentik.dns import encode as encode_dns
from netprobe.kentik.flows import FlowSender, flow_url
from netprobe.kentik.http import Backoff, Session
from netprobe.kentik.meters import Meter
from netprobe.kentik.records import native_batch
from netprobe.kentik.tags import TagRequest, TagSender
from netprobe.kentik.tags import encode as encode_tags
from netprobe.kentik.worker import Errors

CREDENTIALS = Credentials(EMAIL, TOKEN)
TICK_S = 0.1


def until(true: Callable[[], object], seconds: float = 15) -> None:
    """Polls; fails when that takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


def settings(server: KentikServer, **changes: Any) -> Settings:
    base: dict[str, Any] = {
        "device_id": 7,
        "pace": Pace(tick_s=TICK_S, metrics_s=60, refresh_s=1200, request_s=10),
        "endpoints": Endpoints(server.api_url, server.flow_url, server.metrics_url, server.dns_url),
    }
    return Settings(CREDENTIALS, **{**base, **changes})


def serve(rate: int = 100_000, **changes: Any) -> KentikServer:
    device = DeviceSpec(7, "probe-1", max_flow_rate=rate, sample_rate=changes.pop("device_sample", 1))
    return KentikServer([device], **{"tick_s": TICK_S, **changes})


@pytest.fixture
def server() -> Iterator[KentikServer]:
    with serve() as running:
        yield running


def flows(count: int, first: int = 1, **columns: Any) -> Records:
    """Outgoing IPv4 flows; the number of packets tells them apart."""
    return Records(
        count,
        {
            "proto": [6] * count,
            "src": ["10.0.0.1"] * count,
            "dst": ["10.0.0.2"] * count,
            "out_pkts": range(first, first + count),
            "out_bytes": [100] * count,
            **columns,
        },
    )


def posts(server: KentikServer) -> list[FlowPost]:
    """In the order in which they were made: two are under way at a time, and may overtake each other."""
    return sorted(server.flow_posts, key=lambda post: int(post.records[0]["outPkts"]))


def numbers(server: KentikServer) -> list[int]:
    return [record["outPkts"] for post in posts(server) for record in post.records]


def balanced(client: Client) -> None:
    """Every record is somewhere."""
    stats = client.stats()
    assert stats.handed_over == stats.posted + stats.failed + stats.dropped + stats.waiting


# flows


def test_records_arrive_with_their_columns(server: KentikServer) -> None:
    """Four kinds of records at once: all that a kprobe sends, buffers and sequences mixed."""
    records = Records(
        3,
        {
            "l3": np.array([4, 6, 4], "u1"),
            "src": ["10.0.0.1", "2001:db8::1", "0.0.0.0"],
            "dst": ["10.0.0.2", "2001:db8::2", "255.255.255.255"],
            "proto": [6, 58, 17],
            "sport": np.array([1234, 0, 68], "u2"),
            "dport": np.array([80, 0, 67], "u2"),
            "src_mac": [0x001122334455, 1, 2],
            "dst_mac": [0xFFFFFFFFFFFF, 3, 4],
            "tos": bytes([0xB8, 0, 1]),
            "tcp_flags": bytes([0x1B, 0, 0]),
            "in_pkts": [3, 0, 0],
            "in_bytes": [1500, 0, 0],
            "out_pkts": [0, 2, 1],
            "out_bytes": [0, 160, 328],
            "input_port": [0x4455, 0, 0],
            "output_port": [0, 1, 2],
            "vlan_in": [7, 0, 0],
            "vlan_out": [0, 8, 0],
            "app_protocol": bytes([2, 0, 4]),
        },
        {
            "KFLOW_HTTP_URL": Field(["/a?b=ü", None, None]),
            "KFLOW_HTTP_HOST": Field(
                b"h.example", offsets=np.array([0, 9, 9, 9], "i4"), present=bytes([1, 0, 0])
            ),
            "KFLOW_HTTP_STATUS": Field([200, None, None]),
            "APPL_LATENCY_MS": Field([0, None, 3]),
            "DHCP_YI_ADDR": Field([None, None, "10.0.0.9"]),
            "CONNECTION_ID": Field(np.array([5, 0, 0], "u4"), skip_zero=True),
            "RECEIVE_WINDOW": Field([0, None, None]),
            "NOT_OFFERED": Field(["x", "y", "z"]),
        },
    )
    with connect(settings(server)) as client:
        assert client.send(records) == 3
        assert client.stop(10)
        balanced(client)
    names = {number: name for number, name, _ in server.devices[0].columns}
    found = [
        {names[entry["id"]]: next(iter(entry["value"].values())) for entry in record.get("custom", ())}
        for record in server.records
    ]
    assert found == [
        {
            "STR00": "/a?b=ü",
            "STR01": "h.example",
            "INT00": 200,
            "APPL_LATENCY_MS": 0,
            "APP_PROTOCOL": 2,
            "CONNECTION_ID": 5,
            "RECEIVE_WINDOW": 0,
        },
        {},
        {"INET_01": b"\x04\x0a\0\0\x09" + bytes(12), "APPL_LATENCY_MS": 3, "APP_PROTOCOL": 4},
    ]
    one, two, three = server.records
    assert (one["ipv4SrcAddr"], one["ipv4DstAddr"], one["l4SrcPort"], one["l4DstPort"]) == (
        0x0A000001,
        0x0A000002,
        1234,
        80,
    )
    assert (one["srcEthMac"], one["dstEthMac"], one["tos"], one["tcpFlags"]) == (
        0x1122334455,
        (1 << 48) - 1,
        0xB8,
        0x1B,
    )
    assert (one["inputPort"], one["outputPort"], one["vlanIn"], one["vlanOut"]) == (0x4455, 0, 7, 0)
    assert (two["ipv6SrcAddr"][-1], two["ipv6DstAddr"][-1], two["outBytes"], two["vlanOut"]) == (1, 2, 160, 8)
    assert [record["appProtocol"] for record in server.records] == [2, 0, 4]
    assert [record["deviceId"] for record in server.records] == [7, 7, 7]
    assert (three["ipv4SrcAddr"], three["ipv4DstAddr"]) == (0, 0xFFFFFFFF)
    assert server.totals() == (6, 1988)
    server.verify()


def test_numbers_that_no_column_can_hold(server: KentikServer) -> None:
    """A latency below 0, by a clock that was set, is 0; what is too large is as much as fits."""
    latencies = Field([-1, -(2**70), 2**64, 5])
    with connect(settings(server)) as client:
        client.send(Records(4, dict(flows(4).columns), {"APPL_LATENCY_MS": latencies}))
    (number,) = (number for number, name, _ in server.devices[0].columns if name == "APPL_LATENCY_MS")
    found = [
        [entry["value"]["uint32Val"] for entry in record["custom"] if entry["id"] == number]
        for record in server.records
    ]
    assert found == [[0], [0], [2**32 - 1], [5]]


def test_named_columns_get_no_app_protocol(server: KentikServer) -> None:
    server.devices[0].columns = named_columns()
    with connect(settings(server)) as client:
        client.send(
            Records(1, dict(flows(1, app_protocol=[3]).columns), {"TLS_SERVER_NAME": Field(["a.test"])})
        )
    (record,) = server.records
    ((custom,), host) = record["custom"], [c for c in server.devices[0].columns if c[1] == "KFLOW_HTTP_HOST"]
    assert (custom["id"], custom["value"]) == (host[0][0], {"strVal": "a.test"})
    server.verify()


def device(rate: int = 10, name: str = "probe-1") -> Device:
    return Device(7, name, 1001, 1, rate, CustomColumns([]))


def test_flow_url() -> None:
    assert flow_url("http://h/chf", device()) == "http://h/chf?sender_id=1001%3Aprobe-1%3A7&sid=0"
    url = flow_url("https://h:8/x?z=1&a=&sender=2", device(name="ä b&c"))
    assert url.startswith("https://h:8/x?a=&sender=2&sender_id=1001%3A")
    assert parse_qs(urlsplit(url).query, keep_blank_values=True) == {
        "a": [""],
        "sender": ["2"],
        "sender_id": ["1001:ä b&c:7"],
        "sid": ["0"],
        "z": ["1"],
    }
    assert url.endswith("&sid=0&z=1")


def test_upstream_s_aggregator(server: KentikServer) -> None:
    """100 records per second, ticks of 100 ms: 10 in, 10 out; 280 in, 10 out at first, 200 dropped."""
    server.devices[0].max_flow_rate = 100
    with connect(settings(server)) as client:
        assert client.send(flows(10)) == 10
        until(lambda: len(server.records) == 10)
        assert numbers(server) == list(range(1, 11))
        until(lambda: client.stats()[:4] == (10, 10, 0, 0))
        assert client.send(flows(280, first=100)) == 80
        assert client.stats().dropped == 200
        until(lambda: len(server.flow_posts) >= 3)
        server.check_overload(posts(server)[1], 200)
        assert {record["sampleRate"] for record in posts(server)[1].records} == {2100}
        assert {record["sampleRate"] for record in posts(server)[2].records} == {100}
        assert client.stop(10)
        balanced(client)
    # the first that came, in order, ten at a time
    assert numbers(server) == [*range(1, 11), *range(100, 180)]
    assert {len(post.records) for post in server.flow_posts} == {10}
    server.verify()


def test_no_more_than_a_batch_per_tick() -> None:
    with serve(rate=200) as server, connect(settings(server)) as client:
        client.send(flows(130))
        until(lambda: len(server.records) == 130)
        assert [len(post.records) for post in posts(server)] == [20] * 6 + [10]
        times = sorted(post.when for post in server.flow_posts)
        assert times[-1] - times[0] > 5 * TICK_S
        server.verify()


def test_drops_raise_rates_of_the_next_batch_only() -> None:
    with serve(rate=30, sample=4) as server, connect(settings(server, sample=4)) as client:
        client.send(flows(1000, sample_rate=[4] * 1000))
        assert client.stop(20)
        # three records stand for 976 dropped ones, too
        first, *others = posts(server)
        server.check_overload(first, 1000 - 24)
        assert all(record["sampleRate"] == 400 for post in others for record in post.records)
        assert len(server.records) == 24
        balanced(client)
        server.verify()


def test_rate_of_nothing() -> None:
    with serve(rate=0) as server:
        with connect(settings(server)) as client:
            assert client.send(flows(10), wait_s=60) == 0
            assert client.stats().dropped == 10
        assert "flow" not in server.routes()
        server.verify()


def test_replays_can_wait_for_room() -> None:
    """More than the queue holds, nothing lost, in order."""
    with serve(rate=1000) as server, connect(settings(server)) as client:
        sent = sum(client.send(flows(500, first=1 + i * 500), wait_s=30) for i in range(4))
        assert (sent, client.stats().dropped) == (2000, 0)
        assert client.stop(20)
        assert numbers(server) == list(range(1, 2001))
        server.verify()


def test_waiting_for_room_ends_with_the_sender() -> None:
    with serve(rate=10) as server, connect(settings(server)) as client:
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(client.send(flows(100), wait_s=60)))
        thread.start()
        until(lambda: client.stats().waiting)
        client.stop(3)
        thread.join(5)
        assert not thread.is_alive()
        balanced(client)
        assert client.stats().waiting == 0


def test_new_limits_keep_what_fits() -> None:
    errors = Errors()
    sender = FlowSender(lambda: Session(CREDENTIALS), "http://127.0.0.1:9/", device(rate=10), errors)
    one, two = (native_batch(flows(n)) for n in (50, 30))
    assert (sender.send(one), sender.send(two)) == (50, 30)
    sender.resize(5)
    assert (sender.stats().waiting, sender.stats().dropped) == (40, 40)
    sender.resize(100)
    assert (sender.stats().waiting, sender.send(two)) == (40, 30)
    sender.resize(0)
    assert (sender.stats().waiting, sender.stats().dropped) == (0, 110)


def test_device_s_sample_rate() -> None:
    with serve(device_sample=20, sample=20) as server:
        with connect(settings(server)) as client:
            assert client.sample_rate == 20
        with connect(settings(server, sample=0)) as client:
            assert client.sample_rate == 1


def test_failures_are_told_and_not_repeated(server: KentikServer) -> None:
    """500 and 400 in turn: the client goes on, and each batch is either there or lost (point 18)."""
    server.faults["flow"].extend([Fault("status", 500), Fault("status", 400), None] * 2)
    with connect(settings(server)) as client:
        for i in range(6):
            client.send(flows(3, first=1 + 3 * i))
            until(lambda i=i: server.routes()["flow"] == i + 1 and client.stats().waiting == 0)
        texts = client.errors.take()
        assert client.errors.take() == []
        stats = client.stats()
        assert (stats.posted, stats.failed, stats.dropped) == (6, 12, 0)
        balanced(client)
    url = flow_url(server.flow_url, device())
    gave_up = f'Post "{url}": POST {url} giving up after 1 attempts'
    assert texts == [gave_up, "api: HTTP status code 400"] * 2
    assert numbers(server) == [7, 8, 9, 16, 17, 18]
    server.verify()


@pytest.mark.parametrize("status", [201, 204, 301, 401, 501])
def test_only_200_is_success(server: KentikServer, status: int) -> None:
    server.faults["flow"].append(Fault("status", status))
    with connect(settings(server)) as client:
        client.send(flows(1))
        until(lambda: client.stats().failed == 1)
        assert client.errors.take() == [f"api: HTTP status code {status}"]


@pytest.mark.parametrize("kind", ["reset", "close", "cut", "hang", "drip"])
def test_broken_posts_do_not_stop_the_sender(server: KentikServer, kind: str) -> None:
    server.faults["flow"].append(Fault(kind))
    pace = Pace(tick_s=TICK_S, metrics_s=60, refresh_s=1200, request_s=0.5)
    with connect(settings(server, pace=pace)) as client:
        client.send(flows(2))
        # a cut answer is an answer all the same: the status is what counts, but the library wants all of it
        until(lambda: client.stats().failed == 2)
        client.send(flows(2, first=10))
        until(lambda: len(server.records) == 2)
        (text,) = client.errors.take()
        url = flow_url(server.flow_url, device())
        assert text.startswith(f'Post "{url}": POST {url} giving up after 1 attempts: ')
        balanced(client)
    # what may have arrived is not sent again
    assert server.routes()["flow"] == 2
    server.verify()


def test_two_posts_at_a_time(server: KentikServer) -> None:
    """While both workers wait, ticks are lost and records stay in the queue."""
    server.faults["flow"].extend([Fault("hang"), Fault("hang")])
    pace = Pace(tick_s=0.02, metrics_s=60, refresh_s=1200, request_s=1)
    server.tick_s = 0.02
    with connect(settings(server, pace=pace)) as client:
        for i in range(3):
            client.send(flows(1, first=i + 1))
            until(lambda i=i: server.routes()["flow"] == min(i + 1, 2))
        assert client.stats().waiting == 3
        until(lambda: client.stats().failed == 2)
        until(lambda: len(server.records) == 1)
        balanced(client)


def test_connection_that_was_never_made_is_tried_once_more() -> None:
    """Nothing can have arrived, so nothing can arrive twice."""
    with serve() as server:
        errors = Errors()
        tried: list[str] = []

        class Flaky(Session):
            def send(self, method: str, url: str, *arguments: Any, **keywords: Any) -> Any:
                tried.append(url)
                if len(tried) == 1:
                    url = "http://127.0.0.1:9/"
                return super().send(method, url, *arguments, **keywords)

        sender = FlowSender(lambda: Flaky(CREDENTIALS), server.flow_url, device(1000), errors, tick_s=0.05)
        sender.start()
        sender.send(native_batch(flows(5)))
        assert sender.stop(10)
        assert (len(tried), sender.stats().posted, errors.total) == (2, 5, 0)
        server.verify()


def test_errors_are_bounded() -> None:
    errors = Errors()
    for i in range(250):
        errors.add(f"{i}")
    assert (errors.total, errors.take()) == (250, [str(i) for i in range(100)])


def test_stop_flushes_several_batches() -> None:
    with serve(rate=500) as server:
        client = connect(settings(server))
        client.send(flows(300))
        assert client.stop(20)
        assert client.stop(20)
        assert numbers(server) == list(range(1, 301))
        assert client.send(flows(1)) == 0
        balanced(client)
        server.verify()


def test_stop_keeps_its_time_limit(server: KentikServer) -> None:
    server.faults["flow"].extend([Fault("hang")] * 9)
    client = connect(settings(server))
    client.send(flows(3))
    began = time.monotonic()
    assert not client.stop(0.7)
    assert time.monotonic() - began < 3
    balanced(client)


def test_stop_while_unreachable() -> None:
    with serve() as server:
        client = connect(settings(server))
    client.send(flows(3))
    began = time.monotonic()
    client.stop(5)
    assert time.monotonic() - began < 5
    assert client.stats().failed == 3
    assert client.errors.total == 1


def test_everything_through_a_proxy() -> None:
    with serve(proxied=True) as server:
        names = [url.replace(server.url, "http://kentik.test") for url in settings(server).endpoints]
        pace = Pace(TICK_S, 0.2, 1200, 10)
        with connect(settings(server, endpoints=Endpoints(*names), proxy=server.url, pace=pace)) as client:
            client.send(flows(3))
            until(lambda: server.metric_posts and server.records)
            server.mode = "dns"
            assert client.dns().send([DnsResponse("a.test", bytes(4), [(bytes(4), 1)])])
            until(lambda: server.dns_posts)
            server.mode = "radius"
            assert client.tags().send([("bob", "10.1.2.3")], [])
            until(lambda: server.tag_posts)
        assert {seen.headers["host"] for seen in server.requests} == {"kentik.test"}
        server.verify()


def test_environment_s_proxy_is_for_dns_and_tags_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """kprobe.md 9.5: honoured there, and only there, when no proxy is given."""
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve() as server, serve(mode="dns", proxied=True) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        urls = settings(server).endpoints
        named = urls._replace(dns="http://kentik.test/x")
        with connect(settings(server, endpoints=named)) as client:
            assert client.send(flows(1)) == 1
            assert client.dns().send([DnsResponse("a.test", bytes(4), [(bytes(4), 1)])])
        proxy.mode = "radius"
        with connect(settings(server, endpoints=urls)) as client:
            client.settings = settings(server, endpoints=urls._replace(api="http://kentik.test/api/internal"))
            assert client.tags().send([], ["bob"])
        assert (len(server.records), len(proxy.dns_posts), len(proxy.tag_posts)) == (1, 1, 1)
        assert {seen.headers["host"] for seen in proxy.requests} == {"kentik.test"}
        assert set(server.routes()) == {"device", "flow"}
        server.verify()
        proxy.verify()


def test_random_records_survive(server: KentikServer) -> None:
    """Many hand-overs of many sizes, from two threads; sums are what they were."""
    rng = random.Random(3)
    sizes = [rng.randrange(1, 60) for _ in range(60)]
    with connect(settings(server)) as client:

        def hand_over(mine: list[int]) -> None:
            for size in mine:
                client.send(flows(size, first=size))

        threads = [threading.Thread(target=hand_over, args=(part,)) for part in (sizes[:30], sizes[30:])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.stop(15)
    packets = sum(sum(range(size, 2 * size)) for size in sizes)
    assert server.totals() == (packets, 100 * sum(sizes))
    server.verify()


# DNS


RESPONSE = DnsResponse("example.com", bytes([10, 0, 0, 52]), [(bytes([192, 0, 2, 1]), 299)])


def test_dns_document_s_example() -> None:
    assert encode_dns([RESPONSE]).hex() == (
        "82a85175657374696f6e82a44e616d65ab6578616d706c652e636f6da4486f7374c4040a000034a7416e73776572739184a44e"
        "616d65a0a5434e414d45a0a24950c404c0000201a354544ccd012b"
    )
    # no address, no record (D23)
    assert encode_dns([RESPONSE._replace(answers=[])]) == b""


def test_dns_is_message_pack_of_any_size() -> None:
    """Names, numbers and lists at the borders of MessagePack's forms, as msgpack reads and writes them."""
    for size in (0, 1, 31, 32, 255, 256, 70_000):
        for ttl in (0, 127, 128, 255, 256, 65535, 65536, (1 << 32) - 1):
            for count in (1, 15, 16, 300):
                answers = [(bytes(16), ttl)] * count
                packed = encode_dns(
                    [DnsResponse("é"[: size % 2] + "x" * (size - size % 2), bytes(4), answers)]
                )
                document = msgpack.unpackb(packed)
                assert [a["TTL"] for a in document["Answers"]] == [ttl] * count
                assert len(document["Question"]["Name"]) == size
                assert msgpack.packb(document) == packed


@pytest.fixture
def dns_server() -> Iterator[KentikServer]:
    with serve(mode="dns") as running:
        yield running


def dns_sender(server: KentikServer, errors: Errors, tick_s: float = TICK_S) -> DnsSender:
    sender = DnsSender(
        Session(CREDENTIALS, total_s=5),
        server.dns_url + "/some/path?query",
        errors,
        tick_s=tick_s,
        backoff=Backoff(1, 0.02),
    )
    sender.start()
    return sender


def test_dns_responses_arrive_together(dns_server: KentikServer) -> None:
    """Ten hand-overs, one post, not before the tick, and none after it; the URL's path is not used."""
    errors = Errors()
    began = time.monotonic()
    sender = dns_sender(dns_server, errors, tick_s=0.4)
    for i in range(10):
        assert sender.send([RESPONSE._replace(name=f"{i}.test", answers=[(bytes(16), i << 20)])])
    assert sender.send([RESPONSE._replace(answers=[])])
    until(lambda: dns_server.dns_posts)
    assert dns_server.requests[0].when - began > 0.35
    assert sender.stop(5)
    (post,) = dns_server.dns_posts
    assert [response["Question"]["Name"] for response in post] == [f"{i}.test" for i in range(10)]
    assert [response["Answers"][0]["TTL"] for response in post] == [i << 20 for i in range(10)]
    assert (sender.accepted, sender.posted, sender.dropped, sender.failed) == (10, 10, 0, 0)
    assert errors.total == 0
    dns_server.verify()


def test_dns_names_from_the_wire(dns_server: KentikServer) -> None:
    errors = Errors()
    sender = dns_sender(dns_server, errors)
    assert sender.send([RESPONSE._replace(name="caf\udce9.test"), RESPONSE._replace(name="")])
    assert sender.stop(5)
    assert sender.posted == 2
    dns_server.verify()


@pytest.mark.parametrize(
    ("faults", "attempts", "good"),
    [
        ([Fault("status", 500)] * 3, 4, True),
        ([Fault("status", 503)] * 4, 4, False),
        ([Fault("reset"), Fault("close")], 3, True),
        ([Fault("status", 400)], 1, False),
        ([Fault("status", 401)], 1, False),
        ([Fault("status", 301)], 1, False),
        ([Fault("status", 204)], 1, False),
    ],
)
def test_dns_retries(dns_server: KentikServer, faults: list[Fault], attempts: int, good: bool) -> None:
    dns_server.faults["dns"].extend(faults)
    errors = Errors()
    sender = dns_sender(dns_server, errors)
    sender.send([RESPONSE])
    until(lambda: sender.posted + sender.failed)
    assert sender.stop(5)
    assert dns_server.routes()["dns"] == attempts
    assert (sender.posted, sender.failed) == ((1, 0) if good else (0, 1))
    assert errors.total == (not good)
    dns_server.verify()


def test_dns_queue_is_bounded(dns_server: KentikServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netprobe.kentik.dns.QUEUE_RESPONSES", 5)
    errors = Errors()
    sender = dns_sender(dns_server, errors, tick_s=0.3)
    assert [sender.send([RESPONSE, RESPONSE]) for _ in range(4)] == [True, True, False, False]
    until(lambda: sender.posted)
    assert sender.send([RESPONSE])
    assert sender.stop(5)
    assert (sender.accepted, sender.dropped, sender.posted) == (5, 4, 5)
    dns_server.verify()


def test_dns_large_batches_go_at_once(dns_server: KentikServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netprobe.kentik.dns.POST_BYTES", 1000)
    monkeypatch.setattr("netprobe.kentik.dns.CHUNK", 20)
    errors = Errors()
    sender = dns_sender(dns_server, errors, tick_s=60)
    sender.send([RESPONSE] * 50)
    until(lambda: len(dns_server.dns_posts) == 2)
    assert sender.stop(5)
    assert [len(post) for post in dns_server.dns_posts] == [20, 20, 10]


def test_dns_stop_keeps_its_limit(dns_server: KentikServer) -> None:
    dns_server.faults["dns"].extend([Fault("hang")] * 9)
    errors = Errors()
    sender = dns_sender(dns_server, errors)
    sender.send([RESPONSE])
    began = time.monotonic()
    sender.stop(0.5)
    assert time.monotonic() - began < 2


def test_stand_in_refuses_flows_in_dns_mode(dns_server: KentikServer) -> None:
    """The oracle itself: it does complain."""
    with connect(settings(dns_server)) as client:
        client.send(flows(1))
    with pytest.raises(AssertionError, match=r"\[20\] flows in this mode"):
        dns_server.verify()


# tags


def test_tags_document_s_example() -> None:
    assert encode_tags(TagRequest([("bob", "10.1.2.3")], [])) == (
        b'{"replace_all":false,"complete":true,"ttl_minutes":0,'
        b'"upserts":[{"value":"bob","criteria":[{"addr":["10.1.2.3"]}]}]}'
    )
    assert json.loads(encode_tags(TagRequest([], ["bob"]))) == {
        "replace_all": False,
        "complete": True,
        "ttl_minutes": 0,
        "deletes": [{"value": "bob"}],
    }


def tag_sender(server: KentikServer, errors: Errors) -> TagSender:
    sender = TagSender(Session(CREDENTIALS, total_s=5), server.api_url, errors, backoff=Backoff(1, 0.02))
    sender.start()
    return sender


@pytest.fixture
def radius_server() -> Iterator[KentikServer]:
    with serve(mode="radius") as running:
        yield running


def test_tags_arrive_in_order(radius_server: KentikServer) -> None:
    errors = Errors()
    sender = tag_sender(radius_server, errors)
    assert sender.send([("bob", "10.1.2.3"), ("änne", "2001:db8::1")], [])
    assert sender.send([], [])  # nothing to say, nothing said (D22)
    assert sender.send([("carl", "10.1.2.4")], ["bob"])
    assert sender.stop(5)
    first, second = radius_server.tag_posts
    assert [entry["value"] for entry in first["upserts"]] == ["bob", "änne"]
    assert (second["upserts"][0]["value"], second["deletes"]) == ("carl", [{"value": "bob"}])
    assert (sender.accepted, sender.posted, sender.failed, errors.total) == (2, 2, 0, 0)
    radius_server.verify()


@pytest.mark.parametrize(
    ("faults", "attempts", "text"),
    [
        ([Fault("status", 500)] * 2, 3, None),
        ([Fault("status", 500)] * 3, 3, "tags: HTTP status code 500"),
        ([Fault("status", 401)], 1, "tags: api: HTTP status code 401"),
        ([Fault("status", 400, body=b'{"error": "no"}')], 1, "tags: api: no (400)"),
        ([Fault("garbage")], 1, "tags: api: no message and guid in the answer"),
        ([Fault("status", 200, body=b'{"message": "x"}')], 1, "tags: api: no message and guid in the answer"),
    ],
)
def test_tag_failures(
    radius_server: KentikServer, faults: list[Fault], attempts: int, text: str | None
) -> None:
    radius_server.faults["tags"].extend(faults)
    errors = Errors()
    sender = tag_sender(radius_server, errors)
    sender.send([], ["bob"])
    until(lambda: sender.posted + sender.failed)
    assert sender.stop(5)
    assert radius_server.routes()["tags"] == attempts
    assert errors.take() == ([] if text is None else [text])


def test_tag_queue_is_bounded(radius_server: KentikServer) -> None:
    radius_server.faults["tags"].append(Fault("hang"))
    errors = Errors()
    sender = TagSender(Session(CREDENTIALS, total_s=5), radius_server.api_url, errors)
    results = [sender.send([], [str(i)]) for i in range(1026)]
    assert (results.count(False), sender.accepted, sender.dropped) == (2, 1024, 2)


# metrics, status


def test_meter() -> None:
    """Worked by hand: ticks of 5 s, the first sets the rate."""
    now = 100.0
    meter = Meter(lambda: now)
    meter.add(50)
    assert meter.read() == (50, 0, 0)
    now = 105.0
    assert meter.read() == (50, 10, 10)
    meter.add(100)
    now = 110.1
    count, fast, slow = meter.read()
    assert count == 150
    assert fast == pytest.approx(10 + 0.07995558537067671 * 10)
    assert slow == pytest.approx(10 + 0.01652854617838251 * 10)
    now = 170.0
    _, later, _ = meter.read()
    assert later == pytest.approx(fast * (1 - 0.07995558537067671) ** 12)


def test_metrics() -> None:
    pace = Pace(tick_s=TICK_S, metrics_s=0.3, refresh_s=1200, request_s=5)
    # a batch of 10, and 80 may wait
    with serve(rate=100) as server:
        server.faults["metrics"].append(Fault("reset"))
        with connect(settings(server, pace=pace, program="kprobe", version="2.5.0-rc2")) as client:
            client.send(flows(100))
            until(lambda: client.stats().posted == 80)
            seen = len(server.metric_posts)
            until(lambda: len(server.metric_posts) > seen + 1)
            values = {
                entry["metric"]: entry["value"]
                for entry in server.metric_posts[-1]
                if entry["tags"]["type"] == "count"
            }
            assert values == {
                "chf.client_Total": 100,
                "chf.client_DownsampleFPS": 80,
                "chf.client_RateLimitDrops": 20,
                "chf.client_BytesSent": client.stats().bytes_sent,
            }
            sizes = [len(s.body) for s in server.requests if s.route == "flow"]
            assert sum(sizes) == client.stats().bytes_sent
        entry = server.metric_posts[-1][0]
        assert entry["tags"] == {
            "host": socket.gethostname(),
            "type": "count",
            "ver": "kprobe-2.5.0-rc2",
            "ft": "kprobe",
            "dt": "libkflow",
            "level": "primary",
            "cid": "1001",
            "did": "7",
        }
        server.verify()


def test_no_metrics_of_nothing(server: KentikServer) -> None:
    with connect(settings(server, pace=Pace(TICK_S, 0.02, 0.02, 5))):
        until(lambda: server.routes()["device"] > 10)
    assert not server.metric_posts
    server.verify()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def test_status() -> None:
    # a batch of 5, and 40 may wait
    with serve(rate=50) as server:
        with connect(settings(server, status_port=free_port())) as client:
            port = client.status_port
            assert server.check_status(port) == {
                "flows-in": {"count": 0, "1m.rate": 0, "5m.rate": 0},
                "flows-out": {"count": 0, "1m.rate": 0, "5m.rate": 0},
            }
            client.send(flows(60))
            until(lambda: client.stats().posted == 40)
            server.check_status(port, dropped=20)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status") as answer:
                assert answer.headers["Content-Type"] == "application/json"
                text = answer.read().decode()
            assert text == json.dumps(json.loads(text), indent=2) + "\n"
            for path in ("/", "/v1/status/", "/v1"):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}")
                assert (caught.value.code, caught.value.read()) == (404, b"404 page not found\n")
            for method in ("POST", "DELETE", "TRACE", "PROPFIND"):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/status", b"x", method=method)
                with urllib.request.urlopen(request) as answer:
                    assert answer.status == 200
        server.verify()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status", timeout=2)


def test_taken_status_port_does_not_stop_the_client(server: KentikServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with connect(settings(server, status_port=taken.getsockname()[1])) as client:
            client.send(flows(1))
            assert client.status_port == 0
        assert len(server.records) == 1


# the stand-in itself: it must be able to complain


@pytest.mark.parametrize(
    ("columns", "point"),
    [
        ({"in_pkts": [1], "in_bytes": [40]}, 13),
        ({"out_pkts": [0], "out_bytes": [0]}, 13),
        ({"src": ["0.0.0.0"], "dst": ["0.0.0.0"]}, 14),
    ],
)
def test_stand_in_sees_bad_records(server: KentikServer, columns: dict[str, Any], point: int) -> None:
    with connect(settings(server)) as client:
        client.send(flows(1, **columns))
    with pytest.raises(AssertionError, match=rf"^\[{point}\]"):
        server.verify()


def test_stand_in_sees_bad_requests(server: KentikServer) -> None:
    session = Session(CREDENTIALS)
    for path, body, point in (
        ("/chf?sid=0&sender_id=1:x:7", b"", 9),
        ("/chf?sender_id=1001%3Aprobe-1%3A7&sid=0", b"nonsense", 12),
        ("/nowhere", b"", 2),
        ("/dns", msgpack.packb({"Question": {}}), 20),
        ("/tsdb", b'[{"metric": 1}]', 22),
        ("/api/internal/device/", b'{"device": {}}', 5),
    ):
        server.problems.clear()
        session.send("POST", server.url + path, body, {"Content-Type": "application/json"})
        assert any(text.startswith(f"[{point}]") for text in server.problems), path
    session.close()


def test_stand_in_as_a_program(tmp_path: Path) -> None:
    """For clients in other namespaces: a report at SIGTERM, 1 when something was wrong."""
    script = Path(__file__).with_name("kentik_server.py")
    for packets, status in ((3, 0), (0, 1)):
        report = tmp_path / "report.json"
        command = [sys.executable, str(script), "--report", str(report), "--rate", "1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            base = f"http://127.0.0.1:{int(program.stdout.readline())}"
            urls = Endpoints(f"{base}/api/internal", f"{base}/chf", f"{base}/tsdb", f"{base}/dns")
            mine = Settings(CREDENTIALS, endpoints=urls, device_name="probe-1", pace=Pace(tick_s=0.05))
            with connect(mine) as client:
                client.send(flows(1, out_pkts=[packets]))
            program.terminate()
            assert program.wait(20) == status
        document = json.loads(report.read_text())
        assert (document["packets"], document["bytes"], len(document["records"])) == (packets, 100, 1)
        assert bool(document["problems"]) == bool(status)


def test_sending_needs_neither_msgpack_nor_pycapnp_nor_numpy() -> None:
    """pycapnp is in the extra, for reading messages back, and says so."""
    code = """
import sys
sys.modules.update(dict.fromkeys(("msgpack", "capnp", "numpy")))
from netprobe.errors import ConfigError
from netprobe.kentik import Records
from netprobe.kentik.dns import DnsResponse, encode
from netprobe.kentik.kflow import encode as encode_flows, load_schema
from netprobe.kentik.records import native_batch
assert len(encode_flows([(native_batch(Records(1, {"src": ["10.0.0.1"]})), 0, 1)], 7)) > 30
assert len(encode([DnsResponse("a.test", bytes(4), [(bytes(4), 1)])])) > 30
try:
    load_schema()
except ConfigError as error:
    assert "netprobe-suite[kentik]" in str(error)
else:
    raise SystemExit("no complaint")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

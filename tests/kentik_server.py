"""A stand-in for Kentik: device API, flow, metrics, DNS and tag endpoints on loopback, as strict as can be.

What arrives is decoded and checked against the 24 points of kflow-wire.md section 6; every violation becomes
a line in `problems` that begins with the point's number. Points about what the client does afterwards (its
exit code, sums over a capture) are for the test to assert, with what is collected here. Answers can be made
to go wrong: see Fault. It also acts as an HTTP proxy: requests in absolute form are answered as if they were
for it.

    with KentikServer([DeviceSpec(7, "probe-1")]) as server:
        ... server.api_url, server.flow_url ...
        server.verify()

    python tests/kentik_server.py --report FILE      runs until SIGTERM, for clients in other namespaces
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import ipaddress
import json
import re
import signal
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.request
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import capnp
import msgpack

SCHEMA = Path(__file__).resolve().parents[1] / "netprobe" / "kentik" / "kflow.capnp"
KFLOW = capnp.load(str(SCHEMA))

EMAIL = "probe@example.test"
TOKEN = "0123456789abcdef0123456789abcdef"

NO_APP = 4294967295
TEXT_MAX = 384
CLIENT_ID_BYTES = 80

#: kprobe.md 10.1
COLUMN_NAMES = [
    "FRAGMENTS",
    "APPL_LATENCY_MS",
    "FPEX_LATENCY_MS",
    "CLIENT_NW_LATENCY_MS",
    "SERVER_NW_LATENCY_MS",
    "RETRANSMITTED_OUT_PKTS",
    "REPEATED_RETRANSMITS",
    "OOORDER_IN_PKTS",
    "RECEIVE_WINDOW",
    "ZERO_WINDOWS",
    "CONNECTION_ID",
    "APP_PROTOCOL",
    "INT00",
    "INT01",
    "INT02",
    "INT03",
    "INT04",
    "INT05",
    "STR00",
    "STR01",
    "STR02",
    "STR03",
    "INET_00",
    "INET_01",
    "INET_02",
]
NAMED_TEXT = [
    "KFLOW_DNS_QUERY",
    "KFLOW_DNS_RESPONSE",
    "KFLOW_HTTP_URL",
    "KFLOW_HTTP_HOST",
    "KFLOW_HTTP_REFERER",
    "KFLOW_HTTP_UA",
    "DHCP_CH_ADDR",
    "DHCP_HOSTNAME",
    "DHCP_DOMAIN",
    "RADIUS_USER_NAME",
    "RADIUS_ACCT_SESSION_ID",
]
NAMED_ADDR = [
    "DHCP_CI_ADDR",
    "DHCP_YI_ADDR",
    "DHCP_SI_ADDR",
    "RADIUS_FRAMED_IP_ADDR",
    "RADIUS_FRAMED_IP_MASK",
]
NAMED_U32 = [
    "KFLOW_DNS_QUERY_TYPE",
    "KFLOW_DNS_RET_CODE",
    "KFLOW_HTTP_STATUS",
    "TLS_SERVER_VERSION",
    "TLS_CIPHER_SUITE",
    "DHCP_OP",
    "DHCP_MSG_TYPE",
    "DHCP_LEASE",
    "RADIUS_CODE",
    "RADIUS_SERVICE_TYPE",
    "RADIUS_FRAMED_PROTO",
    "RADIUS_ACCT_STATUS",
]


def generic_columns() -> list[tuple[int, str, str]]:
    """Id, name, type of the generation that shares columns between decoders."""
    kinds = {"STR": "string", "INE": "inet"}
    return [(i + 1, name, kinds.get(name[:3], "uint32")) for i, name in enumerate(COLUMN_NAMES)]


def named_columns() -> list[tuple[int, str, str]]:
    """The older generation: one column per field, no APP_PROTOCOL."""
    common = list(COLUMN_NAMES[:11])
    kinds = [(name, "uint32") for name in (*common, *NAMED_U32)]
    kinds += [(name, "string") for name in NAMED_TEXT] + [(name, "inet") for name in NAMED_ADDR]
    return [(100 + i, name, kind) for i, (name, kind) in enumerate(kinds)]


@dataclass
class DeviceSpec:
    """A registered device. `numbers`: JSON numbers where the API has strings, which clients should accept."""

    id: int
    name: str
    company: int = 1001
    ips: tuple[str, ...] = ()
    sample_rate: int = 1
    max_flow_rate: int = 4000
    columns: list[tuple[int, str, str]] = field(default_factory=generic_columns)
    interfaces: list[dict[str, Any]] = field(default_factory=list)
    numbers: bool = False

    def document(self) -> dict[str, Any]:
        def number(value: int) -> Any:
            return value if self.numbers else str(value)

        return {
            "id": number(self.id),
            "device_name": self.name,
            "device_type": "host-nprobe-dns-www",
            "device_subtype": "kprobe",
            "device_description": "",
            "ip": self.ips[0] if self.ips else "",
            "device_sample_rate": number(self.sample_rate),
            "device_bgp_type": "none",
            "plan": {"id": 5, "name": "a plan"},
            "cdn_attr": "N",
            "max_flow_rate": self.max_flow_rate,
            "company_id": number(self.company),
            "unknown_key": {"is": ["ignored"]},
            "custom_column_data": [
                {"field_id": number(i), "col_name": name, "col_type": kind} for i, name, kind in self.columns
            ],
        }


class Fault(NamedTuple):
    """How the next answer goes wrong.

    status: that code, `body` in place of the answer, with a Location if there is one. hang: no answer before
    the server ends. drip: a header line a byte at a time, for ever. reset: TCP RST in place of an answer.
    close: FIN in place of an answer. slow: the true answer after `seconds`. garbage: 200 with bytes that mean
    nothing. cut: half an answer.
    """

    kind: str
    status: int = 500
    seconds: float = 0.5
    body: bytes = b""
    location: str = ""


class Seen(NamedTuple):
    """A request."""

    route: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    when: float
    fault: Fault | None


class FlowPost(NamedTuple):
    """A message for the flow endpoint that was answered 200."""

    when: float
    device: DeviceSpec
    records: list[dict[str, Any]]


def unpack(data: bytes) -> bytes:
    """Undo Cap'n Proto packing (capnproto.org/encoding.html), written from that description."""
    out = bytearray()
    at = 0
    while at < len(data):
        tag = data[at]
        at += 1
        if tag == 0:
            out += bytes(8 * (data[at] + 1))
            at += 1
            continue
        word = bytearray(8)
        for bit in range(8):
            if tag >> bit & 1:
                word[bit] = data[at]
                at += 1
        out += word
        if tag == 0xFF:
            run = 8 * data[at]
            if at + 1 + run > len(data):
                raise IndexError
            out += data[at + 1 : at + 1 + run]
            at += 1 + run
    return bytes(out)


class KentikServer:
    """`tick_s`: the client's, to judge its pace. `sample`: N of --sample. `mode`: flow, dns or radius.

    `proxied`: every request must come through the proxy. `allow_unauthorized`: wrong credentials are
    expected.
    """

    def __init__(
        self,
        devices: Iterable[DeviceSpec] = (),
        *,
        email: str = EMAIL,
        token: str = TOKEN,
        sample: int = 1,
        mode: str = "flow",
        tick_s: float = 1.0,
        proxied: bool = False,
        allow_unauthorized: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        plans: dict[int, int] | None = None,
        compress: bool = True,
    ) -> None:
        self.devices = list(devices)
        self.email, self.token = email, token
        self.sample, self.mode, self.tick_s = sample, mode, tick_s
        self.proxied, self.allow_unauthorized, self.compress = proxied, allow_unauthorized, compress
        #: plan id -> max_flow_rate of devices that are created with it
        self.plans = plans or {5: 4000}
        self.problems: list[str] = []
        self.requests: list[Seen] = []
        self.flow_posts: list[FlowPost] = []
        self.dns_posts: list[list[dict[str, Any]]] = []
        self.tag_posts: list[dict[str, Any]] = []
        self.metric_posts: list[list[dict[str, Any]]] = []
        self.interface_puts: list[dict[str, Any]] = []
        self.unauthorized = 0
        self.scheme = "http"
        #: route -> faults of the next requests, in order; None: an ordinary answer
        self.faults: defaultdict[str, deque[Fault | None]] = defaultdict(deque)
        self.ending = threading.Event()
        self._unfetched: set[int] = set()
        self._bodies: set[bytes] = set()
        self._lock = threading.RLock()
        outer = self

        class Handler(_Handler):
            server_state = outer

        self._http = ThreadingHTTPServer((host, port), Handler)
        self._http.daemon_threads = True
        self.host, self.port = host, int(self._http.server_address[1])
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def use_tls(self, context: ssl.SSLContext) -> None:
        """From now on; before the first request."""
        # the handshake is the connection's thread's affair
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.scheme = "https"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/internal"

    @property
    def flow_url(self) -> str:
        return f"{self.url}/chf"

    @property
    def metrics_url(self) -> str:
        return f"{self.url}/tsdb"

    @property
    def dns_url(self) -> str:
        return f"{self.url}/dns"

    def __enter__(self) -> KentikServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._http.shutdown()
        self._http.server_close()

    # what was collected

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of all posts that were answered 200, in order of arrival."""
        return [record for post in self.flow_posts for record in post.records]

    def totals(self) -> tuple[int, int]:
        """Packets and L3 bytes over all records (point 19)."""
        records = self.records
        return (
            sum(record["inPkts"] + record["outPkts"] for record in records),
            sum(record["inBytes"] + record["outBytes"] for record in records),
        )

    def routes(self) -> Counter[str]:
        return Counter(seen.route for seen in self.requests)

    def verify(self) -> None:
        """AssertionError with every violation found so far."""
        with self._lock:
            problems = list(self.problems)
            problems += [
                f"[5] device {number} was not fetched after its creation" for number in self._unfetched
            ]
            if self.unauthorized and not self.allow_unauthorized:
                problems.append(f"[1] {self.unauthorized} requests with wrong credentials")
        assert not problems, "\n".join(problems)

    def check_overload(self, post: FlowPost, dropped: int) -> None:
        """Point 17: the first batch after drops stands for itself and for them."""
        total = sum(record["sampleRate"] for record in post.records) / 100
        wanted = self.sample * (len(post.records) + dropped)
        # each record is cut to a whole hundredth
        if not wanted * (1 - 1e-6) - len(post.records) / 100 <= total <= wanted * (1 + 1e-6):
            self.problem(17, f"rates add up to {total}, not {wanted}")

    def check_status(self, port: int, dropped: int = 0, host: str = "127.0.0.1") -> dict[str, Any]:
        """Point 23, after everything has arrived: the counts agree with the records received and dropped."""
        with urllib.request.urlopen(f"http://{host}:{port}/v1/status", timeout=5) as answer:
            document: dict[str, Any] = json.load(answer)
        if list(document) != ["flows-in", "flows-out"]:
            self.problem(23, f"keys {list(document)}")
        for name, entry in document.items():
            if list(entry) != ["count", "1m.rate", "5m.rate"] or not isinstance(entry["count"], int):
                self.problem(23, f"{name}: {entry}")
        received = len(self.records)
        counts = document["flows-in"]["count"], document["flows-out"]["count"]
        if counts != (received + dropped, received):
            self.problem(23, f"counts {counts}, received {received}, dropped {dropped}")
        return document

    def problem(self, point: int, text: str) -> None:
        with self._lock:
            self.problems.append(f"[{point}] {text}")

    def expect(self, good: bool, point: int, text: str) -> bool:
        if not good:
            self.problem(point, text)
        return good

    # what the endpoints do: each returns status, JSON document (None: no body)

    def lookup(self, key: str) -> DeviceSpec | None:
        """Point 3: by id, by name with underscores, by address."""
        for device in self.devices:
            if key in (str(device.id), device.name.replace(".", "_"), *device.ips):
                return device
        with contextlib.suppress(ValueError):
            wanted = ipaddress.ip_address(key)
            return next(
                (d for d in self.devices if wanted in [ipaddress.ip_address(ip) for ip in d.ips]), None
            )
        return None

    def get_device(self, key: str) -> tuple[int, Any]:
        self.expect("%" not in key, 3, f"look-up of {key} is escaped")
        device = self.lookup(unquote(key))
        if device is None:
            self.expect("." not in key or _is_ip(key), 3, f"look-up by the name {key} has dots")
            return 404, {"error": "no such device"}
        self._unfetched.discard(device.id)
        return 200, {"device": device.document()}

    def create_device(self, body: bytes) -> tuple[int, Any]:
        """Point 5: fields, JSON types, values of 1.5."""
        document = json.loads(body)
        device = document.get("device") if isinstance(document, dict) else None
        if not self.expect(
            isinstance(device, dict) and list(document) == ["device"], 5, "no object `device`"
        ):
            return 400, {"error": "no device"}
        fixed = {
            "device_type": "host-nprobe-dns-www",
            "device_subtype": "kprobe",
            "device_sample_rate": "1",
            "device_bgp_type": "none",
            "cdn_attr": "N",
        }
        for key, value in fixed.items():
            self.expect(device.get(key) == value, 5, f"{key} is {device.get(key)!r}, not {value!r}")
        name, description = device.get("device_name"), device.get("device_description")
        self.expect(
            isinstance(name, str) and isinstance(description, str) and name == description.replace(".", "_"),
            5,
            f"device_name {name!r}, device_description {description!r}",
        )
        known = {*fixed, "device_name", "device_description", "sending_ips", "plan_id", "site_id"}
        self.expect(set(device) <= known, 5, f"keys {set(device) - known}")
        for key in ("plan_id", "site_id"):
            good = key not in device or (type(device[key]) is int and device[key] > 0)
            self.expect(good, 5, f"{key} is {device.get(key)!r}")
        addresses = device.get("sending_ips")
        good = isinstance(addresses, list) and len(addresses) == 1 and _is_ip(addresses[0])
        if not self.expect(
            good and "plan_id" in device, 6, f"creation with {addresses!r}, {device.get('plan_id')!r}"
        ):
            return 400, {"error": "incomplete"}
        if device["plan_id"] not in self.plans:
            return 400, {"error": "invalid plan"}
        number = max((d.id for d in self.devices), default=100) + 1
        made = DeviceSpec(
            number, str(name), ips=tuple(addresses), max_flow_rate=self.plans[device["plan_id"]]
        )
        self.devices.append(made)
        self._unfetched.add(number)
        answer = made.document()
        del answer["custom_column_data"]
        return 201, {"device": answer}

    def put_interfaces(self, device: DeviceSpec, body: bytes) -> tuple[int, Any]:
        """Point 7: the entries of 1.7."""
        document = json.loads(body)
        self.interface_puts.append(document)
        self.expect(isinstance(document, dict) and 1 <= len(document) <= 2, 7, f"{len(document)} interfaces")
        for name, entry in document.items():
            keys = {"index", "alias", "desc", "speed", "type", "address", "netmask", "alias_address"}
            if not self.expect(set(entry) == keys, 7, f"{name}: keys {sorted(entry)}"):
                continue
            good = (
                isinstance(entry["index"], str) and entry["index"].isdigit() and int(entry["index"]) < 65536
            )
            self.expect(good and entry["alias"] == "" and entry["desc"] == name, 7, f"{name}: {entry}")
            self.expect(entry["speed"] == 0 and entry["type"] == 0, 7, f"{name}: speed or type")
            others = entry["alias_address"]
            pairs = [entry, *(others or [])] if name != "kernel" else []
            for pair in pairs:
                good = _is_ip(pair["address"]) and _is_ip(pair["netmask"])
                self.expect(good, 7, f"{name}: {pair['address']!r}/{pair['netmask']!r}")
            if name == "kernel":
                good = (entry["index"], entry["address"], entry["netmask"], others) == ("0", "", "", None)
                self.expect(good, 7, f"kernel: {entry}")
            device.interfaces.append(
                {
                    "id": str(len(device.interfaces) + 1),
                    "snmp_id": entry["index"],
                    "snmp_alias": entry["alias"],
                    "interface_description": entry["desc"],
                    "interface_ip": entry["address"],
                    "interface_ip_netmask": entry["netmask"],
                    "secondary_ips": others,
                }
            )
        return 200, {}

    def take_flows(self, seen: Seen) -> tuple[int, Any]:
        """Points 9 to 16."""
        self.expect(self.mode == "flow", {"dns": 20, "radius": 21}.get(self.mode, 20), "flows in this mode")
        query = parse_qsl(seen.query, keep_blank_values=True)
        values = dict(query)
        self.expect([k for k, _ in query] == sorted(values), 9, f"query {seen.query}")
        self.expect(values.get("sid") == "0", 9, f"sid {values.get('sid')!r}")
        sender = values.get("sender_id", "")
        device = next((d for d in self.devices if f"{d.company}:{d.name}:{d.id}" == sender), None)
        if not self.expect(device is not None, 9, f"sender_id {sender!r}") or device is None:
            return 400, {"error": "who?"}
        kind, coding = seen.headers.get("content-type"), seen.headers.get("content-encoding")
        self.expect(kind == "application/binary", 10, f"Content-Type {kind!r}")
        self.expect(coding == "gzip", 10, f"Content-Encoding {coding!r}")
        try:
            records = self.decode(seen.body)
        except (zlib.error, struct.error, ValueError, IndexError, RuntimeError) as error:
            self.problem(12, f"body not decodable: {error}")
            return 400, {"error": "what?"}
        for record in records:
            self.check_record(record, device)
        self.expect(
            len(records) <= device.max_flow_rate * self.tick_s,
            16,
            f"{len(records)} records, {device.max_flow_rate}/s",
        )
        self.flow_posts.append(FlowPost(seen.when, device, records))
        recent = [post.when for post in self.flow_posts if seen.when - post.when < 3 * self.tick_s]
        # a batch at the stop goes out at once, a slow one arrives beside the next
        self.expect(len(recent) <= 6, 16, f"{len(recent)} requests within {3 * self.tick_s} s")
        return 200, None

    def decode(self, body: bytes) -> list[dict[str, Any]]:
        """Points 10 to 12."""
        inflate = zlib.decompressobj(31)
        plain = inflate.decompress(body)
        self.expect(inflate.eof and not inflate.unused_data, 10, "not exactly one gzip member")
        self.expect(len(plain) > CLIENT_ID_BYTES and not any(plain[:CLIENT_ID_BYTES]), 11, "no 80 zeros")
        message = unpack(plain[CLIENT_ID_BYTES:])
        segments, *_ = struct.unpack_from("<I", message)
        table = 4 * (segments + 2) + (4 if segments % 2 else 0)
        words = sum(struct.unpack_from(f"<{segments + 1}I", message, 4))
        self.expect(len(message) == table + 8 * words, 12, "bytes behind the message")
        with KFLOW.PackedCHF.from_bytes(message, traversal_limit_in_words=1 << 28) as root:
            records: list[dict[str, Any]] = [record.to_dict() for record in root.msgs]
        self.expect(bool(records), 12, "no records")
        return records

    def check_record(self, record: dict[str, Any], device: DeviceSpec) -> None:
        """Points 13 to 15."""
        self.expect(record["deviceId"] == device.id, 13, f"deviceId {record['deviceId']}")
        self.expect(record["sampleAdj"] is True, 13, "sampleAdj")
        self.expect(record["sampleRate"] >= 100 * self.sample, 13, f"sampleRate {record['sampleRate']}")
        self.expect(record["timestamp"] == 0 and record["timestampNano"] == 0, 13, "time stamps")
        self.expect(record["appProtocol"] != NO_APP, 13, "appProtocol was not written")
        inward, outward = (record["inPkts"], record["inBytes"]), (record["outPkts"], record["outBytes"])
        counted = [pair for pair in (inward, outward) if any(pair)]
        good = len(counted) == 1 and counted[0][0] >= 1 and counted[0][1] >= 1
        self.expect(good, 13, f"in {inward}, out {outward}")
        v4 = record["ipv4SrcAddr"], record["ipv4DstAddr"]
        v6 = record.get("ipv6SrcAddr"), record.get("ipv6DstAddr")
        if any(v6):
            good = v4 == (0, 0) and all(data is not None and len(data) == 16 for data in v6)
        else:
            good = any(v4)  # 0.0.0.0 is a DHCP client's address
        self.expect(good, 14, f"addresses {v4}, {v6}")
        offered = {number: kind for number, _, kind in device.columns}
        for custom in record.get("custom", ()):
            ((member, value),) = custom["value"].items()
            kind = offered.get(custom["id"])
            wanted = {"string": "strVal", "inet": "addrVal", "addr": "addrVal", "uint32": "uint32Val"}
            if not self.expect(kind is not None, 15, f"column {custom['id']} was not offered"):
                continue
            self.expect(
                member == wanted.get(kind or ""), 15, f"column {custom['id']} of type {kind}: {member}"
            )
            self.expect(custom.get("isDimension") is False, 15, "isDimension is set")
            if member == "strVal":
                self.expect(len(value.encode()) <= TEXT_MAX, 15, f"text of {len(value.encode())} bytes")
            if member == "addrVal":
                good = len(value) == 17 and value[0] in (4, 6) and (value[0] == 6 or not any(value[5:]))
                self.expect(good, 15, f"address {value.hex()}")

    def take_dns(self, seen: Seen) -> tuple[int, Any]:
        """Point 20."""
        self.expect(self.mode == "dns", 20, "DNS records in this mode")
        self.expect(not seen.query, 2, f"query {seen.query}")
        self.expect("content-type" not in seen.headers, 20, "a Content-Type")
        self.expect("content-encoding" not in seen.headers, 20, "a Content-Encoding")
        reader = msgpack.Unpacker(raw=False, strict_map_key=True, max_buffer_size=len(seen.body) + 1)
        reader.feed(seen.body)
        responses: list[dict[str, Any]] = []
        try:
            responses.extend(reader)
        except (ValueError, msgpack.UnpackException) as error:
            self.problem(20, f"body is no MessagePack: {error}")
        self.expect(
            reader.tell() == len(seen.body) and bool(responses), 20, "not a sequence of complete maps"
        )
        for response in responses:
            try:
                question, answers = response["Question"], response["Answers"]
                good = list(response) == ["Question", "Answers"] and list(question) == ["Name", "Host"]
                good = (
                    good
                    and isinstance(question["Name"], str)
                    and _is_packed(question["Host"])
                    and bool(answers)
                )
                for answer in answers:
                    good = (
                        good and list(answer) == ["Name", "CNAME", "IP", "TTL"] and _is_packed(answer["IP"])
                    )
                    good = good and answer["Name"] == answer["CNAME"] == ""
                    good = good and type(answer["TTL"]) is int and 0 <= answer["TTL"] < 1 << 32
            except (KeyError, TypeError):
                good = False
            self.expect(good, 20, f"response {response}")
        self.dns_posts.append(responses)
        return 200, None

    def take_tags(self, seen: Seen) -> tuple[int, Any]:
        """Point 21."""
        self.expect(self.mode == "radius", 21, "tags in this mode")
        document = json.loads(seen.body)
        head = {"replace_all": False, "complete": True, "ttl_minutes": 0}
        good = {key: document.get(key) for key in head} == head
        order = [key for key in (*head, "upserts", "deletes") if key in document]
        self.expect(good and list(document) == order, 21, f"keys {list(document)}")
        upserts, deletes = document.get("upserts"), document.get("deletes")
        self.expect(bool(upserts or deletes) and upserts != [] and deletes != [], 21, "nothing to do")
        for entry in upserts or []:
            criteria = entry.get("criteria")
            good = (
                list(entry) == ["value", "criteria"]
                and isinstance(entry["value"], str)
                and len(criteria) == 1
            )
            good = good and list(criteria[0]) == ["addr"] and len(criteria[0]["addr"]) == 1
            self.expect(good and _is_ip(criteria[0]["addr"][0]), 21, f"upsert {entry}")
        for entry in deletes or []:
            self.expect(list(entry) == ["value"] and isinstance(entry["value"], str), 21, f"delete {entry}")
        self.tag_posts.append(document)
        return 200, {"message": "accepted", "guid": "00000000-0000-0000-0000-000000000000"}

    def take_metrics(self, seen: Seen) -> tuple[int, Any]:
        """Point 22."""
        document = json.loads(seen.body)
        if not self.expect(isinstance(document, list) and bool(document), 22, "no array"):
            return 200, None
        names = {f"chf.client_{n}" for n in ("Total", "DownsampleFPS", "RateLimitDrops", "BytesSent")}
        for entry in document:
            self.expect(set(entry) == {"metric", "timestamp", "value", "tags"}, 22, f"keys {sorted(entry)}")
            good = entry.get("metric") in names and type(entry.get("value")) is int and entry["value"] > 0
            tags = entry.get("tags", {})
            wanted = {"host", "type", "ver", "ft", "dt", "level", "cid", "did"}
            good = good and set(tags) == wanted and all(isinstance(v, str) for v in tags.values())
            good = good and tags["type"] in ("count", "one-minute") and tags["dt"] == "libkflow"
            self.expect(good and abs(entry["timestamp"] - time.time()) < 3600, 22, f"metric {entry}")
        self.metric_posts.append(document)
        return 200, None


def _is_ip(text: Any) -> bool:
    try:
        ipaddress.ip_address(text if isinstance(text, str) else "")
    except ValueError:
        return False
    return True


def _is_packed(data: Any) -> bool:
    return isinstance(data, bytes) and len(data) in (4, 16)


class _Handler(BaseHTTPRequestHandler):
    server_state: KentikServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # clients that give up are a part of the game
            super().handle()

    def route(self) -> None:
        state = self.server_state
        parts = urlsplit(self.path)
        if state.proxied:
            state.expect(bool(parts.scheme), 24, f"{self.command} {self.path} past the proxy")
        length = self.headers.get("Content-Length")
        if self.command in ("POST", "PUT"):
            state.expect(length is not None, 2, "no Content-Length")
        body = self.rfile.read(int(length)) if length is not None else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        name, argument = self.find(parts.path)
        fault = state.faults[name].popleft() if state.faults[name] else None
        seen = Seen(name, self.command, parts.path, parts.query, headers, body, time.monotonic(), fault)
        with state._lock:
            state.requests.append(seen)
            status, document = self.decide(seen, argument)
        if fault is not None and self.misbehave(fault):
            return
        self.answer(status, document)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = route

    def find(self, path: str) -> tuple[str, str]:
        """Point 2: the route's name, and what its path holds."""
        for method, pattern, name in (
            ("GET", r"/api/internal/device/([^/]+)", "device"),
            ("POST", r"/api/internal/device/()", "create"),
            ("GET", r"/api/internal/device/([^/]+)/interfaces", "interfaces"),
            ("PUT", r"/api/internal/company/(\d+/device/\d+)/tags/snmp", "update"),
            ("POST", r"/api/internal/batch/customdimensions/kt_user/populators()", "tags"),
            ("POST", r"/chf()", "flow"),
            ("POST", r"/tsdb()", "metrics"),
            ("POST", r"/dns()", "dns"),
        ):
            found = re.fullmatch(pattern, path)
            if found and method == self.command:
                return name, found.group(1)
        return "unknown", ""

    def decide(self, seen: Seen, argument: str) -> tuple[int, Any]:
        state = self.server_state
        if (seen.headers.get("x-ch-auth-email"), seen.headers.get("x-ch-auth-api-token")) != (
            state.email,
            state.token,
        ):
            state.unauthorized += 1
            return 401, {"error": "unauthorized"}
        repeatable = seen.route in ("device", "interfaces", "metrics")
        digest = hashlib.sha256(seen.route.encode() + seen.body).digest()
        if not repeatable and seen.route in ("flow", "create"):
            state.expect(digest not in state._bodies, 18, f"{seen.route}: the same body again")
            state._bodies.add(digest)
        if seen.fault is not None and seen.fault.kind != "slow":
            return 200, None
        json_routes = ("device", "create", "interfaces", "update", "tags", "metrics")
        if seen.route in json_routes:
            kind = seen.headers.get("content-type")
            state.expect(kind == "application/json", 2, f"{seen.route}: Content-Type {kind!r}")
        try:
            return self.dispatch(seen, argument)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            state.problem(2, f"{seen.route}: {type(error).__name__}: {error}")
            return 400, {"error": "bad request"}

    def dispatch(self, seen: Seen, argument: str) -> tuple[int, Any]:
        state = self.server_state
        match seen.route:
            case "device":
                return state.get_device(argument)
            case "create":
                return state.create_device(seen.body)
            case "interfaces":
                device = state.lookup(argument)
                return (404, {"error": "no device"}) if device is None else (200, device.interfaces)
            case "update":
                company, _, number = argument.partition("/device/")
                device = state.lookup(number)
                if device is None or str(device.company) != company:
                    state.problem(2, f"interfaces of {argument}")
                    return 404, {"error": "no device"}
                return state.put_interfaces(device, seen.body)
            case "flow":
                return state.take_flows(seen)
            case "dns":
                return state.take_dns(seen)
            case "tags":
                return state.take_tags(seen)
            case "metrics":
                return state.take_metrics(seen)
        state.problem(2, f"{seen.method} {seen.path}")
        return 404, {"error": "no such path"}

    def answer(self, status: int, document: Any) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        if document is not None:
            self.send_header("Content-Type", "application/json")
            if self.server_state.compress and "gzip" in self.headers.get("Accept-Encoding", ""):
                body = gzip.compress(body)
                self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def misbehave(self, fault: Fault) -> bool:
        """True when nothing more is to be answered."""
        state = self.server_state
        match fault.kind:
            case "slow":
                state.ending.wait(fault.seconds)
                return False
            case "status":
                self.send_response(fault.status)
                if fault.location:
                    self.send_header("Location", fault.location)
                self.send_header("Content-Length", str(len(fault.body)))
                self.end_headers()
                self.wfile.write(fault.body)
            case "garbage":
                self.send_response(200)
                self.send_header("Content-Length", "9")
                self.end_headers()
                self.wfile.write(b"\x00\xff{[<!%\r\n")
            case "hang":
                state.ending.wait()
            case "drip":
                with contextlib.suppress(OSError):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
                    while not state.ending.wait(0.05):
                        self.wfile.write(b"x")
                        self.wfile.flush()
            case "cut":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                self.close_connection = True
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            case "close":
                self.close_connection = True
            case other:
                raise AssertionError(f"no such fault: {other}")
        if fault.kind in ("hang", "drip"):
            self.close_connection = True
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--report", type=Path, required=True, help="JSON with everything collected, at SIGTERM"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", default="flow", choices=("flow", "dns", "radius"))
    parser.add_argument("--device", default="probe-1")
    parser.add_argument("--ip", action="append", default=[])
    parser.add_argument("--rate", type=int, default=1_000_000, help="max_flow_rate")
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--named", action="store_true", help="named columns in place of generic ones")
    args = parser.parse_args()
    ended = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    columns = named_columns() if args.named else generic_columns()
    device = DeviceSpec(7, args.device, ips=tuple(args.ip), max_flow_rate=args.rate, columns=columns)
    with KentikServer([device], host=args.host, port=args.port, mode=args.mode, sample=args.sample) as server:
        print(server.port, flush=True)
        ended.wait()
        packets, size = server.totals()
        report = {
            "problems": server.problems,
            "unauthorized": server.unauthorized,
            "packets": packets,
            "bytes": size,
            "records": server.records,
            "dns": server.dns_posts,
            "tags": server.tag_posts,
            "metrics": server.metric_posts,
            "interfaces": server.interface_puts,
            "requests": dict(server.routes()),
        }
    args.report.write_text(json.dumps(report, default=lambda data: bytes(data).hex()))
    sys.exit(1 if report["problems"] or report["unauthorized"] else 0)


if __name__ == "__main__":
    main()

"""kprobe against the letter of its specification: what a second reader found missing in the other tests."""

from __future__ import annotations

import copy
import gzip
import http.client
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from kentik_server import EMAIL, KFLOW, TOKEN, DeviceSpec, KentikServer, generic_columns, named_columns
from scapy.all import DNS, DNSQR, DNSRR, IP, TCP, UDP, Raw, fragment, wrpcap
from test_kentik_api import settings
from test_kprobe_cli import CAPTURES, kprobe

from netprobe import flows
from netprobe.kentik import DeviceNotFound, connect
from netprobe.kentik.api import Device, DeviceApi
from netprobe.kentik.client import find_device
from netprobe.kentik.columns import Column, CustomColumns
from netprobe.kentik.flows import flow_url
from netprobe.kentik.records import Field


def test_a_name_is_never_taken_for_an_address() -> None:
    """9.1: by name, dots become underscores, whatever the name looks like."""
    with KentikServer([DeviceSpec(7, "x", ips=("192.0.2.7",)), DeviceSpec(8, "192.0.2.7")]) as server:
        chosen = settings(server, device_name="192.0.2.7")
        api = DeviceApi(chosen.session(), server.api_url)
        assert find_device(api, chosen, None).id == 8
        assert find_device(api, settings(server, device_ip="192.0.2.7", device_name="x"), None).id == 7
        with pytest.raises(DeviceNotFound):
            find_device(api, settings(server, device_name="192.0.2.8"), None)
        assert [seen.path.rpartition("/")[2] for seen in server.requests] == [
            "192_0_2_7",
            "192.0.2.7",
            "192_0_2_8",
        ]
        server.verify()


@pytest.mark.parametrize("key", ["device_sample_rate", "max_flow_rate", "custom_column_data"])
def test_null_is_as_good_as_absent(key: str) -> None:
    document: dict[str, Any] = {**DeviceSpec(7, "probe-1").document(), key: None}
    device = Device.parse(document)
    del document[key]
    absent = Device.parse(document)
    assert (device.sample_rate, device.max_flow_rate) == (absent.sample_rate, absent.max_flow_rate)
    assert not device.columns.columns or key != "custom_column_data"


def test_no_connection_to_the_api_is_kept_open() -> None:
    """The next look-up is 20 minutes away; a server that takes one connection at a time is free for flows."""
    with KentikServer([DeviceSpec(7, "probe-1")]) as server:
        with connect(settings(server)) as client:
            port = server.port.to_bytes(2).hex().upper()
            deadline = time.monotonic() + 10

            def kept() -> list[str]:
                rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
                return [row[1] for row in rows if row[2].endswith(f":{port}") and row[3] == ESTABLISHED]

            while kept() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert kept() == []
            # and the session goes on with a new one
            client.refresh()
            assert client.device.id == 7
        assert server.routes()["device"] == 2
        server.verify()


def test_parameters_of_the_flow_url_are_kept_but_ours_count() -> None:
    device = Device.parse(DeviceSpec(7, "a b/\u00fc").document())
    url = flow_url("https://flow.example/chf?z=1&sid=9&a=&sender_id=x&z=0", device)
    query = "a=&sender_id=1001%3Aa+b%2F%C3%BC%3A7&sid=0&z=1&z=0"
    assert url == f"https://flow.example/chf?{query}"


@pytest.mark.parametrize(
    ("name", "kind", "written"),
    [
        ("STR01", "string", "text"),
        ("STR01", "", "text"),
        ("STR01", "uint32", "u32"),
        ("RADIUS_FRAMED_PROTO", "", "u32"),
        ("RADIUS_FRAMED_PROTO", "uint32", "u32"),
        ("RADIUS_FRAMED_PROTO", "string", "text"),
    ],
)
def test_framed_protocol_is_the_only_number_that_may_become_text(name: str, kind: str, written: str) -> None:
    """D4; otherwise kprobe decides a value's type, whatever type the API says (kflow-wire 1.3)."""
    offered = generic_columns() if name == "STR01" else named_columns()
    columns = CustomColumns(Column(i, n, kind if n == name else "string") for i, n, _ in offered)
    fields = {"RADIUS_FRAMED_PROTO": Field([7]), "RECEIVE_WINDOW": Field([9]), "RADIUS_CODE": Field([4])}
    assert {
        entry.kind for entry in columns.bind(fields) if entry.id != columns.id_of("RADIUS_FRAMED_PROTO")
    } == {"u32"}
    (framed,) = columns.bind({"RADIUS_FRAMED_PROTO": Field([7])})
    assert framed.kind == written


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--read", CAPTURES / "icmp.pcap", "--device-name", "\udcff"], "--device-name: is not valid UTF-8"),
        (["--read", CAPTURES / "icmp.pcap", "--filter", "\udcff"], "--filter: is not valid UTF-8"),
        (["--read", CAPTURES / "icmp.pcap", "--translate", "\udcff,::"], "--translate: is not valid UTF-8"),
        (["-i", "\udcff"], "--interface: is not valid UTF-8"),
        (["--read", ""], "--read: the name of a file is needed"),
    ],
)
def test_texts_are_utf_8(flags: list[str | Path], complaint: str) -> None:
    """1.2; but files may have any name."""
    assert kprobe("--export", "null", *flags, code=1).stderr.startswith(f"Error: {complaint}")


@pytest.mark.parametrize("program", ["kprobe", "pktvisor_pcap", "pktvisord", "pktvisor_cli"])
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_that_cannot_be_printed(program: str, flag: str) -> None:
    """Every program: one line for a full disk, none for a reader that has gone."""
    command = [sys.executable, "-m", f"netprobe.cli.{program}", flag]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode and "standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    gone = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (gone.returncode, gone.stderr) == (-signal.SIGPIPE, "")


def test_ports_of_flow_mode_have_no_effect_in_the_others() -> None:
    flags = (
        "--read",
        CAPTURES / "demo.pcap",
        "--export",
        "null",
        "--dns-port",
        "5353",
        "--radius-port",
        "1645",
    )
    said = [kprobe(*flags, *mode).stderr for mode in ([], ["--dns"], ["--radius"])]
    assert [text.count("has no effect") for text in said] == [0, 2, 1]
    assert "--dns-port (in radius mode) has no effect" in said[2]


def test_files_may_have_any_name(tmp_path: Path) -> None:
    odd = tmp_path / "\udcff.jsonl"
    kprobe("--read", CAPTURES / "icmp.pcap", "--export", "jsonl", "--output", odd)
    assert odd.read_bytes().startswith(b"{")


def test_a_late_packet_does_not_take_the_window_along(tmp_path: Path) -> None:
    """D15: final values reach the record, also when a FIN is repeated after the connection has ended."""
    client, server = IP(src="192.0.2.1", dst="192.0.2.2"), IP(src="192.0.2.2", dst="192.0.2.1")
    to, back = {"sport": 4000, "dport": 22}, {"sport": 22, "dport": 4000}
    packets = [
        client / TCP(**to, flags="S", seq=0, window=100, options=[("WScale", 1)]),
        server / TCP(**back, flags="SA", seq=0, ack=1, window=200, options=[("WScale", 2)]),
        client / TCP(**to, flags="A", seq=1, ack=1, window=300),
        client / TCP(**to, flags="FA", seq=1, ack=1, window=301),
        server / TCP(**back, flags="FA", seq=1, ack=2, window=400),
        client / TCP(**to, flags="A", seq=2, ack=2, window=302),
        server / TCP(**back, flags="FA", seq=1, ack=2, window=401),
    ]
    path = tmp_path / "x.pcap"
    for i, packet in enumerate(packets):
        packet.time = 1_700_000_000 + i / 100
    wrpcap(str(path), packets, linktype=101)
    records = [json.loads(line) for line in kprobe("--read", path, "--export", "jsonl").stdout.splitlines()]
    assert [r["out_window"] for r in records if r["sport"] == 22] == [400 << 2]
    assert [r["out_window"] for r in records if r["sport"] == 4000][-1] == 301 << 1


def test_parquet_replaces_files_alone(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")

    def export(place: Path, code: int = 0) -> str:
        flags = ("--read", CAPTURES / "icmp.pcap", "--export", "parquet", "--output", place)
        return kprobe(*flags, code=code).stderr

    (tmp_path / "folder").mkdir()
    assert "folder: is a directory" in export(tmp_path / "folder", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    export(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes()[:4] == b"PAR1"
    device = os.makedev(1, 3)
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, device)
        (tmp_path / "null").write_bytes(b"x")
    except PermissionError:
        pass  # not root, or no devices in this file system: the rest of the test has been done
    else:
        export(tmp_path / "null")
        assert (tmp_path / "null").is_char_device()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "null") == [
        "folder",
        "link",
        "real",
    ]


# the stand-in is what the other tests trust: each of its points must be able to fail


def test_stand_in_takes_what_is_right() -> None:
    with KentikServer([DeviceSpec(7, "probe-1")]) as server:
        for route in REQUESTS:
            server.mode = MODES.get(route, "flow")
            assert ask(server, route) in (200, 201), route
            assert not server.problems, server.problems
        server._unfetched.clear()
        server.verify()


#: a state of /proc/net/tcp
ESTABLISHED = "01"

Edit = Callable[[Any], Any]

#: route -> method, path, headers beside the credentials, body
REQUESTS: dict[str, tuple[str, str, dict[str, str], Callable[[], bytes]]] = {
    "device": ("GET", "/api/internal/device/probe-1", {"Content-Type": "application/json"}, bytes),
    "create": (
        "POST",
        "/api/internal/device/",
        {"Content-Type": "application/json"},
        lambda: json.dumps({"device": NEW}).encode(),
    ),
    "update": (
        "PUT",
        "/api/internal/company/1001/device/7/tags/snmp",
        {"Content-Type": "application/json"},
        lambda: json.dumps({"eth0": INTERFACE}).encode(),
    ),
    "flow": (
        "POST",
        "/chf?sender_id=1001%3Aprobe-1%3A7&sid=0",
        {"Content-Type": "application/binary", "Content-Encoding": "gzip"},
        lambda: flow_body(),
    ),
    "dns": ("POST", "/dns", {}, lambda: msgpack.packb(ANSWER)),
    "tags": (
        "POST",
        "/api/internal/batch/customdimensions/kt_user/populators",
        {"Content-Type": "application/json"},
        lambda: json.dumps(TAGS).encode(),
    ),
    "metrics": ("POST", "/tsdb", {"Content-Type": "application/json"}, lambda: json.dumps([METRIC]).encode()),
}
MODES = {"dns": "dns", "tags": "radius"}

NEW: dict[str, Any] = {
    "device_name": "a_b",
    "device_type": "host-nprobe-dns-www",
    "device_subtype": "kprobe",
    "device_description": "a.b",
    "device_sample_rate": "1",
    "device_bgp_type": "none",
    "plan_id": 5,
    "site_id": 9,
    "cdn_attr": "N",
    "sending_ips": ["192.0.2.1"],
}
INTERFACE: dict[str, Any] = {
    "index": "513",
    "alias": "",
    "desc": "eth0",
    "speed": 0,
    "type": 0,
    "address": "192.0.2.1",
    "netmask": "255.255.255.0",
    "alias_address": None,
}
ANSWER: dict[str, Any] = {
    "Question": {"Name": "a.example", "Host": bytes(4)},
    "Answers": [{"Name": "", "CNAME": "", "IP": bytes(4), "TTL": 9}],
}
TAGS: dict[str, Any] = {
    "replace_all": False,
    "complete": True,
    "ttl_minutes": 0,
    "upserts": [{"value": "bob", "criteria": [{"addr": ["10.1.2.3"]}]}],
    "deletes": [{"value": "eve"}],
}
METRIC: dict[str, Any] = {
    "metric": "chf.client_Total",
    "timestamp": int(time.time()),
    "value": 3,
    "tags": {
        "host": "h",
        "type": "count",
        "ver": "kprobe-1",
        "ft": "kprobe",
        "dt": "libkflow",
        "level": "primary",
        "cid": "1001",
        "did": "7",
    },
}
RECORD: dict[str, Any] = {
    "deviceId": 7,
    "sampleAdj": True,
    "sampleRate": 100,
    "outPkts": 1,
    "outBytes": 40,
    "ipv4SrcAddr": 1,
    "ipv4DstAddr": 2,
    "appProtocol": 0,
    "custom": [{"id": 19, "value": {"strVal": "x"}}, {"id": 23, "value": {"addrVal": b"\4" + bytes(16)}}],
}


def flow_body(
    *, zeros: bytes = bytes(80), behind: bytes = b"", outside: bytes = b"", count: int = 1, **changes: Any
) -> bytes:
    message = KFLOW.PackedCHF.new_message(msgs=[{**RECORD, **changes}] * count)
    return gzip.compress(zeros + message.to_bytes_packed() + behind) + outside


def ask(
    server: KentikServer,
    route: str,
    *,
    method: str | None = None,
    path: str | None = None,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    token: str = TOKEN,
) -> int:
    plain = REQUESTS[route]
    connection = http.client.HTTPConnection(server.host, server.port)
    sent = {"X-CH-Auth-Email": EMAIL, "X-CH-Auth-API-Token": token, **(headers or plain[2])}
    content = plain[3]() if body is None else body
    connection.request(method or plain[0], path or plain[1], content or None, sent)
    status = connection.getresponse().status
    connection.close()
    return status


def document(route: str, change: Edit) -> dict[str, Any]:
    """A request with a body in which one thing is different."""
    base = {"create": {"device": NEW}, "update": {"eth0": INTERFACE}, "tags": TAGS, "metrics": [METRIC]}
    changed = copy.deepcopy(base[route])
    change(changed)
    return {"body": json.dumps(changed).encode()}


def answer(change: Edit) -> dict[str, Any]:
    changed = copy.deepcopy(ANSWER)
    change(changed)
    return {"body": msgpack.packb(changed)}


def custom(number: int, **value: Any) -> dict[str, Any]:
    return {"body": flow_body(custom=[{"id": number, "value": value}])}


BINARY = {"Content-Type": "application/binary", "Content-Encoding": "gzip"}
WRONG: list[tuple[int, str, dict[str, Any]]] = [
    (1, "device", {"token": "x"}),
    (1, "flow", {"token": ""}),
    (2, "device", {"headers": {"Content-Type": "text/plain"}}),
    (2, "device", {"method": "POST"}),
    (2, "update", {"method": "POST"}),
    (2, "update", {"path": "/api/internal/company/1002/device/7/tags/snmp"}),
    (2, "create", {"path": "/api/internal/device"}),
    (2, "tags", {"path": "/api/internal/batch/customdimensions/kt_users/populators"}),
    (3, "device", {"path": "/api/internal/device/a.b"}),
    (3, "device", {"path": "/api/internal/device/a%2Eb"}),
    (5, "create", document("create", lambda d: d.update(more=1))),
    (5, "create", document("create", lambda d: d["device"].update(device_name="a.b"))),
    (5, "create", document("create", lambda d: d["device"].update(plan_id="5"))),
    (5, "create", document("create", lambda d: d["device"].update(site_id="9"))),
    (5, "create", document("create", lambda d: d["device"].update(site_id=0))),
    (5, "create", document("create", lambda d: d["device"].update(device_sample_rate=1))),
    (5, "create", document("create", lambda d: d["device"].update(cloud_region=""))),
    (6, "create", document("create", lambda d: d["device"].pop("plan_id"))),
    (6, "create", document("create", lambda d: d["device"].update(sending_ips=[]))),
    (7, "update", document("update", lambda d: d["eth0"].update(index=513))),
    (7, "update", document("update", lambda d: d["eth0"].update(netmask="24/"))),
    (7, "update", document("update", lambda d: d["eth0"].update(speed="0"))),
    (7, "update", document("update", lambda d: d["eth0"].pop("alias_address"))),
    (7, "update", document("update", lambda d: d.update(kernel={**INTERFACE, "desc": "kernel"}))),
    (9, "flow", {"path": "/chf?sid=0&sender_id=1001%3Aprobe-1%3A7"}),
    (9, "flow", {"path": "/chf?sender_id=1001%3Aprobe-1%3A7&sid=1"}),
    (9, "flow", {"path": "/chf?sender_id=1001%3Aprobe_1%3A7&sid=0"}),
    (10, "flow", {"headers": {**BINARY, "Content-Type": "application/binary; x"}}),
    (10, "flow", {"headers": {"Content-Type": "application/binary"}}),
    (10, "flow", {"body": flow_body(outside=gzip.compress(b""))}),
    (10, "flow", {"body": flow_body(outside=b"x")}),
    (11, "flow", {"body": flow_body(zeros=bytes(79) + b"\1")}),
    (12, "flow", {"body": flow_body(zeros=bytes(79))}),
    (12, "flow", {"body": flow_body(behind=bytes(2))}),
    (12, "flow", {"body": flow_body(count=0)}),
    (10, "flow", {"body": flow_body()[:-9]}),
    (13, "flow", {"body": flow_body(deviceId=8)}),
    (13, "flow", {"body": flow_body(sampleAdj=False)}),
    (13, "flow", {"body": flow_body(sampleRate=99)}),
    (13, "flow", {"body": flow_body(timestamp=1)}),
    (13, "flow", {"body": flow_body(timestampNano=1)}),
    (13, "flow", {"body": flow_body(appProtocol=4294967295)}),
    (13, "flow", {"body": flow_body(inPkts=1, inBytes=40)}),
    (13, "flow", {"body": flow_body(outPkts=0, outBytes=0)}),
    (13, "flow", {"body": flow_body(outPkts=0)}),
    (14, "flow", {"body": flow_body(ipv6SrcAddr=b"\1" * 16, ipv6DstAddr=b"\1" * 16)}),
    (14, "flow", {"body": flow_body(ipv4SrcAddr=0, ipv4DstAddr=0, ipv6SrcAddr=b"\1" * 16)}),
    (
        14,
        "flow",
        {"body": flow_body(ipv4SrcAddr=0, ipv4DstAddr=0, ipv6SrcAddr=b"\1" * 4, ipv6DstAddr=b"\1" * 4)},
    ),
    (15, "flow", custom(99, uint32Val=1)),
    (15, "flow", custom(1, strVal="x")),
    (15, "flow", custom(19, strVal="x" * 385)),
    (15, "flow", custom(23, addrVal=bytes(17))),
    (15, "flow", custom(23, addrVal=b"\4" + bytes(4))),
    (15, "flow", custom(23, addrVal=b"\4" + bytes(15) + b"\1")),
    (16, "flow", {"body": flow_body(count=11)}),
    (20, "dns", {"headers": {"Content-Type": "application/msgpack"}}),
    (20, "dns", {"body": msgpack.packb(ANSWER)[:-1]}),
    (20, "dns", {"body": msgpack.packb([ANSWER])}),
    (20, "dns", answer(lambda a: a.update(Answers=[]))),
    (20, "dns", answer(lambda a: a["Question"].update(Host="1.2.3.4"))),
    (20, "dns", answer(lambda a: a["Answers"][0].update(IP=bytes(5)))),
    (20, "dns", answer(lambda a: a["Answers"][0].update(TTL="9"))),
    (20, "dns", answer(lambda a: a["Answers"][0].pop("CNAME"))),
    (21, "tags", document("tags", lambda d: d.update(ttl_minutes="0"))),
    (21, "tags", document("tags", lambda d: d.update(upserts=[]))),
    (21, "tags", document("tags", lambda d: d["upserts"][0].update(criteria=[]))),
    (21, "tags", document("tags", lambda d: d["upserts"][0]["criteria"][0].update(addr=["x"]))),
    (21, "tags", document("tags", lambda d: [d.pop(key) for key in ("upserts", "deletes")])),
    (22, "metrics", document("metrics", lambda d: d[0].update(value=1.5))),
    (22, "metrics", document("metrics", lambda d: d[0].update(value=0))),
    (22, "metrics", document("metrics", lambda d: d[0].update(metric="client_Total"))),
    (22, "metrics", document("metrics", lambda d: d[0]["tags"].pop("did"))),
    (22, "metrics", document("metrics", lambda d: d.clear())),
]


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[f"{w[0]}-{w[1]}-{i}" for i, w in enumerate(WRONG)])
def test_stand_in_sees_what_is_wrong(number: int) -> None:
    point, route, changes = WRONG[number]
    with KentikServer([DeviceSpec(7, "probe-1", max_flow_rate=10)], mode=MODES.get(route, "flow")) as server:
        ask(server, route, **changes)
        with pytest.raises(AssertionError) as complaint:
            server.verify()
    assert f"[{point}]" in str(complaint.value), complaint.value


def test_stand_in_sees_modes_proxies_and_repetitions() -> None:
    for mode, route, point in (("dns", "flow", 20), ("radius", "flow", 21), ("flow", "dns", 20)):
        with KentikServer([DeviceSpec(7, "probe-1")], mode=mode) as server:
            ask(server, route)
            assert any(text.startswith(f"[{point}]") for text in server.problems), (mode, route)
    with KentikServer([DeviceSpec(7, "probe-1")], proxied=True) as server:
        ask(server, "flow")
        assert server.problems and server.problems[0].startswith("[24]")
    with KentikServer([DeviceSpec(7, "probe-1")]) as server:
        body = flow_body()
        ask(server, "flow", body=body)
        ask(server, "flow", body=body)
        assert [text[:4] for text in server.problems] == ["[18]"]


def framed(kinds: bytes, packet: Any) -> bytes:
    """Ethernet, what stands between, an IP packet."""
    return bytes.fromhex("020000000002020000000001") + kinds + bytes(packet)


def test_only_ip_behind_vlan_tags_counts(tmp_path: Path) -> None:
    """3.3 with D34: MPLS, PPPoE, LLC and older QinQ are not counted; 802.1Q and 802.1ad tags are followed."""
    inner = (
        IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=53, dport=4000) / DNS(qr=1, qd=DNSQR(), an=DNSRR())
    )
    tagged = [
        b"\x08\0",
        b"\x81\0\0\5\x08\0",
        b"\x88\xa8\0\5\x81\0\xf0\6\x08\0",
        b"\x81\0\0\1" * 3 + b"\x08\0",
    ]
    others = [
        b"\x88\x47\0\0\x51\x40",  # MPLS
        b"\x81\0\0\5\x88\x47\0\0\x51\x40",
        b"\x91\0\0\5\x08\0",
        b"\x88\x64\x11\0\0\1" + (len(inner) + 2).to_bytes(2) + b"\0\x21",  # PPPoE
        (len(inner) + 8).to_bytes(2) + b"\xaa\xaa\3\0\0\0\x08\0",  # LLC with SNAP
    ]
    path = tmp_path / "x.pcap"
    wrpcap(str(path), [framed(kinds, inner) for kinds in (*tagged, *others)], linktype=1)
    records = [json.loads(line) for line in kprobe("--read", path, "--export", "jsonl").stdout.splitlines()]
    assert sum(record["out_pkts"] for record in records) == len(tagged)
    assert sum(record["out_bytes"] for record in records) == len(tagged) * len(inner)
    answers = kprobe("--read", path, "--export", "jsonl", "--dns").stdout.splitlines()
    assert len(answers) == len(tagged)
    # a notebook sees them all
    assert sum(int(chunk["out_pkts"].sum()) for chunk in flows(path)) == len(tagged) + len(others)


@pytest.mark.parametrize(("apart", "packets", "lost"), [(59, 3, 0), (61, 0, 3)])
def test_fragments_wait_for_a_minute(apart: int, packets: int, lost: int, tmp_path: Path) -> None:
    """3.8 and section 12: what is not whole then is not counted (D33)."""
    pieces = fragment(
        IP(src="192.0.2.1", dst="192.0.2.2", id=7) / UDP(sport=1, dport=2) / Raw(bytes(2000)), 800
    )
    for piece, stamp in zip(pieces, (1, 1, 1 + apart), strict=True):
        piece.time = stamp
    path = tmp_path / "x.pcap"
    wrpcap(str(path), pieces)
    done = kprobe("--read", path, "--export", "jsonl")
    assert sum(json.loads(line)["out_pkts"] for line in done.stdout.splitlines()) == packets
    assert f"{lost} fragments incomplete" in done.stderr

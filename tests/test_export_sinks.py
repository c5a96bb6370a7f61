"""Sinks one by one: IPFIX as tshark reads it, JSON lines, columns for Kentik, the thread between."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from export_batches import batch
from kentik_server import EMAIL, TOKEN, DeviceSpec, KentikServer
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw
from scapy.utils import wrpcap

from netprobe.export import Exporter, ExportError, FlowBatch, NullSink, ipfix
from netprobe.export.ipfix import IpfixSink
from netprobe.export.jsonl import JsonlSink
from netprobe.export.kentik import KentikSink, to_records
from netprobe.export.runs import Replay, carry
from netprobe.flow_columns import REASONS, SCHEMA
from netprobe.kentik import Credentials, Endpoints, Settings, connect
from netprobe.kentik.client import Pace

CAPTURES = Path(__file__).parent / "captures"
LATE = 1_700_000_000_123_456_789

FLOW = {
    "first": LATE,
    "last": LATE + 5_000_000_000,
    "sport": 1234,
    "dport": 443,
    "direction": 2,
    "out_pkts": 7,
    "out_bytes": 1 << 40,
    "out_tcp_flags": 0x1B,
    "out_tos": 0xB8,
    "out_retransmits": 3,
    "out_repeats": 1,
    "out_reordered": 2,
    "out_window": 65535,
    "out_zero_windows": 4,
    "client_nw_latency_ms": 5,
    "server_nw_latency_ms": 6,
    "fpex_latency_ms": 7,
    "connection_id": 0xDEADBEEF,
    "fragments": 9,
    "sample_rate": 10,
    "vlan": 100,
    "smac": "02:00:00:00:12:34",
    "dmac": "02:00:00:00:56:78",
    "app": 2,
}
# the same, towards the hosts
INWARDS = {
    **{name.replace("out_", "in_"): value for name, value in FLOW.items()},
    "direction": 0,
    "src": "192.0.2.1",
}
SIX = {**FLOW, "l3": 6, "src": "2001:db8::1", "dst": "2001:db8::2", "proto": 17, "out_tcp_flags": 0}


class Collector:
    """Datagrams that a sink sent, as a capture for tshark."""

    def __init__(self, send: Callable[[IpfixSink], None]) -> None:
        self.datagrams: list[bytes] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            receiver.bind(("127.0.0.1", 0))
            sink = IpfixSink("127.0.0.1", receiver.getsockname()[1])
            send(sink)
            sink.close(None)
            receiver.setblocking(False)
            while True:
                try:
                    self.datagrams.append(receiver.recv(65536))
                except BlockingIOError:
                    break

    def fields(self, path: Path, *names: str) -> list[dict[str, list[str]]]:
        """For each message the values of the fields, in order."""
        ends = {"src": "10.0.0.9", "dst": "10.0.0.8"}
        wrpcap(str(path), [IP(**ends) / UDP(sport=4739, dport=4739) / Raw(d) for d in self.datagrams])
        args = [
            x
            for name in ("_ws.malformed", *names)
            for x in ("-e", f"cflow.{name}" if name[0] != "_" else name)
        ]
        command = [
            "tshark",
            "-r",
            path,
            "-d",
            "udp.port==4739,cflow",
            "-T",
            "fields",
            "-E",
            "separator=|",
            *args,
        ]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = []
        for line in out.splitlines():
            malformed, *values = line.split("|")
            assert not malformed
            found.append({name: v.split(",") if v else [] for name, v in zip(names, values, strict=True)})
        return found


@pytest.mark.tool("tshark")
def test_ipfix_as_tshark_reads_it(tmp_path: Path) -> None:
    collector = Collector(lambda sink: sink.write(batch(FLOW, SIX, INWARDS)))
    names = ["version", "sequence", "srcaddr", "dstaddr", "srcaddrv6", "dstaddrv6", "srcport", "dstport"]
    names += ["protocol", "tos", "tcpflags", "packets", "octets", "vlanid", "sampling_interval"]
    names += ["srcmac", "dstmac", "abstimestart", "abstimeend", "flow_end_reason", "od_id"]
    health = {"client_nw_latency_ms": 5, "retransmitted_out_pkts": 3, "ooorder_in_pkts": 2}
    names += [f"pie.ntop.{name}" for name in health]
    templates, four, six = collector.fields(tmp_path / "x.pcap", *names)
    assert templates["version"] == four["version"] == six["version"] == ["10"]
    assert templates["sequence"] == four["sequence"] == ["0"]
    # data records before this message, the templates are none
    assert six["sequence"] == ["2"]
    assert four["srcaddr"] == ["10.0.0.1", "192.0.2.1"]
    assert four["dstaddr"] == ["10.0.0.2", "10.0.0.2"]
    assert six["srcaddrv6"] == ["2001:db8::1"]
    assert six["dstaddrv6"] == ["2001:db8::2"]
    for message, n in ((four, 2), (six, 1)):
        assert message["srcport"] == ["1234"] * n
        assert message["dstport"] == ["443"] * n
        assert [int(v, 0) for v in message["tos"]] == [0xB8] * n
        assert message["packets"] == ["7"] * n
        assert message["octets"] == [str(1 << 40)] * n
        assert message["vlanid"] == ["100"] * n
        assert message["sampling_interval"] == ["10"] * n
        assert message["srcmac"] == ["02:00:00:00:12:34"] * n
        assert message["dstmac"] == ["02:00:00:00:56:78"] * n
        assert message["od_id"] == ["1"]
        for name, value in health.items():
            assert message[f"pie.ntop.{name}"] == [str(value)] * n
        assert [int(v, 0) for v in message["flow_end_reason"]] == [4] * n
    assert four["protocol"] == ["6", "6"]
    assert six["protocol"] == ["17"]
    assert [int(v, 0) for v in four["tcpflags"]] == [0x1B, 0x1B]
    assert "22:13:20.123000000" in four["abstimestart"][-1] + four["abstimestart"][0]
    assert "22:13:25.123000000" in four["abstimeend"][-1] + four["abstimeend"][0]


@pytest.mark.tool("tshark")
def test_ipfix_many_records(tmp_path: Path) -> None:
    """Nothing doubled or lost at message ends; sequence numbers; templates again."""
    flows = [{**FLOW, "out_bytes": i + 1, "out_pkts": 1} for i in range(6000)]

    def send(sink: IpfixSink) -> None:
        sink.write(batch(*flows[:3500]))
        sink.write(batch(*flows[3500:]))

    collector = Collector(send)
    assert max(map(len, collector.datagrams)) <= 1400
    messages = collector.fields(tmp_path / "x.pcap", "sequence", "octets", "template_id")
    assert [int(v) for m in messages for v in m["octets"]] == list(range(1, 6001))
    seen = 0
    for message in messages:
        assert int(message["sequence"][0]) == seen
        seen += len(message["octets"])
    assert sum(message["template_id"][:2] == ["256", "257"] for message in messages) >= 2


@pytest.mark.tool("tshark")
def test_ipfix_carries_what_decoders_found(tmp_path: Path) -> None:
    """By ntop's elements, which tshark knows; wanted is what the JSON lines of the same records show."""
    wanted: list[dict[str, Any]] = []

    def send(sink: IpfixSink) -> None:
        lines = tmp_path / "x"
        plain = JsonlSink(str(lines))
        for name in ("app-http.pcap", "app-tls.pcap", "app-radius.pcap", "demo.pcap"):
            replay = Replay(str(CAPTURES / name), seed=1)
            for one in replay.batches():
                sink.write(one)
                plain.write(one)
            replay.close()
        plain.close(None)
        wanted.extend(json.loads(line) for line in lines.read_text().splitlines())

    collector = Collector(send)
    assert max(map(len, collector.datagrams)) <= 1400
    known = {
        "dns_query": "dns_query",
        "dns_query_type": "dns_query_type",
        "dns_ret_code": "dns_ret_code",
        "http_url": "http_url",
        "http_host": "http_host",
        "http_ret_code": "http_status",
        "ssl_server_name": "tls_server_name",
        "dhcp_client_ip": "dhcp_yi_addr",
        "dhcp_clien_name": "dhcp_hostname",
        "radius_user_name": "radius_user_name",
        "radius_framed_ip_addr": "radius_framed_ip_addr",
        "client_nw_latency_ms": "client_nw_latency_ms",
        "appl_latency_ms": "appl_latency_ms",
    }
    names = ["octets", *(f"pie.ntop.{name}" for name in known)]
    messages = collector.fields(tmp_path / "x.pcap", *names)
    assert sum(len(m["octets"]) for m in messages) == len(wanted)
    for element, column in known.items():
        got = Counter(v for m in messages for v in m[f"pie.ntop.{element}"] if v not in ("", "0"))
        # tshark takes these texts for ASCII
        values = (str(r[column]).encode().decode("ascii", "replace") for r in wanted if r.get(column))
        expected = Counter(p for v in values for p in v[:254].split(",") if p and p != "0")
        assert got == expected, column
        assert got or column == "dns_ret_code"


@pytest.mark.tool("tshark")
def test_ipfix_says_why_a_flow_ended(tmp_path: Path) -> None:
    """RFC 5102 5.11.3: 1 idle time-out, 2 active time-out, 4 forced end, 5 lack of resources."""
    wanted = {"idle": 1, "active": 2, "schedule": 2, "decoded": 2, "evicted": 5, "end": 4}
    flows = [{**FLOW, "reason": index} for index in range(len(REASONS))]
    collector = Collector(lambda sink: sink.write(batch(*flows)))
    _, message = collector.fields(tmp_path / "x.pcap", "flow_end_reason")
    assert [int(value, 0) for value in message["flow_end_reason"]] == [wanted[name] for name in REASONS]


def test_ipfix_templates_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a collector that began later, however little there is to send."""
    clock = SimpleNamespace(time=time.time)
    monkeypatch.setattr(ipfix, "time", clock)

    def send(sink: IpfixSink) -> None:
        for now in (1000.0, 1059.9, 1060.0, 1061.0):
            clock.monotonic = lambda now=now: now
            sink.write(batch(FLOW))

    # set 2 describes (RFC 7011 3.3.2)
    sets = [struct.unpack_from("!H", data, 16)[0] == 2 for data in Collector(send).datagrams]
    assert sets == [True, False, False, True, False, False]


def test_ipfix_texts_are_cut_at_a_character() -> None:
    assert ipfix.cut(b"x" * 254) == b"x" * 254
    assert ipfix.cut(b"x" * 255) == b"x" * 254
    assert ipfix.cut(b"x" * 253 + "é".encode() + b"y") == b"x" * 253


def test_ipfix_has_not_any_number_of_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipfix, "TEMPLATES_MOST", 2)
    collector = Collector(lambda sink: sink.write(batch(FLOW, SIX, {})))
    templates = collector.datagrams[0]
    assert struct.unpack_from("!HHHH", templates, 16)[2] == 256
    numbers = [struct.unpack_from("!H", data, 16)[0] for data in collector.datagrams]
    assert numbers == [2, 256, 257]


def test_ipfix_no_such_host() -> None:
    with pytest.raises(ExportError, match=r"no-such-host\.invalid:4739: "):
        IpfixSink("no-such-host.invalid", 4739)


def test_jsonl_has_the_schema(tmp_path: Path) -> None:
    target = tmp_path / "x"
    sink = JsonlSink(str(target))
    sink.write(batch(FLOW, SIX))
    sink.write(batch({"l3": 6, "src": "::1", "dst": "::ffff:1.2.3.4"}))
    sink.close(None)
    first, six, last = [json.loads(line) for line in target.read_text().splitlines()]
    assert list(first) == [column.name for column in SCHEMA]
    assert {name: first[name] for name in FLOW} == FLOW
    assert (first["src"], six["src"], last["src"]) == ("10.0.0.1", "2001:db8::1", "::1")
    assert last["dst"] == "::ffff:1.2.3.4"
    unknown = {column.name for column in SCHEMA if column.absent is not None}
    assert {name for name, value in last.items() if value is None} == unknown
    assert first["appl_latency_ms"] is None


def settings(server: KentikServer, **changes: Any) -> Settings:
    urls = Endpoints(server.api_url, server.flow_url, server.metrics_url, server.dns_url)
    pace = Pace(tick_s=0.1, request_s=10)
    return Settings(Credentials(EMAIL, TOKEN), urls, device_id=7, pace=pace, **changes)


def test_jsonl_without_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO named by a flag is a file like others; only standard output ends a program by a signal."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonlSink(str(fifo))
    monkeypatch.setattr(os, "dup", lambda fd: os.open(fifo, os.O_WRONLY))
    standard = JsonlSink("-")
    os.close(reader)
    with pytest.raises(ExportError, match=f"{fifo}: Broken pipe"):
        sink.write(batch({}))
    with pytest.raises(BrokenPipeError):
        standard.write(batch({}))
    sink.close(None)
    standard.close(None)


def test_kentik_records_as_the_stand_in_decodes_them() -> None:
    device = DeviceSpec(7, "probe-1", max_flow_rate=10_000)
    with KentikServer([device], tick_s=0.1, sample=10) as server:
        sink = KentikSink(connect(settings(server, sample=10)))
        sink.write(batch(FLOW, INWARDS, SIX))
        sink.close(None)
        server.verify()
        out, inwards, six = server.records
    assert (out["outPkts"], out["outBytes"], out["inPkts"], out["inBytes"]) == (7, 1 << 40, 0, 0)
    assert (inwards["inPkts"], inwards["inBytes"], inwards["outPkts"]) == (7, 1 << 40, 0)
    # kprobe.md 4.3: low bits of the source MAC going out, of the destination MAC coming in
    assert (out["outputPort"], out["inputPort"]) == (0x1234, 0)
    assert (inwards["outputPort"], inwards["inputPort"]) == (0, 0x5678)
    assert (out["vlanOut"], out["vlanIn"], inwards["vlanOut"], inwards["vlanIn"]) == (100, 0, 0, 100)
    for record in (out, inwards, six):
        assert record["srcEthMac"] == 0x020000001234
        assert record["dstEthMac"] == 0x020000005678
        assert record["tos"] == 0xB8
        assert record["sampleRate"] == 1000
        assert record["appProtocol"] == 2
    assert (out["tcpFlags"], inwards["tcpFlags"], six["tcpFlags"]) == (0x1B, 0x1B, 0)


def test_kentik_fields() -> None:
    """Every column of the tracker, from the side that the record has; what is not known is left out."""
    records = to_records(batch(FLOW, INWARDS, {}))
    want = {
        "FRAGMENTS": 9,
        "CONNECTION_ID": 0xDEADBEEF,
        "CLIENT_NW_LATENCY_MS": 5,
        "SERVER_NW_LATENCY_MS": 6,
        "FPEX_LATENCY_MS": 7,
        "RETRANSMITTED_OUT_PKTS": 3,
        "REPEATED_RETRANSMITS": 1,
        "OOORDER_IN_PKTS": 2,
        "RECEIVE_WINDOW": 65535,
        "ZERO_WINDOWS": 4,
    }
    assert {name: list(field.values)[:2] for name, field in records.fields.items()} == {
        name: [value, value] for name, value in want.items()
    }
    window = records.fields["RECEIVE_WINDOW"]
    assert list(window.present) == [1, 1, 0]
    assert not window.skip_zero
    assert all(f.skip_zero and f.values[2] == 0 for n, f in records.fields.items() if n != "RECEIVE_WINDOW")


def test_kentik_slow_device_gets_everything() -> None:
    """A replay waits for the device's limit instead of dropping."""
    device = DeviceSpec(7, "probe-1", max_flow_rate=2000)
    with KentikServer([device], tick_s=0.1) as server:
        sink = KentikSink(connect(settings(server, sample=1)))
        for i in range(5):
            sink.write(batch(*({"out_pkts": 1, "out_bytes": 40, "sport": 600 * i + j} for j in range(600))))
        sink.close(None)
        server.verify()
        assert server.totals() == (3000, 120_000)


def test_kentik_device_without_any_rate() -> None:
    with KentikServer([DeviceSpec(7, "probe-1", max_flow_rate=0)], tick_s=0.1) as server:
        sink = KentikSink(connect(settings(server)))
        with pytest.raises(ExportError, match="limit is 0"):
            sink.write(batch(FLOW))
        sink.abort()


class Slow(NullSink):
    """Waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.written: list[FlowBatch] = []
        self.threads: set[int] = set()
        self.aborted = False

    def write(self, batch: FlowBatch) -> None:
        self.threads.add(threading.get_ident())
        self.go.wait(20)
        self.written.append(batch)

    def abort(self) -> None:
        self.aborted = True
        self.go.set()


def test_exporter_keeps_order_and_encodes_elsewhere() -> None:
    sink = Slow()
    sink.go.set()
    prepared: list[FlowBatch] = []
    exporter = Exporter(sink, prepare=prepared.append)
    batches = [batch({"out_pkts": i}) for i in range(50)]
    for one in batches:
        exporter.put(one)
    exporter.finish()
    assert [b.numbers("out_pkts") for b in sink.written] == [[i] for i in range(50)]
    assert prepared == sink.written
    assert threading.get_ident() not in sink.threads


def test_exporter_ends_in_time_after_a_signal() -> None:
    sink = Slow()
    stopping = threading.Event()
    exporter = Exporter(sink, stopping=stopping.is_set, stop_s=0.3)
    exporter.put(batch({}))
    stopping.set()
    began = time.monotonic()
    with pytest.raises(ExportError, match=r"within 0\.3 s"):
        exporter.finish()
    assert 0.3 <= time.monotonic() - began < 10
    assert sink.aborted


def test_exporter_raises_what_the_sink_raised() -> None:
    class Broken(NullSink):
        def write(self, batch: FlowBatch) -> None:
            raise ExportError("no room")

    exporter = Exporter(Broken())
    with pytest.raises(ExportError, match="no room"):
        for _ in range(100):
            exporter.put(batch({}))


def test_replay_batches_are_small_and_complete() -> None:
    replay = Replay(str(CAPTURES / "dns-udp.pcap"), seed=1)
    sizes = [b.rows for b in replay.batches(rows=7)]
    stats = replay.stats()
    replay.close()
    assert max(sizes) <= 7
    assert sum(sizes) == stats["records"]
    assert stats["open"] == 0
    assert replay.input.problem() is None


NUMBERS = [
    0,
    1,
    9,
    10,
    11,
    99,
    100,
    101,
    999,
    1000,
    12345,
    99999,
    100000,
    (1 << 32) - 1,
    1 << 32,
    (1 << 64) - 1,
]


def test_json_numbers_of_any_size(tmp_path: Path) -> None:
    target = tmp_path / "x"
    sink = JsonlSink(str(target))
    small = [n for n in NUMBERS if n < 1 << 16]
    signed = [0, -2, -10, -(1 << 63), (1 << 63) - 1]
    sink.write(batch(*({"out_bytes": n} for n in NUMBERS)))
    sink.write(batch(*({"sport": n} for n in small)))
    sink.write(batch(*({"first": n, "out_window": n} for n in signed)))
    sink.close(None)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["out_bytes"] for line in lines[: len(NUMBERS)]] == NUMBERS
    assert [line["sport"] for line in lines[len(NUMBERS) : -len(signed)]] == small
    assert [(line["first"], line["out_window"]) for line in lines[-len(signed) :]] == [(n, n) for n in signed]


def test_json_texts_are_escaped(tmp_path: Path) -> None:
    """Whatever stands in a request: quotes, backslashes, control characters, bytes that are no UTF-8."""
    agents = ['"quoted" \\back\\', "tab\there", "é日本😀", "x" * 384, "", '"' * 384]
    path, target = tmp_path / "x.pcap", tmp_path / "x.jsonl"
    packets = []
    for i, agent in enumerate([*(a.encode() for a in agents), b"\xff\xfe"]):
        ends = {"src": "10.0.0.1", "dst": "10.0.0.2"}, {"sport": 40000 + i, "dport": 80}
        ask = b"GET / HTTP/1.1\r\nUser-Agent: " + agent + b"\r\n\r\n"
        packets.append(IP(**ends[0]) / TCP(**ends[1], flags="S", seq=1))
        packets.append(IP(**ends[0]) / TCP(**ends[1], flags="PA", seq=2, ack=1) / Raw(ask))
    wrpcap(str(path), packets)
    sink = JsonlSink(str(target))
    replay = Replay(str(path), seed=1)
    for one in replay.batches():
        sink.write(one)
    replay.close()
    sink.close(None)
    found = [json.loads(line) for line in target.read_text().splitlines()]
    got = {line["sport"] - 40000: line["http_ua"] for line in found if "http_ua" in line}
    assert got == dict(enumerate([*agents, "\ufffd\ufffd"]))


class LiveRun:
    """A live run that gives batches as fast as it can, and at its end what was still open."""

    def __init__(self, batches: int, left: int) -> None:
        self.input: Any = SimpleNamespace(live=True, state="up", drops=lambda: None, name="x")
        self.flushing = False
        self.lost_rows = 0
        self._batches, self._left = batches, left

    def batches(self) -> Iterator[FlowBatch]:
        one = batch(*[{"out_pkts": 1}] * 8192)
        for _ in range(self._batches):
            yield one
        self.flushing = True
        for _ in range(self._left):
            yield one

    def lost(self, batch: FlowBatch) -> None:
        self.lost_rows += batch.rows

    def rows_of(self, packets: int) -> None:
        return None


class SlowSink(NullSink):
    def __init__(self, start: threading.Event) -> None:
        self.rows = self.told = 0
        self._start = start

    def write(self, batch: FlowBatch) -> None:
        self._start.wait(20)
        self.rows += batch.rows

    def lost(self, rows: int) -> None:
        self.told += rows
        # the capture has gone on without waiting: now the sink may
        self._start.set()


def test_live_batches_do_not_wait_but_the_last_ones_do() -> None:
    run, sink = LiveRun(100, 60), SlowSink(threading.Event())
    carry(run, sink, lambda: False)  # type: ignore[arg-type]
    assert 0 < run.lost_rows == sink.told < 100 * 8192
    assert sink.rows == 160 * 8192 - run.lost_rows
    flushed, quick = LiveRun(0, 100), SlowSink(threading.Event())
    threading.Timer(0.2, quick.lost, (0,)).start()
    carry(flushed, quick, lambda: False)  # type: ignore[arg-type]
    assert (flushed.lost_rows, quick.rows) == (0, 100 * 8192)

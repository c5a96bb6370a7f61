"""kprobe on an interface: namespaces, real programs, Kentik's stand-in at the end, tcpdump beside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netns
import pytest
from kentik_server import TOKEN, DeviceSpec, Fault, KentikServer
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import wrpcap
from test_kprobe_cli import CAPTURES, CREDENTIALS, KPROBE, kprobe

pytestmark = [pytest.mark.root, pytest.mark.tool("tcpdump", "tshark", "ethtool")]

ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if not k.startswith(("KENTIK_", "RUST_LOG"))},
    **CREDENTIALS,
}


#: of packets that ICMP quotes nothing is wanted; and of what hosts send by themselves
FIRST = ["-E", "occurrence=f"]
#: tshark of different ages
YES = ("1", "True")
OURS = "tcp or udp or icmp"


def start(at: netns.Namespace, *flags: str, **more: Any) -> netns.Program:
    """kprobe, once it captures."""
    run = at.popen(*KPROBE, "-i", at.iface, *flags, env=ENVIRONMENT, **more)
    run.wait_for("INFO kprobe .*: capturing")
    return run


def finish(run: netns.Program, code: int = 0, how: int = signal.SIGTERM) -> None:
    assert run.stop(how) == code, run.stderr
    assert "Traceback" not in run.stderr
    assert TOKEN not in run.stderr + run.stdout


@contextlib.contextmanager
def kentik(
    at: netns.Namespace, device: DeviceSpec, **options: Any
) -> Iterator[tuple[KentikServer, list[str]]]:
    """Kentik's stand-in on the loopback of a namespace, and the flags that lead there."""
    with at.inside(), KentikServer([device], **options) as server:
        urls = [
            f"--{kind}-url={getattr(server, kind + '_url')}" for kind in ("api", "flow", "metrics", "dns")
        ]
        yield server, urls


def shark(path: Path, expression: str, *names: str, first: bool = True) -> list[list[str]]:
    args = [x for name in names for x in ("-e", name)]
    prefs = ["-o", "ip.defragment:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE"]
    out = subprocess.run(
        [
            "tshark",
            "-r",
            path,
            *prefs,
            "-Y",
            expression,
            "-T",
            "fields",
            "-E",
            "separator=|",
            *FIRST[: 2 * first],
            *args,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line.split("|") for line in out.splitlines()]


def sums(path: Path) -> tuple[int, int]:
    """Packets and L3 bytes, by the lengths in the IP headers."""
    rows = shark(path, "ip or ipv6", "ip.len", "ipv6.plen")
    return len(rows), sum(int(v4) if v4 else 40 + int(v6) for v4, v6 in rows)


def totals(records: list[dict[str, Any]]) -> tuple[int, int]:
    return (
        sum(record["in_pkts"] + record["out_pkts"] for record in records),
        sum(record["in_bytes"] + record["out_bytes"] for record in records),
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def web_server(at: netns.Namespace, port: int = 80) -> None:
    at.popen(sys.executable, "-u", "-m", "http.server", "--bind", "::", str(port)).wait_for("Serving")


@pytest.mark.tool("iperf3", "curl")
def test_everything_reaches_kentik(tmp_path: Path) -> None:
    """Done means: sums equal those of a capture beside, to the packet."""
    beside = tmp_path / "beside.pcap"
    with netns.pair(addresses=True) as (client, server):
        device = DeviceSpec(7, "probe-1", ips=("10.99.0.2",), max_flow_rate=100_000)
        with kentik(server, device) as (stand_in, urls):
            capture = server.capture(beside, OURS)
            run = start(server, *urls, "--filter", OURS, "--device-if", server.iface, "--status-port", "9999")
            iperf = server.popen("iperf3", "-s", "-1", "--forceflush")
            iperf.wait_for("listening")
            client.run("iperf3", "-c", server.address, "-n", "20M")
            web_server(server)
            for address in (server.address, f"[{server.address6}]"):
                client.run("curl", "-sS", "-o", "/dev/null", f"http://{address}/x?y=z")
            netns.settled(capture.count)
            finish(run)
            capture.finish()
        stand_in.verify()
        assert stand_in.totals() == sums(beside)
        assert "0 packets dropped by the kernel, 0 records for want of room" in run.stderr
        (put,) = stand_in.interface_puts
        assert put[server.iface]["address"] == "10.99.0.2"
        mac = re.search(r"link/ether (\S+)", server.ip("link", "show", server.iface))
        assert mac is not None
        index = int(mac[1].replace(":", "")[-4:], 16)
        assert put[server.iface]["index"] == str(index)
        inwards = [r for r in stand_in.records if r["inPkts"]]
        assert {r["inputPort"] for r in inwards} <= {index, 0x0016, 0x0001, 0xFFFF}
        assert index in {r["inputPort"] for r in inwards}
        names = {number: name for number, name, _ in device.columns}
        custom = [
            {names[c["id"]]: next(iter(c["value"].values())) for c in r["custom"]} for r in stand_in.records
        ]
        assert Counter(c.get("STR00") for c in custom)["/x?y=z"] == 4
        assert Counter(c.get("INT00") for c in custom)[404] == 2


@pytest.mark.tool("iperf3")
@pytest.mark.parametrize(("mode", "number"), [("hash", 0), ("lb", 1), ("cpu", 2)])
def test_fanout_counts_nothing_twice(tmp_path: Path, mode: str, number: int) -> None:
    beside = tmp_path / "beside.pcap"
    with netns.pair(addresses=True) as (client, server):
        capture = server.capture(beside, OURS)
        flags = ["--export", "jsonl", "--filter", OURS, "--fanout-group", "77", "--fanout-mode", mode]
        outs = [tmp_path / "0", tmp_path / "1"]
        runs = [start(server, *flags, "--output", str(out)) for out in outs]
        iperf = server.popen("iperf3", "-s", "-1", "--forceflush")
        iperf.wait_for("listening")
        client.run("iperf3", "-c", server.address, "-n", "5M", "-P", "16")
        for run in runs:
            # a member that leaves takes its share along: the wire must be silent
            netns.settled(capture.count)
            assert f"joined fanout group 77, mode {number}" in run.stderr
            finish(run)
        capture.finish()
    shares = [totals(lines(out)) for out in outs]
    assert tuple(map(sum, zip(*shares, strict=True))) == sums(beside)
    if mode != "cpu":
        assert all(packets > 0 for packets, _ in shares)
    if mode == "hash":
        keys = [
            {tuple(r[k] for k in ("src", "dst", "sport", "dport", "proto")) for r in lines(o)} for o in outs
        ]
        assert not keys[0] & keys[1]


def handshakes(path: Path) -> dict[int, tuple[float, float]]:
    """Client's port: ms from SYN to SYN+ACK, and from there to the client's ACK."""
    seen: dict[int, list[float]] = {}
    rows = shark(
        path, "tcp", "frame.time_epoch", "tcp.srcport", "tcp.dstport", "tcp.flags.syn", "tcp.flags.ack"
    )
    for when, sport, dport, syn, ack in rows:
        stage = (syn not in YES) * 2 + (syn in YES and ack in YES)
        port = int(dport if stage == 1 else sport)
        marks = seen.setdefault(port, [])
        if len(marks) == stage:
            marks.append(float(when))
    return {p: ((m[1] - m[0]) * 1000, (m[2] - m[1]) * 1000) for p, m in seen.items() if len(m) == 3}


@pytest.mark.tool("iperf3")
def test_latencies_and_losses_on_a_bad_wire(tmp_path: Path) -> None:
    """At the client: half the handshake's times, and each segment that tshark sees sent again."""
    beside, out = tmp_path / "beside.pcap", tmp_path / "out"
    wire = netns.Wire(delay_s=0.03, drop=netns.every(40, 0))
    with netns.pair(addresses=True, mtu=1500, wire=wire) as (client, server):
        iperf = server.popen("iperf3", "-s", "-1", "--forceflush")
        iperf.wait_for("listening")
        capture = client.capture(beside, "tcp")
        run = start(client, "--export", "jsonl", "--output", str(out), "--filter", "tcp")
        client.run("iperf3", "-c", server.address, "-n", "300K")
        netns.settled(capture.count)
        finish(run)
        capture.finish()
    assert wire.lost[0] > 0
    records = lines(out)
    assert totals(records) == sums(beside)
    times = handshakes(beside)
    assert len(times) == 2
    for record in records:
        port = record["dport"] if record["sport"] == 5201 else record["sport"]
        server_ms, client_ms = times[port]
        if record["sport"] == 5201 and record["server_nw_latency_ms"] is not None:
            assert abs(record["server_nw_latency_ms"] - server_ms / 2) < 1.01
            assert record["server_nw_latency_ms"] >= 29
        if record["sport"] != 5201 and record["client_nw_latency_ms"] is not None:
            assert record["client_nw_latency_ms"] == max(1, int(client_ms / 2))
    assert {r["sport"] == 5201 for r in records if r["server_nw_latency_ms"] is not None} == {True}
    again = "tcp.analysis.retransmission || tcp.analysis.fast_retransmission || tcp.analysis.out_of_order"
    resent = len(shark(beside, f"({again}) && tcp.dstport == 5201", "frame.number"))
    sent = [r for r in records if r["dport"] == 5201]
    counted = sum(r["out_retransmits"] + r["out_reordered"] for r in sent)
    assert resent > 0
    assert counted == resent


@pytest.mark.tool("dnsmasq", "dig")
def test_dns_mode_live(tmp_path: Path) -> None:
    with netns.pair(addresses=True) as (client, server):
        device = DeviceSpec(7, "probe-1")
        with kentik(server, device, mode="dns") as (stand_in, urls):
            server.popen(
                "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
                "--address=/www.example.test/192.0.2.80", "--address=/www.example.test/2001:db8::80",
                "--txt-record=text.example.test,hello", "--log-facility=-", "--pid-file=", "--user=root",
            ).wait_for("started")  # fmt: skip
            run = start(server, *urls, "--dns", "--device-id", "7")
            for kind, name in (("A", "www"), ("AAAA", "www"), ("TXT", "text"), ("A", "missing")):
                asked = ["dig", "+tries=1", f"@{server.address}", f"{name}.example.test", kind]
                client.run(*asked)
                client.run(*asked, "+tcp")
            finish(run)
        stand_in.verify()
        answers = [one for post in stand_in.dns_posts for one in post]
        assert [one["Question"]["Name"] for one in answers] == ["www.example.test"] * 2
        assert {one["Question"]["Host"] for one in answers} == {bytes([10, 99, 0, 1])}
        assert [one["Answers"][0]["IP"].hex() for one in answers] == [
            "c0000250",
            "20010db8000000000000000000000080",
        ]
        assert not stand_in.flow_posts


@pytest.mark.tool("tcpreplay")
def test_dns_mode_live_behind_tags_and_in_fragments(tmp_path: Path) -> None:
    """The kernel takes the first tag out; whatever its filter sees, all answers are shipped."""
    answer = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=53, dport=4000)
    answer /= DNS(qr=1, qd=DNSQR(qname="a.example"), an=DNSRR(rrname="a.example", rdata="192.0.2.1"))
    path, out = tmp_path / "x.pcap", tmp_path / "out"
    tags = [Dot1Q(vlan=5) / answer, Dot1AD(vlan=6) / Dot1Q(vlan=5) / answer]
    six = IPv6(src="2001:db8::1", dst="2001:db8::2") / IPv6ExtHdrFragment(id=1) / answer[UDP].copy()
    pieces = [*fragment6(six, 90), *answer.fragment(32)]
    other = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5353, dport=4000) / answer[DNS].copy()
    wrpcap(str(path), [Ether() / packet for packet in [answer, *tags, *pieces, other]])
    with netns.pair(ipv6=False) as (client, server):
        run = start(server, "--dns", "--export", "jsonl", "--output", str(out))
        client.replay(path)
        finish(run)
    hosts = Counter(line["client"] for line in lines(out))
    assert hosts == {"10.0.0.2": 4, "2001:db8::2": 1}


@pytest.mark.tool("radclient")
def test_radius_mode_live() -> None:
    with netns.pair(addresses=True) as (client, server):
        with kentik(server, DeviceSpec(7, "probe-1"), mode="radius") as (stand_in, urls):
            run = start(server, *urls, "--radius", "--device-id", "7")
            for status in ("Start", "Interim-Update", "Stop"):
                text = f"User-Name=alice, Framed-IP-Address=10.1.2.3, Acct-Status-Type={status}"
                # nobody answers: the request is all there is to see
                argv = ["radclient", "-r", "1", "-t", "0.2", f"{server.address}:1813", "acct", "secret"]
                client.run(*argv, input=text, check=False)
            finish(run)
        stand_in.verify()
        assert [(p.get("upserts"), p.get("deletes")) for p in stand_in.tag_posts] == [
            ([{"value": "alice", "criteria": [{"addr": ["10.1.2.3"]}]}], None),
            (None, [{"value": "alice"}]),
        ]


def ping(client: netns.Namespace, server: netns.Namespace, packets: int = 3) -> None:
    client.run("ping", "-q", "-c", str(packets), "-i", "0.01", server.address)


@pytest.mark.tool("ping")
def test_translate_and_sample_and_filter(tmp_path: Path) -> None:
    with netns.pair(addresses=True) as (client, server):
        out = tmp_path / "out"
        flags = ["--export", "jsonl", "--output", str(out), "--filter", "icmp"]
        run = start(
            server, *flags, "--translate", "10.99.0.1,192.0.2.9", "--translate", "10.99.0.2,5,192.0.2.8,6"
        )
        ping(client, server)
        finish(run, how=signal.SIGINT)
        ends = {(r["src"], r["dst"]) for r in lines(out)}
        # ICMP has no ports: the second rule does not fit
        assert ends == {("192.0.2.9", "10.99.0.2"), ("10.99.0.2", "192.0.2.9")}
        run = start(server, *flags, "--translate", f"{server.iface},192.0.2.7")
        ping(client, server)
        finish(run)
        ends = {(r["src"], r["dst"]) for r in lines(out)}
        assert ends == {("192.0.2.7", "10.99.0.1"), ("10.99.0.1", "192.0.2.7")}
        assert {r["proto"] for r in lines(out)} == {1}


@pytest.mark.tool("dig")
def test_server_faults_in_the_middle(tmp_path: Path) -> None:
    """The client goes on; each loss is one line, and the exit code says it."""
    beside = tmp_path / "beside.pcap"
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        device = DeviceSpec(7, "probe-1", max_flow_rate=100_000)
        with kentik(server, device) as (stand_in, urls):
            for fault in (Fault("status", 500), Fault("garbage"), Fault("reset"), Fault("status", 400)):
                stand_in.faults["flow"].append(fault)
            stand_in.faults["flow"].append(None)
            capture = server.capture(beside)
            # export times lie anywhere in 15 s; DNS questions make records at once
            run = start(server, *urls, "--device-id", "7")
            for i in range(5):
                client.run("dig", "+tries=1", "+time=1", f"@{server.address}", f"n{i}.example", check=False)
                netns.until(lambda i=i: stand_in.routes()["flow"] > i, f"post {i}")
            finish(run, code=1)
            capture.finish()
        stand_in.verify()
        shown = run.stdout.splitlines()
        assert [line for line in shown if not line.startswith("libkflow error: ")] == []
        # 200 with garbage is a success: kflow's answers are not read
        assert len(shown) == 3
        assert re.fullmatch(
            r"Error: of \d+ records \d+ were sent, \d+ failed, 0 were dropped, 0 were left", last(run)
        )
        assert stand_in.totals()[0] < sums(beside)[0]


def last(run: netns.Program) -> str:
    return run.stderr.splitlines()[-1]


@pytest.mark.tool("dig")
def test_stop_has_a_time_limit() -> None:
    """A server that never answers keeps nobody for longer than the limit."""
    with (
        netns.pair(addresses=True, ipv6=False) as (client, server),
        kentik(server, DeviceSpec(7, "probe-1")) as (stand_in, urls),
    ):
        stand_in.faults["flow"].extend([Fault("hang")] * 4)
        run = start(server, *urls, "--device-id", "7")
        client.run("dig", "+tries=1", "+time=1", f"@{server.address}", "x.example", check=False)
        assert run.stop(signal.SIGTERM, seconds=25) == 1
        assert last(run).startswith("Error: ")
        assert "Traceback" not in run.stderr


@pytest.mark.tool("ping")
def test_interface_vanishes(tmp_path: Path) -> None:
    with netns.pair(addresses=True) as (client, server):
        out = tmp_path / "out"
        run = start(server, "--export", "jsonl", "--output", str(out))
        ping(client, server, 5)
        server.ip("link", "del", server.iface)
        assert run.wait() == 1
        assert last(run) == f"Error: {server.iface}: the interface has gone; what came before was exported"
        assert sum(r["in_pkts"] + r["out_pkts"] for r in lines(out) if r["proto"] == 1) == 10


@pytest.mark.tool("setpriv")
def test_interfaces_and_permissions(tmp_path: Path) -> None:
    done = kprobe("-i", "no-such-if", "--export", "null", code=1)
    assert re.match(r"Error: unsupported interface no-such-if, there are: .*\blo\b", done.stderr)
    # libpcap's, and not the system's (kprobe.md 1.4)
    done = kprobe("-i", "any", "--export", "null", code=1)
    assert re.match(r"Error: unknown interface any, there are: .*\blo\b", done.stderr)
    done = kprobe("-i", "lo", "--export", "null", "--filter", "no such word", code=1)
    assert done.stderr.splitlines()[-1].startswith("Error: filter ")
    # root without the right to do so
    drop = ["setpriv", "--bounding-set=-net_raw,-net_admin", "--inh-caps=-net_raw,-net_admin"]
    run = subprocess.run(
        [*drop, *KPROBE, "-i", "lo", "--export", "null"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 1, run.stderr
    assert "Error: lo: no permission to capture" in run.stderr.splitlines()[-1]


def test_nobody_is_told_of_what_cannot_be() -> None:
    """A wrong filter or a missing right ends the program before it asks for, or makes, a device."""
    with KentikServer([]) as stand_in:
        urls = [f"--{k}-url={getattr(stand_in, k + '_url')}" for k in ("api", "flow", "metrics", "dns")]
        flags = ["-i", "lo", *urls, "--device-name", "new", "--device-plan", "5"]
        done = kprobe(*flags, "--filter", "no such word", code=1, env=CREDENTIALS)
        assert done.stderr.startswith("Error: filter ")
        assert stand_in.requests == []


def test_a_signal_ends_a_capture_of_nothing() -> None:
    with netns.Namespace() as alone:
        run = alone.popen(*KPROBE, "-i", "lo", "--export", "jsonl", env=ENVIRONMENT, stdin=subprocess.DEVNULL)
        run.wait_for("capturing")
        assert run.stop(signal.SIGINT) == 0, run.stderr


def test_drop_correction_and_device_limit(tmp_path: Path) -> None:
    """Live, what is above the device's limit is dropped, and the rest stands for it (point 17)."""
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        with kentik(server, DeviceSpec(7, "probe-1", max_flow_rate=2)) as (stand_in, urls):
            run = start(server, *urls, "--device-id", "7")
            with client.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
                for port in range(200):
                    out.sendto(b"x", (server.address, 20000 + port))
            finish(run)
            sent = len(stand_in.records)
            total = sum(record["sampleRate"] for record in stand_in.records) / 100
            # 16 fit into the queue; ICMP and ARP beside the 200
            assert sent < 40
            assert total >= 200
        stand_in.verify()


def counted(run: netns.Program) -> dict[str, int]:
    """The summary: packets in records, dropped by the kernel, lost behind it."""
    found = re.search(
        r"(\d+) packets, \d+ bytes in (\d+) records; .*; (\d+) packets dropped by the kernel, (\d+) records",
        run.stderr,
    )
    assert found, run.stderr
    return dict(zip(("packets", "records", "dropped", "lost"), map(int, found.groups()), strict=True))


@pytest.mark.tool("tcpreplay")
def test_the_kernel_s_drops_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    wrpcap(
        str(path),
        [Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(bytes(8000))] * 50,
    )
    with netns.pair() as (client, server):
        run = start(server, "--export", "jsonl", "--output", str(tmp_path / "out"))
        run.process.send_signal(signal.SIGSTOP)
        sent = client.replay(path, "--loop=400", "--preload-pcap")
        run.process.send_signal(signal.SIGCONT)
        finish(run)
        seen = counted(run)
    assert seen["dropped"] > 1000
    assert seen["packets"] + seen["dropped"] == sent == 20_000
    assert totals(lines(tmp_path / "out"))[0] == seen["packets"]


@pytest.mark.tool("tcpreplay")
def test_the_kernel_s_drops_are_corrected_for(tmp_path: Path) -> None:
    """The records that arrive stand for those that the kernel's drops would have made."""
    path = tmp_path / "x.pcap"
    text = DNSRR(rrname="a.example", type="TXT", rdata=["x" * 250] * 30)
    answer = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=53, dport=4000)
    answer /= DNS(qr=1, qd=DNSQR(qname="a.example"), an=text)
    wrpcap(str(path), [Ether() / answer] * 50)
    with netns.pair(ipv6=False) as (client, server):
        device = DeviceSpec(7, "probe-1", max_flow_rate=100_000)
        with kentik(server, device) as (stand_in, urls):
            run = start(server, *urls, "--device-id", "7")
            run.process.send_signal(signal.SIGSTOP)
            sent = client.replay(path, "--loop=400", "--preload-pcap")
            run.process.send_signal(signal.SIGCONT)
            netns.settled(lambda: len(stand_in.records), quiet_s=1.5)
            finish(run)
        stand_in.verify()
        seen = counted(run)
        assert seen["dropped"] > 1000
        # every answer is a record of its own
        assert len(stand_in.records) == seen["records"] == sent - seen["dropped"]
        assert abs(sum(r["sampleRate"] for r in stand_in.records) / 100 - sent) < sent / 100


@pytest.mark.tool("tcpreplay")
def test_a_sink_that_takes_nothing(tmp_path: Path) -> None:
    """Capturing goes on, what cannot be handed over is counted, and the end comes in time."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with netns.pair() as (client, server):
            run = start(server, "--export", "jsonl", "--output", str(fifo))
            sent = client.replay(CAPTURES / "dns-udp.pcap", "--loop=6000", "--preload-pcap")
            assert run.stop(signal.SIGTERM, seconds=40) == 1
            assert last(run) == "Error: not everything could be delivered within 10 s"
            seen = counted(run)
        assert seen["lost"] > 0
        assert seen["packets"] + seen["dropped"] == sent
    finally:
        os.close(reader)


@pytest.mark.tool("ping")
def test_a_new_device() -> None:
    """Plan, the interface's address, a name with dots."""
    with netns.pair(addresses=True) as (client, server), server.inside(), KentikServer([]) as stand_in:
        urls = [f"--{k}-url={getattr(stand_in, k + '_url')}" for k in ("api", "flow", "metrics", "dns")]
        flags = ["--device-name", "new.probe", "--device-plan", "5", "--device-site", "9"]
        run = start(server, *urls, *flags)
        ping(client, server)
        finish(run)
        stand_in.verify()
        (device,) = stand_in.devices
        assert (device.name, device.ips) == ("new_probe", ("10.99.0.2",))
        (made,) = [json.loads(seen.body) for seen in stand_in.requests if seen.route == "create"]
        assert (made["device"]["site_id"], made["device"]["device_description"]) == (9, "new.probe")
        assert stand_in.totals()[0] >= 6


@pytest.mark.tool("dig")
def test_status_of_a_running_probe() -> None:
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        with kentik(server, DeviceSpec(7, "probe-1", max_flow_rate=1000)) as (stand_in, urls):
            run = start(server, *urls, "--device-id", "7", "--status-port", "9999", "--filter", "udp port 53")
            for i in range(3):
                client.run("dig", "+tries=1", "+time=1", f"@{server.address}", f"n{i}.example", check=False)
            netns.until(lambda: len(stand_in.records) == 3, "three records")
            with server.inside():
                stand_in.check_status(9999)
            finish(run)
        stand_in.verify()


def promiscuity(at: netns.End) -> int:
    """How many want to see everything; tcpdump does."""
    found = re.search(r"promiscuity (\d+)", at.ip("-d", "link", "show", at.iface))
    assert found
    return int(found[1])


@pytest.mark.tool("ping")
def test_loopback(tmp_path: Path) -> None:
    """Each packet once, and in: both MACs are zero, like the interface's (3.4)."""
    out = tmp_path / "out"
    with netns.Namespace() as alone:
        run = start(alone, "--export", "jsonl", "--output", str(out))
        alone.run("ping", "-q", "-c", "3", "-i", "0.01", "127.0.0.1")
        finish(run)
    found = lines(out)
    assert (sum(r["in_pkts"] for r in found), sum(r["out_pkts"] for r in found)) == (6, 0)
    assert {(r["direction"], r["smac"]) for r in found} == {(0, "00:00:00:00:00:00")}


@pytest.mark.tool("curl")
def test_promiscuous_and_cut(tmp_path: Path) -> None:
    """Cut packets count with their true lengths, and are not decoded (S17)."""
    beside, out = tmp_path / "beside.pcap", tmp_path / "out"
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        web_server(server)
        capture = server.capture(beside, OURS)
        flags = ["--export", "jsonl", "--output", str(out), "--filter", OURS, "--promisc", "--snaplen", "96"]
        before = promiscuity(server)
        run = start(server, *flags)
        assert promiscuity(server) == before + 1
        client.run("curl", "-sS", "-o", "/dev/null", f"http://{server.address}/{'x' * 200}")
        netns.settled(capture.count)
        finish(run)
        capture.finish()
    records = lines(out)
    assert totals(records) == sums(beside)
    assert {r["app"] for r in records} == {2}
    assert not [r for r in records if "http_url" in r]
    assert not [r for r in records if r["out_retransmits"] or r["in_retransmits"]]


NGINX = """
daemon off; pid {folder}/pid; error_log stderr; events {{}}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 80; location / {{ return 200 "hello"; }} location /gone {{ return 410; }} }}
}}
"""


@pytest.mark.tool("nginx", "curl", "openssl", "dnsmasq", "dig")
def test_real_servers(tmp_path: Path) -> None:
    """Keep-alive and pipelined HTTP, TLS 1.2 and 1.3, DNS: what tshark reads out of the same packets."""
    beside, out, config = tmp_path / "beside.pcap", tmp_path / "out", tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path))
    cert = [f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
    subprocess.run([*make, "-out", cert[0], "-keyout", cert[1]], check=True, capture_output=True)
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        server.popen("nginx", "-c", str(config), "-e", "stderr")
        server.popen("openssl", "s_server", "-accept", "443", "-cert", cert[0], "-key", cert[1], "-quiet")
        server.popen(
            "dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
            "--address=/example.test/192.0.2.80", "--log-facility=-", "--pid-file=", "--user=root",
        ).wait_for("started")  # fmt: skip
        listening = ("ss", "-Hltn")
        netns.until(
            lambda: {":80 ", ":443 "} <= set(re.findall(r":(?:80|443) ", server.run(*listening).stdout))
        )
        capture = server.capture(beside, OURS)
        run = start(server, "--export", "jsonl", "--output", str(out), "--filter", OURS)
        web = f"http://{server.address}"
        client.run("curl", "-sS", f"{web}/a?b=c", f"{web}/second", f"{web}/gone")
        with client.inside(), socket.create_connection((server.address, 80)) as pipeline:
            request = "GET /{} HTTP/1.1\r\nHost: pipe\r\nConnection: {}\r\n\r\n"
            text = [request.format(i, "close" if i == 4 else "keep-alive") for i in range(5)]
            pipeline.sendall("".join(text).encode())
            while pipeline.recv(65536):
                pass
        for version in ("-tls1_2", "-tls1_3"):
            argv = [
                "openssl",
                "s_client",
                "-connect",
                f"{server.address}:443",
                version,
                "-servername",
                "name.test",
            ]
            client.run(*argv, input="Q\n")
        client.run("dig", "+tries=1", f"@{server.address}", "www.example.test")
        netns.settled(capture.count)
        finish(run)
        capture.finish()
    records = lines(out)
    assert totals(records) == sums(beside)
    asked: Counter[str] = Counter()
    for (uris,) in shark(beside, "http.request", "http.request.uri", first=False):
        asked.update(uris.split(","))
    got = Counter(r["http_url"] for r in records if "http_url" in r and "http_status" not in r)
    assert got == asked
    assert len(got) == 8
    answered = Counter(r["http_url"] for r in records if "http_status" in r)
    assert answered == asked
    assert {r["http_url"]: r["http_status"] for r in records if "http_status" in r}["/gone"] == 410
    hellos = shark(beside, "tls.handshake.type == 2", "tls.handshake.ciphersuite", "tls.handshake.version")
    wanted = {(int(suite, 0), int(version, 0)) for suite, version in hellos}
    seen = {(r["tls_cipher_suite"], r["tls_server_version"]) for r in records if "tls_cipher_suite" in r}
    assert seen == wanted
    assert len(wanted) == 2
    assert {r["tls_server_name"] for r in records if "tls_server_name" in r} == {"name.test"}
    (reply,) = [r for r in records if "dns_response" in r]
    assert (reply["dns_query"], reply["dns_response"]) == ("www.example.test", "192.0.2.80/A")
    (taken,) = shark(beside, "dns.flags.response == 1", "dns.time")
    assert reply["appl_latency_ms"] == int(float(taken[0]) * 1000)

"""kprobe: flags, messages, exit codes; sums over whole captures against tshark; Kentik's stand-in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from kentik_server import EMAIL, TOKEN, DeviceSpec, Fault, KentikServer
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap, wrpcap

CAPTURES = Path(__file__).parent / "captures"
KPROBE = [sys.executable, "-m", "netprobe.cli.kprobe"]
NAMES = ["http.pcap", "dns-udp.pcap", "dns-tcp.pcap", "bgp.pcap", "dhcp.pcap", "demo.pcap", "icmp.pcap"]


def kprobe(*flags: str | Path, code: int = 0, **keywords: Any) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KENTIK_", "RUST_LOG"))}
    environment.update(keywords.pop("env", {}))
    done = subprocess.run(
        [*KPROBE, *map(str, flags)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        **keywords,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def jsonl(path: Path | str, *flags: str) -> list[dict[str, Any]]:
    # when flows are exported first is random, and with it how many records there are
    done = kprobe("--read", path, "--export", "jsonl", "--no-decode", "--seed", "7", *flags)
    return [json.loads(line) for line in done.stdout.splitlines()]


LOOKS = ["-E", "separator=|", "-E", "occurrence=f"]


def tshark_sums(path: Path) -> dict[tuple[str, str, int], list[int]]:
    """Packets and IP bytes of each pair of outer addresses and protocol, of fragments what is in them."""
    fields = ["ip.src", "ip.dst", "ip.proto", "ip.len", "ipv6.src", "ipv6.dst", "ipv6.nxt", "ipv6.plen"]
    fields.append("ipv6.fraghdr.nxt")
    args = [x for field in fields for x in ("-e", field)]
    out = subprocess.run(
        [
            "tshark",
            "-r",
            path,
            "-o",
            "ip.defragment:FALSE",
            "-o",
            "ipv6.defragment:FALSE",
            "-Y",
            "ip or ipv6",
            "-T",
            "fields",
            *args,
            *LOOKS,
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    sums: dict[tuple[str, str, int], list[int]] = {}
    for line in out.splitlines():
        src4, dst4, proto4, size4, src6, dst6, next6, size6, inside = line.split("|")
        key = (src4, dst4, int(proto4)) if src4 else (src6, dst6, int(inside or next6))
        count = sums.setdefault(key, [0, 0])
        count[0] += 1
        count[1] += int(size4) if src4 else 40 + int(size6)
    return sums


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", NAMES)
def test_jsonl_sums_equal_tshark(name: str) -> None:
    sums: dict[tuple[str, str, int], list[int]] = {}
    for record in jsonl(CAPTURES / name):
        count = sums.setdefault((record["src"], record["dst"], record["proto"]), [0, 0])
        count[0] += record["out_pkts"] + record["in_pkts"]
        count[1] += record["out_bytes"] + record["in_bytes"]
    assert sums
    assert sums == tshark_sums(CAPTURES / name)


def test_records_are_unidirectional_and_carry_the_application_by_port() -> None:
    records = jsonl(CAPTURES / "dns-udp.pcap")
    assert all(record["in_pkts"] == 0 for record in records)
    for record in records:
        wanted = 1 if record["proto"] == 17 and 53 in (record["sport"], record["dport"]) else 0
        assert record["app"] == wanted
    assert {record["app"] for record in records} >= {1}
    moved = jsonl(CAPTURES / "dns-udp.pcap", "--dns-port", "5353")
    assert all(53 not in (r["sport"], r["dport"]) or r["app"] == 0 for r in moved)
    web = jsonl(CAPTURES / "http.pcap")
    port = Counter(min(r["sport"], r["dport"]) for r in web).most_common(1)[0][0]
    # D31: port 80 has no number without its decoder, an extra port has
    assert {r["app"] for r in web} == {0}
    assert 2 in {r["app"] for r in jsonl(CAPTURES / "http.pcap", "--http-port", str(port))}


def test_filter() -> None:
    records = jsonl(CAPTURES / "demo.pcap", "--filter", "tcp")
    assert {record["proto"] for record in records} == {6}
    done = kprobe("--read", CAPTURES / "demo.pcap", "--export", "null", "--filter", "no such word", code=1)
    assert done.stderr.splitlines()[-1].startswith("Error: filter ")


def test_sample_scales() -> None:
    records = jsonl(CAPTURES / "dns-udp.pcap", "--sample", "3")
    everything = jsonl(CAPTURES / "dns-udp.pcap")
    assert len(records) < len(everything)
    assert {record["sample_rate"] for record in records} <= {3}
    assert {record["sample_rate"] for record in everything} == {1}
    assert len(jsonl(CAPTURES / "dns-udp.pcap", "--sample", "0")) == len(everything)


def without_ids(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "connection_id"} for record in records]


@pytest.mark.parametrize(
    ("rules", "rewrite"),
    [
        (["10.77.0.53,192.0.2.9"], {"10.77.0.53": ("192.0.2.9", None)}),
        (["fd77::53,2001:db8::9"], {"fd77::53": ("2001:db8::9", None)}),
        (["10.77.0.53,53,192.0.2.9,5353", "10.77.0.53,198.51.100.1"], {"10.77.0.53": ("192.0.2.9", 5353)}),
        # found once, not again
        (["10.77.0.53,192.0.2.9", "192.0.2.9,192.0.2.10"], {"10.77.0.53": ("192.0.2.9", None)}),
        (["10.77.0.53,54,192.0.2.9,5353"], {}),
    ],
)
@pytest.mark.parametrize("dns_port", ["53", "5353"])
def test_translation_is_as_if_the_packets_were_others(
    tmp_path: Path, rules: list[str], rewrite: dict[str, tuple[str, int | None]], dns_port: str
) -> None:
    """Also for classification and decoders; scapy writes the other packets."""
    path = tmp_path / "x.pcap"
    packets = rdpcap(str(CAPTURES / "dns-udp.pcap"))
    for packet in packets:
        ip = packet.getlayer(IP) or packet.getlayer(IPv6)
        if ip is None or UDP not in packet:
            continue
        for end, port in (("src", "sport"), ("dst", "dport")):
            if getattr(ip, end) in rewrite and getattr(packet[UDP], port) == 53:
                address, number = rewrite[getattr(ip, end)]
                setattr(ip, end, address)
                setattr(packet[UDP], port, number or 53)
    wrpcap(str(path), packets)
    flags = ["--export", "jsonl", "--seed", "7", "--dns-port", dns_port]
    other = kprobe("--read", path, *flags).stdout.splitlines()
    translated = kprobe(
        "--read", CAPTURES / "dns-udp.pcap", *flags, *(f"--translate={rule}" for rule in rules)
    ).stdout.splitlines()
    got = without_ids([json.loads(line) for line in translated])
    wanted = without_ids([json.loads(line) for line in other])
    key = itemgetter("first", "src", "dst", "sport", "reason")
    # export times are drawn by the hash of the key: the order may differ
    assert sorted(got, key=key) == sorted(wanted, key=key)
    hosts = {r["src"] for r in wanted} | {r["dst"] for r in wanted}
    assert {new for new, _ in rewrite.values()} <= hosts


@pytest.mark.tool("editcap")
@pytest.mark.parametrize("snaplen", [20, 60, 96])
@pytest.mark.parametrize("name", ["http.pcap", "demo.pcap", "dns-udp.pcap"])
def test_snaplen_of_a_file_is_that_of_a_capture(name: str, snaplen: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    subprocess.run(["editcap", "-s", str(snaplen), CAPTURES / name, path], check=True)
    flags = ("--export", "jsonl", "--seed", "7")
    for mode in ((), ("--dns",)):
        cut = kprobe("--read", CAPTURES / name, *flags, *mode, "--snaplen", str(snaplen))
        wanted = kprobe("--read", path, *flags, *mode)
        assert cut.stdout == wanted.stdout
        assert cut.stdout != kprobe("--read", CAPTURES / name, *flags, *mode).stdout or not wanted.stdout
        assert said(cut) == said(wanted)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The line about what was read, without the time."""
    return done.stderr.splitlines()[-1].partition(" INFO ")[2]


@pytest.mark.parametrize(("filter_flag", "mode"), [("--filter", ()), ("--dns-filter", ("--dns",))])
def test_filter_sees_what_the_snap_length_cuts(filter_flag: str, mode: tuple[str, ...]) -> None:
    """As the kernel does: it filters whole packets, and cuts those that pass."""
    flags = ("--read", CAPTURES / "demo.pcap", "--export", "null", *mode, filter_flag, "udp port 53")
    whole, cut = (said(kprobe(*flags, *more)) for more in ((), ("--snaplen", "20")))
    dropped = re.search(r"\d+ filtered out", whole)
    assert dropped is not None and dropped[0] != "0 filtered out"
    assert dropped[0] in cut
    assert cut != whole


def test_snap_length_0_is_the_whole_packet() -> None:
    assert jsonl(CAPTURES / "demo.pcap", "--snaplen", "0") == jsonl(CAPTURES / "demo.pcap")


def test_compressed_and_standard_input() -> None:
    raw = (CAPTURES / "http.pcap").read_bytes()
    done = subprocess.run(
        [*KPROBE, "--read", "-", "--export", "jsonl", "--seed", "7", "--no-decode"],
        input=raw,
        capture_output=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == len(jsonl(CAPTURES / "http.pcap"))


def test_output_file(tmp_path: Path) -> None:
    target = tmp_path / "records.jsonl"
    flags = "--export", "jsonl", "--output", target, "--no-decode", "--seed", "7"
    kprobe("--read", CAPTURES / "http.pcap", *flags)
    assert len(target.read_text().splitlines()) == len(jsonl(CAPTURES / "http.pcap"))
    done = kprobe(
        "--read", CAPTURES / "http.pcap", "--export", "jsonl", "--output", tmp_path / "no" / "x", code=1
    )
    assert "No such file" in done.stderr


def test_full_disk_is_a_failure() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*KPROBE, "--read", CAPTURES / "http.pcap", "--export", "jsonl"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Error: standard output: No space left on device" in done.stderr


@pytest.mark.parametrize("mode", [[], ["--dns"], ["--radius"]])
def test_reader_of_standard_output_goes_away(mode: list[str]) -> None:
    """The end of other programs: by SIGPIPE, and without a word about it."""
    name = "app-radius.pcap" if mode == ["--radius"] else "demo.pcap"
    assert unread(["--read", str(CAPTURES / name), "--export", "jsonl", *mode]) == (-signal.SIGPIPE, "")


def test_reader_goes_away_where_the_signal_is_blocked() -> None:
    """As some parents leave it."""
    flags = ["--read", str(CAPTURES / "demo.pcap"), "--export", "jsonl"]
    block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])"
    start = f"import os, signal, sys; {block}; os.execv(sys.argv[1], sys.argv[1:])"
    assert unread(flags, [sys.executable, "-c", start, *KPROBE]) == (-signal.SIGPIPE, "")


def unread(flags: list[str], program: list[str] = KPROBE, **keywords: Any) -> tuple[int, str]:
    """Exit code and standard error of a program whose standard output has no reader."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*program, *flags],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            **keywords,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr


def test_cut_and_foreign_files(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((CAPTURES / "http.pcap").read_bytes()[:-5])
    done = kprobe("--read", cut, "--export", "jsonl", code=1)
    assert done.stdout.count("\n") > 0
    assert "cut off in the middle of a record; what came before was exported" in done.stderr
    foreign = tmp_path / "text"
    foreign.write_text("this is not a capture, whatever its name may be")
    assert "expected a pcap" in kprobe("--read", foreign, "--export", "jsonl", code=1).stderr
    assert "Error: " in kprobe("--read", tmp_path / "none", "--export", "null", code=1).stderr


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("", "-i NAME or --read FILE is needed"),
        ("-i eth0 --read x", "-i and --read exclude each other"),
        ("-i=", "the name of an interface is needed"),
        ("-i eth0 -i eth1", "-i is given twice"),
        ("-i eth0 --interface=eth1", "is given twice"),
        ("--read x --promisc", "--promisc: only with -i"),
        ("--read x --snaplen -1", "--snaplen -1: out of range"),
        ("--read x --fanout 1", "--fanout: only with -i"),
        ("--read x --fanout-group 1", "--fanout-group: only with -i"),
        ("-i eth0 --snaplen -1", "--snaplen -1: out of range"),
        ("-i eth0 --snaplen 2147483648", "--snaplen 2147483648: out of range"),
        ("-i eth0 --fanout 65536", "--fanout 65536: out of range"),
        ("-i eth0 --fanout 1 --fanout-group 2", "are the same flag"),
        ("-i eth0 --fanout 1 --fanout-mode CPU", "invalid fanout mode"),
        ("--read x --translate 10.0.0.1", "missing src port, expected A,B or A,PORT,B,PORT"),
        ("--read x --translate ,10.0.0.1", "missing src addr"),
        ("--read x --translate 10.0.0.1,", "missing dst addr"),
        ("--read x --translate 10.0.0.1,80,10.0.0.2", "missing dst port"),
        ("--read x --translate 10.0.0.1,80,,1", "missing dst addr"),
        ("--read x --translate 10.0.0.1,http,10.0.0.2,1", "port 'http': not a whole number"),
        ("--read x --translate a,b", "'a' is not an IP address"),
        ("--read x --translate 10.0.0.1,::1", "both must be IPv4, or both IPv6"),
        ("--read x --dns --radius", "exclude each other"),
        ("--read x dns --radius", "exclude each other"),
        ("--read x --dns-filter udp", "--dns-filter: only in dns mode"),
        ("--read x --radius --dns-filter udp", "--dns-filter: only in dns mode"),
        ("--read x --juniper-mirror", "--juniper-mirror: only in dns mode"),
        ("--read x --ports 1812", "--ports: only in radius mode"),
        ("--read x radius --ports=", "no ports specified"),
        ("--read x radius --ports 0", "--ports 0: out of range"),
        ("--read x flow", "unexpected argument 'flow'"),
        ("--read x --dns --export ipfix", "--export ipfix: holds flow records"),
        ("--read x --export parquet", "--export parquet: needs --output FILE"),
        ("--read x --export csv", "--export 'csv': unknown"),
        ("--read x --export null --sample -1", "--sample -1: out of range"),
        ("--read x --export null --sample many", "--sample 'many'"),
        ("--read x --export null --dns-port 65536", "--dns-port 65536: out of range"),
        ("--read x --export null --http-port 0", "--http-port 0: out of range"),
        ("--read x --export null --status-port 80", "--status-port: only with"),
        ("--read x --export null --output y", "--output: has no meaning"),
        ("--read x --export ipfix --output y", "expected HOST:PORT"),
        ("--read x", "--email (or KENTIK_EMAIL) is required"),
        ("--read x --email a@b", "--token (or KENTIK_TOKEN) is required"),
        ("--read x --email a@b --token t --device-id 4294967296", "--device-id 4294967296: out of range"),
        ("--read x --email a@b --token t --device-ip nowhere", "--device-ip nowhere: not an IP address"),
        ("--read x --email a@b --token t --api-url ftp://x", "--api-url ftp://x: not a URL"),
        ("--read x --read y", "--read is given twice"),
        ("-i x --promisc --promisc", "--promisc is given twice"),
        ("--read x --dns --no-decode --dns", "--dns is given twice"),
        ("--device-nam", "--device-name needs a value"),
        ("--no-decod3", "did you mean --no-decode?"),
    ],
)
def test_refused(flags: str, text: str) -> None:
    done = kprobe(*flags.split(), code=1)
    assert text in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stdout == ""


@pytest.mark.parametrize("number", [(1 << 64) - 1, 1 << 63])
def test_numbers_of_64_bits(number: int) -> None:
    """The whole range of the types in kprobe.md 1.1."""
    done = kprobe("--read", CAPTURES / "http.pcap", "--export", "null", f"--sample={number}", "--seed=1")
    assert "85 sampled out" in done.stderr
    done = kprobe("--read", "x", "--export", "null", f"--sample={1 << 64}", code=1)
    assert f"--sample {1 << 64}: out of range" in done.stderr


def test_help_and_version_say_all_flags() -> None:
    text = kprobe("--help").stdout
    # kprobe.md 1.1
    flags = (
        "email token sample no-decode fanout-group fanout-mode filter promisc snaplen device-id device-if "
    )
    flags += "device-ip device-name device-plan device-site region api-url flow-url metrics-url dns-url "
    flags += "proxy-url status-host status-port translate http-port dns-port radius-port dns radius fanout"
    shown = set(re.findall(r"--([a-z-]+)", text))
    assert set(flags.split()) <= shown
    assert kprobe("-V").stdout.startswith("Version: ")


def test_every_flag_is_documented() -> None:
    page = (CAPTURES.parents[1] / "docs" / "kprobe.md").read_text()
    for flag in set(re.findall(r"--[a-z-]+", kprobe("--help").stdout)):
        assert f"`{flag}" in page, flag


def serve(**changes: Any) -> KentikServer:
    options = {"max_flow_rate": 100_000, **{k: changes.pop(k) for k in ("sample_rate",) if k in changes}}
    return KentikServer([DeviceSpec(7, "probe-1", ips=("192.0.2.7",), **options)], **changes)


def to_kentik(server: KentikServer, name: str, *flags: str, code: int = 0) -> Any:
    urls = [f"--{kind}-url={getattr(server, kind + '_url')}" for kind in ("api", "flow", "metrics", "dns")]
    return kprobe("--read", CAPTURES / name, "--no-decode", *urls, *flags, code=code, env=CREDENTIALS)


CREDENTIALS = {"KENTIK_EMAIL": EMAIL, "KENTIK_TOKEN": TOKEN}


@pytest.mark.tool("tshark")
@pytest.mark.parametrize("name", ["demo.pcap", "http.pcap", "icmp.pcap"])
def test_kentik_gets_everything(name: str) -> None:
    with serve() as server:
        done = to_kentik(server, name, "--device-name", "probe-1", "-v")
        server.verify()
        sums = tshark_sums(CAPTURES / name).values()
        assert server.totals() == (sum(s[0] for s in sums), sum(s[1] for s in sums))
    assert TOKEN not in done.stderr + done.stdout
    assert "configuration: " in done.stderr


def test_kentik_device_decides_the_sample_rate() -> None:
    with serve(sample_rate=2, sample=2) as server:
        to_kentik(server, "dns-udp.pcap", "--device-ip", "192.0.2.7")
        server.verify()
        assert {record["sampleRate"] for record in server.records} == {200}


def test_kentik_refuses() -> None:
    with serve() as server:
        done = to_kentik(server, "http.pcap", "--device-id", "8", code=1)
        assert done.stdout == "error: device not found\n"
    with serve(allow_unauthorized=True) as server:
        done = to_kentik(server, "http.pcap", "--device-id", "7", "--token", "wrong", code=1)
        assert done.stdout == "error: authentication failed\n"


def test_kentik_is_not_heard() -> None:
    """Its errors go to standard output: those about the device end the program, others do not."""
    environment = {**os.environ, **CREDENTIALS}
    with serve() as server:
        urls = [
            f"--{kind}-url={getattr(server, kind + '_url')}" for kind in ("api", "flow", "metrics", "dns")
        ]
        flags = ["--read", str(CAPTURES / "http.pcap"), "--no-decode", *urls, "--device-id"]
        assert unread([*flags, "8"], env=environment)[0] == -signal.SIGPIPE
        server.faults["flow"].extend([Fault("status", 500)] * 4)
        code, said = unread([*flags, "7"], env=environment)
    assert code == 1
    assert "Exception" not in said
    assert "records 0 were sent" in said


def test_kentik_fails_in_the_middle() -> None:
    with serve() as server:
        server.faults["flow"].extend([Fault("status", 500)] * 4)
        done = to_kentik(server, "http.pcap", "--device-id", "7", code=1)
    assert done.stdout.startswith("libkflow error: ")
    # how many records there are depends on when each flow's timer began
    assert re.search(r"of (\d+) records 0 were sent, \1 failed,", done.stderr.splitlines()[-1])


def test_interrupt_flushes(tmp_path: Path) -> None:
    """A silent pipe: what was read before the signal comes out as records."""
    raw = (CAPTURES / "http.pcap").read_bytes()
    target = tmp_path / "out.jsonl"
    with subprocess.Popen(
        [*KPROBE, "--read", "-", "--export", "jsonl", "--output", target, "-v"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdin is not None
        assert run.stderr is not None
        run.stdin.write(raw)
        run.stdin.flush()
        # nothing says that the program has read it, but for the pipe
        deadline = time.monotonic() + 30
        while pending(run.stdin.fileno()) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not pending(run.stdin.fileno())
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=30) == 0, run.stderr.read()
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert sum(record["out_pkts"] for record in records) == 85


def pending(fd: int) -> int:
    """Bytes in a pipe."""
    import array
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]

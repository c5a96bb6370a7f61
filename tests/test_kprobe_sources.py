"""kprobe without the kernel's ring: by libpcap, chosen or for want of anything better (issue 3, item 5)."""

from __future__ import annotations

import platform
import re
import signal
import sys
import time
from pathlib import Path

import netns
import norings
import pytest
from test_kprobe_cli import CAPTURES, KPROBE, kprobe
from test_kprobe_live import ENVIRONMENT, finish, lines, start, sums, totals

pytestmark = [pytest.mark.root, pytest.mark.tool("tcpdump", "tshark", "ethtool")]

NO_RINGS = [sys.executable, norings.__file__]
sandboxed = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="the seccomp filter knows these call numbers"
)


@pytest.mark.tool("tcpreplay")
@pytest.mark.parametrize("name", ["demo.pcap", "http.pcap"])
def test_libpcap_counts_what_tshark_counts(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with netns.pair() as (client, server):
        run = start(server, "--export", "jsonl", "--output", str(out), "--pcap-source", "libpcap")
        client.replay(CAPTURES / name)
        finish(run)
        assert totals(lines(out)) == sums(CAPTURES / name)
        assert ", 0 unreadable" in run.stderr
        assert "0 packets dropped by the kernel" in run.stderr


@pytest.mark.tool("curl")
def test_libpcap_cuts_and_decodes(tmp_path: Path) -> None:
    """Directions, requests, and the snap length, which stops decoding but not counting (3.9)."""
    beside = tmp_path / "beside.pcap"
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        server.popen(sys.executable, "-u", "-m", "http.server", "--bind", "::", "80").wait_for("Serving")
        whole, cut = tmp_path / "whole", tmp_path / "cut"
        flags = ["--pcap-source", "libpcap", "--filter", "tcp", "--export", "jsonl", "--output"]
        runs = [start(server, *flags, str(whole)), start(server, *flags, str(cut), "--snaplen", "80")]
        capture = server.capture(beside, "tcp")
        client.run("curl", "-sS", "-o", "/dev/null", f"http://{server.address}/x")
        netns.settled(capture.count)
        for run in runs:
            finish(run)
        capture.finish()
        assert totals(lines(whole)) == totals(lines(cut)) == sums(beside)
        assert {r["direction"] for r in lines(whole)} == {0, 1}
        assert [r["http_status"] for r in lines(whole) if "http_status" in r] == [404]
        assert [r for r in lines(cut) if "http_url" in r] == []


@sandboxed
@pytest.mark.tool("ping")
def test_without_rings_libpcap_takes_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with netns.pair(addresses=True, ipv6=False) as (client, server):
        flags = ["-i", server.iface, "--filter", "icmp", "--export", "jsonl", "--output", str(out)]
        run = server.popen(*NO_RINGS, *KPROBE, *flags, env=ENVIRONMENT)
        run.wait_for("INFO kprobe .*: capturing")
        client.run("ping", "-q", "-c", "5", "-i", "0.01", server.address)
        time.sleep(0.5)  # the last answer is on its way through libpcap
        finish(run, how=signal.SIGINT)
        warnings = re.findall("WARNING kprobe (.*)", run.stderr)
        assert warnings == [
            f"{server.iface}: no ring buffer: Protocol not available; the source libpcap does without",
            "capturing by libpcap, which is slower",
        ]
    assert sorted((r["in_pkts"], r["out_pkts"]) for r in lines(out)) == [(0, 5), (5, 0)]


@sandboxed
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pcap-source", "af_packet"], "the source libpcap does without"),
        (["--fanout-group", "5"], "the source libpcap does without, but not for a fanout group"),
    ],
)
def test_what_needs_a_ring_says_so(flags: list[str], said: str) -> None:
    with netns.Namespace() as alone:
        run = alone.popen(*NO_RINGS, *KPROBE, "-i", "lo", "--export", "null", *flags, env=ENVIRONMENT)
        assert run.wait() == 1
        assert run.stderr == f"Error: lo: no ring buffer: Protocol not available; {said}\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("-i lo --pcap-source pfring", "--pcap-source 'pfring': unknown, expected af_packet or libpcap"),
        ("-i lo --pcap-source libpcap --fanout-group 1", "--fanout-group: only with --pcap-source af_packet"),
        ("-i lo --pcap-source libpcap --fanout 1", "--fanout-group: only with --pcap-source af_packet"),
        ("--read x --pcap-source libpcap", "--pcap-source: only with -i"),
    ],
)
def test_refused(flags: str, said: str) -> None:
    assert kprobe(*flags.split(), "--export", "null", code=1).stderr.startswith(f"Error: {said}")

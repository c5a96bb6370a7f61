"""The benchmark still runs, and its captures are what they claim to be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import netprobe

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    command = [
        sys.executable,
        str(BENCHMARKS / "generate.py"),
        "--dir",
        str(folder),
        "--packets",
        "5000,20000",
    ]
    subprocess.run([*command, "mix", "dns", "small", "flood"], check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize("kind", ["mix", "dns", "small", "flood"])
def test_fewer_packets_are_a_prefix(folder: Path, kind: str) -> None:
    """What makes the difference of two runs the cost of packets."""
    few, many = ((folder / f"{kind}-{n}.pcap").read_bytes() for n in (5000, 20000))
    assert many.startswith(few)
    assert len(many) > 3 * len(few)


def counts(path: Path) -> dict[str, int]:
    """Frames per protocol name, by tshark."""
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-T", "fields", "-e", "frame.protocols", "-e", "frame.len"],
        capture_output=True,
        text=True,
        check=True,
    )
    out = {"frames": 0, "bytes": 0}
    for line in done.stdout.splitlines():
        layers, size = line.split("\t")
        out["frames"] += 1
        out["bytes"] += int(size)
        for layer in set(layers.split(":")):
            out[layer] = out.get(layer, 0) + 1
    return out


@pytest.mark.tool("tshark")
def test_mix_is_what_the_bar_says(folder: Path) -> None:
    seen = counts(folder / "mix-20000.pcap")
    share = {k: n / seen["frames"] for k, n in seen.items()}
    assert seen["frames"] == 20000
    assert seen.get("_ws.malformed", 0) == 0 or "dns" in seen
    assert share["dns"] == pytest.approx(0.15, abs=0.002)
    assert share["ip"] == pytest.approx(0.7, abs=0.06)
    assert share["vlan"] == pytest.approx(0.1, abs=0.03)
    assert share["icmp"] + share["icmpv6"] == pytest.approx(0.03, abs=0.02)
    assert 250 < seen["bytes"] / seen["frames"] < 450


@pytest.mark.tool("tshark")
def test_dns_is_dns(folder: Path) -> None:
    seen = counts(folder / "dns-20000.pcap")
    assert seen["dns"] == seen["udp"] == seen["frames"] == 20000
    assert "_ws.malformed" not in seen


def test_transactions_match(folder: Path) -> None:
    """Nearly every response finds its query; the last few queries are still open."""
    doc = netprobe.summarize(folder / "dns-20000.pcap", handlers=["dns"], periods=1).to_dict()["1m"]["dns"]
    assert doc["wire_packets"]["queries"] == doc["wire_packets"]["replies"] == 10000
    assert doc["xact"]["counts"]["total"] >= 9900


def test_flood_is_distinct(folder: Path) -> None:
    doc = netprobe.summarize(folder / "flood-20000.pcap", handlers=["dns", "net:2.0"], periods=1).to_dict()[
        "1m"
    ]
    messages = doc["dns"]["wire_packets"]["total"]
    assert messages == pytest.approx(20000 * 5 / 6, abs=2)
    assert doc["dns"]["cardinality"]["qname"] == pytest.approx(messages, rel=0.02)
    assert doc["net"]["unknown"]["cardinality"]["ips"] == pytest.approx(20000, rel=0.02)


@pytest.mark.slow
@pytest.mark.tool("tcpdump", "taskset")
@pytest.mark.parametrize(("program", "rows"), [("run.py", 9), ("flows.py", 7)])
def test_smoke(tmp_path: Path, program: str, rows: int) -> None:
    command = [sys.executable, str(BENCHMARKS / program), "--smoke", "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ran\n") == rows

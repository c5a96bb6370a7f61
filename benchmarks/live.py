"""Measures live capture on a veth pair, as root; see README.md. The capture comes from generate.py.

    python benchmarks/live.py [--dir DIR] [--packets N] [--runs N] [--pps N[,N]] [--seconds S] [--smoke]

cost: user CPU of the capture thread per packet, from the ring under tcpreplay at full speed and from the
file, same handlers, same loop. The kernel's time is aside: the two have little of it in common. Beside it,
what the file costs when it has to rest like the ring's reader, with the same sender on the other core: the
difference is the machine's (caches, clock rate, siblings of a core), not the ring's.
drops: packets lost at a rate, with pktvisord's default policy, while /metrics is scraped every second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import netns

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))

HOSTS = "192.168.0.0/16,2001:db8::/32"
HANDLERS = "net,dhcp,dns,pcap"


def user_seconds() -> float:
    """Of all threads but this one: the capture's."""
    mine = resource.getrusage(resource.RUSAGE_THREAD).ru_utime
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime - mine


def child(config: dict[str, Any], wanted: int) -> None:
    """Feed an input until it has seen so many packets (or lost them), and say what it took."""
    from netprobe.handlers.config import parse_handlers
    from netprobe.policy.running import HandlerSet, InputStream

    specs = parse_handlers(HANDLERS)
    configs = [spec.resolve(defaults={"num_periods": 5}) for spec in specs]
    handlers = HandlerSet(specs, configs, [spec.name for spec in specs], periods=5)
    stream = InputStream("bench", "pcap", config, {})
    stream.attach(handlers)
    before = user_seconds()
    stream.start()
    print("ready", flush=True)
    while True:
        stats = stream.stats()
        drops = stats["losses"]["os_drops"] if "losses" in stats else stats["os_drops"]
        if stats["packets"] + drops >= wanted or not stream.running:
            break
        time.sleep(0.2)
    spent = user_seconds() - before
    stream.stop()
    print(json.dumps({"cpu": spent, "packets": stats["packets"], "drops": drops}), flush=True)


def run_child(command: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def result_of(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdout is not None
    found: dict[str, float] = json.loads(process.stdout.read())
    process.wait()
    return found


def command(config: dict[str, Any], wanted: int, core: int) -> list[str]:
    me = [sys.executable, str(Path(__file__).resolve())]
    return ["taskset", "-c", str(core), *me, "--child", json.dumps(config), "--packets", str(wanted)]


def rest_now_and_then(process: subprocess.Popen[str]) -> None:
    """Let it work in bursts, as long and as far apart as those of a ring at full speed."""
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def until_busy(end: netns.End) -> None:
    import netns

    idle = end.transmitted()
    netns.until(lambda: end.transmitted() > idle + 100, "traffic")


def cost(path: Path, packets: int, runs: int, cores: list[int]) -> None:
    import netns

    files, resting, rings, drops = [], [], [], []
    file = command({"pcap_file": str(path), "host_spec": HOSTS}, packets, cores[-1])
    with netns.pair() as (sender, receiver):
        replay = ["taskset", "-c", str(cores[0]), "tcpreplay", "--no-flow-stats", "-i", sender.iface]
        replay += ["--topspeed", "--preload-pcap"]
        for _ in range(runs):
            found = result_of(run_child(file))
            assert found["packets"] == packets, found
            files.append(found["cpu"] / packets * 1e9)
            beside = sender.popen(*replay, "--loop=0", str(path))
            until_busy(sender)
            process = run_child(file)
            rest_now_and_then(process)
            resting.append(result_of(process)["cpu"] / packets * 1e9)
            beside.stop(signal.SIGINT)
            config = {"iface": receiver.iface, "pcap_source": "af_packet", "host_spec": HOSTS}
            process = run_child(receiver.command(command(config, packets, cores[-1])))
            sender.run(*replay, str(path))
            found = result_of(process)
            assert found["packets"] + found["drops"] == packets, found
            drops.append(found["drops"])
            rings.append(found["cpu"] / max(found["packets"], 1) * 1e9)
    ring, went, rested = map(statistics.median, (rings, files, resting))
    print(f"| cost | ring {ring:.0f} ns, file {went:.0f} ns | {ring / went:.2f} | bar 1.3, aim 1.1 |")
    print(f"| ... | file, in bursts beside a sender {rested:.0f} ns | {ring / rested:.2f} | |")
    print(f"| drops meanwhile | {sorted(map(int, drops))} of {packets:,} | | |")


def drops(path: Path, packets: int, pps: int, seconds: float) -> None:
    """pktvisord with its default policy at a rate, scraped every second."""
    import netns

    url = "http://127.0.0.1:10853/metrics"
    times: list[float] = []
    stop = threading.Event()
    with netns.pair() as (sender, receiver):
        run = "from netprobe.cli.pktvisord import main; raise SystemExit(main())"
        options = ["-l", "127.0.0.1", "-p", "10853", "-H", HOSTS, receiver.iface]
        agent = receiver.popen(sys.executable, "-c", run, *options)

        def scrape() -> str:
            began = time.monotonic()
            text = receiver.run("curl", "-sf", url, check=False).stdout
            times.append(time.monotonic() - began)
            return text

        def scrape_on() -> None:
            while not stop.wait(1):
                scrape()

        def counted(name: str) -> float:
            """A metric of the agent's, summed over inputs."""
            lines = [
                line for line in scrape().splitlines() if line.startswith("netprobe_input") and name in line
            ]
            assert lines, f"no {name}"
            return sum(float(line.split()[-1]) for line in lines)

        netns.until(scrape, "an answer")
        times.clear()
        threading.Thread(target=scrape_on, daemon=True).start()
        try:
            sent = sender.replay(
                path, f"--pps={pps}", "--preload-pcap", f"--loop={max(1, round(seconds * pps / packets))}"
            )
            read = netns.settled(lambda: counted("_read_packets_total"), quiet_s=1)
        finally:
            stop.set()
        lost, longest = counted('stage="os_drops"'), counted("longest_batch_seconds")
        status = Path(f"/proc/{agent.pid}/status").read_text()
        rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
        agent.stop()
    assert read + lost == sent, (read, lost, sent)
    print(
        f"| drops at {pps:,} packets/s | {lost:.0f} of {sent:,} | longest batch {longest * 1e3:.1f} ms |"
        f" scrape {statistics.median(times) * 1e3:.0f} ms, RSS {rss:.0f} MB with the ring |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=Path("/tmp/netprobe-bench"))
    parser.add_argument("--packets", type=int, default=1000000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pps", default="300000,500000")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--only", default="cost,drops")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--smoke", action="store_true", help="does it run? says nothing about speed")
    args = parser.parse_args()
    if args.smoke:
        args.packets, args.runs, args.pps, args.seconds = 1000, 1, "1000", 1
    if args.child:
        child(json.loads(args.child), args.packets)
        return
    cores = sorted(os.sched_getaffinity(0))
    path = args.dir / f"mix-{args.packets}.pcap"
    if not path.exists():
        make = [
            sys.executable,
            HERE / "generate.py",
            "mix",
            "--dir",
            args.dir,
            "--packets",
            str(args.packets),
        ]
        subprocess.run(make, check=True)
    if "cost" in args.only:
        cost(path, args.packets, args.runs, cores)
    if "drops" in args.only:
        for pps in args.pps.split(","):
            drops(path, args.packets, int(pps), args.seconds)


if __name__ == "__main__":
    main()

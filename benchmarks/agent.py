"""Measures a running pktvisord on a veth pair, as root; prints one row per bar of the agent.

    python benchmarks/agent.py [--only ROW[,ROW]] [--runs N] [--pps N] [--seconds N] [--dir DIR] [--smoke]

start    from starting the process to the first packet that is counted, under a trickle of packets
idle     CPU of an agent that sees nothing
window   /api/v1/metrics/window/5 of a busy agent: 1,000 requests, one after the other
drops    packets lost at a rate, default policy, while /metrics is fetched every second; what is counted and
         what is lost must add up to what was sent, or the row fails
rss      memory after that, the ring's pages apart, and how much it grew over the second half

tcpreplay needs a core of its own. Timings are only worth something on an idle machine. --smoke is short and
judges nothing but that every row runs and the counts add up. Cost per packet: benchmarks/live.py.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "tests"))

import netns  # noqa: E402
from agentkit import CAPTURES, PORT, Agent  # noqa: E402

HOSTS = "192.168.0.0/16,2001:db8::/32"
DEMO = CAPTURES / "demo.pcap"


class Result(NamedTuple):
    shown: str
    value: float
    bar: float
    aim: float

    def verdict(self) -> str:
        return "aim" if self.value <= self.aim else "ok" if self.value <= self.bar else "OVER"


class Row(NamedTuple):
    name: str
    what: str
    run: Callable[[Bench], Result]


class Bench:
    def __init__(self, args: argparse.Namespace) -> None:
        self.smoke: bool = args.smoke
        self.runs: int = args.runs
        self.pps: int = args.pps
        self.seconds: float = args.seconds
        self.folder: Path = args.dir
        self.sender_core = min(os.sched_getaffinity(0))
        self.rss: Result | None = None

    def capture(self) -> tuple[Path, int]:
        """The mixed traffic of generate.py, written when missing; and its packets."""
        packets = 3000 if self.smoke else 1_000_000
        path = self.folder / f"mix-{packets}.pcap"
        if not path.exists():
            command = [sys.executable, str(HERE / "generate.py"), "--dir", str(self.folder)]
            subprocess.run(
                [*command, "--packets", str(packets), "mix"], check=True, stdout=subprocess.DEVNULL
            )
        return path, packets

    @contextmanager
    def trickle(self, sender: netns.End, pps: int) -> Iterator[None]:
        """Packets without end, from a core of their own."""
        path = DEMO if pps < 10_000 else self.capture()[0]
        # a slow sender sleeps between packets, a fast one has to watch the clock
        timer = "--timer=nano" if pps < 10_000 else "--timer=gtod"
        program = sender.popen(
            *("taskset", "-c", str(self.sender_core), "tcpreplay", "-q", "-i", sender.iface),
            *("--loop=0", "--preload-pcap", timer, f"--pps={pps}", str(path)),
        )
        try:
            # it is under way when the interface has taken something
            netns.until(lambda: sender.transmitted() > 0)
            yield
        finally:
            program.stop(signal.SIGINT)

    # --- rows ---

    def start(self) -> Result:
        """Wall time from before the process exists to the first packet that is counted, and to an answer.

        Packets come evenly: the share of them that is missing in the first answer is the share of the time
        that went by before the first one was counted.
        """
        firsts, answers = [], []
        for _ in range(self.runs):
            with netns.pair() as (sender, receiver), self.trickle(sender, 2000), receiver.inside():
                before, began = received(receiver.iface), time.monotonic()
                agent = Agent(receiver, receiver.iface, start=False)
                while not (packets := counted()):
                    pass
                took, came = time.monotonic() - began, received(receiver.iface) - before
                firsts.append(took * max(came - packets, 0) / came)
                answers.append(took)
                agent.stop()
        value = statistics.median(firsts)
        shown = (
            f"{value:.2f} s ({min(firsts):.2f} at best), answered after {statistics.median(answers):.2f} s"
        )
        return Result(shown, value, 0.6, 0.3)

    def idle(self) -> Result:
        """CPU seconds per second, after the first second."""
        seconds = 1.0 if self.smoke else 30.0
        with netns.pair() as (_, receiver):
            agent = Agent(receiver, receiver.iface)
            time.sleep(1)
            before, began = switches_and_cpu(agent), time.monotonic()
            time.sleep(seconds)
            after, took = switches_and_cpu(agent), time.monotonic() - began
            agent.stop()
        share = (after[1] - before[1]) / took * 100
        woken = (after[0] - before[0]) / took
        return Result(f"{share:.2f} % of a core, {woken:.0f} wake-ups/s", share, 1.0, 0.3)

    def window(self) -> Result:
        """Latency at the client, over one connection, in milliseconds."""
        requests = 20 if self.smoke else 1000
        times = []
        with netns.pair() as (sender, receiver):
            agent = Agent(receiver, "-H", HOSTS, receiver.iface)
            with self.trickle(sender, 2000 if self.smoke else self.pps // 3):
                netns.until(lambda: agent.total() > 0)
                if not self.smoke:
                    time.sleep(5)  # tables fill up
                with receiver.inside():
                    client = http.client.HTTPConnection("localhost", PORT, timeout=30)
                    for _ in range(requests):
                        began = time.monotonic()
                        client.request("GET", "/api/v1/metrics/window/5")
                        reply = client.getresponse()
                        body = reply.read()
                        times.append((time.monotonic() - began) * 1e3)
                        assert reply.status == 200, body
                    client.close()
            agent.stop()
        times.sort()
        p99 = times[int(len(times) * 0.99)]
        half = statistics.median(times)
        return Result(f"p99 {p99:.1f} ms, median {half:.1f} ms", p99, 50, 15)

    def drops(self) -> Result:
        path, packets = self.capture()
        pps = 20_000 if self.smoke else self.pps
        loops = 2 if self.smoke else max(1, round(self.seconds * pps / packets))
        with netns.pair() as (sender, receiver):
            agent = Agent(receiver, "-H", HOSTS, receiver.iface)
            stop = threading.Event()
            scrapes: list[float] = []
            sizes: list[float] = []

            def scrape() -> None:
                while not stop.wait(1.0):
                    began = time.monotonic()
                    agent.metrics()
                    scrapes.append((time.monotonic() - began) * 1e3)
                    sizes.append(memory_mb(agent))

            scraper = threading.Thread(target=scrape)
            scraper.start()
            try:
                began = time.monotonic()
                sent = send(sender, self.sender_core, path, pps, loops)
                took = time.monotonic() - began
                counted, lost, failed = netns.settled(lambda: losses(agent), quiet_s=2.0)
            finally:
                stop.set()
                scraper.join()
            ticks = agent.cpu_seconds() / took * 100
            sizes.append(memory_mb(agent))
            agent.stop()
        assert counted + lost == sent, f"{counted} counted + {lost} lost are not {sent} sent"
        grown = sizes[-1] - sizes[len(sizes) // 2]
        self.rss = Result(f"{sizes[-1]:.0f} MB, {grown:+.1f} MB over the second half", sizes[-1], 120, 80)
        shown = f"{lost:,} of {sent:,} at {sent / took / 1e3:.0f} k/s, CPU {ticks:.0f} %"
        if scrapes:
            shown += f", scrape {max(scrapes):.0f} ms at most"
        return Result(shown + (f", {failed} at the interface" if failed else ""), lost + failed, 0, 0)

    def memory(self) -> Result:
        """Of the agent of `drops`."""
        if self.rss is None:
            self.drops()
        assert self.rss is not None
        return self.rss


def received(iface: str) -> int:
    """Frames that an interface of this thread's namespace has taken in."""
    text = Path("/proc/thread-self/net/dev").read_text()
    return int(text.partition(f"{iface}:")[2].split()[1])


def counted() -> int:
    """Packets that an agent in this namespace has counted; 0 as long as none answers."""
    client = http.client.HTTPConnection("localhost", PORT, timeout=10)
    try:
        client.request("GET", "/api/v1/metrics/bucket/0")
        reply = client.getresponse()
        body = reply.read()
        return int(json.loads(body)["1m"]["packets"]["total"]) if reply.status == 200 else 0
    except OSError:
        return 0
    finally:
        client.close()


def send(sender: netns.End, core: int, path: Path, pps: int, loops: int) -> int:
    """How many frames the interface took; all, or the benchmark ends."""
    argv = ["taskset", "-c", str(core), "tcpreplay", "-i", sender.iface, "--preload-pcap", "--no-flow-stats"]
    done = sender.run(*argv, f"--pps={pps}", f"--loop={loops}", str(path), seconds=3600)
    sent = re.search(r"Successful packets:\s+(\d+)", done.stdout)
    failed = re.search(r"Failed packets:\s+(\d+)", done.stdout)
    assert sent and failed and failed[1] == "0", done.stdout
    return int(sent[1])


def losses(agent: Agent) -> tuple[int, int, int]:
    """Packets counted, packets lost on the way, and drops of the interface, since the start."""

    def total(pattern: str) -> int:
        return sum(
            int(float(n)) for n in re.findall(rf"^netprobe_input_{pattern} (\S+)$", text, re.MULTILINE)
        )

    text = agent.metrics()
    lost = total(r'losses_total\{.*stage="(?:os_drops|ring_losses)"\}')
    return total(r"packets_total\{.*\}"), lost, total(r'losses_total\{.*stage="if_drops"\}')


def memory_mb(agent: Agent) -> float:
    """Resident memory without the pages of the ring, which the kernel fills."""
    text = Path(f"/proc/{agent.pid}/smaps").read_text()
    total = ring = 0
    of_ring = False
    for line in text.splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            of_ring = "socket:" in line
        elif line.startswith("Rss:"):
            size = int(line.split()[1])
            total += size
            ring += size if of_ring else 0
    return (total - ring) / 1024


def switches_and_cpu(agent: Agent) -> tuple[int, float]:
    """Voluntary context switches of all threads, and nanosecond-exact CPU seconds."""
    woken, spent = 0, 0.0
    for task in Path(f"/proc/{agent.pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                woken += int(line.split()[1])
        spent += int((task / "schedstat").read_text().split()[0]) / 1e9
    return woken, spent


ROWS = [
    Row("start", "start to first packet counted", Bench.start),
    Row("idle", "idle CPU", Bench.idle),
    Row("window", "window/5, 1,000 requests", Bench.window),
    Row("drops", "drops while scraped", Bench.drops),
    Row("rss", "memory, the ring apart", Bench.memory),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--only", default="", help=f"rows, comma-separated: {', '.join(names)}")
    parser.add_argument("--runs", type=int, default=0, help="of `start` (default 9)")
    parser.add_argument("--pps", type=int, default=300_000, help="packets per second (default 300000)")
    parser.add_argument("--seconds", type=float, default=60, help="how long `drops` sends (default 60)")
    parser.add_argument("--dir", type=Path, default=Path("/tmp/netprobe-bench"), help="where captures are")
    parser.add_argument("--smoke", action="store_true", help="short, no verdict on time")
    args = parser.parse_args()
    args.runs = args.runs or (1 if args.smoke else 9)
    chosen = args.only.split(",") if args.only else names
    if unknown := set(chosen) - set(names):
        parser.error(f"no row called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if os.geteuid() != 0:
        parser.error("needs root, for network namespaces")
    bench = Bench(args)
    for row in ROWS:
        if row.name not in chosen:
            continue
        found = row.run(bench)
        bars = f"<= {found.bar:g} (aim {found.aim:g})"
        verdict = "ran" if args.smoke else found.verdict()
        print(f"{row.what:30} {found.shown:58} {bars:18} {verdict}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

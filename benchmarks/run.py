"""Measures the bars and prints them as a table.

    python benchmarks/run.py [--only ROW[,ROW]] [--runs N] [--dir DIR] [--geo DIR] [--packets N,N] [--smoke]

Per-packet cost is CPU time (user + system of the whole process) on 5 million packets less that on 1 million,
divided by 4 million; median of the runs. Beside each run goes the floor, `tcpdump -r F -w /dev/null`,
measured the same way on the same core. Timings are only worth something on an idle machine. --smoke uses tiny
captures and asserts nothing about time: it says whether every row still runs and counts every packet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

ALL = "net:1.0+all,net:2.0+all,dns:1.0+all,dns:2.0+all,dhcp,bgp,pcap"
# as in generate.py; not imported from there, because importing numpy would show up as memory of our children
HOSTS = {
    "mix": "192.168.0.0/16,2001:db8::/32",
    "dns": "192.0.2.0/24,2001:db8:53::/48",
    "small": "10.0.0.0/8",
    "flood": "192.0.2.0/24,2001:db8:53::/48",
}


class Usage(NamedTuple):
    """What one process took: seconds of CPU, seconds of wall clock, peak memory in MB."""

    cpu: float
    wall: float
    rss: float
    out: bytes


def spend(command: Sequence[str], core: int | None, keep: bool = True) -> Usage:
    """Runs a command to its end, pinned to `core` if given. A failure ends the benchmark with its message.

    keep: its output; else it goes to /dev/null. (What is kept counts as memory of the next child, which
    begins as a copy of this process.)
    """
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    began = time.monotonic()
    out = b""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE if keep else subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        if process.stdout is not None:
            out = process.stdout.read()
        errors = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - began
    if process.returncode:
        sys.exit(f"{' '.join(command)}\nfailed with {process.returncode}:\n{errors.decode(errors='replace')}")
    return Usage(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024, out)


class Captures:
    """What every table measures on: two sizes of captures, and one core."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.folder: Path = args.dir
        self.smoke: bool = args.smoke
        self.runs: int = args.runs
        self.few, self.many = (int(n) for n in ("1000,3000" if args.smoke else args.packets).split(","))
        self.core = max(os.sched_getaffinity(0))

    def capture(self, kind: str, packets: int) -> str:
        """Written when missing, by another process; then read once so that it is in memory."""
        path = self.folder / f"{kind}-{packets}.pcap"
        if not path.exists():
            command = [sys.executable, str(HERE / "generate.py"), "--dir", str(self.folder)]
            subprocess.run([*command, "--packets", str(packets), kind], check=True, stdout=subprocess.DEVNULL)
        with path.open("rb") as f:
            while f.read(1 << 20):
                pass
        return str(path)


B = TypeVar("B", bound=Captures)


class Row(NamedTuple, Generic[B]):
    name: str
    what: str
    run: Callable[[B], str]


def print_table(
    rows: Sequence[Row[B]],
    make: Callable[[argparse.Namespace], B],
    description: str | None,
    more: Mapping[str, Mapping[str, Any]],
) -> int:
    """The program: its command line, with `more` flags, and the rows that are asked for. Its exit code."""
    names = [row.name for row in rows]
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help=f"rows, comma-separated: {', '.join(names)}")
    parser.add_argument("--runs", type=int, default=0, help="of each measurement (default 5)")
    parser.add_argument(
        "--dir", type=Path, default=Path("/tmp/netprobe-bench"), help="where captures are kept"
    )
    parser.add_argument("--packets", default="1000000,5000000", help="the two sizes, fewer for a quick look")
    parser.add_argument("--smoke", action="store_true", help="tiny captures, no verdict on time")
    for flag, how in more.items():
        parser.add_argument(flag, **how)
    args = parser.parse_args()
    args.runs = args.runs or (1 if args.smoke else 5)
    chosen = args.only.split(",") if args.only else names
    if unknown := set(chosen) - set(names):
        parser.error(f"no row called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    bench = make(args)
    width = max(len(row.what) for row in rows)
    print(f"{'':{width}} {'netprobe':>11} {'floor':>11} {'ratio':>9}   bar")
    for row in rows:
        if row.name not in chosen:
            continue
        line = row.run(bench)
        # of tiny captures the figures are noise
        print(f"{row.what:{width}} {'ran' if bench.smoke else line}", flush=True)
    return 0


class Bench(Captures):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.flood = self.many * 6 // 5
        script = Path(sys.executable).with_name("pktvisor-pcap")
        self.program = (
            [str(script)] if script.exists() else [sys.executable, "-m", "netprobe.cli.pktvisor_pcap"]
        )
        self.geo: list[str] = []
        city, asn = args.geo / "GeoIP2-City-Test.mmdb", args.geo / "GeoIP2-ISP-Test.mmdb"
        if city.exists() and asn.exists():
            self.geo = ["--geo-city", str(city), "--geo-asn", str(asn)]
        else:
            print(f"no databases in {args.geo}: the rows of all handlers run without geo")
        self.peaks: dict[str, float] = {}

    def netprobe(self, kind: str, packets: int, flags: Sequence[str], pin: bool = True) -> Usage:
        """One run of pktvisor-pcap, checked: a JSON document that has every packet."""
        command = [*self.program, *flags, self.capture(kind, packets)]
        used = spend(command, self.core if pin else None)
        document: dict[str, Any] = json.loads(used.out)
        (window,) = document.values()
        if window["packets"]["events"] != packets:
            sys.exit(f"{' '.join(command)}: {window['packets']['events']} packets of {packets}")
        label = f"{kind} {'all' if '--handlers' in flags else 'default'}" + (" x2" if "2" in flags else "")
        self.peaks[label] = max(self.peaks.get(label, 0), used.rss)
        return used

    def floor(self, kind: str, packets: int) -> Usage:
        return spend(["tcpdump", "-r", self.capture(kind, packets), "-w", "/dev/null"], self.core)

    def all_flags(self, kind: str) -> list[str]:
        return ["--handlers", ALL, "-H", HOSTS[kind], *self.geo]

    def cost(self, kind: str, flags: Sequence[str], bar: float, aim: float) -> str:
        """Median per-packet cost over the floor's, with both in nanoseconds."""
        ours, floors = [], []
        for _ in range(self.runs):
            pair = []
            for packets in (self.few, self.many):
                pair.append((self.floor(kind, packets).cpu, self.netprobe(kind, packets, flags).cpu))
            per = self.many - self.few
            floors.append((pair[1][0] - pair[0][0]) / per * 1e9)
            ours.append((pair[1][1] - pair[0][1]) / per * 1e9)
        mine, floor = statistics.median(ours), statistics.median(floors)
        ratio = mine / floor if floor > 0 else float("nan")
        verdict = "aim" if ratio <= aim else "ok" if ratio <= bar else "OVER"
        return f"{mine:8.0f} ns {floor:8.0f} ns {ratio:7.2f} x   <= {bar:.2f} (aim {aim:.2f})  {verdict}"

    def speedup(self, kind: str, flags: Sequence[str], bar: float) -> str:
        """Wall time of the extra packets with one worker over that with two."""
        ratios = []
        for _ in range(self.runs):
            walls = []
            for workers in ("1", "2"):
                few, many = (
                    self.netprobe(kind, n, [*flags, "--workers", workers], pin=False).wall
                    for n in (self.few, self.many)
                )
                walls.append(many - few)
            ratios.append(walls[0] / walls[1] if walls[1] > 0 else float("nan"))
        ratio = statistics.median(ratios)
        return f"{'':23}  {ratio:7.2f} x   >= {bar:.2f}             {'ok' if ratio >= bar else 'UNDER'}"

    def start(self) -> str:
        """Wall time of a whole process on 140 packets."""
        walls = [self.netprobe("dns", 140, [], pin=False).wall for _ in range(max(self.runs, 3))]
        wall = statistics.median(walls)
        verdict = "aim" if wall <= 0.12 else "ok" if wall <= 0.30 else "OVER"
        return f"{wall:8.3f} s {'':13}{'':9}   <= 0.30 (aim 0.12)  {verdict}"

    def memory(self) -> str:
        """Peak RSS of the flood with everything on, and of whatever ran before."""
        flags = self.all_flags("flood")
        flat = [self.netprobe("flood", n, flags).rss for n in (max(self.few, self.flood // 3), self.flood)]
        worst = max(self.peaks.values())
        verdict = "aim" if worst <= 80 else "ok" if worst <= 150 else "OVER"
        lines = [f"{worst:8.0f} MB {'':12}{'':9}   <= 150 (aim 80)     {verdict}"]
        lines.append(f"{'':24}flood, a third of it and all: {flat[0]:.0f} and {flat[1]:.0f} MB")
        lines += [f"{'':24}{label}: {peak:.0f} MB" for label, peak in sorted(self.peaks.items())]
        return "\n".join(lines)


def rows() -> list[Row[Bench]]:
    return [
        Row("mix", "default, mix", lambda b: b.cost("mix", [], 1.0, 0.5)),
        Row("dns", "default -H, dns", lambda b: b.cost("dns", ["-H", HOSTS["dns"]], 2.0, 1.0)),
        Row("small", "default, small", lambda b: b.cost("small", [], 0.8, 0.4)),
        Row("all-mix", "all, mix", lambda b: b.cost("mix", b.all_flags("mix"), 3.0, 1.5)),
        Row("all-dns", "all, dns", lambda b: b.cost("dns", b.all_flags("dns"), 4.0, 2.0)),
        Row("workers", "2 workers, default", lambda b: b.speedup("mix", [], 1.3)),
        Row("workers-all", "2 workers, all", lambda b: b.speedup("mix", b.all_flags("mix"), 1.7)),
        Row("start", "140 packets", lambda b: b.start()),
        Row("rss", "peak memory", lambda b: b.memory()),
    ]


def main() -> int:
    geo = {"type": Path, "default": ROOT.parent / "shared/data/geo", "help": "MaxMind test databases"}
    return print_table(rows(), Bench, __doc__, {"--geo": geo})


if __name__ == "__main__":
    sys.exit(main())

"""Measures the bars of flow records and prints them as a table.

    python benchmarks/flows.py [--only ROW[,ROW]] [--runs N] [--dir DIR] [--packets N,N] [--smoke]
                               [--nfstream-python PYTHON]

Cost as in run.py: CPU time of the whole process on 5 million packets less that on 1 million, divided by
4 million, with the floor `tcpdump -r F -w /dev/null` measured in turn with it, on the same core; medians.
Peers that are installed run in the same turns: softflowd and nfpcapd (Debian), NFStream (PyPI; in another
environment: --nfstream-python). The last rows are about memory and about packets that must not get lost.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from run import Captures, Row, Usage, print_table, spend

HERE = Path(__file__).resolve().parent

ARROW = """
import sys, netprobe
rows = packets = 0
for chunk in netprobe.flows(sys.argv[1], decode=sys.argv[2] == "decode"):
    chunk.__arrow_c_stream__()
    rows += chunk.rows
    packets += int(chunk["out_pkts"].sum() + chunk["in_pkts"].sum())
print(packets)
"""
NFSTREAM = """
import sys, nfstream
flows = nfstream.NFStreamer(source=sys.argv[1], n_dissections=0, statistical_analysis=False, n_meters=1,
                            idle_timeout=60, active_timeout=1800)
print(sum(f.bidirectional_packets for f in flows))
"""
# everything through the table: what the law is about, as JSON
LAW = """
import json, sys
from netprobe._core.capfile import CaptureReader
from netprobe._core.flow_reader import FlowReader
from netprobe.inputs.sources import open_source
with open_source(sys.argv[1]) as source:
    reader = CaptureReader(source)
    reader.open()
    pairs = sys.argv[2] == "pairs"
    mode = {"schedule": not pairs, "bidirectional": pairs, "raw_extensions": not pairs}
    native = FlowReader(reader, decode=True, **mode)
    native.drain()
    print(json.dumps(native.stats()))
"""


class Bench(Captures):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.nfstream: str = args.nfstream_python

    def spend(self, command: Sequence[str], keep: bool = True) -> Usage:
        return spend(command, self.core, keep)

    # --- commands: a capture -> what to run on it ---

    def floor(self, path: str) -> Usage:
        return self.spend(["tcpdump", "-r", path, "-w", "/dev/null"])

    def kprobe(self, *flags: str) -> Callable[[str], Usage]:
        program = [sys.executable, "-m", "netprobe.cli.kprobe", *flags, "--read"]
        return lambda path: self.spend([*program, path], keep=False)

    def arrow(self, path: str) -> Usage:
        used = self.spend([sys.executable, "-c", ARROW, path, ""])
        packets = int(Path(path).stem.rpartition("-")[2])
        if int(used.out) != packets:
            sys.exit(f"netprobe.flows({path}): {int(used.out)} packets of {packets}")
        return used

    def peers(self) -> dict[str, Callable[[str], Usage]]:
        """Those that are installed."""
        found: dict[str, Callable[[str], Usage]] = {}
        if shutil.which("softflowd"):
            # the default of 8192 flows would thrash
            call = ["softflowd", "-d", "-m", "2000000", "-r"]
            found["softflowd"] = lambda path: self.spend([*call, path])
        if shutil.which("nfpcapd"):

            def nfpcapd(path: str) -> Usage:
                with tempfile.TemporaryDirectory() as out:
                    return self.spend(["nfpcapd", "-r", path, "-l" if old_nfdump() else "-w", out])

            found["nfpcapd"] = nfpcapd
        return found

    def has_nfstream(self) -> bool:
        check = [self.nfstream, "-c", "import nfstream"]
        return subprocess.run(check, capture_output=True, check=False).returncode == 0

    # --- rows ---

    def per_packet(self, kind: str, commands: Sequence[Callable[[str], Usage]]) -> list[float]:
        """Median nanoseconds of each command, all of them in turn."""
        costs: list[list[float]] = [[] for _ in commands]
        for _ in range(self.runs):
            few, many = (
                [run(path).cpu for run in commands]
                for path in (self.capture(kind, self.few), self.capture(kind, self.many))
            )
            for cost, a, b in zip(costs, few, many, strict=True):
                cost.append((b - a) / (self.many - self.few) * 1e9)
        return [statistics.median(cost) for cost in costs]

    def cost(
        self, kind: str, command: Callable[[str], Usage], bar: float, aim: float, peers: bool = False
    ) -> str:
        others = self.peers() if peers else {}
        floor, mine, *rest = self.per_packet(kind, [self.floor, command, *others.values()])
        ratio = mine / floor if floor > 0 else float("nan")
        verdict = "aim" if ratio <= aim else "ok" if ratio <= bar else "OVER"
        line = f"{mine:8.0f} ns {floor:8.0f} ns {ratio:7.2f} x   <= {bar:.2f} (aim {aim:.2f})  {verdict}"
        for name, other in zip(others, rest, strict=True):
            line += f"\n{'':22}{name}: {other:.0f} ns, {other / floor if floor > 0 else 0:.1f} x"
        return line

    def notebook(self) -> str:
        """Packets per second of CPU into Arrow, over those of NFStream (start-up included for both)."""
        (mine,) = self.per_packet("mix", [self.arrow])
        rate = 1e9 / mine if mine > 0 else float("nan")
        theirs = 45_000.0
        said = "NFStream is not installed: 45000/s, as measured elsewhere"
        if self.has_nfstream():
            path = self.capture("mix", self.few)
            used = self.spend([self.nfstream, "-c", NFSTREAM, path])
            children = self.few / used.cpu
            theirs, said = children, f"NFStream: {children:.0f} packets/s of CPU on {self.few} packets"
        ratio = rate / theirs
        verdict = "aim" if ratio >= 100 else "ok" if ratio >= 50 else "UNDER"
        line = f"{mine:8.0f} ns {rate / 1e6:6.2f} M/s {ratio:8.0f} x   >= 50 (aim 100)      {verdict}"
        return f"{line}\n{'':22}{said}"

    def memory(self) -> str:
        """Peak resident memory with a million flows open at once."""
        path = self.capture("small", self.many)
        peaks = {
            "kprobe --no-decode": self.kprobe("--export", "null", "--no-decode")(path).rss,
            "kprobe": self.kprobe("--export", "null")(path).rss,
            "netprobe.flows": self.arrow(path).rss,
        }
        worst = max(peaks.values())
        verdict = "aim" if worst <= 250 else "ok" if worst <= 400 else "OVER"
        line = f"{worst:8.0f} MB {'':12}{'':9}   <= 400 (aim 250)    {verdict}"
        return "\n".join([line, *(f"{'':22}{name}: {peak:.0f} MB" for name, peak in peaks.items())])

    def flood(self) -> str:
        """New addresses in every packet: memory flat, nothing lost without a number."""
        lines = []
        for mode in ("schedule", "pairs"):
            peaks = []
            for packets in (max(self.few, self.many * 2 // 3), self.many * 2):
                used = self.spend([sys.executable, "-c", LAW, self.capture("flood", packets), mode])
                stats = json.loads(used.out)
                kept = ("filtered_out", "not_ip", "unreadable", "fragments_lost", "packets", "ignored")
                if stats["framed"] != packets or packets != sum(stats[name] for name in kept):
                    sys.exit(f"flood, {mode}: {packets} packets, but {stats}")
                if (stats["packets"], stats["bytes"]) != (stats["out_packets"], stats["out_bytes"]):
                    sys.exit(f"flood, {mode}: records do not add up to packets: {stats}")
                if stats["created"] > 1_000_000 and not stats["evicted"]:
                    sys.exit(f"flood, {mode}: more flows than room, but no eviction is counted")
                peaks.append(used.rss)
            flat = "ok" if peaks[1] <= peaks[0] * 1.1 or self.smoke else "GROWS"
            lines.append(
                f"{mode}: {peaks[0]:.0f} MB after {packets // 3}, {peaks[1]:.0f} MB after {packets} packets,"
                f" {stats['evicted']} evicted  {flat}"
            )
        return f"\n{'':22}".join(["", *lines])


def old_nfdump() -> bool:
    """Until 1.6 the folder was called -l."""
    said = subprocess.run(["nfpcapd", "-h"], capture_output=True, text=True, check=False)
    return "-w " not in said.stdout + said.stderr


def rows() -> list[Row[Bench]]:
    null = ("--export", "null")
    jsonl = ("--export", "jsonl", "--no-decode")
    return [
        Row("mix", "null, mix", lambda b: b.cost("mix", b.kprobe(*null, "--no-decode"), 1.5, 0.8, True)),
        Row("small", "null, small", lambda b: b.cost("small", b.kprobe(*null, "--no-decode"), 3, 1.5, True)),
        Row("decode", "null, decoders, mix", lambda b: b.cost("mix", b.kprobe(*null), 2.5, 1.5)),
        Row("jsonl", "jsonl, mix", lambda b: b.cost("mix", b.kprobe(*jsonl), 4, 2)),
        Row("arrow", "flows() to Arrow, mix", lambda b: b.notebook()),
        Row("rss", "a million flows", lambda b: b.memory()),
        Row("flood", "flood", lambda b: b.flood()),
    ]


def main() -> int:
    nfstream = {"default": sys.executable, "help": "a Python that has NFStream"}
    return print_table(rows(), Bench, __doc__, {"--nfstream-python": nfstream})


if __name__ == "__main__":
    sys.exit(main())

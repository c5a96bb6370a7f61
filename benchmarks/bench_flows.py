"""What the flow table costs: nanoseconds per packet and memory, one process per row.

    python benchmarks/bench_flows.py [--dir DIR] [--packets N] [mix|small|flood ...]

Takes the captures of generate.py, which must be there. `schedule` is kprobe's way (unidirectional, records
every 15 s of packet time, records thrown away), `pairs` and `single` are netprobe.flows with and without
bidirectional, `arrow` is netprobe.flows with every chunk handed over as an Arrow stream. It is CPU time of
the process from opening the file to the last record; reading and decoding are part of it, start-up is not.
`peak` is the resident memory of the whole process. Run a row twice: a file that is not in the page cache
costs CPU time as well.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

DEFAULT_DIR = Path("/tmp/netprobe-bench")
CAPTURES = ("mix", "small", "flood")
MODES = ("schedule", "pairs", "single", "arrow")


def one(path: str, mode: str) -> None:
    """Run one row in this process and print its numbers."""
    from netprobe._core.capfile import CaptureReader
    from netprobe._core.flow_reader import FlowReader
    from netprobe.inputs.sources import open_source

    if mode == "arrow":
        import numpy  # noqa: F401

        from netprobe.flow_columns import flows

        start = time.process_time()
        run = flows(path)
        for chunk in run:
            chunk.__arrow_c_stream__()
        stats = run.stats()
    else:
        start = time.process_time()
        with open_source(path) as source:
            reader = CaptureReader(source)
            reader.open()
            native = FlowReader(
                reader, schedule=mode == "schedule", bidirectional=mode == "pairs", active_ns=1800 * 10**9
            )
            native.drain()
            stats = native.stats()
    spent = time.process_time() - start
    assert stats["packets"] == stats["out_packets"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{mode:9} {spent * 1e9 / stats['framed']:7.0f} ns/packet {stats['records']:9} records"
        f" {stats['evicted']:8} evicted {peak:5} MB peak"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("captures", nargs="*", metavar="|".join(CAPTURES))
    parser.add_argument("--dir", type=Path, default=DEFAULT_DIR)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, metavar=("FILE", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(*args.one)
        return 0
    for name in args.captures or CAPTURES:
        path = args.dir / f"{name}-{args.packets}.pcap"
        if not path.is_file():
            print(f"{path}: not there; python benchmarks/generate.py --packets {args.packets} {name}")
            continue
        print(path.name)
        for mode in MODES:
            subprocess.run([sys.executable, __file__, "--one", str(path), mode], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fuzzing of the native parts under AddressSanitizer and UndefinedBehaviorSanitizer, guided by coverage.

    python tests/fuzz/run.py [--seconds 60] [--only TARGET[,TARGET]] [--jobs N] [--build DIR]

Copies the project into the build folder (by default build/fuzz), compiles its native modules there with gcc's
sanitizers and block counters, and mutates captures and messages until the time is up: --seconds is wall time,
shared by all targets; building is not counted. A crash, a hang, a sanitizer's report or an exception that was
not promised is a finding: its input goes to tests/fuzz/seeds/TARGET/ (where test_regressions.py replays it
for ever) and the exit code is 1. The corpus grows in the build folder from run to run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SEEDS = HERE / "seeds"

# where setup.py leaves the C files that Cython makes
GENERATED = "build/cython"
# what gcc calls at each block when told -fsanitize-coverage=trace-pc
COUNTERS = """
#include <stdint.h>
uint32_t netprobe_coverage_size = 1 << 16;
uint8_t netprobe_coverage[1 << 16];
void __sanitizer_cov_trace_pc(void) {
    uint64_t pc = (uint64_t)__builtin_return_address(0);
    pc ^= pc >> 16;
    uint8_t *p = &netprobe_coverage[(pc * 0x9E3779B97F4A7C15u) >> 48];
    *p += *p < 255;
}
"""
# more time for what has more code behind it
WEIGHTS = {
    "capture": 2,
    "decode": 3,
    "dns": 2,
    "dhcp": 1,
    "stream": 2,
    "fragment": 2,
    "traffic": 3,
    "whole": 2,
    "app_wire": 2,
    "app_datagram": 2,
    "app_stream": 3,
    "flows": 3,
    "flow_file": 2,
    "modes": 1,
}


def copy_tree(build: Path) -> None:
    """The sources as they are now; unchanged files keep their time, so that little is compiled again."""
    for name in ("netprobe", "cli", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if not source.exists():
            continue
        files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
        for path in files:
            if path.suffix in (".so", ".pyc", ".c"):
                continue
            target = build / path.relative_to(ROOT)
            if target.exists() and target.read_bytes() == path.read_bytes():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    # what Cython made of them is the same for every build; what is older than its sources is made anew
    for path in (ROOT / GENERATED).rglob("*.c"):
        target = build / path.relative_to(ROOT)
        if not target.exists() or target.stat().st_mtime < path.stat().st_mtime:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    for path in [p for p in (build / "netprobe").rglob("*.py*") if p.suffix in (".py", ".pyx", ".pxd")]:
        if not (ROOT / path.relative_to(build)).exists():
            path.unlink()


def build_sanitized(build: Path) -> Path:
    """Compiles everything in `build`; the path of the counter library."""
    copy_tree(build)
    environment = {
        **os.environ,
        "NETPROBE_SANITIZE": "1",
        "NETPROBE_BUILD_DIR": GENERATED,
        "CFLAGS": "-fsanitize-coverage=trace-pc",
    }
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--inplace",
        "--build-temp",
        "build/obj",
        "-j",
        "2",
    ]
    done = subprocess.run(command, cwd=build, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the sanitized build failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    source, library = build / "counters.c", build / "counters.so"
    if not library.exists() or not source.exists() or source.read_text() != COUNTERS:
        source.write_text(COUNTERS)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def runtime(name: str) -> str:
    """The path of one of gcc's sanitizer libraries."""
    out = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return str(Path(out.stdout.strip()).resolve())


def worker_environment(build: Path, library: Path) -> dict[str, str]:
    return {
        **os.environ,
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')} {library}",
        # Python's own memory goes through malloc, so that the end of each bytes object is guarded
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": f"{build}:{HERE}",
        "PYTHONDONTWRITEBYTECODE": "1",
        # leaks at exit are Python's; a signal stays a signal
        "ASAN_OPTIONS": "detect_leaks=0:handle_abort=0:hard_rss_limit_mb=3000:max_allocation_size_mb=1024",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def prepare_corpus(build: Path) -> None:
    """Seeds from the capture generator, the recorded captures and everything that was ever found."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import seeds

    for name, inputs in seeds.all_seeds().items():
        folder = build / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for data in inputs:
            path = folder / ("seed-" + hashlib.sha1(data).hexdigest()[:16])
            if not path.exists():
                path.write_bytes(data)
        for path in sorted((SEEDS / name).glob("*")):
            shutil.copy(path, folder / f"found-{path.name}")


def run_one(
    name: str, seconds: float, seed: int, build: Path, environment: dict[str, str]
) -> dict[str, object]:
    """One worker; what it said, or a finding."""
    # the module of that name must be the one in the build folder
    with tempfile.NamedTemporaryFile(
        prefix=f"fuzz-{name}-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as f:
        command = [sys.executable, str(HERE / "worker.py"), name, str(seconds), str(seed)]
        command += [str(build / "corpus" / name), f.name]
        limit = seconds + 120
        try:
            done = subprocess.run(
                command, cwd=build, env=environment, capture_output=True, text=True, errors="replace",
                timeout=limit, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return {
                "target": name,
                "finding": "no end",
                "report": str(late.stderr)[-4000:],
                "input": Path(f.name).read_bytes(),
            }
        if done.returncode == 0:
            result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
            return result
        return {
            "target": name,
            "finding": f"exit {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}",
            "report": done.stderr[-6000:],
            "input": Path(f.name).read_bytes(),
        }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", default="", help=f"targets: {', '.join(WEIGHTS)}")
    parser.add_argument("--jobs", type=int, default=min(4, len(os.sched_getaffinity(0))))
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(WEIGHTS)
    if unknown := set(names) - set(WEIGHTS):
        parser.error(f"no target {', '.join(sorted(unknown))}")
    build = args.build.resolve()
    build.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    library = build_sanitized(build)
    prepare_corpus(build)
    print(f"built in {time.monotonic() - began:.0f} s", flush=True)
    environment = worker_environment(build, library)
    seed = args.seed or random.SystemRandom().randrange(1 << 31)
    share = args.seconds * args.jobs / sum(WEIGHTS[n] for n in names)
    findings = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = [
            pool.submit(run_one, n, share * WEIGHTS[n], seed + i, build, environment)
            for i, n in enumerate(names)
        ]
        for job in jobs:
            result = job.result()
            data = result.pop("input", None)
            report = result.pop("report", None)
            print(json.dumps(result), flush=True)
            if isinstance(data, bytes):
                findings += 1
                path = SEEDS / str(result["target"]) / hashlib.sha1(data).hexdigest()[:16]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                print(f"{report}\ninput: {path} (seed {seed})", flush=True)
    print(f"{findings} findings, seed {seed}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

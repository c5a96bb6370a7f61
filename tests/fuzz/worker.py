"""One target, mutated inputs, for so many seconds; started by run.py in the sanitized build.

    worker.py TARGET SECONDS SEED CORPUS_DIR CURRENT_FILE

The input about to be tried is in CURRENT_FILE, so that it is known after a crash. Inputs that reach new code
(the preloaded counter library says so) join the corpus and its folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

HANG_SECONDS = 20
MAX_INPUT = 1 << 16
INTERESTING = [0, 1, 7, 8, 16, 32, 63, 64, 100, 127, 128, 192, 255]
WIDE = [
    0,
    1,
    11,
    12,
    19,
    20,
    255,
    256,
    512,
    1500,
    4096,
    32767,
    32768,
    65535,
    65536,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
]


class Coverage:
    """Which code has run since the last reset, as a map of counters that the sanitized modules write."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        size = ctypes.c_uint32.in_dll(library, "netprobe_coverage_size").value
        raw = (ctypes.c_uint8 * size).in_dll(library, "netprobe_coverage")
        self.map = np.frombuffer(raw, np.uint8)
        self.seen = np.zeros(size, np.uint8)
        # how often, roughly: a loop that runs 200 times instead of 2 is news
        self.classes = np.array([0] + [1 << min(n.bit_length() - 1, 7) for n in range(1, 256)], np.uint8)

    def reset(self) -> None:
        self.map[:] = 0

    def news(self) -> bool:
        reached = self.classes[self.map]
        if not (reached & ~self.seen).any():
            return False
        self.seen |= reached
        return True

    def points(self) -> int:
        return int(np.count_nonzero(self.seen))


def mutate(rng: random.Random, base: bytes, corpus: list[bytes]) -> bytes:
    data = bytearray(base)
    for _ in range(1 << rng.randrange(5)):
        n = len(data)
        at = rng.randrange(n) if n else 0
        kind = rng.randrange(12)
        if kind == 0 and n:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and n:
            data[at] = rng.choice(INTERESTING)
        elif kind == 2 and n:
            data[at] = rng.randrange(256)
        elif kind == 3 and n:
            data[at] = (data[at] + rng.randrange(-8, 9)) & 255
        elif kind in (4, 5) and n >= 4:
            width = rng.choice((2, 4, 4, 8))
            order = rng.choice(("little", "big"))
            at = rng.randrange(max(1, n - width))
            old = int.from_bytes(data[at : at + width], order)
            new = rng.choice(WIDE) if kind == 4 else old + rng.randrange(-16, 17)
            data[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, order)
        elif kind == 6:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        elif kind == 7 and n:
            del data[at : at + rng.randrange(1, 1 + min(n, 64))]
        elif kind == 8 and n:
            size = rng.randrange(1, 1 + min(n, 64))
            to = rng.randrange(n)
            data[to:to] = data[at : at + size]
        elif kind == 9 and n:
            del data[at:]
        elif kind == 10:
            other = rng.choice(corpus)
            if other:
                cut = rng.randrange(len(other))
                data[at:] = other[cut:] if rng.randrange(2) else other[cut : cut + 64] + data[at:]
        elif kind == 11 and n:
            size = rng.randrange(1, 1 + min(n, 32))
            data[at : at + size] = bytes([rng.choice((0, 255, 0xC0))]) * size
    return bytes(data[:MAX_INPUT])


def main() -> int:
    name, seconds, seed, corpus_dir, current = sys.argv[1:]
    folder = Path(corpus_dir)
    import targets

    import netprobe

    # not the one that is installed
    assert Path(netprobe.__file__).is_relative_to(Path.cwd()), netprobe.__file__
    if not targets.usable(name):
        print(json.dumps({"target": name, "skipped": "not built"}))
        return 0
    target = targets.TARGETS[name]
    rng = random.Random(int(seed))
    coverage = Coverage()
    corpus: list[bytes] = []
    executions = 0
    # a signal without a Python handler: it ends the process even inside native code
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    record = os.open(current, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def attempt(data: bytes) -> bool:
        nonlocal executions
        os.ftruncate(record, 0)
        os.pwrite(record, data, 0)
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        coverage.reset()
        target(data)
        executions += 1
        return coverage.news()

    deadline = time.monotonic() + float(seconds)
    files = sorted(folder.iterdir())
    for path in files:
        data = path.read_bytes()
        # seeds stay in any case, so that a blind build still has something to mutate
        attempt(data)
        corpus.append(data)
        if time.monotonic() > deadline:
            break
    if not corpus:
        corpus.append(b"\0" * 16)
    found = 0
    while time.monotonic() < deadline:
        # newer inputs reach further: prefer them
        base = corpus[-1 - int(len(corpus) * rng.random() ** 2)]
        data = mutate(rng, base, corpus)
        if attempt(data):
            corpus.append(data)
            found += 1
            (folder / ("new-" + hashlib.sha1(data).hexdigest()[:16])).write_bytes(data)
    signal.setitimer(signal.ITIMER_REAL, 0)
    result = {
        "target": name,
        "executions": executions,
        "seeds": len(files),
        "new": found,
        "points": coverage.points(),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())

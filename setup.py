"""Native modules: every netprobe/_core/**/*.pyx is one extension. The rest is in pyproject.toml."""

import fnmatch
import multiprocessing
import os
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Errors, ExprNodes, PyrexTypes, Symtab
from setuptools import Extension, setup

ROOT = Path(__file__).parent

# NETPROBE_MODULES=netprobe._core.sketch.* builds some only (development)
ONLY = os.environ.get("NETPROBE_MODULES", "*").split(",")
# NETPROBE_SANITIZE=1 builds for the fuzz harness (tests/fuzz)
SANITIZE = bool(os.environ.get("NETPROBE_SANITIZE"))

# NETPROBE_OPTIMIZE=-O0 builds in a third of the time (tests of packaging)
CFLAGS = [
    os.environ.get("NETPROBE_OPTIMIZE", "-O3"),
    # functions and lines for debuggers; variables would take a quarter of the time and most of the room
    "-g1",
    "-fno-plt",
    "-Wno-unused-function",
    "-Wno-unreachable-code",
    "-Wno-maybe-uninitialized",
]
LDFLAGS = ["-lpthread"]
if SANITIZE:
    CFLAGS = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-Wno-unused-function"]
    LDFLAGS += ["-fsanitize=address,undefined"]

DIRECTIVES = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "embedsignature": True,
}


def refuse_hints():
    """Make errors of Cython's performance hints: what runs without the GIL must not have to ask for it."""

    def refuse(position, message, env):
        if env.directives["show_performance_hints"]:
            Errors.error(position, f"performance hint: {message}")

    for module in (ExprNodes, PyrexTypes, Symtab):
        # the name is Cython's own affair; a test looks whether a hint still ends the build
        if hasattr(module, "performance_hint"):
            module.performance_hint = refuse


def extensions():
    # the longest first, so that no core waits for it at the end
    for pyx in sorted((ROOT / "netprobe" / "_core").rglob("*.pyx"), key=lambda pyx: -pyx.stat().st_size):
        path = pyx.relative_to(ROOT)
        name = ".".join(path.with_suffix("").parts)
        if any(fnmatch.fnmatch(name, pattern) for pattern in ONLY):
            yield Extension(name, [str(path)], extra_compile_args=CFLAGS, extra_link_args=LDFLAGS)


refuse_hints()
# Cython's helpers are forked, or they would not refuse hints
multiprocessing.set_start_method("fork", force=True)
CORES = len(os.sched_getaffinity(0))

packages = [
    "netprobe",
    "netprobe.cli",
    *sorted(
        ".".join(init.parent.relative_to(ROOT).parts)
        for init in (ROOT / "netprobe").rglob("__init__.py")
        if init.parent != ROOT / "netprobe"
    ),
]

setup(
    packages=packages,
    options={"build_ext": {"parallel": CORES}},
    ext_modules=cythonize(
        list(extensions()),
        nthreads=CORES,
        build_dir=os.environ.get("NETPROBE_BUILD_DIR", "build/cython"),
        compiler_directives=DIRECTIVES,
        quiet=True,
    ),
)

"""Code is loaded late, so that the first packet is counted soon; but not so late that it is out of reach.

Once the agent runs, the rest of what it may need is loaded: later there may be no file descriptor left to
read code with. Where code cannot be read any more when the privileges are gone, everything is loaded
beforehand, which costs some tenths of a second. Typical: `sudo .venv/bin/pktvisord eth0` below a home that
only its owner may enter. Root without CAP_DAC_OVERRIDE is nobody special there.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import pkgutil
import signal
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from netprobe.agent.privileges import User, drop
from netprobe.errors import ConfigError

__all__ = ["Trial", "check_installed", "load_everything", "load_late"]

LOG = logging.getLogger("netprobe.agent")

#: what only an agent needs: an extra of the distribution
EXTRA = ("uvicorn", "starlette", "h11", "yaml")
#: parts of netprobe that an agent uses; the others bring heavy libraries
PARTS = ("_core", "agent", "handlers", "inputs", "metrics", "policy")
#: of other libraries, what they load late
LATE = (
    "yaml",
    "ssl",
    "anyio._backends._asyncio",
    "uvicorn.lifespan.off",
    "difflib",
    "maxminddb",
    "pcapy",
    "publicsuffixlist",
    *(f"encodings.{name}" for name in ("ascii", "idna", "latin_1", "punycode", "utf_8_sig", "utf_16")),
)


#: of netprobe, what an agent loads when it is first asked for it
OWN = (
    *(
        f"netprobe._core.acc_{name}"
        for name in ("bgp", "dhcp", "dns_v1", "dns_v2", "net", "pcap", "resources")
    ),
    *(f"netprobe._core.{name}" for name in ("mock", "pcaplive", "peers", "ring")),
    "netprobe.agent.openapi",
    "netprobe.filters",
    *(f"netprobe.inputs.{name}" for name in ("captures", "live", "live_filter")),
)


def check_installed() -> None:
    """ConfigError when a library is missing that will be needed later."""
    for name in EXTRA:
        if _file_of(name) is None:
            raise ConfigError(f"the Python package {name} is missing: pip install 'netprobe-suite[agent]'")


class Trial:
    """Can code still be read once the privileges are dropped? A child process tries it out meanwhile."""

    def __init__(self, user: User | None) -> None:
        self._child = os.fork()
        if self._child == 0:
            _try_out(user)

    def succeeded(self) -> bool:
        # a failure is no news, and neither is how the child ended
        return os.waitpid(self._child, 0)[1] == 0


def _try_out(user: User | None) -> NoReturn:
    try:
        signal.alarm(10)
        drop(user)
        # the standard library, by a module that is not frozen into the interpreter
        for name in ("logging", "netprobe", *EXTRA):
            _look_at(name)
        os._exit(0)
    except BaseException:
        os._exit(1)


def _look_at(name: str) -> None:
    path = Path(_file_of(name) or "/nowhere")
    with path.open("rb"):
        next(path.parent.iterdir())


def _file_of(name: str) -> str | None:
    """Where a module would be loaded from; None: nowhere."""
    try:
        spec = importlib.util.find_spec(name)
    except ImportError:
        return None
    return spec.origin if spec is not None else None


def load_everything() -> None:
    """Import what is otherwise imported at first use. What is not installed is not needed."""
    names = [*LATE]
    for part in PARTS:
        package = importlib.import_module(f"netprobe.{part}")
        names += _modules(package)
    _load(names)
    from netprobe._core.suffix import public_suffixes

    public_suffixes()


def load_late() -> None:
    """The same for an agent that runs, and for what one may be asked for: less, and in less memory."""
    _load((*LATE, *OWN))


def _load(names: Iterable[str]) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as problem:
            LOG.debug("not loaded: %s: %s", name, problem)


def _modules(package: ModuleType) -> list[str]:
    found = []
    for _, name, is_package in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        found.append(name)
        if is_package:
            found += _modules(importlib.import_module(name))
    return found

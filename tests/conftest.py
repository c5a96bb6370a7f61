"""What every test may ask for: where captures are, and what to do when something is missing.

Locally a test that lacks a tool, root or the shared data is skipped with a message that names what is
missing. Under ``CI=true`` a skip is a failure, because a suite that quietly runs nothing is green for the
wrong reason; the one exception is the shared data, which is not part of the project.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
SHARED_ABSENT = "shared data absent"


def in_ci() -> bool:
    """True where a skip must fail the run."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def shared_data() -> Path | None:
    """The folder described by ../shared/data/README.md, or None. NETPROBE_SHARED_DATA overrides the place."""
    path = Path(os.environ.get("NETPROBE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    return path if (path / "README.md").is_file() else None


@functools.cache
def missing_for_namespaces() -> str:
    """Why network namespaces cannot be used here; empty when they can."""
    if os.geteuid() != 0:
        return "root"
    if shutil.which("ip") is None:
        return "the program ip (iproute2)"
    name = f"np-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces ({made.stderr.strip()})"
    subprocess.run(["ip", "netns", "del", name], check=False)
    return ""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "tool(*names): needs these programs on the path")
    # below nohup the programs under test would ignore it, as they should
    signal.signal(signal.SIGHUP, lambda number, frame: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # with two workers, what takes minutes must not come last
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root"):
        missing = missing_for_namespaces()
        if missing:
            pytest.skip(f"missing: {missing}")
    for marker in item.iter_markers("tool"):
        for name in marker.args:
            if shutil.which(name) is None:
                pytest.skip(f"missing: the program {name}")


def skip_reason(longrepr: object) -> str:
    if isinstance(longrepr, tuple):
        return str(longrepr[2])
    return str(longrepr)


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Under CI, turns a skip into a failure unless it says that the shared data is absent."""
    if not report.skipped or hasattr(report, "wasxfail") or not in_ci():
        return
    reason = skip_reason(report.longrepr)
    if SHARED_ABSENT in reason:
        return
    report.outcome = "failed"
    report.longrepr = f"skipped under CI=true: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    forbid_skip(report)
    return report


@pytest.fixture(scope="session")
def captures() -> Path:
    """The small captures that belong to the project."""
    return TESTS / "captures"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data folder; skips when it is not there."""
    path = shared_data()
    if path is None:
        pytest.skip(f"{SHARED_ABSENT}: no ../shared/data (or NETPROBE_SHARED_DATA)")
    return path


@pytest.fixture(scope="session")
def geo_city(shared: Path) -> str:
    return str(shared / "geo" / "GeoIP2-City-Test.mmdb")


@pytest.fixture(scope="session")
def geo_asn(shared: Path) -> str:
    return str(shared / "geo" / "GeoIP2-ISP-Test.mmdb")

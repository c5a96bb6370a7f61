"""What gets installed: a wheel, in an environment of its own, used from outside of the source tree."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def checked(*command: str | Path, **keywords: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **keywords)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist of a copy of what git knows, so that files left lying about do not help."""
    base = tmp_path_factory.mktemp("wheel")
    source, out = base / "source", base / "out"
    names = checked("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in names:
        if name.startswith(("netprobe/", "cli/", "tests/test_")) or "/" not in name:
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                target.write_bytes((ROOT / name).read_bytes())
    # what an sdist holds does not depend on what is compiled
    nothing = {**os.environ, "NETPROBE_MODULES": ""}
    checked(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", out, cwd=source, env=nothing)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if name.split("/")[1:2] == ["tests"]]
    quick = {**os.environ, "NETPROBE_OPTIMIZE": "-O0"}
    checked(
        sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, sdist, env=quick
    )
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of a new environment with the wheel and nothing else."""
    base = tmp_path_factory.mktemp("installed") / "venv"
    checked(sys.executable, "-m", "venv", base)
    checked(base / "bin" / "python", "-m", "pip", "install", "--quiet", wheel)
    return base / "bin"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wheel_content(wheel: Path) -> None:
    assert wheel.name.startswith("netprobe_suite-")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"netprobe"}
    assert {"netprobe/py.typed", "netprobe/cli/pktvisor_pcap.py", "netprobe/cli/_docopt.py"} <= names
    assert {"netprobe/kentik/kflow.capnp", "netprobe/ui/app.tcss"} <= names
    for native in (ROOT / "netprobe").rglob("*.pyx"):
        stem = native.relative_to(ROOT).with_suffix("").as_posix()
        assert any(name.startswith(f"{stem}.") and name.endswith(".so") for name in names), stem
        for sibling in (".pxd", ".pyi"):
            assert (stem + sibling in names) == native.with_suffix(sibling).is_file(), stem + sibling
    assert not [name for name in names if name.endswith((".c", ".cpp", ".pyx"))]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_installed_wheel_works(environment: Path, captures: Path, tmp_path: Path) -> None:
    demo = captures.resolve() / "demo.pcap"
    for name in ("pktvisor-pcap", "pktvisor-reader"):
        document = json.loads(checked(environment / name, demo, cwd=tmp_path))
        assert document["5m"]["packets"]["total"] > 0
    flags = "--read", demo, "--export", "jsonl", "--no-decode"
    records = checked(environment / "kprobe", *flags, cwd=tmp_path).splitlines()
    assert all(json.loads(record)["out_pkts"] >= 0 for record in records)
    assert records
    for name in PROJECT["project"]["scripts"]:
        assert "Usage:" in checked(environment / name, "--help", cwd=tmp_path)
    python = environment / "python"
    where = checked(python, "-c", "import netprobe; print(netprobe.__file__)", cwd=tmp_path)
    assert not where.startswith(str(ROOT))
    absent = subprocess.run([python, "-c", "import cli"], capture_output=True, text=True, cwd=tmp_path)
    assert "ModuleNotFoundError" in absent.stderr
    assert "summarize(" in checked(python, "-c", "import netprobe; help(netprobe)", cwd=tmp_path)
    agent = subprocess.run([environment / "pktvisord", "lo"], capture_output=True, text=True, cwd=tmp_path)
    assert "pip install 'netprobe-suite[agent]'" in agent.stdout + agent.stderr
    assert agent.returncode == 1
    code = "import netprobe; print(netprobe.live('none', source='mock', seconds=0.1).packets >= 0)"
    assert checked(python, "-c", code, cwd=tmp_path) == "True\n"
    code = (
        "import netprobe\nwith netprobe.Agent({'visor': {}}) as agent: print(list(agent.policies))\n"
        "try: netprobe.Agent('visor: {}\\n')\nexcept netprobe.ConfigError as error: print(error)"
    )
    said = checked(python, "-c", code, cwd=tmp_path).splitlines()
    assert said == ["[]", "reading YAML needs PyYAML: pip install 'netprobe-suite[agent]'"]
    code = "import netprobe, sys; print(netprobe.summarize(sys.argv[1]).packets)"
    assert int(checked(python, "-c", code, demo, cwd=tmp_path)) > 0


@pytest.mark.parametrize(("exceptions", "builds"), [("noexcept nogil", True), ("except * nogil", False)])
def test_build_fails_on_performance_hints(tmp_path: Path, exceptions: str, builds: bool) -> None:
    """What runs without the GIL never asks for it (DESIGN)."""
    core = tmp_path / "netprobe" / "_core"
    core.mkdir(parents=True)
    (tmp_path / "setup.py").write_bytes((ROOT / "setup.py").read_bytes())
    for name in ("one", "two"):  # several modules are compiled by processes of their own
        (core / f"{name}.pyx").write_text(
            f"cdef void one(int x) {exceptions}:\n    pass\n\ndef f():\n    with nogil:\n        one(1)\n"
        )
    for _ in range(2):  # a second try does not find what the first has left
        done = subprocess.run(
            [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode == 0) == builds, done.stderr
        assert ("performance hint: Exception check" in done.stderr) != builds
    assert len(list(core.glob("*.so"))) == 2 * builds


def test_readme_commands_exist() -> None:
    """Exactly two set-up commands, and CI runs the second."""
    blocks = (ROOT / "README.md").read_text().split("```")[1::2]
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("./dev ")]
    assert [command.split()[1] for command in commands] == ["demo", "test"]
    assert "./dev test" in (ROOT / ".ci" / "run").read_text()
    usage = checked(ROOT / "dev", "help")
    assert all(command.split("  ")[0] in usage for command in commands)


def test_links_of_the_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"

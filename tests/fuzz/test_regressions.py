"""Every input that fuzzing ever found, and a handful of seeds, through the ordinary build."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import seeds  # noqa: E402
import targets  # noqa: E402

FOUND = sorted(p for p in (HERE / "seeds").glob("*/*") if p.is_file())


@pytest.mark.parametrize("path", FOUND, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_found(path: Path) -> None:
    targets.TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds(name: str) -> None:
    assert targets.usable(name), f"the part that {name} drives is not built"
    inputs = seeds.all_seeds()[name]
    assert inputs
    for data in inputs[::5]:
        targets.TARGETS[name](data)

"""The ground that the cases of the agent's matrix stand on: repositories, models, and the table."""

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import call
from tests.e2e.agent_runs import commit
from tests.e2e.conftest import Served
from tightloop.bench.bugs import load_bugs, write_repository
from tightloop.bench.paths import PROMPT as PROMPT

ROOT = Path(__file__).parents[2]
NOTE = ROOT / "design" / "0042-agent-matrix.md"
MODULES = ("test_agent_matrix", "test_agent_matrix_bounds")
both = pytest.mark.parametrize("model", ["scripted", "bundled"])
"""A case for the scripted engine and for the bundled network."""
FILES = {
    "f": "old\n",
    "g": "one\n",
    "d": "gone\n",
    "pytest": "#!/bin/sh\ngrep -qx new f || { echo 1 failed; exit 1; }\necho 1 passed\n",
}
PYTEST = "python -m pytest -q"
BUGS = {
    "first": "python-stdlib-tokenize-comparison",
    "second": "python-stdlib-keep_original_ws-constant",
}
"""By which of the bundled network's guesses mends them."""
CONFIG = "[sandbox.policies.workspace-write]\nwarm_tests = false\n"
"""A resident test process only takes time to start here; it has tests of its own."""


@dataclass(frozen=True)
class Ground:
    """A repository, a server for it, and the words for ``exec``."""

    repo: Path
    url: str
    words: tuple[str, ...]
    test: str
    target: str

    def content(self) -> dict[str, str]:
        """Every file of the checkout that a run could change."""
        names = sorted(self.repo.iterdir())
        return {each.name: each.read_text() for each in names if each.is_file()}


def configured(place: Path, more: str = "") -> tuple[str, ...]:
    """Options of a run with this configuration whose work is applied."""
    path = place / "config.toml"
    path.write_text(CONFIG + more)
    return ("--apply", "--config", str(path))


def scripted_ground(place: Path, served: Served, more: str = "") -> Ground:
    """A repository whose test is a shell script."""
    repo = commit(place / "repo", FILES)
    return Ground(repo, served.url, configured(place, more), "./pytest", "f")


def bundled_ground(place: Path, url: str, bug_of: str = "first", more: str = "") -> Ground:
    """A real function with a bug, and its tests, which do not take the plugins of this machine."""
    bug = next(bug for bug in load_bugs() if bug.id == BUGS[bug_of])
    repo = place / "repo"
    write_repository(bug, repo)
    (repo / "g").write_text("one\n")
    return Ground(repo, url, configured(place, more), PYTEST, "target.py")


def is_green(ground: Ground) -> bool:
    """The checkout's own tests pass, without our program around them."""
    words = ["./pytest"] if ground.test == "./pytest" else [sys.executable, "-m", "pytest", "-q"]
    done = subprocess.run(words, cwd=ground.repo, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def update(name: str, old: str, new: str) -> str:
    """The part of a patch that replaces a line."""
    return f"*** Update File: {name}\n@@\n-{old}\n+{new}"


def patch(*parts: str) -> dict[str, Any]:
    """A step of a script."""
    return call("apply_patch", "\n".join(["*** Begin Patch", *parts, "*** End Patch"]))


Row = tuple[int, str, bool]


def cases() -> set[Row]:
    """Number, scenario and whether the bundled network takes part, of each test of the matrix."""
    rows: set[Row] = set()
    for module in MODULES:
        for name, test in vars(import_module(f"tests.e2e.{module}")).items():
            found = re.fullmatch(r"test_(\d+)_(\w+)", name)
            if found:
                marks = [mark for mark in getattr(test, "pytestmark", []) if mark == both.mark]
                rows.add((int(found[1]), found[2].replace("_", " "), bool(marks)))
    return rows


def table() -> set[Row]:
    """The same as the design note has it."""
    found = re.findall(
        r"^\| (\d+) \| ([^|]+) \| yes \| (yes|no)\b", NOTE.read_text("utf-8"), re.MULTILINE
    )
    return {(int(number), scenario.strip(), word == "yes") for number, scenario, word in found}

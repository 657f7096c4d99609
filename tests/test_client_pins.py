"""What ``make clients`` installs is pinned, and says nothing about where it was looked up."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).resolve().parent.parent / "clients"
LOCK = CLIENTS / "package-lock.json"
NOT_SEEN = "opencode-"
"""Its packages for other platforms, which not every registry has: pinned by version alone."""


def packages() -> dict[str, dict[str, Any]]:
    """The lock file's packages, without the project itself."""
    found: dict[str, dict[str, Any]] = json.loads(LOCK.read_text("utf-8"))["packages"]
    return {place: package for place, package in found.items() if place}


def test_the_lock_file_names_no_registry() -> None:
    """An address would bind everybody to the registry of whoever wrote the file."""
    assert "://" not in LOCK.read_text("utf-8")
    assert [place for place, package in packages().items() if "resolved" in package] == []


def test_every_program_is_pinned_by_its_content() -> None:
    """Exact versions in the request, a hash in the lock file."""
    wanted = json.loads((CLIENTS / "package.json").read_text("utf-8"))["dependencies"]
    for name, version in wanted.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), name
        assert packages()[f"node_modules/{name}"]["version"] == version
    without = {place for place, package in packages().items() if "integrity" not in package}
    assert [p for p in without if not p.startswith(f"node_modules/{NOT_SEEN}")] == []
    assert "node_modules/opencode-linux-x64" not in without


@pytest.mark.parametrize("name", ["openai-agents", "mini-swe-agent"])
def test_python_agents_are_locked_with_hashes(name: str) -> None:
    """The lock holds what the request asks for, and a hash for each package."""
    locked = (CLIENTS / f"{name}.txt").read_text("utf-8")
    requested = (CLIENTS / f"{name}.in").read_text("utf-8").splitlines()
    for line in requested:
        if not line.startswith("#"):
            assert f"\n{line} \\\n" in f"\n{locked}"
    blocks = re.split(r"^(?=[a-z])", locked, flags=re.MULTILINE)[1:]
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert "--index-url" not in locked

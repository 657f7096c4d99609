"""When a background process no longer fits its project."""

from dataclasses import replace
from pathlib import Path

import pytest

from tightloop.cli.testing.freshness import Freshness, look
from tightloop.cli.testing.interpreter import Interpreter
from tightloop.sandbox.interface import Policy


@pytest.fixture
def known(tmp_path: Path) -> tuple[Interpreter, Path, Policy]:
    """What one is looked at with."""
    root = tmp_path / "project"
    (root / ".git").mkdir(parents=True)
    (root / ".git" / "config").write_text("x")
    return Interpreter(Path("/bin/sh")), tmp_path / "config.toml", Policy(root)


def test_nothing_changed_is_no_reason(known: tuple[Interpreter, Path, Policy]) -> None:
    """Neither is a file of the project, nor a module of ours that is loaded later."""
    first = look(*known)
    (known[2].workspace / "core.py").touch()
    later = replace(look(*known), program=first.program | {("/new.py", (1, 2, 3))})
    assert first.reason(later) == ""


def test_what_a_sandbox_took_over_is_a_reason(known: tuple[Interpreter, Path, Policy]) -> None:
    """A protected file in another's place, another project of that name, a configuration."""
    first = look(*known)
    config = known[2].workspace / ".git" / "config"
    (config.parent / "config.new").write_text("x")
    (config.parent / "config.new").rename(config)
    assert "protected files have been replaced" in first.reason(look(*known))
    second = look(*known)
    known[1].write_text("[sandbox]\n")
    assert second.reason(look(*known)) == "the configuration has changed"
    third = look(*known)
    (known[2].workspace / ".tightloop.toml").touch()
    assert "protected files" in third.reason(look(*known))


def test_an_upgrade_is_a_reason(known: tuple[Interpreter, Path, Policy]) -> None:
    """A file of ours that was loaded is another one now, or gone."""
    first = look(*known)
    files = [file for file, _ in first.program]
    assert any(file.endswith("freshness.py") for file in files)
    upgraded: Freshness = replace(first, program=frozenset((file, (0, 0, 0)) for file in files))
    assert first.reason(upgraded) == "tightloop itself has changed"

"""Bases are keyed by what they hold."""

import os
from pathlib import Path

import pytest

from tests.sandbox.conftest import git
from tightloop.sandbox.bases import base_for, forget_old, run_git
from tightloop.sandbox.interface import SandboxError


def test_the_base_has_history_but_no_way_back(repository: Path, tmp_path: Path) -> None:
    """Its own repository: same commits, no remote, no hooks of the user."""
    hook = repository / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    base = base_for(repository, tmp_path / "bases")
    assert git(base, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert git(base, "remote") == ""
    assert git(base, "status", "--porcelain") == ""
    assert not (base / ".git" / "hooks").exists()
    assert not (tmp_path / "ran").exists()


def test_the_key_follows_content_and_mode(repository: Path, tmp_path: Path) -> None:
    """Going back to an earlier state finds the earlier base again."""
    bases = tmp_path / "bases"
    clean = base_for(repository, bases)
    (repository / "script").chmod(0o644)
    changed = base_for(repository, bases)
    (repository / "script").chmod(0o755)
    os.utime(repository / "lines")
    assert changed != clean
    assert base_for(repository, bases) == clean


def test_a_repository_without_a_commit_is_a_plain_directory(tmp_path: Path) -> None:
    """Its files are there all the same."""
    place = tmp_path / "fresh"
    place.mkdir()
    git(place, "init", "-q")
    (place / "file").write_text("x")
    base = base_for(place, tmp_path / "bases")
    assert (base / "file").read_text() == "x"


def test_old_bases_are_forgotten_but_not_those_in_use(repository: Path, tmp_path: Path) -> None:
    """Nine states: the two oldest would go, one of them is in use."""
    bases = tmp_path / "bases"
    made = []
    for number in range(10):
        (repository / "lines").write_text(f"{number}\n")
        base = base_for(repository, bases)
        os.utime(bases / (base.name + ".used"), ns=(number, number))
        made.append(base)
    forget_old(bases, {made[0].name})
    assert [base.is_dir() for base in made] == [True, False] + [True] * 8


def test_git_speaks_for_itself_when_it_fails(tmp_path: Path) -> None:
    """The command, the place, its words."""
    with pytest.raises(SandboxError, match=r"git status in .* failed: fatal: not a git repository"):
        run_git(["status"], tmp_path)

"""Bases are keyed by what they hold."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sandbox.conftest import git
from tests.sandbox.ordinary import place, run
from tightloop.sandbox.bases import (
    base_for,
    find_base,
    make_base,
    read_record,
    run_git,
    tree_state,
)
from tightloop.sandbox.interface import SandboxError

__all__ = ["place"]


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


def test_files_and_directories_may_have_changed_places(repository: Path, tmp_path: Path) -> None:
    """A file where a directory was, and the other way round."""
    shutil.rmtree(repository / "sub")
    (repository / "sub").write_text("now a file\n")
    (repository / "link").unlink()
    (repository / "link" / "deep").mkdir(parents=True)
    (repository / "link" / "deep" / "file").write_text("now a directory\n")
    base = base_for(repository, tmp_path / "bases")
    assert (base / "sub").read_text() == "now a file\n"
    assert (base / "link" / "deep" / "file").read_text() == "now a directory\n"


def test_what_a_link_of_the_user_leads_to_is_left_alone(repository: Path, tmp_path: Path) -> None:
    """Where a directory was, and files of it are elsewhere now: they are gone from the tree."""
    elsewhere = tmp_path / "elsewhere"
    (repository / "sub").rename(elsewhere)
    (elsewhere / "deep" / "file").chmod(0o600)
    before = (elsewhere / "deep" / "file").stat()
    (repository / "sub").symlink_to(elsewhere)
    base = base_for(repository, tmp_path / "state" / "bases")
    assert str(elsewhere) == os.readlink(base / "sub")
    after = (elsewhere / "deep" / "file").stat()
    assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)


def test_two_makers_make_one(repository: Path, tmp_path: Path) -> None:
    """Whoever comes second waits and takes what is there; no lock and no half-made base is left."""
    bases = tmp_path / "state" / "bases"
    state = tree_state(repository, exclude=bases.parent)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: make_base(state, bases), range(4)))
    assert made == [bases / state.key] * 4
    left = {state.key, f"{state.key}.json", f"{state.key}.used"}
    assert set(os.listdir(bases)) == left


def test_a_half_made_base_is_made_anew(repository: Path, tmp_path: Path) -> None:
    """What a killed process left is not taken for a base, and goes."""
    bases = tmp_path / "state" / "bases"
    state = tree_state(repository, exclude=bases.parent)
    (bases / f"making-{state.key}-x").mkdir(parents=True)
    (bases / f"{state.key}.lock").write_text("")
    assert find_base(state, bases) is None
    base = make_base(state, bases)
    assert (base / "script").exists()
    assert not (bases / f"making-{state.key}-x").exists()


def test_the_record_says_what_a_base_is(repository: Path, tmp_path: Path) -> None:
    """Commit, changes, size: what a list shows."""
    (repository / "lines").write_text("changed\n")
    state = tree_state(repository, exclude=tmp_path / "state")
    record = read_record(make_base(state, tmp_path / "state" / "bases"))
    assert record is not None
    assert (record.repository, record.commit) == (str(repository), state.commit)
    assert (record.num_changed, record.num_files > 5, record.size_bytes > 0) == (1, True, True)


def test_a_commit_can_be_named(repository: Path, tmp_path: Path) -> None:
    """Made ahead of time, it is what a clean tree at that commit finds."""
    first = git(repository, "rev-parse", "HEAD").strip()
    (repository / "lines").write_text("second\n")
    git(repository, "commit", "-q", "-a", "-m", "second")
    old = tree_state(repository, exclude=tmp_path / "state", commit="HEAD~1")
    base = make_base(old, tmp_path / "state" / "bases")
    assert (old.commit, (base / "lines").read_text()[:6]) == (first, "line 0")
    assert git(base, "status", "--porcelain") == ""
    git(repository, "checkout", "-q", first)
    assert base_for(repository, tmp_path / "state" / "bases") == base
    with pytest.raises(SandboxError, match="git rev-parse"):
        tree_state(repository, exclude=tmp_path / "state", commit="no-such")


def test_git_speaks_for_itself_when_it_fails(tmp_path: Path) -> None:
    """The command, the place, its words."""
    with pytest.raises(SandboxError, match=r"git status in .* failed: fatal: not a git repository"):
        run_git(["status"], tmp_path)


def test_a_repository_that_cannot_be_linked_is_sent(repository: Path, tmp_path: Path) -> None:
    """git refuses to copy links among its objects; some tools make them."""
    objects = repository / ".git" / "objects"
    (objects / "pack" / "link").symlink_to(tmp_path)
    base = base_for(repository, tmp_path / "bases")
    assert git(base, "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert git(base, "status", "--porcelain") == ""
    assert not (base / ".git" / "objects" / "pack" / "link").exists()


def test_a_base_may_be_on_another_file_system(place: Path) -> None:
    """Where objects cannot be links they are copied."""
    script = """
from tightloop.sandbox import mounts
from tightloop.sandbox.bases import base_for
assert own_namespace.enter(state) == ""
state.mkdir(exist_ok=True)
assert mounts.mount(b"tmpfs", state, b"tmpfs", 0, b"size=10m") == 0
print(sorted(os.listdir(base_for(repository, state / "bases"))))
"""
    done = run(place, script, is_root=True)
    assert done.stdout == "['.git', 'gone', 'lines']\n", done.stderr

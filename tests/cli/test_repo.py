"""``tightloop repo``: what it prints, what it leaves, its exit status."""

import argparse
import json
import os
import select
from pathlib import Path

import pytest

from tests.sandbox.conftest import commit, git
from tightloop.cli import repo

SETUP = '[setup]\ncommands = ["echo working; echo done > .made"]\nsecrets = ["REPO_TOKEN"]\n'


def run(state: Path, *words: str) -> int:
    """One command line over this state directory."""
    parser = argparse.ArgumentParser()
    repo.configure(parser)
    return repo.run(parser.parse_args([*words, "--state-dir", str(state)]))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository that needs nothing."""
    place = tmp_path / "project"
    place.mkdir()
    (place / "file").write_text("text\n")
    (place / ".gitignore").write_text(".made\n")
    git(place, "init", "-q")
    commit(place)
    return place


def test_preload_list_gc(project: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Made once, listed, collected."""
    assert run(state, "preload", str(project)) == 0
    assert "made in" in capsys.readouterr().out
    assert run(state, "preload", str(project)) == 0
    assert "was there already" in capsys.readouterr().out
    assert run(state, "list") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[0].split() == ["KIND", "STATE", "SIZE", "FILES", "MADE", "USED", "REPOSITORY"]
    head = git(project, "rev-parse", "HEAD")[:12]
    assert listed[1].split()[:2] == ["base", head]
    assert listed[1].endswith(str(project))
    assert run(state, "gc") == 0
    assert capsys.readouterr().out == "removed 0, 0 B\n"
    assert run(state, "gc", "--all", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["repository"] for row in said["removed"]] == [str(project)]
    assert said["freed_bytes"] > 0
    assert os.listdir(state / "bases") == os.listdir(state / "trash") == []
    assert run(state, "list") == 0
    assert "tightloop repo preload" in capsys.readouterr().out


def test_a_set_up_is_run_with_its_secrets(
    project: Path,
    state: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its output on standard error; without the user's word for the secret nothing runs."""
    (project / ".tightloop.toml").write_text(SETUP)
    monkeypatch.setenv("REPO_TOKEN", "s3cr3t-value")
    assert run(state, "preload", str(project)) == 2
    assert "--secret REPO_TOKEN" in capfd.readouterr().err
    assert run(state, "preload", str(project), "--secret", "REPO_TOKEN", "--json") == 0
    captured = capfd.readouterr()
    said = json.loads(captured.out)
    assert captured.err == "working\n"
    assert (said["environment_is_new"], said["environment_files"] > 0) == (True, True)
    assert list(Path(said["environment"]).glob("view/project/.made"))
    assert run(state, "list") == 0
    assert "expires in" in capfd.readouterr().out


def test_a_set_up_by_option(project: Path, state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Remembered for the next time, until it is forgotten; a failing one ends with 1."""
    assert run(state, "preload", str(project), "--setup", "echo one > .made") == 0
    assert "environment" in capfd.readouterr().out
    assert run(state, "preload", str(project)) == 0
    assert capfd.readouterr().out.count("was there already") == 2
    assert run(state, "preload", str(project), "--no-setup") == 0
    assert "environment" not in capfd.readouterr().out
    assert run(state, "preload", str(project), "--setup", "echo oh; exit 4") == 1
    assert "command 1 of 1 ended with 4" in capfd.readouterr().err


def test_another_commit(project: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its base only."""
    (project / "file").write_text("second\n")
    commit(project)
    assert run(state, "preload", str(project), "--commit", "HEAD~1", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (Path(said["base"]) / "file").read_text() == "text\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["preload", "/no/such"], "'/no/such' is not a directory"),
        (["preload", ".", "--setup", "a", "--no-setup"], "contradict each other"),
        (["preload", ".", "--commit", "HEAD", "--again"], "--commit makes a base only"),
        (["preload", ".", "--commit", "no-such-name"], "git rev-parse"),
        (["preload", ".", "--setup", " "], "--setup: commands must name at least one"),
    ],
)
def test_mistakes_end_with_2(
    words: list[str],
    expected: str,
    project: Path,
    state: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is wrong, and what to do."""
    monkeypatch.chdir(project)
    assert run(state, *words) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--background"]])
def test_what_is_no_repository_is_refused_at_once(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """Nothing in it is read: it may be huge, and others may write there meanwhile."""
    place = tmp_path / "place"
    place.mkdir()
    assert run(state, "preload", str(place), *more) == 2
    assert capsys.readouterr().err == (
        f"tightloop repo: {str(place)!r} is not a git repository: 'git init' there, or name one\n"
    )
    assert not state.exists()


def test_in_the_background(project: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It returns at once, and a process of its own makes the base."""
    assert run(state, "preload", str(project), "--background", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    pidfd = os.pidfd_open(said["pid"])
    assert select.select([pidfd], [], [], 60.0)[0]
    os.close(pidfd)
    os.waitpid(said["pid"], 0)
    log = Path(said["log"]).read_text()
    assert json.loads(log)["base_is_new"] is True
    assert len(list((state / "bases").glob("*.json"))) == 1

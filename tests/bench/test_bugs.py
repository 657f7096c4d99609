"""The held-out bugs."""

import ast
import subprocess
from pathlib import Path

import pytest

from tightloop.bench import bugs as bugs_module
from tightloop.bench.bugs import BenchError, card_figures, choose, load_bugs, write_repository

PERMISSIVE = ("MIT", "BSD", "Apache", "PSF", "ISC", "Python Software Foundation")


def test_the_bank_is_what_it_says() -> None:
    """Many functions, many kinds, all attributed, the bug inside the lines named."""
    bugs = load_bugs()
    assert len({bug.id for bug in bugs}) == len(bugs) >= 200
    assert len({(bug.path, bug.qualname) for bug in bugs}) >= 60
    assert len({bug.kind for bug in bugs}) >= 12
    for bug in bugs:
        assert bug.distribution
        assert bug.version
        assert any(name in bug.licence for name in PERMISSIVE), bug.licence
        before, after = bug.module.splitlines(), bug.buggy_module.splitlines()
        span = slice(bug.first_line - 1, bug.first_line - 1 + bug.num_lines)
        assert before[: span.start] == after[: span.start]
        assert before != after
        ast.parse(bug.buggy_module)


def test_a_draw_repeats_and_spreads_over_functions() -> None:
    """Same seed, same bugs; no function twice while others are left; too many is refused."""
    bugs = load_bugs()
    drawn = choose(bugs, 20, seed=3)
    assert drawn == choose(bugs, 20, seed=3)
    assert drawn != choose(bugs, 20, seed=4)
    assert len({(bug.path, bug.qualname) for bug in drawn}) == 20
    assert len(choose(bugs, len(bugs), seed=1)) == len(bugs)
    with pytest.raises(ValueError, match="asked for"):
        choose(bugs, len(bugs) + 1, seed=1)


def test_a_bug_becomes_a_clean_repository(tmp_path: Path) -> None:
    bug = load_bugs()[0]
    write_repository(bug, tmp_path / "repo")
    status = ["git", "status", "--porcelain"]
    shown = subprocess.run(status, cwd=tmp_path / "repo", check=True, capture_output=True)
    assert shown.stdout == b""
    assert (tmp_path / "repo" / "target.py").read_text() == bug.buggy_module


def test_the_callers_git_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the repository that GIT_DIR names nor signing and hooks of the user are used."""
    mine = tmp_path / "mine"
    subprocess.run(["git", "init", "-q", str(mine)], check=True)
    before = sorted(path.name for path in mine.rglob("*"))
    config = tmp_path / "config"
    config.write_text("[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = false\n")
    monkeypatch.setenv("GIT_DIR", str(mine / ".git"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    write_repository(load_bugs()[0], tmp_path / "repo")
    assert (tmp_path / "repo" / ".git" / "HEAD").exists()
    assert sorted(path.name for path in mine.rglob("*")) == before


def test_a_missing_git_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="install git"):
        write_repository(load_bugs()[0], tmp_path / "repo")


def test_the_quoted_figures_are_those_of_this_bank() -> None:
    """The card was made from these very bugs, and meets what was asked of the model."""
    figures = card_figures()
    assert figures.num_bugs == len(load_bugs())
    assert 3_000_000 <= figures.num_parameters <= 5_000_000
    assert figures.pass_at["1"] >= 0.30
    assert figures.pass_at["8"] >= 0.60


def test_every_source_has_its_licence_text() -> None:
    text = Path(bugs_module.__file__).with_name("bugbank-licences.txt").read_text(encoding="utf-8")
    names = {bug.distribution.replace("-", "_") for bug in load_bugs()} - {"python_stdlib"}
    assert {name for name in names if f"\n{name}-" not in text} == set()
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in text

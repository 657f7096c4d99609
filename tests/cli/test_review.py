"""``tightloop review``: what its users see."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.sandbox.conftest import commit, git
from tightloop.cli.main import main

FINDING = {"path": "m.py", "line": 1, "severity": "warning", "title": "x is 3"}
Review = Callable[..., int]


@pytest.fixture
def review(tmp_path: Path) -> Review:
    """Runs the verb on a repository with one uncommitted change."""
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "m.py").write_text("x = 1\n")
    git(repo, "init", "-q", "-b", "main")
    commit(repo)
    (repo / "m.py").write_text("x = 3\n")

    def run(*words: str, answer: Any = None) -> int:
        text = orjson.dumps({"summary": "", "findings": [FINDING]} if answer is None else answer)
        script = tmp_path / "script.json"
        script.write_bytes(orjson.dumps({"answers": [[{"text": text.decode()}]]}))
        places = ["--repo", str(repo), "--state-dir", str(tmp_path / "state")]
        return main(
            ["review", *places, "--model", f"scripted:{script}", "--sandbox", "none", *words]
        )

    return run


def test_findings_are_lines(review: Review, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output; the status says whether there is one that must not be."""
    assert review() == 0
    assert capsys.readouterr().out.splitlines() == [
        "m.py:1: warning: x is 3",
        "the uncommitted changes: 0 errors, 1 warning, 0 notes",
    ]
    assert review("--fail-on", "error") == 0
    assert review("--fail-on", "warning") == 1
    assert review("--fail-on", "note") == 1


def test_as_json(review: Review, capsys: pytest.CaptureFixture[str]) -> None:
    assert review("uncommitted", "--json", "--focus", "names") == 0
    found = orjson.loads(capsys.readouterr().out)
    assert found["findings"] == [
        FINDING | {"end_line": None, "detail": "", "suggestion": ""},
    ]
    assert (found["status"], found["is_read"]) == ("completed", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["everything"], "a review is of session, uncommitted, branch, commit, got 'everything'"),
        (["session"], "by /review"),
        (["branch:missing"], "git rev-parse"),
        (["--repo", "/missing"], "'/missing' is not a directory"),
    ],
)
def test_what_cannot_be_reviewed(
    review: Review, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert review(*words) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]

"""S4: what a command prints of a secret goes to nobody."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attack import BACKENDS, CONTROL, by_test
from tests.sandbox.conftest import commit, git
from tightloop.cli.main import main

pytestmark = pytest.mark.slow

SECRET = "ghp_0123456789abcdefghij"
PATCH = """*** Begin Patch
*** Update File: settings
@@
 first = 1
-token = ghp_something_else
+token = none
 last = 2
*** End Patch
"""
"""Refused: the answer shows the lines that are there."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose owner has written a token of his into a file."""
    place = tmp_path / "project"
    place.mkdir()
    (place / "settings").write_text(f"first = 1\ntoken = {SECRET}\nlast = 2\n")
    git(place, "init", "-q", "-b", "main")
    commit(place)
    monkeypatch.setenv("GITHUB_TOKEN", SECRET)
    return place


def _run(project: Path, kind: str, calls: list[dict[str, Any]]) -> tuple[int, str]:
    """The agent with a scripted model; its exit code, and the log of the run."""
    script = project.parent / "script.json"
    answers = [[{"call": call}] for call in calls]
    script.write_text(json.dumps({"answers": [*answers, [{"text": "Done."}]]}))
    state = project.parent / "state"
    words = ["exec", "look", "--repo", str(project), "--state-dir", str(state), "--json"]
    code = main([*words, "--model", f"scripted:{script}", "--sandbox", kind])
    (log,) = (state / "runs").glob("*.jsonl")
    return code, log.read_text()


CALLS: list[dict[str, Any]] = [
    {"name": "exec_command", "arguments": {"cmd": "cat settings; cut -c9- settings >&2; false"}},
    {"name": "exec_command", "arguments": {"cmd": "head -c 30 settings; tail -c +31 settings"}},
    {"name": "exec_command", "arguments": {"cmd": "$(sed -n 's/token = //p' settings)"}},
    {"name": "apply_patch", "arguments": PATCH},
]


@pytest.mark.parametrize("kind", [*BACKENDS, CONTROL])
@by_test("S4", "a secret that a command prints", "`***` for the model, in events and in the log")
def test_what_a_command_prints_of_a_secret_is_made_unreadable(
    kind: str, project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In output, in errors of the shell, in the answer to a patch; whole or in pieces."""
    code, log = _run(project, kind, CALLS)
    said = capfd.readouterr()
    assert (code, SECRET in said.out + said.err + log) == (0, False)
    assert "token = ***" in log
    monkeypatch.delenv("GITHUB_TOKEN")  # nobody knows then that it is one: the control
    (project.parent / "state" / "runs").rename(project.parent / "before")
    code, log = _run(project, kind, CALLS)
    assert (code, SECRET in log) == (0, True)
    control = capfd.readouterr().out
    assert min(said.out.count("***"), control.count(SECRET)) >= len(CALLS)
    ended = [line for line in control.splitlines() if '"item.completed"' in line]
    assert SECRET in next(line for line in ended if '"file_change"' in line)

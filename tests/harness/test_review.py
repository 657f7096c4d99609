"""Review mode: asked for as JSON, read tolerantly, and nothing is changed."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.audience import Listening
from tests.sandbox.conftest import commit, git
from tightloop.agent.turn import Status
from tightloop.harness.review import (
    SCHEMA,
    Finding,
    Review,
    read_review,
    review_as_json,
    review_lines,
    review_thread,
)
from tightloop.harness.reviewed import ReviewTarget
from tightloop.harness.settings import Settings
from tightloop.harness.thread import open_thread
from tightloop.sandbox.interface import SandboxError

ANSWER = {
    "summary": "One fault.",
    "findings": [
        {"path": "n.py", "line": 3, "end_line": None, "severity": "note", "title": "Say why",
         "detail": "", "suggestion": ""},
        {"path": "m.py", "line": 1, "end_line": 2, "severity": "error", "title": "x is 3\x1b[2K",
         "detail": "Callers expect 2.\nAll of them.", "suggestion": "x = 2"},
    ],
}  # fmt: skip
BAD = Finding("m.py", 1, "error", "x is 3\x1b[2K", "Callers expect 2.\nAll of them.", "x = 2", 2)
SMALL = Finding("n.py", 3, "note", "Say why")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\n")
    git(directory, "init", "-q", "-b", "main")
    commit(directory)
    (directory / "m.py").write_text("x = 3\n")
    return directory


async def reviewed(repo: Path, answers: list[list[dict[str, Any]]], kind: str) -> Review:
    path = repo.parent / "script.json"
    path.write_bytes(orjson.dumps({"answers": answers}))
    settings = Settings(
        repo=repo, state_dir=repo.parent / "state", model=f"scripted:{path}", sandbox=kind,
        speculates=False,
    )  # fmt: skip
    heard = Listening()
    async with open_thread(settings, heard) as thread:
        before = list(thread.agent.items)
        review = await review_thread(thread, ReviewTarget("uncommitted"), heard.listen)
        assert before == thread.agent.items
        assert await thread.workspace.changed_files() == []
        with pytest.raises(SandboxError, match="nothing to review"):
            await review_thread(thread, ReviewTarget("session"))
    return review


async def test_a_review_reads_and_changes_nothing(repo: Path) -> None:
    """In a sandbox of its own, on the conversation's workspace and backend."""
    call = {"name": "exec_command", "arguments": '{"cmd": "cat m.py; echo y > m.py; echo z > new"}'}
    answers: list[list[dict[str, Any]]] = [
        [{"call": call}],
        [{"text": f"Here it is:\n```json\n{orjson.dumps(ANSWER).decode()}\n```"}],
    ]
    review = await reviewed(repo, answers, "bubblewrap")
    assert review.result.status is Status.COMPLETED
    assert (review.findings, review.summary, review.is_read) == ((BAD, SMALL), "One fault.", True)
    assert (repo / "m.py").read_text() == "x = 3\n"
    assert review_lines(review) == [
        "m.py:1-2: error: x is 3",
        "    Callers expect 2.",
        "    All of them.",
        "    -> x = 2",
        "n.py:3: note: Say why",
        "the uncommitted changes: 1 error, 0 warnings, 1 note",
        "One fault.",
    ]
    assert [one["severity"] for one in review_as_json(review)["findings"]] == ["error", "note"]


async def test_without_isolation_it_reads_the_diff_alone(repo: Path) -> None:
    """And an answer in free words is given as it is."""
    review = await reviewed(repo, [[{"text": "Looks good to me."}]], "none")
    assert (review.findings, review.is_read) == ((), False)
    assert review_lines(review) == ["the uncommitted changes", "Looks good to me."]


@pytest.mark.parametrize(
    "text",
    [
        orjson.dumps(ANSWER).decode(),
        f"Words.\n```\n{orjson.dumps(ANSWER['findings']).decode()}\n```\nMore words.",
        "- m.py:1-2: error: x is 3\x1b[2K\n* `n.py:3` note: Say why\n",
    ],
)
def test_answers_that_can_be_read(text: str) -> None:
    found = read_review(text)
    assert found is not None
    assert [(one.path, one.line, one.end_line, one.severity, one.title) for one in found[1]] == [
        ("m.py", 1, 2, "error", "x is 3\x1b[2K"),
        ("n.py", 3, None, "note", "Say why"),
    ]


def test_what_is_odd_is_mended_or_left_out() -> None:
    findings = [
        {"file": "./a.py", "line": "7", "severity": "P1", "message": "bad"},
        {"path": "a.py", "line": -3, "severity": "odd", "title": "t", "detail": 3},
        {"path": "a.py", "line": True, "title": "u"},
        {"path": "", "title": "no path"},
        {"path": "a.py", "title": " "},
        "words",
    ]
    assert read_review(orjson.dumps({"findings": findings}).decode()) == (
        "",
        (
            Finding("a.py", 7, "error", "bad"),
            Finding("a.py", 0, "warning", "t"),
            Finding("a.py", 0, "note", "u"),
        ),
    )
    assert read_review('{"findings": []}') == ("", ())
    assert read_review("") is None
    assert read_review("{") is None


@given(st.one_of(st.text(), st.text(alphabet='{}[]":, abc1\n-')))
def test_any_answer_can_be_read_or_not(text: str) -> None:
    found = read_review(text)
    assert found is None or all(one.title and one.path for one in found[1])


def test_the_schema_takes_what_it_asks_for() -> None:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    Draft202012Validator.check_schema(SCHEMA)
    Draft202012Validator(SCHEMA).validate(ANSWER)

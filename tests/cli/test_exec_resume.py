"""Going on with a conversation after its process has ended, also by a kill at the worst moment."""

import os
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.processes import call, events_of, finished, running, script
from tightloop.harness.past import CUT_TEXT, load
from tightloop.protocol.items import CustomToolCallOutput, FunctionCallOutput, Message

PATCH = "*** Begin Patch\n*** Update File: m.py\n@@ x = 1\n+y = 2\n*** End Patch"
MORE = "*** Begin Patch\n*** Add File: n.py\n+n = 1\n*** End Patch"
TEXT = [{"text": "Done."}]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\n")
    return directory


def _outputs(repo: Path) -> list[str]:
    items = load(repo.parent / "state", "last").items
    kinds = (FunctionCallOutput, CustomToolCallOutput)
    return [item.output for item in items if isinstance(item, kinds)]


def _said(repo: Path) -> list[str]:
    items = load(repo.parent / "state", "last").items
    return [item.text for item in items if isinstance(item, Message) and item.role != "developer"]


@pytest.mark.parametrize(
    "again",
    [
        ["--resume", "last", "more"],
        ["--repo", ".", "--resume", "last", "more"],
        ["--resume", "ID", "more"],
    ],
)
def test_a_conversation_goes_on(repo: Path, again: list[str]) -> None:
    """With the work that was not applied, and with the model that it was begun with."""
    model = script(repo.parent, [[call("apply_patch", PATCH)], TEXT], replies={"more": TEXT})
    first = finished(repo, "--model", model, "change x")
    assert (first.returncode, (repo / "m.py").read_text()) == (0, "x = 1\n"), first.stderr
    past = load(repo.parent / "state", "last")
    assert f"go on with: tightloop exec --resume {past.id[:8]} PROMPT" in first.stderr
    words = [past.id[:8] if word == "ID" else word for word in again]
    done = finished(repo, *words, "--apply", "--json")
    assert done.returncode == 0, done.stdout
    started = events_of(done)[0]
    assert (started["thread_id"], started["tightloop"]["resumed"]) == (past.id, past.id)
    assert (repo / "m.py").read_text() == "x = 1\ny = 2\n"
    assert _said(repo) == ["change x", "Done.", "more", "Done."]
    assert load(repo.parent / "state", "last").changes == ()


def test_codexs_words_do_the_same(repo: Path) -> None:
    model = script(repo.parent, [TEXT])
    finished(repo, "--model", model, "one")
    state = str(repo.parent / "state")
    more = ["--state-dir", state, "--sandbox", "none", "--json", "--repo", str(repo)]
    from tightloop.cli.main import main

    assert main(["exec", "resume", "--last", "two", *more]) == 0
    past = load(repo.parent / "state", "last")
    assert main(["exec", "resume", past.id, *more, "three"]) == 0
    assert _said(repo) == ["one", "Done.", "two", "Done.", "three", "Done."]


def test_a_fork_leaves_its_origin_alone(repo: Path) -> None:
    model = script(repo.parent, [[call("apply_patch", PATCH)], TEXT], replies={"more": TEXT})
    finished(repo, "--model", model, "change x")
    past = load(repo.parent / "state", "last")
    done = finished(repo, "--fork", "last", "more", "--apply", "--json")
    started = events_of(done)[0]
    assert started["thread_id"] != past.id
    assert started["tightloop"]["forked_from"] == past.id
    assert (repo / "m.py").read_text() == "x = 1\ny = 2\n"
    assert load(repo.parent / "state", past.id) == past
    assert load(repo.parent / "state", "last").num_turns == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--resume", "nope"], "no conversation 'nope' is kept; 'tightloop threads list --all'"),
        (["--resume", "last"], "no conversation is kept yet"),
        (["resume"], "name the conversation: exec resume ID PROMPT"),
    ],
)
def test_what_cannot_go_on_ends_with_2(repo: Path, more: list[str], said: str) -> None:
    from tightloop.cli.main import main

    words = ["exec", *more, "--state-dir", str(repo.parent / "state")]
    words = words if "resume" in more else [*words, "x"]
    assert main([*words, "--json", *([] if "resume" not in more else ["x"])]) == 2
    assert not (repo.parent / "state/workspaces").exists()


def test_a_conversation_about_another_repository_is_not_taken(repo: Path) -> None:
    """``last`` is the last one about this directory; another is named, and has to be asked for."""
    other = repo.parent / "other"
    other.mkdir()
    finished(repo, "--model", script(repo.parent, [TEXT]), "one")
    past = load(repo.parent / "state", "last")
    done = finished(other, "--resume", "last", "two")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"the newest of all is {past.id}, about '{repo}'" in done.stderr
    done = finished(other, "--resume", past.id, "--repo", str(other), "two")
    assert done.returncode == 2
    assert f"is about '{repo}', not '{other}': leave --repo out" in done.stderr
    done = finished(other, "--resume", past.id, "two")
    assert (done.returncode, _said(repo)[-2:]) == (0, ["two", "Done."]), done.stderr


def test_the_second_process_is_told_who_is_the_first(repo: Path) -> None:
    """It ends at once, and the first one does not notice; a fork may begin meanwhile."""
    fifo = repo.parent / "fifo"
    os.mkfifo(fifo)
    hang = call("exec_command", {"cmd": f"read line < {fifo}"})
    model = script(repo.parent, [[hang], TEXT], replies={"two": TEXT})
    first = running(repo, "--model", model, "one")
    started = first.until(lambda event: event["type"] == "thread.started")
    first.until(lambda event: event["type"] == "item.started")
    second = finished(repo, "--resume", started["thread_id"], "two", "--model", model)
    assert second.returncode == 2
    assert f"is open in process {first.process.pid} (tightloop exec, since " in second.stderr
    fork = finished(repo, "--fork", started["thread_id"], "two", "--model", model)
    assert fork.returncode == 0, fork.stderr
    fifo.write_text("go\n")
    assert first.rest() == 0
    assert load(repo.parent / "state", started["thread_id"]).num_turns == 1


def _killed(repo: Path, answers: list[Any], is_there: Any) -> str:
    """A run is killed when an event is there; its conversation."""
    run = running(repo, "--model", script(repo.parent, answers), "change x")
    thread_id: str = run.until(lambda event: event["type"] == "thread.started")["thread_id"]
    run.until(is_there)
    run.process.send_signal(signal.SIGKILL)
    run.process.communicate(timeout=50)
    assert (repo / "m.py").read_text() == "x = 1\n"
    return thread_id


def _is_done(kind: str) -> Any:
    return lambda event: event["type"] == "item.completed" and event["item"]["type"] == kind


def test_killed_right_behind_a_patch(repo: Path) -> None:
    """What was done is neither lost nor done twice, though nothing may have been kept of it yet.

    The patch inserts a line: put in twice, it would be there twice.
    """
    answers = [[call("apply_patch", PATCH)], [{"hold": True}]]
    thread_id = _killed(repo, answers, _is_done("file_change"))
    model = script(repo.parent, [[{"text": "never"}], [call("apply_patch", MORE)], TEXT])
    done = finished(repo, "--resume", thread_id, "go on", "--model", model, "--apply")
    assert done.returncode == 0, done.stderr
    assert (repo / "m.py").read_text() == "x = 1\ny = 2\n"
    assert (repo / "n.py").read_text() == "n = 1\n"
    assert [text.startswith("Success.") for text in _outputs(repo)] == [True, True]


def test_killed_in_a_command(repo: Path) -> None:
    """The patch before it is there, the command gets an output that says what happened."""
    marker = repo.parent / "ran"
    hang = call("exec_command", {"cmd": f"echo once >> {marker}; echo here; exec sleep 100"})
    answers = [[call("apply_patch", PATCH)], [hang]]
    thread_id = _killed(repo, answers, lambda event: event.get("output_delta"))
    model = script(repo.parent, [TEXT])
    done = finished(repo, "--resume", thread_id, "go on", "--model", model, "--apply")
    assert done.returncode == 0, done.stderr
    assert (repo / "m.py").read_text() == "x = 1\ny = 2\n"
    assert _outputs(repo)[1:] == [CUT_TEXT]
    assert marker.read_text() == "once\n"
    assert _said(repo) == ["change x", "go on", "Done."]


def test_killed_while_a_patch_is_written(repo: Path) -> None:
    """Its text had not ended: it never was a call, and nothing of it is there."""
    held = [*TEXT, call("apply_patch", PATCH), {"hold": True}]
    thread_id = _killed(repo, [held], lambda event: event.get("text_delta"))
    model = script(repo.parent, [TEXT])
    done = finished(repo, "--resume", thread_id, "go on", "--model", model, "--apply")
    assert done.returncode == 0, done.stderr
    past = load(repo.parent / "state", thread_id)
    assert past.missing == ()
    content = (repo / "m.py").read_text()
    assert content == ("x = 1\ny = 2\n" if len(_outputs(repo)) else "x = 1\n")


def test_killed_while_it_applies_nothing_twice(repo: Path) -> None:
    """The repository has the work, a conversation that goes on knows it."""
    model = script(repo.parent, [[call("apply_patch", PATCH)], TEXT], replies={"more": TEXT})
    assert finished(repo, "--model", model, "change x", "--apply").returncode == 0
    done = finished(repo, "--resume", "last", "more", "--apply")
    assert done.returncode == 0, done.stderr
    assert (repo / "m.py").read_text() == "x = 1\ny = 2\n"
    assert "no file was changed" in done.stderr


def test_a_killed_run_leaves_the_conversation_free(repo: Path) -> None:
    """Its lock ends with it, and nothing else of it is in the way."""
    answers = [[{"text": "Hello"}, {"hold": True}]]
    thread_id = _killed(repo, answers, lambda event: event.get("text_delta"))
    assert orjson.loads((repo.parent / f"state/threads/{thread_id}.lock").read_bytes())["pid"]
    done = finished(repo, "--resume", thread_id, "go on", "--model", script(repo.parent, [TEXT]))
    assert done.returncode == 0, done.stderr
    assert not (repo.parent / f"state/threads/{thread_id}.lock").exists()

"""A program leads ``tightloop exec --json --input-format jsonl`` through several turns."""

import os
from pathlib import Path

import pytest

from tests.cli.processes import call, finished, running, script

QUICK = [{"text": "Quick."}]
PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n*** End Patch"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\n")
    return directory


def test_steer_queue_interrupt_end(repo: Path) -> None:
    """Receipts in order, the steer in the running turn, the queue behind it, 0 for a good end."""
    fifo = repo.parent / "fifo"
    os.mkfifo(fifo)
    wait = call("exec_command", {"cmd": f"read line < {fifo}; echo $line"})
    replies = {"be quick": QUICK, "wait": [wait], "and this": [{"text": "This."}]}
    model = script(repo.parent, [[wait], [{"hold": True}]], replies=replies)
    run = running(repo, "--input-format", "jsonl", "--model", model, "go")
    run.until(lambda event: event["type"] == "item.started")
    run.say(op="steer", id="1", text="and this", expected_turn="turn_1")
    run.say(op="steer", id="2", text="and this", expected_turn="turn_0")
    run.say(op="queue", id="3", text="be quick")
    run.until(lambda event: event.get("id") == "3")
    fifo.write_text("line\n")
    run.until(lambda event: event["type"] == "turn.completed")
    run.until(lambda event: event["type"] == "turn.completed")
    run.say(op="queue", id="4", text="hang")
    run.until(lambda event: event.get("turn_id") == "turn_3")
    run.say(op="interrupt", id="5")
    run.until(lambda event: event["type"] == "turn.failed")
    run.say(op="queue", id="6", text="be quick")
    run.say(op="end", id="7")
    assert run.rest() == 0
    receipts = [
        (event["id"], event["type"]) for event in run.events if event["type"].startswith("input.")
    ]
    accepted, refused = "input.accepted", "input.refused"
    assert receipts == [
        ("1", accepted), ("2", refused), ("3", accepted), ("4", accepted), ("5", accepted),
        ("6", accepted), ("7", accepted),
    ]  # fmt: skip
    steers = [event["state"] for event in run.events if event["type"] == "turn.steer"]
    assert steers == ["accepted", "delivered"]
    said = [
        event["item"]["text"] for event in run.events
        if event["type"] == "item.completed" and event["item"]["type"] == "agent_message"
    ]  # fmt: skip
    assert said == ["This.", "Quick.", "Quick."]


def test_the_end_of_the_input_is_the_end(repo: Path) -> None:
    """What was queued is worked off first, and the last turn's work is applied."""
    model = script(repo.parent, [[call("apply_patch", PATCH)], QUICK])
    lines = '{"op":"queue","text":"one"}\nnonsense\n{"op":"queue","text":"two"}'
    done = finished(
        repo, "--json", "--apply", "--input-format", "jsonl", "--model", model, input=lines
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count('"turn.completed"') == 2
    assert done.stdout.count('"input.refused"') == 1
    assert (repo / "m.py").read_text() == "x = 2\n"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--json"], "no message came on standard input"),
        ([], "--input-format jsonl needs --json"),
        (["--json", "-"], "standard input brings lines, and no prompt"),
        (["--json", " "], "the prompt is empty"),
    ],
)
def test_what_cannot_be_led(repo: Path, more: list[str], said: str) -> None:
    done = finished(repo, "--input-format", "jsonl", "--model", "scripted", *more)
    assert done.returncode == 2
    assert said in done.stderr

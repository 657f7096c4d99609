"""95x: what our agent does in a turn, with a scripted model and with the bundled network.

Every case is a real ``tightloop exec`` at a real ``tightloop serve``. The table of all of them is in
design/0042-agent-matrix.md. What the bundled network writes is up to it: with it, cases say that the bug's own
tests pass at the end, and what the harness around it has done.
"""

import signal
from pathlib import Path

import pytest

from tests.cli.processes import call, script
from tests.e2e.agent_matrix import (
    PROMPT,
    both,
    bundled_ground,
    is_green,
    patch,
    scripted_ground,
    update,
)
from tests.e2e.agent_runs import running
from tests.e2e.conftest import Serve
from tests.e2e.relay import Event

pytestmark = pytest.mark.timeout(150)

CHECK = call("exec_command", {"cmd": "./pytest"})
DONE = [{"text": "Done."}]


def is_patch_delta(event: Event) -> bool:
    return bool(event.get("patch_delta"))


def is_patch_end(event: Event) -> bool:
    return event["type"] == "item.completed" and bool(event["item"]["type"] == "file_change")


def is_command_start(event: Event) -> bool:
    return event["type"] == "item.started" and bool(event["item"]["type"] == "command_execution")


@both
async def test_951_a_single_fix(model: str, tmp_path: Path, serve: Serve, bundled: str) -> None:
    """A failing test, a patch, the same test passing; the checkout has the fix."""
    if model == "bundled":
        ground = bundled_ground(tmp_path, bundled)
    else:
        answers = [[CHECK], [patch(update("f", "old", "new"))], [CHECK], DONE]
        ground = scripted_ground(tmp_path, serve("--model", script(tmp_path, answers)))
    async with running(ground.repo, ground.url, *ground.words, prompt=PROMPT) as run:
        assert await run.end() == 0, run.events[-1]
    commands = run.items("command_execution")
    tests = [one["exit_code"] for one in commands if one["command"] == ground.test]
    assert tests == [1, 0]
    (change,) = run.items("file_change")
    assert [one["path"] for one in change["changes"]] == [ground.target]
    assert run.of("turn.completed")
    assert is_green(ground)


async def test_952_a_fix_in_several_files(tmp_path: Path, serve: Serve) -> None:
    """One patch changes, adds, and deletes; all of it arrives in the checkout or none does."""
    text = patch(
        update("f", "old", "new"),
        update("g", "one", "two"),
        "*** Add File: sub/h\n+three",
        "*** Delete File: d",
    )
    answers = [[text], [CHECK], DONE]
    ground = scripted_ground(tmp_path, serve("--model", script(tmp_path, answers)))
    async with running(ground.repo, ground.url, *ground.words) as run:
        assert await run.end() == 0, run.events[-1]
    (change,) = run.items("file_change")
    assert {(one["path"], one["kind"]) for one in change["changes"]} == {
        ("f", "update"), ("g", "update"), ("sub/h", "add"), ("d", "delete"),
    }  # fmt: skip
    there = {name: (ground.repo / name).read_text() for name in ("f", "g", "sub/h")}
    assert there == {"f": "new\n", "g": "two\n", "sub/h": "three\n"}
    assert not (ground.repo / "d").exists()


@both
async def test_953_a_fix_that_fails_and_its_repair(
    model: str, tmp_path: Path, serve: Serve, bundled: str
) -> None:
    """Tests say no to the first patch; a second one makes them pass. The bundled network's bug is one whose best
    guess is wrong, so its search goes on to the next."""
    if model == "bundled":
        ground = bundled_ground(tmp_path, bundled, "second")
    else:
        wrong, right = patch(update("f", "old", "odd")), patch(update("f", "odd", "new"))
        answers = [[wrong], [CHECK], [right], [CHECK], DONE]
        ground = scripted_ground(tmp_path, serve("--model", script(tmp_path, answers)))
    async with running(ground.repo, ground.url, *ground.words, prompt=PROMPT) as run:
        assert await run.end() == 0, run.events[-1]
    kinds = [
        (item["type"], item.get("exit_code"))
        for item in (event["item"] for event in run.of("item.completed"))
        if item["type"] == "file_change" or item.get("command") == ground.test
    ]
    first = kinds.index(("file_change", None))
    assert kinds[first + 1] == ("command_execution", 1), "the first patch does not do"
    assert kinds[-2:] == [("file_change", None), ("command_execution", 0)]
    assert is_green(ground)


@both
async def test_954_a_steer_in_the_middle_of_a_patch(
    model: str, tmp_path: Path, serve: Serve, bundled: str
) -> None:
    """It is delivered once, in the same turn, behind the output of the patch; that patch is whole. What a model
    makes of the words is its affair: the scripted one patches a second file, the bundled one goes on."""
    if model == "bundled":
        ground = bundled_ground(tmp_path, bundled)
    else:
        answers = [[patch(update("f", "old", "new"))], DONE, DONE]
        replies = {"mend g": [patch(update("g", "one", "two"))]}
        slow = script(tmp_path, answers, replies=replies, tokens_per_s=20)
        ground = scripted_ground(tmp_path, serve("--model", slow))
    words = (*ground.words, "--early-end", "never")
    async with running(ground.repo, ground.url, *words, prompt=PROMPT, is_led=True) as run:
        await run.until(is_patch_delta)
        await run.say(op="steer", id="s", text="mend g, too")
        await run.until(lambda event: event.get("state") == "delivered")
        await run.say(op="end")
        assert await run.end() == 0, run.events[-1]
    assert [event["state"] for event in run.of("turn.steer")] == ["accepted", "delivered"]
    assert len(run.of("turn.completed")) == 1
    assert all(change["status"] == "completed" for change in run.items("file_change"))
    assert is_green(ground)
    wanted = "one\n" if model == "bundled" else "two\n"
    assert (ground.repo / "g").read_text() == wanted


@both
async def test_955_an_interrupt_in_the_middle_of_a_command(
    model: str, tmp_path: Path, serve: Serve, bundled: str
) -> None:
    """The command is gone, nothing is written to the checkout, and the next message is worked on."""
    hang = "import os, sys, time\nprint(os.getpid(), file=sys.__stderr__, flush=True)\ntime.sleep(900)\n"
    if model == "bundled":
        ground = bundled_ground(tmp_path, bundled)
        (ground.repo / "conftest.py").write_text(hang)
    else:
        answers = [[call("exec_command", {"cmd": "echo here; exec sleep 900"})], DONE]
        replies = {"again": [patch(update("f", "old", "new"))]}
        url = serve("--model", script(tmp_path, answers, replies=replies))
        ground = scripted_ground(tmp_path, url)
    before = ground.content()
    async with running(ground.repo, ground.url, *ground.words, prompt=PROMPT, is_led=True) as run:
        await run.until(is_command_start)
        await run.say(op="interrupt", id="i")
        await run.until(lambda event: event["type"] == "turn.failed")
        assert ground.content() == before
        (cut,) = run.items("command_execution")
        assert cut["status"] == "failed"
        if model == "scripted":
            await run.say(op="queue", text="again")
            await run.until(lambda event: event["type"] == "turn.completed")
        await run.say(op="end")
        assert (await run.end() == 0) is (model == "scripted")
    assert (ground.repo / ground.target).read_text() == (
        "new\n" if model == "scripted" else before[ground.target]
    )


@both
async def test_956_resumed_after_a_kill(
    model: str, tmp_path: Path, serve: Serve, bundled: str
) -> None:
    """kill -9 behind the patch: it is there once, nothing that was done is done again, the end is as without."""
    line = "echo ran >> count"
    count = call("exec_command", {"cmd": line})
    if model == "bundled":
        ground = bundled_ground(tmp_path, bundled)
    else:
        answers = [[count], [patch(update("f", "old", "new"))], [{"hold": True}]]
        replies = {"go on": DONE}
        url = serve("--model", script(tmp_path, answers, replies=replies))
        ground = scripted_ground(tmp_path, url)
    before = ground.content()
    async with running(ground.repo, ground.url, *ground.words, prompt=PROMPT) as run:
        await run.until(is_patch_end)
        run.process.send_signal(signal.SIGKILL)
        assert await run.end() == -signal.SIGKILL
    assert ground.content() == before, "not applied yet"
    thread = run.of("thread.started")[0]["thread_id"]
    words = (*ground.words, "--resume", thread)
    more = "go on" if model == "scripted" else PROMPT
    async with running(ground.repo, ground.url, *words, prompt=more) as again:
        assert await again.end() == 0, again.events[-1]
    assert again.of("thread.started")[0]["thread_id"] == thread
    assert again.items("file_change") == [], "it is there once"
    assert is_green(ground)
    if model == "scripted":
        assert (run.commands(), again.commands()) == ([line], [])


def test_the_table_is_the_matrix() -> None:
    """Numbers, scenarios and models of the design note are those of the tests."""
    from tests.e2e.agent_matrix import cases, table

    assert table() == cases()

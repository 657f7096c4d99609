"""The loop through the real server code: order, early dispatch, repair, limits, cancellation."""

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.agent.stage import Plain, output_texts, stage
from tests.agent.tools.test_exec_command import Recorded
from tests.client.rig import running
from tightloop.agent.events import (
    AgentMessage,
    CommandExecution,
    ErrorItem,
    Event,
    FileChange,
    ItemCompleted,
    ItemStarted,
    ItemUpdated,
    ThreadItem,
    TurnCompleted,
    TurnFailed,
)
from tightloop.agent.loop import Agent
from tightloop.agent.patch.apply import StreamEvent
from tightloop.agent.patch.operations import FileSeen
from tightloop.agent.patch.plan import PatchPlanned
from tightloop.agent.resilience import Patience
from tightloop.agent.tools.apply_patch import ApplyPatch
from tightloop.agent.tools.interface import ToolContext, ToolResult
from tightloop.agent.turn import Limits, Status
from tightloop.client.session import Session
from tightloop.engine.scripted import Answer, Hold, Step, call_answer, in_turn, text_answer
from tightloop.protocol.deltas import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.items import CustomToolCall, FunctionCall, Message
from tightloop.sandbox.workspace import open_workspace

PATCH = "*** Begin Patch\n*** Update File: f\n@@\n-old\n+new\n*** End Patch"


def _run(cmd: str, call_id: str = "call_1", **more: Any) -> Answer:
    return call_answer("exec_command", {"cmd": cmd, **more}, call_id)


def _ended(events: list[Any]) -> list[ThreadItem]:
    return [event.item for event in events if isinstance(event, ItemCompleted)]


async def test_a_whole_turn(tmp_path: Path) -> None:
    """Command, patch, command, last word; each output reaches the model in turn."""
    (tmp_path / "f").write_text("old\n")
    script = [
        [ReasoningDelta("look"), *_run("cat f")],
        call_answer("apply_patch", PATCH, "call_2"),
        _run("cat f; exit 3", "call_3"),
        text_answer("all done"),
    ]
    async with stage(tmp_path, script) as s:
        result = await s.agent.run_turn("do it")
        assert (result.text, result.status) == ("all done", Status.COMPLETED)
        assert (tmp_path / "f").read_text() == "new\n"
        first, second, third = s.outputs()
        assert first.startswith("old\n\nProcess exited with code 0\nWall time: ")
        assert second == "Success. Updated the following files:\nM f\n"
        assert third.startswith("new\n\nProcess exited with code 3\nWall time: ")
        assert len(result.round_trips) == 4
        assert [span.kind for span in result.spans] == ["tool"] * 3
        kinds = [type(item).__name__ for item in _ended(result.events)]
        assert kinds == [
            "ReasoningItem",
            "CommandExecution",
            "FileChange",
            "CommandExecution",
            "AgentMessage",
        ]
        closing = result.events[-1]
        assert isinstance(closing, TurnCompleted)
        assert closing.tightloop is not None
        assert closing.tightloop.ledger is not None
        assert sum(closing.tightloop.ledger.values()) == pytest.approx(result.wall_s)
        assert result.usage.output_tokens == closing.usage.output_tokens > 0


async def test_continuation_sends_only_what_is_new(tmp_path: Path) -> None:
    async with stage(tmp_path, [_run("true"), text_answer("ok")]) as s:
        await s.agent.run_turn("go")
        first, second = s.engine.requests
        assert [type(item).__name__ for item in first.items] == ["Message"]
        assert [type(item).__name__ for item in second.items] == ["FunctionCallOutput"]


async def test_a_tool_starts_while_the_response_is_still_open(tmp_path: Path) -> None:
    """The command has run before the engine was allowed to finish its answer."""
    hold = Hold()
    script = [[*_run("echo ran > proof"), hold, TextDelta("later")], text_answer("ok")]
    async with stage(tmp_path, script) as s:
        task = asyncio.create_task(s.agent.run_turn("go"))
        await s.until_heard(lambda event: isinstance(event, ItemCompleted))
        assert not hold.release.is_set()
        assert (tmp_path / "proof").read_text() == "ran\n"
        hold.release.set()
        result = await task
        assert (result.text, len(s.engine.requests)) == ("ok", 2)


async def test_a_patch_is_not_visible_before_its_call_is_done(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    hold = Hold()
    answer: Answer = [
        ToolCallStarted("c", "apply_patch", True),
        ToolCallDelta(PATCH),
        hold,
        ToolCallDone(),
    ]
    async with stage(tmp_path, [answer, text_answer("ok")]) as s:
        task = asyncio.create_task(s.agent.run_turn("go"))
        await hold.reached.wait()
        await asyncio.sleep(0)
        assert (tmp_path / "f").read_text() == "old\n"
        hold.release.set()
        await task
        assert (tmp_path / "f").read_text() == "new\n"


async def test_a_cut_patch_call_leaves_no_trace(tmp_path: Path) -> None:
    """The response ends in the middle of a patch: nothing is applied, the call gets an answer."""
    (tmp_path / "f").write_text("old\n")
    answer: Answer = [
        ToolCallStarted("c", "apply_patch", True),
        ToolCallDelta(PATCH),
        Finished(FinishReason.LENGTH, Usage()),
    ]
    async with stage(tmp_path, [answer, text_answer("ok")]) as s:
        await s.agent.run_turn("go")
        assert (tmp_path / "f").read_text() == "old\n"


async def test_calls_of_one_response_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    answer = [
        *_run("sleep 0.05; cat f", "a"),
        *call_answer("apply_patch", PATCH, "b"),
        *_run("cat f", "c"),
    ]
    async with stage(tmp_path, [answer, text_answer("ok")]) as s:
        await s.agent.run_turn("go")
        first, second, third = s.outputs()
        assert first.startswith("old\n\n")
        assert second.startswith("Success")
        assert third.startswith("new\n\n")


class Meeting:
    """A tool without side effects whose calls end only once two of them run."""

    name = "meet"
    is_ordered = False

    def __init__(self) -> None:
        self.num_inside = 0
        self.both = asyncio.Event()

    def definition(self) -> dict[str, Any]:
        return {"type": "function", "name": self.name, "parameters": {"type": "object"}}

    def announce(self, arguments: str, item_id: str) -> ThreadItem | None:
        return None

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        self.num_inside += 1
        if self.num_inside == 2:
            self.both.set()
        await self.both.wait()
        return ToolResult("met", True)


async def test_unordered_calls_run_at_the_same_time(tmp_path: Path) -> None:
    answer = [*call_answer("meet", {}, "a"), *call_answer("meet", {}, "b")]
    async with stage(tmp_path, [answer, text_answer("ok")], tools=[Meeting()]) as s:
        await s.agent.run_turn("go")
        assert s.outputs() == ["met", "met"]


async def test_a_refused_patch_is_repaired(tmp_path: Path) -> None:
    """The refusal tells the model what the file holds; the second patch succeeds."""
    (tmp_path / "f").write_text("one\nold\n")
    wrong = PATCH.replace("-old", " two\n-old")
    script = [
        call_answer("apply_patch", wrong, "a"),
        call_answer("apply_patch", PATCH, "b"),
        text_answer("ok"),
    ]
    async with stage(tmp_path, script) as s:
        result = await s.agent.run_turn("go")
        refusal, success = s.outputs()
        assert "No file was changed" in refusal
        assert "    2|old" in refusal
        assert success.startswith("Success")
        statuses = [item.status for item in _ended(result.events) if isinstance(item, FileChange)]
        assert statuses == ["failed", "completed"]
        assert (tmp_path / "f").read_text() == "one\nnew\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([ToolCallStarted("c", "exec_command"), ToolCallDelta('{"cmd":'), ToolCallDone()], "JSON"),
        ([ToolCallStarted("c", "exec_command"), ToolCallDelta("[1]"), ToolCallDone()], "object"),
        (call_answer("exec_command", {"cmd": 1}), "must be a command line"),
        (call_answer("exec_command", {"cmd": "ls", "timeout_s": -1}), "timeout_s"),
        (call_answer("exec_command", {"cmd": "ls", "workdir": "/etc"}), "outside the workspace"),
        (call_answer("exec_command", {"cmd": "*** Begin Patch\n"}), "bare patch"),
        (call_answer("frobnicate", {}), "there are: exec_command, apply_patch"),
        (call_answer("apply_patch", "hello"), "No file was changed"),
        (call_answer("apply_patch", {"text": "x"}), "'input' must be"),
    ],
)
async def test_bad_calls_are_answered(tmp_path: Path, answer: Answer, words: str) -> None:
    """Nothing the model writes ends the session; it is told what was wrong."""
    async with stage(tmp_path, [answer, text_answer("ok")]) as s:
        result = await s.agent.run_turn("go")
        assert result.status is Status.COMPLETED
        (output,) = s.outputs()
        assert words in output
        assert any(isinstance(item, ErrorItem | FileChange) for item in _ended(result.events))


async def test_a_patch_in_shell_form_is_a_file_change(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/f").write_text("old\n")
    script = [_run(f"cd sub && apply_patch <<'EOF'\n{PATCH}\nEOF"), text_answer("ok")]
    async with stage(tmp_path, script) as s:
        result = await s.agent.run_turn("go")
        assert (tmp_path / "sub/f").read_text() == "new\n"
        (change, _) = _ended(result.events)
        assert isinstance(change, FileChange)
        assert change.changes[0].path == "sub/f"


async def test_a_patch_as_a_function_call(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old\n")
    script = [call_answer("apply_patch", {"input": PATCH}), text_answer("ok")]
    async with stage(tmp_path, script) as s:
        await s.agent.run_turn("go")
        assert (tmp_path / "f").read_text() == "new\n"


async def test_output_is_heard_while_the_command_runs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    script = [_run("echo one; cat go; echo two"), text_answer("ok")]
    async with stage(tmp_path, script) as s:
        task = asyncio.create_task(s.agent.run_turn("go"))
        await s.until_heard(_is_output)
        assert not _ended(s.heard)
        with (tmp_path / "go").open("w"):
            pass
        await task
        assert any(isinstance(event, ItemStarted) for event in s.heard)
        assert s.outputs()[0].startswith("one\ntwo\n\n")


async def test_max_turns(tmp_path: Path) -> None:
    """The output of the last call is not lost: it goes out with the next turn."""
    answers = [_run("echo hi", f"c{n}") for n in range(3)]
    async with stage(tmp_path, [*answers, text_answer("ok")], limits=Limits(max_turns=3)) as s:
        result = await s.agent.run_turn("go")
        assert result.status is Status.MAX_TURNS
        assert isinstance(result.events[-1], TurnFailed)
        again = await s.agent.run_turn("go on")
        assert (again.status, again.text) == (Status.COMPLETED, "ok")
        assert len(s.outputs()) == 3


async def test_wall_time_limit_kills_the_command(tmp_path: Path) -> None:
    script = [_run("sleep 60"), text_answer("ok")]
    async with stage(tmp_path, script, limits=Limits(wall_s=0.3)) as s:
        result = await s.agent.run_turn("go")
        assert result.status is Status.TIMEOUT
        assert "0.3 s" in result.message


def _is_output(event: Event) -> bool:
    return isinstance(event, ItemUpdated) and bool(event.output_delta)


async def _gone(pid: int) -> None:
    """Return once the process has ended."""
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


async def test_cancel_while_a_command_runs(tmp_path: Path) -> None:
    """The process is gone, and the conversation goes on with an answer to every call."""
    script = [[*_run("true", "a"), *_run("echo $$; sleep 60", "b")], text_answer("ok")]
    async with stage(tmp_path, script) as s:
        task = asyncio.create_task(s.agent.run_turn("go"))
        await s.until_heard(_is_output)
        (pid,) = [int(e.output_delta or 0) for e in s.heard if isinstance(e, ItemUpdated)]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert s.agent.last_result is not None
        assert s.agent.last_result.status is Status.CANCELLED
        await _gone(pid)
        interrupted = _ended(s.heard)[-1]
        assert isinstance(interrupted, CommandExecution)
        assert interrupted.status == "failed"
        result = await s.agent.run_turn("what now?")
        assert result.text == "ok"
        first, second = s.outputs()
        assert first.startswith("Process exited with code 0\nWall time: ")
        assert second == '{"status": "cancelled"}'


async def test_cancel_while_the_response_streams(tmp_path: Path) -> None:
    """An unfinished response is forgotten, its question is not."""
    hold = Hold()
    async with stage(tmp_path, [[TextDelta("hm"), hold], text_answer("ok")]) as s:
        task = asyncio.create_task(s.agent.run_turn("first"))
        await hold.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = await s.agent.run_turn("second")
        assert result.text == "ok"
        texts = [item.text for item in s.session.items if isinstance(item, Message)]
        assert texts == ["first", "second", "ok"]


async def test_a_failed_response_fails_the_turn(tmp_path: Path) -> None:
    answer = [Finished(FinishReason.ERROR, Usage(), None, "server_error", "out of memory")]
    limits = Limits(patience=Patience(max_tries=0))
    async with stage(tmp_path, [answer], limits=limits) as s:
        result = await s.agent.run_turn("go")
        assert result.status is Status.FAILED
        assert "out of memory" in result.message


async def test_an_unknown_model_fails_the_turn(tmp_path: Path) -> None:
    async with stage(tmp_path, [text_answer("ok")]) as s:
        s.session._fixed["model"] = "nope"
        result = await s.agent.run_turn("go")
        assert result.status is Status.FAILED
        assert "nope" in result.message


async def test_messages_stream_as_deltas(tmp_path: Path) -> None:
    async with stage(tmp_path, [text_answer("one two three")]) as s:
        await s.agent.run_turn("go")
        deltas = [e.text_delta for e in s.heard if isinstance(e, ItemUpdated)]
        assert "".join(delta or "" for delta in deltas) == "one two three"
        assert _ended(s.heard) == [AgentMessage("item_0", "one two three")]


async def test_behind_isolation_in_a_private_workspace(tmp_path: Path) -> None:
    """The strongest isolation and workspace of this machine: both tools see one tree, the user's
    own does not change, and a command cannot write elsewhere."""
    repository, outside = tmp_path / "repo", tmp_path / "outside"
    repository.mkdir()
    (repository / "f").write_text("old\n")
    workspace = await open_workspace(repository, state_dir=tmp_path / "state")
    script = [
        call_answer("apply_patch", PATCH, "a"),
        _run(f"cat f; echo more >> f; echo x > {outside}", "b"),
        text_answer("ok"),
    ]
    try:
        async with stage(workspace.path, script, kind=None) as s:
            await s.agent.run_turn("go")
            assert s.outputs()[1].startswith("new\n\nProcess ")
        assert await workspace.changed_files() == ["f"]
        assert "-old\n+new\n+more\n" in await workspace.diff()
        assert (repository / "f").read_text() == "old\n"
        assert sorted(os.listdir(tmp_path)) == ["repo", "state"]
    finally:
        await workspace.discard()


async def test_a_test_run_is_labelled(tmp_path: Path) -> None:
    async with stage(tmp_path, [_run("pytest() { :; }; pytest -q"), text_answer("ok")]) as s:
        result = await s.agent.run_turn("go")
        (span,) = result.spans
        assert (span.kind, span.label) == ("test", "pytest() { :; }; pytest -q")


def test_output_texts_ignores_other_items() -> None:
    assert output_texts([Message("user", ())]) == []


WRONG = "*** Begin Patch\n*** Update File: f\n@@\n-missing\n+x\n@@\n"
REST = "-second\n+y\n*** End Patch"


def _doomed(*steps: Step, is_custom: bool = True) -> Answer:
    """A patch whose first chunk fails, ``steps`` once that can be known, and its second chunk."""
    texts = [WRONG, REST]
    if not is_custom:
        texts = [orjson.dumps(text).decode()[1:-1] for text in texts]
        texts = ['{"input":"' + texts[0], texts[1] + '"}']
    return [
        ReasoningDelta("think"),
        ToolCallStarted("c", "apply_patch", is_custom),
        ToolCallDelta(texts[0]),
        *steps,
        ToolCallDelta(texts[1]),
        ToolCallDone(),
    ]


@pytest.mark.parametrize("is_custom", [True, False])
async def test_an_impossible_patch_ends_its_response(tmp_path: Path, *, is_custom: bool) -> None:
    """108: the rest is never generated; the model goes on from its own half response, with what
    the file holds, and the repaired patch is applied. The half call goes out made whole."""
    (tmp_path / "f").write_text("old\n")
    hold = Hold()
    script = [
        _doomed(hold, is_custom=is_custom),
        call_answer("apply_patch", PATCH, "d"),
        text_answer("ok"),
    ]
    async with stage(tmp_path, script) as s:
        result = await s.agent.run_turn("go")
        assert hold.reached.is_set()
        assert not hold.release.is_set()
        assert (result.status, result.text) == (Status.COMPLETED, "ok")
        refusal, success = s.outputs()
        assert "Your response was stopped at this point." in refusal
        assert "No file was changed" in refusal
        assert success.startswith("Success")
        second = s.engine.requests[1]
        assert len(second.items) == 2, "all before is still known to the server"
        call = second.context()[-2]
        if isinstance(call, CustomToolCall):
            assert is_custom
            assert (call.call_id, call.input) == ("c", WRONG)
        else:
            assert isinstance(call, FunctionCall)
            assert (call.call_id, orjson.loads(call.arguments)) == ("c", {"input": WRONG})
        assert (tmp_path / "f").read_text() == "new\n"
        changes = [item for item in _ended(result.events) if isinstance(item, FileChange)]
        assert [change.status for change in changes] == ["failed", "completed"]
        assert len(result.round_trips) == 3


@pytest.mark.parametrize("is_custom", [True, False])
async def test_a_server_that_cannot_go_on_gets_the_half_response_back(
    tmp_path: Path, *, is_custom: bool
) -> None:
    """The response is dropped; the call goes out as input, whole calls before it and outputs too."""
    (tmp_path / "f").write_text("old\n")
    answer = [*_run("true", "a"), Hold(), *_doomed(Hold(), is_custom=is_custom)]
    first_hold = answer[4]
    assert isinstance(first_hold, Hold)
    script = [answer, call_answer("apply_patch", PATCH, "d"), text_answer("ok")]
    async with stage(tmp_path, script, transport=Plain) as s:
        task = asyncio.create_task(s.agent.run_turn("go"))
        await s.until_heard(lambda event: isinstance(event, ItemCompleted))
        first_hold.release.set()
        result = await task
        assert (result.status, result.text) == (Status.COMPLETED, "ok")
        kinds = [type(item).__name__ for item in s.engine.requests[1].context()]
        call = "CustomToolCall" if is_custom else "FunctionCall"
        assert kinds == [
            "Message", "FunctionCall", call, "FunctionCallOutput", f"{call}Output",
        ]  # fmt: skip
        half = s.engine.requests[1].context()[2]
        if isinstance(half, FunctionCall):
            assert orjson.loads(half.arguments) == {"input": WRONG}
        else:
            assert isinstance(half, CustomToolCall)
            assert half.input == WRONG
        _, refusal, success = s.outputs()
        assert "Your response was stopped at this point." in refusal
        assert success.startswith("Success")
        assert (tmp_path / "f").read_text() == "new\n"


@pytest.mark.parametrize("min_tokens", [None, 1e6])
async def test_an_impossible_patch_that_is_not_worth_it_runs_to_its_end(
    tmp_path: Path, min_tokens: float | None
) -> None:
    (tmp_path / "f").write_text("old\n")
    limits = Limits(cancel_min_tokens=min_tokens)
    async with stage(tmp_path, [_doomed(), text_answer("ok")], limits=limits) as s:
        result = await s.agent.run_turn("go")
        assert result.status is Status.COMPLETED
        (refusal,) = s.outputs()
        assert "No file was changed" in refusal
        assert "stopped" not in refusal
        call = s.engine.requests[1].context()[-2]
        assert isinstance(call, CustomToolCall)
        assert call.input == WRONG + REST


def _is_command_end(event: Event) -> bool:
    return isinstance(event, ItemCompleted) and isinstance(event.item, CommandExecution)


async def test_a_command_before_the_patch_may_make_it_possible(tmp_path: Path) -> None:
    """While it runs nothing is given up; the patch then fits what the command wrote."""
    os.mkfifo(tmp_path / "go")
    (tmp_path / "f").write_text("old\n")
    hold = Hold()
    command = _run("echo ready; cat go; printf 'missing\\nsecond\\n' > f", "a")
    async with stage(tmp_path, [[*command, *_doomed(hold)], text_answer("ok")]) as s:
        task = asyncio.create_task(s.agent.run_turn("go"))
        await hold.reached.wait()
        await s.until_heard(_is_output)
        with (tmp_path / "go").open("w"):
            pass
        await s.until_heard(_is_command_end)
        hold.release.set()
        result = await task
        assert result.status is Status.COMPLETED
        assert s.outputs()[1].startswith("Success")
        assert (tmp_path / "f").read_text() == "x\ny\n"


async def test_a_patch_can_be_followed_while_it_streams(tmp_path: Path) -> None:
    """Its file is known before the call is complete: time to wake that file's tests."""
    (tmp_path / "f").write_text("old\n")
    hold, named, heard = Hold(), asyncio.Event(), list[StreamEvent]()

    def listen(event: StreamEvent) -> None:
        heard.append(event)
        named.set()

    answer: Answer = [
        ToolCallStarted("c", "apply_patch", True),
        ToolCallDelta(PATCH[: PATCH.index("-old")]),
        hold,
        ToolCallDelta(PATCH[PATCH.index("-old") :]),
        ToolCallDone(),
    ]
    async with stage(tmp_path, [answer, text_answer("ok")], on_patch=listen) as s:
        task = asyncio.create_task(s.agent.run_turn("go"))
        await named.wait()
        assert heard == [FileSeen("update", "f", 2)]
        hold.release.set()
        await task
        assert isinstance(heard[-1], PatchPlanned)


async def test_an_early_end_over_a_real_socket(tmp_path: Path) -> None:
    """The same through the server's own WebSocket: one connection, nothing said twice."""
    (tmp_path / "f").write_text("old\n")
    hold = Hold()
    script = [_doomed(hold), call_answer("apply_patch", PATCH, "d"), text_answer("ok")]
    async with running("websocket", in_turn(script)) as rig:
        tool = ApplyPatch()
        session = Session(rig.transport, model="scripted", tools=[tool.definition()])
        agent = Agent(session, [tool], ToolContext(tmp_path, Recorded()))
        result = await agent.run_turn("go")
        assert (result.status, result.text) == (Status.COMPLETED, "ok")
        assert not hold.release.is_set()
        assert len(rig.engine.requests[1].items) == 2
        assert session.num_recoveries == 0
        assert (tmp_path / "f").read_text() == "new\n"

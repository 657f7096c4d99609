"""A turn whose connection is lost at any event: it ends as the uncut one, and no call is made twice."""

import asyncio
from pathlib import Path

import pytest

from tests.agent.cutting import Cutter, Run, Waits, acting, is_whole, port_of, serving
from tightloop.agent.events import FileChange, ItemCompleted, Retrying
from tightloop.agent.turn import Status, TurnResult
from tightloop.engine.interface import GenerationRequest
from tightloop.engine.scripted import Answer, Hold, call_answer, text_answer
from tightloop.protocol.deltas import ReasoningDelta
from tightloop.protocol.items import (
    CustomToolCallOutput,
    FunctionCallOutput,
    Item,
    Message,
    user_message,
)

PATCH = "*** Begin Patch\n*** Update File: f\n@@\n-old\n+new\n*** End Patch"
PLAN: list[Answer] = [
    [
        ReasoningDelta("look first"),
        *text_answer("I look at it."),
        *call_answer("exec_command", {"cmd": "cat f"}, "call_a"),
    ],
    call_answer("apply_patch", PATCH, "call_b"),
    [
        *call_answer("exec_command", {"cmd": "make check"}, "call_c"),
        *call_answer("exec_command", {"cmd": "make lint"}, "call_d"),
    ],
    text_answer("all done now"),
]
COMMANDS = ["cat f", "make check", "make lint"]
CALLS = ["call_a", "call_b", "call_c", "call_d"]


def num_outputs(items: list[Item]) -> int:
    kinds = (FunctionCallOutput, CustomToolCallOutput)
    return sum(isinstance(item, kinds) for item in items)


def play(request: GenerationRequest) -> Answer:
    """What comes next depends only on what was done, as for a model."""
    done = num_outputs(request.context())
    if done == 3:  # one of the two checks was made, the response that asked for them was lost
        return call_answer("exec_command", {"cmd": "make lint"}, "call_d")
    return PLAN[min(done, 3) if done < 4 else 3]


def check(run: Run, result: TurnResult) -> None:
    """As without a cut."""
    assert (result.status, result.text) == (Status.COMPLETED, "all done now"), result.message
    assert (run.workspace / "f").read_text() == "new\n"
    assert [command.script for command in run.sandbox.commands] == COMMANDS
    assert run.num_changes == [("f",)]
    items = run.agent.items
    assert is_whole(items)
    assert [
        i.call_id for i in items if isinstance(i, FunctionCallOutput | CustomToolCallOutput)
    ] == CALLS
    assert len({id(item) for item in items}) == len(items)
    assert isinstance(items[-1], Message)
    assert items[-1].text == "all done now"
    assert items.count(user_message("do it")) == 1
    changes = [
        e for e in result.events if isinstance(e, ItemCompleted) and isinstance(e.item, FileChange)
    ]
    assert len(changes) == 1


def prepare(workspace: Path) -> None:
    workspace.mkdir(exist_ok=True)
    (workspace / "f").write_text("old\n")


async def one(kind: str, mode: str, workspace: Path, cutter: dict[str, int]) -> Cutter:
    """One turn, cut once: before the event numbered ``place``, ``more`` bytes into it, or early."""
    prepare(workspace)
    place = cutter.get("place", -1)
    async with (
        serving(play, mode) as (server, engine),
        Cutter(
            port_of(server),
            lambda here, before: here + before == place,
            more=cutter.get("more", 0),
            num_bytes=cutter.get("num_bytes"),
        ) as cut,
        acting(cut.url, kind, workspace, engine) as run,
    ):
        check(run, await run.agent.run_turn("do it"))
        return cut


@pytest.mark.parametrize("kind", ["websocket", "http"])
@pytest.mark.parametrize("mode", ["kept", "ended", "gone"])
async def test_a_cut_at_any_event_changes_nothing(kind: str, mode: str, tmp_path: Path) -> None:
    """Just before its frame is whole, and in the middle of it, for every event of the turn."""
    whole = await one(kind, mode, tmp_path / "uncut", {})
    assert whole.num_cuts == 0
    for place in range(1, whole.num_marks + 1):
        for more in (-40, 1) if mode == "kept" else (1,):
            cut = await one(
                kind, mode, tmp_path / f"{place}_{more}", {"place": place, "more": more}
            )
            assert cut.num_cuts == 1, place


@pytest.mark.parametrize("kind", ["websocket", "http"])
@pytest.mark.parametrize("num_bytes", [0, 1, 60, 130, 400])
async def test_a_cut_before_the_first_event(kind: str, num_bytes: int, tmp_path: Path) -> None:
    """In the handshake, in the headers."""
    cut = await one(kind, "kept", tmp_path, {"num_bytes": num_bytes})
    assert cut.num_cuts == 1


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_a_connection_that_never_lasts(kind: str, tmp_path: Path) -> None:
    """Each one is lost after three more events: the response is read on again and again."""
    (tmp_path / "f").write_text("old\n")
    async with (
        serving(play) as (server, engine),
        Cutter(port_of(server), lambda here, _before: here == 4, is_soft=True) as cut,
        acting(cut.url, kind, tmp_path, engine) as run,
    ):
        result = await run.agent.run_turn("do it")
        check(run, result)
        assert cut.num_cuts > 10
        unseen = run.session.num_recoveries  # lost before their first event came
        assert len(engine.requests) == 4 + unseen, "nothing else was asked for again"
        assert result.num_retries == run.session.num_resumed == 4
        assert not run.waits.lengths_s


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_a_response_is_read_on_while_its_tool_runs(kind: str, tmp_path: Path) -> None:
    """The call is made at once, its response lost then, read on, and the output goes out once."""
    (tmp_path / "f").write_text("old\n")
    hold = Hold()

    def script(request: GenerationRequest) -> Answer:
        if num_outputs(request.context()):
            return text_answer("ok")
        return [*call_answer("exec_command", {"cmd": "make"}, "call_a"), hold]

    async with (
        serving(script) as (server, engine),
        Cutter(port_of(server)) as cut,
        acting(cut.url, kind, tmp_path, engine) as run,
    ):
        turn = asyncio.create_task(run.agent.run_turn("go"))
        await hold.reached.wait()
        await run.command_ended.wait()
        server.abort_connections()
        await cut.connected_again.wait()
        hold.release.set()
        result = await turn
        assert (result.text, len(run.sandbox.commands), len(engine.requests)) == ("ok", 1, 2)
        assert is_whole(run.agent.items)


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_a_server_that_is_another_one_now(kind: str, tmp_path: Path) -> None:
    """It knows nothing of the conversation; between the two there is none for a while."""
    (tmp_path / "f").write_text("old\n")
    waits = Waits()
    async with (
        serving(play) as (first, engine),
        serving(play) as (second, _),
        Cutter(port_of(first), lambda here, before: here + before == 30) as cut,
        acting(cut.url, kind, tmp_path, engine, waits=waits) as run,
    ):

        def come_back() -> None:
            if len(waits.lengths_s) == 3:
                cut.upstream_port = port_of(second)

        waits.on_wait, cut.on_cut = come_back, lambda: setattr(cut, "upstream_port", 1)
        result = await run.agent.run_turn("do it")
        check(run, result)
        assert waits.lengths_s == [0.375, 0.75, 1.5]
        said = [event for event in run.heard if isinstance(event, Retrying)]
        assert [event.attempt for event in said if event.attempt] == [1, 2, 3]
        assert result.num_retries == 3

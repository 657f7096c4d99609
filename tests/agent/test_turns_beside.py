"""Whole turns with what goes on beside them: the model sees no difference, the ledger does."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.agent.bench_rig import (
    PYTEST,
    PYTHON_FILES,
    TEST,
    WRONG,
    bench_over,
    liar,
    rig_with,
)
from tests.agent.stage import stage
from tightloop.agent.events import (
    CommandExecution,
    ErrorItem,
    ItemCompleted,
    TurnCompleted,
    as_json,
)
from tightloop.agent.turn import Status
from tightloop.engine.scripted import Answer, Hold, call_answer, text_answer
from tightloop.protocol.items import Message
from tightloop.trace.ledger import build_ledger

__all__ = ["liar"]

PATCH = "*** Begin Patch\n*** Update File: m\n@@\n-exit 1\n+exit 0\n*** End Patch"


def _test(call_id: str, **more: Any) -> Answer:
    words = {"cmd": TEST.script, "timeout_s": TEST.timeout_s, **more}
    return call_answer("exec_command", words, call_id)


async def test_a_turn_that_uses_a_run_ahead(tmp_path: Path) -> None:
    """What the model reads is what a real run says; how it came about is in the events only."""
    hold = Hold()
    script = [
        _test("call_1"),
        call_answer("apply_patch", PATCH, "call_2"),
        [hold, *_test("call_3")],
        text_answer("fixed"),
    ]
    async with bench_over(tmp_path) as rig, stage(rig.workspace.path, script, bench=rig.bench) as s:
        turn = asyncio.create_task(s.agent.run_turn("fix it"))
        await hold.reached.wait()
        await rig.bench.quiet()
        hold.release.set()
        result = await turn
        assert (result.status, result.text) == (Status.COMPLETED, "fixed")
        before, _patched, after = s.outputs()
        assert before.startswith("testing\n\nProcess exited with code 1\nWall time: ")
        assert after.startswith("testing\n\nProcess exited with code 0\nWall time: ")
        assert "ahead" not in after
        hows = [
            event.item.how
            for event in result.events
            if isinstance(event, ItemCompleted) and isinstance(event.item, CommandExecution)
        ]
        assert hows == [None, "spawn ahead"]
        (one,) = result.tries
        assert one.is_used
        closing = result.events[-1]
        assert isinstance(closing, TurnCompleted)
        assert closing.tightloop is not None
        figures = closing.tightloop.speculation
        assert figures is not None
        assert (figures.used, figures.wasted, figures.wasted_cpu_ms) == (1, 0, 0)
        assert figures.saved_ms == pytest.approx(one.saved_s * 1e3, abs=0.001)
        assert json.loads(as_json(closing))["tightloop"]["speculation"]["used"] == 1
        ledger = build_ledger(result.start_ns, result.end_ns, result.spans, result.round_trips)
        assert sum(ledger.parts.values()) == pytest.approx(result.wall_s)


async def test_a_turn_that_uses_none(tmp_path: Path) -> None:
    """The last patch is followed by words: its run ahead ends with the turn, and is counted."""
    script = [
        _test("call_1"),
        call_answer("apply_patch", PATCH, "call_2"),
        text_answer("fixed"),
    ]
    async with bench_over(tmp_path) as rig, stage(rig.workspace.path, script, bench=rig.bench) as s:
        result = await s.agent.run_turn("fix it")
        assert result.status is Status.COMPLETED
        assert [one.is_used for one in result.tries] == [False]
        assert rig.bench.total.num_wasted == 1
        assert len(list((rig.state / "workspaces").iterdir())) == 1


async def test_a_command_that_the_user_named_is_expected(tmp_path: Path) -> None:
    """Before the model has run any test."""
    hold = Hold()
    script = [call_answer("apply_patch", PATCH, "call_1"), [hold, *_test("call_2", timeout_s=120)]]
    script.append(text_answer("fixed"))
    async with bench_over(tmp_path) as rig, stage(rig.workspace.path, script, bench=rig.bench) as s:
        turn = asyncio.create_task(s.agent.run_turn("fix it, test with `./pytest`"))
        await hold.reached.wait()
        await rig.bench.quiet()
        hold.release.set()
        assert [one.is_used for one in (await turn).tries] == [True]


async def test_a_success_that_a_fresh_run_contradicts(liar: Path) -> None:
    """The model is told what the fresh run said, and goes on; then warm runs are off."""
    words = {"cmd": PYTEST.script, "timeout_s": 60}
    patch = (
        "*** Begin Patch\n*** Update File: m.py\n@@\n-    return 1\n+    return 2\n*** End Patch"
    )
    script = [
        call_answer("exec_command", words, "call_1"),
        text_answer("all tests pass"),
        call_answer("apply_patch", patch, "call_2"),
        call_answer("exec_command", words, "call_3"),
        text_answer("now they do"),
    ]
    async with (
        rig_with(liar, WRONG, PYTHON_FILES) as rig,
        stage(rig.workspace.path, script, bench=rig.bench) as s,
    ):
        result = await s.agent.run_turn("make the tests pass")
        assert (result.status, result.text) == (Status.COMPLETED, "now they do")
        first, _, last = s.outputs()
        assert first.startswith("1 passed\n")
        assert "1 passed" in last
        told = [
            item.text
            for item in s.session.items
            if isinstance(item, Message) and item.text.startswith("[check by tightloop")
        ]
        assert len(told) == 1
        assert "assert 1 == 2" in told[0]
        shown = [
            event.item.message
            for event in result.events
            if isinstance(event, ItemCompleted) and isinstance(event.item, ErrorItem)
        ]
        assert shown == told
        assert not rig.sandbox.allows_warm
        ledger = build_ledger(result.start_ns, result.end_ns, result.spans, result.round_trips)
        assert sum(ledger.parts.values()) == pytest.approx(result.wall_s)
        assert "check" in {span.label for span in result.spans}


@pytest.mark.parametrize("goes_on", [True, False])
async def test_what_a_check_in_the_background_finds(liar: Path, goes_on: bool) -> None:
    """Told with the next request if the model goes on, else instead of the end; once."""
    hold = Hold()
    words = {"cmd": PYTEST.script, "timeout_s": 60}
    more: Answer = call_answer("exec_command", {"cmd": "true"}, "call_2")
    script = [
        call_answer("exec_command", words, "call_1"),
        [hold, *(more if goes_on else text_answer("all tests pass"))],
        text_answer("they do not"),
    ]
    async with (
        rig_with(liar, WRONG, PYTHON_FILES) as rig,
        stage(rig.workspace.path, script, bench=rig.bench) as s,
    ):
        turn = asyncio.create_task(s.agent.run_turn("go"))
        await hold.reached.wait()
        await rig.bench.quiet()
        hold.release.set()
        result = await turn
        assert (result.status, result.text) == (Status.COMPLETED, "they do not")
        told = [
            isinstance(item, Message) and item.text.startswith("[check by tightloop")
            for item in s.engine.requests[-1].items
        ]
        assert sum(told) == 1
        assert len(s.engine.requests) == 3

"""When tests run ahead at all, in what, and what wakes the warm process."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.agent.bench_owner import twin_of
from tests.agent.bench_rig import GOOD, PYTEST, PYTHON_FILES, TEST, bench_over
from tightloop.agent.events import CHECK
from tightloop.agent.patch.apply import PatchStream
from tightloop.agent.tools.exec_command import DEFAULT_TIMEOUT_S
from tightloop.sandbox.aside import Aside
from tightloop.sandbox.interface import Command, CommandResult, Policy, SandboxError
from tightloop.sandbox.workspace import Workspace


async def test_nothing_runs_ahead_where_it_could_leave_traces(tmp_path: Path) -> None:
    """Without isolation, with a network, on a copy, read-only, or switched off."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"kind": "none"}, "commands of the none isolation could leave traces"),
        ({"policy": {"allow_network": True}}, "commands can reach a network"),
        ({"workspace_kind": "copy"}, "the workspace is a copy"),
        ({"policy": {"is_read_only": True}}, "nothing may be changed"),
        ({"speculates": False}, "it is switched off"),
    ]
    for number, (how, reason) in enumerate(cases):
        place = tmp_path / str(number)
        place.mkdir()
        async with bench_over(place, **how) as rig:
            assert rig.bench.no_speculation == reason
            await rig.run()
            rig.change("m", GOOD)
            await rig.bench.quiet()
            assert await rig.tries() == []
            assert rig.bench.none_ahead == reason


async def test_a_twin_gives_the_same_answers(tmp_path: Path) -> None:
    """One sandbox for all runs ahead, with a warm process of its own, at the workspace's path."""
    async with bench_over(tmp_path, PYTHON_FILES, warm_tests=True, make_aside=twin_of) as rig:
        await rig.run(PYTEST)
        rig.change("m.py", "def two():\n    return 2\n")
        await rig.bench.quiet()
        ahead = await rig.run(PYTEST)
        assert ahead.how.startswith("warm-pytest-")
        assert ahead.how.endswith(" ahead")
        rig.change(
            "test_m.py",
            "import m\n\n\ndef test_two():\n    assert m\n\n\ndef test_three():\n    assert m\n",
        )
        await rig.bench.quiet()
        ahead = await rig.run(PYTEST)
        assert ahead.how.endswith(" ahead")
        assert "2 passed" in ahead.output
        assert await rig.bench.objections() == []
        assert [one.is_used for one in await rig.tries()] == [True, True]
        assert rig.notes == []


async def test_without_a_twin_it_is_tried_in_fresh_isolation(tmp_path: Path) -> None:
    """And said so, once."""

    async def none_to_be_had(_workspace: Workspace, _policy: Policy) -> Aside:
        raise SandboxError("no mounts today")

    async with bench_over(tmp_path, make_aside=none_to_be_had) as rig:
        await rig.run()
        rig.change("m", GOOD)
        await rig.bench.quiet()
        assert (await rig.run()).how == "spawn ahead"
        assert rig.notes == ["tests that run ahead are cold: no mounts today"]


async def test_a_patch_that_comes_before_all_is_prepared(tmp_path: Path) -> None:
    """Its tests run ahead as soon as they can."""
    release = asyncio.Event()

    async def late(workspace: Workspace, policy: Policy) -> Aside:
        await release.wait()
        return await twin_of(workspace, policy)

    async with bench_over(tmp_path, make_aside=late, is_prepared=False) as rig:
        rig.bench.begin_turn("run `./pytest`")
        rig.change("m", GOOD)
        assert rig.bench.none_ahead == "the tests were asked for before it was ready"
        release.set()
        await rig.bench.quiet()
        expected = replace(TEST, timeout_s=DEFAULT_TIMEOUT_S)
        assert (await rig.run(expected)).how == "spawn ahead"
        assert len(await rig.tries()) == 1
        assert rig.bench.none_ahead == ""


async def test_why_nothing_ran_ahead(tmp_path: Path) -> None:
    """Nobody named a command; said only of a turn in which files changed."""
    async with bench_over(tmp_path) as rig:
        rig.bench.begin_turn("mend it")
        assert rig.bench.none_ahead == ""
        rig.change("m", GOOD)
        assert await rig.tries() == []
        assert rig.bench.none_ahead == "no test command is known"
        rig.bench.begin_turn("thank you")
        assert rig.bench.none_ahead == ""


class Woken:
    """A sandbox that counts how often it was told that files change."""

    def __init__(self, inner: Any) -> None:
        self.num_refreshed = 0
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def refresh(self) -> None:
        self.num_refreshed += 1


async def test_a_patch_wakes_the_warm_process(tmp_path: Path) -> None:
    """When it first names a file, and when it has been applied; once each, for every patch."""
    async with bench_over(tmp_path, {"a": "1\n", "b": "1\n"}) as rig:
        woken = Woken(rig.sandbox)
        rig.bench._persistent = woken  # type: ignore[assignment]
        lines = "*** Begin Patch\n*** Update File: a\n@@\n-1\n+2\n*** Update File: b\n@@\n-1\n+2\n"
        for expected in (2, 4):
            stream = PatchStream(rig.workspace.path, listener=rig.bench.follow)
            stream.feed(
                lines.replace("1", str(expected // 2)).replace("+2", f"+{expected // 2 + 1}")
            )
            assert woken.num_refreshed == expected - 1
            stream.feed("*** End Patch")
            assert stream.commit().is_ok
            rig.bench.changed(("a", "b"))
            assert woken.num_refreshed == expected


async def test_what_runs_beside_belongs_to_the_block(tmp_path: Path) -> None:
    """An error of the block comes out as it is."""

    async def fail() -> None:
        async with bench_over(tmp_path) as rig:
            await rig.run(replace(TEST, script="echo hi"))
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        await fail()
    assert list((tmp_path / "state" / "workspaces").iterdir()) == []


async def test_commands_run_in_what_the_setting_names(tmp_path: Path) -> None:
    """A sandbox around the sandbox sees every command that was asked for."""
    async with bench_over(tmp_path) as rig:
        assert (await rig.bench.run(Command(argv=["echo", "hi"]))).output == "hi\n"
        assert rig.bench.kind == "bubblewrap"


async def test_warm_commands_that_fail_cold_speak_against_success(tmp_path: Path) -> None:
    """The model is told; a check that cannot be made is told to a person."""
    cold = CommandResult(1, "it is red\n", 0, 0)
    answers: list[list[tuple[Command, CommandResult]] | None] = [None, [], [(TEST, cold)]]

    async def confirm() -> list[tuple[Command, CommandResult]] | None:
        if not answers:
            raise SandboxError("gone")
        return answers.pop(0)

    async with bench_over(tmp_path, confirm=confirm) as rig:
        assert await rig.bench.objections() is None
        assert await rig.bench.objections() == []
        told = await rig.bench.objections()
        assert told is not None
        assert told[0].startswith(f"{CHECK} `./pytest` was run once more")
        assert told[0].endswith("it is red\n\nProcess exited with code 1")
        assert rig.notes == []
        assert await rig.bench.objections() == []
        assert rig.notes == ["warm commands: not checked: gone"]

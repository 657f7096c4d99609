"""One candidate's bench: what it checks, when, and what it tells the model."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tightloop.harness.racing.bench import MAX_TOLD, CandidateBench, Shared
from tightloop.harness.racing.goal import Goal
from tightloop.harness.racing.places import Place
from tightloop.harness.racing.referee import Referee
from tightloop.harness.racing.tree_state import state_of
from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.sandbox.workspace import open_workspace

TEST = Command(script="./pytest")


@dataclass
class Told:
    """A sandbox that answers as it is told."""

    results: list[CommandResult | SandboxError]
    is_alive: bool = True
    kind: str = "none"
    pid: int | None = None
    num_refreshed: int = 0
    commands: list[Command] = field(default_factory=list)

    async def run(self, command: Command, on_output: Any = None) -> CommandResult:
        self.commands.append(command)
        result = self.results.pop(0)
        if isinstance(result, SandboxError):
            raise result
        return result

    def refresh(self) -> None:
        self.num_refreshed += 1


@dataclass
class Fresh:
    """Where checks are made; waits for ``gate``."""

    sandbox: Told
    is_alive: bool = True
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def on(self, fork: Any) -> AsyncIterator[Any]:
        await self.gate.wait()
        yield self.sandbox

    async def close(self) -> None:
        """Nothing is open."""


def ended(code: int, how: str = "warm-pytest-l1", output: str = "1 failed\n") -> CommandResult:
    return CommandResult(code, output, 0, 0, how=how)


@dataclass
class Rig:
    bench: CandidateBench
    fresh: Fresh
    shared: Shared
    greens: list[int]
    deaths: list[str]
    change: Callable[[str], None]


@asynccontextmanager
async def rig(
    place: Path, own: list[CommandResult | SandboxError], checks: list[CommandResult | SandboxError]
) -> AsyncIterator[Rig]:
    repository = place / "repo"
    repository.mkdir()
    (repository / "m").write_text("x\n")
    workspace = await open_workspace(repository, state_dir=place / "state", kind="copy")
    shared = Shared(Goal(TEST, "configured"), await state_of(workspace))
    fresh, told = Fresh(Told(checks)), Told(own)
    fresh.gate.set()
    greens: list[int] = []
    deaths: list[str] = []
    bench = CandidateBench(
        Place(workspace, told, workspace.path),  # type: ignore[arg-type]
        shared,
        Referee(fresh),
        on_green=lambda: greens.append(1),
        on_death=deaths.append,
    )

    def change(text: str) -> None:
        (workspace.path / "m").write_text(text)

    try:
        yield Rig(bench, fresh, shared, greens, deaths, change)
    finally:
        await bench.close()
        await workspace.discard()
        assert list((place / "state" / "workspaces").iterdir()) == []


async def test_a_warm_pass_is_confirmed_beside_the_model(tmp_path: Path) -> None:
    """Once the tests were seen to fail on what all began with."""
    async with rig(tmp_path, [ended(1), ended(0)], [ended(0, "spawn")]) as on:
        await on.bench.run(TEST)
        assert on.shared.is_red
        on.change("y\n")
        await on.bench.run(TEST)
        assert await on.bench.objections() is None
        assert (on.greens, on.bench.holds(await state_of(on.bench.place.workspace))) == ([1], True)


async def test_a_pass_of_a_fresh_process_needs_no_other(tmp_path: Path) -> None:
    async with rig(tmp_path, [ended(1), ended(0, "spawn")], []) as on:
        await on.bench.run(TEST)
        on.change("y\n")
        await on.bench.run(TEST)
        assert await on.bench.objections() is None
        assert on.greens == [1]


async def test_a_wrong_warm_pass_is_told(tmp_path: Path) -> None:
    """The fresh run counts; the model hears of it with its next request."""
    async with rig(tmp_path, [ended(1), ended(0)], [ended(1, "spawn", "really 1 failed\n")]) as on:
        await on.bench.run(TEST)
        on.change("y\n")
        on.fresh.gate.clear()
        await on.bench.run(TEST)
        assert on.bench.take_news() == []
        on.fresh.gate.set()
        (news,) = await on.bench.objections() or []
        assert "really 1 failed" in news
        assert (on.greens, on.bench.take_news()) == ([], [])


async def test_a_verdict_about_a_tree_that_has_moved_on_is_none(tmp_path: Path) -> None:
    async with rig(tmp_path, [ended(1), ended(0)], [ended(0, "spawn"), ended(1, "spawn")]) as on:
        await on.bench.run(TEST)
        on.change("y\n")
        await on.bench.run(TEST)
        on.change("z\n")  # before the check has made its fork
        (told,) = await on.bench.objections() or []
        assert "`./pytest`" in told
        assert on.greens == []


async def test_who_does_not_listen_has_lost(tmp_path: Path) -> None:
    """So often it is told, on other trees each time; then its word is its last one."""
    checks: list[CommandResult | SandboxError] = [ended(1, "spawn") for _ in range(MAX_TOLD + 1)]
    async with rig(tmp_path, [], checks) as on:
        for number in range(MAX_TOLD):
            on.change(f"{number}\n")
            assert len(await on.bench.objections() or []) == 1
        on.change("last\n")
        assert await on.bench.objections() is None
        assert on.greens == []


async def test_who_has_seen_it_fail_is_not_told_again(tmp_path: Path) -> None:
    """It knows, and gives up."""
    async with rig(tmp_path, [ended(1)], []) as on:
        on.change("y\n")
        await on.bench.run(TEST)
        assert await on.bench.objections() is None


async def test_a_check_that_cannot_be_made_is_noted(tmp_path: Path) -> None:
    async with rig(tmp_path, [], [SandboxError("no room")]) as on:
        on.change("y\n")
        assert await on.bench.objections() is None
        assert on.bench.note == "./pytest: not checked: no room"
        assert on.greens == []


@pytest.mark.parametrize("is_alive", [True, False])
async def test_a_dead_sandbox_is_told_at_once(tmp_path: Path, is_alive: bool) -> None:
    """Not so a command that could not be run."""
    async with rig(tmp_path, [SandboxError("gone")], []) as on:
        sandbox: Any = on.bench.place.sandbox
        sandbox.is_alive = is_alive
        with pytest.raises(SandboxError, match="gone"):
            await on.bench.run(Command(script="ls"))
        assert on.deaths == ([] if is_alive else ["gone"])


async def test_what_only_looks_is_no_test(tmp_path: Path) -> None:
    async with rig(tmp_path, [ended(1), ended(0)], []) as on:
        await on.bench.run(Command(script="cat m"))
        assert on.bench.last is None
        on.bench.changed(("m",))
        sandbox: Any = on.bench.place.sandbox
        assert sandbox.num_refreshed == 1
        assert on.bench.command == TEST

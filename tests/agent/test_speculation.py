"""Tests that run ahead of the model: given out only for the same command on the same tree."""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.agent.bench_owner import MARK, STEPS, processes_with
from tests.agent.bench_rig import FILES, GOOD, PYTEST, TEST, bench_over
from tests.sandbox.conftest import git
from tightloop.agent.speculation import MAX_WASTED_IN_A_ROW, Scratch
from tightloop.agent.tools.exec_command import DEFAULT_TIMEOUT_S
from tightloop.sandbox.interface import Command, CommandResult
from tightloop.sandbox.workspace import open_workspace
from tightloop.trace.speculation import Try, sum_up


async def test_a_result_is_given_out_once_and_only_as_asked(tmp_path: Path) -> None:
    """The run ahead says what a run in the workspace says, path included, and is said to be one."""
    command = replace(TEST, script=f"pwd; {TEST.script}; code=$?; pwd; exit $code")
    async with bench_over(tmp_path) as rig:
        path = str(rig.workspace.path)
        first = await rig.run(command)
        assert (first.exit_code, first.how) == (1, "spawn")
        rig.change("m", GOOD)
        await rig.bench.quiet()
        pieces: list[bytes] = []
        ahead = await rig.bench.run(command, pieces.append)
        assert (ahead.exit_code, ahead.how) == (0, "spawn ahead")
        assert ahead.output.splitlines() == [path, "testing", path]
        assert b"".join(pieces).decode() == ahead.output
        again = await rig.run(command)
        assert (again.exit_code, again.how) == (0, "spawn")
        (one,) = await rig.tries()
        assert (one.is_used, one.reason) == (True, "")
        assert one.started_ns < one.ran_ns < one.ended_ns < one.asked_ns
        assert one.saved_s == (one.ended_ns - one.ran_ns) / 1e9
        assert one.cpu_s > 0


async def test_another_command_gets_a_run_of_its_own(tmp_path: Path) -> None:
    """Not the same words, directory or time limit: not the same command."""
    async with bench_over(tmp_path, {**FILES, "sub/pytest": FILES["pytest"]}) as rig:
        await rig.run()
        others = [
            replace(TEST, script=f"{TEST.script} "),
            replace(TEST, script=None, argv=(TEST.script or "").split()),
            replace(TEST, timeout_s=59.0),
            replace(TEST, cwd="sub"),
        ]
        for number, other in enumerate(others):
            rig.change("m", f"{GOOD}# {number}\n")
            await rig.bench.quiet()
            assert (await rig.run(other)).how == "spawn"
            await rig.run()  # so that it is the one expected again
        tries = await rig.tries()
        assert [one.reason for one in tries] == ["another command was asked for"] * 4
        assert sum_up(tries).num_wasted == 4


@pytest.mark.parametrize(
    "script",
    ["echo > new", "rm m", "mkdir d", "chmod 700 m", "ln -sf m l", "echo '#' > m"],
)
async def test_another_tree_gets_a_run_of_its_own(tmp_path: Path, script: str) -> None:
    """Whatever a command has changed since, if only a directory or a mode."""
    async with bench_over(tmp_path) as rig:
        await rig.run()
        rig.change("m", GOOD)
        await rig.bench.quiet()
        await rig.run(Command(script=script))
        assert (await rig.run()).how == "spawn"
        (one,) = await rig.tries()
        assert one.reason == "the tree is another one"


async def test_reading_commands_do_not_spoil_it(tmp_path: Path) -> None:
    async with bench_over(tmp_path) as rig:
        await rig.run()
        rig.change("m", GOOD)
        await rig.bench.quiet()
        await rig.run(Command(script="git status; git diff; cat m"))
        assert (await rig.run()).how == "spawn ahead"


async def test_a_run_under_way_is_joined(tmp_path: Path) -> None:
    """Asked for while it runs ahead, it is waited for, and its end is the answer.

    It cannot have ended before: it waits for a file, which appears in its copy of the workspace
    only after it was asked for. A cache, since anything else would be another tree.
    """
    waiting = "until test -e .pytest_cache/go; do :; done\necho > .pytest_cache/said\n"
    async with bench_over(tmp_path, {**FILES, "m": waiting}) as rig:
        (rig.workspace.path / ".pytest_cache").mkdir()
        rig.bench.begin_turn("test it with `./pytest`")
        rig.change("m", f"{waiting}#\n")
        asking = asyncio.create_task(rig.run(replace(TEST, timeout_s=DEFAULT_TIMEOUT_S)))
        fork = await _the_fork(rig.state, rig.workspace.path)
        assert not asking.done()
        (fork / ".pytest_cache" / "go").touch()
        result = await asking
        assert (result.exit_code, result.how) == (0, "spawn ahead")
        (one,) = await rig.tries()
        assert one.started_ns < one.asked_ns < one.ended_ns
        assert 0 <= one.saved_s < (one.ended_ns - one.started_ns) / 1e9
        assert (rig.workspace.path / ".pytest_cache" / "said").exists()


LEAVING = {
    "a tracked file": ("echo 1 > data", "it changed data"),
    "a new file": ("touch new", "it changed new"),
    "an ignored file": ("touch x.o", "it changed x.o"),
    "a file outside": ("touch /tmp/left", "it left files outside of the workspace"),
    "a temporary file named": (
        "echo /tmp/pytest-of-root/pytest-1",
        "its output names temporary files of its own",
    ),
}


@pytest.mark.parametrize("name", LEAVING)
async def test_what_a_run_leaves_keeps_its_result_back(tmp_path: Path, name: str) -> None:
    """A real run would have left it where later commands find it; so a real run follows."""
    line, reason = LEAVING[name]
    files = {**FILES, "data": "0", ".gitignore": "*.o\n"}
    async with bench_over(tmp_path, files) as rig:
        await rig.run()
        before = set(rig.workspace.path.iterdir())
        rig.change("m", f"{line}\n")
        await rig.bench.quiet()
        assert (rig.workspace.path / "data").read_text() == "0"
        assert set(rig.workspace.path.iterdir()) == before
        assert (await rig.run()).how == "spawn"
        (one,) = await rig.tries()
        assert one.reason == reason
        rig.change("m", f"{line}\n#\n")
        await rig.bench.quiet()
        num_tries = len(await rig.tries())
        assert num_tries == (1 if name == "a temporary file named" else 0)


async def test_files_outside_that_a_run_ahead_would_miss(tmp_path: Path) -> None:
    """What earlier commands have put into the session's own /tmp, a run ahead cannot see."""
    async with bench_over(tmp_path, {**FILES, "m": "test -e /tmp/there"}) as rig:
        assert (await rig.run()).exit_code == 1
        rig.change("m", "test -e /tmp/there #")
        await rig.bench.quiet()
        await rig.run(Command(script="touch /tmp/there"))
        result = await rig.run()
        assert (result.exit_code, result.how) == (0, "spawn")
        (one,) = await rig.tries()
        assert one.reason == "earlier commands left files outside of the workspace"


async def test_caches_of_a_used_run_are_kept(tmp_path: Path) -> None:
    """--last-failed, after a run ahead was used, runs what that one saw failing."""
    command = replace(PYTEST, script="python -m pytest -q")
    lines = "import m\n\n\ndef test_a():\n    assert m.a\n\n\ndef test_b():\n    assert m.b\n"
    async with bench_over(tmp_path, {"m.py": "a, b = 0, 1\n", "test_m.py": lines}) as rig:
        await rig.run(command)
        rig.change("m.py", "a, b = 1, 0\n")
        await rig.bench.quiet()
        assert (await rig.run(command)).how == "spawn ahead"
        last = replace(PYTEST, script="python -m pytest -q --lf")
        result = await rig.run(last)
        assert "FAILED test_m.py::test_b" in result.output
        assert "1 failed" in result.output
        assert "passed" not in result.output
        rig.change("m.py", "a, b = 1, 1\n")
        await rig.bench.quiet()
        (used,) = await rig.tries()  # a run that reads the cache is not tried ahead
        assert used.is_used


async def test_a_tree_is_tried_once(tmp_path: Path) -> None:
    """Whatever became of the first time."""
    async with bench_over(tmp_path) as rig:
        await rig.run()
        for text in (GOOD, "exit 2\n", GOOD):
            rig.change("m", text)
            await rig.bench.quiet()
        reasons = [one.reason for one in await rig.tries()]
        assert reasons == ["the tree changed", "the tree changed", "this tree was tried before"]


async def test_what_is_never_used_ends_for_the_turn(tmp_path: Path) -> None:
    async with bench_over(tmp_path) as rig:
        await rig.run()
        for number in range(MAX_WASTED_IN_A_ROW + 2):
            rig.change("m", f"{GOOD}# {number}\n")
            await rig.bench.quiet()
        assert len(await rig.tries()) == MAX_WASTED_IN_A_ROW
        rig.bench.begin_turn("")
        rig.change("m", f"{GOOD}# last\n")
        await rig.bench.quiet()
        assert len(await rig.tries()) == 1


HANGING = {**FILES, "m": "exit 0\n"}
HANG = "setsid sleep 1001.5 & sleep 1001.5\n"


@pytest.mark.parametrize("how", ["another command", "another patch", "end of turn", "close"])
async def test_a_run_that_is_dropped_leaves_nothing(tmp_path: Path, how: str) -> None:
    """No process and no workspace of it is there once its end has been waited for."""
    ended: list[Try] = []
    async with bench_over(tmp_path, HANGING, num_cores=1) as rig:
        await rig.run()
        rig.change("m", HANG)
        await until_running("1001.5")
        if how == "another command":
            assert (await rig.run(Command(script="echo hi"))).output == "hi\n"
            await rig.bench.quiet()
        elif how == "another patch":
            rig.change("m", "exit 0 #\n")
            await rig.bench.quiet()
        elif how == "end of turn":
            ended = await rig.bench.finish_turn()
        else:
            await rig.bench.close()
        assert processes_with("1001.5") == []
        assert len(list((rig.state / "workspaces").iterdir())) == 1
        tries = [*ended, *await rig.tries()]
        assert [one.is_used for one in tries] == [False] * len(tries)
        assert tries[0].reason in {
            "another command needed the processor", "the tree changed", "nobody asked for it",
        }  # fmt: skip
        assert tries[0].cpu_s > 0


async def test_a_command_that_was_asked_for_is_not_held_up(tmp_path: Path) -> None:
    """A run ahead that hangs where one of its own would not is given up, and known as slow."""
    slow = "while test -e .pytest_cache/hang; do :; done\n"
    async with bench_over(tmp_path, {**FILES, "m": slow}) as rig:
        await rig.run()
        caches = rig.workspace.path / ".pytest_cache"
        caches.mkdir()
        (caches / "hang").touch()
        rig.change("m", f"{slow}#\n")
        asking = asyncio.create_task(rig.run())
        await _the_fork(rig.state, rig.workspace.path)
        (caches / "hang").unlink()
        result = await asking
        assert (result.exit_code, result.how) == (0, "spawn")
        (one,) = await rig.tries()
        assert one.reason == "it took longer than a run of its own"


async def test_what_prints_without_end_is_not_kept(tmp_path: Path) -> None:
    async with bench_over(tmp_path) as rig:
        await rig.run()
        rig.change("m", "head -c 5000000 /dev/zero\n")
        await rig.bench.quiet()
        assert (await rig.run()).how == "spawn"
        (one,) = await rig.tries()
        assert one.reason == "it printed more than is kept"


async def test_figures_of_turns_add_up(tmp_path: Path) -> None:
    async with bench_over(tmp_path) as rig:
        await rig.run()
        seen: list[Try] = []
        for number in range(4):
            rig.bench.begin_turn("")
            rig.change("m", f"{GOOD}# {number}\n")
            await rig.bench.quiet()
            if number % 2:
                await rig.run()
            seen += await rig.tries()
        assert [one.is_used for one in seen] == [False, True, False, True]
        assert rig.bench.total == sum_up(seen)


async def until_running(word: str) -> None:
    while not await asyncio.to_thread(processes_with, word):
        pass


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_while_something_runs_ahead_leaves_nothing(tmp_path: Path, step: str) -> None:
    """No process at once; mounts and directories with the next session at the latest; the
    repository as it was."""
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.agent.bench_owner", str(tmp_path), step),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert owner.stdout is not None
        assert (await owner.stdout.readline()).decode().strip() == step
    finally:
        owner.kill()
        await owner.wait()
    while await asyncio.to_thread(processes_with, MARK):
        pass
    repository, state = tmp_path / "repo", tmp_path / "state"
    workspace = await open_workspace(repository, state_dir=state)
    try:
        assert [place for place in mounts_below(state) if place != workspace.path] == []
        assert list((state / "workspaces").iterdir()) == [workspace.path.parent.parent]
    finally:
        await workspace.discard()
    assert git(repository, "status", "--porcelain") == ""


def mounts_below(place: Path) -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [Path(line.split(" ")[4]) for line in lines]
    return [mount for mount in found if mount.is_relative_to(place)]


async def _the_fork(state: Path, workspace: Path) -> Path:
    """The one other workspace there is, once there is one."""
    while (found := await asyncio.to_thread(_other, state, workspace)) is None:
        pass
    return found


def _other(state: Path, workspace: Path) -> Path | None:
    views = [view for view in state.glob("workspaces/*/view/*") if view != workspace]
    return views[0] if views and os.path.ismount(views[0]) else None


async def test_what_a_command_leaves_while_something_runs_ahead(tmp_path: Path) -> None:
    """A run ahead that begins and ends beside a command has not seen what that one leaves."""
    waiting = "until test -e .pytest_cache/go; do :; done; touch /tmp/there"
    async with bench_over(tmp_path, {**FILES, "m": "test -e /tmp/there"}) as rig:
        caches = rig.workspace.path / ".pytest_cache"
        caches.mkdir()
        assert (await rig.run()).exit_code == 1
        beside = asyncio.create_task(rig.run(Command(script=waiting)))
        await asyncio.sleep(0)
        rig.change("m", "test -e /tmp/there #")
        await rig.bench.quiet()
        (caches / "go").touch()
        await beside
        result = await rig.run()
        assert (result.exit_code, result.how) == (0, "spawn")
        (one,) = await rig.tries()
        assert one.reason == "earlier commands left files outside of the workspace"


class Listing:
    """Stands for a sandbox that lists what lies in it, as slowly as one likes."""

    kind = "none"

    def __init__(self) -> None:
        self.output = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def run(self, command: Command, on_output: object = None) -> CommandResult:
        await self.gate.wait()
        return CommandResult(0, self.output, 0, 0)


async def test_a_look_that_was_cut_short_tells_nothing() -> None:
    """The next one looks again, and sees what has been left."""
    listing = Listing()
    scratch = Scratch(listing, TEST)
    await scratch.remember()
    assert await scratch.is_untouched()
    listing.output = "left"
    scratch.note_command()
    listing.gate.clear()
    looking = asyncio.create_task(scratch.is_untouched())
    await asyncio.sleep(0)
    looking.cancel()
    await asyncio.wait([looking])
    listing.gate.set()
    assert not await scratch.is_untouched()


async def test_files_that_were_written_again(tmp_path: Path) -> None:
    """They hold the same, but what make builds depends on how old they are."""
    async with bench_over(tmp_path) as rig:
        await rig.run()
        rig.change("m", GOOD)
        await rig.bench.quiet()
        await rig.run(Command(script="touch pytest"))
        assert (await rig.run()).how == "spawn"
        (one,) = await rig.tries()
        assert one.reason == "files were written again"

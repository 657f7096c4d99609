"""Wrong warm verdicts are found, told and end warm runs; right ones cost the model nothing."""

import asyncio
import json
from pathlib import Path

from tests.agent.bench_owner import twin_of
from tests.agent.bench_rig import (
    PYTEST,
    PYTHON_FILES,
    RIGHT,
    WRONG,
    bench_over,
    liar,
    rig_with,
)
from tightloop.sandbox.verdicts import ShutOff

__all__ = ["liar"]


async def test_a_right_verdict_is_checked_and_not_spoken_of(liar: Path) -> None:
    """The check in the background does for the end, too: its tree is the last one."""
    async with rig_with(liar, RIGHT) as rig:
        result = await rig.run(PYTEST)
        assert (result.how, result.output) == ("warm-pytest-l1", "1 failed\n")
        await rig.bench.quiet()
        assert rig.bench.take_news() == []
        assert await rig.bench.objections() == []
        assert rig.sandbox.allows_warm
        assert rig.notes == []


async def test_a_wrong_verdict_is_told_and_ends_warm_runs(liar: Path) -> None:
    """For the sandbox at once, for the repository from now on; both logs are kept."""
    async with rig_with(liar, WRONG) as rig:
        assert (await rig.run(PYTEST)).exit_code == 0
        told = await rig.bench.objections()
        assert told is not None
        (text,) = told
        assert text.startswith(
            "[check by tightloop, not by the user] `python -m pytest -q -p no:cacheprovider` was "
            "run once more in a fresh process, because its last verdict came from a process that "
            "had been kept warm, and was wrong. The fresh run counts:\n\n"
        )
        assert "assert 1 == 2" in text
        assert "Process exited with code 1" in text
        assert text.endswith("- exit code: now 1\n- test_m.py::test_two: now failed")
        assert not rig.sandbox.allows_warm
        after = await rig.run(PYTEST)
        assert (after.how, after.exit_code) == ("spawn", 1)
        assert await rig.bench.objections() is None
        assert "passed warm, failed cold" in ShutOff(rig.state).reason(rig.repository)
        (note,) = rig.notes
        assert note.startswith("warm tests are off for this repository: ")
        logs = sorted((rig.state / "warm-shut-off" / "logs").iterdir())
        assert ["1 passed" in path.read_text() for path in logs] == [False, True]


async def test_it_is_told_as_soon_as_it_is_known(liar: Path) -> None:
    """The first verdict of a command is checked while the model goes on."""
    async with rig_with(liar, WRONG) as rig:
        await rig.run(PYTEST)
        await rig.bench.quiet()
        assert len(rig.bench.take_news()) == 1
        assert rig.bench.take_news() == []


async def test_a_test_that_is_unstable_does_not_end_warm_runs(liar: Path) -> None:
    """It differs from one fresh run to the next: told, since neither verdict counts for much."""
    flaky = "import pathlib\n\n\ndef test_two():\n    seen = pathlib.Path('.pytest_cache')\n"
    flaky += "    was = seen.exists()\n    seen.mkdir(exist_ok=True)\n    assert was\n"
    async with rig_with(liar, WRONG, {"test_m.py": flaky}) as rig:
        await rig.run(PYTEST)
        told = await rig.bench.objections()
        assert told is not None
        assert "because it ends differently from run to run" in told[0]
        assert rig.sandbox.allows_warm
        assert ShutOff(rig.state).reason(rig.repository) == ""


async def test_a_tree_that_moved_on_after_the_last_run(liar: Path) -> None:
    """What passed and does not any more is told; nothing follows about warm runs."""
    async with rig_with(liar, WRONG, {**PYTHON_FILES, "m.py": "def two():\n    return 2\n"}) as rig:
        await rig.run(PYTEST)
        await rig.bench.quiet()
        assert rig.bench.take_news() == []
        rig.change("m.py", PYTHON_FILES["m.py"])
        told = await rig.bench.objections()
        assert told is not None
        assert "because files have changed since it was run last" in told[0]
        assert rig.sandbox.allows_warm
        assert await rig.bench.objections() == []  # told once, whatever the model makes of it


async def test_a_command_that_cannot_be_checked_is_named(liar: Path) -> None:
    """A fresh run that does not come to an end is no verdict."""
    slow = "import os\n\n\ndef test_two():\n    os.kill(os.getpid(), 9)\n"
    async with rig_with(liar, WRONG, {"test_m.py": slow}) as rig:
        await rig.run(PYTEST)
        assert await rig.bench.objections() == []
        assert any("not checked: the fresh run was ended" in note for note in rig.notes)
        assert rig.sandbox.allows_warm


async def test_a_change_where_trees_cannot_be_told_apart(liar: Path, tmp_path: Path) -> None:
    """On a copy nobody knows what a verdict was about but by counting: nothing follows for warm runs."""
    (liar / "lie").write_text(json.dumps(WRONG))
    place = tmp_path / "place"
    place.mkdir()
    files = {**PYTHON_FILES, "m.py": "def two():\n    return 2\n"}
    policy = {"read_only": (liar,)}
    async with bench_over(
        place, files, warm_tests=True, policy=policy, speculates=False, workspace_kind="copy"
    ) as rig:
        assert await rig.sandbox.warm_tests_ready()
        await rig.run(PYTEST)
        rig.change("m.py", PYTHON_FILES["m.py"])
        told = await rig.bench.objections()
        assert told is not None
        assert "because files have changed since it was run last" in told[0]
        assert rig.sandbox.allows_warm
        assert ShutOff(rig.state).reason(rig.repository) == ""
        await rig.run(PYTEST)
        wrong = await rig.bench.objections()
        assert wrong is not None
        assert "had been kept warm, and was wrong" in wrong[0]
        assert not rig.sandbox.allows_warm


async def test_a_warm_result_ahead_goes_with_the_trust_in_warm_runs(
    liar: Path, tmp_path: Path
) -> None:
    """What a warm process said ahead is not given out once warm runs were wrong."""
    (liar / "lie").write_text(json.dumps(WRONG))
    place = tmp_path / "place"
    place.mkdir()
    policy = {"read_only": (liar,)}
    async with bench_over(
        place, PYTHON_FILES, warm_tests=True, policy=policy, make_aside=twin_of
    ) as rig:
        assert (await rig.run(PYTEST)).how == "warm-pytest-l1"
        while len(await asyncio.to_thread(_views, rig.state)) < 2:  # the check has its copy
            pass
        rig.change("m.py", "def two():\n    return 3\n")
        await rig.bench.quiet()
        assert not rig.sandbox.allows_warm
        result = await rig.run(PYTEST)
        assert (result.exit_code, "warm" in result.how) == (1, False)


def _views(state: Path) -> list[Path]:
    return [view for view in state.glob("workspaces/*/view/*") if view.is_mount()]

"""Warm verdicts against cold runs, in a real sandbox with a real pytest."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.sandbox.conftest import OpenSandbox, plain_environment
from tightloop.sandbox.audited import (
    Auditor,
    Check,
    Finding,
    cold_argv,
    compare,
    is_warm,
    pytest_twin,
    run_cold,
    verdict_of,
)
from tightloop.sandbox.interface import Command, CommandResult, SandboxError
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.sweep import file_time_ns
from tightloop.sandbox.verdicts import ShutOff

RUN = Command(argv=["python", "-m", "pytest", "-q"], is_reporting=True)
TESTS = (
    "import core\n\ndef test_one():\n    assert core.value() == 1\n\ndef test_two():\n    pass\n"
)


@pytest_asyncio.fixture
async def sandbox(workspace: Path, opened: OpenSandbox) -> PersistentSandbox:
    """With a project of two tests and an interpreter of its own."""
    (workspace / "core.py").write_text("def value():\n    return 1\n")
    (workspace / "test_core.py").write_text(TESTS)
    await asyncio.to_thread(plain_environment, workspace)
    return await opened(warm_tests=True)


class Checking:
    """An auditor of the sandbox, and what it needs around it."""

    def __init__(self, sandbox: PersistentSandbox, state: Path) -> None:
        self.sandbox = sandbox
        self.state = state
        self.shut_off = ShutOff(state)
        self.auditor = Auditor(
            sandbox.workspace,
            pytest_twin(sandbox, sandbox.workspace, sandbox.environment),
            shut_off=self.shut_off,
            directory=state / "logs",
        )

    async def check(
        self, change: Callable[[CommandResult], CommandResult] = lambda result: result
    ) -> Check:
        """A warm run, made to say something else, and what a check makes of it."""
        moment_ns = file_time_ns()
        while file_time_ns() == moment_ns:
            pass  # what is written from here on is younger for sure
        warm = await self.sandbox.run(RUN)
        assert is_warm(warm), warm
        return await self.auditor.check(RUN, change(warm), moment_ns)


@pytest.fixture
def checking(sandbox: PersistentSandbox, tmp_path: Path) -> Checking:
    """See there."""
    state = tmp_path / "state"
    state.mkdir()
    return Checking(sandbox, state)


def failed(result: CommandResult) -> CommandResult:
    """The same run, as if its first test had failed."""
    lines = [json.loads(line) for line in result.report.splitlines()]
    lines[0]["outcome"] = "failed"
    report = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return replace(result, exit_code=1, report=report)


async def test_a_cold_run_says_how_each_test_ended(sandbox: PersistentSandbox) -> None:
    """As a script, as a module, and in the words of a shell; nothing is left in the workspace."""
    before = sorted(sandbox.workspace.iterdir())
    for command in (RUN, replace(RUN, argv=["pytest", "-q"]), Command(script="pytest -q")):
        cold = await run_cold(sandbox, command, sandbox.workspace, sandbox.environment)
        assert cold.verdict.tests == {
            "test_core.py::test_one": "passed",
            "test_core.py::test_two": "passed",
        }
        assert (cold.result.exit_code, cold.result.how) == (0, "cold")
        assert "2 passed" in cold.result.output
    left = sorted(sandbox.workspace.iterdir())
    assert [path for path in left if path not in before and path.name != ".pytest_cache"] == []


@pytest.mark.parametrize("kind", ["landlock", "none"])
async def test_a_cold_run_reports_in_every_isolation(
    kind: str, sandbox: PersistentSandbox, opened: OpenSandbox
) -> None:
    """By way of the private directory of that kind, in which nothing is left."""
    other = await opened(kind, warm_tests=True)
    place = other.environment.get("TMPDIR", "/tmp")
    look = Command(script=f"ls {place} | grep ^report-")
    before = await other.run(look)
    cold = await run_cold(other, RUN, other.workspace, other.environment)
    assert (cold.result.exit_code, len(cold.verdict.tests)) == (0, 2), cold.result.output
    assert (await other.run(look)).output == before.output


async def test_a_crashed_run_reports_what_came_before(sandbox: PersistentSandbox) -> None:
    """Outcomes up to the crash, and the exit code of the crash."""
    crash = "\n\ndef test_zzz():\n    import os\n    os._exit(9)\n"
    (sandbox.workspace / "test_core.py").write_text(TESTS + crash)
    cold = await run_cold(sandbox, RUN, sandbox.workspace, sandbox.environment)
    assert (cold.verdict.exit_code, len(cold.verdict.tests)) == (9, 2)


async def test_only_plain_pytest_runs_have_a_cold_twin(sandbox: PersistentSandbox) -> None:
    """Anything else is refused with its own words."""
    with pytest.raises(SandboxError, match="pytest && rm x"):
        cold_argv(
            Command(script="pytest && rm x"), sandbox.workspace, sandbox.environment, "/tmp/r"
        )


async def test_equal_verdicts_agree(checking: Checking) -> None:
    """Nothing is switched off, no log is written."""
    check = await checking.check()
    assert (check.finding, check.found) == (Finding.AGREED, ()), check
    assert checking.shut_off.reason(checking.sandbox.workspace) == ""
    assert not (checking.state / "logs").exists()


async def test_a_wrong_verdict_switches_warm_runs_off(checking: Checking) -> None:
    """The difference is named, and both logs are there for a person."""
    check = await checking.check(failed)
    assert Finding.WRONG is check.finding
    said = [str(one) for one in check.found]
    assert said == ["exit code: 1 warm, 0 cold", "test_core.py::test_one: failed warm, passed cold"]
    assert "test_one" in checking.shut_off.reason(checking.sandbox.workspace)
    assert tuple(map(str, check.logs)) == checking.shut_off.logs(checking.sandbox.workspace)
    assert [log.stem.rpartition("-")[2] for log in check.logs] == ["warm", "cold"]
    assert all("2 passed" in log.read_text() for log in check.logs)


async def test_an_unstable_test_is_not_held_against_warm_runs(checking: Checking) -> None:
    """The first cold run differs, the second says what the warm one said."""
    flaky = (
        "import os, pathlib\n\ndef test_one():\n"
        "    place = pathlib.Path('counter.txt')\n"
        "    number = len(place.read_text()) if place.exists() else 0\n"
        "    place.write_text('x' * (number + 1))\n"
        "    assert number != 2\n"
    )
    (checking.sandbox.workspace / "test_core.py").write_text(flaky)
    assert (await checking.sandbox.run(RUN)).exit_code == 0
    check = await checking.check()
    assert Finding.UNSTABLE is check.finding, check
    assert str(check.found[-1]) == "test_core.py::test_one: passed warm, failed cold"
    assert checking.shut_off.reason(checking.sandbox.workspace) == ""


async def test_a_tree_that_changed_proves_nothing(checking: Checking) -> None:
    """Neither an edit during the cold run, nor one just before it, makes a verdict wrong."""
    core = checking.sandbox.workspace / "core.py"

    def edit(result: CommandResult) -> CommandResult:
        core.write_text("def value():\n    return 2\n")
        return result

    check = await checking.check(edit)
    assert (check.finding, check.note) == (Finding.VOID, "core.py changed meanwhile")
    writing = "\n\ndef test_zzz():\n    open('core.py', 'a').write('# x\\n')\n"
    (checking.sandbox.workspace / "test_core.py").write_text(TESTS + writing)
    check = await checking.check()
    assert (check.finding, check.note) == (Finding.VOID, "core.py changed meanwhile")
    assert checking.shut_off.reason(checking.sandbox.workspace) == ""


async def test_a_file_of_the_same_tick_spoils_a_difference_only(checking: Checking) -> None:
    """Whether it was written before the run or after its start cannot be told; agreement stands."""
    warm = await checking.sandbox.run(RUN)
    (checking.sandbox.workspace / "test_core.py").touch()
    moment_ns = (checking.sandbox.workspace / "test_core.py").stat().st_ctime_ns
    assert (await checking.auditor.check(RUN, warm, moment_ns)).finding is Finding.AGREED
    check = await checking.auditor.check(RUN, failed(warm), moment_ns)
    assert (check.finding, check.note) == (
        Finding.VOID,
        "test_core.py was written as the run began",
    )


async def test_files_that_tests_always_write_do_not_matter(checking: Checking) -> None:
    """They change in both runs; otherwise such a project could never be checked."""
    writing = "\n\ndef test_zzz():\n    open('out.txt', 'w').write('x')\n"
    (checking.sandbox.workspace / "test_core.py").write_text(TESTS + writing)
    assert (await checking.sandbox.run(RUN)).exit_code == 0
    assert Finding.AGREED is (await checking.check()).finding


def test_of_too_many_tests_the_exit_code_is_compared() -> None:
    """A report is cut at its limit: the tests after that are no difference."""
    whole = CommandResult(1, "", 0, 0, report=b'{"test": "a", "outcome": "passed"}\n')
    cut = replace(whole, report=b"x" * (4 << 20))
    assert verdict_of(cut).tests == {}
    assert compare(cut, whole) == ()
    assert compare(cut, replace(whole, exit_code=0))[0].what == "exit code"

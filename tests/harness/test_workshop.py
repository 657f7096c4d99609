"""The test command that a repository's configuration names."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tightloop.harness.backend import UsageError
from tightloop.harness.workshop import configured_test_command, open_workshop
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.verdicts import Difference, ShutOff
from tightloop.sandbox.workspace import open_workspace


def test_the_configured_command(tmp_path: Path) -> None:
    """None where there is no file, no table or no such key."""
    assert configured_test_command(tmp_path) is None
    config = tmp_path / ".tightloop.toml"
    config.write_text("[setup]\n")
    assert configured_test_command(tmp_path) is None
    config.write_text("[test]\n")
    assert configured_test_command(tmp_path) is None
    config.write_text('[test]\ncommand = "make test"\n')
    assert configured_test_command(tmp_path) == "make test"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[test]\ncommand = "rm -rf x"\n', "test.command must be a command line that runs tests"),
        ("[test]\ncommand = 1\n", "got 1"),
        ("[test", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / ".tightloop.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        configured_test_command(tmp_path)


async def test_a_workshop_runs_tests_ahead(tmp_path: Path) -> None:
    """With the parts that exec gives it: its own twin, the configured command, notes."""
    repository, state = tmp_path / "repo", tmp_path / "state"
    repository.mkdir()
    (repository / "pytest").write_text("#!/bin/bash\n. ./m\n")
    (repository / "pytest").chmod(0o755)
    (repository / "m").write_text("exit 1\n")
    (repository / ".tightloop.toml").write_text('[test]\ncommand = "./pytest"\n')
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        workspace = await open_workspace(repository, state_dir=state)
        stack.push_async_callback(workspace.discard)
        workshop = await open_workshop(
            stack,
            workspace,
            workspace.completed(Policy(workspace.path)),
            kind="bubblewrap",
            source=None,
            state_dir=state,
            speculates=True,
            note=notes.append,
        )
        bench = workshop.bench
        assert bench.no_speculation == ""
        await bench.quiet()
        (workspace.path / "m").write_text("exit 0\n")
        bench.changed(("m",))
        await bench.quiet()
        result = await bench.run(Command(script="./pytest"))
        assert (result.exit_code, result.how) == (0, "spawn ahead")
        assert [one.is_used for one in await bench.finish_turn()] == [True]
    assert notes == []


async def test_warm_tests_that_were_wrong_stay_off(tmp_path: Path) -> None:
    """And the user hears why."""
    repository, state = tmp_path / "repo", tmp_path / "state"
    repository.mkdir()
    found = (Difference("test_m.py::test_a", "passed", "failed"),)
    ShutOff(state).turn_off(repository, found, "a.log", "b.log")
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        workspace = await open_workspace(repository, state_dir=state)
        stack.push_async_callback(workspace.discard)
        workshop = await open_workshop(
            stack,
            workspace,
            workspace.completed(Policy(workspace.path)),
            kind="bubblewrap",
            source=None,
            state_dir=state,
            speculates=False,
            note=notes.append,
        )
        assert not await workshop.sandbox.warm_tests_ready()
        assert workshop.bench.no_speculation == "it is switched off"
    (note,) = notes
    assert note.startswith("warm tests are off for this repository: test_m.py::test_a: passed warm")


@pytest.mark.parametrize("more", ['start = "sleep 1000"', ""])
async def test_nothing_runs_ahead_beside_warm_commands(tmp_path: Path, more: str) -> None:
    """A copy has none of their daemons, and their checks leave files that nobody counts."""
    repository, state = tmp_path / "repo", tmp_path / "state"
    repository.mkdir()
    table = f'[warm.look]\ncold = "cat answer"\nwarm = "echo one"\n{more}\n'
    (repository / ".tightloop.toml").write_text(table)
    async with AsyncExitStack() as stack:
        workspace = await open_workspace(repository, state_dir=state)
        stack.push_async_callback(workspace.discard)
        workshop = await open_workshop(
            stack,
            workspace,
            workspace.completed(Policy(workspace.path)),
            kind="bubblewrap",
            source=None,
            state_dir=state,
            speculates=True,
            note=print,
        )
        reason = "warm commands of the project run beside the others"
        assert workshop.bench.no_speculation == reason

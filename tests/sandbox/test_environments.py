"""A set-up runs once, with network and secrets; workspaces get what it left and nothing else."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.conftest import OpenSandbox, commit
from tightloop.sandbox.bases import Record, base_for, read_record, tree_state, write_record
from tightloop.sandbox.collecting import Limits, collect
from tightloop.sandbox.environments import (
    choose_set_up,
    chosen_set_up,
    find_environment,
    make_environment,
)
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.set_up import SetUp, SetUpFailed, environment_key
from tightloop.sandbox.workspace import open_workspace


def has_mounts(place: Path) -> bool:
    return str(place) in Path("/proc/self/mountinfo").read_text()


async def made(repository: Path, state: Path, set_up: SetUp, **options: Any) -> Record:
    """The environment of the repository's present state, chosen for it."""
    base = base_for(repository, state / "bases")
    choose_set_up(repository, state, set_up)
    tree = tree_state(repository, exclude=state)
    values = options.pop("values", {})
    return (await make_environment(tree, base, state, set_up, values, **options))[0]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


SCRIPT = (
    "mkdir -p .venv/bin build; echo '#!/bin/sh' > .venv/bin/tool; echo 'echo ran' >> .venv/bin/tool; "
    "chmod +x .venv/bin/tool; echo $PWD > build/where; echo x > made.o; echo hi >> lines"
)


async def test_a_workspace_has_what_the_set_up_left(
    repository: Path, state: Path, opened: OpenSandbox
) -> None:
    """Also what git ignores; usable by its absolute path; no part of the diff or of git's status."""
    record = await made(repository, state, SetUp(commands=(SCRIPT,)))
    assert record.notes == ("the set-up changed files of the project, which it cannot: lines",)
    workspace = await open_workspace(repository, state_dir=state)
    try:
        assert (workspace.note, (workspace.path / "made.o").read_text()) == ("", "x\n")
        assert (workspace.path / "lines").read_text().startswith("line 0")
        policy = workspace.completed(Policy(workspace.path))
        sandbox = await opened(workspace=workspace.path, read_only=policy.read_only)
        script = (
            '"$(cat build/where)/.venv/bin/tool"; .venv/bin/tool; git status --short; '
            "echo x > build/new"
        )
        result = await sandbox.run(Command(script=script))
        assert (result.exit_code, result.output) == (0, "ran\nran\n")
        assert await workspace.changed_files() == []
        (workspace.path / "lines").write_text("mine\n")
        (workspace.path / ".venv" / "bin" / "tool").unlink()
        assert await workspace.apply() == ["lines"]
    finally:
        await workspace.discard()
    expected = [".git", ".gitignore", "data.bin", "lines", "link", "script", "sub"]
    assert sorted(os.listdir(repository)) == expected


@pytest.mark.parametrize("kind", ["overlay", "copy"] if os.geteuid() == 0 else ["copy"])
async def test_both_kinds_of_workspace_show_it(kind: str, repository: Path, state: Path) -> None:
    await made(repository, state, SetUp(commands=("mkdir .venv; echo x > .venv/file",)))
    workspace = await open_workspace(repository, state_dir=state, kind=kind)
    assert (workspace.path / ".venv" / "file").read_text() == "x\n"
    (workspace.path / ".venv" / "file").write_text("y")
    assert await workspace.changed_files() == []
    [fork] = await workspace.fork()
    assert (fork.path / ".venv" / "file").read_text() == "y"
    assert await fork.changed_files() == []
    await fork.discard()
    await workspace.discard()


async def test_it_runs_once_until_something_changes(repository: Path, state: Path) -> None:
    """Same commit, commands and lock files: nothing runs. A new lock file: it must run again."""
    set_up = SetUp(commands=("date +%N > .stamp",))
    first = await made(repository, state, set_up)
    (repository / "lines").write_text("an edit that is no lock file\n")
    assert await made(repository, state, set_up) == first
    assert (await made(repository, state, set_up, is_again=True)).directory != first.directory
    (repository / "requirements.txt").write_text("a==1\n")
    base = base_for(repository, state / "bases")
    found = find_environment(tree_state(repository, exclude=state), base, state)
    assert found.environment is None
    assert "has not been run for this state" in found.note
    assert "tightloop repo preload" in found.note
    commit(repository)
    assert (await made(repository, state, set_up)).directory != first.directory


async def test_two_at_once_run_it_once(repository: Path, state: Path) -> None:
    """The second waits for the first and takes what it made."""
    set_up = SetUp(commands=("date +%N > .stamp",))
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(made(repository, state, set_up)) for _ in range(3)]
    assert len({run.result().directory for run in runs}) == 1


async def test_an_expired_environment_is_not_taken(repository: Path, state: Path) -> None:
    """It says so, and goes at the next collection."""
    set_up = SetUp(commands=("echo x > .stamp",))
    record = await made(repository, state, set_up)
    tree = tree_state(repository, exclude=state)
    place = state / "environments" / environment_key(set_up, tree)
    stale = Record(**{**{f: getattr(record, f) for f in record.__struct_fields__}, "expires_s": 1})
    write_record(place, stale)
    workspace = await open_workspace(repository, state_dir=state)
    assert "expired" in workspace.note
    assert not (workspace.path / ".stamp").exists()
    await workspace.discard()
    assert [holding.kind for holding in collect(state, Limits())] == ["environment"]
    assert read_record(place) is None


async def test_a_failing_command_leaves_nothing(repository: Path, state: Path) -> None:
    """Its number, its words, its output without secrets."""
    said: list[bytes] = []
    set_up = SetUp(commands=("true", "echo token is $TOKEN; exit 3"), secrets=("TOKEN",))
    with pytest.raises(SetUpFailed, match=r"command 2 of 2 ended with 3: .*\n?.*token is \*\*\*"):
        await made(
            repository, state, set_up, values={"TOKEN": "s3cr3t-value"}, on_output=said.append
        )
    assert b"".join(said) == b"token is ***\n"
    assert [name for name in os.listdir(state / "environments") if "." not in name] == []
    assert not has_mounts(state)


KILLED = """
import asyncio, sys
from pathlib import Path
from tightloop.sandbox.bases import base_for, tree_state
from tightloop.sandbox.environments import make_environment
from tightloop.sandbox.set_up import SetUp
repository, state = map(Path, sys.argv[1:])
set_up = SetUp(commands=("echo x > new; echo begun; exec sleep 600",))
def show(piece):
    print(piece.decode(), end="", flush=True)
base, tree = base_for(repository, state / "bases"), tree_state(repository, exclude=state)
asyncio.run(make_environment(tree, base, state, set_up, {}, on_output=show))
"""


def test_a_killed_set_up_leaves_nothing(repository: Path, state: Path) -> None:
    """Its commands end with it; its mount and its files go with the next collection."""
    argv = [sys.executable, "-c", KILLED, str(repository), str(state)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert collect(state, Limits(num_per_repository=0)) == []  # it needs its base
        [place] = [path for path in (state / "environments").iterdir() if path.is_dir()]
        process.kill()
    collect(state, Limits())
    assert not place.exists()
    assert not has_mounts(state)
    assert [path for path in (state / "environments").iterdir() if path.is_dir()] == []


async def test_a_secret_may_not_stay_behind(repository: Path, state: Path) -> None:
    """Whoever runs later could read it."""
    set_up = SetUp(commands=("mkdir conf; echo password=$TOKEN > conf/pip",), secrets=("TOKEN",))
    with pytest.raises(SetUpFailed, match="TOKEN in 'conf/pip'"):
        await made(repository, state, set_up, values={"TOKEN": "s3cr3t-value"})
    assert [name for name in os.listdir(state / "environments") if "." not in name] == []


async def test_a_choice_is_remembered_and_forgotten(repository: Path, state: Path) -> None:
    """It goes before the repository's own file."""
    (repository / ".tightloop.toml").write_text('[setup]\ncommands = ["own"]\n')
    choose_set_up(repository, state, SetUp(commands=("chosen",)))
    assert chosen_set_up(repository, state) == SetUp(commands=("chosen",))
    choose_set_up(repository, state, None)
    assert chosen_set_up(repository, state) == SetUp(commands=("own",))

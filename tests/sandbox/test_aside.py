"""Forks seen as the workspace; asides that are opened when they are needed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.aside import FreshAside, RenewedAside, scratch_command
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock", "none"])
async def test_a_fork_in_isolation_of_its_own(repository: Path, tmp_path: Path, kind: str) -> None:
    """What commands change is the fork; with bubblewrap it has the workspace's path."""
    workspace = await open_workspace(repository, state_dir=tmp_path / "state")
    fork = (await workspace.fork())[0]

    async def open_one(policy: Policy) -> PersistentSandbox:
        return await open_sandbox(policy, kind=kind)

    variables = {"PYTHONPATH": f"/x:{workspace.path}/src"}
    policy = Policy(workspace.path, protected=(Path("sub"),), environment=variables)
    aside = FreshAside(policy, open_one, kind)
    try:
        assert aside.is_alive
        async with aside.on(fork) as sandbox:
            result = await sandbox.run(
                Command(script="pwd; echo $PYTHONPATH; echo x > lines; echo x > sub/new")
            )
        seen = workspace.path if kind == "bubblewrap" else fork.path
        assert result.output.splitlines()[:2] == [str(seen), f"/x:{seen}/src"]
        protected = ["lines"] if kind == "bubblewrap" else ["lines", "sub/new"]
        assert await fork.changed_files() == protected
        assert await workspace.changed_files() == []
        assert not sandbox.is_alive
    finally:
        await aside.close()
        await fork.discard()
        await workspace.discard()


class Mortal:
    """An aside that dies at its first use."""

    def __init__(self) -> None:
        self.is_alive = True
        self.is_closed = False

    @asynccontextmanager
    async def on(self, _fork: Workspace) -> AsyncIterator[PersistentSandbox]:
        self.is_alive = False
        raise ChildProcessError
        yield

    async def close(self) -> None:
        self.is_closed = True


async def test_one_that_has_ended_is_opened_anew(repository: Path, tmp_path: Path) -> None:
    opened: list[Mortal] = []

    async def open_one() -> Mortal:
        opened.append(Mortal())
        return opened[-1]

    workspace = await open_workspace(repository, state_dir=tmp_path / "state")
    try:
        aside = RenewedAside(open_one)
        assert not aside.is_alive
        for number in (1, 2):
            await aside.ready()
            assert (aside.is_alive, len(opened)) == (True, number)
            with pytest.raises(ChildProcessError):
                async with aside.on(workspace):
                    pass
            assert not aside.is_alive
        await aside.close()
        await aside.close()
        assert [one.is_closed for one in opened] == [True, True]
    finally:
        await workspace.discard()


async def test_the_listing_of_what_lies_outside(opened: OpenSandbox, workspace: Path) -> None:
    """Equal as long as nothing was left outside the workspace, pytest's own directory apart."""
    sandbox = await opened()
    listing = scratch_command(Policy(workspace))
    before = await sandbox.run(listing)
    assert (before.exit_code, before.is_truncated) == (0, False)
    for script, is_seen in (
        ("echo > in_the_workspace; mkdir -p /tmp/pytest-of-me; echo > /tmp/pytest-of-me/x", False),
        ("echo > /tmp/left", True),
    ):
        await sandbox.run(Command(script=script))
        after = await sandbox.run(listing)
        assert (after.output != before.output) is is_seen


def test_no_listing_asks_for_a_place_within_a_hidden_one(tmp_path: Path) -> None:
    """What is hidden in a hidden directory is not there inside, and cannot be listed."""
    (tmp_path / "workspace").mkdir()
    (tmp_path / "hidden" / "deeper").mkdir(parents=True)
    hidden = (tmp_path / "hidden" / "deeper", tmp_path / "hidden")
    argv = scratch_command(Policy(tmp_path / "workspace", hidden=hidden)).argv
    assert argv is not None
    places = argv[1 : argv.index("-xdev")]
    assert "/tmp" in places
    assert not any(place.startswith("/tmp/") for place in places)

"""A workbench over a real repository, workspace and sandbox."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sandbox.conftest import commit, git
from tightloop.agent.workbench import Setting, Workbench, open_workbench
from tightloop.sandbox.interface import Command, CommandResult, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace
from tightloop.trace.speculation import Try

# An overlay needs privilege; without it nothing runs ahead, and the tests say so by failing.
IS_ROOT = os.geteuid() == 0
PYTEST = Command(script="python -m pytest -q -p no:cacheprovider", timeout_s=60.0)
TEST = Command(script="./pytest", timeout_s=60.0)
"""Passes for a test run at the price of a shell script."""

ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
FILES = {"m": "exit 1\n", "pytest": "#!/bin/bash\necho testing\n. ./m\n"}
"""``m`` is what it tests; to be sourced."""

GOOD = "exit 0\n"


@dataclass
class Rig:
    """A bench, and what can be looked at beside it."""

    bench: Workbench
    workspace: Workspace
    sandbox: PersistentSandbox
    repository: Path
    state: Path
    notes: list[str] = field(default_factory=list)

    def change(self, name: str, text: str) -> None:
        """As a patch does it."""
        (self.workspace.path / name).write_text(text)
        self.bench.changed((name,))

    async def run(self, command: Command = TEST) -> CommandResult:
        return await self.bench.run(command)

    async def tries(self) -> list[Try]:
        """Of the turn so far, which ends by that."""
        return await self.bench.finish_turn()


@asynccontextmanager
async def bench_over(
    directory: Path,
    files: Mapping[str, str] = FILES,
    *,
    kind: str = "bubblewrap",
    warm_tests: bool = False,
    policy: Mapping[str, Any] | None = None,
    workspace_kind: str | None = None,
    **more: Any,
) -> AsyncIterator[Rig]:
    """Everything opened and, afterwards, closed. ``more`` goes into the ``Setting``."""
    repository, state = directory / "repo", directory / "state"
    repository.mkdir()
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
        (repository / name).chmod(0o755 if text.startswith("#!") else 0o644)
    git(repository, "init", "-q", "-b", "main")
    commit(repository)
    workspace = await open_workspace(repository, state_dir=state, kind=workspace_kind)
    try:
        settings = {"environment": ENVIRONMENT, "warm_tests": warm_tests, **(policy or {})}
        whole = workspace.completed(Policy(workspace.path, **settings))

        async def open_one(other: Policy) -> PersistentSandbox:
            return await open_sandbox(other, kind=kind)

        sandbox = await open_one(whole)
        notes: list[str] = []
        setting = Setting(
            workspace, sandbox, whole, open_one, state,
            **{"num_cores": 8, "note": notes.append, **more},
        )  # fmt: skip
        try:
            async with open_workbench(setting) as bench:
                await bench.quiet()
                bench.begin_turn("")
                yield Rig(bench, workspace, sandbox, repository, state, notes)
        finally:
            await sandbox.close()
    finally:
        await workspace.discard()

"""A workbench over a real repository, workspace and sandbox."""

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import lying_zygote
from tests.sandbox.conftest import commit, git
from tightloop.agent.workbench import Setting, Workbench, open_workbench
from tightloop.sandbox import pytest_command
from tightloop.sandbox.aside import Aside
from tightloop.sandbox.interface import Command, CommandResult, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace
from tightloop.trace.speculation import Try

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
    make_aside: Callable[[Workspace, Policy], Awaitable[Aside]] | None = None,
    is_prepared: bool = True,
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
        if make_aside is not None:
            more["open_aside"] = partial(make_aside, workspace, whole)
        notes: list[str] = []
        setting = Setting(
            workspace, sandbox, whole, open_one, state,
            **{"num_cores": 8, "note": notes.append, **more},
        )  # fmt: skip
        try:
            async with open_workbench(setting) as bench:
                if is_prepared:
                    await bench.quiet()
                    bench.begin_turn("")
                yield Rig(bench, workspace, sandbox, repository, state, notes)
        finally:
            await sandbox.close()
    finally:
        await workspace.discard()


PYTHON_FILES = {
    "m.py": "def two():\n    return 1\n",
    "test_m.py": "import m\n\n\ndef test_two():\n    assert m.two() == 2\n",
}
RIGHT = {"code": 1, "output": "1 failed\n", "tests": {"test_m.py::test_two": "failed"}}
WRONG = {"code": 0, "output": "1 passed\n", "tests": {"test_m.py::test_two": "passed"}}


@pytest.fixture
def liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a warm process that says what the file ``lie`` in it says."""
    place = tmp_path / "liar"
    place.mkdir()
    shutil.copy(lying_zygote.__file__, place / "zygote.py")
    monkeypatch.setattr(pytest_command, "ZYGOTE", place / "zygote.py")
    return place


@asynccontextmanager
async def rig_with(
    liar: Path, lie: dict[str, Any], files: Mapping[str, str] = PYTHON_FILES
) -> AsyncIterator[Rig]:
    (liar / "lie").write_text(json.dumps(lie))
    place = liar.parent / "place"
    place.mkdir()
    policy = {"read_only": (liar,)}
    async with bench_over(place, files, warm_tests=True, policy=policy, speculates=False) as rig:
        assert await rig.sandbox.warm_tests_ready()
        yield rig

"""The ground that attacks run on: a small host of their own, in one temporary directory.

    DIR/outside   shown read-only inside; holds ``secret``, and ``secrets/key``
    DIR/closed    not shown inside
    DIR/home      the user's home directory
    DIR/repo      the repository; it is the workspace itself, or the base of an overlay
    DIR/state     layers of overlays

Everything belongs to the user who runs the agent, so that nothing but isolation protects it.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tightloop.sandbox.interface import Command, CommandResult, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace

TESTS = Path(__file__).parents[1]
PYTHON = os.path.realpath(sys.executable)


@dataclass(slots=True)
class Ground:
    """One host for one backend in one setting.

    ``values`` is what probes inside get, JSON only. ``workspace`` is where commands work;
    ``view`` is its owner when it is an overlay. ``sandbox`` is the one that probes share.
    """

    root: Path
    backend: str
    user: str
    workspace: Path
    view: Workspace | None = None
    values: dict[str, Any] = field(default_factory=dict)
    sandboxes: list[PersistentSandbox] = field(default_factory=list)
    shared: PersistentSandbox | None = None

    @property
    def outside(self) -> Path:
        """Shown inside, to be read only."""
        return self.root / "outside"

    @property
    def closed(self) -> Path:
        """Not shown inside."""
        return self.root / "closed"

    @property
    def home(self) -> Path:
        """The home directory."""
        return self.root / "home"

    @property
    def repository(self) -> Path:
        """The user's checkout."""
        return self.root / "repo"

    @property
    def policy(self) -> Policy:
        """What the shared sandbox is told."""
        # The whole checkout, wherever it lies: the interpreter lists what holds a package.
        return Policy(self.workspace, read_only=(self.outside, TESTS.parent), warm_tests=False)

    @property
    def sandbox(self) -> PersistentSandbox:
        """The one that probes share."""
        assert self.shared is not None
        return self.shared

    async def open(self, *, kind: str | None = None, **fields: Any) -> PersistentSandbox:
        """Another sandbox, of this ground's kind; closed with the ground.

        ``fields`` are those of the policy that differ.
        """
        policy = replace(self.policy, **fields)
        sandbox = await open_sandbox(policy, kind=kind or self.backend)
        self.sandboxes.append(sandbox)
        return sandbox

    async def run(self, script: str, **fields: Any) -> CommandResult:
        """A shell script in the shared sandbox; ``fields`` are those of the command."""
        return await self.sandbox.run(Command(script=script, **{"timeout_s": 20.0, **fields}))

    async def run_python(self, code: str, *arguments: str, **fields: Any) -> CommandResult:
        """Python code in the shared sandbox; ``fields`` are those of the command."""
        argv = [PYTHON, "-I", "-S", "-c", code, *arguments]
        return await self.sandbox.run(Command(argv=argv, **{"timeout_s": 20.0, **fields}))


def build(root: Path) -> None:
    """The directories and files that every ground has."""
    for name in ("outside/secrets", "closed", "home/.ssh", "state"):
        (root / name).mkdir(parents=True)
    for name in (
        "outside/secret",
        "outside/secrets/key",
        "closed/secret",
        "home/.ssh/id",
        "home/.netrc",
    ):
        (root / name).write_text("hush-hush")
    _make_repository(root / "template")
    copy_repository(root, root / "repo")


def copy_repository(root: Path, place: Path) -> None:
    """A repository with one commit, without starting git again."""
    shutil.copytree(root / "template", place)


def _make_repository(place: Path) -> None:
    (place / "sub").mkdir(parents=True)
    for name in ("file", "sub/file"):
        (place / name).write_text("content\n")
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    for words in (
        ("init", "-q", "--template="),
        ("add", "-A"),
        (*identity, "commit", "-q", "-m", "state"),
    ):
        run_git(place, *words)
    for name in ("hooks", "info"):
        (place / ".git" / name).mkdir()


def run_git(place: Path, *words: str) -> None:
    """A git command without the user's configuration."""
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(
        ["git", *words], cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL
    )


@asynccontextmanager
async def ground_for(backend: str, user: str, place: str) -> AsyncIterator[Ground]:
    """A new ground; at the end its sandboxes are closed and its directory is left to the caller."""
    root = Path(tempfile.mkdtemp(prefix=f"attacks-{backend}-"))
    await asyncio.to_thread(build, root)
    os.environ["HOME"] = str(root / "home")
    async with AsyncExitStack() as stack:
        view = None
        workspace = root / "repo"
        if place == "overlay":
            view = await open_workspace(workspace, state_dir=root / "state", kind="overlay")
            stack.push_async_callback(view.discard)
            workspace = view.path
        ground = Ground(root, backend, user, workspace, view)
        stack.push_async_callback(_close, ground)
        names = ("root", "outside", "closed", "home", "repository", "workspace")
        ground.values |= {name: str(getattr(ground, name)) for name in names}
        ground.values |= {"backend": backend, "user": user, "owner": os.getpid(), "python": PYTHON}
        yield ground


async def _close(ground: Ground) -> None:
    for sandbox in ground.sandboxes:
        await sandbox.close()

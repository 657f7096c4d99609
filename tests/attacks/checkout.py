"""What is done to a checkout: its protected paths, its git, and what becomes of a result."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.attacks.attack import CONTROL
from tests.attacks.ground import Ground, copy_repository, run_git
from tests.attacks.inside.files import PROTECTED_NAMES_OF_TOOLS
from tightloop.sandbox import applying, isolation
from tightloop.sandbox.environment import snapshot
from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.launch import Kind, Launch
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.workspace import Workspace, open_workspace


@contextlib.contextmanager
def protected(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """The workspace has one of everything that is protected, as a user might."""
    place = ground.workspace
    (place / ".git" / "worktrees" / "other").mkdir(parents=True)
    (place / ".git" / "worktrees" / "other" / "commondir").write_text("../..\n")
    separate = str(place / ".git" / "modules" / "part")
    for name in ("hooks", "info", "modules/part"):
        (place / ".git" / name).mkdir(parents=True, exist_ok=True)
    run_git(place, "init", "-q", "--template=", "--separate-git-dir", separate, "part")
    run_git(place, "--git-dir", separate, "config", "core.worktree", "../../../part")
    (place / ".git" / "modules" / "part" / "hooks").mkdir()
    for name in PROTECTED_NAMES_OF_TOOLS:
        if "." in name[1:] or name in (".envrc", ".bashrc", ".npmrc", ".gitmodules"):
            (place / name).write_text("")
        else:
            (place / name).mkdir()
            (place / name / "settings").write_text("")
    yield {}


@dataclass(frozen=True, slots=True)
class Fresh:
    """A workspace of its own, and the checkout beneath it."""

    checkout: Path
    path: Path
    view: Workspace | None


@asynccontextmanager
async def fresh(ground: Ground) -> AsyncIterator[Fresh]:
    """Another checkout with one commit; gone at the end."""
    root = Path(tempfile.mkdtemp(prefix="fresh-", dir=ground.root))
    checkout = root / "repo"
    await asyncio.to_thread(copy_repository, ground.root, checkout)
    view = None
    try:
        if ground.view is not None:
            view = await open_workspace(checkout, state_dir=ground.root / "state", kind="overlay")
        yield Fresh(checkout, view.path if view else checkout, view)
    finally:
        if view is not None:
            await view.discard()
        shutil.rmtree(root)


async def said(sandbox: PersistentSandbox, script: str) -> str:
    """Output of a script that has to end well."""
    result = await sandbox.run(Command(script=script, timeout_s=20.0))
    if result.exit_code != 0:
        return result.output.strip().rpartition(": ")[2]
    return result.output.strip()


async def decoy(ground: Ground) -> str:
    """The user's settings are a link; whoever protects the link protects nothing."""
    async with fresh(ground) as workspace:
        (workspace.path / "decoy").mkdir()
        (workspace.path / ".vscode").symlink_to("decoy")
        try:
            sandbox = await ground.open(workspace=workspace.path)
        except SandboxError as error:
            return "refused before the start" if "symbolic link" in str(error) else str(error)
        await said(sandbox, "echo x > .vscode/tasks.json")
        await sandbox.close()
        return "ok" if (workspace.path / "decoy" / "tasks.json").exists() else "not written"


def race_at_start(aim: str) -> Callable[[Ground], Awaitable[str]]:
    """A protected file becomes a link to a secret after it was checked, before it is mounted."""

    async def race(ground: Ground) -> str:
        async with fresh(ground) as workspace:
            target = workspace.path / ".mcp.json"
            target.write_text("{}")
            secret = ground.home / ".netrc"
            original = isolation.KINDS[ground.backend]

            def prepare(policy: Policy, environment: dict[str, str], fd: int) -> Launch:
                launch = original.prepare(policy, environment, fd)
                target.unlink()
                target.symlink_to(aim.format(home=ground.home))
                return launch

            kind = Kind(original.name, prepare, original.is_confined, original.remedy)
            policy = Policy(workspace.path, warm_tests=False)
            sandbox = PersistentSandbox(kind, policy, snapshot(os.environ, workspace.path))
            ground.sandboxes.append(sandbox)
            try:
                await sandbox.start()
            except SandboxError:
                return "never shown"
            result = await sandbox.run(Command(script=f"cat {secret} .mcp.json 2>&1"))
            await sandbox.close()
            return "shown" if "hush-hush" in result.output else "never shown"

    return race


def rename_above(protected_path: str, is_policy: bool) -> Callable[[Ground], Awaitable[str]]:
    """The directory above a protected file is renamed, and another is made under its name."""

    async def rename(ground: Ground) -> str:
        async with fresh(ground) as workspace:
            top = protected_path.partition("/")[0]
            target = workspace.path / protected_path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("")
            own = (target,) if is_policy else ()
            sandbox = await ground.open(workspace=workspace.path, protected=own)
            code = (
                "import errno, os, sys\n"
                "top, path = sys.argv[1:]\n"
                "try:\n"
                "    os.rename(top, 'old')\n"
                "    os.makedirs(os.path.dirname(path))\n"
                "    open(path, 'x').close()\n"
                "except OSError as error:\n"
                "    sys.exit(errno.errorcode[error.errno])\n"
                "print('ok')\n"
            )
            argv = [ground.values["python"], "-I", "-S", "-c", code, top, protected_path]
            result = await sandbox.run(Command(argv=argv))
            await sandbox.close()
            return result.output.strip()

    return rename


async def new_in_git(ground: Ground) -> str:
    """A hook where there are none, and a file that says where git's configuration is."""
    async with fresh(ground) as workspace:
        shutil.rmtree(workspace.path / ".git" / "hooks", ignore_errors=True)
        return await _made(ground, workspace, ".git/hooks/post-checkout", ".git/commondir")


async def new_settings(ground: Ground) -> str:
    """An editor that runs tasks when it opens a directory, and a shell's settings."""
    async with fresh(ground) as workspace:
        return await _made(ground, workspace, ".vscode/tasks.json", "sub/.envrc")


async def _made(ground: Ground, workspace: Fresh, *paths: str) -> str:
    """What came of making them; for an overlay, what the result says of them."""
    sandbox = await ground.open(workspace=workspace.path)
    for path in paths:
        await said(sandbox, f"mkdir -p {os.path.dirname(path)}; echo x > {path}")
    await sandbox.close()
    if not all((workspace.path / path).exists() for path in paths):
        return "not made"
    if workspace.view is None or ground.backend == CONTROL:
        return "ok"
    found = set(paths) & set(await workspace.view.changed_files())
    if not found:
        return "in no result"
    risks = {risk.path for risk in await workspace.view.risks() if risk.is_severe}
    return "flagged" if risks.issuperset(paths) else "in the result"


async def all_settings(ground: Ground) -> str:
    """Everything that tools read, new or changed; the control looks at the result without flags."""
    names = [f"{name}/settings" for name in PROTECTED_NAMES_OF_TOOLS]
    async with fresh(ground) as workspace:
        assert workspace.view is not None
        for name in names:
            (workspace.path / name).parent.mkdir()
            (workspace.path / name).write_text("")
        if ground.backend == CONTROL:
            found = await workspace.view.changed_files()
        else:
            found = [risk.path for risk in await workspace.view.risks() if risk.is_severe]
        return _all_of(names, found, ground)


async def entry_points(ground: Ground) -> str:
    """A program or a plug-in that runs once somebody installs the project."""
    async with fresh(ground) as workspace:
        assert workspace.view is not None
        text = '[project]\nname = "x"\n[project.entry-points.pytest11]\nx = "x"\n'
        (workspace.path / "pyproject.toml").write_text(text)
        if ground.backend == CONTROL:
            found = await workspace.view.changed_files()
        else:
            found = [risk.path for risk in await workspace.view.risks()]
        return _all_of(["pyproject.toml"], found, ground)


def _all_of(names: list[str], found: list[str], ground: Ground) -> str:
    missing = sorted(set(names) - set(found))
    word = "in the result" if ground.backend == CONTROL else "flagged"
    return word if not missing else f"not {word}: {missing}"


async def host_git(ground: Ground) -> str:
    """A program that git is told to run; the control is git itself in the workspace."""
    async with fresh(ground) as workspace:
        assert workspace.view is not None
        mark = workspace.checkout.parent / "mark"
        program = workspace.checkout.parent / "program"
        program.write_text(f"#!/bin/sh\ntouch {mark}\n")
        program.chmod(0o755)
        config = workspace.path / ".git" / "config"
        config.write_text(f"{config.read_text()}[core]\n\tfsmonitor = {program}\n")
        (workspace.path / "new").write_text("x\n")
        if ground.backend == CONTROL:
            run_git(workspace.path, "status")
        else:
            await workspace.view.diff()
            await workspace.view.risks()
            [fork] = await workspace.view.fork()
            await fork.apply()
            await fork.discard()
        return "executed" if mark.exists() else "not executed"


async def ghosts(ground: Ground) -> str:
    """Names that mounts need, left behind; the control is a plain bwrap line."""
    async with fresh(ground) as workspace:
        before = _names(workspace.path)
        if ground.backend == CONTROL:
            missing = str(workspace.path / ".bashrc")
            line = ["bwrap", "--bind", "/", "/", "--ro-bind", "/dev/null", missing, "true"]
            await asyncio.to_thread(subprocess.run, line, check=True)
        else:
            protected_paths = (workspace.path / ".missing",)
            sandbox = await ground.open(workspace=workspace.path, protected=protected_paths)
            await said(sandbox, "true")
            await sandbox.close()
        left = sorted(_names(workspace.path) - before)
        return "none" if not left else f"left: {', '.join(left)}"


def _names(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


async def planted_journal(ground: Ground) -> str:
    """A record of a half-done application that never was, which is to be undone outside."""
    return await _planted(ground, "../../outside/F13", is_link=False)


async def planted_journal_by_link(ground: Ground) -> str:
    """The same by a link in the tree."""
    return await _planted(ground, "link/F13", is_link=True)


async def planted_configuration(ground: Ground) -> str:
    """The same for git's own files."""
    return await _planted(ground, ".git/F13", is_link=False)


async def _planted(ground: Ground, path: str, *, is_link: bool) -> str:
    """The control names an ordinary file: what is recorded is really carried out."""
    async with fresh(ground) as workspace:
        tree = workspace.checkout
        if is_link:
            (tree / "link").symlink_to(ground.outside)
        aim = "F13" if ground.backend == CONTROL else path
        staging = tree / ".git" / "tightloop-apply-planted"
        staging.mkdir()
        (staging / "old-0").write_text("planted")
        move = [0, aim, False, True, False]
        (staging / "journal.json").write_text(json.dumps({"moves": [move], "made": []}))
        try:
            await asyncio.to_thread(applying.recover, tree)
        except SandboxError as error:
            said = "refused" if "was not made by tightloop" in str(error) else str(error)
            return f"{said}, but written" if (tree / aim).exists() else said
        return "carried out" if (tree / aim).exists() else "nothing happened"

"""Sandboxes for tests. bubblewrap is a requirement of this suite: absent, tests fail."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tightloop.sandbox.interface import Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox

OpenSandbox = Callable[..., Awaitable[PersistentSandbox]]


@pytest.fixture(scope="session", autouse=True)
def bwrap_installed() -> None:
    """The suite proves isolation, so it may not pass without it."""
    assert shutil.which("bwrap"), "install the package 'bubblewrap' to run the sandbox tests"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty writable directory."""
    place = tmp_path / "workspace"
    place.mkdir()
    return place


@pytest_asyncio.fixture
async def opened(workspace: Path) -> AsyncIterator[OpenSandbox]:
    """Opens sandboxes that are closed after the test."""
    sandboxes: list[PersistentSandbox] = []

    async def open_one(kind: str = "bubblewrap", **fields: object) -> PersistentSandbox:
        settings: dict[str, object] = {"workspace": workspace, "warm_tests": False, **fields}
        sandbox = await open_sandbox(Policy(**settings), kind=kind)  # type: ignore[arg-type]
        sandboxes.append(sandbox)
        return sandbox

    yield open_one
    for sandbox in sandboxes:
        await sandbox.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A clean git repository with a few kinds of files."""
    place = tmp_path / "my repo"
    (place / "sub" / "deep").mkdir(parents=True)
    (place / "lines").write_text("".join(f"line {i}\n" for i in range(12)))
    (place / "script").write_text("#!/bin/sh\n")
    (place / "script").chmod(0o755)
    (place / "sub" / "deep" / "file").write_text("deep\n")
    (place / "link").symlink_to("lines")
    (place / "data.bin").write_bytes(b"\0\1\2")
    (place / ".gitignore").write_text("*.o\n")
    git(place, "init", "-q", "-b", "main")
    commit(place)
    return place


def git(place: Path, *arguments: str, text: str | None = None) -> str:
    """Output of a git command without the user's configuration."""
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull}
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    return subprocess.run(
        ["git", *identity, *arguments],
        cwd=place,
        input=text,
        text=True,
        check=True,
        capture_output=True,
        env=environment,
    ).stdout


def commit(place: Path) -> None:
    """Everything there is is committed."""
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "state")


PLAIN_PYTEST = ("pytest", "_pytest", "py.py", "pluggy", "iniconfig", "packaging", "pygments")


def plain_environment(workspace: Path) -> None:
    """The workspace has a ``.venv`` with pytest and no plugins: cold runs are quick there."""
    environment = workspace / ".venv"
    python = Path(os.path.realpath(sys.executable))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    (packages / "__pycache__").mkdir(parents=True)  # made later, it would look like an install
    installed = Path(sysconfig.get_path("purelib"))
    for pattern in (*PLAIN_PYTEST, "pluggy-*.dist-info"):
        for place in installed.glob(pattern):
            (packages / place.name).symlink_to(place)
    (environment / "pyvenv.cfg").write_text(
        f"home = {python.parent}\ninclude-system-site-packages = false\n"
    )
    (environment / "bin").mkdir()
    (environment / "bin" / "python").symlink_to(python)
    script = environment / "bin" / "pytest"
    shebang = f"#!{environment / 'bin' / 'python'}"
    script.write_text(f"{shebang}\nimport sys\nimport pytest\nsys.exit(pytest.main())\n")
    script.chmod(0o755)

"""Work that is done by an ordinary user also when the tests are run by root."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import tightloop
from tests.sandbox.conftest import commit, git

NOBODY = 65534
START = """
import asyncio, os, signal, sys
from pathlib import Path
from tightloop.sandbox import own_namespace
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.workspace import open_workspace
repository, state = Path("repo").absolute(), Path("state").absolute()
"""


def python_for_everybody() -> str:
    """An interpreter of our version or later that any user may run."""
    known = [os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"]
    for program in known:
        if os.path.exists(program) and is_open(Path(os.path.realpath(program))):
            return program
    raise AssertionError(f"none of {known} can be run by an ordinary user: install one of them")


def is_open(program: Path) -> bool:
    """Whether everybody may walk there."""
    return os.geteuid() != 0 or all(place.stat().st_mode & 0o001 for place in program.parents)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the ordinary user's, with a repository; pytest's own is closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="ordinary-"))
    repository = directory / "repo"
    repository.mkdir()
    (repository / "lines").write_text("line\n")
    (repository / "gone").write_text("line\n")
    git(repository, "init", "-q", "-b", "main")
    commit(repository)
    if os.geteuid() == 0:
        give(directory, NOBODY)
    yield directory
    shutil.rmtree(directory)


def give(directory: Path, user: int) -> None:
    """Everything there belongs to the user."""
    for found in (directory, *directory.rglob("*")):
        os.chown(found, user, user, follow_symlinks=False)


def run(place: Path, script: str, *, is_root: bool = False) -> subprocess.CompletedProcess[str]:
    """The script in an interpreter of an ordinary user, or of whoever runs the tests with
    ``is_root``; the place belongs to that one."""
    with start(place, ["-c", START + script], is_root=is_root) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start(place: Path, arguments: list[str], *, is_root: bool) -> "subprocess.Popen[str]":
    """An interpreter with these arguments, as ``run`` starts it; all three streams are pipes."""
    if is_root and os.geteuid() == 0:
        give(place, 0)
    packages = [Path(tightloop.__file__).parents[1], Path(msgspec.__file__).parents[1]]
    user = NOBODY if os.geteuid() == 0 and not is_root else None
    python = sys.executable if is_root else python_for_everybody()
    return subprocess.Popen(
        [python, "-B", *arguments],
        cwd=place,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(place),
            "PYTHONPATH": ":".join(map(str, [*packages, Path(__file__).parents[2]])),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=user,
        group=user,
        extra_groups=[] if user else None,
        start_new_session=True,
    )

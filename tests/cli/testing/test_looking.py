"""What is found out inside of a sandbox about an interpreter, and what root is told of a project."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tightloop.cli.testing.looking import check_interpreter, why_no_pytest, why_not_writable
from tightloop.sandbox.interface import Command, CommandResult, SandboxError


class Here:
    """Runs commands without any isolation, in one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def run(self, command: Command) -> CommandResult:
        """See ``Sandbox.run``."""
        process = await asyncio.create_subprocess_exec(
            *(command.argv or ()),
            cwd=self._directory,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return CommandResult(process.returncode, output.decode(), 0, 0)


async def test_what_is_no_python_is_named(tmp_path: Path) -> None:
    """With what it did instead; a program that says something else, or nothing, is none either."""
    await check_interpreter(Here(tmp_path), Path(sys.executable))
    for program in ("/bin/ls", "/bin/echo", "/bin/true"):
        with pytest.raises(SandboxError, match=f"^{program} is no Python 3 .*--python"):
            await check_interpreter(Here(tmp_path), Path(program))


async def test_why_there_is_no_pytest(tmp_path: Path) -> None:
    """Not installed, or there and broken: then the last thing that its import said."""
    here = Here(tmp_path)
    assert await why_no_pytest(here, Path(sys.executable)) == ""
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    assert await why_no_pytest(here, bare) == f"pytest is not installed for {bare}"
    (tmp_path / "pytest.py").write_text("import nowhere\n")
    assert await why_no_pytest(here, bare) == (
        f"pytest cannot be imported by {bare}: ModuleNotFoundError: No module named 'nowhere'"
    )


def test_root_is_told_that_it_cannot_write(tmp_path: Path) -> None:
    """To what belongs to another user, unless everybody or a group of root's may write to it."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 1001, 1001)
    status = tmp_path.stat()
    tmp_path.chmod(0o755)
    said = why_not_writable(tmp_path, 0, {0})
    assert said.startswith(f"tests cannot write to {tmp_path}: it belongs to user {status.st_uid},")
    assert f"chown -R root {tmp_path}" in said
    assert f"sudo -u \\#{status.st_uid}" in said
    assert why_not_writable(tmp_path, status.st_uid, {status.st_gid}) == ""
    assert why_not_writable(tmp_path, status.st_uid + 1, set()) == ""  # nor can they out here
    tmp_path.chmod(0o775)
    assert why_not_writable(tmp_path, 0, {0, status.st_gid}) == ""
    assert why_not_writable(tmp_path, 0, {status.st_gid + 1}) != ""
    tmp_path.chmod(0o757)
    assert why_not_writable(tmp_path, 0, {status.st_gid + 1}) == ""

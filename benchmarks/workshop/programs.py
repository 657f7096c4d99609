"""Programs of others as they are: started, waited for, named by version."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.lab.processes import NotStarted
from tightloop import __version__

HERE = Path(__file__).resolve().parent

CLEAN = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}
"""Our environment, without what a user may have told git."""


async def spawn(
    argv: Sequence[str | Path], cwd: Path, environment: Mapping[str, str] | None = None
) -> bytes:
    """A plain child process to its end; its output. Raises NotStarted when it ends badly."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env=CLEAN if environment is None else environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        words = output.decode(errors="replace").strip()[-300:]
        raise NotStarted(f"{argv[0]} ended with {process.returncode}: {words}")
    return output


def spawn_at_once(program: str) -> None:
    """A program without arguments, started and waited for by system calls alone."""
    pid = os.posix_spawn(program, [program], os.environ)
    os.waitpid(pid, 0)


def own_version() -> str:
    """Ours, and the commit that is checked out; a ``+`` says that files differ from it."""
    argv = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    said = subprocess.run(argv, cwd=HERE, capture_output=True, text=True, check=False)
    return f"{__version__} at {said.stdout.strip()}" if said.returncode == 0 else __version__


def versions(*programs: str) -> dict[str, str]:
    """The last word but brackets of what each says about itself; what is not there is left out."""
    found = {}
    for name in programs:
        path = shutil.which(name)
        if path is not None:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            words = [word for word in said.stdout.partition("\n")[0].split() if word[0].isdigit()]
            found[name] = words[0] if words else "unknown"
    return found

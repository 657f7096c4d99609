"""The project's own interpreter, and where it lies."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tightloop.sandbox.interface import SandboxError

_WHERE = "import sys; print(sys.executable); print(sys.prefix); print(sys.base_prefix)"
_LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Interpreter:
    """``program`` is what runs; ``readable`` must be shown to it, although it may lie in a home."""

    program: Path
    readable: tuple[Path, ...] = ()

    @property
    def stamp(self) -> tuple[object, ...]:
        """Another one when the interpreter or its environment was replaced."""
        marks: list[object] = [os.path.realpath(self.program)]
        for path in (self.program, self.program.parent.parent / "pyvenv.cfg"):
            try:
                status = path.stat()
                marks.append((status.st_mtime_ns, status.st_ino, status.st_size))
            except OSError:
                marks.append(None)
        return tuple(marks)


def find_interpreter(given: str, root: Path, environment: Mapping[str, str]) -> Interpreter:
    """The named one, else the first python of the PATH.

    One that lies in the project is not started out here: that is the repository's word. Raises
    SandboxError when there is none.
    """
    if given:
        program = Path(given)
        if program.is_relative_to(root):
            return Interpreter(program)
        return Interpreter(program, _places_of(program))
    path = environment.get("PATH", os.defpath)
    found = shutil.which("python", path=path) or shutil.which("python3", path=path)
    if found is None:
        raise SandboxError(
            "there is no python: make a .venv in the project, or name one by --python"
        )
    return _asked_where(found, root)


def _places_of(program: Path) -> tuple[Path, ...]:
    """Of a program that the user named or activated."""
    real = Path(os.path.realpath(program))
    wanted = [real.parent.parent]
    if (program.parent.parent / "pyvenv.cfg").exists():
        wanted.append(program.parent.parent)
    return _narrow(wanted)


def _narrow(wanted: list[Path]) -> tuple[Path, ...]:
    """Without places that hold a whole home directory."""
    home = Path(os.path.expanduser("~"))
    return tuple(
        place
        for place in dict.fromkeys(wanted)
        if len(place.parts) > 1 and not home.is_relative_to(place)
    )


def _asked_where(found: str, root: Path) -> Interpreter:
    """What a python on the PATH really is: it may be a script that chooses one."""
    try:
        done = subprocess.run(
            [found, "-I", "-c", _WHERE], cwd=root, capture_output=True, text=True, check=True,
            timeout=_LIMIT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"{found} does not run: {error}") from error
    executable, *places = done.stdout.splitlines()
    return Interpreter(Path(executable), _narrow([Path(place) for place in places]))

"""Whether a background process is still what its project needs: it may live for hours."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tightloop.cli.testing.interpreter import Interpreter
from tightloop.sandbox import places
from tightloop.sandbox.interface import Policy, SandboxError

Mark = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Freshness:
    """Everything that a sandbox takes over when it starts, and that may be another thing later."""

    interpreter: tuple[object, ...]
    program: frozenset[tuple[str, Mark]]
    configuration: Mark
    project: frozenset[tuple[str, Mark]]

    def reason(self, now: "Freshness") -> str:
        """Why it has to be started anew; empty when nothing has changed."""
        if not self.program <= now.program:  # what was loaded since is new itself
            return "tightloop itself has changed"
        if self.interpreter != now.interpreter:
            return "the project's interpreter has changed"
        if self.configuration != now.configuration:
            return "the configuration has changed"
        if self.project != now.project:
            return "the project's directory or its protected files have been replaced"
        return ""


def look(interpreter: Interpreter, configuration: Path, policy: Policy) -> Freshness:
    """As things are now."""
    return Freshness(interpreter.stamp, _program(), _mark(configuration), _project(policy))


def _program() -> frozenset[tuple[str, Mark]]:
    """Our own files that are loaded; a newer file that is not could not be told from the old."""
    files = [
        str(module.__file__)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "tightloop" and getattr(module, "__file__", None)
    ]
    return frozenset((file, _mark(file)) for file in files)


def _project(policy: Policy) -> frozenset[tuple[str, Mark]]:
    """The identity of what is mounted: a file that took its place would not be protected."""
    try:
        paths = [policy.workspace, *places.protected_paths(policy)]
    except SandboxError as error:
        return frozenset({(str(error), ())})
    return frozenset((os.fspath(path), _identity(path)) for path in paths)


def _identity(path: Path) -> Mark:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_dev, status.st_ino)


def _mark(path: str | Path) -> Mark:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)

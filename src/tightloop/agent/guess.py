"""Which test command the model will ask for next, before it has asked.

What it ran last, else what it was told to run, else the tests that name a changed module. A guess
is worth only an exact match, so commands are spelled the way models spell them.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tightloop.agent.tools.exec_command import DEFAULT_TIMEOUT_S, is_test_run
from tightloop.sandbox.interface import Command

_QUOTED = re.compile(r"`([^`\n]{1,200})`")
_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_MAX_TEST_FILES = 400
_MAX_ENTRIES = 20_000  # looked at, while everything else waits
_MAX_FILE_BYTES = 200_000
_MAX_SELECTED = 3


class TestCommands:
    """What is known of one conversation's test commands. ``configured`` is a project's own."""

    __test__ = False  # the name is not one of a test

    def __init__(self, workspace: Path, configured: str | None = None) -> None:
        self._workspace = workspace
        self._configured = configured
        self._last: Command | None = None
        self._named: Command | None = None

    def note(self, command: Command) -> None:
        """The model has asked for this test command."""
        self._last = command

    def read(self, text: str) -> None:
        """What the model was told; the last test command between back quotes counts."""
        for line in commands_in(text):
            self._named = _line(line)

    def guess(self, changed: Iterable[str]) -> Command | None:
        """The command to expect after a change of these files, relative to the workspace."""
        if self._last is not None:
            return self._last
        if self._configured is not None:
            return _line(self._configured)
        if self._named is not None:
            return self._named
        tests = naming_files(self._workspace, changed)
        return _line(f"python -m pytest -q {' '.join(tests)}") if tests else None


def _line(text: str) -> Command:
    """As the command tool reads it without further arguments."""
    return Command(script=text, timeout_s=DEFAULT_TIMEOUT_S)


def commands_in(text: str) -> list[str]:
    """Test commands between back quotes, or as lines of fenced blocks, in order."""
    blocks = [match[1] for match in _FENCED.finditer(text)]
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    quoted = [match[1].strip() for match in _QUOTED.finditer(_FENCED.sub("", text))]
    return [line for line in (*lines, *quoted) if is_test_run(line)]


def naming_files(workspace: Path, changed: Iterable[str]) -> list[str]:
    """The few test files to run after a change: changed ones, then those that import what changed.

    Relative paths in order; none when there are too many to be meant.
    """
    paths = [PurePosixPath(path) for path in changed if path.endswith(".py")]
    found = {str(path) for path in paths if _is_test(path.name)}
    names = {path.parent.name if path.stem == "__init__" else path.stem for path in paths}
    names -= {PurePosixPath(path).stem for path in found}
    if names:
        wanted = re.compile(
            rf"^[ \t]*(?:from|import)[ \t][^\n#]*\b(?:{'|'.join(map(re.escape, sorted(names)))})\b",
            re.MULTILINE,
        )
        found |= {
            file.relative_to(workspace).as_posix()
            for file in _test_files(workspace)
            if wanted.search(_beginning(file))
        }
    is_plain = all(re.fullmatch(r"[\w./-]+", path) for path in found)
    return sorted(found) if is_plain and len(found) <= _MAX_SELECTED else []


def _is_test(name: str) -> bool:
    return name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))


def _test_files(workspace: Path) -> Iterator[Path]:
    num_seen = num_entries = 0
    waiting = [workspace]
    while waiting:
        directory = waiting.pop()
        try:
            entries = sorted(directory.iterdir())
        except OSError:
            continue
        num_entries += len(entries)
        if num_entries > _MAX_ENTRIES:
            return
        for entry in entries:
            if entry.is_symlink() or entry.name.startswith(".") or entry.name == "node_modules":
                continue
            if entry.is_dir():
                waiting.append(entry)
            elif _is_test(entry.name):
                num_seen += 1
                if num_seen > _MAX_TEST_FILES:
                    return
                yield entry


def _beginning(file: Path) -> str:
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as opened:
            return opened.read(_MAX_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ""

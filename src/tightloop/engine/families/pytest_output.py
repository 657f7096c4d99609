"""Reads a pytest run: what failed, where, and which functions are to blame first.

Understands ``--tb=auto``, ``long`` and ``short``. What the network is told about a failure is the
business of ``patchling.report``; this module only decides which function to look at.
"""

import ast
import builtins
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import PurePosixPath

_HEADER = re.compile(r"^_{3,} (.+) _{3,}$")
_LOCATION = re.compile(r"^([^\s:][^:\n]*\.py):(\d+):(?: |$)")
_WHERE = re.compile(
    r"^E\s+\+\s+(?:where|and) .+ = (?:<[\w ]*?(?:function|method) )?([\w.]+)[^(]*\("
)
_LAST_LINE = re.compile(r"^(?:=+ )?(\d+ \w+.*) in [\d.]+s\b", re.MULTILINE)
_COUNT = re.compile(r"\b(\d+) (failed|passed|errors?)\b")
_SUMMARY = re.compile(r"^(?:FAILED|ERROR) (\S+\.py\S*)", re.MULTILINE)
_FOREIGN = ("site-packages", ".venv", "dist-packages", "<")
_NOT_SUSPECT = frozenset(dir(builtins)) | {"raises", "approx", "warns", "parametrize", "fixture"}


class Verdict(Enum):
    """What a run says as a whole."""

    PASSED = auto()
    FAILED = auto()
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class Frame:
    """A line of a traceback."""

    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Failure:
    """One failing test: its report, and the traceback in it, outermost frame first."""

    name: str
    frames: tuple[Frame, ...]
    lines: tuple[str, ...]

    @property
    def called(self) -> tuple[str, ...]:
        """Functions that the failing assertion calls, then those called before it."""
        matches = (_WHERE.match(line) for line in self.lines)
        called = [match[1].rpartition(".")[2] for match in matches if match]
        called.extend(_called_in_source(self.lines))
        return tuple(name for name in dict.fromkeys(called) if name not in _NOT_SUSPECT)

    @property
    def suspect_frame(self) -> Frame | None:
        """The innermost frame in the project's own code, outside of tests."""
        for frame in reversed(self.frames):
            if is_own(frame.path) and not is_test(frame.path):
                return frame
        return None

    @property
    def uncollectable(self) -> str | None:
        """The file that could not be loaded, when it failed before any test ran."""
        _, found, path = self.name.partition("ERROR collecting ")
        return path if found else None

    @property
    def reason(self) -> str:
        """The error in its own words, without a full stop; empty when none is shown."""
        errors = [line[1:].strip() for line in self.lines if line.startswith("E ")]
        return errors[-1].rstrip(".") if errors else ""

    @property
    def test_path(self) -> str | None:
        """The file of the failing test."""
        return next((frame.path for frame in self.frames if is_test(frame.path)), None)


@dataclass(frozen=True, slots=True)
class TestRun:
    """What one run said. ``failed`` are the node ids of its summary."""

    __test__ = False

    verdict: Verdict
    failures: tuple[Failure, ...]
    failed: frozenset[str]


def is_test(path: str) -> bool:
    """Whether the path is a test file by pytest's conventions."""
    parts = PurePosixPath(path).parts
    name = parts[-1] if parts else ""
    is_named = name.startswith("test_") or name.endswith("_test.py") or name == "conftest.py"
    return is_named or any(part in ("tests", "test") for part in parts[:-1])


def is_own(path: str) -> bool:
    """Whether the path is a file of the project rather than of an installed package."""
    return not path.startswith(("/", "..")) and not any(part in path for part in _FOREIGN)


def read_run(text: str) -> TestRun:
    """The run whose output this is; UNREADABLE when it holds no result of pytest."""
    last = (_LAST_LINE.findall(text) or [""])[-1]
    counts = {kind.rstrip("s"): int(number) for number, kind in _COUNT.findall(last)}
    if counts.get("failed") or counts.get("error"):
        verdict = Verdict.FAILED
    elif counts.get("passed"):
        verdict = Verdict.PASSED
    else:
        verdict = Verdict.UNREADABLE
    failures = tuple(_read_failure(name, lines) for name, lines in _sections(text))
    failed = frozenset(_SUMMARY.findall(text)) or frozenset(f.name for f in failures)
    return TestRun(verdict, failures, failed)


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    name, lines, is_inside = "", list[str](), False
    for line in text.splitlines():
        header = _HEADER.match(line) if is_inside else None
        if line.startswith("===") or header:
            if name:
                yield name, lines
            name, lines = (header[1] if header else ""), []
            if not header:
                is_inside = " FAILURES " in line or " ERRORS " in line
        elif name:
            lines.append(line)
    if name:
        yield name, lines


def _read_failure(name: str, lines: list[str]) -> Failure:
    frames = [Frame(match[1], int(match[2])) for line in lines if (match := _LOCATION.match(line))]
    return Failure(name, tuple(frames), tuple(lines))


def _called_in_source(lines: Sequence[str]) -> list[str]:
    """Names called in the shown test code, the failing line's first, then upwards."""
    shown: list[str] = []
    for number, line in enumerate(lines):
        if line.startswith(">"):
            shown.append(" " + line[1:])
            break
        if _LOCATION.match(line) and number + 1 < len(lines):  # --tb=short
            shown = [lines[number + 1]]
            break
        if shown or re.match(r" {4}\S", line):
            shown.append(line)
    names: list[str] = []
    for source in reversed(shown):
        names.extend(called_names(source.strip()))
    return names


def called_names(source: str) -> list[str]:
    """Names of functions and methods called in Python text, outermost first; [] when it is none."""
    text = textwrap.dedent(source)
    if text.rstrip().endswith(":"):
        text += "\n    pass"
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        func.id if isinstance(func, ast.Name) else func.attr
        for func in calls
        if isinstance(func, ast.Name | ast.Attribute)
    ]


def names_in_test(test_source: str, failure_name: str) -> list[str]:
    """Functions that the named test calls, found in the test file's text."""
    wanted = failure_name.split("[")[0].rpartition(".")[2].rpartition("::")[2]
    try:
        tree = ast.parse(test_source)
    except (SyntaxError, ValueError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == wanted:
            names = called_names(ast.unparse(ast.Module(node.body, [])))
            return [name for name in dict.fromkeys(names) if name not in _NOT_SUSPECT]
    return []

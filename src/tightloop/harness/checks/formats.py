"""What programs print about files, as facts: a path, a line, a sentence.

Known are ``path:line:column: text`` (ruff, mypy, flake8, gcc, go, eslint's unix format), ``path(line,column):
text`` (tsc), a sentence above `` --> path:line:column`` (ruff's and rustc's full format), pytest's and
unittest's summaries, and formatters' lists. What a failing program prints in no known way is one fact
with its last words. Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_TEXT_CHARS = 200
MAX_FACTS = 1000
"""Of one run. More than that says one thing: that it is broken."""
_ESCAPES = re.compile(
    r"\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]"
)
_PATH = r"(?P<path>(?:[A-Za-z]:)?[^\s:()'\"<>][^:()'\"<>]*)"
_PLACE = re.compile(rf"^{_PATH}:(?P<line>\d+)(?::\d+)*: ?(?P<text>\S.*)$")
_TSC = re.compile(rf"^{_PATH}\((?P<line>\d+),\d+\): (?P<text>\S.*)$")
_ARROW = re.compile(rf"^\s*--> {_PATH}:(?P<line>\d+)(?::\d+)?$")
_PYTEST = re.compile(r"^(?P<what>FAILED|ERROR) (?P<node>\S.*?)(?: - (?P<text>.*))?$")
_PYTEST_SUMMARY = re.compile(r"^=+ short test summary info =+$")
_UNITTEST = re.compile(r"^(?P<what>FAIL|ERROR): (?P<node>\w+ \(.+\))$")
_FORMATTER = re.compile(r"^(?:would reformat|Would reformat:|\[warn\]) (?P<path>\S.*)$")
_NOTE = re.compile(r"^(?:note|help|info)\b", re.IGNORECASE)
_VARYING = re.compile(r"\b(lines?) \d+(?:-\d+)?|\b0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Fact:
    """One finding. ``path`` is empty and ``line`` 0 where none was said. ``key`` is the same for the
    same finding at another line."""

    path: str
    line: int
    text: str
    key: str

    def __str__(self) -> str:
        """As programs print it."""
        place = f"{self.path}:{self.line}" if self.line else self.path
        return f"{place}: {self.text}" if place else self.text


def facts_in(output: str, exit_code: int, root: str) -> list[Fact]:
    """What a check that ended by itself says of the tree; nothing when it succeeded.

    ``root`` is the directory it ran in: paths below it are told relative to it.
    """
    if exit_code == 0:
        return []
    lines = [_ESCAPES.sub("", line).rstrip() for line in output.splitlines()]
    found = list(dict.fromkeys(_found(lines, root)))
    if not found:
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
        return [Fact("", 0, f"exit code {exit_code}: {_cut(last)}", f"exit code {exit_code}")]
    return found[:MAX_FACTS]


def _found(lines: list[str], root: str) -> Iterator[Fact]:
    summary = next((n for n, line in enumerate(lines) if _PYTEST_SUMMARY.match(line)), None)
    if summary is not None:  # what stands above are tracebacks, which have lines of the other kinds
        yield from filter(None, map(_test, lines[summary + 1 :]))
        return
    sentence = ""
    for line in lines:
        if match := _ARROW.match(line):
            if sentence and not _NOTE.match(sentence):
                yield _fact(match["path"], match["line"], sentence, root)
            sentence = ""
        elif match := _PLACE.match(line) or _TSC.match(line):
            if not _NOTE.match(match["text"]):
                yield _fact(match["path"], match["line"], match["text"], root)
        elif match := _FORMATTER.match(line):
            yield _fact(match["path"], "0", "is not formatted", root)
        elif match := _UNITTEST.match(line):
            text = f"{match['what']}: {_cut(match['node'])}"
            yield Fact("", 0, text, text)
        elif line and not line[0].isspace():
            sentence = line


def _test(line: str) -> Fact | None:
    """A line of pytest's summary. The test is the finding: what it says may differ each time."""
    match = _PYTEST.match(line)
    if match is None:
        return None
    path, separator, name = match["node"].partition("::")
    said = f": {_cut(match['text'])}" if match["text"] else ""
    shown = f"{name or path} {match['what'].lower()}{said}"
    return Fact(path if separator else "", 0, shown, f"{match['what']} {match['node']}")


def _fact(path: str, line: str, text: str, root: str) -> Fact:
    path = path.strip().removeprefix(f"{root.rstrip('/')}/").removeprefix("./")
    text = _cut(text.removeprefix("error: ").strip())
    return Fact(path, int(line[:9]), text, f"{path} {_VARYING.sub('#', text)}")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 4]} ..."

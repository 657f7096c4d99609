"""A failing pytest run reduced to what the model is told: failing cases and traceback lines."""

import ast
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FailingCase:
    """One failing assertion: the call, and either expected and actual value or the exception."""

    call: str
    expected: str = ""
    actual: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class TestReport:
    """Failing cases in the order printed; `lines` are 0-based lines inside the suspect function."""

    __test__ = False

    cases: tuple[FailingCase, ...]
    lines: frozenset[int] = frozenset()

    @property
    def undefined(self) -> frozenset[str]:
        """Names that the report says are not defined: a repair must not use them."""
        matches = (_UNDEFINED.match(case.error) for case in self.cases)
        return frozenset(match[1] for match in matches if match)


_UNDEFINED = re.compile(r"^NameError: name '(\w+)' is not defined")
_HEADER = re.compile(r"^_{3,} (.+) _{3,}$")
_LOCATION = re.compile(r"^(?P<path>[^\s:][^:\n]*):(?P<line>\d+): (?P<rest>.*)$")
_ADDRESS = re.compile(r"0?x?[0-9a-f]{6,}>")
_MAX_ERROR_CHARS = 2000
"""More than the network can read; ``_ADDRESS`` takes the square of a word's length."""

_SUGGESTION = re.compile(r"\. Did you mean: .*$")


def canonical_case(statement: str, error_lines: list[str]) -> FailingCase | None:
    """One case from the asserting source statement and pytest's `E` lines (without the `E`).

    `statement` is a plain `assert CALL == VALUE` (or `assert CALL`, `assert not CALL`). None when
    it is something else and no exception is shown either.
    """
    lines = [line.strip() for line in error_lines]
    first = lines[0] if lines else ""
    call, expected = _split_assert(statement)
    if first.startswith("AssertionError"):
        shown = next((line for line in lines if line.startswith("assert ")), first)
        first = shown.removeprefix("AssertionError: ")
    first = first[:_MAX_ERROR_CHARS]
    if first.startswith("assert "):
        if not call:
            return None
        actual = first.removeprefix("assert ").split(" == ", 1)[0].split(" is ", 1)[0]
        return FailingCase(call=call, expected=expected, actual=_ADDRESS.sub(">", actual))
    if not first:
        return None
    return FailingCase(call=call, error=_ADDRESS.sub(">", _SUGGESTION.sub("", first)))


def _split_assert(statement: str) -> tuple[str, str]:
    try:
        tree = ast.parse(statement.strip())
    except (SyntaxError, ValueError):
        return "", ""
    node = tree.body[0] if tree.body else None
    if not isinstance(node, ast.Assert):
        return "", ""
    test = node.test
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        if isinstance(test.ops[0], ast.Eq | ast.Is):
            return ast.unparse(test.left), ast.unparse(test.comparators[0])
        return ast.unparse(test), "True"
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return ast.unparse(test.operand), "False"
    return ast.unparse(test), "True"


def report_from_pytest(text: str, *, path: str, first_line: int, num_lines: int) -> TestReport:
    """The report of a `python -m pytest -q` run (pytest's `--tb=auto`, `long` or `short`).

    `path` is the file of the suspect function, which spans `num_lines` lines from `first_line`
    (1-based). Cases come in the order printed; a run without failures gives no cases.
    """
    cases: list[FailingCase] = []
    lines: set[int] = set()
    for section in _sections(text):
        statement, errors, located = _read_section(section)
        for name, number in located:
            same_file = name == path or path.endswith("/" + name) or name.endswith("/" + path)
            if same_file and first_line <= number < first_line + num_lines:
                lines.add(number - first_line)
        case = canonical_case(statement, errors)
        if case is not None:
            cases.append(case)
    return TestReport(tuple(cases), frozenset(lines))


def _sections(text: str) -> list[list[str]]:
    sections: list[list[str]] = []
    is_inside = False
    for line in text.splitlines():
        if line.startswith("==="):
            is_inside = " FAILURES " in line or " ERRORS " in line
        elif is_inside and _HEADER.match(line):
            sections.append([])
        elif is_inside and sections:
            sections[-1].append(line)
    return sections


def _read_section(section: list[str]) -> tuple[str, list[str], list[tuple[str, int]]]:
    """(asserting statement, E lines, traceback locations) of one failing test."""
    statement = ""
    errors: list[str] = []
    located: list[tuple[str, int]] = []
    for index, line in enumerate(section):
        if line.startswith("E "):
            errors.append(line[1:].strip())
        elif line.startswith(">") and not statement:
            statement = line[1:].strip()
        match = _LOCATION.match(line)
        if match is None:
            continue
        located.append((match["path"], int(match["line"])))
        is_short = match["rest"].startswith("in ")
        if is_short and not statement and index + 1 < len(section):
            statement = section[index + 1].strip()
    return statement, errors, located

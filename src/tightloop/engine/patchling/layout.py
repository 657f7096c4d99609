"""What the model sees of a function and of a test report, and the way back to the original text.

A prompt is `[report] <fn> <L1>line <L2>line ... <fix>`; the answer repeats the lines with their
markers and the repair in place. Docstrings, comments and blank lines are left out, and indentation
is one space per level, so that lines cost few tokens; `FunctionView.restore` puts all of it back.
"""

import ast
import io
import tokenize
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tightloop.engine.patchling.edits import Edit, parse_function
from tightloop.engine.patchling.report import TestReport

MAX_LINES = 64
MAX_CALL_CHARS = 60
MAX_VALUE_CHARS = 40
MAX_ERROR_CHARS = 80
MAX_CASES = 2

EOS, IM_START, IM_END = 0, 1, 2
MARKERS = ("<test>", "<exp>", "<act>", "<exc>", "<fn>", "<hit>", "<fix>")
SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", *MARKERS,
    *(f"<L{number}>" for number in range(1, MAX_LINES + 1)),
)  # fmt: skip

MARKER_TOKENS = {text: number for number, text in enumerate(SPECIAL_TOKENS)}


@dataclass(frozen=True, slots=True)
class ViewLine:
    """One line as the model sees it; `line`, `start`, `end` locate its code in the original."""

    text: str
    line: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class FunctionView:
    original: tuple[str, ...]
    lines: tuple[ViewLine, ...]

    def restore(self, index: int, text: str) -> str:
        """The original line `index` with its code replaced; indentation and comment stay."""
        shown = self.lines[index]
        line = self.original[shown.line]
        return line[: shown.start] + text.strip() + line[shown.end :]

    def edited(self, index: int, edit: Edit) -> str:
        """Shown line `index` after an edit of its original line."""
        shown = self.lines[index]
        line = self.original[shown.line]
        new = edit.apply(line)
        indent = shown.text[: len(shown.text) - (shown.end - shown.start)]
        return indent + new[shown.start : len(new) - (len(line) - shown.end)].rstrip()

    def index_of(self, line: int) -> int | None:
        """Index of the shown line that stands at original line `line` (0-based)."""
        for index, shown in enumerate(self.lines):
            if shown.line == line:
                return index
        return None


def _hidden_lines(source: str) -> set[int]:
    """0-based lines taken up by docstrings."""
    try:
        tree, shift = parse_function(source)
    except (SyntaxError, ValueError):
        return set()
    hidden: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        first = node.body[0]
        if len(node.body) > 1 and isinstance(first, ast.Expr):
            value = first.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                last = first.end_lineno or first.lineno
                hidden.update(range(first.lineno - 1 - shift, last - shift))
    return hidden


def _comment_columns(source: str) -> dict[int, int]:
    columns: dict[int, int] = {}
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                columns[token.start[0] - 1] = token.start[1]
    except (tokenize.TokenError, SyntaxError):
        pass
    return columns


def view_function(source: str) -> FunctionView:
    """What the model sees of one function's text (decorators included, any indentation)."""
    original = tuple(source.split("\n"))
    hidden, comments = _hidden_lines(source), _comment_columns(source)
    shown: list[ViewLine] = []
    widths: list[int] = []
    for number, line in enumerate(original):
        code = line[: comments.get(number, len(line))].rstrip()
        if number in hidden or not code:
            continue
        start = len(code) - len(code.lstrip())
        while widths and widths[-1] > start:
            widths.pop()
        if not widths or widths[-1] < start:
            widths.append(start)
        text = " " * (len(widths) - 1) + code[start:]
        shown.append(ViewLine(text, number, start, len(code)))
    return FunctionView(original, tuple(shown))


def clip(text: str, limit: int) -> str:
    """At most `limit` characters, the middle replaced by three dots."""
    if len(text) <= limit:
        return text
    head = (limit - 3) // 2
    return text[:head] + "..." + text[len(text) - (limit - 3 - head) :]


def report_parts(report: TestReport | None) -> list[tuple[str, str]]:
    """The report as (marker, text) pairs; empty without a report."""
    parts: list[tuple[str, str]] = []
    for case in report.cases[:MAX_CASES] if report is not None else ():
        parts.append(("<test>", clip(case.call, MAX_CALL_CHARS)))
        if case.error:
            parts.append(("<exc>", clip(case.error, MAX_ERROR_CHARS)))
        else:
            parts.append(("<exp>", clip(case.expected, MAX_VALUE_CHARS)))
            parts.append(("<act>", clip(case.actual, MAX_VALUE_CHARS)))
    return parts


def hit_lines(view: FunctionView, report: TestReport | None) -> frozenset[int]:
    """Indices of shown lines on which a traceback of the report stands."""
    if report is None:
        return frozenset()
    indices = (view.index_of(line) for line in report.lines)
    return frozenset(index for index in indices if index is not None)


def line_token(index: int) -> int:
    """The marker token of the shown line `index` (0-based)."""
    return len(SPECIAL_TOKENS) - MAX_LINES + index


def prompt_tokens(
    report: TestReport | None,
    lines: Sequence[Sequence[int]],
    hits: frozenset[int],
    encode: Callable[[str], list[int]],
) -> list[int]:
    """The prompt up to and including `<fix>`; `lines` are the tokens of each shown line.

    `encode` turns plain text into tokens and must not recognise markers in it.
    """
    tokens: list[int] = []
    for marker, text in report_parts(report):
        tokens += [MARKER_TOKENS[marker], *encode(text)]
    tokens.append(MARKER_TOKENS["<fn>"])
    for index, line in enumerate(lines):
        tokens.append(line_token(index))
        if index in hits:
            tokens.append(MARKER_TOKENS["<hit>"])
        tokens += line
    tokens.append(MARKER_TOKENS["<fix>"])
    return tokens

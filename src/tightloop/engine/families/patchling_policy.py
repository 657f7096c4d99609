"""What the bundled model does next: a fixed policy; the network only writes the repair.

The next step is a function of the conversation alone:

(a) no test result yet: run the tests with the command the user named;
(b) a test fails: read the file of the suspect function. A traceback's innermost line in the
    project's own code names it; else the functions that the failing assertion calls are looked
    up with ``grep``; else the test's own text says which functions those are;
(c) the file is known: replace the function's text by the search's next candidate;
(d) a patch was applied: run the tests again, with a deadline in case the repair never ends;
(e) the tests pass: say so. If none leads to the suspect any more but others fail, start over at (b);
(f) one still leads to it: next candidate, taking the last one back in the same patch. When there
    are no more, undo the last one and say that it could not be fixed.

Everything else is answered with what this model can do and how to choose another one.
"""

import ast
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tightloop.engine.families.client_tools import PatchTool, ShellTool, plain_output
from tightloop.engine.families.patchling_summary import is_summary
from tightloop.engine.families.pytest_output import (
    Failure,
    TestRun,
    Verdict,
    is_own,
    is_test,
    names_in_test,
    read_run,
)
from tightloop.engine.families.v4a import patched_path, reapply
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
)

DEFAULT_COMMAND = "python -m pytest -q"
MAX_NAMES = 4
SKILL = (
    "I am patchling, tightloop's small demo model. I can do one thing: repair a bug of one line in "
    "a Python function, given pytest tests that fail because of it. Ask me, for example, "
    '"make the failing tests pass: `python -m pytest -q`". For real work choose another model: '
    "`--model path/to/coder.gguf`, `--model hf:OWNER/REPO/FILE@REVISION`, or "
    "`--model remote:MODEL@https://host/v1`."
)
_WALL_TIME = re.compile(r"^Wall time: ([\d.]+) s", re.MULTILINE)
_LAST_WALL_TIME = re.compile(r"^Wall time: ([\d.]+) seconds\Z", re.MULTILINE)
_DEADLINE_BASE_S, _DEADLINE_FACTOR = 5, 10
_ASKS_FOR_REPAIR = re.compile(r"test|fix|bug|fail|repair|broken|debug|correct", re.IGNORECASE)
_QUOTED_COMMAND = re.compile(r"(?<!`)`++(?:\w*\n)?([^`\n]*\bpytest\b[^`\n]*)\n?`+")
_SHORTENED = re.compile(r"^(?:\[\.\.\. .*|.*\btruncated\b.*)$", re.MULTILINE)
_NO_TESTS = re.compile(r"^(?:=+ )?no tests (?:ran|collected)\b", re.MULTILINE)
_BARE_COMMAND = re.compile(
    r"((?:(?:uv|poetry|pdm|hatch) run )?(?:[\w./-]*python[\d.]* -m )?pytest"
    r"(?: (?:-\S+|\S*(?:/|::|=|\.py)\S*))*)(?=[\s,;.!?)'\"]|$)"
)
_MAX_LINE_CHARS, _MAX_LINES = 2000, 10
"""Of a message, searched for a command: the search takes the square of a word's length."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command in the client's shell; ``timeout_s`` when it may never end by itself."""

    command: str
    timeout_s: int | None = None


@dataclass(frozen=True, slots=True)
class Say:
    """End the turn with a text."""

    text: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Replace the function by the next candidate.

    ``original`` is the file before any attempt, ``current`` as it stands now. The function's lines
    are ``first_line`` to ``last_line`` of ``original`` (1-based, decorators included), its ``def``
    stands on ``def_line``. ``tried`` are the whole texts of earlier attempts.
    """

    path: str
    name: str
    original: str
    current: str
    first_line: int
    last_line: int
    def_line: int
    test_output: str
    tried: tuple[str, ...] = ()
    may_continue: bool = True

    @property
    def source(self) -> str:
        """The function's text before any attempt."""
        return "\n".join(self.original.splitlines()[self.first_line - 1 : self.last_line])

    def with_function(self, source: str) -> str:
        """The file before any attempt, with the function's text replaced."""
        lines = self.original.splitlines()
        lines[self.first_line - 1 : self.last_line] = source.split("\n")
        return "\n".join(lines) + ("\n" if self.original.endswith("\n") else "")

    def give_up_text(self) -> str:
        """What to say when no candidate is left."""
        count = len(self.tried)
        attempts = f"{count} attempt{'' if count == 1 else 's'}"
        return (
            f"I could not fix `{self.name}` in {self.path}: none of {attempts} made its test pass. "
            + ("The file is as it was. " if count else "")
            + "This small demo model repairs bugs of one line only; choose a larger model for this."
        )


Step = Run | Say | Repair


@dataclass(slots=True)
class _Phase:
    """One failing test being worked on."""

    run: TestRun
    output: str
    original: dict[str, str] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)
    suspect: "_Suspect | None" = None  # the function that the attempts replaced

    @property
    def failure(self) -> Failure | None:
        """The failure to repair: the first whose traceback enters the project, else the first."""
        traced = [f for f in self.run.failures if f.suspect_frame is not None]
        return next(iter([*traced, *self.run.failures]), None)


@dataclass(slots=True)
class _Story:
    """What has happened since the user asked."""

    command: str
    phase: _Phase | None = None
    unreadable: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    found: dict[str, str] = field(default_factory=dict)  # grep command -> its output
    has_untested_patch: bool = False
    test_wall_s: float | None = None  # of the first test run, where the client tells
    refused_patch: str | None = None
    repaired: list[str] = field(default_factory=list)


def next_step(
    items: Sequence[Item],
    shell: ShellTool | None,
    patch: PatchTool | None,
    *,
    max_candidates: int = 8,
) -> Step:
    """The next step of the conversation ``items``; the same items always give the same step."""
    asked, since = _last_request(items)
    if not _ASKS_FOR_REPAIR.search(asked):
        return Say(SKILL)
    if shell is None or patch is None:
        missing = "a shell tool (exec_command)" if shell is None else "an apply_patch tool"
        return Say(f"I need {missing} to work, and this client offers none. {SKILL}")
    story = _Story(test_command(asked))
    for call, output in _calls(since):
        _take_in(story, call, output, shell, patch)
    return _decide(story, max_candidates)


def test_command(text: str) -> str:
    """The pytest command that a message names, or ``python -m pytest -q``."""
    quoted = _QUOTED_COMMAND.search(text)
    if quoted:
        return quoted[1].strip().removeprefix("$ ").strip()
    lines = [line for line in text.splitlines() if "pytest" in line]
    short = [line for line in lines if len(line) <= _MAX_LINE_CHARS][:_MAX_LINES]
    bare = [match[1] for line in short for match in _BARE_COMMAND.finditer(line)]
    named = [command.rstrip(".,;:") for command in bare if " " in command]
    return named[0] if named else DEFAULT_COMMAND


test_command.__test__ = False  # type: ignore[attr-defined]


def _last_request(items: Sequence[Item]) -> tuple[str, list[Item]]:
    """What the user asked last, and what happened since; a summary only stands in for the user."""
    summary: tuple[str, list[Item]] = ("", [])
    for place in range(len(items) - 1, -1, -1):
        item = items[place]
        if isinstance(item, Message) and item.role == "user":
            said = item.text, list(items[place + 1 :])
            if not is_summary(item):
                return said
            summary = summary if summary[0] else said
    return summary


def _calls(items: Sequence[Item]) -> Iterator[tuple[FunctionCall | CustomToolCall, str]]:
    outputs = {
        item.call_id: item.output
        for item in items
        if isinstance(item, FunctionCallOutput | CustomToolCallOutput)
    }
    for item in items:
        if isinstance(item, FunctionCall | CustomToolCall) and item.call_id in outputs:
            yield item, outputs[item.call_id]


def _take_in(
    story: _Story,
    call: FunctionCall | CustomToolCall,
    output: str,
    shell: ShellTool,
    patch_tool: PatchTool,
) -> None:
    patch = patch_tool.patch_of(call)
    if patch is not None:
        _take_patch(story, patch, output)
        return
    command = shell.command_of(call) if isinstance(call, FunctionCall) else None
    if command is None:
        return
    text = plain_output(output)
    if command == story.command:
        wall = _LAST_WALL_TIME.search(output) or _WALL_TIME.search(output)
        if wall and story.phase is None:
            story.test_wall_s = float(wall[1])
        _take_run(story, text)
    elif command.startswith("cat "):
        path = shlex.split(command)[-1]
        if text.startswith("cat: ") or not text.strip():
            story.missing.add(path)
        else:
            story.files[path] = text
    elif command.startswith("grep "):
        story.found[command] = text


def _take_run(story: _Story, text: str) -> None:
    run = read_run(text)
    before = story.phase
    story.has_untested_patch = False
    if run.verdict is Verdict.UNREADABLE:
        # After a repair it means that the repair made things worse: it loops, or kills the run.
        story.unreadable = None if before is not None and before.attempts else text
        return
    story.unreadable = None
    if before is None or not before.attempts:
        story.phase = _Phase(run, text)
        return
    if run.verdict is Verdict.PASSED or _is_progress(before, run):
        failure = before.failure
        story.repaired.append(failure.name if failure else "")
        story.phase = _Phase(run, text)


def _is_progress(before: _Phase, run: TestRun) -> bool:
    """The suspect is repaired: fewer tests fail, and none of them leads to it any more.

    A wrong repair often lets some of a function's tests pass, so those alone say nothing.
    """
    suspect = before.suspect
    if suspect is None or not run.failures or not run.failed < before.run.failed:
        return False
    return not any(suspect.is_met_by(failure) for failure in run.failures)


def _take_patch(story: _Story, patch: str, output: str) -> None:
    path = patched_path(patch)
    phase = story.phase
    if path is None or phase is None or path not in story.files:
        return
    current = story.files[path]
    after = reapply(patch, current) if "Success" in output else None
    if after is None:
        story.refused_patch = plain_output(output)
        return
    if phase.suspect is None and phase.failure is not None:
        place = _locate(story, phase.failure)
        span = _function_span(current, place) if isinstance(place, _Place) else None
        phase.suspect = _Suspect(path, span) if span is not None else None
    phase.original.setdefault(path, current)
    story.files[path] = after
    phase.attempts.append(after)
    story.has_untested_patch = True


def _decide(story: _Story, max_candidates: int) -> Step:
    phase = story.phase
    if story.unreadable is not None:
        if _NO_TESTS.search(story.unreadable):
            return Say(
                f"`{story.command}` finds no tests, so there is nothing to repair by. {SKILL}"
            )
        last = (story.unreadable.strip().splitlines() or ["(no output)"])[-1]
        return Say(f"`{story.command}` gave no test result I can read: {last}")
    if phase is None:
        return Run(story.command)
    if phase.run.verdict is Verdict.PASSED:
        if story.repaired:
            return Say(f"Fixed: `{story.command}` passes now.")
        return Say(f"`{story.command}` passes: there is nothing to repair.")
    if story.refused_patch is not None:
        return Say(f"My patch was not applied, so I stop here: {story.refused_patch.strip()[:300]}")
    failure = phase.failure
    if failure is None:
        return Say("A test fails, but its output does not show where. Run pytest with tracebacks.")
    return _work_on(story, phase, failure, max_candidates)


def _work_on(story: _Story, phase: _Phase, failure: Failure, max_candidates: int) -> Step:
    place = _locate(story, failure)
    if not isinstance(place, _Place):
        return place
    text = story.files.get(place.path)
    if text is None:
        if place.path in story.missing:
            return Say(f"I cannot read {place.path}, which the failing test leads to.")
        return Run(f"cat {shlex.quote(place.path)}")
    original = phase.original.get(place.path, text)
    span = _function_span(original, place)
    if span is None and _SHORTENED.search(original):
        return Say(f"{place.path} is too long: this client shows me only parts of it. {SKILL}")
    if span is None:
        where = f"line {place.line} of {place.path}" if place.line else f"{place.path}"
        return Say(f"The failure leads to {where}, which is not inside a function. {SKILL}")
    repair = Repair(
        path=place.path,
        name=span.name,
        original=original,
        current=text,
        first_line=span.first_line,
        last_line=span.last_line,
        def_line=span.def_line,
        test_output=phase.output,
        tried=tuple(t for t in dict.fromkeys(phase.attempts) if t != original),
    )
    if phase.attempts and text == original:
        return Say(repair.give_up_text())
    if story.has_untested_patch:
        return Run(story.command, _deadline_s(story))
    if len(repair.tried) >= max_candidates:
        return replace(repair, may_continue=False)
    return repair


def _deadline_s(story: _Story) -> int | None:
    """When a test run of a repair is given up: a wrong one may loop for ever."""
    if story.test_wall_s is None:
        return None
    return math.ceil(_DEADLINE_BASE_S + _DEADLINE_FACTOR * story.test_wall_s)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the suspect function is: a line inside of it, or its name."""

    path: str
    line: int = 0
    name: str = ""


def _locate(story: _Story, failure: Failure) -> _Place | Step:
    frame = failure.suspect_frame
    if frame is not None:
        return _Place(frame.path, line=frame.line)
    names = list(failure.called)
    place = _looked_up(story, names)
    if place is not None:
        return place
    test_path = failure.test_path
    broken = failure.uncollectable
    if broken is not None and (test_path is None or test_path in story.files):
        reason = failure.reason or "see its output"
        return Say(f"pytest cannot load {broken}: {reason}. I cannot repair that. {SKILL}")
    if test_path is None or test_path in story.missing:
        return Say("A test fails, but its output names no function of yours. " + SKILL)
    if test_path not in story.files:
        return Run(f"cat {shlex.quote(test_path)}")
    others = [n for n in names_in_test(story.files[test_path], failure.name) if n not in names]
    place = _looked_up(story, others)
    if place is not None:
        return place
    return Say(f"I found no function of yours that {failure.name} calls. {SKILL}")


def _looked_up(story: _Story, names: Sequence[str]) -> _Place | Step | None:
    """Where one of the names is defined; a step to find out; or None when nowhere."""
    if not names:
        return None
    command = grep_command(names)
    if command not in story.found:
        return Run(command)
    return _definition(story.found[command], names)


def grep_command(names: Sequence[str]) -> str:
    """Finds where functions of these names are defined, below the current directory."""
    pattern = "|".join(names[:MAX_NAMES])
    return f"grep -rnE 'def ({pattern})\\b' --include='*.py' --exclude-dir='.[!.]*' ."


def _definition(output: str, names: Sequence[str]) -> _Place | None:
    places: dict[str, _Place] = {}
    for line in output.splitlines():
        match = re.match(r"(?:\./)?([^:]+):(\d+):\s*(?:async )?def (\w+)", line)
        if match and is_own(match[1]) and not is_test(match[1]):
            places.setdefault(match[3], _Place(match[1], int(match[2]), match[3]))
    return next((places[name] for name in names if name in places), None)


@dataclass(frozen=True, slots=True)
class _Span:
    name: str
    first_line: int
    last_line: int
    def_line: int


@dataclass(frozen=True, slots=True)
class _Suspect:
    """The function being repaired."""

    path: str
    span: _Span

    def is_met_by(self, failure: Failure) -> bool:
        """Whether a failing test still leads to it."""
        lines = range(self.span.first_line, self.span.last_line + 1)
        met = any(frame.path == self.path and frame.line in lines for frame in failure.frames)
        return met or self.span.name in failure.called


def _function_span(text: str, place: _Place) -> _Span | None:
    """The innermost function around the place's line, or the one that it names."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return None
    best: _Span | None = None
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
        span = _Span(node.name, first, node.end_lineno or node.lineno, node.lineno)
        if span.first_line <= place.line <= span.last_line and (
            best is None or span.first_line >= best.first_line
        ):
            best = span
    return best

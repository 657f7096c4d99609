"""What a run leaves behind: words on two streams, a patch file, perhaps a changed repository."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tightloop.agent import events as said
from tightloop.agent.terminal.printable import printable
from tightloop.agent.terminal.progress import ProgressPrinter
from tightloop.agent.turn import Status, TurnResult
from tightloop.harness.output_schema import OutputSchema
from tightloop.harness.racing.result import RacedResult, models_line, summary
from tightloop.harness.thread import Thread
from tightloop.sandbox.interface import SandboxError
from tightloop.trace.clock import now_ns

DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130


class Report:
    """What goes to the two output streams."""

    def __init__(self, is_json: bool) -> None:
        self.is_json = is_json
        self._start_ns = now_ns()
        self._progress = ProgressPrinter(sys.stderr)

    def listen(self, event: said.Event) -> None:
        """Show one event."""
        if self.is_json:
            self.write(said.as_json(event, (now_ns() - self._start_ns) / 1e9) + b"\n")
        else:
            self._progress(event)

    def fail(self, message: str) -> None:
        """The run ends here; one line, and in JSON mode the event ``error``."""
        if self.is_json:
            self.listen(said.ErrorEvent(message))
        print(f"tightloop exec: {printable(message)}", file=sys.stderr)

    def note(self, text: str) -> None:
        """A line for a person."""
        if not self.is_json:
            print(text, file=sys.stderr, flush=True)

    def show_diff(self, diff: str) -> None:
        """The diff as it is for a pipe or a file; for a terminal without control characters."""
        text = printable(diff) if sys.stdout.isatty() else diff
        self.write(text.encode("utf-8", "surrogateescape"))

    def write(self, data: bytes) -> None:
        """Bytes for standard output; a reader that has gone away does not end the run."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - lives on


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left when the turn is over: a diff, a patch file, perhaps a changed repository."""

    report: Report
    thread: Thread
    schema: OutputSchema | None = None
    message_file: Path | None = None

    @property
    def turn_options(self) -> dict[str, Any]:
        """What every turn of the run is asked for with."""
        return {} if self.schema is None else {"request": self.schema.request}

    async def deliver(self, result: TurnResult, *, is_wanted: bool) -> int:
        """Show the last turn's result and, if it ``is_wanted``, write it into the repository; the status."""
        status = DONE if result.status is Status.COMPLETED else FAILED
        problem = self._problem(result.text) if status == DONE else ""
        if problem:
            status = FAILED
        elif self.schema is not None and status == DONE:
            self._show_message(result.text)
        if not self.report.is_json and self.schema is None:
            self.report.show_diff(await self.thread.workspace.diff())
        if await self.keep():
            is_applied = False
            if is_wanted and status == DONE:
                is_applied = await self._apply()
                status = DONE if is_applied else FAILED
            if not is_applied:
                self.report.note(f"apply it with: {self._apply_command()}")
        if not self._write_message(result.text):
            status = FAILED
        if not self.report.is_json:
            _show_time(result, self.thread.none_ahead)
        self._note_attempts(result)
        self.report.note(f"log: {self.thread.log.path}")
        self.report.note(f"go on with: tightloop exec --resume {self.thread.id[:8]} PROMPT")
        if result.is_refused_at_once:
            self.report.fail(self._explained(result.message))
            return BAD_USAGE
        if problem:
            self.report.fail(f"the last message does not match --output-schema: {problem}")
        return status

    def _note_attempts(self, result: TurnResult) -> None:
        """What several attempts, or several models, came to."""
        if isinstance(result, RacedResult):
            if result.race is not None and result.race.mode != "single":
                self.report.note(summary(result.race))
            if result.models:
                self.report.note(models_line(result.models))

    async def keep_interrupted(self) -> None:
        """Save what there is; nothing is applied."""
        if await self.keep():
            self.report.note(f"apply it with: {self._apply_command()}")

    def _problem(self, text: str) -> str:
        """Why the last message is not what was asked for; empty when it is."""
        return "" if self.schema is None else self.schema.problem(text)

    def _write_message(self, text: str) -> bool:
        """The last message is in the file that was named, if one was; False when it cannot be."""
        if self.message_file is None:
            return True
        try:
            self.message_file.write_text(text, encoding="utf-8", errors="replace")
        except OSError as error:
            self.report.fail(f"--output-last-message: {self.message_file}: {error.strerror}")
            return False
        return True

    def _show_message(self, text: str) -> None:
        if not self.report.is_json:
            shown = printable(text) if sys.stdout.isatty() else text
            self.report.write(shown.rstrip("\n").encode("utf-8", "replace") + b"\n")

    def log_turn(self, result: TurnResult) -> None:
        """What the turn cost, into the log of the run."""
        self.thread.log.write(
            "turn", status=result.status.value, text=result.text, message=result.message,
            start_ns=result.start_ns, end_ns=result.end_ns, usage=result.usage,
            spans=result.spans, round_trips=result.round_trips, tries=result.tries,
        )  # fmt: skip

    def _explained(self, message: str) -> str:
        """A refusal, with what may be the cause."""
        if self.schema is None:
            return message
        return f"{message} (--output-schema asks for text.format; this server or model may not know it)"

    async def keep(self) -> bool:
        """Save the changes as a patch file; whether there are any. Says what to look at."""
        diff = await self.thread.workspace.diff(include_binary=True)
        special = await self.thread.workspace.special_files()
        for name in special:
            self.report.note(f"left out, not a regular file: {printable(name)}")
        if not diff:
            self.report.note("no file was changed")
            return False
        path = self.thread.patch_path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(diff.encode("utf-8", "surrogateescape"))
        self.thread.log.write("patch", path=str(path))
        self.report.note(f"patch: {path}")
        for risk in await self.thread.workspace.risks():
            self.thread.log.write("risk", path=risk.path, reason=risk.reason)
            self.report.note(f"look at it first: {printable(risk.path)} ({risk.reason})")
        return True

    async def _apply(self) -> bool:
        """Whether the repository holds the result now; if not, it is as it was."""
        severe = [risk.path for risk in await self.thread.workspace.risks() if risk.is_severe]
        if severe:
            names = ", ".join(map(repr, severe))
            self.report.fail(
                f"--apply: nothing was written, because these need a person's look: {names}; "
                f"read {self.thread.patch_path}, then apply it yourself"
            )
            return False
        try:
            written = await self.thread.apply()
        except (SandboxError, OSError) as error:
            self.report.fail(f"--apply: {error}; the result is in {self.thread.patch_path}")
            return False
        self.thread.log.write("applied", paths=written)
        self.report.note(f"applied: {', '.join(map(printable, written))}")
        return True

    def _apply_command(self) -> str:
        """For a shell. In a subdirectory of a work tree, plain ``git apply`` skips every file."""
        repository = self.thread.workspace.repository
        places = (repository, *repository.parents)
        top = next((place for place in places if (place / ".git").exists()), repository)
        words = ["git", "-C", str(top), "apply"]
        if top != repository:
            words.append(f"--directory={repository.relative_to(top)}")
        return shlex.join([*words, str(self.thread.patch_path)])


def _show_time(result: TurnResult, none_ahead: str) -> None:
    """Where the time went, as bars on standard error."""
    from rich.console import Console

    from tightloop.bench.waterfall import draw
    from tightloop.trace.ledger import build_ledger, waterfall
    from tightloop.trace.speculation import sum_up

    turn = (result.start_ns, result.end_ns, result.spans, result.round_trips)
    console = Console(stderr=True, highlight=False)
    console.print(draw(waterfall(*turn), width=min(console.width, 100)))
    parts = build_ledger(*turn).parts
    listed = ", ".join(f"{name} {seconds:.3f}" for name, seconds in parts.items() if seconds)
    rounds = len(result.round_trips)
    console.print(f"{result.wall_s:.3f} s in {rounds} round trips: {listed}", soft_wrap=True)
    if result.tries:
        console.print(str(sum_up(result.tries)), soft_wrap=True)
        for reason in dict.fromkeys(one.reason for one in result.tries if one.reason):
            console.print(f"  wasted: {printable(reason)}", soft_wrap=True, markup=False)
    elif none_ahead:
        console.print(f"none run ahead: {printable(none_ahead)}", soft_wrap=True, markup=False)

"""A patch while it streams and when it is over, beside Codex's own patch program and git apply."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

from benchmarks.lab.processes import NotStarted
from benchmarks.lab.record import Experiment, this_machine
from benchmarks.workshop import codex
from benchmarks.workshop.interleaved import Sample, Table, in_turn, timed
from benchmarks.workshop.programs import own_version, spawn, versions
from tightloop.agent.patch.apply import PatchStream
from tightloop.agent.patch.plan import ChunkLocated
from tightloop.trace.clock import now_ns

NAME = "workshop-patches"
SIZES = {"2,000 lines": 2_000, "120,000 lines (5 MB)": 120_000}
DELTA_CHARS = 16
OURS, CODEX = "tightloop", "codex apply_patch"
FILE = "subject.txt"
END = "*** End Patch\n"


def line(number: int, word: str = "value") -> str:
    """About 45 characters, no two alike."""
    return f"    {word}_{number} = compute(argument, {number})"


def patch(num_lines: int, *, is_back: bool = False) -> str:
    """One chunk near the end of the file, or its opposite."""
    at = num_lines - 10
    old, new = line(at), line(at, "other")
    if is_back:
        old, new = new, old
    lines = [f" {line(at - 1)}", f"-{old}", f"+{new}", f" {line(at + 1)}"]
    return "\n".join(["*** Begin Patch", f"*** Update File: {FILE}", "@@", *lines, END])


def unified(num_lines: int, *, is_back: bool = False) -> str:
    """The same as git wants it."""
    at = num_lines - 10
    old, new = line(at), line(at, "other")
    if is_back:
        old, new = new, old
    head = [f"--- a/{FILE}", f"+++ b/{FILE}", f"@@ -{at},3 +{at},3 @@"]
    return "\n".join([*head, f" {line(at - 1)}", f"-{old}", f"+{new}", f" {line(at + 1)}", ""])


class Subject:
    """A file that the same patch changes forth and back again, round by round."""

    def __init__(self, folder: Path, num_lines: int) -> None:
        self._folder, self._num_lines = folder, num_lines
        self._num = 0
        folder.mkdir()
        text = "".join(line(number) + "\n" for number in range(num_lines))
        (folder / FILE).write_text(text, "utf-8")

    def next(self) -> bool:
        """Whether this round goes back."""
        self._num += 1
        return self._num % 2 == 0

    async def streamed(self) -> dict[str, float]:
        """Milliseconds of our steps, the text in deltas as a model sends it."""
        text = patch(self._num_lines, is_back=self.next())
        start_ns = now_ns()
        stream = PatchStream(self._folder)
        body = text.removesuffix(END)
        for at in range(0, len(body), DELTA_CHARS):
            stream.feed(body[at : at + DELTA_CHARS])
        closing_ns = now_ns()
        events = stream.feed(END)
        located_ns = now_ns()
        outcome = stream.commit()
        end_ns = now_ns()
        if not outcome.is_ok or not any(isinstance(each, ChunkLocated) for each in events):
            raise NotStarted(f"the patch was not applied: {outcome.as_text()[:200]}")
        return {
            "closed chunk -> located": (located_ns - closing_ns) / 1e6,
            "end of text -> applied": (end_ns - closing_ns) / 1e6,
            "first delta -> applied": (end_ns - start_ns) / 1e6,
        }

    def codex(self, program: Path) -> Sample:
        """Its patch program, which takes the text as an argument."""

        async def apply() -> None:
            text = patch(self._num_lines, is_back=self.next())
            await spawn([program, text], self._folder)

        return timed(apply)

    def git(self) -> Sample:
        """``git apply``, with the text on its standard input."""

        async def apply() -> float:
            text = unified(self._num_lines, is_back=self.next()).encode()
            started_ns = now_ns()
            process = await asyncio.create_subprocess_exec(
                *("git", "apply", "-"), cwd=self._folder, stdin=subprocess.PIPE
            )
            await process.communicate(text)
            if process.returncode:
                raise NotStarted(f"git apply ended with {process.returncode}")
            return (now_ns() - started_ns) / 1e6

        return apply


async def measure(place: Path, rounds: int) -> Table:
    """Each size of file: ours in steps, the others whole."""
    table = Table()
    program = place / "apply_patch"
    try:
        program.symlink_to(codex.native_program())  # it goes by the name that it is called by
    except NotStarted as error:
        table.miss(CODEX, str(error))
    for name, num_lines in SIZES.items():
        here = place / str(num_lines)
        here.mkdir()
        ours = Subject(here / "ours", num_lines)
        steps: list[dict[str, float]] = []

        async def streamed(ours: Subject = ours, steps: list[dict[str, float]] = steps) -> float:
            steps.append(await ours.streamed())
            return steps[-1]["first delta -> applied"]

        samples: dict[str, Sample] = {
            OURS: streamed,
            "git apply": Subject(here / "git", num_lines).git(),
        }
        if program.is_symlink():
            samples[CODEX] = Subject(here / "codex", num_lines).codex(program)
        whole = await in_turn(samples, rounds)
        table.add(whole, [OURS], step="first delta -> applied", file=name)
        for step in ("closed chunk -> located", "end of text -> applied"):
            table.add({OURS: [each[step] for each in steps[1:]]}, [], step=step, file=name)
    return table


def run_experiment(*, is_quick: bool) -> Experiment:
    """Measure in a temporary folder."""
    rounds = 4 if is_quick else 40
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        table = asyncio.run(measure(Path(name), rounds))
    return Experiment(
        name=NAME,
        title="One patch of one chunk near the end of a file",
        settings={"quick": is_quick, "rounds": rounds, "delta characters": DELTA_CHARS},
        machine=this_machine(),
        versions={"tightloop": own_version(), **versions("git"), **codex.versions()},
        rows=table.rows,
        ratios=table.ratios,
        notes=[
            "Ours is fed in deltas and located in memory; the commit then compares the file once more and puts"
            " the new one in its place atomically.",
            "Codex's program and git apply are processes, their start included, and get the patch whole; what"
            " a patch costs within Codex's agent is in the table of tool calls.",
        ],
    )

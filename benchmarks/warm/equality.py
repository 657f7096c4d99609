"""Seeded random edits of real projects: does a warm test run say what a cold one says?

Every edit is run warm in a real sandbox, then cold in a fresh process of the same sandbox; exit
code, outcome per test and text are compared. What two cold runs of a tree tell differently does
not count. States chain: an edit comes on top of the ones before it, or takes them back first.
Results are kept line by line, and a run that was interrupted goes on where it stopped.
Usage: ``python -m benchmarks.warm.equality [--seed N] [--edits N] [--projects NAME ...]``.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.lab.progress import Progress
from benchmarks.warm import projects, runs, using
from benchmarks.warm.chain import Chain, Step
from benchmarks.warm.file_edits import Subject
from benchmarks.warm.projects import PROJECTS, ROOT, Project
from benchmarks.warm.runs import Ran
from benchmarks.warm.verdict import Answer, by_kind, different, shares, unlike
from tightloop.sandbox.session import PersistentSandbox

RESULTS = ROOT / "build" / "equivalence"
PARTS = {"click": 28, "flask": 15, "attrs": 13, "sympy": 4}
"""How many of the edits each project gets, by the time that its runs take."""
AT_ONCE = 2
_COLD_IN_A_ROW = 3
_LONG = 3

Tell = Callable[[Answer], None]


@dataclass(slots=True)
class Checker:
    """Runs the edits of one project in a scratch copy of it below ``place``.

    ``only`` are the numbers of edits to run; the others are made without a run.
    """

    project: Project
    seed: int
    place: Path
    tell: Tell
    _sandbox: PersistentSandbox | None = None
    _num_cold: int = 0

    async def check(self, only: Sequence[int]) -> None:
        """One answer for each, in order. Raises RuntimeError when the tests fail unedited."""
        subject = await asyncio.to_thread(self._prepare)
        chain = Chain(subject, self.seed)
        try:
            await self._start(subject)
            for index in range(max(only, default=-1) + 1):
                step = await asyncio.to_thread(chain.step, index)
                if index in only:
                    self.tell(await self._answer(subject, step))
                elif index + 1 in only:  # whoever comes next finds the same warm process
                    await runs.run_warm(self._running, self.project.tests)
        finally:
            await self._end()

    def _prepare(self) -> Subject:
        root = projects.copy(self.project, self.place)
        projects.add_data(self.project, root)
        projects.compile_sources(root)
        into = self.place / f"{self.project.name}.json"
        used = using.used_by(root, self.project.tests, self.project.code, into)
        shutil.rmtree(root / ".hypothesis", ignore_errors=True)
        return Subject(self.project, root, used)

    @property
    def _running(self) -> PersistentSandbox:
        assert self._sandbox is not None
        return self._sandbox

    async def _start(self, subject: Subject) -> None:
        """A sandbox that knows the tests already."""
        await self._end()
        self._sandbox, self._num_cold = await runs.sandbox_for(subject.root), 0
        await runs.run_warm(self._running, self.project.tests)
        await self._settle()

    async def _settle(self) -> None:
        """The warm process has done what it can do ahead, or takes too long for anybody to wait."""
        with suppress(TimeoutError):
            async with asyncio.timeout(runs.TIME_LIMIT_S):
                await self._running.settled()

    async def _end(self) -> None:
        if self._sandbox is not None:
            await self._sandbox.close()
            self._sandbox = None

    async def _answer(self, subject: Subject, step: Step) -> Answer:
        if step.announces:
            self._running.refresh()
        warm, cold = await self._both(runs.TIME_LIMIT_S)
        if warm.timed_out != cold.timed_out:  # a busy machine, or one of them hangs
            warm, cold = await self._both(_LONG * runs.TIME_LIMIT_S)
        found, text, flaky = different(warm, cold), unlike(warm, cold), list[str]()
        if found or text:
            again = await runs.run_cold(self._running, self.project.tests)
            flaky = different(again, cold) or (
                [unlike(again, cold)] if again.text != cold.text else []
            )
            found = [] if flaky and not different(warm, again) else found
            text = "" if flaky or warm.text == again.text else text
        if step.settles:
            await self._settle()
        self._num_cold = self._num_cold + 1 if warm.level == "cold" else 0
        if self._num_cold >= _COLD_IN_A_ROW or not self._running.is_alive:
            await self._start(subject)
        return _said(self.project, self.seed, step, (warm, cold), found, text, flaky)

    async def _both(self, limit_s: float) -> tuple[Ran, Ran]:
        warm = await runs.run_warm(self._running, self.project.tests, limit_s)
        return warm, await runs.run_cold(self._running, self.project.tests, limit_s)


def _said(
    project: Project,
    seed: int,
    step: Step,
    ran: tuple[Ran, Ran],
    found: list[str],
    text: str,
    flaky: list[str],
) -> Answer:
    warm, cold = ran
    return Answer(
        project=project.name,
        seed=seed,
        index=step.index,
        kind=step.edit.kind,
        about=step.edit.about,
        level=warm.level,
        warm_ms=round(warm.took_ms, 1),
        cold_ms=round(cold.took_ms, 1),
        exit_code=cold.exit_code,
        num_tests=len(cold.tests),
        num_not_passed=sum(outcome != "passed" for outcome in cold.tests.values()),
        differences=found,
        flaky=flaky,
        text=text,
    )


def kept(path: Path) -> list[Answer]:
    """Answers of an earlier run; a line that was cut off is left out."""
    found = []
    with suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(line, type=Answer))
    return found


def split(edits: int, names: Sequence[str]) -> dict[str, int]:
    """How many edits each project gets; together at least ``edits``."""
    parts = sum(PARTS[name] for name in names)
    return {name: -(-edits * PARTS[name] // parts) for name in names}


async def check_all(
    wanted: Mapping[str, Sequence[int]], seed: int, place: Path, tell: Tell
) -> None:
    """The named projects' edits, two projects at a time, the slow ones first."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, only: Sequence[int]) -> None:
        async with free:
            await Checker(PROJECTS[name], seed, place, tell).check(only)

    async with asyncio.TaskGroup() as group:
        for name in sorted(wanted, key=lambda name: PARTS[name]):
            if wanted[name]:
                group.create_task(one(name, wanted[name]))


def report(answers: Sequence[Answer]) -> str:
    """Tables, and a line for everything that is different."""
    lines = [*shares(answers), "", *by_kind(answers), ""]
    for each in answers:
        if each.differences or each.text:
            lines += [each.line, *(f"      {line}" for line in each.text.splitlines()[:12])]
    return "\n".join(lines)


def main() -> None:
    """Exit status 1 when any verdict was different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--edits", type=int, default=600, help="of all projects together")
    parser.add_argument("--projects", nargs="+", choices=list(PROJECTS), default=list(PROJECTS))
    parser.add_argument("--only", type=int, nargs="+", help="numbers of edits of one project")
    parser.add_argument("--fresh", action="store_true", help="forget what was kept")
    options = parser.parse_args()
    path = RESULTS / f"seed-{options.seed}.jsonl"
    if options.fresh:
        path.unlink(missing_ok=True)
    numbers: dict[str, Sequence[int]] = {
        name: range(num) for name, num in split(options.edits, options.projects).items()
    }
    if options.only:
        numbers = dict.fromkeys(options.projects, options.only)
    before = [] if options.only else kept(path)
    done = {(each.project, each.index) for each in before}
    wanted = {
        name: [index for index in only if (name, index) not in done]
        for name, only in numbers.items()
    }
    answers = [each for each in before if each.index in numbers.get(each.project, ())]
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress("edits", sum(map(len, wanted.values())))
    with (
        tempfile.TemporaryDirectory(prefix="equivalence-") as place,
        open("/dev/null" if options.only else path, "ab") as file,
    ):

        def tell(answer: Answer) -> None:
            answers.append(answer)
            file.write(msgspec.json.encode(answer) + b"\n")
            file.flush()
            if answer.differences or answer.text:
                print(answer.line, file=sys.stderr, flush=True)
            progress.step(f"{answer.project} {answer.kind}")

        asyncio.run(check_all(wanted, options.seed, Path(place), tell))
    progress.end()
    print(report(answers))
    sys.exit(any(answer.differences for answer in answers))


if __name__ == "__main__":
    main()

"""A test run after an edit of a function's body: each warm level, cold, inside and outside."""

import asyncio
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.lab.processes import NotStarted
from benchmarks.lab.record import Experiment, this_machine
from benchmarks.warm.projects import PROJECTS, copy
from benchmarks.workshop.interleaved import Sample, Table, in_turn
from benchmarks.workshop.programs import CLEAN, own_version, spawn
from benchmarks.workshop.projects import PYTEST, make_project, write_edit
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox
from tightloop.trace.clock import now_ns

NAME = "workshop-tests"
COLD, COLD_INSIDE = "cold pytest", "cold pytest in our sandbox"
EDITED, SAME = "tightloop, body edited", "tightloop, nothing edited"
BARE = "tightloop, body edited, bare interpreter"
COLDER = ("spawn", "warm-pytest-l0")
"""What a command says of how it ran while nothing of the project is resident."""
NUM_SETTLING = 12
"""Runs in which a warm level must come about; what holds the modules is built between them."""
SETTLE_S = 0.5

Edit = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class Project:
    """``make`` puts it into a folder, ``edit`` changes a function's body, ``argv`` are its tests."""

    name: str
    make: Callable[[Path], Path]
    edit: Edit
    argv: Sequence[str]


_CLICK_LINE = re.compile(r"(\n        )(?:\d+; )?(self\.buffer\.append\(string\)\n)")


def make_small(folder: Path) -> Path:
    """The one that the tool calls are made in."""
    make_project(folder / "project")
    return folder / "project"


def make_click(folder: Path) -> Path:
    """A copy of the installed one. Raises FileNotFoundError when there is none."""
    folder.mkdir(parents=True)
    return copy(PROJECTS["click"], folder)


def edit_click(place: Path, number: int) -> None:
    """``HelpFormatter.write`` gets another body."""
    path = place / "src" / "click" / "formatting.py"
    text, num = _CLICK_LINE.subn(rf"\g<1>{number}; \2", path.read_text("utf-8"))
    if num != 1:
        raise NotStarted(f"HelpFormatter.write of click is not as expected: {num} such lines")
    path.write_text(text, "utf-8")


SMALL = Project("small, 20 tests", make_small, write_edit, PYTEST)
CLICK = Project(
    "click, test_formatting.py",
    make_click,
    edit_click,
    ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_formatting.py"),
)


class Runs:
    """One variant: a copy of the project and a sandbox of its own, edited before each run."""

    def __init__(self, project: Project, folder: Path, variant: str) -> None:
        self._project, self._place, self.variant = project, folder, variant
        self._sandbox: PersistentSandbox | None = None
        self._num = 0
        self.levels: Counter[str] = Counter()

    @property
    def _argv(self) -> list[str]:
        words = list(self._project.argv)
        if self.variant == BARE:
            # Its outcome depends on earlier runs, so nothing is kept ready for it but the interpreter.
            return [*(word for word in words if word not in ("-p", "no:cacheprovider")), "--lf"]
        return ["env", *words] if self.variant == COLD_INSIDE else words

    async def start(self) -> None:
        """The level is reached. Raises NotStarted when it is not."""
        self._place = await asyncio.to_thread(self._project.make, self._place)
        if self.variant == COLD:
            return
        self._sandbox = await open_sandbox(Policy(self._place), kind="bubblewrap")
        if not await self._sandbox.warm_tests_ready():
            raise NotStarted(f"no warm tests here: {self._sandbox.warm_refusal}")
        for _ in range(NUM_SETTLING if self.variant in (EDITED, SAME) else 1):
            self._edited()
            how = await self._run()
            if how not in COLDER:
                break
            await asyncio.sleep(SETTLE_S)
        else:
            if self.variant in (EDITED, SAME):
                raise NotStarted(f"nothing resident after {NUM_SETTLING} runs, the last: {how}")
        self.levels.clear()

    async def close(self) -> None:
        """The sandbox is closed."""
        if self._sandbox is not None:
            await self._sandbox.close()

    async def sample(self) -> float:
        """Edit, then run. Raises NotStarted for a failure."""
        started_ns = self._edited()
        if self.variant == COLD:
            await spawn(self._project.argv, self._place, self._environment())
        else:
            await self._run()
        return (now_ns() - started_ns) / 1e6

    def _environment(self) -> dict[str, str]:
        own = self._place / ".venv" / "bin"
        programs = own if own.is_dir() else Path(sys.executable).parent
        environment = {**CLEAN, "PATH": f"{programs}:{os.environ['PATH']}"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def _edited(self) -> int:
        if self.variant != SAME:
            self._project.edit(self._place, self._num)
            self._num += 1
        return now_ns()

    async def _run(self) -> str:
        """How it was run."""
        assert self._sandbox is not None
        result = await self._sandbox.run(Command(argv=self._argv))
        if result.exit_code:
            raise NotStarted(
                f"{self.variant}: {result.how}, exit code {result.exit_code}: {result.output[-200:]}"
            )
        self.levels[result.how] += 1
        return result.how


async def measure_project(project: Project, place: Path, rounds: int, table: Table) -> list[str]:
    """Its rows and ratios; in words, how often each level ran."""
    samples: dict[str, Sample] = {}
    runs: list[Runs] = []
    try:
        for number, variant in enumerate((COLD, COLD_INSIDE, BARE, SAME, EDITED)):
            each = Runs(project, place / str(number), variant)
            runs.append(each)
            try:
                await each.start()
            except NotStarted as error:
                table.miss(variant, str(error), project=project.name)
            else:
                samples[variant] = each.sample
        took = await in_turn(samples, rounds)
    finally:
        for each in runs:
            await each.close()
    ours = [name for name in (EDITED, SAME, BARE) if name in took]
    table.add(took, ours, project=project.name)
    return [
        f"{project.name}: {each.variant} ran as "
        + ", ".join(f"{how} {num} times" for how, num in each.levels.most_common())
        for each in runs
        if each.variant in ours
    ]


async def measure(projects: Sequence[Project], place: Path, rounds: int) -> tuple[Table, list[str]]:
    """Every project that is there; one that is not has rows that say so."""
    table, levels = Table(), []
    for number, project in enumerate(projects):
        try:
            levels += await measure_project(project, place / str(number), rounds, table)
        except (FileNotFoundError, NotStarted) as error:
            table.miss(COLD, str(error), project=project.name)
    return table, levels


def run_experiment(*, is_quick: bool) -> Experiment:
    """Measure on the small project and on click."""
    rounds = 5 if is_quick else 15
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        table, levels = asyncio.run(measure([SMALL, CLICK], Path(name), rounds))
    return Experiment(
        name=NAME,
        title="A test run after an edit of a function's body",
        settings={"quick": is_quick, "rounds": rounds},
        machine=this_machine(),
        versions={"tightloop": own_version(), "pytest": version("pytest")},
        rows=table.rows,
        ratios=table.ratios,
        notes=[
            "Every variant has a copy of the project; a body is edited before each run, another edit each"
            " time, but where nothing is edited. Cold runs may use byte code caches.",
            "The bare interpreter holds pytest and nothing of the project; here because of --lf, which"
            " nothing can be kept ready for. Its modules are imported anew.",
            *levels,
        ],
    )

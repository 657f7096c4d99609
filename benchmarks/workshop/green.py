"""Time to green with the bundled network: one attempt, attempts one after the other, a race.

For each held-out bug every mode works on a copy of its own, in random order, against one ``tightloop
serve`` over WebSocket. The time is from the user's message to the end of the turn, the final cold
check in it. Green is the verdict of a cold run of the bug's own tests outside the sandbox, whatever
the agent says.
"""

import asyncio
import math
import random
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.lab.progress import Progress
from benchmarks.lab.record import Experiment, Figure, Ratio, Row, paired_ratio, this_machine
from benchmarks.workshop.programs import own_version
from tightloop.agent import events as said
from tightloop.agent.limits import Limits
from tightloop.bench.bugs import MODULE, TESTS, Bug, choose, load_bugs, write_repository
from tightloop.bench.paths import PROMPT
from tightloop.bench.serve_process import ServeProcess
from tightloop.harness.racing.modes import RACE, RETRY, SINGLE, Wanted, open_mode
from tightloop.harness.settings import Settings
from tightloop.harness.thread import open_thread
from tightloop.sandbox import own_namespace
from tightloop.trace.clock import now_ns

NAME = "time-to-green"
NUM_BUGS, SEED = 24, 6
MODES = (Wanted(SINGLE), Wanted(RETRY, num=3), Wanted(RACE, num=3))
LIMITS = Limits(max_turns=40, wall_s=60.0)


class Silent:
    """An audience that hears nothing."""

    is_json = False

    def note(self, text: str) -> None:
        """See ``Audience``."""

    def listen(self, event: said.Event) -> None:
        """See ``Audience``."""


@dataclass(slots=True)
class Tally:
    """What one mode came to: milliseconds per bug, None where it did not become green."""

    took: list[float | None] = field(default_factory=list)
    all_ms: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @property
    def num_green(self) -> int:
        """Bugs whose tests pass now."""
        return sum(each is not None for each in self.took)


def interval(num: int, total: int) -> tuple[float, float]:
    """Of a share, 95 %, by Wilson (1927)."""
    z = 1.96
    middle = (num + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * math.sqrt(num * (total - num) / total + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


async def work(bug: Bug, wanted: Wanted, url: str, folder: Path) -> tuple[float, bool, int]:
    """Milliseconds of the turn, whether the bug's tests pass now, tokens that were written."""
    repository = folder / "repository"
    write_repository(bug, repository)
    settings = Settings(
        repo=repository, state_dir=folder / "state", server=url, limits=LIMITS, verb="bench"
    )
    async with open_thread(settings, Silent()) as thread, open_mode(thread, wanted) as mode:
        await thread.workshop.sandbox.warm_tests_ready()
        started_ns = now_ns()
        result = await mode.run_turn(PROMPT)
        took_ms = (now_ns() - started_ns) / 1e6
        text = (thread.workspace.path / MODULE).read_text("utf-8")
    is_green = await asyncio.to_thread(passes, bug, text, folder / "check")
    return took_ms, is_green, result.usage.output_tokens


def passes(bug: Bug, text: str, folder: Path) -> bool:
    """The verdict of a fresh process in a fresh folder."""
    folder.mkdir()
    (folder / MODULE).write_text(text, "utf-8")
    (folder / TESTS).write_text(bug.tests, "utf-8")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
    done = subprocess.run(argv, cwd=folder, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


async def measured(bugs: list[Bug], folder: Path) -> dict[str, Tally]:
    """All bugs in all modes."""
    tallies = {wanted.mode: Tally() for wanted in MODES}
    shuffled = random.Random(SEED)
    progress = Progress("turns", len(bugs) * len(MODES))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServeProcess("patchling", folder / "serve"))
        for number, bug in enumerate(bugs):
            for wanted in shuffled.sample(MODES, len(MODES)):
                place = folder / f"{number}-{wanted.mode}"
                took_ms, is_green, tokens = await work(bug, wanted, server.url, place)
                tally = tallies[wanted.mode]
                tally.took.append(took_ms if is_green else None)
                tally.all_ms.append(took_ms)
                tally.tokens.append(tokens)
                progress.step(f"{bug.id} {wanted.mode}")
    progress.end()
    return tallies


def name_of(wanted: Wanted) -> str:
    """As a table shows it."""
    return wanted.mode if wanted.num == 1 else f"{wanted.mode} {wanted.num}"


def run_experiment(*, is_quick: bool) -> Experiment:
    """Measure. Moves this process into a namespace of its own, for overlays as any user."""
    num_bugs = 3 if is_quick else NUM_BUGS
    bugs = choose(load_bugs(), num_bugs, SEED)
    with tempfile.TemporaryDirectory(prefix="bench-green-") as name:
        place = Path(name).resolve()
        own_namespace.enter(place / "state")
        tallies = asyncio.run(measured(bugs, place))
    rows: list[Row] = []
    ratios: list[Ratio] = []
    for wanted in MODES:
        tally = tallies[wanted.mode]
        low, high = interval(tally.num_green, num_bugs)
        share = f"{tally.num_green} of {num_bugs} [{low:.0%} {high:.0%}]"
        figures = {"turn": Figure.of(tally.all_ms, "ms")}
        if green := [each for each in tally.took if each is not None]:
            figures["to green"] = Figure.of(green, "ms")
        figures["written"] = Figure.of(tally.tokens, "tokens")
        rows.append(Row(name_of(wanted), {"green": share}, figures))
        single = tallies[SINGLE].took
        if wanted.mode != SINGLE and any(
            one is not None and other is not None
            for one, other in zip(single, tally.took, strict=True)
        ):
            ratios.append(
                paired_ratio("to green, both green", SINGLE, name_of(wanted), single, tally.took)
            )
    return Experiment(
        name=NAME,
        title="Time to green with the bundled network, by mode",
        settings={"quick": is_quick, "bugs": num_bugs, "seed": SEED},
        machine=this_machine(),
        versions={"tightloop": own_version()},
        rows=rows,
        ratios=ratios,
        notes=NOTES,
    )


NOTES = [
    "Green: a cold run of the bug's own tests outside the sandbox passes. Shares have 95 % intervals (Wilson).",
    "The bundled network tries up to eight repairs within one turn, best first; retry begins again and race has"
    " three such turns at once, all but the first drawing repairs at temperature 0.8. On two cores three"
    " candidates share what one has alone, and the network too: where the model runs elsewhere, they do not.",
]

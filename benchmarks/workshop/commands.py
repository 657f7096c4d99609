"""One command: in our sandboxes, as a plain child process, in isolation entered for it alone."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.lab.processes import NotStarted
from benchmarks.lab.record import Experiment, this_machine
from benchmarks.workshop import codex
from benchmarks.workshop.interleaved import Sample, Table, in_turn, timed
from benchmarks.workshop.programs import own_version, spawn, spawn_at_once, versions
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.pool import SandboxPool
from tightloop.sandbox.single_use import SingleUseSandbox

NAME = "workshop-commands"
ITSELF = "the command itself (posix_spawn)"
OURS = "tightloop, persistent sandbox"
OURS_BASH = "tightloop, persistent sandbox, bash"
BWRAP, CODEX = "bubblewrap per command", "codex sandbox per command"
PLAIN, POOLED = "plain subprocess (asyncio)", "tightloop, pool of single-use sandboxes"
BESIDE = (PLAIN, BWRAP, CODEX)
"""What the budget's line names beside ours."""
TRUE = ["true"]


def bubblewrap(workspace: Path) -> list[str]:
    """A line such as agents use who enter bubblewrap for each command, without seccomp."""
    return [
        *("bwrap", "--new-session", "--die-with-parent", "--unshare-user", "--unshare-pid"),
        *("--unshare-net", "--ro-bind", "/", "/", "--bind", str(workspace), str(workspace)),
        *("--dev", "/dev", "--proc", "/proc", "--chdir", str(workspace), *TRUE),
    ]


async def measure(place: Path, rounds: int, dear_rounds: int) -> Table:
    """Two series of rounds: of what is quick, and of what is dear."""
    policy = Policy(place, warm_tests=False)
    persistent = await open_sandbox(policy, kind="bubblewrap")
    single_use = SingleUseSandbox(policy, kind="bubblewrap")
    pool = SandboxPool(lambda: open_sandbox(policy, kind="bubblewrap"), size=2)
    await pool.start()
    program = str(shutil.which("true"))

    async def itself() -> None:
        spawn_at_once(program)

    itself_sample = timed(itself)
    plain = timed(lambda: spawn(TRUE, place))
    ours = timed(lambda: persistent.run(Command(argv=TRUE)))
    quick: dict[str, Sample] = {
        ITSELF: itself_sample,
        PLAIN: plain,
        "plain subprocess, bash --norc": timed(
            lambda: spawn(["bash", "--norc", "-c", "true"], place)
        ),
        OURS: ours,
        OURS_BASH: timed(lambda: persistent.run(Command(script="true"))),
        BWRAP: timed(lambda: spawn(bubblewrap(place), place)),
        "tightloop, sandbox per command": timed(lambda: single_use.run(Command(argv=TRUE))),
    }
    in_pool = timed(lambda: pool.run(Command(argv=TRUE)))

    async def pooled() -> float:
        """The pool is filled again in the time between commands, in which a model thinks."""
        await pool.filled()
        return await in_pool()

    dear: dict[str, Sample] = {
        ITSELF: itself_sample,
        OURS: ours,
        POOLED: pooled,
        "plain subprocess, login shell": timed(lambda: spawn(["bash", "-lc", "true"], place)),
    }
    table = Table()
    try:
        dear[CODEX] = timed(_codex_sandbox(place))
    except NotStarted as error:
        table.miss(CODEX, str(error))
    try:
        table.add(await in_turn(quick, rounds), [OURS], floor=ITSELF, series="quick")
        slow = await in_turn(dear, dear_rounds)
        table.add(slow, [OURS], floor=ITSELF, series="dear")
    finally:
        await persistent.close()
        await pool.close()
    return table


def _codex_sandbox(place: Path) -> Callable[[], Awaitable[bytes]]:
    home, tmp = place.parent / "codex-home", place.parent / "tmp"  # it refuses one below the other
    home.mkdir()
    tmp.mkdir()
    argv: list[str | Path] = [codex.native_program(), "sandbox", "--", *TRUE]
    environment = {"CODEX_HOME": str(home), "HOME": str(home), "TMPDIR": str(tmp)}
    environment["PATH"] = "/usr/bin:/bin"
    return lambda: spawn(argv, place, environment)


def run_experiment(*, is_quick: bool) -> Experiment:
    """Measure in a temporary workspace."""
    rounds, dear_rounds = (10, 5) if is_quick else (100, 25)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        workspace = Path(name) / "workspace"
        workspace.mkdir()
        table = asyncio.run(measure(workspace, rounds, dear_rounds))
    return Experiment(
        name=NAME,
        title="One command, `true`: sandboxes beside plain child processes",
        settings={"quick": is_quick, "rounds": rounds, "dear rounds": dear_rounds},
        machine=this_machine(),
        versions={"tightloop": own_version(), **versions("bwrap", "bash"), **codex.versions()},
        rows=table.rows,
        ratios=table.ratios,
        notes=[
            "All of a series take turns, in random order each round; dear ones have a series of their own.",
            "bubblewrap per command has neither a seccomp filter nor masks; ours has both, Landlock too.",
            "codex sandbox is Codex CLI's own program for one sandboxed command, without an agent.",
        ],
    )

"""What isolation costs: commands, workspaces and test runs, each next to its alternatives.

The variants of a comparison run in turn, round after round, so that other load on the machine
disturbs all of them alike. Prints one JSON object with median and quartiles in milliseconds, and
ratios of the rounds (median), which noise disturbs least.
Usage: ``python -m benchmarks.bench_sandbox [--rounds N]``.
"""

import argparse
import asyncio
import json
import operator
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tightloop.sandbox.interface import Command, Policy, Terminal
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.pool import SandboxPool
from tightloop.sandbox.single_use import SingleUseSandbox
from tightloop.sandbox.workspace import open_workspace
from tightloop.trace.clock import now_ns

Variant = Callable[[], Awaitable[None]]
NUM_MODULES = 20
MIN_ROUNDS = 5
PYTEST = ["python", "-m", "pytest", "-q"]


async def measure(variants: Mapping[str, Variant], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every variant in every round, after one round that does not count."""
    took: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            started_ns = now_ns()
            await variant()
            if number:
                took[name].append((now_ns() - started_ns) / 1e6)
    return took


def summary(took: dict[str, list[float]], baseline: str) -> dict[str, object]:
    """Median and quartiles of each, and its ratio to the baseline of the same round."""
    said: dict[str, object] = {}
    for name, values in took.items():
        low, middle, high = statistics.quantiles(values, n=4)
        pairs = zip(values, took[baseline], strict=True)
        said[name] = {
            "median_ms": round(middle, 3),
            "quartiles_ms": [round(low, 3), round(high, 3)],
            f"ratio_to_{baseline}": round(statistics.median(a / b for a, b in pairs), 3),
        }
    return said


async def spawn(argv: list[str], cwd: Path, environment: dict[str, str] | None = None) -> None:
    """A plain child process, its output collected."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    await process.communicate()


async def bare(program: str) -> None:
    """The command itself: started and waited for by system calls alone."""
    pid = os.posix_spawn(program, [program], os.environ)  # noqa: ASYNC221 - no loop in the figure
    os.waitpid(pid, 0)  # noqa: ASYNC222


def over_the_command(took: dict[str, list[float]], names: list[str]) -> dict[str, float]:
    """Milliseconds that each takes over the command itself: median of the rounds' differences."""
    return {
        name: round(statistics.median(map(operator.sub, took[name], took["command_itself"])), 3)
        for name in names
    }


async def bench_commands(place: Path, rounds: int) -> dict[str, object]:
    """``true``: directly, in the persistent sandbox, in isolation of its own."""
    policy = Policy(place, warm_tests=False)
    persistent = await open_sandbox(policy, kind="bubblewrap")
    single_use = SingleUseSandbox(policy, kind="bubblewrap")
    pool = SandboxPool(lambda: open_sandbox(policy, kind="bubblewrap"), size=2)
    await pool.start()
    program = str(shutil.which("true"))
    command = Command(argv=["true"])
    script = Command(script="true")
    fed = Command(argv=["true"], stdin=b"x" * 1000)
    in_terminal = Command(argv=["true"], terminal=Terminal())

    async def in_persistent() -> None:
        await persistent.run(command)

    async def in_persistent_shell() -> None:
        await persistent.run(script)

    async def in_single_use() -> None:
        await single_use.run(command)

    async def with_stdin() -> None:
        await persistent.run(fed)

    async def with_terminal() -> None:
        await persistent.run(in_terminal)

    async def one_pooled() -> None:
        await pool.run(command)

    variants = {
        "command_itself": lambda: bare(program),
        "spawn": lambda: spawn(["true"], place),
        "persistent": in_persistent,
        "persistent_bash": in_persistent_shell,
        "persistent_stdin": with_stdin,
        "persistent_terminal": with_terminal,
        "sandbox_per_command": in_single_use,
    }
    # Between two of these the pool may refill: that is work for while a model thinks.
    pooled: dict[str, Variant] = {
        "command_beside_pool": lambda: bare(program),
        "pooled": one_pooled,
        "refill": pool.filled,
    }
    # A login shell takes what the machine's profile takes, up to half a second: fewer of those.
    shells = {
        "spawn_beside_login_shell": variants["spawn"],
        "login_shell": lambda: spawn(["bash", "-lc", "true"], place),
    }
    try:
        took = await measure(variants, rounds)
        found = summary(took, "spawn")
        inside = [name for name in variants if name.startswith("persistent")]
        found["ms_over_the_command_itself"] = over_the_command(took, inside)
        found |= summary(await measure(pooled, max(MIN_ROUNDS, rounds // 3)), "command_beside_pool")
        took = await measure(shells, max(MIN_ROUNDS, rounds // 6))
        return found | summary(took, "spawn_beside_login_shell")
    finally:
        await persistent.close()
        await pool.close()


def make_repository(place: Path) -> None:
    """A committed project of some hundred files."""
    for number in range(300):
        file = place / f"package{number % 10}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"VALUE = {number}\n" * 50)
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "state"]):
        subprocess.run(["git", *identity, *arguments], cwd=place, check=True)


async def bench_workspaces(place: Path, rounds: int) -> dict[str, object]:
    """A fresh view of a repository: alone, with a command in new isolation, with a session."""
    repository, state = place / "repository", place / "state"
    await asyncio.to_thread(make_repository, repository)

    async def view(kind: str | None = None) -> None:
        workspace = await open_workspace(repository, state_dir=state, kind=kind)
        await workspace.discard()

    async def view_and_command() -> None:
        workspace = await open_workspace(repository, state_dir=state)
        policy = Policy(workspace.path, warm_tests=False)
        await SingleUseSandbox(policy, kind="bubblewrap").run(Command(argv=["true"]))
        await workspace.discard()

    async def view_and_session() -> None:
        workspace = await open_workspace(repository, state_dir=state)
        sandbox = await open_sandbox(Policy(workspace.path, warm_tests=False))
        await sandbox.run(Command(argv=["true"]))
        await sandbox.close()
        await workspace.discard()

    parent = await open_workspace(repository, state_dir=state)
    for number in range(5):
        (parent.path / f"package{number}" / f"module{number}.py").write_text("VALUE = 0\n")

    async def fork_and_command() -> None:
        [workspace] = await parent.fork()
        policy = Policy(workspace.path, warm_tests=False)
        await SingleUseSandbox(policy, kind="bubblewrap").run(Command(argv=["true"]))
        await workspace.discard()

    async def worktree() -> None:
        tree = str(place / "tree")
        await spawn(["git", "worktree", "add", "-q", "--detach", tree], repository)
        await spawn(["git", "worktree", "remove", "--force", tree], repository)

    variants: dict[str, Variant] = {
        "worktree": worktree,
        "view": view,
        "view_and_command_in_new_sandbox": view_and_command,
        "fork_of_five_changes_and_command_in_new_sandbox": fork_and_command,
        "view_and_session_and_command": view_and_session,
    }
    copies: dict[str, Variant] = {
        "worktree_beside_copy": worktree,
        "view_copied": lambda: view("copy"),
    }
    took = await measure(copies, max(MIN_ROUNDS, rounds // 3))
    found = summary(await measure(variants, rounds), "worktree")
    await parent.discard()
    return found | summary(took, "worktree_beside_copy")


def make_project(place: Path) -> None:
    """A small package with tests that import all of it."""
    package = place / "subject"
    package.mkdir(parents=True)
    for number in range(NUM_MODULES):
        lines = [f"def f{i}(x):\n    return x + {i}\n" for i in range(40)]
        (package / f"m{number}.py").write_text("\n".join(lines))
    names = ", ".join(f"m{number}" for number in range(NUM_MODULES))
    (package / "__init__.py").write_text(f"from subject import {names}\n")
    (place / "test_subject.py").write_text(
        "import subject, pytest\n\n@pytest.mark.parametrize('i', range(20))\n"
        "def test_sum(i):\n    assert subject.m0.f1(i) == i + 1\n"
    )
    (place / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")


async def bench_tests(place: Path, rounds: int) -> dict[str, object]:
    """pytest: cold outside with every byte code cache, cold inside, and warm inside."""
    project = place / "project"
    await asyncio.to_thread(make_project, project)
    sandbox = await open_sandbox(Policy(project), kind="bubblewrap")
    if not await sandbox.warm_tests_ready():
        raise SystemExit(f"no warm tests here: {sandbox.warm_refusal}")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    async def inside(argv: list[str], how: str) -> None:
        result = await sandbox.run(Command(argv=argv))
        if not result.how.startswith(how) or result.exit_code:
            raise SystemExit(f"{result.how}, exit code {result.exit_code}: {result.output}")

    variants = {
        "cold_outside": lambda: spawn(PYTEST, project, environment),
        "cold_inside": lambda: inside(["env", *PYTEST], "spawn"),
        "warm": lambda: inside(PYTEST, "warm-pytest"),
    }
    try:
        return summary(await measure(variants, rounds), "cold_outside")
    finally:
        await sandbox.close()


async def main() -> None:
    """Run all three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=50, help="rounds for single commands; slow ones get fewer"
    )
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        place = Path(name)
        result = {
            "benchmark": "sandbox",
            "commands": await bench_commands(place, rounds),
            "workspaces": await bench_workspaces(place, max(MIN_ROUNDS, rounds // 3)),
            "tests": await bench_tests(place, max(MIN_ROUNDS, rounds // 6)),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    asyncio.run(main())

"""What isolation costs: commands, workspaces and test runs, each next to its alternatives.

The variants of a comparison run in turn, round after round, so that other load on the machine
disturbs all of them alike. Prints one JSON object with median and quartiles in milliseconds, and
ratios of the rounds (median), which noise disturbs least.
Usage: ``python -m benchmarks.bench_sandbox [--rounds N]``.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
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


async def bench_commands(place: Path, rounds: int) -> dict[str, object]:
    """``true``: directly, in the persistent sandbox, in isolation of its own."""
    policy = Policy(place, warm_tests=False)
    persistent = await open_sandbox(policy, kind="bubblewrap")
    single_use = SingleUseSandbox(policy, kind="bubblewrap")
    command = Command(argv=["true"])
    script = Command(script="true")

    async def in_persistent() -> None:
        await persistent.run(command)

    async def in_persistent_shell() -> None:
        await persistent.run(script)

    async def in_single_use() -> None:
        await single_use.run(command)

    variants = {
        "spawn": lambda: spawn(["true"], place),
        "persistent": in_persistent,
        "persistent_bash": in_persistent_shell,
        "sandbox_per_command": in_single_use,
    }
    # A login shell takes what the machine's profile takes, up to half a second: fewer of those.
    shells = {
        "spawn_beside_login_shell": variants["spawn"],
        "login_shell": lambda: spawn(["bash", "-lc", "true"], place),
    }
    try:
        found = summary(await measure(variants, rounds), "spawn")
        took = await measure(shells, max(MIN_ROUNDS, rounds // 6))
        return found | summary(took, "spawn_beside_login_shell")
    finally:
        await persistent.close()


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

    async def worktree() -> None:
        tree = str(place / "tree")
        await spawn(["git", "worktree", "add", "-q", "--detach", tree], repository)
        await spawn(["git", "worktree", "remove", "--force", tree], repository)

    variants: dict[str, Variant] = {
        "worktree": worktree,
        "view": view,
        "view_and_command_in_new_sandbox": view_and_command,
        "view_and_session_and_command": view_and_session,
    }
    copies: dict[str, Variant] = {
        "worktree_beside_copy": worktree,
        "view_copied": lambda: view("copy"),
    }
    took = await measure(copies, max(MIN_ROUNDS, rounds // 3))
    found = summary(await measure(variants, rounds), "worktree")
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
        if (result.how, result.exit_code) != (how, 0):
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

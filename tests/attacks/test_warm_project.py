"""W5 to W8: what a project leaves for whoever comes later, and what runs ahead of anybody's word."""

import asyncio
import importlib.util
import json
import os
import py_compile
from pathlib import Path
from typing import Any

import pytest

from tests.agent.bench_rig import FILES, bench_over
from tests.attacks.attack import BACKENDS, CONTROL, by_test
from tests.sandbox.conftest import commit, git, plain_environment
from tests.sandbox.warm.test_confinement import start_outside
from tightloop.cli.main import main
from tightloop.sandbox import environments
from tightloop.sandbox.bases import TreeState, make_base, tree_state
from tightloop.sandbox.environments import make_environment
from tightloop.sandbox.interface import Command, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.set_up import SetUp
from tightloop.sandbox.warm.confinement import REFUSAL
from tightloop.sandbox.workspace import open_workspace

pytestmark = pytest.mark.slow

WARM = "python -m pytest -q -p no:cacheprovider"
ALL = pytest.mark.parametrize("kind", BACKENDS)


def poison(name: str, outside: Path) -> str:
    """Python text that says where it was run: in the host's place, or in its own directory."""
    return (
        "import os\n"
        f"for place in ({str(outside)!r}, os.environ.get('PWD', '.')):\n"
        "    try:\n"
        f"        open(os.path.join(place, 'ran-{name}'), 'w').close()\n"
        "    except OSError:\n"
        "        pass\n"
    )


def poisoned_project(place: Path, outside: Path) -> None:
    """A repository in which whatever Python or pytest reads by itself is a trap."""
    place.mkdir()
    plain_environment(place)
    packages = next((place / ".venv" / "lib").glob("*/site-packages"))
    (packages / "sitecustomize.py").write_text(poison("sitecustomize", outside))
    (packages / "trap.py").write_text(poison("pth", outside))
    (packages / "trap.pth").write_text("import trap\n")
    (place / "conftest.py").write_text(poison("conftest", outside))
    (place / "plugin.py").write_text(poison("plugin", outside))
    (place / "pytest.ini").write_text("[pytest]\naddopts = -p plugin\n")
    (place / "subject.py").write_text(poison("pyc", outside))
    cached = Path(importlib.util.cache_from_source(str(place / "subject.py")))
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # believed whatever the source says
    py_compile.compile(str(place / "subject.py"), str(cached), invalidation_mode=mode)
    (place / "subject.py").write_text("# nothing\n")
    (place / "test_it.py").write_text("import subject\n\n\ndef test_it():\n    pass\n")
    python = place / ".venv" / "bin" / "python"
    real = os.path.realpath(python)
    python.unlink()
    places = f"'{outside}' \"$PWD\""
    python.write_text(
        f'#!/bin/bash\nfor d in {places}; do touch "$d/ran-python"; done 2>/dev/null\n'
        f'exec -a "$0" {real} "$@"\n'
    )
    python.chmod(0o755)
    (place / ".gitignore").write_text(".venv\n")
    git(place, "init", "-q", "-b", "main")
    git(place, "add", "-A", "-f", "__pycache__")
    commit(place)


TRAPS = {"conftest", "plugin", "python", "pth", "sitecustomize", "pyc"}


@pytest.mark.parametrize("kind", [*BACKENDS, CONTROL])
@by_test(
    "W5",
    "a poisoned `__pycache__`, `sitecustomize`, `conftest` or interpreter of the project",
    "run inside only",
)
def test_nothing_of_the_project_runs_outside(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the agent itself, from its start to the diff; the control runs them outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    project = tmp_path / "project"
    poisoned_project(project, outside)
    runs = [{"name": "exec_command", "arguments": {"cmd": cmd}} for cmd in (WARM, f"env {WARM}")]
    script = tmp_path / "script.json"
    answers: list[list[dict[str, Any]]] = [[{"call": call}] for call in runs]
    script.write_text(json.dumps({"answers": [*answers, [{"text": "Done."}]]}))
    words = ["exec", "test", "--repo", str(project), "--state-dir", str(tmp_path / "state")]
    assert main([*words, "--model", f"scripted:{script}", "--sandbox", kind]) == 0
    diff = capfd.readouterr().out
    inside = {name for name in TRAPS if f"ran-{name}" in diff}
    ran_outside = {path.name.removeprefix("ran-") for path in outside.iterdir()}
    assert inside == TRAPS
    assert ran_outside >= TRAPS if kind == CONTROL else ran_outside == set()
    assert not list(project.rglob("ran-*"))


@by_test("W6", "a resident process outside of a sandbox", "refuses to start")
def test_a_resident_process_outside_refuses(tmp_path: Path) -> None:
    """The control: it starts, told that nothing is confined."""
    assert start_outside(tmp_path) == {"state": "refused", "reason": REFUSAL}
    assert start_outside(tmp_path, "unconfined")["state"] != "refused"


EFFECTS = (
    "echo changed > tracked; rm deleted; echo new > created; mkdir -p a/b; echo x > a/b/c;"
    " chmod 600 mode; ln -s /etc/passwd link; echo x > .git/HEAD; git gc -q 2>/dev/null; true"
)


@ALL
@by_test("W7", "a command that is run ahead and changes files", "gone with its layer")
async def test_what_runs_ahead_in_a_fork_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """The control: the same command in the workspace itself."""
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("tracked", "deleted", "mode"):
        (repository / name).write_text("before\n")
    git(repository, "init", "-q", "-b", "main")
    commit(repository)
    before = _state(repository)
    async with asyncio.timeout(60):
        workspace = await open_workspace(repository, state_dir=tmp_path / "state")
        try:
            unchanged = _state(workspace.path)
            (fork,) = await workspace.fork()
            await _run_in(fork.path, kind, EFFECTS)
            assert set(await fork.changed_files()) >= {"tracked", "deleted", "created", "a/b/c"}
            path = fork.path
            await fork.discard()
            assert (_state(workspace.path), await workspace.changed_files()) == (unchanged, [])
            assert not path.exists()
            await _run_in(workspace.path, kind, EFFECTS)
            assert "created" in await workspace.changed_files()
        finally:
            await workspace.discard()
    assert _state(repository) == before


async def test_tests_that_run_ahead_leave_nothing(tmp_path: Path) -> None:
    """W7, as the agent does it: nothing shows before somebody asks for that run; then it is real."""
    effects = "echo x > tracked\nrm -f deleted\ntouch new /tmp/w7\nexit 0\n"
    files = {**FILES, "tracked": "before\n", "deleted": "before\n"}
    look = Command(script="cat tracked; ls deleted new /tmp/w7")
    async with bench_over(tmp_path, files) as rig:
        await rig.run()
        rig.change("m", effects)
        before = _state(rig.workspace.path)
        await rig.bench.quiet()
        assert _state(rig.workspace.path) == before
        seen = await rig.sandbox.run(look)
        assert seen.output.startswith("before\n")
        assert "deleted\n" in seen.output
        assert seen.output.count("No such file") == 2
        assert (await rig.run()).how == "spawn"
        assert "x\n" in (await rig.sandbox.run(look)).output
        assert set(await rig.workspace.changed_files()) >= {"tracked", "deleted", "new", "m"}
        (one,) = await rig.tries()
        assert not one.is_used
        assert one.ended_ns > one.started_ns


async def _run_in(place: Path, kind: str, script: str) -> None:
    sandbox = await open_sandbox(Policy(place, warm_tests=False), kind=kind)
    try:
        assert (await sandbox.run(Command(script=script))).exit_code == 0
    finally:
        await sandbox.close()


def _state(place: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(place)): (
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() and not path.is_symlink() else b"",
        )
        for path in place.rglob("*")
    }


@by_test("W8", "two states whose keys begin alike", "each gets its own: whole keys count")
async def test_keys_that_begin_alike_are_two_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For bases and environments; the control is that equal keys do share."""
    state_dir = tmp_path / "state"
    keys = {"one": "a" * 63 + "1", "two": "a" * 63 + "2", "again": "a" * 63 + "1"}

    def key_of(state: TreeState) -> str:
        return keys[state.repository.parent.name]

    monkeypatch.setattr(TreeState, "key", property(key_of))
    monkeypatch.setattr(environments, "environment_key", lambda _set_up, state: key_of(state))
    found: dict[str, tuple[Path, str]] = {}
    for name in keys:
        repository = tmp_path / name / "project"
        repository.mkdir(parents=True)
        (repository / "file").write_text(name)
        state = tree_state(repository, exclude=state_dir)
        base = make_base(state, state_dir / "bases")
        set_up = SetUp(commands=(f"echo {name} > made",))
        record, _ = await make_environment(
            state, base, state_dir, set_up, {}, isolation="bubblewrap"
        )
        made = state_dir / "environments" / record.directory / "view" / "project" / "made"
        found[name] = (base, made.read_text().strip())
    assert [said for _, said in found.values()] == ["one", "two", "one"]
    assert found["one"][0] == found["again"][0] != found["two"][0]
    assert (found["two"][0] / "file").read_text() == "two"

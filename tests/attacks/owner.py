"""The process that owns the sandboxes of one setting: ``python -m tests.attacks.owner``.

Reads ``{"user", "place", "names"}`` from stdin, as JSON. For the control and for each backend it lays a new
ground, runs the probes that are named, then looks at what is left on the host. Prints a JSON
object by backend: ``outcomes`` by name, ``left`` with what should not be there, or ``error``.
"""

import asyncio
import contextlib
import ctypes
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from tests.attacks import catalog
from tests.attacks.attack import BACKENDS, CONTROL, Inside, Outside, Probe
from tests.attacks.ground import PYTHON, TESTS, Ground, ground_for
from tests.attacks.inside import program
from tightloop.sandbox import layers, own_namespace
from tightloop.sandbox.interface import Command, SandboxError

_PR_SET_CHILD_SUBREAPER = 36
_OUTSIDE_LIMIT_S = 60.0


async def attack(backend: str, user: str, place: str, probes: dict[str, Probe]) -> dict[str, Any]:
    """What came of the probes with one backend, and what it left behind."""
    try:
        async with ground_for(backend, user, place) as ground, contextlib.AsyncExitStack() as stack:
            for prop in catalog.props():
                ground.values |= stack.enter_context(prop(ground))
            before = _state(ground)
            ground.shared = await ground.open()
            outcomes = await _outcomes(ground, probes)
            await ground.sandbox.close()
            outcomes = {
                name: _with_trace(ground, probes[name], outcome)
                for name, outcome in outcomes.items()
            }
            left = [] if backend == CONTROL else _changed(before, _state(ground))
    except SandboxError as error:
        return {"error": str(error)}
    await asyncio.to_thread(layers.remove_tree, ground.root)
    left += [f"process {pid}" for pid in _children()]
    left += _mounts(ground.root)
    return {"outcomes": outcomes, "left": left}


async def _outcomes(ground: Ground, probes: dict[str, Probe]) -> dict[str, str]:
    inside = {name: probe for name, probe in probes.items() if not _is_outside(probe)}
    outcomes = await _run_inside(ground, inside) if inside else {}
    for name, probe in probes.items():
        if _is_outside(probe):
            outcomes[name] = await _run_outside(ground, cast(Outside, probe.run))
    return outcomes


def _is_outside(probe: Probe) -> bool:
    return inspect.iscoroutinefunction(probe.run)


async def _run_inside(ground: Ground, probes: dict[str, Probe]) -> dict[str, str]:
    functions = {name: cast(Inside, probe.run) for name, probe in probes.items()}
    plan = [[name, run.__module__, run.__name__] for name, run in functions.items()]
    argv = [PYTHON, "-I", "-S", "-B", program.__file__, str(TESTS.parent)]
    command = Command(argv=argv, stdin=json.dumps([ground.values, plan]).encode(), timeout_s=120.0)
    result = await ground.sandbox.run(command)
    try:
        outcomes: dict[str, str] = json.loads(result.output.rpartition("\n")[2])
    except ValueError:
        text = f"the probes ended with {result.exit_code}: {result.output[-500:]}"
        return dict.fromkeys(probes, text)
    return outcomes


async def _run_outside(ground: Ground, run: Outside) -> str:
    try:
        async with asyncio.timeout(_OUTSIDE_LIMIT_S):
            return await run(ground)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _with_trace(ground: Ground, probe: Probe, outcome: str) -> str:
    if probe.trace is None:
        return outcome
    is_there = os.path.lexists(probe.trace(ground))
    if outcome == "ok":
        return "ok" if is_there else "private"
    return f"escaped, after {outcome}" if is_there else outcome


def _state(ground: Ground) -> dict[str, str]:
    """What the host's part of the ground looks like: names, kinds, rights, times and contents."""
    places = [ground.outside, ground.closed, ground.home]
    if ground.view is not None:
        places.append(ground.repository)
    found: dict[str, str] = {str(ground.root): " ".join(sorted(os.listdir(ground.root)))}
    for place in places:
        for path in (place, *place.rglob("*")):
            about = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path)] = f"{about.st_mode:o} {about.st_mtime_ns} {content!r}"
    return found


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    different = {path for path in before | after if before.get(path) != after.get(path)}
    return [f"file {path}" for path in sorted(different)]


def _children() -> Iterable[int]:
    """Orphans come to this process, so that whatever an attack left behind is found here."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _mounts(root: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [f"mount {line}" for line in lines if str(root) in line]


def main() -> None:
    """One setting, the control first."""
    request = json.load(sys.stdin)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if request["place"] == "overlay":
        with tempfile.TemporaryDirectory() as state:
            reason = own_namespace.enter(Path(state))
        if reason:
            sys.exit(
                f"no overlay for {request['user']}: {reason}; 'tightloop doctor' names the fix"
            )
    known = catalog.probes()
    probes = {name: known[name] for name in request["names"]}
    answers = {
        backend: asyncio.run(attack(backend, request["user"], request["place"], probes))
        for backend in (CONTROL, *BACKENDS)
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()

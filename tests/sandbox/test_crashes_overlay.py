"""Crashes over overlay workspaces: whoever is killed, and whenever, as root and as an ordinary user.

No process is left, no mount, no change in the user's checkout, and the next start finds its way.
"""

import os
import select
from pathlib import Path

import pytest

from tests.sandbox.ordinary import place, run, start
from tests.sandbox.test_crashes import descendants, tree, watch

__all__ = ["place"]

WHO = pytest.mark.parametrize("is_root", [False, True], ids=["ordinary", "root"])
KINDS = pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
EVERY_STEP = """
from tests.sandbox.kills import STEPS, is_killed
from tightloop.sandbox.slots import Slot

async def life():
    workspace = await open_workspace(repository, state_dir=state, kind="overlay")
    (workspace.path / "lines").write_text("changed")
    [fork] = await workspace.fork()
    slot = Slot(state, "repo")
    slot.show(Policy(workspace.path, is_read_only=True))
    slot.show(Policy(fork.path))
    (slot.path / "new").write_text("new")
    slot.withdraw()
    slot.close()
    await workspace.take(fork)
    await fork.discard()
    await workspace.discard()

def work():
    assert own_namespace.enter(state) == ""
    asyncio.run(life())

def files(place):
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

before, step = files(repository), 0
while is_killed(step, work, STEPS - {"open", "os.chmod", "os.utime"}):
    assert str(state) not in Path("/proc/self/mountinfo").read_text(), step
    assert files(repository) == before, step
    step += 1
assert step > 30, step
print(step, "steps", file=sys.stderr)
for name in ("workspaces", "tightloop-slots"):
    assert os.listdir(state / name) == [], name
print("done")
"""
WAITING_TEST = """
import subject

def test_f():
    with open("mode") as file:
        mode = file.read()
    if mode == "wait":
        with open("reached", "wb") as reached:
            reached.write(b"x")
        with open("gate", "rb", buffering=0) as gate:
            gate.read(1)
    assert subject.f() == 1 and mode != "fail"
"""


def ended(pidfds: list[int]) -> None:
    """Every process has ended; the test's time limit is the only one."""
    for fd in pidfds:
        select.select([fd], [], [])
        os.close(fd)


@pytest.mark.slow
@WHO
def test_killing_the_agent_at_every_step_of_a_workspace(place: Path, is_root: bool) -> None:
    """Open, fork, slot, take, discard: before each step that touches the file system or a mount."""
    done = run(place, EVERY_STEP, is_root=is_root)
    assert done.stdout == "done\n", done.stderr


@WHO
@KINDS
@pytest.mark.parametrize("step", ["beginnings", "everything", "endings"])
def test_killing_the_agent_ends_all_that_it_had(
    place: Path, kind: str, step: str, is_root: bool
) -> None:
    """Sandboxes, twins and candidates with commands and daemons; the next agent cleans up."""
    before = tree(place / "repo")
    with start(place, ["-m", "tests.sandbox.workshop", kind, step], is_root=is_root) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == f"{step}\n", agent.communicate()
        pidfds = watch(descendants(agent.pid))
        agent.kill()
        agent.communicate()
    ended(pidfds)
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
    assert tree(place / "repo") == before
    with start(
        place, ["-m", "tests.sandbox.workshop", kind, "nothing"], is_root=is_root
    ) as next_one:
        said, errors = next_one.communicate()
    assert said == "done\n", errors


@WHO
@KINDS
def test_killing_a_part_harms_nothing_else(place: Path, kind: str, is_root: bool) -> None:
    """The exec server and the first process, idle and at work, also while a fork is in it."""
    before = tree(place / "repo")
    with start(place, ["-m", "tests.sandbox.workshop", kind, "parts"], is_root=is_root) as agent:
        said, errors = agent.communicate()
    assert said == "done\n", errors
    assert tree(place / "repo") == before
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.slow
@KINDS
def test_killing_a_warm_process_leaves_the_verdict_true(place: Path, kind: str) -> None:
    """Whichever level it holds, in the middle of a run."""
    (place / "repo" / "subject.py").write_text("def f():\n    return 1\n")
    (place / "repo" / "test_subject.py").write_text(WAITING_TEST)
    with start(place, ["-m", "tests.sandbox.workshop", kind, "warm parts"], is_root=True) as agent:
        said, errors = agent.communicate()
    assert said == "done\n", errors

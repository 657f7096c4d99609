"""Sandboxes that get their workspace late, as root and as an ordinary user."""

import ast
from pathlib import Path

import pytest

from tests.sandbox.ordinary import place, run

__all__ = ["place"]

WHO = pytest.mark.parametrize("is_root", [False, True], ids=["ordinary", "root"])
MAIN = """
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.slots import open_twin

async def said(sandbox, script):
    return (await sandbox.run(Command(script=script + " 2>&1"))).output

def below(place):
    return [line for line in open("/proc/self/mountinfo") if str(place) in line]

async def with_twin(work, **fields):
    workspace = await open_workspace(repository, state_dir=state, kind="overlay")
    twin = await open_twin(workspace, Policy(workspace.path, warm_tests=False, **fields))
    [fork] = await workspace.fork()
    try:
        await work(workspace, twin, fork)
    finally:
        await twin.close()
        for one in (fork, workspace):
            await one.discard()
    assert below(state) == [], below(state)
    assert os.listdir(state / "tightloop-slots") == []

def go(work, **fields):
    assert own_namespace.enter(state) == ""
    asyncio.run(with_twin(work, **fields))
    print("done")
"""
HAMMER = """
import os, sys
while True:
    os.chdir(sys.argv[1])  # the mount of now
    for name in (".git/config", "kept"):
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_APPEND))
            print("OPENED", name, flush=True)
        except OSError:
            pass
    print("fork" if os.path.exists("is fork") else "idle", flush=True)
"""


def ran(place: Path, script: str, *, is_root: bool) -> None:
    """The script ends with its last word, and no mount is left."""
    done = run(place, MAIN + script, is_root=is_root)
    assert done.stdout == "done\n", done.stderr
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


@WHO
def test_a_fork_appears_at_the_path_of_its_workspace(place: Path, is_root: bool) -> None:
    """Outside and inside see the same files, also those of later; afterwards it is gone."""
    script = """
async def work(workspace, twin, fork):
    (workspace.path / "lines").write_text("the workspace's")
    assert "the workspace's" == await said(twin.sandbox, "cat lines")
    assert "Read-only" in await said(twin.sandbox, "rm lines")
    (fork.path / "lines").write_text("the fork's")
    async with twin.on(fork) as sandbox:
        assert await said(sandbox, "pwd; cat lines") == f"{workspace.path}\\nthe fork's"
        (fork.path / "later").write_text("later")
        assert "later" == await said(sandbox, "cat later; rm gone; echo x > made")
    assert await fork.changed_files() == ["gone", "later", "lines", "made"]
    assert await workspace.changed_files() == ["lines"]
    assert (await said(twin.sandbox, "ls")).split() == ["gone", "lines"]
go(work)
"""
    ran(place, script, is_root=is_root)


@WHO
def test_what_is_protected_is_never_writable(place: Path, is_root: bool) -> None:
    """A process that tries from before the mount until its end does not succeed once."""
    script = """
async def hammered(twin, workspace, fork):
    heard, states = [], {"idle": asyncio.Event(), "fork": asyncio.Event()}
    def listen(piece):
        heard.append(piece)
        for name, event in states.items():
            if name.encode() in piece:
                event.set()
    hammer = ["python3", "-c", HAMMER, str(workspace.path)]
    task = asyncio.create_task(twin.sandbox.run(Command(argv=hammer), listen))
    await states["idle"].wait()
    async with twin.on(fork) as sandbox:
        await states["fork"].wait()
        tried = "echo x >> .git/config; echo x >> kept; rm .git/config; mv kept k; mv .git g"
        out = await said(sandbox, tried + "; echo x > free")
        assert (out.count("Read-only file system"), out.count("busy")) == (2, 3), out
    await task
    assert b"OPENED" not in b"".join(heard), heard

async def work(workspace, twin, fork):
    (fork.path / "kept").write_text("policy's own")
    (fork.path / "is fork").write_text("")
    for _ in range(5):
        await hammered(twin, workspace, fork)
    (fork.path / "kept").write_text("outside it is not")
    assert (fork.path / "free").read_text() == "x\\n"
go(work, protected=(Path("kept"),))
"""
    ran(place, f"HAMMER = {HAMMER!r}\n{script}", is_root=is_root)


@WHO
def test_nothing_of_one_use_is_there_in_the_next(place: Path, is_root: bool) -> None:
    """Processes, also those that hide; files in private places; commands still under way."""
    script = """
async def work(workspace, twin, fork):
    async with twin.on(fork) as sandbox:
        await said(sandbox, "mkdir -p /tmp/a/b $HOME/c /dev/shm/d; chmod 0 /tmp/a")
        hidden = "env -i setsid sh -c 'sleep 600; echo' & trap '' TERM; echo $$; sleep 600"
        started = asyncio.Event()
        running = await sandbox.begin(Command(script=hidden), lambda piece: started.set())
        await started.wait()
    assert (await running.wait()).exit_code == -9
    [other] = await workspace.fork()
    async with twin.on(other) as sandbox:
        assert await said(sandbox, "ls -A /tmp /dev/shm $HOME | grep '^[abcd]$'") == ""
        assert await said(sandbox, "cat /proc/[0-9]*/comm | grep sleep") == ""
    await other.discard()
    async with twin.on(fork) as sandbox:
        await said(sandbox, "rm /dev/fd")
    assert not twin.is_alive
    try:
        async with twin.on(fork):
            raise AssertionError("it was used again")
    except SandboxError as error:
        assert "open another" in str(error), error
go(work)
"""
    ran(place, script, is_root=is_root)


@WHO
def test_other_sandboxes_see_nothing_of_it(place: Path, is_root: bool) -> None:
    """Neither one opened before nor one opened meanwhile finds a file of a fork anywhere."""
    script = """
async def work(workspace, twin, fork):
    policy = Policy(workspace.path, warm_tests=False)
    before = await open_sandbox(policy, kind="bubblewrap")
    (fork.path / "only here").write_text("")
    async with twin.on(fork) as sandbox:
        meanwhile = await open_sandbox(policy, kind="bubblewrap")
        for one in (before, meanwhile, sandbox):
            found = await said(one, f"find {state} -name 'only here'")
            assert found == (f"{workspace.path}/only here\\n" if one is sandbox else ""), found
        for one in (before, meanwhile):
            await one.close()
go(work)
"""
    ran(place, script, is_root=is_root)


@WHO
def test_what_is_no_fork_is_refused(place: Path, is_root: bool) -> None:
    """A workspace over another state, a copy; the sandbox goes on."""
    script = """
async def work(workspace, twin, fork):
    (repository / "new").write_text("another state")
    other = await open_workspace(repository, state_dir=state)
    copy = await open_workspace(repository, state_dir=state, kind="copy")
    for wrong in (other, copy):
        try:
            async with twin.on(wrong):
                raise AssertionError("it was taken")
        except SandboxError as error:
            assert "is not a fork" in str(error), error
        await wrong.discard()
    try:
        await open_twin(copy, Policy(copy.path))
        raise AssertionError("a copy was taken")
    except SandboxError as error:
        assert "needs an overlay: asked for" in str(error), error
    async with twin.on(fork) as sandbox:
        assert (await sandbox.run(Command(argv=["true"]))).exit_code == 0
go(work)
"""
    ran(place, script, is_root=is_root)


@pytest.mark.slow
def test_the_warm_process_serves_one_fork_after_another(place: Path) -> None:
    """What it has imported stays good for files that no fork has touched, and only for those.

    The second fork runs where the first one's modules are, its own change swapped in.
    """
    script = """
(repository / "subject.py").write_text("def f():\\n    return 1\\n\\ndef g():\\n    return 2\\n")
(repository / "test_subject.py").write_text(
    "import subject\\n\\ndef test_f():\\n    assert subject.f() == 1\\n"
    "\\ndef test_g():\\n    assert subject.g() == 2\\n")
tests = Command(argv=["python", "-m", "pytest", "-q", "-p", "no:cacheprovider"])

async def main():
    workspace = await open_workspace(repository, state_dir=state, kind="overlay")
    policy = Policy(workspace.path, environment={"PATH": os.path.dirname(sys.executable) + ":/usr/bin:/bin"})
    twin = await open_twin(workspace, policy)
    assert await twin.sandbox.warm_tests_ready(), twin.sandbox.warm_refusal
    seen = []
    for edit in (None, None, "return 2", "return 3", None):
        [fork] = await workspace.fork()
        if edit:
            text = (fork.path / "subject.py").read_text()
            (fork.path / "subject.py").write_text(text.replace("return 2", edit + "  # edited"))
        async with twin.on(fork) as sandbox:
            result = await sandbox.run(tests)
            seen.append((result.how, result.exit_code))
            await sandbox.settled()
        await fork.discard()
    await twin.close()
    await workspace.discard()
    print(seen)
assert own_namespace.enter(state) == ""
asyncio.run(main())
"""
    done = run(place, MAIN + script, is_root=True)
    runs = ast.literal_eval(done.stdout)
    assert [code for _, code in runs] == [0, 0, 0, 1, 0], done.stderr
    levels = [how.removeprefix("warm-pytest-").partition("-")[0] for how, _ in runs]
    assert levels[0] == "l0"
    assert {levels[1], levels[4]} <= {"l1", "l2"}
    assert levels[2:4] == ["swap", "swap"]


def test_a_slot_is_never_taken_for_one_that_was_left(place: Path) -> None:
    """It has no lock at first; whoever looks for left-overs holds the state's lock, so it does, too."""
    script = """
from tightloop.sandbox import locks, slots
state.mkdir()
seen = []
acquire = locks.acquire
def looking(path, *, wait=True):
    if path.parent.parent.name == "tightloop-slots":
        seen.append(acquire(state / "lock", wait=False))
    return acquire(path, wait=wait)
assert own_namespace.enter(state) == ""
locks.acquire = looking
slots.Slot(state, "name").close()
assert seen == [None], seen
print("done")
"""
    ran(place, script, is_root=True)


def test_a_live_workspace_is_shown_without_following_its_links(place: Path) -> None:
    """A command of its own sandbox puts one where something protected is, right after the look."""
    script = """
from tightloop.sandbox import places
elsewhere = Path("elsewhere").absolute()
elsewhere.mkdir()
found = places.protected_paths
def then_exchanged(policy):
    paths = found(policy)
    kept = policy.workspace / "kept"
    if not kept.is_symlink() and os.access(kept, os.W_OK):
        kept.rmdir()
        kept.symlink_to(elsewhere)
    return paths

async def main():
    workspace = await open_workspace(repository, state_dir=state, kind="overlay")
    (workspace.path / "kept").mkdir()
    places.protected_paths = then_exchanged
    policy = Policy(workspace.path, warm_tests=False, protected=(workspace.path / "kept",))
    try:
        await (await open_twin(workspace, policy)).close()
    except SandboxError as error:
        print(error, file=sys.stderr)
    assert below(elsewhere) == [], below(elsewhere)
    (elsewhere / "file").write_text("")
    await workspace.discard()
    print("done")
assert own_namespace.enter(state) == ""
asyncio.run(main())
"""
    ran(place, script, is_root=True)


@WHO
def test_cancelled_twice_it_is_cleared_all_the_same(place: Path, is_root: bool) -> None:
    """Nothing of the use is there in the next one."""
    script = """
async def work(workspace, twin, fork):
    inside = asyncio.Event()
    async def use():
        async with twin.on(fork) as sandbox:
            await said(sandbox, "echo x > /tmp/left")
            inside.set()
            await asyncio.Event().wait()
    cleared, clear = [], twin.sandbox.clear
    async def clearing():
        await clear()
        cleared.append(True)
    twin.sandbox.clear = clearing
    task = asyncio.create_task(use())
    await inside.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    assert cleared == [True]
    [other] = await workspace.fork()
    async with twin.on(other) as sandbox:
        assert await said(sandbox, "ls /tmp/left") != "/tmp/left\\n"
    await other.discard()
go(work)
"""
    ran(place, script, is_root=is_root)

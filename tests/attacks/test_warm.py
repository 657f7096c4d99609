"""W1 to W4: warm processes. Each has to be as if it had been started for one run alone."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.attacks.attack import BACKENDS, CONTROL, by_test
from tests.sandbox.conftest import plain_environment
from tightloop.sandbox.interface import Command, CommandResult, Policy
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.session import PersistentSandbox

pytestmark = pytest.mark.slow

WARM = "python -m pytest -q -p no:cacheprovider"
ALL = pytest.mark.parametrize("kind", BACKENDS)
_MAX_COLD = 3


async def opened(workspace: Path, kind: str) -> PersistentSandbox:
    """A sandbox with a resident interpreter that is ready."""
    if not (workspace / ".venv").exists():
        plain_environment(workspace)
        (workspace / "pytest.ini").write_text("[pytest]\n")
    sandbox = await open_sandbox(Policy(workspace), kind=kind)
    assert await sandbox.warm_tests_ready(), sandbox.warm_refusal
    return sandbox


@pytest.fixture
def place() -> Iterator[Path]:
    """Not ``tmp_path``: the pytest inside clears away what lies beside its own directories."""
    with tempfile.TemporaryDirectory(prefix="warm-attacks-") as name:
        yield Path(name)


@pytest_asyncio.fixture(params=BACKENDS)
async def sandbox(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[PersistentSandbox]:
    """One per test: an attack may spoil it."""
    workspace = place / "workspace"
    workspace.mkdir()
    one = await opened(workspace, request.param)
    yield one
    await one.close()


async def run(sandbox: PersistentSandbox, arguments: str = "") -> CommandResult:
    """One warm run. A cold one proves nothing here, and is allowed now and then: it is done again."""
    for _ in range(_MAX_COLD):
        result = await sandbox.run(Command(script=f"{WARM} {arguments}", timeout_s=30.0))
        if result.how.startswith("warm-pytest"):
            return result
    raise AssertionError(f"{_MAX_COLD} runs were {result.how}: {result.output}")


MUTATING = """
import atexit, builtins, gc, json, os, random, signal, sys, threading

def test_it():
    assert 'W1' not in os.environ and json.loads is not None and not hasattr(builtins, 'w1')
    assert '/w1' not in sys.path and sys.modules.get('w1') is None and gc.isenabled()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and sys.getrecursionlimit() != 77
    assert os.umask(0o27) != 0o77
    os.umask(0o77)
    os.environ['W1'] = '1'; json.loads = None; builtins.w1 = 1; sys.path.insert(0, '/w1')
    sys.modules['w1'] = os; gc.disable(); signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.setrecursionlimit(1000); sys.stdout = None; os.chdir('/')
    threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
LYING = """
import os

def test_it():
    for name in os.listdir('/proc/self/fd'):  # whatever leads to the resident process
        if int(name) > 2:
            try:
                os.write(int(name), b'{"state": "ended", "id": 1, "code": 0}')
            except OSError:
                pass
    assert not os.path.exists('fail')
"""
TWICE = (
    "import pytest, sys\n"
    "for _ in range(2): code = pytest.main(['-q', '-p', 'no:cacheprovider'])\n"
    "sys.exit(code)\n"
)
MEMORY = """
import errno, os

def test_memory():
    said = []
    for name in ('mem', 'environ', 'fd/3'):
        try:
            open(f'/proc/{os.getppid()}/{name}', 'rb').close()
            said.append('ok')
        except OSError as error:
            said.append(errno.errorcode[error.errno])
    assert said == ['EACCES'] * 3
"""


@by_test("W1", "a test that changes the resident process", "the next run is as the first")
async def test_a_run_that_changes_its_process_leaves_the_next_one_alone(
    sandbox: PersistentSandbox,
) -> None:
    """The control, two runs in one interpreter, fails the second time."""
    (sandbox.workspace / "test_it.py").write_text(MUTATING)
    control = await sandbox.run(Command(argv=["python", "-c", TWICE]))
    assert control.exit_code == 1, control.output
    for _ in range(3):
        result = await run(sandbox)
        assert result.exit_code == 0, result.output
    (sandbox.workspace / "test_it.py").write_text(MEMORY)
    result = await run(sandbox)
    assert result.exit_code == 0, result.output


async def test_a_run_that_lies_to_the_resident_process_changes_no_verdict(
    sandbox: PersistentSandbox,
) -> None:
    """W1: it may cost warmth, since what nobody understands ends in a colder run."""
    (sandbox.workspace / "test_it.py").write_text(LYING)
    command = Command(script=WARM, timeout_s=30.0)
    for _ in range(3):
        for expected in (1, 0):
            fail = sandbox.workspace / "fail"
            if expected:
                fail.touch()
            else:
                fail.unlink()
            result = await sandbox.run(command)
            assert result.exit_code == expected, (result.how, result.output)


LEAVE = """
import os, tempfile

PLACES = [tempfile.gettempdir(), '/tmp', '/var/tmp', '/dev/shm', '/run', os.path.expanduser('~')]

def test_it():
    left = []
    for place in PLACES:
        try:
            open(os.path.join(place, 'w2-mark'), 'x').close()
            left.append(place)
        except OSError:
            pass
    print('LEFT', *left)
    assert 0
"""
LOOK = """
import os

def test_it():
    for place in {places}:
        try:
            open(os.path.join(place, 'w2-mark')).close()
        except OSError:
            continue
        raise AssertionError(place)
"""
REACH = "import sys; open(f'/proc/{sys.argv[1]}/{sys.argv[2]}', 'rb').close()"


@ALL
@by_test("W2", "what another session has left", "nothing is shared")
async def test_two_sessions_share_nothing(kind: str, place: Path) -> None:
    """The control: a later run of the same session finds it."""
    (place / "one").mkdir()
    (place / "two").mkdir()
    first = await opened(place / "one", kind)
    try:
        second = await opened(place / "two", kind)
        try:
            (first.workspace / "test_it.py").write_text(LEAVE)
            result = await run(first)
            (line,) = (line for line in result.output.splitlines() if line.startswith("LEFT "))
            places = line.split()[1:]
            assert places
            for each in (first, second):
                (each.workspace / "test_it.py").write_text(LOOK.replace("{places}", repr(places)))
            assert ((await run(first)).exit_code, (await run(second)).exit_code) == (1, 0)
            for name in ("environ", "mem", "root/etc/passwd"):
                argv = ["python", "-c", REACH, str(first.pid), name]
                result = await second.run(Command(argv=argv))
                refusal = "FileNotFoundError" if kind == "bubblewrap" else "PermissionError"
                assert refusal in result.output
        finally:
            await second.close()
    finally:
        await first.close()


WAITS = """
import os

def test_it():
    place = os.environ['TMPDIR'] if 'TMPDIR' in os.environ else '/tmp'
    with open(place + '/pid', 'w') as file:
        file.write(f'{os.getpid()} {id(object)}')
    open(place + '/ready', 'w').close()
    open(place + '/go').close()
"""
TRACES = """
import ctypes, errno, os

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {'x86_64': (310, 438), 'aarch64': (270, 438)}[os.uname().machine]

def said(result):
    return 'ok' if result >= 0 else errno.errorcode[ctypes.get_errno()]

def trace(pid):
    outcome = said(LIBC.ptrace(0x4206, pid, None, None))  # PTRACE_SEIZE
    if outcome == 'ok':
        LIBC.ptrace(17, pid, None, None)
    return outcome

def memory(pid, address):
    buffer = ctypes.create_string_buffer(8)
    class Vector(ctypes.Structure):
        _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
    here, there = Vector(ctypes.addressof(buffer), 8), Vector(address, 8)
    arguments = (ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return said(LIBC.syscall(NUMBERS[0], pid, *arguments))

def descriptor(pid):
    pidfd = os.pidfd_open(pid)
    return said(LIBC.syscall(NUMBERS[1], pidfd, 0, 0))

def by_name(pid):
    try:
        open(f'/proc/{pid}/mem', 'rb').close()
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]

def test_it():
    place = os.environ['TMPDIR'] if 'TMPDIR' in os.environ else '/tmp'
    open(place + '/ready').close()
    try:
        sibling, address = map(int, open(place + '/pid').read().split())
        found = [
            [trace(pid), memory(pid, address), descriptor(pid), by_name(pid)]
            for pid in (sibling, os.getppid())
        ]
        print('SAID', found)
    finally:
        open(place + '/go', 'w').close()
    assert found == [['EPERM'] * 3 + ['ok'], ['EPERM'] * 3 + ['EACCES']]
"""


@pytest.mark.parametrize("kind", [*BACKENDS, CONTROL])
@by_test(
    "W3",
    "tracing a run beside one's own, or the resident process",
    "`EPERM`; only a sibling's memory in `/proc` is open, see docs/sandbox.md",
)
async def test_a_run_cannot_trace_its_sibling(kind: str, place: Path) -> None:
    """Nor read its memory by the calls for that, nor take its descriptors.

    By its file in /proc it can: to the kernel they are one user's processes in one sandbox. Those of
    the resident process are closed.
    """
    sandbox = await opened(place, kind)
    environment = {"TMPDIR": str(place)} if kind == CONTROL else {}
    try:
        (place / "test_one.py").write_text(WAITS)
        (place / "test_two.py").write_text(TRACES)
        fifos = Command(script="cd ${TMPDIR:-/tmp} && mkfifo ready go", environment=environment)
        assert (await sandbox.run(fifos)).exit_code == 0
        both = [
            Command(script=f"{WARM} {name}", timeout_s=30.0, environment=environment)
            for name in ("test_one.py", "test_two.py")
        ]
        async with asyncio.TaskGroup() as group:
            one, two = [group.create_task(sandbox.run(command)) for command in both]
    finally:
        await sandbox.close()
    assert one.result().exit_code == 0, one.result().output
    if kind == CONTROL:
        assert "SAID [['ok', 'ok', 'ok', 'ok']" in two.result().output
    else:
        assert two.result().exit_code == 0, two.result().output


SUBJECT = "def value():\n    return 1\n"
TEST = "import subject\n\n\ndef test_value():\n    assert subject.value() == 1\n"


def in_place(path: Path, text: str) -> None:
    """Same name, same inode, same size, same times."""
    old = path.stat()
    path.write_text(text)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


def exchanged(path: Path, text: str) -> None:
    """Another file of the same size and times takes its name."""
    old = path.stat()
    other = path.with_suffix(".new")
    other.write_text(text)
    os.utime(other, ns=(old.st_atime_ns, old.st_mtime_ns))
    other.rename(path)


def by_another_name(path: Path, text: str) -> None:
    """Through a hard link that lies elsewhere."""
    other = path.parent.parent / "other-name"
    other.unlink(missing_ok=True)
    os.link(path, other)
    in_place(other, text)


def into_the_past(path: Path, text: str) -> None:
    """As after an archive was unpacked over it."""
    path.write_text(text)
    os.utime(path, (1_000_000_000, 1_000_000_000))


def mapped(path: Path, text: str) -> None:
    """Through a mapping of the file."""
    import mmap

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = text.encode()
        memory.flush()


EDITS = (in_place, exchanged, by_another_name, into_the_past, mapped)


@by_test("W4", "an edit that does not show in size and times", "the verdict is of the new text")
async def test_no_verdict_is_stale(sandbox: PersistentSandbox) -> None:
    """The control: with byte code of its own, a cold interpreter is taken in."""
    subject = sandbox.workspace / "subject.py"
    subject.write_text(SUBJECT)
    (sandbox.workspace / "test_it.py").write_text(TEST)
    trapped = Command(script="env -u PYTHONDONTWRITEBYTECODE python -c 'import subject'")
    await sandbox.run(trapped)
    await sandbox.run(Command(script=f"env -u PYTHONDONTWRITEBYTECODE {WARM}"))
    in_place(subject, SUBJECT.replace("1", "2"))
    assert (await sandbox.run(Command(script=f"env -u X {WARM}"))).exit_code == 0  # wrong
    assert (await run(sandbox)).exit_code == 1
    in_place(subject, SUBJECT)
    for edit in EDITS:
        for _ in range(3):  # so that the modules are resident
            assert (await run(sandbox)).exit_code == 0, edit.__name__
        edit(subject, SUBJECT.replace("1", "2"))
        assert (await run(sandbox)).exit_code == 1, edit.__name__
        edit(subject, SUBJECT)


async def test_what_blocks_its_reader_does_not_block_the_resident_process(
    sandbox: PersistentSandbox,
) -> None:
    """A fifo among the files of the project, which are looked through before each run."""
    (sandbox.workspace / "test_it.py").write_text("def test_it(): pass\n")
    os.mkfifo(sandbox.workspace / "fifo")
    for _ in range(3):
        assert (await run(sandbox)).exit_code == 0

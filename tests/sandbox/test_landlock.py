"""Landlock by itself, and as the second wall of bubblewrap: beneath mounts that are wrong.

What the kernel makes of it as the only wall is in test_isolation.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sandbox.conftest import OpenSandbox, git
from tests.sandbox.ordinary import place, run
from tightloop.sandbox import bubblewrap, landlock
from tightloop.sandbox.environment import snapshot
from tightloop.sandbox.interface import Command, Policy, Terminal
from tightloop.sandbox.launch import Kind, Launch, server_argv
from tightloop.sandbox.session import PersistentSandbox

__all__ = ["place"]

PACKAGES = Path(landlock.__file__).parents[2]
WRONG = Path("/mnt")
"""Where a directory of the host is shown by mistake: nothing there is writable otherwise."""
ATTEMPTS = """
import errno, os, sys
os.chdir(sys.argv[1])
def opened(flags):
    return lambda: os.close(os.open("old", flags))
attempts = {
    "write": opened(os.O_WRONLY), "truncate": lambda: os.truncate("old", 0),
    "make": lambda: os.close(os.open("new", os.O_WRONLY | os.O_CREAT)),
    "directory": lambda: os.mkdir("d"), "link": lambda: os.symlink("x", "l"),
    "fifo": lambda: os.mkfifo("f"), "hard link": lambda: os.link("old", "h"),
    "rename": lambda: os.rename("old", "older"), "remove": lambda: os.unlink("older"),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, "ok", sep=": ")
    except OSError as error:
        print(name, errno.errorcode[error.errno], sep=": ")
print("read", "ok" if os.listdir(".") is not None else "", sep=": ")
"""


def test_the_kernel_knows_landlock() -> None:
    """The suite proves this kind and this layer, so it may not pass without it."""
    assert landlock.abi() >= 2, "boot a kernel with Landlock (5.19) to run the sandbox tests"


def test_rights_grow_with_the_version() -> None:
    """Older kernels refuse bits that they do not know."""
    assert [hex(landlock.handled_rights(v)) for v in (1, 2, 3, 5, 7)] == [
        "0x1fff",
        "0x3fff",
        "0x7fff",
        "0xffff",
        "0xffff",
    ]


def test_writing_is_left_in_the_named_places_only(tmp_path: Path) -> None:
    """A path, or a descriptor of a directory; a place that does not exist is no mistake."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    code = (
        "import ctypes, os, sys\n"
        "from tightloop.sandbox import landlock\n"
        "ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\n"
        "one, two, three = sys.argv[1:]\n"
        "fd = os.open(two, os.O_PATH)\n"
        "print(landlock.restrict_writing([one, fd, '/nowhere']) == landlock.abi())\n"
        "for place in (one, two, three):\n"
        "    try:\n"
        "        open(place + '/x', 'w').close()\n"
        "        print('ok')\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
        "print(os.listdir(three))\n"
    )
    places = [str(tmp_path / name) for name in ("one", "two", "three")]
    done = subprocess.run(
        [sys.executable, "-c", code, *places],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(PACKAGES)},
        check=True,
    )
    assert done.stdout.split() == ["True", "ok", "ok", "refused", "[]"]


def changed(change: Callable[[Launch], Launch]) -> Kind:
    """bubblewrap, started in another way."""

    def prepare(policy: Policy, environment: dict[str, str], fd: int) -> Launch:
        return change(bubblewrap.prepare(policy, environment, fd))

    return Kind("bubblewrap", prepare, is_confined=True, remedy="")


async def tried(kind: Kind, workspace: Path, argv: Sequence[str]) -> tuple[str, str]:
    """What a command prints inside, and what the sandbox says that it lacks."""
    policy = Policy(workspace, warm_tests=False)
    sandbox = PersistentSandbox(kind, policy, snapshot(os.environ, workspace))
    await sandbox.start()
    try:
        result = await sandbox.run(Command(argv=argv))
    finally:
        await sandbox.close()
    return result.output, sandbox.lacks


def shown_by_mistake(outside: Path, launch: Launch) -> Launch:
    """The directory of the host is mounted, writable, where nothing should be."""
    argv = list(launch.argv)
    at = argv.index("--chdir")
    argv[at:at] = ["--bind", str(outside), str(WRONG)]
    return replace(launch, argv=argv)


async def test_a_mount_that_is_wrong_is_still_not_writable(tmp_path: Path, workspace: Path) -> None:
    """Every attempt succeeds without the layer, so that nothing else can have refused it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old").write_text("text")
    argv = ["python3", "-I", "-S", "-c", ATTEMPTS, str(WRONG)]
    output, lacks = await tried(
        changed(lambda launch: shown_by_mistake(outside, launch)), workspace, argv
    )
    found = dict(line.split(": ") for line in output.splitlines())
    assert found.pop("read") == "ok"
    assert found.pop("remove") == "ENOENT"  # there is nothing to remove, since nothing was renamed
    assert set(found.values()) == {"EACCES"}, found
    assert os.listdir(outside) == ["old"]
    assert (outside / "old").read_text() == "text"
    assert lacks == ""

    output, _ = await tried(
        changed(lambda launch: replace(shown_by_mistake(outside, launch), writable=None)),
        workspace,
        argv,
    )
    assert {line.split(": ")[1] for line in output.splitlines()} == {"ok"}, output
    assert sorted(os.listdir(outside)) == ["d", "f", "h", "l", "new"]


async def test_a_workspace_that_is_writable_by_mistake(tmp_path: Path, workspace: Path) -> None:
    """Under a policy that lets nobody write to it."""
    (workspace / "old").write_text("text")
    policy = Policy(workspace, warm_tests=False, is_read_only=True)

    def writable(launch: Launch) -> Launch:
        argv = list(launch.argv)
        at = argv.index(str(workspace))
        assert argv[at - 1] == "--ro-bind"
        argv[at - 1] = "--bind"
        # The test's directory lies in /tmp, which is writable scratch inside.
        return replace(launch, argv=argv, writable=["/dev", "/proc"])

    sandbox = PersistentSandbox(changed(writable), policy, snapshot(os.environ, workspace))
    await sandbox.start()
    result = await sandbox.run(Command(script="echo x > old; rm old; cat old"))
    await sandbox.close()
    assert result.output.count("Permission denied") == 2
    assert result.output.endswith("text")


async def test_a_kernel_without_it_is_told_of(workspace: Path) -> None:
    """Everything works; the sandbox says what is missing. A filter plays the older kernel."""
    code = (
        "import ctypes, os, struct, sys\n"
        f"sys.path.insert(0, {str(PACKAGES)!r})\n"
        "from tightloop.sandbox import seccomp\n"
        "lines = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (6, 0, 0, 0x50026), (6, 0, 0, 0x7FFF0000)]\n"
        "seccomp.install(b''.join(struct.pack('<HBBI', *line) for line in lines))\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )

    def without(launch: Launch) -> Launch:
        at = len(launch.argv) - len(server_argv(0))
        server = launch.argv[at:]
        prefix = [*server[:4], "-c", code]
        return replace(launch, argv=[*launch.argv[:at], *prefix, *server])

    output, lacks = await tried(changed(without), workspace, ["touch", "made"])
    assert output == ""
    assert (workspace / "made").exists()
    assert lacks == landlock.NO_SECOND_LAYER


async def test_work_goes_on_as_without_it(workspace: Path, opened: OpenSandbox) -> None:
    """What builds, tests and git do: links and renames between directories, special files,
    sockets, terminals, output that is opened again, private places, files of ``/proc``."""
    git(workspace, "init", "-q", "-b", "main")
    script = r"""
    set -e
    mkdir -p a/b c; echo one > a/b/one
    mv a/b/one c/two; ln c/two a/three; mv a/b c/; mv c d; ln -s d/two link; mkfifo fifo
    cp -r d "$HOME/copy"; mv "$HOME/copy" e; rm -r e
    for place in /tmp /var/tmp /dev/shm "$HOME"; do
        mkdir "$place/deep"; echo x > "$place/deep/x"; mv "$place/deep/x" "$place/y"; rm -r "$place/y"
    done
    for name in stdout stderr fd/1 null; do echo $name > /dev/$name; done
    printf name > /proc/self/comm
    git -c user.name=n -c user.email=e@x add link d a
    git -c user.name=n -c user.email=e@x commit -q -m one
    git mv d/two five; git stash -q
    python3 -c 'import os, socket; s = socket.socket(socket.AF_UNIX); s.bind("socket"); os.rename("socket", "d/socket")'
    python3 -c 'import ctypes, os; fd = b"/proc/self/fd/%d" % os.open(".", os.O_TMPFILE | os.O_RDWR)
assert ctypes.CDLL(None).linkat(-100, fd, -100, b"tmp", 0x400) == 0'
    python3 -c 'import multiprocessing as m; m.Lock(); m.Queue()'
    printf 'int main(void) { return 0; }' > main.c
    if command -v cc > /dev/null; then cc -o built main.c && ./built; fi
    truncate -s 5 a/three; chmod 700 a; touch -d 2020-01-01 a/three
    echo done
    """
    sandbox = await opened("bubblewrap")
    assert sandbox.lacks == ""
    result = await sandbox.run(Command(script=script))
    assert result.output == "stdout\nstderr\nfd/1\ndone\n"
    for how in ("terminal", "screen"):
        size = {how: Terminal(rows=11, columns=44)}
        script = (
            "echo x > /dev/stdout; stty rows 20 <&1; stty size <&1; script -qc 'echo y' /dev/null"
        )
        result = await sandbox.run(Command(script=script, **size))  # type: ignore[arg-type]
        assert result.output.split() == ["x", "20", "44", "y"], (how, result.output)
    result = await sandbox.run(
        Command(script="echo x > /dev/tty", terminal=Terminal(rows=5, columns=5))
    )
    assert result.output == "x\r\n"


WHO = pytest.mark.parametrize("is_root", [False, True], ids=["ordinary", "root"])


@WHO
def test_a_workspace_that_is_mounted_late(place: Path, is_root: bool) -> None:
    """An overlay is writable with the layer in place, mounted before the start or after it; files
    are copied up, moved and linked between its directories."""
    script = """
from tightloop.sandbox.slots import open_twin

WORK = "mkdir -p p/q r; echo x >> lines; mv lines p/q/l; ln p/q/l r/m; rm gone; mkfifo f; echo done"

async def main():
    workspace = await open_workspace(repository, state_dir=state, kind="overlay")
    policy = Policy(workspace.path, warm_tests=False)
    sandbox = await open_sandbox(policy, kind="bubblewrap")
    twin = await open_twin(workspace, policy)
    assert (sandbox.lacks, twin.sandbox.lacks) == ("", "")
    for _ in range(2):
        [fork] = await workspace.fork()
        async with twin.on(fork) as late:
            assert (await late.run(Command(script=WORK))).output == "done\\n"
        assert await fork.changed_files() == ["gone", "lines", "p/q/l", "r/m"]
        await fork.discard()
    assert (await sandbox.run(Command(script=WORK))).output == "done\\n"
    await twin.close()
    await sandbox.close()
    await workspace.discard()
assert own_namespace.enter(state) == ""
asyncio.run(main())
"""
    done = run(place, script, is_root=is_root)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


@WHO
def test_what_the_host_mounts_later_is_not_writable(place: Path, is_root: bool) -> None:
    """It shows in every sandbox that has the place, and bwrap cannot make it read-only there."""
    script = f"""
from dataclasses import replace
from tightloop.sandbox import bubblewrap, mounts
from tightloop.sandbox.environment import snapshot
from tightloop.sandbox.launch import Kind
from tightloop.sandbox.session import PersistentSandbox

def without(policy, environment, fd):
    return replace(bubblewrap.prepare(policy, environment, fd), writable=None)

async def main():
    Path("later").mkdir()
    mounts.set_shared(Path("/"))  # of this process's namespace; as that of most hosts is
    heard = []
    bare = Kind("bubblewrap", without, is_confined=True, remedy="")
    for kind in (bare, bubblewrap.KIND):
        policy = Policy(repository, warm_tests=False)
        sandbox = PersistentSandbox(kind, policy, snapshot(os.environ, repository))
        await sandbox.start()
        mounts.bind(Path("later").absolute(), Path("{WRONG}"))
        Path("later/seen").touch()
        said = (await sandbox.run(Command(script="ls {WRONG}; echo x > {WRONG}/made"))).output
        heard.append((said.partition("\\n")[0], said.rpartition(": ")[2].strip(), os.path.exists("later/made")))
        Path("later/made").unlink(missing_ok=True)
        mounts.unmount(Path("{WRONG}"))
        await sandbox.close()
    print(heard)
assert own_namespace.enter(state) == ""
asyncio.run(main())
"""
    done = run(place, script, is_root=is_root)
    assert done.returncode == 0, done.stderr
    open_to_it, closed = ast.literal_eval(done.stdout)
    assert open_to_it == ("seen", "seen", True)
    assert closed == ("seen", "Permission denied", False)

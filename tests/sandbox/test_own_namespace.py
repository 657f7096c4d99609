"""Overlays for ordinary users: what they see, what nobody else sees, what is left after a kill.

As root the work is done by a child that has become ``nobody``; otherwise by a plain child.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.sandbox.ordinary import NOBODY, START, place, python_for_everybody, run

__all__ = ["place", "python_for_everybody"]


def test_an_ordinary_user_gets_an_overlay(place: Path) -> None:
    """The agent's files, commands in the sandbox, diff, forks and apply: all see the same mount."""
    done = run(
        place,
        """
assert os.geteuid() != 0
before = Path("/proc/self/mountinfo").read_text()
assert own_namespace.enter(state) == ""
async def main():
    workspace = await open_workspace(repository, state_dir=state, kind="overlay")
    (workspace.path / "lines").write_text("by a file tool\\n")
    sandbox = await open_sandbox(Policy(workspace.path, warm_tests=False), kind="bubblewrap")
    result = await sandbox.run(Command(script="cat lines; rm gone; echo x > new; id -u; ls -A " + str(state)))
    print(result.output, end="")
    print(await workspace.changed_files())
    [fork] = await workspace.fork()
    await sandbox.close()
    await workspace.discard()
    print(fork.kind, await fork.apply())
    await fork.discard()
asyncio.run(main())
assert "overlay " + str(state) not in Path("/proc/self/mountinfo").read_text()
""",
    )
    expected = "by a file tool\n{}\n['gone', 'lines', 'new']\noverlay ['gone', 'lines', 'new']\n"
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert done.stdout.replace("workspaces\n", "") == expected.format(user), done.stderr
    assert (place / "repo" / "lines").read_text() == "by a file tool\n"
    assert not (place / "repo" / "gone").exists()
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


def test_nobody_else_sees_the_mount_and_a_kill_takes_it_away(place: Path) -> None:
    """The layers stay behind, and the next process throws them away."""
    script = """
assert own_namespace.enter(state) == ""
workspace = asyncio.run(open_workspace(repository, state_dir=state, kind="overlay"))
print(workspace.path)
print(os.listdir(workspace.path) != [], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run(place, script)
    view, is_filled = done.stdout.splitlines()
    assert (is_filled, done.returncode) == ("True", -9), done.stderr
    assert os.listdir(view) == []
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
    again = run(place, script)
    assert again.returncode == -9, again.stderr
    assert len(os.listdir(place / "state" / "workspaces")) == 1


def test_commands_get_no_rights_from_it(place: Path) -> None:
    """Capabilities end with execve, with and without a sandbox."""
    done = run(
        place,
        """
import subprocess
assert own_namespace.enter(state) == ""
print(subprocess.run(["grep", "CapEff", "/proc/self/status"], capture_output=True, text=True).stdout)
done = subprocess.run(["mount", "-t", "tmpfs", "x", str(state)], capture_output=True)
print(done.returncode != 0, os.getuid(), os.getgid())
""",
    )
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    group = NOBODY if os.geteuid() == 0 else os.getegid()
    assert done.stdout == f"CapEff:\t0000000000000000\n\nTrue {user} {group}\n", done.stderr


def test_a_process_with_threads_stays_outside(place: Path) -> None:
    """The kernel would refuse; the workspace is a copy then, and says why."""
    done = run(
        place,
        """
import threading
wait = threading.Event()
threading.Thread(target=wait.wait, daemon=True).start()
print(own_namespace.enter(state))
workspace = asyncio.run(open_workspace(repository, state_dir=state))
print(workspace.kind, workspace.reason.rpartition(": ")[2])
wait.set()
""",
    )
    expected = "the process has 2 threads already\ncopy Operation not permitted\n"
    assert done.stdout == expected, done.stderr


def test_root_stays_root_and_its_mounts_end_with_it(tmp_path: Path) -> None:
    """No user namespace, and mounts that nobody else sees."""
    code = START + "print(own_namespace.enter(Path(sys.argv[1])))\n"
    code += "print(os.readlink('/proc/self/ns/user'), os.readlink('/proc/self/ns/mnt'))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    if os.geteuid() == 0:
        reason, namespaces = done.stdout.splitlines()
        users, seen = namespaces.split()
        assert (reason, users) == ("", os.readlink("/proc/self/ns/user"))
        assert seen != os.readlink("/proc/self/ns/mnt")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_root_directory_is_no_reason_to_fail(place: Path) -> None:
    """A root directory that is no mount cannot be told what to receive."""
    script = """
from tightloop.sandbox import mounts
assert own_namespace.enter(state) == ""
(repository / "proc").mkdir()
mounts.bind(Path("/proc"), repository / "proc")
os.chroot(repository)
print(repr(own_namespace.enter(Path("/state"))))
"""
    done = run(place, script, is_root=True)
    assert done.stdout == "''\n", done.stderr

"""P: processes."""

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from tests.attacks import commands
from tests.attacks.attack import Attack, By, Probe
from tests.attacks.files import ROOTED
from tests.attacks.ground import PYTHON, Ground
from tests.attacks.inside import processes as inside

_VICTIM = """
import ctypes, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # whoever may, may trace it
held = ctypes.create_string_buffer(b"hush-hush")
print(ctypes.addressof(held), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def victim(ground: Ground) -> Iterator[Mapping[str, Any]]:
    """Another process of the user's, with a secret in its memory and its environment."""
    process = subprocess.Popen(
        [PYTHON, "-I", "-S", "-c", _VICTIM, "attacks-victim"],
        env={"X_API_KEY": "hush-hush"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        yield {"victim": process.pid, "victim_address": int(process.stdout.readline())}
        process.kill()


PROPS = (victim,)

ATTACKS = (
    Attack(
        "P1",
        "capabilities, new privileges, calls that are not filtered",
        (Probe("", inside.status, "locked", "locked", control="free"),),
    ),
    Attack(
        "P2",
        "look into another process",
        (
            Probe("ptrace", inside.trace, "EPERM", "EPERM"),
            Probe("its memory", inside.read_memory, "EPERM", "EPERM", control="hush-hush"),
            Probe(
                "its memory by a file",
                inside.read_memory_file,
                "ENOENT",
                "EACCES",
                control="hush-hush",
            ),
            Probe("its descriptors", inside.take_descriptor, "ESRCH", "EPERM"),
        ),
    ),
    Attack(
        "P3",
        "list the host's processes",
        (
            Probe(
                "",
                inside.list_processes,
                "only its own",
                "ok",
                gap="Landlock hides no processes; they cannot be signalled, traced or read.",
            ),
        ),
    ),
    Attack(
        "P4",
        "signal processes of the host",
        (
            Probe("the agent", inside.signal_agent, "ESRCH", "EPERM"),
            Probe("another one", inside.signal_other, "ESRCH", "EPERM"),
        ),
    ),
    Attack(
        "P5",
        "a daemon that outlives its command",
        (
            Probe("after the command", commands.daemon, "dead", "dead", control="alive"),
            Probe("after the session", commands.daemon_at_the_end, "dead", "dead", control="alive"),
        ),
    ),
    Attack(
        "P6",
        "an orphan of a command that is ended",
        (
            Probe("out of time", commands.orphan_of_a_timeout, "dead", "dead", control="alive"),
            Probe("by SIGTERM", commands.orphan_of_a_signal, "dead", "dead", control="alive"),
        ),
    ),
    Attack(
        "P7",
        "a fork bomb",
        (
            Probe(
                "",
                commands.forks,
                By("EAGAIN", root="ok"),
                By("EAGAIN", root="ok"),
                gap="the kernel does not hold root to a number of processes; `doctor` says so. "
                "A delegated cgroup does, or an ordinary user.",
            ),
        ),
    ),
    Attack("P8", "a memory bomb", (Probe("", commands.memory, "MemoryError", "MemoryError"),)),
    Attack(
        "P9",
        "processor time without end",
        (
            Probe(
                "",
                commands.spin,
                "killed at the deadline",
                "killed at the deadline",
                control="spinning",
                places=("plain",),
            ),
            Probe(
                "under a limit",
                commands.spin_in_little_time,
                "SIGKILL",
                "SIGKILL",
                control="spinning",
                users=("user",),
                places=("plain",),
            ),
        ),
    ),
    Attack(
        "P10",
        "output without end",
        (
            Probe(
                "",
                commands.flood,
                "head and tail",
                "head and tail",
                control="all of it in memory",
                places=("plain",),
            ),
        ),
    ),
    Attack(
        "P11",
        "a child that keeps the output open",
        (Probe("", commands.held_pipe, "back with 'done'", "back with 'done'", control="waiting"),),
    ),
    Attack(
        "P12",
        "push characters into the terminal",
        (Probe("", commands.push_into_terminal, "EPERM", "EPERM", users=("root",)),),
    ),
    Attack(
        "P14",
        "read what is typed for the agent",
        (
            Probe(
                "",
                commands.reads_stdin("cat"),
                "end of file",
                "end of file",
                control="typed",
                places=("plain",),
            ),
            Probe(
                "by the agent's descriptor",
                commands.reads_stdin("cat /proc/$PPID/fd/0 2>/dev/null || echo refused"),
                "refused",
                "refused",
                control="typed",
                places=("plain",),
            ),
        ),
    ),
    Attack(
        "P15",
        "namespaces in the sandbox",
        (
            Probe("unshare", inside.new_user_namespace, "EPERM", "EPERM"),
            Probe("clone", inside.clone_user_namespace, "EPERM", "EPERM"),
            Probe("clone3", inside.clone3_user_namespace, "ENOSYS", "ENOSYS"),
            Probe("setns", inside.enter_namespace, "EPERM", "EPERM", users=ROOTED),
        ),
    ),
    Attack(
        "P16",
        "set-uid programs",
        (
            Probe(
                "",
                inside.run_as_owner,
                "no privilege",
                "no privilege",
                users=("user",),
                places=("plain",),
            ),
        ),
    ),
)

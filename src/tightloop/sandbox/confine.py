"""Landlock and seccomp without an external program: a process that gives up its own rights.

Weaker than namespaces, and it says so: host processes stay visible, chmod outside is possible
for the owner of a file, and protected paths cannot be kept read-only (Landlock has no stricter
subtrees). In exchange it makes no internet or unix sockets and no System V or POSIX queues at
all, since Landlock cannot tell harmless ones from others.
"""

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tightloop.sandbox import cgroup, landlock, places, seccomp
from tightloop.sandbox.interface import Policy, SandboxError
from tightloop.sandbox.launch import Kind, Launch, server_argv
from tightloop.sandbox.private_places import PrivatePlace

REMEDY = "Landlock needs Linux 5.13 or later with 'landlock' in the kernel's lsm= list"
NEEDS_BUBBLEWRAP = "that needs bubblewrap (install the package, or choose another policy)"
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")


def prepare(policy: Policy, environment: dict[str, str], server_fd: int) -> Launch:
    """A line that confines itself, then becomes the exec server. Adds a private TMPDIR.

    Raises SandboxError on a kernel without Landlock, and for a policy with a list of hosts: no
    network namespace keeps commands from going elsewhere.
    """
    if landlock.abi() == 0:
        raise SandboxError(f"this kernel has no Landlock: {REMEDY}")
    if policy.proxy_socket is not None:
        raise SandboxError(f"landlock cannot hold commands to a list of hosts: {NEEDS_BUBBLEWRAP}")
    scratch = PrivatePlace()
    environment["TMPDIR"] = str(scratch.path)
    # A settings file that is there and cannot be read is fatal to git; with bubblewrap there is none.
    environment.setdefault("GIT_CONFIG_GLOBAL", os.devnull)
    hidden = [*places.hidden_directories(policy), *places.secret_files()]
    # Not /dev: disks and virtual machines are open to uid 0, and reading is enough to harm.
    read = readable_roots([*hidden, policy.workspace, Path("/dev")])
    for place in places.tool_chains(policy, environment):
        read += readable_roots([path for path in hidden if path != place], place)
    write: list[Path] = []
    (read if policy.is_read_only else write).append(policy.workspace)
    plan = {
        "read": [str(path) for path in read],
        "write": [*map(str, write), str(scratch.path), *_DEVICES],
        "allow_network": policy.allow_network,
        "argv": server_argv(server_fd),
    }
    package_root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(package_root)!r}); "
        "from tightloop.sandbox.confine import main; main()"
    )
    argv = [*server_argv(server_fd)[:4], "-c", code, json.dumps(plan)]
    group = cgroup.make_group(policy, cgroup.find_delegation())

    def clean_up() -> None:
        if group is not None:
            group.remove()
        scratch.close()

    return Launch(
        group.entering(argv) if group else argv, clean_up=clean_up, note_tag=scratch.note_tag
    )


def main() -> None:
    """Runs in the new process: confined from here on, it becomes the exec server."""
    plan = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
    with contextlib.suppress(PermissionError):  # already a leader when started by a shell
        os.setsid()
    drop_capabilities()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock.restrict(plan["read"], plan["write"], allow_network=plan["allow_network"])
    network = (seccomp.AF_INET, seccomp.AF_INET6) if plan["allow_network"] else ()
    seccomp.install(seccomp.program(network, has_queues=False))
    os.execve(plan["argv"][0], plan["argv"], {})


def readable_roots(hidden: Sequence[Path], root: Path = Path("/")) -> list[Path]:
    """The fewest directories and files that cover ``root`` except everything in ``hidden``.

    A rule covers a whole subtree, so a directory that holds a hidden one is replaced by its
    other entries.
    """
    if root in hidden:
        return []
    if not any(path.is_relative_to(root) for path in hidden):
        return [root]
    roots: list[Path] = []
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except PermissionError:  # closed to this user anyway
        return []
    for entry in entries:
        if not entry.is_symlink():
            roots += readable_roots(hidden, Path(entry.path))
    return roots


def drop_capabilities() -> None:
    """No capability is left in any set; uid 0 is an ordinary owner of files afterwards."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails past the last, or without caps
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    empty = (ctypes.c_uint32 * 6)()
    if libc.capset(ctypes.byref(header), ctypes.byref(empty)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")


KIND = Kind("landlock", prepare, is_confined=True, remedy=REMEDY)

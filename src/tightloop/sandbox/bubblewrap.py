"""The strongest kind: namespaces, a read-only root and a seccomp filter, set up by bwrap.

The command line is that of design/0004-sandbox.md. ``--cap-drop ALL`` and ``--disable-userns``
are both there for good: without them a caller with uid 0 in its namespace could remount the
root writable from inside.
"""

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tightloop.sandbox import cgroup, places, seccomp
from tightloop.sandbox.forwarder import PORT
from tightloop.sandbox.interface import Policy, SandboxError
from tightloop.sandbox.launch import Kind, Launch, server_argv

REMEDY = (
    "install the package 'bubblewrap'; if it is there and says 'Operation not permitted', allow "
    "user namespaces: AppArmor profile 'bwrap-userns-restrict' or "
    "'sysctl kernel.apparmor_restrict_unprivileged_userns=0'; if it does not know '--bind-fd', "
    "update it (0.10, or the security update of 2024 of older ones)"
)
FORWARDER = Path(__file__).with_name("forwarder.py")
_SCRATCH_BYTES = 1 << 30
_INTERNET = (seccomp.AF_INET, seccomp.AF_INET6)
# Settings of the kernel belong to uid 0, whose files need no capability. bwrap means to cover some
# of these, but asks access(2), which says "not writable" of the directory /proc/sys only.
_KERNEL_SETTINGS = (
    "sys",
    "sysrq-trigger",
    "irq",
    "bus",
    "acpi",
    "driver",
    "fs",
    "mtrr",
    "pressure",
)


def prepare(policy: Policy, environment: dict[str, str], server_fd: int) -> Launch:
    """The bwrap line that ends in the exec server. Raises SandboxError without bwrap.

    With a proxy, ``environment`` gets the variables that make programs use it.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SandboxError(f"bwrap is not on the PATH: {REMEDY}")
    fds: list[int] = []
    hidden = places.hidden_directories(policy)
    try:
        mounts = _mounts(policy, hidden, environment, fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    filter_fd = _filter_fd(policy)
    argv = [bwrap, *_namespaces(policy), *mounts]
    argv += ["--chdir", "/", "--clearenv", "--seccomp", str(filter_fd), "--"]
    argv += [*_way_out(policy, environment), *server_argv(server_fd)]
    group = cgroup.make_group(policy, cgroup.find_delegation())
    launch = Launch(argv, (filter_fd, *fds), writable=_writable(policy, hidden))
    if group is None:
        return launch
    return replace(launch, argv=group.entering(argv), clean_up=group.remove)


def _writable(policy: Policy, hidden: list[Path]) -> list[str]:
    """What the second wall leaves open, by names inside: it does not ask how things are mounted.

    Landlock looks for a rule of the place itself, then of the directories above, and skips what a
    mount covers. So a tree that is mounted over the workspace later is found by the directory above
    it only, which is not writable by its mount, or private.
    """
    found = [*hidden, Path("/dev"), Path("/proc")]
    if not policy.is_read_only:
        found.append(policy.workspace.parent if policy.shown_from else policy.workspace)
    return [str(path) for path in found]


def _way_out(policy: Policy, environment: dict[str, str]) -> list[str]:
    """The line of the forwarder, which becomes what follows it; nothing without a proxy."""
    if policy.proxy_socket is None:
        return []
    proxy = f"http://127.0.0.1:{PORT}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        environment[name] = environment[name.lower()] = proxy
    environment["NO_PROXY"] = environment["no_proxy"] = "localhost,127.0.0.1,::1"
    python = server_argv(0)[:4]
    line = [*python, str(FORWARDER), str(policy.proxy_socket), str(PORT)]
    # The forwarder itself needs the proxy's socket, so it puts this on what it becomes.
    return [*line, "" if policy.has_unix_sockets else seccomp.program(_INTERNET).hex()]


def _filter_fd(policy: Policy) -> int:
    has_unix_sockets = policy.has_unix_sockets or policy.proxy_socket is not None
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    os.write(fd, seccomp.program((seccomp.AF_UNIX, *_INTERNET) if has_unix_sockets else _INTERNET))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _namespaces(policy: Policy) -> list[str]:
    line = ["--unshare-user", "--unshare-all", "--disable-userns", "--cap-drop", "ALL"]
    line += ["--new-session", "--die-with-parent", "--hostname", "sandbox"]
    return [*line, "--share-net"] if policy.allow_network else line


def _mounts(
    policy: Policy, hidden: list[Path], environment: Mapping[str, str], fds: list[int]
) -> list[str]:
    """Later mounts lie on top: root, hidden places, tools back, workspace, then what it lacks.

    ``fds`` gets the descriptors that are named in the line.
    """
    line = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for path in (Path("/proc", name) for name in _KERNEL_SETTINGS):
        if path.exists():
            line += ["--ro-bind", str(path), str(path)]
    for path in hidden:
        line += ["--size", str(_SCRATCH_BYTES), "--tmpfs", str(path)]
    shown = [policy.workspace]
    for path in places.tool_chains(policy, environment):  # parents first
        if _is_hidden(path, hidden) and not _is_hidden(path, shown[1:]):
            line += ["--ro-bind", str(path), str(path)]
            shown.append(path)
    line += _hidden_again(hidden, [path for path in shown[1:] if path not in hidden])
    resolver = Path(os.path.realpath("/etc/resolv.conf"))
    if policy.allow_network and _is_hidden(resolver, hidden) and resolver.exists():
        line += ["--ro-bind", str(resolver), str(resolver)]
    how = "--ro-bind" if policy.is_read_only else "--bind"
    shown_from = policy.shown_from or policy.workspace
    line += [how, str(shown_from), str(policy.workspace)]
    line += _hidden_again(hidden, [policy.workspace])
    protected = _protected(policy)
    for path in _directories_above(protected):
        fds.append(_open_below(shown_from, path))
        line += [f"{how}-fd", str(fds[-1]), str(policy.workspace / path)]
    for path in [*places.listening_sockets(), *places.secret_files()]:
        if not _is_hidden(path, hidden) or _is_hidden(path, shown):
            line += ["--ro-bind", "/dev/null", str(path)]
    for path in protected:
        fds.append(_open_below(shown_from, path))
        line += ["--ro-bind-fd", str(fds[-1]), str(policy.workspace / path)]
    if policy.proxy_socket is not None:
        line += ["--ro-bind", str(policy.proxy_socket), str(policy.proxy_socket)]
    return line


def _hidden_again(hidden: list[Path], shown: list[Path]) -> list[str]:
    """What is hidden within what is shown: the narrower word counts."""
    wanted = [path for path in hidden if _is_hidden(path, shown)]
    return [word for path in wanted for word in ("--tmpfs", str(path))]


def _protected(policy: Policy) -> list[Path]:
    """Relative to the workspace, as they are where it is shown from."""
    if policy.shown_from is not None:
        moved = [
            policy.shown_from / path.relative_to(policy.workspace) for path in policy.protected
        ]
        policy = replace(policy, workspace=policy.shown_from, protected=tuple(moved))
    return [path.relative_to(policy.workspace) for path in places.protected_paths(policy)]


def _directories_above(protected: list[Path]) -> list[Path]:
    """Between the workspace and what is protected, parents first.

    What something is mounted on cannot be renamed, but a directory above it can, and the name is
    free then for another one. So these are mounted too, on themselves.
    """
    return sorted({parent for path in protected for parent in path.parents} - {Path()})


def _open_below(directory: Path, path: Path) -> int:
    """What is mounted, so that nobody exchanges it after the check; no link is followed.

    By its name, bwrap would follow a link that a command in another sandbox has put there
    meanwhile, and show what it leads to.
    """
    place = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    for name in path.parts:
        above = place
        try:
            place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        except OSError as error:
            raise _changed(directory / path) from error
        finally:
            os.close(above)
    if stat.S_ISLNK(os.fstat(place).st_mode):
        os.close(place)
        raise _changed(directory / path)
    return place


def _changed(path: Path) -> SandboxError:
    return SandboxError(f"protected path {str(path)!r} was exchanged while the sandbox was started")


def _is_hidden(path: Path, hidden: list[Path]) -> bool:
    return any(places.is_below(path, directory) for directory in hidden)


KIND = Kind("bubblewrap", prepare, is_confined=True, remedy=REMEDY)

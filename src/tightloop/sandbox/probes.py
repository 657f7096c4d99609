"""What this machine allows, found out by doing it: each probe starts something, acts and looks.

Nothing outlives a probe: namespaces, filters and mounts are made in processes of their own, files
in temporary directories. One probe that fails never hides the others.
"""

import asyncio
import json
import os
import platform
import resource
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tightloop.sandbox import bubblewrap, cgroup, landlock, seccomp
from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.isolation import Finding, open_sandbox, probe
from tightloop.sandbox.launch import server_argv
from tightloop.sandbox.policies import ISOLATIONS, NamedPolicy
from tightloop.sandbox.reach import check_reach

_STEP_LIMIT_S: Final = 20.0
_WARM_LIMIT_S: Final = 60.0
_PACKAGE_ROOT: Final = Path(__file__).parents[2]
_SYSCTL: Final = Path("/proc/sys")
_NAMESPACE_SETTINGS: Final = {
    "kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "AppArmor restricts user namespaces: install the profile 'bwrap-userns-restrict' (package "
        "apparmor-profiles), or as root 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0'",
    ),
    "kernel/unprivileged_userns_clone": (
        "0",
        "as root: 'sysctl -w kernel.unprivileged_userns_clone=1'",
    ),
    "user/max_user_namespaces": ("0", "as root: 'sysctl -w user.max_user_namespaces=15000'"),
}
_CONTAINER_FIX: Final = (
    "a filter of the container refuses namespaces: start it with '--security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined', or with a profile that allows unshare, clone and mount"
)


_FUSE_FIX: Final = (
    "get the kernel's overlay or reflink first: this one is only looked for so far. It needs the "
    "package 'fuse-overlayfs' and an open /dev/fuse (as root 'chmod 0666 /dev/fuse', for a "
    "container '--device /dev/fuse')"
)


class Status(StrEnum):
    """``WEAKER``: something else is used instead. ``FAIL``: what is configured cannot be had."""

    OK = "ok"
    WEAKER = "weaker"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One probe's result. ``fix`` is what a person can do; empty when nothing is needed."""

    name: str
    status: Status
    seen: str
    fix: str = ""


async def examine(
    policy: NamedPolicy, state_dir: Path, on_begin: Callable[[str], None] = lambda _name: None
) -> AsyncIterator[Check]:
    """Every probe's result as it becomes known. What is configured can be had if none is FAIL.

    ``on_begin`` is told what is tried next, where that takes a while.
    """
    yield _platform()
    on_begin("isolation")
    findings = {finding.kind: finding for finding in await probe()}
    namespaces = await _namespace_checks()
    yield await _bubblewrap(findings["bubblewrap"], namespaces)
    for check in namespaces:
        yield check
    yield _landlock(findings["landlock"])
    yield await _seccomp()
    on_begin("storage")
    for check in await _storage(state_dir):
        yield check
    yield check_cgroup(cgroup.find_delegation())
    yield check_limits(policy.policy(Path("/nonexistent")), os.geteuid())
    level = check_level(policy, findings)
    yield level
    yield check_gaps(policy, findings)
    if level.status is Status.OK:
        on_begin("secrets and sockets")
        yield await _guarded("secrets and sockets", lambda: _reach(policy))
        on_begin("warm tests")
        yield await _guarded("warm tests", lambda: _warm_tests(policy))


async def _guarded(name: str, check: Callable[[], Awaitable[Check]]) -> Check:
    try:
        return await check()
    except (SandboxError, OSError) as error:
        return Check(name, Status.FAIL, f"could not be tried: {error}")


def _platform() -> Check:
    system, machine = platform.system(), platform.machine()
    seen = f"{system} {platform.release()} on {machine}"
    if system != "Linux":
        return Check("platform", Status.FAIL, seen, "isolation that is tested needs Linux")
    if machine not in seccomp.ARCHITECTURES:
        known = ", ".join(seccomp.ARCHITECTURES)
        fix = f"there is no seccomp table for it; known are {known}"
        return Check("platform", Status.FAIL, seen, fix)
    return Check("platform", Status.OK, f"{seen}, {'root' if os.geteuid() == 0 else 'a user'}")


async def _bubblewrap(finding: Finding, namespaces: list[Check]) -> Check:
    program = shutil.which("bwrap")
    if program is None:
        return Check(
            "bubblewrap",
            Status.WEAKER,
            "bwrap is not on the PATH",
            "install the package 'bubblewrap' (apt, dnf, pacman and apk call it so)",
        )
    version = (await _output_of([program, "--version"])).strip()
    if finding.works:
        return check_layers(finding, f"{version}; default line entered, CapEff=0 inside")
    causes = [check.fix for check in namespaces if check.fix]
    return Check(
        "bubblewrap",
        Status.WEAKER,
        f"{version}; {_without_remedy(finding)}",
        causes[0] if causes else finding.remedy,
    )


def check_layers(finding: Finding, seen: str) -> Check:
    """The result for bubblewrap where it works, by the layers that it has."""
    if finding.lacks:
        fix = landlock.SECOND_LAYER_REMEDY
        return Check("bubblewrap", Status.WEAKER, f"{seen}; {finding.lacks}", fix)
    return Check("bubblewrap", Status.OK, f"{seen}; Landlock beneath the mounts")


async def _namespace_checks() -> list[Check]:
    names = {
        "user namespaces": "user_namespace",
        "network namespace": "net_namespace",
        "/proc mount": "proc_mount",
    }
    return [check_namespace(name, await run_step(step)) for name, step in names.items()]


def check_namespace(
    name: str, said: dict[str, Any], sysctl: Path = _SYSCTL, *, is_filtered: bool | None = None
) -> Check:
    """The result of one namespace step, with the setting that explains a refusal."""
    if said["ok"]:
        return Check(name, Status.OK, said["seen"])
    seen = f"{said['step']}: {said['error']}"
    for setting, (closed, fix) in _NAMESPACE_SETTINGS.items():
        if _read(sysctl / setting) == closed:
            return Check(
                name, Status.WEAKER, f"{seen} ({setting.replace('/', '.')} = {closed})", fix
            )
    if is_filtered is None:
        is_filtered = "\nSeccomp:\t2" in _read(Path("/proc/self/status"))
    if is_filtered:
        return Check(
            name, Status.WEAKER, f"{seen} (this process is under a filter)", _CONTAINER_FIX
        )
    return Check(name, Status.WEAKER, seen, bubblewrap.REMEDY)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _landlock(finding: Finding) -> Check:
    version = landlock.abi()
    seen = f"ABI {version}; {_without_remedy(finding)}"
    if not finding.works:
        return Check("landlock", Status.WEAKER, seen, finding.remedy)
    lacks = [
        what
        for least, what in ((3, "truncate"), (4, "TCP rules"), (6, "scopes of signals and sockets"))
        if version < least
    ]
    if lacks:
        text = f"{seen}; without {', '.join(lacks)}"
        return Check("landlock", Status.WEAKER, text, "Linux 6.12 or later has all of them")
    return Check("landlock", Status.OK, seen)


async def _seccomp() -> Check:
    said = await run_step("seccomp_filter")
    if said["ok"]:
        return Check("seccomp", Status.OK, said["seen"])
    return Check(
        "seccomp",
        Status.FAIL,
        f"{said['step']}: {said['error']}",
        "use a kernel with CONFIG_SECCOMP_FILTER; both kinds of isolation need it",
    )


async def _storage(state_dir: Path) -> list[Check]:
    place = next(path for path in (state_dir, *state_dir.parents) if path.is_dir())
    mode = "root" if os.geteuid() == 0 else "user"
    checks = [
        check_overlay(f"overlay, {mode}", place, await run_step("overlay_mount", place, mode))
    ]
    if mode == "root":
        said = await run_step("overlay_mount", place, "user")
        checks.append(check_overlay("overlay, user namespace", place, said))
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK):
        said = await run_step("overlay_mount", memory, mode)
        checks.append(check_overlay("overlay, tmpfs", memory, said))
    has_overlay = checks[0].status is Status.OK
    for name, step in (("reflink", "reflink"), ("fuse-overlayfs", "fuse_overlayfs")):
        said = await run_step(step, place)
        checks.append(check_fallback(name, place, said, has_overlay=has_overlay))
    return checks


def check_fallback(name: str, place: Path, said: dict[str, Any], *, has_overlay: bool) -> Check:
    """The result of a step that matters only where the kernel has no overlay."""
    seen = f"{place}: {said['seen']}" if said["ok"] else f"{said['step']}: {said['error']}"
    if has_overlay:
        return Check(name, Status.OK, f"{seen} (not needed: overlay works)")
    if name == "reflink" and said["ok"]:
        return Check(name, Status.OK, f"{seen}; workspaces are such copies")
    if name == "reflink":
        fix = "put the state directory (TIGHTLOOP_STATE_DIR) on xfs or btrfs"
        return Check(name, Status.WEAKER, f"{seen}; every file is copied", fix)
    return Check(name, Status.WEAKER, f"{seen}; tightloop makes copies all the same", _FUSE_FIX)


def check_overlay(name: str, place: Path, said: dict[str, Any]) -> Check:
    """The result of one overlay step on a directory."""
    if said["ok"]:
        return Check(name, Status.OK, f"{place}: {said['seen']}")
    return Check(
        name,
        Status.WEAKER,
        f"{place}: {said['step']}: {said['error']}; workspaces are copies",
        "set TIGHTLOOP_STATE_DIR to a directory on ext4, xfs, btrfs or tmpfs (not on an overlay, as "
        "a container's root is), and allow user namespaces",
    )


def check_cgroup(delegation: cgroup.Delegation) -> Check:
    """Whether limits can hold for all processes together."""
    if delegation.directory is not None:
        seen = f"memory and pids delegated at {delegation.directory}"
        return Check("cgroup", Status.OK, seen)
    seen = f"{delegation.reason}; limits hold per process only"
    return Check("cgroup", Status.WEAKER, seen, cgroup.FIX)


def check_limits(policy: Policy, uid: int) -> Check:
    """Whether the limits of single processes can be set as the policy wants them."""
    wanted = {
        "processes": (resource.RLIMIT_NPROC, policy.max_processes),
        "memory": (resource.RLIMIT_DATA, policy.max_memory_bytes),
        "file size": (resource.RLIMIT_FSIZE, policy.max_file_bytes),
    }
    lower = []
    for name, (which, value) in wanted.items():
        hard = resource.getrlimit(which)[1]
        if hard != resource.RLIM_INFINITY and hard < value:
            lower.append(f"{name} {hard} instead of {value}")
    if lower:
        fix = "raise the hard limits ('ulimit -H'), or lower the policy's"
        return Check("limits", Status.WEAKER, f"lower already: {', '.join(lower)}", fix)
    if uid == 0:
        return Check(
            "limits",
            Status.WEAKER,
            "set for each process, but root is not bound by the number of processes",
            "run tightloop as an ordinary user, or in a container with a limit of its own",
        )
    return Check("limits", Status.OK, "processes, memory and file size can be set as configured")


def check_level(policy: NamedPolicy, findings: dict[str, Finding]) -> Check:
    """Whether the policy can be kept with what works here."""
    name = f"policy {policy.name}"
    kind = policy.kind()
    if kind == "none":
        return Check(name, Status.OK, "no isolation, as the policy says")
    wanted = ISOLATIONS[:2] if kind is None else (kind,)
    for one in wanted:
        if findings[one].works:
            return Check(name, Status.OK, f"kept by {one}")
    seen = "; ".join(f"{one}: {_without_remedy(findings[one])}" for one in wanted)
    return Check(name, Status.FAIL, f"cannot be kept: {seen}", findings[wanted[0]].remedy)


def check_gaps(policy: NamedPolicy, findings: dict[str, Finding]) -> Check:
    """What the isolation that will be used leaves open by its nature."""
    name = "gaps"
    kind = policy.kind()
    if kind == "none":
        return Check(name, Status.WEAKER, "no isolation: everything is open", "")
    if kind == "bubblewrap" or findings["bubblewrap"].works:
        seen = "a unix socket that a host program makes later in a readable place can be reached"
        if not policy.policy(Path("/nonexistent")).has_unix_sockets:
            return Check(name, Status.OK, "none known with bubblewrap")
        fix = (
            f'unix_sockets = "deny" in [sandbox.policies.{policy.name}] closes that, if no command'
            " needs one"
        )
        return Check(name, Status.WEAKER, f"bubblewrap leaves open: {seen}", fix)
    seen = f"landlock alone leaves open: {'; '.join(landlock.NOT_COVERED)}"
    return Check(name, Status.WEAKER, seen, "make bubblewrap work: see its line")


def _without_remedy(finding: Finding) -> str:
    """What was seen; the remedy has a line of its own."""
    return finding.detail.removesuffix(finding.remedy).rstrip(":; ")


async def _reach(policy: NamedPolicy) -> Check:
    name = "secrets and sockets"
    if policy.kind() == "none":
        seen = "without isolation whatever you can reach can be reached"
        return Check(name, Status.WEAKER, seen, "choose another policy")
    with tempfile.TemporaryDirectory(prefix="tightloop-probe-") as directory:
        inside = policy.policy(Path(directory))
        report = await check_reach(inside, policy.kind())
    if report.reached:
        hidden = ", ".join(f'"{os.path.dirname(path)}"' for path in report.reached[:3])
        return Check(
            name,
            Status.FAIL,
            f"reachable from inside: {', '.join(report.reached)}",
            f"write hidden = [{hidden}] into [sandbox.policies.{policy.name}]",
        )
    return Check(
        name, Status.OK, f"none of {report.num_files} secrets and {report.num_sockets} sockets"
    )


def _write_test(directory: Path) -> None:
    (directory / "test_probe.py").write_text("def test_probe():\n    pass\n")


async def _warm_tests(policy: NamedPolicy) -> Check:
    name = "warm tests"
    with tempfile.TemporaryDirectory(prefix="tightloop-probe-") as directory:
        _write_test(Path(directory))
        inside = policy.policy(Path(directory))
        if not inside.warm_tests:
            return Check(name, Status.OK, "switched off by the policy")
        sandbox = await open_sandbox(inside, kind=policy.kind())
        try:
            async with asyncio.timeout(_WARM_LIMIT_S):
                is_ready = await sandbox.warm_tests_ready()
            argv = ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_probe.py"]
            result = await sandbox.run(Command(argv=argv, timeout_s=_WARM_LIMIT_S))
        finally:
            await sandbox.close()
    if result.exit_code != 0:
        seen = f"pytest ended with {result.exit_code} inside: {result.output.strip()[-200:]}"
        return Check(name, Status.WEAKER, seen, "install pytest where your project's Python is")
    if not result.how.startswith("warm"):
        reason = sandbox.warm_refusal if not is_ready else f"the run was {result.how}"
        return Check(name, Status.WEAKER, f"tests start cold: {reason}")
    return Check(name, Status.OK, f"a test ran in a {result.how} process")


async def run_step(name: str, *arguments: object) -> dict[str, Any]:
    """One of ``probe_steps.STEPS`` in a process of its own; what it reported."""
    code = (
        f"import sys; sys.path.insert(0, {str(_PACKAGE_ROOT)!r}); "
        "from tightloop.sandbox.probe_steps import main; main()"
    )
    argv = [*server_argv(0)[:4], "-c", code, name, *map(str, arguments)]
    output = await _output_of(argv)
    for line in reversed(output.splitlines()):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            return said
    return {"ok": False, "step": "running", "error": output.strip()[-200:] or "it said nothing"}


async def _output_of(argv: list[str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_STEP_LIMIT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return f"no answer within {_STEP_LIMIT_S:.0f} seconds"
    return output.decode(errors="replace")

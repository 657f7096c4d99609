"""macOS: Seatbelt, through ``sandbox-exec``. Written to the interface, never run: UNTESTED.

Every command is confined by itself: our exec server needs Linux. The profile text is made by a pure
function, which is what the tests look at. Facts: sandbox-exec(1); the profile language is not
documented by Apple, so only forms that are in wide use are in here. Paths must be real ones, since
the kernel judges what links lead to (``/tmp`` is ``/private/tmp``).
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tightloop.sandbox.interface import Command, CommandResult, Policy, SandboxError
from tightloop.sandbox.output import HeadAndTail
from tightloop.trace.clock import now_ns

PROGRAM: Final = "/usr/bin/sandbox-exec"
REMEDY: Final = "sandbox-exec is part of macOS: this kind of isolation is for that system only"
_READ_BYTES: Final = 1 << 16
_SYSTEM_SERVICES: Final = (
    "com.apple.system.opendirectoryd.libinfo",
    "com.apple.system.notification_center",
    "com.apple.system.logger",
)
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty")


@dataclass(frozen=True, slots=True)
class Places:
    """Real paths. Later rules of a profile win, so ``shown`` lies over ``hidden``."""

    workspace: Path
    scratch: Path
    hidden: Sequence[Path] = ()
    shown: Sequence[Path] = ()
    protected: Sequence[Path] = ()
    is_read_only: bool = False
    has_network: bool = False


def profile(places: Places) -> str:
    """The Seatbelt profile: everything denied, then what commands need, then what they may not.

    Raises SandboxError for a path that cannot be put into a profile.
    """
    lines = [
        "(version 1)",
        "(deny default)",
        "(allow process-exec process-fork)",
        "(allow signal (target same-sandbox))",
        "(allow sysctl-read)",
        "(allow file-read*)",
        *(f"(allow mach-lookup (global-name {_text(name)}))" for name in _SYSTEM_SERVICES),
        *(f"(deny file-read* file-write* (subpath {_path(path)}))" for path in places.hidden),
        *(f"(allow file-read* (subpath {_path(path)}))" for path in places.shown),
        *(f"(allow file-write-data (literal {_text(name)}))" for name in _DEVICES),
        f"(allow file-read* file-write* (subpath {_path(places.scratch)}))",
        f"(allow file-read* (subpath {_path(places.workspace)}))",
    ]
    if not places.is_read_only:
        lines.append(f"(allow file-write* (subpath {_path(places.workspace)}))")
    lines += [f"(deny file-write* (subpath {_path(path)}))" for path in places.protected]
    if places.has_network:
        lines += ["(allow network*)", "(allow system-socket)"]
    else:
        lines.append("(deny network*)")
    return "\n".join(lines) + "\n"


def _path(path: Path) -> str:
    if not path.is_absolute():
        raise SandboxError(f"{str(path)!r} must be an absolute path")
    return _text(str(path))


def _text(value: str) -> str:
    """A string of the profile language. Raises SandboxError for control characters."""
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in value):
        raise SandboxError(f"{value!r} has control characters in it: rename it")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def command_line(text: str, command: Command, variables: Mapping[str, str]) -> list[str]:
    """``sandbox-exec`` with the profile, an environment of its own, and the command."""
    words = list(command.argv or ["/bin/bash", "--noprofile", "--norc", "-c", command.script or ""])
    environment = [f"{name}={value}" for name, value in variables.items()]
    return [PROGRAM, "-p", text, "/usr/bin/env", "-i", *environment, *words]


class SeatbeltSandbox:
    """A ``Sandbox`` for macOS. Untested; see the module."""

    kind = "seatbelt"

    def __init__(
        self, policy: Policy, environment: Mapping[str, str], hidden: Sequence[Path] = ()
    ) -> None:
        self._policy = policy
        self._environment = dict(environment)
        self._hidden = hidden
        self._scratch: Path | None = None

    async def start(self) -> None:
        """Raises SandboxError off macOS, and for a list of hosts, which needs a namespace."""
        if not os.access(PROGRAM, os.X_OK):
            raise SandboxError(f"{PROGRAM} is missing: {REMEDY}")
        if self._policy.proxy_socket is not None:
            raise SandboxError("seatbelt cannot hold commands to a list of hosts yet")
        self._scratch = _real(Path(tempfile.mkdtemp(prefix="tightloop-")))
        self._environment["TMPDIR"] = str(self._scratch)

    def _profile(self) -> str:
        if self._scratch is None:
            raise SandboxError("the sandbox has not been started")
        policy = self._policy
        return profile(
            Places(
                workspace=_real(policy.workspace),
                scratch=self._scratch,
                hidden=[_real(path) for path in (*self._hidden, *policy.hidden)],
                shown=[_real(path) for path in policy.read_only],
                protected=[_real(path) for path in policy.protected],
                is_read_only=policy.is_read_only,
                has_network=policy.allow_network,
            )
        )

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command to its end; see ``Sandbox.run``."""
        started_ns = now_ns()
        variables = {**self._environment, **self._policy.environment, **command.environment}
        process = await asyncio.create_subprocess_exec(
            *command_line(self._profile(), command, variables),
            cwd=_real(self._policy.workspace / command.cwd),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        kept = HeadAndTail(self._policy.max_output_bytes)
        timed_out = False
        try:
            async with asyncio.timeout(command.timeout_s):
                assert process.stdout is not None, "asked for above"
                while piece := await process.stdout.read(_READ_BYTES):
                    kept.add(piece)
                    if on_output is not None:
                        on_output(piece)
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        code = process.returncode if process.returncode is not None else -signal.SIGKILL
        return CommandResult(
            code, kept.text(), started_ns, now_ns(), kept.is_truncated, timed_out, "single-use"
        )

    async def close(self) -> None:
        """The scratch directory is gone. May be called twice."""
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))

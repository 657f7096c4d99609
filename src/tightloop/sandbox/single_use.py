"""A sandbox that is entered afresh for every command, as most agents do it.

Stronger separation between commands, paid for with a start of the isolation and a cold process
each time. The demo's classic path is measured with it. With bubblewrap no exec server runs inside:
it starts the command itself, so the figure is that of the isolation and not of our server.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace

from tightloop.sandbox.environment import snapshot
from tightloop.sandbox.interface import Command, CommandResult, Policy, SandboxError
from tightloop.sandbox.isolation import KINDS, open_sandbox
from tightloop.sandbox.launch import Launch, server_argv
from tightloop.sandbox.output import HeadAndTail
from tightloop.trace.clock import now_ns

_READ_BYTES = 1 << 16
_NO_FD = 0


class SingleUseSandbox:
    """A ``Sandbox`` without a life of its own: every command gets new isolation."""

    def __init__(self, policy: Policy, *, kind: str) -> None:
        """``kind`` is one of ``isolation.KINDS``."""
        if kind not in KINDS:
            raise SandboxError(f"unknown isolation {kind!r}: known are {', '.join(KINDS)}")
        self.kind = kind
        self._policy = policy

    async def start(self) -> None:
        """Check once that the kind works here; raises SandboxError with the remedy."""
        sandbox = await open_sandbox(self._policy, kind=self.kind)
        await sandbox.close()

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command in isolation of its own; see ``Sandbox.run``."""
        started_ns = now_ns()
        if self.kind == "landlock":
            return await self._run_with_server(command, on_output)
        launch = self._launch(command)
        try:
            process = await asyncio.create_subprocess_exec(
                *launch.argv,
                pass_fds=launch.fds,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=launch.extra_environment,
                cwd=self._policy.workspace / command.cwd,
                start_new_session=True,
            )
        finally:
            for fd in launch.fds:
                os.close(fd)
        kept = HeadAndTail(self._policy.max_output_bytes)
        timed_out = False
        try:
            async with asyncio.timeout(command.timeout_s):
                await _read_all(process, kept, on_output)
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

    async def _run_with_server(
        self, command: Command, on_output: Callable[[bytes], None] | None
    ) -> CommandResult:
        """Landlock confines the exec server itself, so its start is part of the cost here."""
        started_ns = now_ns()
        policy = replace(self._policy, warm_tests=False)
        sandbox = await open_sandbox(policy, kind=self.kind)
        try:
            result = await sandbox.run(command, on_output)
        finally:
            await sandbox.close()
        return replace(result, started_ns=started_ns, ended_ns=now_ns(), how="single-use")

    def _launch(self, command: Command) -> Launch:
        """The isolation's own line, ending in the command instead of the exec server."""
        environment = snapshot(os.environ, self._policy.workspace)
        launch = KINDS[self.kind].prepare(self._policy, environment, _NO_FD)
        prefix = list(launch.argv[: len(launch.argv) - len(server_argv(_NO_FD))])
        variables = {**environment, **self._policy.environment, **command.environment}
        words = list(command.argv or ["bash", "--noprofile", "--norc", "-c", command.script or ""])
        inside = os.path.normpath(self._policy.workspace / command.cwd)
        line = ["env", "-i", "-C", inside, *(f"{k}={v}" for k, v in variables.items()), *words]
        return Launch([*prefix, *line], launch.fds, {"PATH": variables["PATH"]})

    async def close(self) -> None:
        """Nothing is kept between commands."""


async def _read_all(
    process: asyncio.subprocess.Process,
    kept: HeadAndTail,
    on_output: Callable[[bytes], None] | None,
) -> None:
    assert process.stdout is not None
    while piece := await process.stdout.read(_READ_BYTES):
        kept.add(piece)
        if on_output is not None:
            on_output(piece)
    await process.wait()

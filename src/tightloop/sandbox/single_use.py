"""A sandbox that is entered afresh for every command, as most agents do it.

Stronger separation between commands, paid for with a start of the isolation and a cold process
each time. The demo's classic path is measured with it. With bubblewrap no exec server runs inside:
it starts the command itself, so the figure is that of the isolation and not of our server. Where
that start should happen while nobody waits, see ``pool.py``.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace

from tightloop.sandbox.command_run import sealed_file
from tightloop.sandbox.environment import snapshot
from tightloop.sandbox.interface import Command, CommandResult, Policy, SandboxError
from tightloop.sandbox.isolation import KINDS, open_sandbox, redactor_for
from tightloop.sandbox.launch import Launch, server_argv
from tightloop.sandbox.output import HeadAndTail
from tightloop.sandbox.redaction import Redactor
from tightloop.trace.clock import now_ns

_READ_BYTES = 1 << 16
_NO_FD = 0


class SingleUseSandbox:
    """A ``Sandbox`` without a life of its own: every command gets new isolation."""

    def __init__(
        self, policy: Policy, *, kind: str, source: Mapping[str, str] | None = None
    ) -> None:
        """``kind`` is one of ``isolation.KINDS``; ``source`` is as for ``open_sandbox``."""
        if kind not in KINDS:
            raise SandboxError(f"unknown isolation {kind!r}: known are {', '.join(KINDS)}")
        self.kind = kind
        self._policy = policy
        self._source = os.environ if source is None else source
        self._redactor = redactor_for(policy, self._source)

    async def start(self) -> None:
        """Check once that the kind works here; raises SandboxError with the remedy."""
        sandbox = await open_sandbox(self._policy, kind=self.kind, source=self._source)
        await sandbox.close()

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command in isolation of its own; see ``Sandbox.run``."""
        started_ns = now_ns()
        if self.kind != "bubblewrap" or _needs_server(command):
            return await self._run_with_server(command, on_output)
        launch = self._launch(command)
        stdin = sealed_file(command.stdin) if command.stdin else asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *launch.argv,
                pass_fds=launch.fds,
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=launch.extra_environment,
                cwd=self._policy.workspace / command.cwd,
                start_new_session=True,
            )
        except BaseException:
            launch.clean_up()
            raise
        finally:
            for fd in (*launch.fds, *([stdin] if command.stdin else [])):
                os.close(fd)
        kept = HeadAndTail(self._policy.max_output_bytes)
        timed_out = False
        try:
            async with asyncio.timeout(command.timeout_s):
                await _read_all(process, kept, self._redactor, on_output)
        except TimeoutError:
            timed_out = True
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            launch.clean_up()
        code = process.returncode if process.returncode is not None else -signal.SIGKILL
        return CommandResult(
            code, kept.text(), started_ns, now_ns(), kept.is_truncated, timed_out, "single-use"
        )

    async def _run_with_server(
        self, command: Command, on_output: Callable[[bytes], None] | None
    ) -> CommandResult:
        """Nothing but an exec server ends all that a command began, without namespaces.

        Landlock confines that server itself, so its start is part of the cost here.
        """
        started_ns = now_ns()
        policy = replace(self._policy, warm_tests=False)
        sandbox = await open_sandbox(policy, kind=self.kind, source=self._source)
        try:
            result = await sandbox.run(command, on_output)
        finally:
            await sandbox.close()
        return replace(result, started_ns=started_ns, ended_ns=now_ns(), how="single-use")

    def _launch(self, command: Command) -> Launch:
        """The isolation's own line, ending in the command instead of the exec server."""
        environment = snapshot(self._source, self._policy.workspace)
        launch = KINDS[self.kind].prepare(self._policy, environment, _NO_FD)
        prefix = list(launch.argv[: len(launch.argv) - len(server_argv(_NO_FD))])
        variables = {**environment, **self._policy.environment, **command.environment}
        words = list(command.argv or ["bash", "--noprofile", "--norc", "-c", command.script or ""])
        inside = os.path.normpath(self._policy.workspace / command.cwd)
        line = ["env", "-i", "-C", inside, *(f"{k}={v}" for k, v in variables.items()), *words]
        return Launch([*prefix, *line], launch.fds, {"PATH": variables["PATH"]})

    async def close(self) -> None:
        """Nothing is kept between commands."""


def _needs_server(command: Command) -> bool:
    """Whether the command asks for more than bwrap itself can give it."""
    return bool(command.is_stdin_open or command.terminal or command.limits)


async def _read_all(
    process: asyncio.subprocess.Process,
    kept: HeadAndTail,
    redactor: Redactor,
    on_output: Callable[[bytes], None] | None,
) -> None:
    def hear(data: bytes) -> None:
        if data:
            kept.add(data)
            if on_output is not None:
                on_output(data)

    assert process.stdout is not None
    stream = redactor.stream()
    try:
        while piece := await process.stdout.read(_READ_BYTES):
            hear(stream.feed(piece))
    finally:
        hear(stream.end())
    await process.wait()

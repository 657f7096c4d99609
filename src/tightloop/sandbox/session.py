"""The near end of one persistent sandbox: starts it, hands commands in, collects their output.

Each command's output comes through a pipe made here and passed inside, so it costs no hop. The
connection is not trusted: what the inside says is parsed with bounds and can only end commands.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tightloop.sandbox.exec_server import MAX_MESSAGE_BYTES
from tightloop.sandbox.interface import Command, CommandResult, Policy, SandboxError
from tightloop.sandbox.launch import Kind, Launch
from tightloop.sandbox.output import HeadAndTail
from tightloop.sandbox.pytest_command import warm_request, zygote_argv
from tightloop.trace.clock import now_ns

_READ_BYTES = 1 << 16
_START_LIMIT_S = 20.0
_KILL_LIMIT_S = 10.0
_LEFT_IN_PIPE = 64  # reads after the end: more than a pipe can hold means a writer escaped


class _Run:
    """One command under way: its pipe, what it wrote, and a future for its end."""

    def __init__(
        self, read_fd: int, max_bytes: int, on_output: Callable[[bytes], None] | None
    ) -> None:
        self.read_fd = read_fd
        self.kept = HeadAndTail(max_bytes)
        self.on_output = on_output
        self.ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.timed_out = False

    def read_once(self) -> bool:
        """Take what is there; False at the end of the file or when nothing is there."""
        try:
            data = os.read(self.read_fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self.kept.add(data)
            if self.on_output is not None:
                self.on_output(data)
        return bool(data)


class PersistentSandbox:
    """A ``Sandbox``: one exec server inside one isolation, entered once."""

    def __init__(self, kind: Kind, policy: Policy, environment: dict[str, str]) -> None:
        self.kind = kind.name
        self.workspace = policy.workspace
        self._kind = kind
        self._policy = policy
        self._environment = environment
        self._launch: Launch | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._runs: dict[int, _Run] = {}
        self._num_commands = 0
        self._ready: asyncio.Future[dict[str, Any]] | None = None
        self._warm: asyncio.Future[bool] | None = None
        self._failure = ""
        self.warm_refusal = ""
        """Why there is no warm test process, once ``warm_tests_ready`` has said so."""
        self.not_stronger = ""
        """Why a stronger kind was not taken; empty when there is none or it was not asked for."""

    async def start(self) -> None:
        """Be ready for commands. Raises SandboxError naming what is missing and the fix."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            self._launch = self._kind.prepare(self._policy, self._environment, theirs.fileno())
            self._process = await asyncio.create_subprocess_exec(
                *self._launch.argv,
                pass_fds=(theirs.fileno(), *self._launch.fds),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=self._launch.extra_environment,
                cwd="/",
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in self._launch.fds if self._launch is not None else ():
                os.close(fd)
        self._control = ours
        self._ready = loop.create_future()
        self._warm = loop.create_future()
        loop.add_reader(ours.fileno(), self._on_message)
        try:
            await self._configure()
        except BaseException:
            await self.close()
            raise

    async def _configure(self) -> None:
        assert self._ready is not None
        assert self._warm is not None
        argv = zygote_argv(self._environment, self._policy) if self._policy.warm_tests else None
        if argv is None:
            self._warm.set_result(False)
        message = {
            "op": "config",
            "environment": {**self._environment, **self._policy.environment},
            "limits": _limits(self._policy),
            "zygote": argv,
        }
        try:
            await self._send(message)
            async with asyncio.timeout(_START_LIMIT_S):
                ready = await self._ready
        except (TimeoutError, SandboxError) as error:
            raise SandboxError(await self._why_not_started(error)) from error
        self._check_confinement(ready["status"])

    async def _why_not_started(self, error: Exception) -> str:
        said = b""
        if self._process is not None and self._process.stderr is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            said = await self._process.stderr.read(4096)
        reason = said.decode(errors="replace").strip() or str(error) or type(error).__name__
        return f"{self.kind} sandbox did not start: {reason}; {self._kind.remedy}"

    def _check_confinement(self, status: dict[str, str]) -> None:
        """What the kernel says about the exec server itself must match the kind's promise."""
        if not self._kind.is_confined:
            return
        expected = {"CapEff": 0, "CapPrm": 0, "NoNewPrivs": 1, "Seccomp": 2}
        for name, value in expected.items():
            if int(status.get(name) or "-1", 16) != value:
                raise SandboxError(
                    f"{self.kind} sandbox is not tight: {name} is {status.get(name)!r} inside, "
                    f"expected {value}; refusing to use it"
                )

    async def warm_tests_ready(self) -> bool:
        """Waits for the warm test process; False when this sandbox has none."""
        if self._warm is None:
            raise SandboxError("the sandbox has not been started")
        return await asyncio.shield(self._warm)

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command to its end; see ``Sandbox.run``.

        Raises SandboxError when the sandbox is not running or dies meanwhile, ValueError for a
        command that has both or neither of argv and script.
        """
        self._num_commands += 1
        number = self._num_commands
        request = self._request(number, command)
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_fd, False)
        loop = asyncio.get_running_loop()
        run = self._runs[number] = _Run(read_fd, self._policy.max_output_bytes, on_output)
        started_ns = now_ns()
        timers: list[asyncio.TimerHandle] = []
        try:
            try:
                await self._send(request, write_fd)
            finally:
                os.close(write_fd)
            loop.add_reader(read_fd, self._on_output, run)
            timers.append(loop.call_later(command.timeout_s, self._on_timeout, number, timers))
            end = await run.ended
            ended_ns = now_ns()
            for _ in range(_LEFT_IN_PIPE):
                if not run.read_once():
                    break
        except asyncio.CancelledError:
            self._kill(number)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            self._runs.pop(number, None)
            loop.remove_reader(read_fd)
            os.close(read_fd)
        return _result(end, run, started_ns, ended_ns)

    def _request(self, number: int, command: Command) -> dict[str, Any]:
        if (command.argv is None) == (command.script is None):
            raise ValueError("a command needs either argv or script")
        argv = command.argv
        if argv is None:
            argv = ["/bin/bash", "--noprofile", "--norc", "-c", command.script or ""]
        if not argv:
            raise ValueError("a command's argv may not be empty")
        cwd = os.path.join(self._policy.workspace, command.cwd)
        known = {**self._environment, **self._policy.environment, **command.environment}
        warm = warm_request(command, cwd, known) if self._policy.warm_tests else None
        return {
            "op": "run",
            "id": number,
            "argv": list(argv),
            "cwd": cwd,
            "environment": dict(command.environment),
            "warm": warm,
        }

    async def close(self) -> None:
        """End every process inside. May be called twice."""
        self._disconnect(SandboxError("the sandbox was closed"))
        process, self._process = self._process, None
        if process is not None:
            try:
                async with asyncio.timeout(_KILL_LIMIT_S):
                    await process.wait()  # the server ends its children at the end of the stream
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        launch, self._launch = self._launch, None
        if launch is not None:
            launch.clean_up()

    # -- the connection

    async def _send(self, message: dict[str, Any], fd: int | None = None) -> None:
        data = json.dumps(message).encode()
        if len(data) > MAX_MESSAGE_BYTES:
            raise SandboxError(
                f"the command takes {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are possible: "
                "write the script to a file in the workspace and run that"
            )
        while True:
            if self._control is None:
                raise SandboxError(self._failure or "the sandbox is not running: start it first")
            try:
                if fd is None:
                    self._control.send(data)
                else:
                    socket.send_fds(self._control, [data], [fd])
            except BlockingIOError:
                await _writable(self._control)
            except (BrokenPipeError, ConnectionResetError) as error:
                self._disconnect(SandboxError("the exec server inside the sandbox has died"))
                raise SandboxError(self._failure) from error
            else:
                return

    def _on_message(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(MAX_MESSAGE_BYTES)
            message = json.loads(data) if data else None
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message = None
        if not isinstance(message, dict):
            self._disconnect(SandboxError("the exec server inside the sandbox has died"))
            return
        operation = message.get("op")
        if operation == "ready" and self._ready is not None and not self._ready.done():
            self._ready.set_result(message)
        elif operation == "zygote" and self._warm is not None and not self._warm.done():
            self.warm_refusal = str(message.get("reason", message.get("state")))
            self._warm.set_result(message.get("state") == "ready")
        elif operation in ("exit", "failed"):
            run = self._runs.get(message.get("id", 0))
            if run is not None and not run.ended.done():
                run.ended.set_result(message)

    def _on_output(self, run: _Run) -> None:
        if not run.read_once():
            # Closed by the command while it still runs: its end comes over the connection.
            asyncio.get_running_loop().remove_reader(run.read_fd)

    def _on_timeout(self, number: int, timers: list[asyncio.TimerHandle]) -> None:
        run = self._runs.get(number)
        if run is None:
            return
        run.timed_out = True
        self._kill(number)
        # A server that does not answer is killed with everything inside.
        loop = asyncio.get_running_loop()
        dead = SandboxError("the exec server inside the sandbox did not end a command")
        timers.append(loop.call_later(_KILL_LIMIT_S, self._disconnect, dead))

    def _kill(self, number: int) -> None:
        if self._control is None:
            return
        try:
            self._control.send(json.dumps({"op": "kill", "id": number}).encode())
        except OSError:
            self._disconnect(SandboxError("the exec server inside the sandbox does not answer"))

    def _disconnect(self, reason: SandboxError) -> None:
        """No more commands; those under way fail with the reason. The server sees the end."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
            self._failure = str(reason)
        waiting = [self._ready, self._warm, *(run.ended for run in self._runs.values())]
        for future in waiting:
            if future is None or future.done():
                continue
            if future is self._warm:
                self._warm.set_result(False)
            else:
                future.set_exception(reason)
                future.exception()  # seen here: whoever waits for it sees it too


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.add_writer(connection.fileno(), _set, done)
    try:
        await done
    finally:
        loop.remove_writer(connection.fileno())


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _limits(policy: Policy) -> dict[str, int]:
    """Resource limits of every process inside. DATA rather than AS: runtimes reserve space."""
    return {
        "CORE": 0,
        "NPROC": policy.max_processes,
        "FSIZE": policy.max_file_bytes,
        "DATA": policy.max_memory_bytes,
        "NOFILE": 4096,
    }


def _result(end: dict[str, Any], run: _Run, started_ns: int, ended_ns: int) -> CommandResult:
    output = run.kept.text()
    if end["op"] == "failed":
        output += f"{end['message']}\n"
    return CommandResult(
        exit_code=int(end["code"]),
        output=output,
        started_ns=started_ns,
        ended_ns=ended_ns,
        is_truncated=run.kept.is_truncated,
        timed_out=run.timed_out,
        how=str(end.get("how", "spawn")),
    )


def workspace_of(policy: Policy) -> Path:
    """The policy's workspace without symbolic links. Raises SandboxError when it is missing."""
    workspace = Path(os.path.realpath(policy.workspace))
    if not workspace.is_dir():
        raise SandboxError(f"workspace {str(policy.workspace)!r} is not a directory")
    if workspace == Path("/"):
        raise SandboxError("the root directory cannot be a workspace: name a directory below it")
    return workspace

"""The near end of one persistent sandbox: starts it, hands commands in, hears how they end.

Each command's streams are made in ``command_run.py`` and passed inside, so its output costs no
hop. The connection is not trusted: what the inside says is parsed with bounds and can only end
commands.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tightloop.sandbox.command_run import KILL_LIMIT_S, CommandRun
from tightloop.sandbox.exec_server import MAX_MESSAGE_BYTES, NUM_TAGS
from tightloop.sandbox.interface import (
    Command,
    CommandResult,
    Limits,
    Policy,
    SandboxError,
    SandboxTooSlow,
)
from tightloop.sandbox.landlock import NO_SECOND_LAYER
from tightloop.sandbox.launch import Kind, Launch
from tightloop.sandbox.pytest_command import warm_request, zygote_argv
from tightloop.sandbox.redaction import Redactor
from tightloop.sandbox.strays import end_tagged

START_LIMIT_S = 20.0


class PersistentSandbox:
    """An ``InteractiveSandbox``: one exec server inside one isolation, entered once."""

    def __init__(
        self,
        kind: Kind,
        policy: Policy,
        environment: dict[str, str],
        redactor: Redactor | None = None,
        *,
        start_limit_s: float = START_LIMIT_S,
    ) -> None:
        self.kind = kind.name
        self.workspace = policy.workspace
        self._kind = kind
        self._policy = policy
        self._environment = environment
        self._start_limit_s = start_limit_s
        self._launch: Launch | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._runs: dict[int, CommandRun] = {}
        self._has_terminals = False
        self._tag = _random_tag()
        self._num_commands = 0
        self._ready: asyncio.Future[dict[str, Any]] | None = None
        self._warm: asyncio.Future[bool] | None = None
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._room: asyncio.Future[None] | None = None
        self._late: set[asyncio.Task[None]] = set()
        self._failure = ""
        self.warm_refusal = ""
        """Why there is no warm test process, once ``warm_tests_ready`` has said so."""
        self.allows_warm = True
        """Whether warm runs may happen; set it to False once one was wrong."""
        self.redactor = redactor or Redactor()
        """What is made unreadable in output: whoever passes on other text can use it too."""
        self.not_stronger = ""
        """Why a stronger kind was not taken; empty when there is none or it was not asked for."""
        self.lacks = ""
        """Which layer of this kind the kernel does not offer; empty when all are there."""

    async def start(self) -> None:
        """Be ready for commands. Raises SandboxError naming what is missing and the fix."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            self._launch = self._kind.prepare(self._policy, self._environment, theirs.fileno())
            self._launch.note_tag(self._tag)
            await self._spawn(self._launch, theirs.fileno())
        except BaseException:
            ours.close()
            await self.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        self._ready = loop.create_future()
        self._warm = loop.create_future()
        loop.add_reader(ours.fileno(), self._on_message)
        try:
            await self._configure(self._launch.writable)
        except BaseException:
            await self.close()
            raise

    async def _spawn(self, launch: Launch, server_fd: int) -> None:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *launch.argv,
                pass_fds=(server_fd, *launch.fds),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=launch.extra_environment,
                cwd="/",
                start_new_session=True,  # a ^C is for us to handle
            )
        )
        try:
            self._process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._process = await starting  # asyncio would leave pipes of a half-made one open
            raise
        finally:
            for fd in launch.fds:
                os.close(fd)

    async def _configure(self, writable: Sequence[str] | None) -> None:
        assert self._ready is not None
        assert self._warm is not None
        argv = None
        if self._policy.warm_tests:
            argv = zygote_argv(self._environment, self._policy, is_confined=self._kind.is_confined)
        if argv is None:
            self._warm.set_result(False)
        message = {
            "op": "config",
            "environment": {**self._environment, **self._policy.environment},
            "limits": _limits(self._policy),
            "zygote": argv,
            "tag": self._tag,
            "writable": writable,
        }
        terminals = [] if writable is None else _own_terminals()
        try:
            await self._send(message, terminals)
            async with asyncio.timeout(self._start_limit_s):
                ready = await self._ready
        except TimeoutError as error:
            raise SandboxTooSlow(await self._why_too_slow()) from error
        except SandboxError as error:
            raise SandboxError(await self._why_not_started(error)) from error
        finally:
            for fd in terminals:
                os.close(fd)
        self._check_confinement(ready["status"])
        if writable is not None and not ready.get("landlock"):
            self.lacks = NO_SECOND_LAYER
        self._has_terminals = bool(ready.get("has_terminals"))

    async def _why_too_slow(self) -> str:
        said = await self._last_words()
        return (
            f"{self.kind} sandbox did not start within {self._start_limit_s:g} s"
            f"{f' ({said})' if said else ''}; wait for the machine to be less busy and try again, "
            "or name another isolation"
        )

    async def _last_words(self) -> str:
        if self._process is None or self._process.stderr is None:
            return ""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        return (await self._process.stderr.read(4096)).decode(errors="replace").strip()

    async def _why_not_started(self, error: Exception) -> str:
        reason = await self._last_words() or str(error) or type(error).__name__
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

    def refresh(self) -> None:
        """Files of the workspace change: a warm test process may get ready again by itself.

        Never waits and never raises; does nothing where no such process is.
        """
        if self._warm is not None and self._warm.done() and self._warm.result():
            self._post({"op": "refresh"})

    @property
    def pid(self) -> int | None:
        """The outermost process of the sandbox, on the host; None when it is not running."""
        return None if self._process is None else self._process.pid

    async def remember(self, places: Sequence[str]) -> None:
        """What is in these private directories now stays; ``clear`` removes all that is not.

        Waits for the warm test process, which is there for every use.
        """
        await self.warm_tests_ready()
        await self._send({"op": "remember", "places": list(places)})

    async def clear(self) -> None:
        """No process but the warm ones is left, nor a file that was made since ``remember``.

        Commands still under way are ended. Raises SandboxError when something stays, or when the
        sandbox is not running: it may not be used again then.
        """
        for run in list(self._runs.values()):
            run.kill()
        try:
            async with asyncio.timeout(KILL_LIMIT_S):
                reason = (await self._ask("clear", "cleared"))["reason"]
        except TimeoutError:  # a command may have stopped it
            self._disconnect(SandboxError("the exec server inside the sandbox did not clear it"))
            raise SandboxError(self._failure) from None
        if reason:
            raise SandboxError(f"the sandbox cannot be used again: {reason}")

    async def settled(self) -> None:
        """The warm test process has nothing left to learn from the runs so far."""
        await self._ask("settle", "settled")

    async def _ask(self, question: str, answer: str) -> dict[str, Any]:
        """One question of a kind at a time. Raises SandboxError when the sandbox is over."""
        if self._control is None:
            raise SandboxError(self._failure or "the sandbox is not running: start it first")
        waiting = self._answers.get(answer)
        if waiting is None or waiting.done():
            waiting = self._answers[answer] = asyncio.get_running_loop().create_future()
            self._post({"op": question})
        return await asyncio.shield(waiting)

    async def run(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandResult:
        """Run one command to its end; see ``Sandbox.run``.

        Raises SandboxError when the sandbox is not running or dies meanwhile, ValueError for a
        command that has both or neither of argv and script.
        """
        run = await self.begin(command, on_output)
        try:
            return await run.wait()
        except asyncio.CancelledError:
            self._runs.pop(run.number, None)
            run.discard()
            raise

    async def begin(
        self, command: Command, on_output: Callable[[bytes], None] | None = None
    ) -> CommandRun:
        """Start one command; see ``InteractiveSandbox.begin``. Raises what ``run`` raises."""
        self._num_commands += 1
        number = self._num_commands
        request = self._request(number, command)
        max_output_bytes = _smaller(self._policy.max_output_bytes, command.limits)
        run = CommandRun(
            number,
            command,
            max_output_bytes,
            on_output,
            self._post,
            self._on_no_answer,
            self.redactor,
        )
        self._runs[number] = run
        passed: list[int] = []
        try:
            try:
                run.open(
                    passed,
                    has_terminals=self._has_terminals,
                    has_report="report" in request,
                )
                await self._send(request, passed)
            finally:
                for fd in passed:
                    os.close(fd)
            await run.begin()
        except BaseException:
            self._runs.pop(number, None)
            run.discard()
            raise
        return run

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
        is_plain = not (
            command.stdin or command.is_stdin_open or command.terminal or command.limits
        )
        is_warm = is_plain and self._policy.warm_tests and self.allows_warm
        request: dict[str, Any] = {
            "op": "run",
            "id": number,
            "argv": list(argv),
            "cwd": cwd,
            "environment": dict(command.environment),
            "warm": warm_request(command, cwd, known) if is_warm else None,
        }
        if command.is_reporting and request["warm"] is not None:
            request["report"] = True
        if command.terminal is not None:
            request["terminal"] = [command.terminal.rows, command.terminal.columns]
            request["is_made_inside"] = self._has_terminals
        if command.limits is not None:
            request["limits"] = _kernel_limits(command.limits)
        return request

    @property
    def environment(self) -> dict[str, str]:
        """What every command inside knows, unless it is given other values."""
        return {**self._environment, **self._policy.environment}

    async def close(self) -> None:
        """End every process inside. May be called twice, also after it was cancelled."""
        self._disconnect(SandboxError("the sandbox was closed"))
        process = self._process
        if process is not None:
            try:
                async with asyncio.timeout(KILL_LIMIT_S):
                    await process.wait()  # the server ends its children at the end of the stream
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self._process = None
            if process.returncode != 0:
                # It ended before its children. Without a namespace they live on, but for this.
                await asyncio.to_thread(end_tagged, self._tag)
        self._clean_up()

    def _clean_up(self) -> None:
        launch, self._launch = self._launch, None
        if launch is not None:
            launch.clean_up()

    @property
    def is_alive(self) -> bool:
        """Whether it takes commands, as far as is known."""
        return self._control is not None

    # -- the connection

    async def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
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
                if fds:
                    socket.send_fds(self._control, [data], fds)
                else:
                    self._control.send(data)
            except BlockingIOError:
                await self._has_room()
            except (BrokenPipeError, ConnectionResetError) as error:
                self._disconnect(SandboxError("the exec server inside the sandbox has died"))
                raise SandboxError(self._failure) from error
            else:
                return

    async def _has_room(self) -> None:
        """Something can be sent, or the connection is over."""
        if self._room is None and self._control is not None:
            loop = asyncio.get_running_loop()
            self._room = loop.create_future()
            loop.add_writer(self._control.fileno(), self._on_room)
        if self._room is not None:
            await asyncio.shield(self._room)

    def _on_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            assert self._control is not None
            asyncio.get_running_loop().remove_writer(self._control.fileno())
            room.set_result(None)

    async def _send_later(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(SandboxError):
            await self._send(message)

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
            number = message.get("id")
            run = self._runs.pop(number, None) if isinstance(number, int) else None
            if run is not None:
                run.finish(message)
        elif isinstance(operation, str):
            waiting = self._answers.get(operation)
            if waiting is not None and not waiting.done():
                waiting.set_result({"reason": "", **message})

    def _on_no_answer(self) -> None:
        """A server that does not answer is killed with everything inside."""
        self._disconnect(SandboxError("the exec server inside the sandbox did not end a command"))

    def _post(self, message: dict[str, Any]) -> None:
        if self._control is None:
            return
        try:
            self._control.send(json.dumps(message).encode())
        except BlockingIOError:  # it is busy, which is no reason to end everything
            task = asyncio.ensure_future(self._send_later(message))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        except OSError:
            self._disconnect(SandboxError("the exec server inside the sandbox does not answer"))

    def _disconnect(self, reason: SandboxError) -> None:
        """No more commands; those under way fail with the reason. The server sees the end."""
        if self._control is not None:
            self._on_room()
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
            self._failure = str(reason)
        runs, self._runs = self._runs, {}
        for run in runs.values():
            run.fail(reason)
        for future in (self._ready, self._warm, *self._answers.values()):
            if future is None or future.done():
                continue
            if future is self._warm:
                self._warm.set_result(False)
            else:
                future.set_exception(reason)
                future.exception()  # seen here: whoever waits for it sees it too


def _own_terminals() -> list[int]:
    """What a command opens again by ``/dev/stdout`` when its output is a terminal made here."""
    try:
        return [os.open("/dev/pts", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    except OSError:
        return []


def _limits(policy: Policy) -> dict[str, int]:
    """Resource limits of every process inside. DATA rather than AS: runtimes reserve space."""
    return {
        "CORE": 0,
        "NPROC": policy.max_processes,
        "FSIZE": policy.max_file_bytes,
        "DATA": policy.max_memory_bytes,
        "NOFILE": 4096,
    }


def _kernel_limits(limits: Limits) -> dict[str, int]:
    wanted = {
        "DATA": limits.max_memory_bytes,
        "NPROC": limits.max_processes,
        "FSIZE": limits.max_file_bytes,
        "CPU": limits.max_cpu_s,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _smaller(max_output_bytes: int, limits: Limits | None) -> int:
    if limits is None or limits.max_output_bytes is None:
        return max_output_bytes
    return min(max_output_bytes, limits.max_output_bytes)


def _random_tag() -> int:
    """The first of the numbers by which the processes of one sandbox are known on this machine."""
    return (1 << 61) + int.from_bytes(os.urandom(4)) * NUM_TAGS


def workspace_of(policy: Policy) -> Path:
    """The policy's workspace without symbolic links. Raises SandboxError when it is missing."""
    workspace = Path(os.path.realpath(policy.workspace))
    if not workspace.is_dir():
        raise SandboxError(f"workspace {str(policy.workspace)!r} is not a directory")
    if workspace == Path("/"):
        raise SandboxError("the root directory cannot be a workspace: name a directory below it")
    return workspace

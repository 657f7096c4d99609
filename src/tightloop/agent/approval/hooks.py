"""Commands of the user that run when something happens, and may stop it.

They run outside the sandbox, as the user who configured them, and get one JSON object on their
standard input. Those before a call or a patch are waited for, one after the other: status 0 lets it
go on, status 2 denies with standard error as the reason, and so does ``{"decision": "deny",
"reason": "..."}`` on standard output. All others run beside the loop, in order, and delay nothing.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from tightloop.sandbox.redaction import is_secret_name
from tightloop.trace.clock import Clock, MonotonicClock

MAX_OUTPUT_BYTES = 64 << 10
"""Of each stream; a hook that writes more has failed."""
CLOSING_S = 10.0
"""How long the end of a conversation waits for hooks that still run."""


class HookEvent(StrEnum):
    """When hooks run."""

    SESSION_START = "session_start"
    SESSION_END = "session_end"
    TURN_START = "turn_start"
    TURN_END = "turn_end"
    BEFORE_TOOL = "before_tool"
    AFTER_TOOL = "after_tool"
    BEFORE_PATCH = "before_patch"
    AFTER_PATCH = "after_patch"

    @property
    def can_deny(self) -> bool:
        """Whether it is waited for."""
        return self in (HookEvent.BEFORE_TOOL, HookEvent.BEFORE_PATCH)


@dataclass(frozen=True, slots=True)
class Hook:
    """One command. ``tools`` are the names that it is for, stars allowed; empty for all.

    ``environment`` names variables that it gets although they hold secrets. ``denies_on_failure``:
    what it guards does not happen when it fails, for the events that can be denied.
    """

    command: tuple[str, ...]
    timeout_s: float = 10.0
    tools: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    denies_on_failure: bool = True


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a hook ended. ``failure`` says why it counts as failed; ``denial`` is its reason."""

    event: str
    command: tuple[str, ...]
    status: int | None
    output: str
    error: str
    wall_s: float
    failure: str = ""
    denial: str | None = None


Record = Callable[[HookResult], None]


def hook_environment(source: Mapping[str, str], kept: Sequence[str] = ()) -> dict[str, str]:
    """The variables of the user but for secrets, unless they are named."""
    return {
        name: value for name, value in source.items() if not is_secret_name(name) or name in kept
    }


@dataclass(slots=True)
class Hooks:
    """The hooks of one conversation. ``base`` is in every object that they get."""

    hooks: Mapping[HookEvent, Sequence[Hook]]
    record: Record = lambda _result: None
    base: dict[str, Any] = field(default_factory=dict)
    directory: Path | None = None
    source: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=MonotonicClock)
    _waiting: deque[tuple[HookEvent, Hook, bytes]] = field(default_factory=deque)
    _worker: asyncio.Task[None] | None = None

    def has(self, event: HookEvent, tool: str = "") -> bool:
        """Whether a hook runs at this event."""
        return bool(self._chosen(event, tool))

    def has_any(self, *events: HookEvent) -> bool:
        """Whether a hook is configured for one of these events."""
        return any(self.hooks.get(event) for event in events)

    async def before(self, event: HookEvent, tool: str, fields: Mapping[str, Any]) -> str | None:
        """Run the hooks of an event that can be denied; why one denies it, else None."""
        for hook in self._chosen(event, tool):
            result = await self._run(event, hook, self._body(event, fields))
            self.record(result)
            if result.denial is not None:
                return result.denial
            if result.failure and hook.denies_on_failure:
                return f"the hook {hook.command[0]!r} failed: {result.failure}"
        return None

    def after(self, event: HookEvent, tool: str, fields: Mapping[str, Any]) -> None:
        """Run the hooks of an event beside everything else, in order; returns at once."""
        chosen = self._chosen(event, tool)
        if not chosen:
            return
        body = self._body(event, fields)
        self._waiting.extend((event, hook, body) for hook in chosen)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="hooks")

    async def close(self) -> None:
        """What still waits has run, or was given up after ``CLOSING_S``."""
        if self._worker is None:
            return
        await asyncio.wait([self._worker], timeout=CLOSING_S)
        self._worker.cancel()
        await asyncio.wait([self._worker])
        self._waiting.clear()

    async def _work(self) -> None:
        while self._waiting:
            event, hook, body = self._waiting.popleft()
            self.record(await self._run(event, hook, body))

    def _chosen(self, event: HookEvent, tool: str) -> list[Hook]:
        hooks = self.hooks.get(event, ())
        return [hook for hook in hooks if not (hook.tools and tool) or _names(hook, tool)]

    def _body(self, event: HookEvent, fields: Mapping[str, Any]) -> bytes:
        return msgspec.json.encode({"event": event.value, **self.base, **fields}, enc_hook=str)

    async def _run(self, event: HookEvent, hook: Hook, body: bytes) -> HookResult:
        start_ns = self.clock.now_ns()

        def result(
            status: int | None, failure: str, out: bytes = b"", err: bytes = b""
        ) -> HookResult:
            wall_s = (self.clock.now_ns() - start_ns) / 1e9
            texts = (out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
            return HookResult(event.value, hook.command, status, *texts, wall_s, failure)

        try:
            process = await asyncio.create_subprocess_exec(
                *hook.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=self.directory,
                env=hook_environment(self.source, hook.environment),
                start_new_session=True,
            )
        except OSError as error:
            return result(None, f"it cannot be started: {error.strerror or error}")
        try:
            async with asyncio.timeout(hook.timeout_s):
                out, err = await _talk(process, body)
        except TimeoutError:
            return result(None, f"no end after {hook.timeout_s:g} s")
        except _TooMuch:
            return result(None, f"more than {MAX_OUTPUT_BYTES} bytes of output")
        finally:
            await _end(process)
        return _judged(result(process.returncode, "", out, err), event)


def _names(hook: Hook, tool: str) -> bool:
    return any(fnmatchcase(tool, pattern) for pattern in hook.tools)


class _TooMuch(Exception):
    """A hook writes without end."""


async def _talk(process: asyncio.subprocess.Process, body: bytes) -> tuple[bytes, bytes]:
    """Hands over the object; both streams to their end, and the process's end."""
    assert process.stdin is not None, "all streams are pipes"
    assert process.stdout is not None
    assert process.stderr is not None

    async def feed(pipe: asyncio.StreamWriter) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it need not read
            pipe.write(body)
            await pipe.drain()
            pipe.close()

    async def read(pipe: asyncio.StreamReader) -> bytes:
        data = bytearray()
        while piece := await pipe.read(8192):
            data += piece
            if len(data) > MAX_OUTPUT_BYTES:
                raise _TooMuch
        return bytes(data)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(feed(process.stdin))
            out = group.create_task(read(process.stdout))
            err = group.create_task(read(process.stderr))
            group.create_task(process.wait())
    except* _TooMuch:
        raise _TooMuch from None
    return out.result(), err.result()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of it runs any more, what it started in its session included."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _judged(result: HookResult, event: HookEvent) -> HookResult:
    """What the status and the output of a hook mean."""
    if result.status == 2 and event.can_deny:
        return replace(result, denial=result.error.strip() or "a hook denies it")
    if result.status != 0:
        return replace(result, failure=f"status {result.status}")
    if not event.can_deny or not result.output.lstrip().startswith("{"):
        return result
    try:
        answer = msgspec.json.decode(result.output, type=_Answer)
    except (msgspec.DecodeError, UnicodeError) as error:
        return replace(result, failure=f"its answer is not understood: {error}")
    if answer.decision == "deny":
        return replace(result, denial=answer.reason or "a hook denies it")
    if answer.decision not in ("", "allow"):
        return replace(result, failure=f"its decision is {answer.decision!r}, not allow or deny")
    return result


class _Answer(msgspec.Struct, frozen=True):
    """What a hook may write."""

    decision: str = ""
    reason: str = ""

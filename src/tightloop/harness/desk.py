"""What lies between a person and the agent's work: both sides' edits, turn by turn.

Before a turn the user's own edits come into the workspace, and the model is told which. After it the turn's
work is a step that can be taken back and made again, here and where it was applied. One thing at a
time: while a turn runs, the rest refuses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from tightloop.agent.terminal.printable import printable
from tightloop.agent.turn import TurnResult
from tightloop.harness import delivery
from tightloop.harness.delivery import Applied, Approve
from tightloop.harness.undo import History, NothingToUndo, Step
from tightloop.protocol.items import Part
from tightloop.sandbox.completion import to_its_end
from tightloop.sandbox.entries import Change, Entry, read_below
from tightloop.sandbox.following import Followed
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.workspace import Workspace

NOTE = "[note by tightloop, not by the user]"
"""How what the model is told of both sides' edits begins."""
MAX_NAMED = 12
"""Paths in one message; the others are counted."""


class Converses(Protocol):
    """What an ``Agent`` is to the desk."""

    async def run_turn(
        self,
        prompt: str,
        *,
        parts: Sequence[Part] = (),
        request: Mapping[str, Any] | None = None,
    ) -> TurnResult:
        """See ``Agent.run_turn``."""

    def tell(self, message: str) -> None:
        """See ``Agent.tell``."""


@dataclass(frozen=True, slots=True)
class Undone:
    """A step that was taken back or made again: paths in the workspace, and in the checkout."""

    title: str
    paths: tuple[str, ...]
    checkout_paths: tuple[str, ...]
    is_redone: bool = False

    def __str__(self) -> str:
        """One line for a person, safe for a terminal."""
        verb = "made again" if self.is_redone else "taken back"
        where = "in your checkout, too" if self.checkout_paths else "your checkout had none of it"
        if 0 < len(self.checkout_paths) < len(self.paths):
            where = f"in your checkout: {named(self.checkout_paths)}"
        return printable(f"{verb}: {named(self.paths)} ({where}); of: {self.title}")


class Desk:
    """For one conversation. ``on_change`` is called when the workspace or the checkout was written
    by nobody's tool, and ``flush`` before and after the checkout is written: what is kept of the
    workspace must be true then, whoever dies when. ``note`` takes lines for a person."""

    def __init__(
        self,
        agent: Converses,
        workspace: Workspace,
        history: History,
        on_change: Callable[[], None],
        note: Callable[[str], None],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self.history = history
        self._agent = agent
        self._workspace = workspace
        self._on_change = on_change
        self._note = note
        self._flush = flush
        self._busy = ""
        self._present: list[Change] | None = None  # as the last turn left it

    async def open(self) -> None:
        """The workspace is ready. What a turn of a process that died had done becomes a step."""
        if self.history.is_begun:
            await self._end_step(is_other_workspace=True)

    async def run_turn(
        self,
        prompt: str,
        *,
        runner: Callable[..., Awaitable[TurnResult]] | None = None,
        **options: Any,
    ) -> TurnResult:
        """``Agent.run_turn``, with the user's edits before it and a step behind it, also if it fails
        or is cancelled. ``runner`` takes the place of ``Agent.run_turn``: several attempts in one."""
        async with self._alone("a turn"):
            await self._follow_quietly()
            keeping = await self._begin_step(prompt)
            try:
                return await (runner or self._agent.run_turn)(prompt, **options)
            finally:
                await to_its_end(self._end_step(keeping))

    async def follow(self) -> Followed:
        """The user's edits are in the workspace, and the model will know. See ``Workspace.follow``."""
        async with self._alone("the checkout is being looked at"):
            return await self._follow()

    async def pending(self) -> list[Change]:
        """What ``apply`` would write."""
        return await self._workspace.changes(is_pending=True)

    async def apply(
        self,
        *,
        on_conflict: str = delivery.REFUSE,
        accepts_risks: bool = False,
        approve: Approve | None = None,
    ) -> Applied:
        """See ``delivery.deliver``."""
        async with self._alone("the result is being applied"):
            await self._flush()
            applied = await delivery.deliver(
                self._workspace,
                self.history,
                on_conflict=on_conflict,
                accepts_risks=accepts_risks,
                approve=approve,
            )
            if applied.merged:
                self._tell(
                    "The user had changed these files too; they hold both sides' changes now, "
                    f"merged line by line: {named(applied.merged)}."
                )
            if applied.merged or applied.written:
                self._changed()
                await self._flush()
            return applied

    async def undo(self) -> Undone:
        """The last turn's work is gone, here and where it was applied; call it again for the one before.

        Git's index, HEAD and every other file stay as they are. Raises NothingToUndo, and
        WorkspaceConflict naming files that were changed since: then nothing was changed.
        """
        async with self._alone("work is being taken back"):
            if not self.history.undoable:
                raise NothingToUndo("there is no turn's work to take back")
            step = self.history.undoable[0]
            here, there, over = step.backwards()
            await to_its_end(self._rewound(here, there, over, self.history.take_back))
            self._tell(
                f"The user took back your work on {step.title!r}: these files are again as they "
                f"were before it: {named(step.paths)}. Do not make it again unless asked to."
            )
            return _undone(step, there)

    async def redo(self) -> Undone:
        """The step taken back last is there again. Raises as ``undo`` does."""
        async with self._alone("work is being made again"):
            if not self.history.redoable:
                raise NothingToUndo("there is no work that was taken back")
            step = self.history.redoable[0]
            here, there = step.forwards()
            await to_its_end(self._rewound(here, there, {}, self.history.make_again))
            self._tell(
                f"The user restored your work on {step.title!r}: {named(step.paths)}, as you "
                "had left them."
            )
            return _undone(step, there, is_redone=True)

    async def _rewound(
        self,
        here: Sequence[Change],
        there: Sequence[Change],
        over: Mapping[str, Entry | None],
        noted: Callable[[], None],
    ) -> None:
        await self._workspace.rewind(here, there, over)
        await asyncio.to_thread(noted)
        self._changed()
        await self._flush()

    async def _follow_quietly(self) -> None:
        """A checkout that cannot be looked at is no reason to refuse a turn."""
        try:
            followed = await self._follow()
        except (SandboxError, OSError) as error:
            self._note(printable(f"your own edits were not looked at: {error}"))
        else:
            for line in followed_lines(followed):
                self._note(line)

    async def _follow(self) -> Followed:
        followed = await to_its_end(self._workspace.follow())
        if followed.taken:
            self._changed()
        if followed:
            self._tell(_as_told(followed))
        return followed

    async def _begin_step(self, title: str) -> "asyncio.Task[None] | None":
        """Nobody waits for the disk: the task keeps the beginning while the model already answers."""
        with suppress(SandboxError, OSError):  # said at its end, if it is still so
            if self._present is None:
                self._present = await self._workspace.changes()
            self.history.begin(title, self._present)
            return asyncio.create_task(asyncio.to_thread(self.history.keep_begun))
        return None

    async def _end_step(
        self, keeping: "asyncio.Task[None] | None" = None, *, is_other_workspace: bool = False
    ) -> None:
        view = self._workspace.path
        read = (lambda path: read_below(view, path)) if is_other_workspace else None
        try:
            if keeping is not None:
                await keeping
            if not self.history.is_begun:
                raise SandboxError("the workspace could not be read when it began")
            self._present = await self._workspace.changes()
            await asyncio.to_thread(self.history.end, self._present, read)
        except (SandboxError, OSError) as error:
            self._present = None
            self._note(printable(f"this turn cannot be undone: {error}"))

    def _changed(self) -> None:
        """The workspace or the checkout was written by no tool."""
        self._present = None
        self._on_change()

    def _tell(self, text: str) -> None:
        self._agent.tell(f"{NOTE} {text}")

    @asynccontextmanager
    async def _alone(self, what: str) -> AsyncIterator[None]:
        if self._busy:
            raise SandboxError(f"not now: {self._busy} is under way; wait for its end or stop it")
        self._busy = what
        try:
            yield
        finally:
            self._busy = ""


def named(paths: Sequence[str]) -> str:
    """The paths for a sentence, the rest of many counted."""
    shown = ", ".join(paths[:MAX_NAMED])
    return shown if len(paths) <= MAX_NAMED else f"{shown} and {len(paths) - MAX_NAMED} more"


def followed_lines(followed: Followed) -> list[str]:
    """For a person, safe for a terminal."""
    lines = []
    if followed.moved:
        lines.append(followed.moved)
    if followed.taken:
        lines.append(f"your edits are in the workspace: {named(followed.taken)}")
    if followed.conflicts:
        lines.append(
            f"changed by you and by the agent: {named(followed.conflicts)}; the agent goes on with "
            "its own version"
        )
    return [printable(line) for line in lines]


def _as_told(followed: Followed) -> str:
    """For the model."""
    parts = []
    if followed.moved:
        parts.append(
            f"The user's checkout has moved: {followed.moved}. The files of the workspace are those "
            "of the checkout, except where you changed them; what git says there of HEAD and of the "
            "index is as before."
        )
    if followed.taken:
        parts.append(
            "The user has edited these files since; the workspace has them as they are now: "
            f"{named(followed.taken)}. Read them again before you rely on them."
        )
    if followed.conflicts:
        parts.append(
            f"Both you and the user have changed {named(followed.conflicts)}. The workspace "
            "has your version; mention it in your answer."
        )
    return " ".join(parts)


def _undone(step: Step, there: Sequence[Change], *, is_redone: bool = False) -> Undone:
    paths = tuple(change.path for change in there)
    return Undone(step.title, tuple(step.paths), paths, is_redone)

"""The result goes into the user's checkout: looked at, agreed to, and then all of it or nothing.

Used by every program that ends a turn. What the user has changed meanwhile is never written over
unless that was asked for, and then it is kept with the turn's step, so that it can be had back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tightloop.agent.terminal.printable import printable
from tightloop.harness.undo import History, Write
from tightloop.sandbox.applying import WorkspaceConflict
from tightloop.sandbox.checkout import Clash
from tightloop.sandbox.entries import Change
from tightloop.sandbox.merging import merged
from tightloop.sandbox.risks import Risk, risk_of
from tightloop.sandbox.workspace import Workspace

REFUSE, MERGE, FORCE = "refuse", "merge", "force"
WAYS = (REFUSE, MERGE, FORCE)
"""What to do about files that the user has changed too: write nothing, merge the texts where no line was
changed on both sides, or write over them."""

Approve = Callable[[Sequence[Change], Sequence[Risk]], Awaitable[bool]]
"""Whether these changes may be written; asked at most once for each delivery."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A file that both sides have changed. ``can_merge``: their texts go together as they are."""

    path: str
    reason: str
    can_merge: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of it. With ``conflicts``, ``severe`` risks or ``is_declined`` nothing was written.

    ``merged`` are files that hold the changes of both sides now: no test has seen them yet.
    """

    written: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    risks: tuple[Risk, ...] = ()
    severe: tuple[Risk, ...] = ()
    is_declined: bool = False

    @property
    def is_done(self) -> bool:
        """Whether the checkout holds the result."""
        return not (self.conflicts or self.severe or self.is_declined)

    def __str__(self) -> str:
        """Lines for a person, safe for a terminal."""
        return "\n".join(map(printable, self._lines()))

    def _lines(self) -> list[str]:
        lines = [f"look at it: {risk.path} ({risk.reason})" for risk in self.risks]
        if self.severe:
            names = ", ".join(risk.path for risk in self.severe)
            lines.append(f"nothing was written: {names} must be agreed to by a person")
        for conflict in self.conflicts:
            way = "; the two can be merged" if conflict.can_merge else ""
            lines.append(f"conflict: {conflict.path}: {conflict.reason}{way}")
        if self.conflicts:
            lines.append("nothing was written: merge, write over your changes, or keep the patch")
        if self.is_declined:
            lines.append("nothing was written: declined")
        if self.merged:
            lines.append(f"merged with your changes: {', '.join(self.merged)}; not tested together")
        if self.written:
            lines.append(f"applied: {', '.join(self.written)}")
        return lines


async def deliver(
    workspace: Workspace,
    history: History,
    *,
    on_conflict: str = REFUSE,
    accepts_risks: bool = False,
    approve: Approve | None = None,
) -> Applied:
    """The checkout holds what the workspace holds, or it is as it was and the answer says why.

    Nothing may be writing in the workspace meanwhile. Raises SandboxError or OSError when a tree
    cannot be read or written; ValueError for an ``on_conflict`` that is none of ``WAYS``.
    """
    if on_conflict not in WAYS:
        raise ValueError(f"on_conflict must be one of {', '.join(WAYS)}, got {on_conflict!r}")
    pending = await workspace.changes(is_pending=True)
    risks = tuple(risk for change in pending if (risk := risk_of(change)) is not None)
    severe = tuple(risk for risk in risks if risk.is_severe and not accepts_risks)
    if not pending or severe:
        return Applied(risks=risks, severe=severe)
    clashes = await workspace.clashes()
    both: tuple[str, ...] = ()
    if clashes and on_conflict == MERGE and await _merge(workspace, history, clashes):
        both = tuple(clash.path for clash in clashes)
        clashes, pending = [], await workspace.changes(is_pending=True)
    if clashes and on_conflict != FORCE:
        return Applied(risks=risks, conflicts=await _conflicts(clashes))
    if approve is not None and not await approve(pending, risks):
        return Applied(risks=risks, merged=both, is_declined=True)
    over = {clash.path: clash.theirs for clash in clashes}
    writes = [
        Write(change.path, over[change.path], is_over=True, known=change.before)
        if change.path in over
        else Write(change.path, change.before)
        for change in pending
    ]
    await asyncio.to_thread(history.note_writes, writes)
    try:
        written = await workspace.apply(over=over)
    except WorkspaceConflict as error:  # the user was quicker, or something else is in the way
        late = await workspace.clashes()
        found = await _conflicts([clash for clash in late if clash.path in error.paths])
        told = {conflict.path for conflict in found}
        blocked = (path for path in error.paths if path not in told)
        others = (Conflict(path, "something else is in its way", False) for path in blocked)
        return Applied(risks=risks, merged=both, conflicts=(*found, *others))
    return Applied(tuple(written), both, risks=risks)


async def _merge(workspace: Workspace, history: History, clashes: Sequence[Clash]) -> bool:
    """Whether all of them hold the changes of both sides now."""
    paths = [clash.path for clash in clashes]
    if await workspace.merge(paths):
        return False
    found = {change.path: change for change in await workspace.changes()}
    changes = [found[path] for path in paths if path in found]
    await asyncio.to_thread(history.rebase, changes)
    return True


async def _conflicts(clashes: Sequence[Clash]) -> tuple[Conflict, ...]:
    found = []
    for clash in clashes:
        both = await asyncio.to_thread(merged, clash.known, clash.theirs, clash.ours)
        reason = "you have deleted it" if clash.theirs is None else "you have changed it, too"
        if clash.known is None and clash.theirs is not None:
            reason = "you have made a file of that name, too"
        found.append(Conflict(clash.path, reason, both is not None))
    return tuple(found)

"""What the commands behind a slash do. Each returns what to say; none raises for what a user can cause."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightloop.agent.terminal.styled import EMPTY, Line, Role, line, lines_of, spans
from tightloop.cli.chat.commands import COMMANDS, KEYS
from tightloop.cli.chat.conversation import Conversation, Wanted
from tightloop.cli.chat.figures import SessionFigures, latency_rows
from tightloop.cli.chat.racing import Racing
from tightloop.cli.chat.words import left_lines, message_lines
from tightloop.harness.settings import Settings
from tightloop.protocol.items import Message

if TYPE_CHECKING:
    from tightloop.harness.listing import Summary
    from tightloop.harness.past import Past

MAX_LISTED = 10
MAX_RECAP_ROWS = 12
MAX_DIFF_ROWS = 2000
_SEVERITY_ROLES = {"error": Role.ERROR, "warning": Role.WARNING, "note": Role.STRONG}
_FINDING = re.compile(r"\S.*?: (error|warning|note): ")


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to. ``pending`` are the paths not applied, None if they stay as they are;
    ``mode`` is the approval mode if it was changed."""

    lines: Sequence[Line] = ()
    pending: tuple[str, ...] | None = None
    mode: str | None = None


Job = Callable[[str], Awaitable[Done]]


class Jobs:
    """The commands of one chat."""

    def __init__(
        self, conversation: Conversation, figures: SessionFigures, first: Settings, racing: Racing
    ) -> None:
        """``first`` is what was asked for on the command line."""
        self._conversation = conversation
        self._figures = figures
        self._first = first
        self._racing = racing
        self._listed: list[str] = []
        self._jobs: dict[str, Job] = {
            "apply": self._apply,
            "approvals": self._approvals,
            "compact": self._compact,
            "diff": self._diff,
            "help": self._help,
            "latency": self._latency,
            "model": self._model,
            "race": self._race,
            "redo": self._redo,
            "resume": self._resume,
            "review": self._review,
            "undo": self._undo,
        }

    async def run(self, name: str, argument: str) -> Done:
        """Run one. What it cannot do stands in its lines."""
        from tightloop.agent.approval.gate import ApprovalError
        from tightloop.client.transport import TransportError
        from tightloop.harness.backend import UsageError
        from tightloop.protocol.errors import ApiError
        from tightloop.sandbox.interface import SandboxError
        from tightloop.sandbox.policies import PolicyError

        expected = (
            ApiError, ApprovalError, OSError, PolicyError, SandboxError, TransportError, UsageError,
            ValueError,
        )  # fmt: skip
        try:
            return await self._jobs[name](argument)
        except expected as error:
            return Done(lines_of(f"/{name}: {error}", Role.ERROR))

    async def pending(self) -> tuple[str, ...]:
        """Paths that the user's files do not hold yet."""
        return tuple(change.path for change in await self._conversation.thread.desk.pending())

    # -- changes

    async def _apply(self, argument: str) -> Done:
        if argument not in ("", "merge", "force"):
            return _wrong(f"/apply: {argument!r} is neither merge nor force")
        desk = self._conversation.thread.desk
        if not await self.pending():
            return Done([line("nothing to apply", Role.DIM)], ())
        applied = await desk.apply(
            on_conflict=argument or "refuse", accepts_risks=argument == "force"
        )
        role = Role.GOOD if applied.is_done else Role.WARNING
        rows = lines_of(str(applied), role)
        if not applied.is_done:
            ways = "/apply merge merges line by line, /apply force takes the agent's files"
            rows.append(line(f"nothing is lost: {ways}", Role.DIM))
        return Done(rows, await self.pending())

    async def _undo(self, argument: str) -> Done:
        undone = await self._conversation.thread.desk.undo()
        return Done(lines_of(str(undone), Role.GOOD), await self.pending())

    async def _redo(self, argument: str) -> Done:
        redone = await self._conversation.thread.desk.redo()
        return Done(lines_of(str(redone), Role.GOOD), await self.pending())

    async def _diff(self, argument: str) -> Done:
        from tightloop.agent.terminal.diff_view import diff_lines
        from tightloop.sandbox.patch_text import unified_diff

        changes = await self._conversation.thread.desk.pending()
        if not changes:
            return Done([line("no change that is not applied", Role.DIM)])
        rows = diff_lines(await asyncio.to_thread(unified_diff, changes))
        if len(rows) > MAX_DIFF_ROWS:
            more = len(rows) - MAX_DIFF_ROWS
            rows = [*rows[:MAX_DIFF_ROWS], line(f"... {more} more rows", Role.DIM)]
        return Done(rows)

    async def _review(self, argument: str) -> Done:
        from tightloop.harness.review import review_lines, review_thread
        from tightloop.harness.reviewed import ReviewTarget

        target = ReviewTarget.parse(argument)
        review = await review_thread(self._conversation.thread, target, lambda _event: None)
        return Done([EMPTY, *(row for text in review_lines(review) for row in _review_rows(text))])

    # -- the conversation

    async def _model(self, argument: str) -> Done:
        present = self._conversation.present
        if not argument:
            labels = present.thread.labels
            rows = [line(f"{labels['model']} ({labels['backend']})")]
            rows.append(line("/model NAME goes on with another: as for --model", Role.DIM))
            return Done(rows)
        await self._conversation.switch(present.again(model=argument))
        name = self._conversation.thread.labels["model"]
        return await self._switched([line(f"going on with {name}", Role.GOOD)])

    async def _compact(self, argument: str) -> Done:
        if not self._conversation.present.was_used:
            return Done([line("nothing to compact: nothing was said yet", Role.DIM)])
        await self._conversation.thread.agent.compact(argument)  # its event is told of
        return Done()

    async def _race(self, argument: str) -> Done:
        mode = str(self._conversation.thread.gate.mode)
        return Done([line(self._racing.choose(argument, mode), Role.DIM)])

    async def _resume(self, argument: str) -> Done:
        present = self._conversation.present
        if not argument:
            from tightloop.harness.listing import list_past

            settings = present.settings
            found = await asyncio.to_thread(
                list_past, settings.state_dir, settings.repo, MAX_LISTED + 1
            )
            here = present.thread.id
            self._listed = [past.id for past in found if past.id != here]
            return Done(_listing(found, here))
        thread_id = argument
        if argument.isdecimal() and 0 < int(argument) <= len(self._listed):
            thread_id = self._listed[int(argument) - 1]
        repo = present.settings.repo
        await self._conversation.switch(Wanted(self._first, thread_id, repo))
        return await self._switched([])

    async def _switched(self, lines: list[Line]) -> Done:
        pending = await self.pending()
        return Done([*lines, *left_lines(pending)], pending)

    async def _approvals(self, argument: str) -> Done:
        from tightloop.agent.approval.interface import Mode

        gate = self._conversation.thread.gate
        known = " | ".join(Mode)
        if argument and argument not in tuple(Mode):
            return _wrong(f"/approvals: there is no mode {argument!r}, there are: {known}")
        if argument:
            gate.switch(Mode(argument))
        return Done(
            [
                line(f"approvals: {gate.mode}"),
                line(f"/approvals {known} changes it", Role.DIM),
            ],
            mode=str(gate.mode) if argument else None,
        )

    # -- words

    async def _latency(self, argument: str) -> Done:
        head, *rows = latency_rows(self._figures)
        return Done([line(head, Role.STRONG), *map(line, rows)])

    async def _help(self, argument: str) -> Done:
        rows = [spans((f"{c.usage:<24}", Role.ACCENT), c.summary) for c in COMMANDS]
        keys = [spans((f"{name:<24}", Role.ACCENT), what) for name, what in KEYS]
        return Done([*rows, line(""), *keys])


def compacted_text(before: int | None, after: int | None) -> str:
    """How a shortened conversation is told of."""
    counts = "" if before is None or after is None else f": {before} tokens are {after} now"
    return f"the conversation was compacted{counts}"


def _review_rows(text: str) -> list[Line]:
    """Findings stand out from what is said of them, by how bad they are."""
    match = _FINDING.match(text)
    return lines_of(text, _SEVERITY_ROLES[match[1]] if match else Role.PLAIN)


def _wrong(text: str) -> Done:
    return Done([line(text, Role.ERROR)])


def _listing(found: "Sequence[Summary]", present_id: str) -> list[Line]:
    """Numbered, the newest first; the one that is open has no number."""
    others = [one for one in found if one.id != present_id]
    if not others:
        return [line("no other conversation about this directory is kept", Role.DIM)]
    rows = []
    for number, one in enumerate(others, start=1):
        turns = f"{one.num_turns} turn{'s' if one.num_turns != 1 else ''}"
        left = f", {len(one.changed)} not applied" if one.changed else ""
        open_now = ", open in another process" if one.is_open else ""
        when = one.started[:16].replace("T", " ")
        rows.append(
            spans(
                (f"{number}  ", Role.ACCENT),
                one.title or "(nothing said)",
                (f"  {when}, {turns}{left}{open_now}", Role.DIM),
            )
        )
    return [*rows, line("/resume NUMBER goes on with it", Role.DIM)]


def recap(past: "Past") -> list[Line]:
    """Where a conversation stands that goes on: what was said last, and by whom."""
    texts = [one for one in past.items if isinstance(one, Message) and one.text]
    users = [one.text for one in texts if one.role == "user"]
    agents = [one.text for one in texts if one.role == "assistant"]
    turns = f"{past.num_turns} turn{'s' if past.num_turns != 1 else ''}"
    rows = [spans(("going on with: ", Role.DIM), past.title, (f" ({turns})", Role.DIM))]
    if len(users) > 1:
        rows += message_lines(_beginning(users[-1]))
    if agents:
        rows += lines_of(_beginning(agents[-1]))
    return rows


def _beginning(text: str) -> str:
    rows = text.strip().splitlines()
    more = len(rows) - MAX_RECAP_ROWS
    return "\n".join([*rows[:MAX_RECAP_ROWS], *([f"... {more} more rows"] if more > 0 else [])])

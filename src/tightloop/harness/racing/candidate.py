"""One candidate: an agent of its own in a place of its own, and what it has come to."""

import asyncio
from collections.abc import Callable

from tightloop.agent import events as said
from tightloop.agent.loop import Agent
from tightloop.agent.steering import Steer
from tightloop.agent.terminal.printable import printable
from tightloop.agent.turn import Status, TurnResult
from tightloop.client.session import Session
from tightloop.harness.racing.bench import CandidateBench
from tightloop.harness.racing.goal import is_pass, num_failed
from tightloop.sandbox.processes import cpu_s
from tightloop.trace.clock import now_ns

MAX_NOTE_CHARS = 100
_LETTERS = {"add": "A", "update": "M", "delete": "D"}
_OWN = (said.TurnStarted, said.TurnCompleted, said.TurnFailed)
Tell = Callable[[said.Event], None]


class Candidate:
    """Filled as it goes; ``figures`` at any time.

    Its items are held back until ``go_live``, unless it is the only one.
    """

    def __init__(self, number: int, tell: Tell, *, is_alone: bool = False) -> None:
        self.number = number
        self.agent: Agent | None = None
        self.session: Session | None = None
        self.bench: CandidateBench | None = None
        self.result: TurnResult | None = None
        self.task: asyncio.Task[None] | None = None
        self.steers: list[Steer] = []
        self.failure = ""
        """Why it could not go on, other than by its own result."""
        self.is_cancelled = False
        self.is_counted = False
        """Whether the race knows that it is over."""
        self.green_ns: int | None = None
        self.over = asyncio.Event()
        """It says and does nothing more; what it has made is still there."""
        self.released = asyncio.Event()
        """Nobody wants what it has made."""
        self._tell = tell
        self._start_ns = now_ns()
        self._end_ns: int | None = None
        self._cpu_s = self._cpu_before_s = 0.0
        self._is_alone = is_alone
        self._held: list[said.Event] | None = None if is_alone else []

    def begin(self, agent: Agent, session: Session, bench: CandidateBench) -> None:
        """Its place is there."""
        self.agent, self.session, self.bench = agent, session, bench
        self._cpu_before_s = self._family_cpu_s()
        self.say("started")

    def hear(self, event: said.Event) -> None:
        """A ``Listener`` of its agent."""
        if isinstance(event, _OWN):
            return
        if self._held is None:
            self._tell(event)
            return
        if not isinstance(event, said.ItemUpdated):
            self._held.append(event)
        if note := _note_of(event):
            self.say("working", note)

    def go_live(self) -> None:
        """Its items are those of the turn: all so far, and each as it comes from now on."""
        held, self._held = self._held or [], None
        for event in held:
            self._tell(event)

    def say(self, state: str, note: str = "") -> None:
        """What it is doing, for whoever watches the race."""
        if not self._is_alone:
            self._tell(said.Raced(self.number, state, note))

    def end(self) -> None:
        """Nothing of it runs any more; before its place is gone."""
        if self._end_ns is None:
            self._end_ns = now_ns()
            self._cpu_s = self._family_cpu_s() - self._cpu_before_s
            self.over.set()

    @property
    def is_green(self) -> bool:
        """Whether a tree of it was confirmed to pass."""
        return self.bench is not None and self.bench.confirmed is not None

    @property
    def outcome(self) -> str:
        """See ``events.CandidateFigures``; ``won`` is for whoever decides."""
        result = self.result
        if self.is_green:
            return "green"
        if self.is_cancelled:
            return "cancelled"
        if self.failure or result is None or result.status is Status.FAILED:
            return "failed"
        if result.status is not Status.COMPLETED:
            return "stopped"
        bench = self.bench
        return "red" if bench is not None and bench.command is not None else "untested"

    @property
    def rank(self) -> tuple[bool, bool, bool, int, int]:
        """The greatest is the best of those that are not green.

        Its last test run passed, though nobody could confirm that; it has changed something; it ended
        by its own word; the fewest failing tests; the lowest number.
        """
        last = self.bench.last if self.bench is not None else None
        failed = num_failed(last.result.output) if last is not None else None
        return (
            last is not None and is_pass(last.result),
            self.bench is not None and self.bench.has_changed,
            self.outcome in ("red", "untested"),
            -(1 << 30 if failed is None else failed),
            -self.number,
        )

    def figures(self, outcome: str) -> said.CandidateFigures:
        """What it took, so far or in all."""
        end_ns = self._end_ns or now_ns()
        trips = self.session.trips if self.session is not None else []
        bench = self.bench
        notes = (
            self.failure,
            bench.note if bench else "",
            self.result.message if self.result else "",
        )
        return said.CandidateFigures(
            number=self.number,
            outcome=outcome,
            wall_s=round((end_ns - self._start_ns) / 1e9, 6),
            num_responses=len(trips),
            input_tokens=sum(trip.input_tokens for trip in trips),
            cached_input_tokens=sum(trip.cached_tokens for trip in trips),
            output_tokens=sum(trip.output_tokens for trip in trips),
            cut_deltas=self.session.num_cut_deltas if self.session is not None else 0,
            cpu_s=round(self._cpu_s + (bench.check_cpu_s if bench is not None else 0.0), 3),
            note=next(filter(None, notes), ""),
        )

    def _family_cpu_s(self) -> float:
        pid = self.bench.place.sandbox.pid if self.bench is not None else None
        return 0.0 if pid is None else cpu_s(pid)


def _note_of(event: said.Event) -> str:
    """A line for a person; empty for what needs none."""
    if isinstance(event, said.ItemStarted) and isinstance(event.item, said.CommandExecution):
        return f"$ {_line(event.item.command)}"
    if not isinstance(event, said.ItemCompleted):
        return ""
    match event.item:
        case said.CommandExecution(exit_code=code, aggregated_output=output):
            lines = [line for line in output.splitlines() if line.strip()]
            return f"exit {code}" + (f": {_line(lines[-1])}" if lines else "")
        case said.FileChange(status="completed", changes=changes):
            return "patch: " + ", ".join(f"{_LETTERS[c.kind]} {_line(c.path)}" for c in changes)
        case said.FileChange():
            return "patch refused"
        case said.AgentMessage(text=text):
            return _line(text)
        case said.ErrorItem(message=message):
            return _line(message)
    return ""


def _line(text: str) -> str:
    first = printable(text).strip().partition("\n")[0]
    return first if len(first) <= MAX_NOTE_CHARS else f"{first[: MAX_NOTE_CHARS - 4]} ..."

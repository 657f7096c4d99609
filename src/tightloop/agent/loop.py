"""The agent's loop: ask, run what is asked for, send the results back, until the model is done.

::

    items -> session.respond -> events -> calls started at output_item.done
      ^                                        |
      +------------- their outputs ------------+

One request is a ``round.Round``. What goes wrong with one is asked for again (``resilience``), a
conversation that grows too long is made shorter (``compaction``), and budgets end the turn (``budget``).

It knows no engine and no server: everything it learns comes over the wire.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from tightloop.agent import events as said
from tightloop.agent.budget import Budget
from tightloop.agent.compaction import NOT_BY_USER, Compactor, ContextUse, Window
from tightloop.agent.dispatch import Dispatcher
from tightloop.agent.early_end import EarlyEnd
from tightloop.agent.keeper import Keeper, NoKeeper
from tightloop.agent.overseer import NoOverseer, Overseer
from tightloop.agent.repeats import Repeats
from tightloop.agent.resilience import Failure, Remedy, trouble_of
from tightloop.agent.round import Round
from tightloop.agent.steering import Inbox, Steer
from tightloop.agent.tools.interface import Tool, ToolContext
from tightloop.agent.turn import Limits, Status, TurnResult
from tightloop.agent.wall import Wall
from tightloop.client.session import Session
from tightloop.client.transport import TransportError
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.protocol.items import Item, Message, Part, TextPart
from tightloop.protocol.items import user_message as user_item
from tightloop.trace.spans import Span

T = TypeVar("T")

MAX_CUT_IN_A_ROW: Final = 4
"""Responses that end at their length limit, one after the other, without a call."""

MAX_SHORTER: Final = 3
"""So often a conversation that does not fit is made shorter before the turn fails."""

GO_ON: Final = f"{NOT_BY_USER} Go on."
CUT_OFF: Final = (
    f"{NOT_BY_USER} Your response was cut off ({{reason}}). Go on where it ended; what was not whole, "
    "such as a call, is lost. Make long patches in several calls."
)


class Agent:
    """One conversation that acts. One turn at a time; cancel the task of ``run_turn`` to stop it.

    ``opening`` items go out before the first user message: what the model is told, or a conversation
    of before. ``overseer`` knows what the model does not; ``keeper`` keeps the conversation.
    ``thread_id`` is given when it was begun before. ``window`` is what is known of the model's context
    window, ``budget`` that of a conversation which this one shares. Not to be shared between event
    loops. Raises ``PriceUnknown``.
    """

    def __init__(
        self,
        session: Session,
        tools: Sequence[Tool],
        context: ToolContext,
        *,
        opening: Sequence[Item] = (),
        limits: Limits | None = None,
        listener: said.Listener | None = None,
        overseer: Overseer | None = None,
        keeper: Keeper | None = None,
        thread_id: str | None = None,
        window: Window | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.thread_id = thread_id or str(uuid.uuid4())
        self.last_result: TurnResult | None = None
        """The last turn's result, also when it was cancelled."""
        self.session = session
        self.context = context
        """What its calls run in, but for the names of the calls."""
        self.budget = budget or Budget(limits or Limits(), context.clock.now_ns)
        self._tools = list(tools)
        self._clock = context.clock
        self._limits = limits or self.budget.limits
        self._listener = listener
        self._overseer = overseer or NoOverseer()
        self._keeper = keeper or NoKeeper()
        self._events: list[said.Event] = []
        self._num_items = 0
        self._dispatcher = Dispatcher(
            tools, context, self._say, self._next_item_id, session, self._keeper.done
        )
        self._round = Round(
            session,
            self._dispatcher,
            EarlyEnd(session, self._limits.cancel_min_tokens),
            say=self._say,
            next_item_id=self._next_item_id,
            keep=self._keeper.done,
            stall_s=self._limits.stall_s,
        )
        self._compactor = Compactor(
            session, window or Window(), self._limits.compact_at, self.budget.add_aside
        )
        self._repeats = Repeats(self._limits.patience, self._clock, self._say)
        self._wall = Wall()
        self._inbox = Inbox()
        self._is_running = self._is_in_round = False
        self._told: list[Item] = []
        self._backlog: list[Item] = list(opening)

    @property
    def is_running(self) -> bool:
        """Whether a turn is being worked on."""
        return self._is_running

    @property
    def items(self) -> list[Item]:
        """The conversation as the next request will continue it, each item once.

        While a round is under way: as far as the session has it, and what was sent with it.
        """
        waiting = [] if self._is_in_round and self._round.is_adopted else self._backlog
        return [*self.session.items, *waiting, *self._told]

    @property
    def context_use(self) -> ContextUse:
        """How full the conversation is."""
        return self._compactor.use(self.items)

    def steer(self, text: str, *, now: bool = False) -> Steer:
        """A message for the running turn, or for the next one when none runs.

        It goes out with the turn's next request; with ``now`` the response that is being made is
        ended for it, if it has made no call yet.
        """
        steer = self._inbox.add(text)
        self._say(said.Steered(steer.id, steer.state, text))
        if now:
            self._round.hurry()
        return steer

    def withdraw(self, steer: Steer) -> bool:
        """Take a steer back; False when it has gone out."""
        return self._inbox.withdraw(steer)

    def tell(self, message: str | Item) -> None:
        """Something that is not by the user goes out with the next request, before what the user says."""
        self._told.append(user_item(message) if isinstance(message, str) else message)
        if not self._is_running:
            self._keeper.settled(self.items)

    def on_question(self, is_open: bool) -> None:
        """A person is asked something, or has answered: that time is not the turn's."""
        self._wall.hold(is_open)
        self.budget.hold(is_open)

    async def compact(self, instructions: str = "") -> said.Compacted:
        """The conversation is shorter: a hand-over by the model stands for all but its newest part.

        ``instructions`` say what matters to the user. Raises RuntimeError while a turn runs, and what
        ``Session.respond`` raises when the model cannot be reached.
        """
        self._refuse_while_running("compact")
        self._is_running = True
        try:
            return await self._shorten("asked", instructions)
        finally:
            self._is_running = False
            self._keeper.settled(self.items)

    def fork(
        self,
        session: Session,
        context: ToolContext,
        *,
        tools: Sequence[Tool] | None = None,
        listener: said.Listener | None = None,
        overseer: Overseer | None = None,
        limits: Limits | None = None,
    ) -> "Agent":
        """Another one with the same tools and the same conversation, that acts elsewhere.

        ``session`` is a fork of this one's; ``tools`` have the same definitions. Items are numbered on from here. Without ``limits`` of
        its own it shares this one's budget. Not while a turn runs.
        """
        other = Agent(
            session,
            tools or self._tools,
            context,
            opening=[*self._backlog, *self._told],
            limits=limits or self._limits,
            listener=listener,
            overseer=overseer,
            thread_id=self.thread_id,
            window=self._compactor.window,
            budget=None if limits is not None else self.budget.shared(),
        )
        other._num_items = self._num_items
        return other

    def take(self, other: "Agent") -> None:
        """Go on with the conversation of a fork of this one. Neither may be running."""
        self.session.take(other.session)
        self._backlog, self._told = list(other._backlog), list(other._told)
        self._num_items = other._num_items
        self._round.text, self.last_result = other._round.text, other.last_result
        self._compactor.gauge = other._compactor.gauge
        self._keeper.settled(self.items)

    async def run_turn(
        self,
        prompt: str,
        *,
        parts: Sequence[Part] = (),
        request: Mapping[str, Any] | None = None,
    ) -> TurnResult:
        """Work on ``prompt`` until the model answers without a call, or a limit is reached.

        ``parts`` are more of the user's message, such as images; ``request`` are further fields of the
        turn's requests. Model, network and tool failures end in a result, never in an exception;
        cancellation kills what runs, and leaves a conversation that can go on with another turn.
        """
        self._refuse_while_running("run_turn")
        start_ns = self._clock.now_ns()
        self.session.trips.clear()  # those of former turns are in their results
        self._events, self._round.text, self._round.has_heard = [], "", False
        self._dispatcher.spans = []
        self._repeats.begin_turn(self._dispatcher.spans)
        self._is_running = True
        self.budget.begin_turn()
        status, message, is_refused = Status.FAILED, "", False
        try:
            self._say(said.TurnStarted())
            self._overseer.begin_turn(prompt)
            async with self._wall.limited(self.budget.rest_s):
                self._backlog += [*self._taken_told(), *self._steers(0), _message(prompt, parts)]
                status, message = await self._work(request or {})
        except TimeoutError:
            status, message = Status.TIMEOUT, self._no_end()
        except (ApiError, TransportError, RemoteProtocolError) as error:
            message = self._repeats.words(error)
            is_refused = not self._round.has_heard and not _may_pass(error)
        except asyncio.CancelledError:
            status, message = Status.CANCELLED, "interrupted"
            raise
        finally:
            tries = []
            try:
                tries = await self._overseer.finish_turn()
            finally:  # also when this is cancelled too
                self.budget.end_turn()
                self._is_running = False
                for steer in self._inbox.defer():
                    self._say(said.Steered(steer.id, steer.state, steer.text))
                self._keeper.settled(self.items)
                result = TurnResult(
                    self._round.text, status, self._dispatcher.spans,
                    list(self.session.trips), start_ns, self._clock.now_ns(),
                    self.budget.turn_usage, self._events, message, is_refused, tries,
                    self._repeats.num_retries, self._overseer.check_figures(),
                )  # fmt: skip
                self.last_result = result
                self._say(result.closing_event())
        return result

    async def _work(self, extra: Mapping[str, Any]) -> tuple[Status, str]:
        num_cut = num_shorter = step = 0
        while True:
            if (stop := self._stop()) is not None:
                return stop
            await self._shorten_in_time()
            step += 1
            self._backlog += self._taken_told()
            self._backlog += [user_item(f"{NOT_BY_USER} {text}") for text in self.budget.news()]
            self._backlog += self._steers(step) or ([] if self._backlog else [user_item(GO_ON)])
            sent_ns = self._clock.now_ns()
            await self._exchange(extra)
            heard = self._round
            if heard.failure is not None:
                if self._is_too_long(heard.failure) and num_shorter < MAX_SHORTER:
                    await self._shorten("overflow", level=num_shorter)
                    num_shorter += 1
                elif not self._has_left_out_images(heard.failure):
                    await self._repeats.wait(heard.failure, self._lost_since(sent_ns), self.budget)
                continue
            self._repeats.note_progress()
            num_shorter = 0
            if heard.calls:
                self._tell(self._overseer.take_news())
            if heard.calls or heard.is_cut:
                num_cut = 0
                continue
            reason = self._cut_reason()
            if reason:
                num_cut += 1
                if reason == "content_filter" or num_cut > MAX_CUT_IN_A_ROW:
                    return Status.FAILED, f"the response is incomplete: {reason}"
                self._backlog.append(user_item(CUT_OFF.format(reason=reason)))
                continue
            if not self._inbox and not await self._is_contradicted() and not self._inbox:
                return Status.COMPLETED, ""

    async def _exchange(self, extra: Mapping[str, Any]) -> None:
        """One round; then the backlog is what the next one has to carry, every call answered."""
        items = tuple(self._backlog)
        self._keeper.settled(self.items)
        num_trips, num_resumed = len(self.session.trips), self.session.num_resumed
        self._is_in_round = True
        try:
            await self._round.run(items, extra)
        finally:
            heard = self._round
            self._backlog = [*heard.unheard, *self._dispatcher.take_outputs(heard.calls)]
            self._is_in_round = False
            if heard.is_adopted:
                self._compactor.note()
            last = self.session.last
            if last is not None and len(self.session.trips) > num_trips:
                count = self.budget.add_aside if last.status == "failed" else self.budget.add
                count(last.usage or Usage())
            self._repeats.note_resumed(self.session.num_resumed - num_resumed)

    def _stop(self) -> tuple[Status, str] | None:
        """Why no further response is asked for, if so."""
        spent = self.budget.spent()
        if not spent:
            return None
        if self.budget.num_responses >= self._limits.max_turns:
            return Status.MAX_TURNS, f"no last word after {self._limits.max_turns} responses"
        if not self.budget.rest_s:
            return Status.TIMEOUT, self._no_end()
        return Status.BUDGET, spent

    def _cut_reason(self) -> str:
        """Why the response is not whole; empty when it is."""
        last = self.session.last
        if last is None or last.status == "completed":
            return ""
        return last.incomplete_reason or last.status

    def _lost_since(self, sent_ns: int) -> int:
        """From when on time was lost: what a call of a broken response has done is not."""
        return self._clock.now_ns() if self._round.calls else sent_ns

    # ------------------------------------------------------------------ what does not fit

    def _is_too_long(self, failure: Failure) -> bool:
        if trouble_of(failure).remedy is not Remedy.SHORTEN or not isinstance(failure, ApiError):
            return False
        self._compactor.learn(failure, self.items)
        return True

    async def _shorten_in_time(self) -> None:
        if self._compactor.is_due(self.items):
            await self._shorten("window")

    async def _shorten(
        self, reason: str, instructions: str = "", *, level: int = 0
    ) -> said.Compacted:
        """The conversation becomes the backlog, shorter, and goes out anew with the next request."""
        self._backlog += self._taken_told()
        items = self.items
        made = await self._patiently(
            lambda: self._compactor.compact(items, instructions, level=level)
        )
        self.session.replace([])
        self._backlog = made.items
        self._compactor.settle()
        self._keeper.settled(self.items)
        event = said.Compacted(
            reason, made.tokens_before, made.tokens_after, made.num_before, len(made.items)
        )
        self._say(event)
        return event

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What ``ask`` gives, asked for again while that may help."""
        while True:
            sent_ns = self._clock.now_ns()
            try:
                return await ask()
            except (ApiError, TransportError, RemoteProtocolError) as error:
                await self._repeats.wait(error, sent_ns, self.budget)

    def _has_left_out_images(self, failure: Failure) -> bool:
        """Whether images could be to blame, and now go out as words."""
        if not isinstance(failure, ApiError) or failure.status not in (400, 415, 422):
            return False
        from tightloop.agent.tools.images import without_images

        self._backlog += self._taken_told()
        items = self.items
        bare = without_images(items)
        if bare == items:
            return False
        self.session.replace([])
        self._compactor.gauge.forget()
        self._backlog = bare
        text = f"the model's host takes no images, they were left out: {failure.message}"
        self._say(said.ItemCompleted(said.ErrorItem(self._next_item_id(), text)))
        return True

    # ------------------------------------------------------------------ what is said

    async def _is_contradicted(self) -> bool:
        """Whether something speaks against calling the turn a success; the model is told then."""
        start_ns = self._clock.now_ns()
        objections = await self._overseer.objections()
        if objections is None:
            return False
        self._dispatcher.spans.append(Span("test", start_ns, self._clock.now_ns(), "check"))
        self._tell(objections)
        return bool(objections)

    def _taken_told(self) -> list[Item]:
        told, self._told = self._told, []
        return told

    def _steers(self, step: int) -> list[Item]:
        """What the user has said meanwhile, to go out with this request."""
        taken = self._inbox.take(step)
        for steer in taken:
            self._say(said.Steered(steer.id, steer.state, steer.text, steer.step))
        return [user_item(steer.text) for steer in taken]

    def _tell(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._backlog.append(user_item(text))
            self._say(said.ItemCompleted(said.ErrorItem(self._next_item_id(), text)))

    def _say(self, event: said.Event) -> None:
        if not isinstance(event, said.ItemUpdated):
            self._events.append(event)
        if self._listener is not None:
            self._listener(event)

    def _next_item_id(self) -> str:
        self._num_items += 1
        return f"item_{self._num_items - 1}"

    def _no_end(self) -> str:
        if self.budget.turn_s < self._limits.wall_s and (spent := self.budget.spent()):
            return spent
        return f"no end after {self._limits.wall_s:g} s"

    def _refuse_while_running(self, what: str) -> None:
        if self._is_running:
            raise RuntimeError(f"{what} while a turn runs; wait for its end or cancel its task")


def _message(prompt: str, parts: Sequence[Part]) -> Message:
    """What the user says, with its images."""
    if not parts:
        return user_item(prompt)
    return Message("user", (TextPart("input_text", prompt), *parts))


def _may_pass(error: Exception) -> bool:
    """Whether asking again later could help: the server is overloaded or broken."""
    return isinstance(error, ApiError) and (error.status >= 500 or error.status == 429)

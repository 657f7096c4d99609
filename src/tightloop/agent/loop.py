"""The agent's loop: ask, run what is asked for, send the results back, until the model is done.

::

    items -> session.respond -> events -> calls started at output_item.done
      ^                                        |
      +------------- their outputs ------------+

A response is ended early when a call in it can no longer succeed; see ``early_end``.

It knows no engine and no server: everything it learns comes over the wire.
"""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import aclosing

from tightloop.agent import events as said
from tightloop.agent.dispatch import ARGUMENT_DELTAS, Call, Dispatcher
from tightloop.agent.early_end import EarlyEnd
from tightloop.agent.keeper import Keeper, NoKeeper
from tightloop.agent.overseer import NoOverseer, Overseer
from tightloop.agent.steering import Inbox, Steer
from tightloop.agent.tools.interface import Tool, ToolContext
from tightloop.agent.turn import Limits, Status, TurnResult, added
from tightloop.client.session import Session
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.accumulator import completed_item
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.protocol.items import CustomToolCall, FunctionCall, Item, Message, Reasoning
from tightloop.protocol.items import user_message as user_item
from tightloop.trace.spans import Span


class Agent:
    """One conversation that acts. One turn at a time; cancel the task of ``run_turn`` to stop it.

    ``opening`` items go out before the first user message: what the model is told, or a conversation
    of before. ``overseer`` knows what the model does not; ``keeper`` keeps the conversation.
    ``thread_id`` is given when it was begun before. Not to be shared between event loops.
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
    ) -> None:
        self.thread_id = thread_id or str(uuid.uuid4())
        self.last_result: TurnResult | None = None
        """The last turn's result, also when it was cancelled."""
        self._session = session
        self._clock = context.clock
        self._limits = limits or Limits()
        self._listener = listener
        self._overseer = overseer or NoOverseer()
        self._keeper = keeper or NoKeeper()
        self._events: list[said.Event] = []
        self._num_items = 0
        self._dispatcher = Dispatcher(
            tools, context, self._say, self._next_item_id, session, self._keeper.done
        )
        self._early = EarlyEnd(session, self._limits.cancel_min_tokens)
        self._inbox = Inbox()
        self._has_calls = False
        self._is_running = self._is_hurried = self._is_ended = False
        self._backlog: list[Item] = list(opening)
        self._usage = Usage()
        self._text = ""

    @property
    def is_running(self) -> bool:
        """Whether a turn is being worked on."""
        return self._is_running

    @property
    def items(self) -> list[Item]:
        """The conversation as the next request will continue it."""
        return [*self._session.items, *self._backlog]

    def steer(self, text: str, *, now: bool = False) -> Steer:
        """A message for the running turn, or for the next one when none runs.

        It goes out with the turn's next request; with ``now`` the response that is being made is
        ended for it, if it has made no call yet.
        """
        steer = self._inbox.add(text)
        self._say(said.Steered(steer.id, steer.state, text))
        if now and self._is_running and not self._has_calls:
            self._is_hurried, self._is_ended = True, self._session.end_early()
        return steer

    def withdraw(self, steer: Steer) -> bool:
        """Take a steer back; False when it has gone out."""
        return self._inbox.withdraw(steer)

    async def run_turn(self, prompt: str) -> TurnResult:
        """Work on ``prompt`` until the model answers without a call, or a limit is reached.

        Model, network and tool failures end in a result, never in an exception; cancellation
        kills what runs, and leaves a conversation that can go on with another turn.
        """
        start_ns, num_trips = self._clock.now_ns(), len(self._session.trips)
        self._events, self._usage, self._text = [], Usage(), ""
        self._dispatcher.spans = []
        self._say(said.TurnStarted())
        self._overseer.begin_turn(prompt)
        self._is_running = True
        status, message, is_refused = Status.FAILED, "", False
        try:
            async with asyncio.timeout(self._limits.wall_s):
                self._backlog += [*self._steers(0), user_item(prompt)]
                status, message = await self._work()
        except TimeoutError:
            status, message = Status.TIMEOUT, f"no end after {self._limits.wall_s:g} s"
        except (ApiError, TransportError, RemoteProtocolError) as error:
            message = str(error)
            is_refused = len(self._session.trips) == num_trips and not _may_pass(error)
        except asyncio.CancelledError:
            status, message = Status.CANCELLED, "interrupted"
            raise
        finally:
            trips = self._session.trips[num_trips:]
            end_ns = self._clock.now_ns()
            tries = await self._overseer.finish_turn()
            self._is_running = False
            for steer in self._inbox.defer():
                self._say(said.Steered(steer.id, steer.state, steer.text))
            self._keeper.settled(self.items)
            result = TurnResult(
                self._text, status, self._dispatcher.spans, trips, start_ns, end_ns, self._usage,
                self._events, message, is_refused, tries,
            )  # fmt: skip
            self.last_result = result
            self._say(result.closing_event())
        return result

    async def _work(self) -> tuple[Status, str]:
        for step in range(1, self._limits.max_turns + 1):
            self._backlog += self._steers(step)
            items = self._backlog
            num_known = len(self._session.items)
            self._keeper.settled(self.items)
            try:
                await self._round(items)
            finally:  # whatever was not taken in must go out again, and every call needs an output
                heard, kept = self._session.items[num_known:], self._early.kept
                unheard = [] if heard else items
                calls = _calls([*heard[len(items) :], *kept])
                self._backlog = [*unheard, *kept, *self._dispatcher.take_outputs(calls)]
            if calls:
                self._tell(self._overseer.take_news())
            if kept or (self._is_hurried and not calls):
                continue
            last = self._session.last
            if last is not None and last.status == "failed":
                return Status.FAILED, str(last.error or "the response failed")
            if not calls and not self._inbox:
                if last is not None and last.status == "incomplete":
                    return Status.FAILED, f"the response is incomplete: {last.incomplete_reason}"
                if not await self._is_contradicted():
                    return Status.COMPLETED, ""
        return Status.MAX_TURNS, f"no last word after {self._limits.max_turns} responses"

    async def _is_contradicted(self) -> bool:
        """Whether something speaks against calling the turn a success; the model is told then."""
        start_ns = self._clock.now_ns()
        objections = await self._overseer.objections()
        if objections is None:
            return False
        self._dispatcher.spans.append(Span("test", start_ns, self._clock.now_ns(), "check"))
        self._tell(objections)
        return bool(objections)

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

    async def _round(self, items: list[Item]) -> None:
        """One response and all its calls."""
        self._dispatcher.begin()
        self._early.begin()
        self._has_calls = self._is_hurried = self._is_ended = is_dropped = False
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            try:
                async with aclosing(self._session.respond(items)) as stream:
                    async for event in stream:
                        if is_dropped := self._hear(event, group):
                            break
            except (ApiError, TransportError, RemoteProtocolError) as error:
                failure = error  # calls already started may finish: they act on the workspace
            finally:
                self._dispatcher.abandon()
        self._early.settle(self._dispatcher.cut, is_dropped=is_dropped)
        if failure is not None:
            raise failure
        if is_dropped:
            return
        usage = self._session.last.usage if self._session.last is not None else None
        self._usage = added(self._usage, usage or Usage())

    def _hear(self, event: Event, group: asyncio.TaskGroup) -> bool:
        """Act on an event; whether the response is to be dropped now."""
        if self._is_hurried and not self._is_ended and not self._has_calls:
            return True
        kind = event["type"]
        if kind in ARGUMENT_DELTAS:
            return self._early.consider(self._dispatcher.feed(event))
        if kind == "response.output_text.delta":
            shown = said.AgentMessage(f"item_{self._num_items}", "")
            self._say(said.ItemUpdated(shown, text_delta=event.get("delta")))
        elif kind == "response.output_item.added":
            self._has_calls = self._dispatcher.announce(event) or self._has_calls
        elif kind == "response.output_item.done":
            item = completed_item(event)
            if item is not None:
                self._early.note(item)
                self._keeper.done(item)
            if isinstance(item, FunctionCall | CustomToolCall):
                self._dispatcher.start(item, event.get("output_index", -1), group)
            elif isinstance(item, Message) and item.text:
                self._text = item.text
                self._say(said.ItemCompleted(said.AgentMessage(self._next_item_id(), item.text)))
            elif isinstance(item, Reasoning) and any(item.summary):
                text = "\n\n".join(item.summary)
                self._say(said.ItemCompleted(said.ReasoningItem(self._next_item_id(), text)))
        return False

    def _say(self, event: said.Event) -> None:
        if not isinstance(event, said.ItemUpdated):
            self._events.append(event)
        if self._listener is not None:
            self._listener(event)

    def _next_item_id(self) -> str:
        self._num_items += 1
        return f"item_{self._num_items - 1}"


def _calls(items: Sequence[Item]) -> list[Call]:
    return [item for item in items if isinstance(item, FunctionCall | CustomToolCall)]


def _may_pass(error: Exception) -> bool:
    """Whether asking again later could help: the server is overloaded or broken."""
    return isinstance(error, ApiError) and (error.status >= 500 or error.status == 429)

"""One request to the model and everything it starts: its events heard, its calls run as they come.

What came of a response that its server did not bring to an end, or that was dropped here, is not lost: the
items that were done stay in the conversation once a call among them has acted, and go out again
as input, with the outputs. So no call is made twice because a connection was lost.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from tightloop.agent import events as said
from tightloop.agent.dispatch import ARGUMENT_DELTAS, Call, Dispatcher, Output
from tightloop.agent.early_end import EarlyEnd
from tightloop.agent.portable import portable
from tightloop.agent.resilience import Failure, Stalled, failure_of
from tightloop.client.quiet import Quiet
from tightloop.client.session import Session
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.accumulator import TERMINAL_TYPES, completed_item
from tightloop.protocol.errors import ApiError, RemoteProtocolError
from tightloop.protocol.items import (
    CustomToolCall,
    FunctionCall,
    Item,
    Message,
    Reasoning,
    decode_item,
)


class Round:
    """For all rounds of one conversation, one after the other.

    After ``run``, also one that was cancelled: ``unheard`` are items that the session has not taken
    in, to go out again; ``calls`` those whose outputs have to follow; ``failure`` why the response has
    no proper end.
    """

    def __init__(
        self,
        session: Session,
        dispatcher: Dispatcher,
        early: EarlyEnd,
        *,
        say: said.Listener,
        next_item_id: Callable[[], str],
        keep: Callable[[Item], None],
        stall_s: float,
    ) -> None:
        self.unheard: list[Item] = []
        self.calls: list[Call] = []
        self.failure: Failure | None = None
        self.text = ""
        """The model's newest words, of whichever response."""
        self.has_heard = False
        """Whether the server has answered at all since it was set to False."""
        self.is_cut = False
        """Whether the response was ended from here: it has to be followed by another."""
        self._session = session
        self._dispatcher = dispatcher
        self._early = early
        self._say = say
        self._next_item_id = next_item_id
        self._keep = keep
        self._stall_s = stall_s
        self._done: list[Item] = []
        self._answered: dict[str, tuple[Call, Output]] = {}  # calls of responses that were lost
        self._message_id: str | None = None
        self._num_known = 0
        self._is_running = False
        self._has_calls = self._is_hurried = self._is_ended = self._is_dropped = False

    @property
    def is_adopted(self) -> bool:
        """Whether the session has taken the response of this round into the conversation, with what
        was sent for it."""
        return len(self._session.items) > self._num_known

    def hurry(self) -> None:
        """End the response for the sake of another request, unless a call has begun in it."""
        if self._is_running and not self._has_calls and not self._is_hurried:
            self._is_hurried, self._is_ended = True, self._session.end_early()

    async def run(self, items: Sequence[Item], extra: Mapping[str, Any]) -> None:
        """One response to ``items`` and all its calls. Cancelling ends both."""
        self._dispatcher.begin()
        self._early.begin()
        self.unheard, self.calls, self.failure, self.is_cut = list(items), [], None, False
        self._done, self._message_id = [], None
        self._num_known = len(self._session.items)
        self._has_calls = self._is_hurried = self._is_ended = self._is_dropped = False
        self._is_running = True
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await self._listen(items, extra, group)
                except (ApiError, TransportError, RemoteProtocolError) as error:
                    self.failure = error  # calls already started may finish: they act
                finally:
                    self._is_running = False
                    self._dispatcher.abandon()
        finally:
            self._settle(items)

    async def _listen(
        self, items: Sequence[Item], extra: Mapping[str, Any], group: asyncio.TaskGroup
    ) -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(self._session.respond(items, extra)) as stream:
            try:
                async with asyncio.timeout(None) as deadline:
                    quiet = Quiet(self._stall_s, lambda: deadline.reschedule(loop.time()))
                    try:
                        async for event in stream:
                            quiet.moved()
                            self.has_heard = True
                            if self._hear(event, group):
                                self._is_dropped = True
                                return
                    finally:
                        quiet.stop()
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                text = f"no event for {self._stall_s:g} s (the deadline of a silent response)"
                raise Stalled(text) from error
        self.failure = failure_of(self._session.last)

    def _settle(self, items: Sequence[Item]) -> None:
        """Sort out what the session has and what has to go out again."""
        self._early.settle(self._dispatcher.cut, is_dropped=self._is_dropped)
        last = self._session.last
        if self.is_adopted:
            self._answered.clear()
            kept = self._early.kept
            heard = self._session.items[self._num_known + len(items) :]
            self.unheard = list(kept)
            self.calls = _calls([*heard, *kept])
        else:
            kept = self._early.kept if self._is_dropped else self._lost()
            self.unheard = [*items, *kept]
            self.calls = _calls(kept)
            self._remember()
        is_ended = self.is_adopted and last is not None and last.status == "incomplete"
        self.is_cut = bool(kept) and self.failure is None
        self.is_cut |= self._is_hurried and not self.calls and (self._is_dropped or is_ended)

    def _lost(self) -> list[Item]:
        """Of a response without an end: what a call has acted on, and all before it."""
        cut = self._dispatcher.cut
        if not cut and not _calls(self._done):
            return []
        return [*portable(self._done), *cut]

    def _remember(self) -> None:
        """Calls that have ended are not made again if the next response repeats them, id and all."""
        for call in self.calls:
            output = self._dispatcher.outputs.get(call.call_id)
            if output is not None:
                self._answered[call.call_id] = (call, output)

    def _start(self, call: Call, place: int, group: asyncio.TaskGroup) -> None:
        known = self._answered.get(call.call_id)
        if known is not None and _is_same(known[0], call):
            self._dispatcher.outputs[call.call_id] = known[1]
        else:
            self._dispatcher.start(call, place, group)

    def _hear(self, event: Event, group: asyncio.TaskGroup) -> bool:
        """Act on an event; whether the response is to be dropped now."""
        if self._is_hurried and not self._is_ended and not self._has_calls:
            return True
        kind = event["type"]
        if kind in ARGUMENT_DELTAS:
            return self._early.consider(self._dispatcher.feed(event))
        if kind == "response.output_text.delta":
            if self._message_id is None:
                self._message_id = self._next_item_id()
            shown = said.AgentMessage(self._message_id, "")
            self._say(said.ItemUpdated(shown, text_delta=event.get("delta")))
        elif kind == "response.output_item.added":
            self._has_calls = self._dispatcher.announce(event) or self._has_calls
        elif kind == "response.output_item.done":
            item = completed_item(event)
            if item is not None:
                self._take(item, event.get("output_index", -1), group)
        elif kind in TERMINAL_TYPES and not self._done:
            self._take_whole(event, group)
        return False

    def _take_whole(self, event: Event, group: asyncio.TaskGroup) -> None:
        """Items of a server that tells of none before the end."""
        if event["type"] != "response.completed" or self._has_calls or self._message_id:
            return
        output = (event.get("response") or {}).get("output")
        for place, fields in enumerate(output if isinstance(output, list) else ()):
            self._take(decode_item(fields), place, group)

    def _take(self, item: Item, place: int, group: asyncio.TaskGroup) -> None:
        """An item is complete."""
        self._done.append(item)
        self._early.note(item)
        self._keep(item)
        if isinstance(item, FunctionCall | CustomToolCall):
            self._has_calls = True
            self._start(item, place, group)
        elif isinstance(item, Message) and item.text:
            self.text = item.text
            item_id, self._message_id = self._message_id or self._next_item_id(), None
            self._say(said.ItemCompleted(said.AgentMessage(item_id, item.text)))
        elif isinstance(item, Reasoning) and any(item.summary):
            text = "\n\n".join(item.summary)
            self._say(said.ItemCompleted(said.ReasoningItem(self._next_item_id(), text)))


def _calls(items: Sequence[Item]) -> list[Call]:
    return [item for item in items if isinstance(item, FunctionCall | CustomToolCall)]


def _is_same(one: Call, other: Call) -> bool:
    """Whether they ask for the same, whatever ids their items have."""
    return portable([one]) == portable([other])

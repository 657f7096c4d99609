"""Streamed prefill: what is known of tools' outputs goes to the engine before the create comes.

Nothing here has a turn, a record or an event. One ``Prefiller`` a lane keeps the texts as they grow
and has at most one request at work; what comes meanwhile waits, and goes out as one. When the create
arrives it stops, and the engine finds what was prefilled by comparing tokens.
"""

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import msgspec

from tightloop.engine.interface import Engine, Generation, GenerationRequest
from tightloop.protocol.deltas import Delta, Finished, FinishReason
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
)
from tightloop.protocol.prefill import (
    CANCEL,
    MAX_PREFILL_BYTES,
    MAX_PREFILL_CALLS,
    PREFILL,
    Prefill,
)
from tightloop.protocol.requests import ResponseRequest
from tightloop.server.conversations import Record
from tightloop.server.generating import generation_request

NUM_AT_WORK: Final = 4
"""Of these requests on one engine: fewer than it runs at a time, so that a create never waits."""

_log = logging.getLogger(__name__)


def capabilities(engine: Engine) -> frozenset[str]:
    """Names of the extensions that a client may use; ``engine`` must have a use for hints."""
    hints = {PREFILL} if any(model.prefills_early for model in engine.models()) else set()
    return frozenset({CANCEL} | hints)


@dataclass(slots=True)
class Output:
    """A tool's output as far as it is known, in UTF-8."""

    data: bytearray = field(default_factory=bytearray)
    is_done: bool = False

    def take(self, offset: int, delta: bytes, *, is_done: bool) -> bool:
        """Whether the piece was fit in; not if one before it is missing, or it splits a character."""
        size = len(self.data)
        if offset > size or (offset < size and self.data[offset] & 0xC0 == 0x80):
            return False
        self.data[offset:] = delta
        self.is_done = is_done
        return True

    @property
    def text(self) -> str:
        """The text."""
        return self.data.decode()


class Slots:
    """How many of these requests may be at work; the others wait in order."""

    def __init__(self, num_free: int = NUM_AT_WORK) -> None:
        self._num_free = num_free
        self._waiting: deque[Prefiller] = deque()

    def take(self, asker: "Prefiller") -> bool:
        """Whether it may begin; otherwise it is asked to when another one ends."""
        if self._num_free:
            self._num_free -= 1
            return True
        if asker not in self._waiting:
            self._waiting.append(asker)
        return False

    def give_back(self) -> None:
        """One has ended."""
        self._num_free += 1
        while self._num_free and self._waiting:
            self._waiting.popleft().pump()

    def forget(self, asker: "Prefiller") -> None:
        """It no longer wants to begin."""
        if asker in self._waiting:
            self._waiting.remove(asker)


class Prefiller:
    """The growing outputs of one lane's latest response, and the engine at work on them."""

    def __init__(self, engine: Engine, slots: Slots) -> None:
        self._engine = engine
        self._slots = slots
        self._parent_id: str | None = None
        self._outputs: dict[str, Output] = {}
        self._settings: ResponseRequest | None = None
        self._ready: tuple[Record, ResponseRequest] | None = None
        self._generation: Generation | None = None
        self._is_at_work = False
        self._sent: tuple[Item, ...] = ()

    def take(self, hint: Prefill) -> None:
        """File a piece. Hints that cannot be used are ignored."""
        if hint.previous_response_id != self._parent_id:
            self.stop()
            self._parent_id = hint.previous_response_id
        if hint.settings is not None:
            self._settings = hint.settings
        output = self._outputs.get(hint.call_id)
        if output is None:
            if len(self._outputs) >= MAX_PREFILL_CALLS:
                return
            output = Output()
        delta = hint.delta.encode()
        num_bytes = sum(len(other.data) for other in self._outputs.values() if other is not output)
        if num_bytes + hint.offset + len(delta) > MAX_PREFILL_BYTES:
            return
        if output.take(hint.offset, delta, is_done=hint.done):
            self._outputs[hint.call_id] = output

    def begin(self, parent: Record, asked: ResponseRequest) -> None:
        """``parent`` has ended, having been asked for with ``asked``: put the engine to work."""
        if parent.node.id == self._parent_id:
            self._ready = parent, self._settings or asked
            self.pump()

    def stop(self) -> None:
        """The create is here, or will never come: forget everything.

        The engine keeps what it has prefilled, for whoever's prompt begins with it.
        """
        self._parent_id = self._settings = self._ready = None
        self._outputs.clear()
        self._sent = ()
        self._slots.forget(self)
        if self._generation is not None:
            self._generation.cancel()

    def pump(self) -> None:
        """Have the engine prefill what is new, unless it still works on what came before."""
        if self._ready is None or self._is_at_work:
            return
        parent, asked = self._ready
        if not self._is_of_use(asked.model):
            return
        items = self._items(parent)
        if not items or items == self._sent or not self._slots.take(self):
            return
        self._sent = items
        self._is_at_work = True
        request = _open_request(parent, asked, items)
        try:
            generation = self._engine.submit(request, partial(self._receive, parent.node.id))
        except Exception:  # noqa: BLE001 - a hint that fails changes no result
            _log.exception("the engine refused to prefill below %s", parent.node.id)
            self._over(is_hopeless=True)
        else:
            self._generation = generation if self._is_at_work else None

    def _is_of_use(self, name: str) -> bool:
        return any(model.name == name and model.prefills_early for model in self._engine.models())

    def _items(self, parent: Record) -> tuple[Item, ...]:
        """The beginning of the input to come: whole outputs, and the one that still grows."""
        items: list[Item] = []
        for call in parent.node.items[parent.num_input :]:
            if not isinstance(call, FunctionCall | CustomToolCall):
                continue
            output = self._outputs.get(call.call_id)
            text = output.text if output is not None else ""
            is_custom = isinstance(call, CustomToolCall)
            kind = CustomToolCallOutput if is_custom else FunctionCallOutput
            items.append(kind(call.call_id, text))
            if output is None or not output.is_done:
                return tuple(items) if text or len(items) > 1 else ()
        return ()  # nothing is open any more: the create is on its way

    def _receive(self, parent_id: str, deltas: Sequence[Delta]) -> None:
        """The engine's sink."""
        last = deltas[-1] if deltas else None
        if isinstance(last, Finished):
            is_same = parent_id == self._parent_id
            self._over(is_hopeless=is_same and last.reason is FinishReason.ERROR)

    def _over(self, *, is_hopeless: bool) -> None:
        self._is_at_work = False
        self._generation = None
        if is_hopeless:  # too long for the context, say: more text will not help
            self._ready = None
        self._slots.give_back()
        self.pump()


def _open_request(
    parent: Record, asked: ResponseRequest, items: tuple[Item, ...]
) -> GenerationRequest:
    tools = asked.tools + parent.tools
    hinted = msgspec.structs.replace(asked, input=items, tools=tools, generate=False)
    request = generation_request(f"prefill_{parent.node.id}", hinted, parent)
    return replace(request, is_open=True, output_format=None, prediction=None)

"""A conversation made shorter before its model's context window is full.

::

    opening | all that was said and done ...................... | the newest
    opening | the user's messages | hand-over by the model itself | the newest

The opening (how to work, AGENTS.md) stays byte for byte, so the beginning of the prompt stays in the
server's cache. The newest items stay as they are; a call is never parted from its output. The hand-over is
written by the model behind the conversation as it is, which its server has warm, with the same tools
in front. Where that does not fit any more it is asked for behind a shortened conversation, and where that
fails too it is put together here: a conversation can always go on.

Only what is known of tokens from responses is trusted; what was added since is estimated.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from tightloop.agent.events import CHECK
from tightloop.agent.portable import portable
from tightloop.agent.resilience import Remedy, failure_of, trouble_of
from tightloop.client.session import Session
from tightloop.protocol.deltas import Usage
from tightloop.protocol.errors import ApiError
from tightloop.protocol.items import (
    Compaction,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    TextPart,
    user_message,
)

HANDOVER: Final = (
    "[hand-over by tightloop: a summary of the conversation so far, which it replaces]"
)
"""How the message begins that takes the place of the past."""

NOT_BY_USER: Final = "[tightloop, not the user]"
"""How messages begin that go out as the user's without being so."""

QUESTION: Final = (
    "Summarize this conversation so that the work can go on from your summary alone. Say what was"
    " asked for, what was found out, which files were read or changed and how, what the tests said"
    " last, and what is left to do. Give names, paths and numbers exactly. Call no tools."
)
"""Begins with words that the bundled model knows."""

MAX_SUMMARY_TOKENS: Final = 2048
KEEP_SHARE: Final = 0.2
"""Of the window, for the newest items; half as much for the user's messages before them."""

DEFAULT_KEEP_TOKENS: Final = 8_000
"""For the newest items where no window is known."""

ITEM_TOKENS: Final = 4
CHARS_PER_TOKEN: Final = 4.0
MIN_CHARS_PER_TOKEN: Final = 1.0
SHORT_OUTPUT_CHARS: Final = 600
_WINDOW: Final = re.compile(
    r"context[ _](?:window|length|size)(?: of [\w./-]+)?(?: is| of|:)?\s+(\d[\d,]{2,9})",
    re.IGNORECASE,
)

_OURS: Final = (NOT_BY_USER, CHECK)
_Call = FunctionCall | CustomToolCall
_Output = FunctionCallOutput | CustomToolCallOutput


class Window:
    """The context window of a conversation's model, in tokens; None while it is not known."""

    def __init__(self, num_tokens: int | None = None) -> None:
        self.num_tokens = num_tokens

    def learn(self, message: str, num_used: int) -> None:
        """A request of about ``num_used`` tokens was too long; ``message`` says so."""
        found = _WINDOW.search(message)
        said = int(found[1].replace(",", "")) if found else None
        if said is not None and said > 0:
            self.num_tokens = said
        elif self.num_tokens is None or num_used < self.num_tokens:
            self.num_tokens = max(num_used, 1)


@dataclass(frozen=True, slots=True)
class ContextUse:
    """How full a conversation is; ``window`` None where it is not known."""

    num_tokens: int
    window: int | None


class Gauge:
    """How many tokens a conversation has: as its last response counted, and what came since."""

    def __init__(self) -> None:
        self._counted = 0
        self._num_counted_items = 0
        self._chars_per_token = CHARS_PER_TOKEN

    def note(self, usage: Usage, items: Sequence[Item]) -> None:
        """A response has ended in a conversation that holds ``items`` now."""
        if usage.input_tokens <= 0:
            return
        self._counted = usage.input_tokens + usage.output_tokens
        self._num_counted_items = len(items)
        real = sum(map(_num_chars, items)) / self._counted
        self._chars_per_token = min(CHARS_PER_TOKEN, max(MIN_CHARS_PER_TOKEN, real))

    def forget(self) -> None:
        """The conversation is another one now."""
        self._counted = self._num_counted_items = 0

    def tokens(self, items: Sequence[Item]) -> int:
        """Of the conversation with these items, the counted ones first."""
        new = items[self._num_counted_items :]
        return self._counted + self.estimate(new)

    def estimate(self, items: Sequence[Item]) -> int:
        """Of items alone, by their characters."""
        num_chars = sum(map(_num_chars, items))
        return round(num_chars / self._chars_per_token) + ITEM_TOKENS * len(items)


@dataclass(frozen=True, slots=True)
class Parts:
    """A conversation as it is taken apart; ``past`` is what a hand-over replaces."""

    opening: list[Item]
    past: list[Item]
    newest: list[Item]


def take_apart(items: Sequence[Item], keep_tokens: int, estimate: Callable[[Item], int]) -> Parts:
    """The newest items for which there is room, in whole rounds, and the opening, are set apart.

    The last round always counts among the newest if it fits at all: a call needs its output.
    """
    begin = 0
    while begin < len(items) and _is_opening(items[begin]):
        begin += 1
    cut, room = len(items), keep_tokens
    place = len(items)
    for place in _seams(items, begin):
        room -= sum(estimate(item) for item in items[place:cut])
        if room < 0:
            break
        cut = place
    return Parts(list(items[:begin]), list(items[begin:cut]), list(items[cut:]))


def _seams(items: Sequence[Item], begin: int) -> Iterator[int]:
    """Where the conversation can be cut, from its end on: no call before it has its output behind it,
    and no call behind it its reasoning before it."""
    open_ids: list[str] = []
    for place in range(len(items) - 1, begin - 1, -1):
        item = items[place]
        if isinstance(item, _Output):
            open_ids.append(item.call_id)
        elif isinstance(item, _Call) and item.call_id in open_ids:
            open_ids.remove(item.call_id)
        before = items[place - 1] if place > begin else None
        if not open_ids and not isinstance(before, Reasoning | FunctionCall | CustomToolCall):
            yield place


def _is_opening(item: Item) -> bool:
    if not isinstance(item, Message) or item.role not in ("developer", "system"):
        return False
    return not item.text.startswith(HANDOVER)


def users_words(
    past: Sequence[Item], room_tokens: int, estimate: Callable[[Item], int]
) -> list[Item]:
    """The newest messages of the user in ``past`` for which there is room, in order."""
    kept: list[Item] = []
    for item in reversed(past):
        if not isinstance(item, Message) or item.role != "user" or item.text.startswith(_OURS):
            continue
        room_tokens -= estimate(item)
        if room_tokens < 0:
            break
        kept.insert(0, item)
    return kept


def handover(text: str) -> Message:
    """What stands for the past."""
    return Message("developer", (TextPart("input_text", f"{HANDOVER}\n\n{text}"),))


def question(instructions: str = "") -> Message:
    """Asks the model for a hand-over."""
    more = f" The user adds: {instructions.strip()}" if instructions.strip() else ""
    return user_message(QUESTION + more)


def shortened(items: Sequence[Item]) -> list[Item]:
    """The same conversation with long outputs cut in the middle, without reasoning and images."""
    kept: list[Item] = []
    for item in portable(items):
        if isinstance(item, Reasoning | Compaction):
            continue
        if isinstance(item, _Output):
            text = _cut_in_middle(item.output, SHORT_OUTPUT_CHARS)
            item = msgspec.structs.replace(item, output=text, parts=())
        kept.append(item)
    return kept


def without_model(past: Sequence[Item]) -> str:
    """A hand-over put together from what was said and done, for when no model can write one."""
    lines = ["No model could sum this up; these are its last steps, shortened."]
    for item in past[-40:]:
        if isinstance(item, Message):
            who = "you" if item.role == "assistant" else item.role
            lines.append(f"{who}: {_cut_in_middle(item.text, 400)}")
        elif isinstance(item, FunctionCall):
            lines.append(f"you called {item.name}: {_cut_in_middle(item.arguments, 200)}")
        elif isinstance(item, CustomToolCall):
            lines.append(f"you called {item.name}: {_cut_in_middle(item.input, 200)}")
        elif isinstance(item, _Output):
            lines.append(f"it gave: {_cut_in_middle(item.output, 200)}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Shortened:
    """A conversation after its compaction: ``items`` go out with the next request as a new chain."""

    items: list[Item]
    num_before: int
    tokens_before: int
    tokens_after: int


class Compactor:
    """Shortens the conversation of one session. ``spend`` is told what that took.

    ``level`` of ``compact`` says how much has to go: each one keeps a quarter of the one before.
    """

    def __init__(
        self, session: Session, window: Window, share: float | None, spend: Callable[[Usage], None]
    ) -> None:
        self.gauge = Gauge()
        self.window = window
        self._session = session
        self._share = share
        self._spend = spend
        self._has_grown = False

    def note(self) -> None:
        """A response of the session has become a part of the conversation."""
        last = self._session.last
        self._has_grown = True
        if last is not None and last.usage is not None:
            self.gauge.note(last.usage, self._session.items)

    def use(self, items: Sequence[Item]) -> ContextUse:
        """How full the conversation is with these items."""
        return ContextUse(self.gauge.tokens(items), self.window.num_tokens)

    def is_due(self, items: Sequence[Item]) -> bool:
        """Whether the next request with these items comes too near to the window."""
        window = self.window.num_tokens
        if window is None or self._share is None or not self._has_grown:
            return False
        return self.gauge.tokens(items) > self._share * window

    def learn(self, failure: ApiError, items: Sequence[Item]) -> None:
        """The conversation was too long for its model."""
        self.window.learn(failure.message, self.gauge.tokens(items))

    async def compact(
        self, items: Sequence[Item], instructions: str = "", *, level: int = 0
    ) -> Shortened:
        """A shorter conversation in place of ``items``, all of which the session and its owner hold.

        The session is not changed but for its trips; raises what ``Session.ask_aside`` raises for
        trouble that passes, so that it can be tried again.
        """
        before = self.gauge.tokens(items)
        parts = take_apart(items, self._keep_tokens() >> (2 * level), self._estimate_one)
        words = users_words(parts.past, self._keep_tokens() >> (2 * level + 1), self._estimate_one)
        text = await self._text(items, parts, instructions)
        if level:
            text = _cut_in_middle(text, max(400, 8000 >> (2 * level)))
        made = [*parts.opening, *words, handover(text), *portable(parts.newest)]
        return Shortened(made, len(items), before, self.gauge.estimate(made))

    def settle(self) -> None:
        """The shortened conversation has taken the other's place."""
        self.gauge.forget()
        self._has_grown = False

    async def _text(self, items: Sequence[Item], parts: Parts, instructions: str) -> str:
        known = list(self._session.items)
        pending = list(items[len(known) :])
        whole = shortened([*parts.opening, *parts.past])
        ways: tuple[tuple[list[Item], list[Item] | None], ...] = (
            (pending, None),  # behind what the server has warm
            ([], whole),
            ([], [*parts.opening, *_second_half(whole[len(parts.opening) :])]),
        )
        for new, context in ways:
            text = await self._ask([*new, question(instructions)], context)
            if text:
                return text
        return without_model(parts.past)

    async def _ask(self, new: Sequence[Item], context: Sequence[Item] | None) -> str:
        """What the model says; empty when it cannot be had this way."""
        try:
            response = await self._session.ask_aside(new, self._extra(), context=context)
        except ApiError as error:
            if trouble_of(error).remedy is Remedy.WAIT:
                raise
            return ""
        failure = failure_of(response)
        if failure is not None and trouble_of(failure).remedy is Remedy.WAIT:
            raise failure
        if response.usage is not None:
            self._spend(response.usage)
        texts = [item.text for item in response.output_items if isinstance(item, Message)]
        return "\n\n".join(filter(None, (text.strip() for text in texts)))

    def _extra(self) -> dict[str, Any]:
        """The same tools stay in front, so that the prompt is the one that the server has warm."""
        window = self.window.num_tokens
        room = MAX_SUMMARY_TOKENS if window is None else min(MAX_SUMMARY_TOKENS, window // 8)
        return {"tool_choice": "none", "max_output_tokens": max(16, room)}

    def _keep_tokens(self) -> int:
        window = self.window.num_tokens
        return DEFAULT_KEEP_TOKENS if window is None else int(window * KEEP_SHARE)

    def _estimate_one(self, item: Item) -> int:
        return self.gauge.estimate([item])


def _second_half(items: Sequence[Item]) -> list[Item]:
    """About the newer half, cut where it can be."""
    half = len(items) // 2
    place = next((seam for seam in sorted(_seams(items, 0)) if seam >= half), len(items))
    return list(items[place:])


def _num_chars(item: Item) -> int:
    match item:
        case Message():
            return len(item.text)
        case FunctionCall():
            return len(item.name) + len(item.arguments)
        case CustomToolCall():
            return len(item.name) + len(item.input)
        case FunctionCallOutput() | CustomToolCallOutput():
            return len(item.output)
        case Reasoning():
            return sum(map(len, item.summary)) + len(item.encrypted_content or "") // 2
        case Compaction():
            return len(item.encrypted_content) * 3 // 4
        case _:
            return len(bytes(item.raw))


def _cut_in_middle(text: str, num_chars: int) -> str:
    if len(text) <= num_chars:
        return text
    head, tail = num_chars * 2 // 5, num_chars * 3 // 5
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"

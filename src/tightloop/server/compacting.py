"""Sums up a conversation, with the same engine that holds it.

A turn runs this before the engine (``prepared``) and gets the same deltas as ever. The summary is
asked for as one more user message at the end of the conversation, with the same tools and
instructions in front: the engine then has the whole context warm and only reads the question.

What takes the place of the past must leave room for an answer, or the next turn could not go on. It
is counted before the client hears of it, and made shorter until it fits.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from tightloop.engine.interface import Engine, EngineError, GenerationRequest, Sink
from tightloop.protocol.compaction import Summary, is_trigger, seal
from tightloop.protocol.deltas import (
    ContextCompacted,
    Delta,
    EngineTiming,
    Finished,
    FinishReason,
    TextDelta,
    Usage,
)
from tightloop.protocol.items import (
    Compaction,
    CustomToolCallOutput,
    FunctionCallOutput,
    Item,
    Message,
    TextPart,
    user_message,
)
from tightloop.protocol.requests import ResponseRequest
from tightloop.server.fitting import (
    Length,
    context_window,
    cut_in_middle,
    fitted,
    input_limit,
    is_ground,
)
from tightloop.server.prepared import Prepare

SUMMARY_PROMPT = (
    "Summarize this conversation so that the work can go on from your summary alone. Say what was"
    " asked for, what was found out, which files were read or changed and how, what the tests said"
    " last, and what is left to do. Give names, paths and numbers exactly. Call no tools."
)
"""Begins with words that the bundled model knows."""

MAX_SUMMARY_TOKENS = 1024
KEPT_CHARS_PER_TOKEN = 1
"""Of the user's messages so many characters are kept, for each token of the limit: about a quarter
of the context, so that a compaction always leaves room to go on."""

MIN_CUT_CHARS = 200
"""Less than this of a message says too little to be kept."""


def asks_for_compaction(request: ResponseRequest) -> bool:
    """Whether the request is a ``compaction_trigger``: its one output is a compaction item."""
    return bool(request.input) and is_trigger(request.input[-1])


def worth_keeping(items: Sequence[Item], limit: int | None) -> tuple[Item, ...]:
    """What stays beside a summary: ground rules, and the newest messages of the user.

    ``limit`` is in tokens, that of the whole context; None keeps every message. The message that
    goes beyond it is cut in the middle.
    """
    room = 1 << 30 if limit is None else limit * KEPT_CHARS_PER_TOKEN
    kept: list[Item] = []
    for item in reversed(items):
        if is_ground(item):
            kept.append(item)
        elif isinstance(item, Message) and item.role == "user" and room > 0:
            if len(item.text) <= room:
                kept.append(item)
            elif room >= MIN_CUT_CHARS:
                kept.append(user_message(cut_in_middle(item.text, room)))
            room -= len(item.text)
    return tuple(reversed(kept))


@dataclass(frozen=True, slots=True)
class Summarized:
    """A finished summary, or ``finished`` with the reason why there is none."""

    text: str
    finished: Finished

    @property
    def is_usable(self) -> bool:
        """Whether there is a summary; one that was cut by its length limit is."""
        reasons = (FinishReason.STOP, FinishReason.LENGTH)
        return self.finished.reason in reasons and bool(self.text.strip())


class Compactor:
    """Sums up before, or instead of, one generation. ``sink`` gets the compaction item's delta."""

    def __init__(self, engine: Engine, sink: Sink) -> None:
        self._engine = engine
        self._sink = sink
        self._summary: Summarized | None = None

    async def only(self, request: GenerationRequest) -> None:
        """The output is one compaction item, which begins a new chain (``prepared.Prepare``)."""
        summary = await self.summarized(request)
        if summary.is_usable:
            self._say(Summary(summary.text))
        self._sink([_stopped(summary) if summary.is_usable else _refused(summary)])

    def above(self, threshold: int, length: Length | None = None) -> Prepare:
        """From ``threshold`` input tokens on a compaction item comes first, then the answer.

        ``length`` is what is known of them, and then what was found out.
        """
        length = length or Length()

        async def prepare(request: GenerationRequest) -> GenerationRequest | None:
            if _has_just_compacted(request):
                return request
            if not await length.is_above(threshold - 1, self._engine, request):
                return request
            length.at_most = None  # what follows is another prompt
            summary = await self.summarized(request)
            if not summary.is_usable:
                self._sink([_refused(summary)])
                return None
            self._summary = summary
            shorter, content = await self._shortened(request, summary.text, threshold)
            self._say(content)
            return shorter

        return prepare

    async def _shortened(
        self, request: GenerationRequest, text: str, threshold: int
    ) -> tuple[GenerationRequest, Summary]:
        """``request`` with a summary in place of its past, short enough to be answered.

        Raises ``EngineError`` when the rules alone leave no room for that.
        """
        window = context_window(self._engine, request.model)
        for content in _ever_shorter(text, request.context(), threshold):
            item = Compaction(seal(content))
            shorter = replace(request, items=(*request.items, item))
            if window is None:
                return shorter, content
            if await self._engine.count_input(shorter) <= input_limit(
                window, request.max_output_tokens
            ):
                return shorter, content
        raise EngineError(
            f"the rules of this conversation leave no room in a context window of {window} tokens,"
            " also with the shortest summary; shorten them or choose a model with a longer window",
            code="context_length_exceeded",
        )

    def pass_on(self, deltas: Sequence[Delta]) -> None:
        """The answer's deltas; its figures include what the summary took."""
        last = deltas[-1]
        if self._summary is not None and isinstance(last, Finished):
            deltas = [*deltas[:-1], _together(self._summary.finished, last)]
        self._sink(deltas)

    async def summarized(self, request: GenerationRequest) -> Summarized:
        """The summary of all that ``request`` holds, or of as much as the window takes.

        Raises ``EngineError`` when not even the newest item can be read.
        """
        asked = summary_request(request)
        window = context_window(self._engine, asked.model)
        if window is not None:
            limit = window - _room(window)
            # The question, and at least one thing to ask about.
            asked = await fitted(self._engine, asked, limit, num_last=2)
            if asked.parent is None and await self._engine.count_input(asked) > limit:
                *before, newest, question = asked.items
                asked = replace(asked, items=(*before, _cut(newest, limit // 2), question))
        return await summarize(self._engine, asked)

    def _say(self, summary: Summary) -> None:
        self._sink([ContextCompacted(seal(summary))])


def _ever_shorter(text: str, items: Sequence[Item], threshold: int) -> Iterator[Summary]:
    """What can stand for a conversation: fewer and fewer of the user's words, then of the summary."""
    for divisor in (1, 2, 4, 16):
        kept = worth_keeping(items, threshold // divisor)
        yield Summary(text, kept, hides_earlier=True)
    rules = worth_keeping(items, 0)
    for num_chars in (threshold, threshold // 2, threshold // 4):
        yield Summary(cut_in_middle(text, num_chars), rules, hides_earlier=True)


def _cut(item: Item, num_chars: int) -> Item:
    """The item with so much of its text that it can be read at all."""
    if isinstance(item, Message):
        text = cut_in_middle(item.text, num_chars)
        return msgspec.structs.replace(item, content=(TextPart("input_text", text),))
    if isinstance(item, FunctionCallOutput | CustomToolCallOutput):
        return msgspec.structs.replace(item, output=cut_in_middle(item.output, num_chars), parts=())
    return item


def summary_request(request: GenerationRequest) -> GenerationRequest:
    """The request for a summary of everything that ``request`` holds."""
    return replace(
        request,
        response_id=f"{request.response_id}_summary",
        items=(*request.items, user_message(SUMMARY_PROMPT)),
        tool_choice="none",
        max_output_tokens=MAX_SUMMARY_TOKENS,
        output_format=None,
        generate=True,
    )


async def summarize(engine: Engine, request: GenerationRequest) -> Summarized:
    """Run a request made by ``summary_request``; cancelling this stops the engine too."""
    ended: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
    pieces: list[str] = []

    def collect(deltas: Sequence[Delta]) -> None:
        pieces.extend(delta.text for delta in deltas if isinstance(delta, TextDelta))
        if isinstance(deltas[-1], Finished) and not ended.done():
            ended.set_result(deltas[-1])

    running = engine.submit(request, collect)
    try:
        finished = await ended
    except asyncio.CancelledError:
        running.cancel()
        raise
    return Summarized("".join(pieces).strip(), finished)


def _has_just_compacted(request: GenerationRequest) -> bool:
    """The parent's response began with a summary: another one now could only be a loop."""
    parent = request.parent
    return parent is not None and any(isinstance(item, Compaction) for item in parent.items)


def _room(window: int) -> int:
    return min(MAX_SUMMARY_TOKENS, window // 4)


def _stopped(summary: Summarized) -> Finished:
    """The end of a response whose whole output is the summary, also one that was cut short."""
    return msgspec.structs.replace(summary.finished, reason=FinishReason.STOP)


def _refused(summary: Summarized) -> Finished:
    """The end of a response for which the engine gave no summary."""
    finished = summary.finished
    if finished.reason in (FinishReason.ERROR, FinishReason.CANCELLED):
        return finished
    text = "the model gave no summary of the conversation; raise compact_threshold or start anew"
    return Finished(FinishReason.ERROR, finished.usage, None, "compaction_failed", text)


def _together(first: Finished, last: Finished) -> Finished:
    return msgspec.structs.replace(
        last,
        usage=_sum(first.usage, last.usage),
        timing=_span(first.timing, last.timing),
    )


def _sum(first: Usage, last: Usage) -> Usage:
    return Usage(
        first.input_tokens + last.input_tokens,
        first.cached_tokens + last.cached_tokens,
        first.output_tokens + last.output_tokens,
        first.reasoning_tokens + last.reasoning_tokens,
        first.accepted_prediction_tokens + last.accepted_prediction_tokens,
        first.rejected_prediction_tokens + last.rejected_prediction_tokens,
    )


def _span(first: EngineTiming | None, last: EngineTiming | None) -> EngineTiming | None:
    """One timing for both: what came before the answer's first token counts as prefill."""
    if first is None or last is None:
        return last
    return msgspec.structs.replace(
        last, submitted_ns=first.submitted_ns, started_ns=first.started_ns
    )

"""Prefills a tool's output while it still grows (``GenerationRequest.is_open``).

Only what cannot change any more is evaluated: the text up to where two ways of going on part, less
its last word. One sequence per parent holds it, filed beside the parent's under ``open_key``; the
next request below that parent has it as its own. Nothing depends on it: that request's tokens are
compared with it like with any other warm sequence.

A hint repeats the text of the one before it, with more at the end. So only the end is rendered to
tokens again, from a little before where the known text stops; where the two readings do not meet,
all of it is.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from tightloop.engine.crowd import Crowd
from tightloop.engine.families.open_sequence import OpenSequence, open_key
from tightloop.engine.families.prompts import Known, Prompt, PromptReader, Settled
from tightloop.engine.families.warm_sequence import (
    CHUNK_TOKENS,
    WarmSequence,
    common_prefix,
)
from tightloop.engine.interface import EngineError, Evaluate, GenerationRequest, Job
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.deltas import FinishReason

OVERLAP_BYTES: Final = 512
"""Read again before what is new: a reading that begins in a word soon agrees with one that did not."""

MEETING_TOKENS: Final = 8
"""So many tokens in a row must agree."""

GROWTH: Final = 1.25
"""Where all of a conversation must be rendered, an output is looked at when it has grown by this."""

LAST_WORD_BYTES: Final = 1024
"""Looked through for the last word; in a longer one 64 bytes at the end are left out."""

Claim = Callable[[GenerationRequest, Prompt], tuple[WarmSequence, list[int]]]


@dataclass(frozen=True, slots=True)
class _Reading:
    """``new`` follows the first ``num_kept`` tokens; ``text`` is all of it that is tokens."""

    num_kept: int
    new: list[int]
    text: bytes | None


class OpenItems:
    """Prefills open items for one family; one state per parent, replaced as it grows."""

    def __init__(self, pool: SequencePool, prompts: PromptReader, crowd: Crowd) -> None:
        self._pool = pool
        self._prompts = prompts
        self._crowd = crowd

    def prefill(
        self, job: Job, request: GenerationRequest, known: Known | None, claim: Claim
    ) -> Generator[Evaluate | None, Any, FinishReason]:
        """Evaluate what is new and settled. ``claim`` gives a sequence where there is none yet.

        Gives up, without an error, where responses that are being made need the room.
        """
        if request.parent is None or not request.items:
            return FinishReason.STOP
        key = open_key(request.parent.id)
        num_chars = len(getattr(request.items[-1], "output", ""))
        if not self._is_worth_rendering(key, num_chars):
            return FinishReason.STOP
        settled = self._prompts.settled(request, known)
        if settled is None:
            return FinishReason.STOP
        state = self._pool.take(key)
        warm = state if isinstance(state, OpenSequence) else None
        place = self._crowd.enter()
        try:
            reading = yield from self._read(settled, warm)
            if reading is None:
                return FinishReason.STOP
            self._check_length(reading)
            if warm is not None and not self._keep(warm, reading.num_kept):
                warm = None
                if reading.num_kept > settled.num_head:
                    return FinishReason.STOP  # the next hint starts anew
            if warm is None:
                warm, rest = self._claim(request, settled, reading, claim)
                reading = replace(reading, new=rest)
            warm.num_chars = num_chars
            yield from self._evaluate(job, warm, reading)
        finally:
            place.leave()
            if warm is not None and not warm.is_parked:
                self._pool.file(key, warm)
        return FinishReason.STOP

    def _is_worth_rendering(self, key: str, num_chars: int) -> bool:
        """Not after every few words, where it takes the whole conversation."""
        state = self._pool.peek(key)
        if not isinstance(state, OpenSequence) or state.num_head:
            return True
        return num_chars < state.num_chars or num_chars >= GROWTH * state.num_chars

    def _check_length(self, reading: _Reading) -> None:
        size, window = reading.num_kept + len(reading.new), self._pool.context_window
        if size >= window:
            raise EngineError(
                f"the open output makes {size} tokens, and the context window is {window}",
                code="context_length_exceeded",
            )

    # ------------------------------------------------------------------ reading

    def _read(
        self, settled: Settled, warm: OpenSequence | None
    ) -> Generator[None, None, _Reading | None]:
        """What to evaluate after which of the tokens held; None when nothing is settled."""
        data = settled.text.encode()
        num_head = settled.num_head
        if warm is not None and warm.num_head == num_head:
            going_on = yield from self._read_on(data, warm)
            if going_on is not None:
                return going_on
        tail = yield from self._pool.read(settled.text, special=True)
        if not settled.may_begin(tail):
            return None
        text, num_left = self._without_last_word(data, tail)
        del tail[num_left:]
        if not tail:
            return None
        if warm is not None:
            num_kept = common_prefix(warm.tokens, [*settled.head[:num_head], *tail])
            if num_kept > num_head:
                return _Reading(num_kept, tail[num_kept - num_head :], text)
        return _Reading(num_head, tail, text)

    def _read_on(self, data: bytes, warm: OpenSequence) -> Generator[None, None, _Reading | None]:
        """As ``_read``, where the text goes on after what ``warm`` holds; None if it does not."""
        held = warm.text
        if not held or not data.startswith(held):
            return None
        start = max(0, len(held) - OVERLAP_BYTES)
        while start and data[start] & 0xC0 == 0x80:
            start -= 1
        fresh = yield from self._pool.read(data[start:].decode(), special=True)
        num_new = self._split(fresh, len(data) - len(held))
        if num_new is None:
            return None
        old, new = fresh[: len(fresh) - num_new], fresh[len(fresh) - num_new :]
        num_met = min(len(old), len(warm.tokens) - warm.num_head, MEETING_TOKENS)
        if not num_met or old[-num_met:] != warm.tokens[-num_met:]:
            return None
        text, num_left = self._without_last_word(data, new)
        del new[num_left:]
        return _Reading(len(warm.tokens), new, text if new else held)

    def _split(self, tokens: Sequence[int], num_bytes: int) -> int | None:
        """How many tokens at the end stand for so many bytes; None when none begins there."""
        token_bytes = self._pool.token_bytes
        for number, token in enumerate(reversed(tokens)):
            if num_bytes <= 0:
                return number if num_bytes == 0 else None
            num_bytes -= len(token_bytes(token))
        return len(tokens) if num_bytes == 0 else None

    def _without_last_word(self, data: bytes, tokens: Sequence[int]) -> tuple[bytes | None, int]:
        """The text and the number of ``tokens`` that stay as they are however the text goes on."""
        surplus = len(data) - num_settled(data)
        end = b""
        num_left = len(tokens)
        while num_left and len(end) < surplus:
            num_left -= 1
            end = self._pool.token_bytes(tokens[num_left]) + end
        is_text = data.endswith(end)
        return (data[: len(data) - len(end)] if is_text else None), num_left

    # ------------------------------------------------------------------ evaluating

    def _keep(self, warm: OpenSequence, num_kept: int) -> bool:
        """Whether it holds only what is right, and more than the parent; else it is given back."""
        try:
            if num_kept > warm.num_head:
                if num_kept < len(warm.tokens):
                    warm.cut(num_kept)
                return True
        except EngineError:  # a model that cannot forget a part
            pass
        warm.park()
        return False

    def _claim(
        self, request: GenerationRequest, settled: Settled, reading: _Reading, claim: Claim
    ) -> tuple[OpenSequence, list[int]]:
        tail = reading.new
        warm, rest = claim(request, Prompt(settled.head, settled.num_head, tail, None))
        opened = OpenSequence(
            self._pool, warm.sequence, warm.tokens, shown=settled.shown, history=warm.history
        )
        opened.num_head = settled.num_head
        return opened, rest

    def _evaluate(
        self, job: Job, warm: OpenSequence, reading: _Reading
    ) -> Generator[Evaluate | None, Any, None]:
        new, num_before = reading.new, len(warm.tokens)
        job.count_prefill(0, num_before)
        try:
            for start in range(0, len(new), CHUNK_TOKENS):
                if any(not place.holds for place in self._crowd.members):
                    break  # a response waits for room
                yield Evaluate(warm.sequence, new[start : start + CHUNK_TOKENS])
        except EngineError as error:
            warm.park()
            if error.code != "server_is_overloaded":
                raise
        finally:
            if not warm.is_parked:
                self._note(warm, reading)
                job.count_prefill(len(warm.tokens) - num_before, 0)

    def _note(self, warm: OpenSequence, reading: _Reading) -> None:
        """Know what is held, whatever broke it off: what was evaluated until then stays."""
        num_done = self._pool.num_tokens(warm.sequence) - len(warm.tokens)
        if num_done < 0:
            warm.park()
            return
        warm.tokens.extend(reading.new[:num_done])
        warm.text = warm.text_of(reading.new[num_done:], reading.text)


def num_settled(data: bytes) -> int:
    """Bytes of a text whose tokens stay as they are when more is appended.

    Tokenisers split a text into words before they look at it, and what follows a word's end can
    only change the white space after it, and what that is joined to.
    """
    start = max(0, len(data) - LAST_WORD_BYTES)
    end = data[start:]
    word = max(end.rfind(b" "), end.rfind(b"\n"), end.rfind(b"\t"))
    if word < 0:
        return max(start, len(data) - 64)
    return start + len(end[: word + 1].rstrip())

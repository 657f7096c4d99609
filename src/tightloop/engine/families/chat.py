"""Any chat model: its own template, its own control tokens, warm sequences by common prefix."""

import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.aside import Aside
from tightloop.engine.crowd import Crowd, Place
from tightloop.engine.families.answer_rules import TAGS, constraint_for, is_constrained
from tightloop.engine.families.chat_template import ChatTemplate
from tightloop.engine.families.constraint import Constraint
from tightloop.engine.families.grammars import STACK_BYTES, GrammarCompiler
from tightloop.engine.families.prompts import (
    Draft,
    Known,
    Prompt,
    PromptReader,
    Shown,
    can_think,
)
from tightloop.engine.families.sampling import Sampler
from tightloop.engine.families.stopping import StopWatch
from tightloop.engine.families.text_stream import Utf8Stream
from tightloop.engine.families.tool_calls import ToolCallParser
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.interface import EngineError, GenerationRequest, Job
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.tool_names import offered
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.requests import CustomTool, FunctionTool
from tightloop.trace.clock import now_ns

CHUNK_TOKENS = 512
"""Most prefill tokens in one step: what another session may have to wait for."""

COMPARED_TOKENS = 4096
"""Compared at once, without looking closer while they are equal."""

GLANCE_TOKENS = 64
"""Compared first, to see whether the rest is worth comparing."""

NUM_COMPILERS = 2
"""Grammars compiled at a time, also those whose clients have left."""

PATIENCE_NS = 5_000_000
"""A search for a legal token lets other sessions on after this."""

Logits = NDArray[np.float32]


@dataclass(slots=True)
class WarmSequence:
    """A sequence and the tokens it holds."""

    pool: SequencePool
    sequence: int
    tokens: list[int] = field(default_factory=list)
    is_parked: bool = False
    """The sequence was given back; the tokens are what it held."""
    shown: Shown | None = None
    """What of the tokens a continuation's prompt begins with; None when that is not known."""

    def release(self) -> None:
        """The sequence is closed."""
        if not self.is_parked:
            self.pool.close(self.sequence)

    def park(self) -> None:
        """Give the sequence back and remember what it held."""
        self.release()
        self.is_parked = True

    def unpark(self) -> Generator[None, None, None]:
        """A sequence again that holds the tokens. Raises ``EngineError`` when there is no room."""
        self.sequence = self.pool.open()
        self.is_parked = False
        for start in range(0, len(self.tokens), CHUNK_TOKENS):
            self.pool.evaluate(self.sequence, self.tokens[start : start + CHUNK_TOKENS])
            yield


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of leading tokens that are equal."""
    size = min(len(left), len(right))
    for start in range(0, size, COMPARED_TOKENS):
        end = min(start + COMPARED_TOKENS, size)
        ours, theirs = left[start:end], right[start:end]
        if ours != theirs:
            return start + int((np.asarray(ours) != np.asarray(theirs)).argmax())
    return size


def most_calls(request: GenerationRequest) -> int | None:
    """How many calls the answer may hold; None is any number.

    Where no tool is offered a call means nothing, and stays the text that it is.
    """
    if not any(isinstance(tool, FunctionTool | CustomTool) for tool in request.tools):
        return 0
    is_named = request.tool_choice not in ("auto", "none", "required")
    return 1 if is_named or not request.parallel_tool_calls else None


class ChatFamily:
    """Generates with any model that has a chat template; ChatML when it has none."""

    name = "chat"

    def __init__(self, pool: SequencePool, *, new_call_id: Callable[[], str] | None = None) -> None:
        self._pool = pool
        self._eos = pool.eos_tokens
        self._compiler = GrammarCompiler()
        self._crowd = Crowd()
        self._aside = Aside(NUM_COMPILERS, stack_bytes=STACK_BYTES)
        self._vocabulary = Vocabulary(pool)
        self._new_call_id = new_call_id or (lambda: f"call_{secrets.token_hex(12)}")
        metadata = pool.metadata
        bos = self._control_text("bos")
        self._template = ChatTemplate(
            metadata.get("tokenizer.chat_template"),
            bos=bos,
            eos=self._control_text("eos"),
        )
        default = "true" if metadata.get("tokenizer.ggml.model") == "llama" else "false"
        adds_bos = metadata.get("tokenizer.ggml.add_bos_token", default) == "true"
        self._prompts = PromptReader(
            pool, self._template, self._vocabulary, bos=bos if adds_bos else ""
        )

    def _control_text(self, name: str) -> str:
        token = self._pool.metadata.get(f"tokenizer.ggml.{name}_token_id", "")
        return self._pool.token_bytes(int(token)).decode() if token.isdecimal() else ""

    def generate(self, job: Job) -> Generator[None, None, FinishReason]:
        """One response: prefill what is new, then decode token by token."""
        request = replace(job.request, tools=offered(job.request))
        draft = self._draft(request)
        forced, is_thinking = draft.forced, draft.is_thinking
        rules = yield from self._rules(request, is_thinking=is_thinking)
        if rules is not None and not rules.accept(forced.encode()):
            raise EngineError(f"no answer may begin with {forced!r}")
        prompt = yield from self._prompts.read(draft)
        window = self._pool.context_window
        if len(prompt) >= window:
            raise EngineError(
                f"the conversation has {len(prompt)} tokens and the model's context window is "
                f"{window}; shorten it or choose a model with a longer window",
                code="context_length_exceeded",
            )
        place = self._crowd.enter()
        warm: WarmSequence | None = None
        try:
            warm, rest = self._claim(request, prompt)
            logits = yield from self._prefill(job, place, warm, rest)
            job.mark_prefilled()
            if not request.generate:
                return FinishReason.STOP
            custom = {tool.name for tool in request.tools if isinstance(tool, CustomTool)}
            parser = ToolCallParser(
                self._new_call_id,
                custom_tools=custom,
                is_thinking=is_thinking,
                max_calls=most_calls(request),
            )
            for delta in parser.feed(forced):
                job.emit(delta)
            return (yield from self._decode(job, place, warm, logits, parser, rules))
        finally:
            place.leave()
            if warm is not None and not warm.is_parked:
                self._put_back(request, warm)

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        """Tokens of the rendered prompt. Raises ``EngineError`` when it cannot be rendered."""
        draft = self._draft(replace(request, tools=offered(request)))
        return len((yield from self._prompts.read(draft)))

    def _draft(self, request: GenerationRequest) -> Draft:
        parent = self._pool.peek(request.parent.id) if request.parent is not None else None
        known: Known | None = None
        if isinstance(parent, WarmSequence) and parent.shown is not None:
            known = Known(parent.tokens, parent.shown)
        return self._prompts.draft(request, known)

    def _rules(
        self, request: GenerationRequest, *, is_thinking: bool
    ) -> Generator[None, None, Constraint | None]:
        """What the answer must obey; a client's grammar is compiled aside."""
        if not is_constrained(request):
            return None
        work = partial(
            constraint_for,
            request,
            self._compiler,
            is_thinking=is_thinking,
            may_think=self._template.knows_thinking and can_think(request),
        )
        return (yield from self._aside.do(work))

    def _claim(self, request: GenerationRequest, prompt: Prompt) -> tuple[WarmSequence, list[int]]:
        """A sequence of this response's own that holds as much of the prompt as any warm one.

        Also what it does not hold, at least one token, for there must be logits.
        """
        best, shared = self._warmest(request, prompt)
        shared = min(shared, len(prompt) - 1)
        if best is None or not shared:
            warm = WarmSequence(self._pool, self._pool.open())
        else:
            sequence = self._pool.fork(best.sequence, shared)
            warm = WarmSequence(self._pool, sequence, best.tokens[:shared])
        warm.shown = prompt.shown
        known = shared - prompt.num_head
        return warm, prompt.tail[known:] if known >= 0 else prompt.whole()[shared:]

    def _warmest(
        self, request: GenerationRequest, prompt: Prompt
    ) -> tuple[WarmSequence | None, int]:
        """The warm sequence with the longest common prefix, and its length."""
        parent = request.parent.id if request.parent else ""
        best: WarmSequence | None = None
        shared, head = 0, prompt.num_head
        origin = self._pool.peek(parent)
        if head and isinstance(origin, WarmSequence) and origin.tokens is prompt.head:
            best, shared = origin, head + common_prefix(origin.tokens[head:], prompt.tail)
        whole: list[int] | None = None
        for key, state in self._pool.newest_first():
            if not isinstance(state, WarmSequence) or state is best:
                continue
            # To hold more, it must go on as the prompt does where the best one so far ends.
            start, end = max(0, shared - GLANCE_TOKENS), shared + 1
            if key != parent and state.tokens[start:end] != prompt.part(start, end):
                continue
            whole = prompt.whole() if whole is None else whole
            size = common_prefix(state.tokens, whole)
            if size > shared or (size == shared and key == parent):
                best, shared = state, size
        return best, shared

    def _put_back(self, request: GenerationRequest, warm: WarmSequence) -> None:
        """File what is known to be in the sequence; a chunk that was broken off is forgotten."""
        known = min(self._pool.num_tokens(warm.sequence), len(warm.tokens))
        del warm.tokens[known:]
        try:
            self._pool.truncate(warm.sequence, known)
        except EngineError:  # a model that cannot forget a part: start over next time
            known = 0
        if not known:
            warm.release()
            return
        if warm.shown is not None and warm.shown.num_tokens > known:
            warm.shown = None
        self._pool.file(request.response_id, warm)
        if request.parent is not None:
            self._pool.demote(request.parent.id)

    def _evaluate(
        self, place: Place, warm: WarmSequence, tokens: Sequence[int]
    ) -> Generator[None, None, Logits]:
        """As ``evaluate`` of the pool; where others fill the context it waits for its turn.

        What ``warm`` holds must be ``warm.tokens``, and still is if this raises.
        """
        while True:
            try:
                if warm.is_parked:
                    yield from warm.unpark()
                return self._pool.evaluate(warm.sequence, tokens)
            except EngineError as error:
                if error.code != "server_is_overloaded" or place.is_alone:
                    raise
            if place.is_oldest:
                self._pool.truncate(warm.sequence, len(warm.tokens))
                yield  # the younger ones make way at their next step
            else:
                warm.park()
                yield from place.wait()

    def _prefill(
        self, job: Job, place: Place, warm: WarmSequence, rest: list[int]
    ) -> Generator[None, None, Logits]:
        job.count_prefill(0, len(warm.tokens))
        logits: Logits | None = None
        for start in range(0, len(rest), CHUNK_TOKENS):
            if logits is not None:
                yield
            chunk = rest[start : start + CHUNK_TOKENS]
            logits = yield from self._evaluate(place, warm, chunk)
            warm.tokens.extend(chunk)
            job.count_prefill(len(chunk), 0)
        assert logits is not None
        return logits

    def _decode(
        self,
        job: Job,
        place: Place,
        warm: WarmSequence,
        logits: Logits,
        parser: ToolCallParser,
        rules: Constraint | None,
    ) -> Generator[None, None, FinishReason]:
        request = job.request
        sampler = Sampler(request.sampling)
        text = Utf8Stream()
        stops = StopWatch(request.sampling.stop)
        is_watched = stops.is_needed
        room = self._pool.context_window - len(warm.tokens)
        limit = min(room, request.max_output_tokens or room)
        evaluate, token_bytes = self._pool.evaluate, self._pool.token_bytes
        emit, tokens, sequence = job.emit, warm.tokens, warm.sequence
        reason = FinishReason.LENGTH
        num_output = num_reasoning = num_steps = inside_ns = 0
        try:
            while num_output < limit:
                if rules is None:
                    token = sampler.choose(logits)
                else:
                    token = yield from self._choose_legal(sampler, logits, rules)
                if token in self._eos:
                    reason = FinishReason.STOP
                    break
                num_output += 1
                num_reasoning += parser.is_thinking
                deltas = parser.feed(text.feed(token_bytes(token)))
                for delta in stops.feed(deltas) if is_watched else deltas:
                    emit(delta)
                if stops.is_stopped or parser.is_full or (rules is not None and rules.is_over):
                    reason = FinishReason.STOP
                    break
                if num_output == limit:
                    break
                yield
                before = now_ns()
                try:
                    logits = evaluate(sequence, (token,))
                except EngineError:
                    logits = yield from self._evaluate(place, warm, (token,))
                    sequence = warm.sequence
                    before = now_ns()
                inside_ns += now_ns() - before
                num_steps += 1
                tokens.append(token)
        finally:
            # Counted once, not per token; a cancelled job's tokens count as well.
            job.count_output(num_output)
            job.count_reasoning(num_reasoning)
            job.count_decode(num_steps, inside_ns)
        is_cut = reason is FinishReason.LENGTH
        deltas = [*parser.feed(text.finish()), *parser.finish(is_cut=is_cut)]
        for delta in [*stops.feed(deltas), *stops.finish()] if is_watched else deltas:
            emit(delta)
        if stops.stopped_by is not None:
            job.report_stop(stops.stopped_by)
        num_calls = stops.num_calls if is_watched else parser.num_calls
        has_called = num_calls and reason is FinishReason.STOP
        return FinishReason.TOOL_CALLS if has_called else reason

    def _choose_legal(
        self, sampler: Sampler, logits: Logits, rules: Constraint
    ) -> Generator[None, None, int]:
        """A token that the rules let follow; they have gone on by it.

        The model's own choice is tried first: it is legal nearly always, and judging one token
        takes microseconds where a mask of the whole vocabulary takes a hundred times as long.
        """
        token = sampler.choose(logits)
        if self._is_legal(token, rules):
            return token
        is_possible = self._vocabulary.beginning_with(rules.next_bytes())
        is_possible[list(self._eos)] = rules.may_stop
        is_possible[token] = False
        heads: dict[bytes, bool] = {}  # many tokens begin alike: judged once
        until = now_ns() + PATIENCE_NS
        for other in sampler.ranked(logits, is_possible):
            if now_ns() > until:
                yield
                until = now_ns() + PATIENCE_NS
            if other in self._eos:
                return other
            head = self._pool.token_bytes(other)[:2]
            if head not in heads:
                heads[head] = rules.allows(head)
            if heads[head] and self._is_legal(other, rules):
                return other
        raise EngineError(
            "no token of this model can follow what the grammar demands here; it may ask for "
            "text that cannot end",
            code="invalid_grammar",
        )

    def _is_legal(self, token: int, rules: Constraint) -> bool:
        if token in self._eos:
            return rules.may_stop
        data = self._pool.token_bytes(token)
        if not data:
            return False
        if not rules.is_free and data not in TAGS and self._vocabulary.is_control(token, data):
            return False
        return rules.accept(data)

"""Any chat model: its own template, its own control tokens, warm sequences by common prefix."""

import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from tightloop.engine.aside import Aside
from tightloop.engine.crowd import Crowd, Place
from tightloop.engine.families.answer_rules import constraint_for, is_constrained
from tightloop.engine.families.chat_template import ChatTemplate
from tightloop.engine.families.constraint import Constraint
from tightloop.engine.families.decoding import Answering, decode
from tightloop.engine.families.drafting import Drafting
from tightloop.engine.families.grammars import STACK_BYTES, GrammarCompiler
from tightloop.engine.families.legal_tokens import LegalTokens
from tightloop.engine.families.open_item import OpenItems
from tightloop.engine.families.open_sequence import open_key, take_open
from tightloop.engine.families.prompts import Draft, Known, Prompt, PromptReader, can_think
from tightloop.engine.families.tool_calls import ToolCallParser
from tightloop.engine.families.verifying import Verifier
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.families.warm_sequence import (
    CHUNK_TOKENS,
    Logits,
    WarmSequence,
    common_prefix,
)
from tightloop.engine.interface import EngineError, Evaluate, GenerationRequest, Job
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.tool_names import offered
from tightloop.protocol.deltas import FinishReason
from tightloop.protocol.requests import CustomTool, FunctionTool

GLANCE_TOKENS = 64
"""Compared first, to see whether the rest is worth comparing."""

NUM_COMPILERS = 2
"""Grammars compiled at a time, also those whose clients have left."""


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

    def __init__(
        self,
        pool: SequencePool,
        *,
        new_call_id: Callable[[], str] | None = None,
        has_drafts: bool = True,
        step_costs: Mapping[int, float] | None = None,
    ) -> None:
        """``has_drafts`` lets it draft where that pays, by ``step_costs`` or the backend's own."""
        self._pool = pool
        self._drafting = Drafting(pool, is_on=has_drafts, costs=step_costs)
        self._compiler = GrammarCompiler()
        self._crowd = Crowd()
        self._aside = Aside(NUM_COMPILERS, stack_bytes=STACK_BYTES)
        vocabulary = Vocabulary(pool)
        self._legal = LegalTokens(pool, vocabulary)
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
        self._prompts = PromptReader(pool, self._template, vocabulary, bos=bos if adds_bos else "")
        self._open_items = OpenItems(pool, self._prompts, self._crowd)

    def _control_text(self, name: str) -> str:
        token = self._pool.metadata.get(f"tokenizer.ggml.{name}_token_id", "")
        return self._pool.token_bytes(int(token)).decode() if token.isdecimal() else ""

    def generate(self, job: Job) -> Generator[Evaluate | None, Any, FinishReason]:
        """One response: prefill what is new, then decode token by token."""
        request = replace(job.request, tools=offered(job.request))
        if request.is_open:
            known = self._known(request)
            return (yield from self._open_items.prefill(job, request, known, self._claim))
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
            verifier = self._verifier(request, place, warm)
            answering = Answering(job, place, warm, parser, rules, verifier)
            return (yield from decode(self._pool, self._legal, answering, logits))
        finally:
            place.leave()
            if warm is not None and not warm.is_parked:
                self._put_back(request, warm)

    def _verifier(
        self, request: GenerationRequest, place: Place, warm: WarmSequence
    ) -> Verifier | None:
        drafter = self._drafting.drafter(request, warm)
        if drafter is None:
            return None
        return Verifier(self._pool, place, warm, drafter, self._drafting.stop)

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        """Tokens of the rendered prompt. Raises ``EngineError`` when it cannot be rendered."""
        draft = self._draft(replace(request, tools=offered(request)))
        return len((yield from self._prompts.read(draft)))

    def _draft(self, request: GenerationRequest) -> Draft:
        return self._prompts.draft(request, self._known(request))

    def _known(self, request: GenerationRequest) -> Known | None:
        origin = self._origin(request)
        shown = origin.shown if origin is not None else None
        return Known(origin.tokens, shown) if origin is not None and shown is not None else None

    def _origin(self, request: GenerationRequest) -> WarmSequence | None:
        """What is warm of the parent; with the request's own beginning, if that was prefilled."""
        parent = request.parent
        for key in (open_key(parent.id), parent.id) if parent is not None else ():
            state = self._pool.peek(key)
            if isinstance(state, WarmSequence) and state.shown is not None:
                return state
        return None

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
        if best is not None and not self._pool.thaw(best):
            best, shared = None, 0
        shared = min(shared, len(prompt) - 1)
        opened = take_open(self._pool, request, best, shared)
        if opened is not None:
            warm = opened
        elif best is None or not shared:
            warm = WarmSequence(self._pool, self._pool.open())
        else:
            sequence = self._pool.fork(best.sequence, shared)
            warm = WarmSequence(self._pool, sequence, best.tokens.fork(shared))
            warm.history = best.pass_on_history(shared)
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
        origin = self._origin(request)
        if head and origin is not None and origin.tokens is prompt.head:
            best, shared = origin, head + common_prefix(origin.tokens[head:], prompt.tail)
        whole: list[int] | None = None
        for key, state in self._pool.newest_first():
            if not isinstance(state, WarmSequence) or state is best:
                continue
            # To hold more, it must go on as the prompt does where the best one so far ends.
            start, end = max(0, shared - GLANCE_TOKENS), shared + 1
            is_exempt = key == parent and (best is None or best is not origin)
            if not is_exempt and state.tokens[start:end] != prompt.part(start, end):
                continue
            whole = prompt.whole() if whole is None else whole
            size = common_prefix(state.tokens, whole)
            if size > shared or (size == shared and key == parent):
                best, shared = state, size
        return best, shared

    def _put_back(self, request: GenerationRequest, warm: WarmSequence) -> None:
        """File what is known to be in the sequence; a chunk that was broken off is forgotten."""
        known = min(self._pool.num_tokens(warm.sequence), len(warm.tokens))
        warm.tokens.truncate(known)
        try:
            self._pool.truncate(warm.sequence, known)
        except EngineError:  # a model that cannot forget a part: start over next time
            known = 0
        if not known:
            warm.release()
            return
        if warm.shown is not None and warm.shown.num_tokens > known:
            warm.shown = None
        if request.parent is not None:
            self._pool.demote(request.parent.id)
            self._pool.demote(open_key(request.parent.id))
        self._pool.file(request.response_id, warm)

    def _prefill(
        self, job: Job, place: Place, warm: WarmSequence, rest: list[int]
    ) -> Generator[Evaluate | None, Any, Logits]:
        job.count_prefill(0, len(warm.tokens))
        logits: Logits | None = None
        for start in range(0, len(rest), CHUNK_TOKENS):
            chunk = rest[start : start + CHUNK_TOKENS]
            logits = yield from warm.evaluate(place, chunk)
            warm.tokens.extend(chunk)
            job.count_prefill(len(chunk), 0)
        assert logits is not None
        return logits

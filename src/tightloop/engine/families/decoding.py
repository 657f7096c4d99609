"""Decodes one answer token by token: choose, check, hand on, evaluate."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from tightloop.engine.crowd import Place
from tightloop.engine.families.constraint import Constraint
from tightloop.engine.families.legal_tokens import LegalTokens
from tightloop.engine.families.sampling import Sampler
from tightloop.engine.families.stopping import StopWatch
from tightloop.engine.families.text_stream import Utf8Stream
from tightloop.engine.families.tool_calls import ToolCallParser
from tightloop.engine.families.verifying import Verifier
from tightloop.engine.families.warm_sequence import Logits, WarmSequence
from tightloop.engine.interface import EngineError, Evaluate, Job
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.deltas import FinishReason


@dataclass(frozen=True, slots=True)
class Answering:
    """What decoding one answer needs. ``rules`` None lets the model say anything.

    ``verifier`` None evaluates token by token.
    """

    job: Job
    place: Place
    warm: WarmSequence
    parser: ToolCallParser
    rules: Constraint | None
    verifier: Verifier | None


def decode(
    pool: SequencePool, legal: LegalTokens, answering: Answering, logits: Logits
) -> Generator[Evaluate | None, Any, FinishReason]:
    """The answer that begins after ``logits``; why it ended.

    ``warm.tokens`` are the tokens that the answer is known to have; the sequence may hold drafts
    after them when this ends. The last token of an answer is never among them.
    """
    job, warm, parser, rules = answering.job, answering.warm, answering.parser, answering.rules
    request = job.request
    sampler = Sampler(request.sampling)
    text = Utf8Stream()
    stops = StopWatch(request.sampling.stop)
    is_watched = stops.is_needed
    room = pool.context_window - len(warm.tokens)
    limit = min(room, request.max_output_tokens or room)
    eos, token_bytes = pool.eos_tokens, pool.token_bytes
    emit, tokens = job.emit, warm.tokens
    last = [0]
    step = Evaluate(warm.sequence, last)  # one for all tokens: it is read before it is changed
    verifier = answering.verifier
    reason = FinishReason.LENGTH
    num_output = num_reasoning = num_steps = 0
    try:
        while num_output < limit:
            if rules is None:
                token = sampler.choose(logits)
            else:
                token = yield from legal.choose(sampler, logits, rules)
            if token in eos:
                reason = FinishReason.STOP
                break
            num_output += 1
            num_reasoning += parser.is_thinking
            deltas = parser.feed(text.feed(token_bytes(token)))
            for delta in stops.feed(deltas) if is_watched else deltas:
                emit(delta)
            is_over = parser.is_full or (rules is not None and rules.is_over)
            if is_over or (is_watched and stops.is_stopped):
                reason = FinishReason.STOP
                break
            if num_output == limit:
                break
            if verifier is None:
                last[0] = token
                try:
                    logits = yield step
                except EngineError:
                    logits = yield from warm.evaluate(answering.place, last)
                    step = Evaluate(warm.sequence, last)
            else:
                logits = yield from verifier.logits_after(token, limit - num_output - 1)
            num_steps += 1
            tokens.append(token)
    finally:
        # Counted once, not per token; a cancelled job's tokens count as well.
        job.count_output(num_output)
        job.count_reasoning(num_reasoning)
        job.count_decode(num_steps, 0)  # the engine knows how long they took
        if verifier is not None:
            verifier.report(job)
    is_cut = reason is FinishReason.LENGTH
    deltas = [*parser.feed(text.finish()), *parser.finish(is_cut=is_cut)]
    for delta in [*stops.feed(deltas), *stops.finish()] if is_watched else deltas:
        emit(delta)
    if stops.stopped_by is not None:
        job.report_stop(stops.stopped_by)
    num_calls = stops.num_calls if is_watched else parser.num_calls
    has_called = num_calls and reason is FinishReason.STOP
    return FinishReason.TOOL_CALLS if has_called else reason

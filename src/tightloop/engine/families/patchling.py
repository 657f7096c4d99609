"""The bundled model as an ordinary model on the wire.

``patchling_policy`` decides the next step from the conversation; this module carries it out. Text
and commands come from the policy, the repair from the network. ``Usage`` counts all the text that the
policy reads and all that is said; ``EngineTiming`` only what the network reads and produces token by token.
"""

import secrets
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.families.client_tools import PatchTool, ShellTool, find_patch, find_shell
from tightloop.engine.families.content import refuse_unreadable
from tightloop.engine.families.known_lengths import KnownLengths
from tightloop.engine.families.patchling_policy import Repair, Run, Say, next_step
from tightloop.engine.families.patchling_summary import asks_for_summary, summary_of
from tightloop.engine.families.v4a import write_patch
from tightloop.engine.interface import (
    EngineError,
    GenerationRequest,
    Job,
    Sampling,
    TokenModel,
)
from tightloop.engine.patchling.report import TestReport, report_from_pytest
from tightloop.engine.patchling.search import Candidate, CandidateSearch, FunctionTooLong
from tightloop.engine.sequence_pool import SequencePool
from tightloop.engine.tool_names import offered
from tightloop.protocol.deltas import (
    FinishReason,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
)
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
)
from tightloop.protocol.requests import Tool
from tightloop.trace.clock import now_ns

MAX_CANDIDATES = 8
PIECE_CHARS = 48
WINDOW = 131_072
"""Tokens of a conversation that the policy reads unless told otherwise. It reads any number in the same
way, and the network sees one function of them: this bounds what a client may be charged for."""

MAX_BYTES_PER_CHAR = 4


class Search(Protocol):
    """Proposes repairs of one function, best first."""

    def advance(self) -> bool:
        """Do a part of the work that ``next`` would do; False when there is none left."""

    def next(self) -> Candidate | None:
        """The next candidate, or None when there are no more."""

    def close(self) -> None:
        """Give its sequences back."""


MAX_IDLE_SEARCHES = 4
"""Attention spans every cell in use, idle ones too: a context full of searches that may never go on
made a decode step 1.45 times as long (565 to 820 us). Losing one costs its next candidate a new
reading of the function, 60 to 100 ms."""

StartSearch = Callable[[TokenModel, str, TestReport], Search]
"""Reads the function and its report; raises ``FunctionTooLong``."""


class MeteredBackend:
    """Passes evaluations on to ``pool`` and tells the job being served what they cost.

    One-token evaluations are decode steps, longer ones are prefill (or verification).
    """

    def __init__(self, pool: SequencePool) -> None:
        self.job: Job | None = None
        self.num_read = 0
        self.sequences: list[int] = []
        self._pool = pool
        self.num_vocab = pool.num_vocab
        self.context_window = pool.context_window
        self.eos_tokens = pool.eos_tokens
        self.metadata = pool.metadata
        self.tokenize = pool.tokenize
        self.token_bytes = pool.token_bytes
        self.truncate = pool.truncate
        self.num_tokens = pool.num_tokens
        self.cancel = pool.cancel
        self.shutdown = pool.shutdown

    def open(self) -> int:
        """See ``TokenModel.open``."""
        self.sequences.append(self._pool.open())
        return self.sequences[-1]

    def fork(self, sequence: int, num_tokens: int) -> int:
        """See ``TokenModel.fork``."""
        self.sequences.append(self._pool.fork(sequence, num_tokens))
        return self.sequences[-1]

    def close(self, sequence: int) -> None:
        """See ``TokenModel.close``."""
        self._pool.close(sequence)
        if sequence in self.sequences:
            self.sequences.remove(sequence)

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> NDArray[np.float32]:
        """See ``TokenModel.evaluate``."""
        before = now_ns()
        logits = self._pool.evaluate(sequence, tokens, all_logits=all_logits)
        if self.job is not None and len(tokens) == 1:
            self.job.count_decode(1, now_ns() - before)
        elif self.job is not None:
            self.num_read += len(tokens)
            self.job.count_prefill(len(tokens), 0)
        return logits


@dataclass(slots=True)
class LiveSearch:
    """A candidate search that can go on, and the files it has proposed so far."""

    source: str
    report: TestReport
    backend: MeteredBackend
    search: Search
    given: list[str] = field(default_factory=list)

    @property
    def sequences(self) -> Sequence[int]:
        """What the search holds in the context."""
        return self.backend.sequences

    def release(self) -> None:
        """The search's sequences are closed."""
        self.search.close()

    def freeze(self) -> int:
        """Never: one that is gone reads a function again, in less than 100 ms."""
        return 0

    def thaw(self) -> None:
        """It was never frozen."""

    def fits(self, repair: Repair, report: TestReport) -> bool:
        """Whether it searches the same repair and has proposed nothing the client has not seen."""
        is_same = self.source == repair.source and self.report == report
        return is_same and set(self.given) <= set(repair.tried)


class PatchlingFamily:
    """Serves the bundled patch model. ``max_candidates`` attempts are made per failing test.

    A conversation of more than ``window`` tokens is refused.
    """

    name = "patchling"

    def __init__(
        self,
        pool: SequencePool,
        *,
        max_candidates: int = MAX_CANDIDATES,
        window: int = WINDOW,
        start_search: StartSearch = CandidateSearch,
        new_call_id: Callable[[], str] | None = None,
    ) -> None:
        self._pool = pool
        self._start_search = start_search
        self._max_candidates = max_candidates
        self._window = window
        self._lengths = KnownLengths(pool)
        self._new_call_id = new_call_id or (lambda: f"call_{secrets.token_hex(12)}")

    def generate(self, job: Job) -> Generator[None, None, FinishReason]:
        """One step of the policy."""
        request = job.request
        if not request.generate:
            job.mark_prefilled()
            return FinishReason.STOP
        items = request.context()
        self._refuse(request, items)
        texts = _texts(request, items)
        num_tokens = None
        if MAX_BYTES_PER_CHAR * sum(map(len, texts)) > self._window:
            num_tokens = yield from self._lengths.count(texts)
            self._check_window(num_tokens)
        reason = yield from self._answer(job, items)
        if num_tokens is None:  # nobody has waited for it
            num_tokens = yield from self._lengths.count(texts)
        num_new = yield from self._lengths.count(_texts(request, request.items))
        num_known = max(0, num_tokens - num_new) if request.parent is not None else 0
        job.count_input(num_tokens, num_known)
        return reason

    def _check_window(self, num_tokens: int) -> None:
        if num_tokens > self._window:
            raise EngineError(
                f"the conversation has {num_tokens} tokens and the model's context window is "
                f"{self._window}; shorten it or start the server with a larger --context",
                code="context_length_exceeded",
            )

    def _answer(self, job: Job, items: Sequence[Item]) -> Generator[None, None, FinishReason]:
        tools = _tools_for(job.request)
        if not tools and asks_for_summary(items):
            job.mark_prefilled()
            return self._say(job, summary_of(items))
        shell, patch_tool = find_shell(tools), find_patch(tools)
        step = next_step(items, shell, patch_tool, max_candidates=self._max_candidates)
        if isinstance(step, Repair):
            assert patch_tool is not None
            return (yield from self._repair(job, step, patch_tool))
        job.mark_prefilled()
        if isinstance(step, Say):
            return self._say(job, step.text)
        assert shell is not None
        return self._run(job, step, shell)

    def _refuse(self, request: GenerationRequest, items: Sequence[Item]) -> None:
        refuse_unreadable(items, request.model)
        if request.output_format is not None:
            raise EngineError(
                f"the model {request.model!r} says what it has to say in its own words and cannot "
                "write JSON; leave the output format out, or choose another model",
                code="unsupported_parameter",
            )

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        """Tokens of all the text the policy reads; the network itself sees one function of it."""
        items = request.context()
        refuse_unreadable(items, request.model)
        return (yield from self._lengths.count(_texts(request, items)))

    def _say(self, job: Job, text: str) -> FinishReason:
        request = job.request
        if request.tool_choice not in ("auto", "none"):
            raise EngineError(
                f"tool_choice is {request.tool_choice!r}, but the model {request.model!r} has no "
                f"call to make here and cannot be made to; it would say: {text[:200]}",
                code="unsupported_parameter",
            )
        said, is_cut = self._within_limit(job, text)
        job.emit(TextDelta(said))
        return FinishReason.LENGTH if is_cut else FinishReason.STOP

    def _run(self, job: Job, step: Run, shell: ShellTool) -> FinishReason:
        arguments = shell.arguments(step.command, step.timeout_s)
        return self._call(job, shell.name, arguments, [len(arguments)])

    def _call(
        self, job: Job, name: str, body: str, sizes: Sequence[int], *, is_custom: bool = False
    ) -> FinishReason:
        """A call whose ``body`` is given in pieces of ``sizes``; one that is cut off stays open."""
        said, is_cut = self._within_limit(job, body)
        job.emit(ToolCallStarted(self._new_call_id(), name, is_custom))
        at = 0
        for size in sizes:
            if at < len(said):
                job.emit(ToolCallDelta(said[at : at + size]))
            at += size
        if is_cut:
            return FinishReason.LENGTH
        job.emit(ToolCallDone())
        return FinishReason.TOOL_CALLS

    def _within_limit(self, job: Job, text: str) -> tuple[str, bool]:
        """As much of ``text`` as the request allows, counted, and whether that is not all."""
        limit = job.request.max_output_tokens
        tokens = self._pool.tokenize(text, special=False)
        is_cut = limit is not None and len(tokens) > limit
        if is_cut:
            tokens = tokens[:limit]
            text = b"".join(map(self._pool.token_bytes, tokens)).decode(errors="ignore")
        job.count_output(len(tokens))
        return text, is_cut

    def _repair(
        self, job: Job, repair: Repair, tool: PatchTool
    ) -> Generator[None, None, FinishReason]:
        target = None
        if repair.may_continue:
            try:
                target = yield from self._next_target(job, repair)
            except FunctionTooLong as error:
                job.mark_prefilled()
                return self._say(job, f"`{repair.name}` is too long for this model ({error}).")
        else:
            job.mark_prefilled()
        if target is None and repair.current == repair.original:
            return self._say(job, repair.give_up_text())
        patch = write_patch(
            repair.path,
            repair.current,
            repair.original if target is None else target,
            def_line=repair.def_line - 1,
        )
        body = tool.body(patch)
        sizes = _piece_sizes(body, is_custom=tool.is_custom)
        return self._call(job, tool.name, body, sizes, is_custom=tool.is_custom)

    def _next_target(self, job: Job, repair: Repair) -> Generator[None, None, str | None]:
        """The file with the next candidate that was not tried, or None when there is none."""
        report = report_from_pytest(
            repair.test_output,
            path=repair.path,
            first_line=repair.first_line,
            num_lines=repair.last_line - repair.first_line + 1,
        )
        live = self._claim(job, repair, report)
        job.mark_prefilled()
        is_alive = False
        num_over = num_passed_over(job.request.sampling, len(repair.tried))
        best: str | None = None
        try:
            while True:
                while live.search.advance():
                    yield
                candidate = live.search.next()
                if candidate is None:
                    return best
                target = repair.with_function(candidate.function_source)
                live.given.append(target)
                if target not in repair.tried and target != repair.current:
                    if not num_over:
                        is_alive = best is None  # those passed over come again, from a new search
                        return target
                    num_over -= 1
                    best = best or target
                yield
        finally:
            live.backend.job = None
            if is_alive:
                self._pool.file(job.request.response_id, live)
                self._pool.keep_newest(MAX_IDLE_SEARCHES)
            else:
                live.release()

    def _claim(self, job: Job, repair: Repair, report: TestReport) -> LiveSearch:
        """The search that made this conversation's earlier candidates, or a new one."""
        for key, state in self._pool.newest_first():
            if isinstance(state, LiveSearch) and state.fits(repair, report):
                self._pool.take(key)
                state.backend.job = job
                job.count_prefill(0, state.backend.num_read)
                return state
        backend = MeteredBackend(self._pool)
        backend.job = job
        search = self._start_search(backend, repair.source, report)
        return LiveSearch(repair.source, report, backend, search)


def num_passed_over(sampling: Sampling, num_tried: int) -> int:
    """How many of the best repairs are left for later; none without a temperature.

    Drawn from a geometric distribution whose mean is twice the temperature, by the seed and by how many
    were tried, so that the same seed makes the same choices. At most ``MAX_CANDIDATES - 1``.
    """
    temperature = sampling.temperature or 0.0
    if temperature <= 0.0:
        return 0
    seed = None if sampling.seed is None else (abs(sampling.seed), num_tried)
    drawn = int(np.random.default_rng(seed).geometric(1.0 / (1.0 + 2.0 * temperature))) - 1
    return min(drawn, MAX_CANDIDATES - 1)


def _tools_for(request: GenerationRequest) -> tuple[Tool, ...]:
    """The tools that may be called now."""
    if request.tool_choice == "none":
        return ()
    tools = offered(request)
    is_named = request.tool_choice not in ("auto", "required")
    return tuple(t for t in tools if t.name == request.tool_choice) if is_named else tools


def _texts(request: GenerationRequest, items: Sequence[Item]) -> list[str]:
    return [request.instructions or "", *map(_text, items)]


def _text(item: Item) -> str:
    match item:
        case Message():
            return item.text
        case FunctionCallOutput() | CustomToolCallOutput():
            return item.output
        case FunctionCall():
            return item.arguments
        case CustomToolCall():
            return item.input
    return ""


def _piece_sizes(body: str, *, is_custom: bool) -> list[int]:
    """Lengths of the pieces of a call's body: a line or so each."""
    if is_custom:
        return [len(line) for line in body.splitlines(keepends=True)]
    return [min(PIECE_CHARS, len(body) - at) for at in range(0, len(body), PIECE_CHARS)]

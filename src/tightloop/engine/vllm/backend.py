"""A ``TokenBackend`` over vLLM: sequences are open requests, logits are its most likely tokens.

vLLM samples where it computes, so asking it for one token at a time would cost a scheduler step and two
process hops each. Instead it *runs ahead*: after a decode step it goes on greedily, and every token that
the family then chooses as vLLM did is answered with what has already come. A family that chooses
otherwise (temperature, a constraint, a stop) makes the rest worthless; the sequence then goes on in a
new request, whose prompt vLLM finds in its prefix cache. So results never depend on the run-ahead.

Limits: a row of logits holds the ``num_top`` most likely tokens, the rest is minus infinity; there are
no logits of inner tokens, hence no drafts (vLLM has its own speculation). Source of the semantics:
``host``.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from tightloop.engine.interface import Cancelled, EngineError, Evaluate, SavedSequence
from tightloop.engine.vllm.anchor import Anchor
from tightloop.engine.vllm.host import Chunk, Host, Sampled
from tightloop.engine.vllm.loop_thread import LoopThread

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_RUN: Final = 16
LONGEST_RUN: Final = 256
"""Tokens of one run-ahead: doubled when one was used up, started over when one was not."""


class _Sequence:
    """Tokens held, and the request that goes on from them, if there is one."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.anchor: Anchor | None = None
        self.run = FIRST_RUN


class VllmBackend:
    """Serves ``host``, started here. Raises ``EngineError`` when it cannot be."""

    def __init__(self, host: Host, *, num_sequences: int = 256) -> None:
        self._host = host
        self._loop = LoopThread("vllm-client")
        try:
            self._loop.call(host.start())
        except BaseException:
            self._loop.close()
            raise
        self._tokenizer = host.tokenizer
        self._window = host.max_model_len - 1  # a request must have room for the token it samples
        self._max_anchors = max(
            1, host.max_requests // 2
        )  # one that rests keeps a place of a batch
        self._num_sequences = num_sequences
        self._sequences: dict[int, _Sequence] = {}
        self._anchored: OrderedDict[int, None] = OrderedDict()
        self._num_requests = 0
        self._next_id = 0
        self._is_cancelled = False
        self._waited_for: Anchor | None = None
        self._is_shut_down = False
        self.tokenize = self._tokenizer.tokenize
        self.token_bytes = self._tokenizer.token_bytes

    @property
    def num_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self._host.num_vocab

    @property
    def context_window(self) -> int:
        """Tokens one sequence can hold."""
        return self._window

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Every token that ends a generation."""
        return self._tokenizer.eos_tokens

    @property
    def metadata(self) -> dict[str, str]:
        """The tokeniser's, under the keys of GGUF files."""
        return self._tokenizer.metadata

    @property
    def bytes_per_token(self) -> int:
        """0: vLLM has set its memory aside already, and gives it up as it sees fit."""
        return 0

    @property
    def num_anchors(self) -> int:
        """Requests open now."""
        return len(self._anchored)

    @property
    def num_requests(self) -> int:
        """Requests opened so far."""
        return self._num_requests

    # ------------------------------------------------------------------ sequences

    def open(self) -> int:
        """A new empty sequence. Raises ``EngineError`` when there are too many."""
        if len(self._sequences) >= self._num_sequences:
            raise EngineError(
                f"all {self._num_sequences} sequences are in use", code="server_is_overloaded"
            )
        self._next_id += 1
        self._sequences[self._next_id] = _Sequence([])
        return self._next_id

    def fork(self, sequence: int, num_tokens: int) -> int:
        """A new sequence with the first ``num_tokens`` tokens.

        It takes the open request over where that request can go on from there: who forks a session
        at its end continues it. The origin keeps its tokens, and vLLM their prefix.
        """
        origin = self._held(sequence)
        if not 0 <= num_tokens <= len(origin.tokens):
            raise EngineError(
                f"cannot fork {num_tokens} tokens of a sequence that holds {len(origin.tokens)}"
            )
        child_id = self.open()
        child = self._sequences[child_id]
        child.tokens = origin.tokens[:num_tokens]
        anchor = origin.anchor
        if anchor is not None and num_tokens >= anchor.num_prompt:
            origin.anchor = None
            self._anchored.pop(sequence, None)
            child.anchor = anchor
            self._anchored[child_id] = None
        return child_id

    def truncate(self, sequence: int, num_tokens: int) -> None:
        """Only the first ``num_tokens`` tokens are held; a run-ahead that goes on is ended."""
        held = self._held(sequence)
        if not 0 <= num_tokens <= len(held.tokens):
            raise EngineError(
                f"cannot keep {num_tokens} tokens of a sequence that holds {len(held.tokens)}"
            )
        del held.tokens[num_tokens:]
        anchor = held.anchor
        if anchor is not None and (num_tokens < anchor.num_prompt or not anchor.is_resting):
            self._let_go(sequence, held)

    def close(self, sequence: int) -> None:
        """The sequence is given back. Closing one that is not open does nothing."""
        held = self._sequences.pop(sequence, None)
        if held is not None:
            self._let_go(sequence, held)

    def num_tokens(self, sequence: int) -> int:
        """Tokens held by the sequence."""
        return len(self._held(sequence).tokens)

    def save(self, sequence: int) -> SavedSequence:
        """The tokens: vLLM keeps what it computed of them as long as it can."""
        return array("i", self._held(sequence).tokens).tobytes()

    def restore(self, data: SavedSequence) -> int:
        """A new sequence with the saved tokens; what vLLM has forgotten it computes again."""
        tokens = array("i")
        tokens.frombytes(bytes(data))
        sequence = self.open()
        self._sequences[sequence].tokens = tokens.tolist()
        return sequence

    def step_costs(self) -> dict[int, float]:
        """One token at a time only: drafts are vLLM's own business (``speculative_config``)."""
        return {1: 1.0}

    def _held(self, sequence: int) -> _Sequence:
        try:
            return self._sequences[sequence]
        except KeyError:
            raise EngineError(f"sequence {sequence} is not open") from None

    def _let_go(self, sequence: int, held: _Sequence) -> None:
        if held.anchor is not None:
            held.anchor.close()
            held.anchor = None
        self._anchored.pop(sequence, None)

    # ------------------------------------------------------------------ evaluation

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> "NDArray[np.float32]":
        """Append tokens; see ``TokenBackend.evaluate``. ``all_logits`` of several is refused."""
        part = Evaluate(sequence, tokens, all_logits)
        return self._end(part, self._begin(part))

    def evaluate_many(self, parts: Sequence[Evaluate]) -> "list[NDArray[np.float32] | EngineError]":
        """As ``evaluate`` for each, computed together; what one raises takes its place."""
        if len({part.sequence for part in parts}) < len(parts):
            raise EngineError("a sequence occurs twice in one step")
        begun: list[int | EngineError] = []
        answers: list[NDArray[np.float32] | EngineError] = []
        try:
            for part in parts:
                try:
                    begun.append(self._begin(part))
                except EngineError as error:
                    begun.append(error)
            for part, before in zip(parts, begun, strict=True):
                if isinstance(before, EngineError):
                    answers.append(before)
                    continue
                try:
                    answers.append(self._end(part, before))
                except EngineError as error:
                    answers.append(error)
        except BaseException:  # cancelled: nobody has an answer, so nobody keeps the tokens
            for part, before in zip(parts, begun, strict=False):
                if not isinstance(before, EngineError):
                    self._take_back(part.sequence, self._held(part.sequence), before)
            raise
        return answers

    def cancel(self) -> None:
        """The running ``evaluate``, or the next one, raises ``Cancelled``. Any thread may call."""
        self._is_cancelled = True
        anchor = self._waited_for
        if anchor is not None:
            anchor.wake()

    def shutdown(self) -> None:
        """vLLM's processes are ended and no sequence is open. May be called twice."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        for sequence in list(self._sequences):
            self.close(sequence)
        try:
            self._loop.call(self._host.close())
        finally:
            self._loop.close()

    def _begin(self, part: Evaluate) -> int:
        """The sequence holds the tokens, and a request works on them or has done so.

        How many it held before, for ``_end``, which takes them back if that fails.
        """
        held, tokens = self._held(part.sequence), part.tokens
        before = len(held.tokens)
        if not tokens:
            raise EngineError("nothing to evaluate: the list of tokens is empty")
        if part.all_logits and len(tokens) > 1:
            raise EngineError("vLLM gives the logits of the last token only")
        if before + len(tokens) > self._window:
            raise EngineError(
                f"{before + len(tokens)} tokens do not fit in the context window of {self._window}",
                code="context_length_exceeded",
            )
        held.tokens.extend(tokens)
        try:
            if held.anchor is not None:
                self._anchored.move_to_end(part.sequence)
                if self._follows(held, held.anchor, before):
                    return before
                self._let_go(part.sequence, held)
            self._restart(part.sequence, held)
        except BaseException:
            self._take_back(part.sequence, held, before)
            raise
        return before

    def _follows(self, held: _Sequence, anchor: Anchor, before: int) -> bool:
        """Whether the open request gives the answer: it will sample it, or has got the chunk to."""
        size, start = len(held.tokens), anchor.num_prompt
        for place in range(before, size + 1):
            sampled = self._wait(anchor, place - start)
            if sampled is None:
                break
            if place == size:
                return True
            if sampled.token != held.tokens[place]:
                if sampled.is_last:
                    break
                held.run = FIRST_RUN  # the family went another way than vLLM
                return False
        self._go_on(held, anchor, is_decoding=size - before == 1)
        return True

    def _go_on(self, held: _Sequence, anchor: Anchor, *, is_decoding: bool) -> None:
        """The request rests: it gets what it does not hold. Its last sample was dropped."""
        size = len(held.tokens)
        kept = anchor.num_prompt + len(anchor.sampled) - 1
        run = 1
        if is_decoding:
            is_used_up = len(anchor.sampled) > 1
            held.run = min(2 * held.run, LONGEST_RUN) if is_used_up else FIRST_RUN
            run = min(held.run, self._window + 1 - size)
        anchor.push(Chunk(tuple(held.tokens[kept:]), run), size)

    def _restart(self, sequence: int, held: _Sequence) -> None:
        while len(self._anchored) >= self._max_anchors:
            oldest = next(iter(self._anchored))
            self._let_go(oldest, self._sequences[oldest])
        self._num_requests += 1
        held.anchor = Anchor(self._loop, self._host, f"tightloop-{self._num_requests}")
        self._anchored[sequence] = None
        held.anchor.push(Chunk(tuple(held.tokens), 1), len(held.tokens))

    def _end(self, part: Evaluate, before: int) -> "NDArray[np.float32]":
        held = self._sequences[part.sequence]
        try:
            if held.anchor is None:  # another sequence of the same step needed its place
                self._restart(part.sequence, held)
            assert held.anchor is not None
            sampled = self._wait(held.anchor, len(held.tokens) - held.anchor.num_prompt)
        except BaseException:
            self._take_back(part.sequence, held, before)
            raise
        assert sampled is not None
        row: NDArray[np.float32] = np.full(self.num_vocab, -np.inf, np.float32)
        for token, logprob in sampled.top:
            row[token] = logprob
        return row.reshape(1, -1) if part.all_logits else row

    def _take_back(self, sequence: int, held: _Sequence, before: int) -> None:
        self._let_go(sequence, held)
        del held.tokens[before:]

    def _wait(self, anchor: Anchor, index: int) -> Sampled | None:
        self._waited_for = anchor
        try:
            return anchor.sample(index, lambda: self._is_cancelled)
        except Cancelled:
            self._is_cancelled = False
            raise
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(f"vLLM could not go on: {type(error).__name__}: {error}") from error
        finally:
            self._waited_for = None

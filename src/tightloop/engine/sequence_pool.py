"""A ``TokenBackend`` whose idle sequences make room for the ones in use.

Families see this instead of the bare backend. Warm state is filed under response ids; when
sequences or context cells run out, the state that was used longest ago is released, so that a
conversation being answered never fails for the sake of one that is only remembered.
"""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from tightloop.engine.aside import until_done
from tightloop.engine.interface import Cancelled, EngineError, Evaluate, TokenBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

SHORT_CHARS: Final = 16_384
"""Tokenised at once: about 10 ms, at the 1.3 to 1.8 MB/s of llama.cpp (byte pairs, measured)."""

NUM_READERS: Final = 2


class WarmState(Protocol):
    """Something that holds sequences while nobody is using it."""

    def release(self) -> None:
        """Close every sequence held."""


class SequencePool:
    """Passes every call on to ``backend``; evicts filed state when the backend is full.

    ``is_cancelled`` says whether the job being stepped was cancelled: an evaluation stopped on
    behalf of another job goes on where it was.
    """

    def __init__(self, backend: TokenBackend, is_cancelled: Callable[[], bool]) -> None:
        self.backend = backend
        self._is_cancelled = is_cancelled
        self._warm: OrderedDict[str, WarmState] = OrderedDict()
        self._readers: ThreadPoolExecutor | None = None
        # Bound once: these are called for every token.
        self._evaluate = backend.evaluate
        self._evaluate_many = backend.evaluate_many
        self.token_bytes = backend.token_bytes
        self.tokenize = backend.tokenize
        self.truncate = backend.truncate
        self.close = backend.close
        self.num_tokens = backend.num_tokens
        self.cancel = backend.cancel

    @property
    def num_vocab(self) -> int:
        """Tokens of the vocabulary."""
        return self.backend.num_vocab

    @property
    def context_window(self) -> int:
        """Tokens one sequence can hold."""
        return self.backend.context_window

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Every token that ends a generation."""
        return self.backend.eos_tokens

    @property
    def metadata(self) -> dict[str, str]:
        """The model file's metadata."""
        return self.backend.metadata

    def read(self, text: str, *, special: bool) -> Generator[None, None, list[int]]:
        """What ``tokenize`` gives; a long text is read aside, for it needs the vocabulary only."""
        if len(text) <= SHORT_CHARS:
            return self.tokenize(text, special=special)
        if self._readers is None:
            self._readers = ThreadPoolExecutor(NUM_READERS, "tokenize")
        future = self._readers.submit(partial(self.tokenize, text, special=special))
        try:
            return (yield from until_done(future))
        finally:
            future.cancel()  # one that waits is not read for nobody

    def file(self, key: str, state: WarmState) -> None:
        """``state`` is kept under ``key`` as the most recently used; one filed there before goes."""
        self.drop(key)
        self._warm[key] = state

    def peek(self, key: str) -> WarmState | None:
        """What is filed under ``key``, left there."""
        return self._warm.get(key)

    def take(self, key: str) -> WarmState | None:
        """What is filed under ``key``, now the caller's: it cannot be evicted any more."""
        return self._warm.pop(key, None)

    def demote(self, key: str) -> None:
        """What is filed under ``key`` is the first to go: its continuation is filed elsewhere."""
        if key in self._warm:
            self._warm.move_to_end(key, last=False)

    def drop(self, key: str) -> None:
        """Nothing is filed under ``key``."""
        state = self._warm.pop(key, None)
        if state is not None:
            state.release()

    def keep_newest(self, num: int) -> None:
        """At most ``num`` states stay filed; the least recently used go."""
        while len(self._warm) > num:
            self._evict()

    def newest_first(self) -> Iterator[tuple[str, WarmState]]:
        """Everything filed, most recently used first."""
        return iter(list(reversed(self._warm.items())))

    def open(self) -> int:
        """A new empty sequence, evicting idle state if need be."""
        return self._with_room(self.backend.open)

    def fork(self, sequence: int, num_tokens: int) -> int:
        """A new sequence that shares the first ``num_tokens`` tokens."""
        # The origin may be idle state itself: share it with a new sequence before evicting it.
        return self._with_room(lambda: self.backend.fork(sequence, num_tokens), keep=sequence)

    def _with_room(self, attempt: Callable[[], int], keep: int | None = None) -> int:
        while True:
            try:
                return attempt()
            except EngineError as error:
                if error.code != "server_is_overloaded" or not self._evict(keep):
                    raise

    def _evict(self, keep: int | None = None) -> bool:
        for key, state in self._warm.items():
            if keep is None or getattr(state, "sequence", None) != keep:
                self.drop(key)
                return True
        return False

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> "Logits":
        """Append tokens as ``TokenModel.evaluate`` does.

        Raises ``EngineError`` with code ``server_is_overloaded`` when the sequences in use alone
        fill the context. After an ``EngineError`` the sequence holds what it held before.
        """
        if len(tokens) == 1:  # every decode step: nothing can be left half done
            try:
                return self._evaluate(sequence, tokens, all_logits=all_logits)
            except (Cancelled, EngineError) as problem:
                self._make_way(problem, self.backend.num_tokens(sequence) + 1)
        start = self.backend.num_tokens(sequence)
        done = 0
        while True:
            rest = tokens[done:] if done else tokens
            try:
                return self._evaluate(sequence, rest, all_logits=all_logits)
            except (Cancelled, EngineError) as problem:
                self._make_way_or_undo(problem, sequence, start, start + len(tokens))
            # Go on after what was evaluated, but leave one token to ask for logits again.
            held = self.backend.num_tokens(sequence) - start
            done = 0 if all_logits else max(0, min(held, len(tokens) - 1))
            self.backend.truncate(sequence, start + done)

    def evaluate_many(self, parts: Sequence[Evaluate]) -> "list[Logits | EngineError]":
        """Append tokens to several sequences as ``TokenBackend.evaluate_many`` does.

        Nobody's cancel stops it. An answer with code ``server_is_overloaded`` says that the
        sequences in use alone fill the context.
        """
        answers = self._evaluated(parts)
        while True:
            short = [n for n, answer in enumerate(answers) if self._lacks_cells(parts[n], answer)]
            if not short:
                return answers
            if not self._evict():
                for n in short:
                    answers[n] = _crowded(answers[n])
                return answers
            again = self._evaluated([parts[n] for n in short])
            for n, answer in zip(short, again, strict=True):
                answers[n] = answer

    def _evaluated(self, parts: Sequence[Evaluate]) -> "list[Logits | EngineError]":
        while True:
            with suppress(Cancelled):  # meant for a job that was evaluated before
                return self._evaluate_many(parts)

    def _lacks_cells(self, part: Evaluate, answer: "Logits | EngineError") -> bool:
        if not isinstance(answer, EngineError) or answer.code != "context_length_exceeded":
            return False
        wanted = self.backend.num_tokens(part.sequence) + len(part.tokens)
        return wanted <= self.backend.context_window

    def _make_way_or_undo(
        self, problem: Cancelled | EngineError, sequence: int, start: int, num_wanted: int
    ) -> None:
        try:
            self._make_way(problem, num_wanted)
        except EngineError:
            with suppress(EngineError):  # a model that cannot forget a part: it starts over
                self.backend.truncate(sequence, start)
            raise

    def _make_way(self, problem: Cancelled | EngineError, num_wanted: int) -> None:
        """Return when evaluating again can succeed; else raise what the caller must see."""
        if isinstance(problem, Cancelled):
            if self._is_cancelled():
                raise problem
            return
        if problem.code != "context_length_exceeded" or num_wanted > self.backend.context_window:
            raise problem
        if not self._evict():
            raise _crowded(problem) from problem

    def shutdown(self) -> None:
        """All filed state is released, then the backend, which nobody reads with any more."""
        if self._readers is not None:
            self._readers.shutdown(cancel_futures=True)
        for key in list(self._warm):
            self.drop(key)
        self.backend.shutdown()


def _crowded(problem: object) -> EngineError:
    return EngineError(
        f"the sequences in use fill the context: {problem}; try again later",
        code="server_is_overloaded",
    )

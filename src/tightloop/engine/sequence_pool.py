"""A ``TokenBackend`` whose idle sequences make room for the ones in use.

Families see this instead of the bare backend. What is kept between responses is on a shelf
(``shelf``); when sequences or context cells run out, the state that was used longest ago makes way,
so that a conversation being answered never fails for the sake of one that is only remembered.
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from tightloop.engine.aside import until_done
from tightloop.engine.cell_count import CellCount
from tightloop.engine.interface import Cancelled, EngineError, Evaluate, TokenBackend
from tightloop.engine.shelf import SAVED_BYTES, Shelf

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

SHORT_CHARS: Final = 16_384
"""Tokenised at once: about 10 ms, at the 1.3 to 1.8 MB/s of llama.cpp (byte pairs, measured)."""

NUM_READERS: Final = 2


class SequencePool:
    """Passes every call on to ``backend``; filed state makes way when the backend is full.

    ``is_cancelled`` says whether the job being stepped was cancelled: an evaluation stopped on
    behalf of another job goes on where it was. ``warm_bytes`` and ``saved_bytes`` limit what filed
    state takes in the context (None: what there is) and saved outside it.
    """

    def __init__(
        self,
        backend: TokenBackend,
        is_cancelled: Callable[[], bool],
        *,
        warm_bytes: int | None = None,
        saved_bytes: int = SAVED_BYTES,
    ) -> None:
        self.backend = backend
        self._is_cancelled = is_cancelled
        self.num_freed = 0
        """How often cells may have become free: what did not fit before may fit now."""
        self._cells = CellCount(backend.num_tokens)
        self._shelf = shelf = Shelf(
            self._cells,
            backend.num_tokens,
            backend.bytes_per_token,
            num_bytes=warm_bytes,
            saved_bytes=saved_bytes,
        )
        self.file, self.take, self.peek = shelf.file, shelf.take, shelf.peek
        self.demote, self.drop, self.thaw = shelf.demote, shelf.drop, shelf.thaw
        self.keep_newest, self.newest_first = shelf.keep_newest, shelf.newest_first
        self.stats = shelf.stats
        self._readers: ThreadPoolExecutor | None = None
        # Bound once: these are called for every token.
        self._evaluate = backend.evaluate
        self._evaluate_many = backend.evaluate_many
        self.token_bytes = backend.token_bytes
        self.tokenize = backend.tokenize
        self.save = backend.save
        self.restore = backend.restore
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

    def open(self) -> int:
        """A new empty sequence, evicting idle state if need be."""
        return self._with_room(self.backend.open)

    def fork(self, sequence: int, num_tokens: int) -> int:
        """A new sequence that shares the first ``num_tokens`` tokens."""
        # The origin may be idle state itself: share it with a new sequence before evicting it.
        child = self._with_room(lambda: self.backend.fork(sequence, num_tokens), keep=sequence)
        self._cells.forked(sequence, child, num_tokens)
        return child

    def truncate(self, sequence: int, num_tokens: int) -> None:
        """Forget all but the first ``num_tokens`` tokens."""
        self.num_freed += num_tokens < self.num_tokens(sequence)
        try:
            self.backend.truncate(sequence, num_tokens)
        finally:  # a model that cannot forget a part has forgotten all
            self._cells.truncated(sequence, self.num_tokens(sequence))

    def close(self, sequence: int) -> None:
        """Give the sequence back."""
        self.num_freed += 1
        self.backend.close(sequence)
        self._cells.closed(sequence)

    def step_costs(self) -> dict[int, float]:
        """As ``TokenBackend.step_costs``; where there is no room to measure now, c(1) only."""
        try:
            return self.backend.step_costs()
        except (Cancelled, EngineError):
            return {1: 1.0}

    def _with_room(self, attempt: Callable[[], int], keep: int | None = None) -> int:
        while True:
            try:
                return attempt()
            except EngineError as error:
                if error.code != "server_is_overloaded" or not self._shelf.evict(keep):
                    raise

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
            self.truncate(sequence, start + done)

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
            if not self._shelf.evict():
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
                self.truncate(sequence, start)
            raise

    def _make_way(self, problem: Cancelled | EngineError, num_wanted: int) -> None:
        """Return when evaluating again can succeed; else raise what the caller must see."""
        if isinstance(problem, Cancelled):
            if self._is_cancelled():
                raise problem
            return
        if problem.code != "context_length_exceeded" or num_wanted > self.backend.context_window:
            raise problem
        if not self._shelf.evict():
            raise _crowded(problem) from problem

    def shutdown(self) -> None:
        """All filed state is released, then the backend, which nobody reads with any more."""
        if self._readers is not None:
            self._readers.shutdown(cancel_futures=True)
        self._shelf.drop_all()
        self.backend.shutdown()


def _crowded(problem: object) -> EngineError:
    return EngineError(
        f"the sequences in use fill the context: {problem}; try again later",
        code="server_is_overloaded",
    )

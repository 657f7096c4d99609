"""A ``TokenBackend`` without a model: tokens are bytes, the next one comes from a function.

A shipped, documented fake. It honours the whole contract (forks, truncation, limits, cancel), so
token engines and families can be driven through corners that a real model reaches by chance:
a stop string across three tokens, a UTF-8 character cut in half, a tool call token by token.
"""

import threading
from array import array
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tightloop.engine.interface import Cancelled, EngineError, Evaluate, SavedSequence
from tightloop.engine.step_costs import SIZES

IM_START, IM_END, END_OF_TEXT = 256, 257, 258
CONTROL = {"<|im_start|>": IM_START, "<|im_end|>": IM_END, "<|endoftext|>": END_OF_TEXT}
_BYTES_PER_TOKEN = 4
NextToken = Callable[[Sequence[int]], int]
"""Given the tokens of a sequence, the token with the highest logit."""


def replying(
    reply: bytes | Sequence[int], *, after: bytes = b"assistant\n", start: int | None = IM_START
) -> NextToken:
    """The tokens of ``reply``, then the end of the turn, after the last marker in the prompt.

    The marker is the token ``start``, if any, and the bytes ``after``.
    """
    marker = [*([] if start is None else [start]), *after]
    tokens = [*reply, IM_END]

    def next_token(held: Sequence[int]) -> int:
        for place in range(len(held) - len(marker), -1, -1):
            if list(held[place : place + len(marker)]) == marker:
                done = len(held) - place - len(marker)
                return tokens[done] if done < len(tokens) else IM_END
        return IM_END

    return next_token


class ScriptedBackend:
    """Byte tokens 0-255, then ``<|im_start|>``, ``<|im_end|>``, ``<|endoftext|>``.

    ``evaluated`` records every evaluation as (sequence, number of tokens), ``joined`` how many of
    them each ``evaluate_many`` was asked for. ``hold`` makes each evaluation of more than one token
    wait until ``release`` is set or ``cancel`` is called, having set ``held`` first. Saved
    sequences take four bytes a token. ``step_costs`` are those of an ideal accelerator unless given.
    """

    def __init__(
        self,
        next_token: NextToken,
        *,
        context_window: int = 4096,
        num_cells: int = 16384,
        num_sequences: int = 8,
        metadata: Mapping[str, str] | None = None,
        hold: bool = False,
        step_costs: Mapping[int, float] | None = None,
    ) -> None:
        self.next_token = next_token
        self.evaluated: list[tuple[int, int]] = []
        self.joined: list[int] = []
        self.is_shut_down = False
        self.held = threading.Event()
        self.release = threading.Event()
        self._hold = hold
        self._window = context_window
        self._num_cells = num_cells
        self._num_sequences = num_sequences
        self._metadata = dict(metadata or {})
        self._sequences: dict[int, list[int]] = {}
        self._is_cancelled = False
        self._step_costs = dict(step_costs or dict.fromkeys(SIZES, 1.0))

    @property
    def num_vocab(self) -> int:
        """259: the bytes and three control tokens."""
        return 256 + len(CONTROL)

    @property
    def context_window(self) -> int:
        """Tokens one sequence can hold."""
        return self._window

    @property
    def eos_tokens(self) -> frozenset[int]:
        """End of turn and end of text."""
        return frozenset((IM_END, END_OF_TEXT))

    @property
    def metadata(self) -> dict[str, str]:
        """What it was given."""
        return self._metadata

    @property
    def bytes_per_token(self) -> int:
        """Four."""
        return _BYTES_PER_TOKEN

    def step_costs(self) -> dict[int, float]:
        """What it was given."""
        return self._step_costs

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """A token per UTF-8 byte; control tokens too when ``special``."""
        if not special:
            return list(text.encode())
        for name, token in CONTROL.items():
            head, found, tail = text.partition(name)
            if found:
                parts = (self.tokenize(part, special=True) for part in (head, tail))
                return [*next(parts), token, *next(parts)]
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        """The byte itself, or the control token's name."""
        if token < 256:
            return bytes([token])
        return next(name.encode() for name, known in CONTROL.items() if known == token)

    def open(self) -> int:
        """A new empty sequence."""
        free = [n for n in range(self._num_sequences) if n not in self._sequences]
        if not free:
            raise EngineError(
                f"all {self._num_sequences} sequences are in use", code="server_is_overloaded"
            )
        self._sequences[free[0]] = []
        return free[0]

    def fork(self, sequence: int, num_tokens: int) -> int:
        """A new sequence with the first ``num_tokens`` tokens."""
        child = self.open()
        self._sequences[child] = self._sequences[sequence][:num_tokens]
        return child

    def truncate(self, sequence: int, num_tokens: int) -> None:
        """Only the first ``num_tokens`` tokens are held."""
        if num_tokens > len(self._sequences[sequence]):
            raise EngineError(f"cannot keep {num_tokens} tokens")
        del self._sequences[sequence][num_tokens:]

    def close(self, sequence: int) -> None:
        """The sequence is given back."""
        self._sequences.pop(sequence, None)

    def num_tokens(self, sequence: int) -> int:
        """Tokens held by the sequence."""
        try:
            return len(self._sequences[sequence])
        except KeyError:
            raise EngineError(f"sequence {sequence} is not open") from None

    def save(self, sequence: int) -> SavedSequence:
        """The sequence's tokens as bytes."""
        return array("i", self._sequences[sequence]).tobytes()

    def restore(self, data: SavedSequence) -> int:
        """A new sequence with the tokens that were saved."""
        tokens = array("i", bytes(data)).tolist()
        self._check_room(0, len(tokens))
        sequence = self.open()
        self._sequences[sequence] = tokens
        return sequence

    def _check_room(self, num_held: int, num_more: int) -> None:
        total = sum(map(len, self._sequences.values())) + num_more
        if num_held + num_more > self._window or total > self._num_cells:
            raise EngineError("the context is full", code="context_length_exceeded")

    def num_open(self) -> int:
        """Sequences open now."""
        return len(self._sequences)

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> NDArray[np.float32]:
        """Append tokens; logits are 1 for the scripted next token and 0 for the rest."""
        if self._hold and len(tokens) > 1:
            self.held.set()
            self.release.wait()
        if self._is_cancelled:
            self._is_cancelled = False
            raise Cancelled
        held = self._sequences.get(sequence)
        if held is None or not tokens:
            raise EngineError(f"sequence {sequence} is not open, or there is nothing to evaluate")
        self._check_room(len(held), len(tokens))
        self.evaluated.append((sequence, len(tokens)))
        rows: NDArray[np.float32] = np.zeros(
            (len(tokens) if all_logits else 1, self.num_vocab), np.float32
        )
        if all_logits:
            for row, token in zip(rows, tokens, strict=True):
                held.append(token)
                row[self.next_token(held)] = 1
            return rows
        held.extend(tokens)
        rows[0, self.next_token(held)] = 1
        last: NDArray[np.float32] = rows[0]
        return last

    def evaluate_many(self, parts: Sequence[Evaluate]) -> list[NDArray[np.float32] | EngineError]:
        """Each part as ``evaluate`` does it."""
        if len({part.sequence for part in parts}) < len(parts):
            raise EngineError("a sequence occurs twice in one step")
        self.joined.append(len(parts))
        answers: list[NDArray[np.float32] | EngineError] = []
        before = {number: list(held) for number, held in self._sequences.items()}
        for part in parts:
            try:
                logits = self.evaluate(part.sequence, part.tokens, all_logits=part.all_logits)
            except Cancelled:
                self._sequences = before
                raise
            except EngineError as error:
                answers.append(error)
            else:
                answers.append(logits)
        return answers

    def cancel(self) -> None:
        """The running ``evaluate``, or the next one, raises ``Cancelled``."""
        self._is_cancelled = True
        self.release.set()

    def shutdown(self) -> None:
        """Every sequence is gone."""
        self._sequences.clear()
        self.is_shut_down = True

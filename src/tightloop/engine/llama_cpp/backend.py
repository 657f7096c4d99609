"""``TokenBackend`` on llama.cpp: sequences are sequence ids of one context.

All cells of the context are shared (``kv_unified``), so a fork copies nothing: it costs tens of
microseconds. Tokens are evaluated in units of 128, which lets a cancelled prefill keep what it has
done, and so that the last unit is not a short one where that can be: llama.cpp's attention on a CPU
takes more for 40 tokens than for 100 (figures: design/0003-engine.md).
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import c_float, c_int8, c_int32, c_void_p
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tightloop.engine import step_costs
from tightloop.engine.interface import Cancelled, EngineError, Evaluate, SavedSequence
from tightloop.engine.llama_cpp import fit
from tightloop.engine.llama_cpp.library import Batch, Library, load_library
from tightloop.engine.llama_cpp.mixed_batch import MixedBatch
from tightloop.trace.clock import now_ns

MAX_THREADS = 512  # GGML_MAX_N_THREADS; more would be an assertion failure inside the library
UNIT_TOKENS = 128
TILE_TOKENS = 64  # GGML_FA_TILE_Q: with fewer, attention goes token by token
SHORT_TOKENS = 16  # with fewer, token by token takes no longer than a tile of its own
BATCH_TOKENS = 512
_MIN_CELLS, _MAX_CELLS = 8192, 32768
_NO_SLOT, _ABORTED = 1, 2

Logits = NDArray[np.float32]


def batch_sizes(num_tokens: int) -> list[int]:
    """How many tokens to hand over at a time so that the last unit, unless it is tiny, fills a tile."""
    rest = num_tokens % UNIT_TOKENS
    is_short = num_tokens > UNIT_TOKENS and SHORT_TOKENS <= rest < TILE_TOKENS
    last = TILE_TOKENS + rest if is_short else 0
    head = num_tokens - last
    sizes = [min(BATCH_TOKENS, head - start) for start in range(0, head, BATCH_TOKENS)]
    return [*sizes, last] if last else sizes


class LlamaCppBackend:
    """A GGUF model in this process. Everything but ``cancel`` belongs to one thread.

    ``num_context`` is the number of token cells that all sequences share (default: the trained
    context length, within 8k-32k); one sequence can hold ``context_window`` tokens.
    ``num_sequences`` is how many may be open at once. ``num_threads`` None decides by model size
    and by ``num_cores``, None: all that this process may run on.
    Raises ``EngineError`` when the file is missing, is not a model or does not fit in memory.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        num_context: int | None = None,
        num_sequences: int = 32,
        num_threads: int | None = None,
        num_cores: int | None = None,
        library: Library | None = None,
    ) -> None:
        self.path = Path(path)
        self._model = self._context = 0
        if not self.path.is_file():
            raise EngineError(f"no model file at {self.path}", code="model_not_found")
        self.library = library or load_library()
        self._calls = self.library.calls
        self._free = list(range(num_sequences - 1, -1, -1))
        self._held: dict[int, int] = {}
        self._num_cores = num_cores or fit.physical_cores()
        self._load_model()
        try:
            self._make_context(num_context, num_sequences, num_threads)
        except BaseException:
            self.shutdown()
            raise
        self._vocab = self._calls["llama_model_get_vocab"](self._model)
        self._num_vocab: int = self._calls["llama_vocab_n_tokens"](self._vocab)
        self._pieces: dict[int, bytes] = {}
        self._views: dict[int, NDArray[np.float32]] = {}
        self._metadata = self._read_metadata()
        is_end = self._calls["llama_vocab_is_eog"]
        self._eos = frozenset(t for t in range(self._num_vocab) if is_end(self._vocab, t))
        self._bind_step()
        self._mixed: MixedBatch | None = None
        self._step_costs: dict[int, float] | None = None

    # -- construction ------------------------------------------------------------------

    def _load_model(self) -> None:
        fit.check_fit(
            f"{self.path.name}",
            self.path.stat().st_size,
            "choose a smaller model or a smaller quantisation",
            available=fit.available_bytes(),
        )
        params = self.library.model_params()
        self._model = self._calls["llama_model_load_from_file"](str(self.path).encode(), params)
        if not self._model:
            raise EngineError(
                f"{self.path} is not a model that llama.cpp {self.library.version} can load; "
                "it must be a complete GGUF file of a supported architecture",
                code="model_not_found",
            )
        self.num_parameters: int = self._calls["llama_model_n_params"](self._model)

    def _make_context(
        self, num_context: int | None, num_sequences: int, num_threads: int | None
    ) -> None:
        calls, model = self._calls, self._model
        trained: int = calls["llama_model_n_ctx_train"](model)
        cells = num_context or min(max(trained, _MIN_CELLS), _MAX_CELLS)
        heads = max(1, calls["llama_model_n_head"](model))
        self._bytes_per_token = fit.kv_bytes_per_token(
            calls["llama_model_n_layer"](model),
            calls["llama_model_n_head_kv"](model),
            calls["llama_model_n_embd"](model) // heads,
        )
        fit.check_fit(
            f"a context of {cells} tokens for {self.path.name}",
            cells * self._bytes_per_token,
            "choose a smaller context",
            available=fit.available_bytes(),
        )
        if num_threads is not None and not 0 < num_threads <= MAX_THREADS:
            raise EngineError(
                f"cannot run on {num_threads} threads; choose from 1 to {MAX_THREADS}",
                code="engine_unavailable",
            )
        params = self.library.context_params()
        params.n_ctx = cells
        params.n_batch = BATCH_TOKENS
        params.n_ubatch = UNIT_TOKENS
        params.n_seq_max = self._num_sequences = num_sequences
        params.kv_unified = True
        params.n_threads = num_threads or fit.decode_threads(self.num_parameters, self._num_cores)
        params.n_threads_batch = num_threads or params.n_threads
        self.num_threads: int = params.n_threads
        self._context = calls["llama_init_from_model"](model, params)
        if not self._context:
            raise EngineError(
                f"llama.cpp cannot make a context of {cells} tokens and {num_sequences} "
                f"sequences for {self.path.name}; choose fewer of either",
                code="engine_unavailable",
            )
        self._memory = calls["llama_get_memory"](self._context)
        self._num_cells: int = calls["llama_n_ctx"](self._context)
        self._window: int = min(trained, self._num_cells) if trained > 0 else self._num_cells
        self._set_abort_flag()

    def _set_abort_flag(self) -> None:
        # llama.cpp asks between graph nodes whether to stop: `bool f(void *data)`. A Python
        # callback would need the interpreter lock there, and wait up to 5 ms for a busy event
        # loop on every token. strlen answers the same question of a two-byte buffer without it:
        # 0 (false) for an empty string, 1 (true) once `cancel` has put a byte there.
        self._abort = ctypes.create_string_buffer(64)
        self._abort_question = ctypes.cast(ctypes.CDLL(None).strlen, c_void_p)
        self._calls["llama_set_abort_callback"](
            self._context, self._abort_question, ctypes.cast(self._abort, c_void_p)
        )

    def _bind_step(self) -> None:
        self._token = (c_int32 * BATCH_TOKENS)()
        self._pos = (c_int32 * BATCH_TOKENS)()
        self._num_ids = (c_int32 * BATCH_TOKENS)(*[1] * BATCH_TOKENS)
        self._sequence = c_int32(0)
        pointer = ctypes.addressof(self._sequence)
        self._ids = (c_void_p * BATCH_TOKENS)(*[pointer] * BATCH_TOKENS)
        self._wanted = (c_int8 * BATCH_TOKENS)()
        self._batch = Batch(
            n_tokens=0,
            token=ctypes.addressof(self._token),
            embd=None,
            pos=ctypes.addressof(self._pos),
            n_seq_id=ctypes.addressof(self._num_ids),
            seq_id=ctypes.addressof(self._ids),
            logits=ctypes.addressof(self._wanted),
        )
        self._decode = self._calls["llama_decode"]
        self._logits_ith = self._calls["llama_get_logits_ith"]
        self._tokens_view = np.ctypeslib.as_array(self._token)
        self._pos_view = np.ctypeslib.as_array(self._pos)
        self._wanted_view = np.ctypeslib.as_array(self._wanted)

    def _read_metadata(self) -> dict[str, str]:
        calls, model = self._calls, self._model
        return {
            self._meta(calls["llama_model_meta_key_by_index"], n): self._meta(
                calls["llama_model_meta_val_str_by_index"], n
            )
            for n in range(calls["llama_model_meta_count"](model))
        }

    def _meta(self, call: Callable[..., int], index: int) -> str:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = call(self._model, index, buffer, size)
            if length < size:
                return buffer.raw[: max(length, 0)].decode("utf-8", "replace")
            size = length + 1

    # -- what the model is -------------------------------------------------------------

    @property
    def num_vocab(self) -> int:
        """Tokens of the vocabulary, the length of a logits row."""
        return self._num_vocab

    @property
    def context_window(self) -> int:
        """Tokens one sequence can hold."""
        return self._window

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Every token that ends a generation (end of text, end of turn)."""
        return self._eos

    @property
    def bos_token(self) -> int | None:
        """The token to put first, or None when the model wants none."""
        if not self._calls["llama_vocab_get_add_bos"](self._vocab):
            return None
        token: int = self._calls["llama_vocab_bos"](self._vocab)
        return token if token >= 0 else None

    @property
    def metadata(self) -> dict[str, str]:
        """The file's scalar metadata as text; arrays are left out."""
        return self._metadata

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values that one token takes in the context."""
        return self._bytes_per_token

    def step_costs(self) -> dict[int, float]:
        """What evaluating 1, 2, 4, 8 and 16 tokens at once costs, in steps of one token.

        The first call measures, for 50 ms or so, 300 ms with slow models, and longer only where
        steps of one and of four tokens take longer. Raises ``EngineError`` without room.
        """
        if self._step_costs is None:
            self._step_costs = step_costs.measure(self, now_ns)
        return self._step_costs

    # -- tokens ------------------------------------------------------------------------

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text``, nothing added; ``special`` recognises control tokens in it."""
        data = text.encode()
        size = len(data) + 8
        while True:
            out = (c_int32 * size)()
            count: int = self._calls["llama_tokenize"](
                self._vocab, data, len(data), out, size, False, special
            )
            if count >= 0:
                return list(out[:count])
            size = -count

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, control tokens included."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        if not 0 <= token < self._num_vocab:
            raise EngineError(f"token {token} is outside the vocabulary of {self._num_vocab}")
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count: int = self._calls["llama_token_to_piece"](
                self._vocab, token, buffer, size, 0, True
            )
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    # -- sequences ---------------------------------------------------------------------

    def open(self) -> int:
        """A new empty sequence. Raises ``EngineError`` when all are in use."""
        if not self._free:
            raise EngineError(
                f"all {len(self._held)} sequences are in use", code="server_is_overloaded"
            )
        sequence = self._free.pop()
        self._held[sequence] = 0
        return sequence

    def fork(self, sequence: int, num_tokens: int) -> int:
        """A new sequence that shares the first ``num_tokens`` tokens; nothing is copied."""
        if not 0 <= num_tokens <= self._count(sequence):
            raise EngineError(
                f"cannot fork {num_tokens} tokens of a sequence that holds {self._count(sequence)}"
            )
        child = self.open()
        self._calls["llama_memory_seq_cp"](self._memory, sequence, child, 0, num_tokens)
        self._held[child] = num_tokens
        return child

    def truncate(self, sequence: int, num_tokens: int) -> None:
        """Only the first ``num_tokens`` tokens are held."""
        if not 0 <= num_tokens <= self._count(sequence):
            raise EngineError(
                f"cannot keep {num_tokens} tokens of a sequence that holds {self._count(sequence)}"
            )
        if num_tokens == self._held[sequence]:
            return
        if not self._calls["llama_memory_seq_rm"](self._memory, sequence, num_tokens, -1):
            # Recurrent memory cannot forget a part: start over, the caller evaluates again.
            self._calls["llama_memory_seq_rm"](self._memory, sequence, -1, -1)
            self._held[sequence] = 0
            raise EngineError(
                f"{self.path.name} cannot forget part of a sequence; it is empty now",
                code="partial_truncate_unsupported",
            )
        self._held[sequence] = num_tokens

    def close(self, sequence: int) -> None:
        """The sequence is given back. Closing one that is not open does nothing."""
        if self._held.pop(sequence, None) is None:
            return
        self._calls["llama_memory_seq_rm"](self._memory, sequence, -1, -1)
        self._free.append(sequence)

    def num_tokens(self, sequence: int) -> int:
        """Tokens held by the sequence."""
        return self._count(sequence)

    def save(self, sequence: int) -> SavedSequence:
        """A copy of what the context holds for the sequence, outside of it."""
        self._count(sequence)
        size: int = self._calls["llama_state_seq_get_size"](self._context, sequence)
        data = np.empty(size, np.uint8)
        written: int = self._calls["llama_state_seq_get_data"](
            self._context, data.ctypes.data, size, sequence
        )
        if written != size:
            raise EngineError(f"llama.cpp saved {written} of {size} bytes of a sequence")
        return data.data

    def restore(self, data: SavedSequence) -> int:
        """A new sequence with what ``save`` of this backend copied; nothing is evaluated.

        The free cells need not lie together. Raises ``EngineError`` when there are too few, or when
        there is no sequence.
        """
        sequence = self.open()
        source = np.frombuffer(data, np.uint8)
        read: int = self._calls["llama_state_seq_set_data"](
            self._context, source.ctypes.data, len(source), sequence
        )
        if read != len(source):
            self.close(sequence)
            raise EngineError(
                f"no room to restore {len(source) // self._bytes_per_token} tokens among the "
                f"{self._num_cells} token cells",
                code="context_length_exceeded",
            )
        top: int = self._calls["llama_memory_seq_pos_max"](self._memory, sequence)
        self._held[sequence] = top + 1
        return sequence

    def _count(self, sequence: int) -> int:
        try:
            return self._held[sequence]
        except KeyError:
            raise EngineError(f"sequence {sequence} is not open") from None

    # -- evaluation --------------------------------------------------------------------

    def evaluate(self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False) -> Logits:
        """Append tokens; a copy of the logits after the last one, or of all of them.

        Raises ``Cancelled`` when ``cancel`` was called since the last ``Cancelled``, also before
        this call; what was evaluated stays (``num_tokens`` says how much). Raises
        ``EngineError`` with code ``context_length_exceeded`` when the sequence or the shared
        cells are full; whole batches that were evaluated before stay.
        """
        if len(tokens) == 1 and not all_logits and self._abort[0] == b"\0":
            held = self._held.get(sequence, self._window)
            if held < self._window:
                return self._step(sequence, held, tokens[0])
        held = self._checked(sequence, tokens)
        self._sequence.value = sequence
        rows: list[Logits] = []
        start = 0
        for size in batch_sizes(len(tokens)):
            part = tokens[start : start + size]
            is_last = start + len(part) == len(tokens)
            self._fill(part, held + start, all_logits, is_last)
            self._run(sequence, held + start, len(part))
            if all_logits:
                rows.append(self._rows(0, len(part)))
            start += size
        if all_logits:
            return rows[0] if len(rows) == 1 else np.concatenate(rows)
        return self._row(self._logits_ith(self._context, -1))

    def _checked(self, sequence: int, tokens: Sequence[int]) -> int:
        """How much the sequence holds, if it can take the tokens."""
        held = self._count(sequence)
        if not tokens:
            raise EngineError("nothing to evaluate: the list of tokens is empty")
        if held + len(tokens) > self._window:
            raise EngineError(
                f"{held + len(tokens)} tokens do not fit in the context window of {self._window}",
                code="context_length_exceeded",
            )
        return held

    def evaluate_many(self, parts: Sequence[Evaluate]) -> list[Logits | EngineError]:
        """Append tokens to several sequences, up to 512 tokens a step; an answer per part.

        Each answer is what ``evaluate`` returns or the ``EngineError`` it raises. Raises
        ``Cancelled`` as it does, and ``EngineError`` when a sequence occurs twice.
        """
        if len({part.sequence for part in parts}) < len(parts):
            raise EngineError("a sequence occurs twice in one step; evaluate its parts in turn")
        answers: dict[int, Logits | EngineError] = {}
        before = {part.sequence: self._held.get(part.sequence, 0) for part in parts}
        try:
            self._join_in_groups(parts, answers)
        except Cancelled:
            for sequence, held in before.items():
                with suppress(EngineError):  # it was not open, or cannot forget a part
                    self.truncate(sequence, held)
            raise
        return [answers[number] for number in range(len(parts))]

    def _join_in_groups(
        self, parts: Sequence[Evaluate], answers: dict[int, Logits | EngineError]
    ) -> None:
        group: list[int] = []
        size = 0
        for number, part in enumerate(parts):
            try:
                self._checked(part.sequence, part.tokens)
            except EngineError as error:
                answers[number] = error
                continue
            if group and size + len(part.tokens) > BATCH_TOKENS:
                self._join(group, parts, answers)
                group, size = [], 0
            group.append(number)
            size += len(part.tokens)
        if group:
            self._join(group, parts, answers)

    def _join(
        self, group: list[int], parts: Sequence[Evaluate], answers: dict[int, Logits | EngineError]
    ) -> None:
        if len(group) == 1:
            part = parts[group[0]]
            try:
                answers[group[0]] = self.evaluate(
                    part.sequence, part.tokens, all_logits=part.all_logits
                )
            except EngineError as error:
                answers[group[0]] = error
            return
        joined = [parts[number] for number in group]
        mixed = self._mixed = self._mixed or MixedBatch(BATCH_TOKENS, self._num_sequences)
        starts = mixed.fill(joined, [self._held[part.sequence] for part in joined])
        code = self._decode_unless_cancelled(mixed.batch)
        if code == _NO_SLOT:  # nothing was done: the earlier half is the first to try again
            middle = len(group) // 2
            self._join(group[:middle], parts, answers)
            self._join(group[middle:], parts, answers)
            return
        for part in joined:
            self._settle(part.sequence, len(part.tokens), code)
        if code:
            problem = self._problem(code, mixed.batch.n_tokens)
            if isinstance(problem, Cancelled):
                raise problem
            answers.update(dict.fromkeys(group, problem))
            return
        for number, start, part in zip(group, starts, joined, strict=True):
            size = len(part.tokens)
            last = start + size - 1
            answers[number] = (
                self._rows(start, size)
                if part.all_logits
                else self._row(self._logits_ith(self._context, last))
            )

    def _step(self, sequence: int, held: int, token: int) -> Logits:
        """What ``evaluate`` does for nearly every token of an answer, with as few calls as can be."""
        self._sequence.value = sequence
        self._token[0] = token
        self._pos[0] = held
        self._wanted[0] = 1
        self._batch.n_tokens = 1
        code = self._decode(self._context, self._batch)
        if code:
            self._settle(sequence, 1, code)
            raise self._problem(code, 1)
        self._held[sequence] = held + 1
        address = self._logits_ith(self._context, -1)
        row = self._views.get(address)
        return self._row(address) if row is None else row.copy()

    def _fill(self, part: Sequence[int], first: int, all_logits: bool, is_last: bool) -> None:
        size = len(part)
        self._tokens_view[:size] = part
        self._pos_view[:size] = np.arange(first, first + size, dtype=np.int32)
        self._wanted_view[:size] = 1 if all_logits else 0
        if is_last:
            self._wanted_view[size - 1] = 1

    def _run(self, sequence: int, held: int, count: int) -> None:
        self._batch.n_tokens = count
        code = self._decode_unless_cancelled(self._batch)
        if code == 0:
            self._held[sequence] = held + count
            return
        self._settle(sequence, count, code)
        raise self._problem(code, count)

    def _decode_unless_cancelled(self, batch: Batch) -> int:
        if self._abort[0] != b"\0":
            self._abort[0] = b"\0"
            raise Cancelled
        code: int = self._decode(self._context, batch)
        return code

    def _settle(self, sequence: int, count: int, code: int) -> None:
        if code == 0:
            self._held[sequence] += count
            return
        # After an abort or a fatal error finished units remain; otherwise nothing changed.
        top: int = self._calls["llama_memory_seq_pos_max"](self._memory, sequence)
        self._held[sequence] = top + 1

    def _problem(self, code: int, count: int) -> Cancelled | EngineError:
        if code == _ABORTED:
            self._abort[0] = b"\0"
            return Cancelled()
        if code == _NO_SLOT:
            return EngineError(
                f"the {self._num_cells} token cells shared by {len(self._held)} sequences are "
                f"full: no room for {count} more",
                code="context_length_exceeded",
            )
        return EngineError(f"llama.cpp could not evaluate {count} tokens (code {code})")

    def _row(self, address: int | None) -> NDArray[np.float32]:
        # The output buffer rarely moves: keep a view per address instead of building one a token.
        view = self._views.get(address or 0)
        if view is None:
            view = self._view(address, self._num_vocab)
            if len(self._views) > 2 * BATCH_TOKENS:
                self._views.clear()
            self._views[address or 0] = view
        return view.copy()

    def _rows(self, start: int, count: int) -> Logits:
        """Of ``count`` tokens of the batch, which all asked for logits: then rows lie in order."""
        address = self._logits_ith(self._context, start)
        return self._view(address, count * self._num_vocab).reshape(count, -1).copy()

    def _view(self, address: int | None, size: int) -> NDArray[np.float32]:
        if not address:
            raise EngineError("llama.cpp gave no logits for an evaluated token")
        view: NDArray[np.float32] = np.ctypeslib.as_array((c_float * size).from_address(address))
        return view

    def cancel(self) -> None:
        """The running ``evaluate``, or the next one, stops soon. Callable from any thread."""
        self._abort[0] = b"\1"

    def shutdown(self) -> None:
        """The model and its memory are released; no sequence is open. May be called twice."""
        self._held.clear()
        self._free.clear()
        if self._context:
            self._calls["llama_free"](self._context)
            self._context = 0
        if self._model:
            self._calls["llama_model_free"](self._model)
            self._model = 0

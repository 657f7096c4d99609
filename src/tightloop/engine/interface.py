"""The two layers of an engine.

``Engine`` speaks in conversations: given a parent node and the new items it gives typed deltas.
``TokenBackend`` speaks in token ids; ``token_engine.TokenEngine`` turns one into an ``Engine``
with the help of a ``ModelFamily``, which knows a model's prompt layout and way of decoding.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tightloop.protocol.compaction import visible
from tightloop.protocol.deltas import Delta, FinishReason, Usage
from tightloop.protocol.items import Item
from tightloop.protocol.output_format import OutputFormat
from tightloop.protocol.requests import Tool, ToolChoice

if TYPE_CHECKING:  # numpy takes 0.1 s to import, and most engines do without it
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Node:
    """One response in a conversation tree. Immutable once its response has ended.

    ``items`` is this response's new input followed by its output; the whole context of a node
    is the items of its ancestors from the root down, then its own. ``instructions`` are those
    of this response only: the API does not inherit them.
    """

    id: str
    parent: "Node | None"
    items: tuple[Item, ...]
    usage: Usage = field(default_factory=Usage)

    def context(self) -> list[Item]:
        """All items from the root to the end of this node."""
        chain: list[Node] = []
        node: Node | None = self
        while node is not None:
            chain.append(node)
            node = node.parent
        return [item for link in reversed(chain) for item in link.items]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. ``temperature`` 0 is greedy; ``seed`` makes a run repeatable.

    None leaves it to the engine: local models are greedy then, a remote host has its own default.
    """

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One response to make.

    ``response_id`` is the id the new node will have: a warm sequence is filed under it. ``model`` is
    what the client calls the model: an engine that has only one need not look at it.
    ``items`` are the new input items after ``parent``. ``generate`` False only prefills.
    ``output_format`` None is plain text. ``parallel_tool_calls`` False allows one call at most.
    ``reasoning_effort`` is the client's word, such as ``low``; ``none`` asks for no reasoning.
    ``is_open``: more of the last item's text will come. Only what cannot change any more is
    prefilled; ``generate`` is False then. ``prediction`` is text that the answer probably repeats.
    ``service_tier`` is the client's word, such as ``priority`` or ``flex``. ``cache_key`` names the
    session for affinity and prompt caches. ``is_background``: nobody waits for the answer.
    ``tier_policy`` is the client's wish for how one of several backends is picked.
    """

    response_id: str
    model: str
    parent: Node | None
    items: tuple[Item, ...]
    instructions: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    sampling: Sampling = field(default_factory=Sampling)
    max_output_tokens: int | None = None
    generate: bool = True
    output_format: OutputFormat | None = None
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    is_open: bool = False
    prediction: str | None = None
    service_tier: str | None = None
    cache_key: str | None = None
    is_background: bool = False
    tier_policy: str | None = None

    def context(self) -> list[Item]:
        """Every item the model must see, oldest first; no compaction items (``visible``)."""
        return visible([*(self.parent.context() if self.parent else ()), *self.items])


Sink = Callable[[Sequence[Delta]], None]
"""Called on the event loop with each batch of deltas; never raises, never blocks."""


class Generation(Protocol):
    """A response being made."""

    def cancel(self) -> None:
        """Ask for an early end; the sink still gets one ``Finished`` (CANCELLED)."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine says about a model it serves.

    ``prefills_early``: it makes use of requests that are still open (``is_open``).
    """

    name: str
    description: str = ""
    context_window: int = 0
    num_parameters: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
    reads_images: bool = False
    prefills_early: bool = False


class Engine(Protocol):
    """Makes responses. All methods are called on the event loop's thread.

    Order: ``start`` once, then any number of ``submit`` (also concurrently), then ``close``.
    """

    def models(self) -> Sequence[ModelInfo]:
        """The models served, the default one first."""

    async def start(self) -> None:
        """Load what must be loaded. Raises ``EngineError`` with a remedy in its text."""

    async def close(self) -> None:
        """End running generations and release everything. May be called twice."""

    def submit(self, request: GenerationRequest, sink: Sink) -> Generation:
        """Start one response; deltas go to ``sink`` in batches, the last one ends in Finished.

        Bad requests (context too long, unsupported tool) end in ``Finished`` with reason ERROR
        and a code; ``submit`` itself does not raise for them.
        """

    async def count_input(self, request: GenerationRequest) -> int:
        """Input tokens that ``request`` would have; an estimate where the tokeniser is not here.

        Raises ``EngineError`` for a request that cannot be rendered.
        """


@dataclass(frozen=True, slots=True)
class Evaluate:
    """What a family yields to have ``tokens`` appended to ``sequence``; it is sent the logits.

    The engine may join what several jobs yield in one step of the backend, and evaluate a long one
    in several steps. The answer is what ``TokenModel.evaluate`` returns; what it raises is raised
    where the family yielded. After an ``EngineError`` the sequence holds what it held before;
    after ``Cancelled`` it may hold some of the tokens (``num_tokens`` says how many).
    """

    sequence: int
    tokens: Sequence[int]
    all_logits: bool = False


SavedSequence = bytes | bytearray | memoryview
"""A sequence outside its context; means something to the backend that made it only."""


class TokenModel(Protocol):
    """A model that maps token ids to logits, with sequences as sessions.

    Synchronous; owned by one thread, the only one to call, but for ``tokenize`` and ``cancel``.
    Sequences are small ints.
    """

    @property
    def num_vocab(self) -> int: ...
    @property
    def context_window(self) -> int: ...
    @property
    def eos_tokens(self) -> frozenset[int]: ...
    @property
    def metadata(self) -> dict[str, str]:
        """The model file's string metadata (GGUF keys), e.g. ``tokenizer.chat_template``."""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of ``text``; ``special`` lets control tokens in the text be recognised.

        Any thread may call, also while the owner evaluates, until ``shutdown``.
        """

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, control tokens included; not always whole UTF-8 characters."""

    def open(self) -> int:
        """A new empty sequence. ``EngineError`` (``server_is_overloaded``) when none is free."""

    def fork(self, sequence: int, num_tokens: int) -> int:
        """A new sequence that shares the first ``num_tokens`` tokens."""

    def truncate(self, sequence: int, num_tokens: int) -> None:
        """Forget all but the first ``num_tokens`` tokens."""

    def close(self, sequence: int) -> None:
        """Give the sequence back."""

    def num_tokens(self, sequence: int) -> int:
        """Tokens held by the sequence."""

    def evaluate(
        self, sequence: int, tokens: Sequence[int], *, all_logits: bool = False
    ) -> "NDArray[np.float32]":
        """Append tokens; logits of shape (vocab,) after the last, or (len(tokens), vocab).

        Raises ``Cancelled`` when ``cancel`` was set meanwhile (what was evaluated stays), and
        ``EngineError`` with code ``context_length_exceeded`` when the context is full.
        """

    def cancel(self) -> None:
        """The running ``evaluate``, or else the next one, raises ``Cancelled`` soon.

        Any thread may call. One call stops one ``evaluate``.
        """

    def shutdown(self) -> None:
        """Release the model."""


class TokenBackend(TokenModel, Protocol):
    """A model that serves several sessions at a time."""

    @property
    def bytes_per_token(self) -> int:
        """Memory that one token of a sequence takes in the context."""

    def evaluate_many(self, parts: Sequence[Evaluate]) -> "list[NDArray[np.float32] | EngineError]":
        """Append tokens to several sequences in as few steps as possible; an answer per part.

        An answer is what ``evaluate`` would have returned, or the ``EngineError`` that it would
        have raised: a part that does not fit leaves its sequence as it was, and the others go on;
        earlier parts get room first. A sequence may occur once. Raises ``Cancelled`` as
        ``evaluate`` does: then every sequence is as it was.
        """

    def save(self, sequence: int) -> SavedSequence:
        """A copy of the sequence for ``restore``; the sequence stays as it is."""

    def restore(self, data: SavedSequence) -> int:
        """A new sequence that holds what the saved one held; exactly, without evaluating it.

        ``data`` is what ``save`` of this very backend returned. ``EngineError`` when there is no
        room: ``server_is_overloaded`` without a sequence, ``context_length_exceeded`` without cells.
        """

    def step_costs(self) -> dict[int, float]:
        """c(k): how long evaluating k tokens with all logits takes, in steps of one token.

        For k of 1, 2, 4, 8, 16, as far as they were measured in bounded time. The first call
        measures (``step_costs.measure``), later ones remember. ``EngineError`` without room.
        """


@dataclass(slots=True)
class Job:
    """One generation as a family sees it, on the backend's thread.

    ``emit`` hands deltas on (cheap; it batches). The family keeps ``usage`` figures and
    the timing marks up to date through the two counters and ``mark_prefilled``.
    """

    request: GenerationRequest
    emit: Callable[[Delta], None]
    is_cancelled: Callable[[], bool]
    mark_prefilled: Callable[[], None]
    count_prefill: Callable[[int, int], None]  # (tokens evaluated, tokens reused)
    count_input: Callable[
        [int, int], None
    ]  # (tokens, those of the parent) where no network read them
    count_decode: Callable[[int, int], None]  # (network steps, ns inside them)
    count_output: Callable[[int], None]  # output tokens of usage
    count_reasoning: Callable[[int], None]  # those of them that were reasoning
    count_drafts: Callable[[int, int], None]  # (drafts checked, those that came true)
    count_prediction: Callable[[int, int], None]  # those of them from the request's prediction
    report_stop: Callable[[str], None]  # the stop string that ended the text


class ModelFamily(Protocol):
    """A model family's prompt layout, way of decoding and tool-call syntax."""

    name: str

    def generate(self, job: Job) -> Generator[Evaluate | None, Any, FinishReason]:
        """Make one response, yielding between steps so that sessions can take turns.

        Yields ``Evaluate`` for what other jobs may share a step with, and None where it merely lets
        others on; it may also evaluate by itself, one token or at most 512 tokens of prefill a
        step. Emits every delta but ``Finished``. The generator's end is the response's end; its
        return value says why.
        """

    def count_input(self, request: GenerationRequest) -> Generator[None, None, int]:
        """Tokens of the prompt that ``request`` renders to; evaluates nothing. Yields as above."""


class EngineError(Exception):
    """An engine cannot do what was asked; the text says what to do about it."""

    def __init__(self, message: str, *, code: str = "server_error") -> None:
        super().__init__(message)
        self.code = code


class Cancelled(Exception):
    """Evaluation stopped early on request."""

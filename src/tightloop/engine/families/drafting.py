"""Gives each answer of a model its drafts: from the client's prediction, files shown, the prompt."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tightloop.engine.drafts.aligned import GAP, AlignedCursor
from tightloop.engine.drafts.drafter import Drafter, Kind, Speculation
from tightloop.engine.drafts.lookup import PromptLookup
from tightloop.engine.drafts.ngram_index import NgramIndex
from tightloop.engine.drafts.references import edited_texts, patch_context, pieces, quoted
from tightloop.engine.drafts.source import DraftSource
from tightloop.engine.families.warm_sequence import WarmSequence
from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.sequence_pool import SequencePool

INDEXED_TOKENS = 1024
"""Of a prompt at a time: under half a millisecond."""


class Drafting:
    """Makes a ``Drafter`` for each answer, where drafts can pay at all.

    ``costs`` stands in for what the backend measures about itself (``TokenBackend.step_costs``), and
    is not corrected by what steps really take.
    """

    def __init__(
        self, pool: SequencePool, *, is_on: bool = True, costs: Mapping[int, float] | None = None
    ) -> None:
        self._pool = pool
        known = _costs(pool, costs) if is_on else {}
        self._speculation = Speculation(known, learns=costs is None)

    def stop(self) -> None:
        """No answer gets drafts any more: the model cannot forget rejected ones."""
        self._speculation = Speculation({})

    def drafter(self, request: GenerationRequest, warm: WarmSequence) -> Drafter | None:
        """The drafts of one answer to what ``warm`` holds; None where they cannot pay."""
        if not self._speculation.begin():
            return None
        history = NgramIndex() if warm.history is None else warm.history
        history.truncate(len(warm.tokens))
        warm.history = history
        lookup = PromptLookup(history, warm.tokens)
        files = AlignedCursor()
        sources: list[tuple[Kind, DraftSource]] = [(Kind.FILE, files), (Kind.HISTORY, lookup)]
        prediction: AlignedCursor | None = None
        if request.prediction:
            prediction = AlignedCursor(is_at_start=True)
            sources.insert(0, (Kind.PREDICTION, prediction))
        chores = self._chores(request, prediction, files, lookup)
        next(chores, None)  # a prediction counts from the first token on
        return Drafter(self._speculation, sources, chores)

    def _chores(
        self,
        request: GenerationRequest,
        prediction: AlignedCursor | None,
        files: AlignedCursor,
        lookup: PromptLookup,
    ) -> Iterator[None]:
        tokenize = partial(self._pool.tokenize, special=False)
        if prediction is not None and request.prediction is not None:
            yield from _read(prediction, request.prediction, (str, quoted), tokenize)
        while not lookup.is_ready:
            lookup.index_more(INDEXED_TOKENS)
            yield
        for text in edited_texts(request.items, request.parent):
            yield from _read(files, text, (_quoted_context, quoted), tokenize)


def _quoted_context(text: str) -> str:
    return quoted(patch_context(text))


def _read(
    cursor: AlignedCursor,
    text: str,
    spellings: tuple[Callable[[str], str], ...],
    tokenize: Callable[[str], list[int]],
) -> Iterator[None]:
    for spell in spellings:
        for piece in pieces(text):
            cursor.extend(tokenize(spell(piece)))
            yield
        cursor.extend((GAP,))


def _costs(pool: SequencePool, given: Mapping[int, float] | None) -> Mapping[int, float]:
    if given is not None:
        return given
    try:
        return pool.backend.step_costs()
    except EngineError:  # no room to measure, or no way to forget what was evaluated
        return {}

"""Makes a context fit a number of tokens by leaving out its oldest items (``truncation: auto``)."""

from collections.abc import Sequence
from dataclasses import replace

from tightloop.engine.interface import Engine, GenerationRequest
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
)
from tightloop.server.prepared import Prepare

DEFAULT_ROOM_TOKENS = 512
"""Left for the answer when no limit for it was given."""

CUT_MARK = "\n[...]\n"


def is_ground(item: Item) -> bool:
    """Whether the item says how to work rather than what happened: it is never left out."""
    if isinstance(item, Message):
        return item.role in ("system", "developer")
    return isinstance(item, OpaqueItem) and item.type == "additional_tools"


def without_oldest(items: Sequence[Item], number: int) -> list[Item]:
    """The items without the ``number`` oldest ones that may go, nor outputs of calls that went."""
    kept: list[Item] = []
    gone: set[str] = set()
    wanted = _answered_last(items)
    for item in items:
        is_wanted = isinstance(item, FunctionCall | CustomToolCall) and item.call_id in wanted
        if is_ground(item) or is_wanted:
            kept.append(item)
        elif number > 0:
            number -= 1
            if isinstance(item, FunctionCall | CustomToolCall):
                gone.add(item.call_id)
        elif not (
            isinstance(item, FunctionCallOutput | CustomToolCallOutput) and item.call_id in gone
        ):
            kept.append(item)
    return kept


async def fitted(
    engine: Engine, request: GenerationRequest, limit: int, *, num_last: int = 1
) -> GenerationRequest:
    """``request`` itself if it has at most ``limit`` input tokens, else one without a parent
    that has the newest items that fit. The last ``num_last`` items always stay, whether they
    fit or not. Raises ``EngineError``.
    """
    if await engine.count_input(request) <= limit:
        return request
    items = request.context()
    fits, fails = sum(not is_ground(item) for item in items[:-num_last]), 0
    while fits - fails > 1:  # leaving out ``fits`` of them is enough, or all that can be done
        middle = (fits + fails) // 2
        if await engine.count_input(_with(request, without_oldest(items, middle))) <= limit:
            fits = middle
        else:
            fails = middle
    return _with(request, without_oldest(items, fits))


def _answered_last(items: Sequence[Item]) -> set[str]:
    """The calls whose outputs end the context: what the model is to read next."""
    found: set[str] = set()
    for item in reversed(items):
        if not isinstance(item, FunctionCallOutput | CustomToolCallOutput):
            break
        found.add(item.call_id)
    return found


def context_window(engine: Engine, model: str) -> int | None:
    """Tokens that the model can hold, None when the engine cannot tell."""
    windows = (info.context_window for info in engine.models() if info.name == model)
    return next(windows, 0) or None


def input_limit(window: int, wanted: int | None) -> int:
    """Input tokens that leave room for an answer of ``wanted`` tokens, or of a usual one.

    Clients ask for more than a small model can ever say: the input has at least half the window.
    """
    return window - min(wanted or DEFAULT_ROOM_TOKENS, window // 2)


def fitting(engine: Engine, limit: int) -> Prepare:
    """Makes each request fit ``limit`` tokens."""

    async def prepare(request: GenerationRequest) -> GenerationRequest:
        return await fitted(engine, request, limit)

    return prepare


def cut_in_middle(text: str, num_chars: int) -> str:
    """``text``, or its beginning and end with a mark between them, ``num_chars`` at most."""
    if len(text) <= num_chars:
        return text
    half = max(0, (num_chars - len(CUT_MARK)) // 2)
    return text[:half] + CUT_MARK + text[len(text) - half :]


def _with(request: GenerationRequest, items: Sequence[Item]) -> GenerationRequest:
    return replace(request, parent=None, items=tuple(items))

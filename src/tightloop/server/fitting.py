"""Makes a context fit a number of tokens by leaving out its oldest items (``truncation: auto``)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import msgspec

from tightloop.engine.interface import Engine, GenerationRequest
from tightloop.protocol.items import (
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OpaqueItem,
    Reasoning,
    TextPart,
)
from tightloop.server.prepared import Prepare

DEFAULT_ROOM_TOKENS = 512
"""Left for the answer when no limit for it was given."""

ITEM_TOKENS = 64
"""More than a template writes around any item."""

UNKNOWN_BYTES = 1 << 40
"""No bound."""

CUT_MARK = "\n[...]\n"


@dataclass(slots=True)
class Length:
    """What a prompt's tokens cannot be more than; None when that is not known (yet)."""

    at_most: int | None = None

    async def is_above(self, limit: int, engine: Engine, request: GenerationRequest) -> bool:
        """Whether ``request`` has more tokens than that. They are counted only if it may.

        Counting reads all that is new, and where nothing is warm the whole. Raises ``EngineError``.
        """
        if self.at_most is None or self.at_most > limit:
            self.at_most = await engine.count_input(request)
        return self.at_most > limit


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
    engine: Engine,
    request: GenerationRequest,
    limit: int,
    *,
    num_last: int = 1,
    length: Length | None = None,
) -> GenerationRequest:
    """``request`` itself if it has at most ``limit`` input tokens, else one without a parent
    that has the newest items that fit. The last ``num_last`` items always stay, whether they
    fit or not. ``length`` is what is known of its tokens. Raises ``EngineError``.
    """
    if not await (length or Length()).is_above(limit, engine, request):
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


def most_tokens(items: Sequence[Item]) -> int:
    """What the items cannot be more tokens than: each holds at least one byte of text.

    What a template writes around an item is allowed for, and a call's arguments written as JSON anew.
    """
    return sum(ITEM_TOKENS + _most_bytes(item) for item in items)


def setup_of(request: GenerationRequest) -> bytes | None:
    """What else than items a prompt is made from, as a digest: the same one, the same tokens.

    None where that cannot be told.
    """
    fields = (
        request.model,
        request.instructions,
        request.tools,
        request.tool_choice,
        request.parallel_tool_calls,
        request.output_format,
        request.reasoning_effort,
    )
    try:
        return blake2b(msgspec.json.encode(fields), digest_size=16).digest()
    except (RecursionError, ValueError):  # schemas nested too deep, lone surrogates
        return None


def _most_bytes(item: Item) -> int:
    if isinstance(item, Message):
        texts = [part.text for part in item.content if isinstance(part, TextPart)]
        if len(texts) < len(item.content):  # an image has tokens that are not in its bytes
            return UNKNOWN_BYTES
    elif isinstance(item, FunctionCallOutput | CustomToolCallOutput):
        texts = [item.call_id, item.output]
        if item.parts:
            return UNKNOWN_BYTES
    elif isinstance(item, FunctionCall):
        texts = [item.call_id, item.name, item.arguments, item.arguments]
    elif isinstance(item, CustomToolCall):
        texts = [item.call_id, item.name, item.input, item.input]
    elif isinstance(item, Reasoning):
        texts = [*item.content, *item.summary, item.encrypted_content or ""]
    else:  # a summary, or something that engines read in their own way
        return UNKNOWN_BYTES
    return sum(len(text) if text.isascii() else len(text.encode()) for text in texts)


def context_window(engine: Engine, model: str) -> int | None:
    """Tokens that the model can hold, None when the engine cannot tell."""
    windows = (info.context_window for info in engine.models() if info.name == model)
    return next(windows, 0) or None


def input_limit(window: int, wanted: int | None) -> int:
    """Input tokens that leave room for an answer of ``wanted`` tokens, or of a usual one.

    Clients ask for more than a small model can ever say: the input has at least half the window.
    """
    return window - min(wanted or DEFAULT_ROOM_TOKENS, window // 2)


def fitting(engine: Engine, limit: int, length: Length | None = None) -> Prepare:
    """Makes each request fit ``limit`` tokens; ``length`` as in ``fitted``."""

    async def prepare(request: GenerationRequest) -> GenerationRequest:
        return await fitted(engine, request, limit, length=length)

    return prepare


def cut_in_middle(text: str, num_chars: int) -> str:
    """``text``, or its beginning and end with a mark between them, ``num_chars`` at most."""
    if len(text) <= num_chars:
        return text
    half = max(0, (num_chars - len(CUT_MARK)) // 2)
    return text[:half] + CUT_MARK + text[len(text) - half :]


def _with(request: GenerationRequest, items: Sequence[Item]) -> GenerationRequest:
    return replace(request, parent=None, items=tuple(items))

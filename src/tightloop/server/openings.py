"""What a turn starts from: its parent, its conversation, its items without references.

The plain case (a parent in memory, or none) needs none of this and no task: see ``needs_opening``.
"""

import asyncio
from dataclasses import dataclass

import msgspec

from tightloop.protocol.requests import ResponseRequest
from tightloop.server.backstage import Backstage
from tightloop.server.conversation_book import Hold
from tightloop.server.conversations import Record, not_found
from tightloop.server.item_references import has_references, resolve_references


@dataclass(frozen=True, slots=True)
class Opening:
    """Ready for ``Turn.begin``, which releases the ``hold`` when the turn is over or refused.

    Whoever does not begin the turn after all must release it.
    """

    request: ResponseRequest
    parent: Record | None
    hold: Hold | None = None


def needs_opening(request: ResponseRequest) -> bool:
    """Whether more than a known parent is needed."""
    return request.conversation is not None or has_references(request.input)


async def open_turn(
    backstage: Backstage, request: ResponseRequest, parent: Record | None = None
) -> Opening:
    """Look up what the request names. ``parent`` is the one it names, where that is known.

    Raises ``StoreError``, or ``ApiError``: an unknown parent, conversation or item, a conversation
    that is held (409).
    """
    if request.conversation is not None:
        return await _in_conversation(backstage, request, request.conversation)
    return await look_up(backstage, request, parent)


async def look_up(
    backstage: Backstage, request: ResponseRequest, parent: Record | None = None
) -> Opening:
    """As ``open_turn``, for those who only read: a conversation is not held."""
    if request.conversation is not None:
        parent = (await backstage.book.get(request.conversation)).head
    elif parent is None and request.previous_response_id is not None:
        parent = await backstage.conversations.load(request.previous_response_id)
        if parent is None:
            raise not_found(request.previous_response_id)
    return Opening(await _resolved(backstage, request, parent), parent)


async def _in_conversation(
    backstage: Backstage, request: ResponseRequest, conversation_id: str
) -> Opening:
    await _end_orphan(backstage, conversation_id)
    hold = await backstage.book.hold(conversation_id)
    try:
        echo = {**request.echo, "conversation": {"id": conversation_id}}
        request = msgspec.structs.replace(request, echo=echo)
        return Opening(await _resolved(backstage, request, hold.head), hold.head, hold)
    except BaseException:
        hold.release()
        raise


async def _end_orphan(backstage: Backstage, conversation_id: str) -> None:
    """Wait for the end of a response in the conversation whose client has gone.

    It has moved on: it would be refused by its own abandoned response.
    """
    for orphan in list(backstage.orphans):
        if orphan.request.conversation == conversation_id:
            over = asyncio.Event()
            orphan.journal.when_over(over.set)
            orphan.cancel()
            await over.wait()


async def _resolved(
    backstage: Backstage, request: ResponseRequest, parent: Record | None
) -> ResponseRequest:
    if not has_references(request.input):
        return request
    items = await resolve_references(backstage.conversations, request.input, parent)
    return msgspec.structs.replace(request, input=items)

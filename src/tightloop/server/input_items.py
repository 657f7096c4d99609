"""``GET /v1/responses/{id}/input_items``: what a response was asked with.

The list holds the new input of this response; what came before it is listed with its parents.
"""

from aiohttp import web

from tightloop.server.conversations import Conversations, no_response
from tightloop.server.item_lists import decode_query, listed


class InputItemsApi:
    """The handler of one route. Raises ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def list(self, request: web.Request) -> web.Response:
        """``GET /v1/responses/{id}/input_items``: one page of what a stored response was asked with.

        That is its new input; what came before it is listed with its parents. ``limit``, ``order``
        and ``after`` as for the items of a conversation.
        """
        query = decode_query(request.query)
        response_id = request.match_info["id"]
        record = await self._conversations.single(response_id)
        if record is None:
            raise no_response(response_id)
        entries = listed(record.node, 0, record.num_input)
        page = query.page(entries if query.is_ascending else reversed(entries))
        return web.Response(body=page, content_type="application/json")

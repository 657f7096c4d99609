"""The Anthropic Messages API: the same turns as everywhere, in another dialect.

Clients of it (Claude Code) send their whole history with every request; which turn it goes on from is
found by what it begins with (``known_histories``).
"""

from functools import partial

import orjson
from aiohttp import web

from tightloop.client.reads import use_small_reads
from tightloop.engine.interface import EngineError
from tightloop.protocol import sse
from tightloop.protocol.item_chain import in_blocks, without_reasoning
from tightloop.protocol.messages_inbound import MessagesDecoder
from tightloop.protocol.messages_stream import MessagesStream
from tightloop.server.access import client_of
from tightloop.server.answer import answer, failure, json_response
from tightloop.server.bodies import read_body
from tightloop.server.dialect import Dialect
from tightloop.server.endpoint import Endpoint
from tightloop.server.generating import check_request, generation_request
from tightloop.server.standing import standing

PATH = "/v1/messages"
SESSION_HEADER = "X-Claude-Code-Session-Id"

PLAIN = Dialect(MessagesStream, sse.frame, resent=in_blocks)
WITH_THINKING = Dialect(
    partial(MessagesStream, shows_thinking=True), sse.frame, resent=without_reasoning
)


class MessagesApi:
    """Handlers of one server's routes. They raise ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._decoder = MessagesDecoder()

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages``: the Anthropic Messages API, as a stream or whole.

        The client sends its whole conversation; the engine finds the part that it has computed
        before. What stands after the ``?`` only names beta features.
        """
        use_small_reads(request.transport)
        body = await read_body(request)
        receive_ns = self._endpoint.backstage.now_ns()
        session = request.headers.get(SESSION_HEADER)
        decoded = self._decoder.decode(body, session=session, scope=client_of(request.headers))
        dialect = WITH_THINKING if decoded.shows_thinking else PLAIN
        return await answer(request, self._endpoint, decoded.asked, None, dialect, receive_ns)

    async def count_tokens(self, request: web.Request) -> web.Response:
        """``POST /v1/messages/count_tokens``: the input tokens that such a request would have."""
        client = client_of(request.headers)
        asked = self._decoder.decode(await request.read(), is_count=True, scope=client).asked
        engine = self._endpoint.engine
        backstage = self._endpoint.backstage
        place = standing(backstage.histories, asked, None, client)
        check_request(engine, asked, place.above, place.first)
        try:
            num_tokens = await engine.count_input(
                generation_request("", asked, place.above, place.first)
            )
        except EngineError as error:
            raise failure(error.code, str(error)) from error
        return json_response(orjson.dumps({"input_tokens": num_tokens}))

"""``POST /v1/chat/completions``: the turn of every dialect, told in chunks."""

from aiohttp import web

from tightloop.client.reads import use_small_reads
from tightloop.protocol import sse
from tightloop.protocol.chat_inbound import ChatDecoder
from tightloop.protocol.chat_stream import chat_streams, failure_message
from tightloop.protocol.errors import ApiError
from tightloop.protocol.item_chain import in_one_message
from tightloop.server.access import client_of
from tightloop.server.answer import answer
from tightloop.server.bodies import read_body
from tightloop.server.dialect import Dialect
from tightloop.server.endpoint import Endpoint


def _frame(chunk: bytes) -> bytes:
    return b"data: %b\n\n" % chunk


WITH_USAGE = Dialect(chat_streams(include_usage=True), _frame, sse.DONE, resent=in_one_message)
WITHOUT_USAGE = Dialect(chat_streams(include_usage=False), _frame, sse.DONE, resent=in_one_message)


class ChatApi:
    """Handlers of one server. They raise ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._decoder = ChatDecoder()

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``: a chat completion, as chunks or whole.

        The client sends its whole conversation; the engine finds the part that it has computed
        before. A client that hangs up stops its answer, which has no id to come back with.
        """
        use_small_reads(request.transport)
        body = await read_body(request)
        receive_ns = self._endpoint.backstage.now_ns()
        asked = self._decoder.decode(body, client_of(request.headers))
        dialect = WITH_USAGE if asked.include_usage else WITHOUT_USAGE
        try:
            return await answer(request, self._endpoint, asked.request, None, dialect, receive_ns)
        except ApiError as error:
            error.message = failure_message(error.code or "", error.message)
            raise

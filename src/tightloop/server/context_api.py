"""Endpoints about a context rather than a response: how long it is, and how to make it short."""

from secrets import token_hex
from typing import Any

import msgspec
import orjson
from aiohttp import web

from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.protocol.compaction import Summary, seal
from tightloop.protocol.items import Item, Message, encode_item
from tightloop.protocol.requests import decode_request
from tightloop.protocol.response import encode_usage
from tightloop.server.answer import failure, json_response
from tightloop.server.compacting import Compactor, worth_keeping
from tightloop.server.conversations import context_tools
from tightloop.server.endpoint import Endpoint
from tightloop.server.fitting import context_window
from tightloop.server.generating import check_request, generation_request
from tightloop.server.openings import look_up
from tightloop.trace import clock


class ContextApi:
    """Handlers of one server's routes. They raise ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def input_tokens(self, request: web.Request) -> web.Response:
        """How many input tokens a create with this body would have; nothing is generated."""
        asked = await self._asked(await request.read(), f"resp_{token_hex(16)}")
        try:
            number = await self._endpoint.engine.count_input(asked)
        except EngineError as error:
            raise failure(error.code, str(error)) from error
        counted = {"object": "response.input_tokens", "input_tokens": number}
        return json_response(orjson.dumps(counted))

    async def compact(self, request: web.Request) -> web.Response:
        """A conversation as the messages worth keeping and one ``compaction`` item.

        ``output`` is the input of a new chain, to be passed on as it is. The summary is made by the
        model asked for and counted like any other response.
        """
        response_id = f"resp_{token_hex(16)}"
        asked = await self._asked(await request.read(), response_id)
        engine = self._endpoint.engine
        try:
            summary = await Compactor(engine, lambda _: None).summarized(asked)
        except EngineError as error:
            raise failure(error.code, str(error)) from error
        if not summary.is_usable:
            code = summary.finished.error_code or "compaction_failed"
            text = summary.finished.error_message or "the model gave no summary"
            raise failure(code, text)
        kept = worth_keeping(asked.context(), context_window(engine, asked.model))
        output = [_complete(item, response_id, n) for n, item in enumerate(kept)]
        sealed = seal(Summary(summary.text))
        item_id = f"cmp_{response_id[5:21]}"
        output.append({"type": "compaction", "id": item_id, "encrypted_content": sealed})
        compacted = {
            "id": response_id,
            "object": "response.compaction",
            "created_at": clock.unix_s(),
            "output": output,
            "usage": encode_usage(summary.finished.usage),
        }
        return json_response(msgspec.json.encode(compacted))

    async def _asked(self, body: bytes, response_id: str) -> GenerationRequest:
        opening = await look_up(self._endpoint.backstage, decode_request(body))
        asked, parent = opening.request, opening.parent
        above = parent.engine_node if parent is not None else None
        check_request(self._endpoint.engine, asked, above)
        tools = asked.tools + context_tools(parent, asked.input)
        asked = msgspec.structs.replace(asked, tools=tools)
        return generation_request(response_id, asked, above)


def _complete(item: Item, response_id: str, number: int) -> dict[str, Any]:
    """The item with the id and status that strict clients want of every message."""
    fields = encode_item(item)
    if isinstance(item, Message):
        fields.setdefault("id", f"msg_{response_id[5:21]}{number:02x}")
        fields["status"] = "completed"
    return fields

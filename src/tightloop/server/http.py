"""The HTTP endpoints of the Responses API: create, retrieve, resume, cancel, delete."""

import asyncio
from contextlib import suppress

import orjson
from aiohttp import web

from tightloop.client.reads import use_small_reads
from tightloop.protocol.errors import ApiError
from tightloop.protocol.requests import RequestDecoder
from tightloop.protocol.response_stream import Cancellation
from tightloop.server.access import client_of
from tightloop.server.answer import EventStream, answer, json_response
from tightloop.server.backstage import Phase
from tightloop.server.bodies import read_body
from tightloop.server.conversations import no_response
from tightloop.server.dialect import RESPONSES
from tightloop.server.endpoint import Endpoint
from tightloop.server.openings import open_turn
from tightloop.server.streams import Journal
from tightloop.server.websocket import Sockets

CANCEL_WAIT_S = 10.0


class HttpApi:
    """Handlers of one server's routes. They raise ``ApiError``; ``app`` words it for the wire."""

    def __init__(self, endpoint: Endpoint, sockets: Sockets) -> None:
        self._endpoint = endpoint
        self._sockets = sockets
        self._decoder = RequestDecoder(resends=True)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``: make one response.

        With ``stream: true`` its events as server-sent events, which another connection can go on
        reading by the response's id; else one JSON object when it has ended, at once with
        ``background: true``. With ``store: true``, the default, it can be fetched and continued
        later.
        """
        use_small_reads(request.transport)
        body = await read_body(request)
        receive_ns = self._endpoint.backstage.now_ns()
        asked = self._decoder.decode(body, client_of(request.headers))
        if asked.background and not asked.store:
            raise ApiError(
                "background needs store: true, because its result is fetched later",
                code="invalid_value",
                param="background",
            )
        opening = await open_turn(self._endpoint.backstage, asked)
        return await answer(
            request,
            self._endpoint,
            opening.request,
            opening.parent,
            RESPONSES,
            receive_ns,
            opening.hold,
        )

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/responses``: WebSocket mode, with ``Upgrade: websocket``; 400 without.

        One connection carries many responses: creates of one lane in turn, lanes beside each other.
        It remembers the latest response of each lane, stored or not, so a turn sends only what is
        new.
        """
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise ApiError(
                "GET /v1/responses is the WebSocket mode and needs an upgrade; use POST for HTTP",
                code="websocket_upgrade_required",
            )
        return await self._sockets.serve(request)

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/responses/{id}``: the Response object as it is now.

        With ``?stream=true`` its events instead, those after number ``starting_after`` if that is
        given: what was missed, then what is still to come, byte for byte as on the first connection.
        """
        response_id = request.match_info["id"]
        if request.query.get("stream", "").lower() == "true":
            return await self._resume(request, response_id)
        turn = self._endpoint.backstage.running.get(response_id)
        if turn is not None and turn.request.store:
            if turn.phase is Phase.COMMITTING:  # how it ends is not decided yet
                await _over(turn.journal)
            return json_response(turn.snapshot())
        body = await self._endpoint.conversations.body(response_id)
        if body is None:
            raise no_response(response_id)
        return json_response(body)

    async def cancel(self, request: web.Request) -> web.Response:
        """``POST /v1/responses/{id}/cancel``: end a running response; an ended one stays as it is.

        The answer is the Response object once it has ended, or as it is after ten seconds if the
        engine has not let go of it by then.
        """
        response_id = request.match_info["id"]
        turn = self._endpoint.backstage.running.get(response_id)
        if turn is not None:
            turn.cancel(Cancellation.CANCELLED)
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_WAIT_S):
                    await _over(turn.journal)
            return json_response(turn.snapshot())
        body = await self._endpoint.conversations.body(response_id)
        if body is None:
            raise no_response(response_id)
        return json_response(body)

    async def delete(self, request: web.Request) -> web.Response:
        """``DELETE /v1/responses/{id}``: it can no longer be fetched, resumed or continued.

        One that is still running is stopped first.
        """
        response_id = request.match_info["id"]
        turn = self._endpoint.backstage.running.get(response_id)
        if turn is not None and turn.request.store:
            turn.cancel(Cancellation.CANCELLED)
            await _over(turn.journal)
        if not await self._endpoint.conversations.delete(response_id):
            raise no_response(response_id)
        self._endpoint.backstage.streams.forget(response_id)
        self._endpoint.backstage.histories.forget(response_id)
        deleted = {"id": response_id, "object": "response.deleted", "deleted": True}
        return json_response(orjson.dumps(deleted))

    async def health(self, _request: web.Request) -> web.Response:
        """``GET /health``: the server answers, so its model is loaded."""
        return json_response(b'{"status":"ok"}')

    async def _resume(self, request: web.Request, response_id: str) -> web.StreamResponse:
        after = _starting_after(request)
        backstage = self._endpoint.backstage
        journal = backstage.streams.get(response_id) or await self._stored(response_id)
        if not journal.is_over and after >= journal.num_events:
            raise _no_event(f"the stream has {journal.num_events} events so far", after)
        events = EventStream(request, RESPONSES)
        turn = backstage.running.get(response_id)
        if turn is None:
            journal.read(events.write, after)
        else:
            turn.resume(events.write, after)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle() -> None:
            if not over.done():
                over.set_result(None)

        journal.when_over(settle)
        try:
            return await events.send(over)
        finally:
            journal.not_when_over(settle)
            journal.leave(events.write)

    async def _stored(self, response_id: str) -> Journal:
        """The journal of a response that only the store still knows."""
        kept = await self._endpoint.conversations.events(response_id)
        if kept is None:
            if await self._endpoint.conversations.body(response_id) is None:
                raise no_response(response_id)
            raise ApiError(
                f"the stream of {response_id} is no longer kept; fetch it without stream=true",
                status=404,
                code="stream_not_available",
                param="stream",
            )
        journal = Journal(response_id)
        journal.append(kept)
        journal.end()
        return journal


async def _over(journal: Journal) -> None:
    """Return when the response has ended."""
    over = asyncio.Event()
    journal.when_over(over.set)
    try:
        await over.wait()
    finally:
        journal.not_when_over(over.set)


def _starting_after(request: web.Request) -> int:
    given = request.query.get("starting_after")
    if given is None:
        return -1
    if not given.isascii() or not given.isdigit():
        raise _no_event("it is the sequence_number of an event", given)
    return int(given[:18])


def _no_event(reason: str, given: object) -> ApiError:
    return ApiError(
        f"starting_after must name an event: {reason}, got {str(given)[:100]!r}",
        code="invalid_value",
        param="starting_after",
    )

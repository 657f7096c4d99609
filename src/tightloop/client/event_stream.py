"""The events in the answer to one HTTP request, as they come."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

import aiohttp
import orjson

from tightloop.client.http_pool import check_status
from tightloop.client.reads import use_small_reads
from tightloop.client.reasons import reason_of
from tightloop.client.transport import Event, TransportError
from tightloop.protocol.accumulator import TERMINAL_TYPES
from tightloop.protocol.errors import ApiError, RemoteProtocolError, api_error_from_wire
from tightloop.protocol.sse import DONE_DATA, SseDecoder

Ask = Callable[[], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Sends the request."""


def _ignore(_answer: aiohttp.ClientResponse) -> None:
    """Nobody wants the answer's headers."""


async def read_events(
    ask: Ask, url: str, on_answer: Callable[[aiohttp.ClientResponse], None] = _ignore
) -> AsyncGenerator[Event, None]:
    """The events of one response, the terminal one last. ``url`` is for messages.

    Raises ``ApiError`` for a refusal, ``TransportError`` when the stream breaks before its end.
    """
    decoder = SseDecoder()
    refusal: ApiError | None = None
    is_over = False
    try:
        async with ask() as answer:
            on_answer(answer)
            await check_status(answer)
            if answer.connection is not None:
                use_small_reads(answer.connection.transport)
            async for chunk in answer.content.iter_any():
                for frame in decoder.feed(chunk):
                    if frame.data == DONE_DATA or is_over:
                        continue  # read on to the end: only then is the connection reusable
                    event: Event = orjson.loads(frame.data)
                    kind = event.get("type")
                    if kind == "error":
                        refusal = api_error_from_wire(event, status=500)
                        continue
                    is_over = kind in TERMINAL_TYPES
                    yield event
    except (aiohttp.ClientError, OSError, ValueError, AttributeError) as error:
        if not is_over:
            raise TransportError(f"the stream from {url} broke: {reason_of(error)}") from error
    except RemoteProtocolError as error:
        raise TransportError(f"{url} sent no event stream: {error}") from error
    if refusal is not None and not is_over:
        raise refusal
    if not is_over:
        raise TransportError(f"{url} ended the stream before the response was over")

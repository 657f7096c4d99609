"""An endpoint that is not ours: one connection per request, each answer chosen by a function."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tests.client.canned import http

Choose = Callable[[str, dict[str, Any]], bytes]
"""From the request line (``POST /v1/responses``) and the body to a whole HTTP answer."""

SSE = "Content-Type: text/event-stream"
JSON = "Content-Type: application/json"


@asynccontextmanager
async def endpoint(choose: Choose) -> AsyncIterator[str]:
    """The URL of the API."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b"{}"
        writer.write(choose(head.split(" HTTP/")[0], orjson.loads(body)))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def sse(*events: dict[str, Any], tail: bytes = b"") -> bytes:
    """An event stream."""
    body = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
    return http("200 OK", body + tail, SSE)


def response(text: str = "ok", number: int = 1) -> bytes:
    """The least of a Responses answer with one delta and usage."""
    done = {
        "type": "message", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }  # fmt: skip
    usage = {
        "input_tokens": 100,
        "output_tokens": 3,
        "input_tokens_details": {"cached_tokens": 90},
    }
    ended = {"id": f"resp_{number}", "status": "completed", "output": [done], "usage": usage}
    return sse(
        {"type": "response.output_item.added", "output_index": 0, "item": {**done, "content": []}},
        {"type": "response.output_text.delta", "output_index": 0, "delta": text},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": ended},
    )


def refusal(status: str, code: str, message: str = "no") -> bytes:
    """An error in the API's shape."""
    return http(status, orjson.dumps({"error": {"message": message, "code": code}}), JSON)


def models(*names: str) -> bytes:
    """The list of models."""
    return http("200 OK", orjson.dumps({"data": [{"id": name} for name in names]}), JSON)

"""What one client asks a server for, way by way, and what a round trip of each is measured as."""

import random
import ssl
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import aiohttp
from msgspec import Struct

from tightloop.bench.history import TOOLS, history, output
from tightloop.client.http import HttpTransport
from tightloop.client.http_pool import HttpPool
from tightloop.client.transport import Transport
from tightloop.client.websocket import WebSocketTransport
from tightloop.protocol.accumulator import OUTPUT_DELTA_TYPES, Accumulator
from tightloop.protocol.requests import TIMING_KEY
from tightloop.trace import latency
from tightloop.trace.clock import now_ns
from tightloop.trace.latency import RoundTrip

LIBRARY_KEEP_S = 5.0
"""How long the pools of httpx and of the OpenAI SDK keep an idle connection."""

NEW, KEPT, TUNED = "new connection", "kept, defaults", "kept, tuned"
TIGHT, STREAMED = "tight", "tight, streamed"
TIGHT_TUNED = "tight, tuned"


class Sample(Struct, frozen=True, kw_only=True):
    """One measured round trip."""

    way: str
    history: str
    new_bytes: int
    idle_s: float
    number: int
    ttft_s: float
    overhead_s: float | None
    round_trip_s: float
    request_bytes: int


class LibraryPool(HttpPool):
    """Keeps idle connections as long as common client libraries do by default."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """See ``HttpPool.session``."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(keepalive_timeout=LIBRARY_KEEP_S),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session


class LibraryTransport(HttpTransport):
    """HTTP with the pool that client libraries have by default."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._pool = LibraryPool(None, reuse_connection=True)


def transport_of(way: str, url: str) -> Transport:
    """The transport of a way. Raises KeyError for another name."""
    made: dict[str, Transport] = {
        NEW: HttpTransport(url, reuse_connection=False),
        KEPT: LibraryTransport(url),
        TUNED: HttpTransport(url),
        TIGHT: WebSocketTransport(url),
        TIGHT_TUNED: WebSocketTransport(url),
        STREAMED: WebSocketTransport(url),
    }
    return made[way]


def request(items: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    """A request for the measured server's only model."""
    metadata = {TIMING_KEY: "1"}
    fixed = {"model": "scripted", "tools": TOOLS, "store": False, "client_metadata": metadata}
    return {**fixed, "input": list(items), **fields}


def output_text(rng: random.Random, num_bytes: int) -> str:
    """Source text of that size that no earlier turn had."""
    text = "".join(str(item.get("output", "")) for item in history(2 * num_bytes + 8192))
    start = rng.randrange(4096)
    return (f"run {rng.getrandbits(64):016x}\n" + text[start:])[:num_bytes]


async def ask(transport: Transport, asked: dict[str, Any]) -> tuple[RoundTrip, str]:
    """One round trip as the client sees it, and the id of the response."""
    response = Accumulator()
    first_ns: int | None = None
    sent_ns = now_ns()
    async with aclosing(transport.stream(asked)) as events:
        async for event in events:
            kind = event["type"]
            if first_ns is None and (
                kind == "response.output_item.added" or kind in OUTPUT_DELTA_TYPES
            ):
                first_ns = now_ns()
            response.feed(event)
    timing = response.timing or {}
    trip = RoundTrip(
        sent_ns=sent_ns,
        first_output_ns=first_ns,
        last_event_ns=now_ns(),
        queue_s=timing.get("queue_s"),
        engine_first_token_s=timing.get("engine_first_token_s"),
    )
    return trip, response.response_id or ""


def ttft_of(trip: RoundTrip) -> float:
    """TTFT of a trip that must have one."""
    first = latency.ttft_s(trip)
    if first is None:
        raise ValueError("the response had no output")
    return first


def new_item(rng: random.Random, num_bytes: int) -> dict[str, Any]:
    """The tool output that a follow-up turn brings."""
    return output("call_open", output_text(rng, num_bytes))


def tls_version() -> str:
    """The library that does TLS on both sides."""
    return ssl.OPENSSL_VERSION

"""A connection to an endpoint as a test sees it: events sent and received, decoded."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from tightloop.server.endpoint import Endpoint

Event = dict[str, Any]
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


class Wire:
    """Sends client events and collects what comes back, batch by batch."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.batches: list[list[Event]] = []
        self._news = asyncio.Event()
        self.session = endpoint.open(self._receive)

    def create(self, text: str = "hi", **fields: Any) -> None:
        """Send a ``response.create`` for the scripted model."""
        self.send({"type": "response.create", "model": "scripted", "input": text, **fields})

    def send(self, event: object) -> None:
        """Send one event, or bytes as they are."""
        self.session.send(event if isinstance(event, bytes) else orjson.dumps(event))

    @property
    def events(self) -> list[Event]:
        """Everything received so far."""
        return [event for batch in self.batches for event in batch]

    def types(self) -> list[str]:
        """Types of everything received so far."""
        return [event["type"] for event in self.events]

    def ends(self) -> list[Event]:
        """The terminal and error events so far, in order."""
        return [event for event in self.events if event["type"] in TERMINAL]

    async def until(self, condition: Callable[[], object]) -> None:
        """Return when the condition holds; it is looked at after each batch."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def end(self, number: int = 1) -> Event:
        """The ``number``-th terminal or error event."""
        await self.until(lambda: len(self.ends()) >= number)
        return self.ends()[number - 1]

    def _receive(self, frames: Sequence[bytes]) -> None:
        self.batches.append([orjson.loads(frame) for frame in frames])
        self._news.set()


def text_of(event: Event) -> str:
    """The text of all messages of a terminal event."""
    return "".join(
        part["text"]
        for item in event["response"]["output"]
        if item["type"] == "message"
        for part in item["content"]
    )

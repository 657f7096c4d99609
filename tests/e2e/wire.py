"""One client event to a server over a socket that is not ours, and the events that come back."""

from typing import Any

import orjson
from websockets.sync.client import connect
from websockets.sync.connection import Connection

END = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
Event = dict[str, Any]


def open_socket(url: str, **options: Any) -> Connection:
    """A WebSocket of the ``websockets`` library."""
    return connect(url, max_size=None, close_timeout=2, **options)


def create(socket: Connection, text: str = "hi", **fields: Any) -> list[Event]:
    """Send one ``response.create``; its events, the last one terminal."""
    event = {"type": "response.create", "model": "scripted", "input": text, **fields}
    socket.send(orjson.dumps(event).decode())
    return until_end(socket)


def until_end(socket: Connection) -> list[Event]:
    """Events up to the next terminal or error event."""
    events: list[Event] = []
    while not events or events[-1]["type"] not in END:
        events.append(orjson.loads(socket.recv()))
    return events


def text_of(event: Event) -> str:
    """The text in a terminal event's response."""
    return "".join(
        part["text"]
        for item in event["response"]["output"]
        if item["type"] == "message"
        for part in item["content"]
    )

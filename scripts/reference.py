"""The reference of the wire, written from the code: endpoints, events, headers.

Used by ``docs/reference.md`` (``make docs``) and by the tests that check it. Endpoints are the
routes of the real application with their handlers' docstrings, so a new one appears by itself.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiohttp import web

from tightloop.engine.scripted import ScriptedEngine, echo_script
from tightloop.governance.keys import KeyRing
from tightloop.protocol.event_types import (
    CHAT_EVENTS,
    CLIENT_EVENTS,
    MESSAGES_EVENTS,
    RESPONSES_EVENTS,
    EventType,
)
from tightloop.protocol.header_fields import READ, SENT, HeaderField
from tightloop.server.access import Access
from tightloop.server.app import OPEN_TO_ALL, create_app
from tightloop.server.endpoint import Endpoint
from tightloop.server.websocket import Sockets

OWN_NAME = re.compile(r"``[A-Z]+ /[^`]*``(?P<rest>.*)", re.DOTALL)
"""A docstring may begin with the route itself, which is the heading here."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. ``text`` is the handler's docstring as Markdown; "" if it has none."""

    method: str
    path: str
    handler: str
    text: str

    @property
    def heading(self) -> str:
        """Without the marks."""
        return f"`{self.method} {self.path}`"


def routes() -> list[Route]:
    """Every route of a server, by path. HEAD, which comes with a GET, is left out."""
    endpoint = Endpoint(ScriptedEngine(echo_script))
    app = create_app(endpoint, Access(KeyRing(()), "127.0.0.1"), Sockets(endpoint))
    return sorted(_routes(app), key=lambda route: (route.path, route.method))


def _routes(app: web.Application) -> Iterator[Route]:
    for route in app.router.routes():
        if route.method == "HEAD" or route.resource is None:
            continue
        handler = route.handler
        name = getattr(handler, "__qualname__", repr(handler))
        yield Route(route.method, route.resource.canonical, name, prose(inspect.getdoc(handler)))


def prose(docstring: str | None) -> str:
    """A docstring as Markdown: without the route it begins with, double backticks single."""
    text = (docstring or "").strip()
    own = OWN_NAME.fullmatch(text)
    if own is not None:
        text = own["rest"].lstrip(".:;, \n")
    return (text[:1].upper() + text[1:]).replace("``", "`")


def endpoints_markdown() -> str:
    """A heading and a text for each route."""
    return "\n\n".join(_route_markdown(route) for route in routes())


def _route_markdown(route: Route) -> str:
    key = " No key is asked for." if route.path in OPEN_TO_ALL else ""
    return f"### {route.heading}\n\n{route.text}{key}"


def event_heading(event: EventType, api: str) -> str:
    """Without the marks; ``api`` tells apart what two APIs call the same."""
    return f"`{event.name}` ({api})"


EVENT_SECTIONS: Sequence[tuple[str, str, Sequence[EventType]]] = (
    ("Server events of the Responses API", "Responses", RESPONSES_EVENTS),
    ("Client events over a WebSocket", "client", CLIENT_EVENTS),
    ("Events of the Anthropic Messages API", "Messages", MESSAGES_EVENTS),
    ("Chunks of the Chat Completions API", "Chat Completions", CHAT_EVENTS),
)
"""Title, word for the headings, events."""


def events_markdown() -> str:
    """A section for each API, a heading for each type."""
    parts: list[str] = []
    for title, api, events in EVENT_SECTIONS:
        parts.append(f"## {title}")
        parts += [_event_markdown(event, api) for event in events]
    return "\n\n".join(parts)


def _event_markdown(event: EventType, api: str) -> str:
    rows = [("sequence_number", "counts the response's events from 0")] if event.is_numbered else []
    rows += event.fields.items()
    rows += [(name, f"{text} (optional)") for name, text in event.optional.items()]
    lines = [f"### {event_heading(event, api)}", "", event.place]
    if rows:
        lines += ["", "| field | |", "|---|---|"]
        lines += [f"| `{name}` | {text} |" for name, text in rows]
    return "\n".join(lines)


def headers_markdown() -> str:
    """A heading for each header."""
    sections = (("Request headers", READ), ("Response headers", SENT))
    return "\n\n".join(
        "\n\n".join([f"## {title}", *(_header_markdown(header) for header in headers)])
        for title, headers in sections
    )


def _header_markdown(header: HeaderField) -> str:
    return f"### `{header.name}`\n\n{header.text}"

"""Request bodies: the same made-up history in the words of each API, and one new tool output."""

import random
from typing import Any

import orjson

from tightloop.bench.conversations import chat_message
from tightloop.bench.history import NEW_BYTES, TOOLS, history, message, output, tool_output

HISTORY_BYTES = {"1k": 18_800, "10k": 53_000, "50k": 209_000, "200k": 789_000}
"""Nominal tokens, and bytes of JSON that such histories of coding agents measure."""

_CHAT_TOOLS = [
    {"type": "function", "function": {key: tool[key] for key in tool if key != "type"}}
    for tool in TOOLS
]


class Bodies:
    """Bodies for one size of history, by its name or in bytes; each carries an output that none had before.

    Another ``seed`` makes another history, different from its first item on; another ``mark`` the same
    history with other outputs.
    """

    def __init__(
        self,
        size: str | int,
        model: str,
        seed: int = 1,
        new_bytes: int = NEW_BYTES,
        mark: str = "",
    ) -> None:
        num_bytes = HISTORY_BYTES[size] if isinstance(size, str) else size
        opening = message(f"Conversation {seed}: fix the failing test")
        self._items = [opening, *history(num_bytes)[1:]]
        self._model = model
        self._new_bytes = new_bytes
        self._rng = random.Random(f"{size} {seed} {mark}")

    def chat(self, **options: Any) -> bytes:
        """The whole history and the new output as Chat Completions."""
        items = [*self._items, self._new()]
        fixed = {"model": self._model, "stream": True, "tools": _CHAT_TOOLS}
        return orjson.dumps(
            {**fixed, **options, "messages": [chat_message(each) for each in items]}
        )

    def responses(self, **options: Any) -> bytes:
        """The whole history and the new output as the Responses API."""
        return self._responses([*self._items, self._new()], **options)

    def opening(self, **options: Any) -> bytes:
        """The history alone; its response is what ``following`` follows."""
        return self._responses(self._items[:-1], **options)

    def following(self, previous_response_id: str, **options: Any) -> bytes:
        """As much text again as a tool output, alone.

        As a message, because the answers call no tool, and gateways check that calls and
        outputs match.
        """
        named = {"previous_response_id": previous_response_id}
        return self._responses([message(self._text())], **{**named, **options})

    def _new(self) -> dict[str, Any]:
        return output("call_open", self._text())

    def _text(self) -> str:
        return tool_output(self._rng)[: self._new_bytes]

    def _responses(self, items: list[dict[str, Any]], **options: Any) -> bytes:
        fixed = {"model": self._model, "stream": True, "store": False, "tools": TOOLS}
        return orjson.dumps({**fixed, **options, "input": items})


def create(body: bytes) -> bytes:
    """A body as the WebSocket's ``response.create``."""
    return b'{"type":"response.create",' + body[1:]

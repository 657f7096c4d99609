"""From the events of an upstream's response to engine deltas; ``response_stream`` is the other way.

Items are given out one after the other. An event of an item that is not open yet waits for those
before it, so that any interleaving that the protocol allows comes out in the legal order of deltas.
A call is complete only when its ``output_item.done`` says so: clients start the tool then.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from tightloop.protocol.deltas import (
    Delta,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
    ToolCallStarted,
    Usage,
)
from tightloop.protocol.errors import RemoteProtocolError, api_error_from_wire
from tightloop.protocol.items import CustomToolCall, FunctionCall, Item, Message, Reasoning
from tightloop.protocol.response import decode_usage

Event = dict[str, Any]

_CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""Types of items that are calls, and the field with their text."""

_TEXT_DELTAS: Final = frozenset({"response.output_text.delta", "response.refusal.delta"})
_REASONING_DELTAS: Final = frozenset(
    {
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning.delta",
    }
)
_CALL_DELTAS: Final = frozenset(
    {"response.function_call_arguments.delta", "response.custom_tool_call_input.delta"}
)
_TERMINAL: Final = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)


class _Item:
    """One output item: what it said, and what of it still waits to be given out."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.num_chars = 0
        self.call_id = ""
        self.is_started = False
        self.is_done = False
        self.waiting: list[Delta] = []


class ResponseReader:
    """Reads the events of one response in order. The last delta is a ``Finished`` without timing.

    ``new_id`` makes a call id (prefix ``call``) where the upstream gives none.
    """

    def __init__(self, *, new_id: Callable[[str], str]) -> None:
        self.response_id: str | None = None
        self.timing: dict[str, Any] | None = None
        """The figures of a ``tightloop:timing`` event."""
        self.is_finished = False
        self._new_id = new_id
        self._items: dict[int, _Item] = {}
        self._open: _Item | None = None

    @property
    def signature(self) -> "Signature":
        """What the output was; equal to ``output_signature`` of the items made of the deltas."""
        known = (item for _, item in sorted(self._items.items()) if item.kind in _KNOWN)
        return _merged((item.kind, item.call_id, item.num_chars) for item in known)

    @property
    def has_calls(self) -> bool:
        """Whether any complete call came."""
        return any(item.kind in _CALLS and item.is_done for item in self._items.values())

    def feed(self, event: Event) -> list[Delta]:
        """The deltas of one event; events of unknown types say nothing.

        Raises ``RemoteProtocolError`` for what contradicts itself or cannot be read.
        """
        kind = event.get("type")
        deltas: list[Delta] = []
        if self.is_finished:
            return deltas
        if kind in _TEXT_DELTAS:
            self._text(event, "message", TextDelta, deltas)
        elif kind in _CALL_DELTAS:
            self._call_text(event, deltas)
        elif kind in _REASONING_DELTAS:
            self._text(event, "reasoning", ReasoningDelta, deltas)
        elif kind == "response.reasoning_summary_part.added":
            item = self._items.get(self._index(event))
            if item is not None and item.num_chars:
                self._give(item, ReasoningDelta("\n\n"), deltas)
                item.num_chars += 2
        elif kind == "response.output_item.added":
            self._add(event, deltas)
        elif kind == "response.output_item.done":
            self._done(self._index(event), _object(event, "item"), deltas)
        elif kind == "response.created":
            self.response_id = _text(_object(event, "response").get("id")) or None
        elif kind in _TERMINAL:
            self._finish(str(kind), _object(event, "response"), deltas)
        elif kind == "error":
            error = api_error_from_wire(event, status=500)
            self._end_with_error(error.code, error.message, deltas, error.retry_after_s)
        elif kind == "tightloop:timing" and isinstance(event.get("timing"), dict):
            self.timing = event["timing"]
        return deltas

    # ------------------------------------------------------------------ items

    def _index(self, event: Event) -> int:
        index = event.get("output_index")
        if isinstance(index, int) and not isinstance(index, bool) and index >= 0:
            return index
        if index is not None:
            raise RemoteProtocolError(f"output_index is {index!r}", param="output_index")
        # llama.cpp numbers no items; it sends one after the other.
        last = max(self._items, default=-1)
        is_open = last in self._items and not self._items[last].is_done
        return last if is_open and event.get("type") != "response.output_item.added" else last + 1

    def _add(self, event: Event, deltas: list[Delta]) -> None:
        index, fields = self._index(event), _object(event, "item")
        if index in self._items:
            raise RemoteProtocolError(f"output item {index} was added twice", param="output_index")
        self._begin(index, fields, deltas)

    def _begin(self, index: int, fields: dict[str, Any], deltas: list[Delta]) -> _Item:
        kind = fields.get("type")
        if not isinstance(kind, str):
            raise RemoteProtocolError("an output item has no type", param="item.type")
        item = self._items[index] = _Item(kind)
        if kind in _CALLS:
            name = fields.get("name")
            if not isinstance(name, str) or not name:
                raise RemoteProtocolError(f"a {kind} has no name", param="item.name")
            item.call_id = _text(fields.get("call_id")) or self._new_id("call")
            started = ToolCallStarted(item.call_id, name, kind == "custom_tool_call")
            self._give(item, started, deltas)
        return item

    def _text(
        self, event: Event, kind: str, make: Callable[[str], Delta], deltas: list[Delta]
    ) -> None:
        text = event.get("delta")
        if not isinstance(text, str):
            raise RemoteProtocolError(f"{event['type']} has no delta", param="delta")
        if not text:
            return
        index = self._index(event)
        item = self._items.get(index)
        if item is None:  # servers that do not announce items
            item = self._begin(index, {"type": kind}, deltas)
        item.num_chars += len(text)
        self._give(item, make(text), deltas)

    def _call_text(self, event: Event, deltas: list[Delta]) -> None:
        item = self._items.get(self._index(event))
        text = event.get("delta")
        if item is None or item.kind not in _CALLS or not isinstance(text, str):
            raise RemoteProtocolError(f"{event['type']} belongs to no call", param="output_index")
        if text:
            item.num_chars += len(text)
            self._give(item, ToolCallDelta(text), deltas)

    def _done(self, index: int, fields: dict[str, Any], deltas: list[Delta]) -> None:
        item = self._items.get(index)
        if item is None:
            item = self._begin(index, fields, deltas)
        if item.is_done:
            raise RemoteProtocolError(f"output item {index} ended twice", param="output_index")
        whole = _whole_text(fields)
        if item.kind in _CALLS and len(whole) < item.num_chars:
            raise RemoteProtocolError(f"call {item.call_id} lost text at its end", param="item")
        # Servers send all of it here, or the last of a call. Texts may have been trimmed.
        rest = whole[item.num_chars :] if item.kind in _CALLS or not item.num_chars else ""
        if rest and item.kind in _KNOWN:
            item.num_chars += len(rest)
            self._give(item, _piece(item.kind, rest), deltas)
        if fields.get("status") == "incomplete":
            return  # a call that was cut must not run
        item.is_done = True
        if item.kind in _CALLS:
            item.waiting.append(ToolCallDone())
        self._advance(deltas)

    # ------------------------------------------------------------------ one after the other

    def _give(self, item: _Item, delta: Delta, deltas: list[Delta]) -> None:
        if self._open is None or (self._open.is_done and not self._open.waiting):
            self._open = item
        if item is self._open and not item.waiting:
            deltas.append(delta)
        else:
            item.waiting.append(delta)

    def _advance(self, deltas: list[Delta]) -> None:
        """Give out what waited, as far as items before it have ended."""
        for _, item in sorted(self._items.items()):
            if self._open is not None and item is not self._open:
                if not self._open.is_done or self._open.waiting:
                    continue
                if not item.waiting:
                    continue
            self._open = item
            deltas.extend(item.waiting)
            item.waiting.clear()
            if not item.is_done:
                return

    # ------------------------------------------------------------------ the end

    def _finish(self, kind: str, response: dict[str, Any], deltas: list[Delta]) -> None:
        self.response_id = self.response_id or _text(response.get("id")) or None
        usage = _usage(response.get("usage"))
        output = response.get("output")
        if not self._items and isinstance(output, list) and kind == "response.completed":
            for index, fields in enumerate(output):
                if isinstance(fields, dict):
                    self._done(index, fields, deltas)
        if kind == "response.completed":
            self._complete(usage, deltas)
        elif kind == "response.incomplete":
            self._incomplete(response, usage, deltas)
        else:
            error = response.get("error")
            failed = error if isinstance(error, dict) else {}
            message = _text(failed.get("message")) or f"the upstream ended with {kind}"
            self._end_with_error(_text(failed.get("code")), message, deltas, usage=usage)

    def _complete(self, usage: Usage, deltas: list[Delta]) -> None:
        cut = [item for item in self._items.values() if item.kind in _CALLS and not item.is_done]
        if cut:
            message = "the upstream's response ended in the middle of a tool call"
            self._end_with_error("upstream_error", message, deltas, usage=usage)
            return
        for item in self._items.values():
            item.is_done = True
        self._advance(deltas)
        reason = FinishReason.TOOL_CALLS if self.has_calls else FinishReason.STOP
        self._end(Finished(reason, usage), deltas)

    def _incomplete(self, response: dict[str, Any], usage: Usage, deltas: list[Delta]) -> None:
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        if reason in ("max_output_tokens", "max_messages"):
            self._end(Finished(FinishReason.LENGTH, usage), deltas)
        elif reason == "content_filter":
            message = "the upstream's content filter stopped the answer"
            self._end_with_error("content_filter", message, deltas, usage=usage)
        else:
            message = f"the upstream broke the answer off ({reason or 'without a reason'})"
            self._end_with_error("upstream_error", message, deltas, usage=usage)

    def _end_with_error(
        self,
        code: str | None,
        message: str,
        deltas: list[Delta],
        retry_after_s: float | None = None,
        *,
        usage: Usage | None = None,
    ) -> None:
        finished = Finished(
            FinishReason.ERROR,
            usage or Usage(),
            error_code=code or "upstream_error",
            error_message=message,
            retry_after_s=retry_after_s,
        )
        self._end(finished, deltas)

    def _end(self, finished: Finished, deltas: list[Delta]) -> None:
        self.is_finished = True
        deltas.append(finished)


_KNOWN: Final = frozenset({"message", "reasoning", *_CALLS})

Signature = tuple[tuple[str, str, int], ...]
"""Kind, call id and length of the text of each output item: enough to know an output again."""


def output_signature(items: Iterable[Item]) -> Signature:
    """The signature of an output as a conversation keeps it; neighbouring texts count as one."""
    return _merged(map(_signature, items))


def _signature(item: Item) -> tuple[str, str, int]:
    match item:
        case Message():
            return "message", "", len(item.text)
        case FunctionCall():
            return "function_call", item.call_id, len(item.arguments)
        case CustomToolCall():
            return "custom_tool_call", item.call_id, len(item.input)
        case Reasoning():
            return "reasoning", "", sum(map(len, item.summary or item.content))
    return type(item).__name__, "", 0


def _merged(parts: Iterable[tuple[str, str, int]]) -> Signature:
    merged: list[tuple[str, str, int]] = []
    for kind, call_id, num_chars in parts:
        if kind in ("message", "reasoning"):
            if not num_chars:
                continue
            if merged and merged[-1][0] == kind:
                num_chars += merged.pop()[2]
        merged.append((kind, call_id, num_chars))
    return tuple(merged)


def _piece(kind: str, text: str) -> Delta:
    if kind == "message":
        return TextDelta(text)
    return ReasoningDelta(text) if kind == "reasoning" else ToolCallDelta(text)


def _whole_text(fields: dict[str, Any]) -> str:
    """All text of a finished item, as its deltas would have said it."""
    kind = fields.get("type")
    if kind in _CALLS:
        return _text(fields.get(_CALLS[str(kind)]))
    if kind == "message":
        parts = fields.get("content")
        return "".join(_part_text(part) for part in parts) if isinstance(parts, list) else ""
    if kind == "reasoning":
        for place, join in (("summary", "\n\n"), ("content", "")):
            parts = fields.get(place)
            if isinstance(parts, list) and parts:
                return join.join(_part_text(part) for part in parts)
    return ""


def _part_text(part: object) -> str:
    if not isinstance(part, dict):
        return ""
    return _text(part.get("text")) or _text(part.get("refusal"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _object(event: Event, name: str) -> dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"{event.get('type')} has no {name}", param=name)
    return value


def _usage(value: object) -> Usage:
    """The figures; none where they cannot be read: they only inform."""
    try:
        return decode_usage(value)
    except msgspec.ValidationError:
        return Usage()

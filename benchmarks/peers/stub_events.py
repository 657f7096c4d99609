"""What the upstream says, as byte templates: Chat Completions and Responses, one delta a token.

Each delta's text is a reading of CLOCK_MONOTONIC in nanoseconds and a space, so that whoever reads
it on the same machine knows how long the token was under way.
"""

from collections.abc import Callable
from typing import Protocol

from tightloop.trace.clock import now_ns

CHAT_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_MODEL = b'"model":"stub"'
_USAGE = (
    b'"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":0},"output_tokens":%d,'
)
_USAGE += b'"output_tokens_details":{"reasoning_tokens":0},"total_tokens":%d}'

Frame = Callable[[bytes], bytes]


class Words(Protocol):
    """The parts of one streamed answer."""

    def opening(self) -> bytes:
        """Everything before the first token."""

    def tokens(self, first: int, num: int) -> bytes:
        """``num`` tokens, the first of them having that number, stamped with the time now."""

    def ending(self, num_tokens: int) -> bytes:
        """Everything after the last token."""


def sse(name: bytes, data: bytes) -> bytes:
    """A server-sent event as one HTTP chunk."""
    body = b"event: %s\ndata: %s\n\n" % (name, data)
    return b"%x\r\n%s\r\n" % (len(body), body)


def websocket(_name: bytes, data: bytes) -> bytes:
    """A text frame from a server."""
    size = len(data)
    if size < 126:
        return b"\x81%c%s" % (size, data)
    if size < 1 << 16:
        return b"\x81\x7e%s%s" % (size.to_bytes(2, "big"), data)
    return b"\x81\x7f%s%s" % (size.to_bytes(8, "big"), data)


class ChatWords:
    """Chat Completions over server-sent events."""

    def __init__(self, number: int) -> None:
        head = (
            b'{"id":"chatcmpl-%d","object":"chat.completion.chunk","created":1700000000,' % number
        )
        self._head = head + _MODEL + b',"choices":['
        delta = b'{"index":0,"delta":{"content":"%d "},"finish_reason":null}]}'
        self._delta = b"data: " + self._head + delta + b"\n\n"

    def opening(self) -> bytes:
        """The HTTP head and the chunk with the role."""
        role = b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}'
        return CHAT_HEAD + self._chunk(b"data: " + self._head + role + b"\n\n")

    def tokens(self, first: int, num: int) -> bytes:
        """One chunk, one event each."""
        event = self._delta % now_ns()
        return (b"%x\r\n%s\r\n" % (len(event), event)) * num

    def ending(self, num_tokens: int) -> bytes:
        """Finish reason, usage, the end mark and the last chunk."""
        finish = self._head + b'{"index":0,"delta":{},"finish_reason":"stop"}]}'
        usage = b'],"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}'
        used = self._head + usage % (num_tokens, num_tokens + 10)
        events = (b"data: %s\n\n" % data for data in (finish, used, b"[DONE]"))
        return b"".join(map(self._chunk, events)) + b"0\r\n\r\n"

    @staticmethod
    def _chunk(event: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(event), event)


class ResponsesWords:
    """The Responses API; ``frame`` puts an event on the wire."""

    def __init__(self, number: int, *, is_websocket: bool) -> None:
        self._is_websocket = is_websocket
        self._frame = websocket if is_websocket else sse
        self._response = b'"id":"resp_%d","object":"response","created_at":1700000000,' % number
        self._response += _MODEL + b',"parallel_tool_calls":true,"tools":[],"tool_choice":"auto"'
        self._item_id = b"msg_%d" % number
        self._delta = b'{"type":"response.output_text.delta","sequence_number":%%d,"item_id":"%s",'
        self._delta += b'"output_index":0,"content_index":0,"logprobs":[],"delta":"%%d "}'
        self._delta %= self._item_id
        self._texts: list[bytes] = []

    def opening(self) -> bytes:
        """From ``response.created`` to ``response.content_part.added``."""
        started = b'{"type":"%s","sequence_number":%d,"response":{' + self._response
        started += b',"status":"in_progress","output":[]}}'
        item = b'{"type":"%s","sequence_number":2,"output_index":0,"item":{"id":"' + self._item_id
        item += b'","type":"message","status":"in_progress","role":"assistant","content":[]}}'
        return (b"" if self._is_websocket else CHAT_HEAD) + b"".join(
            [
                self._event(b"response.created", started % (b"response.created", 0)),
                self._event(b"response.in_progress", started % (b"response.in_progress", 1)),
                self._event(b"response.output_item.added", item % b"response.output_item.added"),
                self._event(b"response.content_part.added", self._part(b"added", 3, b"")),
            ]
        )

    def tokens(self, first: int, num: int) -> bytes:
        """One event each."""
        name, stamp = b"response.output_text.delta", now_ns()
        self._texts.append(b"%d " % stamp * num)
        return b"".join(
            self._frame(name, self._delta % (number, stamp))
            for number in range(first + 4, first + 4 + num)
        )

    def ending(self, num_tokens: int) -> bytes:
        """From ``response.output_text.done`` to ``response.completed``; gateways compare texts."""
        number, whole = num_tokens + 4, b"".join(self._texts)
        item = b'{"id":"%s","type":"message","status":"completed","role":"assistant","content":'
        item += b'[{"type":"output_text","annotations":[],"logprobs":[],"text":"%s"}]}'
        item %= (self._item_id, whole)
        text = b'{"type":"response.output_text.done","sequence_number":%d,"item_id":"%s",'
        text += b'"output_index":0,"content_index":0,"logprobs":[],"text":"%s"}'
        done = (
            b'{"type":"response.output_item.done","sequence_number":%d,"output_index":0,"item":%s}'
        )
        end = b'{"type":"response.completed","sequence_number":%d,"response":{' + self._response
        end += b',"status":"completed","output":[%s],' + _USAGE + b"}}"
        totals = (number + 3, item, num_tokens, num_tokens + 10)
        ending = b"".join(
            [
                self._event(b"response.output_text.done", text % (number, self._item_id, whole)),
                self._event(b"response.content_part.done", self._part(b"done", number + 1, whole)),
                self._event(b"response.output_item.done", done % (number + 2, item)),
                self._event(b"response.completed", end % totals),
            ]
        )
        return ending if self._is_websocket else ending + b"0\r\n\r\n"

    def _event(self, name: bytes, data: bytes) -> bytes:
        return self._frame(name, data)

    def _part(self, word: bytes, number: int, text: bytes) -> bytes:
        part = b'{"type":"response.content_part.%s","sequence_number":%d,"item_id":"%s",'
        part += b'"output_index":0,"content_index":0,"part":{"type":"output_text","annotations":[],'
        part += b'"logprobs":[],"text":"%s"}}'
        return part % (word, number, self._item_id, text)

"""Reads reasoning and tool calls out of a model's text while it is being generated.

The syntax is the one of Qwen and Hermes models::

    <think> reasoning </think> text
    <tool_call>
    {"name": "exec_command", "arguments": {"cmd": "ls"}}
    </tool_call>

A call is announced as soon as its name is known and its arguments begin; they are passed on as
they come. A body that does not begin like a call stays visible as text.
"""

from collections.abc import Callable, Collection

from tightloop.engine.families.call_body import CallBody
from tightloop.engine.families.text_stream import overlap
from tightloop.protocol.deltas import (
    Delta,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallDone,
)

CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
_SPACE = " \t\r\n"


class ToolCallParser:
    """Text in pieces of any size to deltas; how the text is cut makes no difference.

    ``custom_tools`` are tools whose input is free text: their JSON string is unescaped.
    ``is_thinking`` starts inside reasoning, for templates that open the block themselves.
    Whatever follows the last of ``max_calls`` calls is dropped; with 0 a call is text like any.
    """

    def __init__(
        self,
        new_call_id: Callable[[], str],
        *,
        custom_tools: Collection[str] = (),
        is_thinking: bool = False,
        max_calls: int | None = None,
    ) -> None:
        self._max_calls = max_calls
        self._tags = (THINK_OPEN,) if max_calls == 0 else (CALL_OPEN, THINK_OPEN)
        self._new_call_id = new_call_id
        self._custom = frozenset(custom_tools)
        self.is_thinking = is_thinking
        self._pending = ""
        self._call: CallBody | None = None
        self._at_line_start = False
        self.num_calls = 0
        self.is_full = False  # as many calls were made as may be

    def feed(self, text: str) -> list[Delta]:
        """The deltas that ``text`` completes."""
        is_open = self._pending or self._call is not None or self._at_line_start
        if not is_open and "<" not in text:  # nearly every token
            kind = ReasoningDelta if self.is_thinking else TextDelta
            return [kind(text)] if text else []
        deltas: list[Delta] = []
        self._pending += text
        while self._advance(deltas):
            pass
        return _joined(deltas)

    def finish(self, *, is_cut: bool = False) -> list[Delta]:
        """What was held back, when the model has ended.

        An unfinished call is closed as it is, so that the tool can say what is wrong with it;
        when the output was cut (``is_cut``) it stays open and nobody will run it.
        """
        deltas: list[Delta] = []
        call, self._call = self._call, None
        if call is not None and not call.is_started:
            deltas.append(TextDelta(CALL_OPEN + call.raw))
        elif call is not None and not call.is_complete and not is_cut:
            self._count(deltas)
        elif call is None and self._pending.strip("\n" if self._at_line_start else ""):
            deltas.append(self._visible(self._pending))
        self._pending = ""
        return deltas

    def _count(self, deltas: list[Delta]) -> None:
        self.num_calls += 1
        self.is_full = self.num_calls == self._max_calls
        deltas.append(ToolCallDone())

    def _visible(self, text: str) -> Delta:
        return ReasoningDelta(text) if self.is_thinking else TextDelta(text)

    def _advance(self, deltas: list[Delta]) -> bool:
        """Consume from the pending text; False when more is needed to go on."""
        if self.is_full:
            self._pending = ""
            return False
        if self._call is not None:
            return self._advance_call(self._call, deltas)
        if self._at_line_start:
            self._pending = self._pending.lstrip("\n")
            if not self._pending:
                return False
            self._at_line_start = False
        tags = (THINK_CLOSE,) if self.is_thinking else self._tags
        found = sorted((at, tag) for tag in tags if (at := self._pending.find(tag)) >= 0)
        if not found:
            keep = max(overlap(self._pending, tag) for tag in tags)
            size = len(self._pending) - keep
            if size:
                deltas.append(self._visible(self._pending[:size]))
            self._pending = self._pending[size:]
            return False
        at, tag = found[0]
        if at:
            deltas.append(self._visible(self._pending[:at]))
        self._pending = self._pending[at + len(tag) :]
        if tag == CALL_OPEN:
            self._call = CallBody(self._new_call_id, self._custom)
        else:
            self.is_thinking = tag == THINK_OPEN
            self._at_line_start = True
        return True

    def _advance_call(self, call: CallBody, deltas: list[Delta]) -> bool:
        if not call.is_complete:
            used = call.feed(self._pending, deltas)
            self._pending = self._pending[used:]
        if call.is_malformed:
            if call.is_started:
                deltas.append(ToolCallDone())
            else:
                deltas.append(TextDelta(CALL_OPEN + call.raw))
            self._call = None
            return True
        if not call.is_complete:
            return False
        # The object is closed: the call can be dispatched before its closing tag arrives.
        if not call.is_announced_done:
            call.is_announced_done = True
            self._count(deltas)
        rest = self._pending.lstrip(_SPACE)
        if rest.startswith(CALL_CLOSE):
            self._pending = rest[len(CALL_CLOSE) :]
            self._at_line_start = True
        elif CALL_CLOSE.startswith(rest):
            return False
        self._call = None
        return True


def _joined(deltas: list[Delta]) -> list[Delta]:
    """Neighbouring pieces of one kind as one delta."""
    joined: list[Delta] = []
    for delta in deltas:
        last = joined[-1] if joined else None
        if isinstance(delta, ToolCallDelta) and isinstance(last, ToolCallDelta):
            joined[-1] = ToolCallDelta(last.text + delta.text)
        elif isinstance(delta, TextDelta) and isinstance(last, TextDelta):
            joined[-1] = TextDelta(last.text + delta.text)
        elif isinstance(delta, ReasoningDelta) and isinstance(last, ReasoningDelta):
            joined[-1] = ReasoningDelta(last.text + delta.text)
        else:
            joined.append(delta)
    return joined

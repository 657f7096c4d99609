"""Whether a chat template shows what is new without touching what it showed before.

Not every template does: some drop reasoning from earlier turns, some write the tools in front of
the last user message. So nothing is assumed: made-up conversations are rendered whole and in two
parts, and both are tokenised. A continuation whose shape passed is rendered alone from then on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tightloop.engine.families.chat_template import ChatMessage, ChatTemplate
from tightloop.engine.families.vocabulary import Tokens, Vocabulary
from tightloop.engine.interface import EngineError

MAX_SHAPES: Final = 256
"""Shapes of continuations remembered; a client that makes up more gets the slow way."""

MAX_KINDS: Final = 16
"""Longest shape probed: reading one longer whole costs less than the proof."""

Kind = tuple[str, int, bool, bool]
"""Role, number of calls (2 is many), whether there is text, whether there is reasoning."""

Shape = tuple[Kind, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a whole conversation has in common. ``last_role`` is the last known message's."""

    has_tools: bool
    can_think: bool
    last_role: str


def shape_of(messages: Iterable[ChatMessage]) -> Shape:
    """What a template can see of messages but their texts; of a run of equal ones two count."""
    shape: list[Kind] = []
    for message in messages:
        calls = min(len(message.get("tool_calls", ())), 2)
        kind = message["role"], calls, bool(message["content"]), "reasoning_content" in message
        if shape[-2:] != [kind, kind]:
            shape.append(kind)
    return tuple(shape)


def _message(kind: Kind, place: int) -> ChatMessage:
    role, num_calls, has_text, has_reasoning = kind
    message: ChatMessage = {"role": role, "content": f"text {place}" if has_text else ""}
    if has_reasoning:
        message["reasoning_content"] = f"reason {place}"
    if num_calls:
        message["tool_calls"] = [_call(f"callid{place:02}{n}") for n in range(num_calls)]
    if role == "tool":
        message |= {"name": "alpha", "tool_call_id": f"callid{max(place - 1, 0):02}0"}
    return message


def _call(call_id: str) -> dict[str, Any]:
    function = {"name": "alpha", "arguments": {"path": "a.py", "n": 1}}
    return {"id": call_id, "type": "function", "function": function}


def _tool(name: str) -> dict[str, Any]:
    properties = {"path": {"type": "string"}, "n": {"type": "integer"}}
    parameters = {"type": "object", "properties": properties, "required": ["path"]}
    function = {"name": name, "description": f"does {name}", "parameters": parameters}
    return {"type": "function", "function": function}


_SYSTEM: Final[Kind] = ("system", 0, True, False)
_USER: Final[Kind] = ("user", 0, True, False)
_TOOL: Final[Kind] = ("tool", 0, True, False)
_SAYS: Final[Kind] = ("assistant", 0, True, False)
_THINKS: Final[Kind] = ("assistant", 0, True, True)
_CALLS: Final[Kind] = ("assistant", 1, False, False)
_ACTS: Final[Kind] = ("assistant", 1, True, True)
_DOES_ALL: Final[Kind] = ("assistant", 2, True, True)

_HISTORIES: Final[tuple[Shape, ...]] = (
    (_USER,),
    (_SYSTEM, _USER),
    (_SYSTEM, _USER, _THINKS, _USER),
    (_USER, _DOES_ALL, _TOOL, _TOOL, _SAYS, _USER),
    (_SYSTEM, _USER, _ACTS, _TOOL, _THINKS, _USER),
    (_USER, _CALLS, _TOOL),
    (_SYSTEM, _USER, _THINKS, _USER, _CALLS, _TOOL, _ACTS, _TOOL),
    (_SYSTEM, _USER, _DOES_ALL, _TOOL, _TOOL),
)
_ANCHORS: Final[dict[str, Shape]] = {"user": (_USER,), "tool": (_USER, _CALLS, _TOOL)}
_USUAL: Final[tuple[Shape, ...]] = ((), (_SAYS, _USER), (_CALLS, _TOOL))
"""Probed when the model is loaded; the others when they first occur."""


def _conversation(shape: Shape) -> list[ChatMessage]:
    return [_message(kind, place) for place, kind in enumerate(shape)]


class PrefixProbe:
    """Judges one template with one tokeniser; remembers its judgements."""

    def __init__(self, template: ChatTemplate, tokens: Tokens, vocabulary: Vocabulary) -> None:
        self._template = template
        self._tokens = tokens
        self._vocabulary = vocabulary
        self._anchors: dict[Setting, str | None] = {}
        self._verdicts: dict[tuple[Setting, Shape], bool] = {}
        for has_tools in (False, True):
            for last_role in _ANCHORS if has_tools else ("user",):
                for shape in _USUAL if has_tools else _USUAL[:2]:
                    self.holds(Setting(has_tools, True, last_role), shape)

    def holds(self, setting: Setting, shape: Shape) -> bool:
        """Whether messages of this shape may be rendered and tokenised alone."""
        key = setting, shape
        verdict = self._verdicts.get(key)
        if verdict is None:
            if len(self._verdicts) >= MAX_SHAPES or len(shape) > MAX_KINDS:
                return False
            try:
                verdict = self._judge(setting, shape)
            except Exception:  # noqa: BLE001 - a template may fail in any way; then it is no proof
                verdict = False
            self._verdicts[key] = verdict
        return verdict

    def continuation(
        self, setting: Setting, messages: Sequence[ChatMessage], *, is_asking: bool = True
    ) -> str | None:
        """How ``messages`` look after a conversation that ends as ``setting`` says.

        With what makes the assistant speak at the end, if ``is_asking``. None when that depends
        on more. Raises ``EngineError`` when the template refuses them.
        """
        anchor = self._anchor(setting)
        if anchor is None:
            return None
        start = _conversation(_ANCHORS[setting.last_role])
        text = self._render([*start, *messages], setting, ("beta",), is_asking=is_asking)
        return text[len(anchor) :] if text.startswith(anchor) else None

    def is_boundary(self, before: int, after: int) -> bool:
        """Whether no merge crosses from one token to the next: one of them is a control token."""
        return self.is_control(before) or self.is_control(after)

    def is_control(self, token: int) -> bool:
        """Whether a token is more than its text."""
        return self._vocabulary.is_control(token, self._tokens.token_bytes(token))

    def _anchor(self, setting: Setting) -> str | None:
        if setting.last_role not in _ANCHORS:
            return None
        if setting not in self._anchors:
            start = _conversation(_ANCHORS[setting.last_role])
            self._anchors[setting] = self._render(start, setting, ("beta",), is_asking=False)
        return self._anchors[setting]

    def _render(
        self,
        messages: Sequence[ChatMessage],
        setting: Setting,
        tools: Sequence[str],
        *,
        is_asking: bool,
    ) -> str:
        return self._template.render(
            messages,
            [_tool(name) for name in tools] if setting.has_tools else [],
            can_think=setting.can_think,
            is_asking=is_asking,
        )

    def _judge(self, setting: Setting, shape: Shape) -> bool:
        new = [_message(kind, place) for place, kind in enumerate(shape, 20)]
        alone = self.continuation(setting, new)
        if alone is None:
            return False
        # Other tools than the anchor's: what is new must not depend on them.
        names = ("alpha", "gamma")
        num_agreeing = 0
        for history in _HISTORIES:
            if history[-1][0] != setting.last_role:
                continue
            old = _conversation(history)
            try:
                before = self._render(old, setting, names, is_asking=False)
            except EngineError:  # no conversation like this one can come to a continuation
                continue
            whole = self._render([*old, *new], setting, names, is_asking=True)
            if whole != before + alone or not self._reads_alike(before, alone):
                return False
            num_agreeing += 1
        return num_agreeing > 1

    def _reads_alike(self, before: str, alone: str) -> bool:
        if not alone:
            return True
        head, tail = (self._tokens.tokenize(text, special=True) for text in (before, alone))
        whole = self._tokens.tokenize(before + alone, special=True)
        return head + tail == whole and self.is_boundary(head[-1], tail[0])

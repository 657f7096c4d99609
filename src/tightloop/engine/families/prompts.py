"""From a request to prompt tokens, with no work for what its parent's prompt already holds.

A response's prompt is kept as its tokens up to the end of the last message the model was shown.
The prompt of a continuation begins with exactly these where ``PrefixProbe`` says so: then only the
model's own answer and the new items are rendered and tokenised. The tokens are those that the whole
conversation would give; where nothing is known it is rendered and tokenised whole.
"""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from msgspec import structs

from tightloop.engine.families.chat_template import (
    ChatMessage,
    ChatTemplate,
    chat_messages,
    chat_tools,
)
from tightloop.engine.families.content import refuse_unreadable
from tightloop.engine.families.prefix_probe import PrefixProbe, Setting, shape_of
from tightloop.engine.families.quoting import Quoting, without_begun
from tightloop.engine.families.tool_calls import CALL_OPEN, THINK_OPEN
from tightloop.engine.families.vocabulary import Vocabulary
from tightloop.engine.interface import EngineError, GenerationRequest
from tightloop.engine.sequence_pool import SequencePool
from tightloop.protocol.items import (
    Compaction,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
)
from tightloop.protocol.requests import Tool, ToolChoice


def forced_call(choice: ToolChoice) -> str:
    """How the answer must begin so that a tool is called; nothing when the model may choose.

    No space at the end: models have tokens that begin with one.
    """
    if choice in ("auto", "none"):
        return ""
    if choice == "required":
        return f'{CALL_OPEN}\n{{"name":'
    return f'{CALL_OPEN}\n{{"name": {json.dumps(choice)}, "arguments":'


def opens_thinking(prompt: str) -> bool:
    """Whether the answer begins inside a block of reasoning."""
    return prompt.rstrip().endswith(THINK_OPEN)


def can_think(request: GenerationRequest) -> bool:
    """Whether the client wants reasoning, or leaves it to the model."""
    return request.reasoning_effort not in ("none", "minimal")


@dataclass(frozen=True, slots=True)
class Shown:
    """The messages a model was shown are exactly the first ``num_tokens`` tokens of a prompt.

    ``items`` are those its request brought; what its answer became follows them in its node.
    """

    num_tokens: int
    setting: Setting
    items: tuple[Item, ...]
    instructions: str | None
    tools: tuple[Tool, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """A parent's tokens, of which ``shown`` tells. They only grow."""

    tokens: Sequence[int]
    shown: Shown


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt before it is tokenised: ``text`` follows what ``known`` holds, if anything.

    ``forced`` is the beginning of the answer that the text ends with. ``setting`` is None when a
    continuation cannot build on this prompt.
    """

    request: GenerationRequest
    text: str
    forced: str
    is_thinking: bool
    known: Known | None
    setting: Setting | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens of ``head`` up to ``num_head``, then ``tail``: the head is not copied."""

    head: Sequence[int]
    num_head: int
    tail: list[int]
    shown: Shown | None

    def __len__(self) -> int:
        return self.num_head + len(self.tail)

    def part(self, start: int, end: int) -> list[int]:
        """The tokens from ``start`` to before ``end``, fewer where the prompt ends earlier."""
        size = self.num_head
        tail = self.tail[max(0, start - size) : max(0, end - size)]
        return [*self.head[start : min(end, size)], *tail] if start < size else tail

    def whole(self) -> list[int]:
        """All tokens, as a list of the caller's own."""
        return [*self.head[: self.num_head], *self.tail]


@dataclass(frozen=True, slots=True)
class Settled:
    """The beginning of a prompt that stays as it is however its last item's text goes on.

    ``text`` follows what ``known`` holds, if anything. ``may_begin`` says whether its tokens may.
    """

    text: str
    known: Known | None
    may_begin: Callable[[list[int]], bool]

    @property
    def head(self) -> Sequence[int]:
        """The tokens before the text are the first ``num_head`` of these."""
        return self.known.tokens if self.known is not None else ()

    @property
    def num_head(self) -> int:
        """See ``head``."""
        return self.shown.num_tokens if self.shown is not None else 0

    @property
    def shown(self) -> Shown | None:
        """What is known of the parent's tokens."""
        return self.known.shown if self.known is not None else None


ENDINGS: Final = ("\nA", "0")
"""Two ways in which a text may go on; a template that trims it keeps what stands before them."""


class PromptReader:
    """Renders and tokenises prompts for one model. ``bos`` is what a prompt must begin with."""

    def __init__(
        self, pool: SequencePool, template: ChatTemplate, vocabulary: Vocabulary, *, bos: str
    ) -> None:
        self._pool = pool
        self._template = template
        self._bos = bos
        self._probe = PrefixProbe(template, pool, vocabulary)
        self._quoting = Quoting(vocabulary.is_control_text)
        self._asking: dict[Setting, str] = {}  # what makes the assistant speak

    def draft(self, request: GenerationRequest, known: Known | None) -> Draft:
        """What must be tokenised. Raises ``EngineError`` when it cannot be rendered.

        ``known`` is of the request's parent.
        """
        continued = self._continued(request, known) if known is not None else None
        return continued or self._whole(request)

    def settled(self, request: GenerationRequest, known: Known | None) -> Settled | None:
        """What of an open request's prompt is known for good; None when that is nothing.

        Raises as ``draft``.
        """
        *before, last = request.items or (None,)
        if not isinstance(last, FunctionCallOutput | CustomToolCallOutput):
            return None
        texts: list[str] = []
        base: Known | None = None
        for ending in ENDINGS:
            open_item = structs.replace(last, output=last.output + ending)
            draft = self.draft(replace(request, items=(*before, open_item)), known)
            texts.append(draft.text)
            base = draft.known
        text = without_begun(_common_start(*texts))

        def may_begin(tail: list[int]) -> bool:
            if base is None:
                return True
            return self._may_follow(base.tokens[base.shown.num_tokens - 1], tail, text)

        return Settled(text, base, may_begin) if text else None

    def read(self, draft: Draft) -> Generator[None, None, Prompt]:
        """The prompt's tokens; yields while a long text is read."""
        tail = yield from self._pool.read(draft.text, special=True)
        head: Sequence[int] = ()
        num_head = 0
        if draft.known is not None:
            head, num_head = draft.known.tokens, draft.known.shown.num_tokens
            if not self._may_follow(head[num_head - 1], tail, draft.text):
                whole = self._whole(draft.request)
                tail = yield from self._pool.read(whole.text, special=True)
                head, num_head = (), 0
        shown = self._shown(draft, num_head, tail)
        return Prompt(head, num_head, tail, shown)

    def _may_follow(self, last: int, tail: list[int], text: str) -> bool:
        """Whether ``tail`` is how ``text`` is read after the token ``last``, too."""
        if not tail or not self._probe.is_boundary(last, tail[0]):
            return False
        # Some control tokens swallow the space after them.
        return self._probe.is_control(tail[0]) or not text[0].isspace()

    def _whole(self, request: GenerationRequest) -> Draft:
        # Also when none may be called: the constraint sees to that, and the prompt stays warm.
        tools = chat_tools(request.tools)
        items = request.context()
        refuse_unreadable(items, request.model)
        messages = self._quoting.messages(chat_messages(request.instructions, items))
        text = self._template.render(messages, tools, can_think=can_think(request))
        if not text.startswith(self._bos):
            text = self._bos + text
        return self._draft(request, text, messages, items, None)

    def _continued(self, request: GenerationRequest, known: Known) -> Draft | None:
        shown, parent = known.shown, request.parent
        size = len(shown.items)
        if (
            parent is None
            or parent.items[:size] != shown.items
            or request.instructions != shown.instructions
            or request.tools != shown.tools
            or self._can_think(request) != shown.setting.can_think
        ):
            return None
        items = [*parent.items[size:], *request.items]
        if any(isinstance(item, Compaction) for item in items):
            return None
        refuse_unreadable(items, request.model)
        messages = self._quoting.messages(chat_messages(None, items))
        if not messages or not _stand_alone(messages):
            return None
        if not self._probe.holds(shown.setting, shape_of(messages)):
            return None
        try:
            text = self._probe.continuation(shown.setting, messages)
        except EngineError:  # let the whole conversation say what is wrong
            return None
        if text is None or len(text.strip()) < len(THINK_OPEN):
            return None
        return self._draft(request, text, messages, items, known)

    def _draft(
        self,
        request: GenerationRequest,
        text: str,
        messages: list[ChatMessage],
        items: Sequence[Item],
        known: Known | None,
    ) -> Draft:
        is_thinking = opens_thinking(text)
        # A template that opens the reasoning itself lets the model finish it first.
        forced = forced_call(request.tool_choice) if request.tools and not is_thinking else ""
        setting = None
        # System messages further on are shown in ways that depend on all the others.
        is_usual = all(message["role"] != "system" for message in messages[1:])
        # Templates take user text like this for a tool's output, and a probe cannot know which.
        is_usual &= not any(_is_disguised(message) for message in messages)
        if messages and is_usual and not _ends_thinking(items):
            last_role = messages[-1]["role"]
            setting = Setting(bool(request.tools), self._can_think(request), last_role)
        return Draft(request, text + forced, forced, is_thinking, known, setting)

    def _can_think(self, request: GenerationRequest) -> bool:
        return can_think(request) or not self._template.knows_thinking

    def _shown(self, draft: Draft, num_head: int, tail: list[int]) -> Shown | None:
        """What a continuation can build on: the prompt without what makes the model speak."""
        setting, request = draft.setting, draft.request
        if setting is None or not self._probe.holds(setting, ()):
            return None
        if setting not in self._asking:
            self._asking[setting] = self._probe.continuation(setting, ()) or ""
        text = self._asking[setting] + draft.forced
        if not draft.text.endswith(text):
            return None
        end = self._pool.tokenize(text, special=True)
        size = len(tail) - len(end)
        if size < 1 or tail[size:] != end:
            return None
        if end and not self._probe.is_boundary(tail[size - 1], end[0]):
            return None
        return Shown(num_head + size, setting, request.items, request.instructions, request.tools)


def _common_start(left: str, right: str) -> str:
    """The longest text that both begin with. Compares pieces, not characters one by one."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return left[:low]


def _stand_alone(messages: list[ChatMessage]) -> bool:
    """Whether messages look the same without those before them: see ``chat_messages``."""
    if any(message["role"] == "system" for message in messages):
        return False
    # An answer whose call is further back gets its tool's name from there.
    return all(message["name"] for message in messages if message["role"] == "tool")


def _ends_thinking(items: Sequence[Item]) -> bool:
    """Whether reasoning still waits for the message that it belongs to: see ``chat_messages``."""
    for item in reversed(items):
        if isinstance(item, Reasoning):
            return True
        if isinstance(item, FunctionCall | CustomToolCall):
            return False
        if isinstance(item, Message) and item.role == "assistant":
            return False
    return False


def _is_disguised(message: ChatMessage) -> bool:
    text: str = message["content"]
    return message["role"] == "user" and text.lstrip().startswith("<tool_response>")

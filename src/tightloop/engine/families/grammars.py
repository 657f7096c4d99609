"""Grammars and JSON schemas, compiled to matchers of bytes.

The alphabet is bytes, not a model's tokens: a token is judged by the bytes it stands for, so one
compiled grammar serves every model, and a token may reach over the end of what a grammar rules.

Clients write them, so what they may cost is bounded here; ``grammar_limits`` has the reasons.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from tightloop.engine.families.grammar_limits import (
    MAX_AMBIGUITY,
    MAX_LEXER_STATES,
    MAX_OPTIONS,
    refuse_costly,
)
from tightloop.engine.interface import EngineError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_END: Final = 256
MAX_CACHED: Final = 64
"""Compiled grammars kept; a session repeats its tools with every request."""

STACK_BYTES: Final = 128 << 20
"""For the thread that compiles: the compiler recurses as deep as rules follow one another."""

_OWN_OPTIONS: Final = "x-guidance"
"""Where the compiler would let a schema change how JSON is written."""

# What Jinja's ``tojson`` and ``json.dumps`` write: the next prompt repeats a call in this form, so
# its tokens are still warm. Free white space would also let a model write spaces for ever.
_JSON_FORM: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Source:
    """A grammar as a client wrote it. ``owner`` is what errors name, such as ``tool 'patch'``.

    ``is_lenient``: keywords of a JSON schema that cannot be enforced are passed over.
    """

    kind: Literal["lark", "regex", "json"]
    text: str
    owner: str
    is_lenient: bool = False


def json_source(schema: dict[str, Any], owner: str, *, is_lenient: bool = False) -> Source:
    """The source for a JSON schema."""
    plain = {key: value for key, value in schema.items() if key != _OWN_OPTIONS}
    return Source("json", msgspec.json.encode(plain).decode(), owner, is_lenient)


class ByteMatcher:
    """How far a text has come in a grammar."""

    def __init__(self, matcher: "LLMatcher", owner: str) -> None:
        self._matcher = matcher
        self._owner = owner

    def fresh(self) -> "ByteMatcher":
        """A matcher of its own at the same place."""
        return ByteMatcher(self._matcher.deep_copy(), self._owner)

    def take(self, data: bytes) -> int:
        """How many bytes of ``data`` the grammar allows next; they are taken."""
        taken = self._matcher.try_consume_tokens(list(data))
        if self._matcher.is_error():
            raise EngineError(
                f"the grammar of {self._owner} is too complex to follow: "
                f"{self._matcher.get_error()}; simplify it",
                code="invalid_grammar",
            )
        return taken

    def undo(self, num_bytes: int) -> None:
        """The last ``num_bytes`` bytes were never taken."""
        if num_bytes:
            self._matcher.rollback(num_bytes)

    def allows(self, byte: int) -> bool:
        """Whether ``byte`` may come next."""
        return self._matcher.validate_tokens([byte]) == 1

    @property
    def can_end(self) -> bool:
        """Whether the text so far matches the grammar."""
        return self._matcher.is_accepting()

    @property
    def is_complete(self) -> bool:
        """Whether it matches and nothing can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def next_bytes(self) -> frozenset[int]:
        """The bytes that may come next."""
        if self._matcher.is_stopped():
            return frozenset()
        mask = self._matcher.compute_bitmask()
        return frozenset(b for b in range(256) if mask[b >> 3] >> (b & 7) & 1)


class GrammarCompiler:
    """Compiles sources to matchers at their beginning, and keeps the latest ones.

    Any thread may call; see ``STACK_BYTES``. None waits for what another one compiles.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[Source, ByteMatcher] = OrderedDict()

    def matcher(self, source: Source) -> ByteMatcher:
        """A matcher of the caller's own.

        Raises ``EngineError``, code ``invalid_grammar`` or ``invalid_json_schema``, with the
        owner's name and the compiler's message.
        """
        with self._lock:
            known = self._compiled.get(source)
        if known is None:
            known = self._compile(source)
        with self._lock:
            self._compiled[source] = known
            self._compiled.move_to_end(source)
            if len(self._compiled) > MAX_CACHED:
                self._compiled.popitem(last=False)
            return known.fresh()

    def _compile(self, source: Source) -> ByteMatcher:
        from llguidance import LLMatcher, LLParserLimits

        refuse_costly(source.kind, source.text, source.owner)
        widest = MAX_OPTIONS if source.kind == "json" else MAX_AMBIGUITY
        # Verbose errors would quote the whole grammar.
        limits = LLParserLimits(
            verbose_errors=False, max_items_in_row=widest, max_lexer_states=MAX_LEXER_STATES
        )
        try:
            matcher = LLMatcher(self._bytes(), _grammar(source), log_level=0, limits=limits)
        except ValueError as error:
            raise _refused(source, str(error)) from error
        if matcher.is_error():
            raise _refused(source, matcher.get_error())
        matcher.compute_bitmask()  # most of the lexer is built here, for all copies
        return ByteMatcher(matcher, source.owner)

    def _bytes(self) -> "LLTokenizer":
        from llguidance import LLTokenizer, TokenizerWrapper

        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), eos_token=_END)
            return self._tokenizer


class _Bytes:
    """A vocabulary of the 256 bytes and an end, in the shape ``TokenizerWrapper`` wants."""

    eos_token_id = _END
    bos_token_id = None
    tokens = (*(bytes((b,)) for b in range(256)), b"<end>")
    special_token_ids = (_END,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _grammar(source: Source) -> str:
    from llguidance import LLMatcher

    if source.kind == "lark":
        return LLMatcher.grammar_from_lark(source.text)
    if source.kind == "regex":
        return LLMatcher.grammar_from_regex(source.text)
    options: Any = _JSON_FORM | {"lenient": source.is_lenient}
    return LLMatcher.grammar_from_json_schema(source.text, overrides=options)


def _refused(source: Source, reason: str) -> EngineError:
    what = {"lark": "Lark grammar", "regex": "regular expression", "json": "JSON schema"}
    text = f"the {what[source.kind]} of {source.owner} cannot be compiled: {reason.strip()}"
    if source.kind == "json":
        return EngineError(text, code="invalid_json_schema")
    return EngineError(text, code="invalid_grammar")

"""Which host takes what, as data. A field that a host does not know can make it refuse the request.

The kind of a host is told from its name, else from ``owned_by`` in its list of models, else it is
``other``, which gets the fields of Chat Completions that every host knows and no more.

Sources: the hosts' public API references in autumn 2026; for vLLM 0.33, SGLang 0.5.23 and Dynamo 1.6
their request schemas (``session_id`` in the body of the first two, a header of the third). Compressed
request bodies are documented by Cerebras and NanoGPT; aiohttp, and so this project's server, reads
them; FastAPI, and so vLLM and SGLang, does not.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tightloop.engine.interface import GenerationRequest

MAX_KEY_CHARS: Final = 64
"""Of ``prompt_cache_key``. Source: Open Responses specification, 2026-04-24."""


MAX_KEYS_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class HostKind:
    """What one kind of host knows.

    ``cache_key`` and ``session_field`` are names of body fields, ``session_header`` of a header, for
    the conversation's key; empty for none. ``service_tier``, ``prediction``: the fields are known.
    ``limit_field`` is the name of the limit on output tokens. ``gzip``: True where compressed bodies
    are documented, False where they are known to be refused, None to find out. ``seed``: its Responses
    API takes one. ``timing``: it answers ``tightloop.timing``. ``plain_reasoning``: its Responses API
    takes reasoning that is not encrypted.
    """

    name: str
    cache_key: str = ""
    session_field: str = ""
    session_header: str = ""
    service_tier: bool = False
    limit_field: str = "max_tokens"
    gzip: bool | None = None
    seed: bool = False
    timing: bool = False
    plain_reasoning: bool = False
    prediction: bool = False


_KINDS: Final = (
    HostKind("other"),
    HostKind(
        "openai",
        cache_key="prompt_cache_key",
        prediction=True,
        service_tier=True,
        limit_field="max_completion_tokens",
    ),
    HostKind(
        "cerebras",
        cache_key="prompt_cache_key",
        prediction=True,
        service_tier=True,
        limit_field="max_completion_tokens",
        gzip=True,
    ),
    HostKind("groq", service_tier=True, limit_field="max_completion_tokens"),
    HostKind("deepseek"),
    HostKind("fireworks", session_header="x-session-affinity"),
    HostKind("nanogpt", gzip=True),
    HostKind("vllm", session_field="session_id", gzip=False),
    HostKind("sglang", session_field="session_id", gzip=False),
    HostKind("dynamo", session_header="x-dynamo-session-id"),
    HostKind("llama_cpp", gzip=False),
    HostKind(
        "tightloop",
        cache_key="prompt_cache_key",
        prediction=True,
        service_tier=True,
        gzip=True,
        seed=True,
        timing=True,
        plain_reasoning=True,
    ),
)

HOST_KINDS: Final[Mapping[str, HostKind]] = {kind.name: kind for kind in _KINDS}
"""By name, as the option ``host_kind`` has it."""

_BY_DOMAIN: Final = {
    "openai.com": "openai",
    "cerebras.ai": "cerebras",
    "groq.com": "groq",
    "deepseek.com": "deepseek",
    "fireworks.ai": "fireworks",
    "nano-gpt.com": "nanogpt",
}
_BY_OWNER: Final = {
    "vllm": "vllm",
    "sglang": "sglang",
    "nvidia": "dynamo",
    "llamacpp": "llama_cpp",
    "tightloop": "tightloop",
}


def kind_of_url(hostname: str) -> HostKind | None:
    """The kind of a public host by its name; None for any other."""
    domain = ".".join(hostname.lower().rsplit(".", 2)[-2:])
    name = _BY_DOMAIN.get(domain)
    return HOST_KINDS[name] if name else None


def kind_of_owner(owners: frozenset[str]) -> HostKind | None:
    """The kind told by ``owned_by`` in the list of models, if all entries name one software."""
    names = {_BY_OWNER.get(owner.lower()) for owner in owners}
    name = names.pop() if len(names) == 1 else None
    return HOST_KINDS[name] if name else None


# ---------------------------------------------------------------------- the conversation's key


class ConversationKeys:
    """One key for all turns of a conversation: the client's, or made of the first response's id.

    At most ``MAX_KEY_CHARS`` characters. A fork shares the key, as it shares the prefix. The key of a
    turn's parent is remembered: the way to the root of a long conversation is long.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, request: GenerationRequest) -> str:
        """The key of the conversation that ``request`` goes on with."""
        if request.cache_key:
            key = request.cache_key
            return key if len(key) <= MAX_KEY_CHARS else _digest(key)
        found: str | None = None
        node, root_id = request.parent, request.response_id
        while node is not None and found is None:
            found = self._known.get(node.id)
            root_id, node = node.id, node.parent
        found = found or f"tl-{_digest(root_id)}"
        self._known[request.response_id] = found
        if len(self._known) > MAX_KEYS_KEPT:
            self._known.popitem(last=False)
        return found


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def affinity_fields(kind: HostKind, request: GenerationRequest, key: str) -> dict[str, Any]:
    """The body's fields that say to which conversation and tier the request belongs."""
    fields: dict[str, Any] = {}
    if kind.cache_key:
        fields[kind.cache_key] = key
    if kind.session_field:
        fields[kind.session_field] = key
    if kind.service_tier and request.service_tier:
        fields["service_tier"] = request.service_tier
    return fields


def affinity_headers(kind: HostKind, key: str) -> dict[str, str]:
    """The headers for the same. Nothing of the client's text goes into a header as it is."""
    if not kind.session_header:
        return {}
    return {kind.session_header: key if key.isascii() and key.isprintable() else _digest(key)}

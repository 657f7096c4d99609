"""Names of remote models, and what can be set about their host.

::

    remote:MODEL@https://HOST/v1                     one model
    remote:*@https://HOST/v1   remote:https://HOST/v1   every model that the host lists
    remote:MODEL@wss://HOST/v1                       as https, over the Responses WebSocket
    remote:MODEL@https://HOST/v1#api=auto&gzip=off   with options, the fields of ``RemoteOptions``
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tightloop.engine.interface import EngineError
from tightloop.engine.remote.hosts import HOST_KINDS

ALL_MODELS: Final = "*"

APIS: Final = ("chat", "responses", "responses-ws", "auto")
GZIP_MODES: Final = ("auto", "on", "off")
HTTP_VERSIONS: Final = ("1", "2", "auto")

_NAME: Final = re.compile(
    r"remote:(?:(?P<model>.+)@)?(?P<url>(?:https?|wss?)://[^\s#]+)(?:#(?P<options>\S*))?$"
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS: Final = {"yes": True, "on": True, "true": True, "1": True,
                 "no": False, "off": False, "false": False, "0": False}  # fmt: skip


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How to talk to a host. Each field is an option of the same name behind ``#``.

    ``api``: ``chat`` (Chat Completions), ``responses`` (HTTP), ``responses-ws`` (WebSocket mode), or
    ``auto``, which asks for the WebSocket at the start and takes chat when there is none.
    ``gzip``: compress request bodies; ``auto`` tries it once where it pays and learns. ``http``: the
    version over TLS; ``2`` needs the extra ``http2``, ``auto`` takes it if the host offers it and the
    extra is there. ``warm``: connections opened at the start. ``host_kind``: one of
    ``hosts.HOST_KINDS``, empty to find out. ``warms_up``: prefill hints become requests of one token,
    which cost money. ``key_env``: the environment variable with the key. ``sends_reasoning``: the
    model's earlier reasoning goes back to it (chat). ``context_window``: tokens, 0 to ask the host.
    ``congestion``: the kernel's congestion control for these connections, e.g. ``bbr``; empty for the
    machine's. ``max_sockets``: WebSockets held, one for each conversation. ``idle_s``: an idle one is
    closed after so many seconds.
    """

    api: str = "chat"
    gzip: str = "auto"
    http: str = "1"
    warm: int = 1
    host_kind: str = ""
    warms_up: bool = False
    key_env: str = ""
    sends_reasoning: bool = False
    context_window: int = 0
    congestion: str = ""
    max_sockets: int = 64
    idle_s: float = 900.0


_CHOICES: Final = {
    "api": APIS,
    "gzip": GZIP_MODES,
    "http": HTTP_VERSIONS,
    "host_kind": ("", *HOST_KINDS),
}
_LOWEST: Final = {"warm": 0, "context_window": 0, "max_sockets": 1, "idle_s": 1.0}


@dataclass(frozen=True, slots=True)
class RemoteName:
    """The parts of a name; ``model`` is ``*`` for every model of the host."""

    model: str
    base_url: str
    options: RemoteOptions = RemoteOptions()

    @property
    def is_all(self) -> bool:
        """Whether the host's listing says which models there are."""
        return self.model == ALL_MODELS


def parse_remote_name(spec: str) -> RemoteName:
    """What ``spec`` names. Raises ``EngineError`` showing the form, or the option at fault."""
    match = _NAME.match(spec)
    if match is None or not _is_address(match["url"]):
        raise EngineError(
            f"{spec!r} does not name a remote model; write remote:MODEL@https://HOST/v1",
            code="model_not_found",
        )
    check_address(match["url"])
    options = parse_options(match["options"] or "")
    url = match["url"].rstrip("/")
    if url.startswith("ws"):
        url = f"http{url[2:]}"
        options = replace(options, api="responses-ws")
    return RemoteName(match["model"] or ALL_MODELS, url, options)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # a port or an IPv6 address that is none
        return False


def check_address(url: str) -> None:
    """Raises ``EngineError`` where ``url`` may hold a secret: addresses are shown to every client."""
    parts = urlsplit(url)
    if parts.username is not None or parts.query:
        raise EngineError(
            "the address of a remote host must have neither a user nor a query in it: it is shown to"
            " clients; put the key into a variable and name that with key_env",
            code="invalid_value",
        )


def check_key_env(name: str) -> None:
    """Raises ``EngineError`` unless ``name`` can be a variable's; it is not told: it may be the key."""
    if not _VARIABLE.fullmatch(name):
        raise EngineError(
            "key_env names the variable that holds the key, in letters, digits and underscores, as"
            " in OPENAI_API_KEY; what was given is no such name",
            code="invalid_value",
        )


def parse_options(text: str) -> RemoteOptions:
    """The options in ``a=b&c=d``. Raises ``EngineError`` naming what is wrong."""
    types = {field.name: field.type for field in fields(RemoteOptions)}
    values: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in types:
            raise _bad(f"there is no option {name!r}; there are {', '.join(types)}")
        values[name] = _read(name, value, types[name])
    if values.get("key_env"):
        check_key_env(values["key_env"])
    return RemoteOptions(**values)


def _read(name: str, text: str, kind: object) -> Any:
    if kind is bool:
        if text.lower() not in _WORDS:
            raise _bad(f"{name} must be yes or no, got {text!r}")
        return _WORDS[text.lower()]
    if kind is int or kind is float:
        try:
            number = int(text) if kind is int else float(text)
        except ValueError:
            raise _bad(f"{name} must be a number, got {text!r}") from None
        if not _LOWEST[name] <= number < 1e9:
            raise _bad(f"{name} must be {_LOWEST[name]} or more, got {text!r}")
        return number
    known = _CHOICES.get(name)
    if known is not None and text not in known:
        raise _bad(f"{name} must be one of {', '.join(filter(None, known))}, got {text!r}")
    return text


def _bad(message: str) -> EngineError:
    return EngineError(f"options of a remote host: {message}", code="invalid_value")

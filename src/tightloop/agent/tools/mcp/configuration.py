"""The tables ``[mcp.NAME]`` of the user's configuration: which servers, and how to reach them.

Only the user's own file is read. A repository cannot name a server, since starting one is running
a program with the user's rights.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]|_(?!_))*(?<!_)", re.IGNORECASE)
MAX_NAME_CHARS: Final = 24
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class McpConfigError(ValueError):
    """A table of the configuration cannot be used; the text names the file and the key."""


class McpTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server: ``command`` is started and spoken to over its standard streams, or ``url`` is
    reached over HTTP. Its variables and headers may come from the user's environment."""

    command: str | None = None
    args: list[str] = []
    env: dict[str, str] = {}
    env_from: list[str] = []
    directory: str | None = None
    url: str | None = None
    headers: dict[str, str] = {}
    headers_from_env: dict[str, str] = {}
    bearer_token_env: str | None = None
    tools: list[str] | None = None
    start_timeout_s: _Seconds = 20.0
    call_timeout_s: _Seconds = 120.0
    protocol: Literal["auto", "legacy"] = "auto"
    trusted: bool = False
    enabled: bool = True


def read_mcp_tables(tables: Mapping[str, Any], place: str) -> dict[str, McpTable]:
    """The enabled servers by name, from the decoded file called ``place``. Raises McpConfigError."""
    table = tables.get("mcp", {})
    if not isinstance(table, dict):
        raise McpConfigError(f"{place}: [mcp] must hold tables [mcp.NAME]")
    servers = {name: _read(name, one, f"{place}: [mcp.{name}]") for name, one in table.items()}
    return {name: server for name, server in servers.items() if server.enabled}


def _read(name: str, value: object, place: str) -> McpTable:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        raise McpConfigError(
            f"{place}: the name must be at most {MAX_NAME_CHARS} letters, digits, '-' and single "
            "'_' between them; it becomes part of the tools' names"
        )
    try:
        table = msgspec.convert(value, McpTable)
    except msgspec.ValidationError as error:
        raise McpConfigError(f"{place} {in_words(str(error), McpTable)}") from error
    for key, problem in _problems(table):
        raise McpConfigError(f"{place} {key}: {problem}")
    return table


def _problems(table: McpTable) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if (table.command is None) == (table.url is None):
        found.append(("command", "give either command or url"))
    others = _HTTP_KEYS if table.url is None else _STDIO_KEYS
    kind = "command" if table.url is None else "url"
    found += [(key, f"has no effect beside {kind}") for key in others if getattr(table, key)]
    if table.command is not None and (not table.command.strip() or "\0" in table.command):
        found.append(("command", "must name a program"))
    if table.url is not None and not _is_url(table.url):
        found.append(("url", f"{table.url!r} is not an http or https URL"))
    variables = [*table.env, *table.env_from, *table.headers_from_env.values()]
    for name in [*variables, *filter(None, [table.bearer_token_env])]:
        if not _VARIABLE.fullmatch(name):
            found.append(("env", f"{name!r} cannot be a variable"))
    for name, value in table.headers.items():
        if not _HEADER.fullmatch(name) or not value.isprintable():
            found.append(("headers", f"{name!r} cannot be a header with this value"))
    for name in table.headers_from_env:
        if not _HEADER.fullmatch(name):
            found.append(("headers_from_env", f"{name!r} cannot be a header"))
    return found


_STDIO_KEYS: Final = ("args", "env", "env_from", "directory")
_HTTP_KEYS: Final = ("headers", "headers_from_env", "bearer_token_env")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def in_words(message: str, kind: type[msgspec.Struct]) -> str:
    """msgspec's message about a ``kind``, with the key in front, as TOML writes it."""
    if unknown := re.search(r"unknown field `(.*?)`", message):
        known = ", ".join(kind.__struct_fields__)
        return f"unknown key {unknown[1]!r}; known are {known}"
    text, _, place = message.partition(" - at `$")
    key = place.rstrip("`").lstrip(".").replace("[...]", "")
    text = text[:1].lower() + text[1:].replace("`", "")
    return f"{key}: {text}" if key else f"must be a table: {text}"


def variables_of(table: McpTable, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a started server gets besides HOME, LOGNAME, PATH, SHELL, TERM and USER.

    Raises McpConfigError naming a variable of ``env_from`` that is not set.
    """
    known = os.environ if environment is None else environment
    return {**{name: _value(name, known) for name in table.env_from}, **table.env}


def headers_of(table: McpTable, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The headers of each request to a server. Raises McpConfigError for a variable that is not set
    or cannot be sent."""
    known = os.environ if environment is None else environment
    headers = dict(table.headers)
    for name, variable in table.headers_from_env.items():
        headers[name] = _sendable(variable, known)
    if table.bearer_token_env is not None:
        headers["Authorization"] = f"Bearer {_sendable(table.bearer_token_env, known)}"
    return headers


def _sendable(name: str, known: Mapping[str, str]) -> str:
    value = _value(name, known).strip()
    if not value.isascii() or not value.isprintable():
        raise McpConfigError(f"the value of ${name} cannot be sent in a header")
    return value


def _value(name: str, known: Mapping[str, str]) -> str:
    if name not in known:
        raise McpConfigError(f"the variable {name} is not set")
    return known[name]

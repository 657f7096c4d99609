"""The first lines that a client sends to a proxy, read strictly.

What two programs may read differently is refused, so that nobody can say one destination to the
proxy and another to the server. Facts: RFC 9112 sections 3.2 (request targets), 6 (body length)
and 11 (smuggling), RFC 9110 section 7.6.1 (fields of one hop only).
"""

import re
from dataclasses import dataclass
from typing import Final

MAX_HEAD_BYTES: Final = 32 << 10
_METHOD: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_AUTHORITY: Final = re.compile(
    r"([^:@/?#\[\]\s\x00-\x1f\x7f]+|\[[0-9a-fA-F:.]*\])(?::([0-9]{1,5}))?"
)
_HOP: Final = frozenset(
    {
        *("connection", "proxy-connection", "keep-alive", "proxy-authorization"),
        *("te", "trailer", "upgrade"),  # codespell:ignore te
    }
)


class BadRequest(ValueError):
    """What came is not a request that a proxy serves. ``status`` is the answer's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """``host`` as written. ``head`` is what the server gets, nothing for a tunnel (CONNECT).

    ``num_body_bytes`` is how much of what follows belongs to the request.
    """

    method: str
    host: str
    port: int
    head: bytes = b""
    num_body_bytes: int = 0

    @property
    def is_tunnel(self) -> bool:
        """Whether the client wants a connection and not an answer."""
        return self.method == "CONNECT"


def read_request(head: bytes) -> Request:
    """The request whose head, with the empty line at its end, these bytes are.

    Raises BadRequest for everything that is not exactly one.
    """
    lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not _METHOD.fullmatch(words[0]):
        raise BadRequest("this is an HTTP proxy, and the first line is not an HTTP request")
    method, target, version = words
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest(f"HTTP version {version[:20]!r} is not served", 505)
    fields = [_field(line) for line in lines[1:]]
    if method == "CONNECT":
        host, port = _authority(target, None)
        _check_host(fields, host, port, None)
        return Request(method, host, port)
    if not target[:7].lower() == "http://":
        raise BadRequest("the target must begin with http:// here; https needs CONNECT")
    authority, path = _split(target[7:])
    host, port = _authority(authority, 80)
    _check_host(fields, host, port, 80)
    num_body_bytes = _body_length(fields)
    shown = host if port == 80 else f"{host}:{port}"
    kept = _end_to_end(fields)
    out = [f"{method} {path} HTTP/1.1", f"Host: {shown}"]
    out += [f"{name}: {value}" for name, value in kept]
    out += ["Connection: close", "", ""]
    return Request(method, host, port, "\r\n".join(out).encode("latin-1"), num_body_bytes)


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    value = value.strip(" \t")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise BadRequest(f"malformed header line {line[:40]!r}")
    return name, value


def _split(rest: str) -> tuple[str, str]:
    end = next((at for at, sign in enumerate(rest) if sign in "/?#"), len(rest))
    path = rest[end:].partition("#")[0]
    if not _VALUE.fullmatch(path):
        raise BadRequest("control characters in the target")
    return rest[:end], path if path.startswith("/") else "/" + path


def _authority(text: str, default_port: int | None) -> tuple[str, int]:
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise BadRequest(f"{text[:80]!r} is not a host with a port")
    port = int(match[2]) if match[2] else default_port
    if port is None or not 0 < port < 65536:
        raise BadRequest(f"{text[:80]!r} has no port from 1 to 65535")
    return match[1], port


def _check_host(
    fields: list[tuple[str, str]], host: str, port: int, default_port: int | None
) -> None:
    """A Host line must name the destination, else a shared server would serve another site."""
    given = [value for name, value in fields if name.lower() == "host"]
    if len(given) > 1:
        raise BadRequest("more than one Host line")
    for value in given:
        named, its_port = _authority(value, default_port or port)
        if (named.lower(), its_port) != (host.lower(), port):
            raise BadRequest(f"the Host line names {value[:80]!r}, the target {host}:{port}", 403)


def _body_length(fields: list[tuple[str, str]]) -> int:
    if any(name.lower() == "transfer-encoding" for name, _ in fields):
        raise BadRequest("a body must come with its Content-Length here", 411)
    lengths = [value for name, value in fields if name.lower() == "content-length"]
    if not lengths:
        return 0
    if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,15}", lengths[0]):
        raise BadRequest(f"Content-Length {', '.join(lengths)[:40]!r} is not one number")
    return int(lengths[0])


def _end_to_end(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    named = {
        word.strip().lower()
        for name, value in fields
        if name.lower() == "connection"
        for word in value.split(",")
    }
    dropped = (_HOP | named | {"host"}) - {"content-length"}
    return [(name, value) for name, value in fields if name.lower() not in dropped]

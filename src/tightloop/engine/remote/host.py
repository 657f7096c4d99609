"""One host as every way of asking it sees it: address, key, kind, connections."""

import ipaddress
import os
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from tightloop.engine.interface import EngineError
from tightloop.engine.remote.bodies import Body
from tightloop.engine.remote.compression import Compression
from tightloop.engine.remote.errors import refusal, retry_after_s
from tightloop.engine.remote.hosts import (
    HOST_KINDS,
    ConversationKeys,
    HostKind,
    affinity_headers,
    kind_of_owner,
    kind_of_url,
)
from tightloop.engine.remote.options import RemoteOptions
from tightloop.engine.remote.upstream import Reply, Upstream, read_whole
from tightloop.protocol.chat_chunk import host_error

MAX_ERROR_BYTES: Final = 64 * 1024

MIN_KEY_CHARS: Final = 6
"""A shorter one, such as ``none`` for a host on this machine, is no secret but a word."""


class Host:
    """The host at ``base_url``, which ends in ``/v1``.

    ``upstream`` is set before the first request. The key is read from the environment variable
    ``key_env`` at each request; without one no ``Authorization`` header is sent, which suits hosts on
    the own machine.
    """

    upstream: Upstream

    def __init__(self, base_url: str, options: RemoteOptions, key_env: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.options = options
        self.key_env = options.key_env or key_env
        parts = urlsplit(base_url)
        self.address = parts.netloc
        hostname = parts.hostname or ""
        self._known_kind = HOST_KINDS.get(options.host_kind) or kind_of_url(hostname)
        self.kind: HostKind = self._known_kind or HOST_KINDS["other"]
        self.keys = ConversationKeys()
        self.compression = Compression(options.gzip, is_near=is_near(hostname))

    def learn_owners(self, owners: frozenset[str]) -> None:
        """Take the host's kind from its list of models, unless it is known better."""
        if self._known_kind is None:
            self.kind = kind_of_owner(owners) or self.kind

    def api_key(self) -> str | None:
        """The key as it is now, without the end of its line.

        Raises ``EngineError`` for one that cannot stand in a header.
        """
        key = os.environ.get(self.key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise EngineError(
                f"what the variable {self.key_env} holds is no key: there are characters in it that"
                " cannot be sent",
                code="invalid_api_key",
            )
        return key or None

    def without_key(self, text: str) -> str:
        """``text`` with the key hidden, which some hosts repeat in their errors."""
        key = os.environ.get(self.key_env, "").strip()
        return text.replace(key, "[key]") if len(key) >= MIN_KEY_CHARS else text

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        key = self.api_key()
        return {"Authorization": f"Bearer {key}"} if key else {}

    async def ask(self, path: str, body: Body, key: str, who: str) -> Reply:
        """The answer, with status 200, to ``body`` of the conversation ``key``.

        Raises ``Refusal`` for any other status, and as ``Upstream.post``.
        """
        headers = affinity_headers(self.kind, key)
        packed = await self.compression.encoded(key, body, self.kind.gzip)
        if packed is not None:
            reply = await self.upstream.post(path, packed, {**headers, "Content-Encoding": "gzip"})
            if not self.compression.is_doubtful(reply.status):
                if reply.status == 200:
                    self.compression.learn(is_taken=True)
                return await self._accepted(reply, who)
            reply.close()
        reply = await self.upstream.post(path, body.joined(), headers)
        if packed is not None and reply.status == 200:
            self.compression.learn(is_taken=False)
        return await self._accepted(reply, who)

    async def _accepted(self, reply: Reply, who: str) -> Reply:
        if reply.status == 200:
            return reply
        try:
            raw = await read_whole(reply, MAX_ERROR_BYTES)
        finally:
            reply.close()
        error = host_error(said(raw), status=reply.status)
        error.retry_after_s = retry_after_s(reply.headers)
        raise refusal(error, who, self.key_env)


def said(data: bytes) -> Any:
    """What a host says outside a stream: decoded JSON, or else the text's beginning."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data[:200].decode("utf-8", "replace")


def is_near(hostname: str) -> bool:
    """Whether the name is this machine's."""
    if hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return False

"""Who may talk to this server: API keys, and which addresses may go without.

A server on a loopback address may go without keys: only this machine reaches it. A web page open
in a browser on this machine reaches it too, so without keys a request with an ``Origin`` of another
site is refused: a page must not drive the model of whoever visits it.
"""

import hashlib
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from tightloop.governance.keys import KeyRing
from tightloop.protocol.errors import ApiError


class Access:
    """The rules of one server. Raises ValueError for a server that would be open to a network."""

    def __init__(self, keys: KeyRing, host: str) -> None:
        self._keys = keys
        if not keys and not is_loopback(host):
            raise ValueError(
                f"refusing to listen on {host} without an API key, because other machines could"
                " use this server; give --api-key, set TIGHTLOOP_API_KEYS, or use --host 127.0.0.1"
            )

    def check(self, headers: Mapping[str, str]) -> None:
        """Pass, or raise ``ApiError`` 401 or 403. Called once per socket or HTTP request."""
        if self._keys:
            if not self._has_key(headers):
                raise ApiError(
                    "missing or unknown API key; send it as 'Authorization: Bearer KEY'"
                    " or as 'x-api-key: KEY'",
                    status=401,
                    error_type="authentication_error",
                    code="invalid_api_key",
                )
        elif not _is_local_origin(headers.get("Origin")):
            raise ApiError(
                "web pages of other sites may not use a server without an API key",
                status=403,
                code="origin_not_allowed",
            )

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        """Whether either of the two headers in use holds a key; Anthropic's clients use the second."""
        if self._keys.accepts(headers.get("Authorization")):
            return True
        key = headers.get("x-api-key")
        return key is not None and self._keys.accepts(f"Bearer {key}")


def client_of(headers: Mapping[str, str]) -> str:
    """What is the same for all requests with one API key, and tells nothing of the key.

    Empty for those without; they are all one client. Both headers count: either may hold the key, and
    the other one what many clients send alike.
    """
    given = [headers.get(name) or "" for name in ("Authorization", "x-api-key")]
    if not any(given):
        return ""
    return hashlib.blake2b("\n".join(given).encode("utf-8", "replace"), digest_size=16).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``; unknown names count as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_local_origin(origin: str | None) -> bool:
    try:
        return origin is None or is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False

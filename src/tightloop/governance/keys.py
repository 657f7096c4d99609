"""API keys: who may use a server.

Only digests are kept, so a key never shows in a traceback or a memory dump of this object, and
comparing digests of equal length in constant time tells an attacker nothing about the key.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

ENVIRONMENT_VARIABLE = "TIGHTLOOP_API_KEYS"
MAX_KEY_CHARS = 512


class BadKeyError(ValueError):
    """A configured key cannot be used; the text says which source and why."""


class KeyRing:
    """The keys a server accepts. Empty means that no key is configured."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accepts(self, authorization: str | None) -> bool:
        """Whether an ``Authorization`` header value is ``Bearer`` and one of the keys.

        Takes the same time whichever key matches: every digest is compared.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or len(key) > MAX_KEY_CHARS:
            return False
        digest = _digest(key.strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def load_keys(
    given: Iterable[str], environment: Mapping[str, str], key_file: Path | None = None
) -> KeyRing:
    """The keys from the command line, ``TIGHTLOOP_API_KEYS`` (comma list) and a file.

    The file has one key a line; empty lines and lines starting with ``#`` are skipped. Raises
    ``BadKeyError`` naming the source when a key is empty, too long or has spaces in it, and
    OSError when the file cannot be read.
    """
    keys = [_checked(key, "--api-key") for key in given]
    if ENVIRONMENT_VARIABLE in environment:
        listed = environment[ENVIRONMENT_VARIABLE].split(",")
        keys += [_checked(key.strip(), ENVIRONMENT_VARIABLE) for key in listed]
    if key_file is not None:
        try:
            lines = [line.strip() for line in key_file.read_text("utf-8").splitlines()]
        except UnicodeDecodeError as error:
            raise BadKeyError(f"{key_file} is not a text file: {error.reason}") from error
        keys += [_checked(line, str(key_file)) for line in lines if line and line[0] != "#"]
        if not keys:
            raise BadKeyError(f"{key_file} holds no key; put one key on each line")
    return KeyRing(keys)


def _checked(key: str, source: str) -> str:
    if not key:
        raise BadKeyError(f"{source} holds an empty key; remove it or give a value")
    if len(key) > MAX_KEY_CHARS or any(c.isspace() or not c.isascii() for c in key):
        raise BadKeyError(
            f"{source} holds a key with spaces or non-ASCII characters,"
            f" or longer than {MAX_KEY_CHARS} characters"
        )
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()

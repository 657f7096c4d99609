"""Values of the user's secrets, made unreadable in what commands print.

Variables with the name of a secret stay outside (``environment.py``), but a command can meet their
values elsewhere: in a file, in a server's answer, in a variable that a policy hands over. What it
prints goes to the model, to a provider, to logs. This guards against accidents. A value in another
form (base64, cut by line breaks, backwards) is not found.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

MIN_CHARS: Final = 8
"""Shorter values would hit innocent words."""
MARK: Final = "***"
_NAME: Final = re.compile(
    r"(^|_)(API_?KEY|TOKEN|SECRET|PAT|(ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION)_?KEY)$"
    r"|PASSWORD|PASSPHRASE|PASSWD|^MYSQL_PWD$",
    re.IGNORECASE,
)
_NO_SECRETS: Final = frozenset(
    [
        "anonymous",
        "changeme",
        "development",
        "disabled",
        "localhost",
        "minioadmin",
        "password",
        "postgres",
        "postgresql",
        "production",
        "rabbitmq",
        "undefined",
        "username",
    ]
)
"""What services and examples are set up with: everybody knows them, and source code is full of them."""
_IN_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s:]*:([^/?#@\s]+)@", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret, such as ``OPENAI_API_KEY``."""
    return _NAME.search(name) is not None


def secret_values(variables: Mapping[str, str]) -> list[str]:
    """What must not be shown of these variables: secrets by name, and passwords in addresses.

    Well-known defaults are none: a model that reads ``***`` for ``postgres`` writes wrong patches.
    """
    found = [value for name, value in variables.items() if is_secret_name(name)]
    found += [match[1] for value in variables.values() for match in _IN_URL.finditer(value)]
    return [value for value in found if value.lower() not in _NO_SECRETS]


class Redactor:
    """Knows what to make unreadable. Immutable; ``stream`` begins one output.

    Values shorter than ``MIN_CHARS`` are left alone, unless they are ``short`` ones that somebody
    named. A value of several lines counts line by line: a terminal ends lines in its own way.
    """

    def __init__(self, values: Iterable[str] = (), *, short: Iterable[str] = ()) -> None:
        lines = {line.strip() for value in values for line in value.splitlines()}
        wanted = {line for line in lines if len(line) >= MIN_CHARS} | {one for one in short if one}
        forms = {form for value in wanted for form in _forms(value)}
        data = {form.encode("utf-8", "surrogateescape") for form in forms}
        self._values = sorted(data, key=lambda value: (-len(value), value))
        self._pattern = re.compile(b"|".join(map(re.escape, self._values)) or rb"(?!)")

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._values)

    def data(self, data: bytes) -> bytes:
        """The bytes with a mark in the place of each value; the longest where several fit."""
        if not any(value in data for value in self._values):  # much quicker than the pattern
            return data
        return self._pattern.sub(MARK.encode(), data)

    def text(self, text: str) -> str:
        """As ``data``, for text."""
        if not self._values:
            return text
        data = text.encode("utf-8", "surrogatepass")
        return self.data(data).decode("utf-8", "surrogatepass")

    def stream(self) -> "RedactedStream":
        """For one output that comes in pieces."""
        return RedactedStream(self)

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """What can be shown of data that may go on, and what must wait because a value may end it."""
        shown: list[bytes] = []
        at, hold = 0, self._open_from(data, 0)
        if any(value in data for value in self._values):
            while (match := self._pattern.search(data, at)) and match.start() < hold:
                shown += (data[at : match.start()], MARK.encode())
                at = match.end()
                if at > hold:
                    hold = self._open_from(data, at)
        return b"".join((*shown, data[at:hold])), data[hold:]

    def _open_from(self, data: bytes, at: int) -> int:
        """Where the earliest value begins that the data, from ``at`` on, ends in the middle of."""
        first = len(data)
        for value in self._values:
            place = data.find(value[:1], max(at, len(data) - len(value) + 1))
            while 0 <= place < first:
                if value.startswith(data[place:]):
                    first = place
                    break
                place = data.find(value[:1], place + 1)
        return first


class RedactedStream:
    """One output: the same text comes out however the pieces were cut."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be shown now. At most the length of the longest value is held back."""
        if not self._redactor:
            return data
        shown, self._held = self._redactor.split(self._held + data)
        return shown

    def end(self) -> bytes:
        """The rest: nothing follows that could make a value of it."""
        held, self._held = self._held, b""
        return self._redactor.data(held)


def _forms(value: str) -> set[str]:
    """As it is, and as it stands in JSON and in addresses."""
    quoted = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return {value, quote(value, safe="", errors="surrogateescape"), *quoted}

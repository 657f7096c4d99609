"""One table of a configuration file, read with care: whatever is wrong is named with its place."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from tightloop.engine.interface import EngineError

_NONE: Any = object()

MOST = 1_000_000_000
"""Of any number: 30 years in seconds, a petabyte in MB. Larger ones break arithmetic further on."""


class ConfigError(EngineError):
    """The configuration cannot be used; the text names the place, the value and what would do."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_value")


class Table:
    """Hands out checked values; ``end`` refuses what nobody asked for.

    ``place`` is how errors call the table, e.g. ``fleet.toml: model[1]``. Every method raises
    ``ConfigError``.
    """

    def __init__(self, place: str, values: Mapping[str, Any]) -> None:
        self.place = place
        self._values = values
        self._known: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str | None = _NONE) -> Any:
        """A text of one line that is not empty; the default, if there is one, where it is missing."""
        value = self._take(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{name} must be a text, got {_shown(value)}")
        if not value.isprintable():
            raise self.error(f"{name} must have no control characters in it, got {value!r}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._take(name, default)
        if not isinstance(value, bool):
            raise self.error(f"{name} must be true or false, got {value!r}")
        return value

    def integer(self, name: str, default: int | None, *, least: int = 1) -> Any:
        """A whole number of at least ``least``, ``MOST`` at most."""
        value = self._take(name, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(
                f"{name} must be a whole number of {least} or more, got {_shown(value)}"
            )
        self._check_size(name, value)
        return value

    def number(self, name: str, default: Decimal | float | None, *, least: float = 0) -> Any:
        """A number of at least ``least``, ``MOST`` at most, as a Decimal."""
        value = self._take(name, default)
        if value is default:
            return value
        is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        if not is_number or not Decimal(value).is_finite() or value < least:
            raise self.error(f"{name} must be a number of {least} or more, got {_shown(value)}")
        self._check_size(name, value)
        return Decimal(value)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of the words."""
        value = self._take(name, default)
        if value not in choices:
            raise self.error(f"{name} must be one of {', '.join(choices)}, got {_shown(value)}")
        return str(value)

    def table(self, name: str) -> "Table":
        """The table of this name; an empty one where it is missing."""
        value = self._take(name, {})
        if not isinstance(value, dict):
            raise self.error(f"{name} must be a table, got {_shown(value)}")
        return Table(f"{self.place}: {name}", value)

    def tables(self, name: str) -> Iterator["Table"]:
        """The tables of an array of them, numbered from 1 in their places."""
        value = self._take(name, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.error(f"{name} must be tables, each below a line [[{name}]]")
        for number, one in enumerate(value, 1):
            called = f" {one['name']!r}" if isinstance(one.get("name"), str) else ""
            yield Table(f"{self.place}: {name}[{number}]{called}", one)

    def end(self) -> None:
        """Nothing is left over."""
        for name in self._values:
            if name not in self._known:
                raise self.error(f"there is no {name!r} here; there are {', '.join(self._known)}")

    def error(self, text: str) -> ConfigError:
        """What is wrong in this table."""
        return ConfigError(f"{self.place}: {text}")

    def _check_size(self, name: str, value: Decimal | int) -> None:
        if value > MOST:
            raise self.error(f"{name} must be at most {MOST}, got {_shown(value)[:40]}")

    def _take(self, name: str, default: Any) -> Any:
        if name not in self._known:
            self._known.append(name)
        value = self._values.get(name, default)
        if value is _NONE:
            raise self.error(f"{name} is missing")
        return value


def _shown(value: object) -> str:
    return str(value) if isinstance(value, Decimal) else repr(value)

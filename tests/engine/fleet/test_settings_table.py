"""Reading a table of settings: every mistake has its place, its value and what would do."""

import tomllib
from collections.abc import Callable
from decimal import Decimal

import pytest

from tightloop.engine.fleet.settings_table import ConfigError, Table


def table(text: str) -> Table:
    return Table("f.toml", tomllib.loads(text, parse_float=Decimal))


READS: list[tuple[str, Callable[[Table], object], str]] = [
    ("", lambda t: t.text("a"), "a is missing"),
    ("a = 1", lambda t: t.text("a"), "a must be a text, got 1"),
    ("a = ' '", lambda t: t.text("a"), "a must be a text, got ' '"),
    ("a = 'yes'", lambda t: t.flag("a", default=True), "a must be true or false, got 'yes'"),
    ("a = true", lambda t: t.integer("a", 1), "a must be a whole number of 1 or more, got True"),
    ("a = 0", lambda t: t.integer("a", 1), "a must be a whole number of 1 or more, got 0"),
    ("a = nan", lambda t: t.number("a", 1), "a must be a number of 0 or more, got NaN"),
    ("a = -0.5", lambda t: t.number("a", 1), "a must be a number of 0 or more, got -0.5"),
    ("a = 'x'", lambda t: t.number("a", 1), "a must be a number of 0 or more, got 'x'"),
    ("a = 3", lambda t: t.table("a"), "a must be a table, got 3"),
    ("a = {}", lambda t: list(t.tables("a")), "a must be tables, each below a line [[a]]"),
    ("a = 1", lambda t: t.end(), "there is no 'a' here; there are "),
]


@pytest.mark.parametrize(("text", "read", "words"), READS)
def test_mistakes(text: str, read: Callable[[Table], object], words: str) -> None:
    """Named with the table's place."""
    with pytest.raises(ConfigError) as caught:
        read(table(text))
    assert str(caught.value) == f"f.toml: {words}"
    assert caught.value.code == "invalid_value"


def test_values_and_defaults() -> None:
    """What is there is taken, what is not has its default; both count as known."""
    read = table("a = 'x'\nb = 2\nc = 0.1\nd = true")
    assert read.text("a", None) == "x"
    assert read.integer("b", None) == 2
    assert read.number("c", None) == Decimal("0.1")
    assert read.flag("d", default=False) is True
    assert read.integer("e", None) is None
    assert "d" in read
    assert "e" not in read
    read.end()


def test_tables_are_counted_and_called_by_their_names() -> None:
    """So that a place can be found."""
    first, second = table("[[m]]\n[[m]]\nname = 'x'").tables("m")
    assert first.place == "f.toml: m[1]"
    assert second.place == "f.toml: m[2] 'x'"

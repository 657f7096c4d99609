"""The tables ``[mcp.NAME]``: mistakes are named with file and key."""

from typing import Any

import pytest

from tightloop.agent.tools.mcp.configuration import (
    McpConfigError,
    McpTable,
    headers_of,
    read_mcp_tables,
    variables_of,
)


def test_servers_by_name_but_for_those_switched_off() -> None:
    tables = {
        "mcp": {"git": {"command": "git-mcp"}, "web": {"url": "https://x.org", "enabled": False}}
    }
    assert read_mcp_tables(tables, "c.toml") == {"git": McpTable(command="git-mcp")}
    assert read_mcp_tables({}, "c.toml") == {}


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("a", {}, "command: give either command or url"),
        ("a", {"command": "x", "url": "http://x"}, "command: give either command or url"),
        ("a", {"command": " "}, "command: must name a program"),
        ("a", {"command": "x", "cmd": 1}, "unknown key 'cmd'; known are command, args"),
        ("a", {"command": 1}, "command: expected"),
        ("a", {"command": "x", "headers": {"A": "1"}}, "headers: has no effect beside command"),
        ("a", {"url": "http://x", "args": ["1"]}, "args: has no effect beside url"),
        ("a", {"url": "ftp://x"}, "url: 'ftp://x' is not an http or https URL"),
        ("a", {"url": "http://x", "headers": {"A B": "1"}}, "headers: 'A B' cannot be a header"),
        ("a", {"url": "http://x", "headers": {"A": "1\n"}}, "headers: 'A' cannot be a header"),
        ("a", {"url": "http://x", "bearer_token_env": "A B"}, "env: 'A B' cannot be a variable"),
        ("a", {"command": "x", "start_timeout_s": 0}, "start_timeout_s: expected"),
        ("a", {"command": "x", "protocol": "new"}, "protocol: invalid enum value"),
        ("a__b", {"command": "x"}, "the name must be at most 24 letters"),
        ("a_", {"command": "x"}, "the name must be at most 24 letters"),
        ("a" * 25, {"command": "x"}, "the name must be at most 24 letters"),
        ("a", 1, "must be a table: expected"),
    ],
)
def test_mistakes_are_named(name: str, table: Any, said: str) -> None:
    with pytest.raises(McpConfigError) as error:
        read_mcp_tables({"mcp": {name: table}}, "c.toml")
    assert str(error.value).startswith(f"c.toml: [mcp.{name}]")
    assert said in str(error.value)


def test_what_comes_from_the_environment() -> None:
    known = {"TOKEN": "t ", "OTHER": "o"}
    stdio = McpTable(command="x", env={"A": "1"}, env_from=["OTHER"])
    assert variables_of(stdio, known) == {"OTHER": "o", "A": "1"}
    http = McpTable(
        url="http://x",
        headers={"X": "1"},
        headers_from_env={"Y": "OTHER"},
        bearer_token_env="TOKEN",
    )
    assert headers_of(http, known) == {"X": "1", "Y": "o", "Authorization": "Bearer t"}


@pytest.mark.parametrize("known", [{}, {"TOKEN": "a\nb"}, {"TOKEN": "ä"}])
def test_a_token_that_is_missing_or_cannot_be_sent(known: dict[str, str]) -> None:
    """Its value is not in the message."""
    with pytest.raises(McpConfigError, match="TOKEN") as error:
        headers_of(McpTable(url="http://x", bearer_token_env="TOKEN"), known)
    assert "ä" not in str(error.value)

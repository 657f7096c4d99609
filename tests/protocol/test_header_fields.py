"""The list of headers is what the server reads and sends, no more and no less."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tightloop.protocol.header_fields import READ, SENT

PACKAGE = Path(__file__).parents[2] / "src" / "tightloop"
SOURCES = {
    source.name: source.read_text(encoding="utf-8")
    for source in (*(PACKAGE / "server").glob("*.py"), PACKAGE / "protocol" / "websocket_mode.py")
}


def text_of(node: ast.AST | None) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def headers_named_in(source: str) -> set[str]:
    """What is looked up in or put into something called headers, and constants ``*_HEADER``."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=place, attr="get"), args=[name, *_]):
                if ast.unparse(place).endswith("headers"):
                    found += text_of(name)
            case ast.Subscript(value=place, slice=name):
                if ast.unparse(place).endswith("headers"):
                    found += text_of(name)
            case ast.keyword(arg="headers", value=ast.Dict(keys=keys)):
                found += [text for key in keys for text in text_of(key)]
            case ast.Assign(targets=[ast.Name(id=constant)], value=value):
                if constant.endswith("_HEADER"):
                    found += text_of(value)
                elif constant.endswith("_HEADERS") and isinstance(value, ast.Dict):
                    found += [text for key in value.keys for text in text_of(key)]
    return {name.lower() for name in found}


def test_every_header_in_the_code_is_listed() -> None:
    """Whichever way it is read or set."""
    listed = {header.name.lower() for header in (*READ, *SENT)}
    used = {name for source in SOURCES.values() for name in headers_named_in(source)}
    assert used - listed == set()


def test_the_search_finds_each_way() -> None:
    """Otherwise the test above would be true for nothing."""
    source = """
A_HEADER = "a"
SOME_HEADERS = {"B": 1}
request.headers.get("c")
answer.headers["D"] = 1
Response(headers={"e": 1})
other.get("f")
"""
    assert headers_named_in(source) == {"a", "b", "c", "d", "e"}


def test_every_listed_header_is_in_the_code() -> None:
    """By its name as a literal, or by the name the HTTP library gives it."""
    everything = "\n".join(SOURCES.values())
    missing = [
        header.name
        for header in (*READ, *SENT)
        if (header.in_code or f'"{header.name}"') not in everything
    ]
    assert missing == []

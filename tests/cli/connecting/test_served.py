"""Asking a server what it serves."""

import socket

import pytest

from tests.cli.connecting.serving import canned_server, scripted_server
from tightloop.cli.connecting.interface import ConnectError
from tightloop.cli.connecting.served import (
    DEFAULT_URL,
    ServedModel,
    api_root,
    ask_models,
    start_command,
)


def test_the_models_of_a_real_server() -> None:
    """With their windows, which Codex's half of the answer has."""
    with scripted_server("k") as url:
        assert ask_models(url, "k", "KEY") == [ServedModel("scripted", 1 << 20)]
        with pytest.raises(ConnectError, match=r"wants an API key .*put it into \$KEY"):
            ask_models(url, None, "KEY")
        with pytest.raises(ConnectError, match=r"refuses the key in \$KEY .*--api-key-env"):
            ask_models(url, "wrong", "KEY")


def test_a_server_that_only_sdks_know_will_do() -> None:
    """Then the windows are assumed."""
    with canned_server(b'{"data":[{"id":"a"},{"id":"b"}]}') as url:
        names = [model.name for model in ask_models(url, None, "KEY")]
        assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"<html>", 200, "is not JSON"),
        (b"\xff\xfe", 200, "is not JSON"),
        (b"[]", 200, "in a form not known"),
        (b'{"data":[{}]}', 200, "in a form not known"),
        (b'{"data":[{"id":"a"}],"models":[{"slug":"a"}]}', 200, "in a form not known"),
        (b'{"data":[]}', 200, "serves no model; name one with --model"),
        (b"no", 500, "answers with status 500"),
    ],
)
def test_another_answer_is_named(body: bytes, status: int, text: str) -> None:
    """One line, with the address that was asked."""
    with canned_server(body, status) as url, pytest.raises(ConnectError, match=text) as caught:
        ask_models(url, None, "KEY")
    assert url in str(caught.value)


def test_without_a_server_the_command_that_starts_one_is_named() -> None:
    """With the port that was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectError) as caught:
        ask_models(f"http://127.0.0.1:{port}/v1", None, "KEY")
    assert f"no server answers at http://127.0.0.1:{port}/v1 (Connection refused)" in str(
        caught.value
    )
    assert f"'tightloop serve --port {port}'" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("http://127.0.0.1:8099", DEFAULT_URL),
        ("http://127.0.0.1:8099/v1/", DEFAULT_URL),
        ("https://host/api/v1", "https://host/api/v1"),
        ("http://[::1]:1", "http://[::1]:1/v1"),
    ],
)
def test_an_address_becomes_the_apis_root(given: str, root: str) -> None:
    """A missing path is /v1, as everywhere in this program."""
    assert api_root(given) == root


@pytest.mark.parametrize(
    "given",
    [
        "",
        "host:80",
        "ws://host",
        "http://",
        "http://h:x",
        "http://[",
        "http://h/v1?x=1",
        "http://h:0",
    ],
)
def test_other_addresses_are_refused(given: str) -> None:
    """With the value and an example."""
    with pytest.raises(ConnectError, match="is not an http URL like"):
        api_root(given)


def test_the_start_command_fits_the_address() -> None:
    """The default needs no option; a network address needs a key."""
    assert start_command(DEFAULT_URL) == "tightloop serve"
    assert (
        start_command("http://0.0.0.0:9/v1")
        == "tightloop serve --host 0.0.0.0 --api-key KEY --port 9"
    )

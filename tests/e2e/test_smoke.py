"""1xx: the program is there, answers, and serves. Also run against the built wheel."""

import json
import urllib.request
from typing import Any

import pytest

from tests.e2e.conftest import Serve, run
from tests.e2e.wire import create, open_socket, text_of


def test_101_version() -> None:
    """One line, status 0."""
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("tightloop ")


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]])
def test_102_help(arguments: list[str]) -> None:
    """Names the verbs and the options."""
    done = run(*arguments)
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert done.stderr == ""


def test_103_a_turn_over_http_and_socket_without_a_model(serve: Serve) -> None:
    """The scripted engine echoes."""
    served = serve("--model", "scripted")
    answer = post(served.url + "/responses", {"model": "scripted", "input": "hi"})
    assert answer["output"][0]["content"][0]["text"] == "echo: hi"
    with open_socket(served.socket_url) as socket:
        assert text_of(create(socket, "again")[-1]) == "echo: again"


def test_104_a_turn_with_the_bundled_model(serve: Serve) -> None:
    """It is the default, it loads, and it says what it can do when it is asked for more."""
    served = serve()
    with urllib.request.urlopen(served.url + "/models") as response:
        model = json.load(response)["data"][0]["id"]
    assert model == "patchling"
    with open_socket(served.socket_url) as socket:
        end = create(socket, "write a web server", model=model, store=False)[-1]
    assert end["type"] == "response.completed"
    assert "repair a bug" in text_of(end)


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        answer: dict[str, Any] = json.load(response)
        return answer

"""``tightloop bench``: options, consent, and the exit status. Real endpoints: tests/e2e."""

import argparse
import asyncio
import json
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest

from tests.bench.endpoint import Choose, endpoint, models, refusal, response
from tightloop.cli import bench


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    return parser.parse_args(["turn", *words])


class Running:
    """An endpoint in a thread, because the verb has an event loop of its own."""

    def __init__(self, choose: Choose) -> None:
        self.url = ""
        self._choose = choose
        self._ready = Event()
        self._thread = Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait()

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with endpoint(self._choose) as self.url:
            self._ready.set()
            await self._over.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


class Peer:
    """Lists a model, has no WebSocket, and answers the first ``num_good`` requests."""

    def __init__(self) -> None:
        self.num_good = 1_000

    def __call__(self, line: str, _body: dict[str, Any]) -> bytes:
        if line == "GET /v1/models":
            return models("first")
        if line.startswith("GET"):
            return refusal("404 Not Found", "nothing")
        self.num_good -= 1
        return response() if self.num_good >= 0 else refusal("500 Oops", "broken", "oops")


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def url(peer: Peer) -> Iterator[str]:
    running = Running(peer)
    yield running.url
    running.stop()


def test_defaults() -> None:
    chosen = arguments()
    assert chosen.url == "http://127.0.0.1:8099/v1"
    assert chosen.history == (1_000, 10_000, 50_000)
    assert (chosen.transport, chosen.api, chosen.yes) == ("all", "responses", False)


def test_sizes_and_urls() -> None:
    chosen = arguments("--history", "2k, 800,2K", "--url", "wss://host:1/")
    assert chosen.history == (2_000, 800)
    assert chosen.url == "https://host:1/v1"


@pytest.mark.parametrize(
    "words",
    [
        ("--history", "0"),
        ("--history", "1m"),
        ("--history", "2000k"),
        ("--history", ""),
        ("--rounds", "0"),
        ("--url", "example.org"),
        ("--max-output-tokens", "-1"),
    ],
)
def test_bad_values_are_named(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments(*words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize("host", ["10.0.0.1", "api.example.org", "127.0.0.1.example.org"])
def test_a_host_that_may_charge_needs_a_yes(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is sent: how many requests, how many tokens, and where to."""
    assert bench.run(arguments("--url", f"http://{host}/v1", "--model", "m")) == 2
    said = capsys.readouterr().err
    assert f"up to 117 requests with about 3.2 M input tokens in all go to http://{host}" in said
    assert "--yes" in said


def test_one_json_object_on_standard_output(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The model is the first listed; progress goes to standard error."""
    assert bench.run(arguments("--url", url, "--history", "1k", "--rounds", "2", "--json")) == 0
    output = capsys.readouterr()
    whole = json.loads(output.out)
    assert whole["model"] == "first"
    assert whole["skipped"] == {"ws": "no WebSocket mode (404)"}
    assert whole["histories"]["1k"]["http"]["turns"] == 2
    assert whole["requests"] == 10
    assert output.err.startswith("1k of history: request 1 of 15")


def test_more_failures_than_answers_are_status_1(
    url: str, peer: Peer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is printed all the same."""
    peer.num_good = 3
    words = ["--url", url, "--model", "m", "--history", "1k", "--rounds", "4"]
    assert bench.run(arguments(*words)) == 1
    output = capsys.readouterr()
    assert "status 500 broken: oops" in output.out
    assert "11 of 14 requests failed" in output.err


def test_chat_has_no_websocket(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(arguments("--api", "chat", "--transport", "ws")) == 2
    assert "Chat Completions has no WebSocket" in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run(arguments("--url", "http://127.0.0.1:1")) == 2
    said = capsys.readouterr().err
    assert "cannot reach http://127.0.0.1:1/v1" in said
    assert "is the server running?" in said

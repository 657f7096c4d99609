"""3xx: how servers end, and what is left when they do."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.e2e.conftest import Serve, run
from tests.e2e.wire import create, open_socket, text_of, until_end

CALL = [{"call": {"name": "shell", "arguments": {"cmd": "ls"}, "call_id": "a"}}]
OUTPUT: list[Any] = [{"type": "function_call_output", "call_id": "a", "output": "ok"}]


def test_301_a_stored_conversation_survives_kill_9(
    serve: Serve, script: Callable[[list[Any]], str]
) -> None:
    """Killed right after response.completed arrived; the next turn goes on in a new process."""
    model = script([CALL, [{"text": "done"}]])
    first = serve("--model", model)
    with open_socket(first.socket_url) as socket:
        parent = create(socket, "go", store=True)[-1]["response"]["id"]
        first.signal(signal.SIGKILL)
    second = serve("--model", model)
    with open_socket(second.socket_url) as socket:
        end = create(socket, previous_response_id=parent, input=OUTPUT)[-1]
    assert text_of(end) == "done"


def test_302_many_kills_lose_nothing(serve: Serve, script: Callable[[list[Any]], str]) -> None:
    """A chain of turns, a new process for each: the last one still sees the first."""
    model = script([[{"text": "one"}], [{"text": "two"}]])
    parent: str | None = None
    for _ in range(3):
        served = serve("--model", model)
        with open_socket(served.socket_url) as socket:
            end = create(socket, "go", store=True, previous_response_id=parent)[-1]
            parent = end["response"]["id"]
            served.signal(signal.SIGKILL)
    assert text_of(end) == "one"


def test_303_unstored_responses_do_not_survive(serve: Serve) -> None:
    """And the refusal has the code after which clients send everything again."""
    first = serve("--model", "scripted")
    with open_socket(first.socket_url) as socket:
        parent = create(socket, store=False)[-1]["response"]["id"]
        first.signal(signal.SIGKILL)
    second = serve("--model", "scripted")
    with open_socket(second.socket_url) as socket:
        error = create(socket, store=False, previous_response_id=parent)[-1]["error"]
    assert error["code"] == "previous_response_not_found"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_304_a_signal_closes_sockets_with_1001_and_exits_0(
    serve: Serve, number: signal.Signals
) -> None:
    """Clients take 1001 as a reason to reconnect; nothing is printed as an error."""
    served = serve("--model", "scripted")
    with open_socket(served.socket_url) as socket:
        create(socket)
        served.process.send_signal(number)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1001
    assert served.process.wait(30) == 0
    assert served.error_output() == ""


def test_305_a_second_signal_ends_a_server_that_still_waits(
    serve: Serve, script: Callable[[list[Any]], str]
) -> None:
    """The first one lets a running response end; who is in a hurry sends another."""
    served = serve("--model", script([[{"text": "begun"}, {"hold": True}]]))
    with open_socket(served.socket_url) as socket:
        socket.send('{"type":"response.create","model":"scripted","input":"x","store":false}')
        while "output_text.delta" not in str(socket.recv()):
            pass
        served.process.send_signal(signal.SIGTERM)
        while accepts(served.url):
            pass
        assert served.signal(signal.SIGTERM) == -signal.SIGTERM
    assert "ending: 1 running, waiting 10 s at most; once more ends it now" in served.error_output()


def test_307_one_server_at_a_time_has_a_state_directory(serve: Serve, tmp_path: Path) -> None:
    """The second one says who has it and what to do, before it listens."""
    served = serve("--model", "scripted", "--state-dir", str(tmp_path / "shared"))
    arguments = ("--model", "scripted", "--port", "0", "--state-dir", str(tmp_path / "shared"))
    second = run("serve", *arguments)
    assert second.returncode == 2
    assert f"process {served.process.pid}" in second.stderr
    assert "--state-dir" in second.stderr


def test_306_cancel_ends_a_response_that_would_not(
    serve: Serve, script: Callable[[list[Any]], str]
) -> None:
    """The connection goes on with the interrupted response as a parent."""
    served = serve("--model", script([[{"text": "begun"}, {"hold": True}], [{"text": "next"}]]))
    with open_socket(served.socket_url) as socket:
        socket.send('{"type":"response.create","model":"scripted","input":"x","store":false}')
        while "output_text.delta" not in str(socket.recv()):
            pass
        socket.send('{"type":"response.cancel"}')
        end = until_end(socket)[-1]
        assert (end["type"], text_of(end)) == ("response.incomplete", "begun")


def accepts(url: str) -> bool:
    """Whether somebody still listens there."""
    import socket

    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True

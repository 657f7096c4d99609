"""4xx: whatever arrives, the sender is told and nobody else notices."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.connection import Connection

from tests.e2e.conftest import Serve, Served
from tests.e2e.wire import create, open_socket, text_of, until_end

CREATE = '{"type":"response.create","model":"scripted",'

BODIES: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"\x00\x01\xff", None),
    (b"{" * 50_000, None),
    (b'"a string"', None),
    (b'{"model":"scripted","input":42}', "input"),
    (b'{"model":"scripted","input":[{"type":"function_call"}]}', "input[0].call_id"),
    (b'{"model":"scripted","input":"x","temperature":"hot"}', "temperature"),
    (b'{"model":"scripted","input":"x","previous_response_id":7}', "previous_response_id"),
    (b'{"model":"scripted","input":"x","tools":[{"type":"function","name":5}]}', "tools[0].name"),
    (b'{"model":"' + b"m" * 500_000 + b'","input":"x"}', "model"),
]
FRAMES: list[tuple[str | bytes, str | None]] = [
    ("", None),
    ("garbage", None),
    ("[" * 50_000, None),
    ('{"type":"response.unknown"}', "type"),
    ('{"type":["response.create"]}', "type"),
    ('{"type":"response.create"}', "model"),
    (CREATE + '"input":{"a":1}}', "input"),
    (CREATE + '"input":"x","stream_id":"not a name"}', "stream_id"),
    (CREATE + '"input":"x","store":"yes"}', "store"),
    (CREATE + '"input":[{"type":"function_call_output","call_id":"?","output":"x"}]}',
     "input[0].call_id"),
    (b"\x00binary", None),
    (os.urandom(200_000), None),
]  # fmt: skip


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve("--model", "scripted")


@pytest.fixture
def healthy(served: Served) -> Iterator[Connection]:
    """A session with a conversation under way, which must go on whatever others send."""
    with open_socket(served.socket_url) as socket:
        parent = create(socket, "before", store=False)[-1]["response"]["id"]
        yield socket
        end = create(socket, "after", store=False, previous_response_id=parent)[-1]
        assert text_of(end) == "echo: after"


def post(url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body)) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.usefixtures("healthy")
def test_401_bad_bodies_over_http(served: Served) -> None:
    """Each is a 400 that names the field; the body stays small however large the input was."""
    for body, param in BODIES:
        status, answer = post(served.url + "/responses", body)
        assert (status, answer["error"]["param"]) == (400, param), body[:80]
        assert len(json.dumps(answer)) < 3000
    assert post(served.url + "/responses", b'{"model":"scripted","input":"x"}')[0] == 200


@pytest.mark.usefixtures("healthy")
def test_402_bad_frames_over_a_socket(served: Served) -> None:
    """Each is an error event on the same connection, which stays usable."""
    with open_socket(served.socket_url) as socket:
        for frame, param in FRAMES:
            socket.send(frame)
            event = until_end(socket)[-1]
            assert (event["type"], event["status"]) == ("error", 400), frame[:80]
            assert event["error"]["param"] == param, frame[:80]
        assert text_of(create(socket, "fine")[-1]) == "echo: fine"


@pytest.mark.usefixtures("healthy")
def test_403_text_that_is_not_utf_8(served: Served) -> None:
    """An error event, as for any other text that is no JSON; the socket stays usable."""
    with open_socket(served.socket_url) as socket:
        socket.send(b'{"type":"response.create","model":"\xff"}', text=True)
        assert until_end(socket)[-1]["status"] == 400
        assert text_of(create(socket, "fine")[-1]) == "echo: fine"


@pytest.mark.usefixtures("healthy")
def test_404_a_peer_that_is_no_websocket_client(served: Served) -> None:
    """Raw bytes after the handshake, a handshake that stops, no HTTP at all."""
    import socket

    host, port = served.url.removeprefix("http://").removesuffix("/v1").split(":")
    upgrade = (
        b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    for sent in (upgrade + os.urandom(5000), upgrade[:60], os.urandom(5000), upgrade):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(sent)


@pytest.mark.usefixtures("healthy")
def test_405_paths_and_methods_that_do_not_exist(served: Served) -> None:
    """JSON errors, never a page."""
    root = served.url.removesuffix("/v1")
    for path, expected in (("/v1/none", 404), ("/v1/models", 405), ("/../etc/passwd", 404)):
        status, answer = post(root + path, b"{}")
        assert status == expected
        assert set(answer["error"]) == {"message", "type", "code", "param"}

"""5xx: keys, and starts that must fail with one clear line."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.e2e.conftest import Serve, run
from tests.e2e.wire import create, open_socket

KEYED = {"TIGHTLOOP_API_KEYS": "first,second"}


def test_501_without_a_key_everything_is_a_401(serve: Serve) -> None:
    """HTTP and the upgrade; health needs none; a right key of the list works."""
    served = serve("--model", "scripted", env=KEYED)
    for path in ("/models", "/responses/resp_x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(served.url + path)
        with caught.value:
            assert caught.value.code == 401
            assert json.load(caught.value)["error"]["code"] == "invalid_api_key"
    for headers in ({}, {"Authorization": "Bearer third"}):
        with pytest.raises(InvalidStatus) as refused:
            open_socket(served.socket_url, additional_headers=headers)
        assert refused.value.response.status_code == 401
    with urllib.request.urlopen(served.url.replace("/v1", "/health")) as response:
        assert response.status == 200
    key = {"Authorization": "Bearer second"}
    with open_socket(served.socket_url, additional_headers=key) as socket:
        assert create(socket)[-1]["type"] == "response.completed"


def test_502_a_reachable_address_needs_a_key() -> None:
    """Refused before anything listens."""
    done = run("serve", "--host", "0.0.0.0", "--model", "scripted")
    assert done.returncode == 2
    assert "without an API key" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_503_a_taken_port_is_one_line(serve: Serve, tmp_path: Path) -> None:
    """With the remedy, without a traceback."""
    served = serve("--model", "scripted")
    port = served.url.removesuffix("/v1").rpartition(":")[2]
    state = str(tmp_path / "its own")
    done = run("serve", "--model", "scripted", "--port", port, "--state-dir", state)
    assert done.returncode == 2
    assert done.stderr == (
        f"tightloop serve: 127.0.0.1:{port} is in use;"
        " end the other program or choose another --port\n"
    )


@pytest.mark.parametrize("model", ["no-such-model", "/no/such/file.gguf", "scripted:/no/file.json"])
def test_504_a_missing_model_is_told_without_a_traceback(model: str, tmp_path: Path) -> None:
    """Names what was asked for."""
    done = run("serve", "--model", model, "--port", "0", "--state-dir", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("tightloop serve: ")
    assert Path(model.removeprefix("scripted:")).name in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_505_a_state_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file where the directory should be."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run("serve", "--model", "scripted", "--port", "0", "--state-dir", str(blocked))
    assert done.returncode == 2
    assert str(blocked) in done.stderr
    assert "--state-dir" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [["--port", "70000"], ["--port", "x"], ["--context", "0"]])
def test_506_bad_options_are_named(options: list[str]) -> None:
    """By argparse, with status 2."""
    done = run("serve", *options)
    assert done.returncode == 2
    assert options[0] in done.stderr

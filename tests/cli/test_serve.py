"""``tightloop serve``: options, and starts that fail with one line. Real starts: tests/e2e."""

import argparse
import os
import signal
import threading
from pathlib import Path

import pytest

from tightloop.cli import serve


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    return parser.parse_args(words)


def test_defaults_are_local_and_bundled() -> None:
    """Nobody else can reach a server that was started without thinking."""
    chosen = arguments()
    assert (chosen.model, chosen.host, chosen.port) == (None, "127.0.0.1", 8099)
    assert chosen.api_key == []


@pytest.mark.parametrize("words", [("--port", "65536"), ("--port", "-1"), ("--threads", "0")])
def test_numbers_out_of_range_are_refused(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the option's name and the value."""
    with pytest.raises(SystemExit) as caught:
        arguments(*words)
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model", "nothing"], "there is no engine 'nothing'"),
        (["--model", "scripted:/no/script.json"], "/no/script.json"),
        (["--model", "scripted", "--host", "10.0.0.1"], "without an API key"),
        (["--model", "scripted", "--api-key", "a b"], "--api-key"),
        (["--model", "scripted", "--api-key-file", "/no/keys"], "/no/keys"),
        (["--model", "scripted", "--ready-file", "/no/ready"], "/no/ready"),
        (
            ["--model", "scripted", "--model", "scripted"],
            "two models would be served as 'scripted'",
        ),
        (["--model", "a/x.gguf", "--model", "b/x.gguf"], "'x': a/x.gguf and b/x.gguf"),
        (["--config", "/no/config.toml"], "cannot read /no/config.toml"),
        (
            ["--config", "/no/config.toml", "--model", "scripted"],
            "--model does not go with --config",
        ),
    ],
)
def test_a_start_that_cannot_work_says_why(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, the text on standard error, nothing on standard output."""
    assert serve.run(arguments(*words, "--port", "0", "--state-dir", str(tmp_path))) == 2
    output = capsys.readouterr()
    assert text in output.err
    assert output.out == ""


def test_a_server_announces_itself_and_ends_on_a_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ready file appears whole; status 0."""
    ready = tmp_path / "ready.json"
    stopper = threading.Thread(target=stop_when_ready, args=(ready,))
    stopper.start()
    words = ["--model", "scripted", "--port", "0", "--state-dir", str(tmp_path)]
    status = serve.run(arguments(*words, "--ready-file", str(ready)))
    stopper.join()
    assert status == 0
    assert ready.read_text().startswith('{"url": "http://127.0.0.1:')
    assert capsys.readouterr().out.startswith("serving scripted at http://127.0.0.1:")


def test_check_says_what_would_be_served(capsys: pytest.CaptureFixture[str]) -> None:
    """Without starting anything; a mistake is told with status 2."""
    words = ("--model", "scripted", "--model", "remote:m@http://127.0.0.1:9/v1", "--check")
    assert serve.run(arguments(*words)) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[1].split()[:2] == ["scripted", "scripted"]
    assert text.splitlines()[2].split()[:2] == ["m", "m"]
    assert serve.run(arguments("--model", "nothing", "--check")) == 2
    assert "there is no engine 'nothing'" in capsys.readouterr().err


def stop_when_ready(ready: Path) -> None:
    while not ready.exists():
        os.sched_yield()
    os.kill(os.getpid(), signal.SIGTERM)


def test_memory_for_conversations_is_set_for_local_models(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The check shows it; a file says it itself; what is no size is named."""
    assert serve.run(arguments("--check", "--warm-memory", "2GiB", "--saved-memory", "0")) == 0
    assert "warm_bytes=2147483648 saved_bytes=0" in capsys.readouterr().out
    words = ("--config", "/no/config.toml", "--warm-memory", "0", "--check")
    assert serve.run(arguments(*words)) == 2
    assert "--warm-memory does not go with --config" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        arguments("--saved-memory", "lots")
    assert "--saved-memory" in capsys.readouterr().err


def test_a_check_says_when_drafts_are_off(capsys: pytest.CaptureFixture[str]) -> None:
    for words, is_off in (([], False), (["--drafts", "off"], True), (["--drafts", "auto"], False)):
        assert serve.run(arguments("--check", *words)) == 0
        assert ("drafts=off" in capsys.readouterr().out) == is_off

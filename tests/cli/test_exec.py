"""``tightloop exec`` as its users meet it: exit codes, streams, the repository left alone."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from tightloop.cli.main import main
from tightloop.cli.outcome import Report
from tightloop.engine.script_file import parse_script
from tightloop.engine.scripted import ScriptedEngine
from tightloop.governance.keys import KeyRing
from tightloop.protocol.items import Message
from tightloop.server.access import Access
from tightloop.server.app import Server
from tightloop.server.endpoint import Endpoint
from tightloop.trace.log import read_log

PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n*** End Patch"
FIX: list[list[dict[str, Any]]] = [
    [{"call": {"name": "exec_command", "arguments": {"cmd": "cat m.py"}}}],
    [{"call": {"name": "apply_patch", "arguments": PATCH}}],
    [{"text": "Changed x."}],
]
DIFF = "diff --git a/m.py b/m.py\n--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n-x = 1\n+x = 2\n y = 1\n"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A directory with one file, which must survive unchanged."""
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\ny = 1\n")
    return directory


def _script(repo: Path, answers: list[list[dict[str, Any]]]) -> str:
    path = repo.parent / "script.json"
    path.write_bytes(orjson.dumps({"answers": answers}))
    return f"scripted:{path}"


def _words(repo: Path, *more: str, model: str | None = None) -> list[str]:
    words = ["exec", "change x", "--repo", str(repo), "--state-dir", str(repo.parent / "state")]
    return [*words, "--sandbox", "none", *(["--model", model] if model else []), *more]


def _tightloop(*words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tightloop", *words],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **more,
    )


def test_a_run_prints_a_diff_and_leaves_the_repository_alone(repo: Path) -> None:
    """Standard output is the diff and nothing else; the saved patch applies with git."""
    done = _tightloop(*_words(repo, model=_script(repo, FIX)), stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, DIFF), done.stderr
    assert (repo / "m.py").read_text() == "x = 1\ny = 1\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith(
        "model scripted | backend in process, ScriptedEngine | isolation none"
    )
    assert "$ cat m.py" in lines
    assert "patch: M m.py" in lines
    assert "Changed x." in lines
    assert any("round trips: client" in line for line in lines)
    assert "none run ahead: commands of the none isolation could leave traces" in lines
    (command,) = [line for line in lines if line.startswith("apply it with: ")]
    subprocess.run(command.removeprefix("apply it with: ").split(), check=True)
    assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"
    (log,) = (repo.parent / "state/runs").iterdir()
    kinds = [line["kind"] for line in read_log(log)]
    assert kinds[0] == "run.started"
    assert kinds[-3:] == ["turn", "patch", "run.ended"]


def test_json_and_apply(repo: Path) -> None:
    """One event a line and nothing else; the prompt may come through a pipe."""
    words = [word for word in _words(repo, model=_script(repo, FIX)) if word != "change x"]
    done = _tightloop(*words, "--json", "--apply", input="change x\n")
    assert (done.returncode, done.stderr) == (0, "")
    events = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events if event["type"] != "item.updated"] == [
        "thread.started", "turn.started", "item.started", "item.completed", "item.completed",
        "item.completed", "turn.completed",
    ]  # fmt: skip
    assert events[-1]["tightloop"]["num_round_trips"] == 3
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)
    assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--repo", "/no/such/dir"], "'/no/such/dir' is not a directory"),
        (["--repo", "/etc/passwd"], "'/etc/passwd' is not a directory"),
        (["--model", "no-such-engine"], "there is no engine 'no-such-engine'"),
        (["--model", "scripted:/no/such/file"], "cannot read script"),
        (["--server", "localhost:80"], "'localhost:80' is not an http or ws URL"),
        (["--server", "http://127.0.0.1:9/v1"], "is the server running?"),
        (["--server", "ws://127.0.0.1:9", "--model", "m"], "is the server running?"),
        (
            ["--server", "http://127.0.0.1:9/v1", "--model", "m", "--transport", "http"],
            "is the server running?",
        ),
        (["--model", "scripted", "--sandbox", "moat"], "unknown isolation 'moat'"),
    ],
)
def test_what_cannot_start_ends_with_2(
    repo: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    """One clear line on standard error, no traceback; the port 9 refuses connections."""
    assert main(_words(repo, *more)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tightloop exec: ")
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_an_empty_prompt(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", " ", "--repo", str(repo)]) == 2
    assert "the prompt is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        (["--max-turns", "0"], "must be a positive number, got '0'"),
        (["--max-turns", "many"], "must be a positive number, got 'many'"),
        (["--timeout", "-1"], "must be a number of seconds above 0, got '-1'"),
        (["--timeout", "1h"], "must be a number of seconds above 0, got '1h'"),
        (["--transport", "x"], "choose from"),
        (["--early-end", "-1"], "must be a number of tokens or 'never', got '-1'"),
        (["--early-end", "soon"], "must be a number of tokens or 'never', got 'soon'"),
    ],
)
def test_bad_options(option: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Option and value are named, and what would do; no name of a function of ours."""
    with pytest.raises(SystemExit) as ended:
        main(["exec", "x", *option])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert option[0] in said
    assert wanted in said


def test_errors_in_json_mode_are_events_too(
    repo: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main(_words(repo, "--json", "--model", "no-such-engine")) == 2
    (line,) = capfdbinary.readouterr().out.splitlines()
    assert orjson.loads(line)["type"] == "error"


def test_giving_up_ends_with_1_and_keeps_the_work(
    repo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit is reached after the patch: nothing is applied, the patch file is there."""
    words = _words(repo, "--apply", "--max-turns", "2", model=_script(repo, FIX))
    assert main(words) == 1
    captured = capfd.readouterr()
    assert "failed: no last word after 2 responses" in captured.err
    assert "apply it with: git -C" in captured.err
    assert (repo / "m.py").read_text() == "x = 1\ny = 1\n"


def test_a_model_error_ends_with_1(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answers = [[{"error": {"message": "out of memory", "code": "content_filter"}}]]
    assert main(_words(repo, model=_script(repo, answers))) == 1
    assert "out of memory" in capfd.readouterr().err


def test_a_repository_changed_meanwhile_is_not_overwritten(
    repo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The scripted command edits the user's own file, as an editor might."""
    answers: list[list[dict[str, Any]]] = [
        [{"call": {"name": "exec_command", "arguments": {"cmd": f"echo mine > {repo}/m.py"}}}],
        *FIX[1:],
    ]
    assert main(_words(repo, "--apply", model=_script(repo, answers))) == 1
    assert "changed by you meanwhile" in capfd.readouterr().err
    assert (repo / "m.py").read_text() == "mine\n"


def test_changes_with_reach_need_a_person(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The shell can write what the patch tool refuses; --apply then writes nothing at all."""
    make = "echo x > .envrc; mkdir -p .github; echo x > .github/ci.yml; echo x > plain"
    answers: list[list[dict[str, Any]]] = [
        [{"call": {"name": "exec_command", "arguments": {"cmd": make}}}],
        [{"text": "Done."}],
    ]
    assert main(_words(repo, "--apply", model=_script(repo, answers))) == 1
    errors = capfd.readouterr().err
    assert "look at it first: .envrc (can make other programs run things)" in errors
    assert "look at it first: .github/ci.yml (runs outside this sandbox" in errors
    assert "nothing was written, because these need a person's look: '.envrc'" in errors
    assert "apply it with: git -C" in errors
    assert sorted(path.name for path in repo.iterdir()) == ["m.py"]


def test_the_command_works_in_a_subdirectory_with_a_difficult_name(tmp_path: Path) -> None:
    """There plain ``git apply`` would skip every file and say nothing."""
    top = tmp_path / "it's a\nrepo"
    repo = top / "sub dir"
    repo.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", top], check=True)
    (repo / "m.py").write_text("x = 1\ny = 1\n")
    script = tmp_path / "script.json"
    script.write_bytes(orjson.dumps({"answers": FIX}))
    words = ["exec", "x", "--repo", str(repo), "--state-dir", str(tmp_path / "state")]
    done = _tightloop(*words, "--sandbox", "none", "--model", f"scripted:{script}")
    command = done.stderr.partition("apply it with: ")[2].partition("\nmodel ")[0]
    subprocess.run(["bash", "-c", command], check=True)
    assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"


def test_a_terminal_gets_no_control_characters(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed file could hide lines of the diff from its reader; a pipe gets the bytes."""
    report = Report(is_json=False)
    report.show_diff("+a\x1b[2Kb\t\r\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report.show_diff("+a\x1b[2Kb\t\r\n")
    assert capfdbinary.readouterr().out == b"+a\x1b[2Kb\t\r\n" + b"+ab\t\n"


def test_nothing_to_change(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(_words(repo, model="scripted")) == 0
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "echo: change x" in captured.err
    assert "no file was changed" in captured.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt(repo: Path, number: signal.Signals) -> None:
    """Ends with 130 and no traceback, kills the command, and keeps the work so far."""
    hang: dict[str, Any] = {"cmd": "echo $$; exec sleep 100"}
    answers: list[list[dict[str, Any]]] = [
        [{"call": {"name": "apply_patch", "arguments": PATCH}}],
        [{"call": {"name": "exec_command", "arguments": hang, "call_id": "c2"}}],
    ]
    words = _words(repo, "--json", model=_script(repo, answers))
    process = subprocess.Popen(
        [sys.executable, "-m", "tightloop", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    started = orjson.loads(process.stdout.readline())
    pid = 0
    for line in process.stdout:
        event = orjson.loads(line)
        if event.get("output_delta"):
            pid = int(event["output_delta"])
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "tightloop exec: interrupted" in errors
    assert "Traceback" not in errors
    assert pid
    assert not Path(f"/proc/{pid}").exists()
    assert (repo / "m.py").read_text() == "x = 1\ny = 1\n"
    assert Path(started["tightloop"]["patch"]).read_text() == DIFF
    logged = list(read_log(Path(started["tightloop"]["log"])))
    (turn,) = [line for line in logged if line["kind"] == "turn"]
    assert (turn["status"], turn["tries"]) == ("cancelled", [])
    assert not list((repo.parent / "state/workspaces").iterdir())


@dataclass
class Serving:
    """A real server on a free port, with the script of a fix."""

    url: str
    engine: ScriptedEngine


@pytest.fixture
async def serving() -> AsyncIterator[Serving]:
    engine = ScriptedEngine(parse_script(orjson.dumps({"answers": FIX})))
    access = Access(KeyRing(), "127.0.0.1")
    server = Server(Endpoint(engine), access, host="127.0.0.1", port=0)
    yield Serving(await server.start(), engine)
    await server.stop(grace_s=0.0)


async def _output_of(words: list[str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tightloop", *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_with_a_server(repo: Path, serving: Serving, transport: str) -> None:
    """Without a model the server's first one is used; the project's rules reach it."""
    (repo / "AGENTS.md").write_text("Rule: be brief.")
    words = _words(repo, "--server", serving.url, "--transport", transport)
    code, out, err = await _output_of(words)
    assert (code, out) == (0, DIFF), err
    assert f"model scripted | backend {transport} {serving.url} |" in err
    first = serving.engine.requests[0].context()[0]
    assert isinstance(first, Message)
    assert "Rule: be brief." in first.text


async def test_a_model_the_server_does_not_have(repo: Path, serving: Serving) -> None:
    code, out, err = await _output_of(_words(repo, "--server", serving.url, model="nope"))
    assert (code, out) == (2, "")
    assert "nope" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_session_that_may_only_read(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither patch tool nor command changes anything, and the header says which policy holds."""
    call = {"name": "exec_command", "arguments": {"cmd": "cat m.py; echo z > m.py"}}
    patch = {"name": "apply_patch", "arguments": PATCH}
    answers: list[list[dict[str, Any]]] = [[{"call": call}], [{"call": patch}], [{"text": "Done."}]]
    words = [
        word
        for word in _words(repo, "--policy", "read-only", model=_script(repo, answers))
        if word not in ("--sandbox", "none")
    ]
    assert main(words) == 0
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "| isolation bubblewrap | policy read-only |" in captured.err
    assert "no file was changed" in captured.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--policy", "moat"], "--policy: there is no policy 'moat'"),
        (["--policy", "read-only"], "--sandbox none cannot keep the policy 'read-only'"),
        (["--policy", "read-only", "--apply"], "--apply: the policy 'read-only' changes nothing"),
        (["--policy", "network"], "allows no host yet"),
        (["--config", "/no/such/file"], "cannot read /no/such/file"),
    ],
)
def test_policies_that_cannot_be_kept_end_with_2(
    repo: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(_words(repo, "--model", "scripted", *more)) == 2
    assert said in capsys.readouterr().err


def test_a_policy_with_hosts_is_shown(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The header names them, and a refusal is told while the run goes on."""
    config = repo.parent / "config.toml"
    config.write_text("[sandbox]\npolicy = 'ci'\n[sandbox.policies.ci]\nextends = 'network'\n"
                      "hosts = ['pypi.org', '*.example.org']\n")  # fmt: skip
    fetch = "exec 3<>/dev/tcp/127.0.0.1/3128 && printf 'CONNECT evil.test:443 HTTP/1.1\\r\\n\\r\\n' >&3 && cat <&3"
    call = {"name": "exec_command", "arguments": {"cmd": fetch}}
    answers: list[list[dict[str, Any]]] = [[{"call": call}], [{"text": "Done."}]]
    words = _words(repo, "--config", str(config), model=_script(repo, answers))
    assert main([word for word in words if word not in ("--sandbox", "none")]) == 0
    errors = capfd.readouterr().err
    assert "| isolation bubblewrap | policy ci |" in errors
    assert "network: pypi.org, *.example.org; nothing else" in errors
    assert "network: refused: evil.test:443 is not among the hosts of policy 'ci'" in errors

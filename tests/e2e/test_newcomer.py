"""The newcomer's path of the README, command by command, in a home of its own. Cases 940 and on."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.net.gguf_file import Shape, write_random
from benchmarks.net.random_models import tokenizer
from tests.e2e.conftest import Serve

ROOT = Path(__file__).parents[2]
CODE = """\
def clamp(value, low, high):
    if value < low:
        return low
    if value < high:
        return high
    return value
"""
TESTS = """\
from mathy import clamp


def test_inside():
    assert clamp(2, 1, 3) == 2


def test_above():
    assert clamp(9, 1, 3) == 3
"""
LIMIT_S = 240.0
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


def path_of_the_readme() -> list[str]:
    """The commands of its section, in order."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.partition("## In your own repository")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a repository, one test of which fails, and a model file."""
    home = tmp_path_factory.mktemp("newcomer")
    repository = home / "your" / "repository"
    repository.mkdir(parents=True)
    (repository / "mathy.py").write_text(CODE)
    (repository / "test_mathy.py").write_text(TESTS)
    shape = Shape(width=64, layers=1, heads=2, inner=96, num_context=8192)
    (home / "models").mkdir()
    write_random(home / "models" / "some-coder.gguf", "some-coder", shape, tokenizer())
    identity = ("-c", "user.name=n", "-c", "user.email=n@localhost")
    for words in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-q", "-m", "start")):
        subprocess.run(["git", *words], cwd=repository, check=True)
    return home


def environment(home: Path) -> dict[str, str]:
    """What a person's shell has, and nothing of this test run's."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    kept |= {"HOME": str(home), "LANG": "C.UTF-8", "TERM": "xterm-256color"}
    return {**kept, "PATH": os.environ["PATH"], "OPENAI_API_KEY": "some-key"}


def in_shell(home: Path, *lines: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """The lines in one shell, as they would be typed one after the other."""
    return subprocess.run(
        ["bash", "-c", "set -e\n" + "\n".join(lines)],
        cwd=cwd,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def in_terminal(home: Path, typed: list[tuple[str, bytes]], *lines: str) -> str:
    """The last line is a program for a terminal: types when it shows what is waited for."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe("bash", ["bash", "-c", "\n".join(lines)], environment(home))
    seen = ""
    try:
        while select.select([terminal], [], [], LIMIT_S)[0]:
            try:
                piece = os.read(terminal, 1 << 16)
            except OSError:  # everybody on the other side has gone
                break
            if not piece:
                break
            seen += piece.decode("utf-8", "replace")
            if typed and typed[0][0] in seen:
                os.write(terminal, typed.pop(0)[1])
    finally:
        os.close(terminal)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            os.kill(pid, signal.SIGHUP)
            status = os.waitpid(pid, 0)[1]
    assert not typed, seen
    assert os.waitstatus_to_exitcode(status) == 0, seen
    return seen


def test_940_every_command_works(newcomer: Path, serve: Serve, script: Callable[..., str]) -> None:
    """From nothing to a fixed repository; the answer of the host arrives in the terminal."""
    install, path, doctor, enter, own_model, host, fix, test = path_of_the_readme()
    copy = newcomer / "checkout"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    done = in_shell(newcomer, install, cwd=copy)
    assert done.returncode == 0, done.stderr
    done = in_shell(newcomer, path, doctor)
    assert done.returncode in (0, 1), done.stderr
    assert "bubblewrap" in done.stdout
    said = in_terminal(newcomer, [("some-coder", b"/quit\r")], path, enter, own_model)
    assert "Traceback" not in said
    served = serve("--model", script([[{"text": "Nice to meet you."}]]))
    at_host = host.replace("MODEL@https://HOST/v1", f"scripted@{served.url}")
    typed = [("scripted", b"hello\r"), ("Nice to meet you.", b"/quit\r")]
    said = in_terminal(newcomer, typed, path, enter, at_host)
    assert "Traceback" not in said
    done = in_shell(newcomer, path, enter, fix)
    assert done.returncode == 0, done.stderr
    assert "applied: mathy.py" in done.stderr
    done = in_shell(newcomer, path, enter, test)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    in_shell(newcomer, path, enter, "tightloop test --stop")

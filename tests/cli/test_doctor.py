"""``tightloop doctor``: the table, the JSON and the exit status. The probes have their own tests."""

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from tightloop.cli.doctor import Trying, row
from tightloop.cli.main import main
from tightloop.sandbox import probes
from tightloop.sandbox.policies import NamedPolicy
from tightloop.sandbox.probes import Check, Status

GOOD = Check("seccomp", Status.OK, "filter works")
WEAK = Check("cgroup", Status.WEAKER, "not delegated", "start it with systemd-run")
BAD = Check("policy network", Status.FAIL, "cannot be kept", "install bubblewrap")


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of whoever runs the tests does not count."""
    monkeypatch.delenv("TIGHTLOOP_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def _seeing(monkeypatch: pytest.MonkeyPatch, *checks: Check) -> list[tuple[str, Path]]:
    asked: list[tuple[str, Path]] = []

    async def examine(
        policy: NamedPolicy, state_dir: Path, on_begin: Callable[[str], None]
    ) -> AsyncIterator[Check]:
        asked.append((policy.name, state_dir))
        for check in checks:
            on_begin(check.name)
            yield check

    monkeypatch.setattr(probes, "examine", examine)
    return asked


def test_what_is_only_weaker_ends_with_0(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = _seeing(monkeypatch, GOOD, WEAK)
    assert main(["doctor", "--policy", "read-only", "--state-dir", str(tmp_path)]) == 0
    assert asked == [("read-only", tmp_path)]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "ok     seccomp                 filter works",
        "weaker cgroup                  not delegated",
        "                               fix: start it with systemd-run",
        "",
        "policy read-only can be kept on this machine; 1 lines name something that could be better",
    ]


def test_a_policy_that_cannot_be_kept_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _seeing(monkeypatch, GOOD, BAD)
    assert main(["doctor"]) == 1
    assert "policy workspace-write cannot be kept" in capsys.readouterr().out


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same for programs: one object and nothing else."""
    _seeing(monkeypatch, BAD)
    assert main(["doctor", "--json"]) == 1
    assert orjson.loads(capsys.readouterr().out) == {
        "policy": "workspace-write",
        "is_met": False,
        "checks": [
            {
                "name": "policy network",
                "status": "FAIL",
                "seen": "cannot be kept",
                "fix": "install bubblewrap",
            }
        ],
    }


class Terminal(io.StringIO):
    """Text for a person."""

    def isatty(self) -> bool:
        return True


def test_what_takes_a_while_is_named_on_a_terminal() -> None:
    """Until the next line; other streams get nothing."""
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        trying = Trying(stream)
        trying.clear()
        trying.show("warm tests")
        trying.clear()
        trying.clear()
    assert terminal.getvalue() == "\r\x1b[Ktrying: warm tests ...\r\x1b[K"
    assert file.getvalue() == ""


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_wrong_configuration_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """The key is named; nothing is probed."""
    config = tmp_path / "c.toml"
    config.write_text("[sandbox]\nrule = 'network'\n")
    assert main(["doctor", "--config", str(config), *more]) == 2
    captured = capsys.readouterr()
    assert "unknown key 'rule'" in captured.err
    assert bool(more) == ("unknown key" in captured.out)


def test_long_lines_are_wrapped_below_their_column() -> None:
    """And control characters of a file name never reach the terminal."""
    text = row(Check("name", Status.OK, "word " * 20 + "a\x1b[2Kb", "fix it " * 10), 80)
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith(" " * 31) for line in lines[1:])
    assert "\x1b" not in text

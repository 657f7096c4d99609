"""The profile's text. Nothing here has run on macOS."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.seatbelt import Places, SeatbeltSandbox, command_line, profile

COMMON = """\
(version 1)
(deny default)
(allow process-exec process-fork)
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow file-read*)
(allow mach-lookup (global-name "com.apple.system.opendirectoryd.libinfo"))
(allow mach-lookup (global-name "com.apple.system.notification_center"))
(allow mach-lookup (global-name "com.apple.system.logger"))
"""
DEVICES = """\
(allow file-write-data (literal "/dev/null"))
(allow file-write-data (literal "/dev/zero"))
(allow file-write-data (literal "/dev/random"))
(allow file-write-data (literal "/dev/urandom"))
(allow file-write-data (literal "/dev/tty"))
(allow file-read* file-write* (subpath "/private/tmp/x"))
(allow file-read* (subpath "/Users/me/w"))
"""
WORKSPACE, SCRATCH = Path("/Users/me/w"), Path("/private/tmp/x")


def test_the_default_policy() -> None:
    """Home hidden, tools shown again, the workspace on top, its settings protected, no network."""
    places = Places(
        WORKSPACE,
        SCRATCH,
        hidden=[Path("/Users/me")],
        shown=[Path("/Users/me/.rustup")],
        protected=[WORKSPACE / ".git/config"],
    )
    assert profile(places) == (
        COMMON
        + '(deny file-read* file-write* (subpath "/Users/me"))\n'
        + '(allow file-read* (subpath "/Users/me/.rustup"))\n'
        + DEVICES
        + '(allow file-write* (subpath "/Users/me/w"))\n'
        + '(deny file-write* (subpath "/Users/me/w/.git/config"))\n'
        + "(deny network*)\n"
    )


def test_reading_only() -> None:
    assert profile(Places(WORKSPACE, SCRATCH, is_read_only=True)) == (
        COMMON + DEVICES + "(deny network*)\n"
    )


def test_with_network() -> None:
    text = profile(Places(WORKSPACE, SCRATCH, has_network=True))
    assert text.endswith("(allow network*)\n(allow system-socket)\n")


@given(st.text(max_size=30))
def test_no_path_can_add_a_rule(name: str) -> None:
    """Quotes and backslashes are escaped, line ends refused: one rule stays one rule."""
    path = Path("/w") / f"x{name}"
    try:
        text = profile(Places(path, SCRATCH))
    except SandboxError:
        assert any(ord(sign) < 32 or ord(sign) == 127 for sign in str(path))
        return
    assert text.count("\n") == profile(Places(WORKSPACE, SCRATCH)).count("\n")
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    assert f'(allow file-write* (subpath "{escaped}"))' in text


def test_a_relative_path_is_refused() -> None:
    """Seatbelt would take it as something else."""
    with pytest.raises(SandboxError, match="must be an absolute path"):
        profile(Places(Path("w"), SCRATCH))


def test_the_command_line() -> None:
    """Words stay words; the environment is cleared."""
    line = command_line("(p)", Command(argv=["a b", "$x"]), {"A": "1 2"})
    assert line == [
        *("/usr/bin/sandbox-exec", "-p", "(p)", "/usr/bin/env", "-i"),
        *("A=1 2", "a b", "$x"),
    ]
    script = command_line("(p)", Command(script="ls | wc"), {})
    assert script[-5:] == ["/bin/bash", "--noprofile", "--norc", "-c", "ls | wc"]


async def test_elsewhere_it_says_what_is_missing(tmp_path: Path) -> None:
    sandbox = SeatbeltSandbox(Policy(tmp_path), {})
    with pytest.raises(SandboxError, match="for that system only"):
        await sandbox.start()
    with pytest.raises(SandboxError, match="has not been started"):
        await sandbox.run(Command(script="true"))
    await sandbox.close()

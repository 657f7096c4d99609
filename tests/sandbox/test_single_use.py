"""Isolation of its own for every command."""

from pathlib import Path

import pytest

from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.single_use import SingleUseSandbox


@pytest.fixture(params=["bubblewrap", "landlock", "none"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> SingleUseSandbox:
    return SingleUseSandbox(Policy(workspace=tmp_path), kind=request.param)


async def test_a_command_sees_the_workspace(sandbox: SingleUseSandbox, tmp_path: Path) -> None:
    """Output of both streams, exit code, and files written to the workspace stay."""
    (tmp_path / "sub").mkdir()
    pieces: list[bytes] = []
    await sandbox.start()
    command = Command(script="pwd; echo oops >&2; echo new > made; exit 3", cwd="sub")
    result = await sandbox.run(command, pieces.append)
    assert (3, f"{tmp_path}/sub\noops\n") == (result.exit_code, result.output)
    assert result.output.encode() == b"".join(pieces)
    assert (tmp_path / "sub" / "made").read_text() == "new\n"
    await sandbox.close()


async def test_nothing_is_kept_between_commands(sandbox: SingleUseSandbox) -> None:
    """Each has new processes; in namespaces the temporary directory is new too."""
    await sandbox.run(Command(script="echo x > /tmp/tightloop-single-use-$$; echo $$"))
    result = await sandbox.run(Command(argv=["sh", "-c", "ls /tmp | grep -c single-use-"]))
    if sandbox.kind == "bubblewrap":
        assert result.output == "0\n"
    await sandbox.run(Command(script="rm -f /tmp/tightloop-single-use-*"))


async def test_a_timeout_ends_the_whole_group(sandbox: SingleUseSandbox) -> None:
    result = await sandbox.run(Command(script="sleep 100 & sleep 100", timeout_s=0.2))
    assert result.timed_out
    assert result.exit_code != 0


async def test_landlock_confines_single_commands_too(tmp_path: Path) -> None:
    sandbox = SingleUseSandbox(Policy(workspace=tmp_path), kind="landlock")
    result = await sandbox.run(Command(script="touch /etc/tightloop-test"))
    assert result.exit_code != 0
    assert "Permission denied" in result.output


async def test_bubblewrap_has_no_network_and_no_rights(tmp_path: Path) -> None:
    """The same line as the persistent sandbox: read-only root, no capabilities."""
    sandbox = SingleUseSandbox(Policy(workspace=tmp_path), kind="bubblewrap")
    status = await sandbox.run(Command(script="grep -E 'CapEff|NoNewPrivs' /proc/self/status"))
    assert status.output.splitlines() == ["CapEff:\t0000000000000000", "NoNewPrivs:\t1"]
    write = await sandbox.run(Command(script="touch /etc/tightloop-test"))
    assert "Read-only file system" in write.output


def test_unknown_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="unknown isolation 'jail'"):
        SingleUseSandbox(Policy(workspace=tmp_path), kind="jail")

"""The command line; what it does is in test_isolation."""

import os
from pathlib import Path
from typing import Any

import pytest

from tightloop.sandbox import cgroup
from tightloop.sandbox.bubblewrap import FORWARDER, prepare
from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.isolation import open_sandbox
from tightloop.sandbox.launch import server_argv


def test_what_keeps_the_inside_in_is_always_there(tmp_path: Path) -> None:
    """Without the first four a caller with uid 0 could remount the root."""
    launch = prepare(Policy(tmp_path), {"PATH": "/usr/bin"}, 9)
    for fd in launch.fds:
        os.close(fd)
    line = " ".join(launch.argv)
    for part in (
        "--unshare-user --unshare-all --disable-userns --cap-drop ALL",
        "--new-session --die-with-parent",
        "--ro-bind / / --dev /dev --proc /proc",
        f"--bind {tmp_path} {tmp_path}",
        f"--clearenv --seccomp {launch.fds[0]} --",
    ):
        assert part in line
    assert "--share-net" not in line


def test_the_network_is_shared_only_when_allowed(tmp_path: Path) -> None:
    """Then name resolution must work too."""
    launch = prepare(Policy(tmp_path, allow_network=True), {}, 9)
    for fd in launch.fds:
        os.close(fd)
    assert "--share-net" in launch.argv


def test_a_missing_program_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package, and the other reason why it may fail."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="install the package 'bubblewrap'"):
        prepare(Policy(tmp_path), {}, 9)


def test_a_workspace_that_may_only_be_read(tmp_path: Path) -> None:
    """It is bound read-only; there is no writable bind at all."""
    launch = prepare(Policy(tmp_path, is_read_only=True), {}, 9)
    for fd in launch.fds:
        os.close(fd)
    assert f"--ro-bind {tmp_path} {tmp_path}" in " ".join(launch.argv)
    assert "--bind" not in launch.argv


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "{0}/workspace"),
        ({"is_read_only": True}, None),
        ({"shown_from": "{0}/fork"}, "{0}"),
    ],
    ids=["own", "read-only", "a fork, mounted later"],
)
def test_the_second_wall_leaves_the_workspace_and_private_places(
    fields: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    """Of a fork that comes later only what holds it is known."""
    for name in ("workspace", "fork"):
        (tmp_path / name).mkdir()
    if "shown_from" in fields:
        fields = {"shown_from": Path(fields["shown_from"].format(tmp_path))}
    policy = Policy(tmp_path / "workspace", hidden=(Path("/opt"),), **fields)
    launch = prepare(policy, {}, 9)
    for fd in launch.fds:
        os.close(fd)
    assert launch.writable is not None
    assert {"/tmp", "/opt", "/dev", "/proc"} <= set(launch.writable)
    assert "/" not in launch.writable
    own = {path for path in launch.writable if path.startswith(str(tmp_path))}
    assert own == ({expected.format(tmp_path)} if expected else set())


def test_the_way_out_stands_before_the_server(tmp_path: Path) -> None:
    """The socket is shown last, so that nothing lies over it; programs are told of the port."""
    environment = {"PATH": "/usr/bin"}
    launch = prepare(Policy(tmp_path, proxy_socket=tmp_path / "s"), environment, 9)
    for fd in launch.fds:
        os.close(fd)
    line = " ".join(launch.argv)
    assert "--share-net" not in line
    assert f"--ro-bind {tmp_path}/s {tmp_path}/s --chdir" in line
    assert f"{FORWARDER} {tmp_path}/s 3128  {' '.join(server_argv(9))}" in line
    assert environment["https_proxy"] == environment["HTTP_PROXY"] == "http://127.0.0.1:3128"
    assert "127.0.0.1" in environment["NO_PROXY"]


def test_a_delegated_group_is_entered_first_and_removed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that bwrap starts is in it from the beginning."""
    place = tmp_path / "group"
    place.mkdir()
    monkeypatch.setattr(cgroup, "make_group", lambda _policy, _delegation: cgroup.Group(place))
    launch = prepare(Policy(tmp_path), {}, 9)
    for fd in launch.fds:
        os.close(fd)
    assert launch.argv[:4] == cgroup.Group(place).entering([])
    assert launch.argv[4].endswith("bwrap")
    launch.clean_up()
    assert not place.exists()


async def test_a_fork_is_shown_at_the_workspaces_path(tmp_path: Path) -> None:
    """Commands see and change the fork under the other's name; protected files are the fork's."""
    real, fork = tmp_path / "real", tmp_path / "fork"
    for place in (real, fork):
        (place / ".git").mkdir(parents=True)
        (place / ".git" / "config").write_text(f"{place.name}\n")
    policy = Policy(real, warm_tests=False, shown_from=fork)
    sandbox = await open_sandbox(policy, kind="bubblewrap")
    try:
        script = "pwd; cat .git/config; echo new > made; echo x > .git/config"
        result = await sandbox.run(Command(script=script))
    finally:
        await sandbox.close()
    assert result.output.splitlines()[:2] == [str(real), "fork"]
    assert "Read-only file system" in result.output
    assert (fork / "made").read_text() == "new\n"
    assert not (real / "made").exists()
    assert (fork / ".git" / "config").read_text() == "fork\n"

"""The command line; what it does is in test_isolation."""

import os
from pathlib import Path

import pytest

from tightloop.sandbox.bubblewrap import prepare
from tightloop.sandbox.interface import Policy, SandboxError


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

"""The plan that a confined process carries out."""

import json
from pathlib import Path

import pytest

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.confine import prepare, readable_roots
from tightloop.sandbox.interface import Command, Policy, SandboxError


def test_the_plan_allows_the_workspace_and_a_scratch_directory(tmp_path: Path) -> None:
    """The scratch directory is told by TMPDIR and goes away with the sandbox."""
    environment = {"PATH": "/usr/bin"}
    launch = prepare(Policy(tmp_path), environment, 9)
    scratch = Path(environment["TMPDIR"])
    plan = json.loads(launch.argv[-1])
    assert {str(tmp_path), str(scratch), "/dev/null"} <= set(plan["write"])
    assert str(tmp_path) not in plan["read"]
    assert "/usr" in plan["read"]
    assert "/" not in plan["read"]
    assert not plan["allow_network"]
    assert scratch.is_dir()
    launch.clean_up()
    assert not scratch.exists()


def test_a_workspace_that_may_only_be_read(tmp_path: Path) -> None:
    launch = prepare(Policy(tmp_path, is_read_only=True), {}, 9)
    plan = json.loads(launch.argv[-1])
    launch.clean_up()
    assert str(tmp_path) in plan["read"]
    assert str(tmp_path) not in plan["write"]


def test_a_list_of_hosts_is_refused(tmp_path: Path) -> None:
    """Ports can be named to the kernel, addresses cannot."""
    with pytest.raises(SandboxError, match="needs bubblewrap"):
        prepare(Policy(tmp_path, proxy_socket=tmp_path / "s"), {}, 9)


def test_roots_cover_all_but_the_hidden(tmp_path: Path) -> None:
    """A directory is replaced by its other entries only where it must be."""
    for name in ("a/x", "a/hidden/y", "b/z"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "file").write_text("")
    (tmp_path / "link").symlink_to("a")
    roots = readable_roots([tmp_path / "a" / "hidden"], tmp_path)
    assert roots == [tmp_path / "a" / "file", tmp_path / "a" / "x", tmp_path / "b"]
    assert readable_roots([], tmp_path) == [tmp_path]
    assert readable_roots([tmp_path], tmp_path) == []


async def test_git_works_beside_a_home_directory_that_cannot_be_read(
    tmp_path: Path, opened: OpenSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings are refused, not missing, and git ends over that."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = user\n")
    monkeypatch.setenv("HOME", str(home))
    sandbox = await opened("landlock")
    command = Command(script="cat ~/.gitconfig; git init -q . && git status --short && echo works")
    result = await sandbox.run(command)
    assert "Permission denied" in result.output
    assert result.output.endswith("works\n")

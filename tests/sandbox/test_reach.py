"""Secrets and sockets: found outside, tried inside, and told when one can be used."""

import os
import socket
from pathlib import Path

import pytest

from tightloop.sandbox.interface import Policy
from tightloop.sandbox.reach import check_reach, secrets_of_the_host, sockets_of_the_host


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with a secret."""
    place = tmp_path / "home"
    (place / ".ssh").mkdir(parents=True)
    (place / ".ssh" / "id").write_text("secret")
    (place / ".netrc").write_text("secret")
    monkeypatch.setenv("HOME", str(place))
    return place


async def test_nothing_is_reached_by_default(home: Path, workspace: Path) -> None:
    report = await check_reach(Policy(workspace, warm_tests=False), "bubblewrap")
    assert report.reached == []
    assert report.num_files >= 2


async def test_the_control_reaches_everything(home: Path, workspace: Path) -> None:
    """Without isolation the same program finds what there is."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as abstract:
        path = str(workspace.parent / "s")
        listener.bind(path)
        listener.listen()
        name = f"tightloop-test-{os.getpid()}"
        abstract.bind("\0" + name)
        abstract.listen()
        report = await check_reach(Policy(workspace, warm_tests=False), "none")
    assert {str(home / ".ssh"), str(home / ".netrc"), path, f"@{name}"} <= set(report.reached)


async def test_a_policy_that_shows_a_secret_is_found_out(home: Path, workspace: Path) -> None:
    """A tool chain that is made readable may hold more than tools."""
    policy = Policy(workspace, read_only=(home,), warm_tests=False)
    report = await check_reach(policy, "bubblewrap")
    assert set(report.reached) == {str(home / ".ssh"), str(home / ".netrc")}


def test_only_what_exists_is_tried(home: Path, tmp_path: Path) -> None:
    assert {home / ".ssh", home / ".netrc"} <= set(secrets_of_the_host())
    assert home / ".aws" not in secrets_of_the_host()
    table = tmp_path / "unix"
    table.write_text("Num\n0: 2 0 10000 1 1 20 @abstract name\n0: 2 0 0 1 1 21\n")
    assert "@abstract name" in sockets_of_the_host(table)

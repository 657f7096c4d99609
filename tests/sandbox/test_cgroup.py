"""Control groups, against a tree of plain files that looks like the kernel's."""

import subprocess
from pathlib import Path

import pytest

from tightloop.sandbox.cgroup import Delegation, Group, find_delegation, limits, make_group
from tightloop.sandbox.interface import Policy

SLICE = "user.slice/user-1000.slice/user@1000.service/app.slice"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A ``/proc`` whose process is in a scope of a delegated slice; the tree is in ``cg roup``."""
    root = tmp_path / "cg roup"
    place = root
    for name in ("", *SLICE.split("/"), "run-1.scope"):
        place = place / name
        place.mkdir()
        (place / "cgroup.procs").write_text("")
        (place / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (place / "cgroup.subtree_control").write_text("")
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    self = tmp_path / "proc" / "self"
    self.mkdir(parents=True)
    escaped = str(root).replace(" ", "\\040")
    (self / "mountinfo").write_text(
        "20 1 0:5 / /proc rw - proc proc rw\n"
        f"30 1 0:26 / {escaped} rw,nosuid - cgroup2 cgroup2 rw\n"
    )
    (self / "cgroup").write_text(f"3:memory:/x\n0::/{SLICE}/run-1.scope\n")
    return tmp_path


def test_the_nearest_group_that_hands_both_controllers_on(machine: Path) -> None:
    """Not the process's own: a group with processes hands nothing on to children."""
    assert find_delegation(machine / "proc") == Delegation(machine / "cg roup" / SLICE)


def test_a_group_above_when_the_nearest_hands_on_too_little(machine: Path) -> None:
    (machine / "cg roup" / SLICE / "cgroup.subtree_control").write_text("pids\n")
    assert find_delegation(machine / "proc").directory == (machine / "cg roup" / SLICE).parent


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("mountinfo", "20 1 0:5 / /proc rw - proc proc rw\n", "no control groups of version 2"),
        ("cgroup", "3:memory:/x\n", "in no control group of version 2"),
        ("cgroup", "0::/../other\n", "outside what is mounted"),
    ],
)
def test_where_there_is_none(machine: Path, file: str, text: str, reason: str) -> None:
    (machine / "proc" / "self" / file).write_text(text)
    found = find_delegation(machine / "proc")
    assert found.directory is None
    assert reason in found.reason


def test_a_hierarchy_without_the_controllers(machine: Path) -> None:
    """As beside version 1: the file system is there, what matters is not in it."""
    root = machine / "cg roup"
    (root / "cgroup.controllers").write_text("hugetlb\n")
    for file in root.rglob("cgroup.subtree_control"):
        file.write_text("hugetlb\n")
    (root / "cgroup.subtree_control").write_text("")
    assert find_delegation(machine / "proc").reason == (
        "version 2 does not control memory, pids here"
    )


def test_nothing_delegated(machine: Path) -> None:
    """Controllers that nobody hands on."""
    for file in (machine / "cg roup").rglob("cgroup.subtree_control"):
        file.write_text("cpu\n")
    assert "is delegated to this user" in find_delegation(machine / "proc").reason


def test_a_group_that_takes_no_limits_is_given_up(machine: Path) -> None:
    """Plain directories have no files ``memory.max``: nothing is left behind."""
    place = machine / "cg roup" / SLICE
    before = sorted(place.iterdir())
    assert make_group(Policy(machine), Delegation(place)) is None
    assert make_group(Policy(machine), Delegation(None, "no")) is None
    assert make_group(Policy(machine), Delegation(place / "missing")) is None
    assert sorted(place.iterdir()) == before


def test_the_limits_are_the_policys() -> None:
    policy = Policy(Path("/w"), max_total_memory_bytes=5, max_processes=7)
    assert limits(policy) == {"memory.max": "5", "memory.swap.max": "0", "pids.max": "7"}


def test_a_command_line_enters_before_anything_else(tmp_path: Path) -> None:
    """Its own number is written, the words stay what they are, descriptors too."""
    line = Group(tmp_path).entering(["printf", "%s|", "a b", "$(x)", ""])
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == "a b|$(x)||"
    assert (tmp_path / "cgroup.procs").read_text() == "0\n"


def test_without_the_right_to_enter_nothing_runs(tmp_path: Path) -> None:
    """Limits that cannot be had are not passed over."""
    line = Group(tmp_path / "missing").entering(["echo", "ran"])
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode != 0, done.stdout) == (True, "")


def test_removing_kills_and_may_come_twice(tmp_path: Path) -> None:
    """``cgroup.kill`` gets its word; a group that says it is empty is not waited for."""
    group = Group(tmp_path / "g")
    group.directory.mkdir()
    (group.directory / "cgroup.kill").write_text("")
    (group.directory / "cgroup.events").write_text("populated 0\n")
    group.remove()
    assert (group.directory / "cgroup.kill").read_text() == "1"
    for file in group.directory.iterdir():
        file.unlink()
    group.remove()
    assert not group.directory.exists()
    group.remove()

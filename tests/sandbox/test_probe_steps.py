"""Each step, in a process of its own as ``doctor`` runs it; this machine must allow all of them."""

import errno
import os
from pathlib import Path

import pytest

from tightloop.sandbox.probes import run_step


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(
    "step", ["user_namespace", "net_namespace", "proc_mount", "seccomp_filter"]
)
async def test_what_isolation_needs_is_allowed_here(step: str) -> None:
    """The suite proves isolation, so it needs a machine that allows it."""
    said = await run_step(step)
    assert said["ok"], said


@pytest.mark.parametrize("how", ["user"])
async def test_an_overlay_on_a_directory(tmp_path: Path, how: str) -> None:
    """Nothing is left in the directory, mounted or not."""
    said = await run_step("overlay_mount", tmp_path, how)
    assert said["ok"], said
    assert os.listdir(tmp_path) == []
    assert str(tmp_path) not in mounts()


async def test_an_overlay_where_it_cannot_be(tmp_path: Path) -> None:
    """The step that was refused is named, and the directory is as it was."""
    place = tmp_path / "a,b"
    place.mkdir()
    said = await run_step("overlay_mount", place, "user")
    assert (said["ok"], said["step"]) == (False, "mount")
    assert "choose another one" in said["error"]
    assert os.listdir(place) == []


async def test_a_missing_directory_is_an_answer_too(tmp_path: Path) -> None:
    said = await run_step("overlay_mount", tmp_path / "missing", "user")
    assert (said["ok"], said["step"]) == (False, "preparing")


async def test_reflinks_work_or_are_refused_by_name(tmp_path: Path) -> None:
    """Either is right: it depends on the file system of the test's directory."""
    said = await run_step("reflink", tmp_path)
    if not said["ok"]:
        assert said["step"] == "FICLONE"
        assert said["error"].split()[0] in errno.errorcode.values()
    assert os.listdir(tmp_path) == []


async def test_a_step_that_breaks_is_an_answer_too() -> None:
    said = await run_step("no_such_step")
    assert not said["ok"]
    assert "no_such_step" in said["error"]

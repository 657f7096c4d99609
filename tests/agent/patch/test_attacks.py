"""F21, 112: names and directories made to lead a patch out of the workspace, by a model that
writes them and by a process that changes them meanwhile. A control shows that the race is real."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.agent.patch.scenarios import harvest, plant
from tightloop.agent.patch.apply import PatchStream, apply_patch
from tightloop.agent.patch.hosted import apply_hosted
from tightloop.agent.patch.paths import Root

SWAPPER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
print("ready", flush=True)
AT_FDCWD, RENAME_EXCHANGE = -100, 2
while libc.renameat2(AT_FDCWD, b"d", AT_FDCWD, b"link", RENAME_EXCHANGE) == 0:
    pass
sys.exit(os.strerror(ctypes.get_errno()))
"""


REFUSED = {"forbidden_path", "changed"}


@contextmanager
def swapping(workspace: Path) -> Iterator[None]:
    """Another process exchanges the directory ``d`` with the symlink ``link``, as fast as it can."""
    child = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(workspace)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        yield
        assert child.poll() is None, "the attacker has to be at work to the end"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _directory(workspace: Path) -> Path:
    """The real directory, under whichever of its two names it has now."""
    (real,) = [p for p in (workspace / "d", workspace / "link") if not p.is_symlink()]
    return real


@pytest.mark.parametrize("use_openat2", [True, False], ids=["openat2", "walk"])
def test_a_directory_exchanged_for_a_symlink_by_another_process(
    tmp_path: Path, *, use_openat2: bool
) -> None:
    """Every patch is refused or lands in the real directory, never outside, and nothing is left."""
    workspace, outside = tmp_path / "ws", tmp_path / "out"
    plant(tmp_path, {"ws/d/f": b"0\n", "ws/link": "../out", "out/f": b"0\n"})
    outcomes: set[str] = set()
    with swapping(workspace):
        for number in range(5000):
            if number >= 60 and "ok" in outcomes and outcomes & REFUSED:
                break
            stream = PatchStream(workspace)
            if not use_openat2:
                stream._root.close()
                stream._root = Root(workspace, use_openat2=False)
                stream._start_over()
            stream.feed(f"*** Begin Patch\n*** Add File: d/f\n+{number}\n*** End Patch\n")
            outcome = stream.commit()
            outcomes.add(outcome.failure.error if outcome.failure else "ok")
    assert harvest(outside) == {"f": b"0\n"}
    assert sorted(os.listdir(_directory(workspace))) == ["f"]
    assert outcomes <= {"ok"} | REFUSED
    assert outcomes & REFUSED, "the attack has to have met some patches"


def test_the_attack_works_on_a_plain_path(tmp_path: Path) -> None:
    """The control: the same name, opened as it stands, does lead out."""
    plant(tmp_path, {"ws/d/f": b"0\n", "ws/link": "../out", "out/f": b"0\n"})
    with swapping(tmp_path / "ws"):
        for _ in range(100_000):
            (tmp_path / "ws/d/f").write_bytes(b"1\n")
            if (tmp_path / "out/f").read_bytes() == b"1\n":
                break
    assert (tmp_path / "out/f").read_bytes() == b"1\n"


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/tmp/../etc/x", "a\nb", "a\x1b[2J", "C:\\x", "", " ", "d/..", "d/"],
)
def test_paths_of_the_hosted_dialect(tmp_path: Path, path: str) -> None:
    """Its path is a field of its own, so that it may hold even a line break."""
    plant(tmp_path, {"ws/d/f": b"0\n"})
    outcome = apply_hosted({"type": "create_file", "path": path, "diff": "+x"}, tmp_path / "ws")
    assert outcome.failure is not None
    assert outcome.failure.error in ("forbidden_path", "bad_syntax")
    assert harvest(tmp_path) == {"ws/d/f": b"0\n"}


def test_a_patch_may_not_write_through_what_it_moved(tmp_path: Path) -> None:
    """Operations see each other's results, but no patch can make a symlink to go through."""
    plant(tmp_path, {"ws/link": "../out/f", "out/f": b"0\n"})
    for body in (
        "*** Update File: link\n*** Move to: l2\n",
        "*** Delete File: link\n",
        "*** Add File: link\n+x\n",
        "*** Add File: link/x\n+x\n",
    ):
        outcome = apply_patch(f"*** Begin Patch\n{body}*** End Patch", tmp_path / "ws")
        assert outcome.failure is not None
        assert outcome.failure.error == "forbidden_path"
    assert harvest(tmp_path) == {"out/f": b"0\n", "ws/link": "../out/f"}

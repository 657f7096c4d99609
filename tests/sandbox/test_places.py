"""Hidden, readable and protected places."""

import os
import socket
from pathlib import Path

import pytest

from tests.sandbox.ordinary import place, run
from tightloop.sandbox import places
from tightloop.sandbox.interface import Command, Policy, SandboxError
from tightloop.sandbox.isolation import open_sandbox

__all__ = ["place"]


def test_hidden_places_exist_and_spare_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home and what the policy names; a missing one would make bwrap fail."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home", "work", "secret"):
        (tmp_path / name).mkdir()
    policy = Policy(tmp_path / "work", hidden=(tmp_path / "secret", tmp_path / "gone"))
    found = places.hidden_directories(policy)
    assert {tmp_path / "home", tmp_path / "secret", Path("/tmp")} <= set(found)
    assert tmp_path / "gone" not in found
    assert tmp_path / "work" not in found
    assert found == sorted(found)


def test_tool_chains_name_the_interpreter_and_named_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of a virtual environment which comes first on the search path."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cargo" / "bin").mkdir(parents=True)
    (tmp_path / ".cargo" / "credentials").write_text("")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    (tmp_path / "venv" / "bin" / "python").symlink_to("/usr/bin/env")
    found = places.tool_chains(Policy(tmp_path), {"PATH": f"{tmp_path}/venv/bin"})
    assert {tmp_path / "venv", tmp_path / ".cargo" / "bin"} <= set(found)
    assert tmp_path / ".cargo" not in found
    assert Path("/") not in found


def test_protected_paths_must_lie_below(tmp_path: Path) -> None:
    """Anything else is a mistake worth an error."""
    (tmp_path / "work").mkdir()
    (tmp_path / "other").write_text("")
    with pytest.raises(SandboxError, match="is not below"):
        places.protected_paths(Policy(tmp_path / "work", protected=(tmp_path / "other",)))


def test_listening_sockets_are_found_by_path(tmp_path: Path) -> None:
    """Abstract ones have none."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as abstract:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        abstract.bind(f"\0places-{os.getpid()}")
        found = places.listening_sockets()
    assert tmp_path / "s" in found
    assert all(path.is_absolute() for path in found)


def test_a_plain_directory_has_no_layers(tmp_path: Path) -> None:
    """Only an overlay mounted exactly there does."""
    mounted = Path("/proc/self/mountinfo").read_text().splitlines()
    assert places.overlay_layers(tmp_path, mounted) == []


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
async def test_password_hashes_of_the_host_cannot_be_read(kind: str, tmp_path: Path) -> None:
    """Not even by uid 0; the control outside can."""
    assert Path("/etc/shadow") in places.secret_files()
    if os.getuid() == 0:
        assert os.access("/etc/shadow", os.R_OK)
    sandbox = await open_sandbox(Policy(tmp_path, warm_tests=False), kind=kind)
    result = await sandbox.run(Command(script="cat /etc/shadow; cat /etc/passwd >/dev/null"))
    await sandbox.close()
    assert ":" not in result.output.replace("cat: /etc/shadow: Permission denied", "")
    assert result.exit_code == 0


def test_a_link_that_claims_to_be_python_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository can commit any link: neither a key's directory nor a whole home becomes visible."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in (".ssh/keys/id", "bin/python"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text("")
        (home / name).chmod(0o700)
    work = tmp_path / "work" / ".venv" / "bin"
    work.mkdir(parents=True)
    for target, exposed in ((home / ".ssh/keys/id", home / ".ssh"), (home / "bin/python", home)):
        (work / "python").unlink(missing_ok=True)
        (work / "python").symlink_to(target)
        found = places.tool_chains(Policy(tmp_path / "work"), {"PATH": str(work)})
        assert exposed not in found


def test_a_virtual_environment_behind_a_link_is_readable_where_it_is(tmp_path: Path) -> None:
    """Its scripts name that place."""
    real = tmp_path / "real"
    (real / "bin").mkdir(parents=True)
    (real / "pyvenv.cfg").write_text("")
    (real / "bin" / "python").symlink_to("/usr/bin/env")
    (tmp_path / "shown").symlink_to(real)
    found = places.tool_chains(Policy(tmp_path), {"PATH": f"{tmp_path}/shown/bin"})
    assert {real, tmp_path / "shown"} <= set(found)


def test_places_for_later_mounts_are_found_by_their_name() -> None:
    """Wherever they are; a state directory with a space in it, too."""
    lines = [
        "36 35 98:0 / /a\\040b/tightloop-slots/1f rw - ext4 /dev/root rw",
        "37 36 98:0 / /a\\040b/tightloop-slots/1f/place rw shared:1 - ext4 /dev/root rw",
        "38 35 98:0 / /c/tightloop-slots-of-others rw - ext4 /dev/root rw",
    ]
    assert places.late_places(lines) == [Path("/a b/tightloop-slots")]


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
    ],
)
def test_below_means_whole_components(path: str, directory: str, expected: bool) -> None:
    """As ``Path.is_relative_to`` has it."""
    assert places.is_below(Path(path), Path(directory)) is expected
    assert Path(path).is_relative_to(directory) is expected


def test_mounts_may_have_any_name(place: Path) -> None:
    """Names that are no text, or that hold what ends a line elsewhere, hide nothing from us."""
    script = """
from tightloop.sandbox import layouts, mounts, places
assert own_namespace.enter(state) == ""
for name in (b"a\\xe9", "a\u2028b c".encode(), b"a\\x0bb"):
    late = Path(os.fsdecode(name), layouts.SLOTS).absolute()
    (late / "one").mkdir(parents=True)
    mounts.bind(late / "one", late / "one")
    assert late in places.hidden_directories(Policy(repository)), name
print("done")
"""
    done = run(place, script, is_root=True)
    assert done.stdout == "done\n", done.stderr

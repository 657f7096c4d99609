"""Files on disk: a person's are never touched."""

import stat
from pathlib import Path

import pytest

from tightloop.cli.connecting.interface import ConfigFile, ConnectError, Setting
from tightloop.cli.connecting.writing import environment_file, write_new, write_own

FILES = (ConfigFile("a.toml", "~/a", "A\n", "why"), ConfigFile("b.sh", "~/b", "B\n", "why"))


def test_missing_files_are_written_and_equal_ones_are_left(tmp_path: Path) -> None:
    """Writing twice is no error and changes nothing."""
    directory = tmp_path / "new" / "place"
    assert write_new(directory, FILES) == [directory / "a.toml", directory / "b.sh"]
    assert write_new(directory, FILES) == []
    assert [(directory / file.name).read_text() for file in FILES] == ["A\n", "B\n"]


def test_a_different_file_stops_everything(tmp_path: Path) -> None:
    """Before the first one is written; also one that only ends differently."""
    (tmp_path / "b.sh").write_text("B\nmine\n")
    with pytest.raises(ConnectError, match=r"b\.sh exists and is different"):
        write_new(tmp_path, FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["b.sh"]
    assert (tmp_path / "b.sh").read_text() == "B\nmine\n"


def test_a_link_to_nowhere_is_a_file_of_somebody(tmp_path: Path) -> None:
    """It is not followed."""
    (tmp_path / "a.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConnectError, match=r"a\.toml exists"):
        write_new(tmp_path, FILES)
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the directory should be."""
    (tmp_path / "file").write_text("")
    for write in (write_new, write_own):
        with pytest.raises(ConnectError, match=r"cannot write .*file"):
            write(tmp_path / "file", FILES)


def test_an_own_file_is_replaced_unless_the_client_only_added_to_it(tmp_path: Path) -> None:
    """Codex appends the projects that are trusted, and would ask again."""
    directory = tmp_path / "clients" / "codex"
    write_own(directory, FILES)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (directory / "a.toml").write_text("A\n[projects]\n")
    (directory / "b.sh").write_text("old B\n")
    write_own(directory, FILES)
    assert (directory / "a.toml").read_text() == "A\n[projects]\n"
    assert (directory / "b.sh").read_text() == "B\n"
    assert sorted(path.name for path in directory.iterdir()) == ["a.toml", "b.sh"]


def test_the_environment_file_says_why() -> None:
    """Each variable under its reason; what is in the way is removed."""
    file = environment_file([Setting("A", "1 2", "because")], ["B"])
    assert file.text == "# Read by a shell: . environment.sh\n# because\nexport A='1 2'\nunset B\n"

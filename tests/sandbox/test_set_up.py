"""What a repository may ask for, and what it gets."""

from pathlib import Path

import pytest

from tightloop.sandbox.bases import TreeState
from tightloop.sandbox.interface import SandboxError
from tightloop.sandbox.set_up import LOCK_FILES, SetUp, environment_key, granted, read_set_up


def write(place: Path, text: str) -> None:
    (place / ".tightloop.toml").write_text(text)


def test_the_file_is_read(tmp_path: Path) -> None:
    """Other tables are other people's; what is left out has its default."""
    assert read_set_up(tmp_path) is None
    write(tmp_path, '[warm]\ncommand = "x"\n')
    assert read_set_up(tmp_path) is None
    write(tmp_path, '[setup]\ncommands = ["a", "b"]\nsecrets = ["T"]\nkeep_hours = 1\n')
    assert read_set_up(tmp_path) == SetUp(commands=("a", "b"), secrets=("T",), keep_hours=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[setup", "cannot be read"),
        ('[setup]\ncommands = "one"\n', "Expected `array`"),
        ("[setup]\ncommands = []\n", "must name at least one"),
        ('[setup]\ncommands = ["  "]\n', "none empty"),
        ("[setup]\n", "missing required field `commands`"),
        ('[setup]\ncommands = ["a"]\ncomands = 1\n', "known keys: commands"),
        ('[setup]\ncommands = ["a"]\nkeep_hours = 0\n', "keep_hours must be above 0, got 0"),
        ('[setup]\ncommands = ["a"]\ntimeout_s = "long"\n', "timeout_s"),
        ('[setup]\ncommands = ["a"]\nlock_files = ["../x"]\n', "must stay in the repository"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    """The file, the place in it, the value."""
    write(tmp_path, text)
    with pytest.raises(SandboxError, match=words) as caught:
        read_set_up(tmp_path)
    assert ".tightloop.toml" in str(caught.value)


def test_the_key_follows_commit_commands_and_lock_files(tmp_path: Path) -> None:
    """And nothing else of the tree."""
    set_up = SetUp(commands=("make",))
    state = TreeState(tmp_path, "c1")
    keys = [environment_key(set_up, state)]
    (tmp_path / "main.py").write_text("x")
    assert environment_key(set_up, TreeState(tmp_path, "c1", {"main.py": None})) == keys[0]
    (tmp_path / "requirements-dev.txt").write_text("a==1")
    keys.append(environment_key(set_up, state))
    (tmp_path / "requirements-dev.txt").write_text("a==2")
    keys.append(environment_key(set_up, state))
    keys.append(environment_key(set_up, TreeState(tmp_path, "c2")))
    keys.append(environment_key(SetUp(commands=("make all",)), state))
    assert len(set(keys)) == 5
    assert "requirements*.txt" in LOCK_FILES


def test_secrets_need_both_words(tmp_path: Path) -> None:
    """The repository asks, the user allows; either alone is not enough to have it by accident."""
    set_up = SetUp(commands=("a",), secrets=("TOKEN",))
    assert granted(set_up, ["TOKEN"], {"TOKEN": "t", "OTHER": "o"}) == {"TOKEN": "t"}
    with pytest.raises(SandboxError, match="--secret TOKEN"):
        granted(set_up, [], {"TOKEN": "t"})
    with pytest.raises(SandboxError, match="secret 'TOKEN' is not in your environment"):
        granted(set_up, ["TOKEN"], {})

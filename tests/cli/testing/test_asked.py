"""What a command line asks for, and how that goes over a connection."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightloop.cli.testing.asked import (
    BadUsage,
    ask,
    decode,
    find_root,
    read_words,
    state_place,
)
from tightloop.trace.log import state_directory

WORD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/home/u", "LC_ALL": "C", "TOKEN": "secret"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's top."""
    (tmp_path / "pytest.ini").touch()
    return tmp_path.resolve()


def test_our_options_stand_anywhere_and_the_rest_is_pytests() -> None:
    """Up to ``--``, after which nothing is ours; values come with a sign of equality or without."""
    own, words = read_words("test", ["-q", "--cold", "--policy", "mine", "a.py", "--idle=5"])
    assert own == {"cold": "yes", "policy": "mine", "idle": "5"}
    assert words == ["-q", "a.py"]
    assert read_words("test", ["--", "--cold", "--", "x"]) == ({}, ["--cold", "--", "x"])
    assert read_words("test", ["--coldness", "--json-report"])[1] == ["--coldness", "--json-report"]


@pytest.mark.parametrize(
    ("given_words", "message"),
    [
        (["--policy"], "--policy needs a value"),
        (["--cold", "--audit"], "--cold and --audit exclude each other"),
        (["--stop", "--status"], "--stop and --status exclude each other"),
        (["--idle", "0"], "--idle must be minutes from 1 to 10000, got '0'"),
        (["--idle", "soon"], "--idle must be minutes from 1 to 10000, got 'soon'"),
    ],
)
def test_what_cannot_be_meant_is_named(given_words: list[str], message: str) -> None:
    """With the value, and what would do."""
    with pytest.raises(BadUsage, match=message):
        read_words("test", given_words)


@settings(max_examples=40)
@given(words=st.lists(WORD, max_size=6))
def test_a_request_arrives_as_it_was(words: list[str]) -> None:
    """Whatever the words are; nothing but the harmless variables goes along."""
    asked = ask("test", ["--", *words], ENVIRONMENT, "/usr", 12)
    there = decode(asked.encode())
    assert there.since_ns == 12
    assert there.words == words
    assert (there.directory, there.verb, there.identity) == ("/usr", "test", asked.identity)
    assert sorted(there.environment) == ["HOME=/home/u", "LC_ALL=C", "PATH=/usr/bin:/bin"]


@settings(max_examples=60)
@given(data=st.binary(max_size=80))
def test_other_messages_are_refused(data: bytes) -> None:
    """With the error that the reader expects, whatever they are."""
    try:
        decode(data)
    except ValueError:
        return
    assert data.count(b"\0") >= 13


def test_processes_are_told_apart_by_all_that_matters(root: Path) -> None:
    """Project, interpreter, policy, configuration and variables; the words do not matter."""
    place = str(root)
    plain = ask("test", ["-q"], ENVIRONMENT, place)
    others = [
        ask("test", ["--policy", "x"], ENVIRONMENT, place),
        ask("test", ["--python", "/bin/sh"], ENVIRONMENT, place),
        ask("test", ["--config", "x"], ENVIRONMENT, place),
        ask("test", [], ENVIRONMENT | {"TZ": "UTC"}, place),
        ask("test", ["--root", "/"], ENVIRONMENT, place),
    ]
    assert len({one.name for one in [plain, *others]}) == 6
    same = ask("test", ["x.py"], ENVIRONMENT | {"TOKEN": "other"}, place)
    assert plain.name == same.name
    marks = {one.name.partition("-")[0] for one in [plain, *others[:4]]}
    assert len(marks) == 1
    assert others[4].name.partition("-")[0] not in marks


def test_the_project_is_the_nearest_that_looks_like_one(root: Path) -> None:
    """Or the one that is named; a directory without any is its own project."""
    deep = root / "a" / "b"
    deep.mkdir(parents=True)
    assert find_root(str(deep), "") == str(root)
    (root / "a" / "setup.py").touch()
    assert find_root(str(deep), "") == str(root / "a")
    assert find_root(str(deep), "../..") == str(root)
    assert find_root("/proc/self", "") == "/proc/self"
    with pytest.raises(BadUsage, match="is not a directory"):
        find_root(str(root), "missing")
    with pytest.raises(BadUsage, match="is not in"):
        find_root(str(root), "a")


def test_the_interpreter_is_the_projects_own(root: Path) -> None:
    """Its environment before the activated one; a named one before both."""
    active = root / "active" / "bin"
    own = root / ".venv" / "bin"
    for place in (active, own):
        place.mkdir(parents=True)
    (active / "python").symlink_to("/bin/sh")
    environment = ENVIRONMENT | {"VIRTUAL_ENV": str(active.parent)}
    assert ask("test", [], ENVIRONMENT, str(root)).python == ""
    assert ask("test", [], environment, str(root)).python == str(active / "python")
    (own / "python").symlink_to("/bin/sh")
    assert ask("test", [], environment, str(root)).python == str(own / "python")
    named = ask("test", ["--python", "active/bin/python"], environment, str(root))
    assert named.python == str(active / "python")
    assert ask("test", ["--python", "sh"], ENVIRONMENT, str(root)).python.endswith("/sh")
    with pytest.raises(BadUsage, match="no 'nosuch' on the PATH"):
        ask("test", ["--python", "nosuch"], ENVIRONMENT, str(root))
    with pytest.raises(BadUsage, match="is no program"):
        ask("test", ["--python", "./pytest.ini"], ENVIRONMENT, str(root))


@pytest.mark.parametrize(
    ("variables", "color"),
    [
        ({}, ""),
        ({"NO_COLOR": "1"}, "no"),
        ({"FORCE_COLOR": "1"}, "yes"),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "no"),
        ({"PY_COLORS": "1", "NO_COLOR": "1"}, "yes"),
        ({"PY_COLORS": "0", "FORCE_COLOR": "1"}, "no"),
    ],
)
def test_colours_are_decided_as_pytest_would(
    root: Path, variables: dict[str, str], color: str
) -> None:
    """By variables that do not get into the sandbox (pytest's documentation, "--color")."""
    assert ask("test", [], ENVIRONMENT | variables, str(root)).color == color


def test_state_lies_where_all_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The near end may not import what says so, but says the same."""
    for name in ("TIGHTLOOP_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert state_place("", dict(os.environ)) == f"{state_directory()}/test"
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert state_place("", dict(os.environ)) == f"{state_directory()}/test"
    monkeypatch.setenv("TIGHTLOOP_STATE_DIR", "/y")
    assert state_place("", dict(os.environ)) == f"{state_directory()}/test" == "/y/test"
    assert state_place("/z", dict(os.environ)) == "/z/test"

"""What the login shell says, and what happens when it says nothing."""

import json
import os
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tightloop.sandbox.login_environment import (
    LoginShell,
    allowed,
    merged,
    parse_answer,
    stamps,
)

Begin = Callable[..., Awaitable[LoginShell]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory whose profile adds to the search path, and counts how often it is read."""
    place = tmp_path / "home"
    place.mkdir()
    (place / ".bash_profile").write_text(
        'echo run >> "$HOME/runs"; echo noise\nexport PATH="$PATH:/opt/own/bin" LC_TIME=C\n'
        "export SECRET_TOKEN=hush\nf() { :; }; export -f f\n"
    )
    return place


@pytest_asyncio.fixture
async def begin(home: Path, tmp_path: Path) -> AsyncIterator[Begin]:
    """Begins login shells that are closed after the test."""
    begun: list[LoginShell] = []

    async def begin_one(deadline_s: float = 30.0, **more: str) -> LoginShell:
        known = {"HOME": str(home), "SHELL": "/bin/bash", "PATH": "/usr/bin:/bin", **more}
        shell = await LoginShell.begin(tmp_path / "state", given=known, deadline_s=deadline_s)
        begun.append(shell)
        return shell

    yield begin_one
    for shell in begun:
        await shell.close()


def num_runs(home: Path) -> int:
    """How often the profile was read."""
    runs = home / "runs"
    return len(runs.read_text().split()) if runs.exists() else 0


async def test_the_profile_adds_to_the_search_path(begin: Begin) -> None:
    """This process's own directories come first, and its own values win."""
    shell = await begin(LANG="C.UTF-8", TOKEN="own")
    environment = await shell.environment()
    assert environment["PATH"].split(":")[:2] == ["/usr/bin", "/bin"]
    assert "/opt/own/bin" in environment["PATH"].split(":")
    assert (environment["LC_TIME"], environment["TOKEN"], shell.problem) == ("C", "own", "")
    assert "SECRET_TOKEN" not in environment
    assert environment == await shell.environment()


async def test_the_answer_is_remembered_until_a_file_changes(begin: Begin, home: Path) -> None:
    """No shell is started for what is known, and nothing is believed that may be old."""
    first = await (await begin()).environment()
    again = await begin()
    assert (True, first, 1) == (again.is_remembered, await again.environment(), num_runs(home))
    with (home / ".bash_profile").open("a") as file:
        file.write("export LC_TIME=POSIX\n")
    changed = await begin()
    assert (await changed.environment())["LC_TIME"] == "POSIX"
    (home / ".bash_login").write_text("")  # a file that was not there
    assert not (await begin()).is_remembered
    assert not changed.is_remembered


async def test_another_home_is_another_answer(begin: Begin, tmp_path: Path) -> None:
    """As is another shell."""
    await (await begin()).environment()
    (tmp_path / "other").mkdir()
    other = await begin(HOME=str(tmp_path / "other"))
    assert not other.is_remembered
    assert "/opt/own/bin" not in (await other.environment())["PATH"]
    assert not (await begin(SHELL="/bin/sh")).is_remembered


async def test_secrets_are_not_written_down(begin: Begin, tmp_path: Path) -> None:
    """Only what commands may know is kept, for the user alone."""
    await (await begin()).environment()
    (kept,) = (tmp_path / "state" / "login-environment").iterdir()
    assert "hush" not in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_what_may_be_known_can_grow(begin: Begin, home: Path, tmp_path: Path) -> None:
    """An answer from before that lacks a variable which is now allowed is no answer."""
    await (await begin()).environment()
    (kept,) = (tmp_path / "state" / "login-environment").iterdir()
    content = json.loads(kept.read_text())
    del content["variables"]["LC_TIME"]
    kept.write_text(json.dumps(content))
    assert (await (await begin()).environment())["LC_TIME"] == "C"
    assert num_runs(home) == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"at_s": 1}', '{"at_s": null}'])
async def test_a_broken_memory_is_none(begin: Begin, tmp_path: Path, content: str) -> None:
    """The shell is asked again."""
    await (await begin()).environment()
    (kept,) = (tmp_path / "state" / "login-environment").iterdir()
    kept.write_text(content)
    shell = await begin()
    assert not shell.is_remembered
    assert "/opt/own/bin" in (await shell.environment())["PATH"]


async def test_an_old_answer_is_none(begin: Begin, tmp_path: Path) -> None:
    """Start-up files read others, of which nothing is known; neither is the future."""
    await (await begin()).environment()
    (kept,) = (tmp_path / "state" / "login-environment").iterdir()
    content = json.loads(kept.read_text())
    for seconds in (-25 * 3600, 3600):
        kept.write_text(json.dumps({**content, "at_s": content["at_s"] + seconds}))
        assert not (await begin()).is_remembered


async def test_a_shell_that_does_not_end_is_ended(begin: Begin, home: Path, tmp_path: Path) -> None:
    """At the deadline, with what it started; this process's variables are what is left."""
    os.mkfifo(tmp_path / "never")
    (home / ".bash_profile").write_text(f"echo run >> ~/runs; read x < {tmp_path / 'never'}\n")
    shell = await begin(deadline_s=0.2)
    environment = await shell.environment()
    assert {"HOME", "SHELL", "PATH"} == environment.keys()
    assert "did not end within 0.2 seconds" in shell.problem
    again = await begin(deadline_s=0.2)
    assert (True, shell.problem) == (again.is_remembered, again.problem)
    assert environment == await again.environment()


async def test_what_a_profile_leaves_running_holds_nothing_up(begin: Begin, home: Path) -> None:
    """It has the shell's output open; it ends with the shell."""
    (home / ".bash_profile").write_text("export LC_TIME=C\nsleep 600 &\n")
    shell = await begin()
    assert (await shell.environment())["LC_TIME"] == "C"


async def test_a_shell_that_gives_no_answer_is_named(begin: Begin, home: Path) -> None:
    """With its exit code."""
    (home / ".bash_profile").write_text("exit 3\n")
    shell = await begin()
    await shell.environment()
    assert shell.problem == "/bin/bash -l ended with 3 and no answer"


async def test_what_is_no_shell_is_not_asked(begin: Begin) -> None:
    """Accounts of services have programs there that only say no."""
    shell = await begin(SHELL="/usr/sbin/nologin")
    assert {"HOME", "SHELL", "PATH"} == (await shell.environment()).keys()
    assert shell.problem == "/usr/sbin/nologin is none that can be asked"
    missing = await begin(SHELL="/no/such/bash")
    await missing.environment()
    assert missing.problem == "/no/such/bash cannot be started: No such file or directory"


async def test_other_shells_answer_too(begin: Begin, home: Path) -> None:
    """The same words work in each that is installed here; ``sh`` always is."""
    (home / ".profile").write_text("export LC_TIME=C\n")
    for name in ("sh", "dash", "ksh"):
        if place := shutil.which(name):
            shell = await begin(SHELL=place)
            assert (await shell.environment())["LC_TIME"] == "C", shell.problem


async def test_a_shell_that_nobody_waits_for_is_closed(begin: Begin, home: Path) -> None:
    """Although it would never end."""
    (home / ".bash_profile").write_text("sleep 600\n")
    shell = await begin()
    await shell.close()
    await shell.close()


async def test_a_directory_that_cannot_be_written_is_no_reason_to_fail(
    begin: Begin, tmp_path: Path
) -> None:
    """The shell is then asked every time."""
    (tmp_path / "state").write_text("a file")
    shell = await begin()
    assert "/opt/own/bin" in (await shell.environment())["PATH"]


names = st.text(st.characters(codec="utf-8", exclude_characters="\0="), min_size=1, max_size=8)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.dictionaries(names, values, max_size=8), st.binary(max_size=40), st.binary(max_size=20))
def test_every_environment_is_read_back(
    variables: dict[str, str], before: bytes, after: bytes
) -> None:
    """Whatever is printed before it, and whatever without an end comes after."""
    mark = b"\0mark-that-nobody-prints\0"
    entries = b"".join(f"{name}={value}\0".encode() for name, value in variables.items())
    noise = after.replace(b"\0", b"")
    assert variables == parse_answer(BytesIO(before + mark + entries + noise), mark)
    assert parse_answer(BytesIO(before), mark) is None


@given(st.binary(max_size=200))
def test_any_answer_can_be_read(answer: bytes) -> None:
    """Entries that are none are left out."""
    variables = parse_answer(BytesIO(b"mark" + answer), b"mark")
    assert variables is not None
    assert all(name and "=" not in name for name in variables)


def test_only_harmless_variables_are_allowed() -> None:
    """And their values stay what they were."""
    said = {"PATH": "/x", "LC_ALL": "C", "GIT_DIR": "x", "BASH_ENV": "x", "BASH_FUNC_f%%": "x"}
    assert allowed(said) == {"PATH": "/x", "LC_ALL": "C"}


def test_no_directory_of_a_path_comes_twice() -> None:
    """Empty entries, which mean the current directory, are dropped."""
    assert merged({"PATH": "/a:/c:"}, {"PATH": "/b:/a::"}) == {"PATH": "/b:/a:/c"}
    assert merged({}, {}) == {}


def test_stamps_follow_the_shells_own_variables(tmp_path: Path) -> None:
    """zsh and fish may keep their files elsewhere; directories count with what is in them."""
    (tmp_path / "fish" / "conf.d").mkdir(parents=True)
    given_ = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path), "ZDOTDIR": "/zdot"}
    before = stamps("/usr/bin/fish", given_)
    (tmp_path / "fish" / "conf.d" / "a.fish").write_text("")
    assert before != stamps("/usr/bin/fish", given_)
    assert "/zdot/.zshenv" in stamps("/bin/zsh", given_)
    assert "/nowhere/.zshenv" in stamps("/bin/zsh", {"HOME": "/nowhere"})


async def test_a_shell_that_is_being_asked_asks_no_other(begin: Begin, home: Path) -> None:
    """A start-up file may start us; whoever wants no shell asked sets the same variable."""
    shell = await begin(TIGHTLOOP_LOGIN_SHELL="1")
    await shell.environment()
    assert (num_runs(home), shell.problem) == (0, "")

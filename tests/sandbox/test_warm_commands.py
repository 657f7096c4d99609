"""Commands of a project's own file, answered by a daemon, inside a sandbox."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sandbox.conftest import OpenSandbox
from tightloop.sandbox.interface import Command, CommandResult, SandboxError, Terminal
from tightloop.sandbox.session import PersistentSandbox
from tightloop.sandbox.warm_commands import MAX_STARTS, WarmCommand, WarmTable, read_warm_tables

# A daemon that answers as long as it lives: it leaves its number in a file, in a session of its own.
START = "setsid sh -c 'echo $$ >daemon.pid; exec sleep 600' & while ! [ -s daemon.pid ]; do :; done"
WARM = 'kill -0 "$(cat daemon.pid)" && cat answer || exit 9'
TABLE = WarmTable(cold="cat answer", start=START, warm=WARM, stop="echo stopped >stopped")


def write(place: Path, text: str) -> Path:
    """The project says this."""
    (place / ".tightloop.toml").write_text(text)
    return place


def test_tables_are_read(tmp_path: Path) -> None:
    """By name, with what is left out filled in; other tables are others' business."""
    assert read_warm_tables(tmp_path) == {}
    text = '[setup]\ncommands = ["x"]\n[warm.mypy]\ncold = "mypy src"\nwarm = "dmypy check src"\n'
    tables = read_warm_tables(write(tmp_path, text))
    assert tables == {"mypy": WarmTable(cold="mypy src", warm="dmypy check src")}
    assert tables["mypy"].verdicts == (0, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[warm", "cannot be read"),
        ("warm = 3", r"must be tables \[warm.NAME\]"),
        ('[warm.a]\ncold = "x"', r"\[warm.a\].*`warm`.*known keys: cold, warm, start"),
        ('[warm.a]\ncold = " "\nwarm = "x"', "cold must be a command, got ' '"),
        ('[warm.a]\ncold = "x"\nwarm = "x"\nverdicts = []', "at least one exit code"),
        ('[warm.a]\ncold = "x"\nwarm = "x"\nignore = ["("]', "holds '.', which is no pattern"),
        ('[warm.a]\ncold = "x"\nwarm = "x"\nhot = 1', "hot.*known keys"),
        ('[warm."a/b"]\ncold = "x"\nwarm = "x"', "'a/b' cannot be a name"),
    ],
)
def test_what_is_wrong_in_a_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    """With the file, the table and the key."""
    with pytest.raises(SandboxError, match=message):
        read_warm_tables(write(tmp_path, text))


def test_only_the_cold_command_itself_is_meant() -> None:
    """Word for word, in the project's directory, without an input or a terminal of its own."""
    table = WarmTable(cold="mypy 'my src'", warm="x")
    meant = [Command(argv=["mypy", "my src"]), Command(script="mypy  'my src'")]
    others = [
        Command(script="mypy 'my src' --strict"),
        Command(script="mypy 'my src' | cat"),
        Command(script="mypy 'my src"),
        Command(script="mypy 'my src'", cwd="sub"),
        Command(script="mypy 'my src'", stdin=b"x"),
        Command(script="mypy 'my src'", environment={"A": "b"}),
        Command(script="mypy 'my src'", terminal=Terminal()),
    ]
    assert [table.is_meant_by(one) for one in meant] == [True, True]
    assert [table.is_meant_by(one) for one in others] == [False] * len(others)


@settings(max_examples=60)
@given(
    ours=st.lists(st.sampled_from("ab"), max_size=4),
    theirs=st.lists(st.sampled_from("ab"), max_size=4),
)
def test_differences_are_found_where_there_are_some(ours: list[str], theirs: list[str]) -> None:
    """In the exit code, and in the first line that is not the same; not in what may differ."""
    table = WarmTable(cold="x", warm="y", ignore=(r"\d+ ms",))
    warm = CommandResult(0, "\n".join([*ours, "took 5 ms"]), 0, 0)
    cold = CommandResult(1, "\n".join([*theirs, "took 17 ms"]), 0, 0)
    found = table.differences(warm, cold)
    assert found[0].what == "exit code"
    assert (len(found) == 2) == (ours != theirs)
    assert (table.verdict(warm).tests == table.verdict(cold).tests) == (ours == theirs)


@pytest_asyncio.fixture
async def sandbox(workspace: Path, opened: OpenSandbox) -> PersistentSandbox:
    """On a workspace with an answer."""
    (workspace / "answer").write_text("one\n")
    return await opened()


@pytest_asyncio.fixture
async def command(sandbox: PersistentSandbox) -> AsyncIterator[WarmCommand]:
    """A warm command with a daemon."""
    one = WarmCommand("answer", TABLE, sandbox)
    yield one
    await one.close()


ASKED = Command(script=TABLE.cold)


async def test_the_first_answer_is_cold_then_the_daemon_gives_them(
    command: WarmCommand, sandbox: PersistentSandbox
) -> None:
    """It outlives the command that started it, while other commands come and go."""
    first = await command.run(ASKED)
    assert (first.note, first.result.output) == ("first use", "one\n")
    await command.settle()
    heard: list[bytes] = []
    for _ in range(2):
        await sandbox.run(Command(argv=["true"]))
        answer = await command.run(ASKED, heard.append)
        assert (answer.note, answer.result.how) == ("", "warm-command-answer")
        assert answer.result.output == "one\n"
    assert heard == [b"one\n"] * 2


async def test_a_dead_daemon_is_replaced_and_the_cold_command_counts(
    command: WarmCommand, sandbox: PersistentSandbox
) -> None:
    """At most so many times; each time the answer is right."""
    await command.start()
    for number in range(MAX_STARTS):
        await command.settle()
        assert (await command.run(ASKED)).is_warm, number
        await sandbox.run(Command(script='kill -9 "$(cat daemon.pid)"; rm daemon.pid'))
        heard: list[bytes] = []
        answer = await command.run(ASKED, heard.append)
        assert answer.note.startswith("the warm command ended with 9")
        assert (answer.result.output, b"".join(heard)) == ("one\n", b"one\n")
    answer = await command.run(ASKED)
    assert answer.note.startswith(f"its daemon ended {MAX_STARTS} times")


async def test_a_daemon_that_does_not_start_says_why(sandbox: PersistentSandbox) -> None:
    """In its own words; the cold command runs."""
    table = WarmTable(cold="cat answer", start="echo no room >&2; exit 3", warm="echo wrong")
    command = WarmCommand("answer", table, sandbox)
    await command.start()
    await command.settle()
    answer = await command.run(ASKED)
    assert (answer.note, answer.result.output) == ("its daemon did not start: no room", "one\n")
    await command.close()


async def test_the_daemon_ends_with_its_command(sandbox: PersistentSandbox) -> None:
    """By its own command first; whatever that does, no process of it is left."""
    command = WarmCommand("answer", TABLE, sandbox)
    await command.start()
    await command.settle()
    pid = (await sandbox.run(Command(script="cat daemon.pid"))).output.strip()
    assert (await sandbox.run(Command(script=f"kill -0 {pid}"))).exit_code == 0
    await command.close()
    assert (await sandbox.run(Command(script=f"kill -0 {pid} 2>/dev/null"))).exit_code == 1
    assert (await sandbox.run(Command(script="cat stopped"))).output == "stopped\n"


async def test_a_command_needs_no_daemon_of_ours(sandbox: PersistentSandbox) -> None:
    """Some tools start theirs by themselves: then there is nothing to start."""
    command = WarmCommand("a", WarmTable(cold="cat answer", warm="cat answer"), sandbox)
    assert (await command.run(ASKED)).is_warm
    assert (await command.run(ASKED, why_cold="asked for")).note == "asked for"

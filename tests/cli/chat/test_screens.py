"""What a person sees, key by key: a real ``tightloop`` behind a pseudo-terminal.

Whole screens are compared with those in ``tests/golden/chat``, but for figures that differ from run to run.
"""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.chat.pseudo_terminal import Seen, chat, script_file

SCREENS = Path(__file__).parents[2] / "golden" / "chat"
PATCH = "*** Begin Patch\n*** Update File: m.py\n@@\n-x = 1\n+x = 2\n y = 1\n*** End Patch"
FIX: list[Any] = [
    [{"text": "I look **first**."}, {"call": {"name": "exec_command", "arguments": {"cmd": "cat m.py"}}}],
    [{"call": {"name": "apply_patch", "arguments": PATCH}}],
    [{"text": "Changed `x`."}],
]  # fmt: skip
HELD: list[Any] = [[{"text": "# Plan\n\nFirst this.\n\n- one\n- two and"}, {"hold": True}]]
_FIGURES = (
    (re.compile(r"\d+m\d\ds|\d+(\.\d)? m?s\b"), "T"),
    (re.compile(r"\d+ tok/s"), "R tok/s"),
    (re.compile(r"(client|server|engine|tools) \d+\.\d+"), r"\1 T"),
    (re.compile(r"ctx \d+k?"), "ctx N"),
    (re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}"), "ID"),
    (re.compile(r"read x < .*"), "read x < FIFO"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d"), "DATE"),
)


def normal(text: str) -> str:
    """Without what differs from run to run."""
    for pattern, replacement in _FIGURES:
        text = pattern.sub(replacement, text)
    return text


def screen_text(seen: Seen) -> str:
    """Without what differs from run to run; ``$`` shows where the cursor is.

    How much of the status line there is room for depends on the figures in it: ``status`` has its tests.
    """
    row, column = seen.cursor
    rows = seen.rows
    rows[row] = rows[row].ljust(column)[:column] + "$" + rows[row][column:]
    status = next(index for index in range(row, len(rows)) if rows[index].startswith("scripted"))
    return normal("\n".join([*rows[:status], "(status line)"])) + "\n"


def check(seen: Seen, name: str) -> None:
    """The screen is the one that is kept under this name."""
    assert (SCREENS / f"{name}.txt").read_text() == screen_text(seen)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    directory = tmp_path / "repo"
    directory.mkdir()
    (directory / "m.py").write_text("x = 1\ny = 1\n")
    return directory


def waiting_command(repo: Path) -> tuple[str, Path]:
    """A command that prints two rows and then waits until the fifo is written to."""
    fifo = repo.parent / "fifo"
    os.mkfifo(fifo)
    return f"echo one; echo two; read x < {fifo}; echo $x", fifo


def called(command: str) -> list[Any]:
    return [{"call": {"name": "exec_command", "arguments": {"cmd": command}}}]


@contextmanager
def idle_chat(repo: Path, answers: list[Any], *words: str, **more: Any) -> Iterator[Seen]:
    """A chat whose conversation is open."""
    model = script_file(repo.parent / "script.json", answers)
    with chat(repo, *words, model=model, **more) as seen:
        seen.until("scripted")
        yield seen


def test_first_paint(repo: Path) -> None:
    """Banner, editor and where the cursor is, before anything else has been opened."""
    with chat(repo) as seen:
        seen.until("opening")
        assert seen.rows[:4] == [
            "tightloop 0.1.0.dev0  ~/repo  /help", "", "> what shall be done?", "opening",
        ]  # fmt: skip
        assert seen.cursor == (2, 2)


def test_what_is_typed_before_all_is_open_is_sent_then(repo: Path) -> None:
    """Keys are read while the conversation is being opened, and the message waits."""
    with chat(repo) as seen:
        seen.until("/help")
        seen.type("hello\r")
        seen.until("echo: hello")
        seen.type("\x04")
        assert seen.wait() == 0
        assert "tightloop --resume" in seen.text


def test_one_turn(repo: Path) -> None:
    """Message, command, patch, answer, figures, question; and the repository when it was answered."""
    with idle_chat(repo, FIX, approval="auto") as seen:
        seen.type("change x\r")
        seen.until("apply 1 file?")
        check(seen, "question")
        status = normal(" ".join(seen.rows))
        assert "scripted · TTFT T" in status
        assert "T: client T server T engine T tools T · ctx N/1049k" in status
        seen.type("d\r")
        seen.until("diff --git")
        assert (repo / "m.py").read_text() == "x = 1\ny = 1\n"
        seen.type("y\r")
        seen.until("applied: m.py")
        seen.until_gone("apply 1 file?")
        check(seen, "applied")
        assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"


def test_streaming_and_interrupt(repo: Path) -> None:
    """Complete rows are above, the one that is being written is in the live region; Esc keeps both."""
    with idle_chat(repo, HELD) as seen:
        seen.type("go\r")
        seen.until("two and")
        check(seen, "streaming")
        seen.type("a draft\x1b")
        seen.until("interrupted")
        seen.until_gone("stopping")
        check(seen, "interrupted")


def test_command_output_steer_and_queue(repo: Path) -> None:
    """A command's output as it comes; Enter steers, Tab queues, both are shown; then both go out."""
    command, fifo = waiting_command(repo)
    answers = [called(command), [{"text": "Done."}]]
    with idle_chat(repo, answers) as seen:
        seen.type("run it\r")
        seen.until("  two")
        check(seen, "command")
        seen.type("rather that\r")
        seen.until("will be seen at the next step: rather that")
        seen.type("and then this\t")
        seen.until("queued: and then this")
        seen.type("half a")
        seen.until("> half a")
        check(seen, "steered-and-queued")
        fifo.write_text("three\n")
        seen.until("> and then this")
        seen.until(lambda now: now.text.count("Done.") == 2)
        seen.until_gone("working")
        check(seen, "steered-and-queued-after")


def test_enter_on_an_empty_line_promotes(repo: Path) -> None:
    command, fifo = waiting_command(repo)
    with idle_chat(repo, [called(command), [{"text": "Done."}]]) as seen:
        seen.type("run it\r")
        seen.until("  two")
        seen.type("later\t")
        seen.until("queued: later")
        seen.type("\r")
        seen.until("will be seen at the next step: later")
        fifo.write_text("three\n")
        seen.until("seen at step 2")


def test_esc_in_the_middle_of_a_command(repo: Path) -> None:
    """The command is ended, the queue stays; Esc again drops it into the editor; nothing was sent."""
    command, _fifo = waiting_command(repo)
    with idle_chat(repo, [called(command), [{"text": "Done."}]]) as seen:
        seen.type("run it\r")
        seen.until("  two")
        seen.type("later\t")
        seen.until("queued: later")
        seen.type("\x1b")
        seen.until("held: later")
        check(seen, "interrupted-command")
        seen.type("\x1b")
        seen.until("> later")
        assert "Done." not in seen.text
        seen.type("\r")
        seen.until("Done.")


def test_latency(repo: Path) -> None:
    with idle_chat(repo, [[{"text": "Hello."}]]) as seen:
        seen.type("/latency\r")
        seen.until("no turn has ended yet")
        seen.type("hi\r")
        seen.until("1 round trip")
        seen.type("/latency\r")
        seen.until("overhead")
        found = [normal(row).split() for row in seen.rows]
        assert ["last", "p50", "p95", "session"] in found
        assert ["turn", "T", "T", "T", "T"] in found
        assert ["round", "trips", "1", "1", "1", "1"] in found
        assert ["TTFT", "T", "T", "T"] in found


def test_diff_undo_and_redo(repo: Path) -> None:
    with idle_chat(repo, FIX, approval="auto") as seen:
        seen.type("/diff\r")
        seen.until("no change that is not applied")
        seen.type("change x\r")
        seen.until("apply 1 file?")
        seen.type("/apply\r")
        seen.until("applied: m.py")
        assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"
        seen.type("/undo\r")
        seen.until("taken back: m.py")
        assert (repo / "m.py").read_text() == "x = 1\ny = 1\n"
        seen.type("/redo\r")
        seen.until("made again: m.py")
        assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"


def test_a_conflict_loses_nothing(repo: Path) -> None:
    with idle_chat(repo, FIX, approval="auto") as seen:
        seen.type("change x\r")
        seen.until("apply 1 file?")
        (repo / "m.py").write_text("x = 5\ny = 1\n")
        seen.type("/apply\r")
        seen.until("nothing is lost")
        assert (repo / "m.py").read_text() == "x = 5\ny = 1\n"
        seen.type("/apply force\r")
        seen.until("applied: m.py")
        assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"


FINDING = {
    "findings": [
        {"severity": "error", "path": "m.py", "line": 1, "title": "x is never read",
         "detail": "It is assigned, and nothing looks at it.", "suggestion": "Remove it."},
        {"severity": "note", "path": "m.py", "line": 2, "title": "a name says nothing"},
    ],
    "summary": "One thing to mend.",
}  # fmt: skip


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
def test_review(repo: Path, columns: int, rows: int) -> None:
    """Findings by how bad they are, then the summary; what cannot be reviewed is said."""
    model = script_file(
        repo.parent / "s.json", FIX, {"eview": [{"text": orjson.dumps(FINDING).decode()}]}
    )
    with chat(repo, model=model, approval="auto", columns=columns, rows=rows) as seen:
        seen.until("scripted")
        seen.type("/review\r")
        seen.until("there is nothing to review")
        seen.type("change x\r")
        seen.until("apply 1 file?")
        seen.type("/review\r")
        seen.until("One thing to mend.")
        seen.until_gone("/review  Esc")
        check(seen, f"review-{columns}")
        seen.type("/review everything\r")
        seen.until("session, uncommitted, branch, commit, got 'everything'")
        assert (repo / "m.py").read_text() == "x = 1\ny = 1\n"


def test_compact(repo: Path) -> None:
    """Told of once, and the conversation goes on; with nothing said there is nothing to compact."""
    replies = {"ummar": [{"text": "The user wants x to be 2. " * 3}]}
    model = script_file(repo.parent / "s.json", [[{"text": "word " * 400}]], replies)
    with chat(repo, model=model) as seen:
        seen.until("scripted")
        seen.type("/compact\r")
        seen.until("nothing to compact: nothing was said yet")
        seen.type("write\r")
        seen.until("1 round trip")
        seen.type("/compact the names\r")
        seen.until("the conversation was compacted")
        seen.until_gone("/compact  Esc")
        assert seen.text.count("the conversation was compacted") == 1
        seen.type("again\r")
        seen.until(lambda now: now.text.count("1 round trip") == 2)


def test_race(repo: Path) -> None:
    """The next turn, and only that one; where candidates could not ask it is refused."""
    (repo / "test_m.py").write_text(
        "import unittest\nimport m\n\n\nclass X(unittest.TestCase):\n"
        "    def test_x(self):\n        self.assertEqual(m.x, 2)\n"
    )
    test = called("python3 -m unittest -q test_m")
    answers = [test, FIX[1], test, [{"text": "Mended."}]]
    with idle_chat(repo, answers) as seen:
        for wrong in ("0", "65", "many"):
            seen.type(f"/race {wrong}\r")
            seen.until(f"from 1 to 64, got '{wrong}'")
        seen.type("/approvals ask\r")
        seen.until("approvals: ask")
        seen.type("/race 2\r")
        seen.until("candidates cannot ask")
        seen.type("/approvals full\r")
        seen.until("approvals: full")
        seen.type("/race 2\r")
        seen.until("next: race of 2")
        seen.type("make the test pass\r")
        seen.until("race: 2 candidates, #")
        seen.until("applied: m.py")
        seen.until_gone("next: race")
        assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"
        num_races = seen.text.count("race: ")
        seen.type("and now?\r")
        seen.until(lambda now: now.text.count("1 round trip") == 1)
        assert seen.text.count("race: ") == num_races


def test_resume(repo: Path) -> None:
    """A conversation goes on in another process, with the work that was not applied."""
    with idle_chat(repo, FIX, approval="auto") as seen:
        seen.type("change x\r")
        seen.until("apply 1 file?")
        seen.type("n\r")
        seen.until("/apply does it later")
        seen.type("/quit\r")
        assert seen.wait() == 0
    with idle_chat(repo, FIX, "--resume", "last", approval="auto") as seen:
        seen.until("1 file of before not applied")
        check(seen, "resumed")
        seen.type("/apply\r")
        seen.until("applied: m.py")
    assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"


def test_resume_within_a_chat(repo: Path) -> None:
    with idle_chat(repo, [[{"text": "Hello."}]]) as seen:
        seen.type("the first task\r")
        seen.until("Hello.")
        seen.type("/quit\r")
        seen.wait()
    with idle_chat(repo, [[{"text": "Hello."}]]) as seen:
        seen.type("/resume\r")
        seen.until("1  the first task")
        seen.type("/resume 1\r")
        seen.until("going on with: the first task (1 turn)")
        seen.type("/resume nonsense\r")
        seen.until("no conversation 'nonsense'")
        seen.type("still there?\r")
        seen.until(lambda now: now.text.count("Hello.") == 2)


def test_another_model(repo: Path) -> None:
    """The conversation is the same; a model that there is not leaves the former one."""
    other = script_file(repo.parent / "other.json", [[{"text": "I am another."}]])
    with idle_chat(repo, [[{"text": "Hello."}]]) as seen:
        seen.type("hi\r")
        seen.until("1 round trip")
        seen.type("/model no-such\r")
        seen.until("there is no engine 'no-such'")
        seen.type("again\r")
        seen.until(lambda now: now.text.count("1 round trip") == 2)
        seen.type(f"/model {other}\r")
        seen.until("going on with")
        seen.type("who are you?\r")
        seen.until("I am another.")


def test_unknown_command(repo: Path) -> None:
    with idle_chat(repo, FIX) as seen:
        seen.type("/nonsense\r")
        seen.until("there is no command /nonsense; there are: /apply")
        seen.until("> /nonsense")


def test_help(repo: Path) -> None:
    with idle_chat(repo, FIX, rows=40) as seen:
        seen.type("/help\r")
        seen.until("Up, Down")
        check(seen, "help")


def test_small_terminal(repo: Path) -> None:
    """Forty columns and ten rows: everything is there, nothing scrolls by itself."""
    command, fifo = waiting_command(repo)
    with idle_chat(repo, [called(command), [{"text": "Done."}]], columns=40, rows=10) as seen:
        seen.type("run it\r")
        seen.until("  two")
        seen.type("then that\t")
        seen.until("queued: then that")
        check(seen, "small")
        fifo.write_text("three\n")
        seen.until(lambda now: now.text.count("Done.") == 2)


def test_another_size(repo: Path) -> None:
    with idle_chat(repo, HELD) as seen:
        seen.type("go\r")
        seen.until("two and")
        seen.resize(50, 12)
        seen.signal(signal.SIGWINCH)
        seen.type("typed after")
        seen.until("> typed after")
        assert max(map(len, seen.rows)) <= 50


def test_without_colour(repo: Path) -> None:
    """No colour is ever set; bold and faint may be."""
    with idle_chat(repo, FIX, approval="auto", env={"NO_COLOR": "1"}) as seen:
        seen.type("change x\r")
        seen.until("apply 1 file?")
        assert not re.search(rb"\x1b\[(?:\d+;)*(?:[34][0-9]|9[0-7]|10[0-7])(?:;\d+)*m", seen.raw)


def test_a_dumb_terminal(repo: Path) -> None:
    """Lines in, lines out, no escape sequence; questions are answered with a line."""
    with idle_chat(repo, FIX, approval="auto", env={"TERM": "dumb"}) as seen:
        seen.type("change x\n")
        seen.until("[y]es  [n]o  [d]iff")
        seen.type("y\n")
        seen.until("applied: m.py")
        seen.type("/quit\n")
        assert seen.wait() == 0
        assert b"\x1b" not in seen.raw


def test_escape_sequences_of_the_model_are_neutralised(repo: Path) -> None:
    evil = "red \x1b[31mtext\x1b]0;title\x07 and \x1b[2J"
    with idle_chat(repo, [called(f"printf '{evil}'"), [{"text": evil}]]) as seen:
        seen.type("go\r")
        seen.until("2 round trips")
        assert b"\x1b[31mtext" not in seen.raw
        assert b"\x1b[2J" not in seen.raw
        assert b"title" not in seen.raw


def test_ctrl_c_twice(repo: Path) -> None:
    with idle_chat(repo, FIX) as seen:
        seen.type("draft\x03")
        seen.until("Ctrl-C again quits")
        seen.until_gone("> draft")
        seen.type("\x03")
        assert seen.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(repo: Path, number: int) -> None:
    """In the middle of a command; the terminal is given back, and the conversation can go on."""
    command, _fifo = waiting_command(repo)
    with idle_chat(repo, [called(command), [{"text": "Done."}]]) as seen:
        seen.type("run it\r")
        seen.until("  two")
        seen.signal(number)
        assert seen.wait() == 130
        assert seen.raw.rstrip().endswith(b"\x1b[?2004l") or b"\x1b[?2004l" in seen.raw
    with idle_chat(repo, [called(command), [{"text": "Done."}]], "--resume") as seen:
        seen.until("going on with: run it")


def test_what_cannot_be_opened_says_so(repo: Path) -> None:
    """The message that was typed meanwhile is not lost either."""
    with chat(repo, model="no-such") as seen:
        seen.type("hello\r")
        assert seen.wait() == 2
        assert "there is no engine 'no-such'" in seen.text


def test_full_approval_applies_by_itself(repo: Path) -> None:
    with idle_chat(repo, FIX) as seen:
        seen.type("change x\r")
        seen.until("applied: m.py")
        assert (repo / "m.py").read_text() == "x = 2\ny = 1\n"


def test_a_command_that_is_asked_for(repo: Path) -> None:
    """No: it does not run, and the model hears of it. Once: it runs."""
    answers = [called("touch made"), called("touch made"), [{"text": "Done."}]]
    with idle_chat(repo, answers, approval="auto") as seen:
        seen.type("go\r")
        seen.until("[n]o")
        check(seen, "approval")
        seen.type("n\r")
        seen.until("declined")
        seen.until(lambda now: any("[n]o" in row for row in now.rows))
        seen.type("y\r")
        seen.until("apply 1 file?")


def test_esc_while_a_command_is_asked_for(repo: Path) -> None:
    with idle_chat(repo, [called("touch made"), [{"text": "Done."}]], approval="auto") as seen:
        seen.type("go\r")
        seen.until("[n]o")
        seen.type("\x1b")
        seen.until("interrupted")
        seen.until_gone("[n]o")
        seen.type("and now?\r")
        seen.until("Done.")


def test_another_approval_mode(repo: Path) -> None:
    with idle_chat(repo, FIX, approval="auto") as seen:
        seen.type("/approvals\r")
        seen.until("approvals: auto")
        seen.type("/approvals read-only\r")
        seen.until("approvals: read-only")
        seen.type("/approvals sideways\r")
        seen.until("sideways")
        seen.type("change x\r")
        seen.until("patch refused")
        seen.until("round trips")


def test_a_verb_behind_options_is_named(repo: Path) -> None:
    with Seen(["--model", "scripted", "exec"], repo) as seen:
        assert seen.wait() == 2
        assert "options stand behind the verb: tightloop exec ..." in seen.text


def test_a_message_on_the_command_line(repo: Path) -> None:
    with idle_chat(repo, FIX, "change x") as seen:
        seen.until("applied: m.py")
        assert "> change x" in seen.text

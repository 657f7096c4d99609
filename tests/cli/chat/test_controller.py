"""Every key in every state, one by one; all of them in any order in test_controller_runs."""

from collections.abc import Sequence

import pytest

from tightloop.agent.terminal.editor import Editor
from tightloop.agent.terminal.keys import Key
from tightloop.cli.chat.commands import COMMANDS
from tightloop.cli.chat.controller import QUIT_HINT, Applying, Controller, Ending, Phase
from tightloop.cli.chat.operations import (
    Answer,
    CancelJob,
    Interrupt,
    Operation,
    Print,
    Quit,
    Run,
    Send,
    Steer,
    Suspend,
)
from tightloop.cli.chat.questions import GUARD_NS, Choice, Question

RUN_IT = Question(1, "run it?", (Choice("y", "once"), Choice("n", "no")))
WELL, BADLY = Ending(True), Ending(False)


class Person:
    """Types, and sees what follows."""

    def __init__(self, applying: Applying = Applying.ASK) -> None:
        self.editor = Editor()
        self.controller = Controller(self.editor, COMMANDS, applying)
        self.now_ns = 0

    def press(self, *names: str) -> list[Operation]:
        """Keys by name; what follows from the last one."""
        done: list[Operation] = []
        for name in names:
            done = self.controller.press(Key(name), self.now_ns)
        return done

    def type(self, text: str) -> list[Operation]:
        return self.controller.press(Key("text", text), self.now_ns)

    def enter(self, text: str) -> list[Operation]:
        self.type(text)
        return self.press("enter")

    def end(self, ending: Ending = WELL) -> list[Operation]:
        return self.controller.turn_ended(ending, self.now_ns)

    def wait(self) -> None:
        """Long enough for a question to take keys."""
        self.now_ns += GUARD_NS


@pytest.fixture
def person() -> Person:
    """With an open conversation."""
    person = Person()
    person.controller.opened()
    return person


@pytest.fixture
def running() -> Person:
    """With a turn that runs."""
    person = Person()
    person.controller.opened()
    person.enter("go")
    return person


def sent(operations: Sequence[Operation]) -> list[str]:
    return [one.message.text for one in operations if isinstance(one, Send)]


def steered(operations: Sequence[Operation]) -> list[str]:
    return [one.message.text for one in operations if isinstance(one, Steer)]


def printed(operations: Sequence[Operation]) -> str:
    rows = [row.plain for one in operations if isinstance(one, Print) for row in one.lines]
    return "\n".join(rows)


def waiting(person: Person) -> list[str]:
    return [message.text for message in person.controller.mailbox.waiting]


# -- Enter


def test_enter_sends_when_idle(person: Person) -> None:
    done = person.enter("fix it")
    assert sent(done) == ["fix it"]
    assert printed(done) == "\n> fix it"
    assert person.controller.phase is Phase.RUNNING
    assert person.editor.is_empty


def test_enter_steers_when_running(running: Person) -> None:
    assert steered(running.enter("not like that")) == ["not like that"]
    (message,) = running.controller.mailbox.steering
    assert printed(running.controller.delivered(message.number, 3)) == (
        "> not like that\n  seen at step 3"
    )
    assert running.controller.mailbox.steering == []
    assert sent(running.end()) == []


def test_a_steer_that_was_not_delivered_is_the_next_message(running: Person) -> None:
    running.enter("also this")
    assert sent(running.end()) == ["also this"]
    assert running.controller.phase is Phase.RUNNING


def test_what_is_entered_before_all_is_open_is_sent_then() -> None:
    person = Person()
    assert person.enter("first") == []
    assert person.enter("second") == []
    assert sent(person.controller.opened()) == ["first"]
    assert sent(person.end()) == ["second"]


def test_enter_on_an_empty_line_promotes_the_oldest(running: Person) -> None:
    running.type("a")
    running.press("tab")
    running.type("b")
    running.press("tab")
    assert steered(running.press("enter")) == ["a"]
    assert waiting(running) == ["b"]
    assert steered(running.press("enter")) == ["b"]
    assert running.press("enter") == []


def test_enter_on_an_empty_line_sends_what_is_held(running: Person) -> None:
    running.type("a")
    running.press("tab", "esc")
    assert sent(running.end(BADLY)) == []
    assert running.controller.mailbox.is_held
    assert sent(running.press("enter")) == ["a"]


def test_enter_on_nothing_does_nothing(person: Person) -> None:
    assert person.press("enter") == []
    assert person.enter("  ") == []


def test_several_lines_are_one_message(person: Person) -> None:
    person.type("one")
    person.press("ctrl-j")
    assert printed(person.enter("two")) == "\n> one\n  two"


def test_a_paste_does_not_send(person: Person) -> None:
    assert person.controller.press(Key("paste", "one\ntwo\n"), 0) == []
    assert sent(person.press("enter")) == ["one\ntwo\n"]


# -- Tab


def test_tab_queues_behind_the_turn(running: Person) -> None:
    running.type("then this")
    assert running.press("tab") == []
    assert waiting(running) == ["then this"]
    assert sent(running.end()) == ["then this"]


def test_tab_sends_when_idle(person: Person) -> None:
    person.type("fix it")
    assert sent(person.press("tab")) == ["fix it"]


def test_tab_on_nothing_does_nothing(person: Person) -> None:
    assert person.press("tab") == []


def test_tab_never_queues_a_command(running: Person) -> None:
    running.type("/di")
    assert running.press("tab") == []
    assert running.editor.text == "/di"


def test_tab_lets_held_messages_go(running: Person) -> None:
    running.type("a")
    running.press("tab", "esc")
    running.end(BADLY)
    running.enter("b")
    running.type("c")
    running.press("tab")
    assert sent(running.end()) == ["a"]
    assert sent(running.end()) == ["c"]


# -- Esc


def test_esc_interrupts_once_and_keeps_the_draft(running: Person) -> None:
    running.type("a draft")
    assert running.press("esc") == [Interrupt()]
    assert running.press("esc") == []
    assert running.end(BADLY) == []
    assert running.controller.phase is Phase.IDLE
    assert running.editor.text == "a draft"


def test_second_esc_drops_the_queue_into_the_editor(running: Person) -> None:
    running.type("queued")
    running.press("tab")
    running.enter("steered")
    running.type("draft")
    running.press("esc", "esc")
    assert running.editor.text == "queued\ndraft"
    running.end(BADLY)
    assert running.editor.text == "steered\nqueued\ndraft"
    assert waiting(running) == []


def test_esc_after_the_end_drops_them_too(running: Person) -> None:
    running.type("queued")
    running.press("tab", "esc")
    running.end(BADLY)
    running.press("esc")
    assert running.editor.text == "queued"


def test_enter_while_stopping_is_the_next_message(running: Person) -> None:
    """It was written after the interruption, so it goes out; what was queued before does not."""
    running.type("queued")
    running.press("tab", "esc")
    assert running.enter("do this instead") == []
    assert sent(running.end(BADLY)) == ["do this instead"]
    assert waiting(running) == ["queued"]
    assert sent(running.end()) == []
    assert waiting(running) == ["queued"]


def test_a_steer_while_stopping_comes_back_when_taken_back(running: Person) -> None:
    """But not what was entered after that."""
    running.enter("steered")
    running.press("esc", "esc")
    running.enter("new")
    assert sent(running.end(BADLY)) == ["new"]
    assert running.editor.text == "steered"


def test_esc_when_idle_does_nothing(person: Person) -> None:
    person.type("draft")
    assert person.press("esc") == []
    assert person.editor.text == "draft"


# -- Ctrl-C, Ctrl-D, Ctrl-Z


def test_ctrl_c_clears_the_draft(person: Person) -> None:
    person.type("draft")
    assert person.press("ctrl-c") == []
    assert person.editor.is_empty
    assert person.controller.hint == QUIT_HINT
    person.press("up")
    assert person.editor.text == "draft"


def test_ctrl_c_twice_quits(person: Person) -> None:
    assert person.press("ctrl-c") == []
    assert person.press("ctrl-c") == [Quit()]
    assert person.controller.phase is Phase.CLOSING
    assert person.enter("too late") == []


def test_another_key_between_begins_anew(person: Person) -> None:
    person.press("ctrl-c")
    person.type("x")
    person.press("backspace")
    assert person.controller.hint == ""
    assert person.press("ctrl-c") == []


def test_ctrl_c_interrupts_a_turn(running: Person) -> None:
    assert running.press("ctrl-c") == [Interrupt()]
    assert running.press("ctrl-c") == [Quit()]


def test_ctrl_c_clears_first_and_interrupts_then(running: Person) -> None:
    """Somebody who clears a line must not end the program with the second key."""
    running.type("draft")
    assert running.press("ctrl-c") == []
    assert running.controller.phase is Phase.RUNNING
    assert running.press("ctrl-c") == [Interrupt()]
    assert running.press("ctrl-c") == [Quit()]


def test_ctrl_d_quits_on_an_empty_line_only(person: Person) -> None:
    person.type("x")
    assert person.press("home", "ctrl-d") == []
    assert person.editor.is_empty
    assert person.press("ctrl-d") == [Quit()]


def test_ctrl_z(person: Person) -> None:
    assert person.press("ctrl-z") == [Suspend()]


# -- commands


def test_an_unknown_command_names_the_known_ones(person: Person) -> None:
    done = person.enter("/dif")
    text = printed(done)
    assert text.startswith("there is no command /dif; there are: /apply /approvals")
    assert person.editor.text == "/dif"


def test_commands_aside_run_at_any_time(running: Person) -> None:
    assert running.enter("/latency") == [Run("latency", "", is_aside=True)]
    assert running.controller.phase is Phase.RUNNING
    assert running.editor.is_empty


@pytest.mark.parametrize("name", [one.name for one in COMMANDS if not one.is_aside])
def test_other_commands_wait_for_the_end_of_the_turn(running: Person, name: str) -> None:
    done = running.enter(f"/{name}")
    assert printed(done) == f"/{name} has to wait: a turn runs, Esc ends it"
    assert running.editor.text == f"/{name}"


def test_they_wait_for_the_opening_and_for_each_other() -> None:
    person = Person()
    assert "not open yet" in printed(person.enter("/undo"))
    person.editor.clear()
    person.controller.opened()
    assert person.enter("/undo") == [Run("undo", "")]
    assert printed(person.enter("/redo")) == "/redo has to wait: /undo still runs"


def test_a_command_ends(person: Person) -> None:
    person.enter("/model x")
    assert (person.controller.phase, person.controller.job) == (Phase.WORKING, "model")
    assert person.enter("go on") == []
    assert sent(person.controller.job_ended(0)) == ["go on"]
    assert person.controller.job == ""


def test_esc_ends_long_commands_only(person: Person) -> None:
    person.enter("/review")
    assert person.press("esc") == [CancelJob()]
    assert person.press("ctrl-c") == [CancelJob()]
    person.controller.job_ended(0)
    person.enter("/undo")
    assert person.press("esc") == []


def test_quit(running: Person) -> None:
    assert running.enter("/quit") == [Quit()]


def test_a_path_is_a_message(person: Person) -> None:
    assert sent(person.enter("/usr/bin/env is missing")) == ["/usr/bin/env is missing"]


# -- the question about the changes

CHANGED = Ending(True, ("a.py", "b.py"))


def test_changes_are_asked_about_once(running: Person) -> None:
    assert running.end(CHANGED) == []
    question = running.controller.question
    assert question is not None
    assert (question.text, question.answers) == ("apply 2 files?", "[y]es  [n]o  [d]iff")
    running.wait()
    assert running.type("y") == [Run("apply", "")]
    assert running.controller.phase is Phase.WORKING
    assert running.controller.job_ended(0, pending=()) == []
    assert running.controller.question is None


def test_no_leaves_them(running: Person) -> None:
    running.end(Ending(True, ("a.py",)))
    running.wait()
    assert "/apply does it later" in printed(running.type("n"))
    assert running.controller.question is None
    assert running.controller.pending == ("a.py",)


def test_esc_is_no(running: Person) -> None:
    running.end(CHANGED)
    assert "/apply does it later" in printed(running.press("esc"))


def test_diff_asks_again(running: Person) -> None:
    running.end(CHANGED)
    running.wait()
    assert running.type("d") == [Run("diff", is_aside=True)]
    assert running.controller.question is not None


def test_a_key_that_comes_at_once_is_typing(running: Person) -> None:
    running.end(CHANGED)
    assert running.type("y") == []
    assert running.editor.text == "y"
    assert running.press("enter") == [Run("apply", "")]
    assert running.editor.is_empty


def test_who_is_typing_answers_nothing(running: Person) -> None:
    running.type("wh")
    running.end(CHANGED)
    running.wait()
    assert running.type("y") == []
    assert running.editor.text == "why"


def test_a_message_leaves_them_for_later(running: Person) -> None:
    running.end(CHANGED)
    done = running.enter("now the tests")
    assert "/apply does it later" in printed(done)
    assert sent(done) == ["now the tests"]
    assert running.controller.question is None


def test_the_queue_goes_first(running: Person) -> None:
    """One question when all is done, not one after each turn."""
    running.type("next")
    running.press("tab")
    assert sent(running.end(CHANGED)) == ["next"]
    assert running.controller.question is None
    running.end(CHANGED)
    assert running.controller.question is not None


def test_an_interrupted_turn_asks_nothing(running: Person) -> None:
    running.press("esc")
    assert "2 files changed, not applied" in printed(running.end(Ending(False, ("a", "b"))))
    assert running.controller.question is None


def test_auto_applies_before_the_next_message() -> None:
    person = Person(Applying.AUTO)
    person.controller.opened()
    person.enter("go")
    person.type("next")
    person.press("tab")
    assert person.end(CHANGED) == [Run("apply", "")]
    assert sent(person.controller.job_ended(0, pending=())) == ["next"]


def test_never_asks_nothing() -> None:
    person = Person(Applying.NEVER)
    person.controller.opened()
    person.enter("go")
    assert person.end(CHANGED) == []
    assert person.controller.question is None


def test_changes_of_before_are_named() -> None:
    done = Person().controller.opened(("a.py",))
    assert printed(done) == "1 file of before not applied: /apply, /diff or /undo"


# -- questions of the agent


def test_an_answer_goes_to_the_agent(running: Person) -> None:
    running.controller.asked(RUN_IT, running.now_ns)
    running.wait()
    assert running.type("y") == [Answer(1, "y")]
    assert running.controller.question is None
    assert running.controller.phase is Phase.RUNNING


def test_esc_interrupts_instead_of_answering(running: Person) -> None:
    running.controller.asked(RUN_IT, 0)
    assert running.press("esc") == [Interrupt()]
    running.controller.withdrawn(1, 0)
    assert running.controller.question is None


def test_a_message_does_not_answer(running: Person) -> None:
    running.controller.asked(RUN_IT, 0)
    assert steered(running.enter("use the other tool")) == ["use the other tool"]
    assert running.controller.question is RUN_IT


def test_other_letters_are_typing(running: Person) -> None:
    running.controller.asked(RUN_IT, 0)
    running.wait()
    assert running.type("x") == []
    assert running.editor.text == "x"


# -- the end


def test_nothing_begins_while_closing(running: Person) -> None:
    running.enter("steer")
    running.press("ctrl-d")
    assert running.controller.phase is Phase.CLOSING
    assert running.end(CHANGED) == []
    assert waiting(running) == ["steer"]
    assert running.controller.job_ended(0) == []
    assert running.controller.opened() == []

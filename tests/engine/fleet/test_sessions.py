"""Which session a request belongs to, and who has it."""

from dataclasses import replace

from tests.engine.collecting import request
from tightloop.engine.fleet.sessions import SessionBook
from tightloop.engine.interface import Node

ROOT = Node("r", None, ())
CHILD = Node("c", ROOT, ())


def test_a_continuation_finds_its_session_and_its_keeper() -> None:
    """By the parent alone: a fork of an early node goes where that node is warm."""
    book = SessionBook()
    first = request(name="r")
    session = book.session(first)
    assert session.key == "r"
    book.place("r", session, "alpha")
    second = request(name="c", parent=ROOT)
    assert book.session(second) is session
    assert book.keeper(second, session) == "alpha"
    book.place("c", session, "beta")
    assert book.keeper(request(name="d", parent=CHILD), session) == "beta"
    assert book.keeper(request(name="e", parent=ROOT), session) == "alpha"


def test_a_cache_key_makes_a_session() -> None:
    """For clients that send everything again; two keys are two sessions."""
    book = SessionBook()
    asked = replace(request(name="r"), cache_key="k")
    session = book.session(asked)
    book.place("r", session, "alpha")
    again = replace(request(name="s"), cache_key="k")
    assert book.session(again) is session
    assert book.keeper(again, session) == "alpha"
    other = replace(request(name="t"), cache_key="l")
    assert book.keeper(other, book.session(other)) is None


def test_what_was_forgotten_keeps_its_key() -> None:
    """The root's id, as before: a session stays in its arm of a split."""
    book = SessionBook(max_nodes=1)
    session = book.session(request(name="r"))
    book.place("r", session, "alpha")
    book.place("c", session, "alpha")
    assert book.session(request(name="x", parent=CHILD)) is session
    book.place("other", book.session(request(name="other")), "beta")
    late = request(name="d", parent=CHILD)
    assert book.session(late).key == "r"
    assert book.keeper(late, book.session(late)) is None


def test_keys_are_bounded() -> None:
    """The one used longest ago goes."""
    book = SessionBook(max_keys=2)
    sessions = {key: book.session(replace(request(), cache_key=key)) for key in "abab"}
    book.session(replace(request(), cache_key="c"))
    assert book.session(replace(request(), cache_key="b")) is sessions["b"]
    assert book.session(replace(request(), cache_key="a")) is not sessions["a"]


def test_a_response_that_goes_on_elsewhere_moves_its_place() -> None:
    """After a failure the one that answered has it."""
    book = SessionBook()
    session = book.session(request(name="r"))
    book.place("r", session, "alpha")
    book.place("r", session, "beta")
    assert book.keeper(request(name="c", parent=ROOT), session) == "beta"


def test_the_average_follows_the_latest_answers() -> None:
    """The first one is the average; later ones count for three tenths."""
    session = SessionBook().session(request())
    assert session.recent_output is None
    session.note_output(100)
    session.note_output(200)
    assert session.recent_output == 130
